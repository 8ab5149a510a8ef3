//! The first frame of a connection between nodes, which decides whether it is a link or a call.

use std::io;

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::wire::{append, invalid};

/// Longest message of the first frame, in bytes.
const MAX_FIRST: u32 = 1024;

/// Sends the first message of a connection, or the answer to it.
pub(super) async fn write_first(
    stream: &mut (impl AsyncWrite + Unpin),
    session: u32,
    message: &impl Serialize,
) -> io::Result<()> {
    let mut frame = Vec::new();
    append(&mut frame, session, message)?;
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// Reads the first frame of a connection, and nothing after it. Returns its session and its message.
pub(super) async fn read_first(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u32, Vec<u8>)> {
    let length = stream.read_u32_le().await?;
    let session = stream.read_u32_le().await?;
    // The session is counted.
    let Some(length) = length.checked_sub(4).filter(|length| *length <= MAX_FIRST) else {
        return Err(invalid("a first frame of invalid length"));
    };
    let mut message = vec![0; length as usize];
    stream.read_exact(&mut message).await?;
    Ok((session, message))
}
