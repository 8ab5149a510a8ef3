//! Address of the client behind proxies: `X-Forwarded-For`, and `Forwarded` of RFC 7239.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{HeaderMap, HeaderName};

use crate::config::TrustedProxies;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");

/// Returns the address of the client that a request comes from: of the right-most hop that is no trusted
/// proxy. `None` is a peer of a Unix socket.
///
/// A hop is believed only if the one behind it is trusted, so that a client cannot put a name of its own
/// there. A proxy may write one of the two headers and forward the other as the client sent it: if both
/// are there and disagree, neither is believed.
pub(super) fn client_address(
    headers: &HeaderMap,
    peer: Option<IpAddr>,
    trusted: &TrustedProxies,
) -> Option<IpAddr> {
    if !trusted.contains(peer) {
        return peer;
    }
    let of_header = |name: &HeaderName, hops: fn(&str) -> Vec<Option<IpAddr>>| {
        let mut all = Vec::new();
        for value in headers.get_all(name) {
            match value.to_str() {
                Ok(value) => all.extend(hops(value)),
                Err(_) => all.push(None),
            }
        }
        headers.contains_key(name).then(|| rightmost_untrusted(&all, peer, trusted))
    };
    match (of_header(&X_FORWARDED_FOR, x_forwarded_for), of_header(&FORWARDED, forwarded)) {
        (Some(one), Some(other)) if one == other => one,
        (Some(_), Some(_)) | (None, None) => peer,
        (Some(found), None) | (None, Some(found)) => found,
    }
}

/// Returns the right-most of the hops that is no trusted proxy; the left-most if all are. In front of a hop
/// without an address, the one that reported it.
fn rightmost_untrusted(
    hops: &[Option<IpAddr>],
    peer: Option<IpAddr>,
    trusted: &TrustedProxies,
) -> Option<IpAddr> {
    let mut found = peer;
    for hop in hops.iter().rev() {
        let Some(hop) = hop else { break };
        found = Some(*hop);
        if !trusted.contains(found) {
            break;
        }
    }
    found
}

/// Returns the hops of a value of `X-Forwarded-For`. `None` is a hop without an address.
fn x_forwarded_for(value: &str) -> Vec<Option<IpAddr>> {
    value.split(',').map(node).collect()
}

/// Returns the hops of a value of `Forwarded`. `None` is a hop without an address.
fn forwarded(value: &str) -> Vec<Option<IpAddr>> {
    // A quotation mark that a client left open would hide what proxies appended.
    if ends_quoted(value) {
        return vec![None];
    }
    let mut hops = Vec::new();
    for element in split_unquoted(value, ',') {
        let mut hop = None;
        for pair in split_unquoted(element, ';') {
            if let Some((name, value)) = pair.split_once('=')
                && name.trim().eq_ignore_ascii_case("for")
            {
                let value = value.trim();
                let unquoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
                hop = node(unquoted.unwrap_or(value));
            }
        }
        hops.push(hop);
    }
    hops
}

/// Position within a quoted string.
#[derive(Default)]
struct Quotation {
    quoted: bool,
    escaped: bool,
}

impl Quotation {
    /// Takes the next character. Returns true if it is outside of quoted strings.
    fn take(&mut self, c: char) -> bool {
        match c {
            _ if self.escaped => self.escaped = false,
            '\\' if self.quoted => self.escaped = true,
            '"' => self.quoted = !self.quoted,
            _ => return !self.quoted,
        }
        false
    }
}

/// Returns true if the text ends within a quoted string.
fn ends_quoted(text: &str) -> bool {
    let mut quotation = Quotation::default();
    text.chars().for_each(|c| {
        quotation.take(c);
    });
    quotation.quoted
}

/// Splits at a separator that is not within a quoted string.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quotation = Quotation::default();
    text.split(move |c| quotation.take(c) && c == separator)
}

/// Returns the address of a node, which may have a port, and brackets if it is of IPv6.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match bracketed {
        Some(address) => address.parse().ok().map(IpAddr::V6),
        None => text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|node| node.ip())),
    };
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn found(headers: &[(&'static str, &str)], peer: Option<&str>, trusted: &str) -> Option<IpAddr> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        client_address(&map, peer.map(ip), &TrustedProxies::parse(trusted).unwrap())
    }

    #[test]
    fn rightmost_untrusted_hop_is_the_client() {
        let proxies = "127.0.0.1,10.0.0.0/8,unix";
        let own = Some("127.0.0.1");
        for (header, value, expected) in [
            ("x-forwarded-for", "192.0.2.1", "192.0.2.1"),
            ("x-forwarded-for", "198.51.100.9, 192.0.2.1", "192.0.2.1"),
            ("x-forwarded-for", "198.51.100.9, 192.0.2.1, 10.0.0.7", "192.0.2.1"),
            ("x-forwarded-for", "10.0.0.9,10.0.0.7", "10.0.0.9"),
            ("x-forwarded-for", "192.0.2.1:4711", "192.0.2.1"),
            ("x-forwarded-for", "2001:db8::1", "2001:db8::1"),
            ("x-forwarded-for", "[2001:db8::1]:80", "2001:db8::1"),
            ("x-forwarded-for", "::ffff:192.0.2.1", "192.0.2.1"),
            ("x-forwarded-for", "192.0.2.1, unknown", "127.0.0.1"),
            ("x-forwarded-for", "192.0.2.1, unknown, 10.0.0.7", "10.0.0.7"),
            ("x-forwarded-for", "", "127.0.0.1"),
            ("x-forwarded-for", "192.0.2.1,", "127.0.0.1"),
            ("x-forwarded-for", "192.0.2.1, \u{e9}", "127.0.0.1"),
            ("forwarded", "for=192.0.2.1", "192.0.2.1"),
            ("forwarded", "For=\"[2001:db8:cafe::17]:4711\";proto=https", "2001:db8:cafe::17"),
            ("forwarded", "for=198.51.100.9, proto=http;for=192.0.2.60;by=203.0.113.43", "192.0.2.60"),
            ("forwarded", "for=192.0.2.1, for=10.0.0.7", "192.0.2.1"),
            ("forwarded", "for=192.0.2.1, for=_hidden", "127.0.0.1"),
            ("forwarded", "for=192.0.2.1;ext=\"a, for=198.51.100.9\"", "192.0.2.1"),
            ("forwarded", "for=192.0.2.1;ext=\"a\\\", for=198.51.100.9\"", "192.0.2.1"),
            ("forwarded", "for=198.51.100.9;x=\", for=192.0.2.1", "127.0.0.1"),
            ("forwarded", "for=198.51.100.9;x=\", for=\"[2001:db8::1]\"", "127.0.0.1"),
            ("forwarded", "proto=https", "127.0.0.1"),
            ("x-real-ip", "192.0.2.1", "127.0.0.1"),
        ] {
            assert_eq!(found(&[(header, value)], own, proxies), Some(ip(expected)), "{header}: {value}");
        }
        assert_eq!(found(&[("forwarded", "for=192.0.2.1")], None, proxies), Some(ip("192.0.2.1")));
        assert_eq!(found(&[], None, proxies), None);
    }

    #[test]
    fn header_of_an_untrusted_peer_is_ignored() {
        let headers = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1")];
        assert_eq!(found(&headers, Some("198.51.100.1"), "10.0.0.0/8"), Some(ip("198.51.100.1")));
        assert_eq!(found(&headers, None, "10.0.0.0/8"), None);
    }

    #[test]
    fn header_lines_are_one_list_and_both_headers_must_agree() {
        let (own, spoofed) = (Some("10.0.0.1"), ("x-forwarded-for", "198.51.100.9"));
        let lines = [spoofed, ("x-forwarded-for", "192.0.2.1")];
        assert_eq!(found(&lines, own, "10.0.0.1"), Some(ip("192.0.2.1")));
        let other = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=198.51.100.9")];
        assert_eq!(found(&other, own, "10.0.0.1"), own.map(ip));
        let same = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1")];
        assert_eq!(found(&same, own, "10.0.0.1"), Some(ip("192.0.2.1")));
    }

    proptest! {
        /// The hop that the proxy appended is found, or the proxy if the header cannot be parsed, but none
        /// that a client put in front.
        #[test]
        fn nothing_in_front_of_an_untrusted_hop_is_believed(
            before in "([ -~]|\"|for=198\\.51\\.100\\.9|[,;=]){0,20}",
            quoted in any::<bool>(),
        ) {
            let of = |name, value: String| found(&[(name, &value)], Some("10.0.0.1"), "10.0.0.1");
            prop_assert_eq!(of("x-forwarded-for", format!("{before}, 2001:db8::1")), Some(ip("2001:db8::1")));
            let appended = if quoted { "for=\"[2001:db8::1]\"" } else { "for=192.0.2.1" };
            let client = of("forwarded", format!("{before}, {appended}")).unwrap();
            let balanced = !ends_quoted(&before);
            prop_assert_eq!(client == ip("10.0.0.1"), !balanced, "{}", client);
            prop_assert!([ip("10.0.0.1"), ip("192.0.2.1"), ip("2001:db8::1")].contains(&client));
        }
    }
}
