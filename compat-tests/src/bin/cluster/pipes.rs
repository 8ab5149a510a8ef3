//! Pipes of signaller whose listener and connector are at different nodes, compared with those of one server.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::node::{NodeOptions, NodeProcess};

/// Longest time for a message or the end of a connection.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest message of the nodes with large messages, in bytes.
const LARGE: usize = 1 << 20;
/// Number of handles for which clients of all nodes listen at once.
const RACES: usize = 40;

/// One of the two clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Listener,
    Connector,
}
use Side::{Connector, Listener};

/// Something that a client does. Each message is awaited at the other side before the next step.
#[derive(Clone, Debug)]
enum Step {
    /// The connector connects.
    Connect,
    Send(Side, Message),
    /// Sends a message that the other side does not receive at once.
    Alone(Side, Message),
    /// Sends a ping, and awaits the pong.
    Ping(Side),
    /// The TCP connection ends without a close frame.
    Drop(Side),
}

fn text(side: Side, text: &str) -> Step {
    Step::Send(side, Message::text(text))
}

fn close(side: Side, code: u16) -> Step {
    Step::Alone(side, Message::Close(Some(CloseFrame { code: code.into(), reason: "bye".into() })))
}

/// Returns the scripts: those of the recording of signallerd.
fn scripts() -> Vec<(&'static str, Vec<Step>)> {
    let connected = |steps: Vec<Step>| [vec![Step::Connect], steps].concat();
    let many = |side| (0..8).map(|index| text(side, &format!("m{index}"))).collect::<Vec<_>>();
    let mut scripts = vec![
        (
            "session",
            connected(vec![
                text(Connector, "from C"),
                text(Listener, "from L"),
                Step::Send(Connector, Message::binary(&b"\x00\x01\xff"[..])),
                text(Listener, ""),
                Step::Ping(Connector),
                Step::Ping(Listener),
                text(Connector, "last"),
                close(Connector, 1000),
            ]),
        ),
        (
            "early",
            vec![
                Step::Alone(Listener, Message::text("early1")),
                Step::Alone(Listener, Message::text("early2")),
                Step::Connect,
                text(Connector, "hi"),
                close(Listener, 1000),
            ],
        ),
        ("too many of the listener", connected(many(Listener))),
        ("too many of the connector", connected(many(Connector))),
        ("drop of the listener", connected(vec![text(Connector, "x"), Step::Drop(Listener)])),
        ("drop of the connector", connected(vec![text(Connector, "x"), Step::Drop(Connector)])),
        ("drop at once", connected(vec![Step::Drop(Connector)])),
        ("no code", connected(vec![Step::Alone(Connector, Message::Close(None))])),
        ("size", connected(vec![text(Connector, &"x".repeat(1024)), text(Listener, &"y".repeat(1024))])),
    ];
    for side in [Listener, Connector] {
        for code in [1000, 1001, 4321] {
            scripts.push(("close", connected(vec![close(side, code)])));
        }
        let long = Step::Alone(side, Message::text("x".repeat(1025)));
        scripts.push(("too long", connected(vec![long])));
    }
    // A pipe that neither end closes is closed after ten seconds.
    scripts.push(("deadline", connected(vec![text(Connector, "x")])));
    scripts
}

/// Plays all scripts with the two clients at every two of three nodes, and tries what concerns handles, large
/// messages, and the end of either node.
pub(crate) async fn check(program: &Path, engine: &str) -> Result<()> {
    let single = NodeProcess::start(program, &NodeOptions::default()).await?;
    let nodes = start_nodes(program, engine, None).await?;
    let at = |index: usize| nodes[index % nodes.len()].address;
    let mut plays = Vec::new();
    for (number, (name, steps)) in scripts().into_iter().enumerate() {
        plays.push(async move {
            let pairs = [(0, 1), (1, 2), (2, 0), (1, 0)].map(|(one, other)| (at(one), at(other)));
            let places = [&[(single.address, single.address)][..], &pairs].concat();
            let plays = places.iter().enumerate().map(|(place, (listener, connector))| {
                play(*listener, *connector, format!("handle{number}p{place}"), &steps)
            });
            let found = futures_util::future::try_join_all(plays).await;
            let found = found.with_context(|| format!("{name}: a client fails"))?;
            ensure!(found.iter().all(|play| *play == found[0]), "{name} differs across nodes: {found:?}");
            Ok::<_, anyhow::Error>(())
        });
    }
    let count = plays.len();
    futures_util::future::try_join_all(plays).await?;
    handles(&[at(0), at(1), at(2)]).await?;
    races(&[at(0), at(1), at(2)]).await?;
    ends(program, engine).await?;
    large(program, engine).await?;
    println!("pipes: {count} scripts with both ends at different nodes as at one server");
    Ok(())
}

async fn start_nodes(program: &Path, engine: &str, pipe_size: Option<usize>) -> Result<Vec<NodeProcess>> {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let options = NodeOptions { engine: Some(engine.to_owned()), pipe_size, ..NodeOptions::default() };
        nodes.push(NodeProcess::start(program, &options).await?);
    }
    // They find each other.
    sleep(Duration::from_secs(3)).await;
    Ok(nodes)
}

type Client = WebSocketStream<TcpStream>;

/// Opens a WebSocket. Returns the status of a response that refuses it.
async fn open(node: SocketAddr, path: &str) -> Result<Result<Client, u16>> {
    let stream = TcpStream::connect(node).await?;
    stream.set_nodelay(true)?;
    let url = format!("ws://sigver{path}");
    match timeout(TIMEOUT, tokio_tungstenite::client_async(url, stream)).await? {
        Ok((client, _)) => Ok(Ok(client)),
        Err(Error::Http(response)) => Ok(Err(response.status().as_u16())),
        Err(error) => Err(error.into()),
    }
}

async fn opened(node: SocketAddr, path: &str) -> Result<Client> {
    open(node, path).await?.map_err(|status| anyhow::anyhow!("{path} was refused with {status}"))
}

/// Returns what arrives next, for comparison: the end of a connection without a close frame is `end`.
async fn next(client: &mut Client) -> Result<String> {
    match timeout(TIMEOUT + Duration::from_secs(2), client.next()).await.context("nothing comes")? {
        Some(Ok(Message::Text(text))) if text.len() > 64 => Ok(format!("text of {}", text.len())),
        Some(Ok(message)) => Ok(format!("{message:?}")),
        Some(Err(_)) | None => Ok("end".to_owned()),
    }
}

/// Plays a script. Returns what the listener and the connector received.
async fn play(
    listener: SocketAddr,
    connector: SocketAddr,
    handle: String,
    steps: &[Step],
) -> Result<[Vec<String>; 2]> {
    let mut clients = [Some(opened(listener, &format!("/listen/{handle}")).await?), None];
    let mut received = [Vec::new(), Vec::new()];
    for step in steps {
        match step {
            Step::Connect => {
                clients[1] = Some(opened(connector, &format!("/connect/{handle}")).await?);
            }
            Step::Send(side, message) => {
                let other = 1 - *side as usize;
                clients[*side as usize].as_mut().context("no client")?.send(message.clone()).await?;
                received[other].push(next(clients[other].as_mut().context("no client")?).await?);
            }
            Step::Alone(side, message) => {
                clients[*side as usize].as_mut().context("no client")?.send(message.clone()).await?;
            }
            Step::Ping(side) => {
                let client = clients[*side as usize].as_mut().context("no client")?;
                client.send(Message::Ping("p".into())).await?;
                received[*side as usize].push(next(client).await?);
            }
            Step::Drop(side) => drop(clients[*side as usize].take()),
        }
    }
    for (client, received) in clients.iter_mut().zip(&mut received) {
        let Some(client) = client else { continue };
        while received.last().is_none_or(|last| last != "end") {
            received.push(next(client).await?);
        }
    }
    Ok(received)
}

/// A handle is that of all nodes: taken at each, and free at each.
async fn handles(nodes: &[SocketAddr]) -> Result<()> {
    let refused = async |node: SocketAddr, path: &str| -> Result<u16> {
        open(node, path).await?.err().with_context(|| format!("{path} was opened"))
    };
    for (index, node) in nodes.iter().enumerate() {
        let (listen, connect) = (format!("/listen/handle{index}"), format!("/connect/handle{index}"));
        for other in nodes {
            ensure!(refused(*other, &connect).await? == 404, "a handle without a listener");
        }
        let listener = opened(*node, &listen).await?;
        for other in nodes {
            ensure!(refused(*other, &listen).await? == 409, "a handle with a listener");
        }
        let elsewhere = nodes[(index + 1) % nodes.len()];
        let connector = opened(elsewhere, &connect).await?;
        for other in nodes {
            ensure!(refused(*other, &connect).await? == 404, "a handle whose listener was taken");
        }
        let again = opened(elsewhere, &listen).await?;
        drop((listener, connector, again));
    }
    Ok(())
}

/// Clients that listen at once at all nodes: one at most does, and the handle is never stuck.
async fn races(nodes: &[SocketAddr]) -> Result<()> {
    let mut won = 0;
    for race in 0..RACES {
        let path = format!("/listen/race{race}");
        let attempts = nodes.iter().map(|node| open(*node, &path));
        let listeners: Vec<Client> =
            futures_util::future::try_join_all(attempts).await?.into_iter().filter_map(Result::ok).collect();
        ensure!(listeners.len() <= 1, "{} clients listen under one handle", listeners.len());
        if let Some(mut listener) = listeners.into_iter().next() {
            won += 1;
            let node = nodes[race % nodes.len()];
            let mut connector = opened(node, &format!("/connect/race{race}")).await?;
            connector.send(Message::text("x")).await?;
            ensure!(next(&mut listener).await?.contains('x'), "the listener is another one");
        }
    }
    ensure!(won > RACES / 2, "only {won} of {RACES} handles had a listener");
    Ok(())
}

/// The end of the node of either client.
async fn ends(program: &Path, engine: &str) -> Result<()> {
    let mut nodes = start_nodes(program, engine, None).await?;
    let [one, other, third] = [0, 1, 2].map(|index| nodes[index].address);
    // A stop of the connector's node: 1001 there; the listener has lost its connector.
    let mut listener = opened(one, "/listen/stop").await?;
    let mut connector = opened(other, "/connect/stop").await?;
    connector.send(Message::text("x")).await?;
    next(&mut listener).await?;
    nodes[1].signal(Signal::TERM)?;
    let (connector_end, listener_end) = (next(&mut connector).await?, next(&mut listener).await?);
    ensure!(connector_end.contains("shutting down"), "{connector_end}");
    ensure!(listener_end.contains("Internal Error"), "{listener_end}");
    // A stop of the listener's node: 1001 at both.
    let mut listener = opened(one, "/listen/stop").await?;
    let mut connector = opened(third, "/connect/stop").await?;
    nodes[0].signal(Signal::TERM)?;
    let (connector_end, listener_end) = (next(&mut connector).await?, next(&mut listener).await?);
    ensure!(connector_end.contains("shutting down") && connector_end == listener_end, "{connector_end}");
    for node in &mut nodes[..2] {
        node.ended().await?;
    }
    drop(nodes);
    // One that is killed: as if the only server was.
    let mut nodes = start_nodes(program, engine, None).await?;
    let _listener = opened(nodes[0].address, "/listen/kill").await?;
    let mut connector = opened(nodes[1].address, "/connect/kill").await?;
    nodes[0].signal(Signal::KILL)?;
    ensure!(next(&mut connector).await? == "end", "the connector of a node that was killed");
    // One that hangs: the link is cut after four seconds.
    let _listener = opened(nodes[2].address, "/listen/hang").await?;
    let mut connector = opened(nodes[1].address, "/connect/hang").await?;
    nodes[2].signal(Signal::STOP)?;
    ensure!(next(&mut connector).await? == "end", "the connector of a node that hangs");
    nodes[2].signal(Signal::CONT)?;
    nodes[0].ended().await
}

/// Messages of a mebibyte in both directions, to clients that do not read at first.
async fn large(program: &Path, engine: &str) -> Result<()> {
    let nodes = start_nodes(program, engine, Some(LARGE)).await?;
    let listener = opened(nodes[0].address, "/listen/large").await?;
    let connector = opened(nodes[1].address, "/connect/large").await?;
    let message = |index: u8| Message::binary(vec![index; LARGE]);
    let (mut to_connector, mut from_connector) = listener.split();
    let (mut to_listener, mut from_listener) = connector.split();
    let send =
        async |sink: &mut (dyn futures_util::Sink<Message, Error = Error> + Unpin + Send)| -> Result<()> {
            for index in 0..7 {
                sink.send(message(index)).await?;
            }
            Ok(())
        };
    let receive = async |stream: &mut (
                                  dyn futures_util::Stream<Item = Result<Message, Error>> + Unpin + Send
                              )|
           -> Result<()> {
        sleep(Duration::from_millis(500)).await;
        for index in 0..7 {
            match stream.next().await {
                Some(Ok(received)) if received == message(index) => {}
                Some(Ok(other)) => bail!("a message of {} bytes in place of {index}", other.len()),
                other => bail!("{other:?} in place of {index}"),
            }
        }
        Ok(())
    };
    let exchange = futures_util::future::try_join4(
        send(&mut to_connector),
        send(&mut to_listener),
        receive(&mut from_connector),
        receive(&mut from_listener),
    );
    timeout(TIMEOUT, exchange).await.context("large messages do not arrive")??;
    Ok(())
}
