//! Compiles `proto/` with protox, so that no `protoc` has to be installed.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
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
