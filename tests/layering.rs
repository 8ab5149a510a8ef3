//! The modules depend on one another as `src/lib.rs` says: read off the `use crate::` lines and paths.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Module → modules it may use. A module that is not listed fails the test.
const MAY_USE: [(&str, &[&str]); 19] = [
    ("frame", &[]),
    ("model", &[]),
    ("config", &[]),
    ("cli", &["config"]),
    ("dialect", &["frame", "model"]),
    ("negotiate", &["dialect", "frame", "model"]),
    ("router", &["model"]),
    ("hub", &["model", "router"]),
    ("transport", &["frame"]),
    ("conn", &["dialect", "frame", "hub", "model", "negotiate", "signaller", "telemetry", "transport"]),
    ("telemetry", &["dialect", "model", "negotiate"]),
    ("signaller", &["config", "frame", "transport"]),
    ("server", &["config", "conn", "dialect", "frame", "negotiate", "signaller", "telemetry", "transport"]),
    ("compat", &["dialect", "replay"]),
    ("bench", &["compat", "descriptors", "dialect"]),
    ("descriptors", &[]),
    // What it plays and compares must not come from what it tries.
    ("replay", &[]),
    (
        "tools",
        &[
            "bench",
            "compat",
            "config",
            "conn",
            "dialect",
            "hub",
            "negotiate",
            "replay",
            "server",
            "signaller",
            "telemetry",
        ],
    ),
    ("lib", &[]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The modules named after `crate::` in a source, single (`crate::a::B`) or in braces (`crate::{a::B, c}`).
fn uses(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let code: Vec<&str> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let name = |text: &str| -> String {
            text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        match rest.strip_prefix('{') {
            None => {
                found.insert(name(rest));
            }
            Some(list) => {
                let mut depth = 0;
                let mut item = String::new();
                for c in list.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            found.insert(name(&item));
                            item.clear();
                            continue;
                        }
                        _ => {}
                    }
                    item.push(c);
                }
                found.insert(name(&item));
            }
        }
    }
    found.remove("");
    found
}

#[test]
fn modules_depend_as_drawn() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.into_iter().collect();
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&root).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if module == "main" {
            continue;
        }
        let Some(may) = allowed.get(module) else {
            wrong.push(format!("{} is of no listed module", inside.display()));
            continue;
        };
        for used in uses(&fs::read_to_string(&file).unwrap()) {
            if used != module && !may.contains(&used.as_str()) {
                wrong.push(format!("{} uses {used}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "against the drawing in src/lib.rs:\n{}", wrong.join("\n"));
}

/// What the counts of instructions look into: the layers that a message goes through.
const HOT: [&str; 11] = [
    "bench",
    "compat",
    "config",
    "conn",
    "dialect",
    "frame",
    "hub",
    "model",
    "negotiate",
    "telemetry",
    "transport",
];

/// The comparison with the originals has from the gateway only what plays and compares, which has nothing from the rest;
/// benches also have what measures, whose clients know no more of the gateway than the names of dialects.
#[test]
fn the_comparison_does_not_ask_what_it_tries() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat-tests");
    for (folder, more) in [
        ("src", &[][..]),
        ("tests", &[]),
        ("benches", &["bench", "descriptors"]),
        ("hotpath/src", &HOT),
        ("hotpath/tests", &HOT),
    ] {
        let mut files = Vec::new();
        sources(&root.join(folder), &mut files);
        assert!(!files.is_empty(), "{folder} has no sources");
        for file in files {
            let source =
                fs::read_to_string(&file).unwrap().replace("crate::", "own::").replace("sigver::", "crate::");
            let used = uses(&source);
            let may = |module: &String| module == "replay" || more.contains(&module.as_str());
            assert!(used.iter().all(may), "{} uses {used:?}", file.display());
        }
    }
}

#[test]
fn every_form_of_use_is_seen() {
    let source = "// crate::not\nuse crate::a::B;\nuse crate::{c, d::{E, F}, g::*};\nfn f() { crate::h::i() }\npub(in crate::j) x";
    let expected = ["a", "c", "d", "g", "h", "j"].map(str::to_owned);
    assert_eq!(uses(source), BTreeSet::from(expected));
}
