//! Compares two transcripts of one script: the events that each client received in each step, in order, and
//! no others.
//!
//! Server-generated ids may differ, but consistently: one id of one transcript stands for one id of the other
//! throughout the scenario. Reports call them `#1`, `#2`, ... in order of their first appearance. In
//! scenarios about time a client's frames are compared regardless of steps, but each must arrive at its time.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::ids::{self, Id, IdLayout, MaskedFrame};
use super::script::{Observed, ScriptStep, steps};
use super::transcript::Scenario;

/// The kind of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum DifferenceKind {
    /// An expected frame did not arrive.
    Missing,
    /// An unexpected frame arrived.
    Extra,
    /// Another frame arrived in its place.
    Changed,
    /// The frame arrived at another time.
    Time,
    /// The server process crashed in only one of the runs.
    Server,
    /// The two transcripts are not of the same script.
    Script,
}

impl DifferenceKind {
    /// Returns the kind's name in reports and in `exceptions.toml`.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The step, from 1.
    pub step: usize,
    /// The client's action in that step.
    pub action: String,
    /// The client that received it (`server` for the server process).
    pub peer: String,
    /// The kind of difference.
    pub kind: DifferenceKind,
    /// The expected frame; empty if none.
    pub expected: String,
    /// The actual frame; empty if none.
    pub actual: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Difference { step, action, peer, kind, expected, actual } = self;
        let or_nothing = |text: &str| {
            if text.is_empty() { "nothing".to_owned() } else { text.to_owned() }
        };
        writeln!(f, "step {step} ({action}): {} at {peer}", kind.name())?;
        writeln!(f, "    expected {}", or_nothing(expected))?;
        write!(f, "    actual   {}", or_nothing(actual))
    }
}

/// Tolerances of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct ComparisonRules {
    /// In scenarios about time, the greatest deviation from the recorded time, in milliseconds.
    pub tolerance: u64,
    /// Clients that may receive one another's frames, because the server chose among them at random.
    pub interchangeable: &'static [&'static str],
    /// The order that is compared.
    pub order: ComparisonOrder,
}

/// The order of events that is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ComparisonOrder {
    /// The events of each client in each step; in scenarios about time, with their times.
    #[default]
    Steps,
    /// The events of each client: for real conversations, in which a client may act while another's frames
    /// are in transit.
    Clients,
    /// The events of each client, with their times.
    Times,
}

impl ComparisonOrder {
    /// Returns the order that applies to this scenario.
    pub fn for_scenario(self, scenario: &Scenario) -> ComparisonOrder {
        if self == ComparisonOrder::Steps && scenario.is_timed() { ComparisonOrder::Times } else { self }
    }
}

impl Default for ComparisonRules {
    fn default() -> Self {
        Self { tolerance: 400, interchangeable: &[], order: ComparisonOrder::Steps }
    }
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Comparison {
    /// Number of frames, openings and closings that were expected.
    pub frames: usize,
    /// The differences, in order.
    pub differences: Vec<Difference>,
}

/// An event of a client, split at its ids.
#[derive(Debug)]
struct ComparedItem {
    step: usize,
    t: u64,
    masked: MaskedFrame,
}

fn item(layout: IdLayout, step: usize, t: u64, what: &Observed) -> ComparedItem {
    let masked = match what {
        Observed::Open => MaskedFrame::literal("open"),
        Observed::Frame(payload) => ids::mask(layout, payload),
        Observed::Close { code, reason } => ids::mask_reason(layout, *code, reason),
    };
    ComparedItem { step, t, masked }
}

/// The mapping of the ids of one transcript to those of the other.
#[derive(Default)]
struct IdMapping {
    numbers: HashMap<Id, usize>,
    live: HashMap<Id, Id>,
    expected: HashMap<Id, Id>,
}

impl IdMapping {
    /// Maps `expected` to `live`, which are in a text frame if `json`. Returns false if one of them is mapped
    /// to another id.
    fn pair(&mut self, expected: &Id, live: &Id, json: bool) -> bool {
        if !expected.is_server_generated() {
            return expected == live;
        }
        live.is_substitute_for(expected, json)
            && self.live.entry(expected.clone()).or_insert_with(|| live.clone()) == live
            && self.expected.entry(live.clone()).or_insert_with(|| expected.clone()) == expected
    }

    fn name(&self, id: &Id) -> String {
        self.numbers.get(id).map_or_else(|| id.to_string(), |n| format!("#{n}"))
    }

    fn expected(&self, masked: &MaskedFrame) -> String {
        masked.render(|id| self.name(id))
    }

    fn actual(&self, masked: &MaskedFrame) -> String {
        masked.render(|id| match (self.expected.get(id), id.is_server_generated()) {
            (Some(expected), _) => self.name(expected),
            (None, true) => format!("#?{id}"),
            (None, false) => id.to_string(),
        })
    }
}

/// Time before a client leaves, in milliseconds, in which frames to it may still be in transit and need not
/// arrive.
const TRANSIT_TIME: u64 = 250;

/// Compares the transcript of a run with the expected one.
pub fn compare(expected: &Scenario, actual: &Scenario, rules: ComparisonRules) -> Comparison {
    let layout = IdLayout::from_version(&expected.version);
    let (golden, live) = (steps(expected), steps(actual));
    let mut out = Comparison { frames: golden.iter().map(|s| s.seen.len()).sum(), differences: Vec::new() };
    if let Some(difference) = other_script(&golden, &live) {
        out.differences.push(difference);
        return out;
    }
    let mut comparer = Comparer { layout, rules, ids: IdMapping::default(), golden: &golden, out };
    comparer.number_ids();
    match rules.order.for_scenario(expected) {
        ComparisonOrder::Times => comparer.group(&golden, &live, 0, Some(rules.tolerance)),
        ComparisonOrder::Clients => comparer.group(&golden, &live, 0, None),
        ComparisonOrder::Steps => {
            for step in 0..golden.len() {
                comparer.group(&golden[step..=step], &live[step..=step], step, None);
            }
        }
    }
    let mut out = comparer.out;
    if let (Some(expected), Some(actual)) = (expected.alive(), actual.alive())
        && expected != actual
    {
        let state = |alive: bool| if alive { "lives" } else { "died" }.to_owned();
        out.differences.push(Difference {
            step: golden.len(),
            action: golden.last().map(ScriptStep::to_string).unwrap_or_default(),
            peer: "server".into(),
            kind: DifferenceKind::Server,
            expected: state(expected),
            actual: state(actual),
        });
    }
    out
}

fn other_script(golden: &[ScriptStep], live: &[ScriptStep]) -> Option<Difference> {
    let same = |a: &ScriptStep, b: &ScriptStep| {
        a.peer == b.peer && std::mem::discriminant(&a.action) == std::mem::discriminant(&b.action)
    };
    let at = (0..golden.len().max(live.len())).find(|i| match (golden.get(*i), live.get(*i)) {
        (Some(a), Some(b)) => !same(a, b),
        _ => true,
    })?;
    let text = |steps: &[ScriptStep]| steps.get(at).map(ScriptStep::to_string).unwrap_or_default();
    Some(Difference {
        step: at + 1,
        action: text(golden),
        peer: String::new(),
        kind: DifferenceKind::Script,
        expected: text(golden),
        actual: text(live),
    })
}

struct Comparer<'a> {
    layout: IdLayout,
    rules: ComparisonRules,
    ids: IdMapping,
    golden: &'a [ScriptStep],
    out: Comparison,
}

impl Comparer<'_> {
    fn number_ids(&mut self) {
        for seen in self.golden.iter().flat_map(|s| &s.seen) {
            for id in
                item(self.layout, 0, 0, &seen.what).masked.ids.into_iter().filter(Id::is_server_generated)
            {
                let next = self.ids.numbers.len() + 1;
                self.ids.numbers.entry(id).or_insert(next);
            }
        }
    }

    /// Compares the events of each client in these steps.
    fn group(&mut self, golden: &[ScriptStep], live: &[ScriptStep], first: usize, tolerance: Option<u64>) {
        let same = self.rules.interchangeable;
        let group = |peer: &str| {
            if same.contains(&peer) { same.join("/") } else { peer.to_owned() }
        };
        let mut peers: Vec<String> = Vec::new();
        for peer in golden.iter().chain(live).flat_map(|s| &s.seen).map(|seen| group(&seen.peer)) {
            if !peers.contains(&peer) {
                peers.push(peer);
            }
        }
        for peer in peers {
            let items = |steps: &[ScriptStep]| -> Vec<ComparedItem> {
                let seen = steps
                    .iter()
                    .enumerate()
                    .flat_map(|(i, s)| s.seen.iter().map(move |seen| (first + i, seen)));
                let own = seen.filter(|(_, seen)| group(&seen.peer) == peer);
                own.map(|(step, seen)| item(self.layout, step, seen.t, &seen.what)).collect()
            };
            let (expected, actual) = (items(golden), items(live));
            self.sequence(&peer, &expected, &actual, tolerance);
        }
    }

    fn sequence(
        &mut self,
        peer: &str,
        expected: &[ComparedItem],
        actual: &[ComparedItem],
        tolerance: Option<u64>,
    ) {
        let (mut e, mut a) = (0, 0);
        for (i, j) in common_subsequence(expected, actual).into_iter().chain([(expected.len(), actual.len())])
        {
            self.gap(peer, &expected[e..i], &actual[a..j]);
            if let (Some(expected), Some(actual)) = (expected.get(i), actual.get(j)) {
                self.matched(peer, expected, actual, tolerance);
            }
            (e, a) = (i + 1, j + 1);
        }
    }

    /// Records the frames without a counterpart between two pairs of equal frames.
    fn gap(&mut self, peer: &str, expected: &[ComparedItem], actual: &[ComparedItem]) {
        for i in 0..expected.len().max(actual.len()) {
            let (kind, step) = match (expected.get(i), actual.get(i)) {
                (Some(e), Some(_)) => (DifferenceKind::Changed, e.step),
                (Some(e), None) => (DifferenceKind::Missing, e.step),
                (None, Some(a)) if self.may_have_been_in_transit(peer, a.step) => continue,
                (None, Some(a)) => (DifferenceKind::Extra, a.step),
                (None, None) => continue,
            };
            let expected = expected.get(i).map(|e| self.ids.expected(&e.masked)).unwrap_or_default();
            let actual = actual.get(i).map(|a| self.ids.actual(&a.masked)).unwrap_or_default();
            self.differs(step, peer, kind, expected, actual);
        }
    }

    /// Compares the ids and times of two otherwise equal frames.
    fn matched(
        &mut self,
        peer: &str,
        expected: &ComparedItem,
        actual: &ComparedItem,
        tolerance: Option<u64>,
    ) {
        let pairs = expected.masked.ids.iter().zip(&actual.masked.ids);
        let ids = &mut self.ids;
        let json = actual.masked.parts.first().is_some_and(|first| first.starts_with("text"));
        if !pairs.fold(true, |ok, (e, a)| ids.pair(e, a, json) && ok) {
            let texts = (self.ids.expected(&expected.masked), self.ids.actual(&actual.masked));
            self.differs(expected.step, peer, DifferenceKind::Changed, texts.0, texts.1);
        }
        if tolerance.is_some_and(|t| expected.t.abs_diff(actual.t) > t) {
            let what = self.ids.expected(&expected.masked);
            let text = |t: u64| format!("{what} at {t} ms");
            self.differs(expected.step, peer, DifferenceKind::Time, text(expected.t), text(actual.t));
        }
    }

    /// Returns true if the client may have left, when the transcript was made, before it could receive
    /// this. A player takes more time.
    fn may_have_been_in_transit(&self, peer: &str, step: usize) -> bool {
        let at = |step: usize| self.golden.get(step).map_or(0, |s| s.t);
        let leaves = self.golden.iter().position(|s| s.peer == peer && s.action.ends());
        self.rules.order != ComparisonOrder::Steps
            && leaves.is_some_and(|end| step <= end && at(end).saturating_sub(at(step)) <= TRANSIT_TIME)
    }

    fn differs(&mut self, step: usize, peer: &str, kind: DifferenceKind, expected: String, actual: String) {
        let action = self.golden.get(step).map(ScriptStep::to_string).unwrap_or_default();
        let peer = peer.to_owned();
        self.out.differences.push(Difference { step: step + 1, action, peer, kind, expected, actual });
    }
}

/// Largest product of two sequences' lengths that are aligned; longer ones are compared place by place.
const MAX_LCS_CELLS: usize = 4_000_000;

/// Returns the longest common subsequence, as pairs of indices. Frames that differ in ids only are equal.
fn common_subsequence(expected: &[ComparedItem], actual: &[ComparedItem]) -> Vec<(usize, usize)> {
    let is_equal = |i: usize, j: usize| expected[i].masked.parts == actual[j].masked.parts;
    let shorter = expected.len().min(actual.len());
    let head = (0..shorter).take_while(|i| is_equal(*i, *i)).count();
    if (expected.len() - head) * (actual.len() - head) > MAX_LCS_CELLS {
        return (0..shorter).filter(|i| is_equal(*i, *i)).map(|i| (i, i)).collect();
    }
    let parts =
        |items: &[ComparedItem]| items.iter().map(|item| item.masked.parts.clone()).collect::<Vec<_>>();
    let (old, new) = (parts(expected), parts(actual));
    let operations = capture_diff_slices(Algorithm::Lcs, &old, &new);
    let equal = operations.into_iter().filter_map(|operation| match operation {
        DiffOp::Equal { old_index, new_index, len } => {
            Some((old_index..old_index + len).zip(new_index..new_index + len))
        }
        DiffOp::Delete { .. } | DiffOp::Insert { .. } | DiffOp::Replace { .. } => None,
    });
    equal.flatten().collect()
}
