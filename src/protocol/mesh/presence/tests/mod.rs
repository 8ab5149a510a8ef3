//! Rooms of clients that join, leave and vanish in seeded orders, with stand-ins that take their time. At
//! the end each client must see each other client of another group once, and no other.

mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use world::{Happening, World};

fn any_join(rng: &mut fastrand::Rng) -> Happening {
    let group = MeshGroup::ALL[rng.usize(..MeshGroup::ALL.len())];
    let is_callable = !group.facts().some_joiners_accept_none || rng.bool();
    Happening::Join { group, is_callable }
}

fn churn(seed: u64, failure: f64) -> World {
    let mut world = World::new(seed, failure, PresenceLimits { max_members: 64, ..Default::default() });
    for _ in 0..20 {
        let happening = match world.rng.u32(..20) {
            0..=10 => any_join(&mut world.rng),
            11..=16 => Happening::Leave,
            17 | 18 => Happening::Crash,
            _ if failure > 0.0 => Happening::LoseChannel,
            _ => Happening::Leave,
        };
        world.happen(happening);
        let pause = if world.rng.bool() { 300 } else { 4_000 };
        let pause = world.rng.u64(..pause);
        world.run(Duration::from_millis(pause));
    }
    world
}

#[test]
fn every_client_sees_every_other_once_after_any_churn() {
    for seed in 0..400 {
        let mut world = churn(seed, 0.0);
        world.run(Duration::from_secs(90));
        world.check(seed);
        assert_eq!(world.last_channels_lost, 0, "seed {seed}: a client can be reached no more");
    }
}

#[test]
fn room_recovers_from_failed_joins_and_lost_channels() {
    for seed in 0..300 {
        let mut world = churn(seed, 0.2);
        world.failure = 0.0;
        world.run(Duration::from_secs(600));
        world.check(seed);
    }
}

/// Checks that each client sees every other join once, after `count` happenings.
fn check_single_joins(seed: u64, count: usize, any: impl Fn(&mut fastrand::Rng) -> Happening) {
    let mut world = World::new(seed, 0.0, PresenceLimits { max_members: 64, ..Default::default() });
    for _ in 0..count {
        let happening = any(&mut world.rng);
        world.happen(happening);
        let pause = world.rng.u64(..2_000);
        world.run(Duration::from_millis(pause));
    }
    world.run(Duration::from_secs(90));
    world.check(seed);
    let often: Vec<_> = world.joins_seen.iter().filter(|(_, times)| **times != 1).collect();
    assert!(often.is_empty(), "seed {seed}: {often:?} {:#?}", world.clients);
}

#[test]
fn member_joins_once_where_nothing_fails() {
    for seed in 0..200 {
        check_single_joins(seed, 10, any_join);
    }
}

/// A client stays a member for another, whichever others join and leave.
#[test]
fn member_joins_once_where_others_leave() {
    for seed in 0..400 {
        check_single_joins(seed, 20, |rng| {
            let group = MeshGroup::ALL[rng.usize(..MeshGroup::ALL.len())];
            match rng.bool() {
                true => Happening::Join { group, is_callable: true },
                false => Happening::Leave,
            }
        });
    }
}

#[test]
fn room_of_one_group_has_no_stand_ins() {
    for seed in 0..100 {
        let mut world = churn(seed, 0.0);
        let group = MeshGroup::ALL[world.rng.usize(..5)];
        for client in 0..world.clients.len() {
            if world.clients[client].group != group && world.clients[client].is_alive {
                world.clients[client].is_alive = false;
                for stand_in in world.stand_ins.keys().copied().collect::<Vec<u32>>() {
                    world.unlink(stand_in, client);
                }
                if world.clients[client].is_callable {
                    world.presence.departed(world.clients[client].group, client as u32, world.now);
                    world.act();
                }
            }
        }
        world.run(Duration::from_secs(90));
        let announced = world.stand_ins.values().filter(|known| known.is_announced).count();
        assert_eq!(announced, 0, "seed {seed}: {:?}", world.stand_ins);
        // An entry is held open for clients that only a placeholder reaches, and lets none in.
        if world.entries.contains(&group) {
            assert!(world.stand_ins.keys().any(|number| world.group_of(*number) == Some(group)));
            assert_eq!(world.presence.called(group, world.now), None);
        }
    }
}

#[test]
fn joiner_keeps_its_channel_when_the_member_behind_the_entry_leaves() {
    for group in [MeshGroup::Netflux0, MeshGroup::Netflux1] {
        let mut world = World::new(1, 0.0, PresenceLimits::default());
        world.happen(Happening::Join { group: MeshGroup::Netflux4, is_callable: true });
        world.happen(Happening::Join { group, is_callable: false });
        world.run(Duration::from_secs(5));
        assert_eq!(world.seen(1), Ok(BTreeSet::from([0])));
        world.clients[0].is_alive = false;
        for stand_in in world.stand_ins.keys().copied().collect::<Vec<u32>>() {
            world.unlink(stand_in, 0);
        }
        world.presence.departed(MeshGroup::Netflux4, 0, world.now);
        world.act();
        world.run(Duration::from_secs(2));
        assert_eq!(world.seen(1), Ok(BTreeSet::new()), "the member is not seen any more");
        world.happen(Happening::Join { group: MeshGroup::Netflux3, is_callable: true });
        world.run(Duration::from_secs(5));
        assert_eq!(world.seen(1), Ok(BTreeSet::from([2])), "and the next one finds the joiner");
        assert_eq!(world.seen(2), Ok(BTreeSet::from([1])));
    }
}

#[test]
fn newcomer_beyond_the_limit_sees_no_client_of_other_groups() {
    let mut world = World::new(3, 0.0, PresenceLimits { max_members: 3, ..Default::default() });
    for group in [MeshGroup::Netflux3, MeshGroup::Netflux4, MeshGroup::Netflux4, MeshGroup::Netflux4] {
        world.happen(Happening::Join { group, is_callable: true });
        world.run(Duration::from_secs(3));
    }
    assert_eq!(world.seen(0), Ok(BTreeSet::from([1, 2])));
    assert_eq!(world.seen(3), Ok(BTreeSet::new()));
    assert_eq!(world.presence.refused(), 1);
}
