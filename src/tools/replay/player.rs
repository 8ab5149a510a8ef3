//! Plays the clients of a scenario against a server, and records what happens.
//!
//! The player does not keep the recorded pauses: when all events of a step have arrived (or a timeout has
//! passed), it sends a WebSocket ping on every open connection, waits for the pongs, does that again (the
//! first ping may have overtaken a message on its way through the server), and waits a short time for
//! unexpected frames. Scenarios about time are played at their recorded times.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::client_views::ClientViews;
use super::compare::ComparisonOrder;
use super::ids::{self, Id, IdLayout, MaskedFrame};
use super::peer::{AutoReply, PeerCommand, PeerEvent, PeerReport, ScriptedPeer};
use super::rename::KeyRenamer;
use super::script::{Observed, ScriptAction, ScriptStep, steps};
use super::transcript::{
    ConnectRequest, FrameKind, RecordedEvent, RecordedFrame, Scenario, TranscriptRecord,
};
use crate::tools::dial::{Target, error_chain};

/// Time limit of the events of a step.
const STEP_TIMEOUT: Duration = Duration::from_millis(1500);
/// Time to wait for unexpected frames after a message.
const SETTLE_TIME: Duration = Duration::from_millis(15);
/// Time to wait for unexpected frames after a connection ended, which servers may take longer to notice.
const SETTLE_TIME_AFTER_END: Duration = Duration::from_millis(60);
/// Number of pings on each connection after a step.
const ROUNDS: usize = 2;

/// Options of a player.
#[derive(Clone, Debug)]
pub struct PlayOptions {
    /// The server.
    pub target: Target,
    /// Suffix of room keys; `None` leaves them unchanged, which needs a server that no other scenario uses.
    pub suffix: Option<String>,
    /// Send a client's first frame at once after its connection opened, as real clients do, where the script
    /// shows that it sends first. A server that must find out the protocol depends on it.
    pub eager: bool,
    /// An answer that the real clients of the dialect send without their application; frame and answer are
    /// not recorded. A server that must find out the protocol depends on it.
    pub auto_reply: Option<AutoReply>,
    /// Returns a frame as a client of the release receives it, for servers that do not know the release.
    pub client_view: Option<fn(&str, RecordedFrame) -> RecordedFrame>,
    /// The order that will be compared: the end of a step, and the counterpart of a frame, depends on it.
    pub order: ComparisonOrder,
    /// In scenarios about time, the greatest delay of a frame.
    pub tolerance: Duration,
    /// Least time between actions, for scripts without the events that follow.
    pub pace: Duration,
}

impl PlayOptions {
    /// Returns the default options for a server.
    pub fn new(target: impl Into<Target>) -> Self {
        Self {
            target: target.into(),
            suffix: None,
            eager: false,
            auto_reply: None,
            client_view: None,
            order: ComparisonOrder::Steps,
            tolerance: Duration::from_millis(400),
            pace: Duration::ZERO,
        }
    }
}

/// Plays the scenario. Returns the transcript of the run, with the script's room keys.
pub async fn play(script: &Scenario, options: &PlayOptions) -> Scenario {
    let (sender, reports) = mpsc::unbounded_channel();
    let steps = steps(script);
    let views = ClientViews::from_scenario(script);
    let mut player = Player {
        options,
        version: &script.version,
        layout: views.layout(),
        counterparts: counterparts(&views, &steps),
        views,
        steps: &steps,
        keys: KeyRenamer::new(options.suffix.clone()),
        begin: Instant::now(),
        sync: format!("~{:08x}-", fastrand::u32(..)).into_bytes(),
        order: options.order.for_scenario(script),
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

/// A frame of the script without a counterpart in this run so far.
struct Counterpart {
    step: usize,
    masked: MaskedFrame,
    /// True if it did not arrive in time: it is not awaited again.
    is_overdue: bool,
}

fn counterparts(views: &ClientViews, steps: &[ScriptStep]) -> HashMap<String, Vec<Counterpart>> {
    let mut all: HashMap<String, Vec<Counterpart>> = HashMap::new();
    for (step, seen) in steps.iter().enumerate().flat_map(|(i, s)| s.seen.iter().map(move |seen| (i, seen))) {
        if seen.what != Observed::Open {
            let masked = views.mask(&seen.peer, &seen.what);
            all.entry(seen.peer.clone()).or_default().push(Counterpart { step, masked, is_overdue: false });
        }
    }
    all
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ConnectionState {
    Connecting,
    Open,
    /// A close frame was sent.
    Closing,
    Closed,
}

struct Connection {
    peer: ScriptedPeer,
    state: ConnectionState,
    /// Number of the last answered ping of the player.
    synced: usize,
}

struct Player<'a> {
    options: &'a PlayOptions,
    version: &'a str,
    layout: IdLayout,
    views: ClientViews,
    steps: &'a [ScriptStep],
    counterparts: HashMap<String, Vec<Counterpart>>,
    keys: KeyRenamer,
    begin: Instant,
    /// Prefix of the payloads of the player's own pings.
    sync: Vec<u8>,
    order: ComparisonOrder,
    /// The current step.
    now: usize,
    /// Number of events per client: in the current step if steps are compared, else since the beginning.
    arrived: HashMap<String, usize>,
    connections: HashMap<String, Connection>,
    sender: mpsc::UnboundedSender<PeerReport>,
    reports: mpsc::UnboundedReceiver<PeerReport>,
    live_ids: HashMap<Id, Id>,
    records: Vec<TranscriptRecord>,
}

impl<'a> Player<'a> {
    async fn step(&mut self, now: usize) {
        let steps: &'a [ScriptStep] = self.steps;
        let step = &steps[now];
        match self.order {
            ComparisonOrder::Times => {
                self.listen_until(self.begin + Duration::from_millis(step.t), |_| false).await;
                self.await_timed(now).await;
                // A client that answers needs the id that it answers to.
                if let Some(last) = now.checked_sub(1) {
                    let until = Instant::now() + STEP_TIMEOUT;
                    self.listen_until(until, |p| p.has_received(last, Some(&step.peer))).await;
                    self.give_up(last, Some(&step.peer));
                }
            }
            ComparisonOrder::Steps => self.arrived.clear(),
            ComparisonOrder::Clients => {}
        }
        self.now = now;
        self.act(step);
        let until = Instant::now();
        match self.order {
            ComparisonOrder::Times => return,
            ComparisonOrder::Steps => {
                self.listen_until(until + STEP_TIMEOUT, |p| p.step_complete(step)).await
            }
            ComparisonOrder::Clients => {
                // What any client had received may be why another acts: a member's confirmation, and then a
                // joiner. What arrived after the next action of the recording is in a later step.
                self.listen_until(until + STEP_TIMEOUT, |p| p.has_received(now, None)).await;
                self.give_up(now, None);
                // Actions of one moment crossed one another, and do here as well.
                if self.steps.get(now + 1).is_some_and(|next| next.t == step.t) {
                    return;
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
        let quiet = if ended { SETTLE_TIME_AFTER_END } else { SETTLE_TIME };
        self.listen_until(Instant::now() + quiet, |_| false).await;
    }

    async fn finish(&mut self, duration: u64) {
        if self.order == ComparisonOrder::Times {
            self.listen_until(self.begin + Duration::from_millis(duration), |_| false).await;
            self.await_timed(self.steps.len()).await;
        } else {
            self.listen_until(Instant::now() + SETTLE_TIME_AFTER_END, |_| false).await;
        }
    }

    fn goes_on_at_once(&self, now: usize) -> bool {
        let step = &self.steps[now];
        let next = self.steps.get(now + 1);
        matches!(step.action, ScriptAction::Connect(_))
            && step.seen.iter().all(|s| s.what == Observed::Open)
            && next.is_some_and(|n| n.peer == step.peer && matches!(n.action, ScriptAction::Send(_)))
    }

    fn record(&mut self, peer: Option<&str>, event: RecordedEvent) {
        let t = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.records.push(TranscriptRecord { t, peer: peer.map(str::to_owned), event });
    }

    fn act(&mut self, step: &ScriptStep) {
        let peer = step.peer.as_str();
        let order = match &step.action {
            ScriptAction::Connect(to) => {
                self.record(Some(peer), RecordedEvent::Connect(to.clone()));
                let to = ConnectRequest { path: self.keys.path(&to.path), ..to.clone() };
                let PlayOptions { target, auto_reply, .. } = self.options;
                let auto_reply = auto_reply.or_else(|| self.views.auto_reply(peer));
                let peer = ScriptedPeer::connect(peer, target, to, auto_reply, self.sender.clone());
                let connection = Connection { peer, state: ConnectionState::Connecting, synced: 0 };
                self.connections.insert(step.peer.clone(), connection);
                return;
            }
            ScriptAction::Send(payload) => {
                let bytes = ids::substitute(self.layout, payload, &self.live_ids);
                let msg = payload.msg.clone().filter(|_| bytes == payload.bytes);
                let sent = RecordedFrame { op: payload.op, bytes, msg };
                self.record(Some(peer), RecordedEvent::Send(sent.clone()));
                let bytes = self.keys.frame(self.layout, sent.bytes);
                PeerCommand::Send(RecordedFrame::new(payload.op, bytes))
            }
            ScriptAction::Close { code, reason } => {
                self.record(Some(peer), RecordedEvent::SendClose { code: *code, reason: reason.clone() });
                PeerCommand::Close { code: *code, reason: reason.clone() }
            }
            ScriptAction::Drop => {
                self.record(Some(peer), RecordedEvent::TcpDestroy);
                PeerCommand::Drop
            }
        };
        match self.connections.get_mut(peer) {
            Some(connection) if connection.state == ConnectionState::Open => {
                if let PeerCommand::Close { .. } = order {
                    connection.state = ConnectionState::Closing;
                }
                connection.peer.send(order);
            }
            _ => self
                .record(None, RecordedEvent::Note(format!("{peer}: not sent, the connection is not open"))),
        }
    }

    /// Returns true if as many events arrived in this step as the script has, at whichever client. A closed
    /// connection receives nothing more.
    fn step_complete(&self, step: &ScriptStep) -> bool {
        self.arrived.values().sum::<usize>() >= step.seen.len()
            || step.seen.iter().all(|s| self.has(&s.peer, step.count(&s.peer)))
    }

    fn has(&self, peer: &str, count: usize) -> bool {
        let is_closed = self.connections.get(peer).is_none_or(|c| c.state == ConnectionState::Closed);
        is_closed || self.arrived.get(peer).copied().unwrap_or(0) >= count
    }

    /// Returns true if all events up to step `now` have arrived, at all clients or only at one. A closed
    /// connection receives nothing more.
    fn has_received(&self, now: usize, only: Option<&str>) -> bool {
        let connecting =
            |peer: &str| self.connections.get(peer).is_some_and(|c| c.state == ConnectionState::Connecting);
        let closed =
            |peer: &str| self.connections.get(peer).is_none_or(|c| c.state == ConnectionState::Closed);
        let opens = |step: &ScriptStep, peer: &str| {
            step.seen.iter().any(|seen| seen.peer == peer && seen.what == Observed::Open)
        };
        let is_opening =
            |peer: &str| connecting(peer) && self.steps.iter().take(now + 1).any(|step| opens(step, peer));
        let awaits = |waiting: &[Counterpart]| waiting.iter().any(|c| c.step <= now && !c.is_overdue);
        let concerned = |peer: &&String| only.is_none_or(|only| only == *peer);
        !self.connections.keys().filter(concerned).any(|peer| is_opening(peer))
            && self
                .counterparts
                .iter()
                .filter(|(peer, _)| concerned(peer))
                .all(|(peer, waiting)| closed(peer) || !awaits(waiting))
    }

    /// Notes that what has not arrived by now is not awaited again.
    fn give_up(&mut self, now: usize, only: Option<&str>) {
        let concerned =
            self.counterparts.iter_mut().filter(|(peer, _)| only.is_none_or(|only| only == *peer));
        for counterpart in concerned.flat_map(|(_, waiting)| waiting).filter(|c| c.step <= now) {
            counterpart.is_overdue = true;
        }
    }

    /// Waits for the events before step `next`, for each up to its time and the tolerance.
    async fn await_timed(&mut self, next: usize) {
        let steps: &'a [ScriptStep] = self.steps;
        for (number, step) in steps.iter().enumerate().take(next) {
            for seen in &step.seen {
                let latest = self.begin + Duration::from_millis(seen.t) + self.options.tolerance;
                self.listen_until(latest, |p| p.has_received(number, Some(&seen.peer))).await;
            }
        }
    }

    /// Sends a ping on every open connection, and waits for the pongs.
    async fn sync(&mut self, number: usize) {
        let connecting = |c: &Connection| c.state == ConnectionState::Connecting;
        self.listen_until(Instant::now() + STEP_TIMEOUT, |p| !p.connections.values().any(connecting)).await;
        let payload = [&self.sync, number.to_string().as_bytes()].concat();
        let open = self.connections.values().filter(|c| c.state == ConnectionState::Open);
        open.for_each(|c| {
            c.peer.send(PeerCommand::Send(RecordedFrame::new(FrameKind::Ping, payload.clone())))
        });
        let answered = |c: &Connection| c.state != ConnectionState::Open || c.synced >= number;
        self.listen_until(Instant::now() + STEP_TIMEOUT, |p| p.connections.values().all(answered)).await;
        let silent = self.connections.iter().filter(|(_, c)| !answered(c)).map(|(name, _)| name.clone());
        for name in silent.collect::<Vec<_>>() {
            self.record(None, RecordedEvent::Note(format!("{name}: no answer to a WebSocket ping")));
        }
    }

    /// Handles reports until `done` returns true or the deadline has passed.
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
        let mut what = match report.event {
            PeerEvent::Observed(Observed::Frame(RecordedFrame { op: FrameKind::Pong, bytes, .. }))
                if bytes.starts_with(&self.sync) =>
            {
                let number = std::str::from_utf8(&bytes[self.sync.len()..]).ok().and_then(|n| n.parse().ok());
                connection.synced = number.unwrap_or(0).max(connection.synced);
                return;
            }
            PeerEvent::Observed(what) => what,
            PeerEvent::Failed(error) => {
                if connection.state == ConnectionState::Connecting {
                    connection.state = ConnectionState::Closed;
                }
                return self.record(None, RecordedEvent::Note(format!("{peer}: {}", error_chain(&error))));
            }
        };
        match &mut what {
            Observed::Open => connection.state = ConnectionState::Open,
            Observed::Close { reason, .. } => {
                connection.state = ConnectionState::Closed;
                *reason = self.keys.restore(reason);
            }
            Observed::Frame(payload) => {
                if let (Some(_), Ok(text)) = (self.layout.keys(), std::str::from_utf8(&payload.bytes)) {
                    payload.bytes = self.keys.restore(text).into_bytes();
                }
                if let Some(client_view) = self.options.client_view {
                    *payload = client_view(self.version, payload.clone());
                }
            }
        }
        *self.arrived.entry(peer.clone()).or_default() += 1;
        self.learn(&peer, &what);
        let event = match what {
            Observed::Open => RecordedEvent::Open,
            Observed::Frame(payload) => RecordedEvent::Recv(payload),
            Observed::Close { code, reason } => RecordedEvent::RecvClose { code, reason },
        };
        let t = report.at.saturating_duration_since(self.begin).as_millis();
        self.records.push(TranscriptRecord {
            t: u64::try_from(t).unwrap_or(u64::MAX),
            peer: Some(peer),
            event,
        });
    }

    /// Finds the frame's counterpart in the script, and maps recorded ids to those of this run.
    fn learn(&mut self, peer: &str, what: &Observed) {
        if *what == Observed::Open {
            return;
        }
        let live = self.views.mask(peer, what);
        let Some(waiting) = self.counterparts.get_mut(peer) else {
            return;
        };
        let latest = match self.order {
            ComparisonOrder::Steps => self.now,
            ComparisonOrder::Times if self.options.order == ComparisonOrder::Steps => self.now + 1,
            // A frame about another client's step may have been recorded after a later step.
            ComparisonOrder::Times | ComparisonOrder::Clients => usize::MAX,
        };
        let found = waiting.iter().position(|c| c.step <= latest && c.masked.parts == live.parts);
        let Some(found) = found else { return };
        let script = waiting.remove(found).masked;
        let json = match (self.layout, what) {
            (IdLayout::Json { .. }, _) => true,
            (IdLayout::Any, Observed::Frame(payload)) => payload.bytes.starts_with(b"{"),
            _ => false,
        };
        for (recorded, live) in script.ids.into_iter().zip(live.ids) {
            let (recorded, live) = (recorded.into_number(), live.into_number());
            if recorded.is_server_generated() && live.is_substitute_for(&recorded, json) {
                self.live_ids.entry(recorded).or_insert(live);
            } else if let (true, Id::Number(_), Id::Number(_)) = (json, &recorded, &live) {
                // Clients answer by the last number they received, also where one server counts from 0 for
                // each key and the other does not.
                self.live_ids.insert(recorded, live);
            }
        }
    }
}
