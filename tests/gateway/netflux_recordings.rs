//! Recordings of real clients with the Node.js servers they were made for (`tests/fixtures/netflux`, made by
//! `compat-tests/clients/record.mjs`), played against a gateway in `auto` mode: each client receives what it
//! understands as the same, and each difference has a number.

use std::path::Path;

use sigver::tools::replay::compare::{Comparison, ComparisonOrder, ComparisonRules, compare};
use sigver::tools::replay::player::{PlayOptions, play};
use sigver::tools::replay::transcript::{self, FrameKind, RecordedEvent, Scenario};

use crate::common::TestGateway;

fn recording(netflux: &str) -> Scenario {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/netflux");
    let text = std::fs::read_to_string(folder.join(format!("netflux-{netflux}.jsonl"))).unwrap();
    transcript::parse(&text).unwrap().remove(0)
}

async fn replay(script: &Scenario) -> Comparison {
    let gateway = TestGateway::start("auto").await;
    let mut options = PlayOptions::new(gateway.address);
    options.suffix = Some("r1".to_owned());
    options.eager = true;
    options.order = ComparisonOrder::Clients;
    let actual = play(script, &options).await;
    let rules =
        ComparisonRules { order: ComparisonOrder::Clients, explain: true, ..ComparisonRules::default() };
    let comparison = compare(script, &actual, rules);
    gateway.stop().await;
    comparison
}

/// Plays the recording of a client; returns the numbers of the differences that are meant.
async fn meant(netflux: &str) -> Vec<&'static str> {
    let comparison = replay(&recording(netflux)).await;
    let text: Vec<String> = comparison.differences.iter().map(ToString::to_string).collect();
    assert!(text.is_empty(), "netflux {netflux}:\n{}", text.join("\n"));
    comparison.meant.iter().map(|difference| difference.id).collect()
}

#[tokio::test]
async fn json_clients_of_auto_differ_only_on_purpose() {
    for netflux in ["0.10.3", "0.10.8", "1.0.0-rc.14"] {
        meant(netflux).await;
    }
    assert!(meant("1.0.0-rc.14").await.contains(&"C62"));
}

#[tokio::test]
async fn silent_clients_of_auto_differ_only_on_purpose() {
    for netflux in ["1.1.0-beta.7", "1.1.0-beta.8", "3.0.0"] {
        assert!(meant(netflux).await.contains(&"C40"), "{netflux}");
    }
}

#[tokio::test]
async fn ids_are_followed_through_contents_in_two_layouts() {
    assert_eq!(meant("4.3.1").await, ["C50"]);
}

#[tokio::test]
async fn fault_is_described() {
    let mut script = recording("4.3.1");
    let first = script.records.iter_mut().find_map(|record| match &mut record.event {
        RecordedEvent::Recv(frame) if frame.bytes == [0x20, 0] => Some(frame),
        _ => None,
    });
    first.unwrap().bytes = vec![0x20, 1];
    let differences = replay(&script).await.differences;
    let found = differences.iter().find(|found| found.expected == "connected{true}");
    let found = found.unwrap_or_else(|| panic!("{differences:?}"));
    assert_eq!(found.actual, "connected{false}");
    assert!(found.action.contains(" sends connect{id "), "{}", found.action);
}

#[test]
fn recordings_describe_messages() {
    for (netflux, words) in
        [("4.3.1", "connected{true}"), ("1.1.0-beta.8", "pong{true}"), ("3.0.0", "isFirst{true}")]
    {
        let messages = recording(netflux).records.into_iter().filter_map(|record| match record.event {
            RecordedEvent::Recv(frame) | RecordedEvent::Send(frame) if frame.op == FrameKind::Binary => {
                Some(frame.msg.expect("a binary message in words"))
            }
            _ => None,
        });
        assert!(messages.into_iter().any(|message| message == words), "{netflux}");
    }
}
