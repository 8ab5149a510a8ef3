//! Detection of the dialect of one client: which side sends first, and the reversal of a wrong assumption.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::after;
use super::assumption::Assumption;
use super::evidence::{self, FrameFacts, History};
use super::narrowing::NarrowingSession;
use super::policy::Policy;
use crate::protocol::dialect::{
    Candidates, Evidence, Family, Output, OutputSink, PROBE, ParsedMessage, Release, ReleaseSet, Session,
    UpgradeRequest, close_frame_for,
};
use crate::protocol::frame::{Close, Message};
use crate::protocol::model::{Command, Event, Reason};

/// Time that a silent client has to answer the probe, besides its round trip, before it receives what others
/// sent: pages that are slow to answer are rarely slower.
const HOLD_TIMEOUT: Duration = Duration::from_secs(2);

/// Limit of the events that wait for the room's answer to a client whose assumption was reverted, in bytes.
const MAX_REPLAYED: usize = 256 * 1024;

/// The state of a connection until its client has sent a frame that fits the dialect it is treated as.
#[derive(Debug)]
pub(super) struct Detector {
    opened: Instant,
    policy: Arc<Policy>,
    upgrade: UpgradeRequest,
    /// The releases that the client may speak, until there is a session.
    candidates: Candidates,
    phase: Phase,
    /// The codec of the most likely dialect, once either side has sent something.
    session: Option<NarrowingSession>,
}

/// Extent to which sent frames rest on frames of the client.
#[derive(Debug)]
enum Phase {
    /// Neither side has sent anything.
    AwaitingFirstFrame(AwaitingFirstFrame),
    /// The client of a configured dialect has to send the first frame until then.
    AwaitingConfigured(Instant),
    /// Only the dialect within a family may be open: the session is to be taken out.
    Confirmed,
    /// The client has not sent anything, and is treated as one that waits for the server.
    Assumed(Assumption),
    /// An assumption was reverted: these events are replayed after the room's next answer.
    Replaying(ReplayBuffer),
}

#[derive(Debug)]
struct AwaitingFirstFrame {
    /// Time from the server's ping to the client's pong.
    round_trip: Option<Duration>,
    /// End of the time after which silence is evidence, if it can be.
    speak_at: Option<Instant>,
    give_up_at: Instant,
}

/// Events that are replayed in another dialect.
#[derive(Debug, Default)]
struct ReplayBuffer {
    events: Vec<Event>,
    bytes: usize,
}

impl ReplayBuffer {
    fn new(events: Vec<Event>) -> Self {
        let bytes = events.iter().map(Event::queued_bytes).sum();
        ReplayBuffer { events, bytes }
    }

    /// Takes the event in, or returns it if the buffer is full.
    fn push(&mut self, event: Event) -> Result<(), Event> {
        let bytes = self.bytes.saturating_add(event.queued_bytes());
        if bytes > MAX_REPLAYED {
            return Err(event);
        }
        self.bytes = bytes;
        self.events.push(event);
        Ok(())
    }
}

impl Detector {
    /// Returns a detector for a connection that was upgraded at `now`.
    pub(super) fn new(policy: &Arc<Policy>, upgrade: UpgradeRequest, now: Instant) -> Self {
        let timeouts = policy.timeouts;
        let has_key = upgrade.path.len() > 1;
        let may_be_silent = has_key && !policy.releases.of_family(Family::ProtobufV1).is_empty();
        Detector {
            opened: now,
            policy: Arc::clone(policy),
            upgrade,
            candidates: Candidates::new(policy.releases),
            phase: Phase::AwaitingFirstFrame(AwaitingFirstFrame {
                round_trip: None,
                speak_at: may_be_silent.then(|| after(now, timeouts.silence.saturating_mul(4))),
                give_up_at: after(now, timeouts.first_frame),
            }),
            session: None,
        }
    }

    /// Starts the session if the configuration leaves no choice, and measures the round trip if not.
    pub(super) fn open(&mut self, now: Instant, out: &mut dyn OutputSink) {
        let candidates = self.candidates;
        let family = candidates.family();
        // Of the JSON dialects only one sends first, and only if it can be no other.
        let decided = family != Family::Json || candidates.releases.len() == 1;
        if decided && candidates.releases.of_family(family) == candidates.releases {
            out.put(Output::Recognised(candidates.releases, Evidence::Pinned));
            self.start_session(candidates, now, out);
            // The protobuf families have heartbeats, without which they close sooner.
            if family == Family::Json && self.session.is_some() {
                self.phase = Phase::AwaitingConfigured(after(self.opened, self.policy.timeouts.first_frame));
            }
        } else {
            out.put(Output::Ping);
        }
    }

    /// Takes the session out, if only the dialect within its family may be open.
    pub(super) fn take_session(&mut self) -> Option<NarrowingSession> {
        if matches!(self.phase, Phase::Confirmed) { self.session.take() } else { None }
    }

    /// Returns true if the client has to send the first frame, and has not yet.
    pub(super) fn awaits_first_frame(&self) -> bool {
        matches!(self.phase, Phase::AwaitingFirstFrame(_) | Phase::AwaitingConfigured(_))
    }

    pub(super) fn on_pong(&mut self, now: Instant) {
        if let Phase::AwaitingFirstFrame(awaiting) = &mut self.phase
            && let AwaitingFirstFrame { round_trip: round_trip @ None, speak_at: Some(speak_at), .. } =
                awaiting
        {
            let timeouts = self.policy.timeouts;
            *round_trip = Some(now.saturating_duration_since(self.opened));
            // On a fast link the silence window is the longest; a slow one has used it up before.
            let latest = after(self.opened, timeouts.silence)
                .max(after(now, timeouts.margin.checked_div(2).unwrap_or_default()));
            *speak_at = after(now, timeouts.margin).min(latest);
        }
    }

    pub(super) fn on_message(&mut self, message: Message, now: Instant, out: &mut dyn OutputSink) {
        let message = ParsedMessage::new(message);
        let facts = FrameFacts::new(&message);
        match self.session {
            None => self.on_first_frame(facts, now, out),
            Some(_) => self.narrow(facts, now, out),
        }
        if let Some(session) = &mut self.session {
            session.session.decode_parsed(message, out);
        }
    }

    /// Starts the session by the client's first frame, before the server has sent anything.
    fn on_first_frame(&mut self, facts: FrameFacts<'_>, now: Instant, out: &mut dyn OutputSink) {
        let possible = evidence::narrow(facts, History::default(), self.candidates.releases);
        // A frame of a dialect that is not served is answered in one that is.
        let possible = if possible.is_empty() { self.candidates } else { Candidates::new(possible) };
        let possible = possible.within_family();
        out.put(Output::Recognised(possible.releases, Evidence::FirstFrame));
        self.start_session(possible, now, out);
        self.confirm(facts, now, out);
    }

    /// Narrows the candidates by a later frame.
    fn narrow(&mut self, facts: FrameFacts<'_>, now: Instant, out: &mut dyn OutputSink) {
        let Some(session) = &mut self.session else { return };
        let assumed = matches!(self.phase, Phase::Assumed(_));
        if assumed {
            let all = self.policy.releases;
            let possible = evidence::narrow(facts, session.history, all);
            if possible == all && all != session.candidates().releases {
                // The frame is evidence of nothing, so the assumption is not confirmed.
                return;
            }
            let other = Candidates::new(possible).within_family();
            if !possible.is_empty() && other.family() != Family::ProtobufV1 {
                return self.revert_assumption(other, out);
            }
        }
        session.narrow(facts, assumed, now, out);
        if let Phase::Assumed(assumption) = &mut self.phase {
            // The probe was sent before: a client that pings answers it right after its ping.
            assumption.release_by(after(now, self.policy.timeouts.margin));
        }
        self.confirm(facts, now, out);
    }

    /// Notes that the client sent a frame that fits: an assumption is confirmed, and held events are sent.
    fn confirm(&mut self, facts: FrameFacts<'_>, now: Instant, out: &mut dyn OutputSink) {
        let awaits_pong = self
            .session
            .as_ref()
            .is_some_and(|session| session.history.awaits_pong(facts, session.candidates().releases));
        match std::mem::replace(&mut self.phase, Phase::Confirmed) {
            Phase::Assumed(mut assumption) if awaits_pong => {
                assumption.await_pong();
                self.phase = Phase::Assumed(assumption);
            }
            Phase::Assumed(assumption) => self.encode_events(assumption.confirm(), now, out),
            Phase::AwaitingConfigured(_) => {}
            phase @ (Phase::AwaitingFirstFrame(_) | Phase::Confirmed | Phase::Replaying(_)) => {
                self.phase = phase
            }
        }
        if let Some(session) = &mut self.session {
            session.history.note(facts);
        }
    }

    /// Starts again for a client that was treated as one of sigver 15 to 18, and speaks something else. The
    /// clients of netflux 4 ignore what they were sent (measured on 4.3.0 and 4.3.1), so that nothing is
    /// lost.
    fn revert_assumption(&mut self, candidates: Candidates, out: &mut dyn OutputSink) {
        out.put(Output::Recognised(candidates.releases, Evidence::Corrected));
        let buffered = match std::mem::replace(&mut self.phase, Phase::Confirmed) {
            Phase::Assumed(assumption) => assumption.revert(),
            Phase::AwaitingFirstFrame(_)
            | Phase::AwaitingConfigured(_)
            | Phase::Confirmed
            | Phase::Replaying(_) => Vec::new(),
        };
        match candidates.family() {
            Family::ProtobufV2 => {
                out.ask(Command::RevertAssumption);
                self.phase = Phase::Replaying(ReplayBuffer::new(buffered));
            }
            // The key, and so the room, is another one.
            Family::Json | Family::ProtobufV1 => out.put(Output::Leave),
        }
        let session = Session::new(&self.upgrade, candidates, self.policy.session_options(), self.opened);
        self.session = Some(NarrowingSession { session, history: History::default() });
    }

    /// Starts a session of the most likely of these candidates, which are of one family, or closes if the key
    /// is none of its keys.
    fn start_session(&mut self, candidates: Candidates, now: Instant, out: &mut dyn OutputSink) {
        self.candidates = candidates;
        if let Some(close) = Session::key_error(&self.upgrade, candidates.most_likely) {
            return out.close(close);
        }
        let mut session = Session::new(&self.upgrade, candidates, self.policy.session_options(), self.opened);
        let mut history = History::default();
        if candidates.releases.len() > 1 && candidates.releases.any(Release::has_protobuf_pong) {
            out.binary(PROBE);
            history.probed = true;
        }
        session.open(self.opened, out);
        let round_trip = match &self.phase {
            Phase::AwaitingFirstFrame(awaiting) => awaiting.round_trip,
            Phase::AwaitingConfigured(_) | Phase::Confirmed | Phase::Assumed(_) | Phase::Replaying(_) => None,
        };
        self.phase = if candidates.family() == Family::ProtobufV1 && self.policy.releases.len() > 1 {
            let round_trip = round_trip.unwrap_or(self.policy.timeouts.silence);
            Phase::Assumed(Assumption::new(after(after(now, round_trip), HOLD_TIMEOUT)))
        } else {
            Phase::Confirmed
        };
        self.session = Some(NarrowingSession { session, history });
    }

    pub(super) fn on_event(&mut self, event: Event, now: Instant, out: &mut dyn OutputSink) {
        let admitted = matches!(event, Event::Admitted { .. } | Event::BecameMember { .. });
        let linked = matches!(event, Event::LinkedToMember { .. });
        match &mut self.phase {
            Phase::AwaitingFirstFrame(_) | Phase::AwaitingConfigured(_) | Phase::Confirmed => {
                self.encode_events([event], now, out)
            }
            Phase::Assumed(assumption) => {
                let events = assumption.push(event);
                self.encode_events(events, now, out);
            }
            Phase::Replaying(buffer) if admitted || linked => {
                let buffer = std::mem::take(buffer);
                self.phase = Phase::Confirmed;
                self.encode_events(std::iter::once(event).chain(buffer.events), now, out);
            }
            // After the events before it.
            Phase::Replaying(buffer) => {
                if let Err(event) = buffer.push(event) {
                    self.encode_events([event], now, out);
                }
            }
        }
    }

    fn encode_events(
        &mut self,
        events: impl IntoIterator<Item = Event>,
        now: Instant,
        out: &mut dyn OutputSink,
    ) {
        if let Some(session) = &mut self.session {
            events.into_iter().for_each(|event| session.on_event(event, now, out));
        }
    }

    /// Asks a client that is held back for its generation, if it can be asked.
    pub(super) fn ask_identity(&mut self, out: &mut dyn OutputSink) {
        if let Some(session) = &mut self.session {
            session.ask_identity(out);
        }
    }

    /// Drops the events of a room that the client has left.
    pub(super) fn forget_replay(&mut self) {
        if let Phase::Replaying(buffer) = &mut self.phase {
            *buffer = ReplayBuffer::default();
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let session = self.session.as_ref().and_then(|session| session.session.deadline());
        let phase = match &self.phase {
            Phase::AwaitingFirstFrame(awaiting) => {
                awaiting.speak_at.into_iter().chain([awaiting.give_up_at]).min()
            }
            Phase::AwaitingConfigured(give_up_at) => Some(*give_up_at),
            Phase::Assumed(assumption) => assumption.deadline(),
            Phase::Confirmed | Phase::Replaying(_) => None,
        };
        session.into_iter().chain(phase).min()
    }

    pub(super) fn on_timeout(&mut self, now: Instant, out: &mut dyn OutputSink) {
        match &mut self.phase {
            Phase::AwaitingFirstFrame(awaiting) => {
                if awaiting.give_up_at <= now {
                    out.close(self.close(&Reason::NoFirstFrame));
                } else if awaiting.speak_at.is_some_and(|at| at <= now) {
                    let silent = Candidates::new(self.candidates.releases.of_family(Family::ProtobufV1));
                    out.put(Output::Recognised(silent.releases, Evidence::Silence));
                    self.start_session(silent, now, out);
                }
                return;
            }
            Phase::AwaitingConfigured(give_up_at) if *give_up_at <= now => {
                return out.close(self.close(&Reason::NoFirstFrame));
            }
            Phase::Assumed(assumption) => {
                if let Some(held) = assumption.release(now) {
                    // The client had the time to answer the probe. If it does so later, it still is a
                    // candidate.
                    let unanswered = self.candidates().filter(|release| !release.has_protobuf_pong());
                    if let Some(NarrowingSession { session, history }) = &mut self.session {
                        history.probe_expired = true;
                        if !unanswered.is_empty() {
                            session.assume(Candidates::new(unanswered), now, out);
                        }
                    }
                    self.encode_events(held, now, out);
                }
            }
            Phase::AwaitingConfigured(_) | Phase::Confirmed | Phase::Replaying(_) => {}
        }
        if let Some(NarrowingSession { session, .. }) = &mut self.session {
            session.poll(now, out);
        }
    }

    pub(super) fn close(&self, reason: &Reason) -> Close {
        match &self.session {
            Some(NarrowingSession { session, .. }) => session.close(reason),
            None => close_frame_for(self.candidates.most_likely, reason),
        }
    }

    pub(super) fn candidates(&self) -> ReleaseSet {
        self.session.as_ref().map_or(self.candidates, NarrowingSession::candidates).releases
    }
}
