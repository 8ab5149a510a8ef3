//! A listening Unix domain socket and its file.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};

use crate::config::io_text::create_error_text;
use crate::config::redact::displayed_path;
use crate::socket_user::is_owner_or_root;

/// Mode of a socket to which its user alone may connect.
const PRIVATE_MODE: u32 = 0o600;

/// Time between two attempts to open a socket that another server uses.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Failure to open a Unix domain socket.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UnixSocketError {
    /// A server is using the socket.
    #[error("{}: another server answers there", displayed_path(.0))]
    InUse(PathBuf),
    /// The path is that of another file.
    #[error("{}: there is a file that is no socket", displayed_path(.0))]
    NotASocket(PathBuf),
    /// The socket cannot be created.
    #[error("cannot open {}: {}", displayed_path(path), create_error_text(source))]
    Io {
        /// Path of the socket.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// A listening Unix domain socket. Dropping it removes its file.
#[derive(Debug)]
pub(crate) struct UnixSocket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file_id: (u64, u64),
    owner: u32,
}

impl UnixSocket {
    /// Listens at `path`, in place of the socket of a server that crashed. `mode` is that of the file.
    ///
    /// # Errors
    /// The path cannot be used, or is in use.
    pub(crate) async fn bind(path: &Path, mode: u32) -> Result<UnixSocket, UnixSocketError> {
        let io_error = |source| UnixSocketError::Io { path: path.to_owned(), source };
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path).await?;
                UnixListener::bind(path)
            }
            other => other,
        }
        .map_err(io_error)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io_error)?;
        let file = fs::symlink_metadata(path).map_err(io_error)?;
        Ok(UnixSocket {
            listener,
            path: path.to_owned(),
            file_id: (file.dev(), file.ino()),
            owner: file.uid(),
        })
    }

    /// Path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Listens at `path` for processes of the same user, as [`bind`](Self::bind) does.
    ///
    /// # Errors
    /// The path cannot be used, or is in use.
    pub(crate) async fn bind_private(path: &Path) -> Result<UnixSocket, UnixSocketError> {
        Self::bind(path, PRIVATE_MODE).await
    }

    /// Listens at `path` for processes of the same user, as soon as the other server there has closed its own
    /// socket: one that drains while this one serves already.
    pub(crate) async fn bind_private_when_free(path: &Path) -> UnixSocket {
        loop {
            tokio::time::sleep(RETRY_INTERVAL).await;
            if let Ok(socket) = Self::bind_private(path).await {
                return socket;
            }
        }
    }

    /// Returns true if a client is a process of the owner of the file or of root. It may have connected
    /// before the file had its mode.
    pub(crate) fn is_authorized(&self, client: &UnixStream) -> bool {
        client.peer_cred().is_ok_and(|peer| is_owner_or_root(peer.uid(), self.owner))
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // The file may have been replaced since.
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.file_id);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the socket of a server that crashed.
async fn remove_stale(path: &Path) -> Result<(), UnixSocketError> {
    let io_error = |source| UnixSocketError::Io { path: path.to_owned(), source };
    if !fs::symlink_metadata(path).map_err(io_error)?.file_type().is_socket() {
        return Err(UnixSocketError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(io_error)
        }
        Err(error) => Err(io_error(error)),
        Ok(_) => Err(UnixSocketError::InUse(path.to_owned())),
    }
}
