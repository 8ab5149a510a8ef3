//! A WebRTC signaling gateway for every protocol that sigver ever had.
//!
//! # Embedding
//!
//! A [`Config`] has what is served; [`Gateway::bind`] listens, and [`Gateway::run_until`] serves until a
//! future is ready:
//!
//! ```
//! use sigver::{Config, Gateway};
//! use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
//! use tokio::net::TcpStream;
//! use tokio::sync::oneshot;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = Config::default().with_address("127.0.0.1", 0);
//! config.protocol = "sigver-18,sigver-20".parse()?;
//! let gateway = Gateway::bind(config).await?;
//! let address = gateway.local_addr().ok_or("no TCP address")?;
//!
//! let (shutdown, requested) = oneshot::channel::<()>();
//! let running = tokio::spawn(gateway.run_until(async {
//!     let _ = requested.await;
//! }));
//!
//! // Clients open WebSockets on ws://{address}/{key}. Other requests are answered as well:
//! let mut client = TcpStream::connect(address).await?;
//! client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
//! let mut response = String::new();
//! client.read_to_string(&mut response).await?;
//! assert!(response.starts_with("HTTP/1.1 200 OK"));
//!
//! let _ = shutdown.send(());
//! running.await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | contents |
//! |---|---|
//! | `cluster` (default) | Several servers with common rooms |
//! | `bridge` | Bridged rooms, with a WebRTC stack. It compiles rustls with a second provider of cryptography, so that a program with TLS of its own has to name one of them, or install it as the default |
//!
//! # Architecture
//!
//! A connection speaks one of the dialects of 24 releases. The gateway detects which one, decodes each frame
//! into commands that are the same for all, lets one pure state machine per room decide what follows, and
//! encodes the events, each in its receiver's dialect:
//!
//! ```text
//! socket → transport (WebSocket, event stream) ─ Message → conn: one task per connection
//!     detecting:    detect::Detector: evidence → candidates → a Session; a wrong assumption is reverted
//!     established:  dialect::Session::decode → commands for the room, replies, a close
//!                   hub: lock the room → room::Room::apply → events for bounded outboxes; unlock, wake
//! receiver's conn: outbox → Session::encode → transport → socket
//! ```
//!
//! Each arrow changes one thing: bytes to messages, messages to meaning, meaning to consequences,
//! consequences to queues. Three wings, whose dependencies `tests/rules/layering.rs` checks:
//!
//! | wing | contents |
//! |---|---|
//! | [`protocol`] | Pure state machines, without I/O, clock, randomness or tasks: `frame`, `model` (commands, events, payloads), `dialect` (every codec, and the facts of each release), `detect`, `room`, the rules of `signaller`, `mesh` (bridged rooms), `cluster` (owners of rooms) and `token_bucket` |
//! | [`server`] | [`Gateway`], and what it consists of: `listener`, `admission`, `tls`, `http`, `auth`, `transport`, `conn`, `hub`, `signaller`, `telemetry`, `admin`, `cluster`, `bridge` |
//! | [`tools`] | The other commands of the program: synthetic clients of every dialect, `matrix`, `probe`, `bench`, `replay` |
//!
//! [`cli`] turns arguments and environment variables into a [`Config`]; [`config`] has its types and parsers.

#![cfg_attr(
    not(test),
    deny(clippy::print_stdout, clippy::print_stderr, reason = "they panic if the output is closed or full")
)]
#![cfg_attr(fuzzing, allow(dead_code, unreachable_pub, unused_imports, reason = "fuzz targets see a part"))]

#[cfg(not(unix))]
compile_error!("sigver runs on Unix systems only: it uses their sockets and signals");

#[cfg(feature = "bridge")]
mod bridge;
#[cfg(not(fuzzing))]
pub mod cli;
pub mod config;
#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(not(fuzzing))]
pub mod logging;
#[cfg(not(fuzzing))]
pub mod output;
pub mod protocol;
#[cfg(not(fuzzing))]
pub mod server;
mod socket_user;
mod system_memory;
mod text_table;
#[cfg(not(fuzzing))]
pub mod tools;

// No machine code is made of what fuzz targets cannot reach, which is most of these.
#[cfg(fuzzing)]
mod cli;
#[cfg(fuzzing)]
mod logging;
#[cfg(fuzzing)]
mod output;
#[cfg(fuzzing)]
mod server;
#[cfg(fuzzing)]
mod tools;

pub use config::{
    AdminSocketPath, Config, ConfigError, DetectionTimeouts, EnabledTransports, PemSource, PipeLimits,
    ProtocolSet, ProtocolSetError, RoomPolicy, SignallerConfig, TlsFiles,
};
#[cfg(not(fuzzing))]
pub use server::admin::StatusQuery;
#[cfg(not(fuzzing))]
pub use server::telemetry::Report;
#[cfg(not(fuzzing))]
pub use server::{Gateway, StartError};
