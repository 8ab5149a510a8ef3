//! One scripted WebSocket client: a task that does what it is told and reports what it sees.
//!
//! By itself it answers nothing but WebSocket pings, close frames and what its reflex says; it offers no extension.

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
use super::transcript::{Connect, Op, Payload};
use crate::tools::dial::{DialedSocket, Target};

/// How long a connection attempt may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a closed connection is read on, for the server to end it.
const LINGER: Duration = Duration::from_secs(2);

/// What a client does by itself when a certain frame comes.
#[derive(Clone, Copy, Debug)]
pub struct AutoReply {
    /// The frame.
    pub frame: &'static [u8],
    /// It answers so, if at all.
    pub answer: Option<&'static [u8]>,
    /// The first such frame goes unnoticed; later ones are seen as this, if at all.
    pub later: Option<&'static [u8]>,
}

/// What a client is told to do.
#[derive(Debug)]
pub enum PeerCommand {
    /// Send this frame.
    Send(Payload),
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

/// What a client saw.
#[derive(Debug)]
pub struct PeerReport {
    /// Who.
    pub peer: String,
    /// When.
    pub at: Instant,
    /// What.
    pub news: PeerEvent,
}

/// The kinds of reports.
#[derive(Debug)]
pub enum PeerEvent {
    /// Something that belongs in the transcript.
    Saw(Observed),
    /// There is no connection, and why. A `Saw(Close)` follows if there was one.
    Failed(String),
}

/// The handle of a client's task; the connection is dropped with it.
#[derive(Debug)]
pub struct Peer {
    orders: mpsc::UnboundedSender<PeerCommand>,
}

impl Peer {
    /// Starts a client that connects at once.
    pub fn connect(
        name: &str,
        target: &Target,
        to: Connect,
        reflex: Option<AutoReply>,
        reports: mpsc::UnboundedSender<PeerReport>,
    ) -> Peer {
        let (orders, inbox) = mpsc::unbounded_channel();
        let link = Link { peer: name.to_owned(), reports };
        let target = target.clone();
        tokio::spawn(async move {
            match timeout(CONNECT, open(&target, &to)).await {
                Ok(Ok(socket)) => {
                    link.saw(Observed::Open);
                    run(socket, inbox, reflex, &link).await;
                }
                Ok(Err(error)) => link.tell(PeerEvent::Failed(format!("{error:#}"))),
                Err(_) => link.tell(PeerEvent::Failed("no answer to the upgrade request".into())),
            }
        });
        Peer { orders }
    }

    /// Gives an order; it is lost if the connection is gone, which was reported then.
    pub fn order(&self, order: PeerCommand) {
        let _ = self.orders.send(order);
    }
}

struct Link {
    peer: String,
    reports: mpsc::UnboundedSender<PeerReport>,
}

impl Link {
    fn tell(&self, news: PeerEvent) {
        let _ = self.reports.send(PeerReport { peer: self.peer.clone(), at: Instant::now(), news });
    }

    fn saw(&self, what: Observed) {
        self.tell(PeerEvent::Saw(what));
    }

    fn closed(&self, code: u16, reason: &str) {
        self.saw(Observed::Close { code, reason: reason.to_owned() });
    }
}

async fn open(target: &Target, to: &Connect) -> Result<DialedSocket> {
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
    mut orders: mpsc::UnboundedReceiver<PeerCommand>,
    reflex: Option<AutoReply>,
    link: &Link,
) {
    let mut noticed = false;
    loop {
        tokio::select! {
            order = orders.recv() => {
                let Some(order) = order else { return };
                let done = match order {
                    PeerCommand::Send(payload) => match message(&payload) {
                        Ok(message) => socket.send(message).await,
                        Err(reason) => {
                            link.tell(PeerEvent::Failed(reason));
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
                    link.tell(PeerEvent::Failed(format!("cannot send: {error}")));
                    return link.closed(1006, "");
                }
            }
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => saw(link, Op::Text, text.as_bytes()),
                Some(Ok(Message::Binary(bytes))) if reflex.is_some_and(|reflex| reflex.frame == bytes) => {
                    let Some(AutoReply { answer, later, .. }) = reflex else { continue };
                    if let Some(answer) = answer {
                        // A connection that broke is reported by the next read.
                        let _ = socket.send(Message::binary(answer)).await;
                    }
                    if let Some(seen) = later.filter(|_| std::mem::replace(&mut noticed, true)) {
                        saw(link, Op::Binary, seen);
                    }
                }
                Some(Ok(Message::Binary(bytes))) => saw(link, Op::Binary, &bytes),
                Some(Ok(Message::Pong(bytes))) => saw(link, Op::Pong, &bytes),
                Some(Ok(Message::Ping(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(frame))) => {
                    match frame {
                        Some(frame) => link.closed(frame.code.into(), frame.reason.as_str()),
                        None => link.closed(1005, ""),
                    }
                    // The library has queued the answer; reading on sends it and waits for the end of TCP.
                    let _ = timeout(LINGER, async { while let Some(Ok(_)) = socket.next().await {} }).await;
                    return;
                }
                Some(Err(error)) => {
                    if !is_end(&error) {
                        link.tell(PeerEvent::Failed(format!("cannot read: {error}")));
                    }
                    return link.closed(1006, "");
                }
                None => return link.closed(1006, ""),
            },
        }
    }
}

fn saw(link: &Link, op: Op, bytes: &[u8]) {
    link.saw(Observed::Frame(Payload::new(op, bytes)));
}

/// The ways a connection ends without a close frame that need no remark.
fn is_end(error: &Error) -> bool {
    use tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
    matches!(error, Error::ConnectionClosed | Error::Io(_) | Error::Protocol(ResetWithoutClosingHandshake))
}

fn message(payload: &Payload) -> Result<Message, String> {
    let bytes = payload.bytes.clone();
    Ok(match payload.op {
        Op::Text => {
            Message::text(String::from_utf8(bytes).map_err(|e| format!("a text frame must be UTF-8: {e}"))?)
        }
        Op::Binary => Message::binary(bytes),
        Op::Ping => Message::Ping(bytes.into()),
        Op::Pong => Message::Pong(bytes.into()),
    })
}
