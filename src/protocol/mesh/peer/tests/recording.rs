//! Recordings of the data channels of three real clients of one version.

use std::collections::VecDeque;

use serde_json::Value;

use crate::protocol::mesh::group::MeshGroup;

/// An event of one data channel, which has a number on its page.
#[derive(Clone, Debug)]
pub(super) struct RecordedChannelEvent {
    pub(super) channel: u64,
    pub(super) what: Recorded,
}

#[derive(Clone, Debug)]
pub(super) enum Recorded {
    New { label: String, is_own: bool },
    Open,
    Sent(RecordedData),
    Received(RecordedData),
    Closed,
}

#[derive(Clone, Debug)]
pub(super) struct RecordedData {
    pub(super) is_text: bool,
    pub(super) bytes: Vec<u8>,
    /// Bytes in the recording; it cuts long frames, and the rest is filled in.
    pub(super) recorded: usize,
}

/// One page of a recording.
#[derive(Debug)]
pub(super) struct RecordedClient {
    pub(super) events: VecDeque<RecordedChannelEvent>,
}

macro_rules! recordings {
    ($($version:literal => $group:ident),*) => {
        pub(super) const RECORDINGS: &[(&str, MeshGroup, &str)] = &[$((
            $version,
            MeshGroup::$group,
            include_str!(concat!("../../../../../compat-tests/golden-mesh/", $version, ".txt")),
        )),*];
    };
}
recordings!(
    "0.10.3" => Netflux0,
    "0.10.8" => Netflux1,
    "1.0.0-rc.3" => Netflux1,
    "1.0.0-rc.14" => Netflux1,
    "1.1.0-beta.8" => Netflux2,
    "3.0.0" => Netflux3,
    "4.3.1" => Netflux4
);

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

fn varint(bytes: &[u8], at: &mut usize) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = bytes[*at];
        *at += 1;
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            break;
        }
    }
    value
}

/// Fills in what the recording cut: `L`s, which is what the long user message consists of, and closing
/// braces behind a session description in JSON.
fn complete(group: MeshGroup, bytes: &mut Vec<u8>) {
    if group.is_protobuf() {
        let mut at = 0;
        while at < bytes.len() {
            if varint(bytes, &mut at) & 7 == 2 {
                let length = varint(bytes, &mut at) as usize;
                at += length;
            } else {
                varint(bytes, &mut at);
            }
        }
        bytes.resize(at, b'L');
    } else if bytes[0] == 1 {
        let total = u32::from_be_bytes(bytes[9..13].try_into().unwrap()) as usize;
        let number = u16::from_be_bytes(bytes[17..19].try_into().unwrap()) as usize;
        bytes.resize(19 + (total - number * 16_365).min(16_365), b'L');
    } else {
        let escape = bytes[bytes.len() - 6..].iter().rposition(|byte| *byte == b'\\');
        if let Some(at) = escape {
            bytes.truncate(bytes.len() - 6 + at);
        }
        bytes.extend_from_slice(b"\"}}}");
    }
}

fn data(group: MeshGroup, line: &str) -> RecordedData {
    if let Ok(event) = serde_json::from_str::<Value>(line) {
        let (is_text, bytes) = match event["hex"].as_str() {
            Some(hex) => (false, unhex(hex)),
            None => (true, event["text"].as_str().unwrap().as_bytes().to_vec()),
        };
        return RecordedData { is_text, recorded: bytes.len(), bytes };
    }
    let mut bytes = unhex(line.split_once("\"hex\":\"").unwrap().1);
    let mut recorded = bytes.len();
    complete(group, &mut bytes);
    if !group.is_protobuf() && bytes[0] != 1 {
        recorded = bytes.len() - 4;
    }
    RecordedData { is_text: false, bytes, recorded }
}

fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let rest = line.split_once(&format!("\"{name}\":")).unwrap().1;
    &rest[..rest.find([',', '}']).unwrap()]
}

/// Splits a recording by client, in the order in which they joined.
pub(super) fn clients(group: MeshGroup, recording: &str) -> Vec<RecordedClient> {
    let mut clients: Vec<RecordedClient> = Vec::new();
    for line in recording.lines() {
        if line.starts_with("####") {
            clients.push(RecordedClient { events: VecDeque::new() });
        }
        let Some(client) = clients.last_mut().filter(|_| line.starts_with("{\"t\"")) else { continue };
        let what = match field(line, "e") {
            "\"dc-new\"" => {
                let event: Value = serde_json::from_str(line).unwrap();
                let label = event["label"].as_str().unwrap().to_owned();
                Recorded::New { label, is_own: event["who"] == "create" }
            }
            "\"dc-open\"" => Recorded::Open,
            "\"dc-close\"" => Recorded::Closed,
            "\"dc-send\"" => Recorded::Sent(data(group, line)),
            "\"dc-recv\"" => Recorded::Received(data(group, line)),
            other => panic!("{other}"),
        };
        client.events.push_back(RecordedChannelEvent { channel: field(line, "dc").parse().unwrap(), what });
    }
    clients
}
