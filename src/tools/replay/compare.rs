//! Compares two transcripts of one script: the events that each client received in each step, in order, and
//! no others.
//!
//! Server-generated ids may differ, but consistently: one id of one transcript stands for one id of the other
//! throughout the scenario. Reports call them `#1`, `#2`, ... in order of their first appearance. In
//! scenarios about time a client's frames are compared regardless of steps, but each must arrive at its time.

use serde::{Deserialize, Serialize};
use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::client_views::{ClientViews, plain_text};
use super::id_mapping::IdMapping;
use super::ids::{Id, MaskedFrame};
use super::meant::{Deviation, MeantDifference, explain};
use super::script::{Observed, ScriptAction, ScriptStep, steps};
use super::transcript::{FrameKind, Scenario};

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
    /// True: differences of docs/reference/differences.md are counted in [`Comparison::meant`], and
    /// messages are described. (The comparison with the Node.js servers has a list for each script instead.)
    pub explain: bool,
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
        Self { tolerance: 400, interchangeable: &[], order: ComparisonOrder::Steps, explain: false }
    }
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Comparison {
    /// Number of frames, openings and closings that were expected.
    pub frames: usize,
    /// The differences, in order.
    pub differences: Vec<Difference>,
    /// The differences that this server makes on purpose.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub meant: Vec<MeantDifference>,
}

/// An event of a client, split at its ids.
#[derive(Debug)]
struct ComparedItem<'a> {
    step: usize,
    t: u64,
    what: &'a Observed,
    masked: MaskedFrame,
}

/// Pairs of an expected and an actual event.
type ItemPairs<'i, 'o> = Vec<(&'i ComparedItem<'o>, &'i ComparedItem<'o>)>;

impl ComparedItem<'_> {
    /// Returns what frames of one sender have in common, which keep their order: the ids, and whether data is
    /// relayed or the server speaks.
    fn origin(&self) -> (&[Id], bool) {
        let is_relayed = match self.what {
            Observed::Frame(frame) => match frame.op {
                FrameKind::Binary => matches!(frame.bytes.first(), Some(0x0a | 0x12)),
                FrameKind::Text => frame.bytes.windows(DATA.len()).any(|window| window == DATA),
                FrameKind::Ping | FrameKind::Pong => false,
            },
            Observed::Open | Observed::Close { .. } => false,
        };
        (&self.masked.ids, is_relayed)
    }
}

/// The attribute of JSON that holds relayed data.
const DATA: &[u8] = b"\"data\":";

/// Time before a client leaves, in milliseconds, in which frames to it may still be in transit and need not
/// arrive.
const TRANSIT_TIME: u64 = 250;

/// Time between two frames to a client, in milliseconds, within which frames of different origin may arrive
/// in either order.
const CROSSING_TIME: u64 = 50;

/// Compares the transcript of a run with the expected one.
pub fn compare(expected: &Scenario, actual: &Scenario, rules: ComparisonRules) -> Comparison {
    let views = ClientViews::from_scenario(expected);
    let (golden, live) = (steps(expected), steps(actual));
    let frames = golden.iter().map(|s| s.seen.len()).sum();
    let mut out = Comparison { frames, ..Comparison::default() };
    if let Some(difference) = other_script(&golden, &live) {
        out.differences.push(difference);
        return out;
    }
    let mut comparer = Comparer { views, rules, ids: IdMapping::default(), golden: &golden, out };
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
    views: ClientViews,
    rules: ComparisonRules,
    ids: IdMapping,
    golden: &'a [ScriptStep],
    out: Comparison,
}

impl Comparer<'_> {
    fn number_ids(&mut self) {
        for seen in self.golden.iter().flat_map(|s| &s.seen) {
            let ids = self.views.mask(&seen.peer, &seen.what).ids;
            ids.into_iter().filter(Id::is_server_generated).for_each(|id| self.ids.number(id));
        }
    }

    /// Compares the events of each client in these steps.
    fn group<'s>(
        &mut self,
        golden: &'s [ScriptStep],
        live: &'s [ScriptStep],
        first: usize,
        tolerance: Option<u64>,
    ) {
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
            let views = self.views.clone();
            let items = |steps: &'s [ScriptStep]| -> Vec<ComparedItem<'s>> {
                let seen = steps
                    .iter()
                    .enumerate()
                    .flat_map(|(i, s)| s.seen.iter().map(move |seen| (first + i, seen)));
                let own = seen.filter(|(_, seen)| group(&seen.peer) == peer);
                own.map(|(step, seen)| {
                    let masked = views.mask(&seen.peer, &seen.what);
                    ComparedItem { step, t: seen.t, what: &seen.what, masked }
                })
                .collect()
            };
            let (expected, actual) = (items(golden), items(live));
            self.sequence(&peer, &expected, &actual, tolerance);
        }
    }

    fn sequence(
        &mut self,
        peer: &str,
        expected: &[ComparedItem<'_>],
        actual: &[ComparedItem<'_>],
        tolerance: Option<u64>,
    ) {
        let (mut e, mut a) = (0, 0);
        let (crossed, expected, actual) = self.without_crossings(expected, actual);
        for (expected, actual) in crossed {
            self.matched(peer, expected, actual, tolerance);
        }
        for (i, j) in
            common_subsequence(&expected, &actual).into_iter().chain([(expected.len(), actual.len())])
        {
            self.gap(peer, &expected[e..i], &actual[a..j]);
            if let (Some(expected), Some(actual)) = (expected.get(i).copied(), actual.get(j).copied()) {
                self.matched(peer, expected, actual, tolerance);
            }
            (e, a) = (i + 1, j + 1);
        }
    }

    /// Splits off the pairs of equal frames that crossed others on their way: in the recording a frame of
    /// another origin arrived at nearly the same time, and in this run in the other order. Returns those
    /// pairs, and the rest of both sequences.
    fn without_crossings<'i, 'o>(
        &self,
        expected: &'i [ComparedItem<'o>],
        actual: &'i [ComparedItem<'o>],
    ) -> (ItemPairs<'i, 'o>, Vec<&'i ComparedItem<'o>>, Vec<&'i ComparedItem<'o>>) {
        let (all_expected, all_actual): (Vec<_>, Vec<_>) =
            (expected.iter().collect(), actual.iter().collect());
        if !self.rules.explain || self.rules.order == ComparisonOrder::Steps {
            return (Vec::new(), all_expected, all_actual);
        }
        let common = common_subsequence(&all_expected, &all_actual);
        let mut crossed = Vec::new();
        let is_free = |crossed: &Vec<(usize, usize)>, j: usize| {
            !common.iter().chain(crossed).any(|(_, other)| *other == j)
        };
        for i in (0..expected.len()).filter(|i| !common.iter().any(|(other, _)| other == i)) {
            let found = (0..actual.len()).find(|j| {
                // The place of the frame of this run in the recording.
                let place = common.iter().find(|(_, other)| other > j).map_or(expected.len(), |(i, _)| *i);
                let passed = &expected[place.min(i)..place.max(i + 1)];
                actual[*j].masked.parts == expected[i].masked.parts
                    && is_free(&crossed, *j)
                    && passed.iter().all(|other| {
                        std::ptr::eq(other, &expected[i])
                            || (other.t.abs_diff(expected[i].t) <= CROSSING_TIME
                                && other.origin() != expected[i].origin())
                    })
            });
            crossed.extend(found.map(|j| (i, j)));
        }
        let rest = |items: &'i [ComparedItem<'o>], taken: Vec<usize>| {
            items.iter().enumerate().filter(|(i, _)| !taken.contains(i)).map(|(_, item)| item).collect()
        };
        let rest_expected = rest(expected, crossed.iter().map(|(i, _)| *i).collect());
        let rest_actual = rest(actual, crossed.iter().map(|(_, j)| *j).collect());
        let pairs = crossed.into_iter().map(|(i, j)| (&expected[i], &actual[j])).collect();
        (pairs, rest_expected, rest_actual)
    }

    /// Records the frames without a counterpart between two pairs of equal frames.
    fn gap(&mut self, peer: &str, expected: &[&ComparedItem<'_>], actual: &[&ComparedItem<'_>]) {
        let (mut expected, mut actual) = (expected.to_vec(), actual.to_vec());
        expected.retain(|item| !self.arrived_after_leaving(peer, item));
        expected.retain(|item| !self.is_meant(peer, Deviation::Missing(item.what)));
        actual.retain(|item| !self.is_meant(peer, Deviation::Extra(item.what)));
        for i in 0..expected.len().max(actual.len()) {
            let (kind, step) = match (expected.get(i), actual.get(i)) {
                (Some(e), Some(a)) if self.is_meant(peer, Deviation::Changed(e.what, a.what)) => continue,
                (Some(e), Some(a)) if self.closes_crossed(peer, e, a) => continue,
                (Some(e), Some(_)) => (DifferenceKind::Changed, e.step),
                (Some(e), None) => (DifferenceKind::Missing, e.step),
                (None, Some(a)) if self.may_have_been_in_transit(peer, a.step) => continue,
                (None, Some(a)) => (DifferenceKind::Extra, a.step),
                (None, None) => continue,
            };
            let texts = self.texts(peer, expected.get(i).copied(), actual.get(i).copied());
            self.differs(step, peer, kind, texts.0, texts.1);
        }
    }

    /// Compares the ids and times of two otherwise equal frames.
    fn matched(
        &mut self,
        peer: &str,
        expected: &ComparedItem<'_>,
        actual: &ComparedItem<'_>,
        tolerance: Option<u64>,
    ) {
        let pairs = expected.masked.ids.iter().zip(&actual.masked.ids);
        let ids = &mut self.ids;
        let json = actual.masked.parts.first().is_some_and(|first| first.starts_with("text"));
        if !pairs.fold(true, |ok, (e, a)| ids.pair(e, a, json) && ok) {
            let texts = self.texts(peer, Some(expected), Some(actual));
            self.differs(expected.step, peer, DifferenceKind::Changed, texts.0, texts.1);
        } else {
            // The client reads the same. It is listed anyway if the bytes differ on purpose.
            self.is_meant(peer, Deviation::SameToClient(expected.what, actual.what));
        }
        if tolerance.is_some_and(|t| expected.t.abs_diff(actual.t) > t) {
            let (what, _) = self.texts(peer, Some(expected), None);
            let text = |t: u64| format!("{what} at {t} ms");
            self.differs(expected.step, peer, DifferenceKind::Time, text(expected.t), text(actual.t));
        }
    }

    /// Returns true, and counts it, if this server makes the difference on purpose.
    fn is_meant(&mut self, peer: &str, deviation: Deviation<'_>) -> bool {
        let found = if self.rules.explain { explain(self.views.dialect(peer), deviation) } else { None };
        let Some(row) = found else { return false };
        match self.out.meant.iter_mut().find(|known| known.meaning == row.meaning) {
            Some(known) => known.count += 1,
            None => self.out.meant.push(MeantDifference::new(row)),
        }
        true
    }

    /// Returns the texts of the two frames for a report; empty ones for those that are missing.
    fn texts(
        &self,
        peer: &str,
        expected: Option<&ComparedItem<'_>>,
        actual: Option<&ComparedItem<'_>>,
    ) -> (String, String) {
        let ids = &self.ids;
        let text = |item: &ComparedItem<'_>, name: &dyn Fn(&Id) -> String| {
            self.rules.explain.then(|| self.views.describe(peer, item.what, name)).flatten()
        };
        let expected_text =
            expected.map(|e| text(e, &|id| ids.name(id)).unwrap_or_else(|| ids.expected(&e.masked)));
        let actual_text =
            actual.map(|a| text(a, &|id| ids.live_name(id)).unwrap_or_else(|| ids.actual(&a.masked)));
        match (expected_text, actual_text, expected, actual) {
            // The difference is in what the description leaves out.
            (Some(e), Some(a), Some(expected), Some(actual))
                if e == a && expected.masked != actual.masked =>
            {
                (plain_text(expected.what), plain_text(actual.what))
            }
            (e, a, _, _) => (e.unwrap_or_default(), a.unwrap_or_default()),
        }
    }

    /// Returns true if the client may have left, when the transcript was made, before it could receive
    /// this. A player takes more time.
    fn may_have_been_in_transit(&self, peer: &str, step: usize) -> bool {
        let at = |step: usize| self.golden.get(step).map_or(0, |s| s.t);
        let leaves = self.golden.iter().position(|s| s.peer == peer && s.action.ends());
        self.rules.order != ComparisonOrder::Steps
            && leaves.is_some_and(|end| at(end).abs_diff(at(step)) <= TRANSIT_TIME)
    }

    /// Returns true if the client had sent a close frame when it received this. Another server may answer
    /// that at once.
    fn arrived_after_leaving(&self, peer: &str, item: &ComparedItem<'_>) -> bool {
        let leaves = self.golden.iter().position(|s| s.peer == peer && s.action.ends());
        self.rules.order != ComparisonOrder::Steps
            && !matches!(item.what, Observed::Close { .. })
            && leaves.is_some_and(|end| item.step >= end)
    }

    /// Returns true if both are the end of a connection that the client itself was closing: the close frames
    /// of the two sides crossed one another in one of the runs.
    fn closes_crossed(&self, peer: &str, expected: &ComparedItem<'_>, actual: &ComparedItem<'_>) -> bool {
        let closes = |item: &ComparedItem<'_>| matches!(item.what, Observed::Close { .. });
        self.rules.explain
            && closes(expected)
            && closes(actual)
            && self.may_have_been_in_transit(peer, expected.step)
    }

    fn action(&self, step: &ScriptStep) -> String {
        let text = match &step.action {
            ScriptAction::Send(frame) if self.rules.explain => {
                let sent = Observed::Frame(frame.clone());
                self.views.describe(&step.peer, &sent, |id| self.ids.name(id))
            }
            _ => None,
        };
        text.map_or_else(|| step.to_string(), |text| format!("{} sends {text}", step.peer))
    }

    fn differs(&mut self, step: usize, peer: &str, kind: DifferenceKind, expected: String, actual: String) {
        let action = self.golden.get(step).map(|step| self.action(step)).unwrap_or_default();
        let peer = peer.to_owned();
        self.out.differences.push(Difference { step: step + 1, action, peer, kind, expected, actual });
    }
}

/// Largest product of two sequences' lengths that are aligned; longer ones are compared place by place.
const MAX_LCS_CELLS: usize = 4_000_000;

/// Returns the longest common subsequence, as pairs of indices. Frames that differ in ids only are equal.
fn common_subsequence(expected: &[&ComparedItem<'_>], actual: &[&ComparedItem<'_>]) -> Vec<(usize, usize)> {
    let is_equal = |i: usize, j: usize| expected[i].masked.parts == actual[j].masked.parts;
    let shorter = expected.len().min(actual.len());
    let head = (0..shorter).take_while(|i| is_equal(*i, *i)).count();
    if (expected.len() - head) * (actual.len() - head) > MAX_LCS_CELLS {
        return (0..shorter).filter(|i| is_equal(*i, *i)).map(|i| (i, i)).collect();
    }
    let parts =
        |items: &[&ComparedItem<'_>]| items.iter().map(|item| item.masked.parts.clone()).collect::<Vec<_>>();
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
