//! Tests of the comparison: it finds every kind of difference, in hand-made transcripts and in every
//! recorded one, and reports none where there is none.

use compat_tests::compare::{ComparisonOrder, ComparisonRules, Difference, DifferenceKind, compare};
use compat_tests::goldens::{self, ORIGINALS};
use compat_tests::ids::{Id, IdLayout, mask, mask_reason, substitute};
use compat_tests::transcript::{FrameKind, RecordedEvent, RecordedFrame, Scenario, TranscriptRecord, parse};
use std::collections::HashMap;

const GOLDEN: &str = r#"
{"v":"18.0.0","sc":"session","t":0,"peer":"O","dir":"connect","path":"/k1"}
{"v":"18.0.0","sc":"session","t":5,"peer":"O","dir":"open"}
{"v":"18.0.0","sc":"session","t":6,"peer":"O","dir":"recv","op":"binary","hex":"1001"}
{"v":"18.0.0","sc":"session","t":7,"peer":"O","dir":"recv","op":"binary","hex":"2001"}
{"v":"18.0.0","sc":"session","t":100,"peer":"J","dir":"connect","path":"/k1"}
{"v":"18.0.0","sc":"session","t":105,"peer":"J","dir":"open"}
{"v":"18.0.0","sc":"session","t":106,"peer":"J","dir":"recv","op":"binary","hex":"1000"}
{"v":"18.0.0","sc":"session","t":200,"peer":"J","dir":"send","op":"binary","hex":"0a050800120178"}
{"v":"18.0.0","sc":"session","t":201,"peer":"O","dir":"recv","op":"binary","hex":"0a0908f3b89ba603120178"}
{"v":"18.0.0","sc":"session","t":300,"peer":"J","dir":"send","op":"binary","hex":"0a050800120179"}
{"v":"18.0.0","sc":"session","t":301,"peer":"O","dir":"recv","op":"binary","hex":"0a0908f3b89ba603120179"}
{"v":"18.0.0","sc":"session","t":400,"peer":"J","dir":"send","op":"binary","hex":"0a020800"}
{"v":"18.0.0","sc":"session","t":401,"peer":"O","dir":"recv","op":"binary","hex":"0a0808f3b89ba6031801"}
{"v":"18.0.0","sc":"session","t":402,"peer":"J","dir":"recv-close","code":4003,"reason":"4003: Unknown message type \"undefined\" from the 885447795 joining peer"}
{"v":"18.0.0","sc":"session","t":500,"dir":"server","alive":true,"exit":null}
"#;

fn golden() -> Scenario {
    parse(GOLDEN).unwrap().remove(0)
}

fn differences(live: &Scenario) -> Vec<Difference> {
    compare(&golden(), live, ComparisonRules::default()).differences
}

/// Returns the only difference that a change to the golden's text makes.
fn one(from: &str, to: &str) -> Difference {
    assert!(GOLDEN.contains(from), "{from}");
    let live = parse(&GOLDEN.replacen(from, to, 1)).unwrap().remove(0);
    let mut found = differences(&live);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn seen(record: &TranscriptRecord) -> bool {
    matches!(record.event, RecordedEvent::Open | RecordedEvent::Recv(_) | RecordedEvent::RecvClose { .. })
}

/// Returns the scenario with every server-made id replaced consistently, also in close reasons.
fn renamed(scenario: &Scenario) -> Scenario {
    let layout = IdLayout::from_version(&scenario.version);
    let mut ids: HashMap<Id, Id> = HashMap::new();
    let mut live = scenario.clone();
    for record in &mut live.records {
        match &mut record.event {
            RecordedEvent::Recv(payload) | RecordedEvent::Send(payload) => {
                for id in mask(layout, payload).ids.into_iter().filter(Id::is_server_generated) {
                    let next = 2_000_000 + ids.len() as u64;
                    let next = match id {
                        Id::Number(_) | Id::Index(_) => Id::Number(next),
                        Id::Text(_) => Id::Text(format!("id_{next}")),
                    };
                    ids.entry(id).or_insert(next);
                }
                payload.bytes = substitute(layout, payload, &ids);
            }
            RecordedEvent::RecvClose { code, reason } => {
                let masked = mask_reason(layout, *code, reason);
                let renamed = masked.render(|id| ids.get(id).unwrap_or(id).to_string());
                *reason = renamed.split_once(' ').unwrap().1.split_once(' ').unwrap().1.to_owned();
            }
            _ => {}
        }
    }
    live
}

#[test]
fn equal_transcripts_have_no_differences() {
    let comparison = compare(&golden(), &golden(), ComparisonRules::default());
    assert_eq!((comparison.frames, comparison.differences), (9, vec![]));
    assert_eq!(differences(&renamed(&golden())), []);
    assert_ne!(renamed(&golden()), golden());
}

#[test]
fn order_among_clients_is_ignored() {
    let mut live = golden();
    live.records.swap(12, 13);
    assert_eq!(differences(&live), []);
}

#[test]
fn changed_frame_is_reported() {
    let d = one(r#""hex":"0a0908f3b89ba603120179""#, r#""hex":"0a0908f3b89ba60312017a""#);
    assert_eq!((d.kind, d.step, d.peer.as_str()), (DifferenceKind::Changed, 4, "O"));
    assert_eq!(
        (d.expected.as_str(), d.actual.as_str()),
        ("binary 0a{08:#1;120179}", "binary 0a{08:#1;12017a}")
    );
    assert_eq!(d.action, "J sends binary 0a050800120179");
}

#[test]
fn second_id_for_one_peer_is_reported() {
    let d = one(r#""hex":"0a0908f3b89ba603120179""#, r#""hex":"0a0908f4b89ba603120179""#);
    assert_eq!((d.kind, d.step), (DifferenceKind::Changed, 4));
    assert_eq!(d.actual, "binary 0a{08:#?885447796;120179}");
    let d = one("from the 885447795 joining", "from the 885447796 joining");
    assert_eq!((d.kind, d.step, d.peer.as_str()), (DifferenceKind::Changed, 5, "J"));
}

#[test]
fn one_id_for_two_peers_is_reported() {
    let two = GOLDEN.replacen("0a0908f3b89ba603120179", "0a0908f4b89ba603120179", 1);
    let expected = parse(&two).unwrap().remove(0);
    let found = compare(&expected, &golden(), ComparisonRules::default()).differences;
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].kind, found[0].expected.as_str()),
        (DifferenceKind::Changed, "binary 0a{08:#2;120179}")
    );
}

#[test]
fn literal_ids_must_be_equal() {
    let zero = GOLDEN.replace("0a0908f3b89ba603120178", "0a050800120178");
    let expected = parse(&zero).unwrap().remove(0);
    assert_eq!(compare(&expected, &golden(), ComparisonRules::default()).differences.len(), 1);
    let live = parse(
        &GOLDEN.replace("08f3b89ba603", "0800").replace("0a09", "0a05").replace("0a080800", "0a040800"),
    );
    assert_eq!(differences(&live.unwrap()[0]).len(), 3, "0 does not stand for a made-up id");
}

#[test]
fn missing_frame_is_reported() {
    let mut live = golden();
    live.records.remove(3);
    let found = differences(&live);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].kind, found[0].step, found[0].expected.as_str()),
        (DifferenceKind::Missing, 1, "binary 2001")
    );
    assert!(found[0].to_string().contains("actual   nothing"), "{}", found[0]);
}

#[test]
fn extra_frame_is_reported() {
    for at in [3, 4, 5, 8] {
        let mut live = golden();
        let event = RecordedEvent::Recv(RecordedFrame::new(FrameKind::Binary, [0x28, 1]));
        live.records.insert(at, TranscriptRecord { t: 0, peer: Some("O".into()), event });
        let found = differences(&live);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].kind, found[0].actual.as_str()), (DifferenceKind::Extra, "binary 2801"));
    }
}

#[test]
fn swapped_frames_are_reported() {
    let mut live = golden();
    live.records.swap(2, 3);
    let kinds: Vec<DifferenceKind> = differences(&live).iter().map(|d| d.kind).collect();
    assert_eq!(kinds, [DifferenceKind::Missing, DifferenceKind::Extra]);
}

#[test]
fn frame_one_step_late_is_reported() {
    let mut live = golden();
    let late = live.records.remove(3);
    live.records.insert(6, late);
    let kinds: Vec<(DifferenceKind, usize)> = differences(&live).iter().map(|d| (d.kind, d.step)).collect();
    assert_eq!(kinds, [(DifferenceKind::Missing, 1), (DifferenceKind::Extra, 2)]);
}

#[test]
fn opcode_close_code_and_reason_are_compared() {
    assert_eq!(
        one(r#""op":"binary","hex":"2001""#, r#""op":"pong","hex":"2001""#).kind,
        DifferenceKind::Changed
    );
    let d = one(r#""code":4003"#, r#""code":1005"#);
    assert_eq!((d.kind, d.step, d.peer.as_str()), (DifferenceKind::Changed, 5, "J"));
    assert!(d.expected.starts_with("close 4003 ") && d.actual.starts_with("close 1005 "));
    assert_eq!(one("4003: Unknown", "4003: unknown").kind, DifferenceKind::Changed);
}

#[test]
fn server_exit_is_reported() {
    let d = one(r#""alive":true"#, r#""alive":false"#);
    assert_eq!((d.kind, d.peer.as_str(), d.expected.as_str()), (DifferenceKind::Server, "server", "lives"));
}

#[test]
fn different_script_is_reported() {
    let mut live = golden();
    live.records.truncate(9);
    let found = differences(&live);
    assert_eq!((found.len(), found[0].kind, found[0].step), (1, DifferenceKind::Script, 4));
}

#[test]
fn random_choice_may_pick_another_member_but_not_two() {
    let rules = ComparisonRules { interchangeable: &["O", "M"], ..ComparisonRules::default() };
    let mut live = golden();
    live.records[8].peer = Some("M".into());
    assert_eq!(compare(&golden(), &live, rules).differences, []);
    assert_eq!(compare(&golden(), &live, ComparisonRules::default()).differences.len(), 2);
    live.records.insert(9, TranscriptRecord { peer: Some("O".into()), ..live.records[8].clone() });
    assert_eq!(compare(&golden(), &live, rules).differences.len(), 1);
    live.records.remove(9);
    live.records[8].peer = Some("J".into());
    assert_eq!(compare(&golden(), &live, rules).differences.len(), 2);
}

#[test]
fn timed_frames_must_arrive_on_time() {
    let timed = |text: &str| parse(&text.replace("session", "timed_session")).unwrap().remove(0);
    let live = timed(&GOLDEN.replacen(r#""t":402"#, r#""t":802"#, 1));
    assert_eq!(compare(&timed(GOLDEN), &live, ComparisonRules::default()).differences, []);
    let live = timed(&GOLDEN.replacen(r#""t":402"#, r#""t":803"#, 1));
    let found = compare(&timed(GOLDEN), &live, ComparisonRules::default()).differences;
    assert_eq!((found.len(), found[0].kind, found[0].step), (1, DifferenceKind::Time, 5));
    assert!(found[0].actual.ends_with(" at 803 ms"), "{}", found[0].actual);
}

#[test]
fn every_change_to_a_golden_is_reported() {
    for original in ORIGINALS {
        for golden in goldens::load(&goldens::dir(), original.version).unwrap() {
            let found = |live: &Scenario| compare(&golden, live, ComparisonRules::default()).differences;
            let name = format!("{} {}", golden.version, golden.name);
            assert_eq!(found(&golden), [], "{name}");
            assert_eq!(found(&renamed(&golden)), [], "{name}");
            for at in (0..golden.records.len()).filter(|i| seen(&golden.records[*i])) {
                let mut less = golden.clone();
                less.records.remove(at);
                assert_ne!(found(&less), [], "{name}: line {at} removed");
                let mut more = golden.clone();
                more.records.insert(at, more.records[at].clone());
                assert_ne!(found(&more), [], "{name}: line {at} doubled");
                let mut changed = golden.clone();
                match &mut changed.records[at].event {
                    RecordedEvent::Recv(payload) => payload.bytes.push(b' '),
                    RecordedEvent::RecvClose { code, .. } => *code += 1,
                    other => *other = RecordedEvent::RecvClose { code: 1006, reason: String::new() },
                }
                assert_ne!(found(&changed), [], "{name}: line {at} changed");
            }
        }
    }
}

/// J's messages reach O after J's next; J disconnects while O's are in transit.
const REAL: &str = r#"
{"v":"any","sc":"s","t":0,"peer":"O","dir":"connect","path":"/k1"}
{"v":"any","sc":"s","t":1,"peer":"J","dir":"connect","path":"/k1"}
{"v":"any","sc":"s","t":10,"peer":"J","dir":"send","op":"text","text":"a"}
{"v":"any","sc":"s","t":11,"peer":"J","dir":"send","op":"text","text":"b"}
{"v":"any","sc":"s","t":12,"peer":"O","dir":"recv","op":"text","text":"a"}
{"v":"any","sc":"s","t":13,"peer":"O","dir":"recv","op":"text","text":"b"}
{"v":"any","sc":"s","t":20,"peer":"O","dir":"send","op":"text","text":"c"}
{"v":"any","sc":"s","t":21,"peer":"J","dir":"tcp-destroy"}
{"v":"any","sc":"s","t":21,"peer":"J","dir":"recv-close","code":1006,"reason":""}
"#;

#[test]
fn per_client_order_ignores_interleaving() {
    let real = parse(REAL).unwrap().remove(0);
    let mut lines: Vec<&str> = REAL.trim().lines().collect();
    // In the order in which it is played: one after the other.
    lines.swap(3, 4);
    let came = r#"{"v":"any","sc":"s","t":20,"peer":"J","dir":"recv","op":"text","text":"c"}"#;
    lines.insert(7, came);
    let played = parse(&lines.join("\n")).unwrap().remove(0);
    let kinds = |real: &Scenario, order| -> Vec<DifferenceKind> {
        let rules = ComparisonRules { order, ..ComparisonRules::default() };
        compare(real, &played, rules).differences.iter().map(|d| d.kind).collect()
    };
    assert_eq!(kinds(&real, ComparisonOrder::Clients), []);
    assert_eq!(kinds(&real, ComparisonOrder::Times), []);
    assert_eq!(
        kinds(&real, ComparisonOrder::Steps),
        [DifferenceKind::Extra, DifferenceKind::Missing, DifferenceKind::Extra]
    );
    let later = REAL.replace(r#""t":21"#, r#""t":921"#);
    let later = parse(&later).unwrap().remove(0);
    assert_eq!(
        kinds(&later, ComparisonOrder::Clients),
        [DifferenceKind::Extra],
        "that was not on its way for so long"
    );
}
