//! A network within the process: streams with delays, bounded buffers and faults, on the runtime's clock.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::inspector::Inspector;

/// Most bytes on their way in one direction: what the two kernels hold.
const WINDOW: usize = 64 * 1024;

/// Time after which a kernel gives up what is not acknowledged, as the gateway asks it to.
const USER_TIMEOUT: Duration = sigver::server::USER_TIMEOUT;

/// Most bytes of one segment.
const SEGMENT: usize = 1460;

/// Something that goes wrong on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Both ends learn that the connection is broken.
    Reset,
    /// Nothing arrives any more in either direction, and no end learns it.
    HalfOpen,
    /// Nothing arrives at the server any more.
    SilentClient,
}

/// The conditions on the way between a client and the server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    pub delay: Duration,
    /// Most that a segment may take longer.
    pub jitter: Duration,
}

/// One direction of a connection.
#[derive(Debug)]
struct Pipe {
    /// Bytes on their way, and when they arrive: in order.
    segments: VecDeque<(Instant, Vec<u8>)>,
    in_flight: usize,
    link: Link,
    rng: Rng,
    /// Arrival of the end of the stream.
    end: Option<Instant>,
    /// From then on, nothing that is written arrives.
    blackhole: Option<Instant>,
    /// Time of the first bytes that were not acknowledged, for lack of a network.
    unacknowledged: Option<Instant>,
    /// From then on, the connection is broken.
    reset: Option<Instant>,
    reader_closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn new(link: Link, rng: Rng) -> Arc<Mutex<Pipe>> {
        Arc::new(Mutex::new(Pipe {
            segments: VecDeque::new(),
            in_flight: 0,
            link,
            rng,
            end: None,
            blackhole: None,
            unacknowledged: None,
            reset: None,
            reader_closed: false,
            reader: None,
            writer: None,
        }))
    }

    fn has_passed(at: Option<Instant>) -> bool {
        at.is_some_and(|at| at <= Instant::now())
    }

    /// Returns when what is sent now arrives: not before what was sent earlier.
    fn arrival(&mut self) -> Instant {
        let jitter = self.rng.u64(0..=self.link.jitter.as_micros() as u64);
        let arrival = Instant::now() + self.link.delay + Duration::from_micros(jitter);
        self.segments.back().map_or(arrival, |(last, _)| arrival.max(*last))
    }

    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    fn finish(&mut self) {
        if self.end.is_none() && !Pipe::has_passed(self.blackhole) {
            self.end = Some(self.arrival());
            self.wake();
        }
    }
}

/// One end of a connection.
pub struct SimStream {
    receiving: Arc<Mutex<Pipe>>,
    sending: Arc<Mutex<Pipe>>,
    timer: Pin<Box<Sleep>>,
    /// Looks at all that a client receives.
    inspector: Option<Inspector>,
}

impl fmt::Debug for SimStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimStream")
    }
}

/// Access to a connection for the faults of a plan.
#[derive(Clone)]
pub struct Wire {
    to_server: Arc<Mutex<Pipe>>,
    to_client: Arc<Mutex<Pipe>>,
}

impl Wire {
    /// Has a fault happen now.
    pub fn fail(&self, fault: Fault) {
        let now = Some(Instant::now());
        for pipe in [&self.to_server, &self.to_client] {
            let mut pipe = pipe.lock();
            match fault {
                Fault::Reset => pipe.reset = now,
                Fault::HalfOpen => pipe.blackhole = now,
                Fault::SilentClient => {}
            }
            pipe.wake();
        }
        if fault == Fault::SilentClient {
            self.to_server.lock().blackhole = now;
        }
    }
}

/// Returns the client's end of a connection, the server's end, and access for faults.
pub fn connection(link: Link, rng: &mut Rng, inspector: Inspector) -> (SimStream, SimStream, Wire) {
    let (to_server, to_client) = (Pipe::new(link, rng.fork()), Pipe::new(link, rng.fork()));
    let end = |receiving: &Arc<Mutex<Pipe>>, sending: &Arc<Mutex<Pipe>>| SimStream {
        receiving: Arc::clone(receiving),
        sending: Arc::clone(sending),
        timer: Box::pin(sleep_until(Instant::now())),
        inspector: None,
    };
    let mut client = end(&to_client, &to_server);
    client.inspector = Some(inspector);
    (client, end(&to_server, &to_client), Wire { to_server, to_client })
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let now = Instant::now();
        let gives_up_at = self.sending.lock().unacknowledged.map(|since| since + USER_TIMEOUT);
        if Pipe::has_passed(gives_up_at) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let receiving = Arc::clone(&self.receiving);
        let mut pipe = receiving.lock();
        if Pipe::has_passed(pipe.reset) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut taken = 0;
        while buffer.remaining() > 0
            && let Some((arrival, segment)) = pipe.segments.front_mut()
            && *arrival <= now
        {
            let count = segment.len().min(buffer.remaining());
            buffer.put_slice(&segment[..count]);
            if let Some(inspector) = &mut self.inspector {
                inspector.look_at(&segment[..count]);
            }
            segment.drain(..count);
            taken += count;
            if segment.is_empty() {
                pipe.segments.pop_front();
            }
        }
        if taken > 0 {
            pipe.in_flight -= taken;
            pipe.writer.take().into_iter().for_each(Waker::wake);
            return Poll::Ready(Ok(()));
        }
        if pipe.segments.is_empty() && Pipe::has_passed(pipe.end) {
            return Poll::Ready(Ok(()));
        }
        pipe.reader = Some(context.waker().clone());
        let arrival = pipe.segments.front().map(|(arrival, _)| *arrival).or(pipe.end);
        if let Some(next) = arrival.into_iter().chain(gives_up_at).min() {
            drop(pipe);
            self.timer.as_mut().reset(next);
            if self.timer.as_mut().poll(context).is_ready() {
                context.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipe = self.sending.lock();
        if Pipe::has_passed(pipe.reset) || pipe.reader_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(WINDOW - pipe.in_flight).min(SEGMENT);
        if count == 0 && !bytes.is_empty() {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        // Frames arrive in pieces.
        let (split, share) = (pipe.rng.u8(..8) == 0, pipe.rng.f64());
        let count = if split { ((count as f64 * share) as usize).max(1) } else { count };
        pipe.in_flight += count;
        if Pipe::has_passed(pipe.blackhole) {
            if pipe.unacknowledged.is_none() {
                pipe.unacknowledged = Some(Instant::now());
                drop(pipe);
                // It has a timer to set.
                self.receiving.lock().reader.take().into_iter().for_each(Waker::wake);
            }
        } else {
            let arrival = pipe.arrival();
            pipe.segments.push_back((arrival, bytes[..count].to_vec()));
            pipe.reader.take().into_iter().for_each(Waker::wake);
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sending.lock().finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.sending.lock().finish();
        let mut pipe = self.receiving.lock();
        // The other end learns it with its next write, unless the network is dead.
        pipe.reader_closed = !Pipe::has_passed(pipe.blackhole);
        pipe.wake();
    }
}
