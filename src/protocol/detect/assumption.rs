//! What came for a client whose dialect is a guess: held until the guess is sure enough to show it, and kept until
//! it is proven, so that it can be said again in another dialect.

use std::time::Instant;

use crate::protocol::dialect::Dialect;
use crate::protocol::model::{Event, Side};

/// How much is kept, in bytes. What does not fit is shown in the guessed dialect, and not again.
const MAX_KEPT: usize = 256 * 1024;

/// A guess that a client waits for our first word, of which nothing has come yet.
#[derive(Debug)]
pub(super) struct Assumption {
    kept: Vec<Event>,
    cost: usize,
    /// How many of them were shown.
    shown: usize,
    /// Until then its page may still be loading: it may answer the probe, and then speaks a dialect that cannot read
    /// what the likeliest one says, or turn out to be of another family.
    hold_until: Option<Instant>,
}

impl Assumption {
    pub(super) fn new(hold_until: Instant) -> Self {
        Assumption { kept: Vec::new(), cost: 0, shown: 0, hold_until: Some(hold_until) }
    }

    /// Takes in an event; what is to be shown now.
    pub(super) fn take(&mut self, event: Event) -> Vec<Event> {
        if !matches!(event, Event::Relayed { .. } | Event::LinkEnded { .. }) {
            return vec![event];
        }
        if self.cost + event.queued_bytes() > MAX_KEPT {
            let mut shown = self.show_held();
            shown.push(event);
            return shown;
        }
        // Shown at once if everything before it was, and its sender speaks a dialect whose clients are silent like
        // this one: rooms are rarely mixed.
        let all_shown = self.shown == self.kept.len();
        let shows = self.hold_until.is_none()
            || (all_shown && (from_silent(&event) || self.shown > 0 && is_end(&event)));
        self.cost += event.queued_bytes();
        self.kept.push(event.clone());
        if !shows {
            return Vec::new();
        }
        self.shown += 1;
        vec![event]
    }

    /// When [`release`](Self::release) is to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.hold_until
    }

    /// What is to be shown of what was held, if its time has come at `now`. That happens once.
    pub(super) fn release(&mut self, now: Instant) -> Option<Vec<Event>> {
        self.hold_until.take_if(|until| *until <= now)?;
        Some(self.show_held())
    }

    /// What was held so far, which is shown from now on and kept all the same.
    fn show_held(&mut self) -> Vec<Event> {
        let held = self.kept[self.shown..].to_vec();
        self.shown = self.kept.len();
        held
    }

    /// The guess was right: what was not shown yet.
    pub(super) fn proven(mut self) -> Vec<Event> {
        self.kept.split_off(self.shown)
    }

    /// The guess was wrong: everything, to be said again, but what came over a link by which the client joined on
    /// that guess. It does not know that link.
    pub(super) fn taken_back(mut self) -> Vec<Event> {
        self.kept.retain(|event| match event {
            Event::Relayed { side, .. } | Event::LinkEnded { side, .. } => *side == Side::Member,
            Event::Admitted { .. }
            | Event::BecameMember { .. }
            | Event::LinkedToMember { .. }
            | Event::LinkedToJoiner { .. }
            | Event::Refused(_)
            | Event::Undeliverable { .. }
            | Event::Evicted(_) => true,
        });
        self.kept
    }
}

/// Whether the sender speaks sigver 16 or 18: a member of these says nothing until its first heartbeat. One of 15 would
/// have answered the probe.
fn from_silent(event: &Event) -> bool {
    let Event::Relayed { sender, .. } = event else { return false };
    Dialect::from_tag(*sender).is_some_and(|dialect| matches!(dialect, Dialect::Sigver16 | Dialect::Sigver18))
}

/// The end of a link is readable where the contents before it were.
fn is_end(event: &Event) -> bool {
    matches!(event, Event::LinkEnded { .. })
}
