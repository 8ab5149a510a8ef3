//! The end of the process, and clients that come back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use compat_tests::ws::Ws;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Options;
use crate::clients::{Pair, member};
use crate::process::{Server, Start};

/// Connects members at once, each in a room of its own. Returns them with the time that each took.
async fn storm(server: SocketAddr, count: usize) -> Result<Vec<(Ws, Duration)>> {
    let mut tasks = JoinSet::new();
    for number in 0..count {
        tasks.spawn(async move {
            let begin = Instant::now();
            let member = member(server, &format!("/storm-{number}")).await?;
            anyhow::Ok((member, begin.elapsed()))
        });
    }
    let mut members = Vec::new();
    while let Some(member) = tasks.join_next().await {
        members.push(member??);
    }
    Ok(members)
}

/// The process is killed, and all clients come back in the moment in which another one listens.
pub(crate) async fn kill(options: &Options) -> Result<String> {
    let mut server = Server::start(options, Start::default()).await?;
    let members = storm(server.address, options.clients).await.context("before")?;
    server.kill().await?;
    let disconnected = async {
        for (mut member, _) in members {
            while member.next().await.is_ok() {}
        }
    };
    timeout(Duration::from_secs(10), disconnected).await.context("a client was not disconnected")?;
    let start = Start { port: Some(server.address.port()), ..Start::default() };
    let mut server = Server::start(options, start).await?;
    let begin = Instant::now();
    let members = storm(server.address, options.clients).await.context("the storm after it")?;
    let all = begin.elapsed();
    let mut times: Vec<Duration> = members.iter().map(|(_, time)| *time).collect();
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let memory = server.peak_megabytes()?;
    drop(members);
    server.stop().await?;
    Ok(format!(
        "{} of {} served again in {:.2} s, the median after {:.2} s; peak {memory:.1} MB",
        times.len(),
        options.clients,
        all.as_secs_f64(),
        median.as_secs_f64()
    ))
}

/// New clients arrive every few milliseconds while the process drains, ends, and is started again. Each is
/// served or refused at once, and the clients of the old process are served until they are closed.
pub(crate) async fn restart(options: &Options) -> Result<String> {
    let arguments = vec!["--drain-timeout=2".to_owned()];
    let mut server =
        Server::start(options, Start { arguments: arguments.clone(), ..Start::default() }).await?;
    let address = server.address;
    let mut pair = Pair::open(address, "/restart").await?;
    let arriving = tokio::spawn(async move {
        let (mut served, mut refused, mut slowest) = (0, 0, Duration::ZERO);
        let (begin, mut tasks) = (Instant::now(), JoinSet::new());
        for number in 0.. {
            tasks.spawn(async move {
                let begin = Instant::now();
                let outcome = Pair::open(address, &format!("/arriving-{number}")).await;
                (outcome.is_ok(), begin.elapsed())
            });
            sleep(Duration::from_millis(10)).await;
            if begin.elapsed() > Duration::from_secs(4) {
                break;
            }
        }
        while let Some(outcome) = tasks.join_next().await {
            let (is_served, took) = outcome?;
            *if is_served { &mut served } else { &mut refused } += 1;
            slowest = slowest.max(took);
        }
        anyhow::Ok((served, refused, slowest))
    });
    sleep(Duration::from_millis(500)).await;
    pair.exchange().await?;
    server.signal("TERM").await?;
    let begin = Instant::now();
    let mut exchanged = 0;
    while pair.exchange().await.is_ok() {
        exchanged += 1;
        sleep(Duration::from_millis(20)).await;
    }
    let relayed = begin.elapsed();
    drop(pair);
    server.end().await?;
    let ended = begin.elapsed();
    let start = Start { port: Some(address.port()), arguments, ..Start::default() };
    let mut server = Server::start(options, start).await?;
    let (served, refused, slowest) = arriving.await??;
    ensure!(slowest < Duration::from_secs(3), "a new client waited for {slowest:?}");
    ensure!(exchanged > 0, "nothing was relayed during the drain");
    Pair::open(address, "/after").await.context("after the restart")?.exchange().await?;
    server.stop().await?;
    Ok(format!(
        "relayed for {:.1} s, ended after {:.1} s; {served} newcomers served, {refused} refused, the slowest in {} ms",
        relayed.as_secs_f64(),
        ended.as_secs_f64(),
        slowest.as_millis()
    ))
}
