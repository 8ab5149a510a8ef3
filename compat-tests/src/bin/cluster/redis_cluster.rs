//! A Redis Cluster of three primaries, one of which has the slot of a cluster's keys, and a replica of that.

use anyhow::{Context as _, Result};
use compat_tests::oracle::free_port;

use super::redis::TestRedis;

/// Number of slots, and of primaries, most of which have to run.
const SLOTS: u16 = 16_384;
const PRIMARIES: usize = 3;

/// A running Redis Cluster, which ends with the value.
#[derive(Debug)]
pub(crate) struct TestRedisCluster {
    /// The server that has the slot at the start.
    pub(crate) primary: TestRedis,
    pub(crate) replica: TestRedis,
    /// The primaries of other slots.
    pub(crate) others: Vec<TestRedis>,
    pub(crate) slot: u16,
}

impl TestRedisCluster {
    /// Starts the servers, and waits until they serve the slot of the cluster of this name.
    pub(crate) async fn start(program: &str, name: &str) -> Result<TestRedisCluster> {
        let mut servers = Vec::new();
        for number in 0..=PRIMARIES {
            let bus = free_port()?.to_string();
            let arguments = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port"];
            let server = TestRedis::start_with(program, &[&arguments[..], &[&bus]].concat()).await?;
            // Each takes its slots with the number of its own.
            server.accepts(&format!("cluster set-config-epoch {}", number + 1)).await?;
            servers.push((server, bus));
        }
        let (first, _) = servers.first().context("no server")?;
        let slot = first.command(&format!("cluster keyslot {{{name}}}")).await?;
        let slot: u16 = slot.trim_start_matches(':').trim().parse()?;
        let ranges = slot_ranges(slot);
        for ((server, _), (begin, end)) in servers.iter().zip(ranges) {
            server.accepts(&format!("cluster addslotsrange {begin} {end}")).await?;
        }
        for (other, bus) in &servers[1..] {
            let port = other.address.port();
            first.accepts(&format!("cluster meet 127.0.0.1 {port} {bus}")).await?;
        }
        let count = servers.len();
        for (server, _) in &servers {
            server.until("cluster info", &[&format!("cluster_known_nodes:{count}\r\n")]).await?;
        }
        let primary_id = id(first).await?;
        let mut servers: Vec<TestRedis> = servers.into_iter().map(|(server, _)| server).collect();
        let replica = servers.pop().context("no replica")?;
        replica.until(&format!("cluster replicate {primary_id}"), &["+OK"]).await?;
        replica.until("info replication", &["master_link_status:up"]).await?;
        let primary = servers.remove(0);
        for server in servers.iter().chain([&primary, &replica]) {
            server.until("cluster info", &["cluster_state:ok"]).await?;
        }
        Ok(TestRedisCluster { primary, replica, others: servers, slot })
    }
}

/// Returns the first and last slots of each primary: the first primary has this one.
fn slot_ranges(slot: u16) -> impl Iterator<Item = (u16, u16)> {
    let ranges = [(0, 5_460), (5_461, 10_922), (10_923, SLOTS - 1)];
    let of_first = ranges.iter().position(|(begin, end)| (*begin..=*end).contains(&slot));
    ranges.into_iter().cycle().skip(of_first.unwrap_or_default()).take(PRIMARIES)
}

/// Returns the id of a server in its Redis Cluster.
pub(crate) async fn id(server: &TestRedis) -> Result<String> {
    let answer = server.command("cluster myid").await?;
    Ok(answer.lines().nth(1).context("a server without an id")?.to_owned())
}

/// Returns the URL of a Redis Cluster with these servers.
pub(crate) fn url<'a>(servers: impl IntoIterator<Item = &'a TestRedis>) -> String {
    let servers: Vec<String> = servers.into_iter().map(|server| server.address.to_string()).collect();
    format!("redis+cluster://{}", servers.join(","))
}
