//! Attacks of many connections, or of many things that one connection makes the server keep.

use std::time::Duration;

use anyhow::{Result, ensure};
use compat_tests::pairs::{connect, pair};
use compat_tests::ws::{Ws, frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::attacks::{Attack, Ends, Target, spawn, until_close, write_only};
use sigver::tools::bench::frame::{BINARY, PING, TEXT};

/// Frames that no client of a sigver sends: reserved bits and opcodes, lengths without bytes, deep nesting.
fn odd_frames() -> Vec<Vec<u8>> {
    let long = |length: u64| [&[BINARY, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
    let deep = format!("{{\"open\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
    vec![
        long(1 << 30),
        long(1 << 63),
        long(u64::MAX),
        vec![BINARY, 2, 0x08, 0x01],
        frame(BINARY | 0x40, &[8, 1]),
        frame(0x83, &[8, 1]),
        frame(0x09, b"p"),
        frame(TEXT, &[b'a', 0xff]),
        frame(TEXT, deep.as_bytes()),
        frame(BINARY, &[0x7b; 100_000]),
        frame(BINARY, &[0xff; 10]),
        frame(TEXT, format!("{{\"open\":\"{}\"}}", "k".repeat(500_000)).as_bytes()),
    ]
}

/// Header of a request for an event stream.
const EVENTS: &str = "Accept: text/event-stream\r\n";

/// Keeps a connection, and reads nothing of it.
async fn keep(stream: TcpStream, target: Target) -> Result<String> {
    while !target.stopped() {
        sleep(Duration::from_millis(100)).await;
    }
    drop(stream);
    Ok("nothing".to_owned())
}

/// Sends a part of a request once a second, or only once, until the server ends the connection.
async fn send_slowly(mut stream: TcpStream, begin: &[u8], rest: &[u8], target: Target) -> Result<String> {
    stream.write_all(begin).await?;
    let (mut reading, mut writing) = stream.into_split();
    let mut buffer = [0; 512];
    let mut more = rest.iter();
    while !target.stopped() {
        match timeout(Duration::from_secs(1), reading.read(&mut buffer)).await {
            Ok(Ok(count @ 1..)) => {
                let status = String::from_utf8_lossy(&buffer[..count]);
                return Ok(status.lines().next().unwrap_or_default().to_owned());
            }
            Ok(_) => return Ok("disconnected".to_owned()),
            Err(_) => {
                if let Some(byte) = more.next() {
                    let _ = writing.write_all(&[*byte]).await;
                }
            }
        }
    }
    Ok("nothing".to_owned())
}

impl Attack {
    /// Starts the clients of an attack of this module.
    pub(crate) async fn start_crowd(self, target: &Target, ends: &mut Ends) -> Result<()> {
        let server = target.server;
        match self {
            Attack::SilentConnections | Attack::SlowHeads => {
                let (begin, rest): (&'static [u8], &'static [u8]) = match self {
                    Attack::SlowHeads => (b"GET /k HTTP/1.1\r\nX-Slow: ", &[b'x'; 60]),
                    _ => (b"", b""),
                };
                for _ in 0..target.crowd {
                    let stream = TcpStream::connect(server).await?;
                    spawn(ends, send_slowly(stream, begin, rest, target.clone()));
                }
            }
            Attack::SilentWebsockets => {
                for number in 0..target.crowd {
                    let path = if number % 2 == 0 { "/" } else { "/silent" };
                    spawn(ends, until_close(Ws::open(server, path).await?, target.clone()));
                }
            }
            Attack::OddFrames => {
                let frames = odd_frames();
                for number in 0..target.flooders {
                    let (frames, target) = (frames.clone(), target.clone());
                    spawn(ends, async move {
                        let mut tried = 0;
                        while !target.stopped() {
                            let odd = &frames[(number + tried) % frames.len()];
                            let mut ws = Ws::open(server, if tried % 2 == 0 { "/" } else { "/odd" }).await?;
                            let _ = ws.stream.write_all(odd).await;
                            // The close frame, or that of a dialect that waits for more.
                            let _ = timeout(Duration::from_millis(50), ws.next()).await;
                            tried += 1;
                        }
                        Ok("connected again and again".to_owned())
                    });
                }
            }
            Attack::Joiners => {
                let mut member = Ws::open(server, "/joiners").await?;
                member.send(&connect(11, &[])).await?;
                ensure!(member.message().await? == [0x20, 1], "the member was not admitted");
                spawn(ends, until_close(member, target.clone()));
                for id in 0..target.crowd as u32 {
                    let mut joiner = Ws::open(server, "/joiners").await?;
                    joiner.send(&connect(id + 12, &[])).await?;
                    spawn(ends, until_close(joiner, target.clone()));
                }
            }
            Attack::Rooms => {
                for number in 0..target.crowd {
                    let path = format!("/{}{number}", "k".repeat(470));
                    let mut ws = Ws::open(server, &path).await?;
                    ws.send(&connect(11, &[])).await?;
                    spawn(ends, until_close(ws, target.clone()));
                }
            }
            Attack::HalfHeads | Attack::HeaderFlood => {
                let begin = match self {
                    Attack::HalfHeads => format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(15_800)),
                    _ => {
                        let headers: String = (0..490).map(|number| format!("a{number}:\r\n")).collect();
                        format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n{headers}\r\n1@")
                    }
                };
                let mut silent = Vec::new();
                for _ in 0..target.crowd {
                    silent.push(TcpStream::connect(server).await?);
                }
                for stream in silent {
                    let (begin, target) = (begin.clone(), target.clone());
                    spawn(ends, async move {
                        let sent = send_slowly(stream, begin.as_bytes(), &[], target).await;
                        Ok(sent.unwrap_or_else(|_| "disconnected".to_owned()))
                    });
                }
            }
            Attack::RoomKeys => {
                let mut openers = Vec::new();
                for _ in 0..target.crowd {
                    openers.push(Ws::open(server, "/").await?);
                }
                for (number, mut ws) in openers.into_iter().enumerate() {
                    for room in 0..18 {
                        let key = format!("{number}-{room}{}", "\u{4e00}".repeat(500));
                        let open = frame(TEXT, format!("{{\"open\":\"{key}\"}}").as_bytes());
                        if ws.stream.write_all(&open).await.is_err() {
                            break;
                        }
                    }
                    spawn(ends, until_close(ws, target.clone()));
                }
            }
            Attack::MixedRooms => {
                for number in 0..target.crowd {
                    let mut member = Ws::open(server, &format!("/mixed-{number}")).await?;
                    member.send(&connect(11, &[])).await?;
                    let mut joiner = Ws::open(server, "/").await?;
                    let join = format!("{{\"join\":\"mixed-{number}\",\"data\":\"d\"}}");
                    joiner.stream.write_all(&frame(TEXT, join.as_bytes())).await?;
                    spawn(ends, until_close(member, target.clone()));
                    spawn(ends, until_close(joiner, target.clone()));
                }
            }
            Attack::EventStreams => {
                let get = b"GET / HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n";
                for _ in 0..target.crowd {
                    let mut stream = TcpStream::connect(server).await?;
                    stream.write_all(get).await?;
                    let target = target.clone();
                    spawn(ends, async move {
                        while !target.stopped() {
                            sleep(Duration::from_millis(100)).await;
                        }
                        let mut status = [0; 12];
                        stream.read_exact(&mut status).await?;
                        Ok(String::from_utf8_lossy(&status).into_owned())
                    });
                }
            }
            Attack::Pings => {
                for number in 0..target.flooders {
                    let (member, joiner) = pair(server, &format!("/pings-{number}")).await?;
                    ends.spawn(target.clone().flood(member, frame(PING, &[7; 125]).repeat(500)));
                    spawn(ends, until_close(joiner, target.clone()));
                }
            }
            Attack::UnreadPings => {
                for number in 0..target.crowd {
                    let ws = Ws::open(server, &format!("/unread-{number}")).await?;
                    spawn(ends, write_only(ws, frame(PING, &[7; 125]).repeat(500), target.clone()));
                }
            }
            Attack::UnreadStreams => {
                let data = format!("{{\"data\":\"{}\"}}", "d".repeat(30_000));
                for number in 0..target.crowd {
                    let mut stream = TcpStream::connect(server).await?;
                    let get = format!("GET /?open=u{number} HTTP/1.1\r\nHost: x\r\n{EVENTS}\r\n");
                    stream.write_all(get.as_bytes()).await?;
                    stream.read_exact(&mut [0; 12]).await?;
                    let mut joiner = Ws::open(server, "/").await?;
                    let join = format!("{{\"join\":\"u{number}\",\"data\":\"d\"}}");
                    joiner.stream.write_all(&frame(TEXT, join.as_bytes())).await?;
                    ends.spawn(target.clone().flood(joiner, frame(TEXT, data.as_bytes())));
                    spawn(ends, keep(stream, target.clone()));
                }
            }
            Attack::LeftStreams => {
                for _ in 0..target.crowd {
                    let mut stream = TcpStream::connect(server).await?;
                    let requests = format!("GET / HTTP/1.1\r\nHost: x\r\n{EVENTS}\r\n").repeat(2);
                    stream.write_all(requests.as_bytes()).await?;
                    stream.read_exact(&mut [0; 12]).await?;
                }
            }
            Attack::Keys => {
                let open = |key: usize| format!("{{\"open\":\"{}{key}\"}}", "k".repeat(400));
                for number in 0..target.flooders {
                    let keys = (0..500).map(|key| frame(TEXT, open(1000 * number + key).as_bytes()));
                    let keys = keys.collect::<Vec<_>>().concat();
                    ends.spawn(target.clone().flood(Ws::open(server, "/").await?, keys));
                }
            }
            Attack::Churn => {
                for number in 0..target.flooders {
                    let target = target.clone();
                    spawn(ends, async move {
                        let mut conversations = 0u32;
                        while !target.stopped() {
                            drop(pair(server, &format!("/churn-{number}-{conversations}")).await?);
                            conversations += 1;
                        }
                        Ok("nothing".to_owned())
                    });
                }
            }
            _ => {}
        }
        Ok(())
    }
}
