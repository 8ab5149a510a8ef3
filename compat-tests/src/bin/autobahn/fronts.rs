//! Servers in front of the gateway: the documented snippets of reverse proxies, with TLS if it is wanted.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use compat_tests::tls;
use tokio::process::Command;
use tokio_rustls::TlsConnector;

/// The page with the snippets.
const PAGE: &str = include_str!("../../../../docs/howto/reverse-proxy.md");

/// Server between the clients and the gateway, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Front {
    Direct,
    Nginx,
    Haproxy,
}

/// Files of a certificate for `localhost`.
pub(crate) struct Certificate {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    /// Both, as HAProxy needs them.
    both: PathBuf,
}

impl Certificate {
    pub(crate) fn create(directory: &Path) -> Result<Certificate> {
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let [chain, key, both] = ["chain.pem", "key.pem", "both.pem"].map(|name| directory.join(name));
        let (certificate, private) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        std::fs::write(&chain, &certificate)?;
        std::fs::write(&key, &private)?;
        std::fs::write(&both, certificate + &private)?;
        Ok(Certificate { chain, key, both })
    }

    /// Returns a client that trusts this certificate.
    pub(crate) fn connector(&self) -> Result<TlsConnector> {
        tls::connector(&std::fs::read_to_string(&self.chain)?)
    }
}

/// Returns the block of the page in this language, for another server.
fn snippet(language: &str, server: u16) -> Result<String> {
    let (_, block) = PAGE.split_once(&format!("```{language}\n")).context("the page has no such block")?;
    let (block, _) = block.split_once("```").context("the block does not end")?;
    let changed = block.replace("127.0.0.1:8000", &format!("127.0.0.1:{server}"));
    anyhow::ensure!(changed != block, "the block of {language} has another server");
    Ok(changed)
}

impl Front {
    /// Returns the command that serves the port `public` for a server on the port `server`.
    pub(crate) fn command(
        self,
        directory: &Path,
        server: u16,
        public: u16,
        certificate: Option<&Certificate>,
    ) -> Result<Option<Command>> {
        let place = directory.display();
        let (program, arguments, text) = match self {
            Front::Direct => return Ok(None),
            Front::Nginx => {
                let tls = certificate.map_or_else(String::new, |certificate| {
                    let (chain, key) = (certificate.chain.display(), certificate.key.display());
                    format!("ssl_certificate {chain}; ssl_certificate_key {key};")
                });
                let ssl = if certificate.is_some() { "ssl" } else { "" };
                let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|name| format!("{name}_temp_path {place}/{name};"))
                    .concat();
                let location = snippet("nginx", server)?;
                // In one process, which is ended with this program.
                let text = format!(
                    "daemon off; master_process off; pid {place}/pid; error_log stderr crit; events {{}}\n\
                     http {{ access_log off; {folders}\n\
                     server {{ listen 127.0.0.1:{public} {ssl}; {tls}\n{location} }} }}"
                );
                ("nginx", ["-p", &place.to_string(), "-c"].map(str::to_owned).to_vec(), text)
            }
            Front::Haproxy => {
                let tls = certificate.map_or_else(String::new, |certificate| {
                    format!(" ssl crt {}", certificate.both.display())
                });
                let block = snippet("haproxy", server)?;
                let text = block.replace("bind :80", &format!("bind 127.0.0.1:{public}{tls}"));
                anyhow::ensure!(text != block, "HAProxy's block has another port");
                ("haproxy", ["-db", "-f"].map(str::to_owned).to_vec(), text)
            }
        };
        let file = directory.join("configuration");
        std::fs::write(&file, text)?;
        let mut command = Command::new(program);
        // Debian has them where only root looks.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin")).args(arguments).arg(file);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        Ok(Some(command))
    }
}
