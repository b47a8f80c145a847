//! Network priorities of packets, and the cutoffs hosts tell each other.

use peyk_homa::Config;
use peyk_wire::homa::PacketType;

use crate::common::lab::ID;
use crate::common::*;

#[test]
fn control_packets_use_the_top_level() {
    for levels in [1u8, 2, 4, 8] {
        let mut lab = Lab::with(Config { num_priorities: levels, ..Config::default() }, 16);
        let sent = lab.feed(&Lab::from_client(ID).resend_all());
        assert_eq!(sent[0].priority, levels - 1);
    }
}

#[test]
fn before_cutoffs_data_goes_one_level_below_the_top() {
    for (levels, expected) in [(1u8, 0), (2, 0), (3, 1), (6, 4), (8, 6)] {
        let mut lab = Lab::with(Config { num_priorities: levels, ..Config::default() }, 16);
        let (_, sent) = lab.request(pattern(50_000));
        assert!(sent.iter().all(|s| s.priority == expected), "{levels} levels");
    }
}

#[test]
fn cutoffs_sent_are_the_configured_ones_made_consistent() {
    let mut lab = Lab::new();
    let sent = lab.feed(&Lab::from_client(ID).whole(b"x"));
    let cutoffs = only(&sent, PacketType::Cutoffs)[0].cutoffs();
    let expected = [0x7fff_ffff, 0, 0, 0, 1_000_000, 15_000, 2_800, 200];
    assert_eq!((cutoffs.unsched_cutoffs, cutoffs.cutoff_version), (expected, 1));
}

#[test]
fn two_hosts_agree_after_the_first_exchange() {
    let mut world = World::pair();
    for _ in 0..2 {
        let rpc = world.request(pattern(150));
        world.settle();
        world.response(rpc);
    }
    let host = &world.hosts[CLIENT];
    let data: Vec<_> = host.sent.iter().filter(|s| s.kind() == PacketType::Data).collect();
    assert_eq!((data[0].priority, data[0].data().cutoff_version), (6, 0));
    assert_eq!((data[1].priority, data[1].data().cutoff_version), (7, 1));
    for host in &world.hosts {
        assert_eq!(only(&host.sent, PacketType::Cutoffs).len(), 1);
    }
}

#[test]
fn lost_cutoffs_are_sent_again() {
    let mut world = World::pair();
    let mut dropped = 0;
    world.rule = Box::new(move |seen| {
        if seen.is(PacketType::Cutoffs) && dropped < 2 {
            dropped += 1;
            return Verdict::Drop;
        }
        Verdict::Pass
    });
    for _ in 0..4 {
        let rpc = world.request(pattern(150));
        world.run(ms(2));
        world.response(rpc);
    }
    let sent = only(&world.hosts[CLIENT].sent, PacketType::Data);
    assert_eq!(sent.last().unwrap().data().cutoff_version, 1);
}

#[test]
fn unscheduled_priority_is_by_message_length_scheduled_by_grant() {
    let mut lab = Lab::new();
    let (rpc, _) = lab.request(pattern(10));
    lab.feed(&lab.server_of(rpc).cutoffs([0, 0, 0, 0, 1_000_000, 15_000, 2_800, 200], 1));
    for (len, expected) in [(200, 7), (201, 6), (2_801, 5), (15_001, 4)] {
        let (_, sent) = lab.request(pattern(len));
        assert!(sent.iter().all(|s| s.priority == expected), "{len} bytes");
    }
    let (rpc, sent) = lab.request(pattern(60_000));
    assert!(sent.iter().all(|s| s.priority == 4));
    let sent = lab.feed(&lab.server_of(rpc).grant(60_000, 0));
    assert!(sent.iter().all(|s| s.priority == 0));
}

#[test]
fn cutoffs_follow_the_sizes_received() {
    let mut world = World::pair();
    world.hosts[SERVER].endpoint.handle_timeout(world.now);
    // Ten thousand requests of 300 bytes within a second or so.
    for _ in 0..120 {
        let rpcs: Vec<_> = (0..100).map(|_| world.request(pattern(300))).collect();
        world.run(ms(10));
        for rpc in rpcs {
            world.response(rpc);
        }
    }
    let rpc = world.request(pattern(300));
    world.run(ms(5));
    world.response(rpc);
    let rpc = world.request(pattern(300));
    world.run(ms(5));
    world.response(rpc);
    let cutoffs = only(&world.hosts[SERVER].sent, PacketType::Cutoffs);
    assert!(cutoffs.len() >= 2, "new cutoffs were announced");
    assert_eq!(cutoffs.last().unwrap().cutoffs().cutoff_version, 2);
    let last = world.hosts[CLIENT].sent.iter().rfind(|s| s.kind() == PacketType::Data).unwrap();
    assert_eq!(last.data().cutoff_version, 2, "and taken over");
}
