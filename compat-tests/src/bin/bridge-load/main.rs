//! A load for `sigver bridge`: rooms of two clients of netflux 0.10.3 and two of 1.0, over UDP, which send
//! messages to each other at a rate. Fails if one is lost, doubled or out of order, or if a member is lost.

mod channel;
mod clients;
mod gateway;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;

use clients::Clients;
use gateway::Bridge;

/// Longest time until all rooms are complete.
const SETUP_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest time until what was sent has arrived.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Part by which the memory of the process may grow while rooms come and go.
const MAX_GROWTH: f64 = 0.25;

/// Load of a bridge
#[derive(Debug, Parser)]
struct Options {
    /// Program with the bridge
    #[arg(long, default_value = "target/release/sigver")]
    server_bin: PathBuf,
    /// Number of rooms, of two and two clients each
    #[arg(long, default_value_t = 200)]
    rooms: usize,
    /// Messages per second of each client, each to both clients of the other generation
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Length of a message, in bytes
    #[arg(long, default_value_t = 100)]
    length: usize,
    /// Time for which messages are sent
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Rooms that are closed and replaced each minute
    #[arg(long, default_value_t = 0)]
    churn: u32,
    /// Further arguments of the bridge
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs until all rooms are complete.
fn complete(clients: &mut Clients, rooms: usize) -> Result<()> {
    let since = Instant::now();
    while clients.complete_rooms() < rooms {
        let figures = clients.measured.figures;
        ensure!(
            since.elapsed() < SETUP_TIMEOUT,
            "{} rooms are complete: {figures:?}",
            clients.complete_rooms()
        );
        clients.run(Duration::from_millis(50))?;
    }
    Ok(())
}

/// Runs until all that was sent in the oldest rooms has arrived: a packet that the kernel drops on a busy
/// machine is sent again after a second or more.
fn drain(clients: &mut Clients, rooms: usize) -> Result<()> {
    let since = Instant::now();
    while !clients.is_drained(rooms) && since.elapsed() < DRAIN_TIMEOUT {
        clients.run(Duration::from_millis(50))?;
    }
    Ok(())
}

fn percentile(delays: &[u32], part: f64) -> f64 {
    let at = ((delays.len() as f64 * part) as usize).min(delays.len().saturating_sub(1));
    delays.get(at).map_or(0.0, |micros| f64::from(*micros) / 1_000.0)
}

fn run(options: &Options) -> Result<bool> {
    // All clients have one address, which may have half of the connections.
    let connections = (16 * options.rooms + 2_000).min(65_536).to_string();
    let limit = ["--max-connections".to_owned(), connections];
    let is_set = options.arguments.iter().any(|argument| argument.starts_with(&limit[0]));
    let arguments = if is_set { &[][..] } else { &limit };
    let bridge = Bridge::start(&options.server_bin, &[arguments, &options.arguments].concat())?;
    let mut clients = Clients::new(bridge, options.rate, options.length)?;
    let since = Instant::now();
    let idle = clients.bridge.usage()?;
    for _ in 0..options.rooms {
        clients.open_room()?;
        clients.run(Duration::from_millis(2))?;
    }
    complete(&mut clients, options.rooms)?;
    println!("{} rooms complete after {:.1} s", options.rooms, since.elapsed().as_secs_f64());
    clients.run(Duration::from_secs(2))?;
    let channels = clients.measured.figures.channels;
    let before = clients.bridge.usage()?;
    let since = Instant::now();
    clients.set_sending(true, options.rooms);
    let mut replaced = 0;
    let mut steady = before;
    let duration = Duration::from_secs(options.seconds);
    while since.elapsed() < duration {
        clients.run(Duration::from_secs(1))?;
        // Memory that is needed once is taken in the first minute.
        if since.elapsed() < Duration::from_secs(60).min(duration / 2) {
            steady = clients.bridge.usage()?;
        }
        let due = (since.elapsed().as_secs_f64() / 60.0 * f64::from(options.churn)) as u32;
        let count = (due - replaced) as usize;
        if count > 0 && since.elapsed() + Duration::from_secs(10) < duration {
            clients.set_sending(false, count);
            drain(&mut clients, count)?;
            for _ in 0..count {
                clients.close_room()?;
                clients.open_room()?;
            }
            complete(&mut clients, options.rooms)?;
            clients.set_sending(true, options.rooms);
            replaced = due;
        }
    }
    clients.set_sending(false, options.rooms);
    let elapsed = since.elapsed();
    let after = clients.bridge.usage()?;
    drain(&mut clients, options.rooms)?;
    clients.run(Duration::from_millis(1_500))?;
    let measured = &mut clients.measured;
    measured.delays.sort_unstable();
    let figures = measured.figures;
    let processor = after.processor.saturating_sub(before.processor);
    let per_message = processor.as_secs_f64() * 1e6 / measured.received.max(1) as f64;
    let per_channel = before.resident_kib.saturating_sub(idle.resident_kib) / channels.max(1);
    println!(
        "{} of {} messages arrived, in order, in {:.0} s",
        measured.received,
        measured.sent,
        elapsed.as_secs_f64()
    );
    println!(
        "delay {:.1} ms in the middle, {:.1} ms for 99 of 100, {:.1} ms at most",
        percentile(&measured.delays, 0.5),
        percentile(&measured.delays, 0.99),
        percentile(&measured.delays, 1.0)
    );
    let load = 100.0 * processor.as_secs_f64() / elapsed.as_secs_f64();
    println!("processor: {per_message:.1} µs per message, {load:.0} % of one core");
    println!(
        "memory: {} KiB idle, {} with {channels} channels ({per_channel} each), {} at the end",
        idle.resident_kib, before.resident_kib, after.resident_kib
    );
    println!("{replaced} rooms replaced; members lost: {}; {figures:?}", measured.lost_members);
    let troubles = [figures.silent, figures.overfull, figures.refused, figures.failed, figures.cut];
    let growth = after.resident_kib as f64 / steady.resident_kib as f64 - 1.0;
    let grows = options.churn > 0 && growth > MAX_GROWTH;
    if grows {
        println!("the memory has grown by {:.0} %", growth * 100.0);
    }
    let is_complete = measured.received == measured.sent && measured.received > 0;
    Ok(is_complete && measured.lost_members == 0 && troubles == [0; 5] && figures.too_fast == 0 && !grows)
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => {
            println!("1 passed, 0 failed");
            ExitCode::SUCCESS
        }
        Ok(false) => {
            println!("0 passed, 1 failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("error: {error:#}\n0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}
