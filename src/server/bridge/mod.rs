//! The bridge between the generations of clients, as the gateway sees it: a process of its own, at a Unix
//! socket. The gateway reports who is in which room, and lets the peers of the bridge into the rooms, where
//! they negotiate with one client each. What clients send over data channels never passes here.

mod connection;
mod key_table;
mod link;
mod peers;
mod process;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use thiserror::Error;
use tokio::sync::Notify;

use super::conn::{Shared, Shutdown};
use super::hub::Hub;
use super::listener::AcceptFailures;
use super::telemetry::BridgeReport;
use super::unix_socket::{UnixSocket, UnixSocketError};
use crate::config::redact::displayed_path;
use crate::config::{AdminSocketPath, Config};
pub(in crate::server) use link::BridgeLink;
use process::BridgeProcess;

/// Failure to open the way for a bridge.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BridgeStartError {
    /// The socket cannot be opened.
    #[error("no socket for the bridge: {0}")]
    Socket(#[from] UnixSocketError),
    /// There is no directory for the socket.
    #[error("no socket for the bridge: name one with --bridge-socket <path>")]
    NoDirectory,
    /// The program's own path is not known.
    #[error("cannot start the bridge: {0}")]
    Program(#[source] io::Error),
}

/// The socket of the bridge.
#[derive(Debug)]
enum BridgeSocket {
    Open(UnixSocket),
    /// Another gateway has it: very likely one that drains, as this one takes over from it.
    InUse(PathBuf),
}

/// The socket of the bridge, and its process if the gateway starts it.
#[derive(Debug)]
pub(super) struct BridgeService {
    socket: BridgeSocket,
    process: Option<BridgeProcess>,
    link: Arc<BridgeLink>,
    hub: Arc<Hub>,
    shutdown: Arc<Shutdown>,
}

impl BridgeLink {
    /// Returns the report.
    pub(in crate::server) fn report(&self) -> BridgeReport {
        let (reported, counts) = (self.reported(), self.counts());
        let keys = reported.unwrap_or_default();
        BridgeReport {
            connected: reported.is_some(),
            connections: counts.connections.load(Ordering::Relaxed),
            keys: keys.keys as u64,
            members: keys.members as u64,
            calls: counts.calls.load(Ordering::Relaxed),
            callers: counts.callers.load(Ordering::Relaxed),
            failed_calls: counts.failed_calls.load(Ordering::Relaxed),
            process: self.figures(),
        }
    }
}

impl BridgeService {
    /// Opens the socket at the first usable of `paths` for a bridge of these rooms.
    ///
    /// # Errors
    /// No path is usable, or the program's own path is not known.
    pub(super) async fn open(
        config: &Config,
        paths: &[PathBuf],
        shared: &Shared,
    ) -> Result<BridgeService, BridgeStartError> {
        let mut opened = Err(BridgeStartError::NoDirectory);
        for path in paths {
            opened = UnixSocket::bind_private(path).await.map_err(Into::into);
            if opened.is_ok() {
                break;
            }
        }
        // Another user can have taken the names in a directory for all.
        if opened.is_err()
            && !config.bridge.listen.is_empty()
            && matches!(config.bridge.socket, AdminSocketPath::InFirstOf(_))
        {
            let name = format!("sigver-bridge-{:016x}.sock", fastrand::u64(..));
            opened = UnixSocket::bind_private(&std::env::temp_dir().join(name)).await.map_err(Into::into);
        }
        let socket = match opened {
            Ok(socket) => BridgeSocket::Open(socket),
            Err(BridgeStartError::Socket(UnixSocketError::InUse(path))) => BridgeSocket::InUse(path),
            Err(error) => return Err(error),
        };
        let process = match config.bridge.listen.is_empty() {
            true => None,
            false => Some(BridgeProcess::new(config, socket.path()).map_err(BridgeStartError::Program)?),
        };
        let link = BridgeLink::new(&shared.policy, &shared.telemetry);
        shared.hub.set_bridge(Arc::clone(&link) as _);
        let (hub, shutdown) = (Arc::clone(&shared.hub), Arc::clone(&shared.shutdown));
        Ok(BridgeService { socket, process, link, hub, shutdown })
    }

    /// Returns the way to the bridge, for reports.
    pub(super) fn link(&self) -> &Arc<BridgeLink> {
        &self.link
    }

    /// Serves the bridge and keeps its process running, until `rest` is ready. The process is stopped as soon
    /// as the connections close.
    pub(super) async fn run_with(self, rest: impl Future<Output = ()>) {
        let BridgeService { socket, process, link, hub, shutdown } = self;
        let opened = Notify::new();
        let run_process = async {
            if let Some(mut process) = process {
                tokio::select! {
                    () = opened.notified() => process.run(&link, &shutdown).await,
                    () = shutdown.closing() => {}
                }
            }
        };
        let serve = async {
            let socket = socket.open().await;
            opened.notify_one();
            serve(&socket, &link, &hub).await;
        };
        tokio::select! {
            _ = async { tokio::join!(rest, run_process) } => {}
            () = serve => {}
        }
    }
}

impl BridgeSocket {
    fn path(&self) -> &Path {
        match self {
            BridgeSocket::Open(socket) => socket.path(),
            BridgeSocket::InUse(path) => path,
        }
    }

    /// Returns the socket once no other gateway has it.
    async fn open(self) -> UnixSocket {
        match self {
            BridgeSocket::Open(socket) => socket,
            BridgeSocket::InUse(path) => {
                let shown = displayed_path(&path);
                tracing::warn!(socket = %shown, "another gateway has the socket of the bridge: waiting until it ends");
                UnixSocket::bind_private_when_free(&path).await
            }
        }
    }
}

/// Serves one bridge after the other; never returns. The next one waits until the last has ended.
async fn serve(socket: &UnixSocket, link: &Arc<BridgeLink>, hub: &Arc<Hub>) {
    let mut failures = AcceptFailures::default();
    loop {
        match socket.listener.accept().await {
            Ok((stream, _)) if socket.is_authorized(&stream) => connection::serve(stream, link, hub).await,
            Ok(_) => tracing::warn!("a process of another user tried to connect as the bridge"),
            Err(error) => {
                if let Some(pause) = failures.backoff(&error) {
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}
