//! One connection: the task that drives it, what wakes it when its time comes, and the watch on whether its peer is still there.

#![allow(
    clippy::disallowed_methods,
    reason = "part of the shell: it has the clock, the tasks and the randomness"
)]

mod driver;
mod keepalive;
mod timers;

pub use driver::{Context, drive};
pub use timers::TimerQueue;
