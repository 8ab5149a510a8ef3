//! The filter that applies the limit of repeated lines to a layer.

use std::time::Instant;

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

use super::repeat_limit::TARGET;
use super::writer::LogWriter;

/// Applies the limit of a writer to a layer.
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
        if *metadata.level() > Level::INFO || metadata.target() == TARGET {
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
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::logging::repeat_limit::{MAX_LINES, RepeatLimit, WINDOW};
    use crate::logging::test_output::Lines;
    use crate::server::telemetry::LogCounts;
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
