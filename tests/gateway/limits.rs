//! Limits, and their isolation from other clients: oversized and malformed messages, slow consumers, silent
//! clients, and floods of random bytes.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::common::pairs::{connect, content, down, pair, up};
use crate::common::ws::{BINARY, Got, TEXT, Ws, frame};
use crate::common::{SOON, TestGateway, eventually, hex, soon, to_hex};

const MAX: usize = 1 << 20;
const PROTOCOLS: [&str; 8] =
    ["auto", "sigver-5", "sigver-15", "sigver-15.1", "sigver-16", "sigver-18", "sigver-19", "sigver-20"];

#[tokio::test]
async fn message_size_limit_is_exact() {
    let gateway = TestGateway::start("auto").await;
    let (mut first, mut joiner) = pair(&gateway, "/size").await;
    let room = MAX - content(&vec![7; MAX - 20]).len() + MAX - 20;
    assert_eq!(content(&vec![7; room]).len(), MAX);
    up(&mut first, &mut joiner, &vec![7; room]).await;
    assert!(joiner.binary(&content(&vec![7; room + 1])).await);
    assert_eq!(joiner.expect_close(1009).await, "the message is longer than this server allows");
    // Its peer receives only the end of the link.
    let Got::Binary(end) = first.message().await else { panic!("no end of the link") };
    assert_eq!((end[0], end.len() < 16), (0x12, true), "{}", to_hex(&end));
    first.expect_nothing().await;
    drop((first, joiner));
    gateway.stop().await;
}

#[tokio::test]
async fn close_frame_is_delivered_while_peer_is_sending() {
    for protocol in PROTOCOLS {
        let gateway = TestGateway::start(protocol).await;
        let ws = gateway.ws("/k").await;
        let (mut reading, mut writing) = ws.stream.into_split();
        let send = async move {
            let mut head = vec![BINARY, 0xff];
            head.extend((1u64 << 30).to_be_bytes());
            head.extend([0; 4]);
            let mut sent = writing.write_all(&head).await;
            // Less than the gateway discards, and more than the buffers of the kernel.
            for _ in 0..120 {
                if sent.is_err() {
                    break;
                }
                sent = writing.write_all(&[0; 64 * 1024]).await;
            }
            writing
        };
        let receive = async move {
            let mut all = Vec::new();
            reading.read_to_end(&mut all).await.map(|_| all)
        };
        let (writing, received) = soon(protocol, async { tokio::join!(send, receive) }).await;
        drop(writing);
        let received = received.unwrap_or_else(|error| panic!("{protocol}: {error} before the close frame"));
        let text = b"\x03\xf1the message is longer than this server allows";
        assert!(received.ends_with(&[&[0x88, text.len() as u8][..], text].concat()), "{protocol}");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn fragments_count_together() {
    let gateway = TestGateway::start("sigver-5").await;
    let mut ws = gateway.ws("/").await;
    let half = vec![b' '; MAX / 2];
    assert!(ws.raw(&frame(TEXT & 0x7f, &half)).await);
    assert!(ws.raw(&frame(0x00, &half)).await);
    ws.raw(&frame(0x80, b" ")).await;
    ws.expect_close(1009).await;
    // Fragments within the limit, with a ping between them, are one message.
    let mut ws = gateway.ws("/").await;
    assert!(ws.raw(&frame(TEXT & 0x7f, b"{\"type\":\"op")).await);
    assert!(ws.ping(b"between").await);
    assert!(ws.raw(&frame(0x80, b"en\",\"key\":\"k\"}")).await);
    ws.expect(&[Got::Pong(b"between".to_vec())]).await;
    ws.expect_nothing().await;
    let mut joiner = gateway.ws("/").await;
    assert!(joiner.text("{\"type\":\"join\",\"key\":\"k\"}").await);
    ws.expect(&[Got::Text("{\"type\":\"join\"}".to_owned())]).await;
    drop((ws, joiner));
    gateway.stop().await;
}

#[tokio::test]
async fn websocket_protocol_errors_close_the_connection() {
    for protocol in PROTOCOLS {
        let gateway = TestGateway::start(protocol).await;
        let unmasked = vec![BINARY, 2, 0x08, 0x01];
        let long_ping = frame(0x89, &[0; 126]);
        for (what, bytes, code) in [
            ("text that is not UTF-8", frame(TEXT, &[b'a', 0xff]), 1007),
            ("an unmasked frame", unmasked, 1002),
            ("a reserved bit", frame(BINARY | 0x40, &[8, 1]), 1002),
            ("a reserved opcode", frame(0x83, &[8, 1]), 1002),
            ("a reserved control opcode", frame(0x8b, &[]), 1002),
            ("a fragmented ping", frame(0x09, b"p"), 1002),
            ("a ping that is too long", long_ping, 1002),
            ("a continuation without a start", frame(0x80, b"rest"), 1002),
        ] {
            let mut ws = gateway.ws("/k").await;
            assert!(ws.raw(&bytes).await);
            // The servers of sigver 15 to 18 send first.
            let closed = loop {
                match ws.message().await {
                    Got::Binary(bytes) if matches!(bytes[0], 0x10 | 0x20) => {}
                    got => break got,
                }
            };
            assert!(
                matches!(closed, Got::Close(Some(got), _) if got == code),
                "{protocol}, {what}: {closed:?}"
            );
        }
        gateway.stop().await;
    }
}

/// Sends frames of random bytes until the gateway closes the connection.
async fn garbage(mut ws: Ws<TcpStream>, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    // First bytes that are valid in a dialect.
    let first = [0x08u8, 0x0a, 0x10, 0x12, 0x18, 0x1a, 0x20, 0x22, 0x28, b'{'];
    for _ in 0..40 {
        let length = rng.usize(..64);
        let mut bytes: Vec<u8> = (0..length).map(|_| rng.u8(..)).collect();
        if let Some(byte) = bytes.first_mut()
            && rng.bool()
        {
            *byte = first[rng.usize(..first.len())];
        }
        let sent = match rng.u8(..8) {
            0 => ws.text(&String::from_utf8_lossy(&bytes)).await,
            1 => ws.raw(&bytes).await,
            _ => ws.binary(&bytes).await,
        };
        if !sent {
            return;
        }
    }
    // The raw bytes may have been the header of a frame that includes this close frame.
    ws.close(1000).await;
    let _ = ws.stream.shutdown().await;
    while ws.message().await != Got::End {}
}

#[tokio::test]
async fn random_bytes_leave_no_rooms() {
    let mut protocols = JoinSet::new();
    for protocol in PROTOCOLS {
        protocols.spawn(async move {
            let gateway = TestGateway::start(protocol).await;
            let mut flood = JoinSet::new();
            for seed in 0..60 {
                let path = ["/k", "/other", "/", "/a/b?favored"][seed as usize % 4];
                flood.spawn(garbage(gateway.ws(path).await, seed));
            }
            while let Some(ended) = soon(protocol, flood.join_next()).await {
                ended.unwrap();
            }
            eventually("an empty hub", || gateway.rooms() == 0).await;
            gateway.stop().await;
        });
    }
    while let Some(ended) = protocols.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn random_bytes_do_not_affect_other_clients() {
    for protocol in ["auto", "sigver-20"] {
        let gateway = TestGateway::start(protocol).await;
        let (mut first, mut joiner) = pair(&gateway, "/k").await;
        let link = up(&mut first, &mut joiner, b"offer").await;
        // With a second member, no member is the only one that joiners fail to connect to, which would be
        // evicted.
        let mut second = gateway.ws("/k?favored").await;
        assert!(second.binary(&connect(13, &[11])).await);
        second.expect(&[Got::binary("2001")]).await;
        let (mut elsewhere, mut other) = pair(&gateway, "/elsewhere").await;
        let link_elsewhere = up(&mut elsewhere, &mut other, b"offer").await;
        let mut flood = JoinSet::new();
        for seed in 100..160 {
            flood.spawn(garbage(gateway.ws("/k").await, seed));
        }
        loop {
            down(&mut first, &mut joiner, &link, b"answer").await;
            down(&mut elsewhere, &mut other, &link_elsewhere, b"answer").await;
            up(&mut elsewhere, &mut other, b"candidate").await;
            if soon(protocol, flood.join_next()).await.is_none() {
                break;
            }
        }
        elsewhere.expect_nothing().await;
        other.expect_nothing().await;
        joiner.expect_nothing().await;
        drop((first, joiner, second, elsewhere, other));
        gateway.stop().await;
    }
}

#[tokio::test]
async fn keys_have_up_to_512_utf16_units() {
    let gateway = TestGateway::start("auto").await;
    // Each character of the second key has two UTF-16 units and four bytes.
    for key in ["k".repeat(512), "\u{1f600}".repeat(256), "%41".repeat(170)] {
        let mut ws = gateway.ws(&format!("/{key}")).await;
        assert!(ws.binary(&connect(11, &[])).await);
        ws.expect(&[Got::binary("2001")]).await;
    }
    for key in ["k".repeat(513), format!("{}k", "\u{1f600}".repeat(256)), "%41".repeat(171)] {
        let mut ws = gateway.ws(&format!("/{key}")).await;
        assert!(ws.binary(&connect(11, &[])).await);
        let why = "The key length exceeds the limit of 512 characters";
        assert_eq!(ws.expect_close(4741).await, format!("4741: {why}"));
        let mut ws = gateway.ws(&format!("/{key}")).await;
        assert_eq!(ws.expect_close(4001).await, format!("4001: {why}"));
    }
    let mut ws = gateway.ws("/").await;
    assert!(ws.binary(&connect(11, &[])).await);
    ws.expect_close(4741).await;
    drop(ws);
    gateway.stop().await;
}

#[tokio::test]
async fn data_without_a_receiver_is_ignored_or_closes() {
    let gateway = TestGateway::start("auto").await;
    // sigver 20 ignores both.
    let mut ws = gateway.ws("/k").await;
    assert!(ws.binary(&content(b"too early")).await);
    ws.expect_nothing().await;
    assert!(ws.binary(&connect(11, &[])).await);
    ws.expect(&[Got::binary("2001")]).await;
    assert!(ws.binary(&hex("120c 0800 10959aef3a 2203 616263")).await);
    ws.expect_nothing().await;
    // sigver 18 ignores an unknown id, and data of a member without a link.
    let mut ws = gateway.ws("/v1").await;
    ws.expect(&[Got::binary("10012001"), Got::binary("1001")]).await;
    assert!(ws.binary(&hex("0a0a 08959aef3a 1203 616263")).await);
    ws.expect_nothing().await;
    // The JSON dialects close with codes of their own.
    for (frames, code, reason) in [
        (&["{\"data\":1}"][..], 4011, "TRANSMIT_BEFORE_JOIN=4011: Transmitting data before join"),
        (&["{\"index\":0,\"data\":1}"], 1008, "The index is not one of a joined peer"),
        (
            &["{\"type\":\"open\",\"key\":\"k5\"}", "{\"index\":\"7\",\"data\":1}"],
            1008,
            "The index is not one of a joined peer",
        ),
        (&["{\"type\":\"join\",\"key\":\"nobody\"}"], 1008, "The provided key is not available"),
        (&["{\"joinkey\":\"nobody\"}"], 1008, "The key does not exist"),
        (&["{\"join\":\"nobody\",\"data\":1}"], 1008, "Unknown key"),
    ] {
        let mut ws = gateway.ws("/").await;
        for frame in frames {
            assert!(ws.text(frame).await);
        }
        assert_eq!(ws.expect_close(code).await, reason);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn silent_connections_do_not_delay_others() {
    let gateway = TestGateway::start("auto").await;
    // Connections without a request, within a request, and with a silent WebSocket.
    let mut silent = Vec::new();
    for number in 0..1000 {
        let mut stream = gateway.tcp().await;
        match number % 4 {
            0 => {}
            1 => stream.write_all(b"GET / HT").await.unwrap(),
            _ => {
                let ws = Ws::open(stream, "/").await;
                stream = ws.stream;
            }
        }
        silent.push(stream);
    }
    let limit = tokio::time::timeout(SOON.min(Duration::from_secs(5)), async {
        let (mut first, mut joiner) = pair(&gateway, "/k").await;
        let link = up(&mut first, &mut joiner, b"offer").await;
        down(&mut first, &mut joiner, &link, b"answer").await;
    });
    limit.await.expect("messages among a thousand silent connections");
    drop(silent);
    gateway.stop().await;
}

/// The sum that the reference of `--max-memory` states for one connection.
#[tokio::test]
async fn one_connection_makes_the_server_hold_no_more_than_the_reference_states() {
    const MESSAGE: usize = 256 * 1024;
    const PENDING: usize = 1 << 20;
    let gateway = TestGateway::configured(|config| {
        config.protocol = "sigver-20".parse().unwrap();
        (config.max_message, config.max_pending) = (MESSAGE, PENDING);
    })
    .await;
    let (mut member, mut joiner) = pair(&gateway, "/worst").await;
    // A message of which the last byte never arrives, and contents that are never read.
    let begun = frame(BINARY, &vec![7; MESSAGE]);
    assert!(member.raw(&begun[..begun.len() - 1]).await);
    let flood = frame(BINARY, &content(&vec![7; 60 * 1024]));
    let memory = &gateway.status.shared.memory;
    let flooding = async { while joiner.raw(&flood).await {} };
    let watching = async {
        let mut most = 0;
        for _ in 0..150 {
            most = most.max(memory.used());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        most
    };
    let most = tokio::select! {
        most = watching => most,
        () = flooding => panic!("the sender was closed"),
    };
    let stated = 3 * MESSAGE + PENDING + 64 * 1024;
    // The sender itself has begun a message, too.
    assert!((MESSAGE + PENDING / 4..=stated + 2 * MESSAGE).contains(&most), "{most}");
    drop((member, joiner));
    gateway.stop().await;
}
