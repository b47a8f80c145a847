//! A network that loses, doubles, delays and spoils packets: every call is executed exactly once
//! and comes back intact.

#![allow(non_snake_case)] // tests are named function__case

mod common;

use std::collections::HashMap;
use std::thread::JoinHandle;

use common::{World, contents, until_idle, wait};
use peyk::homa::Socket;
use peyk::{Faults, Stack};

in_every_world!(
    loss__few,
    loss__many,
    duplicates,
    reordering,
    everything_at_once,
    corruption__harms_no_bystander,
);

const CALLS: u64 = 400;

fn loss__few(world: World) {
    exactly_once(world, Faults::loss(0.01));
}

fn loss__many(world: World) {
    exactly_once(world, Faults::loss(0.05));
}

fn duplicates(world: World) {
    exactly_once(world, Faults { duplicate: 0.2, ..Faults::default() });
}

fn reordering(world: World) {
    exactly_once(world, Faults { reorder: 0.2, ..Faults::default() });
}

fn everything_at_once(world: World) {
    exactly_once(world, Faults { drop: 0.03, duplicate: 0.05, reorder: 0.1, corrupt: 0.0 });
}

fn stack(world: World, faults: Faults, seed: u64) -> Stack {
    world.stack_with(|c| {
        c.faults = Some(faults);
        c.seed = Some(seed);
    })
}

fn message(id: u64) -> Vec<u8> {
    let size = [8, 100, 1_500, 5_000, 30_000, 70_000, 300_000][(id % 7) as usize];
    let mut message = contents(id, size);
    message[..8].copy_from_slice(&id.to_le_bytes());
    message
}

/// Answers each request with its own bytes; returns how often each id came.
fn counting(server: Socket) -> JoinHandle<HashMap<u64, u32>> {
    std::thread::spawn(move || {
        let mut seen = HashMap::new();
        while let Ok(request) = peyk::block_on(server.recv()) {
            let mut id = [0; 8];
            request.message().copy_to(&mut id);
            *seen.entry(u64::from_le_bytes(id)).or_default() += 1;
            let message = request.message().clone();
            wait(request.reply(message)).unwrap();
        }
        seen
    })
}

fn exactly_once(world: World, faults: Faults) {
    let (a, b) = (stack(world, faults, 1), stack(world, faults, 2));
    let (server, addr) = world.bind(&a, 4000);
    let executions = counting(server.clone());
    let threads: Vec<_> = (0..4u64)
        .map(|t| {
            let client = Socket::open(&b).unwrap();
            std::thread::spawn(move || {
                // Ten under way at a time.
                for first in (t * CALLS / 4..(t + 1) * CALLS / 4).step_by(10) {
                    let ids = first..first + 10;
                    let results = wait(client.call_many(ids.clone().map(|id| (addr, message(id)))));
                    for (id, result) in ids.zip(results) {
                        assert!(result.unwrap().message == message(id), "call {id} came back changed");
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    until_idle(&b);
    until_idle(&a);
    let made = a.stats().unwrap().driver.faults;
    assert_eq!(made.dropped > 0, faults.drop > 0.0);
    assert_eq!(made.duplicated > 0, faults.duplicate > 0.0);
    server.close();
    let executions = executions.join().unwrap();
    assert_eq!(executions.len() as u64, CALLS);
    assert!(executions.values().all(|&times| times == 1), "{executions:?}");
}

fn corruption__harms_no_bystander(world: World) {
    // A flipped bit in a message goes unnoticed: Homa has no checksum of its own, and here UDP's
    // is computed afterwards. But whatever it hits, every call ends and nothing is left over.
    let faults = Faults { corrupt: 0.02, ..Faults::default() };
    let (a, b) = (stack(world, faults, 3), world.stack());
    let c = world.stack();
    let (server, addr) = world.bind(&a, 4000);
    let _executions = counting(server.clone());
    let (bystander, elsewhere) = world.bind(&c, 4000);
    let _bystander = counting(bystander);
    let client = Socket::open(&b).unwrap();
    for round in 0..20 {
        let ids = round * 20..round * 20 + 20;
        let spoilt = client.call_many(ids.clone().map(|id| (addr, message(id))));
        let clean = client.call_many(ids.clone().map(|id| (elsewhere, message(id))));
        for (id, result) in ids.zip(wait(clean)) {
            assert!(result.unwrap().message == message(id));
        }
        // Answered or failed, it does not matter which.
        assert_eq!(wait(spoilt).len(), 20);
    }
    until_idle(&b);
    until_idle(&a);
}
