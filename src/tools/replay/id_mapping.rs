//! The one-to-one mapping of server-generated ids between two transcripts, and their names in reports.

use std::collections::HashMap;

use super::ids::{Id, MaskedFrame};

/// The mapping of the ids of one transcript to those of the other.
#[derive(Default)]
pub(super) struct IdMapping {
    numbers: HashMap<Id, usize>,
    live: HashMap<Id, Id>,
    expected: HashMap<Id, Id>,
}

impl IdMapping {
    /// Numbers an id of the expected transcript, in order of first appearance.
    pub(super) fn number(&mut self, id: Id) {
        let next = self.numbers.len() + 1;
        self.numbers.entry(id).or_insert(next);
    }

    /// Maps `expected` to `live`, which are in a text frame if `json`. Returns false if one of them is mapped
    /// to another id.
    pub(super) fn pair(&mut self, expected: &Id, live: &Id, json: bool) -> bool {
        if !expected.is_server_generated() {
            return expected == live;
        }
        live.is_substitute_for(expected, json)
            && self.live.entry(expected.clone()).or_insert_with(|| live.clone()) == live
            && self.expected.entry(live.clone()).or_insert_with(|| expected.clone()) == expected
    }

    pub(super) fn name(&self, id: &Id) -> String {
        self.numbers.get(id).map_or_else(|| id.to_string(), |n| format!("#{n}"))
    }

    pub(super) fn expected(&self, masked: &MaskedFrame) -> String {
        masked.render(|id| self.name(id))
    }

    pub(super) fn actual(&self, masked: &MaskedFrame) -> String {
        masked.render(|id| self.live_name(id))
    }

    pub(super) fn live_name(&self, id: &Id) -> String {
        match (self.expected.get(id), id.is_server_generated()) {
            (Some(expected), _) => self.name(expected),
            (None, true) => format!("#?{id}"),
            (None, false) => id.to_string(),
        }
    }
}
