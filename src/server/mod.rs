//! The server: everything around the protocols that does I/O, measures time or runs tasks.

mod address_table;
pub mod admin;
pub(crate) mod admission;
mod auth;
mod bridge;
mod client_endpoint;
mod clock;
#[cfg(feature = "cluster")]
pub mod cluster;
pub mod conn;
mod effective_limits;
pub mod fd_limit;
mod gateway;
pub(crate) mod http;
pub mod hub;
pub(crate) mod listener;
mod listening;
mod log_limit;
mod memory;
pub(crate) mod proxy_protocol;
mod readiness;
mod refusals;
pub mod regular_file;
mod reload;
mod reloadable;
mod scratch;
mod sharded;
pub(crate) mod signaller;
mod start_error;
pub mod telemetry;
pub(crate) mod tls;
pub mod transport;
mod turn;
mod unix_socket;
mod write_timeout;
mod ws_buffers;

pub use auth::{AuthError, AuthFileError};
pub use bridge::BridgeStartError;
pub use client_endpoint::ClientEndpoint;
pub use effective_limits::EffectiveLimits;
pub use gateway::{Gateway, StreamAcceptor};
pub use listener::{ListenError, USER_TIMEOUT};
pub use listening::LocalAddress;
pub use refusals::RefusalCause;
pub use reload::{ReloadError, ReloadReport, ReloadRequest, ReloadRequests, Reloader};
#[cfg(feature = "cluster")]
pub use start_error::ClusterError;
pub use start_error::StartError;
pub use telemetry::BridgeReport;
pub use tls::{ContentError, FileRole, TlsError};
pub use unix_socket::UnixSocketError;
