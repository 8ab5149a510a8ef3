//! The control socket: a Unix domain socket where the user who runs the server asks for its status. One line is
//! asked, the answer is a text, and its end that of the connection.
//!
//! It is a convenience: whatever goes wrong with it, the clients are served all the same.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::StatusService;
use crate::server::listener::accept_backoff;
use crate::server::telemetry::StatusQuery;

/// How long somebody may take to ask, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest line that is read.
const MAX_LINE: u64 = 200;

/// Root may do everything anyway.
const ROOT: u32 = 0;

/// A control socket. Its file goes with it.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Of the file: its device and number, and whose it is.
    file: (u64, u64),
    owner: u32,
}

impl AdminSocket {
    /// Opens a control socket at the first of these paths where that can be done.
    ///
    /// # Errors
    /// In one line why it cannot be done, at the first of them, or at one where another server answers: whoever asks
    /// there would not ask us. No paths are no error, and no socket.
    pub async fn open(paths: &[PathBuf]) -> Result<Option<AdminSocket>, String> {
        let mut why = None;
        for path in paths {
            match AdminSocket::at(path).await {
                Ok(control) => return Ok(Some(control)),
                Err(error) => {
                    let taken = error.kind() == io::ErrorKind::AddrInUse;
                    why.get_or_insert(format!("{}: {error}", path.display()));
                    if taken {
                        break;
                    }
                }
            }
        }
        why.map_or(Ok(None), Err)
    }

    async fn at(path: &Path) -> io::Result<AdminSocket> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path).await?;
                UnixListener::bind(path)?
            }
            other => other?,
        };
        // Who connects before this is looked at, too, when it is answered.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let file = fs::symlink_metadata(path)?;
        Ok(AdminSocket { listener, path: path.to_owned(), file: (file.dev(), file.ino()), owner: file.uid() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers whoever asks, without an end.
    pub async fn serve(&self, status: &StatusService) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) if self.may_ask(&stream) => {
                    let status = status.clone();
                    // A task of its own: who does not read must not keep others from asking.
                    tokio::spawn(async move {
                        let _ = tokio::time::timeout(PATIENCE, answer(stream, &status)).await;
                    });
                }
                Ok(_) => {}
                Err(error) => {
                    if let Some(pause) = accept_backoff(&error) {
                        tracing::error!(%error, "cannot answer on the control socket");
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
    }

    fn may_ask(&self, stream: &UnixStream) -> bool {
        stream.peer_cred().is_ok_and(|peer| [self.owner, ROOT].contains(&peer.uid()))
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // Somebody may have put another file there.
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes what a server left that could not clean up. By itself, a path is that of a port, and whoever is here has
/// that port: no other server comes between the question whether somebody answers and the removal.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let taken = |why| Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return taken("there is a file that is no socket");
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => taken("another server answers there"),
    }
}

async fn answer(stream: UnixStream, status: &StatusService) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(MAX_LINE).read_line(&mut line).await?;
    let text = match StatusQuery::parse(&line) {
        Some(asked) => status.written(asked).await,
        None => "error: asked for something else than 'status [json] [connections] [rooms]'\n".to_owned(),
    };
    let mut stream = stream.into_inner();
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of one's own that is there as long as this lives.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("sigver-control-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn a_socket_is_its_owners_and_goes_with_its_server() {
        let folder = Folder::new("owner");
        let path = folder.path("s");
        let control = AdminSocket::open(std::slice::from_ref(&path)).await.unwrap().unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = AdminSocket::open(std::slice::from_ref(&path)).await.unwrap_err();
        assert!(refused.ends_with("/s: another server answers there"), "{refused}");
        drop(control);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_was_left_behind_is_replaced_and_nothing_else() {
        let folder = Folder::new("stale");
        let stale = folder.path("stale");
        // Closing does not remove the file: so it is after a crash.
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        assert!(stale.exists());
        let control = AdminSocket::open(std::slice::from_ref(&stale)).await.unwrap().unwrap();
        // A file that somebody else put there is left alone at the end.
        fs::remove_file(&stale).unwrap();
        fs::write(&stale, "").unwrap();
        drop(control);
        assert!(stale.exists());
        let refused = AdminSocket::open(std::slice::from_ref(&stale)).await.unwrap_err();
        assert!(refused.ends_with("/stale: there is a file that is no socket"), "{refused}");
        assert!(stale.exists());
    }

    #[tokio::test]
    async fn the_next_place_is_taken_where_the_first_is_none() {
        let folder = Folder::new("places");
        let (nowhere, here) = (folder.path("nowhere/s"), folder.path("s"));
        let control = AdminSocket::open(&[nowhere.clone(), here.clone()]).await.unwrap().unwrap();
        assert_eq!(control.path(), here);
        assert!(AdminSocket::open(&[]).await.unwrap().is_none());
        assert!(AdminSocket::open(&[nowhere]).await.unwrap_err().contains("nowhere/s: "));
    }
}
