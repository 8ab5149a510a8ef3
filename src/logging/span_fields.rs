//! The fields of a span in lines of text: a field that is recorded again, as the dialect of a client that
//! becomes known better, has its last value alone.

use std::fmt;

use tracing::field::Visit;
use tracing::span::Record;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormattedFields;
use tracing_subscriber::fmt::format::{DefaultFields, FormatFields, Writer};

/// The default format, in which new values replace former ones.
#[derive(Debug, Default)]
pub(super) struct SpanFields(DefaultFields);

/// The name of the first field of a record.
#[derive(Default)]
struct FirstName(&'static str);

impl Visit for FirstName {
    fn record_debug(&mut self, field: &tracing::field::Field, _: &dyn fmt::Debug) {
        if self.0.is_empty() {
            self.0 = field.name();
        }
    }
}

impl<'w> FormatFields<'w> for SpanFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        self.0.format_fields(writer, fields)
    }

    fn add_fields(&self, current: &'w mut FormattedFields<Self>, fields: &Record<'_>) -> fmt::Result {
        let mut name = FirstName::default();
        fields.record(&mut name);
        // Behind a blank, and the control sequence of a terminal's colors. What is recorded later is at the
        // end.
        let former = current.fields.rfind(name.0).and_then(|at| current.fields.get(..at)?.rfind(' '));
        if let Some(end) = former {
            current.fields.truncate(end);
        }
        if !current.fields.is_empty() {
            current.fields.push(' ');
        }
        self.0.format_fields(current.as_writer(), fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::test_output::Lines;
    use tracing::field::Empty;

    #[test]
    fn field_that_is_recorded_again_has_its_last_value() {
        for ansi in [false, true] {
            let lines = Lines::default();
            let writer = lines.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(ansi)
                .fmt_fields(SpanFields::default())
                .with_writer(move || writer.clone())
                .finish();
            tracing::subscriber::with_default(subscriber, || {
                let span = tracing::info_span!("connection", id = 7, dialect = Empty);
                span.record("dialect", "sigver-19 to 20");
                span.record("dialect", "sigver-20");
                span.in_scope(|| tracing::info!("here"));
            });
            let text = lines.text();
            assert_eq!(text.matches("dialect").count(), 1, "{text}");
            assert!(
                text.contains("sigver-20") && !text.contains("sigver-19") && text.contains('7'),
                "{text}"
            );
        }
    }
}
