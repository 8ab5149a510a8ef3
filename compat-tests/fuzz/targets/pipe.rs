//! One pipe of signaller under any order of messages, connections, ends and times.

#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use sigver::config::PipeLimits;
use sigver::fuzzing::FuzzedPipe;
use sigver::protocol::frame::{Message, Outgoing};
use sigver_fuzz::input::Input;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let mut now = Instant::now();
    let max_messages = input.byte().into();
    let limits = PipeLimits {
        listen_deadline: Duration::from_millis(input.u16().into()),
        pipe_deadline: Duration::from_millis(input.u16().into()),
        max_messages,
        ..PipeLimits::default()
    };
    let mut pipe = FuzzedPipe::listen(&limits, now);
    let (mut connected, mut closed) = (false, [false; 2]);
    // What was sent by each side and not delivered yet, and how many messages each side got.
    let mut sent: [Vec<Message>; 2] = Default::default();
    let mut delivered = [0, 0];
    while !input.is_empty() {
        let step = input.byte();
        let from = usize::from(step >> 7);
        let was_closed = pipe.is_closed();
        let actions = match step % 8 {
            0 if !connected => {
                connected = true;
                pipe.on_connect(now)
            }
            1..=3 if from == 0 || connected => {
                let message = Message::text(input.text());
                if !was_closed {
                    sent[from].push(message.clone());
                }
                pipe.on_message(from == 0, message)
            }
            4 => {
                now += Duration::from_millis(input.u16().into());
                pipe.on_timeout(now)
            }
            5 if step & 8 != 0 => pipe.on_disconnect(from == 0, step),
            6 if step & 8 != 0 => pipe.on_shutdown(),
            _ => Vec::new(),
        };
        for (to_listener, outgoing) in actions {
            let to = usize::from(!to_listener);
            assert!(!closed[to], "something follows a close frame");
            match outgoing {
                Outgoing::Close(_) => closed[to] = true,
                Outgoing::Message(message) => {
                    assert_eq!(message, sent[1 - to].remove(0), "order");
                    delivered[to] += 1;
                }
                Outgoing::Prefixed(..) => panic!("signaller has no prefixes"),
            }
        }
        assert!(!was_closed || pipe.is_closed(), "a closed pipe is open again");
        assert!(delivered.iter().all(|count| *count <= max_messages.max(1)), "{delivered:?}");
        assert!(closed != [true, true] || pipe.is_closed());
    }
});
