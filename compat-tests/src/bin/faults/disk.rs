//! Failures of files: a file system without space, and a certificate that is half written.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use compat_tests::tls;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::pki_types::ServerName;

use crate::Options;
use crate::clients::Pair;
use crate::process::{Server, Start};

/// A folder that is removed when dropped, and unmounted if it is a file system of its own.
pub(crate) struct Folder {
    path: PathBuf,
    mounted: bool,
}

impl Folder {
    pub(crate) fn create(name: &str) -> Result<Folder> {
        let path = std::env::temp_dir().join(format!("sigver-fault-{name}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Folder { path, mounted: false })
    }

    /// Mounts a small file system in it.
    fn mount(&mut self, options: &str) -> Result<()> {
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(&self.path).status()?;
        ensure!(mount.success(), "cannot mount a file system, which needs root");
        self.mounted = true;
        Ok(())
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("-l").arg(&self.path).status();
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Both outputs and the control socket on a file system without space for a byte or a file more.
pub(crate) async fn full(options: &Options) -> Result<String> {
    let mut folder = Folder::create("disk")?;
    folder.mount("size=64k,nr_inodes=8")?;
    let log = folder.file("log");
    fs::write(&log, "")?;
    let filled = fs::write(folder.file("rest"), vec![0; 1 << 20]);
    ensure!(filled.is_err(), "the file system has room for more");
    while fs::write(folder.file(&format!("file-{}", fs::read_dir(&folder.path)?.count())), "").is_ok() {}
    let control = format!("--control={}", folder.file("control.sock").display());
    let arguments = vec![control, "--log=trace".to_owned()];
    let start = Start { output: Some(log.clone()), arguments, ..Start::default() };
    let mut server = Server::start(options, start).await?;
    for number in 0..50 {
        Pair::open(server.address, &format!("/disk-{number}")).await?.exchange().await?;
    }
    server.stop().await?;
    ensure!(fs::metadata(&log)?.len() == 0, "something was written");
    Ok("starts, serves 50 pairs and stops without a byte of output".to_owned())
}

/// Connects over TLS to a server that must present this certificate.
async fn handshake(server: SocketAddr, certificate: &str) -> Result<()> {
    let stream = TcpStream::connect(server).await?;
    let connecting = tls::connector(certificate)?.connect(ServerName::try_from("localhost")?, stream);
    timeout(Duration::from_secs(5), connecting).await.context("no handshake")??;
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| file.display().to_string())
}

/// A certificate that is read again at each length that a writer leaves it at, and then whole.
pub(crate) async fn certificate(options: &Options) -> Result<String> {
    let folder = Folder::create("certificate")?;
    let (chain, key) = (folder.file("chain.pem"), folder.file("key.pem"));
    let make = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
    let (old, new) = (make()?, make()?);
    let [old_chain, new_chain] = [&old, &new].map(|pair| pair.cert.pem());
    write(&chain, &old_chain)?;
    write(&key, &old.signing_key.serialize_pem())?;
    let arguments = vec![format!("--cert={}", chain.display()), format!("--key={}", key.display())];
    let mut server = Server::start(options, Start { arguments, ..Start::default() }).await?;
    handshake(server.address, &old_chain).await.context("before")?;
    let lengths = [0, 1, new_chain.len() / 3, new_chain.len() / 2, new_chain.len() - 20];
    for length in lengths {
        write(&chain, &new_chain[..length])?;
        server.signal("HUP").await?;
        sleep(Duration::from_millis(100)).await;
        handshake(server.address, &old_chain).await.with_context(|| format!("with {length} bytes"))?;
    }
    // Whole, but of another key.
    write(&chain, &new_chain)?;
    server.signal("HUP").await?;
    sleep(Duration::from_millis(100)).await;
    handshake(server.address, &old_chain).await.context("with the key of the old certificate")?;
    write(&key, &new.signing_key.serialize_pem())?;
    server.signal("HUP").await?;
    sleep(Duration::from_millis(200)).await;
    handshake(server.address, &new_chain).await.context("with the new certificate")?;
    server.stop().await?;
    Ok(format!("the old one is served at {} stages of writing, the new one then", lengths.len() + 1))
}
