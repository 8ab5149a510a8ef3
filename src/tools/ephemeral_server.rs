//! A server for the time of one command: in this process, on a free port, and gone with it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use crate::config::{DEFAULT_MAX_MESSAGE, DEFAULT_MAX_PENDING, EnabledTransports, LogIp};
use crate::protocol::detect::Policy;
use crate::server::conn::{ConnectionLimits, Shared};
use crate::server::signaller::{Signaller, SignallerOptions};
use crate::server::{Options, listener, serve};

/// Starts one that serves what `--protocol` names here. It lives as long as the runtime does.
pub async fn start(protocol: &str) -> Result<SocketAddr> {
    let protocols = Policy::parse(protocol)?;
    let relay_only = protocols.releases.is_empty();
    let limits = ConnectionLimits { max_pending: DEFAULT_MAX_PENDING, ping_after: Duration::from_secs(45) };
    let shared = Shared::new(Policy::new(protocols.releases), limits, LogIp::Off);
    let signaller = protocols.signaller.then(|| Signaller::new(SignallerOptions::default(), relay_only));
    let listener = listener::bind("127.0.0.1", 0).await?;
    let address = listener.local_addr()?;
    let options = Options { max_message: DEFAULT_MAX_MESSAGE, transports: EnabledTransports::All };
    tokio::spawn(serve(listener, None, options, shared, signaller, std::future::pending()));
    Ok(address)
}
