//! The task of one connection: it waits, and does what the conversation says. No protocol lives here.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{self, Poll};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::keepalive::{PingDue, PingTimer};
use super::timers::{NEVER, Tick, TimerQueue};
use crate::config::Config;
use crate::protocol::detect::{ConnectionProtocol, Policy};
use crate::protocol::dialect::{Output, UpgradeRequest};
use crate::protocol::frame::{Close, Outgoing};
use crate::protocol::model::{Event, Reason};
use crate::server::hub::{Hub, Membership, Outbox, Overflow};
use crate::server::scratch;
use crate::server::telemetry::{ConnectionGuard, Telemetry};
use crate::server::transport::{Incoming, Transport};

/// What all connections share.
#[derive(Debug)]
pub struct Context {
    /// The rooms.
    pub hub: Arc<Hub>,
    /// Who speaks what.
    pub telemetry: Arc<Telemetry>,
    /// What clients may speak.
    pub policy: Arc<Policy>,
    /// How many bytes may wait for a client that reads too slowly, before it is closed.
    pub max_pending: usize,
    /// After how long without a word a client is asked whether it is there; after twice as long it is gone.
    pub idle: Duration,
    /// Set once, when the server stops.
    pub stopping: AtomicBool,
    /// Wakes whatever waits for the server to stop, but connections that are driven: they are rung.
    pub stop: Notify,
    /// Wakes connections when their time comes.
    pub alarm: TimerQueue,
}

impl Context {
    /// Returns the state of a server without connections.
    pub fn new(config: &Config) -> Self {
        Context {
            hub: Hub::new(),
            telemetry: Telemetry::new(),
            policy: Arc::new(config.policy()),
            max_pending: config.max_pending,
            idle: config.ping_after,
            stopping: AtomicBool::new(false),
            stop: Notify::new(),
            alarm: TimerQueue::default(),
        }
    }

    /// Ready when the server stops, also if it does already.
    pub async fn stopped(&self) {
        let mut stop = pin!(self.stop.notified());
        stop.as_mut().enable();
        // Looked at after we can be woken: a stop in between is not missed.
        if !self.stopping.load(Ordering::Acquire) {
            stop.await;
        }
    }
}

/// How long a peer has to take notice of a close frame.
const CLOSING: Duration = Duration::from_secs(3);

/// What woke the task. In the order in which it is looked for: what the rooms say goes out before the peer's own
/// next word is read, so that a peer who gets an answer to a ping has got all that was sent to it before.
enum Wake {
    Stop,
    Events,
    SlowConsumer,
    /// The time may have come.
    Timer,
    Incoming(Incoming),
    IoError,
}

/// What there is of one connection while it lasts. Its task is this and little else, which is most of what an idle
/// member takes.
struct Driver<T, G> {
    // In the order in which they are dropped: others are told that the peer is gone before anything else.
    seat: Membership,
    counted: ConnectionGuard,
    conversation: ConnectionProtocol,
    idle: PingTimer,
    /// When it is rung, if it will be.
    rings: Tick,
    /// It was over at once: whether we closed it.
    over: Option<bool>,
    /// Something waits to be sent.
    flushing: bool,
    socket: T,
    context: Arc<Context>,
    _guard: G,
}

/// Drives one connection until it is over. What its conversation begins with is done at once, and what follows while the
/// future is polled. Its client may speak what `policy` picks: all that the context's policy
/// has, or a part of it. `guard` is dropped when it is all over. The future is to be polled by the same task from its
/// beginning to its end.
///
/// No `async fn`, and with everything in one place: the task would have room for the arguments beside what is made of
/// them (0.1 kB).
pub fn drive<T: Transport + Send, G: Send>(
    socket: T,
    upgrade: UpgradeRequest,
    policy: impl FnOnce(&Context) -> Arc<Policy>,
    context: Arc<Context>,
    guard: G,
) -> impl Future<Output = ()> + Send {
    let outbox = Outbox::new(context.max_pending);
    let seat = context.hub.register(outbox);
    let counted = context.telemetry.register(seat.peer());
    let mut steps = scratch::with(|scratch| scratch.outputs.take());
    let now = Instant::now();
    let mut driver = Driver {
        conversation: ConnectionProtocol::open(&policy(&context), upgrade, now, &mut steps),
        idle: T::KEEPALIVE
            .map_or_else(|| PingTimer::new(context.idle, now), |every| PingTimer::beat(every, now)),
        rings: NEVER,
        over: None,
        // What the socket was made with may have to be sent, whatever is said first.
        flushing: true,
        seat,
        counted,
        socket,
        context,
        _guard: guard,
    };
    driver.over = driver.perform(&mut steps);
    scratch::with(|scratch| scratch.outputs.replace(steps));
    async move {
        let closed = poll_fn(|context| driver.poll(context)).await;
        driver.clear_alarm();
        let Driver { seat, counted, mut socket, _guard: guard, .. } = driver;
        // Others are told now, not when the peer has hung up.
        drop((seat, counted));
        // Boxed: what the end needs should not weigh on every idle connection's task (0.6 kB).
        Box::pin(async move {
            socket.close_gracefully(closed, CLOSING).await;
            if closed {
                socket.drain(CLOSING).await;
            }
            drop(guard);
        })
        .await;
    }
}

impl<T: Transport, G> Driver<T, G> {
    /// Ready when it is over: whether we closed it.
    fn poll(&mut self, context: &mut task::Context<'_>) -> Poll<bool> {
        if let Some(closed) = self.over {
            return Poll::Ready(closed);
        }
        let mut steps = scratch::with(|scratch| scratch.outputs.take());
        let over = self.poll_steps(context, &mut steps);
        // Kept by the thread: 0.3 kB that an idle connection need not have, and a busy one need not allocate.
        steps.clear();
        scratch::with(|scratch| scratch.outputs.replace(steps));
        over
    }

    fn poll_steps(&mut self, context: &mut task::Context<'_>, steps: &mut Vec<Output>) -> Poll<bool> {
        let mut events = VecDeque::new();
        // Read once a turn, which is short: what has come since would still have to wait if it had come before.
        let now = Instant::now();
        loop {
            let Poll::Ready(wake) = self.poll_wake(context, &mut events) else {
                // Not in each round: its deadlines move with every message (160 instructions less for each).
                if self.set_alarm() && self.context.stopping.load(Ordering::Acquire) {
                    // It may have been too late to be rung.
                    continue;
                }
                return Poll::Pending;
            };
            let mut over = self.act_on(wake, std::mem::take(&mut events), now, steps);
            // Whatever woke us: a peer that never stops sending must not keep the time from passing.
            if over.is_none() && self.deadline() <= now {
                self.conversation.on_timeout(now, steps);
                match self.idle.poll(now) {
                    None => {}
                    Some(PingDue::SendPing) => steps.push(Output::Ping),
                    Some(PingDue::TimedOut) => over = Some(false),
                }
            }
            if let Some(closed) = over.or_else(|| self.perform(steps)) {
                return Poll::Ready(closed);
            }
        }
    }

    /// When something is due.
    fn deadline(&self) -> Instant {
        let idle = self.idle.deadline();
        self.conversation.deadline().map_or(idle, |at| at.min(idle))
    }

    /// Sees to it that it is rung in time. It may be rung too early: a deadline is put off with every message, and the
    /// alarm only when it has rung. Whether it was set anew.
    fn set_alarm(&mut self) -> bool {
        let alarm = &self.context.alarm;
        let moment = alarm.moment(self.deadline());
        let sooner = moment < self.rings;
        if sooner {
            alarm.set(self.seat.peer(), self.rings, moment, self.seat.outbox());
            self.rings = moment;
        }
        sooner
    }

    fn clear_alarm(&mut self) {
        self.context.alarm.clear(self.seat.peer(), std::mem::replace(&mut self.rings, NEVER));
    }

    fn poll_wake(&mut self, context: &mut task::Context<'_>, events: &mut VecDeque<Event>) -> Poll<Wake> {
        if self.context.stopping.load(Ordering::Acquire) {
            return Poll::Ready(Wake::Stop);
        }
        if self.flushing {
            match self.socket.poll_flush(context) {
                Poll::Ready(Ok(())) => self.flushing = false,
                Poll::Ready(Err(_)) => return Poll::Ready(Wake::IoError),
                Poll::Pending => {}
            }
        }
        // While the peer does not take what was sent, nothing more is encoded for it; what waits is priced and
        // bounded. It is still heard, as it may be a slow one that answers our questions meanwhile.
        let outbox = self.seat.outbox();
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
        if self.socket.is_congested() {
            return Poll::Pending;
        }
        self.socket.poll_next(context).map(Wake::Incoming)
    }

    /// What follows from what woke us. If it is over: whether we closed it.
    fn act_on(
        &mut self,
        wake: Wake,
        mut events: VecDeque<Event>,
        now: Instant,
        steps: &mut Vec<Output>,
    ) -> Option<bool> {
        match wake {
            Wake::Events => {
                events.drain(..).for_each(|event| self.conversation.on_event(event, now, steps));
                Outbox::recycle(events);
            }
            Wake::Incoming(incoming) => {
                self.idle.heard(now);
                match incoming {
                    Incoming::Message(message) => self.conversation.on_message(message, now, steps),
                    Incoming::Ping => self.flushing = true,
                    Incoming::Pong => self.conversation.on_pong(now),
                    Incoming::MessageTooBig => steps.push(close(&self.conversation, &Reason::MessageTooBig)),
                    Incoming::ProtocolError(close) => steps.push(Output::Send(close.into())),
                    Incoming::Closed(code) => {
                        self.seat.leave(code == Some(1000));
                        return Some(false);
                    }
                    Incoming::Disconnected => return Some(false),
                }
            }
            Wake::Timer => self.clear_alarm(),
            Wake::SlowConsumer => {
                tracing::info!(
                    peer = self.seat.peer().0,
                    "closing a client that does not read what it is sent"
                );
                steps.push(close(&self.conversation, &Reason::SlowConsumer));
            }
            Wake::Stop => steps.push(close(&self.conversation, &Reason::ShuttingDown)),
            Wake::IoError => return Some(false),
        }
        None
    }

    /// Does what the conversation says. If it is over: whether we closed it.
    fn perform(&mut self, steps: &mut Vec<Output>) -> Option<bool> {
        for step in steps.drain(..) {
            match step {
                Output::Send(outgoing) => {
                    if let Outgoing::Close(close) = &outgoing {
                        let Close { code, reason } = close;
                        tracing::debug!(peer = self.seat.peer().0, code, %reason, "closing");
                    }
                    match self.socket.queue(outgoing) {
                        Ok(false) => self.flushing = true,
                        Ok(true) => return Some(true),
                        Err(_) => return Some(false),
                    }
                }
                Output::Ping => {
                    if self.socket.queue_ping().is_err() {
                        return Some(false);
                    }
                    self.flushing = true;
                }
                Output::Enter(key, command) => self.seat.enter(&key, command),
                Output::Ask(command) => {
                    self.seat.command(command);
                }
                Output::Leave => self.seat.leave(false),
                Output::Mixed(link, other) => {
                    if self.seat.mark_mixed(link) {
                        self.counted.count_mixed_room();
                        tracing::warn!(
                            peer = self.seat.peer().0,
                            %other,
                            "clients of different generations are in one room: their data channels will not \
                             understand one another (see --rooms by-generation)"
                        );
                    }
                }
                Output::Recognised(releases, evidence) => {
                    let evidence_name = evidence.name();
                    tracing::debug!(peer = self.seat.peer().0, %releases, evidence = evidence_name, "recognised");
                    self.counted.set_recognition(releases, evidence);
                }
            }
        }
        None
    }
}

fn close(conversation: &ConnectionProtocol, reason: &Reason) -> Output {
    Output::Send(conversation.close(reason).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::transport::ws::Socket;
    use tokio::net::TcpStream;
    use tokio::sync::mpsc;

    /// A task of tokio's is as long as this and 112 bytes, rounded up to 128 of them.
    #[test]
    fn what_there_is_of_a_connection_is_small() {
        let size = size_of::<Driver<Socket<TcpStream>, mpsc::Sender<()>>>();
        assert!(size <= 3 * 128 - 112, "{size}");
    }
}
