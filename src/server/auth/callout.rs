//! A program of the operator that decides about tokens, asked by HTTP; its answers are kept for a while.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use indexmap::IndexMap;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::grant::Grant;
use super::jwt::texts;
use super::token_file::{TokenDigest, token_digest};
use super::{AuthFileError, AuthRefusal};
use crate::server::address_table::ClientNetwork;
use crate::server::clock;

/// Most questions at the same time; others wait, within the timeout.
const MAX_QUESTIONS: usize = 64;
/// Most questions for clients of one address at the same time: others are asked for meanwhile.
const MAX_QUESTIONS_PER_ADDRESS: usize = MAX_QUESTIONS / 2;
/// Most answers that are kept.
const MAX_CACHED: usize = 10_000;
/// Longest answer, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Longest wait that a refused client is told, in seconds.
const MAX_RETRY: u64 = 3600;

/// The program that decides.
pub(super) struct Callout {
    url: Uri,
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    timeout: Duration,
    cached_for: Duration,
    questions: Semaphore,
    by_address: AddressTurns,
    cache: Mutex<AnswerCache>,
}

impl fmt::Debug for Callout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callout").finish_non_exhaustive()
    }
}

/// A part of a successful answer.
#[derive(Deserialize)]
struct AnswerBody {
    keys: Value,
    exp: Option<f64>,
}

/// Failure to get an answer.
#[derive(Debug, thiserror::Error)]
enum CalloutError {
    #[error("it did not answer in time")]
    Timeout,
    #[error("cannot connect to it: {0}")]
    Connect(#[source] io::Error),
    #[error("it did not answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("its answer is too long or broke off")]
    Body,
    #[error("its answer has status {0}, which is none of 200, 204, 401, 403 and 429")]
    Status(u16),
    #[error("its answer is no JSON object with the room keys as \"keys\"")]
    Json,
}

impl Callout {
    /// Prepares the questions to the program at this URL.
    ///
    /// # Errors
    /// The URL is invalid, or the system has no certificates for `https`.
    pub(super) fn new(url: &str, timeout: Duration, cached_for: Duration) -> Result<Self, AuthFileError> {
        let url: Uri = url.parse().map_err(|_| AuthFileError::Url)?;
        let host = url.host().ok_or(AuthFileError::Url)?;
        // The user and password would be sent in `Host`, and nowhere else.
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(AuthFileError::UrlUser);
        }
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        let (tls, default_port) = match url.scheme_str() {
            Some("http") => (None, 80),
            Some("https") => (Some(connector()?), 443),
            _ => return Err(AuthFileError::Url),
        };
        Ok(Callout {
            port: url.port_u16().unwrap_or(default_port),
            url,
            host,
            tls,
            timeout,
            cached_for,
            questions: Semaphore::new(MAX_QUESTIONS),
            by_address: AddressTurns::default(),
            cache: Mutex::default(),
        })
    }

    /// Returns the rights of a token: those of an earlier answer, or asks for them. The client comes from
    /// `network`, if that is known.
    pub(super) async fn check(
        &self,
        token: &str,
        network: Option<ClientNetwork>,
    ) -> Result<Grant, AuthRefusal> {
        let digest = token_digest(token);
        if let Some(answer) = self.cache.lock().get(&digest, clock::now()) {
            return answer;
        }
        let answer = match tokio::time::timeout(self.timeout, self.ask(token, network)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.unavailable(&error)),
            Err(_) => return Err(self.unavailable(&CalloutError::Timeout)),
        };
        if !matches!(answer, Err(AuthRefusal::TooManyRequests(_))) {
            self.cache.lock().insert(digest, answer.clone(), clock::now(), self.cached_for);
        }
        answer
    }

    fn unavailable(&self, error: &CalloutError) -> AuthRefusal {
        tracing::debug!(%error, "the program of --auth callout");
        AuthRefusal::Unavailable
    }

    async fn ask(
        &self,
        token: &str,
        network: Option<ClientNetwork>,
    ) -> Result<Result<Grant, AuthRefusal>, CalloutError> {
        let turns = network.map(|network| self.by_address.of(network));
        let _turn = match &turns {
            Some(turns) => Some(turns.acquire().await.map_err(|_| CalloutError::Timeout)?),
            None => None,
        };
        // Never closed.
        let _permit = self.questions.acquire().await.map_err(|_| CalloutError::Timeout)?;
        let stream =
            TcpStream::connect((self.host.as_str(), self.port)).await.map_err(CalloutError::Connect)?;
        match &self.tls {
            None => self.ask_on(stream, token).await,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone())
                    .map_err(|error| CalloutError::Connect(io::Error::other(error)))?;
                let stream = tls.connect(name, stream).await.map_err(CalloutError::Connect)?;
                self.ask_on(stream, token).await
            }
        }
    }

    async fn ask_on<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        token: &str,
    ) -> Result<Result<Grant, AuthRefusal>, CalloutError> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let exchange = async {
            let target = self.url.path_and_query().map_or("/", |target| target.as_str());
            let request = Request::get(target)
                .header(header::HOST, self.url.authority().map_or("", |authority| authority.as_str()))
                .header(header::AUTHORIZATION, format!("Bearer {token}"))
                .header(header::ACCEPT, "application/json")
                .header(header::CONNECTION, "close")
                .body(Empty::<Bytes>::new());
            // A token with other characters than a header has is none that the program gave out.
            let Ok(request) = request else { return Ok(Err(AuthRefusal::InvalidToken)) };
            read_answer(sender.send_request(request).await?).await
        };
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            // The end of the connection, at which the answer is complete or fails.
            _ = connection => exchange.await,
        }
    }
}

/// The questions of each address, which take turns.
#[derive(Default)]
struct AddressTurns(Mutex<HashMap<ClientNetwork, Weak<Semaphore>>>);

impl AddressTurns {
    /// Returns the turns of an address, which are forgotten when no question has them any more.
    fn of(&self, network: ClientNetwork) -> Arc<Semaphore> {
        let mut known = self.0.lock();
        if let Some(turns) = known.get(&network).and_then(Weak::upgrade) {
            return turns;
        }
        // Questions are few, and each has one entry at most.
        known.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::new(Semaphore::new(MAX_QUESTIONS_PER_ADDRESS));
        known.insert(network, Arc::downgrade(&turns));
        turns
    }
}

async fn read_answer<B: hyper::body::Body<Data = Bytes> + Unpin>(
    response: Response<B>,
) -> Result<Result<Grant, AuthRefusal>, CalloutError>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match response.status() {
        StatusCode::NO_CONTENT => Ok(Ok(Grant::new(["*".to_owned()], None))),
        StatusCode::UNAUTHORIZED => Ok(Err(AuthRefusal::InvalidToken)),
        StatusCode::FORBIDDEN => Ok(Err(AuthRefusal::ForbiddenKey)),
        StatusCode::TOO_MANY_REQUESTS => {
            Ok(Err(AuthRefusal::TooManyRequests(retry_after(response.headers()))))
        }
        StatusCode::OK => {
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|_| CalloutError::Body)?.to_bytes();
            let body: AnswerBody = serde_json::from_slice(&body).map_err(|_| CalloutError::Json)?;
            let expires = body.exp.map(|expires| expires as u64);
            let grant = Grant::new(texts(&body.keys).ok_or(CalloutError::Json)?, expires);
            Ok(if grant.has_expired() { Err(AuthRefusal::ExpiredToken) } else { Ok(grant) })
        }
        status => Err(CalloutError::Status(status.as_u16())),
    }
}

/// Returns the seconds after which a client may try again.
fn retry_after(headers: &HeaderMap) -> u64 {
    let value = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    value.unwrap_or(1).clamp(1, MAX_RETRY)
}

/// Returns a connector that trusts the certificates of the system.
fn connector() -> Result<TlsConnector, AuthFileError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(AuthFileError::NoRoots);
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| AuthFileError::NoRoots)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The answers that are kept, by the digests of their tokens.
#[derive(Default)]
struct AnswerCache(IndexMap<TokenDigest, (Instant, Result<Grant, AuthRefusal>)>);

impl AnswerCache {
    fn get(&self, digest: &TokenDigest, now: Instant) -> Option<Result<Grant, AuthRefusal>> {
        let (until, answer) = self.0.get(digest)?;
        let is_current = *until > now && !matches!(answer, Ok(grant) if grant.has_expired());
        is_current.then(|| answer.clone())
    }

    fn insert(
        &mut self,
        digest: TokenDigest,
        answer: Result<Grant, AuthRefusal>,
        now: Instant,
        length: Duration,
    ) {
        if length.is_zero() {
            return;
        }
        if self.0.len() >= MAX_CACHED {
            self.0.retain(|_, (until, _)| *until > now);
            // Half of them, so that this is not done with each.
            self.0.truncate(MAX_CACHED / 2);
        }
        self.0.insert(digest, (now + length, answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_is_bounded_and_forgets() {
        let (now, length, mut cache) = (Instant::now(), Duration::from_secs(60), AnswerCache::default());
        let answer = Ok(Grant::new(["*".to_owned()], None));
        for number in 0..2 * MAX_CACHED {
            cache.insert(token_digest(&number.to_string()), answer.clone(), now, length);
            assert!(cache.0.len() <= MAX_CACHED);
        }
        let last = token_digest(&(2 * MAX_CACHED - 1).to_string());
        assert_eq!(cache.get(&last, now), Some(answer.clone()));
        assert_eq!(cache.get(&last, now + length), None);
        let off = token_digest("x");
        cache.insert(off, answer, now, Duration::ZERO);
        assert_eq!(cache.get(&off, now), None);
    }

    #[test]
    fn address_has_half_of_the_questions_and_is_forgotten() {
        let turns = AddressTurns::default();
        let networks = ["192.0.2.1", "192.0.2.2", "2001:db8::1"];
        let [one, other, third] =
            networks.map(|address| ClientNetwork::from(address.parse::<std::net::IpAddr>().unwrap()));
        let of_one = turns.of(one);
        let held: Vec<_> = std::iter::from_fn(|| Arc::clone(&of_one).try_acquire_owned().ok()).collect();
        assert_eq!(held.len(), MAX_QUESTIONS / 2);
        assert!(turns.of(one).try_acquire().is_err() && turns.of(other).try_acquire().is_ok());
        drop((held, of_one));
        turns.of(third);
        assert_eq!(turns.0.lock().len(), 1);
        assert!(turns.of(one).try_acquire().is_ok());
    }

    #[test]
    fn urls_are_checked() {
        let new = |url: &str| Callout::new(url, Duration::from_secs(1), Duration::ZERO);
        for url in ["http://localhost:9000/auth?x=1", "http://[::1]/a", "http://h"] {
            assert!(new(url).is_ok(), "{url}");
        }
        for url in ["", "localhost:9000", "ftp://h/", "http://", "/path", "http://user:pw@h/"] {
            assert!(new(url).is_err(), "{url}");
        }
        assert_eq!(new("http://[::1]:90/a").unwrap().host, "::1");
    }
}
