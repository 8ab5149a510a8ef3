//! A load that is as lean as can be, so that the server is what limits: clients of sigver 20, all in one task queue.
//! What stands in the table is not decided here.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use compat_tests::current::{content, sender};
use compat_tests::oracle::Server;
use compat_tests::wire::{put_bytes, put_number};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::drive::{memory, processor};
use crate::figures::{Figure, Sample};

pub async fn relay(
    server: &Server,
    rooms: usize,
    flight: usize,
    bytes: usize,
    seconds: f64,
) -> Result<Sample> {
    let pid = server.pid().context("the server is gone")?;
    let pairs = pairs(server, rooms).await?;
    let (count, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut tasks = JoinSet::new();
    for (member, mut joiner) in pairs {
        let up = masked(&content(0, &vec![7; bytes]));
        joiner.stream.write_all(&up.repeat(flight)).await?;
        tasks.spawn(bounce(joiner, Some(up.repeat(flight)), up.len(), bytes, count.clone(), over.clone()));
        tasks.spawn(bounce(member, None, 0, bytes, count.clone(), over.clone()));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (messages, cpu, begin) = (count.load(Ordering::Relaxed), processor(pid)?, Instant::now());
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let messages = (count.load(Ordering::Relaxed) - messages) as f64;
    let spent = processor(pid)? - cpu;
    let elapsed = begin.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    tasks.abort_all();
    Ok(Sample::from([
        (Figure::Rate, messages / elapsed / 1000.0),
        (Figure::Cost, spent * 1e6 / messages.max(1.0)),
        (Figure::RatePerCore, messages / spent / 1000.0),
    ]))
}

/// Answers each content with one. Who does not know what to answer learns the link from the first.
async fn bounce(
    mut peer: Peer,
    answers: Option<Vec<u8>>,
    mut length: usize,
    bytes: usize,
    count: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
) -> Result<()> {
    let mut answers = answers.unwrap_or_default();
    while !over.load(Ordering::Relaxed) {
        let mut contents = 0;
        let mut link = None;
        peer.read(|message| {
            contents += 1;
            if length == 0 && link.is_none() {
                link = sender(message).ok();
            }
        })
        .await?;
        if let Some(link) = link {
            let down = masked(&content(link, &vec![7; bytes]));
            length = down.len();
            answers = down.repeat(64);
        }
        if contents > 0 {
            count.fetch_add(contents as u64, Ordering::Relaxed);
            if answers.len() < contents * length {
                answers = answers[..length].repeat(contents);
            }
            peer.stream.write_all(&answers[..contents * length]).await?;
        }
    }
    Ok(())
}

pub async fn idle(server: &Server, members: usize) -> Result<Sample> {
    let pid = server.pid().context("the server is gone")?;
    let before = memory(pid)?;
    let mut tasks = JoinSet::new();
    for member in 0..members {
        let mut peer = Peer::connect(server, &format!("idle-{member}")).await?;
        peer.attach(true).await?;
        tasks.spawn(async move { while peer.read(|_| {}).await.is_ok() {} });
    }
    // Every one has had a heartbeat, and has answered it.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (cpu, begin) = (processor(pid)?, Instant::now());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let spent = (processor(pid)? - cpu) / begin.elapsed().as_secs_f64();
    let held = memory(pid)?.saturating_sub(before) as f64;
    ensure!(tasks.len() == members && tasks.try_join_next().is_none(), "members are gone");
    tasks.abort_all();
    Ok(Sample::from([
        (Figure::Member, held / members as f64 / 1000.0),
        (Figure::Heartbeats, spent * 1e6 / members as f64),
    ]))
}

pub async fn kept(server: &Server, rooms: usize, bytes: usize) -> Result<Sample> {
    let pid = server.pid().context("the server is gone")?;
    let mut pairs = pairs(server, rooms).await?;
    let before = memory(pid)?;
    for (member, joiner) in &mut pairs {
        joiner.stream.write_all(&masked(&content(0, &vec![7; bytes]))).await?;
        let link = sender(&member.message().await?)?;
        member.stream.write_all(&masked(&content(link, &vec![7; bytes]))).await?;
        joiner.message().await?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let held = memory(pid)? as f64 - before as f64;
    Ok(Sample::from([(Figure::Kept, held / 1024.0 / (2 * rooms) as f64)]))
}

async fn pairs(server: &Server, rooms: usize) -> Result<Vec<(Peer, Peer)>> {
    let mut pairs = Vec::with_capacity(rooms);
    for room in 0..rooms {
        let path = format!("room-{room}");
        let mut member = Peer::connect(server, &path).await?;
        member.attach(true).await?;
        let mut joiner = Peer::connect(server, &path).await?;
        joiner.attach(false).await?;
        pairs.push((member, joiner));
    }
    Ok(pairs)
}

thread_local! {
    /// Where everything is read first: one for all, so that it stays in the processor's cache.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A client that does as little as possible.
struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Peer {
    async fn connect(server: &Server, path: &str) -> Result<Peer> {
        let mut stream = TcpStream::connect(server.addr).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut peer = Peer { stream, buffer: Vec::new() };
        loop {
            ensure!(peer.stream.read_buf(&mut peer.buffer).await? > 0, "closed during the upgrade");
            if let Some(end) = peer.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                ensure!(peer.buffer.starts_with(b"HTTP/1.1 101"), "no upgrade");
                peer.buffer.drain(..end + 4);
                return Ok(peer);
            }
        }
    }

    /// Says connect, and expects to be the first or not.
    async fn attach(&mut self, first: bool) -> Result<()> {
        let mut group = Vec::new();
        put_number(&mut group, 1, 11);
        let mut message = Vec::new();
        put_bytes(&mut message, 3, &group);
        self.stream.write_all(&masked(&message)).await?;
        let answer = self.message().await?;
        ensure!(answer == [0x20, u8::from(first)], "unexpected answer to connect: {answer:02x?}");
        Ok(())
    }

    /// The next message.
    async fn message(&mut self) -> Result<Vec<u8>> {
        let mut found = None;
        while found.is_none() {
            self.read(|message| found = Some(message.to_vec())).await?;
        }
        found.context("nothing")
    }

    /// Reads once; answers heartbeats, and gives all other messages to `each`.
    async fn read(&mut self, mut each: impl FnMut(&[u8])) -> Result<()> {
        let beats = poll_fn(|context| {
            SCRATCH.with_borrow_mut(|scratch| {
                scratch.resize(64 * 1024, 0);
                self.poll_read(context, scratch, &mut each)
            })
        })
        .await?;
        for _ in 0..beats {
            self.stream.write_all(&masked(&[0x08, 0x01])).await?;
        }
        Ok(())
    }

    /// Reads once by way of `scratch`; the number of heartbeats.
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        scratch: &mut [u8],
        each: &mut impl FnMut(&[u8]),
    ) -> Poll<Result<u32>> {
        // What came with the answer to the upgrade is looked at before anything is waited for.
        let fresh = if self.buffer.is_empty() || !whole(&self.buffer) {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            buffer.filled().len()
        } else {
            0
        };
        Poll::Ready(self.take_in(&scratch[..fresh], each))
    }

    fn take_in(&mut self, scratch: &[u8], each: &mut impl FnMut(&[u8])) -> Result<u32> {
        let fresh = scratch.len();
        if fresh == 0 && !whole(&self.buffer) {
            bail!("closed");
        }
        let own = !self.buffer.is_empty();
        if own {
            self.buffer.extend_from_slice(&scratch[..fresh]);
        }
        let bytes: &[u8] = if own { &self.buffer } else { &scratch[..fresh] };
        let (mut at, mut beats) = (0, 0);
        while let Some((head, end)) = frame(&bytes[at..]) {
            let message = &bytes[at + head..at + end];
            match bytes[at] {
                0x82 if message == [0x08, 0x01] => beats += 1,
                0x82 => each(message),
                0x88 => bail!("closed: {message:02x?}"),
                _ => {}
            }
            at += end;
        }
        if own {
            self.buffer.drain(..at);
        } else if at < fresh {
            self.buffer.extend_from_slice(&scratch[at..fresh]);
        }
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
        Ok(beats)
    }
}

fn whole(bytes: &[u8]) -> bool {
    frame(bytes).is_some()
}

/// Where the payload of the first frame of a server begins and ends, if it is all there.
fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let (head, length) = match *bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        short => (2, usize::from(short)),
    };
    (bytes.len() >= head + length).then_some((head, head + length))
}

/// A binary frame of a client, masked with something that is not nothing.
fn masked(message: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![0x82];
    match message.len() {
        length @ ..126 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(message.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
