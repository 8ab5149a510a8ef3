//! `sigver status`: asks a server that runs on this machine, over its control socket, and prints what it says.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Error, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::config::{self, AdminSocketPath};
use crate::server::telemetry::StatusQuery;

/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// What `sigver status` is told.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// The port of the server, as `--port` or SIGVER_PORT gave it [default: 8000]
    #[arg(short, long, value_name = "number", value_parser = config::port)]
    port: Option<u16>,
    /// Its control socket, as `--control` or SIGVER_CONTROL gave it
    #[arg(long, value_name = "path", value_parser = config::control)]
    control: Option<AdminSocketPath>,
    /// For programs: docs/operating.md has the names
    #[arg(long)]
    json: bool,
    /// Every connection: since when it is there, and by what it was recognised
    #[arg(long)]
    connections: bool,
    /// Every room, and not only those that mix dialects
    #[arg(long)]
    rooms: bool,
}

/// Prints the status.
///
/// # Errors
/// In one line why there is none.
pub async fn run(args: StatusArgs) -> Result<ExitCode> {
    let text = ask(&args).await.map_err(Error::msg)?;
    // Who reads may have read enough.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

async fn ask(args: &StatusArgs) -> Result<String, String> {
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let port = match (args.port, env("SIGVER_PORT")) {
        (Some(port), _) => port,
        // As the gateway does, which is told of a service of this name by Kubernetes.
        (None, Some(text)) if !text.contains("://") => config::port(&text)?,
        (None, _) => config::DEFAULT_PORT,
    };
    let control = match (&args.control, args.port, env("SIGVER_CONTROL")) {
        (Some(control), _, _) => control.clone(),
        // Who names a port does not mean the server of the environment.
        (None, None, Some(text)) => config::control(&text)?,
        (None, _, _) => AdminSocketPath::Auto,
    };
    let paths = control.wanted(port, &env);
    let asked = StatusQuery { json: args.json, connections: args.connections, rooms: args.rooms };
    let mut tried = Vec::new();
    for path in &paths {
        match tokio::time::timeout(PATIENCE, ask_at(path, asked)).await {
            Ok(Ok(answer)) if answer.starts_with("error: ") => return Err(answer[7..].trim_end().to_owned()),
            Ok(Ok(answer)) => return Ok(printable(answer)),
            Ok(Err(error)) => tried.push(format!("{}: {error}", path.display())),
            Err(_) => tried.push(format!("{}: no answer", path.display())),
        }
    }
    let tried = if tried.is_empty() { "the control socket is off".to_owned() } else { tried.join("; ") };
    let others: Vec<String> = paths.iter().flat_map(neighbours).collect();
    let others = match &others[..] {
        [] => String::new(),
        ports => format!(" There are sockets of servers on other ports: {}.", ports.join(", ")),
    };
    Err(format!(
        "no server answers ({tried}). Is it running, on this port (--port), and as you (or ask as root)?{others}"
    ))
}

async fn ask_at(path: &Path, asked: StatusQuery) -> io::Result<String> {
    let mut stream = UnixStream::connect(path).await?;
    // In a folder that all may write to, somebody else may answer in the server's place.
    let (server, me) = (stream.peer_cred()?.uid(), UnixStream::pair()?.0.peer_cred()?.uid());
    if server != me && server != 0 && me != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "who answers there is another user"));
    }
    stream.write_all(format!("{}\n", asked.line()).as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "hung up without an answer"));
    }
    Ok(answer)
}

/// What a terminal does not take for commands.
fn printable(answer: String) -> String {
    answer.chars().filter(|c| *c == '\n' || !c.is_control()).collect()
}

/// The ports of which there are sockets beside this one, at which somebody answers.
fn neighbours(path: &PathBuf) -> Vec<String> {
    let entries = path.parent().and_then(|folder| std::fs::read_dir(folder).ok());
    let names = entries.into_iter().flatten().flatten().filter(|entry| entry.path() != *path);
    let port_of = |entry: &std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let port = name.strip_prefix("sigver-")?.strip_suffix(".sock")?.to_owned();
        port.parse::<u16>().is_ok().then_some(port)
    };
    // A server that was killed leaves its socket behind.
    let answers = |entry: &std::fs::DirEntry| std::os::unix::net::UnixStream::connect(entry.path()).is_ok();
    names.filter_map(|entry| port_of(&entry).filter(|_| answers(&entry))).collect()
}
