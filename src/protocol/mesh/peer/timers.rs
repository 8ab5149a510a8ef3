//! Timeouts of a peer, and its heartbeats.

use std::time::{Duration, Instant};

use super::channels::PeerChannel;
use super::{ChannelFrame, DescriptionKind, MeshChannel, MeshPeer, PeerAction, Progress};

/// Maximum duration until a channel is open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum duration of a join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum duration for which the member through which a peer joins may send nothing over the open channel
/// before it has presented itself. A browser may drop what a page sends as soon as the page has the channel,
/// and no version sends it again.
const ENTRY_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum duration for which a client may send nothing over a channel that this peer offered as a member.
const PROMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum duration for which a joiner waits for members announced to it. Some are known to no one else any
/// more (netflux 1.1 keeps a peer that left in its list). The entry of netflux 0.10.3 gives a joiner up after
/// five seconds.
pub(super) const MEMBER_TIMEOUT: Duration = Duration::from_millis(3_500);
/// Number of heartbeats that a client may miss.
const MISSED_HEARTBEATS: u32 = 3;

impl MeshPeer {
    /// Returns the time of the next [`tick`](Self::tick), if there is one.
    pub fn deadline(&self) -> Option<Instant> {
        let joining = match self.progress {
            Progress::Joining { since } => since.checked_add(JOIN_TIMEOUT),
            Progress::Idle | Progress::Member | Progress::Ended => None,
        };
        let (members, entry) = (self.members_deadline(), self.entry_deadline());
        let opening = self.channels.iter().filter(|known| !known.is_open);
        let opening = opening.filter_map(|known| known.since.checked_add(OPEN_TIMEOUT)).min();
        let silent = self.silent_channels().filter_map(|known| known.last_frame.checked_add(PROMPT_TIMEOUT));
        let times =
            [joining, entry, members, opening, silent.min(), self.requests_deadline(), self.next_heartbeat];
        times.into_iter().flatten().min()
    }

    /// Returns the channels that this peer offered as a member and over which nothing was received.
    fn silent_channels(&self) -> impl Iterator<Item = &PeerChannel> {
        let is_member = self.progress == Progress::Member;
        let is_offered = |known: &&PeerChannel| known.via.is_some() && known.kind == DescriptionKind::Offer;
        self.channels.iter().filter(move |known| is_member && known.is_silent).filter(is_offered)
    }

    fn entry_deadline(&self) -> Option<Instant> {
        if !matches!(self.progress, Progress::Joining { .. }) || self.entry.is_some() {
            return None;
        }
        let way_in = self.channels.iter().find(|known| known.via.is_none() && known.is_open)?;
        way_in.last_frame.checked_add(ENTRY_TIMEOUT)
    }

    fn members_deadline(&self) -> Option<Instant> {
        let entry_since = self.entry.map(|entry| entry.since);
        match self.progress {
            Progress::Joining { since } if !self.awaited.is_empty() => {
                let is_introduced = self.introducer != 0;
                entry_since.or(is_introduced.then_some(since))?.checked_add(MEMBER_TIMEOUT)
            }
            Progress::Idle | Progress::Joining { .. } | Progress::Member | Progress::Ended => None,
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        if self.members_deadline().is_some_and(|deadline| deadline <= now) {
            self.give_up_awaited();
        }
        self.repeat_requests(now);
        let is_late = |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        let is_join_late =
            matches!(self.progress, Progress::Joining { since } if is_late(since, JOIN_TIMEOUT));
        if is_join_late || self.entry_deadline().is_some_and(|deadline| deadline <= now) {
            return self.fail();
        }
        let silent: Vec<(MeshChannel, u32)> = self
            .silent_channels()
            .filter(|known| is_late(known.last_frame, PROMPT_TIMEOUT))
            .filter_map(|known| Some((known.channel, known.member?)))
            .collect();
        for (channel, member) in silent {
            if let Some(known) = self.channel_mut(channel) {
                known.is_silent = false;
            }
            self.group.protocol().prompt(self, channel, member);
        }
        let heartbeat = self.group.facts().heartbeat;
        let silence = heartbeat.map(|interval| interval.saturating_mul(MISSED_HEARTBEATS));
        let overdue: Vec<_> = self
            .channels
            .iter()
            .filter(|known| match (known.is_open, silence) {
                (false, _) => is_late(known.since, OPEN_TIMEOUT),
                (true, Some(silence)) => known.member.is_some() && is_late(known.last_frame, silence),
                (true, None) => false,
            })
            .map(|known| known.channel)
            .collect();
        for channel in overdue {
            self.close(channel);
        }
        if let Some(interval) = heartbeat
            && self.next_heartbeat.is_some_and(|due| due <= now)
            && self.progress != Progress::Ended
        {
            self.next_heartbeat = now.checked_add(interval);
            for (channel, member) in self.open_channels() {
                let frame = member.and_then(|member| self.group.protocol().heartbeat(self, member));
                if let Some(frame) = frame {
                    let frame = ChannelFrame::Binary(frame);
                    self.actions.push(PeerAction::Send { channel, frame, is_urgent: true });
                }
            }
        }
    }
}
