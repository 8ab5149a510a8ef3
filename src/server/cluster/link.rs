//! The connections between nodes. Each node dials every other; what it sends over a connection that it
//! dialled concerns its own connections in rooms of the other.

use std::collections::{HashSet, VecDeque};
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufRead, AsyncWrite, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::rustls::CommonState;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream, server};
use tokio_util::sync::CancellationToken;

use super::far::FarLink;
use super::first_frame::{read_first, write_first};
use super::guest::GuestLink;
use super::link_fault::LinkFault;
use super::link_stream::LinkStream;
use super::question::{AcceptedCall, Answer, CallStream, NodeSocket, Question, SOCKET_BUFFER};
use super::tls::{KnownNodes, NodePublicKey, NodeTls};
use super::wire::{
    CALL_SESSION, Call, EdgeMessage, Hello, LINK_SESSION, OwnerMessage, decode, invalid, timed_out,
};
use crate::protocol::cluster::{Generation, Millis, NodeId};
use crate::protocol::model::RoomKey;
use crate::server::hub::Hub;
use crate::server::listener::AcceptFailures;
use crate::server::memory::{MemoryBudget, MemoryCharge, TLS_HANDSHAKE};
use crate::server::telemetry::{LimitKind, LinkCutCounts};

/// Longest time from a connection to the end of both handshakes.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two pings.
const PING_INTERVAL: Duration = Duration::from_millis(crate::protocol::cluster::PING_INTERVAL);
/// Most connections whose handshake is not finished.
const MAX_HANDSHAKES: usize = 256;
/// Most calls of this node whose handshake is not finished: some nodes at once must not exceed
/// [`MAX_HANDSHAKES`] at another.
const MAX_CALLS: usize = 32;
/// Bytes that a connection holds at most until it is known whether a node is at its other end.
pub(super) const HANDSHAKE: usize = TLS_HANDSHAKE + SOCKET_BUFFER;
/// Bytes of a message besides the payload.
const MESSAGE_OVERHEAD: usize = 64 * 1024;

/// The interests of the node in its links.
pub(crate) trait LinkObserver: Debug + Send + Sync {
    /// Returns the time of the node's clock.
    fn now(&self) -> Millis;
    /// Returns the engine's data and the other nodes that the node names in its pings.
    fn view(&self) -> (Generation, Vec<NodeId>);
    /// A ping or pong of another node arrived, which has received a ping sent at `confirms` (0 if it confirms
    /// none), and has that view.
    fn on_ping(&self, node: NodeId, confirms: Millis, view: (Generation, Vec<NodeId>));
    /// The process of another node has proved its key, whether it knows this node or not.
    fn proved_alive(&self, node: NodeId);
    /// A process that this node does not know runs at the address of another node.
    fn found_unknown(&self, node: NodeId);
    /// Returns true if the node confirms pings of others.
    fn confirms(&self) -> bool;
    /// Returns the text for another node: its name and address, if they are known.
    fn describe(&self, node: NodeId) -> String {
        node.to_string()
    }
    /// A link to another node is open.
    fn linked(&self, link: &Arc<FarLink>);
    /// A link to another node has ended.
    fn unlinked(&self, link: &Arc<FarLink>);
    /// Another node has announced that it ends.
    fn ended(&self, node: NodeId);
    /// Returns true if the node decides about a room.
    fn has_room(&self, key: &RoomKey) -> bool;
    /// Another node has answered that it has a room.
    fn found(&self, node: NodeId, key: &RoomKey);
    /// Returns the answer to a question of another node.
    fn asked(&self, question: Question) -> Answer;
    /// Another node has answered a question.
    fn answered(&self, node: NodeId, ticket: u32, yes: bool);
    /// Accepts a call of another node, or returns `None`.
    fn called(&self, call: Call) -> Option<AcceptedCall>;
}

/// The links of one node.
#[derive(Debug)]
pub(crate) struct Links {
    tls: NodeTls,
    known: Arc<KnownNodes>,
    hub: Arc<Hub>,
    memory: Arc<MemoryBudget>,
    max_frame: usize,
    observer: Arc<dyn LinkObserver>,
    guests: Mutex<Vec<Arc<GuestLink>>>,
    /// Nodes that announced that they end.
    ended: Mutex<HashSet<NodeId>>,
    /// Links that were cut, by cause.
    cuts: Mutex<LinkCutCounts>,
    calls: Semaphore,
}

impl Links {
    /// Creates the links of a node with a new key pair. `max_message` is the longest message of a client, in
    /// bytes.
    ///
    /// # Errors
    /// The system has no randomness.
    pub(crate) fn new(
        hub: &Arc<Hub>,
        memory: &Arc<MemoryBudget>,
        max_message: usize,
        observer: Arc<dyn LinkObserver>,
    ) -> io::Result<Arc<Self>> {
        let known = Arc::default();
        Ok(Arc::new(Links {
            tls: NodeTls::generate(&known)?,
            known,
            hub: Arc::clone(hub),
            memory: Arc::clone(memory),
            max_frame: max_message.saturating_add(MESSAGE_OVERHEAD),
            observer,
            guests: Mutex::default(),
            ended: Mutex::default(),
            cuts: Mutex::default(),
            calls: Semaphore::new(MAX_CALLS),
        }))
    }

    /// Returns the public key of the node.
    pub(crate) fn public_key(&self) -> &NodePublicKey {
        &self.tls.public_key
    }

    /// Returns the nodes whose keys are believed.
    pub(crate) fn known(&self) -> &KnownNodes {
        &self.known
    }

    /// Returns the number of links that were cut, by cause.
    pub(crate) fn cuts(&self) -> LinkCutCounts {
        *self.cuts.lock()
    }

    /// Returns the number of connections of other nodes in rooms of this one.
    pub(crate) fn guests(&self) -> usize {
        self.guests.lock().iter().map(|link| link.sessions()).sum()
    }

    /// Notifies the nodes that have connections in rooms of this one that it ends.
    pub(crate) fn announce_end(&self) {
        self.guests.lock().iter().for_each(|link| link.queue.send(LINK_SESSION, &OwnerMessage::Bye));
    }

    /// Cuts all links of other nodes to this one.
    #[cfg(test)]
    pub(crate) fn cut_all(&self) {
        self.guests.lock().iter().for_each(|link| link.queue.close());
    }

    /// Accepts links of other nodes; never returns.
    pub(crate) async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut handshakes: VecDeque<AbortHandle> = VecDeque::new();
        let mut failures = AcceptFailures::default();
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if let Some(pause) = failures.backoff(&error) {
                        sleep(pause).await;
                    }
                    continue;
                }
            };
            handshakes.retain(|handshake| !handshake.is_finished());
            // So many are not of nodes, whose handshakes take milliseconds: the oldest is none.
            if handshakes.len() >= MAX_HANDSHAKES
                && let Some(oldest) = handshakes.pop_front()
            {
                oldest.abort();
            }
            let links = Arc::clone(&self);
            let handshake = tokio::spawn(async move {
                let acceptor = TlsAcceptor::from(Arc::clone(&links.tls.server));
                let handshake = async {
                    // Connections that send nothing are not charged.
                    stream.peek(&mut [0]).await?;
                    let _charge = links.charge_handshake()?;
                    let mut stream = acceptor.accept(buffered(stream)?).await?;
                    let node = links.node_of(stream.get_ref().1)?;
                    let (session, first) = read_first(&mut stream).await?;
                    if session == CALL_SESSION {
                        links.accept_call(stream, decode(&first)?).await?;
                        return Ok(None);
                    }
                    if let Err(error) = decode::<Hello>(&first)?.check() {
                        // With it, the log of the other node has the reason as well.
                        write_first(&mut stream, LINK_SESSION, &Hello::own()).await?;
                        return Err(error);
                    }
                    Ok(Some((stream, node)))
                };
                match timeout(HANDSHAKE_TIMEOUT, handshake).await.unwrap_or_else(|_| Err(timed_out())) {
                    Ok(Some((stream, node))) => {
                        tokio::spawn(async move { links.serve(node, stream).await });
                    }
                    Ok(None) => {}
                    Err(error) => tracing::debug!(%error, "refused a link"),
                }
            });
            handshakes.push_back(handshake.abort_handle());
        }
    }

    /// Returns the charge of a handshake. All of the budget is for nodes, and a part of it for clients before
    /// their upgrade, which so do not keep nodes out.
    fn charge_handshake(&self) -> io::Result<MemoryCharge> {
        self.memory.charge(HANDSHAKE).map_err(|exhausted| {
            self.hub.telemetry().count_limit(LimitKind::Memory);
            io::Error::new(io::ErrorKind::OutOfMemory, exhausted)
        })
    }

    /// Reports a ping or pong of another node, unless it has ended: its process sends them until it exits,
    /// and other nodes name it until they know. It would count as one that can decide.
    fn on_ping(&self, node: NodeId, confirms: Millis, generation: Generation, others: &[u64]) {
        let others = {
            let ended = self.ended.lock();
            if ended.contains(&node) {
                return;
            }
            others.iter().map(|number| NodeId(*number)).filter(|other| !ended.contains(other)).collect()
        };
        self.observer.on_ping(node, confirms, (generation, others));
    }

    fn end(&self, node: NodeId) {
        self.ended.lock().insert(node);
        self.observer.ended(node);
    }

    /// Serves the rooms of this node to another.
    async fn serve(&self, node: NodeId, stream: impl AsyncBufRead + AsyncWrite + Unpin) {
        let stream = LinkStream::new(stream);
        let guests = Arc::new(GuestLink::new(&self.hub));
        self.guests.lock().push(Arc::clone(&guests));
        guests.queue.send(LINK_SESSION, &Hello::own());
        let handle = |session, message: &[u8]| {
            if session != LINK_SESSION {
                guests.handle(session, decode(message)?);
                return Ok(());
            }
            match decode(message)? {
                EdgeMessage::Ping { sent, generation, others } => {
                    self.on_ping(node, 0, generation, &others);
                    let (generation, others) = self.view();
                    let sent = if self.observer.confirms() { sent } else { 0 };
                    guests.queue.send(LINK_SESSION, &OwnerMessage::Pong { sent, generation, others });
                }
                EdgeMessage::Bye => self.end(node),
                EdgeMessage::Find(key) if self.observer.has_room(&key) => {
                    guests.queue.send(LINK_SESSION, &OwnerMessage::Has(key));
                }
                EdgeMessage::Find(_) => {}
                EdgeMessage::Ask { ticket, question } => {
                    let (answer, queue) = (self.observer.asked(question), Arc::clone(&guests.queue));
                    tokio::spawn(async move {
                        let yes = answer.await;
                        queue.send(LINK_SESSION, &OwnerMessage::Answer { ticket, yes });
                    });
                }
                _ => return Err(invalid("a message without a session")),
            }
            Ok(())
        };
        let ended = tokio::select! {
            ended = stream.read_frames(self.max_frame, handle) => ended,
            ended = guests.queue.write_to(&stream, || guests.relieved()) => ended,
            () = guests.follow_notices() => Ok(()),
        };
        self.log_end(node, &ended, false);
        self.guests.lock().retain(|link| !Arc::ptr_eq(link, &guests));
    }

    /// Keeps one link to another node until it ends. The connections of this node in its rooms are closed
    /// then.
    ///
    /// # Errors
    /// The node cannot be reached, or is another one, or the link was cut.
    pub(crate) async fn dial(&self, node: NodeId, address: SocketAddr) -> io::Result<()> {
        let connecting = self.connect(node, address);
        let stream = timeout(HANDSHAKE_TIMEOUT, connecting).await.unwrap_or_else(|_| Err(timed_out()));
        match &stream {
            // With TLS 1.3, the handshake ends here before the other node refuses the key of this one.
            Ok(_) if !self.ended.lock().contains(&node) => self.observer.proved_alive(node),
            Err(error) if LinkFault::of(error) == LinkFault::UnknownKey => self.observer.found_unknown(node),
            _ => {}
        }
        let stream = LinkStream::new(stream?);
        let link = FarLink::new(node, address, &self.memory);
        link.queue.send(LINK_SESSION, &Hello::own());
        let mut greeted = false;
        let handle = |session, message: &[u8]| {
            if session != LINK_SESSION {
                link.handle(session, decode(message)?);
                return Ok(());
            }
            if !greeted {
                link.set_version(decode::<Hello>(message)?.check()?);
                greeted = true;
                self.observer.linked(&link);
                return Ok(());
            }
            match decode(message)? {
                OwnerMessage::Pong { sent, generation, others } => {
                    self.on_ping(node, sent, generation, &others);
                }
                OwnerMessage::Bye => self.end(node),
                OwnerMessage::Has(key) => self.observer.found(node, &key),
                OwnerMessage::Answer { ticket, yes } => self.observer.answered(node, ticket, yes),
                _ => return Err(invalid("a message without a session")),
            }
            Ok(())
        };
        let ended = tokio::select! {
            ended = stream.read_frames(self.max_frame, handle) => ended,
            ended = link.queue.write_to(&stream, || link.relieved()) => ended,
            ended = self.ping(&link) => ended,
        };
        // One that was not greeted does not know this node yet.
        if greeted {
            self.log_end(node, &ended, true);
        }
        link.ended.cancel();
        self.observer.unlinked(&link);
        tokio::spawn(async move { link.end().await });
        ended
    }

    async fn connect(&self, node: NodeId, address: SocketAddr) -> io::Result<TlsStream<NodeSocket>> {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("node").map_err(invalid)?;
        let stream =
            TlsConnector::from(Arc::clone(&self.tls.client)).connect(name, buffered(stream)?).await?;
        match self.node_of(stream.get_ref().1)? {
            other if other != node => Err(invalid("another node has its address")),
            _ => Ok(stream),
        }
    }

    /// Calls the node of a link. Returns `None` if it does not accept the call.
    ///
    /// # Errors
    /// The node cannot be reached, or does not answer in time.
    pub(crate) async fn call(&self, link: &FarLink, call: &Call) -> io::Result<Option<OutgoingCall>> {
        let answer = async {
            let Ok(_permit) = self.calls.acquire().await else { return Err(timed_out()) };
            let mut stream = self.connect(link.node, link.address).await?;
            write_first(&mut stream, CALL_SESSION, call).await?;
            let (_, answer) = read_first(&mut stream).await?;
            Ok(decode::<bool>(&answer)?.then_some(stream))
        };
        let stream = timeout(HANDSHAKE_TIMEOUT, answer).await.unwrap_or_else(|_| Err(timed_out()))?;
        Ok(stream.map(|stream| OutgoingCall { stream: stream.into(), link_ended: link.ended.clone() }))
    }

    async fn accept_call(&self, mut stream: server::TlsStream<NodeSocket>, call: Call) -> io::Result<()> {
        let accepted = self.observer.called(call);
        write_first(&mut stream, CALL_SESSION, &accepted.is_some()).await?;
        if let Some(accepted) = accepted {
            accepted(stream.into());
        }
        Ok(())
    }

    async fn ping(&self, link: &FarLink) -> io::Result<()> {
        let mut ticks = interval(PING_INTERVAL);
        loop {
            ticks.tick().await;
            let (sent, (generation, others)) = (self.observer.now(), self.view());
            link.queue.send(LINK_SESSION, &EdgeMessage::Ping { sent, generation, others });
        }
    }

    fn view(&self) -> (Generation, Vec<u64>) {
        let (generation, others) = self.observer.view();
        (generation, others.into_iter().map(|node| node.0).collect())
    }

    fn node_of(&self, tls: &CommonState) -> io::Result<NodeId> {
        let key = tls.peer_certificates().and_then(<[_]>::first);
        key.and_then(|key| self.known.node(key)).ok_or_else(|| invalid("a node without a known key"))
    }

    fn log_end(&self, node: NodeId, ended: &io::Result<()>, is_dialled: bool) {
        if self.ended.lock().contains(&node) {
            if is_dialled {
                tracing::info!("{} has ended", self.observer.describe(node));
            }
            return;
        }
        if let Err(error) = ended {
            let mut cuts = self.cuts.lock();
            let count = match error.kind() {
                io::ErrorKind::TimedOut => &mut cuts.silent,
                io::ErrorKind::InvalidData => &mut cuts.invalid,
                io::ErrorKind::OutOfMemory => &mut cuts.overfull,
                _ => &mut cuts.failed,
            };
            *count += 1;
            drop(cuts);
            let (node, fault) = (self.observer.describe(node), LinkFault::of(error).describe(error));
            if is_dialled {
                tracing::info!("the link to {node} ended: {fault}");
            } else if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::OutOfMemory) {
                tracing::info!("the link from {node} was cut: {fault}");
            } else {
                // The link to it reports that as well.
                tracing::debug!("the link from {node} ended: {fault}");
            }
        }
    }
}

/// A call that another node has accepted.
#[derive(Debug)]
pub(crate) struct OutgoingCall {
    /// The stream to the other node.
    pub(crate) stream: CallStream,
    /// Cancelled when the link to the other node has ended, which may end without a trace on the stream.
    pub(crate) link_ended: CancellationToken,
}

fn buffered(stream: TcpStream) -> io::Result<NodeSocket> {
    stream.set_nodelay(true)?;
    Ok(BufReader::with_capacity(SOCKET_BUFFER, stream))
}
