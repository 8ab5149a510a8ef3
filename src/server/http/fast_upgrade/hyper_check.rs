//! The invariant of the fast path, checked with hyper: for its tests, and for fuzzing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a check fails by a panic")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Builder;

use super::{FirstRead, Rewind, Routes, UpgradeTarget, try_upgrade};
use crate::config::ServerLimits;
use crate::protocol::dialect::UpgradeRequest;
use crate::server::admission::Admission;
use crate::server::client_endpoint::ClientEndpoint;
use crate::server::memory::MemoryBudget;
use crate::server::reloadable::ReloadableTime;

/// Longest time that hyper takes for a request that is whole.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns routes with WebSockets alone.
pub(super) fn routes() -> Routes {
    Routes {
        websockets: true,
        signaller: None,
        events: None,
        shutdown: Arc::default(),
        telemetry: Arc::default(),
        head_timeout: ReloadableTime::new(Duration::from_secs(10)),
        refusals: Arc::default(),
        access: None,
        admission: Admission::new(&ServerLimits::default(), &MemoryBudget::new(usize::MAX), &Arc::default()),
    }
}

/// A granted upgrade: the lines of the response, the request as parsed, and the bytes behind it.
pub(super) type Granted = (Vec<String>, UpgradeRequest, Bytes);

fn granted(response: Vec<u8>, prefetched: Bytes, target: UpgradeTarget) -> Granted {
    let UpgradeTarget::Room(upgrade) = target else { panic!("not a room: {target:?}") };
    let response = String::from_utf8(response).unwrap();
    assert!(response.ends_with("\r\n\r\n"), "{response}");
    let lines = response.split("\r\n");
    (lines.map(str::to_owned).collect(), upgrade, prefetched)
}

pub(super) fn by_fast_path(bytes: &[u8]) -> Option<Granted> {
    match try_upgrade(bytes, &routes())? {
        FirstRead::Upgrade { response, prefetched, target } => Some(granted(response, prefetched, target)),
        FirstRead::Other(_) => None,
    }
}

async fn by_hyper(bytes: &[u8]) -> Option<Granted> {
    let (mut client, server) = tokio::io::duplex(bytes.len().max(64 * 1024));
    client.write_all(bytes).await.unwrap();
    let stream = Rewind::new(Bytes::new(), server, &routes()).unwrap();
    let endpoint = ClientEndpoint { remote: None, tls: false, behind_proxy: false };
    let alive = tokio_util::task::TaskTracker::new().token();
    let served = super::super::serve_by_hyper(stream, endpoint, Arc::new(routes()), alive);
    let upgraded = tokio::time::timeout(TIMEOUT, served).await.ok()??;
    // The response is left to the WebSocket.
    drop(upgraded.stream);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    Some(granted(upgraded.granted.response, upgraded.prefetched, upgraded.granted.target))
}

/// Checks the invariant for one input. Returns true if the fast path accepts it.
pub(crate) fn check_invariant(bytes: &[u8]) -> bool {
    let Some(fast) = by_fast_path(bytes) else { return false };
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    assert_eq!(Some(fast), runtime.block_on(by_hyper(bytes)), "{:?}", String::from_utf8_lossy(bytes));
    true
}
