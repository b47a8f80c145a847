//! What endpoints have to do because they are several: acks for each other, one table of cutoffs,
//! and shares of what the host has once.

use peyk_sansio::Instant;
use peyk_wire::homa::AckEntry;

use super::Endpoint;
use crate::budget::Share;
use crate::priority::LEVELS;
use crate::steer::shard_of_sender_id;
use crate::transmit::Path;

/// Acks kept for other shards at most; further ones are dropped, and asked for with NEED_ACK.
const STRAYS_MAX: usize = 1024;

/// An ack that came with a packet of this endpoint, for an RPC of another endpoint of the host.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct StrayAck {
    /// The way it came from the client's host; [`Path::local`] is to be replaced by what the owner
    /// calls the same socket.
    pub path: Path,
    /// The shard that owns the RPC.
    pub shard: u8,
    ack: AckEntry,
}

impl Endpoint {
    /// Takes the acks for other endpoints of this host that came in; each must be handed to
    /// [`Endpoint::handle_stray_ack`] of its owner.
    pub fn take_stray_acks(&mut self, mut to: impl FnMut(StrayAck)) {
        self.stray_acks.drain(..).for_each(&mut to);
    }

    /// Takes an ack that another endpoint of this host received.
    pub fn handle_stray_ack(&mut self, now: Instant, stray: StrayAck) {
        if let Some(peer) = self.peers.find(&stray.path)
            && stray.shard == self.config.shard
        {
            self.on_acked(now, &stray.path, peer, stray.ack);
        }
    }

    #[cold]
    pub(super) fn on_stray_ack(&mut self, path: &Path, ack: AckEntry) {
        let shard = shard_of_sender_id(ack.client_id, self.config.shards);
        if shard != self.config.shard && self.stray_acks.len() < STRAYS_MAX {
            self.stray_acks.push(StrayAck { path: *path, shard, ack });
        }
    }

    /// What we tell other hosts about unscheduled priorities: version and table. It is the same
    /// for all endpoints of a host; one of them measures, and the others take it over by
    /// [`Endpoint::adopt_cutoffs`].
    pub fn own_cutoffs(&self) -> (u16, [u32; LEVELS]) {
        (self.cutoffs.version(), *self.cutoffs.table())
    }

    /// Takes the table of another endpoint of this host over.
    pub fn adopt_cutoffs(&mut self, version: u16, table: [u32; LEVELS]) {
        self.cutoffs.adopt(version, table);
        self.grants.set_cutoffs(self.cutoffs.max_sched_prio(), self.cutoffs.table());
    }

    /// Tells what this endpoint may use of what the host has once.
    pub fn set_share(&mut self, share: Share) {
        self.grants.set_share(share.max_incoming);
        self.pacer.set_sharers(share.senders);
        self.is_dirty |= self.grants.wants_poll();
    }

    /// Whether a message waits for grants that another endpoint may be about to leave to us: that
    /// is looked at every tick, for nothing of ours tells of it.
    pub(super) fn waits_for_share(&self) -> bool {
        self.config.shards > 1 && self.grants.shortest_needy().is_some()
    }

    /// Bytes left of the shortest message that waits for a grant.
    pub fn shortest_needy(&self) -> Option<u32> {
        self.grants.shortest_needy()
    }

    /// Whether something of a message waits to be sent.
    pub fn is_sending(&self) -> bool {
        !self.queue.is_empty()
    }
}
