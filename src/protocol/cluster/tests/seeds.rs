//! The simulation with many seeds.

use super::super::lease::DisabledRules;
use super::engine::DisabledScripts;
use super::simulation::{ClusterSimulation, Disabled};

/// Number of seeds, or that of the environment: thousands by hand.
fn seeds(default: u64) -> u64 {
    std::env::var("SIGVER_CLUSTER_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(default)
}

#[test]
fn at_most_one_claim_decides_about_a_name_at_once() {
    let (mut decided, mut given_up, mut found) = (0, 0, Vec::new());
    for seed in 0..seeds(200) {
        let run = ClusterSimulation::run(seed, Disabled::default());
        let conflicts = run.conflicts();
        if !conflicts.is_empty() {
            println!("seed {seed}: {conflicts:?}\n{}", run.faults.join("\n"));
            found.push(seed);
        }
        (decided, given_up) = (decided + run.decided, given_up + run.given_up);
    }
    assert!(found.is_empty(), "{} seeds with conflicts: {found:?}", found.len());
    // The simulation would be worthless if it decided nothing.
    assert!(given_up < decided, "{given_up} of {decided} joins were given up");
    println!("{decided} joins decided, {given_up} given up");
}

/// With a replica that has data from before, two nodes may have one name, and not for longer than the faults
/// last.
#[test]
fn claims_of_faults_that_are_not_covered_end_with_them() {
    let mut with_conflicts = 0;
    for seed in 0..seeds(200) {
        let (run, had_conflicts) = ClusterSimulation::run_uncovered(seed);
        with_conflicts += u64::from(had_conflicts);
        assert!(run.conflicts().is_empty(), "seed {seed}: {:?}\n{}", run.conflicts(), run.faults.join("\n"));
        assert!(run.decides_about_all(), "seed {seed}: no node has a name\n{}", run.faults.join("\n"));
    }
    assert!(with_conflicts > 0, "what is excluded could be covered");
    println!("{with_conflicts} runs with conflicts while the faults lasted");
}

/// The engine answers a node that has started meanwhile: what it knows of the others is that they run.
#[test]
fn nodes_that_run_keep_their_names_also_when_the_engine_has_forgotten_them() {
    let departed = Disabled { departed: true, found: true, ..Disabled::default() };
    let found = Disabled { found: true, ..Disabled::default() };
    let (mut without_departed, mut without_found) = (0, 0);
    for seed in 0..seeds(20) {
        let conflicts = |disabled| ClusterSimulation::run_until_forgotten(seed, disabled).conflicts();
        let with_all = conflicts(Disabled::default());
        assert!(with_all.is_empty(), "seed {seed}: {with_all:?}");
        without_departed += u64::from(!conflicts(departed).is_empty());
        without_found += u64::from(!conflicts(found).is_empty());
    }
    println!("conflicts: {without_departed} without departed nodes, {without_found} without found ones");
    assert!(without_found > 0 && without_departed > without_found, "a rule is not necessary");
}

/// Two rules have only tests of their own, as no seed of the first thousands has the faults that need them:
/// that of nodes which others report, and that of claims which one generation did not have.
#[test]
fn each_rule_is_necessary() {
    let lease = |lease| Disabled { lease, ..Disabled::default() };
    let scripts = |scripts| Disabled { scripts, ..Disabled::default() };
    let rules = [
        ("period", 50, lease(DisabledRules { period: true, ..Default::default() })),
        ("ping_timeout", 1, lease(DisabledRules { ping_timeout: true, ..Default::default() })),
        ("generation", 6, lease(DisabledRules { generation: true, ..Default::default() })),
        ("superseded", 7, lease(DisabledRules { superseded: true, ..Default::default() })),
        ("informed", 60, lease(DisabledRules { informed: true, ..Default::default() })),
        ("alive", 52, lease(DisabledRules { alive: true, ..Default::default() })),
        ("unknown", 48, lease(DisabledRules { unknown: true, ..Default::default() })),
        ("others", 90, lease(DisabledRules { others: true, ..Default::default() })),
        ("refused", 34, lease(DisabledRules { refused: true, ..Default::default() })),
        ("kept", 138, lease(DisabledRules { kept: true, ..Default::default() })),
        ("process", 11, scripts(DisabledScripts { process: true, ..Default::default() })),
        ("grace", 4, scripts(DisabledScripts { grace: true, ..Default::default() })),
        ("clock", 6, scripts(DisabledScripts { clock: true, ..Default::default() })),
    ];
    let mut missing = Vec::new();
    for (name, known, disabled) in rules {
        // The one that is known first: a change of the simulation may need another.
        let found = std::iter::once(known)
            .chain(0..seeds(500))
            .find(|seed| !ClusterSimulation::run(*seed, disabled).conflicts().is_empty());
        println!("without {name}: seed {found:?}");
        missing.extend(found.is_none().then_some(name));
    }
    assert!(missing.is_empty(), "no seed finds anything without one of the rules {missing:?}");
}
