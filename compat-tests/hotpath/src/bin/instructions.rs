//! Counts the instructions of one relayed message, part by part and dialect by dialect, and compares them
//! with the record. Needs valgrind, which `compat-tests/hotpath/setup` installs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use hotpath::baseline::{Baseline, SLACK, TOLERANCE, Verdict};
use hotpath::callgrind;
use hotpath::scenario::{self, Part, Scenario};

/// Counts the instructions of one relayed message, and fails if there are more than on record
#[derive(Parser)]
struct Args {
    /// Replace the record by the new counts
    #[arg(long)]
    record: bool,
    /// Show the functions of one scenario by instructions, for example 'sigver-20 up'
    #[arg(long, value_name = "SCENARIO", conflicts_with = "record")]
    profile: Option<String>,
    /// The record
    #[arg(long, default_value_os_t = Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline.toml"))]
    baseline: PathBuf,
    /// Internal: run this scenario, or all, under valgrind
    #[arg(long, hide = true)]
    run_scenarios: Option<String>,
}

/// Number of functions shown in a profile.
const MAX_FUNCTIONS: usize = 40;

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(name) = &args.run_scenarios {
        callgrind::run_scenarios(&named(name)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let folder = std::env::temp_dir().join(format!("sigver-instructions-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let done = match &args.profile {
        Some(name) => profile(name, &folder),
        None => compare(&args, &folder),
    };
    let _ = fs::remove_dir_all(&folder);
    done
}

/// Returns the scenario of this name, or all if it is empty.
fn named(name: &str) -> Result<Vec<Scenario>> {
    let found: Vec<Scenario> =
        Scenario::all().filter(|scenario| name.is_empty() || scenario.to_string() == name).collect();
    ensure!(!found.is_empty(), "no scenario is called '{name}'; they are called like 'sigver-7.6 decode'");
    Ok(found)
}

fn count(name: &str, folder: &Path) -> Result<Vec<(Scenario, u64)>> {
    let scenarios = named(name)?;
    let counts = callgrind::count(&["--run-scenarios", name], &scenarios, folder)?;
    Ok(scenarios.into_iter().zip(counts).collect())
}

fn profile(name: &str, folder: &Path) -> Result<ExitCode> {
    ensure!(!name.is_empty(), "which scenario?");
    for (scenario, count) in count(name, folder)? {
        println!("{scenario}: {count} instructions");
    }
    for (function, cost) in callgrind::functions(folder)?.iter().take(MAX_FUNCTIONS) {
        println!("{cost:>8.0} {function}");
    }
    Ok(ExitCode::SUCCESS)
}

fn compare(args: &Args, folder: &Path) -> Result<ExitCode> {
    let made_with = callgrind::made_with()?;
    let counts = count("", folder)?;
    print_table(&counts);
    if args.record {
        fs::write(&args.baseline, Baseline::new(made_with, &counts).write())?;
        println!("Recorded in {}.", args.baseline.display());
        return Ok(ExitCode::SUCCESS);
    }
    let text = fs::read_to_string(&args.baseline).with_context(|| {
        format!("no record at {}: `instructions --record` makes one", args.baseline.display())
    })?;
    let baseline = Baseline::parse(&text)?;
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (scenario, count) in &counts {
        let kind = match baseline.judge(*scenario, *count) {
            Verdict::Same => continue,
            Verdict::Slower => "slower than on record",
            Verdict::Faster => "faster than on record",
            Verdict::New => "not on record",
        };
        let change = baseline.get(*scenario).map(|before| {
            let percent = 100.0 * (*count as f64 / before as f64 - 1.0);
            format!("{before} → {count} instructions ({percent:+.1} %)")
        });
        let line = format!("  {scenario}: {}", change.unwrap_or_else(|| format!("{count} instructions")));
        found.entry(kind).or_default().push(line);
    }
    for (kind, lines) in &found {
        println!("\n{} {kind}:\n{}", lines.len(), lines.join("\n"));
    }
    let allowed = format!("{} % and {SLACK} instructions", TOLERANCE * 100.0);
    let again = "If it is meant, `target/release/instructions --record` takes these counts for the record; commit \
                 compat-tests/hotpath/baseline.toml with what changed them. `--profile 'sigver-20 up'` shows where they are.";
    let (slower, total) = (found.get("slower than on record").map_or(0, Vec::len), counts.len());
    if found.is_empty() {
        println!("\nAll {total} as on record, within {allowed}.");
    } else {
        println!("\nA difference of {allowed} is none. {again}");
    }
    if baseline.made_with != made_with {
        println!(
            "\nWarning: recorded with\n  {}\nand counted with\n  {made_with}\nwhich changes counts by itself. So \
             nothing fails here; record anew to have a slow-down noticed.",
            baseline.made_with
        );
        return Ok(ExitCode::SUCCESS);
    }
    if slower > 0 {
        bail!("{slower} of {total} are slower than on record");
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the counts, a line per pair of dialects.
fn print_table(counts: &[(Scenario, u64)]) {
    print!("{:<24}", "instructions");
    Part::ALL.iter().for_each(|part| print!("{:>1$}", part.name(), width(*part)));
    println!();
    for ends in scenario::ends() {
        print!("{:<24}", ends.to_string());
        for &part in Part::ALL {
            let count = counts.iter().find(|(scenario, _)| *scenario == Scenario { ends, part });
            print!(
                "{:>1$}",
                count.map_or_else(|| "-".to_owned(), |(_, count)| count.to_string()),
                width(part)
            );
        }
        println!();
    }
}

/// Returns the width of a part's column.
fn width(part: Part) -> usize {
    part.name().len().max(6) + 2
}
