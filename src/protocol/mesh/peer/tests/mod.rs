//! A peer in the place of a real client, against recordings of real clients, and against anything.

mod ended_joins;
mod goldens;
mod introductions;
mod orders;
mod properties;
mod recording;
