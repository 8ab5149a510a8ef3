//! Clients that do nothing wrong: pairs of sigver 20 that exchange messages.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use compat_tests::pairs;
use compat_tests::ws::Ws;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A member and a joiner that are linked.
pub(crate) struct Pair {
    member: Ws,
    joiner: Ws,
}

async fn within<T>(what: &str, future: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(TIMEOUT, future).await.with_context(|| format!("no {what} within {TIMEOUT:?}"))?
}

/// Connects a member in a room of its own.
pub(crate) async fn member(server: SocketAddr, path: &str) -> Result<Ws> {
    within("member", pairs::member(server, path)).await
}

impl Pair {
    pub(crate) async fn open(server: SocketAddr, path: &str) -> Result<Pair> {
        let (member, joiner) = within("pair", pairs::pair(server, path)).await?;
        Ok(Pair { member, joiner })
    }

    /// Sends a message from the joiner to the member.
    pub(crate) async fn exchange(&mut self) -> Result<()> {
        within("message", async {
            self.joiner.send(&pairs::content(b"hello")).await?;
            let received = pairs::next_content(&mut self.member).await?;
            ensure!(received.ends_with(b"hello"), "another message: {received:?}");
            Ok(())
        })
        .await
    }
}

/// Connects pairs, each in a room of its own.
pub(crate) async fn connect_pairs(server: SocketAddr, count: usize) -> Result<Vec<Pair>> {
    let mut tasks = JoinSet::new();
    for number in 0..count {
        tasks.spawn(async move { Pair::open(server, &format!("/pair-{number}")).await });
    }
    let mut pairs = Vec::new();
    while let Some(pair) = tasks.join_next().await {
        pairs.push(pair??);
    }
    Ok(pairs)
}

/// Returns the `Date` of a response.
pub(crate) async fn http_date(server: SocketAddr) -> Result<String> {
    within("response", async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await?;
        let date = response
            .lines()
            .find_map(|line| line.to_ascii_lowercase().starts_with("date: ").then(|| line[6..].to_owned()));
        date.with_context(|| format!("no Date: {response}"))
    })
    .await
}
