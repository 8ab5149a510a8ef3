//! Figures, their samples, and their targets. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

/// A measured quantity. Its unit is the one in which it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Relayed contents per second, in thousands.
    Rate,
    /// Relayed contents per second of the server's CPU time, in thousands.
    RatePerCore,
    /// The same times the server's cores: its capacity without a load generator on them.
    Capacity,
    /// CPU time of the server per content, in µs.
    Cost,
    /// CPU time of the bare relay per content, in µs.
    BareCost,
    /// Load of the server, in % of a core.
    Busy,
    /// CPU load of the load generator, in % of a core.
    LoadBusy,
    /// Share of the machine that other processes used, in %.
    Others,
    /// Median round trip, in ms.
    Median,
    /// 99th percentile of round trips, in ms.
    Tail,
    /// CPU time of the server per session, in µs.
    SessionCost,
    /// Sessions per second of the server's CPU time.
    SessionsPerCore,
    /// Time until all joiners were answered, in ms.
    Storm,
    /// CPU time of the server until then, in ms.
    StormCost,
    /// Resident memory per idle member, in kB.
    Member,
    /// CPU time of the server per idle member, in µs per second.
    Heartbeats,
    /// Resident memory of all idle members, in MB.
    Held,
    /// CPU time of the server for all idle members, in ms per second.
    Beats,
    /// Kernel memory per idle member's connection, in kB.
    Kernel,
    /// Memory retained per connection after large messages, in KiB.
    RetainedMemory,
    /// Resident memory at start, in MB.
    Size,
    /// Time from start until listening, in ms.
    Start,
}

impl Figure {
    /// Returns the unit shown in the table.
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
            Figure::Storm => "ms",
            Figure::StormCost => "ms of CPU",
            Figure::Kernel => "kB of the system's/member",
            Figure::Held => "MB in all",
            Figure::Beats => "ms of CPU/s",
            Figure::Member => "kB/member",
            Figure::Heartbeats => "µs of CPU/s per member",
            Figure::RetainedMemory => "KiB/connection",
            Figure::Size => "MB",
            Figure::Start => "ms to listening",
        }
    }
}

/// Figures of one turn of one server.
pub type Sample = BTreeMap<Figure, f64>;

/// Target of a figure, or of its ratio to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Upper limit.
    AtMost(f64),
    /// Lower limit.
    AtLeast(f64),
}

impl Target {
    /// Returns true if `value` meets the target; a value that could not be measured does not.
    pub fn met(self, value: f64) -> bool {
        match self {
            Target::AtMost(limit) => value <= limit,
            Target::AtLeast(limit) => value >= limit,
        }
    }

    /// Returns the target as the table shows it.
    pub fn text(self, ratio: bool) -> String {
        let times = if ratio { " ×" } else { "" };
        match self {
            Target::AtMost(limit) => format!("≤ {limit}{times}"),
            Target::AtLeast(limit) => format!("≥ {limit}{times}"),
        }
    }
}

/// Formats a value with three significant digits.
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
    fn target_includes_its_limit() {
        assert!(Target::AtMost(0.5).met(0.5) && !Target::AtMost(0.5).met(0.51));
        assert!(Target::AtLeast(2.0).met(2.0) && !Target::AtLeast(2.0).met(1.99));
        assert!(!Target::AtMost(0.5).met(f64::NAN) && !Target::AtLeast(0.5).met(f64::NAN));
        assert_eq!(Target::AtMost(0.41).text(true), "≤ 0.41 ×");
    }

    #[test]
    fn three_significant_digits_are_shown() {
        let shown: Vec<String> = [1234.5, 99.96, 99.94, 9.996, 1.234, 0.99951, 0.0456].map(digits).into();
        assert_eq!(shown, ["1234", "100", "99.9", "10.0", "1.23", "1.00", "0.046"]);
    }
}
