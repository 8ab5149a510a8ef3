//! Calls between nodes, over which one client of the one is connected to one of the other.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Sends everything back that follows, in the order in which it was received.
pub(super) fn accept(handle: &str) -> Option<AcceptedCall> {
    (handle == "echo").then(|| -> AcceptedCall {
        Box::new(|stream| {
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        })
    })
}

async fn call(from: &TestNode, to: &TestNode, handle: &str) -> std::io::Result<Option<OutgoingCall>> {
    let link = from.cluster.links.lock().get(&to.id).map(Arc::clone).unwrap();
    from.links.call(&link, &Call::Connect(handle.into())).await
}

#[tokio::test]
async fn accepted_call_carries_bytes_in_both_directions() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    a.know(&[&b]);
    b.use_rooms_of(&a).await;
    assert!(call(&b, &a, "other").await.unwrap().is_none());
    let echo = call(&b, &a, "echo").await.unwrap().unwrap();
    let sent: Vec<u8> = (0..3 << 20).map(|index| (index % 251) as u8).collect();
    let (mut read, mut write) = tokio::io::split(echo.stream);
    let writer = tokio::spawn({
        let sent = sent.clone();
        async move {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        }
    });
    let mut received = Vec::new();
    timeout(Duration::from_secs(20), read.read_to_end(&mut received)).await.unwrap().unwrap();
    writer.await.unwrap();
    assert!(received == sent);
    // The link itself is as before.
    assert!(!echo.link_ended.is_cancelled() && b.links.cuts() == Default::default());
}

#[tokio::test]
async fn call_receives_the_end_of_the_link() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    a.know(&[&b]);
    b.use_rooms_of(&a).await;
    let echo = call(&b, &a, "echo").await.unwrap().unwrap();
    a.links.cut_all();
    timeout(Duration::from_secs(5), echo.link_ended.cancelled()).await.unwrap();
}

#[tokio::test]
async fn call_of_a_node_without_a_known_key_is_refused() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    a.know(&[&b]);
    b.use_rooms_of(&a).await;
    a.know(&[]);
    assert!(call(&b, &a, "echo").await.is_err());
}
