//! A gateway in this process, and clients of signaller that assert what they receive.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use sigver::Config;
use sigver::config::PipeLimits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::common::TestGateway;

/// Longer than anything takes that happens at all.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Long enough for what should not happen to happen.
pub const NOTHING: Duration = Duration::from_millis(150);

/// A gateway with helpers for the paths of signallerd.
pub struct Server(TestGateway);

impl Server {
    /// Starts a gateway that serves signaller alone with its defaults, as signallerd does.
    pub async fn new() -> Self {
        Server::with_limits(PipeLimits::default()).await
    }

    /// The same with other limits.
    pub async fn with_limits(limits: PipeLimits) -> Self {
        Server::configured(|config| config.signaller.limits = limits).await
    }

    /// The same with other settings.
    pub async fn configured(configure: impl FnOnce(&mut Config)) -> Self {
        let gateway = TestGateway::configured(|config| {
            config.protocol = "signaller".parse().unwrap();
            configure(config);
        });
        Server(gateway.await)
    }

    /// Starts a gateway for a list of protocols.
    pub async fn serving(protocol: &str) -> Self {
        Server(TestGateway::start(protocol).await)
    }

    /// Begins the shutdown, and returns the task that ends with it.
    pub fn begin_stop(self) -> JoinHandle<()> {
        self.0.begin_stop()
    }

    pub async fn try_open(&self, path: &str) -> Result<Client, (u16, String)> {
        let stream = TcpStream::connect(self.0.address).await.unwrap();
        let url = format!("ws://{}{path}", self.0.address);
        match tokio_tungstenite::client_async(url, stream).await {
            Ok((socket, _)) => Ok(Client(socket)),
            Err(Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                Err((response.status().as_u16(), String::from_utf8(body).unwrap()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn open(&self, path: &str) -> Client {
        self.try_open(path).await.unwrap()
    }

    pub async fn pair(&self) -> (Client, Client) {
        (self.open("/listen/abc").await, self.open("/connect/abc").await)
    }

    /// Opens as soon as the server lets us; what is tested is that it does so long before a deadline would.
    pub async fn open_soon(&self, path: &str) -> Client {
        let started = Instant::now();
        loop {
            match self.try_open(path).await {
                Ok(client) => return client,
                Err((409, _)) if started.elapsed() < RESPONSE_TIMEOUT => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(refused) => panic!("{refused:?}"),
            }
        }
    }

    pub async fn refused(&self, path: &str) -> (u16, String) {
        match self.try_open(path).await {
            Ok(_) => panic!("{path} was opened"),
            Err(refused) => refused,
        }
    }

    /// Sends a request written by hand. Returns the response without its `Date`: status line, sorted
    /// headers, body.
    pub async fn raw(&self, request: &str) -> (String, Vec<String>, String) {
        let mut stream = TcpStream::connect(self.0.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = async {
            let mut buffer = [0; 1024];
            loop {
                match stream.read(&mut buffer).await.unwrap() {
                    0 => break,
                    count => answer.extend_from_slice(&buffer[..count]),
                }
            }
        };
        // "still open", as in the recording, is one of the possible ends.
        let _ = timeout(NOTHING, read).await;
        // After an upgrade there may be frames behind the head.
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().to_owned();
        let mut headers: Vec<_> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| format!("{}: {value}", name.to_lowercase()))
            .filter(|line| !line.starts_with("date: "))
            .collect();
        headers.sort();
        (status, headers, body.to_owned())
    }
}

pub struct Client(WebSocketStream<TcpStream>);

impl Client {
    pub async fn send(&mut self, message: impl Into<Message>) {
        self.0.send(message.into()).await.unwrap();
    }

    pub async fn text(&mut self, text: &str) {
        self.send(Message::text(text)).await;
    }

    pub async fn close(&mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        self.send(Message::Close(Some(frame))).await;
    }

    pub async fn next(&mut self) -> Message {
        timeout(RESPONSE_TIMEOUT, self.0.next()).await.unwrap().unwrap().unwrap()
    }

    pub async fn gets(&mut self, text: &str) {
        assert_eq!(self.next().await, Message::text(text));
    }

    pub async fn gets_bytes(&mut self, bytes: &'static [u8]) {
        assert_eq!(self.next().await, Message::binary(bytes));
    }

    /// The next thing is this close frame, and then the end.
    pub async fn closed(&mut self, code: u16, reason: &str) {
        match self.next().await {
            Message::Close(Some(close)) => {
                assert_eq!((u16::from(close.code), close.reason.as_str()), (code, reason));
            }
            other => panic!("{other:?} instead of {code} {reason}"),
        }
        let end = timeout(RESPONSE_TIMEOUT, self.0.next()).await.unwrap();
        assert!(!matches!(end, Some(Ok(_))), "{end:?} after the close");
    }

    /// The next thing is a close frame with this code, whatever its reason.
    pub async fn closed_with(&mut self, code: u16) {
        match self.next().await {
            Message::Close(Some(close)) => assert_eq!(u16::from(close.code), code),
            other => panic!("{other:?} instead of {code}"),
        }
    }

    pub async fn gets_nothing(&mut self) {
        let got = timeout(NOTHING, self.0.next()).await;
        assert!(got.is_err(), "{got:?}");
    }

    /// The end of TCP without a close frame.
    pub fn vanish(self) {
        drop(self);
    }
}
