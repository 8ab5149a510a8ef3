//! The whole gateway on a simulated network and simulated time: all but the sockets of the system is what
//! runs in production. A seed decides about the protocols, clients, delays and faults. For every seed:
//!
//! - clients that behave get every message, in order and once, or they come back and do then;
//! - clients that misbehave end as they should, and in time;
//! - every connection ends with a cause, no task panics, and nothing is left of clients that are gone.
//!
//! `SIGVER_SIMULATION_SEEDS=5000` runs more seeds, `SIGVER_SIMULATION_SEED=17` one with a trace on stderr.

#![allow(unreachable_pub, reason = "a crate without users")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test")]

#[path = "../common/mod.rs"]
mod common;
mod conversation;
mod events;
mod hostile;
mod network;
mod peer;
mod trace;
mod world;

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::runtime::Builder;
use tokio::time::sleep;

use conversation::Conversation;
use hostile::Hostile;
use parking_lot::Mutex;
use trace::{LogRecorder, Trace};
use world::{Mode, World};

/// Seeds of one run of the test.
const SEEDS: u64 = 200;

/// The outcome of one seed.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    digest: u64,
    violations: Vec<String>,
    conversations: u64,
    frames: u64,
    simulated: Duration,
}

/// Runs one seed in a thread of its own, as the gateway has a generator for each thread.
fn run_seed(seed: u64, prints: bool) -> Outcome {
    let run = move || {
        fastrand::seed(seed);
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let start = tokio::time::Instant::now();
            let trace = Trace::new(prints);
            let log = tracing::subscriber::set_default(LogRecorder(trace.clone()));
            let conversations = simulate(seed, &trace).await;
            drop(log);
            Outcome {
                digest: trace.digest(),
                violations: trace.violations(),
                conversations,
                frames: trace.frames(),
                simulated: start.elapsed(),
            }
        })
    };
    let outcome = std::thread::spawn(run).join();
    outcome.unwrap_or_else(|_| Outcome {
        digest: 0,
        violations: vec!["a panic".to_owned()],
        conversations: 0,
        frames: 0,
        simulated: Duration::ZERO,
    })
}

/// Returns the number of conversations that were complete.
async fn simulate(seed: u64, trace: &Trace) -> u64 {
    let mut rng = Rng::with_seed(seed);
    let mode = Mode::random(&mut rng);
    trace.note("world", format_args!("seed {seed}, {mode}"));
    let world = World::start(mode, trace.clone(), rng.fork()).await;
    let mut tasks = Vec::new();
    let mut rooms = Vec::new();
    for number in 0..rng.u32(2..=5) {
        let conversation = Conversation::random(mode, number, &mut rng);
        rooms.push(conversation.venue.clone());
        let (world, rng, delay) = (world.clone(), rng.fork(), rng.u64(..3000));
        tasks.push(tokio::spawn(async move {
            sleep(Duration::from_millis(delay)).await;
            conversation.run(world, rng).await;
        }));
    }
    for number in 0..rng.u32(0..=4) {
        let hostile = Hostile::random(&mut rng);
        let victim = rooms[rng.usize(..rooms.len())].clone();
        let (world, rng, delay) = (world.clone(), rng.fork(), rng.u64(..10_000));
        tasks.push(tokio::spawn(async move {
            sleep(Duration::from_millis(delay)).await;
            hostile.run(world, format!("hostile{number}"), victim, rng).await;
        }));
    }
    for _ in 0..rng.u32(0..=2) {
        sleep(Duration::from_millis(rng.u64(1000..20_000))).await;
        match rng.bool() {
            true => world.hand_over().await,
            false => world.crash(Duration::from_millis(rng.u64(..4000))).await,
        }
    }
    for task in tasks {
        if task.await.is_err() {
            trace.violation("world", "a client panicked");
        }
    }
    world.finish().await;
    world.conversations.load(Ordering::Relaxed)
}

fn seeds() -> u64 {
    env::var("SIGVER_SIMULATION_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS)
}

#[test]
fn every_seed_holds_the_invariants() {
    if let Some(seed) = env::var("SIGVER_SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok()) {
        let outcome = run_seed(seed, true);
        assert!(outcome.violations.is_empty(), "{outcome:#?}");
        return;
    }
    let (next, failed, start) = (AtomicU64::new(0), Mutex::new(Vec::new()), Instant::now());
    let totals = Mutex::new((0, 0, Duration::ZERO, 0_u64));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds() {
                        return;
                    }
                    let outcome = run_seed(seed, false);
                    let mut totals = totals.lock();
                    totals.0 += outcome.conversations;
                    totals.1 += outcome.frames;
                    totals.2 += outcome.simulated;
                    totals.3 ^= outcome.digest;
                    if !outcome.violations.is_empty() {
                        failed.lock().push((seed, outcome.violations));
                    }
                }
            });
        }
    });
    let (conversations, frames, simulated, digest) = totals.into_inner();
    eprintln!(
        "{} seeds: {conversations} conversations, {frames} frames, {} hours in {:?}, digest {digest:016x}",
        seeds(),
        simulated.as_secs() / 3600,
        start.elapsed()
    );
    let failed = failed.into_inner();
    assert!(failed.is_empty(), "{} seeds failed: {failed:#?}", failed.len());
}

#[test]
fn same_seed_is_the_same_run() {
    for seed in [3, 8, 21] {
        assert_eq!(run_seed(seed, false), run_seed(seed, false), "seed {seed}");
    }
}
