//! The cost of a cluster: messages for each second of all nodes' processor time with both clients at the node
//! of their room, one of them, and none, next to one server without a cluster; and the time until a client
//! opens a room. The servers take turns, and ratios are of one turn.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use compat_tests::oracle::Server;
use compat_tests::summary::Summary;
use sigver::tools::bench::{Processes, Progress, Protocol, ThroughputPlan, throughput};
use sigver::tools::client::dialects::{ClientEvent, Role};
use sigver::tools::client::peer::SyntheticPeer;
use sigver::tools::dial::Target;
use tokio::time::sleep;

use super::node::free_address;

/// Time in which a new generation gives no room away.
const GRACE: Duration = Duration::from_millis(7_000);
/// Longest wait of a client.
const LIMIT: Duration = Duration::from_secs(20);
/// Size of a message, in bytes.
const PAYLOAD: usize = 600;
/// New rooms for the time to one.
const NEW_ROOMS: usize = 400;
/// Places of member, joiner and room among the servers, of which the first is no node.
const CASES: [(&str, [usize; 3]); 4] = [
    ("one server without a cluster", [0, 0, 0]),
    ("both clients at the node of their room", [1, 1, 1]),
    ("one of them", [1, 2, 1]),
    ("none of them", [1, 2, 3]),
];

/// Options of the figures.
#[derive(Clone, Debug, Args)]
pub(crate) struct FigureOptions {
    /// The gateway's binary
    #[arg(long, default_value = "target/release/sigver")]
    server_bin: PathBuf,
    /// Seconds for each figure
    #[arg(long, default_value_t = 2.5)]
    seconds: f64,
    /// Turns of the servers: many short ones, as what else the machine does changes within seconds
    #[arg(long, default_value_t = 21)]
    turns: usize,
    /// Pairs of clients, each in a room of its own
    #[arg(long, default_value_t = 50)]
    rooms: usize,
    /// Messages of each pair that are on their way
    #[arg(long, default_value_t = 16)]
    in_flight: usize,
    /// Protocol of the clients, one in which a room has several members
    #[arg(long, default_value = "sigver-9")]
    protocol: String,
}

/// Prints the figures.
pub(crate) async fn measure(engine: &str, options: &FigureOptions) -> Result<()> {
    let protocol = Protocol::from_name(&options.protocol).context("no such protocol")?;
    ensure!(options.turns > 0, "no turns");
    let mut servers = vec![Server::gateway_with(&options.server_bin, &[]).await?];
    for _ in 0..3 {
        let links = free_address()?;
        let (address, port) = (links.to_string(), links.port().to_string());
        let node = ["--cluster", engine, "--node-address", &address, "--node-port", &port];
        servers.push(Server::gateway_with(&options.server_bin, &node).await?);
    }
    sleep(GRACE).await;
    let pids: Vec<u32> = servers.iter().filter_map(Server::pid).collect();
    ensure!(pids.len() == servers.len(), "a server has ended");
    // A server that has nothing to do costs next to nothing.
    let processes = Processes::new(&pids)?;
    let targets: Vec<Target> = servers
        .iter()
        .map(|server| Target::parse(&format!("ws://{}", server.addr)))
        .collect::<Result<_, _>>()?;
    let mut figures = [const { Vec::new() }; CASES.len()];
    for turn in 0..=options.turns {
        for ((name, [member, joiner, room]), figures) in CASES.iter().zip(&mut figures) {
            let node = |place: &usize| (place != member).then(|| targets[*place].clone());
            let plan = ThroughputPlan {
                member: protocol,
                joiner: protocol,
                rooms: options.rooms,
                in_flight: options.in_flight,
                bytes: PAYLOAD,
                duration: Duration::from_secs_f64(options.seconds),
                rate: None,
                joiners_at: node(joiner),
                rooms_at: node(room),
            };
            let result = throughput(&targets[*member], &plan, Some(&processes), &Progress::none()).await?;
            let cost = result.server.context("no processor time")?.cpu_us_each;
            // The first turn warms up.
            if turn > 0 {
                println!("turn {turn}: {name}: {cost:.2} µs of processor time for a message");
                figures.push(cost);
            }
        }
    }
    let [alone, clustered @ ..] = &figures;
    for ((name, _), costs) in CASES[1..].iter().zip(clustered) {
        let ratios = alone.iter().zip(costs).map(|(alone, cost)| alone / cost).collect();
        let Summary { median, least, most } = Summary::from_values(ratios).context("no turns")?;
        println!("{name}: {median:.2} of one server's messages ({least:.2} to {most:.2})");
    }
    let (mut alone, mut clustered) = (Vec::new(), Vec::new());
    for number in 0..NEW_ROOMS {
        alone.push(new_room(protocol, servers[0].addr, number).await?);
        clustered.push(new_room(protocol, servers[1].addr, number).await?);
    }
    let median = |times| Summary::from_values(times).context("no rooms").map(|summary| summary.median);
    let (alone, clustered) = (median(alone)?, median(clustered)?);
    println!("a new room, median: {alone:.2} ms on one server, {clustered:.2} ms at a node");
    Ok(())
}

/// Returns the time from the connection to the admission as the first member of a new room, in milliseconds.
async fn new_room(protocol: Protocol, at: SocketAddr, number: usize) -> Result<f64> {
    let start = Instant::now();
    let target = Target::parse(&format!("ws://{at}"))?;
    let mut member =
        SyntheticPeer::connect(&target, protocol, Role::Member, &format!("new{number}"), None).await?;
    let admitted = |event: &ClientEvent| matches!(event, ClientEvent::BecameMember).then_some(());
    member.wait_for(LIMIT, admitted).await.context("the member is not admitted")?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
