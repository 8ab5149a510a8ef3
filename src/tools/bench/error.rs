//! Why something cannot be measured, in words that tell what to do about it. No I/O here.

use std::io;

use thiserror::Error;

use crate::tools::client::protocol::Protocol;
use crate::tools::dial::{ConnectError, error_chain};

/// Linux and the BSDs call "too many open files" so, of the process and of the system.
const TOO_MANY_FILES: [i32; 2] = [24, 23];

/// Why something cannot be measured.
#[derive(Debug, Error)]
pub enum Error {
    /// A dialect has no words for it.
    #[error("{tongue} cannot do this: {why}")]
    Cannot {
        /// Which dialect.
        tongue: Protocol,
        /// What it lacks.
        why: &'static str,
    },
    /// What is asked for makes no sense.
    #[error("{0}")]
    Senseless(String),
    /// There is no connection.
    #[error("{}", error_chain(.0))]
    ConnectError(ConnectError),
    /// This process may not have as many files.
    #[error("too many open files: {0}")]
    Files(String),
    /// This machine has no port left.
    #[error(
        "no local port is left: one address has some 28,000 of them for each address and port of the server \
         (sysctl net.ipv4.ip_local_port_range); use fewer connections, or another client machine"
    )]
    Ports,
    /// The server does not let a client in.
    #[error("{0}")]
    Refused(String),
    /// A connection has ended.
    #[error("{0}")]
    Closed(String),
    /// Something did not come in time.
    #[error("{what} does not come within {seconds} seconds")]
    Slow {
        /// What.
        what: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Of a member or a joiner.
    #[error("{whose}: {error}")]
    Of {
        /// Whose error it is.
        whose: String,
        /// What it is.
        error: Box<Error>,
    },
    /// The server's process cannot be looked at.
    #[error("process {pid} cannot be watched: {why}")]
    Process {
        /// Which process.
        pid: u32,
        /// Why.
        why: String,
    },
    /// Somebody has asked for the end before there was anything to tell.
    #[error("interrupted before anything was measured")]
    Interrupted,
}

impl Error {
    /// Of a connection that the network has ended.
    pub fn broken(error: io::Error) -> Error {
        Error::Closed(format!("the connection breaks: {error}"))
    }

    /// The same, of somebody.
    pub fn of(self, whose: &str) -> Error {
        match self {
            error @ (Error::Files(_) | Error::Ports | Error::Interrupted) => error,
            error => Error::Of { whose: whose.to_owned(), error: Box::new(error) },
        }
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Error {
        match &error {
            ConnectError::Network { source: error, .. }
                if error.raw_os_error().is_some_and(|code| TOO_MANY_FILES.contains(&code)) =>
            {
                Error::Files("raise the limit (ulimit -n), or use fewer connections".to_owned())
            }
            ConnectError::Network { source: error, .. }
                if error.kind() == io::ErrorKind::AddrNotAvailable =>
            {
                Error::Ports
            }
            _ => Error::ConnectError(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_lacks_is_told() {
        let of = |error: io::Error| {
            let error = ConnectError::Network { server: "ws://h".to_owned(), source: error };
            Error::from(error).of("a member")
        };
        assert!(of(io::Error::from_raw_os_error(24)).to_string().contains("ulimit -n"));
        assert!(of(io::ErrorKind::AddrNotAvailable.into()).to_string().contains("ip_local_port_range"));
        let refused = of(io::ErrorKind::ConnectionRefused.into()).to_string();
        assert!(refused.starts_with("a member: cannot connect to ws://h: "), "{refused}");
    }
}
