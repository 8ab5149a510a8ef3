//! A certificate for 127.0.0.1, for as long as the comparison runs. The load trusts whom `SSL_CERT_FILE` names, which a
//! process must have from its start: so this program starts itself again.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

/// Where the second one finds the folder.
const FOLDER: &str = "COMPARE_CERTIFICATE";

/// A folder with the certificate and its key. It goes when it is dropped.
struct Folder(PathBuf);

/// The certificate and its key, if this is the program that has one.
pub fn files() -> Option<(PathBuf, PathBuf)> {
    env::var_os(FOLDER).map(|folder| within(Path::new(&folder)))
}

/// Makes a certificate, and runs this program with it: how that went.
pub fn again_with_a_certificate() -> Result<ExitCode> {
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
    /// With a certificate that signs itself.
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
        // It is the system's temporary folder: what is left there is cleared some day.
        let _ = fs::remove_dir_all(&self.0);
    }
}
