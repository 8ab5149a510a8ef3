//! The servers that take part, each a process on its cores: the originals under the Node they run on, ours, and the
//! references. Nothing is measured here.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use compat_tests::goldens::Original;
use compat_tests::oracle::{Node, Server};

use crate::machine::{Cores, pin};

/// Room for a content of a MiB, with what is around it.
const LARGE: &str = "2097152";

/// Who does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// An original, by its version.
    Original(&'static str),
    /// Our server as it comes, on one core.
    Ours,
    /// The same on one core with the load.
    OursSharingOne,
    /// The same with two workers on two cores, each of which has half of the load, too.
    OursSharingTwo,
    /// Two of ours, each on a core of its own, that share nothing. The load is that of `OursSharingTwo`: each half of
    /// it has as much to do with the one as with the other.
    OursApart,
    /// Ours on one core with room for messages of more than a MiB.
    OursForLarge,
    /// Ours on one core over TLS.
    OursTls,
    /// The least that can stand between two clients.
    Reference,
    /// The same behind rustls.
    ReferenceTls,
}

/// What is needed to start them.
pub struct Servers {
    /// Our server.
    pub ours: PathBuf,
    /// Where the originals are installed.
    pub originals: PathBuf,
    /// A certificate and its key.
    pub tls: (PathBuf, PathBuf),
    /// Which Node each original has turned out to run on.
    pub nodes: RefCell<BTreeMap<&'static str, Node>>,
}

impl Party {
    /// Whether clients come over TLS.
    pub fn tls(self) -> bool {
        matches!(self, Party::OursTls | Party::ReferenceTls)
    }

    /// How many cores it has.
    pub fn cores(self) -> f64 {
        if matches!(self, Party::OursSharingTwo | Party::OursApart) { 2.0 } else { 1.0 }
    }

    /// Its name in the table.
    pub fn name(self) -> String {
        match self {
            Party::Original(version) => format!("sigver@{version}"),
            Party::Ours => "ours".into(),
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
    /// Starts one, which is more than one process if it is several. This thread is back on the load's core then.
    pub async fn start(&self, party: Party) -> Result<Vec<Server>> {
        // A process inherits its cores, so that it has as many threads as cores from the beginning.
        let (processes, load) = match party {
            Party::OursSharingOne => (&[Cores::First][..], Cores::First),
            // The other half of the load goes to the other core, see `drive`.
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
        // The program that runs, even if it has been built again meanwhile.
        let own = Path::new("/proc/self/exe");
        match party {
            Party::Original(version) => self.original(version).await,
            Party::Ours | Party::OursSharingOne | Party::OursSharingTwo | Party::OursApart => {
                Server::ours_with(&self.ours, &[]).await
            }
            Party::OursForLarge => Server::ours_with(&self.ours, &["--max-message", LARGE]).await,
            Party::OursTls => Server::ours_with(&self.ours, &["--cert", &cert, "--key", &key]).await,
            Party::Reference => Server::ours_with(own, &["reference"]).await,
            Party::ReferenceTls => {
                Server::ours_with(own, &["reference", "--cert", &cert, "--key", &key]).await
            }
        }
    }

    /// Under the system's Node if it runs there.
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
