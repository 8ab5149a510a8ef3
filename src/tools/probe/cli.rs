//! `sigver probe`: its options, and what it prints. How it is found out is in `compat`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::tools::client::target::Target;
use crate::tools::probe::run::{Confidence, probe};

/// Options of `sigver probe`.
#[derive(Debug, Args)]
pub struct Probe {
    /// The server, ws://… or wss://….
    url: String,
    /// Take twenty seconds, for what only patience tells.
    #[arg(long)]
    thorough: bool,
    /// Print the answer for machines.
    #[arg(long)]
    json: bool,
}

impl Probe {
    /// Probes, prints, and tells by its code whether there is an answer.
    pub async fn run(&self) -> Result<ExitCode> {
        let target = Target::parse(&self.url)?;
        let answer = probe(&target, self.thorough).await.with_context(|| self.url.clone())?;
        match self.json {
            true => println!("{:#}", answer.to_json()),
            false => print!("{}", answer.in_words()),
        }
        Ok(if answer.sure() == Confidence::Not { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}
