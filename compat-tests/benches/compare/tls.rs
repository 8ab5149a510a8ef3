//! A certificate for 127.0.0.1, for as long as the comparison runs.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

/// A folder with the certificate and its key. It goes when it is dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// With a certificate that signs itself.
    pub fn create() -> Result<Folder> {
        let folder = Folder(std::env::temp_dir().join(format!("compare-{}", std::process::id())));
        fs::create_dir_all(&folder.0)?;
        let pair = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into(), "localhost".into()])?;
        let (cert, key) = folder.files();
        fs::write(cert, pair.cert.pem())?;
        fs::write(key, pair.signing_key.serialize_pem())?;
        Ok(folder)
    }

    /// The certificate, and its key.
    pub fn files(&self) -> (PathBuf, PathBuf) {
        (self.0.join("cert.pem"), self.0.join("key.pem"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It is the system's temporary folder: what is left there is cleared some day.
        let _ = fs::remove_dir_all(&self.0);
    }
}
