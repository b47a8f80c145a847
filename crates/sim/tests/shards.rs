//! Hosts of several endpoints that share the host's budget: how far what they authorise together goes beyond
//! what one endpoint would, and that everything arrives. Packets are given to their owner as the kernel's
//! filter would; summaries are exchanged when an endpoint has its turn.
#![allow(non_snake_case)] // tests are named function__case

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use peyk_homa::{Budget, steer};
use peyk_sansio::Instant;
use peyk_sim::experiment::simulated;
use peyk_sim::host::homa::{Carriage, HomaBody, HomaHost, OneWayHoma};
use peyk_sim::host::{Delivered, Host, OneWay};
use peyk_sim::packet::Packet;
use peyk_sim::port::Discipline;
use peyk_sim::{Application, HostId, Picos, Topology, World};
use peyk_sockbuf::Pool;

const CARRIAGE: Carriage = Carriage { contents: false, data_header_bytes: 0 };

/// A host with several endpoints.
struct Sharded {
    shards: Vec<OneWayHoma>,
    budget: Budget,
    /// Whose turn it is to send.
    turn: usize,
    /// Most bytes authorised at one time by all together.
    peak: Rc<Cell<u64>>,
}

impl Sharded {
    fn balance(&mut self) {
        for (number, shard) in self.shards.iter_mut().enumerate() {
            self.budget.balance(number as u8, shard.endpoint_mut());
        }
        let total = self.shards.iter().map(|shard| shard.endpoint().total_incoming()).sum();
        self.peak.set(self.peak.get().max(total));
    }
}

impl Host for Sharded {
    type Body = HomaBody;
    type Outcome = Delivered;

    fn handle_packet(&mut self, now: Instant, packet: Packet<HomaBody>) {
        let owner = steer::shard_of_packet(packet.body.header.as_slice(), self.shards.len() as u8);
        self.shards[usize::from(owner)].handle_packet(now, packet);
        self.balance();
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.shards.iter_mut().for_each(|shard| shard.handle_timeout(now));
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Packet<HomaBody>> {
        self.balance();
        let count = self.shards.len();
        (0..count).find_map(|_| {
            self.turn = (self.turn + 1) % count;
            self.shards[self.turn].poll_transmit(now)
        })
    }

    fn poll_outcome(&mut self) -> Option<Delivered> {
        self.shards.iter_mut().find_map(Host::poll_outcome)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.shards.iter().filter_map(Host::poll_timeout).min()
    }
}

impl OneWay for Sharded {
    fn send(&mut self, now: Instant, to: HostId, bytes: u32) -> Option<u64> {
        self.turn = (self.turn + 1) % self.shards.len();
        self.shards[self.turn].send(now, to, bytes)
    }

    fn finish(&mut self, key: u64) {
        let owner = usize::from(peyk_homa::RpcId(key).shard()) % self.shards.len();
        self.shards[owner].finish(key);
    }
}

#[derive(Default)]
struct Count(usize);

impl Application<Sharded> for Count {
    fn on_wake(&mut self, _: &mut World<Sharded>, _: u64) {}
    fn on_outcome(&mut self, world: &mut World<Sharded>, _: HostId, delivered: Delivered) {
        self.0 += 1;
        world.call(delivered.from, |host, _| host.finish(delivered.key));
    }
}

/// Ten hosts send long messages to one, which has so many endpoints: the most it authorised at a time, and
/// how long all took.
fn incast(shards: u8) -> (u64, Picos) {
    let zeros = Bytes::from(vec![0; 1 << 20]);
    let topology = Topology::default();
    let peak = Rc::new(Cell::new(0));
    let host = |id: HostId| {
        let count = if id == 0 { shards } else { 1 };
        let endpoint = |shard| {
            let config = peyk_homa::Config { mtu: 1_472 + 20 + 8 + 56, shard, shards: count, ..simulated() };
            let pool = Pool::hollow(4096).expect("memory");
            let seed = 7 + u64::from(id) * 16 + u64::from(shard);
            OneWayHoma::new(
                HomaHost::new(id, config, CARRIAGE, seed, pool, Default::default()),
                zeros.clone(),
                true,
            )
        };
        let budget = Budget::new(count, simulated().max_incoming.into());
        let peak = if id == 0 { peak.clone() } else { Rc::default() };
        Sharded { shards: (0..count).map(endpoint).collect(), budget, turn: 0, peak }
    };
    let hosts = (0..topology.hosts()).map(host).collect();
    let mut world = World::new(topology, Discipline::StrictPriority, 1, hosts);
    let mut count = Count::default();
    let mut sent = 0;
    for from in 1..=10 {
        for message in 0..20u32 {
            let bytes = 50_000 + (u32::from(from) * 7919 + message * 104_729) % 400_000;
            world.call(from, |host, now| host.send(now, 0, bytes)).expect("accepted");
            sent += 1;
        }
    }
    while count.0 < sent && world.step(&mut count, Picos::from_millis(500)) {}
    assert_eq!(count.0, sent, "with {shards} shards");
    (peak.get(), world.now())
}

/// With one endpoint the budget does nothing (see its own tests). What senders may send unscheduled is
/// authorised by nobody and comes on top, so the measure is what one endpoint lets come in.
#[test]
fn budget__with_more_shards_no_more_comes_in_than_half_as_much_again() {
    let (alone, time_alone) = incast(1);
    println!("1 shard: {alone} bytes authorised at most, {time_alone}");
    for shards in [2, 4, 8] {
        let (peak, time) = incast(shards);
        println!("{shards} shards: {peak} bytes authorised at most, {time}");
        assert!(peak <= alone * 3 / 2, "{peak} with {shards} shards, {alone} with one");
        assert!(time.0 <= time_alone.0 * 5 / 4, "{time} with {shards} shards, {time_alone} with one");
    }
}
