//! Turns of the questions to the program that decides about tokens: a limited number at the same time, shared
//! fairly between the addresses of clients. All addresses of an IPv6 network of 48 bits, which one client may
//! have, are one address here.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::server::address_table::ClientNetwork;

/// Most questions at the same time.
const MAX_RUNNING: usize = 64;
/// Most questions that wait for their turn.
const MAX_WAITING: usize = 1024;

/// The turns. Among the addresses with the fewest questions at the program, the one that has waited longest
/// has the next turn. An address has at most as many as are free, so that some are left for others: half of
/// them if there is one address, a third if there are two with many questions. The last one is for an address
/// that has none.
#[derive(Default)]
pub(super) struct QuestionTurns(Mutex<TurnTable>);

/// Permission to ask, until it is dropped.
pub(super) struct QuestionTurn {
    turns: Arc<QuestionTurns>,
    network: Option<ClientNetwork>,
}

#[derive(Default)]
struct TurnTable {
    running: usize,
    waiting: usize,
    /// Number of questions so far.
    arrivals: u64,
    /// Under `None` are those of clients without a known address.
    addresses: HashMap<Option<ClientNetwork>, AddressTurns>,
}

/// The questions for clients of one address.
#[derive(Default)]
struct AddressTurns {
    running: usize,
    /// Questions that wait, in the order of their arrival.
    waiting: VecDeque<WaitingQuestion>,
}

struct WaitingQuestion {
    arrival: u64,
    sender: oneshot::Sender<QuestionTurn>,
}

impl QuestionTurns {
    /// Waits for a turn of a client from `network`. Returns `None` if too many questions wait.
    pub(super) async fn wait(self: &Arc<Self>, network: Option<ClientNetwork>) -> Option<QuestionTurn> {
        let (sender, receiver) = oneshot::channel();
        let pushed_out = self.0.lock().push(network.map(ClientNetwork::site), sender);
        // Its receiver is woken once the lock is released.
        drop(pushed_out);
        self.give();
        receiver.await.ok()
    }

    /// Gives the turns that are free.
    fn give(self: &Arc<Self>) {
        loop {
            let next = self.0.lock().next();
            let Some((network, question)) = next else { return };
            // A question that no longer waits drops its turn.
            let _ = question.send(QuestionTurn { turns: Arc::clone(self), network });
        }
    }
}

impl Drop for QuestionTurn {
    fn drop(&mut self) {
        self.turns.0.lock().end(self.network);
        self.turns.give();
    }
}

impl TurnTable {
    /// Adds a question. Returns the one that has no place: this one, or the last of the address that has by
    /// far the most.
    fn push(
        &mut self,
        network: Option<ClientNetwork>,
        sender: oneshot::Sender<QuestionTurn>,
    ) -> Option<oneshot::Sender<QuestionTurn>> {
        let mut pushed_out = None;
        if self.waiting >= MAX_WAITING {
            self.forget_ended();
        }
        if self.waiting >= MAX_WAITING {
            let own = self.addresses.get(&network).map_or(0, |turns| turns.waiting.len());
            let longest = self.addresses.values_mut().max_by_key(|turns| turns.waiting.len());
            let Some(longest) = longest.filter(|turns| turns.waiting.len() > own + 1) else {
                return Some(sender);
            };
            pushed_out = longest.waiting.pop_back().map(|question| question.sender);
            self.waiting -= 1;
        }
        self.arrivals += 1;
        let question = WaitingQuestion { arrival: self.arrivals, sender };
        self.addresses.entry(network).or_default().waiting.push_back(question);
        self.waiting += 1;
        pushed_out
    }

    /// Takes the next question that may be asked, and counts it as running.
    fn next(&mut self) -> Option<(Option<ClientNetwork>, oneshot::Sender<QuestionTurn>)> {
        while self.running < MAX_RUNNING {
            let free = MAX_RUNNING - self.running;
            let candidates = self.addresses.iter_mut().filter_map(|(network, turns)| {
                let may_run = network.is_none() || turns.running < free;
                let first = turns.waiting.front().filter(|_| may_run)?.arrival;
                Some(((turns.running, first), *network, turns))
            });
            let (_, network, turns) = candidates.min_by_key(|(order, ..)| *order)?;
            let question = turns.waiting.pop_front()?;
            self.waiting -= 1;
            if !question.sender.is_closed() {
                turns.running += 1;
                self.running += 1;
                return Some((network, question.sender));
            }
            if turns.is_unused() {
                self.addresses.remove(&network);
            }
        }
        None
    }

    /// Records the end of a running question.
    fn end(&mut self, network: Option<ClientNetwork>) {
        self.running -= 1;
        let Some(turns) = self.addresses.get_mut(&network) else { return };
        turns.running -= 1;
        if turns.is_unused() {
            self.addresses.remove(&network);
        }
    }

    /// Forgets the questions that no longer wait.
    fn forget_ended(&mut self) {
        self.addresses.retain(|_, turns| {
            turns.waiting.retain(|question| !question.sender.is_closed());
            !turns.is_unused()
        });
        self.waiting = self.addresses.values().map(|turns| turns.waiting.len()).sum();
    }
}

impl AddressTurns {
    fn is_unused(&self) -> bool {
        self.running == 0 && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn network(number: u32) -> Option<ClientNetwork> {
        Some(ClientNetwork::V4(number))
    }

    /// A question, as its task sees it.
    struct Question(oneshot::Receiver<QuestionTurn>);

    impl Question {
        fn ask(turns: &Arc<QuestionTurns>, network: Option<ClientNetwork>) -> Question {
            let (sender, receiver) = oneshot::channel();
            let _ = turns.0.lock().push(network, sender);
            turns.give();
            Question(receiver)
        }

        /// Returns the turn, if it was given; `Err` if the question was pushed out.
        fn turn(&mut self) -> Result<Option<QuestionTurn>, ()> {
            match self.0.try_recv() {
                Ok(turn) => Ok(Some(turn)),
                Err(oneshot::error::TryRecvError::Empty) => Ok(None),
                Err(oneshot::error::TryRecvError::Closed) => Err(()),
            }
        }
    }

    fn crowd(turns: &Arc<QuestionTurns>, network: Option<ClientNetwork>, size: usize) -> Vec<Question> {
        (0..size).map(|_| Question::ask(turns, network)).collect()
    }

    fn given(crowd: &mut [Question]) -> Vec<QuestionTurn> {
        crowd.iter_mut().filter_map(|question| question.turn().ok()?).collect()
    }

    #[test]
    fn address_with_many_questions_leaves_turns_to_others() {
        let turns = Arc::default();
        let mut attacker = crowd(&turns, network(1), 900);
        let held = given(&mut attacker);
        assert_eq!(held.len(), MAX_RUNNING / 2);
        let mut other = crowd(&turns, network(2), MAX_RUNNING);
        assert_eq!(given(&mut other).len(), MAX_RUNNING / 4);
    }

    #[test]
    fn crowds_of_many_addresses_leave_a_turn_to_a_newcomer() {
        for addresses in 1..MAX_RUNNING as u32 {
            let turns = Arc::default();
            let mut attackers: Vec<_> =
                (0..addresses).map(|number| crowd(&turns, network(number), 2 * MAX_RUNNING)).collect();
            let mut held: Vec<_> = attackers.iter_mut().flat_map(|crowd| given(crowd)).collect();
            // Until the first of them has no more than its share.
            held.clear();
            let held: Vec<_> = attackers.iter_mut().flat_map(|crowd| given(crowd)).collect();
            assert!(held.len() >= MAX_RUNNING / 2 && held.len() < MAX_RUNNING, "{addresses} addresses");
            let mut newcomer = Question::ask(&turns, network(addresses));
            assert!(newcomer.turn().is_ok_and(|turn| turn.is_some()), "{addresses} addresses");
            drop(held);
        }
    }

    #[test]
    fn networks_of_one_site_share_its_turns() {
        let turns: Arc<QuestionTurns> = Arc::default();
        let site = |number: u64| Some(ClientNetwork::V6((0x2001_0db8_0001 << 16) + number));
        let mut context = Context::from_waker(Waker::noop());
        let mut given = Vec::new();
        for number in 0..200 {
            if let Poll::Ready(turn) = pin!(turns.wait(site(number))).poll(&mut context) {
                given.push(turn.unwrap());
            }
        }
        assert_eq!(given.len(), MAX_RUNNING / 2);
        assert!(matches!(pin!(turns.wait(site(1 << 16))).poll(&mut context), Poll::Ready(Some(_))));
    }

    #[test]
    fn next_turn_is_for_the_address_with_the_fewest_questions() {
        let turns = Arc::default();
        // One question of each of 64 addresses, and then eight addresses that have no turn yet.
        let mut all: Vec<_> =
            (0..MAX_RUNNING as u32).map(|number| Question::ask(&turns, network(number))).collect();
        let mut held = given(&mut all);
        assert_eq!(held.len(), MAX_RUNNING);
        let _attackers: Vec<_> = (100..108).map(|number| crowd(&turns, network(number), 90)).collect();
        let mut newcomer = Question::ask(&turns, network(99));
        held.truncate(held.len() - 8);
        assert!(newcomer.turn().is_ok_and(|turn| turn.is_none()));
        held.pop();
        assert!(newcomer.turn().is_ok_and(|turn| turn.is_some()));
    }

    #[test]
    fn addresses_with_one_question_each_have_turns_in_the_order_of_arrival() {
        let turns = Arc::default();
        let mut all: Vec<_> = (0..200).map(|number| Question::ask(&turns, network(number))).collect();
        let mut order = Vec::new();
        while order.len() < all.len() {
            let ready: Vec<_> = (0..all.len()).filter_map(|at| Some((at, all[at].turn().ok()??))).collect();
            order.extend(ready.iter().map(|(at, _)| *at));
        }
        assert!(order.is_sorted());
    }

    #[test]
    fn too_many_waiting_questions_push_out_those_of_the_largest_crowd() {
        let turns: Arc<QuestionTurns> = Arc::default();
        let mut attacker = crowd(&turns, network(1), MAX_RUNNING / 2 + MAX_WAITING);
        // One more of the same crowd has no place, one of another address takes that of its last one.
        assert!(Question::ask(&turns, network(1)).turn().is_err());
        let mut others = crowd(&turns, network(2), MAX_RUNNING);
        let mut last = attacker.split_off(attacker.len() - (MAX_RUNNING - MAX_RUNNING / 4));
        assert!(last.iter_mut().all(|question| question.turn().is_err()));
        assert_eq!(turns.0.lock().waiting, MAX_WAITING);
        assert!(attacker.iter_mut().chain(&mut others).all(|question| question.turn().is_ok()));
    }

    #[test]
    fn questions_that_end_early_leave_nothing() {
        let turns: Arc<QuestionTurns> = Arc::default();
        let mut running = crowd(&turns, None, MAX_RUNNING);
        let held = given(&mut running);
        assert_eq!(held.len(), MAX_RUNNING);
        let mut waits = Box::pin(turns.wait(network(1)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        drop(waits);
        drop(held);
        assert!(matches!(pin!(turns.wait(network(2))).poll(&mut context), Poll::Ready(Some(_))));
        assert!(turns.0.lock().addresses.is_empty());
    }
}
