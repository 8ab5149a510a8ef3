//! Event streams end to end, and where they differ from those of sigver 8.1, 9 and 10. What is the same, the recordings
//! show in `tests/sse_recordings.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod common;

use std::time::{Duration, Instant};

use common::sse::{Answer, ask, ask_on};
use common::ws::{Got, Ws, request};
use common::{TestGateway, soon};
use sigver::config::EnabledTransports;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const EVENTS: (&str, &str) = ("Accept", "text/event-stream");
const ORIGIN: (&str, &str) = ("Origin", "http://app.example");

impl TestGateway {
    async fn get(&self, path: &str) -> Answer {
        ask(self.address, "GET", path, &[EVENTS, ORIGIN], "").await
    }

    async fn post(&self, body: &str) -> Answer {
        ask(self.address, "POST", "/", &[ORIGIN], body).await
    }

    /// A stream in the style of sigver 9, and its id.
    async fn auth(&self) -> (Answer, String) {
        let mut stream = self.get("/").await;
        stream.expect(&[":ok"]).await;
        let auth = stream.event().await;
        let id = auth.strip_prefix("event: auth\ndata: ").expect(&auth).to_owned();
        (stream, id)
    }

    async fn say(&self, id: &str, message: &str) {
        let mut answer = self.post(&format!("{id}@{message}")).await;
        assert_eq!((answer.status, &*answer.text().await), (200, ""));
    }

    /// A stream in the style of sigver 8.1 that got its key, and its id.
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

/// The id of a joiner in an event that an opener got.
fn joiner(event: &str) -> String {
    let rest = event.strip_prefix("data: {\"id\":").expect(event);
    rest.split(',').next().unwrap().to_owned()
}

#[tokio::test]
async fn two_clients_of_sigver_8_talk_by_queries() {
    let gateway = TestGateway::start("auto").await;
    let (mut opener, opener_id) = gateway.query("open=k").await;
    let (mut joining, joiner_id) = gateway.query("join=k").await;
    let mut sent = gateway.get(&format!("/?data=a%26b&myId={joiner_id}")).await;
    assert_eq!(sent.header("content-type"), Some("text/event-stream;charset=UTF-8"));
    sent.expect(&[":ok"]).await;
    let event = opener.event().await;
    let link = joiner(&event);
    assert_eq!(event, format!("data: {{\"id\":{link},\"data\":\"a&b\"}}"));
    // A page that sends by fetch accepts anything.
    let path = format!("/?data=%7B%7D&id={link}&myId={opener_id}");
    let mut sent = ask(gateway.address, "GET", &path, &[ORIGIN], "").await;
    sent.expect(&[":ok", "id: last"]).await;
    joining.expect(&["data: {\"data\":\"{}\"}"]).await;
    gateway.stop().await;
}

#[tokio::test]
async fn two_clients_of_sigver_9_talk_by_posts() {
    let gateway = TestGateway::start("auto").await;
    let (mut opener, opener_id) = gateway.auth().await;
    let (mut joining, joiner_id) = gateway.auth().await;
    gateway.say(&opener_id, "{\"open\":\"k\"}").await;
    opener.expect(&["data: {\"opened\":true}"]).await;
    gateway.say(&joiner_id, "{\"join\":\"k\"}").await;
    joining.expect(&["data: {\"opened\":false}"]).await;
    gateway.say(&joiner_id, "{\"data\":{\"at\":\"a@b\\n\"}}").await;
    let event = opener.event().await;
    let link = joiner(&event);
    assert_eq!(event, format!("data: {{\"id\":{link},\"data\":{{\"at\":\"a@b\\n\"}}}}"));
    gateway.say(&opener_id, &format!("{{\"id\":{link},\"data\":1}}")).await;
    joining.expect(&["data: {\"data\":1}"]).await;
    gateway.stop().await;
}

#[tokio::test]
async fn both_styles_and_websockets_meet_in_one_room() {
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
    gateway.say(&id, "{\"join\":\"k\"}").await;
    by_post.expect(&["data: {\"opened\":false}"]).await;
    gateway.say(&id, "{\"data\":2}").await;
    assert!(matches!(opener.message().await, Got::Text(text) if text.ends_with(",\"data\":2}")));
    gateway.stop().await;
}

#[tokio::test]
async fn errors_are_told_to_whom_they_concern_and_nobody_else() {
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
    // An opener lives on whatever it says: its joiners need it.
    let mut sent = gateway.get(&format!("/?data=x&id=7&myId={opener_id}")).await;
    opener
        .expect(&["data: {\"error\":4021,\
                   \"message\":\"JOINING_NO_LONGER_AVAILABLE: Joining is no longer available\"}"])
        .await;
    gateway.get(&format!("/?foo=x&myId={opener_id}")).await;
    opener.expect(&["data: {\"error\":4000,\"message\":\"MESSAGE_ERROR: Unknown message\"}"]).await;
    sent.expect(&[":ok", "id: last"]).await;
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
async fn after_a_close_event_the_stream_ends_and_the_key_is_free() {
    let gateway = TestGateway::start("auto").await;
    let (mut stream, id) = gateway.auth().await;
    gateway.say(&id, "{\"open\":\"k\"}").await;
    stream.expect(&["data: {\"opened\":true}"]).await;
    gateway.say(&id, "no JSON").await;
    stream
        .expect(&["event: close\nid: last\ndata: {\"code\":4000,\
                   \"reason\":\"MESSAGE_ERROR=4000: The message is not a JSON string\"}"])
        .await;
    stream.expect_end().await;
    // To err again is no crash, and no news.
    gateway.say(&id, "no JSON").await;
    gateway.say(&id, "{\"open\":\"k\"}").await;
    while gateway.rooms() > 0 {
        tokio::task::yield_now().await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_browser_that_asks_again_by_itself_is_told_not_to() {
    let gateway = TestGateway::start("auto").await;
    let (mut opener, _) = gateway.query("open=k").await;
    let (_joining, id) = gateway.query("join=k").await;
    for path in [&*format!("/?data=x&myId={id}"), "/?open=k", "/"] {
        let again = [EVENTS, ORIGIN, ("Last-Event-ID", "last")];
        let mut answer = ask(gateway.address, "GET", path, &again, "").await;
        assert_eq!((answer.status, &*answer.text().await), (204, ""), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(ORIGIN.1));
    }
    opener.expect_nothing().await;
    gateway.stop().await;
}

#[tokio::test]
async fn only_who_asks_for_events_gets_them() {
    let gateway = TestGateway::start("auto").await;
    let plain = ask(gateway.address, "GET", "/", &[("Accept", "text/html, */*")], "").await.text().await;
    assert!(plain.starts_with("sigver: "), "{plain}");
    let plain = ask(gateway.address, "GET", "/?open=k", &[], "").await.text().await;
    assert!(plain.starts_with("sigver: "), "{plain}");
    assert_eq!(gateway.rooms(), 0);
    let several = ("Accept", "text/html, Text/Event-Stream;q=0.9");
    ask(gateway.address, "GET", "/", &[several], "").await.expect(&[":ok"]).await;
    assert_eq!(gateway.get("/abc").await.status, 426);
    assert_eq!(gateway.post("1{\"open\":\"k\"}").await.status, 404);
    assert_eq!(ask(gateway.address, "PUT", "/", &[EVENTS], "").await.status, 404);
    assert_eq!(ask(gateway.address, "HEAD", "/", &[EVENTS], "").await.status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn without_their_dialects_there_are_no_event_streams() {
    for (protocol, query, auth) in [
        ("sigver-20", false, false),
        ("sigver-8.0.2", false, false),
        ("sigver-8", true, false),
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
async fn where_only_event_streams_are_served_nobody_has_to_ask_for_them() {
    let gateway = TestGateway::only_events("auto").await;
    let mut stream = ask(gateway.address, "GET", "/", &[], "").await;
    stream.expect(&[":ok"]).await;
    assert_eq!(stream.header("access-control-allow-origin"), None);
    ask(gateway.address, "GET", "/?open=k", &[], "").await.expect(&[":ok"]).await;
    for request in [request("/"), request("/k"), "GET /k HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()] {
        let mut answer = ask_on(gateway.tcp().await, &request).await;
        let websocket = answer.status == 200;
        // An upgrade on the path of the streams is a GET like any other.
        if websocket {
            answer.expect(&[":ok"]).await;
        } else {
            assert_eq!(answer.status, 404);
            assert!(answer.text().await.starts_with("404 Not Found: this server speaks event streams only"));
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn pages_of_other_origins_may_ask_first() {
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
    // Without an origin nothing is allowed, and nothing breaks.
    let answer = ask(gateway.address, "OPTIONS", "/", &asked[1..], "").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, None));
    let answer = ask(gateway.address, "POST", "/", &[], "1@{}").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None));
    assert_eq!(ask(gateway.address, "OPTIONS", "/", &[ORIGIN], "").await.status, 404);
    gateway.stop().await;
}

#[tokio::test]
async fn ids_are_long_exact_in_a_page_and_of_one_style() {
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
    gateway.say(&opener_id, "{\"open\":\"k2\"}").await;
    gateway.get(&format!("/?data=x&myId={id}")).await;
    stream.expect_nothing().await;
    assert_eq!(gateway.rooms(), 1);
    gateway.stop().await;
}

#[tokio::test]
async fn who_goes_is_gone() {
    let gateway = TestGateway::start("auto").await;
    let (stream, _) = gateway.query("open=k").await;
    assert_eq!(gateway.rooms(), 1);
    drop(stream);
    let empty = async {
        while gateway.rooms() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the opener's end", empty).await;
    gateway.stop().await;
}

#[tokio::test]
async fn messages_have_a_limit() {
    let gateway = TestGateway::configured(|config| config.max_message = 1000).await;
    let (mut stream, id) = gateway.auth().await;
    gateway.say(&id, &format!("{:1000}", "{\"open\":\"k\"}")).await;
    stream.expect(&["data: {\"opened\":true}"]).await;
    for length in [1001, 2000, 60_000] {
        let answer = gateway.post(&format!("{id}@{:length$}", "{\"open\":\"k\"}")).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (413, Some(ORIGIN.1)));
    }
    // Also if the length is not told beforehand.
    let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("800\r\n{:2048}\r\n0\r\n\r\n", format!("{id}@{{}}"));
    assert_eq!(ask_on(gateway.tcp().await, &format!("{head}{chunk}")).await.status, 413);
    stream.expect_nothing().await;
    gateway.stop().await;
}

#[tokio::test]
async fn who_does_not_read_is_cut_off_and_harms_nobody() {
    let gateway = TestGateway::configured(|config| {
        config.max_message = 64 * 1024;
        config.max_pending = 256 * 1024;
    })
    .await;
    let (_opener, opener_id) = gateway.auth().await;
    gateway.say(&opener_id, "{\"open\":\"k\"}").await;
    let (mut joining, joiner_id) = gateway.auth().await;
    gateway.say(&joiner_id, "{\"join\":\"k\"}").await;
    joining.expect(&["data: {\"opened\":false}"]).await;
    // The opener never reads its stream again. What the kernel keeps for it is some MiB.
    let data = format!("{{\"data\":\"{}\"}}", "x".repeat(60 * 1024));
    for _ in 0..200 {
        gateway.say(&joiner_id, &data).await;
    }
    let refused = async {
        loop {
            let (mut fresh, id) = gateway.auth().await;
            gateway.say(&id, "{\"join\":\"k\"}").await;
            // Once the opener is closed, whoever joins is the opener.
            if fresh.event().await == "data: {\"opened\":true}" {
                break;
            }
            drop(fresh);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("the end of a client that does not read", refused).await;
    // And the server need not wait for it.
    gateway.stop().await;
}

#[tokio::test]
async fn a_server_that_stops_ends_its_streams_in_good_order_and_at_once() {
    let gateway = TestGateway::start("auto").await;
    let (mut by_query, id) = gateway.query("open=k").await;
    let (mut by_post, _) = gateway.auth().await;
    let mut sent = gateway.get(&format!("/?data=x&myId={id}")).await;
    sent.expect(&[":ok", "id: last"]).await;
    by_query.event().await;
    // One in the middle of a request.
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

/// Twenty seconds, as in the originals.
#[tokio::test]
async fn a_quiet_stream_is_kept_in_use_and_a_sending_one_ends() {
    let gateway = TestGateway::start("auto").await;
    let (mut stream, _) = gateway.auth().await;
    let (mut opener, id) = gateway.query("open=k").await;
    let mut sent = gateway.get(&format!("/?data=x&id=1&myId={id}")).await;
    sent.expect(&[":ok", "id: last"]).await;
    opener.event().await;
    let begin = Instant::now();
    let end = tokio::time::timeout(Duration::from_secs(18), sent.next()).await;
    assert_eq!(end.expect("a sending stream ends before it would be kept in use"), None);
    for stream in [&mut stream, &mut opener] {
        let comment = tokio::time::timeout(Duration::from_secs(30), stream.next()).await.unwrap();
        assert_eq!(comment.unwrap(), ":");
    }
    let after = begin.elapsed();
    assert!((18..25).contains(&after.as_secs()), "{after:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn requests_on_one_connection_take_turns() {
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
    // After that it is a WebSocket like any other.
    drop(tcp);
    drop(Ws::open(gateway.tcp().await, "/k").await);
    gateway.stop().await;
}
