//! TLS for a server under attack: its certificate, clients of it, and handshakes and records that never end.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use compat_tests::tls::connector;
use compat_tests::ws::{frame, upgrade_request};
use futures_util::{StreamExt as _, stream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConnection;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::attacks::{Ends, Target, spawn};
use sigver::tools::bench::frame::BINARY;

/// End of a client that the server did not let in.
const NOT_OPEN: &str = "no WebSocket";

/// The certificate of the server and its key, in PEM, and what connects to it.
pub(crate) struct Certificate {
    pub(crate) key: String,
    pub(crate) cert: String,
    pub(crate) connector: TlsConnector,
}

impl Certificate {
    pub(crate) fn new() -> Result<Certificate> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let cert = made.cert.pem();
        Ok(Certificate { key: made.signing_key.serialize_pem(), connector: connector(&cert)?, cert })
    }
}

fn name() -> Result<ServerName<'static>> {
    Ok(ServerName::try_from("localhost")?)
}

/// Returns an address whose connections are those of TLS to the server: for clients that speak none.
pub(crate) async fn forward(server: SocketAddr, connector: TlsConnector) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let connector = connector.clone();
            tokio::spawn(async move {
                let far = TcpStream::connect(server).await?;
                near.set_nodelay(true)?;
                far.set_nodelay(true)?;
                let mut far = connector.connect(name()?, far).await?;
                copy_bidirectional(&mut near, &mut far).await?;
                Ok::<_, anyhow::Error>(())
            });
        }
    });
    Ok(address)
}

/// Starts clients that begin a handshake and do not end it: one half sends a part of the first message, the
/// other half does not answer the server's. Flooders make whole handshakes, one after the other.
pub(crate) async fn start(target: &Target, connector: &TlsConnector, ends: &mut Ends) -> Result<()> {
    let mut hello = Vec::new();
    ClientConnection::new(connector.config().clone(), name()?)?.write_tls(&mut hello)?;
    for number in 0..target.crowd {
        let sent = if number % 2 == 0 { hello.len() / 2 } else { hello.len() };
        let (hello, target) = (hello[..sent].to_vec(), target.clone());
        let mut stream = TcpStream::connect(target.server).await?;
        spawn(ends, async move {
            stream.write_all(&hello).await?;
            until_end(&mut stream, &target).await
        });
    }
    for _ in 0..target.flooders {
        let (connector, target) = (connector.clone(), target.clone());
        spawn(ends, async move {
            while !target.stopped() {
                connector.connect(name()?, TcpStream::connect(target.server).await?).await?;
            }
            Ok("connected again and again".to_owned())
        });
    }
    Ok(())
}

/// Most handshakes of the attackers at the same time.
const HANDSHAKES: usize = 16;

/// Opens WebSockets, and then has all of them begin a record of the greatest length that does not end. Those
/// that are refused are not replaced.
pub(crate) async fn begin_records(target: &Target, connector: &TlsConnector, ends: &mut Ends) {
    let record = [&[0x17, 3, 3, 0x41, 0][..], &[7; 16_600]].concat();
    for opened in open_crowd(target, connector).await {
        let (record, target) = (record.clone(), target.clone());
        spawn(ends, async move {
            let Ok(mut opened) = opened else { return Ok(NOT_OPEN.to_owned()) };
            let below = opened.get_mut().0;
            match below.write_all(&record).await {
                Ok(()) => until_end(below, &target).await,
                Err(_) => Ok("disconnected".to_owned()),
            }
        });
    }
}

/// Opens WebSockets, and then has all of them begin a message of which each holds as much as clients may when
/// the memory of the server is almost used up.
pub(crate) async fn begin_messages(target: &Target, connector: &TlsConnector, ends: &mut Ends) {
    let fragment = frame(BINARY & 0x7f, &[7; 3_500]);
    for opened in open_crowd(target, connector).await {
        let (fragment, target) = (fragment.clone(), target.clone());
        spawn(ends, async move {
            let Ok(mut opened) = opened else { return Ok(NOT_OPEN.to_owned()) };
            match opened.write_all(&fragment).await {
                Ok(()) => until_end(&mut opened, &target).await,
                Err(_) => Ok("disconnected".to_owned()),
            }
        });
    }
}

async fn open_crowd(target: &Target, connector: &TlsConnector) -> Vec<Result<TlsStream<TcpStream>>> {
    let open = stream::iter(0..target.crowd).map(|_| open_websocket(target.server, connector));
    open.buffer_unordered(HANDSHAKES).collect().await
}

/// Reads up to the end of a connection, or of the attack.
async fn until_end(stream: &mut (impl AsyncRead + Unpin), target: &Target) -> Result<String> {
    let mut buffer = [0; 4096];
    while !target.stopped() {
        match timeout(Duration::from_millis(100), stream.read(&mut buffer)).await {
            Ok(Ok(1..)) | Err(_) => {}
            Ok(_) => return Ok("disconnected".to_owned()),
        }
    }
    Ok("nothing".to_owned())
}

async fn open_websocket(server: SocketAddr, connector: &TlsConnector) -> Result<TlsStream<TcpStream>> {
    let mut stream = connector.connect(name()?, TcpStream::connect(server).await?).await?;
    stream.write_all(upgrade_request("/record").as_bytes()).await?;
    let mut response = [0; 12];
    stream.read_exact(&mut response).await?;
    ensure!(response == *b"HTTP/1.1 101", "no WebSocket");
    Ok(stream)
}
