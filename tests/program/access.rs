//! Access of clients: of pages by their origin, and of clients behind proxies by their address.

use sigver::config::{AllowedOrigins, OriginPattern, TrustedProxies};
use sigver::server::RefusalCause;
use sigver::server::telemetry::LimitKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::common::process::Served;
use crate::common::sse::{Answer, ask, ask_on};
use crate::common::ws::request_with;
use crate::common::{TestGateway, eventually, soon};

async fn for_origins(list: &str) -> TestGateway {
    TestGateway::configured(|config| {
        config.access.allowed_origins = AllowedOrigins::parse(list).unwrap();
        config.protocol = "auto,signaller".parse().unwrap();
    })
    .await
}

#[tokio::test]
async fn pages_of_other_origins_are_refused_before_the_upgrade() {
    let gateway = for_origins("https://app.example,*.team.example").await;
    let mut refusals = 0;
    let cases = [
        ("", 101),
        ("Origin: https://app.example\r\n", 101),
        ("Origin: http://x.team.example:3000\r\n", 101),
        ("Origin: https://evil.example\r\n", 403),
        ("Origin: https://app.example.evil.example\r\n", 403),
        ("Origin: null\r\n", 403),
        ("Sec-Fetch-Site: cross-site\r\n", 403),
        ("Sec-Fetch-Site: same-origin\r\n", 101),
        ("Sec-Fetch-Site: cross-site\r\nOrigin: https://app.example\r\n", 101),
        ("Origin: \r\n", 403),
        ("Origin: https://\u{e4}pp.example\r\n", 403),
        ("Origin: https://app.example\r\nOrigin: https://evil.example\r\n", 403),
    ];
    for (at, (origin, status)) in cases.into_iter().enumerate() {
        // A path of its own each time: that the listener of the case before has left may not be known yet.
        for path in ["/", "/room", &format!("/listen/abc{at}")] {
            let mut answer = gateway.upgrade(path, origin).await;
            assert_eq!(answer.status, status, "{origin} on {path}");
            if status == 403 {
                refusals += 1;
                assert_eq!(answer.text().await, "403 Forbidden: pages of this origin may not connect\n");
            }
        }
    }
    assert_eq!(gateway.refused(RefusalCause::ForeignOrigin), refusals);
    gateway.stop().await;
}

#[tokio::test]
async fn event_streams_of_other_origins_are_refused() {
    let gateway = for_origins("https://app.example").await;
    let events = ("Accept", "text/event-stream");
    let asked = ("Access-Control-Request-Method", "POST");
    for (method, path, header) in
        [("GET", "/", events), ("GET", "/?open=k", events), ("POST", "/", events), ("OPTIONS", "/", asked)]
    {
        let foreign =
            ask(gateway.address, method, path, &[header, ("Origin", "https://evil.example")], "").await;
        assert_eq!(foreign.status, 403, "{method} {path}");
        assert_eq!(foreign.header("access-control-allow-origin"), None);
        let own = ask(gateway.address, method, path, &[header, ("Origin", "https://app.example")], "").await;
        assert_ne!(own.status, 403, "{method} {path}");
    }
    // Health checks are not from pages.
    assert_eq!(ask(gateway.address, "GET", "/", &[], "").await.status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn origins_of_the_path_relay_are_its_own_or_those_of_all() {
    let listen = |handle: &'static str, origin: &'static str| {
        (format!("/listen/{handle}"), format!("Origin: {origin}\r\n"))
    };
    // By default only the server's own.
    let gateway = TestGateway::start("auto,signaller").await;
    let (path, origin) = listen("abc", "https://app.example");
    assert_eq!(gateway.upgrade(&path, &origin).await.status, 403);
    gateway.stop().await;
    let gateway = TestGateway::configured(|config| {
        config.access.allowed_origins = AllowedOrigins::parse("app.example,b.example").unwrap();
        config.protocol = "auto,signaller".parse().unwrap();
        let expression = regex_lite::Regex::new("app").unwrap();
        config.signaller.origin = Some(OriginPattern::Expression(expression));
    })
    .await;
    for (handle, origin, status) in [
        ("abc", "https://app.example", 101),
        ("abd", "https://b.example", 403),
        ("abe", "https://app.c", 403),
    ] {
        let (path, origin) = listen(handle, origin);
        assert_eq!(gateway.upgrade(&path, &origin).await.status, status, "{origin}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn refused_origin_is_a_line_of_the_log() {
    let args = ["-h", "127.0.0.1", "-p", "0", "--control", "off", "--log", "debug"];
    let served = Served::start(&[&args[..], &["--allowed-origins", "https://app.example"]].concat()).await;
    for _ in 0..5 {
        let request = request_with("/secretkey", "Origin: https://evil.example\r\n");
        assert_eq!(ask_on(served.tcp().await, &request).await.status, 403);
    }
    served.signal("TERM").await;
    let log = served.end().await.2;
    let lines = |level: &str| {
        log.lines().filter(|line| line.contains(level) && line.contains("origin of the page")).count()
    };
    assert_eq!((lines("DEBUG"), lines("INFO")), (5, 1), "{log}");
    assert!(!log.contains("secretkey") && !log.contains("evil"), "{log}");
}

/// A gateway that trusts the proxies of this list, and admits two connections and one stream of an address.
async fn behind(proxies: &str) -> TestGateway {
    TestGateway::configured(|config| {
        config.access.trusted_proxies = TrustedProxies::parse(proxies).unwrap();
        config.limits.max_connections_per_address = Some(2);
        config.limits.max_streams_per_address = Some(1);
    })
    .await
}

/// Asks for WebSockets with these headers. Returns the statuses; those that were granted stay open.
async fn statuses(gateway: &TestGateway, headers: &[&str]) -> (Vec<u16>, Vec<Answer>) {
    let (mut statuses, mut open) = (Vec::new(), Vec::new());
    for header in headers {
        let answer = gateway.upgrade("/k", &format!("{header}\r\n")).await;
        statuses.push(answer.status);
        if answer.status == 429 {
            assert_eq!(answer.header("retry-after"), Some("1"));
        } else {
            open.push(answer);
        }
    }
    (statuses, open)
}

#[tokio::test]
async fn connections_behind_a_proxy_count_by_the_address_of_the_client() {
    let gateway = behind("127.0.0.1").await;
    let (got, open) = statuses(
        &gateway,
        &[
            "X-Forwarded-For: 192.0.2.1",
            // What a client puts in front is not believed.
            "X-Forwarded-For: 198.51.100.1, 192.0.2.1",
            "X-Forwarded-For: 198.51.100.2, 192.0.2.1",
            "Forwarded: for=198.51.100.3, for=192.0.2.1",
            "Forwarded: for=192.0.2.2",
            // One /64, and another.
            "X-Forwarded-For: 2001:db8:0:1::1",
            "Forwarded: for=\"[2001:db8:0:1:ffff::2]:4711\"",
            "X-Forwarded-For: 2001:db8:0:1::3",
            "X-Forwarded-For: 2001:db8:0:2::3",
            // The proxy itself.
            "X-Other: 1",
            "X-Other: 1",
            "X-Other: 1",
        ],
    )
    .await;
    assert_eq!(got, [101, 101, 429, 429, 101, 101, 101, 429, 101, 101, 101, 429]);
    let counted = gateway.status.shared.telemetry.limit_count(LimitKind::ConnectionsPerAddress);
    assert_eq!(counted, 4);
    eventually("the end of the refused", || gateway.status.shared.admission.open() == 8).await;
    // There is room again when they have closed.
    drop(open);
    eventually("the end", || gateway.status.shared.admission.open() == 0).await;
    assert_eq!(statuses(&gateway, &["X-Forwarded-For: 192.0.2.1"]).await.0, [101]);
    gateway.stop().await;
}

#[tokio::test]
async fn header_of_a_peer_that_is_no_proxy_is_ignored() {
    let gateway = behind("192.0.2.0/24,unix").await;
    let (_open, got) = {
        let first = gateway.upgrade("/k", "X-Forwarded-For: 198.51.100.1\r\n").await;
        let second = gateway.upgrade("/k", "Forwarded: for=198.51.100.2\r\n").await;
        let statuses = [first.status, second.status];
        ((first, second), statuses)
    };
    assert_eq!(got, [101, 101]);
    // Refused before anything is read, as without proxies.
    let mut third = gateway.tcp().await;
    let mut response = String::new();
    soon("a refusal", third.read_to_string(&mut response)).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 429 "), "{response}");
    gateway.stop().await;
}

#[tokio::test]
async fn event_streams_behind_a_proxy_count_by_the_address_of_the_client() {
    let gateway = behind("127.0.0.1").await;
    let open = async |client: &str| {
        let headers = [("Accept", "text/event-stream"), ("X-Forwarded-For", client)];
        ask(gateway.address, "GET", "/", &headers, "").await
    };
    let first = open("192.0.2.1").await;
    let (second, other) = (open("192.0.2.1").await, open("192.0.2.2").await);
    assert_eq!([first.status, second.status, other.status], [200, 429, 200]);
    assert_eq!(second.header("retry-after"), Some("1"));
    drop(first);
    let streams = || gateway.status.shared.admission.open();
    eventually("the end", || streams() <= 2).await;
    // A request of the same connection that is for another client.
    let mut answer = ask(gateway.address, "GET", "/", &[("X-Forwarded-For", "192.0.2.3")], "").await;
    answer.text().await;
    let request =
        "GET / HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nX-Forwarded-For: 192.0.2.2\r\n\r\n";
    assert_eq!(ask_on(answer.into_stream(), request).await.status, 429);
    gateway.stop().await;
}

#[tokio::test]
async fn rate_behind_a_proxy_is_that_of_the_client() {
    let gateway = TestGateway::configured(|config| {
        config.access.trusted_proxies = TrustedProxies::parse("127.0.0.1").unwrap();
        config.limits.max_connection_rate = Some(1);
    })
    .await;
    let clients: Vec<String> = (0..20).map(|number| format!("X-Forwarded-For: 192.0.2.{number}")).collect();
    let clients: Vec<&str> = clients.iter().map(String::as_str).collect();
    let (got, _open) = statuses(&gateway, &clients).await;
    assert!(got.iter().all(|status| *status == 101), "{got:?}");
    let one = ["X-Forwarded-For: 192.0.2.200"; 20];
    let (got, _open) = statuses(&gateway, &one).await;
    assert!(got.contains(&429), "{got:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn log_has_the_address_of_the_client_behind_a_proxy() {
    let args = ["-h", "127.0.0.1", "-p", "0", "--control", "off", "--log", "debug", "--log-ip", "full"];
    let more = ["--trusted-proxies", "127.0.0.0/8", "--allowed-origins", "a.example"];
    let served = Served::start(&[&args[..], &more].concat()).await;
    for (client, origin) in [("192.0.2.7", "http://a.example"), ("192.0.2.8", "http://b.example")] {
        let request = request_with("/k", &format!("X-Forwarded-For: {client}\r\nOrigin: {origin}\r\n"));
        ask_on(served.tcp().await, &request).await;
    }
    served.signal("TERM").await;
    let log = served.end().await.2;
    let line = |part: &str| log.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{log}"));
    assert!(line("192.0.2.7").contains("connection"), "{log}");
    assert!(line("192.0.2.8").contains("refused"), "{log}");
}

#[tokio::test]
async fn log_has_what_a_program_answers_that_cannot_be_used() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let method = format!("callout:http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    let args = ["-h", "127.0.0.1", "-p", "0", "--control", "off", "--auth", &method];
    let served = Served::start(&args).await;
    for number in 0..3 {
        let request = request_with(&format!("/k?token=t{number}"), "");
        assert_eq!(ask_on(served.tcp().await, &request).await.status, 503);
    }
    served.signal("TERM").await;
    let log = served.end().await.2;
    assert!(!log.contains("not answer") && !log.contains("silent"), "{log}");
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert!(
        warnings.len() == 1 && warnings[0].contains("its answer has status 500, which is none of"),
        "{log}"
    );
}
