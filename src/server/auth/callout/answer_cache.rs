//! Answers of the program that decides about tokens, kept for a while.

use std::time::{Duration, Instant};

use indexmap::IndexMap;

use crate::server::auth::AuthRefusal;
use crate::server::auth::grant::Grant;
use crate::server::auth::token_file::TokenDigest;

/// Most answers of each kind that are kept.
const MAX_CACHED: usize = 10_000;
/// Longest time for which a refusal is kept: a token may become valid.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for which a failure is kept, after which clients are asked to try again.
const FAILURE_TIMEOUT: Duration = Duration::from_secs(1);

/// The answers that are kept. Refusals have a place of their own: tokens that a client invents push out no
/// answer about a valid one.
#[derive(Debug)]
pub(super) struct AnswerCache {
    accepted: TimedMap<Grant>,
    refused: TimedMap<AuthRefusal>,
    /// Longest time for which an answer is kept.
    length: Duration,
}

impl AnswerCache {
    /// Returns a cache that keeps answers for `length` at most.
    pub(super) fn new(length: Duration) -> Self {
        AnswerCache { accepted: TimedMap::default(), refused: TimedMap::default(), length }
    }

    /// Returns the answer about a token, if it is kept.
    pub(super) fn get(&self, digest: &TokenDigest, now: Instant) -> Option<Result<Grant, AuthRefusal>> {
        let grant = self.accepted.get(digest, now).filter(|grant| !grant.has_expired());
        grant.map(Ok).or_else(|| self.refused.get(digest, now).map(Err))
    }

    /// Keeps the answer about a token.
    pub(super) fn insert(&mut self, digest: TokenDigest, answer: &Result<Grant, AuthRefusal>, now: Instant) {
        match answer {
            Ok(grant) => self.accepted.insert(digest, grant.clone(), now, self.length),
            Err(AuthRefusal::TooManyRequests(_)) => {}
            Err(refusal) => {
                let longest = match refusal {
                    AuthRefusal::Unavailable(_) => FAILURE_TIMEOUT,
                    _ => REFUSAL_TIMEOUT,
                };
                self.refused.insert(digest, *refusal, now, self.length.min(longest));
            }
        }
    }
}

/// Values by the digests of tokens, each up to a time.
#[derive(Debug)]
struct TimedMap<T>(IndexMap<TokenDigest, (Instant, T)>);

impl<T> Default for TimedMap<T> {
    fn default() -> Self {
        TimedMap(IndexMap::new())
    }
}

impl<T: Clone> TimedMap<T> {
    fn get(&self, digest: &TokenDigest, now: Instant) -> Option<T> {
        let (until, value) = self.0.get(digest)?;
        (*until > now).then(|| value.clone())
    }

    fn insert(&mut self, digest: TokenDigest, value: T, now: Instant, length: Duration) {
        if length.is_zero() {
            return;
        }
        if self.0.len() >= MAX_CACHED {
            self.0.retain(|_, (until, _)| *until > now);
            // The older half, so that this is not done with each.
            self.0.drain(..self.0.len().saturating_sub(MAX_CACHED / 2));
        }
        // An answer that replaces one of the same token is as new as others.
        self.0.shift_remove(&digest);
        self.0.insert(digest, (now + length, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::auth::token_file::token_digest;

    const LENGTH: Duration = Duration::from_secs(60);

    fn accepted() -> Result<Grant, AuthRefusal> {
        Ok(Grant::new(["*".to_owned()], None))
    }

    #[test]
    fn answers_are_kept_for_a_time_of_their_kind() {
        let (now, mut cache) = (Instant::now(), AnswerCache::new(LENGTH));
        for (answer, length) in [
            (accepted(), LENGTH),
            (Err(AuthRefusal::InvalidToken), REFUSAL_TIMEOUT),
            (Err(AuthRefusal::Unavailable(7)), FAILURE_TIMEOUT),
            (Err(AuthRefusal::TooManyRequests(7)), Duration::ZERO),
        ] {
            let digest = token_digest(&format!("{answer:?}"));
            cache.insert(digest, &answer, now);
            let kept = |time| cache.get(&digest, now + time).is_some_and(|kept| kept == answer);
            assert_eq!((kept(length), length.is_zero() || kept(length / 2)), (false, true), "{answer:?}");
            let mut off = AnswerCache::new(Duration::ZERO);
            off.insert(digest, &answer, now);
            assert_eq!(off.get(&digest, now), None);
        }
    }

    #[test]
    fn cache_is_bounded_and_forgets_the_oldest() {
        let (now, mut cache) = (Instant::now(), AnswerCache::new(LENGTH));
        for number in 0..2 * MAX_CACHED {
            cache.insert(token_digest(&number.to_string()), &accepted(), now);
            assert!(cache.accepted.0.len() <= MAX_CACHED);
        }
        let is_kept = |number: usize| cache.get(&token_digest(&number.to_string()), now).is_some();
        assert!(is_kept(2 * MAX_CACHED - 1) && is_kept(2 * MAX_CACHED - MAX_CACHED / 4) && !is_kept(0));
    }

    #[test]
    fn answer_that_was_given_again_is_not_the_oldest() {
        let (now, mut cache) = (Instant::now(), AnswerCache::new(LENGTH));
        let again = token_digest("again");
        for number in 0..2 * MAX_CACHED {
            if number % (MAX_CACHED / 4) == 0 {
                cache.insert(again, &accepted(), now);
            }
            cache.insert(token_digest(&number.to_string()), &accepted(), now);
        }
        assert!(cache.get(&again, now).is_some());
    }

    #[test]
    fn refused_tokens_push_out_no_accepted_one() {
        let (now, mut cache) = (Instant::now(), AnswerCache::new(LENGTH));
        let valid = token_digest("valid");
        cache.insert(valid, &accepted(), now);
        for number in 0..3 * MAX_CACHED {
            cache.insert(token_digest(&number.to_string()), &Err(AuthRefusal::InvalidToken), now);
        }
        assert!(cache.refused.0.len() <= MAX_CACHED && cache.get(&valid, now).is_some());
    }
}
