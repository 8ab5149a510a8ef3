//! Connections that say as little as possible, and what is seen on them. What that means is in `fingerprint`.

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;

use super::fingerprint::{First, Observation};
use crate::tools::client::target::{ConnectError, Socket, Target};
use crate::tools::matrix::pair_test::random_key;

/// How long what comes at once may take, above all in a gateway that waits whether the client speaks first.
const AT_ONCE: Duration = Duration::from_millis(1200);
/// How long a server may take that closes at the third missed heartbeat.
const PATIENCE: Duration = Duration::from_millis(17_500);

/// What came from the server, until nothing more came.
#[derive(Debug, PartialEq, Eq)]
enum Received {
    Text(String),
    Binary(Vec<u8>),
    Closed(u16, String),
}

struct ProbeSocket(Socket);

impl ProbeSocket {
    async fn open(target: &Target, path: &str) -> Result<ProbeSocket, ConnectError> {
        Ok(ProbeSocket(target.open(path).await?.0))
    }

    async fn text(&mut self, text: &str) {
        // If it does not get through, the end of the stream is what comes.
        let _ = self.0.send(Message::text(text)).await;
    }

    async fn binary(&mut self, bytes: &[u8]) {
        let _ = self.0.send(Message::binary(bytes.to_vec())).await;
    }

    /// The next that comes.
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

    /// How it is closed, if it is.
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

/// A plain `GET`.
pub async fn http(target: &Target) -> Observation {
    let request = format!(
        "GET {}/ HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        target.base(),
        target.authority()
    );
    let mut stream = match target.connect().await {
        Ok(stream) => stream,
        Err(error) => return Observation::Broken(error.to_string()),
    };
    if let Err(error) = stream.write_all(request.as_bytes()).await {
        return Observation::Broken(error.to_string());
    }
    let mut answer = Vec::new();
    let _ = timeout(AT_ONCE, (&mut stream).take(64 * 1024).read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
    match status {
        Some(status) => Observation::Http(Some((status, body.to_owned()))),
        None if answer.is_empty() => Observation::Http(None),
        None => Observation::Broken("no HTTP".to_owned()),
    }
}

/// A client with a key in its path that says nothing.
pub async fn silent(target: &Target) -> Observation {
    let mut line = match ProbeSocket::open(target, &path()).await {
        Ok(line) => line,
        Err(error) => return Observation::Broken(error.to_string()),
    };
    let mut came = Vec::new();
    let deadline = Instant::now() + AT_ONCE;
    while let Some(next) = line.next(deadline.saturating_duration_since(Instant::now())).await {
        let end = matches!(next, Received::Closed(..));
        came.push(next);
        if end {
            break;
        }
    }
    line.close().await;
    let binary = |bytes: &[u8]| Received::Binary(bytes.to_vec());
    Observation::Silent(match came.as_slice() {
        [] => First::Nothing,
        [Received::Text(text)] if text == "{\"ping\":true}" => First::JsonPing,
        [first] if *first == binary(&[0x10, 1]) => First::IsFirst,
        [first, ping] if *first == binary(&[0x10, 1]) && *ping == binary(&[0x20, 1]) => First::IsFirstAndPing,
        _ => First::Other,
    })
}

/// A client without a key in its path that says nothing.
pub async fn empty(target: &Target) -> Observation {
    match ProbeSocket::open(target, "/").await {
        Ok(mut line) => Observation::Empty(line.closed(AT_ONCE).await),
        Err(error) => Observation::Broken(error.to_string()),
    }
}

/// A client that says `{}`: no message of any dialect, and no harm to any original.
pub async fn object(target: &Target) -> Observation {
    match ProbeSocket::open(target, &path()).await {
        Ok(mut line) => {
            line.text("{}").await;
            Observation::Object(line.closed(AT_ONCE).await)
        }
        Err(error) => Observation::Broken(error.to_string()),
    }
}

/// Whether the paths of the relay are the relay's: nobody listens there.
pub async fn relay(target: &Target) -> bool {
    let connecting = target.open(&format!("/connect/{}", random_key())).await;
    matches!(connecting, Err(ConnectError::Refused(404)))
}

/// sigver 9 or 10: a client that opens an empty key.
pub async fn empty_open(target: &Target) -> Observation {
    match ProbeSocket::open(target, "/").await {
        Ok(mut line) => {
            line.text("{\"open\":\"\"}").await;
            Observation::EmptyOpen(line.closed(AT_ONCE).await.map(|(code, _)| code))
        }
        Err(error) => Observation::Broken(error.to_string()),
    }
}

/// sigver 15: what a second client with the same key hears.
pub async fn second(target: &Target) -> Observation {
    let path = path();
    let opened = async {
        let mut first = ProbeSocket::open(target, &path).await?;
        first.next(AT_ONCE).await;
        Ok::<_, ConnectError>((first, ProbeSocket::open(target, &path).await?))
    };
    let (first, mut second) = match opened.await {
        Ok(opened) => opened,
        Err(error) => return Observation::Broken(error.to_string()),
    };
    let (told, then) = (second.next(AT_ONCE).await, second.next(AT_ONCE / 2).await);
    second.close().await;
    first.close().await;
    match told {
        Some(Received::Binary(bytes)) if bytes == [0x10, 0] => {
            Observation::SecondPinged(then == Some(Received::Binary(vec![0x20, 1])))
        }
        _ => Observation::Broken("it does not hear that it is not the first".to_owned()),
    }
}

/// sigver 19: whether a favored member gets a joiner, or the older one.
pub async fn favored(target: &Target) -> Observation {
    let path = path();
    let connected = Some(Received::Binary(vec![0x20, 1]));
    let measured = async {
        let mut old = ProbeSocket::open(target, &path).await?;
        old.binary(&[0x1a, 2, 8, 11]).await;
        let mut made = old.next(AT_ONCE).await == connected;
        let mut favored = ProbeSocket::open(target, &format!("{path}?favored")).await?;
        // With the other as one of its members: it becomes one, too.
        favored.binary(&[0x1a, 5, 8, 12, 0x12, 1, 11]).await;
        made &= favored.next(AT_ONCE).await == connected;
        let mut joiner = ProbeSocket::open(target, &path).await?;
        joiner.binary(&[0x1a, 2, 8, 13]).await;
        made &= joiner.next(AT_ONCE).await == Some(Received::Binary(vec![0x20, 0]));
        // In the layout of 19; 20 finds an end in it.
        joiner.binary(&[0x12, 7, 8, 0, 0x10, 0, 0x1a, 1, b'x']).await;
        let (to_old, to_favored) = tokio::join!(old.next(AT_ONCE), favored.next(AT_ONCE));
        for line in [joiner, favored, old] {
            line.close().await;
        }
        Ok::<_, ConnectError>(match (made, to_old.is_some(), to_favored.is_some()) {
            (true, false, true) => Observation::Favored(true),
            (true, true, false) => Observation::Favored(false),
            _ => Observation::Broken("the joiner reaches neither or both".to_owned()),
        })
    };
    measured.await.unwrap_or_else(|error| Observation::Broken(error.to_string()))
}

/// A client that never answers.
pub async fn fate(target: &Target) -> Observation {
    match ProbeSocket::open(target, &path()).await {
        Ok(mut line) => {
            let opened = Instant::now();
            let closed = line.closed(PATIENCE).await;
            Observation::Fate(
                closed.map(|(code, _)| (code, (opened.elapsed().as_millis() as u64 + 400) / 1000)),
            )
        }
        Err(error) => Observation::Broken(error.to_string()),
    }
}
