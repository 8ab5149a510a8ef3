//! Scenarios of a room. Each asserts the events, and that there are no others. The expectations are measured
//! on the Node.js servers named at each test, whose frames are compared in compat-tests.

mod bridged;
mod limits;
mod openers;
mod search;
mod strangers;

use bytes::Bytes;

use super::Room;
use crate::protocol::model::{
    Command, Connect, Event, Join, LinkId, LinkMessage, MemberChoice, NetId, Open, Payload, PeerId, Reason,
    Recipient, RejoinPolicy, RoomRole, SenderTag, Side, WhenEmpty,
};

const OPEN: Open = Open { exclusive: true, keep_other_rooms: false };

const A: PeerId = PeerId(1);
const B: PeerId = PeerId(2);
const C: PeerId = PeerId(3);
const D: PeerId = PeerId(4);

struct Stage {
    room: Room<PeerId>,
    rng: fastrand::Rng,
    events: Vec<(PeerId, Event)>,
}

impl Stage {
    fn new() -> Self {
        Stage { room: Room::default(), rng: fastrand::Rng::with_seed(7), events: Vec::new() }
    }

    fn ask(&mut self, peer: PeerId, command: Command) -> &mut Self {
        let events = &mut self.events;
        self.room
            .apply(peer, &peer, command, &mut self.rng, &mut |to: &PeerId, event| events.push((*to, event)));
        self
    }

    fn leave(&mut self, peer: PeerId) -> &mut Self {
        let events = &mut self.events;
        self.room.leave(peer, false, &mut |to: &PeerId, event| events.push((*to, event)));
        self
    }

    /// Returns the events since the last call.
    fn events(&mut self) -> Vec<(PeerId, Event)> {
        std::mem::take(&mut self.events)
    }

    /// Applies a command that must link the peer to `member`.
    fn linked(&mut self, peer: PeerId, command: Command, member: PeerId) -> LinkId {
        self.ask(peer, command);
        let events = self.events();
        let [(to, Event::LinkedToJoiner { link: arrived }), (back, Event::LinkedToMember { link })] =
            events[..]
        else {
            panic!("{peer:?} was not linked: {events:?}")
        };
        assert_eq!((to, back, arrived), (member, peer, link));
        link
    }
}

fn undeliverable(to: Recipient, reason: Reason) -> Event {
    Event::Undeliverable { to, reason }
}

fn join18() -> Command {
    Command::Join(Join {
        when_empty: WhenEmpty::BecomeMember,
        choice: MemberChoice::Oldest,
        rejoin: RejoinPolicy::Replace,
    })
}

fn join5() -> Command {
    Command::Join(Join {
        when_empty: WhenEmpty::Refuse,
        choice: MemberChoice::Oldest,
        rejoin: RejoinPolicy::KeepReceiving,
    })
}

fn connect(net_id: u32, connected_to: &[u32]) -> Command {
    Command::Connect(Connect {
        net_id: NetId(net_id),
        connected_to: connected_to.iter().copied().map(NetId).collect(),
        preferred: false,
        admit_before_unlink: false,
    })
}

fn relay(to: Recipient, message: LinkMessage) -> Command {
    Command::Relay { to, message, sender: SenderTag::default() }
}

fn data(text: &'static str) -> LinkMessage {
    LinkMessage::Data { payload: Payload::Bytes(Bytes::from_static(text.as_bytes())), last: false }
}

fn last(text: &'static str) -> LinkMessage {
    LinkMessage::Data { payload: Payload::Bytes(Bytes::from_static(text.as_bytes())), last: true }
}

fn relayed(link: LinkId, side: Side, message: LinkMessage) -> Event {
    Event::Relayed { link, side, message, sender: SenderTag::default() }
}

fn ended(link: LinkId, side: Side) -> Event {
    Event::LinkEnded { link, side, normal_closure: false }
}

#[test]
fn messages_of_two_joiners_are_separate() {
    let mut stage = Stage::new();
    stage.ask(A, join18());
    assert_eq!(stage.events(), [(A, Event::Admitted { first: true })]);
    let b = stage.linked(B, join18(), A);
    let c = stage.linked(C, join18(), A);
    assert_ne!(b, c);
    stage.ask(B, relay(Recipient::JoinerOrMember(LinkId(0)), data("from B")));
    stage.ask(A, relay(Recipient::JoinerOrMember(c), data("to C")));
    assert_eq!(
        stage.events(),
        [(A, relayed(b, Side::Member, data("from B"))), (C, relayed(c, Side::Joiner, data("to C"))),]
    );
}

/// sigver 15 to 20 sent such a message to the member that the sender had joined through, too.
#[test]
fn message_to_a_joiner_reaches_only_that_joiner() {
    let mut stage = Stage::new();
    stage.ask(A, connect(11, &[])).events();
    stage.linked(B, connect(22, &[]), A);
    let preferred = Connect {
        net_id: NetId(22),
        connected_to: vec![NetId(11)],
        preferred: true,
        admit_before_unlink: false,
    };
    stage.ask(B, Command::Connect(preferred)).events();
    let c = stage.linked(C, connect(33, &[]), B);
    stage.ask(B, relay(Recipient::JoinerOrMember(c), data("to C")));
    assert_eq!(stage.events(), [(C, relayed(c, Side::Joiner, data("to C")))]);
    // No other peer receives it after that joiner disconnected, whatever link the member names.
    stage.leave(C).events();
    for gone in [c, LinkId(4_711)] {
        stage.ask(B, relay(Recipient::JoinerOrMember(gone), data("too late")));
        assert_eq!(
            stage.events(),
            [(B, undeliverable(Recipient::JoinerOrMember(gone), Reason::UnknownRecipient))]
        );
    }
    stage.ask(B, relay(Recipient::JoinerOrMember(LinkId(0)), data("to A")));
    assert!(matches!(stage.events()[..], [(A, Event::Relayed { side: Side::Member, .. })]));
}

/// A retry in one generation does not show that a member of another one is broken.
#[test]
fn member_admitted_by_another_command_is_not_evicted() {
    let mut stage = Stage::new();
    stage.ask(A, join18()).events();
    for _ in 0..3 {
        stage.linked(B, connect(22, &[]), A);
    }
    let mut stage = Stage::new();
    stage.ask(A, connect(11, &[])).events();
    stage.linked(B, join18(), A);
    for _ in 0..3 {
        stage.linked(B, Command::TryAnother, A);
    }
    assert_eq!(stage.room.members.len(), 1);
}

#[test]
fn tried_members_that_left_are_forgotten() {
    let mut stage = Stage::new();
    stage.ask(A, connect(11, &[])).events();
    stage.ask(B, connect(22, &[11])).events();
    for claim in 100..2_000 {
        stage.ask(C, connect(5, &[])).ask(B, connect(claim, &[11])).events();
    }
    let remembered = format!("{:?}", stage.room).matches("NetId(").count();
    assert!(remembered < 20, "{remembered}");
}

#[test]
fn ended_direction_carries_no_message_and_no_disconnect() {
    let mut stage = Stage::new();
    stage.ask(A, join18()).events();
    let b = stage.linked(B, join18(), A);
    stage.events();
    stage.ask(B, relay(Recipient::JoinerOrMember(LinkId(0)), last("bye")));
    stage.ask(B, relay(Recipient::JoinerOrMember(LinkId(0)), data("more")));
    stage.ask(A, relay(Recipient::JoinerOrMember(b), data("still here")));
    assert_eq!(
        stage.events(),
        [
            (A, relayed(b, Side::Member, last("bye"))),
            (B, undeliverable(Recipient::JoinerOrMember(LinkId(0)), Reason::RecipientGone)),
            (B, relayed(b, Side::Joiner, data("still here"))),
        ]
    );
    stage.leave(B);
    assert_eq!(stage.events(), [], "B had sent its last message");
    stage.leave(A);
    assert_eq!(stage.events(), []);
    assert!(stage.room.is_empty());
}

#[test]
fn disconnect_in_an_open_direction_ends_the_link() {
    let mut stage = Stage::new();
    stage.ask(A, join18()).events();
    let (b, c) = (stage.linked(B, join18(), A), stage.linked(C, join18(), A));
    stage.leave(B);
    assert_eq!(stage.events(), [(A, ended(b, Side::Member))]);
    stage.leave(A);
    assert_eq!(stage.events(), [(C, ended(c, Side::Joiner))]);
    // sigver 18: `stable` after the group disconnected creates a group (15 to 17 crashed).
    stage.ask(C, Command::BecomeMember);
    assert_eq!(stage.events(), [(C, Event::BecameMember { already: false })]);
    assert_eq!(stage.room.members.len(), 1);
}

/// sigver 18: an error ends both directions; sigver 16 and 17: only the sender's.
#[test]
fn error_ends_one_direction_or_both() {
    for closes_both in [false, true] {
        let mut stage = Stage::new();
        stage.ask(A, join18()).events();
        let b = stage.linked(B, join18(), A);
        stage.ask(A, relay(Recipient::JoinerOrMember(b), LinkMessage::Error { closes_both })).events();
        stage.ask(B, relay(Recipient::Member, data("x")));
        let expected = if closes_both {
            vec![(B, undeliverable(Recipient::Member, Reason::RecipientGone))]
        } else {
            vec![(A, relayed(b, Side::Member, data("x")))]
        };
        assert_eq!(stage.events(), expected);
    }
}

#[test]
fn empty_message_is_refused_only_on_an_open_link() {
    let mut stage = Stage::new();
    stage.ask(A, join18()).events();
    stage.ask(A, relay(Recipient::JoinerOrMember(LinkId(5)), LinkMessage::Empty));
    assert_eq!(
        stage.events(),
        [(A, undeliverable(Recipient::JoinerOrMember(LinkId(5)), Reason::UnknownRecipient))]
    );
    let b = stage.linked(B, join18(), A);
    stage.ask(B, relay(Recipient::JoinerOrMember(LinkId(0)), LinkMessage::Empty));
    let reason = Reason::EmptyContent { link: b, from: Side::Joiner };
    assert_eq!(stage.events(), [(B, Event::Refused(reason))]);
}

/// sigver 5: a key has one opener, and joining requires it.
#[test]
fn key_has_one_exclusive_opener_and_many_joiners() {
    let mut stage = Stage::new();
    stage.ask(B, join5());
    assert_eq!(stage.events(), [(B, Event::Refused(Reason::KeyUnknown))]);
    stage.ask(A, Command::Open(OPEN));
    stage.ask(A, Command::Open(OPEN));
    stage.ask(C, Command::Open(OPEN));
    assert_eq!(
        stage.events(),
        [
            (A, Event::Admitted { first: true }),
            (A, Event::Refused(Reason::KeyTaken)),
            (C, Event::Refused(Reason::KeyTaken)),
        ]
    );
    let first = stage.linked(B, join5(), A);
    let second = stage.linked(B, join5(), A);
    // B receives over both links and sends over the last.
    stage
        .ask(A, relay(Recipient::Joiner(first), data("one")))
        .ask(A, relay(Recipient::Joiner(second), data("two")));
    stage.ask(B, relay(Recipient::Member, data("back")));
    assert_eq!(
        stage.events(),
        [
            (B, relayed(first, Side::Joiner, data("one"))),
            (B, relayed(second, Side::Joiner, data("two"))),
            (A, relayed(second, Side::Member, data("back"))),
        ]
    );
}

#[test]
fn links_of_early_joins_are_removed() {
    let mut stage = Stage::new();
    stage.ask(A, Command::Open(OPEN)).events();
    let first = stage.linked(B, join5(), A);
    for _ in 0..1_000 {
        stage.linked(B, join5(), A);
    }
    stage.ask(A, relay(Recipient::Joiner(first), data("x")));
    assert_eq!(stage.events(), [(A, undeliverable(Recipient::Joiner(first), Reason::UnknownRecipient))]);
}

/// sigver 18: untried members in order of arrival, then from the beginning.
#[test]
fn try_another_starts_over_after_the_last_member() {
    let mut stage = Stage::new();
    stage.ask(A, join18()).events();
    stage.linked(B, join18(), A);
    stage.ask(B, Command::BecomeMember).events();
    stage.linked(C, join18(), A);
    stage.linked(C, Command::TryAnother, B);
    stage.linked(C, Command::TryAnother, A);
    stage.linked(C, Command::TryAnother, B);
}

/// sigver 18: the only member, tried in vain, is evicted. The joiner receives the end of its link, then that
/// it is the first.
#[test]
fn blocking_member_is_evicted() {
    let mut stage = Stage::new();
    stage.ask(A, join18()).events();
    let b = stage.linked(B, join18(), A);
    let c = stage.linked(C, join18(), A);
    stage.ask(B, Command::TryAnother);
    let gone = |link| Event::LinkEnded { link, side: Side::Joiner, normal_closure: false };
    let mut events = stage.events();
    events[..2].sort_by_key(|(to, _)| *to);
    assert_eq!(
        events,
        [
            (B, gone(b)),
            (C, gone(c)),
            (A, Event::Evicted(Reason::Replaced)),
            (B, Event::Admitted { first: false }),
        ]
    );
    stage.leave(A);
    assert_eq!(stage.events(), []);
}

/// sigver 18: the second time, it evicts itself.
#[test]
fn sole_member_that_tries_another_is_linked_to_itself() {
    let mut stage = Stage::new();
    stage.ask(A, join18()).events();
    let echo = stage.linked(A, Command::TryAnother, A);
    stage.ask(A, relay(Recipient::Member, data("echo")));
    assert_eq!(stage.events(), [(A, relayed(echo, Side::Member, data("echo")))]);
    stage.ask(A, Command::TryAnother);
    assert_eq!(stage.events(), [(A, Event::Evicted(Reason::Replaced))]);
    assert!(stage.room.is_empty());
}

/// sigver 19 and 20: peers connected to a member become members; others are linked.
#[test]
fn connect_admits_peers_connected_to_a_member() {
    let mut stage = Stage::new();
    stage.ask(A, connect(11, &[99]));
    assert_eq!(
        stage.events(),
        [(A, Event::Admitted { first: true })],
        "the room is empty, so the list does not matter"
    );
    stage.ask(A, connect(12, &[]));
    assert_eq!(stage.events(), [(A, Event::Admitted { first: false })]);
    stage.ask(B, connect(22, &[12]));
    let events = stage.events();
    assert!(
        matches!(events[1], (B, Event::LinkedToMember { .. })),
        "the only member, A kept its first id: {events:?}"
    );
    stage.ask(B, connect(22, &[11]));
    assert_eq!(stage.events(), [(B, Event::Admitted { first: false })]);
    // A member that is connected to none stops being one, and its joiner stays linked to it.
    let c = stage.linked(C, connect(33, &[]), A);
    stage.linked(A, connect(11, &[77]), B);
    stage.ask(C, relay(Recipient::Member, data("x")));
    assert_eq!(stage.events(), [(A, relayed(c, Side::Member, data("x")))]);
    assert_eq!(stage.room.members.len(), 1);
    // The peer's own id counts.
    stage.ask(B, connect(22, &[22]));
    assert_eq!(stage.events(), [(B, Event::Admitted { first: false })]);
}

#[test]
fn preferred_member_is_chosen_first() {
    let mut stage = Stage::new();
    stage.ask(A, connect(11, &[])).events();
    let preferred = Connect {
        net_id: NetId(22),
        connected_to: vec![NetId(11)],
        preferred: true,
        admit_before_unlink: false,
    };
    stage.ask(B, Command::Connect(preferred)).events();
    stage.linked(C, connect(33, &[]), B);
    stage.linked(C, connect(33, &[]), A);
    stage.linked(C, connect(33, &[]), B);
}

/// sigver 20.1.0 answers before it unlinks, all others after.
#[test]
fn eviction_order_follows_admit_before_unlink() {
    for admit_before_unlink in [false, true] {
        let mut stage = Stage::new();
        stage.ask(A, connect(11, &[])).events();
        let b = stage.linked(B, connect(22, &[]), A);
        let again =
            Connect { net_id: NetId(22), connected_to: Vec::new(), preferred: false, admit_before_unlink };
        stage.ask(B, Command::Connect(again));
        let to_b: Vec<Event> =
            stage.events().into_iter().filter(|(to, _)| *to == B).map(|(_, event)| event).collect();
        let end = Event::LinkEnded { link: b, side: Side::Joiner, normal_closure: false };
        let expected = if admit_before_unlink {
            [Event::Admitted { first: false }, end]
        } else {
            [end, Event::Admitted { first: false }]
        };
        assert_eq!(to_b, expected);
    }
}

/// The dialect of A has no net ids, so that B cannot list it.
#[test]
fn joiner_of_a_member_without_net_id_is_admitted() {
    let mut stage = Stage::new();
    stage.ask(A, join18()).events();
    stage.linked(B, connect(22, &[5]), A);
    stage.ask(B, connect(22, &[5]));
    assert_eq!(stage.events(), [(B, Event::Admitted { first: false })]);
    assert_eq!(stage.room.members.len(), 2, "no member was evicted");
}

#[test]
fn reverted_assumption_removes_link_and_tried_members() {
    let mut stage = Stage::new();
    stage.ask(A, connect(11, &[])).events();
    let b = stage.linked(B, join18(), A);
    stage.ask(B, Command::RevertAssumption);
    assert_eq!(stage.events(), [(A, ended(b, Side::Member))]);
    stage.linked(B, connect(22, &[]), A);
    assert_eq!(stage.room.members.len(), 1, "A was not treated as a blocking member");
}

#[test]
fn commands_of_peers_outside_the_room_have_no_effect() {
    let mut stage = Stage::new();
    stage.ask(A, join18()).events();
    let b = stage.linked(B, join18(), A);
    stage.ask(D, relay(Recipient::Joiner(b), data("x")));
    stage.ask(D, relay(Recipient::JoinerOrMember(b), data("x")));
    stage.leave(D);
    let events = stage.events();
    assert!(
        events.iter().all(|(to, event)| *to == D && matches!(event, Event::Undeliverable { .. })),
        "{events:?}"
    );
    stage.leave(A).leave(B);
    assert!(stage.room.is_empty());
}
