//! The memory that clients hold by pieces of messages that have no end, as far as it can be seen from outside
//! the library.

use super::{Connection, Connections};
use crate::bridge::peer_connection::PeerConnection;
use crate::protocol::mesh::ChannelFrame;

/// Least bytes without a frame for which a connection is closed while the memory is short.
const MIN_SHED: usize = 64 << 10;
/// Bytes of a packet around its data: what is counted of one that only acknowledges, and of one with a frame.
const PACKET_OVERHEAD: usize = 100;
/// Bytes around a frame in a packet with others.
const FRAME_OVERHEAD: usize = 20;

/// About the bytes of one connection of which no frame was made so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IncompleteBytes {
    bytes: usize,
    /// Bytes around the frames of the last packet that were not taken off yet.
    overhead: usize,
}

impl IncompleteBytes {
    /// Counts a packet.
    pub(super) fn add(&mut self, length: usize) {
        self.bytes = self.bytes.saturating_add(length);
        self.overhead = PACKET_OVERHEAD;
    }

    /// Takes off what a frame had been counted as: its data, with the headers of its packets, and once for
    /// each packet that was received what this has around them.
    pub(super) fn credit_frame(&mut self, frame: &ChannelFrame) {
        let (ChannelFrame::Text(data) | ChannelFrame::Binary(data)) = frame;
        let overhead = FRAME_OVERHEAD.saturating_add(std::mem::take(&mut self.overhead));
        let length = data.len().saturating_add(data.len() / 4).saturating_add(overhead);
        self.bytes = self.bytes.saturating_sub(length);
    }

    /// Takes off the acknowledgement of a packet that was sent.
    pub(super) fn credit_sent(&mut self, length: usize) {
        self.bytes = self.bytes.saturating_sub(length.min(PACKET_OVERHEAD));
    }

    pub(super) fn bytes(self) -> usize {
        self.bytes
    }
}

impl<C: PeerConnection> Connections<C> {
    /// Closes those connections that sent most of which no frame was made: what they hold is memory, of
    /// which pieces of messages can take many times their length.
    pub(in crate::bridge) fn shed_incomplete(&mut self) {
        let least = MIN_SHED.max(self.most_incomplete() / 2);
        let is_large =
            |connection: &Connection<C>| !connection.is_cut && connection.incomplete.bytes() >= least;
        let large = self.connections.iter().filter(|(_, connection)| is_large(connection)).map(|(id, _)| *id);
        large.collect::<Vec<_>>().into_iter().for_each(|id| self.cut(id));
    }

    /// Returns about the most bytes of a connection of which no frame was made.
    pub(in crate::bridge) fn most_incomplete(&self) -> usize {
        let uncut = self.connections.values().filter(|connection| !connection.is_cut);
        uncut.map(|connection| connection.incomplete.bytes()).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn frame(length: usize) -> ChannelFrame {
        ChannelFrame::Binary(Bytes::from(vec![0; length]))
    }

    #[test]
    fn complete_frames_of_any_length_leave_nothing() {
        let mut incomplete = IncompleteBytes::default();
        for length in [1, 40, 1_000, 16_000, 200_000] {
            for _ in 0..100 {
                (0..length / 1_100).for_each(|_| incomplete.add(1_200));
                incomplete.add(length % 1_100 + 90);
                incomplete.credit_frame(&frame(length));
            }
        }
        assert_eq!(incomplete.bytes(), 0);
    }

    #[test]
    fn pieces_do_not_hide_behind_short_frames_in_the_same_packets() {
        for short in 1..50 {
            let (mut incomplete, piece) = (IncompleteBytes::default(), 1_200 - 90 - 20 * short);
            for _ in 0..100 {
                incomplete.add(1_200);
                (0..short).for_each(|_| incomplete.credit_frame(&frame(1)));
            }
            assert!(incomplete.bytes() >= 100 * (piece - piece / 10 - 70), "{short}: {}", incomplete.bytes());
        }
    }

    #[test]
    fn acknowledgements_leave_nothing() {
        let mut incomplete = IncompleteBytes::default();
        for sent in [90, 1_200].repeat(1_000) {
            incomplete.credit_sent(sent);
            incomplete.add(80);
        }
        assert!(incomplete.bytes() <= 80);
    }
}
