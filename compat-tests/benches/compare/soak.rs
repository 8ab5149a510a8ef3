//! Churn of all dialects, of mixed pairs and of event streams for a long time. The memory of the server must
//! stay within a bound of that after a warm-up, and its descriptors must be given back.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use compat_tests::oracle::Server;
use sigver::tools::bench::{Processes, Progress, Protocol, SessionsPlan, SessionsResult, Target, sessions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Factor within which the memory must stay.
const MAX_GROWTH: f64 = 1.1;

/// Time between the end of the clients of a round and the measurement.
const SETTLING: Duration = Duration::from_millis(500);

/// Longest wait for one event.
const EVENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Plan of a run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Time in which the memory may grow to what the load needs.
    pub warm_up: Duration,
    /// Time after it.
    pub duration: Duration,
    /// Time for one pair of dialects in a round.
    pub window: Duration,
    /// Number of concurrent sessions.
    pub concurrency: usize,
}

/// Resources of the server's process.
#[derive(Clone, Copy, Debug)]
struct Held {
    megabytes: f64,
    descriptors: usize,
}

fn held(process: u32) -> Result<Held> {
    let memory = Processes::new(&[process])?.read()?.memory;
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd"))?.count();
    Ok(Held { megabytes: memory as f64 / (1 << 20) as f64, descriptors })
}

/// Returns true if sessions were measured, and none of them failed.
fn is_whole<E>(result: &Result<SessionsResult, E>) -> bool {
    result.as_ref().is_ok_and(|result| result.lost.count == 0)
}

/// Runs the plan, and prints a line for each minute.
///
/// # Errors
/// The memory or the descriptors have grown, or sessions failed.
pub async fn soak(gateway: &Path, plan: Plan) -> Result<()> {
    let server = Server::gateway_with(gateway, &["--log", "error"]).await?;
    let process = server.pid().context("the server has ended")?;
    let target = Target::parse(&format!("ws://{}", server.addr))?;
    let at_start = held(process)?;
    println!("at the start: {:.1} MB, {} descriptors", at_start.megabytes, at_start.descriptors);
    let protocols: Vec<Protocol> = Protocol::all().collect();
    let (mut met, mut foreign) = (BTreeSet::new(), BTreeSet::new());
    let begin = Instant::now();
    let (mut warm, mut most, mut last) = (0.0_f64, 0.0_f64, at_start);
    let (mut total, mut streams, mut reported) = (0_u64, 0_u64, 0);
    for round in 0.. {
        for (index, member) in protocols.iter().enumerate() {
            let other = protocols.get((index + round) % protocols.len()).copied().unwrap_or(*member);
            let pair = (*member, other);
            let joiner = if foreign.contains(&pair) { *member } else { other };
            let session = SessionsPlan {
                member: *member,
                joiner,
                concurrency: plan.concurrency,
                duration: plan.window,
            };
            let result = sessions(&target, &session, None, &Progress::default()).await;
            // A mixed pair may have no message in common. It has to show that the first time.
            if joiner != *member && !met.contains(&pair) && !is_whole(&result) {
                foreign.insert(pair);
                continue;
            }
            let result = result?;
            ensure!(
                result.lost.count == 0,
                "{} and {}: {:?}",
                member.name(),
                joiner.name(),
                result.lost.first
            );
            met.insert((*member, joiner));
            total += result.sessions;
        }
        streams += stream_sessions(server.addr, &plan).await?;
        sleep(SETTLING).await;
        last = held(process)?;
        match begin.elapsed() < plan.warm_up {
            true => warm = warm.max(last.megabytes),
            false => most = most.max(last.megabytes),
        }
        let minutes = begin.elapsed().as_secs() / 60;
        if minutes > reported {
            reported = minutes;
            println!(
                "{minutes} min: {:.1} MB, {} descriptors, {total} sessions, {streams} over event streams",
                last.megabytes, last.descriptors
            );
        }
        if begin.elapsed() >= plan.warm_up + plan.duration {
            break;
        }
    }
    println!(
        "{:.1} min, {total} sessions of {} pairs of dialects and {streams} over event streams: {warm:.1} MB after the warm-up, then at most \
         {most:.1} MB ({:.2} ×), {} → {} descriptors",
        begin.elapsed().as_secs_f64() / 60.0,
        met.len(),
        most / warm,
        at_start.descriptors,
        last.descriptors
    );
    ensure!(most <= warm * MAX_GROWTH, "the memory has grown by more than {MAX_GROWTH} ×");
    ensure!(last.descriptors <= at_start.descriptors + 2, "descriptors are not given back");
    Ok(())
}

/// Runs sessions of sigver 9 over event streams. Returns their number.
async fn stream_sessions(server: SocketAddr, plan: &Plan) -> Result<u64> {
    let until = Instant::now() + plan.window;
    let mut tasks = JoinSet::new();
    for _ in 0..plan.concurrency {
        tasks.spawn(async move {
            let mut count = 0;
            while Instant::now() < until {
                stream_session(server).await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut sum = 0;
    while let Some(count) = tasks.join_next().await {
        sum += count?.context("a session over event streams")?;
    }
    Ok(sum)
}

/// Opens a room, joins it, and exchanges a message each way, over two event streams.
async fn stream_session(server: SocketAddr) -> Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let key = format!("stream-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut opener = EventStream::open(server).await?;
    let mut joiner = EventStream::open(server).await?;
    opener.post(&format!("{{\"open\":\"{key}\"}}")).await?;
    opener.until("\"opened\":true").await?;
    joiner.post(&format!("{{\"join\":\"{key}\"}}")).await?;
    joiner.until("\"opened\":false").await?;
    joiner.post("{\"data\":{\"offer\":1}}").await?;
    let offer = opener.until("\"offer\":1").await?;
    let (_, link) = offer.rsplit_once("{\"id\":").context("no id in the offer")?;
    let link = link.split(',').next().unwrap_or_default();
    opener.post(&format!("{{\"id\":{link},\"data\":{{\"answer\":1}}}}")).await?;
    joiner.until("\"answer\":1").await?;
    Ok(())
}

/// A client of an event stream.
struct EventStream {
    server: SocketAddr,
    stream: TcpStream,
    received: String,
    id: String,
}

impl EventStream {
    async fn open(server: SocketAddr) -> Result<EventStream> {
        let mut stream = TcpStream::connect(server).await?;
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nOrigin: http://a.example\r\n\r\n";
        stream.write_all(request.as_bytes()).await?;
        let (received, id) = (String::new(), String::new());
        let mut client = EventStream { server, stream, received, id };
        let head = client.until("event: auth\ndata: ").await?;
        ensure!(head.starts_with("HTTP/1.1 200"), "no event stream: {head}");
        let rest = client.until("\n\n").await?;
        client.id = rest.trim().to_owned();
        Ok(client)
    }

    /// Receives up to this text. Returns what was received, with it.
    async fn until(&mut self, text: &str) -> Result<String> {
        loop {
            if let Some(at) = self.received.find(text) {
                let rest = self.received.split_off(at + text.len());
                return Ok(std::mem::replace(&mut self.received, rest));
            }
            let mut buffer = [0; 2048];
            let read = timeout(EVENT_TIMEOUT, self.stream.read(&mut buffer)).await;
            match read.with_context(|| format!("no {text}; received {:?}", self.received))?? {
                0 => bail!("the stream ends without {text}: {:?}", self.received),
                count => self.received.push_str(&String::from_utf8_lossy(&buffer[..count])),
            }
        }
    }

    async fn post(&self, message: &str) -> Result<()> {
        let body = format!("{}@{message}", self.id);
        let mut stream = TcpStream::connect(self.server).await?;
        let head = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://a.example\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "a message was refused: {answer}");
        Ok(())
    }
}
