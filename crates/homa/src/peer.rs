//! The other hosts, and what we keep about each: cutoffs, acks owed, when last heard of.
//!
//! A peer is a path: an address (and UDP port) reached through one of our carriage sockets. Peers
//! come into being for requests only, ours or such as a socket of ours takes. Their number is
//! bounded; idle ones without RPCs give way, found by a clock hand that looks at a few at a time.

use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::ack::PendingAcks;
use crate::config::{Config, MAX_MTU, MIN_MTU, TICK};
use crate::priority::PeerCutoffs;
use crate::resend::{Budget, Lateness};
use crate::transmit::Path;

/// IP, UDP and Homa DATA headers.
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
const UDP_HEADER: u32 = 8;
const DATA_HEADER: u32 = peyk_wire::homa::DATA_HEADER_LEN as u32;

/// Peers looked at, at most, to find one that may go.
const EVICT_SCAN: usize = 32;
/// Most hosts with an MTU of their own.
const MAX_MTUS: usize = 65_536;

/// Another host.
#[derive(Debug)]
pub(crate) struct Peer {
    pub path: Path,
    is_used: bool,
    pub cutoffs: PeerCutoffs,
    pub acks: PendingAcks,
    /// RPCs with it.
    pub rpcs: u32,
    /// Bytes of requests to it, and of replies.
    pub request_bytes: u64,
    pub reply_bytes: u64,
    /// Pool memory for messages from it that are not complete, in bytes of these messages.
    pub incoming_bytes: u64,
    /// Tick of the last packet from it, or of its making.
    pub heard: u64,
    /// Tick of the last CUTOFFS to it.
    pub cutoffs_sent: u64,
    /// RESENDs that timers may send to it.
    pub resends: Budget,
    /// NEED_ACKs that timers may send to it.
    pub need_acks: Budget,
    /// How late it is.
    pub lateness: Lateness,
    /// RPCs to whose RESENDs there was no budget, with their generations, oldest first.
    pub rationed: VecDeque<(u32, u32)>,
    /// Payload bytes of a full DATA packet to it.
    pub segment: u32,
}

/// A path as a hashable value: IPv4 as v4-mapped.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
struct Key {
    address: u128,
    /// UDP port, local carriage, scope of a link-local address.
    rest: u64,
}

/// All peers.
#[derive(Debug)]
pub(crate) struct Peers {
    slots: Vec<Peer>,
    free: Vec<u32>,
    index: HashMap<Key, u32, FixedState>,
    /// Packets of one host come in bursts.
    last: Option<(Path, u32)>,
    mtus: HashMap<IpAddr, u32, FixedState>,
    hand: u32,
    mtu: u32,
    num_priorities: u8,
    resend_burst: u32,
    max: usize,
    gc_threshold: usize,
    idle_ticks: u64,
}

impl Peers {
    pub fn new(config: &Config, seed: u64) -> Peers {
        let state = FixedState::with_seed(seed);
        // With a peer goes the record of its finished requests: not before its time.
        let idle = config.peer_idle_min.max(crate::endpoint::retention(config));
        Peers {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashMap::with_hasher(state.clone()),
            last: None,
            mtus: HashMap::with_hasher(state),
            hand: 0,
            mtu: config.mtu,
            num_priorities: config.num_priorities,
            resend_burst: config.resend_burst,
            max: config.max_peers as usize,
            gc_threshold: config.peer_gc_threshold as usize,
            idle_ticks: (idle.as_nanos() / TICK.as_nanos()) as u64,
        }
    }

    /// The peer at a path.
    #[inline]
    pub fn find(&mut self, path: &Path) -> Option<u32> {
        if let Some((last, peer)) = &self.last
            && last == path
        {
            return Some(*peer);
        }
        let peer = *self.index.get(&key(path))?;
        self.last = Some((*path, peer));
        Some(peer)
    }

    /// Makes a peer for a path that has none. `None` if there is no room; the index of a peer
    /// that had to go comes second.
    pub fn create(&mut self, path: &Path, tick: u64) -> Option<(u32, Option<u32>)> {
        let evicted = if self.len() < self.max { None } else { Some(self.evict(tick)?) };
        let path = normalized(path);
        let new = Peer {
            path,
            is_used: true,
            cutoffs: PeerCutoffs::initial(self.num_priorities),
            acks: PendingAcks::default(),
            rpcs: 0,
            request_bytes: 0,
            reply_bytes: 0,
            incoming_bytes: 0,
            heard: tick,
            cutoffs_sent: u64::MAX,
            resends: Budget::new(self.resend_burst, tick),
            need_acks: Budget::new(self.resend_burst, tick),
            lateness: Lateness::default(),
            rationed: VecDeque::new(),
            segment: segment(self.mtu_of(path.remote.ip()), &path),
        };
        let peer = match self.free.pop() {
            Some(peer) => {
                self.slots[peer as usize] = new;
                peer
            }
            None => {
                self.slots.push(new);
                (self.slots.len() - 1) as u32
            }
        };
        self.index.insert(key(&path), peer);
        Some((peer, evicted))
    }

    /// Forgets one idle peer if there are many; returns it. To be called now and then.
    pub fn collect(&mut self, tick: u64) -> Option<u32> {
        if self.len() < self.gc_threshold { None } else { self.evict(tick) }
    }

    /// Sets the size of the largest IP packet to a host. Messages under way keep their segments.
    /// False if the size is useless, or too many hosts have one of their own.
    pub fn set_mtu(&mut self, ip: IpAddr, mtu: u32) -> bool {
        let ip = ip.to_canonical();
        let is_known = self.mtus.contains_key(&ip);
        if !(MIN_MTU..=MAX_MTU).contains(&mtu) || (!is_known && self.mtus.len() >= MAX_MTUS) {
            return false;
        }
        self.mtus.insert(ip, mtu);
        for peer in self.slots.iter_mut().filter(|p| p.is_used && p.path.remote.ip() == ip) {
            peer.segment = segment(mtu, &peer.path);
        }
        true
    }

    /// The peers in use, in the order of their places.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Peer)> {
        self.slots.iter_mut().enumerate().filter(|(_, p)| p.is_used).map(|(i, p)| (i as u32, p))
    }

    /// Number of peers.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn mtu_of(&self, ip: IpAddr) -> u32 {
        self.mtus.get(&ip).copied().unwrap_or(self.mtu)
    }

    /// Frees one peer without RPCs that has been idle for long enough, if the hand meets one.
    fn evict(&mut self, tick: u64) -> Option<u32> {
        for _ in 0..EVICT_SCAN.min(self.slots.len()) {
            let at = self.hand;
            self.hand = (at + 1) % self.slots.len() as u32;
            let peer = &mut self.slots[at as usize];
            if peer.is_used && peer.rpcs == 0 && tick - peer.heard.min(tick) >= self.idle_ticks {
                peer.is_used = false;
                peer.acks.clear();
                self.index.remove(&key(&peer.path));
                self.free.push(at);
                self.last = None;
                return Some(at);
            }
        }
        None
    }
}

impl core::ops::Index<u32> for Peers {
    type Output = Peer;
    #[inline]
    fn index(&self, peer: u32) -> &Peer {
        &self.slots[peer as usize]
    }
}

impl core::ops::IndexMut<u32> for Peers {
    #[inline]
    fn index_mut(&mut self, peer: u32) -> &mut Peer {
        &mut self.slots[peer as usize]
    }
}

/// An address as peers have it: v4-mapped addresses are IPv4, and there is no flow label.
pub(crate) fn normalized_address(address: SocketAddr) -> SocketAddr {
    match (address.ip().to_canonical(), address) {
        (IpAddr::V6(_), SocketAddr::V6(mut v6)) => {
            v6.set_flowinfo(0);
            SocketAddr::V6(v6)
        }
        (ip, _) => SocketAddr::new(ip, address.port()),
    }
}

fn normalized(path: &Path) -> Path {
    Path { remote: normalized_address(path.remote), local: path.local }
}

fn key(path: &Path) -> Key {
    let (address, scope) = match path.remote {
        SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
        SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
    };
    let rest = u64::from(scope) << 32 | u64::from(path.remote.port()) << 16 | u64::from(path.local);
    Key { address: u128::from(address), rest }
}

/// Payload bytes of a full DATA packet on a path. The IP version follows the peer's address.
fn segment(mtu: u32, path: &Path) -> u32 {
    let ip = if path.remote.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
    let udp = if path.remote.port() == 0 { 0 } else { UDP_HEADER };
    mtu - ip - udp - DATA_HEADER
}

#[cfg(test)]
mod tests;
