//! One WebRTC signaling gateway for every protocol that sigver ever spoke.
//!
//! A connection is bytes in the language of its time. We learn which language, translate each frame into a small
//! vocabulary of our own, let one pure state machine per room decide what follows, and translate the consequences
//! back, each into its receiver's language:
//!
//! ```text
//! socket → transport ─ Frame → conn::driver, one task per connection
//!   dialect unknown: negotiate::Conversation listens, probes, guesses, and takes a wrong guess back
//!   dialect known:   dialect::Session::decode → Command → hub: lock the room → router::Room::apply → Events
//!        each Event is pushed, still under the lock, to its receiver's bounded Outbox
//! receiver's driver: Outbox → dialect::Session::encode → Frames → transport → socket
//! ```
//!
//! Each arrow changes one thing: bytes to frames, frames to meaning, meaning to consequences, consequences to
//! queues. So each kind of change has one home:
//!
//! | module | what lives there | pure |
//! |---|---|---|
//! | [`frame`] | text, bytes, close: all that transports and dialects share | yes |
//! | [`model`] | rooms, links, commands, events: what sigver means | yes |
//! | [`dialect`] | every published dialect: bytes to meaning and back, and the table of releases | yes |
//! | [`negotiate`] | which dialect a client speaks: evidence, policy, the conversation | yes |
//! | [`router`] | one room as a state machine | yes |
//! | [`hub`] | all rooms, their locks, the queues to their peers | |
//! | [`telemetry`] | usage by dialect: counts and their report | |
//! | [`conn`] | the task that drives one connection | |
//! | [`transport`] | WebSockets, event streams | |
//! | [`signaller`] | the path relay of signallerd: handles, pipes, and the task of a pipe | |
//! | [`server`] | listening, TLS, HTTP, shutting down | |
//! | [`descriptors`] | how many connections the process may have | |
//! | [`config`], [`cli`] | what the operator says | yes |
//! | [`compat`] | synthetic clients of every dialect, the matrix of who works with whom, the probe | partly |
//! | [`bench`](mod@bench) | what a server can do, measured from the outside, with those clients | partly |
//! | [`replay`] | recorded conversations: played, compared, recorded; uses none of the others | |
//! | [`tools`] | what the program can do beside serving | |
//!
//! Pure means: no I/O, no clock, no randomness, no tasks; time and random numbers come as arguments. The test
//! `tests/layering.rs` keeps the modules' dependencies as they are drawn here.

pub mod cli;
pub mod config;
pub mod protocol;
pub mod server;
pub mod tools;
