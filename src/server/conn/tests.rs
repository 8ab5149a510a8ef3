//! Connections over a transport that a test drives.

mod flood;

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tracing::Dispatch;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::*;
use crate::config::{Config, LogIp};
use crate::protocol::dialect::UpgradeRequest;
use crate::protocol::frame::{Close, Message, Outgoing};
use crate::server::client_endpoint::ClientEndpoint;
use crate::server::transport::{Incoming, Transport, TransportKind, TransportLoad};

/// An input of a test.
enum Input {
    Incoming(Incoming),
    ReadError,
    WriteError,
    Panic,
}

/// A transport whose client is a test.
struct TestTransport {
    inputs: mpsc::UnboundedReceiver<Input>,
    sent: mpsc::UnboundedSender<Outgoing>,
    pings: Arc<AtomicU32>,
    read_error: Option<io::Error>,
    write_error: Option<io::Error>,
}

impl Transport for TestTransport {
    const KEEPALIVE: Option<Duration> = None;
    const KIND: TransportKind = TransportKind::WebSocket;

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        self.inputs.poll_recv(context).map(|input| match input {
            None => Incoming::Disconnected,
            Some(Input::Incoming(incoming)) => incoming,
            Some(Input::ReadError) => {
                self.read_error = Some(io::ErrorKind::ConnectionReset.into());
                Incoming::Disconnected
            }
            Some(Input::WriteError) => {
                self.write_error = Some(io::ErrorKind::BrokenPipe.into());
                // The pong has to be sent.
                Incoming::Ping
            }
            Some(Input::Panic) => panic!("a bug"),
        })
    }

    fn queue(&mut self, outgoing: Outgoing) -> io::Result<bool> {
        let last = matches!(outgoing, Outgoing::Close(_));
        let _ = self.sent.send(outgoing);
        Ok(last)
    }

    fn queue_ping(&mut self) -> io::Result<()> {
        self.pings.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn take_error(&mut self) -> Option<io::Error> {
        self.read_error.take()
    }

    fn is_congested(&self) -> bool {
        false
    }

    fn take_load(&mut self) -> TransportLoad {
        TransportLoad::default()
    }

    fn stop_receiving(&mut self) {}

    fn poll_flush(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.write_error.take().map_or(Ok(()), Err))
    }

    async fn close_gracefully(&mut self, _closed: bool, _timeout: Duration) {}

    async fn drain(self, _timeout: Duration) {}
}

/// The test's end of a connection.
struct TestClient {
    inputs: mpsc::UnboundedSender<Input>,
    sent: mpsc::UnboundedReceiver<Outgoing>,
    pings: Arc<AtomicU32>,
}

impl TestClient {
    fn open(shared: &Arc<Shared>) -> Self {
        TestClient::open_path(shared, "/key")
    }

    fn open_path(shared: &Arc<Shared>, path: &str) -> Self {
        let (inputs, receiver) = mpsc::unbounded_channel();
        let (sender, sent) = mpsc::unbounded_channel();
        let pings = Arc::<AtomicU32>::default();
        let transport = TestTransport {
            inputs: receiver,
            sent: sender,
            pings: Arc::clone(&pings),
            read_error: None,
            write_error: None,
        };
        let upgrade = UpgradeRequest { path: path.to_owned(), favored: false, from_page: true };
        let endpoint = ClientEndpoint {
            remote: Some(Ipv4Addr::new(192, 0, 2, 77).into()),
            tls: false,
            behind_proxy: false,
        };
        let policy = |shared: &Shared| Arc::clone(&shared.policy);
        tokio::spawn(run(transport, endpoint, upgrade, policy, Arc::clone(shared), ()));
        TestClient { inputs, sent, pings }
    }

    fn send(&self, bytes: &'static [u8]) {
        let message = Message::binary(bytes);
        assert!(self.inputs.send(Input::Incoming(Incoming::Message(message))).is_ok());
    }

    /// Returns the next message; nothing after the end of the connection.
    async fn next(&mut self) -> Option<Outgoing> {
        self.sent.recv().await
    }

    async fn next_message(&mut self) -> Option<Vec<u8>> {
        match self.next().await?.into_message() {
            Ok(Message::Binary(bytes)) => Some(bytes.to_vec()),
            other => panic!("{other:?}"),
        }
    }
}

fn shared() -> Arc<Shared> {
    shared_with(LogIp::Off)
}

fn shared_with(log_ip: LogIp) -> Arc<Shared> {
    let protocol = "sigver-20".parse().unwrap();
    Shared::new(&Config { log_ip, protocol, ..Config::default() })
}

#[tokio::test(start_paused = true)]
async fn panic_ends_one_connection_and_leaves_its_room() {
    let shared = shared();
    let mut member = TestClient::open(&shared);
    member.send(b"\x1a\x02\x08\x0b");
    assert_eq!(member.next_message().await.as_deref(), Some(&b"\x20\x01"[..]), "connected");
    let mut joiner = TestClient::open(&shared);
    joiner.send(b"\x1a\x02\x08\x0c");
    assert_eq!(joiner.next_message().await.as_deref(), Some(&b"\x20\x00"[..]), "linked");
    joiner.send(b"\x12\x0d\x08\x00\x10\x00\x22\x07offer-J");
    assert!(member.next_message().await.unwrap().ends_with(b"offer-J"));

    assert!(joiner.inputs.send(Input::Panic).is_ok());
    assert_eq!(joiner.next().await, None);
    assert_eq!(shared.telemetry.panics(), 1);
    let end = member.next_message().await.unwrap();
    assert!(end.starts_with(b"\x12") && !end.ends_with(b"offer-J"), "the end of the link: {end:?}");
    assert_eq!(shared.telemetry.counts().sum().active, 1);

    // The other connection goes on.
    let mut next = TestClient::open(&shared);
    next.send(b"\x1a\x02\x08\x0d");
    assert_eq!(next.next_message().await.as_deref(), Some(&b"\x20\x00"[..]));
    next.send(b"\x12\x0d\x08\x00\x10\x00\x22\x07offer-K");
    assert!(member.next_message().await.unwrap().ends_with(b"offer-K"));
}

#[tokio::test(start_paused = true)]
async fn shutdown_closes_connections() {
    let shared = shared();
    let mut early = TestClient::open(&shared);
    early.send(b"\x1a\x02\x08\x0b");
    assert!(early.next_message().await.is_some());
    shared.shut_down();
    let mut late = TestClient::open(&shared);
    for client in [&mut early, &mut late] {
        let Some(Outgoing::Close(close)) = client.next().await else { panic!("no close frame") };
        assert_eq!(close.code, Some(1001));
        assert_eq!(client.next().await, None);
    }
}

/// A task of tokio's is as long as its future and 112 bytes, rounded up to 128 of them.
#[test]
fn connection_task_is_small() {
    let size = driver::size_of_websocket_task();
    assert!(size <= 3 * 128 - 112, "{size}");
}

/// A second subscriber, which receives nothing. While there is only one, `tracing` asks that of the current
/// thread if an event is of interest, for all threads: of another test, which has none.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));

/// The log of a test, at every level.
#[derive(Clone, Default)]
struct TestLog(Arc<Mutex<Vec<u8>>>);

impl io::Write for TestLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TestLog {
    /// Returns a log of all events of this thread, until the guard is dropped.
    fn capture() -> (Self, DefaultGuard) {
        LazyLock::force(&SECOND);
        let log = TestLog::default();
        let writer = log.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        (log, tracing_subscriber::registry().with(layer).set_default())
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

#[test]
fn log_has_events_of_which_another_thread_caused_the_first() {
    let event = || tracing::debug!("event");
    let (log, _guard) = TestLog::capture();
    std::thread::spawn(event).join().unwrap();
    event();
    assert_eq!(log.text().matches("event").count(), 1, "{}", log.text());
}

#[tokio::test(start_paused = true)]
async fn every_end_is_one_line_without_keys_and_payloads() {
    let (log, _guard) = TestLog::capture();
    let shared = shared();
    let violation = || Incoming::ProtocolError(Close::new(1002, "the client's secret"));
    type End = (fn() -> Input, &'static str);
    let ends: [End; 9] = [
        (|| Input::Incoming(Incoming::Closed(Some(1000))), "cause=\"close frame\" code=1000"),
        (|| Input::Incoming(Incoming::Disconnected), "cause=\"disconnected\""),
        (|| Input::ReadError, "by=\"network\" cause=\"I/O error\" error=connection reset"),
        (|| Input::WriteError, "by=\"network\" cause=\"I/O error\" error=broken pipe"),
        (|| Input::Incoming(Incoming::MessageTooBig), "cause=\"message too big\" code=1009"),
        (|| Input::Incoming(Incoming::Message(Message::text("secret"))), "cause=\"dialect\" code=4743"),
        (|| Input::Incoming(Incoming::Message(Message::binary(&b"\x12\x06secret"[..]))), "cause=\"dialect\""),
        (|| Input::Panic, "ended by a panic"),
        (|| Input::Incoming(Incoming::Pong), "cause=\"shutdown\" code=1001"),
    ];
    for (number, (end, _)) in ends.iter().enumerate() {
        let mut client = TestClient::open_path(&shared, &format!("/secret-{number}"));
        client.send(b"\x1a\x02\x08\x0b");
        assert!(client.next_message().await.is_some());
        assert!(client.inputs.send(end()).is_ok());
        if number + 1 == ends.len() {
            shared.shut_down();
        }
        while client.next().await.is_some() {}
    }
    let mut client = TestClient::open_path(&shared, "/secret");
    assert!(client.inputs.send(Input::Incoming(violation())).is_ok());
    while client.next().await.is_some() {}
    let text = log.text();
    let ended: Vec<&str> = text.lines().filter(|line| line.contains("connection ended")).collect();
    assert_eq!(ended.len(), ends.len() + 1, "{text}");
    for (line, (_, cause)) in ended.iter().zip(ends) {
        assert!(line.contains(cause), "{line} without {cause}");
    }
    assert!(!text.contains("secret") && !text.contains("192.0.2"), "{text}");
}

// With a running clock: the deadlines of connections are those of the system's clock.
#[tokio::test]
async fn unanswered_ping_ends_the_connection_without_a_close_frame() {
    let (log, _guard) = TestLog::capture();
    let protocol = "sigver-20".parse().unwrap();
    let ping_after = Duration::from_millis(50);
    let shared = Shared::new(&Config { protocol, ping_after, ..Config::default() });
    let timers = tokio::spawn({
        let shared = Arc::clone(&shared);
        async move { shared.timers.run().await }
    });
    let mut client = TestClient::open(&shared);
    client.send(b"\x1a\x02\x08\x0b");
    assert!(client.next_message().await.is_some());
    let end = tokio::time::timeout(Duration::from_secs(5), client.next()).await;
    assert_eq!(end.unwrap(), None);
    assert_eq!(client.pings.load(Ordering::Relaxed), 1);
    assert_eq!(shared.telemetry.counts().sum().active, 0);
    let text = log.text();
    let line = text.lines().find(|line| line.contains("connection ended")).unwrap();
    assert!(line.contains("by=\"server\" cause=\"ping timeout\""), "{line}");
    timers.abort();
}

#[tokio::test(start_paused = true)]
async fn addresses_are_logged_when_asked_for() {
    for (log_ip, expected) in [(LogIp::Full, "remote=192.0.2.77 "), (LogIp::Prefix, "remote=192.0.2.0/24 ")] {
        let (log, _guard) = TestLog::capture();
        let mut client = TestClient::open(&shared_with(log_ip));
        assert!(client.inputs.send(Input::Incoming(Incoming::Disconnected)).is_ok());
        assert_eq!(client.next().await, None);
        let text = log.text();
        let line = text.lines().find(|line| line.contains("connection ended")).unwrap();
        assert!(line.contains(expected) && line.contains("transport=\"websocket\" tls=false"), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn line_about_a_limit_has_the_connection_that_reached_it_last() {
    for (log_ip, expected) in [
        (LogIp::Full, "remote=192.0.2.77 "),
        (LogIp::Prefix, "remote=192.0.2.0/24 "),
        (LogIp::Off, "transport=\"websocket\""),
    ] {
        let (log, _guard) = TestLog::capture();
        let shared = shared_with(log_ip);
        let (_other, mut client) = (TestClient::open(&shared), TestClient::open(&shared));
        assert!(client.inputs.send(Input::Incoming(Incoming::MessageTooBig)).is_ok());
        while client.next().await.is_some() {}
        shared.log_limits();
        let text = log.text();
        let line = text.lines().find(|line| line.contains("clients reached a limit")).unwrap();
        assert!(line.contains("limit=\"message_size\" times=1") && line.contains(expected), "{line}");
        let ended = text.lines().find(|line| line.contains("cause=\"message too big\"")).unwrap();
        let connection =
            |line: &str| line[line.find("connection{").unwrap()..line.find('}').unwrap()].to_owned();
        assert_eq!(connection(line), connection(ended), "{text}");
        assert_eq!(text.contains("192.0.2."), log_ip != LogIp::Off, "{text}");
    }
}
