//! Text output of `sigver bench`.

use crate::tools::bench::{
    Cost, IdleResult, Load, Lost, Percentiles, RetainedMemoryResult, SessionsResult, StormResult,
    ThroughputResult,
};

/// A result that can be rendered as text.
pub(crate) trait RenderText {
    /// Returns the result as text.
    fn render(&self) -> String;

    /// Returns true if no connection was lost and no message stayed unanswered.
    fn is_complete(&self) -> bool;
}

impl RenderText for ThroughputResult {
    fn render(&self) -> String {
        let how = match (self.plan.rate, self.in_flight) {
            (Some(rate), _) => format!("{rate} messages/s requested"),
            (None, in_flight) => format!("{} in flight per pair", in_flight.unwrap_or_default()),
        };
        let mut out = format!(
            "throughput, member {}, joiner {}: {} rooms, {} bytes, {how}, {:.1} s\n",
            self.plan.member, self.plan.joiner, self.plan.rooms, self.plan.bytes, self.seconds
        );
        line(&mut out, "messages/s", &format!("{:.0}", self.messages_per_second));
        line(&mut out, "round trip", &times(&self.round_trip));
        if self.unanswered > 0 {
            line(&mut out, "unanswered", &format!("{} of those due", self.unanswered));
        }
        cost(&mut out, self.server.as_ref(), "message");
        load(&mut out, &self.load);
        ends(&mut out, &self.lost, self.interrupted);
        out
    }

    fn is_complete(&self) -> bool {
        self.lost.count == 0 && self.unanswered == 0
    }
}

impl RenderText for SessionsResult {
    fn render(&self) -> String {
        let mut out = format!(
            "sessions, member {}, joiner {}: {} at a time, {:.1} s\n",
            self.plan.member, self.plan.joiner, self.plan.concurrency, self.seconds
        );
        line(&mut out, "sessions/s", &format!("{:.1}", self.sessions_per_second));
        line(&mut out, "session", &times(&self.session));
        cost(&mut out, self.server.as_ref(), "session");
        ends(&mut out, &self.lost, self.interrupted);
        out
    }

    fn is_complete(&self) -> bool {
        self.lost.count == 0
    }
}

impl RenderText for IdleResult {
    fn render(&self) -> String {
        let mut out =
            format!("idle, {}: {} members, {:.1} s\n", self.plan.dialect, self.plan.members, self.seconds);
        line(&mut out, "connected in", &format!("{:.2} s", self.connecting_seconds));
        cost(&mut out, self.server.as_ref(), "member and second");
        if let Some(bytes) = self.bytes_per_member {
            line(&mut out, "memory", &format!("{bytes:.0} bytes per member"));
        }
        ends(&mut out, &self.lost, self.interrupted);
        out
    }

    fn is_complete(&self) -> bool {
        self.lost.count == 0
    }
}

impl RenderText for StormResult {
    fn render(&self) -> String {
        let before = if self.plan.connected { ", connected before" } else { "" };
        let mut out = format!(
            "storm, member {}, joiners {}: {} at once{before}\n",
            self.plan.member, self.plan.joiner, self.plan.joiners
        );
        line(&mut out, "answered", &format!("{} in {:.3} s", self.answered, self.seconds));
        line(&mut out, "joins/s", &format!("{:.0}", self.joins_per_second));
        line(&mut out, "answer", &times(&self.answer));
        cost(&mut out, self.server.as_ref(), "joiner");
        ends(&mut out, &self.lost, false);
        out
    }

    fn is_complete(&self) -> bool {
        self.lost.count == 0
    }
}

impl RenderText for RetainedMemoryResult {
    fn render(&self) -> String {
        let mut out = format!(
            "retained memory, {}: {} rooms, {} bytes\n",
            self.plan.dialect, self.plan.rooms, self.plan.bytes
        );
        line(&mut out, "memory", &format!("{:.0} bytes per connection", self.bytes_per_connection));
        line(&mut out, "before, after", &format!("{}, {}", mib(self.memory_before), mib(self.memory_after)));
        out
    }

    fn is_complete(&self) -> bool {
        true
    }
}

fn line(out: &mut String, name: &str, value: &str) {
    out.push_str(&format!("  {name:<14} {value}\n"));
}

fn times(times: &Percentiles) -> String {
    match times.count {
        0 => "none".to_owned(),
        _ => {
            let [p50, p99, max] = [times.p50_us, times.p99_us, times.max_us].map(time);
            format!("p50 {p50}, p99 {p99}, max {max}")
        }
    }
}

/// Formats a duration in µs with a suitable unit.
fn time(us: f64) -> String {
    match us {
        ..1e3 => format!("{us:.1} µs"),
        ..1e6 => format!("{:.2} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1024.0 / 1024.0)
}

fn cost(out: &mut String, cost: Option<&Cost>, each: &str) {
    let Some(cost) = cost else { return };
    let load = cost.load * 100.0;
    line(out, "server CPU", &format!("{:.2} µs per {each}, {load:.0} % of one processor", cost.cpu_us_each));
    line(out, "server memory", &format!("{}, was {}", mib(cost.memory_after), mib(cost.memory_before)));
}

fn load(out: &mut String, load: &Load) {
    if let Some(late) = &load.sent_late {
        line(out, "sent late by", &times(late));
    }
    if let Some(busy) = load.busy {
        let threads = match load.threads {
            1 => "its one thread".to_owned(),
            threads => format!("its {threads} threads"),
        };
        let share = busy * 100.0 / load.threads.max(1) as f64;
        line(out, "load CPU", &format!("{share:.0} % of {threads}"));
    }
    if let Some(why) = load.limits {
        line(out, "WARNING", &format!("times are those of the load, not of the server: {why}"));
    }
}

fn ends(out: &mut String, lost: &Lost, interrupted: bool) {
    if let Some(first) = &lost.first {
        line(out, "lost", &format!("{}, the first: {first}", lost.count));
    }
    if interrupted {
        line(out, "interrupted", "what was measured until then");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!([12.34, 1234.0, 12_345_678.0].map(time), ["12.3 µs", "1.23 ms", "12.35 s"]);
        assert_eq!(times(&Percentiles::default()), "none");
    }

    #[test]
    fn lost_connections_are_rendered() {
        let mut out = String::new();
        ends(&mut out, &Lost { count: 2, first: Some("a member: closed with 4000".to_owned()) }, true);
        assert!(out.contains("2, the first: a member: closed with 4000\n"), "{out}");
        assert!(out.contains("interrupted"), "{out}");
    }
}
