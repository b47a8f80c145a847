//! Stacks of several shards. The tests of requirements are named after their rows: S6 and S7 (one
//! owner, strays reach it), S8 and S9 (control by message), S13, S15 and S16 (a socket on every
//! shard, fair reading, one on a single shard), S21 (ports without asking), and what is asked of
//! shards: start, stop, affinity, back-pressure, nothing left behind. (The rows about UDP and TCP
//! ports and connections come with our own IP.)

#![allow(non_snake_case)]

#[path = "../../kevent/tests/shared/child.rs"]
mod child;
mod common;

use std::net::UdpSocket;
use std::time::Duration;

use child::in_child;
use common::{World, contents, echo, eventually, until_idle, wait};
use peyk::homa::{Addr, Event, Socket};
use peyk::{BindError, Config, Context, Error, Service, Stack};

fn stack(world: World, shards: usize) -> Stack {
    Stack::start(world.config().with_shards(shards)).unwrap()
}

fn each_world(test: impl Fn(World)) {
    for world in [World::URING_V4, World::EPOLL_V6] {
        if world.is_available() {
            test(world);
        }
    }
}

/// Calls with messages of many lengths, all answered right.
fn calls(client: &Socket, to: Addr, from: usize, count: usize) {
    let lengths = [1, 100, 1400, 5000, 70_000];
    let message = |i: usize| contents((from + i) as u64, lengths[i % lengths.len()]);
    let results = wait(client.call_many((0..count).map(|i| (to, message(i)))));
    for (i, result) in results.into_iter().enumerate() {
        assert_eq!(result.unwrap().message, message(i), "call {i}");
    }
}

#[test]
fn s13_one_socket_is_served_by_every_shard() {
    each_world(|world| {
        for (servers, clients) in [(2, 1), (4, 2), (1, 4)] {
            let (a, b) = (stack(world, servers), stack(world, clients));
            let (server, addr) = world.bind(&a, 4000);
            let echo = echo(server.clone());
            let sockets: Vec<Socket> = (0..3).map(|_| Socket::open(&b).unwrap()).collect();
            for round in 0..4 {
                sockets.iter().for_each(|socket| calls(socket, addr, round * 100, 100));
            }
            let received = a.shard_stats().unwrap().into_iter().map(|s| s.homa.requests_received);
            let received: Vec<u64> = received.collect();
            assert!(received.iter().all(|&count| count > 0), "{received:?}");
            assert_eq!(received.iter().sum::<u64>(), 1200);
            server.close();
            echo.join().unwrap();
            until_idle(&a);
            until_idle(&b);
        }
    });
}

/// S6, S7: a packet that reaches the wrong shard takes effect once, at its owner. The kernel
/// chooses by the first packet of a train, so trains of small requests bring strays.
#[test]
fn s7_strays_take_effect_once_at_their_owner() {
    each_world(|world| {
        let (a, b) = (stack(world, 3), stack(world, 1));
        let serving = a.serve_fn_each(world.at(4000), || |request| request).unwrap();
        let addr = serving.local_addr().unwrap();
        let client = Socket::open(&b).unwrap();
        for round in 0..20 {
            let results = wait(client.call_many((0..200).map(|i| (addr, contents(i + 200 * round, 64)))));
            assert!(results.into_iter().all(|result| result.is_ok()));
        }
        until_idle(&a);
        let stats = a.stats().unwrap();
        assert_eq!(stats.homa.requests_received, 4000, "each executed once");
        assert_eq!(stats.mesh.handed_over, stats.mesh.taken_over);
        assert!(stats.mesh.handed_over > 0, "no train of 4,000 requests had packets for two shards");
        assert_eq!(stats.homa.drop_no_socket, 0);
    });
}

/// S6: an RPC, and all that is known of it, is at one shard, and at no other.
#[test]
fn s6_each_rpc_is_in_the_table_of_one_shard() {
    each_world(|world| {
        let (a, b) = (stack(world, 4), stack(world, 1));
        let (server, addr) = world.bind(&a, 4000);
        let client = Socket::open(&b).unwrap();
        let calls = client.call_many((0..500).map(|i| (addr, contents(i, 1 + i as usize * 10))));
        let requests: Vec<_> = (0..500).map(|_| wait(server.recv()).unwrap()).collect();
        let at = a.shard_stats().unwrap().into_iter().map(|shard| shard.usage.rpcs).collect::<Vec<_>>();
        assert_eq!(at.iter().sum::<usize>(), 500, "{at:?}");
        assert!(at.iter().all(|&count| count > 0 && count < 500), "{at:?}");
        for request in requests {
            let message = request.message().clone();
            wait(request.reply(message)).unwrap();
        }
        assert!(wait(calls).into_iter().all(|result| result.is_ok()));
        until_idle(&a);
    });
}

/// S8: who waits for an answer and goes away leaves nothing behind: what it asked was moved, not borrowed.
#[test]
fn s8_answers_that_nobody_waits_for_leave_nothing() {
    let world = World::EPOLL_V4;
    let (a, b) = (stack(world, 2), stack(world, 2));
    let (server, addr) = world.bind(&a, 4000);
    let client = Socket::open(&b).unwrap();
    let message = contents(1, 100_000);
    for round in 0..200 {
        let call = client.call(addr, message.clone());
        if round % 2 == 0 {
            drop(wait(server.recv()).unwrap());
        }
        drop(call);
    }
    drop(server);
    until_idle(&b);
    until_idle(&a);
}

/// Packets made by hand reach their owner whoever receives them, and garbage nobody.
#[test]
fn s7_garbage_on_a_group_is_dropped_and_counted() {
    let world = World::EPOLL_V4;
    let a = stack(world, 4);
    let (_server, addr) = world.bind(&a, 4000);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in 0..200u8 {
        stranger.send_to(&vec![length; length.into()], addr.carriage()).unwrap();
    }
    let dropped = || a.stats().unwrap().homa.drop_malformed;
    for _ in 0..2000 {
        if dropped() >= 199 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(dropped() >= 199, "{}", dropped());
}

/// S15: a socket whose requests pile up on all shards is read from all of them.
#[test]
fn s15_requests_of_all_shards_are_read() {
    let world = World::EPOLL_V4;
    let (a, b) = (stack(world, 4), stack(world, 1));
    let (server, addr) = world.bind(&a, 4000);
    let client = Socket::open(&b).unwrap();
    let calls = client.call_many((0..1000).map(|i| (addr, contents(i, 20))));
    // All are there before the first is taken.
    for _ in 0..5000 {
        if a.stats().unwrap().homa.requests_received == 1000 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    for _ in 0..1000 {
        let request = wait(server.recv()).unwrap();
        let message = request.message().to_vec();
        wait(request.reply(message)).unwrap();
    }
    assert!(wait(calls).into_iter().all(|result| result.is_ok()));
}

/// S16: what is served by one shard stays there.
#[test]
fn s16_a_service_on_one_shard_gets_everything() {
    let world = World::EPOLL_V4;
    let (a, b) = (stack(world, 3), stack(world, 2));
    let serving = a.serve_fn(world.at(4000), |request| request).unwrap();
    let client = Socket::open(&b).unwrap();
    calls(&client, serving.local_addr().unwrap(), 0, 300);
    let received: Vec<u64> = a.shard_stats().unwrap().into_iter().map(|s| s.homa.requests_received).collect();
    assert_eq!(received, [300, 0, 0]);
    assert_eq!(a.stats().unwrap().mesh.handed_over, 0);
    assert!(matches!(a.serve_on(3, |_| unreachable!("there is none")), Err(BindError::NoShard)));
}

/// S21: the first request of a new socket asks no other shard for a port.
#[test]
fn s21_ports_are_chosen_without_asking() {
    let world = World::EPOLL_V4;
    let (a, b) = (stack(world, 1), stack(world, 4));
    let serving = a.serve_fn(world.at(4000), |request| request).unwrap();
    for thread in 0..8 {
        let (b, addr) = (b.clone(), serving.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let client = Socket::open(&b).unwrap();
            calls(&client, addr, thread, 5);
        });
        thread.join().unwrap();
    }
    let stats = b.shard_stats().unwrap();
    assert!(stats.iter().all(|s| s.mesh.handed_over == 0), "something was asked of another shard");
    let busy = stats.iter().filter(|s| s.homa.requests_sent > 0).count();
    assert!(busy == 4, "eight threads used only {busy} of four shards");
}

/// S8, S9: control reaches closed and stopped sockets as an answer, not as silence.
#[test]
fn s9_control_of_what_is_gone_is_answered() {
    let world = World::EPOLL_V4;
    let a = stack(world, 2);
    let (server, addr) = world.bind(&a, 4000);
    let again = server.clone();
    server.close();
    assert_eq!(wait(again.recv()).unwrap_err(), Error::Closed);
    assert_eq!(wait(again.call(addr, "x")).unwrap_err(), Error::Closed);
    again.close();
    // The port is free on every shard.
    let (server, _) = world.bind(&a, 4000);
    a.stop();
    assert_eq!(wait(server.recv()).unwrap_err(), Error::Stopped);
    assert!(matches!(Socket::bind(&a, world.at(4001)), Err(BindError::Stopped)));
    assert!(a.stats().is_err());
}

/// A second stack cannot slip into the group of the first.
#[test]
fn bind__a_group_has_its_address_alone() {
    let world = World::EPOLL_V4;
    let (a, b) = (stack(world, 2), stack(world, 2));
    let (_server, addr) = world.bind(&a, 4000);
    let same = world.at(4001).with_udp_port(addr.udp_port);
    assert!(matches!(Socket::bind(&b, same), Err(BindError::Carriage { .. })));
    // In the stack itself it is shared.
    let other = Socket::bind(&a, same).unwrap();
    assert_eq!(other.local_addr().unwrap().udp_port, addr.udp_port);
}

/// An application that takes nothing and one that never answers: the others do not notice.
#[test]
fn a_wedged_application_blocks_nobody_else() {
    let world = World::EPOLL_V4;
    let (a, b) = (stack(world, 2), stack(world, 2));
    let (_wedged, never) = world.bind(&a, 4000);
    let (healthy, addr) = world.bind(&a, 4001);
    let echo = echo(healthy.clone());
    let client = Socket::open(&b).unwrap();
    let stuck = client.call_many((0..5000).map(|i| (never, contents(i, 200))));
    for round in 0..5 {
        calls(&client, addr, round * 100, 100);
    }
    drop(stuck);
    healthy.close();
    echo.join().unwrap();
}

/// Answers requests with themselves.
struct Echo;

impl Service for Echo {
    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) {
        if let Event::Request { rpc, message, .. } = event {
            let _ = cx.reply(rpc, message.into());
        }
    }
}

/// One address, served by one shard after the other, while calls are made to it: each ends, and those that
/// are made while it is there are answered.
fn move_about(world: World, a: &Stack, b: &Stack, rounds: u64) {
    let client = Socket::open(b).unwrap();
    let mut at = world.at(6000).with_udp_port(0);
    for round in 0..rounds {
        let shard = round as usize % a.shard_count();
        // The shard that had it closes it in its own time.
        let serving = eventually(
            || format!("no room on shard {shard}"),
            || {
                let (tell, told) = std::sync::mpsc::channel();
                let serving = a.serve_on(shard, move |cx| {
                    let _ = tell.send(cx.bind(at)?.1);
                    Ok(Box::new(Echo))
                });
                at = told.try_recv().unwrap_or(at);
                serving.ok()
            },
        );
        let message = contents(round, 2000);
        assert_eq!(wait(client.call(at, message.clone())).unwrap().message, message);
        let last = client.call(at, message);
        serving.stop();
        // Answered, or refused because its socket is gone.
        match wait(last) {
            Ok(_) | Err(Error::Rpc(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Sockets opened, bound, used, moved from shard to shard and closed by several threads while others talk:
/// nothing stays.
#[test]
fn thousands_of_sockets_leave_nothing_behind() {
    // Another test's files are not ours.
    if !in_child("thousands_of_sockets_leave_nothing_behind") {
        return;
    }
    let world = World::EPOLL_V4;
    let rounds = 500;
    let (a, b) = (stack(world, 2), stack(world, 2));
    let (server, addr) = world.bind(&a, 4000);
    let echo = echo(server.clone());
    let before = open_files();
    std::thread::scope(|scope| {
        for thread in 0..2u16 {
            let (a, b) = (&a, &b);
            scope.spawn(move || {
                for round in 0..rounds {
                    let bound = Socket::bind(a, world.at(5000 + thread)).unwrap();
                    let to = bound.local_addr().unwrap();
                    let client = Socket::open(b).unwrap();
                    let call = client.call(addr, "ping");
                    // One that is never answered, and dropped with its socket.
                    let unanswered = client.call(to, contents(round, 3000));
                    assert_eq!(wait(call).unwrap().message, *b"ping");
                    match round % 3 {
                        0 => drop(unanswered),
                        1 => drop(bound),
                        _ => client.close(),
                    }
                }
            });
        }
        scope.spawn(|| move_about(world, &a, &b, rounds / 5));
        scope.spawn(|| {
            let client = Socket::open(&b).unwrap();
            for round in 0..20 {
                calls(&client, addr, round * 50, 50);
            }
        });
    });
    server.close();
    echo.join().unwrap();
    until_idle(&a);
    until_idle(&b);
    for stack in [&a, &b] {
        let stats = stack.stats().unwrap();
        assert_eq!((stats.usage.sockets, stats.app.sockets), (0, 0));
    }
    // The carriage of outgoing requests stays open: two shards of b, one address family.
    assert!(open_files() <= before + 4, "{} files, {before} before", open_files());
}

#[test]
fn start__stop__affinity() {
    for shards in [1, 2, 4] {
        let name = format!("pk{shards}x");
        let mut config = Config::default().with_udp_port(0).with_shards(shards).with_cpus([0]);
        config.name.clone_from(&name);
        let stack = Stack::start(config).unwrap();
        assert_eq!(stack.shard_stats().unwrap().len(), shards);
        let threads = threads_named(&name);
        assert_eq!(threads, vec!["0".to_owned(); shards], "CPUs of the shards' threads");
        stack.stop();
        let left = || threads_named(&name);
        eventually(|| format!("{:?} are left", left()), || left().is_empty().then_some(()));
        stack.stop();
    }
    assert!(Stack::start(Config::default().with_shards(256)).is_err());
    assert!(Stack::start(Config::default().with_shards(2).with_cpus([0, 1023])).is_err());
}

/// CPUs that threads of this process whose names begin so may use.
fn threads_named(name: &str) -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let status = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok());
    let field = |status: &str, name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()))
    };
    status
        .filter(|status| field(status, "Name:").is_some_and(|n| n.starts_with(name)))
        .filter_map(|status| field(&status, "Cpus_allowed_list:"))
        .collect()
}
