//! Servers of the comparison, each a process on its cores: the Node.js servers, the gateway, the bare
//! relay.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use compat_tests::goldens::Original;
use compat_tests::oracle::{Node, Server};

use crate::machine::{Cores, pin};

/// Message limit with room for a content of 1 MiB.
const LARGE: &str = "2097152";

/// A participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// A Node.js server, by version.
    Original(&'static str),
    /// The gateway with defaults, on one core.
    Ours,
    /// The gateway's build before a change, as `Ours`.
    Before,
    /// The gateway on one core with the load generator.
    OursSharingOne,
    /// The gateway with two workers on two cores, each shared with half of the load.
    OursSharingTwo,
    /// Two gateways that share nothing, each on a core of its own. The load is that of `OursSharingTwo`,
    /// half of each thread's to each.
    OursApart,
    /// The gateway on one core, with room for messages above 1 MiB.
    OursForLarge,
    /// The gateway on one core, over TLS.
    OursTls,
    /// The bare relay.
    Reference,
    /// The bare relay behind rustls.
    ReferenceTls,
}

/// Paths and settings to start servers.
pub struct Servers {
    /// The gateway's binary.
    pub gateway: PathBuf,
    /// The gateway's binary before a change.
    pub before: Option<PathBuf>,
    /// Directory of the installed Node.js servers.
    pub originals: PathBuf,
    /// Certificate and key.
    pub tls: (PathBuf, PathBuf),
    /// Node.js runtime on which each release was found to run.
    pub nodes: RefCell<BTreeMap<&'static str, Node>>,
}

impl Party {
    /// Returns true if clients connect over TLS.
    pub fn tls(self) -> bool {
        matches!(self, Party::OursTls | Party::ReferenceTls)
    }

    /// Returns the number of cores.
    pub fn cores(self) -> f64 {
        if matches!(self, Party::OursSharingTwo | Party::OursApart) { 2.0 } else { 1.0 }
    }

    /// Returns the name shown in the table.
    pub fn name(self) -> String {
        match self {
            Party::Original(version) => format!("sigver@{version}"),
            Party::Ours => "ours".into(),
            Party::Before => "before".into(),
            Party::OursSharingOne => "ours on one".into(),
            Party::OursSharingTwo => "ours on two".into(),
            Party::OursApart => "two of ours, on one each".into(),
            Party::OursForLarge => "ours for large messages".into(),
            Party::OursTls => "ours over TLS".into(),
            Party::Reference => "bare relay".into(),
            Party::ReferenceTls => "bare relay behind rustls".into(),
        }
    }
}

impl Servers {
    /// Starts a participant, with one process or several. The calling thread is pinned to the load
    /// generator's core afterwards.
    pub async fn start(&self, party: Party) -> Result<Vec<Server>> {
        // A process inherits its cores, so that it starts as many threads from the beginning.
        let (processes, load) = match party {
            Party::OursSharingOne => (&[Cores::First][..], Cores::First),
            // The other half of the load is on the other core, see `drive`.
            Party::OursSharingTwo => (&[Cores::Both][..], Cores::First),
            Party::OursApart => (&[Cores::First, Cores::Second][..], Cores::First),
            _ => (&[Cores::First][..], Cores::Second),
        };
        let mut servers = Vec::new();
        for cores in processes {
            pin(*cores)?;
            let started = self.started(party).await;
            pin(load)?;
            servers.push(started.with_context(|| party.name())?);
        }
        Ok(servers)
    }

    async fn started(&self, party: Party) -> Result<Server> {
        let text = |path: &'_ Path| path.to_string_lossy().into_owned();
        let (cert, key) = (text(&self.tls.0), text(&self.tls.1));
        // The running program, even if it was rebuilt since.
        let own = Path::new("/proc/self/exe");
        match party {
            Party::Original(version) => self.original(version).await,
            Party::Ours | Party::OursSharingOne | Party::OursSharingTwo | Party::OursApart => {
                Server::gateway_with(&self.gateway, &[]).await
            }
            Party::Before => {
                let binary = self.before.as_ref().context("no binary of before the change was given")?;
                Server::gateway_with(binary, &[]).await
            }
            Party::OursForLarge => Server::gateway_with(&self.gateway, &["--max-message", LARGE]).await,
            Party::OursTls => Server::gateway_with(&self.gateway, &["--cert", &cert, "--key", &key]).await,
            Party::Reference => Server::gateway_with(own, &["reference"]).await,
            Party::ReferenceTls => {
                Server::gateway_with(own, &["reference", "--cert", &cert, "--key", &key]).await
            }
        }
    }

    /// Starts a Node.js server, on the installed Node.js if it runs there.
    async fn original(&self, version: &'static str) -> Result<Server> {
        let original = Original::find(version)?;
        let known = self.nodes.borrow().get(version).copied();
        let system = match known {
            Some(Node::Eight) => None,
            _ => Server::original_under(Node::System, &self.originals, original).await.ok(),
        };
        let (node, server) = match system {
            Some(server) => (Node::System, server),
            None => (Node::Eight, Server::original_under(Node::Eight, &self.originals, original).await?),
        };
        self.nodes.borrow_mut().insert(version, node);
        Ok(server)
    }
}
