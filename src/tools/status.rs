//! `sigver status`: asks a server on this machine for its status, over its control socket, and prints the
//! answer.

use std::io;
use std::path::Path;
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

/// Longest time for the server's answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);

/// Arguments of `sigver status`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// Port of the server, as given by its --port or SIGVER_PORT [default: 8000]
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
    #[error("the socket belongs to another user")]
    OtherUser,
    #[error("the connection was closed without an answer")]
    NoAnswer,
}

/// Prints the status.
pub(crate) async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let text = request(&args).await?;
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the port of a server on this machine: the given one, that of the environment, or the default.
pub(super) fn port_of_server(given: Option<u16>) -> Result<u16, ValueError> {
    match (given, env("SIGVER_PORT")) {
        (Some(port), _) => Ok(port),
        // Kubernetes sets SIGVER_PORT to a URL for a service named sigver; the gateway ignores that as well.
        (None, Some(text)) if !text.contains("://") => parse::port(&text),
        (None, _) => Ok(DEFAULT_PORT),
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
    let paths = control.candidates(&port.to_string());
    let query = StatusQuery { connections: args.connections, rooms: args.rooms };
    let line = query.to_line(if args.json { Format::Json } else { Format::Text });
    let mut failures = Vec::new();
    for path in &paths {
        match tokio::time::timeout(RESPONSE_TIMEOUT, request_at(path, &line)).await {
            Ok(Ok(response)) => match response.strip_prefix("error: ") {
                Some(error) => return Err(StatusError::Rejected(error.trim_end().to_owned())),
                None => return Ok(printable(&response)),
            },
            Ok(Err(error)) => failures.push(format!("{}: {error}", displayed_path(path))),
            Err(_) => failures.push(format!("{}: timed out", displayed_path(path))),
        }
    }
    let failures =
        if failures.is_empty() { "the control socket is off".to_owned() } else { failures.join("; ") };
    let ports: Vec<String> = paths.iter().flat_map(|path| ports_of_other_servers(path)).collect();
    let others = match &ports[..] {
        [] => String::new(),
        ports => format!(" There are sockets of servers on other ports: {}.", ports.join(", ")),
    };
    Err(StatusError::NoServer { failures, others })
}

async fn request_at(path: &Path, line: &str) -> Result<String, RequestError> {
    let mut stream = UnixStream::connect(path).await?;
    // In a directory that all users may write to, another user may have bound the path.
    let (server, me) = (stream.peer_cred()?.uid(), UnixStream::pair()?.0.peer_cred()?.uid());
    if server != me && server != 0 && me != 0 {
        return Err(RequestError::OtherUser);
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

/// Returns the ports of running servers whose sockets are in the same directory as `path`.
fn ports_of_other_servers(path: &Path) -> Vec<String> {
    let entries = path.parent().and_then(|dir| std::fs::read_dir(dir).ok());
    let entries = entries.into_iter().flatten().flatten().filter(|entry| entry.path() != path);
    let port_of = |entry: &std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let port = name.strip_prefix("sigver-")?.strip_suffix(".sock")?.to_owned();
        port.parse::<u16>().is_ok().then_some(port)
    };
    // A server that was killed leaves its socket behind.
    let is_live = |entry: &std::fs::DirEntry| std::os::unix::net::UnixStream::connect(entry.path()).is_ok();
    entries.filter_map(|entry| port_of(&entry).filter(|_| is_live(&entry))).collect()
}
