//! The share of the process that one client may take: by its address, as one client can have many connections
//! in a room, and be in many rooms.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::connection_limits::PeerConnectionLimits;
use crate::protocol::mesh::RoomNumber;
use crate::protocol::token_bucket::TokenBucket;

/// The network part of an address, which is all that a client cannot choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClientAddress(IpAddr);

impl From<IpAddr> for ClientAddress {
    fn from(address: IpAddr) -> Self {
        ClientAddress(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        })
    }
}

/// Shares of all clients.
#[derive(Debug, Default)]
pub(super) struct ClientShares {
    /// Processor time in microseconds, by room and client.
    work: FxHashMap<(RoomNumber, Option<ClientAddress>), TokenBucket>,
    connections: FxHashMap<ClientAddress, usize>,
    /// Connections that a client in a room asked for, and over which no check has arrived.
    unanswered: FxHashMap<(RoomNumber, ClientAddress), usize>,
}

fn remove_one<K: Eq + Hash>(counts: &mut FxHashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Number of buckets above which full ones are forgotten.
const MAX_FULL_BUCKETS: usize = 256;

impl ClientShares {
    /// Counts the processor time of a packet in a room. A client without an address has sent no check that
    /// was authentic. Returns false if the client has taken more than the limits allow.
    pub(super) fn charge(
        &mut self,
        room: RoomNumber,
        client: Option<ClientAddress>,
        work: Duration,
        limits: &PeerConnectionLimits,
        now: Instant,
    ) -> bool {
        if self.work.len() >= MAX_FULL_BUCKETS.max(self.connections.len().saturating_mul(2)) {
            self.work.retain(|_, bucket| !bucket.is_full(now));
        }
        let micros = usize::try_from(work.as_micros()).unwrap_or(usize::MAX);
        let bucket = self.work.entry((room, client)).or_insert_with(|| TokenBucket::full(now));
        bucket.take(micros, limits.work_rate, now);
        // The time in which the rate allows the burst.
        let most = limits.work_burst.saturating_mul(1_000_000).checked_div(limits.work_rate);
        bucket.full_in(now) <= most.unwrap_or_default()
    }

    /// Counts a connection of a client. Returns false if the client has more of them than `free`, which
    /// others may still have.
    pub(super) fn add_connection(&mut self, client: ClientAddress, free: usize) -> bool {
        let count = self.connections.entry(client).or_default();
        *count = count.saturating_add(1);
        *count <= free
    }

    /// A connection of a client has ended.
    pub(super) fn remove_connection(&mut self, client: ClientAddress) {
        remove_one(&mut self.connections, &client);
    }

    /// Returns the number of connections that a client asked for and over which no check has arrived: it can
    /// invent the clients that it asks for.
    pub(super) fn unanswered(&self, room: RoomNumber, client: ClientAddress) -> usize {
        self.unanswered.get(&(room, client)).copied().unwrap_or_default()
    }

    /// Counts a connection that a client asked for.
    pub(super) fn add_unanswered(&mut self, room: RoomNumber, client: ClientAddress) {
        let count = self.unanswered.entry((room, client)).or_default();
        *count = count.saturating_add(1);
    }

    /// A check has arrived over a connection that a client asked for, or it has ended.
    pub(super) fn remove_unanswered(&mut self, room: RoomNumber, client: ClientAddress) {
        remove_one(&mut self.unanswered, &(room, client));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> ClientAddress {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn clients_are_told_apart_by_the_network_part_of_their_addresses() {
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }

    fn limits() -> PeerConnectionLimits {
        PeerConnectionLimits::default()
    }

    #[test]
    fn work_counts_for_a_client_in_one_room() {
        let (mut now, mut shares) = (Instant::now(), ClientShares::default());
        let limits = limits();
        let half = limits.work_burst / 2;
        let mut charge =
            |room, address, work, now| shares.charge(room, Some(client(address)), work, &limits, now);
        assert!(charge(1, "192.0.2.1", half, now) && charge(1, "192.0.2.1", half, now));
        assert!(!charge(1, "192.0.2.1", half, now));
        assert!(charge(1, "192.0.2.2", half, now) && charge(2, "192.0.2.1", half, now));
        for _ in 0..1_000 {
            now += Duration::from_secs(1);
            assert!(charge(1, "192.0.2.2", Duration::from_millis(240), now), "less than the rate");
        }
        let in_time = (0..1_000).take_while(|_| {
            now += Duration::from_secs(1);
            charge(1, "192.0.2.2", Duration::from_millis(350), now)
        });
        assert_eq!(in_time.count(), 37, "from 0.35 to 3.95 s, by 0.1 s more than the rate each second");
    }

    #[test]
    fn buckets_of_clients_that_send_nothing_are_forgotten() {
        let (mut now, mut shares) = (Instant::now(), ClientShares::default());
        for room in 0..10_000 {
            now += Duration::from_millis(10);
            shares.charge(room, None, Duration::from_millis(1), &limits(), now);
        }
        assert!(shares.work.len() <= MAX_FULL_BUCKETS);
    }

    #[test]
    fn client_has_no_more_connections_than_are_free() {
        let mut shares = ClientShares::default();
        let (max, greedy) = (20, client("192.0.2.1"));
        let taken = (1..=max).take_while(|count| shares.add_connection(greedy, max - count)).count();
        assert_eq!(taken, max / 2);
        shares.remove_connection(greedy);
        assert!(shares.add_connection(client("192.0.2.2"), max - taken - 1));
        (0..taken).for_each(|_| shares.remove_connection(greedy));
        assert_eq!(shares.connections.len(), 1);
    }
}
