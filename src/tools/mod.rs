//! What the program can do beside serving: `sigver dialects` and the like. Each is a command of its own with options of
//! its own; the gateway's command line is in `cli`.

pub mod bench;
pub mod client;
mod ephemeral_server;
pub mod matrix;
pub mod probe;
pub mod replay;
mod status;

use std::ffi::OsString;
use std::future::Future;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{CommandFactory, Parser};
use indicatif::ProgressDrawTarget;

use crate::cli;
use crate::protocol::dialect::{Dialect, Release, markdown};
use crate::tools::client::protocol::Protocol;
use status::StatusArgs;

/// Commands of `sigver`, beside serving.
#[derive(Debug, Parser)]
#[command(name = "sigver", version, disable_help_subcommand = true)]
enum Tool {
    /// List the dialects that are spoken, and the releases that speak them.
    Dialects {
        /// As docs/reference/dialects.md has it.
        #[arg(long)]
        markdown: bool,
    },
    /// Print the options of the gateway, as in docs/reference/configuration.md.
    #[command(hide = true)]
    Options,
    /// Tell who speaks what on a server that runs on this machine.
    Status(StatusArgs),
    /// Measure how well members of each dialect and joiners of each other work together on a server.
    Matrix(matrix::cli::Matrix),
    /// Find out which dialects and releases a server speaks.
    Probe(probe::cli::Probe),
    /// Measure what a server can do, to size a machine.
    Bench(bench::cli::Bench),
    /// Play recorded conversations against a server, and show what is different.
    Replay(replay::cli::Replay),
    /// Pass connections on to a server, and record what is said.
    Record(replay::record_cli::Record),
}

/// Whether this first argument names a command, and not an option of the gateway.
pub fn is_named(argument: &OsString) -> bool {
    Tool::command().get_subcommands().any(|tool| tool.get_name() == argument)
}

/// Runs the command that `arguments`, with the program's name as the first of them, name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Tool::try_parse_from(arguments) {
        Ok(Tool::Dialects { markdown: true }) => print!("{}", markdown()),
        Ok(Tool::Dialects { markdown: false }) => print!("{}", listed()),
        Ok(Tool::Options) => print!("{}", cli::markdown()),
        Ok(Tool::Status(args)) => return block_on(status::run(args)),
        Ok(Tool::Matrix(matrix)) => return block_on(matrix.run()),
        Ok(Tool::Probe(probe)) => return block_on(probe.run()),
        Ok(Tool::Bench(bench)) => return block_on(bench.run()),
        Ok(Tool::Replay(replay)) => return block_on(replay.run()),
        Ok(Tool::Record(record)) => return block_on(record.run()),
        Err(error) => error.exit(),
    }
    ExitCode::SUCCESS
}

/// Runs a command that talks with servers: its code, or 2 if it could not do its work.
fn block_on(command: impl Future<Output = Result<ExitCode>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(command)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The dialect of this name.
fn tongue(name: &str) -> Result<Protocol> {
    Protocol::of_name(name).with_context(|| format!("there is no dialect '{name}': see sigver dialects"))
}

/// Where progress is shown: on a terminal, and nowhere else.
fn draw_target() -> ProgressDrawTarget {
    match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    }
}

fn listed() -> String {
    let mut out = String::new();
    for dialect in Dialect::ALL {
        let of_it = Release::ALL.into_iter().filter(|release| release.dialect() == dialect);
        let versions: Vec<String> = of_it.map(Release::in_words).collect();
        out.push_str(&format!("{dialect:<12} {:<12} {}\n", dialect.family().name(), versions.join(", ")));
    }
    out + "signaller                 boramalper/signaller\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_have_names() {
        Tool::command().debug_assert();
        assert!(is_named(&"dialects".into()));
        assert!(!is_named(&"--port".into()) && !is_named(&"more".into()));
    }

    #[test]
    fn the_help_of_the_gateway_names_every_tool() {
        let help = include_str!("../cli/help.rs");
        for tool in Tool::command().get_subcommands().filter(|tool| !tool.is_hide_set()) {
            let line = format!("  sigver {} ", tool.get_name());
            assert!(help.contains(&line), "{line}");
        }
    }

    #[test]
    fn every_dialect_is_listed() {
        assert!(listed().contains("sigver-8     json         8.0.2, 8.1.0\n"));
        assert_eq!(listed().lines().count(), Dialect::ALL.len() + 1);
    }
}
