//! The vocabulary of rooms: members, joiners and links, without any dialect, socket or clock.
//!
//! A peer sends a [`Command`] to a room, which answers with [`Event`]s for the peers concerned. A field that
//! only one dialect has belongs into the codec of that dialect. All types can be serialized; the bytes
//! are those of `postcard`, in which a variant is its number, so that none changes its place.

mod command;
mod event;
mod ids;
mod payload;
mod reason;
#[cfg(feature = "cluster")]
#[cfg(test)]
mod serialization_tests;

pub use command::{Command, Connect, Join, MemberChoice, Open, Recipient, RejoinPolicy, WhenEmpty};
pub use event::{Event, RoomRole};
pub use ids::{LinkId, NetId, PeerId, RoomKey, SenderTag, Side};
pub(crate) use payload::should_share_buffer;
pub use payload::{LinkMessage, Payload};
pub use reason::Reason;
