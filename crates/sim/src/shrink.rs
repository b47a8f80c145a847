//! Makes a scenario that fails smaller: fewer calls, faults and hosts, less noise, plainer settings.

use peyk_homa::Config;

use crate::fault::plan::{FaultKind, Noise};
use crate::scenario::Scenario;
use crate::time::Picos;
use crate::topology::HostId;

/// Most scenarios tried.
const TRIES: u32 = 400;
/// Noise that most calls meet.
const OFTEN: f64 = 0.4;

/// The smallest scenario found of which `fails` still holds. It holds of the one given.
pub fn shrink(scenario: Scenario, fails: impl FnMut(&Scenario) -> bool) -> Scenario {
    let mut search = Search { best: scenario, fails, tries: 0 };
    loop {
        let before = search.best.clone();
        search.quiet();
        search.thin(|s| s.calls.len(), |s, range| drop(s.calls.drain(range)));
        search.thin(|s| s.faults.len(), |s, range| drop(s.faults.drain(range)));
        search.plain();
        search.fewer_hosts();
        search.shorter();
        if search.best == before || search.tries >= TRIES {
            return search.best;
        }
    }
}

struct Search<F> {
    best: Scenario,
    fails: F,
    tries: u32,
}

impl<F: FnMut(&Scenario) -> bool> Search<F> {
    /// Takes a change if the scenario still fails.
    fn attempt(&mut self, change: impl FnOnce(&mut Scenario)) -> bool {
        let mut other = self.best.clone();
        change(&mut other);
        if other == self.best || self.tries >= TRIES {
            return false;
        }
        self.tries += 1;
        let is_good = (self.fails)(&other);
        if is_good {
            self.best = other;
        }
        is_good
    }

    /// Leaves out parts of a list: first halves, then ever smaller parts.
    fn thin(
        &mut self,
        length: impl Fn(&Scenario) -> usize,
        remove: impl Fn(&mut Scenario, core::ops::Range<usize>),
    ) {
        let mut part = length(&self.best).div_ceil(2);
        while part > 0 {
            let mut at = 0;
            while at < length(&self.best) {
                let range = at..(at + part).min(length(&self.best));
                if !self.attempt(|s| remove(s, range.clone())) {
                    at += part;
                }
            }
            part /= 2;
        }
    }

    /// No noise, or of fewer kinds; but what is needed may be more frequent, for then fewer calls meet it.
    fn quiet(&mut self) {
        self.attempt(|s| s.noise = Noise::default());
        let kinds: [fn(&mut Noise) -> &mut f64; 5] = [
            |n| &mut n.loss,
            |n| &mut n.duplication,
            |n| &mut n.reordering,
            |n| &mut n.spikes,
            |n| &mut n.corruption,
        ];
        for kind in kinds {
            self.attempt(|s| *kind(&mut s.noise) = 0.0);
        }
        for kind in kinds {
            let chance = *kind(&mut self.best.noise);
            if 0.0 < chance && chance < OFTEN {
                self.attempt(|s| *kind(&mut s.noise) = OFTEN);
            }
        }
    }

    /// Settings and clocks as usual.
    fn plain(&mut self) {
        self.attempt(|s| s.drifts.clear());
        self.attempt(|s| s.look_after = Picos::ZERO);
        for usual in PLAIN {
            self.attempt(|s| usual(&mut s.config, Config::default()));
        }
        self.attempt(|s| s.topology.buffer_bytes = None);
        for number in 0..self.best.calls.len() {
            self.attempt(|s| {
                let call = &mut s.calls[number];
                (call.deadline, call.abort, call.rejection) = (None, None, None);
                call.from_server_socket = false;
            });
        }
    }

    /// Hosts from the end that nothing concerns, and all in one rack.
    fn fewer_hosts(&mut self) {
        self.attempt(|s| {
            (s.topology.hosts_per_rack, s.topology.racks) = (s.topology.hosts(), 1);
        });
        let calls = self.best.calls.iter().map(|c| c.client.max(c.server));
        let highest = calls.chain(self.best.faults.iter().map(|f| f.highest_host())).max().unwrap_or(0);
        self.attempt(|s| {
            if s.topology.racks == 1 {
                s.topology.hosts_per_rack = (highest + 1).max(2);
                let all = u64::MAX >> (64 - u64::from(s.topology.hosts_per_rack));
                for fault in &mut s.faults {
                    if let FaultKind::Cut { from, to, .. } = &mut fault.kind {
                        (*from, *to) = (*from & all, *to & all);
                    }
                }
                s.drifts.truncate(usize::from(s.topology.hosts_per_rack));
            }
        });
        self.rename();
    }

    /// Gives hosts that take part the lowest numbers.
    fn rename(&mut self) {
        if !self.best.faults.is_empty() || self.best.topology.racks > 1 {
            return;
        }
        let mut used: Vec<HostId> = self.best.calls.iter().flat_map(|c| [c.client, c.server]).collect();
        used.sort_unstable();
        used.dedup();
        let place = |host: HostId| used.iter().position(|&h| h == host).unwrap_or(0) as HostId;
        self.attempt(|s| {
            for call in &mut s.calls {
                (call.client, call.server) = (place(call.client), place(call.server));
            }
            s.topology.hosts_per_rack = (used.len() as HostId).max(2);
            s.drifts.clear();
        });
    }

    /// Shorter messages, and an earlier end.
    fn shorter(&mut self) {
        for number in 0..self.best.calls.len() {
            while self.attempt(|s| s.calls[number].request = (s.calls[number].request / 2).max(1)) {}
            while self.attempt(|s| s.calls[number].response = (s.calls[number].response / 2).max(1)) {}
        }
        let last = self.best.calls.iter().map(|c| c.at).chain(self.best.faults.iter().map(|f| f.at)).max();
        self.attempt(|s| s.active = last.unwrap_or_default());
    }
}

/// Settings that scenarios vary, back to what is usual, one group at a time.
const PLAIN: [fn(&mut Config, Config); 9] = [
    |c, d| c.num_priorities = d.num_priorities,
    |c, d| (c.max_overcommit, c.window, c.max_incoming) = (d.max_overcommit, d.window, d.max_incoming),
    |c, d| {
        c.grant_fifo_fraction = d.grant_fifo_fraction;
        c.fifo_grant_increment = d.fifo_grant_increment;
    },
    |c, d| c.unsched_bytes = d.unsched_bytes,
    |c, d| (c.pacing, c.link_mbps, c.pacer_fifo_fraction) = (d.pacing, d.link_mbps, d.pacer_fifo_fraction),
    |c, d| c.mtu = d.mtu,
    |c, d| {
        (c.max_unanswered, c.wmem_max, c.max_socket_rpcs) = (d.max_unanswered, d.wmem_max, d.max_socket_rpcs);
    },
    |c, d| (c.max_gaps, c.max_retransmits) = (d.max_gaps, d.max_retransmits),
    |c, d| {
        (c.timeout_ticks, c.resend_interval_max) = (d.timeout_ticks, d.resend_interval_max);
        (c.busy_backoff, c.min_retransmit_ticks) = (d.busy_backoff, d.min_retransmit_ticks);
    },
];
