//! What sigver *means*: rooms, members, joiners and links, without any dialect, socket or clock.
//!
//! A peer asks for something with a [`Command`]; a room answers with [`Event`]s to whoever they concern. What
//! only one dialect has does not belong here: lift it inside that dialect's codec.

pub(crate) mod canonical;
mod command;
mod event;
mod ids;
mod payload;
mod reason;
#[cfg(test)]
pub(crate) mod test_json;

pub use command::{Command, Connect, Join, MemberChoice, Open, Recipient, RejoinPolicy, WhenEmpty};
pub use event::{Event, RoomRole, Side};
pub use ids::{LinkId, NetId, PeerId, RoomKey, SenderTag};
pub use payload::{LinkMessage, Payload};
pub use reason::Reason;
