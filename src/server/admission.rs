//! Admission of connections before anything is read from them, and of event streams: their number in all and
//! per address, the rate of new ones, and the memory of the process.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::task::AbortHandle;

use super::address_table::{AddressLimits, AddressTable, ClientNetwork};
use super::client_endpoint::ClientEndpoint;
use super::clock;
use super::fd_limit;
use super::memory::{CONNECTION, EVENT_STREAM, MemoryBudget};
use super::telemetry::{LimitKind, Telemetry};
use crate::config::ServerLimits;

/// Maximum number of refused clients at the same time that are given the time to read the response. The
/// oldest that was sent it gives way to a new one.
const MAX_LINGERING: usize = 256;
/// Maximum number of refused clients at the same time, those included that were not sent the response yet: a
/// crowd arrives before the first of them is.
const MAX_REFUSED: usize = 2 * MAX_LINGERING;
/// Time that a refused client has to read the response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Reason in the response of a node that another one has replaced.
const REPLACED: &str = "another node has replaced this one";

/// Reason for which a new connection is refused.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ConnectionRefusal {
    /// A limit is reached.
    Limit(LimitKind),
    /// This server is a node of a cluster that another node has replaced.
    Replaced,
}

/// Decides about new connections and event streams.
#[derive(Debug)]
pub struct Admission {
    max_connections: AtomicU32,
    open: Arc<AtomicU32>,
    /// True if anything is limited by address. Otherwise `addresses` is not used.
    limits_addresses: AtomicBool,
    addresses: Arc<Mutex<AddressTable>>,
    /// The permit of connections that are not counted by address.
    without_address: Arc<PermitOwner>,
    memory: Arc<MemoryBudget>,
    telemetry: Arc<Telemetry>,
    /// Refused clients, oldest first.
    refused: Mutex<VecDeque<RefusedClient>>,
}

/// A refused client that is being answered.
#[derive(Debug)]
struct RefusedClient {
    task: AbortHandle,
    /// True once the response was sent.
    is_answered: Arc<AtomicBool>,
}

/// The counts that a permit gives back. Shared by all connections without an address, so that a permit is one
/// pointer and needs no memory of its own.
#[derive(Debug)]
struct PermitOwner {
    open: Arc<AtomicU32>,
    address: Option<(Arc<Mutex<AddressTable>>, ClientNetwork)>,
}

/// Counts a connection as open until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit(Arc<PermitOwner>);

/// Counts an event stream of an address as open until it is dropped. Behind a proxy, it also counts as a
/// connection of the address.
#[derive(Debug)]
pub(crate) struct StreamPermit {
    address: Option<(Arc<Mutex<AddressTable>>, ClientNetwork)>,
    is_connection: bool,
}

impl Admission {
    pub(crate) fn new(
        limits: &ServerLimits,
        memory: &Arc<MemoryBudget>,
        telemetry: &Arc<Telemetry>,
    ) -> Arc<Self> {
        let open = Arc::new(AtomicU32::new(0));
        let admission = Admission {
            max_connections: AtomicU32::new(0),
            without_address: Arc::new(PermitOwner { open: Arc::clone(&open), address: None }),
            open,
            limits_addresses: AtomicBool::new(false),
            addresses: Arc::new(Mutex::new(AddressTable::new(AddressLimits::default()))),
            memory: Arc::clone(memory),
            telemetry: Arc::clone(telemetry),
            refused: Mutex::default(),
        };
        admission.set_limits(limits);
        Arc::new(admission)
    }

    /// Replaces the limits. Connections that exceed them stay; those that were admitted without a limit by
    /// address are not counted by address.
    pub(in crate::server) fn set_limits(&self, limits: &ServerLimits) {
        let by_address = AddressLimits {
            connections: limits.max_connections_per_address,
            rate: limits.max_connection_rate,
            streams: limits.max_streams_per_address,
        };
        fd_limit::warn_if_lacking(limits);
        self.max_connections.store(fd_limit::configured_connections(limits), Ordering::Relaxed);
        self.addresses.lock().set_limits(by_address);
        self.limits_addresses.store(by_address.any(), Ordering::Relaxed);
    }

    /// Returns the limit of connections at the same time.
    pub(super) fn max_connections(&self) -> u32 {
        self.max_connections.load(Ordering::Relaxed)
    }

    /// Returns where a client is counted by its address; `None` if it is not.
    fn counted_by_address(
        &self,
        endpoint: ClientEndpoint,
    ) -> Option<(&Arc<Mutex<AddressTable>>, ClientNetwork)> {
        let is_limited = self.limits_addresses.load(Ordering::Relaxed);
        Some((&self.addresses, counted_network(endpoint).filter(|_| is_limited)?))
    }

    /// Returns the memory that is held for clients.
    pub(crate) fn memory(&self) -> &Arc<MemoryBudget> {
        &self.memory
    }

    /// Returns the number of connections that are open.
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// Admits a connection, or counts and returns the limit that it would exceed. The connection of a trusted
    /// proxy is not limited by its address.
    pub(crate) fn admit_connection(&self, endpoint: ClientEndpoint) -> Result<ConnectionPermit, LimitKind> {
        self.try_admit(endpoint).inspect_err(|kind| self.telemetry.count_limit_of(*kind, endpoint))
    }

    /// Admits a client whose connection was admitted as that of a proxy, or counts and returns the limit that
    /// it would exceed. The permit, if there is one, replaces that of the connection.
    pub(crate) fn admit_client(
        &self,
        endpoint: ClientEndpoint,
    ) -> Result<Option<ConnectionPermit>, LimitKind> {
        self.address_permit(endpoint).inspect_err(|kind| self.telemetry.count_limit_of(*kind, endpoint))
    }

    /// Returns a permit for the address of a connection, which counts as open then; `None` if the address is
    /// not limited.
    fn address_permit(&self, endpoint: ClientEndpoint) -> Result<Option<ConnectionPermit>, LimitKind> {
        let Some((addresses, network)) = self.counted_by_address(endpoint) else {
            return Ok(None);
        };
        addresses.lock().admit_connection(network, clock::now())?;
        self.open.fetch_add(1, Ordering::Relaxed);
        let owner =
            PermitOwner { open: Arc::clone(&self.open), address: Some((Arc::clone(addresses), network)) };
        Ok(Some(ConnectionPermit(Arc::new(owner))))
    }

    fn try_admit(&self, endpoint: ClientEndpoint) -> Result<ConnectionPermit, LimitKind> {
        self.memory.note_growth(CONNECTION);
        if self.memory.refuses_clients() {
            return Err(LimitKind::Memory);
        }
        let max_connections = self.max_connections.load(Ordering::Relaxed);
        let more = |open: u32| open.checked_add(1).filter(|open| *open <= max_connections);
        let counted = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.map_err(|_| LimitKind::Connections)?;
        // Gives the count back if the address is refused.
        let permit = ConnectionPermit(Arc::clone(&self.without_address));
        match endpoint.behind_proxy {
            true => Ok(permit),
            false => self.address_permit(endpoint).map(|of_address| of_address.unwrap_or(permit)),
        }
    }

    /// Admits an event stream, or counts and returns the limit that it would exceed.
    pub(crate) fn admit_stream(&self, endpoint: ClientEndpoint) -> Result<StreamPermit, LimitKind> {
        if self.memory.refuses_clients() {
            self.telemetry.count_limit_of(LimitKind::Memory, endpoint);
            return Err(LimitKind::Memory);
        }
        self.admit_sending(endpoint)
    }

    /// Admits the response to a client of an event stream that sends, which is held open like a stream; or
    /// counts and returns the limit that it would exceed.
    pub(crate) fn admit_sending(&self, endpoint: ClientEndpoint) -> Result<StreamPermit, LimitKind> {
        self.memory.note_growth(EVENT_STREAM);
        let admitted = match self.counted_by_address(endpoint) {
            None => Ok(StreamPermit { address: None, is_connection: false }),
            Some((addresses, network)) => {
                let is_connection = endpoint.behind_proxy;
                let permit =
                    || StreamPermit { address: Some((Arc::clone(addresses), network)), is_connection };
                addresses.lock().admit_stream(network, is_connection, clock::now()).map(|()| permit())
            }
        };
        admitted.inspect_err(|kind| self.telemetry.count_limit_of(*kind, endpoint))
    }

    /// Counts a refused request like a new connection of its address: it may be a guess of a token or a key.
    pub(super) fn count_refusal(&self, endpoint: ClientEndpoint) {
        if let Some((addresses, network)) = self.counted_by_address(endpoint) {
            addresses.lock().count_refusal(network, clock::now());
        }
    }

    /// Returns true, and counts the limit, if the address of a client has reached its rate.
    pub(super) fn is_at_rate(&self, endpoint: ClientEndpoint) -> bool {
        let counted = self.counted_by_address(endpoint);
        let is_at_rate =
            counted.is_some_and(|(addresses, network)| addresses.lock().is_at_rate(network, clock::now()));
        if is_at_rate {
            self.telemetry.count_limit_of(LimitKind::ConnectionRate, endpoint);
        }
        is_at_rate
    }

    /// Sends the response to a refused client, in plain HTTP, and closes. Nothing that it sends is looked at.
    pub(crate) fn refuse(
        &self,
        cause: impl Into<ConnectionRefusal>,
        mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) {
        let response = match cause.into() {
            ConnectionRefusal::Limit(kind) => response(kind),
            ConnectionRefusal::Replaced => refusal("503 Service Unavailable", REPLACED),
        };
        let is_answered = Arc::new(AtomicBool::new(false));
        let answered = Arc::clone(&is_answered);
        let task = tokio::spawn(async move {
            let respond = async {
                stream.write_all(response.as_bytes()).await?;
                stream.shutdown().await?;
                answered.store(true, Ordering::Relaxed);
                // A connection that is closed with something unread is reset, which can destroy the response.
                let mut discarded = [0; 512];
                while stream.read(&mut discarded).await? > 0 {}
                std::io::Result::Ok(())
            };
            let _ = tokio::time::timeout(LINGER_TIMEOUT, respond).await;
        });
        let mut refused = self.refused.lock();
        if refused.len() >= MAX_LINGERING {
            refused.retain(|client| !client.task.is_finished());
        }
        while refused.len() >= MAX_LINGERING {
            let answered = refused.iter().position(|client| client.is_answered.load(Ordering::Relaxed));
            let oldest = (refused.len() >= MAX_REFUSED).then_some(0);
            let Some(client) = answered.or(oldest).and_then(|index| refused.remove(index)) else { break };
            client.task.abort();
        }
        refused.push_back(RefusedClient { task: task.abort_handle(), is_answered });
    }
}

impl From<LimitKind> for ConnectionRefusal {
    fn from(kind: LimitKind) -> Self {
        ConnectionRefusal::Limit(kind)
    }
}

/// Returns the network by which the connections of a client are counted. `None` if the address is not that of
/// the client, as on a Unix socket, whose peer is a proxy or another program on this machine.
fn counted_network(endpoint: ClientEndpoint) -> Option<ClientNetwork> {
    endpoint.remote.map(ClientNetwork::from)
}

/// Returns the response to a client that is refused because of a limit.
fn response(kind: LimitKind) -> String {
    let status = match kind {
        LimitKind::ConnectionsPerAddress | LimitKind::ConnectionRate => "429 Too Many Requests",
        _ => "503 Service Unavailable",
    };
    refusal(status, refusal_text(kind))
}

/// Returns the reason in the response to a client that is refused because of a limit.
const fn refusal_text(kind: LimitKind) -> &'static str {
    match kind {
        LimitKind::ConnectionsPerAddress => "your address has too many connections",
        LimitKind::ConnectionRate => "your address connects too often",
        LimitKind::Memory => "this server is short of memory",
        _ => "this server has too many connections",
    }
}

/// Returns the reason in a response if it is one by which a server refuses new clients.
pub(crate) fn refusal_in(response: &str) -> Option<&'static str> {
    let (_, reason) = response.strip_suffix('\n')?.rsplit_once(": ")?;
    let mut texts = LimitKind::all().iter().map(|kind| refusal_text(*kind)).chain([REPLACED]);
    texts.find(|text| *text == reason)
}

fn refusal(status: &str, text: &str) -> String {
    let body = format!("{status}: {text}\n");
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Access-Control-Allow-Origin: *\r\nRetry-After: 1\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let PermitOwner { open, address } = &*self.0;
        open.fetch_sub(1, Ordering::Relaxed);
        if let Some((addresses, network)) = address {
            addresses.lock().release_connection(*network);
        }
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        if let Some((addresses, network)) = &self.address {
            let mut table = addresses.lock();
            table.release_stream(*network);
            if self.is_connection {
                table.release_connection(*network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use tokio::io::DuplexStream;

    use super::*;

    fn admission(limits: &ServerLimits) -> (Arc<Admission>, Arc<Telemetry>) {
        let telemetry = Telemetry::new();
        (Admission::new(limits, &MemoryBudget::new(1000), &telemetry), telemetry)
    }

    fn endpoint(last: u8) -> ClientEndpoint {
        ClientEndpoint {
            remote: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))),
            tls: false,
            behind_proxy: false,
        }
    }

    #[test]
    fn permits_count_until_they_are_dropped() {
        let limits = ServerLimits {
            max_connections: Some(3),
            max_connections_per_address: Some(2),
            max_streams_per_address: Some(1),
            ..ServerLimits::default()
        };
        let (admission, telemetry) = admission(&limits);
        let first = admission.admit_connection(endpoint(1)).unwrap();
        let second = admission.admit_connection(endpoint(1)).unwrap();
        assert_eq!(admission.admit_connection(endpoint(1)).unwrap_err(), LimitKind::ConnectionsPerAddress);
        // The refused one is not counted.
        assert_eq!(admission.open(), 2);
        let unix = ClientEndpoint { remote: None, tls: false, behind_proxy: false };
        let third = admission.admit_connection(unix).unwrap();
        assert_eq!(admission.admit_connection(unix).unwrap_err(), LimitKind::Connections);
        let stream = admission.admit_stream(endpoint(1)).unwrap();
        assert_eq!(admission.admit_stream(endpoint(1)).unwrap_err(), LimitKind::StreamsPerAddress);
        assert!(admission.admit_stream(unix).is_ok());
        drop((first, second, third, stream));
        assert_eq!(admission.open(), 0);
        assert!(
            admission.admit_connection(endpoint(1)).is_ok() && admission.admit_stream(endpoint(1)).is_ok()
        );
        let counts = [LimitKind::Connections, LimitKind::ConnectionsPerAddress, LimitKind::StreamsPerAddress];
        assert_eq!(counts.map(|kind| telemetry.limit_count(kind)), [1, 1, 1]);
    }

    #[test]
    fn new_limits_are_those_of_connections_to_come() {
        let (admission, telemetry) = admission(&ServerLimits::default());
        let before = [admission.admit_connection(endpoint(1)), admission.admit_connection(endpoint(1))];
        let by_address = ServerLimits { max_connections_per_address: Some(1), ..ServerLimits::default() };
        admission.set_limits(&by_address);
        let counted = admission.admit_connection(endpoint(1)).unwrap();
        assert!(admission.admit_connection(endpoint(1)).is_err());
        admission.set_limits(&ServerLimits { max_connections: Some(3), ..ServerLimits::default() });
        assert!(admission.admit_connection(endpoint(2)).is_err());
        drop((before, counted));
        assert_eq!(admission.open(), 0);
        let after: Vec<_> = (0..3).map(|_| admission.admit_connection(endpoint(1)).unwrap()).collect();
        admission.set_limits(&by_address);
        // Those that were admitted without a limit are not counted.
        assert!(admission.admit_connection(endpoint(1)).is_ok());
        let counts = [LimitKind::Connections, LimitKind::ConnectionsPerAddress];
        assert_eq!((counts.map(|kind| telemetry.limit_count(kind)), after.len()), ([1, 1], 3));
    }

    #[test]
    fn permit_is_one_pointer() {
        assert_eq!(size_of::<ConnectionPermit>(), size_of::<usize>());
    }

    /// Refuses a crowd before any of its tasks runs. Returns the clients.
    fn refuse_crowd(admission: &Admission, size: usize) -> Vec<DuplexStream> {
        let refuse = |_| {
            let (client, server) = tokio::io::duplex(1024);
            admission.refuse(LimitKind::Connections, server);
            client
        };
        (0..size).map(refuse).collect()
    }

    /// Returns the number of clients that receive a response.
    async fn answered(clients: &mut [DuplexStream]) -> usize {
        let mut answered = 0;
        for client in clients {
            answered += usize::from(client.read_exact(&mut [0; 12]).await.is_ok());
        }
        answered
    }

    #[tokio::test(start_paused = true)]
    async fn each_of_a_crowd_is_sent_its_response_before_another_one_takes_its_place() {
        let (admission, _telemetry) = admission(&ServerLimits::default());
        let mut crowd = refuse_crowd(&admission, MAX_REFUSED);
        assert_eq!(answered(&mut crowd).await, MAX_REFUSED);
        // They still have the time to read it. Those that were sent it first give way.
        let mut next = refuse_crowd(&admission, MAX_LINGERING);
        assert!(admission.refused.lock().len() <= MAX_REFUSED);
        assert_eq!(answered(&mut next).await, MAX_LINGERING);
        // There is a bound all the time.
        let mut late = refuse_crowd(&admission, MAX_REFUSED + 1);
        assert_eq!(admission.refused.lock().len(), MAX_REFUSED);
        assert_eq!(answered(&mut late).await, MAX_REFUSED);
        // Nothing of it stays.
        tokio::time::sleep(2 * LINGER_TIMEOUT).await;
        drop(refuse_crowd(&admission, MAX_LINGERING + 1));
        assert!(admission.refused.lock().len() <= MAX_LINGERING + 1);
    }

    #[test]
    fn refusals_are_responses_of_http() {
        for (kind, status) in [
            (LimitKind::Connections, "503 "),
            (LimitKind::Memory, "503 "),
            (LimitKind::ConnectionRate, "429 "),
            (LimitKind::ConnectionsPerAddress, "429 "),
        ] {
            let response = response(kind);
            let (head, body) = response.split_once("\r\n\r\n").unwrap();
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status}")) && body.starts_with(status),
                "{response}"
            );
            assert!(head.contains("\r\nRetry-After: 1\r\n"), "{response}");
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{response}");
        }
    }
}
