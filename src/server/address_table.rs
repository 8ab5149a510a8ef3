//! The connections and event streams of each address, and the rate of its new ones. A plain state machine;
//! the time is an argument.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use super::telemetry::LimitKind;
use crate::protocol::token_bucket::TokenBucket;

/// Number of addresses up to which those without a connection are not looked for.
const MIN_PURGED: usize = 1024;

/// Maximum number of addresses that are kept for their rate alone.
const MAX_IDLE: usize = 65_536;

/// The addresses by which clients of IPv4 come through a NAT64, `64:ff9b::/96` (RFC 6052), without the last
/// 32 bits, which are the address of IPv4.
const NAT64: u128 = 0x0064_ff9b << 96;

/// The part of an address that is counted: an IPv4 address, or the network of an IPv6 address, of which one
/// client usually has all addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ClientNetwork {
    V4(u32),
    V6(u64),
}

impl ClientNetwork {
    /// Returns the network that a customer of a provider may have: that of 48 bits of an IPv6 address, as its
    /// first network of 64 bits; an IPv4 address itself.
    pub(crate) const fn site(self) -> Self {
        match self {
            ClientNetwork::V4(address) => ClientNetwork::V4(address),
            ClientNetwork::V6(prefix) => ClientNetwork::V6(prefix & !0xffff),
        }
    }
}

impl From<IpAddr> for ClientNetwork {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => ClientNetwork::V4(address.to_bits()),
            IpAddr::V6(address) if address.to_bits() & !u128::from(u32::MAX) == NAT64 => {
                ClientNetwork::V4(address.to_bits() as u32)
            }
            IpAddr::V6(address) => ClientNetwork::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// Limits of one address. `None` is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AddressLimits {
    pub(super) connections: Option<u32>,
    /// New connections in a second.
    pub(super) rate: Option<u32>,
    pub(super) streams: Option<u32>,
}

impl AddressLimits {
    pub(super) fn any(&self) -> bool {
        self.connections.or(self.rate).or(self.streams).is_some()
    }
}

/// Connections and event streams by address.
#[derive(Debug)]
pub(super) struct AddressTable {
    limits: AddressLimits,
    usage: HashMap<ClientNetwork, AddressUsage>,
    /// Number of addresses at which those without a connection are looked for.
    purge_at: usize,
}

#[derive(Debug)]
struct AddressUsage {
    connections: u32,
    streams: u32,
    bucket: TokenBucket,
}

impl AddressUsage {
    fn is_busy(&self) -> bool {
        self.connections > 0 || self.streams > 0
    }
}

impl AddressTable {
    pub(super) fn new(limits: AddressLimits) -> Self {
        AddressTable { limits, usage: HashMap::new(), purge_at: MIN_PURGED }
    }

    /// Replaces the limits.
    pub(super) fn set_limits(&mut self, limits: AddressLimits) {
        self.limits = limits;
    }

    /// Counts a new connection of an address.
    ///
    /// # Errors
    /// The limit that the address has reached; nothing is counted then.
    pub(super) fn admit_connection(&mut self, of: ClientNetwork, now: Instant) -> Result<(), LimitKind> {
        let AddressLimits { connections, rate, .. } = self.limits;
        let usage = self.usage_of(of, now);
        if connections.is_some_and(|limit| usage.connections >= limit) {
            return Err(LimitKind::ConnectionsPerAddress);
        }
        if rate.is_some_and(|rate| !usage.bucket.try_take(rate, now)) {
            return Err(LimitKind::ConnectionRate);
        }
        usage.connections += 1;
        Ok(())
    }

    /// Counts a refused request of an address like a new connection, if its rate is limited.
    pub(super) fn count_refusal(&mut self, of: ClientNetwork, now: Instant) {
        if let Some(rate) = self.limits.rate {
            self.usage_of(of, now).bucket.try_take(rate, now);
        }
    }

    /// Returns true if a new connection of an address would exceed its rate.
    pub(super) fn is_at_rate(&self, of: ClientNetwork, now: Instant) -> bool {
        let bucket = self.usage.get(&of).map(|usage| usage.bucket);
        self.limits.rate.zip(bucket).is_some_and(|(rate, bucket)| !bucket.has_token(rate, now))
    }

    /// Counts a new event stream of an address, and as a connection if it is one of its own.
    ///
    /// # Errors
    /// The limit that the address has reached; nothing is counted then.
    pub(super) fn admit_stream(
        &mut self,
        of: ClientNetwork,
        is_connection: bool,
        now: Instant,
    ) -> Result<(), LimitKind> {
        let limit = self.limits.streams;
        if limit.is_some_and(|limit| self.usage_of(of, now).streams >= limit) {
            return Err(LimitKind::StreamsPerAddress);
        }
        if is_connection {
            self.admit_connection(of, now)?;
        }
        self.usage_of(of, now).streams += 1;
        Ok(())
    }

    /// Takes back [`admit_connection`](Self::admit_connection), except for the rate.
    pub(super) fn release_connection(&mut self, of: ClientNetwork) {
        self.release(of, |usage| usage.connections = usage.connections.saturating_sub(1));
    }

    /// Takes back [`admit_stream`](Self::admit_stream).
    pub(super) fn release_stream(&mut self, of: ClientNetwork) {
        self.release(of, |usage| usage.streams = usage.streams.saturating_sub(1));
    }

    fn release(&mut self, of: ClientNetwork, release: impl FnOnce(&mut AddressUsage)) {
        let Some(usage) = self.usage.get_mut(&of) else { return };
        release(usage);
        // With a rate, the address is kept until its bucket is full.
        if !usage.is_busy() && self.limits.rate.is_none() {
            self.usage.remove(&of);
        }
    }

    fn usage_of(&mut self, of: ClientNetwork, now: Instant) -> &mut AddressUsage {
        if self.usage.len() >= self.purge_at {
            self.purge(now);
        }
        let new = || AddressUsage { connections: 0, streams: 0, bucket: TokenBucket::full(now) };
        self.usage.entry(of).or_insert_with(new)
    }

    /// Forgets the addresses without a connection whose rate is that of a new one; all without a connection,
    /// if they are too many.
    fn purge(&mut self, now: Instant) {
        self.usage.retain(|_, usage| usage.is_busy() || !usage.bucket.is_full(now));
        if self.usage.values().filter(|usage| !usage.is_busy()).count() > MAX_IDLE {
            self.usage.retain(|_, usage| usage.is_busy());
        }
        self.usage.shrink_to(MIN_PURGED.max(2 * self.usage.len()));
        self.purge_at = MIN_PURGED.max(2 * self.usage.len());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn network(address: &str) -> ClientNetwork {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn refusals_count_for_the_rate_alone() {
        let (start, one) = (Instant::now(), network("192.0.2.1"));
        let limits = AddressLimits { connections: Some(1), rate: Some(2), streams: None };
        let mut table = AddressTable::new(limits);
        table.count_refusal(one, start);
        assert!(!table.is_at_rate(one, start));
        table.count_refusal(one, start);
        assert!(table.is_at_rate(one, start) && !table.is_at_rate(network("192.0.2.2"), start));
        assert_eq!(table.admit_connection(one, start), Err(LimitKind::ConnectionRate));
        let later = start + Duration::from_secs(1);
        assert!(!table.is_at_rate(one, later) && table.admit_connection(one, later).is_ok());
        table.set_limits(AddressLimits::default());
        table.count_refusal(one, later);
        assert!(!table.is_at_rate(one, later));
    }

    #[test]
    fn ipv6_addresses_count_by_network() {
        assert_eq!(network("2001:db8:0:1::1"), network("2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert_ne!(network("2001:db8:0:1::1"), network("2001:db8:0:2::1"));
        // Clients of IPv4 behind a NAT64 are not one client, and each is the one that comes without it.
        assert_eq!(network("64:ff9b::192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("64:ff9b::192.0.2.1"), network("64:ff9b::192.0.2.2"));
        assert_eq!(network("64:ff9b:0:0:0:1::"), network("64:ff9b::1:0:0:0"));
        assert_eq!(network("64:ff9b:1::1"), network("64:ff9b:1::2"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_ne!(network("::"), network("0.0.0.0"));
    }

    #[test]
    fn connections_and_streams_are_limited_by_address() {
        let limits = AddressLimits { connections: Some(2), streams: Some(1), rate: None };
        let (now, mut table) = (Instant::now(), AddressTable::new(limits));
        let (a, b) = (network("192.0.2.1"), network("192.0.2.2"));
        let admitted = [a, a, a, b].map(|of| table.admit_connection(of, now));
        assert_eq!(admitted, [Ok(()), Ok(()), Err(LimitKind::ConnectionsPerAddress), Ok(())]);
        let streams = [a, a, b].map(|of| table.admit_stream(of, false, now));
        assert_eq!(streams, [Ok(()), Err(LimitKind::StreamsPerAddress), Ok(())]);
        table.release_connection(a);
        assert_eq!(table.admit_connection(a, now), Ok(()));
        for of in [a, a, b] {
            table.release_connection(of);
        }
        table.release_stream(a);
        table.release_stream(b);
        assert!(table.usage.is_empty());
    }

    #[test]
    fn stream_behind_a_proxy_counts_as_a_connection() {
        let limits = AddressLimits { connections: Some(2), streams: Some(2), rate: None };
        let (now, mut table) = (Instant::now(), AddressTable::new(limits));
        let a = network("192.0.2.1");
        table.admit_connection(a, now).unwrap();
        table.admit_stream(a, true, now).unwrap();
        assert_eq!(table.admit_stream(a, true, now), Err(LimitKind::ConnectionsPerAddress));
        assert_eq!(table.admit_stream(a, false, now), Ok(()));
        assert_eq!(table.admit_stream(a, true, now), Err(LimitKind::StreamsPerAddress));
        table.release_connection(a);
        table.release_stream(a);
        assert_eq!(table.admit_stream(a, true, now), Ok(()));
    }

    #[test]
    fn rate_is_limited_by_address() {
        let limits = AddressLimits { rate: Some(2), ..AddressLimits::default() };
        let (start, mut table) = (Instant::now(), AddressTable::new(limits));
        let (a, b) = (network("192.0.2.1"), network("192.0.2.2"));
        let admitted = [a, a, a, b].map(|of| table.admit_connection(of, start));
        assert_eq!(admitted, [Ok(()), Ok(()), Err(LimitKind::ConnectionRate), Ok(())]);
        // A connection that ends does not give its token back.
        table.release_connection(a);
        assert_eq!(table.admit_connection(a, start), Err(LimitKind::ConnectionRate));
        assert_eq!(table.admit_connection(a, start + Duration::from_millis(500)), Ok(()));
    }

    #[test]
    fn table_is_bounded_under_a_flood_of_addresses() {
        let limits = AddressLimits { rate: Some(1), ..AddressLimits::default() };
        let (start, mut table) = (Instant::now(), AddressTable::new(limits));
        let mut longest = 0;
        for number in 0..400_000 {
            let of = ClientNetwork::V6(number);
            table.admit_connection(of, start).unwrap();
            table.release_connection(of);
            longest = longest.max(table.usage.len());
        }
        assert!(longest <= 2 * MAX_IDLE + MIN_PURGED, "{longest}");
        // Those whose rate is full are forgotten.
        let later = start + Duration::from_secs(2);
        table.purge(later);
        assert!(table.usage.is_empty());
    }

    proptest! {
        /// The table counts what a model counts.
        #[test]
        fn counts_follow_admissions_and_releases(
            steps in prop::collection::vec((0u8..4, 0u32..3), 0..200),
            limit in 1u32..4,
        ) {
            let limits = AddressLimits { connections: Some(limit), streams: Some(limit), rate: None };
            let (now, mut table) = (Instant::now(), AddressTable::new(limits));
            let mut model = [[0u32; 2]; 3];
            for (step, address) in steps {
                let of = ClientNetwork::V4(address);
                let [connections, streams] = &mut model[address as usize];
                match step {
                    0 => {
                        prop_assert_eq!(table.admit_connection(of, now).is_ok(), *connections < limit);
                        *connections = limit.min(*connections + 1);
                    }
                    1 => {
                        prop_assert_eq!(table.admit_stream(of, false, now).is_ok(), *streams < limit);
                        *streams = limit.min(*streams + 1);
                    }
                    2 if *connections > 0 => {
                        table.release_connection(of);
                        *connections -= 1;
                    }
                    3 if *streams > 0 => {
                        table.release_stream(of);
                        *streams -= 1;
                    }
                    _ => {}
                }
            }
            let busy = model.iter().filter(|[connections, streams]| connections + streams > 0).count();
            prop_assert_eq!(table.usage.values().filter(|usage| usage.is_busy()).count(), busy);
        }
    }
}
