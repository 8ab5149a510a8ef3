//! The faults themselves, and the run of one.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use compat_tests::oracle::free_port;
use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::time::sleep;

use super::cluster::{EngineSource, NODES, TestCluster, process_of};
use super::load::Load;
use super::proxy::{FaultProxy, Passage};
use super::report::{FaultReport, FaultTimes};
use super::{AFTER, BEFORE, Fault, GRACE};
use crate::node::CLUSTER;
use crate::redis::TestRedis;
use crate::redis_cluster::{self, TestRedisCluster};

/// Longest time from the death of a node until its rooms are usable.
const OWNER_LOSS: Duration = Duration::from_secs(13);
/// Longest time from the return of Redis, or of a link, until all is usable.
const RETURN: Duration = Duration::from_secs(5);
/// Time of a cut.
const CUT: Duration = Duration::from_secs(12);

/// Number of a sentinel, and of all others, at the proxy in front of a primary.
const SENTINEL: usize = 0;
const OTHERS: usize = 1;

/// Redis, and the sentinel or the Redis Cluster that watches it.
struct Engine {
    server: TestRedis,
    sentinel: Option<Sentinel>,
    shards: Option<Shards>,
}

/// The other servers of a Redis Cluster.
struct Shards {
    replica: TestRedis,
    others: Vec<TestRedis>,
}

struct Sentinel {
    server: TestRedis,
    replica: TestRedis,
    /// The proxy in front of the primary.
    primary: Arc<FaultProxy>,
}

impl Engine {
    async fn start(program: &str, fault: Fault) -> Result<Engine> {
        if fault == Fault::ClusterFailover {
            let TestRedisCluster { primary, replica, others, .. } =
                TestRedisCluster::start(program, CLUSTER).await?;
            let shards = Some(Shards { replica, others });
            return Ok(Engine { server: primary, sentinel: None, shards });
        }
        let server = TestRedis::start(program).await?;
        if !matches!(fault, Fault::Failover | Fault::FailoverCut) {
            return Ok(Engine { server, sentinel: None, shards: None });
        }
        let process = Arc::new(Mutex::new(None));
        let known = Arc::clone(&process);
        let identify = move |from: SocketAddr, to: SocketAddr| match process_of(from, to, &[*known.lock()]) {
            Some(_) => SENTINEL,
            None => OTHERS,
        };
        let primary = FaultProxy::start(server.address, Arc::new(identify)).await?;
        let port = primary.address.port().to_string();
        let replica = TestRedis::start_with(program, &["--replicaof", "127.0.0.1", &port]).await?;
        let settings = std::env::temp_dir().join(format!("sigver-sentinel-{}.conf", free_port()?));
        std::fs::write(
            &settings,
            format!(
                "sentinel monitor main 127.0.0.1 {port} 1\nsentinel down-after-milliseconds main 1000\n\
                 sentinel failover-timeout main 3000\n"
            ),
        )?;
        let file = settings.to_str().context("a path that is no text")?;
        let sentinel = TestRedis::start_with(program, &[file, "--sentinel"]).await?;
        sentinel.until("sentinel replicas main", &["slave-priority"]).await?;
        // It connects once more, now that the proxy knows it.
        *process.lock() = Some(sentinel.id());
        primary.set(OTHERS, Passage::Cut);
        sleep(Duration::from_millis(100)).await;
        primary.set(OTHERS, Passage::Open);
        sleep(Duration::from_secs(1)).await;
        let sentinel = Some(Sentinel { server: sentinel, replica, primary });
        Ok(Engine { server, sentinel, shards: None })
    }

    /// Returns how the nodes find the engine.
    fn source(&self) -> EngineSource {
        match (&self.sentinel, &self.shards) {
            (Some(sentinel), _) => {
                EngineSource::Url(format!("redis+sentinel://{}/main", sentinel.server.address))
            }
            (None, Some(shards)) => {
                EngineSource::Url(redis_cluster::url([&self.server].into_iter().chain(&shards.others)))
            }
            (None, None) => EngineSource::Proxied(self.server.address),
        }
    }

    /// Waits until the replica is the primary.
    async fn promoted(&self) -> Result<()> {
        if let Some(shards) = &self.shards {
            shards.replica.until("info replication", &["role:master"]).await?;
            return shards.replica.until("cluster info", &["cluster_state:ok"]).await;
        }
        let sentinel = self.sentinel.as_ref().context("no sentinel")?;
        let port = format!("\r\n{}\r\n", sentinel.replica.address.port());
        sentinel.server.until("sentinel get-master-addr-by-name main", &[&port]).await
    }

    /// Ends the connection of one node to the primary.
    async fn disconnect_one(&self) -> Result<()> {
        let clients = self.server.command("client list").await?;
        let node = clients.lines().find(|client| client.contains(" cmd=evalsha "));
        let id = node.and_then(|client| client.strip_prefix("id=")?.split(' ').next());
        let id = id.with_context(|| format!("no node among {clients}"))?;
        let killed = self.server.command(&format!("client kill id {id}")).await?;
        ensure!(killed.starts_with(":1"), "no connection is killed: {killed}");
        Ok(())
    }
}

/// Runs one fault on a cluster of its own.
pub(super) async fn run(fault: Fault, program: &Path, redis: &str) -> Result<FaultReport> {
    let mut engine = Engine::start(redis, fault).await?;
    let mut cluster = TestCluster::start(program, engine.source()).await?;
    sleep(GRACE).await;
    let load = Load::start(&cluster.addresses(), &format!("{:?}", fault).to_lowercase())?;
    sleep(BEFORE).await;
    let (from, boot) = (load.now(), boot_millis());
    let times = cause(fault, &mut cluster, &mut engine, &load, from).await?;
    let rest = (times.usable + AFTER).saturating_sub(load.now());
    sleep(rest).await;
    load.stop();
    sleep(Duration::from_secs(2)).await;
    Ok(FaultReport::new(fault, times, boot, &load, &cluster.decisions()?))
}

/// Causes a fault at `from`. Returns when it was over and when all must be usable.
async fn cause(
    fault: Fault,
    cluster: &mut TestCluster,
    engine: &mut Engine,
    load: &Arc<Load>,
    from: Duration,
) -> Result<FaultTimes> {
    let owner_loss = FaultTimes { from, usable: from + OWNER_LOSS, back: None };
    let back = |load: &Load| {
        let back = load.now();
        FaultTimes { from, usable: back + RETURN, back: Some(back) }
    };
    Ok(match fault {
        Fault::None => {
            sleep(Duration::from_secs(8)).await;
            FaultTimes { from, usable: from, back: None }
        }
        Fault::Stop => {
            load.avoid(0, true);
            cluster.signal(0, Signal::TERM).await?;
            FaultTimes { from, usable: load.now(), back: None }
        }
        Fault::Kill => {
            load.avoid(0, true);
            cluster.signal(0, Signal::KILL).await?;
            owner_loss
        }
        Fault::Replace => {
            load.avoid(0, true);
            cluster.signal(0, Signal::KILL).await?;
            sleep(Duration::from_millis(300)).await;
            cluster.start_node(0).await?;
            load.avoid(0, false);
            owner_loss
        }
        Fault::Pause => {
            load.avoid(0, true);
            cluster.signal(0, Signal::STOP).await?;
            sleep(Duration::from_secs(15)).await;
            cluster.signal(0, Signal::CONT).await?;
            sleep(Duration::from_secs(2)).await;
            load.avoid(0, false);
            sleep(Duration::from_secs(4)).await;
            owner_loss
        }
        Fault::CutEngine | Fault::HalfOpenEngine => {
            let passage = if fault == Fault::CutEngine { Passage::Cut } else { Passage::HalfOpen };
            cluster.set_engine(0, passage);
            sleep(CUT).await;
            cluster.set_engine(0, Passage::Open);
            back(load)
        }
        Fault::CutNodes | Fault::HalfOpenNodes => {
            let passage = if fault == Fault::CutNodes { Passage::Cut } else { Passage::HalfOpen };
            cluster.set_links(0, 1, passage);
            sleep(CUT).await;
            cluster.set_links(0, 1, Passage::Open);
            back(load)
        }
        Fault::SlowNodes => {
            cluster.set_links(0, 1, Passage::Delayed(Duration::from_millis(200)));
            sleep(CUT).await;
            cluster.set_links(0, 1, Passage::Open);
            FaultTimes { from, usable: from, back: None }
        }
        Fault::Isolate => {
            load.avoid(0, true);
            cluster.set_engine(0, Passage::HalfOpen);
            (1..NODES).for_each(|other| cluster.set_links(0, other, Passage::HalfOpen));
            sleep(CUT + Duration::from_secs(2)).await;
            cluster.set_engine(0, Passage::Open);
            (1..NODES).for_each(|other| cluster.set_links(0, other, Passage::Open));
            sleep(RETURN).await;
            load.avoid(0, false);
            owner_loss
        }
        Fault::RedisEmpty => {
            engine.server.restart_empty().await?;
            back(load)
        }
        Fault::RedisEmptyLater => {
            engine.server.kill()?;
            sleep(Duration::from_secs(5)).await;
            engine.server.restart().await?;
            back(load)
        }
        Fault::RedisOld => {
            let saved = engine.server.command("save").await?;
            ensure!(saved.starts_with("+OK"), "Redis does not save: {saved}");
            sleep(Duration::from_secs(8)).await;
            engine.server.restart_empty().await?;
            back(load)
        }
        Fault::RedisPause => {
            engine.server.signal(Signal::STOP)?;
            sleep(Duration::from_secs(10)).await;
            engine.server.signal(Signal::CONT)?;
            back(load)
        }
        Fault::Failover => {
            engine.server.kill()?;
            engine.promoted().await?;
            back(load)
        }
        Fault::FailoverCut => {
            engine.sentinel.as_ref().context("no sentinel")?.primary.set(SENTINEL, Passage::Cut);
            engine.promoted().await?;
            // The others do not notice by themselves: their primary answers.
            engine.disconnect_one().await?;
            back(load)
        }
        Fault::ClusterFailover => {
            engine.server.kill()?;
            engine.promoted().await?;
            let times = back(load);
            engine.server.restart().await?;
            times
        }
    })
}

/// Returns the time of the clock that the nodes use.
fn boot_millis() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec.unsigned_abs() * 1_000 + time.tv_nsec.unsigned_abs() / 1_000_000
}
