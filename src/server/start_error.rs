//! Failures to start a gateway.

use std::io;
#[cfg(feature = "cluster")]
use std::net::SocketAddr;
#[cfg(feature = "cluster")]
use std::path::PathBuf;

use thiserror::Error;

use super::auth::AuthError;
use super::bridge::BridgeStartError;
#[cfg(feature = "cluster")]
use super::cluster::EngineError;
use super::listener::ListenError;
use super::tls::TlsError;
use crate::config::ConfigError;
#[cfg(feature = "cluster")]
use crate::config::io_text::read_error_text;
#[cfg(feature = "cluster")]
use crate::config::redact::displayed_path;

/// Failure to start a gateway, in one line.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The files for TLS are missing or invalid.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Tokens cannot be checked.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// There can be no bridge.
    #[error(transparent)]
    Bridge(#[from] BridgeStartError),
    /// The gateway cannot be a node of a cluster.
    #[cfg(feature = "cluster")]
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system does not return the address of the listening socket.
    #[error("cannot get the address of the listening socket: {0}")]
    LocalAddress(#[source] io::Error),
}

/// Failure to start a node of a cluster.
#[cfg(feature = "cluster")]
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The file with the password cannot be read.
    #[error(
        "cannot read the file of --cluster-password-file, {}: {}",
        displayed_path(path),
        read_error_text(source)
    )]
    PasswordFile {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The URL of the engine cannot be used.
    #[error("cannot use --cluster: {0}")]
    Engine(#[from] EngineError),
    /// The file with the password has none.
    #[error("the first line of the file of --cluster-password-file, {path}, is empty: write the password there", path = displayed_path(.0))]
    NoPassword(PathBuf),
    /// The host of the engine has no address.
    #[error("cannot find the address of '{host}' in --cluster ({source}): check that host")]
    EngineHost {
        /// The host.
        host: String,
        /// Cause.
        source: io::Error,
    },
    /// No port for clients is known, from which that for nodes would follow.
    #[error("a server without a TCP port for clients needs '--node-port <number>' with '--cluster <url>'")]
    NoPort,
    /// The address of this machine is not known.
    #[error("cannot find out where other nodes reach this one ({0}): add '--node-address <host>'")]
    NoAddress(#[source] io::Error),
    /// The port for nodes cannot be listened on.
    #[error("cannot listen on {address} for other nodes: {}", listen_error_text(source))]
    Listen {
        /// Address and port.
        address: SocketAddr,
        /// Cause.
        source: io::Error,
    },
}

#[cfg(feature = "cluster")]
fn listen_error_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is in use; choose another one with '--node-port <number>'".to_owned()
        }
        _ => read_error_text(error),
    }
}
