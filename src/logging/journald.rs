//! The native protocol of systemd's journal: each entry is a datagram of fields.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Path of the journal's socket.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// Name of the program in the journal.
const IDENTIFIER: &str = "SYSLOG_IDENTIFIER=sigver\n";

/// The socket of the journal: each call of `write` sends one entry.
#[derive(Debug)]
pub(super) struct JournalSocket {
    socket: UnixDatagram,
    path: PathBuf,
}

impl JournalSocket {
    /// # Errors
    /// There is no journal at this path.
    pub(super) fn open(path: &Path) -> io::Result<JournalSocket> {
        let socket = UnixDatagram::unbound()?;
        // Tested once: later each entry is sent to the path, as the journal may be restarted.
        socket.connect(path)?;
        Ok(JournalSocket { socket: UnixDatagram::unbound()?, path: path.to_owned() })
    }
}

impl Write for JournalSocket {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        self.socket.send_to(entry, &self.path)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the priority of syslog.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Returns an entry for a text, which may have several lines.
pub(super) fn text_entry(level: Level, text: &str) -> Vec<u8> {
    let mut entry = format!("PRIORITY={}\n{IDENTIFIER}MESSAGE\n", priority(level)).into_bytes();
    entry.extend_from_slice(&(text.len() as u64).to_le_bytes());
    entry.extend_from_slice(text.as_bytes());
    entry.push(b'\n');
    entry
}

/// Formats events as entries of the journal. The fields of an event become fields of the entry with names
/// such as `SIGVER_ID`; the spans of the event are in `SIGVER_SPAN`.
#[derive(Debug)]
pub(super) struct JournalFormat;

impl<S, N> FormatEvent<S, N> for JournalFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        write!(writer, "PRIORITY={}\n{IDENTIFIER}", priority(*metadata.level()))?;
        writeln!(writer, "SIGVER_LEVEL={}\nSIGVER_TARGET={}", metadata.level(), metadata.target())?;
        let mut fields = FieldLines { writer, result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let of_span = extensions.get::<FormattedFields<N>>().map(|fields| fields.to_string());
            fields.line("SIGVER_SPAN", &format!("{} {}", span.name(), of_span.unwrap_or_default()))?;
        }
        Ok(())
    }
}

/// Writes the fields of an event, a line each.
struct FieldLines<'a> {
    writer: Writer<'a>,
    result: fmt::Result,
}

impl FieldLines<'_> {
    fn line(&mut self, name: &str, value: &str) -> fmt::Result {
        // A line end would begin another field.
        writeln!(self.writer, "{name}={}", value.replace(['\n', '\r'], " "))
    }

    fn field(&mut self, field: &Field, value: &str) {
        let line = match field.name() {
            "message" => self.line("MESSAGE", value),
            name => {
                let of_journal =
                    |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
                let name: String = name.chars().map(of_journal).collect();
                self.line(&format!("SIGVER_{name}"), value)
            }
        };
        self.result = self.result.and(line);
    }
}

impl Visit for FieldLines<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::logging::repeat_limit::RepeatLimit;
    use crate::logging::writer::LogWriter;

    fn received(journal: &UnixDatagram) -> Vec<u8> {
        let mut entry = vec![0; 4096];
        let length = journal.recv(&mut entry).unwrap();
        entry.truncate(length);
        entry
    }

    #[test]
    fn events_and_texts_are_entries_of_the_journal() {
        let path = std::env::temp_dir().join(format!("sigver-journal-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        assert!(JournalSocket::open(&path).is_err());
        let journal = UnixDatagram::bind(&path).unwrap();
        journal.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let socket = JournalSocket::open(&path).unwrap();
        let counts = Arc::default();
        let writer = LogWriter::start(socket, Arc::clone(&counts), RepeatLimit::new(counts));
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(writer.clone())
            .with_ansi(false)
            .event_format(JournalFormat);
        let subscriber = tracing_subscriber::registry().with(lines);
        let entry = tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("connection", id = 7, remote = "192.0.2.0/24").entered();
            // A value must not add fields.
            tracing::warn!(cause = "a\nPRIORITY=0", lasted_s = 5, "ended\nMESSAGE=forged");
            received(&journal)
        });
        let lines = [
            "PRIORITY=4",
            "SYSLOG_IDENTIFIER=sigver",
            "SIGVER_LEVEL=WARN",
            "SIGVER_TARGET=sigver::logging::journald::tests",
            "MESSAGE=ended MESSAGE=forged",
            "SIGVER_CAUSE=a PRIORITY=0",
            "SIGVER_LASTED_S=5",
            "SIGVER_SPAN=connection id=7 remote=\"192.0.2.0/24\"",
        ];
        assert_eq!(String::from_utf8(entry).unwrap(), lines.join("\n") + "\n");

        writer.push(text_entry(Level::INFO, "two\nlines"));
        let length = [9, 0, 0, 0, 0, 0, 0, 0];
        let head = b"PRIORITY=6\nSYSLOG_IDENTIFIER=sigver\nMESSAGE\n".as_slice();
        assert_eq!(received(&journal), [head, &length, b"two\nlines\n"].concat());
        std::fs::remove_file(path).unwrap();
    }
}
