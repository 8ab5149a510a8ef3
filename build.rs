//! Compiles `proto/` with protox, so that no `protoc` has to be installed, and orders the functions of the program.

use std::env;
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    order_functions()?;
    println!("cargo:rerun-if-changed=proto");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir("proto")?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.sort();
    let mut config = prost_build::Config::new();
    config.bytes(["."]);
    // Each generation is compiled alone: their messages have the same names, and nothing in common.
    for file in files {
        config.compile_fds(protox::compile([&file], ["proto"])?)?;
    }
    Ok(())
}

/// Has the linker put the functions that run at the start side by side (`packaging/start-order`).
fn order_functions() -> Result<(), Box<dyn Error>> {
    let script = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("packaging/start.ld");
    println!("cargo:rerun-if-changed={}", script.display());
    let is = |variable, value| env::var(variable).is_ok_and(|found| found == value);
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") && reads_linker_scripts() {
        println!("cargo:rustc-link-arg-bin=sigver=-T{}", script.display());
    }
    Ok(())
}

/// Returns whether the linker is one that is known to read linker scripts: that of Rust or of GCC. Not all that somebody may
/// choose do: gold and mold, for example.
fn reads_linker_scripts() -> bool {
    let linker = env::var("RUSTC_LINKER").unwrap_or_default();
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    (linker.is_empty() || linker.ends_with("gcc")) && !flags.contains("fuse-ld")
}
