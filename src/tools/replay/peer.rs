//! A scripted WebSocket client: a task that executes commands and reports events.
//!
//! A client answers only WebSocket pings, close frames, and the frame of its automatic reply; it offers no
//! extension.

use std::string::FromUtf8Error;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::InvalidHeaderValue;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::script::Observed;
use super::transcript::{ConnectRequest, FrameKind, RecordedFrame};
use crate::tools::dial::{ConnectError, DialedSocket, Target};

/// Time limit of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the server to end a closed connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// An automatic reply to a certain frame.
#[derive(Clone, Copy, Debug)]
pub struct AutoReply {
    /// The frame.
    pub frame: &'static [u8],
    /// The answer, if any.
    pub answer: Option<&'static [u8]>,
    /// The event that later such frames are reported as, if any. The first is not reported.
    pub later: Option<&'static [u8]>,
    /// True: every such frame is reported as it is.
    pub is_shown: bool,
}

/// A command to a client.
#[derive(Debug)]
pub(crate) enum PeerCommand {
    /// Send this frame.
    Send(RecordedFrame),
    /// Send a close frame.
    Close {
        /// `None`: no code in the frame.
        code: Option<u16>,
        /// The reason text.
        reason: String,
    },
    /// Drop the TCP connection.
    Drop,
}

/// A report of a client.
#[derive(Debug)]
pub(crate) struct PeerReport {
    /// The client.
    pub(crate) peer: String,
    /// The time of the event.
    pub(crate) at: Instant,
    /// The event.
    pub(crate) event: PeerEvent,
}

/// An event in a client.
#[derive(Debug)]
pub(crate) enum PeerEvent {
    /// An event that belongs in the transcript.
    Observed(Observed),
    /// A failure of the connection. A close is reported next if there was a connection.
    Failed(PeerError),
}

/// A failure of a client's connection, or of one of its commands.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum PeerError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The path cannot stand in a request.
    #[error("malformed path")]
    Path(#[source] WsError),
    /// The value of a header cannot stand in a request.
    #[error("malformed header {0}")]
    Header(&'static str, #[source] InvalidHeaderValue),
    /// The server did not answer in time.
    #[error("no answer to the upgrade request within {} seconds", CONNECT_TIMEOUT.as_secs())]
    Timeout,
    /// A text frame is not UTF-8.
    #[error("a text frame must be UTF-8")]
    NotUtf8(#[from] FromUtf8Error),
    /// A frame cannot be sent.
    #[error("cannot send")]
    Send(#[source] WsError),
    /// The connection cannot be read.
    #[error("cannot read")]
    Read(#[source] WsError),
}

/// The handle of a client's task; the connection is dropped with it.
#[derive(Debug)]
pub(crate) struct ScriptedPeer {
    commands: mpsc::UnboundedSender<PeerCommand>,
}

impl ScriptedPeer {
    /// Starts a client that connects at once.
    pub(crate) fn connect(
        name: &str,
        target: &Target,
        to: ConnectRequest,
        auto_reply: Option<AutoReply>,
        reports: mpsc::UnboundedSender<PeerReport>,
    ) -> ScriptedPeer {
        let (commands, inbox) = mpsc::unbounded_channel();
        let link = Reporter { peer: name.to_owned(), reports };
        let target = target.clone();
        tokio::spawn(async move {
            match timeout(CONNECT_TIMEOUT, open(&target, &to)).await {
                Ok(Ok(socket)) => {
                    link.observed(Observed::Open);
                    run(socket, inbox, auto_reply, &link).await;
                }
                Ok(Err(error)) => link.report(PeerEvent::Failed(error)),
                Err(_) => link.report(PeerEvent::Failed(PeerError::Timeout)),
            }
        });
        ScriptedPeer { commands }
    }

    /// Sends a command; it is dropped after the connection has ended, which was reported.
    pub(crate) fn send(&self, command: PeerCommand) {
        let _ = self.commands.send(command);
    }
}

struct Reporter {
    peer: String,
    reports: mpsc::UnboundedSender<PeerReport>,
}

impl Reporter {
    fn report(&self, event: PeerEvent) {
        let _ = self.reports.send(PeerReport { peer: self.peer.clone(), at: Instant::now(), event });
    }

    fn observed(&self, what: Observed) {
        self.report(PeerEvent::Observed(what));
    }

    fn closed(&self, code: u16, reason: &str) {
        self.observed(Observed::Close { code, reason: reason.to_owned() });
    }
}

async fn open(target: &Target, to: &ConnectRequest) -> Result<DialedSocket, PeerError> {
    let url = format!("ws://{}{}", target.authority(), target.path(&to.path));
    let mut request = url.into_client_request().map_err(PeerError::Path)?;
    for (name, value) in [("origin", &to.origin), ("sec-websocket-protocol", &to.protocol)] {
        if let Some(value) = value {
            let value = HeaderValue::from_str(value).map_err(|error| PeerError::Header(name, error))?;
            request.headers_mut().insert(name, value);
        }
    }
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    Ok(target.upgrade(request, Some(config)).await?.0)
}

async fn run(
    mut socket: DialedSocket,
    mut commands: mpsc::UnboundedReceiver<PeerCommand>,
    auto_reply: Option<AutoReply>,
    link: &Reporter,
) {
    let mut is_reported = false;
    loop {
        tokio::select! {
            command = commands.recv() => {
                let Some(command) = command else { return };
                let done = match command {
                    PeerCommand::Send(payload) => match message(&payload) {
                        Ok(message) => socket.send(message).await,
                        Err(error) => {
                            link.report(PeerEvent::Failed(error.into()));
                            Ok(())
                        }
                    },
                    PeerCommand::Close { code, reason } => {
                        let frame = code.map(|c| CloseFrame { code: c.into(), reason: reason.into() });
                        socket.close(frame).await
                    }
                    PeerCommand::Drop => {
                        drop(socket);
                        return link.closed(1006, "");
                    }
                };
                if let Err(error) = done {
                    link.report(PeerEvent::Failed(PeerError::Send(error)));
                    return link.closed(1006, "");
                }
            }
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => report_frame(link, FrameKind::Text, text.as_bytes()),
                Some(Ok(Message::Binary(bytes))) if auto_reply.is_some_and(|auto_reply| auto_reply.frame == bytes) => {
                    let Some(AutoReply { answer, later, is_shown, .. }) = auto_reply else { continue };
                    if is_shown {
                        report_frame(link, FrameKind::Binary, &bytes);
                    }
                    if let Some(answer) = answer {
                        // A connection that broke is reported by the next read.
                        let _ = socket.send(Message::binary(answer)).await;
                    }
                    if let Some(seen) = later.filter(|_| std::mem::replace(&mut is_reported, true)) {
                        report_frame(link, FrameKind::Binary, seen);
                    }
                }
                Some(Ok(Message::Binary(bytes))) => report_frame(link, FrameKind::Binary, &bytes),
                Some(Ok(Message::Pong(bytes))) => report_frame(link, FrameKind::Pong, &bytes),
                Some(Ok(Message::Ping(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(frame))) => {
                    match frame {
                        Some(frame) => link.closed(frame.code.into(), frame.reason.as_str()),
                        None => link.closed(1005, ""),
                    }
                    // The library has queued the answer; reading on sends it and waits for the end of TCP.
                    let _ = timeout(CLOSE_TIMEOUT, async { while let Some(Ok(_)) = socket.next().await {} }).await;
                    return;
                }
                Some(Err(error)) => {
                    if !is_end(&error) {
                        link.report(PeerEvent::Failed(PeerError::Read(error)));
                    }
                    return link.closed(1006, "");
                }
                None => return link.closed(1006, ""),
            },
        }
    }
}

fn report_frame(link: &Reporter, op: FrameKind, bytes: &[u8]) {
    link.observed(Observed::Frame(RecordedFrame::new(op, bytes)));
}

/// Returns true if this error is an ordinary end of a connection without a close frame.
fn is_end(error: &WsError) -> bool {
    use tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
    matches!(
        error,
        WsError::ConnectionClosed | WsError::Io(_) | WsError::Protocol(ResetWithoutClosingHandshake)
    )
}

fn message(payload: &RecordedFrame) -> Result<Message, FromUtf8Error> {
    let bytes = payload.bytes.clone();
    Ok(match payload.op {
        FrameKind::Text => Message::text(String::from_utf8(bytes)?),
        FrameKind::Binary => Message::binary(bytes),
        FrameKind::Ping => Message::Ping(bytes.into()),
        FrameKind::Pong => Message::Pong(bytes.into()),
    })
}
