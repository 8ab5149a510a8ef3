//! The control socket: a Unix domain socket on which the user who runs the server asks for its status. A
//! client sends one line, and receives a text up to the end of the connection.
//!
//! A failure of this socket never affects the clients of the gateway.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::{StatusQuery, StatusService};
use crate::server::listener::AcceptFailures;
use crate::server::unix_socket::{UnixSocket, UnixSocketError};

/// Longest time for one request and its response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest request line, in bytes.
const MAX_LINE: u64 = 200;

/// A control socket. Dropping it removes its file.
#[derive(Debug)]
pub(crate) struct AdminSocket(UnixSocket);

impl AdminSocket {
    /// Opens a control socket at the first usable one of `paths`. Returns `None` if there are no paths.
    ///
    /// # Errors
    /// No path is usable (the error is that of the first), or a path is in use: a client that finds the other
    /// server at that path would never get as far as the next one.
    pub(crate) async fn open(paths: &[PathBuf]) -> Result<Option<AdminSocket>, UnixSocketError> {
        let mut first_error = None;
        for path in paths {
            match UnixSocket::bind_private(path).await {
                Ok(socket) => return Ok(Some(AdminSocket(socket))),
                Err(error) => {
                    let in_use = !matches!(error, UnixSocketError::Io { .. });
                    first_error.get_or_insert(error);
                    if in_use {
                        break;
                    }
                }
            }
        }
        first_error.map_or(Ok(None), Err)
    }

    /// Answers requests at the socket that [`open`](Self::open) opened, or could not yet; never returns.
    pub(crate) async fn serve_opened(
        opened: &Result<Option<AdminSocket>, UnixSocketError>,
        status: &StatusService,
    ) {
        match opened {
            Ok(Some(socket)) => socket.serve(status).await,
            Err(UnixSocketError::InUse(path)) => {
                AdminSocket(UnixSocket::bind_private_when_free(path).await).serve(status).await;
            }
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Answers requests; never returns.
    pub(crate) async fn serve(&self, status: &StatusService) {
        let mut failures = AcceptFailures::default();
        loop {
            match self.0.listener.accept().await {
                Ok((stream, _)) if self.0.is_authorized(&stream) => {
                    let status = status.clone();
                    // A task for each request, so that a client that does not read delays no other.
                    tokio::spawn(async move {
                        let _ = tokio::time::timeout(REQUEST_TIMEOUT, respond(stream, &status)).await;
                    });
                }
                Ok(_) => {}
                Err(error) => {
                    if let Some(pause) = failures.backoff(&error) {
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
    }
}

async fn respond(stream: UnixStream, status: &StatusService) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(MAX_LINE).read_line(&mut line).await?;
    let text = match StatusQuery::parse_line(&line) {
        Some((query, format)) => status.render(query, format).await,
        None => "error: expected 'status [json] [connections] [rooms] [all]'\n".to_owned(),
    };
    let mut stream = stream.into_inner();
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

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
        assert!(matches!(&error, UnixSocketError::InUse(at) if *at == path), "{error}");
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
        assert!(matches!(&error, UnixSocketError::NotASocket(at) if *at == stale), "{error}");
        assert!(stale.exists());
    }

    #[tokio::test]
    async fn next_path_is_used_if_the_first_is_unusable() {
        let dir = TempDir::new("places");
        let (missing, usable) = (dir.path("missing/s"), dir.path("s"));
        let socket = AdminSocket::open(&[missing.clone(), usable.clone()]).await.unwrap().unwrap();
        assert_eq!(socket.0.path(), usable);
        assert!(AdminSocket::open(&[]).await.unwrap().is_none());
        let error = AdminSocket::open(std::slice::from_ref(&missing)).await.unwrap_err();
        assert!(matches!(&error, UnixSocketError::Io { path, .. } if *path == missing), "{error}");
    }
}
