//! A proxy in front of Redis that has one node have all names, so that no client of the others is at the node
//! of its room.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, copy};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};

/// The proxy: names belong to the owner, from when it is set.
#[derive(Debug)]
pub(crate) struct ClaimProxy {
    pub(crate) address: SocketAddr,
    owner: Arc<OnceLock<String>>,
}

impl ClaimProxy {
    /// Starts a proxy in front of `redis`.
    pub(crate) async fn start(redis: SocketAddr) -> Result<ClaimProxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let proxy = ClaimProxy { address: listener.local_addr()?, owner: Arc::default() };
        let owner = Arc::clone(&proxy.owner);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let owner = Arc::clone(&owner);
                tokio::spawn(async move {
                    if let Err(error) = forward(client, redis, &owner).await {
                        eprintln!("the proxy of Redis: {error:#}");
                    }
                });
            }
        });
        Ok(proxy)
    }

    /// Has a node, by its id in Redis, have all names that are claimed from now on.
    pub(crate) fn set_owner(&self, node: &str) -> Result<()> {
        self.owner.set(node.to_owned()).ok().context("there is an owner")
    }
}

async fn forward(client: TcpStream, redis: SocketAddr, owner: &OnceLock<String>) -> Result<()> {
    let (server, own) = (TcpStream::connect(redis).await?, TcpStream::connect(redis).await?);
    for stream in [&client, &server, &own] {
        stream.set_nodelay(true)?;
    }
    let (client_read, mut client_write) = client.into_split();
    let (mut server_read, mut server_write) = server.into_split();
    let mut own = BufReader::new(own);
    let commands = async {
        let mut client = BufReader::new(client_read);
        while let Some(words) = read_command(&mut client).await? {
            let words = change(words, owner, &mut own).await?;
            server_write.write_all(&command(&words)).await?;
        }
        Ok(())
    };
    tokio::select! {
        ended = commands => ended,
        copied = copy(&mut server_read, &mut client_write) => Ok(copied.map(drop)?),
    }
}

/// Gives a name to the owner before another node claims it, and has no name become free.
async fn change(
    words: Vec<Vec<u8>>,
    owner: &OnceLock<String>,
    own: &mut BufReader<TcpStream>,
) -> Result<Vec<Vec<u8>>> {
    let Some(owner) = owner.get() else { return Ok(words) };
    let is_call = words.first().is_some_and(|word| word.eq_ignore_ascii_case(b"EVALSHA"));
    let keys = words.get(2).and_then(|count| std::str::from_utf8(count).ok()?.parse::<usize>().ok());
    let (Some(keys), true) = (keys, is_call) else { return Ok(words) };
    let key = |index: usize| words.get(3 + index).filter(|_| index < keys).map(Vec::as_slice);
    let Some(name) = key(0).filter(|name| name.windows(3).any(|part| part == b":r:")) else {
        return Ok(words);
    };
    match keys {
        // A release.
        1 => Ok([&b"EVAL"[..], b"return 0", b"0"].map(<[u8]>::to_vec).to_vec()),
        // A claim: the number is lower than that of any claim of the owner itself.
        3 if key(1).is_some_and(|key| key.ends_with(b":nodes")) => {
            let claim = format!("{owner}.0");
            own.write_all(&command(&[b"SET", name, claim.as_bytes(), b"NX", b"PX", b"600000"])).await?;
            let mut answer = String::new();
            own.read_line(&mut answer).await?;
            // Nothing, if the name is not free.
            ensure!(answer == "+OK\r\n" || answer == "$-1\r\n", "SET is answered with {answer:?}");
            Ok(words)
        }
        _ => Ok(words),
    }
}

/// Reads a command, an array of strings; `None` at the end.
async fn read_command(client: &mut BufReader<OwnedReadHalf>) -> Result<Option<Vec<Vec<u8>>>> {
    let Some(count) = read_length(client, b'*').await? else { return Ok(None) };
    let mut words = Vec::new();
    for _ in 0..count {
        let length = read_length(client, b'$').await?.context("a command is cut short")?;
        let mut word = vec![0; length + 2];
        client.read_exact(&mut word).await?;
        word.truncate(length);
        words.push(word);
    }
    Ok(Some(words))
}

async fn read_length(client: &mut BufReader<OwnedReadHalf>, kind: u8) -> Result<Option<usize>> {
    let mut line = Vec::new();
    client.read_until(b'\n', &mut line).await?;
    let Some((first, length)) = line.split_first() else { return Ok(None) };
    ensure!(*first == kind, "no command: {}", String::from_utf8_lossy(&line));
    Ok(Some(std::str::from_utf8(length)?.trim_end().parse()?))
}

fn command(words: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        let word = word.as_ref();
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
