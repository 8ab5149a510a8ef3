//! How often memory is allocated for one relayed message, exactly, dialect by dialect. Counted in steady state, when lists
//! have grown and buffers are there.
//!
//! What a message needs is memory for its bytes as they come: here, a copy of the frame; in the gateway, what the
//! WebSocket's decoder makes. The frame that goes out is put together in the socket's buffer, which is a thread's.

#![allow(clippy::unwrap_used, reason = "a test")]

use allocation_counter::measure;
use hotpath::scenario::{Part, Scenario};
use sigver::protocol::dialect::{Dialect, Family};

/// How often each is done.
const TIMES: u64 = 64;

/// The bytes as they come: the payload is a part of them, and is never copied.
const BYTES: u64 = 1;

/// Allocations for a joiner's and a member's message in the JSON dialects, in a test build: the frame as received, the
/// memory that lets its data share it, and the frame that is sent. The message to an opener also needs the text of an id
/// (sigver 7 to 14) or of an index (an opener of sigver 4 that may be one of 5). An opener of sigver 6 that may be one of 7
/// is sent the offer twice.
const JSON: [(Dialect, u64, Option<u64>); 10] = [
    (Dialect::Sigver1, 2, Some(2)),
    (Dialect::Sigver4, 4, Some(2)),
    (Dialect::Sigver5, 4, Some(2)),
    (Dialect::Sigver6, 4, None),
    (Dialect::Sigver7, 4, Some(3)),
    (Dialect::Sigver7_6, 4, Some(3)),
    (Dialect::Sigver8, 4, Some(3)),
    (Dialect::Sigver9, 4, Some(3)),
    (Dialect::Sigver11, 4, Some(3)),
    (Dialect::Sigver13, 4, Some(3)),
];

/// For each message, rounded up.
fn allocations(dialect: Dialect, part: Part) -> u64 {
    let mut run = Scenario::same(dialect, part).prepare().unwrap();
    run(TIMES).unwrap();
    measure(|| run(TIMES).unwrap()).count_total.div_ceil(TIMES)
}

#[test]
fn bytes_are_relayed_in_the_memory_they_come_in() {
    for dialect in Dialect::ALL.into_iter().filter(|dialect| dialect.family() != Family::Json) {
        // Of sigver 15 and 15.1 each payload is looked into, which is to share it: the count of who does is made.
        let shared = u64::from(matches!(dialect, Dialect::Sigver15 | Dialect::Sigver15_1));
        for part in [Part::Up, Part::Down, Part::Socket] {
            assert_eq!(allocations(dialect, part), BYTES + shared, "{dialect} {}", part.name());
        }
        assert_eq!(allocations(dialect, Part::Encode), 0, "{dialect}");
    }
}

#[test]
fn json_as_clients_write_it_takes_no_tree() {
    let counted = JSON.map(|(dialect, _, down)| {
        (dialect, allocations(dialect, Part::Up), down.map(|_| allocations(dialect, Part::Down)))
    });
    assert_eq!(counted, JSON);
    for (dialect, up, _) in JSON {
        assert_eq!(allocations(dialect, Part::Socket), up, "{dialect}: the socket and the task add nothing");
    }
}

#[test]
fn a_room_has_its_members_messages_without_allocating() {
    for dialect in Dialect::ALL {
        assert_eq!(allocations(dialect, Part::Route), 0, "{dialect}");
    }
}
