//! Instruction counts with valgrind: the program runs itself, and `measured` marks the counted calls.

use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::scenario::Scenario;

/// Repetitions of a scenario in the first count; the second has twice as many, and the difference is
/// counted, which excludes one-time work.
const TIMES: u64 = 100;

/// Repetitions before counting, in which tables grow and buffers are allocated.
const WARM_UP: u64 = 50;

/// Repetitions of the whole count with other hash keys and ids; the median is taken.
const REPETITIONS: usize = 3;

/// Two patterns for `measured`: valgrind acts on only the last option given for a pattern.
const BEGIN: &str = "*hotpath::callgrind::measured*";
const END: &str = "*callgrind::measured*";

/// Counts per repetition.
const CALLS: usize = 2;

/// Runs the scenarios under valgrind.
pub fn run_scenarios(scenarios: &[Scenario]) -> Result<()> {
    for scenario in scenarios {
        for _ in 0..REPETITIONS {
            let mut run = scenario.prepare().with_context(|| scenario.to_string())?;
            run(WARM_UP)?;
            for times in [TIMES, 2 * TIMES] {
                measured(&mut *run, times).with_context(|| scenario.to_string())?;
            }
        }
    }
    Ok(())
}

/// Runs the counted calls.
#[inline(never)]
fn measured(run: &mut dyn FnMut(u64) -> Result<()>, times: u64) -> Result<()> {
    black_box(run(black_box(times)))
}

/// Runs this program with these arguments under valgrind, where it calls [`run_scenarios`], and returns the
/// instructions of each scenario. Valgrind's output is left in `folder`.
pub fn count(arguments: &[&str], scenarios: &[Scenario], folder: &Path) -> Result<Vec<u64>> {
    let status = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind", "--compress-strings=no"])
        // Collecting is never turned off: valgrind would lose track of the call stack.
        .args([format!("--zero-before={BEGIN}"), format!("--dump-after={END}")])
        .arg(format!("--callgrind-out-file={}", folder.join("out").display()))
        .arg(std::env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::null())
        .status()
        .context("cannot run valgrind; compat-tests/hotpath/setup installs it")?;
    ensure!(status.success(), "under valgrind: {status}");
    let total =
        |part: usize| total(&output(folder, part)?).with_context(|| format!("no total in part {part}"));
    let count = |index: usize| -> Result<u64> {
        let (once, twice) = (total(CALLS * index + 1)?, total(CALLS * index + 2)?);
        ensure!(once > 0 && twice > once, "{once} instructions, and {twice} for twice as much");
        Ok((twice - once) / TIMES)
    };
    let counts: Vec<u64> = (0..REPETITIONS * scenarios.len()).map(count).collect::<Result<_>>()?;
    let more = CALLS * counts.len() + 1;
    ensure!(output(folder, more).is_err(), "valgrind saw more calls than there were: has {END} a namesake?");
    let median = |counts: &[u64]| {
        let mut counts = counts.to_vec();
        counts.sort_unstable();
        counts.get(counts.len() / 2).copied().unwrap_or_default()
    };
    Ok(counts.chunks(REPETITIONS).map(median).collect())
}

/// Returns the functions of the one counted scenario by instructions, without their callees, most first.
pub fn functions(folder: &Path) -> Result<Vec<(String, f64)>> {
    let output = output(folder, CALLS)?;
    let mut costs: Vec<(String, f64)> = costs(&output)
        .into_iter()
        .map(|(name, cost)| (name.to_owned(), cost as f64 / (2 * TIMES) as f64))
        .collect();
    costs.sort_by(|one, other| other.1.total_cmp(&one.1));
    Ok(costs)
}

/// Returns valgrind's output for a call, counted from 1.
fn output(folder: &Path, part: usize) -> Result<String> {
    let file = folder.join(format!("out.{part}"));
    fs::read_to_string(&file).with_context(|| file.display().to_string())
}

/// Returns the number of instructions in valgrind's output.
fn total(output: &str) -> Option<u64> {
    output.lines().find_map(|line| line.strip_prefix("totals: "))?.trim().parse().ok()
}

/// Returns the instructions of each function, without its callees. `callgrind_annotate` cannot read the
/// output for a part of a run.
fn costs(output: &str) -> HashMap<&str, u64> {
    let mut costs: HashMap<&str, u64> = HashMap::new();
    let (mut function, mut called) = ("", false);
    for line in output.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            function = name;
        } else if line.starts_with("calls=") {
            // The next line is about the callee.
            called = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok());
            if !std::mem::take(&mut called) {
                *costs.entry(function).or_default() += cost.unwrap_or_default();
            }
        }
    }
    costs
}

/// Returns the versions that counts depend on besides the code.
pub fn made_with() -> Result<String> {
    let output_of = |program: &str, argument: &str| -> Result<String> {
        let output = Command::new(program).arg(argument).output().with_context(|| program.to_owned())?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    // The C library chooses its copy functions by processor.
    #[cfg(target_arch = "x86_64")]
    let wide = if std::is_x86_feature_detected!("avx2") { " with AVX2" } else { "" };
    #[cfg(not(target_arch = "x86_64"))]
    let wide = "";
    Ok(format!(
        "{}, {}, {}, {}{wide}",
        output_of(&rustc, "--version")?,
        output_of("getconf", "GNU_LIBC_VERSION").unwrap_or_default(),
        output_of("valgrind", "--version")?,
        std::env::consts::ARCH,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_is_parsed() {
        assert_eq!(total("version: 1\nevents: Ir\nfn=(1) x\n16 7\n\ntotals: 4711\n"), Some(4711));
        assert_eq!(total("version: 1\n"), None);
    }

    #[test]
    fn callees_are_not_counted() {
        let output =
            "fl=a\nfn=f\n3 10\n+1 5\ncfn=g\ncalls=2 0\n* 100\nfn=g\n0 90\n\nfn=f\n0 1\ntotals: 106\n";
        assert_eq!(costs(output), HashMap::from([("f", 16), ("g", 90)]));
    }
}
