//! Clients that need a token: from a file, signed, or accepted by a program of the operator.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use sigver::config::{AuthMethod, TrustedProxies};
use sigver::server::{RefusalCause, telemetry::LimitKind};
use sigver::{Config, Gateway};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::common::pairs::connect;
use crate::common::process::Served;
use crate::common::sse::{ask, ask_on};
use crate::common::ws::{Got, Ws, request, request_with};
use crate::common::{TestGateway, eventually, soon};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A file that is removed when dropped.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, text: &str) -> TempFile {
        let path = std::env::temp_dir().join(format!("sigver-auth-{name}-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        TempFile(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn gateway(method: AuthMethod) -> TestGateway {
    TestGateway::configured(|config| {
        config.access.auth.method = method;
        config.protocol = "auto,signaller".parse().unwrap();
    })
    .await
}

async fn with_tokens(name: &str, tokens: &str) -> (TestGateway, TempFile) {
    let file = TempFile::new(name, tokens);
    (gateway(AuthMethod::TokenFile(file.0.clone())).await, file)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn jwt(claims: &str) -> String {
    let message =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes())))
}

#[tokio::test]
async fn token_is_taken_from_three_places_and_echoed_in_none() {
    let (gateway, _file) = with_tokens("places", "good *\n").await;
    for (path, headers, status) in [
        ("/k", "", 401),
        ("/k?token=bad", "", 401),
        ("/k?token=", "", 401),
        ("/k?token=good", "", 101),
        ("/k?x=1&token=good&favored", "", 101),
        ("/k", "Authorization: Bearer good\r\n", 101),
        ("/k", "Authorization: Bearer bad\r\n", 401),
        ("/k", "Authorization: Basic good\r\n", 401),
        ("/k", "Sec-WebSocket-Protocol: token.good\r\n", 101),
        ("/k", "Sec-WebSocket-Protocol: token.bad, chat\r\n", 401),
        ("/listen/abc", "", 401),
        ("/connect/abc", "", 401),
        ("/listen/abc?token=good", "", 101),
    ] {
        let answer = gateway.upgrade(path, headers).await;
        assert_eq!(answer.status, status, "{path} {headers}");
        assert_eq!(answer.header("www-authenticate"), (status == 401).then_some("Bearer"));
        assert_eq!(answer.header("sec-websocket-protocol"), None);
    }
    let answer = gateway.upgrade("/k", "Sec-WebSocket-Protocol: token.good, chat\r\n").await;
    assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, Some("chat")));
    assert_eq!(gateway.refused(RefusalCause::MissingToken), 5);
    assert_eq!(gateway.refused(RefusalCause::InvalidToken), 3);
    // Health checks and the preflight of event streams need none.
    assert_eq!(ask(gateway.address, "GET", "/", &[], "").await.status, 200);
    let asked = [("Origin", "http://a"), ("Access-Control-Request-Method", "POST")];
    assert_eq!(ask(gateway.address, "OPTIONS", "/", &asked, "").await.status, 204);
    gateway.stop().await;
}

#[tokio::test]
async fn key_in_a_path_is_checked_before_the_upgrade() {
    let (gateway, _file) = with_tokens("paths", "one room salle*\nlisteners abc\n").await;
    for (path, status) in [
        ("/room?token=one", 101),
        ("/r%6Fom?token=one", 403),
        ("/other?token=one", 403),
        ("/salle%20de%20th%C3%A9?token=one", 101),
        ("/?token=one", 101),
        ("/?token=one/room", 101),
        ("/?token=one/other", 403),
        ("/listen/abc?token=one", 403),
        ("/listen/abc?token=listeners", 101),
        ("/listen/abcd?token=listeners", 403),
    ] {
        assert_eq!(gateway.upgrade(path, "").await.status, status, "{path}");
    }
    assert_eq!(gateway.refused(RefusalCause::ForbiddenKey), 5);
    // The room of the key is the same as without a token.
    let mut first = gateway.ws("/room?token=one").await;
    assert!(first.binary(&connect(11, &[])).await);
    first.expect(&[Got::binary("2001")]).await;
    let mut second = gateway.ws("/?x=1&token=one/room").await;
    assert!(second.binary(&connect(12, &[])).await);
    second.expect(&[Got::binary("2000")]).await;
    gateway.stop().await;
}

#[tokio::test]
async fn key_in_a_message_is_checked_where_the_room_is_entered() {
    let (gateway, _file) = with_tokens("messages", "one room\n").await;
    for (allowed, refused) in [
        (r#"{"open":"room"}"#, r#"{"open":"other"}"#),
        (r#"{"join":"room"}"#, r#"{"join":"other"}"#),
        (r#"{"key":"room"}"#, r#"{"key":"other"}"#),
    ] {
        let mut client = gateway.ws("/?token=one").await;
        assert!(client.text(refused).await);
        assert_eq!(client.expect_close(1008).await, "the token is not for this key", "{refused}");
        let mut client = gateway.ws("/?token=one").await;
        assert!(client.text(allowed).await);
        let answer = client.message().await;
        assert!(!matches!(answer, Got::Close(Some(1008), _)), "{allowed}: {answer:?}");
    }
    eventually("the end of the rooms", || gateway.rooms() == 0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn event_stream_needs_a_token_and_stays_in_its_keys() {
    let (gateway, _file) = with_tokens("events", "one room\n").await;
    let events = [("Accept", "text/event-stream"), ("Origin", "http://a.example")];
    let mut answer = ask(gateway.address, "GET", "/", &events, "").await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (401, Some("http://a.example"))
    );
    assert_eq!(answer.text().await, "401 Unauthorized: a token is needed\n");
    // As sigver 8.1, whose key is in the query.
    let mut stream = ask(gateway.address, "GET", "/?token=one&open=room", &events, "").await;
    stream.expect(&[":ok"]).await;
    assert!(stream.event().await.contains("\"isKeyOk\":true"));
    let mut stream = ask(gateway.address, "GET", "/?open=other&token=one", &events, "").await;
    stream.expect(&[":ok"]).await;
    let end = stream.event().await;
    assert!(!end.contains("\"isKeyOk\":true"), "{end}");
    assert_eq!(gateway.rooms(), 1);
    gateway.stop().await;
}

#[tokio::test]
async fn connection_ends_when_its_token_expires() {
    let file = TempFile::new("jwt", SECRET);
    let gateway = gateway(AuthMethod::Jwt(file.0.clone())).await;
    let expired = jwt(&format!(r#"{{"keys":"*","exp":{}}}"#, now() - 1));
    assert_eq!(gateway.upgrade(&format!("/k?token={expired}"), "").await.status, 401);
    assert_eq!(gateway.refused(RefusalCause::ExpiredToken), 1);
    let foreign = jwt(r#"{"keys":"other"}"#);
    assert_eq!(gateway.upgrade(&format!("/k?token={foreign}"), "").await.status, 403);
    assert_eq!(gateway.upgrade(&format!("/k?token={}", jwt("{}")), "").await.status, 403);

    let token = jwt(&format!(r#"{{"keys":["k"],"exp":{}}}"#, now() + 2));
    let mut client = gateway.ws(&format!("/k?token={token}")).await;
    assert!(client.binary(&connect(11, &[])).await);
    client.expect(&[Got::binary("2001")]).await;
    assert_eq!(client.expect_close(1008).await, "the token has expired");
    let token = jwt(&format!(r#"{{"keys":["handle"],"exp":{}}}"#, now() + 2));
    let mut listener = gateway.ws(&format!("/listen/handle?token={token}")).await;
    assert_eq!(listener.expect_close(1008).await, "the token has expired");
    let lasting = jwt(&format!(r#"{{"keys":["k"],"exp":{}}}"#, now() + 3600));
    drop(gateway.ws(&format!("/k?token={lasting}")).await);
    gateway.stop().await;
}

#[tokio::test]
async fn guesses_on_one_connection_have_the_rate_of_connections() {
    let file = TempFile::new("guesses", "good *\n");
    let gateway = TestGateway::configured(|config| {
        config.access.auth.method = AuthMethod::TokenFile(file.0.clone());
        config.protocol = "auto,signaller".parse().unwrap();
        config.limits.max_connection_rate = Some(5);
    })
    .await;
    let stream = "Accept: text/event-stream\r\n";
    let requests = ["/k", "/listen/0123456789", "/"].map(|path| match path {
        "/" => format!("GET /?token=bad HTTP/1.1\r\nHost: x\r\n{stream}\r\n"),
        path => request(&format!("{path}?token=bad")),
    });
    let began = std::time::Instant::now();
    let (mut connection, mut statuses) = (gateway.tcp().await, Vec::new());
    for request in requests.iter().cycle().take(30) {
        let mut answer = ask_on(connection, request).await;
        statuses.push(answer.status);
        answer.text().await;
        connection = answer.into_stream();
    }
    let tried = statuses.iter().filter(|status| **status == 401).count() as u64;
    let limited = gateway.status.shared.telemetry.limit_count(LimitKind::ConnectionRate);
    assert!(statuses.starts_with(&[401; 5]) && tried + limited == 30, "{statuses:?}");
    assert!(tried <= 5 + 5 * (began.elapsed().as_secs() + 1), "{statuses:?}");
    gateway.stop().await;
}

/// A program that decides about tokens, which counts the questions.
struct Program {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Program {
    async fn start(answer: fn(&str) -> &'static str) -> Program {
        Program::start_slow(Duration::ZERO, answer).await
    }

    /// Starts a program that takes this time for each answer.
    async fn start_slow(delay: Duration, answer: fn(&str) -> &'static str) -> Program {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/check", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.unwrap());
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                    let head = String::from_utf8(head).unwrap();
                    assert!(head.starts_with("GET /check HTTP/1.1\r\n"), "{head}");
                    let token = head.lines().find_map(|line| line.strip_prefix("authorization: Bearer "));
                    let token = token.unwrap();
                    let hangs = token.starts_with("hanging");
                    tokio::time::sleep(if hangs { Duration::from_secs(60) } else { delay }).await;
                    let _ = stream.write_all(answer(token).as_bytes()).await;
                });
            }
        });
        Program { url, asked }
    }
}

fn decide(token: &str) -> &'static str {
    match token {
        "all" => "HTTP/1.1 204 No Content\r\n\r\n",
        "room" => "HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{\"keys\":[\"room\"]}",
        "timed" => "HTTP/1.1 200 OK\r\nContent-Length: 31\r\n\r\n{\"keys\":[\"room\"],\"exp\":4.0e+9 }",
        "no" => "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        "often" => "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
        "broken" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "error" => "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        token if token.starts_with("silent") => "",
        _ => "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
    }
}

#[tokio::test]
async fn program_decides_and_its_answers_are_kept() {
    let program = Program::start(decide).await;
    let gateway = gateway(AuthMethod::Callout(program.url.clone())).await;
    for _ in 0..3 {
        for (path, status) in [
            ("/room?token=all", 101),
            ("/room?token=room", 101),
            ("/room?token=timed", 101),
            ("/other?token=room", 403),
            ("/room?token=no", 403),
            ("/room?token=unknown", 401),
            ("/room", 401),
        ] {
            assert_eq!(gateway.upgrade(path, "").await.status, status, "{path}");
        }
    }
    assert_eq!(program.asked.load(Ordering::SeqCst), 5);
    for _ in 0..2 {
        // Not kept.
        let answer = gateway.upgrade("/room?token=often", "").await;
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("7")));
    }
    for token in ["broken", "error", "silent"] {
        let answer = gateway.upgrade(&format!("/room?token={token}"), "").await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{token}");
    }
    assert_eq!(program.asked.load(Ordering::SeqCst), 10);
    assert_eq!(gateway.refused(RefusalCause::AuthUnavailable), 3);
    assert_eq!(gateway.refused(RefusalCause::TooManyTokenRequests), 2);
    gateway.stop().await;
}

#[tokio::test]
async fn program_that_does_not_answer_is_503_within_the_timeout() {
    let full = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", full.local_addr().unwrap());
    let gateway = TestGateway::configured(|config| {
        config.access.auth.method = AuthMethod::Callout(url);
        config.access.auth.callout_timeout = Duration::from_millis(200);
    })
    .await;
    let clients = (0..5).map(|_| gateway.upgrade("/k?token=x", ""));
    let answers = soon("the answers", futures_util::future::join_all(clients)).await;
    assert!(answers.iter().all(|answer| answer.status == 503));
    drop(full);
    assert_eq!(gateway.upgrade("/k?token=x", "").await.status, 503);
    gateway.stop().await;
}

#[tokio::test]
async fn clients_with_one_token_wait_for_one_answer() {
    let program = Program::start_slow(Duration::from_millis(300), decide).await;
    let gateway = gateway(AuthMethod::Callout(program.url.clone())).await;
    for (token, status) in [("all", 101), ("unknown", 401)] {
        // The one that asked first may leave.
        let mut left = gateway.tcp().await;
        left.write_all(request(&format!("/k?token={token}")).as_bytes()).await.unwrap();
        drop(left);
        let clients =
            (0..30).map(|_| async { gateway.upgrade(&format!("/k?token={token}"), "").await.status });
        assert_eq!(soon("the answers", futures_util::future::join_all(clients)).await, [status; 30]);
    }
    assert_eq!(program.asked.load(Ordering::SeqCst), 2);
    gateway.stop().await;
}

#[tokio::test]
async fn crowd_with_invalid_tokens_delays_no_client_of_another_address() {
    const CROWD: usize = 400;
    let program = Program::start_slow(Duration::from_millis(100), decide).await;
    let gateway = TestGateway::configured(|config| {
        config.access.auth.method = AuthMethod::Callout(program.url.clone());
        config.access.auth.callout_timeout = Duration::from_secs(10);
        config.access.trusted_proxies = TrustedProxies::parse("127.0.0.1").unwrap();
    })
    .await;
    let upgrade = async |token: String, address: &str| {
        let header = format!("X-Forwarded-For: {address}\r\n");
        gateway.upgrade(&format!("/k?token={token}"), &header).await.status
    };
    let crowd = (0..CROWD).map(|number| upgrade(format!("invalid-{number}"), "192.0.2.1"));
    let newcomer = async {
        eventually("the first questions", || program.asked.load(Ordering::SeqCst) >= 32).await;
        assert_eq!(upgrade("all".to_owned(), "192.0.2.2").await, 101);
        program.asked.load(Ordering::SeqCst)
    };
    let (refused, asked) = tokio::join!(futures_util::future::join_all(crowd), newcomer);
    assert_eq!(refused, [401; CROWD]);
    assert!(asked < CROWD / 2, "{asked} were asked about before");
    gateway.stop().await;
}

#[tokio::test]
async fn program_that_answers_nothing_is_not_asked_for_a_while() {
    let program = Program::start(decide).await;
    let gateway = gateway(AuthMethod::Callout(program.url.clone())).await;
    for number in 0..5 {
        let answer = gateway.upgrade(&format!("/k?token=silent-{number}"), "").await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    }
    let answer = gateway.upgrade("/k?token=all", "").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(program.asked.load(Ordering::SeqCst), 5);
    let began = std::time::Instant::now();
    while gateway.upgrade("/k?token=all", "").await.status != 101 {
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(program.asked.load(Ordering::SeqCst), 6);
    gateway.stop().await;
}

#[tokio::test]
async fn tokens_at_which_the_program_hangs_keep_out_no_client_of_another_address() {
    const ATTACKERS: usize = 30;
    let program = Program::start(decide).await;
    let gateway = TestGateway::configured(|config| {
        config.access.auth.method = AuthMethod::Callout(program.url.clone());
        config.access.auth.callout_timeout = Duration::from_millis(500);
        config.access.auth.callout_cache = Duration::ZERO;
        config.access.trusted_proxies = TrustedProxies::parse("127.0.0.1").unwrap();
    })
    .await;
    let status = async |token: String, network: String| {
        let header = format!("X-Forwarded-For: {network}::1\r\n");
        gateway.upgrade(&format!("/k?token={token}"), &header).await.status
    };
    let attackers = futures_util::future::join_all((0..ATTACKERS).map(async |number| {
        for round in 0.. {
            let (token, network) = (format!("hanging-{number}-{round}"), format!("2001:db8:1:{number:x}"));
            assert_eq!(status(token, network).await, 503);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }));
    let newcomers = async {
        eventually("the first questions", || program.asked.load(Ordering::SeqCst) >= ATTACKERS).await;
        for number in 0..30 {
            assert_eq!(status("all".to_owned(), format!("2001:db8:2:{number:x}")).await, 101, "{number}");
            // Long enough for failures in a row between two of them.
            tokio::time::sleep(Duration::from_millis(if number % 10 == 9 { 1600 } else { 50 })).await;
        }
    };
    tokio::select!(_ = attackers => unreachable!("they go on"), () = newcomers => {});
    gateway.stop().await;
}

#[tokio::test]
async fn program_that_is_not_there_is_one_warning() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let method = format!("callout:http://127.0.0.1:{port}/");
    let args = ["-h", "127.0.0.1", "-p", "0", "--control", "off", "--log", "warn", "--auth", &method];
    let served = Served::start(&args).await;
    for number in 0..10 {
        let request = request(&format!("/k?token=t{number}"));
        assert_eq!(ask_on(served.tcp().await, &request).await.status, 503);
    }
    served.signal("TERM").await;
    let log = served.end().await.2;
    assert_eq!(log.matches("the program of --auth callout does not answer").count(), 1, "{log}");
    assert!(log.contains("cannot connect to it") && log.contains("silences=1"), "{log}");
}

#[tokio::test]
async fn reload_reads_the_tokens_again() {
    let file = TempFile::new("reload", "old *\n");
    let mut config = Config::default().with_address("127.0.0.1", 0);
    config.access.auth.method = AuthMethod::TokenFile(file.0.clone());
    let gateway = Gateway::bind(config.clone()).await.unwrap();
    let (address, reloader) = (gateway.local_addr().unwrap(), gateway.reloader());
    tokio::spawn(gateway.run_until(std::future::pending()));
    let status = async |token: &str| {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        ask_on(stream, &request(&format!("/k?token={token}"))).await.status
    };
    let mut connected = {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        Ws::open(stream, "/k?token=old").await
    };
    std::fs::write(&file.0, "new *\n").unwrap();
    assert_eq!([status("old").await, status("new").await], [101, 401]);
    reloader.reload(&config).unwrap();
    assert_eq!([status("old").await, status("new").await], [401, 101]);
    // A bad file keeps the tokens, and who is connected stays.
    std::fs::write(&file.0, "alone\n").unwrap();
    let error = reloader.reload(&config).unwrap_err().to_string();
    assert!(error.contains("line 1: no room key") && !error.contains("alone"), "{error}");
    // Nor does one that is about to be written take everyone's rights.
    std::fs::write(&file.0, "# none yet\n").unwrap();
    let error = reloader.reload(&config).unwrap_err().to_string();
    assert!(error.ends_with("there is no token in it"), "{error}");
    // Nor is one read in part.
    std::fs::File::create(&file.0).unwrap().set_len((16 << 20) + 1).unwrap();
    let error = reloader.reload(&config).unwrap_err().to_string();
    assert!(error.ends_with("it has more than 16777216 bytes"), "{error}");
    assert_eq!([status("old").await, status("new").await], [401, 101]);
    assert!(connected.binary(&connect(11, &[])).await);
    connected.expect(&[Got::binary("2001")]).await;
}

#[tokio::test]
async fn log_has_no_token() {
    let file = TempFile::new("log", "s3cret room\n");
    let method = format!("token-file:{}", file.0.display());
    let args = ["-h", "127.0.0.1", "-p", "0", "--control", "off", "--log", "trace", "--auth", &method];
    let served = Served::start(&args).await;
    for (path, header) in [
        ("/room?token=s3cret", ""),
        ("/other?token=s3cret", ""),
        ("/room?token=s3cretbad", ""),
        ("/room", "Authorization: Bearer s3cret\r\n"),
        ("/room", "Sec-WebSocket-Protocol: token.s3cret\r\n"),
    ] {
        let request = request_with(path, header);
        ask_on(served.tcp().await, &request).await;
    }
    served.signal("TERM").await;
    let log = served.end().await.2;
    assert!(log.contains("a token that is not for the room key") && !log.contains("s3cret"), "{log}");
}
