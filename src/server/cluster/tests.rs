//! Links between hubs of one process, over loopback, with fixed owners of rooms.

mod calls;
mod frames;
mod versions;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::rustls::CipherSuite;

use super::far::FarLink;
use super::link::{LinkObserver, Links};
use super::wire::EdgeMessage;
use super::*;
use crate::protocol::cluster::{Generation, Millis, NodeId};
use crate::protocol::model::*;
use crate::server::hub::{Directory, Hold, Hub, Location, Membership, Outbox};
use crate::server::memory::MemoryBudget;

const MAX_MESSAGE: usize = 1 << 20;
const LIMIT: usize = 8 << 20;

/// The other nodes of a test node, for its hub and its links.
#[derive(Debug, Default)]
pub(super) struct TestCluster {
    /// The node that has all rooms; `None` for the node itself.
    pub(super) owner: Mutex<Option<NodeId>>,
    /// The node that has the rooms once the owner is known not to.
    next_owner: Mutex<Option<NodeId>>,
    misplaced: AtomicUsize,
    pub(super) links: Mutex<HashMap<NodeId, Arc<FarLink>>>,
    pub(super) pings: Mutex<Vec<(NodeId, Millis)>>,
    alive: Mutex<Vec<NodeId>>,
    unknown: Mutex<Vec<NodeId>>,
    ended: Mutex<BTreeSet<NodeId>>,
    found: Mutex<Vec<(NodeId, RoomKey)>>,
    answers: Mutex<Vec<(NodeId, u32, bool)>>,
}

#[derive(Debug)]
struct TestDirectory(Arc<TestCluster>);

impl Directory for TestDirectory {
    fn locate(&self, _: &RoomKey, waiter: &Outbox) -> Location {
        match *self.0.owner.lock() {
            None => Location::Here,
            Some(owner) => match self.0.links.lock().get(&owner) {
                Some(link) => Location::Elsewhere(link.room(waiter)),
                None => Location::Unavailable(Reason::Unreachable),
            },
        }
    }

    fn may_decide(&self, _: &RoomKey) -> bool {
        true
    }

    fn misplaced(&self, _: &RoomKey) {
        self.0.misplaced.fetch_add(1, Ordering::Relaxed);
        if let Some(next) = self.0.next_owner.lock().take() {
            *self.0.owner.lock() = Some(next);
        }
    }

    fn removed(&self, _: &RoomKey) {}
}

impl LinkObserver for TestCluster {
    fn now(&self) -> Millis {
        77
    }

    fn view(&self) -> (Generation, Vec<NodeId>) {
        (5, vec![NodeId(9)])
    }

    fn on_ping(&self, node: NodeId, confirms: Millis, view: (Generation, Vec<NodeId>)) {
        assert_eq!(view, (5, vec![NodeId(9)]));
        self.pings.lock().push((node, confirms));
    }

    fn proved_alive(&self, node: NodeId) {
        self.alive.lock().push(node);
    }

    fn found_unknown(&self, node: NodeId) {
        self.unknown.lock().push(node);
    }

    fn confirms(&self) -> bool {
        true
    }

    fn linked(&self, link: &Arc<FarLink>) {
        self.links.lock().insert(link.node, Arc::clone(link));
    }

    fn unlinked(&self, link: &Arc<FarLink>) {
        self.links.lock().remove(&link.node);
    }

    fn ended(&self, node: NodeId) {
        self.ended.lock().insert(node);
    }

    fn has_room(&self, key: &RoomKey) -> bool {
        *key == RoomKey::from("here")
    }

    fn found(&self, node: NodeId, key: &RoomKey) {
        self.found.lock().push((node, key.clone()));
    }

    fn asked(&self, question: Question) -> Answer {
        let yes = matches!(question, Question::HasStream(StreamName { form: 9, id: 7 }));
        Box::pin(std::future::ready(yes))
    }

    fn answered(&self, node: NodeId, ticket: u32, yes: bool) {
        self.answers.lock().push((node, ticket, yes));
    }

    fn called(&self, Call::Connect(handle): Call) -> Option<AcceptedCall> {
        calls::accept(&handle)
    }
}

pub(super) struct TestNode {
    pub(super) id: NodeId,
    pub(super) hub: Arc<Hub>,
    pub(super) cluster: Arc<TestCluster>,
    pub(super) links: Arc<Links>,
    pub(super) address: SocketAddr,
}

impl TestNode {
    pub(super) async fn start(id: u64) -> TestNode {
        TestNode::start_within(id, &MemoryBudget::new(usize::MAX)).await
    }

    /// Starts a node whose clients and handshakes share a budget.
    pub(super) async fn start_within(id: u64, memory: &Arc<MemoryBudget>) -> TestNode {
        let (hub, cluster) = (Arc::new(Hub::with_memory(Arc::clone(memory))), Arc::<TestCluster>::default());
        hub.set_directory(Box::new(TestDirectory(Arc::clone(&cluster))));
        let observer: Arc<dyn LinkObserver> = Arc::<TestCluster>::clone(&cluster);
        let links = Links::new(&hub, memory, MAX_MESSAGE, observer).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(Arc::clone(&links).accept(listener));
        TestNode { id: NodeId(id), hub, cluster, links, address }
    }

    /// Has the node believe the key of another.
    pub(super) fn know(&self, others: &[&TestNode]) {
        self.links.known().set(others.iter().map(|other| (other.links.public_key().clone(), other.id)));
    }

    pub(super) fn dial(&self, other: &TestNode) -> tokio::task::JoinHandle<std::io::Result<()>> {
        let (links, node, address) = (Arc::clone(&self.links), other.id, other.address);
        tokio::spawn(async move { links.dial(node, address).await })
    }

    /// Dials the node that has all rooms, and waits for the link.
    pub(super) async fn use_rooms_of(&self, owner: &TestNode) {
        self.know(&[owner]);
        *self.cluster.owner.lock() = Some(owner.id);
        self.dial(owner);
        until(|| self.cluster.links.lock().contains_key(&owner.id)).await;
    }

    pub(super) fn peer(&self) -> TestPeer {
        let outbox = Outbox::new(LIMIT);
        TestPeer { membership: self.hub.register(outbox.clone()), outbox, events: VecDeque::new() }
    }
}

pub(super) async fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "in vain");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(super) struct TestPeer {
    pub(super) membership: Membership,
    outbox: Outbox,
    events: VecDeque<Event>,
}

impl TestPeer {
    /// Returns the next event, as the task of a connection would.
    pub(super) async fn event(&mut self) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let taken = poll_fn(|context| self.outbox.poll_take(context, &mut self.events));
            timeout(Duration::from_secs(10), taken).await.expect("no event").expect("an overflow");
            self.membership.resume();
        }
    }

    async fn link(&mut self) -> LinkId {
        match self.event().await {
            Event::LinkedToMember { link } | Event::LinkedToJoiner { link } => link,
            other => panic!("{other:?}"),
        }
    }

    async fn payload(&mut self) -> Bytes {
        match self.event().await {
            Event::Relayed { message: LinkMessage::Data { payload: Payload::Bytes(bytes), .. }, .. } => bytes,
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn join() -> Command {
    Command::Join(Join {
        when_empty: WhenEmpty::BecomeMember,
        choice: MemberChoice::Oldest,
        rejoin: RejoinPolicy::Replace,
    })
}

fn data(to: Recipient, bytes: impl Into<Bytes>) -> Command {
    let payload = Payload::Bytes(bytes.into());
    Command::Relay { to, message: LinkMessage::Data { payload, last: false }, sender: SenderTag::new(20, 0) }
}

#[tokio::test]
async fn peers_of_three_nodes_meet_in_one_room() {
    let (a, b, c) = (TestNode::start(1).await, TestNode::start(2).await, TestNode::start(3).await);
    a.know(&[&b, &c]);
    b.use_rooms_of(&a).await;
    c.use_rooms_of(&a).await;
    let key = RoomKey::from("k").with_partition(3);
    let mut member = b.peer();
    member.membership.enter(&key, join());
    assert_eq!(member.event().await, Event::Admitted { first: true });
    let mut joiners = [a.peer(), c.peer()];
    for joiner in &mut joiners {
        joiner.membership.enter(&key, join());
        let link = joiner.link().await;
        assert_eq!(member.link().await, link);
        for text in ["one", "two"] {
            joiner.membership.command(data(Recipient::Member, text));
            member.membership.command(data(Recipient::Joiner(link), text));
        }
        for text in ["one", "two"] {
            assert_eq!((member.payload().await, joiner.payload().await), (text.into(), text.into()));
        }
    }
    assert_eq!((a.hub.rooms(), b.hub.rooms(), c.hub.rooms(), a.links.guests()), (1, 0, 0, 2));
    joiners[1].membership.leave(true);
    let ended = member.event().await;
    assert!(matches!(ended, Event::LinkEnded { normal_closure: true, .. }), "{ended:?}");
    drop((member, joiners));
    until(|| a.hub.rooms() == 0).await;
    assert_eq!((a.links.guests(), b.links.cuts()), (0, Default::default()));
}

#[tokio::test]
async fn room_that_has_moved_is_entered_at_its_new_node() {
    let (a, b, c) = (TestNode::start(1).await, TestNode::start(2).await, TestNode::start(3).await);
    a.know(&[&b]);
    c.know(&[&a, &b]);
    a.use_rooms_of(&c).await;
    a.know(&[&b, &c]);
    b.use_rooms_of(&c).await;
    b.use_rooms_of(&a).await;
    *b.cluster.next_owner.lock() = Some(c.id);
    let (mut peer, key) = (b.peer(), RoomKey::from("k"));
    peer.membership.enter(&key, join());
    peer.membership.command(Command::BecomeMember);
    assert_eq!(peer.event().await, Event::Admitted { first: true });
    assert_eq!((a.links.guests(), c.links.guests(), b.cluster.misplaced.load(Ordering::Relaxed)), (0, 1, 1));
    assert!(peer.membership.refusal().is_none());
    // The node that has the room may end: its own connections are closed with their rooms, those of others
    // are not.
    let mut here = c.peer();
    here.membership.enter(&key, join());
    assert!(here.membership.closes_with_room() && !peer.membership.closes_with_room());
    c.hub.close_room(&key, &Reason::Moved);
    assert!(!here.membership.closes_with_room());
}

#[tokio::test]
async fn room_that_no_node_has_is_refused() {
    let (a, b, c) = (TestNode::start(1).await, TestNode::start(2).await, TestNode::start(3).await);
    c.know(&[&a]);
    a.use_rooms_of(&c).await;
    a.know(&[&b, &c]);
    b.use_rooms_of(&a).await;
    let mut peer = b.peer();
    peer.membership.enter(&RoomKey::from("k"), join());
    let start = Instant::now();
    while peer.membership.refusal().is_none() {
        assert!(start.elapsed() < Duration::from_secs(5), "not refused");
        tokio::time::sleep(Duration::from_millis(2)).await;
        peer.membership.resume();
    }
    assert_eq!(peer.membership.refusal(), Some(&Reason::Moved));
    assert_eq!(b.cluster.misplaced.load(Ordering::Relaxed), 3);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let _ = peer.outbox.poll_take(&mut context, &mut peer.events);
    assert!(peer.events.is_empty());
}

#[tokio::test]
async fn nodes_without_a_known_key_are_refused_on_both_sides() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    // The stranger knows the node, which does not know it: the link ends before it is open.
    b.know(&[&a]);
    assert!(b.dial(&a).await.unwrap().is_err() || b.cluster.links.lock().is_empty());
    assert!(b.cluster.links.lock().is_empty());
    // It has proved its key before.
    assert_eq!((b.cluster.alive.lock().clone(), b.cluster.unknown.lock().len()), (vec![a.id], 0));
    // The reverse, and another node than the one that was dialled.
    b.know(&[]);
    a.know(&[&b]);
    assert!(b.dial(&a).await.unwrap().is_err());
    assert_eq!((b.cluster.alive.lock().len(), b.cluster.unknown.lock().clone()), (1, vec![a.id]));
    b.links.known().set([(a.links.public_key().clone(), NodeId(7))]);
    assert!(b.dial(&a).await.unwrap().is_err());
    // Plain text is no handshake.
    let mut stream = TcpStream::connect(a.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!((a.links.guests(), a.hub.rooms()), (0, 0));
}

#[tokio::test]
async fn links_use_aes_128() {
    let node = TestNode::start(1).await;
    let stream = hostile_tests::connect(&node, 2).await;
    let suite = stream.get_ref().1.negotiated_cipher_suite().map(|suite| suite.suite());
    assert_eq!(suite, Some(CipherSuite::TLS13_AES_128_GCM_SHA256));
}

#[tokio::test]
async fn connections_are_closed_when_their_node_has_ended() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    a.know(&[&b]);
    b.know(&[&a]);
    *b.cluster.owner.lock() = Some(a.id);
    let dialled = b.dial(&a);
    until(|| b.cluster.links.lock().contains_key(&a.id)).await;
    let mut peer = b.peer();
    peer.membership.enter(&RoomKey::from("k"), join());
    assert_eq!(peer.event().await, Event::Admitted { first: true });
    a.links.cut_all();
    assert!(dialled.await.unwrap().is_err(), "the other end closed without a word");
    assert_eq!(peer.event().await, Event::Evicted(Reason::Moved));
    until(|| a.hub.rooms() == 0).await;
    assert!(b.cluster.links.lock().is_empty());
}

#[tokio::test]
async fn pings_are_confirmed_and_the_end_of_a_node_is_received() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    a.know(&[&b]);
    b.use_rooms_of(&a).await;
    until(|| b.cluster.pings.lock().contains(&(a.id, 77))).await;
    assert!(a.cluster.pings.lock().contains(&(b.id, 0)));
    a.links.announce_end();
    until(|| b.cluster.ended.lock().contains(&a.id)).await;
}

#[tokio::test]
async fn node_answers_only_for_rooms_that_it_has() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    a.know(&[&b]);
    b.use_rooms_of(&a).await;
    let link = b.cluster.links.lock().get(&a.id).map(Arc::clone).unwrap();
    link.find(&RoomKey::from("elsewhere"));
    link.find(&RoomKey::from("here"));
    for id in [6, 7] {
        let question = Question::HasStream(StreamName { form: 9, id });
        link.queue.send(0, &EdgeMessage::Ask { ticket: id as u32, question });
    }
    until(|| !b.cluster.found.lock().is_empty()).await;
    assert_eq!(*b.cluster.found.lock(), [(a.id, RoomKey::from("here"))]);
    until(|| b.cluster.answers.lock().len() == 2).await;
    let mut answers = b.cluster.answers.lock().clone();
    answers.sort_unstable();
    assert_eq!(answers, [(a.id, 6, false), (a.id, 7, true)]);
}

/// The sender is held when the queue of the receiver, at a third node, is full; and read again later.
#[tokio::test]
async fn sender_waits_for_a_receiver_at_another_node() {
    let (a, b, c) = (TestNode::start(1).await, TestNode::start(2).await, TestNode::start(3).await);
    a.know(&[&b, &c]);
    b.use_rooms_of(&a).await;
    c.use_rooms_of(&a).await;
    let key = RoomKey::from("k");
    let (mut member, mut joiner) = (b.peer(), c.peer());
    member.membership.enter(&key, join());
    assert_eq!(member.event().await, Event::Admitted { first: true });
    joiner.membership.enter(&key, join());
    joiner.link().await;
    member.link().await;
    let big = vec![7; 64 * 1024];
    let mut sent = 0;
    let start = Instant::now();
    while !joiner.membership.is_paused(std::time::Instant::now()) {
        joiner.membership.command(data(Recipient::Member, big.clone()));
        joiner.membership.count_message(big.len(), std::time::Instant::now());
        sent += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
        joiner.membership.resume();
        assert!(start.elapsed() < Duration::from_secs(20) && sent < 1000, "the joiner is not held");
    }
    for _ in 0..sent {
        assert_eq!(member.payload().await.len(), big.len());
    }
    let start = Instant::now();
    while joiner.membership.is_paused(std::time::Instant::now()) {
        assert!(start.elapsed() < Duration::from_secs(10), "the joiner is held for ever");
        tokio::time::sleep(Duration::from_millis(2)).await;
        joiner.membership.resume();
    }
}

/// No Node.js server had these reasons: also a client that is in a room has their codes.
#[test]
fn lost_rooms_have_the_same_close_codes_in_all_dialects() {
    use crate::protocol::dialect::{Candidates, Dialect, Output, Session, SessionOptions, UpgradeRequest};
    let upgrade = UpgradeRequest { path: "/k".to_owned(), favored: false, from_page: false };
    for release in Dialect::ALL.into_iter().flat_map(|dialect| dialect.releases()) {
        for (reason, code) in [(Reason::Moved, 1012), (Reason::Unreachable, 1013)] {
            let now = std::time::Instant::now();
            let candidates = Candidates::new([release].into_iter().collect());
            let options = SessionOptions { transcode: true, pinned: false };
            let mut outputs: Vec<Output> = Vec::new();
            let mut session = Session::new(&upgrade, candidates, options, now);
            session.encode(Event::Evicted(reason), now, &mut outputs);
            assert_eq!(
                outputs.iter().filter_map(Output::close_code).collect::<Vec<_>>(),
                [code],
                "{release:?}"
            );
        }
    }
}
