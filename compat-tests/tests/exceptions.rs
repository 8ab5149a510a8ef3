//! `exceptions.toml` can be read, names only what exists, and has the ids that the documentation has.

#![cfg(test)]

use std::collections::BTreeSet;

use compat_tests::exceptions::{Exceptions, documented_ids};
use compat_tests::goldens;

#[test]
fn the_documentation_lists_the_same_ids() {
    let exceptions = Exceptions::read(&goldens::root().join("exceptions.toml")).unwrap();
    let path = goldens::root().join("../docs/reference/differences.md");
    let Ok(text) = std::fs::read_to_string(&path) else {
        assert_eq!(
            exceptions.ids(),
            BTreeSet::new(),
            "listed, but there is no docs/reference/differences.md"
        );
        return;
    };
    assert_eq!(
        exceptions.ids(),
        documented_ids(&text),
        "exceptions.toml (left) and docs/reference/differences.md (right)"
    );
}

#[test]
fn every_entry_names_versions_and_scenarios_that_exist() {
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
fn what_is_tested_elsewhere_is() {
    let exceptions = Exceptions::read(&goldens::root().join("exceptions.toml")).unwrap();
    for entry in exceptions.elsewhere() {
        let path = goldens::root().join("..").join(&entry.test);
        assert!(path.is_file(), "{}: no {}", entry.id, entry.test);
    }
}
