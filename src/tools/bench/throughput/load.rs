//! What the load itself did, and whether it is what limits. Judged only: it is measured elsewhere.

use serde::Serialize;

use crate::tools::bench::measure::Times;

/// The load is what limits if its threads are busy for more than this share of the time, ...
const BUSY: f64 = 0.85;
/// ... or if a message is sent as late as this share of a round trip.
const LATE: f64 = 0.3;

/// What the load itself did, so that it is not taken for the server.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// How many threads it had for messages.
    pub threads: usize,
    /// How many processors were busy with it: 1 is all of one. `None` where the system does not tell.
    pub busy: Option<f64>,
    /// With a rate, how long after they were due messages of joiners were sent.
    pub sent_late: Option<Times>,
    /// With a rate, why times are those of the load, rather than of the server.
    pub limits: Option<&'static str>,
}

impl Load {
    pub(super) fn of(
        threads: usize,
        busy: Option<f64>,
        sent_late: Option<Times>,
        round_trip: &Times,
    ) -> Load {
        let limits = match (busy, sent_late) {
            (_, None) => None,
            (Some(busy), Some(_)) if busy > BUSY * threads as f64 => {
                Some("it has no processor time left: take a lower rate, or give it more cores")
            }
            (_, Some(late)) if late.p50_us > LATE * round_trip.p50_us => Some(
                "it sends late for a large part of the round trip: take a lower rate, or leave the load a core of its own",
            ),
            (_, Some(late)) if late.p99_us > LATE * round_trip.p99_us => {
                Some("its latest messages are much of the p99: leave the load a core of its own")
            }
            _ => None,
        };
        Load { threads, busy, sent_late, limits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(p50_us: f64, p99_us: f64) -> Times {
        Times { count: 100, p50_us, p99_us, max_us: p99_us }
    }

    #[test]
    fn a_load_that_limits_is_told() {
        let limits = |busy, late, trip| Load::of(2, Some(busy), late, &trip).limits;
        let trip = times(200.0, 1000.0);
        assert_eq!(limits(0.5, Some(times(20.0, 100.0)), trip), None);
        assert!(limits(1.9, Some(times(20.0, 100.0)), trip).unwrap().contains("no processor time"));
        assert!(limits(0.5, Some(times(120.0, 130.0)), trip).unwrap().contains("sends late"));
        assert!(limits(0.5, Some(times(20.0, 900.0)), trip).unwrap().contains("p99"));
        assert_eq!(limits(2.0, None, trip), None, "as many as can be are as many as the load can, too");
    }
}
