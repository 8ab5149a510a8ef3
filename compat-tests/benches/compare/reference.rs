//! The bare relay: a lower bound for any server. It grants every upgrade with a constant response, pairs
//! connections by path, answers a connect, and passes sigver-20 contents to the other side: two system
//! calls and a few dozen bytes of work per message. Every client gets a heartbeat every five seconds. It
//! has no rooms, no limits and no checks. With a certificate it serves TLS through rustls with defaults.
//!
//! It runs in a process of its own: this program with a hidden argument.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::Ipv4Addr;
use std::path::Path;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use compat_tests::protobuf::put_varint;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Response to every upgrade, without its end.
const UPGRADE: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Accept: ";
/// First byte of a sigver-20 content: the field of the message.
const CONTENT: u8 = 0x12;
const CONNECT: u8 = 0x1a;
/// Sender field of a content, with the one id that is used.
const SENDER: [u8; 2] = [0x08, 0x01];

/// A sigver-20 heartbeat frame.
const HEARTBEAT: [u8; 4] = [0x82, 2, 0x08, 0x01];
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// Write half of a client, absent while it is in use.
#[derive(Default)]
struct Way {
    writer: RefCell<Option<Box<dyn AsyncWrite + Unpin>>>,
    here: Notify,
}

/// Two clients on a path.
#[derive(Default)]
struct Pair {
    ways: [Way; 2],
}

/// Clients that wait at a path, or a mark that two have met there.
type Waiting = Rc<RefCell<HashMap<String, Option<Rc<Pair>>>>>;

/// Serves until it is killed. Prints the gateway's start-up line.
pub fn serve(tls: Option<(&Path, &Path)>) -> Result<()> {
    let tls = tls.map(|(cert, key)| acceptor(cert, key)).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(async {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        // The gateway's backlog: in a storm, a client that is not accepted retries after a second.
        let listener = socket.listen(4096)?;
        println!("Signaling server is listening on {}", listener.local_addr()?);
        let waiting = Waiting::default();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (tls, waiting) = (tls.clone(), waiting.clone());
            spawn_local(async move {
                let _ = match tls {
                    None => {
                        let (reader, writer) = stream.into_split();
                        client(reader, writer, &waiting).await
                    }
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => {
                            let (reader, writer) = tokio::io::split(stream);
                            client(reader, writer, &waiting).await
                        }
                        Err(error) => Err(error.into()),
                    },
                };
            });
        }
    }))
}

fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn client(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin + 'static,
    waiting: &Waiting,
) -> Result<()> {
    let mut buffer = Vec::with_capacity(4096);
    let path = loop {
        if reader.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            buffer.drain(..end + 4);
            writer.write_all(format!("{UPGRADE}{}\r\n\r\n", accept(&head)?).as_bytes()).await?;
            break head.split(' ').nth(1).unwrap_or_default().to_owned();
        }
    };
    // A client on a path where two have met, as in a storm, stays alone.
    let (pair, me, first) = match waiting.borrow_mut().entry(path.clone()) {
        Entry::Vacant(free) => {
            let pair = Rc::<Pair>::default();
            free.insert(Some(pair.clone()));
            (pair, 0, true)
        }
        Entry::Occupied(mut taken) => match taken.insert(None) {
            Some(pair) => (pair, 1, false),
            None => (Rc::default(), 0, false),
        },
    };
    let done = relay(&mut reader, writer, buffer, &pair, me, first).await;
    for way in &pair.ways {
        way.writer.borrow_mut().take();
        way.here.notify_one();
    }
    if first {
        waiting.borrow_mut().remove(&path);
    }
    done
}

/// Relays from one client to the other, until either disconnects.
async fn relay(
    reader: &mut (impl AsyncRead + Unpin),
    writer: impl AsyncWrite + Unpin + 'static,
    mut buffer: Vec<u8>,
    pair: &Rc<Pair>,
    me: usize,
    first: bool,
) -> Result<()> {
    let mut own: Option<Box<dyn AsyncWrite + Unpin>> = Some(Box::new(writer));
    let mut out = Vec::new();
    loop {
        let mut at = 0;
        while let Some((message, end)) = frame(&mut buffer[at..])? {
            let message = &buffer[at..][message];
            match message.first() {
                Some(&CONTENT) => content(message, &mut out)?,
                Some(&CONNECT) => {
                    // From here on only the other client's task writes to this client.
                    if let Some(mut writer) = own.take() {
                        writer.write_all(&[0x82, 2, 0x20, u8::from(first)]).await?;
                        writer.flush().await?;
                        *pair.ways[me].writer.borrow_mut() = Some(writer);
                        pair.ways[me].here.notify_one();
                        spawn_local(send_heartbeats(Rc::downgrade(pair), me));
                    }
                }
                _ => {}
            }
            at += end;
        }
        buffer.drain(..at);
        if !out.is_empty() {
            let way = &pair.ways[1 - me];
            let writer = way.writer.borrow_mut().take();
            let mut writer = match writer {
                Some(writer) => writer,
                None => {
                    way.here.notified().await;
                    way.writer.borrow_mut().take().context("the other end is closed")?
                }
            };
            writer.write_all(&out).await?;
            writer.flush().await?;
            *way.writer.borrow_mut() = Some(writer);
            out.clear();
        }
        if reader.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// Sends heartbeats to a client until it disconnects.
async fn send_heartbeats(pair: Weak<Pair>, me: usize) {
    loop {
        sleep(HEARTBEAT_INTERVAL).await;
        let Some(pair) = pair.upgrade() else { return };
        let writer = pair.ways[me].writer.borrow_mut().take();
        // A client that the other writes to needs no heartbeat.
        let Some(mut writer) = writer else { return };
        if writer.write_all(&HEARTBEAT).await.is_err() || writer.flush().await.is_err() {
            return;
        }
        *pair.ways[me].writer.borrow_mut() = Some(writer);
    }
}

/// Parses a client's first frame, unmasked in place. Returns the range of its message, and its end.
fn frame(bytes: &mut [u8]) -> Result<Option<(std::ops::Range<usize>, usize)>> {
    let Some(&[first, short]) = bytes.first_chunk() else { return Ok(None) };
    let (head, length) = match short & 0x7f {
        126 => match bytes.get(2..4) {
            Some(long) => (4, usize::from(u16::from_be_bytes(long.try_into()?))),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10) {
            Some(long) => (10, usize::try_from(u64::from_be_bytes(long.try_into()?))?),
            None => return Ok(None),
        },
        short => (2, usize::from(short)),
    };
    let end = head + 4 + length;
    if bytes.len() < end {
        return Ok(None);
    }
    if first == 0x88 {
        bail!("closed");
    }
    let (mask, message) = bytes[head..end].split_at_mut(4);
    // As wide as the gateway's unmasking, so that this is a lower bound for large messages, too.
    let (wide, rest) = message.as_chunks_mut::<32>();
    wide.iter_mut().for_each(|wide| unmask(wide, mask));
    unmask(rest, mask);
    Ok(Some((head + 4..end, end)))
}

fn unmask(bytes: &mut [u8], mask: &[u8]) {
    bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= mask[at % 4]);
}

/// Writes the frame for a content's receiver: sender in place of recipient.
fn content(message: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut at = 1;
    skip_varint(message, &mut at)?;
    if message.get(at) == Some(&0x10) {
        at += 1;
        skip_varint(message, &mut at)?;
    }
    let rest = &message[at..];
    let inner = SENDER.len() + rest.len();
    let mut head = vec![CONTENT];
    put_varint(&mut head, inner as u64);
    head.extend(SENDER);
    let length = head.len() + rest.len();
    out.push(0x82);
    match length {
        ..126 => out.push(length as u8),
        126..=0xffff => {
            out.push(126);
            out.extend((length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(head);
    out.extend(rest);
    Ok(())
}

fn skip_varint(bytes: &[u8], at: &mut usize) -> Result<()> {
    while *bytes.get(*at).context("cut short")? & 0x80 != 0 {
        *at += 1;
    }
    *at += 1;
    Ok(())
}

/// Returns the accept value for the key in a request head.
fn accept(head: &str) -> Result<String> {
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    Ok(derive_accept_key(key.context("no upgrade")?.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_recipient_becomes_sender() {
        const MASK: [u8; 4] = [1, 2, 3, 4];
        let message = [CONTENT, 6, 0x10, 0x05, 0x22, 2, 7, 7];
        let mut masked = vec![0x82, 0x88];
        masked.extend(MASK);
        masked.extend(message.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        assert!(frame(&mut masked[..9]).unwrap().is_none());
        let (at, end) = frame(&mut masked).unwrap().unwrap();
        assert_eq!((&masked[at], end), (&message[..], 14));
        let mut out = Vec::new();
        content(&message, &mut out).unwrap();
        assert_eq!(out, [0x82, 8, CONTENT, 6, 0x08, 0x01, 0x22, 2, 7, 7]);
    }

    #[test]
    fn upgrade_response_matches_rfc_6455() {
        let head = "GET /x HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        assert_eq!(accept(head).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
