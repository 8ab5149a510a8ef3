//! Links to what is no node, and to nodes that send what no node sends.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::link::HANDSHAKE;
use super::queue::LinkQueue;
use super::tests::{TestNode, join, until};
use super::tls::{KnownNodes, NodeTls};
use super::wire::{EdgeMessage, Hello, OwnerMessage, append};
use crate::protocol::cluster::NodeId;
use crate::protocol::model::{Event, Reason, RoomKey};
use crate::server::memory::MemoryBudget;
use crate::server::telemetry::{LimitKind, LinkCutCounts};

type NodeStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Connects to a node as another one that it knows, and that knows it.
pub(super) async fn connect(to: &TestNode, id: u64) -> NodeStream {
    let known = Arc::<KnownNodes>::default();
    known.set([(to.links.public_key().clone(), to.id)]);
    let tls = NodeTls::generate(&known).unwrap();
    to.links.known().set([(tls.public_key.clone(), NodeId(id))]);
    let stream = TcpStream::connect(to.address).await.unwrap();
    let name = ServerName::try_from("node").unwrap();
    TlsConnector::from(tls.client).connect(name, stream).await.unwrap()
}

fn frames(messages: &[(u32, EdgeMessage)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(&mut bytes, 0, &Hello { version: 1, oldest: 1 }).unwrap();
    messages.iter().for_each(|(session, message)| append(&mut bytes, *session, message).unwrap());
    bytes
}

/// Returns true if the other end closes the connection, whatever it sends before.
async fn is_closed(stream: &mut NodeStream) -> bool {
    let mut buffer = [0; 1024];
    let closed = async { while !matches!(stream.read(&mut buffer).await, Ok(0) | Err(_)) {} };
    timeout(Duration::from_secs(10), closed).await.is_ok()
}

#[tokio::test]
async fn node_that_sends_garbage_is_cut_off_and_leaves_its_rooms() {
    let node = TestNode::start(1).await;
    let entered = frames(&[(1, EdgeMessage::Enter(RoomKey::from("k"), join()))]);
    let with = |rest: &[u8]| [&entered[..], rest].concat();
    let long = u32::try_from(64 << 20).unwrap().to_le_bytes();
    let bad = [
        // Shorter than its head, longer than any message, a variant of no version, and text.
        with(&[3, 0, 0, 0, 1, 2, 3]),
        with(&long),
        with(&[5, 0, 0, 0, 1, 0, 0, 0, 99]),
        with(b"GET / HTTP/1.1\r\n\r\n"),
        // A message of a session without one, and a string that is none.
        with(&[5, 0, 0, 0, 0, 0, 0, 0, 2]),
        with(&[8, 0, 0, 0, 0, 0, 0, 0, 9, 1, 0xff, 0]),
    ];
    for (number, bytes) in bad.iter().enumerate() {
        let mut stream = connect(&node, 2).await;
        stream.write_all(bytes).await.unwrap();
        assert!(is_closed(&mut stream).await, "{number} is taken");
        until(|| node.links.cuts().invalid == number as u64 + 1).await;
        until(|| node.hub.rooms() == 0 && node.links.guests() == 0).await;
    }
    let LinkCutCounts { silent, invalid, overfull, failed } = node.links.cuts();
    assert_eq!((silent, invalid, overfull, failed), (0, bad.len() as u64, 0, 0));
    // A greeting of a version that no node has, and none.
    for bytes in [&[6, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = connect(&node, 2).await;
        stream.write_all(bytes).await.unwrap();
        assert!(is_closed(&mut stream).await);
    }
}

/// Each byte of a greeting, an entry and a leave changed: nothing panics, and the node goes on.
#[tokio::test]
async fn changed_bytes_harm_no_other_link() {
    let (node, friend) = (TestNode::start(1).await, TestNode::start(3).await);
    node.know(&[&friend]);
    friend.use_rooms_of(&node).await;
    let enter = EdgeMessage::Enter(RoomKey::from("k"), join());
    let bytes = frames(&[(1, enter), (1, EdgeMessage::Leave(true))]);
    for position in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[position] ^= 0x81;
        let mut stream = connect(&node, 2).await;
        stream.write_all(&changed).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(is_closed(&mut stream).await);
    }
    until(|| node.hub.rooms() == 0).await;
    let mut peer = friend.peer();
    peer.membership.enter(&RoomKey::from("k"), join());
    assert_eq!(peer.event().await, Event::Admitted { first: true });
}

/// A stale owner may still send: its link or the session has ended.
#[tokio::test]
async fn messages_for_sessions_that_a_link_does_not_have_reach_no_client() {
    let (node, owner) = (TestNode::start(1).await, TestNode::start(3).await);
    owner.know(&[&node]);
    let known = Arc::<KnownNodes>::default();
    known.set([(node.links.public_key().clone(), node.id)]);
    let tls = NodeTls::generate(&known).unwrap();
    node.links
        .known()
        .set([(tls.public_key.clone(), NodeId(2)), (owner.links.public_key().clone(), owner.id)]);
    // A client in a room of the real owner, with the first number of that link.
    *node.cluster.owner.lock() = Some(owner.id);
    node.dial(&owner);
    until(|| node.cluster.links.lock().contains_key(&owner.id)).await;
    let mut peer = node.peer();
    peer.membership.enter(&RoomKey::from("k"), join());
    assert_eq!(peer.event().await, Event::Admitted { first: true });

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let links = Arc::clone(&node.links);
    let dialled = tokio::spawn(async move { links.dial(NodeId(2), address).await });
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = TlsAcceptor::from(tls.server).accept(stream).await.unwrap();
    let mut bytes = Vec::new();
    append(&mut bytes, 0, &Hello { version: 1, oldest: 1 }).unwrap();
    for session in [1, 2, u32::MAX] {
        for event in [Event::Admitted { first: true }, Event::Evicted(Reason::Moved)] {
            append(&mut bytes, session, &OwnerMessage::Event(event)).unwrap();
        }
        append(&mut bytes, session, &OwnerMessage::Overflow).unwrap();
        // Those of a link, with a session.
        append(&mut bytes, session, &OwnerMessage::Bye).unwrap();
    }
    append(&mut bytes, 0, &OwnerMessage::Pong { sent: 3, generation: 5, others: vec![9] }).unwrap();
    stream.write_all(&bytes).await.unwrap();
    until(|| node.cluster.pings.lock().contains(&(NodeId(2), 3))).await;
    assert!(timeout(Duration::from_millis(50), peer.event()).await.is_err());
    assert!(!dialled.is_finished() && peer.membership.refusal().is_none());
}

#[tokio::test]
async fn connections_without_handshake_do_not_keep_nodes_out() {
    let (node, friend) = (TestNode::start(1).await, TestNode::start(3).await);
    node.know(&[&friend]);
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(TcpStream::connect(node.address).await.unwrap());
    }
    timeout(Duration::from_millis(1_500), friend.use_rooms_of(&node)).await.expect("kept out");
    // One that was waiting is closed for a later one.
    let closed = timeout(Duration::from_secs(1), idle[0].read(&mut [0; 1])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
}

#[tokio::test]
async fn handshakes_are_charged_once_they_begin_and_refused_without_memory() {
    let memory = MemoryBudget::new(1 << 20);
    let (node, friend) = (TestNode::start_within(1, &memory).await, TestNode::start(3).await);
    node.know(&[&friend]);
    friend.know(&[&node]);
    let mut begun = TcpStream::connect(node.address).await.unwrap();
    sleep(Duration::from_millis(50)).await;
    assert_eq!(memory.used(), 0);
    begun.write_all(&[22]).await.unwrap();
    until(|| memory.used() == HANDSHAKE).await;
    drop(begun);
    until(|| memory.used() == 0).await;

    let mut clients = memory.charge(memory.limit() - HANDSHAKE + 1).unwrap();
    let refused = timeout(Duration::from_secs(10), friend.dial(&node)).await.unwrap().unwrap();
    assert!(refused.is_err() && friend.cluster.links.lock().is_empty());
    assert_eq!(node.hub.telemetry().limit_count(LimitKind::Memory), 1);
    assert_eq!(memory.used(), clients.bytes());

    clients.resize(memory.limit() - HANDSHAKE).unwrap();
    friend.use_rooms_of(&node).await;
    until(|| memory.used() == clients.bytes()).await;
    assert_eq!(node.hub.telemetry().limit_count(LimitKind::Memory), 1);
}

#[tokio::test]
async fn node_that_reads_nothing_costs_a_bounded_queue() {
    let queue = LinkQueue::default();
    let message = EdgeMessage::Find(RoomKey::from("k".repeat(1 << 20).as_str()));
    for _ in 0..63 {
        queue.send(0, &message);
    }
    assert!(queue.is_full() && queue.len() > 63 << 20);
    (0..2).for_each(|_| queue.send(0, &message));
    assert_eq!(queue.len(), 0, "nothing is kept for a link that is cut");
    let ended = queue.write_to(tokio::io::sink(), || {}).await;
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::OutOfMemory);
}
