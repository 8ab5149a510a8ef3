//! Parts of a WebRTC stack that the bridge uses.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use thiserror::Error;

use crate::protocol::mesh::ChannelFrame;

/// Longest session description that is read, in bytes.
pub(super) const MAX_DESCRIPTION: usize = 16 << 10;

/// A UDP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Datagram<D> {
    /// The address of this process, as session descriptions name it.
    pub(crate) local: SocketAddr,
    /// The address of the other side.
    pub(crate) remote: SocketAddr,
    /// The contents.
    pub(crate) data: D,
}

/// Reason why a peer connection cannot be had.
#[derive(Debug, Error)]
pub(crate) enum PeerConnectionError {
    /// The other side's session description is not usable.
    #[error("the session description is not usable")]
    Description,
    /// The library failed.
    #[error("{0}")]
    Stack(String),
}

/// Something that a peer connection did.
#[derive(Debug)]
pub(super) enum PeerConnectionOutput {
    /// Send a packet.
    Transmit(Datagram<Bytes>),
    /// The data channel is open.
    Opened,
    /// A frame was received.
    Frame(ChannelFrame),
    /// The data channel or all of the connection is closed.
    Closed,
}

/// A WebRTC peer connection with one data channel, which the other side's checks find: it sends none.
pub(super) trait PeerConnection: Sized {
    /// Keys and settings that all connections of the process share.
    type Shared;

    /// Creates a connection with a channel of this label, and its offer.
    fn offer(
        shared: &Self::Shared,
        locals: &[SocketAddr],
        label: String,
        now: Instant,
    ) -> Result<(Self, String), PeerConnectionError>;
    /// Creates a connection for an offer, and its answer.
    fn answer(
        shared: &Self::Shared,
        locals: &[SocketAddr],
        offer: &str,
        now: Instant,
    ) -> Result<(Self, String), PeerConnectionError>;
    /// Takes the answer to its offer.
    fn accept(&mut self, answer: &str) -> Result<(), PeerConnectionError>;
    /// Returns the fragment by which the other side's checks name this connection.
    fn username_fragment(&mut self) -> String;
    /// Takes a packet. Returns true if it is a check with the right password.
    fn feed(&mut self, datagram: &Datagram<&[u8]>, now: Instant) -> bool;
    /// Sends a frame; false if it has to wait.
    fn send(&mut self, frame: &ChannelFrame, now: Instant) -> bool;
    /// Returns true if all that was sent has been received.
    fn is_drained(&mut self) -> bool;
    /// Closes the channel.
    fn close_channel(&mut self);
    /// Closes the connection.
    fn close(&mut self);
    /// Returns false if no more events follow.
    fn is_alive(&self) -> bool;
    /// Does all there is to do at this time. Returns when there is more.
    fn poll(&mut self, now: Instant, output: &mut dyn FnMut(PeerConnectionOutput)) -> Instant;
}
