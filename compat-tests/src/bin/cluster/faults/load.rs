//! Clients that join rooms at all nodes, without end: some stay as first members, most come and go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use sigver::tools::client::dialects::{ClientEvent, JoinerId, Role};
use sigver::tools::client::message::{MessageBody, TestMessage};
use sigver::tools::client::peer::SyntheticPeer;
use sigver::tools::client::protocol::Protocol;
use sigver::tools::dial::Target;
use tokio::time::{Instant, interval, sleep, timeout};

use super::cluster::NODES;
use super::history::{Attempt, Outcome};

/// Rooms whose first members stay.
pub(crate) const ROOMS: usize = 24;
/// Time between two joins.
const JOIN_INTERVAL: Duration = Duration::from_millis(30);
/// Longest time that a client waits for an answer.
const JOIN_TIMEOUT: Duration = Duration::from_secs(12);
/// Longest time that a joiner waits for the answer of the first member.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Rooms that are empty again and again.
const BUSY_ROOMS: usize = 2;
/// Time that the first member of such a room remains.
const SHORT_VISIT: Duration = Duration::from_millis(50);
/// Time that a first member that is none of those that stay remains.
const VISIT: Duration = Duration::from_millis(400);

/// The clients of one cluster.
pub(crate) struct Load {
    nodes: Vec<Target>,
    protocol: Protocol,
    /// Prefix of all keys.
    prefix: String,
    start: Instant,
    pub(crate) attempts: Mutex<Vec<Attempt>>,
    /// Messages that reached a client for which they were not.
    pub(crate) misdelivered: Mutex<Vec<String>>,
    /// Bits of the nodes that clients avoid, as a load balancer would.
    avoided: AtomicUsize,
    next_client: AtomicU64,
    stopping: AtomicBool,
    /// Time between two joins.
    interval: Duration,
    /// Time after which clients whose connection ended before they were in a room come again, if they do.
    rejoin: Option<Duration>,
    /// Number of times that they did.
    pub(crate) rejoins: AtomicU64,
}

impl Load {
    pub(crate) fn start(nodes: &[SocketAddr], prefix: &str) -> Result<Arc<Load>> {
        Load::start_with(nodes, prefix, JOIN_INTERVAL, None)
    }

    /// Starts clients that join at this interval, and come again after `rejoin` as real ones do.
    pub(crate) fn start_with(
        nodes: &[SocketAddr],
        prefix: &str,
        interval: Duration,
        rejoin: Option<Duration>,
    ) -> Result<Arc<Load>> {
        let nodes = nodes.iter().map(|node| Target::parse(&format!("ws://{node}")));
        let load = Arc::new(Load {
            nodes: nodes.collect::<Result<_, _>>()?,
            protocol: Protocol::from_name("sigver-20").context("no protocol sigver-20")?,
            prefix: prefix.to_owned(),
            start: Instant::now(),
            attempts: Mutex::default(),
            misdelivered: Mutex::default(),
            avoided: AtomicUsize::new(0),
            next_client: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            interval,
            rejoin,
            rejoins: AtomicU64::new(0),
        });
        for number in 0..ROOMS {
            tokio::spawn(Arc::clone(&load).stay(number));
        }
        tokio::spawn(Arc::clone(&load).join_and_leave());
        Ok(load)
    }

    /// Returns the time since the begin of the run.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Has new clients avoid a node, or no longer.
    pub(crate) fn avoid(&self, node: usize, is_avoided: bool) {
        let bit = 1 << node;
        if is_avoided {
            self.avoided.fetch_or(bit, Ordering::Relaxed);
        } else {
            self.avoided.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// Starts no more clients.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Returns the key of a room whose first member stays.
    pub(crate) fn room(&self, number: usize) -> String {
        format!("{}room{number:02}", self.prefix)
    }

    fn node(&self, preferred: usize) -> usize {
        let avoided = self.avoided.load(Ordering::Relaxed);
        (0..NODES)
            .map(|offset| (preferred + offset) % NODES)
            .find(|node| avoided & (1 << node) == 0)
            .unwrap_or(0)
    }

    /// Keeps a first member in a room; it comes again when its connection ends.
    async fn stay(self: Arc<Self>, number: usize) {
        while !self.is_stopping() {
            let node = self.node(number % NODES);
            self.join(&self.room(number), node, Duration::from_secs(3_600)).await;
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn join_and_leave(self: Arc<Self>) {
        let mut count = 0;
        let mut ticks = interval(self.interval);
        while !self.is_stopping() {
            ticks.tick().await;
            count += 1;
            let visit = |room: String, preferred, stay| {
                let load = Arc::clone(&self);
                let node = self.node(preferred);
                tokio::spawn(async move { load.join(&room, node, stay).await });
            };
            let (round, turn) = (count / 6, count % 6);
            match turn {
                // To a room that no node has: one client at each node, at once.
                0 => {
                    let room = format!("{}new{round}", self.prefix);
                    (0..NODES).for_each(|node| visit(room.clone(), node, VISIT));
                }
                // To one that is empty again and again, and then belongs to the next node that is asked.
                1 => {
                    let room = format!("{}busy{}", self.prefix, round % BUSY_ROOMS);
                    visit(room.clone(), round, SHORT_VISIT);
                    visit(room, round + round / NODES + 1, SHORT_VISIT);
                }
                turn => {
                    let visit_number = round * 4 + turn;
                    visit(self.room(visit_number * 7 % ROOMS), visit_number + visit_number / ROOMS, VISIT);
                }
            }
        }
    }

    /// Joins a room; the first member answers others for a time, and then leaves.
    async fn join(&self, room: &str, node: usize, stay: Duration) {
        while !self.join_once(room, node, stay).await {
            self.rejoins.fetch_add(1, Ordering::Relaxed);
            sleep(self.rejoin.unwrap_or_default()).await;
        }
    }

    /// Returns true if a client comes again after this failure: the close of a node that ends, or no
    /// connection.
    fn rejoins_after(&self, failure: &str) -> bool {
        let is_answer = failure.starts_with("no answer");
        self.rejoin.is_some()
            && !is_answer
            && (!failure.starts_with("closed") || ["closed with 1001", "closed with 1012"].contains(&failure))
    }

    /// Joins a room over one connection. Returns false if the client is to come again.
    async fn join_once(&self, room: &str, node: usize, stay: Duration) -> bool {
        let sent = self.now();
        let client = self.next_client.fetch_add(1, Ordering::Relaxed);
        let record = |outcome| {
            if let Outcome::Failed(failure) = &outcome
                && self.rejoins_after(failure)
            {
                return false;
            }
            let (room, answered) = (room.to_owned(), self.now());
            self.attempts.lock().push(Attempt { room, node, sent, answered, outcome });
            true
        };
        let connecting = SyntheticPeer::connect(&self.nodes[node], self.protocol, Role::Member, room, None);
        let mut peer = match timeout(JOIN_TIMEOUT, connecting).await {
            Ok(Ok(peer)) => peer,
            Ok(Err(error)) => return record(Outcome::Failed(error.to_string())),
            Err(_) => return record(Outcome::Failed("no connection".to_owned())),
        };
        let decided = |event: &ClientEvent| match event {
            ClientEvent::BecameMember => Some(Ok(true)),
            ClientEvent::LinkedToMember => Some(Ok(false)),
            ClientEvent::Closed(code, _) => Some(Err(format!("closed with {}", code.unwrap_or_default()))),
            _ => None,
        };
        match peer.wait_for(JOIN_TIMEOUT, decided).await {
            Some(Ok(true)) => {
                let done = record(Outcome::First(client));
                let _ = timeout(stay, self.serve(&mut peer, room, client)).await;
                done
            }
            Some(Ok(false)) => record(self.visit(&mut peer, room, client).await),
            Some(Err(closed)) => record(Outcome::Failed(closed)),
            None => record(Outcome::Failed("no answer".to_owned())),
        }
    }

    /// Answers the joiners of a room until the connection ends.
    async fn serve(&self, peer: &mut SyntheticPeer, room: &str, client: u64) {
        let received = |event: &ClientEvent| match event {
            ClientEvent::Message { from, message } => Some(Some((from.clone(), message.body.clone()))),
            ClientEvent::Closed(..) => Some(None),
            _ => None,
        };
        while let Some(Some((from, body))) = peer.wait_for(Duration::from_secs(3_600), received).await {
            peer.log.clear();
            match question(&body).filter(|(asked, _)| asked == room) {
                Some((_, joiner)) => {
                    peer.send(from.as_ref(), &text(format!("answer {room} {joiner} {client}")));
                }
                None => self.misdelivered.lock().push(format!("{body:?} to the first of {room}")),
            }
        }
    }

    /// Asks the first member of a room for its number.
    async fn visit(&self, peer: &mut SyntheticPeer, room: &str, client: u64) -> Outcome {
        peer.send(None::<&JoinerId>, &text(format!("question {room} {client}")));
        let answered = |event: &ClientEvent| match event {
            ClientEvent::Message { message, .. } => Some(Ok(message.body.clone())),
            ClientEvent::PeerLeft { .. } => Some(Err(None)),
            ClientEvent::Closed(code, _) => Some(Err(Some(code.unwrap_or_default()))),
            _ => None,
        };
        match peer.wait_for(ANSWER_TIMEOUT, answered).await {
            Some(Ok(body)) => match answer(&body).filter(|(of, joiner, _)| of == room && *joiner == client) {
                Some((.., first)) => Outcome::Linked(first),
                None => {
                    self.misdelivered.lock().push(format!("{body:?} to {client} in {room}"));
                    Outcome::Left
                }
            },
            Some(Err(None)) => Outcome::Left,
            Some(Err(Some(code))) => Outcome::Failed(format!("closed with {code} when linked")),
            None => Outcome::Failed("no answer of the first member".to_owned()),
        }
    }
}

fn text(text: String) -> TestMessage {
    TestMessage::from_bytes(text.into_bytes())
}

fn parts(body: &MessageBody, first: &str) -> Option<Vec<String>> {
    let MessageBody::Bytes(bytes) = body else { return None };
    let text = String::from_utf8(bytes.clone()).ok()?;
    let parts: Vec<String> = text.split(' ').map(str::to_owned).collect();
    (parts.first()? == first).then_some(parts)
}

fn question(body: &MessageBody) -> Option<(String, u64)> {
    match &parts(body, "question")?[..] {
        [_, room, client] => Some((room.clone(), client.parse().ok()?)),
        _ => None,
    }
}

fn answer(body: &MessageBody) -> Option<(String, u64, u64)> {
    match &parts(body, "answer")?[..] {
        [_, room, client, first] => Some((room.clone(), client.parse().ok()?, first.parse().ok()?)),
        _ => None,
    }
}
