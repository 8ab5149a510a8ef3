//! Tests of the player, the comparison and the excused differences, without a server of ours.

#![cfg(test)]

mod compare;
mod exceptions;
mod player;
