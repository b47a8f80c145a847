//! Requests and responses over real sockets: sizes, many at once, many threads, runtimes.

#![allow(non_snake_case)] // tests are named function__case

mod common;

use std::collections::HashSet;

use common::{World, contents, echo, until_idle, wait};
use peyk::homa::{Addr, SendError, Socket};
use peyk::{BindError, Error, RpcError, blocking};

in_every_world!(
    call__sizes,
    call__many_at_once,
    call__within_one_stack,
    sockets__several,
    clones__on_many_threads,
    tokio__many_threads,
    tokio__one_thread,
    send__outcomes_by_cookie,
    recv_batch__takes_what_is_there,
    bind__unspecified_address,
    bind__any_homa_port,
    serve_fn__answers_on_the_shard,
    blocking__same_calls,
    poll__spin_and_sleep,
);

const SIZES: [usize; 18] = [
    1, 2, 63, 64, 110, 111, 1_000, 1_399, 1_400, 1_401, 9_000, 40_000, 40_001, 65_535, 65_536, 65_537,
    500_000, 1_000_000,
];

fn call__sizes(world: World) {
    let (a, b) = (world.stack(), world.stack());
    let (server, addr) = world.bind(&a, 4000);
    let server = echo(server);
    let client = Socket::open(&b).unwrap();
    for size in SIZES {
        let message = contents(size as u64, size);
        let response = wait(client.call(addr, message.clone())).unwrap();
        assert_eq!(response.from, addr);
        assert!(response.message == message, "{size} bytes came back changed");
    }
    drop(client);
    until_idle(&a);
    until_idle(&b);
    a.stop();
    assert_eq!(server.join().unwrap(), SIZES.len() as u64);
}

fn call__many_at_once(world: World) {
    let (a, b) = (world.stack(), world.stack());
    let (server, addr) = world.bind(&a, 4000);
    let _server = echo(server);
    let client = Socket::open(&b).unwrap();
    let messages: Vec<_> = (0..1500).map(|i| contents(i, SIZES[i as usize % 13])).collect();
    let results = wait(client.call_many(messages.iter().map(|m| (addr, m.clone()))));
    assert_eq!(results.len(), messages.len());
    for (result, message) in results.into_iter().zip(&messages) {
        assert!(result.unwrap().message == *message);
    }
    until_idle(&a);
    until_idle(&b);
}

fn call__within_one_stack(world: World) {
    let stack = world.stack();
    let (server, addr) = world.bind(&stack, 4000);
    let client = Socket::open(&stack).unwrap();
    let server = echo(server);
    // A bound socket makes requests too, even to itself.
    let other = Socket::bind(&stack, world.at(4001)).unwrap();
    for (i, size) in SIZES.into_iter().enumerate() {
        let message = contents(i as u64, size);
        for socket in [&client, &other] {
            assert!(wait(socket.call(addr, message.clone())).unwrap().message == message);
        }
    }
    until_idle(&stack);
    stack.stop();
    server.join().unwrap();
}

fn sockets__several(world: World) {
    let (a, b) = (world.stack(), world.stack());
    let servers: Vec<_> = (0..4).map(|i| world.bind(&a, 4000 + i)).collect();
    let addrs: Vec<Addr> = servers.iter().map(|&(_, addr)| addr).collect();
    for (server, addr) in servers {
        std::thread::spawn(move || {
            while let Ok(request) = peyk::block_on(server.recv()) {
                peyk::block_on(request.reply(addr.port.to_string())).unwrap();
            }
        });
    }
    let clients: Vec<_> = (0..4).map(|_| Socket::open(&b).unwrap()).collect();
    let calls: Vec<_> = clients
        .iter()
        .flat_map(|client| addrs.iter().map(|&addr| (addr, client.call(addr, contents(1, 5_000)))))
        .collect();
    for (addr, call) in calls {
        assert_eq!(wait(call).unwrap().message, addr.port.to_string().into_bytes());
    }
    until_idle(&a);
    until_idle(&b);
}

fn clones__on_many_threads(world: World) {
    let (a, b) = (world.stack(), world.stack());
    let (server, addr) = world.bind(&a, 4000);
    let servers: Vec<_> = (0..4).map(|_| echo(server.clone())).collect();
    let client = Socket::open(&b).unwrap();
    let clients: Vec<_> = (0..8)
        .map(|t| {
            let client = client.clone();
            std::thread::spawn(move || {
                for i in 0..100 {
                    let message = contents(t * 1000 + i, SIZES[(t + i) as usize % 12]);
                    assert!(wait(client.call(addr, message.clone())).unwrap().message == message);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|c| c.join().unwrap());
    until_idle(&a);
    until_idle(&b);
    a.stop();
    assert_eq!(servers.into_iter().map(|s| s.join().unwrap()).sum::<u64>(), 800);
}

fn tokio__many_threads(world: World) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    runtime.block_on(on_tokio(world));
}

fn tokio__one_thread(world: World) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(on_tokio(world));
}

async fn on_tokio(world: World) {
    let (a, b) = (world.stack(), world.stack());
    let (server, addr) = world.bind(&a, 4000);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let server = server.clone();
        tasks.spawn(async move {
            while let Ok(request) = server.recv().await {
                // Answered by another task, in any order.
                tokio::spawn(async move {
                    let (message, responder) = request.into_parts();
                    tokio::task::yield_now().await;
                    responder.reply(message).await.unwrap();
                });
            }
        });
    }
    let client = Socket::open(&b).unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for i in 0..300 {
        let client = client.clone();
        calls.spawn(async move {
            let message = contents(i, SIZES[i as usize % 14]);
            assert!(client.call(addr, message.clone()).await.unwrap().message == message);
        });
    }
    let all = async {
        while let Some(done) = calls.join_next().await {
            done.unwrap()
        }
    };
    tokio::time::timeout(common::HANG, all).await.expect("it hangs");
    server.close();
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

fn send__outcomes_by_cookie(world: World) {
    let (a, b) = (world.stack(), world.stack());
    let (server, addr) = world.bind(&a, 4000);
    let _server = echo(server);
    let client = Socket::open(&b).unwrap();
    let nobody = Addr { port: 9, ..addr };
    wait(client.send_many((0..500).map(|i| (addr, contents(i, 1 + i as usize * 7), i)))).unwrap();
    wait(client.send(nobody, "?", 500)).unwrap();
    let mut outcomes = Vec::new();
    while outcomes.len() < 501 {
        let taken = wait(client.recv_response_batch(&mut outcomes, 64)).unwrap();
        assert!((1..=64).contains(&taken));
    }
    assert_eq!(outcomes.iter().map(|o| o.cookie).collect::<HashSet<_>>().len(), 501);
    for outcome in outcomes {
        match outcome.cookie {
            500 => assert_eq!(outcome.result.unwrap_err(), Error::Rpc(RpcError::NoSocket)),
            i => assert!(outcome.result.unwrap().message == contents(i, 1 + i as usize * 7)),
        }
    }
    assert!(client.try_recv_response().is_none());
    until_idle(&a);
    until_idle(&b);
}

fn recv_batch__takes_what_is_there(world: World) {
    let stack = world.stack();
    let (server, addr) = world.bind(&stack, 4000);
    let client = Socket::open(&stack).unwrap();
    let calls = client.call_many((0..50u8).map(|i| (addr, vec![i])));
    let mut requests = Vec::new();
    assert_eq!(wait(server.recv_batch(&mut requests, 0)).unwrap(), 0);
    while requests.len() < 50 {
        let left = 50 - requests.len();
        let taken = wait(server.recv_batch(&mut requests, left.min(8))).unwrap();
        assert!((1..=8).contains(&taken));
    }
    assert!(server.try_recv().is_none());
    let seen: HashSet<Vec<u8>> = requests.iter().map(|r| r.message().to_vec()).collect();
    assert_eq!(seen.len(), 50);
    for request in requests {
        let message = request.message().clone();
        wait(request.reply(message)).unwrap();
    }
    assert!(wait(calls).into_iter().enumerate().all(|(i, r)| r.unwrap().message == [i as u8]));
    until_idle(&stack);
}

fn bind__unspecified_address(world: World) {
    let stack = world.stack();
    let any = if world.ip.is_ipv4() { "0.0.0.0:4000" } else { "[::]:4000" };
    let server = Socket::bind(&stack, any).unwrap();
    let addr = server.local_addr().unwrap();
    assert!(addr.ip.is_unspecified());
    let _server = echo(server);
    let client = Socket::open(&stack).unwrap();
    assert_eq!(wait(client.call(addr, "x")).unwrap().message, b"x");
    // The unspecified IPv6 address takes requests over IPv4 as well.
    let v4 = Addr { ip: std::net::Ipv4Addr::LOCALHOST.into(), ..addr };
    assert_eq!(wait(client.call(v4, contents(3, 20_000))).unwrap().message, contents(3, 20_000));
    until_idle(&stack);
}

fn bind__any_homa_port(world: World) {
    let stack = world.stack();
    let (one, first) = world.bind(&stack, 0);
    let (_two, second) = world.bind(&stack, 0);
    assert!(first.port != 0 && second.port != 0 && first != second);
    let _server = echo(one);
    let client = Socket::open(&stack).unwrap();
    assert_eq!(client.local_addr(), None);
    assert_eq!(wait(client.call(first, "x")).unwrap().message, b"x");
}

fn serve_fn__answers_on_the_shard(world: World) {
    let (a, b) = (world.stack(), world.stack());
    let serving = a.serve_fn(world.at(4000), |request| request).unwrap();
    let addr = serving.local_addr().unwrap();
    let client = Socket::open(&b).unwrap();
    let messages: Vec<_> = (0..150).map(|i| contents(i, SIZES[i as usize % SIZES.len()])).collect();
    let results = wait(client.call_many(messages.iter().map(|m| (addr, m.clone()))));
    for (result, message) in results.into_iter().zip(&messages) {
        assert!(result.unwrap().message == *message);
    }
    until_idle(&a);
    // Ended, its socket is gone; another service takes its place and is not taken for it.
    serving.stop();
    let error = wait(client.call(addr, "?")).unwrap_err();
    // The second if the request came in just before the end.
    assert!(matches!(error, Error::Rpc(RpcError::NoSocket | RpcError::PeerClosed)), "{error:?}");
    let next = a.serve_fn(world.at(4001), |_| "second").unwrap();
    assert_eq!(wait(client.call(next.local_addr().unwrap(), "?")).unwrap().message, b"second");
    until_idle(&a);
    until_idle(&b);
}

fn blocking__same_calls(world: World) {
    let stack = world.stack();
    let server = blocking::Socket::bind(&stack, world.at(4000)).unwrap();
    let addr = server.local_addr().unwrap();
    let client = blocking::Socket::open(&stack).unwrap();
    assert!(server.recv_timeout(std::time::Duration::from_millis(1)).unwrap().is_none());
    assert!(server.try_recv().is_none());
    let thread = std::thread::spawn(move || {
        for (i, request) in server.requests().enumerate() {
            let message = request.message().clone();
            match i % 3 {
                0 => request.reply(message).unwrap(),
                1 => request.into_parts().1.reply(message).unwrap(),
                _ => request.reject(peyk::homa::Reason::Overloaded),
            }
        }
    });
    let results = client.call_many((0..30).map(|i| (addr, contents(i, 3_000))));
    let refused = Error::Rpc(RpcError::Overloaded);
    assert_eq!(results.iter().filter(|r| r.as_ref().is_err_and(|e| *e == refused)).count(), 10);
    for (i, response) in results.into_iter().enumerate().filter_map(|(i, r)| Some((i, r.ok()?))) {
        assert!(response.message == contents(i as u64, 3_000));
    }
    client.send(addr, "a", 77).unwrap();
    assert_eq!(client.recv_response().unwrap().cookie, 77);
    assert!(client.recv_response_timeout(std::time::Duration::ZERO).unwrap().is_none());
    stack.stop();
    thread.join().unwrap();
    assert_eq!(client.call(addr, "?").unwrap_err(), Error::Stopped);
}

fn poll__spin_and_sleep(world: World) {
    for poll in [peyk::Poll::Sleep, peyk::Poll::Spin] {
        let (a, b) = (world.stack_with(|c| c.poll = poll), world.stack_with(|c| c.poll = poll));
        let (server, addr) = world.bind(&a, 4000);
        let _server = echo(server);
        let client = Socket::open(&b).unwrap();
        for i in 0..50 {
            let message = contents(i, SIZES[i as usize % 15]);
            assert!(wait(client.call(addr, message.clone())).unwrap().message == message);
        }
    }
}

#[test]
fn bind__refuses_what_cannot_be() {
    let world = World::EPOLL_V4;
    let stack = world.stack();
    let (_first, _) = world.bind(&stack, 4000);
    assert!(matches!(Socket::bind(&stack, world.at(4000)), Err(BindError::Homa(_))));
    assert!(matches!(Socket::bind(&stack, world.at(40_000)), Err(BindError::Homa(_))));
    assert!(matches!(Socket::bind(&stack, "nonsense"), Err(BindError::Addr(_))));
    // An address of another host: TEST-NET-1.
    assert!(matches!(Socket::bind(&stack, "192.0.2.1:4002"), Err(BindError::Carriage { .. })));
    // A UDP port that another program has.
    let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = world.at(4001).with_udp_port(other.local_addr().unwrap().port());
    assert!(matches!(Socket::bind(&stack, taken), Err(BindError::Carriage { .. })));
    // None of that was left behind.
    assert_eq!(stack.stats().unwrap().usage.sockets, common::shards());
    Socket::bind(&stack, world.at(4001)).unwrap();
}

#[test]
fn call__refuses_what_cannot_be_sent() {
    let world = World::EPOLL_V4;
    let stack = world.stack();
    let (server, addr) = world.bind(&stack, 4000);
    let client = Socket::open(&stack).unwrap();
    assert_eq!(wait(client.call(addr, "")).unwrap_err(), Error::Send(SendError::Empty));
    assert_eq!(wait(client.call(addr, vec![0; 1_000_001])).unwrap_err(), Error::Send(SendError::TooLong));
    assert_eq!(wait(client.send(addr, "", 1)).unwrap_err(), Error::Send(SendError::Empty));
    assert!(matches!(wait(client.call("here", "x")).unwrap_err(), Error::Addr(_)));
    let port_0 = Addr { port: 0, ..addr };
    assert_eq!(wait(client.call(port_0, "x")).unwrap_err(), Error::Send(SendError::InvalidPort));
    // Responses likewise; the client is told at once.
    let calls = client.call_many([(addr, "x"), (addr, "y")]);
    let (one, two) = (wait(server.recv()).unwrap(), wait(server.recv()).unwrap());
    assert_eq!(wait(one.reply("")).unwrap_err(), Error::Send(SendError::Empty));
    assert_eq!(wait(two.reply(vec![0; 1_000_001])).unwrap_err(), Error::Send(SendError::TooLong));
    let errors: HashSet<_> = wait(calls).into_iter().map(|r| r.unwrap_err().to_string()).collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    until_idle(&stack);
}

#[test]
fn control__refused_on_the_shard_itself() {
    let stack = World::EPOLL_V4.stack();
    let inner = stack.clone();
    let result = stack.serve(move |_| {
        assert!(matches!(Socket::open(&inner), Err(BindError::OnShard)));
        assert!(matches!(inner.stats(), Err(Error::OnShard)));
        Err(BindError::OnShard)
    });
    assert!(matches!(result, Err(BindError::OnShard)));
    assert_eq!(stack.stats().unwrap().usage.sockets, 0);
}

#[test]
fn types__cross_threads() {
    fn send<T: Send>(_: &T) {}
    fn sync<T: Sync>() {}
    fn sent<T: Send>() {}
    sync::<peyk::Stack>();
    sync::<Socket>();
    sync::<peyk::homa::Message>();
    sync::<peyk::homa::Request>();
    sync::<blocking::Socket>();
    sent::<peyk::homa::Call>();
    sent::<peyk::homa::Calls>();
    sent::<peyk::homa::Request>();
    sent::<peyk::homa::Responder>();
    sent::<peyk::homa::Outcome>();
    sent::<peyk::Serving>();
    let stack = World::EPOLL_V4.stack();
    let socket = Socket::open(&stack).unwrap();
    let (mut requests, mut outcomes) = (Vec::new(), Vec::new());
    send(&socket.recv());
    send(&socket.recv_batch(&mut requests, 1));
    send(&socket.recv_response());
    send(&socket.recv_response_batch(&mut outcomes, 1));
    send(&socket.send("127.0.0.1:1", "x", 0));
    send(&socket.send_many([("127.0.0.1:1", "x", 0)]));
    fn reply(request: peyk::homa::Request) -> impl Future + Send {
        request.reply("x")
    }
    let _ = reply;
}
