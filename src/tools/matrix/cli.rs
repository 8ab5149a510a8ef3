//! The command line of `sigver matrix`: its options, its progress bar, and what it prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::output;
use crate::tools::client::protocol::Protocol;
use crate::tools::client::random_key;
use crate::tools::dial::{Target, TokenArgs, TrustArgs};
use crate::tools::matrix::known::known;
use crate::tools::matrix::render;
use crate::tools::matrix::result::{MatrixResult, PairFailure, PairId, Verdict};
use crate::tools::matrix::run::{MatrixPlan, run};
use crate::tools::matrix::summary::summary;
use crate::tools::{draw_target, ephemeral_server, parse_protocol};

/// Options of `sigver matrix`.
#[derive(Debug, Args)]
pub(crate) struct MatrixArgs {
    /// URL of the server, ws://HOST:PORT or wss://HOST; without it, one is started for the time of this
    /// command
    url: Option<String>,
    /// Protocols of the server that is started, as --protocol of the gateway
    #[arg(long, value_name = "LIST", default_value = "auto", conflicts_with = "url")]
    protocol: String,
    /// Measure only these dialects
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    dialects: Vec<String>,
    /// Measure only this pair, MEMBER:JOINER; `*` stands for all dialects, and `none` for a room without a
    /// member (the negative control). May be repeated
    #[arg(long, value_name = "PAIR")]
    only: Vec<String>,
    /// Print the whole result: the losses of each pair, in up to 170 columns
    #[arg(long, conflicts_with_all = ["json", "markdown"])]
    full: bool,
    /// Print the result as JSON
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print the result as Markdown, like docs/reference/interop.md
    #[arg(long)]
    markdown: bool,
    /// Write the result as JUnit XML to this file; `-` prints it instead of the table
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// A result of --json: fail for pairs that are worse than there, instead of worse than this version is
    /// known to do
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// Number of pairs that are measured concurrently, with three connections each
    #[arg(long, value_name = "NUMBER", default_value_t = 128)]
    jobs: usize,
    /// Time for which each pair is held for heartbeats, which are due after five seconds, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = DEFAULT_HOLD_MS)]
    hold: u64,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    token: TokenArgs,
}

/// Time for which pairs are held, in milliseconds: a heartbeat is due after five seconds.
const DEFAULT_HOLD_MS: u64 = 5800;

impl MatrixArgs {
    /// Measures and prints. Returns success if no pair is worse than expected.
    pub(crate) async fn run(&self) -> Result<ExitCode> {
        let plan = self.plan()?;
        let expected = self.expect.as_deref().map(read_result).transpose()?;
        let (target, server) = match &self.url {
            Some(url) => (Target::with_trust(url, &self.trust)?.with_token(&self.token)?, url.clone()),
            None => (
                ephemeral_server::start(&self.protocol).await?.into(),
                format!("a server of this program, --protocol {}", self.protocol),
            ),
        };
        target.check(&format!("/{}", random_key())).await?;
        let bar = progress_bar(plan.len());
        let result = run(&target, &server, &plan, |result| {
            bar.set_message(result.pair.to_string());
            bar.inc(1);
        })
        .await;
        bar.finish_and_clear();
        let (expected_name, failures) = self.judge(&result, expected.as_ref());
        self.print(&result, expected_name, &failures)?;
        if expected.is_some() {
            failures
                .iter()
                .for_each(|failure| output::print_error(format_args!("worse than expected: {failure}")));
        }
        Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Returns what the result is compared with, and the pairs that are worse.
    fn judge(
        &self,
        result: &MatrixResult,
        expected: Option<&MatrixResult>,
    ) -> (&'static str, Vec<PairFailure>) {
        match expected {
            Some(expected) => ("expected", result.regressions(expected)),
            // A pair that is not held receives no heartbeats, which is no loss of it.
            None if self.url.is_none() && self.protocol == "auto" && self.hold >= DEFAULT_HOLD_MS => {
                ("known of this version", result.regressions(&known()))
            }
            // Another server, or a pin, may lose otherwise; but what works here should work there.
            None => {
                let known = known();
                let is_known = |pair: PairId| {
                    let known = known.all().find(|known| known.pair == pair);
                    known.is_some_and(|known| matches!(known.verdict, Verdict::Failed { .. }))
                };
                let failures = result.failures().into_iter().filter(|failure| !is_known(failure.pair));
                ("with this version in auto mode (losses are not compared)", failures.collect())
            }
        }
    }

    fn print(&self, result: &MatrixResult, expected: &str, failures: &[PairFailure]) -> Result<()> {
        let mut junit_printed = false;
        if let Some(path) = &self.junit {
            let junit = render::junit(result, failures);
            junit_printed = path.as_os_str() == "-";
            match junit_printed {
                true => output::print(&junit)?,
                false => fs::write(path, junit).with_context(|| path.display().to_string())?,
            }
        }
        if self.json {
            output::print(&format!("{}\n", serde_json::to_string_pretty(result)?))?;
        } else if self.markdown {
            output::print(&render::markdown(result))?;
        } else if self.full {
            output::print(&render::text(result))?;
        } else if !junit_printed {
            output::print(&summary(result, expected, failures))?;
        }
        Ok(())
    }

    fn plan(&self) -> Result<MatrixPlan> {
        let protocols = match self.dialects.as_slice() {
            [] => Protocol::all().collect(),
            names => names.iter().map(|name| parse_protocol(name)).collect::<Result<Vec<_>>>()?,
        };
        let mut plan = MatrixPlan::new(&protocols);
        let only = self.only.iter().map(|pair| PairPattern::parse(pair)).collect::<Result<Vec<_>>>()?;
        if !only.is_empty() {
            let matches = |member, joiner| only.iter().any(|pattern| pattern.matches(member, joiner));
            plan.pairs.retain(|(member, joiner)| matches(Some(*member), *joiner));
            plan.control.retain(|joiner| matches(None, *joiner));
        }
        if plan.is_empty() {
            bail!("there is no such pair");
        }
        plan.jobs = self.jobs;
        plan.options.hold = Duration::from_millis(self.hold);
        Ok(plan)
    }
}

/// The pattern of `--only`.
#[derive(Debug)]
struct PairPattern {
    /// `None` for all members; the inner one for a room without a member.
    member: Option<Option<Protocol>>,
    joiner: Option<Protocol>,
}

impl PairPattern {
    fn parse(pair: &str) -> Result<Self> {
        let (member, joiner) =
            pair.split_once(':').with_context(|| format!("'{pair}' is not MEMBER:JOINER"))?;
        Ok(PairPattern {
            member: match member {
                "*" => None,
                "none" => Some(None),
                name => Some(Some(parse_protocol(name)?)),
            },
            joiner: if joiner == "*" { None } else { Some(parse_protocol(joiner)?) },
        })
    }

    fn matches(&self, member: Option<Protocol>, joiner: Protocol) -> bool {
        self.member.is_none_or(|only| only == member) && self.joiner.is_none_or(|only| only == joiner)
    }
}

fn read_result(path: &Path) -> Result<MatrixResult> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not a result of sigver matrix --json", path.display()))
}

fn progress_bar(len: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(u64::try_from(len).ok(), draw_target());
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::dialect::Dialect;

    #[test]
    fn patterns_match_pairs() {
        let (five, twenty) = (Protocol::Sigver(Dialect::Sigver5), Protocol::Sigver(Dialect::Sigver20));
        let parse = |pair| PairPattern::parse(pair).unwrap();
        assert!(parse("sigver-5:*").matches(Some(five), twenty));
        assert!(!parse("sigver-5:*").matches(None, twenty));
        assert!(parse("none:sigver-20").matches(None, twenty));
        assert!(parse("*:*").matches(None, twenty));
        assert!(!parse("*:sigver-5").matches(Some(five), twenty));
        for wrong in ["sigver-5", "sigver-5:what", "what:sigver-5"] {
            assert!(PairPattern::parse(wrong).is_err(), "{wrong}");
        }
    }
}
