//! What a seed means: a scenario of its own character. Most seeds have one or two kinds of trouble, so that
//! each is met alone and in company.

use peyk_homa::{Config, Pacing, Reason};
use peyk_sansio::Prng;
use peyk_wire::homa::PacketType;

use super::{CallPlan, ROOMY_PAGES, Scenario};
use crate::fault::plan::{Fault, FaultKind, LIES, Noise};
use crate::time::Picos;
use crate::topology::{HostId, Topology};
use crate::world::Drift;

/// Most bytes of all messages of a scenario: what a run may cost.
const BYTES_MAX: u64 = 6_000_000;

/// How calls behave in a scenario.
struct Manners {
    longest: u64,
    slow: f64,
    slowest_ms: u64,
    rejection: f64,
    abortion: f64,
    deadline: f64,
}

pub(super) fn scenario(seed: u64) -> Scenario {
    let mut r = Prng::new(seed ^ 0x7363_656e_6172_696f);
    let topology = topology(&mut r);
    let hosts = topology.hosts();
    let longest_ms = *pick(&mut r, &[10, 60, 200]);
    let active = Picos::from_millis(1 + r.below(longest_ms));
    let (noise, faults) = trouble(&mut r, hosts, active);
    let pages = if r.chance(0.2) { 6 + r.below(12) as u32 } else { ROOMY_PAGES };
    let config = config(&mut r, &topology);
    let calls = calls(&mut r, &topology, active, pages);
    let drifts = drifts(&mut r, hosts);
    let look_after = Picos::from_micros(if r.chance(0.2) { *pick(&mut r, &[1, 5, 30]) } else { 0 });
    Scenario { seed, config, pages, active, calls, noise, faults, drifts, topology, look_after }
}

fn pick<'a, T>(r: &mut Prng, list: &'a [T]) -> &'a T {
    r.pick(list).expect("the list is not empty")
}

fn some(r: &mut Prng, chance: f64, list: &[f64]) -> f64 {
    if r.chance(chance) { *pick(r, list) } else { 0.0 }
}

fn topology(r: &mut Prng) -> Topology {
    let racks = if r.chance(0.3) { 2 } else { 1 };
    let hosts = if r.chance(0.3) { 2 } else { 3 + r.below(6) as u16 };
    let host_mbps = *pick(r, &[200, 1_000, 10_000, 10_000, 25_000]);
    let delay_ns = *pick(r, &[500, 1_500, 10_000, 100_000, 1_000_000]);
    Topology {
        racks,
        hosts_per_rack: hosts.div_ceil(racks),
        spines: 1 + r.below(3) as u16,
        host_mbps,
        fabric_mbps: host_mbps * *pick(r, &[1, 4]),
        switch_delay_ns: 250,
        host_send_delay_ns: delay_ns,
        host_receive_delay_ns: delay_ns / 2,
        // At least one packet of the largest size fits.
        buffer_bytes: r.chance(0.15).then(|| 10_000 + r.below(60_000)),
        mark_bytes: None,
    }
}

fn drifts(r: &mut Prng, hosts: u16) -> Vec<Drift> {
    if !r.chance(0.3) {
        return Vec::new();
    }
    let most = *pick(r, &[50, 500, 20_000]);
    let one = |r: &mut Prng| Drift {
        ppm: r.below(2 * most + 1) as i32 - most as i32,
        ahead: Picos::from_millis(r.below(5_000)),
    };
    (0..hosts).map(|_| one(r)).collect()
}

fn noise(r: &mut Prng) -> Noise {
    Noise {
        loss: some(r, 0.5, &[0.002, 0.01, 0.02, 0.1, 0.3]),
        duplication: some(r, 0.4, &[0.01, 0.1, 0.4]),
        reordering: some(r, 0.4, &[0.02, 0.2, 0.8]),
        spikes: some(r, 0.3, &[0.002, 0.02]),
        corruption: some(r, 0.15, &[0.001, 0.01, 0.1]),
        jitter: Picos::from_micros(*pick(r, &[5, 50, 2_000])),
        lag: Picos::from_millis(*pick(r, &[1, 15, 15, 400])),
    }
}

/// What goes wrong: nothing, noise, faults, or both.
fn trouble(r: &mut Prng, hosts: u16, active: Picos) -> (Noise, Vec<Fault>) {
    let noise = if r.chance(0.6) { noise(r) } else { Noise::default() };
    let count = if r.chance(0.5) { 1 + r.below(5) } else { 0 };
    let mut faults: Vec<Fault> = (0..count).map(|_| fault(r, hosts, active)).collect();
    // One liar at most: that there are honest hosts beside it is what makes it interesting.
    if r.chance(0.12) {
        let host = r.below(u64::from(hosts)) as HostId;
        let kind = FaultKind::Lie { host, how: *pick(r, &LIES) };
        faults.push(Fault { at: Picos(r.below(active.0 / 2)), span: active, kind });
    }
    faults.sort_by_key(|fault| fault.at);
    (noise, faults)
}

fn fault(r: &mut Prng, hosts: u16, active: Picos) -> Fault {
    let host = r.below(u64::from(hosts)) as HostId;
    let all = u64::MAX >> (64 - u64::from(hosts));
    let kind = match r.below(9) {
        0 | 1 => FaultKind::Crash { host },
        2 => {
            let side = r.next_u64() & all;
            FaultKind::Cut { from: side, to: !side & all, both_ways: r.chance(0.7) }
        }
        3 => FaultKind::Cut { from: 1 << host, to: all, both_ways: r.chance(0.7) },
        4 => {
            let kinds = [
                PacketType::Grant,
                PacketType::Ack,
                PacketType::Resend,
                PacketType::Busy,
                PacketType::NeedAck,
            ];
            FaultKind::Mute { host, kind: *pick(r, &kinds) }
        }
        5 => FaultKind::Stall { host },
        6 => FaultKind::SlowReceiver { host, cost: Picos::from_nanos(200 + r.below(50_000)) },
        7 => FaultKind::Hog { host, leave: r.below(4) as u32 },
        _ => FaultKind::Close { host, is_server: r.chance(0.5) },
    };
    let longest = *pick(r, &[3, 40, 250]);
    Fault { at: Picos(r.below(active.0)), span: Picos::from_micros(100 + r.below(longest * 1_000)), kind }
}

/// Settings that differ from the defaults here and there.
fn config(r: &mut Prng, topology: &Topology) -> Config {
    let mut c = Config { link_mbps: topology.host_mbps, ..Config::default() };
    if r.chance(0.3) {
        c.num_priorities = 1 + r.below(8) as u8;
    }
    if r.chance(0.4) {
        c.max_overcommit = 1 + r.below(8) as u32;
        c.window = *pick(r, &[0, 3_000, 50_000]);
        c.max_incoming = *pick(r, &[2_000, 60_000, 400_000]);
    }
    if r.chance(0.3) {
        c.grant_fifo_fraction = *pick(r, &[0, 0, 50, 500]);
        c.fifo_grant_increment = 1 + r.below(60_000) as u32;
    }
    if r.chance(0.4) {
        c.unsched_bytes = *pick(r, &[1, 700, 5_000, 10_000, 60_000]);
    }
    if r.chance(0.15) {
        c.pacing = Pacing::NicEstimate;
    }
    if r.chance(0.2) {
        c.pacer_fifo_fraction = *pick(r, &[0, 100, 500]);
    }
    if r.chance(0.3) {
        c.mtu = *pick(r, &[300, 1_400, 3_000, 9_000]);
    }
    limits(r, &mut c);
    c
}

fn limits(r: &mut Prng, c: &mut Config) {
    if r.chance(0.1) {
        c.max_unanswered = 1 + r.below(10) as u32;
    }
    if r.chance(0.1) {
        c.wmem_max = 1 + r.below(100_000);
    }
    if r.chance(0.1) {
        c.max_socket_rpcs = 2 + r.below(20) as u32;
    }
    if r.chance(0.1) {
        c.max_gaps = 1 + r.below(8) as u32;
        c.max_retransmits = 1 + r.below(4) as u32;
    }
    if r.chance(0.15) {
        c.timeout_ticks = *pick(r, &[20, 50, 200]);
    }
    if r.chance(0.15) {
        c.resend_interval_max = 40;
        c.busy_backoff = r.chance(0.5);
        c.min_retransmit_ticks = r.below(4) as u32;
    }
}

fn calls(r: &mut Prng, topology: &Topology, active: Picos, pages: u32) -> Vec<CallPlan> {
    let manners = Manners {
        longest: *pick(r, &[1_000, 10_000, 60_000, 200_000, 600_000]),
        slow: some(r, 0.4, &[0.1, 0.5, 1.0]),
        slowest_ms: *pick(r, &[2, 30, 300, 300]),
        rejection: some(r, 0.2, &[0.05, 0.3]),
        abortion: some(r, 0.3, &[0.05, 0.4]),
        deadline: some(r, 0.3, &[0.1, 0.5]),
    };
    let count = 5 + r.below(120);
    // A slow network gets less, so that what all want can be done in about a second.
    let budget = BYTES_MAX.min(1_000_000_000_000 / topology.host_ps_per_byte());
    let is_burst = r.chance(0.25);
    let is_incast = r.chance(0.25);
    let mut calls = Vec::new();
    let mut bytes = 0;
    for _ in 0..count {
        let mut call = call(r, topology.hosts(), &manners, pages);
        call.at = Picos(r.below(if is_burst { active.0 / 100 } else { active.0 }) + 1);
        if is_incast && call.client != 0 {
            call.server = 0;
        }
        bytes += u64::from(call.request) + u64::from(call.response);
        if bytes > budget {
            break;
        }
        calls.push(call);
    }
    calls.sort_by_key(|call| call.at);
    calls
}

fn call(r: &mut Prng, hosts: u16, manners: &Manners, pages: u32) -> CallPlan {
    let client = r.below(u64::from(hosts)) as HostId;
    let other = (client + 1 + r.below(u64::from(hosts) - 1) as HostId) % hosts;
    let mut length = || {
        let longest = match r.below(4) {
            0 => 32,
            1 => 1_500,
            2 => manners.longest.min(20_000),
            _ => manners.longest,
        };
        // A message must fit into the pool with room to spare.
        (1 + r.below(longest)).min(u64::from(pages) * 65_536 / 3) as u32
    };
    let (request, response) = (length(), length());
    let service = match r.chance(manners.slow) {
        true => Picos::from_micros(r.below(manners.slowest_ms * 1_000)),
        false => Picos::from_micros(r.below(3)),
    };
    let reasons = [Reason::Aborted, Reason::Overloaded, Reason::TooLarge, Reason::Closing];
    let rejection = r.chance(manners.rejection).then(|| *pick(r, &reasons));
    CallPlan {
        at: Picos::ZERO,
        client,
        server: other,
        request,
        response,
        service,
        rejection,
        abort: r.chance(manners.abortion).then(|| Picos::from_micros(r.below(20_000))),
        deadline: r.chance(manners.deadline).then(|| Picos::from_micros(r.below(60_000))),
        from_server_socket: r.chance(0.15),
    }
}
