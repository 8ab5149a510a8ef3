//! A seeded simulation of a cluster: nodes that join names, an engine that forgets, and a network that drops,
//! delays, doubles and partitions.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::super::lease::DisabledRules;
use super::super::{Action, Claim, Millis, NodeId, Ownership, Place};
use super::engine::{DisabledScripts, EngineData, EngineReply, EngineRequest, Name};
use super::links::{SimDial, SimPing, SimSearch};

pub(super) const NODES: usize = 3;
/// Number of the engine among those that a link connects.
pub(super) const ENGINE: usize = NODES;
const NAMES: Name = 6;
/// Time that a join waits for a decision.
const JOIN_TIMEOUT: Millis = 8_000;
/// Time of a run, in the simulation.
pub(super) const DURATION: Millis = 120_000;

/// The rules that do not hold in a run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Disabled {
    pub(super) lease: DisabledRules,
    pub(super) scripts: DisabledScripts,
    /// Nodes that the engine has forgotten are known for as long as they run.
    pub(super) departed: bool,
    /// The engine is sent nodes that run, and whose leases have ended.
    pub(super) found: bool,
}

#[derive(Clone, Debug)]
pub(super) enum SimEvent {
    Tick(usize),
    RenewTick(usize),
    Request {
        node: usize,
        id: NodeId,
        life: u32,
        process: u64,
        request: EngineRequest,
    },
    Reply {
        node: usize,
        life: u32,
        process: u64,
        reply: EngineReply,
    },
    Dial(SimDial),
    Ping(SimPing),
    Bye {
        to: usize,
        id: NodeId,
    },
    Search(SimSearch),
    Forward {
        from: usize,
        to: usize,
        id: NodeId,
        join: SimJoin,
    },
    Join,
    /// All peers leave a room.
    Empty(Name),
    Fault,
    Restart(usize),
    /// Earlier decisions count no more.
    Settle,
    Sever(usize, usize, Millis),
    Heal(Healing),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct SimJoin {
    name: Name,
    since: Millis,
    forwarded: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Healing {
    Engine,
    Former(u64),
    Link(usize, usize),
}

#[derive(Debug)]
pub(super) struct SimNode {
    pub(super) ownership: Ownership<Name>,
    pub(super) life: u32,
    /// The process of the engine that the connection leads to.
    pub(super) connection: Option<u64>,
    pub(super) renew_sent: Option<Millis>,
    pub(super) last_sent: Millis,
    pub(super) paused_until: Millis,
    /// The last ping of each node.
    pub(super) received: BTreeMap<NodeId, Millis>,
    pub(super) addresses: BTreeMap<NodeId, usize>,
    /// The other nodes that the engine knew at the last renewal, whose keys the node believes.
    pub(super) entries: Vec<NodeId>,
    /// Nodes that it knew before, whose addresses no others have, and the time of the last sign that each
    /// runs.
    pub(super) departed: Vec<(NodeId, Millis)>,
    /// The nodes of the entries whose leases have ended.
    pub(super) expired: Vec<NodeId>,
    /// Time of the last attempt to open links.
    pub(super) dialled: Millis,
    /// Nodes that announced that they end.
    pub(super) ended: BTreeSet<NodeId>,
    held: Vec<SimJoin>,
}

/// The first and the last decision by a claim.
type DecisionSpan = (Millis, Millis, Claim);

/// A cluster, and the decisions that its nodes made.
#[derive(Debug)]
pub(super) struct ClusterSimulation {
    pub(super) rng: fastrand::Rng,
    pub(super) now: Millis,
    queue: BinaryHeap<Reverse<(Millis, u32, u64)>>,
    events: BTreeMap<u64, SimEvent>,
    last_event: u64,
    last_node: u64,
    pub(super) data: EngineData,
    /// Copies of the data, to which the engine may fall back.
    pub(super) copies: Vec<(Millis, EngineData)>,
    pub(super) process: u64,
    /// Process and data of a primary that was replaced, and still answers the nodes that are connected to it.
    pub(super) former: Option<(u64, EngineData)>,
    /// The faults are those that the cluster does not survive.
    pub(super) is_uncovered: bool,
    /// Time from which on there are no new faults.
    pub(super) last_fault: Millis,
    /// Number of faults for which the engine is away.
    pub(super) away: u32,
    /// Time by which the engine's clock is ahead.
    pub(super) ahead: i64,
    cuts: BTreeMap<(usize, usize), u32>,
    pub(super) nodes: Vec<SimNode>,
    /// The machine of each process.
    pub(super) homes: BTreeMap<NodeId, usize>,
    /// Processes with a link between them.
    pub(super) links: BTreeSet<(NodeId, NodeId)>,
    pub(super) disabled: Disabled,
    decisions: BTreeMap<Name, BTreeMap<Claim, (Millis, Millis)>>,
    pub(super) decided: u64,
    pub(super) given_up: u64,
    pub(super) faults: Vec<String>,
    /// Two claims decided about a name before the faults ended.
    had_conflicts: bool,
    /// Time of the run.
    pub(super) duration: Millis,
    /// Factor of the times between joins, and of those for which rooms last.
    pub(super) slowness: Millis,
}

impl ClusterSimulation {
    pub(super) fn run(seed: u64, disabled: Disabled) -> Self {
        let mut simulation = ClusterSimulation::new(seed, disabled);
        simulation.start_nodes();
        simulation.run_to_the_end();
        simulation
    }

    /// Runs with faults that are not covered, and an end to them. Returns also if two claims decided about a
    /// name meanwhile; the decisions are those since all nodes reach each other and the engine.
    pub(super) fn run_uncovered(seed: u64) -> (Self, bool) {
        let mut simulation = ClusterSimulation::new(seed, Disabled::default());
        simulation.is_uncovered = true;
        simulation.last_fault = simulation.now + DURATION / 3;
        simulation.start_nodes();
        simulation.after(DURATION * 4 / 5, SimEvent::Settle);
        simulation.run_to_the_end();
        let had_conflicts = simulation.had_conflicts;
        (simulation, had_conflicts)
    }

    pub(super) fn new(seed: u64, disabled: Disabled) -> Self {
        ClusterSimulation {
            rng: fastrand::Rng::with_seed(seed),
            now: 1_000_000,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            last_event: 0,
            last_node: 0,
            data: EngineData::default(),
            copies: Vec::new(),
            process: 1,
            former: None,
            is_uncovered: false,
            had_conflicts: false,
            duration: DURATION,
            slowness: 1,
            last_fault: Millis::MAX,
            away: 0,
            ahead: 0,
            cuts: BTreeMap::new(),
            nodes: Vec::new(),
            homes: BTreeMap::new(),
            links: BTreeSet::new(),
            disabled,
            decisions: BTreeMap::new(),
            decided: 0,
            given_up: 0,
            faults: Vec::new(),
        }
    }

    pub(super) fn start_nodes(&mut self) {
        for node in 0..NODES {
            let started = self.start_node(node, 0);
            self.nodes.push(started);
            self.after(10 * node as Millis, SimEvent::Tick(node));
            self.after(10 * node as Millis, SimEvent::RenewTick(node));
        }
        self.after(8_000, SimEvent::Join);
        self.after(12_000, SimEvent::Fault);
    }

    pub(super) fn run_to_the_end(&mut self) {
        let end = self.now + self.duration;
        while let Some(Reverse((at, _, number))) = self.queue.pop() {
            let Some(event) = self.events.remove(&number) else { continue };
            if at > end {
                break;
            }
            self.now = at;
            self.handle(event);
        }
    }

    /// Returns true if a claim decided about each name.
    pub(super) fn decides_about_all(&self) -> bool {
        self.decisions.len() == NAMES as usize
    }

    /// Returns the names about which two claims decided in turns, and not one after the other, with the first
    /// and the last decision of each.
    pub(super) fn conflicts(&self) -> Vec<(Name, DecisionSpan, DecisionSpan)> {
        let mut found = Vec::new();
        for (name, claims) in &self.decisions {
            let mut spans: Vec<_> = claims.iter().map(|(claim, (from, to))| (*from, *to, *claim)).collect();
            spans.sort_unstable();
            for pair in spans.windows(2) {
                if pair[0].1 > pair[1].0 {
                    found.push((*name, pair[0], pair[1]));
                }
            }
        }
        found
    }

    pub(super) fn start_node(&mut self, node: usize, life: u32) -> SimNode {
        self.last_node += 1;
        self.homes.insert(NodeId(self.last_node), node);
        let mut ownership = Ownership::new(NodeId(self.last_node), self.now);
        ownership.disable(self.disabled.lease);
        SimNode {
            ownership,
            life,
            connection: None,
            renew_sent: None,
            last_sent: 0,
            paused_until: 0,
            received: BTreeMap::new(),
            addresses: BTreeMap::new(),
            entries: Vec::new(),
            departed: Vec::new(),
            expired: Vec::new(),
            dialled: 0,
            ended: BTreeSet::new(),
            held: Vec::new(),
        }
    }

    pub(super) fn after(&mut self, delay: Millis, event: SimEvent) {
        self.last_event += 1;
        self.events.insert(self.last_event, event);
        // Events of one moment are in any order.
        self.queue.push(Reverse((self.now + delay, self.rng.u32(..), self.last_event)));
    }

    /// Sends over the network: late, not at all, or twice.
    pub(super) fn send(&mut self, event: SimEvent) {
        if self.rng.u8(..) < 3 {
            return;
        }
        let times = 1 + u8::from(self.rng.u8(..) < 8);
        for _ in 0..times {
            let delay = if self.rng.u8(..) < 8 { self.rng.u64(50..900) } else { self.rng.u64(0..6) };
            self.after(delay, event.clone());
        }
    }

    pub(super) fn is_connected(&self, a: usize, b: usize) -> bool {
        !self.is_cut(a, b) && (a.max(b) != ENGINE || self.away == 0)
    }

    pub(super) fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cuts.get(&(a.min(b), a.max(b))).is_some_and(|times| *times > 0)
    }

    /// Returns true if all nodes run, and reach each other.
    pub(super) fn are_nodes_connected(&self) -> bool {
        self.cuts.iter().all(|((_, other), times)| *other == ENGINE || *times == 0)
            && self.nodes.iter().all(|node| node.paused_until <= self.now)
    }

    pub(super) fn sever(&mut self, a: usize, b: usize, time: Millis) {
        if a.max(b) != ENGINE {
            self.former = None;
        }
        self.cut(a, b, time);
    }

    pub(super) fn cut(&mut self, a: usize, b: usize, time: Millis) {
        if a.max(b) != ENGINE {
            let homes = &self.homes;
            self.links.retain(|(one, other)| {
                let ends = (homes[one], homes[other]);
                ends != (a, b) && ends != (b, a)
            });
        }
        *self.cuts.entry((a.min(b), a.max(b))).or_default() += 1;
        self.after(time, SimEvent::Heal(Healing::Link(a, b)));
    }

    fn handle(&mut self, event: SimEvent) {
        let receiver = match &event {
            SimEvent::Tick(node) | SimEvent::RenewTick(node) | SimEvent::Reply { node, .. } => Some(*node),
            SimEvent::Dial(dial) => Some(dial.receiver()),
            SimEvent::Ping(SimPing { to, .. })
            | SimEvent::Bye { to, .. }
            | SimEvent::Search(SimSearch { to, .. })
            | SimEvent::Forward { to, .. } => Some(*to),
            _ => None,
        };
        if let Some(node) = receiver
            && self.nodes[node].paused_until > self.now
        {
            // The tasks of a process that was stopped continue one after the other.
            let pause = self.nodes[node].paused_until - self.now + self.rng.u64(0..30);
            return self.after(pause, event);
        }
        match event {
            SimEvent::Tick(node) => {
                self.tick(node);
                self.after(250, SimEvent::Tick(node));
            }
            SimEvent::RenewTick(node) => {
                self.renew_tick(node);
                self.after(250, SimEvent::RenewTick(node));
            }
            SimEvent::Request { node, id, life, process, request } => {
                self.request((id, node), life, process, request);
            }
            SimEvent::Reply { node, life, process, reply } => {
                let receiver = &self.nodes[node];
                if receiver.life == life
                    && receiver.connection == Some(process)
                    && self.is_connected(node, ENGINE)
                {
                    self.reply(node, reply);
                }
            }
            SimEvent::Ping(ping) => {
                if self.is_connected(ping.from, ping.to) && self.nodes[ping.from].ownership.node() == ping.id
                {
                    self.ping(ping);
                }
            }
            SimEvent::Dial(dial) => self.dial(dial),
            SimEvent::Bye { to, id } => self.bye(to, id),
            SimEvent::Search(search) => self.search(search),
            SimEvent::Forward { from, to, id, join } => {
                if self.nodes[to].ownership.node() == id && self.is_connected(from, to) {
                    self.join(to, join);
                } else {
                    self.nodes[from].held.push(SimJoin { forwarded: false, ..join });
                }
            }
            SimEvent::Join => {
                let (node, name) = (self.rng.usize(..NODES), self.rng.u32(..NAMES));
                let join = SimJoin { name, since: self.now, forwarded: false };
                if self.nodes[node].paused_until > self.now {
                    self.nodes[node].held.push(join);
                } else {
                    self.join(node, join);
                }
                let pause = self.rng.u64(5..60) * self.slowness;
                self.after(pause, SimEvent::Join);
            }
            SimEvent::Empty(name) => {
                for node in 0..NODES {
                    if self.nodes[node].paused_until <= self.now {
                        self.nodes[node].ownership.release(&name);
                        self.act(node);
                    }
                }
            }
            SimEvent::Fault => self.fault(),
            SimEvent::Restart(node) => self.restart_node(node),
            SimEvent::Settle => {
                self.had_conflicts = !self.conflicts().is_empty();
                self.decisions.clear();
            }
            SimEvent::Sever(a, b, time) => self.sever(a, b, time),
            SimEvent::Heal(Healing::Engine) => self.away -= 1,
            SimEvent::Heal(Healing::Former(process)) => {
                self.former.take_if(|former| former.0 == process);
            }
            SimEvent::Heal(Healing::Link(a, b)) => {
                if let Some(times) = self.cuts.get_mut(&(a.min(b), a.max(b))) {
                    *times -= 1;
                }
            }
        }
    }

    /// Decides about a join here, sends it on, or holds it until the place of its name is known.
    fn join(&mut self, node: usize, join: SimJoin) {
        if self.now > join.since + JOIN_TIMEOUT {
            self.given_up += 1;
            return;
        }
        let place = self.nodes[node].ownership.locate(&join.name, self.now);
        match place {
            Place::Here => {
                let Some(claim) = self.nodes[node].ownership.claim(&join.name, self.now) else { return };
                let decided = self.decisions.entry(join.name).or_default();
                if !decided.contains_key(&claim) {
                    let life = self.rng.u64(200..20_000) * self.slowness;
                    self.after(life, SimEvent::Empty(join.name));
                }
                let decided = self.decisions.entry(join.name).or_default();
                decided.entry(claim).or_insert((self.now, self.now)).1 = self.now;
                self.decided += 1;
            }
            Place::At(id) if !join.forwarded => {
                let to = self.nodes[node].addresses.get(&id).copied();
                match to.filter(|to| self.nodes[*to].ownership.node() == id && self.is_connected(node, *to)) {
                    Some(to) => {
                        let join = SimJoin { forwarded: true, ..join };
                        let delay = self.rng.u64(0..6);
                        self.after(delay, SimEvent::Forward { from: node, to, id, join });
                    }
                    None => self.nodes[node].held.push(join),
                }
            }
            Place::At(_) | Place::Unknown | Place::Draining => self.nodes[node].held.push(join),
        }
        self.act(node);
    }

    /// Does what a node wants done.
    pub(super) fn act(&mut self, node: usize) {
        for action in self.nodes[node].ownership.take_actions() {
            match action {
                Action::Claim { name, claim, over, generation } => {
                    let since_renewal = self.nodes[node].ownership.lease().since_renewal(self.now);
                    self.ask(node, EngineRequest::Claim { name, claim, over, generation, since_renewal });
                }
                Action::Release { name, claim, generation } => {
                    self.ask(node, EngineRequest::Release { name, claim, generation });
                }
                Action::Ask(name) => self.ask_others(node, name),
                Action::Renew => self.renew(node),
                Action::Found(name) => {
                    let held = &mut self.nodes[node].held;
                    let found: Vec<_> = held.extract_if(.., |join| join.name == name).collect();
                    for join in found {
                        self.join(node, join);
                    }
                }
                Action::Close(..) => {}
            }
        }
    }

    fn tick(&mut self, node: usize) {
        let now = self.now;
        self.dial_others(node);
        self.send_pings(node);
        self.nodes[node].ownership.tick(now);
        self.act(node);
        let held = std::mem::take(&mut self.nodes[node].held);
        for join in held {
            self.join(node, join);
        }
    }
}
