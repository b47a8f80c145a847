//! Packets in: what they are, which socket, peer and RPC they concern, and who may say so.

use peyk_sansio::Instant;
use peyk_wire::homa::{Data, Header, Packet, PacketType, ParseError, UnreachableCode};

use super::output::ControlKind;
use super::{Endpoint, tick_of};
use crate::mutant::is_mutant;
use crate::stats::type_index;
use crate::transmit::{Disposition, Path};

/// Where a packet came from and when, and where it goes.
#[derive(Copy, Clone)]
pub(super) struct Arrival<'a> {
    pub now: Instant,
    pub tick: u64,
    pub path: &'a Path,
    /// The peer at that path, if there is one.
    pub peer: Option<u32>,
    pub socket: u32,
}

/// The result of looking an RPC up.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// It is at this place, and the packet comes from its peer.
    Rpc(u32),
    /// We do not know it.
    Unknown,
    /// We know one of that id, but the packet comes from somebody else, or goes to another
    /// socket. HomaModule does not check this for its client RPCs.
    Foreign,
}

/// Place of the packet type in a packet.
const TYPE_AT: usize = 11;

impl Endpoint {
    /// Takes a packet that came along `path`: everything after the IP header, or the payload of
    /// a UDP datagram.
    pub fn handle_packet(&mut self, now: Instant, path: &Path, data: &[u8]) -> Disposition {
        self.is_dirty = true;
        if data.get(TYPE_AT) == Some(&PacketType::Data.code()) {
            return match Data::parse(data) {
                Ok(data) => self.on_data(now, path, &data),
                Err(error) => self.on_malformed(&error),
            };
        }
        match Packet::parse(data) {
            Ok(packet) => self.on_control(now, path, &packet),
            Err(error) => self.on_malformed(&error),
        }
    }

    fn on_data(&mut self, now: Instant, path: &Path, data: &Data<'_>) -> Disposition {
        self.stats.received[type_index(PacketType::Data)] += 1;
        self.stats.data_bytes_received += data.payload.len() as u64;
        match self.arrive(now, path, &data.header) {
            Err(disposition) => disposition,
            Ok(arrival) if data.header.is_from_client() => self.on_request_data(&arrival, data),
            Ok(arrival) => self.on_response_data(&arrival, data),
        }
    }

    fn on_control(&mut self, now: Instant, path: &Path, packet: &Packet<'_>) -> Disposition {
        self.stats.received[type_index(packet.kind())] += 1;
        if let Packet::Freeze(_) = packet {
            // A debugging aid of HomaModule, which acts on it before it looks for a socket.
            self.stats.freezes_ignored += 1;
            return Disposition::Handled;
        }
        let a = match self.arrive(now, path, packet.header()) {
            Ok(arrival) => arrival,
            Err(disposition) => return disposition,
        };
        match packet {
            Packet::Data(data) if data.header.is_from_client() => self.on_request_data(&a, data),
            Packet::Data(data) => self.on_response_data(&a, data),
            Packet::Grant(grant) => self.on_grant(&a, grant),
            Packet::Resend(resend) => self.on_resend(&a, resend),
            Packet::RpcUnknown(header) => self.on_rpc_unknown(&a, header),
            Packet::Busy(header) => self.on_busy(&a, header),
            Packet::Cutoffs(cutoffs) => self.on_cutoffs(&a, cutoffs),
            Packet::NeedAck(header) => self.on_need_ack(&a, header),
            Packet::Ack(ack) => self.on_ack(&a, ack),
            Packet::Unreachable(unreachable) => self.on_unreachable(&a, unreachable),
            Packet::Freeze(_) => Disposition::Handled,
        }
    }

    /// Finds socket and peer. Packets for no socket are answered here.
    #[inline]
    fn arrive<'a>(
        &mut self,
        now: Instant,
        path: &'a Path,
        header: &Header,
    ) -> Result<Arrival<'a>, Disposition> {
        // Id 0 means "none" in acks.
        if header.sender_id <= 1 {
            self.stats.drop_malformed += 1;
            return Err(Disposition::Dropped);
        }
        let tick = tick_of(now);
        let peer = self.peers.find(path);
        if let Some(peer) = peer {
            self.peers[peer].heard = tick;
        }
        match self.sockets.by_port(header.dport) {
            None => Err(self.on_no_socket(now, path, peer, header, UnreachableCode::NoSocket)),
            Some(socket) if header.is_from_client() && !self.sockets[socket].is_server => {
                Err(self.on_no_socket(now, path, peer, header, UnreachableCode::NotServer))
            }
            Some(socket) => Ok(Arrival { now, tick, path, peer, socket }),
        }
    }

    /// Finds the RPC of a packet, and makes sure that it comes from the RPC's peer.
    #[inline]
    pub(super) fn find(&self, a: &Arrival<'_>, header: &Header) -> Found {
        let id = header.local_id();
        let slot = if id & 1 == 0 {
            self.index.client(id)
        } else {
            a.peer.and_then(|peer| self.index.server(peer, id))
        };
        let Some(slot) = slot else { return Found::Unknown };
        let rpc = &self.rpcs[slot];
        let is_ours = Some(rpc.peer) == a.peer && rpc.peer_port == header.sport && rpc.socket == a.socket;
        let is_ours = is_ours || is_mutant!(self.config, TrustAnybody);
        if is_ours { Found::Rpc(slot) } else { Found::Foreign }
    }

    /// As `find`, for packets that are of no use without an RPC.
    pub(super) fn find_or_drop(&mut self, a: &Arrival<'_>, header: &Header) -> Option<u32> {
        match self.find(a, header) {
            Found::Rpc(slot) => return Some(slot),
            Found::Unknown => self.stats.drop_unknown_rpc += 1,
            Found::Foreign => self.stats.drop_wrong_peer += 1,
        }
        None
    }

    /// Answers a packet that concerns no RPC of ours, at a limited rate.
    pub(super) fn answer_stray(
        &mut self,
        now: Instant,
        path: &Path,
        peer: Option<u32>,
        header: &Header,
        kind: ControlKind,
    ) {
        if self.may_answer_stray(now, peer) {
            self.answer(path, header, kind);
        }
    }

    /// Whether one more packet that concerns no RPC may be answered. Strangers cannot use up what is
    /// for the hosts we have to do with.
    pub(super) fn may_answer_stray(&mut self, now: Instant, peer: Option<u32>) -> bool {
        let limit = if peer.is_some() { &mut self.stray_out } else { &mut self.stranger_out };
        let is_allowed = limit.allow(now);
        self.stats.drop_answer_limit += u64::from(!is_allowed);
        is_allowed
    }

    /// Answers a packet with UNREACHABLE, at a limited rate.
    pub(super) fn answer_unreachable(
        &mut self,
        now: Instant,
        path: &Path,
        header: &Header,
        code: UnreachableCode,
    ) {
        if !self.config.unreachable_packets {
            return;
        }
        if self.unreachable_out.allow(now) {
            self.answer(path, header, ControlKind::Unreachable(code));
        } else {
            self.stats.drop_unreachable_limit += 1;
        }
    }

    #[cold]
    fn on_malformed(&mut self, error: &ParseError) -> Disposition {
        match error {
            ParseError::EmptyMessage | ParseError::MessageTooLong { .. } => {
                self.stats.drop_bad_length += 1;
            }
            ParseError::OutsideMessage { .. } => self.stats.drop_out_of_range += 1,
            _ => self.stats.drop_malformed += 1,
        }
        Disposition::Dropped
    }

    /// A packet for a port that is not there, or not a server. A client learns it from
    /// UNREACHABLE, or ICMP. A server that still holds state for a client socket that is gone is
    /// told to forget it; HomaModule leaves it asking.
    #[cold]
    fn on_no_socket(
        &mut self,
        now: Instant,
        path: &Path,
        peer: Option<u32>,
        header: &Header,
        code: UnreachableCode,
    ) -> Disposition {
        match code {
            UnreachableCode::NotServer => self.stats.drop_not_server += 1,
            _ => self.stats.drop_no_socket += 1,
        }
        match (header.is_from_client(), header.kind) {
            // Only what a client sends that waits for a response.
            (true, PacketType::Data | PacketType::Grant | PacketType::Resend) => {
                self.answer_unreachable(now, path, header, code);
            }
            // Without the acks owed to the peer: they are for its other sockets.
            (false, PacketType::NeedAck) if self.may_answer_stray(now, peer) => {
                self.answer_need_ack(path, None, header);
            }
            (false, PacketType::Resend) => {
                self.answer_stray(now, path, peer, header, ControlKind::RpcUnknown);
            }
            _ => {}
        }
        Disposition::NoSocket
    }
}
