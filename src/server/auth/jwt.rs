//! JSON Web Tokens (RFC 7519) with the signatures HS256, RS256 and EdDSA (RFC 7515, 8037). The algorithm is
//! that of the key, and never what a token claims alone.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::signature::{ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use tokio_rustls::rustls::pki_types::pem::{PemObject, SectionKind};

use super::grant::{Grant, unix_time};
use super::{AuthFileError, AuthRefusal};

/// Shortest secret of HS256, in bytes: as long as its hash (RFC 7518).
const MIN_SECRET: usize = 32;
/// Shortest modulus of an RSA key, in bytes.
const MIN_MODULUS: usize = 256;
/// Most public keys: each is tried with the signature of every token.
const MAX_KEYS: usize = 16;
/// Time that the clock of the issuer may be ahead, in seconds.
const CLOCK_SKEW: f64 = 60.0;

/// A key by which signatures are verified.
enum VerifyingKey {
    Hs256(hmac::Key),
    Rs256(UnparsedPublicKey<Vec<u8>>),
    EdDsa(UnparsedPublicKey<Vec<u8>>),
}

impl VerifyingKey {
    /// Returns true if the signature is one of this key, by the algorithm of this name.
    fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        match (self, algorithm) {
            (VerifyingKey::Hs256(key), "HS256") => hmac::verify(key, message, signature).is_ok(),
            (VerifyingKey::Rs256(key), "RS256") | (VerifyingKey::EdDsa(key), "EdDSA" | "Ed25519") => {
                key.verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

/// Verifier of tokens.
pub(super) struct JwtVerifier {
    keys: Vec<VerifyingKey>,
    claim: String,
    audience: Option<String>,
}

impl fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwtVerifier({} keys)", self.keys.len())
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    /// True if there are extensions that must be understood, even if the list is `null`.
    #[serde(default, rename = "crit", deserialize_with = "presence")]
    has_extensions: bool,
}

/// Returns true for any value.
fn presence<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|IgnoredAny| true)
}

impl JwtVerifier {
    /// Returns the verifier with the keys of a file: public keys in PEM, of which any may have signed, or
    /// else a secret.
    ///
    /// # Errors
    /// A key is of another kind, or the secret too short.
    pub(super) fn parse(file: &[u8], claim: &str, audience: Option<&str>) -> Result<Self, AuthFileError> {
        let is_pem = file.windows(11).any(|window| window == b"-----BEGIN ");
        let keys = if is_pem { public_keys(file)? } else { vec![secret(file)?] };
        Ok(JwtVerifier { keys, claim: claim.to_owned(), audience: audience.map(str::to_owned) })
    }

    /// Returns true if there are public keys, with which a check takes long.
    pub(super) fn has_public_keys(&self) -> bool {
        self.keys.iter().any(|key| !matches!(key, VerifyingKey::Hs256(_)))
    }

    /// Returns the rights that a token names.
    pub(super) fn check(&self, token: &str) -> Result<Grant, AuthRefusal> {
        let claims = self.verified_claims(token).ok_or(AuthRefusal::InvalidToken)?;
        let number =
            |name: &str| claims.get(name).map(|value| value.as_f64().ok_or(AuthRefusal::InvalidToken));
        let now = unix_time() as f64;
        let expires = number("exp").transpose()?;
        if expires.is_some_and(|expires| expires <= now) {
            return Err(AuthRefusal::ExpiredToken);
        }
        if number("nbf").transpose()?.is_some_and(|begins| begins > now + CLOCK_SKEW) {
            return Err(AuthRefusal::InvalidToken);
        }
        if !self.is_for_this_server(claims.get("aud")) {
            return Err(AuthRefusal::InvalidToken);
        }
        let keys = claims.get(&self.claim).and_then(texts).ok_or(AuthRefusal::NoKeys)?;
        Ok(Grant::new(keys, expires.map(|expires| expires as u64)))
    }

    /// Returns the claims of a token with a valid signature.
    fn verified_claims(&self, token: &str) -> Option<Map<String, Value>> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        if header.has_extensions {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        self.keys.iter().find(|key| key.verifies(&header.alg, message.as_bytes(), &signature))?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }

    /// Returns true if the audience of a token is this server: the configured one, or none (RFC 7519, 4.1.3).
    fn is_for_this_server(&self, of_token: Option<&Value>) -> bool {
        match (&self.audience, of_token) {
            (None, None) => true,
            (Some(own), Some(of_token)) => texts(of_token).is_some_and(|audiences| audiences.contains(own)),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
}

/// Returns a text, or the texts of a list.
pub(super) fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(values) => values.iter().map(|value| value.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

fn secret(file: &[u8]) -> Result<VerifyingKey, AuthFileError> {
    let secret = file.strip_suffix(b"\n").unwrap_or(file);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    if let Some(reason) = no_secret(secret) {
        return Err(AuthFileError::NoSecret(reason));
    }
    match secret.len() {
        ..MIN_SECRET => Err(AuthFileError::ShortSecret),
        _ => Ok(VerifyingKey::Hs256(hmac::Key::new(hmac::HMAC_SHA256, secret))),
    }
}

/// Beginnings of public keys: JWK, OpenSSH, SSH2, and PEM that is encoded again.
const PUBLIC: [&[u8]; 7] =
    [b"{", b"ssh-", b"ecdsa-", b"sk-ssh-", b"sk-ecdsa-", b"---- BEGIN", b"LS0tLS1CRUdJTi"];

/// Returns why the text is no secret: anyone who knows a public key could sign with it.
fn no_secret(text: &[u8]) -> Option<&'static str> {
    let is_public = PUBLIC.iter().any(|beginning| text.trim_ascii_start().starts_with(beginning))
        || is_der(text)
        || STANDARD.decode(text).is_ok_and(|decoded| is_der(&decoded));
    let repeats = || text.split_first().is_some_and(|(first, rest)| rest.iter().all(|byte| byte == first));
    if is_public {
        Some("it is a key in another format, of which a public one must be converted to PEM")
    } else if text.starts_with(&[0xff, 0xfe]) || text.starts_with(&[0xfe, 0xff]) {
        Some("it is UTF-16")
    } else if text.iter().any(u8::is_ascii_control) {
        Some("it has control characters or more than one line")
    } else if text.len() >= MIN_SECRET && repeats() {
        Some("it is one character again and again")
    } else {
        None
    }
}

/// Returns true if the bytes are a key or a certificate in DER.
fn is_der(bytes: &[u8]) -> bool {
    matches!(element(bytes, SEQUENCE), Some(([SEQUENCE | INTEGER, ..], [])))
}

/// A section of PEM text.
struct PemSection(SectionKind, Vec<u8>);

impl PemObject for PemSection {
    fn from_pem(kind: SectionKind, der: Vec<u8>) -> Option<Self> {
        Some(PemSection(kind, der))
    }
}

fn public_keys(file: &[u8]) -> Result<Vec<VerifyingKey>, AuthFileError> {
    let mut keys = Vec::new();
    for section in PemSection::pem_slice_iter(file) {
        if keys.len() == MAX_KEYS {
            return Err(AuthFileError::TooManyKeys);
        }
        let PemSection(kind, der) = section.map_err(|_| AuthFileError::Pem)?;
        keys.push(match kind {
            SectionKind::PublicKey => public_key(&der).ok_or(AuthFileError::UnsupportedKey)?,
            SectionKind::RsaPrivateKey | SectionKind::PrivateKey | SectionKind::EcPrivateKey => {
                return Err(AuthFileError::PrivateKey);
            }
            _ => return Err(AuthFileError::UnsupportedKey),
        });
    }
    if keys.is_empty() { Err(AuthFileError::Pem) } else { Ok(keys) }
}

/// Contents of `AlgorithmIdentifier` (RFC 8017, 8410).
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
const ED25519_ID: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const INTEGER: u8 = 0x02;

/// Returns the key in a `SubjectPublicKeyInfo`.
fn public_key(der: &[u8]) -> Option<VerifyingKey> {
    let (info, &[]) = element(der, SEQUENCE)? else { return None };
    let (algorithm, rest) = element(info, SEQUENCE)?;
    let (bits, &[]) = element(rest, BIT_STRING)? else { return None };
    let key = bits.strip_prefix(&[0])?;
    match algorithm {
        RSA => {
            let (numbers, &[]) = element(key, SEQUENCE)? else { return None };
            let (modulus, _) = element(numbers, INTEGER)?;
            let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
            let verifier = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.to_vec());
            (modulus.len() >= MIN_MODULUS).then_some(VerifyingKey::Rs256(verifier))
        }
        ED25519_ID if key.len() == 32 => {
            Some(VerifyingKey::EdDsa(UnparsedPublicKey::new(&ED25519, key.to_vec())))
        }
        _ => None,
    }
}

/// Returns the contents of the DER element with this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = der.strip_prefix(&[tag])?;
    let (length, rest) = match rest {
        [length @ ..=0x7f, rest @ ..] => (usize::from(*length), rest),
        [0x81, length, rest @ ..] => (usize::from(*length), rest),
        [0x82, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests;
