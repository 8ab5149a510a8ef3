//! The documentation agrees with the program and the files that it quotes, and its links lead somewhere.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::ffi::{OsStr, OsString};
use std::path::Path;

use sigver::cli::{self, Outcome};

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn configuration_reference_lists_every_option() {
    let Outcome::Print(help) = cli::parse(OsStr::new("sigver"), [OsString::from("--help")], &|_| None) else {
        panic!("no help");
    };
    let reference = read("docs/reference/configuration.md");
    let options = help.lines().filter(|line| line.starts_with("  -"));
    let options: Vec<&str> = options
        .flat_map(str::split_whitespace)
        .filter(|word| word.starts_with("--") && word.len() > 2)
        .collect();
    assert!(options.len() > 20, "{options:?}");
    for option in options {
        assert!(reference.contains(option), "{option} is not in docs/reference/configuration.md");
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
