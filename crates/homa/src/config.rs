//! Every parameter and every limit of an endpoint, with its default.
//!
//! Parameters that HomaModule has keep its names, units and defaults (`sysctl .net.homa.*`); a
//! tick is one millisecond there and here. Limits that HomaModule lacks are named `max_*`.

use core::time::Duration;

use peyk_sansio::Instant;

use crate::error::ConfigError;
use crate::grant::GrantBucket;
use crate::priority::{DEFAULT_CUTOFFS, LEVELS};

/// Length of a tick, the unit of all timers.
pub const TICK: Duration = Duration::from_millis(1);

/// How output is paced; see [`Config::pacing`].
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Pacing {
    /// Not at all: whatever may be sent is handed out.
    Off,
    /// By an estimate of what the NIC still holds: `link_mbps`, `max_link_usage` and
    /// `max_nic_est_backlog`.
    NicEstimate,
    /// At a fixed rate with a bounded burst.
    TokenBucket {
        /// Bytes per second, frame overhead included.
        bytes_per_sec: u64,
        /// Bytes that may be sent at once after a pause.
        burst_bytes: u32,
    },
}

/// Parameters and limits of an [`Endpoint`](crate::Endpoint).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Bytes of a message that are sent without a grant.
    pub unsched_bytes: u32,
    /// Fixed grant window in bytes; 0 divides `max_incoming` among the active messages.
    pub window: u32,
    /// Bytes below which a grant waits for more to become due, unless it is the message's last or nothing of it is under
    /// way; 0, as in HomaModule, grants with every packet.
    pub min_grant_bytes: u32,
    /// Most bytes granted but not received, over all messages.
    pub max_incoming: u32,
    /// Most messages granted to at a time, 1 to 8.
    pub max_overcommit: u32,
    /// Bytes left up to which the message with fewer goes first, in grants and in sending; among those with more,
    /// which come after them, that of the oldest RPC does. `u32::MAX`, as in HomaModule: always the one with fewer.
    /// Shortest-first keeps the longest messages waiting for longer than TCP would; this gives them their turn at the
    /// price of those that are nearly as long: see `docs/results/cluster.md`.
    pub srpt_limit: u32,
    /// Bytes of each grant given to the oldest message.
    pub fifo_grant_increment: u32,
    /// Share of the link for grants to the oldest message, in 1/1000; clamped to 500, 0 is off.
    pub grant_fifo_fraction: u32,
    /// Priority of the grants given to the oldest message. HomaModule's are next to the highest, which
    /// in simulations nearly doubles the tail of messages of some packets and helps nobody: see
    /// `docs/decisions/`.
    pub fifo_grant_priority: u8,
    /// Limit on the rate of all grants, against incast or for a receiver that shares its downlink.
    /// `None`, as in HomaModule: grants are limited by what is under way only.
    pub grant_bucket: Option<GrantBucket>,
    /// Bytes of a message, at most, that a sender may call unscheduled. What it sends beyond is taken,
    /// but managed and asked for like scheduled data. HomaModule believes any number.
    pub max_unscheduled: u32,
    /// Network priorities in use, 1 to 8.
    pub num_priorities: u8,
    /// Longest message per unscheduled priority; made consistent, then announced to peers.
    pub unsched_cutoffs: [u32; LEVELS],
    /// Whether the cutoffs follow the message sizes seen.
    pub adaptive_cutoffs: bool,
    /// Whether the priority of unscheduled data follows the bytes of the message not yet sent, as in
    /// the simulations of the Homa paper, rather than its length, as in HomaModule.
    pub unsched_by_remaining: bool,
    /// Grants that begin within this many bytes of a message's end get at least the priority which
    /// unscheduled data of as many bytes would have, as in the simulations of the Homa paper; 0, as
    /// in HomaModule, is off.
    pub tail_boost_bytes: u32,
    /// Speed of the link in Mbit/s.
    pub link_mbps: u32,

    /// How output is paced. Off by default: over kernel sockets the kernel's own queue is the
    /// pacer, and a virtual link has no speed to go by.
    pub pacing: Pacing,
    /// Estimated time the NIC needs for what it holds above which paced packets wait.
    pub max_nic_est_backlog: Duration,
    /// Share of paced output for the oldest message, in 1/1000; clamped to 500, 0 is off.
    pub pacer_fifo_fraction: u32,
    /// Messages shorter than this many bytes are never delayed by the pacer.
    pub defer_min_bytes: u32,
    /// Share of the link's speed to use, in percent, 5 to 100.
    pub max_link_usage: u32,

    /// Ticks of silence before the first RESEND.
    pub resend_ticks: u32,
    /// Whether what is sent again has the priority that unscheduled data of its message has, rather than the highest, as
    /// in HomaModule. Where RESENDs may be early, long messages sent again would hold up short ones.
    pub resend_by_length: bool,
    /// Missing bytes of a message for which its RESENDs wait a tick longer, up to a quarter of `timeout_ticks`: with the
    /// shortest first, a long message may stand still for as long as it takes itself, and longer, with nothing lost.
    /// 0, as in HomaModule: no longer.
    pub resend_bytes_per_tick: u32,
    /// Ticks between further RESENDs.
    pub resend_interval: u32,
    /// Ticks up to which that interval doubles from one RESEND to the next. Not beyond
    /// `resend_interval`, the default, it stays the same, as in HomaModule.
    pub resend_interval_max: u32,
    /// Whether the first RESEND waits longer each time a server says BUSY, up to half of
    /// `timeout_ticks`. HomaModule's does not.
    pub busy_backoff: bool,
    /// Ticks of silence after which an RPC fails.
    pub timeout_ticks: u32,
    /// RESENDs that timers may send to one peer in a tick, whatever becomes of them. Beyond that a
    /// RESEND is earned: by a retransmission that turned out to be needed, or by BUSY. Without a
    /// limit thousands of messages that a busy peer is late with are all asked for again, and the
    /// answers keep it busy. HomaModule has none.
    pub resends_per_tick: u32,
    /// Most RESENDs to one peer that may be saved up.
    pub resend_burst: u32,
    /// Ticks for which bytes just sent, for the first time or again, are not sent again: what was
    /// asked for is on its way, so BUSY is the answer. Should be less than the peers'
    /// `resend_ticks`; 0, as in HomaModule, always sends again.
    pub min_retransmit_ticks: u32,
    /// Ticks between the end of a response and the first NEED_ACK; then the interval doubles.
    pub request_ack_ticks: u32,
    /// Longest interval between NEED_ACKs, in ticks.
    pub request_ack_max_ticks: u32,

    /// Size of the largest IP packet to hosts without an own setting.
    pub mtu: u32,
    /// Longest message sent or accepted, in bytes. HomaModule takes up to 1,000,000.
    pub max_message: u32,
    /// Most RPCs of the endpoint; of them at most three quarters are requests of its own. Memory:
    /// about 400 bytes each, messages aside.
    pub max_rpcs: u32,
    /// Most RPCs of one socket in each role: requests made, and requests taken.
    pub max_socket_rpcs: u32,
    /// Most RPCs with one peer.
    pub max_peer_rpcs: u32,
    /// Most requests of one socket that are incomplete or unanswered. Further ones are dropped,
    /// and their clients are told BUSY when they ask, so that they wait rather than fail.
    pub max_unanswered: u32,
    /// Bytes of outgoing messages of one socket at which it is [`Full`](crate::SendError::Full).
    /// Requests and replies are counted apart, or two hosts could each hold back the replies the
    /// other waits for. The message that crosses the limit is still taken.
    pub wmem_max: u64,
    /// Bytes of outgoing requests of the endpoint, and of replies, at which all its sockets are
    /// full.
    pub max_send_bytes: u64,
    /// Bytes of outgoing requests to one peer at which further ones to it are refused as
    /// [`Full`](crate::SendError::Full), and of outgoing replies to one peer at which no further
    /// requests of it are taken: a host that is gone, or takes no responses, shall not have all the
    /// send memory. The message that crosses the limit is still taken.
    pub max_peer_send_bytes: u64,
    /// Most sockets.
    pub max_sockets: u32,
    /// Most events that may wait for the application; no request is accepted, in either
    /// direction, while there are more.
    pub max_events: u32,
    /// Most control packets that may wait for [`poll_transmit`](crate::Endpoint::poll_transmit).
    pub max_control: u32,
    /// Most gaps in a message being received; a packet that would make more is dropped.
    pub max_gaps: u32,
    /// Most ranges of a message waiting for retransmission.
    pub max_retransmits: u32,
    /// Bytes of incomplete messages of one peer at which further ones wait for memory, as if there
    /// were none; the message that crosses the limit is still taken. 0 is three quarters of the
    /// pool. Messages of one packet do not count.
    pub max_peer_incoming: u64,
    /// Most messages that wait for pool memory; packets of further ones are dropped.
    pub max_memory_waiters: u32,
    /// Ticks without pool memory for any of the messages that wait for it after which RPCs of ours among them fail as
    /// [`NoMemory`](crate::RpcError::NoMemory): the application may be waiting for them before it drops what it
    /// holds. So does one that has waited for as long itself, even if what became free was kept for it. 0 waits for ever.
    pub memory_timeout_ticks: u32,

    /// Peers below which none is forgotten for idleness.
    pub peer_gc_threshold: u32,
    /// Most peers.
    pub max_peers: u32,
    /// A peer idle for less than this is never forgotten.
    pub peer_idle_min: Duration,
    /// Most 512-id records of finished requests, 144 bytes each.
    pub max_completed_chunks: u32,

    /// Whether to send UNREACHABLE packets, for want of ICMP: true over UDP, false on raw IP.
    pub unreachable_packets: bool,
    /// Most UNREACHABLE packets sent, and unreachability reports heeded, per second.
    pub unreachable_per_sec: u32,
    /// Most RPC_UNKNOWN, BUSY and ACK packets sent per second in answer to packets that concern no
    /// RPC of ours, to the hosts we have to do with.
    pub stray_answers_per_sec: u32,
    /// The same for all other hosts together, whose addresses may be forged.
    pub stranger_answers_per_sec: u32,

    /// Which endpoint of the host this is; part of RPC ids and automatic ports.
    pub shard: u8,
    /// Number of endpoints of the host that share its address.
    pub shards: u8,

    /// How the protocol is broken.
    #[cfg(feature = "mutants")]
    pub mutant: Option<crate::Mutant>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            unsched_bytes: 40_000,
            window: 0,
            min_grant_bytes: 0,
            max_incoming: 400_000,
            max_overcommit: 8,
            srpt_limit: u32::MAX,
            fifo_grant_increment: 50_000,
            grant_fifo_fraction: 50,
            fifo_grant_priority: 0,
            grant_bucket: None,
            max_unscheduled: 160_000,
            num_priorities: 8,
            unsched_cutoffs: DEFAULT_CUTOFFS,
            adaptive_cutoffs: true,
            unsched_by_remaining: false,
            tail_boost_bytes: 0,
            link_mbps: 25_000,
            pacing: Pacing::Off,
            max_nic_est_backlog: Duration::from_micros(5),
            pacer_fifo_fraction: 50,
            defer_min_bytes: 1000,
            max_link_usage: 99,
            resend_ticks: 5,
            resend_by_length: false,
            resend_bytes_per_tick: 0,
            resend_interval: 5,
            resend_interval_max: 0,
            busy_backoff: true,
            timeout_ticks: 100,
            resends_per_tick: 4,
            resend_burst: 64,
            min_retransmit_ticks: 2,
            request_ack_ticks: 2,
            request_ack_max_ticks: 64,
            mtu: 1500,
            max_message: 1_000_000,
            max_rpcs: 1_048_576,
            max_socket_rpcs: 524_288,
            max_peer_rpcs: 262_144,
            max_unanswered: 131_072,
            wmem_max: 100_000_000,
            max_send_bytes: 1_000_000_000,
            max_peer_send_bytes: 75_000_000,
            max_sockets: 4096,
            max_events: 1_048_576,
            max_control: 65_536,
            max_gaps: 1024,
            max_retransmits: 64,
            max_peer_incoming: 0,
            max_memory_waiters: 4096,
            memory_timeout_ticks: 10_000,
            peer_gc_threshold: 5000,
            max_peers: 10_000,
            peer_idle_min: Duration::from_secs(10),
            max_completed_chunks: 65_536,
            unreachable_packets: true,
            unreachable_per_sec: 1000,
            stray_answers_per_sec: 100_000,
            stranger_answers_per_sec: 10_000,
            shard: 0,
            shards: 1,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }
}

/// Least unscheduled bytes on a known link, in full packets: hosts in user space answer late at times, and nothing else
/// keeps the link busy meanwhile.
const UNSCHED_PACKETS: u64 = 5;
/// Full packets in a grant on a known link: one grant for each packet would be as many packets as the data.
const GRANT_PACKETS: u64 = 2;
/// How much longer a RESEND waits on a known link: this many times what the missing bytes take.
const PATIENCE: u64 = 4;

impl Config {
    /// The parameters for hosts whose links have this rate, in Mbit/s, and where a full packet and its answer take
    /// `round_trip` while nothing else is sent. See `docs/decisions/` for what they were measured with.
    ///
    /// What waits is to wait here, where the shortest goes first, and not in the network: output is paced to the rate of
    /// the link, and receivers authorise no more than keeps it busy. Timers leave time for what is authorised to arrive.
    #[must_use]
    pub fn for_link(self, mbps: u32, round_trip: Duration) -> Config {
        let mbps = u64::from(mbps.max(1));
        let packet = u64::from(self.mtu);
        let micros = |bytes: u64| bytes * 8 / mbps;
        let in_flight = mbps * round_trip.as_micros() as u64 / 8;
        let rtt_bytes = in_flight.clamp(UNSCHED_PACKETS * packet, u64::from(Config::default().unsched_bytes));
        let min_grant = GRANT_PACKETS * packet;
        let window = rtt_bytes + min_grant;
        let max_incoming = window * (u64::from(self.max_overcommit) + 1);
        let late = (4 * micros(max_incoming)).div_ceil(TICK.as_micros() as u64) as u32;
        Config {
            link_mbps: u32::try_from(mbps).unwrap_or(u32::MAX),
            unsched_bytes: rtt_bytes as u32,
            window: window as u32,
            min_grant_bytes: min_grant as u32,
            max_incoming: u32::try_from(max_incoming).unwrap_or(u32::MAX),
            fifo_grant_increment: self.fifo_grant_increment.min(2 * rtt_bytes as u32),
            pacing: Pacing::NicEstimate,
            max_nic_est_backlog: self.max_nic_est_backlog.max(Duration::from_micros(2 * micros(packet))),
            resend_by_length: true,
            resend_bytes_per_tick: (mbps * TICK.as_micros() as u64 / 8 / PATIENCE) as u32,
            resend_ticks: self.resend_ticks.max(late).min(self.timeout_ticks / 4),
            resend_interval: self.resend_interval.max(late).min(self.timeout_ticks / 4),
            min_retransmit_ticks: self.min_retransmit_ticks.max(late / 2),
            ..self
        }
    }

    /// Refuses what cannot work.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=LEVELS as u8).contains(&self.num_priorities) {
            return Err(ConfigError::NumPriorities);
        }
        if !(MIN_MTU..=MAX_MTU).contains(&self.mtu) {
            return Err(ConfigError::Mtu);
        }
        if self.max_message > peyk_wire::homa::LENGTH_LIMIT {
            return Err(ConfigError::MaxMessage);
        }
        if self.shard >= self.shards {
            return Err(ConfigError::Shard);
        }
        let ticks = self.resend_ticks < self.timeout_ticks && self.timeout_ticks < 1_000_000;
        if !ticks || self.request_ack_max_ticks >= 1_000_000 {
            return Err(ConfigError::Ticks);
        }
        for (name, value) in [
            ("unsched_bytes", self.unsched_bytes),
            ("max_unscheduled", self.max_unscheduled),
            ("resend_ticks", self.resend_ticks),
            ("resend_interval", self.resend_interval),
            ("resends_per_tick", self.resends_per_tick),
            ("resend_burst", self.resend_burst),
            ("request_ack_ticks", self.request_ack_ticks),
            ("request_ack_max_ticks", self.request_ack_max_ticks),
            ("max_message", self.max_message),
            ("max_rpcs", self.max_rpcs),
            ("max_sockets", self.max_sockets),
            ("max_events", self.max_events),
            ("max_control", self.max_control),
            ("max_peers", self.max_peers),
            ("max_retransmits", self.max_retransmits),
            ("max_completed_chunks", self.max_completed_chunks),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero(name));
            }
        }
        if self.max_peer_send_bytes == 0 {
            return Err(ConfigError::Zero("max_peer_send_bytes"));
        }
        if self.grant_bucket.is_some_and(|bucket| bucket.bytes_per_sec == 0) {
            return Err(ConfigError::Zero("grant_bucket.bytes_per_sec"));
        }
        Ok(())
    }
}

/// Least MTU accepted: smaller ones leave almost nothing beside the headers.
pub(crate) const MIN_MTU: u32 = 256;
/// Greatest MTU accepted: the longest IP packet.
pub(crate) const MAX_MTU: u32 = 65_535;

/// Choices about one socket.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct SocketOptions {
    /// Takes requests although its port is automatic. Sockets with an explicit port always do.
    pub server: bool,
    /// Instead of [`Config::max_socket_rpcs`].
    pub max_rpcs: Option<u32>,
    /// Instead of [`Config::max_unanswered`].
    pub max_unanswered: Option<u32>,
    /// Instead of [`Config::wmem_max`].
    pub wmem_max: Option<u64>,
    /// The port is an automatic one of another endpoint of this host, which all serve together.
    pub agreed: bool,
}

/// Choices about one request.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct RequestOptions {
    /// Handed back with the response or the failure. A private RPC, one that only a certain
    /// waiter may receive, is the application's affair: it tells its waiters apart by cookie.
    pub cookie: u64,
    /// When to give up, at the precision of a tick; `None` relies on `timeout_ticks` of silence.
    pub deadline: Option<Instant>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(mbps: u32, micros: u64) -> Config {
        Config { timeout_ticks: 1000, ..Config::default() }.for_link(mbps, Duration::from_micros(micros))
    }

    #[test]
    fn a_slow_link_gets_a_few_packets_and_patience() {
        let config = link(80, 100);
        assert_eq!(config.unsched_bytes, 5 * 1500);
        assert_eq!(config.window, config.unsched_bytes + 3000);
        assert_eq!(config.max_incoming, 9 * 10_500);
        assert_eq!(config.max_nic_est_backlog, Duration::from_micros(300));
        // Four times what all that is authorised takes: 38 ms.
        assert_eq!(config.resend_ticks, 38);
        assert_eq!(config.resend_bytes_per_tick, 2500);
        config.validate().unwrap();
    }

    #[test]
    fn a_fast_link_keeps_the_defaults() {
        let (config, usual) = (link(25_000, 15), Config::default());
        assert_eq!(config.resend_ticks, usual.resend_ticks);
        assert_eq!(config.max_nic_est_backlog, usual.max_nic_est_backlog);
        assert_eq!(link(100_000, 100).unsched_bytes, usual.unsched_bytes);
    }

    #[test]
    fn every_link_gets_something_that_works() {
        for mbps in [0, 1, 10, 100, 1_000, 400_000, u32::MAX] {
            for micros in [0, 10, 1_000, 1_000_000] {
                link(mbps, micros).validate().unwrap();
                Config::default().for_link(mbps, Duration::from_micros(micros)).validate().unwrap();
            }
        }
    }
}
