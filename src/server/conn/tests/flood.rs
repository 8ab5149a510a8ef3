//! Clients that never stop sending, over a transport that is always ready.

use std::future::Future;
use std::pin::pin;
use std::task::Waker;

use super::*;

/// A client that has `frames` more frames to send, all of which have arrived already.
struct Flood {
    frames: u32,
    frame: fn() -> Incoming,
    received: Arc<AtomicU32>,
}

impl Transport for Flood {
    const KEEPALIVE: Option<Duration> = None;
    const KIND: TransportKind = TransportKind::WebSocket;

    fn poll_next(&mut self, _context: &mut Context<'_>) -> Poll<Incoming> {
        let Some(frames) = self.frames.checked_sub(1) else { return Poll::Ready(Incoming::Disconnected) };
        self.frames = frames;
        self.received.fetch_add(1, Ordering::Relaxed);
        Poll::Ready((self.frame)())
    }

    fn queue(&mut self, outgoing: Outgoing) -> io::Result<bool> {
        Ok(matches!(outgoing, Outgoing::Close(_)))
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

    fn take_load(&mut self) -> TransportLoad {
        TransportLoad::default()
    }

    fn stop_receiving(&mut self) {}

    fn poll_flush(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    async fn close_gracefully(&mut self, _closed: bool, _timeout: Duration) {}

    async fn drain(self, _timeout: Duration) {}
}

/// Returns the numbers of frames that were received in each turn of a connection.
fn frames_by_turn(frames: u32, frame: fn() -> Incoming) -> Vec<u32> {
    let shared = shared();
    let received = Arc::<AtomicU32>::default();
    let flood = Flood { frames, frame, received: Arc::clone(&received) };
    let upgrade = UpgradeRequest { path: "/key".to_owned(), favored: false, from_page: true };
    let endpoint =
        ClientEndpoint { remote: Some(Ipv4Addr::LOCALHOST.into()), tls: false, behind_proxy: false };
    let policy = |shared: &Shared| Arc::clone(&shared.policy);
    let mut connection = pin!(run(flood, endpoint, upgrade, policy, Arc::clone(&shared), ()));
    let mut turns = Vec::new();
    loop {
        let before = received.load(Ordering::Relaxed);
        let over = connection.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        turns.push(received.load(Ordering::Relaxed) - before);
        if over {
            return turns;
        }
    }
}

#[test]
fn turn_ends_after_a_bounded_number_of_frames_and_bytes() {
    let heartbeat = || Incoming::Message(Message::binary(&b"\x0a\x00"[..]));
    let connect = || Incoming::Message(Message::binary(&b"\x1a\x02\x08\x0b"[..]));
    let large = || Incoming::Message(Message::binary([&b"\x12"[..], &[0; 40_000]].concat()));
    for (frame, most) in [
        (heartbeat as fn() -> Incoming, 64),
        // Each enters a room.
        (connect, 8),
        (|| Incoming::Ping, 64),
        (|| Incoming::Pong, 64),
        (|| Incoming::Partial, 1),
        (large, 2),
    ] {
        let turns = frames_by_turn(200, frame);
        assert!(turns.iter().all(|frames| *frames <= most), "{:?}: {turns:?}", frame());
    }
    // All of it is received in the end.
    assert_eq!(frames_by_turn(1000, || Incoming::Ping).iter().sum::<u32>(), 1000);
}

#[tokio::test]
async fn flood_lets_other_connections_work_between_its_turns() {
    let shared = shared();
    let received = Arc::<AtomicU32>::default();
    let flood = Flood { frames: u32::MAX, frame: || Incoming::Ping, received: Arc::clone(&received) };
    let upgrade = UpgradeRequest { path: "/flood".to_owned(), favored: false, from_page: true };
    let endpoint =
        ClientEndpoint { remote: Some(Ipv4Addr::LOCALHOST.into()), tls: false, behind_proxy: false };
    let policy = |shared: &Shared| Arc::clone(&shared.policy);
    let flooding = tokio::spawn(run(flood, endpoint, upgrade, policy, Arc::clone(&shared), ()));
    tokio::task::yield_now().await;
    // On one thread: this client is answered only if the flood stops by itself.
    let mut member = TestClient::open(&shared);
    member.send(b"\x1a\x02\x08\x0b");
    assert_eq!(member.next_message().await.as_deref(), Some(&b"\x20\x01"[..]));
    let before = received.load(Ordering::Relaxed);
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    assert!(received.load(Ordering::Relaxed) > before, "the flood has turns as well");
    flooding.abort();
}
