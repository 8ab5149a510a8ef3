//! TLS connections whose clients are charged for what cannot be decrypted yet: a record that was begun, or a
//! message of the handshake that goes over several.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use crate::server::clock;
use crate::server::memory::{BudgetExhausted, MemoryBudget, MemoryCharge};
use crate::server::telemetry::{LimitKind, Telemetry};

/// Longest time from the first byte of a record to its last. It is looked at whenever the connection is: at
/// the latest when it is pinged, or an event stream gets its next comment.
const RECORD_TIMEOUT: Duration = Duration::from_secs(30);

/// Number of bytes by which `rustls` enlarges its buffer for what it receives; one of that size is always
/// there.
const READ_SIZE: usize = 4 * 1024;

/// Number of bytes that `rustls` keeps at most before it gives up: a message of the handshake.
const MAX_RECEIVED: usize = 64 * 1024;

/// Number of encrypted bytes that may wait for a client that does not read.
const MAX_UNSENT: usize = 16 * 1024;

/// A connection below TLS, which counts what it receives.
#[derive(Debug)]
pub(crate) struct CountedStream<S> {
    stream: S,
    /// Number of bytes that were received since something was decrypted.
    received: usize,
}

impl<S> CountedStream<S> {
    pub(crate) fn new(stream: S) -> Self {
        CountedStream { stream, received: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.received = self.received.saturating_add(buffer.filled().len().saturating_sub(before));
        read
    }
}

/// Writes to a stream of a field.
macro_rules! delegate_write {
    () => {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write(context, bytes)
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            parts: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write_vectored(context, parts)
        }

        fn is_write_vectored(&self) -> bool {
            self.stream.is_write_vectored()
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(context)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(context)
        }
    };
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountedStream<S> {
    delegate_write!();
}

/// A TLS connection whose client is charged for what cannot be decrypted yet.
pub(crate) struct ChargedStream<S> {
    stream: TlsStream<CountedStream<S>>,
    undecrypted: Undecrypted,
    telemetry: Arc<Telemetry>,
}

impl<S: fmt::Debug> fmt::Debug for ChargedStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChargedStream").field(&self.stream.get_ref().0.stream).finish()
    }
}

impl<S> ChargedStream<S> {
    /// Returns a connection whose handshake is over.
    pub(crate) fn new(
        mut stream: TlsStream<CountedStream<S>>,
        memory: &Arc<MemoryBudget>,
        telemetry: &Arc<Telemetry>,
    ) -> Self {
        let (below, session) = stream.get_mut();
        below.received = 0;
        session.set_buffer_limit(Some(MAX_UNSENT));
        let undecrypted = Undecrypted { charge: memory.empty_charge(), begun: None };
        ChargedStream { stream, undecrypted, telemetry: Arc::clone(telemetry) }
    }

    /// Charges for what is not decrypted after a read. `decrypted` is true if the read had a result: what
    /// follows in the buffer is less than one read of it.
    fn account(&mut self, decrypted: bool) -> io::Result<()> {
        let received = &mut self.stream.get_mut().0.received;
        if decrypted {
            *received = 0;
        }
        let received = *received;
        self.undecrypted.update(received, clock::now()).map_err(|kind| {
            self.telemetry.count_limit(kind);
            let is_late = kind == LimitKind::MessageTimeout;
            if is_late { io::ErrorKind::TimedOut } else { io::ErrorKind::OutOfMemory }.into()
        })
    }
}

/// The charge for what was received and not decrypted.
struct Undecrypted {
    charge: MemoryCharge,
    /// Time since which there is something.
    begun: Option<Instant>,
}

impl Undecrypted {
    /// Takes note of the number of bytes that were received since something was decrypted.
    ///
    /// # Errors
    /// The limit that they exceed.
    fn update(&mut self, received: usize, now: Instant) -> Result<(), LimitKind> {
        let held = match received {
            0 => 0,
            _ => received.min(MAX_RECEIVED).next_multiple_of(READ_SIZE) + READ_SIZE,
        };
        if held != self.charge.bytes() {
            self.charge.resize(held).map_err(|BudgetExhausted| LimitKind::Memory)?;
        }
        if held == 0 {
            self.begun = None;
            return Ok(());
        }
        let begun = *self.begun.get_or_insert(now);
        match now.saturating_duration_since(begun) < RECORD_TIMEOUT {
            true => Ok(()),
            false => Err(LimitKind::MessageTimeout),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ChargedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.account(read.is_ready())?;
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ChargedStream<S> {
    delegate_write!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_charged_as_it_arrives_and_has_a_deadline() {
        let (start, budget) = (Instant::now(), MemoryBudget::new(3 * MAX_RECEIVED));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut record = Undecrypted { charge: budget.empty_charge(), begun: None };
        for (received, held) in [(1, 8 << 10), (16_640, 24 << 10), (1 << 20, 68 << 10), (0, 0)] {
            assert_eq!((record.update(received, start), budget.used()), (Ok(()), held), "{received}");
        }
        assert_eq!((record.update(100, at(0)), record.update(200, at(29))), (Ok(()), Ok(())));
        assert_eq!(record.update(200, at(30)), Err(LimitKind::MessageTimeout));
        // The next record has its own time.
        assert_eq!((record.update(0, at(30)), record.update(1, at(59))), (Ok(()), Ok(())));
        let mut others = budget.empty_charge();
        others.resize(budget.limit() - budget.used()).unwrap();
        assert_eq!(record.update(5_000, at(59)), Err(LimitKind::Memory));
    }
}
