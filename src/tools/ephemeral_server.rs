//! A server for the time of one command: in this process, on a free port, and gone with it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::Notify;

use crate::config::{DEFAULT_MAX_MESSAGE, DEFAULT_MAX_PENDING, EnabledTransports};
use crate::protocol::detect::Policy;
use crate::server::conn::{Context, TimerQueue};
use crate::server::hub::Hub;
use crate::server::signaller::{Signaller, SignallerOptions};
use crate::server::telemetry::Telemetry;
use crate::server::{Options, listener, serve};

/// Starts one that serves what `--protocol` names here. It lives as long as the runtime does.
pub async fn start(protocol: &str) -> Result<SocketAddr> {
    let protocols = Policy::parse(protocol)?;
    let relay_only = protocols.releases.is_empty();
    let context = Arc::new(Context {
        hub: Hub::new(),
        telemetry: Telemetry::new(),
        policy: Arc::new(Policy::new(protocols.releases)),
        max_pending: DEFAULT_MAX_PENDING,
        idle: Duration::from_secs(45),
        signaller: protocols.signaller.then(|| Signaller::new(SignallerOptions::default(), relay_only)),
        stopping: AtomicBool::new(false),
        stop: Notify::new(),
        alarm: TimerQueue::default(),
    });
    let listener = listener::bind("127.0.0.1", 0).await?;
    let address = listener.local_addr()?;
    let options = Options { max_message: DEFAULT_MAX_MESSAGE, transports: EnabledTransports::All };
    tokio::spawn(serve(listener, None, options, context, std::future::pending()));
    Ok(address)
}
