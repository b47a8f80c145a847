//! The grant scheduler against one that keeps plain lists and sorts them anew
//! for every question: same packets, same grants, byte for byte.

use peyk_sansio::Instant;
use proptest::prelude::*;

use super::super::{GrantConfig, GrantOut, Grants};

#[derive(Clone, Debug)]
struct Msg {
    slot: u32,
    peer: u32,
    length: u32,
    received: u32,
    granted: u32,
    birth: u64,
    active: bool,
    needy: bool,
    parked: bool,
}

impl Msg {
    fn rank(&self) -> (u32, u64, u32) {
        (self.length - self.received, self.birth, self.slot)
    }
    fn incoming(&self) -> u64 {
        u64::from(self.granted.saturating_sub(self.received))
    }
}

struct Naive {
    config: GrantConfig,
    list: Vec<Msg>,
    dirty: Vec<u32>,
    fifo_at: Option<u64>,
}

impl Naive {
    fn at(&self, slot: u32) -> Option<usize> {
        self.list.iter().position(|m| m.slot == slot)
    }
    fn total(&self) -> u64 {
        self.list.iter().map(Msg::incoming).sum()
    }
    fn n_active(&self) -> usize {
        self.list.iter().filter(|m| m.active).count()
    }
    fn peer_active(&self, peer: u32) -> usize {
        self.list.iter().filter(|m| m.active && m.peer == peer).count()
    }
    fn window(&self) -> u64 {
        match self.config.window {
            0 => self.config.max_incoming / (self.n_active() as u64 + 1),
            w => u64::from(w),
        }
    }
    fn heads(&self) -> Vec<&Msg> {
        let waiting = || self.list.iter().filter(|m| !m.active);
        waiting().filter(|m| waiting().all(|o| o.peer != m.peer || o.rank() >= m.rank())).collect()
    }

    fn enter(&mut self, slot: u32) {
        if !self.heads().iter().any(|m| m.slot == slot) {
            return;
        }
        let at = self.at(slot).unwrap();
        let peer = self.list[at].peer;
        if self.n_active() == self.config.max_overcommit {
            let count = |m: &Msg| self.peer_active(m.peer) + usize::from(m.peer == peer);
            let victim = self.list.iter().filter(|m| m.active);
            let victim = victim.max_by_key(|m| (count(m), m.rank())).unwrap();
            let is_fairer = count(victim) > self.peer_active(peer) + 1;
            if !is_fairer && self.list[at].rank() > victim.rank() {
                return;
            }
            let victim = self.at(victim.slot).unwrap();
            self.list[victim].active = false;
            self.list[victim].needy = false;
        }
        self.list[at].active = true;
    }

    fn manage(&mut self, msg: Msg) {
        let slot = msg.slot;
        self.list.push(msg);
        self.enter(slot);
        self.dirty.push(slot);
    }

    fn receive(&mut self, slot: u32, received: u32) {
        let Some(at) = self.at(slot) else { return };
        if received >= self.list[at].length {
            return self.remove(slot);
        }
        self.list[at].received = received.max(self.list[at].received);
        self.list[at].parked = false;
        if !self.list[at].active {
            self.enter(slot);
        }
        if !self.dirty.contains(&slot) {
            self.dirty.push(slot);
        }
    }

    fn remove(&mut self, slot: u32) {
        let Some(at) = self.at(slot) else { return };
        let was_active = self.list[at].active;
        self.list.remove(at);
        self.dirty.retain(|&s| s != slot);
        if was_active {
            let key = |m: &&Msg| (self.peer_active(m.peer), m.rank());
            let next = self.heads().into_iter().min_by_key(key).map(|m| m.slot);
            if let Some(at) = next.and_then(|slot| self.at(slot)) {
                self.list[at].active = true;
                self.list[at].needy = true;
            }
        }
    }

    fn best_needy(&self) -> Option<usize> {
        let needy = (0..self.list.len()).filter(|&i| self.list[i].needy);
        needy.min_by_key(|&i| self.list[i].rank())
    }

    fn send(&mut self, now: u64, at: usize, respect: bool, out: &mut Vec<GrantOut>) {
        let m = &self.list[at];
        let base = m.granted.max(m.received);
        let d = (i64::from(m.received) + self.window() as i64).min(i64::from(m.length));
        let d = d - i64::from(base);
        if d <= 0 {
            return;
        }
        let room = self.config.max_incoming as i64 - self.total() as i64;
        if room <= 0 || (respect && self.best_needy().is_some()) {
            self.list[at].needy = true;
            return;
        }
        let (rank, active) = (m.rank(), self.n_active() as i64);
        self.list[at].needy = d > room;
        self.list[at].granted = base + d.min(room) as u32;
        let better = self.list.iter().filter(|m| m.active && m.rank() < rank).count() as i64;
        let top = i64::from(self.config.max_sched_prio);
        let priority = (top - better - (top + 1 - active).max(0)).max(0) as u8;
        let m = &self.list[at];
        out.push(GrantOut { slot: m.slot, offset: m.granted, priority });
        self.fifo(now, out);
    }

    fn fifo(&mut self, now: u64, out: &mut Vec<GrantOut>) {
        let interval = super::super::fifo_interval(&self.config).unwrap().as_nanos() as u64;
        let is_due = self.fifo_at.is_some_and(|at| now >= at);
        if self.fifo_at.is_none() || is_due {
            self.fifo_at = Some(now + interval);
        }
        if !is_due {
            return;
        }
        let limit = self.window() + 2 * u64::from(self.config.fifo_grant_increment);
        let mut order: Vec<usize> = (0..self.list.len()).collect();
        order.sort_by_key(|&i| (self.list[i].birth, self.list[i].slot));
        for at in order {
            let m = &mut self.list[at];
            if m.parked || m.granted >= m.length {
                continue;
            }
            if m.incoming() >= limit {
                m.parked = true;
                continue;
            }
            let base = m.granted.max(m.received);
            m.granted = m.length.min(base + self.config.fifo_grant_increment);
            out.push(GrantOut { slot: m.slot, offset: m.granted, priority: self.config.fifo_grant_priority });
            return;
        }
    }

    fn poll(&mut self, now: u64) -> Vec<GrantOut> {
        let mut out = Vec::new();
        for slot in std::mem::take(&mut self.dirty) {
            let at = self.at(slot).unwrap();
            if self.list[at].active {
                self.send(now, at, true, &mut out);
            }
        }
        while self.total() < self.config.max_incoming {
            let Some(at) = self.best_needy() else { break };
            self.list[at].needy = false;
            self.send(now, at, false, &mut out);
        }
        out
    }
}

#[derive(Clone, Debug)]
enum Op {
    Manage { peer: u32, length: u32 },
    Receive { which: usize, bytes: u32 },
    Overrun { which: usize },
    Remove { which: usize },
    Poll { pause: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..4u32, 10_001..200_000u32).prop_map(|(peer, length)| Op::Manage { peer, length }),
        8 => (0..30usize, 1..20_000u32).prop_map(|(which, bytes)| Op::Receive { which, bytes }),
        1 => (0..30usize).prop_map(|which| Op::Overrun { which }),
        1 => (0..30usize).prop_map(|which| Op::Remove { which }),
        8 => (0..300_000u64).prop_map(|pause| Op::Poll { pause }),
    ]
}

fn run(config: GrantConfig, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let mut g = Grants::new(config);
    let mut naive = Naive { config, list: Vec::new(), dirty: Vec::new(), fifo_at: None };
    let mut now = 0;
    for (n, op) in ops.into_iter().enumerate() {
        let slot_of = |naive: &Naive, which: usize| {
            let len = naive.list.len().max(1);
            naive.list.get(which % len).map_or(u32::MAX, |m| m.slot)
        };
        match op {
            Op::Manage { peer, length } => {
                let slot = (0..).find(|&s| naive.at(s).is_none()).unwrap();
                let birth = n as u64 / 3;
                g.manage(slot, peer, length, 10_000, 0, Instant::from_nanos(birth));
                let (active, needy, parked) = (false, false, false);
                let (received, granted) = (0, 10_000);
                naive.manage(Msg { slot, peer, length, received, granted, birth, active, needy, parked });
            }
            Op::Receive { which, bytes } => {
                let slot = slot_of(&naive, which);
                let Some(at) = naive.at(slot) else { continue };
                let m = &naive.list[at];
                let received = (m.received + bytes).min(m.granted);
                g.on_received(slot, received);
                naive.receive(slot, received);
            }
            Op::Overrun { which } => {
                let slot = slot_of(&naive, which);
                let Some(at) = naive.at(slot) else { continue };
                let received = (naive.list[at].granted + 3000).min(naive.list[at].length);
                g.on_received(slot, received);
                naive.receive(slot, received);
            }
            Op::Remove { which } => {
                let slot = slot_of(&naive, which);
                g.remove(slot);
                naive.remove(slot);
            }
            Op::Poll { pause } => {
                now += pause;
                let mut out = Vec::new();
                g.poll(Instant::from_nanos(now), &mut out);
                prop_assert_eq!(out, naive.poll(now));
                let beyond = g.total_fifo_credit() + config.max_incoming;
                let unscheduled = 10_000 * naive.list.len() as u64;
                prop_assert!(g.total_incoming() <= beyond + unscheduled);
                prop_assert!(!g.wants_poll());
            }
        }
        prop_assert_eq!(g.total_incoming(), naive.total());
        prop_assert_eq!(g.n_active(), naive.n_active());
        for m in &naive.list {
            prop_assert_eq!(g.is_active(m.slot), m.active, "slot {}", m.slot);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn same_grants_as_plain_lists(
        ops in prop::collection::vec(op(), 0..200),
        max_overcommit in 1..=8usize,
        window in prop_oneof![Just(0u32), 5_000..60_000u32],
        max_incoming in 20_000..200_000u64,
    ) {
        let config = GrantConfig { max_overcommit, window, max_incoming, ..GrantConfig::default() };
        run(config, ops)?;
    }
}
