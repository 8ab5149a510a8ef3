//! A synthetic client on a WebSocket: a task that feeds it what comes, sends what it says, and beats its heart. What
//! it says and understands is in `client`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::dialects::{Client, ClientAction, ClientEvent, Frame, Id, Role, client, path};
use super::message::{Delivery, TestMessage};
use super::protocol::Protocol;
use super::target::{ConnectError, Socket, Target};

/// How often clients with heartbeats send one.
const BEAT: Duration = Duration::from_secs(5);

/// A client that is connected.
pub struct Peer {
    /// What it speaks.
    pub tongue: Protocol,
    /// What it has understood so far.
    pub log: Vec<ClientEvent>,
    /// When it was connected.
    pub since: Instant,
    client: Arc<Mutex<Box<dyn Client>>>,
    orders: mpsc::UnboundedSender<Order>,
    heard: mpsc::UnboundedReceiver<ClientEvent>,
}

enum Order {
    Say(Frame),
    Fence,
    Close(Option<u16>),
}

impl Peer {
    /// Connects, and says what a client of this kind says first.
    ///
    /// # Errors
    ///
    /// When there is no connection.
    pub async fn connect(
        target: &Target,
        tongue: Protocol,
        role: Role,
        key: &str,
        first: Option<&TestMessage>,
    ) -> Result<Peer, ConnectError> {
        let (socket, _) = target.open(&path(tongue, role, key)).await?;
        let mut client = client(tongue, role, key);
        let acts = client.opened(first);
        let client = Arc::new(Mutex::new(client));
        let (orders, ordered) = mpsc::unbounded_channel();
        let (hears, heard) = mpsc::unbounded_channel();
        tokio::spawn(drive(socket, Arc::clone(&client), acts, ordered, hears));
        Ok(Peer { tongue, log: Vec::new(), since: Instant::now(), client, orders, heard })
    }

    /// Sends this, if there are words for it.
    pub fn say(&self, to: Option<&Id>, parcel: &TestMessage) -> bool {
        let frame = self.client.lock().say(to, parcel);
        self.order(frame)
    }

    /// Says that nothing more comes.
    pub fn end(&self, to: Option<&Id>) -> bool {
        let frame = self.client.lock().end(to);
        self.order(frame)
    }

    fn order(&self, frame: Option<Frame>) -> bool {
        let said = frame.is_some();
        if let Some(frame) = frame {
            // If the task has ended, the log says so.
            let _ = self.orders.send(Order::Say(frame));
        }
        said
    }

    /// Waits until `found` finds something in the log.
    pub async fn until<T>(
        &mut self,
        limit: Duration,
        mut found: impl FnMut(&ClientEvent) -> Option<T>,
    ) -> Option<T> {
        if let Some(found) = self.log.iter().find_map(&mut found) {
            return Some(found);
        }
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let heard = timeout(left, self.heard.recv()).await.ok().flatten()?;
            self.log.push(heard);
            if let Some(found) = self.log.last().and_then(&mut found) {
                return Some(found);
            }
        }
    }

    /// Waits until this comes, and says from whom and how.
    pub async fn receive(&mut self, parcel: &TestMessage, limit: Duration) -> Option<(Option<Id>, Delivery)> {
        self.until(limit, |heard| match heard {
            ClientEvent::TestMessage { from, got } => Some((from.clone(), parcel.judge(got)?)),
            _ => None,
        })
        .await
    }

    /// Waits until the server has read all that was sent; whether it has.
    pub async fn fence(&mut self, limit: Duration) -> bool {
        self.log.retain(|heard| *heard != ClientEvent::Fence);
        let _ = self.orders.send(Order::Fence);
        let done = |heard: &ClientEvent| {
            matches!(heard, ClientEvent::Fence | ClientEvent::Closed(..)).then(|| heard.clone())
        };
        self.until(limit, done).await == Some(ClientEvent::Fence)
    }

    /// Takes in what has come without waiting.
    pub fn catch_up(&mut self) {
        while let Ok(heard) = self.heard.try_recv() {
            self.log.push(heard);
        }
    }

    /// How the connection ended, if it has.
    pub fn closed(&self) -> Option<String> {
        self.log.iter().find_map(|heard| match heard {
            ClientEvent::Closed(code, reason) => Some(closing(*code, reason)),
            _ => None,
        })
    }

    /// Leaves as its clients do, and waits for the server's farewell.
    pub async fn leave(&mut self, limit: Duration) {
        let _ = self.orders.send(Order::Close(self.tongue.words().leaves_with));
        let closed = |heard: &ClientEvent| matches!(heard, ClientEvent::Closed(..)).then_some(());
        self.until(limit, closed).await;
    }
}

/// A close in words.
pub fn closing(code: Option<u16>, reason: &str) -> String {
    match (code, reason) {
        (None, _) => "closed without a code".to_owned(),
        (Some(code), "") => format!("closed with {code}"),
        (Some(code), reason) => format!("closed with {code} {reason}"),
    }
}

async fn drive(
    mut socket: Socket,
    client: Arc<Mutex<Box<dyn Client>>>,
    acts: Vec<ClientAction>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    hears: mpsc::UnboundedSender<ClientEvent>,
) {
    let mut acts = Some(acts);
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats.reset();
    let mut end = (Some(1006), String::new());
    loop {
        for act in acts.take().into_iter().flatten() {
            match act {
                // If it does not get through, the stream ends, and that is heard.
                ClientAction::Send(frame) => drop(socket.send(message(frame)).await),
                ClientAction::Close(code) => drop(socket.close(code.map(farewell)).await),
                ClientAction::Hear(heard) => drop(hears.send(heard)),
            }
        }
        tokio::select! {
            came = socket.next() => match came {
                Some(Ok(Message::Text(text))) => acts = Some(client.lock().text(&text)),
                Some(Ok(Message::Binary(bytes))) => acts = Some(client.lock().binary(&bytes)),
                Some(Ok(Message::Pong(_))) => drop(hears.send(ClientEvent::Fence)),
                Some(Ok(Message::Close(frame))) => {
                    end = frame.map_or((None, String::new()), |frame| {
                        (Some(frame.code.into()), frame.reason.as_str().to_owned())
                    });
                }
                Some(Ok(Message::Ping(_) | Message::Frame(_))) => {}
                Some(Err(_)) | None => break,
            },
            order = orders.recv() => match order {
                Some(Order::Say(frame)) => drop(socket.send(message(frame)).await),
                Some(Order::Fence) => drop(socket.send(Message::Ping(Bytes::new())).await),
                Some(Order::Close(code)) => drop(socket.close(code.map(farewell)).await),
                // Nobody is interested any more.
                None => {
                    let _ = socket.close(None).await;
                    break;
                }
            },
            _ = beats.tick() => {
                let beat = client.lock().beat();
                if let Some(frame) = beat {
                    let _ = socket.send(message(frame)).await;
                }
            }
        }
    }
    let _ = hears.send(ClientEvent::Closed(end.0, end.1));
}

fn message(frame: Frame) -> Message {
    match frame {
        Frame::Text(text) => Message::text(text),
        Frame::Binary(bytes) => Message::binary(bytes),
    }
}

fn farewell(code: u16) -> CloseFrame {
    CloseFrame { code: code.into(), reason: "".into() }
}
