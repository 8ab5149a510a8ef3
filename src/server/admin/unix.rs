//! The control socket: a Unix domain socket on which the user who runs the server asks for its status. A
//! client sends one line, and receives a text up to the end of the connection.
//!
//! A failure of this socket never affects the clients of the gateway.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::{StatusQuery, StatusService};
use crate::config::redact::displayed_path;
use crate::server::listener::accept_backoff;

/// Longest time for one request and its response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest request line, in bytes.
const MAX_LINE: u64 = 200;

/// User id of root, which may ask as well.
const ROOT: u32 = 0;

/// Failure to open the control socket.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdminSocketError {
    /// A server is using the socket.
    #[error("{}: another server answers there", displayed_path(.0))]
    InUse(PathBuf),
    /// The path is that of another file.
    #[error("{}: there is a file that is no socket", displayed_path(.0))]
    NotASocket(PathBuf),
    /// The socket cannot be created.
    #[error("cannot open {}: {source}", displayed_path(path))]
    Io {
        /// Path of the socket.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// A control socket. Dropping it removes its file.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file_id: (u64, u64),
    owner: u32,
}

impl AdminSocket {
    /// Opens a control socket at the first usable one of `paths`. Returns `None` if there are no paths.
    ///
    /// # Errors
    /// No path is usable (the error is that of the first), or a path is in use: a client that finds the other
    /// server at that path would never get as far as the next one.
    pub async fn open(paths: &[PathBuf]) -> Result<Option<AdminSocket>, AdminSocketError> {
        let mut first_error = None;
        for path in paths {
            match AdminSocket::bind(path).await {
                Ok(socket) => return Ok(Some(socket)),
                Err(error) => {
                    let in_use = !matches!(error, AdminSocketError::Io { .. });
                    first_error.get_or_insert(error);
                    if in_use {
                        break;
                    }
                }
            }
        }
        first_error.map_or(Ok(None), Err)
    }

    async fn bind(path: &Path) -> Result<AdminSocket, AdminSocketError> {
        let io_error = |source| AdminSocketError::Io { path: path.to_owned(), source };
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path).await?;
                UnixListener::bind(path)
            }
            other => other,
        }
        .map_err(io_error)?;
        // A client that connects before this is still checked by `is_authorized`.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(io_error)?;
        let file = fs::symlink_metadata(path).map_err(io_error)?;
        Ok(AdminSocket {
            listener,
            path: path.to_owned(),
            file_id: (file.dev(), file.ino()),
            owner: file.uid(),
        })
    }

    /// Path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers requests; never returns.
    pub async fn serve(&self, status: &StatusService) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) if self.is_authorized(&stream) => {
                    let status = status.clone();
                    // A task for each request, so that a client that does not read delays no other.
                    tokio::spawn(async move {
                        let _ = tokio::time::timeout(REQUEST_TIMEOUT, respond(stream, &status)).await;
                    });
                }
                Ok(_) => {}
                Err(error) => {
                    if let Some(pause) = accept_backoff(&error) {
                        tracing::error!(%error, "cannot accept connections on the control socket");
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
    }

    /// Returns true if the client is the owner of the socket or root.
    fn is_authorized(&self, stream: &UnixStream) -> bool {
        stream.peer_cred().is_ok_and(|peer| [self.owner, ROOT].contains(&peer.uid()))
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // The file may have been replaced since.
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.file_id);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the socket of a server that crashed. The default path contains the port, which this process holds:
/// no other server can take the path between the check and the removal.
async fn remove_stale(path: &Path) -> Result<(), AdminSocketError> {
    let io_error = |source| AdminSocketError::Io { path: path.to_owned(), source };
    if !fs::symlink_metadata(path).map_err(io_error)?.file_type().is_socket() {
        return Err(AdminSocketError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(io_error)
        }
        Err(error) => Err(io_error(error)),
        Ok(_) => Err(AdminSocketError::InUse(path.to_owned())),
    }
}

async fn respond(stream: UnixStream, status: &StatusService) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(MAX_LINE).read_line(&mut line).await?;
    let text = match StatusQuery::parse_line(&line) {
        Some((query, format)) => status.render(query, format).await,
        None => "error: expected 'status [json] [connections] [rooms]'\n".to_owned(),
    };
    let mut stream = stream.into_inner();
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A temporary directory, removed when dropped.
    struct TempDir(PathBuf);

    impl TempDir {
        fn new(name: &str) -> TempDir {
            let path = std::env::temp_dir().join(format!("sigver-control-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            TempDir(path)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for TempDir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn socket_is_private_and_removed_on_drop() {
        let dir = TempDir::new("owner");
        let path = dir.path("s");
        let socket = AdminSocket::open(std::slice::from_ref(&path)).await.unwrap().unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = AdminSocket::open(std::slice::from_ref(&path)).await.unwrap_err();
        assert!(matches!(&error, AdminSocketError::InUse(at) if *at == path), "{error}");
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn only_a_stale_socket_is_replaced() {
        let dir = TempDir::new("stale");
        let stale = dir.path("stale");
        // Closing a listener leaves its file behind, as a crash does.
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        assert!(stale.exists());
        let socket = AdminSocket::open(std::slice::from_ref(&stale)).await.unwrap().unwrap();
        // A file that replaced the socket is not removed.
        fs::remove_file(&stale).unwrap();
        fs::write(&stale, "").unwrap();
        drop(socket);
        assert!(stale.exists());
        let error = AdminSocket::open(std::slice::from_ref(&stale)).await.unwrap_err();
        assert!(matches!(&error, AdminSocketError::NotASocket(at) if *at == stale), "{error}");
        assert!(stale.exists());
    }

    #[tokio::test]
    async fn next_path_is_used_if_the_first_is_unusable() {
        let dir = TempDir::new("places");
        let (missing, usable) = (dir.path("missing/s"), dir.path("s"));
        let socket = AdminSocket::open(&[missing.clone(), usable.clone()]).await.unwrap().unwrap();
        assert_eq!(socket.path(), usable);
        assert!(AdminSocket::open(&[]).await.unwrap().is_none());
        let error = AdminSocket::open(std::slice::from_ref(&missing)).await.unwrap_err();
        assert!(matches!(&error, AdminSocketError::Io { path, .. } if *path == missing), "{error}");
    }
}
