//! The works: who does what, which figures are shown, and what is asked of them. Only the list; how a load is put on
//! a server is in `drive`, how the figures are shown in `table`.

use crate::figures::{Figure, Target};
use crate::servers::Party;

/// What is asked of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Contents to and fro in rooms of a member and a joiner, so many of them on their way at a time in each room.
    ThroughputPlan(ThroughputPlan),
    /// The same at a steady rate, so many in a second in all.
    Steady(ThroughputPlan, u32),
    /// Sessions one after the other, in some rooms at a time: two connects, a join, an offer, an answer, a close.
    SessionsPlan,
    /// So many joiners at once into one room, who connect before the clock starts or after it.
    StormPlan(usize, Connected),
    /// Members that do nothing but answer heartbeats.
    IdlePlan(usize),
    /// One content of 16 KiB each way in so many rooms: what is kept of it.
    RetainedMemoryResult(usize),
    /// Nothing: the start is looked at.
    Start,
}

/// Whether joiners are connected when the clock starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connected {
    /// They are.
    Before,
    /// They connect then.
    After,
}

/// The shape of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThroughputPlan {
    /// Rooms.
    pub rooms: usize,
    /// Contents on their way in a room.
    pub flight: usize,
    /// The length of a content.
    pub bytes: usize,
    /// What the member speaks.
    pub member: &'static str,
    /// What the joiner speaks.
    pub joiner: &'static str,
}

/// One turn of one server.
pub type Run = (Party, Load);

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What is measured.
    pub figure: Figure,
    /// In which of the runs.
    pub run: usize,
    /// What it is compared with.
    pub beside: Beside,
    /// What is asked of the ratio, or of the figure itself if it is compared with nothing.
    pub target: Option<Target>,
}

/// What a figure is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nothing.
    Nothing,
    /// The same figure of another run.
    Run(usize),
    /// The lower of two.
    Lower(usize, usize),
}

/// A work: servers that take turns at the same thing.
#[derive(Clone, Debug)]
pub struct Work {
    /// To select it by.
    pub name: &'static str,
    /// What is done.
    pub text: &'static str,
    /// Who takes part, in the order of the turns.
    pub runs: Vec<Run>,
    /// What is shown.
    pub rows: Vec<Row>,
}

/// What today's clients speak.
pub const CURRENT: &str = "sigver-20";
const ORIGINAL: Party = Party::Original("20.1.0");

/// A relay of sigver 20.
pub const fn relay(rooms: usize, flight: usize, bytes: usize) -> ThroughputPlan {
    spoken(CURRENT, CURRENT, rooms, flight, bytes)
}

const fn spoken(
    member: &'static str,
    joiner: &'static str,
    rooms: usize,
    flight: usize,
    bytes: usize,
) -> ThroughputPlan {
    ThroughputPlan { rooms, flight, bytes, member, joiner }
}

fn row(figure: Figure, beside: Beside, target: Target) -> Row {
    let run = match beside {
        Beside::Nothing => 0,
        Beside::Run(_) => 1,
        Beside::Lower(..) => 2,
    };
    Row { figure, run, beside, target: Some(target) }
}

/// The second run beside the first.
fn ratio(figure: Figure, target: Target) -> Row {
    row(figure, Beside::Run(0), target)
}

/// The same for one to look at.
fn shown(figure: Figure) -> Row {
    Row { target: None, ..ratio(figure, Target::AtLeast(0.0)) }
}

/// The first run by itself.
fn absolute(figure: Figure, target: Target) -> Row {
    row(figure, Beside::Nothing, target)
}

/// The original and ours at the same load.
fn both(name: &'static str, text: &'static str, load: Load, rows: Vec<Row>) -> Work {
    Work { name, text, runs: vec![(ORIGINAL, load), (Party::Ours, load)], rows }
}

/// The same, and the least there can be as the third.
fn with_reference(name: &'static str, text: &'static str, load: Load, rows: Vec<Row>) -> Work {
    Work { name, text, runs: vec![(ORIGINAL, load), (Party::Ours, load), (Party::Reference, load)], rows }
}

/// Ours beside the third, for one to look at.
fn beside_third(figure: Figure) -> Row {
    Row { beside: Beside::Run(2), ..shown(figure) }
}

/// Two works of an older dialect beside an original of its time. The least there can be speaks that of today, in so many
/// bytes.
fn older(
    names: [&'static str; 2],
    texts: [&'static str; 2],
    version: &'static str,
    dialect: &'static str,
    rooms: usize,
) -> [Work; 2] {
    let at = |flight| Load::ThroughputPlan(spoken(dialect, dialect, rooms, flight, 64));
    let runs = |flight| {
        let least = Load::ThroughputPlan(relay(rooms, flight, 64));
        vec![(Party::Original(version), at(flight)), (Party::Ours, at(flight)), (Party::Reference, least)]
    };
    let asked = |figure| ratio(figure, Target::AtLeast(2.0));
    [
        Work {
            name: names[0],
            text: texts[0],
            runs: runs(1),
            rows: vec![asked(Figure::RatePerCore), beside_third(Figure::RatePerCore)],
        },
        Work {
            name: names[1],
            text: texts[1],
            runs: runs(16),
            rows: vec![
                asked(Figure::Rate),
                shown(Figure::RatePerCore),
                beside_third(Figure::Rate),
                beside_third(Figure::RatePerCore),
            ],
        },
    ]
}

/// All of them, in the order of the table.
pub fn all() -> Vec<Work> {
    use Figure::{
        Cost, Heartbeats, Median, Member, Rate, RatePerCore, RetainedMemoryResult, SessionCost,
        SessionsPerCore, Size, Start, StormCost, StormPlan, Tail,
    };
    use Target::{AtLeast, AtMost};

    let flying = Load::ThroughputPlan(relay(50, 16, 64));
    // As many for each half of the load at each of two servers.
    let shared = Load::ThroughputPlan(relay(52, 16, 64));
    let mut works = vec![
        with_reference(
            "relay-50",
            "relay, 50 rooms, 1 in flight, 64 bytes",
            Load::ThroughputPlan(relay(50, 1, 64)),
            vec![ratio(Cost, AtMost(0.41)), beside_third(Cost)],
        ),
        with_reference(
            "relay-2000",
            "relay, 2,000 rooms, 1 in flight, 64 bytes",
            Load::ThroughputPlan(relay(2_000, 1, 64)),
            vec![ratio(RatePerCore, AtLeast(2.6)), beside_third(RatePerCore)],
        ),
        with_reference(
            "flight-64",
            "relay, 50 rooms, 16 in flight, 64 bytes",
            flying,
            vec![ratio(Rate, AtLeast(14.0)), shown(RatePerCore), beside_third(RatePerCore)],
        ),
        both(
            "flight-1024",
            "relay, 50 rooms, 16 in flight, 1,024 bytes",
            Load::ThroughputPlan(relay(50, 16, 1_024)),
            vec![ratio(Rate, AtLeast(10.0)), shown(RatePerCore)],
        ),
        with_reference(
            "steady",
            "round trip at a steady 8,000 messages/s, 50 rooms, 64 bytes",
            Load::Steady(relay(50, 1, 64), 8_000),
            vec![
                ratio(Median, AtMost(0.5)),
                shown(Tail),
                beside_third(Median),
                Row { target: Some(AtMost(1.3)), ..beside_third(Tail) },
            ],
        ),
        both(
            "sessions",
            "whole session: 2 connects, join, offer, answer, close",
            Load::SessionsPlan,
            vec![ratio(SessionCost, AtMost(0.23))],
        ),
        with_reference(
            "storm",
            "1,000 joiners at once into one room, until all are answered",
            Load::StormPlan(1_000, Connected::After),
            vec![ratio(StormPlan, AtMost(0.045)), shown(StormCost), beside_third(StormPlan)],
        ),
        with_reference(
            "storm-connected",
            "4,000 joiners at once that are connected already",
            Load::StormPlan(4_000, Connected::Before),
            vec![ratio(StormPlan, AtMost(0.07)), shown(StormCost), beside_third(StormPlan)],
        ),
        with_reference(
            "idle",
            "5,000 idle members, heartbeats both ways",
            Load::IdlePlan(5_000),
            vec![
                Row { run: 1, ..absolute(Member, AtMost(1.5)) },
                shown(Member),
                ratio(Heartbeats, AtMost(0.3)),
                beside_third(Member),
                beside_third(Heartbeats),
            ],
        ),
        both(
            "kept",
            "memory kept after messages of 16 KiB, 1,000 rooms",
            Load::RetainedMemoryResult(1_000),
            vec![Row { run: 1, ..absolute(RetainedMemoryResult, AtMost(5.0)) }, shown(RetainedMemoryResult)],
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
            text: "relay, 52 rooms, 16 in flight, 64 bytes, server and load on two cores, beside both on one",
            runs: vec![
                (Party::OursSharingOne, shared),
                (Party::OursSharingTwo, shared),
                (Party::OursApart, shared),
            ],
            rows: vec![
                ratio(Rate, AtLeast(1.7)),
                shown(Figure::Capacity),
                beside_third(Rate),
                beside_third(Figure::Capacity),
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
    let mixed = |member, joiner| (Party::Ours, Load::ThroughputPlan(spoken(member, joiner, 50, 16, 64)));
    works.extend([
        Work {
            name: "cross",
            text: "member sigver-5, joiner sigver-20: relay, 50 rooms, 16 in flight, beside the slower of both",
            runs: vec![mixed("sigver-5", "sigver-5"), mixed(CURRENT, CURRENT), mixed("sigver-5", CURRENT)],
            rows: vec![row(RatePerCore, Beside::Lower(0, 1), AtLeast(0.75))],
        },
        Work {
            name: "tls-idle",
            text: "TLS: 5,000 idle members",
            runs: vec![(Party::OursTls, Load::IdlePlan(5_000))],
            rows: vec![absolute(Member, AtMost(10.0))],
        },
        Work {
            name: "tls-sessions",
            text: "TLS: whole sessions, beside a bare relay behind rustls",
            runs: vec![(Party::ReferenceTls, Load::SessionsPlan), (Party::OursTls, Load::SessionsPlan)],
            rows: vec![
                // Or 3,000 of them: whichever is less on a machine.
                ratio(SessionsPerCore, AtLeast(0.8)),
            ],
        },
    ]);
    works
}

impl Load {
    /// A tenth of it, for a look.
    pub fn smaller(self) -> Load {
        match self {
            Load::IdlePlan(members) => Load::IdlePlan(members / 10),
            Load::StormPlan(joiners, connected) => Load::StormPlan(joiners / 10, connected),
            Load::RetainedMemoryResult(rooms) => Load::RetainedMemoryResult(rooms / 10),
            Load::ThroughputPlan(relay) if relay.rooms > 100 => {
                Load::ThroughputPlan(ThroughputPlan { rooms: relay.rooms / 10, ..relay })
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
    fn rows_are_about_runs_that_there_are() {
        let works = all();
        let names: BTreeSet<&str> = works.iter().map(|work| work.name).collect();
        assert_eq!(names.len(), works.len());
        for work in works {
            for row in work.rows {
                let named = match row.beside {
                    Beside::Nothing => vec![row.run],
                    Beside::Run(other) => vec![row.run, other],
                    Beside::Lower(one, other) => vec![row.run, one, other],
                };
                assert!(named.iter().all(|run| *run < work.runs.len()), "{}", work.name);
                assert!(named[1..].iter().all(|run| *run != row.run), "{}", work.name);
            }
        }
    }
}
