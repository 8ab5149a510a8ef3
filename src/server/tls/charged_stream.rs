//! TLS connections whose clients are charged for a record that was begun, which cannot be decrypted before it
//! is whole.

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

/// Number of bytes by which `rustls` enlarges its buffer for what it receives.
const READ_SIZE: usize = 4 * 1024;

/// Length of the header of a record (RFC 8446, section 5.1). The length of the rest is in its last two bytes.
const HEADER: usize = 5;

/// Number of encrypted bytes that may wait for a client that does not read.
const MAX_UNSENT: usize = 16 * 1024;

/// Position in the records of a stream.
#[derive(Debug, Default)]
struct RecordPosition {
    /// The header, as far as it was received.
    header: [u8; HEADER],
    /// Number of bytes of the record that were received; 0 between two records.
    received: usize,
}

impl RecordPosition {
    fn advance(&mut self, mut bytes: &[u8]) {
        while let [first, rest @ ..] = bytes {
            if let Some(byte) = self.header.get_mut(self.received) {
                *byte = *first;
                self.received += 1;
                bytes = rest;
            } else {
                let read = (self.record() - self.received).min(bytes.len());
                self.received += read;
                bytes = bytes.get(read..).unwrap_or_default();
            }
            if self.received >= HEADER && self.received == self.record() {
                self.received = 0;
            }
        }
    }

    /// Returns the length of the record whose header was received.
    fn record(&self) -> usize {
        let [.., high, low] = self.header;
        HEADER + usize::from(u16::from_be_bytes([high, low]))
    }
}

/// A connection below TLS, which counts what it receives of a record.
#[derive(Debug)]
pub(crate) struct CountedStream<S> {
    stream: S,
    position: RecordPosition,
}

impl<S> CountedStream<S> {
    /// Returns a connection of which nothing was read.
    pub(crate) fn new(stream: S) -> Self {
        CountedStream { stream, position: RecordPosition::default() }
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
        self.position.advance(buffer.filled().get(before..).unwrap_or_default());
        read
    }
}

/// Defines the methods of `AsyncWrite` by those of the field `stream`.
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

/// A TLS connection whose client is charged for a record that is not whole yet.
pub(crate) struct ChargedStream<S> {
    stream: TlsStream<CountedStream<S>>,
    begun: BegunRecord,
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
        stream.get_mut().1.set_buffer_limit(Some(MAX_UNSENT));
        let begun = BegunRecord { charge: memory.empty_charge(), since: None };
        ChargedStream { stream, begun, telemetry: Arc::clone(telemetry) }
    }

    /// Charges for the record that was begun.
    fn account(&mut self) -> io::Result<()> {
        let received = self.stream.get_ref().0.position.received;
        self.begun.update(received, clock::now()).map_err(|kind| {
            self.telemetry.count_limit(kind);
            let is_late = kind == LimitKind::MessageTimeout;
            if is_late { io::ErrorKind::TimedOut } else { io::ErrorKind::OutOfMemory }.into()
        })
    }
}

/// The charge for a record that was begun.
struct BegunRecord {
    charge: MemoryCharge,
    /// Time of its first byte, if there is one.
    since: Option<Instant>,
}

impl BegunRecord {
    /// Records the number of bytes of the record that were received.
    ///
    /// # Errors
    /// The limit that they exceed.
    fn update(&mut self, received: usize, now: Instant) -> Result<(), LimitKind> {
        let held = received.next_multiple_of(READ_SIZE);
        if held != self.charge.bytes() {
            self.charge.resize(held).map_err(|BudgetExhausted| LimitKind::Memory)?;
        }
        if held == 0 {
            self.since = None;
            return Ok(());
        }
        let since = *self.since.get_or_insert(now);
        match now.saturating_duration_since(since) < RECORD_TIMEOUT {
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
        self.account()?;
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
        let (start, budget) = (Instant::now(), MemoryBudget::new(64 << 10));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut record = BegunRecord { charge: budget.empty_charge(), since: None };
        for (received, held) in [(1, 4 << 10), (16_640, 20 << 10), (0, 0)] {
            assert_eq!((record.update(received, start), budget.used()), (Ok(()), held), "{received}");
        }
        assert_eq!((record.update(100, at(0)), record.update(200, at(29))), (Ok(()), Ok(())));
        assert_eq!(record.update(200, at(30)), Err(LimitKind::MessageTimeout));
        // The next record has its own time.
        assert_eq!((record.update(0, at(30)), record.update(1, at(59))), (Ok(()), Ok(())));
        let _others = budget.charge(budget.limit() - budget.used()).unwrap();
        assert_eq!(record.update(5_000, at(59)), Err(LimitKind::Memory));
    }

    #[test]
    fn position_is_that_in_the_last_record_however_the_bytes_arrive() {
        let records = [&[23, 3, 3, 1, 2][..], &[7; 258], &[21, 3, 3, 0, 0], &[23, 3, 3, 0, 1, 7]].concat();
        for size in 1..records.len() {
            let mut position = RecordPosition::default();
            records.chunks(size).for_each(|bytes| position.advance(bytes));
            assert_eq!(position.received, 0, "{size}");
            position.advance(&records[..200]);
            assert_eq!(position.received, 200);
        }
        let mut position = RecordPosition::default();
        position.advance(&records[..records.len() - 1]);
        assert_eq!(position.received, 5);
    }
}
