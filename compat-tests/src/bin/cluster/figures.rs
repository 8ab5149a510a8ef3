//! The cost of a cluster: messages for each second of all nodes' processor time with both clients at the node
//! of their room, with one of them and with none; and the time to a new room. Compared with one server.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use sigver::tools::client::dialects::{ClientEvent, JoinerId, Role};
use sigver::tools::client::message::{MessageKind, TestMessage};
use sigver::tools::client::peer::SyntheticPeer;
use sigver::tools::client::protocol::Protocol;
use sigver::tools::dial::Target;
use tokio::time::sleep;

use super::node::{NodeOptions, NodeProcess};

/// Time in which a new generation gives no room away.
const GRACE: Duration = Duration::from_millis(7_000);
/// Longest wait of a client.
const LIMIT: Duration = Duration::from_secs(20);
/// Pairs of clients, and messages of each that are on their way.
const PAIRS: usize = 16;
const IN_FLIGHT: usize = 16;
/// Bytes of a message.
const PAYLOAD: usize = 600;
/// New rooms for the time to one.
const NEW_ROOMS: usize = 400;

/// Options of the figures.
#[derive(Clone, Debug, Args)]
pub(crate) struct FigureOptions {
    /// The program that runs the nodes; this one by default
    #[arg(long)]
    nodes: Option<PathBuf>,
    /// Seconds for each figure
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Protocol of the clients, one in which a room has several members
    #[arg(long, default_value = "sigver-9")]
    protocol: String,
}

/// Prints the figures.
pub(crate) async fn measure(program: &Path, engine: &str, options: &FigureOptions) -> Result<()> {
    let program = options.nodes.as_deref().unwrap_or(program);
    let protocol = Protocol::from_name(&options.protocol).context("no such protocol")?;
    let single = NodeProcess::start(program, &NodeOptions::default()).await?;
    let node = NodeOptions { engine: Some(engine.to_owned()), ..NodeOptions::default() };
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(NodeProcess::start(program, &node).await?);
    }
    sleep(GRACE).await;
    let at = |node: usize| nodes[node].address;
    let time = Duration::from_secs_f64(options.seconds);
    let all: Vec<u32> = nodes.iter().chain([&single]).filter_map(NodeProcess::id).collect();
    let one = single.address;
    let cases = [
        ("one server without a cluster", [one, one, one]),
        ("both clients at the node of their room", [at(0), at(0), at(0)]),
        ("one of them", [at(0), at(1), at(0)]),
        ("none of them", [at(0), at(1), at(2)]),
    ];
    let mut first = None;
    for round in 0..2 {
        for (name, places) in &cases {
            let figure = relay(protocol, *places, &all, time, &format!("{round}{name}")).await?;
            // The first round warms up.
            if round > 0 {
                let base = *first.get_or_insert(figure);
                println!("{name}: {figure:.0} messages per second of processor time, {:.2}", figure / base);
            }
        }
    }
    let (mut alone, mut clustered) = (Vec::new(), Vec::new());
    for number in 0..NEW_ROOMS {
        alone.push(new_room(protocol, one, number).await?);
        clustered.push(new_room(protocol, at(0), number).await?);
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e3
    };
    let (alone, clustered) = (median(&mut alone), median(&mut clustered));
    println!("a new room, median: {alone:.2} ms on one server, {clustered:.2} ms at a node");
    Ok(())
}

/// Returns the messages for each second of processor time of `processes`, with pairs whose member, joiner and
/// room are at `places`.
async fn relay(
    protocol: Protocol,
    places: [SocketAddr; 3],
    processes: &[u32],
    time: Duration,
    prefix: &str,
) -> Result<f64> {
    let (count, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut tasks = Vec::new();
    for number in 0..PAIRS {
        let (member, joiner) = pair(protocol, places, &format!("{prefix}{number}").replace(' ', "")).await?;
        tasks.push(tokio::spawn(echo(member)));
        tasks.push(tokio::spawn(send(joiner, Arc::clone(&count), Arc::clone(&stop))));
    }
    sleep(time / 4).await;
    let before = (count.load(Ordering::Relaxed), processor_time(processes)?);
    sleep(time).await;
    let after = (count.load(Ordering::Relaxed), processor_time(processes)?);
    stop.store(true, Ordering::Relaxed);
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    // There and back.
    Ok(2.0 * (after.0 - before.0) as f64 / (after.1 - before.1).max(0.01))
}

/// Connects a member and a joiner that are linked in a room of the third place.
async fn pair(
    protocol: Protocol,
    [member_at, joiner_at, room_at]: [SocketAddr; 3],
    key: &str,
) -> Result<(SyntheticPeer, SyntheticPeer)> {
    let opener = if room_at == member_at { None } else { Some(member(protocol, room_at, key).await?) };
    let member = member(protocol, member_at, key).await?;
    drop(opener);
    // The room is that of the member alone.
    sleep(Duration::from_millis(50)).await;
    let target = Target::parse(&format!("ws://{joiner_at}"))?;
    let mut joiner = SyntheticPeer::connect(&target, protocol, Role::Joiner, key, None).await?;
    let linked = |event: &ClientEvent| matches!(event, ClientEvent::LinkedToMember).then_some(());
    joiner.wait_for(LIMIT, linked).await.context("the joiner is not linked")?;
    Ok((member, joiner))
}

async fn member(protocol: Protocol, at: SocketAddr, key: &str) -> Result<SyntheticPeer> {
    let target = Target::parse(&format!("ws://{at}"))?;
    let mut member = SyntheticPeer::connect(&target, protocol, Role::Member, key, None).await?;
    let admitted = |event: &ClientEvent| matches!(event, ClientEvent::BecameMember).then_some(());
    member.wait_for(LIMIT, admitted).await.context("the member is not admitted")?;
    Ok(member)
}

async fn echo(mut member: SyntheticPeer) {
    let received = |event: &ClientEvent| match event {
        ClientEvent::Message { from, .. } => Some(from.clone()),
        _ => None,
    };
    let message = TestMessage::with_size(MessageKind::Json, PAYLOAD);
    while let Some(from) = member.wait_for(LIMIT, received).await {
        member.log.clear();
        member.send(from.as_ref(), &message);
    }
}

async fn send(mut joiner: SyntheticPeer, count: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    let message = TestMessage::with_size(MessageKind::Json, PAYLOAD);
    for _ in 0..IN_FLIGHT {
        joiner.send(None::<&JoinerId>, &message);
    }
    let answered = |event: &ClientEvent| matches!(event, ClientEvent::Message { .. }).then_some(());
    while !stop.load(Ordering::Relaxed) && joiner.wait_for(LIMIT, answered).await.is_some() {
        joiner.log.clear();
        count.fetch_add(1, Ordering::Relaxed);
        joiner.send(None::<&JoinerId>, &message);
    }
}

/// Returns the time from the connection to the admission as the first member of a new room.
async fn new_room(protocol: Protocol, at: SocketAddr, number: usize) -> Result<Duration> {
    let start = Instant::now();
    member(protocol, at, &format!("new{number}")).await?;
    Ok(start.elapsed())
}

/// Returns the processor time of processes so far, in seconds.
fn processor_time(processes: &[u32]) -> Result<f64> {
    let mut ticks = 0;
    for process in processes {
        let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
        let (_, rest) = text.rsplit_once(')').context("no end of the name")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        for field in [11, 12] {
            ticks += fields.get(field).context("a short line")?.parse::<u64>()?;
        }
    }
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}
