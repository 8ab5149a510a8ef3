//! The hub from the outside: seats come and go, and nothing is left behind.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

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

fn join() -> Command {
    Command::Join(Join {
        when_empty: WhenEmpty::BecomeMember,
        choice: MemberChoice::Oldest,
        rejoin: RejoinPolicy::Replace,
    })
}

fn data(to: Recipient, bytes: usize) -> Command {
    let payload = Payload::Bytes(Bytes::from(vec![7; bytes]));
    Command::Relay { to, message: LinkMessage::Data { payload, last: false }, sender: SenderTag(0) }
}

struct Person {
    seat: Membership,
    outbox: Outbox,
}

fn person(hub: &Arc<Hub>) -> Person {
    let outbox = Outbox::new(LIMIT);
    Person { seat: hub.register(outbox.clone()), outbox }
}

fn bound(events: &[Event]) -> LinkId {
    match events {
        [Event::LinkedToMember { link }] => *link,
        other => panic!("not bound: {other:?}"),
    }
}

#[test]
fn two_meet_and_part() {
    let hub = Hub::new();
    let key = RoomKey::from("k");
    let (mut first, mut second) = (person(&hub), person(&hub));
    first.seat.enter(&key, join());
    second.seat.enter(&key, join());
    bound(&take(&second.outbox).unwrap());
    let arrived = take(&first.outbox).unwrap();
    let [Event::Admitted { first: true }, Event::LinkedToJoiner { link }] = arrived[..] else {
        panic!("{arrived:?}")
    };
    assert!(second.seat.command(data(Recipient::Member, 3)));
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
fn a_reader_that_does_not_read_overflows_alone() {
    let hub = Hub::new();
    let key = RoomKey::from("k");
    let (mut first, mut second) = (person(&hub), person(&hub));
    first.seat.enter(&key, join());
    second.seat.enter(&key, join());
    for _ in 0..20 {
        second.seat.command(data(Recipient::Member, 1_000));
    }
    assert_eq!(take(&first.outbox), Err(Overflow));
    assert!(take(&second.outbox).is_ok());
}

#[test]
fn a_single_event_fits_whatever_its_size() {
    let outbox = Outbox::new(10);
    outbox.push(Event::Admitted { first: true });
    assert_eq!(take(&outbox), Ok(vec![Event::Admitted { first: true }]));
}

/// A reader that takes nothing for a while has things waiting that nobody will wake it for again.
#[test]
fn it_is_quiet_only_while_a_reader_may_wait() {
    let outbox = Outbox::new(LIMIT);
    let waits = || outbox.poll_overflow(&mut Context::from_waker(Waker::noop())).is_pending();
    assert!(!outbox.is_reader_parked(), "nobody waits");
    assert_eq!((take(&outbox), outbox.is_reader_parked()), (Ok(Vec::new()), true));
    outbox.push(Event::Admitted { first: true });
    assert!(!outbox.is_reader_parked());
    assert_eq!((waits(), outbox.is_reader_parked()), (true, false));
    assert_eq!((take(&outbox).unwrap().len(), outbox.is_reader_parked()), (1, false));
    assert_eq!((waits(), outbox.is_reader_parked()), (true, true));
    outbox.notify();
    assert!(!outbox.is_reader_parked());
    assert_eq!((waits(), waits(), outbox.is_reader_parked()), (false, true, true));
}

#[test]
fn a_refused_peer_leaves_no_room_behind() {
    let hub = Hub::new();
    let mut person = person(&hub);
    let refuse = Join {
        when_empty: WhenEmpty::Refuse,
        choice: MemberChoice::Oldest,
        rejoin: RejoinPolicy::KeepReceiving,
    };
    person.seat.enter(&RoomKey::from("nowhere"), Command::Join(refuse));
    assert_eq!(hub.rooms(), 0);
    assert!(!person.seat.command(data(Recipient::Member, 1)));
}

#[test]
fn opening_another_key_gives_up_the_first() {
    let hub = Hub::new();
    let (a, b) = (RoomKey::from("a"), RoomKey::from("b"));
    let (mut first, mut second) = (person(&hub), person(&hub));
    first.seat.enter(&a, Command::Open(OPEN));
    first.seat.enter(&b, Command::Open(OPEN));
    second.seat.enter(&a, Command::Open(OPEN));
    assert_eq!(take(&second.outbox), Ok(vec![Event::Admitted { first: true }]), "the key is free again");
    drop(first);
    assert_eq!(hub.rooms(), 1);
}

/// sigver 8 to 14: an opener serves several keys, and answers the joiners of each.
#[test]
fn opening_beside_keeps_the_latest_keys() {
    let hub = Hub::new();
    let beside = Open { exclusive: false, keep_other_rooms: true };
    let mut opener = person(&hub);
    for number in 0..20 {
        opener.seat.enter(&RoomKey::from(format!("k{number}").as_str()), Command::Open(beside));
    }
    assert_eq!(hub.rooms(), 17);
    take(&opener.outbox).unwrap();
    for key in ["k3", "k19"] {
        let mut joiner = person(&hub);
        joiner.seat.enter(&RoomKey::from(key), join());
        let link = bound(&take(&joiner.outbox).unwrap());
        assert!(opener.seat.command(data(Recipient::Joiner(link), 3)));
        let events = take(&joiner.outbox).unwrap();
        assert!(matches!(events[..], [Event::Relayed { side: Side::Joiner, .. }]), "{key} {events:?}");
    }
    drop(opener);
    assert_eq!(hub.rooms(), 0);
}

#[test]
fn rooms_are_shown_without_their_keys() {
    let hub = Hub::new();
    let (a, b) = (RoomKey::from("a"), RoomKey::from("b"));
    let mut people = [person(&hub), person(&hub), person(&hub)];
    for (person, key) in people.iter_mut().zip([&a, &a, &b]) {
        person.seat.enter(key, join());
    }
    let rooms = || {
        let mut rooms = Vec::new();
        hub.for_each_room(|hash, peers| {
            let mut peers: Vec<u64> = peers.iter().map(|peer| peer.0).collect();
            peers.sort_unstable();
            rooms.push((hash, peers));
        });
        rooms.sort_by_key(|(_, peers)| peers[0]);
        rooms
    };
    let first = rooms();
    assert_eq!(first.iter().map(|(_, peers)| peers.clone()).collect::<Vec<_>>(), [vec![0, 1], vec![2]]);
    // The same each time here, and something else elsewhere.
    assert_eq!(rooms(), first);
    let other = Hub::new();
    let mut there = person(&other);
    there.seat.enter(&b, join());
    other.for_each_room(|hash, _| assert_ne!(hash, first[1].0));
    drop(people);
    assert_eq!(rooms(), []);
}

/// What is answered in a peer's name is nothing that it asks: it stays where it is.
#[test]
fn an_answer_in_its_name_does_not_move_a_peer() {
    let hub = Hub::new();
    let (first, second) = (RoomKey::from("first"), RoomKey::from("second"));
    let beside = Open { exclusive: false, keep_other_rooms: true };
    let mut opener = person(&hub);
    opener.seat.enter(&first, Command::Open(beside));
    opener.seat.enter(&second, Command::Open(beside));
    take(&opener.outbox).unwrap();
    let mut joiner = person(&hub);
    joiner.seat.enter(&first, join());
    let link = bound(&take(&joiner.outbox).unwrap());
    let Command::Relay { message, sender, .. } = data(Recipient::Member, 3) else { unreachable!() };
    assert!(opener.seat.command(Command::ReplyOnBehalf { link, message, sender }));
    assert!(matches!(take(&joiner.outbox).unwrap()[..], [Event::Relayed { side: Side::Joiner, .. }]));
    let mut other = person(&hub);
    other.seat.enter(&second, join());
    bound(&take(&other.outbox).unwrap());
}
