//! The task of a node that talks to the engine: it keeps the lease, and the claims in it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::engine::{Engine, MAX_KEPT, NodeEntry, Renewal};
use super::engine_fault::{EngineConnection, EngineError, EngineLog, Recovery, explain};
use super::node::ClusterNode;
use super::node_clock::now;
use crate::protocol::cluster::{EngineFailure, FORGET_TIMEOUT, Generation, NodeId};

/// Time between two renewals of the lease.
const RENEW_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which the engine is sent all claims again, so that it does not forget them.
const KEEP_INTERVAL: Duration = Duration::from_secs(200);
const _: () = assert!(KEEP_INTERVAL.as_millis() < FORGET_TIMEOUT as u128);
/// Pause before the engine is tried again: new rooms wait for it.
const ENGINE_PAUSE: Duration = Duration::from_millis(200);

impl ClusterNode {
    /// Has the connection to the engine opened again, if it is still the one over which a request failed.
    pub(super) fn engine_failed(&self, engine: &Engine, error: &EngineError) {
        tracing::debug!(%error, "Redis failed");
        self.engine_fault.lock().failed(engine.number, explain(error, EngineConnection::Open));
        engine.fail();
    }

    /// Keeps the lease, over one connection after the other.
    pub(super) async fn follow_engine(self: Arc<Self>) {
        let mut log = EngineLog::default();
        for number in 1.. {
            let address = &self.settings.engine;
            let (place, fault, failure) = match Engine::open(address).await {
                Ok(mut engine) => {
                    engine.number = number;
                    let place = engine.place().to_owned();
                    (place, self.keep_lease(engine, &mut log).await, EngineFailure::Unreachable)
                }
                Err(error) => {
                    let connection = EngineConnection::Opening { is_tls: address.has_tls() };
                    (address.describe(), explain(&error, connection), address.failure(&error))
                }
            };
            self.with_state(|state| {
                state.engine = None;
                state.lost_since.get_or_insert_with(now);
                state.ownership.engine_failed(failure, now());
            });
            if self.has_left.load(Ordering::Acquire) {
                return;
            }
            if log.failed(&fault, Instant::now().into_std()) {
                let (_, consequence) = self.loss_consequence();
                tracing::error!("Redis at {place} fails: {fault} ({consequence})");
            }
            self.engine_fault.lock().failed(number, fault);
            sleep(ENGINE_PAUSE).await;
        }
    }

    /// Renews the lease over one connection. Returns the reason for which that is over.
    async fn keep_lease(self: &Arc<Self>, engine: Engine, log: &mut EngineLog) -> String {
        let mut entry = NodeEntry {
            address: self.settings.address.clone(),
            public_key: self.links.get().map(|links| links.public_key().clone()).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.settings.name.clone(),
            rooms: 0,
            expired: None,
        };
        let opened = Instant::now();
        let mut kept_at: Option<Instant> = None;
        loop {
            if self.has_left.load(Ordering::Acquire) {
                return "this node has ended".to_owned();
            }
            let running = self.nodes_without_lease();
            if !running.is_empty()
                && let Err(error) = engine.report_running(&running).await
            {
                return explain(&error, EngineConnection::Open);
            }
            let sent = now();
            let (since, known) = {
                let state = self.state.lock();
                entry.rooms = state.ownership.owned();
                let lease = state.ownership.lease();
                (lease.since_renewal(sent), lease.generation())
            };
            let begin = Instant::now();
            let returns = self.is_replaced() && !self.has_left.load(Ordering::Acquire);
            let renewal = engine.renew(self.id, &entry, since, known, returns).await;
            self.counts.times.renewals.observe(begin.elapsed().as_secs_f64());
            let (view, others, replaced) = match renewal {
                Ok(Renewal::Renewed(view, others, replaced)) => (view, others, replaced),
                Ok(Renewal::Replaced(_)) if self.has_left.load(Ordering::Acquire) => continue,
                Ok(Renewal::Replaced(other)) => {
                    self.set_replaced(engine.number, other.as_ref());
                    kept_at = None;
                    sleep(RENEW_INTERVAL).await;
                    continue;
                }
                Err(error) => return explain(&error, EngineConnection::Open),
            };
            self.report_renewal(&engine, log.works(opened.elapsed()), replaced.as_ref());
            self.follow_nodes(others);
            let generation = view.generation;
            self.counts.see_generation(generation);
            // The names are lost since, and are claimed again.
            self.replaced.store(false, Ordering::Relaxed);
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
                    Err(error) => return explain(&error, EngineConnection::Open),
                }
                kept_at = Some(Instant::now());
                self.with_state(|state| {
                    state.engine = Some(engine.clone());
                    state.lost_since = None;
                    state.is_unknown_reported = false;
                    state.ownership.engine_ready(generation, now());
                });
            }
            tokio::select! {
                () = sleep(RENEW_INTERVAL) => {}
                () = self.renew.notified() => {}
                () = engine.failure() => return self.engine_fault.lock().text().to_owned(),
            }
        }
    }

    /// Returns the other nodes that run, and whose leases have ended or are unknown to the engine.
    fn nodes_without_lease(&self) -> Vec<(NodeId, NodeEntry)> {
        let state = self.state.lock();
        let entry = |node| {
            let expired = state.entries.get(&node).filter(|entry| entry.expired.is_some());
            Some((node, expired.or_else(|| state.departed.entry(node))?.clone()))
        };
        state.ownership.lease().running(now()).filter_map(entry).collect()
    }

    /// Loses all rooms, as another node has the address of this one, until that node has ended.
    fn set_replaced(&self, connection: u64, other: Option<&NodeEntry>) {
        let (name, address) = (&self.settings.name, &self.settings.address);
        let other = other.map_or("another process", |other| &other.name);
        let fault = format!(
            "{other} has taken {address}, the address of this node, {name}: give each node one of its own \
             (--node-address)"
        );
        self.engine_fault.lock().failed(connection, fault.clone());
        if self.replaced.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::error!("{fault}. The rooms of this node are closed until {other} has ended");
        self.with_state(|state| {
            state.engine = None;
            state.lost_since.get_or_insert_with(now);
            state.ownership.replaced(now());
        });
    }

    /// Logs what a renewal has changed.
    fn report_renewal(&self, engine: &Engine, recovery: Option<Recovery>, replaced: Option<&NodeEntry>) {
        let (name, address) = (&self.settings.name, &self.settings.address);
        if let Some(recovery) = recovery {
            let (cluster, url) = (self.cluster_name(), engine.place());
            match recovery {
                Recovery::First => {
                    tracing::info!("node {name} of cluster {cluster}, at {address}: Redis at {url} answers");
                }
                Recovery::Again => tracing::info!("Redis at {url} answers again"),
            }
        }
        if self.is_replaced() {
            tracing::info!("{address} is free again: this node, {name}, may have rooms again");
        }
        // A process that was started again has the name of the one before.
        if let Some(other) = replaced.filter(|other| other.name != *name) {
            let other = &other.name;
            tracing::error!(
                "{other} had {address}, the address of this node, {name}, until now: if {other} still runs, its \
                 rooms are closed; give each node an address of its own (--node-address)"
            );
        }
    }

    /// Sends the engine all claims. Returns false if it has other data.
    async fn keep_claims(&self, engine: &Engine, generation: Generation) -> Result<bool, EngineError> {
        let claims: Vec<_> =
            self.state.lock().ownership.claims().map(|(key, claim)| (key.clone(), claim)).collect();
        for claims in claims.chunks(MAX_KEPT) {
            let hashed: Vec<_> = claims
                .iter()
                .map(|(key, claim)| (self.names.room(key.as_str(), key.partition()), *claim))
                .collect();
            let Some(lost) = engine.keep(self.id, &hashed, generation).await? else { return Ok(false) };
            self.with_state(|state| {
                for (index, (key, claim)) in claims.iter().enumerate() {
                    state.ownership.kept(key, *claim, !lost.contains(&index), generation);
                }
            });
        }
        Ok(true)
    }
}
