//! The histories of clients and nodes, and the checks of them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::decisions::Decision;

/// An attempt of one client to join a room.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) room: String,
    pub(crate) node: usize,
    /// Time at which the client connected, since the begin of the run.
    pub(crate) sent: Duration,
    /// Time of the answer, or of the failure.
    pub(crate) answered: Duration,
    pub(crate) outcome: Outcome,
}

/// The outcome of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The first member of the room, with the number of the client.
    First(u64),
    /// Linked to the first member with that number, which has answered.
    Linked(u64),
    /// Linked to a member that left before it could answer.
    Left,
    /// The client gave up, or its connection was closed.
    Failed(String),
}

impl Attempt {
    /// Returns the first member in whose life of the room the attempt was decided.
    pub(crate) fn life(&self) -> Option<u64> {
        match self.outcome {
            Outcome::First(first) | Outcome::Linked(first) => Some(first),
            Outcome::Left | Outcome::Failed(_) => None,
        }
    }

    /// Returns the cause of a failure.
    pub(crate) fn failure(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Failed(text) => Some(text),
            Outcome::First(_) | Outcome::Linked(_) | Outcome::Left => None,
        }
    }
}

/// Returns the pairs of first members of one room that were both first at some time, whatever the times in
/// which answers were on their way: each decided about attempts before and after one that the other decided.
pub(crate) fn double_firsts(attempts: &[Attempt]) -> Vec<(String, u64, u64)> {
    // From the first answer to the last request of its life, a first member was first for certain.
    let mut lives: BTreeMap<(&str, u64), (Duration, Duration)> = BTreeMap::new();
    for attempt in attempts {
        let Some(first) = attempt.life() else { continue };
        let (from, to) =
            lives.entry((attempt.room.as_str(), first)).or_insert((attempt.answered, attempt.sent));
        (*from, *to) = ((*from).min(attempt.answered), (*to).max(attempt.sent));
    }
    let mut rooms: BTreeMap<&str, Vec<(Duration, Duration, u64)>> = BTreeMap::new();
    for ((room, first), (from, to)) in lives.into_iter().filter(|(_, (from, to))| from < to) {
        rooms.entry(room).or_default().push((from, to, first));
    }
    let mut found = Vec::new();
    for (room, mut lives) in rooms {
        lives.sort_unstable();
        let pairs = lives.windows(2).filter(|pair| pair[0].1 > pair[1].0);
        found.extend(pairs.map(|pair| (room.to_owned(), pair[0].2, pair[1].2)));
    }
    found
}

/// The decisions of the nodes about rooms, by claim.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    /// First and last decision of each claim, and its node.
    rooms: BTreeMap<String, Vec<(u64, u64, String, usize)>>,
}

impl Lives {
    /// Collects the decisions of each process.
    pub(crate) fn new(processes: &[(usize, Vec<Decision>)]) -> Lives {
        let mut claims: BTreeMap<(&str, &str), (u64, u64, usize)> = BTreeMap::new();
        for (node, decisions) in processes {
            for Decision { at, room, claim } in decisions {
                let span = claims.entry((room.as_str(), claim.as_str())).or_insert((*at, *at, *node));
                (span.0, span.1) = (span.0.min(*at), span.1.max(*at));
            }
        }
        let mut lives = Lives::default();
        for ((room, claim), (from, to, node)) in claims {
            lives.rooms.entry(room.to_owned()).or_default().push((from, to, claim.to_owned(), node));
        }
        lives.rooms.values_mut().for_each(|claims| claims.sort_unstable());
        lives
    }

    /// Returns the number of claims that decided about a room.
    pub(crate) fn count(&self) -> usize {
        self.rooms.values().map(Vec::len).sum()
    }

    /// Returns the claims to one room that decided in turns, and not one after the other.
    pub(crate) fn conflicts(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (room, claims) in &self.rooms {
            // The earlier may last beyond the next one.
            let mut last: Option<&(u64, u64, String, usize)> = None;
            for claim in claims {
                if let Some(last) = last.filter(|last| last.1 > claim.0) {
                    found.push(format!("{room}: {last:?} and {claim:?}"));
                }
                if last.is_none_or(|last| last.1 < claim.1) {
                    last = Some(claim);
                }
            }
        }
        found
    }

    /// Returns the node that decided about a room last before a time.
    pub(crate) fn owner(&self, room: &str, before: u64) -> Option<usize> {
        let claims = self.rooms.get(room)?;
        claims.iter().rev().find(|(from, ..)| *from < before).map(|(.., node)| *node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(sent: u64, answered: u64, outcome: Outcome) -> Attempt {
        let time = Duration::from_millis;
        Attempt { room: "r".to_owned(), node: 0, sent: time(sent), answered: time(answered), outcome }
    }

    #[test]
    fn first_members_one_after_the_other_are_no_double_firsts() {
        let mut attempts = vec![
            attempt(0, 10, Outcome::First(1)),
            attempt(20, 30, Outcome::Linked(1)),
            attempt(25, 40, Outcome::First(2)),
            attempt(50, 60, Outcome::Linked(2)),
            // It was on its way for long: no proof.
            attempt(22, 90, Outcome::Linked(1)),
        ];
        assert_eq!(double_firsts(&attempts), []);
        attempts.push(attempt(55, 65, Outcome::Linked(1)));
        assert_eq!(double_firsts(&attempts), [("r".to_owned(), 1, 2)]);
    }

    #[test]
    fn claims_in_turns_are_conflicts() {
        let decision = |at, claim: &str| Decision { at, room: "r".to_owned(), claim: claim.to_owned() };
        let (a, mut b) = (vec![decision(1, "a.1"), decision(5, "a.1")], vec![decision(5, "b.1")]);
        let lives = Lives::new(&[(0, a.clone()), (1, b.clone())]);
        assert_eq!((lives.conflicts().len(), lives.count()), (0, 2));
        assert_eq!((lives.owner("r", 5), lives.owner("r", 6)), (Some(0), Some(1)));
        b.push(decision(3, "b.1"));
        assert_eq!(Lives::new(&[(0, a), (1, b)]).conflicts().len(), 1);
    }
}
