//! The members of a bridged room, and the peers of the bridge that stand for them in the other groups.
//!
//! Each member of one group has a *stand-in* in every other group that has someone. A client is known as a
//! member while at least one stand-in of its group has an open channel to it. From the known clients,
//! [`Presence`] derives which stand-ins there have to be, and asks for joins and leaves until it is so.
//!
//! Some clients of netflux 0.10 and 1.0 let no client in, and can be reached through their neighbors only.
//! While their group has no client that can be called by signaling, new stand-ins are introduced over
//! channels of others, and the last channel to a client is not given up: a stand-in whose member left stays
//! until another has a channel, and if there is no other member, until a *placeholder* has one. A placeholder
//! opens channels and never announces that it has joined, so no client counts it as a member.

mod decide;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::group::MeshGroup;

/// Maximum duration for which a stand-in stays after its member left, for the channels that only it has.
pub(crate) const CHANNEL_GRACE: Duration = Duration::from_secs(60);
/// Maximum duration for which a stand-in may lack a channel to a client of its group before it joins again.
const INCOMPLETE_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum duration before it is introduced to that client, if it can be.
const INTRODUCE_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum duration for which a client stays known whose last channel was closed by the bridge: another
/// stand-in is on its way to it.
const RELINK_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest and longest delay before a join is tried again.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// First and longest interval at which a stand-in joins again because its group has more clients than are
/// known.
const RECHECK_INTERVALS: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(900));

/// A client as the peers of its group know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MeshMember {
    /// Group of the client.
    pub(crate) group: MeshGroup,
    /// Id of the client in this group.
    pub(crate) id: u32,
}

/// The purpose of a stand-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StandInRole {
    /// Stands for a member of another group.
    For(MeshMember),
    /// Stands for a member of another group whose id is not known yet.
    Provisional,
    /// Keeps a channel, and is no member.
    Placeholder,
}

/// Something to do for the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PresenceAction {
    /// Create a stand-in, and join by signaling through a client of the gateway.
    Call {
        /// Number of the stand-in.
        stand_in: u32,
        /// Group of the stand-in.
        group: MeshGroup,
        /// Alias of the client.
        target: u32,
    },
    /// Create a stand-in, and join through the channels of the group.
    JoinThroughChannels {
        /// Number of the stand-in.
        stand_in: u32,
        /// Group of the stand-in.
        group: MeshGroup,
        /// False for a placeholder.
        is_announced: bool,
    },
    /// Introduce a stand-in to a client that joined at the same time, over the channel of another stand-in.
    Introduce {
        /// Number of the stand-in.
        stand_in: u32,
        /// Id of the client.
        member: u32,
    },
    /// Create a stand-in that lets a client in.
    OpenEntry {
        /// Number of the stand-in.
        stand_in: u32,
        /// Group of the stand-in.
        group: MeshGroup,
    },
    /// Announce a placeholder as a member: it stands for one from now on.
    Announce {
        /// Number of the stand-in.
        stand_in: u32,
    },
    /// Have a stand-in leave. It is forgotten.
    Leave {
        /// Number of the stand-in.
        stand_in: u32,
    },
    /// Close the channel of a stand-in to a client: the pair is cut on the other side too.
    Cut {
        /// Number of the stand-in.
        stand_in: u32,
        /// Id of the client.
        member: u32,
    },
    /// Have the gateway send joiners that find no member of this group to the bridge, or no longer.
    Entry {
        /// The group.
        group: MeshGroup,
        /// True to open it.
        is_open: bool,
    },
}

/// Bounds of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PresenceLimits {
    /// Most clients that are bridged. Those that join later are not.
    pub(crate) max_members: usize,
    /// Maximum duration of [`CHANNEL_GRACE`]; zero leaves at once, as netflux does.
    pub(crate) channel_grace: Duration,
}

impl Default for PresenceLimits {
    fn default() -> Self {
        PresenceLimits { max_members: 16, channel_grace: CHANNEL_GRACE }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Joining,
    Joined,
    /// The member has left; the stand-in stays for its channels.
    Leaving {
        since: Instant,
    },
}

#[derive(Clone, Debug)]
struct StandIn {
    group: MeshGroup,
    role: StandInRole,
    phase: Phase,
    channels: BTreeSet<u32>,
    /// Created for a client at the entry, which has no channel yet.
    awaits_caller: bool,
    /// The time since when it lacks a channel to a client of its group.
    incomplete_since: Option<Instant>,
    /// The time at which it is introduced to clients that it lacks.
    introduce_at: Option<Instant>,
    /// Clients to which it lost its channel, and when.
    lost: BTreeMap<u32, Instant>,
}

impl StandIn {
    /// Returns the time from which a client takes it in again, if it has lost its channel to the client.
    fn relink_at(&self, member: u32) -> Option<Instant> {
        self.lost.get(&member)?.checked_add(self.group.facts().relink_delay)
    }

    /// Records that it lacks a channel from this time on, which is returned.
    fn begin_incomplete(&mut self, now: Instant) -> Instant {
        self.incomplete_since = Some(now);
        self.introduce_at = now.checked_add(INTRODUCE_TIMEOUT);
        now
    }
}

/// Delays of joins that failed.
#[derive(Clone, Copy, Debug)]
struct Retry {
    delay: Duration,
    /// Unset once it has passed.
    at: Option<Instant>,
}

/// Clients in a room, and which stand-in stands for which client.
#[derive(Debug)]
pub(crate) struct Presence {
    limits: PresenceLimits,
    /// Clients of the gateway that can be called by signaling.
    targets: BTreeMap<MeshGroup, BTreeSet<u32>>,
    stand_ins: BTreeMap<u32, StandIn>,
    next_stand_in: u32,
    /// Known clients, with the order in which they became known.
    known: BTreeMap<MeshMember, u64>,
    next_known: u64,
    /// Known clients whose last channel was closed by the bridge, and the time of it.
    unlinked: BTreeMap<MeshMember, Instant>,
    /// Clients that were not bridged because there were too many.
    refused: u64,
    entries: BTreeSet<MeshGroup>,
    retries: BTreeMap<(MeshGroup, StandInRole), Retry>,
    /// Groups in which more clients can be called than are known.
    rechecks: BTreeMap<MeshGroup, Retry>,
    actions: Vec<PresenceAction>,
}

impl Presence {
    /// Creates a room without anyone.
    pub(crate) fn new(limits: PresenceLimits) -> Self {
        Presence {
            limits,
            targets: BTreeMap::new(),
            stand_ins: BTreeMap::new(),
            next_stand_in: 0,
            known: BTreeMap::new(),
            next_known: 0,
            unlinked: BTreeMap::new(),
            refused: 0,
            entries: BTreeSet::new(),
            retries: BTreeMap::new(),
            rechecks: BTreeMap::new(),
            actions: Vec::new(),
        }
    }

    /// A client that can be called by signaling is in the room.
    pub(crate) fn arrived(&mut self, group: MeshGroup, target: u32, now: Instant) {
        self.targets.entry(group).or_default().insert(target);
        self.decide(now);
    }

    /// A client can be called by signaling no more.
    pub(crate) fn departed(&mut self, group: MeshGroup, target: u32, now: Instant) {
        if let Some(targets) = self.targets.get_mut(&group) {
            targets.remove(&target);
        }
        self.decide(now);
    }

    /// A stand-in is a member of its group, or a placeholder has its channels.
    pub(crate) fn joined(&mut self, stand_in: u32, now: Instant) {
        if let Some(known) = self.stand_ins.get_mut(&stand_in) {
            if known.phase == Phase::Joining {
                known.phase = Phase::Joined;
            }
            let (group, role) = (known.group, known.role);
            self.retries.remove(&(group, role));
            // It reports its channels next.
            for (_, since) in self.unlinked.iter_mut().filter(|(client, _)| client.group == group) {
                *since = now;
            }
        }
        self.decide(now);
    }

    /// A stand-in could not join.
    pub(crate) fn failed(&mut self, stand_in: u32, now: Instant) {
        if let Some(known) = self.stand_ins.remove(&stand_in) {
            self.delay_retry(known.group, known.role, now);
        }
        self.decide(now);
    }

    /// A stand-in has a channel to a client, which is a member.
    pub(crate) fn linked(&mut self, stand_in: u32, member: u32, now: Instant) {
        let Some(known) = self.stand_ins.get_mut(&stand_in) else { return };
        let client = MeshMember { group: known.group, id: member };
        if !self.known.contains_key(&client) && self.known.len() >= self.limits.max_members {
            self.refused = self.refused.saturating_add(1);
            self.actions.push(PresenceAction::Cut { stand_in, member });
            return;
        }
        known.channels.insert(member);
        known.awaits_caller = false;
        self.unlinked.remove(&client);
        if !self.known.contains_key(&client) {
            self.known.insert(client, self.next_known);
            self.next_known = self.next_known.wrapping_add(1);
        }
        self.decide(now);
    }

    /// The channel of a stand-in to a client is closed.
    pub(crate) fn unlinked(&mut self, stand_in: u32, member: u32, now: Instant) {
        let Some(known) = self.stand_ins.get_mut(&stand_in) else { return };
        if !known.channels.remove(&member) {
            return;
        }
        let relink_delay = known.group.facts().relink_delay;
        known.lost.retain(|_, since| now.saturating_duration_since(*since) < relink_delay);
        known.lost.insert(member, now);
        let (client, role) = (MeshMember { group: known.group, id: member }, known.role);
        // The client is leaving, or lost this one channel: either way the other member must not see it any
        // more. Without any channel it has left, and its stand-ins leave.
        if let StandInRole::For(other) = role
            && self.has_channel(client)
            && let Some(opposite) = self.stand_in_for(other.group, client)
            && self.stand_ins.get(&opposite).is_some_and(|known| known.channels.contains(&other.id))
            && !self.has_last_channel(opposite)
        {
            self.will_close(opposite, other, now);
            self.actions.push(PresenceAction::Cut { stand_in: opposite, member: other.id });
        }
        self.decide(now);
    }

    /// A client without a member of its group uses the entry. Returns the stand-in that lets it in.
    pub(crate) fn called(&mut self, group: MeshGroup, now: Instant) -> Option<u32> {
        if !self.entries.contains(&group) || !self.has_others(group) {
            return None;
        }
        let is_able = |known: &StandIn| {
            known.group == group && known.phase == Phase::Joined && known.role != StandInRole::Placeholder
        };
        if let Some((number, _)) = self.stand_ins.iter().find(|(_, known)| is_able(known)) {
            return Some(*number);
        }
        // A stand-in that is still joining finds no member either, and joins as the first instead.
        let joining = self.stand_ins.iter().find(|(_, known)| {
            known.group == group && known.phase == Phase::Joining && known.role != StandInRole::Placeholder
        });
        let foreign = || self.bridged().into_iter().find(|member| member.group != group);
        let (joining, role) = match joining {
            Some((number, known)) => (Some(*number), known.role),
            None => (None, foreign().map_or(StandInRole::Provisional, StandInRole::For)),
        };
        if let Some(number) = joining {
            self.remove(number, now);
        }
        let stand_in = self.add(group, role, Phase::Joined);
        if let Some(known) = self.stand_ins.get_mut(&stand_in) {
            known.awaits_caller = true;
        }
        self.actions.push(PresenceAction::OpenEntry { stand_in, group });
        self.decide(now);
        Some(stand_in)
    }

    /// Returns what is to be done, in order.
    pub(crate) fn take_actions(&mut self) -> Vec<PresenceAction> {
        std::mem::take(&mut self.actions)
    }

    /// Returns the stand-in for `member` in `group`.
    pub(crate) fn stand_in_for(&self, group: MeshGroup, member: MeshMember) -> Option<u32> {
        let is_it = |known: &StandIn| {
            known.group == group
                && known.role == StandInRole::For(member)
                && !matches!(known.phase, Phase::Leaving { .. })
        };
        self.stand_ins.iter().find(|(_, known)| is_it(known)).map(|(number, _)| *number)
    }

    /// Returns the group of a stand-in and its purpose.
    pub(crate) fn stand_in(&self, stand_in: u32) -> Option<(MeshGroup, StandInRole)> {
        self.stand_ins.get(&stand_in).map(|known| (known.group, known.role))
    }

    /// Returns true if a client is known.
    pub(crate) fn is_known(&self, member: MeshMember) -> bool {
        self.known.contains_key(&member)
    }

    /// Returns true if a client can be called by signaling.
    pub(crate) fn is_callable(&self, group: MeshGroup, target: u32) -> bool {
        self.targets.get(&group).is_some_and(|targets| targets.contains(&target))
    }

    /// Returns how often a client was not bridged, because there were too many.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// Returns the time of the next [`tick`](Self::tick), if there is one.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let leaving = self.stand_ins.values().filter_map(|known| match known.phase {
            Phase::Leaving { since } => since.checked_add(self.limits.channel_grace),
            Phase::Joining | Phase::Joined => None,
        });
        let incomplete = self.stand_ins.values().filter_map(|known| {
            let rejoin_at = known.incomplete_since?.checked_add(INCOMPLETE_TIMEOUT)?;
            Some(known.introduce_at.map_or(rejoin_at, |at| at.min(rejoin_at)))
        });
        let retries = self.retries.values().chain(self.rechecks.values()).filter_map(|retry| retry.at);
        let unlinked = self.unlinked.iter().filter(|(client, _)| !self.is_joining(client.group));
        let unlinked = unlinked.filter_map(|(_, since)| since.checked_add(RELINK_TIMEOUT));
        leaving.chain(incomplete).chain(retries).chain(unlinked).min()
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.decide(now);
    }

    /// Returns true if a stand-in is about to join a group.
    fn is_joining(&self, group: MeshGroup) -> bool {
        self.stand_ins.values().any(|known| known.group == group && known.phase == Phase::Joining)
    }

    fn has_channel(&self, client: MeshMember) -> bool {
        self.stand_ins
            .values()
            .any(|known| known.group == client.group && known.channels.contains(&client.id))
    }

    fn add(&mut self, group: MeshGroup, role: StandInRole, phase: Phase) -> u32 {
        let number = self.next_stand_in;
        self.next_stand_in = self.next_stand_in.wrapping_add(1);
        let stand_in = StandIn {
            group,
            role,
            phase,
            channels: BTreeSet::new(),
            awaits_caller: false,
            incomplete_since: None,
            introduce_at: None,
            lost: BTreeMap::new(),
        };
        self.stand_ins.insert(number, stand_in);
        number
    }

    fn delay_retry(&mut self, group: MeshGroup, role: StandInRole, now: Instant) {
        let (first, last) = RETRY_DELAYS;
        let delay = match self.retries.get(&(group, role)) {
            Some(retry) => retry.delay.saturating_mul(2).min(last),
            None => first,
        };
        self.retries.insert((group, role), Retry { delay, at: now.checked_add(delay) });
    }
}
