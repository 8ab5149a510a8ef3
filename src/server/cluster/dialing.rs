//! The links that a node keeps to the others, and what the log says of nodes that it does not reach.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::{Instant, sleep};

use super::engine::NodeEntry;
use super::node::ClusterNode;
use crate::protocol::cluster::NodeId;

/// Shortest and longest pause before another node is tried again.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Time without a link after which the log says so: a node that starts is not known to all others yet.
const REPORT_AFTER: Duration = Duration::from_secs(5);
/// Time between two lines about a node.
const REPORT_PAUSE: Duration = Duration::from_secs(60);

/// Another node to which there is no link.
#[derive(Clone, Debug)]
pub(super) struct Unlinked {
    pub(super) since: Instant,
    /// The words for the last failure.
    pub(super) fault: String,
    reported: Option<Instant>,
}

impl Unlinked {
    fn new(now: Instant) -> Self {
        Unlinked { since: now, fault: "not tried yet".to_owned(), reported: None }
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

/// Returns the words for the failure of a link.
pub(super) fn link_fault(error: &io::Error) -> String {
    let text = error.to_string();
    if text.contains("UnknownCA") || text.contains("UnknownIssuer") {
        "one of the two does not know the other's key yet".to_owned()
    } else if error.kind() == io::ErrorKind::UnexpectedEof {
        "the other node ended the connection".to_owned()
    } else if text.contains("InvalidContentType") {
        "what answers there is no port for nodes".to_owned()
    } else {
        text
    }
}

impl ClusterNode {
    /// Takes note of the other nodes, and dials those that are new.
    pub(super) fn follow_nodes(self: &Arc<Self>, others: Vec<(NodeId, NodeEntry)>) {
        let Some(links) = self.links.get() else { return };
        links.known().set(others.iter().map(|(node, entry)| (entry.public_key.clone(), *node)));
        let mut state = self.state.lock();
        state.entries = others.into_iter().collect();
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
        if other.gone.is_none() && other.name == self.settings.name {
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

    /// Keeps a link to another node as long as the engine knows it.
    async fn keep_link(self: Arc<Self>, other: NodeId) {
        let mut pause = RETRY_PAUSES.0;
        loop {
            let address = {
                let mut state = self.state.lock();
                state.unlinked.entry(other).or_insert_with(|| Unlinked::new(Instant::now()));
                state.entries.get(&other).map(|entry| entry.address.clone())
            };
            let Some(address) = address else { break };
            match self.dial(other, &address).await {
                Ok(()) => pause = RETRY_PAUSES.0,
                Err(error) => self.link_failed(other, &error),
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
        let fault = link_fault(error);
        let mut state = self.state.lock();
        let unlinked = state.unlinked.entry(other).or_insert_with(|| Unlinked::new(Instant::now()));
        let due = unlinked.failed(fault.clone(), Instant::now());
        drop(state);
        // One whose lease has ended is expected to be gone.
        if let Some(time) = due.filter(|_| !self.is_gone(other)) {
            let (node, seconds) = (self.describe_node(other), time.as_secs());
            tracing::warn!(
                "no link to {node} for {seconds} s: {fault}. Is this port open between the nodes?"
            );
        }
    }

    fn is_gone(&self, other: NodeId) -> bool {
        self.state.lock().entries.get(&other).is_none_or(|entry| entry.gone.is_some())
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

    #[test]
    fn faults_of_links_are_words_for_people() {
        let eof = io::Error::new(io::ErrorKind::UnexpectedEof, "peer closed: https://example.org");
        assert_eq!(link_fault(&eof), "the other node ended the connection");
        let unknown = io::Error::new(io::ErrorKind::InvalidData, "received fatal alert: UnknownCA");
        assert!(link_fault(&unknown).contains("key"));
        assert_eq!(link_fault(&io::Error::other("refused")), "refused");
    }
}
