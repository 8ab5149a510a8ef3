//! What the end-to-end tests share: a gateway of their own on a port of its own, and a limit on every wait.

#![allow(dead_code, unused_macros, reason = "each test is a crate of its own, and needs a part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

pub mod clients;
pub mod simulation;
pub use sigver::tools::client::protobuf;
pub mod sse;
pub mod ws;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sigver::config::{EnabledTransports, LogIp, TlsFiles};
use sigver::protocol::detect::Policy;
use sigver::server::conn::{ConnectionLimits, Shared};
use sigver::server::hub::Hub;
use sigver::server::signaller::{Signaller, SignallerOptions};
use sigver::server::{self, listener, tls};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use ws::Ws;

/// How long anything that is to happen at once may take, on a machine that is busy with other things.
pub const SOON: Duration = Duration::from_secs(10);

/// Waits for something that is to happen at once.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(SOON, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

/// What a gateway is started with.
pub struct Settings {
    pub protocol: String,
    pub max_message: usize,
    pub max_pending: usize,
    pub tls: bool,
    pub transports: EnabledTransports,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            protocol: "auto".to_owned(),
            max_message: sigver::config::DEFAULT_MAX_MESSAGE,
            max_pending: sigver::config::DEFAULT_MAX_PENDING,
            tls: false,
            transports: EnabledTransports::default(),
        }
    }
}

/// A gateway within this process, behind a real port.
pub struct Gateway {
    pub address: SocketAddr,
    pub hub: Arc<Hub>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Gateway {
    /// Starts a gateway that serves these protocols, with defaults for the rest.
    pub async fn start(protocol: &str) -> Gateway {
        Gateway::with(Settings { protocol: protocol.to_owned(), ..Settings::default() }).await
    }

    pub async fn with(settings: Settings) -> Gateway {
        let protocols = Policy::parse(&settings.protocol).unwrap();
        let alone = protocols.releases.is_empty();
        let policy = Policy::new(protocols.releases);
        let limits =
            ConnectionLimits { max_pending: settings.max_pending, ping_after: Duration::from_secs(45) };
        let shared = Shared::new(policy, limits, LogIp::Off);
        let hub = Arc::clone(&shared.hub);
        let signaller = protocols.signaller.then(|| Signaller::new(SignallerOptions::default(), alone));
        let tls = settings.tls.then(|| tls::load(&tls_files()).unwrap());
        let listener = listener::bind("127.0.0.1", 0).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let options = server::Options { max_message: settings.max_message, transports: settings.transports };
        let served = tokio::spawn(server::serve(listener, tls, options, shared, signaller, async {
            let _ = stopped.await;
        }));
        Gateway { address, hub, stop, served }
    }

    /// A TCP connection.
    pub async fn tcp(&self) -> TcpStream {
        let stream = soon("a connection", TcpStream::connect(self.address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A WebSocket on this path.
    pub async fn ws(&self, path: &str) -> Ws<TcpStream> {
        Ws::open(self.tcp().await, path).await
    }

    /// Stops the gateway, which must be able to end while clients are connected.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        soon("the gateway's end", self.served).await.unwrap();
    }
}

/// The certificate and the key for TLS.
pub fn tls_files() -> TlsFiles {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
    TlsFiles { key: folder.join("ec-sec1.key"), cert: folder.join("ec.crt"), ca: None }
}

/// Bytes from hexadecimal digits; blanks do not count.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Bytes as hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
