//! Proxies whose reports of their clients' addresses are believed.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr as _;

use crate::config::parse::ValueError;

/// Word for the peers of Unix sockets.
const UNIX: &str = "unix";

/// Proxies whose reports of their clients' addresses are believed. By default there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrustedProxies {
    /// Networks of the proxies.
    pub networks: Vec<IpNetwork>,
    /// True if every peer of a Unix socket is a proxy.
    pub unix: bool,
}

impl TrustedProxies {
    /// Parses a list with commas of addresses, of networks such as `10.0.0.0/8`, and `unix`.
    ///
    /// # Errors
    /// A part of the list is none of these, or the list is empty.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let mut proxies = TrustedProxies::default();
        for part in text.split(',').map(str::trim) {
            match part {
                UNIX => proxies.unix = true,
                part => {
                    let network = IpNetwork::parse(part);
                    proxies.networks.push(network.ok_or_else(|| ValueError::Network(part.to_owned()))?);
                }
            }
        }
        Ok(proxies)
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Returns true if the peer with this address is a proxy; `None` is a peer of a Unix socket.
    pub fn contains(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            None => self.unix,
            Some(address) => self.networks.iter().any(|network| network.contains(address)),
        }
    }
}

/// A network of IP addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpNetwork {
    address: IpAddr,
    /// Number of leading bits that all addresses of the network share.
    prefix: u32,
}

impl IpNetwork {
    /// Parses an address, or an address and the length of its prefix.
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((address, prefix)) => (address, Some(u32::from_str(prefix).ok()?)),
        };
        let address = IpAddr::from_str(address).ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        (prefix <= bits).then_some(IpNetwork { address, prefix })
    }

    /// Returns true if the address is one of the network. IPv4 addresses may be mapped to IPv6.
    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= self.prefix
            }
            (IpAddr::V6(network), _) => {
                let address = match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped(),
                    IpAddr::V6(address) => address,
                };
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= self.prefix
            }
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        for (list, address, contained) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.1.2.3/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::a00:1", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::ffff:192.0.2.0/120", "192.0.2.7", true),
            ("::/0", "2001:db8::1", true),
            ("unix, 10.0.0.0/8 ,::1", "::1", true),
            ("unix", "127.0.0.1", false),
        ] {
            let proxies = TrustedProxies::parse(list).unwrap();
            assert_eq!(proxies.contains(Some(address.parse().unwrap())), contained, "{address} in {list}");
            assert_eq!(proxies.contains(None), list.contains("unix"), "{list}");
        }
        for list in
            ["", ",", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0/8", "host", "10.0.0.1,", "/8", "1/"]
        {
            assert!(TrustedProxies::parse(list).is_err(), "{list:?}");
        }
    }
}
