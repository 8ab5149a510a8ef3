//! Peer connections by str0m, which has neither sockets nor clocks. They are ICE-lite: with the addresses of
//! this process in its session descriptions, the clients' own candidates are not needed, and names that only
//! their network resolves (mDNS) do not matter.

use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use bytes::Bytes;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::ChannelId;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

use super::peer_connection::{
    Datagram, MAX_DESCRIPTION, PeerConnection, PeerConnectionError, PeerConnectionOutput,
};
use crate::protocol::mesh::ChannelFrame;

/// Most bytes of a channel that the stack holds. The rest waits where heartbeats can be put before it.
const MAX_BUFFERED: usize = 128 << 10;
/// Bytes below which the stack takes more.
const LOW_BUFFERED: usize = 64 << 10;
/// Most timers in a row that are due at once.
const MAX_DUE_TIMERS: usize = 16;
/// Delay of a poll of which nothing is expected.
const IDLE_POLL: Duration = Duration::from_secs(60);
/// Maximum duration by which the stack's time may lag behind when it is given a frame. Only packets and
/// timers advance it, and the stack measures from it how long a packet has not been acknowledged: with an
/// older time, it would send the packet twice at once, and wait longer for later ones.
const MAX_LAG: Duration = Duration::from_millis(20);
/// The lines of session descriptions that are not read.
const UNREAD_LINES: [&str; 2] = ["a=candidate", "a=extmap-allow-mixed"];

/// The certificate and the settings of all connections.
#[derive(Clone)]
pub(super) struct Str0mShared {
    config: RtcConfig,
    /// False for a client, which sends checks and reads the addresses in session descriptions.
    is_lite: bool,
}

impl fmt::Debug for Str0mShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Str0mShared")
    }
}

impl Str0mShared {
    /// Creates a certificate.
    ///
    /// # Errors
    ///
    /// The library has no source of keys.
    pub(super) fn new() -> Result<Self, PeerConnectionError> {
        Str0mShared::with_role(true)
    }

    fn with_role(is_lite: bool) -> Result<Self, PeerConnectionError> {
        let provider = str0m::crypto::from_feature_flags();
        let certificate = provider.dtls_provider.generate_certificate();
        let certificate =
            certificate.ok_or_else(|| PeerConnectionError::Stack("no certificate".to_owned()))?;
        let config = RtcConfig::new()
            .set_ice_lite(is_lite)
            .clear_codecs()
            .set_dtls_cert(certificate)
            .set_sctp_max_buffered_amount(MAX_BUFFERED);
        Ok(Str0mShared { config, is_lite })
    }
}

#[cfg(test)]
impl Str0mShared {
    /// Creates the certificate of a client.
    pub(super) fn client() -> Self {
        Str0mShared::with_role(false).unwrap()
    }
}

/// A peer connection by str0m.
pub(super) struct Str0mConnection {
    rtc: Rtc,
    pending: Option<SdpPendingOffer>,
    channel: Option<ChannelId>,
    /// The time that the library was given last.
    clock: Instant,
    /// The library panicked: nothing more is asked of it.
    is_broken: bool,
    is_lite: bool,
}

impl fmt::Debug for Str0mConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Str0mConnection").field("channel", &self.channel).finish_non_exhaustive()
    }
}

fn stack_error(error: impl fmt::Display) -> PeerConnectionError {
    PeerConnectionError::Stack(error.to_string())
}

/// Returns an error without the library's text, which can quote what a client sent.
fn description_error<E>(_: E) -> PeerConnectionError {
    PeerConnectionError::Description
}

/// Removes the lines that are not read.
fn read_lines(description: &str, is_lite: bool) -> Result<String, PeerConnectionError> {
    if description.len() > MAX_DESCRIPTION {
        return Err(description_error("it is too long"));
    }
    let is_read = |line: &&str| !is_lite || !UNREAD_LINES.iter().any(|unread| line.starts_with(unread));
    Ok(description.split_inclusive('\n').filter(is_read).collect())
}

impl Str0mConnection {
    fn new(shared: &Str0mShared, locals: &[SocketAddr], now: Instant) -> Result<Self, PeerConnectionError> {
        let mut rtc = shared.config.clone().build(now);
        for local in locals {
            rtc.add_local_candidate(Candidate::host(*local, "udp").map_err(stack_error)?);
        }
        let is_lite = shared.is_lite;
        Ok(Str0mConnection { rtc, pending: None, channel: None, clock: now, is_broken: false, is_lite })
    }

    /// Runs the library. A panic in it costs this connection only.
    fn guarded<T>(&mut self, run: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.is_broken {
            return None;
        }
        let result = catch_unwind(AssertUnwindSafe(|| run(self)));
        self.is_broken = result.is_err();
        result.ok()
    }

    /// Gives the library a packet or the time. Returns false if it fails.
    fn input(&mut self, input: Input<'_>, now: Instant) -> bool {
        self.clock = now;
        self.rtc.handle_input(input).is_ok()
    }

    fn take_event(&mut self, event: Event) -> Option<PeerConnectionOutput> {
        match event {
            // A second channel has no use.
            Event::ChannelOpen(channel, _) if self.channel.is_none() => {
                self.channel = Some(channel);
                if let Some(mut open) = self.rtc.channel(channel) {
                    open.set_buffered_amount_low_threshold(LOW_BUFFERED);
                }
                Some(PeerConnectionOutput::Opened)
            }
            Event::ChannelData(data) if Some(data.id) == self.channel => {
                let bytes = Bytes::from(data.data);
                Some(PeerConnectionOutput::Frame(match data.binary {
                    true => ChannelFrame::Binary(bytes),
                    false => ChannelFrame::Text(bytes),
                }))
            }
            Event::ChannelClose(channel) if Some(channel) == self.channel => {
                Some(PeerConnectionOutput::Closed)
            }
            Event::Closed => Some(PeerConnectionOutput::Closed),
            _ => None,
        }
    }
}

impl PeerConnection for Str0mConnection {
    type Shared = Str0mShared;

    fn offer(
        shared: &Str0mShared,
        locals: &[SocketAddr],
        label: String,
        now: Instant,
    ) -> Result<(Self, String), PeerConnectionError> {
        let mut connection = Str0mConnection::new(shared, locals, now)?;
        let mut changes = connection.rtc.sdp_api();
        changes.add_channel(label);
        let (offer, pending) = changes.apply().ok_or_else(|| stack_error("no offer"))?;
        connection.pending = Some(pending);
        Ok((connection, offer.to_sdp_string()))
    }

    fn answer(
        shared: &Str0mShared,
        locals: &[SocketAddr],
        offer: &str,
        now: Instant,
    ) -> Result<(Self, String), PeerConnectionError> {
        let offer = read_lines(offer, shared.is_lite)?;
        let mut connection = Str0mConnection::new(shared, locals, now)?;
        let answer = connection.guarded(|connection| {
            let offer = SdpOffer::from_sdp_string(&offer).map_err(description_error)?;
            connection.rtc.sdp_api().accept_offer(offer).map_err(description_error)
        });
        let answer = answer.unwrap_or_else(|| Err(stack_error("the library panicked")))?;
        Ok((connection, answer.to_sdp_string()))
    }

    fn accept(&mut self, answer: &str) -> Result<(), PeerConnectionError> {
        let answer = read_lines(answer, self.is_lite)?;
        let pending = self.pending.take().ok_or_else(|| description_error("there is an answer already"))?;
        let accepted = self.guarded(|connection| {
            let answer = SdpAnswer::from_sdp_string(&answer).map_err(description_error)?;
            connection.rtc.sdp_api().accept_answer(pending, answer).map_err(description_error)
        });
        accepted.unwrap_or_else(|| Err(stack_error("the library panicked")))
    }

    fn username_fragment(&mut self) -> String {
        self.rtc.direct_api().local_ice_credentials().ufrag
    }

    fn feed(&mut self, datagram: &Datagram<&[u8]>, now: Instant) -> bool {
        let is_check = datagram.data.first().is_some_and(|first| *first < 4);
        let fed = self.guarded(|connection| {
            let Ok(contents) = datagram.data.try_into() else { return false };
            let (source, destination) = (datagram.remote, datagram.local);
            let receive = Receive { proto: Protocol::Udp, source, destination, contents };
            let input = Input::Receive(now, receive);
            connection.rtc.accepts(&input) && connection.input(input, now)
        });
        fed == Some(true) && is_check
    }

    fn send(&mut self, frame: &ChannelFrame, now: Instant) -> bool {
        let (is_binary, data) = match frame {
            ChannelFrame::Text(data) => (false, data),
            ChannelFrame::Binary(data) => (true, data),
        };
        let Some(channel) = self.channel else { return false };
        let written = self.guarded(|connection| {
            if now.saturating_duration_since(connection.clock) >= MAX_LAG {
                connection.input(Input::Timeout(now), now);
            }
            // An error is that of a channel that is closed, which is an event too.
            connection
                .rtc
                .channel(channel)
                .is_some_and(|mut open| open.write(is_binary, data).unwrap_or(true))
        });
        written.unwrap_or(false)
    }

    fn is_drained(&mut self) -> bool {
        let Some(channel) = self.channel else { return true };
        let buffered = self.guarded(|connection| {
            connection.rtc.channel(channel).map_or(0, |mut open| open.buffered_amount())
        });
        buffered.unwrap_or(0) == 0
    }

    fn close_channel(&mut self) {
        if let Some(channel) = self.channel {
            self.guarded(|connection| connection.rtc.direct_api().close_data_channel(channel));
        }
    }

    fn close(&mut self) {
        self.guarded(|connection| connection.rtc.close().is_ok());
    }

    fn is_alive(&self) -> bool {
        !self.is_broken && self.rtc.is_alive()
    }

    fn poll(&mut self, now: Instant, output: &mut dyn FnMut(PeerConnectionOutput)) -> Instant {
        let idle = now.checked_add(IDLE_POLL).unwrap_or(now);
        let next = self.guarded(|connection| {
            let mut timers = 0_usize;
            loop {
                match connection.rtc.poll_output() {
                    Ok(Output::Timeout(at)) => {
                        timers = timers.saturating_add(1);
                        let is_due = at <= now && timers <= MAX_DUE_TIMERS;
                        if !is_due || !connection.input(Input::Timeout(now), now) {
                            return at.min(idle);
                        }
                    }
                    Ok(Output::Transmit(transmit)) => {
                        output(PeerConnectionOutput::Transmit(Datagram {
                            local: transmit.source,
                            remote: transmit.destination,
                            data: Bytes::from(Vec::from(transmit.contents)),
                        }));
                    }
                    Ok(Output::Event(event)) => {
                        if let Some(event) = connection.take_event(event) {
                            output(event);
                        }
                    }
                    Err(_) => {
                        output(PeerConnectionOutput::Closed);
                        return idle;
                    }
                }
            }
        });
        if !self.is_alive() {
            output(PeerConnectionOutput::Closed);
        }
        next.unwrap_or(idle)
    }
}
