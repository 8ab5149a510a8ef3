//! The documentation agrees with the program and the files that it quotes, and its links lead somewhere.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::path::{Path, PathBuf};

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
