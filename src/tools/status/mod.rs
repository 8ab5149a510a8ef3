//! `sigver status`: asks a server on this machine for its status, over its control socket, and prints the
//! answer.

mod running;
mod trust;

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::config::parse::{self, ValueError};
use crate::config::redact::displayed_path;
use crate::config::{AdminSocketPath, DEFAULT_PORT};
use crate::output;
use crate::server::admin::StatusQuery;
use crate::server::telemetry::Format;
use trust::Answering;

/// Longest time for the server's answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);

/// Number of failures that an error lists.
const MAX_FAILURES: usize = 4;

/// Control sequence that clears a terminal and moves to its top.
const CLEAR_SCREEN: &str = "\x1b[2J\x1b[H";

/// Arguments of `sigver status`. Without a port or a path, all servers of this machine are asked.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// Port of the server, as given by its --port or SIGVER_PORT [default: every server of this user]
    #[arg(short, long, value_name = "number", value_parser = parse::port)]
    port: Option<u16>,
    /// Control socket of the server, as given by its --control or SIGVER_CONTROL
    #[arg(long, value_name = "path", value_parser = admin_socket)]
    control: Option<AdminSocketPath>,
    /// Print JSON; docs/reference/status-json.md lists the names
    #[arg(long)]
    json: bool,
    /// List every connection, with its start and the evidence of its dialect
    #[arg(long)]
    connections: bool,
    /// List every room, and not only those that mix dialects
    #[arg(long)]
    rooms: bool,
    /// Show what is zero as well, with the releases and the evidence of each dialect
    #[arg(long)]
    all: bool,
    /// Show the status again every few seconds, until Ctrl-C
    #[arg(long, value_name = "seconds", value_parser = parse::seconds, num_args = 0..=1, default_missing_value = "2")]
    watch: Option<Duration>,
}

/// Error of the command.
#[derive(Debug, Error)]
enum StatusError {
    #[error(transparent)]
    Value(#[from] ValueError),
    /// Error that the server answered.
    #[error("{0}")]
    Rejected(String),
    #[error(
        "no server answers ({failures}). Is it running, on this port (--port), and as this user (or ask as \
         root)?{others}"
    )]
    NoServer { failures: String, others: String },
}

/// Error of a request to one socket.
#[derive(Debug, Error)]
enum RequestError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the socket belongs to another user; if that one runs the server: sudo -u '#{0}' sigver status")]
    OtherUser(u32),
    #[error("the connection was closed without an answer")]
    NoAnswer,
    #[error("timed out")]
    Timeout,
    /// Error that the server answered, which may be of another version.
    #[error("{0}")]
    Rejected(String),
}

/// Prints the status.
pub(crate) async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let Some(interval) = args.watch else {
        output::print(&request(&args).await?)?;
        return Ok(ExitCode::SUCCESS);
    };
    loop {
        let text = request(&args).await?;
        let clear = if std::io::stdout().is_terminal() { CLEAR_SCREEN } else { "" };
        output::print(&format!("{clear}{text}"))?;
        tokio::time::sleep(interval).await;
    }
}

/// Returns the port of a server on this machine: the given one, or that of the environment.
fn port_of_server(given: Option<u16>) -> Result<Option<u16>, ValueError> {
    match (given, env("SIGVER_PORT")) {
        (Some(port), _) => Ok(Some(port)),
        // Kubernetes sets SIGVER_PORT to a URL for a service named sigver; the gateway ignores that as well.
        (None, Some(text)) if !text.contains("://") => parse::port(&text).map(Some),
        (None, _) => Ok(None),
    }
}

/// Returns the value of an environment variable, unless it is empty.
pub(super) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn admin_socket(text: &str) -> Result<AdminSocketPath, ValueError> {
    parse::admin_socket(text, &AdminSocketPath::auto_for_client(&env))
}

async fn request(args: &StatusArgs) -> Result<String, StatusError> {
    let port = port_of_server(args.port)?;
    let control = match (&args.control, args.port, env("SIGVER_CONTROL")) {
        (Some(control), _, _) => control.clone(),
        // An explicit port does not mean the server of the environment.
        (None, None, Some(text)) => admin_socket(&text)?,
        (None, _, _) => AdminSocketPath::auto_for_client(&env),
    };
    let query = StatusQuery { connections: args.connections, rooms: args.rooms, all: args.all };
    let line = query.to_line(if args.json { Format::Json } else { Format::Text });
    if let (AdminSocketPath::InFirstOf(directories), None) = (&control, port) {
        let (responses, mut failures) = ask_all(&running::control_sockets(directories), &line).await;
        return match responses.is_empty() {
            false => Ok(responses.join("\n")),
            true => {
                failures.insert(0, "there is no control socket of a running server".to_owned());
                Err(no_answer(&failures, &[]))
            }
        };
    }
    let paths = control.candidates(&port.unwrap_or(DEFAULT_PORT).to_string());
    let mut failures = Vec::new();
    for path in &paths {
        match ask(path, &line).await {
            Ok(response) => return Ok(response),
            Err(RequestError::Rejected(text)) => return Err(StatusError::Rejected(text)),
            Err(error) => failures.push(format!("{}: {error}", displayed_path(path))),
        }
    }
    if failures.is_empty() {
        failures.push("the control socket is off".to_owned());
    }
    let directories: Vec<PathBuf> =
        paths.iter().filter_map(|path| path.parent()).map(PathBuf::from).collect();
    let others = servers_at(&running::named_sockets(&directories)).await;
    Err(no_answer(&failures, &others))
}

/// Returns the ports, or process ids, of servers that answer.
async fn servers_at(paths: &[PathBuf]) -> Vec<String> {
    let mut names = Vec::new();
    for path in paths {
        if let (Some(number), Ok(_)) = (running::number_in_name(path), ask(path, "status json").await) {
            names.push(number.to_string());
        }
    }
    names
}

/// Asks at each path. Returns the answers, and what failed but for sockets that a crash left behind.
async fn ask_all(paths: &[PathBuf], line: &str) -> (Vec<String>, Vec<String>) {
    let (mut responses, mut failures) = (Vec::new(), Vec::new());
    for path in paths {
        match ask(path, line).await {
            Ok(response) => responses.push(response),
            // A crash left the file behind.
            Err(RequestError::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => failures.push(format!("{}: {error}", displayed_path(path))),
        }
    }
    (responses, failures)
}

fn no_answer(failures: &[String], others: &[String]) -> StatusError {
    let others = match others {
        [] => String::new(),
        names => format!(" There are sockets of servers on other ports: {}.", names.join(", ")),
    };
    let more = match failures.len().saturating_sub(MAX_FAILURES) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let failures = failures.iter().take(MAX_FAILURES).map(String::as_str).collect::<Vec<_>>().join("; ");
    StatusError::NoServer { failures: failures + &more, others }
}

/// Returns the answer of the server at `path`.
async fn ask(path: &Path, line: &str) -> Result<String, RequestError> {
    let response = tokio::time::timeout(RESPONSE_TIMEOUT, request_at(path, line)).await;
    let response = response.map_err(|_| RequestError::Timeout)??;
    match response.strip_prefix("error: ") {
        Some(error) => Err(RequestError::Rejected(printable(error.trim_end()))),
        None => Ok(printable(&response)),
    }
}

async fn request_at(path: &Path, line: &str) -> Result<String, RequestError> {
    let mut stream = UnixStream::connect(path).await?;
    // In a directory that all users may write to, another user may have bound the path.
    let (server, me) = (stream.peer_cred()?, UnixStream::pair()?.0.peer_cred()?.uid());
    let answering = Answering { user: server.uid(), process: server.pid() };
    if !trust::is_trusted(path, answering, me) {
        return Err(RequestError::OtherUser(server.uid()));
    }
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    if response.is_empty() { Err(RequestError::NoAnswer) } else { Ok(response) }
}

/// Returns `text` without the characters that a terminal may take as commands.
fn printable(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stale_sockets_are_left_out_and_long_lists_cut() {
        let path = std::env::temp_dir().join(format!("sigver-stale-{}.sock", std::process::id()));
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let missing = path.with_extension("none");
        let (responses, failures) = ask_all(&[path.clone(), missing.clone()], "status").await;
        std::fs::remove_file(&path).unwrap();
        assert!(responses.is_empty());
        assert!(failures.len() == 1 && failures[0].starts_with(&*missing.to_string_lossy()), "{failures:?}");
        let many: Vec<String> = (1..=9).map(|number| format!("path {number}")).collect();
        let error = no_answer(&many, &[]).to_string();
        let list = "no server answers (path 1; path 2; path 3; path 4; and 5 more). Is it";
        assert!(error.starts_with(list), "{error}");
    }
}
