//! `sigver healthcheck`: tests that a gateway answers, by its exit code: for Docker, systemd and scripts.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::dial::{ConnectError, Target, TrustArgs, UNANSWERED, error_chain};
use super::status;
use crate::cli::{self, Outcome, ProcessInputs};
use crate::config::{ListenAddress, parse};
use crate::output;
use crate::server::{RefusalCause, regular_file};

/// Most bytes of an answer that are read.
const MAX_ANSWER: u64 = 1024;

/// Arguments of `sigver healthcheck`.
#[derive(Debug, clap::Args)]
pub(crate) struct HealthcheckArgs {
    /// Port of the gateway [default: that of its environment and of the file of SIGVER_CONFIG, or 8000]
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
        None => url_of_server(args.port)?,
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
    let late = || HealthcheckError::Timeout { server: url.clone(), seconds: args.timeout };
    let checked = tokio::time::timeout(Duration::from_secs(args.timeout), checks).await;
    match checked.unwrap_or_else(|_| Err(late())) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            output::print_error(format_args!("unhealthy: {}{}", error_chain(&error), error.advice()));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Returns the URL of the server on this machine, whose configuration is that of this environment, but for
/// the port if one is given.
fn url_of_server(port: Option<u16>) -> anyhow::Result<String> {
    let (host, port) = match (port, configured_address()) {
        (None, configured) => configured?,
        (Some(port), Ok((host, _))) => (host, port),
        // The server has another configuration.
        (Some(port), Err(_)) => (String::new(), port),
    };
    // The address of all interfaces is none to connect to.
    let is_every = |host: &str| host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
    Ok(match host.trim_start_matches('[').trim_end_matches(']') {
        host if host.is_empty() || is_every(host) => format!("http://127.0.0.1:{port}"),
        host if host.contains(':') => format!("http://[{host}]:{port}"),
        host => format!("http://{host}:{port}"),
    })
}

/// Returns the host and the port of the first TCP address on which a server of this environment listens.
fn configured_address() -> anyhow::Result<(String, u16)> {
    let inputs = ProcessInputs {
        env: &status::env,
        env_names: &Vec::new,
        read_file: &|path| regular_file::read_text(path, cli::MAX_CONFIG_FILE),
    };
    let config = match cli::parse("sigver".as_ref(), [], inputs) {
        Outcome::Run(config, _) | Outcome::Check(config, ..) => config,
        Outcome::Fail(text) | Outcome::UsageError(text) | Outcome::Print(text) => {
            let text = text.lines().next().unwrap_or_default();
            bail!("the configuration of this environment: {}", text.trim_start_matches("error: "))
        }
    };
    let address = config.listen.into_iter().find_map(|address| match address {
        ListenAddress::Tcp { host, port } => Some((host, port)),
        _ => None,
    });
    address.context(
        "a server of this environment listens on no TCP port that is known: give it with --port, or ask the admin \
         listener with --url",
    )
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
                "; with '--proxy-protocol required', a server answers its proxies only: ask its admin listener \
                 with --url"
            }
            false => "",
        }
    }
}

/// Asks a server, and returns its answer.
async fn check(target: &Target, url: &str) -> Result<Answer, HealthcheckError> {
    let mut stream = target.dial().await?;
    let path = match target.path("") {
        path if path.is_empty() => "/".to_owned(),
        path => path,
    };
    // Of the path / and with this header first, it is HEALTHCHECK_START.
    let request = format!(
        "GET {path} HTTP/1.1\r\nUser-Agent: sigver-healthcheck\r\nHost: {}\r\nConnection: close\r\n\r\n",
        target.authority()
    );
    let answer = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        read_answer(&mut stream).await
    };
    answer.await.map_err(|source| HealthcheckError::Io { server: url.to_owned(), source })
}

impl Answer {
    /// Checks that the answer is that of a healthy server.
    fn check(self, target: &Target, server: String) -> Result<(), HealthcheckError> {
        match self {
            Answer::Status(200..=299) => Ok(()),
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
        Some(status) => Answer::Status(status),
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
            (b"SSH-2.0-OpenSSH 200\r\n", Answer::Other),
            (b"", Answer::None),
        ] {
            assert_eq!(read_answer(bytes).await.unwrap(), answer);
        }
    }
}
