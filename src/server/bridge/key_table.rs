//! The keys that are bridged, and what the bridge knows of their rooms: plain state, without a connection.
//!
//! A key is reported to the bridge once two of its rooms have a member, the bridge has an entry of it open,
//! or a joiner is linked to a peer of the bridge, and from then on until no room of it has a member and the
//! bridge has no entry open.

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
    /// The keys by number, while a bridge is connected.
    numbers: HashMap<RoomNumber, RoomKey>,
    /// Groups whose entry the bridge has open, also in rooms of which no client is here any more or again.
    entries: HashMap<RoomNumber, BTreeSet<MeshGroup>>,
    /// Keys that are reported.
    reported: usize,
    /// Number of the bridge that is connected.
    instance: Option<u32>,
    messages: Vec<BridgeMessage>,
    /// Keys that were not reported, as too many are.
    refused: u64,
}

#[derive(Debug, Default)]
struct BridgedKey {
    /// Number at the bridge that is connected.
    number: Option<RoomNumber>,
    is_reported: bool,
    members: BTreeMap<MeshGroup, Vec<ReportedMember>>,
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
        self.enter(&key);
        let Some(bridged) = self.keys.get_mut(&key) else { return };
        let known = bridged.members.entry(group).or_default();
        let number = bridged.number.filter(|_| bridged.is_reported);
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
        self.report_if_needed(&key);
        self.forget_if_unused(&key);
    }

    /// Returns true if the bridge lets joiners of the room of `group` in, which has no member.
    pub(super) fn has_entry(&self, key: &RoomKey, group: MeshGroup) -> bool {
        if self.instance.is_none() || !group.facts().some_joiners_accept_none {
            return false;
        }
        let key = key.clone().with_partition(0);
        let entries = self.number_of(&key).and_then(|number| self.entries.get(&number));
        let is_open = entries.is_some_and(|groups| groups.contains(&group));
        is_open || self.keys.get(&key).is_some_and(|key| key.members.keys().any(|present| *present != group))
    }

    /// Returns the number of the key for a client that calls the bridge, and reports the key if it is not.
    pub(super) fn number_for_caller(&mut self, key: &RoomKey) -> Option<RoomNumber> {
        let key = key.clone().with_partition(0);
        let is_known = self.keys.contains_key(&key)
            || self.number_of(&key).is_some_and(|number| self.entries.contains_key(&number));
        if is_known {
            self.enter(&key);
            self.report(&key);
        }
        self.keys.get(&key).filter(|key| key.is_reported)?.number
    }

    /// Takes note that the bridge opened or closed an entry.
    pub(super) fn set_entry(&mut self, room: RoomNumber, group: MeshGroup, is_open: bool) {
        if is_open && (self.entries.len() < MAX_REPORTED_KEYS || self.entries.contains_key(&room)) {
            self.entries.entry(room).or_default().insert(group);
        } else if let Some(groups) = self.entries.get_mut(&room) {
            groups.remove(&group);
            if groups.is_empty() {
                self.entries.remove(&room);
            }
        }
        if let Some(key) = self.numbers.get(&room).cloned() {
            self.report_if_needed(&key);
            self.forget_if_unused(&key);
        }
    }

    /// Returns the client of an alias, and the text of its room's key.
    pub(super) fn target(&self, room: RoomNumber, group: MeshGroup, alias: u32) -> Option<(RoomKey, PeerId)> {
        let key = self.numbers.get(&room)?;
        let members = self.keys.get(key)?.members.get(&group)?;
        let member = members.iter().find(|member| member.alias == alias)?;
        Some((key.clone(), member.peer))
    }

    /// Begins with a bridge that is connected, and reports what it has to know.
    pub(super) fn connect(&mut self, instance: u32) {
        self.disconnect();
        self.instance = Some(instance);
        let keys: Vec<RoomKey> = self.keys.keys().cloned().collect();
        for key in keys {
            self.enter(&key);
            self.report_if_needed(&key);
        }
    }

    /// Forgets what the bridge that was connected knew.
    pub(super) fn disconnect(&mut self) {
        self.instance = None;
        self.messages.clear();
        self.numbers.clear();
        self.entries.clear();
        self.reported = 0;
        self.keys.retain(|_, bridged| {
            bridged.number = None;
            bridged.is_reported = false;
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
        let reported = self.keys.values().filter(|key| key.is_reported);
        let members = reported.flat_map(|key| key.members.values()).map(Vec::len).sum();
        BridgedKeyCounts { keys: self.reported, members }
    }

    /// Returns the number of a key at the bridge that is connected.
    fn number_of(&self, key: &RoomKey) -> Option<RoomNumber> {
        match self.keys.get(key).and_then(|key| key.number) {
            Some(number) => Some(number),
            None => self.instance.map(|instance| derived_number(instance, key)),
        }
    }

    /// Adds a key if it is not there, and gives it a number while a bridge is connected.
    fn enter(&mut self, key: &RoomKey) {
        let number = self.number_of(key);
        let bridged = self.keys.entry(key.clone()).or_default();
        if bridged.number.is_none()
            && let Some(mut number) = number
        {
            // Two keys with one number are rare.
            while self.numbers.contains_key(&number) {
                number = number.wrapping_add(1);
            }
            self.numbers.insert(number, key.clone());
            bridged.number = Some(number);
        }
    }

    fn report_if_needed(&mut self, key: &RoomKey) {
        let Some(bridged) = self.keys.get(key).filter(|key| !key.members.is_empty()) else { return };
        let has_entry = bridged.number.is_some_and(|number| self.entries.contains_key(&number));
        if bridged.members.len() > 1 || has_entry {
            self.report(key);
        }
    }

    fn report(&mut self, key: &RoomKey) {
        let Some(bridged) = self.keys.get_mut(key).filter(|key| !key.is_reported) else { return };
        let Some(room) = bridged.number else { return };
        if self.reported >= MAX_REPORTED_KEYS {
            self.refused = self.refused.saturating_add(1);
            return;
        }
        self.reported = self.reported.saturating_add(1);
        bridged.is_reported = true;
        for (&group, members) in &bridged.members {
            for member in members {
                self.messages.push(BridgeMessage::Arrived { room, group, target: member.alias });
            }
        }
    }

    fn forget_if_unused(&mut self, key: &RoomKey) {
        let Some(bridged) = self.keys.get(key).filter(|key| key.members.is_empty()) else { return };
        if bridged.number.is_some_and(|number| self.entries.contains_key(&number)) {
            return;
        }
        if let Some(BridgedKey { number, is_reported, .. }) = self.keys.remove(key) {
            self.reported = self.reported.saturating_sub(is_reported.into());
            number.map(|number| self.numbers.remove(&number));
        }
    }
}

/// Returns the number of a key, which is the same for each gateway.
fn derived_number(instance: u32, key: &RoomKey) -> RoomNumber {
    let mut hasher = DefaultHasher::new();
    (instance, key.as_str()).hash(&mut hasher);
    (hasher.finish() >> 32) as RoomNumber
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// A bridge that keeps what it is sent.
    #[derive(Debug, Default)]
    struct ToldBridge {
        targets: BTreeSet<(RoomNumber, MeshGroup, u32)>,
    }

    impl ToldBridge {
        fn take(&mut self, table: &mut BridgedKeyTable) {
            for message in table.take_messages() {
                match message {
                    BridgeMessage::Arrived { room, group, target } => {
                        assert!(self.targets.insert((room, group, target)), "announced twice");
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
                        let has_any = entries.iter().any(|(of, _)| *of == at)
                            || members.iter().any(|((of, _), members)| *of == at && !members.is_empty());
                        if is_connected && has_any {
                            reported.insert(at);
                        }
                        prop_assert_eq!(number.is_some(), reported.contains(&at));
                    }
                    Step::Entry(at, group, is_open) => {
                        let group = MeshGroup::ALL[group];
                        if let Some(number) = table.number_of(&key(at)) {
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
                    let has_entries = entries.iter().any(|(of, _)| *of == at);
                    if is_connected && (groups.len() > 1 || has_entries && !groups.is_empty()) {
                        reported.insert(at);
                    }
                    if groups.is_empty() && !has_entries {
                        reported.remove(&at);
                        prop_assert!(!table.keys.contains_key(&key(at)), "a key without anyone is kept");
                    }
                    let known = table.keys.get(&key(at)).filter(|key| key.is_reported);
                    let number = known.and_then(|key| key.number);
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
                prop_assert!(rooms.iter().all(|room| table.numbers.contains_key(room)));
                prop_assert_eq!(table.counts().keys, reported.len());
                prop_assert_eq!(table.numbers.len(), if is_connected { table.keys.len() } else { 0 });
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
