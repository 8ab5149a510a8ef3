//! Interoperation, measured: synthetic clients of every dialect, the matrix of who can work with whom, and the probe
//! that finds out what a server speaks.
//!
//! Nothing here uses the product's own codecs: what the clients say and understand is written by hand, from what was
//! measured on the original servers and clients, so that it can judge them. Of the product only the table of dialects
//! and releases is used, for their names.
//!
//! | module | what lives there | pure |
//! |---|---|---|
//! | [`tongue`] | the seventeen ways of speaking, and what each has words for | yes |
//! | [`parcel`] | what clients send one another, so that it can be known again | yes |
//! | [`client`] | a client of each dialect: what it says, and what it makes of what it hears | yes |
//! | [`protobufjs`] | protobuf as the real clients read it | yes |
//! | [`target`] | the server's URL, and connections to it | |
//! | [`peer`] | a client on a WebSocket | |
//! | [`cell`] | one pair of dialects on a server | |
//! | [`matrix`] | all pairs, some at a time | |
//! | [`outcome`] | results, and how they compare with older ones | yes |
//! | [`probe`] | what a server speaks | |
//! | [`report`] | results for people and for machines | yes |

pub mod cell;
pub mod client;
pub mod matrix;
pub mod outcome;
pub mod parcel;
pub mod peer;
pub mod probe;
pub mod protobufjs;
pub mod report;
pub mod target;
pub mod tongue;
