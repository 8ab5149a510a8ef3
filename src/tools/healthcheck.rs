//! `sigver healthcheck`: tests that a gateway answers, by its exit code: for Docker, systemd and scripts.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::dial::{ConnectError, Target, TrustArgs, error_chain};
use super::status;
use crate::config::{DEFAULT_PORT, parse};
use crate::output;
use crate::server::RefusalCause;

/// Most bytes of an answer that are read.
const MAX_ANSWER: u64 = 1024;

/// Arguments of `sigver healthcheck`.
#[derive(Debug, clap::Args)]
pub(crate) struct HealthcheckArgs {
    /// Port of the gateway, as given by its --port or SIGVER_PORT [default: 8000]
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
            output::print_error(format_args!("unhealthy: {}", error_chain(&error)));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Returns the URL of the server on this machine with the given port, or those of its environment.
fn url_of_server(port: Option<u16>) -> anyhow::Result<String> {
    let port = status::port_of_server(port)?.unwrap_or(DEFAULT_PORT);
    let host = status::env("SIGVER_HOST").filter(|host| {
        // The address of all interfaces is none to connect to.
        !host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
    });
    Ok(match host {
        Some(host) if host.contains(':') => format!("http://[{host}]:{port}"),
        Some(host) => format!("http://{host}:{port}"),
        None => format!("http://127.0.0.1:{port}"),
    })
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
