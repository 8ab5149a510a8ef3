//! Settings of a cluster: several servers with common rooms.

use std::fmt;
use std::path::PathBuf;
use std::slice;

use super::ConfigError;
use super::parse::ValueError;
use super::redact::without_password;

/// Name of a cluster.
pub const DEFAULT_CLUSTER_NAME: &str = "sigver";

/// Longest name of a cluster or a node, in bytes.
const MAX_NAME: usize = 64;

/// Settings of a cluster. By default the server is in none.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterConfig {
    /// URL of the engine. Without one, the server is in no cluster, and the other settings have no effect.
    pub url: Option<EngineUrl>,
    /// File with the password for the engine, in place of one in the URL.
    pub password_file: Option<PathBuf>,
    /// Name of the cluster in the engine. See [`DEFAULT_CLUSTER_NAME`].
    pub name: String,
    /// Host, or host and port, at which the other nodes reach this one. By default the address from which
    /// this machine reaches the engine.
    pub node_address: Option<NodeAddress>,
    /// Port for the other nodes. By default the one after that for clients.
    pub node_port: Option<u16>,
    /// Name of the node for people. By default that of the machine.
    pub node_name: Option<String>,
    /// Consequence of an engine that does not answer.
    pub engine_loss: EngineLoss,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        ClusterConfig {
            url: None,
            password_file: None,
            name: DEFAULT_CLUSTER_NAME.to_owned(),
            node_address: None,
            node_port: None,
            node_name: None,
            engine_loss: EngineLoss::default(),
        }
    }
}

impl ClusterConfig {
    /// Checks the settings against each other.
    ///
    /// # Errors
    /// [`ConfigError::ClusterNotBuilt`] or [`ConfigError::NodeWithoutCluster`].
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let ClusterConfig { url, password_file, name, node_address, node_port, node_name, engine_loss } =
            self;
        if cfg!(not(feature = "cluster")) && url.is_some() {
            return Err(ConfigError::ClusterNotBuilt);
        }
        let given = [
            ("cluster-password-file", password_file.is_some()),
            ("cluster-name", name != DEFAULT_CLUSTER_NAME),
            ("node-address", node_address.is_some()),
            ("node-port", node_port.is_some()),
            ("node-name", node_name.is_some()),
            ("engine-loss", *engine_loss != EngineLoss::default()),
        ];
        if url.is_none()
            && let Some((option, _)) = given.iter().find(|(_, is_given)| *is_given)
        {
            return Err(ConfigError::NodeWithoutCluster(option));
        }
        Ok(())
    }

    /// Returns the long names of all options of a cluster, each with true if its value differs in `other`.
    pub(super) fn differences(&self, other: &ClusterConfig) -> [(&'static str, bool); 7] {
        // Taken apart, so that a new setting does not compile until it has a name here.
        let ClusterConfig { url, password_file, name, node_address, node_port, node_name, engine_loss } =
            self;
        [
            ("cluster", *url != other.url),
            ("cluster-password-file", *password_file != other.password_file),
            ("cluster-name", *name != other.name),
            ("node-address", *node_address != other.node_address),
            ("node-port", *node_port != other.node_port),
            ("node-name", *node_name != other.node_name),
            ("engine-loss", *engine_loss != other.engine_loss),
        ]
    }
}

/// Port of a sentinel without one.
const SENTINEL_PORT: &str = ":26379";

/// URL of the engine, which may have a password. `Debug` and `Display` do not show that.
#[derive(Clone, PartialEq, Eq)]
pub struct EngineUrl {
    text: String,
    servers: EngineServers<String>,
}

/// The servers that a node connects to.
#[derive(Clone, PartialEq, Eq)]
pub enum EngineServers<S> {
    /// The engine itself.
    Single(S),
    /// Sentinels, and the name by which they know the engine.
    Sentinels(Vec<S>, String),
    /// Servers of one Redis Cluster, any of which knows the one that is the engine.
    RedisCluster(Vec<S>),
}

impl<S> EngineServers<S> {
    /// Returns all servers.
    pub fn all(&self) -> &[S] {
        match self {
            EngineServers::Single(server) => slice::from_ref(server),
            EngineServers::Sentinels(servers, _) | EngineServers::RedisCluster(servers) => servers,
        }
    }

    /// Returns what `convert` makes of each server.
    ///
    /// # Errors
    /// The first one of `convert`.
    #[cfg(feature = "cluster")]
    pub(crate) fn try_map<T, E>(
        &self,
        mut convert: impl FnMut(&S) -> Result<T, E>,
    ) -> Result<EngineServers<T>, E> {
        let mut all = |servers: &[S]| servers.iter().map(&mut convert).collect::<Result<Vec<_>, E>>();
        Ok(match self {
            EngineServers::Single(server) => EngineServers::Single(convert(server)?),
            EngineServers::Sentinels(servers, primary) => {
                EngineServers::Sentinels(all(servers)?, primary.clone())
            }
            EngineServers::RedisCluster(servers) => EngineServers::RedisCluster(all(servers)?),
        })
    }
}

impl EngineUrl {
    /// Parses `redis://…`, `redis+sentinel://…` or `redis+cluster://…`, or one of them with `rediss`.
    ///
    /// # Errors
    /// The text is none of these.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let error = || {
            ValueError::Word(
                "redis://[user[:password]@]host[:port][/number], rediss://… for TLS, \
                 redis+sentinel://host[:port],…/primary, or redis+cluster://host[:port],…",
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(error)?;
        let (login, hosts) = match rest.rsplit_once('@') {
            Some((login, hosts)) => (format!("{login}@"), hosts),
            None => (String::new(), rest),
        };
        if hosts.is_empty() || hosts.starts_with([':', '/']) {
            return Err(error());
        }
        let (base, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let each = |hosts: &str, default_port: &str| {
            let servers = hosts.split(',').map(|host| {
                // The colons within brackets are those of an IPv6 address.
                let after_address = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
                let port = if after_address.contains(':') { "" } else { default_port };
                let is_host = !host.is_empty() && !host.starts_with(':');
                is_host.then(|| format!("{base}://{login}{host}{port}")).ok_or_else(error)
            });
            servers.collect::<Result<Vec<_>, _>>()
        };
        let servers = match (base, kind) {
            ("redis" | "rediss", "") if names_database(hosts) => EngineServers::Single(text.to_owned()),
            ("redis" | "rediss", "sentinel") => {
                let named = hosts.split_once('/').filter(|(_, primary)| !primary.is_empty());
                let (hosts, primary) = named.ok_or_else(error)?;
                EngineServers::Sentinels(each(hosts, SENTINEL_PORT)?, primary.to_owned())
            }
            ("redis" | "rediss", "cluster") => {
                // There is no other database than the first.
                let hosts = hosts.strip_suffix('/').unwrap_or(hosts);
                let is_list = !hosts.contains(['/', '?', '#']);
                EngineServers::RedisCluster(each(Some(hosts).filter(|_| is_list).ok_or_else(error)?, "")?)
            }
            _ => return Err(error()),
        };
        Ok(EngineUrl { text: text.to_owned(), servers })
    }

    /// Returns true if the URL has a password.
    pub(crate) fn has_password(&self) -> bool {
        self.to_string() != self.text
    }

    /// Returns the URLs of the servers, each with its login.
    pub fn servers(&self) -> &EngineServers<String> {
        &self.servers
    }
}

impl fmt::Display for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(&self.text))
    }
}

impl fmt::Debug for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EngineUrl({self})")
    }
}

/// Returns true if the path behind a host is absent or the number of a database. A query may follow.
fn names_database(host: &str) -> bool {
    let path = host.split_once('/').map_or("", |(_, path)| path);
    let path = path.split('?').next().unwrap_or_default();
    path.is_empty() || path.parse::<u32>().is_ok()
}

/// Host and port at which other nodes reach this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddress {
    /// Name or address; an IPv6 address without brackets.
    pub host: String,
    /// Port, if one is given.
    pub port: Option<u16>,
}

impl NodeAddress {
    /// Parses a host, or a host and a port: `10.0.0.5`, `[fd00::5]:8001`, `a.example.org:8001`.
    ///
    /// # Errors
    /// The text is none of these.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let error =
            || ValueError::Word("a host, or a host and a port, such as 10.0.0.5:8001 or [fd00::5]:8001");
        let (host, port) = if text.parse::<std::net::Ipv6Addr>().is_ok() {
            (text, None)
        } else if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(error)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| error())?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(error)?) })
        } else {
            text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
        };
        let port = port.map(|port| port.parse().map_err(|_| error())).transpose()?;
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
            return Err(error());
        }
        Ok(NodeAddress { host: host.to_owned(), port })
    }
}

/// Consequence of an engine that does not answer for longer than a restart of it takes. Whatever it is, no
/// room is opened without the engine: another node might open the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
#[non_exhaustive]
pub enum EngineLoss {
    /// Existing rooms go on; a client that would open a room waits some seconds for the engine.
    Continue,
    /// Existing rooms go on; a client that would open a room is closed soon.
    #[default]
    RefuseNew,
    /// The rooms of the node are closed as well, and the node reports that it is not ready.
    Close,
}

impl EngineLoss {
    /// Returns the name as an operator writes it.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Parses `continue`, `refuse-new` or `close`.
    ///
    /// # Errors
    /// The text is none of these.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        text.parse().map_err(|_| ValueError::Word("continue, refuse-new, or close"))
    }
}

/// Parses a name of a cluster or a node, which is part of keys and lines.
///
/// # Errors
/// The text is empty, long, or has other characters than letters, digits, `.`, `_` and `-`.
pub(crate) fn parse_name(text: &str) -> Result<String, ValueError> {
    let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match (1..=MAX_NAME).contains(&text.len()) && text.chars().all(is_valid) {
        true => Ok(text.to_owned()),
        false => Err(ValueError::Word("a name of up to 64 letters, digits, '.', '_' and '-'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_and_shown_without_their_password() {
        for (url, shown) in [
            ("redis://127.0.0.1", "redis://127.0.0.1"),
            (
                "rediss://node:s3/c:r@et@redis.example.org:6380/2",
                "rediss://node:***@redis.example.org:6380/2",
            ),
            ("redis://:secret@h", "redis://:***@h"),
        ] {
            let parsed = EngineUrl::parse(url).unwrap();
            assert!(*parsed.servers() == EngineServers::Single(url.to_owned()), "{url}");
            assert_eq!(parsed.to_string(), shown);
            assert!(!format!("{parsed:?}").contains("secret"));
        }
        let sentinels = EngineUrl::parse("rediss+sentinel://u:p@a,b:1,[::1]/main").unwrap();
        assert_eq!(sentinels.to_string(), "rediss+sentinel://u:***@a,b:1,[::1]/main");
        let servers = ["rediss://u:p@a:26379", "rediss://u:p@b:1", "rediss://u:p@[::1]:26379"];
        let servers = servers.map(str::to_owned).to_vec();
        assert!(*sentinels.servers() == EngineServers::Sentinels(servers, "main".to_owned()));
        let clustered = EngineUrl::parse("rediss+cluster://u:p@a,[fd00::5]:1,b:7000/").unwrap();
        assert_eq!(clustered.to_string(), "rediss+cluster://u:***@a,[fd00::5]:1,b:7000/");
        let servers = ["rediss://u:p@a", "rediss://u:p@[fd00::5]:1", "rediss://u:p@b:7000"];
        let servers = servers.map(str::to_owned).to_vec();
        assert!(*clustered.servers() == EngineServers::RedisCluster(servers));
        for url in ["redis://h/", "redis://h/15", "rediss://u:p/q@h:1/2?protocol=resp3"] {
            assert!(EngineUrl::parse(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "127.0.0.1",
            "http://a",
            "http+sentinel://a/b",
            "redis://",
            "redis://u:p@",
            "redis://:6379",
            "redis://h/name",
            "redis://h/1/2",
            "redis+sentinel://a,b",
            "redis+sentinel://a,/main",
            "redis+cluster://",
            "redis+cluster://a,,b",
            "redis+cluster://a,:1",
            "redis+cluster://a/1",
            "redis+cluster://a?protocol=resp3",
            "redis+cluster+sentinel://a/b",
            "redis+other://a",
            "http+cluster://a",
        ] {
            assert!(EngineUrl::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn node_addresses_are_hosts_with_or_without_a_port() {
        for (text, host, port) in [
            ("10.0.0.5", "10.0.0.5", None),
            ("10.0.0.5:8001", "10.0.0.5", Some(8001)),
            ("fd00::5", "fd00::5", None),
            ("[fd00::5]", "fd00::5", None),
            ("[fd00::5]:8001", "fd00::5", Some(8001)),
            ("a.example.org:1", "a.example.org", Some(1)),
        ] {
            assert_eq!(NodeAddress::parse(text).unwrap(), NodeAddress { host: host.to_owned(), port });
        }
        for text in ["", ":1", "a:", "a:x", "a:70000", "[a]:1", "[::1", "[::1]1", "a b", "ws://a"] {
            assert!(NodeAddress::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn settings_of_a_node_need_a_cluster() {
        let config = ClusterConfig { node_port: Some(1), ..ClusterConfig::default() };
        assert_eq!(config.check(), Err(ConfigError::NodeWithoutCluster("node-port")));
        let url = Some(EngineUrl::parse("redis://h").unwrap());
        assert_eq!(ClusterConfig { url, ..config }.check(), Ok(()));
        let config = ClusterConfig { name: "blue".to_owned(), ..ClusterConfig::default() };
        assert_eq!(config.check(), Err(ConfigError::NodeWithoutCluster("cluster-name")));
        let config = ClusterConfig { engine_loss: EngineLoss::Close, ..ClusterConfig::default() };
        assert_eq!(config.check(), Err(ConfigError::NodeWithoutCluster("engine-loss")));
        assert_eq!(ClusterConfig::default().check(), Ok(()));
    }

    #[test]
    fn names_fit_into_keys() {
        assert_eq!(parse_name("a.B_c-1").unwrap(), "a.B_c-1");
        for name in ["", "a b", "a}", "ä", &"x".repeat(65)] {
            assert!(parse_name(name).is_err(), "{name}");
        }
    }
}
