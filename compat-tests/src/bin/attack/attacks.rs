//! Attacks of one client, or many. Each runs until `stop`, and returns what its clients received.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use compat_tests::pairs::{connect, content, pair};
use compat_tests::ws::{Received, Ws, frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use crate::{intruders, tls};
use sigver::tools::bench::frame::{BINARY, PONG, TEXT};

/// An attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attack {
    /// Nothing: the regular clients are alone
    Control,
    /// In a room of many members, two connections send `connect` again and again
    ConnectCrowd,
    /// Connections send heartbeats as fast as they can
    Heartbeats,
    /// Connections send JSON messages of almost 1 MiB with 95,000 names as fast as they can
    JsonNames,
    /// Connections send fragments without a byte as fast as they can
    EmptyFragments,
    /// Connections send HTTP requests as fast as they can
    Requests,
    /// Connections send bodies of 1 MB to event streams as fast as they can
    Posts,
    /// Joiners send contents of 64 KiB to one member that reads 1.25 MB/s
    FloodMember,
    /// A member sends contents of 64 KiB to a joiner that reads 1.25 MB/s
    FloodJoiner,
    /// Two clients that read nothing send each other contents of 64 KiB
    FloodEachOther,
    /// Contents of 64 KiB without a receiver
    FloodNobody,
    /// Many connections begin a fragmented message of 1 MiB, and send pongs
    Fragments,
    /// Many connections begin a POST of 1 MB
    HalfPosts,
    /// Many clients read nothing of what is sent to them, and send heartbeats
    SlowReaders,
    /// Many connections send nothing
    SilentConnections,
    /// Many connections send a byte of a request each second
    SlowHeads,
    /// Many connections send nothing, and then all at once a head of almost 16 KB without its end
    HalfHeads,
    /// Many connections send nothing, and then all at once a POST of 490 headers without its body
    HeaderFlood,
    /// Many WebSockets send nothing
    SilentWebsockets,
    /// Connections send frames that no client sends, one after the other
    OddFrames,
    /// Many joiners of one member
    Joiners,
    /// Many rooms with long keys
    Rooms,
    /// Many WebSockets open 18 rooms each, with keys of 500 characters
    RoomKeys,
    /// Many rooms in which clients of different generations meet, each of which is worth a line of the log
    MixedRooms,
    /// Many event streams, of which nothing is read
    EventStreams,
    /// Connections send pings as fast as they can
    Pings,
    /// Many connections send pings, and read nothing of the pongs
    UnreadPings,
    /// Many event streams of which nothing is read get contents of 30 kB
    UnreadStreams,
    /// Many event streams with a request behind each, whose clients leave
    LeftStreams,
    /// Connections open one key after the other
    Keys,
    /// Many connections begin a TLS handshake, and others make whole ones; the regular clients have TLS, too
    HalfHandshakes,
    /// Many WebSockets over TLS send a record without its end; the regular clients have TLS, too
    PartialRecords,
    /// Many WebSockets over TLS send nothing, and then all at once the begin of a message; the regular
    /// clients have TLS, too
    LateMessages,
    /// Connections send messages to guessed ids of links and event streams
    GuessedIds,
    /// Connections open the key of another client, and try to replace a member (--replace-members off)
    TakeOver,
    /// Pairs connect and leave as fast as they can
    Churn,
}

/// Ends of the clients of an attack: how many had each, and how many MB they sent in all, if they sent as
/// fast as they could.
#[derive(Debug, Default)]
pub(crate) struct EndCounts(pub(crate) BTreeMap<String, (usize, f64)>);

/// Place and amount.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) server: SocketAddr,
    /// Number of connections that send as fast as they can.
    pub(crate) flooders: usize,
    /// Number of connections that hold something, or members of a crowd.
    pub(crate) crowd: usize,
    pub(crate) stop: Arc<AtomicBool>,
    /// TLS towards the server, if it serves TLS.
    pub(crate) tls: Option<TlsConnector>,
}

pub(crate) type Ends = JoinSet<Result<(String, f64)>>;

impl Target {
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sends `bytes` again and again, while the answers are received, to the end of the connection.
    pub(crate) async fn flood(self, ws: Ws, bytes: Vec<u8>) -> Result<(String, f64)> {
        let mut sent = 0usize;
        let Ws { stream, .. } = ws;
        let (mut reading, mut writing) = stream.into_split();
        let answers = tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            let mut last = Vec::new();
            while let Ok(count @ 1..) = reading.read(&mut buffer).await {
                last = buffer[count.saturating_sub(127)..count].to_vec();
            }
            last
        });
        let mut broken = false;
        while !self.stopped() && !broken {
            let write = tokio::time::timeout(Duration::from_millis(200), writing.write_all(&bytes)).await;
            broken = matches!(write, Ok(Err(_)));
            sent += if let Ok(Ok(())) = write { bytes.len() } else { 0 };
            // A write that was cancelled half way: nothing more of it would be understood.
            while write.is_err() && !self.stopped() && !answers.is_finished() {
                sleep(Duration::from_millis(50)).await;
            }
            broken |= answers.is_finished();
        }
        let end = if broken { close_in(&answers.await.unwrap_or_default()) } else { "nothing".to_owned() };
        Ok((end, sent as f64 / 1e6))
    }
}

/// Adds a client that does not send as fast as it can.
pub(crate) fn spawn(ends: &mut Ends, client: impl Future<Output = Result<String>> + Send + 'static) {
    ends.spawn(async move { client.await.map(|end| (end, 0.0)) });
}

/// Returns the close frame in the last bytes of a connection.
fn close_in(last: &[u8]) -> String {
    let at = last.iter().rposition(|byte| *byte == 0x88);
    match at.and_then(|at| last.get(at + 2..)).and_then(|close| close.split_first_chunk()) {
        Some((code, reason)) => format!("{} {}", u16::from_be_bytes(*code), String::from_utf8_lossy(reason)),
        None => "disconnected".to_owned(),
    }
}

/// Receives up to the close frame.
pub(crate) async fn until_close(mut ws: Ws, target: Target) -> Result<String> {
    loop {
        match tokio::time::timeout(Duration::from_millis(100), ws.next()).await {
            Ok(Ok(Received::Close(close))) => return Ok(close),
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Ok("disconnected".to_owned()),
            Err(_) if target.stopped() => return Ok("nothing".to_owned()),
            Err(_) => {}
        }
    }
}

/// Reads 1.25 MB/s.
async fn read_slowly(mut ws: Ws, target: Target) -> Result<String> {
    let mut buffer = vec![0; 125_000];
    let mut read = 0;
    let mut last = Vec::new();
    while !target.stopped() {
        match ws.stream.read(&mut buffer).await {
            Ok(count @ 1..) => {
                read += count;
                last = buffer[count.saturating_sub(127)..count].to_vec();
                sleep(Duration::from_secs_f64(count as f64 / 1.25e6)).await;
            }
            _ => return Ok(format!("victim: {}", close_in(&last))),
        }
    }
    Ok(format!("victim: stays, read {} MB", (read as f64 / 1e6).round()))
}

impl Attack {
    /// Returns true if the server has TLS, and so have the clients that do nothing wrong.
    pub(crate) const fn is_over_tls(self) -> bool {
        matches!(self, Attack::HalfHandshakes | Attack::PartialRecords | Attack::LateMessages)
    }

    /// Runs the attack until its target is to stop.
    pub(crate) async fn run(self, target: &Target) -> Result<EndCounts> {
        let mut ends = Ends::new();
        let mut counts = EndCounts::default();
        if let Err(error) = self.start(target, &mut ends).await {
            // The rest of its clients is not admitted.
            let error = error.to_string();
            counts.0.insert(error.lines().next().unwrap_or_default().to_owned(), (1, 0.0));
        }
        while let Some(end) = ends.join_next().await {
            let (end, megabytes) = end?.unwrap_or_else(|error| (format!("{error:#}"), 0.0));
            let (count, sum) = counts.0.entry(end).or_default();
            (*count, *sum) = (*count + 1, *sum + megabytes);
        }
        while !target.stopped() {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(counts)
    }

    async fn start(self, target: &Target, ends: &mut Ends) -> Result<()> {
        let server = target.server;
        match self {
            Attack::Control => {}
            Attack::ConnectCrowd => {
                let mut members = Vec::new();
                for id in 0..target.crowd as u32 {
                    let mut member = Ws::open(server, "/crowd").await?;
                    member.send(&connect(id + 11, if id == 0 { &[] } else { &[11] })).await?;
                    ensure!(member.message().await? == [0x20, 1], "a member was not admitted");
                    members.push(member);
                }
                for _ in 0..target.flooders {
                    let ws = Ws::open(server, "/crowd").await?;
                    let bytes = frame(BINARY, &connect(7, &[])).repeat(1000);
                    ends.spawn(target.clone().flood(ws, bytes));
                }
                for member in members {
                    spawn(ends, until_close(member, target.clone()));
                }
            }
            Attack::Heartbeats => {
                for number in 0..target.flooders {
                    let (member, joiner) = pair(server, &format!("/flood-{number}")).await?;
                    ends.spawn(target.clone().flood(member, frame(BINARY, &[0x08, 1]).repeat(10_000)));
                    spawn(ends, until_close(joiner, target.clone()));
                }
            }
            Attack::JsonNames => {
                let names: String = (0..95_000).map(|name| format!("\"{name}\":0,")).collect();
                let message = format!("{{{names}\"data\":0}}");
                for _ in 0..target.flooders {
                    let mut ws = Ws::open(server, "/").await?;
                    ws.stream.write_all(&frame(TEXT, b"{\"open\":\"names\"}")).await?;
                    ends.spawn(target.clone().flood(ws, frame(TEXT, message.as_bytes())));
                }
            }
            Attack::EmptyFragments => {
                for number in 0..target.flooders {
                    let mut ws = Ws::open(server, &format!("/empty-{number}")).await?;
                    ws.stream.write_all(&frame(0x02, &[])).await?;
                    ends.spawn(target.clone().flood(ws, frame(0x00, &[]).repeat(10_000)));
                }
            }
            Attack::Requests | Attack::Posts => {
                let bytes = match self {
                    Attack::Requests => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(500),
                    _ => post(1_000_000, 1_000_000),
                };
                for _ in 0..target.flooders {
                    let flood = target.clone().flood(Ws::open_plain(server).await?, bytes.clone());
                    ends.spawn(flood);
                }
            }
            Attack::FloodMember => {
                let (member, joiner) = pair(server, "/victim").await?;
                let flood = frame(BINARY, &content(&vec![7; 64 * 1024]));
                spawn(ends, read_slowly(member, target.clone()));
                ends.spawn(target.clone().flood(joiner, flood.clone()));
                for _ in 1..target.flooders {
                    let mut joiner = Ws::open(server, "/victim").await?;
                    joiner.send(&connect(12, &[])).await?;
                    ends.spawn(target.clone().flood(joiner, flood.clone()));
                }
            }
            Attack::FloodJoiner | Attack::FloodEachOther => {
                let (mut member, mut joiner) = pair(server, "/victim").await?;
                joiner.send(&content(b"offer")).await?;
                let link = link_of(&member.message().await?);
                let flood = frame(BINARY, &answer(&link, &vec![7; 64 * 1024]));
                if self == Attack::FloodJoiner {
                    ends.spawn(target.clone().flood(member, flood));
                    spawn(ends, read_slowly(joiner, target.clone()));
                } else {
                    let back = frame(BINARY, &content(&vec![7; 64 * 1024]));
                    spawn(ends, write_only(member, flood, target.clone()));
                    spawn(ends, write_only(joiner, back, target.clone()));
                }
            }
            Attack::FloodNobody => {
                for number in 0..target.flooders {
                    let (member, joiner) = pair(server, &format!("/nobody-{number}")).await?;
                    drop(member);
                    let flood = frame(BINARY, &content(&vec![7; 64 * 1024]));
                    ends.spawn(target.clone().flood(joiner, flood));
                }
            }
            Attack::Fragments => {
                for number in 0..target.crowd {
                    let mut ws = Ws::open(server, "/").await?;
                    ws.stream
                        .write_all(&frame(TEXT, format!("{{\"open\":\"f{number}\"}}").as_bytes()))
                        .await?;
                    let target = target.clone();
                    spawn(ends, async move {
                        let fragment = frame(0x01, &vec![b' '; (1 << 20) - 64]);
                        let end = async {
                            ws.stream.write_all(&fragment).await?;
                            while !target.stopped() {
                                ws.stream.write_all(&frame(PONG, &[])).await?;
                                match tokio::time::timeout(Duration::from_secs(1), ws.next()).await {
                                    Ok(Ok(Received::Close(close))) => return Ok(close),
                                    Ok(Ok(_)) | Err(_) => {}
                                    Ok(Err(_)) => return Ok("disconnected".to_owned()),
                                }
                            }
                            Ok::<_, anyhow::Error>("nothing".to_owned())
                        };
                        let end = end.await;
                        match end {
                            Ok(end) => Ok(end),
                            Err(_) => until_close(ws, target).await,
                        }
                    });
                }
            }
            Attack::HalfPosts => {
                for _ in 0..target.crowd {
                    let mut stream = TcpStream::connect(server).await?;
                    let target = target.clone();
                    spawn(ends, async move {
                        let _ = stream.write_all(&post(1_000_000, 999_000)).await;
                        let mut status = [0; 12];
                        let mut read = std::pin::pin!(stream.read_exact(&mut status));
                        while !target.stopped() {
                            let wait = tokio::time::timeout(Duration::from_millis(100), &mut read).await;
                            if let Ok(read) = wait {
                                read?;
                                return Ok(String::from_utf8_lossy(&status).into_owned());
                            }
                        }
                        Ok("nothing".to_owned())
                    });
                }
            }
            Attack::SlowReaders => {
                for number in 0..target.crowd {
                    let (member, joiner) = pair(server, &format!("/slow-{number}")).await?;
                    let flood = frame(BINARY, &content(&vec![7; 64 * 1024]));
                    spawn(ends, write_only(member, frame(BINARY, &[0x08, 1]), target.clone()));
                    ends.spawn(target.clone().flood(joiner, flood));
                }
            }
            Attack::GuessedIds => intruders::guess_ids(target, ends).await?,
            Attack::TakeOver => intruders::take_over(target, ends).await?,
            Attack::HalfHandshakes => {
                let connector = target.tls.as_ref().context("a server without TLS")?;
                tls::start(target, connector, ends).await?;
            }
            Attack::PartialRecords => {
                let connector = target.tls.as_ref().context("a server without TLS")?;
                tls::begin_records(target, connector, ends).await;
            }
            Attack::LateMessages => {
                let connector = target.tls.as_ref().context("a server without TLS")?;
                tls::begin_messages(target, connector, ends).await;
            }
            _ => self.start_crowd(target, ends).await?,
        }
        Ok(())
    }
}

/// Sends `bytes` and reads nothing until the end. Small ones once a second.
pub(crate) async fn write_only(mut ws: Ws, bytes: Vec<u8>, target: Target) -> Result<String> {
    while !target.stopped() {
        let write = tokio::time::timeout(Duration::from_millis(500), ws.stream.write_all(&bytes)).await;
        if let Ok(Err(_)) = write {
            return Ok("disconnected".to_owned());
        }
        if bytes.len() < 100 {
            sleep(Duration::from_secs(1)).await;
        }
        if write.is_err() {
            break;
        }
    }
    while !target.stopped() {
        sleep(Duration::from_millis(50)).await;
    }
    Ok(match tokio::time::timeout(Duration::from_secs(1), until_close(ws, target)).await {
        Ok(end) => end?,
        Err(_) => "nothing".to_owned(),
    })
}

/// Returns the first `sent` bytes of a POST with a body of `length`.
fn post(length: usize, sent: usize) -> Vec<u8> {
    let mut post = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n1@").into_bytes();
    post.resize(post.len() + sent - 2, b' ');
    post
}

/// Returns the id of the link in a content that a member received.
fn link_of(content: &[u8]) -> Vec<u8> {
    // Behind the tag and length of the message, and the tag of the id.
    let id = content.get(3..).unwrap_or_default();
    let end = id.iter().position(|byte| *byte < 0x80).map_or(0, |at| at + 1);
    id[..end].to_vec()
}

/// Returns a content message of sigver 20 from a member to a joiner.
pub(crate) fn answer(link: &[u8], data: &[u8]) -> Vec<u8> {
    use sigver::tools::protobuf::{delimited, number};
    delimited(2, &[&number(1, 0)[..], &[0x10], link, &delimited(4, data)].concat())
}
