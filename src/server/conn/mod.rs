//! One connection: the task that drives it, what wakes it when its time comes, and the watch on whether its peer is still there.

#![allow(
    clippy::disallowed_methods,
    reason = "part of the shell: it has the clock, the tasks and the randomness"
)]

mod alarm;
mod driver;
mod idle;

pub use alarm::Alarm;
pub use driver::{Context, drive};
