//! The scripts of the engine on a real Redis, reply by reply.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sigver::config::EngineUrl;
use sigver::protocol::cluster::{Claim, ClaimResult, Generation, NodeId};
use sigver::server::cluster::{Engine, EngineAddress, NodeEntry, Renewal};
use tokio::time::sleep;

use super::redis::TestRedis;
use super::redis_cluster::{self, TestRedisCluster};

const A: NodeId = NodeId(0xa);
const B: NodeId = NodeId(0xb);

/// Name of the cluster in the engine.
const NAME: &str = "scripts";
/// Longest time until a server that was started takes requests: in a Redis Cluster after two seconds.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);

/// Tries the scripts on a server of its own, and in a Redis Cluster whose slot is moved afterwards: about
/// fifteen seconds, most of them the grace of a new generation.
pub(crate) async fn check_all(redis: &mut TestRedis, program: &str) -> Result<()> {
    let url = redis.url();
    let clustered = async {
        let mut redis = TestRedisCluster::start(program, NAME).await?;
        // Given only a server that has not the slot.
        let url = redis_cluster::url(&redis.others[..1]);
        check(&mut redis.primary, &url).await.context("in a Redis Cluster")?;
        move_slot(&redis, &url).await
    };
    tokio::try_join!(check(redis, &url), clustered)?;
    println!("scripts: every reply as expected, also in a Redis Cluster, and when the slot is moved");
    Ok(())
}

/// Tries the scripts on the engine at `url`, which is this server.
async fn check(redis: &mut TestRedis, url: &str) -> Result<()> {
    let address = EngineAddress::new(&EngineUrl::parse(url)?, NAME, None)?;
    let (engine, names) = (opened(&address).await?, address.names());
    let (generation, others) = renewed(engine.renew(A, &entry("10.0.0.1:1"), None, 0, false).await?)?;
    ensure!(others.is_empty(), "the first node sees {others:?}");
    let (same, others) = renewed(engine.renew(B, &entry("10.0.0.2:1"), None, 0, false).await?)?;
    ensure!(same == generation && others == [(A, entry("10.0.0.1:1"))], "the second sees {others:?}");

    let room = names.room("secret", 0);
    ensure!(room != names.room("secret", 1) && room != names.room("secret2", 0), "one name");
    ensure!(!format!("{room:?}").contains("secret"), "the name shows the key");
    let claim = |node, number| Claim { node, number };
    let wait = engine.claim(&room, claim(A, 1), None, generation, 0).await?;
    ensure!(matches!(wait, ClaimResult::Wait(1_000..=6_000)), "a free name in the grace: {wait:?}");
    grace(&engine, generation).await?;
    let granted = engine.claim(&room, claim(A, 2), None, generation, 0).await?;
    ensure!(granted == ClaimResult::Granted, "a free name: {granted:?}");
    let newer = engine.claim(&room, claim(A, 4), None, generation, 0).await?;
    ensure!(newer == ClaimResult::Granted, "a newer claim of the same node: {newer:?}");
    let late = engine.claim(&room, claim(A, 3), None, generation, 0).await?;
    ensure!(late == ClaimResult::Wait(0), "a late claim: {late:?}");
    for over in [None, Some(claim(A, 4))] {
        let held = engine.claim(&room, claim(B, 1), over, generation, 0).await?;
        let lease = matches!(held, ClaimResult::Held(holder, 1..=6_000) if holder == claim(A, 4));
        ensure!(lease, "a name of a node with a lease: {held:?}");
    }
    let other = engine.claim(&room, claim(B, 2), None, generation - 1, 0).await?;
    ensure!(other == ClaimResult::OtherGeneration, "a claim for other data: {other:?}");
    let stranger = engine.claim(&names.room("x", 0), claim(NodeId(0xc), 1), None, generation, 0).await?;
    ensure!(stranger == ClaimResult::Wait(0), "a node without a lease: {stranger:?}");
    // The clock of Redis went on by seconds, that of the node by none: it has leapt.
    sleep(Duration::from_millis(1_200)).await;
    let leapt = engine.claim(&room, claim(A, 5), None, generation, 0).await?;
    ensure!(leapt == ClaimResult::OtherGeneration, "a clock that leapt: {leapt:?}");
    renewed(engine.renew(A, &entry("10.0.0.1:1"), Some(1_300), generation, false).await?)?;

    let (kept, fresh) = (names.room("secret", 0), names.room("y", 0));
    let claims = [(kept.clone(), claim(A, 4)), (fresh.clone(), claim(A, 9))];
    ensure!(engine.keep(A, &claims, generation).await? == Some(vec![]), "own claims are not kept");
    let older = engine.keep(A, &[(kept.clone(), claim(A, 1))], generation).await?;
    ensure!(older == Some(vec![]), "an older claim of the same node: {older:?}");
    let lost = engine.keep(B, &[(kept.clone(), claim(B, 3))], generation).await?;
    ensure!(lost == Some(vec![0]), "a claim to a name of another node: {lost:?}");
    ensure!(engine.keep(A, &claims, generation - 1).await?.is_none(), "claims are kept for other data");
    engine.release(&fresh, claim(A, 8), generation).await?;
    renewed(engine.renew(B, &entry("10.0.0.2:1"), None, 0, false).await?)?;
    let held = engine.claim(&kept, claim(B, 4), None, generation, 0).await?;
    let is_newer = matches!(held, ClaimResult::Held(holder, _) if holder == claim(A, 4));
    ensure!(is_newer, "an older claim replaced a newer one: {held:?}");
    let held = engine.claim(&fresh, claim(B, 4), None, generation, 0).await?;
    ensure!(matches!(held, ClaimResult::Held(..)), "released by another claim: {held:?}");
    engine.release(&fresh, claim(A, 9), generation).await?;
    let free = engine.claim(&fresh, claim(B, 5), None, generation, 0).await?;
    ensure!(free == ClaimResult::Granted, "a released name: {free:?}");

    engine.leave(A).await?;
    ensure!(
        engine.renew(A, &entry("10.0.0.1:1"), None, 0, false).await? == Renewal::Replaced(None),
        "a node that left is back"
    );
    let free = engine.claim(&room, claim(B, 6), None, generation, 0).await?;
    ensure!(free == ClaimResult::Granted, "a name of a node that left: {free:?}");
    // Another process at the address of B.
    renewed(engine.renew(NodeId(0xd), &entry("10.0.0.2:1"), None, 0, false).await?)?;
    ensure!(
        matches!(engine.renew(B, &entry("10.0.0.2:1"), None, 0, true).await?, Renewal::Replaced(Some(_))),
        "two nodes at one address"
    );
    engine.leave(NodeId(0xd)).await?;
    renewed(engine.renew(B, &entry("10.0.0.2:1"), None, 0, true).await?)?;

    // A node whose entry this version does not understand may have rooms.
    redis.command("hset sigver:{scripts}:who 000000000000000d \"another form\"").await?;
    redis.command("hset sigver:{scripts}:nodes 000000000000000d 99999999999999").await?;
    let renewal = engine.renew(B, &entry("10.0.0.2:1"), None, 0, false).await?;
    let Renewal::Renewed(view, others, _) = renewal else { anyhow::bail!("{renewal:?}") };
    ensure!(view.others == [NodeId(0xd)] && others.is_empty(), "a node of another version: {view:?}");

    found_nodes(redis, &engine).await?;

    redis.restart_empty().await?;
    ensure!(
        engine.renew(A, &entry("10.0.0.1:1"), None, 0, false).await.is_err(),
        "the connection outlives its Redis"
    );
    let engine = opened(&address).await?;
    let (new, _) = renewed(engine.renew(NodeId(0xe), &entry("10.0.0.3:1"), None, 0, false).await?)?;
    ensure!(new > generation, "an empty Redis has the old generation");
    sleep(Duration::from_millis(1_200)).await;
    let (leapt, _) = renewed(engine.renew(NodeId(0xe), &entry("10.0.0.3:1"), Some(10), new, false).await?)?;
    ensure!(leapt > new, "a renewal does not notice that the clock has leapt");
    clock_goes_back(redis, &engine, leapt).await
}

/// Connects to the engine once it takes requests.
async fn opened(address: &EngineAddress) -> Result<Engine> {
    let start = Instant::now();
    loop {
        match Engine::open(address).await {
            Ok(engine) => return Ok(engine),
            Err(error) => ensure!(start.elapsed() < OPEN_TIMEOUT, "no engine: {error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Moves the slot of the keys to another server of the Redis Cluster, which is a new engine. There is none
/// while the keys are on their way.
async fn move_slot(redis: &TestRedisCluster, url: &str) -> Result<()> {
    let (node, own, slot) = (NodeId(0x2a), entry("10.0.2.1:1"), redis.slot);
    let address = EngineAddress::new(&EngineUrl::parse(url)?, NAME, None)?;
    let (source, target) = (&redis.primary, &redis.others[1]);
    let engine = opened(&address).await?;
    let (generation, _) = renewed(engine.renew(node, &own, None, 0, false).await?)?;
    let (source_id, target_id) = (redis_cluster::id(source).await?, redis_cluster::id(target).await?);
    target.accepts(&format!("cluster setslot {slot} importing {source_id}")).await?;
    source.accepts(&format!("cluster setslot {slot} migrating {target_id}")).await?;
    let unstable = engine.renew(node, &own, None, generation, false).await;
    ensure!(unstable.is_err(), "a renewal while the slot is moved: {unstable:?}");
    let keys = source.command(&format!("cluster getkeysinslot {slot} 1000")).await?;
    let keys: Vec<&str> = keys.lines().filter(|line| line.starts_with("sigver:")).collect();
    ensure!(keys.len() > 2, "the keys are {keys:?}");
    let port = target.address.port();
    source.accepts(&format!("migrate 127.0.0.1 {port} \"\" 0 5000 keys {}", keys.join(" "))).await?;
    let between = Engine::open(&address).await;
    ensure!(between.is_err(), "an engine without the slot of its keys, or keys without their slot");
    target.accepts(&format!("cluster setslot {slot} node {target_id}")).await?;
    source.accepts(&format!("cluster setslot {slot} node {target_id}")).await?;
    ensure!(engine.renew(node, &own, None, generation, false).await.is_err(), "the former server answers");
    let engine = opened(&address).await?;
    let (moved, _) = renewed(engine.renew(node, &own, None, 0, false).await?)?;
    ensure!(moved > generation, "the keys at another server are of generation {moved}, before {generation}");
    let alone = EngineAddress::new(&EngineUrl::parse(&target.url())?, NAME, None)?;
    let error = Engine::open(&alone).await.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(error.contains("redis+cluster://"), "a server of a Redis Cluster by itself: {error:?}");
    Ok(())
}

/// Has B find nodes that run without a lease, and that a node which starts is to know.
async fn found_nodes(redis: &TestRedis, engine: &Engine) -> Result<()> {
    let (forgotten, lasting, successor) = (NodeId(0x1a), NodeId(0x1b), NodeId(0x1c));
    let own = entry("10.0.0.2:1");
    let others = async || -> Result<Vec<NodeId>> {
        let Renewal::Renewed(view, ..) = engine.renew(B, &own, None, 0, false).await? else {
            anyhow::bail!("the node was replaced")
        };
        Ok(view.others)
    };
    let before = others().await?;
    engine.report_running(&[(forgotten, entry("10.0.1.1:1")), (lasting, entry("10.0.1.2:1"))]).await?;
    renewed(engine.renew(lasting, &entry("10.0.1.2:1"), None, 0, false).await?)?;
    let found = others().await?;
    let count = |node| found.iter().filter(|found| **found == node).count();
    ensure!(found.len() == before.len() + 2 && count(forgotten) == 1 && count(lasting) == 1, "{found:?}");
    let Renewal::Renewed(_, entries, _) = engine.renew(B, &own, None, 0, false).await? else {
        anyhow::bail!("the node was replaced")
    };
    let has_no_lease = |(node, entry): &&(NodeId, NodeEntry)| *node == forgotten && entry.expired.is_some();
    ensure!(
        entries.iter().filter(has_no_lease).count() == 1,
        "a node that was found has a lease: {entries:?}"
    );
    // It reaches Redis again; it has ended; another has its address; it was not found any more.
    renewed(engine.renew(forgotten, &entry("10.0.1.1:1"), None, 0, false).await?)?;
    let again = others().await?;
    ensure!(again.len() == found.len(), "a node is there twice: {again:?}");
    engine.leave(forgotten).await?;
    engine.report_running(&[(forgotten, entry("10.0.1.1:1"))]).await?;
    let ended = others().await?;
    ensure!(!ended.contains(&forgotten), "a node that has ended: {ended:?}");
    let (replaced, old) = (NodeId(0x1d), NodeId(0x1e));
    engine.report_running(&[(replaced, entry("10.0.1.3:1")), (old, entry("10.0.1.4:1"))]).await?;
    renewed(engine.renew(successor, &entry("10.0.1.3:1"), None, 0, false).await?)?;
    redis.command(&format!("hset sigver:{{scripts}}:found {old} \"1000 10.0.1.4:1\"")).await?;
    let last = others().await?;
    ensure!(last.contains(&successor) && !last.contains(&replaced) && !last.contains(&old), "{last:?}");
    let left = redis.command("hlen sigver:{scripts}:found").await?;
    ensure!(left == ":0\r\n", "what is left of nodes that were found: {left}");
    Ok(())
}

/// Has the clock of Redis go back, by data that began later than it shows.
async fn clock_goes_back(redis: &TestRedis, engine: &Engine, before: Generation) -> Result<()> {
    const STEP: Generation = 100_000;
    let (key, node) = ("sigver:{scripts}:data", NodeId(0xe));
    let data = redis.command(&format!("get {key}")).await?;
    let words: Vec<_> = data.lines().nth(1).unwrap_or_default().split(' ').collect();
    let [generation, _, process] = words[..] else { anyhow::bail!("the data are {data:?}") };
    ensure!(generation == before.to_string(), "the data are {data:?} in generation {before}");
    let later = before + STEP;
    redis.command(&format!("set {key} \"{later} {later} {process}\"")).await?;
    let name = EngineAddress::new(&EngineUrl::parse(&redis.url())?, NAME, None)?.names().room("z", 0);
    let claim = async |generation| engine.claim(&name, Claim { node, number: 1 }, None, generation, 0).await;
    ensure!(claim(later).await? == ClaimResult::OtherGeneration, "a claim before its generation began");
    let renewal = engine.renew(node, &entry("10.0.0.3:1"), Some(0), later, false).await?;
    let Renewal::Renewed(view, ..) = renewal else { anyhow::bail!("{renewal:?}") };
    // A lower one would be older data to the nodes that know the one before.
    ensure!(view.generation > later && view.age < STEP, "the clock went back from {later}: {view:?}");
    let wait = claim(view.generation).await?;
    ensure!(matches!(wait, ClaimResult::Wait(1..=6_000)), "a free name after the clock went back: {wait:?}");
    // The same for a Redis that has no data, and whose clock shows less than another one's.
    redis.command(&format!("del {key}")).await?;
    let known = view.generation + STEP;
    let (new, _) = renewed(engine.renew(node, &entry("10.0.0.3:1"), Some(0), known, false).await?)?;
    ensure!(new > known, "an empty Redis has an older generation than a node knows");
    // A node that was replaced has no lease that could show a leap, and still knows the last generation.
    redis.command(&format!("del {key}")).await?;
    let known = new + STEP;
    let (new, _) = renewed(engine.renew(node, &entry("10.0.0.3:1"), None, known, true).await?)?;
    ensure!(new > known, "an empty Redis has an older generation than a replaced node knows");
    Ok(())
}

/// Waits for the end of the grace of a new generation; both nodes renew their leases during that time.
async fn grace(engine: &Engine, generation: Generation) -> Result<()> {
    for _ in 0..7 {
        sleep(Duration::from_millis(1_000)).await;
        renewed(engine.renew(A, &entry("10.0.0.1:1"), Some(1_100), generation, false).await?)?;
        renewed(engine.renew(B, &entry("10.0.0.2:1"), Some(1_100), generation, false).await?)?;
    }
    Ok(())
}

fn entry(address: &str) -> NodeEntry {
    NodeEntry {
        address: address.to_owned(),
        public_key: vec![1, 2, 3],
        version: "22.0.0".to_owned(),
        name: "a node".to_owned(),
        rooms: 0,
        expired: None,
    }
}

fn renewed(renewal: Renewal) -> Result<(Generation, Vec<(NodeId, NodeEntry)>)> {
    match renewal {
        Renewal::Renewed(view, others, _) => Ok((view.generation, others)),
        Renewal::Replaced(_) => anyhow::bail!("the node was replaced"),
    }
}
