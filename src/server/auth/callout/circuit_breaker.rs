//! Circuit breaker of the questions to a program: an address whose questions it does not answer is refused at
//! once for a while. A plain state machine; the time is an argument.
//!
//! Each address has a pause of its own, so that tokens at which the program hangs keep out no client of
//! another address.

use std::time::{Duration, Instant};

use indexmap::IndexMap;

use crate::server::address_table::ClientNetwork;

/// Number of failures, one after the other, after which an address has a pause, and the program is silent.
const MAX_FAILURES: u32 = 5;

/// Time after an answer within which failures do not count: a program that answers others is there, and fails
/// at some tokens.
const ANSWER_VALIDITY: Duration = Duration::from_secs(1);

/// Shortest pause. Each that follows without an answer is twice as long.
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Most addresses that are kept. One that is forgotten is as one that was never seen.
const MAX_ADDRESSES: usize = 4096;

/// State of the questions.
#[derive(Debug, Default)]
pub(super) struct CircuitBreaker {
    addresses: IndexMap<Option<ClientNetwork>, AddressRecord>,
    /// Failures of the questions for all addresses.
    all: FailureCount,
    /// True from the fifth failure in a row, of any address, until an answer. An address then has a pause
    /// after its first failure.
    is_silent: bool,
}

/// Number of failures since the last answer.
#[derive(Debug, Default)]
struct FailureCount {
    failures: u32,
    last_answer: Option<Instant>,
}

#[derive(Debug, Default)]
struct AddressRecord {
    count: FailureCount,
    pause: Option<Pause>,
}

/// A time in which nothing is asked for an address, and that of the one question after it.
#[derive(Debug)]
struct Pause {
    length: Duration,
    /// Time of its begin, or of the question after it.
    since: Instant,
    /// End of the pause, or the time until which the question after it may take.
    until: Instant,
}

impl FailureCount {
    /// Counts the failure of a question of the time `asked`, if none was answered shortly before that.
    fn on_failure(&mut self, asked: Instant) {
        if self.last_answer.is_none_or(|answer| answer + ANSWER_VALIDITY < asked) {
            self.failures += 1;
        }
    }

    fn on_answer(&mut self, now: Instant) {
        *self = FailureCount { failures: 0, last_answer: Some(now) };
    }
}

impl CircuitBreaker {
    /// Returns the time for which nothing is asked for a client from `network`, if its address has a pause.
    pub(super) fn time_left(&self, network: Option<ClientNetwork>, now: Instant) -> Option<Duration> {
        let pause = self.addresses.get(&network)?.pause.as_ref()?;
        let left = pause.until.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Allows a question now. After a pause, it is the only one of its address for as long as its answer may
    /// take, which is `longest`.
    ///
    /// # Errors
    /// The time for which nothing is asked for a client from `network`.
    pub(super) fn try_ask(
        &mut self,
        network: Option<ClientNetwork>,
        now: Instant,
        longest: Duration,
    ) -> Result<(), Duration> {
        if let Some(left) = self.time_left(network, now) {
            return Err(left);
        }
        if let Some(pause) = self.addresses.get_mut(&network).and_then(|record| record.pause.as_mut()) {
            (pause.since, pause.until) = (now, now + longest);
        }
        Ok(())
    }

    /// Records an answer to a client from `network`. Returns true if the program was silent.
    pub(super) fn on_answer(&mut self, network: Option<ClientNetwork>, now: Instant) -> bool {
        let record = self.record(network);
        record.count.on_answer(now);
        record.pause = None;
        self.all.on_answer(now);
        if !self.is_silent {
            return false;
        }
        self.is_silent = false;
        // Those that failed as all others did. One with more failures of its own has its pause to the end.
        for record in self.addresses.values_mut().filter(|record| record.count.failures < MAX_FAILURES) {
            record.pause = None;
        }
        true
    }

    /// Records that a question of the time `asked`, for a client from `network`, has failed. Returns true
    /// if the program is silent from now on.
    pub(super) fn on_failure(
        &mut self,
        network: Option<ClientNetwork>,
        asked: Instant,
        now: Instant,
    ) -> bool {
        self.all.on_failure(asked);
        let begins = !self.is_silent && self.all.failures >= MAX_FAILURES;
        self.is_silent |= begins;
        let max_failures = if self.is_silent { 1 } else { MAX_FAILURES };
        let record = self.record(network);
        record.count.on_failure(asked);
        let length = match &record.pause {
            // A question from before it.
            Some(pause) if asked < pause.since => return begins,
            Some(pause) => (2 * pause.length).min(MAX_PAUSE),
            None if record.count.failures >= max_failures => MIN_PAUSE,
            None => return begins,
        };
        record.pause = Some(Pause { length, since: now, until: now + length });
        begins
    }

    /// Returns the record of an address. With too many, those that were added first are forgotten.
    fn record(&mut self, network: Option<ClientNetwork>) -> &mut AddressRecord {
        if self.addresses.len() >= MAX_ADDRESSES && !self.addresses.contains_key(&network) {
            // Half of them, so that this is not done with each.
            self.addresses.drain(..MAX_ADDRESSES / 2);
        }
        self.addresses.entry(network).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(2);

    fn at(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    fn client(number: u32) -> Option<ClientNetwork> {
        Some(ClientNetwork::V4(number))
    }

    /// Returns a breaker with the first pause of client 1, which begins at `start`. The program is silent.
    fn paused(start: Instant) -> CircuitBreaker {
        let (mut breaker, asked) = (CircuitBreaker::default(), start - LONGEST);
        let silent: Vec<_> = (0..MAX_FAILURES).map(|_| breaker.on_failure(client(1), asked, start)).collect();
        assert_eq!(silent, [false, false, false, false, true]);
        breaker
    }

    #[test]
    fn failures_in_a_row_begin_a_pause_that_an_answer_ends() {
        let start = Instant::now();
        let mut breaker = paused(start);
        assert_eq!(breaker.try_ask(client(1), at(start, 400), LONGEST), Err(Duration::from_millis(600)));
        // One that was asked before, and fails late.
        assert!(!breaker.on_failure(client(1), start - LONGEST, at(start, 500)));
        assert_eq!(breaker.time_left(client(1), at(start, 500)), Some(Duration::from_millis(500)));
        assert_eq!(breaker.try_ask(client(1), at(start, 1000), LONGEST), Ok(()));
        // No other one, as long as that has no answer.
        assert_eq!(breaker.try_ask(client(1), at(start, 1000), LONGEST), Err(LONGEST));
        assert!(breaker.on_answer(client(1), at(start, 1100)));
        assert!(!breaker.on_answer(client(1), at(start, 1100)));
        assert_eq!(breaker.try_ask(client(1), at(start, 1100), LONGEST), Ok(()));
    }

    #[test]
    fn pauses_of_an_address_keep_out_no_other_one() {
        let start = Instant::now();
        let mut breaker = paused(start);
        for number in 2..200 {
            assert_eq!(breaker.try_ask(client(number), start, LONGEST), Ok(()));
            assert!(!breaker.on_failure(client(number), start, start));
            // The program is silent: the first failure is enough.
            assert_eq!(breaker.try_ask(client(number), start, LONGEST), Err(MIN_PAUSE));
        }
        assert_eq!(breaker.try_ask(client(999), start, LONGEST), Ok(()));
    }

    #[test]
    fn answer_to_any_address_ends_the_pauses_but_those_of_addresses_with_many_failures() {
        let start = Instant::now();
        let mut breaker = paused(start);
        assert!(!breaker.on_failure(client(2), start, start));
        assert!(breaker.time_left(client(2), start).is_some());
        assert!(breaker.on_answer(client(3), start));
        assert_eq!(
            [1, 2, 3].map(|number| breaker.time_left(client(number), start).is_some()),
            [true, false, false]
        );
    }

    #[test]
    fn pauses_grow_up_to_the_longest() {
        let mut now = Instant::now();
        let mut breaker = paused(now);
        let mut lengths = Vec::new();
        for _ in 0..6 {
            let left = breaker.time_left(client(1), now).unwrap();
            lengths.push(left.as_secs());
            now += left;
            assert_eq!(breaker.try_ask(client(1), now, LONGEST), Ok(()));
            let asked = now;
            now += LONGEST;
            breaker.on_failure(client(1), asked, now);
        }
        assert_eq!(lengths, [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn question_without_an_end_prolongs_a_pause_by_the_longest_answer() {
        let start = Instant::now();
        let mut breaker = paused(start);
        assert_eq!(breaker.try_ask(client(1), at(start, 1000), LONGEST), Ok(()));
        assert_eq!(breaker.try_ask(client(1), at(start, 3000), LONGEST), Ok(()));
    }

    #[test]
    fn failures_at_some_tokens_are_no_pause_while_others_are_answered() {
        let start = Instant::now();
        let mut breaker = CircuitBreaker::default();
        for round in 0..100 {
            breaker.on_answer(client(1), at(start, round * 1000));
            let asked = at(start, round * 1000 + 500);
            assert!(!(0..20).any(|_| breaker.on_failure(client(1), asked, asked + LONGEST)));
            assert_eq!(breaker.time_left(client(1), asked + LONGEST), None);
        }
        // An address without any answer has a pause, and the program is not silent.
        assert!(!(0..20).any(|_| breaker.on_failure(client(2), at(start, 99_500), at(start, 99_600))));
        assert_eq!(breaker.time_left(client(2), at(start, 99_600)), Some(MIN_PAUSE));
    }

    #[test]
    fn addresses_are_bounded_and_the_oldest_are_forgotten() {
        let start = Instant::now();
        let mut breaker = paused(start);
        for number in 2..3 * MAX_ADDRESSES as u32 {
            breaker.on_failure(client(number), start, start);
            assert!(breaker.addresses.len() <= MAX_ADDRESSES);
        }
        let last = 3 * MAX_ADDRESSES as u32 - 1;
        assert_eq!([1, last].map(|number| breaker.time_left(client(number), start).is_some()), [false, true]);
    }
}
