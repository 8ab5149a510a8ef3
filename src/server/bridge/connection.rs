//! The connection of a bridge: its socket, and the end of everything that it has in rooms.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Instant;

use super::link::{BridgeLink, BridgeQueues};
use super::peers::{BridgePeers, UnexpectedMessage};
use crate::protocol::mesh::{BRIDGE_MESSAGE_VERSION, BridgeMessage, BridgeMessageError};
use crate::server::clock;
use crate::server::hub::Hub;
use crate::server::write_timeout::WriteTimeout;

/// Longest time for the first message of a bridge.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time in which a bridge reads nothing of what waits for it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time without a message after which a bridge, which reports its figures every second, is disconnected.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest delay of a timer of a process that runs.
const MAX_LATENESS: Duration = Duration::from_secs(1);

/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;

/// Cause of the end of a connection.
#[derive(Debug, Error)]
pub(super) enum BridgeConnectionError {
    /// The bridge closed the connection, or the process ended.
    #[error("the bridge closed the connection")]
    Closed,
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The messages are of another version.
    #[error("the bridge speaks version {0} of the messages, and this gateway {BRIDGE_MESSAGE_VERSION}")]
    Version(u32),
    /// A message cannot be understood.
    #[error("{0}")]
    Message(#[from] BridgeMessageError),
    /// A message is not for the gateway, or not at this time.
    #[error("{0}")]
    Unexpected(#[from] UnexpectedMessage),
    /// The bridge does not read what waits for it.
    #[error("the bridge does not read what it is sent")]
    Slow,
    /// Too much waits for the bridge.
    #[error("more waits for the bridge than may")]
    Overfull,
    /// The process hangs, or its machine does.
    #[error("the bridge has sent nothing for {} s", SILENCE_TIMEOUT.as_secs())]
    Hung,
    /// The bridge does not introduce itself.
    #[error("the process that connected sent no hello")]
    Silent,
}

/// The end of a connection: the bridge knows no room any more, and its peers leave.
#[derive(Debug)]
struct ConnectionEnd<'a> {
    link: &'a BridgeLink,
    queues: &'a BridgeQueues,
}

impl Drop for ConnectionEnd<'_> {
    fn drop(&mut self) {
        self.link.disconnect(self.queues);
    }
}

/// The way to a bridge, which has to read something of what waits for it.
type BridgeWriter = WriteTimeout<OwnedWriteHalf>;

/// A connection whose process introduced itself as a bridge.
#[derive(Debug)]
struct Greeted {
    reader: OwnedReadHalf,
    writer: BridgeWriter,
    received: BytesMut,
    instance: u32,
}

/// Serves a bridge until its connection ends.
pub(super) async fn serve(stream: UnixStream, link: &Arc<BridgeLink>, hub: &Arc<Hub>) {
    let process = stream.peer_cred().ok().and_then(|peer| u32::try_from(peer.pid()?).ok());
    match greet(stream).await {
        Ok(greeted) => {
            let error = run(greeted, link, hub).await.err().unwrap_or(BridgeConnectionError::Closed);
            if matches!(error, BridgeConnectionError::Hung | BridgeConnectionError::Slow) {
                link.hung.report(process);
            }
            tracing::warn!(%error, "bridge disconnected");
        }
        // Another gateway that tries the socket, or a bridge that stopped while it waited.
        Err(error @ (BridgeConnectionError::Closed | BridgeConnectionError::Io(_))) => {
            tracing::debug!(%error, "a connection to the bridge's socket ended at once");
        }
        Err(error) => tracing::warn!(%error, "refused a connection to the socket of the bridge"),
    }
}

async fn greet(stream: UnixStream) -> Result<Greeted, BridgeConnectionError> {
    let (mut reader, writer) = stream.into_split();
    let mut writer = WriteTimeout::new(writer, WRITE_TIMEOUT);
    let mut hello = BytesMut::new();
    BridgeMessage::Hello { version: BRIDGE_MESSAGE_VERSION, instance: 0 }.write(&mut hello);
    write(&mut writer, &hello).await?;
    let mut received = BytesMut::new();
    let first = tokio::time::timeout(HELLO_TIMEOUT, next_message(&mut reader, &mut received)).await;
    match first.map_err(|_| BridgeConnectionError::Silent)?? {
        BridgeMessage::Hello { version, .. } if version != BRIDGE_MESSAGE_VERSION => {
            Err(BridgeConnectionError::Version(version))
        }
        BridgeMessage::Hello { instance, .. } => Ok(Greeted { reader, writer, received, instance }),
        _ => Err(UnexpectedMessage.into()),
    }
}

async fn run(greeted: Greeted, link: &Arc<BridgeLink>, hub: &Arc<Hub>) -> Result<(), BridgeConnectionError> {
    let Greeted { reader, writer, received, instance } = greeted;
    let queues = Arc::new(BridgeQueues::default());
    // Dropped after the peers, which leave rooms in which others can still find an entry otherwise.
    let peers = BridgePeers::new(hub, link, &queues);
    link.connect(instance, &queues);
    let _end = ConnectionEnd { link, queues: &queues };
    tracing::info!("bridge connected");
    tokio::select! {
        result = write_queued(writer, &queues) => result,
        result = handle(reader, received, &queues, peers) => result,
    }
}

/// Sends what is queued, until the bridge does not read it.
async fn write_queued(mut writer: BridgeWriter, queues: &BridgeQueues) -> Result<(), BridgeConnectionError> {
    loop {
        queues.message_added.notified().await;
        let bytes = queues.take_messages().ok_or(BridgeConnectionError::Overfull)?;
        write(&mut writer, &bytes).await?;
    }
}

async fn write(writer: &mut BridgeWriter, bytes: &[u8]) -> Result<(), BridgeConnectionError> {
    writer.write_all(bytes).await.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => BridgeConnectionError::Slow,
        _ => error.into(),
    })
}

/// Handles what the bridge sends, what its peers receive, and what is due.
async fn handle(
    mut reader: OwnedReadHalf,
    mut received: BytesMut,
    queues: &BridgeQueues,
    mut peers: BridgePeers,
) -> Result<(), BridgeConnectionError> {
    let mut silent_at = Instant::now() + SILENCE_TIMEOUT;
    loop {
        let deadline = peers.deadline();
        let timeout = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = next_message(&mut reader, &mut received) => {
                peers.handle(message?)?;
                silent_at = Instant::now() + SILENCE_TIMEOUT;
            }
            () = tokio::time::sleep_until(silent_at) => {
                let now = Instant::now();
                // If this process was stopped itself, it has not read what the bridge sent.
                let next = next_message(&mut reader, &mut received);
                match tokio::time::timeout(Duration::ZERO, next).await {
                    Ok(message) => peers.handle(message?)?,
                    Err(_) if now <= silent_at + MAX_LATENESS => return Err(BridgeConnectionError::Hung),
                    Err(_) => {}
                }
                silent_at = now + SILENCE_TIMEOUT;
            }
            () = queues.event_added.notified() => peers.handle_events(),
            () = timeout => peers.on_timeout(clock::now()),
        }
    }
}

/// Returns the next message. Nothing is lost if it is dropped before.
async fn next_message(
    reader: &mut OwnedReadHalf,
    received: &mut BytesMut,
) -> Result<BridgeMessage, BridgeConnectionError> {
    loop {
        if let Some(message) = BridgeMessage::take(received)? {
            return Ok(message);
        }
        received.reserve(READ_BYTES);
        if reader.read_buf(received).await? == 0 {
            return Err(BridgeConnectionError::Closed);
        }
    }
}
