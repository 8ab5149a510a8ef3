//! The stand-ins that there have to be, and the steps towards them.

use std::collections::BTreeSet;
use std::time::Instant;

use super::{
    INCOMPLETE_TIMEOUT, MeshMember, Phase, Presence, PresenceAction, RECHECK_INTERVALS, RELINK_TIMEOUT,
    Retry, StandIn, StandInRole,
};
use crate::protocol::mesh::group::MeshGroup;

impl Presence {
    /// Returns the known clients that are bridged, in the order in which they became known.
    pub(super) fn bridged(&self) -> Vec<MeshMember> {
        let mut members: Vec<(u64, MeshMember)> =
            self.known.iter().map(|(member, order)| (*order, *member)).collect();
        members.sort_unstable();
        members.into_iter().map(|(_, member)| member).collect()
    }

    fn target(&self, group: MeshGroup) -> Option<u32> {
        self.targets.get(&group).and_then(|targets| targets.first().copied())
    }

    fn awaits_caller(&self, group: MeshGroup) -> bool {
        self.stand_ins.values().any(|known| known.group == group && known.awaits_caller)
    }

    fn has_clients(&self, group: MeshGroup) -> bool {
        self.known.keys().any(|member| member.group == group)
    }

    fn is_present(&self, group: MeshGroup) -> bool {
        self.target(group).is_some() || self.has_clients(group)
    }

    /// Returns true if another group has someone.
    pub(super) fn has_others(&self, group: MeshGroup) -> bool {
        MeshGroup::ALL.iter().any(|other| *other != group && self.is_present(*other))
    }

    /// Returns true if new stand-ins can only be introduced by others.
    fn needs_channels(&self, group: MeshGroup) -> bool {
        group.facts().some_joiners_accept_none && self.target(group).is_none()
    }

    /// Compares the stand-ins with those that there have to be, and asks for what is missing. Leaves come
    /// first, so that what depends on them is decided in the same turn.
    pub(super) fn decide(&mut self, now: Instant) {
        self.end_delays(now);
        // A stand-in that leaves may have had the last channel to a client, whose stand-ins leave in turn.
        self.end_unlinked(now);
        self.forget_clients_without_channels();
        self.recheck(now);
        let mut before = usize::MAX;
        while before > self.stand_ins.len() {
            before = self.stand_ins.len();
            self.forget_clients_without_channels();
            self.bind_provisional();
            self.leave_if_superfluous(now);
            self.rejoin_if_incomplete(now);
        }
        self.join_if_missing();
        self.switch_entries();
    }

    fn end_delays(&mut self, now: Instant) {
        let known = &self.known;
        self.retries.retain(|(_, role), _| match role {
            StandInRole::For(member) => known.contains_key(member),
            StandInRole::Provisional | StandInRole::Placeholder => true,
        });
        for retry in self.retries.values_mut() {
            retry.at = retry.at.filter(|at| *at > now);
        }
    }

    fn forget_clients_without_channels(&mut self) {
        let channels: BTreeSet<MeshMember> = self
            .stand_ins
            .values()
            .flat_map(|known| known.channels.iter().map(|id| MeshMember { group: known.group, id: *id }))
            .collect();
        let unlinked = &self.unlinked;
        self.known.retain(|member, _| channels.contains(member) || unlinked.contains_key(member));
    }

    /// Forgets clients that no stand-in has found again, or that may be those who left.
    fn end_unlinked(&mut self, now: Instant) {
        let mut unlinked = std::mem::take(&mut self.unlinked);
        unlinked.retain(|client, since| {
            let of_group = self.known.keys().filter(|member| member.group == client.group).count();
            let callable = self.targets.get(&client.group).map_or(0, BTreeSet::len);
            let is_in_time = now.saturating_duration_since(*since) < RELINK_TIMEOUT;
            callable >= of_group && (is_in_time || self.is_joining(client.group))
        });
        self.unlinked = unlinked;
    }

    /// Has the provisional stand-in stand for a client that has none in its group.
    fn bind_provisional(&mut self) {
        for member in self.bridged() {
            let is_free = |known: &StandIn| {
                known.role == StandInRole::Provisional
                    && known.group != member.group
                    && !matches!(known.phase, Phase::Leaving { .. })
            };
            let free: Vec<(u32, MeshGroup)> = self
                .stand_ins
                .iter()
                .filter(|(_, known)| is_free(known))
                .map(|(number, known)| (*number, known.group))
                .collect();
            for (number, group) in free {
                if self.stand_in_for(group, member).is_none()
                    && let Some(known) = self.stand_ins.get_mut(&number)
                {
                    known.role = StandInRole::For(member);
                    break;
                }
            }
        }
    }

    /// Returns true if a stand-in for this purpose has to be in the group.
    fn is_wanted(&self, group: MeshGroup, role: StandInRole) -> bool {
        match role {
            StandInRole::For(member) => {
                let is_here = self.is_present(group) || self.awaits_caller(group);
                is_here && member.group != group && self.known.contains_key(&member)
            }
            // It would stand for a member that is known, if there were one without a stand-in.
            StandInRole::Provisional => {
                let is_known = self.known.keys().any(|member| member.group != group);
                let is_here = self.is_present(group) || self.awaits_caller(group);
                is_here && self.has_others(group) && !is_known
            }
            StandInRole::Placeholder => {
                let others_have = self.stand_ins.values().any(|known| {
                    known.group == group
                        && known.role != StandInRole::Placeholder
                        && known.phase == Phase::Joined
                        && self.is_wanted(group, known.role)
                });
                self.needs_channels(group) && self.has_clients(group) && !others_have
            }
        }
    }

    /// Returns true if a stand-in has a channel to a client that no other has, and channels are needed.
    pub(super) fn has_last_channel(&self, number: u32) -> bool {
        let Some(leaving) = self.stand_ins.get(&number) else { return false };
        self.needs_channels(leaving.group)
            && leaving.channels.iter().any(|member| {
                !self.stand_ins.iter().any(|(other, known)| {
                    *other != number
                        && known.group == leaving.group
                        && known.phase == Phase::Joined
                        && known.channels.contains(member)
                })
            })
    }

    fn leave_if_superfluous(&mut self, now: Instant) {
        let numbers: Vec<u32> = self.stand_ins.keys().copied().collect();
        for number in numbers {
            let Some(known) = self.stand_ins.get(&number) else { continue };
            let (group, role, phase) = (known.group, known.role, known.phase);
            if self.is_wanted(group, role) {
                // Its member is known again.
                if let Some(known) = self.stand_ins.get_mut(&number)
                    && matches!(phase, Phase::Leaving { .. })
                {
                    known.phase = Phase::Joined;
                }
                continue;
            }
            // A placeholder is superseded only where others have all of its channels.
            let grace = self.limits.channel_grace;
            let is_over = match phase {
                Phase::Leaving { since } => now.saturating_duration_since(since) >= grace,
                Phase::Joining | Phase::Joined => grace.is_zero(),
            };
            if role == StandInRole::Placeholder && self.has_last_channel(number) {
                continue;
            }
            if !is_over && (self.has_last_channel(number) || known.awaits_caller) {
                if let Some(known) = self.stand_ins.get_mut(&number)
                    && !matches!(phase, Phase::Leaving { .. })
                {
                    known.phase = Phase::Leaving { since: now };
                    known.incomplete_since = None;
                }
                continue;
            }
            self.remove(number, now);
        }
    }

    pub(super) fn remove(&mut self, number: u32, now: Instant) {
        let Some(known) = self.stand_ins.get(&number) else { return };
        let group = known.group;
        for id in known.channels.clone() {
            self.will_close(number, MeshMember { group, id }, now);
        }
        self.stand_ins.remove(&number);
        self.actions.push(PresenceAction::Leave { stand_in: number });
    }

    /// The bridge closes the channel of a stand-in to a client. One that has no other channel and can be
    /// called stays known for a while: it has not left.
    pub(super) fn will_close(&mut self, number: u32, client: MeshMember, now: Instant) {
        let has_other = self.stand_ins.iter().any(|(other, known)| {
            *other != number && known.group == client.group && known.channels.contains(&client.id)
        });
        let is_there = self.target(client.group).is_some() && self.has_others(client.group);
        if !has_other && is_there && self.known.contains_key(&client) {
            self.unlinked.insert(client, now);
        }
    }

    /// Has a stand-in join again that lacked a channel to a client of its group for too long.
    fn rejoin_if_incomplete(&mut self, now: Instant) {
        let numbers: Vec<u32> = self.stand_ins.keys().copied().collect();
        for number in numbers {
            let Some(known) = self.stand_ins.get(&number) else { continue };
            if known.phase != Phase::Joined {
                continue;
            }
            let (group, role) = (known.group, known.role);
            let lacks =
                self.known.keys().any(|member| member.group == group && !known.channels.contains(&member.id));
            // Without any channel it is alone: the entry waits for its client.
            let is_alone = known.channels.is_empty();
            let Some(known) = self.stand_ins.get_mut(&number) else { continue };
            if !lacks && !is_alone {
                (known.incomplete_since, known.introduce_at) = (None, None);
                continue;
            }
            let since = match known.incomplete_since {
                Some(since) => since,
                None => known.begin_incomplete(now),
            };
            if known.introduce_at.is_some_and(|at| at <= now) {
                self.introduce(number, now);
            }
            if now.saturating_duration_since(since) < INCOMPLETE_TIMEOUT {
                continue;
            }
            if !self.has_last_channel(number) {
                self.remove(number, now);
                self.delay_retry(group, role, now);
            } else if let Some(known) = self.stand_ins.get_mut(&number) {
                known.begin_incomplete(now);
            }
        }
    }

    /// Has one stand-in join again where a client can be called and is not known: its only channel was lost,
    /// or was never there.
    fn recheck(&mut self, now: Instant) {
        let (first, last) = RECHECK_INTERVALS;
        for &group in MeshGroup::ALL {
            let targets = self.targets.get(&group).map_or(0, BTreeSet::len);
            let known = self.known.keys().filter(|member| member.group == group).count();
            let is_joined = |known: &StandIn| known.group == group && known.phase == Phase::Joined;
            let stand_in =
                self.stand_ins.iter().find(|(_, known)| is_joined(known)).map(|(number, _)| *number);
            let is_full = self.known.len() >= self.limits.max_members;
            let Some(stand_in) = stand_in.filter(|_| known < targets && !is_full) else {
                self.rechecks.remove(&group);
                continue;
            };
            let delay = match self.rechecks.get(&group).copied() {
                None => first,
                Some(retry) if retry.at.is_some_and(|at| at <= now) => {
                    if !self.has_last_channel(stand_in) {
                        self.remove(stand_in, now);
                    }
                    retry.delay.saturating_mul(2).min(last)
                }
                Some(_) => continue,
            };
            self.rechecks.insert(group, Retry { delay, at: now.checked_add(delay) });
        }
    }

    /// Introduces a stand-in to the clients to which others have channels, where that is possible: to those
    /// that it has just lost later.
    fn introduce(&mut self, number: u32, now: Instant) {
        let Some(known) = self.stand_ins.get(&number) else { return };
        let is_possible = known.group.facts().some_joiners_accept_none;
        let lacking = self.known.keys().filter(|member| {
            member.group == known.group && !known.channels.contains(&member.id) && self.has_channel(**member)
        });
        let (mut introductions, mut introduce_at) = (Vec::new(), None::<Instant>);
        for &MeshMember { id: member, .. } in lacking.filter(|_| is_possible) {
            match known.relink_at(member).filter(|at| *at > now) {
                Some(at) => introduce_at = Some(introduce_at.map_or(at, |earlier| earlier.min(at))),
                None => introductions.push(PresenceAction::Introduce { stand_in: number, member }),
            }
        }
        self.actions.extend(introductions);
        if let Some(known) = self.stand_ins.get_mut(&number) {
            known.introduce_at = introduce_at;
        }
    }

    fn join_if_missing(&mut self) {
        let bridged = self.bridged();
        let is_full = bridged.len() >= self.limits.max_members;
        for &group in MeshGroup::ALL {
            if !self.is_present(group) || (is_full && !self.has_clients(group)) {
                continue;
            }
            for member in bridged.iter().filter(|member| member.group != group) {
                if self.stand_in_for(group, *member).is_none() && !self.announce_placeholder(group, *member) {
                    self.join(group, StandInRole::For(*member));
                }
            }
            let has_placeholder = self
                .stand_ins
                .values()
                .any(|known| known.group == group && known.role == StandInRole::Placeholder);
            let is_foreign = bridged.iter().any(|member| member.group != group);
            if !is_foreign && !has_placeholder && self.is_wanted(group, StandInRole::Placeholder) {
                self.join(group, StandInRole::Placeholder);
            }
        }
        // No client is known yet: one stand-in begins, in the group that is called.
        let present: Vec<MeshGroup> =
            MeshGroup::ALL.iter().copied().filter(|group| self.is_present(*group)).collect();
        let is_begun = self.stand_ins.values().any(|known| {
            known.role != StandInRole::Placeholder && !matches!(known.phase, Phase::Leaving { .. })
        });
        if present.len() >= 2 && !is_begun {
            let first = present.iter().copied().rev().find(|group| {
                self.target(*group).is_some() && !self.is_delayed(*group, StandInRole::Provisional)
            });
            if let Some(group) = first {
                self.join(group, StandInRole::Provisional);
            }
        }
    }

    /// Has the placeholder of a group stand for a member. Returns false if there is none.
    fn announce_placeholder(&mut self, group: MeshGroup, member: MeshMember) -> bool {
        let placeholder = self.stand_ins.iter_mut().find(|(_, known)| {
            known.group == group
                && known.role == StandInRole::Placeholder
                && known.phase == Phase::Joined
                && !known.channels.is_empty()
        });
        let Some((number, known)) = placeholder else { return false };
        known.role = StandInRole::For(member);
        self.actions.push(PresenceAction::Announce { stand_in: *number });
        true
    }

    fn is_delayed(&self, group: MeshGroup, role: StandInRole) -> bool {
        self.retries.get(&(group, role)).is_some_and(|retry| retry.at.is_some())
    }

    fn join(&mut self, group: MeshGroup, role: StandInRole) {
        if self.is_delayed(group, role) {
            return;
        }
        let has_channel = self
            .stand_ins
            .values()
            .any(|known| known.group == group && known.phase != Phase::Joining && !known.channels.is_empty());
        let target = self.target(group);
        if target.is_none() && !(group.facts().some_joiners_accept_none && has_channel) {
            return;
        }
        let stand_in = self.add(group, role, Phase::Joining);
        self.actions.push(match target {
            Some(target) => PresenceAction::Call { stand_in, group, target },
            None => {
                let is_announced = role != StandInRole::Placeholder;
                PresenceAction::JoinThroughChannels { stand_in, group, is_announced }
            }
        });
    }

    /// Opens the entries of groups whose joiners need one while another group has someone, or while clients
    /// can be reached through the bridge alone: the gateway reports the members of other groups until then.
    fn switch_entries(&mut self) {
        for &group in MeshGroup::ALL {
            let is_held = self.needs_channels(group) && self.has_clients(group);
            let is_wanted = group.facts().some_joiners_accept_none && (self.has_others(group) || is_held);
            if is_wanted != self.entries.contains(&group) {
                if is_wanted {
                    self.entries.insert(group);
                } else {
                    self.entries.remove(&group);
                }
                self.actions.push(PresenceAction::Entry { group, is_open: is_wanted });
            }
        }
    }
}
