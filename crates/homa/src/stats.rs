//! Counters: one per kind of packet, per reason to drop one, and per outcome.
//!
//! They only grow and are plain integers: an endpoint belongs to one thread.

use peyk_wire::homa::PacketType;

/// Number of slots in the counters by packet type: nine types of Homa and UNREACHABLE.
pub const PACKET_TYPES: usize = 10;

/// Index of a packet type in [`Stats::sent`] and [`Stats::received`]: DATA, GRANT, RESEND,
/// RPC_UNKNOWN, BUSY, CUTOFFS, FREEZE, NEED_ACK, ACK, UNREACHABLE.
pub const fn type_index(kind: PacketType) -> usize {
    match kind {
        PacketType::Data => 0,
        PacketType::Grant => 1,
        PacketType::Resend => 2,
        PacketType::RpcUnknown => 3,
        PacketType::Busy => 4,
        PacketType::Cutoffs => 5,
        PacketType::Freeze => 6,
        PacketType::NeedAck => 7,
        PacketType::Ack => 8,
        PacketType::Unreachable => 9,
    }
}

/// Names of the packet types by [`type_index`].
pub const TYPE_NAMES: [&str; PACKET_TYPES] =
    ["DATA", "GRANT", "RESEND", "RPC_UNKNOWN", "BUSY", "CUTOFFS", "FREEZE", "NEED_ACK", "ACK", "UNREACHABLE"];

macro_rules! counters {
    ($( $(#[doc = $doc:literal])+ $name:ident, )*) => {
        /// Counters of an endpoint since it was made.
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        #[non_exhaustive]
        pub struct Stats {
            /// Packets handed out for sending, by [`type_index`].
            pub sent: [u64; PACKET_TYPES],
            /// Well-formed packets received, by [`type_index`].
            pub received: [u64; PACKET_TYPES],
            /// DATA packets sent at each priority.
            pub data_sent_at: [u64; 8],
            $( $(#[doc = $doc])+ pub $name: u64, )*
        }

        impl Stats {
            /// Adds the counters of another endpoint of the same host.
            pub fn add(&mut self, other: &Stats) {
                let arrays = [(&mut self.sent[..], &other.sent[..]), (&mut self.received, &other.received)];
                for (own, others) in arrays.into_iter().chain([(&mut self.data_sent_at[..], &other.data_sent_at[..])]) {
                    own.iter_mut().zip(others).for_each(|(own, other)| *own += other);
                }
                $( self.$name += other.$name; )*
            }

            /// Every single counter with its name, in the order of declaration; the arrays
            /// [`sent`](Stats::sent), [`received`](Stats::received) and
            /// [`data_sent_at`](Stats::data_sent_at) are not among them.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$( (stringify!($name), self.$name), )*].into_iter()
            }
        }
    };
}

counters! {
    /// Requests accepted from the application.
    requests_sent,
    /// Replies accepted from the application.
    replies_sent,
    /// Requests handed to the application.
    requests_received,
    /// Responses handed to the application.
    responses_received,
    /// Message bytes accepted from the application.
    message_bytes_sent,
    /// Message bytes handed to the application.
    message_bytes_received,
    /// Payload bytes in DATA packets sent, retransmissions included.
    data_bytes_sent,
    /// Payload bytes in DATA packets received, duplicates included.
    data_bytes_received,
    /// Original DATA packets sent.
    data_originals,
    /// DATA packets retransmitted.
    data_retransmitted,
    /// Times that a timer found an RPC silent and asked for what is missing.
    timer_resends,
    /// Times that a timer found an RPC silent, but its peer had been sent enough RESENDs.
    resends_rationed,
    /// NEED_ACKs that were due, but their peer had been sent enough of them.
    need_acks_rationed,
    /// RESENDs answered BUSY because what they ask for had been sent a moment ago.
    resends_premature,
    /// RPCs of ours that ended with a timeout.
    rpc_timeouts,
    /// RPCs of ours that failed for any reason, timeouts included.
    rpc_failures,
    /// RPCs of ours that the application aborted.
    rpc_aborts,
    /// Requests that were given up before they were complete, for silence of the client.
    server_timeouts,
    /// Answered requests forgotten because their client was silent for too long.
    server_silences,
    /// Requests that their client gave up while the application was serving them.
    server_cancelled,
    /// Requests that the application refused.
    server_rejected,
    /// Answered requests whose client acknowledged the response.
    server_acked,
    /// Messages that had to wait for pool memory.
    memory_waits,
    /// Sends refused because a limit was reached.
    send_full,
    /// Peers made.
    peers_created,
    /// Idle peers forgotten.
    peers_evicted,
    /// Reports of unreachability from the network that were acted upon.
    unreachable_reports,
    /// FREEZE packets ignored.
    freezes_ignored,
    /// Packets dropped: too short, unknown type, or otherwise not a Homa packet.
    drop_malformed,
    /// Packets dropped: no socket has the destination port.
    drop_no_socket,
    /// Packets dropped: a request for a socket that is not a server.
    drop_not_server,
    /// Packets dropped: for an RPC that we do not know.
    drop_unknown_rpc,
    /// Packets dropped: source address or port is not the RPC's peer.
    drop_wrong_peer,
    /// Packets dropped: the type does not fit our role or the state of the RPC.
    drop_wrong_role,
    /// DATA dropped: message of no bytes or longer than `max_message`.
    drop_bad_length,
    /// DATA dropped: beyond the end of its message.
    drop_out_of_range,
    /// DATA dropped: message length differs from that of the first packet.
    drop_length_changed,
    /// DATA dropped: all of its bytes were there already.
    drop_duplicate,
    /// DATA dropped: the RPC was executed before.
    drop_completed,
    /// DATA dropped: more gaps than `max_gaps` would arise.
    drop_gaps,
    /// DATA dropped: its message waits for pool memory.
    drop_no_memory,
    /// Requests dropped: too many unanswered ones at the socket.
    drop_unanswered,
    /// Requests dropped: too many RPCs of the peer or of the host.
    drop_rpc_limit,
    /// Requests dropped: no room for another peer.
    drop_peer_limit,
    /// Control packets not sent: the queue for them was full.
    drop_control_queue,
    /// Retransmissions not sent: too many ranges were asked for at once.
    drop_retransmit_queue,
    /// Requests dropped: their client has too many bytes of replies to take or acknowledge.
    drop_peer_replies,
    /// RPC_UNKNOWN, BUSY and ACK packets to packets that concern no RPC not sent: rate limit.
    drop_answer_limit,
    /// UNREACHABLE packets not sent: rate limit.
    drop_unreachable_limit,
    /// UNREACHABLE packets or reports ignored: nothing of ours matches, or rate limit.
    drop_unreachable,
    /// Messages whose sender called more than `max_unscheduled` bytes of them unscheduled.
    unscheduled_capped,
    /// DATA packets that were partly known and trimmed.
    data_trimmed,
    /// Priorities above 7 on the wire, taken as 7.
    priorities_clamped,
}
