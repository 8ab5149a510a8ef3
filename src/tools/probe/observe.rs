//! Connections that send as little as possible, and what they observe. What an observation means is in
//! `fingerprint`.

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;

use super::fingerprint::{FirstFrames, Observation};
use crate::tools::client::random_key;
use crate::tools::dial::{ConnectError, DialedSocket, Target, error_chain};

/// Time limit of an immediate reaction. A gateway first waits for the client's first frame.
const REACTION_TIMEOUT: Duration = Duration::from_millis(1200);
/// Time limit of a close at the third missed heartbeat.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_millis(17_500);

/// A message or the close that a server sent.
#[derive(Debug, PartialEq, Eq)]
enum Received {
    Text(String),
    Binary(Vec<u8>),
    Closed(u16, String),
}

struct ProbeSocket(DialedSocket);

impl ProbeSocket {
    async fn open(target: &Target, path: &str) -> Result<ProbeSocket, ConnectError> {
        Ok(ProbeSocket(target.open(path).await?.0))
    }

    async fn text(&mut self, text: &str) {
        // If this fails, the end of the stream is received next.
        let _ = self.0.send(Message::text(text)).await;
    }

    async fn binary(&mut self, bytes: &[u8]) {
        let _ = self.0.send(Message::binary(bytes.to_vec())).await;
    }

    /// Returns what the server sends next, up to `limit`.
    async fn next(&mut self, limit: Duration) -> Option<Received> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            match timeout_at(deadline, self.0.next()).await.ok()? {
                Some(Ok(Message::Text(text))) => return Some(Received::Text(text.as_str().to_owned())),
                Some(Ok(Message::Binary(bytes))) => return Some(Received::Binary(bytes.to_vec())),
                Some(Ok(Message::Close(frame))) => {
                    let frame = frame.map(|frame| (frame.code.into(), frame.reason.as_str().to_owned()));
                    let (code, reason) = frame.unwrap_or((1005, String::new()));
                    return Some(Received::Closed(code, reason));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Some(Received::Closed(1006, String::new())),
            }
        }
    }

    /// Returns the code and reason of the server's close, if it closes within `limit`.
    async fn closed(&mut self, limit: Duration) -> Option<(u16, String)> {
        let deadline = Instant::now() + limit;
        loop {
            match self.next(deadline.saturating_duration_since(Instant::now())).await? {
                Received::Closed(code, reason) => return Some((code, reason)),
                Received::Text(_) | Received::Binary(_) => {}
            }
        }
    }

    async fn close(mut self) {
        let _ = self.0.close(None).await;
        self.closed(Duration::from_secs(1)).await;
    }
}

fn path() -> String {
    format!("/{}", random_key())
}

/// Sends a `GET /` without an upgrade.
pub(crate) async fn http(target: &Target) -> Observation {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        target.path("/"),
        target.authority()
    );
    let mut stream = match target.dial().await {
        Ok(stream) => stream,
        Err(error) => return Observation::Failed(error_chain(&error)),
    };
    if let Err(error) = stream.write_all(request.as_bytes()).await {
        return Observation::Failed(error_chain(&error));
    }
    let mut answer = Vec::new();
    let _ = timeout(REACTION_TIMEOUT, (&mut stream).take(64 * 1024).read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
    match status {
        Some(status) => Observation::Http(Some((status, body.to_owned()))),
        None if answer.is_empty() => Observation::Http(None),
        None => Observation::Failed("no HTTP response".to_owned()),
    }
}

/// Connects with a key in the path, and sends nothing.
pub(crate) async fn silent(target: &Target) -> Observation {
    let mut socket = match ProbeSocket::open(target, &path()).await {
        Ok(socket) => socket,
        Err(error) => return Observation::without_connection(&error),
    };
    let mut received = Vec::new();
    let deadline = Instant::now() + REACTION_TIMEOUT;
    while let Some(next) = socket.next(deadline.saturating_duration_since(Instant::now())).await {
        let end = matches!(next, Received::Closed(..));
        received.push(next);
        if end {
            break;
        }
    }
    socket.close().await;
    let binary = |bytes: &[u8]| Received::Binary(bytes.to_vec());
    Observation::Silent(match received.as_slice() {
        [] => FirstFrames::None,
        [Received::Text(text)] if text == "{\"ping\":true}" => FirstFrames::JsonPing,
        [first] if *first == binary(&[0x10, 1]) => FirstFrames::IsFirst,
        [first, ping] if *first == binary(&[0x10, 1]) && *ping == binary(&[0x20, 1]) => {
            FirstFrames::IsFirstAndPing
        }
        [first, ping] if *first == binary(&[0x10, 1]) && *ping == binary(&[0x18, 1]) => {
            FirstFrames::IsFirstAndPing15_0_0
        }
        _ => FirstFrames::Other,
    })
}

/// Connects without a key in the path, and sends nothing.
pub(crate) async fn empty_path(target: &Target) -> Observation {
    match ProbeSocket::open(target, "/").await {
        Ok(mut socket) => Observation::EmptyPath(socket.closed(REACTION_TIMEOUT).await),
        Err(error) => Observation::without_connection(&error),
    }
}

/// Sends `{}`, which is no message of any dialect, and harms no Node.js server.
pub(crate) async fn empty_object(target: &Target) -> Observation {
    match ProbeSocket::open(target, &path()).await {
        Ok(mut socket) => {
            socket.text("{}").await;
            Observation::EmptyObject(socket.closed(REACTION_TIMEOUT).await)
        }
        Err(error) => Observation::without_connection(&error),
    }
}

/// Returns true if the paths of signaller are served: there is no listener at a random handle.
///
/// # Errors
/// The HTTP status by which the connection was refused.
pub(crate) async fn signaller(target: &Target) -> Result<bool, u16> {
    let connecting = target.open(&format!("/connect/{}", random_key())).await;
    match connecting.err() {
        Some(error) => error.refusal().map_or(Ok(matches!(error, ConnectError::Status(404))), Err),
        None => Ok(false),
    }
}

/// Opens an empty key, by which sigver 9 and 10 differ.
pub(crate) async fn empty_key(target: &Target) -> Observation {
    match ProbeSocket::open(target, "/").await {
        Ok(mut socket) => {
            socket.text("{\"open\":\"\"}").await;
            Observation::EmptyKey(socket.closed(REACTION_TIMEOUT).await.map(|(code, _)| code))
        }
        Err(error) => Observation::without_connection(&error),
    }
}

/// Connects a second client with the same key, by which releases of sigver 15 differ.
pub(crate) async fn second_client(target: &Target) -> Observation {
    let path = path();
    let opened = async {
        let mut first = ProbeSocket::open(target, &path).await?;
        first.next(REACTION_TIMEOUT).await;
        Ok::<_, ConnectError>((first, ProbeSocket::open(target, &path).await?))
    };
    let (first, mut second) = match opened.await {
        Ok(opened) => opened,
        Err(error) => return Observation::without_connection(&error),
    };
    let (reply, then) = (second.next(REACTION_TIMEOUT).await, second.next(REACTION_TIMEOUT / 2).await);
    second.close().await;
    first.close().await;
    match reply {
        Some(Received::Binary(bytes)) if bytes == [0x10, 0] => {
            Observation::SecondPinged(then == Some(Received::Binary(vec![0x20, 1])))
        }
        _ => Observation::Failed("the second client is not notified that it is not the first".to_owned()),
    }
}

/// Lets a joiner choose between a favored member and an older one, by which releases of sigver 19 differ.
pub(crate) async fn favored(target: &Target) -> Observation {
    let path = path();
    let connected = Some(Received::Binary(vec![0x20, 1]));
    let measured = async {
        let mut old = ProbeSocket::open(target, &path).await?;
        old.binary(&[0x1a, 2, 8, 11]).await;
        let mut connected_all = old.next(REACTION_TIMEOUT).await == connected;
        let mut favored = ProbeSocket::open(target, &format!("{path}?favored")).await?;
        // A client that names a member of the room becomes one, too.
        favored.binary(&[0x1a, 5, 8, 12, 0x12, 1, 11]).await;
        connected_all &= favored.next(REACTION_TIMEOUT).await == connected;
        let mut joiner = ProbeSocket::open(target, &path).await?;
        joiner.binary(&[0x1a, 2, 8, 13]).await;
        connected_all &= joiner.next(REACTION_TIMEOUT).await == Some(Received::Binary(vec![0x20, 0]));
        // A content in the layout of 19, which in that of 20 is an end.
        joiner.binary(&[0x12, 7, 8, 0, 0x10, 0, 0x1a, 1, b'x']).await;
        let (to_old, to_favored) = tokio::join!(old.next(REACTION_TIMEOUT), favored.next(REACTION_TIMEOUT));
        for socket in [joiner, favored, old] {
            socket.close().await;
        }
        Ok::<_, ConnectError>(match (connected_all, to_old.is_some(), to_favored.is_some()) {
            (true, false, true) => Observation::Favored(true),
            (true, true, false) => Observation::Favored(false),
            _ => Observation::Failed("the joiner reaches neither member or both".to_owned()),
        })
    };
    measured.await.unwrap_or_else(|error| Observation::without_connection(&error))
}

/// Answers no heartbeat.
pub(crate) async fn heartbeat_timeout(target: &Target) -> Observation {
    match ProbeSocket::open(target, &path()).await {
        Ok(mut socket) => {
            let opened = Instant::now();
            let closed = socket.closed(HEARTBEAT_TIMEOUT).await;
            Observation::HeartbeatTimeout(
                closed.map(|(code, _)| (code, (opened.elapsed().as_millis() as u64 + 400) / 1000)),
            )
        }
        Err(error) => Observation::without_connection(&error),
    }
}
