//! The JSON objects of netflux 0.10 to 1.0: `{"offer":{…}}`, `{"answer":{…}}`, `{"candidate":{…}}`.

use std::fmt::Write as _;

use bytestring::ByteString;

use super::{Candidate, WebRtcSignal, is_sdp};
use crate::protocol::dialect::json::string_content;
use crate::protocol::dialect::json_text::{JsonObject, write_string};
use crate::protocol::model::Payload;

/// Decodes a payload that is one of the three objects. An object frame may have the index of a joiner as
/// well.
pub(super) fn read(payload: &Payload) -> Option<WebRtcSignal> {
    let text = match payload {
        Payload::Json(text) | Payload::ObjectFrame { text, .. } => text,
        Payload::Bytes(_) => return None,
    };
    // Each of the three is an object in an object: most other payloads need not be parsed.
    if !text.as_bytes().get(1..).is_some_and(|inner| inner.contains(&b'{')) {
        return None;
    }
    for name in NAMES {
        if let Some(object) = sole_object(text, name) {
            return signal(name, &object);
        }
    }
    let object = JsonObject::parse(text.clone())?;
    NAMES.into_iter().find_map(|name| signal(name, &JsonObject::parse(object.share(name)?)?))
}

const NAMES: [&str; 3] = ["offer", "answer", "candidate"];

/// Returns the object of this name, if the text is as clients write it: without other members, except for an
/// index in front of it. The text around the object need not be parsed.
fn sole_object(text: &ByteString, name: &str) -> Option<JsonObject> {
    let mut rest = text.strip_prefix('{')?;
    if let Some(index) = rest.strip_prefix("\"index\":\"") {
        rest = index.trim_start_matches(|digit: char| digit.is_ascii_digit()).strip_prefix("\",")?;
    }
    let object = rest.strip_prefix('"')?.strip_prefix(name)?.strip_prefix("\":")?.strip_suffix('}')?;
    JsonObject::recognize(text.slice_ref(object))
}

fn signal(name: &str, object: &JsonObject) -> Option<WebRtcSignal> {
    let string = |name| object.get(name).and_then(string_content).map(String::from);
    let sdp = || string("sdp").filter(|sdp| is_sdp(sdp));
    match name {
        "offer" => return sdp().map(WebRtcSignal::Offer),
        "answer" => return sdp().map(WebRtcSignal::Answer),
        _ => {}
    }
    let candidate = string("candidate")?;
    if candidate.is_empty() {
        return Some(WebRtcSignal::End);
    }
    let mid = string("sdpMid").unwrap_or_default();
    let line = object.get("sdpMLineIndex").and_then(|line| line.parse::<u64>().ok()).unwrap_or_default();
    Some(WebRtcSignal::Candidate(Candidate { candidate, mid, line: u32::try_from(line).ok()? }))
}

/// Room for member names, and for escapes of a session description, in bytes.
const SPARE: usize = 512;

/// Encodes a signal; there is no payload for the end of candidates. The text is written without a tree, which
/// would cost much more.
pub(super) fn write(signal: &WebRtcSignal) -> Option<Payload> {
    let described = |name: &str, sdp: &str| {
        let mut text = String::with_capacity(sdp.len().saturating_add(SPARE));
        for part in ["{\"", name, "\":{\"type\":\"", name, "\",\"sdp\":"] {
            text.push_str(part);
        }
        write_string(&mut text, sdp);
        text.push_str("}}");
        text
    };
    let text = match signal {
        WebRtcSignal::Offer(sdp) => described("offer", sdp),
        WebRtcSignal::Answer(sdp) => described("answer", sdp),
        WebRtcSignal::Candidate(Candidate { candidate, mid, line }) => {
            let mut text =
                String::with_capacity(candidate.len().saturating_add(mid.len()).saturating_add(SPARE));
            text.push_str("{\"candidate\":{\"candidate\":");
            write_string(&mut text, candidate);
            text.push_str(",\"sdpMid\":");
            write_string(&mut text, mid);
            // Writing to a string does not fail.
            let _ = write!(text, ",\"sdpMLineIndex\":{line}}}}}");
            text
        }
        WebRtcSignal::End => return None,
    };
    Some(Payload::Json(text.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::protocol::dialect::json::test_json;

    /// Objects of one of the three kinds as clients write them, and similar ones.
    fn signal_like() -> impl Strategy<Value = String> {
        let name = || {
            let names = ["offer", "answer", "candidate", "sdp", "sdpMid", "sdpMLineIndex", "type"];
            prop::sample::select(names.to_vec()).prop_map(|name| format!("\"{name}\""))
        };
        let value = prop::sample::select(
            &[
                "0",
                "7",
                "-7",
                "1.5",
                "4294967295",
                "4294967296",
                "null",
                "true",
                "[]",
                "\"\"",
                "\"0\"",
                "\"v=0\"",
                "\"v=0\\r\\na=\\u00e9\"",
                "\"v=0\\r\\n\\\"é\\\"\"",
                "\"\\u0076=0\"",
                "\"candidate:1 1 udp\"",
                "\"\\t\"",
            ][..],
        );
        let object = |value: BoxedStrategy<String>| {
            prop::collection::vec((name(), value), 0..4).prop_map(|attributes| {
                let attributes: Vec<_> =
                    attributes.into_iter().map(|(name, value)| format!("{name}:{value}")).collect();
                format!("{{{}}}", attributes.join(","))
            })
        };
        let value = value.prop_map(str::to_owned).boxed();
        let inner = prop_oneof![1 => value.clone(), 4 => object(value)].boxed();
        let only = (
            prop::sample::select(&["", "\"index\":\"0\",", "\"index\":\"\\\"\",", "\"index\":\"0\" ,"][..]),
            name(),
            inner.clone(),
        )
            .prop_map(|(index, name, object)| format!("{{{index}{name}:{object}}}"));
        prop_oneof![2 => only, 2 => object(inner), 1 => test_json::any_json_text()]
    }

    /// Decodes an object by way of a tree.
    fn of_tree(object: &Map<String, Value>) -> Option<WebRtcSignal> {
        let sdp = |name: &str| {
            let sdp = object.get(name)?.get("sdp")?.as_str()?;
            is_sdp(sdp).then(|| sdp.to_owned())
        };
        if let Some(sdp) = sdp("offer") {
            return Some(WebRtcSignal::Offer(sdp));
        }
        if let Some(sdp) = sdp("answer") {
            return Some(WebRtcSignal::Answer(sdp));
        }
        let candidate_init = object.get("candidate")?;
        let candidate = candidate_init.get("candidate")?.as_str()?;
        if candidate.is_empty() {
            return Some(WebRtcSignal::End);
        }
        let mid = candidate_init.get("sdpMid").and_then(Value::as_str).unwrap_or_default();
        let line = candidate_init.get("sdpMLineIndex").and_then(Value::as_u64).unwrap_or_default();
        Some(WebRtcSignal::Candidate(Candidate {
            candidate: candidate.to_owned(),
            mid: mid.to_owned(),
            line: u32::try_from(line).ok()?,
        }))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// The members are those that a tree has.
        #[test]
        fn signals_are_decoded_as_from_a_tree(text in signal_like()) {
            let tree = serde_json::from_str(&text).ok().and_then(|object| of_tree(&object));
            let binary = false;
            prop_assert_eq!(read(&Payload::ObjectFrame { text: text.as_str().into(), binary }), tree.clone());
            prop_assert_eq!(read(&Payload::Json(text.into())), tree);
        }

        #[test]
        fn encoded_text_is_that_of_tree(candidate: String, mid: String, line: u32) {
            let tree = json!({ "candidate": { "candidate": candidate, "sdpMid": mid, "sdpMLineIndex": line } });
            let sdp = json!({ "offer": { "type": "offer", "sdp": candidate } });
            let answer = json!({ "answer": { "type": "answer", "sdp": candidate } });
            for (message, tree) in [
                (WebRtcSignal::Offer(candidate.clone()), sdp),
                (WebRtcSignal::Answer(candidate.clone()), answer),
                (WebRtcSignal::Candidate(Candidate { candidate, mid, line }), tree),
            ] {
                prop_assert_eq!(write(&message), Some(Payload::Json(tree.to_string().into())));
            }
        }
    }
}
