//! Writes first inputs of the targets from the recordings of the Node.js servers, and of data channels:
//! `seeds CORPUS RECORDING…`.

use std::collections::BTreeMap;
use std::path::Path;

use sigver::fuzzing::transcript::{self, FrameKind, RecordedEvent, Scenario};
use sigver::protocol::dialect::Release;
use sigver_fuzz::input::put_bytes;
use sigver_fuzz::mesh_seeds;

fn write(corpus: &Path, target: &str, name: &str, bytes: &[u8]) {
    let folder = corpus.join(target);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), bytes).unwrap();
}

fn release_of(version: &str) -> Option<u8> {
    let release: Release = version.parse().ok().or_else(|| format!("sigver-{version}").parse().ok())?;
    Release::ALL.iter().position(|other| *other == release).map(|at| at as u8)
}

/// Returns a scenario as an input of `conversation`.
fn conversation(scenario: &Scenario, release: u8) -> Vec<u8> {
    let mut out = vec![release, 63, 63];
    let mut peers: BTreeMap<String, u8> = BTreeMap::new();
    let mut time = 0;
    for record in &scenario.records {
        let next = peers.len() as u8;
        let Some(peer) = record.peer.clone() else { continue };
        let slot = *peers.entry(peer).or_insert(next) % 3 * 16;
        let step = |kind: u8| slot + (kind + 6 - slot % 6) % 6;
        let passed = record.t.saturating_sub(time).min(60_000);
        time = record.t;
        if passed > 50 {
            out.push(step(4));
            out.extend((passed as u16).to_le_bytes());
        }
        match &record.event {
            RecordedEvent::Connect(request) => {
                out.push(step(0));
                put_bytes(&mut out, transcript::full_path(&request.path).as_bytes());
                out.push(0);
            }
            RecordedEvent::Send(frame) => {
                out.push(step(if frame.op == FrameKind::Text { 1 } else { 2 }));
                put_bytes(&mut out, &frame.bytes);
            }
            RecordedEvent::SendClose { .. } | RecordedEvent::TcpDestroy => out.extend([step(5), 1, 1]),
            _ => {}
        }
    }
    out
}

/// Returns a client's frame as it is on the wire.
fn wire(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    if payload.len() < 126 {
        out.push(0x80 | payload.len() as u8);
    } else {
        out.push(0x80 | 126);
        out.extend((payload.len() as u16).to_be_bytes());
    }
    out.extend([0; 4]);
    out.extend(payload);
    out
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let corpus = arguments.next().expect("the folder of the corpus");
    let corpus = Path::new(&corpus);
    for recording in arguments {
        let text = std::fs::read_to_string(&recording).unwrap();
        if let Some(version) =
            Path::new(&recording).file_name().unwrap().to_string_lossy().strip_suffix(".txt")
        {
            for (target, name, bytes) in mesh_seeds::of_recording(version, &text) {
                write(corpus, target, &name, &bytes);
            }
            continue;
        }
        let scenarios = transcript::parse(&text).unwrap();
        let stem = Path::new(&recording).file_stem().unwrap().to_string_lossy().into_owned();
        for (number, scenario) in scenarios.iter().enumerate() {
            let name = format!("{stem}-{number}");
            let lines = transcript::print(std::slice::from_ref(scenario)).unwrap();
            if lines.len() < 8000 {
                write(corpus, "transcript", &name, lines.as_bytes());
            }
            let Some(release) = release_of(&scenario.version) else { continue };
            let input = conversation(scenario, release);
            if input.len() < 4000 {
                write(corpus, "conversation", &name, &input);
                let mut detected = input.clone();
                detected[0] = 63;
                write(corpus, "conversation", &format!("{name}-auto"), &detected);
            }
            let sent = scenario.records.iter().filter_map(|record| match &record.event {
                RecordedEvent::Send(frame) if frame.bytes.len() < 1000 => Some(frame),
                _ => None,
            });
            let mut frames = vec![7];
            for (at, frame) in sent.enumerate() {
                let binary = if frame.op == FrameKind::Text { 0 } else { 2 };
                let to = (usize::from(release) + at * 7 + number) % Release::ALL.len();
                let input = [&[release, to as u8, 0, binary][..], &frame.bytes].concat();
                write(corpus, "payload", &format!("{name}-{at}"), &input);
                frames.extend(wire(if binary == 0 { 0x81 } else { 0x82 }, &frame.bytes));
            }
            write(corpus, "frames", &name, &frames);
        }
    }
    let request = "GET /room?favored HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (number, more) in [
        "",
        "Origin: null\r\n",
        "Sec-WebSocket-Protocol: a, b\r\n",
        "Content-Length: 0\r\n",
        "Cookie: a=b\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        write(
            corpus,
            "http_head",
            &format!("upgrade-{number}"),
            format!("{request}{more}\r\nrest").as_bytes(),
        );
    }
    write(corpus, "http_head", "handles", b"/listen/abc /connect/a_b_c1 /listen/__ /listen/ab /connect/abc_");
    for (target, name, bytes) in mesh_seeds::of_the_processes() {
        write(corpus, target, &name, &bytes);
    }
    write(corpus, "pipe", "pipe", b"\x08\xff\x00\xff\x00\x01\x02\x00hi\x00\x81\x02\x00yo\x04\x10\x00\x0d");
    for (number, query) in
        ["?id=1&key=a&join=b", "a%20b=%7B%22open%22%3A1%7D&x", "12\n{\"data\":1}"].iter().enumerate()
    {
        let input = [&b"\x01\xe8\x03"[..], query.as_bytes()].concat();
        write(corpus, "sse_request", &format!("request-{number}"), &input);
    }
    let commands: Vec<u8> =
        (0..=255).flat_map(|byte: u8| [byte, byte.wrapping_mul(37), byte.wrapping_mul(11)]).collect();
    write(corpus, "room", "commands", &commands);
}
