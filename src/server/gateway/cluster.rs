//! The start of a gateway as a node of a cluster.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use tokio::net::UdpSocket;

use super::frontend::Frontend;
use crate::config::redact::displayed_path;
use crate::config::{ClusterConfig, Config};
use crate::server::cluster::{ClusterNode, EngineAddress, NodeSettings};
use crate::server::regular_file;
use crate::server::start_error::ClusterError;

/// Longest file with a password, in bytes.
const MAX_PASSWORD_FILE: u64 = 64 * 1024;

/// Returns the engine of the configuration; `None` if there is none.
///
/// # Errors
/// The password cannot be read, or the URL cannot be used.
pub(super) fn engine(config: &ClusterConfig) -> Result<Option<EngineAddress>, ClusterError> {
    let Some(url) = &config.url else { return Ok(None) };
    let password = config.password_file.as_deref().map(read_password).transpose()?;
    Ok(Some(EngineAddress::new(url, &config.name, password.as_deref())?))
}

/// Returns the settings of the node; `None` if the gateway is none. `port` is the first TCP port for clients.
///
/// # Errors
/// The engine cannot be used, or the address of the node is not known.
pub(super) async fn node_settings(
    config: &Config,
    port: Option<u16>,
) -> Result<Option<NodeSettings>, ClusterError> {
    let Some(engine) = engine(&config.cluster)? else { return Ok(None) };
    let ClusterConfig { node_address, node_port, node_name, .. } = &config.cluster;
    // A port that the system chose has no neighbour that is known to be free.
    let next = || match config.listen.first() {
        Some(crate::config::ListenAddress::Tcp { port: 0, .. }) => Some(0),
        _ => port?.checked_add(1),
    };
    let given = node_address.as_ref().and_then(|address| address.port);
    let listen_port = node_port.or(given).or_else(next).ok_or(ClusterError::NoPort)?;
    let (host, listen) = match node_address {
        Some(address) => (address.host.clone(), IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        None => {
            let address = local_address(&engine).await?;
            (address.to_string(), address)
        }
    };
    let brackets = if host.contains(':') { ("[", "]") } else { ("", "") };
    let address = format!("{}{host}{}:{}", brackets.0, brackets.1, given.unwrap_or(listen_port));
    Ok(Some(NodeSettings {
        engine,
        address,
        listen: SocketAddr::new(listen, listen_port),
        name: node_name.clone().unwrap_or_else(machine_name),
        max_message: config.max_message,
    }))
}

impl Frontend {
    /// Makes the gateway a node of a cluster.
    ///
    /// # Errors
    /// The address for links cannot be listened on, or the system has no randomness.
    pub(super) async fn join_cluster(&self, settings: NodeSettings) -> io::Result<Arc<ClusterNode>> {
        let node = ClusterNode::start(settings, &self.shared.hub, &self.shared.memory).await?;
        self.routes.join_cluster(&node);
        // The hub has the first one as well.
        Ok(Arc::clone(self.shared.cluster.get_or_init(|| node)))
    }
}

fn read_password(path: &Path) -> Result<String, ClusterError> {
    let text = regular_file::read_text(path, MAX_PASSWORD_FILE)
        .map_err(|source| ClusterError::PasswordFile { path: path.to_owned(), source })?;
    let password = first_line(&text).ok_or_else(|| ClusterError::NoPassword(path.to_owned()))?;
    if is_readable_by_others(path) {
        tracing::warn!(
            "users besides its owner may read the file of --cluster-password-file, {}: chmod o-rwx it",
            displayed_path(path)
        );
    }
    Ok(password.to_owned())
}

/// Returns the first line, without the mark that some editors put before it; `None` if it is empty.
fn first_line(text: &str) -> Option<&str> {
    let line = text.strip_prefix('\u{feff}').unwrap_or(text).lines().next()?;
    Some(line).filter(|line| !line.trim().is_empty())
}

fn is_readable_by_others(path: &Path) -> bool {
    let metadata = std::fs::metadata(path);
    metadata
        .is_ok_and(|metadata| std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o004 != 0)
}

/// Returns the address from which this machine reaches the engine. Nothing is sent.
async fn local_address(engine: &EngineAddress) -> Result<IpAddr, ClusterError> {
    // By the first of several servers to which there is a way.
    let mut failed = None;
    for (host, port) in engine.hosts() {
        let error = match tokio::net::lookup_host((host, port)).await {
            Ok(addresses) => match route_to(addresses).await {
                Ok(address) => return Ok(address),
                Err(error) => ClusterError::NoAddress(error),
            },
            Err(source) => ClusterError::EngineHost { host: host.to_owned(), source },
        };
        failed.get_or_insert(error);
    }
    failed.map_or_else(|| Ok(Ipv4Addr::LOCALHOST.into()), Err)
}

async fn route_to(servers: impl Iterator<Item = SocketAddr>) -> io::Result<IpAddr> {
    let mut error = io::Error::from(io::ErrorKind::NotFound);
    for server in servers {
        let any: IpAddr =
            if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        match socket.connect(server).await {
            Ok(()) => return Ok(socket.local_addr()?.ip()),
            Err(failed) => error = failed,
        }
    }
    Err(error)
}

/// Returns the name of the machine, without characters that would end it in a line.
fn machine_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name: String =
        name.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).take(64).collect();
    if name.is_empty() { "node".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::ServerName;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use super::*;
    use crate::config::{AdminSocketPath, EngineUrl, ListenAddress, NodeAddress, PemSource, TlsFiles};
    use crate::server::RefusalCause;
    use crate::server::admin::StatusQuery;
    use crate::server::gateway::Gateway;

    fn config(url: &str) -> Config {
        let mut config = Config::default().with_address("127.0.0.1", 8000);
        config.cluster.url = Some(EngineUrl::parse(url).unwrap());
        config
    }

    async fn settings(config: &Config) -> NodeSettings {
        node_settings(config, Some(8000)).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn node_listens_where_it_reaches_the_engine() {
        let mut config = config("redis://127.0.0.1:6379");
        let found = settings(&config).await;
        assert_eq!(
            (found.address.as_str(), found.listen),
            ("127.0.0.1:8001", "127.0.0.1:8001".parse().unwrap())
        );
        assert!(!found.name.is_empty() && !found.name.contains(' '));
        config.cluster.node_port = Some(9000);
        assert_eq!(settings(&config).await.address, "127.0.0.1:9000");
        config.cluster.node_address = Some(NodeAddress::parse("[fd00::5]:700").unwrap());
        let found = settings(&config).await;
        assert_eq!((found.address.as_str(), found.listen), ("[fd00::5]:700", "[::]:9000".parse().unwrap()));
        config.listen = vec![ListenAddress::Tcp { host: String::new(), port: 0 }];
        (config.cluster.node_port, config.cluster.node_address) = (None, None);
        assert_eq!(settings(&config).await.address, "127.0.0.1:0");
        config.listen = vec![ListenAddress::Unix("/x".into())];
        let error = node_settings(&config, None).await.unwrap_err();
        assert!(error.to_string().contains("--node-port"), "{error}");
        config.cluster.url = None;
        assert!(node_settings(&config, None).await.unwrap().is_none());
    }

    #[test]
    fn missing_password_file_is_named() {
        let mut config = config("redis://h");
        config.cluster.password_file = Some("/nonexistent/password".into());
        let error = engine(&config.cluster).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot read the file of --cluster-password-file, /nonexistent/password: "),
            "{error}"
        );
    }

    #[tokio::test]
    async fn host_of_the_engine_without_an_address_is_named() {
        let error =
            node_settings(&config("redis://redis.invalid"), Some(8000)).await.unwrap_err().to_string();
        assert!(
            error.contains("'redis.invalid' in --cluster") && !error.contains("--node-address"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn one_of_several_servers_with_an_address_is_enough() {
        for url in
            ["redis+cluster://redis.invalid,127.0.0.1", "redis+sentinel://redis.invalid,127.0.0.1/main"]
        {
            assert_eq!(settings(&config(url)).await.address, "127.0.0.1:8001", "{url}");
        }
    }

    #[test]
    fn password_is_the_first_line() {
        assert_eq!(first_line("\u{feff}secret\r\nmore"), Some("secret"));
        assert_eq!(first_line("secret"), Some("secret"));
        assert_eq!(["", "\n", "\u{feff}", " \nsecret"].map(first_line), [None; 4]);
    }

    #[tokio::test]
    async fn clients_of_a_node_whose_address_was_taken_get_503() {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
        let files = TlsFiles {
            key: PemSource::Inline(key.serialize_pem()),
            cert: PemSource::Inline(cert.pem()),
            ca: None,
            client_ca: None,
        };
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(client));
        for tls in [None, Some(files)] {
            let mut config = config("redis://127.0.0.1:1").with_address("127.0.0.1", 0);
            config.admin_socket = AdminSocketPath::Off;
            config.tls = tls.clone();
            let gateway = Gateway::bind(config).await.unwrap();
            gateway.frontend.shared.cluster.get().unwrap().replace();
            let (status, address) = (gateway.status(), gateway.local_addr().unwrap());
            let served = tokio::spawn(gateway.run_until(std::future::pending()));
            let stream = TcpStream::connect(address).await.unwrap();
            let response = match tls {
                None => response(stream).await,
                Some(_) => {
                    let name = ServerName::try_from("localhost").unwrap();
                    response(connector.connect(name, stream).await.unwrap()).await
                }
            };
            assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
            assert!(response.ends_with(": another node has replaced this one\n"), "{response}");
            let refused = status.report(StatusQuery::default()).refused;
            assert!(refused.contains(&(RefusalCause::Replaced, 1)), "{refused:?}");
            served.abort();
        }
    }

    async fn response(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
        stream.write_all(b"GET /k HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    #[tokio::test]
    async fn gateway_without_a_cluster_starts_no_task() {
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        let alone = Config::default().with_address("127.0.0.1", 0);
        let gateway = Gateway::bind(alone).await.unwrap();
        assert_eq!(tasks(), before);
        assert!(gateway.frontend.shared.cluster.get().is_none());
        assert!(gateway.report(StatusQuery::default()).cluster.is_none());
        // No Redis is needed to see that a node has all of that.
        let mut node = Config::default().with_address("127.0.0.1", 0);
        node.cluster.url = Some(EngineUrl::parse("redis://127.0.0.1:1").unwrap());
        let gateway = Gateway::bind(node).await.unwrap();
        assert!(tasks() > before);
        assert!(gateway.frontend.shared.cluster.get().is_some());
        assert!(gateway.report(StatusQuery::default()).cluster.is_some());
    }
}
