//! The JSON objects of netflux 0.10 to 1.0: `{"offer":{…}}`, `{"answer":{…}}`, `{"candidate":{…}}`.

use serde_json::{Map, Value, json};

use super::{Candidate, Told, is_sdp};
use crate::model::Payload;

/// What the payload tells, if it is one of the three objects.
pub(super) fn read(payload: &Payload) -> Option<Told> {
    let object = match payload {
        Payload::Json(text) => serde_json::from_str::<Map<String, Value>>(text).ok()?,
        Payload::Attributes { .. } => payload.clone().into_attributes(),
        Payload::Bytes(_) => return None,
    };
    let sdp = |name: &str| {
        let sdp = object.get(name)?.get("sdp")?.as_str()?;
        is_sdp(sdp).then(|| sdp.to_owned())
    };
    if let Some(sdp) = sdp("offer") {
        return Some(Told::Offer(sdp));
    }
    if let Some(sdp) = sdp("answer") {
        return Some(Told::Answer(sdp));
    }
    let told = object.get("candidate")?;
    let candidate = told.get("candidate")?.as_str()?;
    if candidate.is_empty() {
        return Some(Told::End);
    }
    let mid = told.get("sdpMid").and_then(Value::as_str).unwrap_or_default();
    let line = told.get("sdpMLineIndex").and_then(Value::as_u64).unwrap_or_default();
    Some(Told::Candidate(Candidate {
        candidate: candidate.to_owned(),
        mid: mid.to_owned(),
        line: u32::try_from(line).ok()?,
    }))
}

/// The object that tells it; nothing tells that there are no more candidates.
pub(super) fn write(told: &Told) -> Option<Payload> {
    let value = match told {
        Told::Offer(sdp) => json!({ "offer": { "type": "offer", "sdp": sdp } }),
        Told::Answer(sdp) => json!({ "answer": { "type": "answer", "sdp": sdp } }),
        Told::Candidate(Candidate { candidate, mid, line }) => {
            json!({ "candidate": { "candidate": candidate, "sdpMid": mid, "sdpMLineIndex": line } })
        }
        Told::End => return None,
    };
    Some(Payload::Json(value.to_string().into()))
}
