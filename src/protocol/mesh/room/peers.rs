//! The peers of a room, which of them have something to report, and when the next of them is due. A room of
//! fifteen clients has sixty peers, and a frame changes one or two of them: the others are not looked at.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::protocol::mesh::group::MeshGroup;
use crate::protocol::mesh::peer::{MeshPeer, PeerAction};

#[derive(Debug)]
struct TrackedPeer {
    peer: MeshPeer,
    /// Deadline of the peer, unless it may have changed.
    deadline: Option<Instant>,
    is_changed: bool,
}

impl TrackedPeer {
    fn deadline(&self) -> Option<Instant> {
        if self.is_changed { self.peer.deadline() } else { self.deadline }
    }

    /// Has the actions of the peer taken, to which the caller has access.
    fn change(&mut self, number: u32, changed: &mut Vec<u32>) -> &mut MeshPeer {
        if !std::mem::replace(&mut self.is_changed, true) {
            changed.push(number);
        }
        &mut self.peer
    }
}

/// Peers by the number of the stand-in.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: BTreeMap<u32, TrackedPeer>,
    /// Peers that may have something to report, in no order.
    changed: Vec<u32>,
}

impl Peers {
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(super) fn numbers(&self) -> Vec<u32> {
        self.peers.keys().copied().collect()
    }

    pub(super) fn get(&self, number: u32) -> Option<&MeshPeer> {
        self.peers.get(&number).map(|tracked| &tracked.peer)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut MeshPeer> {
        Some(self.peers.get_mut(&number)?.change(number, &mut self.changed))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &MeshPeer)> {
        self.peers.iter().map(|(number, tracked)| (*number, &tracked.peer))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &MeshPeer> {
        self.peers.values().map(|tracked| &tracked.peer)
    }

    /// Returns the peers of one group. The others are not counted as changed.
    pub(super) fn of_group_mut(&mut self, group: MeshGroup) -> impl Iterator<Item = (u32, &mut MeshPeer)> {
        let changed = &mut self.changed;
        let of_group = self.peers.iter_mut().filter(move |(_, tracked)| tracked.peer.group() == group);
        of_group.map(move |(number, tracked)| (*number, tracked.change(*number, changed)))
    }

    /// Adds a peer, unless there is one of this number. Returns the one of this number.
    pub(super) fn insert(&mut self, number: u32, peer: MeshPeer) -> &mut MeshPeer {
        let tracked = TrackedPeer { peer, deadline: None, is_changed: false };
        self.peers.entry(number).or_insert(tracked).change(number, &mut self.changed)
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<MeshPeer> {
        self.peers.remove(&number).map(|tracked| tracked.peer)
    }

    /// Returns what peers ask for, in the order of their numbers.
    pub(super) fn take_actions(&mut self) -> Vec<(u32, PeerAction)> {
        let mut actions = Vec::new();
        self.changed.sort_unstable();
        for number in self.changed.drain(..) {
            let Some(tracked) = self.peers.get_mut(&number) else { continue };
            tracked.is_changed = false;
            tracked.deadline = tracked.peer.deadline();
            actions.extend(tracked.peer.take_actions().into_iter().map(|action| (number, action)));
        }
        actions
    }

    /// Returns the earliest deadline of a peer.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.peers.values().filter_map(TrackedPeer::deadline).min()
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        for (number, tracked) in &mut self.peers {
            if tracked.deadline().is_some_and(|deadline| deadline <= now) {
                tracked.change(*number, &mut self.changed).tick(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(count: u32) -> Peers {
        let mut peers = Peers::default();
        for number in 0..count {
            peers.insert(number, MeshPeer::new(MeshGroup::Netflux0, number, 1_000 + number));
        }
        peers
    }

    #[test]
    fn changed_peers_report_in_the_order_of_their_numbers() {
        let (mut peers, now) = (peers(4), Instant::now());
        assert_eq!(peers.take_actions(), []);
        for number in [3, 1, 3] {
            peers.get_mut(number).unwrap().join(now);
        }
        let reporting: Vec<u32> = peers.take_actions().into_iter().map(|(number, _)| number).collect();
        assert!(reporting.is_sorted() && reporting.contains(&1) && reporting.contains(&3), "{reporting:?}");
        assert_eq!(peers.take_actions(), []);
        peers.remove(3).unwrap();
        peers.of_group_mut(MeshGroup::Netflux0).for_each(|(_, peer)| peer.leave());
        assert!(peers.take_actions().iter().all(|(number, _)| *number == 1));
    }

    #[test]
    fn peers_of_other_groups_are_not_changed() {
        let mut peers = peers(2);
        peers.insert(2, MeshPeer::new(MeshGroup::Netflux4, 2, 1_002));
        peers.take_actions();
        let numbers: Vec<u32> = peers.of_group_mut(MeshGroup::Netflux0).map(|(number, _)| number).collect();
        assert_eq!((numbers, &peers.changed[..]), (vec![0, 1], &[0, 1][..]));
    }

    #[test]
    fn deadline_is_that_of_the_peers() {
        let (mut peers, now) = (peers(3), Instant::now());
        let expected = |peers: &Peers| peers.values().filter_map(MeshPeer::deadline).min();
        assert_eq!(peers.deadline(), None);
        peers.get_mut(2).unwrap().join(now);
        assert!(expected(&peers).is_some());
        assert_eq!(peers.deadline(), expected(&peers), "before its actions are taken");
        peers.take_actions();
        assert_eq!(peers.deadline(), expected(&peers), "and after it");
        let mut reports = Vec::new();
        while let Some(late) = expected(&peers) {
            peers.tick(late);
            assert_eq!(peers.deadline(), expected(&peers), "when it is past");
            reports.extend(peers.take_actions());
        }
        assert!(reports.contains(&(2, PeerAction::Failed)), "{reports:?}");
        assert_eq!(peers.deadline(), None);
    }
}
