//! Connections that enter and leave rooms of a hub.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU32;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;

mod elsewhere;
mod pressure;

use super::outbox::PushResult;
use super::*;
use crate::protocol::model::{
    Command, Event, Join, LinkId, LinkMessage, MemberChoice, Open, Payload, Recipient, RejoinPolicy,
    SenderTag, Side, WhenEmpty,
};

const LIMIT: usize = 10_000;

const OPEN: Open = Open { exclusive: true, keep_other_rooms: false };

fn take(outbox: &Outbox) -> Result<Vec<Event>, Overflow> {
    let mut events = VecDeque::new();
    match outbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut events) {
        Poll::Ready(result) => result.map(|()| events.into()),
        Poll::Pending => Ok(Vec::new()),
    }
}

fn push(outbox: &Outbox, event: Event) {
    let (reader, admission) = outbox.enqueue(event, &MemoryBudget::new(usize::MAX));
    assert!(!matches!(admission, PushResult::Refused(_)), "{admission:?}");
    reader.into_iter().for_each(Waker::wake);
}

fn join() -> Command {
    Command::Join(Join {
        when_empty: WhenEmpty::BecomeMember,
        choice: MemberChoice::Oldest,
        rejoin: RejoinPolicy::Replace,
    })
}

fn data(to: Recipient, bytes: usize) -> Command {
    let payload = Payload::Bytes(Bytes::from(vec![7; bytes]));
    Command::Relay { to, message: LinkMessage::Data { payload, last: false }, sender: SenderTag::default() }
}

struct TestPeer {
    membership: Membership,
    outbox: Outbox,
}

fn peer(hub: &Arc<Hub>) -> TestPeer {
    let outbox = Outbox::new(LIMIT);
    TestPeer { membership: hub.register(outbox.clone()), outbox }
}

fn linked(events: &[Event]) -> LinkId {
    match events {
        [Event::LinkedToMember { link }] => *link,
        other => panic!("not linked: {other:?}"),
    }
}

#[test]
fn disconnect_ends_the_link_and_removes_the_room() {
    let hub = Hub::new();
    let key = RoomKey::from("k");
    let (mut first, mut second) = (peer(&hub), peer(&hub));
    first.membership.enter(&key, join());
    second.membership.enter(&key, join());
    linked(&take(&second.outbox).unwrap());
    let arrived = take(&first.outbox).unwrap();
    let [Event::Admitted { first: true }, Event::LinkedToJoiner { link }] = arrived[..] else {
        panic!("{arrived:?}")
    };
    assert!(second.membership.command(data(Recipient::Member, 3)));
    let events = take(&first.outbox).unwrap();
    assert!(
        matches!(events[..], [Event::Relayed { link: l, side: Side::Member, .. }] if l == link),
        "{events:?}"
    );
    drop(second);
    let events = take(&first.outbox).unwrap();
    assert!(matches!(events[..], [Event::LinkEnded { link: l, .. }] if l == link), "{events:?}");
    assert_eq!(hub.rooms(), 1);
    drop(first);
    assert_eq!(hub.rooms(), 0);
}

#[test]
fn single_event_fits_any_limit() {
    let outbox = Outbox::new(10);
    push(&outbox, Event::Admitted { first: true });
    assert_eq!(take(&outbox), Ok(vec![Event::Admitted { first: true }]));
}

/// A reader that registers without taking the queued events is not woken for them again.
#[test]
fn reader_is_parked_only_while_the_queue_is_empty() {
    let outbox = Outbox::new(LIMIT);
    let waits = || outbox.poll_overflow(&mut Context::from_waker(Waker::noop())).is_pending();
    assert!(!outbox.is_reader_parked(), "no reader is registered");
    assert_eq!((take(&outbox), outbox.is_reader_parked()), (Ok(Vec::new()), true));
    push(&outbox, Event::Admitted { first: true });
    assert!(!outbox.is_reader_parked());
    assert_eq!((waits(), outbox.is_reader_parked()), (true, false));
    assert_eq!((take(&outbox).unwrap().len(), outbox.is_reader_parked()), (1, false));
    assert_eq!((waits(), outbox.is_reader_parked()), (true, true));
    outbox.notify();
    assert!(!outbox.is_reader_parked());
    assert_eq!((waits(), waits(), outbox.is_reader_parked()), (false, true, true));
}

#[test]
fn refused_peer_leaves_no_room() {
    let hub = Hub::new();
    let mut peer = peer(&hub);
    let refuse = Join {
        when_empty: WhenEmpty::Refuse,
        choice: MemberChoice::Oldest,
        rejoin: RejoinPolicy::KeepReceiving,
    };
    peer.membership.enter(&RoomKey::from("nowhere"), Command::Join(refuse));
    assert_eq!(hub.rooms(), 0);
    assert!(!peer.membership.command(data(Recipient::Member, 1)));
}

#[test]
fn opening_another_key_ends_the_first_membership() {
    let hub = Hub::new();
    let (a, b) = (RoomKey::from("a"), RoomKey::from("b"));
    let (mut first, mut second) = (peer(&hub), peer(&hub));
    first.membership.enter(&a, Command::Open(OPEN));
    first.membership.enter(&b, Command::Open(OPEN));
    second.membership.enter(&a, Command::Open(OPEN));
    assert_eq!(take(&second.outbox), Ok(vec![Event::Admitted { first: true }]), "the key is free again");
    drop(first);
    assert_eq!(hub.rooms(), 1);
}

/// sigver 8 to 14: an opener serves several keys, and answers the joiners of each.
#[test]
fn opener_that_keeps_other_rooms_serves_the_latest_keys() {
    let hub = Hub::new();
    let additional = Open { exclusive: false, keep_other_rooms: true };
    let mut opener = peer(&hub);
    for number in 0..20 {
        opener.membership.enter(&RoomKey::from(format!("k{number}").as_str()), Command::Open(additional));
    }
    assert_eq!(hub.rooms(), 17);
    take(&opener.outbox).unwrap();
    for key in ["k3", "k19"] {
        let mut joiner = peer(&hub);
        joiner.membership.enter(&RoomKey::from(key), join());
        let link = linked(&take(&joiner.outbox).unwrap());
        assert!(opener.membership.command(data(Recipient::Joiner(link), 3)));
        let events = take(&joiner.outbox).unwrap();
        assert!(matches!(events[..], [Event::Relayed { side: Side::Joiner, .. }]), "{key} {events:?}");
    }
    drop(opener);
    assert_eq!(hub.rooms(), 0);
}

#[test]
fn rooms_are_reported_without_their_keys() {
    let hub = Hub::new();
    let (a, b) = (RoomKey::from("a"), RoomKey::from("b"));
    let mut peers = [peer(&hub), peer(&hub), peer(&hub)];
    for (peer, key) in peers.iter_mut().zip([&a, &a, &b]) {
        peer.membership.enter(key, join());
    }
    let rooms = || {
        let mut rooms = Vec::new();
        hub.for_each_room(|hash, peers, _| {
            let mut ids: Vec<u64> = peers.iter().map(|peer| peer.0).collect();
            ids.sort_unstable();
            rooms.push((hash, ids));
        });
        rooms.sort_by_key(|(_, ids)| ids[0]);
        rooms
    };
    let first = rooms();
    assert_eq!(first.iter().map(|(_, ids)| ids.clone()).collect::<Vec<_>>(), [vec![0, 1], vec![2]]);
    // The hashes are stable in one hub, and differ in another.
    assert_eq!(rooms(), first);
    let other = Hub::new();
    let mut elsewhere = peer(&other);
    elsewhere.membership.enter(&b, join());
    other.for_each_room(|hash, _, _| assert_ne!(hash, first[1].0));
    drop(peers);
    assert_eq!(rooms(), []);
}

#[test]
fn reply_on_behalf_does_not_change_the_room_of_a_peer() {
    let hub = Hub::new();
    let (first, second) = (RoomKey::from("first"), RoomKey::from("second"));
    let additional = Open { exclusive: false, keep_other_rooms: true };
    let mut opener = peer(&hub);
    opener.membership.enter(&first, Command::Open(additional));
    opener.membership.enter(&second, Command::Open(additional));
    take(&opener.outbox).unwrap();
    let mut joiner = peer(&hub);
    joiner.membership.enter(&first, join());
    let link = linked(&take(&joiner.outbox).unwrap());
    let Command::Relay { message, sender, .. } = data(Recipient::Member, 3) else { unreachable!() };
    assert!(opener.membership.command(Command::ReplyOnBehalf { link, message, sender }));
    assert!(matches!(take(&joiner.outbox).unwrap()[..], [Event::Relayed { side: Side::Joiner, .. }]));
    let mut other = peer(&hub);
    other.membership.enter(&second, join());
    linked(&take(&other.outbox).unwrap());
}

/// A reader that counts how often it is woken while its room is locked, and while it is not.
struct RoomLockProbe {
    hub: Arc<Hub>,
    key: RoomKey,
    locked: AtomicU32,
    unlocked: AtomicU32,
}

impl Wake for RoomLockProbe {
    fn wake(self: Arc<Self>) {
        let cell = self.hub.room(&self.key).unwrap();
        let count = if cell.state.is_locked() { &self.locked } else { &self.unlocked };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn receivers_are_woken_after_the_room_is_unlocked() {
    let hub = Hub::new();
    let key = RoomKey::from("k");
    let probe = Arc::new(RoomLockProbe {
        hub: Arc::clone(&hub),
        key: key.clone(),
        locked: AtomicU32::new(0),
        unlocked: AtomicU32::new(0),
    });
    let (mut member, mut joiner) = (peer(&hub), peer(&hub));
    let park = |outbox: &Outbox| {
        take(outbox).unwrap();
        let waker = Waker::from(Arc::clone(&probe));
        assert!(outbox.poll_take(&mut Context::from_waker(&waker), &mut VecDeque::new()).is_pending());
    };
    park(&member.outbox);
    // The answer to its own command needs no wake-up: its task is running.
    member.membership.enter(&key, join());
    park(&member.outbox);
    joiner.membership.enter(&key, join());
    park(&member.outbox);
    assert!(joiner.membership.command(data(Recipient::Member, 3)));
    park(&member.outbox);
    joiner.membership.leave(true);
    let woken = [&probe.locked, &probe.unlocked].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(woken, [0, 3]);
}
