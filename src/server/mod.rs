//! The server: everything around the protocols that does I/O, measures time or runs tasks.

pub mod admin;
pub mod conn;
pub mod fd_limit;
mod gateway;
pub(crate) mod http;
pub mod hub;
pub(crate) mod listener;
mod listening;
mod log_limit;
pub mod memory;
pub(crate) mod refusals;
mod reload;
mod scratch;
mod sharded;
pub(crate) mod signaller;
pub mod telemetry;
pub(crate) mod tls;
pub mod transport;
mod turn;
mod unix_socket;

pub use gateway::{Gateway, StartError};
pub use listener::ListenError;
pub use listening::LocalAddress;
pub use refusals::RefusalCause;
pub use reload::Reloader;
pub use tls::{ContentError, FileRole, TlsError};
pub use unix_socket::UnixSocketError;
