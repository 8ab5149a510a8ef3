//! The links that a node keeps to the others.

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
use super::unlinked::Unlinked;
use crate::protocol::cluster::NodeId;

/// Shortest and longest pause before another node is tried again.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

impl ClusterNode {
    /// Takes note of the other nodes, and dials those that are new.
    pub(super) fn follow_nodes(self: &Arc<Self>, others: Vec<(NodeId, NodeEntry)>) {
        let Some(links) = self.links.get() else { return };
        let others: HashMap<_, _> = others.into_iter().collect();
        let known: Vec<_> = self.with_state(|state| {
            let ended = state.departed.follow(state.entries.drain(), &others, Instant::now());
            ended.into_iter().for_each(|node| state.ownership.ended(node, now()));
            state.entries = others;
            let entries = state.entries.iter().map(|(node, entry)| (entry.public_key.clone(), *node));
            entries.chain(state.departed.keys()).collect()
        });
        links.known().set(known);
        let mut state = self.state.lock();
        // At its own address, a node would find itself, as a process that it does not know.
        let is_elsewhere = |entry: &NodeEntry| entry.address != self.settings.address;
        let new =
            state.entries.iter().filter(|(node, entry)| !state.dialled.contains(node) && is_elsewhere(entry));
        let new: Vec<_> = new.map(|(node, _)| *node).collect();
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
        let state = self.state.lock();
        match state.entry(other) {
            Some(entry) => format!("{} at {}", entry.name, entry.address),
            None => other.to_string(),
        }
    }

    /// Keeps a link to another node as long as the engine knows it, and then as long as its process runs. Its
    /// address is watched for longer.
    async fn keep_link(self: Arc<Self>, other: NodeId) {
        let mut pause = RETRY_PAUSES.0;
        loop {
            let address = {
                let mut state = self.state.lock();
                state.unlinked.entry(other).or_insert_with(|| Unlinked::new(Instant::now()));
                state.entry(other).map(|entry| entry.address.clone())
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
        let cause = LinkFault::of(error);
        let (fault, has_other_versions) = (cause.describe(error), cause == LinkFault::Versions);
        let (mut state, time) = (self.state.lock(), Instant::now());
        let unaware = state.ownership.lease().unaware(now()).find(|(node, _)| *node == other);
        let unlinked = state.unlinked.entry(other).or_insert_with(|| Unlinked::new(time));
        unlinked.has_other_versions = has_other_versions;
        let unaware =
            unaware.filter(|_| !has_other_versions).map(|(_, unaware)| Duration::from_millis(unaware));
        let since = unaware.and_then(|unaware| time.checked_sub(unaware)).unwrap_or(unlinked.since);
        let due = unlinked.failed(fault.clone(), since, time);
        drop(state);
        let Some(time) = due else { return };
        let (node, seconds) = (self.describe_node(other), time.as_secs());
        if has_other_versions {
            tracing::error!(
                "no link to {node} for {seconds} s: {fault}. No room is opened at either while both run: stop one of \
                 them, and replace the older nodes"
            );
        } else if unaware.is_some() {
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
    use super::super::tests::{TestNode, until};
    use super::super::{EngineAddress, NodeSettings};
    use super::*;
    use crate::config::EngineUrl;
    use crate::server::hub::Hub;
    use crate::server::memory::MemoryBudget;

    /// Starts a node whose engine does not answer.
    async fn start_node() -> Arc<ClusterNode> {
        let settings = NodeSettings {
            engine: EngineAddress::new(&EngineUrl::parse("redis://127.0.0.1:1").unwrap(), "test", None)
                .unwrap(),
            address: "127.0.0.1:0".to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            name: "a".to_owned(),
            max_message: 1 << 20,
        };
        ClusterNode::start(settings, &Hub::new(), &MemoryBudget::new(usize::MAX)).await.unwrap()
    }

    fn entry(address: String, other: &TestNode) -> NodeEntry {
        let (public_key, version, name) =
            (other.links.public_key().clone(), "22.0.0".to_owned(), "b".to_owned());
        NodeEntry { address, public_key, version, name, rooms: 0, expired: Some(1_000) }
    }

    fn is_unaware(node: &ClusterNode, other: &TestNode) -> bool {
        node.state.lock().ownership.lease().unaware(now()).any(|(unaware, _)| unaware == other.id)
    }

    #[tokio::test]
    async fn node_that_the_engine_has_forgotten_proves_that_it_runs() {
        let (node, other) = (start_node().await, TestNode::start(2).await);
        node.follow_nodes(vec![(other.id, entry(other.address.to_string(), &other))]);
        until(|| is_unaware(&node, &other)).await;
        node.follow_nodes(Vec::new());
        let fault = || node.state.lock().unlinked[&other.id].fault.clone();
        for _ in 0..2 {
            node.state.lock().unlinked.insert(other.id, Unlinked::new(Instant::now()));
            until(|| fault() != "not tried yet").await;
        }
        assert!(!fault().contains("this node does not know the key"), "{}", fault());
        assert!(is_unaware(&node, &other) && node.state.lock().ownership.lease().confirms());
        assert_eq!(node.describe_node(other.id), format!("b at {}", other.address));
    }

    /// Another node had the address of this one, and its lease has ended.
    #[tokio::test]
    async fn node_does_not_dial_itself() {
        let (node, other) = (start_node().await, TestNode::start(2).await);
        let former = NodeEntry { public_key: vec![1], ..entry(node.settings.address.clone(), &other) };
        let others = [(NodeId(7), former), (other.id, entry(other.address.to_string(), &other))];
        node.follow_nodes(others.to_vec());
        until(|| is_unaware(&node, &other)).await;
        let state = node.state.lock();
        assert_eq!(state.dialled.iter().collect::<Vec<_>>(), [&other.id]);
        assert_eq!(state.entries.len(), 2, "the status has both");
    }
}
