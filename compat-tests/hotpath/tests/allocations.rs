//! Heap allocations of one relayed message, exactly, dialect by dialect. Counted in steady state, when
//! tables have grown and buffers exist.
//!
//! A message needs memory for its bytes on arrival: here a copy of the frame, in the gateway the memory
//! that the WebSocket decoder allocates. The sent frame is assembled in the thread's write buffer.

#![allow(clippy::unwrap_used, reason = "a test")]

use allocation_counter::measure;
use hotpath::scenario::{Part, Scenario};
use sigver::protocol::dialect::{Dialect, Family};

/// Repetitions of each scenario.
const TIMES: u64 = 64;

/// Allocations for the bytes on arrival; the payload shares them.
const BYTES: u64 = 1;

/// Allocations for a joiner's and a member's message in the JSON dialects, in a test build: the frame as
/// received, the memory that lets its data share it, and the frame that is sent. The message to an opener
/// also needs the text of an id (sigver 7 to 14) or of an index (an opener of sigver 4 that may be one of 5).
/// An opener of sigver 6 that may be one of 7 is sent the offer twice.
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

/// Returns allocations per message, rounded up.
fn allocations(dialect: Dialect, part: Part) -> u64 {
    let mut run = Scenario::same(dialect, part).prepare().unwrap();
    run(TIMES).unwrap();
    measure(|| run(TIMES).unwrap()).count_total.div_ceil(TIMES)
}

#[test]
fn payload_bytes_are_not_copied() {
    for dialect in Dialect::ALL.into_iter().filter(|dialect| dialect.family() != Family::Json) {
        // Payloads of sigver 15 and 15.1 are inspected for transcoding, which shares them.
        let shared = u64::from(matches!(dialect, Dialect::Sigver15 | Dialect::Sigver15_1));
        for part in [Part::Up, Part::Down, Part::Socket] {
            assert_eq!(allocations(dialect, part), BYTES + shared, "{dialect} {}", part.name());
        }
        assert_eq!(allocations(dialect, Part::Encode), 0, "{dialect}");
    }
}

#[test]
fn canonical_json_is_relayed_without_a_tree() {
    let counted = JSON.map(|(dialect, _, down)| {
        (dialect, allocations(dialect, Part::Up), down.map(|_| allocations(dialect, Part::Down)))
    });
    assert_eq!(counted, JSON);
    for (dialect, up, _) in JSON {
        assert_eq!(allocations(dialect, Part::Socket), up, "{dialect}: the socket and the task add nothing");
    }
}

#[test]
fn routing_does_not_allocate() {
    for dialect in Dialect::ALL {
        assert_eq!(allocations(dialect, Part::Route), 0, "{dialect}");
    }
}
