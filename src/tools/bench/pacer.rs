//! A steady rate: when each message is due, who says so, and the threads where it happens. Round trips are counted from when a message
//! was due, not from when it was sent, so that a server which makes its clients wait does not look better for it.

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

/// The longest sleep of a pace.
const NAP: Duration = Duration::from_secs(1);
/// As many round trips are told at once, before others have their turn.
const AT_ONCE: usize = 4096;

/// When each round trip is due, of all rooms in turn.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    rooms: u64,
    /// Nanoseconds from one to the next.
    interval: f64,
}

/// What is due in one room.
#[derive(Debug, Default)]
pub struct PendingSends {
    due: AtomicU64,
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

impl PendingSends {
    /// Waits until something is due, and tells how much. Nothing is lost if it is dropped while it waits.
    pub async fn some(&self) -> u64 {
        loop {
            match self.due.swap(0, Ordering::Relaxed) {
                0 => self.notify.notified().await,
                due => return due,
            }
        }
    }
}

/// A thread with tasks of its own: what is due in a room is told, sent, answered and counted by the same thread, so that
/// no time is lost by waking another, which would be taken for the server's.
#[derive(Debug)]
pub struct LoadThread {
    /// Where its tasks are made.
    pub tasks: tokio::runtime::Handle,
    /// It ends when this is dropped.
    _over: oneshot::Sender<()>,
}

impl LoadThread {
    /// A thread.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn start() -> io::Result<LoadThread> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (tasks, (over, ended)) = (runtime.handle().clone(), oneshot::channel());
        std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            let _ = runtime.block_on(ended);
        })?;
        Ok(LoadThread { tasks, _over: over })
    }
}

/// Says in each of these rooms, which have their numbers, what is due, until it is dropped.
///
/// # Errors
///
/// When there is no timer.
pub async fn keep(
    schedule: Schedule,
    rooms: Vec<(usize, Arc<PendingSends>)>,
    begin: Instant,
) -> io::Result<()> {
    let alarm = PreciseTimer::new()?;
    for trip in 0.. {
        for (index, (room, due)) in rooms.iter().enumerate() {
            let at = schedule.at(*room, trip);
            loop {
                match at.saturating_sub(begin.elapsed()) {
                    Duration::ZERO => break,
                    early => alarm.sleep(early.min(NAP)).await?,
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

/// A timer that is exact to some µs: those of tasks are exact to a millisecond.
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
        // What has rung before is forgotten with it.
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

/// Exact to a millisecond.
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
    fn rooms_take_turns() {
        // 500 round trips per second.
        let schedule = Schedule::new(2, 1000.0);
        let ms = Duration::from_millis;
        assert_eq!((schedule.at(0, 0), schedule.at(1, 0), schedule.at(0, 1)), (ms(0), ms(2), ms(4)));
        assert_eq!((schedule.before(0, ms(4)), schedule.before(0, ms(5))), (1, 2));
        assert_eq!((schedule.before(1, ms(2)), schedule.before(1, ms(3))), (0, 1));
    }

    #[tokio::test]
    async fn what_is_due_is_told_in_turn() {
        let (first, second) = (Arc::new(PendingSends::default()), Arc::new(PendingSends::default()));
        let rooms = vec![(0, Arc::clone(&first)), (1, Arc::clone(&second))];
        let pace = tokio::spawn(keep(Schedule::new(2, 1e4), rooms, Instant::now()));
        let mut told = 0;
        while told < 20 {
            told += first.some().await + second.some().await;
        }
        pace.abort();
        assert!(pace.await.unwrap_err().is_cancelled());
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
