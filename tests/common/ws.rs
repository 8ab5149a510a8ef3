//! The one WebSocket client of the tests that shares no code with the gateway or its tools: an independent
//! oracle for the frames of a server, which can violate the protocol.

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::soon;

/// Returns the request for a WebSocket on `path`.
pub fn request(path: &str) -> String {
    request_with(path, "")
}

/// Returns a request for a WebSocket with more headers, each with its line end.
pub fn request_with(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// A frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// A close frame, with its code and reason.
    Close(Option<u16>, String),
    /// The end of the stream.
    End,
}

impl Got {
    pub fn binary(hex: &str) -> Got {
        Got::Binary(super::hex(hex))
    }
}

/// Returns a masked frame with any first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [0x17, 0x2a, 0xc3, 0x5e];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

pub struct Ws<S> {
    pub stream: S,
    received: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Ws<S> {
    /// Requests a WebSocket, and checks that it is granted.
    pub async fn open(stream: S, path: &str) -> Self {
        Ws::open_with(stream, request(path).as_bytes()).await
    }

    /// Sends the request `head`, which may be followed by frames, and checks the response.
    pub async fn open_with(mut stream: S, head: &[u8]) -> Self {
        soon("sending a request", stream.write_all(head)).await.unwrap();
        let mut ws = Ws { stream, received: BytesMut::new() };
        let head = soon("the response", ws.head()).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(
            head.to_ascii_lowercase().contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"),
            "{head}"
        );
        ws
    }

    /// Sends the request `head`. An error, such as the status, if no WebSocket is granted.
    pub async fn try_open(mut stream: S, head: &[u8]) -> Result<Self, String> {
        stream.write_all(head).await.map_err(|error| error.to_string())?;
        let mut ws = Ws { stream, received: BytesMut::new() };
        let head = ws.try_head().await?;
        match head.lines().next() {
            Some(status) if !status.starts_with("HTTP/1.1 101 ") => Err(status.to_owned()),
            _ => Ok(ws),
        }
    }

    async fn head(&mut self) -> String {
        self.try_head().await.unwrap()
    }

    async fn try_head(&mut self) -> Result<String, String> {
        loop {
            if let Some(end) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                return Ok(String::from_utf8(self.received.split_to(end + 4).to_vec()).unwrap());
            }
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) => return Err("the connection ended before the response".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Sends bytes unchanged. Returns false if the connection is broken.
    pub async fn raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    pub async fn binary(&mut self, payload: &[u8]) -> bool {
        self.raw(&frame(BINARY, payload)).await
    }

    pub async fn text(&mut self, payload: &str) -> bool {
        self.raw(&frame(TEXT, payload.as_bytes())).await
    }

    pub async fn ping(&mut self, payload: &[u8]) -> bool {
        self.raw(&frame(PING, payload)).await
    }

    pub async fn pong(&mut self, payload: &[u8]) -> bool {
        self.raw(&frame(PONG, payload)).await
    }

    pub async fn close(&mut self, code: u16) -> bool {
        self.raw(&frame(CLOSE, &code.to_be_bytes())).await
    }

    /// Receives the next frame. Cancel safe.
    pub async fn next(&mut self) -> Got {
        loop {
            if let Some(got) = self.take() {
                return got;
            }
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) | Err(_) => return Got::End,
                Ok(_) => {}
            }
        }
    }

    /// Returns the next frame if all of it is received. The gateway never fragments messages.
    fn take(&mut self) -> Option<Got> {
        let [first, second, ..] = self.received[..] else {
            return None;
        };
        assert_eq!(second & 0x80, 0, "a server must not mask");
        let (head, length) = match second {
            126 => (4, usize::from(u16::from_be_bytes(self.received.get(2..4)?.try_into().unwrap()))),
            127 => {
                let length = u64::from_be_bytes(self.received.get(2..10)?.try_into().unwrap());
                (10, usize::try_from(length).unwrap())
            }
            short => (2, usize::from(short)),
        };
        if self.received.len() < head + length {
            self.received.reserve(head + length - self.received.len());
            return None;
        }
        self.received.advance(head);
        let payload = self.received.split_to(length).to_vec();
        Some(match first {
            TEXT => Got::Text(String::from_utf8(payload).unwrap()),
            BINARY => Got::Binary(payload),
            PING => Got::Ping(payload),
            PONG => Got::Pong(payload),
            CLOSE if payload.is_empty() => Got::Close(None, String::new()),
            CLOSE => {
                let reason = String::from_utf8(payload[2..].to_vec()).unwrap();
                Got::Close(Some(u16::from_be_bytes([payload[0], payload[1]])), reason)
            }
            other => panic!("unexpected frame: {other:02x}"),
        })
    }

    /// Receives the next message, pong or close frame, and answers pings.
    pub async fn message(&mut self) -> Got {
        let next = async {
            loop {
                match self.next().await {
                    Got::Ping(payload) => {
                        self.pong(&payload).await;
                    }
                    other => return other,
                }
            }
        };
        soon("a message", next).await
    }

    /// Checks that these messages are received next.
    pub async fn expect(&mut self, expected: &[Got]) {
        for expected in expected {
            assert_eq!(self.message().await, *expected);
        }
    }

    /// Checks that nothing is received before the gateway has processed all that was sent.
    pub async fn expect_nothing(&mut self) {
        assert!(self.ping(b"nothing?").await);
        self.expect(&[Got::Pong(b"nothing?".to_vec())]).await;
    }

    /// Checks that the gateway closes with `code` and ends the connection. Returns the reason.
    pub async fn expect_close(&mut self, code: u16) -> String {
        match self.message().await {
            Got::Close(Some(got), reason) if got == code => {
                self.close(code).await;
                assert_eq!(self.message().await, Got::End);
                reason
            }
            other => panic!("no close {code}: {other:?}"),
        }
    }
}
