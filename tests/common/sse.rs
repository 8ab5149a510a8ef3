//! An HTTP client of event streams, which sees each event as it is received.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::soon;

/// A response whose body may be incomplete.
pub struct Answer {
    stream: TcpStream,
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// Received bytes that are not decoded yet.
    raw: Vec<u8>,
    /// Decoded part of the body that was not returned yet.
    body: String,
    /// Missing length of the body; `None` if it is chunked.
    length: Option<usize>,
    ended: bool,
}

/// Sends a request on a new connection, and receives the head of the response.
pub async fn ask(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if method != "GET" {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    let stream = TcpStream::connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    ask_on(stream, &format!("{head}\r\n{body}")).await
}

/// Sends a request as bytes, and receives the head of the response.
pub async fn ask_on(mut stream: TcpStream, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("a head", stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let named = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let length = if named("transfer-encoding") == Some("chunked") {
        None
    } else {
        Some(named("content-length").map_or(0, |length| length.parse().unwrap()))
    };
    let (raw, body) = (Vec::new(), String::new());
    Answer { stream, status, headers, raw, body, length, ended: length == Some(0) }
}

impl Answer {
    /// Returns the connection, for the next request.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Receives the next event or comment, without the empty line behind it, or `None` at the end. A lone
    /// comment ends with its line. Cancel safe.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            let lone = self.body.starts_with(":\n") && !self.body.starts_with(":\n\n");
            let end = if lone { Some((1, 2)) } else { self.body.find("\n\n").map(|at| (at, at + 2)) };
            if let Some((end, next)) = end {
                let event = self.body[..end].to_owned();
                self.body.drain(..next);
                return Some(event);
            }
            if self.ended {
                let rest = std::mem::take(&mut self.body);
                return (!rest.is_empty()).then_some(rest);
            }
            self.more().await;
        }
    }

    /// Receives the next event within the usual time.
    pub async fn event(&mut self) -> String {
        soon("an event", self.next()).await.expect("the stream has ended")
    }

    /// Checks that these events are received next.
    pub async fn expect(&mut self, events: &[&str]) {
        for event in events {
            assert_eq!(self.event().await, *event);
        }
    }

    /// Checks that the stream ends, with a complete body.
    pub async fn expect_end(&mut self) {
        assert_eq!(soon("the end of a stream", self.next()).await, None);
    }

    /// Receives a whole body.
    pub async fn text(&mut self) -> String {
        while !self.ended {
            soon("a body", self.more()).await;
        }
        std::mem::take(&mut self.body)
    }

    /// Checks that nothing is received for a while.
    pub async fn expect_nothing(&mut self) {
        let while_ = std::time::Duration::from_millis(200);
        if let Ok(next) = tokio::time::timeout(while_, self.next()).await {
            panic!("received {next:?}");
        }
    }

    async fn more(&mut self) {
        let count = self.stream.read_buf(&mut self.raw).await.expect("the connection broke");
        assert_ne!(count, 0, "the connection ended in the middle of a body: {:?}", self.body);
        match &mut self.length {
            Some(length) => {
                *length -= self.raw.len();
                self.ended = *length == 0;
                self.body += &String::from_utf8(std::mem::take(&mut self.raw)).unwrap();
            }
            None => self.ended = take_chunks(&mut self.raw, &mut self.body),
        }
    }
}

/// Moves the complete chunks of a body from `raw` to `body`. Returns true if the last one was among them.
pub fn take_chunks(raw: &mut Vec<u8>, body: &mut String) -> bool {
    while let Some(line) = raw.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&raw[..line]).unwrap(), 16).unwrap();
        let end = line + 2 + size;
        if raw.len() < end + 2 {
            return false;
        }
        *body += std::str::from_utf8(&raw[line + 2..end]).unwrap();
        raw.drain(..end + 2);
        if size == 0 {
            return true;
        }
    }
    false
}
