//! Finds out what a server speaks: a few connections that send as little as possible, what they observe, and
//! which releases that fits. The servers of sigver 1 to 5 crash on a message that they do not expect, so
//! nothing is sent that any of them could crash on: at first only silence and an empty object, and then only
//! what the remaining releases understand.
//!
//! The observations are in `observe`, what each release would show in `fingerprint`, and the trial of two
//! clients in `session`.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;
use tokio::task::JoinSet;

use super::fingerprint::Observation;
use super::session::SessionError;
use super::{fingerprint, observe, session};
use crate::protocol::dialect::{Dialect, Release};
use crate::tools::client::protocol::Protocol;
use crate::tools::client::random_key;
use crate::tools::dial::{ConnectError, Target, error_chain};

/// The result of a probe.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeResult {
    /// The server.
    pub url: String,
    /// The result in one line.
    pub summary: String,
    /// Confidence in the result.
    pub confidence: Confidence,
    /// True if the server answers as a gateway like this one.
    pub gateway: bool,
    /// Releases that behave like this server, by their newest version; none if no single release does.
    pub releases: Vec<&'static str>,
    /// Versions on npm that behave like this server.
    pub versions: Vec<String>,
    /// Protocols whose clients work on the server.
    pub dialects: Vec<Protocol>,
    /// Protocols that were tried.
    pub trials: Vec<ProtocolTrial>,
    /// The observations.
    pub findings: Vec<Finding>,
    /// Connections that were refused, by their HTTP status: what they would have shown is missing.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<u16, usize>,
    /// Duration of the probe, in milliseconds.
    pub duration_ms: u64,
}

/// The trial of one protocol.
#[derive(Clone, Debug, Serialize)]
pub struct ProtocolTrial {
    /// The protocol.
    pub dialect: Protocol,
    /// True if its clients work on the server.
    pub works: bool,
    /// The reason why they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// HTTP status by which a client was refused, whatever it speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<u16>,
}

/// One observation.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The action of the probe.
    pub action: &'static str,
    /// The reaction of the server.
    pub observed: String,
    /// Releases that do this, by their newest version.
    pub releases: Vec<&'static str>,
    /// The same releases.
    #[serde(skip)]
    fits: Vec<Release>,
    /// HTTP status of a refusal, by which nothing was observed.
    #[serde(skip)]
    refused: Option<u16>,
}

/// Confidence in a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Clients of the dialects work on the server, and the observations fit or explain it.
    Certain,
    /// The observations fit, but clients do not work.
    Likely,
    /// Something fits or works, but the server refused some connections.
    Incomplete,
    /// Nothing fits.
    None,
}

/// The observations of a server.
struct Observed {
    findings: Vec<Finding>,
    /// The server answers as a gateway like this one.
    is_gateway: bool,
    /// The server answers on the paths of signaller.
    has_signaller: bool,
    /// HTTP status by which the client of signaller was refused.
    signaller_refused: Option<u16>,
    /// Releases that all observations fit.
    releases: Vec<Release>,
}

/// Finds out what a server speaks. `thorough` also waits for heartbeat timeouts, which takes 20 seconds.
pub async fn probe(target: &Target, thorough: bool) -> Result<ProbeResult, ConnectError> {
    let started = Instant::now();
    target.check(&format!("/{}", random_key())).await?;
    let mut observed = observe_server(target, thorough).await;
    let trials = try_protocols(target, protocols_to_try(&observed)).await;
    observed.exclude_by(&trials);
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(ProbeResult::new(target, observed, trials, duration_ms))
}

async fn observe_server(target: &Target, thorough: bool) -> Observed {
    let (http, silent, empty, object, signaller, timeout) = tokio::join!(
        observe::http(target),
        observe::silent(target),
        observe::empty_path(target),
        observe::empty_object(target),
        observe::signaller(target),
        async { if thorough { Some(observe::heartbeat_timeout(target).await) } else { None } },
    );
    let is_gateway = http.is_ours();
    let mut findings = vec![
        Finding::new("a client with a key in its path that sends nothing", &silent),
        Finding::new("a client without a key that sends nothing", &empty),
        Finding::new("a client that sends {}", &object),
    ];
    findings.extend(timeout.map(|timeout| Finding::new("a client that never answers", &timeout)));
    let seen = || findings.iter().filter(|finding| finding.refused.is_none());
    let fits = |release: &Release| seen().all(|finding| finding.fits.contains(release));
    let is_seen = seen().next().is_some();
    let mut releases: Vec<Release> = Release::ALL.into_iter().filter(|r| is_seen && fits(r)).collect();
    refine(target, &mut releases, &mut findings).await;
    if !is_gateway {
        // Shown, but not counted: a proxy in front of the server may answer in its place.
        findings.push(Finding::new("GET /", &http));
    }
    let (has_signaller, signaller_refused) = (signaller == Ok(true), signaller.err());
    Observed { findings, is_gateway, has_signaller, signaller_refused, releases }
}

/// Observes what differs between the remaining releases.
async fn refine(target: &Target, releases: &mut Vec<Release>, findings: &mut Vec<Finding>) {
    let both = |one, other| releases.contains(&one) && releases.contains(&other);
    let mut more = Vec::new();
    if both(Release::V9_1_0, Release::V10_1_0) {
        more.push(Finding::new("a client that opens the key \"\"", &observe::empty_key(target).await));
    }
    if both(Release::V15_0_2, Release::V15_0_4) {
        more.push(Finding::new("a second client with the same key", &observe::second_client(target).await));
    }
    if both(Release::V19_0_0, Release::V19_1_2) {
        more.push(Finding::new("a member whose URL has ?favored", &observe::favored(target).await));
    }
    for finding in more {
        releases.retain(|release| finding.refused.is_some() || finding.fits.contains(release));
        findings.push(finding);
    }
}

/// Returns the protocols of which no client can crash the server.
fn protocols_to_try(observed: &Observed) -> Vec<Protocol> {
    let fits_fragile_only = |finding: &Finding| {
        !finding.fits.is_empty() && finding.fits.iter().all(|release| is_fragile(*release))
    };
    let may_crash = !observed.is_gateway && observed.findings.iter().any(fits_fragile_only);
    let is_refused = observed.findings.iter().any(|finding| finding.refused.is_some());
    if is_refused && !observed.is_gateway && !may_crash {
        // A proxy may refuse in the place of a server that crashes, and that was not recognised.
        let mut dialects: Vec<Dialect> = observed.releases.iter().map(|release| release.dialect()).collect();
        dialects.dedup();
        let is_safe = !observed.releases.iter().any(|release| is_fragile(*release));
        return dialects.into_iter().filter(|_| is_safe).map(Protocol::Sigver).collect();
    }
    let fragile: Vec<Release> = Release::ALL.into_iter().filter(|release| is_fragile(*release)).collect();
    let candidates: &[Release] = match (observed.releases.as_slice(), may_crash) {
        // No single release behaves like this, or it is a gateway: neither crashes.
        ([], false) => &Release::ALL,
        (_, false) if observed.is_gateway => &Release::ALL,
        ([], true) => &fragile,
        (few, _) => few,
    };
    let mut dialects: Vec<Dialect> = candidates.iter().map(|release| release.dialect()).collect();
    dialects.dedup();
    let signaller = observed.has_signaller.then_some(Protocol::Signaller);
    dialects.into_iter().map(Protocol::Sigver).chain(signaller).collect()
}

async fn try_protocols(target: &Target, protocols: Vec<Protocol>) -> Vec<ProtocolTrial> {
    let mut running = JoinSet::new();
    for protocol in protocols {
        let target = target.clone();
        running.spawn(async move { ProtocolTrial::new(protocol, session::attempt(&target, protocol).await) });
    }
    let mut trials = running.join_all().await;
    trials.sort_by_key(|trial| trial.dialect);
    trials
}

/// Returns true if a message of another dialect may crash the server of this release (measured).
fn is_fragile(release: Release) -> bool {
    release <= Release::V5_0_0
}

/// Returns true if a server of this dialect serves the clients of exactly one other dialect, too.
fn is_superset_of_another(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::Sigver5 | Dialect::Sigver16 | Dialect::Sigver18)
}

/// Returns the newest version on npm of a release.
fn newest_version(release: Release) -> &'static str {
    release.version()
}

impl Observed {
    /// Drops the releases whose clients do not work; all of them, if a gateway serves more than one release
    /// would.
    fn exclude_by(&mut self, trials: &[ProtocolTrial]) {
        let trial = |release: &Release| {
            trials.iter().find(|trial| trial.dialect == Protocol::Sigver(release.dialect()))
        };
        let works = |release: &Release| trial(release).is_some_and(|trial| trial.works);
        let may_work =
            |release: &Release| works(release) || trial(release).is_some_and(|t| t.refused.is_some());
        if self.releases.iter().any(works) {
            self.releases.retain(may_work);
        }
        let working =
            trials.iter().filter(|trial| trial.works && trial.dialect != Protocol::Signaller).count();
        let explains = |release: &Release| working == 2 && is_superset_of_another(release.dialect());
        if self.is_gateway && working > 1 && !self.releases.iter().any(explains) {
            self.releases.clear();
        }
    }
}

impl Finding {
    fn new(action: &'static str, observation: &Observation) -> Finding {
        let fits = fingerprint::matching_releases(observation);
        let releases = fits.iter().map(|release| newest_version(*release)).collect();
        Finding { action, observed: observation.to_string(), releases, fits, refused: observation.refusal() }
    }
}

impl ProtocolTrial {
    fn new(dialect: Protocol, result: Result<(), SessionError>) -> ProtocolTrial {
        let refused = match &result {
            Err(SessionError::Connect(error)) => error.refusal(),
            _ => None,
        };
        let failure = result.err().map(|error| error_chain(&error));
        ProtocolTrial { dialect, works: failure.is_none(), failure, refused }
    }
}

impl ProbeResult {
    fn new(target: &Target, observed: Observed, trials: Vec<ProtocolTrial>, duration_ms: u64) -> ProbeResult {
        let Observed { findings, is_gateway: gateway, releases, signaller_refused, .. } = observed;
        let dialects: Vec<Protocol> =
            trials.iter().filter(|trial| trial.works).map(|trial| trial.dialect).collect();
        let mut refused = BTreeMap::new();
        let refusals = findings.iter().map(|finding| finding.refused);
        let refusals = refusals.chain(trials.iter().map(|trial| trial.refused)).chain([signaller_refused]);
        for status in refusals.flatten() {
            *refused.entry(status).or_default() += 1;
        }
        let versions: Vec<String> = releases.iter().map(|release| release.version_list()).collect();
        ProbeResult {
            url: target.to_string(),
            summary: summary(gateway, &versions, &dialects, !refused.is_empty()),
            confidence: match (dialects.is_empty(), releases.is_empty(), refused.is_empty()) {
                (true, true, _) => Confidence::None,
                (_, _, false) => Confidence::Incomplete,
                (false, _, true) => Confidence::Certain,
                (true, false, true) => Confidence::Likely,
            },
            gateway,
            releases: releases.iter().map(|release| newest_version(*release)).collect(),
            versions,
            dialects,
            trials,
            findings,
            refused,
            duration_ms,
        }
    }
}

fn summary(gateway: bool, versions: &[String], dialects: &[Protocol], is_refused: bool) -> String {
    let subject = if gateway { "a gateway that behaves as " } else { "" };
    let versions = versions.join(" or ");
    let names: Vec<&str> = dialects.iter().map(|dialect| dialect.name()).collect();
    match (versions.is_empty(), dialects.len()) {
        // A gateway behaves as one release or as several, which few observations do not show.
        (_, 0) if is_refused && gateway => {
            "a gateway like this one; what it speaks is not known, as connections were refused".to_owned()
        }
        (true, 0) if is_refused => "not recognised, as connections were refused".to_owned(),
        (false, 0) if is_refused => format!("perhaps sigver {versions}"),
        (false, 0) => format!("likely {subject}sigver {versions}, but its clients do not work there"),
        (false, _) => format!("{subject}sigver {versions} ({})", names.join(", ")),
        (true, 0) => "no known release of sigver".to_owned(),
        (true, Protocol::COUNT) => "a gateway that speaks all dialects, and signaller".to_owned(),
        (true, _) => format!("a server that speaks {}", names.join(", ")),
    }
}
