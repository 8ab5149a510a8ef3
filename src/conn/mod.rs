//! One connection: the task that drives it, and the watch on whether its peer is still there.

mod driver;
mod idle;

pub use driver::{Context, drive};
