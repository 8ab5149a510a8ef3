//! The documentation agrees with the program and the files that it quotes, and its links lead somewhere.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sigver::Config;
use sigver::protocol::dialect::Release;
use sigver::server::telemetry::LimitKind;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn configuration_reference_is_that_of_the_program() {
    assert!(
        read("docs/reference/configuration.md").contains(&sigver::cli::markdown()),
        "docs/reference/configuration.md does not have the tables that 'sigver options' prints"
    );
}

/// Rows of the table of limits in the reference, which is that of the program: the long name of the option,
/// its default, the consequence, and the names under which it is counted.
fn limit_options() -> Vec<(String, String, String, Vec<String>)> {
    let reference = sigver::cli::markdown();
    let table = reference.split("\n## ").find(|part| part.starts_with("Limits\n")).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `--"));
    let rows = rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [option, _, default, _, exceeded, counted] = cells[..] else { panic!("{row}") };
        let long = option.trim_start_matches("| `").split(' ').next().unwrap();
        let counted =
            counted.trim_end_matches(" |").split(", ").map(|name| name.trim_matches('`').to_owned());
        (long.to_owned(), default.to_owned(), exceeded.to_owned(), counted.collect())
    });
    rows.collect()
}

#[test]
fn every_limit_has_a_default_a_consequence_a_metric_and_a_line_about_its_purpose() {
    let security = read("SECURITY.md");
    let table = security.split("| limit | counted as |").nth(1).unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).collect();
    let kinds: Vec<&str> = LimitKind::all().iter().map(|kind| kind.name()).collect();
    let options = limit_options();
    assert!(options.len() >= 16, "{options:?}");
    for (option, default, exceeded, counted) in &options {
        assert!(!default.is_empty() && !exceeded.is_empty() && !counted.is_empty(), "{option}");
        assert!(counted.iter().all(|name| kinds.contains(&&**name)), "{option}: {counted:?} is no metric");
        let purpose = rows.iter().find(|row| row.contains(&format!("`{option}`")));
        let purpose = purpose.unwrap_or_else(|| panic!("SECURITY.md has no row of {option}"));
        assert!(counted.iter().all(|name| purpose.contains(&format!("`{name}`"))), "{option}: {purpose}");
    }
    for kind in kinds {
        let row = rows.iter().find(|row| row.contains(&format!("`{kind}`")));
        assert!(row.is_some(), "SECURITY.md has no row of the limit {kind}");
        assert!(read("docs/reference/status-json.md").contains(&format!("`{kind}`")), "{kind}");
    }
}

#[test]
fn limits_of_the_readme_are_the_defaults() {
    let (readme, config) = (read("README.md"), Config::default());
    let seconds = |duration: Duration| format!("{} s", duration.as_secs());
    let megabytes = |bytes: usize| format!("{} MiB", bytes >> 20);
    assert_eq!(config.limits.tls_timeout, config.limits.head_timeout);
    for (limit, default) in [
        ("message (`--max-message`)", megabytes(config.max_message)),
        ("queue to a slow client (`--max-pending`)", megabytes(config.max_pending)),
        ("a begun message; a client that reads nothing", seconds(config.stall_timeout) + " each"),
        ("idle client", seconds(config.ping_after) + ", then a ping"),
        (
            "TLS handshake, request head (`--tls-timeout`, `--head-timeout`)",
            seconds(config.limits.tls_timeout) + " each",
        ),
        ("first frame (`--first-frame-timeout`, without a path)", seconds(config.detection.first_frame)),
    ] {
        let row = format!("| {limit} | {default} |");
        assert!(readme.contains(&row), "README.md has not: {row}");
    }
}

#[test]
fn worst_case_of_one_connection_is_that_of_the_defaults() {
    let config = Config::default();
    // A begun message, twice that while it is decoded, and the queue.
    let megabytes = (3 * config.max_message + config.max_pending) >> 20;
    let reference = read("docs/reference/configuration.md");
    assert!(reference.contains(&format!("with the defaults about {megabytes} MiB")));
}

#[test]
fn every_way_to_stop_waits_for_the_longest_shutdown() {
    // The drain, and the close handshakes of the last.
    let longest = Config::default().drain_timeout.as_secs() + 7;
    assert!(read("README.md").contains(&format!("after {longest} seconds at most")));
    let migrate = read("docs/howto/migrate.md");
    assert!(migrate.contains(&format!("covers the {longest} seconds that a shutdown may take")));
    for (file, before) in [
        ("docs/howto/migrate.md", "kill_timeout: "),
        ("docs/howto/deploy-systemd.md", "TimeoutStopSec="),
        ("packaging/sigver.service", "TimeoutStopSec="),
        ("docs/howto/deploy-docker.md", "docker stop -t "),
        ("docs/howto/deploy-docker.md", "--stop-timeout "),
    ] {
        let text = read(file);
        let number = text.split(before).nth(1).unwrap();
        let number: String = number.chars().take_while(char::is_ascii_digit).collect();
        let number: u64 = number.parse().unwrap();
        let seconds = if before.starts_with("kill") { number / 1000 } else { number };
        assert!(seconds > longest, "{file}: {before}{number}");
    }
}

#[test]
fn docker_recipe_is_the_dockerfile() {
    let file = read("Dockerfile");
    let instructions: Vec<&str> = file.lines().filter(|line| !line.starts_with('#')).collect();
    let instructions = instructions.join("\n");
    assert!(
        read("docs/howto/deploy-docker.md").contains(&format!("```dockerfile\n{instructions}\n```")),
        "{instructions}"
    );
}

#[test]
fn systemd_units_are_those_of_the_packages() {
    let document = read("docs/howto/deploy-systemd.md");
    for name in ["sigver.service", "sigver.socket", "sigver-bridge.service"] {
        let unit = &format!("packaging/{name}");
        assert!(document.contains(&format!("```ini\n{}```", read(unit))), "{unit} is not quoted as it is");
    }
}

#[test]
fn versions_of_packages_are_that_of_the_program() {
    let package: serde_json::Value = serde_json::from_str(&read("packaging/npm/package.json")).unwrap();
    assert_eq!(package["version"], env!("CARGO_PKG_VERSION"));
}

/// The exposure by the reckoning of systemd, whose program may not be on the machine.
#[cfg(target_os = "linux")]
#[test]
fn units_are_confined() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let units = ["sigver.service", "sigver-bridge.service"].map(|name| folder.join(name));
    let analysis = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=20", "--no-pager"])
        .args(units)
        .output();
    match analysis {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("skipped: there is no systemd-analyze")
        }
        Err(error) => panic!("{error}"),
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
    }
}

#[test]
fn close_codes_are_those_of_the_program() {
    let (source, document) =
        (read("src/protocol/dialect/close_frame.rs"), read("docs/reference/close-codes.md"));
    let closes = source.split("Close::new(").skip(1).filter_map(|rest| rest.split_once("\")"));
    let closes: Vec<(&str, &str)> = closes.filter_map(|(close, _)| close.split_once(", \"")).collect();
    let literal = |code: &&(&str, &str)| code.0.parse::<u16>().is_ok();
    assert!(closes.iter().filter(literal).count() >= 4, "{closes:?}");
    for (code, text) in closes.iter().filter(literal) {
        assert!(document.contains(code) && document.contains(text), "{code} {text} is not in close-codes.md");
    }
}

#[test]
fn restart_table_is_that_of_the_browser_test() {
    let (source, document) =
        (read("compat-tests/clients/lib/restart.mjs"), read("docs/reference/restart.md"));
    let rows = source.lines().filter_map(|line| line.trim().strip_prefix('\'')?.split_once("': ["));
    let mut versions = 0;
    for (version, known) in rows {
        let line = document.lines().find(|line| line.starts_with(&format!("| {version} |"))).unwrap();
        let cells: Vec<&str> = line.split('|').skip(2).map(str::trim).collect();
        let known = known.trim_end_matches(',').trim_end_matches(']').split(", ");
        for (cell, known) in cells.iter().zip(known.map(|word| word.trim_matches('\''))) {
            let word = if known == "returns" { "back after" } else { known };
            assert!(cell.contains(word), "netflux {version}: {cell} in the table, {known} in the test");
        }
        versions += 1;
    }
    assert_eq!(versions, 9);
}

/// The raw answers of a Node.js release to HTTP requests, as recorded.
fn recorded_answers(version: &str) -> HashMap<String, String> {
    let mut answers = HashMap::new();
    let names = ["", "-extra", "-timed"].map(|part| format!("compat-tests/golden/{version}{part}.jsonl"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in names.iter().filter(|name| root.join(name).exists()) {
        for line in read(name).lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            if text("dir") == "raw-recv" {
                answers.insert(text("peer"), text("text"));
            }
        }
    }
    answers
}

fn recorded_versions() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat-tests/golden");
    let names =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter_map(|name| name.strip_suffix(".jsonl").map(str::to_owned))
        .filter(|n| !n.contains('-'))
        .collect()
}

/// Releases of which only tags exist: there was no server to record.
const NEVER_ON_NPM: [&str; 3] = ["9.0.1", "12", "15.0.0"];

#[test]
fn every_release_on_npm_is_recorded() {
    let mut recorded = recorded_versions();
    recorded.extend(NEVER_ON_NPM.map(str::to_owned));
    let versions = Release::ALL.map(Release::version);
    let missing: Vec<&str> =
        versions.into_iter().filter(|version| !recorded.iter().any(|known| known == version)).collect();
    assert!(missing.is_empty(), "compat-tests/golden has no recording of {missing:?}");
    assert_eq!(recorded.len(), versions.len(), "{recorded:?}");
}

#[test]
fn differences_of_http_are_as_recorded() {
    for version in recorded_versions() {
        let major: u32 = version.split('.').next().unwrap().parse().unwrap();
        let answers = recorded_answers(&version);
        let get = answers.get("GET /").map_or("", |answer| answer.split("\r\n").next().unwrap());
        let expected = match major {
            ..=7 => "HTTP/1.1 426 Upgrade Required",
            8..=11 => "HTTP/1.1 200 OK",
            _ => "",
        };
        assert_eq!(get, expected, "C20, sigver {version}");
        let compressed = answers["upgrade +deflate"].contains("permessage-deflate");
        assert_eq!(compressed, major <= 10, "C101, sigver {version}");
        let whole_list = answers["upgrade +protocols"].contains("Sec-WebSocket-Protocol: aaa, bbb");
        assert_eq!(whole_list, (8..=16).contains(&major), "C100, sigver {version}");
    }
}

#[test]
fn numbers_of_recordings_are_right() {
    let versions = recorded_versions();
    let document = read("docs/explanation/verification.md");
    let releases = format!("from the {} releases on npm", versions.len());
    assert!(document.contains(&releases), "{releases}");
    assert!(
        read("docs/reference/differences.md").contains(&format!("the {} releases on npm", versions.len()))
    );
}

#[test]
fn socket_of_status_has_one_place() {
    let documents = [read("docs/reference/status-json.md"), read("docs/reference/configuration.md")];
    for document in documents {
        let places = ["$RUNTIME_DIRECTORY", "$XDG_RUNTIME_DIR", "/tmp"].map(|place| document.find(place));
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}");
    }
}

/// Every Markdown file of the repository but those of installed packages.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut open, mut found) = (vec![root.to_owned()], Vec::new());
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !name.starts_with('.') && !["target", "node_modules"].contains(&name) {
                open.push(path);
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    found
}

/// The anchor of a heading, as renderers of Markdown derive it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn has_anchor(document: &str, wanted: &str) -> bool {
    let mut headings = document.lines().filter(|line| line.starts_with('#'));
    headings.any(|line| anchor(line.trim_start_matches('#')) == wanted)
        || document.contains(&format!("<a id=\"{wanted}\">"))
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let documents = documents();
    assert!(documents.len() > 20, "{documents:?}");
    let mut broken = Vec::new();
    for file in documents {
        let text = std::fs::read_to_string(&file).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        for (link, _) in links.filter(|(link, _)| !link.contains([':', ' '])) {
            let (path, anchor) = link.split_once('#').map_or((link, None), |(path, name)| (path, Some(name)));
            let target = if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
            let there = target.exists()
                && anchor.is_none_or(|name| has_anchor(&std::fs::read_to_string(&target).unwrap(), name));
            if !there {
                broken.push(format!("{}: {link}", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}
