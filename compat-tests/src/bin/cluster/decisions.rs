//! The decisions of a node about rooms, as its log has them, in a file for the checker.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// One decision: milliseconds of the system's clock, the room's name in the engine, and the claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) at: u64,
    pub(crate) room: String,
    pub(crate) claim: String,
}

/// Writes the decisions of this process to a file, each at once, so that none is lost when it is killed.
pub(crate) fn record(path: &Path) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    tracing::subscriber::set_global_default(DecisionLog(Mutex::new(file)))?;
    Ok(())
}

/// Reads the decisions of a node.
pub(crate) fn read(path: &Path) -> Result<Vec<Decision>> {
    let text = std::fs::read_to_string(path)?;
    // A line may be cut short by the end of its process.
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    complete.lines().map(|line| parse(line).with_context(|| format!("not a decision: {line}"))).collect()
}

fn parse(line: &str) -> Option<Decision> {
    let mut words = line.split(' ').map(str::to_owned);
    Some(Decision { at: words.next()?.parse().ok()?, room: words.next()?, claim: words.next()? })
}

struct DecisionLog(Mutex<File>);

#[derive(Default)]
struct DecisionFields {
    at: Option<u64>,
    room: Option<String>,
    claim: Option<String>,
}

impl Visit for DecisionFields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "at" {
            self.at = Some(value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "room" => self.room = Some(format!("{value:?}")),
            "claim" => self.claim = Some(format!("{value:?}")),
            _ => {}
        }
    }
}

impl Subscriber for DecisionLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("sigver::server::cluster") && !metadata.is_span()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = DecisionFields::default();
        event.record(&mut fields);
        if let DecisionFields { at: Some(at), room: Some(room), claim: Some(claim) } = fields {
            let line = format!("{at} {room} {claim}\n");
            // Without the file, the checker finds no decisions, and fails.
            let _ = self.0.lock().map(|mut file| file.write_all(line.as_bytes()));
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
