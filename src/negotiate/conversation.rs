//! One connection from its first moment to its last: who speaks first, what dialect it is, and the correction of
//! a wrong guess. Around a [`Session`], which knows nothing of doubt.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::evidence::{self, Context};
use super::policy::{Policy, likeliest};
use crate::dialect::{Action, Dialect, Family, PROBE, Releases, Session, Upgrade, close};
use crate::frame::{Close, Frame};
use crate::model::{Command, Event, Reason, RoomKey};

/// How much is held for a client whose dialect is a guess, in bytes. What does not fit is said in the guessed one.
const MAX_HELD: usize = 256 * 1024;

/// What the caller is to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Send a frame; a close frame is the last.
    Send(Frame),
    /// Send a WebSocket ping, and report its pong with [`Conversation::on_pong`].
    Ping,
    /// Take a command to a room.
    Enter(RoomKey, Command),
    /// Take a command to the room where the peer is. If it is in none, that is its answer: nothing.
    Ask(Command),
    /// Leave all rooms.
    Leave,
    /// For the log: which releases are left, and by what evidence.
    Recognised(Releases, &'static str),
}

/// One connection's conversation.
#[derive(Debug)]
pub struct Conversation {
    candidates: Releases,
    opened: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing has been said, by either side.
    Listening(Box<Listening>),
    /// A dialect is spoken, for certain or on a guess.
    Speaking {
        session: Session,
        doubt: Option<Box<Doubt>>,
    },
}

#[derive(Debug)]
struct Listening {
    policy: Arc<Policy>,
    upgrade: Upgrade,
    /// When the silence is to be taken for an answer, if it can be one.
    speak_at: Option<Instant>,
    give_up_at: Instant,
}

/// What is kept while more than one release is possible.
#[derive(Debug)]
struct Doubt {
    context: Context,
    /// The client has not said a word, and what we said was a guess.
    guess: Option<Guess>,
}

#[derive(Debug)]
struct Guess {
    policy: Arc<Policy>,
    upgrade: Upgrade,
    /// What came for the client, so that it can be said again in another dialect.
    held: VecDeque<Event>,
    /// What they cost in bytes.
    cost: usize,
    /// How many of them it was shown already.
    shown: usize,
    hold_until: Option<Instant>,
    /// The guess was wrong and is taken back: what is held follows the room's next answer.
    taken_back: bool,
}

impl Conversation {
    /// A conversation that begins with the end of the upgrade, at `now`.
    pub fn open(policy: &Arc<Policy>, upgrade: Upgrade, now: Instant, steps: &mut Vec<Step>) -> Self {
        let candidates = policy.releases;
        let family = likeliest(candidates).dialect().family();
        let listening = Listening {
            policy: Arc::clone(policy),
            upgrade,
            speak_at: None,
            give_up_at: now + policy.windows.first_frame,
        };
        if candidates.of_family(family) == candidates {
            let (state, candidates) = speak(listening, candidates, now, false, steps);
            return Conversation {
                candidates,
                opened: now,
                state,
            };
        }
        steps.push(Step::Ping);
        let mut listening = listening;
        if !candidates.of_family(Family::ProtobufV1).is_empty() && listening.upgrade.path.len() > 1 {
            listening.speak_at = Some(now + 4 * policy.windows.silence);
        }
        Conversation {
            candidates,
            opened: now,
            state: State::Listening(Box::new(listening)),
        }
    }

    /// The pong of the ping came.
    pub fn on_pong(&mut self, now: Instant) {
        if let State::Listening(listening) = &mut self.state
            && let Some(speak_at) = &mut listening.speak_at
        {
            let windows = listening.policy.windows;
            // On a fast link the silence window is the longest; a slow one has used it up before.
            let latest = (self.opened + windows.silence).max(now + windows.margin / 2);
            *speak_at = (now + windows.margin).min(latest);
        }
    }

    /// A frame came.
    pub fn on_frame(&mut self, frame: &Frame, now: Instant, steps: &mut Vec<Step>) {
        if let State::Listening(_) = &self.state {
            self.hear_first(frame, now, steps);
        } else if let State::Speaking { doubt: Some(_), .. } = &self.state {
            self.weigh(frame, now, steps);
        }
        let State::Speaking { session, .. } = &mut self.state else {
            return;
        };
        steps.extend(step(session.decode(frame)));
    }

    /// The first word is the client's.
    fn hear_first(&mut self, frame: &Frame, now: Instant, steps: &mut Vec<Step>) {
        let State::Listening(listening) = &self.state else {
            return;
        };
        let possible = evidence::after(frame, Context::default(), self.candidates);
        // A frame of a dialect that is not allowed here is judged by one that is.
        let possible = if possible.is_empty() {
            self.candidates
        } else {
            possible
        };
        let possible = possible.of_family(likeliest(possible).dialect().family());
        steps.push(Step::Recognised(possible, "first frame"));
        let listening = Listening {
            policy: Arc::clone(&listening.policy),
            upgrade: listening.upgrade.clone(),
            speak_at: None,
            give_up_at: now,
        };
        (self.state, self.candidates) = speak(listening, possible, self.opened, false, steps);
        self.heard(frame);
    }

    /// A frame may tell more than was known before.
    fn weigh(&mut self, frame: &Frame, now: Instant, steps: &mut Vec<Step>) {
        let State::Speaking {
            session,
            doubt: Some(doubt),
        } = &mut self.state
        else {
            return;
        };
        if let Some(guess) = doubt.guess.as_ref().filter(|guess| !guess.taken_back) {
            let possible = evidence::after(frame, doubt.context, guess.policy.releases);
            let family = likeliest(possible).dialect().family();
            if possible == guess.policy.releases {
                // It tells nothing, so nothing is proven.
                return;
            }
            if !possible.is_empty() && family != Family::ProtobufV1 {
                let Some(guess) = doubt.guess.take() else { return };
                return self.take_back(guess, possible, family, steps);
            }
        }
        let possible = evidence::after(frame, doubt.context, self.candidates);
        if !possible.is_empty() && possible != self.candidates {
            self.candidates = possible;
            session.adopt(possible, likeliest(possible), now);
            steps.push(Step::Recognised(possible, "later frame"));
        }
        if let Some(guess) = doubt.guess.take_if(|guess| !guess.taken_back) {
            show(session, guess.held.into_iter().skip(guess.shown), now, steps);
        }
        self.heard(frame);
    }

    /// Remembers what bears on later evidence; ends the doubt if there is none left.
    fn heard(&mut self, frame: &Frame) {
        let State::Speaking { doubt, .. } = &mut self.state else {
            return;
        };
        if self.candidates.len() <= 1 && doubt.as_ref().is_some_and(|doubt| doubt.guess.is_none()) {
            *doubt = None;
        } else if let (Some(doubt), Frame::Binary(bytes)) = (doubt, frame)
            && bytes.first() == Some(&0x20)
        {
            doubt.context.beaten = true;
        }
    }

    /// We spoke sigver 15 to 18 to a client that speaks something else. The current clients ignore what we said
    /// (measured on netflux 4.3.0 and 4.3.1), so that nothing is lost.
    fn take_back(&mut self, guess: Guess, possible: Releases, family: Family, steps: &mut Vec<Step>) {
        steps.push(Step::Recognised(possible, "taken back: spoke after we did"));
        let possible = possible.of_family(family);
        steps.push(match family {
            Family::Current => Step::Ask(Command::Forget),
            Family::Json | Family::ProtobufV1 => Step::Leave,
        });
        self.candidates = possible;
        let session = Session::new(&guess.upgrade, possible, likeliest(possible), self.opened);
        let guess = Guess {
            taken_back: true,
            hold_until: None,
            ..guess
        };
        let guess = Some(guess).filter(|guess| family == Family::Current && !guess.held.is_empty());
        self.state = State::Speaking {
            session,
            doubt: Some(Box::new(Doubt {
                context: Context::default(),
                guess,
            })),
        };
    }

    /// An event came for the client.
    pub fn on_event(&mut self, event: Event, now: Instant, steps: &mut Vec<Step>) {
        let State::Speaking { session, doubt } = &mut self.state else {
            return;
        };
        let Some(doubt) = doubt else {
            return show(session, [event], now, steps);
        };
        let admitted = matches!(event, Event::Admitted | Event::Settled { .. });
        let answered = matches!(event, Event::Admitted | Event::Bound { .. });
        if admitted || answered {
            doubt.context.member = admitted;
        }
        if let Some(guess) = &mut doubt.guess
            && guess.hold(&event)
        {
            // Shown at once only if everything before it was.
            if guess.shown + 1 == guess.held.len() && guess.shows(&event) {
                guess.shown += 1;
                show(session, [event], now, steps);
            }
            return;
        }
        show(session, [event], now, steps);
        if answered && let Some(guess) = doubt.guess.take_if(|guess| guess.taken_back) {
            show(session, guess.held, now, steps);
        }
    }

    /// When [`on_time`](Self::on_time) is to be called, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Listening(listening) => Some(
                listening
                    .speak_at
                    .map_or(listening.give_up_at, |at| at.min(listening.give_up_at)),
            ),
            State::Speaking { session, doubt } => {
                let hold = doubt
                    .as_ref()
                    .and_then(|doubt| doubt.guess.as_ref())
                    .and_then(|guess| guess.hold_until);
                session.deadline().into_iter().chain(hold).min()
            }
        }
    }

    /// The time came.
    pub fn on_time(&mut self, now: Instant, steps: &mut Vec<Step>) {
        match &mut self.state {
            State::Listening(listening) => {
                if listening.give_up_at <= now {
                    let words = close(likeliest(self.candidates), &Reason::Silent);
                    steps.push(Step::Send(Frame::Close(words)));
                } else if listening.speak_at.is_some_and(|at| at <= now) {
                    let listening = Listening {
                        policy: Arc::clone(&listening.policy),
                        upgrade: listening.upgrade.clone(),
                        ..**listening
                    };
                    let silent = self.candidates.of_family(Family::ProtobufV1);
                    steps.push(Step::Recognised(silent, "silence"));
                    (self.state, self.candidates) = speak(listening, silent, self.opened, true, steps);
                }
            }
            State::Speaking { session, doubt } => {
                if let Some(guess) = doubt.as_mut().and_then(|doubt| doubt.guess.as_mut())
                    && guess.hold_until.is_some_and(|until| until <= now)
                {
                    guess.hold_until = None;
                    show(session, guess.held.iter().skip(guess.shown).cloned(), now, steps);
                    guess.shown = guess.held.len();
                }
                let mut frames = Vec::new();
                session.poll(now, &mut frames);
                steps.extend(frames.into_iter().map(Step::Send));
            }
        }
    }

    /// The close frame that says `reason` in the client's words, as far as they are known.
    pub fn close(&self, reason: &Reason) -> Close {
        close(likeliest(self.candidates), reason)
    }

    /// The releases the client may speak.
    pub fn candidates(&self) -> Releases {
        self.candidates
    }
}

/// Begins to speak one of `possible`, which are of one family.
fn speak(
    listening: Listening,
    possible: Releases,
    opened: Instant,
    guessing: bool,
    steps: &mut Vec<Step>,
) -> (State, Releases) {
    let Listening { policy, upgrade, .. } = listening;
    let likeliest = likeliest(possible);
    let mut session = Session::new(&upgrade, possible, likeliest, opened);
    let mut context = Context::default();
    let several = possible.len() > 1;
    match Session::key_error(&upgrade, likeliest) {
        Some(close) => steps.push(Step::Send(Frame::Close(close))),
        None => {
            let pings = |dialect| matches!(dialect, Dialect::Sigver15 | Dialect::Sigver15_1);
            if possible.iter().any(|release| pings(release.dialect())) && several {
                steps.push(Step::Send(Frame::Binary(PROBE)));
                context.probed = true;
            }
            steps.extend(step(session.open()));
        }
    }
    let silent = likeliest.dialect().family() == Family::ProtobufV1 && context.probed;
    let guess = (guessing || silent).then(|| Guess {
        hold_until: Some(opened + policy.windows.hold),
        policy,
        upgrade,
        held: VecDeque::new(),
        cost: 0,
        shown: 0,
        taken_back: false,
    });
    let doubt = (several || guess.is_some()).then(|| Box::new(Doubt { context, guess }));
    (State::Speaking { session, doubt }, possible)
}

impl Guess {
    /// Keeps an event that has to be said again if the guess is taken back; whether it is one.
    fn hold(&mut self, event: &Event) -> bool {
        let holds = (self.hold_until.is_some() || self.taken_back)
            && matches!(event, Event::Relayed { .. } | Event::LinkEnded { .. })
            && self.cost + event.cost() <= MAX_HELD;
        if holds {
            self.cost += event.cost();
            self.held.push_back(event.clone());
        }
        holds
    }

    /// Whether an event is shown at once: its sender speaks a dialect of the guessed family, and rooms are rarely
    /// mixed.
    fn shows(&self, event: &Event) -> bool {
        let Event::Relayed { origin, .. } = event else {
            return false;
        };
        !self.taken_back
            && Dialect::of_origin(*origin).is_some_and(|dialect| dialect.family() == Family::ProtobufV1)
    }
}

/// Encodes events and has what comes of it sent.
fn show(session: &mut Session, events: impl IntoIterator<Item = Event>, now: Instant, steps: &mut Vec<Step>) {
    let mut frames = Vec::new();
    events
        .into_iter()
        .for_each(|event| session.encode(event, now, &mut frames));
    steps.extend(frames.into_iter().map(Step::Send));
}

fn step(action: Action) -> Option<Step> {
    match action {
        Action::Nothing => None,
        Action::Enter(key, command) => Some(Step::Enter(key, command)),
        Action::Ask(command) => Some(Step::Ask(command)),
        Action::Reply(frame) => Some(Step::Send(frame)),
        Action::Close(close) => Some(Step::Send(Frame::Close(close))),
    }
}
