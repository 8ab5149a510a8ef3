//! The memory for connections that are no WebSockets yet: heads, headers and bodies of requests, and TLS
//! handshakes, of many connections that were admitted before they sent anything.

use sigver::server::telemetry::LimitKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::common::ws::Got;
use crate::common::{TestGateway, eventually, soon, tls_files};

const BUDGET: usize = 1 << 20;
/// Number of bytes that connections may hold before their upgrade.
const BEFORE_UPGRADE: usize = BUDGET / 16 * 12;
const SILENT: usize = 128;

async fn gateway(tls: bool) -> TestGateway {
    TestGateway::configured(|config| {
        config.limits.max_buffered = Some(BUDGET);
        if tls {
            config.tls = Some(tls_files());
        }
    })
    .await
}

/// Has connections send `bytes` all at once, after all were admitted. Returns them when most are refused.
async fn send_at_once(gateway: &TestGateway, bytes: &[u8]) -> Vec<TcpStream> {
    let shared = &gateway.status.shared;
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.push(gateway.tcp().await);
    }
    eventually("the connections", || shared.admission.open() as usize == SILENT).await;
    assert_eq!(shared.memory.used(), 0);
    for stream in &mut silent {
        let _ = stream.write_all(bytes).await;
    }
    let refused = || shared.telemetry.limit_count(LimitKind::Memory) as usize;
    let is_full = || shared.memory.used() > BEFORE_UPGRADE / 2;
    eventually("the refusals", || {
        refused() > SILENT / 2 && refused() + shared.admission.open() as usize == SILENT && is_full()
    })
    .await;
    assert!(shared.memory.used() <= BEFORE_UPGRADE, "{}", shared.memory.used());
    silent
}

/// Checks that who is connected is served, and that all is given back.
async fn end(gateway: TestGateway, streams: Vec<TcpStream>) {
    let memory = &gateway.status.shared.memory;
    assert!(!memory.refuses_clients());
    drop(streams);
    eventually("the memory", || memory.used() == 0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn half_heads_are_counted_and_refused_beyond_their_share() {
    let gateway = gateway(false).await;
    let head = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(15_800));
    let streams = send_at_once(&gateway, head.as_bytes()).await;
    let mut response = [0; 1024];
    eventually("a response", || {
        let mut read = streams.iter().filter_map(|stream| stream.try_read(&mut response).ok());
        read.any(|count| count > 12)
    })
    .await;
    assert!(response.starts_with(b"HTTP/1.1 503 "));
    // An upgrade in one piece holds nothing.
    let mut ws = gateway.ws("/").await;
    assert!(ws.text("{\"open\":\"a\"}").await);
    assert!(matches!(ws.message().await, Got::Text(_)));
    drop(ws);
    end(gateway, streams).await;
}

#[tokio::test]
async fn body_of_a_request_for_a_websocket_is_not_kept() {
    let gateway = gateway(false).await;
    let head = format!(
        "GET /k HTTP/1.1\r\nHost: a\r\nX: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: 16000\r\n\r\n",
        "a".repeat(14_000)
    );
    let streams = send_at_once(&gateway, &[head.as_bytes(), &[b'x'; 15_900]].concat()).await;
    end(gateway, streams).await;
}

#[tokio::test]
async fn headers_of_a_post_are_not_kept_while_its_body_arrives() {
    let gateway = gateway(false).await;
    let memory = &gateway.status.shared.memory;
    let headers: String = (0..490).map(|number| format!("a{number}:\r\n")).collect();
    let head =
        format!("POST / HTTP/1.1\r\nHost: a\r\nOrigin: http://a\r\nContent-Length: 100\r\n{headers}\r\n1@");
    let mut stream = gateway.tcp().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    eventually("the request", || memory.used() > 0).await;
    // The body, its connection, and what the request takes without them: of its headers, 78 kB are freed.
    assert!((28 << 10..40 << 10).contains(&memory.used()), "{}", memory.used());
    stream.write_all(&[b' '; 98]).await.unwrap();
    let mut response = vec![0; 1024];
    let count = soon("a response", stream.read(&mut response)).await.unwrap();
    let response = String::from_utf8_lossy(&response[..count]).into_owned();
    assert!(response.contains("access-control-allow-origin: http://a\r\n"), "{response}");
    drop(stream);
    eventually("the memory", || memory.used() == 0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn tls_handshakes_are_counted_once_they_begin() {
    let gateway = gateway(true).await;
    // A record of a handshake message that never ends.
    let record = [&[0x16, 3, 1, 0x3e, 0x80, 1, 0, 0xff, 0xf0][..], &[0; 8000]].concat();
    let streams = send_at_once(&gateway, &record).await;
    end(gateway, streams).await;
}
