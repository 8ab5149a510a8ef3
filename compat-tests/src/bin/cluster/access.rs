//! A Redis with TLS, whose users have passwords and the rights that the how-to gives: by itself, found by
//! sentinels, and in a Redis Cluster.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use compat_tests::oracle::free_port;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// The documentation with the rights of the user.
const HOW_TO: &str = "docs/howto/cluster.md";
const PASSWORD: &str = "a-password";
/// The user of sentinels, with the rights that Redis's documentation gives.
const SENTINEL_USER: &str = "user sentinel on >another allchannels +multi +slaveof +ping +exec +subscribe \
                             +config|rewrite +role +publish +info +client|setname +client|kill +script|kill";

/// Files of servers with one certificate.
struct Files(PathBuf);

impl Files {
    fn new(port: u16) -> Result<Files> {
        let directory = std::env::temp_dir().join(format!("sigver-redis-tls-{port}"));
        std::fs::create_dir_all(&directory)?;
        let files = Files(directory);
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        files.write("certificate", &pair.cert.pem())?;
        files.write("key", &pair.signing_key.serialize_pem())?;
        Ok(files)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(std::fs::write(self.path(name), text)?)
    }

    /// Starts a server with TLS only, and these settings.
    fn serve(&self, redis: &str, name: &str, port: u16, settings: &str) -> Result<Child> {
        let (certificate, key) = (self.path("certificate"), self.path("key"));
        let settings = format!(
            "port 0\ntls-port {port}\nbind 127.0.0.1\ntls-cert-file {certificate}\ntls-key-file {key}\n\
             tls-ca-cert-file {certificate}\ntls-auth-clients no\ntls-replication yes\n{settings}\n"
        );
        self.write(name, &settings)?;
        let mut command = Command::new(redis);
        command.arg(self.path(name)).args((name == "sentinel").then_some("--sentinel"));
        command.arg("--dir").arg(&self.0);
        Ok(command.stdout(Stdio::null()).kill_on_drop(true).spawn()?)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts nodes with the certificate and the password of Redis, and without either.
pub(crate) async fn check(program: &Path, redis: &str) -> Result<()> {
    let port = free_port()?;
    let files = Files::new(port)?;
    let how_to = std::fs::read_to_string(HOW_TO).with_context(|| format!("cannot read {HOW_TO}"))?;
    let user = how_to.lines().map(str::trim).find(|line| line.starts_with("user sigver on "));
    let user = user.context("the how-to has no user for Redis")?.replace("PASSWORD", PASSWORD);
    let settings = format!("save \"\"\nuser default off\n{SENTINEL_USER}\n{user}");
    let _server = files.serve(redis, "redis.conf", port, &settings)?;
    let url = format!("rediss://sigver@localhost:{port}");
    let trusted = files.path("certificate");
    let joins = async |url: &str, password: &str, trusted: Option<&str>, seconds| {
        joins(program, url, password, trusted, seconds).await
    };
    ensure!(joins(&url, PASSWORD, Some(&trusted), 15).await?, "no node joins over TLS");
    ensure!(!joins(&url, "wrong", Some(&trusted), 2).await?, "a wrong password is taken");
    ensure!(!joins(&url, PASSWORD, None, 2).await?, "a certificate that nobody trusts is taken");
    println!("access: TLS, user and password, with the rights of the how-to");

    // Sentinels without users, and with that of the nodes.
    for users in ["", &format!("user default off\nuser sigver on >{PASSWORD} +@all\n")] {
        let sentinel_port = free_port()?;
        let settings = format!(
            "sentinel monitor main 127.0.0.1 {port} 1\nsentinel auth-user main sentinel\n\
             sentinel auth-pass main another\n{users}"
        );
        let _sentinel = files.serve(redis, "sentinel", sentinel_port, &settings)?;
        // Until it has asked the primary.
        sleep(Duration::from_secs(2)).await;
        let url = format!("rediss+sentinel://sigver@localhost:{sentinel_port}/main");
        ensure!(joins(&url, PASSWORD, Some(&trusted), 15).await?, "no node joins by a sentinel: {users:?}");
        ensure!(!joins(&url, "wrong", Some(&trusted), 2).await?, "a wrong password is taken: {users:?}");
        ensure!(
            !joins(&url, PASSWORD, None, 2).await?,
            "a sentinel's certificate that nobody trusts is taken"
        );
    }
    println!("access: the same with sentinels, without and with users");

    let seed = free_port()?;
    let _servers = serve_slots(&files, redis, seed, &user).await?;
    let url = format!("rediss+cluster://sigver@localhost:{seed}");
    ensure!(joins(&url, PASSWORD, Some(&trusted), 15).await?, "no node joins in a Redis Cluster");
    ensure!(!joins(&url, "wrong", Some(&trusted), 2).await?, "a wrong password is taken in a Redis Cluster");
    ensure!(!joins(&url, PASSWORD, None, 2).await?, "a server's certificate that nobody trusts is taken");
    println!("access: the same in a Redis Cluster");
    Ok(())
}

/// Starts two servers of a Redis Cluster, of which that at the port `seed` has one slot only.
async fn serve_slots(files: &Files, redis: &str, seed: u16, user: &str) -> Result<Vec<Child>> {
    let mut servers = Vec::new();
    let ports = [(seed, free_port()?), (free_port()?, free_port()?)];
    let lines = ports.map(|(port, bus)| format!("{port:040x} 127.0.0.1:{port}@{bus}"));
    for (number, (port, bus)) in ports.into_iter().enumerate() {
        // What a server has written that has met the other.
        let line = |other: usize, slots: &str| {
            let flags = if other == number { "myself,master" } else { "master" };
            let epoch = other + 1;
            format!("{} {flags} - 0 0 {epoch} connected {slots}\n", lines[other])
        };
        let nodes = format!("{}{}", line(0, "0"), line(1, "1-16383"));
        let settings = format!("nodes-{number}");
        files.write(&settings, &format!("{nodes}vars currentEpoch 2 lastVoteEpoch 0\n"))?;
        let settings = format!(
            "save \"\"\nuser default off\n{user}\ncluster-enabled yes\ntls-cluster yes\ncluster-port {bus}\n\
             cluster-config-file {settings}"
        );
        servers.push(files.serve(redis, &format!("slots-{number}.conf"), port, &settings)?);
    }
    Ok(servers)
}

/// Returns true if a node that trusts the certificate in `trusted` joins within some seconds.
async fn joins(
    program: &Path,
    engine: &str,
    password: &str,
    trusted: Option<&str>,
    seconds: u64,
) -> Result<bool> {
    let mut command = Command::new(program);
    command.args(["node", "--engine", engine, "--password", password]);
    command.stdout(Stdio::piped()).kill_on_drop(true);
    if let Some(trusted) = trusted {
        command.env("SSL_CERT_FILE", trusted);
    }
    let mut node = command.spawn()?;
    let mut lines = BufReader::new(node.stdout.take().context("no output")?).lines();
    let line = timeout(Duration::from_secs(seconds), lines.next_line()).await;
    Ok(matches!(line, Ok(Ok(Some(_)))))
}
