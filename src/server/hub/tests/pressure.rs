//! Peers that send more than is received: they wait, and their recipients do not.

use std::time::{Duration, Instant};

use super::*;
use crate::protocol::model::Reason;

/// Limit of the queues, in bytes. They are full at a quarter of it, which is more than the allowance.
const LIMIT: usize = 1 << 20;

/// Length of a message that fills a queue, in bytes: together with its event.
const LARGE: usize = LIMIT / 4;

fn peer(hub: &Arc<Hub>) -> TestPeer {
    let outbox = Outbox::new(LIMIT);
    TestPeer { membership: hub.register(outbox.clone()), outbox }
}

/// Memory for all queues of a test, in bytes.
const BUDGET: usize = 64 << 20;

/// A room with a member and joiners that are linked to it.
struct Crowd {
    hub: Arc<Hub>,
    member: TestPeer,
    joiners: Vec<TestPeer>,
    links: Vec<LinkId>,
    now: Instant,
}

impl Crowd {
    fn new(joiners: usize, budget: usize) -> Crowd {
        let hub = Arc::new(Hub::with_memory(MemoryBudget::new(budget)));
        let key = RoomKey::from("k");
        let mut member = peer(&hub);
        member.membership.enter(&key, join());
        take(&member.outbox).unwrap();
        let mut crowd = Crowd { hub, member, joiners: Vec::new(), links: Vec::new(), now: Instant::now() };
        for _ in 0..joiners {
            let mut joiner = peer(&crowd.hub);
            joiner.membership.enter(&key, join());
            crowd.links.push(linked(&take(&joiner.outbox).unwrap()));
            crowd.joiners.push(joiner);
        }
        take(&crowd.member.outbox).unwrap();
        crowd
    }

    /// Sends from a joiner to the member, as a connection would: only while it is not paused. Returns true if
    /// it was sent.
    fn up(&mut self, joiner: usize, bytes: usize) -> bool {
        let membership = &mut self.joiners[joiner].membership;
        send(membership, Recipient::Member, bytes, self.now)
    }

    /// Sends from the member to a joiner.
    fn down(&mut self, joiner: usize, bytes: usize) -> bool {
        send(&mut self.member.membership, Recipient::Joiner(self.links[joiner]), bytes, self.now)
    }

    fn advance(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        for peer in self.joiners.iter_mut().chain([&mut self.member]) {
            peer.membership.on_timeout(self.now);
        }
    }
}

fn send(membership: &mut Membership, to: Recipient, bytes: usize, now: Instant) -> bool {
    if membership.is_paused(now) || membership.refusal().is_some() {
        return false;
    }
    membership.count_message(bytes, now);
    membership.command(data(to, bytes));
    true
}

/// Takes all events of a peer, in as many batches as there are.
fn take_all(peer: &TestPeer) -> usize {
    let mut count = 0;
    while let Ok(events) = take(&peer.outbox)
        && !events.is_empty()
    {
        count += events.len();
    }
    count
}

#[test]
fn joiner_that_floods_its_member_waits_until_the_member_has_read() {
    let mut crowd = Crowd::new(2, BUDGET);
    let mut sent = 0;
    while crowd.up(0, 200) {
        sent += 1;
        assert!(sent < 10_000, "the flood is never stopped");
    }
    // However long the member takes, it is not closed, and the other joiner is read.
    crowd.advance(3600);
    assert!(!crowd.up(0, 200));
    assert!(crowd.up(1, 200));
    // Woken, and read again, when the member has read.
    assert_eq!(take(&crowd.joiners[0].outbox), Ok(Vec::new()));
    assert_eq!(take_all(&crowd.member), sent + 1);
    assert!(crowd.up(0, 200));
    assert_eq!(take_all(&crowd.member), 1);
    assert!(crowd.joiners.iter().all(|joiner| joiner.membership.refusal().is_none()));
}

#[test]
fn paused_sender_is_notified_when_the_queue_is_relieved() {
    let mut crowd = Crowd::new(1, BUDGET);
    while crowd.up(0, 200) {}
    let mut context = Context::from_waker(Waker::noop());
    let notified =
        |crowd: &Crowd, context: &mut Context<'_>| crowd.joiners[0].outbox.poll_overflow(context).is_ready();
    assert!(!notified(&crowd, &mut context));
    take_all(&crowd.member);
    assert!(notified(&crowd, &mut context) && !notified(&crowd, &mut context));
    // The same if the member disconnects.
    while crowd.up(0, 200) {}
    assert!(!notified(&crowd, &mut context));
    let Crowd { member, joiners, now, .. } = crowd;
    drop(member);
    let mut joiner = joiners.into_iter().next().unwrap();
    assert!(!joiner.membership.is_paused(now));
    assert!(matches!(take(&joiner.outbox).unwrap()[..], [Event::LinkEnded { .. }]));
}

#[test]
fn paused_sender_may_still_send_heartbeats_and_a_few_messages() {
    let mut crowd = Crowd::new(2, BUDGET);
    assert!(crowd.up(0, LARGE));
    // This one did not fill the queue.
    for _ in 0..60 {
        assert!(crowd.up(1, 8));
    }
    crowd.advance(60);
    assert!((0..10).any(|_| !crowd.up(1, 8)), "the allowance is bounded");
    take_all(&crowd.member);
    assert!(crowd.up(0, 8) && crowd.up(1, 8));
}

#[test]
fn joiner_that_does_not_read_is_closed_and_its_member_goes_on() {
    let mut crowd = Crowd::new(2, BUDGET);
    while crowd.down(0, 200) {}
    crowd.advance(4);
    assert!(!crowd.down(1, 8));
    let deadline = crowd.member.membership.deadline().unwrap();
    assert_eq!(deadline - crowd.now, Duration::from_secs(1));
    crowd.advance(1);
    assert_eq!(take(&crowd.joiners[0].outbox), Err(Overflow));
    assert!(crowd.down(1, 8));
    assert_eq!(take_all(&crowd.joiners[1]), 1);
    assert!(take(&crowd.member.outbox).is_ok() && crowd.member.membership.deadline().is_none());
}

#[test]
fn slow_joiner_is_not_closed_by_its_member() {
    let mut crowd = Crowd::new(1, BUDGET);
    for _ in 0..100 {
        while crowd.down(0, 200) {}
        crowd.advance(4);
        assert!(take_all(&crowd.joiners[0]) > 0);
    }
    assert!(crowd.down(0, 8));
}

#[test]
fn two_that_send_to_each_other_and_do_not_read_are_no_deadlock() {
    let mut crowd = Crowd::new(1, BUDGET);
    loop {
        let (up, down) = (crowd.up(0, 200), crowd.down(0, 200));
        if !up && !down {
            break;
        }
    }
    // What each of them is sent can still be written while it is not read.
    assert!(take_all(&crowd.member) > 0);
    assert!(crowd.up(0, 8));
    while crowd.up(0, 200) {}
    // If neither reads, the joiner is closed, and the member goes on.
    crowd.advance(5);
    assert_eq!(take(&crowd.joiners[0].outbox), Err(Overflow));
    drop(crowd.joiners.pop());
    assert!(!crowd.member.membership.is_paused(crowd.now));
    assert!(take(&crowd.member.outbox).is_ok());
}

#[test]
fn queue_of_a_member_is_bounded_by_closing_the_sender() {
    let mut crowd = Crowd::new(30, BUDGET);
    for joiner in 0..30 {
        crowd.up(joiner, LARGE);
    }
    let refused = |crowd: &Crowd, joiner: usize| crowd.joiners[joiner].membership.refusal().cloned();
    assert_eq!(refused(&crowd, 0), None);
    assert_eq!(refused(&crowd, 29), Some(Reason::ReceiverFull));
    let taken = take_all(&crowd.member);
    assert!((2..=4).contains(&taken), "{taken}");
}

#[test]
fn memory_of_all_queues_is_bounded_by_closing_the_sender() {
    let mut crowd = Crowd::new(1, LARGE * 3 / 2);
    assert!(crowd.up(0, LARGE));
    let memory = Arc::clone(&crowd.hub.memory);
    assert!((LARGE..LARGE * 3 / 2).contains(&memory.used()), "{}", memory.used());
    crowd.up(0, LARGE);
    assert_eq!(crowd.joiners[0].membership.refusal(), Some(&Reason::Overloaded));
    assert_eq!(take_all(&crowd.member), 1);
    assert_eq!(memory.used(), 0);
    // Small queues are not counted, and need no memory of the budget.
    drop(crowd.joiners.pop());
    assert!(crowd.member.membership.refusal().is_none());
    // What a peer leaves behind is given back.
    let mut crowd = Crowd::new(1, BUDGET);
    while crowd.up(0, 200) {}
    let memory = Arc::clone(&crowd.hub.memory);
    assert!(memory.used() > 0);
    drop(crowd);
    assert_eq!(memory.used(), 0);
}

#[test]
fn messages_without_a_recipient_are_not_read_as_fast_as_they_are_sent() {
    let hub = Hub::new();
    let mut alone = peer(&hub);
    let mut now = Instant::now();
    // In no room, in a room without a link, and after the end of the link.
    let mut crowd = Crowd::new(1, BUDGET);
    let mut left = crowd.joiners.pop().unwrap();
    drop(crowd);
    take(&left.outbox).unwrap();
    for sender in [&mut alone, &mut left] {
        for _ in 0..3 {
            let mut sent = 0;
            while send(&mut sender.membership, Recipient::Member, 1000, now) {
                sent += 1;
                assert!(sent < 1000, "the flood is never stopped");
            }
            assert!(sent > 20, "{sent}");
            take_all(sender);
            now += Duration::from_secs(1);
            sender.membership.on_timeout(now);
        }
    }
}

#[test]
fn messages_on_their_way_to_a_peer_that_left_are_read_at_once() {
    let mut crowd = Crowd::new(1, BUDGET);
    while crowd.down(0, 1000) {}
    drop(crowd.joiners.pop());
    take_all(&crowd.member);
    let mut sent = 0;
    while crowd.down(0, 64 * 1024) {
        sent += 1;
        assert!(sent < 1000, "the flood is never stopped");
    }
    assert!(sent > 400, "{sent}");
}

#[test]
fn peer_that_does_not_read_its_answers_is_not_read() {
    let hub = Hub::new();
    let mut first = peer(&hub);
    let key = RoomKey::from("k");
    first.membership.enter(&key, Command::Open(OPEN));
    let now = Instant::now();
    let mut asked = 0;
    while !first.membership.is_paused(now) {
        first.membership.count_message(2, now);
        first.membership.command(Command::BecomeMember);
        asked += 1;
        assert!(asked < 100_000, "the flood is never stopped");
    }
    assert!(take_all(&first) > 0);
    assert!(!first.membership.is_paused(now));
}
