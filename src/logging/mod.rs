//! The log of the program, on stderr or in the journal of systemd. It never delays a connection: lines are
//! written by a thread of their own, a bounded amount of text waits for it, and what exceeds that is dropped
//! and counted. Repeated lines are summed up.

mod journald;
mod repeat_filter;
mod repeat_limit;
mod span_fields;
#[cfg(test)]
mod test_output;
mod writer;

use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;
use tracing::Level;
use tracing_subscriber::Layer as _;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogFormat;
use crate::server::telemetry::LogCounts;
use journald::{JournalFormat, JournalSocket};
use repeat_filter::RepeatFilter;
use repeat_limit::RepeatLimit;
use span_fields::SpanFields;
use writer::LogWriter;

/// Longest time to write what still waits at the end of the program.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The log of the program. Dropping it writes what still waits, for a second at most.
#[derive(Debug)]
pub struct Logging {
    writer: LogWriter,
    format: LogFormat,
    counts: Arc<LogCounts>,
    filter: OnceLock<reload::Handle<Targets, Registry>>,
}

impl Logging {
    /// Starts the thread that writes. Until [`install`](Self::install) is called, there are no lines but
    /// those of [`write_text`](Self::write_text).
    ///
    /// # Errors
    /// There is no journal.
    pub fn start(format: LogFormat) -> Result<Logging, JournalError> {
        let counts = Arc::<LogCounts>::default();
        let repeats = RepeatLimit::new(Arc::clone(&counts));
        let writer = match format {
            LogFormat::Text | LogFormat::Json => {
                LogWriter::start(std::io::stderr(), Arc::clone(&counts), repeats)
            }
            LogFormat::Journald => {
                let journal = JournalSocket::open(Path::new(journald::SOCKET)).map_err(JournalError)?;
                LogWriter::start(journal, Arc::clone(&counts), repeats)
            }
        };
        Ok(Logging { writer, format, counts, filter: OnceLock::new() })
    }

    /// Sends events and panics of the whole program to the log. The second call and those after it have no
    /// effect.
    pub fn install(&self, filter: Targets) {
        let lines = fmt::layer().with_writer(self.writer.clone());
        let (filter, handle) = reload::Layer::new(filter);
        let registry = tracing_subscriber::registry().with(filter);
        let repeats = RepeatFilter::new(self.writer.clone());
        // Each in a type of its own, so that none costs the others anything.
        let installed = match self.format {
            LogFormat::Text => {
                let lines =
                    lines.fmt_fields(SpanFields::default()).with_ansi(std::io::stderr().is_terminal());
                registry.with(lines.with_filter(repeats)).try_init()
            }
            LogFormat::Json => {
                let lines = lines.json().flatten_event(true).with_span_list(false);
                registry.with(lines.with_filter(repeats)).try_init()
            }
            LogFormat::Journald => {
                let lines = lines.with_ansi(false).event_format(JournalFormat);
                registry.with(lines.with_filter(repeats)).try_init()
            }
        };
        if installed.is_ok() {
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
        LogHandle { writer: self.writer.clone(), format: self.format }
    }

    /// Writes text, whatever the filter is, without waiting.
    pub fn write_text(&self, text: String) {
        self.writer.push(encode_text(self.format, text));
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
        // Fails only if the log has ended.
        let _ = self.0.reload(filter);
    }
}

/// A handle on the log.
#[derive(Clone, Debug)]
pub struct LogHandle {
    writer: LogWriter,
    format: LogFormat,
}

impl LogHandle {
    /// Writes text, whatever the filter is, without waiting.
    pub fn write_text(&self, text: String) {
        self.writer.push(encode_text(self.format, text));
    }
}

/// Failure to write to the journal of systemd.
#[derive(Debug, Error)]
#[error("'--log-format journald': the journal of systemd cannot be reached at {path}: {0}", path = journald::SOCKET)]
pub struct JournalError(#[source] std::io::Error);

/// Returns a text of the program, of one or more lines, as the format has it.
fn encode_text(format: LogFormat, text: String) -> Vec<u8> {
    let level = match text.split_once(": ") {
        Some(("error", _)) => Level::ERROR,
        Some(("warning", _)) => Level::WARN,
        _ => Level::INFO,
    };
    match format {
        LogFormat::Text => text.into_bytes(),
        LogFormat::Json => {
            let mut timestamp = String::new();
            // Writing to a string cannot fail.
            let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
            let line =
                TextLine { timestamp, level: level.as_str(), message: text.trim_end(), target: "sigver" };
            let mut line = serde_json::to_vec(&line).unwrap_or_default();
            line.push(b'\n');
            line
        }
        LogFormat::Journald => journald::text_entry(level, text.trim_end()),
    }
}

/// A text of the program as JSON, in the members of events.
#[derive(Serialize)]
struct TextLine<'a> {
    timestamp: String,
    level: &'static str,
    message: &'a str,
    target: &'static str,
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
