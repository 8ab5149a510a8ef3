//! Frames of a WebSocket client, whole and in pieces, with the WebSocket of tungstenite as the oracle.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sigver_fuzz::input::Input;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let cuts = input.byte();
    sigver::fuzzing::check_frames(input.rest(), 1 + usize::from(cuts));
});
