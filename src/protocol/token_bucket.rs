//! A token bucket: a rate, with a burst of what the rate allows in one second. A plain value; the time is an
//! argument.

use std::time::{Duration, Instant};

/// Time in which an empty bucket is full again.
const BURST: Duration = Duration::from_secs(1);

/// A token bucket. Its rate, in tokens per second, is an argument, as many buckets share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenBucket {
    /// Time at which the bucket is full, if nothing is taken until then.
    full_at: Instant,
}

impl TokenBucket {
    /// Returns a full bucket.
    pub(crate) fn full(now: Instant) -> Self {
        TokenBucket { full_at: now }
    }

    /// Takes tokens, also such as the bucket does not have yet.
    pub(crate) fn take(&mut self, tokens: usize, rate: u32, now: Instant) {
        self.full_at = later(self.full_at.max(now), duration(tokens, rate));
    }

    /// Takes a token. Returns false if there is none.
    pub(crate) fn try_take(&mut self, rate: u32, now: Instant) -> bool {
        let full_at = later(self.full_at.max(now), duration(1, rate));
        let taken = full_at.saturating_duration_since(now) <= BURST;
        if taken {
            self.full_at = full_at;
        }
        taken
    }

    /// Returns true if there is a token.
    pub(crate) fn has_token(mut self, rate: u32, now: Instant) -> bool {
        self.try_take(rate, now)
    }

    /// Returns when the bucket has all tokens that were taken, or `None` if that is not after `now`.
    pub(crate) fn ready_at(&self, now: Instant) -> Option<Instant> {
        let debt = self.full_at.saturating_duration_since(now).checked_sub(BURST)?;
        (!debt.is_zero()).then(|| later(now, debt))
    }

    /// Returns the time in which the bucket is full, if nothing is taken until then.
    #[cfg(feature = "bridge")]
    pub(crate) fn full_in(&self, now: Instant) -> Duration {
        self.full_at.saturating_duration_since(now)
    }

    /// Returns true if no tokens are missing.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

fn later(time: Instant, duration: Duration) -> Instant {
    time.checked_add(duration).unwrap_or(time)
}

/// Returns the time in which so many tokens arrive.
fn duration(tokens: usize, rate: u32) -> Duration {
    let nanos =
        (tokens as u128).saturating_mul(1_000_000_000).checked_div(rate.max(1).into()).unwrap_or(u128::MAX);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(Duration::from_secs(86_400))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn burst_is_what_the_rate_allows_in_one_second() {
        let start = Instant::now();
        for rate in [1, 3, 7, 1000] {
            let mut bucket = TokenBucket::full(start);
            let taken = (0..2 * rate).filter(|_| bucket.try_take(rate, start)).count();
            assert_eq!(taken, rate as usize);
            let later = start + Duration::from_secs(5);
            assert!(bucket.is_full(later) && bucket.try_take(rate, later) && !bucket.is_full(later));
        }
    }

    #[test]
    fn debt_ends_when_its_tokens_have_arrived() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(start);
        bucket.take(10, 10, start);
        assert_eq!(bucket.ready_at(start), None);
        bucket.take(5, 10, start);
        let ready_at = start + Duration::from_millis(500);
        assert_eq!(bucket.ready_at(start), Some(ready_at));
        assert_eq!((bucket.ready_at(ready_at), bucket.try_take(10, ready_at)), (None, false));
        bucket.take(usize::MAX, 1, start);
        assert!(bucket.ready_at(start).is_some());
    }

    proptest! {
        /// In any span of time, no more is taken than the rate allows in it and in one second more.
        #[test]
        fn rate_holds_over_any_span(rate in 1u32..50, steps in prop::collection::vec(0u64..400, 1..200)) {
            let start = Instant::now();
            let mut bucket = TokenBucket::full(start);
            let mut now = start;
            let mut taken = Vec::new();
            for millis in steps {
                now += Duration::from_millis(millis);
                if bucket.try_take(rate, now) {
                    taken.push(now);
                }
            }
            for (first, from) in taken.iter().enumerate() {
                for (last, to) in taken.iter().enumerate().skip(first) {
                    let span = (*to - *from).as_secs_f64();
                    prop_assert!((last - first + 1) as f64 <= f64::from(rate) * (span + 1.0) + 1e-3);
                }
            }
        }
    }
}
