//! The sockets that a gateway listens on, of every kind.

use std::env;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

use super::listener::{self, ListenError};
use super::unix_socket::UnixSocket;
use crate::config::ListenAddress;

/// Mode of a Unix socket for clients: any local user may connect, as to a port on the loopback interface.
const SOCKET_MODE: u32 = 0o666;

/// Mode of a Unix socket for administrators, who are not authenticated otherwise.
const ADMIN_SOCKET_MODE: u32 = 0o600;

/// Options that name the addresses for clients, and that for administrators.
const CLIENT_OPTIONS: &str = "'-p, --port <number>' or '--listen <address>'";
const ADMIN_OPTIONS: &str = "'--admin <address>'";

/// A listening socket.
#[derive(Debug)]
pub(super) enum ListeningSocket {
    Tcp(TcpListener),
    Unix(UnixSocket),
    /// A Unix socket that systemd opened and removes.
    InheritedUnix(UnixListener),
}

/// Address that a gateway listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocalAddress {
    /// A TCP address, with the port that the system chose for port 0.
    Tcp(SocketAddr),
    /// The path of a Unix socket; `None` if it has no name.
    Unix(Option<PathBuf>),
}

impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LocalAddress::Tcp(address) => f.write_str(&listener::upstream_notation(*address)),
            LocalAddress::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            LocalAddress::Unix(None) => f.write_str("unix:"),
        }
    }
}

/// An accepted connection.
pub(super) enum AcceptedStream {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl AcceptedStream {
    /// Returns the stream alone, for what is the same on both kinds.
    pub(super) fn into_io(self) -> Either<TcpStream, UnixStream> {
        match self {
            AcceptedStream::Tcp(stream, _) => Either::Left(stream),
            AcceptedStream::Unix(stream) => Either::Right(stream),
        }
    }
}

impl ListeningSocket {
    /// Listens on each address for clients, and on one for administrators. Returns the sockets of both.
    pub(super) async fn bind_all(
        clients: &[ListenAddress],
        admin: Option<&ListenAddress>,
    ) -> Result<(Vec<ListeningSocket>, Vec<ListeningSocket>), ListenError> {
        let mut inherited = InheritedSockets::from_env();
        let mut sockets = Vec::new();
        for address in clients {
            let bound = Self::bind(address, CLIENT_OPTIONS, SOCKET_MODE, &mut inherited).await;
            let bound = bound.map_err(|error| Self::explain(error, &sockets))?;
            sockets.extend(bound);
        }
        let admin = match admin {
            Some(address) => {
                let bound = Self::bind(address, ADMIN_OPTIONS, ADMIN_SOCKET_MODE, &mut inherited).await;
                bound.map_err(|error| Self::explain(error, &sockets))?
            }
            None => Vec::new(),
        };
        Ok((sockets, admin))
    }

    /// Returns the error of a port in use as that of a port given twice, if one of `sockets` uses it.
    fn explain(error: ListenError, sockets: &[ListeningSocket]) -> ListenError {
        let ListenError::InUse { address, options, .. } = error else { return error };
        let is_same = |other: SocketAddr| {
            let any = other.ip().is_unspecified() || address.ip().is_unspecified();
            other.port() == address.port() && (any || other.ip() == address.ip())
        };
        let is_own = sockets.iter().filter_map(|socket| socket.local_address().ok()).any(|own| match own {
            LocalAddress::Tcp(own) => is_same(own),
            LocalAddress::Unix(_) => false,
        });
        if is_own { ListenError::Twice { address, options } } else { error }
    }

    async fn bind(
        address: &ListenAddress,
        options: &'static str,
        mode: u32,
        inherited: &mut InheritedSockets,
    ) -> Result<Vec<ListeningSocket>, ListenError> {
        match address {
            ListenAddress::Tcp { host, port } => {
                Ok(vec![ListeningSocket::Tcp(listener::bind(host, *port, options).await?)])
            }
            ListenAddress::Unix(path) => Ok(vec![ListeningSocket::Unix(UnixSocket::bind(path, mode).await?)]),
            ListenAddress::Inherited(name) => inherited.take(name),
        }
    }

    /// Returns the addresses of the sockets.
    pub(super) fn local_addresses(sockets: &[ListeningSocket]) -> io::Result<Vec<LocalAddress>> {
        sockets.iter().map(ListeningSocket::local_address).collect()
    }

    fn local_address(&self) -> io::Result<LocalAddress> {
        let unix = |listener: &UnixListener| {
            Ok(LocalAddress::Unix(listener.local_addr()?.as_pathname().map(PathBuf::from)))
        };
        match self {
            ListeningSocket::Tcp(listener) => Ok(LocalAddress::Tcp(listener.local_addr()?)),
            ListeningSocket::Unix(socket) => unix(&socket.listener),
            ListeningSocket::InheritedUnix(listener) => unix(listener),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<AcceptedStream> {
        let unix = match self {
            ListeningSocket::Tcp(listener) => {
                return listener.accept().await.map(|(stream, remote)| AcceptedStream::Tcp(stream, remote));
            }
            ListeningSocket::Unix(socket) => &socket.listener,
            ListeningSocket::InheritedUnix(listener) => listener,
        };
        unix.accept().await.map(|(stream, _)| AcceptedStream::Unix(stream))
    }
}

/// Sockets that systemd opened.
struct InheritedSockets {
    sockets: ListenFd,
    names: Vec<String>,
}

impl InheritedSockets {
    fn from_env() -> Self {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        InheritedSockets {
            sockets: ListenFd::from_env(),
            names: names.split(':').map(str::to_owned).collect(),
        }
    }

    /// Takes the sockets of a name: a unit may have several of one name.
    fn take(&mut self, name: &str) -> Result<Vec<ListeningSocket>, ListenError> {
        let failed = |source| ListenError::Inherited { name: name.to_owned(), source };
        let mut found = Vec::new();
        for index in 0..self.sockets.len() {
            if self.names.get(index).is_none_or(|given| given != name) {
                continue;
            }
            // An error is that the socket is of another kind.
            if let Ok(Some(listener)) = self.sockets.take_tcp_listener(index) {
                listener.set_nonblocking(true).map_err(failed)?;
                found.push(ListeningSocket::Tcp(TcpListener::from_std(listener).map_err(failed)?));
            } else if let Some(listener) = self.sockets.take_unix_listener(index).map_err(failed)? {
                listener.set_nonblocking(true).map_err(failed)?;
                found.push(ListeningSocket::InheritedUnix(UnixListener::from_std(listener).map_err(failed)?));
            }
        }
        match found.is_empty() {
            true => Err(failed(io::ErrorKind::NotFound.into())),
            false => Ok(found),
        }
    }
}
