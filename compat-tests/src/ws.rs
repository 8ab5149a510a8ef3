//! A WebSocket client that sends any bytes, as fast or as slowly as an attack wants.

use std::net::SocketAddr;

use anyhow::{Result, bail};
use bytes::{Buf as _, BytesMut};
use sigver::tools::bench::frame::{BINARY, put};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Error of a connection without a response.
pub const ENDED_EARLY: &str = "the connection ended before the response";

/// A frame of a server.
pub enum Received {
    /// A text or binary message.
    Message(Vec<u8>),
    /// The text for a close frame: its code and reason.
    Close(String),
    /// A ping or pong.
    Other,
}

/// An open WebSocket.
pub struct Ws {
    /// The connection, to which an attack may write anything.
    pub stream: TcpStream,
    received: BytesMut,
}

impl Ws {
    /// Opens a WebSocket whose kernel keeps little of what it does not read.
    ///
    /// # Errors
    /// The connection fails, or is no WebSocket.
    pub async fn open(server: SocketAddr, path: &str) -> Result<Ws> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(16 * 1024)?;
        let mut stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        stream.write_all(upgrade_request(path).as_bytes()).await?;
        let mut ws = Ws { stream, received: BytesMut::new() };
        loop {
            if let Some(end) = ws.received.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = ws.received.split_to(end + 4);
                if !head.starts_with(b"HTTP/1.1 101 ") {
                    bail!("no WebSocket: {}", String::from_utf8_lossy(&head));
                }
                return Ok(ws);
            }
            if ws.stream.read_buf(&mut ws.received).await? == 0 {
                bail!(ENDED_EARLY);
            }
        }
    }

    /// Sends a binary message.
    ///
    /// # Errors
    /// The connection fails.
    pub async fn send(&mut self, payload: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(&frame(BINARY, payload)).await?)
    }

    /// Receives the next frame. Cancel safe.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn next(&mut self) -> Result<Received> {
        loop {
            if let Some(frame) = self.take() {
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                bail!("disconnected");
            }
        }
    }

    /// Receives the next message.
    ///
    /// # Errors
    /// The WebSocket is closed: the error is code and reason.
    pub async fn message(&mut self) -> Result<Vec<u8>> {
        loop {
            match self.next().await? {
                Received::Message(bytes) => return Ok(bytes),
                Received::Close(close) => bail!(close),
                Received::Other => {}
            }
        }
    }

    fn take(&mut self) -> Option<Received> {
        let [first, second, ..] = self.received[..] else { return None };
        let (head, length) = match second & 0x7f {
            126 => (4, usize::from(u16::from_be_bytes(self.received.get(2..4)?.try_into().ok()?))),
            127 => (10, u64::from_be_bytes(self.received.get(2..10)?.try_into().ok()?) as usize),
            length => (2, usize::from(length)),
        };
        if self.received.len() < head + length {
            return None;
        }
        self.received.advance(head);
        let payload = self.received.split_to(length);
        Some(match first & 0x0f {
            1 | 2 => Received::Message(payload.to_vec()),
            8 => Received::Close(match payload.split_first_chunk() {
                None => "closed without a code".to_owned(),
                Some((code, reason)) => {
                    format!("{} {}", u16::from_be_bytes(*code), String::from_utf8_lossy(reason))
                }
            }),
            _ => Received::Other,
        })
    }
}

/// Returns a request for a WebSocket.
pub fn upgrade_request(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Returns a masked frame with any first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put(&mut frame, first, payload);
    frame
}

impl Ws {
    /// Opens a connection without a WebSocket.
    ///
    /// # Errors
    /// The connection fails.
    pub async fn open_plain(server: SocketAddr) -> Result<Ws> {
        Ok(Ws { stream: TcpStream::connect(server).await?, received: BytesMut::new() })
    }
}
