//! The RPCs of an endpoint: a slab of them, and the ids of our own.
//!
//! ```text
//!   client:  Outgoing -> Incoming -> (free)
//!   server:  Incoming -> InService -> Outgoing -> (free)
//! ```
//!
//! Even ids are a client's, odd ones a server's. [`Index`](crate::index::Index) finds an RPC by its id.

use peyk_sansio::Instant;

use crate::incoming::MessageIn;
use crate::outgoing::MessageOut;
use crate::resend::Wait;

/// Where an RPC stands.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// The place is not in use.
    Free,
    /// Our message is under way: the client's request, the server's response.
    Outgoing,
    /// A message comes in: the server's request, the client's response.
    Incoming,
    /// Server only: the application has the request.
    InService,
}

/// One RPC, or the free place of one.
///
/// In the order of use, and at a line of the cache: of an RPC among very many, each line that a packet
/// touches is a miss. What incoming DATA needs comes first.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Rpc {
    /// Our id for it: even at the client.
    pub id: u64,
    pub socket: u32,
    pub peer: u32,
    /// Occupant of the place; old handles do not match.
    pub generation: u32,
    pub local_port: u16,
    pub peer_port: u16,
    pub state: State,
    /// Grants decides about its incoming message.
    pub is_managed: bool,
    /// Its incoming message waits for pool memory.
    pub is_waiting: bool,
    /// It stands in the endpoint's queue of retransmissions.
    pub is_retransmitting: bool,
    /// It stands in its peer's queue for a RESEND.
    pub is_rationed: bool,
    /// Ticks in a row in which nothing new came, but something that showed no progress.
    pub in_vain: u8,
    /// What it has waited for the other side.
    pub wait: Wait,
    /// Tick of the earliest entry of this place in the timer wheel; it outlives the RPC, so that
    /// a burst of short RPCs in one place costs one entry.
    pub timer_at: u64,
    pub input: MessageIn,
    /// The application's cookie (client).
    pub cookie: u64,
    /// When to give up (client); `Instant::MAX` for never.
    pub deadline: Instant,
    /// When it began, as we know: its age ranks both of its messages, for it is the round trip that its client
    /// waits for.
    pub born: Instant,
    pub out: MessageOut,
}

/// No entry in the timer wheel.
pub(crate) const NO_TIMER: u64 = u64::MAX;

impl Rpc {
    /// Whether we are its client.
    #[inline]
    pub fn is_client(&self) -> bool {
        self.id & 1 == 0
    }

    /// Bytes that the message to come lacks; before it begins, as many as our own has.
    pub fn missing(&self) -> u32 {
        match self.state {
            State::Incoming => self.input.length - self.input.received,
            State::Outgoing => self.out.length,
            State::InService | State::Free => 0,
        }
    }

    /// Whether the other side is to send a part of a message. HomaModule: while a request is not
    /// all sent as far as granted, the ball is in our own court.
    pub fn is_owed(&self) -> bool {
        match self.state {
            State::Outgoing => self.is_client() && !self.out.is_sendable(),
            State::Incoming => self.input.is_owed(),
            State::InService | State::Free => false,
        }
    }
}

/// What every new RPC has.
pub(crate) struct NewRpc {
    pub id: u64,
    pub state: State,
    pub socket: u32,
    pub peer: u32,
    pub local_port: u16,
    pub peer_port: u16,
    pub cookie: u64,
    pub deadline: Instant,
    pub born: Instant,
    pub since: u64,
}

/// A slab with generations. Freed places are reused last in, first out, for warm caches.
#[derive(Debug, Default)]
pub(crate) struct Slab {
    slots: Vec<Rpc>,
    free: Vec<u32>,
}

impl Slab {
    /// Takes a place.
    #[inline(always)]
    pub fn insert(&mut self, new: NewRpc) -> u32 {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Rpc {
                    id: 0,
                    generation: 0,
                    state: State::Free,
                    is_managed: false,
                    is_waiting: false,
                    is_retransmitting: false,
                    is_rationed: false,
                    in_vain: 0,
                    socket: 0,
                    peer: 0,
                    local_port: 0,
                    peer_port: 0,
                    cookie: 0,
                    deadline: Instant::MAX,
                    born: Instant::ZERO,
                    wait: Wait::default(),
                    timer_at: NO_TIMER,
                    out: MessageOut::default(),
                    input: MessageIn::default(),
                });
                (self.slots.len() - 1) as u32
            }
        };
        let rpc = &mut self.slots[slot as usize];
        debug_assert!(rpc.state == State::Free && new.state != State::Free);
        rpc.id = new.id;
        rpc.state = new.state;
        rpc.in_vain = 0;
        rpc.socket = new.socket;
        rpc.peer = new.peer;
        rpc.local_port = new.local_port;
        rpc.peer_port = new.peer_port;
        rpc.cookie = new.cookie;
        rpc.deadline = new.deadline;
        rpc.born = new.born;
        rpc.wait = Wait::from(new.since);
        slot
    }

    /// Gives a place back; the memory of its messages goes.
    pub fn remove(&mut self, slot: u32) {
        let rpc = &mut self.slots[slot as usize];
        debug_assert!(!rpc.is_managed && !rpc.is_waiting);
        rpc.state = State::Free;
        rpc.generation = rpc.generation.wrapping_add(1);
        rpc.is_retransmitting = false;
        rpc.is_rationed = false;
        rpc.out.clear();
        rpc.input.clear();
        self.free.push(slot);
    }

    /// The RPC at a place, if it is in use.
    pub fn live(&self, slot: u32) -> Option<&Rpc> {
        self.slots.get(slot as usize).filter(|rpc| rpc.state != State::Free)
    }

    /// Number of RPCs.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Places ever used; every RPC is at a place below.
    pub fn places(&self) -> u32 {
        self.slots.len() as u32
    }
}

impl core::ops::Index<u32> for Slab {
    type Output = Rpc;
    #[inline]
    fn index(&self, slot: u32) -> &Rpc {
        &self.slots[slot as usize]
    }
}

impl core::ops::IndexMut<u32> for Slab {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut Rpc {
        &mut self.slots[slot as usize]
    }
}

/// Whether a request of ours was made after that with the id `other`. Ids of other endpoints, and of others' requests, have
/// no order with ours.
pub(crate) fn is_later(id: u64, other: u64) -> bool {
    let maker = |id: u64| (crate::RpcId(id).shard(), id & 1);
    maker(id) == maker(other) && id > other
}

/// Makes the ids of our requests; the layout is described at [`RpcId`](crate::RpcId).
#[derive(Debug)]
pub(crate) struct Ids {
    /// Epoch and counter, 55 bits.
    next: u64,
    shard: u64,
}

const COUNTER_BITS: u32 = 23;
const SEQUENCE_MASK: u64 = (1 << 55) - 1;

impl Ids {
    /// Ids from a random epoch on.
    pub fn new(random: u64, shard: u8) -> Ids {
        let epoch = (random << COUNTER_BITS) & SEQUENCE_MASK;
        Ids { next: epoch, shard: u64::from(shard) << (COUNTER_BITS + 1) }
    }

    /// A new id, even and not 0.
    #[inline]
    pub fn make(&mut self) -> u64 {
        self.next = (self.next + 1) & SEQUENCE_MASK;
        if self.next == 0 {
            self.next = 1;
        }
        let epoch = self.next >> COUNTER_BITS;
        let counter = self.next & ((1 << COUNTER_BITS) - 1);
        epoch << 32 | self.shard | counter << 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::RpcId;

    #[test]
    fn what_incoming_data_needs_lies_in_three_lines() {
        assert!(core::mem::offset_of!(Rpc, cookie) <= 3 * 64);
        assert!(size_of::<Rpc>() <= 384);
    }

    #[test]
    fn ids_are_even_and_carry_the_shard() {
        let mut ids = Ids::new(0xdead_beef, 0xab);
        let first = ids.make();
        assert_eq!(first, 0xdead_beef_ab00_0002);
        assert_eq!(RpcId(first).shard(), 0xab);
        assert_eq!(ids.make(), first + 2);
    }

    #[test]
    fn the_counter_carries_into_the_epoch() {
        let mut ids = Ids { next: 0x7f_ffff, shard: 3 << 24 };
        assert_eq!(ids.make(), 0x0000_0001_0300_0000);
        let mut ids = Ids { next: SEQUENCE_MASK, shard: 0 };
        assert_eq!(ids.make(), 2);
    }

    fn new_rpc(id: u64) -> NewRpc {
        NewRpc {
            id,
            state: State::Outgoing,
            socket: 0,
            peer: 0,
            local_port: 0x8000,
            peer_port: 99,
            cookie: 0,
            deadline: Instant::MAX,
            born: Instant::ZERO,
            since: 0,
        }
    }

    #[test]
    fn places_are_reused_with_a_new_generation() {
        let mut slab = Slab::default();
        let a = slab.insert(new_rpc(2));
        let b = slab.insert(new_rpc(4));
        let generation = slab[a].generation;
        slab.remove(a);
        assert!(slab.live(a).is_none());
        assert_eq!(slab.insert(new_rpc(6)), a);
        assert_ne!(slab[a].generation, generation);
        assert_eq!((slab.len(), slab.places()), (2, 2));
        assert_eq!(slab[b].id, 4);
    }
}
