//! A writer that never waits: a thread of its own writes what others push.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use super::repeat_limit::RepeatLimit;
use crate::server::telemetry::LogCounts;

/// Most text that waits to be written, in bytes. More is dropped.
const MAX_QUEUED: usize = 1 << 20;

/// Pause after the other side of a non-blocking stderr had no room.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Handle of the thread that writes.
#[derive(Clone, Debug)]
pub(super) struct LogWriter {
    items: Sender<Item>,
    queued: Arc<AtomicUsize>,
    counts: Arc<LogCounts>,
    repeats: Arc<RepeatLimit>,
}

#[derive(Debug)]
enum Item {
    /// One or more whole lines.
    Text(Vec<u8>),
    /// A new deadline of the repeat limit.
    Deadline,
    /// A request for a notification when everything before it is written.
    Flush(SyncSender<()>),
}

impl LogWriter {
    /// Starts a thread that writes on `out`.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        counts: Arc<LogCounts>,
        repeats: Arc<RepeatLimit>,
    ) -> LogWriter {
        let (items, received) = channel();
        let writer = LogWriter { items, queued: Arc::default(), counts, repeats };
        let worker = Worker {
            received,
            out: Some(out),
            reported: 0,
            queued: Arc::clone(&writer.queued),
            counts: Arc::clone(&writer.counts),
            repeats: Arc::clone(&writer.repeats),
        };
        // Without a thread everything is dropped, and counted.
        let _ = std::thread::Builder::new().name("log".to_owned()).spawn(|| worker.run());
        writer
    }

    /// The limit of repeated lines.
    pub(super) fn repeats(&self) -> &RepeatLimit {
        &self.repeats
    }

    /// Appends whole lines. They are dropped, and counted, if too much waits already.
    pub(super) fn push(&self, text: Vec<u8>) {
        let length = text.len();
        let had = self.queued.fetch_add(length, Ordering::Relaxed);
        if had > 0 && had.saturating_add(length) > MAX_QUEUED || self.items.send(Item::Text(text)).is_err() {
            self.queued.fetch_sub(length, Ordering::Relaxed);
            self.counts.count_dropped();
        }
    }

    /// Makes the thread look at the deadlines of the repeat limit.
    pub(super) fn notify_deadline(&self) {
        let _ = self.items.send(Item::Deadline);
    }

    /// Waits until everything is written, for `timeout` at most.
    pub(super) fn flush(&self, timeout: Duration) {
        let (done, wait) = sync_channel(1);
        if self.items.send(Item::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(timeout);
        }
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = PushedLine<'a>;

    fn make_writer(&'a self) -> PushedLine<'a> {
        PushedLine(self)
    }
}

/// Receives one line of the log, in one call.
#[derive(Debug)]
pub(super) struct PushedLine<'a>(&'a LogWriter);

impl Write for PushedLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread that writes.
struct Worker<W> {
    received: Receiver<Item>,
    /// `None` is for an output that is closed for good.
    out: Option<W>,
    /// Number of dropped lines that the log mentions.
    reported: u64,
    queued: Arc<AtomicUsize>,
    counts: Arc<LogCounts>,
    repeats: Arc<RepeatLimit>,
}

impl<W: Write> Worker<W> {
    fn run(mut self) {
        loop {
            let item = match self.repeats.next_deadline() {
                None => self.received.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self.received.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match item {
                Ok(Item::Text(text)) => {
                    let written = self.write(&text);
                    self.queued.fetch_sub(text.len(), Ordering::Relaxed);
                    match written {
                        Ok(()) => self.report_dropped(),
                        Err(_) => self.counts.count_dropped(),
                    }
                }
                Ok(Item::Deadline) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Item::Flush(done)) => {
                    let _ = done.try_send(());
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.repeats.report_expired(Instant::now());
        }
    }

    fn write(&mut self, mut text: &[u8]) -> io::Result<()> {
        let Some(out) = &mut self.out else { return Err(io::ErrorKind::BrokenPipe.into()) };
        while !text.is_empty() {
            match out.write(text) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => text = &text[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Another process may have made the pipe that both have non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(RETRY_PAUSE),
                Err(error) => {
                    if error.kind() == io::ErrorKind::BrokenPipe {
                        self.out = None;
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Logs the number of lines dropped so far, once there is room again.
    fn report_dropped(&mut self) {
        let dropped = self.counts.dropped();
        if dropped > self.reported && self.queued.load(Ordering::Relaxed) < MAX_QUEUED / 2 {
            let lines = dropped - self.reported;
            self.reported = dropped;
            tracing::warn!(lines, "log lines were dropped, as they were not read fast enough");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::{Condvar, Mutex};

    /// An output that blocks while it is closed.
    #[derive(Clone, Default)]
    struct Gate(Arc<Shared>);

    #[derive(Default)]
    struct Shared {
        state: Mutex<State>,
        opened: Condvar,
    }

    #[derive(Default)]
    struct State {
        is_open: bool,
        text: Vec<u8>,
    }

    impl Gate {
        fn open(&self) {
            self.0.state.lock().is_open = true;
            self.0.opened.notify_all();
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.state.lock().text.clone()).unwrap()
        }
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.state.lock();
            while !state.is_open {
                self.0.opened.wait(&mut state);
            }
            state.text.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start(out: impl Write + Send + 'static) -> (LogWriter, Arc<LogCounts>) {
        let counts = Arc::<LogCounts>::default();
        (LogWriter::start(out, Arc::clone(&counts), RepeatLimit::new(Arc::clone(&counts))), counts)
    }

    #[test]
    fn blocked_output_delays_no_writer_and_excess_is_counted() {
        let gate = Gate::default();
        let (writer, counts) = start(gate.clone());
        let line = format!("{}\n", "x".repeat(999));
        for _ in 0..3000 {
            writer.push(line.clone().into_bytes());
        }
        let dropped = counts.dropped();
        assert!(dropped >= 3000 - 1 - (MAX_QUEUED as u64) / 1000, "{dropped}");
        // A flush gives up as well.
        writer.flush(Duration::from_millis(10));
        gate.open();
        writer.flush(Duration::from_secs(60));
        assert_eq!(gate.text().lines().count() as u64, 3000 - dropped);
        writer.push(b"next\n".to_vec());
        writer.flush(Duration::from_secs(60));
        assert!(gate.text().ends_with("next\n"));
        assert_eq!(counts.dropped(), dropped);
    }

    #[test]
    fn failing_output_is_counted_and_ends_nothing() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (writer, counts) = start(Full);
        for _ in 0..5 {
            writer.push(b"x\n".to_vec());
        }
        writer.flush(Duration::from_secs(60));
        assert_eq!(counts.dropped(), 5);
    }
}
