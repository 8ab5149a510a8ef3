//! The program: parses the command line, and runs a tool or the gateway.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use sigver::cli::{self, Outcome, ProcessInputs};
use sigver::server::admin::{StatusQuery, StatusService};
use sigver::server::fd_limit;
use sigver::server::telemetry::Format;
use sigver::{Config, Gateway, tools};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let mut args = args.peekable();
    if args.peek().is_some_and(tools::is_named) {
        return tools::run(std::iter::once(program).chain(args));
    }
    let inputs = ProcessInputs { env: &environment, read_file: &|path| std::fs::read_to_string(path) };
    match cli::parse(&program, args, inputs) {
        Outcome::Print(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Outcome::Fail(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
        Outcome::UsageError(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
        Outcome::Check(config, text, warnings) => {
            warnings.iter().for_each(|warning| eprintln!("{warning}"));
            match Gateway::check(&config) {
                Ok(()) => {
                    println!("{text}");
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    eprintln!("error: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        Outcome::Run(config, warnings) => {
            warnings.iter().for_each(|warning| eprintln!("{warning}"));
            match run(config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("error: {error}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

fn run(config: Config) -> Result<()> {
    // Cheaper while there is one thread.
    if let Err(error) = fd_limit::raise() {
        eprintln!("warning: the limit of open files was not raised: {error}");
    }
    let log = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry().with(config.log.clone()).with(log).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<()> {
    let (protocols, tls) = (config.protocol.to_string(), config.tls.is_some());
    let drain_timeout_s = config.drain_timeout.as_secs();
    let gateway = Gateway::bind(config).await?;
    // Before the start-up line: its reader may send a signal at once.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(print_status(signal(SignalKind::user_defined1())?, gateway.status()));
    if let Some(error) = gateway.admin_socket_error() {
        eprintln!("warning: no control socket, so that 'sigver status' does not work: {error}");
    }
    gateway.startup_lines().for_each(|line| println!("{line}"));
    tracing::info!(protocols, tls, "serving");
    let mut signals = async move || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let (drained, stopped) = (CancellationToken::new(), CancellationToken::new());
    let (drain, stop) = (drained.clone().cancelled_owned(), stopped.clone().cancelled_owned());
    tokio::spawn(async move {
        signals().await;
        tracing::info!(drain_timeout_s, "stopping");
        drained.cancel();
        signals().await;
        tracing::info!("stopping at once");
        stopped.cancel();
    });
    // On a worker thread, like the connections: on this one, each accept would wake two threads.
    Ok(tokio::spawn(gateway.run(drain, stop)).await?)
}

/// Prints the status at each signal, on stderr whatever the log filter is.
async fn print_status(mut requests: Signal, status: StatusService) {
    while requests.recv().await.is_some() {
        let text = status.render(StatusQuery::default(), Format::Text).await;
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}
