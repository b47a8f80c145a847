//! Limits that are reached: nothing is lost, nothing hangs, and afterwards nothing is left over.

#![allow(non_snake_case)] // tests are named function__case

mod common;

use std::collections::HashSet;

use common::{World, contents, echo, eventually, until_idle, wait};
use peyk::homa::{Call, RpcError, Socket};
use peyk::{Config, Error};

in_every_world!(
    application__takes_requests_late,
    application__takes_outcomes_late,
    application__answers_late,
    server__few_unanswered_requests,
    server__little_receive_memory,
    client__little_receive_memory,
    client__holds_more_than_its_memory,
    client__tiny_submission_ring,
    client__little_send_memory,
    client__few_rpcs,
    client__parked_calls_reach_their_limit,
    server__little_send_memory,
    service__little_send_memory,
);

/// More than the rings between a shard and an application hold.
const MANY: u64 = 3_000;

fn application__takes_requests_late(world: World) {
    let (a, b) = (world.stack(), world.stack());
    let (server, addr) = world.bind(&a, 4000);
    let client = Socket::open(&b).unwrap();
    let calls = client.call_many((0..MANY).map(|i| (addr, contents(i, 100))));
    let waiting = || {
        let app = a.stats().unwrap().app;
        (app.queued + app.undelivered) as u64
    };
    eventually(|| waiting().to_string(), || (waiting() == MANY).then_some(()));
    let _server = echo(server);
    for (i, result) in wait(calls).into_iter().enumerate() {
        assert!(result.unwrap().message == contents(i as u64, 100));
    }
    until_idle(&a);
    until_idle(&b);
}

fn application__takes_outcomes_late(world: World) {
    let (a, b) = (world.stack(), world.stack());
    let (server, addr) = world.bind(&a, 4000);
    let _server = echo(server);
    let client = Socket::open(&b).unwrap();
    wait(client.send_many((0..MANY).map(|i| (addr, contents(i, 100), i)))).unwrap();
    let waiting = || {
        let app = b.stats().unwrap().app;
        (app.queued + app.undelivered) as u64
    };
    eventually(|| waiting().to_string(), || (waiting() == MANY).then_some(()));
    let mut seen = HashSet::new();
    while (seen.len() as u64) < MANY {
        let outcome = wait(client.recv_response()).unwrap();
        assert!(outcome.result.unwrap().message == contents(outcome.cookie, 100));
        assert!(seen.insert(outcome.cookie));
    }
    until_idle(&a);
    until_idle(&b);
}

fn application__answers_late(world: World) {
    // Much later than a client waits for a server that says nothing: this one says BUSY.
    let (a, b) = (world.stack(), world.stack_with(|c| c.homa.timeout_ticks = 1000));
    let (server, addr) = world.bind(&a, 4000);
    let client = Socket::open(&b).unwrap();
    let calls = client.call_many((0..50).map(|i| (addr, contents(i, 1 + i as usize * 500))));
    let requests: Vec<_> = (0..50).map(|_| wait(server.recv()).unwrap()).collect();
    std::thread::sleep(std::time::Duration::from_millis(2500));
    for request in requests {
        let message = request.message().clone();
        wait(request.reply(message)).unwrap();
    }
    for (i, result) in wait(calls).into_iter().enumerate() {
        assert!(result.unwrap().message == contents(i as u64, 1 + i * 500));
    }
    until_idle(&a);
    until_idle(&b);
}

fn server__few_unanswered_requests(world: World) {
    let a = world.stack_with(|c| c.homa.max_unanswered = 8);
    let b = world.stack();
    let (server, addr) = world.bind(&a, 4000);
    let client = Socket::open(&b).unwrap();
    let calls = client.call_many((0..200).map(|i| (addr, contents(i, 1 + i as usize * 50))));
    let _server = echo(server);
    for (i, result) in wait(calls).into_iter().enumerate() {
        assert!(result.unwrap().message == contents(i as u64, 1 + i * 50));
    }
    assert!(a.stats().unwrap().homa.drop_unanswered > 0);
    until_idle(&a);
    until_idle(&b);
}

fn server__little_receive_memory(world: World) {
    let (a, b) = (world.stack_with(|c| c.receive_memory = 1 << 20), world.stack());
    let (server, addr) = world.bind(&a, 4000);
    let _server = echo(server);
    let client = Socket::open(&b).unwrap();
    let calls = client.call_many((0..60).map(|i| (addr, contents(i, 200_000 + i as usize * 1000))));
    for (i, result) in wait(calls).into_iter().enumerate() {
        assert!(result.unwrap().message == contents(i as u64, 200_000 + i * 1000));
    }
    assert!(a.stats().unwrap().homa.memory_waits > 0);
    until_idle(&a);
    until_idle(&b);
}

fn client__little_receive_memory(world: World) {
    let (a, b) = (world.stack(), world.stack_with(|c| c.receive_memory = 1 << 20));
    let (server, addr) = world.bind(&a, 4000);
    let _server = echo(server);
    let client = Socket::open(&b).unwrap();
    // Each thread drops its response before it makes the next call, else they would wait for
    // themselves.
    let threads: Vec<_> = (0..16)
        .map(|t| {
            let client = client.clone();
            std::thread::spawn(move || {
                for i in 0..6 {
                    let message = contents(t * 10 + i, 300_000);
                    assert!(wait(client.call(addr, message.clone())).unwrap().message == message);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    until_idle(&a);
    until_idle(&b);
}

fn client__holds_more_than_its_memory(world: World) {
    let limits = |c: &mut Config| {
        c.receive_memory = c.shards << 20;
        c.homa.memory_timeout_ticks = 300;
    };
    let (a, b) = (world.stack(), world.stack_with(limits));
    let (server, addr) = world.bind(&a, 4000);
    let _server = echo(server);
    let client = Socket::open(&b).unwrap();
    // The first responses are kept until the last has come.
    let results = wait(client.call_many((0..30).map(|i| (addr, contents(i, 100_000)))));
    let (kept, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert!(kept.len() >= 8 && kept.len() <= 11, "{} of 100,000 bytes in 1 MiB", kept.len());
    for result in failed {
        assert_eq!(result.unwrap_err(), Error::Rpc(RpcError::NoMemory));
    }
    drop(kept);
    assert!(wait(client.call(addr, contents(1, 100_000))).unwrap().message == contents(1, 100_000));
    until_idle(&a);
    until_idle(&b);
}

fn client__tiny_submission_ring(world: World) {
    let (a, b) = (world.stack_with(|c| c.submissions = 2), world.stack_with(|c| c.submissions = 2));
    let (server, addr) = world.bind(&a, 4000);
    let _servers = [echo(server.clone()), echo(server)];
    let client = Socket::open(&b).unwrap();
    let threads: Vec<_> = (0..8)
        .map(|t| {
            let client = client.clone();
            std::thread::spawn(move || {
                for round in 0..10 {
                    let seed = |i| t * 1000 + round * 20 + i;
                    let calls = client.call_many((0..20).map(|i| (addr, contents(seed(i), 200))));
                    // Some are given up, too.
                    drop(client.call_many((0..20).map(|i| (addr, contents(i, 300)))));
                    for (i, result) in wait(calls).into_iter().enumerate() {
                        assert!(result.unwrap().message == contents(seed(i as u64), 200));
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    wait(client.send_many((0..100).map(|i| (addr, contents(i, 10), i)))).unwrap();
    for _ in 0..100 {
        wait(client.recv_response()).unwrap().result.unwrap();
    }
    until_idle(&a);
    until_idle(&b);
}

fn client__little_send_memory(world: World) {
    let (a, b) = (world.stack(), world.stack_with(|c| c.homa.wmem_max = 50_000));
    all_answered(world, &a, &b);
    assert!(b.stats().unwrap().homa.send_full > 0);
}

fn client__few_rpcs(world: World) {
    let (a, b) = (world.stack(), world.stack_with(|c| c.homa.max_rpcs = 3));
    all_answered(world, &a, &b);
    assert!(b.stats().unwrap().homa.send_full > 0);
}

fn all_answered(world: World, a: &peyk::Stack, b: &peyk::Stack) {
    let (server, addr) = world.bind(a, 4000);
    let _server = echo(server);
    let clients = [Socket::open(b).unwrap(), Socket::open(b).unwrap()];
    let calls: Vec<(u64, Call)> =
        (0..400).map(|i| (i, clients[i as usize % 2].call(addr, contents(i, 1 + i as usize * 60)))).collect();
    for (i, call) in calls {
        assert!(wait(call).unwrap().message == contents(i, 1 + i as usize * 60));
    }
    until_idle(a);
    until_idle(b);
}

fn client__parked_calls_reach_their_limit(world: World) {
    let a = world.stack();
    let b = world.stack_with(|c| {
        c.homa.wmem_max = 10_000;
        c.parked_calls = 10;
    });
    let (server, addr) = world.bind(&a, 4000);
    let client = Socket::open(&b).unwrap();
    let calls = client.call_many((0..30).map(|i| (addr, contents(i, 10_000))));
    // One is sent, ten wait, the others are refused before anything is answered.
    let _server = echo(server);
    let results = wait(calls);
    let full = results.iter().filter(|r| r.as_ref().is_err_and(|e| *e == Error::Full)).count();
    assert!((1..=19).contains(&full), "{full}");
    for (i, result) in results.into_iter().enumerate() {
        match result {
            Ok(response) => assert!(response.message == contents(i as u64, 10_000)),
            Err(e) => assert_eq!(e, Error::Full),
        }
    }
    until_idle(&a);
    until_idle(&b);
}

fn server__little_send_memory(world: World) {
    let (a, b) = (world.stack_with(|c| c.homa.wmem_max = 50_000), world.stack());
    all_answered(world, &a, &b);
    assert!(a.stats().unwrap().homa.send_full > 0);
}

fn service__little_send_memory(world: World) {
    let (a, b) = (world.stack_with(|c| c.homa.wmem_max = 50_000), world.stack());
    let service = a.serve_fn(world.at(4000), |request| request).unwrap();
    let client = Socket::open(&b).unwrap();
    let to = service.local_addr().unwrap();
    let calls = client.call_many((0..100).map(|i| (to, contents(i, 30_000))));
    for (i, result) in wait(calls).into_iter().enumerate() {
        assert!(result.unwrap().message == contents(i as u64, 30_000));
    }
    assert!(a.stats().unwrap().homa.send_full > 0);
    until_idle(&a);
    until_idle(&b);
}
