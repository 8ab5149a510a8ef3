//! What one relayed message costs the gateway: things that can be counted, and so are the same on a busy machine as on
//! an idle one. The program `instructions` counts instructions, the test `allocations` allocations; both do what is here.
//!
//! Two clients, of one dialect or of two, meet in a room, without a network: through the pure layers and the rooms
//! ([`pair`]), or also through WebSockets and the task of a connection ([`socket`]). What is counted is the gateway's
//! part alone: the clients say the same bytes over and over again. No comparison with the originals is here, and nothing
//! about time.
//!
//! A package of its own, and not the gateway's benches or tests: those are compiled with a panic strategy and features
//! of their own, so that all dependencies would be compiled once more, and something else be counted than is deployed.

pub mod baseline;
pub mod callgrind;
pub mod pair;
pub mod scenario;
pub mod socket;
pub mod words;
