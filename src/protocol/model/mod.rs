//! What sigver *means*: rooms, members, joiners and links, without any dialect, socket or clock.
//!
//! A peer asks for something with a [`Command`]; a room answers with [`Event`]s to whoever they concern. What
//! only one dialect has does not belong here: lift it inside that dialect's codec.

mod command;
mod event;
mod ids;
mod payload;
mod reason;

pub use command::{Command, Connect, Join, MemberChoice, Open, Recipient, RejoinPolicy, WhenEmpty};
pub use event::{Event, RoomRole, Side};
pub use ids::{LinkId, NetId, PeerId, RoomKey, SenderTag};
pub(crate) use payload::should_share_buffer;
pub use payload::{LinkMessage, Payload};
pub use reason::Reason;
