//! Questions that have no answer yet, by the digests of their tokens. Clients with the same token wait for
//! one answer. Each of their addresses has a turn of its own to wait for, and the first that has it asks: one
//! that waits for long, or has a pause, delays no client of another address.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::Answer;
use crate::server::address_table::ClientNetwork;
use crate::server::auth::AuthRefusal;
use crate::server::auth::token_file::TokenDigest;

/// Most addresses that wait for a turn to ask one question. Clients of others wait for the answer only.
const MAX_ATTEMPTS: usize = 16;

/// The answer to a question, once there is one. Closed without it if no address had a turn.
pub(super) type AnswerReceiver = watch::Receiver<Option<Answer>>;

/// The refusal of the clients of one address, once it is known that this address does not ask.
pub(super) type RefusalReceiver = watch::Receiver<Option<AuthRefusal>>;

/// Way of the refusal to the clients of one address.
pub(super) type RefusalSender = watch::Sender<Option<AuthRefusal>>;

/// Identity of a question: a later one about the same token is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QuestionId {
    digest: TokenDigest,
    number: u64,
}

impl QuestionId {
    pub(super) fn digest(self) -> TokenDigest {
        self.digest
    }
}

/// The questions that are open.
#[derive(Default)]
pub(super) struct OpenQuestions {
    questions: HashMap<TokenDigest, OpenQuestion>,
    /// Number of questions so far.
    count: u64,
}

struct OpenQuestion {
    number: u64,
    is_asked: bool,
    answer: Arc<watch::Sender<Option<Answer>>>,
    /// The addresses that wait for a turn to ask it.
    attempts: HashMap<Option<ClientNetwork>, RefusalReceiver>,
}

/// A client's end of a question.
pub(super) struct WaitingClient {
    pub(super) answer: AnswerReceiver,
    /// `None` if no turn of the client's address is waited for.
    pub(super) refusal: Option<RefusalReceiver>,
}

impl OpenQuestions {
    /// Returns the end of a client that waits with others. `None` if its address has to ask for a turn; one
    /// that may not does not.
    pub(super) fn join(
        &self,
        digest: &TokenDigest,
        network: Option<ClientNetwork>,
        may_ask: bool,
    ) -> Option<WaitingClient> {
        let question = self.questions.get(digest)?;
        let answer = question.answer.subscribe();
        if question.is_asked || !may_ask {
            return Some(WaitingClient { answer, refusal: None });
        }
        // An error means that the task of the attempt has ended without a result, as after a panic.
        let lasts = |attempt: &&RefusalReceiver| attempt.has_changed().is_ok();
        let refusal = question.attempts.get(&network).filter(lasts).cloned();
        let is_full = question.attempts.values().filter(lasts).count() >= MAX_ATTEMPTS;
        (refusal.is_some() || is_full).then_some(WaitingClient { answer, refusal })
    }

    /// Adds an address that waits for a turn to ask about a token.
    pub(super) fn add(
        &mut self,
        digest: TokenDigest,
        network: Option<ClientNetwork>,
    ) -> (QuestionId, WaitingClient, RefusalSender) {
        let (sender, refusal) = watch::channel(None);
        let question = self.questions.entry(digest).or_insert_with(|| {
            self.count += 1;
            OpenQuestion {
                number: self.count,
                is_asked: false,
                answer: Arc::new(watch::channel(None).0),
                attempts: HashMap::new(),
            }
        });
        question.attempts.insert(network, refusal.clone());
        let client = WaitingClient { answer: question.answer.subscribe(), refusal: Some(refusal) };
        (QuestionId { digest, number: question.number }, client, sender)
    }

    /// Returns true if a question has no answer, and no address asks it.
    pub(super) fn is_unasked(&mut self, id: QuestionId) -> bool {
        self.get(id).is_some_and(|question| !question.is_asked)
    }

    /// Records that a question is asked. Returns the sender of the answer; `None` if the question has ended.
    pub(super) fn ask(&mut self, id: QuestionId) -> Option<Arc<watch::Sender<Option<Answer>>>> {
        let question = self.get(id)?;
        question.is_asked = true;
        Some(Arc::clone(&question.answer))
    }

    /// Records that an address does not ask. The question ends with the last of them.
    pub(super) fn give_up(&mut self, id: QuestionId, network: Option<ClientNetwork>) {
        let Some(question) = self.get(id) else { return };
        question.attempts.remove(&network);
        if question.attempts.is_empty() && !question.is_asked {
            self.end(id);
        }
    }

    /// Ends a question, for which no client waits from now on.
    pub(super) fn end(&mut self, id: QuestionId) {
        if self.get(id).is_some() {
            self.questions.remove(&id.digest);
        }
    }

    fn get(&mut self, id: QuestionId) -> Option<&mut OpenQuestion> {
        self.questions.get_mut(&id.digest).filter(|question| question.number == id.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: TokenDigest = [7; 32];

    fn network(number: u32) -> Option<ClientNetwork> {
        Some(ClientNetwork::V4(number))
    }

    #[test]
    fn each_address_has_a_turn_to_wait_for_up_to_a_limit() {
        let mut open = OpenQuestions::default();
        assert!(open.join(&TOKEN, network(0), true).is_none());
        let mut attempts = Vec::new();
        for number in 0..MAX_ATTEMPTS as u32 {
            assert!(open.join(&TOKEN, network(number), true).is_none());
            attempts.push(open.add(TOKEN, network(number)));
            // Another client of the address waits with the first one, and one that may not ask does not.
            assert!(open.join(&TOKEN, network(number), true).unwrap().refusal.is_some());
            assert!(open.join(&TOKEN, network(999), false).unwrap().refusal.is_none());
        }
        assert!(attempts.iter().all(|(id, ..)| *id == attempts[0].0));
        assert!(open.join(&TOKEN, network(999), true).unwrap().refusal.is_none());
    }

    #[test]
    fn question_is_asked_once_and_ends_for_all() {
        let mut open = OpenQuestions::default();
        let (id, first, _sender) = open.add(TOKEN, network(1));
        open.add(TOKEN, network(2));
        assert!(open.is_unasked(id));
        let answer = open.ask(id).unwrap();
        assert!(!open.is_unasked(id));
        // One that is there later needs no turn.
        assert!(open.join(&TOKEN, network(3), true).unwrap().refusal.is_none());
        // It goes on without the other one.
        open.give_up(id, network(2));
        answer.send_replace(Some(Err(AuthRefusal::InvalidToken)));
        open.end(id);
        assert!(first.answer.borrow().is_some());
        // What follows is another question.
        let (next, ..) = open.add(TOKEN, network(1));
        assert_ne!(next, id);
        open.end(id);
        open.give_up(id, network(1));
        assert!(open.is_unasked(next) && open.ask(id).is_none());
    }

    #[test]
    fn question_that_no_address_asks_ends() {
        let mut open = OpenQuestions::default();
        let (id, client, _first) = open.add(TOKEN, network(1));
        open.add(TOKEN, network(2));
        open.give_up(id, network(1));
        assert!(open.is_unasked(id) && client.answer.has_changed().is_ok());
        open.give_up(id, network(2));
        assert!(!open.is_unasked(id) && client.answer.has_changed().is_err());
    }
}
