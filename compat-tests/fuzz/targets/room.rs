//! A room under any commands, compared with a naive model.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sigver::fuzzing::FuzzedRoom;
use sigver::protocol::model::{
    Command, Connect, Event, Join, LinkId, LinkMessage, MemberChoice, NetId, Open, Payload, PeerId,
    Recipient, RejoinPolicy, SenderTag, WhenEmpty,
};
use sigver_fuzz::input::Input;
use sigver_fuzz::model::{Events, Model};

/// Number of peers. More than the lists of a room have places for, before they become maps.
const PEERS: usize = 12;

fn link(input: &mut Input, model: &Model) -> LinkId {
    let ids = model.link_ids();
    let number = input.byte();
    match ids.get(usize::from(number)) {
        Some(id) => *id,
        None => LinkId(u32::from(number) % 4),
    }
}

fn net_id(input: &mut Input) -> NetId {
    NetId(input.below(6) as u32)
}

fn message(input: &mut Input) -> LinkMessage {
    match input.below(8) {
        0 => LinkMessage::End,
        1 => LinkMessage::Error { closes_both: false },
        2 => LinkMessage::Error { closes_both: true },
        3 => LinkMessage::Empty,
        last => LinkMessage::Data { payload: Payload::Bytes(vec![last as u8].into()), last: last == 4 },
    }
}

fn command(input: &mut Input, model: &Model) -> Command {
    match input.below(12) {
        0 => Command::Open(Open { exclusive: input.flag(), keep_other_rooms: false }),
        1..=3 => {
            let choices = input.byte();
            let pick = |bits: u8| usize::from(choices >> bits & 3);
            Command::Join(Join {
                when_empty: [
                    WhenEmpty::BecomeMember,
                    WhenEmpty::BecomeTentativeMember,
                    WhenEmpty::Refuse,
                    WhenEmpty::BecomeTentativeMember,
                ][pick(0)],
                rejoin: [
                    RejoinPolicy::Replace,
                    RejoinPolicy::KeepReceiving,
                    RejoinPolicy::Reuse,
                    RejoinPolicy::KeepReceiving,
                ][pick(2)],
                choice: if choices & 0x10 == 0 { MemberChoice::Oldest } else { MemberChoice::Random },
            })
        }
        4 | 5 => {
            let choices = input.byte();
            Command::Connect(Connect {
                net_id: net_id(input),
                connected_to: (0..choices & 3).map(|_| net_id(input)).collect(),
                preferred: choices & 4 != 0,
                admit_before_unlink: choices & 8 != 0,
            })
        }
        6 => Command::BecomeMember,
        7 => Command::TryAnother,
        8 => [Command::RevertAssumption, Command::Unlink][input.below(2)].clone(),
        9 => Command::ReplyOnBehalf {
            link: link(input, model),
            message: message(input),
            sender: SenderTag::default(),
        },
        _ => {
            let to = match input.below(3) {
                0 => Recipient::Joiner(link(input, model)),
                1 => Recipient::JoinerOrMember(link(input, model)),
                _ => Recipient::Member,
            };
            Command::Relay { to, message: message(input), sender: SenderTag::default() }
        }
    }
}

/// Sorts the runs of ends: the links of a peer that leaves end in no order that is promised.
fn normalized(mut events: Events) -> Events {
    let is_end = |event: &(PeerId, Event)| matches!(event.1, Event::LinkEnded { .. });
    for run in events.chunk_by_mut(|a, b| is_end(a) && is_end(b)) {
        run.sort_by_key(|event| format!("{event:?}"));
    }
    events
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let mut room = FuzzedRoom::new(input.byte().into());
    let mut model = Model::default();
    let mut step = 0;
    while !input.is_empty() {
        let peer = PeerId(1 + input.below(PEERS) as u64);
        let (events, expected) = match input.below(16) {
            0 => {
                let normal_closure = input.flag();
                (room.leave(peer, normal_closure), model.leave(peer, normal_closure))
            }
            1 => {
                room.drop_membership(peer);
                model.drop_membership(peer);
                (Events::new(), Events::new())
            }
            _ => {
                let command = command(&mut input, &model);
                let (role, events) = room.apply(peer, command.clone());
                let expected = model.apply(peer, command.clone(), &events);
                assert_eq!(role, model.role(peer), "{peer:?} {command:?}");
                (events, expected)
            }
        };
        assert_eq!(normalized(events), normalized(expected));
        step += 1;
        if input.is_empty() || step % 8 == 0 {
            assert_eq!(room.peers(), model.peers());
            assert_eq!(room.links(), model.links());
        }
    }
});
