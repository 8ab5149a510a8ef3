//! A gateway on a simulated network, which is restarted while its clients are there.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use serde_json::Value;
use sigver::config::RoomPolicy;
use sigver::protocol::dialect::Dialect;
use sigver::server::StreamAcceptor;
use sigver::server::admin::StatusService;
use sigver::tools::client::dialects::JoinerId;
use sigver::{Config, Gateway, StatusQuery};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::inspector::Inspector;
use crate::network::{Fault, Link, SimStream, Wire, connection};
use crate::trace::Trace;

/// Time after which nothing of a client that has disappeared is left. WebSockets are pinged twice; event
/// streams end when what is sent to keep them in use is not acknowledged.
pub const LONGEST_DEADLINE: Duration = Duration::from_secs(120);

/// Most names of joiners that attackers know.
const MAX_JOINER_IDS: usize = 50;

/// Time that a shutdown may take after the drain.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(8);

/// The protocols of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Auto,
    ByGeneration,
    Pinned(Dialect),
}

impl Mode {
    /// Returns the mode of a run.
    pub fn random(rng: &mut Rng) -> Mode {
        match rng.u8(..10) {
            0..=4 => Mode::Auto,
            5..=6 => Mode::ByGeneration,
            _ => Mode::Pinned(Dialect::ALL[rng.usize(..Dialect::ALL.len())]),
        }
    }

    /// Returns the dialects that clients of a run may speak.
    pub fn dialects(self) -> Vec<Dialect> {
        match self {
            Mode::Auto | Mode::ByGeneration => Dialect::ALL.to_vec(),
            Mode::Pinned(dialect) => vec![dialect],
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::Auto => f.write_str("auto"),
            Mode::ByGeneration => f.write_str("auto by generation"),
            Mode::Pinned(dialect) => f.write_str(dialect.name()),
        }
    }
}

/// A gateway of one process.
struct Running {
    /// `None` while the gateway is down.
    acceptor: Option<StreamAcceptor>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
    wires: Vec<Wire>,
}

/// A gateway and the network around it.
pub struct World {
    pub mode: Mode,
    pub trace: Trace,
    rng: Mutex<Rng>,
    running: Mutex<Option<Running>>,
    /// The gateways of all processes so far.
    statuses: Mutex<Vec<StatusService>>,
    /// Changes with each restart.
    epoch: AtomicU32,
    pub conversations: AtomicU64,
    next_address: AtomicU32,
    /// Names of joiners, as the gateway gave them to members.
    joiner_ids: Mutex<Vec<Value>>,
}

impl World {
    /// Starts a gateway.
    pub async fn start(mode: Mode, trace: Trace, rng: Rng) -> Arc<World> {
        let world = Arc::new(World {
            mode,
            trace,
            rng: Mutex::new(rng),
            running: Mutex::new(None),
            statuses: Mutex::default(),
            epoch: AtomicU32::new(0),
            conversations: AtomicU64::new(0),
            next_address: AtomicU32::new(1),
            joiner_ids: Mutex::default(),
        });
        world.start_gateway().await;
        world
    }

    async fn start_gateway(&self) {
        let mut config = Config::default();
        config.listen.clear();
        config.drain_timeout = Duration::from_secs(4);
        // Not the memory of this machine.
        config.limits.max_memory = Some(1 << 40);
        config.limits.max_connections = Some(10_000);
        match self.mode {
            Mode::Auto => {}
            Mode::ByGeneration => config.rooms = RoomPolicy::Partitioned,
            Mode::Pinned(dialect) => config.protocol = dialect.name().parse().unwrap(),
        }
        let gateway = Gateway::bind(config).await.unwrap();
        self.statuses.lock().push(gateway.status());
        let acceptor = Some(gateway.acceptor());
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(gateway.run_until(async {
            let _ = stopped.await;
        }));
        *self.running.lock() = Some(Running { acceptor, stop, served, wires: Vec::new() });
    }

    /// Returns a generator that depends on the seed only.
    pub fn rng(&self) -> Rng {
        self.rng.lock().fork()
    }

    /// Takes note of the name of a joiner.
    pub fn note_joiner_id(&self, id: &JoinerId) {
        let mut ids = self.joiner_ids.lock();
        if ids.len() == MAX_JOINER_IDS {
            ids.remove(0);
        }
        ids.push(id.0.clone());
    }

    /// Returns the name of a joiner, of whatever member.
    pub fn any_joiner_id(&self, rng: &mut Rng) -> Option<Value> {
        let ids = self.joiner_ids.lock();
        rng.choice(ids.iter()).cloned()
    }

    /// Returns the number of restarts.
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Returns the conditions of a new client's network.
    pub fn random_link(&self) -> Link {
        let mut rng = self.rng();
        Link {
            delay: Duration::from_millis(rng.u64(0..=150)),
            jitter: Duration::from_millis(rng.u64(0..=20)),
        }
    }

    /// Connects a client of this name to the gateway. `None` if it is down.
    pub async fn connect(&self, name: &str, link: Link) -> Option<(SimStream, Wire)> {
        sleep(2 * link.delay).await;
        let address = Ipv4Addr::from(0x0a00_0000 + self.next_address.fetch_add(1, Ordering::Relaxed));
        let mut rng = self.rng();
        let mut running = self.running.lock();
        let running = running.as_mut()?;
        let acceptor = running.acceptor.as_ref()?;
        let (client, server, wire) = connection(link, &mut rng, Inspector::new(name, &self.trace));
        running.wires.push(wire.clone());
        acceptor.accept(server, Some(IpAddr::V4(address)));
        Some((client, wire))
    }

    /// Restarts the gateway: a new process takes over at once, while the old one closes its connections.
    pub async fn hand_over(&self) {
        self.trace.note("world", "the gateway is replaced");
        self.epoch.fetch_add(1, Ordering::Relaxed);
        let old = self.running.lock().take();
        self.start_gateway().await;
        if let Some(old) = old {
            self.end(old).await;
        }
    }

    /// Kills the gateway, and starts it again after a while.
    pub async fn crash(&self, down: Duration) {
        self.trace.note("world", "the gateway is killed");
        self.epoch.fetch_add(1, Ordering::Relaxed);
        let old = self.running.lock().take();
        if let Some(old) = old {
            old.wires.iter().for_each(|wire| wire.fail(Fault::Reset));
            self.end(old).await;
        }
        sleep(down).await;
        self.trace.note("world", "the gateway is started");
        self.start_gateway().await;
    }

    async fn end(&self, old: Running) {
        let Running { stop, served, .. } = old;
        let _ = stop.send(());
        if tokio::time::timeout(Duration::from_secs(4) + SHUTDOWN_TIMEOUT, served).await.is_err() {
            self.trace.violation("world", "the gateway does not end in time");
        }
    }

    /// Stops the gateway when all clients have disconnected, and checks that nothing of them is left.
    pub async fn finish(&self) {
        sleep(LONGEST_DEADLINE).await;
        self.check_nothing_is_left();
        let running = self.running.lock().take();
        if let Some(running) = running {
            self.end(running).await;
        }
    }

    fn check_nothing_is_left(&self) {
        let mut total = 0;
        for status in self.statuses.lock().iter() {
            let shared = &status.shared;
            let report = status.report(StatusQuery::default());
            let left = [
                ("rooms", shared.hub.rooms() as u64),
                ("peers in rooms", u64::from(report.rooms.total > 0)),
                ("bytes held", shared.memory.used() as u64),
                ("connections that are admitted", shared.admission.open().into()),
                ("connections that are counted", report.connections.active),
                ("connections of unknown dialect", report.unrecognised.active),
                ("pipes", report.signaller.count.active),
                ("panics", report.panics),
                ("connections of a dialect", report.dialects.iter().map(|d| d.assigned.active).sum()),
            ];
            for (what, count) in left {
                if count != 0 {
                    self.trace.violation("world", format_args!("left: {count} {what}"));
                }
            }
            total += report.connections.total + report.signaller.count.total;
        }
        let ends = self.trace.ends();
        if ends.keys().any(|cause| cause.contains("NO CAUSE") || cause.contains("panic")) {
            self.trace.violation("world", format_args!("ends: {ends:?}"));
        }
        let ended: u64 = ends.values().sum();
        if ended != total {
            self.trace.violation("world", format_args!("{ended} of {total} ends have a cause: {ends:?}"));
        }
        self.trace.note("world", format_args!("{total} connections ended: {ends:?}"));
    }
}
