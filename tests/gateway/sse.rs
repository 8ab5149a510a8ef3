//! Event streams end to end, and the differences from those of sigver 8.1, 9 and 10.
//! `tests/gateway/sse_recordings.rs` compares with recordings of these.

use std::time::{Duration, Instant};

use sigver::config::EnabledTransports;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::common::sse::{Answer, ask, ask_on};
use crate::common::ws::{Got, Ws, request};
use crate::common::{TestGateway, eventually, soon};

const EVENTS: (&str, &str) = ("Accept", "text/event-stream");
const ORIGIN: (&str, &str) = ("Origin", "http://app.example");

impl TestGateway {
    async fn get(&self, path: &str) -> Answer {
        ask(self.address, "GET", path, &[EVENTS, ORIGIN], "").await
    }

    async fn post(&self, body: &str) -> Answer {
        ask(self.address, "POST", "/", &[ORIGIN], body).await
    }

    /// Opens a stream of sigver 9. Returns it and its id.
    async fn auth(&self) -> (Answer, String) {
        let mut stream = self.get("/").await;
        stream.expect(&[":ok"]).await;
        let auth = stream.event().await;
        let id = auth.strip_prefix("event: auth\ndata: ").expect(&auth).to_owned();
        (stream, id)
    }

    async fn send(&self, id: &str, message: &str) {
        let mut answer = self.post(&format!("{id}@{message}")).await;
        assert_eq!((answer.status, &*answer.text().await), (200, ""));
    }

    /// Opens a stream of sigver 8.1, whose key is accepted. Returns it and its id.
    async fn query(&self, query: &str) -> (Answer, String) {
        let mut stream = self.get(&format!("/?{query}")).await;
        stream.expect(&[":ok"]).await;
        let accepted = stream.event().await;
        let id = accepted.strip_prefix("data: {\"isKeyOk\":true,\"id\":").expect(&accepted);
        let id = id.strip_suffix('}').unwrap().to_owned();
        (stream, id)
    }

    async fn only_events(protocol: &str) -> TestGateway {
        TestGateway::configured(|config| {
            config.protocol = protocol.parse().unwrap();
            config.transports = EnabledTransports::EventStream;
        })
        .await
    }
}

/// Returns the id of the joiner in an event for an opener.
fn joiner(event: &str) -> String {
    let rest = event.strip_prefix("data: {\"id\":").expect(event);
    rest.split(',').next().unwrap().to_owned()
}

#[tokio::test]
async fn sigver_8_clients_exchange_messages_by_get() {
    let gateway = TestGateway::start("auto").await;
    let (mut opener, opener_id) = gateway.query("open=k").await;
    let (mut joining, joiner_id) = gateway.query("join=k").await;
    let mut sent = gateway.get(&format!("/?data=a%26b&myId={joiner_id}")).await;
    assert_eq!(sent.header("content-type"), Some("text/event-stream;charset=UTF-8"));
    assert_eq!(sent.header("x-accel-buffering"), Some("no"));
    sent.expect(&[":ok"]).await;
    let event = opener.event().await;
    let link = joiner(&event);
    assert_eq!(event, format!("data: {{\"id\":{link},\"data\":\"a&b\"}}"));
    // A page that sends by fetch accepts anything.
    let path = format!("/?data=%7B%7D&id={link}&myId={opener_id}");
    let mut sent = ask(gateway.address, "GET", &path, &[ORIGIN], "").await;
    sent.expect(&[":ok", "event: sent\nid: last\ndata: ok"]).await;
    joining.expect(&["data: {\"data\":\"{}\"}"]).await;
    gateway.stop().await;
}

#[tokio::test]
async fn sigver_9_clients_exchange_messages_by_post() {
    let gateway = TestGateway::start("auto").await;
    let (mut opener, opener_id) = gateway.auth().await;
    let (mut joining, joiner_id) = gateway.auth().await;
    gateway.send(&opener_id, "{\"open\":\"k\"}").await;
    opener.expect(&["data: {\"opened\":true}"]).await;
    gateway.send(&joiner_id, "{\"join\":\"k\"}").await;
    joining.expect(&["data: {\"opened\":false}"]).await;
    gateway.send(&joiner_id, "{\"data\":{\"at\":\"a@b\\n\"}}").await;
    let event = opener.event().await;
    let link = joiner(&event);
    assert_eq!(event, format!("data: {{\"id\":{link},\"data\":{{\"at\":\"a@b\\n\"}}}}"));
    gateway.send(&opener_id, &format!("{{\"id\":{link},\"data\":1}}")).await;
    joining.expect(&["data: {\"data\":1}"]).await;
    gateway.stop().await;
}

#[tokio::test]
async fn sigver_9_0_confirms_keys_by_event() {
    let gateway = TestGateway::start("sigver-9.0.0").await;
    let (mut opener, opener_id) = gateway.auth().await;
    gateway.send(&opener_id, "{\"open\":\"k\"}").await;
    opener.expect(&["data: {\"isKeyOk\":true}"]).await;
    let (mut joining, joiner_id) = gateway.auth().await;
    gateway.send(&joiner_id, "{\"join\":\"k\"}").await;
    joining.expect(&["data: {\"isKeyOk\":true}"]).await;
    gateway.send(&joiner_id, "{\"data\":1}").await;
    assert!(opener.event().await.ends_with(",\"data\":1}"));
    gateway.stop().await;
}

#[tokio::test]
async fn both_variants_and_websockets_share_a_room() {
    let gateway = TestGateway::start("auto").await;
    let mut opener = gateway.ws("/").await;
    assert!(opener.text("{\"open\":\"k\"}").await);
    let Got::Text(_) = opener.message().await else { panic!("no answer") };
    let (mut by_query, id) = gateway.query("join=k").await;
    gateway.get(&format!("/?data=x&myId={id}")).await;
    let Got::Text(event) = opener.message().await else { panic!("no data") };
    let link = joiner(&format!("data: {event}"));
    assert!(opener.text(&format!("{{\"id\":{link},\"data\":\"y\"}}")).await);
    by_query.expect(&["data: {\"data\":\"y\"}"]).await;
    let (mut by_post, id) = gateway.auth().await;
    gateway.send(&id, "{\"join\":\"k\"}").await;
    by_post.expect(&["data: {\"opened\":false}"]).await;
    gateway.send(&id, "{\"data\":2}").await;
    assert!(matches!(opener.message().await, Got::Text(text) if text.ends_with(",\"data\":2}")));
    gateway.stop().await;
}

#[tokio::test]
async fn errors_are_sent_only_to_the_client_concerned() {
    let gateway = TestGateway::start("auto").await;
    let (mut opener, opener_id) = gateway.query("open=k").await;
    let (mut bystander, _) = gateway.query("open=other").await;
    let mut late = gateway.get("/?open=k").await;
    late.expect(&[
        ":ok",
        "id: last\ndata: {\"isKeyOk\":false,\"error\":4010,\
         \"message\":\"KEY_EXISTS: The key k has already been used for open\"}",
    ])
    .await;
    late.expect_end().await;
    let mut lost = gateway.get("/?join=nobody").await;
    let unknown = "id: last\ndata: {\"error\":4011,\"message\":\"KEY_UNKNOWN: Unknown key\"}";
    lost.expect(&[":ok", unknown]).await;
    lost.expect_end().await;
    // An error of an opener does not end its stream, as its joiners need it.
    let mut sent = gateway.get(&format!("/?data=x&id=7&myId={opener_id}")).await;
    opener
        .expect(&["data: {\"error\":4021,\
                   \"message\":\"JOINING_NO_LONGER_AVAILABLE: Joining is no longer available\"}"])
        .await;
    gateway.get(&format!("/?foo=x&myId={opener_id}")).await;
    opener.expect(&["data: {\"error\":4000,\"message\":\"MESSAGE_ERROR: Unknown message\"}"]).await;
    sent.expect(&[":ok", "event: sent\nid: last\ndata: ok"]).await;
    let (mut joining, joiner_id) = gateway.query("join=k").await;
    gateway.get(&format!("/?data=x&myId={joiner_id}")).await;
    opener.event().await;
    drop(opener);
    joining.expect_nothing().await;
    gateway.get(&format!("/?data=x&myId={joiner_id}")).await;
    joining
        .expect(&["data: {\"error\":4020,\
                   \"message\":\"OPENER_NO_LONGER_AVAILABLE: Opener is no longer available\"}"])
        .await;
    for stream in [&mut bystander, &mut sent, &mut joining] {
        stream.expect_nothing().await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn close_event_ends_the_stream_and_frees_the_key() {
    let gateway = TestGateway::start("auto").await;
    let (mut stream, id) = gateway.auth().await;
    gateway.send(&id, "{\"open\":\"k\"}").await;
    stream.expect(&["data: {\"opened\":true}"]).await;
    gateway.send(&id, "no JSON").await;
    stream
        .expect(&["event: close\nid: last\ndata: {\"code\":4000,\
                   \"reason\":\"MESSAGE_ERROR=4000: The message is not a JSON string\"}"])
        .await;
    stream.expect_end().await;
    // Messages for the closed stream are ignored.
    gateway.send(&id, "no JSON").await;
    gateway.send(&id, "{\"open\":\"k\"}").await;
    eventually("an empty hub", || gateway.rooms() == 0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn reconnecting_browser_gets_no_content() {
    let gateway = TestGateway::start("auto").await;
    let (mut opener, _) = gateway.query("open=k").await;
    let (_joining, id) = gateway.query("join=k").await;
    for path in [&*format!("/?data=x&myId={id}"), "/?open=k", "/"] {
        let again = [EVENTS, ORIGIN, ("Last-Event-ID", "last")];
        let mut answer = ask(gateway.address, "GET", path, &again, "").await;
        assert_eq!((answer.status, &*answer.text().await), (204, ""), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(ORIGIN.1));
        // event-source-polyfill has no header for it.
        let query = format!("{path}{}lastEventId=last", if path.contains('?') { "&" } else { "?" });
        let mut answer = ask(gateway.address, "GET", &query, &[EVENTS, ORIGIN], "").await;
        assert_eq!(
            (answer.status, &*answer.text().await),
            (410, "410 Gone: the event stream has ended\n"),
            "{query}"
        );
    }
    // The id of an event of another server begins a stream as no id does.
    ask(gateway.address, "GET", "/?lastEventId=7", &[EVENTS], "").await.expect(&[":ok"]).await;
    opener.expect_nothing().await;
    gateway.stop().await;
}

#[tokio::test]
async fn event_stream_requires_the_accept_header() {
    let gateway = TestGateway::start("auto").await;
    let plain = ask(gateway.address, "GET", "/", &[("Accept", "text/html, */*")], "").await.text().await;
    assert!(plain.starts_with("sigver: "), "{plain}");
    let plain = ask(gateway.address, "GET", "/?open=k", &[], "").await.text().await;
    assert!(plain.starts_with("sigver: "), "{plain}");
    assert_eq!(gateway.rooms(), 0);
    let several = ("Accept", "text/html, Text/Event-Stream;q=0.9");
    ask(gateway.address, "GET", "/", &[several], "").await.expect(&[":ok"]).await;
    assert_eq!(gateway.get("/abc").await.status, 426);
    let mut without_id = gateway.post("1{\"open\":\"k\"}").await;
    assert_eq!(without_id.status, 404);
    assert!(
        without_id.text().await.contains("the body has to be the id of an event stream, @ and a message")
    );
    assert_eq!(ask(gateway.address, "PUT", "/", &[EVENTS], "").await.status, 404);
    assert_eq!(ask(gateway.address, "HEAD", "/", &[EVENTS], "").await.status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn event_streams_require_their_dialects() {
    for (protocol, query, auth) in [
        ("sigver-20", false, false),
        ("sigver-8.0.2", false, false),
        ("sigver-8", true, false),
        ("sigver-9.0.1", false, true),
        ("sigver-9.1.0", false, true),
        ("json", true, true),
    ] {
        let gateway = TestGateway::start(protocol).await;
        let streams =
            |answer: Answer| answer.header("content-type").unwrap().starts_with("text/event-stream");
        assert_eq!(streams(gateway.get("/?open=k").await), query, "{protocol}");
        assert_eq!(streams(gateway.get("/").await), auth, "{protocol}");
        assert_eq!(gateway.post("1@{}").await.status, if auth { 200 } else { 404 }, "{protocol}");
        gateway.stop().await;
    }
    let gateway = TestGateway::configured(|config| config.transports = EnabledTransports::WebSocket).await;
    assert_eq!(gateway.get("/").await.header("content-type"), Some("text/plain; charset=utf-8"));
    drop(gateway.ws("/k").await);
    gateway.stop().await;
}

#[tokio::test]
async fn exclusive_event_streams_need_no_accept_header() {
    let gateway = TestGateway::only_events("auto").await;
    let page = [ORIGIN, ("Referer", "http://app.example/"), ("Last-Event-ID", "7")];
    for header in page {
        let mut stream = ask(gateway.address, "GET", "/", &[header], "").await;
        stream.expect(&[":ok"]).await;
        let origin = stream.header("access-control-allow-origin");
        assert_eq!(origin, (header == ORIGIN).then_some(ORIGIN.1));
    }
    ask(gateway.address, "GET", "/?open=k", &[], "").await.expect(&[":ok"]).await;
    // What is not from a page is a health check, whose response must end.
    let mut check = ask(gateway.address, "GET", "/", &[("Accept", "*/*")], "").await;
    assert_eq!(check.status, 200);
    assert!(check.text().await.starts_with("sigver: "));
    for request in [request("/"), request("/k"), "GET /k HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()] {
        let mut answer = ask_on(gateway.tcp().await, &request).await;
        // On the path of the streams, an upgrade is a plain GET.
        if request.starts_with("GET / ") {
            assert_eq!(answer.status, 200);
            assert!(answer.text().await.starts_with("sigver: "));
        } else {
            assert_eq!(answer.status, 404);
            assert!(answer.text().await.starts_with("404 Not Found: this server serves event streams only"));
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn preflight_requests_are_answered() {
    let gateway = TestGateway::start("auto").await;
    let asked = [
        ORIGIN,
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type"),
    ];
    let answer = ask(gateway.address, "OPTIONS", "/", &asked, "").await;
    assert_eq!(answer.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", ORIGIN.1),
        ("access-control-allow-methods", "GET, POST"),
        ("access-control-allow-headers", "content-type"),
        ("access-control-allow-credentials", "true"),
        ("vary", "Origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    // Without an origin, there are no CORS headers.
    let answer = ask(gateway.address, "OPTIONS", "/", &asked[1..], "").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, None));
    let answer = ask(gateway.address, "POST", "/", &[], "1@{}").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None));
    assert_eq!(ask(gateway.address, "OPTIONS", "/", &[ORIGIN], "").await.status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn ids_are_safe_integers_and_valid_for_one_variant() {
    let gateway = TestGateway::start("auto").await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        let (_stream, id) = gateway.auth().await;
        ids.push(id.parse::<u64>().unwrap());
    }
    assert!(ids.iter().all(|id| *id < 1 << 53));
    assert!(ids.iter().any(|id| *id > 1 << 50));
    let (_opener, opener_id) = gateway.query("open=k").await;
    let (mut stream, id) = gateway.auth().await;
    gateway.send(&opener_id, "{\"open\":\"k2\"}").await;
    gateway.get(&format!("/?data=x&myId={id}")).await;
    stream.expect_nothing().await;
    assert_eq!(gateway.rooms(), 1);
    gateway.stop().await;
}

#[tokio::test]
async fn disconnect_removes_room() {
    let gateway = TestGateway::start("auto").await;
    let (stream, _) = gateway.query("open=k").await;
    assert_eq!(gateway.rooms(), 1);
    drop(stream);
    eventually("an empty hub", || gateway.rooms() == 0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn oversized_messages_are_rejected() {
    let gateway = TestGateway::configured(|config| config.max_message = 1000).await;
    let (mut stream, id) = gateway.auth().await;
    gateway.send(&id, &format!("{:1000}", "{\"open\":\"k\"}")).await;
    stream.expect(&["data: {\"opened\":true}"]).await;
    for length in [1001, 2000, 60_000] {
        let answer = gateway.post(&format!("{id}@{:length$}", "{\"open\":\"k\"}")).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (413, Some(ORIGIN.1)));
    }
    // Also without a Content-Length.
    let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("800\r\n{:2048}\r\n0\r\n\r\n", format!("{id}@{{}}"));
    assert_eq!(ask_on(gateway.tcp().await, &format!("{head}{chunk}")).await.status, 413);
    stream.expect_nothing().await;
    gateway.stop().await;
}

#[tokio::test]
async fn client_that_posts_to_a_slow_stream_waits_and_the_stream_stays() {
    let gateway = TestGateway::configured(|config| {
        config.max_message = 64 * 1024;
        config.max_pending = 256 * 1024;
    })
    .await;
    let (mut opener, opener_id) = gateway.auth().await;
    gateway.send(&opener_id, "{\"open\":\"k\"}").await;
    let (mut joining, joiner_id) = gateway.auth().await;
    gateway.send(&joiner_id, "{\"join\":\"k\"}").await;
    joining.expect(&["data: {\"opened\":false}"]).await;
    // The opener reads no more. The kernel buffers some MiB for it.
    let data = format!("{{\"data\":\"{}\"}}", "x".repeat(60 * 1024));
    let mut sent = 0;
    let mut waiting = loop {
        let (address, body) = (gateway.address, format!("{joiner_id}@{data}"));
        let mut post = tokio::spawn(async move { ask(address, "POST", "/", &[ORIGIN], &body).await.status });
        match tokio::time::timeout(Duration::from_secs(1), &mut post).await {
            Ok(status) => assert_eq!(status.unwrap(), 200),
            Err(_) => break post,
        }
        sent += 1;
        assert!(sent < 500, "the sender never waits");
    };
    // Another client is served, and the opener is not closed: it receives all of it.
    let (_other, other_id) = gateway.auth().await;
    gateway.send(&other_id, "{\"open\":\"other\"}").await;
    let mut received = 0;
    while received <= sent {
        let event = soon("an event", opener.event()).await;
        received += usize::from(event.contains("xxxx"));
    }
    assert_eq!(soon("the answer", &mut waiting).await.unwrap(), 200);
    // The shutdown does not wait for anyone.
    gateway.stop().await;
}

#[tokio::test]
async fn shutdown_ends_streams_at_once() {
    let gateway = TestGateway::start("auto").await;
    let (mut by_query, id) = gateway.query("open=k").await;
    let (mut by_post, _) = gateway.auth().await;
    let mut sent = gateway.get(&format!("/?data=x&myId={id}")).await;
    sent.expect(&[":ok", "event: sent\nid: last\ndata: ok"]).await;
    by_query.event().await;
    // A client within a request.
    let mut half = gateway.tcp().await;
    half.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n1@").await.unwrap();
    let begin = Instant::now();
    gateway.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    for stream in [&mut by_query, &mut by_post, &mut sent] {
        stream.expect_end().await;
    }
    let mut rest = Vec::new();
    let _ = soon("the end", half.read_to_end(&mut rest)).await;
    assert_eq!(rest, b"");
}

/// Takes the twenty seconds of the interval.
#[tokio::test]
async fn idle_stream_gets_comments_and_a_get_that_sends_ends() {
    let gateway = TestGateway::start("auto").await;
    let (mut stream, _) = gateway.auth().await;
    let (mut opener, id) = gateway.query("open=k").await;
    let mut sent = gateway.get(&format!("/?data=x&id=1&myId={id}")).await;
    sent.expect(&[":ok", "event: sent\nid: last\ndata: ok"]).await;
    opener.event().await;
    let begin = Instant::now();
    let end = tokio::time::timeout(Duration::from_secs(18), sent.next()).await;
    assert_eq!(end.expect("the response ends before the first comment"), None);
    for stream in [&mut stream, &mut opener] {
        let comment = tokio::time::timeout(Duration::from_secs(30), stream.next()).await.unwrap();
        assert_eq!(comment.unwrap(), ":");
    }
    let after = begin.elapsed();
    assert!((18..25).contains(&after.as_secs()), "{after:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let gateway = TestGateway::start("auto").await;
    let (mut stream, id) = gateway.auth().await;
    let post = |message: &str| {
        let body = format!("{id}@{message}");
        format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let mut tcp = gateway.tcp().await;
    let many = [post("{\"open\":\"k\"}"), post("{\"join\":\"k\"}"), request("/k")].concat();
    tcp.write_all(many.as_bytes()).await.unwrap();
    stream.expect(&["data: {\"opened\":true}", "data: {\"opened\":false}"]).await;
    let mut answers = String::new();
    while !answers.contains("101 Switching Protocols") {
        answers.push(soon("an answer", tcp.read_u8()).await.unwrap().into());
    }
    assert_eq!(answers.matches("200 OK").count(), 2, "{answers}");
    drop(tcp);
    drop(Ws::open(gateway.tcp().await, "/k").await);
    gateway.stop().await;
}
