//! Racks, spines and links: what is connected to what, how fast, and how long a message takes at best.
//!
//! ```text
//!        spine 0      spine 1  ...            every rack is connected to every spine
//!       /   |   \    /   |   \
//!    rack 0    rack 1    rack 2 ...           one switch a rack
//!    / | \
//!   hosts                                     one link each
//! ```
//!
//! Switches store and forward: a packet enters the queue of its next link when all of it has arrived and
//! the switch has thought about it for `switch_delay`. Links have no length.

use serde::{Deserialize, Serialize};

use crate::time::Picos;

/// A host, counted from 0 through the racks.
pub type HostId = u16;

/// Bytes a frame costs on the wire beside its IP packet: header, checksum, preamble, gap.
pub const ETHERNET_OVERHEAD: u32 = 38;
/// Bytes of the shortest frame on the wire, all included.
pub const SHORTEST_FRAME: u32 = 84;

/// A network.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Topology {
    /// Racks, each with one switch.
    pub racks: u16,
    /// Hosts in each rack.
    pub hosts_per_rack: u16,
    /// Switches that connect the racks; not used if there is one rack.
    pub spines: u16,
    /// Speed of each host's link, in Mbit/s.
    pub host_mbps: u32,
    /// Speed of each link between a rack and a spine, in Mbit/s.
    pub fabric_mbps: u32,
    /// Time a switch takes for a packet, beside storing it, in nanoseconds.
    pub switch_delay_ns: u64,
    /// Time from the decision to send a packet to its first bit on the link, in nanoseconds: software and
    /// NIC of the sender.
    pub host_send_delay_ns: u64,
    /// Time from the last bit of a packet to its handling, in nanoseconds: software of the receiver.
    pub host_receive_delay_ns: u64,
    /// Bytes that may wait at each link of a switch; packets beyond are dropped. `None`: no limit.
    pub buffer_bytes: Option<u64>,
    /// Bytes waiting at a link above which packets are marked as having met congestion (ECN).
    pub mark_bytes: Option<u64>,
}

impl Default for Topology {
    /// The network of the SIGCOMM'18 simulations: 144 hosts at 10 Gbit/s, 9 racks, 4 spines at 40 Gbit/s.
    fn default() -> Topology {
        Topology {
            racks: 9,
            hosts_per_rack: 16,
            spines: 4,
            host_mbps: 10_000,
            fabric_mbps: 40_000,
            switch_delay_ns: 250,
            host_send_delay_ns: 1_000,
            host_receive_delay_ns: 500,
            buffer_bytes: None,
            mark_bytes: None,
        }
    }
}

impl Topology {
    /// As the default, with about `hosts` hosts: whole racks of 16, or one rack if there are no more than 16.
    pub fn with_hosts(hosts: u16) -> Topology {
        let all = Topology::default();
        match hosts {
            0..=16 => Topology { racks: 1, hosts_per_rack: hosts.max(2), ..all },
            _ => Topology { racks: hosts.div_ceil(all.hosts_per_rack), ..all },
        }
    }

    /// Number of hosts.
    pub fn hosts(&self) -> u16 {
        self.racks * self.hosts_per_rack
    }

    /// What is wrong with it, if anything.
    pub fn problem(&self) -> Option<&'static str> {
        let hosts = u32::from(self.racks) * u32::from(self.hosts_per_rack);
        match self {
            _ if !(2..=4096).contains(&hosts) => Some("there must be 2 to 4096 hosts"),
            _ if self.racks > 1 && self.spines == 0 => Some("several racks need a spine"),
            _ if self.host_mbps == 0 || self.fabric_mbps == 0 => Some("links need a speed"),
            _ => None,
        }
    }

    /// The rack of a host.
    pub fn rack(&self, host: HostId) -> u16 {
        host / self.hosts_per_rack
    }

    /// The spine over which a flow between two hosts of different racks goes: a hash, as switches compute it.
    pub fn spine_of(&self, from: HostId, to: HostId, flow: u32) -> u16 {
        let key = u64::from(from) << 48 | u64::from(to) << 32 | u64::from(flow);
        // The finalizer of MurmurHash3: every bit of the key reaches every bit of the result.
        let mut hash = (key ^ key >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        ((hash ^ hash >> 33) % u64::from(self.spines.max(1))) as u16
    }

    /// Picoseconds per byte on a host's link.
    pub fn host_ps_per_byte(&self) -> u64 {
        8_000_000 / u64::from(self.host_mbps)
    }

    /// Picoseconds per byte on a link between switches.
    pub fn fabric_ps_per_byte(&self) -> u64 {
        8_000_000 / u64::from(self.fabric_mbps)
    }

    /// The least time from the creation of a message at one host to its delivery at another, as the Homa
    /// paper's simulator counts it: frames carry up to 1,472 bytes of message and no transport header.
    pub fn ideal(&self, from: HostId, to: HostId, bytes: u64) -> Picos {
        const PER_FRAME: u64 = 1_472;
        // IP and UDP.
        const HEADERS: u64 = 28 + ETHERNET_OVERHEAD as u64;
        let frame = |payload: u64| (payload + HEADERS).max(u64::from(SHORTEST_FRAME));
        let (full, rest) = (bytes / PER_FRAME, bytes % PER_FRAME);
        let total = full * frame(PER_FRAME) + if rest > 0 || full == 0 { frame(rest) } else { 0 };
        let again = frame(bytes.min(PER_FRAME));
        let is_local = self.rack(from) == self.rack(to);
        let (switches, fabric_links) = if is_local { (1, 0) } else { (3, 2) };
        let fixed = self.host_send_delay_ns + self.host_receive_delay_ns + switches * self.switch_delay_ns;
        Picos::from_nanos(fixed)
            + Picos((total + again) * self.host_ps_per_byte())
            + Picos(fabric_links * again * self.fabric_ps_per_byte())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spine_of__spreads_flows_evenly() {
        let topology = Topology::default();
        let mut flows = [0u32; 4];
        for (from, to) in (0..16).flat_map(|from| (16..144).map(move |to| (from, to))) {
            flows[usize::from(topology.spine_of(from, to, 0))] += 1;
        }
        assert!(flows.iter().all(|n| (450..575).contains(n)), "{flows:?}");
    }

    #[test]
    fn ideal__smallest_message_across_racks() {
        let ideal = Topology::default().ideal(0, 143, 1);
        assert_eq!(ideal, Picos(2_418_000), "published as about 2.42 us");
    }

    #[test]
    fn ideal__full_packet_one_way_and_smallest_back_is_the_published_round_trip() {
        let topology = Topology::default();
        let round_trip = topology.ideal(0, 143, 1_472) + topology.ideal(143, 0, 1);
        assert!((7.70..7.80).contains(&round_trip.as_micros_f64()), "{round_trip}");
    }

    #[test]
    fn ideal__long_messages_take_their_frames() {
        let topology = Topology::default();
        let a = topology.ideal(0, 1, 1_472_000);
        let b = topology.ideal(0, 1, 2_944_000);
        assert_eq!(b - a, Picos(1_000 * 1_538 * 800));
    }
}
