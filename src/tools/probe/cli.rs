//! The command line of `sigver probe`: its options, and what it prints.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::output;
use crate::tools::dial::{Target, TokenArgs, TrustArgs};
use crate::tools::probe::run::{Confidence, ProbeResult, probe};

/// Options of `sigver probe`.
#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// URL of the server, ws://HOST:PORT or wss://HOST
    url: String,
    /// Also wait for heartbeat timeouts (takes 20 s)
    #[arg(long)]
    thorough: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    token: TokenArgs,
}

impl ProbeArgs {
    /// Probes and prints. Returns success if the server was recognised, and no connection was refused.
    pub(crate) async fn run(&self) -> Result<ExitCode> {
        let target = Target::with_trust(&self.url, &self.trust)?.with_token(&self.token)?;
        let result = probe(&target, self.thorough).await?;
        match self.json {
            true => output::print(&format!("{}\n", serde_json::to_string_pretty(&result)?))?,
            false => output::print(&text(&result))?,
        }
        Ok(match result.confidence {
            Confidence::Certain | Confidence::Likely => ExitCode::SUCCESS,
            Confidence::Incomplete | Confidence::None => ExitCode::FAILURE,
        })
    }
}

/// Returns the usual reason of a refusal, and what helps.
fn advice(status: u16) -> &'static str {
    match status {
        401 => "the server needs a token: give one that is for every key with --token",
        403 => {
            "the token has to be for every key (*), or the origin of the tool is not allowed: see --auth and \
             --allowed-origins of the server"
        }
        407 => "a proxy needs a password",
        429 => {
            "too many connections of one address: wait, or allow more (--max-connections-per-address, \
             --max-connection-rate) while the probe runs"
        }
        503 => "the server is full, stops, or cannot check tokens: try again later",
        _ => "a proxy does not reach the server, or the server fails",
    }
}

/// Renders a result as text.
fn text(result: &ProbeResult) -> String {
    let confidence = match result.confidence {
        Confidence::Certain => "certain",
        Confidence::Likely => "likely",
        Confidence::Incomplete => "incomplete",
        Confidence::None => "not recognised",
    };
    let seconds = result.duration_ms as f64 / 1000.0;
    let mut out = format!("{}: {}\n{confidence}, after {seconds:.1} s\n\n", result.url, result.summary);
    for (status, count) in &result.refused {
        let _ = writeln!(out, "{count} refused with HTTP {status}: {}", advice(*status));
    }
    if !result.refused.is_empty() {
        out.push_str("What these would have shown is missing below.\n\n");
    }
    if result.gateway {
        out.push_str("GET /: a gateway like this one\n");
    }
    for finding in &result.findings {
        let releases = match (finding.releases.as_slice(), finding.releases.len()) {
            ([], _) => "no release".to_owned(),
            ([first, .., last], 5..) => format!("{first} … {last} ({})", finding.releases.len()),
            (few, _) => few.join(", "),
        };
        let _ = writeln!(out, "{}: {} — fits {releases}", finding.action, finding.observed);
    }
    for trial in &result.trials {
        let outcome = trial.failure.as_deref().unwrap_or("work");
        let _ = writeln!(out, "two clients of {}: {outcome}", trial.dialect);
    }
    out
}
