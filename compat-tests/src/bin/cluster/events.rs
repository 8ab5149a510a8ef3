//! Event streams of sigver 9 whose client sends each POST to the next node.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::node::{NodeOptions, NodeProcess};

/// Longest time for an event.
const EVENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Has clients at three nodes open and join a room, with no POST at the node of its stream.
pub(crate) async fn check(program: &Path, engine: &str) -> Result<()> {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let options = NodeOptions { engine: Some(engine.to_owned()), ..NodeOptions::default() };
        nodes.push(NodeProcess::start(program, &options).await?);
    }
    sleep(Duration::from_secs(5)).await;
    let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
    for turn in 0..addresses.len() {
        let node = |offset: usize| addresses[(turn + offset) % addresses.len()];
        let key = format!("events{turn}");
        let mut opener = Stream::open(node(0)).await?;
        opener.post(node(1), &format!(r#"{{"open":"{key}"}}"#)).await?;
        opener.until(r#"{"opened":true}"#).await?;
        let mut joiner = Stream::open(node(1)).await?;
        joiner.post(node(2), &format!(r#"{{"join":"{key}"}}"#)).await?;
        joiner.until(r#"{"opened":false}"#).await?;
        joiner.post(node(0), r#"{"data":"to the opener"}"#).await?;
        opener.until("to the opener").await?;
    }
    // A stream that no node has: as on one server.
    post(addresses[0], "1234567890", r#"{"open":"k"}"#).await?;
    println!("events: no POST at the node of its stream, and each is delivered");
    Ok(())
}

/// An open event stream.
struct Stream {
    lines: BufReader<TcpStream>,
    id: String,
}

impl Stream {
    async fn open(node: SocketAddr) -> Result<Stream> {
        let mut stream = TcpStream::connect(node).await?;
        let head = "GET / HTTP/1.1\r\nHost: sigver\r\nAccept: text/event-stream\r\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        let mut stream = Stream { lines: BufReader::new(stream), id: String::new() };
        let first = stream.until("data:").await?;
        let id = first.trim_start_matches("data:").trim();
        id.chars().filter(char::is_ascii_digit).for_each(|digit| stream.id.push(digit));
        ensure!(!stream.id.is_empty(), "a stream without an id: {first}");
        Ok(stream)
    }

    async fn until(&mut self, text: &str) -> Result<String> {
        let read = async {
            let mut seen = String::new();
            loop {
                let mut line = String::new();
                if self.lines.read_line(&mut line).await? == 0 {
                    bail!("the stream ended after {seen}");
                }
                if line.contains(text) {
                    return Ok(line);
                }
                seen.push_str(&line);
            }
        };
        timeout(EVENT_TIMEOUT, read).await.with_context(|| format!("no event with {text}"))?
    }

    async fn post(&self, node: SocketAddr, message: &str) -> Result<()> {
        post(node, &self.id, message).await
    }
}

async fn post(node: SocketAddr, id: &str, message: &str) -> Result<()> {
    let mut stream = TcpStream::connect(node).await?;
    let body = format!("{id}@{message}");
    let head = format!(
        "POST / HTTP/1.1\r\nHost: sigver\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    timeout(EVENT_TIMEOUT, stream.read_to_string(&mut answer)).await??;
    ensure!(answer.starts_with("HTTP/1.1 200"), "a POST was answered {answer}");
    Ok(())
}
