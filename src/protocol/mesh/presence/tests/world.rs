//! The room of the tests: clients, and stand-ins that take their time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::super::*;

#[derive(Clone, Debug)]
pub(super) struct SimulatedClient {
    pub(super) group: MeshGroup,
    pub(super) is_callable: bool,
    pub(super) is_alive: bool,
    /// The client is linked to the members of its group.
    has_joined: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct SimulatedStandIn {
    is_joined: bool,
    pub(super) is_announced: bool,
    channels: BTreeSet<u32>,
}

#[derive(Clone, Debug)]
pub(super) enum Happening {
    Join { group: MeshGroup, is_callable: bool },
    Leave,
    Crash,
    LoseChannel,
    StandInJoined { stand_in: u32, through: BTreeSet<u32> },
    Linked { stand_in: u32, client: usize },
    ChannelTimeout { stand_in: u32, client: usize },
}

pub(super) struct World {
    pub(super) rng: fastrand::Rng,
    start: Instant,
    pub(super) now: Instant,
    pub(super) presence: Presence,
    pub(super) clients: Vec<SimulatedClient>,
    pub(super) stand_ins: BTreeMap<u32, SimulatedStandIn>,
    pub(super) entries: BTreeSet<MeshGroup>,
    queue: BTreeMap<(Instant, u64), Happening>,
    next: u64,
    pub(super) failure: f64,
    /// Times that a client saw a member join, by client and role of the stand-in.
    pub(super) joins_seen: BTreeMap<(usize, StandInRole), u32>,
    pub(super) last_channels_lost: u32,
    /// Times at which stand-ins lost their channels to clients.
    lost_at: BTreeMap<(u32, u32), Instant>,
    has_failed: bool,
}

impl World {
    pub(super) fn new(seed: u64, failure: f64, limits: PresenceLimits) -> Self {
        let now = Instant::now();
        World {
            rng: fastrand::Rng::with_seed(seed),
            start: now,
            now,
            presence: Presence::new(limits),
            clients: Vec::new(),
            stand_ins: BTreeMap::new(),
            entries: BTreeSet::new(),
            queue: BTreeMap::new(),
            next: 0,
            failure,
            joins_seen: BTreeMap::new(),
            last_channels_lost: 0,
            lost_at: BTreeMap::new(),
            has_failed: failure > 0.0,
        }
    }

    fn after(&mut self, milliseconds: std::ops::Range<u64>, happening: Happening) {
        let at = self.now + Duration::from_millis(self.rng.u64(milliseconds));
        self.next += 1;
        self.queue.insert((at, self.next), happening);
    }

    fn alive(&self, group: MeshGroup) -> Vec<usize> {
        (0..self.clients.len())
            .filter(|at| {
                let client = &self.clients[*at];
                client.is_alive && client.has_joined && client.group == group
            })
            .collect()
    }

    fn has_entry(&self, group: MeshGroup) -> bool {
        self.alive(group).iter().any(|at| self.clients[*at].is_callable)
    }

    pub(super) fn group_of(&self, stand_in: u32) -> Option<MeshGroup> {
        self.presence.stand_in(stand_in).map(|(group, _)| group)
    }

    pub(super) fn act(&mut self) {
        loop {
            let actions = self.presence.take_actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.perform(action);
            }
        }
    }

    fn perform(&mut self, action: PresenceAction) {
        match action {
            PresenceAction::Call { stand_in, group, target } => {
                let client = &self.clients[target as usize];
                assert!(client.is_callable && client.group == group, "{action:?} calls {client:?}");
                self.stand_ins
                    .insert(stand_in, SimulatedStandIn { is_announced: true, ..Default::default() });
                let through = BTreeSet::from([target]);
                self.after(20..800, Happening::StandInJoined { stand_in, through });
            }
            PresenceAction::JoinThroughChannels { stand_in, group, is_announced } => {
                let channels =
                    self.stand_ins.iter().filter(|(number, _)| self.group_of(**number) == Some(group));
                let through: BTreeSet<u32> = channels
                    .filter(|(_, known)| known.is_joined)
                    .flat_map(|(_, known)| known.channels.clone())
                    .collect();
                assert!(!through.is_empty());
                self.stand_ins.insert(stand_in, SimulatedStandIn { is_announced, ..Default::default() });
                self.after(20..800, Happening::StandInJoined { stand_in, through });
            }
            PresenceAction::Introduce { stand_in, member } => {
                let is_possible = self.stand_ins.iter().any(|(number, known)| {
                    self.group_of(*number) == self.group_of(stand_in) && known.channels.contains(&member)
                });
                assert!(is_possible);
                let delay = self.group_of(stand_in).unwrap().facts().relink_delay;
                let lost_at = self.lost_at.get(&(stand_in, member));
                assert!(lost_at.is_none_or(|at| self.now - *at >= delay), "the client drops it again");
                if self.rng.f64() >= self.failure {
                    self.after(20..300, Happening::Linked { stand_in, client: member as usize });
                }
            }
            PresenceAction::Announce { stand_in } => {
                let known = self.stand_ins.get_mut(&stand_in).unwrap();
                assert!(known.is_joined && !known.is_announced);
                known.is_announced = true;
            }
            PresenceAction::OpenEntry { stand_in, .. } => {
                let opened =
                    SimulatedStandIn { is_joined: true, is_announced: true, channels: BTreeSet::new() };
                self.stand_ins.insert(stand_in, opened);
            }
            PresenceAction::Leave { stand_in } => {
                let left = self.stand_ins.remove(&stand_in).unwrap();
                let group = left.channels.first().map(|channel| self.clients[*channel as usize].group);
                let Some(group) = group.filter(|group| group.facts().some_joiners_accept_none) else {
                    return;
                };
                if self.has_entry(group) {
                    return;
                }
                for channel in left.channels {
                    let has_other = self.stand_ins.values().any(|known| known.channels.contains(&channel));
                    if !has_other && self.clients[channel as usize].is_alive {
                        self.last_channels_lost += 1;
                    }
                }
            }
            PresenceAction::Cut { stand_in, member } => {
                if let Some(known) = self.stand_ins.get_mut(&stand_in)
                    && known.channels.remove(&member)
                {
                    self.lost_at.insert((stand_in, member), self.now);
                    self.presence.unlinked(stand_in, member, self.now);
                }
            }
            PresenceAction::Entry { group, is_open: true } => assert!(self.entries.insert(group)),
            PresenceAction::Entry { group, is_open: false } => assert!(self.entries.remove(&group)),
        }
    }

    fn link(&mut self, stand_in: u32, client: usize) {
        let Some(known) = self.stand_ins.get_mut(&stand_in).filter(|known| known.is_joined) else { return };
        if !self.clients[client].is_alive || !known.channels.insert(client as u32) {
            return;
        }
        let is_announced = known.is_announced;
        self.presence.linked(stand_in, client as u32, self.now);
        self.act();
        if let Some((_, role)) = self.presence.stand_in(stand_in)
            && is_announced
            && role != StandInRole::Provisional
        {
            *self.joins_seen.entry((client, role)).or_default() += 1;
        }
    }

    pub(super) fn unlink(&mut self, stand_in: u32, client: usize) {
        if let Some(known) = self.stand_ins.get_mut(&stand_in)
            && known.channels.remove(&(client as u32))
        {
            self.lost_at.insert((stand_in, client as u32), self.now);
            self.presence.unlinked(stand_in, client as u32, self.now);
            self.act();
        }
    }

    fn client_joins(&mut self, group: MeshGroup, is_callable: bool) {
        let id = self.clients.len() as u32;
        let mut client = SimulatedClient { group, is_callable, is_alive: true, has_joined: false };
        if !is_callable && !self.has_entry(group) {
            let opened =
                self.entries.contains(&group).then(|| self.presence.called(group, self.now)).flatten();
            self.clients.push(client.clone());
            self.act();
            let Some(_) = opened else {
                self.clients.pop();
                return;
            };
        } else {
            self.clients.push(client.clone());
        }
        client.has_joined = true;
        self.clients[id as usize] = client;
        for stand_in in self.stand_ins.keys().copied().collect::<Vec<u32>>() {
            let is_here = self.group_of(stand_in) == Some(group);
            let known = &self.stand_ins[&stand_in];
            if is_here && known.is_joined && known.is_announced {
                self.after(10..300, Happening::Linked { stand_in, client: id as usize });
            }
        }
        if is_callable {
            self.presence.arrived(group, id, self.now);
        }
        self.act();
    }

    fn any_alive(&mut self) -> Option<usize> {
        let alive: Vec<usize> = (0..self.clients.len()).filter(|at| self.clients[*at].is_alive).collect();
        (!alive.is_empty()).then(|| alive[self.rng.usize(..alive.len())])
    }

    fn client_ends(&mut self, is_crash: bool) {
        let Some(client) = self.any_alive() else { return };
        self.clients[client].is_alive = false;
        let channels: Vec<u32> = self
            .stand_ins
            .iter()
            .filter(|(_, known)| known.channels.contains(&(client as u32)))
            .map(|(number, _)| *number)
            .collect();
        for stand_in in channels {
            if is_crash {
                self.after(5_000..9_000, Happening::ChannelTimeout { stand_in, client });
            } else {
                self.unlink(stand_in, client);
            }
        }
        if self.clients[client].is_callable {
            self.presence.departed(self.clients[client].group, client as u32, self.now);
            self.act();
        }
    }

    fn stand_in_joined(&mut self, stand_in: u32, through: &BTreeSet<u32>) {
        let Some(group) = self.group_of(stand_in) else { return };
        let has_entry = through.iter().any(|client| self.clients[*client as usize].is_alive);
        if !has_entry || self.rng.f64() < self.failure {
            self.stand_ins.remove(&stand_in);
            self.presence.failed(stand_in, self.now);
            return self.act();
        }
        self.stand_ins.get_mut(&stand_in).unwrap().is_joined = true;
        self.presence.joined(stand_in, self.now);
        self.act();
        let is_introduced =
            through.len() > 1 || !self.clients[*through.first().unwrap() as usize].is_callable;
        for client in self.alive(group) {
            let is_known = !is_introduced || self.has_entry(group) || through.contains(&(client as u32));
            if is_known && self.rng.f64() >= self.failure {
                self.link(stand_in, client);
            }
        }
    }

    pub(super) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Join { group, is_callable } => self.client_joins(group, is_callable),
            Happening::Leave => self.client_ends(false),
            Happening::Crash => self.client_ends(true),
            Happening::LoseChannel => {
                let numbers: Vec<u32> = self.stand_ins.keys().copied().collect();
                if let Some(stand_in) =
                    (!numbers.is_empty()).then(|| numbers[self.rng.usize(..numbers.len())])
                    && let Some(channel) = self.stand_ins[&stand_in].channels.first().copied()
                {
                    self.unlink(stand_in, channel as usize);
                }
            }
            Happening::StandInJoined { stand_in, through } => self.stand_in_joined(stand_in, &through),
            Happening::Linked { stand_in, client } => self.link(stand_in, client),
            Happening::ChannelTimeout { stand_in, client } => self.unlink(stand_in, client),
        }
    }

    /// Runs for this long, with everything that is due.
    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        for _ in 0..100_000 {
            let event = self.queue.first_key_value().map(|((at, _), _)| *at);
            let tick = self.presence.deadline().map(|at| at.max(self.now));
            let Some(next) = [event, tick].into_iter().flatten().min().filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = next;
            if event.is_some_and(|at| at <= next) {
                let (_, happening) = self.queue.pop_first().unwrap();
                self.happen(happening);
            } else {
                self.presence.tick(next);
                self.act();
            }
        }
        panic!("the room does not come to rest");
    }

    /// Returns what a client sees of other groups: the members, or an error.
    pub(super) fn seen(&self, client: usize) -> Result<BTreeSet<usize>, String> {
        let mut seen = BTreeSet::new();
        for (number, known) in &self.stand_ins {
            if !known.is_announced || !known.channels.contains(&(client as u32)) {
                continue;
            }
            match self.presence.stand_in(*number) {
                Some((_, StandInRole::For(member))) => {
                    if !seen.insert(member.id as usize) {
                        return Err(format!("{client} sees {} twice", member.id));
                    }
                }
                other => return Err(format!("{client} sees {other:?}")),
            }
        }
        Ok(seen)
    }

    pub(super) fn check(&self, seed: u64) {
        let is_reachable = |at: usize| {
            let client = &self.clients[at];
            let has_channel = self.stand_ins.values().any(|known| known.channels.contains(&(at as u32)));
            // A client that lets no other in, and whose only channel was lost, cannot be found again.
            has_channel || client.is_callable || (!self.has_failed && self.has_entry(client.group))
        };
        let alive: Vec<usize> = (0..self.clients.len())
            .filter(|at| self.clients[*at].is_alive && self.clients[*at].has_joined && is_reachable(*at))
            .collect();
        for &client in &alive {
            let others: BTreeSet<usize> = alive
                .iter()
                .copied()
                .filter(|other| self.clients[*other].group != self.clients[client].group)
                .collect();
            let who = &self.clients[client];
            let after = self.now - self.start;
            let stand_ins: Vec<String> = self
                .stand_ins
                .iter()
                .map(|(number, known)| format!("{number} {:?} {known:?}", self.presence.stand_in(*number)))
                .collect();
            assert_eq!(
                self.seen(client),
                Ok(others),
                "seed {seed}, {client} {who:?} at {after:?}: {stand_ins:#?} {:?}",
                self.clients
            );
        }
    }
}
