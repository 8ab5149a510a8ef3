//! The listening socket: how it is bound, how it is announced, and what to do when accepting fails.
//!
//! No connection is handled here, and no task is started.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, lookup_host};

/// How many connections may wait to be accepted. After a restart all clients come back at the same time;
/// the originals' 511 drops some of them into retries of a second and more. The system may cap it
/// (`net.core.somaxconn` on Linux, which is 4096 by default).
const BACKLOG: i32 = 4096;

/// How long to let connections end when there is no room for new ones.
const PAUSE: Duration = Duration::from_millis(100);

/// Why the gateway cannot listen, in one line.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {reason}")]
pub struct ListenError {
    /// The address as it was tried, with its port.
    pub address: String,
    /// Why not, and what helps.
    pub reason: String,
    /// What the system said.
    pub source: io::Error,
}

/// Listens on `host` and `port`, ready to accept within the current Tokio runtime.
///
/// `host` is an IPv4 address, an IPv6 address (bare or in brackets), or a name; `::` takes connections of
/// both families. Nothing at all stands for `::`, and for `0.0.0.0` where there is no IPv6. Of the addresses
/// of a name the first one that this machine has is listened on. Port 0 leaves the choice to the system: ask
/// the listener.
///
/// # Errors
///
/// When the name does not resolve, or the address is taken, forbidden or none of this machine's. A port that
/// is in use does not move on to the next address of a name: the clients may only know the first one.
pub async fn bind(host: &str, port: u16) -> Result<TcpListener, ListenError> {
    let mut failure = None;
    for address in resolve(host, port).await? {
        match listen(address) {
            Ok(listener) => return Ok(listener),
            Err(source) => {
                let elsewhere = is_not_ours(&source);
                let reason = reason(&source, address);
                failure.get_or_insert(ListenError { address: address.to_string(), reason, source });
                if !elsewhere {
                    break;
                }
            }
        }
    }
    Err(failure.unwrap_or_else(|| unresolved(host, port, io::ErrorKind::NotFound.into())))
}

/// The line which tells that the gateway accepts connections, exactly as the originals print it on stdout:
/// IPv6 addresses have no brackets.
pub fn startup_line(address: SocketAddr) -> String {
    let scope = match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("%{}", v6.scope_id()),
        _ => String::new(),
    };
    format!("Signaling server is listening on {}{scope}:{}", address.ip(), address.port())
}

/// How long to wait before accepting again after a failure; `None` is at once.
///
/// At once after what befell the one connection that was about to be accepted: it is gone, the next one may be
/// fine. After a pause when the process or the system is short of something (descriptors, memory), and after
/// anything unforeseen, since trying at once would only spin.
pub fn accept_backoff(error: &io::Error) -> Option<Duration> {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted,
        NetworkDown, NetworkUnreachable, TimedOut, WouldBlock,
    };

    match error.kind() {
        BrokenPipe | ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable
        | Interrupted | NetworkDown | NetworkUnreachable | TimedOut | WouldBlock => None,
        _ => Some(PAUSE),
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
    let reason = format!("'{host}' is neither an IP address nor a name that resolves ({source})");
    ListenError { address: format!("{host}:{port}"), reason, source }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the connections of the previous process to expire.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // The system may default to the contrary.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Whether another address of the same name may do.
fn is_not_ours(error: &io::Error) -> bool {
    // A machine without IPv6 says `AddrNotAvailable`, a kernel without it has no kind for what it says.
    !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

fn reason(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is in use; stop what listens there, or choose another one with '-p, --port <number>'"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            "permission denied; ports below 1024 take a privilege (CAP_NET_BIND_SERVICE on Linux)".to_owned()
        }
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have that address; give one of its own to '-h, --host <ip>'".to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    fn address(listener: &TcpListener) -> SocketAddr {
        listener.local_addr().unwrap()
    }

    /// False where the tests run without IPv6.
    async fn has_ipv6() -> bool {
        TcpListener::bind("[::1]:0").await.is_ok()
    }

    #[tokio::test]
    async fn listens_on_ipv4_and_on_names() {
        let listener = bind("127.0.0.1", 0).await.unwrap();
        let local = address(&listener);
        assert_ne!(local.port(), 0);
        let (client, accepted) = tokio::join!(TcpStream::connect(local), listener.accept());
        assert_eq!(accepted.unwrap().1, client.unwrap().local_addr().unwrap());
        assert!(address(&bind("localhost", 0).await.unwrap()).ip().is_loopback());
        assert_eq!(address(&bind("0.0.0.0", 0).await.unwrap()).ip(), Ipv4Addr::UNSPECIFIED);
    }

    #[tokio::test]
    async fn listens_on_ipv6_and_on_both_families() {
        if !has_ipv6().await {
            return;
        }
        for host in ["::1", "[::1]"] {
            assert_eq!(address(&bind(host, 0).await.unwrap()).ip(), Ipv6Addr::LOCALHOST);
        }
        for host in ["::", ""] {
            let listener = bind(host, 0).await.unwrap();
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
    async fn a_port_in_use_is_one_clear_line() {
        let listener = bind("127.0.0.1", 0).await.unwrap();
        let port = address(&listener).port();
        assert_eq!(
            bind("127.0.0.1", port).await.unwrap_err().to_string(),
            format!(
                "cannot listen on 127.0.0.1:{port}: the port is in use; stop what listens there, \
                 or choose another one with '-p, --port <number>'"
            )
        );
        // Free again as soon as it is closed, whatever connections it had.
        let client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        drop(listener.accept().await.unwrap());
        drop((listener, client));
        bind("127.0.0.1", port).await.unwrap();
    }

    #[tokio::test]
    async fn an_address_of_others_is_refused() {
        let refused = bind("192.0.2.1", 18019).await.unwrap_err().to_string();
        assert!(refused.starts_with("cannot listen on 192.0.2.1:18019: this machine does not"), "{refused}");
        let refused = bind("no such host", 18019).await.unwrap_err().to_string();
        assert!(
            refused
                .starts_with("cannot listen on no such host:18019: 'no such host' is neither an IP address"),
            "{refused}"
        );
        assert!(!refused.contains('\n'));
    }

    #[test]
    fn denials_say_why() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(reason(&denied, ([0, 0, 0, 0], 80).into()).contains("ports below 1024 take a privilege"));
        assert_eq!(reason(&denied, ([0, 0, 0, 0], 8000).into()), "permission denied");
    }

    #[test]
    fn the_startup_line_is_that_of_the_originals() {
        for (address, expected) in [
            ("0.0.0.0:8000", "0.0.0.0:8000"),
            ("[::]:8000", ":::8000"),
            ("[::1]:18003", "::1:18003"),
            ("[fd00::2]:80", "fd00::2:80"),
            ("[::ffff:127.0.0.1]:18046", "::ffff:127.0.0.1:18046"),
        ] {
            let line = startup_line(address.parse().unwrap());
            assert_eq!(line, format!("Signaling server is listening on {expected}"));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn accepting_pauses_only_when_resources_are_short() {
        // Numbers of Linux: EINTR, EAGAIN, ENETDOWN, ENETUNREACH, ECONNABORTED, ECONNRESET, ETIMEDOUT,
        // EHOSTUNREACH.
        for ignored in [4, 11, 100, 101, 103, 104, 110, 113] {
            assert_eq!(accept_backoff(&io::Error::from_raw_os_error(ignored)), None, "{ignored}");
        }
        // EPERM, EBADF, ENOMEM, EINVAL, ENFILE, EMFILE, ENOBUFS.
        for paused in [1, 9, 12, 22, 23, 24, 105] {
            assert_eq!(accept_backoff(&io::Error::from_raw_os_error(paused)), Some(PAUSE), "{paused}");
        }
    }
}
