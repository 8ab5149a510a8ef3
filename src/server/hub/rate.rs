//! The rate at which one connection is read.

use std::time::Instant;

use crate::protocol::token_bucket::TokenBucket;

/// Messages and bytes that are read from one connection in a second. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReadRates {
    pub(super) messages: Option<u32>,
    pub(super) bytes: Option<u32>,
}

/// The rate of one connection.
#[derive(Debug)]
pub(super) struct ReadRate {
    rates: ReadRates,
    messages: TokenBucket,
    bytes: TokenBucket,
    /// Time until which nothing is read.
    paused_until: Option<Instant>,
}

impl ReadRate {
    /// Returns the rate of a new connection; `None` if there is no limit.
    pub(super) fn new(rates: ReadRates, now: Instant) -> Option<Self> {
        let full = TokenBucket::full(now);
        (rates != ReadRates::default()).then_some(ReadRate {
            rates,
            messages: full,
            bytes: full,
            paused_until: None,
        })
    }

    /// Counts what was read.
    pub(super) fn take(&mut self, bytes: usize, now: Instant) {
        if let Some(rate) = self.rates.messages {
            self.messages.take(1, rate, now);
        }
        if let Some(rate) = self.rates.bytes {
            self.bytes.take(bytes, rate, now);
        }
    }

    /// Returns true if nothing is to be read now. Calls `began` if it could be read before.
    pub(super) fn is_paused(&mut self, now: Instant, began: impl FnOnce()) -> bool {
        let until = self.messages.ready_at(now).max(self.bytes.ready_at(now));
        if self.paused_until.is_none() && until.is_some() {
            began();
        }
        self.paused_until = until;
        until.is_some()
    }

    /// Returns when [`on_timeout`](Self::on_timeout) has to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Ends the pause, if its time is over.
    pub(super) fn on_timeout(&mut self, now: Instant) {
        self.paused_until = self.paused_until.filter(|until| *until > now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn connection_is_paused_until_it_has_tokens_again() {
        let start = Instant::now();
        assert!(ReadRate::new(ReadRates::default(), start).is_none());
        let rates = ReadRates { messages: Some(10), bytes: Some(1000) };
        let mut rate = ReadRate::new(rates, start).unwrap();
        let mut began = 0;
        for _ in 0..10 {
            rate.take(1, start);
            assert!(!rate.is_paused(start, || began += 1));
        }
        rate.take(1, start);
        let over = start + Duration::from_millis(100);
        for _ in 0..3 {
            assert!(rate.is_paused(start, || began += 1));
        }
        assert_eq!((began, rate.deadline()), (1, Some(over)));
        rate.on_timeout(over);
        assert_eq!(rate.deadline(), None);
        assert!(!rate.is_paused(over, || began += 1));
        // The longer of both.
        rate.take(3000, over);
        assert!(rate.is_paused(over, || began += 1));
        assert!(rate.deadline().unwrap() >= over + Duration::from_millis(1900));
        assert_eq!(began, 2);
    }
}
