//! `sigver probe` and `sigver matrix` against the Node.js servers: the probe must name each server and
//! leave it running, and the matrix's clients must work with the server of their dialect, else their
//! verdicts mean nothing.

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

/// Timeout of a command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Number of concurrent servers.
const JOBS: usize = 12;

/// Result for one server.
#[derive(Debug)]
pub struct Found {
    /// Version of the server.
    pub version: &'static str,
    /// The probe's result, in one line.
    pub summary: String,
    /// The probe's confidence.
    pub sure: String,
    /// Result of two joiners and a member of its dialect.
    pub room: String,
    /// Problems found.
    pub problems: Vec<String>,
}

/// Returns the expected result of the probe, as the newest versions that behave like `version`.
fn expected(version: &'static str, thorough: bool) -> Vec<&'static str> {
    match version {
        // These differ only in the treatment of a client that never answers.
        "15.0.1" | "15.0.2" if !thorough => vec!["15.0.1", "15.0.2"],
        // 12, which is no package, differs only in what members receive.
        "11.0.0" => vec!["11.0.0", "12"],
        version => vec![version],
    }
}

/// Returns the dialects of the expected releases.
fn expected_dialects(original: &Original) -> Vec<&'static str> {
    match original.version {
        "11.0.0" => vec!["sigver-11", "sigver-13"],
        _ => vec![original.dialect],
    }
}

/// Returns the expected verdict of the matrix for the server's own dialect.
fn expected_room(version: &str) -> &'static str {
    match version {
        // It shows its opener one index for all joiners (C01).
        "5.0.0" => "failed",
        // An answer goes to every waiting joiner.
        "6.0.0" => "degraded",
        // It reports an error of its own where a peer disconnected.
        "9.1.0" => "degraded",
        _ => "ok",
    }
}

/// Starts the servers, a few at a time, and runs our program against each.
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
        problems.push(format!("the probe says {releases:?} instead of {expected:?}"));
    }
    let dialects = expected_dialects(original);
    if probe["dialects"] != serde_json::json!(dialects) {
        problems.push(format!("the probe says {} instead of {dialects:?}", probe["dialects"]));
    }
    if server.exit().is_some() {
        bail!("it died of the probe: {}", server.errors());
    }
    let matrix = ask(bin, &["matrix", &url, "--json", "--dialects", original.dialect]).await?;
    let (pair, control) = (&matrix["pairs"][0], &matrix["control"][0]);
    if pair["verdict"] != expected_room(original.version) {
        problems.push(format!("the matrix says {pair}"));
    }
    if control["verdict"] != "ok" {
        problems.push(format!("the matrix says {control}"));
    }
    if server.exit().is_some() {
        problems.push(format!("it died of the matrix: {}", server.errors()));
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lost = pair["losses"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
    let room = [text(&pair["verdict"]), lost.join("; "), text(&pair["reason"])];
    let room: Vec<String> = room.into_iter().filter(|part| !part.is_empty()).collect();
    Ok(Found {
        version: original.version,
        summary: text(&probe["summary"]),
        sure: text(&probe["confidence"]),
        room: room.join(": "),
        problems,
    })
}

/// Runs the program, and parses its output. Its exit code carries less.
async fn ask(bin: &Path, args: &[&str]) -> Result<Value> {
    let mut command = Command::new(bin);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(COMMAND_TIMEOUT, command.output())
        .await
        .with_context(|| format!("{args:?} takes too long"))??;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{args:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Returns the results as `docs/reference/interop.md` shows them.
pub fn markdown(found: &[Found]) -> String {
    let mut out = String::from(
        "| original | `sigver probe` reports | confidence | a member and two joiners of its dialect there |\n|---|---|---|---|\n",
    );
    for found in found {
        out += &format!("| {} | {} | {} | {} |\n", found.version, found.summary, found.sure, found.room);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_15_0_1_and_15_0_2_differ_only_when_thorough() {
        assert_eq!(expected("15.0.1", false), expected("15.0.2", false));
        assert_ne!(expected("15.0.1", true), expected("15.0.2", true));
        assert_eq!(expected("20.1.0", false), ["20.1.0"]);
    }
}
