//! The connection to the gateway, which is made again whenever it is lost.

use std::fmt::Display;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};
use rustix::process::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::bridge::engine::BridgeEngine;
use crate::protocol::mesh::{BRIDGE_MESSAGE_VERSION, BridgeMessage, BridgeMessageError};
use crate::socket_user::{ROOT, is_owner_or_root};

/// Delay before the gateway is connected to again.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// Delay if it speaks another version.
const VERSION_RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// Room for what is read at once.
const READ_SIZE: usize = 64 << 10;
/// Delay until a gateway that sends nothing is reported.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes that wait for the gateway. With more it is disconnected from.
const MAX_UNSENT: usize = 8 << 20;

/// Reason why the gateway is disconnected from.
#[derive(Debug, Error)]
pub(super) enum GatewayLinkError {
    #[error("closed by the gateway")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Message(#[from] BridgeMessageError),
    #[error("the gateway speaks version {0} of the bridge's messages, this program {BRIDGE_MESSAGE_VERSION}")]
    Version(u32),
    #[error("the gateway does not read what it is sent")]
    Full,
}

/// Returns the connection if the gateway's user is that of this process or root. A process of root may serve
/// the gateway of any user.
fn checked(stream: UnixStream) -> io::Result<UnixStream> {
    let (own, gateway) = (geteuid().as_raw(), stream.peer_cred()?.uid());
    match own == ROOT || is_owner_or_root(gateway, own) {
        true => Ok(stream),
        false => {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, "a process of another user answers there"))
        }
    }
}

/// Something that happened to the connection.
#[derive(Debug)]
pub(super) enum GatewayLinkEvent {
    /// The connection is made.
    Connected(UnixStream),
    /// The connection was not made.
    NotConnected(io::Error),
    /// The gateway has sent nothing yet.
    Silent,
    /// There are bytes in the buffer.
    Received,
    /// Bytes were sent.
    Sent,
    /// The connection is lost.
    Lost(GatewayLinkError),
}

#[derive(Debug)]
struct Link {
    stream: UnixStream,
    received: BytesMut,
    unsent: BytesMut,
    /// The gateway's version is known, and is ours.
    is_greeted: bool,
    /// Time at which a gateway that sends nothing is reported.
    silent_at: Option<Instant>,
}

/// The connection to the gateway.
#[derive(Debug)]
pub(super) struct GatewayLink {
    path: PathBuf,
    /// Random number, from which every gateway derives the same numbers of rooms.
    instance: u32,
    link: Option<Link>,
    retry_at: Instant,
    /// Cause for which there is no connection, once it was logged.
    reported: Option<String>,
}

/// Connects to a socket without waiting, so that no connection is made that a caller gives up.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    UnixStream::from_std(OwnedFd::from(socket).into())
}

impl GatewayLink {
    pub(super) fn new(path: PathBuf) -> Self {
        GatewayLink {
            path,
            instance: fastrand::u32(1..),
            link: None,
            retry_at: Instant::now(),
            reported: None,
        }
    }

    /// Waits for the next event. What is done while waiting is not lost if the caller stops.
    pub(super) async fn next(&mut self) -> GatewayLinkEvent {
        let Some(link) = &mut self.link else {
            tokio::time::sleep_until(self.retry_at.into()).await;
            let connected = connect(&self.path).and_then(checked);
            return connected.map_or_else(GatewayLinkEvent::NotConnected, GatewayLinkEvent::Connected);
        };
        link.received.reserve(READ_SIZE);
        let silent_at = link.silent_at;
        let silence = async {
            match silent_at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let (mut reader, mut writer) = link.stream.split();
        let result = tokio::select! {
            read = reader.read_buf(&mut link.received) => match read {
                Ok(0) => Err(GatewayLinkError::Closed),
                Ok(_) => Ok(GatewayLinkEvent::Received),
                Err(error) => Err(error.into()),
            },
            written = writer.write(&link.unsent), if !link.unsent.is_empty() => match written {
                Ok(length) => {
                    link.unsent.advance(length);
                    Ok(GatewayLinkEvent::Sent)
                }
                Err(error) => Err(error.into()),
            },
            () = silence => Ok(GatewayLinkEvent::Silent),
        };
        result.unwrap_or_else(GatewayLinkEvent::Lost)
    }

    /// Does what follows from an event.
    pub(super) fn take(&mut self, event: GatewayLinkEvent, engine: &mut BridgeEngine) {
        match event {
            GatewayLinkEvent::Connected(stream) => {
                let mut unsent = BytesMut::new();
                let hello = BridgeMessage::Hello { version: BRIDGE_MESSAGE_VERSION, instance: self.instance };
                hello.write(&mut unsent);
                let silent_at = Some(Instant::now() + HELLO_TIMEOUT);
                self.link =
                    Some(Link { stream, received: BytesMut::new(), unsent, is_greeted: false, silent_at });
            }
            GatewayLinkEvent::NotConnected(error) => {
                self.report(&error);
                self.retry_at = Instant::now() + RETRY_INTERVAL;
            }
            GatewayLinkEvent::Silent => {
                if let Some(link) = &mut self.link {
                    link.silent_at = None;
                }
                self.report(&"the gateway does not answer; perhaps another bridge is connected to it");
            }
            GatewayLinkEvent::Received => {
                if let Err(error) = self.read(engine) {
                    self.lose(&error, engine);
                }
            }
            GatewayLinkEvent::Sent => {}
            GatewayLinkEvent::Lost(error) => self.lose(&error, engine),
        }
    }

    fn read(&mut self, engine: &mut BridgeEngine) -> Result<(), GatewayLinkError> {
        let Some(link) = &mut self.link else { return Ok(()) };
        while let Some(message) = BridgeMessage::take(&mut link.received)? {
            match message {
                BridgeMessage::Hello { version: BRIDGE_MESSAGE_VERSION, .. } => {
                    link.is_greeted = true;
                    link.silent_at = None;
                    self.reported = None;
                    tracing::info!("connected to the gateway");
                    engine.connect_gateway();
                }
                BridgeMessage::Hello { version, .. } => return Err(GatewayLinkError::Version(version)),
                message if link.is_greeted => engine.receive(message, Instant::now()),
                _ => return Err(BridgeMessageError::Malformed.into()),
            }
        }
        Ok(())
    }

    /// Logs why there is no connection, once.
    fn report(&mut self, cause: &dyn Display) {
        let cause = cause.to_string();
        if self.reported.as_ref() != Some(&cause) {
            tracing::warn!(socket = %self.path.display(), %cause, "not connected with the gateway; retrying");
            self.reported = Some(cause);
        }
    }

    fn lose(&mut self, error: &GatewayLinkError, engine: &mut BridgeEngine) {
        if self.link.as_ref().is_some_and(|link| link.is_greeted) {
            tracing::warn!(%error, "the gateway is lost: no client joins bridged rooms until it is back");
        } else {
            self.report(error);
        }
        let is_other_version = matches!(error, GatewayLinkError::Version(_));
        let delay = if is_other_version { VERSION_RETRY_INTERVAL } else { RETRY_INTERVAL };
        self.retry_at = Instant::now() + delay;
        self.link = None;
        engine.lose_gateway(Instant::now());
    }

    /// Sends messages, or has them wait.
    pub(super) fn send(&mut self, messages: Vec<BridgeMessage>, engine: &mut BridgeEngine) {
        let Some(link) = self.link.as_mut().filter(|link| link.is_greeted) else { return };
        for message in messages {
            message.write(&mut link.unsent);
        }
        if link.unsent.len() > MAX_UNSENT {
            self.lose(&GatewayLinkError::Full, engine);
        }
    }
}
