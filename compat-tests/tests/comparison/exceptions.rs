//! Tests of `exceptions.toml`: it parses, names only versions and scenarios that exist, and has the
//! documentation's ids.

use std::collections::BTreeSet;

use compat_tests::exceptions::{Exceptions, documented_ids};
use compat_tests::goldens;

#[test]
fn documentation_lists_the_same_ids() {
    let exceptions = Exceptions::read(&goldens::root().join("exceptions.toml")).unwrap();
    let text = std::fs::read_to_string(goldens::root().join("../docs/reference/differences.md")).unwrap();
    assert_eq!(
        exceptions.ids(),
        documented_ids(&text),
        "exceptions.toml (left) and docs/reference/differences.md (right)"
    );
}

#[test]
fn entries_name_existing_versions_and_scenarios() {
    let exceptions = Exceptions::read(&goldens::root().join("exceptions.toml")).unwrap();
    for entry in exceptions.entries() {
        let mut scenarios = BTreeSet::new();
        for version in &entry.versions {
            goldens::Original::find(version).unwrap();
            scenarios.extend(goldens::load(&goldens::dir(), version).unwrap().into_iter().map(|s| s.name));
        }
        for scenario in &entry.scenarios {
            assert!(scenarios.contains(scenario), "{}: no scenario {scenario}", entry.id);
        }
    }
}

#[test]
fn tests_named_in_the_list_exist() {
    let exceptions = Exceptions::read(&goldens::root().join("exceptions.toml")).unwrap();
    for test in exceptions.elsewhere() {
        assert!(goldens::root().join("..").join(test).is_file(), "no {test}");
    }
}
