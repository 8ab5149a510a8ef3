//! Pairs of clients of sigver 20.

use sigver::tools::protobuf::{delimited, number};
use tokio::net::TcpStream;

use super::ws::{Got, Ws};
use super::{TestGateway, to_hex};

/// Returns a connect message of sigver 19 and 20.
pub fn connect(id: u8, members: &[u8]) -> Vec<u8> {
    let mut group = number(1, u32::from(id));
    if !members.is_empty() {
        group.extend(delimited(2, members));
    }
    delimited(3, &group)
}

/// Returns a content message of sigver 20 from a joiner.
pub fn content(data: &[u8]) -> Vec<u8> {
    delimited(2, &[number(1, 0), number(2, 0), delimited(4, data)].concat())
}

/// A heartbeat of sigver 20, of either side.
pub const HEARTBEAT: [u8; 2] = [0x08, 1];

/// Opens a WebSocket and becomes the first member of the room of this path.
pub async fn first_member(gateway: &TestGateway, path: &str) -> Ws<TcpStream> {
    let mut first = gateway.ws(path).await;
    assert!(first.binary(&connect(11, &[])).await);
    first.expect(&[Got::binary("2001")]).await;
    first
}

/// Returns a member and a joiner of sigver 20 that are linked.
pub async fn pair(gateway: &TestGateway, path: &str) -> (Ws<TcpStream>, Ws<TcpStream>) {
    let first = first_member(gateway, path).await;
    let mut joiner = gateway.ws(path).await;
    assert!(joiner.binary(&connect(12, &[])).await);
    joiner.expect(&[Got::binary("2000")]).await;
    (first, joiner)
}

/// Sends a content from the joiner to the member. Returns the id of the link.
pub async fn up(first: &mut Ws<TcpStream>, joiner: &mut Ws<TcpStream>, data: &[u8]) -> Vec<u8> {
    assert!(joiner.binary(&content(data)).await);
    let bytes = loop {
        match first.message().await {
            // A heartbeat of the server.
            Got::Binary(bytes) if bytes == HEARTBEAT => {}
            Got::Binary(bytes) => break bytes,
            other => panic!("no content: {other:?}"),
        }
    };
    id_of_link(&bytes, data)
}

/// Returns the id of the link on which a member received a content.
pub fn id_of_link(content: &[u8], data: &[u8]) -> Vec<u8> {
    let tail = [&number(2, 0)[..], &delimited(4, data)].concat();
    assert!(content.ends_with(&tail), "{}", to_hex(&content[..content.len().min(40)]));
    // Behind the tag and the length.
    let head = 1 + content[1..].iter().position(|byte| *byte < 0x80).unwrap() + 1;
    content[head + 1..content.len() - tail.len()].to_vec()
}

/// Sends a content from the member to the joiner.
pub async fn down(first: &mut Ws<TcpStream>, joiner: &mut Ws<TcpStream>, link: &[u8], data: &[u8]) {
    let inner = [&number(1, 0)[..], &[0x10], link, &delimited(4, data)].concat();
    assert!(first.binary(&delimited(2, &inner)).await);
    joiner.expect(&[Got::Binary(delimited(2, &inner))]).await;
}
