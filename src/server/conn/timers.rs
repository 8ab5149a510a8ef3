//! When the time of a connection has come, it is rung: one timer for all, and one entry of some 40 bytes for each,
//! where a timer of the runtime would be 112 in its task. It is also how all connections hear that the server stops,
//! without a list that every one of them would have to look at, under one lock, whenever it does anything.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::protocol::model::PeerId;
use crate::server::hub::Outbox;
use crate::server::sharded::Sharded;

/// A moment, in milliseconds since the alarm was made.
pub(super) type Tick = u64;

/// After every moment.
pub(super) const NEVER: Tick = Tick::MAX;

/// Number of maps over which the connections are spread.
const SHARDS: usize = 16;

/// The rings of so long are done at once: with thousands of connections, each would wake the timer otherwise. What is
/// waited for here is due in tenths of a second and more; at 5 ms, an idle member takes a sixth more processor time.
const TOGETHER: Duration = Duration::from_millis(25);

/// Who is to be rung when.
#[derive(Debug)]
pub struct TimerQueue {
    start: Instant,
    shards: Sharded<BTreeMap<(Tick, PeerId), Outbox>>,
    /// When the timer looks again, unless it is notified. Everything is before it while it looks.
    next: AtomicU64,
    earlier: Notify,
}

impl Default for TimerQueue {
    fn default() -> Self {
        TimerQueue {
            start: Instant::now(),
            shards: Sharded::new(SHARDS),
            next: AtomicU64::new(NEVER),
            earlier: Notify::new(),
        }
    }
}

impl TimerQueue {
    /// The first moment that is not before `at`.
    pub(super) fn moment(&self, at: Instant) -> Tick {
        let since = at.saturating_duration_since(self.start);
        // Not by way of all its microseconds, which are 128 bits and would be divided on every turn.
        since.as_secs() * 1000 + u64::from(since.subsec_nanos().div_ceil(1_000_000))
    }

    /// The peer is to be rung once at `to`, and no longer at `from`.
    pub(super) fn set(&self, peer: PeerId, from: Tick, to: Tick, outbox: &Outbox) {
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

    /// The peer is no longer to be rung at `from`.
    pub(super) fn clear(&self, peer: PeerId, from: Tick) {
        if from != NEVER {
            self.shard(peer).lock().remove(&(from, peer));
        }
    }

    /// Rings everyone, whatever the time.
    pub fn ring_all(&self) {
        for shard in self.shards.iter() {
            shard.lock().values().for_each(Outbox::notify);
        }
    }

    /// Rings whose moment comes, for as long as it is polled.
    pub async fn run(&self) {
        loop {
            // Whoever sets a moment while we look has us look again.
            self.next.store(NEVER, Ordering::SeqCst);
            let next = self.ring(Instant::now());
            self.next.store(next.unwrap_or(NEVER), Ordering::SeqCst);
            let earlier = self.earlier.notified();
            let Some(next) = next.and_then(|next| self.start.checked_add(Duration::from_millis(next))) else {
                earlier.await;
                continue;
            };
            let wait = next.saturating_duration_since(Instant::now()).max(TOGETHER);
            let _ = tokio::time::timeout(wait, earlier).await;
        }
    }

    /// Rings whose moment has come; the next one that comes.
    fn ring(&self, now: Instant) -> Option<Tick> {
        let now = u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(NEVER);
        let mut next = None;
        for shard in self.shards.iter() {
            let mut shard = shard.lock();
            while let Some(first) = shard.first_entry() {
                let moment = first.key().0;
                if moment > now {
                    next = Some(next.map_or(moment, |next: Tick| next.min(moment)));
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

    fn rung(outbox: &Outbox) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        outbox.poll_take(&mut context, &mut VecDeque::new()).is_ready()
    }

    #[test]
    fn rings_once_when_the_moment_has_come() {
        let alarm = TimerQueue::default();
        let at = |millis| alarm.start + Duration::from_millis(millis);
        let (a, b) = (Outbox::new(100), Outbox::new(100));
        alarm.set(PeerId(1), NEVER, 10, &a);
        alarm.set(PeerId(17), NEVER, 20, &b);
        assert_eq!(alarm.ring(at(9)), Some(10));
        assert_eq!((rung(&a), rung(&b)), (false, false));
        assert_eq!(alarm.ring(at(10)), Some(20));
        assert_eq!((rung(&a), rung(&a), rung(&b)), (true, false, false));
        // Put off, and then given up.
        alarm.set(PeerId(17), 20, 30, &b);
        assert_eq!(alarm.ring(at(20)), Some(30));
        alarm.clear(PeerId(17), 30);
        assert_eq!(alarm.ring(at(30)), None);
        assert!(!rung(&b));
    }

    #[test]
    fn nobody_is_rung_too_early() {
        let alarm = TimerQueue::default();
        assert_eq!(alarm.moment(alarm.start + Duration::from_micros(1)), 1);
        assert_eq!(alarm.moment(alarm.start + Duration::from_millis(1)), 1);
    }

    #[tokio::test]
    async fn the_timer_is_woken_by_an_earlier_moment() {
        let alarm = std::sync::Arc::new(TimerQueue::default());
        let running = tokio::spawn({
            let alarm = alarm.clone();
            async move { alarm.run().await }
        });
        let (late, early) = (Outbox::new(100), Outbox::new(100));
        alarm.set(PeerId(1), NEVER, alarm.moment(Instant::now() + Duration::from_secs(60)), &late);
        tokio::time::sleep(Duration::from_millis(20)).await;
        alarm.set(PeerId(2), NEVER, alarm.moment(Instant::now()), &early);
        let taken = std::future::poll_fn(|context| early.poll_take(context, &mut VecDeque::new()));
        tokio::time::timeout(Duration::from_secs(5), taken).await.unwrap().unwrap();
        assert!(!rung(&late));
        alarm.ring_all();
        assert!(rung(&late));
        running.abort();
    }
}
