//! A program of the operator that decides about tokens, asked by HTTP.
//!
//! Clients with the same token wait for one answer, which is kept for a while. Questions have turns, which
//! are shared fairly between the addresses of clients. Those of an address whose questions have no answer are
//! refused at once for a while.

mod answer_cache;
mod circuit_breaker;
mod question_turns;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
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
use crate::server::log_limit::LogLimit;
use crate::server::telemetry::CalloutCounts;
use answer_cache::AnswerCache;
use circuit_breaker::CircuitBreaker;
use question_turns::QuestionTurns;

/// Longest answer, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Longest time after which a refused client is asked to try again, in seconds.
const MAX_RETRY: u64 = 3600;

/// Decision about a token.
type Answer = Result<Grant, AuthRefusal>;

/// End of a question.
#[derive(Clone)]
enum QuestionEnd {
    /// The program answered, or failed to.
    Answered(Answer),
    /// The program was not asked, for lack of a turn of the address that asked for it.
    NotAsked(AuthRefusal),
}

/// A question about a token, for which several clients can wait.
type Question = watch::Receiver<Option<QuestionEnd>>;

/// The program that decides.
pub(super) struct Callout {
    url: Uri,
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    timeout: Duration,
    turns: Arc<QuestionTurns>,
    state: Mutex<CalloutState>,
    counts: Arc<CalloutCounts>,
}

struct CalloutState {
    cache: AnswerCache,
    /// The questions that have no answer yet, by the digests of their tokens.
    open: HashMap<TokenDigest, Question>,
    breaker: CircuitBreaker,
    /// Lines about a program that does not answer, and about one that answers again.
    lines: [LogLimit; 2],
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
    #[error("there is no request to this URL: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("its answer is too long or broke off")]
    Body,
    #[error("its answer has status {0}, which is none of 200, 204, 401, 403 and 429")]
    Status(u16),
    #[error("its answer is no JSON object with the room keys as \"keys\"")]
    Json,
}

impl CalloutError {
    /// Returns true if the program sent a response, and so is there.
    const fn is_response(&self) -> bool {
        match self {
            CalloutError::Timeout
            | CalloutError::Connect(_)
            | CalloutError::Http(_)
            | CalloutError::Request(_) => false,
            CalloutError::Body | CalloutError::Status(_) | CalloutError::Json => true,
        }
    }
}

/// Returns the refusal of a client that may try again after this time.
fn unavailable_for(left: Duration) -> AuthRefusal {
    AuthRefusal::Unavailable(left.as_secs() + u64::from(left.subsec_nanos() > 0))
}

impl Callout {
    /// Prepares the questions to the program at this URL.
    ///
    /// # Errors
    /// The URL is invalid, or the system has no certificates for `https`.
    pub(super) fn new(
        url: &str,
        timeout: Duration,
        cached_for: Duration,
        counts: &Arc<CalloutCounts>,
    ) -> Result<Self, AuthFileError> {
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
            turns: Arc::default(),
            state: Mutex::new(CalloutState {
                cache: AnswerCache::new(cached_for),
                open: HashMap::new(),
                breaker: CircuitBreaker::default(),
                lines: <[LogLimit; 2]>::default(),
            }),
            counts: Arc::clone(counts),
        })
    }

    /// Returns the rights of a token: by an answer that is kept, or by the next one. The client connects from
    /// `network`, if that is known.
    pub(super) async fn check(self: &Arc<Self>, token: &str, network: Option<ClientNetwork>) -> Answer {
        // A token with other characters than a header has is none that the program gave out.
        let Ok(credentials) = HeaderValue::try_from(format!("Bearer {token}")) else {
            return Err(AuthRefusal::InvalidToken);
        };
        let digest = token_digest(token);
        for _ in 0..2 {
            let (mut question, is_own) = match self.question(&credentials, digest, network) {
                Ok(question) => question,
                Err(answer) => return answer,
            };
            let outcome = question.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
            match outcome {
                Some(QuestionEnd::Answered(answer)) => return answer,
                Some(QuestionEnd::NotAsked(refusal)) if is_own => return Err(refusal),
                // For lack of a turn of another client's address: this one's may have one.
                Some(QuestionEnd::NotAsked(_)) | None => {}
            }
        }
        Err(AuthRefusal::Unavailable(1))
    }

    /// Returns the open question about a token, and true if it was asked for this client.
    ///
    /// # Errors
    /// The answer, if there is one without a question.
    fn question(
        self: &Arc<Self>,
        credentials: &HeaderValue,
        digest: TokenDigest,
        network: Option<ClientNetwork>,
    ) -> Result<(Question, bool), Answer> {
        let state = &mut *self.state.lock();
        let now = clock::now();
        if let Some(answer) = state.cache.get(&digest, now) {
            self.counts.cached.count();
            return Err(answer);
        }
        // An error means that its task has ended.
        if let Some(question) = state.open.get(&digest).filter(|question| question.has_changed().is_ok()) {
            self.counts.shared.count();
            return Ok((question.clone(), false));
        }
        if let Some(left) = state.breaker.time_left(network, now) {
            self.counts.paused.count();
            return Err(Err(unavailable_for(left)));
        }
        let (sender, question) = watch::channel(None);
        state.open.insert(digest, question.clone());
        let (this, credentials) = (Arc::clone(self), credentials.clone());
        // A task of its own: others may wait when this client has disconnected.
        tokio::spawn(async move {
            let outcome = this.ask_in_turn(&credentials, network).await;
            this.keep(digest, &outcome);
            // Fails if all have disconnected.
            let _ = sender.send(Some(outcome));
        });
        Ok((question, true))
    }

    /// Keeps the answer to a question, for which no client waits from now on.
    fn keep(&self, digest: TokenDigest, outcome: &QuestionEnd) {
        let state = &mut *self.state.lock();
        if let QuestionEnd::Answered(answer) = outcome {
            state.cache.insert(digest, answer, clock::now());
        }
        state.open.remove(&digest);
    }

    async fn ask_in_turn(&self, credentials: &HeaderValue, network: Option<ClientNetwork>) -> QuestionEnd {
        let turn = tokio::time::timeout(self.timeout, self.turns.wait(network)).await;
        let Some(_turn) = turn.ok().flatten() else {
            self.counts.crowded_out.count();
            return QuestionEnd::NotAsked(AuthRefusal::Unavailable(1));
        };
        let asked = clock::now();
        let allowed = self.state.lock().breaker.try_ask(network, asked, self.timeout);
        if let Err(left) = allowed {
            self.counts.paused.count();
            return QuestionEnd::NotAsked(unavailable_for(left));
        }
        let answer = tokio::time::timeout(self.timeout, self.ask(credentials)).await;
        QuestionEnd::Answered(match answer.unwrap_or(Err(CalloutError::Timeout)) {
            Ok(answer) => {
                self.counts.answered.count();
                self.on_response(network);
                answer
            }
            Err(error) => {
                self.counts.failed.count();
                tracing::debug!(%error, "the program of --auth callout");
                Err(match error.is_response() {
                    true => {
                        self.on_response(network);
                        AuthRefusal::Unavailable(1)
                    }
                    false => self.on_silence(&error, network, asked),
                })
            }
        })
    }

    /// Takes note that the program is there.
    fn on_response(&self, network: Option<ClientNetwork>) {
        let now = clock::now();
        let state = &mut *self.state.lock();
        // Also if it was not silent: it may have been by the settings before a reload.
        self.counts.set_silent(false);
        if state.breaker.on_answer(network, now) {
            let [_, line] = &mut state.lines;
            if line.count(now).is_some() {
                tracing::info!("the program of --auth callout answers again");
            }
        }
    }

    /// Takes note that the program did not answer a question of the time `asked`. Returns the refusal of the
    /// client.
    fn on_silence(
        &self,
        error: &CalloutError,
        network: Option<ClientNetwork>,
        asked: Instant,
    ) -> AuthRefusal {
        let now = clock::now();
        let state = &mut *self.state.lock();
        if state.breaker.on_failure(network, asked, now) {
            self.counts.set_silent(true);
            let [line, _] = &mut state.lines;
            if let Some(silences) = line.count(now) {
                tracing::warn!(
                    %error, silences,
                    "the program of --auth callout does not answer: clients get 503, and those of the same address at once"
                );
            }
        }
        state.breaker.time_left(network, now).map_or(AuthRefusal::Unavailable(1), unavailable_for)
    }

    async fn ask(&self, credentials: &HeaderValue) -> Result<Answer, CalloutError> {
        let stream =
            TcpStream::connect((self.host.as_str(), self.port)).await.map_err(CalloutError::Connect)?;
        match &self.tls {
            None => self.ask_on(stream, credentials).await,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone())
                    .map_err(|error| CalloutError::Connect(io::Error::other(error)))?;
                let stream = tls.connect(name, stream).await.map_err(CalloutError::Connect)?;
                self.ask_on(stream, credentials).await
            }
        }
    }

    async fn ask_on<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        credentials: &HeaderValue,
    ) -> Result<Answer, CalloutError> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let exchange = async {
            let target = self.url.path_and_query().map_or("/", |target| target.as_str());
            let request = Request::get(target)
                .header(header::HOST, self.url.authority().map_or("", |authority| authority.as_str()))
                .header(header::AUTHORIZATION, credentials)
                .header(header::ACCEPT, "application/json")
                .header(header::CONNECTION, "close")
                .body(Empty::<Bytes>::new())?;
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

async fn read_answer<B: hyper::body::Body<Data = Bytes> + Unpin>(
    response: Response<B>,
) -> Result<Answer, CalloutError>
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

/// Returns the seconds after which a client may try again, by a response.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked() {
        let new = |url: &str| Callout::new(url, Duration::from_secs(1), Duration::ZERO, &Arc::default());
        for url in ["http://localhost:9000/auth?x=1", "http://[::1]/a", "http://h"] {
            assert!(new(url).is_ok(), "{url}");
        }
        for url in ["", "localhost:9000", "ftp://h/", "http://", "/path", "http://user:pw@h/"] {
            assert!(new(url).is_err(), "{url}");
        }
        assert_eq!(new("http://[::1]:90/a").unwrap().host, "::1");
    }
}
