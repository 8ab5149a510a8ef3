//! A limit of repeated lines: of one kind, which is a place in the source, a few are logged each minute, and
//! then their number. Lines at `debug` and `trace` are not limited, as they are asked for to follow single
//! clients.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::server::telemetry::LogCounts;

/// Target of the lines that report others, which are limited by their windows.
pub(super) const TARGET: &str = module_path!();

/// Most lines of one kind in a window.
pub(super) const MAX_LINES: u32 = 10;

/// Time after which the count of one kind starts again.
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// The lines of the current minute by kind.
#[derive(Debug)]
pub(super) struct RepeatLimit {
    windows: Mutex<HashMap<Identifier, Window>>,
    counts: Arc<LogCounts>,
}

#[derive(Debug)]
struct Window {
    ends: Instant,
    lines: u32,
    /// Lines that were not logged.
    summed_up: u64,
    level: Level,
    message: String,
}

impl RepeatLimit {
    pub(super) fn new(counts: Arc<LogCounts>) -> Arc<Self> {
        Arc::new(RepeatLimit { windows: Mutex::default(), counts })
    }

    /// Returns the time of the next report; `None` if no line was left out.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let windows = self.windows.lock();
        windows.values().filter(|window| window.summed_up > 0).map(|window| window.ends).min()
    }

    /// Logs the number of lines that were left out in windows that have ended.
    pub(super) fn report_expired(&self, now: Instant) {
        let mut ended = Vec::new();
        self.windows.lock().retain(|_, window| {
            let has_ended = window.ends <= now;
            if has_ended && window.summed_up > 0 {
                ended.push((window.level, window.summed_up, std::mem::take(&mut window.message)));
            }
            !has_ended
        });
        for (level, lines, message) in ended {
            match level {
                Level::ERROR => tracing::error!(lines, "repeated within a minute: {message}"),
                Level::WARN => tracing::warn!(lines, "repeated within a minute: {message}"),
                _ => tracing::info!(lines, "repeated within a minute: {message}"),
            }
        }
    }

    /// Counts a line. Returns true if it is to be logged, and with it true if it is the first that is not.
    pub(super) fn admit(&self, event: &Event<'_>, now: Instant) -> (bool, bool) {
        let metadata = event.metadata();
        let mut windows = self.windows.lock();
        let window = windows.entry(metadata.callsite()).or_insert_with(|| Window {
            ends: now + WINDOW,
            lines: 0,
            summed_up: 0,
            level: *metadata.level(),
            message: String::new(),
        });
        // A window that left nothing out has no report.
        if window.ends <= now && window.summed_up == 0 {
            (window.ends, window.lines) = (now + WINDOW, 0);
        }
        if window.lines < MAX_LINES {
            window.lines += 1;
            return (true, false);
        }
        window.summed_up += 1;
        self.counts.count_summed_up();
        let is_first = window.summed_up == 1;
        if is_first {
            event.record(&mut MessageText(&mut window.message));
        }
        (false, is_first)
    }
}

/// Copies the message of an event. The other fields belong to the single line.
struct MessageText<'a>(&'a mut String);

impl Visit for MessageText<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            *self.0 = format!("{value:?}");
        }
    }
}
