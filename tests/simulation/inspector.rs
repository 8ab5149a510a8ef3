//! A check of every byte that a client receives: payloads name their receiver.

use std::fmt;

use crate::attacker::NOBODY;
use crate::hostile::NAME;
use crate::trace::Trace;

/// Longest mark of a payload, in bytes.
const MAX_MARK: usize = 200;

/// Returns the mark of a payload. `to` is the name of one client, or of a room: then its members are meant.
pub fn mark(from: &str, to: &str, number: u32) -> String {
    format!("[[{from}>{to}#{number}]]")
}

/// A check of what one client receives.
pub struct Inspector {
    name: String,
    trace: Trace,
    /// The end of what was received, in which a mark may have begun.
    tail: Vec<u8>,
}

impl fmt::Debug for Inspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspector").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Inspector {
    /// Returns the check of the client of this name.
    pub fn new(name: &str, trace: &Trace) -> Self {
        Inspector { name: name.to_owned(), trace: trace.clone(), tail: Vec::new() }
    }

    /// Looks at the next bytes.
    pub fn look_at(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        loop {
            let Some(begin) = find(&self.tail, b"[[") else {
                let keep = self.tail.len().saturating_sub(1);
                self.tail.drain(..keep);
                return;
            };
            self.tail.drain(..begin);
            let Some(end) = find(&self.tail, b"]]") else {
                if self.tail.len() > MAX_MARK {
                    self.tail.drain(..2);
                    continue;
                }
                return;
            };
            // What stands before the last opening is not of the mark: clients may send any brackets.
            let begin = self.tail[..end].windows(2).rposition(|two| two == b"[[").unwrap_or(0) + 2;
            let mark = String::from_utf8_lossy(&self.tail[begin..end]).into_owned();
            self.tail.drain(..end);
            self.check(&mark);
        }
    }

    fn check(&self, mark: &str) {
        let Some((from, to)) = mark.split_once('>') else { return };
        let Some((to, _)) = to.rsplit_once('#') else { return };
        self.trace.count_payload();
        let name = self.name.as_str();
        let is_own = name == to || name.starts_with(from);
        let is_member =
            name.strip_prefix(to).is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".member"));
        // Of attackers that met in a room while its member was away.
        let is_among_attackers = [name, from].iter().all(|one| one.starts_with(NAME)) && to != NOBODY;
        if !is_own && !is_member && !is_among_attackers {
            self.trace.violation(name, format_args!("received a payload of others: {mark}"));
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8; 2]) -> Option<usize> {
    bytes.windows(2).position(|two| two == wanted)
}

#[tokio::test(start_paused = true)]
async fn payload_of_others_is_noticed_however_it_arrives() {
    for (name, to, is_fine) in [
        ("room0.1.joiner0", "room0.1.joiner0", true),
        ("room0.1.joiner1", "room0.1.joiner0", false),
        ("room0.2.member", "room0", true),
        ("room0.2.joiner0", "room0", false),
        ("room01.2.member", "room0", false),
        ("hostile0", "nobody", true),
        ("hostile1", "nobody", false),
    ] {
        let text = format!("x[[y[[z>{}", mark("hostile0", to, 7));
        for split in 0..text.len() {
            let trace = Trace::new(false);
            let mut inspector = Inspector::new(name, &trace);
            inspector.look_at(&text.as_bytes()[..split]);
            inspector.look_at(&text.as_bytes()[split..]);
            assert_eq!(trace.violations().is_empty(), is_fine, "{name} {to} {split}");
            assert_eq!(trace.payloads(), 1);
        }
    }
}
