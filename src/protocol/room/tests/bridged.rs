//! Peers of a bridge in a room. For the clients, the room is as it would be without them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Peers of the bridge, from this one on.
const BRIDGE: PeerId = PeerId(100);
/// Joiners that are linked to one of them, from this one on.
const OLD_JOINERS: PeerId = PeerId(200);

const MAX_JOINERS: u32 = 1000;

fn join_of(when_empty: WhenEmpty) -> Join {
    Join { when_empty, choice: MemberChoice::Oldest, rejoin: RejoinPolicy::KeepReceiving }
}

impl Stage {
    fn join_through(&mut self, peer: PeerId, member: PeerId) -> RoomRole {
        let events = &mut self.events;
        let deliver = &mut |to: &PeerId, event| events.push((*to, event));
        self.room.join_through(peer, &peer, member, &mut self.rng, deliver)
    }

    fn join_without_member(&mut self, joiner: PeerId, entry: PeerId, max_joiners: u32) -> Option<RoomRole> {
        let events = &mut self.events;
        let deliver = &mut |to: &PeerId, event| events.push((*to, event));
        let join = join_of(WhenEmpty::Refuse);
        let (joiner, entry) = ((joiner, &joiner), (entry, &entry));
        self.room.join_without_member(joiner, join, entry, max_joiners, &mut self.rng, deliver)
    }
}

#[test]
fn peer_of_the_bridge_joins_through_the_member_that_it_names() {
    let mut stage = Stage::new();
    stage.ask(A, connect(1, &[])).ask(B, connect(2, &[1])).ask(C, join5()).events();
    assert_eq!(stage.join_through(BRIDGE, B), RoomRole::Joiner);
    let (to, link) = match stage.events()[..] {
        [(to, Event::LinkedToJoiner { link }), (BRIDGE, Event::LinkedToMember { .. })] => (to, link),
        ref events => panic!("{events:?}"),
    };
    assert_eq!(to, B);
    stage.ask(BRIDGE, relay(Recipient::Member, data("offer")));
    stage.ask(B, relay(Recipient::Joiner(link), data("answer")));
    let offer = (B, relayed(link, Side::Member, data("offer")));
    assert_eq!(stage.events(), [offer, (BRIDGE, relayed(link, Side::Joiner, data("answer")))]);
    // Neither a joiner nor one that is not in the room.
    for other in [C, D] {
        assert_eq!(stage.join_through(PeerId(101), other), RoomRole::None);
    }
    assert_eq!(stage.events(), []);
    assert_eq!(stage.room.members().collect::<Vec<_>>(), [A, B]);
}

#[test]
fn joiner_without_a_member_is_linked_to_the_bridge_which_is_no_member() {
    let mut stage = Stage::new();
    assert_eq!(stage.join_without_member(B, BRIDGE, MAX_JOINERS), Some(RoomRole::Joiner));
    let link = match stage.events()[..] {
        [(BRIDGE, Event::LinkedToJoiner { link }), (B, Event::LinkedToMember { .. })] => link,
        ref events => panic!("{events:?}"),
    };
    stage.ask(B, relay(Recipient::Member, data("offer")));
    stage.ask(BRIDGE, relay(Recipient::Joiner(link), data("answer")));
    let offer = (BRIDGE, relayed(link, Side::Member, data("offer")));
    assert_eq!(stage.events(), [offer, (B, relayed(link, Side::Joiner, data("answer")))]);
    assert!(!stage.room.has_members());
    // An opener is the first, exclusively, and joiners are linked to it.
    stage.ask(A, Command::Open(OPEN));
    assert_eq!(stage.events(), [(A, Event::Admitted { first: true })]);
    stage.linked(C, join5(), A);
    stage.leave(BRIDGE);
    assert_eq!(stage.events(), [(B, ended(link, Side::Joiner))]);
    stage.ask(B, relay(Recipient::Member, data("more")));
    assert_eq!(stage.events(), [(B, undeliverable(Recipient::Member, Reason::RecipientGone))]);
}

#[test]
fn too_many_joiners_are_not_linked_to_the_bridge() {
    let mut stage = Stage::new();
    assert_eq!(stage.join_without_member(A, BRIDGE, 2), Some(RoomRole::Joiner));
    stage.events();
    assert_eq!(stage.join_without_member(B, PeerId(101), 2), None);
    assert_eq!((stage.events(), stage.room.role(B)), (Vec::new(), RoomRole::None));
}

#[test]
fn joiners_that_open_a_key_themselves_need_no_member() {
    let join = |when_empty, rejoin| Join { rejoin, ..join_of(when_empty) };
    assert!(join(WhenEmpty::Refuse, RejoinPolicy::KeepReceiving).needs_member());
    assert!(join(WhenEmpty::BecomeTentativeMember, RejoinPolicy::KeepReceiving).needs_member());
    assert!(!join(WhenEmpty::Refuse, RejoinPolicy::Reuse).needs_member());
    assert!(!join(WhenEmpty::BecomeMember, RejoinPolicy::Replace).needs_member());
}

#[derive(Clone, Debug)]
enum Step {
    Client(PeerId, ClientCommand),
    ClientLeaves(PeerId),
    BridgeJoins(PeerId, PeerId),
    BridgeSends(PeerId),
    OldJoiner(PeerId),
    BridgeLeaves(PeerId),
}

#[derive(Clone, Debug)]
enum ClientCommand {
    Exactly(Command),
    /// A message to the joiner of one of its links.
    ToJoiner(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let client = || (1u64..6).prop_map(PeerId);
    let of_bridge = || (0u64..3).prop_map(|at| PeerId(BRIDGE.0 + at));
    let join = (0usize..3, any::<bool>()).prop_map(|(empty, is_random)| {
        let when_empty =
            [WhenEmpty::Refuse, WhenEmpty::BecomeMember, WhenEmpty::BecomeTentativeMember][empty];
        let choice = if is_random { MemberChoice::Random } else { MemberChoice::Oldest };
        Command::Join(Join { choice, ..join_of(when_empty) })
    });
    let connects = (1u32..6, prop::collection::vec(1u32..6, 0..2), any::<bool>());
    let connects = connects.prop_map(|(net_id, connected_to, preferred)| {
        let connected_to = connected_to.into_iter().map(NetId).collect();
        let admit_before_unlink = preferred;
        Command::Connect(Connect { net_id: NetId(net_id), connected_to, preferred, admit_before_unlink })
    });
    let exactly = prop_oneof![
        3 => join,
        3 => connects,
        2 => any::<bool>().prop_map(|exclusive| Command::Open(Open { exclusive, keep_other_rooms: false })),
        1 => Just(Command::BecomeMember),
        1 => Just(Command::TryAnother),
        1 => Just(Command::RevertAssumption),
        1 => Just(Command::Unlink),
        2 => Just(relay(Recipient::Member, data("up"))),
        1 => Just(relay(Recipient::Member, last("up"))),
    ];
    let command = prop_oneof![
        6 => exactly.prop_map(ClientCommand::Exactly),
        2 => any::<usize>().prop_map(ClientCommand::ToJoiner),
    ];
    prop_oneof![
        10 => (client(), command).prop_map(|(peer, command)| Step::Client(peer, command)),
        2 => client().prop_map(Step::ClientLeaves),
        4 => (of_bridge(), client()).prop_map(|(peer, member)| Step::BridgeJoins(peer, member)),
        2 => of_bridge().prop_map(Step::BridgeSends),
        2 => (0u64..3).prop_map(|at| Step::OldJoiner(PeerId(at))),
        2 => of_bridge().prop_map(Step::BridgeLeaves),
    ]
}

/// The link of an event, if it is about one.
fn link_of(event: &Event) -> Option<LinkId> {
    match event {
        Event::LinkedToMember { link }
        | Event::LinkedToJoiner { link }
        | Event::Relayed { link, .. }
        | Event::LinkEnded { link, .. } => Some(*link),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// The naive model is the same room without a bridge.
    #[test]
    fn clients_see_the_room_that_they_would_see_without_a_bridge(
        steps in prop::collection::vec(step(), 1..50),
    ) {
        let (mut plain, mut bridged) = (Stage::new(), Stage::new());
        let mut of_bridge = fastrand::Rng::with_seed(1);
        let mut bridge_links: BTreeSet<u32> = BTreeSet::new();
        let mut joiner_links: Vec<(PeerId, LinkId)> = Vec::new();
        for step in steps {
            match step {
                Step::Client(peer, command) => {
                    let command = match command {
                        ClientCommand::Exactly(command) => command,
                        ClientCommand::ToJoiner(at) => {
                            let own: Vec<LinkId> = joiner_links.iter()
                                .filter(|(member, _)| *member == peer).map(|(_, link)| *link).collect();
                            let Some(link) = own.get(at % own.len().max(1)) else { continue };
                            relay(Recipient::Joiner(*link), data("down"))
                        }
                    };
                    plain.ask(peer, command.clone());
                    bridged.ask(peer, command);
                }
                Step::ClientLeaves(peer) => {
                    plain.leave(peer);
                    bridged.leave(peer);
                }
                Step::BridgeJoins(peer, member) => {
                    std::mem::swap(&mut bridged.rng, &mut of_bridge);
                    bridged.join_through(peer, member);
                    std::mem::swap(&mut bridged.rng, &mut of_bridge);
                }
                Step::BridgeSends(peer) => {
                    bridged.ask(peer, relay(Recipient::Member, data("offer")));
                }
                Step::OldJoiner(PeerId(at)) => {
                    if !bridged.room.has_members() {
                        std::mem::swap(&mut bridged.rng, &mut of_bridge);
                        let joiner = PeerId(OLD_JOINERS.0 + at);
                        bridged.join_without_member(joiner, PeerId(BRIDGE.0 + at), MAX_JOINERS);
                        std::mem::swap(&mut bridged.rng, &mut of_bridge);
                    }
                }
                Step::BridgeLeaves(peer) => {
                    bridged.leave(peer);
                }
            }
            let seen = bridged.events();
            let links = seen.iter().filter(|(to, _)| *to >= BRIDGE).filter_map(|(_, event)| link_of(event));
            bridge_links.extend(links.map(|link| link.0));
            let mut of_clients: Vec<_> = seen.into_iter()
                .filter(|(to, event)| {
                    *to < BRIDGE && !link_of(event).is_some_and(|link| bridge_links.contains(&link.0))
                })
                .collect();
            // In the order of each receiver; the links of one that leaves end in any order.
            let mut expected = plain.events();
            let order = |(to, event): &(PeerId, Event)| {
                (*to, matches!(event, Event::LinkEnded { .. }).then(|| link_of(event).map(|link| link.0)))
            };
            of_clients.sort_by_key(order);
            expected.sort_by_key(order);
            joiner_links.extend(expected.iter().filter_map(|(to, event)| match event {
                Event::LinkedToJoiner { link } => Some((*to, *link)),
                _ => None,
            }));
            prop_assert_eq!(of_clients, expected);
            for peer in (1..6).map(PeerId) {
                // One that is no member any more is an end of links to the bridge, which ends them then.
                if (plain.room.role(peer), bridged.room.role(peer)) == (RoomRole::None, RoomRole::Joiner) {
                    (0..3).for_each(|at| { bridged.leave(PeerId(BRIDGE.0 + at)); });
                }
                prop_assert_eq!(plain.room.role(peer), bridged.room.role(peer));
            }
            let members: Vec<PeerId> = bridged.room.members().collect();
            prop_assert_eq!(members, plain.room.members().collect::<Vec<_>>());
        }
        // Nothing is left of those that left.
        for at in 0..3 {
            bridged.leave(PeerId(BRIDGE.0 + at)).leave(PeerId(OLD_JOINERS.0 + at));
        }
        (1..6).for_each(|peer| { bridged.leave(PeerId(peer)); });
        prop_assert!(bridged.room.is_empty());
    }
}
