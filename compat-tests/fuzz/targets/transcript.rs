//! Transcripts: those that are read, printed and read again are the same; the tools that compare take any.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sigver::fuzzing::compare::{self, ComparisonOrder, ComparisonRules};
use sigver::fuzzing::{script, transcript};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(scenarios) = transcript::parse(text) else { return };
    let printed = transcript::print(&scenarios).expect("what was read can be printed");
    let again = transcript::parse(&printed).expect("what was printed can be read");
    assert_eq!(scenarios, again);
    for scenario in &scenarios {
        let _ = script::steps(scenario);
        let rules = ComparisonRules {
            tolerance: 100,
            interchangeable: &[],
            order: ComparisonOrder::for_scenario(Default::default(), scenario),
            explain: true,
        };
        let _ = compare::compare(scenario, scenario, rules);
    }
});
