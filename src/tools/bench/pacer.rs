//! Open-loop load: a schedule of round trips, and the threads that keep it.
//!
//! Round trips are timed from when a message was due, not from when it was sent, so that a server that
//! delays its clients does not look faster (coordinated omission).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
#[cfg(target_os = "linux")]
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, oneshot};

/// Longest sleep of the pacer.
const MAX_SLEEP: Duration = Duration::from_secs(1);
/// Number of round trips announced before other tasks run.
const AT_ONCE: usize = 4096;

/// Due times of round trips, round robin over all rooms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    rooms: u64,
    /// Nanoseconds between round trips.
    interval: f64,
}

/// Round trips due in one room.
#[derive(Debug, Default)]
pub(crate) struct PendingSends {
    due: AtomicU64,
    /// Number of answered round trips.
    pub(crate) answered: AtomicU64,
    notify: Notify,
}

impl Schedule {
    /// Returns the schedule of `messages_per_second` messages in `rooms` rooms; a round trip is two
    /// messages.
    pub(crate) fn new(rooms: usize, messages_per_second: f64) -> Self {
        Schedule { rooms: rooms.max(1) as u64, interval: 2e9 / messages_per_second }
    }

    /// Returns the due time of a room's round trip.
    pub(crate) fn at(&self, room: usize, trip: u64) -> Duration {
        self.nth(trip * self.rooms + room as u64)
    }

    /// Returns the number of a room's round trips that are due before `elapsed`.
    pub(crate) fn before(&self, room: usize, elapsed: Duration) -> u64 {
        let all = self.all_before(elapsed);
        all.saturating_sub(room as u64).div_ceil(self.rooms)
    }

    fn nth(&self, number: u64) -> Duration {
        Duration::from_nanos((number as f64 * self.interval) as u64)
    }

    fn all_before(&self, elapsed: Duration) -> u64 {
        let mut all = (elapsed.as_nanos() as f64 / self.interval) as u64;
        // Floating-point rounding may be off by one either way.
        while all > 0 && self.nth(all - 1) >= elapsed {
            all -= 1;
        }
        while self.nth(all) < elapsed {
            all += 1;
        }
        all
    }
}

impl PendingSends {
    /// Waits until round trips are due, and returns their number. Cancel safe.
    pub(crate) async fn some(&self) -> u64 {
        loop {
            match self.due.swap(0, Ordering::Relaxed) {
                0 => self.notify.notified().await,
                due => return due,
            }
        }
    }
}

/// A thread with a runtime of its own. A room's messages are announced, sent, answered and counted on one
/// thread: waking another would add to the measured time.
#[derive(Debug)]
pub(crate) struct LoadThread {
    /// Handle to the thread's runtime.
    pub(crate) tasks: tokio::runtime::Handle,
    /// Ends the thread when dropped.
    _over: oneshot::Sender<()>,
}

impl LoadThread {
    /// Starts a thread.
    pub(crate) fn start() -> io::Result<LoadThread> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (tasks, (over, ended)) = (runtime.handle().clone(), oneshot::channel());
        std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            let _ = runtime.block_on(ended);
        })?;
        Ok(LoadThread { tasks, _over: over })
    }
}

/// Announces due round trips in the given rooms, until dropped.
pub(crate) async fn run_pacer(
    schedule: Schedule,
    rooms: Vec<(usize, Arc<PendingSends>)>,
    begin: Instant,
) -> io::Result<()> {
    let timer = PreciseTimer::new()?;
    for trip in 0.. {
        for (index, (room, due)) in rooms.iter().enumerate() {
            let at = schedule.at(*room, trip);
            loop {
                match at.saturating_sub(begin.elapsed()) {
                    Duration::ZERO => break,
                    early => timer.sleep(early.min(MAX_SLEEP)).await?,
                }
            }
            due.due.fetch_add(1, Ordering::Relaxed);
            due.notify.notify_one();
            if index % AT_ONCE == AT_ONCE - 1 || index == rooms.len() - 1 {
                tokio::task::yield_now().await;
            }
        }
    }
    Ok(())
}

/// Timer with a resolution of microseconds; Tokio's has a millisecond.
#[cfg(target_os = "linux")]
struct PreciseTimer(AsyncFd<std::os::fd::OwnedFd>);

#[cfg(target_os = "linux")]
impl PreciseTimer {
    #[allow(
        deprecated,
        reason = "what it wants to be promised is so of every `OwnedFd`, and `unsafe` is forbidden"
    )]
    fn new() -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(PreciseTimer(AsyncFd::new(timer)?))
    }

    async fn sleep(&self, time: Duration) -> io::Result<()> {
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Timespec { tv_sec: time.as_secs() as _, tv_nsec: time.subsec_nanos() as _ };
        let when = Itimerspec { it_interval: never, it_value: once };
        // Setting the timer also clears an earlier expiration.
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &when)?;
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0; 8])?)) {
                Ok(rung) => return rung.map(|_| ()),
                Err(_) => continue,
            }
        }
    }
}

/// Timer with Tokio's resolution of a millisecond.
#[cfg(not(target_os = "linux"))]
struct PreciseTimer;

#[cfg(not(target_os = "linux"))]
impl PreciseTimer {
    fn new() -> io::Result<Self> {
        Ok(PreciseTimer)
    }

    async fn sleep(&self, time: Duration) -> io::Result<()> {
        tokio::time::sleep(time).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_is_round_robin() {
        // 500 round trips per second.
        let schedule = Schedule::new(2, 1000.0);
        let ms = Duration::from_millis;
        assert_eq!((schedule.at(0, 0), schedule.at(1, 0), schedule.at(0, 1)), (ms(0), ms(2), ms(4)));
        assert_eq!((schedule.before(0, ms(4)), schedule.before(0, ms(5))), (1, 2));
        assert_eq!((schedule.before(1, ms(2)), schedule.before(1, ms(3))), (0, 1));
    }

    #[tokio::test]
    async fn due_trips_are_announced() {
        let (first, second) = (Arc::new(PendingSends::default()), Arc::new(PendingSends::default()));
        let rooms = vec![(0, Arc::clone(&first)), (1, Arc::clone(&second))];
        let pace = tokio::spawn(run_pacer(Schedule::new(2, 1e4), rooms, Instant::now()));
        let mut announced = 0;
        while announced < 20 {
            announced += first.some().await + second.some().await;
        }
        pace.abort();
        assert!(pace.await.unwrap_err().is_cancelled());
    }

    #[test]
    fn before_agrees_with_at() {
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
