//! Peers that know the key, and try to evict, impersonate or block others: whatever they ask for, the rules
//! of sigver 18 to 20 let them replace the only member, and nothing else.

use proptest::prelude::*;

use super::limits::any_command;
use super::*;

/// The member, its joiner, and two strangers.
const MEMBER: PeerId = PeerId(1);
const JOINER: PeerId = PeerId(2);
const STRANGERS: std::ops::Range<u64> = 3..5;

/// A step of a stranger.
#[derive(Clone, Debug)]
enum Step {
    Ask(Command),
    /// A message to the ids of others, theirs among them.
    Send {
        to_their_link: bool,
        as_member: bool,
        guess: u32,
        message: LinkMessage,
    },
    /// An answer on behalf of another.
    Reply,
    Leave,
}

fn any_message() -> impl Strategy<Value = LinkMessage> {
    prop_oneof![
        Just(data("forged")),
        Just(last("forged")),
        any::<bool>().prop_map(|closes_both| LinkMessage::Error { closes_both })
    ]
}

fn any_step(peer: u64) -> impl Strategy<Value = Step> {
    let send = (any::<bool>(), any::<bool>(), any::<u32>(), any_message());
    prop_oneof![
        6 => any_command(peer).prop_map(Step::Ask),
        // In the name of the member.
        2 => prop::collection::vec(1u32..5, 0..3).prop_map(|to| Step::Ask(super::connect(1, &to))),
        4 => send.prop_map(|(to_their_link, as_member, guess, message)| {
            Step::Send { to_their_link, as_member, guess, message }
        }),
        1 => Just(Step::Reply),
        1 => Just(Step::Leave),
    ]
}

/// The ways to become a member: by `open`, by `join` and by `connect`.
fn admission() -> impl Strategy<Value = (Command, Command)> {
    prop_oneof![
        Just((Command::Open(OPEN), join5())),
        Just((join18(), join18())),
        Just((connect(1, &[]), connect(2, &[]))),
    ]
}

fn replaces(admitted_by: &Command, command: &Command) -> bool {
    matches!(
        (admitted_by, command),
        (Command::Join(_), Command::TryAnother) | (Command::Connect(_), Command::Connect(_))
    )
}

proptest! {
    #[test]
    fn strangers_reach_no_link_of_others_and_replace_only_by_the_rules(
        (member_asks, joiner_asks) in admission(),
        steps in prop::collection::vec(
            STRANGERS.prop_flat_map(|peer| (Just(PeerId(peer)), any_step(peer))),
            0..40,
        ),
    ) {
        let mut stage = Stage::new();
        stage.ask(MEMBER, member_asks.clone()).events();
        let theirs = stage.linked(JOINER, joiner_asks, MEMBER);
        for (stranger, step) in steps {
            let command = match step {
                Step::Leave => {
                    stage.leave(stranger);
                    None
                }
                Step::Reply => Some(Command::ReplyOnBehalf {
                    link: theirs,
                    message: data("forged"),
                    sender: SenderTag::default(),
                }),
                Step::Send { to_their_link, as_member, guess, message } => {
                    let link = if to_their_link { theirs } else { LinkId(guess) };
                    let to = if as_member { Recipient::Joiner(link) } else { Recipient::JoinerOrMember(link) };
                    Some(relay(to, message))
                }
                Step::Ask(command) => Some(command),
            };
            // As for a command to the room in which the peer is.
            let needs_role = matches!(
                command,
                Some(Command::BecomeMember | Command::TryAnother | Command::Unlink | Command::Relay { .. }
                    | Command::ReplyOnBehalf { .. })
            );
            if needs_role && stage.room.role(stranger) == RoomRole::None {
                continue;
            }
            if let Some(command) = &command {
                stage.ask(stranger, command.clone());
            }
            let events = stage.events();
            let is_replaced = events.contains(&(MEMBER, Event::Evicted(Reason::Replaced)));
            prop_assert!(!is_replaced || command.is_some_and(|command| replaces(&member_asks, &command)));
            for (to, event) in &events {
                let is_on_their_link = match event {
                    Event::Relayed { link, .. } | Event::LinkEnded { link, .. }
                    | Event::LinkedToJoiner { link } | Event::LinkedToMember { link } => *link == theirs,
                    _ => false,
                };
                let is_fine = match *to {
                    JOINER => is_replaced && matches!(event, Event::LinkEnded { .. }) && is_on_their_link,
                    MEMBER => match event {
                        Event::Evicted(Reason::Replaced) => true,
                        Event::Relayed { .. } | Event::LinkEnded { .. } | Event::LinkedToJoiner { .. } => {
                            !is_on_their_link
                        }
                        _ => false,
                    },
                    _ => !is_on_their_link,
                };
                prop_assert!(is_fine, "{to:?} received {event:?}");
            }
            if is_replaced {
                return Ok(());
            }
        }
        stage.ask(JOINER, relay(Recipient::Member, data("up")));
        prop_assert_eq!(stage.events(), [(MEMBER, relayed(theirs, Side::Member, data("up")))]);
        stage.ask(MEMBER, relay(Recipient::Joiner(theirs), data("down")));
        prop_assert_eq!(stage.events(), [(JOINER, relayed(theirs, Side::Joiner, data("down")))]);
    }
}

/// Ids of links are no secrets: only the ends of a link can use its id. They differ in 31 bits, as clients of
/// sigver 7.6 to 20 read them as numbers of that size, or of one bit more.
#[test]
fn ids_of_links_have_31_random_bits() {
    let mut stage = Stage::new();
    stage.ask(A, Command::Open(OPEN)).events();
    let ids: Vec<u32> = (0..4096).map(|peer| stage.linked(PeerId(100 + peer), join5(), A).0).collect();
    assert!(ids.iter().all(|id| (1..=0x7fff_ffff).contains(id)));
    for bit in 0..31 {
        let set = ids.iter().filter(|id| *id >> bit & 1 == 1).count();
        // Six standard deviations.
        assert!((1856..=2240).contains(&set), "bit {bit}: {set} of 4096");
    }
}
