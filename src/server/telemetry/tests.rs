//! The counts as connections come, are recognised, are known better, and go.

use super::*;
use crate::protocol::dialect::Release;

fn releases(list: &[Release]) -> ReleaseSet {
    list.iter().copied().collect()
}

/// Dialects that count anything, with (taken now, taken total, perhaps now, perhaps total).
fn counted(telemetry: &Telemetry) -> Vec<(&'static str, [u64; 4])> {
    let (counts, _) = telemetry.counts();
    let numbers = |dialect| {
        let DialectUsage { taken, perhaps, .. } = *counts.of(dialect);
        [taken.now, taken.total, perhaps.now, perhaps.total]
    };
    let all = Dialect::ALL.into_iter().map(|dialect| (dialect.name(), numbers(dialect)));
    all.filter(|(_, numbers)| numbers.iter().any(|number| *number > 0)).collect()
}

fn by(telemetry: &Telemetry, dialect: Dialect, evidence: Evidence) -> (u64, u64) {
    let by = telemetry.counts().0.of(dialect).by[evidence as usize];
    (by.now, by.total)
}

#[test]
fn a_connection_counts_while_it_is_there_and_once() {
    let telemetry = Telemetry::new();
    let before = UnixSeconds::now();
    let connection = telemetry.connection(PeerId(7));
    let unrecognised = telemetry.counts().0.unrecognised;
    assert_eq!(unrecognised, ConnectionCount { now: 1, total: 1, gone: None });
    assert_eq!(telemetry.dialect(PeerId(7)), None);
    connection.recognised(releases(&[Release::V20_1_0]), Evidence::FirstFrame);
    assert_eq!(telemetry.counts().0.unrecognised, ConnectionCount::default());
    assert_eq!(counted(&telemetry), [("sigver-20", [1, 1, 0, 0])]);
    assert_eq!(telemetry.dialect(PeerId(7)), Some(Dialect::Sigver20));
    assert_eq!(by(&telemetry, Dialect::Sigver20, Evidence::FirstFrame), (1, 1));
    let taken = telemetry.counts().0.of(Dialect::Sigver20).taken;
    assert_eq!(taken.seen(UnixSeconds(5)), Some(UnixSeconds(5)));
    drop(connection);
    assert_eq!(counted(&telemetry), [("sigver-20", [0, 1, 0, 0])]);
    assert_eq!(by(&telemetry, Dialect::Sigver20, Evidence::FirstFrame), (0, 1));
    assert_eq!(telemetry.dialect(PeerId(7)), None);
    let seen = telemetry.counts().0.of(Dialect::Sigver20).taken.seen(UnixSeconds(5));
    assert!(seen.is_some_and(|seen| before <= seen && seen <= UnixSeconds::now()), "{seen:?}");
    assert!(telemetry.live().is_empty());
}

#[test]
fn a_correction_moves_it() {
    let telemetry = Telemetry::new();
    let connection = telemetry.connection(PeerId(1));
    let silent = [Release::V15_0_4, Release::V15_1_0, Release::V16_0_0, Release::V18_0_0];
    connection.recognised(releases(&silent), Evidence::Silence);
    let guessed = [
        ("sigver-15", [0, 0, 1, 1]),
        ("sigver-15.1", [0, 0, 1, 1]),
        ("sigver-16", [0, 0, 1, 1]),
        ("sigver-18", [1, 1, 0, 0]),
    ];
    assert_eq!(counted(&telemetry), guessed);
    connection.recognised(releases(&[Release::V19_1_2, Release::V20_1_0]), Evidence::Corrected);
    assert_eq!(counted(&telemetry), [("sigver-19", [0, 0, 1, 1]), ("sigver-20", [1, 1, 0, 0])]);
    // A wrong guess leaves nothing behind, no time either.
    assert_eq!(*telemetry.counts().0.of(Dialect::Sigver18), DialectUsage::default());
    connection.recognised(releases(&[Release::V19_1_2]), Evidence::LaterFrame);
    drop(connection);
    assert_eq!(counted(&telemetry), [("sigver-19", [0, 1, 0, 0])]);
    assert_eq!(by(&telemetry, Dialect::Sigver19, Evidence::LaterFrame), (0, 1));
    assert_eq!(by(&telemetry, Dialect::Sigver19, Evidence::FirstFrame), (0, 0));
}

#[test]
fn who_never_spoke_is_counted_apart() {
    let telemetry = Telemetry::new();
    drop(telemetry.connection(PeerId(1)));
    let unrecognised = telemetry.counts().0.unrecognised;
    assert_eq!((unrecognised.now, unrecognised.total, unrecognised.gone.is_some()), (0, 1, true));
    assert!(counted(&telemetry).is_empty());
    assert_eq!(telemetry.counts().0.all().total, 1);
}

#[test]
fn the_relay_is_counted() {
    let telemetry = Telemetry::new();
    let pair = (telemetry.relayed(), telemetry.relayed());
    drop(pair.0);
    let relay = telemetry.relay();
    assert_eq!((relay.now, relay.total, relay.gone.is_some()), (1, 2, true));
    drop(pair.1);
    assert_eq!(telemetry.relay().now, 0);
}

#[test]
fn the_shards_add_up_and_give_memory_back() {
    let telemetry = Telemetry::new();
    let mut all: Vec<ConnectionGuard> = (0..5_000).map(|id| telemetry.connection(PeerId(id))).collect();
    all.iter().for_each(|one| one.recognised(releases(&[Release::V7_1_0]), Evidence::Pinned));
    assert_eq!(counted(&telemetry), [("sigver-7", [5_000, 5_000, 0, 0])]);
    let live = telemetry.live();
    assert!(live.len() == 5_000 && live.iter().zip(0..).all(|(live, id)| live.peer == PeerId(id)));
    let capacity = || telemetry.shards.iter().map(|shard| shard.lock().live.capacity()).sum::<usize>();
    let most = capacity();
    // A table is at least 7/16 full when it has grown: so much an idle connection costs at most.
    assert!(most * (size_of::<(PeerId, Entry)>() + 1) < 5_000 * 60, "{most}");
    all.truncate(100);
    assert!(capacity() < most / 4, "{} of {most}", capacity());
    assert_eq!(counted(&telemetry), [("sigver-7", [100, 5_000, 0, 0])]);
    assert_eq!(size_of::<(PeerId, Entry)>(), 24);
}

fn report(telemetry: &Telemetry, rooms: RoomsReport) -> Report {
    let (counts, _) = telemetry.counts();
    Report {
        address: "0.0.0.0:8000".into(),
        started: UnixSeconds(0),
        time: UnixSeconds(90_000),
        served: releases(&[Release::V7_6_4, Release::V10_1_0, Release::V20_1_0]),
        relay_served: false,
        counts,
        relay: telemetry.relay(),
        panics: 0,
        rooms,
        connections: None,
    }
}

#[test]
fn the_text_is_a_table() {
    let telemetry = Telemetry::new();
    let connection = telemetry.connection(PeerId(3));
    connection.recognised(releases(&[Release::V7_6_4, Release::V10_1_0]), Evidence::FirstFrame);
    let mut rooms = RoomsReport { generations_ever: 7, ..RoomsReport::default() };
    rooms.see(0x12, [Dialect::Sigver9, Dialect::Sigver20, Dialect::Sigver9].into_iter());
    rooms.see(0x13, [Dialect::Sigver20].into_iter());
    rooms.see(0x14, [Dialect::Sigver20, Dialect::Sigver19].into_iter());
    rooms.sort();
    let mut report = report(&telemetry, rooms);
    let text = report.written(StatusQuery::default());
    let expected = format!(
        "\
sigver {} on 0.0.0.0:8000, counting since 1970-01-01T00:00:00Z (1 d 1 h ago)
connections: 1 now, 1 in total

dialect           releases              now  total  last seen  perhaps now  total  last seen  recognised by
sigver-7.6        7.6.4                 0    0      never      1            1      now
sigver-9          9.1.0, 10.1.0         1    1      now        0            0      never      first frame 1
sigver-20         20.0.0, 20.0.1, 20.0.2, 20.1.0, 21  0    0      never      0            0      never
(not recognised)                        0    0      never

rooms: 3 now; 2 with more than one dialect, 1 with more than one generation of clients (7 ever)
00000012  sigver-9 2, sigver-20 1 (2 generations)
00000014  sigver-19 1, sigver-20 1
",
        env!("CARGO_PKG_VERSION")
    );
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&text), words(&expected), "{text}");
    report.connections = Some(telemetry.live());
    let text = report.written(StatusQuery::default());
    assert!(text.contains("  sigver-9  first frame    7.6.4, 10.1.0\n"), "{text}");
}

#[test]
fn the_json_has_the_names_that_are_documented() {
    let telemetry = Telemetry::new();
    let connection = telemetry.connection(PeerId(3));
    connection.recognised(releases(&[Release::V7_6_4, Release::V10_1_0]), Evidence::FirstFrame);
    let mut report = report(&telemetry, RoomsReport { every: true, ..RoomsReport::default() });
    report.rooms.see(0xab, [Dialect::Sigver9].into_iter());
    report.connections = Some(telemetry.live());
    let json: serde_json::Value =
        serde_json::from_str(&report.written(StatusQuery { json: true, ..StatusQuery::default() })).unwrap();
    let document = include_str!("../../../docs/operating.md");
    fn names(value: &serde_json::Value, document: &str) {
        if let Some(fields) = value.as_object() {
            for (name, value) in fields {
                let dialect = name.starts_with("sigver-");
                assert!(dialect || document.contains(&format!("`{name}`")), "{name} is not documented");
                names(value, document);
            }
        }
        value.as_array().into_iter().flatten().for_each(|value| names(value, document));
    }
    names(&json, document);
    assert_eq!(json["rooms"]["list"][0]["room"], "000000ab");
    assert_eq!(json["dialects"][5]["perhaps"]["now"], 1);
    assert_eq!(json["connection_list"][0]["releases"], serde_json::json!(["7.6.4", "10.1.0"]));
}

#[test]
fn what_is_asked_for_is_a_line() {
    for line in ["status", "status json", "status connections rooms", "status json connections rooms"] {
        assert_eq!(StatusQuery::parse(line).unwrap().line(), line);
    }
    for line in ["", "json", "status everything", "GET / HTTP/1.1"] {
        assert_eq!(StatusQuery::parse(line), None, "{line}");
    }
}
