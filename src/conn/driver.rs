//! The task of one connection: it waits, and does what the conversation says. No protocol lives here.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::idle::{Due, Idle};
use crate::dialect::Upgrade;
use crate::frame::Frame;
use crate::hub::{Hub, Outbox, Overflow, Seat};
use crate::model::Reason;
use crate::negotiate::{Conversation, Policy, Step};
use crate::signaller::Signaller;
use crate::telemetry::{Connection, Telemetry};
use crate::transport::{Incoming, Transport};

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
    /// The path relay of signallerd, if it is spoken here.
    pub signaller: Option<Arc<Signaller>>,
    /// Set once, when the server stops.
    pub stopping: AtomicBool,
    /// Wakes all connections when the server stops.
    pub stop: Notify,
}

impl Context {
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
    Overflow,
    Incoming(Incoming),
    Broken,
    Time,
}

/// Drives one connection until it is over. Its client may speak what `policy` picks: all that the context's policy
/// has, or a part of it. (A function, so that it takes no room in the task where there is nothing to pick.)
pub async fn drive<T: Transport>(
    mut socket: Box<T>,
    upgrade: Upgrade,
    policy: impl FnOnce(&Context) -> Arc<Policy>,
    context: Arc<Context>,
) {
    let outbox = Outbox::new(context.max_pending);
    let mut seat = context.hub.seat(outbox.clone());
    let counted = context.telemetry.connection(seat.peer());
    let mut steps = Vec::new();
    let now = Instant::now();
    let mut conversation = Conversation::open(&policy(&context), upgrade, now, &mut steps);
    let mut idle = T::BEAT.map_or_else(|| Idle::new(context.idle, now), |every| Idle::beat(every, now));
    let mut events = VecDeque::new();
    let mut stop = pin!(context.stop.notified());
    stop.as_mut().enable();
    let mut flushing = false;
    let mut timer = pin!(tokio::time::sleep_until(now.into()));
    let mut timer_at = now;
    let closed = loop {
        match perform(&mut steps, &mut *socket, &mut seat, &counted) {
            Ok(Progress::Sent) => flushing = true,
            Ok(Progress::Nothing) => {}
            Ok(Progress::Closed) => break true,
            Err(Broken) => break false,
        }
        let deadline = conversation.deadline().map_or(idle.deadline(), |at| at.min(idle.deadline()));
        if deadline != timer_at {
            timer.as_mut().reset(deadline.into());
            timer_at = deadline;
        }
        let wake = poll_fn(|cx| {
            if context.stopping.load(Ordering::Acquire) || stop.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Wake::Stop);
            }
            if flushing {
                match socket.poll_flush(cx) {
                    Poll::Ready(Ok(())) => flushing = false,
                    Poll::Ready(Err(_)) => return Poll::Ready(Wake::Broken),
                    Poll::Pending => {}
                }
            }
            // While the peer does not take what was sent, nothing more is encoded for it; what waits is priced and
            // bounded. It is still heard, as it may be a slow one that answers our questions meanwhile.
            if flushing {
                if outbox.poll_overflow(cx).is_ready() {
                    return Poll::Ready(Wake::Overflow);
                }
            } else {
                match outbox.poll_take(cx, &mut events) {
                    Poll::Ready(Ok(())) => return Poll::Ready(Wake::Events),
                    Poll::Ready(Err(Overflow)) => return Poll::Ready(Wake::Overflow),
                    Poll::Pending => {}
                }
            }
            if !socket.is_congested()
                && let Poll::Ready(incoming) = socket.poll_next(cx)
            {
                return Poll::Ready(Wake::Incoming(incoming));
            }
            timer.as_mut().poll(cx).map(|()| Wake::Time)
        })
        .await;
        let now = Instant::now();
        let close = |reason| vec![Step::Send(Frame::Close(conversation.close(&reason)))];
        match wake {
            // Taken, not drained: an idle connection keeps no memory of a busy moment.
            Wake::Events => std::mem::take(&mut events)
                .into_iter()
                .for_each(|event| conversation.on_event(event, now, &mut steps)),
            Wake::Incoming(incoming) => {
                idle.heard(now);
                match incoming {
                    Incoming::Frame(frame) => conversation.on_frame(&frame, now, &mut steps),
                    Incoming::Ping => flushing = true,
                    Incoming::Pong => conversation.on_pong(now),
                    Incoming::TooBig => steps = close(Reason::TooBig),
                    Incoming::Violation(close) => steps.push(Step::Send(Frame::Close(close))),
                    Incoming::Closed(code) => {
                        seat.leave(code == Some(1000));
                        break false;
                    }
                    Incoming::Gone => break false,
                }
            }
            Wake::Time => {}
            Wake::Overflow => {
                tracing::info!(peer = seat.peer().0, "closing a client that does not read what it is sent");
                steps = close(Reason::TooSlow);
            }
            Wake::Stop => steps = close(Reason::ShuttingDown),
            Wake::Broken => break false,
        }
        // Whatever woke us: a peer that never stops sending must not keep the time from passing.
        if deadline <= now {
            conversation.on_time(now, &mut steps);
            match idle.poll(now) {
                None => {}
                Some(Due::Ping) => steps.push(Step::Ping),
                Some(Due::Dead) => break false,
            }
        }
    };
    // Others are told now, not when the peer has hung up.
    drop((seat, counted));
    // Boxed: what the end needs should not weigh on every idle connection's task (0.6 kB).
    Box::pin(async move {
        socket.farewell(closed, CLOSING).await;
        if closed {
            socket.linger(CLOSING).await;
        }
    })
    .await;
}

enum Progress {
    Nothing,
    Sent,
    Closed,
}

struct Broken;

/// Does what the conversation says.
fn perform<T: Transport>(
    steps: &mut Vec<Step>,
    socket: &mut T,
    seat: &mut Seat,
    counted: &Connection,
) -> Result<Progress, Broken> {
    let mut progress = Progress::Nothing;
    for step in steps.drain(..) {
        match step {
            Step::Send(frame) => {
                let close = match &frame {
                    Frame::Close(close) => Some(close.clone()),
                    Frame::Text(_) | Frame::Binary(_) => None,
                };
                let last = socket.queue(frame).map_err(|_| Broken)?;
                if let Some(close) = close {
                    tracing::debug!(peer = seat.peer().0, code = close.code, reason = %close.reason, last, "closing");
                }
                if last {
                    return Ok(Progress::Closed);
                }
                progress = Progress::Sent;
            }
            Step::Ping => {
                socket.queue_ping().map_err(|_| Broken)?;
                progress = Progress::Sent;
            }
            Step::Enter(key, command) => seat.enter(&key, command),
            Step::Ask(command) => {
                seat.command(command);
            }
            Step::Leave => seat.leave(false),
            Step::Mixed(link, other) => {
                if seat.first_mixed(link) {
                    tracing::warn!(
                        peer = seat.peer().0,
                        %other,
                        "clients of different generations are in one room: their data channels will not \
                         understand one another (see --rooms by-generation)"
                    );
                }
            }
            Step::Recognised(releases, evidence) => {
                tracing::debug!(peer = seat.peer().0, %releases, evidence = evidence.name(), "recognised");
                counted.recognised(releases, evidence);
            }
        }
    }
    Ok(progress)
}
