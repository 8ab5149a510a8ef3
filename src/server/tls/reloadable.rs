//! The TLS setup of a running server, which renewed certificates replace.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio_rustls::TlsAcceptor;

use super::expiry::ExpiryWarnings;
use super::{CertificateExpiry, LoadedTls, TlsError, load};
use crate::config::{PemSource, TlsFiles};

/// Interval at which the files are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(10);

/// The TLS setup of a running server.
pub(crate) struct ReloadableTls {
    state: Mutex<TlsState>,
}

struct TlsState {
    files: TlsFiles,
    stamps: Vec<Option<FileStamp>>,
    loaded: LoadedTls,
    expiry_warnings: ExpiryWarnings,
}

/// Facts about a file that change when it is written or replaced, symbolic links followed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl FileStamp {
    /// Returns the stamp of a file; `None` if it is not there, or if the text is no file.
    fn read(source: &PemSource) -> Option<Self> {
        let PemSource::File(path) = source else { return None };
        let data = fs::metadata(path).ok()?;
        Some(FileStamp { modified: data.modified().ok(), length: data.len(), inode: data.ino() })
    }
}

fn stamps(files: &TlsFiles) -> Vec<Option<FileStamp>> {
    [Some(&files.key), Some(&files.cert), files.ca.as_ref(), files.client_ca.as_ref()]
        .into_iter()
        .flatten()
        .map(FileStamp::read)
        .collect()
}

impl TlsState {
    fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        // Before the files are read: a change during that is seen later.
        let stamps = stamps(files);
        let loaded = load(files)?;
        Ok(TlsState { files: files.clone(), stamps, loaded, expiry_warnings: ExpiryWarnings::default() })
    }
}

impl fmt::Debug for ReloadableTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReloadableTls").finish_non_exhaustive()
    }
}

impl ReloadableTls {
    /// Loads the files.
    ///
    /// # Errors
    /// A file cannot be read, or does not contain what it should.
    pub(crate) fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let tls = ReloadableTls { state: Mutex::new(TlsState::load(files)?) };
        tls.warn_of_expiry();
        Ok(tls)
    }

    /// Returns the acceptor for the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.state.lock().loaded.config).into()
    }

    /// Returns the expiry of the certificate, if that can be read.
    pub(crate) fn expiry(&self) -> Option<CertificateExpiry> {
        self.state.lock().loaded.expiry
    }

    /// Logs a warning that is due about the expiry of the certificate.
    fn warn_of_expiry(&self) {
        let state = &mut *self.state.lock();
        let Some(expiry) = state.loaded.expiry else { return };
        if let Some(warning) = state.expiry_warnings.due(expiry, SystemTime::now()) {
            tracing::warn!("the certificate {} {warning}", state.files.cert);
        }
    }

    /// Loads these files in place of the former ones. Open connections keep theirs.
    ///
    /// # Errors
    /// As for [`load`](Self::load); the former ones stay.
    pub(crate) fn reload(&self, files: &TlsFiles) -> Result<(), TlsError> {
        let state = TlsState::load(files)?;
        *self.state.lock() = state;
        self.warn_of_expiry();
        Ok(())
    }

    /// Loads the files again if they have changed. Returns true if they were loaded.
    fn reload_if_changed(&self) -> Result<bool, TlsError> {
        let (files, former) = {
            let state = self.state.lock();
            (state.files.clone(), state.stamps.clone())
        };
        let stamps = stamps(&files);
        if stamps == former {
            return Ok(false);
        }
        match self.reload(&files) {
            Ok(()) => Ok(true),
            Err(error) => {
                // Tried again when the files change again: a renewal may write one file after the other.
                self.state.lock().stamps = stamps;
                Err(error)
            }
        }
    }

    /// Loads the files again whenever they change, and warns of the expiry of the certificate; never returns.
    pub(crate) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let tls = Arc::clone(&self);
            // On a thread of its own, as reading files blocks.
            match tokio::task::spawn_blocking(move || tls.reload_if_changed()).await {
                Ok(Ok(true)) => tracing::info!("the certificate files have changed: reloaded"),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the certificate files have changed, and the former ones stay in use");
                }
                Ok(Ok(false)) | Err(_) => {}
            }
            self.warn_of_expiry();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
    }

    #[test]
    fn changed_files_are_loaded_and_a_bad_one_keeps_the_former() {
        let folder = std::env::temp_dir().join(format!("sigver-reload-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (key, cert) = (folder.join("key"), folder.join("cert"));
        fs::copy(fixture("ec-sec1.key"), &key).unwrap();
        fs::copy(fixture("ec.crt"), &cert).unwrap();
        let files = TlsFiles {
            key: PemSource::File(key),
            cert: PemSource::File(cert.clone()),
            ca: None,
            client_ca: None,
        };
        let tls = ReloadableTls::load(&files).unwrap();
        let in_use = || Arc::clone(&tls.state.lock().loaded.config);
        let first = in_use();
        assert!(!tls.reload_if_changed().unwrap());

        // A certificate that does not fit the key yet.
        fs::write(&cert, "").unwrap();
        assert!(tls.reload_if_changed().is_err());
        assert!(Arc::ptr_eq(&first, &in_use()));
        assert!(!tls.reload_if_changed().unwrap(), "it is tried once for each change");

        // A file that replaces the former one.
        let renewed = folder.join("renewed");
        fs::copy(fixture("ec.crt"), &renewed).unwrap();
        fs::rename(&renewed, &cert).unwrap();
        assert!(tls.reload_if_changed().unwrap());
        assert!(!Arc::ptr_eq(&first, &in_use()));
        fs::remove_dir_all(folder).unwrap();
    }
}
