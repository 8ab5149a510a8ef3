//! Access of clients: of pages by their origin.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod common;

use common::TestGateway;
use common::process::Served;
use common::sse::{Answer, ask, ask_on};
use common::ws::request;
use sigver::config::{AllowedOrigins, OriginPattern};
use sigver::server::RefusalCause;

/// Sends a request for a WebSocket with more headers. Returns the response.
async fn upgrade(gateway: &TestGateway, path: &str, headers: &str) -> Answer {
    let request = request(path).replace("\r\n\r\n", &format!("\r\n{headers}\r\n"));
    ask_on(gateway.tcp().await, &request).await
}

/// Returns the number of refusals with this cause.
fn refused(gateway: &TestGateway, cause: RefusalCause) -> u64 {
    let counts = gateway.status.report(sigver::StatusQuery::default()).refused;
    counts.into_iter().find(|(of, _)| *of == cause).unwrap().1
}

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
    for (origin, status) in [
        ("", 101),
        ("Origin: https://app.example\r\n", 101),
        ("Origin: http://x.team.example:3000\r\n", 101),
        ("Origin: https://evil.example\r\n", 403),
        ("Origin: https://app.example.evil.example\r\n", 403),
        ("Origin: null\r\n", 403),
        ("Origin: \r\n", 403),
        ("Origin: https://\u{e4}pp.example\r\n", 403),
        ("Origin: https://app.example\r\nOrigin: https://evil.example\r\n", 403),
    ] {
        for path in ["/", "/room", &format!("/listen/abc{refusals}")] {
            let mut answer = upgrade(&gateway, path, origin).await;
            assert_eq!(answer.status, status, "{origin} on {path}");
            if status == 403 {
                refusals += 1;
                assert_eq!(answer.text().await, "403 Forbidden: pages of this origin may not connect\n");
            }
        }
    }
    assert_eq!(refused(&gateway, RefusalCause::ForeignOrigin), refusals);
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
    assert_eq!(upgrade(&gateway, &path, &origin).await.status, 403);
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
        assert_eq!(upgrade(&gateway, &path, &origin).await.status, status, "{origin}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn refused_origin_is_a_line_of_the_log() {
    let args = ["-h", "127.0.0.1", "-p", "0", "--control", "off", "--log", "debug"];
    let served = Served::start(&[&args[..], &["--allowed-origins", "https://app.example"]].concat()).await;
    for _ in 0..5 {
        let request = request("/secretkey").replace("\r\n\r\n", "\r\nOrigin: https://evil.example\r\n\r\n");
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
