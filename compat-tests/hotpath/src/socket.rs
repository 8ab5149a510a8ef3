//! The same two clients, each behind a WebSocket and a connection task: the whole path of a message but the
//! kernel's. The network is memory, and there is one thread.

use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use sigver::config::Config;
use sigver::config::DEFAULT_MAX_MESSAGE;
use sigver::protocol::dialect::{Dialect, Family, UpgradeRequest};
use sigver::server::ClientEndpoint;
use sigver::server::conn::{Shared, run};
use sigver::server::transport::ws::Socket;
use sigver::tools::bench::frame;
use sigver::tools::client::dialects::{
    self, ClientAction, ClientEvent, JoinerId, Role, SyntheticClient, request_path,
};
use sigver::tools::client::protocol::Protocol;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio::runtime::{Builder, Runtime};

use crate::messages::{self, MessageSet};
use crate::pair::{KEY, Mode};

/// Number of turns for all tasks before no further output is expected.
const MAX_TURNS: usize = 32;

/// A client and its end of the connection.
struct TestPeer {
    client: Box<dyn SyntheticClient>,
    stream: DuplexStream,
    received: Vec<ClientEvent>,
}

impl TestPeer {
    async fn open(shared: &Arc<Shared>, dialect: Dialect, role: Role) -> Result<Self> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let socket = Socket::new(theirs, Bytes::new(), DEFAULT_MAX_MESSAGE);
        let protocol = Protocol::Sigver(dialect);
        let upgrade =
            UpgradeRequest { path: request_path(protocol, role, KEY), favored: false, from_page: true };
        let policy = |shared: &Shared| Arc::clone(&shared.policy);
        let endpoint =
            ClientEndpoint { remote: Some(Ipv4Addr::LOCALHOST.into()), tls: false, behind_proxy: false };
        tokio::spawn(run(socket, endpoint, upgrade, policy, Arc::clone(shared), ()));
        let client = dialects::new_client(protocol, role, KEY);
        let mut peer = TestPeer { client, stream: ours, received: Vec::new() };
        let first = messages::first(dialect).filter(|_| role == Role::Joiner);
        let actions = peer.client.on_open(first.as_ref());
        peer.execute(actions).await?;
        while peer.poll().await? > 0 {}
        Ok(peer)
    }

    async fn execute(&mut self, actions: Vec<ClientAction>) -> Result<()> {
        for action in actions {
            match action {
                ClientAction::Send(frame) => self.stream.write_all(&masked(&frame)).await?,
                ClientAction::Report(ClientEvent::Unexpected(what)) => bail!("a client receives {what}"),
                ClientAction::Report(received) => self.received.push(received),
                ClientAction::Close(code) => bail!("a client closes with {code:?}"),
            }
        }
        Ok(())
    }

    /// Reads all received bytes, and returns their number.
    async fn poll(&mut self) -> Result<usize> {
        for _ in 0..MAX_TURNS {
            tokio::task::yield_now().await;
        }
        let mut buffer = vec![0; 64 * 1024];
        let count = poll_fn(|context| {
            let mut filled = ReadBuf::new(&mut buffer);
            let read = Pin::new(&mut self.stream).poll_read(context, &mut filled);
            // Pending is a result here: nothing was received.
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
            let actions = match first {
                frame::TEXT => self.client.on_text(std::str::from_utf8(payload)?),
                frame::BINARY => self.client.on_binary(payload),
                frame::CLOSE => bail!("a client is closed with {payload:?}"),
                _ => Vec::new(),
            };
            self.execute(actions).await?;
        }
        ensure!(rest.is_empty(), "a part of a frame");
        Ok(count)
    }
}

/// A joiner and its member, linked.
pub struct ConnectedPair {
    runtime: Runtime,
    joiner: DuplexStream,
    member: DuplexStream,
    up: Vec<u8>,
    /// Bytes the member receives per message.
    received: Vec<u8>,
}

impl ConnectedPair {
    /// Returns a member and a joiner that have exchanged messages.
    pub fn meet(dialect: Dialect) -> Result<Self> {
        // Clients that wait for the server to speak first wait less where no other dialect is served.
        let silent = dialect.family() == Family::ProtobufV1;
        let mode = if silent { Mode::Pinned } else { Mode::Auto };
        let mut config = Config::default();
        config.protocol = mode.protocols(dialect);
        config.ping_after = Duration::from_secs(3600);
        let shared = Shared::new(&config);
        // The timer queue does not run: no heartbeat is sent, however slow the machine.
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let (joiner, member, up, length) = runtime.block_on(async {
            let mut member = TestPeer::open(&shared, dialect, Role::Member).await?;
            let mut joiner = TestPeer::open(&shared, dialect, Role::Joiner).await?;
            while member.poll().await? + joiner.poll().await? > 0 {}
            let up = messages::frame(dialect, &mut *joiner.client, Role::Joiner, None, MessageSet::Candidate);
            let up = masked(&up.context("a joiner has no message")?);
            let mut length = 0;
            for _ in 0..3 {
                joiner.stream.write_all(&up).await?;
                length = member.poll().await?;
                ensure!(length > 0, "a member receives nothing");
                let from: Option<JoinerId> =
                    member.received.iter().rev().find_map(|received| match received {
                        ClientEvent::Message { from, .. } => from.clone(),
                        _ => None,
                    });
                let down = messages::frame(
                    dialect,
                    &mut *member.client,
                    Role::Member,
                    from.as_ref(),
                    MessageSet::Candidate,
                );
                if let Some(down) = down {
                    member.stream.write_all(&masked(&down)).await?;
                    ensure!(joiner.poll().await? > 0, "a joiner receives nothing");
                }
            }
            anyhow::Ok((joiner.stream, member.stream, up, length))
        })?;
        Ok(ConnectedPair { runtime, joiner, member, up, received: vec![0; length] })
    }

    /// Sends messages from the joiner, `count` times, each after the previous one has arrived.
    pub fn up(&mut self, count: u64) -> Result<()> {
        let ConnectedPair { runtime, joiner, member, up, received } = self;
        runtime.block_on(async {
            for _ in 0..count {
                joiner.write_all(up).await?;
                member.read_exact(received).await?;
            }
            Ok(())
        })
    }
}

/// Returns a frame as a client sends it.
fn masked(frame: &dialects::ClientFrame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::put_message(&mut bytes, frame);
    bytes
}
