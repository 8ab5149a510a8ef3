//! The program: parses the command line, and runs a tool or the gateway.

#![deny(clippy::print_stdout, clippy::print_stderr, reason = "they panic if the output is closed or full")]

mod service_manager;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sigver::cli::{self, Outcome, ProcessInputs};
use sigver::config::LogFormat;
use sigver::logging::{LogFilterHandle, LogHandle, Logging};
use sigver::server::admin::{StatusQuery, StatusService};
use sigver::server::telemetry::Format;
use sigver::server::{
    EffectiveLimits, ReloadError, ReloadReport, ReloadRequest, ReloadRequests, Reloader, fd_limit,
    regular_file,
};
use sigver::{Config, Gateway, output, tools};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Longest wait for the start-up line to be written.
const STDOUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest wait for threads that still work when all connections have ended.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn environment_names() -> Vec<String> {
    std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect()
}

/// Gives back what clients made the program hold. The allocator of glibc keeps most of it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let mut args = args.peekable();
    if args.peek().is_some_and(tools::is_named) {
        return tools::run(std::iter::once(program).chain(args));
    }
    let args: Vec<OsString> = args.collect();
    let command_line = CommandLine { program, args };
    match command_line.parse() {
        Outcome::Print(text) => print_line(&text),
        Outcome::Fail(message) => {
            output::print_error(message);
            ExitCode::FAILURE
        }
        Outcome::UsageError(message) => {
            output::print_error(message);
            ExitCode::from(2)
        }
        Outcome::Check(config, text, warnings) => {
            warnings.iter().for_each(output::print_error);
            check(&config, &text)
        }
        Outcome::Run(config, warnings) => {
            let logging = match Logging::start(config.log_format) {
                Ok(logging) => logging,
                Err(error) => {
                    output::print_error(format_args!("error: {error}"));
                    return ExitCode::FAILURE;
                }
            };
            warnings.iter().for_each(|warning| logging.write_text(format!("{warning}\n")));
            match run(config, command_line, &logging) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    logging.write_text(format!("error: {error}\n"));
                    ExitCode::FAILURE
                }
            }
        }
    }
}

/// Checks a configuration, and prints the text about it. What a start would warn of is on stderr.
fn check(config: &Config, text: &str) -> ExitCode {
    // The journal may be that of another machine.
    let logging = Logging::start(LogFormat::Text);
    if let Ok(logging) = &logging {
        logging.install(config.log.clone());
    }
    // As at a start, so that the limits are those of a server. A failure is reported there.
    let _ = fd_limit::raise();
    match Gateway::check(config) {
        Ok(()) => {
            let limits = EffectiveLimits::new(&config.limits);
            print_line(&format!("{text}\n# On this machine: {limits}."))
        }
        Err(error) => {
            output::print_error(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints text and a line end on stdout.
fn print_line(text: &str) -> ExitCode {
    match output::print(&format!("{text}\n")) {
        Err(error) if !error.is_closed_pipe() => {
            output::print_error(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Returns the text of a configuration file.
fn read_file(path: &Path) -> io::Result<String> {
    regular_file::read_text(path, cli::MAX_CONFIG_FILE)
}

/// The command line, which is parsed again for a reload.
struct CommandLine {
    program: OsString,
    args: Vec<OsString>,
}

impl CommandLine {
    fn parse(&self) -> Outcome {
        let inputs =
            ProcessInputs { env: &environment, env_names: &environment_names, read_file: &read_file };
        cli::parse(&self.program, self.args.iter().cloned(), inputs)
    }
}

fn run(config: Config, command_line: CommandLine, logging: &Logging) -> Result<()> {
    if let Err(error) = fd_limit::raise() {
        logging.write_text(format!("warning: the limit of open files was not raised: {error}\n"));
    }
    logging.install(config.log.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    let served = runtime.block_on(serve(config, command_line, logging));
    // A reload may read a file of a file system that does not answer.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    served
}

async fn serve(config: Config, command_line: CommandLine, logging: &Logging) -> Result<()> {
    let (protocols, tls) = (config.protocol.to_string(), config.tls.is_some());
    let drain_timeout_s = config.drain_timeout.as_secs();
    let mut gateway = Gateway::bind(config).await?.with_log_counts(logging.counts());
    // Before the start-up line: its reader may send a signal at once.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let status_requests = signal(SignalKind::user_defined1())?;
    let reload_signals = signal(SignalKind::hangup())?;
    let (reloader, asked) = (gateway.reloader(), gateway.take_reload_requests());
    tokio::spawn(reload_when_asked(reload_signals, asked, command_line, reloader, logging.filter()));
    tokio::spawn(print_status(status_requests, gateway.status(), logging.handle()));
    if let Some(error) = gateway.admin_socket_error() {
        logging.write_text(format!(
            "warning: no control socket, so that 'sigver status' does not work: {error}\n"
        ));
    }
    service_manager::notify_ready();
    print_startup_lines(gateway.startup_lines().map(|line| format!("{line}\n")).collect()).await;
    tracing::info!(protocols, tls, "serving");
    let EffectiveLimits { max_memory, max_held, max_connections, open_files, .. } =
        gateway.effective_limits();
    tracing::info!(max_memory, max_held, max_connections, open_files, "limits in force");
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
        service_manager::notify_stopping();
        drained.cancel();
        signals().await;
        tracing::info!("stopping at once");
        stopped.cancel();
    });
    // On a worker thread, like the connections: on this one, each accept would wake two threads.
    Ok(tokio::spawn(gateway.run(drain, stop)).await?)
}

/// Prints the status at each signal, on stderr whatever the log filter is.
async fn print_status(mut requests: Signal, status: StatusService, log: LogHandle) {
    while requests.recv().await.is_some() {
        log.write_text(status.render(StatusQuery::default(), Format::Text).await);
    }
}

/// Reads the configuration again at each signal, and when the admin listener is asked to, and puts in force
/// what a running gateway can change.
async fn reload_when_asked(
    mut signals: Signal,
    mut requests: Option<ReloadRequests>,
    command_line: CommandLine,
    reloader: Reloader,
    log_filter: Option<LogFilterHandle>,
) {
    loop {
        let request = tokio::select! {
            signal = signals.recv() => match signal {
                Some(()) => None,
                None => return,
            },
            request = next_request(&mut requests) => Some(request),
        };
        service_manager::notify_reloading();
        // Reads files, which may take a moment; reloads are rare.
        let reloaded = tokio::task::block_in_place(|| reload(&command_line, &reloader, log_filter.as_ref()));
        match &reloaded {
            Ok(ReloadReport { changed, needs_restart, .. }) => {
                let list =
                    |names: &[&str]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                let (changed, needs_restart) = (list(changed), list(needs_restart));
                tracing::info!(changed, needs_restart, "reloaded the certificates and the configuration");
            }
            Err(error) => tracing::error!(%error, "not reloaded: the former settings stay in force"),
        }
        service_manager::notify_reloaded();
        if let Some(request) = request {
            request.respond(reloaded);
        }
    }
}

/// Waits for the next request of the admin listener, forever if there is none.
async fn next_request(requests: &mut Option<ReloadRequests>) -> ReloadRequest {
    if let Some(waiting) = requests
        && let Some(request) = waiting.recv().await
    {
        return request;
    }
    *requests = None;
    std::future::pending().await
}

fn reload(
    command_line: &CommandLine,
    reloader: &Reloader,
    log_filter: Option<&LogFilterHandle>,
) -> Result<ReloadReport, ReloadError> {
    let (config, warnings) = match command_line.parse() {
        Outcome::Run(config, warnings) => (config, warnings),
        Outcome::Fail(message) | Outcome::UsageError(message) => {
            let reason = message.strip_prefix("error: ").unwrap_or(&message);
            return Err(ReloadError::Unreadable(reason.to_owned()));
        }
        Outcome::Print(_) | Outcome::Check(..) => {
            return Err(ReloadError::Unreadable("the command line does not serve".to_owned()));
        }
    };
    for warning in &warnings {
        tracing::warn!("{}", warning.strip_prefix("warning: ").unwrap_or(warning));
    }
    let report = reloader.reload(&config)?;
    if let Some(log_filter) = log_filter {
        log_filter.replace(config.log);
    }
    Ok(report)
}

/// Prints the start-up lines on stdout. The clients are served also if they cannot be written.
async fn print_startup_lines(lines: String) {
    let (done, wait) = oneshot::channel();
    // A thread of its own, as stdout may be a pipe that is full and that no process reads.
    let thread = std::thread::Builder::new().spawn(move || {
        let _ = done.send(output::print(&lines));
    });
    match tokio::time::timeout(STDOUT_TIMEOUT, wait).await {
        Ok(Ok(Err(error))) => tracing::warn!(%error, "the start-up lines were not written to stdout"),
        Err(_) => tracing::warn!("the start-up lines were not written to stdout, which no process reads"),
        Ok(_) => {}
    }
    drop(thread);
}
