//! Connections: one task for each, the state they share, their deadlines and their end.

mod driver;
mod held;
mod identity;
mod keepalive;
mod shared;
mod shutdown;
mod timers;

pub use driver::run;
pub use identity::AdmittedClient;
pub(crate) use identity::connection_span;
pub use shared::{ConnectionLimits, Shared};
pub use shutdown::Shutdown;
pub use timers::TimerQueue;

#[cfg(test)]
mod tests;
