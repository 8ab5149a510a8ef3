//! The one attribute of a STUN message that names the peer connection it belongs to.

/// Length of the header.
const HEADER_LENGTH: usize = 20;
/// Type of a binding request, as the client's checks are.
const BINDING_REQUEST: u16 = 0x0001;
/// Third word of the header (RFC 8489).
const MAGIC_COOKIE: u32 = 0x2112_a442;
/// Type of the attribute USERNAME: the receiver's fragment, a colon, the sender's.
const USERNAME: u16 = 0x0006;

/// Returns the receiver's username fragment in a binding request; `None` if the packet is none.
pub(super) fn local_username_fragment(packet: &[u8]) -> Option<&str> {
    let (header, mut rest) = packet.split_at_checked(HEADER_LENGTH)?;
    let (kind, header) = header.split_first_chunk::<2>()?;
    let (length, header) = header.split_first_chunk::<2>()?;
    let (cookie, _) = header.split_first_chunk::<4>()?;
    let is_request = u16::from_be_bytes(*kind) == BINDING_REQUEST;
    let is_complete = usize::from(u16::from_be_bytes(*length)) == rest.len();
    if !is_request || !is_complete || u32::from_be_bytes(*cookie) != MAGIC_COOKIE {
        return None;
    }
    loop {
        let (kind, after) = rest.split_first_chunk::<2>()?;
        let (length, after) = after.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (value, after) = after.split_at_checked(length)?;
        if u16::from_be_bytes(*kind) == USERNAME {
            let end = value.iter().position(|byte| *byte == b':')?;
            return std::str::from_utf8(value.split_at_checked(end)?.0).ok();
        }
        // Attributes begin at multiples of four bytes.
        rest = after.split_at_checked(length.wrapping_neg() % 4)?.1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, value) in attributes {
            body.extend(kind.to_be_bytes());
            body.extend((value.len() as u16).to_be_bytes());
            body.extend_from_slice(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut packet = vec![0, 1];
        packet.extend((body.len() as u16).to_be_bytes());
        packet.extend(MAGIC_COOKIE.to_be_bytes());
        packet.extend([7; 12]);
        packet.extend(body);
        packet
    }

    #[test]
    fn fragment_is_found_behind_other_attributes() {
        let packet = request(&[(0x8022, b"abc"), (USERNAME, b"ours:theirs"), (0x0008, &[0; 20])]);
        assert_eq!(local_username_fragment(&packet), Some("ours"));
    }

    #[test]
    fn other_packets_have_none() {
        let packet = request(&[(USERNAME, b"ours:theirs")]);
        let with = |at: usize, byte: u8| {
            let mut changed = packet.clone();
            changed[at] = byte;
            changed
        };
        for other in [with(0, 1), with(1, 0x11), with(3, 0), with(4, 0), with(21, 7), packet[..24].to_vec()] {
            assert_eq!(local_username_fragment(&other), None, "{other:?}");
        }
        assert_eq!(local_username_fragment(&request(&[(USERNAME, b"alone")])), None);
        assert_eq!(local_username_fragment(&[]), None);
    }
}
