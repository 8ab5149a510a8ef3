//! TLS 1.3 between nodes, with raw public keys (RFC 7250) on both sides: a node believes those whose keys it
//! was given, and no certificate is needed.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tokio_rustls::rustls::client::AlwaysResolvesClientRawPublicKeys;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{
    self, CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key,
};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use tokio_rustls::rustls::server::AlwaysResolvesServerRawPublicKeys;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    ServerConfig, SignatureScheme,
};

use crate::protocol::cluster::NodeId;

/// The bytes before an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The public key of a node, as a SubjectPublicKeyInfo.
pub type NodePublicKey = Vec<u8>;

/// The nodes whose keys are believed.
#[derive(Debug, Default)]
pub(crate) struct KnownNodes(Mutex<HashMap<NodePublicKey, NodeId>>);

impl KnownNodes {
    /// Replaces the nodes.
    pub(crate) fn set(&self, nodes: impl IntoIterator<Item = (NodePublicKey, NodeId)>) {
        *self.0.lock() = nodes.into_iter().collect();
    }

    /// Returns the node with this key.
    pub(crate) fn node(&self, key: &[u8]) -> Option<NodeId> {
        self.0.lock().get(key).copied()
    }
}

/// The configurations of a node, with a key pair of its own that it never writes down.
#[derive(Clone, Debug)]
pub(super) struct NodeTls {
    pub(super) public_key: NodePublicKey,
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
}

impl NodeTls {
    /// Generates a key pair.
    pub(super) fn generate(known: &Arc<KnownNodes>) -> io::Result<NodeTls> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| io::Error::other("no randomness"))?;
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref())
            .map_err(|error| io::Error::other(error.to_string()))?;
        let public_key = [&SPKI_PREFIX[..], pair.public_key().as_ref()].concat();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec()));
        let provider = Arc::new(link_provider());
        let signer = provider.key_provider.load_private_key(private).map_err(io::Error::other)?;
        let certified = CertifiedKey::new(vec![CertificateDer::from(public_key.clone())], signer);
        let certified = Arc::new(certified);
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Arc::new(RawKeyVerifier { known: Arc::clone(known), algorithms });
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<RawKeyVerifier>::clone(&verifier))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(
                &certified,
            ))));
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified)));
        Ok(NodeTls { public_key, client: Arc::new(client), server: Arc::new(server) })
    }
}

/// Makes ring the cryptography of the process, unless it has one. The client of Redis takes it for TLS:
/// with two compiled in, there would be none.
pub(super) fn install_default_provider() {
    // An error is that there is one.
    let _ = crypto::ring::default_provider().install_default();
}

/// Returns the cryptography between nodes. AES-128 comes first, as it costs the least, and is as strong as
/// the keys of nodes.
fn link_provider() -> CryptoProvider {
    let mut provider = fastest_provider();
    provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// Returns the cryptography whose AES-GCM is the fastest on this processor, of those compiled in. Both use
/// the wide instructions for AES: AWS-LC, which the bridge's stack brings, those of AVX-512, and ring those
/// of AVX2.
fn fastest_provider() -> CryptoProvider {
    #[cfg(all(feature = "bridge", target_arch = "x86_64"))]
    if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("vaes") {
        return crypto::aws_lc_rs::default_provider();
    }
    crypto::ring::default_provider()
}

/// The check of the key of another node.
#[derive(Debug)]
struct RawKeyVerifier {
    known: Arc<KnownNodes>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl RawKeyVerifier {
    fn check(&self, key: &CertificateDer<'_>) -> Result<(), Error> {
        let known = self.known.node(key).map(|_| ());
        known.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }

    fn verify(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

impl ServerCertVerifier for RawKeyVerifier {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(key).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for RawKeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(key).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aes_128_is_the_first_cipher_between_nodes() {
        let ciphers: Vec<_> = link_provider().cipher_suites.iter().map(|suite| suite.suite()).collect();
        let expected = [
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS13_AES_256_GCM_SHA384,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        assert_eq!(ciphers, expected);
    }
}
