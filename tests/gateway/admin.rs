//! The admin listener: health, readiness, metrics, status, history, drain and the page, over HTTP.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::Value;
use sigver::config::ListenAddress;
use sigver::protocol::dialect::Dialect;
use sigver::{Config, Gateway};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::common::pairs::first_member;
use crate::common::ws::Got;
use crate::common::{TestGateway, eventually, hex, soon, tls_files};

/// Paths of the admin listener for GET.
const PATHS: [&str; 7] = ["/", "/healthz", "/readyz", "/metrics", "/status", "/status.json", "/history"];

struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

async fn request_on(mut stream: impl AsyncRead + AsyncWrite + Unpin, line: &str, headers: &str) -> Reply {
    let host = if headers.contains("Host: ") { "" } else { "Host: localhost:9000\r\n" };
    let request = format!("{line} HTTP/1.1\r\n{host}Connection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    soon("a response", stream.read_to_string(&mut text)).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

async fn request(to: SocketAddr, line: &str, headers: &str) -> Reply {
    request_on(TcpStream::connect(to).await.unwrap(), line, headers).await
}

async fn get(to: SocketAddr, path: &str) -> Reply {
    request(to, &format!("GET {path}"), "").await
}

fn any_port() -> Option<ListenAddress> {
    ListenAddress::parse("127.0.0.1:0")
}

async fn start() -> (TestGateway, SocketAddr) {
    start_with(|_| ()).await
}

async fn start_with(configure: impl FnOnce(&mut Config)) -> (TestGateway, SocketAddr) {
    let gateway = TestGateway::configured(|config| {
        config.admin = any_port();
        configure(config);
    })
    .await;
    let admin = gateway.admin.unwrap();
    (gateway, admin)
}

/// Returns the value of a sample, or `None` if there is no such sample.
fn sample(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

async fn until_sample(admin: SocketAddr, name: &str, value: f64) {
    let poll = async {
        while sample(&get(admin, "/metrics").await.body, name) != Some(value) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(name, poll).await;
}

#[tokio::test]
async fn health_and_readiness_are_answered() {
    let (gateway, admin) = start().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(admin, path).await.status, 200, "{path}");
        assert_eq!(request(admin, &format!("HEAD {path}"), "").await.body, "");
    }
    let wrong = request(admin, "POST /healthz", "Content-Length: 0\r\n").await;
    assert_eq!((wrong.status, wrong.head.contains("allow: get, head")), (405, true), "{}", wrong.head);
    assert_eq!(wrong.body, "405 Method Not Allowed: use GET\n");
    assert_eq!(get(admin, "/k").await.status, 404);
    gateway.stop().await;
}

#[tokio::test]
async fn drain_is_that_of_a_signal() {
    let (gateway, admin) = start_with(|config| config.drain_timeout = Duration::from_secs(60)).await;
    let mut member = first_member(&gateway, "/k").await;
    let get_drain = get(admin, "/drain").await;
    assert_eq!((get_drain.status, get_drain.head.contains("allow: post")), (405, true));
    assert_eq!(get_drain.body, "405 Method Not Allowed: use POST\n");
    // A page of another site in the browser of the operator.
    let page = request(admin, "POST /drain", "Origin: http://evil.example\r\nContent-Length: 0\r\n").await;
    assert_eq!((page.status, get(admin, "/readyz").await.status), (403, 200));
    for _ in 0..2 {
        assert_eq!(request(admin, "POST /drain", "Content-Length: 0\r\n").await.status, 202);
    }
    let ready = get(admin, "/readyz").await;
    assert_eq!((ready.status, get(admin, "/healthz").await.status), (503, 200), "{}", ready.body);
    let status = gateway.status.clone();
    eventually("the drain", || status.shared.shutdown.is_draining()).await;
    assert!(TcpStream::connect(gateway.address).await.is_err(), "new clients are accepted");
    assert_eq!(get(admin, "/status").await.json()["draining"], true);
    assert_eq!(sample(&get(admin, "/metrics").await.body, "sigver_draining"), Some(1.0));
    status.shared.shut_down();
    member.expect(&[Got::Close(Some(1001), "the server is shutting down".to_owned())]).await;
    member.close(1001).await;
    soon("the end of the gateway", gateway.begin_stop()).await.unwrap();
    assert!(TcpStream::connect(admin).await.is_err(), "the admin listener outlives the gateway");
}

#[tokio::test]
async fn metrics_count_what_clients_do() {
    let (gateway, admin) = start().await;
    let mut member = first_member(&gateway, "/k").await;
    let mut joiner = gateway.ws("/k").await;
    assert!(joiner.binary(&hex("1a02080c")).await);
    joiner.expect(&[Got::binary("2000")]).await;
    let offer = b"\x12\x0d\x08\x00\x10\x00\x22\x07offer-J";
    assert!(joiner.binary(offer).await);
    assert!(matches!(member.message().await, Got::Binary(message) if message.ends_with(b"offer-J")));
    let metrics = get(admin, "/metrics").await;
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    let metrics = metrics.body;
    let dialect = gateway.status.report(Default::default());
    let dialect = dialect.dialects.iter().find(|dialect| dialect.assigned.active == 2).unwrap().name;
    let pair =
        |name: &str, one: &str, other: &str| format!("{name}{{{one}=\"{dialect}\",{other}=\"{dialect}\"}}");
    for (name, value) in [
        (format!("sigver_connections{{dialect=\"{dialect}\"}}"), 2.0),
        ("sigver_connections{dialect=\"sigver-7\"}".to_owned(), 0.0),
        ("sigver_connections_opened_total".to_owned(), 2.0),
        (format!("sigver_recognised_connections{{dialect=\"{dialect}\",evidence=\"first frame\"}}"), 1.0),
        (format!("sigver_recognised_connections{{dialect=\"{dialect}\",evidence=\"later frame\"}}"), 1.0),
        ("sigver_recognition_seconds_count{evidence=\"first frame\"}".to_owned(), 2.0),
        ("sigver_rooms".to_owned(), 1.0),
        (format!("sigver_rooms_with_dialect{{dialect=\"{dialect}\"}}"), 1.0),
        (pair("sigver_links", "joiner", "member"), 1.0),
        (pair("sigver_relayed_messages_total", "sender", "receiver"), 1.0),
        (pair("sigver_relayed_bytes_total", "sender", "receiver"), 7.0),
        ("sigver_panics_total".to_owned(), 0.0),
        ("sigver_refused_total{cause=\"foreign_origin\"}".to_owned(), 0.0),
        ("sigver_limit_reached_total{limit=\"message_size\"}".to_owned(), 0.0),
        ("sigver_build_info{version=\"22.0.0\"}".to_owned(), 1.0),
    ] {
        assert_eq!(sample(&metrics, &name), Some(value), "{name}\n{metrics}");
    }
    assert!(sample(&metrics, "sigver_longest_queue_bytes").unwrap() >= 7.0);
    assert!(!metrics.contains("offer-J") && !metrics.contains("\"k\""), "payloads or keys: {metrics}");
    joiner.close(1000).await;
    until_sample(admin, "sigver_connection_ends_total{side=\"client\",reason=\"close frame\"}", 1.0).await;
    // The end of the link: a socket with unread bytes would be reset.
    assert!(matches!(member.message().await, Got::Binary(_)));
    drop(member);
    until_sample(admin, "sigver_connection_ends_total{side=\"client\",reason=\"disconnected\"}", 1.0).await;
    assert!(gateway.ws("/k").await.raw(&[0xf1, 0x80, 0, 0, 0, 0]).await);
    until_sample(admin, "sigver_connection_ends_total{side=\"server\",reason=\"protocol error\"}", 1.0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn expiry_of_the_certificate_is_shown() {
    let (gateway, admin) = start_with(|config| config.tls = Some(tls_files())).await;
    let metrics = get(admin, "/metrics").await.body;
    // That of `openssl x509 -enddate`. The status has no later time than 32 bits.
    assert_eq!(sample(&metrics, "sigver_certificate_expiry_timestamp_seconds"), Some(4_948_835_201.0));
    assert_eq!(get(admin, "/status").await.json()["certificate_expires"], "2106-02-07T06:28:15Z");
    gateway.stop().await;
    let (gateway, admin) = start().await;
    let metrics = get(admin, "/metrics").await.body;
    assert_eq!(sample(&metrics, "sigver_certificate_expiry_timestamp_seconds"), None);
    gateway.stop().await;
}

#[tokio::test]
async fn signaller_ends_are_counted() {
    let (gateway, admin) =
        start_with(|config| config.signaller.limits.listen_deadline = Duration::from_millis(10)).await;
    let mut listener = gateway.ws("/listen/abc").await;
    assert!(matches!(listener.message().await, Got::Close(..)));
    until_sample(admin, "sigver_connection_ends_total{side=\"signaller\",reason=\"listen timeout\"}", 1.0)
        .await;
    gateway.stop().await;
}

#[tokio::test]
async fn status_and_history_are_json() {
    let (gateway, admin) = start().await;
    let _member = first_member(&gateway, "/very-secret-key").await;
    let status = get(admin, "/status").await;
    assert!(status.head.contains("content-type: application/json"), "{}", status.head);
    assert_eq!(status.json()["format"], 1);
    assert_eq!(status.json()["connections"]["active"], 1);
    assert!(status.json()["connection_list"].is_null());
    let all = get(admin, "/status.json?connections&rooms").await;
    assert_eq!(all.json()["connection_list"].as_array().unwrap().len(), 1);
    assert_eq!(all.json()["rooms"]["list"].as_array().unwrap().len(), 1);
    assert!(!all.body.contains("very-secret-key"), "{}", all.body);
    let history = get(admin, "/history").await.json();
    assert_eq!(history["samples"].as_array().unwrap().len(), 1, "{history}");
    gateway.stop().await;
}

#[tokio::test]
async fn requests_of_pages_of_other_sites_are_refused() {
    let (gateway, admin) = start().await;
    for (line, headers, status) in [
        ("GET /status", "Host: rebound.example\r\n", 403),
        ("GET /status", "Host: localhost.example:9000\r\n", 403),
        ("GET /status", "Host: 127.0.0.1.example\r\n", 403),
        ("GET /status", "Host: \r\n", 403),
        ("GET http://rebound.example/status", "Host: localhost\r\n", 403),
        ("GET /status", "Host: localhost\r\nHost: localhost\r\n", 400),
        ("GET /status", "Host: LOCALHOST\r\n", 200),
        ("GET /status", "Host: 127.0.0.1:9000\r\n", 200),
        ("GET /status", "Host: [::1]:9000\r\n", 200),
        ("GET /metrics", "Sec-Fetch-Site: cross-site\r\n", 403),
        ("GET /status", "Sec-Fetch-Site: same-origin\r\nReferer: http://localhost:9000/\r\n", 200),
        ("GET /", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n", 200),
        ("POST /drain", "Sec-Fetch-Site: cross-site\r\n", 403),
        ("POST /drain", "Sec-Fetch-Site: same-origin\r\n", 403),
        ("POST /drain", "Referer: http://evil.example/\r\n", 403),
        ("POST /drain", "Origin: null\r\n", 403),
    ] {
        assert_eq!(request(admin, line, headers).await.status, status, "{line} {headers}");
    }
    assert!(!gateway.status.shared.shutdown.is_draining());
    gateway.stop().await;
}

#[tokio::test]
async fn nothing_of_it_is_on_the_port_for_clients() {
    let (gateway, admin) = start().await;
    for path in PATHS {
        let (mine, public) = (get(admin, path).await, get(gateway.address, path).await);
        assert_eq!(mine.status, 200, "{path}");
        // The path / is the greeting, as without an admin listener.
        let expected = if path == "/" { 200 } else { 426 };
        assert_eq!(public.status, expected, "{path}");
        assert_ne!(mine.body, public.body, "{path}");
        assert!(
            public.body.contains("sigver:") || public.body.contains("WebSockets only"),
            "{}",
            public.body
        );
    }
    assert_eq!(request(gateway.address, "POST /drain", "Content-Length: 0\r\n").await.status, 404);
    assert!(!gateway.status.shared.shutdown.is_draining());
    gateway.stop().await;
    let without = TestGateway::start("auto").await;
    assert_eq!(without.admin, None);
    without.stop().await;
}

#[tokio::test]
async fn unix_socket_is_for_the_owner_only() {
    let folder = std::env::temp_dir().join(format!("sigver-admin-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("admin.sock");
    let mut config = Config::default().with_address("127.0.0.1", 0);
    config.admin = Some(ListenAddress::Unix(path.clone()));
    config.drain_timeout = Duration::ZERO;
    let gateway = Gateway::bind(config).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let running = tokio::spawn(gateway.run_until(std::future::pending()));
    let connect = || async { UnixStream::connect(&path).await.unwrap() };
    assert_eq!(request_on(connect().await, "GET /readyz", "").await.body, "ready\n");
    assert_eq!(request_on(connect().await, "POST /drain", "Content-Length: 0\r\n").await.status, 202);
    soon("the end of the gateway", running).await.unwrap();
    assert!(!path.exists());
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn page_is_self_contained() {
    let (gateway, admin) = start().await;
    let page = get(admin, "/").await;
    assert!(page.head.contains("content-type: text/html"), "{}", page.head);
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    for external in [" src=", " href=\"http", "@import", "url(", "innerHTML"] {
        assert!(!page.body.contains(external), "{external}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn page_has_every_dialect() {
    let (gateway, admin) = start().await;
    let page = get(admin, "/").await.body;
    let has = |dialect: &Dialect| {
        page.contains(&format!("\n  '{dialect}': ")) || page.contains(&format!("[\"{dialect}\","))
    };
    let missing: Vec<Dialect> = Dialect::ALL.into_iter().filter(|dialect| !has(dialect)).collect();
    assert!(missing.is_empty(), "src/server/admin/page.html cannot try {missing:?}");
    gateway.stop().await;
}

/// Names of the metrics in a text, with those that Prometheus derives from a histogram.
fn known_names(metrics: &str) -> BTreeSet<String> {
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names = types.filter_map(|line| line.split_once(' ')).flat_map(|(name, kind)| {
        let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_count", "_sum"] } else { &[""] };
        suffixes.iter().map(move |suffix| format!("{name}{suffix}"))
    });
    names.collect()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Names of metrics that a text uses.
fn used_names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metric = |word: &&str| ["sigver_", "process_"].iter().any(|prefix| word.starts_with(prefix));
    words.filter(metric).map(str::to_owned).collect()
}

#[tokio::test]
async fn dashboard_alerts_and_page_use_metrics_that_exist() {
    let (gateway, admin) = start().await;
    let mut known = known_names(&get(admin, "/metrics").await.body);
    // Those of a cluster are in the reference alone, as this server is no node of one.
    let reference = sigver::server::admin::metrics_markdown();
    known.extend(
        reference.lines().filter_map(|row| Some(row.strip_prefix("| `")?.split_once('`')?.0.to_owned())),
    );
    let howto = read("docs/howto/monitor.md");
    let alerts = howto.split("```yaml").skip(1).filter_map(|rest| rest.split_once("```"));
    let alerts: String = alerts.map(|(block, _)| block).filter(|block| block.contains("alert:")).collect();
    let dashboard = read("docs/grafana-dashboard.json");
    let _: Value = serde_json::from_str(&dashboard).unwrap();
    for (file, text) in
        [("the dashboard", &dashboard), ("the alerts", &alerts), ("the page", &get(admin, "/").await.body)]
    {
        let used = used_names(text);
        assert!(used.len() >= 4, "{file}: {used:?}");
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{file} uses metrics that do not exist: {unknown:?}");
    }
    gateway.stop().await;
}

#[test]
fn metrics_reference_is_that_of_the_program() {
    let table = sigver::server::admin::metrics_markdown();
    assert!(
        read("docs/reference/metrics.md").contains(&table),
        "docs/reference/metrics.md does not have this table:\n{table}"
    );
}
