//! List of works: loads, participants, figures, targets. Running a load is in `drive`, showing figures in
//! `table`.

use std::collections::BTreeSet;

use crate::figures::{Figure, Target};
use crate::servers::Party;

/// A load on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Closed loop: contents both ways, in rooms of a member and a joiner, with a number in flight in each
    /// room.
    Throughput(LoadShape),
    /// Open loop: contents at a steady rate, per second over all rooms.
    Steady(LoadShape, u32),
    /// Sessions, several at a time: two connects, a join, an offer, an answer, a close.
    Sessions,
    /// Joiners that enter one room at once, connected before the clock starts or after.
    Storm(usize, Connected),
    /// Members that only answer heartbeats.
    Idle(usize),
    /// One content of 16 KiB each way in each room; memory retained after it.
    RetainedMemory(usize),
    /// Start-up only.
    Start,
}

/// Moment of the joiners' connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connected {
    /// Before the clock starts.
    Before,
    /// After the clock starts.
    After,
}

/// Shape of a throughput load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadShape {
    /// Number of rooms.
    pub rooms: usize,
    /// Contents in flight per room.
    pub flight: usize,
    /// Content size, in bytes.
    pub bytes: usize,
    /// Dialect of the member.
    pub member: &'static str,
    /// Dialect of the joiner.
    pub joiner: &'static str,
}

/// One turn of one participant.
pub type Run = (Party, Load);

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Measured figure.
    pub figure: Figure,
    /// Index of the run.
    pub run: usize,
    /// Comparison.
    pub comparison: Comparison,
    /// Target of the ratio, or of the figure if it is compared with nothing.
    pub target: Option<Target>,
}

/// Comparison of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// None.
    Nothing,
    /// The same figure of another run.
    Run(usize),
    /// The lower figure of two other runs.
    Lower(usize, usize),
}

/// A work: participants that take turns at one load.
#[derive(Clone, Debug)]
pub struct Work {
    /// Name, for selection.
    pub name: &'static str,
    /// Description.
    pub text: &'static str,
    /// Runs, in the order of a turn.
    pub runs: Vec<Run>,
    /// Lines of the table.
    pub rows: Vec<Row>,
}

impl Work {
    /// Returns the same figures of the gateway at the same load, next to those of its build before a
    /// change; none if the gateway has no part in the work with its defaults on one core.
    pub fn of_a_change(self) -> Option<Work> {
        let ours = self.runs.iter().position(|(party, _)| *party == Party::Ours)?;
        let (_, load) = *self.runs.get(ours)?;
        let figures: BTreeSet<_> =
            self.rows.iter().filter(|row| row.run == ours).map(|row| row.figure).collect();
        let rows = figures.into_iter().map(shown).collect();
        Some(Work { runs: vec![(Party::Before, load), (Party::Ours, load)], rows, ..self })
    }
}

/// Dialect of today's clients.
pub const CURRENT: &str = "sigver-20";
const ORIGINAL: Party = Party::Original("20.1.0");

/// Returns a throughput load of sigver 20.
pub const fn relay(rooms: usize, flight: usize, bytes: usize) -> LoadShape {
    spoken(CURRENT, CURRENT, rooms, flight, bytes)
}

const fn spoken(
    member: &'static str,
    joiner: &'static str,
    rooms: usize,
    flight: usize,
    bytes: usize,
) -> LoadShape {
    LoadShape { rooms, flight, bytes, member, joiner }
}

fn row(figure: Figure, comparison: Comparison, target: Target) -> Row {
    let run = match comparison {
        Comparison::Nothing => 0,
        Comparison::Run(_) => 1,
        Comparison::Lower(..) => 2,
    };
    Row { figure, run, comparison, target: Some(target) }
}

/// Returns a row with the ratio of the second run to the first.
fn ratio(figure: Figure, target: Target) -> Row {
    row(figure, Comparison::Run(0), target)
}

/// Returns a row with the same ratio and no target.
fn shown(figure: Figure) -> Row {
    Row { target: None, ..ratio(figure, Target::AtLeast(0.0)) }
}

/// Returns a row with the first run's figure.
fn absolute(figure: Figure, target: Target) -> Row {
    row(figure, Comparison::Nothing, target)
}

/// Returns a work that compares a Node.js server and the gateway at one load.
fn both(name: &'static str, text: &'static str, load: Load, rows: Vec<Row>) -> Work {
    Work { name, text, runs: vec![(ORIGINAL, load), (Party::Ours, load)], rows }
}

/// Returns the same work, with the bare relay as third participant.
fn with_reference(name: &'static str, text: &'static str, load: Load, rows: Vec<Row>) -> Work {
    Work { name, text, runs: vec![(ORIGINAL, load), (Party::Ours, load), (Party::Reference, load)], rows }
}

/// Returns a row with the ratio of the gateway to the bare relay, and no target.
fn compared_with_third(figure: Figure) -> Row {
    Row { comparison: Comparison::Run(2), ..shown(figure) }
}

/// Returns two works that compare an older dialect with a release of its time. The bare relay speaks sigver
/// 20, with the same content size.
fn older(
    names: [&'static str; 2],
    texts: [&'static str; 2],
    version: &'static str,
    dialect: &'static str,
    rooms: usize,
) -> [Work; 2] {
    let at = |flight| Load::Throughput(spoken(dialect, dialect, rooms, flight, 64));
    let runs = |flight| {
        let least = Load::Throughput(relay(rooms, flight, 64));
        vec![(Party::Original(version), at(flight)), (Party::Ours, at(flight)), (Party::Reference, least)]
    };
    let asked = |figure| ratio(figure, Target::AtLeast(2.0));
    [
        Work {
            name: names[0],
            text: texts[0],
            runs: runs(1),
            rows: vec![asked(Figure::RatePerCore), compared_with_third(Figure::RatePerCore)],
        },
        Work {
            name: names[1],
            text: texts[1],
            runs: runs(16),
            rows: vec![
                asked(Figure::Rate),
                shown(Figure::RatePerCore),
                compared_with_third(Figure::Rate),
                compared_with_third(Figure::RatePerCore),
            ],
        },
    ]
}

/// Returns all works, in the order of the table.
pub fn all() -> Vec<Work> {
    use Figure::{
        Cost, Heartbeats, Median, Member, Rate, RatePerCore, RetainedMemory, SessionCost, SessionsPerCore,
        Size, Start, Storm, StormCost, Tail,
    };
    use Target::{AtLeast, AtMost};

    let flying = Load::Throughput(relay(50, 16, 64));
    // Divisible by two halves of a load at two servers.
    let shared = Load::Throughput(relay(52, 16, 64));
    let mut works = vec![
        with_reference(
            "relay-50",
            "relay, 50 rooms, 1 in flight, 64 bytes",
            Load::Throughput(relay(50, 1, 64)),
            vec![ratio(Cost, AtMost(0.41)), compared_with_third(Cost)],
        ),
        with_reference(
            "relay-2000",
            "relay, 2,000 rooms, 1 in flight, 64 bytes",
            Load::Throughput(relay(2_000, 1, 64)),
            vec![ratio(RatePerCore, AtLeast(2.6)), compared_with_third(RatePerCore)],
        ),
        with_reference(
            "flight-64",
            "relay, 50 rooms, 16 in flight, 64 bytes",
            flying,
            vec![ratio(Rate, AtLeast(14.0)), shown(RatePerCore), compared_with_third(RatePerCore)],
        ),
        both(
            "flight-1024",
            "relay, 50 rooms, 16 in flight, 1,024 bytes",
            Load::Throughput(relay(50, 16, 1_024)),
            vec![ratio(Rate, AtLeast(10.0)), shown(RatePerCore)],
        ),
        with_reference(
            "steady",
            "round trip at a steady 8,000 messages/s, 50 rooms, 64 bytes",
            Load::Steady(relay(50, 1, 64), 8_000),
            vec![
                ratio(Median, AtMost(0.5)),
                shown(Tail),
                compared_with_third(Median),
                Row { target: Some(AtMost(1.3)), ..compared_with_third(Tail) },
            ],
        ),
        both(
            "sessions",
            "whole session: 2 connects, join, offer, answer, close",
            Load::Sessions,
            vec![ratio(SessionCost, AtMost(0.23))],
        ),
        with_reference(
            "storm",
            "1,000 joiners at once into one room, until all are answered",
            Load::Storm(1_000, Connected::After),
            vec![ratio(Storm, AtMost(0.045)), shown(StormCost), compared_with_third(Storm)],
        ),
        with_reference(
            "storm-connected",
            "4,000 joiners at once that are connected already",
            Load::Storm(4_000, Connected::Before),
            vec![ratio(Storm, AtMost(0.07)), shown(StormCost), compared_with_third(Storm)],
        ),
        with_reference(
            "idle",
            "5,000 idle members, heartbeats both ways",
            Load::Idle(5_000),
            vec![
                Row { run: 1, ..absolute(Member, AtMost(1.5)) },
                shown(Member),
                ratio(Heartbeats, AtMost(0.3)),
                compared_with_third(Member),
                compared_with_third(Heartbeats),
            ],
        ),
        both(
            "kept",
            "memory kept after messages of 16 KiB, 1,000 rooms",
            Load::RetainedMemory(1_000),
            vec![Row { run: 1, ..absolute(RetainedMemory, AtMost(5.0)) }, shown(RetainedMemory)],
        ),
        both(
            "start",
            "start",
            Load::Start,
            vec![
                Row { run: 1, ..absolute(Size, AtMost(6.0)) },
                Row { run: 1, ..absolute(Start, AtMost(20.0)) },
                shown(Size),
                shown(Start),
            ],
        ),
        Work {
            name: "two-cores",
            text: "relay, 52 rooms, 16 in flight, 64 bytes, server and load on two cores, against both on one",
            runs: vec![
                (Party::OursSharingOne, shared),
                (Party::OursSharingTwo, shared),
                (Party::OursApart, shared),
            ],
            rows: vec![
                ratio(Rate, AtLeast(1.7)),
                shown(Figure::Capacity),
                compared_with_third(Rate),
                compared_with_third(Figure::Capacity),
            ],
        },
    ];
    works.extend(older(
        ["sigver-5", "sigver-5-flight"],
        ["sigver-5 (JSON): relay, 1 room, 1 in flight, 64 bytes", "sigver-5 (JSON): the same, 16 in flight"],
        "5.0.0",
        "sigver-5",
        1,
    ));
    works.extend(older(
        ["sigver-13", "sigver-13-flight"],
        [
            "sigver-13 (JSON): relay, 50 rooms, 1 in flight, 64 bytes",
            "sigver-13 (JSON): the same, 16 in flight",
        ],
        "14.0.0",
        "sigver-13",
        50,
    ));
    works.extend(older(
        ["sigver-16", "sigver-16-flight"],
        [
            "sigver-16 (protobuf-v1): relay, 50 rooms, 1 in flight, 64 bytes",
            "sigver-16 (protobuf-v1): the same, 16 in flight",
        ],
        "17.0.1",
        "sigver-16",
        50,
    ));
    let mixed = |member, joiner| (Party::Ours, Load::Throughput(spoken(member, joiner, 50, 16, 64)));
    works.extend([
        Work {
            name: "cross",
            text: "member sigver-5, joiner sigver-20: relay, 50 rooms, 16 in flight, against the slower of both",
            runs: vec![mixed("sigver-5", "sigver-5"), mixed(CURRENT, CURRENT), mixed("sigver-5", CURRENT)],
            rows: vec![row(RatePerCore, Comparison::Lower(0, 1), AtLeast(0.75))],
        },
        Work {
            name: "tls-idle",
            text: "TLS: 5,000 idle members",
            runs: vec![(Party::OursTls, Load::Idle(5_000))],
            rows: vec![absolute(Member, AtMost(10.0))],
        },
        Work {
            name: "tls-sessions",
            text: "TLS: whole sessions, against a bare relay behind rustls",
            runs: vec![(Party::ReferenceTls, Load::Sessions), (Party::OursTls, Load::Sessions)],
            rows: vec![
                // Or 3,000 sessions per second, whichever is less.
                ratio(SessionsPerCore, AtLeast(0.8)),
            ],
        },
    ]);
    works
}

impl Load {
    /// Returns a tenth of the load, for a smoke test.
    pub fn smaller(self) -> Load {
        match self {
            Load::Idle(members) => Load::Idle(members / 10),
            Load::Storm(joiners, connected) => Load::Storm(joiners / 10, connected),
            Load::RetainedMemory(rooms) => Load::RetainedMemory(rooms / 10),
            Load::Throughput(relay) if relay.rooms > 100 => {
                Load::Throughput(LoadShape { rooms: relay.rooms / 10, ..relay })
            }
            same => same,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn rows_refer_to_existing_runs() {
        let works = all();
        let names: BTreeSet<&str> = works.iter().map(|work| work.name).collect();
        assert_eq!(names.len(), works.len());
        for work in works {
            for row in work.rows {
                let named = match row.comparison {
                    Comparison::Nothing => vec![row.run],
                    Comparison::Run(other) => vec![row.run, other],
                    Comparison::Lower(one, other) => vec![row.run, one, other],
                };
                assert!(named.iter().all(|run| *run < work.runs.len()), "{}", work.name);
                assert!(named[1..].iter().all(|run| *run != row.run), "{}", work.name);
            }
        }
    }
}
