//! Scenarios of a room, each asserting what came out and that nothing else did. Expectations are measured on the
//! originals (named in each test); the frames that say so are compared in compat-tests.

use bytes::Bytes;

use super::Room;
use crate::protocol::model::{
    Command, Connect, Event, Join, LinkId, LinkMessage, MemberChoice, NetId, Open, Payload, PeerId, Reason,
    Recipient, RejoinPolicy, SenderTag, Side, WhenEmpty,
};

const OPEN: Open = Open { exclusive: true, keep_other_rooms: false };

const A: PeerId = PeerId(1);
const B: PeerId = PeerId(2);
const C: PeerId = PeerId(3);
const D: PeerId = PeerId(4);

struct Stage {
    room: Room<PeerId>,
    rng: fastrand::Rng,
    heard: Vec<(PeerId, Event)>,
}

impl Stage {
    fn new() -> Self {
        Stage { room: Room::default(), rng: fastrand::Rng::with_seed(7), heard: Vec::new() }
    }

    fn ask(&mut self, peer: PeerId, command: Command) -> &mut Self {
        let heard = &mut self.heard;
        self.room
            .apply(peer, &peer, command, &mut self.rng, &mut |to: &PeerId, event| heard.push((*to, event)));
        self
    }

    fn leaves(&mut self, peer: PeerId) -> &mut Self {
        let heard = &mut self.heard;
        self.room.leave(peer, false, &mut |to: &PeerId, event| heard.push((*to, event)));
        self
    }

    /// All that was heard since the last call.
    fn heard(&mut self) -> Vec<(PeerId, Event)> {
        std::mem::take(&mut self.heard)
    }

    /// Joins and expects to be bound to `member`.
    fn bound(&mut self, peer: PeerId, command: Command, member: PeerId) -> LinkId {
        self.ask(peer, command);
        let heard = self.heard();
        let [(to, Event::LinkedToJoiner { link: arrived }), (back, Event::LinkedToMember { link })] =
            heard[..]
        else {
            panic!("{peer:?} was not bound: {heard:?}")
        };
        assert_eq!((to, back, arrived), (member, peer, link));
        link
    }
}

fn nowhere(to: Recipient, reason: Reason) -> Event {
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

fn connect(claim: u32, connected_to: &[u32]) -> Command {
    Command::Connect(Connect {
        net_id: NetId(claim),
        connected_to: connected_to.iter().copied().map(NetId).collect(),
        preferred: false,
        admit_before_unlink: false,
    })
}

fn relay(to: Recipient, message: LinkMessage) -> Command {
    Command::Relay { to, message, sender: SenderTag(0) }
}

fn data(text: &'static str) -> LinkMessage {
    LinkMessage::Data { payload: Payload::Bytes(Bytes::from_static(text.as_bytes())), last: false }
}

fn last(text: &'static str) -> LinkMessage {
    LinkMessage::Data { payload: Payload::Bytes(Bytes::from_static(text.as_bytes())), last: true }
}

fn relayed(link: LinkId, side: Side, message: LinkMessage) -> Event {
    Event::Relayed { link, side, message, sender: SenderTag(0) }
}

fn ended(link: LinkId, side: Side) -> Event {
    Event::LinkEnded { link, side, normal_closure: false }
}

#[test]
fn two_joiners_are_kept_apart() {
    let mut stage = Stage::new();
    stage.ask(A, join18());
    assert_eq!(stage.heard(), [(A, Event::Admitted { first: true })]);
    let b = stage.bound(B, join18(), A);
    let c = stage.bound(C, join18(), A);
    assert_ne!(b, c);
    stage.ask(B, relay(Recipient::JoinerOrMember(LinkId(0)), data("from B")));
    stage.ask(A, relay(Recipient::JoinerOrMember(c), data("to C")));
    assert_eq!(
        stage.heard(),
        [(A, relayed(b, Side::Member, data("from B"))), (C, relayed(c, Side::Joiner, data("to C"))),]
    );
}

/// The originals of sigver 15 to 20 sent what a settled member answers its own joiner to its old member, too.
#[test]
fn an_answer_to_a_joiner_leaks_to_nobody() {
    let mut stage = Stage::new();
    stage.ask(A, connect(11, &[])).heard();
    stage.bound(B, connect(22, &[]), A);
    let preferred = Connect {
        net_id: NetId(22),
        connected_to: vec![NetId(11)],
        preferred: true,
        admit_before_unlink: false,
    };
    stage.ask(B, Command::Connect(preferred)).heard();
    let c = stage.bound(C, connect(33, &[]), B);
    stage.ask(B, relay(Recipient::JoinerOrMember(c), data("to C")));
    assert_eq!(stage.heard(), [(C, relayed(c, Side::Joiner, data("to C")))]);
    // Nor when that joiner has gone, whatever id the member makes up.
    stage.leaves(C).heard();
    for gone in [c, LinkId(4_711)] {
        stage.ask(B, relay(Recipient::JoinerOrMember(gone), data("too late")));
        assert_eq!(stage.heard(), [(B, nowhere(Recipient::JoinerOrMember(gone), Reason::UnknownRecipient))]);
    }
    stage.ask(B, relay(Recipient::JoinerOrMember(LinkId(0)), data("to A")));
    assert!(matches!(stage.heard()[..], [(A, Event::Relayed { side: Side::Member, .. })]));
}

/// A retry of one generation says nothing about a member of another, which does not understand it.
#[test]
fn a_member_of_another_kind_is_not_replaced() {
    let mut stage = Stage::new();
    stage.ask(A, join18()).heard();
    for _ in 0..3 {
        stage.bound(B, connect(22, &[]), A);
    }
    let mut stage = Stage::new();
    stage.ask(A, connect(11, &[])).heard();
    stage.bound(B, join18(), A);
    for _ in 0..3 {
        stage.bound(B, Command::TryAnother, A);
    }
    assert_eq!(stage.room.members(), 1);
}

/// What a joiner tried is forgotten with the members it tried.
#[test]
fn trying_for_ever_is_forgotten() {
    let mut stage = Stage::new();
    stage.ask(A, connect(11, &[])).heard();
    stage.ask(B, connect(22, &[11])).heard();
    for claim in 100..2_000 {
        stage.ask(C, connect(5, &[])).ask(B, connect(claim, &[11])).heard();
    }
    let remembered = format!("{:?}", stage.room).matches("Claimed").count();
    assert!(remembered < 20, "{remembered}");
}

#[test]
fn a_direction_that_ended_carries_nothing_more_and_is_not_mourned() {
    let mut stage = Stage::new();
    stage.ask(A, join18()).heard();
    let b = stage.bound(B, join18(), A);
    stage.heard();
    stage.ask(B, relay(Recipient::JoinerOrMember(LinkId(0)), last("bye")));
    stage.ask(B, relay(Recipient::JoinerOrMember(LinkId(0)), data("more")));
    stage.ask(A, relay(Recipient::JoinerOrMember(b), data("still here")));
    assert_eq!(
        stage.heard(),
        [
            (A, relayed(b, Side::Member, last("bye"))),
            (B, nowhere(Recipient::JoinerOrMember(LinkId(0)), Reason::RecipientGone)),
            (B, relayed(b, Side::Joiner, data("still here"))),
        ]
    );
    stage.leaves(B);
    assert_eq!(stage.heard(), [], "B had said its last word");
    stage.leaves(A);
    assert_eq!(stage.heard(), []);
    assert!(stage.room.is_empty());
}

#[test]
fn who_leaves_before_its_last_word_is_mourned_at_the_other_end() {
    let mut stage = Stage::new();
    stage.ask(A, join18()).heard();
    let (b, c) = (stage.bound(B, join18(), A), stage.bound(C, join18(), A));
    stage.leaves(B);
    assert_eq!(stage.heard(), [(A, ended(b, Side::Member))]);
    stage.leaves(A);
    assert_eq!(stage.heard(), [(C, ended(c, Side::Joiner))]);
    // sigver 18: stable when the group is gone makes one (15 to 17 crashed inside).
    stage.ask(C, Command::BecomeMember);
    assert_eq!(stage.heard(), [(C, Event::BecameMember { already: false })]);
    assert_eq!(stage.room.members(), 1);
}

/// sigver 18: an error ends both directions; sigver 16 and 17: only the sender's.
#[test]
fn giving_up_ends_one_direction_or_both() {
    for closes_both in [false, true] {
        let mut stage = Stage::new();
        stage.ask(A, join18()).heard();
        let b = stage.bound(B, join18(), A);
        stage.ask(A, relay(Recipient::JoinerOrMember(b), LinkMessage::Error { closes_both })).heard();
        stage.ask(B, relay(Recipient::Member, data("x")));
        let expected = if closes_both {
            vec![(B, nowhere(Recipient::Member, Reason::RecipientGone))]
        } else {
            vec![(A, relayed(b, Side::Member, data("x")))]
        };
        assert_eq!(stage.heard(), expected);
    }
}

#[test]
fn an_empty_content_is_refused_only_on_a_living_link() {
    let mut stage = Stage::new();
    stage.ask(A, join18()).heard();
    stage.ask(A, relay(Recipient::JoinerOrMember(LinkId(5)), LinkMessage::Empty));
    assert_eq!(stage.heard(), [(A, nowhere(Recipient::JoinerOrMember(LinkId(5)), Reason::UnknownRecipient))]);
    let b = stage.bound(B, join18(), A);
    stage.ask(B, relay(Recipient::JoinerOrMember(LinkId(0)), LinkMessage::Empty));
    let reason = Reason::EmptyContent { link: b, from: Side::Joiner };
    assert_eq!(stage.heard(), [(B, Event::Refused(reason))]);
}

/// sigver 5: one opener a key, a joiner needs one.
#[test]
fn opening_and_joining_by_key() {
    let mut stage = Stage::new();
    stage.ask(B, join5());
    assert_eq!(stage.heard(), [(B, Event::Refused(Reason::KeyUnknown))]);
    stage.ask(A, Command::Open(OPEN));
    stage.ask(A, Command::Open(OPEN));
    stage.ask(C, Command::Open(OPEN));
    assert_eq!(
        stage.heard(),
        [
            (A, Event::Admitted { first: true }),
            (A, Event::Refused(Reason::KeyTaken)),
            (C, Event::Refused(Reason::KeyTaken)),
        ]
    );
    let first = stage.bound(B, join5(), A);
    let second = stage.bound(B, join5(), A);
    // Listed twice, heard over both, speaking over the last.
    stage
        .ask(A, relay(Recipient::Joiner(first), data("one")))
        .ask(A, relay(Recipient::Joiner(second), data("two")));
    stage.ask(B, relay(Recipient::Member, data("back")));
    assert_eq!(
        stage.heard(),
        [
            (B, relayed(first, Side::Joiner, data("one"))),
            (B, relayed(second, Side::Joiner, data("two"))),
            (A, relayed(second, Side::Member, data("back"))),
        ]
    );
}

#[test]
fn joining_for_ever_is_forgotten() {
    let mut stage = Stage::new();
    stage.ask(A, Command::Open(OPEN)).heard();
    let first = stage.bound(B, join5(), A);
    for _ in 0..1_000 {
        stage.bound(B, join5(), A);
    }
    stage.ask(A, relay(Recipient::Joiner(first), data("x")));
    assert_eq!(stage.heard(), [(A, nowhere(Recipient::Joiner(first), Reason::UnknownRecipient))]);
}

/// sigver 18: untried members by age, then all over again.
#[test]
fn trying_another_goes_round() {
    let mut stage = Stage::new();
    stage.ask(A, join18()).heard();
    stage.bound(B, join18(), A);
    stage.ask(B, Command::BecomeMember).heard();
    stage.bound(C, join18(), A);
    stage.bound(C, Command::TryAnother, B);
    stage.bound(C, Command::TryAnother, A);
    stage.bound(C, Command::TryAnother, B);
}

/// sigver 18: the only member, tried in vain, is put out; the joiner hears the end of its link, then that it is
/// the first; the abandoned member of a larger group is not told anything.
#[test]
fn a_member_that_blocks_the_room_is_replaced() {
    let mut stage = Stage::new();
    stage.ask(A, join18()).heard();
    let b = stage.bound(B, join18(), A);
    let c = stage.bound(C, join18(), A);
    stage.ask(B, Command::TryAnother);
    let gone = |link| Event::LinkEnded { link, side: Side::Joiner, normal_closure: false };
    let mut heard = stage.heard();
    heard[..2].sort_by_key(|(to, _)| *to);
    assert_eq!(
        heard,
        [
            (B, gone(b)),
            (C, gone(c)),
            (A, Event::Evicted(Reason::Replaced)),
            (B, Event::Admitted { first: false }),
        ]
    );
    stage.leaves(A);
    assert_eq!(stage.heard(), []);
}

/// sigver 18: the only member that tries another is bound to itself, and puts itself out the second time.
#[test]
fn a_member_alone_that_tries_another_meets_itself() {
    let mut stage = Stage::new();
    stage.ask(A, join18()).heard();
    let echo = stage.bound(A, Command::TryAnother, A);
    stage.ask(A, relay(Recipient::Member, data("echo")));
    assert_eq!(stage.heard(), [(A, relayed(echo, Side::Member, data("echo")))]);
    stage.ask(A, Command::TryAnother);
    assert_eq!(stage.heard(), [(A, Event::Evicted(Reason::Replaced))]);
    assert!(stage.room.is_empty());
}

/// sigver 19 and 20: whoever is connected to a member is one; others are bound; the preferred first.
#[test]
fn attaching_by_acquaintance() {
    let mut stage = Stage::new();
    stage.ask(A, connect(11, &[99]));
    assert_eq!(
        stage.heard(),
        [(A, Event::Admitted { first: true })],
        "nobody is there, so the list does not matter"
    );
    stage.ask(A, connect(12, &[]));
    assert_eq!(stage.heard(), [(A, Event::Admitted { first: false })]);
    stage.ask(B, connect(22, &[12]));
    let heard = stage.heard();
    assert!(matches!(heard[1], (B, Event::LinkedToMember { .. })), "alone, A kept its first id: {heard:?}");
    stage.ask(B, connect(22, &[11]));
    assert_eq!(stage.heard(), [(B, Event::Admitted { first: false })]);
    // Known to nobody, a member is one no longer, and its joiner stays bound to it.
    let c = stage.bound(C, connect(33, &[]), A);
    stage.bound(A, connect(11, &[77]), B);
    stage.ask(C, relay(Recipient::Member, data("x")));
    assert_eq!(stage.heard(), [(A, relayed(c, Side::Member, data("x")))]);
    assert_eq!(stage.room.members(), 1);
    // Its own id counts.
    stage.ask(B, connect(22, &[22]));
    assert_eq!(stage.heard(), [(B, Event::Admitted { first: false })]);
}

#[test]
fn a_favored_member_is_chosen_before_others() {
    let mut stage = Stage::new();
    stage.ask(A, connect(11, &[])).heard();
    let preferred = Connect {
        net_id: NetId(22),
        connected_to: vec![NetId(11)],
        preferred: true,
        admit_before_unlink: false,
    };
    stage.ask(B, Command::Connect(preferred)).heard();
    stage.bound(C, connect(33, &[]), B);
    stage.bound(C, connect(33, &[]), A);
    stage.bound(C, connect(33, &[]), B);
}

/// sigver 20.1.0 answers before it closes, all others after.
#[test]
fn the_order_of_a_replacement_is_the_releases() {
    for admit_before_unlink in [false, true] {
        let mut stage = Stage::new();
        stage.ask(A, connect(11, &[])).heard();
        let b = stage.bound(B, connect(22, &[]), A);
        let again =
            Connect { net_id: NetId(22), connected_to: Vec::new(), preferred: false, admit_before_unlink };
        stage.ask(B, Command::Connect(again));
        let to_b: Vec<Event> =
            stage.heard().into_iter().filter(|(to, _)| *to == B).map(|(_, event)| event).collect();
        let end = Event::LinkEnded { link: b, side: Side::Joiner, normal_closure: false };
        let expected = if admit_before_unlink {
            [Event::Admitted { first: false }, end]
        } else {
            [end, Event::Admitted { first: false }]
        };
        assert_eq!(to_b, expected);
    }
}

/// A member without an id, of a dialect that has none, cannot be named by a joiner that is connected to it.
#[test]
fn a_joiner_of_a_member_without_id_is_believed() {
    let mut stage = Stage::new();
    stage.ask(A, join18()).heard();
    stage.bound(B, connect(22, &[5]), A);
    stage.ask(B, connect(22, &[5]));
    assert_eq!(stage.heard(), [(B, Event::Admitted { first: false })]);
    assert_eq!(stage.room.members(), 2, "nobody was put out");
}

#[test]
fn a_wrong_guess_is_forgotten() {
    let mut stage = Stage::new();
    stage.ask(A, connect(11, &[])).heard();
    let b = stage.bound(B, join18(), A);
    stage.ask(B, Command::RevertAssumption);
    assert_eq!(stage.heard(), [(A, ended(b, Side::Member))]);
    stage.bound(B, connect(22, &[]), A);
    assert_eq!(stage.room.members(), 1, "A was not taken for one that blocks");
}

#[test]
fn strangers_change_nothing() {
    let mut stage = Stage::new();
    stage.ask(A, join18()).heard();
    let b = stage.bound(B, join18(), A);
    stage.ask(D, relay(Recipient::Joiner(b), data("x")));
    stage.ask(D, relay(Recipient::JoinerOrMember(b), data("x")));
    stage.leaves(D);
    let heard = stage.heard();
    assert!(
        heard.iter().all(|(to, event)| *to == D && matches!(event, Event::Undeliverable { .. })),
        "{heard:?}"
    );
    stage.leaves(A).leaves(B);
    assert!(stage.room.is_empty());
}

const BESIDE: Open = Open { exclusive: false, keep_other_rooms: true };

fn lone_join() -> Command {
    Command::Join(Join {
        when_empty: WhenEmpty::BecomeTentativeMember,
        choice: MemberChoice::Oldest,
        rejoin: RejoinPolicy::KeepReceiving,
    })
}

/// sigver 9 to 14: several openers, of whom the first gets the joiners.
#[test]
fn a_key_can_have_several_openers() {
    let mut stage = Stage::new();
    stage.ask(A, Command::Open(BESIDE)).ask(B, Command::Open(BESIDE)).ask(A, Command::Open(BESIDE));
    let first = |first| Event::Admitted { first };
    assert_eq!(stage.heard(), [(A, first(true)), (B, first(false)), (A, first(false))]);
    stage.bound(C, lone_join(), A);
    stage.leaves(A).heard();
    stage.bound(D, lone_join(), B);
}

/// One that asked to join a free key may not know that it is its opener now (sigver 7.6 and 8 do not).
#[test]
fn a_lone_joiner_yields_to_a_real_opener() {
    let mut stage = Stage::new();
    stage.ask(A, lone_join());
    assert_eq!(stage.heard(), [(A, Event::Admitted { first: true })]);
    // Somebody may well be bound to it, as it may be an opener of sigver 9.
    let b = stage.bound(B, lone_join(), A);
    stage.ask(C, Command::Open(OPEN));
    assert_eq!(stage.heard(), [(C, Event::Admitted { first: true })], "the key is free");
    stage.bound(D, lone_join(), C);
    // It answers, so it is one like the other, and was there before.
    stage.ask(A, relay(Recipient::Joiner(b), data("answer"))).heard();
    stage.leaves(D).heard();
    stage.bound(D, lone_join(), A);
}

/// sigver 18 to 20 would wait for ever for one that does not know that it is a member.
#[test]
fn one_that_tried_a_lone_joiner_in_vain_becomes_a_member() {
    for again in [connect(22, &[]), Command::TryAnother] {
        let mut stage = Stage::new();
        stage.ask(A, lone_join()).heard();
        stage.bound(B, again.clone(), A);
        stage.ask(B, again);
        assert_eq!(stage.heard(), [(B, Event::Admitted { first: false })]);
        stage.bound(C, join18(), B);
    }
}

/// sigver 13: a joiner that opens is cut off from its opener, and neither is told.
#[test]
fn a_joiner_can_let_go() {
    let mut stage = Stage::new();
    stage.ask(A, Command::Open(BESIDE)).heard();
    let b = stage.bound(B, lone_join(), A);
    stage.ask(B, Command::Unlink).ask(A, relay(Recipient::Joiner(b), data("x")));
    assert_eq!(stage.heard(), [(A, nowhere(Recipient::Joiner(b), Reason::UnknownRecipient))]);
}

/// sigver 11 to 14: joining the same opener again changes nothing.
#[test]
fn joining_again_can_keep_the_link() {
    let mut stage = Stage::new();
    let join = Command::Join(Join {
        when_empty: WhenEmpty::Refuse,
        choice: MemberChoice::Oldest,
        rejoin: RejoinPolicy::Reuse,
    });
    stage.ask(A, Command::Open(BESIDE)).heard();
    let link = stage.bound(B, join.clone(), A);
    stage.ask(B, join);
    assert_eq!(stage.heard(), [(B, Event::LinkedToMember { link })]);
}
