//! A scripted WebSocket client: a task that executes commands and reports events.
//!
//! A client answers only WebSocket pings, close frames, and the frame of its automatic reply; it offers no
//! extension.

use std::time::Duration;

use anyhow::Result;
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::script::Observed;
use super::transcript::{ConnectRequest, FrameKind, RecordedFrame};
use crate::tools::dial::{DialedSocket, Target};

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
}

/// A command to a client.
#[derive(Debug)]
pub enum PeerCommand {
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
pub struct PeerReport {
    /// The client.
    pub peer: String,
    /// The time of the event.
    pub at: Instant,
    /// The event.
    pub event: PeerEvent,
}

/// An event in a client.
#[derive(Debug)]
pub enum PeerEvent {
    /// An event that belongs in the transcript.
    Observed(Observed),
    /// The reason why there is no connection. A close is reported next if there was one.
    Failed(String),
}

/// The handle of a client's task; the connection is dropped with it.
#[derive(Debug)]
pub struct ScriptedPeer {
    commands: mpsc::UnboundedSender<PeerCommand>,
}

impl ScriptedPeer {
    /// Starts a client that connects at once.
    pub fn connect(
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
                Ok(Err(error)) => link.report(PeerEvent::Failed(format!("{error:#}"))),
                Err(_) => link.report(PeerEvent::Failed("no answer to the upgrade request".into())),
            }
        });
        ScriptedPeer { commands }
    }

    /// Sends a command; it is dropped after the connection has ended, which was reported.
    pub fn send(&self, command: PeerCommand) {
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

async fn open(target: &Target, to: &ConnectRequest) -> Result<DialedSocket> {
    let url = format!("ws://{}{}", target.authority(), target.path(&to.path));
    let mut request = url.into_client_request()?;
    for (name, value) in [("origin", &to.origin), ("sec-websocket-protocol", &to.protocol)] {
        if let Some(value) = value {
            request.headers_mut().insert(name, HeaderValue::from_str(value)?);
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
    let mut noticed = false;
    loop {
        tokio::select! {
            order = commands.recv() => {
                let Some(order) = order else { return };
                let done = match order {
                    PeerCommand::Send(payload) => match message(&payload) {
                        Ok(message) => socket.send(message).await,
                        Err(reason) => {
                            link.report(PeerEvent::Failed(reason));
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
                    link.report(PeerEvent::Failed(format!("cannot send: {error}")));
                    return link.closed(1006, "");
                }
            }
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => saw(link, FrameKind::Text, text.as_bytes()),
                Some(Ok(Message::Binary(bytes))) if auto_reply.is_some_and(|auto_reply| auto_reply.frame == bytes) => {
                    let Some(AutoReply { answer, later, .. }) = auto_reply else { continue };
                    if let Some(answer) = answer {
                        // A connection that broke is reported by the next read.
                        let _ = socket.send(Message::binary(answer)).await;
                    }
                    if let Some(seen) = later.filter(|_| std::mem::replace(&mut noticed, true)) {
                        saw(link, FrameKind::Binary, seen);
                    }
                }
                Some(Ok(Message::Binary(bytes))) => saw(link, FrameKind::Binary, &bytes),
                Some(Ok(Message::Pong(bytes))) => saw(link, FrameKind::Pong, &bytes),
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
                        link.report(PeerEvent::Failed(format!("cannot read: {error}")));
                    }
                    return link.closed(1006, "");
                }
                None => return link.closed(1006, ""),
            },
        }
    }
}

fn saw(link: &Reporter, op: FrameKind, bytes: &[u8]) {
    link.observed(Observed::Frame(RecordedFrame::new(op, bytes)));
}

/// Returns true if this error is an ordinary end of a connection without a close frame.
fn is_end(error: &Error) -> bool {
    use tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
    matches!(error, Error::ConnectionClosed | Error::Io(_) | Error::Protocol(ResetWithoutClosingHandshake))
}

fn message(payload: &RecordedFrame) -> Result<Message, String> {
    let bytes = payload.bytes.clone();
    Ok(match payload.op {
        FrameKind::Text => {
            Message::text(String::from_utf8(bytes).map_err(|e| format!("a text frame must be UTF-8: {e}"))?)
        }
        FrameKind::Binary => Message::binary(bytes),
        FrameKind::Ping => Message::Ping(bytes.into()),
        FrameKind::Pong => Message::Pong(bytes.into()),
    })
}
