//! A Redis Cluster: the primary that has the hash slot of the keys, which any of its servers knows.
//!
//! A server is asked for a key. One that has not its slot, or only as a replica, answers with the address of
//! the primary, as far as it knows. A former primary that was replaced may still answer, until it notices. It
//! counts for nothing once other nodes know the newer data, as one behind sentinels: the connection is opened
//! again then, and another server is the first to be asked.

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, ServerErrorKind,
};

use super::engine_fault::{EngineError, NAMED_BY};

/// Most servers that are asked, each named by the one before. If there are more, they do not agree yet.
const MAX_NAMED: usize = 4;

/// Connects to the primary that has the slot of the key, as the first server that answers knows it, beginning
/// with the one of this number. Returns its address as well.
///
/// # Errors
/// No server leads to a primary. An answer of a server is reported rather than one that cannot be reached.
pub(super) async fn connect(
    servers: &[ConnectionInfo],
    first: usize,
    key: &str,
    config: &AsyncConnectionConfig,
) -> Result<(MultiplexedConnection, String), EngineError> {
    let mut search = Search { key, config, unreachable: Vec::new() };
    let first = first.checked_rem(servers.len()).unwrap_or_default();
    // The same one each time, so that the log does not repeat them in turn.
    let mut failed: Option<((bool, usize), EngineError)> = None;
    for (number, server) in servers.iter().enumerate().cycle().skip(first).take(servers.len()) {
        let (server, source) = match search.primary(server.clone()).await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        let rank = (source.is_io_error(), number);
        if failed.as_ref().is_none_or(|(least, _)| rank < *least) {
            failed = Some((rank, EngineError::OneServer { server, source }));
        }
    }
    Err(failed.map_or(EngineError::Answer, |(_, error)| error))
}

/// A search for the primary.
struct Search<'a> {
    key: &'a str,
    config: &'a AsyncConnectionConfig,
    /// Servers that could not be reached: a machine that failed takes a second, and others go on naming it.
    unreachable: Vec<(ConnectionAddr, RedisError)>,
}

impl Search<'_> {
    /// Asks a server, and those that are named one after the other. Returns the address of the last one, with
    /// that of the one that named it if there is an error.
    async fn primary(
        &mut self,
        mut server: ConnectionInfo,
    ) -> Result<(MultiplexedConnection, String), (String, RedisError)> {
        let mut address = server.addr().to_string();
        let mut left = MAX_NAMED;
        loop {
            let error = match self.ask(&server).await {
                Ok(connection) => return Ok((connection, server.addr().to_string())),
                Err(error) => error,
            };
            left -= 1;
            let Some(named) = named_server(&error, server.addr()).filter(|_| left > 0) else {
                return Err((address, error));
            };
            address = format!("{named}{NAMED_BY}{}", server.addr());
            server = server.set_addr(named);
        }
    }

    /// Connects to a server, and asks it for the key, which a server without its slot does not return.
    async fn ask(&mut self, server: &ConnectionInfo) -> Result<MultiplexedConnection, RedisError> {
        if let Some((_, error)) = self.unreachable.iter().find(|(address, _)| address == server.addr()) {
            return Err(error.clone());
        }
        let answer = async {
            let client = Client::open(server.clone())?;
            let mut connection = client.get_multiplexed_async_connection_with_config(self.config).await?;
            redis::cmd("GET").arg(self.key).query_async::<Option<String>>(&mut connection).await?;
            Ok(connection)
        };
        let answer: Result<_, RedisError> = answer.await;
        if let Some(error) = answer.as_ref().err().filter(|error| error.is_io_error()) {
            self.unreachable.push((server.addr().clone(), error.clone()));
        }
        answer
    }
}

/// Returns the address of the server that has the slot, by the answer of another one; `None` if the answer is
/// not about that. A slot that is being moved is where it was until all its keys have arrived.
fn named_server(error: &RedisError, asked: &ConnectionAddr) -> Option<ConnectionAddr> {
    if error.kind() != ErrorKind::Server(ServerErrorKind::Moved) {
        return None;
    }
    let (address, _) = error.redirect_node()?;
    let (host, port) = address.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    // IPv6 addresses have no brackets there.
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let named = |asked: &str| match host {
        // The server knows none, and the one that was asked is reached by it.
        "" => Some(asked.to_owned()),
        // It is to announce a name, and has none.
        "?" => None,
        host => Some(host.to_owned()),
    };
    Some(match asked {
        ConnectionAddr::Tcp(asked, _) => ConnectionAddr::Tcp(named(asked)?, port),
        ConnectionAddr::TcpTls { host: asked, insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host: named(asked)?,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use redis::IntoConnectionInfo as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::super::engine::EngineAddress;
    use super::*;
    use crate::config::EngineUrl;
    use crate::protocol::cluster::EngineFailure;

    fn answer(text: &str) -> RedisError {
        redis::parse_redis_value(text.as_bytes()).unwrap().extract_error().unwrap_err()
    }

    #[test]
    fn answer_of_another_server_names_that_of_the_slot() {
        let plain = ConnectionAddr::Tcp("seed".to_owned(), 7000);
        let named = |text: &str| named_server(&answer(text), &plain).map(|named| named.to_string());
        for (text, expected) in [
            ("-MOVED 866 10.0.0.9:7001\r\n", Some("10.0.0.9:7001")),
            ("-MOVED 866 a.example.org:7001\r\n", Some("a.example.org:7001")),
            ("-MOVED 866 :7001\r\n", Some("seed:7001")),
            ("-MOVED 866 ?:7001\r\n", None),
            ("-MOVED 866 10.0.0.9\r\n", None),
            ("-MOVED 866 10.0.0.9:0\r\n", None),
            ("-MOVED 866\r\n", None),
            ("-ASK 866 10.0.0.9:7001\r\n", None),
            ("-CLUSTERDOWN The cluster is down\r\n", None),
        ] {
            assert_eq!(named(text).as_deref(), expected, "{text}");
        }
        for text in ["-MOVED 866 fd00::5:7001\r\n", "-MOVED 866 [fd00::5]:7001\r\n"] {
            let named = named_server(&answer(text), &plain);
            assert_eq!(named, Some(ConnectionAddr::Tcp("fd00::5".to_owned(), 7001)), "{text}");
        }
        let login = "rediss://u:p@seed:7000".into_connection_info().unwrap();
        let named = named_server(&answer("-MOVED 866 other:7001\r\n"), login.addr()).unwrap();
        let ConnectionAddr::TcpTls { host, port, insecure, .. } = &named else { panic!("{named}") };
        assert_eq!((host.as_str(), *port, *insecure), ("other", 7001, false));
        assert_eq!(login.set_addr(named).redis_settings().password(), Some("p"));
    }

    #[test]
    fn primary_of_a_redis_cluster_that_refuses_is_no_sign_that_none_serves() {
        let address =
            |url: &str| EngineAddress::new(&EngineUrl::parse(url).unwrap(), "n", Some("hush")).unwrap();
        let refused = || RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        let clustered = address("rediss+cluster://u@a,b:7001");
        assert_eq!(clustered.describe(), "rediss+cluster://a:6379,b:7001");
        let error = EngineError::OneServer { server: "a:6379".to_owned(), source: refused() };
        for error in [error, EngineError::Redis(refused())] {
            assert_eq!(clustered.failure(&error), EngineFailure::Unreachable);
        }
        assert_eq!(address("redis://a").failure(&EngineError::Redis(refused())), EngineFailure::Refused);
    }

    /// Serves the answer to every `GET`. Returns the server.
    async fn server(listener: TcpListener, answer: String) -> ConnectionInfo {
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    let (mut text, mut answered) = (String::new(), 0);
                    let mut buffer = vec![0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
                        let names = text.matches("$7\r\nSETINFO\r\n").count();
                        while answered < names {
                            stream.write_all(b"+OK\r\n").await.unwrap();
                            answered += 1;
                        }
                        if text.ends_with("GET\r\n$1\r\nk\r\n") {
                            stream.write_all(answer.as_bytes()).await.unwrap();
                        }
                    }
                });
            }
        });
        format!("redis://{address}").into_connection_info().unwrap()
    }

    async fn listener() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    async fn found(servers: &[ConnectionInfo], first: usize) -> Result<String, EngineError> {
        found_within(Duration::from_secs(10), servers, first).await
    }

    async fn found_within(
        timeout: Duration,
        servers: &[ConnectionInfo],
        first: usize,
    ) -> Result<String, EngineError> {
        let timeout = Some(timeout);
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(timeout).set_response_timeout(timeout);
        connect(servers, first, "k", &config).await.map(|(_, address)| address)
    }

    #[tokio::test]
    async fn primary_is_found_through_any_server_that_answers() {
        let ((primary, port), (other, _), (down, _)) = (listener().await, listener().await, listener().await);
        let (closed, closed_port) = listener().await;
        drop(closed);
        let dead = format!("redis://127.0.0.1:{closed_port}").into_connection_info().unwrap();
        let other = server(other, format!("-MOVED 866 127.0.0.1:{port}\r\n")).await;
        let down = server(down, "-CLUSTERDOWN The cluster is down\r\n".to_owned()).await;
        let primary = server(primary, "$-1\r\n".to_owned()).await;
        let servers = [dead.clone(), down.clone(), other, primary];
        for first in 0..9 {
            assert_eq!(found(&servers, first).await.unwrap(), format!("127.0.0.1:{port}"));
        }
        // What a server answers explains more than what does not run.
        for first in 0..2 {
            let error = found(&[dead.clone(), down.clone()], first).await.unwrap_err().to_string();
            assert_eq!(error, format!("{}: ClusterDown: The cluster is down", down.addr()));
        }
        let error = found(&[dead], 0).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("127.0.0.1:{closed_port}: ")), "{error}");
    }

    #[tokio::test]
    async fn servers_that_name_one_another_lead_to_the_next() {
        let ((a, a_port), (b, b_port), (primary, port)) =
            (listener().await, listener().await, listener().await);
        let a = server(a, format!("-MOVED 866 :{b_port}\r\n")).await;
        let b = server(b, format!("-MOVED 866 127.0.0.1:{a_port}\r\n")).await;
        let primary = server(primary, "$1\r\nx\r\n".to_owned()).await;
        assert_eq!(found(&[a.clone(), b.clone(), primary], 0).await.unwrap(), format!("127.0.0.1:{port}"));
        let error = found(&[a, b], 0).await.unwrap_err().to_string();
        assert!(error.contains(NAMED_BY) && error.contains(": Moved: 866 "), "{error}");
    }

    #[tokio::test]
    async fn primary_that_cannot_be_reached_is_named_with_the_server_that_names_it() {
        let ((seed, seed_port), (closed, port)) = (listener().await, listener().await);
        drop(closed);
        let seed = server(seed, format!("-MOVED 866 127.0.0.1:{port}\r\n")).await;
        let error = found(&[seed], 0).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("127.0.0.1:{port}, named by 127.0.0.1:{seed_port}: ")), "{error}");
    }

    #[tokio::test]
    async fn server_that_does_not_answer_is_asked_once_however_many_name_it() {
        let (silent, port) = listener().await;
        let (mut servers, mut streams) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let (other, _) = listener().await;
            servers.push(server(other, format!("-MOVED 866 127.0.0.1:{port}\r\n")).await);
        }
        let accepting = async {
            while let Ok((stream, _)) = silent.accept().await {
                streams.push(stream);
            }
        };
        tokio::select! {
            () = accepting => panic!("a listener that ends"),
            found = found_within(Duration::from_secs(3), &servers, 0) => {
                let error = found.unwrap_err().to_string();
                assert!(error.starts_with(&format!("127.0.0.1:{port}{NAMED_BY}")), "{error}");
            }
        }
        assert_eq!(streams.len(), 1);
    }
}
