//! The dependencies between the modules of `src`, as ARCHITECTURE.md draws them, read off the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Module → modules that it may use in addition to its own. The longest prefix of a file's module path
/// decides.
const MAY_USE: [(&str, &[&str]); 23] = [
    (
        "bridge",
        &["protocol::mesh", "protocol::token_bucket", "config", "logging", "socket_user", "system_memory"],
    ),
    ("protocol::cluster", &[]),
    ("protocol::frame", &[]),
    ("protocol::model", &[]),
    ("protocol::dialect", &["protocol::frame", "protocol::model"]),
    ("protocol::detect", &["protocol::dialect", "protocol::frame", "protocol::model"]),
    ("protocol::mesh", &["protocol::token_bucket"]),
    ("protocol::room", &["protocol::model"]),
    ("protocol::signaller", &["protocol::frame"]),
    ("protocol::token_bucket", &[]),
    ("server", &["protocol", "config", "socket_user", "system_memory", "text_table"]),
    (
        "tools",
        &[
            "bridge",
            "protocol::dialect",
            "protocol::detect",
            "protocol::frame",
            "server",
            "config",
            "cli",
            "output",
            "socket_user",
            "text_table",
        ],
    ),
    // What plays and compares must not use what it tries; opening a connection and splitting protobuf are no
    // codec.
    ("tools::dial", &["config::redact"]),
    ("tools::replay", &["tools::dial", "tools::protobuf", "output"]),
    ("tools::replay::cli", &["tools", "output"]),
    ("tools::replay::record_cli", &["tools", "output"]),
    ("cli", &["config"]),
    ("logging", &["config", "server::telemetry"]),
    ("output", &[]),
    ("socket_user", &[]),
    ("system_memory", &[]),
    ("text_table", &[]),
    ("config", &["protocol::detect", "protocol::dialect", "protocol::signaller"]),
];

/// Modules that may use nothing of the crate but themselves.
const ALONE: [&str; 1] = ["tools::protobuf"];

/// Modules of one parent that are in circles, each with the reason.
const CIRCLES: [(&str, &[&str], &str); 1] = [(
    "protocol::dialect::release",
    &["dialect_rows", "facts", "release_rows"],
    "a dialect names its release, which names its dialect",
)];

/// Public modules with the path by which code outside `src` names them, where that is another one.
const EXPORTED_AS: [(&str, &str); 1] = [("protocol::dialect::json::sse_codec", "protocol::dialect::sse")];

/// The program with its notifications, the crate's first page, and what fuzz targets see of it.
const ROOTS: [&str; 4] = ["lib", "main", "service_manager", "fuzzing"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("node_modules") {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The module path of a source file below `src`.
fn module_of(file: &Path) -> Vec<String> {
    let mut path: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if path.last().is_some_and(|last| last == "mod") {
        path.pop();
    }
    path
}

/// Every path below the crate that `source`, a file of the module `module`, names: `crate::…` and `super::…`,
/// single or in braces. A path is cut behind its first item that is no module (a capital letter).
fn uses(module: &[String], source: &str) -> BTreeSet<String> {
    let code: Vec<&str> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            expand(&[], &code[at + "crate::".len()..], &mut found);
        }
    }
    // A `super` inside an inline module (the tests at the end of a file) reaches one level less than named.
    let inline = code.find("\nmod tests {").unwrap_or(code.len());
    for (at, _) in code.match_indices("super::") {
        if code[..at].ends_with("super::") || code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
        {
            continue;
        }
        let mut base = module.to_vec();
        let mut rest = &code[at..];
        let mut levels = 0;
        while let Some(further) = rest.strip_prefix("super::") {
            levels += 1;
            rest = further;
        }
        if at > inline {
            levels -= 1;
        }
        base.truncate(base.len().saturating_sub(levels));
        expand(&base, rest, &mut found);
    }
    found
}

fn expand(base: &[String], rest: &str, found: &mut BTreeSet<String>) {
    let word: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if let Some(list) = rest.strip_prefix('{') {
        let (mut depth, mut start) = (0, 0);
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                ',' if depth == 0 => {
                    expand(base, list[start..at].trim_start(), found);
                    start = at + 1;
                }
                '}' if depth == 0 => {
                    expand(base, list[start..at].trim_start(), found);
                    break;
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
    } else if rest.starts_with('*') {
        found.insert(base.join("::"));
    } else if !word.is_empty() && word != "self" {
        let mut path = base.to_vec();
        path.push(word.clone());
        match rest[word.len()..].strip_prefix("::") {
            Some(further) if word.starts_with(|c: char| c.is_lowercase()) => expand(&path, further, found),
            _ => {
                found.insert(path.join("::"));
            }
        }
    }
}

fn is_in(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The rule for a module: the most special one.
fn rule(module: &str) -> Option<(&'static str, &'static [&'static str])> {
    let alone = ALONE.into_iter().map(|name| (name, &[][..]));
    let all = MAY_USE.into_iter().chain(alone);
    all.filter(|(name, _)| is_in(module, name)).max_by_key(|(name, _)| name.len())
}

#[test]
fn modules_depend_as_drawn() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&root).unwrap();
        let path = module_of(inside);
        let module = path.join("::");
        if ROOTS.contains(&module.as_str()) || module == "protocol" {
            continue;
        }
        let Some((own, may)) = rule(&module) else {
            wrong.push(format!("{} is of no listed module", inside.display()));
            continue;
        };
        for used in uses(&path, &fs::read_to_string(&file).unwrap()) {
            let wing = module.split("::").next().unwrap();
            if used != wing && !is_in(&used, own) && !may.iter().any(|may| is_in(&used, may)) {
                wrong.push(format!("{} uses {used}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "against the drawing in ARCHITECTURE.md:\n{}", wrong.join("\n"));
}

/// The modules of the crate without tests, each with the modules and items that it uses: where they are
/// defined, and not where they are exported again.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let (mut used, mut exports) = (BTreeMap::new(), BTreeMap::new());
    for file in files {
        let path = module_of(file.strip_prefix(&root).unwrap());
        let module = path.join("::");
        let is_test =
            |part: &String| part == "tests" || part.starts_with("test_") || part.ends_with("_tests");
        if ROOTS.contains(&module.as_str()) || path.iter().any(is_test) {
            continue;
        }
        let source = fs::read_to_string(&file).unwrap();
        let code = source.split("\nmod tests {").next().unwrap();
        for (at, start) in code.match_indices("\npub") {
            let statement = code[at + start.len()..].split(';').next().unwrap();
            let Some((visibility, list)) = statement.split_once(" use ") else { continue };
            if !(visibility.is_empty() || visibility.starts_with('(') && visibility.ends_with(')')) {
                continue;
            }
            let mut targets = uses(&path, list);
            if targets.is_empty() {
                expand(&path, list, &mut targets);
            }
            for target in targets {
                let name = target.rsplit("::").next().unwrap();
                exports.insert(format!("{module}::{name}"), target);
            }
        }
        used.insert(module, uses(&path, code));
    }
    let origin = |mut path: String| {
        while let Some(target) = exports.get(&path).filter(|target| **target != path) {
            path.clone_from(target);
        }
        path
    };
    used.into_iter().map(|(module, paths)| (module, paths.into_iter().map(origin).collect())).collect()
}

#[test]
fn sibling_modules_form_no_circles() {
    let dependencies = dependencies();
    // Parent → child → the other children that it uses.
    let mut uses: BTreeMap<String, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for (module, paths) in &dependencies {
        for path in paths {
            let (own, other): (Vec<_>, Vec<_>) = (module.split("::").collect(), path.split("::").collect());
            let shared = own.iter().zip(&other).take_while(|(one, two)| one == two).count();
            if let (Some(one), Some(two)) = (own.get(shared), other.get(shared))
                && dependencies.keys().any(|module| is_in(module, &other[..=shared].join("::")))
            {
                uses.entry(own[..shared].join("::")).or_default().entry(one).or_default().insert(two);
            }
        }
    }
    let mut circles = BTreeMap::new();
    for (parent, uses) in &uses {
        let reaches_itself = |child: &&str| {
            let (mut reached, mut open) = (BTreeSet::new(), vec![*child]);
            while let Some(next) = open.pop() {
                open.extend(uses.get(next).into_iter().flatten().filter(|used| reached.insert(**used)));
            }
            reached.contains(child)
        };
        let found: Vec<&str> = uses.keys().copied().filter(reaches_itself).collect();
        if !found.is_empty() {
            circles.insert(parent.as_str(), found);
        }
    }
    let expected = CIRCLES.into_iter().map(|(parent, children, _)| (parent, children.to_vec())).collect();
    assert_eq!(circles, expected, "move what both sides use to a module of its own, or mend CIRCLES");
}

/// Code that uses the crate: tests, tools, the program, and the examples of the crate's first page.
fn code_outside() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("src/main.rs"), root.join("src/service_manager.rs")];
    for folder in ["tests", "compat-tests"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, &mut files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let mut code: Vec<String> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let first_page = fs::read_to_string(root.join("src/lib.rs")).unwrap();
    code.extend(first_page.lines().filter_map(|line| line.strip_prefix("//! ")).map(str::to_owned));
    code.join("\n")
}

/// Types can be in the signatures of others; a module, a function or a constant is public for who names it.
#[test]
fn public_modules_functions_and_constants_are_used_outside() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let outside = code_outside();
    let named = uses(
        &[],
        &outside.replace("crate::", "own::").replace("super::", "own::").replace("sigver::", "crate::"),
    );
    let words: BTreeSet<&str> = outside.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let mut files = Vec::new();
    sources(&root, &mut files);
    let (mut unused, mut seen) = (Vec::new(), 0);
    for file in files {
        let path = module_of(file.strip_prefix(&root).unwrap());
        let parent = if path == ["lib"] { &[][..] } else { &path[..] };
        for line in fs::read_to_string(&file).unwrap().lines() {
            let Some(item) = line.strip_prefix("pub ") else { continue };
            let item = item.trim_start_matches("async ");
            let item = item.strip_prefix("const ").filter(|rest| rest.starts_with("fn ")).unwrap_or(item);
            let Some((kind, rest)) = item.split_once(' ') else { continue };
            let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            let is_used = match kind {
                "mod" => {
                    let module = [parent, &[name.to_owned()]].concat().join("::");
                    let exported = EXPORTED_AS.iter().find(|(inside, _)| *inside == module);
                    let module = exported.map_or(module.as_str(), |(_, outside)| outside);
                    named.iter().any(|path| is_in(path, module))
                }
                // The documentation of `Config` names its defaults.
                "const" if path.first().is_some_and(|module| module == "config") => continue,
                "fn" | "const" | "static" => words.contains(name),
                _ => continue,
            };
            seen += 1;
            if !is_used {
                unused.push(format!("{}: {line}", file.strip_prefix(&root).unwrap().display()));
            }
        }
    }
    assert!(seen > 100, "only {seen} public items are seen");
    assert!(
        unused.is_empty(),
        "only the crate uses these, make them private or pub(crate):\n{}",
        unused.join("\n")
    );
}

/// The comparison with the original servers has from the gateway only what plays and compares, which has
/// nothing from the rest; benches also have what measures. The counts of instructions look into every layer
/// that a message goes through. The tests of a cluster start its nodes, and compare them with one server.
#[test]
fn the_comparison_does_not_use_what_it_tries() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat-tests");
    // Of the folders that contain a file, the last one counts.
    let folders = [
        // One writer of frames is enough: it is not what is compared.
        ("src", &["tools::bench::frame"][..]),
        // Clients for a load are peers of the mesh, too: they count messages, and compare nothing.
        ("src/bin/bridge-load", &["protocol::mesh"]),
        (
            "src/bin/cluster",
            &[
                "Config",
                "Gateway",
                "config::EngineUrl",
                "config::RoomPolicy",
                "protocol::cluster",
                "server::cluster",
                "server::fd_limit",
                "tools::bench",
                "tools::client",
                "tools::dial",
                "tools::matrix",
            ],
        ),
        ("tests", &[]),
        ("benches", &["tools::bench", "server::fd_limit"]),
        ("hotpath/src", &["tools", "server", "protocol", "config"]),
        ("hotpath/tests", &["tools", "server", "protocol", "config"]),
    ];
    for (folder, more) in folders {
        let mut files = Vec::new();
        sources(&root.join(folder), &mut files);
        assert!(!files.is_empty(), "{folder} has no sources");
        let last = |file: &Path| folders.iter().rfind(|(other, _)| file.starts_with(root.join(other)));
        files.retain(|file| last(file).is_some_and(|(other, _)| *other == folder));
        for file in files {
            let source =
                fs::read_to_string(&file).unwrap().replace("crate::", "own::").replace("sigver::", "crate::");
            let source = source.replace("super::", "own::");
            let used = uses(&[], &source);
            let allowed = ["tools::replay", "tools::protobuf"];
            let may = |path: &String| {
                allowed.iter().any(|module| is_in(path, module))
                    || more.iter().any(|module| is_in(path, module))
            };
            assert!(used.iter().all(may), "{} uses {used:?}", file.display());
        }
    }
}

#[test]
fn every_form_of_use_is_seen() {
    let source = "// crate::not\nuse crate::a::B;\nuse crate::{c, d::{E, F}, g::*};\nfn f() { crate::h::i() }\npub(in crate::j) x\n\
                  use super::k::L;\nuse super::super::{m, n::O};\nmod tests {\n    use super::*;\n    use super::super::p::Q;\n}";
    let expected = [
        "a::B",
        "c",
        "d::E",
        "d::F",
        "g",
        "h::i",
        "j",
        "s::t::k::L",
        "s::m",
        "s::n::O",
        "s::t::p::Q",
        "s::t::u",
    ];
    let module = ["s", "t", "u"].map(str::to_owned);
    assert_eq!(uses(&module, source), BTreeSet::from(expected.map(str::to_owned)));
}
