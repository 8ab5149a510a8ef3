//! The parts of an X.509 certificate that a server has to know. Everything else in it is for clients to
//! judge.

use std::ops::RangeInclusive;

/// The facts of a certificate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CertificateFacts<'a> {
    /// Version of X.509: 1, 2 or 3.
    pub(super) version: u8,
    /// Time until which it is valid, in seconds since 1970; `None` if it is not as RFC 5280 has it.
    pub(super) not_after: Option<u64>,
    /// The public key, as a DER bit string without its header.
    pub(super) public_key: &'a [u8],
    /// The certificate without bytes that follow it.
    pub(super) der: &'a [u8],
}

impl<'a> CertificateFacts<'a> {
    /// Returns the facts of a certificate in DER; `None` if it is none.
    pub(super) fn parse(der: &'a [u8]) -> Option<Self> {
        let certificate = Element::read(der)?.0.of(SEQUENCE)?;
        let (signed, rest) = Element::read(certificate.content)?;
        let (algorithm, signature) = Element::read(rest)?;
        algorithm.of(SEQUENCE)?;
        Element::read(signature)?.0.of(BIT_STRING)?;
        let mut rest = signed.of(SEQUENCE)?.content;
        let mut version = 1;
        let (first, behind) = Element::read(rest)?;
        if first.tag == EXPLICIT_0 {
            version = Element::read(first.content)?.0.of(INTEGER)?.content.last()?.checked_add(1)?;
            rest = behind;
        }
        let mut next = |tag| {
            let (element, behind) = Element::read(rest)?;
            rest = behind;
            element.of(tag)
        };
        let (_serial_number, _algorithm, _issuer) = (next(INTEGER)?, next(SEQUENCE)?, next(SEQUENCE)?);
        let (validity, _subject) = (next(SEQUENCE)?, next(SEQUENCE)?);
        let not_after = Element::read(validity.content)
            .and_then(|(_not_before, behind)| seconds(Element::read(behind)?.0));
        let public_key = public_key(Element::read(rest)?.0.whole)?;
        Some(CertificateFacts { version, not_after, public_key, der: certificate.whole })
    }
}

/// Returns the key in a `SubjectPublicKeyInfo`, as a bit string without its header.
pub(super) fn public_key(info: &[u8]) -> Option<&[u8]> {
    let info = Element::read(info)?.0.of(SEQUENCE)?;
    let (algorithm, key) = Element::read(info.content)?;
    algorithm.of(SEQUENCE)?;
    Some(Element::read(key)?.0.of(BIT_STRING)?.content)
}

/// Returns a time in seconds since 1970, or 0 if it is before; `None` if it is not in UTC to the second (RFC
/// 5280, section 4.1.2.5).
fn seconds(time: Element<'_>) -> Option<u64> {
    let text = std::str::from_utf8(time.content).ok()?.strip_suffix('Z')?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()).then_some(text)?;
    let (year, rest) = match (time.tag, digits.len()) {
        (UTC_TIME, 12) => {
            let (year, rest) = digits.split_at(2);
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        (GENERALIZED_TIME, 14) => {
            let (year, rest) = digits.split_at(4);
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let mut parts = rest.as_bytes().chunks(2).map(|part| match part {
        [tens, ones] => i64::from(10 * (tens - b'0') + ones - b'0'),
        _ => 0,
    });
    let mut part = |range: RangeInclusive<i64>| parts.next().filter(|part| range.contains(part));
    let (month, day) = (part(1..=12)?, part(1..=31)?);
    let (hour, minute, second) = (part(0..=23)?, part(0..=59)?, part(0..=59)?);
    // Years begin in March, so that a leap day is the last day of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(u64::try_from(((days * 24 + hour) * 60 + minute) * 60 + second).unwrap_or(0))
}

/// Returns true if two bit strings are the same public key. A point of an elliptic curve has a long form and
/// a short one.
pub(super) fn is_same_key(a: &[u8], b: &[u8]) -> bool {
    let is_short_form = |short: &[u8], long: &[u8]| match (short, long) {
        ([0, sign @ (2 | 3), x @ ..], [0, 4, point @ ..]) if point.len() == 2 * x.len() => {
            point.starts_with(x) && point.last().is_some_and(|last| last & 1 == sign & 1)
        }
        _ => false,
    };
    a == b || is_short_form(a, b) || is_short_form(b, a)
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const EXPLICIT_0: u8 = 0xa0;

/// An element of DER.
#[derive(Clone, Copy)]
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// Reads an element. Returns what follows, too.
    fn read(input: &'a [u8]) -> Option<(Element<'a>, &'a [u8])> {
        let (&tag, rest) = input.split_first()?;
        let (&length, rest) = rest.split_first()?;
        let (length, rest) = match length {
            0..=0x7f => (usize::from(length), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
                (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, behind) = rest.split_at_checked(length)?;
        let whole = &input[..input.len() - behind.len()];
        Some((Element { tag, content, whole }, behind))
    }

    /// Returns the element if it has this tag.
    fn of(self, tag: u8) -> Option<Self> {
        (self.tag == tag).then_some(self)
    }
}

/// Returns true if the bytes are one DER sequence and nothing else.
pub(super) fn is_der(bytes: &[u8]) -> bool {
    Element::read(bytes).is_some_and(|(element, rest)| element.tag == SEQUENCE && rest.is_empty())
}

/// Returns true if the bytes begin as a PKCS#12 file: a sequence of version 3 and a sequence.
pub(super) fn is_pkcs12(bytes: &[u8]) -> bool {
    let begins = || {
        let (version, rest) = Element::read(Element::read(bytes)?.0.of(SEQUENCE)?.content)?;
        Element::read(rest)?.0.of(SEQUENCE)?;
        Some(version.of(INTEGER)?.content == [3])
    };
    begins().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn facts_are_those_of_the_certificate() {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
        let der = certificate.der().to_vec();
        let followed = [&der[..], b"rubbish"].concat();
        let facts = CertificateFacts::parse(&followed).unwrap();
        let public_key = [&[0], rcgen::PublicKeyData::der_bytes(&key)].concat();
        // rcgen's default, 4096-01-01.
        let not_after = Some(67_090_118_400);
        assert_eq!(facts, CertificateFacts { version: 3, not_after, public_key: &public_key, der: &der });
        assert!(is_der(&der) && !is_der(&followed));
        for length in 0..der.len() {
            assert_eq!(CertificateFacts::parse(&der[..length]), None, "{length}");
        }
    }

    // The expected numbers are those of `date -u -d TIME +%s`.
    #[test]
    fn times_are_seconds_since_1970() {
        let time = |tag, content: &'static str| {
            let content = content.as_bytes();
            seconds(Element { tag, content, whole: content })
        };
        for (tag, content, expected) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "991231235959Z", Some(946_684_799)),
            (UTC_TIME, "000229120000Z", Some(951_825_600)),
            (UTC_TIME, "240301000001Z", Some(1_709_251_201)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "500101000000Z", Some(0)),
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "21000301000000Z", Some(4_107_542_400)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (UTC_TIME, "2403010000Z", None),
            (UTC_TIME, "240301000000+0100", None),
            (UTC_TIME, "241301000000Z", None),
            (UTC_TIME, "240301240000Z", None),
            (GENERALIZED_TIME, "240301000000Z", None),
            (GENERALIZED_TIME, "20240301000000.5Z", None),
            (INTEGER, "240301000000Z", None),
        ] {
            assert_eq!(time(tag, content), expected, "{content}");
        }
    }

    #[test]
    fn points_of_curves_are_equal_in_both_forms() {
        let long = [0, 4, 1, 2, 3, 5];
        assert!(is_same_key(&long, &[0, 3, 1, 2]) && is_same_key(&[0, 3, 1, 2], &long));
        for other in [&[0, 2, 1, 2][..], &[0, 3, 1, 3], &[0, 3, 1], &[0, 3, 1, 2, 3], &[0, 4, 1, 2, 3, 6]] {
            assert!(!is_same_key(&long, other), "{other:?}");
        }
        assert!(is_same_key(&long, &long));
    }
}
