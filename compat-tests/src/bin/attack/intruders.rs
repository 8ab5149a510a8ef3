//! Attacks on what others have: messages to guessed ids, and the place of an opener or a member.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use compat_tests::pairs::{HEARTBEAT, connect, content, pair};
use compat_tests::ws::{Received, Ws, frame};
use sigver::tools::bench::frame::{BINARY, TEXT};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::attacks::{Ends, Target, answer, spawn};

/// Number of guesses in one write.
const GUESSES: u64 = 500;

/// Returns numbers of `bits` bits that look random.
fn guesses(seed: usize, bits: u32) -> impl Iterator<Item = u64> {
    let step = |number: u64| (number ^ number >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..GUESSES).map(move |number| step(step(number + ((seed as u64) << 32) + 1)) >> (64 - bits))
}

/// Starts clients that guess ids of links, as members of the same room and of others, and of event streams.
pub(crate) async fn guess_ids(target: &Target, ends: &mut Ends) -> Result<()> {
    let server = target.server;
    let (member, joiner) = pair(server, "/guessed").await?;
    spawn(ends, watch_pair(member, joiner, target.clone()));
    let (stream, id) = event_stream(target).await?;
    spawn(ends, watch_stream(stream, target.clone()));
    for number in 0..target.flooders {
        let path = if number == 0 { "/guessed".to_owned() } else { format!("/guess-{number}") };
        let mut ws = Ws::open(server, &path).await?;
        ws.send(&connect(7, &[11])).await?;
        ensure!(ws.message().await? == [0x20, 1], "the guesser was not admitted");
        let links = guesses(number, 31).map(|id| {
            let mut link = Vec::new();
            sigver::tools::protobuf::put_varint(&mut link, id);
            frame(BINARY, &answer(&link, b"guessed"))
        });
        ends.spawn(target.clone().flood(ws, links.collect::<Vec<_>>().concat()));
        // Near the id of the victim, too.
        let near = (1..=GUESSES / 2).map(|offset| id.wrapping_add(offset));
        let posts = near.chain(guesses(number, 53)).map(|id| {
            let body = format!("{id}@{{\"data\":\"guessed\"}}");
            format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        });
        let posts = posts.collect::<String>().into_bytes();
        ends.spawn(target.clone().flood(Ws::open_plain(server).await?, posts));
    }
    Ok(())
}

/// Opens an event stream of sigver 9. Returns it and its id.
async fn event_stream(target: &Target) -> Result<(TcpStream, u64)> {
    let mut stream = TcpStream::connect(target.server).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n").await?;
    let mut received = Vec::new();
    let id = async {
        loop {
            let text = String::from_utf8_lossy(&received);
            if let Some((_, rest)) = text.split_once("event: auth\ndata: ")
                && let Some((id, _)) = rest.split_once('\n')
            {
                return id.trim().parse().context("an id that is no number");
            }
            ensure!(stream.read_buf(&mut received).await? > 0, "the event stream ended");
        }
    };
    let id = timeout(Duration::from_secs(5), id).await.context("no id of an event stream")??;
    Ok((stream, id))
}

async fn watch_stream(mut stream: TcpStream, target: Target) -> Result<String> {
    let mut events = 0;
    let mut buffer = vec![0; 4096];
    while !target.stopped() {
        match timeout(Duration::from_millis(100), stream.read(&mut buffer)).await {
            Ok(Ok(count @ 1..)) => {
                events += String::from_utf8_lossy(&buffer[..count]).matches("data:").count();
            }
            Ok(_) => return Ok("victim: its event stream ended".to_owned()),
            Err(_) => {}
        }
    }
    Ok(format!("victim: {events} events of others"))
}

/// Counts what a pair receives that neither has sent, and checks at the end that it can go on.
async fn watch_pair(mut member: Ws, mut joiner: Ws, target: Target) -> Result<String> {
    let mut foreign = 0;
    while !target.stopped() {
        for ws in [&mut member, &mut joiner] {
            ws.send(&HEARTBEAT).await?;
            match timeout(Duration::from_millis(50), ws.next()).await {
                Ok(Ok(Received::Message(message))) => foreign += usize::from(message != HEARTBEAT),
                Ok(Ok(Received::Close(close))) => return Ok(format!("victim: {close}")),
                Ok(Ok(Received::Other)) | Err(_) => {}
                Ok(Err(_)) => return Ok("victim: disconnected".to_owned()),
            }
        }
    }
    joiner.send(&content(b"own")).await?;
    let own = async {
        while !member.message().await?.ends_with(b"own") {}
        Ok::<_, anyhow::Error>(())
    };
    let goes_on = matches!(timeout(Duration::from_secs(5), own).await, Ok(Ok(())));
    let goes_on = if goes_on { "goes on" } else { "does not go on" };
    Ok(format!("victim: {foreign} messages of others, {goes_on}"))
}

/// Starts clients that open the key of another one, and that claim to be unable to connect to a member.
pub(crate) async fn take_over(target: &Target, ends: &mut Ends) -> Result<()> {
    let server = target.server;
    let open = frame(TEXT, b"{\"open\":\"taken\"}");
    let mut opener = Ws::open(server, "/").await?;
    opener.stream.write_all(&open).await?;
    let mut member = Ws::open(server, "/taken").await?;
    member.send(&connect(11, &[])).await?;
    // Their answers: both are in their rooms.
    opener.message().await?;
    member.message().await?;
    for victim in [opener, member] {
        spawn(ends, stays(victim, target.clone()));
    }
    for number in 0..target.flooders {
        let (target, open) = (target.clone(), open.clone());
        spawn(ends, async move {
            while !target.stopped() {
                let mut ws = Ws::open(server, if number % 2 == 0 { "/" } else { "/taken" }).await?;
                if number % 2 == 0 {
                    ws.stream.write_all(&open).await?;
                } else {
                    ws.send(&connect(7, &[])).await?;
                    ws.send(&connect(7, &[])).await?;
                }
                let _ = timeout(Duration::from_millis(50), ws.next()).await;
            }
            Ok("connected again and again".to_owned())
        });
    }
    Ok(())
}

/// Receives up to a close frame.
async fn stays(mut victim: Ws, target: Target) -> Result<String> {
    while !target.stopped() {
        match timeout(Duration::from_millis(100), victim.next()).await {
            Ok(Ok(Received::Close(close))) => return Ok(format!("victim: {close}")),
            Ok(Ok(Received::Message(message))) if message == HEARTBEAT => {
                victim.send(&HEARTBEAT).await?;
            }
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(_)) => return Ok("victim: disconnected".to_owned()),
        }
    }
    Ok("victim: stays".to_owned())
}
