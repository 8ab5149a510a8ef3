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
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

use super::writer::LogWriter;
use crate::server::telemetry::LogCounts;

/// Most lines of one kind in a window.
const MAX_LINES: u32 = 10;

/// Time after which the count of one kind starts again.
const WINDOW: Duration = Duration::from_secs(60);

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
    fn admit(&self, event: &Event<'_>, now: Instant) -> (bool, bool) {
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

/// Applies a [`RepeatLimit`] to a layer.
#[derive(Debug)]
pub(super) struct RepeatFilter(LogWriter);

impl RepeatFilter {
    pub(super) fn new(writer: LogWriter) -> Self {
        RepeatFilter(writer)
    }
}

impl<S: Subscriber> Filter<S> for RepeatFilter {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // What this module itself logs is limited by its windows.
        if *metadata.level() > Level::INFO || metadata.target() == module_path!() {
            return true;
        }
        let (is_logged, is_first) = self.0.repeats().admit(event, Instant::now());
        if is_first {
            self.0.notify_deadline();
        }
        is_logged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::test_output::Lines;
    use tracing_subscriber::Layer as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[test]
    fn repeated_lines_are_summed_up_by_kind() {
        let (lines, counts) = (Lines::default(), Arc::<LogCounts>::default());
        let repeats = RepeatLimit::new(Arc::clone(&counts));
        let writer = LogWriter::start(lines.clone(), Arc::clone(&counts), Arc::clone(&repeats));
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(writer.clone())
            .with_ansi(false)
            .with_filter(RepeatFilter::new(writer.clone()));
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        for room in 0..1000 {
            tracing::warn!(room, "mixed");
            tracing::debug!(room, "recognised");
        }
        tracing::info!("another kind");
        assert_eq!(counts.summed_up(), 1000 - u64::from(MAX_LINES));
        assert!(repeats.next_deadline().is_some());
        repeats.report_expired(Instant::now());
        repeats.report_expired(Instant::now() + WINDOW);
        assert_eq!(repeats.next_deadline(), None);
        tracing::warn!(room = 7777, "mixed");
        tracing::warn!("after the window");
        writer.flush(Duration::from_secs(60));
        let text = lines.text();
        let count = |part: &str| text.lines().filter(|line| line.contains(part)).count();
        assert_eq!(count("recognised"), 1000);
        assert_eq!(count("another kind"), 1);
        // Those of the first window, and one after it.
        assert_eq!(count(" mixed room="), MAX_LINES as usize + 1, "{text}");
        assert_eq!(count("WARN sigver::logging::repeat_limit: repeated within a minute: mixed lines=990"), 1);
    }
}
