//! What is measured, and what the samples of some turns come to: medians, ratios, whether a target is met. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

/// One thing that can be measured. Its unit is the one in which it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Contents relayed in a second, in thousands.
    Rate,
    /// Contents relayed in a second of the server's processor time, in thousands.
    RatePerCore,
    /// The same, times the cores that the server has: what it could do with them for itself alone.
    Capacity,
    /// The server's processor time for a content, in µs.
    Cost,
    /// The same of the bare relay.
    BareCost,
    /// How busy the server was, in % of a core.
    Busy,
    /// How busy the load was, in % of a core.
    LoadBusy,
    /// How much of the machine other processes took meanwhile, in %.
    Others,
    /// Half of the contents came back within this time, in ms.
    Median,
    /// 99 of 100 did.
    Tail,
    /// The server's processor time for a whole session, in µs.
    SessionCost,
    /// Sessions in a second of the server's processor time.
    SessionsPerCore,
    /// How long it took until all were answered, in ms.
    StormPlan,
    /// The server's processor time until then, in ms.
    StormCost,
    /// Resident memory for an idle member, in kB.
    Member,
    /// The server's processor time for an idle member, in µs per second.
    Heartbeats,
    /// Resident memory for all idle members, in MB.
    Held,
    /// The server's processor time for all idle members, in ms per second.
    Beats,
    /// Memory of the system's for an idle member's connection, in kB.
    Kernel,
    /// Resident memory that is kept for a connection after large messages, in KiB.
    RetainedMemoryResult,
    /// Resident memory at start, in MB.
    Size,
    /// From its start until it listens, in ms.
    Start,
}

impl Figure {
    /// What the figures of the table are of.
    pub fn unit(self) -> &'static str {
        match self {
            Figure::Rate => "1000 messages/s",
            Figure::RatePerCore => "1000 messages/s per core",
            Figure::Capacity => "1000 messages/s per core, times cores",
            Figure::Cost | Figure::BareCost => "µs of CPU/message",
            Figure::Busy | Figure::LoadBusy => "% of a core",
            Figure::Others => "% of the machine",
            Figure::Median => "ms (p50)",
            Figure::Tail => "ms (p99)",
            Figure::SessionCost => "µs of CPU/session",
            Figure::SessionsPerCore => "sessions/s per core",
            Figure::StormPlan => "ms",
            Figure::StormCost => "ms of CPU",
            Figure::Kernel => "kB of the system's/member",
            Figure::Held => "MB in all",
            Figure::Beats => "ms of CPU/s",
            Figure::Member => "kB/member",
            Figure::Heartbeats => "µs of CPU/s per member",
            Figure::RetainedMemoryResult => "KiB/connection",
            Figure::Size => "MB",
            Figure::Start => "ms to listening",
        }
    }
}

/// What one turn of one server has shown.
pub type Sample = BTreeMap<Figure, f64>;

/// What is asked of a figure, or of its ratio to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Not more.
    AtMost(f64),
    /// Not less.
    AtLeast(f64),
}

impl Target {
    /// Whether a value is what is asked for. What could not be measured is not.
    pub fn met(self, value: f64) -> bool {
        match self {
            Target::AtMost(limit) => value <= limit,
            Target::AtLeast(limit) => value >= limit,
        }
    }

    /// As it stands in the table.
    pub fn text(self, ratio: bool) -> String {
        let times = if ratio { " ×" } else { "" };
        match self {
            Target::AtMost(limit) => format!("≤ {limit}{times}"),
            Target::AtLeast(limit) => format!("≥ {limit}{times}"),
        }
    }
}

/// The values of some turns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The one in the middle.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Summary {
    /// Of values in any order; none of none.
    pub fn of(mut values: Vec<f64>) -> Option<Summary> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let (left, right) = (values.get((values.len() - 1) / 2)?, values.get(values.len() / 2)?);
        Some(Summary { median: (left + right) / 2.0, least, most })
    }
}

/// With three digits that mean something, and no more.
pub fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.9995 => format!("{value:.2}"),
        size if size >= 0.0005 || size == 0.0 => format!("{value:.3}"),
        _ => "< 0.001".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let of = |values: &[f64]| Summary::of(values.to_vec()).unwrap();
        assert_eq!(of(&[3.0, 1.0, 2.0]), Summary { median: 2.0, least: 1.0, most: 3.0 });
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(of(&[7.0]), Summary { median: 7.0, least: 7.0, most: 7.0 });
        assert_eq!(Summary::of(Vec::new()), None);
    }

    #[test]
    fn targets_include_their_limit() {
        assert!(Target::AtMost(0.5).met(0.5) && !Target::AtMost(0.5).met(0.51));
        assert!(Target::AtLeast(2.0).met(2.0) && !Target::AtLeast(2.0).met(1.99));
        assert!(!Target::AtMost(0.5).met(f64::NAN) && !Target::AtLeast(0.5).met(f64::NAN));
        assert_eq!(Target::AtMost(0.41).text(true), "≤ 0.41 ×");
    }

    #[test]
    fn three_digits_are_shown() {
        let shown: Vec<String> = [1234.5, 99.96, 99.94, 9.996, 1.234, 0.99951, 0.0456].map(digits).into();
        assert_eq!(shown, ["1234", "100", "99.9", "10.0", "1.23", "1.00", "0.046"]);
    }
}
