//! Headers of the PROXY protocol, versions 1 and 2 of the specification of HAProxy. A pure parser.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str;

/// Longest header of version 1, with its line end.
pub(super) const MAX_V1: usize = 107;

/// Longest header of version 2 that is accepted: addresses, and a few kB of extensions, such as those about
/// TLS.
pub(super) const MAX_V2: usize = 16 + 4096;

const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Length of the part of version 2 that all headers have.
const V2_FIXED: usize = 16;

/// Returns true if these bytes begin with those of a header of either version.
pub(in crate::server) fn has_signature(bytes: &[u8]) -> bool {
    [V1_START, V2_START].iter().any(|start| bytes.starts_with(start))
}

/// Beginning of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderStart {
    /// No header.
    Absent,
    /// More bytes are needed.
    Incomplete,
    /// A header of this many bytes, which are not all there yet.
    Length(usize),
    /// A header that is malformed.
    Invalid,
}

/// Source of a connection as its header reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum ReportedSource {
    /// The proxy itself, such as its health check, or a client without an IP address.
    Proxy,
    /// The client with this address.
    Client(IpAddr),
}

/// Returns the header that a connection begins with, by its first bytes.
pub(super) fn find_header(bytes: &[u8]) -> HeaderStart {
    let is_part = |start: &[u8]| bytes.starts_with(start) || start.starts_with(bytes);
    if is_part(V1_START) {
        let line = bytes.get(..MAX_V1).unwrap_or(bytes);
        return match line.iter().position(|byte| *byte == b'\n') {
            Some(end) => HeaderStart::Length(end + 1),
            None if bytes.len() >= MAX_V1 => HeaderStart::Invalid,
            None => HeaderStart::Incomplete,
        };
    }
    if is_part(V2_START) {
        return match bytes.get(14..V2_FIXED) {
            Some([high, low]) => {
                let length = V2_FIXED + usize::from(u16::from_be_bytes([*high, *low]));
                if length > MAX_V2 { HeaderStart::Invalid } else { HeaderStart::Length(length) }
            }
            _ => HeaderStart::Incomplete,
        };
    }
    HeaderStart::Absent
}

/// Parses a whole header. `None` if it is malformed.
pub(super) fn parse_header(header: &[u8]) -> Option<ReportedSource> {
    if header.starts_with(V1_START) {
        return parse_v1(str::from_utf8(header).ok()?.strip_suffix("\r\n")?);
    }
    let [command, family, high, low] = *header.strip_prefix(V2_START)?.first_chunk::<4>()?;
    let payload = header.get(V2_FIXED..)?;
    if payload.len() != usize::from(u16::from_be_bytes([high, low])) {
        return None;
    }
    match (command, family) {
        // LOCAL, whatever its addresses.
        (0x20, _) => Some(ReportedSource::Proxy),
        // TCP or UDP over IPv4: two addresses and two ports.
        (0x21, 0x11 | 0x12) => {
            let address = Ipv4Addr::from(*payload.get(..12)?.first_chunk::<4>()?);
            Some(ReportedSource::Client(address.into()))
        }
        (0x21, 0x21 | 0x22) => {
            let address = Ipv6Addr::from(*payload.get(..36)?.first_chunk::<16>()?);
            Some(ReportedSource::Client(IpAddr::V6(address).to_canonical()))
        }
        // Unix sockets, and unspecified.
        (0x21, 0x00 | 0x31 | 0x32) => Some(ReportedSource::Proxy),
        _ => None,
    }
}

fn parse_v1(line: &str) -> Option<ReportedSource> {
    let mut words = line.strip_prefix("PROXY ")?.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(ReportedSource::Proxy);
    }
    let addresses: [IpAddr; 2] = [words.next()?.parse().ok()?, words.next()?.parse().ok()?];
    let is_port =
        |word: Option<&str>| word.is_some_and(|word| !word.starts_with('+') && word.parse::<u16>().is_ok());
    let is_family = |address: &IpAddr| match family {
        "TCP4" => address.is_ipv4(),
        "TCP6" => address.is_ipv6(),
        _ => false,
    };
    let is_valid = is_port(words.next()) && is_port(words.next()) && words.next().is_none();
    let [source, _] = addresses;
    (is_valid && addresses.iter().all(is_family)).then(|| ReportedSource::Client(source.to_canonical()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(address: &str) -> Option<ReportedSource> {
        Some(ReportedSource::Client(address.parse().unwrap()))
    }

    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [V2_START, &[command, family], &length, payload].concat()
    }

    #[test]
    fn headers_of_version_1_are_parsed() {
        for (line, source) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.1 4711 443", client("192.0.2.1")),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 65535 0", client("2001:db8::1")),
            ("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2", client("192.0.2.1")),
            ("PROXY UNKNOWN", Some(ReportedSource::Proxy)),
            ("PROXY UNKNOWN ffff:f 1 2 3 x", Some(ReportedSource::Proxy)),
            ("PROXY TCP4 2001:db8::1 2001:db8::2 1 2", None),
            ("PROXY TCP6 192.0.2.1 192.0.2.2 1 2", None),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 65536", None),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2", None),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1", None),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3", None),
            ("PROXY TCP4  192.0.2.1 192.0.2.2 1 2", None),
            ("PROXY UDP4 192.0.2.1 192.0.2.2 1 2", None),
            ("PROXY ", None),
        ] {
            let header = format!("{line}\r\n");
            let rest = format!("{header}GET / HTTP/1.1\r\n");
            assert_eq!(find_header(rest.as_bytes()), HeaderStart::Length(header.len()), "{line}");
            assert_eq!(parse_header(header.as_bytes()), source, "{line}");
        }
        assert_eq!(parse_header(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n"), None);
        assert_eq!(find_header(&[b"PROXY ".as_slice(), &[b'x'; 101]].concat()), HeaderStart::Invalid);
    }

    #[test]
    fn headers_of_version_2_are_parsed() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x67, 1, 187];
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        let extended = [&v4[..], &[0x04, 0, 1, 0]].concat();
        for (command, family, payload, source) in [
            (0x21, 0x11, &v4[..], client("192.0.2.1")),
            (0x21, 0x11, &extended, client("192.0.2.1")),
            (0x21, 0x21, &v6, client("2001:db8::1")),
            (0x20, 0, &[], Some(ReportedSource::Proxy)),
            (0x20, 0x11, &v4, Some(ReportedSource::Proxy)),
            (0x21, 0x31, &[0; 216], Some(ReportedSource::Proxy)),
            (0x21, 0, &[], Some(ReportedSource::Proxy)),
            (0x21, 0x11, &v4[..11], None),
            (0x21, 0x21, &v6[..35], None),
            (0x11, 0x11, &v4, None),
            (0x22, 0x11, &v4, None),
            (0x21, 0x41, &v4, None),
        ] {
            let header = v2(command, family, payload);
            let rest = [&header[..], b"\x16\x03\x01"].concat();
            assert_eq!(find_header(&rest), HeaderStart::Length(header.len()));
            assert_eq!(parse_header(&header), source, "{command:x} {family:x} {payload:?}");
        }
        let too_long = [V2_START, &[0x21, 0x11, 0x10, 0x01]].concat();
        assert_eq!(find_header(&too_long), HeaderStart::Invalid);
    }

    #[test]
    fn other_beginnings_are_no_header() {
        for bytes in
            [&b"GET / HTTP/1.1"[..], b"POST / ", b"PROPFIND", b"PRI * HTTP/2.0", b"\r\nGET", b"\x16\x03\x01"]
        {
            assert_eq!(find_header(bytes), HeaderStart::Absent);
        }
        for bytes in [&b""[..], b"P", b"PROXY", b"PROXY TCP4", b"\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"] {
            assert_eq!(find_header(bytes), HeaderStart::Incomplete);
        }
    }

    proptest! {
        /// Every beginning of a header waits for the rest of it, and no length is beyond the bound.
        #[test]
        fn beginnings_of_headers_are_incomplete(
            is_v2 in any::<bool>(),
            address in any::<[u8; 4]>(),
            ports in any::<[u16; 2]>(),
            extensions in prop::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
        ) {
            let source = Ipv4Addr::from(address);
            let header = match is_v2 {
                true => v2(0x21, 0x11, &[&address[..], &[0; 8], &extensions].concat()),
                false => format!("PROXY TCP4 {source} 192.0.2.1 {} {}\r\n", ports[0], ports[1]).into_bytes(),
            };
            prop_assert_eq!(find_header(&header), HeaderStart::Length(header.len()));
            prop_assert_eq!(parse_header(&header), Some(ReportedSource::Client(source.into())));
            let cut = at.index(header.len());
            let expected = match is_v2 && cut >= V2_FIXED {
                true => HeaderStart::Length(header.len()),
                false => HeaderStart::Incomplete,
            };
            prop_assert_eq!(find_header(&header[..cut]), expected);
            prop_assert_eq!(parse_header(&header[..cut]), None);
        }

        #[test]
        fn any_bytes_are_parsed_within_the_bounds(
            start in prop::sample::select(vec![V1_START, V2_START, b""]),
            rest in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [start, &rest].concat();
            let _ = parse_header(&bytes);
            if let HeaderStart::Length(length) = find_header(&bytes) {
                prop_assert!(length <= MAX_V2);
            }
        }
    }
}
