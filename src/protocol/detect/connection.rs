//! The protocol of one connection, from its upgrade to its end: the dialect is detected, and then spoken by a
//! session alone.

use std::sync::Arc;
use std::time::Instant;

use super::detector::Detector;
use super::narrowing::NarrowingSession;
use super::partition::Placement;
use super::policy::Policy;
use crate::protocol::dialect::{OutputSink, UpgradeRequest};
use crate::protocol::frame::{Close, Message};
use crate::protocol::model::{Event, Reason};

/// The protocol of one connection.
#[derive(Debug)]
pub struct ConnectionProtocol {
    state: State,
    /// The room among those of its key, if a key can stand for several.
    placement: Option<Box<Placement>>,
}

#[derive(Debug)]
enum State {
    /// The client may speak releases of several families.
    Detecting(Box<Detector>),
    /// The client speaks releases of one family.
    Established(NarrowingSession),
}

impl State {
    /// Returns true if nothing is left to detect.
    fn is_certain(&self) -> bool {
        matches!(self, State::Established(session) if session.is_certain())
    }
}

impl ConnectionProtocol {
    /// Begins with the end of the upgrade, at `now`.
    pub fn open(
        policy: &Arc<Policy>,
        upgrade: UpgradeRequest,
        now: Instant,
        out: &mut dyn OutputSink,
    ) -> Self {
        let detector = Box::new(Detector::new(policy, upgrade, now));
        let placement = Placement::new(policy);
        let mut protocol = ConnectionProtocol { state: State::Detecting(detector), placement };
        protocol.run(now, out, |state, out| {
            if let State::Detecting(detector) = state {
                detector.open(now, out);
            }
        });
        protocol
    }

    /// Handles the pong of the ping that was put out.
    pub fn on_pong(&mut self, now: Instant) {
        match &mut self.state {
            State::Detecting(detector) => detector.on_pong(now),
            State::Established(_) => {}
        }
    }

    /// Handles a message from the client.
    pub fn on_message(&mut self, message: Message, now: Instant, out: &mut dyn OutputSink) {
        self.run(now, out, |state, out| match state {
            State::Detecting(detector) => detector.on_message(message, now, out),
            State::Established(session) => session.on_message(message, now, out),
        });
    }

    /// Handles an event from a room of the client.
    pub fn on_event(&mut self, event: Event, now: Instant, out: &mut dyn OutputSink) {
        if self.placement.as_mut().is_some_and(|placement| placement.suppresses(&event)) {
            return;
        }
        self.run(now, out, |state, out| match state {
            State::Detecting(detector) => detector.on_event(event, now, out),
            State::Established(session) => session.on_event(event, now, out),
        });
    }

    /// Returns when [`on_timeout`](Self::on_timeout) has to be called, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let deadline = match &self.state {
            State::Detecting(detector) => detector.deadline(),
            State::Established(session) => session.session.deadline(),
        };
        match &self.placement {
            None => deadline,
            Some(placement) => deadline.into_iter().chain(placement.deadline()).min(),
        }
    }

    /// Handles all that is due at `now`.
    pub fn on_timeout(&mut self, now: Instant, out: &mut dyn OutputSink) {
        self.run(now, out, |state, out| match state {
            State::Detecting(detector) => detector.on_timeout(now, out),
            State::Established(session) => session.session.poll(now, out),
        });
    }

    /// Returns true if the client has to send the first frame, and has not yet.
    pub(crate) fn awaits_first_frame(&self) -> bool {
        matches!(&self.state, State::Detecting(detector) if detector.awaits_first_frame())
    }

    /// Returns the close frame for a reason in the client's dialect, as far as that is known.
    pub fn close(&self, reason: &Reason) -> Close {
        match &self.state {
            State::Detecting(detector) => detector.close(reason),
            State::Established(session) => session.session.close(reason),
        }
    }

    /// Returns the releases that the client may speak.
    #[cfg(test)]
    pub(crate) fn candidates(&self) -> crate::protocol::dialect::ReleaseSet {
        match &self.state {
            State::Detecting(detector) => detector.candidates(),
            State::Established(session) => session.candidates().releases,
        }
    }

    /// Returns true if nothing is left to detect.
    #[cfg(test)]
    pub(super) fn is_established(&self) -> bool {
        self.state.is_certain()
    }

    /// Handles one input; what is put out passes the placement, if there is one.
    fn run(
        &mut self,
        now: Instant,
        out: &mut dyn OutputSink,
        handle: impl FnOnce(&mut State, &mut dyn OutputSink),
    ) {
        let was_certain = self.state.is_certain();
        let mut filter;
        let sink: &mut dyn OutputSink = match &mut self.placement {
            None => out,
            Some(placement) => {
                filter = placement.filter(now, out);
                &mut filter
            }
        };
        handle(&mut self.state, sink);
        if let Some(placement) = &mut self.placement {
            let changes = placement.settle(now, out);
            match &mut self.state {
                State::Detecting(detector) => {
                    if changes.held {
                        detector.ask_identity(out);
                    }
                    if changes.left {
                        detector.forget_replay();
                    }
                }
                State::Established(session) if changes.held && !was_certain => session.ask_identity(out),
                State::Established(_) => {}
            }
        }
        if let State::Detecting(detector) = &mut self.state
            && let Some(session) = detector.take_session()
        {
            self.state = State::Established(session);
        }
    }
}
