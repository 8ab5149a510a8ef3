//! One connection: the task that drives it, what wakes it when its time comes, and the watch on whether its peer is still there.

mod driver;
mod keepalive;
mod timers;

pub use driver::{Context, drive};
pub use timers::TimerQueue;
