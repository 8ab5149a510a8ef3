//! The UDP sockets.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::net::UdpSocket;

use crate::bridge::engine::BridgeEngine;
use crate::bridge::peer_connection::Datagram;

/// Length of the buffers of the kernel, in bytes: what arrives while other packets are worked on.
const KERNEL_BUFFER: usize = 4 << 20;
/// Longest packet that is read. Those of WebRTC are not longer than a path's MTU.
const MAX_PACKET: usize = 2_048;
/// Most packets that are taken before what follows from them is sent.
const MAX_BATCH: usize = 64;

/// Reason why there is no UDP socket.
#[derive(Debug, Error)]
pub(super) enum UdpError {
    #[error("cannot receive at UDP address {address}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error(
        "the UDP address {address} is that of all interfaces, and this machine's own is not known: name one \
         by --listen (of the gateway: --bridge) or --public-address (of the gateway: --bridge-public-address)"
    )]
    Unspecified { address: SocketAddr, source: io::Error },
}

#[derive(Debug)]
struct BridgeSocket {
    socket: UdpSocket,
    /// The address that session descriptions name.
    local: SocketAddr,
}

/// The UDP sockets.
#[derive(Debug)]
pub(super) struct UdpSockets {
    sockets: Vec<BridgeSocket>,
    buffer: Vec<u8>,
}

impl UdpSockets {
    pub(super) fn bind(addresses: &[SocketAddr], public: &[IpAddr]) -> Result<Self, UdpError> {
        let bind = |address: &SocketAddr| {
            let address = *address;
            let socket = bind(address).map_err(|source| UdpError::Bind { address, source })?;
            let bound = socket.local_addr().map_err(|source| UdpError::Bind { address, source })?;
            let public = public.iter().copied().find(|public| public.is_ipv4() == address.is_ipv4());
            let ip = match public {
                Some(public) => public,
                None if address.ip().is_unspecified() => own_address(address.is_ipv4())
                    .map_err(|source| UdpError::Unspecified { address, source })?,
                None => address.ip(),
            };
            Ok(BridgeSocket { socket, local: SocketAddr::new(ip, bound.port()) })
        };
        let sockets = addresses.iter().map(bind).collect::<Result<_, UdpError>>()?;
        Ok(UdpSockets { sockets, buffer: vec![0; MAX_PACKET] })
    }

    /// Returns the addresses that session descriptions name.
    pub(super) fn locals(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|socket| socket.local).collect()
    }

    /// Waits until there is a packet.
    pub(super) async fn readable(&self) {
        poll_fn(|context| {
            let mut ready = self.sockets.iter().map(|one| one.socket.poll_recv_ready(context));
            if ready.any(|poll| poll.is_ready()) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Gives packets to the engine.
    pub(super) fn receive(&mut self, engine: &mut BridgeEngine) {
        let mut until_now = processor_time();
        for one in &self.sockets {
            for _ in 0..MAX_BATCH {
                // An error is that of an earlier packet, whose receiver is no more.
                let Ok((length, remote)) = one.socket.try_recv_from(&mut self.buffer) else { break };
                let Some(data) = self.buffer.get(..length) else { break };
                let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
                let now = Instant::now();
                let connection = engine.feed(&Datagram { local: one.local, remote, data }, now);
                let before = std::mem::replace(&mut until_now, processor_time());
                if let Some(connection) = connection {
                    engine.charge(connection, until_now.saturating_sub(before), now);
                }
            }
        }
    }

    /// Sends packets. One that the kernel does not take is lost, and sent again by the peer connection.
    pub(super) fn send(&self, packets: Vec<Datagram<Bytes>>) {
        for packet in packets {
            if let Some(one) = self.sockets.iter().find(|one| one.local == packet.local) {
                let _ = one.socket.try_send_to(&packet.data, packet.remote);
            }
        }
    }
}

/// Returns the processor time that this thread has taken.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // The kernel may allow less.
    let _ = socket.set_recv_buffer_size(KERNEL_BUFFER);
    let _ = socket.set_send_buffer_size(KERNEL_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Returns the address from which this machine reaches others. No packet is sent.
fn own_address(is_ipv4: bool) -> io::Result<IpAddr> {
    // Addresses for documentation: any with a route will do.
    let (any, other): (IpAddr, IpAddr) = if is_ipv4 {
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into())
    } else {
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into())
    };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.connect((other, 9))?;
    Ok(socket.local_addr()?.ip())
}
