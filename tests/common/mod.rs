//! Parts that the end-to-end tests share: a gateway in the process of the test on a free port, and a limit on
//! every wait.

#![allow(unreachable_pub, reason = "a crate without users")]
#![allow(dead_code, unused_macros, reason = "each crate of tests needs a part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

pub mod clients;
pub mod pairs;
pub mod process;
pub mod simulation;
pub mod sse;
pub mod ws;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;
use sigver::config::TlsFiles;
use sigver::server::admin::StatusService;
use sigver::server::fd_limit;
use sigver::server::{LocalAddress, RefusalCause};
use sigver::{Config, Gateway};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use sse::{Answer, ask_on};
use ws::{Ws, request_with};

/// Time limit of an event that is expected at once, on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);

/// Waits for something that is to happen at once.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(SOON, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

/// Waits until `condition` holds, for conditions without a notification.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, poll).await;
}

/// A gateway in this process, on a free port.
pub struct TestGateway {
    pub address: SocketAddr,
    /// Address of the admin listener, if it has a port.
    pub admin: Option<SocketAddr>,
    pub status: StatusService,
    shutdown: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl TestGateway {
    /// Starts a gateway for these protocols, with defaults for the rest.
    pub async fn start(protocol: &str) -> TestGateway {
        TestGateway::configured(|config| config.protocol = protocol.parse().unwrap()).await
    }

    /// Starts a gateway with changed defaults.
    pub async fn configured(configure: impl FnOnce(&mut Config)) -> TestGateway {
        // Several tests at a time have hundreds of connections each.
        fd_limit::raise().unwrap();
        let mut config = Config::default().with_address("127.0.0.1", 0);
        config.drain_timeout = Duration::ZERO;
        configure(&mut config);
        let gateway = Gateway::bind(config).await.unwrap();
        let (address, status) = (gateway.local_addr().unwrap(), gateway.status());
        let admin = gateway.admin_addresses().iter().find_map(|address| match address {
            LocalAddress::Tcp(address) => Some(*address),
            _ => None,
        });
        let (shutdown, requested) = oneshot::channel();
        let served = tokio::spawn(gateway.run_until(async {
            // A gateway that was dropped goes on, for clients that are still there.
            if requested.await.is_err() {
                std::future::pending::<()>().await;
            }
        }));
        TestGateway { address, admin, status, shutdown, served }
    }

    /// Returns the number of rooms.
    pub fn rooms(&self) -> usize {
        self.status.shared.hub.rooms()
    }

    /// Returns the number of refusals with this cause.
    pub fn refused(&self, cause: RefusalCause) -> u64 {
        let counts = self.status.report(sigver::StatusQuery::default()).refused;
        counts.into_iter().find(|(of, _)| *of == cause).unwrap().1
    }

    /// Sends a request for a WebSocket with more headers, each with its line end. Returns the response.
    pub async fn upgrade(&self, path: &str, headers: &str) -> Answer {
        ask_on(self.tcp().await, &request_with(path, headers)).await
    }

    /// Opens a TCP connection.
    pub async fn tcp(&self) -> TcpStream {
        let stream = soon("a connection", TcpStream::connect(self.address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Opens a WebSocket on this path.
    pub async fn ws(&self, path: &str) -> Ws<TcpStream> {
        Ws::open(self.tcp().await, path).await
    }

    /// Begins the shutdown, and returns the task that ends with it.
    pub fn begin_stop(self) -> JoinHandle<()> {
        let _ = self.shutdown.send(());
        self.served
    }

    /// Shuts the gateway down, also while clients are connected.
    pub async fn stop(self) {
        soon("the end of the gateway", self.begin_stop()).await.unwrap();
    }
}

/// The certificate and the key for TLS.
pub fn tls_files() -> TlsFiles {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
    TlsFiles {
        key: folder.join("ec-sec1.key").into(),
        cert: folder.join("ec.crt").into(),
        ca: None,
        client_ca: None,
    }
}

/// Bytes from hexadecimal digits; blanks do not count.
pub fn hex(text: &str) -> Vec<u8> {
    HEXLOWER_PERMISSIVE.decode(text.replace(' ', "").as_bytes()).unwrap()
}

/// Bytes as hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    HEXLOWER_PERMISSIVE.encode(bytes)
}
