//! The drain: connections are closed one after the other, and served until then.

use std::time::{Duration, Instant};

use sigver::server::admin::StatusQuery;
use sigver::server::telemetry::Format;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::common::pairs::first_member;
use crate::common::process::Served;
use crate::common::sse::{ask, ask_on};
use crate::common::ws::{Got, Ws, request};
use crate::common::{TestGateway, eventually, hex, soon};

const CLOSED: fn() -> Got = || Got::Close(Some(1001), "the server is shutting down".to_owned());

async fn draining_gateway(timeout: Duration) -> TestGateway {
    TestGateway::configured(|config| config.drain_timeout = timeout).await
}

#[tokio::test]
async fn closes_are_spread_over_the_timeout() {
    let window = Duration::from_secs(2);
    let gateway = draining_gateway(window).await;
    let mut members = Vec::new();
    for number in 0..64 {
        members.push(first_member(&gateway, &format!("/{number}")).await);
    }
    let begin = Instant::now();
    let stopped = gateway.begin_stop();
    let closes = members.into_iter().map(|mut ws| {
        tokio::spawn(async move {
            ws.expect(&[CLOSED()]).await;
            let closed = begin.elapsed();
            ws.close(1001).await;
            closed
        })
    });
    let mut quarters = [0; 4];
    for close in closes.collect::<Vec<_>>() {
        let quarter = close.await.unwrap().as_millis() * 4 / window.as_millis();
        quarters[usize::try_from(quarter).unwrap().min(3)] += 1;
    }
    soon("the end of the gateway", stopped).await.unwrap();
    // A late timer moves a close into a later quarter, but a burst of all is another thing.
    assert!(quarters.iter().filter(|count| **count >= 4).count() >= 3, "{quarters:?}");
}

#[tokio::test]
async fn messages_are_relayed_until_the_close_and_new_clients_refused() {
    let gateway = draining_gateway(Duration::from_secs(60)).await;
    let address = gateway.address;
    let mut pairs = Vec::new();
    for number in 0..8 {
        let member = first_member(&gateway, &format!("/{number}")).await;
        let mut joiner = gateway.ws(&format!("/{number}")).await;
        assert!(joiner.binary(&hex("1a02080c")).await);
        joiner.expect(&[Got::binary("2000")]).await;
        pairs.push((member, joiner));
    }
    let status = gateway.status.clone();
    let stopped = gateway.begin_stop();
    eventually("the drain", || status.shared.shutdown.is_draining()).await;
    let text = status.render(StatusQuery::default(), Format::Text).await;
    assert!(text.contains("\nstopping: no new clients are accepted\n"), "{text}");
    let mut relayed = 0;
    for (member, joiner) in &mut pairs {
        let sent = joiner.binary(b"\x12\x0d\x08\x00\x10\x00\x22\x07offer-J").await;
        // One of the pair may have been closed by now.
        if sent && matches!(member.message().await, Got::Binary(message) if message.ends_with(b"offer-J")) {
            relayed += 1;
        }
    }
    assert!(relayed >= 4, "{relayed}");
    assert!(soon("a refusal", TcpStream::connect(address)).await.is_err());
    stopped.abort();
}

#[tokio::test]
async fn first_request_of_an_accepted_connection_is_served_during_the_drain() {
    let gateway = draining_gateway(Duration::from_secs(3600)).await;
    let silent = gateway.tcp().await;
    let mut half = gateway.tcp().await;
    let upgrade = request("/half");
    let (begin, rest) = upgrade.as_bytes().split_at(20);
    half.write_all(begin).await.unwrap();
    let event_stream = gateway.tcp().await;
    // All of them are accepted, as connections are in their order.
    drop(first_member(&gateway, "/accepted").await);
    let status = gateway.status.clone();
    let stopped = gateway.begin_stop();
    eventually("the drain", || status.shared.shutdown.is_draining()).await;
    half.write_all(rest).await.unwrap();
    let mut head = [0; 12];
    soon("an answer", half.read_exact(&mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
    let get = "GET / HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nOrigin: http://x\r\n\r\n";
    ask_on(event_stream, get).await.expect(&[":ok"]).await;
    let mut ws = Ws::open(silent, "/silent").await;
    assert!(ws.binary(&hex("1a02080b")).await);
    ws.expect(&[Got::binary("2001")]).await;
    stopped.abort();
}

#[tokio::test]
async fn event_streams_receive_posts_during_the_drain() {
    let gateway = draining_gateway(Duration::from_secs(60)).await;
    let stream = async || {
        let accept = [("Accept", "text/event-stream"), ("Origin", "http://app.example")];
        let mut stream = ask(gateway.address, "GET", "/", &accept, "").await;
        stream.expect(&[":ok"]).await;
        let auth = stream.event().await;
        (stream, auth.strip_prefix("event: auth\ndata: ").unwrap().to_owned())
    };
    let ((mut opener, opener_id), (mut joining, joiner_id)) = (stream().await, stream().await);
    let post =
        |body: String| format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut sender = ask_on(gateway.tcp().await, &post(format!("{opener_id}@{{\"open\":\"k\"}}"))).await;
    opener.expect(&["data: {\"opened\":true}"]).await;
    sender = ask_on(sender.into_stream(), &post(format!("{joiner_id}@{{\"join\":\"k\"}}"))).await;
    joining.expect(&["data: {\"opened\":false}"]).await;
    let status = gateway.status.clone();
    let stopped = gateway.begin_stop();
    eventually("the drain", || status.shared.shutdown.is_draining()).await;
    sender = ask_on(sender.into_stream(), &post(format!("{joiner_id}@{{\"data\":1}}"))).await;
    assert_eq!(sender.status, 200);
    assert!(opener.event().await.ends_with(",\"data\":1}"));
    // A new client on a connection that is open already.
    let refused = ask_on(sender.into_stream(), &request("/k")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    stopped.abort();
}

#[tokio::test]
async fn second_signal_closes_at_once() {
    let served = Served::start(&["-h", "127.0.0.1", "-p", "0", "--drain-timeout", "3600"]).await;
    let mut members = Vec::new();
    for number in 0..8 {
        let mut ws = served.ws(&format!("/{number}")).await;
        assert!(ws.binary(&hex("1a02080b")).await);
        ws.expect(&[Got::binary("2001")]).await;
        members.push(ws);
    }
    served.signal("TERM").await;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], served.port()));
    while soon("an answer", TcpStream::connect(address)).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    served.signal("TERM").await;
    for mut ws in members {
        ws.expect(&[CLOSED()]).await;
        ws.close(1001).await;
    }
    let (status, _, errors) = served.end().await;
    assert!(status.success() && errors.contains("stopping at once"), "{errors}");
}
