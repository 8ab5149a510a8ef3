//! A program of the operator that decides about tokens, asked by HTTP.
//!
//! Clients with the same token wait for one answer, which is kept for a while. Questions have turns, which
//! are shared fairly between the addresses of clients. Those of an address whose questions have no answer are
//! refused at once for a while.

mod answer_cache;
mod circuit_breaker;
mod open_questions;
mod question_turns;

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
use open_questions::{AnswerReceiver, OpenQuestions, QuestionId, WaitingClient};
use question_turns::QuestionTurns;

/// Longest answer, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Longest time after which a refused client is asked to try again, in seconds.
const MAX_RETRY: u64 = 3600;

/// Decision about a token.
type Answer = Result<Grant, AuthRefusal>;

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
    open: OpenQuestions,
    breaker: CircuitBreaker,
    lines: CalloutLines,
}

/// Limits of the lines of the log.
#[derive(Default)]
struct CalloutLines {
    /// The program does not answer.
    silent: LogLimit,
    /// The program answers again.
    answers: LogLimit,
    /// An answer cannot be used.
    unusable: LogLimit,
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

/// A question that is being asked. Without an answer, as after a panic, its clients are refused.
struct AskedQuestion<'a> {
    callout: &'a Callout,
    id: QuestionId,
    answer: Arc<watch::Sender<Option<Answer>>>,
}

impl AskedQuestion<'_> {
    /// Keeps the answer, and gives it to those who wait.
    fn end(self, answer: Answer) {
        self.callout.state.lock().cache.insert(self.id.digest(), &answer, clock::now());
        self.answer.send_replace(Some(answer));
    }
}

impl Drop for AskedQuestion<'_> {
    fn drop(&mut self) {
        self.callout.state.lock().open.end(self.id);
    }
}

/// Returns the value of a channel once it has one; `None` if it ends without.
async fn value<T: Clone>(receiver: &mut watch::Receiver<Option<T>>) -> Option<T> {
    receiver.wait_for(Option::is_some).await.ok()?.clone()
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
                open: OpenQuestions::default(),
                breaker: CircuitBreaker::default(),
                lines: CalloutLines::default(),
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
        let WaitingClient { mut answer, refusal } = match self.question(&credentials, digest, network) {
            Ok(client) => client,
            Err(answer) => return answer,
        };
        let unavailable = AuthRefusal::Unavailable(1);
        let Some(mut refusal) = refusal else {
            // One turn, and one answer.
            let answer = tokio::time::timeout(2 * self.timeout, value(&mut answer)).await;
            return answer.ok().flatten().unwrap_or(Err(unavailable));
        };
        tokio::select! {
            // The answer is there before the refusals end.
            biased;
            answer = value(&mut answer) => answer.unwrap_or(Err(unavailable)),
            refusal = value(&mut refusal) => Err(refusal.unwrap_or(unavailable)),
        }
    }

    /// Returns the end of a client in the open question about its token.
    ///
    /// # Errors
    /// The answer, if there is one without a question.
    fn question(
        self: &Arc<Self>,
        credentials: &HeaderValue,
        digest: TokenDigest,
        network: Option<ClientNetwork>,
    ) -> Result<WaitingClient, Answer> {
        let state = &mut *self.state.lock();
        let now = clock::now();
        if let Some(answer) = state.cache.get(&digest, now) {
            self.counts.cached.count();
            return Err(answer);
        }
        let pause = state.breaker.time_left(network, now);
        if let Some(client) = state.open.join(&digest, network, pause.is_none()) {
            self.counts.shared.count();
            return Ok(client);
        }
        if let Some(left) = pause {
            self.counts.paused.count();
            return Err(Err(unavailable_for(left)));
        }
        let (id, client, refusals) = state.open.add(digest, network);
        let (this, credentials, answer) = (Arc::clone(self), credentials.clone(), client.answer.clone());
        // A task of its own: others may wait when this client has disconnected.
        tokio::spawn(async move {
            if let Err(refusal) = this.ask_in_turn(id, &credentials, network, answer).await {
                this.state.lock().open.give_up(id, network);
                // Fails if all have disconnected.
                let _ = refusals.send(Some(refusal));
            }
        });
        Ok(client)
    }

    /// Asks a question once the address has a turn, or waits for the answer if another one has it first.
    ///
    /// # Errors
    /// The refusal of the clients of this address, which has no turn or a pause.
    async fn ask_in_turn(
        &self,
        id: QuestionId,
        credentials: &HeaderValue,
        network: Option<ClientNetwork>,
        mut answer: AnswerReceiver,
    ) -> Result<(), AuthRefusal> {
        let turn = tokio::select! {
            biased;
            _ = value(&mut answer) => return Ok(()),
            turn = tokio::time::timeout(self.timeout, self.turns.wait(network)) => turn.ok().flatten(),
        };
        let Some(turn) = turn else {
            self.counts.crowded_out.count();
            return Err(AuthRefusal::Unavailable(1));
        };
        let Some(question) = self.begin(id, network)? else {
            drop(turn);
            let _ = value(&mut answer).await;
            return Ok(());
        };
        let asked = clock::now();
        let answer = tokio::time::timeout(self.timeout, self.ask(credentials)).await;
        question.end(match answer.unwrap_or(Err(CalloutError::Timeout)) {
            Ok(answer) => {
                self.counts.answered.count();
                self.on_response(network);
                answer
            }
            Err(error) => {
                self.counts.failed.count();
                tracing::debug!(%error, "the program of --auth callout");
                match error.is_response() {
                    true => {
                        self.on_response(network);
                        self.on_unusable(&error);
                    }
                    false => self.on_silence(&error, network, asked),
                }
                // Not the pause of this address: clients of others wait for the same answer.
                Err(AuthRefusal::Unavailable(1))
            }
        });
        Ok(())
    }

    /// Begins to ask for an address that has a turn. Returns `None` if another one asks or has the answer.
    ///
    /// # Errors
    /// The refusal of the clients of this address, if it has a pause.
    fn begin(
        &self,
        id: QuestionId,
        network: Option<ClientNetwork>,
    ) -> Result<Option<AskedQuestion<'_>>, AuthRefusal> {
        let state = &mut *self.state.lock();
        if !state.open.is_unasked(id) {
            return Ok(None);
        }
        state.breaker.try_ask(network, clock::now(), self.timeout).map_err(|left| {
            self.counts.paused.count();
            unavailable_for(left)
        })?;
        Ok(state.open.ask(id).map(|answer| AskedQuestion { callout: self, id, answer }))
    }

    /// Records that the program answers.
    fn on_response(&self, network: Option<ClientNetwork>) {
        let now = clock::now();
        let state = &mut *self.state.lock();
        // Always reset: a reload may have replaced the settings by which the program was silent.
        self.counts.set_silent(false);
        if state.breaker.on_answer(network, now) && state.lines.answers.count(now).is_some() {
            tracing::info!("the program of --auth callout answers again");
        }
    }

    /// Logs an answer that cannot be used.
    fn on_unusable(&self, error: &CalloutError) {
        if let Some(answers) = self.state.lock().lines.unusable.count(clock::now()) {
            tracing::warn!(
                %error, answers,
                "an answer of the program of --auth callout cannot be used: clients get 503; at most one line a minute"
            );
        }
    }

    /// Records that the program did not answer a question of the time `asked`.
    fn on_silence(&self, error: &CalloutError, network: Option<ClientNetwork>, asked: Instant) {
        let now = clock::now();
        let state = &mut *self.state.lock();
        if state.breaker.on_failure(network, asked, now) {
            self.counts.set_silent(true);
            if let Some(silences) = state.lines.silent.count(now) {
                tracing::warn!(
                    %error, silences,
                    "the program of --auth callout does not answer: clients get 503, and those of the same address at once"
                );
            }
        }
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
mod tests;
