//! Timeouts of a peer, and its heartbeats.

use std::time::{Duration, Instant};

use super::{ChannelFrame, MeshPeer, PeerAction, Progress};

/// Maximum duration until a channel is open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum duration of a join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum duration for which a joiner waits for members it was told of. Some are known to no one else any
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
        let members = self.members_deadline();
        let opening = self.channels.iter().filter(|known| !known.is_open);
        let opening = opening.filter_map(|known| known.since.checked_add(OPEN_TIMEOUT)).min();
        let times = [joining, members, opening, self.requests_deadline(), self.next_heartbeat];
        times.into_iter().flatten().min()
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
        if let Progress::Joining { since } = self.progress
            && is_late(since, JOIN_TIMEOUT)
        {
            return self.fail();
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
