//! A client's end of a peer connection with one data channel, on a UDP socket of its own.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use sigver::protocol::mesh::ChannelFrame;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::ChannelId;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

/// Longest time without a poll.
const IDLE_POLL: Duration = Duration::from_secs(60);

/// Something that a channel did.
pub(crate) enum ChannelEvent {
    Opened,
    Frame(ChannelFrame),
    Closed,
}

/// A client's end of a channel.
pub(crate) struct Channel {
    rtc: Rtc,
    pending: Option<SdpPendingOffer>,
    id: Option<ChannelId>,
    socket: UdpSocket,
    address: SocketAddr,
    waiting: VecDeque<ChannelFrame>,
    due: Instant,
    is_closed: bool,
}

/// Returns the settings of all channels, with one certificate.
pub(crate) fn configuration() -> Result<RtcConfig> {
    let provider = str0m::crypto::from_feature_flags();
    let certificate = provider.dtls_provider.generate_certificate().context("no certificate")?;
    Ok(RtcConfig::new().clear_codecs().set_dtls_cert(certificate))
}

impl Channel {
    fn new(configuration: &RtcConfig, now: Instant) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let mut rtc = configuration.clone().build(now);
        rtc.add_local_candidate(Candidate::host(address, "udp")?);
        let waiting = VecDeque::new();
        Ok(Channel { rtc, pending: None, id: None, socket, address, waiting, due: now, is_closed: false })
    }

    /// Creates a channel, and returns its offer.
    pub(crate) fn offer(configuration: &RtcConfig, label: String, now: Instant) -> Result<(Self, String)> {
        let mut channel = Channel::new(configuration, now)?;
        let mut changes = channel.rtc.sdp_api();
        changes.add_channel(label);
        let (offer, pending) = changes.apply().ok_or_else(|| anyhow!("no offer"))?;
        channel.pending = Some(pending);
        Ok((channel, offer.to_sdp_string()))
    }

    /// Creates a channel for an offer, and returns its answer.
    pub(crate) fn answer(configuration: &RtcConfig, offer: &str, now: Instant) -> Result<(Self, String)> {
        let mut channel = Channel::new(configuration, now)?;
        let answer = channel.rtc.sdp_api().accept_offer(SdpOffer::from_sdp_string(offer)?)?;
        Ok((channel, answer.to_sdp_string()))
    }

    /// Takes the answer to its offer.
    pub(crate) fn accept(&mut self, answer: &str) -> Result<()> {
        let pending = self.pending.take().context("there is an answer already")?;
        self.rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(answer)?)?;
        Ok(())
    }

    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Sends a frame, or has it wait.
    pub(crate) fn send(&mut self, frame: ChannelFrame) {
        self.waiting.push_back(frame);
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }

    /// Takes the packets that the socket has.
    pub(crate) fn receive(&mut self, now: Instant, events: &mut Vec<ChannelEvent>) -> Result<()> {
        let mut buffer = [0; 2_048];
        loop {
            let (length, source) = match self.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The bridge is not there: that its channels end is seen by their timeouts.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error.into()),
            };
            let Ok(contents) = buffer[..length].try_into() else { continue };
            let receive = Receive { proto: Protocol::Udp, source, destination: self.address, contents };
            if self.rtc.is_alive() {
                self.rtc.handle_input(Input::Receive(now, receive))?;
            }
            self.poll(now, events)?;
        }
    }

    /// Does all there is to do at this time.
    pub(crate) fn poll(&mut self, now: Instant, events: &mut Vec<ChannelEvent>) -> Result<()> {
        loop {
            self.due = self.drain(now, events)?;
            let Some(id) = self.id else { return Ok(()) };
            let mut is_written = false;
            while let Some(frame) = self.waiting.front() {
                let (is_binary, data) = match frame {
                    ChannelFrame::Text(data) => (false, data),
                    ChannelFrame::Binary(data) => (true, data),
                };
                let Some(mut open) = self.rtc.channel(id) else { break };
                if !open.write(is_binary, data)? {
                    break;
                }
                self.waiting.pop_front();
                is_written = true;
            }
            if !is_written {
                return Ok(());
            }
        }
    }

    fn drain(&mut self, now: Instant, events: &mut Vec<ChannelEvent>) -> Result<Instant> {
        let mut timers = 0;
        loop {
            if !self.rtc.is_alive() {
                self.close(events);
                return Ok(now + IDLE_POLL);
            }
            match self.rtc.poll_output()? {
                Output::Timeout(at) => {
                    timers += 1;
                    if at > now || timers > 16 {
                        return Ok(at.min(now + IDLE_POLL));
                    }
                    self.rtc.handle_input(Input::Timeout(now))?;
                }
                Output::Transmit(packet) => {
                    // A packet that the kernel does not take is lost, and sent again.
                    let _ = self.socket.send_to(&packet.contents, packet.destination);
                }
                Output::Event(Event::ChannelOpen(id, _)) => {
                    self.id = Some(id);
                    events.push(ChannelEvent::Opened);
                }
                Output::Event(Event::ChannelData(data)) => {
                    let bytes = Bytes::from(data.data);
                    events.push(ChannelEvent::Frame(match data.binary {
                        true => ChannelFrame::Binary(bytes),
                        false => ChannelFrame::Text(bytes),
                    }));
                }
                Output::Event(Event::ChannelClose(_)) => self.close(events),
                Output::Event(_) => {}
            }
        }
    }

    fn close(&mut self, events: &mut Vec<ChannelEvent>) {
        if !std::mem::replace(&mut self.is_closed, true) {
            events.push(ChannelEvent::Closed);
        }
    }
}
