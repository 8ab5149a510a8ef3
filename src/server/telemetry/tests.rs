//! Tests of the counts through the life of a connection, and of the renderers.

use super::counts::DialectUsage;
use super::*;
use crate::protocol::dialect::Release;
use crate::server::refusals::RefusalCause;

fn releases(list: &[Release]) -> ReleaseSet {
    list.iter().copied().collect()
}

/// Returns [assigned active, assigned total, possible active, possible total] of each dialect with a count.
fn nonzero(telemetry: &Telemetry) -> Vec<(&'static str, [u64; 4])> {
    let counts = telemetry.counts();
    let numbers = |dialect| {
        let DialectUsage { assigned, possible, .. } = *counts.dialect(dialect);
        [assigned.active, assigned.total, possible.active, possible.total]
    };
    let all = Dialect::ALL.into_iter().map(|dialect| (dialect.name(), numbers(dialect)));
    all.filter(|(_, numbers)| numbers.iter().any(|number| *number > 0)).collect()
}

fn by_evidence(telemetry: &Telemetry, dialect: Dialect, evidence: Evidence) -> (u64, u64) {
    let count = telemetry.counts().dialect(dialect).by_evidence[evidence as usize];
    (count.active, count.total)
}

#[test]
fn connection_counts_as_active_until_dropped() {
    let telemetry = Telemetry::new();
    let before = UnixSeconds::now();
    let connection = telemetry.register(PeerId(7));
    let unrecognised = telemetry.counts().unrecognised;
    assert_eq!(unrecognised, ConnectionCount { active: 1, total: 1, last_closed: None });
    assert_eq!(telemetry.recognition(PeerId(7)).map(|known| known.dialect), None);
    connection.set_recognition(releases(&[Release::V20_1_0]), Evidence::FirstFrame);
    assert_eq!(telemetry.counts().unrecognised, ConnectionCount::default());
    assert_eq!(nonzero(&telemetry), [("sigver-20", [1, 1, 0, 0])]);
    assert_eq!(telemetry.recognition(PeerId(7)).map(|known| known.dialect), Some(Dialect::Sigver20));
    assert_eq!(by_evidence(&telemetry, Dialect::Sigver20, Evidence::FirstFrame), (1, 1));
    drop(connection);
    assert_eq!(nonzero(&telemetry), [("sigver-20", [0, 1, 0, 0])]);
    assert_eq!(by_evidence(&telemetry, Dialect::Sigver20, Evidence::FirstFrame), (0, 1));
    assert_eq!(telemetry.recognition(PeerId(7)).map(|known| known.dialect), None);
    let closed = telemetry.counts().dialect(Dialect::Sigver20).assigned.last_closed;
    assert!(closed.is_some_and(|closed| before <= closed && closed <= UnixSeconds::now()), "{closed:?}");
    assert!(telemetry.connections().is_empty());
}

#[test]
fn correction_moves_connection_without_trace() {
    let telemetry = Telemetry::new();
    let connection = telemetry.register(PeerId(1));
    let silent = [Release::V15_0_4, Release::V15_1_0, Release::V16_0_0, Release::V18_0_0];
    connection.set_recognition(releases(&silent), Evidence::Silence);
    let assumed = [
        ("sigver-15", [0, 0, 1, 1]),
        ("sigver-15.1", [0, 0, 1, 1]),
        ("sigver-16", [0, 0, 1, 1]),
        ("sigver-18", [1, 1, 0, 0]),
    ];
    assert_eq!(nonzero(&telemetry), assumed);
    connection.set_recognition(releases(&[Release::V19_1_2, Release::V20_1_0]), Evidence::Corrected);
    assert_eq!(nonzero(&telemetry), [("sigver-19", [0, 0, 1, 1]), ("sigver-20", [1, 1, 0, 0])]);
    assert_eq!(*telemetry.counts().dialect(Dialect::Sigver18), DialectUsage::default());
    connection.set_recognition(releases(&[Release::V19_1_2]), Evidence::LaterFrame);
    drop(connection);
    assert_eq!(nonzero(&telemetry), [("sigver-19", [0, 1, 0, 0])]);
    assert_eq!(by_evidence(&telemetry, Dialect::Sigver19, Evidence::LaterFrame), (0, 1));
    assert_eq!(by_evidence(&telemetry, Dialect::Sigver19, Evidence::FirstFrame), (0, 0));
}

#[test]
fn connection_without_frame_counts_as_unrecognised() {
    let telemetry = Telemetry::new();
    drop(telemetry.register(PeerId(1)));
    let unrecognised = telemetry.counts().unrecognised;
    assert_eq!((unrecognised.active, unrecognised.total, unrecognised.last_closed.is_some()), (0, 1, true));
    assert!(nonzero(&telemetry).is_empty());
    assert_eq!(telemetry.counts().sum().total, 1);
}

#[test]
fn signaller_connections_are_counted_apart() {
    let telemetry = Telemetry::new();
    let pair = (telemetry.register_signaller(), telemetry.register_signaller());
    drop(pair.0);
    let count = telemetry.signaller();
    assert_eq!((count.active, count.total, count.last_closed.is_some()), (1, 2, true));
    drop(pair.1);
    assert_eq!(telemetry.signaller().active, 0);
    assert_eq!(telemetry.counts().sum().total, 0);
}

#[test]
fn shards_add_up_and_release_memory() {
    let telemetry = Telemetry::new();
    let mut all: Vec<ConnectionGuard> = (0..5_000).map(|id| telemetry.register(PeerId(id))).collect();
    for one in &all {
        assert_eq!(one.set_recognition(releases(&[Release::V7_1_0]), Evidence::Pinned), Dialect::Sigver7);
    }
    assert_eq!(nonzero(&telemetry), [("sigver-7", [5_000, 5_000, 0, 0])]);
    let list = telemetry.connections();
    assert!(list.len() == 5_000 && list.iter().zip(0..).all(|(info, id)| info.peer == PeerId(id)));
    let capacity = || telemetry.shards.iter().map(|shard| shard.lock().connections.capacity()).sum::<usize>();
    let most = capacity();
    // A hash table is at least 7/16 full when it has grown, which bounds the memory of an idle connection.
    assert!(most * (size_of::<(PeerId, Entry)>() + 1) < 5_000 * 60, "{most}");
    all.truncate(100);
    assert!(capacity() < most / 4, "{} of {most}", capacity());
    assert_eq!(nonzero(&telemetry), [("sigver-7", [100, 5_000, 0, 0])]);
    assert_eq!(size_of::<(PeerId, Entry)>(), 24);
}

fn report(telemetry: &Telemetry) -> Report {
    let server = ServerSummary {
        address: "0.0.0.0:8000".into(),
        releases: releases(&[Release::V7_6_4, Release::V10_1_0, Release::V20_1_0]),
        signaller: false,
    };
    Report { started: UnixSeconds(0), ..Report::new(server, telemetry, UnixSeconds(90_000)) }
}

/// Returns peers that may be of these releases.
fn recognised(peers: &[&[Release]]) -> impl Iterator<Item = Recognition> {
    peers.iter().map(|list| Recognition {
        releases: releases(list),
        dialect: Candidates::new(releases(list)).dialect(),
        evidence: Evidence::FirstFrame,
    })
}

/// An opener of 6, 7 or 7.6 is treated as one of 7.6, and its joiner may be certain to be one of 7.
#[test]
fn room_is_mixed_only_if_its_peers_can_have_no_generation_in_common() {
    let opener: &[Release] = &[Release::V6_0_0, Release::V7_1_0, Release::V7_6_4];
    for (peers, generations) in [
        (&[opener, &[Release::V7_1_0]][..], 1),
        (&[opener, &[Release::V7_6_4], &[Release::V10_1_0]], 1),
        (&[opener, &[Release::V7_1_0], &[Release::V10_1_0]], 2),
        (&[opener, &[Release::V20_1_0]], 2),
        (&[&[Release::V18_0_0], &[Release::V15_0_4, Release::V18_0_0], &[Release::V20_1_0]], 2),
        (&[], 0),
    ] {
        let telemetry = Telemetry::new();
        let mut report = report(&telemetry);
        report.rooms.list_all = true;
        report.rooms.add(1, recognised(peers));
        assert_eq!(report.rooms.list[0].generations, generations, "{peers:?}");
        assert_eq!(report.rooms.mixed_generations, usize::from(generations > 1), "{peers:?}");
    }
}

#[test]
fn text_is_tables() {
    let telemetry = Telemetry::new();
    let connection = telemetry.register(PeerId(3));
    connection.set_recognition(releases(&[Release::V7_6_4, Release::V10_1_0]), Evidence::FirstFrame);
    let mut report = report(&telemetry);
    report.rooms.mixed_generations_ever = 7;
    report.rooms.add(0x12, recognised(&[&[Release::V10_1_0], &[Release::V20_1_0], &[Release::V10_1_0]]));
    report.rooms.add(0x13, recognised(&[&[Release::V20_1_0]]));
    report.rooms.add(0x14, recognised(&[&[Release::V20_1_0], &[Release::V19_1_2]]));
    report.rooms.sort();
    let text = render(&report, Format::Text);
    let expected = format!(
        "\
sigver {} on 0.0.0.0:8000, since 1970-01-01T00:00:00Z (1 d 1 h ago)
connections of sigver clients: 1 active, 1 in total

dialect     active  total  last seen  possible
sigver-7.6  0       0      never      1
sigver-9    1       1      now        0

rooms: 3; 2 with more than one dialect, 1 with more than one generation
00000012  sigver-9 2, sigver-20 1 (2 generations)
00000014  sigver-19 1, sigver-20 1
rooms since the start that connected different generations: 7
",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(text, expected, "{text}");
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    report.all = true;
    let text = render(&report, Format::Text);
    let table = "\
dialect           active  total  last seen  possible  total  last seen  releases                            evidence
sigver-7.6        0       0      never      1         1      now        7.6.4
sigver-9          1       1      now        0         0      never      9.0.0, 9.0.1, 9.1.0, 10.1.0         first frame 1
sigver-20         0       0      never      0         0      never      20.0.0, 20.0.1, 20.0.2, 20.1.0, 21
(not recognised)  0       0      never
";
    assert!(text.contains(table), "{text}");
    report.connection_list = Some(telemetry.connections().into_iter().map(Into::into).collect());
    let text = render(&report, Format::Text);
    assert!(text.contains("  sigver-9  first frame  7.6.4, 10.1.0\n"), "{text}");
}

#[test]
fn text_has_only_what_there_is() {
    let text = render(&report(&Telemetry::new()), Format::Text);
    let lines: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(lines, ["connections of sigver clients: 0 active, 0 in total", "", "rooms: 0"], "{text}");
    let mut troubled = report(&Telemetry::new());
    troubled.refused = vec![(RefusalCause::ForeignOrigin, 3), (RefusalCause::ProxyHeader, 0)];
    let counts = LogCounts::default();
    counts.count_dropped();
    troubled.log = Some(counts.report());
    let text = render(&troubled, Format::Text);
    assert!(
        text.ends_with(
            "refused: 3, the origin of the page is not allowed\nlog: 1 lines dropped, 0 summed up\n"
        )
    );
}

#[test]
fn text_of_a_bridge_with_large_figures_fits_a_terminal() {
    use crate::protocol::mesh::BridgeFigures;
    let many = u64::from(u32::MAX);
    let process =
        BridgeFigures { opened: many, channels: many, messages: many, cut: many, ..Default::default() };
    let mut report = report(&Telemetry::new());
    report.bridge = Some(BridgeReport {
        connected: true,
        keys: many,
        members: many,
        calls: many,
        failed_calls: many,
        process,
        ..Default::default()
    });
    let text = render(&report, Format::Text);
    assert!(text.contains("bridge: connected; members: 4294967295"), "{text}");
    assert!(text.contains("\n  channels: 4294967295, messages carried: 4294967295\n"), "{text}");
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
}

#[test]
fn json_has_the_documented_names_in_the_documented_order() {
    let telemetry = Telemetry::new();
    let connection = telemetry.register(PeerId(3));
    connection.set_recognition(releases(&[Release::V7_6_4, Release::V10_1_0]), Evidence::FirstFrame);
    let mut report = report(&telemetry);
    report.log = Some(LogCounts::default().report());
    report.certificate_expires = Some(UnixSeconds(0));
    report.cluster =
        Some(ClusterReport { nodes: vec![OtherNodeReport::default()], ..ClusterReport::default() });
    report.bridge = Some(BridgeReport::default());
    report.rooms.list_all = true;
    report.rooms.add(0xab, recognised(&[&[Release::V10_1_0]]));
    report.connection_list = Some(telemetry.connections().into_iter().map(Into::into).collect());
    let json: serde_json::Value = serde_json::from_str(&render(&report, Format::Json)).unwrap();
    let document = include_str!("../../../docs/reference/status-json.md");
    fn check_names(value: &serde_json::Value, document: &str) {
        if let Some(fields) = value.as_object() {
            for (name, value) in fields {
                let dialect = name.starts_with("sigver-");
                assert!(dialect || document.contains(&format!("`{name}`")), "{name} is not documented");
                check_names(value, document);
            }
        }
        value.as_array().into_iter().flatten().for_each(|value| check_names(value, document));
    }
    check_names(&json, document);
    // The rows of the table are the top-level names; a later one has the causes of refusals.
    let (names, _) = document.split_once("## Causes of refusals").unwrap();
    let rows = names.lines().filter(|line| line.starts_with("| `"));
    let documented: Vec<&str> =
        rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).collect();
    assert_eq!(json.as_object().unwrap().keys().collect::<Vec<_>>(), documented);
    assert_eq!(json["rooms"]["list"][0]["room"], "000000ab");
    assert_eq!(json["dialects"][5]["possible"]["active"], 1);
    assert_eq!(
        json["dialects"][7]["by_evidence"]["first_frame"],
        serde_json::json!({"active": 1, "total": 1})
    );
    assert_eq!(json["connection_list"][0]["evidence"], "first_frame");
    assert_eq!(json["connection_list"][0]["releases"], serde_json::json!(["7.6.4", "10.1.0"]));
}
