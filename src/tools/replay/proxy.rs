//! In front of a server: every byte goes on as it came, and what it meant is recorded on its way.
//!
//! Of a request only the address of the server, and that there be no extensions (compressed frames could not be read),
//! is written anew. What is no WebSocket is passed on and not recorded. A line is written before what it tells of goes
//! on, so that the lines are in an order in which things can have happened.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::frame_sniffer::{Reader, SniffedFrame};
use super::recorder::{ConnectionRecorder, Recorder};
use super::transcript::{Connect, Event, Op};
use crate::tools::dial::Target;

/// How long the head of a request or an answer may be, in bytes, and how long it may take.
const MAX_HEAD: usize = 64 * 1024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one side is listened to after the other has ended: a server answers a close frame after all.
const LINGER: Duration = Duration::from_secs(2);
/// What is read at a time, in bytes.
const CHUNK: usize = 16 * 1024;
/// How long to wait when no connection can be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Passes connections on to `target` and records them, until `stop`.
pub async fn run(listener: TcpListener, target: Target, tape: Arc<Recorder>, stop: impl Future<Output = ()>) {
    let accept = async {
        loop {
            let Ok((client, _)) = listener.accept().await else {
                sleep(PAUSE).await;
                continue;
            };
            let (target, tape) = (target.clone(), Arc::clone(&tape));
            tokio::spawn(async move {
                if let Err(error) = pass(client, &target, &tape).await {
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
struct Head {
    first: String,
    headers: Vec<(String, String)>,
    /// What was read beyond it.
    rest: Vec<u8>,
}

impl Head {
    async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Head> {
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
        Ok(Head { first: first.to_owned(), headers, rest })
    }

    fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: &str, value: Option<&str>) {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self.headers.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    /// As it is sent, with what was read beyond it.
    fn bytes(&self) -> Vec<u8> {
        let headers: String =
            self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        [format!("{}\r\n{headers}\r\n", self.first).as_bytes(), &self.rest].concat()
    }
}

async fn in_time<T>(head: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(HEAD_TIMEOUT, head).await.context("no head of HTTP came in time")?
}

/// One connection, from its request to its end.
async fn pass(mut client: TcpStream, target: &Target, tape: &Arc<Recorder>) -> Result<()> {
    client.set_nodelay(true)?;
    let mut request = in_time(Head::read(&mut client)).await.context("a client")?;
    let mut words = request.first.split(' ');
    let (Some(method), Some(path), Some(version)) = (words.next(), words.next(), words.next()) else {
        bail!("a client: no request of HTTP: {:?}", request.first);
    };
    let websocket = request.get("upgrade").is_some_and(|to| to.eq_ignore_ascii_case("websocket"));
    let connect = Connect {
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
    let track = websocket.then(|| tape.track(connect));
    let mut server = match target.dial().await.map_err(anyhow::Error::from) {
        Ok(server) => server,
        Err(error) => {
            if let Some(track) = track {
                track.note(&format!("{error:#}"));
            }
            let answer = b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            // If the client is gone, it needs no answer.
            let _ = client.write_all(answer).await;
            return Err(error);
        }
    };
    server.write_all(&request.bytes()).await?;
    let Some(track) = track else {
        copy_bidirectional(&mut client, &mut server).await?;
        return Ok(());
    };
    let answer = match in_time(Head::read(&mut server)).await {
        Ok(answer) => answer,
        Err(error) => {
            track.note(&format!("{error:#}"));
            return Err(error.context(target.to_string()));
        }
    };
    if answer.first.split(' ').nth(1) != Some("101") {
        track.note(&format!("refused: {}", answer.first));
        drop(track);
        client.write_all(&answer.bytes()).await?;
        // What is left of the answer; either may end first.
        let _ = copy_bidirectional(&mut client, &mut server).await;
        return Ok(());
    }
    track.write(Event::Open);
    let early = request.rest.clone();
    converse(client, server, &early, &answer, track).await;
    Ok(())
}

/// How far a conversation is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Stage {
    Open,
    /// The client sent a close frame.
    Closing,
    /// The client saw the end, or is gone.
    Over,
}

/// What is recorded of one connection.
struct ConnectionTap {
    track: ConnectionRecorder,
    stage: Stage,
    client: Reader,
    server: Reader,
}

impl ConnectionTap {
    fn client_says(&mut self, bytes: &[u8]) {
        for passed in self.client.feed(bytes) {
            match passed {
                _ if self.stage > Stage::Open => {}
                // It only answers, as any client does by itself.
                SniffedFrame::Frame(payload) if payload.op == Op::Pong => {}
                SniffedFrame::Frame(payload) => self.track.write(Event::Send(payload)),
                SniffedFrame::Close { code, reason } => {
                    self.stage = Stage::Closing;
                    self.track.write(Event::SendClose { code, reason });
                }
                other => self.lost("sent", &other),
            }
        }
    }

    fn server_says(&mut self, bytes: &[u8]) {
        for passed in self.server.feed(bytes) {
            match passed {
                _ if self.stage == Stage::Over => {}
                SniffedFrame::Frame(payload) if payload.op == Op::Ping => {}
                SniffedFrame::Frame(payload) => self.track.write(Event::Recv(payload)),
                SniffedFrame::Close { code, reason } => self.over(code.unwrap_or(1005), reason),
                other => self.lost("received", &other),
            }
        }
    }

    fn lost(&self, how: &str, what: &SniffedFrame) {
        match what {
            SniffedFrame::TooLong => {
                self.track.note(&format!("{how} a message that is too long to be recorded"))
            }
            SniffedFrame::Garbled(why) => {
                self.track.note(&format!("{how} {why}; nothing more of it is recorded"))
            }
            _ => {}
        }
    }

    fn over(&mut self, code: u16, reason: String) {
        if self.stage != Stage::Over {
            self.stage = Stage::Over;
            self.track.write(Event::RecvClose { code, reason });
        }
    }

    /// The client ended its connection.
    fn client_left(&mut self) {
        if self.stage == Stage::Open {
            self.track.write(Event::TcpDestroy);
            self.over(1006, String::new());
        }
    }

    /// The server ended the connection.
    fn server_left(&mut self) {
        self.over(1006, String::new());
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    client: TcpStream,
    server: S,
    early: &[u8],
    answer: &Head,
    track: ConnectionRecorder,
) {
    let ear = Mutex::new(ConnectionTap {
        track,
        stage: Stage::Open,
        client: Reader::default(),
        server: Reader::default(),
    });
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = split(server);
    // These came with the request, and went on with it.
    ear.lock().client_says(early);
    ear.lock().server_says(&answer.rest);
    let up = async {
        let listen = |bytes: &[u8]| ear.lock().client_says(bytes);
        relay(&mut from_client, &mut to_server, listen).await;
        ear.lock().client_left();
    };
    let down = async {
        let listen = |bytes: &[u8]| ear.lock().server_says(bytes);
        if to_client.write_all(&answer.bytes()).await.is_ok() {
            relay(&mut from_server, &mut to_client, listen).await;
        }
        ear.lock().server_left();
    };
    tokio::pin!(up, down);
    tokio::select! {
        () = &mut up => {
            let over = ear.lock().stage == Stage::Over;
            if !over && timeout(LINGER, &mut down).await.is_err() {
                ear.lock().server_left();
            }
        }
        () = &mut down => {
            // The client has seen the end: what it does now is of no interest to anybody.
            let _ = timeout(LINGER, &mut up).await;
        }
    }
}

/// Passes bytes on until either side ends; the other is told. If it does not want them, they are only listened to.
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
