//! What the originals with event streams did, played again: the requests of the recordings in `tests/fixtures/sse`, and
//! the events that came of them, modulo ids. Each rule by which a recording is changed before it is compared is a
//! difference of `docs/reference/differences.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod common;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use common::TestGateway;
use common::sse::{Answer, ask};
use serde_json::Value;
use sigver::config::EnabledTransports;

/// What one request got, as it is compared.
#[derive(Clone, Debug, Default, PartialEq)]
struct Got {
    head: Vec<String>,
    events: Vec<String>,
}

/// What a client does.
#[derive(Debug)]
enum Step {
    Request(Request),
    /// It goes away from the answer to this request.
    Destroy(usize),
}

#[derive(Debug)]
struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

struct Scenario {
    name: String,
    steps: Vec<Step>,
    /// By request, in order.
    expected: Vec<Got>,
}

impl Scenario {
    fn requests(&self) -> impl Iterator<Item = (usize, &Request)> {
        let requests = self.steps.iter().filter_map(|step| match step {
            Step::Request(request) => Some(request),
            Step::Destroy(_) => None,
        });
        requests.enumerate()
    }
}

/// Headers that are compared, where the original has an event stream.
const HEADERS: [&str; 4] =
    ["access-control-allow-origin", "access-control-allow-credentials", "content-type", "cache-control"];

fn head(status: u64, header: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut head = vec![status.to_string()];
    if status == 200 {
        let values = HEADERS.iter().filter_map(|name| Some((name, header(name)?)));
        // C77: to a client without an origin, "undefined" was said, where that was no crash.
        let said = values.filter(|(_, value)| value != "undefined");
        head.extend(said.map(|(name, value)| format!("{name}: {value}")));
    }
    head
}

fn recording(version: &str) -> Vec<Scenario> {
    let file = format!("{}/tests/fixtures/sse/{version}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(file).unwrap();
    let mut scenarios: Vec<Scenario> = Vec::new();
    // Which request a peer's answers belong to: its latest.
    let mut latest: HashMap<String, usize> = HashMap::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let name = text("sc");
        if scenarios.last().is_none_or(|scenario| scenario.name != name) {
            latest.clear();
            scenarios.push(Scenario { name, steps: Vec::new(), expected: Vec::new() });
        }
        let scenario = scenarios.last_mut().unwrap();
        let peer = text("peer");
        match &*text("dir") {
            "http-request" => {
                let headers = line["headers"].as_object().unwrap().iter();
                let headers = headers.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
                let path = text("path").replace("...(520 chars)", &"k".repeat(490));
                let (method, headers, body) = (text("method"), headers.collect(), text("body"));
                scenario.steps.push(Step::Request(Request { method, path, headers, body }));
                latest.insert(peer.clone(), scenario.expected.len());
                scenario.expected.push(Got::default());
            }
            "http-head" => {
                let header = |name: &str| line["headers"][name].as_str().map(str::to_owned);
                scenario.expected[latest[&peer]].head = head(line["status"].as_u64().unwrap(), header);
            }
            "http-data" => scenario.expected[latest[&peer]].events.push(text("text")),
            "client-destroy" => scenario.steps.push(Step::Destroy(latest[&peer])),
            _ => {}
        }
    }
    // What is no request of HTTP's, or takes twenty seconds, is in `tests/sse.rs`.
    scenarios.retain(|scenario| !scenario.steps.is_empty() && scenario.name != "keepalive");
    scenarios
}

/// The number behind a mark in a text.
fn number_after(text: &str, mark: &str) -> Option<String> {
    let rest = &text[text.find(mark)? + mark.len()..];
    let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (!number.is_empty()).then_some(number)
}

/// All ids that a text may tell, in order.
fn ids(text: &str) -> Vec<String> {
    let marks = ["\"id\":", "event: auth\ndata: ", "\"unavailable\":"];
    marks.into_iter().filter_map(|mark| number_after(text, mark)).collect()
}

/// Whether sigver 8.1 says this of a frame that was sent, and not of the request for a stream.
fn is_about_a_frame(event: &str) -> bool {
    let marks = ["\"error\":4020", "\"error\":4022", "\"error\":4023", "\"id\":undefined"];
    marks.into_iter().any(|mark| event.contains(mark))
}

/// The streams by whose clients something was sent.
fn senders(scenario: &Scenario) -> HashSet<usize> {
    let mut streams = HashMap::new();
    let mut senders = HashSet::new();
    for (at, request) in scenario.requests() {
        if let Some(id) = number_after(&request.path, "myId=") {
            senders.extend(streams.get(&id).copied());
        }
        for event in &scenario.expected[at].events {
            ids(event).into_iter().for_each(|id| {
                streams.entry(id).or_insert(at);
            });
        }
    }
    senders
}

/// Changes what a scenario expects to what this server does by `docs/reference/differences.md`.
fn change(version: &str, scenario: &mut Scenario) {
    let senders = senders(scenario);
    let changed = scenario.requests().map(|(at, request)| {
        let mut got = scenario.expected[at].clone();
        let status = match (&*request.method, version) {
            // C78: it was 404, so that browsers gave up.
            ("OPTIONS", _) => Some("204"),
            // C78: it was 403, with a line about CORS.
            ("POST", "8.1.0") => Some("404"),
            _ => None,
        };
        if let Some(status) = status {
            return Got { head: vec![status.to_owned()], events: Vec::new() };
        }
        let sends = request.path.contains("myId=");
        let mut before = 0;
        got.events.retain(|event| {
            before += 1;
            // C70: errors were shown to everybody.
            let concerns = if is_about_a_frame(event) {
                senders.contains(&at)
            } else {
                !event.contains("\"error\":") || (before == 2 && !sends)
            };
            // C72: errors of the original within itself.
            concerns && !(event.starts_with("event: close\ndata: {\"reason\":"))
        });
        for event in &mut got.events {
            if event.contains("\"id\":undefined") {
                // C71: this was no JSON.
                *event = "data: {\"error\":4021,\"message\":\"JOINING_NO_LONGER_AVAILABLE: \
                          Joining is no longer available\"}\n\n"
                    .to_owned();
            }
            event.truncate(event.trim_end_matches('\n').len());
        }
        // C73: after a close event there is nothing more.
        if let Some(close) = got.events.iter().position(|event| event.starts_with("event: close")) {
            got.events.truncate(close + 1);
        }
        got
    });
    scenario.expected = changed.collect();
}

/// Plays a scenario, and says what each request got, with the ids of the recording.
async fn play(gateway: &TestGateway, scenario: &Scenario) -> Vec<Got> {
    // Our ids, and those of the recording.
    let mut names: HashMap<String, String> = HashMap::new();
    let mut answers: Vec<Option<Answer>> = Vec::new();
    let mut got: Vec<Got> = Vec::new();
    for step in &scenario.steps {
        match step {
            Step::Destroy(at) => answers[*at] = None,
            Step::Request(Request { method, path, headers, body }) => {
                let ours = |text: &String| {
                    names.iter().fold(text.clone(), |text, (ours, theirs)| text.replace(theirs, ours))
                };
                let mut headers: Vec<(&str, &str)> =
                    headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                headers.push(("Accept", "text/event-stream"));
                let mut answer = ask(gateway.address, method, &ours(path), &headers, &ours(body)).await;
                let head = head(answer.status.into(), |name| answer.header(name).map(str::to_owned));
                if answer.status != 200 {
                    answer.text().await;
                }
                got.push(Got { head, events: Vec::new() });
                answers.push(Some(answer));
            }
        }
        listen(&mut answers, &mut got).await;
        for (theirs, ours) in scenario.expected.iter().zip(&got) {
            for (theirs, ours) in theirs.events.iter().zip(&ours.events) {
                // A number as short as that was made up by the client.
                names.extend(ids(ours).into_iter().zip(ids(theirs)).filter(|(_, id)| id.len() > 3));
            }
        }
    }
    for got in got.iter_mut().flat_map(|got| &mut got.events) {
        *got = names.iter().fold(got.clone(), |text, (ours, theirs)| text.replace(ours, theirs));
    }
    got
}

/// Takes in what comes, until nothing came for a moment.
async fn listen(answers: &mut [Option<Answer>], got: &mut [Got]) {
    let quiet = Duration::from_millis(80);
    let mut until = Instant::now() + quiet;
    while Instant::now() < until {
        for (answer, got) in answers.iter_mut().zip(got.iter_mut()) {
            while let Some(stream) = answer
                && let Ok(next) = tokio::time::timeout(Duration::from_millis(5), stream.next()).await
            {
                until = Instant::now() + quiet;
                match next {
                    // C74: what tells a browser not to come back is nothing to the page.
                    Some(event) if event == "id: last" => {}
                    Some(event) => got.events.push(event.replace("id: last\n", "")),
                    None => *answer = None,
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn replay(version: &str) {
    let mut scenarios = recording(version);
    assert!(scenarios.len() > 10, "{}", scenarios.len());
    let mut wrong = Vec::new();
    for scenario in &mut scenarios {
        change(version, scenario);
        let gateway = TestGateway::configured(|config| {
            config.protocol = format!("sigver-{version}").parse().unwrap();
            config.transports = EnabledTransports::EventStream;
        })
        .await;
        let got = play(&gateway, scenario).await;
        gateway.stop().await;
        for ((at, request), got) in scenario.requests().zip(&got) {
            let expected = &scenario.expected[at];
            if got != expected {
                wrong.push(format!("{}: {request:?}\n  - {expected:?}\n  + {got:?}", scenario.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn as_sigver_8_1_0() {
    replay("8.1.0").await;
}

#[tokio::test]
async fn as_sigver_9_1_0() {
    replay("9.1.0").await;
}

#[tokio::test]
async fn as_sigver_10_1_0() {
    replay("10.1.0").await;
}
