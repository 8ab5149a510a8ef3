//! The report of one fault: what the clients saw of it, and the promises that were broken.

use std::collections::BTreeMap;
use std::time::Duration;

use sigver::server::cluster::NameHasher;

use super::Fault;
use super::history::{Attempt, Lives, double_firsts};
use super::load::{Load, ROOMS};
use crate::decisions::Decision;
use crate::node::CLUSTER;

/// The times of a fault, since the begin of the run.
#[derive(Clone, Copy, Debug)]
pub(super) struct FaultTimes {
    pub(super) from: Duration,
    /// Time from which on all must be usable.
    pub(super) usable: Duration,
    /// Time at which Redis or a link came back.
    pub(super) back: Option<Duration>,
}

/// The report of one fault.
#[derive(Debug)]
pub(super) struct FaultReport {
    fault: Fault,
    times: FaultTimes,
    attempts: Vec<Attempt>,
    lives: usize,
    conflicts: Vec<String>,
    double_firsts: Vec<String>,
    misdelivered: Vec<String>,
    /// Failures of clients that are no consequence of the fault.
    unexpected: Vec<String>,
    /// Longest time from the fault until a room of the node was used again.
    back_after: Option<Duration>,
}

impl FaultReport {
    pub(super) const HEAD: &str = "fault             joins  failed  unexpected  lives  two owners  two firsts  \
                                   misdelivered  longest wait  wait after return  rooms back after";

    pub(super) fn new(
        fault: Fault,
        times: FaultTimes,
        boot: u64,
        load: &Load,
        decisions: &[(usize, Vec<Decision>)],
    ) -> FaultReport {
        let attempts = load.attempts.lock().clone();
        let lives = Lives::new(decisions);
        let names = NameHasher::new(CLUSTER);
        let is_of_node = |room: &str| lives.owner(&names.room(room, 0).to_string(), boot) == Some(0);
        let loses_owner =
            matches!(fault, Fault::Stop | Fault::Kill | Fault::Replace | Fault::Pause | Fault::Isolate);
        let mut back_after: BTreeMap<String, Option<Duration>> = BTreeMap::new();
        if loses_owner {
            let rooms = (0..ROOMS).map(|room| load.room(room)).filter(|room| is_of_node(room));
            back_after.extend(rooms.map(|room| (room, None)));
            for attempt in attempts.iter().filter(|attempt| attempt.life().is_some() && attempt.node != 0) {
                if let Some(back) = back_after.get_mut(&attempt.room)
                    && attempt.sent >= times.from
                {
                    let after = attempt.answered - times.from;
                    *back = Some(back.map_or(after, |back: Duration| back.min(after)));
                }
            }
        }
        let never = Duration::MAX;
        let failures = attempts.iter().filter(|attempt| attempt.failure().is_some());
        let unexpected = failures.filter(|attempt| !is_excused(fault, times, attempt, load));
        FaultReport {
            fault,
            times,
            lives: lives.count(),
            conflicts: lives.conflicts(),
            double_firsts: double_firsts(&attempts).into_iter().map(|found| format!("{found:?}")).collect(),
            misdelivered: load.misdelivered.lock().clone(),
            unexpected: unexpected.map(|attempt| show(attempt, times)).collect(),
            back_after: back_after.values().map(|after| after.unwrap_or(never)).max(),
            attempts,
        }
    }

    fn waits(&self, since: Duration) -> impl Iterator<Item = Duration> {
        let decided = self.attempts.iter().filter(move |attempt| attempt.life().is_some());
        decided.map(move |attempt| attempt.answered.saturating_sub(attempt.sent.max(since)))
    }

    /// Returns the line of the table.
    pub(super) fn line(&self) -> String {
        let seconds = |time: Option<Duration>| match time {
            None => "-".to_owned(),
            Some(Duration::MAX) => "never".to_owned(),
            Some(time) => format!("{:.1} s", time.as_secs_f64()),
        };
        let failed = self.attempts.iter().filter(|attempt| attempt.failure().is_some()).count();
        let after = self.times.back.and_then(|back| self.waits(back).max());
        format!(
            "{:<16} {:>6} {:>7} {:>11} {:>6} {:>11} {:>11} {:>13} {:>13} {:>18} {:>17}",
            format!("{:?}", self.fault),
            self.attempts.len(),
            failed,
            self.unexpected.len(),
            self.lives,
            self.conflicts.len(),
            self.double_firsts.len(),
            self.misdelivered.len(),
            seconds(self.waits(Duration::ZERO).max()),
            seconds(after),
            seconds(self.back_after),
        )
    }

    /// Returns a line for each failure of a client.
    pub(super) fn details(&self) -> impl Iterator<Item = String> {
        let failures = self.attempts.iter().filter(|attempt| attempt.failure().is_some());
        failures.map(|attempt| show(attempt, self.times))
    }

    /// Returns the promises that were broken.
    pub(super) fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let all = [
            ("two owners at once", &self.conflicts),
            ("two first members at once", &self.double_firsts),
            ("a message to a third client", &self.misdelivered),
            ("a failure without a cause", &self.unexpected),
        ];
        for (promise, found) in all {
            broken.extend(found.iter().take(5).map(|found| format!("{:?}: {promise}: {found}", self.fault)));
        }
        let limit = self.times.usable.saturating_sub(self.times.from).max(Duration::from_secs(2));
        if let Some(after) = self.back_after.filter(|after| *after > limit) {
            broken.push(format!("{:?}: a room was usable only after {after:?}", self.fault));
        }
        if let Some(back) = self.times.back
            && let Some(wait) = self.waits(back).max().filter(|wait| *wait > self.times.usable - back)
        {
            broken.push(format!("{:?}: a client waited {wait:?} after the return", self.fault));
        }
        if self.lives < ROOMS {
            broken.push(format!("{:?}: only {} claims decided about rooms", self.fault, self.lives));
        }
        broken
    }
}

/// Returns true if the fault explains the failure of a client.
fn is_excused(fault: Fault, times: FaultTimes, attempt: &Attempt, load: &Load) -> bool {
    let is_during = attempt.answered >= times.from && attempt.sent <= times.usable;
    let is_old_room = (0..ROOMS).any(|room| load.room(room) == attempt.room);
    match fault {
        Fault::None | Fault::SlowNodes => false,
        // Only who wants a new room may notice that Redis is away.
        Fault::RedisEmpty
        | Fault::RedisEmptyLater
        | Fault::RedisOld
        | Fault::RedisPause
        | Fault::Failover
        | Fault::FailoverCut
        | Fault::ClusterFailover
        | Fault::CutEngine
        | Fault::HalfOpenEngine => is_during && !is_old_room,
        Fault::Stop
        | Fault::Kill
        | Fault::Replace
        | Fault::Pause
        | Fault::CutNodes
        | Fault::HalfOpenNodes
        | Fault::Isolate => is_during,
    }
}

fn show(attempt: &Attempt, times: FaultTimes) -> String {
    let since = |time: Duration| time.as_secs_f64() - times.from.as_secs_f64();
    format!(
        "{} at node {}, {:.2} to {:.2} s after: {}",
        attempt.room,
        attempt.node,
        since(attempt.sent),
        since(attempt.answered),
        attempt.failure().unwrap_or("decided"),
    )
}
