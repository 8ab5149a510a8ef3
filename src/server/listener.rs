//! The listening TCP socket: binding, the notation of its address, and pauses after failures to accept.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, lookup_host};

use super::clock;
use super::log_limit::LogLimit;
use super::unix_socket::UnixSocketError;
use crate::config::PING_AFTER;
use crate::config::redact::displayed;

/// Longest queue of connections that are not accepted yet. After a restart all clients connect at the same
/// time; with the 511 of the Node.js servers some of them have to retry after a second and more. The system
/// may cap it (`net.core.somaxconn` on Linux, which is 4096 by default).
const BACKLOG: i32 = 4096;

/// Time after which the kernel gives up a connection that acknowledges nothing (`TCP_USER_TIMEOUT`, Linux).
/// Event streams have no other way to notice that a client has disconnected without a FIN, and the default of
/// Linux is a quarter of an hour. Not shorter than the time for two pings, after which WebSockets end.
pub const USER_TIMEOUT: Duration = Duration::from_secs(2 * PING_AFTER.as_secs());

/// Pause after a failure to accept for lack of resources, during which connections may close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Failure to listen, in one line. The address is the one that was tried, with its port.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The host is neither an address nor a name that resolves.
    #[error(
        "cannot listen on {host}:{port}: '{host}' is neither an IP address nor a name that resolves ({source})",
        host = displayed(host)
    )]
    Unresolved {
        /// Host of the configuration.
        host: String,
        /// Port of the configuration.
        port: u16,
        /// Cause.
        source: io::Error,
    },
    /// The port is in use.
    #[error(
        "cannot listen on {address}: the port is in use; stop what listens there, or choose another one with {options}"
    )]
    InUse {
        /// Address that was tried.
        address: SocketAddr,
        /// The options that may have named the address.
        options: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// Another address of the same server has the port.
    #[error(
        "cannot listen on {address}: this server listens there already, by another of its addresses; choose another \
         port with {options}"
    )]
    Twice {
        /// Address that was tried.
        address: SocketAddr,
        /// The options that may have named the address.
        options: &'static str,
    },
    /// The process lacks the permission.
    #[error("cannot listen on {address}: permission denied{}", privilege(*address))]
    Denied {
        /// Address that was tried.
        address: SocketAddr,
        /// Cause.
        source: io::Error,
    },
    /// The address is not of this machine.
    #[error(
        "cannot listen on {address}: this machine does not have that address; give one of its own to '-h, --host <ip>'"
    )]
    NotLocal {
        /// Address that was tried.
        address: SocketAddr,
        /// Cause.
        source: io::Error,
    },
    /// A Unix socket cannot be opened.
    #[error("cannot listen: {0}")]
    Unix(#[from] UnixSocketError),
    /// There is no socket of this name from systemd.
    #[error(
        "cannot listen on fd:{name}: systemd gave no socket of that name ({source}); the socket unit needs \
         FileDescriptorName={name}"
    )]
    Inherited {
        /// Name of the configuration.
        name: String,
        /// Cause.
        source: io::Error,
    },
    /// Any other failure.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// Address that was tried.
        address: SocketAddr,
        /// Cause.
        source: io::Error,
    },
}

impl ListenError {
    fn new(address: SocketAddr, options: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { address, options, source },
            io::ErrorKind::PermissionDenied => ListenError::Denied { address, source },
            io::ErrorKind::AddrNotAvailable => ListenError::NotLocal { address, source },
            _ => ListenError::Io { address, source },
        }
    }
}

fn privilege(address: SocketAddr) -> &'static str {
    match address.port() {
        ..1024 => "; ports below 1024 take a privilege (CAP_NET_BIND_SERVICE on Linux)",
        _ => "",
    }
}

/// Listens on `host` and `port`, ready to accept within the current Tokio runtime. An error names `options`
/// as those of the address.
///
/// `host` is an IPv4 address, an IPv6 address (bare or in brackets), or a name; `::` takes connections of
/// both families. An empty host means `::`, or `0.0.0.0` where there is no IPv6. Of the addresses of a name,
/// the first one that this machine has is used. Port 0 leaves the choice to the system.
///
/// # Errors
///
/// The name does not resolve, or the address is in use, forbidden, or not of this machine. A port that is in
/// use does not lead to the next address of a name: the clients may only know the first one.
pub(crate) async fn bind(host: &str, port: u16, options: &'static str) -> Result<TcpListener, ListenError> {
    let mut failure = None;
    for address in resolve(host, port).await? {
        match listen(address) {
            Ok(listener) => return Ok(listener),
            Err(source) => {
                let error = ListenError::new(address, options, source);
                // Every other failure may be that of one address: a kernel without IPv6 has no error kind of
                // its own.
                let is_final = matches!(error, ListenError::InUse { .. } | ListenError::Denied { .. });
                failure.get_or_insert(error);
                if is_final {
                    break;
                }
            }
        }
    }
    Err(failure.unwrap_or_else(|| unresolved(host, port, io::ErrorKind::NotFound.into())))
}

/// Returns an address as the Node.js servers print it (measured). IPv6 addresses have no brackets.
pub(crate) fn upstream_notation(address: SocketAddr) -> String {
    let scope = match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("%{}", v6.scope_id()),
        _ => String::new(),
    };
    format!("{}{scope}:{}", address.ip(), address.port())
}

/// Returns the pause before the next attempt after a failure to accept; `None` if there is none.
///
/// An error of the one connection that was about to be accepted needs no pause. A lack of descriptors or
/// memory does, and so does any other error, as retrying at once could spin.
fn accept_backoff(error: &io::Error) -> Option<Duration> {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted,
        NetworkDown, NetworkUnreachable, TimedOut, WouldBlock,
    };

    match error.kind() {
        BrokenPipe | ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable
        | Interrupted | NetworkDown | NetworkUnreachable | TimedOut | WouldBlock => None,
        _ => Some(ACCEPT_PAUSE),
    }
}

/// The failures of one socket to accept, which are logged once a minute while they last.
#[derive(Debug, Default)]
pub(crate) struct AcceptFailures {
    lines: LogLimit,
}

impl AcceptFailures {
    /// Counts a failure, and logs it if a line is due. Returns the pause before the next attempt, if there is
    /// one.
    pub(crate) fn backoff(&mut self, error: &io::Error) -> Option<Duration> {
        let pause = accept_backoff(error)?;
        if let Some(failures) = self.lines.count(clock::now()) {
            tracing::error!(%error, failures, "cannot accept connections{}", accept_advice(error));
        }
        Some(pause)
    }
}

/// Returns what an operator can do against a failure to accept.
fn accept_advice(error: &io::Error) -> &'static str {
    // EMFILE, ENFILE, and ENOBUFS of Linux.
    match error.raw_os_error() {
        Some(24) => {
            ": raise the limit of open files of the process (ulimit -n, LimitNOFILE= of systemd, --ulimit nofile= of \
             Docker)"
        }
        Some(23) => ": raise the limit of open files of the system (sysctl fs.file-max)",
        Some(105) => ": the system has no memory left for sockets (sysctl net.ipv4.tcp_mem)",
        _ if error.kind() == io::ErrorKind::OutOfMemory => ": the system has no memory left",
        _ => "",
    }
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ListenError> {
    if host.is_empty() {
        let any: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
        return Ok(any.map(|ip| SocketAddr::new(ip, port)).to_vec());
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match lookup_host((bare, port)).await {
        Ok(addresses) => Ok(addresses.collect()),
        Err(source) => Err(unresolved(host, port, source)),
    }
}

fn unresolved(host: &str, port: u16, source: io::Error) -> ListenError {
    ListenError::Unresolved { host: host.to_owned(), port, source }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Accepted connections inherit it.
    #[cfg(target_os = "linux")]
    rustix::net::sockopt::set_tcp_user_timeout(&socket, USER_TIMEOUT.as_millis() as u32)?;
    // A restart must not wait until the connections of the previous process expire.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // The default of some systems is IPv6 only.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    async fn listen_on(host: &str, port: u16) -> Result<TcpListener, ListenError> {
        bind(host, port, "--port").await
    }

    fn address(listener: &TcpListener) -> SocketAddr {
        listener.local_addr().unwrap()
    }

    /// Returns false if this machine has no IPv6.
    async fn has_ipv6() -> bool {
        TcpListener::bind("[::1]:0").await.is_ok()
    }

    #[tokio::test]
    async fn listens_on_ipv4_and_on_names() {
        let listener = listen_on("127.0.0.1", 0).await.unwrap();
        let local = address(&listener);
        assert_ne!(local.port(), 0);
        let (client, accepted) = tokio::join!(TcpStream::connect(local), listener.accept());
        assert_eq!(accepted.unwrap().1, client.unwrap().local_addr().unwrap());
        assert!(address(&listen_on("localhost", 0).await.unwrap()).ip().is_loopback());
        assert_eq!(address(&listen_on("0.0.0.0", 0).await.unwrap()).ip(), Ipv4Addr::UNSPECIFIED);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn accepted_connection_has_the_timeout_for_acknowledgements() {
        let listener = listen_on("127.0.0.1", 0).await.unwrap();
        let client = TcpStream::connect(address(&listener)).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let timeout = rustix::net::sockopt::tcp_user_timeout(&accepted).unwrap();
        assert_eq!(u128::from(timeout), USER_TIMEOUT.as_millis());
        drop(client);
    }

    #[tokio::test]
    async fn listens_on_ipv6_and_on_both_families() {
        if !has_ipv6().await {
            return;
        }
        for host in ["::1", "[::1]"] {
            assert_eq!(address(&listen_on(host, 0).await.unwrap()).ip(), Ipv6Addr::LOCALHOST);
        }
        for host in ["::", ""] {
            let listener = listen_on(host, 0).await.unwrap();
            assert_eq!(address(&listener).ip(), Ipv6Addr::UNSPECIFIED);
            let port = address(&listener).port();
            for client in ["127.0.0.1", "::1"] {
                let (connected, accepted) =
                    tokio::join!(TcpStream::connect((client, port)), listener.accept());
                connected.unwrap();
                accepted.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn port_in_use_is_reported_in_one_line() {
        let listener = listen_on("127.0.0.1", 0).await.unwrap();
        let port = address(&listener).port();
        assert_eq!(
            listen_on("127.0.0.1", port).await.unwrap_err().to_string(),
            format!(
                "cannot listen on 127.0.0.1:{port}: the port is in use; stop what listens there, \
                 or choose another one with --port"
            )
        );
        // The port is free as soon as the listener is closed, even if it had connections.
        let client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        drop(listener.accept().await.unwrap());
        drop((listener, client));
        listen_on("127.0.0.1", port).await.unwrap();
    }

    #[tokio::test]
    async fn address_of_another_machine_is_rejected() {
        let refused = listen_on("192.0.2.1", 18019).await.unwrap_err().to_string();
        assert!(refused.starts_with("cannot listen on 192.0.2.1:18019: this machine does not"), "{refused}");
        let refused = listen_on("no such host", 18019).await.unwrap_err().to_string();
        assert!(
            refused
                .starts_with("cannot listen on no such host:18019: 'no such host' is neither an IP address"),
            "{refused}"
        );
        assert!(!refused.contains('\n'));
    }

    #[test]
    fn denied_ports_below_1024_are_reported() {
        let denied = |port| {
            ListenError::new(([0, 0, 0, 0], port).into(), "--port", io::ErrorKind::PermissionDenied.into())
                .to_string()
        };
        assert!(denied(80).contains("permission denied; ports below 1024 take a privilege"));
        assert_eq!(denied(8000), "cannot listen on 0.0.0.0:8000: permission denied");
    }

    #[test]
    fn address_is_written_as_upstream() {
        for (address, expected) in [
            ("0.0.0.0:8000", "0.0.0.0:8000"),
            ("[::]:8000", ":::8000"),
            ("[::1]:18003", "::1:18003"),
            ("[fd00::2]:80", "fd00::2:80"),
            ("[::ffff:127.0.0.1]:18046", "::ffff:127.0.0.1:18046"),
        ] {
            assert_eq!(upstream_notation(address.parse().unwrap()), expected);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn accepting_pauses_only_for_lack_of_resources() {
        // Numbers of Linux: EINTR, EAGAIN, ENETDOWN, ENETUNREACH, ECONNABORTED, ECONNRESET, ETIMEDOUT,
        // EHOSTUNREACH.
        for ignored in [4, 11, 100, 101, 103, 104, 110, 113] {
            assert_eq!(accept_backoff(&io::Error::from_raw_os_error(ignored)), None, "{ignored}");
        }
        // EPERM, EBADF, ENOMEM, EINVAL, ENFILE, EMFILE, ENOBUFS.
        for paused in [1, 9, 12, 22, 23, 24, 105] {
            assert_eq!(accept_backoff(&io::Error::from_raw_os_error(paused)), Some(ACCEPT_PAUSE), "{paused}");
        }
    }
}
