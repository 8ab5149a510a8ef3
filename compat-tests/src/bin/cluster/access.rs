//! A Redis with TLS, whose user has a password and the rights that the how-to gives.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use compat_tests::oracle::free_port;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

/// The documentation with the rights of the user.
const HOW_TO: &str = "docs/howto/cluster.md";
const PASSWORD: &str = "a-password";

/// Starts a node with the certificate and the password of Redis, and without either.
pub(crate) async fn check(program: &Path, redis: &str) -> Result<()> {
    let port = free_port()?;
    let directory = std::env::temp_dir().join(format!("sigver-redis-tls-{port}"));
    std::fs::create_dir_all(&directory)?;
    let file = |name: &str| directory.join(name).display().to_string();
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    std::fs::write(file("certificate"), pair.cert.pem())?;
    std::fs::write(file("key"), pair.signing_key.serialize_pem())?;
    let how_to = std::fs::read_to_string(HOW_TO).with_context(|| format!("cannot read {HOW_TO}"))?;
    let user = how_to.lines().map(str::trim).find(|line| line.starts_with("user sigver on "));
    let user = user.context("the how-to has no user for Redis")?.replace("PASSWORD", PASSWORD);
    let settings = format!(
        "port 0\ntls-port {port}\nbind 127.0.0.1\nsave \"\"\ntls-cert-file {}\ntls-key-file {}\n\
         tls-ca-cert-file {}\ntls-auth-clients no\nuser default off\n{user}\n",
        file("certificate"),
        file("key"),
        file("certificate"),
    );
    std::fs::write(file("redis.conf"), settings)?;
    let mut server = Command::new(redis);
    let _server = server.arg(file("redis.conf")).stdout(Stdio::null()).kill_on_drop(true).spawn()?;
    let url = |password: &str| format!("rediss://sigver:{password}@localhost:{port}");
    let trusted = file("certificate");
    ensure!(joins(program, &url(PASSWORD), Some(&trusted), 15).await?, "no node joins over TLS");
    ensure!(!joins(program, &url("wrong"), Some(&trusted), 2).await?, "a wrong password is taken");
    ensure!(!joins(program, &url(PASSWORD), None, 2).await?, "a certificate that nobody trusts is taken");
    std::fs::remove_dir_all(&directory)?;
    println!("access: TLS, user and password, with the rights of the how-to");
    Ok(())
}

/// Returns true if a node that trusts the certificate in `trusted` joins within some seconds.
async fn joins(program: &Path, engine: &str, trusted: Option<&str>, seconds: u64) -> Result<bool> {
    let mut command = Command::new(program);
    command.args(["node", "--engine", engine]).stdout(Stdio::piped()).kill_on_drop(true);
    if let Some(trusted) = trusted {
        command.env("SSL_CERT_FILE", trusted);
    }
    let mut node = command.spawn()?;
    let mut lines = BufReader::new(node.stdout.take().context("no output")?).lines();
    let line = timeout(Duration::from_secs(seconds), lines.next_line()).await;
    Ok(matches!(line, Ok(Ok(Some(_)))))
}
