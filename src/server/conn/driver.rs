//! Task of one connection: waits for events, and executes the protocol's outputs. It knows no protocol.

mod closing;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::Instant;

use smallvec::SmallVec;
use tracing::Span;

use super::held::{HeldBytes, HeldTimeout, TurnSummary};
use super::identity::{AdmittedClient, CloseTrigger, EndCause, connection_span};
use super::keepalive::{PingDue, PingTimer};
use super::shared::Shared;
use super::timers::{CoarseTime, NEVER, Tick};
use crate::protocol::detect::{ConnectionProtocol, Policy};
use crate::protocol::dialect::{Dialect, Output, UpgradeRequest};
use crate::protocol::frame::Outgoing;
use crate::protocol::model::{Event, Reason};
use crate::server::clock;
use crate::server::hub::{Membership, Outbox, Overflow};
use crate::server::memory::BudgetExhausted;
use crate::server::telemetry::ConnectionGuard;
use crate::server::transport::{Incoming, Transport, TransportLoad};
use crate::server::turn::{Turn, resume_later};

/// Cost of a command that enters a room, in frames: a search among the members, two links changed, and
/// another task woken.
const FRAMES_OF_ENTRY: usize = 8;

/// The outputs of one turn, on the stack: rarely more than a few.
type Outputs = SmallVec<[Output; 4]>;

/// Reason for which the task woke.
enum Wake {
    /// Rooms have events for the client.
    Events,
    /// Too much waits for the client.
    SlowConsumer,
    /// A deadline may have passed, or the shutdown begun.
    Timer,
    /// Something arrived from the client.
    Incoming(Incoming),
    /// Sending failed.
    IoError(std::io::Error),
}

/// The connection, as long as it lasts. Its task is this and little else, which is most of the memory of an
/// idle member.
struct Driver<T, G> {
    // In the order in which they are dropped: others learn that the peer has left before anything else
    // happens.
    membership: Membership,
    telemetry: ConnectionGuard,
    protocol: ConnectionProtocol,
    ping_timer: PingTimer,
    /// Time of the upgrade.
    opened: CoarseTime,
    /// The tick for which the timer queue has an entry.
    armed_at: Tick,
    /// True if something waits to be sent.
    flushing: bool,
    /// Dialect of the client, once it is recognised.
    dialect: Option<Dialect>,
    /// Present while the client makes the server hold something.
    held: Option<Box<HeldBytes>>,
    transport: T,
    /// The connection's span, if it is enabled.
    span: Option<Box<Span>>,
    shared: Arc<Shared>,
    _guard: G,
}

/// The future of one connection.
enum ConnectionTask<T, G> {
    Running(Driver<T, G>),
    /// The close handshake. Boxed: the memory for it should not be part of every idle connection's task.
    Closing(Pin<Box<dyn Future<Output = ()> + Send>>),
    Ended,
}

/// Runs one connection until it is over. The first outputs of its protocol are executed at once, and the
/// others while the future is polled. `policy` picks what the client may speak: all of the shared policy, or
/// a part of it. `guard` is dropped at the very end. A panic ends the connection, and nothing else.
///
/// Not an `async fn`, and no `async` block: the task would have room for the arguments and for what the end
/// needs next to the driver.
pub fn run<T: Transport + Send + 'static, G: Send + 'static>(
    transport: T,
    client: impl Into<AdmittedClient>,
    upgrade: UpgradeRequest,
    policy: impl FnOnce(&Shared) -> Arc<Policy>,
    shared: Arc<Shared>,
    guard: G,
) -> impl Future<Output = ()> + Send {
    let AdmittedClient { endpoint, grant } = client.into();
    let membership = shared.hub.register(Outbox::new(shared.limits.max_pending)).with_grant(grant);
    let telemetry = shared.telemetry.register(membership.peer());
    let span = connection_span(membership.peer(), endpoint, T::KIND, shared.log_ip.get());
    let now = clock::now();
    let mut outputs = Outputs::new();
    let mut driver = Driver {
        protocol: ConnectionProtocol::open(&policy(&shared), upgrade, now, &mut outputs),
        ping_timer: T::KEEPALIVE.map_or_else(
            || PingTimer::new(shared.limits.ping_after, now),
            |every| PingTimer::unanswered(every, now),
        ),
        opened: CoarseTime::now(&shared.timers),
        armed_at: NEVER,
        // The transport may have been created with bytes to send.
        flushing: true,
        dialect: None,
        held: None,
        membership,
        telemetry,
        transport,
        span: (!span.is_disabled()).then(|| Box::new(span)),
        shared,
        _guard: guard,
    };
    let cause = driver.execute(&mut outputs, CloseTrigger::Dialect, &mut Turn::default());
    let cause = cause.or_else(|| driver.close_if_refused());
    let mut task = match cause {
        None => ConnectionTask::Running(driver),
        Some(cause) => driver.end(&cause),
    };
    poll_fn(move |context| task.poll(context))
}

impl<T: Transport + Send + 'static, G: Send + 'static> ConnectionTask<T, G> {
    fn poll(&mut self, context: &mut task::Context<'_>) -> Poll<()> {
        if let ConnectionTask::Running(driver) = self {
            let cause = ready!(driver.poll(context));
            if let ConnectionTask::Running(driver) = std::mem::replace(self, ConnectionTask::Ended) {
                *self = driver.end(&cause);
            }
        }
        match self {
            ConnectionTask::Closing(closing) => closing.as_mut().poll(context),
            ConnectionTask::Running(_) | ConnectionTask::Ended => Poll::Ready(()),
        }
    }
}

impl<T: Transport + Send + 'static, G: Send + 'static> Driver<T, G> {
    /// Logs the end and leaves the rooms. Returns the rest of the task: the close handshake.
    fn end(mut self, cause: &EndCause) -> ConnectionTask<T, G> {
        self.log_end(cause);
        let Driver { membership, telemetry, transport, held, _guard: guard, .. } = self;
        // The peers are notified now, not when the client has disconnected.
        drop((membership, telemetry));
        if matches!(cause, EndCause::Panicked) {
            return ConnectionTask::Ended;
        }
        let closed = cause.is_server_close();
        ConnectionTask::Closing(Box::pin(async move {
            transport.finish(closed).await;
            drop((held, guard));
        }))
    }
}

impl<T: Transport, G> Driver<T, G> {
    /// Polls the connection; ready with the cause of its end.
    fn poll(&mut self, context: &mut task::Context<'_>) -> Poll<EndCause> {
        // Unwind safe: after a panic, nothing of the driver is used but what its parts' drops clean up.
        let turn = AssertUnwindSafe(|| match self.span.take() {
            None => self.poll_turn(context),
            Some(span) => {
                let turn = span.in_scope(|| self.poll_turn(context));
                self.span = Some(span);
                turn
            }
        });
        catch_unwind(turn).unwrap_or(Poll::Ready(EndCause::Panicked))
    }

    fn poll_turn(&mut self, context: &mut task::Context<'_>) -> Poll<EndCause> {
        let mut outputs = Outputs::new();
        let mut events = VecDeque::new();
        let (mut turn, mut completed) = (Turn::default(), false);
        // Read once a turn, which is short: what has arrived since would still have to wait if it had arrived
        // before.
        let now = clock::now();
        loop {
            let Poll::Ready(wake) = self.poll_wake(context, &mut events, &turn, now) else {
                if let Some(cause) = self.account(completed, now) {
                    return Poll::Ready(cause);
                }
                let draining = self.shared.shutdown.is_draining();
                // Not in each round: the deadlines move with every message.
                if self.arm() && self.shared.shutdown.has_advanced(draining) {
                    // The connection may have been too late to be notified.
                    self.membership.outbox().notify();
                    continue;
                }
                return Poll::Pending;
            };
            let mut trigger = CloseTrigger::Dialect;
            match &wake {
                Wake::Events => turn.spend(events.len(), 0),
                Wake::Incoming(incoming) => {
                    incoming.spend(&mut turn);
                    completed |= matches!(incoming, Incoming::Message(_));
                }
                Wake::SlowConsumer | Wake::Timer | Wake::IoError(_) => turn.spend(1, 0),
            }
            let mut cause = self.handle(wake, &mut events, now, &mut outputs, &mut trigger);
            // After any wake-up: a client that never stops sending must not keep deadlines from passing.
            if cause.is_none() && self.deadline() <= now {
                let is_silent = self.protocol.awaits_first_frame();
                self.protocol.on_timeout(now, &mut outputs);
                if is_silent && outputs.iter().any(|output| output.close_code().is_some()) {
                    trigger = CloseTrigger::FirstFrameTimeout;
                }
                match self.ping_timer.poll(now) {
                    None => {}
                    Some(PingDue::SendPing) => outputs.push(Output::Ping),
                    Some(PingDue::TimedOut) => cause = Some(EndCause::PingTimeout),
                }
                self.membership.on_timeout(now);
                let stall_timeout = self.shared.limits.stall_timeout;
                match self.held.as_ref().and_then(|held| held.timeout(now, stall_timeout)) {
                    None => {}
                    Some(HeldTimeout::Message) => {
                        trigger = CloseTrigger::MessageTimeout;
                        self.close(&Reason::MessageTimeout, &mut outputs);
                    }
                    Some(HeldTimeout::Write) => {
                        trigger = CloseTrigger::SlowConsumer;
                        self.close(&Reason::SlowConsumer, &mut outputs);
                    }
                }
            }
            if let Some(cause) = cause.or_else(|| self.execute(&mut outputs, trigger, &mut turn)) {
                return Poll::Ready(cause);
            }
            if let Some(cause) = self.close_if_refused() {
                return Poll::Ready(cause);
            }
        }
    }

    /// Waits for the next wake-up. The order guarantees that a client that receives the answer to a ping has
    /// received all that was sent before.
    fn poll_wake(
        &mut self,
        context: &mut task::Context<'_>,
        events: &mut VecDeque<Event>,
        turn: &Turn,
        now: Instant,
    ) -> Poll<Wake> {
        // Queued output is sent first.
        if self.flushing {
            match self.transport.poll_flush(context) {
                Poll::Ready(Ok(())) => self.flushing = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Wake::IoError(error)),
                Poll::Pending => {}
            }
        }
        if turn.is_over() {
            resume_later(context);
            return Poll::Pending;
        }
        // Then events of the rooms. While the client does not take what was sent, nothing more is encoded for
        // it; what waits is bounded. Its frames are still read, as it may be a slow one that answers
        // questions.
        let outbox = self.membership.outbox();
        let waits = if outbox.is_reader_parked() {
            Poll::Pending
        } else if self.flushing {
            outbox.poll_overflow(context)
        } else {
            outbox.poll_take(context, events)
        };
        match waits {
            Poll::Ready(Ok(())) if events.is_empty() => return Poll::Ready(Wake::Timer),
            Poll::Ready(Ok(())) => return Poll::Ready(Wake::Events),
            Poll::Ready(Err(Overflow)) => return Poll::Ready(Wake::SlowConsumer),
            Poll::Pending => {}
        }
        // Last the client's next frame, unless it makes the server send more than it or others take.
        if self.transport.is_congested() || self.membership.is_paused(now) {
            return Poll::Pending;
        }
        self.transport.poll_next(context).map(Wake::Incoming)
    }

    /// Handles a wake-up. Returns the cause of the end, if it is one.
    fn handle(
        &mut self,
        wake: Wake,
        events: &mut VecDeque<Event>,
        now: Instant,
        outputs: &mut Outputs,
        trigger: &mut CloseTrigger,
    ) -> Option<EndCause> {
        match wake {
            Wake::Events => {
                if let Some(activity) = &self.shared.activity {
                    let still_queued = self.membership.outbox().queued_bytes();
                    activity.count_events(self.membership.peer(), self.dialect, events, still_queued);
                }
                while let Some(event) = events.pop_front() {
                    self.protocol.on_event(event, now, outputs);
                }
                Outbox::recycle(std::mem::take(events));
            }
            Wake::Incoming(incoming) => {
                // A begun message is no activity: the rest may never arrive.
                if !matches!(incoming, Incoming::Partial) {
                    self.ping_timer.on_activity(now);
                }
                match incoming {
                    Incoming::Message(message) => {
                        self.membership.count_message(message.len(), now);
                        self.protocol.on_message(message, now, outputs);
                    }
                    Incoming::Ping => {
                        self.membership.count_control_frame(now);
                        self.flushing = true;
                    }
                    Incoming::Partial => {}
                    Incoming::Pong => {
                        self.membership.count_control_frame(now);
                        self.protocol.on_pong(now);
                    }
                    Incoming::MessageTooBig => {
                        *trigger = CloseTrigger::MessageTooBig;
                        self.close(&Reason::MessageTooBig, outputs);
                    }
                    Incoming::ProtocolError(close) => {
                        *trigger = CloseTrigger::ProtocolError;
                        outputs.push(Output::Send(close.into()));
                    }
                    Incoming::Closed(code) => {
                        self.membership.leave(code == Some(1000));
                        return Some(EndCause::ClientClosed(code));
                    }
                    Incoming::Disconnected => {
                        return Some(
                            self.transport.take_error().map_or(EndCause::Disconnected, EndCause::Io),
                        );
                    }
                }
            }
            Wake::Timer if self.must_close(now) => {
                *trigger = CloseTrigger::Shutdown;
                self.close(&Reason::ShuttingDown, outputs);
            }
            Wake::Timer if self.must_shed() => {
                return Some(self.close_at_once(CloseTrigger::MemoryLimit, &Reason::Overloaded));
            }
            Wake::Timer => {
                self.membership.resume();
                self.disarm();
            }
            Wake::SlowConsumer => {
                *trigger = CloseTrigger::SlowConsumer;
                self.close(&Reason::SlowConsumer, outputs);
            }
            Wake::IoError(error) => return Some(EndCause::Io(error)),
        }
        None
    }

    /// Records what the client makes the server hold. Returns the cause of the end, if it is too much.
    fn account(&mut self, completed: bool, now: Instant) -> Option<EndCause> {
        let load = self.transport.take_load();
        if load == TransportLoad::default() {
            self.held = None;
            return None;
        }
        let paused = self.transport.is_congested() || self.membership.is_paused(now);
        let held = self.held.get_or_insert_with(|| Box::new(HeldBytes::new(&self.shared.memory)));
        match held.update(load, TurnSummary { completed, paused }, now) {
            Ok(()) => None,
            Err(BudgetExhausted) => Some(self.close_at_once(CloseTrigger::MemoryLimit, &Reason::Overloaded)),
        }
    }

    /// Executes the outputs. Returns the cause of the end, if it is one.
    fn execute(&mut self, outputs: &mut Outputs, trigger: CloseTrigger, turn: &mut Turn) -> Option<EndCause> {
        for output in outputs.drain(..) {
            match output {
                Output::Send(outgoing) => {
                    let end = match &outgoing {
                        Outgoing::Close(close) => (trigger.refined(close), close.code),
                        Outgoing::Message(_) | Outgoing::Prefixed(..) => (trigger, None),
                    };
                    match self.transport.queue(outgoing) {
                        Ok(false) => self.flushing = true,
                        Ok(true) => return Some(EndCause::ServerClosed(end.0, end.1)),
                        Err(error) => return Some(EndCause::Io(error)),
                    }
                }
                Output::Ping => {
                    if let Err(error) = self.transport.queue_ping() {
                        return Some(EndCause::Io(error));
                    }
                    self.flushing = true;
                }
                Output::Enter(key, command) => {
                    turn.spend(FRAMES_OF_ENTRY, 0);
                    self.membership.enter(&self.shared.policy.room_key(key), command);
                }
                Output::Ask(command) => {
                    self.membership.command(command);
                }
                Output::Leave => self.membership.leave(false),
                Output::Mixed(link, other) => {
                    if self.membership.mark_mixed(link) {
                        self.telemetry.count_mixed_room();
                        tracing::warn!(
                            id = self.membership.peer().0,
                            %other,
                            "clients of different generations are in one room: their data channels will not \
                             understand one another (see --rooms by-generation)"
                        );
                    }
                }
                Output::Recognised(releases, evidence) => {
                    let name = evidence.name();
                    let id = self.membership.peer().0;
                    tracing::debug!(id, %releases, evidence = name, "recognised");
                    Span::current().record("dialect", tracing::field::display(releases));
                    let dialect = self.telemetry.set_recognition(releases, evidence);
                    if self.dialect.replace(dialect) != Some(dialect)
                        && let Some(activity) = &self.shared.activity
                    {
                        activity.count_recognition(evidence, self.opened.elapsed(&self.shared.timers));
                    }
                }
            }
        }
        None
    }

    /// Returns when something is due.
    fn deadline(&self) -> Instant {
        let mut first = self.ping_timer.deadline();
        let others = [self.protocol.deadline(), self.membership.deadline(), self.held_deadline()];
        for deadline in others.into_iter().flatten() {
            first = first.min(deadline);
        }
        first
    }

    fn held_deadline(&self) -> Option<Instant> {
        self.held.as_ref()?.deadline(self.shared.limits.stall_timeout)
    }

    /// Makes sure that the task is woken in time. It may be woken too early: a deadline moves with every
    /// message, and the entry in the timer queue only when it has fired. Returns true if the entry changed.
    fn arm(&mut self) -> bool {
        let timers = &self.shared.timers;
        let (deadline, close_at) = (self.deadline(), self.close_at());
        let tick = timers.tick(close_at.map_or(deadline, |at| at.min(deadline)));
        let sooner = tick < self.armed_at;
        if sooner {
            timers.schedule(self.membership.peer(), self.armed_at, tick, self.membership.outbox());
            self.armed_at = tick;
        }
        sooner
    }

    fn disarm(&mut self) {
        let at = std::mem::replace(&mut self.armed_at, NEVER);
        self.shared.timers.cancel(self.membership.peer(), at);
    }
}

#[cfg(test)]
pub(super) fn size_of_websocket_task() -> usize {
    use crate::server::transport::ws::Socket;
    // The guard is a box.
    size_of::<ConnectionTask<Socket<tokio::net::TcpStream>, Box<()>>>()
}
