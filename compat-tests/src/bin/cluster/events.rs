//! Event streams whose client sends each message to the next node: of sigver 9 by POST, of sigver 8.1 by GET.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

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
    for turn in 0..addresses.len() {
        let node = |offset: usize| addresses[(turn + offset) % addresses.len()];
        let key = format!("queries{turn}");
        let mut opener = Stream::open_at(node(0), &format!("/?open={key}")).await?;
        let joiner = Stream::open_at(node(1), &format!("/?join={key}")).await?;
        for (number, offset) in [2, 0, 2].into_iter().enumerate() {
            joiner.get(node(offset), &format!("message{number}")).await?;
            opener.until(&format!("message{number}")).await?;
        }
    }
    // A stream that no node has: as on one server.
    post(addresses[0], "1234567890", r#"{"open":"k"}"#).await?;
    lost(&nodes).await?;
    println!("events: no POST or GET at the node of its stream, and each is delivered");
    Ok(())
}

/// A POST for a stream whose node hangs is refused soon, and once the link is cut, it is as for a stream that
/// no node has.
async fn lost(nodes: &[NodeProcess]) -> Result<()> {
    let stream = Stream::open(nodes[0].address).await?;
    nodes[0].signal(Signal::STOP)?;
    // Its threads stop a moment later.
    sleep(Duration::from_millis(500)).await;
    let answer = async || {
        let begin = Instant::now();
        let answer = answer_to_post(nodes[1].address, &stream.id, r#"{"open":"lost"}"#).await?;
        ensure!(begin.elapsed() < Duration::from_secs(2), "{answer} after {:?}", begin.elapsed());
        Ok(answer)
    };
    let first = answer().await?;
    ensure!(first.starts_with("HTTP/1.1 503"), "a POST for a node that hangs was answered {first}");
    sleep(Duration::from_secs(5)).await;
    let second = answer().await?;
    ensure!(second.starts_with("HTTP/1.1 200"), "a POST for a node that was lost was answered {second}");
    nodes[0].signal(Signal::CONT)
}

/// An open event stream.
struct Stream {
    lines: BufReader<TcpStream>,
    id: String,
}

impl Stream {
    async fn open(node: SocketAddr) -> Result<Stream> {
        Stream::open_at(node, "/").await
    }

    async fn open_at(node: SocketAddr, path: &str) -> Result<Stream> {
        let mut stream = Stream { lines: BufReader::new(get(node, path).await?), id: String::new() };
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

    /// Sends a message in the form of sigver 8.1.
    async fn get(&self, node: SocketAddr, data: &str) -> Result<()> {
        let sent = get(node, &format!("/?data={data}&myId={}", self.id)).await?;
        Stream { lines: BufReader::new(sent), id: String::new() }.until("event: sent").await?;
        Ok(())
    }

    async fn post(&self, node: SocketAddr, message: &str) -> Result<()> {
        post(node, &self.id, message).await
    }
}

async fn get(node: SocketAddr, path: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(node).await?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: sigver\r\nAccept: text/event-stream\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    Ok(stream)
}

async fn post(node: SocketAddr, id: &str, message: &str) -> Result<()> {
    let answer = answer_to_post(node, id, message).await?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "a POST was answered {answer}");
    Ok(())
}

async fn answer_to_post(node: SocketAddr, id: &str, message: &str) -> Result<String> {
    let mut stream = TcpStream::connect(node).await?;
    let body = format!("{id}@{message}");
    let head = format!(
        "POST / HTTP/1.1\r\nHost: sigver\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    timeout(EVENT_TIMEOUT, stream.read_to_string(&mut answer)).await??;
    Ok(answer)
}
