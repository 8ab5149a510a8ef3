//! The session of a client whose family is known, while frames may still show its release: part of each
//! connection's task, unlike the [`Detector`](super::detector::Detector), which is on the heap until then.

use std::time::Instant;

use super::evidence::{self, FrameFacts, History};
use crate::protocol::dialect::{Candidates, Evidence, Output, OutputSink, ParsedMessage, Session};
use crate::protocol::frame::Message;
use crate::protocol::model::Event;

/// A session, and the earlier frames that bear on the release of its client.
#[derive(Debug)]
pub(super) struct NarrowingSession {
    pub(super) session: Session,
    pub(super) history: History,
}

impl NarrowingSession {
    /// Returns the releases that the client may speak.
    pub(super) fn candidates(&self) -> Candidates {
        self.session.candidates()
    }

    /// Returns true if nothing is left to detect.
    pub(super) fn is_certain(&self) -> bool {
        self.candidates().releases.len() <= 1
    }

    pub(super) fn on_message(&mut self, message: Message, now: Instant, out: &mut dyn OutputSink) {
        if !self.is_certain() {
            let message = ParsedMessage::new(message);
            let facts = FrameFacts::new(&message);
            self.narrow(facts, false, now, out);
            self.history.note(facts);
            return self.session.decode_parsed(message, out);
        }
        self.session.decode(message, out);
    }

    pub(super) fn on_event(&mut self, event: Event, now: Instant, out: &mut dyn OutputSink) {
        self.history.note_event(&event);
        self.session.encode(event, now, out);
    }

    /// Narrows the candidates by a frame. Those that are left are reported, also if they are the same as
    /// before if they were only `assumed`.
    pub(super) fn narrow(
        &mut self,
        facts: FrameFacts<'_>,
        assumed: bool,
        now: Instant,
        out: &mut dyn OutputSink,
    ) {
        let releases = self.candidates().releases;
        let possible = evidence::narrow(facts, self.history, releases);
        let narrower = possible != releases;
        if possible.is_empty() || !(narrower || assumed) {
            return;
        }
        out.put(Output::Recognised(possible, Evidence::LaterFrame));
        if narrower {
            self.session.adopt(Candidates::new(possible), now, out);
        }
    }

    /// Asks a client that is held back for its generation, if it can be asked.
    pub(super) fn ask_identity(&mut self, out: &mut dyn OutputSink) {
        if let Some(question) = self.session.question() {
            out.send(question);
            self.history.identity_probed = true;
        }
    }
}
