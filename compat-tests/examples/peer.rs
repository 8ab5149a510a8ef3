//! An example peer: `cargo run -p compat-tests --example peer -- hello`, in two terminals. With `--json` a
//! peer speaks the JSON protocol of 2016 instead; the gateway translates between the two.
//!
//! An illustration of the wire: frames are written by hand, byte for byte. The clients that tests and tools
//! use are in `sigver::tools::client`.

use std::io::{BufRead, stdin};
use std::thread;

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const SERVER: &str = "127.0.0.1:8000";

type Socket = WebSocketStream<TcpStream>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (flags, names): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|arg| arg.starts_with('-'));
    let [key, server @ ..] = &names[..] else { bail!("usage: peer [--json] <key> [<host>:<port>]") };
    let server = server.first().map_or(SERVER, String::as_str);
    let (sender, lines) = mpsc::unbounded_channel();
    // Reading the terminal blocks, so it has a thread of its own.
    thread::spawn(move || {
        stdin().lock().lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    if flags.iter().any(|flag| flag == "--json") {
        json(server, key, lines).await
    } else {
        current(server, key, lines).await
    }
}

async fn connect(server: &str, path: &str) -> Result<Socket> {
    let stream = TcpStream::connect(server).await.with_context(|| format!("no server at {server}"))?;
    Ok(tokio_tungstenite::client_async(format!("ws://{server}/{path}"), stream).await?.0)
}

/// Runs a sigver-20 peer: the key is the path, messages are protobuf.
async fn current(server: &str, key: &str, mut lines: mpsc::UnboundedReceiver<String>) -> Result<()> {
    let mut socket = connect(server, key).await?;
    // connect { id: 7 }
    socket.send(Message::binary(vec![0x1a, 2, 0x08, 7])).await?;
    let mut others: Vec<u32> = vec![0];
    loop {
        tokio::select! {
            message = socket.next() => match message.context("the server ended the connection")?? {
                Message::Binary(bytes) => match &bytes[..] {
                    [0x08, _] => socket.send(Message::Binary(bytes)).await?, // heartbeat
                    [0x20, 1] => println!("You are the first in '{key}'. Start another peer, and type something."),
                    [0x20, 0] => println!("You are linked to a member of '{key}'. Type something."),
                    [0x12, content @ ..] => {
                        // content { senderId = 1, recipientId = 2, data = 4 }
                        let (_, content) = varint(content)?;
                        let (sender, content) = varint(content.get(1..).unwrap_or_default())?;
                        let (_, content) = varint(content.get(1..).unwrap_or_default())?;
                        let Some((0x22, data)) = content.split_first() else { println!("peer {sender} has left"); continue };
                        if !others.contains(&sender) {
                            others.push(sender);
                        }
                        println!("< {}", String::from_utf8_lossy(varint(data)?.1));
                    }
                    other => println!("? {other:02x?}"),
                },
                Message::Close(frame) => bail!("closed: {frame:?}"),
                _ => {}
            },
            line = lines.recv() => {
                let Some(line) = line else { return Ok(()) };
                // JSON, so that peers of the JSON dialects receive more than bytes.
                let data = serde_json::Value::from(line).to_string();
                // Sent to every known joiner; 0 addresses the member that the peer is linked to.
                for other in if others.len() > 1 { &others[1..] } else { &others[..] } {
                    let mut content = vec![0x10];
                    put_varint(&mut content, *other);
                    content.push(0x22);
                    put_varint(&mut content, data.len() as u32);
                    content.extend_from_slice(data.as_bytes());
                    let mut message = vec![0x12];
                    put_varint(&mut message, content.len() as u32);
                    message.extend(content);
                    socket.send(Message::binary(message)).await?;
                }
            }
        }
    }
}

/// Runs a sigver-5 peer of 2016: the key is in the first message, messages are JSON.
async fn json(server: &str, key: &str, mut lines: mpsc::UnboundedReceiver<String>) -> Result<()> {
    let mut socket = connect(server, "").await?;
    socket.send(Message::text(format!(r#"{{"type":"open","key":"{key}"}}"#))).await?;
    let mut opener = true;
    let mut joiners = 0;
    println!("You asked to open '{key}'. Start another peer, and type something.");
    loop {
        tokio::select! {
            message = socket.next() => match message.context("the server ended the connection")?? {
                Message::Text(text) if text.as_str() == r#"{"type":"join"}"# => {
                    joiners += 1;
                    println!("A peer has joined.");
                }
                Message::Text(text) => println!("< {text}"),
                Message::Close(Some(_)) if opener => {
                    // Another peer opened the room first: join instead.
                    opener = false;
                    socket = connect(server, "").await?;
                    socket.send(Message::text(format!(r#"{{"type":"join","key":"{key}"}}"#))).await?;
                    println!("The room has a peer already: you have joined.");
                }
                Message::Close(frame) => bail!("closed: {frame:?}"),
                _ => {}
            },
            line = lines.recv() => {
                let Some(line) = line else { return Ok(()) };
                let data = serde_json::Value::from(line);
                if opener {
                    for index in 0..joiners {
                        socket.send(Message::text(format!(r#"{{"index":{index},"data":{data}}}"#))).await?;
                    }
                } else {
                    socket.send(Message::text(format!(r#"{{"data":{data}}}"#))).await?;
                }
            }
        }
    }
}

fn varint(bytes: &[u8]) -> Result<(u32, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        value |= u32::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[at + 1..]));
        }
    }
    bail!("no protobuf")
}

fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
