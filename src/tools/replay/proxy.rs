//! A recording proxy: forwards every byte unchanged, and records the messages on the way.
//!
//! Only the server's address in a request is replaced, and extensions are removed (compressed frames could
//! not be read). Connections without an upgrade are forwarded and not recorded. A line is written before its
//! bytes are forwarded, so that the order of the lines is one in which the events can have happened.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::frame_sniffer::{FrameSniffer, SniffedFrame};
use super::recorder::{ConnectionRecorder, Recorder};
use super::transcript::{ConnectRequest, FrameKind, RecordedEvent};
use crate::tools::dial::Target;

/// Longest head of a request or an answer, in bytes, and its timeout.
const MAX_HEAD: usize = 64 * 1024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for one side to finish after the other has ended: a server answers a close frame.
const LINGER: Duration = Duration::from_secs(2);
/// Size of a read, in bytes.
const CHUNK: usize = 16 * 1024;
/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// Passes connections on to `target` and records them, until `stop`.
pub async fn run(
    listener: TcpListener,
    target: Target,
    recorder: Arc<Recorder>,
    stop: impl Future<Output = ()>,
) {
    let accept = async {
        loop {
            let Ok((client, _)) = listener.accept().await else {
                sleep(PAUSE).await;
                continue;
            };
            let (target, recorder) = (target.clone(), Arc::clone(&recorder));
            tokio::spawn(async move {
                if let Err(error) = pass(client, &target, &recorder).await {
                    eprintln!("{error:#}");
                }
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = stop => {}
    }
}

/// The head of a request or an answer: its first line, and its headers as they were written.
struct HttpHead {
    first: String,
    headers: Vec<(String, String)>,
    /// Bytes that were read beyond the head.
    rest: Vec<u8>,
}

impl HttpHead {
    async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<HttpHead> {
        let mut bytes = Vec::new();
        let end = loop {
            if stream.read_buf(&mut bytes).await? == 0 {
                bail!("it ended within the head of HTTP");
            }
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if bytes.len() > MAX_HEAD {
                bail!("the head of HTTP is too long");
            }
        };
        let rest = bytes.split_off(end + 4);
        bytes.truncate(end);
        let text = String::from_utf8(bytes).context("the head of HTTP is not UTF-8")?;
        let (first, headers) = text.split_once("\r\n").unwrap_or((&text, ""));
        let headers = headers.split("\r\n").filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        Ok(HttpHead { first: first.to_owned(), headers, rest })
    }

    fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: &str, value: Option<&str>) {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self.headers.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    /// Returns the bytes of the head, with those that were read beyond it.
    fn bytes(&self) -> Vec<u8> {
        let headers: String =
            self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        [format!("{}\r\n{headers}\r\n", self.first).as_bytes(), &self.rest].concat()
    }
}

async fn with_head_timeout<T>(head: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(HEAD_TIMEOUT, head).await.context("no head of HTTP came in time")?
}

/// One connection, from its request to its end.
async fn pass(mut client: TcpStream, target: &Target, recorder: &Arc<Recorder>) -> Result<()> {
    client.set_nodelay(true)?;
    let mut request = with_head_timeout(HttpHead::read(&mut client)).await.context("a client")?;
    let mut words = request.first.split(' ');
    let (Some(method), Some(path), Some(version)) = (words.next(), words.next(), words.next()) else {
        bail!("a client: no request of HTTP: {:?}", request.first);
    };
    let websocket = request.get("upgrade").is_some_and(|to| to.eq_ignore_ascii_case("websocket"));
    let connect = ConnectRequest {
        path: path.to_owned(),
        origin: request.get("origin").map(str::to_owned),
        protocol: request.get("sec-websocket-protocol").map(str::to_owned),
    };
    request.first = format!("{method} {} {version}", target.path(path));
    request.set("Host", Some(target.authority()));
    request.set("Sec-WebSocket-Extensions", None);
    if !websocket {
        // Another request on the same connection would go on as it is.
        request.set("Connection", Some("close"));
    }
    let connection = websocket.then(|| recorder.connection(connect));
    let mut server = match target.dial().await.map_err(anyhow::Error::from) {
        Ok(server) => server,
        Err(error) => {
            if let Some(connection) = connection {
                connection.note(&format!("{error:#}"));
            }
            let answer = b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            // If the client is gone, it needs no answer.
            let _ = client.write_all(answer).await;
            return Err(error);
        }
    };
    server.write_all(&request.bytes()).await?;
    let Some(connection) = connection else {
        copy_bidirectional(&mut client, &mut server).await?;
        return Ok(());
    };
    let answer = match with_head_timeout(HttpHead::read(&mut server)).await {
        Ok(answer) => answer,
        Err(error) => {
            connection.note(&format!("{error:#}"));
            return Err(error.context(target.to_string()));
        }
    };
    if answer.first.split(' ').nth(1) != Some("101") {
        connection.note(&format!("refused: {}", answer.first));
        drop(connection);
        client.write_all(&answer.bytes()).await?;
        // What is left of the answer; either may end first.
        let _ = copy_bidirectional(&mut client, &mut server).await;
        return Ok(());
    }
    connection.write(RecordedEvent::Open);
    let early = request.rest.clone();
    converse(client, server, &early, &answer, connection).await;
    Ok(())
}

/// The phase of a conversation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    Open,
    /// The client sent a close frame.
    Closing,
    /// The client saw the end, or is gone.
    Over,
}

/// The recording of one connection.
struct ConnectionTap {
    connection: ConnectionRecorder,
    phase: Phase,
    client: FrameSniffer,
    server: FrameSniffer,
}

impl ConnectionTap {
    fn on_client_bytes(&mut self, bytes: &[u8]) {
        for passed in self.client.feed(bytes) {
            match passed {
                _ if self.phase > Phase::Open => {}
                // It only answers, as any client does by itself.
                SniffedFrame::Frame(payload) if payload.op == FrameKind::Pong => {}
                SniffedFrame::Frame(payload) => self.connection.write(RecordedEvent::Send(payload)),
                SniffedFrame::Close { code, reason } => {
                    self.phase = Phase::Closing;
                    self.connection.write(RecordedEvent::SendClose { code, reason });
                }
                other => self.lost("sent", &other),
            }
        }
    }

    fn on_server_bytes(&mut self, bytes: &[u8]) {
        for passed in self.server.feed(bytes) {
            match passed {
                _ if self.phase == Phase::Over => {}
                SniffedFrame::Frame(payload) if payload.op == FrameKind::Ping => {}
                SniffedFrame::Frame(payload) => self.connection.write(RecordedEvent::Recv(payload)),
                SniffedFrame::Close { code, reason } => self.over(code.unwrap_or(1005), reason),
                other => self.lost("received", &other),
            }
        }
    }

    fn lost(&self, how: &str, what: &SniffedFrame) {
        match what {
            SniffedFrame::TooLong => {
                self.connection.note(&format!("{how} a message that is too long to be recorded"))
            }
            SniffedFrame::Unparseable(why) => {
                self.connection.note(&format!("{how} {why}; nothing more of it is recorded"))
            }
            _ => {}
        }
    }

    fn over(&mut self, code: u16, reason: String) {
        if self.phase != Phase::Over {
            self.phase = Phase::Over;
            self.connection.write(RecordedEvent::RecvClose { code, reason });
        }
    }

    /// The client ended its connection.
    fn on_client_end(&mut self) {
        if self.phase == Phase::Open {
            self.connection.write(RecordedEvent::TcpDestroy);
            self.over(1006, String::new());
        }
    }

    /// The server ended the connection.
    fn on_server_end(&mut self) {
        self.over(1006, String::new());
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    client: TcpStream,
    server: S,
    early: &[u8],
    answer: &HttpHead,
    connection: ConnectionRecorder,
) {
    let tap = Mutex::new(ConnectionTap {
        connection,
        phase: Phase::Open,
        client: FrameSniffer::default(),
        server: FrameSniffer::default(),
    });
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = split(server);
    // These came with the request, and went on with it.
    tap.lock().on_client_bytes(early);
    tap.lock().on_server_bytes(&answer.rest);
    let up = async {
        let listen = |bytes: &[u8]| tap.lock().on_client_bytes(bytes);
        relay(&mut from_client, &mut to_server, listen).await;
        tap.lock().on_client_end();
    };
    let down = async {
        let listen = |bytes: &[u8]| tap.lock().on_server_bytes(bytes);
        if to_client.write_all(&answer.bytes()).await.is_ok() {
            relay(&mut from_server, &mut to_client, listen).await;
        }
        tap.lock().on_server_end();
    };
    tokio::pin!(up, down);
    tokio::select! {
        () = &mut up => {
            let over = tap.lock().phase == Phase::Over;
            if !over && timeout(LINGER, &mut down).await.is_err() {
                tap.lock().on_server_end();
            }
        }
        () = &mut down => {
            // The client has seen the end: what it does now is of no interest to anybody.
            let _ = timeout(LINGER, &mut up).await;
        }
    }
}

/// Passes bytes on until either side ends; the other is told. If it does not want them, they are only
/// listened to.
async fn relay(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut listen: impl FnMut(&[u8]),
) {
    let mut chunk = vec![0; CHUNK];
    let mut wanted = true;
    loop {
        match from.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                listen(&chunk[..count]);
                let sent: io::Result<()> = async {
                    to.write_all(&chunk[..count]).await?;
                    to.flush().await
                }
                .await;
                wanted = wanted && sent.is_ok();
            }
        }
    }
    if wanted {
        // If it is gone, it knows.
        let _ = to.shutdown().await;
    }
}
