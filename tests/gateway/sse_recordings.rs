//! Replays of recordings of the Node.js servers with event streams (`tests/fixtures/sse`): the same requests
//! must give the same events, modulo ids. Each rule that changes a recording before the comparison is a
//! difference of `docs/reference/differences.md`.

use std::collections::{HashMap, HashSet};
use std::future::{Future as _, poll_fn};
use std::task::Poll;
use std::time::Duration;

use serde_json::Value;
use sigver::config::EnabledTransports;

use crate::common::TestGateway;
use crate::common::sse::{Answer, ask};

/// Time without an event after which a step is finished.
const QUIET_TIME: Duration = Duration::from_millis(80);

/// The compared part of the response to one request.
#[derive(Clone, Debug, Default, PartialEq)]
struct ReceivedEvent {
    head: Vec<String>,
    events: Vec<String>,
}

/// An action of a client.
#[derive(Debug)]
enum Step {
    Request(Request),
    /// Disconnects from the response to this request.
    Disconnect(usize),
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
    /// Expected responses, in the order of the requests.
    expected: Vec<ReceivedEvent>,
}

impl Scenario {
    fn requests(&self) -> impl Iterator<Item = (usize, &Request)> {
        let requests = self.steps.iter().filter_map(|step| match step {
            Step::Request(request) => Some(request),
            Step::Disconnect(_) => None,
        });
        requests.enumerate()
    }
}

/// Headers compared for event streams.
const HEADERS: [&str; 4] =
    ["access-control-allow-origin", "access-control-allow-credentials", "content-type", "cache-control"];

fn head(status: u64, header: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut head = vec![status.to_string()];
    if status == 200 {
        let values = HEADERS.iter().filter_map(|name| Some((name, header(name)?)));
        // C77: to a client without an origin, the Node.js server sent "undefined", where it did not crash.
        let sent = values.filter(|(_, value)| value != "undefined");
        head.extend(sent.map(|(name, value)| format!("{name}: {value}")));
    }
    head
}

fn recording(version: &str) -> Vec<Scenario> {
    let file = format!("{}/tests/fixtures/sse/{version}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(file).unwrap();
    let mut scenarios: Vec<Scenario> = Vec::new();
    // The latest request of each peer, to which its responses belong.
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
                scenario.expected.push(ReceivedEvent::default());
            }
            "http-head" => {
                let header = |name: &str| line["headers"][name].as_str().map(str::to_owned);
                scenario.expected[latest[&peer]].head = head(line["status"].as_u64().unwrap(), header);
            }
            "http-data" => scenario.expected[latest[&peer]].events.push(text("text")),
            "client-destroy" => scenario.steps.push(Step::Disconnect(latest[&peer])),
            _ => {}
        }
    }
    // Scenarios without valid HTTP requests, and that of twenty seconds, are in `tests/gateway/sse.rs`.
    scenarios.retain(|scenario| !scenario.steps.is_empty() && scenario.name != "keepalive");
    scenarios
}

/// Returns the number behind `mark`.
fn number_after(text: &str, mark: &str) -> Option<String> {
    let rest = &text[text.find(mark)? + mark.len()..];
    let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (!number.is_empty()).then_some(number)
}

/// Returns all ids in a text, in order.
fn ids(text: &str) -> Vec<String> {
    let marks = ["\"id\":", "event: auth\ndata: ", "\"unavailable\":"];
    marks.into_iter().filter_map(|mark| number_after(text, mark)).collect()
}

/// Returns true if sigver 8.1 sends this error for a message, and not for the request for a stream.
fn is_about_a_message(event: &str) -> bool {
    let marks = ["\"error\":4020", "\"error\":4022", "\"error\":4023", "\"id\":undefined"];
    marks.into_iter().any(|mark| event.contains(mark))
}

/// Returns the streams whose clients sent messages.
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

/// Applies the differences of `docs/reference/differences.md` to the expected responses of a scenario.
fn apply_differences(version: &str, scenario: &mut Scenario) {
    let senders = senders(scenario);
    let changed = scenario.requests().map(|(at, request)| {
        let mut got = scenario.expected[at].clone();
        let status = match (&*request.method, version) {
            // C78: the Node.js server responded 404, so that browsers gave up.
            ("OPTIONS", _) => Some("204"),
            // C78: the Node.js server responded 403, with a text about CORS.
            ("POST", "8.1.0") => Some("404"),
            _ => None,
        };
        if let Some(status) = status {
            return ReceivedEvent { head: vec![status.to_owned()], events: Vec::new() };
        }
        let sends = request.path.contains("myId=");
        let mut before = 0;
        got.events.retain(|event| {
            before += 1;
            // C70: the Node.js server sent errors to all clients.
            let concerns = if is_about_a_message(event) {
                senders.contains(&at)
            } else {
                !event.contains("\"error\":") || (before == 2 && !sends)
            };
            // C72: internal errors of the Node.js server.
            concerns && !(event.starts_with("event: close\ndata: {\"reason\":"))
        });
        for event in &mut got.events {
            if event.contains("\"id\":undefined") {
                // C71: the event of the Node.js server was not JSON.
                *event = "data: {\"error\":4021,\"message\":\"JOINING_NO_LONGER_AVAILABLE: \
                          Joining is no longer available\"}\n\n"
                    .to_owned();
            }
            event.truncate(event.trim_end_matches('\n').len());
        }
        // C73: nothing follows a close event.
        if let Some(close) = got.events.iter().position(|event| event.starts_with("event: close")) {
            got.events.truncate(close + 1);
        }
        got
    });
    scenario.expected = changed.collect();
}

/// Plays a scenario. Returns the responses, with the ids of the recording.
async fn play(gateway: &TestGateway, scenario: &Scenario) -> Vec<ReceivedEvent> {
    // From ids of the gateway to those of the recording.
    let mut names: HashMap<String, String> = HashMap::new();
    let mut answers: Vec<Option<Answer>> = Vec::new();
    let mut got: Vec<ReceivedEvent> = Vec::new();
    for step in &scenario.steps {
        match step {
            Step::Disconnect(at) => answers[*at] = None,
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
                got.push(ReceivedEvent { head, events: Vec::new() });
                answers.push(Some(answer));
            }
        }
        receive(&mut answers, &mut got).await;
        for (theirs, ours) in scenario.expected.iter().zip(&got) {
            for (theirs, ours) in theirs.events.iter().zip(&ours.events) {
                // Shorter numbers were chosen by the client.
                names.extend(ids(ours).into_iter().zip(ids(theirs)).filter(|(_, id)| id.len() > 3));
            }
        }
    }
    for got in got.iter_mut().flat_map(|got| &mut got.events) {
        *got = names.iter().fold(got.clone(), |text, (ours, theirs)| text.replace(ours, theirs));
    }
    got
}

/// Receives events on all streams until none is received for a moment.
async fn receive(answers: &mut [Option<Answer>], got: &mut [ReceivedEvent]) {
    loop {
        let open = answers.iter_mut().enumerate();
        let open = open.filter_map(|(at, answer)| answer.as_mut().map(|answer| (at, answer)));
        let mut next: Vec<_> =
            open.map(|(at, answer)| Box::pin(async move { (at, answer.next().await) })).collect();
        let first = poll_fn(|context| {
            let ready = next.iter_mut().find_map(|next| match next.as_mut().poll(context) {
                Poll::Ready(event) => Some(event),
                Poll::Pending => None,
            });
            ready.map_or(Poll::Pending, Poll::Ready)
        });
        let Ok((at, event)) = tokio::time::timeout(QUIET_TIME, first).await else { return };
        drop(next);
        match event {
            // C74: the event that stops a browser from reconnecting is not delivered to the page.
            Some(event) if event == "event: sent\nid: last\ndata: ok" => {}
            Some(event) => got[at].events.push(event.replace("id: last\n", "")),
            None => answers[at] = None,
        }
    }
}

async fn replay(version: &str) {
    let mut scenarios = recording(version);
    assert!(scenarios.len() > 10, "{}", scenarios.len());
    let mut wrong = Vec::new();
    for scenario in &mut scenarios {
        apply_differences(version, scenario);
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
async fn replays_sigver_8_1_0() {
    replay("8.1.0").await;
}

#[tokio::test]
async fn replays_sigver_9_1_0() {
    replay("9.1.0").await;
}

#[tokio::test]
async fn replays_sigver_10_1_0() {
    replay("10.1.0").await;
}
