//! `sigver probe` and `sigver matrix` against the Node.js servers: the probe must recognise each of them and not crash it,
//! and the synthetic clients of the matrix must work on the servers of their own dialect, or they could not judge others.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::goldens::Original;
use crate::oracle::Server;

/// Time limit of a command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Number of servers that run concurrently.
const JOBS: usize = 12;

/// The results of the tools for one Node.js server.
#[derive(Debug)]
pub struct Found {
    /// Its version.
    pub version: &'static str,
    /// The probe's summary.
    pub summary: String,
    /// The probe's confidence.
    pub confidence: String,
    /// The matrix's verdict on a member and two joiners of the server's dialect.
    pub room: String,
    /// Deviations from what is expected.
    pub problems: Vec<String>,
}

/// Returns the releases that the probe must report, by their newest versions.
fn expected(version: &'static str, thorough: bool) -> Vec<&'static str> {
    match version {
        // They differ in their heartbeat timeouts only.
        "15.0.1" | "15.0.2" if !thorough => vec!["15.0.1", "15.0.2"],
        version => vec![version],
    }
}

/// Returns the matrix's verdict on the server's own dialect.
fn expected_room(version: &str) -> &'static str {
    match version {
        // It sends its opener one index for all joiners (C01).
        "5.0.0" => "failed",
        // It sends an answer to every waiting joiner.
        "6.0.0" => "degraded",
        // It fails where it should report a departure.
        "9.1.0" => "degraded",
        _ => "ok",
    }
}

/// Starts the Node.js servers, some concurrently, and runs the tools of this program on each.
///
/// # Errors
///
/// If a server does not start, or a tool prints no JSON.
pub async fn check(
    originals: &[&'static Original],
    dir: &Path,
    server_bin: &Path,
    thorough: bool,
) -> Result<Vec<Found>> {
    let bound = Arc::new(Semaphore::new(JOBS));
    let mut running = JoinSet::new();
    for (place, original) in originals.iter().copied().enumerate() {
        let (bound, dir, bin) = (Arc::clone(&bound), dir.to_owned(), server_bin.to_owned());
        running.spawn(async move {
            let _permit = bound.acquire_owned().await?;
            let found = one(original, &dir, &bin, thorough).await;
            Ok::<_, anyhow::Error>((place, found.with_context(|| original.version)?))
        });
    }
    let mut found = running.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    found.sort_by_key(|(place, _)| *place);
    Ok(found.into_iter().map(|(_, found)| found).collect())
}

async fn one(original: &'static Original, dir: &Path, bin: &Path, thorough: bool) -> Result<Found> {
    let server = Server::original(dir, original).await?;
    let url = format!("ws://{}", server.addr);
    let mut problems = Vec::new();
    let mut args = vec!["probe", &url, "--json"];
    args.extend(thorough.then_some("--thorough"));
    let probe = ask(bin, &args).await?;
    let releases: Vec<&str> =
        probe["releases"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let expected = expected(original.version, thorough);
    if releases != expected {
        problems.push(format!("the probe reports {releases:?} instead of {expected:?}"));
    }
    if probe["dialects"] != serde_json::json!([original.dialect]) {
        problems.push(format!("the probe reports {} instead of {}", probe["dialects"], original.dialect));
    }
    if server.exit().is_some() {
        bail!("the server crashed on the probe: {}", server.errors());
    }
    let matrix = ask(bin, &["matrix", &url, "--json", "--dialects", original.dialect]).await?;
    let (pair, control) = (&matrix["pairs"][0], &matrix["control"][0]);
    if pair["verdict"] != expected_room(original.version) {
        problems.push(format!("the matrix reports {pair}"));
    }
    if control["verdict"] != "ok" {
        problems.push(format!("the matrix reports {control}"));
    }
    if server.exit().is_some() {
        problems.push(format!("the server crashed on the matrix: {}", server.errors()));
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let losses = pair["losses"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
    let room = [text(&pair["verdict"]), losses.join("; "), text(&pair["reason"])];
    let room: Vec<String> = room.into_iter().filter(|part| !part.is_empty()).collect();
    Ok(Found {
        version: original.version,
        summary: text(&probe["summary"]),
        confidence: text(&probe["confidence"]),
        room: room.join(": "),
        problems,
    })
}

/// Runs this program, and parses the JSON that it prints. The exit code is ignored.
async fn ask(bin: &Path, args: &[&str]) -> Result<Value> {
    let mut command = Command::new(bin);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(COMMAND_TIMEOUT, command.output())
        .await
        .with_context(|| format!("{args:?} takes too long"))??;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{args:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Renders the results as Markdown for docs/interop.md.
pub fn markdown(found: &[Found]) -> String {
    let mut out = String::from(
        "| original | `sigver probe` reports | confidence | a member and two joiners of its dialect there |\n|---|---|---|---|\n",
    );
    for found in found {
        out +=
            &format!("| {} | {} | {} | {} |\n", found.version, found.summary, found.confidence, found.room);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thorough_probe_tells_first_two_of_15_apart() {
        assert_eq!(expected("15.0.1", false), expected("15.0.2", false));
        assert_ne!(expected("15.0.1", true), expected("15.0.2", true));
        assert_eq!(expected("20.1.0", false), ["20.1.0"]);
    }
}
