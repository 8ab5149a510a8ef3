//! Deadlines of all connections: one timer for all, and a small entry for each, where a timer of the runtime
//! would be larger. Through the same entries, all connections are notified of the shutdown, without a list
//! under one lock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::protocol::model::PeerId;
use crate::server::clock;
use crate::server::hub::Outbox;
use crate::server::sharded::Sharded;

/// A time, in milliseconds since the queue was made.
pub(super) type Tick = u64;

/// After every other tick.
pub(super) const NEVER: Tick = Tick::MAX;

/// A time of the timer queue in four bytes, exact to 16 ms. It repeats after two years.
#[derive(Clone, Copy, Debug)]
pub(super) struct CoarseTime(u32);

impl CoarseTime {
    pub(super) fn now(timers: &TimerQueue) -> Self {
        CoarseTime((timers.tick(clock::now()) >> 4) as u32)
    }

    /// Returns the time since this one.
    pub(super) fn elapsed(self, timers: &TimerQueue) -> Duration {
        Duration::from_millis(u64::from(CoarseTime::now(timers).0.wrapping_sub(self.0)) << 4)
    }
}

/// Number of maps over which the connections are spread.
const SHARDS: usize = 16;

/// Deadlines within this time fire together: with thousands of connections, each would wake the timer
/// otherwise. The deadlines here are tenths of a second and more.
const COALESCE: Duration = Duration::from_millis(25);

/// Connections to be notified, by their deadlines.
#[derive(Debug)]
pub struct TimerQueue {
    start: Instant,
    shards: Sharded<BTreeMap<(Tick, PeerId), Outbox>>,
    /// Time at which the timer looks at the entries again, unless it is notified. Later than all others while
    /// it looks.
    next: AtomicU64,
    earlier: Notify,
}

impl Default for TimerQueue {
    fn default() -> Self {
        TimerQueue {
            start: clock::now(),
            shards: Sharded::new(SHARDS),
            next: AtomicU64::new(NEVER),
            earlier: Notify::new(),
        }
    }
}

impl TimerQueue {
    /// Returns the first tick that is not before `at`.
    pub(super) fn tick(&self, at: Instant) -> Tick {
        let since = at.saturating_duration_since(self.start);
        // Not by way of all its microseconds, which are 128 bits and would be divided on every turn.
        since.as_secs() * 1000 + u64::from(since.subsec_nanos().div_ceil(1_000_000))
    }

    /// Schedules the peer to be notified once at `to`, and no longer at `from`.
    pub(super) fn schedule(&self, peer: PeerId, from: Tick, to: Tick, outbox: &Outbox) {
        {
            let mut shard = self.shard(peer).lock();
            if from != NEVER {
                shard.remove(&(from, peer));
            }
            shard.insert((to, peer), outbox.clone());
        }
        if to < self.next.load(Ordering::SeqCst) {
            self.earlier.notify_one();
        }
    }

    /// Cancels the notification of the peer at `from`.
    pub(super) fn cancel(&self, peer: PeerId, from: Tick) {
        if from != NEVER {
            self.shard(peer).lock().remove(&(from, peer));
        }
    }

    /// Notifies all connections, whatever the time.
    pub(super) fn notify_all(&self) {
        for shard in self.shards.iter() {
            shard.lock().values().for_each(Outbox::notify);
        }
    }

    /// Notifies connections whose deadline passes, as long as it is polled.
    pub(crate) async fn run(&self) {
        loop {
            // A deadline that is scheduled during the look at the entries causes another one.
            self.next.store(NEVER, Ordering::SeqCst);
            let next = self.fire(clock::now());
            self.next.store(next.unwrap_or(NEVER), Ordering::SeqCst);
            let earlier = self.earlier.notified();
            let Some(next) = next.and_then(|next| self.start.checked_add(Duration::from_millis(next))) else {
                earlier.await;
                continue;
            };
            let wait = next.saturating_duration_since(clock::now()).max(COALESCE);
            let _ = tokio::time::timeout(wait, earlier).await;
        }
    }

    /// Notifies connections whose deadline has passed, and returns the next deadline.
    fn fire(&self, now: Instant) -> Option<Tick> {
        let now = u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(NEVER);
        let mut next = None;
        for shard in self.shards.iter() {
            let mut shard = shard.lock();
            while let Some(first) = shard.first_entry() {
                let tick = first.key().0;
                if tick > now {
                    next = Some(next.map_or(tick, |next: Tick| next.min(tick)));
                    break;
                }
                first.remove().notify();
            }
        }
        next
    }

    fn shard(&self, peer: PeerId) -> &Mutex<BTreeMap<(Tick, PeerId), Outbox>> {
        self.shards.get(peer.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::task::{Context, Waker};

    fn notified(outbox: &Outbox) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        outbox.poll_take(&mut context, &mut VecDeque::new()).is_ready()
    }

    #[test]
    fn deadline_notifies_once() {
        let timers = TimerQueue::default();
        let at = |millis| timers.start + Duration::from_millis(millis);
        let (a, b) = (Outbox::new(100), Outbox::new(100));
        timers.schedule(PeerId(1), NEVER, 10, &a);
        timers.schedule(PeerId(17), NEVER, 20, &b);
        assert_eq!(timers.fire(at(9)), Some(10));
        assert_eq!((notified(&a), notified(&b)), (false, false));
        assert_eq!(timers.fire(at(10)), Some(20));
        assert_eq!((notified(&a), notified(&a), notified(&b)), (true, false, false));
        // Put off, and then given up.
        timers.schedule(PeerId(17), 20, 30, &b);
        assert_eq!(timers.fire(at(20)), Some(30));
        timers.cancel(PeerId(17), 30);
        assert_eq!(timers.fire(at(30)), None);
        assert!(!notified(&b));
    }

    #[test]
    fn ticks_are_not_before_their_time() {
        let timers = TimerQueue::default();
        assert_eq!(timers.tick(timers.start + Duration::from_micros(1)), 1);
        assert_eq!(timers.tick(timers.start + Duration::from_millis(1)), 1);
    }

    #[tokio::test]
    async fn earlier_deadline_wakes_the_timer() {
        let timers = std::sync::Arc::new(TimerQueue::default());
        let running = tokio::spawn({
            let timers = timers.clone();
            async move { timers.run().await }
        });
        let (late, early) = (Outbox::new(100), Outbox::new(100));
        timers.schedule(PeerId(1), NEVER, timers.tick(Instant::now() + Duration::from_secs(60)), &late);
        tokio::time::sleep(Duration::from_millis(20)).await;
        timers.schedule(PeerId(2), NEVER, timers.tick(Instant::now()), &early);
        let taken = std::future::poll_fn(|context| early.poll_take(context, &mut VecDeque::new()));
        tokio::time::timeout(Duration::from_secs(5), taken).await.unwrap().unwrap();
        assert!(!notified(&late));
        timers.notify_all();
        assert!(notified(&late));
        running.abort();
    }
}
