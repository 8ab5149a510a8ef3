//! Three connections of any releases, detected or configured, in the rooms of one hub, on their own clock:
//! detection, every decoder and encoder, translation, and the rooms behind them.

#![no_main]

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use sigver::config::ProtocolSet;
use sigver::fuzzing::{Hub, Membership, Outbox, protobuf};
use sigver::protocol::detect::{ConnectionProtocol, Policy, RoomPolicy};
use sigver::protocol::dialect::{Output, Release, ReleaseSet, UpgradeRequest};
use sigver::protocol::frame::{Message, Outgoing};
use sigver_fuzz::input::Input;

/// Longest exchange that one input may lead to without another one.
const MAX_ROUNDS: usize = 1000;

struct Client {
    policy: Arc<Policy>,
    protocol: ConnectionProtocol,
    membership: Membership,
    outbox: Outbox,
}

fn policy(choice: u8) -> Policy {
    let all = ProtocolSet::default().releases;
    let releases: ReleaseSet = match Release::ALL.get(usize::from(choice & 0x3f)) {
        Some(release) => [*release].into_iter().collect(),
        None => all,
    };
    let mut policy = Policy::new(releases);
    policy.transcode = choice & 0x40 == 0;
    if choice & 0x80 != 0 {
        policy.rooms = RoomPolicy::Partitioned;
    }
    policy
}

/// Asserts that a message is in a format that some dialect has.
fn check(message: &Message) {
    match message {
        // Heartbeats of two dialects are no JSON.
        Message::Text(text) => {
            let json = serde_json::from_str::<serde_json::Value>(text).is_ok();
            assert!(json, "no JSON: {text:?}");
        }
        Message::Binary(bytes) => {
            let json = serde_json::from_slice::<serde_json::Value>(bytes).is_ok();
            assert!(json || protobuf::fields(bytes).is_some(), "neither JSON nor protobuf: {bytes:?}");
        }
    }
}

/// Does what the protocol wants. Returns true if the connection is closed.
fn execute(client: &mut Client, outputs: Vec<Output>) -> bool {
    for output in outputs {
        match output {
            Output::Send(Outgoing::Close(close)) => {
                assert!(close.reason.len() <= 123, "{close:?}");
                return true;
            }
            Output::Send(outgoing) => check(&outgoing.into_message().unwrap()),
            Output::Enter(key, command) => client.membership.enter(&client.policy.room_key(key), command),
            Output::Ask(command) => {
                client.membership.command(command);
            }
            Output::Leave => client.membership.leave(false),
            Output::Mixed(link, _) => {
                client.membership.mark_mixed(link);
            }
            _ => {}
        }
    }
    false
}

/// Handles one input of a client. Closed ones leave.
fn handle(slot: &mut Option<Client>, input: impl FnOnce(&mut ConnectionProtocol, &mut Vec<Output>)) {
    let Some(client) = slot else { return };
    let mut outputs = Vec::new();
    input(&mut client.protocol, &mut outputs);
    if execute(client, outputs) {
        *slot = None;
    }
}

/// Delivers events until there are none.
fn deliver(clients: &mut [Option<Client>], now: Instant) {
    let mut context = Context::from_waker(Waker::noop());
    for round in 0.. {
        assert!(round < MAX_ROUNDS, "clients answer one another for ever");
        let mut delivered = false;
        for slot in clients.iter_mut() {
            let Some(client) = slot else { continue };
            let mut events = VecDeque::new();
            match client.outbox.poll_take(&mut context, &mut events) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => *slot = None,
                Poll::Pending => continue,
            }
            for event in events {
                delivered = true;
                handle(slot, |protocol, out| protocol.on_event(event, now, out));
            }
        }
        if !delivered {
            return;
        }
    }
}

/// Lets the time pass for a client, up to `until`.
fn pass_time(slot: &mut Option<Client>, from: Instant, until: Instant) {
    let mut now = from;
    let mut idle = 0;
    while let Some(due) = slot.as_ref().and_then(|client| client.protocol.deadline()) {
        if due > until {
            return;
        }
        idle = if due > now { 0 } else { idle + 1 };
        assert!(idle < 10, "a deadline that has passed stays due");
        now = now.max(due);
        handle(slot, |protocol, out| protocol.on_timeout(now, out));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let hub = Hub::new();
    let policies = [(); 3].map(|()| Arc::new(policy(input.byte())));
    let mut clients: [Option<Client>; 3] = [const { None }; 3];
    let mut now = Instant::now();
    while !input.is_empty() {
        let step = input.byte();
        let number = usize::from(step >> 4) % 3;
        let slot = &mut clients[number];
        match step % 6 {
            0 => {
                let path = input.text().to_owned();
                let flags = input.byte();
                let upgrade = UpgradeRequest { path, favored: flags & 1 != 0, from_page: flags & 2 != 0 };
                let mut outputs = Vec::new();
                let policy = Arc::clone(&policies[number]);
                let protocol = ConnectionProtocol::open(&policy, upgrade, now, &mut outputs);
                let outbox = Outbox::new(1 << 20);
                let membership = hub.register(outbox.clone());
                let mut client = Client { policy, protocol, membership, outbox };
                let closed = execute(&mut client, outputs);
                *slot = (!closed).then_some(client);
            }
            1 => {
                let message = Message::text(input.text());
                handle(slot, |protocol, out| protocol.on_message(message, now, out));
            }
            2 | 3 => {
                let message = Message::binary(input.bytes().to_vec());
                handle(slot, |protocol, out| protocol.on_message(message, now, out));
            }
            4 => {
                let until = now + Duration::from_millis(input.u16().into());
                for slot in &mut clients {
                    pass_time(slot, now, until);
                }
                now = until;
            }
            _ => match input.below(4) {
                0 => handle(slot, |protocol, _| protocol.on_pong(now)),
                1 => {
                    if let Some(mut client) = slot.take() {
                        client.membership.leave(input.flag());
                    }
                }
                _ => handle(slot, |protocol, out| protocol.on_timeout(now, out)),
            },
        }
        deliver(&mut clients, now);
    }
    drop(clients);
    assert_eq!(hub.rooms(), 0, "a room outlives its clients");
});
