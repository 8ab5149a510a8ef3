//! Pipes of signaller: what a listener and its connector send each other, in order and once.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{sleep, timeout};

use crate::common::ws::{Got, TEXT, Ws, frame, request};
use crate::inspector::mark;
use crate::network::SimStream;
use crate::world::{Mode, World};

/// Time limit of a message.
const ARRIVAL: Duration = Duration::from_secs(2);

/// Messages in each direction, one fewer than a pipe carries.
const MESSAGES: u32 = 7;

/// Has a listener and a connector talk under a handle, if the run serves signaller.
pub async fn run(world: Arc<World>, number: u32, mut rng: Rng) {
    if world.mode != Mode::Auto {
        return;
    }
    let name = format!("pipe{number}");
    let epoch = world.epoch();
    if let Err(error) = talk(&world, &name, &mut rng).await {
        world.trace.note(&name, &error);
        if epoch == world.epoch() && !error.contains("is not connected") {
            world.trace.violation(&name, error);
        }
    }
}

async fn talk(world: &Arc<World>, name: &str, rng: &mut Rng) -> Result<(), String> {
    let names = [format!("{name}.listener"), format!("{name}.connector")];
    let mut listener = open(world, &names[0], &format!("/listen/{name}")).await?;
    // A second listener, and the connector of another handle, are refused.
    for (path, status) in [(format!("/listen/{name}"), "409"), (format!("/connect/{name}x"), "404")] {
        match open(world, &format!("{name}.third"), &path).await {
            Err(error) if error.contains(status) || error.contains("is not connected") => {}
            other => return Err(format!("{path}: {:?}", other.err())),
        }
    }
    // What a listener sends early is delivered when its connector is there.
    let early = rng.u32(0..=2);
    for number in 0..early {
        send(&mut listener, &mark(&names[0], &names[1], number)).await?;
    }
    sleep(Duration::from_millis(rng.u64(..20_000))).await;
    let mut connector = open(world, &names[1], &format!("/connect/{name}")).await?;
    for number in 0..MESSAGES {
        if number >= early {
            send(&mut listener, &mark(&names[0], &names[1], number)).await?;
        }
        send(&mut connector, &mark(&names[1], &names[0], number)).await?;
        receive(&mut connector, &mark(&names[0], &names[1], number)).await?;
        receive(&mut listener, &mark(&names[1], &names[0], number)).await?;
    }
    listener.close(1000).await;
    for ws in [&mut listener, &mut connector] {
        match timeout(ARRIVAL, ws.next()).await {
            Ok(Got::Close(Some(1000), _)) => {}
            other => return Err(format!("{other:?} instead of a close")),
        }
    }
    Ok(())
}

async fn open(world: &Arc<World>, name: &str, path: &str) -> Result<Ws<SimStream>, String> {
    let connected = world.connect(name, world.random_link()).await;
    let (stream, _) = connected.ok_or_else(|| format!("{name} is not connected"))?;
    Ws::try_open(stream, request(path).as_bytes()).await
}

async fn send(ws: &mut Ws<SimStream>, text: &str) -> Result<(), String> {
    match ws.raw(&frame(TEXT, text.as_bytes())).await {
        true => Ok(()),
        false => Err(format!("{text} cannot be sent")),
    }
}

async fn receive(ws: &mut Ws<SimStream>, text: &str) -> Result<(), String> {
    match timeout(ARRIVAL, ws.next()).await {
        Ok(Got::Text(got)) if got == text => Ok(()),
        other => Err(format!("{other:?} instead of {text}")),
    }
}
