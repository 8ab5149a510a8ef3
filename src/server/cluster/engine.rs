//! The engine of a cluster: Redis 7 or Valkey, which decides by scripts which node has a name.
//!
//! All keys are in one hash slot. A claim goes to the process of Redis whose data were renewed over the same
//! connection, so that none can reach a process whose loss of data was not noticed: there is one connection,
//! and after any error it is opened again, in a Redis Cluster perhaps to another server.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, FromRedisValue as _,
    IntoConnectionInfo as _, RedisConnectionInfo, Script, TlsMode, Value,
};
use tokio::sync::Notify;

use super::engine_fault::{EngineError, check_server, info_field};
use super::name_hash::{NameHash, NameHasher};
use super::redis_cluster;
use super::tls::{NodePublicKey, install_default_provider};
use crate::config::{EngineServers, EngineUrl};
use crate::protocol::cluster::{
    CLAIM_TIMEOUT, Claim, ClaimResult, EngineFailure, EngineView, GENERATION_GRACE, Generation,
    LEASE_TIMEOUT, Millis, NodeId,
};

/// Longest time that Redis may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Most claims that are kept by one call, which blocks Redis for some milliseconds.
pub(super) const MAX_KEPT: usize = 500;

/// The address of the engine, and the name of the cluster in it.
#[derive(Clone)]
pub struct EngineAddress {
    servers: EngineServers<ConnectionInfo>,
    name: String,
    /// Number of connections so far.
    opened: Arc<AtomicUsize>,
}

/// Shows neither addresses nor passwords.
impl fmt::Debug for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EngineAddress({})", self.name)
    }
}

impl EngineAddress {
    /// Creates the address of the engine at `url`. `name` is that of the cluster, and `password` replaces one
    /// in the URL.
    ///
    /// # Errors
    /// A part of the URL cannot be used.
    pub fn new(url: &EngineUrl, name: &str, password: Option<&str>) -> Result<Self, EngineError> {
        let servers = url.servers().try_map(|url| {
            let server = url.as_str().into_connection_info()?;
            let Some(password) = password else { return Ok(server) };
            let settings = server.redis_settings().clone().set_password(password);
            redis::RedisResult::Ok(server.set_redis_settings(settings))
        })?;
        Ok(EngineAddress { servers, name: name.to_owned(), opened: Arc::default() })
    }

    /// Returns the function from keys of rooms to their names in the engine.
    pub fn names(&self) -> NameHasher {
        NameHasher::new(&self.name)
    }

    /// Returns the name of the cluster.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the servers as people know them, without user and password.
    pub(crate) fn describe(&self) -> String {
        let scheme = if self.has_tls() { "rediss" } else { "redis" };
        let hosts = || {
            let hosts = self.servers.all().iter().map(|server| server.addr().to_string());
            hosts.collect::<Vec<_>>().join(",")
        };
        match &self.servers {
            EngineServers::Single(server) => {
                format!("{scheme}://{}/{}", server.addr(), server.redis_settings().db())
            }
            EngineServers::Sentinels(_, primary) => format!("{scheme}+sentinel://{}/{primary}", hosts()),
            EngineServers::RedisCluster(_) => format!("{scheme}+cluster://{}", hosts()),
        }
    }

    /// Returns the way in which the engine fails when it cannot be connected to.
    pub(super) fn failure(&self, error: &EngineError) -> EngineFailure {
        match self.servers {
            // Sentinels that do not run are no sign of what their primary does, and a primary that does not
            // run is none of what its replicas do.
            EngineServers::Sentinels(..) | EngineServers::RedisCluster(_) => EngineFailure::Unreachable,
            EngineServers::Single(_) => error.failure(),
        }
    }

    pub(super) fn has_tls(&self) -> bool {
        self.servers
            .all()
            .first()
            .is_some_and(|server| matches!(server.addr(), ConnectionAddr::TcpTls { .. }))
    }

    /// Returns how the primary that sentinels know is reached: with the login and the TLS of the address.
    fn primary_settings(&self) -> SentinelNodeConnectionInfo {
        let mut settings = SentinelNodeConnectionInfo::default();
        let Some(server) = self.servers.all().first() else { return settings };
        if self.has_tls() {
            settings = settings.set_tls_mode(TlsMode::Secure);
        }
        settings.set_redis_connection_info(server.redis_settings().clone())
    }

    /// Returns hosts and ports of all servers that are no Unix sockets.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = (&str, u16)> {
        self.servers.all().iter().filter_map(|server| match server.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some((host.as_str(), *port))
            }
            _ => None,
        })
    }

    fn prefix(&self) -> String {
        format!("sigver:{{{}}}", self.name)
    }
}

fn data_key(prefix: &str) -> String {
    format!("{prefix}:data")
}

/// Returns the sentinels in the order in which they are asked: those that have users know the one of Redis,
/// others refuse one that logs in.
fn with_and_without_login(sentinels: &[ConnectionInfo]) -> Vec<ConnectionInfo> {
    let has_login = |server: &&ConnectionInfo| server.redis_settings().password().is_some();
    let without_login = sentinels.iter().filter(has_login);
    let without_login =
        without_login.map(|server| server.clone().set_redis_settings(RedisConnectionInfo::default()));
    sentinels.iter().cloned().chain(without_login).collect()
}

/// The entry of a node in the engine: how others reach and know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// Host and port.
    pub address: String,
    /// The public key of its links.
    pub public_key: NodePublicKey,
    /// The version of the program.
    pub version: String,
    /// A name for people.
    pub name: String,
    /// Number of its rooms.
    pub rooms: usize,
    /// Time since its lease ended, in milliseconds; `None` while it lasts.
    pub expired: Option<Millis>,
}

impl NodeEntry {
    fn to_text(&self) -> String {
        let key = data_encoding::BASE64.encode(&self.public_key);
        format!("{} {key} {} {} {}", self.address, self.version, self.rooms, self.name)
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut words = text.splitn(5, ' ');
        let mut next = || words.next().map(str::to_owned);
        let (address, key) = (next()?, next()?);
        let public_key = data_encoding::BASE64.decode(key.as_bytes()).ok()?;
        let (version, rooms) = (next()?, next()?.parse().ok()?);
        Some(NodeEntry { address, public_key, version, name: next()?, rooms, expired: None })
    }
}

/// The answer to a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease lasts on. The last is the node with the same address that this one has replaced, if its
    /// lease had not ended.
    Renewed(EngineView, Vec<(NodeId, NodeEntry)>, Option<NodeEntry>),
    /// The node has announced that it ends, or another process has its address: that one, if its lease lasts.
    Replaced(Option<NodeEntry>),
}

/// A connection to the engine.
#[derive(Clone)]
pub struct Engine {
    connection: MultiplexedConnection,
    /// The servers as people know them, and the one in use if they found it.
    place: String,
    /// The id of the process of Redis.
    process: String,
    prefix: String,
    scripts: Scripts,
    failed: Arc<Notify>,
    /// The number of the connection among those of a node.
    pub(super) number: u64,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({})", self.prefix)
    }
}

#[derive(Clone)]
struct Scripts {
    renew: Script,
    claim: Script,
    keep: Script,
    release: Script,
    leave: Script,
    found: Script,
}

impl Engine {
    /// Connects to the engine; to the primary that the first sentinel or server of a Redis Cluster that
    /// answers knows, if there are any. In a Redis Cluster, another server is the first with each call.
    ///
    /// # Errors
    /// It cannot be reached, or would forget claims.
    pub async fn open(address: &EngineAddress) -> Result<Engine, EngineError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let mut place = address.describe();
        if address.has_tls() {
            install_default_provider();
        }
        let mut connection = match &address.servers {
            EngineServers::RedisCluster(servers) => {
                // The one that answered the last time may know a former primary, or be it.
                let first = address.opened.fetch_add(1, Ordering::Relaxed);
                let key = data_key(&address.prefix());
                let (connection, primary) = redis_cluster::connect(servers, first, &key, &config).await?;
                place = format!("{place} ({primary})");
                connection
            }
            EngineServers::Sentinels(servers, primary) => {
                let (sentinels, node) = (with_and_without_login(servers), address.primary_settings());
                let mut client =
                    SentinelClient::build(sentinels, primary, Some(node), SentinelServerType::Master)?;
                client.get_async_connection_with_config(&config).await?
            }
            EngineServers::Single(server) => {
                Client::open(server.clone())?.get_multiplexed_async_connection_with_config(&config).await?
            }
        };
        let info: String = redis::cmd("INFO").query_async(&mut connection).await?;
        let process = info_field(&info, "run_id:").ok_or(EngineError::Answer)?.to_owned();
        check_server(&info, matches!(address.servers, EngineServers::RedisCluster(_)))?;
        let scripts = Scripts {
            renew: Script::new(include_str!("scripts/renew.lua")),
            claim: Script::new(include_str!("scripts/claim.lua")),
            keep: Script::new(include_str!("scripts/keep.lua")),
            release: Script::new(include_str!("scripts/release.lua")),
            leave: Script::new(include_str!("scripts/leave.lua")),
            found: Script::new(include_str!("scripts/found.lua")),
        };
        Ok(Engine {
            connection,
            place,
            process,
            prefix: address.prefix(),
            scripts,
            failed: Arc::default(),
            number: 0,
        })
    }

    /// Returns the servers as people know them, and the one in use if they found it.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Takes note that a request over the connection failed, after which it is not to be used any more.
    pub(super) fn fail(&self) {
        self.failed.notify_one();
    }

    /// Waits until a request over the connection has failed.
    pub(super) async fn failure(&self) {
        self.failed.notified().await;
    }

    /// Renews the lease of a node. `since` is the time since the sending of its last renewal that was
    /// answered, and `known` the last generation in an answer, or 0: a new one has a higher number. A node
    /// that was replaced `returns` when no other has its address any more.
    ///
    /// # Errors
    /// Redis did not answer as it should.
    pub async fn renew(
        &self,
        node: NodeId,
        entry: &NodeEntry,
        since: Option<Millis>,
        known: Generation,
        returns: bool,
    ) -> Result<Renewal, EngineError> {
        let since = since.map_or(String::new(), |since| since.to_string());
        let answer: Vec<Value> = self
            .scripts
            .renew
            .key(self.nodes())
            .key(self.who())
            .key(self.data())
            .key(self.found())
            .arg(node.to_string())
            .arg(LEASE_TIMEOUT)
            .arg(entry.to_text())
            .arg(&self.process)
            .arg(since)
            .arg(if returns { "returns" } else { "" })
            .arg(known)
            .invoke_async(&mut self.connection.clone())
            .await?;
        let mut answer = answer.into_iter();
        let generation = String::from_redis_value(answer.next().ok_or(EngineError::Answer)?)?;
        let age = i64::from_redis_value(answer.next().ok_or(EngineError::Answer)?)?;
        let other = String::from_redis_value(answer.next().ok_or(EngineError::Answer)?)?;
        let other = NodeEntry::from_text(&other);
        if generation == "replaced" {
            return Ok(Renewal::Replaced(other));
        }
        let generation = generation.parse().map_err(|_| EngineError::Answer)?;
        let (mut nodes, mut others) = (Vec::new(), Vec::new());
        while let (Some(node), Some(entry), Some(left)) = (answer.next(), answer.next(), answer.next()) {
            let node = parse_node(&String::from_redis_value(node)?);
            let entry = NodeEntry::from_text(&String::from_redis_value(entry)?);
            let left = i64::from_redis_value(left)?;
            let Some(node) = node else { continue };
            nodes.push(node);
            // A node of another version may write entries of another form. It counts, and is not dialled.
            let Some(entry) = entry else { continue };
            let expired = (left <= 0).then_some(left.unsigned_abs());
            others.push((node, NodeEntry { expired, ..entry }));
        }
        let age = u64::try_from(age).unwrap_or(0);
        Ok(Renewal::Renewed(EngineView { generation, age, others: nodes }, others, other))
    }

    /// Reports other nodes that run, and whose leases the engine has ended or does not know: nodes that start
    /// are to know them.
    ///
    /// # Errors
    /// Redis did not answer as it should.
    pub async fn report_running(&self, nodes: &[(NodeId, NodeEntry)]) -> Result<(), EngineError> {
        let mut call = self.scripts.found.prepare_invoke();
        call.key(self.found());
        for (node, entry) in nodes {
            call.arg(node.to_string()).arg(entry.to_text());
        }
        call.invoke_async::<()>(&mut self.connection.clone()).await?;
        Ok(())
    }

    /// Claims a name. `since` is the time since the sending of the last renewal that was answered.
    ///
    /// # Errors
    /// Redis did not answer as it should.
    pub async fn claim(
        &self,
        name: &NameHash,
        claim: Claim,
        over: Option<Claim>,
        generation: Generation,
        since: Millis,
    ) -> Result<ClaimResult, EngineError> {
        let (held, time): (String, i64) = self
            .scripts
            .claim
            .key(self.name(name, generation))
            .key(self.nodes())
            .key(self.data())
            .arg(claim.node.to_string())
            .arg(claim.to_string())
            .arg(over.map_or(String::new(), |over| over.to_string()))
            .arg(CLAIM_TIMEOUT)
            .arg(GENERATION_GRACE)
            .arg(generation)
            .arg(LEASE_TIMEOUT)
            .arg(since)
            .invoke_async(&mut self.connection.clone())
            .await?;
        if held.is_empty() {
            return Ok(u64::try_from(time).map_or(ClaimResult::OtherGeneration, ClaimResult::Wait));
        }
        let holder = parse_claim(&held).ok_or(EngineError::Answer)?;
        let left = u64::try_from(time).unwrap_or(0);
        Ok(if holder == claim { ClaimResult::Granted } else { ClaimResult::Held(holder, left) })
    }

    /// Keeps up to `MAX_KEPT` claims of a node. Returns the indexes of those whose names other nodes have;
    /// `None` if the engine has other data.
    ///
    /// # Errors
    /// Redis did not answer as it should.
    pub async fn keep(
        &self,
        node: NodeId,
        claims: &[(NameHash, Claim)],
        generation: Generation,
    ) -> Result<Option<Vec<usize>>, EngineError> {
        let mut call = self.scripts.keep.prepare_invoke();
        for (name, _) in claims {
            call.key(self.name(name, generation));
        }
        call.key(self.data()).arg(node.to_string()).arg(CLAIM_TIMEOUT).arg(generation);
        for (_, claim) in claims {
            call.arg(claim.to_string());
        }
        let lost: Vec<i64> = call.invoke_async(&mut self.connection.clone()).await?;
        // A negative index is that of no claim: the data are others.
        Ok(lost.into_iter().map(|index| usize::try_from(index).ok()).collect())
    }

    /// Frees a name.
    ///
    /// # Errors
    /// Redis did not answer as it should.
    pub async fn release(
        &self,
        name: &NameHash,
        claim: Claim,
        generation: Generation,
    ) -> Result<(), EngineError> {
        let name = self.name(name, generation);
        self.scripts
            .release
            .key(name)
            .arg(claim.to_string())
            .invoke_async::<()>(&mut self.connection.clone())
            .await?;
        Ok(())
    }

    /// Ends a node: all its names are free.
    ///
    /// # Errors
    /// Redis did not answer as it should.
    pub async fn leave(&self, node: NodeId) -> Result<(), EngineError> {
        self.scripts
            .leave
            .key(self.nodes())
            .key(self.who())
            .arg(node.to_string())
            .invoke_async::<()>(&mut self.connection.clone())
            .await?;
        Ok(())
    }

    fn nodes(&self) -> String {
        format!("{}:nodes", self.prefix)
    }

    fn who(&self) -> String {
        format!("{}:who", self.prefix)
    }

    fn found(&self) -> String {
        format!("{}:found", self.prefix)
    }

    fn data(&self) -> String {
        data_key(&self.prefix)
    }

    /// Returns the key of a name. It has the process of Redis as well: the clock of a later one, which may
    /// have old keys, may show the time of an earlier generation once more.
    fn name(&self, name: &NameHash, generation: Generation) -> String {
        let process = self.process.get(..8).unwrap_or(&self.process);
        format!("{}:r:{generation}.{process}:{}", self.prefix, name)
    }
}

fn parse_node(text: &str) -> Option<NodeId> {
    u64::from_str_radix(text, 16).ok().map(NodeId)
}

fn parse_claim(text: &str) -> Option<Claim> {
    let (node, number) = text.split_once('.')?;
    Some(Claim { node: parse_node(node)?, number: number.parse().ok()? })
}
