//! The part of clients' addresses that is logged.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The part of clients' addresses that is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, strum::EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum LogIp {
    /// No part.
    #[default]
    Off,
    /// The network: 24 bits of an IPv4 address, 48 of an IPv6 address.
    Prefix,
    /// The whole address.
    Full,
}

impl LogIp {
    /// Returns the text that is logged of an address.
    pub(crate) fn format(self, address: IpAddr) -> Option<String> {
        // An IPv4 client of a socket for both.
        let address = address.to_canonical();
        match (self, address) {
            (LogIp::Off, _) => None,
            (LogIp::Full, address) => Some(address.to_string()),
            (LogIp::Prefix, IpAddr::V4(v4)) => {
                let prefix = Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << 8));
                Some(format!("{prefix}/24"))
            }
            (LogIp::Prefix, IpAddr::V6(v6)) => {
                let prefix = Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 80));
                Some(format!("{prefix}/48"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_hides_the_host() {
        for (address, prefix) in [
            ("192.0.2.77", "192.0.2.0/24"),
            ("::ffff:192.0.2.77", "192.0.2.0/24"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(LogIp::Prefix.format(address).as_deref(), Some(prefix));
            assert_eq!(LogIp::Off.format(address), None);
        }
        let full = LogIp::Full.format("192.0.2.77".parse().unwrap());
        assert_eq!(full.as_deref(), Some("192.0.2.77"));
    }

    #[test]
    fn names_are_parsed() {
        assert_eq!(
            ["off", "prefix", "full"].map(str::parse),
            [Ok(LogIp::Off), Ok(LogIp::Prefix), Ok(LogIp::Full)]
        );
        assert!("on".parse::<LogIp>().is_err());
    }
}
