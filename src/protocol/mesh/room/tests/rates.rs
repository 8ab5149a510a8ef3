//! More than the rates allow.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limited(change: impl FnOnce(&mut BridgedRoomLimits)) -> Harness {
    let mut limits = BridgedRoomLimits::default();
    change(&mut limits);
    let mut harness = Harness::new();
    harness.room = BridgedRoom::new(limits, 7);
    harness
}

impl Harness {
    fn joins(&self) -> Vec<u32> {
        self.clients.iter().map(|client| client.joins).collect()
    }
}

#[test]
fn what_is_beyond_the_rate_of_a_member_waits_and_arrives_in_order() {
    let mut harness = limited(|limits| limits.member_rate = 1_000);
    let (first, second) = (harness.opener(Netflux0), harness.opener(Netflux1));
    for number in 0..50 {
        harness.send_message(first, None, false, &[number; 136]);
    }
    // A burst of what one second allows, and then 200 bytes with what a message counts besides its data.
    let all: Vec<Message> = (0..50).map(|number| (false, true, vec![number; 136])).collect();
    let mut arrived = harness.inbox(second);
    assert_eq!(arrived, all[..6]);
    assert_eq!(harness.room.waiting_bytes(), 44 * 200);
    harness.send_message(second, None, true, b"other way");
    assert_eq!(harness.inbox(first).len(), 1, "each member has a rate of its own");
    harness.pass(5 * SECOND);
    arrived.extend(harness.inbox(second));
    assert_eq!(arrived.len(), 31);
    harness.pass(4 * SECOND);
    arrived.extend(harness.inbox(second));
    assert_eq!(arrived, all);
    let counts = harness.room.counts();
    assert_eq!((counts.messages, counts.delayed, counts.too_fast), (51, 44, 0));
    assert_eq!((harness.room.waiting_bytes(), harness.seen()), (0, vec![1, 1]));
}

#[test]
fn pair_is_cut_where_a_member_sends_too_fast_for_too_long() {
    let mut harness = limited(|limits| {
        limits.member_rate = 1_000;
        limits.max_delayed = 40_000;
    });
    let (first, second) = (harness.opener(Netflux0), harness.opener(Netflux1));
    harness.send_message(first, None, false, &[1; 30_000]);
    assert_eq!(harness.seen(), [1, 1]);
    harness.send_message(first, None, false, &[1; 60_000]);
    assert_eq!(harness.seen(), [0, 0], "both have seen the other leave");
    harness.pass(6 * SECOND);
    assert_eq!((harness.seen(), harness.joins()), (vec![1, 1], vec![2, 2]), "and it is connected again");
    let counts = harness.room.counts();
    assert_eq!((counts.too_fast, counts.cut, harness.room.waiting_bytes()), (1, 0, 0));
    assert!(harness.inbox(second).iter().all(|(_, _, data)| data.len() < 60_000));
}

#[test]
fn members_of_a_room_have_their_turns_when_it_sends_too_much() {
    let mut harness = limited(|limits| limits.room_rate = 1_000);
    let first = harness.opener(Netflux0);
    let second = harness.joiner(Netflux0, Some(first));
    let receiver = harness.opener(Netflux1);
    assert_eq!(harness.seen(), [2, 2, 2]);
    let of_first = harness.clients[receiver].seen.clone();
    for client in [first, second] {
        let own: Vec<u32> = harness.clients[client].seen.iter().copied().collect();
        // Directed, as members of one group are not limited here.
        for _ in 0..40 {
            own.iter().for_each(|to| harness.send_message(client, Some(*to), false, &[client as u8; 136]));
        }
    }
    harness.pass(6 * SECOND);
    let inbox = &harness.clients[receiver].inbox;
    let counts: Vec<usize> = of_first.iter().map(|member| inbox.get(member).map_or(0, Vec::len)).collect();
    assert_eq!(counts.iter().sum::<usize>(), 6 + 30);
    // The first had the whole burst.
    assert!(counts.iter().all(|count| *count >= 14), "{counts:?}");
}

#[test]
fn member_that_sends_on_does_not_pass_the_turns_of_others() {
    let mut harness = limited(|limits| limits.room_rate = 1_000);
    let first = harness.opener(Netflux0);
    let second = harness.joiner(Netflux0, Some(first));
    let receiver = harness.opener(Netflux1);
    let say_to_each = |harness: &mut Harness, client: usize| {
        let seen = harness.clients[client].seen.clone();
        seen.iter().for_each(|to| harness.send_message(client, Some(*to), false, &[0; 136]));
    };
    for client in [first, second] {
        (0..20).for_each(|_| say_to_each(&mut harness, client));
    }
    harness.clients[receiver].inbox.clear();
    for _ in 0..12 {
        harness.now += SECOND / 2;
        say_to_each(&mut harness, first);
        let now = harness.now;
        harness.room.tick(now);
        harness.run();
    }
    let counts: Vec<usize> = harness.clients[receiver].inbox.values().map(Vec::len).collect();
    assert_eq!((counts.len(), counts.iter().sum::<usize>()), (2, 30), "{counts:?}");
    assert!(counts.iter().all(|count| *count >= 14), "{counts:?}");
}

#[test]
fn fullest_pair_is_cut_where_all_rooms_together_hold_too_much() {
    let mut harness = limited(|limits| limits.member_rate = 1_000);
    let (first, _) = (harness.opener(Netflux0), harness.opener(Netflux1));
    harness.room.shed(harness.now);
    assert_eq!(harness.seen(), [1, 1], "nothing waits");
    harness.send_message(first, None, false, &[1; 60_000]);
    let now = harness.now;
    harness.room.shed(now);
    harness.run();
    assert_eq!((harness.seen(), harness.room.counts().too_fast), (vec![0, 0], 1));
    harness.pass(6 * SECOND);
    assert_eq!((harness.seen(), harness.joins()), (vec![1, 1], vec![2, 2]), "it is connected again");
}
