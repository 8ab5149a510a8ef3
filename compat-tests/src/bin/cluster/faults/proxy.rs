//! A TCP proxy between the processes of a test, that can cut and delay what goes through it, by the process
//! that connected.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// The treatment of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Passage {
    /// Connections pass.
    #[default]
    Open,
    /// Connections end, and new ones are refused.
    Cut,
    /// Nothing passes, and neither end is notified: a cable that was pulled out.
    HalfOpen,
    /// All passes later.
    Delayed(Duration),
}

/// A proxy in front of one server.
#[derive(Debug)]
pub(crate) struct FaultProxy {
    pub(crate) address: SocketAddr,
    passages: Mutex<HashMap<usize, watch::Sender<Passage>>>,
}

/// The number of the client that connected, by the addresses of its end and of the proxy.
pub(crate) type Identify = Arc<dyn Fn(SocketAddr, SocketAddr) -> usize + Send + Sync>;

impl FaultProxy {
    /// Starts a proxy in front of `server`.
    pub(crate) async fn start(server: SocketAddr, identify: Identify) -> Result<Arc<FaultProxy>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let proxy = Arc::new(FaultProxy { address, passages: Mutex::default() });
        let accepting = Arc::clone(&proxy);
        tokio::spawn(async move {
            while let Ok((stream, from)) = listener.accept().await {
                let passage = accepting.passage(identify(from, address));
                if *passage.borrow() != Passage::Cut {
                    tokio::spawn(forward(stream, server, passage));
                }
            }
        });
        Ok(proxy)
    }

    /// Sets the treatment of the connections of a client, also of those that are open.
    pub(crate) fn set(&self, client: usize, passage: Passage) {
        self.passages
            .lock()
            .entry(client)
            .or_insert_with(|| watch::channel(Passage::Open).0)
            .send_replace(passage);
    }

    fn passage(&self, client: usize) -> watch::Receiver<Passage> {
        let mut passages = self.passages.lock();
        passages.entry(client).or_insert_with(|| watch::channel(Passage::Open).0).subscribe()
    }
}

async fn forward(client: TcpStream, server: SocketAddr, mut passage: watch::Receiver<Passage>) {
    if passage.wait_for(|passage| *passage != Passage::HalfOpen).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((client_read, client_write), (server_read, server_write)) =
        (client.into_split(), server.into_split());
    let (there, back) = (passage.clone(), passage.clone());
    let cut = async {
        let _ = passage.wait_for(|passage| *passage == Passage::Cut).await;
    };
    tokio::select! {
        () = cut => {}
        () = copy(client_read, server_write, there) => {}
        () = copy(server_read, client_write, back) => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut passage: watch::Receiver<Passage>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let Ok(passage) =
            passage.wait_for(|passage| *passage != Passage::HalfOpen).await.map(|passage| *passage)
        else {
            return;
        };
        if let Passage::Delayed(delay) = passage {
            sleep(delay).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    // An end is no news on a cable that was pulled out.
    let _ = passage.wait_for(|passage| *passage != Passage::HalfOpen).await;
}
