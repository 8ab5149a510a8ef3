//! Finding out which dialect a client speaks. Pure: frames and the time come in, steps come out.

mod conversation;
mod evidence;
mod guess;
mod policy;
mod rooms;

pub use conversation::{Conversation, Step};
pub use evidence::Evidence;
pub use policy::{Policy, Protocols, Windows, likeliest};
pub use rooms::Rooms;

#[cfg(test)]
mod tests;
