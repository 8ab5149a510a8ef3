//! A client's end of an event stream of sigver 9, on the simulated network.

use std::sync::Arc;

use sigver::protocol::dialect::Dialect;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::common::sse::take_chunks;
use crate::common::ws::Got;
use crate::network::{Link, SimStream};
use crate::world::World;

const OPEN: &str =
    "GET / HTTP/1.1\r\nHost: x\r\nOrigin: http://app.example\r\nAccept: text/event-stream\r\n\r\n";

/// The dialect whose clients may use this transport.
pub const DIALECT: Dialect = Dialect::Sigver9;

/// An event stream. Each message of the client is a request on a connection of its own.
pub struct EventStream {
    stream: SimStream,
    raw: Vec<u8>,
    /// Decoded part of the body that was not returned yet.
    body: String,
    ended: bool,
    world: Arc<World>,
    name: String,
    link: Link,
    pub id: String,
}

impl EventStream {
    /// Opens a stream on a new connection.
    pub async fn open(
        world: &Arc<World>,
        name: &str,
        link: Link,
        mut stream: SimStream,
    ) -> Result<Self, String> {
        let broken = |error: std::io::Error| error.to_string();
        stream.write_all(OPEN.as_bytes()).await.map_err(broken)?;
        let head = head(&mut stream).await?;
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(head.lines().next().unwrap_or_default().to_owned());
        }
        let (raw, body, id) = (Vec::new(), String::new(), String::new());
        let (world, name) = (Arc::clone(world), name.to_owned());
        let mut events = EventStream { stream, raw, body, ended: false, world, name, link, id };
        while events.id.is_empty() {
            let event = events.event().await.ok_or("the stream has ended")?;
            if let Some(id) = event.strip_prefix("event: auth\ndata: ") {
                events.id = id.to_owned();
            }
        }
        Ok(events)
    }

    /// Receives the next message, or the end. Cancel safe.
    pub async fn next(&mut self) -> Got {
        loop {
            let Some(event) = self.event().await else { return Got::End };
            if let Some(data) = event.strip_prefix("data: ") {
                return Got::Text(data.to_owned());
            }
            if event.starts_with("event: close\n") {
                let data = event.rsplit_once("data: ").map_or("", |(_, data)| data);
                let value: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
                let code = value["code"].as_u64().and_then(|code| u16::try_from(code).ok());
                return Got::Close(code, value["reason"].as_str().unwrap_or_default().to_owned());
            }
        }
    }

    /// Receives the next event or comment, without the empty line behind it. `None` at the end. Cancel safe.
    async fn event(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.body.find("\n\n") {
                let event = self.body[..end].to_owned();
                self.body.drain(..end + 2);
                return Some(event.trim_start_matches(":\n").to_owned());
            }
            if self.ended {
                return None;
            }
            match self.stream.read_buf(&mut self.raw).await {
                Ok(0) | Err(_) => self.ended = true,
                Ok(_) => self.ended = take_chunks(&mut self.raw, &mut self.body),
            }
        }
    }

    /// Sends a message. Returns false if the gateway did not take it.
    pub async fn post(&mut self, message: &str) -> bool {
        post(&self.world, &self.name, self.link, &self.id, message).await
    }
}

/// Sends a message as the client of the stream `id`. Returns false if the gateway did not take it.
pub async fn post(world: &Arc<World>, name: &str, link: Link, id: &str, message: &str) -> bool {
    let body = format!("{id}@{message}");
    let request = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nOrigin: http://app.example\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let Some((mut stream, _)) = world.connect(name, link).await else { return false };
    stream.write_all(request.as_bytes()).await.is_ok()
        && head(&mut stream).await.is_ok_and(|head| head.starts_with("HTTP/1.1 200 "))
}

async fn head(stream: &mut SimStream) -> Result<String, String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.map_err(|error| error.to_string())?);
    }
    String::from_utf8(head).map_err(|error| error.to_string())
}
