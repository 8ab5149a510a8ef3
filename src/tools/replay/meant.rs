//! The differences from the Node.js servers that this server makes on purpose, as a replay of real clients
//! shows them. The numbers are those of `docs/reference/differences.md`.

use serde::Serialize;

use super::json_members::members;
use super::script::Observed;
use super::spoken_dialect::SpokenDialect;
use super::transcript::{FrameKind, RecordedFrame};
use crate::tools::protobuf::{WireValue, fields};

/// A difference that is meant, and the number of times it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MeantDifference {
    /// Number in the table of differences.
    pub id: &'static str,
    /// Effect on the client.
    pub meaning: &'static str,
    /// Number of frames.
    pub count: usize,
}

impl MeantDifference {
    pub(super) fn new(row: &MeantRow) -> MeantDifference {
        MeantDifference { id: row.id, meaning: row.meaning, count: 1 }
    }
}

/// A row of the table of differences.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MeantRow {
    pub(super) id: &'static str,
    pub(super) meaning: &'static str,
}

/// A deviation of a run from the recording, at one client.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deviation<'a> {
    Missing(&'a Observed),
    Extra(&'a Observed),
    Changed(&'a Observed, &'a Observed),
    /// The bytes may differ, but the client reads the same.
    SameToClient(&'a Observed, &'a Observed),
}

const CLOSE_WITHOUT_CODE: MeantRow = MeantRow {
    id: "C06",
    meaning: "a close frame without a code is answered by one without a code: the client sees 1005, not 1000",
};
const LATE_DATA: MeantRow = MeantRow {
    id: "C17",
    meaning: "an opener whose data crosses the departure of its joiner is not closed: it can be joined again",
};
const CANDIDATES: MeantRow = MeantRow {
    id: "C31",
    meaning: "candidates after one that is marked as the last arrive, too: more ways to connect",
};
const PROBE: MeantRow = MeantRow {
    id: "C40",
    meaning: "a silent client is sent 10012001 first: a client of 15 answers it as a ping, one of 16 to 18 reads a \
              heartbeat; neither shows it to the page",
};
const TEXT_OF_18: MeantRow = MeantRow {
    id: "C44",
    meaning: "as long as the client may be one of 18, errors close it with the code and text of 18",
};
const RULES_OF_18: MeantRow = MeantRow {
    id: "C45",
    meaning: "as long as the client may be one of 18, joiners receive heartbeats, too, which they answer or ignore",
};
const FIRST_PING: MeantRow = MeantRow {
    id: "C51",
    meaning: "a client of 15 is pinged from the moment it is identified, not only once it has joined; it answers",
};
const BOTH_LAYOUTS: MeantRow = MeantRow {
    id: "C50",
    meaning: "contents are encoded so that clients of 19 and of 20 decode the same ids and data",
};
const HELD_END: MeantRow = MeantRow {
    id: "C56",
    meaning: "the end of a link that carried nothing is not reported at once to a client that has sent nothing",
};
const KEY_ANSWER: MeantRow = MeantRow {
    id: "C58",
    meaning: "attributes that are for other generations are added, which the client ignores",
};
const KEY_ANSWER_TO_7: MeantRow = MeantRow {
    id: "C58",
    meaning: "an opener of 7.0 to 7.4 receives an answer that is for 7.6: netflux 0.10.3 in a page reports 'timeout' \
              once, without an effect",
};
const FREE_KEY: MeantRow = MeantRow {
    id: "C61",
    meaning: "a client that joins a free key is answered for every generation at once; one of 7.6 or 8 rejects the \
              promise of join, as before, but its socket stays open",
};
const OPEN_ANSWER: MeantRow = MeantRow {
    id: "C62",
    meaning: "the answer to an open or a join has attributes for other generations, which the client ignores",
};
const NO_DEPARTURE: MeantRow =
    MeantRow { id: "C63", meaning: "the departure of a peer is not reported; netflux ignores that report" };
const NO_DEPARTURE_7_6: MeantRow = MeantRow {
    id: "C64",
    meaning: "an opener is not notified of a joiner's departure; netflux ignores that report",
};

/// All rows, in the order of their numbers.
#[cfg(test)]
const ROWS: [&MeantRow; 15] = [
    &CLOSE_WITHOUT_CODE,
    &LATE_DATA,
    &CANDIDATES,
    &PROBE,
    &TEXT_OF_18,
    &RULES_OF_18,
    &BOTH_LAYOUTS,
    &FIRST_PING,
    &HELD_END,
    &KEY_ANSWER,
    &KEY_ANSWER_TO_7,
    &FREE_KEY,
    &OPEN_ANSWER,
    &NO_DEPARTURE,
    &NO_DEPARTURE_7_6,
];

/// Returns the row of a deviation; `None` if it is not meant.
pub(super) fn explain(dialect: SpokenDialect, deviation: Deviation<'_>) -> Option<&'static MeantRow> {
    match dialect {
        SpokenDialect::Json(release) => json(release, deviation),
        // A client that received nothing but a close frame is silent like those of 15 to 18.
        SpokenDialect::Unknown
        | SpokenDialect::V1
        | SpokenDialect::Sigver15
        | SpokenDialect::Sigver16
        | SpokenDialect::Sigver18 => protobuf_v1(dialect, deviation),
        SpokenDialect::V2 | SpokenDialect::Sigver19 | SpokenDialect::Sigver20 => match deviation {
            Deviation::SameToClient(expected, actual) if is_other_encoding(expected, actual) => {
                Some(&BOTH_LAYOUTS)
            }
            _ => None,
        },
    }
}

fn json(release: &str, deviation: Deviation<'_>) -> Option<&'static MeantRow> {
    match deviation {
        Deviation::Changed(Observed::Close { code: 1000, reason }, Observed::Close { code: 1005, .. })
            if reason.is_empty() =>
        {
            Some(&CLOSE_WITHOUT_CODE)
        }
        Deviation::Missing(Observed::Close { code: 1000, reason }) if reason == "not opened" => {
            Some(&LATE_DATA)
        }
        Deviation::Missing(Observed::Close { code: 4003, .. }) => Some(&FREE_KEY),
        Deviation::Missing(what) if names(what)?.iter().any(|name| name == "unavailable") => {
            Some(if release == "7.6.4" { &NO_DEPARTURE_7_6 } else { &NO_DEPARTURE })
        }
        Deviation::Extra(what) => {
            let names = names(what)?;
            let has = |wanted: &str| names.iter().any(|name| name == wanted);
            (has("isKeyOk") && !has("opened")).then_some(&KEY_ANSWER_TO_7)
        }
        Deviation::Changed(expected, actual) | Deviation::SameToClient(expected, actual) => {
            added_attributes(expected, actual)
        }
        Deviation::Missing(_) => None,
    }
}

/// Returns the row of a JSON object that has attributes for other generations.
fn added_attributes(expected: &Observed, actual: &Observed) -> Option<&'static MeantRow> {
    let (before, now) = (names(expected)?, names(actual)?);
    let added =
        |wanted: &str| now.iter().any(|name| name == wanted) && !before.iter().any(|name| name == wanted);
    let is = |name: &str, value: &str| attribute(actual, name).as_deref() == Some(value);
    if added("offer") || (is("isKeyOk", "true") && added("data")) {
        Some(&KEY_ANSWER)
    } else if is("opened", "true") && is("isKeyOk", "false") {
        Some(&FREE_KEY)
    } else if added("opened") || added("isKeyOk") || added("first") {
        Some(&OPEN_ANSWER)
    } else {
        None
    }
}

fn protobuf_v1(dialect: SpokenDialect, deviation: Deviation<'_>) -> Option<&'static MeantRow> {
    match deviation {
        Deviation::Extra(what) => match bytes(what)? {
            [0x10, 0x01, 0x20, 0x01] => Some(&PROBE),
            [0x20, 0x01] if dialect == SpokenDialect::Sigver15 => Some(&FIRST_PING),
            [0x20, 0x01] => Some(&RULES_OF_18),
            [0x0a, ..] if dialect == SpokenDialect::Sigver15 => Some(&CANDIDATES),
            _ => None,
        },
        // The content with an error or an end, and nothing else.
        Deviation::Missing(what) => match bytes(what)? {
            [0x0a, length, ..] if usize::from(*length) <= 8 => Some(&HELD_END),
            _ => None,
        },
        Deviation::Changed(Observed::Close { .. }, Observed::Close { code: 4000..=4010, .. })
            if dialect != SpokenDialect::Sigver18 =>
        {
            Some(&TEXT_OF_18)
        }
        Deviation::Changed(..) | Deviation::SameToClient(..) => None,
    }
}

fn bytes(what: &Observed) -> Option<&[u8]> {
    match what {
        Observed::Frame(RecordedFrame { op: FrameKind::Binary, bytes, .. }) => Some(bytes),
        _ => None,
    }
}

fn text(what: &Observed) -> Option<&str> {
    match what {
        Observed::Frame(RecordedFrame { op: FrameKind::Text, bytes, .. }) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

fn names(what: &Observed) -> Option<Vec<String>> {
    Some(members(text(what)?)?.into_iter().map(|(name, _)| name).collect())
}

fn attribute(what: &Observed, name: &str) -> Option<String> {
    let text = text(what)?;
    members(text)?.into_iter().find(|(known, _)| known == name).map(|(_, place)| text[place].to_owned())
}

/// Returns true if a content differs in more than its ids, although the client decodes the same.
fn is_other_encoding(expected: &Observed, actual: &Observed) -> bool {
    let first = |what| bytes(what).and_then(|bytes| fields(bytes)?.first().copied());
    let order = |what| match first(what)?.value {
        WireValue::Bytes(content) => Some(fields(content)?.iter().map(|f| f.number).collect::<Vec<_>>()),
        _ => None,
    };
    order(expected) != order(actual)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Observed {
        Observed::Frame(RecordedFrame::new(FrameKind::Text, text))
    }

    fn binary(bytes: &[u8]) -> Observed {
        Observed::Frame(RecordedFrame::new(FrameKind::Binary, bytes))
    }

    #[test]
    fn every_row_is_in_the_table_of_differences() {
        let document = include_str!("../../../docs/reference/differences.md");
        for row in ROWS {
            assert!(
                document.contains(&format!("<a id=\"{}\"></a>{}", row.id.to_lowercase(), row.id)),
                "{row:?}"
            );
        }
        assert!(ROWS.is_sorted_by_key(|row| row.id));
    }

    #[test]
    fn answers_for_other_generations_are_meant() {
        let same = |before: &str, now: &str, release| {
            let (before, now) = (frame(before), frame(now));
            explain(SpokenDialect::Json(release), Deviation::SameToClient(&before, &now)).map(|row| row.id)
        };
        let all = r#"{"opened":false,"isKeyOk":true,"first":false}"#;
        assert_eq!(same(r#"{"opened":false}"#, all, "10.1.0"), Some("C62"));
        assert_eq!(same(r#"{"isKeyOk":true}"#, all, "7.6.4"), Some("C62"));
        let free = r#"{"opened":true,"isKeyOk":false,"first":true}"#;
        assert_eq!(same(r#"{"opened":true}"#, free, "10.1.0"), Some("C61"));
        assert_eq!(same(r#"{"isKeyOk":true}"#, r#"{"isKeyOk":true,"id":0,"data":{}}"#, "7.6.4"), Some("C58"));
        assert_eq!(same(r#"{"opened":true}"#, r#"{"opened":true}"#, "10.1.0"), None);
    }

    #[test]
    fn other_deviations_are_faults() {
        let (ping, first, data) = (binary(&[0x20, 1]), binary(&[0x10, 1]), frame(r#"{"data":1}"#));
        let closed = Observed::Close { code: 1000, reason: String::new() };
        for (dialect, deviation) in [
            (SpokenDialect::Sigver18, Deviation::Missing(&first)),
            (SpokenDialect::Sigver18, Deviation::Missing(&ping)),
            (SpokenDialect::Sigver20, Deviation::Extra(&ping)),
            (SpokenDialect::Json("10.1.0"), Deviation::Missing(&data)),
            (SpokenDialect::Json("10.1.0"), Deviation::Extra(&data)),
            (SpokenDialect::Json("10.1.0"), Deviation::Missing(&closed)),
            (SpokenDialect::Json("10.1.0"), Deviation::Changed(&data, &closed)),
        ] {
            assert_eq!(explain(dialect, deviation), None, "{dialect:?} {deviation:?}");
        }
        let probe = binary(&[0x10, 1, 0x20, 1]);
        assert_eq!(explain(SpokenDialect::V1, Deviation::Extra(&probe)), Some(&PROBE));
    }
}
