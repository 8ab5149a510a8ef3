//! `sigver matrix`: its options, its progress, and what it prints. What is measured, and how, is in `compat`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::tools::client::protocol::Protocol;
use crate::tools::client::target::Target;
use crate::tools::matrix::render;
use crate::tools::matrix::result::Outcome;
use crate::tools::matrix::run::{Plan, run};
use crate::tools::{draw_target, ephemeral_server, tongue};

/// Options of `sigver matrix`.
#[derive(Debug, Args)]
pub struct Matrix {
    /// The server, ws://… or wss://…; without it, one is started for the time of this command.
    url: Option<String>,
    /// What that one serves.
    #[arg(long, value_name = "LIST", default_value = "auto", conflicts_with = "url")]
    protocol: String,
    /// Only these dialects.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    dialects: Vec<String>,
    /// Only this pair, MEMBER:JOINER; `*` stands for all, and `nobody` for the negative control. May be repeated.
    #[arg(long, value_name = "PAIR")]
    only: Vec<String>,
    /// Print the result for machines.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print the result as docs/reference/interop.md has it.
    #[arg(long)]
    markdown: bool,
    /// Write the result for CI to this file; `-` prints it in place of the table.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// A result of `--json`: only what is worse than it is an error.
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// Pairs at a time; each takes three connections.
    #[arg(long, value_name = "NUMBER", default_value_t = 128)]
    jobs: usize,
    /// How long each pair is held for heartbeats, which come after five seconds.
    #[arg(long, value_name = "MS", default_value_t = 5800)]
    hold: u64,
}

impl Matrix {
    /// Measures, prints, and tells by its code whether all is well.
    pub async fn run(&self) -> Result<ExitCode> {
        let plan = self.plan()?;
        let expected = self.expect.as_ref().map(stored).transpose()?;
        let (url, name) = match &self.url {
            Some(url) => (url.clone(), url.clone()),
            None => (
                format!("ws://{}", ephemeral_server::start(&self.protocol).await?),
                format!("a server of our own, --protocol {}", self.protocol),
            ),
        };
        let target = Target::parse(&url)?;
        if let Err(error) = target.connect().await {
            bail!("{target}: {error}");
        }
        let bar = progress(plan.len());
        let outcome = run(&target, &name, &plan, |cell| {
            bar.set_message(cell.name());
            bar.inc(1);
        })
        .await;
        bar.finish_and_clear();
        let wrong = match &expected {
            Some(expected) => outcome.regressions(expected),
            None => outcome.failures(),
        };
        self.print(&outcome, &wrong)?;
        if expected.is_some() {
            wrong.iter().for_each(|wrong| eprintln!("worse than expected: {wrong}"));
        }
        Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn print(&self, outcome: &Outcome, wrong: &[String]) -> Result<()> {
        let mut junit_printed = false;
        if let Some(path) = &self.junit {
            let junit = render::junit(outcome, wrong);
            junit_printed = path.as_os_str() == "-";
            match junit_printed {
                true => print!("{junit}"),
                false => fs::write(path, junit).with_context(|| path.display().to_string())?,
            }
        }
        if self.json {
            println!("{:#}", outcome.to_json());
        } else if self.markdown {
            print!("{}", render::markdown(outcome));
        } else if !junit_printed {
            print!("{}", render::table(outcome));
        }
        Ok(())
    }

    fn plan(&self) -> Result<Plan> {
        let tongues = match self.dialects.as_slice() {
            [] => Protocol::all().collect(),
            names => names.iter().map(|name| tongue(name)).collect::<Result<Vec<_>>>()?,
        };
        let mut plan = Plan::of(&tongues);
        let only = self.only.iter().map(|pair| Only::parse(pair)).collect::<Result<Vec<_>>>()?;
        if !only.is_empty() {
            plan.pairs.retain(|(member, joiner)| only.iter().any(|only| only.is(Some(*member), *joiner)));
            plan.control.retain(|joiner| only.iter().any(|only| only.is(None, *joiner)));
        }
        if plan.is_empty() {
            bail!("there is no such pair");
        }
        plan.jobs = self.jobs;
        plan.options.hold = Duration::from_millis(self.hold);
        Ok(plan)
    }
}

/// A pattern of pairs.
#[derive(Debug)]
struct Only {
    /// `None` for all of them, the inner one for nobody.
    member: Option<Option<Protocol>>,
    joiner: Option<Protocol>,
}

impl Only {
    fn parse(pair: &str) -> Result<Self> {
        let (member, joiner) =
            pair.split_once(':').with_context(|| format!("'{pair}' is not MEMBER:JOINER"))?;
        Ok(Only {
            member: match member {
                "*" => None,
                "nobody" => Some(None),
                name => Some(Some(tongue(name)?)),
            },
            joiner: if joiner == "*" { None } else { Some(tongue(joiner)?) },
        })
    }

    fn is(&self, member: Option<Protocol>, joiner: Protocol) -> bool {
        self.member.is_none_or(|only| only == member) && self.joiner.is_none_or(|only| only == joiner)
    }
}

fn stored(path: &PathBuf) -> Result<Outcome> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    Outcome::of_json(&value)
        .with_context(|| format!("{} is no result of sigver matrix --json", path.display()))
}

/// A bar on a terminal, and nothing elsewhere.
fn progress(len: usize) -> ProgressBar {
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
    fn patterns_choose_pairs() {
        let (five, twenty) = (Protocol::Sigver(Dialect::Sigver5), Protocol::Sigver(Dialect::Sigver20));
        assert!(Only::parse("sigver-5:*").unwrap().is(Some(five), twenty));
        assert!(!Only::parse("sigver-5:*").unwrap().is(None, twenty));
        assert!(Only::parse("nobody:sigver-20").unwrap().is(None, twenty));
        assert!(Only::parse("*:*").unwrap().is(None, twenty));
        assert!(!Only::parse("*:sigver-5").unwrap().is(Some(five), twenty));
        for wrong in ["sigver-5", "sigver-5:what", "what:sigver-5"] {
            assert!(Only::parse(wrong).is_err(), "{wrong}");
        }
    }
}
