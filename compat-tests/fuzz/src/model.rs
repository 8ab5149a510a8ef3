//! A naive model of a room: lists that are searched from their beginning, without any cache, order or index
//! that has to be kept. It takes ids of links and random choices from the room.

use sigver::protocol::model::{
    Command, Connect, Event, Join, LinkId, LinkMessage, MemberChoice, NetId, Open, PeerId, Reason, Recipient,
    RejoinPolicy, RoomRole, Side, WhenEmpty,
};

/// Number of joins whose members a joiner still receives from, the latest included.
const MAX_RECEIVED_JOINS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Open,
    Join,
    Connect(NetId),
}

/// Identity by which a joiner remembers a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    Net(NetId),
    Peer(PeerId),
}

#[derive(Clone, Copy, Debug)]
struct Member {
    peer: PeerId,
    by: By,
    identity: Identity,
    preferred: bool,
    tentative: bool,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    id: LinkId,
    joiner: PeerId,
    member: PeerId,
    joiner_open: bool,
    member_open: bool,
}

#[derive(Clone, Debug, Default)]
struct Memory {
    joined_via: Option<LinkId>,
    tried: Vec<Identity>,
}

/// Events with their receivers, in order.
pub type Events = Vec<(PeerId, Event)>;

/// The model of one room.
#[derive(Debug, Default)]
pub struct Model {
    /// In order of arrival.
    members: Vec<Member>,
    /// In order of creation.
    links: Vec<Link>,
    /// Peers that are known: members, endpoints, and those with a link that ended.
    memories: Vec<(PeerId, Memory)>,
}

impl Model {
    /// Returns the events that the command of `peer` must lead to. `seen` are those that it led to.
    pub fn apply(&mut self, peer: PeerId, command: Command, seen: &Events) -> Events {
        let mut out = Events::new();
        match command {
            Command::Open(open) => self.open(peer, open, &mut out),
            Command::Join(join) => self.join(peer, join, seen, &mut out),
            Command::Connect(connect) => self.connect(peer, connect, seen, &mut out),
            Command::BecomeMember => {
                let already = self.is_member(peer);
                if !already {
                    self.promote(peer, By::Join, false);
                }
                out.push((peer, Event::BecameMember { already }));
            }
            Command::TryAnother => self.try_another(peer, seen, &mut out),
            Command::RevertAssumption => {
                if let Some(memory) = self.memory_of(peer) {
                    memory.tried.clear();
                    if let Some(link) = memory.joined_via.take() {
                        self.end_link(link, peer, false, &mut out);
                    }
                }
            }
            Command::Unlink => {
                let link = self.memory_of(peer).and_then(|memory| memory.joined_via.take());
                self.links.retain(|other| Some(other.id) != link);
            }
            Command::ReplyOnBehalf { link, message, sender } => {
                if let Some(found) = self.link_of(link).copied() {
                    let side = [(found.member, Side::Member), (found.joiner, Side::Joiner)];
                    let from = side.into_iter().find(|(end, _)| *end == peer);
                    if let Some((_, from)) = from {
                        let to = if from == Side::Member { found.joiner } else { found.member };
                        out.push((to, Event::Relayed { link, side: from.opposite(), message, sender }));
                    }
                }
            }
            Command::Relay { to, message, sender } => {
                if self.is_known(peer) {
                    self.relay(peer, to, message, sender, &mut out);
                }
            }
        }
        self.forget();
        out
    }

    pub fn leave(&mut self, peer: PeerId, normal_closure: bool) -> Events {
        let mut out = Events::new();
        self.remove(peer, normal_closure, &mut out);
        self.forget();
        out
    }

    pub fn drop_membership(&mut self, peer: PeerId) {
        self.members.retain(|member| member.peer != peer);
        self.forget();
    }

    pub fn role(&self, peer: PeerId) -> RoomRole {
        match (self.is_member(peer), self.is_known(peer)) {
            (true, _) => RoomRole::Member,
            (false, true) => RoomRole::Joiner,
            (false, false) => RoomRole::None,
        }
    }

    /// Returns the peers in the room, sorted.
    pub fn peers(&self) -> Vec<PeerId> {
        let mut peers: Vec<_> = self.memories.iter().map(|(peer, _)| *peer).collect();
        peers.sort_by_key(|peer| peer.0);
        peers
    }

    /// Returns the joiner and the member of each link, sorted.
    pub fn links(&self) -> Vec<(PeerId, PeerId)> {
        let mut links: Vec<_> = self.links.iter().map(|link| (link.joiner, link.member)).collect();
        links.sort_by_key(|(joiner, member)| (joiner.0, member.0));
        links
    }

    /// Returns ids of links: for commands that name one.
    pub fn link_ids(&self) -> Vec<LinkId> {
        self.links.iter().map(|link| link.id).collect()
    }

    fn is_member(&self, peer: PeerId) -> bool {
        self.members.iter().any(|member| member.peer == peer)
    }

    fn is_known(&self, peer: PeerId) -> bool {
        self.memories.iter().any(|(known, _)| *known == peer)
    }

    fn memory_of(&mut self, peer: PeerId) -> Option<&mut Memory> {
        self.memories.iter_mut().find(|(known, _)| *known == peer).map(|(_, memory)| memory)
    }

    fn remember(&mut self, peer: PeerId) -> &mut Memory {
        if !self.is_known(peer) {
            self.memories.push((peer, Memory::default()));
        }
        self.memory_of(peer).unwrap()
    }

    fn has_tried(&self, peer: PeerId, identity: Identity) -> bool {
        self.memories.iter().any(|(known, memory)| *known == peer && memory.tried.contains(&identity))
    }

    fn link_of(&self, id: LinkId) -> Option<&Link> {
        self.links.iter().find(|link| link.id == id)
    }

    /// Forgets the peers that are neither members nor endpoints, and have not joined.
    fn forget(&mut self) {
        let Model { members, links, memories } = self;
        memories.retain(|(peer, memory)| {
            members.iter().any(|member| member.peer == *peer)
                || links.iter().any(|link| link.joiner == *peer || link.member == *peer)
                || memory.joined_via.is_some()
        });
    }

    fn all_tentative(&self) -> bool {
        self.members.iter().all(|member| member.tentative)
    }

    /// Returns the members to choose from: confirmed ones, if there are any.
    fn choice(&self) -> Vec<Member> {
        let confirmed: Vec<_> = self.members.iter().filter(|member| !member.tentative).copied().collect();
        if confirmed.is_empty() { self.members.clone() } else { confirmed }
    }

    fn promote(&mut self, peer: PeerId, by: By, preferred: bool) {
        let identity = match by {
            By::Connect(id) => Identity::Net(id),
            By::Open | By::Join => Identity::Peer(peer),
        };
        self.remember(peer);
        match self.members.iter_mut().find(|member| member.peer == peer) {
            Some(member) => {
                let preferred = member.preferred || preferred;
                *member = Member { peer, by, identity, preferred, tentative: false };
            }
            None => self.members.push(Member { peer, by, identity, preferred, tentative: false }),
        }
        if let By::Connect(_) = by {
            self.remember(peer).tried.clear();
        }
    }

    fn open(&mut self, peer: PeerId, open: Open, out: &mut Events) {
        let first = self.all_tentative();
        if open.exclusive && !first {
            return out.push((peer, Event::Refused(Reason::KeyTaken)));
        }
        self.promote(peer, By::Open, false);
        out.push((peer, Event::Admitted { first }));
    }

    fn join(&mut self, peer: PeerId, join: Join, seen: &Events, out: &mut Events) {
        let choice = self.choice();
        let chosen = match join.choice {
            MemberChoice::Oldest => choice.first().copied(),
            MemberChoice::Random => {
                let to = seen.iter().find(|(_, event)| matches!(event, Event::LinkedToJoiner { .. }));
                // Neither receives anything if the link is kept.
                let kept = self.joined_link(peer).map(|link| link.member);
                let to = to.map(|(to, _)| *to).or(kept);
                choice.iter().find(|member| Some(member.peer) == to).or(choice.first()).copied()
            }
        };
        match (chosen, join.when_empty) {
            (Some(member), _) => self.link(peer, member, join.rejoin, seen, out),
            (None, WhenEmpty::Refuse) => out.push((peer, Event::Refused(Reason::KeyUnknown))),
            (None, when_empty) => {
                self.promote(peer, By::Join, false);
                if when_empty == WhenEmpty::BecomeTentativeMember {
                    self.members.iter_mut().for_each(|member| member.tentative = true);
                }
                out.push((peer, Event::Admitted { first: true }));
            }
        }
    }

    fn joined_link(&self, peer: PeerId) -> Option<Link> {
        let (_, memory) = self.memories.iter().find(|(known, _)| *known == peer)?;
        self.link_of(memory.joined_via?).copied()
    }

    fn connect(&mut self, peer: PeerId, connect: Connect, seen: &Events, out: &mut Events) {
        let Connect { net_id, connected_to, preferred, admit_before_unlink } = connect;
        let by = By::Connect(net_id);
        let first = self.members.is_empty();
        if first || self.none_is_usable(peer) {
            self.promote(peer, by, preferred);
            return out.push((peer, Event::Admitted { first }));
        }
        if let [only] = self.members[..]
            && only.peer == peer
        {
            if !matches!(only.by, By::Connect(_)) {
                self.promote(peer, by, preferred);
            }
            return out.push((peer, Event::Admitted { first: false }));
        }
        let claimed = |id: &NetId| self.members.iter().any(|member| member.by == By::Connect(*id));
        let via_nameless = self.joined_link(peer).is_some_and(|link| {
            self.members
                .iter()
                .any(|member| member.peer == link.member && !matches!(member.by, By::Connect(_)))
        });
        if connected_to.iter().any(claimed) || (!connected_to.is_empty() && via_nameless) {
            self.promote(peer, by, preferred);
            return out.push((peer, Event::Admitted { first: false }));
        }
        if let Some(blocker) = self.blocker(peer, by) {
            self.promote(peer, by, preferred);
            return self.replace(peer, blocker, admit_before_unlink, out);
        }
        self.members.retain(|member| member.peer != peer);
        self.link_to_untried(peer, seen, out);
    }

    fn try_another(&mut self, peer: PeerId, seen: &Events, out: &mut Events) {
        let first = self.members.is_empty();
        if first || self.none_is_usable(peer) {
            self.promote(peer, By::Join, false);
            return out.push((peer, Event::Admitted { first }));
        }
        if let Some(blocker) = self.blocker(peer, By::Join) {
            if blocker != peer {
                self.promote(peer, By::Join, false);
            }
            return self.replace(peer, blocker, false, out);
        }
        self.link_to_untried(peer, seen, out);
    }

    /// Returns true if there are tentative members only, and the peer has tried them.
    fn none_is_usable(&self, peer: PeerId) -> bool {
        self.all_tentative() && self.members.iter().all(|member| self.has_tried(peer, member.identity))
    }

    /// Returns the only member, if the peer has tried it and would be admitted in the same way.
    fn blocker(&self, peer: PeerId, by: By) -> Option<PeerId> {
        let [only] = self.members[..] else { return None };
        let alike = std::mem::discriminant(&only.by) == std::mem::discriminant(&by);
        (alike && self.has_tried(peer, only.identity)).then_some(only.peer)
    }

    fn replace(&mut self, peer: PeerId, blocker: PeerId, admit_first: bool, out: &mut Events) {
        if admit_first {
            out.push((peer, Event::Admitted { first: false }));
        }
        self.remove(blocker, false, out);
        out.push((blocker, Event::Evicted(Reason::Replaced)));
        if !admit_first && blocker != peer {
            out.push((peer, Event::Admitted { first: false }));
        }
    }

    fn link_to_untried(&mut self, peer: PeerId, seen: &Events, out: &mut Events) {
        let find = |model: &Model| {
            let preferred = model.members.iter().filter(|member| member.preferred).copied();
            let mut all = preferred.chain(model.choice());
            all.find(|member| !model.has_tried(peer, member.identity))
        };
        let mut found = find(self);
        if found.is_none() {
            if let Some(memory) = self.memory_of(peer) {
                memory.tried.clear();
            }
            found = find(self);
        }
        if let Some(member) = found {
            self.link(peer, member, RejoinPolicy::Replace, seen, out);
        }
    }

    fn link(&mut self, peer: PeerId, member: Member, rejoin: RejoinPolicy, seen: &Events, out: &mut Events) {
        if rejoin == RejoinPolicy::Reuse
            && let Some(link) = self.joined_link(peer)
            && link.member == member.peer
            && link.joiner_open
        {
            return out.push((peer, Event::LinkedToMember { link: link.id }));
        }
        let id = seen.iter().find_map(|(_, event)| match event {
            Event::LinkedToMember { link } => Some(*link),
            _ => None,
        });
        let id = id.unwrap_or(LinkId(0));
        assert!(id.0 > 0, "the peer is linked to no member");
        assert!(self.link_of(id).is_none(), "the id of a link is not new");
        self.links.push(Link { id, joiner: peer, member: member.peer, joiner_open: true, member_open: true });
        let current: Vec<Identity> = self.members.iter().map(|member| member.identity).collect();
        let memory = self.remember(peer);
        let previous = memory.joined_via.replace(id);
        if rejoin == RejoinPolicy::KeepReceiving {
            if let Some(link) = self.links.iter_mut().find(|link| Some(link.id) == previous) {
                link.joiner_open = false;
            }
            self.links.retain(|link| link.joiner_open || link.member_open);
            let mut joined = self.links.iter().filter(|link| link.joiner == peer).map(|link| link.id);
            if let Some(oldest) = joined.next()
                && joined.count() >= MAX_RECEIVED_JOINS
            {
                self.links.retain(|link| link.id != oldest);
            }
        } else {
            // So that it remembers no more than there are members.
            if memory.tried.len() > current.len() {
                memory.tried.retain(|identity| current.contains(identity));
            }
            if !memory.tried.contains(&member.identity) {
                memory.tried.push(member.identity);
            }
            self.links.retain(|link| Some(link.id) != previous);
        }
        out.push((member.peer, Event::LinkedToJoiner { link: id }));
        out.push((peer, Event::LinkedToMember { link: id }));
    }

    /// Removes a peer with its links.
    fn remove(&mut self, peer: PeerId, normal_closure: bool, out: &mut Events) {
        self.members.retain(|member| member.peer != peer);
        self.memories.retain(|(known, _)| *known != peer);
        let links: Vec<_> =
            self.links.iter().filter(|link| link.joiner == peer || link.member == peer).collect();
        for link in links.into_iter().map(|link| link.id).collect::<Vec<_>>() {
            self.end_link(link, peer, normal_closure, out);
        }
    }

    fn end_link(&mut self, id: LinkId, left: PeerId, normal_closure: bool, out: &mut Events) {
        let Some(link) = self.link_of(id).copied() else { return };
        let (open, other, side) = if link.joiner == left {
            (link.joiner_open, link.member, Side::Member)
        } else {
            (link.member_open, link.joiner, Side::Joiner)
        };
        if open && other != left {
            out.push((other, Event::LinkEnded { link: id, side, normal_closure }));
        }
        self.links.retain(|link| link.id != id);
    }

    fn relay(
        &mut self,
        peer: PeerId,
        to: Recipient,
        message: LinkMessage,
        sender: sigver::protocol::model::SenderTag,
        out: &mut Events,
    ) {
        let named = match to {
            Recipient::Joiner(id) | Recipient::JoinerOrMember(id) => Some(id),
            Recipient::Member => None,
        };
        let own = named.filter(|id| self.link_of(*id).is_some_and(|link| link.member == peer));
        let joined_via = self.memory_of(peer).and_then(|memory| memory.joined_via);
        let undeliverable = |reason| (peer, Event::Undeliverable { to, reason });
        let (id, from) = match own {
            Some(id) => (id, Side::Member),
            None => {
                let foreign = match to {
                    Recipient::Joiner(_) => true,
                    // A member names the member it joined through by 0 or 1, or by the link's id.
                    Recipient::JoinerOrMember(id) => {
                        self.is_member(peer) && id.0 > 1 && joined_via != Some(id)
                    }
                    Recipient::Member => false,
                };
                if foreign {
                    return out.push(undeliverable(Reason::UnknownRecipient));
                }
                let Some(id) = joined_via else { return out.push(undeliverable(Reason::NotJoined)) };
                (id, Side::Joiner)
            }
        };
        if from == Side::Member {
            self.members
                .iter_mut()
                .filter(|member| member.peer == peer)
                .for_each(|member| member.tentative = false);
        }
        let Some(link) = self.links.iter_mut().find(|link| link.id == id) else {
            return out.push(undeliverable(Reason::RecipientGone));
        };
        let (receiver, own_open, other_open) = match from {
            Side::Joiner => (link.member, &mut link.joiner_open, &mut link.member_open),
            Side::Member => (link.joiner, &mut link.member_open, &mut link.joiner_open),
        };
        if !*own_open {
            return out.push(undeliverable(Reason::RecipientGone));
        }
        match &message {
            LinkMessage::Empty => {
                return out.push((peer, Event::Refused(Reason::EmptyContent { link: id, from })));
            }
            LinkMessage::Data { last: false, .. } => {}
            LinkMessage::Data { last: true, .. } | LinkMessage::End => *own_open = false,
            LinkMessage::Error { closes_both } => {
                *own_open = false;
                if *closes_both {
                    *other_open = false;
                }
            }
        }
        out.push((receiver, Event::Relayed { link: id, side: from.opposite(), message, sender }));
        self.links.retain(|link| link.joiner_open || link.member_open);
    }
}
