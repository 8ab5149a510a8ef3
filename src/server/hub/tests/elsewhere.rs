//! Rooms at another node: a second hub, and a link without a network.

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

use super::*;
use crate::protocol::model::RoomRole;
use crate::server::hub::directory::{Directory, Hold, Location, RemoteRoom};
use crate::server::hub::outbox::RemoteReader;

/// The node that has all rooms, and what the link to it does.
#[derive(Clone, Debug)]
struct TestOwner {
    hub: Arc<Hub>,
    /// Answers are held back.
    delays: Arc<AtomicBool>,
    /// The place of rooms is unknown.
    unknown: Arc<AtomicBool>,
    sessions: Arc<Mutex<Vec<Arc<TestSession>>>>,
}

/// One connection in a room of the owner.
#[derive(Debug)]
struct TestSession {
    owner: TestOwner,
    guest: Mutex<Option<Membership>>,
    /// The queue of the connection.
    outbox: Outbox,
    role: Mutex<Option<RoomRole>>,
    links: Mutex<Vec<LinkId>>,
    hold: Mutex<Option<Hold>>,
    held: AtomicBool,
    full: AtomicBool,
}

#[derive(Debug)]
struct TestRemote(Arc<TestSession>);

impl TestOwner {
    fn new() -> (TestOwner, Arc<Hub>) {
        let owner = TestOwner {
            hub: Hub::new(),
            delays: Arc::default(),
            unknown: Arc::default(),
            sessions: Arc::default(),
        };
        let edge = Hub::new();
        edge.set_directory(Box::new(owner.clone()));
        (owner, edge)
    }

    fn session(&self, number: usize) -> Arc<TestSession> {
        Arc::clone(&self.sessions.lock()[number])
    }
}

impl Directory for TestOwner {
    fn locate(&self, _: &RoomKey, waiter: &Outbox) -> Location {
        if self.unknown.load(Ordering::Relaxed) {
            return Location::Unknown;
        }
        let session = Arc::new(TestSession {
            owner: self.clone(),
            guest: Mutex::new(None),
            outbox: waiter.clone(),
            role: Mutex::new(None),
            links: Mutex::default(),
            hold: Mutex::default(),
            held: AtomicBool::new(false),
            full: AtomicBool::new(false),
        });
        self.sessions.lock().push(Arc::clone(&session));
        Location::Elsewhere(Box::new(TestRemote(session)))
    }

    fn may_decide(&self, _: &RoomKey) -> bool {
        true
    }

    fn removed(&self, _: &RoomKey) {}
}

impl TestSession {
    /// Sends the answer, unless answers are held back.
    fn answer(&self) {
        if self.owner.delays.load(Ordering::Relaxed) {
            return;
        }
        let role = self.guest.lock().as_ref().and_then(Membership::single_role);
        *self.role.lock() = role;
        self.outbox.notify();
    }

    fn apply(self: &Arc<Self>, apply: impl FnOnce(&mut Membership)) {
        let mut guest = self.guest.lock();
        let guest = guest.get_or_insert_with(|| {
            let hub = &self.owner.hub;
            hub.register(Outbox::remote(Box::new(TestRemote(Arc::clone(self)))))
        });
        apply(guest);
        if let Some(hold) = guest.hold(Instant::now()) {
            *self.hold.lock() = Some(hold);
            self.held.store(true, Ordering::Relaxed);
            self.outbox.notify();
        }
    }
}

impl RemoteRoom for TestRemote {
    fn enter(&self, key: &RoomKey, command: Command) {
        *self.0.role.lock() = None;
        self.0.apply(|guest| guest.enter(key, command));
        self.0.answer();
    }

    fn command(&self, command: Command, changes_role: bool) {
        if changes_role {
            *self.0.role.lock() = None;
        }
        self.0.apply(|guest| {
            guest.command(command);
        });
        if changes_role {
            self.0.answer();
        }
    }

    fn drop_membership(&self) {
        self.0.apply(Membership::drop_membership);
    }

    fn leave(&self, normal_closure: bool) {
        if let Some(mut guest) = self.0.guest.lock().take() {
            guest.leave(normal_closure);
        }
    }

    fn is_endpoint_of(&self, link: LinkId) -> bool {
        self.0.links.lock().contains(&link)
    }

    fn mark_mixed(&self, link: LinkId) {
        self.0.apply(|guest| {
            guest.mark_mixed(link);
        });
    }

    fn role(&self) -> Option<RoomRole> {
        *self.0.role.lock()
    }

    fn take_hold(&self) -> Option<Hold> {
        self.0.hold.lock().take()
    }

    fn is_relieved(&self) -> bool {
        !self.0.held.load(Ordering::Relaxed)
    }

    fn close_joiner(&self) {
        self.0.apply(Membership::close_full_joiner);
    }
}

impl RemoteReader for TestRemote {
    fn send(&self, event: &Event) -> Option<Waker> {
        if let Event::LinkedToMember { link } | Event::LinkedToJoiner { link } = event {
            self.0.links.lock().push(*link);
        }
        self.0.outbox.enqueue(event.clone(), &MemoryBudget::new(usize::MAX)).0
    }

    fn is_full(&self) -> bool {
        self.0.full.load(Ordering::Relaxed)
    }

    fn notify(&self) {
        self.0.held.store(false, Ordering::Relaxed);
        self.0.outbox.notify();
    }

    fn overflow(&self) {
        self.0.outbox.overflow();
    }
}

/// Polls the queue as the task of a connection does, and continues if it was notified.
fn turn(peer: &mut TestPeer) -> Vec<Event> {
    let events = take(&peer.outbox).unwrap();
    peer.membership.resume();
    events
}

#[test]
fn peers_of_one_node_meet_in_a_room_of_another() {
    let (owner, edge) = TestOwner::new();
    let key = RoomKey::from("k");
    let (mut first, mut second) = (peer(&edge), peer(&edge));
    first.membership.enter(&key, join());
    second.membership.enter(&key, join());
    assert_eq!((edge.rooms(), owner.hub.rooms()), (0, 1));
    let link = linked(&turn(&mut second));
    let arrived = turn(&mut first);
    assert_eq!(arrived, [Event::Admitted { first: true }, Event::LinkedToJoiner { link }]);
    assert!(second.membership.command(data(Recipient::Member, 3)));
    assert!(first.membership.command(data(Recipient::Joiner(link), 4)));
    for (peer, side) in [(&mut first, Side::Member), (&mut second, Side::Joiner)] {
        let events = turn(peer);
        let relayed = |event: &Event| matches!(event, Event::Relayed { side: s, .. } if *s == side);
        assert!(events.len() == 1 && relayed(&events[0]), "{events:?}");
    }
    second.membership.leave(true);
    let ended = Event::LinkEnded { link, side: Side::Member, normal_closure: true };
    assert_eq!(turn(&mut first), [ended]);
    drop(first);
    assert_eq!(owner.hub.rooms(), 0);
}

/// The peer is read again only when its role is known, so that its next command finds the room.
#[test]
fn client_is_not_read_until_the_room_has_answered() {
    let (owner, edge) = TestOwner::new();
    let (key, now) = (RoomKey::from("k"), Instant::now());
    let mut first = peer(&edge);
    first.membership.enter(&key, join());
    owner.delays.store(true, Ordering::Relaxed);
    let mut second = peer(&edge);
    second.membership.enter(&key, join());
    turn(&mut second);
    assert!(second.membership.is_paused(now));
    // What its protocol sends on its own is put off, and stays in order.
    assert!(second.membership.command(data(Recipient::Member, 1)));
    assert!(second.membership.command(data(Recipient::Member, 2)));
    assert_eq!(turn(&mut first).len(), 2, "admitted, and linked to a joiner");
    owner.delays.store(false, Ordering::Relaxed);
    owner.session(1).answer();
    turn(&mut second);
    assert!(!second.membership.is_paused(now));
    let sizes: Vec<_> = turn(&mut first)
        .iter()
        .map(|event| match event {
            Event::Relayed { message, .. } => message.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sizes, [1, 2]);
}

#[test]
fn client_is_read_while_the_place_of_its_room_is_unknown_for_long() {
    let (owner, edge) = TestOwner::new();
    owner.unknown.store(true, Ordering::Relaxed);
    let mut peer = peer(&edge);
    peer.membership.enter(&RoomKey::from("k"), join());
    let read_from = peer.membership.deadline().unwrap();
    assert!(peer.membership.is_paused(read_from - Duration::from_millis(1)));
    peer.outbox.notify();
    turn(&mut peer);
    assert_eq!(peer.membership.deadline(), Some(read_from), "looking again does not prolong the pause");
    peer.membership.on_timeout(read_from);
    assert!(!peer.membership.is_paused(read_from) && peer.membership.deadline() > Some(read_from));
    peer.membership.command(Command::BecomeMember);
    peer.outbox.notify();
    turn(&mut peer);
    assert_eq!(owner.hub.rooms(), 0);
    owner.unknown.store(false, Ordering::Relaxed);
    turn(&mut peer);
    turn(&mut peer);
    assert_eq!(owner.hub.rooms(), 1);
    assert_eq!(peer.membership.deadline(), None);
    assert!(peer.membership.refusal().is_none());
}

#[test]
fn client_with_much_to_put_off_is_not_read() {
    let (owner, edge) = TestOwner::new();
    owner.unknown.store(true, Ordering::Relaxed);
    let mut peer = peer(&edge);
    peer.membership.enter(&RoomKey::from("k"), join());
    peer.membership.command(data(Recipient::Member, 64 * 1024));
    assert!(peer.membership.is_paused(Instant::now()));
}

#[test]
fn room_that_is_not_found_in_time_is_unreachable() {
    let (owner, edge) = TestOwner::new();
    owner.unknown.store(true, Ordering::Relaxed);
    let mut peer = peer(&edge);
    peer.membership.enter(&RoomKey::from("k"), join());
    let read_from = peer.membership.deadline().unwrap();
    peer.membership.on_timeout(read_from);
    let deadline = peer.membership.deadline().unwrap();
    peer.membership.resume();
    assert_eq!(peer.membership.deadline(), Some(deadline), "looking again does not prolong the wait");
    peer.membership.on_timeout(deadline - Duration::from_millis(1));
    assert_eq!(peer.membership.refusal(), None);
    peer.membership.on_timeout(deadline);
    assert_eq!(peer.membership.refusal(), Some(&Reason::Unreachable));
}

/// An opener with a second key is in two rooms, and names links of both.
#[test]
fn message_goes_to_the_room_of_its_link() {
    let (owner, edge) = TestOwner::new();
    let open = |key: &str, peer: &mut TestPeer| {
        let open = Open { exclusive: true, keep_other_rooms: true };
        peer.membership.enter(&RoomKey::from(key), Command::Open(open));
        turn(peer);
    };
    let mut opener = peer(&edge);
    open("a", &mut opener);
    open("b", &mut opener);
    let mut joiners = ["a", "b"].map(|key| {
        let mut joiner = peer(&edge);
        joiner.membership.enter(&RoomKey::from(key), join());
        let link = linked(&turn(&mut joiner));
        (joiner, link)
    });
    turn(&mut opener);
    for (joiner, link) in &mut joiners {
        assert!(opener.membership.command(data(Recipient::Joiner(*link), 5)));
        assert_eq!(turn(joiner).len(), 1);
    }
    drop(opener);
    drop(joiners);
    assert_eq!(owner.hub.rooms(), 0);
}

#[test]
fn sender_is_held_while_a_queue_at_another_node_is_full() {
    let (owner, edge) = TestOwner::new();
    let (key, now) = (RoomKey::from("k"), Instant::now());
    let (mut member, mut joiner) = (peer(&edge), peer(&edge));
    member.membership.enter(&key, join());
    joiner.membership.enter(&key, join());
    turn(&mut joiner);
    turn(&mut member);
    owner.session(0).full.store(true, Ordering::Relaxed);
    let mut sent = 0;
    while !joiner.membership.is_paused(now) {
        joiner.membership.command(data(Recipient::Member, 1));
        turn(&mut joiner);
        joiner.membership.count_message(1, now);
        sent += 1;
        assert!(sent < 1000, "the joiner is not held");
    }
    owner.session(0).full.store(false, Ordering::Relaxed);
    let receiver = owner.session(0);
    let outbox = receiver.guest.lock().as_ref().unwrap().outbox().clone();
    outbox.relieve_remote();
    turn(&mut joiner);
    assert!(!joiner.membership.is_paused(now));
}

/// The reader of a queue at another node, whose link counts how often it is woken.
#[derive(Debug)]
struct CountingLink(Arc<CountingWaker>);

#[derive(Debug, Default)]
struct CountingWaker(AtomicUsize);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl RemoteReader for CountingLink {
    fn send(&self, _: &Event) -> Option<Waker> {
        Some(Waker::from(Arc::clone(&self.0)))
    }

    fn is_full(&self) -> bool {
        false
    }

    fn notify(&self) {}

    fn overflow(&self) {}
}

/// The task of a local peer polls its queue after its command; the writer of a link does not.
#[test]
fn link_is_woken_for_the_answer_to_its_own_peer() {
    let (hub, wakes) = (Hub::new(), Arc::<CountingWaker>::default());
    let mut guest = hub.register(Outbox::remote(Box::new(CountingLink(Arc::clone(&wakes)))));
    guest.enter(&RoomKey::from("k"), join());
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1, "it is admitted");
}

#[test]
fn closed_room_evicts_its_peers() {
    let hub = Hub::new();
    let key = RoomKey::from("k");
    let (mut first, mut second) = (peer(&hub), peer(&hub));
    first.membership.enter(&key, join());
    second.membership.enter(&key, join());
    hub.close_room(&key, &Reason::Moved);
    for peer in [&first, &second] {
        assert_eq!(take(&peer.outbox).unwrap().last(), Some(&Event::Evicted(Reason::Moved)));
    }
    assert_eq!(hub.rooms(), 0);
    hub.close_room(&key, &Reason::Moved);
}

/// A node that has lost its lease sends no more decisions.
#[test]
fn node_that_may_not_decide_refuses_commands() {
    #[derive(Debug)]
    struct Lapsing(Arc<AtomicBool>, Arc<AtomicU32>);
    impl Directory for Lapsing {
        fn locate(&self, _: &RoomKey, _: &Outbox) -> Location {
            Location::Here
        }
        fn may_decide(&self, _: &RoomKey) -> bool {
            !self.0.load(Ordering::Relaxed)
        }
        fn removed(&self, _: &RoomKey) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }
    let (lapsed, removed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let hub = Hub::new();
    hub.set_directory(Box::new(Lapsing(Arc::clone(&lapsed), Arc::clone(&removed))));
    let mut peer = peer(&hub);
    peer.membership.enter(&RoomKey::from("k"), join());
    assert_eq!(take(&peer.outbox), Ok(vec![Event::Admitted { first: true }]));
    lapsed.store(true, Ordering::Relaxed);
    peer.membership.command(Command::BecomeMember);
    assert_eq!(take(&peer.outbox), Ok(Vec::new()));
    assert_eq!(peer.membership.refusal(), Some(&Reason::Moved));
    drop(peer);
    assert_eq!(removed.load(Ordering::Relaxed), 1);
}
