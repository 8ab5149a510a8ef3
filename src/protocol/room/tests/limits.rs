//! Limits of the peers in one room.

use proptest::prelude::*;

use super::*;
use crate::protocol::room::RoomLimits;

const LIMITS: RoomLimits = RoomLimits { max_members: 3, max_joiners: 2, replace_members: true };

impl Stage {
    /// Applies a command unless it is refused. Returns true if it was applied.
    fn ask_limited(&mut self, peer: PeerId, command: Command) -> bool {
        if let Some(reason) = self.room.refusal(peer, &command, LIMITS) {
            let (members, joiners) = self.counts();
            let full = match reason {
                Reason::TooManyMembers => members == LIMITS.max_members as usize,
                Reason::TooManyJoiners => joiners == LIMITS.max_joiners as usize,
                _ => false,
            };
            assert!(full, "{reason:?} with {members} members and {joiners} joiners");
            return false;
        }
        self.ask(peer, command);
        true
    }

    fn counts(&self) -> (usize, usize) {
        let is = |wanted| self.room.peers().filter(|peer| self.room.role(*peer) == wanted).count();
        (is(RoomRole::Member), is(RoomRole::Joiner))
    }
}

fn connect(peer: u64, to: &[u32]) -> Command {
    Command::Connect(Connect {
        net_id: NetId(peer as u32),
        connected_to: to.iter().map(|id| NetId(*id)).collect(),
        preferred: false,
        admit_before_unlink: true,
    })
}

#[test]
fn full_room_refuses_members_and_joiners() {
    let mut stage = Stage::new();
    for peer in 1..=3 {
        assert!(stage.ask_limited(PeerId(peer), connect(peer, &[1])));
    }
    for peer in 4..=5 {
        assert!(stage.ask_limited(PeerId(peer), connect(peer, &[])));
    }
    assert_eq!(stage.counts(), (3, 2));
    // One more in either role, a joiner that would be a member, and a member that would be a joiner.
    for (peer, command) in [
        (6, connect(6, &[])),
        (6, connect(6, &[1])),
        (6, join18()),
        (6, Command::Open(Open { exclusive: false, keep_other_rooms: false })),
        (4, Command::BecomeMember),
        (4, connect(4, &[1])),
        (3, connect(3, &[])),
    ] {
        assert!(!stage.ask_limited(PeerId(peer), command.clone()), "{peer}: {command:?}");
    }
    // A joiner may try another member, and a member may connect again.
    assert!(stage.ask_limited(PeerId(4), connect(4, &[])));
    assert!(stage.ask_limited(PeerId(2), connect(2, &[1])));
    stage.leave(PeerId(3));
    assert!(stage.ask_limited(PeerId(5), Command::BecomeMember));
    assert_eq!(stage.counts(), (3, 1));
}

/// Checks that the only member stays when a client cannot connect to it, and that others are linked to it.
fn expect_member_kept(admitted: Command, again: Command) {
    let kept = RoomLimits { replace_members: false, ..LIMITS };
    let mut stage = Stage::new();
    stage.ask(A, admitted.clone()).events();
    stage.linked(B, admitted.clone(), A);
    // Once and again.
    for _ in 0..3 {
        assert_eq!(stage.room.refusal(B, &again, kept), Some(Reason::MemberKept));
        assert_eq!(stage.room.refusal(B, &again, LIMITS), None);
    }
    assert_eq!(stage.room.refusal(C, &admitted, kept), None);
    stage.linked(C, admitted, A);
    assert_eq!(stage.room.role(A), RoomRole::Member);
    // Without the limit it is replaced.
    stage.ask(B, again);
    assert!(stage.events().contains(&(A, Event::Evicted(Reason::Replaced))));
}

#[test]
fn only_member_is_not_replaced_if_members_are_kept() {
    expect_member_kept(connect(7, &[]), connect(7, &[]));
    expect_member_kept(join18(), Command::TryAnother);
}

#[test]
fn kept_members_do_not_keep_others_from_becoming_members() {
    let kept = RoomLimits { replace_members: false, ..LIMITS };
    let mut stage = Stage::new();
    stage.ask(A, connect(1, &[])).events();
    stage.linked(B, connect(2, &[]), A);
    // It has reached the group; the member itself connects again; and there is another one to try.
    assert_eq!(stage.room.refusal(B, &connect(2, &[1]), kept), None);
    assert_eq!(stage.room.refusal(A, &connect(1, &[]), kept), None);
    assert_eq!(stage.room.refusal(A, &Command::TryAnother, kept), None);
    stage.ask(C, connect(3, &[1])).events();
    assert_eq!(stage.room.refusal(B, &connect(2, &[]), kept), None);
}

#[test]
fn exclusive_open_of_a_full_room_has_the_answer_of_its_dialect() {
    let mut stage = Stage::new();
    for peer in 1..=3 {
        assert!(stage.ask_limited(PeerId(peer), connect(peer, &[1])));
    }
    stage.events();
    assert!(stage.ask_limited(PeerId(9), Command::Open(Open { exclusive: true, keep_other_rooms: false })));
    assert_eq!(stage.events(), [(PeerId(9), Event::Refused(Reason::KeyTaken))]);
}

pub(super) fn any_command(peer: u64) -> impl Strategy<Value = Command> {
    let to = prop::collection::vec(1u32..9, 0..3);
    let join = |when_empty| {
        Command::Join(Join { when_empty, choice: MemberChoice::Oldest, rejoin: RejoinPolicy::Replace })
    };
    prop_oneof![
        to.prop_map(move |to| connect(peer, &to)),
        any::<bool>().prop_map(|exclusive| Command::Open(Open { exclusive, keep_other_rooms: true })),
        Just(join(WhenEmpty::BecomeMember)),
        Just(join(WhenEmpty::BecomeTentativeMember)),
        Just(join(WhenEmpty::Refuse)),
        Just(Command::BecomeMember),
        Just(Command::TryAnother),
        Just(Command::Unlink),
    ]
}

proptest! {
    /// Whatever peers ask for, the room has no more peers than allowed. A member that leaves, or that another
    /// takes the place of, may leave one more joiner behind than there were.
    #[test]
    fn limits_hold_for_any_commands(
        steps in prop::collection::vec((1u64..9).prop_flat_map(|peer| (Just(peer), any_command(peer), 0u8..8)), 0..80),
    ) {
        let mut stage = Stage::new();
        for (peer, command, leave) in steps {
            if leave == 0 {
                stage.leave(PeerId(peer));
            }
            // As for a command to the room in which the peer is.
            let needs_role = matches!(command, Command::BecomeMember | Command::TryAnother | Command::Unlink);
            if needs_role && stage.room.role(PeerId(peer)) == RoomRole::None {
                continue;
            }
            stage.ask_limited(PeerId(peer), command);
            let (members, joiners) = stage.counts();
            prop_assert!(members <= 3 && joiners <= 2, "{members} members, {joiners} joiners");
        }
    }
}
