//! The task of a node that talks to the engine: it keeps the lease, and the claims in it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::engine::{Engine, MAX_KEPT, NodeEntry, Renewal};
use super::node::ClusterNode;
use super::node_clock::now;
use crate::protocol::cluster::Generation;

/// Time between two renewals of the lease.
const RENEW_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which the engine is sent all claims again, so that it does not forget them.
const KEEP_INTERVAL: Duration = Duration::from_secs(200);
/// Pause before the engine is tried again: new rooms wait for it.
const ENGINE_PAUSE: Duration = Duration::from_millis(200);

impl ClusterNode {
    /// Has the connection to the engine opened again.
    pub(super) fn engine_failed(&self, error: &dyn std::error::Error) {
        tracing::debug!(%error, "Redis failed");
        self.engine_error.notify_one();
    }

    /// Keeps the lease, over one connection after the other.
    pub(super) async fn follow_engine(self: Arc<Self>) {
        let mut reported = false;
        loop {
            let error = match Engine::open(&self.settings.engine).await {
                Ok(engine) => {
                    if std::mem::take(&mut reported) {
                        tracing::info!("Redis answers again");
                    }
                    self.keep_lease(engine).await
                }
                Err(error) => error.to_string(),
            };
            self.with_state(|state| {
                state.engine = None;
                state.lost_since.get_or_insert_with(now);
                state.ownership.engine_failed(now());
            });
            if self.buried() || self.has_left.load(Ordering::Acquire) {
                return;
            }
            if !std::mem::replace(&mut reported, true) {
                tracing::error!(error, "Redis fails: rooms of this cluster go on, new ones have to wait");
            }
            sleep(ENGINE_PAUSE).await;
        }
    }

    /// Renews the lease over one connection. Returns the reason for which that is over.
    async fn keep_lease(self: &Arc<Self>, engine: Engine) -> String {
        let mut entry = NodeEntry {
            address: self.settings.address.clone(),
            public_key: self.links.get().map(|links| links.public_key().clone()).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.settings.name.clone(),
            rooms: 0,
        };
        let mut kept_at: Option<Instant> = None;
        loop {
            if self.has_left.load(Ordering::Acquire) {
                return "this node has ended".to_owned();
            }
            let sent = now();
            let since = {
                let state = self.state.lock();
                entry.rooms = state.ownership.owned();
                state.ownership.lease().since_renewal(sent)
            };
            let begin = Instant::now();
            let renewal = engine.renew(self.id, &entry, since).await;
            self.counts.times.renewals.observe(begin.elapsed().as_secs_f64());
            let (view, others) = match renewal {
                Ok(Renewal::Renewed(view, others)) => (view, others),
                Ok(Renewal::Buried) if self.has_left.load(Ordering::Acquire) => continue,
                Ok(Renewal::Buried) => {
                    tracing::error!("another process has the address of this node: its rooms are closed");
                    self.buried.store(true, Ordering::Relaxed);
                    return "this node was replaced".to_owned();
                }
                Err(error) => return error.to_string(),
            };
            self.follow_nodes(others);
            let generation = view.generation;
            self.counts.see_generation(generation);
            let (must_keep, is_superseded) = self.with_state(|state| {
                let must_keep = state.ownership.renewed(sent, view, now());
                (must_keep, state.ownership.lease().is_superseded(now()))
            });
            if is_superseded {
                return "other nodes know a Redis with newer data".to_owned();
            }
            if must_keep || kept_at.is_none_or(|at| at.elapsed() >= KEEP_INTERVAL) {
                match self.keep_claims(&engine, generation).await {
                    Ok(true) => {}
                    // Other data since: they are renewed at once.
                    Ok(false) => continue,
                    Err(error) => return error,
                }
                kept_at = Some(Instant::now());
                self.with_state(|state| {
                    state.engine = Some(engine.clone());
                    state.lost_since = None;
                    state.ownership.engine_ready(generation, now());
                });
            }
            tokio::select! {
                () = sleep(RENEW_INTERVAL) => {}
                () = self.renew.notified() => {}
                () = self.engine_error.notified() => return "a request failed".to_owned(),
            }
        }
    }

    /// Sends the engine all claims. Returns false if it has other data.
    async fn keep_claims(&self, engine: &Engine, generation: Generation) -> Result<bool, String> {
        let claims: Vec<_> =
            self.state.lock().ownership.claims().map(|(key, claim)| (key.clone(), claim)).collect();
        for claims in claims.chunks(MAX_KEPT) {
            let hashed: Vec<_> = claims
                .iter()
                .map(|(key, claim)| (self.names.room(key.as_str(), key.partition()), *claim))
                .collect();
            let kept = engine.keep(self.id, &hashed, generation).await.map_err(|error| error.to_string())?;
            let Some(lost) = kept else { return Ok(false) };
            self.with_state(|state| {
                for (index, (key, claim)) in claims.iter().enumerate() {
                    state.ownership.kept(key, *claim, !lost.contains(&index), generation);
                }
            });
        }
        Ok(true)
    }
}
