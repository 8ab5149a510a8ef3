//! One node of a cluster: the observer of its links, and the tasks that do what its state asks for.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use indexmap::IndexSet;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, interval};

use super::departed::DepartedNodes;
use super::engine::{Engine, EngineAddress, NodeEntry};
use super::engine_fault::LastFault;
use super::far::FarLink;
use super::link::{LinkObserver, Links};
use super::name_hash::NameHasher;
use super::node_clock::now;
use super::node_counts::NodeCounts;
use super::open_questions::Questions;
use super::question::{AcceptedCall, Answer, Question};
use super::unlinked::Unlinked;
use super::wire::Call;
use crate::config::EngineLoss;
use crate::protocol::cluster::{Action, Generation, Millis, NodeId, Ownership};
use crate::protocol::model::{Reason, RoomKey};
use crate::server::hub::{Hub, Outbox};
use crate::server::memory::MemoryBudget;

/// Time between two looks at what is due.
const TICK: Duration = Duration::from_millis(100);
/// Number of ticks between two searches for claims without a room.
const SWEEP_TICKS: u32 = 100;

/// The settings of a node.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The engine.
    pub engine: EngineAddress,
    /// Host and port at which the other nodes reach this one.
    pub address: String,
    /// The address to listen on for links.
    pub listen: SocketAddr,
    /// A name for people, without spaces.
    pub name: String,
    /// Longest message of a client, in bytes.
    pub max_message: usize,
}

/// A node of a cluster.
#[derive(Debug)]
pub struct ClusterNode {
    pub(super) id: NodeId,
    pub(super) settings: NodeSettings,
    pub(super) names: NameHasher,
    pub(super) questions: Questions,
    pub(super) hub: Weak<Hub>,
    pub(super) links: OnceLock<Arc<Links>>,
    pub(super) state: Mutex<NodeState>,
    actions: mpsc::UnboundedSender<Action<RoomKey>>,
    pub(super) renew: Notify,
    pub(super) engine_fault: Mutex<LastFault>,
    /// Another process has the address of this node.
    pub(super) replaced: AtomicBool,
    /// The node has ended, and has no lease.
    pub(super) has_left: AtomicBool,
    pub(super) engine_loss: OnceLock<EngineLoss>,
    pub(super) counts: NodeCounts,
}

#[derive(Debug)]
pub(super) struct NodeState {
    pub(super) ownership: Ownership<RoomKey>,
    pub(super) engine: Option<Engine>,
    /// Time since which the engine does not answer, or has not all claims.
    pub(super) lost_since: Option<Millis>,
    /// Connections to notify, in this order, when the place of a room may be known. One that still waits asks
    /// again, and is here once.
    pub(super) waiters: HashMap<RoomKey, IndexSet<Outbox>>,
    pub(super) links: HashMap<NodeId, Arc<FarLink>>,
    pub(super) entries: HashMap<NodeId, NodeEntry>,
    pub(super) departed: DepartedNodes,
    pub(super) dialled: HashSet<NodeId>,
    /// Other nodes that are dialled, and to which there is no link.
    pub(super) unlinked: HashMap<NodeId, Unlinked>,
    /// The log has a line about a process that this node does not know, while the engine does not answer.
    pub(super) is_unknown_reported: bool,
}

impl NodeState {
    pub(super) fn new(id: NodeId) -> Self {
        NodeState {
            ownership: Ownership::new(id, now()),
            engine: None,
            lost_since: Some(now()),
            waiters: HashMap::new(),
            links: HashMap::new(),
            entries: HashMap::new(),
            departed: DepartedNodes::default(),
            dialled: HashSet::new(),
            unlinked: HashMap::new(),
            is_unknown_reported: false,
        }
    }

    /// Takes note that a process that this node does not know runs at the address of another. Returns true if
    /// the log is to have it: once, while the engine does not answer, and also if it was found before. While
    /// the engine answers, it is a node that starts.
    pub(super) fn found_unknown(&mut self) -> bool {
        self.ownership.found_unknown(now());
        self.lost_since.is_some() && !std::mem::replace(&mut self.is_unknown_reported, true)
    }

    /// Returns the entry of another node, also of one that the engine has forgotten.
    pub(super) fn entry(&self, node: NodeId) -> Option<&NodeEntry> {
        self.entries.get(&node).or_else(|| self.departed.entry(node))
    }
}

/// The state of a node, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// The id of the node.
    pub id: NodeId,
    /// The engine answers, and has all claims of this node.
    pub engine_ready: bool,
    /// The node may decide about its rooms.
    pub may_decide: bool,
    /// Number of rooms of this node.
    pub rooms: usize,
    /// Number of connections of this node in rooms of others.
    pub far: usize,
    /// Number of connections of others in rooms of this node.
    pub guests: usize,
    /// The other nodes that the engine knows, and whether there is a link to them.
    pub others: Vec<(NodeId, String, bool)>,
}

impl ClusterNode {
    /// Makes `hub` that of a node, and starts the tasks of the node within the current Tokio runtime.
    ///
    /// # Errors
    /// The address for links cannot be listened on, or the system has no randomness.
    pub(crate) async fn start(
        mut settings: NodeSettings,
        hub: &Arc<Hub>,
        memory: &Arc<MemoryBudget>,
    ) -> io::Result<Arc<ClusterNode>> {
        let listener = TcpListener::bind(settings.listen).await?;
        // The port that the system chose.
        if let Some(host) = settings.address.strip_suffix(":0") {
            settings.address = format!("{host}:{}", listener.local_addr()?.port());
        }
        let id = NodeId(fastrand::u64(1..));
        let (actions, received) = mpsc::unbounded_channel();
        let node = Arc::new(ClusterNode {
            id,
            hub: Arc::downgrade(hub),
            links: OnceLock::new(),
            state: Mutex::new(NodeState::new(id)),
            actions,
            renew: Notify::new(),
            engine_fault: Mutex::default(),
            replaced: AtomicBool::new(false),
            names: settings.engine.names(),
            has_left: AtomicBool::new(false),
            engine_loss: OnceLock::new(),
            counts: NodeCounts::default(),
            questions: Questions::default(),
            settings,
        });
        let observer: Arc<dyn LinkObserver> = Arc::<ClusterNode>::clone(&node);
        let links = Links::new(hub, memory, node.settings.max_message, observer)?;
        let links = node.links.get_or_init(|| links);
        hub.set_directory(Box::new(Arc::clone(&node)));
        tokio::spawn(Arc::clone(links).accept(listener));
        tokio::spawn(Arc::clone(&node).act(received));
        tokio::spawn(Arc::clone(&node).tick());
        tokio::spawn(Arc::clone(&node).follow_engine());
        Ok(node)
    }

    /// Returns the state of the node.
    pub fn report(&self) -> NodeReport {
        let guests = self.links.get().map_or(0, |links| links.guests());
        let mut state = self.state.lock();
        let may_decide = state.ownership.period(now()).is_some();
        let others = state.ownership.lease().others();
        let others = others.iter().map(|node| {
            let name = state.entries.get(node).map_or_else(String::new, |entry| entry.name.clone());
            (*node, name, state.links.contains_key(node))
        });
        NodeReport {
            id: self.id,
            engine_ready: state.ownership.is_ready(),
            may_decide,
            rooms: state.ownership.owned(),
            far: state.links.values().map(|link| link.sessions()).sum(),
            guests,
            others: others.collect(),
        }
    }

    /// Returns true if another process has the address of this node.
    pub(in crate::server) fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Relaxed)
    }

    /// Makes another process the one that has the address of this node.
    #[cfg(test)]
    pub(in crate::server) fn replace(&self) {
        self.replaced.store(true, Ordering::Relaxed);
    }

    pub(super) fn cluster_name(&self) -> &str {
        self.settings.engine.name()
    }

    pub(super) fn node_name(&self) -> &str {
        &self.settings.name
    }

    /// Applies an input to the state, and has done what follows.
    pub(super) fn with_state<R>(&self, apply: impl FnOnce(&mut NodeState) -> R) -> R {
        let mut state = self.state.lock();
        let result = apply(&mut state);
        for action in state.ownership.take_actions() {
            // The receiver lasts as long as the runtime.
            let _ = self.actions.send(action);
        }
        result
    }

    async fn tick(self: Arc<Self>) {
        let mut ticks = interval(TICK);
        let mut count: u32 = 0;
        loop {
            ticks.tick().await;
            self.with_state(|state| state.ownership.tick(now()));
            self.close_if_lost();
            count = count.wrapping_add(1);
            if count.is_multiple_of(SWEEP_TICKS) {
                self.sweep();
            }
        }
    }

    async fn act(self: Arc<Self>, mut actions: mpsc::UnboundedReceiver<Action<RoomKey>>) {
        while let Some(action) = actions.recv().await {
            match action {
                Action::Claim { name, claim, over, generation } => {
                    let (engine, since) = {
                        let state = self.state.lock();
                        (state.engine.clone(), state.ownership.lease().since_renewal(now()))
                    };
                    let Some((engine, since)) = engine.zip(since) else { continue };
                    let node = Arc::clone(&self);
                    tokio::spawn(async move {
                        let hash = node.names.room(name.as_str(), name.partition());
                        let sent = Instant::now();
                        match engine.claim(&hash, claim, over, generation, since).await {
                            Ok(result) => {
                                node.counts.times.claims.observe(sent.elapsed().as_secs_f64());
                                node.counts.count_claim(Some(result));
                                node.with_state(|state| {
                                    state.ownership.claim_answered(&name, claim, result, now());
                                });
                            }
                            Err(error) => {
                                node.counts.count_claim(None);
                                node.engine_failed(&engine, &error);
                            }
                        }
                    });
                }
                Action::Release { name, claim, generation } => {
                    let Some(engine) = self.state.lock().engine.clone() else { continue };
                    let node = Arc::clone(&self);
                    tokio::spawn(async move {
                        let hash = node.names.room(name.as_str(), name.partition());
                        if let Err(error) = engine.release(&hash, claim, generation).await {
                            node.engine_failed(&engine, &error);
                        }
                    });
                }
                Action::Ask(name) => {
                    let links: Vec<_> = self.state.lock().links.values().map(Arc::clone).collect();
                    links.iter().for_each(|link| link.find(&name));
                }
                Action::Renew => self.renew.notify_one(),
                Action::Found(name) => {
                    let waiters = self.state.lock().waiters.remove(&name);
                    waiters.into_iter().flatten().for_each(|waiter| waiter.notify());
                }
                Action::Close(name, cause) => {
                    self.counts.count_lost_room(cause);
                    if let Some(hub) = self.hub.upgrade() {
                        hub.close_room(&name, &Reason::Moved);
                    }
                }
            }
        }
    }

    /// Logs that the node decides about a room, for the test that no two nodes do at once.
    pub(super) fn trace_decision(&self, state: &mut NodeState, key: &RoomKey, at: Millis) {
        if tracing::enabled!(tracing::Level::TRACE)
            && let Some(claim) = state.ownership.claim(key, at)
        {
            let room = self.names.room(key.as_str(), key.partition());
            tracing::trace!(at, %room, %claim, "decides about a room");
        }
    }
}

impl LinkObserver for ClusterNode {
    fn now(&self) -> Millis {
        now()
    }

    fn view(&self) -> (Generation, Vec<NodeId>) {
        let state = self.state.lock();
        let lease = state.ownership.lease();
        (lease.generation(), lease.named(now()))
    }

    fn on_ping(&self, node: NodeId, confirms: Millis, (generation, others): (Generation, Vec<NodeId>)) {
        self.with_state(|state| {
            state.departed.ran(node, Instant::now());
            state.ownership.on_ping(node, confirms, generation, others, now());
        });
    }

    fn proved_alive(&self, node: NodeId) {
        self.with_state(|state| {
            // Also one that the engine has forgotten: it may have rooms, and not know this node.
            if state.entries.contains_key(&node) || state.departed.ran(node, Instant::now()) {
                state.ownership.proved_alive(node, now());
            }
        });
    }

    fn found_unknown(&self, node: NodeId) {
        if self.with_state(NodeState::found_unknown) {
            tracing::error!(
                "a process that this node does not know runs in place of {}. Redis does not answer this node, \
                 and may answer that one: the rooms of this node are closed until Redis answers here",
                self.describe_node(node)
            );
        }
    }

    fn confirms(&self) -> bool {
        self.state.lock().ownership.lease().confirms()
    }

    fn describe(&self, node: NodeId) -> String {
        self.describe_node(node)
    }

    fn linked(&self, link: &Arc<FarLink>) {
        tracing::info!("linked with {}", self.describe_node(link.node()));
        self.with_state(|state| {
            state.unlinked.remove(&link.node());
            state.links.insert(link.node(), Arc::clone(link));
            state.ownership.set_linked(link.node(), true, now());
        });
    }

    fn unlinked(&self, link: &Arc<FarLink>) {
        self.with_state(|state| {
            if state.links.get(&link.node()).is_some_and(|current| Arc::ptr_eq(current, link)) {
                state.links.remove(&link.node());
                state.ownership.set_linked(link.node(), false, now());
            }
        });
        self.questions.unlinked(link.node());
    }

    fn ended(&self, node: NodeId) {
        self.with_state(|state| state.ownership.ended(node, now()));
    }

    fn has_room(&self, key: &RoomKey) -> bool {
        self.with_state(|state| state.ownership.claim(key, now()).is_some())
    }

    fn found(&self, node: NodeId, key: &RoomKey) {
        self.with_state(|state| state.ownership.found_at(key, node, now()));
    }

    fn asked(&self, question: Question) -> Answer {
        self.questions.answer(question)
    }

    fn answered(&self, node: NodeId, ticket: u32, yes: bool) {
        self.questions.answered(node, ticket, yes);
    }

    fn called(&self, call: Call) -> Option<AcceptedCall> {
        self.questions.accept_call(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_process_is_reported_once_and_only_while_the_engine_does_not_answer() {
        let mut state = NodeState::new(NodeId(1));
        state.lost_since = None;
        assert!(!state.found_unknown());
        // It is found again with each attempt to reach the node that was there.
        state.lost_since = Some(now());
        assert!(state.found_unknown() && !state.found_unknown());
    }
}
