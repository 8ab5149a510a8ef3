//! A gateway in this process, on a free port, for the time of one command.

use std::net::SocketAddr;

use thiserror::Error;

use crate::config::Config;
use crate::protocol::detect::ProtocolSetError;
use crate::server::{Gateway, StartError};

/// Error of [`start`].
#[derive(Debug, Error)]
pub(crate) enum EphemeralServerError {
    #[error(transparent)]
    Protocol(#[from] ProtocolSetError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the gateway has no TCP address")]
    NoTcpAddress,
}

/// Starts a gateway that serves `protocol`, a list as for `--protocol`. It runs as long as the Tokio runtime.
pub(crate) async fn start(protocol: &str) -> Result<SocketAddr, EphemeralServerError> {
    let config = Config { protocol: protocol.parse()?, ..Config::default() };
    let gateway = Gateway::bind(config.with_address("127.0.0.1", 0)).await?;
    let address = gateway.local_addr().ok_or(EphemeralServerError::NoTcpAddress)?;
    tokio::spawn(gateway.run_until(std::future::pending()));
    Ok(address)
}
