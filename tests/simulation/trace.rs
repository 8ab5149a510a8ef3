//! The record of a run: what the gateway logs and what its clients see, with the simulated time. Two runs of
//! one seed have the same record.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The record of a run. Clones are the same record.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<TraceState>>);

struct TraceState {
    start: Instant,
    digest: DefaultHasher,
    lines: u64,
    prints: bool,
    /// Ends of connections by side and cause.
    ends: BTreeMap<String, u64>,
    violations: Vec<String>,
    frames: u64,
    payloads: u64,
}

impl Trace {
    /// Returns an empty record. If it `prints`, its lines are also written to stderr.
    pub fn new(prints: bool) -> Self {
        Trace(Arc::new(Mutex::new(TraceState {
            start: Instant::now(),
            digest: DefaultHasher::new(),
            lines: 0,
            prints,
            ends: BTreeMap::new(),
            violations: Vec::new(),
            frames: 0,
            payloads: 0,
        })))
    }

    /// Adds a line.
    pub fn note(&self, who: &str, what: impl fmt::Display) {
        let mut state = self.0.lock();
        let line = format!("{:9.3} {who}: {what}", state.start.elapsed().as_secs_f64());
        line.hash(&mut state.digest);
        state.lines += 1;
        if state.prints {
            eprintln!("{line}");
        }
    }

    /// Adds a violation of an invariant.
    pub fn violation(&self, who: &str, what: impl fmt::Display) {
        self.note(who, format_args!("VIOLATION: {what}"));
        let mut state = self.0.lock();
        if state.violations.len() < 20 {
            state.violations.push(format!("{who}: {what}"));
        }
    }

    /// Counts a frame that a client received.
    pub fn count_frame(&self) {
        self.0.lock().frames += 1;
    }

    /// Returns the number of frames that clients received.
    pub fn frames(&self) -> u64 {
        self.0.lock().frames
    }

    /// Counts a payload that a client received.
    pub fn count_payload(&self) {
        self.0.lock().payloads += 1;
    }

    /// Returns the number of payloads that clients received.
    pub fn payloads(&self) -> u64 {
        self.0.lock().payloads
    }

    /// Returns the hash of the record.
    pub fn digest(&self) -> u64 {
        self.0.lock().digest.finish()
    }

    /// Returns the violations.
    pub fn violations(&self) -> Vec<String> {
        self.0.lock().violations.clone()
    }

    /// Returns the number of ends of connections by side and cause.
    pub fn ends(&self) -> BTreeMap<String, u64> {
        self.0.lock().ends.clone()
    }

    fn count_end(&self, cause: String) {
        *self.0.lock().ends.entry(cause).or_default() += 1;
    }
}

/// Passes the log of the gateway to a record.
pub struct LogRecorder(pub Trace);

#[derive(Default)]
struct Fields {
    text: String,
    message: String,
    by: Option<String>,
    cause: Option<String>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            "by" => self.by = Some(text),
            "cause" => self.cause = Some(text),
            _ => {
                let _ = write!(self.text, " {}={text}", field.name());
            }
        }
    }
}

impl Subscriber for LogRecorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("sigver") && *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, _attributes: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { text, message, by, cause } = fields;
        match message.as_str() {
            "connection ended" => {
                let by = by.as_deref().unwrap_or("pipe");
                self.0.count_end(format!("{by} {}", cause.as_deref().unwrap_or("NO CAUSE")));
            }
            // Its end is that of the listener.
            "connector handed to its listener" => self.0.count_end("pipe of a listener".to_owned()),
            "closed a client that does not read what it is sent" => {
                self.0.count_end("\"server\" \"slow consumer\"".to_owned())
            }
            "connection ended by a panic: this is a bug of the server" => {
                self.0.violation("gateway", "a panic ended a connection");
                self.0.count_end("\"server\" \"panic\"".to_owned());
            }
            _ => {}
        }
        self.0.note("gateway", format_args!("{message}{text} {by:?} {cause:?}"));
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}
