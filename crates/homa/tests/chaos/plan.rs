//! What a seed decides in advance: how many hosts, their settings, how hostile
//! the network is and what the applications like to do.

use core::time::Duration;

use peyk_homa::{Config, Pacing};
use peyk_sansio::Prng;

use crate::common::{ms, us};

/// The character of one run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub hosts: usize,
    pub config: Config,
    /// Pages of each host's pool.
    pub pages: u32,
    /// Time in which applications act.
    pub active: Duration,
    /// Calls made, about.
    pub calls: u64,
    pub latency: Duration,
    /// Chances per packet.
    pub loss: f64,
    pub duplication: f64,
    pub reordering: f64,
    pub lateness: f64,
    pub corruption: f64,
    /// Longest request and response.
    pub longest: u32,
    /// Chances per request or call.
    pub slow_reply: f64,
    pub rejection: f64,
    pub abortion: f64,
    pub deadline: f64,
    /// Restarts, pauses, closings, hogs of memory in all.
    pub restarts: u64,
    pub pauses: u64,
    pub closings: u64,
    pub hogs: u64,
}

impl Plan {
    pub fn of(seed: u64) -> Plan {
        let mut r = Prng::new(seed ^ 0x0070_6c61_6e00);
        let few = |r: &mut Prng, p: f64, n: u64| if r.chance(p) { 1 + r.below(n) } else { 0 };
        let some = |r: &mut Prng, p: f64, list: &[f64]| {
            if r.chance(p) { *r.pick(list).expect("not empty") } else { 0.0 }
        };
        let is_small_pool = r.chance(0.25);
        Plan {
            hosts: 2 + r.below(4) as usize,
            config: config(&mut r),
            pages: if is_small_pool { 6 + r.below(10) as u32 } else { 256 },
            active: ms(20 + r.below(200)),
            calls: 10 + r.below(120),
            latency: us(*r.pick(&[5, 20, 200, 3000]).expect("not empty")),
            loss: some(&mut r, 0.6, &[0.005, 0.02, 0.1, 0.3]),
            duplication: some(&mut r, 0.5, &[0.01, 0.1, 0.5]),
            reordering: some(&mut r, 0.6, &[0.02, 0.2, 0.8]),
            lateness: some(&mut r, 0.4, &[0.005, 0.05]),
            corruption: some(&mut r, 0.2, &[0.002, 0.02, 0.2]),
            longest: *r.pick(&[1_000, 10_000, 60_000, 200_000, 400_000]).expect("not empty"),
            slow_reply: some(&mut r, 0.5, &[0.1, 0.5, 1.0]),
            rejection: some(&mut r, 0.3, &[0.05, 0.3]),
            abortion: some(&mut r, 0.4, &[0.05, 0.4]),
            deadline: some(&mut r, 0.4, &[0.1, 0.5]),
            restarts: few(&mut r, 0.3, 4),
            pauses: few(&mut r, 0.2, 4),
            closings: few(&mut r, 0.3, 4),
            hogs: few(&mut r, 0.3, 6),
        }
    }

    /// Whether every call should get its response in time: packets may come late, twice and out
    /// of order, but they come, and everybody is there with memory to spare.
    pub fn is_calm(&self) -> bool {
        let trouble = self.restarts + self.pauses + self.closings + self.hogs;
        self.loss + self.corruption == 0.0 && trouble == 0 && self.pages == 256
    }
}

/// Settings that differ from the defaults here and there.
fn config(r: &mut Prng) -> Config {
    let mut c = Config::default();
    if r.chance(0.3) {
        c.num_priorities = 1 + r.below(8) as u8;
    }
    if r.chance(0.3) {
        c.max_overcommit = 1 + r.below(8) as u32;
        c.window = *r.pick(&[0, 3_000, 50_000]).expect("not empty");
        c.max_incoming = *r.pick(&[2_000, 60_000, 400_000]).expect("not empty");
    }
    if r.chance(0.2) {
        c.grant_fifo_fraction = r.below(600) as u32;
        c.fifo_grant_increment = 1 + r.below(60_000) as u32;
    }
    if r.chance(0.3) {
        c.unsched_bytes = 1 + r.below(60_000) as u32;
    }
    if r.chance(0.2) {
        c.pacing = Pacing::NicEstimate;
        c.link_mbps = *r.pick(&[100, 1000, 25_000]).expect("not empty");
    }
    if r.chance(0.2) {
        c.mtu = *r.pick(&[300, 1400, 3000, 9000]).expect("not empty");
    }
    if r.chance(0.15) {
        c.max_unanswered = 1 + r.below(10) as u32;
    }
    if r.chance(0.15) {
        c.wmem_max = 1 + r.below(100_000);
    }
    if r.chance(0.1) {
        c.max_socket_rpcs = 2 + r.below(20) as u32;
    }
    if r.chance(0.1) {
        c.max_gaps = 1 + r.below(8) as u32;
        c.max_retransmits = 1 + r.below(4) as u32;
    }
    c
}
