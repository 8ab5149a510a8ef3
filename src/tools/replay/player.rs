//! Plays the client side of a scenario against a server and records what really happens.
//!
//! Instead of sleeping as the recorder did, it goes on as soon as nothing more can come: when everything the script
//! shows for a step has arrived (or a limit has passed), it sends a WebSocket ping on every open connection, waits
//! for the pongs, does that once more (the first round may have overtaken a message on its way through the server),
//! and then listens a little while for what should not come. Scenarios about time are played at their recorded times.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::compare::Sequence;
use super::ids::{self, Id, Layout, MaskedFrame};
use super::peer::{AutoReply, Peer, PeerCommand, PeerEvent, PeerReport};
use super::rename::Renamer;
use super::script::{Action, Observed, Seen, Step, steps};
use super::transcript::{Connect, Event, Op, Payload, Record, Scenario};
use crate::tools::dial::Target;

/// How long to wait for what the script shows.
const LIMIT: Duration = Duration::from_millis(1500);
/// How long to listen for more after a message.
const QUIET: Duration = Duration::from_millis(15);
/// The same after a connection ended, which servers may take longer to notice.
const QUIET_AFTER_END: Duration = Duration::from_millis(60);
/// How often all connections are pinged after a step.
const ROUNDS: usize = 2;

/// How to play.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server.
    pub target: Target,
    /// Appended to room keys; `None` leaves them as they are, for a server of one's own.
    pub suffix: Option<String>,
    /// Send a client's first frame at once after its connection opened, as real clients do, where the script shows
    /// that it sends first. A server that must find out the protocol goes by that.
    pub eager: bool,
    /// Answer this frame with that one, as the real clients of the dialect do by themselves; neither is recorded.
    /// A server that must find out the protocol goes by that.
    pub reflex: Option<AutoReply>,
    /// What a client of a release makes of a frame, where the server does not know the release.
    pub heard: Option<fn(&str, Payload) -> Payload>,
    /// What will be compared of the order in which things are seen: when a step is over, and which frame is whose
    /// counterpart, goes by that.
    pub order: Sequence,
    /// In scenarios about time, how much later than recorded a frame may come.
    pub tolerance: Duration,
    /// Wait at least this long after each action: to record from a script that does not show what comes.
    pub pace: Duration,
}

impl Options {
    /// The usual way to play against a server.
    pub fn new(target: impl Into<Target>) -> Self {
        Self {
            target: target.into(),
            suffix: None,
            eager: false,
            reflex: None,
            heard: None,
            order: Sequence::Steps,
            tolerance: Duration::from_millis(400),
            pace: Duration::ZERO,
        }
    }
}

/// Plays the scenario and returns the transcript of what happened, with the script's room keys.
pub async fn play(script: &Scenario, options: &Options) -> Scenario {
    let (sender, reports) = mpsc::unbounded_channel();
    let steps = steps(script);
    let layout = Layout::of(&script.version);
    let mut player = Player {
        options,
        version: &script.version,
        layout,
        counterparts: counterparts(layout, &steps),
        steps: &steps,
        keys: Renamer::new(options.suffix.clone()),
        begin: Instant::now(),
        sync: format!("~{:08x}-", fastrand::u32(..)).into_bytes(),
        order: options.order.of(script),
        now: 0,
        arrived: HashMap::new(),
        connections: HashMap::new(),
        sender,
        reports,
        live_ids: HashMap::new(),
        records: Vec::new(),
    };
    for now in 0..steps.len() {
        player.step(now).await;
    }
    player.finish(script.duration()).await;
    Scenario { version: script.version.clone(), name: script.name.clone(), records: player.records }
}

/// A frame of the script that waits for its counterpart in this run.
struct Counterpart {
    step: usize,
    masked: MaskedFrame,
}

fn masked(layout: Layout, what: &Observed) -> Option<MaskedFrame> {
    match what {
        Observed::Open => None,
        Observed::Frame(payload) => Some(ids::mask(layout, payload)),
        Observed::Close { code, reason } => Some(ids::mask_reason(layout, *code, reason)),
    }
}

fn counterparts(layout: Layout, steps: &[Step]) -> HashMap<String, Vec<Counterpart>> {
    let mut all: HashMap<String, Vec<Counterpart>> = HashMap::new();
    for (step, seen) in steps.iter().enumerate().flat_map(|(i, s)| s.seen.iter().map(move |seen| (i, seen))) {
        if let Some(masked) = masked(layout, &seen.what) {
            all.entry(seen.peer.clone()).or_default().push(Counterpart { step, masked });
        }
    }
    all
}

/// How much each client saw in these steps.
fn shown_until(steps: &[Step]) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for seen in steps.iter().flat_map(|s| &s.seen) {
        *counts.entry(seen.peer.as_str()).or_default() += 1;
    }
    counts
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Open,
    /// We sent a close frame.
    Closing,
    Gone,
}

struct Connection {
    peer: Peer,
    state: State,
    /// The number of the last of our own pings that was answered.
    synced: usize,
}

struct Player<'a> {
    options: &'a Options,
    version: &'a str,
    layout: Layout,
    steps: &'a [Step],
    counterparts: HashMap<String, Vec<Counterpart>>,
    keys: Renamer,
    begin: Instant,
    /// The payload of our own pings starts like this, and of nobody else's, not even in a recording of us.
    sync: Vec<u8>,
    order: Sequence,
    /// The current step.
    now: usize,
    /// What arrived per client: in the current step if steps are compared, else since the beginning.
    arrived: HashMap<String, usize>,
    connections: HashMap<String, Connection>,
    sender: mpsc::UnboundedSender<PeerReport>,
    reports: mpsc::UnboundedReceiver<PeerReport>,
    live_ids: HashMap<Id, Id>,
    records: Vec<Record>,
}

impl<'a> Player<'a> {
    async fn step(&mut self, now: usize) {
        let steps: &'a [Step] = self.steps;
        let step = &steps[now];
        match self.order {
            Sequence::Times => {
                self.listen_until(self.begin + Duration::from_millis(step.t), |_| false).await;
                self.await_timed(now).await;
            }
            Sequence::Steps => self.arrived.clear(),
            Sequence::Clients => {}
        }
        self.now = now;
        self.act(step);
        let until = Instant::now();
        match self.order {
            Sequence::Times => return,
            Sequence::Steps => self.listen_until(until + LIMIT, |p| p.step_complete(step)).await,
            Sequence::Clients => {
                let shown = shown_until(&self.steps[..=now]);
                let all = |p: &Self| shown.iter().all(|(peer, count)| p.has(peer, *count));
                self.listen_until(until + LIMIT, all).await;
                // What did not come now is not waited for again.
                for (peer, count) in shown {
                    let arrived = self.arrived.entry(peer.to_owned()).or_default();
                    *arrived = count.max(*arrived);
                }
            }
        }
        if self.options.eager && self.goes_on_at_once(now) {
            return;
        }
        self.listen_until(until + self.options.pace, |_| false).await;
        for round in 0..ROUNDS {
            self.sync(now * ROUNDS + round + 1).await;
        }
        let ended = step.action.ends() || step.seen.iter().any(|s| matches!(s.what, Observed::Close { .. }));
        let quiet = if ended { QUIET_AFTER_END } else { QUIET };
        self.listen_until(Instant::now() + quiet, |_| false).await;
    }

    async fn finish(&mut self, duration: u64) {
        if self.order == Sequence::Times {
            self.listen_until(self.begin + Duration::from_millis(duration), |_| false).await;
            self.await_timed(self.steps.len()).await;
        } else {
            self.listen_until(Instant::now() + QUIET_AFTER_END, |_| false).await;
        }
    }

    fn goes_on_at_once(&self, now: usize) -> bool {
        let step = &self.steps[now];
        let next = self.steps.get(now + 1);
        matches!(step.action, Action::Connect(_))
            && step.seen.iter().all(|s| s.what == Observed::Open)
            && next.is_some_and(|n| n.peer == step.peer && matches!(n.action, Action::Send(_)))
    }

    fn record(&mut self, peer: Option<&str>, event: Event) {
        let t = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.records.push(Record { t, peer: peer.map(str::to_owned), event });
    }

    fn act(&mut self, step: &Step) {
        let peer = step.peer.as_str();
        let order = match &step.action {
            Action::Connect(to) => {
                self.record(Some(peer), Event::Connect(to.clone()));
                let to = Connect { path: self.keys.path(&to.path), ..to.clone() };
                let Options { target, reflex, .. } = self.options;
                let peer = Peer::connect(peer, target, to, *reflex, self.sender.clone());
                let connection = Connection { peer, state: State::Connecting, synced: 0 };
                self.connections.insert(step.peer.clone(), connection);
                return;
            }
            Action::Send(payload) => {
                let bytes = ids::substitute(self.layout, payload, &self.live_ids);
                let msg = payload.msg.clone().filter(|_| bytes == payload.bytes);
                let sent = Payload { op: payload.op, bytes, msg };
                self.record(Some(peer), Event::Send(sent.clone()));
                let bytes = self.keys.frame(self.layout, sent.bytes);
                PeerCommand::Send(Payload::new(payload.op, bytes))
            }
            Action::Close { code, reason } => {
                self.record(Some(peer), Event::SendClose { code: *code, reason: reason.clone() });
                PeerCommand::Close { code: *code, reason: reason.clone() }
            }
            Action::Drop => {
                self.record(Some(peer), Event::TcpDestroy);
                PeerCommand::Drop
            }
        };
        match self.connections.get_mut(peer) {
            Some(connection) if connection.state == State::Open => {
                if let PeerCommand::Close { .. } = order {
                    connection.state = State::Closing;
                }
                connection.peer.order(order);
            }
            _ => self.record(None, Event::Note(format!("{peer}: not sent, the connection is not open"))),
        }
    }

    /// Whether as much came in this step as the script shows, be it to others. A client whose connection is gone gets
    /// nothing more.
    fn step_complete(&self, step: &Step) -> bool {
        self.arrived.values().sum::<usize>() >= step.seen.len()
            || step.seen.iter().all(|s| self.has(&s.peer, step.count(&s.peer)))
    }

    fn has(&self, peer: &str, count: usize) -> bool {
        let gone = self.connections.get(peer).is_none_or(|c| c.state == State::Gone);
        gone || self.arrived.get(peer).copied().unwrap_or(0) >= count
    }

    /// Waits for what the script shows before step `next`, but for no frame longer than it may be late.
    async fn await_timed(&mut self, next: usize) {
        let steps = self.steps;
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for seen in steps[..next].iter().flat_map(|s| &s.seen) {
            let Seen { t, peer, .. } = seen;
            let count = counts.entry(peer).or_default();
            *count += 1;
            let (count, latest) = (*count, self.begin + Duration::from_millis(*t) + self.options.tolerance);
            self.listen_until(latest, |p| p.has(peer, count)).await;
        }
    }

    /// A ping on every open connection, and all the pongs.
    async fn sync(&mut self, number: usize) {
        let connecting = |c: &Connection| c.state == State::Connecting;
        self.listen_until(Instant::now() + LIMIT, |p| !p.connections.values().any(connecting)).await;
        let payload = [&self.sync, number.to_string().as_bytes()].concat();
        let open = self.connections.values().filter(|c| c.state == State::Open);
        open.for_each(|c| c.peer.order(PeerCommand::Send(Payload::new(Op::Ping, payload.clone()))));
        let answered = |c: &Connection| c.state != State::Open || c.synced >= number;
        self.listen_until(Instant::now() + LIMIT, |p| p.connections.values().all(answered)).await;
        let silent = self.connections.iter().filter(|(_, c)| !answered(c)).map(|(name, _)| name.clone());
        for name in silent.collect::<Vec<_>>() {
            self.record(None, Event::Note(format!("{name}: no answer to a WebSocket ping")));
        }
    }

    /// Takes reports until `done` or the deadline.
    async fn listen_until(&mut self, deadline: Instant, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            match timeout_at(deadline, self.reports.recv()).await {
                Ok(Some(report)) => self.take(report),
                _ => return,
            }
        }
    }

    fn take(&mut self, report: PeerReport) {
        let peer = report.peer;
        let Some(connection) = self.connections.get_mut(&peer) else {
            return;
        };
        let mut what = match report.news {
            PeerEvent::Saw(Observed::Frame(Payload { op: Op::Pong, bytes, .. }))
                if bytes.starts_with(&self.sync) =>
            {
                let number = std::str::from_utf8(&bytes[self.sync.len()..]).ok().and_then(|n| n.parse().ok());
                connection.synced = number.unwrap_or(0).max(connection.synced);
                return;
            }
            PeerEvent::Saw(what) => what,
            PeerEvent::Failed(why) => {
                if connection.state == State::Connecting {
                    connection.state = State::Gone;
                }
                return self.record(None, Event::Note(format!("{peer}: {why}")));
            }
        };
        match &mut what {
            Observed::Open => connection.state = State::Open,
            Observed::Close { reason, .. } => {
                connection.state = State::Gone;
                *reason = self.keys.restore(reason);
            }
            Observed::Frame(payload) => {
                if let (Some(_), Ok(text)) = (self.layout.keys(), std::str::from_utf8(&payload.bytes)) {
                    payload.bytes = self.keys.restore(text).into_bytes();
                }
                if let Some(heard) = self.options.heard {
                    *payload = heard(self.version, payload.clone());
                }
            }
        }
        *self.arrived.entry(peer.clone()).or_default() += 1;
        self.learn(&peer, &what);
        let event = match what {
            Observed::Open => Event::Open,
            Observed::Frame(payload) => Event::Recv(payload),
            Observed::Close { code, reason } => Event::RecvClose { code, reason },
        };
        let t = report.at.saturating_duration_since(self.begin).as_millis();
        self.records.push(Record { t: u64::try_from(t).unwrap_or(u64::MAX), peer: Some(peer), event });
    }

    /// Finds the frame's counterpart in the script and notes which live id stands for which recorded one.
    fn learn(&mut self, peer: &str, what: &Observed) {
        let Some(live) = masked(self.layout, what) else {
            return;
        };
        let Some(waiting) = self.counterparts.get_mut(peer) else {
            return;
        };
        let latest = match self.order {
            Sequence::Steps => self.now,
            Sequence::Times if self.options.order == Sequence::Steps => self.now + 1,
            // Whatever is first: what one client is told of another's step may have been recorded after a later step.
            Sequence::Times | Sequence::Clients => usize::MAX,
        };
        let found = waiting.iter().position(|c| c.step <= latest && c.masked.parts == live.parts);
        let Some(found) = found else { return };
        let script = waiting.remove(found).masked;
        let json = match (self.layout, what) {
            (Layout::Json { .. }, _) => true,
            (Layout::Any, Observed::Frame(payload)) => payload.bytes.starts_with(b"{"),
            _ => false,
        };
        for (recorded, live) in script.ids.into_iter().zip(live.ids) {
            if recorded.made_up() && live.is_substitute_for(&recorded) {
                self.live_ids.entry(recorded).or_insert(live);
            } else if let (true, Id::Number(_), Id::Number(_)) = (json, &recorded, &live) {
                // Clients answer by the number they were shown, also where the original counts from 0 for each key and
                // another server does not: the last one shown is the one that is meant.
                self.live_ids.insert(recorded, live);
            }
        }
    }
}
