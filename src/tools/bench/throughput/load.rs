//! Judgement of the load generator: true limits of the server, or of the load.

use serde::Serialize;

use crate::tools::bench::measure::Percentiles;

/// Share of CPU time of its threads above which the load generator is the bottleneck.
const BUSY: f64 = 0.85;
/// Share of a round trip above which late sends distort it.
const LATE: f64 = 0.3;

/// State of the load generator during a measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// Number of threads for messages.
    pub threads: usize,
    /// Average number of busy CPUs; `None` if the system does not report it.
    pub busy: Option<f64>,
    /// With a rate: delay of joiners' messages after they were due.
    pub sent_late: Option<Percentiles>,
    /// With a rate: the reason why times are those of the load generator, not of the server.
    pub limits: Option<&'static str>,
}

impl Load {
    pub(super) fn of(
        threads: usize,
        busy: Option<f64>,
        sent_late: Option<Percentiles>,
        round_trip: &Percentiles,
    ) -> Load {
        let limits = match (busy, sent_late) {
            (_, None) => None,
            (Some(busy), Some(_)) if busy > BUSY * threads as f64 => {
                Some("the load generator is out of CPU time: lower the rate or add cores")
            }
            (_, Some(late)) if late.p50_us > LATE * round_trip.p50_us => Some(
                "sends are delayed by a large part of the round trip: lower the rate or reserve a core for the load generator",
            ),
            (_, Some(late)) if late.p99_us > LATE * round_trip.p99_us => {
                Some("the most delayed sends dominate the p99: reserve a core for the load generator")
            }
            _ => None,
        };
        Load { threads, busy, sent_late, limits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(p50_us: f64, p99_us: f64) -> Percentiles {
        Percentiles { count: 100, p50_us, p99_us, max_us: p99_us }
    }

    #[test]
    fn saturated_load_is_reported() {
        let limits = |busy, late, trip| Load::of(2, Some(busy), late, &trip).limits;
        let trip = times(200.0, 1000.0);
        assert_eq!(limits(0.5, Some(times(20.0, 100.0)), trip), None);
        assert!(limits(1.9, Some(times(20.0, 100.0)), trip).unwrap().contains("out of CPU time"));
        assert!(limits(0.5, Some(times(120.0, 130.0)), trip).unwrap().contains("sends are delayed"));
        assert!(limits(0.5, Some(times(20.0, 900.0)), trip).unwrap().contains("p99"));
        assert_eq!(limits(2.0, None, trip), None, "a closed loop has no rate to miss");
    }
}
