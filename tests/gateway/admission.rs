//! Limits of what arrives: connections in all and by address, their handshakes, event streams, the rate of
//! messages, rooms, and the memory of the process.

use std::time::Duration;

use sigver::Config;
use sigver::config::ServerLimits;
use sigver::server::telemetry::LimitKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::common::pairs::{connect, content, pair, up};
use crate::common::sse::ask;
use crate::common::ws::{BINARY, Got, TEXT, Ws, frame};
use crate::common::{TestGateway, eventually, soon, tls_files};

async fn limited(limit: impl FnOnce(&mut ServerLimits)) -> TestGateway {
    TestGateway::configured(|config| limit(&mut config.limits)).await
}

fn count(gateway: &TestGateway, kind: LimitKind) -> u64 {
    gateway.status.shared.telemetry.limit_count(kind)
}

/// Returns all that the server sends to a client that sends a request at once.
async fn refused(gateway: &TestGateway) -> String {
    let mut stream = gateway.tcp().await;
    let _ = stream.write_all(b"GET /k HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let mut response = String::new();
    soon("a refusal", stream.read_to_string(&mut response)).await.unwrap();
    response
}

#[tokio::test]
async fn connections_beyond_the_limit_are_answered_with_503() {
    let gateway = limited(|limits| limits.max_connections = Some(2)).await;
    let (first, joiner) = pair(&gateway, "/k").await;
    let response = refused(&gateway).await;
    assert!(response.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{response}");
    assert!(response.contains("\r\nRetry-After: 1\r\n"), "{response}");
    assert_eq!(count(&gateway, LimitKind::Connections), 1);
    // There is room again when one has closed.
    drop(first);
    eventually("the end", || gateway.status.shared.admission.open() < 2).await;
    let mut again = gateway.ws("/other").await;
    assert!(again.binary(&connect(11, &[])).await);
    again.expect(&[Got::binary("2001")]).await;
    drop((joiner, again));
    eventually("the end of all", || gateway.status.shared.admission.open() == 0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn connections_of_one_address_are_answered_with_429() {
    let path = std::env::temp_dir().join(format!("sigver-admission-{}.sock", std::process::id()));
    let gateway = TestGateway::configured(|config| {
        config.limits.max_connections_per_address = Some(1);
        config.listen.push(sigver::config::ListenAddress::Unix(path.clone()));
    })
    .await;
    let first = gateway.ws("/k").await;
    let response = refused(&gateway).await;
    assert!(response.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{response}");
    assert_eq!(count(&gateway, LimitKind::ConnectionsPerAddress), 1);
    // Clients of a Unix socket have no address.
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(Ws::open(UnixStream::connect(&path).await.unwrap(), "/k").await);
    }
    drop((first, others));
    eventually("the end", || gateway.status.shared.admission.open() == 0).await;
    drop(gateway.ws("/k").await);
    gateway.stop().await;
}

#[tokio::test]
async fn connections_of_one_address_have_a_rate() {
    let gateway = limited(|limits| limits.max_connection_rate = Some(1)).await;
    // All at once.
    let responses = futures_util::future::join_all((0..50).map(|_| refused(&gateway))).await;
    let refusals = responses.iter().filter(|response| response.starts_with("HTTP/1.1 429 ")).count() as u64;
    assert!(refusals > 0);
    assert_eq!(count(&gateway, LimitKind::ConnectionRate), refusals);
    gateway.stop().await;
}

#[tokio::test]
async fn tls_connections_beyond_the_limit_are_dropped() {
    let gateway = TestGateway::configured(|config| {
        config.tls = Some(tls_files());
        config.limits.max_connections = Some(1);
    })
    .await;
    let first = gateway.tcp().await;
    eventually("the first", || gateway.status.shared.admission.open() == 1).await;
    let mut second = gateway.tcp().await;
    let mut received = Vec::new();
    let _ = soon("the end", second.read_to_end(&mut received)).await;
    assert_eq!((received, count(&gateway, LimitKind::Connections)), (Vec::new(), 1));
    drop(first);
    gateway.stop().await;
}

#[tokio::test]
async fn handshakes_and_heads_have_configured_deadlines() {
    let short = Duration::from_secs(1);
    let gateway = TestGateway::configured(|config| {
        config.tls = Some(tls_files());
        config.limits.tls_timeout = short;
    })
    .await;
    let mut silent = gateway.tcp().await;
    soon("the end", silent.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(count(&gateway, LimitKind::TlsTimeout), 1);
    gateway.stop().await;

    let gateway = limited(|limits| limits.head_timeout = short).await;
    for (number, request) in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: a\r\nX-Long: "].into_iter().enumerate()
    {
        let mut slow = gateway.tcp().await;
        slow.write_all(request.as_bytes()).await.unwrap();
        let _ = soon("the end", slow.read_to_end(&mut Vec::new())).await;
        eventually("the count", || count(&gateway, LimitKind::HeadTimeout) == number as u64 + 1).await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn first_frame_has_a_deadline_detected_and_pinned_alike() {
    for protocol in ["auto", "json", "sigver-5", "sigver-6", "sigver-7", "sigver-9", "sigver-14"] {
        let gateway = TestGateway::configured(|config| {
            config.protocol = protocol.parse().unwrap();
            config.detection.first_frame = Duration::from_millis(500);
        })
        .await;
        let mut silent = gateway.ws("/").await;
        // Pings are no message.
        assert!(silent.ping(b"still here").await);
        let closed = loop {
            match silent.message().await {
                Got::Pong(_) | Got::Ping(_) | Got::Text(_) => {}
                got => break got,
            }
        };
        let expected = Got::Close(Some(1008), "the first message did not arrive in time".to_owned());
        assert_eq!(closed, expected, "{protocol}");
        silent.close(1008).await;
        eventually("the count", || count(&gateway, LimitKind::FirstFrameTimeout) == 1).await;
        gateway.stop().await;
    }
}

#[tokio::test]
async fn client_that_sent_its_first_frame_may_be_silent() {
    let gateway = TestGateway::configured(|config| {
        config.protocol = "sigver-5".parse().unwrap();
        config.detection.first_frame = Duration::from_millis(200);
    })
    .await;
    let mut opener = gateway.ws("/").await;
    assert!(opener.text("{\"type\":\"open\",\"key\":\"k\"}").await);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let mut joiner = gateway.ws("/").await;
    assert!(joiner.text("{\"type\":\"join\",\"key\":\"k\"}").await);
    opener.expect(&[Got::Text("{\"type\":\"join\"}".to_owned())]).await;
    drop((opener, joiner));
    gateway.stop().await;
}

#[tokio::test]
async fn event_streams_of_one_address_are_limited() {
    let gateway = TestGateway::configured(|config| {
        config.protocol = "sigver-9".parse().unwrap();
        config.limits.max_streams_per_address = Some(1);
    })
    .await;
    let accept = [("Accept", "text/event-stream")];
    let first = ask(gateway.address, "GET", "/", &accept, "").await;
    assert_eq!(first.status, 200);
    let second = ask(gateway.address, "GET", "/", &accept, "").await;
    assert_eq!(second.status, 429);
    assert!(second.headers.contains(&("retry-after".to_owned(), "1".to_owned())));
    assert_eq!(count(&gateway, LimitKind::StreamsPerAddress), 1);
    drop((first, second));
    gateway.stop().await;
}

/// The response to such a request is held open for 15 seconds.
#[tokio::test]
async fn request_that_sends_counts_as_an_event_stream() {
    let gateway = TestGateway::configured(|config| {
        config.protocol = "sigver-8.1.0".parse().unwrap();
        config.limits.max_streams_per_address = Some(1);
    })
    .await;
    let send = async || ask(gateway.address, "GET", "/?myId=1&data=x", &[], "").await;
    let (first, second) = (send().await, send().await);
    assert_eq!((first.status, second.status, second.header("retry-after")), (200, 429, Some("1")));
    assert_eq!(count(&gateway, LimitKind::StreamsPerAddress), 1);
    drop((first, second));
    gateway.stop().await;
}

#[tokio::test]
async fn sender_over_its_rate_is_not_read_and_loses_nothing() {
    let gateway = TestGateway::configured(|config| {
        config.protocol = "sigver-20".parse().unwrap();
        config.limits.max_message_rate = Some(20);
    })
    .await;
    let (mut first, mut joiner) = pair(&gateway, "/k").await;
    let sent: Vec<u8> = (0..60).collect();
    let frames: Vec<u8> = sent.iter().flat_map(|number| frame(BINARY, &content(&[*number]))).collect();
    assert!(joiner.raw(&frames).await);
    let began = std::time::Instant::now();
    let mut received = Vec::new();
    while received.len() < sent.len() {
        let Got::Binary(bytes) = first.message().await else { panic!("after {received:?}") };
        received.push(*bytes.last().unwrap());
    }
    // 20 at once, and the others at 20 a second, but for what the pair had sent before.
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
    assert_eq!(received, sent);
    assert!(count(&gateway, LimitKind::MessageRate) > 0);
    drop((first, joiner));
    gateway.stop().await;
}

#[tokio::test]
async fn bytes_of_a_sender_have_a_rate() {
    let gateway = TestGateway::configured(|config| {
        config.protocol = "sigver-20".parse().unwrap();
        config.max_message = 10_000;
        config.limits.max_byte_rate = Some(20_000);
    })
    .await;
    let (mut first, mut joiner) = pair(&gateway, "/k").await;
    let began = std::time::Instant::now();
    for _ in 0..6 {
        up(&mut first, &mut joiner, &[7; 9_000]).await;
    }
    assert!(began.elapsed() >= Duration::from_millis(1000), "{:?}", began.elapsed());
    assert!(count(&gateway, LimitKind::MessageRate) > 0);
    drop((first, joiner));
    gateway.stop().await;
}

/// A client that has sent `connect`.
async fn connected(gateway: &TestGateway, path: &str, id: u8, to: &[u8]) -> Ws<TcpStream> {
    let mut ws = gateway.ws(path).await;
    assert!(ws.binary(&connect(id, to)).await);
    ws
}

#[tokio::test]
async fn rooms_have_a_number_of_members_and_joiners() {
    let gateway = TestGateway::configured(|config| {
        config.protocol = "sigver-20".parse().unwrap();
        (config.limits.max_members, config.limits.max_joiners) = (2, 1);
    })
    .await;
    let full = "the room has as many clients as this server allows";
    let mut first = connected(&gateway, "/k", 11, &[]).await;
    first.expect(&[Got::binary("2001")]).await;
    let mut joiner = connected(&gateway, "/k", 12, &[]).await;
    joiner.expect(&[Got::binary("2000")]).await;
    assert_eq!(connected(&gateway, "/k", 13, &[]).await.expect_close(1013).await, full);
    // As a member there is room for one more, and then for none.
    let mut second = connected(&gateway, "/k", 14, &[11]).await;
    second.expect(&[Got::binary("2001")]).await;
    assert_eq!(connected(&gateway, "/k", 15, &[11]).await.expect_close(1013).await, full);
    let counts = [LimitKind::Rooms, LimitKind::Joiners, LimitKind::Members];
    assert_eq!(counts.map(|kind| count(&gateway, kind)), [0, 1, 1]);
    // The other clients stay connected, and one that leaves makes room.
    up(&mut first, &mut joiner, b"offer").await;
    drop(second);
    eventually("the end", || gateway.status.shared.admission.open() == 2).await;
    let mut third = connected(&gateway, "/k", 16, &[11]).await;
    third.expect(&[Got::binary("2001")]).await;
    drop((first, joiner, third));
    gateway.stop().await;
}

#[tokio::test]
async fn only_member_stays_if_members_are_not_replaced() {
    let gateway = TestGateway::configured(|config| config.limits.replace_members = false).await;
    let mut member = connected(&gateway, "/k", 11, &[]).await;
    member.expect(&[Got::binary("2001")]).await;
    for times in 1..=3 {
        let mut joiner = connected(&gateway, "/k", 12, &[]).await;
        joiner.expect(&[Got::binary("2000")]).await;
        assert!(joiner.binary(&connect(12, &[])).await);
        let reason = "the only member of the room is not replaced, try again later";
        assert_eq!(joiner.expect_close(1013).await, reason);
        assert_eq!(count(&gateway, LimitKind::Replacements), times);
    }
    let mut joiner = connected(&gateway, "/k", 13, &[]).await;
    joiner.expect(&[Got::binary("2000")]).await;
    // The ends of the three links, and no close.
    for _ in 0..3 {
        assert!(matches!(member.message().await, Got::Binary(_)));
    }
    gateway.stop().await;
}

#[tokio::test]
async fn rooms_have_a_number() {
    for protocol in ["sigver-20", "sigver-18", "sigver-5"] {
        let gateway = TestGateway::configured(|config| {
            config.protocol = protocol.parse().unwrap();
            config.limits.max_rooms = 1;
        })
        .await;
        let open = async |key: &str| {
            let mut ws =
                gateway.ws(&if protocol == "sigver-5" { "/".to_owned() } else { format!("/{key}") }).await;
            assert!(match protocol {
                "sigver-20" => ws.binary(&connect(11, &[])).await,
                "sigver-5" => ws.text(&format!("{{\"type\":\"open\",\"key\":\"{key}\"}}")).await,
                // The server sends first.
                _ => true,
            });
            ws
        };
        let one = open("one").await;
        eventually("a room", || gateway.rooms() == 1).await;
        let mut other = open("other").await;
        let closed = loop {
            match other.message().await {
                Got::Binary(_) | Got::Text(_) => {}
                got => break got,
            }
        };
        let text = "there are as many rooms as this server allows, try again later";
        assert_eq!(closed, Got::Close(Some(1013), text.to_owned()), "{protocol}");
        other.close(1013).await;
        drop(one);
        eventually("no room", || gateway.rooms() == 0).await;
        let again = open("other").await;
        eventually("a room", || gateway.rooms() == 1).await;
        assert_eq!(count(&gateway, LimitKind::Rooms), 1);
        drop((other, again));
        gateway.stop().await;
    }
}

#[tokio::test]
async fn limits_that_are_not_options_are_counted() {
    let gateway = TestGateway::configured(|config| {
        config.protocol = "sigver-9".parse().unwrap();
        (config.max_message, config.stall_timeout) = (2000, Duration::from_millis(300));
    })
    .await;
    for (text, kind) in [
        (format!("{{\"open\":{}1{}}}", "[".repeat(600), "]".repeat(600)), LimitKind::MessageDepth),
        (format!("{{\"open\":\"{}\"}}", "k".repeat(600)), LimitKind::KeyLength),
        ("x".repeat(2001), LimitKind::MessageSize),
    ] {
        let mut ws = gateway.ws("/").await;
        assert!(ws.text(&text).await);
        assert!(matches!(ws.message().await, Got::Close(..)), "{kind:?}");
        eventually(kind.name(), || count(&gateway, kind) == 1).await;
    }
    let long = format!("/{}", "k".repeat(20_000));
    assert_eq!(ask(gateway.address, "GET", &long, &[], "").await.status, 431);
    assert_eq!(count(&gateway, LimitKind::HeadSize), 1);
    assert_eq!(ask(gateway.address, "POST", "/", &[], &"x".repeat(2100)).await.status, 413);
    assert_eq!(count(&gateway, LimitKind::MessageSize), 2);
    let mut begun = gateway.tcp().await;
    begun.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1").await.unwrap();
    eventually("the timeout", || count(&gateway, LimitKind::MessageTimeout) == 1).await;
    drop(begun);
    gateway.stop().await;
}

#[tokio::test]
async fn opener_leaves_its_first_room_for_one_too_many() {
    let gateway = TestGateway::configured(|config| {
        config.protocol = "sigver-13".parse().unwrap();
        // One of them for a room that it joins.
        config.limits.max_rooms_per_connection = 3;
    })
    .await;
    let mut opener = gateway.ws("/").await;
    for key in ["a", "b", "c"] {
        assert!(opener.text(&format!("{{\"open\":\"{key}\"}}")).await);
        assert!(matches!(opener.message().await, Got::Text(_)), "{key}");
    }
    assert_eq!(count(&gateway, LimitKind::RoomsPerConnection), 1);
    drop(opener);
    gateway.stop().await;
}

/// The process of the test has more memory than that.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn clients_are_refused_while_the_process_is_short_of_memory() {
    let gateway = limited(|limits| limits.max_memory = Some(1 << 20)).await;
    let memory = &gateway.status.shared.memory;
    eventually("the look", || memory.refuses_clients()).await;
    let response = refused(&gateway).await;
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    assert!(response.ends_with("this server is short of memory\n"), "{response}");
    assert!(count(&gateway, LimitKind::Memory) > 0);
    gateway.stop().await;
}

#[tokio::test]
async fn no_room_is_opened_while_the_memory_is_short() {
    const BUDGET: usize = 1 << 20;
    let gateway = TestGateway::configured(|config| {
        (config.max_message, config.max_pending) = (BUDGET, 4 * BUDGET);
        config.limits.max_buffered = Some(BUDGET);
    })
    .await;
    let memory = &gateway.status.shared.memory;
    let (mut opener, mut other) = (gateway.ws("/").await, gateway.ws("/").await);
    assert!(opener.text("{\"open\":\"a\"}").await);
    assert!(matches!(opener.message().await, Got::Text(_)));
    // A message of which the last bytes never arrive.
    let mut holder = gateway.ws("/").await;
    let whole = frame(TEXT, &vec![b' '; BUDGET / 16 * 14 + 1024]);
    assert!(holder.raw(&whole[..whole.len() - 1]).await);
    eventually("the look", || memory.refuses_clients()).await;
    assert!(opener.text("{\"open\":\"b\"}").await);
    let text = opener.expect_close(1013).await;
    assert_eq!(text, "the server holds too much for its clients, try again later");
    assert_eq!(count(&gateway, LimitKind::Memory), 1);
    drop(holder);
    eventually("the look", || !memory.refuses_clients()).await;
    assert!(other.text("{\"open\":\"b\"}").await);
    assert!(matches!(other.message().await, Got::Text(_)));
    drop((opener, other));
    gateway.stop().await;
}

#[tokio::test]
async fn client_that_holds_most_is_closed_when_the_memory_is_short() {
    const BUDGET: usize = 1 << 20;
    let gateway = TestGateway::configured(|config| {
        config.protocol = "sigver-20".parse().unwrap();
        (config.max_message, config.max_pending) = (BUDGET, 4 * BUDGET);
        config.limits.max_buffered = Some(BUDGET);
    })
    .await;
    let (mut first, mut joiner) = pair(&gateway, "/k").await;
    // A message of which the last bytes never arrive, and a short one.
    let begin = async |bytes: usize| {
        let mut ws = gateway.ws("/other").await;
        let whole = frame(BINARY, &vec![0; bytes]);
        let (begun, last) = whole.split_at(whole.len() - 1);
        assert!(ws.raw(begun).await);
        (ws, last.to_vec())
    };
    let (mut short, last) = begin(1000).await;
    let (mut long, _) = begin(BUDGET - 60_000).await;
    let text = "the server holds too much for its clients, try again later";
    assert_eq!(long.expect_close(1013).await, text);
    assert!(count(&gateway, LimitKind::Memory) > 0);
    // The short one is still received.
    assert!(short.raw(&last).await);
    short.expect_close(4743).await;
    up(&mut first, &mut joiner, b"others").await;
    drop((first, joiner, short));
    gateway.stop().await;
}

#[test]
fn defaults_limit_no_address_and_no_rate() {
    let ServerLimits {
        max_connections_per_address,
        max_connection_rate,
        max_streams_per_address,
        max_message_rate,
        max_byte_rate,
        ..
    } = Config::default().limits;
    let off = [
        max_connections_per_address,
        max_connection_rate,
        max_streams_per_address,
        max_message_rate,
        max_byte_rate,
    ];
    assert_eq!(off, [None; 5]);
}
