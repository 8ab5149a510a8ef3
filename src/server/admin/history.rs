//! Numbers of open connections over the last hour, a sample a minute.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

use crate::protocol::dialect::Dialect;
use crate::server::telemetry::{Telemetry, UnixSeconds};

/// Time between two samples.
pub(super) const INTERVAL: Duration = Duration::from_secs(60);

/// Number of samples that are kept: those of an hour, with both ends.
const SAMPLES: usize = 61;

/// Samples of the last hour.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<VecDeque<Sample>>);

/// Numbers of open connections at one time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    time: UnixSeconds,
    /// Connections of each dialect, then those that are not recognised, then those of signaller.
    active: [u64; Dialect::ALL.len() + 2],
}

/// The history as JSON has it.
#[derive(Serialize)]
struct HistoryReport {
    interval_s: u64,
    /// Names of the numbers of each sample.
    names: Vec<&'static str>,
    samples: Vec<SampleReport>,
}

#[derive(Serialize)]
struct SampleReport {
    time: UnixSeconds,
    active: Vec<u64>,
}

impl History {
    /// Adds a sample, in place of one that is older than an hour.
    pub(super) fn add(&self, telemetry: &Telemetry) {
        let counts = telemetry.counts();
        let last = [counts.unrecognised.active, telemetry.signaller().active];
        let dialects = Dialect::ALL.into_iter().map(|dialect| counts.dialect(dialect).assigned.active);
        let mut sample = Sample { time: UnixSeconds::now(), active: [0; Dialect::ALL.len() + 2] };
        sample.active.iter_mut().zip(dialects.chain(last)).for_each(|(active, count)| *active = count);
        let mut samples = self.0.lock();
        samples.truncate(SAMPLES - 1);
        samples.push_front(sample);
    }

    /// Returns the samples as one JSON object, oldest first.
    pub(super) fn to_json(&self) -> String {
        let kept = self.0.lock();
        let samples = kept.iter().rev();
        let samples =
            samples.map(|sample| SampleReport { time: sample.time, active: sample.active.to_vec() });
        let report = HistoryReport {
            interval_s: INTERVAL.as_secs(),
            names: Dialect::ALL.map(Dialect::name).into_iter().chain(["unrecognised", "signaller"]).collect(),
            samples: samples.collect(),
        };
        // Strings and integers only: serialising cannot fail.
        serde_json::to_string(&report).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_bounded_and_oldest_first() {
        let (history, telemetry) = (History::default(), Telemetry::new());
        let guard = telemetry.register_signaller();
        (0..SAMPLES).for_each(|_| history.add(&telemetry));
        drop(guard);
        history.add(&telemetry);
        let report: serde_json::Value = serde_json::from_str(&history.to_json()).unwrap();
        let (names, samples) = (report["names"].as_array().unwrap(), report["samples"].as_array().unwrap());
        assert_eq!(samples.len(), SAMPLES);
        assert_eq!(names.len(), samples[0]["active"].as_array().unwrap().len());
        let at = names.iter().position(|name| name == "signaller").unwrap();
        assert_eq!((&samples[0]["active"][at], &samples[60]["active"][at]), (&1.into(), &0.into()));
    }
}
