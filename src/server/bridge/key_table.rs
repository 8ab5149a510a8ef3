//! The keys that are bridged, and what the bridge knows of their rooms: plain state, without a connection.
//!
//! A key is reported to the bridge once two of its rooms have a member, or a joiner is linked to a peer of
//! the bridge, and from then on until no room of it has a member and the bridge has no entry open.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::protocol::mesh::{BridgeMessage, MeshGroup, RoomNumber};
use crate::protocol::model::{PeerId, RoomKey};

/// Most members of a room that are reported: more than a bridge connects.
pub(super) const MAX_REPORTED_MEMBERS: usize = 32;

/// Most keys that are reported.
pub(super) const MAX_REPORTED_KEYS: usize = 4096;

/// Keys with a member in a room that is bridged.
#[derive(Debug, Default)]
pub(super) struct BridgedKeyTable {
    keys: HashMap<RoomKey, BridgedKey>,
    reported: HashMap<RoomNumber, RoomKey>,
    /// Number of the bridge that is connected.
    instance: Option<u32>,
    messages: Vec<BridgeMessage>,
    /// Keys that were not reported, as too many are.
    refused: u64,
}

#[derive(Debug, Default)]
struct BridgedKey {
    /// Present while the key is reported.
    number: Option<RoomNumber>,
    members: BTreeMap<MeshGroup, Vec<ReportedMember>>,
    /// Groups whose entry the bridge has open.
    entries: BTreeSet<MeshGroup>,
    next_alias: u32,
}

#[derive(Clone, Copy, Debug)]
struct ReportedMember {
    peer: PeerId,
    alias: u32,
}

/// Numbers of what is bridged at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BridgedKeyCounts {
    /// Keys that are reported.
    pub(super) keys: usize,
    /// Members in them.
    pub(super) members: usize,
}

impl BridgedKeyTable {
    /// Takes note of the members of the room of `group`. `key` is that of any room with the text.
    pub(super) fn set_members(
        &mut self,
        key: &RoomKey,
        group: MeshGroup,
        members: &mut dyn Iterator<Item = PeerId>,
    ) {
        let members: Vec<PeerId> = members.take(MAX_REPORTED_MEMBERS).collect();
        let key = key.clone().with_partition(0);
        if members.is_empty() && !self.keys.contains_key(&key) {
            return;
        }
        let bridged = self.keys.entry(key.clone()).or_default();
        let known = bridged.members.entry(group).or_default();
        let number = bridged.number;
        known.retain(|known| {
            let stays = members.contains(&known.peer);
            if let Some(room) = number.filter(|_| !stays) {
                self.messages.push(BridgeMessage::Departed { room, group, target: known.alias });
            }
            stays
        });
        for peer in members {
            if known.iter().any(|known| known.peer == peer) {
                continue;
            }
            let alias = bridged.next_alias;
            bridged.next_alias = alias.wrapping_add(1);
            known.push(ReportedMember { peer, alias });
            if let Some(room) = number {
                self.messages.push(BridgeMessage::Arrived { room, group, target: alias });
            }
        }
        if known.is_empty() {
            bridged.members.remove(&group);
        }
        if bridged.members.len() > 1 && bridged.number.is_none() {
            self.report(&key);
        }
        self.forget_if_unused(&key);
    }

    /// Returns true if the bridge lets joiners of the room of `group` in, which has no member.
    pub(super) fn has_entry(&self, key: &RoomKey, group: MeshGroup) -> bool {
        if self.instance.is_none() || !group.facts().some_joiners_accept_nobody {
            return false;
        }
        let bridged = self.keys.get(&key.clone().with_partition(0));
        bridged.is_some_and(|bridged| {
            bridged.entries.contains(&group) || bridged.members.keys().any(|other| *other != group)
        })
    }

    /// Returns the number of the key for a client that calls the bridge, and reports the key if it is not.
    pub(super) fn number_for_caller(&mut self, key: &RoomKey) -> Option<RoomNumber> {
        let key = key.clone().with_partition(0);
        if self.keys.get(&key)?.number.is_none() {
            self.report(&key);
        }
        self.keys.get(&key)?.number
    }

    /// Takes note that the bridge opened or closed an entry.
    pub(super) fn set_entry(&mut self, room: RoomNumber, group: MeshGroup, is_open: bool) {
        let Some(key) = self.reported.get(&room).cloned() else { return };
        if let Some(bridged) = self.keys.get_mut(&key) {
            if is_open {
                bridged.entries.insert(group);
            } else {
                bridged.entries.remove(&group);
            }
        }
        self.forget_if_unused(&key);
    }

    /// Returns the client of an alias, and the text of its room's key.
    pub(super) fn target(&self, room: RoomNumber, group: MeshGroup, alias: u32) -> Option<(RoomKey, PeerId)> {
        let key = self.reported.get(&room)?;
        let members = self.keys.get(key)?.members.get(&group)?;
        let member = members.iter().find(|member| member.alias == alias)?;
        Some((key.clone(), member.peer))
    }

    /// Begins with a bridge that is connected, and reports what it has to know.
    pub(super) fn connect(&mut self, instance: u32) {
        self.disconnect();
        self.instance = Some(instance);
        let several = |(_, bridged): &(&RoomKey, &BridgedKey)| bridged.members.len() > 1;
        let keys: Vec<RoomKey> = self.keys.iter().filter(several).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.report(&key);
        }
    }

    /// Forgets what the bridge that was connected knew.
    pub(super) fn disconnect(&mut self) {
        self.instance = None;
        self.messages.clear();
        self.reported.clear();
        self.keys.retain(|_, bridged| {
            bridged.number = None;
            bridged.entries.clear();
            !bridged.members.is_empty()
        });
    }

    /// Returns what is to be sent to the bridge, in order.
    pub(super) fn take_messages(&mut self) -> Vec<BridgeMessage> {
        std::mem::take(&mut self.messages)
    }

    /// Returns how often since the last call a key was not reported, as too many are.
    pub(super) fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    pub(super) fn counts(&self) -> BridgedKeyCounts {
        let members = |key| self.keys.get(key).map_or(0, |key| key.members.values().map(Vec::len).sum());
        BridgedKeyCounts { keys: self.reported.len(), members: self.reported.values().map(members).sum() }
    }

    fn report(&mut self, key: &RoomKey) {
        let (Some(instance), Some(bridged)) = (self.instance, self.keys.get_mut(key)) else { return };
        if self.reported.len() >= MAX_REPORTED_KEYS {
            self.refused = self.refused.saturating_add(1);
            return;
        }
        let mut hasher = DefaultHasher::new();
        (instance, key.as_str()).hash(&mut hasher);
        let mut room = (hasher.finish() >> 32) as RoomNumber;
        while self.reported.contains_key(&room) {
            room = room.wrapping_add(1);
        }
        self.reported.insert(room, key.clone());
        bridged.number = Some(room);
        for (&group, members) in &bridged.members {
            for member in members {
                self.messages.push(BridgeMessage::Arrived { room, group, target: member.alias });
            }
        }
    }

    fn forget_if_unused(&mut self, key: &RoomKey) {
        let is_unused = |key: &BridgedKey| key.members.is_empty() && key.entries.is_empty();
        if self.keys.get(key).is_some_and(is_unused)
            && let Some(BridgedKey { number: Some(room), .. }) = self.keys.remove(key)
        {
            self.reported.remove(&room);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// A bridge that keeps what it is told.
    #[derive(Debug, Default)]
    struct ToldBridge {
        targets: BTreeSet<(RoomNumber, MeshGroup, u32)>,
    }

    impl ToldBridge {
        fn take(&mut self, table: &mut BridgedKeyTable) {
            for message in table.take_messages() {
                match message {
                    BridgeMessage::Arrived { room, group, target } => {
                        assert!(self.targets.insert((room, group, target)), "told twice");
                    }
                    BridgeMessage::Departed { room, group, target } => {
                        assert!(self.targets.remove(&(room, group, target)), "was not there");
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Members(usize, usize, Vec<u64>),
        Caller(usize),
        Entry(usize, usize, bool),
        Connect(u32),
        Disconnect,
    }

    fn step() -> impl Strategy<Value = Step> {
        let members = || prop::collection::vec(0u64..6, 0..4);
        prop_oneof![
            12 => (0usize..3, 0usize..5, members()).prop_map(|(key, group, peers)| Step::Members(key, group, peers)),
            2 => (0usize..3).prop_map(Step::Caller),
            3 => (0usize..3, 0usize..5, any::<bool>()).prop_map(|(key, group, on)| Step::Entry(key, group, on)),
            1 => (0u32..2).prop_map(Step::Connect),
            1 => Just(Step::Disconnect),
        ]
    }

    fn key(at: usize) -> RoomKey {
        RoomKey::from(["a", "b", "c"][at])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        /// A naive model: the members of each key and group. A key with two groups or a caller is reported.
        #[test]
        fn bridge_knows_the_members_of_reported_keys_and_of_no_others(
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let (mut table, mut bridge) = (BridgedKeyTable::default(), ToldBridge::default());
            let mut members: BTreeMap<(usize, MeshGroup), HashSet<u64>> = BTreeMap::new();
            let mut entries: BTreeSet<(usize, MeshGroup)> = BTreeSet::new();
            let mut reported: BTreeSet<usize> = BTreeSet::new();
            let mut is_connected = false;
            for step in steps {
                match step {
                    Step::Members(at, group, peers) => {
                        let group = MeshGroup::ALL[group];
                        let mut peers: Vec<u64> = peers.into_iter().collect::<HashSet<_>>().into_iter().collect();
                        peers.sort_unstable();
                        // A peer is in one room.
                        let room = key(at).with_partition(group as u8 + 3);
                        table.set_members(&room, group, &mut peers.iter().map(|peer| PeerId(*peer)));
                        members.insert((at, group), peers.into_iter().collect());
                    }
                    Step::Caller(at) => {
                        let number = table.number_for_caller(&key(at));
                        let has_any = members.iter().any(|((of, _), members)| *of == at && !members.is_empty());
                        if is_connected && has_any {
                            reported.insert(at);
                        }
                        prop_assert_eq!(number.is_some(), reported.contains(&at));
                    }
                    Step::Entry(at, group, is_open) => {
                        let group = MeshGroup::ALL[group];
                        let number = table.keys.get(&key(at)).and_then(|key| key.number);
                        if let Some(number) = number {
                            table.set_entry(number, group, is_open);
                            if is_open { entries.insert((at, group)); } else { entries.remove(&(at, group)); }
                        }
                    }
                    Step::Connect(instance) => {
                        table.connect(instance);
                        bridge = ToldBridge::default();
                        (is_connected, reported) = (true, BTreeSet::new());
                        entries.clear();
                    }
                    Step::Disconnect => {
                        table.disconnect();
                        bridge = ToldBridge::default();
                        (is_connected, reported) = (false, BTreeSet::new());
                        entries.clear();
                    }
                }
                bridge.take(&mut table);
                for at in 0..3 {
                    let groups: Vec<MeshGroup> = MeshGroup::ALL.iter().copied()
                        .filter(|group| members.get(&(at, *group)).is_some_and(|members| !members.is_empty()))
                        .collect();
                    if is_connected && groups.len() > 1 {
                        reported.insert(at);
                    }
                    if groups.is_empty() && !entries.iter().any(|(of, _)| *of == at) {
                        reported.remove(&at);
                        prop_assert!(!table.keys.contains_key(&key(at)), "a key without anyone is kept");
                    }
                    let number = table.keys.get(&key(at)).and_then(|key| key.number);
                    prop_assert_eq!(number.is_some(), reported.contains(&at));
                    for &group in MeshGroup::ALL {
                        let there: HashSet<u64> = bridge.targets.iter()
                            .filter(|(room, of, _)| Some(*room) == number && *of == group)
                            .map(|(room, of, alias)| table.target(*room, *of, *alias).unwrap().1.0)
                            .collect();
                        let expected = if number.is_some() {
                            members.get(&(at, group)).cloned().unwrap_or_default()
                        } else {
                            HashSet::new()
                        };
                        prop_assert_eq!(there, expected);
                        let others = groups.iter().any(|other| *other != group);
                        let is_expected = is_connected && group <= MeshGroup::Netflux1
                            && (others || entries.contains(&(at, group)));
                        prop_assert_eq!(table.has_entry(&key(at), group), is_expected);
                    }
                }
                let rooms: BTreeSet<RoomNumber> = bridge.targets.iter().map(|(room, ..)| *room).collect();
                prop_assert!(rooms.iter().all(|room| table.reported.contains_key(room)));
            }
        }
    }

    #[test]
    fn numbers_are_the_same_for_the_same_bridge_and_others_for_another() {
        let numbers = |instance| {
            let mut table = BridgedKeyTable::default();
            table.connect(instance);
            for at in 0..3 {
                for group in [MeshGroup::Netflux1, MeshGroup::Netflux4] {
                    table.set_members(&key(at), group, &mut std::iter::once(PeerId(at as u64)));
                }
            }
            (0..3).map(|at| table.keys[&key(at)].number.unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
    }

    #[test]
    fn reports_are_bounded() {
        let mut table = BridgedKeyTable::default();
        table.connect(1);
        for at in 0..MAX_REPORTED_KEYS + 2 {
            for group in [MeshGroup::Netflux1, MeshGroup::Netflux4] {
                let key = RoomKey::from(at.to_string().as_str());
                table.set_members(&key, group, &mut std::iter::once(PeerId(at as u64)));
            }
        }
        assert_eq!((table.counts().keys, table.take_refused()), (MAX_REPORTED_KEYS, 2));
        let mut table = BridgedKeyTable::default();
        table.connect(1);
        table.set_members(&key(0), MeshGroup::Netflux1, &mut std::iter::once(PeerId(0)));
        table.set_members(&key(0), MeshGroup::Netflux4, &mut (1..1000).map(PeerId));
        assert_eq!(table.counts().members, 1 + MAX_REPORTED_MEMBERS);
    }
}
