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
#[cfg(feature = "bridge")]
use tokio_rustls::rustls::crypto::aws_lc_rs as provider;
#[cfg(not(feature = "bridge"))]
use tokio_rustls::rustls::crypto::ring as provider;
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use tokio_rustls::rustls::server::AlwaysResolvesServerRawPublicKeys;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};

use self::provider::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
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
        let signer = provider::sign::any_supported_type(&private).map_err(io::Error::other)?;
        let certified = CertifiedKey::new(vec![CertificateDer::from(public_key.clone())], signer);
        let certified = Arc::new(certified);
        let verifier = Arc::new(RawKeyVerifier(Arc::clone(known)));
        let provider = Arc::new(link_provider());
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
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
}

/// Returns the cryptography between nodes, with another order of ciphers than that of clients: AES-128
/// costs less, and is as strong as the keys of nodes. The bridge's stack brings AWS-LC, which costs less than
/// ring.
fn link_provider() -> CryptoProvider {
    let cipher_suites =
        vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    CryptoProvider { cipher_suites, ..provider::default_provider() }
}

/// The check of the key of another node.
#[derive(Debug)]
struct RawKeyVerifier(Arc<KnownNodes>);

impl RawKeyVerifier {
    fn check(&self, key: &CertificateDer<'_>) -> Result<(), Error> {
        let known = self.0.node(key).map(|_| ());
        known.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }
}

fn verify(
    message: &[u8],
    key: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let key = SubjectPublicKeyInfoDer::from(key.as_ref());
    let algorithms = provider::default_provider().signature_verification_algorithms;
    verify_tls13_signature_with_raw_key(message, &key, signature, &algorithms)
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
        verify(message, key, signature)
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
        verify(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
