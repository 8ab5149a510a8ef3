//! A gateway in this process, on a free port, for the time of one command.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};

use crate::config::Config;
use crate::server::Gateway;

/// Starts a gateway that serves `protocol`, a list as for `--protocol`. It runs as long as the Tokio runtime.
pub(crate) async fn start(protocol: &str) -> Result<SocketAddr> {
    let config = Config { protocol: protocol.parse()?, ..Config::default() };
    let gateway = Gateway::bind(config.with_address("127.0.0.1", 0)).await?;
    let address = gateway.local_addr().context("the gateway has no TCP address")?;
    tokio::spawn(gateway.run_until(std::future::pending()));
    Ok(address)
}
