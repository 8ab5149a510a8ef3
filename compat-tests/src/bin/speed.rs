//! A look at speed and size: our server beside `sigver@20.1.0` from npm, in the same run, each doing the same work in
//! turn. Ratios count, not figures: other things run on the machine. No test: nothing passes or fails here.

#![cfg(target_os = "linux")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use compat_tests::current::{content, sender};
use compat_tests::goldens::{Original, root};
use compat_tests::oracle::Server;
use compat_tests::wire::{put_bytes, put_number};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Compares speed and size with sigver 20.1.0
#[derive(Parser)]
struct Args {
    /// Our server
    #[arg(long)]
    server_bin: PathBuf,
    /// Where the originals are installed
    #[arg(long, default_value_os_t = root().join("originals"))]
    originals: PathBuf,
    /// Rooms of two peers that send one message at a time to and fro
    #[arg(long, default_value_t = 50)]
    rooms: u32,
    /// Members that do nothing
    #[arg(long, default_value_t = 2_000)]
    idle: u32,
    /// How long messages are sent, in seconds
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// How often each server has its turn; medians are shown
    #[arg(long, default_value_t = 3)]
    turns: usize,
}

type Socket = WebSocketStream<TcpStream>;

/// What one turn of a server shows.
#[derive(Clone, Copy, Default)]
struct Figures {
    /// Messages relayed per second.
    relays: f64,
    /// Processor time of the server per message, in µs.
    cost: f64,
    /// Resident memory per idle member, in bytes.
    member: f64,
    /// Resident memory at start, in bytes.
    start: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..args.turns.max(1) {
        let server = Server::original(&args.originals, Original::find("20.1.0")?).await?;
        theirs.push(turn(&server, &args).await?);
        let server = Server::ours(&args.server_bin, "auto").await?;
        ours.push(turn(&server, &args).await?);
    }
    println!(
        "{} rooms, one 64-byte message in flight, {} s; {} idle members; medians of {} turns\n",
        args.rooms, args.seconds, args.idle, args.turns
    );
    println!("| work                                | sigver@20.1.0 | sigver (auto) | ratio |");
    println!("|-------------------------------------|--------------:|--------------:|------:|");
    let row = |name: &str, unit: f64, of: fn(&Figures) -> f64| {
        let (theirs, ours) = (median(&theirs, of) / unit, median(&ours, of) / unit);
        println!("| {name:35} | {theirs:13.1} | {ours:13.1} | {:5.2} |", ours / theirs);
    };
    row("relayed messages per second, in 1000", 1_000.0, |figures| figures.relays);
    row("server CPU per message, µs", 1.0, |figures| figures.cost);
    row("memory per idle member, kB", 1_000.0, |figures| figures.member);
    row("memory at start, MB", 1e6, |figures| figures.start);
    Ok(())
}

fn median(figures: &[Figures], of: fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<f64> = figures.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

async fn turn(server: &Server, args: &Args) -> Result<Figures> {
    let pid = server.pid().context("the server is gone")?;
    let start = memory(pid)?;
    let (relays, cost) = relay(server, pid, args).await?;
    let before = memory(pid)?;
    let mut members = Vec::new();
    for room in 0..args.idle {
        let mut member = connect(server, &format!("idle-{room}")).await?;
        attach(&mut member, true).await?;
        members.push(member);
    }
    let held = memory(pid)?.saturating_sub(before) as f64;
    Ok(Figures { relays, cost, member: held / f64::from(args.idle.max(1)), start: start as f64 })
}

/// Messages per second, and processor time per message in µs.
async fn relay(server: &Server, pid: u32, args: &Args) -> Result<(f64, f64)> {
    let mut pairs = JoinSet::new();
    let mut ready = Vec::new();
    for room in 0..args.rooms {
        let path = format!("relay-{room}");
        let mut member = connect(server, &path).await?;
        attach(&mut member, true).await?;
        let mut joiner = connect(server, &path).await?;
        attach(&mut joiner, false).await?;
        ready.push((member, joiner));
    }
    let cpu_before = processor(pid)?;
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let begin = Instant::now();
    for (member, joiner) in ready {
        pairs.spawn(rally(member, joiner, until));
    }
    let mut messages = 0;
    while let Some(pair) = pairs.join_next().await {
        messages += pair??;
    }
    let spent = processor(pid)? - cpu_before;
    Ok((f64::from(messages) / begin.elapsed().as_secs_f64(), spent * 1e6 / f64::from(messages.max(1))))
}

/// Joiner and member answer one another until the time is over; the number of messages.
async fn rally(mut member: Socket, mut joiner: Socket, until: Instant) -> Result<u32> {
    let payload = [7u8; 64];
    let mut messages = 0;
    let to_member = content(0, &payload);
    while Instant::now() < until {
        joiner.send(Message::binary(to_member.clone())).await?;
        let sender = sender(&binary(&mut member).await?)?;
        member.send(Message::binary(content(sender, &payload))).await?;
        binary(&mut joiner).await?;
        messages += 2;
    }
    Ok(messages)
}

async fn connect(server: &Server, key: &str) -> Result<Socket> {
    let stream = TcpStream::connect(server.addr).await?;
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default().read_buffer_size(1024);
    let url = format!("ws://{}/{key}", server.addr);
    Ok(tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await?.0)
}

/// Says connect, and expects to be the first or not.
async fn attach(socket: &mut Socket, first: bool) -> Result<()> {
    let mut group = Vec::new();
    put_number(&mut group, 1, 11);
    let mut message = Vec::new();
    put_bytes(&mut message, 3, &group);
    socket.send(Message::binary(message)).await?;
    let answer = binary(socket).await?;
    if answer != [0x20, u8::from(first)] {
        bail!("unexpected answer to connect: {answer:02x?}");
    }
    Ok(())
}

/// The next binary frame that is no heartbeat.
async fn binary(socket: &mut Socket) -> Result<Vec<u8>> {
    loop {
        match socket.next().await.context("closed")?? {
            Message::Binary(bytes) if bytes != [0x08, 0x01][..] => return Ok(bytes.to_vec()),
            Message::Close(frame) => bail!("closed: {frame:?}"),
            _ => {}
        }
    }
}

/// Resident memory in bytes.
fn memory(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}

/// Processor time in seconds.
fn processor(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("unexpected /proc/PID/stat")?;
    let ticks: f64 =
        rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    // The tick of /proc is 1/100 s on every Linux.
    Ok(ticks / 100.0)
}
