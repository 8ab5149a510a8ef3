//! Requests of event streams: query strings and bodies; and what is written for any message.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sigver::protocol::dialect::sse::{self, EventWriter, SseVariant};
use sigver::protocol::frame::{Close, Message};
use sigver_fuzz::input::Input;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let (kind, code) = (input.byte(), input.u16());
    let rest = input.rest();
    let _ = sse::parse_post(&rest.to_vec().into());
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let _ = sse::parse_query(text);
    let variants = [SseVariant::V8_1, SseVariant::V9];
    let mut writer = EventWriter::new(variants[usize::from(kind) % variants.len()], code.into());
    let _ = writer.preamble();
    for outgoing in [Message::text(text).into(), Close::new(code, text.to_owned()).into()] {
        let _ = writer.encode(outgoing);
    }
});
