//! Nodes that the engine does not know any more, and whose processes may run nevertheless: it does not answer
//! them, or has lost its data.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::engine::NodeEntry;
use super::tls::NodePublicKey;
use crate::protocol::cluster::{FORGET_TIMEOUT, NodeId};

/// Time for which the address of a node is watched after the last sign that its process runs.
const DEPARTED_TIMEOUT: Duration = Duration::from_millis(FORGET_TIMEOUT);

/// The nodes that the engine does not know any more, whose addresses no others have. A process at one of
/// these addresses that this node does not know may have been started with an engine that does not answer
/// this node.
#[derive(Clone, Debug, Default)]
pub(super) struct DepartedNodes(HashMap<NodeId, DepartedNode>);

#[derive(Clone, Debug)]
struct DepartedNode {
    entry: NodeEntry,
    /// Time of the last sign that its process runs; at first, that at which the engine knew it no more.
    since: Instant,
}

impl DepartedNodes {
    /// Takes note of the nodes that the engine knew before, and of those that it knows. Returns those that
    /// have ended, as another has their address by now.
    pub(super) fn follow(
        &mut self,
        before: impl IntoIterator<Item = (NodeId, NodeEntry)>,
        entries: &HashMap<NodeId, NodeEntry>,
        now: Instant,
    ) -> Vec<NodeId> {
        self.0.extend(before.into_iter().map(|(node, entry)| (node, DepartedNode { entry, since: now })));
        let mut ended = Vec::new();
        self.0.retain(|node, departed| {
            if entries.contains_key(node) {
                return false;
            }
            let has_successor = entries.values().any(|other| other.address == departed.entry.address);
            ended.extend(has_successor.then_some(*node));
            !has_successor && now.saturating_duration_since(departed.since) < DEPARTED_TIMEOUT
        });
        ended
    }

    /// Takes note that the process of a node runs. Returns true if the node is one of these.
    pub(super) fn ran(&mut self, node: NodeId, now: Instant) -> bool {
        self.0.get_mut(&node).map(|departed| departed.since = now).is_some()
    }

    /// Returns the entry that a node had.
    pub(super) fn entry(&self, node: NodeId) -> Option<&NodeEntry> {
        self.0.get(&node).map(|departed| &departed.entry)
    }

    /// Returns the keys of the nodes.
    pub(super) fn keys(&self) -> impl Iterator<Item = (NodePublicKey, NodeId)> {
        self.0.iter().map(|(node, departed)| (departed.entry.public_key.clone(), *node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(address: &str) -> NodeEntry {
        let (version, name) = ("22.0.0".to_owned(), "a".to_owned());
        NodeEntry { address: address.to_owned(), public_key: vec![1], version, name, rooms: 0, expired: None }
    }

    fn nodes(departed: &DepartedNodes) -> Vec<NodeId> {
        departed.keys().map(|(_, node)| node).collect()
    }

    #[test]
    fn node_is_known_for_as_long_as_its_process_shows_that_it_runs() {
        let (mut departed, mut now, none) = (DepartedNodes::default(), Instant::now(), HashMap::new());
        departed.follow([(NodeId(1), entry("a:1"))], &none, now);
        for _ in 0..3 {
            now += DEPARTED_TIMEOUT / 2;
            assert!(departed.ran(NodeId(1), now) && !departed.ran(NodeId(2), now));
            departed.follow([], &none, now);
            assert_eq!(departed.keys().collect::<Vec<_>>(), [(vec![1], NodeId(1))]);
        }
        departed.follow([], &none, now + DEPARTED_TIMEOUT - Duration::from_millis(1));
        assert_eq!(departed.entry(NodeId(1)), Some(&entry("a:1")));
        departed.follow([], &none, now + DEPARTED_TIMEOUT);
        assert_eq!((nodes(&departed), departed.entry(NodeId(1))), (vec![], None));
    }

    #[test]
    fn node_that_the_engine_knows_again_or_whose_address_another_has_is_none_of_them() {
        let (mut departed, now) = (DepartedNodes::default(), Instant::now());
        let before = [(NodeId(1), entry("a:1")), (NodeId(2), entry("b:1")), (NodeId(3), entry("c:1"))];
        let ended = departed.follow(before, &HashMap::from([(NodeId(3), entry("c:1"))]), now);
        assert_eq!(ended, []);
        let mut both = nodes(&departed);
        both.sort_unstable();
        assert_eq!(both, [NodeId(1), NodeId(2)]);
        let entries = HashMap::from([(NodeId(1), entry("a:1")), (NodeId(4), entry("b:1"))]);
        assert_eq!(departed.follow([], &entries, now), [NodeId(2)]);
        assert_eq!(nodes(&departed), []);
    }
}
