//! Old and new clients in one room, all pairs of them, and proof that what measures them can fail.

#![allow(unreachable_pub, reason = "a crate without users")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "../common/mod.rs"]
mod common;
mod faulty;

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use sigver::protocol::dialect::{Dialect, Family};
use sigver::tools::client::protocol::Protocol;
use sigver::tools::dial::Target;
use sigver::tools::matrix::render;
use sigver::tools::matrix::result::{MatrixResult, PairResult, Verdict};
use sigver::tools::matrix::run::{MatrixPlan, run};
use sigver::tools::probe::run::{Confidence, probe};
use tokio::net::TcpListener;

use common::TestGateway;
use faulty::Fault;

fn family(name: &str) -> Option<Family> {
    name.parse::<Dialect>().ok().map(Dialect::family)
}

/// Returns the known losses in `auto` mode, by id in docs/reference/differences.md; an error if nothing
/// works.
fn expected(member: &str, joiner: &str) -> Result<Vec<&'static str>, &'static str> {
    // C48 and C50: which of two layouts a member reads is not known before it has sent a content.
    if member != joiner && (member == "sigver-15.1" || (member, joiner) == ("sigver-15", "sigver-15.1")) {
        return Err("C48");
    }
    let is_v2 = |name| family(name) == Some(Family::ProtobufV2);
    if member != joiner && is_v2(member) && (member != "sigver-20" || is_v2(joiner)) {
        return Err("C50");
    }
    let typed = |name| matches!(name, "sigver-1" | "sigver-4");
    if typed(member) && joiner == "sigver-6" || member == "sigver-6" && typed(joiner) {
        return Ok(one_offer_of_a_kind(member, joiner));
    }
    let bytes = |name: &str| Protocol::from_name(name).is_some_and(|protocol| !protocol.is_json());
    let mut lost = Vec::new();
    // Applications of sigver 1 and 4 look at the type of a message, which others do not have; and others but
    // those of sigver 5 see messages without it.
    match (typed(member), typed(joiner)) {
        // 4 is spoken as 5, whose messages have no kind (C65).
        (true, false) if member == "sigver-1" && joiner != "sigver-5" => {
            lost.push("to the member: json without its kind");
            lost.push("to the member: offer, answer, candidate altered");
            lost.push("to the joiner: offer, candidate without its kind");
        }
        (false, true) if joiner == "sigver-1" && member != "sigver-5" => {
            lost.push("to the joiner: json without its kind");
            lost.push("to the joiner: offer, answer, candidate altered");
            lost.push("to the member: offer, candidate without its kind");
        }
        (true, false) => {
            lost.push("to the member: offer, answer, candidate, json without its kind");
            if joiner != "sigver-5" {
                lost.push("to the joiner: offer, candidate without its kind");
            }
        }
        (false, true) => {
            lost.push("to the joiner: offer, answer, candidate, json without its kind");
            if member != "sigver-5" {
                lost.push("to the member: offer, candidate without its kind");
            }
        }
        (true, true) | (false, false) => {}
    }
    // sigver 6 has messages for one offer and one answer, which name no client.
    if member == "sigver-6" {
        lost.push("an answer reaches every waiting joiner");
        if joiner != "sigver-6" {
            lost.push("each joiner receives one answer, the first");
            lost.push(match bytes(joiner) {
                true => "to the member: answer, candidate, json, bytes lost",
                false => "to the member: answer, candidate, json lost",
            });
        }
    } else if joiner == "sigver-6" {
        lost.push(match bytes(member) {
            true => "to the joiner: offer, candidate, json, bytes lost",
            false => "to the joiner: offer, candidate, json lost",
        });
    }
    // C63 and C64: their message for a departure would be an error to others that cannot be distinguished
    // from them.
    let mum = |name| matches!(name, "sigver-7.6" | "sigver-8" | "sigver-9" | "sigver-11" | "sigver-13");
    if mum(member) {
        lost.push("the departure of a joiner is not reported");
    }
    if mum(joiner) {
        lost.push("the departure of the member is not reported");
    }
    // C57: who is not known to speak 13 is not pinged.
    if member == "sigver-13" {
        lost.push("no heartbeats for the member");
    }
    if joiner == "sigver-13" {
        lost.push("no heartbeats for the joiner");
    }
    lost.sort_unstable();
    Ok(lost)
}

/// Returns the losses between sigver 6, which has one offer and one answer, and sigver 1 and 4, where both
/// sides make offers.
fn one_offer_of_a_kind(member: &str, joiner: &str) -> Vec<&'static str> {
    let mut lost = match (member, joiner) {
        ("sigver-1", _) => vec!["to the member: offer altered", "to the joiner: offer without its kind"],
        ("sigver-4", _) => {
            vec!["to the member: offer without its kind", "to the joiner: offer without its kind"]
        }
        (_, "sigver-1") => vec!["to the joiner: answer altered"],
        _ => vec!["to the joiner: answer without its kind"],
    };
    if member == "sigver-6" {
        lost.push("to the member: candidate lost");
        lost.push("an answer reaches every waiting joiner");
        lost.push("each joiner receives one answer, the first");
    } else {
        lost.push("to the joiner: candidate lost");
    }
    lost.sort_unstable();
    lost
}

fn unexpected(outcome: &MatrixResult) -> Vec<String> {
    let mut found = Vec::new();
    for cell in &outcome.pairs {
        let expected = expected(cell.pair.member.unwrap().name(), cell.pair.joiner.name());
        let fine = match (&cell.verdict, &expected) {
            (Verdict::Ok, Ok(lost)) => lost.is_empty(),
            (Verdict::Degraded { losses: lost }, Ok(expected)) => {
                let mut lost: Vec<&str> = lost.iter().map(String::as_str).collect();
                lost.sort_unstable();
                lost == *expected
            }
            (Verdict::Failed { .. }, expected) => expected.is_err(),
            (Verdict::Ok | Verdict::Degraded { .. }, Err(_)) => false,
        };
        if !fine {
            found.push(format!("{}: {} instead of {expected:?}", cell.pair, cell.verdict));
        }
    }
    let failed = outcome.control.iter().filter(|cell| cell.verdict != Verdict::Ok);
    found.extend(failed.map(|cell| format!("{}: {}", cell.pair, cell.verdict)));
    found
}

async fn measure(address: SocketAddr, plan: &MatrixPlan) -> MatrixResult {
    let target = Target::parse(&format!("ws://{address}")).unwrap();
    run(&target, "a test", plan, |_| {}).await
}

fn all() -> Vec<Protocol> {
    Protocol::all().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn old_and_new_clients_work_together_as_far_as_their_messages_go() {
    let gateway = TestGateway::start("auto").await;
    let plan = MatrixPlan::new(&all());
    assert_eq!((plan.pairs.len(), plan.control.len()), (Dialect::ALL.len().pow(2) + 1, Protocol::COUNT));
    let mut outcome = measure(gateway.address, &plan).await;
    // On a busy machine a client may be late; what is truly different is so again.
    measure_again(&mut outcome, gateway.address).await;
    let unexpected = unexpected(&outcome);
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
    // Why a pair failed depends on what arrived first; that it did, and what others lost, does not.
    let markdown = render::markdown(&outcome);
    let (table, _) = markdown.split_once("\nFailed:").unwrap();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_to_string(folder.join("docs/reference/interop.md")).unwrap();
    assert!(
        docs.contains(table),
        "docs/reference/interop.md is not what sigver matrix --markdown says:\n{table}"
    );
    gateway.stop().await;
}

/// Measures the pairs that are not as expected once more, alone.
async fn measure_again(outcome: &mut MatrixResult, address: SocketAddr) {
    let found = unexpected(outcome);
    let doubted = |cell: &PairResult| found.iter().any(|line| line.starts_with(&format!("{}: ", cell.pair)));
    let pairs = outcome.pairs.iter().filter(|cell| doubted(cell));
    let pairs: Vec<(Protocol, Protocol)> =
        pairs.map(|cell| (cell.pair.member.unwrap(), cell.pair.joiner)).collect();
    let plan = MatrixPlan { pairs, control: Vec::new(), jobs: 8, ..MatrixPlan::new(&[]) };
    for cell in measure(address, &plan).await.pairs {
        let place = outcome.pairs.iter_mut().find(|old| old.pair == cell.pair).unwrap();
        *place = cell;
    }
}

/// Some pairs, without waiting for heartbeats.
fn quick(names: &[&str]) -> MatrixPlan {
    let protocols: Vec<Protocol> = names.iter().map(|name| Protocol::from_name(name).unwrap()).collect();
    let mut plan = MatrixPlan::new(&protocols);
    plan.options.hold = Duration::ZERO;
    plan
}

/// A server that sends to all clients what it receives.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echo_is_no_signaling_server() {
    let address = echo().await;
    let outcome =
        measure(address, &quick(&all().iter().map(|protocol| protocol.name()).collect::<Vec<_>>())).await;
    let passed = outcome.all().filter(|cell| !matches!(cell.verdict, Verdict::Failed { .. }));
    assert_eq!(passed.map(|cell| cell.pair.to_string()).collect::<Vec<_>>(), Vec::<String>::new());
    let target = Target::parse(&format!("ws://{address}")).unwrap();
    assert_eq!(probe(&target, false).await.unwrap().confidence, Confidence::None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_one_dialect_serves_no_other() {
    let gateway = TestGateway::start("sigver-20").await;
    let outcome = measure(gateway.address, &quick(&["sigver-5", "sigver-9", "sigver-16", "sigver-20"])).await;
    for cell in &outcome.pairs {
        let own = cell.pair.to_string() == "sigver-20:sigver-20";
        // Without waiting there are no heartbeats, which is noticed, too.
        let lost = ["no heartbeats for the member", "no heartbeats for the joiner"].map(str::to_owned);
        match &cell.verdict {
            Verdict::Degraded { losses: found } => {
                assert!(own && found == &lost, "{}: {found:?}", cell.pair)
            }
            Verdict::Failed { .. } => assert!(!own, "{}", cell.verdict),
            Verdict::Ok => panic!("{}", cell.pair),
        }
    }
    assert_eq!(outcome.failures().iter().filter(|failure| failure.pair.member.is_some()).count(), 15);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probe_recognises_this_gateway_rightly() {
    for (protocol, spoken, releases) in [
        ("auto", Protocol::COUNT, &[][..]),
        ("sigver-18.0.0", 2, &["18.0.0"]),
        ("sigver-9.1.0", 1, &["9.1.0"]),
        ("sigver-3.0.0", 1, &["1.0.0, 2.0.0, 3.0.0"]),
        ("current", Dialect::ALL.iter().filter(|it| it.family() == Family::ProtobufV2).count(), &[]),
    ] {
        let gateway = TestGateway::start(protocol).await;
        let target = Target::parse(&format!("ws://{}", gateway.address)).unwrap();
        let answer = probe(&target, false).await.unwrap();
        assert_eq!((answer.dialects.len(), answer.versions), (spoken, owned(releases)), "{protocol}");
        assert!(answer.gateway && answer.confidence == Confidence::Certain, "{protocol}");
        assert!(Duration::from_millis(answer.duration_ms) < Duration::from_secs(15), "{protocol}");
        gateway.stop().await;
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn sigver(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sigver")).args(args).output().unwrap()
}

#[test]
fn exit_code_reports_pairs_worse_than_expected() {
    let twenty = ["matrix", "--only", "sigver-20:sigver-20", "--hold", "0"];
    let with = |more: &[&str]| sigver(&[&twenty, more].concat());
    let before = with(&["--json"]);
    assert!(before.status.success());
    let stored = std::env::temp_dir().join(format!("sigver-matrix-{}.json", std::process::id()));
    let expecting = |text: &[u8], more: &[&str]| {
        std::fs::write(&stored, text).unwrap();
        with(&[&["--expect", stored.to_str().unwrap()], more].concat())
    };
    assert!(expecting(&before.stdout, &[]).status.success());
    // Nothing was lost before.
    let better = String::from_utf8(before.stdout.clone()).unwrap().replace("\"degraded\"", "\"ok\"");
    assert_eq!(expecting(better.as_bytes(), &[]).status.code(), Some(1));
    let junit = expecting(better.as_bytes(), &["--junit", "-"]);
    assert!(String::from_utf8(junit.stdout).unwrap().contains("failures=\"1\""));
    // What is broken is broken, until it is expected.
    let broken = with(&["--protocol", "sigver-5", "--json"]);
    assert_eq!(broken.status.code(), Some(1));
    assert!(expecting(&broken.stdout, &["--protocol", "sigver-5"]).status.success());
    assert_eq!(expecting(b"{}", &[]).status.code(), Some(2));
    std::fs::remove_file(&stored).unwrap();
}

#[test]
fn invalid_arguments_are_rejected() {
    for args in [
        &["matrix", "--only", "sigver-20"][..],
        &["matrix", "--dialects", "sigver-2"],
        &["matrix", "http//no"],
        &["probe", "localhost:8000"],
        &["probe", "ws://127.0.0.1:1"],
    ] {
        let output = sigver(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8(output.stderr).unwrap().starts_with("error: "), "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_detected() {
    const SILENT: &str =
        "degraded: the departure of a joiner is not reported; the departure of the member is not reported";
    for (fault, expected) in [
        (Fault::None, SILENT),
        (Fault::Broadcasts, "failed: messages for one joiner reach the other, too"),
        (Fault::OneId, "failed: both joiners have the same id"),
        (Fault::Alters, "degraded: to the member: offer, answer, candidate, json altered; "),
        (Fault::Forgets, "failed: after the hold: no message of the member reaches the joiner"),
        (Fault::Lies, SILENT),
    ] {
        let outcome = measure(faulty::start(fault).await, &quick(&["sigver-9"])).await;
        let verdict = outcome.pairs[0].verdict.to_string();
        assert!(verdict.starts_with(expected), "{fault:?}: {verdict}");
        let refused = outcome.control[0].verdict == Verdict::Ok;
        assert_eq!(refused, fault != Fault::Lies, "{fault:?}");
    }
}
