//! Members and joiners of sigver 20, which are linked and exchange messages.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use sigver::tools::protobuf::{delimited, number};

use crate::ws::Ws;

/// The heartbeat of the server.
pub const HEARTBEAT: [u8; 2] = [0x08, 1];

/// Returns a connect message of sigver 19 and 20.
pub fn connect(id: u32, members: &[u8]) -> Vec<u8> {
    let mut group = number(1, id);
    if !members.is_empty() {
        group.extend(delimited(2, members));
    }
    delimited(3, &group)
}

/// Returns a content message of sigver 20 from a joiner.
pub fn content(data: &[u8]) -> Vec<u8> {
    delimited(2, &[number(1, 0), number(2, 0), delimited(4, data)].concat())
}

/// Connects a member in a room of its own.
///
/// # Errors
/// The server refuses a client.
pub async fn member(server: SocketAddr, path: &str) -> Result<Ws> {
    let mut member = Ws::open(server, path).await?;
    member.send(&connect(11, &[])).await?;
    ensure!(member.message().await? == [0x20, 1], "the member was not admitted");
    Ok(member)
}

/// Returns a member and a joiner that are linked.
///
/// # Errors
/// The server refuses a client.
pub async fn pair(server: SocketAddr, path: &str) -> Result<(Ws, Ws)> {
    let member = member(server, path).await?;
    let mut joiner = Ws::open(server, path).await?;
    joiner.send(&connect(12, &[])).await?;
    ensure!(joiner.message().await? == [0x20, 0], "the joiner was not linked");
    Ok((member, joiner))
}

/// Receives the next message that is no heartbeat.
///
/// # Errors
/// The WebSocket is closed.
pub async fn next_content(ws: &mut Ws) -> Result<Vec<u8>> {
    loop {
        let message = ws.message().await?;
        if message != HEARTBEAT {
            return Ok(message);
        }
    }
}
