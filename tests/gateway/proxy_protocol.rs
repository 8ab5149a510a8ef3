//! Clients behind proxies that report their addresses by the PROXY protocol.

use std::sync::Arc;
use std::time::Duration;

use sigver::config::{ListenAddress, ProxyProtocol, TlsFiles, TrustedProxies};
use sigver::server::RefusalCause;
use sigver::server::telemetry::LimitKind;
use sigver::{Config, PemSource};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::common::sse::ask_on;
use crate::common::ws::{Ws, request, request_with};
use crate::common::{TestGateway, eventually, soon};

const GET: &str = "GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

fn v1(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 127.0.0.1 4711 8000\r\n").into_bytes()
}

fn v2(client: [u8; 4]) -> Vec<u8> {
    let start = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10";
    // With an extension of one byte.
    [&start[..], &client, &[127, 0, 0, 1, 0x12, 0x67, 0x1f, 0x40], &[4, 0, 1, 0]].concat()
}

const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn configure(config: &mut Config, mode: ProxyProtocol, trusted: &str) {
    config.access.proxy_protocol = mode;
    config.access.trusted_proxies = TrustedProxies::parse(trusted).unwrap();
    config.limits.max_connections_per_address = Some(1);
}

async fn gateway(mode: ProxyProtocol, trusted: &str) -> TestGateway {
    TestGateway::configured(|config| configure(config, mode, trusted)).await
}

/// Opens a connection that begins with these bytes.
async fn begun(gateway: &TestGateway, start: &[u8]) -> TcpStream {
    let mut stream = gateway.tcp().await;
    stream.write_all(start).await.unwrap();
    stream
}

/// Returns the status of the response to a request behind these bytes, and the connection.
async fn status(gateway: &TestGateway, start: &[u8]) -> (u16, TcpStream) {
    let answer = ask_on(begun(gateway, start).await, &request("/k")).await;
    (answer.status, answer.into_stream())
}

#[tokio::test]
async fn connections_count_by_the_address_in_the_header() {
    for mode in [ProxyProtocol::Optional, ProxyProtocol::Required] {
        let gateway = gateway(mode, "127.0.0.1").await;
        let mut open = Vec::new();
        for (start, expected) in [
            (v1("192.0.2.1"), 101),
            (v2([192, 0, 2, 1]), 429),
            (v2([192, 0, 2, 2]), 101),
            (v1("192.0.2.2"), 429),
            // Of the proxy itself, or of a client without an address, which is not limited by one.
            (LOCAL.to_vec(), 101),
            (b"PROXY UNKNOWN\r\n".to_vec(), 101),
        ] {
            let (status, stream) = status(&gateway, &start).await;
            assert_eq!(status, expected, "{}", String::from_utf8_lossy(&start));
            open.push(stream);
        }
        let limited = gateway.status.shared.telemetry.limit_count(LimitKind::ConnectionsPerAddress);
        assert_eq!(limited, 2);
        drop(open);
        eventually("the end", || gateway.status.shared.admission.open() == 0).await;
        gateway.stop().await;
    }
}

#[tokio::test]
async fn client_that_the_header_does_not_name_cannot_name_itself() {
    let gateway = gateway(ProxyProtocol::Optional, "127.0.0.1").await;
    let claim = request_with("/k", "X-Forwarded-For: 192.0.2.1\r\n");
    let mut open = Vec::new();
    // Without a header, the proxy is one that adds its client to the request.
    for (start, expected) in [("PROXY UNKNOWN\r\n", 101), ("", 101), ("PROXY UNKNOWN\r\n", 101), ("", 429)] {
        let answer = ask_on(begun(&gateway, start.as_bytes()).await, &claim).await;
        assert_eq!(answer.status, expected, "{start}");
        open.push(answer.into_stream());
    }
    gateway.stop().await;
}

#[tokio::test]
async fn header_in_parts_is_waited_for_and_nothing_behind_it_is_lost() {
    let gateway = gateway(ProxyProtocol::Required, "127.0.0.1").await;
    for header in [v1("192.0.2.1"), v2([192, 0, 2, 2])] {
        let whole = [&header[..], request("/k").as_bytes()].concat();
        let mut stream = gateway.tcp().await;
        for part in whole.chunks(7) {
            stream.write_all(part).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(Ws::open_with(stream, b"").await);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn required_header_that_is_missing_or_malformed_is_refused() {
    let gateway = gateway(ProxyProtocol::Required, "127.0.0.1").await;
    for (start, cause) in [
        (GET, RefusalCause::MissingProxyHeader),
        ("PROXY TCP4 192.0.2.1\r\n", RefusalCause::InvalidProxyHeader),
        ("PROXY TCP4 nobody 127.0.0.1 1 2\r\n", RefusalCause::InvalidProxyHeader),
        ("\r\n\r\n\0\r\nQUIT\n\x21\x11\x7f\x7f", RefusalCause::InvalidProxyHeader),
    ] {
        let before = gateway.refused(cause);
        let mut stream = begun(&gateway, start.as_bytes()).await;
        let mut response = String::new();
        soon("a refusal", stream.read_to_string(&mut response)).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{response}");
        assert!(response.contains("PROXY protocol header"), "{response}");
        assert_eq!(gateway.refused(cause), before + 1);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn optional_header_may_be_missing() {
    let gateway = gateway(ProxyProtocol::Optional, "127.0.0.1").await;
    for start in ["GET", "POST", "PROPFIND", "\r\nGET"] {
        let mut stream = begun(&gateway, GET.replacen("GET", start, 1).as_bytes()).await;
        let mut response = String::new();
        soon("a response", stream.read_to_string(&mut response)).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 4"), "{start}: {response}");
        assert!(!response.contains("PROXY"), "{start}: {response}");
    }
    // Then the address may be in a header of HTTP.
    let mut open = Vec::new();
    for (client, expected) in [("192.0.2.1", 101), ("192.0.2.2", 101), ("192.0.2.1", 429)] {
        let answer = gateway.upgrade("/k", &format!("X-Forwarded-For: {client}\r\n")).await;
        assert_eq!(answer.status, expected, "{client}");
        open.push(answer);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn header_from_a_source_that_is_no_proxy_is_refused() {
    for (mode, cause) in [
        (ProxyProtocol::Optional, RefusalCause::ProxyHeader),
        (ProxyProtocol::Required, RefusalCause::MissingProxyHeader),
    ] {
        let gateway = gateway(mode, "192.0.2.0/24,unix").await;
        let mut stream = begun(&gateway, &v1("192.0.2.1")).await;
        let mut response = String::new();
        soon("a refusal", stream.read_to_string(&mut response)).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
        assert_eq!(gateway.refused(cause), 1, "{mode:?}");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn header_has_a_deadline() {
    let gateway = TestGateway::configured(|config| {
        configure(config, ProxyProtocol::Required, "127.0.0.1");
        config.limits.head_timeout = Duration::from_secs(1);
    })
    .await;
    for start in [&b""[..], b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10abc"] {
        let mut slow = begun(&gateway, start).await;
        soon("the end", slow.read_to_end(&mut Vec::new())).await.ok();
    }
    assert_eq!(gateway.refused(RefusalCause::Timeout), 3);
    assert_eq!(gateway.status.shared.telemetry.limit_count(LimitKind::HeadTimeout), 3);
    gateway.stop().await;
}

#[tokio::test]
async fn header_that_ends_with_its_connection_is_refused_at_once() {
    let gateway = gateway(ProxyProtocol::Required, "127.0.0.1").await;
    for start in [&b"PROX"[..], b"PROXY TCP4 192.0.2.1", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10abc"] {
        let mut stream = begun(&gateway, start).await;
        stream.shutdown().await.unwrap();
        let mut response = String::new();
        soon("a refusal", stream.read_to_string(&mut response)).await.unwrap();
        assert!(response.contains("PROXY protocol header that is malformed"), "{response}");
    }
    assert_eq!(gateway.refused(RefusalCause::InvalidProxyHeader), 3);
    assert_eq!(gateway.refused(RefusalCause::Timeout), 0);
    gateway.stop().await;
}

#[tokio::test]
async fn proxy_on_a_unix_socket_may_send_a_header() {
    let path = std::env::temp_dir().join(format!("sigver-proxy-protocol-{}.sock", std::process::id()));
    let gateway = TestGateway::configured(|config| {
        configure(config, ProxyProtocol::Optional, "unix");
        config.listen.push(ListenAddress::Unix(path.clone()));
    })
    .await;
    let mut first = UnixStream::connect(&path).await.unwrap();
    first.write_all(&v2([192, 0, 2, 1])).await.unwrap();
    let _first = Ws::open(first, "/k").await;
    let mut second = UnixStream::connect(&path).await.unwrap();
    second.write_all(&[&v1("192.0.2.1")[..], request("/k").as_bytes()].concat()).await.unwrap();
    let mut response = String::new();
    soon("a refusal", second.read_to_string(&mut response)).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 429 "), "{response}");
    // Without a header there is no address.
    let _third = Ws::open(UnixStream::connect(&path).await.unwrap(), "/k").await;
    gateway.stop().await;
}

#[tokio::test]
async fn header_comes_before_tls() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let tls = TlsFiles {
        key: PemSource::from(made.signing_key.serialize_pem()),
        cert: PemSource::from(made.cert.pem()),
        ca: None,
        client_ca: None,
    };
    let gateway = TestGateway::configured(|config| {
        configure(config, ProxyProtocol::Required, "127.0.0.1");
        config.tls = Some(tls);
    })
    .await;
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let connect = async |header: &[u8]| {
        let stream = begun(&gateway, header).await;
        connector.connect("localhost".try_into().unwrap(), stream).await
    };
    let _first = Ws::open(connect(&v1("192.0.2.1")).await.unwrap(), "/k").await;
    let _second = Ws::open(connect(&v2([192, 0, 2, 2])).await.unwrap(), "/k").await;
    // Dropped, as there is no response without a handshake.
    assert!(connect(&v2([192, 0, 2, 2])).await.is_err());
    assert!(connect(b"").await.is_err());
    assert_eq!(gateway.refused(RefusalCause::MissingProxyHeader), 1);
    gateway.stop().await;
}

#[test]
fn header_without_trusted_proxies_is_a_contradiction() {
    let mut config = Config::default();
    config.access.proxy_protocol = ProxyProtocol::Optional;
    assert!(config.check().unwrap_err().to_string().contains("--trusted-proxies"));
}
