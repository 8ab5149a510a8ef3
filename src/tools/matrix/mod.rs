//! The matrix: how well members of each dialect and joiners of each other dialect work together on a server.

pub(in crate::tools) mod cli;
mod expect;
pub mod known;
mod negative_control;
mod pair_test;
pub mod render;
pub mod result;
pub mod run;
mod summary;
