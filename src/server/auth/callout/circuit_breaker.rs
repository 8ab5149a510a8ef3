//! Circuit breaker of the questions to a program: while it answers none, clients are refused at once. A plain
//! state machine; the time is an argument.

use std::time::{Duration, Instant};

use crate::server::address_table::ClientNetwork;

/// Number of failures, one after the other, after which no more is asked for a while.
const MAX_FAILURES: u32 = 5;

/// Time after an answer within which failures do not count: a program that answers others is there, and fails
/// at some tokens.
const ANSWER_VALIDITY: Duration = Duration::from_secs(1);

/// Shortest pause. Each that follows without an answer is twice as long.
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Most questions after a pause until one is answered, one for each address: a client with tokens at which
/// the program fails takes one of them.
const MAX_TRIALS: usize = 8;

/// State of the questions.
#[derive(Debug, Default)]
pub(super) struct CircuitBreaker {
    /// Number of failures since the last answer.
    failures: u32,
    last_answer: Option<Instant>,
    pause: Option<Pause>,
}

/// A time in which nothing is asked, and a time for trials after it.
#[derive(Debug)]
struct Pause {
    length: Duration,
    until: Instant,
    /// Addresses of the questions since its end.
    trials: Vec<Option<ClientNetwork>>,
    /// End of the trials, once there is one.
    trials_until: Option<Instant>,
}

impl CircuitBreaker {
    /// Returns the time for which nothing is asked for a client from `network`, if there is a pause.
    pub(super) fn time_left(&mut self, network: Option<ClientNetwork>, now: Instant) -> Option<Duration> {
        let pause = self.pause.as_mut()?;
        if let Some(end) = pause.trials_until.filter(|end| *end <= now) {
            // Without an answer: the pause that follows.
            let length = (2 * pause.length).min(MAX_PAUSE);
            *pause = Pause { length, until: end + length, trials: Vec::new(), trials_until: None };
        }
        let is_used = pause.trials.len() >= MAX_TRIALS || pause.trials.contains(&network);
        let until = if is_used { pause.trials_until? } else { pause.until };
        let left = until.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Allows a question now. After a pause, that is a trial, whose answer may take up to `longest`.
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
        if let Some(pause) = &mut self.pause {
            pause.trials.push(network);
            pause.trials_until.get_or_insert(now + longest);
        }
        Ok(())
    }

    /// Takes note of an answer. Returns true if it ends a pause.
    pub(super) fn on_answer(&mut self, now: Instant) -> bool {
        (self.failures, self.last_answer) = (0, Some(now));
        self.pause.take().is_some()
    }

    /// Takes note that a question of the time `asked` has failed. Returns the length of the pause that
    /// begins, if one does.
    pub(super) fn on_failure(&mut self, asked: Instant, now: Instant) -> Option<Duration> {
        let is_answering = self.last_answer.is_some_and(|answer| answer + ANSWER_VALIDITY >= asked);
        if self.pause.is_some() || is_answering {
            return None;
        }
        self.failures += 1;
        if self.failures < MAX_FAILURES {
            return None;
        }
        let until = now + MIN_PAUSE;
        self.pause = Some(Pause { length: MIN_PAUSE, until, trials: Vec::new(), trials_until: None });
        Some(MIN_PAUSE)
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

    /// Returns a breaker with the first pause, which begins at `start`.
    fn paused(start: Instant) -> CircuitBreaker {
        let mut breaker = CircuitBreaker::default();
        let pauses: Vec<_> = (0..MAX_FAILURES).map(|_| breaker.on_failure(start, start)).collect();
        assert_eq!(pauses, [None, None, None, None, Some(MIN_PAUSE)]);
        breaker
    }

    #[test]
    fn failures_in_a_row_begin_a_pause_that_an_answer_ends() {
        let start = Instant::now();
        let mut breaker = paused(start);
        assert_eq!(breaker.try_ask(client(1), at(start, 400), LONGEST), Err(Duration::from_millis(600)));
        // One that was asked before, and fails late.
        assert_eq!(breaker.on_failure(start, at(start, 500)), None);
        assert_eq!(breaker.try_ask(client(1), at(start, 1000), LONGEST), Ok(()));
        assert!(breaker.on_answer(at(start, 1100)) && !breaker.on_answer(at(start, 1100)));
        assert_eq!(breaker.try_ask(client(1), at(start, 1100), LONGEST), Ok(()));
    }

    #[test]
    fn trials_after_a_pause_are_one_for_each_address() {
        let start = Instant::now();
        let mut breaker = paused(start);
        let now = at(start, 1500);
        for number in 0..MAX_TRIALS as u32 {
            assert_eq!(breaker.try_ask(client(number), now, LONGEST), Ok(()));
            assert_eq!(breaker.try_ask(client(number), now, LONGEST), Err(LONGEST));
            assert_eq!(breaker.on_failure(now, now), None);
        }
        assert_eq!(breaker.try_ask(client(99), now, LONGEST), Err(LONGEST));
        // The next pause begins with the end of the trials.
        let end = now + LONGEST;
        assert_eq!(breaker.time_left(client(99), end), Some(2 * MIN_PAUSE));
        assert_eq!(breaker.try_ask(client(0), end + 2 * MIN_PAUSE, LONGEST), Ok(()));
    }

    #[test]
    fn pauses_grow_up_to_the_longest() {
        let mut now = Instant::now();
        let mut breaker = paused(now);
        let mut lengths = Vec::new();
        for _ in 0..6 {
            let left = breaker.time_left(None, now).unwrap();
            lengths.push(left.as_secs());
            now += left;
            assert_eq!(breaker.try_ask(None, now, LONGEST), Ok(()));
            now += LONGEST;
        }
        assert_eq!(lengths, [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn failures_at_some_tokens_are_no_pause_while_others_are_answered() {
        let start = Instant::now();
        let mut breaker = CircuitBreaker::default();
        for round in 0..100 {
            breaker.on_answer(at(start, round * 1000));
            let asked = at(start, round * 1000 + 500);
            assert_eq!((0..20).find_map(|_| breaker.on_failure(asked, asked + LONGEST)), None);
        }
    }
}
