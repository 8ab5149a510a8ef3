//! HTTP on the port of the gateway, byte by byte: plain requests, and every form of a request for a
//! WebSocket.

use sigver::config::EnabledTransports;
use sigver::tools::dial::{DialedStream, Target, TrustArgs};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::common::pairs::connect;
use crate::common::ws::{BINARY, Got, Ws, frame, request};
use crate::common::{TestGateway, eventually, hex, soon, tls_files};

/// A whole response.
#[derive(Debug)]
struct Answer {
    status: String,
    /// Names in lower case, and values.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &value[..])
    }
}

/// Receives one response. That to HEAD has no body, whatever its Content-Length.
async fn answer<S: AsyncRead + Unpin>(stream: &mut S, head_only: bool) -> Answer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("a response", stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().unwrap().to_owned();
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let mut answer = Answer { status, headers, body: Vec::new() };
    if !head_only && let Some(length) = answer.header("content-length") {
        let mut body = vec![0; length.parse().unwrap()];
        soon("a body", stream.read_exact(&mut body)).await.unwrap();
        answer.body = body;
    }
    answer
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    answer(stream, request.starts_with("HEAD")).await
}

/// Checks that the gateway ends the connection without sending anything.
async fn ended<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = soon("the end", stream.read_to_end(&mut rest)).await;
    assert_eq!(String::from_utf8_lossy(&rest), "");
}

async fn tls(gateway: &TestGateway) -> DialedStream {
    let cert = tls_files().cert.to_string();
    let trust = TrustArgs { cacert: Some(cert.into()), ..TrustArgs::default() };
    let target = Target::with_trust(&format!("https://localhost:{}", gateway.address.port()), &trust);
    soon("a TLS handshake", target.unwrap().dial()).await.unwrap()
}

async fn secure() -> TestGateway {
    TestGateway::configured(|config| config.tls = Some(tls_files())).await
}

/// Sends plain requests on one connection.
async fn plain_requests<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    for (request, status, text) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "sigver"),
        ("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", ""),
        ("GET /abc HTTP/1.1\r\nHost: x\r\n\r\n", "426 Upgrade Required", "426 "),
        ("OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "sigver"),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "sigver"),
        ("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", "400 Bad Request", "400 "),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", "404 Not Found", "404 "),
        ("PUT /k HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "404 Not Found", "404 "),
        ("GET /?a=b HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "sigver"),
    ] {
        let answer = ask(stream, request).await;
        assert_eq!(answer.status, format!("HTTP/1.1 {status}"), "{request}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{request}");
        let body = String::from_utf8(answer.body.clone()).unwrap();
        assert!(body.starts_with(text), "{request}: {body}");
        assert_eq!(body.lines().count(), usize::from(!text.is_empty()), "{request}: {body}");
        assert!(answer.header("content-length").unwrap().parse::<usize>().unwrap() > 0);
        let upgrade = answer.header("upgrade");
        assert_eq!(upgrade, status.starts_with("426").then_some("websocket"), "{request}");
    }
}

/// Sends a plain request and an upgrade in one write.
async fn pipelined<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let both = format!("GET / HTTP/1.1\r\nHost: x\r\n\r\n{}", request("/k"));
    let first = ask(&mut stream, &both).await;
    assert_eq!(first.status, "HTTP/1.1 200 OK");
    // The second response follows without another request.
    connect_and_be_first(Ws::open_with(stream, b"").await).await;
}

async fn connect_and_be_first<S: AsyncRead + AsyncWrite + Unpin>(mut ws: Ws<S>) {
    assert!(ws.binary(&hex("1a02080b")).await);
    ws.expect(&[Got::binary("2001")]).await;
    ws.expect_nothing().await;
    ws.close(1000).await;
    ws.expect(&[Got::Close(Some(1000), String::new()), Got::End]).await;
}

#[tokio::test]
async fn one_connection_serves_plain_requests_and_then_an_upgrade() {
    let gateway = TestGateway::start("auto").await;
    let mut stream = gateway.tcp().await;
    plain_requests(&mut stream).await;
    connect_and_be_first(Ws::open(stream, "/k").await).await;
    pipelined(gateway.tcp().await).await;
    gateway.stop().await;
}

#[tokio::test]
async fn tls_serves_the_same() {
    let gateway = secure().await;
    let mut stream = tls(&gateway).await;
    plain_requests(&mut stream).await;
    connect_and_be_first(Ws::open(stream, "/k").await).await;
    pipelined(tls(&gateway).await).await;
    prefetched(tls(&gateway).await).await;
    let asked = "GET / HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n";
    let events = ask(&mut tls(&gateway).await, asked).await;
    assert_eq!(events.header("content-type"), Some("text/event-stream;charset=UTF-8"));
    // A client without TLS is rejected, and others are still served.
    let mut stream = gateway.tcp().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = soon("the end", stream.read_to_end(&mut rest)).await;
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.starts_with("HTTP/1.1 400 ") && rest.contains("plain text to a port of TLS"), "{rest}");
    connect_and_be_first(Ws::open(tls(&gateway).await, "/k").await).await;
    gateway.stop().await;
}

#[tokio::test]
async fn record_of_tls_without_its_end_is_charged() {
    let gateway = secure().await;
    let memory = &gateway.status.shared.memory;
    let DialedStream::Tls(mut stream) = tls(&gateway).await else { panic!("no TLS") };
    stream.write_all(request("/k").as_bytes()).await.unwrap();
    stream.read_exact(&mut [0; 12]).await.unwrap();
    eventually("no charge", || memory.used() == 0).await;
    // Of the greatest length, and nearly all of it.
    let record = [&[0x17, 3, 3, 0x41, 0][..], &[7; 16_600]].concat();
    stream.get_mut().0.write_all(&record).await.unwrap();
    eventually("the charge", || memory.used() > record.len()).await;
    drop(stream);
    eventually("no charge", || memory.used() == 0).await;
    gateway.stop().await;
}

/// Sends frames together with the request.
async fn prefetched<S: AsyncRead + AsyncWrite + Unpin>(stream: S) {
    let connect = frame(BINARY, &hex("1a02080b"));
    // The second frame is incomplete.
    let content = frame(BINARY, &hex("1206 0800 1000 2200"));
    let (now, later) = content.split_at(5);
    let bytes = [request("/early").as_bytes(), &connect, now].concat();
    let mut ws = Ws::open_with(stream, &bytes).await;
    assert!(ws.raw(later).await);
    ws.expect(&[Got::binary("2001")]).await;
    ws.expect_nothing().await;
    ws.close(1000).await;
    ws.expect(&[Got::Close(Some(1000), String::new()), Got::End]).await;
}

#[tokio::test]
async fn frames_sent_with_the_request_are_received() {
    let gateway = TestGateway::start("auto").await;
    prefetched(gateway.tcp().await).await;
    // More bytes than a request head may have.
    let heartbeats = frame(BINARY, &hex("0801")).repeat(20_000);
    let connect = frame(BINARY, &hex("1a02080b"));
    let bytes = [request("/many").as_bytes(), &heartbeats, &connect].concat();
    let mut ws = Ws::open_with(gateway.tcp().await, &bytes).await;
    ws.expect(&[Got::binary("2001")]).await;
    drop(ws);
    gateway.stop().await;
}

#[tokio::test]
async fn upgrade_selects_the_first_subprotocol_and_no_extension() {
    let gateway = TestGateway::start("auto").await;
    let more = "Sec-WebSocket-Protocol: aaa, bbb\r\nOrigin: https://example.org\r\n\
                Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
    for (path, upgrade) in [("/k", "Upgrade: websocket"), ("/k?x=y", "upgrade: WebSocket")] {
        let asked = request(path).replace("Upgrade: websocket", upgrade);
        let asked = asked.replace("Connection: Upgrade", "Connection: keep-alive, Upgrade");
        let mut stream = gateway.tcp().await;
        let answer = ask(&mut stream, &asked.replace("\r\n\r\n", &format!("\r\n{more}"))).await;
        assert_eq!(answer.status, "HTTP/1.1 101 Switching Protocols");
        assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(answer.header("sec-websocket-protocol"), Some("aaa"));
        assert_eq!(answer.header("sec-websocket-extensions"), None);
        assert_eq!(answer.header("content-length"), None);
    }
    let answer = ask(&mut gateway.tcp().await, &request("/k")).await;
    assert_eq!(answer.header("sec-websocket-protocol"), None);
    gateway.stop().await;
}

/// nginx speaks HTTP/1.0 to a server unless it is configured otherwise. Every Node.js server grants all of
/// these.
#[tokio::test]
async fn upgrade_is_granted_in_every_form_that_all_node_servers_accept() {
    let gateway = TestGateway::start("auto").await;
    let good = request("/k");
    let forms = [
        good.replace("HTTP/1.1", "HTTP/1.0").replace("Connection: Upgrade", "Connection: upgrade"),
        good.replace("HTTP/1.1", "HTTP/1.0").replace("Host: localhost\r\n", ""),
        good.replace("Host: localhost\r\n", ""),
        good.replace("Version: 13", "Version: 8"),
        good.replace("GET /k", "GET http://x/k"),
        good.replace("Upgrade: websocket", "UPGRADE: WEBSOCKET"),
        good.replace("Connection: Upgrade", "connection: keep-alive,\tUPGRADE"),
        good.replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n"),
        good.replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        // The body is no frame.
        good.replace("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\nhello"),
    ];
    let many: String = (0..300).map(|number| format!("X-{number}: x\r\n")).collect();
    let forms = forms.into_iter().chain([good.replace("Connection:", &format!("{many}Connection:"))]);
    for form in forms {
        assert_ne!(form, good);
        // In one segment, and byte by byte: the second is left to hyper.
        for trickles in [false, true] {
            let mut stream = gateway.tcp().await;
            let bytes = form.as_bytes();
            let at = if trickles { bytes.len() / 2 } else { bytes.len() };
            stream.write_all(&bytes[..at]).await.unwrap();
            if trickles {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                stream.write_all(&bytes[at..]).await.unwrap();
            }
            let ws = Ws::open_with(stream, b"").await;
            connect_and_be_first(ws).await;
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn unescaped_characters_of_a_path_are_taken_as_by_node() {
    let gateway = TestGateway::start("sigver-20").await;
    for (path, escaped) in [("/<k>`", "/%3Ck%3E%60"), ("/a?<x>", "/a")] {
        let open = async |path: &str| {
            let mut stream = gateway.tcp().await;
            stream.write_all(request(path).as_bytes()).await.unwrap();
            Ws::open_with(stream, b"").await
        };
        let mut member = open(path).await;
        member.binary(&connect(11, &[])).await;
        member.expect(&[Got::binary("2001")]).await;
        let mut joiner = open(escaped).await;
        joiner.binary(&connect(12, &[])).await;
        joiner.expect(&[Got::binary("2000")]).await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn health_checks_are_answered_in_every_mode() {
    let (events, all) = (EnabledTransports::EventStream, EnabledTransports::All);
    for (protocol, transports) in
        [("auto", all), ("auto", events), ("sigver-9", events), ("sigver-20", all), ("signaller", all)]
    {
        let gateway = TestGateway::configured(|config| {
            config.protocol = protocol.parse().unwrap();
            config.transports = transports;
        })
        .await;
        for asked in [
            "GET / HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
            // The default of HAProxy's `option httpchk`.
            "OPTIONS / HTTP/1.0\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            let answer = ask(&mut gateway.tcp().await, asked).await;
            assert!(answer.status.ends_with(" 200 OK"), "{protocol} {transports:?} {asked}: {answer:?}");
            let body = if asked.starts_with("HEAD") { "" } else { "sigver: " };
            assert!(String::from_utf8(answer.body).unwrap().starts_with(body), "{protocol}: {asked}");
        }
        gateway.stop().await;
    }
}

#[tokio::test]
async fn malformed_upgrade_is_rejected() {
    let gateway = TestGateway::start("auto").await;
    let good = request("/k");
    for (bad, status) in [
        (good.replace("Version: 13", "Version: 12"), "400 Bad Request"),
        (good.replace("Sec-WebSocket-Version: 13\r\n", ""), "400 Bad Request"),
        (good.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), "400 Bad Request"),
        (good.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), "400 Bad Request"),
        (good.replace("Upgrade: websocket", "Upgrade: h2c"), "426 Upgrade Required"),
        (good.replace("GET", "POST"), "404 Not Found"),
        (good.replace("Host: localhost", "Host: x\r\nHost: y"), "400 Bad Request"),
        (
            good.replace(
                "Sec-WebSocket-Key",
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Key",
            ),
            "400 Bad Request",
        ),
    ] {
        let mut stream = gateway.tcp().await;
        let answer = ask(&mut stream, &bad).await;
        assert_eq!(answer.status, format!("HTTP/1.1 {status}"), "{bad}");
        let version = answer.header("sec-websocket-version");
        let is_handshake = status.starts_with("400") && !bad.contains("Host: y");
        assert_eq!(version, is_handshake.then_some("13"), "{bad}");
        // The connection can be used again.
        connect_and_be_first(Ws::open(stream, "/k").await).await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn oversized_or_malformed_heads_are_rejected() {
    let gateway = TestGateway::start("auto").await;
    let huge_header = format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {}\r\n\r\n", "c".repeat(64 * 1024));
    let huge_path = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "p".repeat(64 * 1024));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1000));
    for (what, bytes, statuses) in [
        ("a huge header", huge_header.as_bytes(), &["431"][..]),
        ("a huge path", huge_path.as_bytes(), &["414", "431"]),
        ("many headers", many_headers.as_bytes(), &["431"]),
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", &["400"]),
        ("a strange version", b"GET / HTTP/7.3\r\n\r\n", &["400", "505"]),
        ("an unknown version", b"GET / HTTP/1.2\r\n\r\n", &["400", "505"]),
        ("a folded header", b"GET / HTTP/1.1\r\nHost: x\r\n y\r\n\r\n", &["400"]),
        ("a path that is not escaped", b"GET /<k>\xff HTTP/1.1\r\nHost: x\r\n\r\n", &["400"]),
    ] {
        let mut stream = gateway.tcp().await;
        let _ = stream.write_all(bytes).await;
        let mut received = Vec::new();
        // A reset may overtake the response, as the gateway does not read the rest of the request.
        let _ = soon(what, stream.read_to_end(&mut received)).await;
        let received = String::from_utf8(received).unwrap();
        let refused = received.is_empty()
            || statuses.iter().any(|status| received.starts_with(&format!("HTTP/1.1 {status} ")));
        assert!(refused, "{what}: {received}");
    }
    // Clients that disconnect within a request, and before one.
    let mut stream = gateway.tcp().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut received = Vec::new();
    let _ = soon("the end", stream.read_to_end(&mut received)).await;
    let mut stream = gateway.tcp().await;
    stream.shutdown().await.unwrap();
    ended(&mut stream).await;
    connect_and_be_first(gateway.ws("/k").await).await;
    gateway.stop().await;
}

/// Takes the ten seconds of the timeout.
#[tokio::test]
async fn request_head_times_out() {
    let gateway = TestGateway::start("auto").await;
    let mut slow = gateway.tcp().await;
    let mut again = gateway.tcp().await;
    assert_eq!(ask(&mut again, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.status, "HTTP/1.1 200 OK");
    let limit = std::time::Duration::from_secs(15);
    let trickle = async {
        for byte in request("/k").bytes().take(100) {
            if slow.write_all(&[byte]).await.is_err() {
                break;
            }
            let mut received = [0; 1];
            let pause = std::time::Duration::from_millis(500);
            match tokio::time::timeout(pause, slow.read(&mut received)).await {
                Err(_) => {}
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(_)) => panic!("a response to half a request"),
            }
        }
        panic!("the head did not time out");
    };
    let (first, second) = tokio::join!(
        tokio::time::timeout(limit, trickle),
        // The timeout also applies to a connection that was used before.
        tokio::time::timeout(limit, async {
            let mut rest = Vec::new();
            let _ = again.read_to_end(&mut rest).await;
            assert_eq!(rest, b"");
        })
    );
    first.expect("a slow head times out");
    second.expect("an idle connection times out");
    gateway.stop().await;
}
