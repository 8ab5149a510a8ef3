//! Scenarios of rooms with openers (sigver 5 to 14).

use super::super::MAX_RECEIVED_JOINS;
use super::super::entry::{Link, PeerEntry};
use super::*;

const OPEN_ANOTHER: Open = Open { exclusive: false, keep_other_rooms: true };

fn join9() -> Command {
    Command::Join(Join {
        when_empty: WhenEmpty::BecomeTentativeMember,
        choice: MemberChoice::Oldest,
        rejoin: RejoinPolicy::KeepReceiving,
    })
}

/// sigver 9 to 14: joiners are linked to the first opener.
#[test]
fn key_can_have_several_openers() {
    let mut stage = Stage::new();
    stage
        .ask(A, Command::Open(OPEN_ANOTHER))
        .ask(B, Command::Open(OPEN_ANOTHER))
        .ask(A, Command::Open(OPEN_ANOTHER));
    let first = |first| Event::Admitted { first };
    assert_eq!(stage.events(), [(A, first(true)), (B, first(false)), (A, first(false))]);
    stage.linked(C, join9(), A);
    stage.leave(A).events();
    stage.linked(D, join9(), B);
}

/// A client that asked to join a free key may not know that it is its opener now (sigver 7.6 and 8 do not).
#[test]
fn tentative_member_yields_to_an_opener() {
    let mut stage = Stage::new();
    stage.ask(A, join9());
    assert_eq!(stage.events(), [(A, Event::Admitted { first: true })]);
    // It may act as an opener, as sigver 9 does, so joiners are linked to it.
    let b = stage.linked(B, join9(), A);
    stage.ask(C, Command::Open(OPEN));
    assert_eq!(stage.events(), [(C, Event::Admitted { first: true })], "the key is free");
    stage.linked(D, join9(), C);
    // It answers, which confirms it, and it arrived first.
    stage.ask(A, relay(Recipient::Joiner(b), data("answer"))).events();
    stage.leave(D).events();
    stage.linked(D, join9(), A);
}

/// sigver 18 to 20 would wait forever for a client that does not know that it is a member.
#[test]
fn joiner_that_tried_a_tentative_member_becomes_a_member() {
    for again in [connect(22, &[]), Command::TryAnother] {
        let mut stage = Stage::new();
        stage.ask(A, join9()).events();
        stage.linked(B, again.clone(), A);
        stage.ask(B, again);
        assert_eq!(stage.events(), [(B, Event::Admitted { first: false })]);
        stage.linked(C, join18(), B);
    }
}

/// sigver 13: a joiner that opens is unlinked from its opener.
#[test]
fn unlink_removes_the_link_without_events() {
    let mut stage = Stage::new();
    stage.ask(A, Command::Open(OPEN_ANOTHER)).events();
    let b = stage.linked(B, join9(), A);
    stage.ask(B, Command::Unlink).ask(A, relay(Recipient::Joiner(b), data("x")));
    assert_eq!(stage.events(), [(A, undeliverable(Recipient::Joiner(b), Reason::UnknownRecipient))]);
}

/// sigver 11 to 14: joining the same opener again keeps the link.
#[test]
fn join_again_can_reuse_the_link() {
    let mut stage = Stage::new();
    let join = Command::Join(Join {
        when_empty: WhenEmpty::Refuse,
        choice: MemberChoice::Oldest,
        rejoin: RejoinPolicy::Reuse,
    });
    stage.ask(A, Command::Open(OPEN_ANOTHER)).events();
    let link = stage.linked(B, join.clone(), A);
    stage.ask(B, join);
    assert_eq!(stage.events(), [(B, Event::LinkedToMember { link })]);
}

/// The end of a link between others changes the order in which a room stores them.
#[test]
fn joiner_beyond_its_limit_forgets_its_oldest_join() {
    let mut stage = Stage::new();
    stage.ask(A, Command::Open(OPEN)).events();
    let mut links: Vec<_> = (0..MAX_RECEIVED_JOINS).map(|_| stage.linked(B, join5(), A)).collect();
    for ended in [3, 0] {
        stage.ask(A, relay(Recipient::Joiner(links.remove(ended)), LinkMessage::End)).events();
    }
    for joins in 0..200 {
        links.push(stage.linked(B, join5(), A));
        if links.len() > MAX_RECEIVED_JOINS {
            links.remove(0);
        }
        let kept: Vec<_> = links.iter().map(|link| stage.room.is_endpoint_of(B, *link)).collect();
        assert!(kept.iter().all(|kept| *kept), "after {joins} joins: {kept:?}");
        assert_eq!(stage.room.links().count(), links.len());
    }
}

#[test]
fn number_of_a_link_takes_no_space() {
    assert_eq!(size_of::<Link>(), 2 * size_of::<PeerId>() + size_of::<u64>());
}

/// An idle member has one entry on the heap.
#[test]
fn entry_of_a_peer_is_small() {
    assert_eq!(size_of::<(PeerId, PeerEntry<Box<()>>)>(), 48);
}
