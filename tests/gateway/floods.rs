//! Clients that send more than others read, and clients that begin what they do not end: they wait or are
//! closed, and no other client is.

use std::time::Duration;

use sigver::tools::protobuf::{delimited, number};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use crate::common::pairs::{HEARTBEAT, connect, content, down, id_of_link, pair, up};
use crate::common::ws::{BINARY, Got, Ws, frame};
use crate::common::{TestGateway, eventually, soon};

/// Returns a client that keeps little of what it does not read.
async fn slow_reader(gateway: &TestGateway, path: &str) -> Ws<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    Ws::open(soon("a connection", socket.connect(gateway.address)).await.unwrap(), path).await
}

/// Sends chunks until the gateway does not read them for a while. Returns the number of whole ones, and what
/// is left of the next.
async fn send_until_paused(ws: &mut Ws<TcpStream>, chunk: &[u8]) -> (usize, Vec<u8>) {
    let framed = frame(BINARY, chunk);
    for sent in 0.. {
        assert!(sent * chunk.len() < 64 << 20, "the sender is never paused");
        let mut left = &framed[..];
        while !left.is_empty() {
            let write = tokio::time::timeout(Duration::from_millis(300), ws.stream.write(left)).await;
            match write {
                Ok(count) => left = &left[count.expect("the sender is not closed")..],
                Err(_) => return (sent, left.to_vec()),
            }
        }
    }
    unreachable!()
}

#[tokio::test]
async fn sender_is_not_read_while_its_receiver_does_not_read() {
    let gateway = TestGateway::configured(|config| {
        config.protocol = "sigver-20".parse().unwrap();
        config.max_message = 64 * 1024;
        config.max_pending = 512 * 1024;
    })
    .await;
    let mut slow = slow_reader(&gateway, "/k").await;
    assert!(slow.binary(&connect(11, &[])).await);
    slow.expect(&[Got::binary("2001")]).await;
    let mut flooding = gateway.ws("/k").await;
    assert!(flooding.binary(&connect(12, &[])).await);
    flooding.expect(&[Got::binary("2000")]).await;
    // Other clients in the same room.
    let mut member = gateway.ws("/k?favored").await;
    assert!(member.binary(&connect(13, &[11])).await);
    member.expect(&[Got::binary("2001")]).await;
    let mut joiner = gateway.ws("/k").await;
    assert!(joiner.binary(&connect(14, &[])).await);
    joiner.expect(&[Got::binary("2000")]).await;

    let chunk = content(&[7; 32 * 1024]);
    let (sent, left) = send_until_paused(&mut flooding, &chunk).await;
    let link = up(&mut member, &mut joiner, b"and others?").await;
    down(&mut member, &mut joiner, &link, b"go on").await;
    // The slow one was not closed: it receives all that was sent to it, and the rest, and nothing else.
    let rest = tokio::spawn(async move {
        assert!(flooding.raw(&left).await && flooding.binary(&content(b"last")).await);
        flooding
    });
    for number in 0..=sent {
        let Got::Binary(bytes) = slow.message().await else { panic!("{number} of {sent}") };
        assert!(bytes.len() > 32 * 1024);
    }
    let Got::Binary(last) = slow.message().await else { panic!("no end") };
    assert!(last.ends_with(b"last"));
    let mut flooding = soon("the rest", rest).await.unwrap();
    up(&mut slow, &mut flooding, b"still there").await;
    slow.expect_nothing().await;
    flooding.expect_nothing().await;
    let link = up(&mut member, &mut joiner, b"and others?").await;
    down(&mut member, &mut joiner, &link, b"go on").await;
    drop((slow, flooding, member, joiner));
    gateway.stop().await;
}

#[tokio::test]
async fn joiner_that_does_not_read_is_closed_and_its_member_goes_on() {
    let gateway = TestGateway::configured(|config| {
        config.protocol = "sigver-20".parse().unwrap();
        config.max_message = 64 * 1024;
        config.max_pending = 512 * 1024;
    })
    .await;
    let mut member = gateway.ws("/k").await;
    assert!(member.binary(&connect(11, &[])).await);
    member.expect(&[Got::binary("2001")]).await;
    let mut slow = slow_reader(&gateway, "/k").await;
    assert!(slow.binary(&connect(12, &[])).await);
    slow.expect(&[Got::binary("2000")]).await;
    let link = up(&mut member, &mut slow, b"offer").await;
    let chunk = [&number(1, 0)[..], &[0x10], &link, &delimited(4, &[7; 32 * 1024])].concat();
    let (_, left) = send_until_paused(&mut member, &delimited(2, &chunk)).await;
    // The member is read again once the slow one is closed.
    let rest = tokio::time::timeout(Duration::from_secs(40), member.raw(&left)).await;
    assert!(rest.expect("the member is read again"));
    // As a client that is there sends them: the wait was longer than two of them may be late.
    assert!(member.binary(&HEARTBEAT).await);
    let end = loop {
        match member.message().await {
            // A heartbeat of the server.
            Got::Binary(bytes) if bytes == HEARTBEAT => {}
            got => break got,
        }
    };
    assert!(matches!(&end, Got::Binary(end) if end[0] == 0x12 && end.len() < 16), "{end:?}");
    let closed = loop {
        match slow.message().await {
            Got::Binary(_) => {}
            got => break got,
        }
    };
    // The close frame arrives behind what the kernel holds, if there is time for it.
    let why = "too much waits to be read by this client".to_owned();
    assert!(closed == Got::End || closed == Got::Close(Some(1008), why), "{closed:?}");
    let mut joiner = gateway.ws("/k").await;
    assert!(joiner.binary(&connect(13, &[])).await);
    joiner.expect(&[Got::binary("2000")]).await;
    up(&mut member, &mut joiner, b"offer").await;
    drop((member, slow, joiner));
    gateway.stop().await;
}

#[tokio::test]
async fn message_that_is_begun_has_a_deadline() {
    let gateway = TestGateway::configured(|config| config.stall_timeout = Duration::from_millis(400)).await;
    let mut frames = vec![frame(0x02, b"fragment"), frame(BINARY, &[7; 500])[..400].to_vec(), vec![BINARY]];
    frames.push([&frame(0x02, b"fragment")[..], &frame(0x00, b"")].concat());
    for begun in frames {
        let (mut member, joiner) = pair(&gateway, "/k").await;
        let mut other = gateway.ws("/k?favored").await;
        assert!(other.binary(&connect(13, &[11])).await);
        other.expect(&[Got::binary("2001")]).await;
        let is_fragment = begun[0] == 0x02;
        assert!(member.raw(&begun).await);
        let why = "the rest of a message did not arrive in time";
        let closed = loop {
            // Pongs between the fragments do not help.
            let pong = async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                assert!(!is_fragment || member.stream.write_all(&frame(0x8a, b"")).await.is_ok());
            };
            pong.await;
            if let Ok(got) = tokio::time::timeout(Duration::from_millis(1), member.next()).await {
                break got;
            }
        };
        assert_eq!(closed, Got::Close(Some(1008), why.to_owned()));
        // A client without a begun message stays.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(other.ping(b"still here").await);
        other.expect(&[Got::Pong(b"still here".to_vec())]).await;
        drop((member, joiner, other));
        eventually("an empty hub", || gateway.rooms() == 0).await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn memory_of_all_clients_is_bounded() {
    let gateway = TestGateway::configured(|config| {
        config.protocol = "sigver-20".parse().unwrap();
        config.limits.max_buffered = Some(1 << 20);
    })
    .await;
    let (mut member, mut joiner) = pair(&gateway, "/k").await;
    let begun = frame(0x02, &[7; 300 * 1024]);
    let mut clients = Vec::new();
    for _ in 0..4 {
        // Before any of them holds something: no new clients are admitted then.
        clients.push(gateway.ws("/held").await);
    }
    let mut held = Vec::new();
    let closed = loop {
        let mut ws = clients.pop().expect("1.2 MiB are not held");
        assert!(ws.raw(&begun).await);
        match tokio::time::timeout(Duration::from_millis(300), ws.next()).await {
            Ok(got) => break got,
            Err(_) => held.push(ws),
        }
    };
    let why = "the server holds too much for its clients, try again later";
    assert_eq!(closed, Got::Close(Some(1013), why.to_owned()));
    assert!(!held.is_empty());
    // Others do not need memory for their messages.
    up(&mut member, &mut joiner, b"offer").await;
    drop((held, clients));
    drop((member, joiner));
    eventually("an empty hub", || gateway.rooms() == 0).await;
    eventually("the memory", || !gateway.status.shared.memory.refuses_clients()).await;
    let mut ws = gateway.ws("/again").await;
    assert!(ws.raw(&begun).await);
    ws.expect_nothing().await;
    drop(ws);
    gateway.stop().await;
}

/// Waits for a content that ends so, while the heartbeats of the gateway are answered. Contents before it
/// are ends of links.
async fn content_of(ws: &mut Ws<TcpStream>, data: &[u8]) -> Vec<u8> {
    loop {
        match ws.message().await {
            Got::Binary(bytes) if bytes == HEARTBEAT => assert!(ws.binary(&HEARTBEAT).await),
            Got::Binary(bytes) if bytes.ends_with(data) => return bytes,
            Got::Binary(bytes) => assert!(bytes.len() < 16, "{bytes:?}"),
            other => panic!("no content: {other:?}"),
        }
    }
}

#[tokio::test]
async fn member_that_wrote_to_a_joiner_that_left_stays_and_is_read_again() {
    let gateway = TestGateway::start("sigver-20").await;
    let (mut member, mut joiner) = pair(&gateway, "/k").await;
    let link = up(&mut member, &mut joiner, b"offer").await;
    let chunk = [&number(1, 0)[..], &[0x10], &link, &delimited(4, &[7; 32 * 1024])].concat();
    let (_, left) = send_until_paused(&mut member, &delimited(2, &chunk)).await;
    drop(joiner);
    assert!(member.raw(&left).await && member.binary(&HEARTBEAT).await);
    // The heartbeat behind the data arrives in time: the room has its member.
    let mut joiner = gateway.ws("/k").await;
    assert!(joiner.binary(&connect(13, &[])).await);
    joiner.expect(&[Got::binary("2000")]).await;
    assert!(joiner.binary(&content(b"offer")).await);
    let offer = content_of(&mut member, b"offer").await;
    let link = id_of_link(&offer, b"offer");
    let answer = [&number(1, 0)[..], &[0x10], &link, &delimited(4, b"answer")].concat();
    assert!(member.binary(&delimited(2, &answer)).await);
    let answered = content_of(&mut joiner, b"answer");
    tokio::select! {
        _ = answered => {}
        // Answers heartbeats until then.
        _ = content_of(&mut member, b"never") => {}
    }
    drop((member, joiner));
    gateway.stop().await;
}
