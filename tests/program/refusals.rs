//! Clients that are refused, and a log that has nothing of what clients send.

use sigver::protocol::dialect::Dialect;
use sigver::tools::client::dialects::Role;
use sigver::tools::client::message::{MessageKind, TestMessage};
use sigver::tools::client::peer::SyntheticPeer;
use sigver::tools::client::protocol::Protocol;
use sigver::tools::dial::Target;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::common::process::{SERVE, Served, log_line, run, sigver, with_open_files};
use crate::common::sse::ask;
use crate::common::ws::Got;
use crate::common::{soon, tls_files};

/// Sends bytes, and returns everything that is received.
async fn exchange(served: &Served, bytes: &[u8]) -> String {
    let mut stream = served.tcp().await;
    stream.write_all(bytes).await.unwrap();
    let mut received = Vec::new();
    let _ = soon("the end", stream.read_to_end(&mut received)).await;
    String::from_utf8_lossy(&received).into_owned()
}

/// Stops the server. Returns its log.
async fn log_of(served: Served) -> String {
    served.signal("TERM").await;
    served.end().await.2
}

const CLIENT_HELLO: &[u8] = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03";
const PROXY: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n";
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\0\x01\0\x02";
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn client_of_another_protocol_learns_why_and_is_logged() {
    let files = tls_files();
    let (key, cert) = (files.key.to_string(), files.cert.to_string());
    let tls = [&SERVE[..], &["-k", &key, "-c", &cert, "--log", "debug"]].concat();
    let plain = [&SERVE[..], &["--log", "debug"]].concat();
    for (args, sent, cause) in [
        (&plain, CLIENT_HELLO, "TLS to a port of plain text"),
        (&plain, PROXY, "a PROXY protocol header, which this port does not expect"),
        (&plain, HTTP2, "HTTP/2, which this server does not speak"),
        (&plain, PROXY_V2, "a PROXY protocol header, which this port does not expect"),
        (&tls, GET, "plain text to a port of TLS"),
        (&tls, PROXY, "a PROXY protocol header, which this port does not expect"),
        (&tls, PROXY_V2, "a PROXY protocol header, which this port does not expect"),
    ] {
        let served = Served::start(args).await;
        for _ in 0..5 {
            let answer = exchange(&served, sent).await;
            let status = if sent == HTTP2 { "505 HTTP Version Not Supported" } else { "400 Bad Request" };
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{cause}: {answer}");
            assert!(answer.contains(&format!("\r\n\r\n{status}: {cause}; ")), "{answer}");
        }
        let log = log_of(served).await;
        let lines =
            |level: &str| log.lines().filter(|line| line.contains(level) && line.contains(cause)).count();
        assert_eq!((lines("DEBUG"), lines("INFO")), (5, 1), "{log}");
    }
}

#[tokio::test]
async fn each_of_a_crowd_beyond_the_limit_is_answered() {
    let served = Served::start(&[&SERVE[..], &["--max-connections", "1"]].concat()).await;
    let admitted = served.tcp().await;
    let mut crowd = Vec::new();
    // More than have the time to read, all of which stay.
    for _ in 0..400 {
        crowd.push(served.tcp().await);
    }
    for stream in &mut crowd {
        let mut status = [0; 12];
        soon("a response", stream.read_exact(&mut status)).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 503");
    }
    drop(admitted);
    log_of(served).await;
}

#[tokio::test]
async fn limit_that_clients_reach_is_one_line_of_the_log() {
    for (log_ip, address) in [("off", None), ("prefix", Some("127.0.0.0/24")), ("full", Some("127.0.0.1"))] {
        let limited = ["--max-connections-per-address", "1", "--log-ip", log_ip];
        let mut served = Served::start(&[&SERVE[..], &limited].concat()).await;
        let admitted = served.tcp().await;
        assert!(exchange(&served, GET).await.starts_with("HTTP/1.1 429 "));
        let line = log_line(&mut served.stderr, "clients reached a limit").await;
        assert!(
            line.contains(" INFO ") && line.contains(r#"limit="connections_per_address" times=1"#),
            "{line}"
        );
        let shown = address.map(|address| format!("last_address={address:?}"));
        assert_eq!(line.contains("last_address"), shown.is_some(), "{line}");
        assert!(shown.is_none_or(|shown| line.contains(&shown)), "{line}");
        for _ in 0..5 {
            assert!(exchange(&served, GET).await.starts_with("HTTP/1.1 429 "));
        }
        // Longer than until the next look.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        drop(admitted);
        let log = log_of(served).await;
        assert!(!log.contains("reached a limit"), "{log}");
    }
}

/// Waits for the line about a limit, which has the address of a client with a connection, if any is shown.
async fn line_of_connection(served: &mut Served, limit: &str, remote: Option<&str>) {
    let line = log_line(&mut served.stderr, &format!("limit={limit:?}")).await;
    assert!(line.contains(" INFO ") && !line.contains("last_address"), "{line}");
    match remote {
        None => assert!(!line.contains("connection{") && !line.contains("127.0.0"), "{line}"),
        Some(remote) => assert!(line.contains(&format!(" remote={remote} transport=")), "{line}"),
    }
}

#[tokio::test]
async fn limit_of_a_connection_is_logged_with_its_address() {
    let limits = ["--max-message", "5000", "--max-message-rate", "5", "--max-joiners", "2"];
    for (log_ip, remote) in [("off", None), ("prefix", Some("127.0.0.0/24")), ("full", Some("127.0.0.1"))] {
        let mut served = Served::start(&[&SERVE[..], &limits, &["--log-ip", log_ip]].concat()).await;
        let mut long = served.ws("/").await;
        assert!(long.text(&"x".repeat(6000)).await);
        line_of_connection(&mut served, "message_size", remote).await;
        // Waits for its frames to be read.
        let mut fast = served.ws("/").await;
        for _ in 0..20 {
            assert!(fast.ping(b"").await);
        }
        line_of_connection(&mut served, "message_rate", remote).await;
        let target = Target::parse(&format!("ws://127.0.0.1:{}", served.port())).unwrap();
        let protocol = Protocol::from_name("sigver-20").unwrap();
        let mut peers = Vec::new();
        for role in [Role::Member, Role::Joiner, Role::Joiner, Role::Joiner] {
            let peer = SyntheticPeer::connect(&target, protocol, role, "b", None);
            peers.push(soon("a connection", peer).await);
        }
        line_of_connection(&mut served, "joiners", remote).await;
        drop((long, fast, peers));
        log_of(served).await;
    }
}

#[tokio::test]
async fn health_checks_of_a_port_of_tls_are_no_refusals() {
    let files = tls_files();
    let (key, cert) = (files.key.to_string(), files.cert.to_string());
    let args = [&SERVE[..], &["-k", &key, "-c", &cert, "--log", "debug"]].concat();
    let mut served = Served::start(&args).await;
    let port = served.port().to_string();
    assert_eq!(run(&["healthcheck", "--port", &port]).await, (Some(0), String::new(), String::new()));
    // As load balancers check a port: the connection ends before its first byte, with a FIN or an RST.
    drop(served.tcp().await);
    let reset = served.tcp().await;
    reset.set_zero_linger().unwrap();
    drop(reset);
    for _ in 0..2 {
        log_line(&mut served.stderr, "ended before its first byte").await;
    }
    assert!(exchange(&served, GET).await.starts_with("HTTP/1.1 400 "));
    let log = log_of(served).await;
    let count = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(count("plain text to a port of TLS"), 2, "of the last, at DEBUG and at INFO: {log}");
}

#[tokio::test]
async fn foreign_origin_is_logged_and_counted() {
    let served = Served::start(&SERVE).await;
    let request = "GET /listen/abc HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example\r\nConnection: Upgrade, close\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let answer = exchange(&served, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    served.signal("USR1").await;
    let log = log_of(served).await;
    assert!(log.contains("the origin of the page is not allowed") && !log.contains("evil"), "{log}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn lack_of_descriptors_is_one_line_with_advice() {
    let served = Served::spawn(with_open_files("-n 40", &SERVE)).await;
    let mut open = Vec::new();
    for _ in 0..60 {
        open.push(TcpStream::connect(("127.0.0.1", served.port())).await.unwrap());
    }
    // Several attempts to accept.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    drop(open);
    let log = log_of(served).await;
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("cannot accept")).collect();
    assert_eq!(errors.len(), 1, "{log}");
    assert!(errors[0].contains("raise the limit of open files of the process"), "{log}");
}

#[tokio::test]
async fn wrong_levels_and_commands_start_no_server() {
    for (args, part) in [
        (&["--log", "warning"][..], "is 'warn' meant?"),
        (&["--log", "json"], "'json' is no log level"),
        (&["--log", ""], "the levels are off, error"),
        (&["statsu"], "is 'sigver status' meant?"),
        (&["help"], "sigver --help"),
        (&["stop"], "SIGTERM"),
        (&["version"], "sigver --version"),
        (&["-p", "0", "status"], "a command comes first: sigver status"),
    ] {
        let output = soon("the end", sigver(args).output()).await.unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {errors}");
        assert!(errors.contains(part) && output.stdout.is_empty(), "{args:?}: {errors}");
    }
    let mut command = sigver(&SERVE);
    command.env("SIGVER_LOG", "inf");
    let output = soon("the end", command.output()).await.unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("'inf' from env 'SIGVER_LOG'") && errors.contains("is 'info' meant?"),
        "{errors}"
    );
}

const SECRET: &str = "5ecretWord";

#[tokio::test]
async fn log_has_nothing_of_what_clients_send() {
    let served = Served::start(&[&SERVE[..], &["--log", "trace"]].concat()).await;
    let target = Target::parse(&format!("ws://127.0.0.1:{}", served.port())).unwrap();
    let message = TestMessage::new(MessageKind::Json, SECRET);
    let mut peers = Vec::new();
    for dialect in Dialect::ALL {
        let key = format!("{SECRET}-{dialect}");
        for role in [Role::Member, Role::Member, Role::Joiner, Role::Joiner] {
            let peer = SyntheticPeer::connect(&target, Protocol::Sigver(dialect), role, &key, Some(&message));
            let peer = soon("a connection", peer).await.unwrap();
            peer.send(None, &message);
            peer.send_end(None);
            peers.push(peer);
        }
    }
    // Every JSON message, twice, and what is no message of any dialect.
    for text in [
        "{\"open\":\"K\"}",
        "{\"join\":\"K\",\"data\":\"K\"}",
        "{\"type\":\"open\",\"key\":\"K\"}",
        "{\"K\":1}",
        "K",
        "[\"K\"",
    ] {
        let mut ws = served.ws("/").await;
        for _ in 0..2 {
            let _ = ws.text(&text.replace('K', SECRET)).await;
        }
        let _ = ws.binary(SECRET.as_bytes()).await;
        let _ = soon("a frame", ws.next()).await;
    }
    // An invalid frame, with a secret behind it.
    let mut ws = served.ws(&format!("/{SECRET}")).await;
    let _ = ws.raw(&[&[0xf1, 0x85][..], SECRET.as_bytes()].concat()).await;
    let _ = soon("a frame", ws.next()).await;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], served.port()));
    let accept =
        [("Accept", "text/event-stream"), ("Origin", "https://5ecretWord.example"), ("Cookie", SECRET)];
    for (method, path, body) in [
        ("GET", "/?open=5ecretWord", ""),
        ("GET", "/?join=5ecretWord&data=5ecretWord", ""),
        ("GET", "/5ecretWord?5ecretWord", ""),
        ("POST", "/", "5ecretWord"),
        ("POST", "/", "{\"id\":\"5ecretWord\",\"data\":\"5ecretWord\"}"),
        ("GET", "/listen/5ecretWord", ""),
        ("GET", "/connect/5ecretWord", ""),
        ("DELETE", "/5ecretWord", ""),
    ] {
        drop(ask(address, method, path, &accept, body).await);
    }
    for request in [
        "GET /listen/5ecretWord HTTP/1.1\r\nHost: x\r\nOrigin: http://5ecretWord\r\nUpgrade: websocket\r\n\
         Connection: Upgrade, close\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        "5ecretWord\r\n\r\n",
        "GET /5ecretWord HTTP/9\r\n\r\n",
        "GET / HTTP/1.1\r\n5ecret Word 5ecretWord\r\n\r\n",
        "PROXY 5ecretWord\r\n",
    ] {
        let mut stream = served.tcp().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let _ = soon("a response", stream.read(&mut [0; 64])).await;
    }
    let mut listener = served.ws("/listen/plantedsecret").await;
    let mut connector = served.ws("/connect/plantedsecret").await;
    assert!(connector.text(SECRET).await);
    assert_eq!(listener.message().await, Got::Text(SECRET.to_owned()));
    drop((peers, listener, connector));
    let log = log_of(served).await;
    assert!(log.contains("recognised") && log.contains("connection ended"), "{log}");
    for line in log.lines() {
        assert!(!line.contains(SECRET) && !line.contains("5ecret") && !line.contains("planted"), "{line}");
        // Nor as bytes, in numbers or in hexadecimal.
        assert!(!line.contains("53, 101, 99") && !line.contains("3565637265"), "{line}");
    }
}
