//! The search for members that a joiner has not tried: its result, and the number of members it visits.

use proptest::prelude::*;

use super::super::member::{ArrivalSeq, Identity, Member};
use super::super::members::{Members, VISITED};
use super::super::tried::TriedMembers;
use super::*;

const MEMBERS: u32 = 500;

fn large_room() -> Stage {
    let mut stage = Stage::new();
    for member in 1..=MEMBERS {
        stage.ask(PeerId(member.into()), connect(member, &[1])).events();
    }
    assert_eq!(stage.room.members.len(), MEMBERS as usize);
    stage
}

/// Returns the number of members visited by each of the commands.
fn visits(stage: &mut Stage, commands: impl Iterator<Item = (PeerId, Command)>) -> Vec<usize> {
    let count = |(peer, command)| {
        VISITED.set(0);
        stage.ask(peer, command).events();
        VISITED.get()
    };
    commands.map(count).collect()
}

#[test]
fn repeated_search_visits_members_once_per_round() {
    const ROUNDS: usize = 3;
    let joiner = PeerId(100_000);
    for command in [connect(100_000, &[]), Command::TryAnother] {
        let mut stage = large_room();
        let times = ROUNDS * MEMBERS as usize;
        let visits = visits(&mut stage, std::iter::repeat_n((joiner, command), times));
        // The untried member, the one before it, which has been tried since, and the first of a round again.
        assert!(visits.iter().all(|visits| *visits <= 3), "{visits:?}");
    }
}

#[test]
fn search_among_preferred_members_visits_them_once_per_round() {
    let mut stage = Stage::new();
    for member in 1..=MEMBERS {
        let connected_to = vec![NetId(1)];
        let connect =
            Connect { net_id: NetId(member), connected_to, preferred: true, admit_before_unlink: false };
        stage.ask(PeerId(member.into()), Command::Connect(connect)).events();
    }
    let joiner = PeerId(100_000);
    let times = 2 * MEMBERS as usize;
    let visits = visits(&mut stage, std::iter::repeat_n((joiner, Command::TryAnother), times));
    // The end of a round searches in order of arrival too, as members that are not preferred come last.
    let expected = 3 * times + 2 * MEMBERS as usize;
    assert!(visits.iter().sum::<usize>() <= expected, "{visits:?}");
}

#[test]
fn search_is_linear_while_members_change_their_ids() {
    let mut stage = large_room();
    let joiner = PeerId(100_000);
    let commands = (0..MEMBERS).flat_map(|round| {
        let renamed = connect(10_000 + round, &[2]);
        [(PeerId(1), renamed), (joiner, Command::TryAnother)]
    });
    let visits = visits(&mut stage, commands);
    assert!(visits.iter().all(|visits| *visits <= MEMBERS as usize + 1), "{visits:?}");
}

/// sigver 15 to 18: a joiner that joins again is linked to the same member.
#[test]
fn repeated_join_does_not_grow_the_room() {
    let mut stage = Stage::new();
    stage.ask(A, join18()).events();
    let mut size = || {
        stage.linked(B, join18(), A);
        format!("{:?}", stage.room).len()
    };
    let first = size();
    assert!((0..1000).all(|_| size() < first + 100));
}

#[derive(Clone, Debug)]
enum Step {
    Add { id: u32, preferred: bool },
    AddTentative,
    Remove(prop::sample::Index),
    Update { at: prop::sample::Index, id: u32, preferred: bool },
    Confirm(prop::sample::Index),
    Try,
    StartOver,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        3 => (0..12u32, any::<bool>()).prop_map(|(id, preferred)| Step::Add { id, preferred }),
        1 => Just(Step::AddTentative),
        2 => index().prop_map(Step::Remove),
        1 => (index(), 0..12u32, any::<bool>())
            .prop_map(|(at, id, preferred)| Step::Update { at, id, preferred }),
        1 => index().prop_map(Step::Confirm),
        8 => Just(Step::Try),
        1 => Just(Step::StartOver),
    ]
}

/// Returns what is done, with which net id, and to which member.
fn net_id_step() -> impl Strategy<Value = (u8, Option<u32>, prop::sample::Index)> {
    (0..10u8, prop::option::of(0..8u32), any::<prop::sample::Index>())
}

/// A member list that searches from the beginning each time.
#[derive(Default)]
struct Reference {
    /// Members, and true if they are preferred.
    members: Vec<(Member, bool)>,
    tentative: Option<ArrivalSeq>,
    tried: Vec<Identity>,
}

impl Reference {
    fn next_untried(&self) -> Option<Member> {
        let others = self.members.iter().any(|(member, _)| Some(member.place) != self.tentative);
        let candidates =
            self.members.iter().filter(|(member, _)| !others || Some(member.place) != self.tentative);
        let preferred = self.members.iter().filter(|(_, preferred)| *preferred);
        let mut all = preferred.chain(candidates).map(|(member, _)| *member);
        all.find(|member| !self.tried.contains(&member.identity()))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn continued_search_equals_one_from_the_beginning(steps in prop::collection::vec(step(), 0..60)) {
        let (mut members, mut tried) = (Members::default(), TriedMembers::default());
        let mut reference = Reference::default();
        for (peer, step) in (0..).map(PeerId).zip(steps) {
            let count = reference.members.len();
            match step {
                Step::Add { id, preferred } => {
                    let net_id = Some(NetId(id));
                    let place = members.add(peer, net_id, preferred);
                    reference.members.push((Member { place, peer, net_id }, preferred));
                }
                Step::AddTentative if count == 0 => {
                    let place = members.add(peer, None, false);
                    members.mark_tentative();
                    reference.members.push((Member { place, peer, net_id: None }, false));
                    reference.tentative = Some(place);
                }
                Step::Remove(at) if count > 0 => {
                    let (member, _) = reference.members.remove(at.index(count));
                    reference.tentative = reference.tentative.filter(|tentative| *tentative != member.place);
                    members.remove(member.place);
                }
                Step::Update { at, id, preferred } if count > 0 => {
                    let (member, is_preferred) = &mut reference.members[at.index(count)];
                    member.net_id = Some(NetId(id));
                    *is_preferred |= preferred;
                    reference.tentative = reference.tentative.filter(|tentative| *tentative != member.place);
                    members.confirm(member.place);
                    members.update_net_id(member.place, member.net_id, preferred);
                }
                Step::Confirm(at) if count > 0 => {
                    let (member, _) = reference.members[at.index(count)];
                    reference.tentative = reference.tentative.filter(|tentative| *tentative != member.place);
                    members.confirm(member.place);
                }
                Step::Try => {
                    let expected = reference.next_untried();
                    prop_assert_eq!(members.next_untried(&mut tried), expected);
                    if let Some(member) = expected {
                        if tried.len() > members.len() {
                            members.prune(&mut tried);
                            let is_current = |identity: &Identity| {
                                reference.members.iter().any(|(member, _)| member.identity() == *identity)
                            };
                            reference.tried.retain(is_current);
                        }
                        tried.insert(member.identity());
                        reference.tried.push(member.identity());
                    }
                }
                Step::StartOver => {
                    tried = TriedMembers::default();
                    reference.tried.clear();
                }
                Step::AddTentative | Step::Remove(_) | Step::Update { .. } | Step::Confirm(_) => {}
            }
            prop_assert_eq!(tried.len(), reference.tried.len());
            let first = reference.members.iter().find(|(member, _)| Some(member.place) != reference.tentative);
            let oldest = first.or(reference.members.first()).map(|(member, _)| *member);
            prop_assert_eq!(members.oldest(), oldest);
            prop_assert_eq!(members.all_tentative(), first.is_none());
        }
    }

    /// With few members, whose net ids are compared one by one, and with many.
    #[test]
    fn net_ids_are_those_of_the_members(steps in prop::collection::vec(net_id_step(), 0..100)) {
        let mut members = Members::default();
        let mut reference: Vec<(ArrivalSeq, Option<NetId>)> = Vec::new();
        for (peer, (step, id, at)) in (0..).map(PeerId).zip(steps) {
            let net_id = id.map(NetId);
            let at = (!reference.is_empty()).then(|| at.index(reference.len()));
            // More are added than removed at first, and fewer later.
            let removing = if peer.0 < 50 { 2..4 } else { 2..8 };
            match at {
                Some(at) if step < 2 => {
                    members.update_net_id(reference[at].0, net_id, false);
                    reference[at].1 = net_id;
                }
                Some(at) if removing.contains(&step) => members.remove(reference.remove(at).0),
                Some(_) | None => reference.push((members.add(peer, net_id, false), net_id)),
            }
            for id in (0..8).map(NetId) {
                let expected = reference.iter().any(|(_, net_id)| *net_id == Some(id));
                prop_assert_eq!(members.has_net_id(id), expected, "{:?} of {}", id, reference.len());
            }
        }
    }
}
