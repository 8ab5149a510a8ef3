//! First inputs of the targets of the bridge, from the recordings in `golden-mesh`.

use bytes::BytesMut;
use serde_json::Value;
use sigver::fuzzing::protobuf::{WireValue, fields};
use sigver::protocol::mesh::{BridgeCall, BridgeFigures, BridgeMessage, MeshGroup};

use crate::input::put_bytes;

/// Target, name and bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// Length above which a frame is a seed of its own.
const SHORT: usize = 160;
/// Longest seed, in bytes: inputs are cut there.
const MAX_SEED: usize = 1400;

fn group_of(version: &str) -> Option<u8> {
    let group = match version {
        "0.10.3" => MeshGroup::Netflux0,
        "1.1.0-beta.8" => MeshGroup::Netflux2,
        "3.0.0" => MeshGroup::Netflux3,
        "4.3.1" => MeshGroup::Netflux4,
        _ => MeshGroup::Netflux1,
    };
    MeshGroup::ALL.iter().position(|other| *other == group).map(|at| at as u8)
}

/// Returns a frame that a client received, and if it is text. Those that the recording cut are left out.
fn received(event: &Value) -> Option<(bool, Vec<u8>)> {
    if event["e"] != "dc-recv" {
        return None;
    }
    let Some(hex) = event["hex"].as_str() else { return Some((true, event["text"].as_str()?.into())) };
    let bytes = (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).ok());
    Some((false, bytes.collect::<Option<_>>()?))
}

/// Returns the part of a frame that is a chunk of a user message, if it may be one.
fn chunk(group: u8, frame: &[u8]) -> Option<Vec<u8>> {
    if group < 2 {
        return (frame.first() == Some(&1)).then(|| frame[9..].to_vec());
    }
    let content = fields(frame)?.into_iter().find(|field| field.number == 4)?;
    match content.value {
        WireValue::Bytes(bytes) => Some(bytes.to_vec()),
        WireValue::Varint(_) | WireValue::Fixed => None,
    }
}

/// Returns the inputs that a recording of one version gives.
pub fn of_recording(version: &str, recording: &str) -> Vec<Seed> {
    let Some(group) = group_of(version) else { return Vec::new() };
    let mut seeds: Vec<Seed> = Vec::new();
    let mut input = Vec::new();
    for line in recording.lines().chain(["####"]) {
        let number = seeds.len();
        if line.starts_with("####") {
            if input.len() > 4 {
                seeds.push(("mesh_peer", format!("{version}-{number}"), input));
            }
            // The first client lets others in, if its group can; then a channel is opened.
            input = vec![group, u8::from(number == 0 && group < 2), 6];
            continue;
        }
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        let on = (event["dc"].as_u64().unwrap_or(1).saturating_sub(1).min(7) as u8) << 5;
        if event["e"] == "dc-open" {
            input.push(on | 6);
        }
        let Some((is_text, frame)) = received(&event) else { continue };
        if let Some(chunk) = chunk(group, &frame) {
            let to = (number % MeshGroup::ALL.len()) as u8;
            let mut pieces = vec![group, to, 0, 0, 0];
            put_bytes(&mut pieces, &chunk);
            pieces.extend([1, 0x20, 0x4e, 0x10, 0x27]);
            if pieces.len() < MAX_SEED {
                seeds.push(("mesh_message", format!("{version}-{number}"), pieces));
            }
        }
        let mut step = vec![on | if is_text { 4 } else { 0 }];
        put_bytes(&mut step, &frame);
        if input.len() + step.len() > MAX_SEED {
            continue;
        }
        if frame.len() <= SHORT {
            input.extend(step);
        } else {
            let own = [&input[..], &step].concat();
            seeds.push(("mesh_peer", format!("{version}-long-{number}"), own));
        }
    }
    seeds
}

/// Returns inputs of the readers of the two processes.
pub fn of_the_processes() -> Vec<Seed> {
    let call = BridgeCall { is_from_client: true, number: 7 };
    let (room, group, target) = (9, MeshGroup::Netflux3, 300);
    let offer = || "v=0\r\n".to_owned();
    let messages = [
        BridgeMessage::Hello { version: 1, instance: 7_000 },
        BridgeMessage::Arrived { room, group, target },
        BridgeMessage::Departed { room, group, target },
        BridgeMessage::Caller { call, room, group, offer: offer() },
        BridgeMessage::Call { call, room, group, target, offer: offer() },
        BridgeMessage::Answer { call, answer: offer() },
        BridgeMessage::Entry { room, group, is_open: true },
        BridgeMessage::End { call },
        BridgeMessage::Figures(BridgeFigures::default()),
    ];
    let mut written = BytesMut::new();
    for message in messages {
        message.write(&mut written);
    }
    let request =
        b"\x00\x01\x00\x18\x21\x12\xa4\x42abcdefghijkl\x80\x22\x00\x03abc\x00\x00\x06\x00\x0bours:theirs\x00";
    let seed = |name: &str, bytes: &[u8]| ("bridge_message", name.to_owned(), [&[4], bytes].concat());
    vec![seed("messages", &written), seed("binding-request", request)]
}
