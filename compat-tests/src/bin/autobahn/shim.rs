//! The way from kosoku, which tests servers that echo, to a pipe.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Longest head of a request, in bytes.
const MAX_HEAD: usize = 16 * 1024;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// The server, or the proxy in front of it.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<TlsConnector>,
}

impl Target {
    async fn connect(&self) -> Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some(tls) => Box::new(tls.connect(ServerName::try_from("localhost")?, stream).await?),
        })
    }
}

/// Accepts kosoku's connections, each of which gets a pipe of its own. Returns the address.
pub(crate) async fn spawn(target: Target) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let next = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (target, next) = (target.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                // The report of a case has what kosoku saw of it, but not why no pipe was opened.
                if let Err(error) = pipe(stream, &target, next.fetch_add(1, Ordering::Relaxed)).await {
                    eprintln!("no pipe: {error:#}");
                }
            });
        }
    });
    Ok(address)
}

async fn pipe(mut client: TcpStream, target: &Target, number: usize) -> Result<()> {
    client.set_nodelay(true)?;
    let (head, rest) = read_head(&mut client).await?;
    let echoing = echo(target.connect().await?, format!("ws://localhost/listen/case_{number}")).await?;
    let mut server = target.connect().await?;
    let (_, headers) = head.split_once("\r\n").context("no request line")?;
    server.write_all(format!("GET /connect/case_{number} HTTP/1.1\r\n{headers}").as_bytes()).await?;
    server.write_all(&rest).await?;
    // Either end may reset the connection, as some cases want.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    drop((client, server));
    Ok(echoing.await?)
}

/// Reads the head of a request. Returns it with what follows.
async fn read_head(client: &mut TcpStream) -> Result<(String, Vec<u8>)> {
    let mut received = Vec::new();
    loop {
        if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = received.split_off(end + 4);
            return Ok((String::from_utf8(received)?, rest));
        }
        if received.len() > MAX_HEAD || client.read_buf(&mut received).await? == 0 {
            bail!("no head");
        }
    }
}

/// Opens a WebSocket, and echoes its messages from then on.
async fn echo(stream: Box<dyn Stream>, url: String) -> Result<tokio::task::JoinHandle<()>> {
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    let (mut socket, _) = tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await?;
    Ok(tokio::spawn(async move {
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                break;
            }
        }
    }))
}
