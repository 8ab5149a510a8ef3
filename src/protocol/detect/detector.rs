//! One connection from its first moment to its last: who speaks first, what dialect it is, and the correction of
//! a wrong guess. Around a [`Session`], which knows nothing of doubt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::assumption::Assumption;
use super::evidence::{self, FrameFacts, History};
use super::partition::{Client, Placement, generation};
use super::policy::{Policy, likeliest};
use crate::protocol::dialect::{
    Dialect, Evidence, Family, Output, OutputSink, PROBE, ReleaseSet, Session, UpgradeRequest, close, pings,
};
use crate::protocol::frame::{Close, Message};
use crate::protocol::model::{Command, Event, Reason};

/// How long a silent client, for which our first word was a guess, may take over its round trip to prove it, before what
/// others sent is shown to it: pages that are slow at that are rarely slower.
const HOLD: Duration = Duration::from_secs(2);

/// How much waits at most for the room's answer to a client that was taken for another, in bytes.
const MAX_REPEATED: usize = 256 * 1024;

/// One connection's conversation.
#[derive(Debug)]
pub struct Detector {
    candidates: ReleaseSet,
    state: State,
    /// What is needed as long as the dialect is not certain.
    doubt: Option<Box<Detection>>,
    /// Whether a link to a client of another generation was told of.
    mixed: bool,
    /// Of which of the rooms under its key it is, if there are several.
    placing: Option<Box<Placement>>,
}

#[derive(Debug)]
enum State {
    /// Nothing has been said, by either side. Boxed: it is soon over, and its room would stay (16 bytes a connection).
    AwaitingFirstFrame(Box<AwaitingFirstFrame>),
    /// A dialect is spoken.
    Speaking(Session),
}

#[derive(Debug)]
struct AwaitingFirstFrame {
    /// From our ping to its pong.
    round_trip: Option<Duration>,
    /// When the silence is to be taken for an answer, if it can be one.
    speak_at: Option<Instant>,
    give_up_at: Instant,
}

#[derive(Debug)]
struct Detection {
    opened: Instant,
    policy: Arc<Policy>,
    /// As long as it may have to be begun anew: only what was guessed is ever taken back.
    upgrade: Option<Box<UpgradeRequest>>,
    context: History,
    phase: Phase,
}

/// How far what we say rests on what the client said.
#[derive(Debug)]
enum Phase {
    /// It has spoken, and only which of a family's dialects it speaks may be open.
    Confirmed,
    /// It has not said a word.
    Assumed(Box<Assumption>),
    /// A guess was taken back: this is said again after the room's next answer.
    Replaying(Box<ReplayBuffer>),
}

/// What waits to be said again.
#[derive(Debug, Default)]
struct ReplayBuffer {
    events: Vec<Event>,
    cost: usize,
}

impl ReplayBuffer {
    fn new(events: Vec<Event>) -> Self {
        let cost = events.iter().map(Event::queued_bytes).sum();
        ReplayBuffer { events, cost }
    }

    /// Takes the event in, or gives it back if there is no room for it.
    fn take(&mut self, event: Event) -> Result<(), Event> {
        if self.cost + event.queued_bytes() > MAX_REPEATED {
            return Err(event);
        }
        self.cost += event.queued_bytes();
        self.events.push(event);
        Ok(())
    }
}

impl Detector {
    /// A conversation that begins with the end of the upgrade, at `now`.
    pub fn open(
        policy: &Arc<Policy>,
        upgrade: UpgradeRequest,
        now: Instant,
        steps: &mut Vec<Output>,
    ) -> Self {
        let windows = policy.windows;
        let candidates = policy.releases;
        let silent = candidates.of_family(Family::ProtobufV1);
        let has_key = upgrade.path.len() > 1;
        let doubt = Detection {
            opened: now,
            policy: Arc::clone(policy),
            upgrade: Some(Box::new(upgrade)),
            context: History::default(),
            phase: Phase::Confirmed,
        };
        let mut conversation = Detector {
            candidates,
            state: State::AwaitingFirstFrame(Box::new(AwaitingFirstFrame {
                round_trip: None,
                speak_at: (has_key && !silent.is_empty()).then(|| now + 4 * windows.silence),
                give_up_at: now + windows.first_frame,
            })),
            doubt: Some(Box::new(doubt)),
            mixed: false,
            placing: Placement::new(policy),
        };
        let family = likeliest(candidates).dialect().family();
        // Of the JSON dialects only one speaks first, and only if it can be no other.
        let decided = family != Family::Json || candidates.len() == 1;
        if decided && candidates.of_family(family) == candidates {
            steps.push(Output::Recognised(candidates, Evidence::Pinned));
            conversation.speak(candidates, now, steps);
        } else {
            steps.push(Output::Ping);
        }
        conversation.place(0, now, steps);
        conversation
    }

    /// The pong of the ping came.
    pub fn on_pong(&mut self, now: Instant) {
        let Some(Detection { policy, opened, .. }) = self.doubt.as_deref() else {
            return;
        };
        if let State::AwaitingFirstFrame(listening) = &mut self.state
            && let AwaitingFirstFrame { round_trip: round_trip @ None, speak_at: Some(speak_at), .. } =
                &mut **listening
        {
            let windows = policy.windows;
            *round_trip = Some(now - *opened);
            // On a fast link the silence window is the longest; a slow one has used it up before.
            let latest = (*opened + windows.silence).max(now + windows.margin / 2);
            *speak_at = (now + windows.margin).min(latest);
        }
    }

    /// A frame came.
    pub fn on_message(&mut self, message: Message, now: Instant, steps: &mut Vec<Output>) {
        let before = steps.len();
        match &self.state {
            State::AwaitingFirstFrame(_) => self.hear_first(FrameFacts::new(&message), now, steps),
            State::Speaking(_) if self.doubt.is_some() => self.weigh(FrameFacts::new(&message), now, steps),
            State::Speaking(_) => {}
        }
        if let State::Speaking(session) = &mut self.state {
            session.decode(message, steps);
        }
        self.place(before, now, steps);
    }

    /// Sends it to the room of its generation, where a key stands for several: what was asked from step `from` on, and
    /// what was asked before if it turned out to be of another generation than it was taken for.
    fn place(&mut self, from: usize, now: Instant, steps: &mut Vec<Output>) {
        let Some(placing) = &mut self.placing else { return };
        let client = Client {
            generation: generation(self.candidates),
            likely: likeliest(self.candidates).dialect(),
            probed: self.doubt.as_ref().is_some_and(|doubt| doubt.context.probed),
        };
        let placed = placing.place(client, from, now, steps);
        if placed.held
            && let State::Speaking(session) = &mut self.state
            && let Some(question) = session.question()
        {
            steps.push(Output::Send(question.into()));
            self.doubt.iter_mut().for_each(|doubt| doubt.context.questioned = true);
        }
        if placed.left {
            self.forget_kept();
        }
    }

    /// What came in a room that it has left is not said again.
    fn forget_kept(&mut self) {
        if let Some(Phase::Replaying(kept)) = self.doubt.as_mut().map(|doubt| &mut doubt.phase) {
            **kept = ReplayBuffer::default();
        }
    }

    /// The first word is the client's.
    fn hear_first(&mut self, clue: FrameFacts<'_>, now: Instant, steps: &mut Vec<Output>) {
        let possible = evidence::after(clue, History::default(), self.candidates);
        // A frame of a dialect that is not allowed here is judged by one that is.
        let possible = if possible.is_empty() { self.candidates } else { possible };
        let possible = possible.of_family(likeliest(possible).dialect().family());
        steps.push(Output::Recognised(possible, Evidence::FirstFrame));
        self.speak(possible, now, steps);
        self.heard(clue, now, steps);
    }

    /// A frame may tell more than was known before.
    fn weigh(&mut self, clue: FrameFacts<'_>, now: Instant, steps: &mut Vec<Output>) {
        let Some(doubt) = &self.doubt else { return };
        let guessing = matches!(doubt.phase, Phase::Assumed(_));
        if guessing {
            let all = doubt.policy.releases;
            let possible = evidence::after(clue, doubt.context, all);
            if possible == all && all != self.candidates {
                // It tells nothing, so nothing is proven.
                return;
            }
            let family = likeliest(possible).dialect().family();
            if !possible.is_empty() && family != Family::ProtobufV1 {
                return self.take_back(possible.of_family(family), family, steps);
            }
        }
        let possible = evidence::after(clue, doubt.context, self.candidates);
        if !possible.is_empty() && possible != self.candidates {
            self.candidates = possible;
            steps.push(Output::Recognised(possible, Evidence::LaterFrame));
            if let State::Speaking(session) = &mut self.state {
                session.adopt(possible, likeliest(possible), now, steps);
            }
        } else if guessing && !possible.is_empty() {
            steps.push(Output::Recognised(possible, Evidence::LaterFrame));
        }
        self.heard(clue, now, steps);
    }

    /// The client has said something that fits: what was held is shown, what bears on later evidence is
    /// remembered, and the doubt ends if there is none left.
    fn heard(&mut self, clue: FrameFacts<'_>, now: Instant, steps: &mut Vec<Output>) {
        let (Some(doubt), State::Speaking(session)) = (&mut self.doubt, &mut self.state) else {
            return;
        };
        if let Phase::Assumed(_) = doubt.phase
            && let Phase::Assumed(guess) = std::mem::replace(&mut doubt.phase, Phase::Confirmed)
        {
            show(session, guess.proven(), now, steps);
        }
        if matches!(doubt.phase, Phase::Confirmed) {
            doubt.upgrade = None;
        }
        doubt.context.note(clue);
        if self.candidates.len() <= 1 && matches!(doubt.phase, Phase::Confirmed) {
            self.doubt = None;
        }
    }

    /// We spoke sigver 15 to 18 to a client that speaks something else. The current clients ignore what we said
    /// (measured on netflux 4.3.0 and 4.3.1), so that nothing is lost.
    fn take_back(&mut self, possible: ReleaseSet, family: Family, steps: &mut Vec<Output>) {
        let Some(doubt) = self.doubt.as_deref_mut() else { return };
        let Some(upgrade) = &doubt.upgrade else { return };
        steps.push(Output::Recognised(possible, Evidence::Corrected));
        doubt.context = History::default();
        let mut kept = match std::mem::replace(&mut doubt.phase, Phase::Confirmed) {
            Phase::Assumed(guess) => guess.taken_back(),
            Phase::Confirmed | Phase::Replaying(_) => Vec::new(),
        };
        if let Some(placing) = &mut self.placing
            && placing.forget()
        {
            steps.push(Output::Leave);
            kept.clear();
        }
        match family {
            Family::ProtobufV2 => {
                steps.push(Output::Ask(Command::RevertAssumption));
                doubt.phase = Phase::Replaying(Box::new(ReplayBuffer::new(kept)));
            }
            // Its room is another one.
            Family::Json | Family::ProtobufV1 => steps.push(Output::Leave),
        }
        self.candidates = possible;
        self.state = State::Speaking(Session::new(
            upgrade,
            possible,
            likeliest(possible),
            doubt.policy.transcode,
            doubt.opened,
        ));
    }

    /// Begins to speak one of `possible`, which are of one family.
    fn speak(&mut self, possible: ReleaseSet, now: Instant, steps: &mut Vec<Output>) {
        let Some(doubt) = self.doubt.as_deref_mut() else { return };
        let Some(upgrade) = &doubt.upgrade else { return };
        let likeliest = likeliest(possible);
        let mut session = Session::new(upgrade, possible, likeliest, doubt.policy.transcode, doubt.opened);
        if let Some(close) = Session::key_error(upgrade, likeliest) {
            steps.push(Output::Send(close.into()));
        } else {
            if possible.len() > 1 && possible.iter().any(pings) {
                steps.push(Output::Send(Message::Binary(PROBE).into()));
                doubt.context.probed = true;
            }
            session.open(doubt.opened, steps);
        }
        let windows = doubt.policy.windows;
        if likeliest.dialect().family() == Family::ProtobufV1 && doubt.policy.releases.len() > 1 {
            let round_trip = match &self.state {
                State::AwaitingFirstFrame(listening) => listening.round_trip,
                State::Speaking(_) => None,
            };
            let round_trip = round_trip.unwrap_or(windows.silence);
            doubt.phase = Phase::Assumed(Box::new(Assumption::new(now + round_trip + HOLD)));
        } else if possible.len() == 1 {
            self.doubt = None;
        }
        self.candidates = possible;
        self.state = State::Speaking(session);
    }

    /// An event came for the client.
    pub fn on_event(&mut self, event: Event, now: Instant, steps: &mut Vec<Output>) {
        if self.placing.as_mut().is_some_and(|placing| placing.hides(&event)) {
            return;
        }
        self.notice_mixture(&event, steps);
        let State::Speaking(session) = &mut self.state else {
            return;
        };
        let Some(doubt) = &mut self.doubt else {
            return show(session, [event], now, steps);
        };
        let admitted = matches!(event, Event::Admitted { .. } | Event::BecameMember { .. });
        let bound = matches!(event, Event::LinkedToMember { .. });
        if admitted || bound {
            doubt.context.member = admitted;
        }
        match &mut doubt.phase {
            Phase::Confirmed => show(session, [event], now, steps),
            Phase::Assumed(guess) => show(session, guess.take(event), now, steps),
            Phase::Replaying(kept) if admitted || bound => {
                let kept = std::mem::take(kept);
                doubt.phase = Phase::Confirmed;
                show(session, std::iter::once(event).chain(kept.events), now, steps);
            }
            // After what came before it.
            Phase::Replaying(kept) => {
                if let Err(event) = kept.take(event) {
                    show(session, [event], now, steps);
                }
            }
        }
    }

    fn notice_mixture(&mut self, event: &Event, steps: &mut Vec<Output>) {
        if let Event::Relayed { link, sender, .. } = event
            && !self.mixed
            && let Some(other) = Dialect::from_tag(*sender)
            && self.candidates.iter().all(|release| release.dialect().generation() != other.generation())
        {
            self.mixed = true;
            steps.push(Output::Mixed(*link, other));
        }
    }

    /// When [`on_time`](Self::on_time) is to be called, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::AwaitingFirstFrame(listening) => {
                listening.speak_at.into_iter().chain([listening.give_up_at]).min()
            }
            State::Speaking(session) => {
                let hold = match self.doubt.as_ref().map(|doubt| &doubt.phase) {
                    Some(Phase::Assumed(guess)) => guess.deadline(),
                    Some(Phase::Confirmed | Phase::Replaying(_)) | None => None,
                };
                let held = self.placing.as_ref().and_then(|placing| placing.deadline());
                session.deadline().into_iter().chain(hold).chain(held).min()
            }
        }
    }

    /// The time came.
    pub fn on_time(&mut self, now: Instant, steps: &mut Vec<Output>) {
        let before = steps.len();
        self.act_on_time(now, steps);
        self.place(before, now, steps);
    }

    fn act_on_time(&mut self, now: Instant, steps: &mut Vec<Output>) {
        match &mut self.state {
            State::AwaitingFirstFrame(listening) if listening.give_up_at <= now => {
                steps.push(Output::Send(self.close(&Reason::NoFirstFrame).into()));
            }
            State::AwaitingFirstFrame(listening) => {
                if listening.speak_at.is_some_and(|at| at <= now) {
                    let silent = self.candidates.of_family(Family::ProtobufV1);
                    steps.push(Output::Recognised(silent, Evidence::Silence));
                    self.speak(silent, now, steps);
                }
            }
            State::Speaking(session) => {
                if let Some(doubt) = &mut self.doubt
                    && let Phase::Assumed(guess) = &mut doubt.phase
                    && let Some(held) = guess.release(now)
                {
                    // It had the time to answer the probe. If it does so later, the candidates still have room for it.
                    let unanswered = self.candidates.filter(|release| !pings(release));
                    if !unanswered.is_empty() {
                        session.adopt(unanswered, likeliest(unanswered), now, steps);
                    }
                    show(session, held, now, steps);
                }
                session.poll(now, steps);
            }
        }
    }

    /// The close frame that says `reason` in the client's words, as far as they are known.
    pub fn close(&self, reason: &Reason) -> Close {
        close(likeliest(self.candidates), reason)
    }

    /// The releases the client may speak.
    pub fn candidates(&self) -> ReleaseSet {
        self.candidates
    }
}

/// Encodes events, and puts out what the client is sent of them.
fn show(
    session: &mut Session,
    events: impl IntoIterator<Item = Event>,
    now: Instant,
    out: &mut dyn OutputSink,
) {
    for event in events {
        session.encode(event, now, out);
    }
}
