//! The log of the program, on stderr. It never delays a connection: lines are written by a thread of their
//! own, a bounded amount of text waits for it, and what exceeds that is dropped and counted. Repeated lines
//! are summed up.

mod repeat_limit;
mod writer;

use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing_subscriber::Layer as _;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::server::telemetry::LogCounts;
use repeat_limit::{RepeatFilter, RepeatLimit};
use writer::LogWriter;

/// Longest time to write what still waits at the end of the program.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The log of the program. Dropping it writes what still waits, for a second at most.
#[derive(Debug)]
pub struct Logging {
    writer: LogWriter,
    counts: Arc<LogCounts>,
    filter: OnceLock<reload::Handle<Targets, Registry>>,
}

impl Logging {
    /// Starts the thread that writes on stderr. Until [`install`](Self::install) is called, there are no
    /// lines but those of [`write_text`](Self::write_text).
    pub fn start() -> Logging {
        let counts = Arc::<LogCounts>::default();
        let repeats = RepeatLimit::new(Arc::clone(&counts));
        Logging {
            writer: LogWriter::start(std::io::stderr(), Arc::clone(&counts), repeats),
            counts,
            filter: OnceLock::new(),
        }
    }

    /// Sends events and panics of the whole program to the log. The second call and those after it have no
    /// effect.
    pub fn install(&self, filter: Targets) {
        let lines = fmt::layer()
            .with_writer(self.writer.clone())
            .with_ansi(std::io::stderr().is_terminal())
            .with_filter(RepeatFilter::new(self.writer.clone()));
        let (filter, handle) = reload::Layer::new(filter);
        if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
            std::panic::set_hook(Box::new(log_panic));
            let _ = self.filter.set(handle);
        }
    }

    /// Returns access to the filter, once [`install`](Self::install) was called.
    pub fn filter(&self) -> Option<LogFilterHandle> {
        self.filter.get().cloned().map(LogFilterHandle)
    }

    /// Counts of lines that were not written.
    pub fn counts(&self) -> Arc<LogCounts> {
        Arc::clone(&self.counts)
    }

    /// Returns a second handle on the log.
    pub fn handle(&self) -> LogHandle {
        LogHandle(self.writer.clone())
    }

    /// Writes text, whatever the filter is, without waiting.
    pub fn write_text(&self, text: String) {
        self.writer.push(text.into_bytes());
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.writer.flush(FLUSH_TIMEOUT);
    }
}

/// Access to the filter of the log.
#[derive(Clone, Debug)]
pub struct LogFilterHandle(reload::Handle<Targets, Registry>);

impl LogFilterHandle {
    /// Replaces the filter.
    pub fn replace(&self, filter: Targets) {
        // Fails only if the log is gone.
        let _ = self.0.reload(filter);
    }
}

/// A handle on the log.
#[derive(Clone, Debug)]
pub struct LogHandle(LogWriter);

impl LogHandle {
    /// Writes text, whatever the filter is, without waiting.
    pub fn write_text(&self, text: String) {
        self.0.push(text.into_bytes());
    }
}

/// Logs a panic without its message, which may quote what a client sent. (The default hook also waits for
/// stderr.)
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(not shown)");
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = match backtrace.status() {
        std::backtrace::BacktraceStatus::Captured => Some(tracing::field::display(backtrace)),
        _ => None,
    };
    tracing::error!(location, message = message, backtrace, "panic");
}
