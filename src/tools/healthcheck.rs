//! `sigver healthcheck`: tests that a gateway is alive, by its exit code: for Docker, systemd and scripts,
//! which may start one again that is not. A gateway that refuses clients, as it is full, is alive.

use std::future::Future;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::dial::{ConnectError, Target, TrustArgs, UNANSWERED, error_chain};
use super::status;
use crate::cli::{self, Outcome, ProcessInputs};
use crate::config::redact::displayed_path;
use crate::config::{Config, ListenAddress, parse};
use crate::output;
use crate::server::{RefusalCause, admission, regular_file};

/// Path of the admin listener that answers while the process does.
const LIVENESS_PATH: &str = "/healthz";

/// Most bytes of an answer that are read.
const MAX_ANSWER: u64 = 1024;

/// Arguments of `sigver healthcheck`.
#[derive(Debug, clap::Args)]
pub(crate) struct HealthcheckArgs {
    /// Port of the gateway [default: the admin listener or the port in its environment and in the file of
    /// SIGVER_CONFIG, or 8000]
    #[arg(short, long, value_name = "number", value_parser = parse::port, conflicts_with = "url")]
    port: Option<u16>,
    /// URL to request instead; with https, its certificate has to be trusted
    #[arg(long, value_name = "url")]
    url: Option<String>,
    /// Longest time for the answer, in seconds
    #[arg(long, value_name = "seconds", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    #[command(flatten)]
    trust: TrustArgs,
}

/// Reason why a gateway is not healthy.
#[derive(Debug, Error)]
enum HealthcheckError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("cannot read the answer of {server}")]
    Io { server: String, source: std::io::Error },
    #[error("{server} answers with HTTP status {status}")]
    Status { server: String, status: u16 },
    #[error("{server} does not answer within {seconds} seconds")]
    Timeout { server: String, seconds: u64 },
}

/// The beginning of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Status(u16),
    /// A gateway refuses clients at this time, and is alive: its text.
    Refusal(&'static str),
    /// A gateway refuses a request without TLS to its port of TLS.
    TlsRequired,
    Other,
    None,
}

/// Tests the gateway. Returns the exit code 1 if it is not healthy.
pub(crate) async fn run(args: HealthcheckArgs) -> anyhow::Result<ExitCode> {
    let is_given = args.url.is_some();
    let url = match args.url {
        Some(url) => url,
        None => match place_of_server(args.port)? {
            Place::Url(url) => url,
            Place::AdminSocket(path) => {
                let server = format!("unix:{}", displayed_path(&path));
                return Ok(report(within(args.timeout, &server, ask_socket(&path, &server)).await));
            }
        },
    };
    let target = Target::with_trust(&url, &args.trust)?;
    let checks = async {
        match check(&target, &url).await? {
            Answer::TlsRequired if !is_given => {
                let url = url.replacen("http://", "https://", 1);
                // The certificate is for the name that clients use, and not for this machine's.
                let trust = match args.trust.cacert {
                    None => TrustArgs { insecure: true, ..args.trust },
                    Some(_) => args.trust,
                };
                let target = Target::with_trust(&url, &trust)?;
                check(&target, &url).await?.check(&target, url)
            }
            answer => answer.check(&target, url.clone()),
        }
    };
    Ok(report(within(args.timeout, &url, checks).await))
}

/// Waits for the result of a check for so many seconds.
async fn within<T>(
    seconds: u64,
    server: &str,
    check: impl Future<Output = Result<T, HealthcheckError>>,
) -> Result<T, HealthcheckError> {
    let late = |_| Err(HealthcheckError::Timeout { server: server.to_owned(), seconds });
    tokio::time::timeout(Duration::from_secs(seconds), check).await.unwrap_or_else(late)
}

/// Prints a reason, if there is one. Returns the exit code.
fn report(checked: Result<Option<&'static str>, HealthcheckError>) -> ExitCode {
    match checked {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(refusal)) => {
            // A closed output changes nothing about the health.
            let _ = output::print(&format!("alive, but refuses clients: {refusal}\n"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::print_error(format_args!("unhealthy: {}{}", error_chain(&error), error.advice()));
            ExitCode::FAILURE
        }
    }
}

/// Place to ask for the health of a server.
#[derive(Debug)]
enum Place {
    Url(String),
    /// Path of the Unix socket of an admin listener.
    AdminSocket(PathBuf),
}

/// Returns the place to ask a server on this machine, whose configuration is that of this environment, but
/// for the port if one is given.
fn place_of_server(port: Option<u16>) -> anyhow::Result<Place> {
    let configured = configuration();
    let Some(port) = port else { return place_in(&configured?) };
    // The server may have another configuration.
    let host = configured.ok().and_then(|config| Some(first_tcp(&config)?.0)).unwrap_or_default();
    Ok(Place::Url(url(&host, port)))
}

/// Returns the place to ask a server with this configuration: its admin listener, which answers also when
/// there are too many clients, or else the first TCP address for clients.
fn place_in(config: &Config) -> anyhow::Result<Place> {
    match &config.admin {
        Some(ListenAddress::Tcp { host, port }) if *port != 0 => {
            return Ok(Place::Url(url(host, *port) + LIVENESS_PATH));
        }
        Some(ListenAddress::Unix(path)) => {
            return Ok(Place::AdminSocket(path.clone()));
        }
        _ => {}
    }
    let (host, port) = first_tcp(config).context(
        "a server of this environment listens on no TCP port that is known: give it with --port, or ask the admin \
         listener with --url",
    )?;
    Ok(Place::Url(url(&host, port)))
}

/// Returns the URL of a server that listens on this host and port.
fn url(host: &str, port: u16) -> String {
    // The address of all interfaces is none to connect to.
    let is_every = |host: &str| host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
    match host.trim_start_matches('[').trim_end_matches(']') {
        host if host.is_empty() || is_every(host) => format!("http://127.0.0.1:{port}"),
        host if host.contains(':') => format!("http://[{host}]:{port}"),
        host => format!("http://{host}:{port}"),
    }
}

/// Returns the host and the port of the first TCP address for clients.
fn first_tcp(config: &Config) -> Option<(String, u16)> {
    config.listen.iter().find_map(|address| match address {
        ListenAddress::Tcp { host, port } => Some((host.clone(), *port)),
        _ => None,
    })
}

/// Returns the configuration of a server of this environment.
fn configuration() -> anyhow::Result<Config> {
    let inputs = ProcessInputs {
        env: &status::env,
        env_names: &Vec::new,
        read_file: &|path| regular_file::read_text(path, cli::MAX_CONFIG_FILE),
    };
    match cli::parse("sigver".as_ref(), [], inputs) {
        Outcome::Run(config, _) | Outcome::Check(config, ..) => Ok(config),
        Outcome::Fail(text) | Outcome::UsageError(text) | Outcome::Print(text) => {
            let text = text.lines().next().unwrap_or_default();
            bail!("the configuration of this environment: {}", text.trim_start_matches("error: "))
        }
    }
}

impl HealthcheckError {
    /// Returns what may help, after a semicolon.
    fn advice(&self) -> &'static str {
        let is_closed = match self {
            HealthcheckError::Connect(ConnectError::Network { source, .. })
            | HealthcheckError::Io { source, .. } => {
                matches!(source.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof)
            }
            HealthcheckError::Connect(ConnectError::NotHttp { problem, .. }) => *problem == UNANSWERED,
            _ => false,
        };
        match is_closed {
            true => {
                "; with '--proxy-protocol required', a server answers its proxies only, and one with TLS that has \
                 too many connections closes new ones: ask its admin listener with --url"
            }
            false => "",
        }
    }
}

/// Asks a server, and returns its answer.
async fn check(target: &Target, url: &str) -> Result<Answer, HealthcheckError> {
    let path = match target.path("") {
        path if path.is_empty() => "/".to_owned(),
        path => path,
    };
    let answer = ask(target.dial().await?, &path, target.authority()).await;
    answer.map_err(|source| HealthcheckError::Io { server: url.to_owned(), source })
}

/// Asks the admin listener on a Unix socket.
async fn ask_socket(path: &Path, server: &str) -> Result<Option<&'static str>, HealthcheckError> {
    let io_error = |source| HealthcheckError::Io { server: server.to_owned(), source };
    let answer = async { ask(UnixStream::connect(path).await?, LIVENESS_PATH, "localhost").await };
    match answer.await.map_err(io_error)? {
        Answer::Status(200..=299) => Ok(None),
        Answer::Status(status) => Err(HealthcheckError::Status { server: server.to_owned(), status }),
        Answer::Refusal(_) | Answer::TlsRequired | Answer::Other | Answer::None => {
            Err(io_error(ErrorKind::InvalidData.into()))
        }
    }
}

/// Sends a request, and returns the answer.
async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    host: &str,
) -> std::io::Result<Answer> {
    // Of the path / and with this header first, it is HEALTHCHECK_START.
    let request = format!(
        "GET {path} HTTP/1.1\r\nUser-Agent: sigver-healthcheck\r\nHost: {host}\r\nConnection: close\r\n\r\n",
    );
    // A server that is full answers before it reads the request, and may have closed by now.
    let sent = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await
    };
    let sent = sent.await;
    match (read_answer(&mut stream).await, sent) {
        (Err(_) | Ok(Answer::None), Err(error)) => Err(error),
        (answer, _) => answer,
    }
}

impl Answer {
    /// Checks that the answer is that of a server that is alive. Returns the text by which it refuses
    /// clients, if it does.
    fn check(self, target: &Target, server: String) -> Result<Option<&'static str>, HealthcheckError> {
        match self {
            Answer::Status(200..=299) => Ok(None),
            Answer::Refusal(text) => Ok(Some(text)),
            Answer::Status(status) => Err(HealthcheckError::Status { server, status }),
            Answer::TlsRequired => Err(HealthcheckError::Status { server, status: 400 }),
            Answer::None => Err(target.unanswered().into()),
            Answer::Other => Err(target.not_http().into()),
        }
    }
}

async fn read_answer(stream: impl AsyncRead + Unpin) -> std::io::Result<Answer> {
    let mut read = Vec::new();
    let end = stream.take(MAX_ANSWER).read_to_end(&mut read).await;
    // Some servers end a connection without the close of TLS.
    if read.is_empty() {
        end?;
    }
    let text = String::from_utf8_lossy(&read);
    let mut words = text.split_ascii_whitespace();
    let is_http = words.next().is_some_and(|version| version.starts_with("HTTP/1."));
    let status = words.next().and_then(|status| status.parse().ok()).filter(|_| is_http);
    Ok(match status {
        Some(400) if text.contains(RefusalCause::HttpOnTlsPort.description()) => Answer::TlsRequired,
        Some(status) => match admission::refusal_in(&text) {
            Some(refusal) => Answer::Refusal(refusal),
            None => Answer::Status(status),
        },
        None if read.is_empty() => Answer::None,
        None => Answer::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_are_distinguished() {
        for (bytes, answer) in [
            (&b"HTTP/1.1 200 OK\r\n\r\n"[..], Answer::Status(200)),
            (b"HTTP/1.0 503\r\n", Answer::Status(503)),
            (b"HTTP/1.1 400 Bad Request\r\n\r\nplain text to a port of TLS", Answer::TlsRequired),
            (b"HTTP/1.1 400 Bad Request\r\n\r\nanother", Answer::Status(400)),
            (
                b"HTTP/1.1 503 Service Unavailable\r\n\r\n\
                  503 Service Unavailable: this server has too many connections\n",
                Answer::Refusal("this server has too many connections"),
            ),
            (
                b"HTTP/1.1 503 Service Unavailable\r\n\r\n503 Service Unavailable: no upstream has it\n",
                Answer::Status(503),
            ),
            (b"SSH-2.0-OpenSSH 200\r\n", Answer::Other),
            (b"", Answer::None),
        ] {
            assert_eq!(read_answer(bytes).await.unwrap(), answer);
        }
    }
}
