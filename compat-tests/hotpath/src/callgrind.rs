//! Counting under valgrind: this program runs itself, `measured` marks what counts, and valgrind writes down what each
//! call of it cost. What the numbers mean is not decided here.

use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::scenario::Scenario;

/// How often a scenario is done for the first count; for the second it is done twice as often, and the difference is
/// what counts: what is done once only is in neither.
const TIMES: u64 = 100;

/// How often before anything is counted: tables have grown by then, and buffers are there.
const WARM_UP: u64 = 50;

/// How often all that is repeated, with other hashes and other ids each time: the median is taken.
const REPEATED: usize = 3;

/// Two names by which valgrind knows `measured`: of what is asked of it by one name, it does the last thing only.
const BEGIN: &str = "*hotpath::callgrind::measured*";
const END: &str = "*callgrind::measured*";

/// Counts for each of the repetitions.
const CALLS: usize = 2;

/// Does the scenarios, for valgrind to count.
///
/// # Errors
/// One cannot be done.
pub fn perform(scenarios: &[Scenario]) -> Result<()> {
    for scenario in scenarios {
        for _ in 0..REPEATED {
            let mut run = scenario.prepare().with_context(|| scenario.to_string())?;
            run(WARM_UP)?;
            for times in [TIMES, 2 * TIMES] {
                measured(&mut *run, times).with_context(|| scenario.to_string())?;
            }
        }
    }
    Ok(())
}

/// What is counted.
#[inline(never)]
fn measured(run: &mut dyn FnMut(u64) -> Result<()>, times: u64) -> Result<()> {
    black_box(run(black_box(times)))
}

/// Has this program, called with these arguments, [`perform`] the scenarios under valgrind, and returns the instructions
/// each takes, once. What valgrind wrote is left in `folder`.
///
/// # Errors
/// Valgrind is missing, or fails.
pub fn count(arguments: &[&str], scenarios: &[Scenario], folder: &Path) -> Result<Vec<u64>> {
    let status = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind", "--compress-strings=no"])
        // Collecting is never turned off: valgrind would not know where it is when it is turned on again.
        .args([format!("--zero-before={BEGIN}"), format!("--dump-after={END}")])
        .arg(format!("--callgrind-out-file={}", folder.join("out").display()))
        .arg(std::env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::null())
        .status()
        .context("cannot run valgrind; compat-tests/hotpath/setup installs it")?;
    ensure!(status.success(), "under valgrind: {status}");
    let total =
        |part: usize| total(&written(folder, part)?).with_context(|| format!("no total in part {part}"));
    let count = |index: usize| -> Result<u64> {
        let (once, twice) = (total(CALLS * index + 1)?, total(CALLS * index + 2)?);
        ensure!(once > 0 && twice > once, "{once} instructions, and {twice} for twice as much");
        Ok((twice - once) / TIMES)
    };
    let counts: Vec<u64> = (0..REPEATED * scenarios.len()).map(count).collect::<Result<_>>()?;
    let more = CALLS * counts.len() + 1;
    ensure!(written(folder, more).is_err(), "valgrind saw more calls than there were: has {END} a namesake?");
    let median = |counts: &[u64]| {
        let mut counts = counts.to_vec();
        counts.sort_unstable();
        counts.get(counts.len() / 2).copied().unwrap_or_default()
    };
    Ok(counts.chunks(REPEATED).map(median).collect())
}

/// The functions in which the instructions of the scenario are that was counted alone, with how many of them: those with
/// most first, and each without what it calls.
///
/// # Errors
/// Nothing was counted.
pub fn functions(folder: &Path) -> Result<Vec<(String, f64)>> {
    let written = written(folder, CALLS)?;
    let mut costs: Vec<(String, f64)> = costs(&written)
        .into_iter()
        .map(|(name, cost)| (name.to_owned(), cost as f64 / (2 * TIMES) as f64))
        .collect();
    costs.sort_by(|one, other| other.1.total_cmp(&one.1));
    Ok(costs)
}

/// What valgrind wrote about a call, of which the first is 1.
fn written(folder: &Path, part: usize) -> Result<String> {
    let file = folder.join(format!("out.{part}"));
    fs::read_to_string(&file).with_context(|| file.display().to_string())
}

/// The number of instructions in what valgrind wrote.
fn total(written: &str) -> Option<u64> {
    written.lines().find_map(|line| line.strip_prefix("totals: "))?.trim().parse().ok()
}

/// The instructions of each function, without what it calls. `callgrind_annotate` cannot read what is written about a
/// part of a run only.
fn costs(written: &str) -> HashMap<&str, u64> {
    let mut costs: HashMap<&str, u64> = HashMap::new();
    let (mut function, mut called) = ("", false);
    for line in written.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            function = name;
        } else if line.starts_with("calls=") {
            // The next line is about what is called.
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

/// What counts depend on beside the code: the same code has other counts elsewhere.
///
/// # Errors
/// The compiler or valgrind cannot be run.
pub fn made_with() -> Result<String> {
    let said = |program: &str, argument: &str| -> Result<String> {
        let output = Command::new(program).arg(argument).output().with_context(|| program.to_owned())?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    // Which of its functions the C library takes for copying depends on the processor.
    #[cfg(target_arch = "x86_64")]
    let wide = if std::is_x86_feature_detected!("avx2") { " with AVX2" } else { "" };
    #[cfg(not(target_arch = "x86_64"))]
    let wide = "";
    Ok(format!(
        "{}, {}, {}, {}{wide}",
        said(&rustc, "--version")?,
        said("getconf", "GNU_LIBC_VERSION").unwrap_or_default(),
        said("valgrind", "--version")?,
        std::env::consts::ARCH,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found() {
        assert_eq!(total("version: 1\nevents: Ir\nfn=(1) x\n16 7\n\ntotals: 4711\n"), Some(4711));
        assert_eq!(total("version: 1\n"), None);
    }

    #[test]
    fn what_is_called_does_not_count() {
        let written =
            "fl=a\nfn=f\n3 10\n+1 5\ncfn=g\ncalls=2 0\n* 100\nfn=g\n0 90\n\nfn=f\n0 1\ntotals: 106\n";
        assert_eq!(costs(written), HashMap::from([("f", 16), ("g", 90)]));
    }
}
