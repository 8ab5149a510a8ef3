//! A signaling server of sigver 9 with faults, each of which the matrix must find. No assertions here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_tungstenite::tungstenite::Message;

/// Fault of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing, but that it does not report that a peer has left.
    None,
    /// A message for one joiner is sent to all of them.
    Broadcasts,
    /// All joiners have the same id.
    OneId,
    /// A joiner's data lose something on the way.
    Alters,
    /// Only the first of several messages goes down to a joiner.
    Forgets,
    /// A joiner of a closed room receives that it is bound.
    Lies,
}

/// A peer's way out.
type Out = UnboundedSender<Value>;

#[derive(Default)]
struct Room {
    member: Option<Out>,
    joiners: Vec<(Out, usize)>,
}

type Rooms = Arc<Mutex<HashMap<String, Room>>>;

pub async fn start(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let rooms = Rooms::default();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, fault, Arc::clone(&rooms)));
        }
    });
    address
}

async fn serve(stream: TcpStream, fault: Fault, rooms: Rooms) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let (out, mut outgoing) = unbounded_channel::<Value>();
    let (mut key, mut place) = (String::new(), None);
    loop {
        tokio::select! {
            came = socket.next() => match came {
                Some(Ok(Message::Text(text))) => {
                    let value: Value = serde_json::from_str(&text).unwrap_or_default();
                    let mut rooms = rooms.lock().unwrap();
                    for name in ["open", "join"] {
                        if let Some(asked) = value[name].as_str() {
                            key = asked.to_owned();
                        }
                    }
                    let room = rooms.entry(key.clone()).or_default();
                    handle(room, &value, &out, &mut place, fault);
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            Some(value) = outgoing.recv() => {
                if socket.send(Message::text(value.to_string())).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn handle(room: &mut Room, value: &Value, out: &Out, place: &mut Option<usize>, fault: Fault) {
    let send = |out: &Out, value: Value| drop(out.send(value));
    if !value["open"].is_null() || !value["join"].is_null() && room.member.is_none() && fault != Fault::Lies {
        room.member = Some(out.clone());
        send(out, json!({"opened": true}));
    } else if !value["join"].is_null() {
        *place = Some(room.joiners.len());
        room.joiners.push((out.clone(), 0));
        send(out, json!({"opened": false}));
    } else if let (Some(place), Some(member)) = (*place, &room.member) {
        let mut data = value["data"].clone();
        if fault == Fault::Alters {
            let text = data.to_string().replace("-2.5", "-2");
            data = serde_json::from_str(&text).unwrap();
        }
        let id = if fault == Fault::OneId { 1 } else { place + 1 };
        send(member, json!({"id": id, "data": data}));
    } else if let Some(id) = value["id"].as_u64() {
        let data = json!({"data": value["data"]});
        for (place, (joiner, received)) in room.joiners.iter_mut().enumerate() {
            let meant = place as u64 + 1 == id;
            *received += usize::from(meant);
            if meant && !(fault == Fault::Forgets && *received > 1) || fault == Fault::Broadcasts {
                send(joiner, data.clone());
            }
        }
    }
}
