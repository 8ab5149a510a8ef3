//! A steady rate: when each message is due, and the thread that says so. Round trips are counted from when a message
//! was due, not from when it was sent, so that a server which makes its clients wait does not look better for it.

#![allow(
    clippy::disallowed_methods,
    reason = "part of the shell: it has the clock, the tasks and the randomness"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// For how long the thread may not look whether it is over.
const NAP: Duration = Duration::from_millis(100);

/// When each round trip is due, of all rooms in turn.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    rooms: u64,
    /// Nanoseconds from one to the next.
    interval: f64,
}

/// What is due in one room.
#[derive(Debug, Default)]
pub struct Due {
    sent: AtomicU32,
    /// How many have been answered.
    pub answered: AtomicU64,
    notify: Notify,
}

impl Schedule {
    /// So many messages per second in so many rooms: a round trip is two of them.
    pub fn new(rooms: usize, messages_per_second: f64) -> Self {
        Schedule { rooms: rooms.max(1) as u64, interval: 2e9 / messages_per_second }
    }

    /// When a room's round trip is due.
    pub fn at(&self, room: usize, trip: u64) -> Duration {
        self.nth(trip * self.rooms + room as u64)
    }

    /// How many round trips of a room are due before this.
    pub fn before(&self, room: usize, elapsed: Duration) -> u64 {
        let all = self.all_before(elapsed);
        all.saturating_sub(room as u64).div_ceil(self.rooms)
    }

    fn nth(&self, number: u64) -> Duration {
        Duration::from_nanos((number as f64 * self.interval) as u64)
    }

    fn all_before(&self, elapsed: Duration) -> u64 {
        let mut all = (elapsed.as_nanos() as f64 / self.interval) as u64;
        // What was rounded is put right.
        while all > 0 && self.nth(all - 1) >= elapsed {
            all -= 1;
        }
        while self.nth(all) < elapsed {
            all += 1;
        }
        all
    }
}

impl Due {
    /// Waits until something is due, and tells how much. Nothing is lost if it is dropped while it waits.
    pub async fn some(&self) -> u32 {
        loop {
            match self.sent.swap(0, Ordering::Relaxed) {
                0 => self.notify.notified().await,
                due => return due,
            }
        }
    }
}

/// Says in each room what is due, until it is over. A thread, since timers of tasks are exact to a millisecond only.
pub fn start(schedule: Schedule, rooms: Vec<Arc<Due>>, begin: Instant, over: Arc<AtomicBool>) {
    thread::spawn(move || {
        let mut next = 0;
        while !over.load(Ordering::Relaxed) {
            let due = schedule.all_before(begin.elapsed());
            while next < due {
                if let Some(room) = rooms.get((next % schedule.rooms) as usize) {
                    room.sent.fetch_add(1, Ordering::Relaxed);
                    room.notify.notify_one();
                }
                next += 1;
            }
            thread::sleep(schedule.nth(next).saturating_sub(begin.elapsed()).min(NAP));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_take_turns() {
        // 500 round trips per second.
        let schedule = Schedule::new(2, 1000.0);
        let ms = Duration::from_millis;
        assert_eq!((schedule.at(0, 0), schedule.at(1, 0), schedule.at(0, 1)), (ms(0), ms(2), ms(4)));
        assert_eq!((schedule.before(0, ms(4)), schedule.before(0, ms(5))), (1, 2));
        assert_eq!((schedule.before(1, ms(2)), schedule.before(1, ms(3))), (0, 1));
    }

    #[test]
    fn what_is_before_is_what_comes_earlier() {
        let schedule = Schedule::new(7, 12_345.6);
        for room in 0..7 {
            for trip in 0..1000 {
                let at = schedule.at(room, trip);
                assert_eq!(schedule.before(room, at), trip);
                assert_eq!(schedule.before(room, at + Duration::from_nanos(1)), trip + 1);
            }
        }
    }
}
