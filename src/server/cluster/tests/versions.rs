//! Nodes of other versions.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::server::cluster::hostile_tests::connect;
use crate::server::cluster::link_fault::LinkFault;
use crate::server::cluster::tls::{KnownNodes, NodeTls};
use crate::server::cluster::wire::{Hello, VERSION, append};

/// Has a node dial one that greets it with these bytes. Returns the link, and its other end.
async fn dial_one_with(
    node: &TestNode,
    greeting: Vec<u8>,
) -> (JoinHandle<std::io::Result<()>>, impl std::any::Any) {
    let known = Arc::<KnownNodes>::default();
    known.set([(node.links.public_key().clone(), node.id)]);
    let tls = NodeTls::generate(&known).unwrap();
    node.links.known().set([(tls.public_key.clone(), NodeId(2))]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (links, address) = (Arc::clone(&node.links), listener.local_addr().unwrap());
    let dialled = tokio::spawn(async move { links.dial(NodeId(2), address).await });
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = TlsAcceptor::from(tls.server).accept(stream).await.unwrap();
    stream.write_all(&greeting).await.unwrap();
    (dialled, stream)
}

#[tokio::test]
async fn node_of_a_later_version_that_works_with_this_one_is_linked() {
    let node = TestNode::start(1).await;
    // With a field that this version does not know.
    let greeting = [&[8, 0, 0, 0, 0, 0, 0, 0][..], &[VERSION as u8 + 1, VERSION as u8, 1, 2]].concat();
    let (dialled, _stream) = dial_one_with(&node, greeting).await;
    until(|| node.cluster.links.lock().contains_key(&NodeId(2))).await;
    assert_eq!(node.cluster.links.lock()[&NodeId(2)].version(), VERSION + 1);
    assert!(!dialled.is_finished());
}

#[tokio::test]
async fn node_without_a_common_version_is_refused_by_both_ends_with_a_reason() {
    let node = TestNode::start(1).await;
    let mut greeting = Vec::new();
    let hello = Hello { version: VERSION + 3, oldest: VERSION + 1 };
    append(&mut greeting, 0, &hello).unwrap();
    let (dialled, _stream) = dial_one_with(&node, greeting.clone()).await;
    let error = dialled.await.unwrap().unwrap_err();
    assert_eq!(LinkFault::of(&error), LinkFault::Versions);
    let text = LinkFault::Versions.describe(&error);
    assert!(text.contains("versions 3 to 5") && text.contains("this one 1 to 2"), "{text}");
    assert!(node.cluster.links.lock().is_empty());
    // The other end is greeted before it is refused, so that it knows the reason as well.
    let mut stream = connect(&node, 2).await;
    stream.write_all(&greeting).await.unwrap();
    let (mut answer, mut own) = (Vec::new(), Vec::new());
    append(&mut own, 0, &Hello::own()).unwrap();
    // The connection may end without a close of TLS.
    let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("not closed");
    assert_eq!(answer, own);
    assert_eq!((node.links.guests(), node.links.cuts()), (0, Default::default()));
}
