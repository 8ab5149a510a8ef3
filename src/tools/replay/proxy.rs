//! A recording proxy: forwards every byte unchanged, and records the messages on the way.
//!
//! Only the server's address in a request is replaced, and extensions are removed (compressed frames could
//! not be read). Connections without an upgrade are forwarded and not recorded. A line is written before its
//! bytes are forwarded, so that the order of the lines is one in which the events can have happened.

use std::future::Future;
use std::io;
use std::string::FromUtf8Error;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::frame_sniffer::{FrameSniffer, SniffedFrame};
use super::recorder::{ConnectionRecorder, Recorder};
use super::spoken_dialect::SpokenDialect;
use super::transcript::{ConnectRequest, FrameKind, RecordedEvent, RecordedFrame};
use crate::output;
use crate::tools::dial::{ConnectError, Target, error_chain};

/// Longest head of a request or an answer, in bytes, and its timeout.
const MAX_HEAD: usize = 64 * 1024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for one side to finish after the other has ended: a server answers a close frame.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// Size of a read, in bytes.
const CHUNK_SIZE: usize = 16 * 1024;
/// Pause after a failed accept.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// An error that ends a connection.
#[derive(Debug, Error)]
enum ProxyError {
    #[error("cannot read the request of a client")]
    Request(#[source] HttpHeadError),
    #[error("malformed request line: {0:?}")]
    RequestLine(String),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("cannot read the response of {server}")]
    Response { server: String, source: HttpHeadError },
    #[error("cannot forward a connection")]
    Io(#[from] io::Error),
}

/// An error in the head of an HTTP request or response.
#[derive(Debug, Error)]
enum HttpHeadError {
    #[error("the connection ended within the HTTP head")]
    Incomplete,
    #[error("the HTTP head has more than {MAX_HEAD} bytes")]
    TooLong,
    #[error("the HTTP head is not UTF-8")]
    NotUtf8(#[from] FromUtf8Error),
    #[error("no HTTP head arrived within {} seconds", HEAD_TIMEOUT.as_secs())]
    Timeout,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Forwards connections to `target` and records them, until `stop`.
pub(crate) async fn run(
    listener: TcpListener,
    target: Target,
    recorder: Arc<Recorder>,
    stop: impl Future<Output = ()>,
) {
    let accept = async {
        loop {
            let Ok((client, _)) = listener.accept().await else {
                sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            };
            let (target, recorder) = (target.clone(), Arc::clone(&recorder));
            tokio::spawn(async move {
                if let Err(error) = forward_connection(client, &target, &recorder).await {
                    output::print_error(error_chain(&error));
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
    async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<HttpHead, HttpHeadError> {
        let mut bytes = Vec::new();
        let end = loop {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Err(HttpHeadError::Incomplete);
            }
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if bytes.len() > MAX_HEAD {
                return Err(HttpHeadError::TooLong);
            }
        };
        let rest = bytes.split_off(end + 4);
        bytes.truncate(end);
        let text = String::from_utf8(bytes)?;
        let (first, headers) = text.split_once("\r\n").unwrap_or((&text, ""));
        let headers = headers.split("\r\n").filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        Ok(HttpHead { first: first.to_owned(), headers, rest })
    }

    async fn read_in_time(stream: &mut (impl AsyncRead + Unpin)) -> Result<HttpHead, HttpHeadError> {
        timeout(HEAD_TIMEOUT, HttpHead::read(stream)).await.unwrap_or(Err(HttpHeadError::Timeout))
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

/// Forwards one connection, from its request to its end.
async fn forward_connection(
    mut client: TcpStream,
    target: &Target,
    recorder: &Arc<Recorder>,
) -> Result<(), ProxyError> {
    client.set_nodelay(true)?;
    let mut request = HttpHead::read_in_time(&mut client).await.map_err(ProxyError::Request)?;
    let mut words = request.first.split(' ');
    let (Some(method), Some(path), Some(version)) = (words.next(), words.next(), words.next()) else {
        return Err(ProxyError::RequestLine(request.first));
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
        // A further request on the same connection would be forwarded unchanged.
        request.set("Connection", Some("close"));
    }
    let connection = websocket.then(|| recorder.connection(connect));
    let mut server = match target.dial().await {
        Ok(server) => server,
        Err(error) => {
            if let Some(connection) = connection {
                connection.note(&error_chain(&error));
            }
            let answer = b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            // A client that has disconnected needs no answer.
            let _ = client.write_all(answer).await;
            return Err(error.into());
        }
    };
    server.write_all(&request.bytes()).await?;
    let Some(connection) = connection else {
        copy_bidirectional(&mut client, &mut server).await?;
        return Ok(());
    };
    let answer = match HttpHead::read_in_time(&mut server).await {
        Ok(answer) => answer,
        Err(error) => {
            connection.note(&error_chain(&error));
            return Err(ProxyError::Response { server: target.to_string(), source: error });
        }
    };
    if answer.first.split(' ').nth(1) != Some("101") {
        connection.note(&format!("refused: {}", answer.first));
        drop(connection);
        client.write_all(&answer.bytes()).await?;
        // The rest of the answer; either side may end first.
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
    /// The client received the end, or has disconnected.
    Over,
}

/// The recording of one connection.
struct ConnectionTap {
    connection: ConnectionRecorder,
    phase: Phase,
    /// Read off the frames so far, unless the user named the release.
    dialect: SpokenDialect,
    client: FrameSniffer,
    server: FrameSniffer,
}

impl ConnectionTap {
    fn on_client_bytes(&mut self, bytes: &[u8]) {
        for passed in self.client.feed(bytes) {
            match passed {
                _ if self.phase > Phase::Open => {}
                // A pong answers a ping, which a client that is played does without the script.
                SniffedFrame::Frame(payload) if payload.op == FrameKind::Pong => {}
                SniffedFrame::Frame(frame) => {
                    let frame = self.with_description(true, frame);
                    self.connection.write(RecordedEvent::Send(frame));
                }
                SniffedFrame::Close { code, reason } => {
                    self.phase = Phase::Closing;
                    self.connection.write(RecordedEvent::SendClose { code, reason });
                }
                other => self.note_lost("sent", &other),
            }
        }
    }

    fn on_server_bytes(&mut self, bytes: &[u8]) {
        for passed in self.server.feed(bytes) {
            match passed {
                _ if self.phase == Phase::Over => {}
                SniffedFrame::Frame(payload) if payload.op == FrameKind::Ping => {}
                SniffedFrame::Frame(frame) => {
                    let frame = self.with_description(false, frame);
                    self.connection.write(RecordedEvent::Recv(frame));
                }
                SniffedFrame::Close { code, reason } => self.end(code.unwrap_or(1005), reason),
                other => self.note_lost("received", &other),
            }
        }
    }

    /// Returns the frame with a description of its message.
    fn with_description(&mut self, sent: bool, frame: RecordedFrame) -> RecordedFrame {
        self.dialect.observe(sent, &frame);
        let text = match frame.op {
            FrameKind::Binary => self.dialect.describe(&frame.bytes, |id| id.to_string()),
            FrameKind::Text | FrameKind::Ping | FrameKind::Pong => None,
        };
        RecordedFrame { msg: text, ..frame }
    }

    fn note_lost(&self, how: &str, what: &SniffedFrame) {
        match what {
            SniffedFrame::TooLong => {
                self.connection.note(&format!("{how} a message that is too long to be recorded"))
            }
            SniffedFrame::Unparseable(why) => {
                self.connection.note(&format!("{how} {why}; the rest is not recorded"))
            }
            _ => {}
        }
    }

    fn end(&mut self, code: u16, reason: String) {
        if self.phase != Phase::Over {
            self.phase = Phase::Over;
            self.connection.write(RecordedEvent::RecvClose { code, reason });
        }
    }

    /// Records that the client ended its connection.
    fn on_client_end(&mut self) {
        if self.phase == Phase::Open {
            self.connection.write(RecordedEvent::TcpDestroy);
            self.end(1006, String::new());
        }
    }

    /// Records that the server ended the connection.
    fn on_server_end(&mut self) {
        self.end(1006, String::new());
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
        dialect: SpokenDialect::from_version(connection.version()),
        connection,
        phase: Phase::Open,
        client: FrameSniffer::default(),
        server: FrameSniffer::default(),
    });
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = split(server);
    // These bytes arrived with the request, and were forwarded with it.
    tap.lock().on_client_bytes(early);
    tap.lock().on_server_bytes(&answer.rest);
    let up = async {
        let record = |bytes: &[u8]| tap.lock().on_client_bytes(bytes);
        forward(&mut from_client, &mut to_server, record).await;
        tap.lock().on_client_end();
    };
    let down = async {
        let record = |bytes: &[u8]| tap.lock().on_server_bytes(bytes);
        if to_client.write_all(&answer.bytes()).await.is_ok() {
            forward(&mut from_server, &mut to_client, record).await;
        }
        tap.lock().on_server_end();
    };
    tokio::pin!(up, down);
    tokio::select! {
        () = &mut up => {
            let over = tap.lock().phase == Phase::Over;
            if !over && timeout(LINGER_TIMEOUT, &mut down).await.is_err() {
                tap.lock().on_server_end();
            }
        }
        () = &mut down => {
            // The client has received the end: its further frames belong to no conversation.
            let _ = timeout(LINGER_TIMEOUT, &mut up).await;
        }
    }
}

/// Forwards bytes until either side ends, and then shuts the other down. After a failed write, bytes are
/// only recorded.
async fn forward(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut record: impl FnMut(&[u8]),
) {
    let mut chunk = vec![0; CHUNK_SIZE];
    let mut is_writable = true;
    loop {
        match from.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                record(&chunk[..count]);
                let sent: io::Result<()> = async {
                    to.write_all(&chunk[..count]).await?;
                    to.flush().await
                }
                .await;
                is_writable = is_writable && sent.is_ok();
            }
        }
    }
    if is_writable {
        // A peer that has disconnected needs no shutdown.
        let _ = to.shutdown().await;
    }
}
