//! What a server speaks: a few connections that say as little as possible, what came of them, and which releases that
//! fits. Originals of sigver 1 to 5 die of a message that they do not expect, so nothing is said that any of them
//! could die of: silence, an empty object, and then only what the releases that are left understand.
//!
//! What is seen is in [`observe`]; what each release would show, in [`fingerprint`]; what two clients of one dialect can
//! do there, in [`session`].

use std::fmt::Write as _;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::fingerprint::Observation;
use super::{fingerprint, observe, session};
use crate::protocol::dialect::{Dialect, Release};
use crate::tools::client::protocol::Protocol;
use crate::tools::client::target::{ConnectError, Target};

/// What was found out.
#[derive(Clone, Debug)]
pub struct ProbeResult {
    /// The server.
    pub url: String,
    /// It says that it is a gateway like ours.
    pub gateway: bool,
    /// The releases that behave like this; none if no single release does.
    pub releases: Vec<Release>,
    /// The ways of speaking that were tried, and why they do not work if they do not.
    pub tried: Vec<(Protocol, Result<(), String>)>,
    /// What was seen, and which releases it fits.
    pub evidence: Vec<Evidence>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// One thing that was seen.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// What was done.
    pub done: &'static str,
    /// What came of it.
    pub seen: String,
    /// Which releases it fits.
    pub fits: Vec<Release>,
}

/// How sure an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confidence {
    /// Clients of the dialects work there, and what else was seen fits or explains it.
    Certain,
    /// What was seen fits, but clients do not work there.
    Likely,
    /// Nothing fits.
    Not,
}

/// Finds out what a server speaks. `thorough` takes twenty seconds, for what only patience tells.
///
/// # Errors
///
/// When the server cannot be reached at all.
pub async fn probe(target: &Target, thorough: bool) -> Result<ProbeResult, ConnectError> {
    let started = Instant::now();
    target.connect().await?;
    let (http, silent, empty, object, relay, fate) = tokio::join!(
        observe::http(target),
        observe::silent(target),
        observe::empty(target),
        observe::object(target),
        observe::relay(target),
        async { if thorough { Some(observe::fate(target).await) } else { None } },
    );
    let gateway = http.is_ours();
    let mut evidence = Vec::new();
    evidence.push(weigh("a client with a key in its path that says nothing", silent));
    evidence.push(weigh("a client without a key that says nothing", empty));
    evidence.push(weigh("a client that says {}", object));
    let only_frail =
        |seen: &Evidence| !seen.fits.is_empty() && seen.fits.iter().all(|release| dies(*release));
    let may_die = !gateway && evidence.iter().any(only_frail);
    let frail: Vec<Release> = Release::ALL.into_iter().filter(|release| dies(*release)).collect();
    evidence.extend(fate.map(|fate| weigh("a client that never answers", fate)));
    let mut releases = fitting(&evidence);
    if !gateway {
        // Shown, but not counted: a proxy in front of the server may answer in its place.
        evidence.push(weigh("GET /", http));
    }
    refine(target, &mut releases, &mut evidence).await;
    let candidates: &[Release] = match (releases.as_slice(), may_die) {
        // No single release behaves like this, or it is a gateway: none that dies of a word.
        ([], false) => &Release::ALL,
        (_, false) if gateway => &Release::ALL,
        ([], true) => &frail,
        (few, _) => few,
    };
    let mut dialects: Vec<Dialect> = candidates.iter().map(|release| release.dialect()).collect();
    dialects.dedup();
    let mut tongues: Vec<Protocol> = dialects.into_iter().map(Protocol::Sigver).collect();
    if relay {
        tongues.push(Protocol::Signaller);
    }
    let tried = try_all(target, tongues).await;
    let works = |release: &Release| {
        tried.iter().any(|(tongue, done)| *tongue == Protocol::Sigver(release.dialect()) && done.is_ok())
    };
    if releases.iter().any(works) {
        releases.retain(works);
    }
    let spoken = tried.iter().filter(|(tongue, done)| *tongue != Protocol::Signaller && done.is_ok()).count();
    if gateway && spoken > 1 && !releases.iter().any(|release| contains_another(release.dialect(), spoken)) {
        releases.clear();
    }
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(ProbeResult { url: target.to_string(), gateway, releases, tried, evidence, took_ms })
}

/// Whether a word of another dialect may be the end of this one's server (measured).
fn dies(release: Release) -> bool {
    release <= Release::V5_0_0
}

/// Whether clients of one other dialect, and no more, are at home with this one, too.
fn contains_another(dialect: Dialect, spoken: usize) -> bool {
    spoken == 2 && matches!(dialect, Dialect::Sigver5 | Dialect::Sigver16 | Dialect::Sigver18)
}

fn weigh(done: &'static str, seen: Observation) -> Evidence {
    Evidence { done, seen: seen.to_string(), fits: fingerprint::fitting(&seen) }
}

fn fitting(evidence: &[Evidence]) -> Vec<Release> {
    let fits = |release: &Release| evidence.iter().all(|evidence| evidence.fits.contains(release));
    Release::ALL.into_iter().filter(fits).collect()
}

/// Looks at what differs between the releases that are left.
async fn refine(target: &Target, releases: &mut Vec<Release>, evidence: &mut Vec<Evidence>) {
    let both = |one, other| releases.contains(&one) && releases.contains(&other);
    let mut more = Vec::new();
    if both(Release::V9_1_0, Release::V10_1_0) {
        more.push(weigh("a client that opens the key \"\"", observe::empty_open(target).await));
    }
    if both(Release::V15_0_2, Release::V15_0_4) {
        more.push(weigh("a second client with the same key", observe::second(target).await));
    }
    if both(Release::V19_0_0, Release::V19_1_2) {
        more.push(weigh("a member whose URL has ?favored", observe::favored(target).await));
    }
    for more in more {
        releases.retain(|release| more.fits.contains(release));
        evidence.push(more);
    }
}

async fn try_all(target: &Target, tongues: Vec<Protocol>) -> Vec<(Protocol, Result<(), String>)> {
    let mut running = JoinSet::new();
    for tongue in tongues {
        let target = target.clone();
        running.spawn(async move { (tongue, session::attempt(&target, tongue).await) });
    }
    let mut tried = running.join_all().await;
    tried.sort_by_key(|(tongue, _)| *tongue);
    tried
}

impl ProbeResult {
    /// The ways of speaking whose clients work there.
    pub fn spoken(&self) -> Vec<Protocol> {
        self.tried.iter().filter(|(_, done)| done.is_ok()).map(|(tongue, _)| *tongue).collect()
    }

    /// How sure it is.
    pub fn sure(&self) -> Confidence {
        match (self.spoken().is_empty(), self.releases.is_empty()) {
            (false, _) => Confidence::Certain,
            (true, false) => Confidence::Likely,
            (true, true) => Confidence::Not,
        }
    }

    /// The versions on npm that behave like this.
    pub fn versions(&self) -> Vec<String> {
        self.releases.iter().map(|release| release.version_list()).collect()
    }

    /// One line.
    pub fn summary(&self) -> String {
        let spoken: Vec<&str> = self.spoken().into_iter().map(Protocol::name).collect();
        let who = if self.gateway { "a gateway that behaves as " } else { "" };
        match (self.releases.is_empty(), spoken.len()) {
            (false, 0) => format!(
                "likely {who}sigver {}, but its clients do not work there",
                self.versions().join(" or ")
            ),
            (false, _) => {
                format!("{who}sigver {} ({})", self.versions().join(" or "), spoken.join(", "))
            }
            (true, 0) => "nothing that was ever called sigver".to_owned(),
            (true, 17) => "a gateway that speaks all dialects, and signaller".to_owned(),
            (true, _) => format!("a server that speaks {}", spoken.join(", ")),
        }
    }

    /// For people.
    pub fn in_words(&self) -> String {
        let sure = match self.sure() {
            Confidence::Certain => "certain",
            Confidence::Likely => "likely",
            Confidence::Not => "not sure at all",
        };
        let mut out = format!(
            "{}: {}\n{sure}, after {:.1} s\n\n",
            self.url,
            self.summary(),
            self.took_ms as f64 / 1000.0
        );
        if self.gateway {
            out.push_str("GET /: says that it is a gateway like this one\n");
        }
        for evidence in &self.evidence {
            let fits: Vec<&str> = evidence.fits.iter().map(|release| release.version()).collect();
            let fits = match (fits.as_slice(), fits.len()) {
                ([], _) => "no release".to_owned(),
                ([first, .., last], 5..) => format!("{first} … {last} ({})", fits.len()),
                (few, _) => few.join(", "),
            };
            let _ = writeln!(out, "{}: {} — fits {fits}", evidence.done, evidence.seen);
        }
        for (tongue, done) in &self.tried {
            let done = done.as_ref().map_or_else(Clone::clone, |()| "work".to_owned());
            let _ = writeln!(out, "two clients of {tongue}: {done}");
        }
        out
    }

    /// For machines.
    pub fn to_json(&self) -> Value {
        let tried = self.tried.iter().map(|(tongue, done)| match done {
            Ok(()) => json!({"dialect": tongue.name(), "works": true}),
            Err(why) => json!({"dialect": tongue.name(), "works": false, "why": why}),
        });
        let evidence = self.evidence.iter().map(|evidence| {
            let fits: Vec<&str> = evidence.fits.iter().map(|release| release.version()).collect();
            json!({"done": evidence.done, "seen": evidence.seen, "fits": fits})
        });
        let sure = format!("{:?}", self.sure()).to_lowercase();
        json!({
            "url": self.url,
            "summary": self.summary(),
            "sure": sure,
            "gateway": self.gateway,
            "releases": self.releases.iter().map(|release| release.version()).collect::<Vec<_>>(),
            "versions": self.versions(),
            "dialects": self.spoken().into_iter().map(Protocol::name).collect::<Vec<_>>(),
            "tried": tried.collect::<Vec<_>>(),
            "evidence": evidence.collect::<Vec<_>>(),
            "took_ms": self.took_ms,
        })
    }
}
