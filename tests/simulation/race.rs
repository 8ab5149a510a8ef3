//! Clients that connect under one key at the same time: one of them is the first, and all others
//! receive that they are not.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use sigver::protocol::dialect::{Dialect, Family};
use sigver::tools::client::dialects::{ClientEvent, Role};
use tokio::time::sleep;

use crate::peer::{NewPeer, Peer};
use crate::world::{Mode, World};

/// Time after which all know what they are: silent clients are detected within two seconds, and those that
/// answer pings earlier.
const SETTLED: Duration = Duration::from_secs(4);

/// Has clients race for a key.
pub async fn run(world: Arc<World>, mut rng: Rng) {
    let mode = world.mode;
    // By the rules of JSON dialects, a client that asks to join a free key need not become a member.
    let is_told = |dialect: &Dialect| dialect.family() != Family::Json;
    let dialects: Vec<Dialect> = mode.dialects().into_iter().filter(is_told).collect();
    if dialects.is_empty() {
        return;
    }
    sleep(Duration::from_millis(rng.u64(..5000))).await;
    let epoch = world.epoch();
    let only = dialects[rng.usize(..dialects.len())];
    let racers = (0..rng.u32(2..=5)).map(|number| {
        // Generations have rooms of their own.
        let dialect = if mode == Mode::ByGeneration { only } else { dialects[rng.usize(..dialects.len())] };
        let (world, delay) = (Arc::clone(&world), rng.u64(..800));
        tokio::spawn(async move {
            sleep(Duration::from_millis(delay)).await;
            let name = format!("racer{number}");
            let new =
                NewPeer { name, dialect, role: Role::Joiner, key: "race", first: None, by_events: false };
            Peer::connect(&world, new).await
        })
    });
    let racers: Vec<_> = racers.collect();
    let mut peers = Vec::new();
    for racer in racers {
        match racer.await {
            Ok(Ok(peer)) => peers.push(peer),
            Ok(Err(error)) => world.trace.note("race", error),
            Err(_) => world.trace.violation("race", "a racer panicked"),
        }
    }
    sleep(SETTLED).await;
    let mut told = [0, 0];
    for peer in &mut peers {
        peer.take_events();
        let is = |event: &ClientEvent| peer.log.contains(event);
        told[0] += usize::from(is(&ClientEvent::BecameMember));
        told[1] += usize::from(is(&ClientEvent::LinkedToMember));
    }
    world.trace.note("race", format_args!("{told:?} of {}", peers.len()));
    if epoch == world.epoch() && !peers.is_empty() && told != [1, peers.len() - 1] {
        let dialects: Vec<&str> = peers.iter().map(|peer| peer.dialect.name()).collect();
        world.trace.violation("race", format_args!("first and others: {told:?} of {dialects:?}"));
    }
}
