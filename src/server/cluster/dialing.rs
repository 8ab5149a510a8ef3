//! The links that a node keeps to the others, and log lines about nodes that it does not reach.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::{Instant, sleep};

use super::engine::NodeEntry;
use super::link_fault::LinkFault;
use super::node::ClusterNode;
use super::node_clock::now;
use crate::protocol::cluster::{FORGET_TIMEOUT, NodeId};

/// Shortest and longest pause before another node is tried again.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Time without a link until it is logged: a node that starts is not known to all others yet.
const REPORT_AFTER: Duration = Duration::from_secs(5);
/// Time for which the address of a node that the engine does not know any more is watched.
const DEPARTED_TIMEOUT: Duration = Duration::from_millis(FORGET_TIMEOUT);
/// Time between two lines about a node.
const REPORT_PAUSE: Duration = Duration::from_secs(60);

/// A node that the engine does not know any more. A process at its address that this node does not know may
/// have been started with an engine that does not answer this node.
#[derive(Clone, Debug)]
pub(super) struct DepartedNode {
    address: String,
    since: Instant,
}

/// Another node to which there is no link.
#[derive(Clone, Debug)]
pub(super) struct Unlinked {
    pub(super) since: Instant,
    /// The text of the last failure.
    pub(super) fault: String,
    reported: Option<Instant>,
}

impl Unlinked {
    fn new(now: Instant) -> Self {
        Unlinked { since: now, fault: "not tried yet".to_owned(), reported: None }
    }

    /// Returns true if there has been no link for longer than a node that starts needs.
    pub(super) fn is_lasting(&self) -> bool {
        self.since.elapsed() >= REPORT_AFTER
    }

    /// Takes note of a failure. Returns the time without a link if a line is due.
    fn failed(&mut self, fault: String, now: Instant) -> Option<Duration> {
        self.fault = fault;
        let time = now.saturating_duration_since(self.since);
        let is_due = match self.reported {
            None => time >= REPORT_AFTER,
            Some(at) => now.saturating_duration_since(at) >= REPORT_PAUSE,
        };
        is_due.then(|| {
            self.reported = Some(now);
            time
        })
    }
}

impl ClusterNode {
    /// Takes note of the other nodes, and dials those that are new.
    pub(super) fn follow_nodes(self: &Arc<Self>, others: Vec<(NodeId, NodeEntry)>) {
        let Some(links) = self.links.get() else { return };
        links.known().set(others.iter().map(|(node, entry)| (entry.public_key.clone(), *node)));
        let others: HashMap<_, _> = others.into_iter().collect();
        self.with_state(|state| {
            // One whose address another has by now has ended.
            let has_ended = |(node, entry): &(&NodeId, &NodeEntry)| {
                !others.contains_key(node) && others.values().any(|other| other.address == entry.address)
            };
            let ended: Vec<_> = state.entries.iter().filter(has_ended).map(|(node, _)| *node).collect();
            ended.into_iter().for_each(|node| state.ownership.ended(node, now()));
            let entries = &others;
            for (node, NodeEntry { address, .. }) in state.entries.drain() {
                if !entries.contains_key(&node) {
                    state.departed.insert(node, DepartedNode { address, since: Instant::now() });
                }
            }
            state.departed.retain(|node, departed| {
                let is_recent = departed.since.elapsed() < DEPARTED_TIMEOUT;
                let has_successor = entries.values().any(|other| other.address == departed.address);
                is_recent && !has_successor && !entries.contains_key(node)
            });
            state.entries = others;
        });
        let mut state = self.state.lock();
        let new: Vec<_> =
            state.entries.keys().filter(|node| !state.dialled.contains(node)).copied().collect();
        for other in new {
            if let Some(entry) = state.entries.get(&other) {
                self.check_name(entry);
            }
            state.dialled.insert(other);
            let node = Arc::clone(self);
            tokio::spawn(async move { node.keep_link(other).await });
        }
    }

    fn check_name(&self, other: &NodeEntry) {
        if other.expired.is_none() && other.name == self.settings.name {
            let (name, own, theirs) = (&other.name, &self.settings.address, &other.address);
            tracing::warn!(
                "two nodes are named {name}, at {own} and {theirs}: name each of them (--node-name)"
            );
        }
    }

    /// Returns the name and the address of another node.
    pub(super) fn describe_node(&self, other: NodeId) -> String {
        match self.state.lock().entries.get(&other) {
            Some(entry) => format!("{} at {}", entry.name, entry.address),
            None => other.to_string(),
        }
    }

    /// Keeps a link to another node as long as the engine knows it. Its address is watched for longer.
    async fn keep_link(self: Arc<Self>, other: NodeId) {
        let mut pause = RETRY_PAUSES.0;
        loop {
            let address = {
                let mut state = self.state.lock();
                state.unlinked.entry(other).or_insert_with(|| Unlinked::new(Instant::now()));
                let address = state.entries.get(&other).map(|entry| &entry.address);
                address.or_else(|| Some(&state.departed.get(&other)?.address)).cloned()
            };
            let Some(address) = address else { break };
            let ended = self.dial(other, &address).await;
            // There was a link.
            if !self.state.lock().unlinked.contains_key(&other) {
                pause = RETRY_PAUSES.0;
            }
            if let Err(error) = ended {
                self.link_failed(other, &error);
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSES.1);
        }
        let mut state = self.state.lock();
        state.unlinked.remove(&other);
        state.dialled.remove(&other);
    }

    async fn dial(&self, other: NodeId, address: &str) -> io::Result<()> {
        let Some(address) = lookup_host(address).await?.next() else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "its name has no address"));
        };
        let Some(links) = self.links.get() else { return Ok(()) };
        links.dial(other, address).await
    }

    fn link_failed(&self, other: NodeId, error: &io::Error) {
        tracing::debug!(node = %other, %error, "cannot reach a node");
        let fault = LinkFault::of(error).describe(error);
        let mut state = self.state.lock();
        let unlinked = state.unlinked.entry(other).or_insert_with(|| Unlinked::new(Instant::now()));
        let due = unlinked.failed(fault.clone(), Instant::now());
        let is_unaware = state.ownership.lease().unaware(now()).any(|node| node == other);
        drop(state);
        let Some(time) = due else { return };
        let (node, seconds) = (self.describe_node(other), time.as_secs());
        if is_unaware {
            let url = self.settings.engine.describe();
            tracing::error!(
                "{node} has run for {seconds} s without knowing this node: it does not reach Redis at {url}, as \
                 this one does. No room is opened here until it does, or has ended"
            );
        } else if !self.has_expired(other) {
            // A node whose lease has ended is expected to have ended.
            tracing::warn!(
                "no link to {node} for {seconds} s: {fault}. Is this port open between the nodes?"
            );
        }
    }

    fn has_expired(&self, other: NodeId) -> bool {
        self.state.lock().entries.get(&other).is_none_or(|entry| entry.expired.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_without_a_link_is_reported_after_some_seconds_and_then_once_a_minute() {
        let start = Instant::now();
        let mut unlinked = Unlinked::new(start);
        let lines: Vec<u64> = (1..=125)
            .filter_map(|second| unlinked.failed("timed out".to_owned(), start + Duration::from_secs(second)))
            .map(|time| time.as_secs())
            .collect();
        assert_eq!(lines, [5, 65, 125]);
    }
}
