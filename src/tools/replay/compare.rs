//! Compares two transcripts of one script: what each client saw in each step, in order, and that it saw nothing else.
//!
//! Made-up ids may differ, but consistently: one id of the one transcript stands for one id of the other, all through
//! the scenario. In reports they are called `#1`, `#2`, ... in order of their first appearance. In scenarios about
//! time a client's frames are compared without regard to steps, but each must come at its time.

use std::collections::HashMap;

use super::ids::{self, Id, Layout, MaskedFrame};
use super::script::{Observed, Step, steps};
use super::transcript::Scenario;

/// Observed is different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something expected did not come.
    Missing,
    /// Something came that was not expected.
    Extra,
    /// Something else came in its place.
    Changed,
    /// It came at another time.
    Time,
    /// The server process died in one run and lived in the other.
    Server,
    /// The two transcripts are not of the same script.
    Script,
}

impl Kind {
    /// The word for it in reports and in `exceptions.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Missing => "missing",
            Kind::Extra => "extra",
            Kind::Changed => "changed",
            Kind::Time => "time",
            Kind::Server => "server",
            Kind::Script => "script",
        }
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The step, from 1.
    pub step: usize,
    /// Observed the client did in that step.
    pub action: String,
    /// The client that saw it (`server` for the server process).
    pub peer: String,
    /// Observed is different.
    pub kind: Kind,
    /// Observed should have come; empty if nothing.
    pub expected: String,
    /// Observed came; empty if nothing.
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

/// Observed a comparison lets pass.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// In scenarios about time, how many milliseconds from its time something may come.
    pub tolerance: u64,
    /// Clients of which each may see what the transcript shows at another, because lots were drawn among them.
    pub interchangeable: &'static [&'static str],
    /// Observed is compared of the order in which things were seen.
    pub order: Sequence,
}

/// Observed is compared of the order in which things were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sequence {
    /// Observed each client saw in each step; in scenarios about time, what it saw when.
    #[default]
    Steps,
    /// Observed each client saw: of real conversations, in which one client may act while another's words are on their way.
    Clients,
    /// Observed each client saw, and when.
    Times,
}

impl Sequence {
    /// Observed it comes to for this scenario.
    pub fn of(self, scenario: &Scenario) -> Sequence {
        if self == Sequence::Steps && scenario.is_timed() { Sequence::Times } else { self }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self { tolerance: 400, interchangeable: &[], order: Sequence::Steps }
    }
}

/// The outcome of a comparison.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// How many frames, openings and closings were expected.
    pub frames: usize,
    /// Observed was different, in order.
    pub differences: Vec<Difference>,
}

/// Something seen, cut at its ids.
#[derive(Debug)]
struct Item {
    step: usize,
    t: u64,
    masked: MaskedFrame,
}

fn item(layout: Layout, step: usize, t: u64, what: &Observed) -> Item {
    let masked = match what {
        Observed::Open => MaskedFrame::literal("open"),
        Observed::Frame(payload) => ids::mask(layout, payload),
        Observed::Close { code, reason } => ids::mask_reason(layout, *code, reason),
    };
    Item { step, t, masked }
}

/// Which id of the one transcript stands for which of the other.
#[derive(Default)]
struct Ids {
    numbers: HashMap<Id, usize>,
    live: HashMap<Id, Id>,
    expected: HashMap<Id, Id>,
}

impl Ids {
    /// Notes that `live` stands for `expected`, or says that it cannot.
    fn pair(&mut self, expected: &Id, live: &Id) -> bool {
        if !expected.made_up() {
            return expected == live;
        }
        live.is_substitute_for(expected)
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
        masked.render(|id| match (self.expected.get(id), id.made_up()) {
            (Some(expected), _) => self.name(expected),
            (None, true) => format!("#?{id}"),
            (None, false) => id.to_string(),
        })
    }
}

/// If a client leaves within so many milliseconds of something, what it would have been told of it may have been on its
/// way, and need not have come.
const ON_ITS_WAY: u64 = 250;

/// Compares the transcript of a run with the one it should equal.
pub fn compare(expected: &Scenario, actual: &Scenario, rules: Rules) -> Comparison {
    let layout = Layout::of(&expected.version);
    let (golden, live) = (steps(expected), steps(actual));
    let mut out = Comparison { frames: golden.iter().map(|s| s.seen.len()).sum(), differences: Vec::new() };
    if let Some(difference) = other_script(&golden, &live) {
        out.differences.push(difference);
        return out;
    }
    let mut comparer = Comparer { layout, rules, ids: Ids::default(), golden: &golden, out };
    comparer.number_ids();
    match rules.order.of(expected) {
        Sequence::Times => comparer.group(&golden, &live, 0, Some(rules.tolerance)),
        Sequence::Clients => comparer.group(&golden, &live, 0, None),
        Sequence::Steps => {
            for step in 0..golden.len() {
                comparer.group(&golden[step..=step], &live[step..=step], step, None);
            }
        }
    }
    let mut out = comparer.out;
    if let (Some(expected), Some(actual)) = (expected.alive(), actual.alive())
        && expected != actual
    {
        let say = |alive: bool| if alive { "lives" } else { "died" }.to_owned();
        out.differences.push(Difference {
            step: golden.len(),
            action: golden.last().map(Step::to_string).unwrap_or_default(),
            peer: "server".into(),
            kind: Kind::Server,
            expected: say(expected),
            actual: say(actual),
        });
    }
    out
}

fn other_script(golden: &[Step], live: &[Step]) -> Option<Difference> {
    let same = |a: &Step, b: &Step| {
        a.peer == b.peer && std::mem::discriminant(&a.action) == std::mem::discriminant(&b.action)
    };
    let at = (0..golden.len().max(live.len())).find(|i| match (golden.get(*i), live.get(*i)) {
        (Some(a), Some(b)) => !same(a, b),
        _ => true,
    })?;
    let say = |steps: &[Step]| steps.get(at).map(Step::to_string).unwrap_or_default();
    Some(Difference {
        step: at + 1,
        action: say(golden),
        peer: String::new(),
        kind: Kind::Script,
        expected: say(golden),
        actual: say(live),
    })
}

struct Comparer<'a> {
    layout: Layout,
    rules: Rules,
    ids: Ids,
    golden: &'a [Step],
    out: Comparison,
}

impl Comparer<'_> {
    fn number_ids(&mut self) {
        for seen in self.golden.iter().flat_map(|s| &s.seen) {
            for id in item(self.layout, 0, 0, &seen.what).masked.ids.into_iter().filter(Id::made_up) {
                let next = self.ids.numbers.len() + 1;
                self.ids.numbers.entry(id).or_insert(next);
            }
        }
    }

    /// Compares what each client saw in these steps.
    fn group(&mut self, golden: &[Step], live: &[Step], first: usize, tolerance: Option<u64>) {
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
            let items = |steps: &[Step]| -> Vec<Item> {
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

    fn sequence(&mut self, peer: &str, expected: &[Item], actual: &[Item], tolerance: Option<u64>) {
        let (mut e, mut a) = (0, 0);
        for (i, j) in common(expected, actual).into_iter().chain([(expected.len(), actual.len())]) {
            self.gap(peer, &expected[e..i], &actual[a..j]);
            if let (Some(expected), Some(actual)) = (expected.get(i), actual.get(j)) {
                self.matched(peer, expected, actual, tolerance);
            }
            (e, a) = (i + 1, j + 1);
        }
    }

    /// Between two frames that match, others may stand that do not.
    fn gap(&mut self, peer: &str, expected: &[Item], actual: &[Item]) {
        for i in 0..expected.len().max(actual.len()) {
            let (kind, step) = match (expected.get(i), actual.get(i)) {
                (Some(e), Some(_)) => (Kind::Changed, e.step),
                (Some(e), None) => (Kind::Missing, e.step),
                (None, Some(a)) if self.was_on_its_way(peer, a.step) => continue,
                (None, Some(a)) => (Kind::Extra, a.step),
                (None, None) => continue,
            };
            let expected = expected.get(i).map(|e| self.ids.expected(&e.masked)).unwrap_or_default();
            let actual = actual.get(i).map(|a| self.ids.actual(&a.masked)).unwrap_or_default();
            self.differs(step, peer, kind, expected, actual);
        }
    }

    /// Two frames that are equal but for their ids.
    fn matched(&mut self, peer: &str, expected: &Item, actual: &Item, tolerance: Option<u64>) {
        let pairs = expected.masked.ids.iter().zip(&actual.masked.ids);
        let ids = &mut self.ids;
        if !pairs.fold(true, |ok, (e, a)| ids.pair(e, a) && ok) {
            let texts = (self.ids.expected(&expected.masked), self.ids.actual(&actual.masked));
            self.differs(expected.step, peer, Kind::Changed, texts.0, texts.1);
        }
        if tolerance.is_some_and(|t| expected.t.abs_diff(actual.t) > t) {
            let what = self.ids.expected(&expected.masked);
            let say = |t: u64| format!("{what} at {t} ms");
            self.differs(expected.step, peer, Kind::Time, say(expected.t), say(actual.t));
        }
    }

    /// Whether a client may have left before it could see this, when the transcript was made. Players take more time.
    fn was_on_its_way(&self, peer: &str, step: usize) -> bool {
        let at = |step: usize| self.golden.get(step).map_or(0, |s| s.t);
        let leaves = self.golden.iter().position(|s| s.peer == peer && s.action.ends());
        self.rules.order != Sequence::Steps
            && leaves.is_some_and(|end| step <= end && at(end).saturating_sub(at(step)) <= ON_ITS_WAY)
    }

    fn differs(&mut self, step: usize, peer: &str, kind: Kind, expected: String, actual: String) {
        let action = self.golden.get(step).map(Step::to_string).unwrap_or_default();
        let peer = peer.to_owned();
        self.out.differences.push(Difference { step: step + 1, action, peer, kind, expected, actual });
    }
}

/// So many comparisons of one frame with another are worth it; beyond, frames are compared in their places.
const WORTH: usize = 4_000_000;

/// The longest common subsequence, as pairs of indices. Frames that differ in ids only count as common.
fn common(expected: &[Item], actual: &[Item]) -> Vec<(usize, usize)> {
    let same = |i: usize, j: usize| expected[i].masked.parts == actual[j].masked.parts;
    let shorter = expected.len().min(actual.len());
    // Mostly, all is equal, and long conversations are no matter.
    let head = (0..shorter).take_while(|i| same(*i, *i)).count();
    let from_end = |i: usize| (expected.len() - 1 - i, actual.len() - 1 - i);
    let tail = (0..shorter - head).map(from_end).take_while(|(i, j)| same(*i, *j)).count();
    let (rows, columns) = (expected.len() - tail, actual.len() - tail);
    let mut pairs: Vec<(usize, usize)> = (0..head).map(|i| (i, i)).collect();
    if (rows - head) * (columns - head) > WORTH {
        pairs.extend((head..rows.min(columns)).filter(|i| same(*i, *i)).map(|i| (i, i)));
    } else {
        pairs.extend(longest(head, rows, columns, same));
    }
    pairs.extend((0..tail).rev().map(from_end));
    pairs
}

fn longest(
    head: usize,
    rows: usize,
    columns: usize,
    same: impl Fn(usize, usize) -> bool,
) -> Vec<(usize, usize)> {
    let mut length = vec![vec![0usize; columns - head + 1]; rows - head + 1];
    for i in (head..rows).rev() {
        for j in (head..columns).rev() {
            let (x, y) = (i - head, j - head);
            length[x][y] = match same(i, j) {
                true => length[x + 1][y + 1] + 1,
                false => length[x + 1][y].max(length[x][y + 1]),
            };
        }
    }
    let (mut pairs, mut i, mut j) = (Vec::new(), head, head);
    while i < rows && j < columns {
        if same(i, j) {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if length[i - head + 1][j - head] >= length[i - head][j - head + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}
