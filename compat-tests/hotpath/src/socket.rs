//! The same two clients, each behind a WebSocket and the task of a connection: all that is done per message but the
//! kernel's part. The network is memory, and there is one thread.

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use sigver::config::{DEFAULT_MAX_MESSAGE, DEFAULT_MAX_PENDING, LogIp};
use sigver::protocol::dialect::{Dialect, Family, UpgradeRequest};
use sigver::server::conn::{ClientEndpoint, ConnectionLimits, Shared, run};
use sigver::server::transport::ws::Socket;
use sigver::tools::bench::frame;
use sigver::tools::client::dialects::{self, Client, ClientAction, ClientEvent, Id, Role, path};
use sigver::tools::client::protocol::Protocol;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio::runtime::{Builder, Runtime};

use crate::pair::{KEY, Mode};
use crate::words::{self, Words};

/// How often all others have their turn before nothing more is expected of them.
const TURNS: usize = 32;

/// A client and its end of the line.
struct Speaker {
    client: Box<dyn Client>,
    stream: DuplexStream,
    heard: Vec<ClientEvent>,
}

impl Speaker {
    async fn open(shared: &Arc<Shared>, dialect: Dialect, role: Role) -> Result<Self> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let socket = Socket::new(theirs, Bytes::new(), DEFAULT_MAX_MESSAGE);
        let tongue = Protocol::Sigver(dialect);
        let upgrade = UpgradeRequest { path: path(tongue, role, KEY), favored: false };
        let policy = |shared: &Shared| Arc::clone(&shared.policy);
        let endpoint = ClientEndpoint { remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), tls: false };
        tokio::spawn(run(socket, endpoint, upgrade, policy, Arc::clone(shared), ()));
        let client = dialects::client(tongue, role, KEY);
        let mut speaker = Speaker { client, stream: ours, heard: Vec::new() };
        let first = words::first(dialect).filter(|_| role == Role::Joiner);
        let acts = speaker.client.opened(first.as_ref());
        speaker.act(acts).await?;
        while speaker.listen().await? > 0 {}
        Ok(speaker)
    }

    async fn act(&mut self, acts: Vec<ClientAction>) -> Result<()> {
        for act in acts {
            match act {
                ClientAction::Send(frame) => self.stream.write_all(&masked(&frame)).await?,
                ClientAction::Hear(ClientEvent::Strange(what)) => bail!("a client hears {what}"),
                ClientAction::Hear(heard) => self.heard.push(heard),
                ClientAction::Close(code) => bail!("a client closes with {code:?}"),
            }
        }
        Ok(())
    }

    /// Hears all that has come: how many bytes.
    async fn listen(&mut self) -> Result<usize> {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        let mut buffer = vec![0; 64 * 1024];
        let count = poll_fn(|context| {
            let mut filled = ReadBuf::new(&mut buffer);
            let read = Pin::new(&mut self.stream).poll_read(context, &mut filled);
            // Pending is an answer, too: there is nothing.
            Poll::Ready(match read {
                Poll::Ready(read) => read.map(|()| filled.filled().len()),
                Poll::Pending => Ok(0),
            })
        })
        .await?;
        let mut rest = &buffer[..count];
        while let Some((head, end)) = frame::bounds(rest) {
            let (first, payload) = (rest[0], &rest[head..end]);
            rest = &rest[end..];
            let acts = match first {
                frame::TEXT => self.client.text(std::str::from_utf8(payload)?),
                frame::BINARY => self.client.binary(payload),
                frame::CLOSE => bail!("a client is closed with {payload:?}"),
                _ => Vec::new(),
            };
            self.act(acts).await?;
        }
        ensure!(rest.is_empty(), "a part of a frame");
        Ok(count)
    }
}

/// A joiner and its member, connected to one another.
pub struct Line {
    runtime: Runtime,
    joiner: DuplexStream,
    member: DuplexStream,
    up: Vec<u8>,
    /// As long as what the member hears of it.
    heard: Vec<u8>,
}

impl Line {
    /// A member and a joiner that have spoken to one another.
    ///
    /// # Errors
    /// They cannot.
    pub fn meet(dialect: Dialect) -> Result<Self> {
        // Those that wait for our first word wait for less of it where nothing else is spoken.
        let silent = dialect.family() == Family::ProtobufV1;
        let mode = if silent { Mode::Pinned } else { Mode::Auto };
        let limits =
            ConnectionLimits { max_pending: DEFAULT_MAX_PENDING, ping_after: Duration::from_secs(3600) };
        let shared = Shared::new((*mode.policy(dialect)?).clone(), limits, LogIp::Off);
        // The timers do not run: no client is sent a ping, however slow the machine.
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let (joiner, member, up, length) = runtime.block_on(async {
            let mut member = Speaker::open(&shared, dialect, Role::Member).await?;
            let mut joiner = Speaker::open(&shared, dialect, Role::Joiner).await?;
            while member.listen().await? + joiner.listen().await? > 0 {}
            let up = words::say(dialect, &mut *joiner.client, Role::Joiner, None, Words::Candidate);
            let up = masked(&up.context("a joiner has no words")?);
            let mut length = 0;
            for _ in 0..3 {
                joiner.stream.write_all(&up).await?;
                length = member.listen().await?;
                ensure!(length > 0, "a member hears nothing");
                let from: Option<Id> = member.heard.iter().rev().find_map(|heard| match heard {
                    ClientEvent::TestMessage { from, .. } => from.clone(),
                    _ => None,
                });
                let down =
                    words::say(dialect, &mut *member.client, Role::Member, from.as_ref(), Words::Candidate);
                if let Some(down) = down {
                    member.stream.write_all(&masked(&down)).await?;
                    ensure!(joiner.listen().await? > 0, "a joiner hears nothing");
                }
            }
            anyhow::Ok((joiner.stream, member.stream, up, length))
        })?;
        Ok(Line { runtime, joiner, member, up, heard: vec![0; length] })
    }

    /// The joiner says something to the member, this often, and each is heard before the next.
    ///
    /// # Errors
    /// It is not heard.
    pub fn up(&mut self, count: u64) -> Result<()> {
        let Line { runtime, joiner, member, up, heard } = self;
        runtime.block_on(async {
            for _ in 0..count {
                joiner.write_all(up).await?;
                member.read_exact(heard).await?;
            }
            Ok(())
        })
    }
}

/// A frame as a client sends it.
fn masked(said: &dialects::Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::put_message(&mut bytes, said);
    bytes
}
