//! Tokens that are valid, and every way in which one is not.

use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::json;
use tokio_rustls::rustls::pki_types::PrivatePkcs1KeyDer;

use super::*;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn encode(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

fn signed(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn hs256(claims: &Value) -> String {
    signed(&json!({"alg": "HS256", "typ": "JWT"}), claims, by_secret)
}

fn by_secret(message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message).as_ref().to_vec()
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}

fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
    match contents.len() {
        0..128 => [&[tag, length[1]], contents].concat(),
        _ => [&[tag, 0x82, length[0], length[1]], contents].concat(),
    }
}

fn spki(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let bits = der(BIT_STRING, &[&[0], key].concat());
    der(SEQUENCE, &[der(SEQUENCE, algorithm), bits].concat())
}

fn rsa() -> RsaKeyPair {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls/rsa-pkcs1.key");
    let key = PrivatePkcs1KeyDer::from_pem_file(path).unwrap();
    RsaKeyPair::from_der(key.secret_pkcs1_der()).unwrap()
}

fn ed25519() -> Ed25519KeyPair {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap()
}

fn by_rsa(key: &RsaKeyPair, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

fn verifier(file: &[u8]) -> JwtVerifier {
    JwtVerifier::parse(file, "keys", None).unwrap()
}

#[test]
fn claim_names_the_keys_and_the_time() {
    let jwt = verifier(SECRET);
    let later = unix_time() + 60;
    let grant = jwt.check(&hs256(&json!({"keys": ["a", "team-*"], "exp": later}))).unwrap();
    assert!(grant.allows("a") && grant.allows("team-1") && !grant.allows("b"));
    assert_eq!(grant, Grant::new(["a".to_owned(), "team-*".to_owned()], Some(later)));
    assert_eq!(jwt.check(&hs256(&json!({"keys": "a"}))), Ok(Grant::new(["a".to_owned()], None)));
    let other = JwtVerifier::parse(SECRET, "rooms", None).unwrap();
    assert_eq!(other.check(&hs256(&json!({"rooms": "a"}))), Ok(Grant::new(["a".to_owned()], None)));
}

#[test]
fn invalid_claims_are_refused() {
    let jwt = verifier(SECRET);
    let now = unix_time();
    for (claims, refusal) in [
        (json!({"keys": "a", "exp": now}), AuthRefusal::ExpiredToken),
        (json!({"keys": "a", "exp": now as f64 - 0.5}), AuthRefusal::ExpiredToken),
        (json!({"keys": "a", "exp": -1}), AuthRefusal::ExpiredToken),
        (json!({"keys": "a", "exp": "tomorrow"}), AuthRefusal::InvalidToken),
        (json!({"keys": "a", "exp": null}), AuthRefusal::InvalidToken),
        (json!({"keys": "a", "nbf": now + 3600}), AuthRefusal::InvalidToken),
        (json!({"keys": "a", "aud": "other"}), AuthRefusal::InvalidToken),
        (json!({}), AuthRefusal::NoKeys),
        (json!({"keys": 7}), AuthRefusal::NoKeys),
        (json!({"keys": ["a", 7]}), AuthRefusal::NoKeys),
    ] {
        assert_eq!(jwt.check(&hs256(&claims)), Err(refusal), "{claims}");
    }
    assert_eq!(jwt.check(&hs256(&json!(["keys"]))), Err(AuthRefusal::InvalidToken));
}

#[test]
fn audience_must_be_the_configured_one() {
    let jwt = JwtVerifier::parse(SECRET, "keys", Some("sigver")).unwrap();
    for (audience, valid) in [
        (json!("sigver"), true),
        (json!(["x", "sigver"]), true),
        (json!("x"), false),
        (json!([]), false),
        (json!(7), false),
    ] {
        let token = hs256(&json!({"keys": "a", "aud": audience}));
        assert_eq!(jwt.check(&token).is_ok(), valid, "{audience}");
    }
    assert!(jwt.check(&hs256(&json!({"keys": "a"}))).is_err());
}

#[test]
fn public_keys_verify_their_algorithm_only() {
    let (rsa, ed, other) = (rsa(), ed25519(), ed25519());
    let rsa_pem = pem(&spki(RSA, rsa.public().as_ref()));
    let ed_pem = pem(&spki(ED25519_ID, ed.public_key().as_ref()));
    let jwt = verifier(format!("{rsa_pem}{ed_pem}").as_bytes());
    let claims = json!({"keys": "a"});
    let by_ed = |key: &Ed25519KeyPair, message: &[u8]| key.sign(message).as_ref().to_vec();
    let valid = [
        signed(&json!({"alg": "RS256"}), &claims, |message| by_rsa(&rsa, message)),
        signed(&json!({"alg": "EdDSA"}), &claims, |message| by_ed(&ed, message)),
    ];
    assert!(valid.iter().all(|token| jwt.check(token).is_ok()));
    // The public key as a secret is the attack that trusts the header.
    let as_secret = |message: &[u8]| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, rsa_pem.as_bytes()), message).as_ref().to_vec()
    };
    for token in [
        signed(&json!({"alg": "EdDSA"}), &claims, |message| by_ed(&other, message)),
        signed(&json!({"alg": "EdDSA"}), &claims, |message| by_rsa(&rsa, message)),
        signed(&json!({"alg": "RS512"}), &claims, |message| by_rsa(&rsa, message)),
        signed(&json!({"alg": "HS256"}), &claims, as_secret),
        signed(&json!({"alg": "none"}), &claims, |_| Vec::new()),
        signed(&json!({"alg": "RS256", "crit": ["b64"]}), &claims, |message| by_rsa(&rsa, message)),
        signed(&json!({"alg": "RS256", "crit": null}), &claims, |message| by_rsa(&rsa, message)),
        signed(&json!({}), &claims, |message| by_rsa(&rsa, message)),
    ] {
        assert_eq!(jwt.check(&token), Err(AuthRefusal::InvalidToken), "{token}");
    }
}

#[test]
fn public_keys_in_other_formats_are_no_secrets() {
    let parse = |file: &[u8]| JwtVerifier::parse(file, "keys", None).map(|_| ());
    let (rsa, ed) = (rsa(), ed25519());
    let ec = spki(b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01", &[4; 65]);
    let ders = [spki(RSA, rsa.public().as_ref()), spki(ED25519_ID, ed.public_key().as_ref()), ec];
    let text = pem(&ders[0]);
    let utf16 = |mark: &[u8], bytes: fn(u16) -> [u8; 2]| {
        mark.iter().copied().chain(text.encode_utf16().flat_map(bytes)).collect::<Vec<u8>>()
    };
    let mut files: Vec<Vec<u8>> = [
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        " {\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}]}",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGIzK4 someone@example",
        "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAA a@b",
        "---- BEGIN SSH2 PUBLIC KEY ----\nAAAAC3NzaC1lZDI1NTE5AAAAIGIz\n",
        "root:x:0:0:root:/root:/bin/bash\nbin:x:2:2:bin:/bin:/sbin/nologin\n",
        "00000000000000000000000000000000",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    files.extend([vec![0; 64], STANDARD.encode(&text).into_bytes()]);
    files.extend([utf16(&[0xff, 0xfe], u16::to_le_bytes), utf16(&[], u16::to_be_bytes)]);
    files.extend(ders.iter().map(|der| STANDARD.encode(der).into_bytes()));
    files.extend(ders);
    for file in files {
        let error = parse(&file).unwrap_err();
        assert!(matches!(error, AuthFileError::NoSecret(_)), "{error}: {}", file.escape_ascii());
    }
    // As the documentation makes them, also if they begin as DER does.
    for secret in [
        "0Yq3v+ZzT4xw8n1c0bK5mJ7uHhD2sLpA9",
        "MIIqv3ZzT4xw8n1c0bK5mJ7uHhD2sLpA9x",
        "schlüssel mit über 32 zeichen im text\r\n",
    ] {
        assert!(parse(secret.as_bytes()).is_ok(), "{secret}");
    }
}

#[test]
fn number_of_public_keys_is_bounded() {
    let key = pem(&spki(ED25519_ID, ed25519().public_key().as_ref()));
    assert!(verifier(key.repeat(MAX_KEYS).as_bytes()).has_public_keys());
    let error = JwtVerifier::parse(key.repeat(MAX_KEYS + 1).as_bytes(), "keys", None).unwrap_err();
    assert_eq!(error.to_string(), "it holds more than 16 public keys");
    assert!(!verifier(SECRET).has_public_keys());
}

// RFC 8037, A.4.
#[test]
fn signature_of_the_standard_is_verified() {
    let key = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
    let jwt = verifier(pem(&spki(ED25519_ID, &key)).as_bytes());
    let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let (message, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    assert!(jwt.keys[0].verifies("EdDSA", message.as_bytes(), &signature));
    assert!(!jwt.keys[0].verifies("EdDSA", &message.as_bytes()[1..], &signature));
}

#[test]
fn unusable_keys_are_reported() {
    let parse = |file: &str| JwtVerifier::parse(file.as_bytes(), "keys", None).unwrap_err().to_string();
    let small = der(SEQUENCE, &[der(INTEGER, &[0x7f; 128]), der(INTEGER, &[1, 0, 1])].concat());
    for (file, part) in [
        ("short\n".to_owned(), "less than 32 bytes"),
        (String::new(), "less than 32 bytes"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_owned(), "private key"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(), "supported kind"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".to_owned(), "supported kind"),
        ("-----BEGIN PUBLIC KEY-----\n".to_owned(), "no PEM public key"),
        (pem(&spki(RSA, &small)), "supported kind"),
        (pem(&spki(ED25519_ID, &[0; 31])), "supported kind"),
    ] {
        let error = parse(&file);
        assert!(error.contains(part), "{error}");
    }
}

proptest! {
    #[test]
    fn changed_token_is_invalid(at in any::<prop::sample::Index>(), with in "[A-Za-z0-9_.-]") {
        let token = hs256(&json!({"keys": "a"}));
        let at = at.index(token.len());
        let mut changed = token.clone();
        changed.replace_range(at..=at, &with);
        // The last digit of a part has bits that mean nothing, and must be 0.
        prop_assert_eq!(verifier(SECRET).check(&changed).is_ok(), changed == token);
    }

    #[test]
    fn any_bytes_are_no_key_and_no_token(bytes in prop::collection::vec(any::<u8>(), 0..100), text in "\\PC{0,60}") {
        let _ = public_key(&bytes);
        prop_assert!(verifier(SECRET).check(&text).is_err());
    }
}
