//! Incast: many hosts send a message to the same one at the same moment; when all have arrived, they do it
//! again. What counts is how fast the receiver gets them, and how long the queue at its link becomes.

use crate::host::{Delivered, OneWay};
use crate::load::Progress;
use crate::time::Picos;
use crate::topology::HostId;
use crate::world::{Application, World};

/// The host that all others send to.
pub const RECEIVER: HostId = 0;

/// Longest time without any delivery before the rest is given up.
const PATIENCE: Picos = Picos::from_millis(5_000);

/// What is sent.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct IncastSpec {
    /// Messages of a round, from the hosts in turn: a host may send several.
    pub messages: u32,
    /// Bytes of each.
    pub bytes: u32,
    /// Rounds.
    pub rounds: u32,
}

/// What came of it.
#[derive(Clone, PartialEq, Debug)]
pub struct IncastResult {
    /// How long each round took that came to its end.
    pub rounds: Vec<Picos>,
    /// Payload bytes of a round.
    pub round_bytes: u64,
    /// Messages that were not delivered: the network gave them up or was stopped.
    pub incomplete: u64,
    /// Messages that the transport refused.
    pub refused: u64,
    /// Deliveries of messages that had been delivered already.
    pub duplicates: u64,
    /// Packets that were sent and neither arrived nor were counted as dropped.
    pub unaccounted: u64,
}

impl IncastResult {
    /// Payload the receiver got while it waited for some, in Gbit/s.
    pub fn gbps(&self) -> f64 {
        let time: f64 = self.rounds.iter().map(|t| t.as_secs_f64()).sum();
        let bits = self.round_bytes as f64 * 8.0 * self.rounds.len() as f64;
        if time > 0.0 { bits / time / 1e9 } else { 0.0 }
    }
}

struct Incast {
    spec: IncastSpec,
    open: std::collections::BTreeSet<(HostId, u64)>,
    begun: Picos,
    delivered: u64,
    refused: u64,
    duplicates: u64,
    rounds: Vec<Picos>,
}

/// Runs it. `watch` as in [`crate::load::run`]; it is told of the messages of all rounds.
pub fn run<H: OneWay>(
    world: &mut World<H>,
    spec: IncastSpec,
    mut watch: impl FnMut(Progress) -> bool,
) -> IncastResult {
    let mut app = Incast {
        spec,
        open: Default::default(),
        begun: Picos::ZERO,
        delivered: 0,
        refused: 0,
        duplicates: 0,
        rounds: Vec::new(),
    };
    world.wake_at(Picos::ZERO, 0);
    let (mut delivered, mut moved_at) = (0, Picos::ZERO);
    while app.rounds.len() < spec.rounds as usize && world.now() < moved_at + PATIENCE {
        let until = world.now() + Picos::from_micros(200);
        world.run(&mut app, until);
        if app.delivered != delivered {
            (delivered, moved_at) = (app.delivered, world.now());
        }
        let created = (app.rounds.len() as u64 + 1) * u64::from(spec.messages);
        let hops = world.counters.hops;
        if !watch(Progress { created, measured: delivered, now: world.now(), hops }) {
            break;
        }
    }
    IncastResult {
        rounds: app.rounds,
        round_bytes: u64::from(spec.messages) * u64::from(spec.bytes),
        incomplete: app.open.len() as u64,
        refused: app.refused,
        duplicates: app.duplicates,
        unaccounted: world.unaccounted(),
    }
}

impl Incast {
    fn finish_round<H: OneWay>(&mut self, world: &mut World<H>) {
        self.rounds.push(world.now().since(self.begun));
        if self.rounds.len() < self.spec.rounds as usize {
            world.wake_at(world.now(), 0);
        }
    }
}

impl<H: OneWay> Application<H> for Incast {
    fn on_wake(&mut self, world: &mut World<H>, _: u64) {
        self.begun = world.now();
        let senders = u32::from(world.hosts()) - 1;
        for n in 0..self.spec.messages {
            let from = (1 + n % senders) as HostId;
            let bytes = self.spec.bytes;
            match world.call(from, |host, now| host.send(now, RECEIVER, bytes)) {
                Some(key) => _ = self.open.insert((from, key)),
                None => self.refused += 1,
            }
        }
        if self.open.is_empty() {
            self.finish_round(world);
        }
    }

    fn on_outcome(&mut self, world: &mut World<H>, _: HostId, delivered: Delivered) {
        if !self.open.remove(&(delivered.from, delivered.key)) {
            self.duplicates += 1;
            return;
        }
        world.call(delivered.from, |host, _| host.finish(delivered.key));
        self.delivered += 1;
        if self.open.is_empty() {
            self.finish_round(world);
        }
    }
}
