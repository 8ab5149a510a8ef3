//! A certificate for 127.0.0.1 during the comparison. The load generator trusts `SSL_CERT_FILE`, which must
//! be set when a process starts: so this program runs itself again.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

/// Environment variable that passes the folder on.
const FOLDER: &str = "COMPARE_CERTIFICATE";

/// A folder with certificate and key, removed when dropped.
struct Folder(PathBuf);

/// Returns certificate and key, if this process has them.
pub fn files() -> Option<(PathBuf, PathBuf)> {
    env::var_os(FOLDER).map(|folder| within(Path::new(&folder)))
}

/// Creates a certificate, and runs this program with it.
pub fn run_with_certificate() -> Result<ExitCode> {
    let folder = Folder::create()?;
    let mut program = Command::new(env::current_exe().context("this program has no name")?);
    program.args(env::args_os().skip(1)).env(FOLDER, &folder.0).env("SSL_CERT_FILE", within(&folder.0).0);
    let status = program.status()?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

fn within(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("cert.pem"), folder.join("key.pem"))
}

impl Folder {
    /// Creates a self-signed certificate.
    fn create() -> Result<Folder> {
        let folder = Folder(env::temp_dir().join(format!("compare-{}", std::process::id())));
        fs::create_dir_all(&folder.0)?;
        let pair = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into(), "localhost".into()])?;
        let (cert, key) = within(&folder.0);
        fs::write(cert, pair.cert.pem())?;
        fs::write(key, pair.signing_key.serialize_pem())?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A leftover in the system's temporary folder does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}
