//! Figures of the process of the bridge, which it reports to the gateway.

use bytes::Bytes;
use prost::encoding::{decode_varint, encode_varint};
use serde::Serialize;

/// Figures of a bridge: its state, and counts since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BridgeFigures {
    /// Rooms that it connects.
    pub rooms: u64,
    /// Peer connections to clients.
    pub channels: u64,
    /// Bytes that wait for channels.
    pub waiting_bytes: u64,
    /// Channels that were opened.
    pub opened: u64,
    /// Channels that the client closed, or that failed.
    pub closed: u64,
    /// Channels closed because the client sent no checks for eight seconds.
    pub silent: u64,
    /// Channels closed because too many bytes waited for them.
    pub overfull: u64,
    /// Connections that were not created, because there were too many.
    pub refused: u64,
    /// Connections that failed for their session descriptions.
    pub failed: u64,
    /// Messages carried between generations.
    pub messages: u64,
    /// Bytes of these messages.
    pub message_bytes: u64,
    /// Messages dropped, because they were too long or their parts were not in order.
    pub dropped: u64,
    /// Pairs of members cut, because too many bytes waited until both were connected.
    pub cut: u64,
    /// Parts of messages that waited, because their sender or the room sent more than may be carried.
    pub delayed: u64,
    /// Pairs of members cut, because too many bytes waited for that reason.
    pub too_fast: u64,
    /// Members that were not bridged, because there were too many in their room.
    pub unbridged: u64,
    /// Packets that belonged to no connection, and were not answered.
    pub unknown_packets: u64,
}

/// Number of figures.
const COUNT: usize = 17;

impl BridgeFigures {
    /// Returns all figures, in the order in which they are sent.
    fn fields(&mut self) -> [&mut u64; COUNT] {
        // Taken apart, so that a new figure does not compile until it is sent.
        let BridgeFigures {
            rooms,
            channels,
            waiting_bytes,
            opened,
            closed,
            silent,
            overfull,
            refused,
            failed,
            messages,
            message_bytes,
            dropped,
            cut,
            delayed,
            too_fast,
            unbridged,
            unknown_packets,
        } = self;
        [
            rooms,
            channels,
            waiting_bytes,
            opened,
            closed,
            silent,
            overfull,
            refused,
            failed,
            messages,
            message_bytes,
            dropped,
            cut,
            delayed,
            too_fast,
            unbridged,
            unknown_packets,
        ]
    }

    /// Returns the figures one after the other, as numbers in protobuf's form.
    pub(super) fn encode(mut self) -> Vec<u8> {
        let mut out = Vec::new();
        for figure in self.fields() {
            encode_varint(*figure, &mut out);
        }
        out
    }

    /// Reads figures. `None` if there are not as many as this version has.
    pub(super) fn decode(mut bytes: Bytes) -> Option<Self> {
        let mut figures = Self::default();
        for figure in figures.fields() {
            *figure = decode_varint(&mut bytes).ok()?;
        }
        bytes.is_empty().then_some(figures)
    }
}
