//! A TCP proxy that sends each connection to the next node, as a load balancer without stickiness does.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// Starts the proxy, and returns its address.
pub(crate) async fn start(nodes: Vec<SocketAddr>) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let next = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let first = next.fetch_add(1, Ordering::Relaxed);
            let nodes = nodes.clone();
            tokio::spawn(async move {
                // The next one that listens.
                for offset in 0..nodes.len() {
                    let Ok(mut node) = TcpStream::connect(nodes[(first + offset) % nodes.len()]).await else {
                        continue;
                    };
                    let _ = (client.set_nodelay(true), node.set_nodelay(true));
                    let _ = copy_bidirectional(&mut client, &mut node).await;
                    return;
                }
            });
        }
    });
    Ok(address)
}
