//! The parts of an X.509 certificate that a server has to know. Everything else in it is for clients to
//! judge.

/// The facts of a certificate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CertificateFacts<'a> {
    /// Version of X.509: 1, 2 or 3.
    pub(super) version: u8,
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
        // The serial number, the algorithm, the issuer, the validity and the subject.
        for tag in [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE] {
            let (element, behind) = Element::read(rest)?;
            element.of(tag)?;
            rest = behind;
        }
        let public_key = public_key(Element::read(rest)?.0.whole)?;
        Some(CertificateFacts { version, public_key, der: certificate.whole })
    }
}

/// Returns the key in a `SubjectPublicKeyInfo`, as a bit string without its header.
pub(super) fn public_key(info: &[u8]) -> Option<&[u8]> {
    let info = Element::read(info)?.0.of(SEQUENCE)?;
    let (algorithm, key) = Element::read(info.content)?;
    algorithm.of(SEQUENCE)?;
    Some(Element::read(key)?.0.of(BIT_STRING)?.content)
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
        assert_eq!(facts, CertificateFacts { version: 3, public_key: &public_key, der: &der });
        assert!(is_der(&der) && !is_der(&followed));
        for length in 0..der.len() {
            assert_eq!(CertificateFacts::parse(&der[..length]), None, "{length}");
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
