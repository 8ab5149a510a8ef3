//! The rules of ownership, one by one and in a simulation.

mod engine;
mod faults;
mod links;
mod requests;
mod seeds;
mod simulation;

use super::lease::{CONFIRMATIONS_TIMEOUT, CONFIRMED_TIMEOUT, LEASE_MARGIN, PING_TIMEOUT};
use super::*;

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

fn view(others: &[NodeId]) -> EngineView {
    EngineView { generation: 100, age: 60_000, others: others.to_vec() }
}

/// A node whose engine has all its claims.
fn ready(others: &[NodeId]) -> Ownership<&'static str> {
    let mut node = Ownership::new(ME, 0);
    assert!(node.renewed(1_000, view(others), 1_000));
    node.engine_ready(100, 1_000);
    for other in others {
        node.set_linked(*other, true, 1_000);
        node.on_ping(*other, 0, 100, [], 1_000);
    }
    node.take_actions();
    node
}

/// Claims a name, and has the engine answer.
fn claim(node: &mut Ownership<&'static str>, now: Millis, result: ClaimResult) -> Claim {
    assert_eq!(node.locate(&"k", now), Place::Unknown);
    let actions = node.take_actions();
    let [Action::Claim { name: "k", claim, over: None, .. }] = actions[..] else { panic!("{actions:?}") };
    node.claim_answered(&"k", claim, result, now);
    claim
}

#[test]
fn granted_name_is_here_while_the_lease_lasts() {
    let mut node = ready(&[]);
    claim(&mut node, 1_000, ClaimResult::Granted);
    assert_eq!(node.take_actions(), [Action::Found("k")]);
    assert_eq!(node.locate(&"k", 1_000), Place::Here);
    let end = 1_000 + LEASE_TIMEOUT - LEASE_MARGIN;
    assert!(node.claim(&"k", end - 1).is_some());
    assert_eq!((node.lease().time_left(end - 1), node.lease().time_left(end)), (1, 0));
    node.tick(end);
    assert_eq!(node.take_actions(), [Action::Close("k", LossCause::Lapsed)]);
    // A later renewal does not bring it back.
    node.renewed(end, view(&[]), end);
    assert_eq!(node.locate(&"k", end), Place::Unknown);
}

#[test]
fn replaced_node_loses_its_names_and_begins_again() {
    let mut node = ready(&[]);
    let before = claim(&mut node, 1_000, ClaimResult::Granted);
    assert_eq!(node.locate(&"l", 1_000), Place::Unknown);
    let actions = node.take_actions();
    let [.., Action::Claim { name: "l", claim: sent, .. }] = actions[..] else { panic!("{actions:?}") };
    node.replaced(1_100);
    assert_eq!(node.take_actions(), [Action::Close("k", LossCause::Lapsed)]);
    // Neither a claim that was sent nor another node makes it decide.
    node.claim_answered(&"l", sent, ClaimResult::Granted, 1_200);
    node.engine_failed(EngineFailure::Unreachable, 1_200);
    node.on_ping(OTHER, 1_150, 100, [], 1_200);
    assert_eq!((node.period(1_200), node.owned(), node.is_ready()), (None, 0, false));
    // An engine without data is to begin a generation with a higher number than that of this node.
    assert_eq!((node.lease().since_renewal(1_200), node.lease().generation()), (None, 100));
    node.take_actions();
    assert!(node.renewed(2_000, view(&[]), 2_000), "the engine is to be sent all claims");
    node.engine_ready(100, 2_000);
    node.take_actions();
    assert!(claim(&mut node, 2_000, ClaimResult::Granted).number > before.number);
    assert_eq!(node.locate(&"k", 2_000), Place::Here);
}

#[test]
fn released_name_is_free() {
    let mut node = ready(&[]);
    let claim = claim(&mut node, 1_000, ClaimResult::Granted);
    node.take_actions();
    node.release(&"k");
    node.release(&"k");
    assert_eq!(node.take_actions(), [Action::Release { name: "k", claim, generation: 100 }]);
    assert_eq!(node.owned(), 0);
}

#[test]
fn answer_that_is_late_counts_for_nothing() {
    let mut node = ready(&[]);
    assert_eq!(node.locate(&"k", 1_000), Place::Unknown);
    let [Action::Claim { claim: first, .. }] = node.take_actions()[..] else { panic!() };
    node.tick(2_000);
    assert_eq!(node.take_actions(), [Action::Found("k")], "its waiters are to look again");
    assert_eq!(node.locate(&"k", 2_000), Place::Unknown);
    let [Action::Claim { claim: second, .. }] = node.take_actions()[..] else { panic!() };
    assert!(second.number > first.number);
    node.claim_answered(&"k", first, ClaimResult::Granted, 2_000);
    assert_eq!((node.owned(), node.take_actions()), (0, Vec::new()));
    node.claim_answered(&"k", second, ClaimResult::Granted, 2_000);
    assert_eq!(node.owned(), 1);
}

#[test]
fn name_of_another_node_is_there_for_a_second() {
    let mut node = ready(&[OTHER]);
    let holder = Claim { node: OTHER, number: 7 };
    claim(&mut node, 1_000, ClaimResult::Held(holder, 3_000));
    assert_eq!(node.take_actions(), [Action::Found("k")]);
    assert_eq!(node.locate(&"k", 1_999), Place::At(OTHER));
    node.set_linked(OTHER, false, 1_999);
    assert_eq!(node.locate(&"k", 1_999), Place::Unknown);
}

/// A node that lost the engine, and not the other nodes, keeps its rooms.
#[test]
fn name_is_taken_over_only_from_a_node_without_pings() {
    let mut node = ready(&[OTHER]);
    let holder = Claim { node: OTHER, number: 7 };
    node.on_ping(OTHER, 0, 100, [], 1_000);
    claim(&mut node, 1_000, ClaimResult::Held(holder, 0));
    assert_eq!(node.take_actions(), [Action::Found("k")]);
    let later = 1_000 + LEASE_TIMEOUT.max(PING_TIMEOUT);
    node.renewed(later, view(&[OTHER]), later);
    assert_eq!(node.locate(&"k", later), Place::Unknown);
    let [Action::Claim { claim, over: None, .. }] = node.take_actions()[..] else { panic!() };
    node.claim_answered(&"k", claim, ClaimResult::Held(holder, 0), later);
    let [Action::Claim { over, .. }] = node.take_actions()[..] else { panic!() };
    assert_eq!(over, Some(holder));
}

#[test]
fn node_without_engine_decides_while_all_others_confirm_its_pings() {
    let mut node = ready(&[OTHER]);
    claim(&mut node, 1_000, ClaimResult::Granted);
    node.engine_failed(EngineFailure::Unreachable, 1_500);
    for now in (2_000..20_000).step_by(1_000) {
        node.on_ping(OTHER, now - 500, 100, [], now);
        node.tick(now);
        assert_eq!(node.locate(&"k", now), Place::Here, "{now}");
    }
    // One that knows other data of the engine may have been given the name.
    for now in (20_000..24_000).step_by(1_000) {
        node.on_ping(OTHER, now - 500, 101, [], now);
        node.tick(now);
    }
    assert_eq!(node.claim(&"k", 24_000), None);
}

/// The engine forgets claims that are not kept, and gives their names away.
#[test]
fn confirmations_of_others_count_for_a_day_without_the_engine() {
    let mut node = ready(&[OTHER]);
    claim(&mut node, 1_000, ClaimResult::Granted);
    node.engine_failed(EngineFailure::Unreachable, 1_500);
    let end = 1_000 + CONFIRMATIONS_TIMEOUT;
    for now in (2_000..end + CONFIRMED_TIMEOUT).step_by(1_000) {
        node.on_ping(OTHER, now - 500, 100, [], now);
        assert!(now >= end || node.claim(&"k", now).is_some(), "{now}");
    }
    assert_eq!(node.claim(&"k", end + CONFIRMED_TIMEOUT), None);
}

/// Another node may have started on the other side of a partition, where the engine is.
#[test]
fn node_that_another_one_names_has_to_confirm_pings_as_well() {
    let mut node = ready(&[OTHER]);
    claim(&mut node, 1_000, ClaimResult::Granted);
    node.engine_failed(EngineFailure::Unreachable, 1_500);
    for now in (2_000..12_000).step_by(1_000) {
        node.on_ping(OTHER, now - 500, 100, [ME, NodeId(3)], now);
        node.tick(now);
    }
    assert_eq!(node.claim(&"k", 12_000), None);
}

#[test]
fn only_node_goes_on_while_the_engine_serves_no_node() {
    let mut node = ready(&[]);
    claim(&mut node, 1_000, ClaimResult::Granted);
    for now in (2_000..60_000).step_by(1_000) {
        node.engine_failed(EngineFailure::Refused, now);
        assert_eq!(node.locate(&"k", now), Place::Here, "{now}");
    }
    let (mut stopped, mut cut) = (node.clone(), node);
    // It was stopped: the engine did not fail in that time.
    stopped.engine_failed(EngineFailure::Refused, 70_000);
    assert_eq!(stopped.claim(&"k", 70_000), None);
    // The engine may serve a node that has started since.
    let end = 59_000 + CONFIRMED_TIMEOUT;
    for now in (60_000..=end).step_by(500) {
        cut.engine_failed(EngineFailure::Unreachable, now);
    }
    assert_eq!(cut.take_actions().last(), Some(&Action::Close("k", LossCause::Lapsed)));
    assert_eq!(cut.period(end), None);
}

#[test]
fn new_generation_keeps_only_what_the_engine_has_again() {
    let mut node = ready(&[]);
    let first = claim(&mut node, 1_000, ClaimResult::Granted);
    node.take_actions();
    let new = EngineView { generation: 200, age: 0, others: Vec::new() };
    assert!(node.renewed(2_000, new.clone(), 2_000));
    assert_eq!(node.claims().collect::<Vec<_>>(), [(&"k", first)]);
    assert_eq!(node.locate(&"k", 2_100), Place::Here);
    assert_eq!(node.locate(&"new", 2_100), Place::Unknown);
    assert_eq!(
        node.take_actions(),
        [Action::Ask("new")],
        "nothing is claimed before the engine has what was claimed"
    );
    let mut forgotten = node.clone();
    node.kept(&"k", first, true, 200);
    node.engine_ready(200, 2_200);
    assert_eq!(node.take_actions(), [Action::Found("new")]);
    let late = 2_000 + GENERATION_GRACE - LEASE_MARGIN;
    for node in [&mut node, &mut forgotten] {
        for now in [4_000, late] {
            node.renewed(now, EngineView { age: now - 2_000, ..new.clone() }, now);
        }
    }
    assert_eq!(node.locate(&"k", late), Place::Here);
    assert_ne!(forgotten.locate(&"k", late), Place::Here);
    node.kept(&"k", first, false, 200);
    assert_eq!(node.take_actions(), [Action::Close("k", LossCause::Taken)]);
}

/// The name was free in the data that the engine had in between, once their grace was over.
#[test]
fn name_that_one_generation_did_not_have_is_not_kept_for_the_next() {
    let mut node = ready(&[]);
    let first = claim(&mut node, 1_000, ClaimResult::Granted);
    node.take_actions();
    for (generation, at) in [(200, 2_000), (300, 4_000)] {
        node.renewed(at, EngineView { generation, age: 0, others: Vec::new() }, at);
        assert_eq!(node.locate(&"k", at), Place::Here);
    }
    // Nor does it help that the next one takes it: both may have given it to different nodes.
    assert_eq!(node.claims().count(), 0);
    node.kept(&"k", first, true, 300);
    let late = 2_000 + GENERATION_GRACE - LEASE_MARGIN;
    node.tick(late - 1);
    assert_eq!(node.take_actions(), []);
    node.tick(late);
    assert_eq!(node.take_actions(), [Action::Close("k", LossCause::Forgotten)]);
}

/// A replica was promoted, and the primary before it still answers this node.
#[test]
fn older_data_than_another_node_knows_do_not_extend_the_lease() {
    let mut node = ready(&[OTHER]);
    claim(&mut node, 1_000, ClaimResult::Granted);
    node.take_actions();
    node.on_ping(OTHER, 900, 200, [], 1_200);
    assert_eq!(node.take_actions(), [Action::Renew], "the engine may be another one by now");
    for now in [2_000, 3_000, 4_000] {
        node.renewed(now, view(&[OTHER]), now);
        node.on_ping(OTHER, now, 200, [], now);
        assert!(node.lease().is_superseded(now));
    }
    assert_eq!(node.take_actions(), [Action::Close("k", LossCause::Lapsed)]);
    assert_eq!(node.period(4_000), None);
    // The other node may have been at the wrong one.
    node.on_ping(OTHER, 4_000, 100, [], 4_100);
    node.renewed(5_000, view(&[OTHER]), 5_000);
    assert!(node.period(5_000).is_some() && !node.lease().is_superseded(5_000));
}

/// Other nodes may have rooms in what the engine had, or in what another one has.
#[test]
fn names_are_claimed_once_all_others_know_the_same_data_or_have_lapsed() {
    let start = || {
        let mut node = Ownership::new(ME, 0);
        node.renewed(1_000, view(&[OTHER]), 1_000);
        node.engine_ready(100, 1_000);
        assert_eq!(node.locate(&"k", 1_000), Place::Unknown);
        assert_eq!(node.take_actions(), [Action::Ask("k")], "no ping of the other node has arrived");
        node
    };
    let mut node = start();
    node.on_ping(OTHER, 0, 100, [], 1_100);
    assert_eq!(node.take_actions(), [Action::Found("k")]);
    assert!(node.lease().may_claim(1_100));
    // It has other data, and does not know of these; then it does.
    let mut node = start();
    for now in (1_100..9_000).step_by(1_000) {
        node.on_ping(OTHER, 999, 90, [], now);
        assert!(!node.lease().may_claim(now));
    }
    node.on_ping(OTHER, 8_500, 90, [], 9_000);
    // It may have been confirmed just before.
    let lapsed = 9_000 + CONFIRMED_TIMEOUT;
    node.on_ping(OTHER, 9_500, 90, [], lapsed - 1);
    assert!(!node.lease().may_claim(lapsed - 1) && node.lease().may_claim(lapsed));
    // It has none, and nothing of it arrives.
    let mut node = start();
    node.on_ping(OTHER, 0, 0, [], 1_100);
    assert!(node.lease().may_claim(1_100));
    let node = start();
    let silent = 1_000 + PING_TIMEOUT;
    assert!(!node.lease().may_claim(silent - 1) && node.lease().may_claim(silent));
}

/// The other node does not reach the engine, or another one, and goes on by the confirmations of nodes that
/// it knows.
#[test]
fn nothing_is_claimed_while_a_node_runs_that_does_not_know_this_one() {
    let mut node = Ownership::new(ME, 0);
    node.renewed(1_000, view(&[OTHER]), 1_000);
    node.engine_ready(100, 1_000);
    for now in (1_000..30_000).step_by(1_000) {
        node.renewed(now, view(&[OTHER]), now);
        node.proved_alive(OTHER, now);
        assert_eq!(node.locate(&"k", now), Place::Unknown);
        assert!(!node.take_actions().iter().any(|action| matches!(action, Action::Claim { .. })), "{now}");
        assert!(!node.lease().may_take_over(OTHER, now));
        assert_eq!(node.lease().unaware(now).collect::<Vec<_>>(), [(OTHER, now - 1_000)]);
    }
    let (mut ended, last) = (node.clone(), 29_000);
    // It knows this node once it pings, and if not, it has to have ended.
    node.on_ping(OTHER, 0, 100, [ME], last);
    assert!(node.lease().may_claim(last) && node.lease().unaware(last).next().is_none());
    let silent = last + PING_TIMEOUT;
    assert!(!ended.lease().may_claim(silent - 1) && ended.lease().may_claim(silent));
    assert_eq!(ended.lease().unaware(silent).next(), None);
    ended.ended(OTHER, last);
    assert!(ended.lease().may_claim(last));
}

/// The other node was known, and was cut off until its lease had ended.
#[test]
fn time_of_a_node_without_knowledge_of_this_one_begins_with_its_first_sign() {
    let mut node = ready(&[OTHER]);
    let unaware = |node: &Ownership<&str>, now| node.lease().unaware(now).collect::<Vec<_>>();
    let last_ping = 2_000;
    node.on_ping(OTHER, 0, 100, [ME], last_ping);
    let back = 16_000;
    assert_eq!(unaware(&node, back), []);
    for now in [back, back + 4_000, back + 8_000] {
        node.proved_alive(OTHER, now);
        assert_eq!(unaware(&node, now), [(OTHER, now - back)]);
    }
    let again = back + 8_000 + PING_TIMEOUT;
    node.proved_alive(OTHER, again);
    assert_eq!(unaware(&node, again), [(OTHER, 0)]);
    // It sends pings, and then none, though it runs.
    node.on_ping(OTHER, 0, 100, [ME], again + 1_000);
    let silent = again + 1_000 + PING_TIMEOUT;
    node.proved_alive(OTHER, silent - 1);
    assert_eq!(unaware(&node, silent - 1), []);
    assert_eq!(unaware(&node, silent), [(OTHER, PING_TIMEOUT)]);
}

/// The other node does not reach the engine, and this node does not reach it.
#[test]
fn nothing_is_claimed_while_a_node_runs_that_does_not_know_another() {
    let third = NodeId(3);
    let mut teller = ready(&[OTHER]);
    teller.proved_alive(third, 1_000);
    assert_eq!(teller.lease().named(1_000), [OTHER, third, third]);
    let mut node = Ownership::<&str>::new(ME, 0);
    node.renewed(1_000, view(&[OTHER, third]), 1_000);
    node.engine_ready(100, 1_000);
    let last = 20_000;
    for now in (1_000..=last).step_by(1_000) {
        node.on_ping(OTHER, 0, 100, [ME, third, third], now);
        node.renewed(now, view(&[OTHER]), now);
        assert!(!node.lease().may_claim(now) && !node.lease().may_take_over(third, now), "{now}");
        assert_eq!(node.lease().unaware(now).collect::<Vec<_>>(), [(third, now - 1_000)]);
        assert_eq!(node.lease().named(now), [OTHER], "only what a node found itself is named");
    }
    // Named once, it is but known.
    let over = last + PING_TIMEOUT;
    for now in (last + 500..over).step_by(500) {
        node.on_ping(OTHER, 0, 100, [ME, third], now);
        assert!(!node.lease().may_claim(now));
    }
    node.on_ping(OTHER, 0, 100, [ME, third], over);
    assert!(node.lease().may_claim(over) && node.lease().may_take_over(third, over));
}

/// The longest time is that of one that another node dialled just before it died, and reports since.
#[test]
fn room_of_a_dead_node_is_usable_after_thirteen_seconds_at_most() {
    let (third, died) = (NodeId(3), 20_000);
    let mut teller = ready(&[OTHER]);
    teller.proved_alive(third, died);
    let mut node = Ownership::new(OTHER, 0);
    node.renewed(1_000, view(&[ME, third]), 1_000);
    node.engine_ready(100, 1_000);
    let holder = Claim { node: third, number: 7 };
    let mut usable = None;
    for now in (died..).step_by(250).take_while(|now| *now <= died + 20_000) {
        if now % 1_000 == 0 {
            let named = teller.lease().named(now - 1);
            node.on_ping(ME, 0, 100, named, now);
            node.renewed(now, view(&[ME, third]), now);
        }
        node.tick(now);
        node.locate(&"k", now);
        for action in node.take_actions() {
            let Action::Claim { name, claim, over, .. } = action else { continue };
            let lease = (died + LEASE_TIMEOUT).saturating_sub(now);
            let is_free = over == Some(holder) && lease == 0;
            let result = if is_free { ClaimResult::Granted } else { ClaimResult::Held(holder, lease) };
            node.claim_answered(&name, claim, result, now);
        }
        if node.claim(&"k", now).is_some() {
            usable = Some(now - died);
            break;
        }
    }
    // The node that reported it has its last ping on the way a second later.
    assert!(usable.is_some_and(|time| (2 * PING_TIMEOUT..=12_000).contains(&time)), "{usable:?}");
}

/// The node may have started with an engine that does not answer this node, and that has lost its data.
#[test]
fn confirmations_count_no_more_when_an_unknown_process_runs_in_place_of_a_node() {
    let start = || {
        let mut node = ready(&[OTHER]);
        claim(&mut node, 1_000, ClaimResult::Granted);
        node.engine_failed(EngineFailure::Unreachable, 1_500);
        node.on_ping(OTHER, 2_900, 100, [], 3_000);
        node.take_actions();
        node
    };
    // The lease in the engine still lasts: the engine would not have given the name away.
    let (mut node, leased) = (start(), 1_000 + LEASE_TIMEOUT - LEASE_MARGIN);
    node.found_unknown(3_000);
    node.on_ping(OTHER, 3_100, 100, [], 3_200);
    assert_eq!(node.locate(&"k", leased - 1), Place::Here);
    node.tick(leased);
    assert_eq!(node.take_actions(), [Action::Close("k", LossCause::Lapsed)]);
    assert_eq!(node.period(leased), None);
    // It does not, and the next one begins a new period.
    let mut node = start();
    node.on_ping(OTHER, 4_000, 100, [], 4_100);
    assert_eq!(node.locate(&"k", 4_100), Place::Here);
    node.found_unknown(4_100);
    assert_eq!(node.take_actions(), [Action::Close("k", LossCause::Lapsed)]);
    // An answer that was on its way extends the lease in the engine, and lets no confirmation count again.
    let mut in_flight = node.clone();
    in_flight.renewed(4_050, view(&[OTHER]), 4_200);
    assert!(!in_flight.lease().confirms());
    in_flight.engine_failed(EngineFailure::Unreachable, 4_300);
    let leased = 4_050 + LEASE_TIMEOUT - LEASE_MARGIN;
    for now in (5_000..leased).step_by(500) {
        in_flight.on_ping(OTHER, now, 100, [], now);
        assert!(in_flight.period(now).is_some(), "{now}");
    }
    assert_eq!(in_flight.period(leased), None);
    node.renewed(4_200, view(&[OTHER]), 4_200);
    assert!(node.period(4_200).is_some());
    node.engine_failed(EngineFailure::Unreachable, 4_300);
    for now in (5_000..10_000).step_by(1_000) {
        node.on_ping(OTHER, now, 100, [], now);
        assert!(node.period(now).is_some(), "{now}");
    }
}

/// A room that exists stays open for those who reach a node that has lost the engine.
#[test]
fn other_nodes_are_asked_for_a_name_while_the_engine_is_away() {
    let mut node = ready(&[OTHER]);
    node.engine_failed(EngineFailure::Unreachable, 1_500);
    assert_eq!(node.locate(&"k", 1_600), Place::Unknown);
    assert_eq!(node.take_actions(), [Action::Ask("k")]);
    node.found_at(&"k", NodeId(3), 1_700);
    assert_eq!((node.locate(&"k", 1_700), node.take_actions()), (Place::Unknown, vec![]), "it is not linked");
    node.found_at(&"k", OTHER, 1_700);
    assert_eq!(node.take_actions(), [Action::Found("k")]);
    assert_eq!(node.locate(&"k", 1_700), Place::At(OTHER));
    // A name that no caller waits for, and one that the engine has given since.
    node.found_at(&"x", OTHER, 1_700);
    assert_eq!(node.take_actions(), []);
}

#[test]
fn draining_node_takes_no_more_names() {
    let mut node = ready(&[]);
    claim(&mut node, 1_000, ClaimResult::Granted);
    node.drain();
    assert_eq!(node.locate(&"k", 1_100), Place::Here);
    assert_eq!(node.locate(&"new", 1_100), Place::Draining);
}
