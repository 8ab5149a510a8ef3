//! The documentation agrees with the program and the files that it quotes, and its links lead somewhere.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::path::Path;

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
