//! The commands next to serving: `sigver dialects` and others, each with its own options. The gateway's
//! command line is in `cli`.

pub mod bench;
pub mod client;
pub mod dial;
mod ephemeral_server;
mod healthcheck;
pub mod matrix;
pub mod probe;
pub mod protobuf;
pub mod replay;
mod status;

use std::ffi::OsString;
use std::future::Future;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow};
use clap::{Command, CommandFactory, Parser};
use clap_complete::Shell;
use clap_mangen::Man;
use indicatif::ProgressDrawTarget;

#[cfg(feature = "bridge")]
use crate::bridge::{self, BridgeArgs};
use crate::cli;
use crate::config::redact::may_be_secret;
use crate::output::{self, StdoutError};
use crate::protocol::dialect::{Dialect, Release, markdown};
use crate::text_table::{CellAlignment, text_table};
use crate::tools::client::protocol::Protocol;
use crate::tools::dial::error_chain;
use healthcheck::HealthcheckArgs;
use status::StatusArgs;

/// Commands of `sigver` next to serving.
#[derive(Debug, Parser)]
#[command(name = "sigver", version, disable_help_subcommand = true)]
enum Tool {
    /// List the dialects, and the releases that speak them
    Dialects {
        /// Print Markdown, like docs/reference/dialects.md
        #[arg(long)]
        markdown: bool,
    },
    /// Print a completion script for a shell, on stdout
    Completions {
        /// Name of the shell
        shell: Shell,
    },
    /// Print the manual page, in roff, on stdout
    Man,
    /// Print the options of the gateway, as in docs/reference/configuration.md
    #[command(hide = true)]
    Options,
    /// Bridge rooms in which there are several groups of netflux clients
    #[cfg(feature = "bridge")]
    Bridge(BridgeArgs),
    /// Show the connections, dialects and rooms of a gateway on this machine
    Status(StatusArgs),
    /// Test that a gateway answers, for Docker, systemd and scripts
    Healthcheck(HealthcheckArgs),
    /// Measure how well members of each dialect and joiners of each other work together on a server
    Matrix(matrix::cli::MatrixArgs),
    /// Find out which dialects and releases a server speaks
    Probe(probe::cli::ProbeArgs),
    /// Measure the performance of a server, to size a machine
    Bench(bench::cli::Bench),
    /// Play recorded conversations against a server, and show the differences
    Replay(replay::cli::ReplayArgs),
    /// Forward connections to a server, and record their messages
    Record(replay::record_cli::RecordArgs),
}

/// Returns true if this first argument names a command, and is not an option of the gateway.
pub fn is_named(argument: &OsString) -> bool {
    // The tools' command lines are not built for a server: they would stay in its memory.
    let is_option = argument.as_encoded_bytes().starts_with(b"-");
    !is_option && Tool::command().get_subcommands().any(|tool| tool.get_name() == argument)
}

/// Runs the command that `arguments` name, of which the first is the program's name. Returns its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let has_secret = arguments.iter().any(|argument| may_be_secret(&argument.to_string_lossy()));
    match Tool::try_parse_from(arguments) {
        // The messages of the parser quote arguments.
        Err(error) if error.use_stderr() && has_secret => {
            exit_code(anyhow!("an argument is invalid, and is not shown as it looks like a key or a token"))
        }
        Ok(Tool::Dialects { markdown: true }) => print(&markdown()),
        Ok(Tool::Dialects { markdown: false }) => print(&dialect_list()),
        Ok(Tool::Completions { shell }) => {
            // The library panics if it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut whole_command(), "sigver", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Ok(Tool::Man) => {
            let mut page = Vec::new();
            match Man::new(whole_command()).render(&mut page) {
                Ok(()) => print(&String::from_utf8_lossy(&page)),
                Err(error) => exit_code(error.into()),
            }
        }
        Ok(Tool::Options) => print(&cli::markdown()),
        #[cfg(feature = "bridge")]
        Ok(Tool::Bridge(args)) => bridge::run(&args).unwrap_or_else(exit_code),
        Ok(Tool::Status(args)) => block_on(status::run(args)),
        Ok(Tool::Healthcheck(args)) => block_on(healthcheck::run(args)),
        Ok(Tool::Matrix(matrix)) => block_on(matrix.run()),
        Ok(Tool::Probe(probe)) => block_on(probe.run()),
        Ok(Tool::Bench(bench)) => block_on(bench.run()),
        Ok(Tool::Replay(replay)) => block_on(replay.run()),
        Ok(Tool::Record(record)) => block_on(record.run()),
        Err(error) => error.exit(),
    }
}

/// Prints text on stdout. Returns the exit code.
fn print(text: &str) -> ExitCode {
    output::print(text).map_or_else(|error| exit_code(error.into()), |()| ExitCode::SUCCESS)
}

/// Prints an error. Returns the exit code: 2, unless the reader of the output has left.
fn exit_code(error: anyhow::Error) -> ExitCode {
    if error.downcast_ref::<StdoutError>().is_some_and(StdoutError::is_closed_pipe) {
        return ExitCode::SUCCESS;
    }
    output::print_error(format_args!("error: {}", error_chain(error.as_ref())));
    ExitCode::from(2)
}

/// Returns the options of the gateway and the commands, for completions and the manual page.
fn whole_command() -> Command {
    let commands = Tool::command();
    let visible = commands.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    cli::clap_command().subcommands(visible)
}

/// Runs a command that connects to servers. Returns its exit code, or 2 after an error.
fn block_on(command: impl Future<Output = Result<ExitCode>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(command))
        .unwrap_or_else(exit_code)
}

fn parse_protocol(name: &str) -> Result<Protocol> {
    Protocol::from_name(name).with_context(|| format!("there is no dialect '{name}': see sigver dialects"))
}

/// Returns the target of progress bars: standard error if it is a terminal, else none.
fn draw_target() -> ProgressDrawTarget {
    match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    }
}

fn dialect_list() -> String {
    let row = |dialect: Dialect| {
        let releases = Release::ALL.into_iter().filter(|release| release.dialect() == dialect);
        let versions: Vec<String> = releases.map(Release::version_list).collect();
        vec![dialect.to_string(), dialect.family().name().to_owned(), versions.join(", ")]
    };
    let signaller = ["signaller", "", "boramalper/signaller"].map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = Dialect::ALL.into_iter().map(row).chain([signaller]).collect();
    text_table(&rows, CellAlignment::Left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_named() {
        Tool::command().debug_assert();
        assert!(is_named(&"dialects".into()));
        assert!(!is_named(&"--port".into()) && !is_named(&"more".into()));
    }

    #[test]
    fn gateway_help_names_every_tool() {
        let help = include_str!("../cli/help.rs");
        for tool in Tool::command().get_subcommands().filter(|tool| !tool.is_hide_set()) {
            let line = format!("  sigver {} ", tool.get_name());
            assert!(help.contains(&line), "{line}");
        }
    }

    #[test]
    fn exit_codes_of_every_command_are_documented() {
        let codes = include_str!("../../docs/reference/exit-codes.md");
        for command in cli::mistyped::COMMANDS {
            let forms =
                [format!("| `sigver {command}` "), format!(", `{command}`"), format!("`sigver {command}`, ")];
            assert!(forms.iter().any(|form| codes.contains(form)), "{command}");
        }
    }

    #[test]
    fn mistyped_commands_are_compared_with_every_command() {
        let command = whole_command();
        let mut names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        names.sort_unstable();
        assert_eq!(names, cli::mistyped::COMMANDS);
    }

    #[test]
    fn completions_and_manual_page_have_every_option_and_command() {
        let reference = cli::markdown();
        let (reference, _) = reference.split_once("## Options of earlier versions").unwrap();
        let cells = reference.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let options: Vec<&str> =
            cells.filter_map(|cell| cell.split("--").nth(1)?.split([' ', ',']).next()).collect();
        assert!(options.len() > 60 && options.contains(&"max-memory"), "{options:?}");
        let mut page = Vec::new();
        Man::new(whole_command()).render(&mut page).unwrap();
        let mut texts = vec![("man", String::from_utf8(page).unwrap().replace("\\-", "-"), "--")];
        for (shell, prefix) in [(Shell::Bash, "--"), (Shell::Zsh, "--"), (Shell::Fish, "-l ")] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut whole_command(), "sigver", &mut script);
            texts.push(("completions", String::from_utf8(script).unwrap(), prefix));
        }
        for (kind, text, prefix) in texts {
            for option in &options {
                assert!(text.contains(&format!("{prefix}{option}")), "{kind}: {prefix}{option}");
            }
            for command in cli::mistyped::COMMANDS {
                assert!(text.contains(command), "{kind}: {command}");
            }
        }
    }

    #[test]
    fn every_dialect_is_in_list() {
        assert!(dialect_list().contains("sigver-8     json         8.0.2, 8.1.0\n"));
        assert_eq!(dialect_list().lines().count(), Dialect::ALL.len() + 1);
    }
}
