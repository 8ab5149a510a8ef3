//! Every decoder, and every encoder behind every other: one message of a client of any release, and a payload
//! in any form, for a client of any other.

#![no_main]

use std::time::Instant;

use bytestring::ByteString;
use libfuzzer_sys::fuzz_target;
use sigver::protocol::dialect::{Candidates, Output, Release, Session, SessionOptions, UpgradeRequest};
use sigver::protocol::frame::{Message, Outgoing};
use sigver::protocol::model::{Command, Event, LinkId, LinkMessage, Payload, Reason, Side};
use sigver_fuzz::input::Input;

fn session(release: Release, now: Instant) -> Session {
    let upgrade = UpgradeRequest { path: "/key".to_owned(), favored: false, from_page: false };
    let candidates = Candidates::new([release].into_iter().collect());
    Session::new(&upgrade, candidates, SessionOptions { transcode: true, pinned: true }, now)
}

/// Returns a payload, in a form that a codec produces.
fn payload(bytes: &[u8], form: usize) -> Option<Payload> {
    let text = || ByteString::try_from(bytes.to_vec()).ok();
    Some(match form {
        0 => Payload::Bytes(bytes.to_vec().into()),
        1 => {
            let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
            Payload::Json(value.to_string().into())
        }
        _ => {
            serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(bytes).ok()?;
            Payload::ObjectFrame { text: text()?, binary: form == 2 }
        }
    })
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let now = Instant::now();
    let pick = |input: &mut Input| Release::ALL[input.below(Release::ALL.len())];
    let (from, to) = (pick(&mut input), pick(&mut input));
    let (form, flags) = (input.below(4), input.byte());
    let rest = input.rest();
    let side = if flags & 1 == 0 { Side::Joiner } else { Side::Member };
    let link = LinkId(7);
    let mut messages = Vec::new();
    // What a client sends is decoded, and encoded for another.
    let mut sender = session(from, now);
    let mut outputs = Vec::new();
    sender.encode(Event::Admitted { first: true }, now, &mut outputs);
    sender.encode(Event::LinkedToJoiner { link }, now, &mut outputs);
    outputs.clear();
    if flags & 2 == 0
        && let Ok(text) = ByteString::try_from(rest.to_vec())
    {
        sender.decode(Message::Text(text), &mut outputs);
    } else {
        sender.decode(Message::binary(rest.to_vec()), &mut outputs);
    }
    for output in outputs {
        match output {
            Output::Ask(Command::Relay { message, .. })
            | Output::Enter(_, Command::Relay { message, .. }) => {
                messages.push(message);
            }
            Output::Send(outgoing) => drop(outgoing.into_message()),
            _ => {}
        }
    }
    if let Some(payload) = payload(rest, form) {
        messages.push(LinkMessage::Data { payload, last: flags & 4 != 0 });
    }
    let mut receiver = session(to, now);
    let mut outputs = Vec::new();
    receiver.encode(Event::LinkedToMember { link }, now, &mut outputs);
    receiver.encode(Event::LinkedToJoiner { link }, now, &mut outputs);
    for message in messages {
        let limit = 64 * (message.len() + 1024);
        outputs.clear();
        let sender = from.dialect().tag();
        receiver.encode(Event::Relayed { link, side, message, sender }, now, &mut outputs);
        for output in &outputs {
            if let Output::Send(Outgoing::Message(message)) = output {
                assert!(message.len() <= limit, "{} bytes", message.len());
                if let Message::Text(text) = message {
                    serde_json::from_str::<serde_json::Value>(text).expect("an encoder writes JSON");
                }
            }
        }
    }
    receiver.encode(Event::LinkEnded { link, side, normal_closure: flags & 8 != 0 }, now, &mut outputs);
    assert!(receiver.close(&Reason::UnknownMessage).reason.len() <= 123);
});
