//! Cost of one relayed message in instructions and allocations, which are the same on a busy machine as on
//! an idle one. The program `instructions` counts instructions, the test `allocations` allocations.
//!
//! Two clients, of one dialect or of two, meet in a room without a network: through the pure layers and the
//! rooms ([`pair`]), or also through WebSockets and connection tasks ([`socket`]). Only the gateway's part
//! is counted: the clients repeat the same bytes.
//!
//! A package of its own: the gateway's benches and tests are compiled with another panic strategy and other
//! features, so that all dependencies would be compiled again, and other code be counted than is deployed.

pub mod baseline;
pub mod callgrind;
pub mod messages;
pub mod pair;
pub mod scenario;
pub mod socket;
