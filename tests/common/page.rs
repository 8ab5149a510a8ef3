//! A page in a browser with a synthetic client in it, and the two ways in which it can be late.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::clients::{Client, Dialect, Did, Send};
use super::ws::{Got, Ws};

/// How long one step of a case may take: several round trips of the slowest path, and a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the delay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// The library learns late that the connection is open; WebSocket pings are answered at once, as browsers do.
    Page(u64),
    /// Each byte takes half of it, in both directions.
    Path(u64),
}

/// A TCP proxy that delivers each byte late.
async fn slow_path(to: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let far = TcpStream::connect(to).await.unwrap();
        near.set_nodelay(true).unwrap();
        far.set_nodelay(true).unwrap();
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        tokio::join!(late(near_in, far_out, delay), late(far_in, near_out, delay));
    });
    address
}

async fn late(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sent, mut arriving) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let deliver = async {
        while let Some((at, bytes)) = arriving.recv().await {
            tokio::time::sleep_until((at + delay).into()).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    let take = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let _ = sent.send((Instant::now(), buffer[..count].to_vec()));
        }
        drop(sent);
    };
    tokio::join!(deliver, take);
}

/// What the test tells a page.
enum Order {
    /// Ask the gateway whether it has heard everything.
    Ask,
    Close,
}

/// A page with a client in it.
pub struct Page {
    orders: mpsc::UnboundedSender<Order>,
    did: mpsc::UnboundedReceiver<Did>,
    /// What it did so far, as far as it was waited for.
    pub log: Vec<Did>,
    /// Whether the gateway has said something, which the library may not know yet.
    reached: watch::Receiver<bool>,
    guessed: watch::Receiver<bool>,
}

impl Page {
    pub async fn open(gateway: SocketAddr, path: &str, client: Client, delay: Delay) -> Page {
        let (address, opens_after) = match delay {
            Delay::Page(ms) => (gateway, Duration::from_millis(ms)),
            Delay::Path(0) => (gateway, Duration::ZERO),
            Delay::Path(ms) => (slow_path(gateway, Duration::from_millis(ms) / 2).await, Duration::ZERO),
        };
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let ws = Ws::open(stream, path).await;
        let (orders, ordered) = mpsc::unbounded_channel();
        let (did, doing) = mpsc::unbounded_channel();
        let (reach, reached) = watch::channel(false);
        let (guess, guessed) = watch::channel(false);
        let browser = Browser { ws, client, did, reach, guess };
        tokio::spawn(browser.run(opens_after, ordered));
        Page { orders, did: doing, log: Vec::new(), reached, guessed }
    }

    /// Waits until the client did this.
    pub async fn until(&mut self, expected: &Did) -> Result<(), String> {
        if self.log.contains(expected) {
            return Ok(());
        }
        let wait = async {
            while let Some(did) = self.did.recv().await {
                self.log.push(did.clone());
                if did == *expected {
                    return Ok(());
                }
                if let Did::Wrong(what) = did {
                    return Err(what);
                }
            }
            Err("the connection ended".to_owned())
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(result) => result,
            Err(_) => Err(format!("waited in vain for {expected:?}, after {:?}", self.log)),
        }
    }

    /// Waits until the gateway has said something.
    pub async fn reached(&mut self) -> Result<(), String> {
        match tokio::time::timeout(PATIENCE, self.reached.wait_for(|reached| *reached)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err("the gateway said nothing".to_owned()),
        }
    }

    /// Waits until the gateway has heard all, and we have got all that it had to say before.
    pub async fn settle(&mut self) -> Result<(), String> {
        let _ = self.orders.send(Order::Ask);
        self.until(&Did::Heard).await?;
        self.log.retain(|did| *did != Did::Heard);
        Ok(())
    }

    /// Ends the connection, and waits until the gateway has ended it too.
    pub async fn leave(&mut self) -> Result<(), String> {
        self.close();
        match tokio::time::timeout(PATIENCE, async { while self.did.recv().await.is_some() {} }).await {
            Ok(()) => Ok(()),
            Err(_) => Err("the gateway does not answer the close".to_owned()),
        }
    }

    /// Ends the connection in good order.
    pub fn close(&self) {
        let _ = self.orders.send(Order::Close);
    }

    /// Whether the gateway took the client for one of sigver 15 to 18.
    pub fn was_guessed(&self) -> bool {
        *self.guessed.borrow()
    }
}

/// The task of a page.
struct Browser {
    ws: Ws<TcpStream>,
    client: Client,
    did: mpsc::UnboundedSender<Did>,
    reach: watch::Sender<bool>,
    guess: watch::Sender<bool>,
}

impl Browser {
    async fn run(mut self, opens_after: Duration, mut orders: mpsc::UnboundedReceiver<Order>) {
        let opens_at = tokio::time::Instant::now() + opens_after;
        let every = Duration::from_secs(5);
        let mut beat = tokio::time::interval_at(opens_at + every, every);
        // What comes before the library knows that the connection is open.
        let mut waiting = Some(VecDeque::new());
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(opens_at), if waiting.is_some() => {
                    self.client.open();
                    self.react().await;
                    for got in waiting.take().unwrap_or_default() {
                        self.deliver(&got);
                        self.react().await;
                    }
                    if self.client.dialect == Dialect::S5 {
                        self.ws.ping(b"opened").await;
                    }
                }
                _ = beat.tick(), if waiting.is_none() => {
                    if let Some(beat) = self.client.dialect.beats() {
                        self.ws.binary(beat).await;
                    }
                }
                Some(order) = orders.recv() => match order {
                    Order::Ask => { self.ws.ping(b"heard").await; }
                    Order::Close => { self.ws.close(1000).await; }
                },
                got = self.ws.next() => match got {
                    Got::Ping(payload) => { self.ws.pong(&payload).await; }
                    Got::Pong(payload) if payload == b"opened" => { let _ = self.did.send(Did::First); }
                    Got::Pong(_) => { let _ = self.did.send(Did::Heard); }
                    Got::Text(_) | Got::Binary(_) => {
                        if matches!(&got, Got::Binary(bytes) if bytes.first() == Some(&0x10)) {
                            self.guess.send_replace(true);
                        }
                        self.reach.send_replace(true);
                        match &mut waiting {
                            Some(waiting) => waiting.push_back(got),
                            None => {
                                self.deliver(&got);
                                self.react().await;
                            }
                        }
                    }
                    Got::Close(Some(1000), _) => return,
                    Got::Close(..) | Got::End => {
                        let _ = self.did.send(Did::Wrong(format!("closed: {got:?}")));
                        return;
                    }
                },
            }
        }
    }

    fn deliver(&mut self, got: &Got) {
        match got {
            Got::Text(text) => self.client.text(text),
            Got::Binary(bytes) => self.client.bytes(bytes),
            _ => {}
        }
    }

    async fn react(&mut self) {
        for send in std::mem::take(&mut self.client.send) {
            match send {
                Send::Text(text) => self.ws.text(&text).await,
                Send::Binary(bytes) => self.ws.binary(&bytes).await,
                Send::Close(code) => self.ws.close(code).await,
            };
        }
        for did in self.client.did.drain(..) {
            let _ = self.did.send(did);
        }
    }
}
