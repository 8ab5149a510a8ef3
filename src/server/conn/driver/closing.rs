//! The closes of a connection that are not those of its dialect.

use std::time::Instant;

use super::{Driver, Outputs};
use crate::protocol::dialect::Output;
use crate::protocol::model::Reason;
use crate::server::conn::identity::{CloseTrigger, EndCause};
use crate::server::transport::Transport;
use crate::server::turn::Turn;

impl<T: Transport, G> Driver<T, G> {
    /// Closes the connection if the rooms refused something of it. Returns the cause of the end then.
    pub(super) fn close_if_refused(&mut self) -> Option<EndCause> {
        let reason = self.membership.refusal()?.clone();
        Some(self.close_at_once(CloseTrigger::from_refusal(&reason), &reason))
    }

    /// Returns true if the client is among those that hold most while the memory is short.
    pub(super) fn must_shed(&self) -> bool {
        let held = self.held.as_ref().map_or(0, |held| held.bytes());
        let queued = self.membership.outbox().queued_bytes() as usize;
        self.shared.memory.sheds(held.saturating_add(queued))
    }

    /// Closes the connection, and drops what the client has sent.
    pub(super) fn close_at_once(&mut self, trigger: CloseTrigger, reason: &Reason) -> EndCause {
        self.transport.stop_receiving();
        let mut outputs = Outputs::new();
        self.close(reason, &mut outputs);
        let ended = self.execute(&mut outputs, trigger, &mut Turn::default());
        ended.unwrap_or(EndCause::ServerClosed(trigger, None))
    }

    /// Returns true if the shutdown closes this connection now.
    pub(super) fn must_close(&self, now: Instant) -> bool {
        self.shared.shutdown.is_closing() || self.close_at().is_some_and(|at| at <= now)
    }

    /// Returns the time at which the connection is to close, if the drain has begun.
    pub(super) fn close_at(&self) -> Option<Instant> {
        let at = self.shared.shutdown.close_at(self.membership.peer())?;
        (!self.membership.closes_with_room()).then_some(at)
    }

    pub(super) fn close(&self, reason: &Reason, outputs: &mut Outputs) {
        outputs.push(Output::Send(self.protocol.close(reason).into()));
    }

    /// Notes and logs the end of the connection.
    pub(super) fn log_end(&mut self, cause: &EndCause) {
        self.disarm();
        let lasted_s = u32::try_from(self.opened.elapsed(&self.shared.timers).as_secs()).unwrap_or(u32::MAX);
        let id = self.membership.peer();
        let count_and_log = || {
            match cause {
                EndCause::Panicked => self.shared.telemetry.count_panic(),
                EndCause::ServerClosed(trigger, _) => {
                    trigger.limit().into_iter().for_each(|kind| self.shared.telemetry.count_limit(kind));
                }
                _ => {}
            }
            cause.log(id, lasted_s);
        };
        if let Some(activity) = &self.shared.activity {
            activity.count_end(cause.side(), cause.name(), self.membership.outbox().queued_bytes());
        }
        match &self.span {
            None => count_and_log(),
            Some(span) => span.in_scope(count_and_log),
        }
    }
}
