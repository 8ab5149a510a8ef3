//! Connections over a transport that a test drives.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;

use super::*;
use crate::config::LogIp;
use crate::protocol::detect::Policy;
use crate::protocol::dialect::UpgradeRequest;
use crate::protocol::frame::{Message, Outgoing};
use crate::server::transport::{Incoming, Transport, TransportKind};

/// An input of a test.
enum Input {
    Incoming(Incoming),
    Panic,
}

/// A transport whose client is a test.
struct TestTransport {
    inputs: mpsc::UnboundedReceiver<Input>,
    sent: mpsc::UnboundedSender<Outgoing>,
}

impl Transport for TestTransport {
    const KEEPALIVE: Option<Duration> = None;
    const KIND: TransportKind = TransportKind::WebSocket;

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        self.inputs.poll_recv(context).map(|input| match input {
            None => Incoming::Disconnected,
            Some(Input::Incoming(incoming)) => incoming,
            Some(Input::Panic) => panic!("a bug"),
        })
    }

    fn queue(&mut self, outgoing: Outgoing) -> io::Result<bool> {
        let last = matches!(outgoing, Outgoing::Close(_));
        let _ = self.sent.send(outgoing);
        Ok(last)
    }

    fn queue_ping(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn take_error(&mut self) -> Option<io::Error> {
        None
    }

    fn is_congested(&self) -> bool {
        false
    }

    fn poll_flush(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    async fn close_gracefully(&mut self, _closed: bool, _timeout: Duration) {}

    async fn drain(self, _timeout: Duration) {}
}

/// The test's end of a connection.
struct TestClient {
    inputs: mpsc::UnboundedSender<Input>,
    sent: mpsc::UnboundedReceiver<Outgoing>,
}

impl TestClient {
    fn open(shared: &Arc<Shared>) -> Self {
        let (inputs, receiver) = mpsc::unbounded_channel();
        let (sender, sent) = mpsc::unbounded_channel();
        let transport = TestTransport { inputs: receiver, sent: sender };
        let upgrade = UpgradeRequest { path: "/key".to_owned(), favored: false };
        let endpoint = ClientEndpoint { remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), tls: false };
        let policy = |shared: &Shared| Arc::clone(&shared.policy);
        tokio::spawn(run(transport, endpoint, upgrade, policy, Arc::clone(shared), ()));
        TestClient { inputs, sent }
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
    let limits = ConnectionLimits { max_pending: 1 << 20, ping_after: Duration::from_secs(45) };
    let releases = Policy::parse("sigver-20").unwrap().releases;
    Shared::new(Policy::new(releases), limits, LogIp::Off)
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
    assert_eq!(shared.telemetry.counts().0.all().now, 1);

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

/// A task of tokio's is as long as the driver and 112 bytes, rounded up to 128 of them.
#[test]
fn driver_is_small() {
    let size = driver::size_of_driver();
    assert!(size <= 3 * 128 - 112, "{size}");
}
