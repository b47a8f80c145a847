//! The rule that carries out the faults that concern packets, and shows every packet to the checkers.

use std::cell::RefCell;
use std::rc::Rc;

use peyk_sansio::Prng;
use peyk_wire::homa::{Packet as HomaPacket, TYPE_AT};

use super::liar;
use super::plan::{Fault, FaultKind, Lie, Noise};
use super::{Rule, Verdict};
use crate::checker::wire::Wire;
use crate::host::homa::HomaBody;
use crate::packet::Packet;
use crate::scenario::Scenario;
use crate::time::Picos;
use crate::topology::HostId;
use crate::trace::Trace;

/// Packets of others remembered for impostors.
const OVERHEARD: usize = 64;

/// What is seen of the packets of a run; shared by the rule and the run.
#[derive(Debug)]
pub struct Eye {
    /// The trace.
    pub trace: Trace,
    /// The checkers of packets.
    pub wire: Wire,
    /// Some packets that were sent, without their payload.
    pub overheard: Vec<Packet<HomaBody>>,
    /// Packets seen.
    pub seen: u64,
    bytes: Vec<u8>,
}

impl Eye {
    /// Nothing seen yet.
    pub fn new(scenario: &Scenario, is_verbose: bool) -> Eye {
        Eye {
            trace: Trace::new(is_verbose),
            wire: Wire::new(scenario.hosts(), &scenario.config),
            overheard: Vec::new(),
            seen: 0,
            bytes: Vec::new(),
        }
    }

    /// Calls `f` with the packet as bytes.
    fn with_parsed(&mut self, packet: &Packet<HomaBody>, f: impl FnOnce(&mut Wire, &HomaPacket<'_>)) {
        self.bytes.clear();
        self.bytes.extend_from_slice(packet.body.header.as_slice());
        for chunk in packet.body.payload.chunks() {
            self.bytes.extend_from_slice(chunk);
        }
        if let Ok(parsed) = HomaPacket::parse(&self.bytes) {
            f(&mut self.wire, &parsed);
        }
    }
}

/// See the module documentation.
#[derive(Debug)]
pub struct Network {
    noise: Noise,
    faults: Vec<Fault>,
    heal_at: Picos,
    random: Prng,
    eye: Rc<RefCell<Eye>>,
}

impl Network {
    /// The network of a scenario.
    pub fn new(scenario: &Scenario, eye: Rc<RefCell<Eye>>) -> Network {
        let concerns_packets = |f: &&Fault| {
            matches!(f.kind, FaultKind::Cut { .. } | FaultKind::Mute { .. } | FaultKind::Lie { .. })
        };
        Network {
            noise: scenario.noise,
            faults: scenario.faults.iter().filter(concerns_packets).copied().collect(),
            heal_at: scenario.heal_at(),
            random: Prng::new(scenario.seed ^ 0x006e_6574_776f_726b),
            eye,
        }
    }

    fn is_cut(&self, now: Picos, packet: &Packet<HomaBody>) -> bool {
        let has = |hosts: u64, host: HostId| hosts >> host & 1 == 1;
        let (a, b) = (packet.from, packet.to);
        self.faults.iter().filter(|f| f.lasts_at(now)).any(|fault| match fault.kind {
            FaultKind::Cut { from, to, both_ways } => {
                has(from, a) && has(to, b) || both_ways && has(from, b) && has(to, a)
            }
            FaultKind::Mute { host, kind } => {
                host == a && packet.body.header.as_slice().get(TYPE_AT) == Some(&kind.code())
            }
            _ => false,
        })
    }

    /// The lie that a host is at, if any.
    fn lie_of(&self, now: Picos, host: HostId) -> Option<Lie> {
        self.faults.iter().filter(|f| f.lasts_at(now)).find_map(|fault| match fault.kind {
            FaultKind::Lie { host: liar, how } if liar == host => Some(how),
            _ => None,
        })
    }

    fn decide(&mut self, now: Picos, packet: &Packet<HomaBody>) -> Verdict {
        if self.is_cut(now, packet) {
            return Verdict::Drop;
        }
        if now >= self.heal_at {
            return Verdict::Pass;
        }
        let (noise, random) = (self.noise, &mut self.random);
        let mut some = |chance: f64| chance > 0.0 && random.chance(chance);
        if some(noise.loss) {
            Verdict::Drop
        } else if some(noise.corruption) {
            Verdict::Corrupt
        } else if some(noise.duplication) {
            Verdict::Duplicate(Picos(random.below(noise.lag.0.max(1))))
        } else if some(noise.spikes) {
            Verdict::Delay(Picos(random.below(noise.lag.0.max(1))))
        } else if some(noise.reordering) {
            Verdict::Delay(Picos(random.below(noise.jitter.0.max(1))))
        } else {
            Verdict::Pass
        }
    }
}

impl Rule<HomaBody> for Network {
    fn judge(&mut self, now: Picos, packet: &mut Packet<HomaBody>) -> Verdict {
        let verdict = self.decide(now, packet);
        let eye = Rc::clone(&self.eye);
        let mut eye = eye.borrow_mut();
        eye.with_parsed(packet, |wire, parsed| wire.on_sent(now, packet.from, packet.to, parsed));
        let mut note = match verdict {
            Verdict::Pass => String::new(),
            Verdict::Drop => "lost".to_owned(),
            Verdict::Delay(by) => format!("late by {by}"),
            Verdict::Duplicate(by) => format!("again {by} later"),
            Verdict::Corrupt => "corrupted".to_owned(),
        };
        if let Some(lie) = self.lie_of(now, packet.from)
            && liar::alter(lie, packet, &mut self.random)
        {
            note.push_str(" (a lie)");
        }
        eye.trace.packet(now, packet, &note);
        eye.seen += 1;
        let slot = (eye.seen % OVERHEARD as u64) as usize;
        let overheard = packet.clone();
        match eye.overheard.get_mut(slot) {
            Some(place) => *place = overheard,
            None => eye.overheard.push(overheard),
        }
        verdict
    }

    fn on_delivery(&mut self, now: Picos, packet: &Packet<HomaBody>) {
        let eye = Rc::clone(&self.eye);
        eye.borrow_mut()
            .with_parsed(packet, |wire, parsed| wire.on_delivered(now, packet.from, packet.to, parsed));
    }
}
