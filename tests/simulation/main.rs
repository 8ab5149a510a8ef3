//! The whole gateway on a simulated network and simulated time: all but the sockets of the system is what
//! runs in production. A seed decides about the protocols, clients, delays and faults. For every seed:
//!
//! - clients that behave get every message, in order and once, or they come back and do then;
//! - clients that misbehave end as they should, and in time;
//! - no byte of a payload reaches a client that it is not meant for, whatever attackers try;
//! - every connection ends with a cause, no task panics, and nothing is left of clients that have ended.
//!
//! `SIGVER_SIMULATION_SEEDS=5000` runs more seeds, `SIGVER_SIMULATION_SEED=17` one with a trace on stderr.

#![allow(unreachable_pub, reason = "a crate without users")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test")]

mod attacker;
#[path = "../common/mod.rs"]
mod common;
mod conversation;
mod events;
mod hostile;
mod inspector;
mod network;
mod peer;
mod pipes;
mod race;
mod trace;
mod world;

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::runtime::Builder;
use tokio::time::sleep;

use attacker::Attacker;
use conversation::Conversation;
use hostile::Hostile;
use parking_lot::Mutex;
use trace::{LogRecorder, Trace};
use world::{Mode, World};

/// Seeds of one run of the tests.
const SEEDS: u64 = 200;
const SEEDS_OF_ATTACKS: u64 = 100;

/// The outcome of one seed.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    digest: u64,
    violations: Vec<String>,
    conversations: u64,
    frames: u64,
    payloads: u64,
    simulated: Duration,
}

/// The clients that do not behave.
#[derive(Clone, Copy, Debug)]
enum Scenario {
    /// Clients that violate the protocol and flood; the network and the gateway fail.
    Faults,
    /// Clients that try to reach those of other rooms, all the time.
    Attack,
}

/// Runs one seed in a thread of its own, as the gateway has a generator for each thread.
fn run_seed(scenario: Scenario, seed: u64, prints: bool) -> Outcome {
    let run = move || {
        fastrand::seed(seed);
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let start = tokio::time::Instant::now();
            let trace = Trace::new(prints);
            let log = tracing::subscriber::set_default(LogRecorder(trace.clone()));
            let conversations = simulate(scenario, seed, &trace).await;
            drop(log);
            Outcome {
                digest: trace.digest(),
                violations: trace.violations(),
                conversations,
                frames: trace.frames(),
                payloads: trace.payloads(),
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
        payloads: 0,
        simulated: Duration::ZERO,
    })
}

/// Returns the number of conversations that were complete.
async fn simulate(scenario: Scenario, seed: u64, trace: &Trace) -> u64 {
    let mut rng = Rng::with_seed(seed);
    let mode = Mode::random(&mut rng);
    trace.note("world", format_args!("seed {seed}, {mode}"));
    let world = World::start(mode, trace.clone(), rng.fork()).await;
    let mut tasks = Vec::new();
    let mut rooms = Vec::new();
    for number in 0..rng.u32(2..=5) {
        let mut conversation = Conversation::random(mode, number, &mut rng);
        if let Scenario::Attack = scenario {
            conversation.spare_member();
        }
        rooms.push(conversation.venue.clone());
        let (world, rng, delay) = (world.clone(), rng.fork(), rng.u64(..3000));
        tasks.push(tokio::spawn(async move {
            sleep(Duration::from_millis(delay)).await;
            conversation.run(world, rng).await;
        }));
    }
    for number in 0..2 {
        tasks.push(tokio::spawn(pipes::run(world.clone(), number, rng.fork())));
    }
    tasks.push(tokio::spawn(race::run(world.clone(), rng.fork())));
    match scenario {
        Scenario::Faults => {
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
        }
        Scenario::Attack => {
            for number in 0..rng.u32(2..=4) {
                let victim = rooms[rng.usize(..rooms.len())].clone();
                let attacker = Attacker::new(world.clone(), number, victim, rng.fork());
                tasks.push(tokio::spawn(attacker.run()));
            }
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

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Runs all seeds of a scenario, or the one that is asked for, and fails if an invariant does not hold.
fn run_seeds(scenario: Scenario, seeds: u64) {
    if let Some(seed) = setting("SIGVER_SIMULATION_SEED") {
        let outcome = run_seed(scenario, seed, true);
        assert!(outcome.violations.is_empty(), "{outcome:#?}");
        return;
    }
    let seeds = setting("SIGVER_SIMULATION_SEEDS").unwrap_or(seeds);
    let (next, start) = (AtomicU64::new(0), Instant::now());
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let outcome = run_seed(scenario, seed, false);
                    outcomes.lock().push((seed, outcome));
                }
            });
        }
    });
    let outcomes = outcomes.into_inner();
    let sum = |count: fn(&Outcome) -> u64| outcomes.iter().map(|(_, outcome)| count(outcome)).sum::<u64>();
    eprintln!(
        "{scenario:?}: {seeds} seeds, {} conversations, {} frames, {} payloads, {} simulated hours in {:.1} s, \
         digest {:016x}",
        sum(|outcome| outcome.conversations),
        sum(|outcome| outcome.frames),
        sum(|outcome| outcome.payloads),
        sum(|outcome| outcome.simulated.as_secs()) / 3600,
        start.elapsed().as_secs_f32(),
        outcomes.iter().fold(0, |digest, (_, outcome)| digest ^ outcome.digest),
    );
    let failed: Vec<_> = outcomes.iter().filter(|(_, outcome)| !outcome.violations.is_empty()).collect();
    assert!(failed.is_empty(), "{} seeds failed: {failed:#?}", failed.len());
}

#[test]
fn every_seed_holds_the_invariants() {
    run_seeds(Scenario::Faults, SEEDS);
}

#[test]
fn no_payload_reaches_a_third_peer() {
    run_seeds(Scenario::Attack, SEEDS_OF_ATTACKS);
}

#[test]
fn same_seed_is_the_same_run() {
    for (scenario, seed) in [(Scenario::Faults, 3), (Scenario::Faults, 8), (Scenario::Attack, 21)] {
        assert_eq!(run_seed(scenario, seed, false), run_seed(scenario, seed, false), "seed {seed}");
    }
}
