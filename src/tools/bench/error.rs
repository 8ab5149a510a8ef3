//! Errors of a measurement.

use std::io;

use thiserror::Error;

use crate::tools::client::protocol::Protocol;
use crate::tools::dial::{ConnectError, error_chain, io_error_text};

/// Error codes of "too many open files" on Linux and the BSDs: of the process, of the system.
const TOO_MANY_FILES: [i32; 2] = [24, 23];

/// Error of a measurement.
#[derive(Debug, Error)]
pub enum Error {
    /// The dialect lacks a message that the measurement needs.
    #[error("{protocol} cannot do this: {why}")]
    Unsupported {
        /// The dialect.
        protocol: Protocol,
        /// The missing capability.
        why: &'static str,
    },
    /// The plan cannot be measured.
    #[error("{0}")]
    InvalidPlan(String),
    /// The connection failed.
    #[error("{}", error_chain(.0))]
    ConnectError(ConnectError),
    /// The process's limit of open files is too low.
    #[error("too many open files: {0}")]
    FileLimit(String),
    /// No local port is left.
    #[error(
        "no local port is left: one address has some 28,000 of them for each address and port of the server \
         (sysctl net.ipv4.ip_local_port_range); use fewer connections, or another client machine"
    )]
    NoLocalPort,
    /// The server rejected a client.
    #[error("{0}")]
    Refused(String),
    /// The connection ended.
    #[error("{0}")]
    Closed(String),
    /// A deadline passed.
    #[error("timeout: no {what} within {seconds} s")]
    Timeout {
        /// The awaited event.
        what: &'static str,
        /// The timeout, in seconds.
        seconds: u64,
    },
    /// An error with the client that it belongs to.
    #[error("{client}: {error}")]
    Context {
        /// The client.
        client: String,
        /// The error.
        error: Box<Error>,
    },
    /// The server's process cannot be inspected.
    #[error("cannot inspect process {pid}: {why}")]
    Process {
        /// The process.
        pid: u32,
        /// The reason.
        why: String,
    },
    /// The measurement was stopped before there was a result.
    #[error("interrupted before anything was measured")]
    Interrupted,
}

impl Error {
    /// Returns the error of a connection that failed with `error`.
    pub(crate) fn broken(error: io::Error) -> Error {
        Error::Closed(format!("connection failed: {}", io_error_text(&error)))
    }

    /// Returns the error with `client` named, unless it concerns the whole measurement.
    pub(crate) fn in_context(self, client: &str) -> Error {
        match self {
            error @ (Error::FileLimit(_) | Error::NoLocalPort | Error::Interrupted) => error,
            error => Error::Context { client: client.to_owned(), error: Box::new(error) },
        }
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Error {
        match &error {
            ConnectError::Network { source: error, .. }
                if error.raw_os_error().is_some_and(|code| TOO_MANY_FILES.contains(&code)) =>
            {
                Error::FileLimit("raise the limit (ulimit -n), or use fewer connections".to_owned())
            }
            ConnectError::Network { source: error, .. }
                if error.kind() == io::ErrorKind::AddrNotAvailable =>
            {
                Error::NoLocalPort
            }
            _ => Error::ConnectError(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_limits_are_explained() {
        let in_context = |source: io::Error| {
            let server = "ws://h".to_owned();
            Error::from(ConnectError::Network { server, source }).in_context("a member")
        };
        assert!(in_context(io::Error::from_raw_os_error(24)).to_string().contains("ulimit -n"));
        assert!(
            in_context(io::ErrorKind::AddrNotAvailable.into()).to_string().contains("ip_local_port_range")
        );
        let refused = in_context(io::ErrorKind::ConnectionRefused.into()).to_string();
        assert!(refused.starts_with("a member: cannot connect to ws://h: "), "{refused}");
    }
}
