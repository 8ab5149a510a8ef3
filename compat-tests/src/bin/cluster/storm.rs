//! A storm: clients in thousands of rooms of three nodes, one of which is killed. All that lose their
//! connection come again after the time that netflux waits.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use rustix::process::Signal;
use sigver::server::fd_limit;
use sigver::tools::client::dialects::{ClientEvent, Role};
use sigver::tools::client::peer::SyntheticPeer;
use sigver::tools::client::protocol::Protocol;
use sigver::tools::dial::Target;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::node::{NodeOptions, NodeProcess};

/// Number of nodes.
const NODES: usize = 3;
/// Time in which a new generation gives no room away.
const GRACE: Duration = Duration::from_millis(4_500);
/// Time after which netflux comes back when its connection was closed.
const REJOIN: Duration = Duration::from_secs(3);
/// Longest time between that and the answer.
const BACK: Duration = Duration::from_secs(3);
/// Time over which clients of other nodes are closed when the node of their room has ended.
const EVICTION: Duration = Duration::from_secs(3);
/// Time for which a client stays: longer than any run.
const VISIT: Duration = Duration::from_secs(86_400);
/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(60);

/// Options of the storm.
#[derive(Clone, Debug, Args)]
pub(crate) struct StormOptions {
    /// Clients
    #[arg(long, default_value_t = 15_000)]
    clients: usize,
    /// Rooms, in which the clients are in turn: two of one room are at different nodes
    #[arg(long, default_value_t = 10_000)]
    rooms: usize,
    /// Clients that connect in a second, at first
    #[arg(long, default_value_t = 5_000.0)]
    rate: f64,
}

/// The place of a client in its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Outside,
    First,
    Linked,
}

/// A change of one client.
#[derive(Clone, Copy, Debug)]
struct Report {
    client: usize,
    change: Change,
    at: Instant,
}

/// The state of one client, as it reported it.
#[derive(Clone, Copy, Debug)]
struct ClientState {
    change: Change,
    /// Time at which its connection ended last.
    closed: Option<Instant>,
    /// Time from then until it was in its room again.
    back_after: Option<Duration>,
}

/// Kills a node under its clients. Fails if one of them is not in its room again in time, or if a room has
/// two first members or none.
pub(crate) async fn check(program: &Path, engine: &str, options: &StormOptions) -> Result<()> {
    let StormOptions { clients, rooms, rate } = *options;
    ensure!(
        rooms > 0 && !rooms.is_multiple_of(NODES) && clients <= 2 * rooms,
        "rooms must be no multiple of 3, for two clients each at most"
    );
    fd_limit::raise()?;
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        let node = NodeOptions { engine: Some(engine.to_owned()), ..NodeOptions::default() };
        nodes.push(NodeProcess::start(program, &node).await?);
    }
    sleep(GRACE).await;
    let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
    let protocol = Protocol::from_name("sigver-20").context("no protocol sigver-20")?;
    let targets = addresses.iter().map(|address| Target::parse(&format!("ws://{address}")));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;

    let (sender, mut reports) = mpsc::unbounded_channel();
    let begin = Instant::now();
    for client in 0..clients {
        let due = Duration::from_secs_f64(client as f64 / rate);
        if due > begin.elapsed() {
            sleep(due.saturating_sub(begin.elapsed())).await;
        }
        let (targets, sender) = (targets.clone(), sender.clone());
        tokio::spawn(stay(client, format!("storm{}", client % rooms), targets, protocol, sender));
    }
    let unknown = ClientState { change: Change::Outside, closed: None, back_after: None };
    let mut states = vec![unknown; clients];
    collect(&mut states, &mut reports, |states| is_settled(states, rooms)).await?;
    println!("storm: {clients} clients in {rooms} rooms after {:.1} s", begin.elapsed().as_secs_f64());

    let killed = Instant::now();
    nodes[0].signal(Signal::KILL)?;
    nodes[0].ended().await?;
    let all_are_closed = |states: &[ClientState]| {
        let is_hit = |client: usize| client.is_multiple_of(NODES);
        states.iter().enumerate().all(|(client, state)| state.closed.is_some() || !is_hit(client))
            && killed.elapsed() > EVICTION + REJOIN
    };
    collect(&mut states, &mut reports, |states| all_are_closed(states) && is_settled(states, rooms)).await?;
    report(&states, killed)
}

/// Prints the times of the clients whose connection ended.
fn report(states: &[ClientState], killed: Instant) -> Result<()> {
    let of_node = states.iter().step_by(NODES).count();
    let mut times: Vec<Duration> = states.iter().filter_map(|state| state.back_after).collect();
    times.sort_unstable();
    ensure!(times.len() >= of_node, "only {} of {of_node} clients came again", times.len());
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "storm: one of three nodes was killed under {of_node} clients; these and {} of the other nodes, in its rooms, \
         were in their rooms again {:.1} s after the close (median; 99 %: {:.1} s; last: {:.1} s), all {:.1} s after \
         the kill",
        times.len() - of_node,
        at(0.5).as_secs_f64(),
        at(0.99).as_secs_f64(),
        at(1.0).as_secs_f64(),
        killed.elapsed().as_secs_f64(),
    );
    ensure!(at(1.0) <= REJOIN + BACK, "a client was back only after {:?}", at(1.0));
    Ok(())
}

/// Returns true if all clients are in their rooms, and each room has one first member.
fn is_settled(states: &[ClientState], rooms: usize) -> bool {
    let is_in = states.iter().all(|state| state.change != Change::Outside);
    is_in
        && (0..rooms.min(states.len())).all(|room| {
            let members = states.iter().skip(room).step_by(rooms);
            members.filter(|state| state.change == Change::First).count() == 1
        })
}

/// Takes note of what the clients report, until `is_done`.
async fn collect(
    states: &mut [ClientState],
    reports: &mut mpsc::UnboundedReceiver<Report>,
    is_done: impl Fn(&[ClientState]) -> bool,
) -> Result<()> {
    let begin = Instant::now();
    loop {
        // Many at a time, as it takes long to find out whether all is done.
        while let Ok(report) = reports.try_recv() {
            let state = states.get_mut(report.client).context("no such client")?;
            state.change = report.change;
            match (report.change, state.closed) {
                (Change::Outside, _) => state.closed = Some(report.at),
                (_, Some(closed)) => {
                    let after = report.at - closed;
                    state.back_after = state.back_after.max(Some(after));
                }
                (_, None) => {}
            }
        }
        if is_done(states) {
            return Ok(());
        }
        let outside = states.iter().filter(|state| state.change == Change::Outside).count();
        ensure!(begin.elapsed() < LIMIT, "{outside} clients are not in their rooms, or two are first in one");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Keeps a client in its room for ever.
async fn stay(
    client: usize,
    room: String,
    nodes: Vec<Target>,
    protocol: Protocol,
    reports: mpsc::UnboundedSender<Report>,
) {
    let mut node = client;
    let send = |change| {
        // The receiver is there until the end of the run.
        let _ = reports.send(Report { client, change, at: Instant::now() });
    };
    loop {
        let connecting = SyntheticPeer::connect(&nodes[node % NODES], protocol, Role::Member, &room, None);
        let Ok(Ok(mut peer)) = timeout(LIMIT, connecting).await else {
            // As a load balancer does, which does not wait.
            node += 1;
            continue;
        };
        let change = |event: &ClientEvent| match event {
            ClientEvent::BecameMember => Some(Change::First),
            ClientEvent::LinkedToMember => Some(Change::Linked),
            ClientEvent::Closed(..) => Some(Change::Outside),
            _ => None,
        };
        while let Some(change) = peer.wait_for(VISIT, change).await {
            if change == Change::Outside {
                break;
            }
            send(change);
            peer.log.clear();
        }
        send(Change::Outside);
        sleep(REJOIN).await;
    }
}
