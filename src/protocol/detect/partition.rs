//! Rooms by generation. A key can stand for several rooms, one for each generation of clients, and a client
//! must not enter one before its generation is known: [`Placement`] holds it back, and moves it if it turns
//! out to be of another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::after;
use super::policy::Policy;
use crate::protocol::dialect::{Candidates, Family, Output, OutputSink, PeerProtocol};
use crate::protocol::frame::Outgoing;
use crate::protocol::model::{Command, Event, Open, RoomKey};

/// Time that an opener of a JSON dialect has to show its generation. netflux 0.10.3 takes some 10 ms
/// (measured).
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);

/// Time that a joiner of a JSON dialect is held back: openers that arrive with it are asked first.
const JOINER_HOLD_TIME: Duration = Duration::from_millis(250);

/// Limit of the commands of a client that is held back, in bytes. Commands above it are lost, as they would
/// be in no room.
const MAX_WAITING: usize = 64 * 1024;

/// The room of one connection among those of its key.
#[derive(Debug)]
pub(super) struct Placement {
    policy: Arc<Policy>,
    /// The releases that the client may speak, as they were last recognised.
    candidates: Candidates,
    /// The last entry of a key that stands for several rooms, and the generation assumed for it.
    entered: Option<(RoomKey, Command, PeerProtocol)>,
    /// The entry that waits until the generation is known or the time is over.
    held: Option<HeldCommand>,
    /// The client was moved without its knowledge: the room's next answer is not for it.
    reassigned: bool,
    changes: PlacementChanges,
}

#[derive(Debug)]
struct HeldCommand {
    key: RoomKey,
    command: Command,
    until: Instant,
    /// The entry waits for other clients, and not for evidence of its own client's generation.
    for_others: bool,
    /// The commands after it.
    waiting: Vec<Command>,
    bytes: usize,
}

/// Changes to the placement of a client, by one input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PlacementChanges {
    /// The client is held back, and may be asked for its generation.
    pub(super) held: bool,
    /// The client has left the room of another generation.
    pub(super) left: bool,
}

/// A filter in front of a sink that sends a client to the room of its generation.
pub(super) struct PlacementFilter<'a> {
    placement: &'a mut Placement,
    now: Instant,
    out: &'a mut dyn OutputSink,
}

impl OutputSink for PlacementFilter<'_> {
    fn put(&mut self, output: Output) {
        let placement = &mut *self.placement;
        match output {
            Output::Recognised(releases, evidence) => {
                placement.candidates = Candidates::new(releases);
                self.out.put(Output::Recognised(releases, evidence));
            }
            Output::Enter(key, command) => {
                let key = placement.policy.room_key(key);
                if placement.policy.is_partitioned(key.as_str()) {
                    placement.place(key, command, self.now, self.out);
                } else {
                    placement.forget();
                    self.out.enter(key, command);
                }
            }
            Output::Leave => {
                placement.forget();
                self.out.put(output);
            }
            Output::Ask(Command::RevertAssumption) => {
                if placement.forget() {
                    placement.changes.left = true;
                    self.out.put(Output::Leave);
                }
                self.out.put(output);
            }
            // An answer to the sender of an event, and no command of the client.
            Output::Ask(Command::ReplyOnBehalf { .. }) => self.out.put(output),
            Output::Ask(command) => match &mut placement.held {
                Some(held) => held.enqueue(command),
                None => self.out.ask(command),
            },
            // The last output: the client enters no room after it.
            Output::Send(Outgoing::Close(_)) => {
                placement.forget();
                placement.changes = PlacementChanges::default();
                self.out.put(output);
            }
            Output::Send(_) | Output::Ping | Output::Mixed(..) => self.out.put(output),
        }
    }
}

impl Placement {
    /// Returns the placement of a new connection, if keys can stand for several rooms.
    pub(super) fn new(policy: &Arc<Policy>) -> Option<Box<Self>> {
        if policy.has_shared_rooms_only() {
            return None;
        }
        Some(Box::new(Placement {
            policy: Arc::clone(policy),
            candidates: Candidates::new(policy.releases),
            entered: None,
            held: None,
            reassigned: false,
            changes: PlacementChanges::default(),
        }))
    }

    /// Returns the filter for the outputs of one input.
    pub(super) fn filter<'a>(&'a mut self, now: Instant, out: &'a mut dyn OutputSink) -> PlacementFilter<'a> {
        PlacementFilter { placement: self, now, out }
    }

    /// Returns until when the client is held back, if it is.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.held.as_ref().map(|held| held.until)
    }

    /// Returns true if the event is a room's answer to a move that the client knows nothing of.
    pub(super) fn suppresses(&mut self, event: &Event) -> bool {
        matches!(event, Event::Admitted { .. } | Event::LinkedToMember { .. })
            && std::mem::take(&mut self.reassigned)
    }

    /// Ends one input: sends the client to a room if its generation is known by now or the time is over, and
    /// to another one if it is of another generation than was assumed. Returns the changes since the last
    /// input.
    pub(super) fn settle(&mut self, now: Instant, out: &mut dyn OutputSink) -> PlacementChanges {
        let known = self.generation().is_some();
        let assumed = self.assumed_generation();
        let due = |held: &mut HeldCommand| known && !held.for_others || held.until <= now;
        if let Some(held) = self.held.take_if(due) {
            self.enter(held.key, held.command, out);
            held.waiting.into_iter().for_each(|command| out.ask(command));
        } else if let Some((key, command, generation)) = &self.entered
            && *generation != assumed
        {
            let (key, command) = (key.clone(), command.clone());
            self.reassigned = self.is_json();
            self.enter(key, command, out);
        }
        std::mem::take(&mut self.changes)
    }

    /// Forgets where the client is. Returns true if it is in a room of a generation, which it has to leave.
    fn forget(&mut self) -> bool {
        self.held = None;
        self.entered.take().is_some()
    }

    /// Sends the client to the room of its generation, or holds it back.
    fn place(&mut self, key: RoomKey, command: Command, now: Instant, out: &mut dyn OutputSink) {
        self.held = None;
        let Some(hold_time) = self.hold_time(&command) else {
            return self.enter(key, command, out);
        };
        let for_others = matches!(command, Command::Join(_)) && self.is_json();
        let until = after(now, hold_time);
        self.held = Some(HeldCommand { key, command, until, for_others, waiting: Vec::new(), bytes: 0 });
        self.changes.held = true;
    }

    /// Returns how long the client is held back before it enters, if it is.
    fn hold_time(&self, command: &Command) -> Option<Duration> {
        match (self.candidates.family(), command) {
            (Family::Json, Command::Join(_)) => Some(JOINER_HOLD_TIME),
            _ if self.generation().is_some() => None,
            (Family::Json, Command::Open(Open { exclusive: true, .. })) => Some(PROBE_TIMEOUT),
            // The client was sent the probe, as candidates of several generations are left: it answers it
            // soon, or is of those that do not.
            (Family::ProtobufV1, _) => Some(self.policy.timeouts.silence),
            (Family::Json | Family::ProtobufV2, _) => None,
        }
    }

    fn enter(&mut self, key: RoomKey, command: Command, out: &mut dyn OutputSink) {
        let assumed = self.assumed_generation();
        if self.entered.as_ref().is_some_and(|(_, _, generation)| *generation != assumed) {
            out.put(Output::Leave);
            self.changes.left = true;
        }
        out.enter(key.clone().with_partition(assumed.partition_id()), command.clone());
        self.entered = Some((key, command, assumed));
    }

    /// Returns the generation of the client, if all that it may speak is of one.
    fn generation(&self) -> Option<PeerProtocol> {
        self.candidates.releases.peer_protocol()
    }

    fn assumed_generation(&self) -> PeerProtocol {
        self.generation().unwrap_or(self.candidates.dialect().peer_protocol())
    }

    fn is_json(&self) -> bool {
        self.candidates.family() == Family::Json
    }
}

impl HeldCommand {
    fn enqueue(&mut self, command: Command) {
        let bytes = self.bytes.saturating_add(command.queued_bytes());
        if bytes <= MAX_WAITING {
            self.bytes = bytes;
            self.waiting.push(command);
        }
    }
}
