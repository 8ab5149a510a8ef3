//! Frames as the clients of a scenario read them, where it names no release: the dialect of each client is
//! that of its recorded frames, of a JSON object only the attributes count that it reads, and a content of
//! sigver 19 or 20 counts as protobufjs decodes it, whatever the order of its fields.
//!
//! A scenario that names its release is compared as bytes.

use std::collections::HashMap;

use super::ids::{self, Id, IdLayout, MaskedFrame};
use super::json_view::client_view;
use super::peer::AutoReply;
use super::script::Observed;
use super::spoken_dialect::SpokenDialect;
use super::transcript::{FrameKind, RecordedEvent, RecordedFrame, Scenario, to_hex};
use crate::tools::protobuf::{
    FieldType, FieldValue, Schema, WireValue, decode, fields, put_bytes, put_number,
};

const NUMBER: FieldType = FieldType::Number;
/// Fields of a content of sigver 19.
const CONTENT_19: Schema = &[(1, NUMBER), (2, NUMBER), (3, FieldType::Bytes)];
/// Fields of a content of sigver 20.
const CONTENT_20: Schema = &[(1, NUMBER), (2, NUMBER), (3, NUMBER), (4, FieldType::Bytes)];

/// The views of all clients of a scenario.
#[derive(Clone, Debug)]
pub(crate) struct ClientViews {
    layout: IdLayout,
    dialects: HashMap<String, SpokenDialect>,
}

impl ClientViews {
    /// Returns the views of a scenario's clients.
    pub(crate) fn from_scenario(scenario: &Scenario) -> ClientViews {
        let layout = IdLayout::from_version(&scenario.version);
        let named = SpokenDialect::from_version(&scenario.version);
        let mut dialects: HashMap<String, SpokenDialect> = HashMap::new();
        for record in &scenario.records {
            let (sent, frame) = match &record.event {
                RecordedEvent::Send(frame) => (true, frame),
                RecordedEvent::Recv(frame) => (false, frame),
                _ => continue,
            };
            let Some(peer) = &record.peer else { continue };
            let dialect = dialects.entry(peer.clone()).or_insert(named);
            if layout == IdLayout::Any {
                dialect.observe(sent, frame);
            }
        }
        ClientViews { layout, dialects }
    }

    /// Returns the positions of ids in the frames of this scenario.
    pub(crate) fn layout(&self) -> IdLayout {
        self.layout
    }

    /// Returns the dialect of a client.
    pub(crate) fn dialect(&self, peer: &str) -> SpokenDialect {
        self.dialects.get(peer).copied().unwrap_or_default()
    }

    /// Returns the answer that a client gives by itself to the frame by which this server finds out its
    /// dialect, and which no recording of another server can have.
    pub(super) fn auto_reply(&self, peer: &str) -> Option<AutoReply> {
        let answer: &[u8] = &[0x28, 1];
        (self.layout == IdLayout::Any && self.dialect(peer) == SpokenDialect::Sigver15).then_some(AutoReply {
            frame: &[0x10, 1, 0x20, 1],
            answer: Some(answer),
            later: None,
            is_shown: true,
        })
    }

    /// Returns an event as the client reads it, cut at its ids.
    pub(crate) fn mask(&self, peer: &str, what: &Observed) -> MaskedFrame {
        match what {
            Observed::Open => MaskedFrame::literal("open"),
            Observed::Frame(frame) if self.layout == IdLayout::Any => {
                let dialect = self.dialect(peer);
                let mut masked = ids::mask(self.layout, &view(dialect, frame.clone()));
                if dialect == SpokenDialect::Json("7.1.0") {
                    // The server counts ids from 0, so that small ones are ids, too.
                    masked.ids.iter_mut().for_each(|id| *id = id.clone().into_index());
                }
                masked
            }
            Observed::Frame(frame) => ids::mask(self.layout, frame),
            Observed::Close { code, reason } => ids::mask_reason(self.layout, *code, reason),
        }
    }

    /// Describes a message, with each id printed by `name`; `None` if there is no description.
    pub(crate) fn describe(
        &self,
        peer: &str,
        what: &Observed,
        name: impl Fn(&Id) -> String,
    ) -> Option<String> {
        let Observed::Frame(RecordedFrame { op: FrameKind::Binary, bytes, .. }) = what else { return None };
        self.dialect(peer).describe(bytes, |id| name(&Id::Number(id)))
    }
}

fn view(dialect: SpokenDialect, frame: RecordedFrame) -> RecordedFrame {
    match dialect {
        SpokenDialect::Json(release) => client_view(release, frame),
        SpokenDialect::Sigver19 => content_view(CONTENT_19, &[1], 3, frame),
        SpokenDialect::Sigver20 => content_view(CONTENT_20, &[1, 2], 4, frame),
        _ => frame,
    }
}

/// Returns a message that is one content in its usual encoding: ids, then data. netflux ignores `lastData`.
fn content_view(schema: Schema, ids: &[u32], data: u32, frame: RecordedFrame) -> RecordedFrame {
    let content = match (frame.op, fields(&frame.bytes).as_deref()) {
        (FrameKind::Binary, Some([field])) if field.number == 2 => match field.value {
            WireValue::Bytes(content) => decode(content, schema),
            _ => None,
        },
        _ => None,
    };
    let Some(content) = content else { return frame };
    let mut usual = Vec::new();
    for (number, value) in &content.0 {
        if let (true, FieldValue::Number(id)) = (ids.contains(number), value) {
            put_number(&mut usual, (*number).into(), (*id).into());
        }
    }
    if content.0.iter().any(|(number, _)| *number == data) {
        put_bytes(&mut usual, data.into(), content.bytes(data));
    }
    let mut message = Vec::new();
    put_bytes(&mut message, 2, &usual);
    RecordedFrame::new(frame.op, message)
}

/// Returns the text of an event for a report, with the ids in it as they are.
pub(super) fn plain_text(what: &Observed) -> String {
    match what {
        Observed::Open => "open".to_owned(),
        Observed::Frame(RecordedFrame { op, bytes, .. }) => match (op, std::str::from_utf8(bytes)) {
            (FrameKind::Text, Ok(text)) => format!("text {text}"),
            _ => format!("{} {}", op.name(), to_hex(bytes)),
        },
        Observed::Close { code, reason } => format!("close {code} {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    fn frame(hex: &str) -> RecordedFrame {
        RecordedFrame::new(FrameKind::Binary, HEXLOWER.decode(hex.as_bytes()).unwrap())
    }

    #[test]
    fn content_in_two_layouts_is_one_content() {
        let usual = frame("121608dda4a7c40e1000220c08dda4a7c40e1000184a2200");
        let both = frame("12241a0c08dda4a7c40e1000184a2200220c08dda4a7c40e1000184a220008dda4a7c40e1000");
        let read = |frame: &RecordedFrame| {
            let masked = ids::mask(IdLayout::Any, &view(SpokenDialect::Sigver20, frame.clone()));
            masked.render(|id| id.to_string())
        };
        assert_eq!(read(&usual), "binary 12{08:3901346397;10:0;220c08dda4a7c40e1000184a2200}");
        assert!(read(&both).contains(":3901346397;"), "{}", read(&both));
        assert_eq!(view(SpokenDialect::Sigver20, frame("2001")), frame("2001"));
    }
}
