//! Giving up and coming to an end, in every order: nobody is left waiting and nothing is left over.

#![allow(non_snake_case)] // tests are named function__case

mod common;

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::{World, contents, echo, eventually, until_idle, wait};
use peyk::homa::{Addr, CallOptions, Reason, Socket};
use peyk::{Error, RpcError, Stack};

in_every_world!(
    call_dropped__aborts_and_leaves_nothing,
    call_dropped__in_every_state,
    call_dropped__while_parked,
    recv_dropped__loses_no_request,
    recv_response_dropped__loses_none,
    request_dropped__client_is_told,
    request_rejected__client_learns_the_reason,
    request_answered_late__is_no_error,
    call__deadline,
    call__silent_server_times_out,
    call__no_socket_at_the_port,
    call__not_a_server,
    call__nobody_at_the_udp_port,
    socket_closed__waiting_futures_end,
    socket_closed__clients_are_told,
    socket_dropped__answered_requests_still_arrive,
    stack_stopped__waiting_futures_end,
    stack_stopped__clients_are_told,
);

fn failed(error: RpcError) -> Error {
    Error::Rpc(error)
}

/// Polls once, with nobody to be woken.
fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn call_dropped__aborts_and_leaves_nothing(world: World) {
    let (a, b) = (world.stack(), world.stack());
    let (server, addr) = world.bind(&a, 4000);
    let client = Socket::open(&b).unwrap();
    let calls: Vec<_> = (0..100).map(|i| client.call(addr, contents(i, 1 + i as usize * 1000))).collect();
    let requests: Vec<_> = (0..100).map(|_| wait(server.recv()).unwrap()).collect();
    assert_eq!(b.stats().unwrap().app.calls, 100);
    calls.into_iter().enumerate().for_each(|(i, call)| if i % 2 == 0 { call.abort() } else { drop(call) });
    until_idle(&b);
    assert_eq!(b.stats().unwrap().homa.rpc_aborts, 100);
    // The server learns of it, and answers to nobody without an error.
    let stats = || a.stats().unwrap().homa;
    eventually(|| format!("{:?}", stats()), || (stats().server_cancelled == 100).then_some(()));
    for request in requests {
        wait(request.reply("too late")).unwrap();
    }
    until_idle(&a);
}

fn call_dropped__in_every_state(world: World) {
    // Tiny limits, so that calls are dropped unsent, parked, half sent, served, and answered.
    let (a, b) = (
        world.stack(),
        world.stack_with(|c| {
            c.submissions = 8;
            c.homa.wmem_max = 200_000;
        }),
    );
    let (server, addr) = world.bind(&a, 4000);
    let _server = echo(server);
    let client = Socket::open(&b).unwrap();
    for round in 0..60u64 {
        let mut calls: Vec<_> =
            (0..30).map(|i| client.call(addr, contents(i, 1 + (i as usize * 7919 * 13) % 150_000))).collect();
        for i in 0..round % 30 {
            let call = &mut calls[(i * 7 % 30) as usize];
            let _ = wait(std::future::poll_fn(|cx| {
                Poll::Ready(std::pin::Pin::new(&mut *call).poll(cx).is_ready())
            }));
        }
        std::thread::sleep(Duration::from_micros(round * 40));
        drop(calls);
    }
    until_idle(&a);
    until_idle(&b);
    assert_eq!(wait(client.call(addr, "still there?")).unwrap().message, b"still there?");
}

fn call_dropped__while_parked(world: World) {
    let (a, b) = (world.stack(), world.stack_with(|c| c.homa.wmem_max = 10_000));
    let (server, addr) = world.bind(&a, 4000);
    let client = Socket::open(&b).unwrap();
    let mut calls: Vec<_> = (0..20).map(|i| client.call(addr, contents(i, 10_000))).collect();
    eventually(|| format!("{:?}", b.stats()), || (b.stats().unwrap().app.parked == 19).then_some(()));
    let first = calls.remove(0);
    let last = calls.pop().unwrap();
    drop(calls);
    let request = wait(server.recv()).unwrap();
    wait(request.reply("one")).unwrap();
    assert_eq!(wait(first).unwrap().message, b"one");
    let request = wait(server.recv()).unwrap();
    assert!(*request.message() == contents(19, 10_000));
    wait(request.reply("last")).unwrap();
    assert_eq!(wait(last).unwrap().message, b"last");
    until_idle(&a);
    until_idle(&b);
    assert_eq!(a.stats().unwrap().homa.requests_received, 2);
}

fn recv_dropped__loses_no_request(world: World) {
    let stack = world.stack();
    let (server, addr) = world.bind(&stack, 4000);
    let client = Socket::open(&stack).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|t| {
            let server = server.clone();
            std::thread::spawn(move || {
                let mut taken = 0;
                loop {
                    // Polled once and dropped, perhaps just when it was woken.
                    let mut recv = Box::pin(server.recv());
                    let polled = poll_once(&mut recv);
                    if t % 2 == 0 {
                        std::thread::yield_now();
                    }
                    drop(recv);
                    let request = match polled {
                        Poll::Ready(request) => request,
                        // Now and then one that really waits.
                        Poll::Pending if t == 0 => wait(server.recv()),
                        Poll::Pending => continue,
                    };
                    let Ok(request) = request else { return taken };
                    taken += 1;
                    let message = request.message().clone();
                    wait(request.reply(message)).unwrap();
                }
            })
        })
        .collect();
    for round in 0..20 {
        let results = wait(client.call_many((0..50).map(|i| (addr, contents(round * 50 + i, 100)))));
        for (i, result) in results.into_iter().enumerate() {
            assert!(result.unwrap().message == contents(round * 50 + i as u64, 100));
        }
    }
    until_idle(&stack);
    server.close();
    // The one that polls without waiting for it ends as well.
    assert_eq!(threads.into_iter().map(|t| t.join().unwrap()).sum::<u64>(), 1000);
}

fn recv_response_dropped__loses_none(world: World) {
    let stack = world.stack();
    let (server, addr) = world.bind(&stack, 4000);
    let _server = echo(server);
    let client = Socket::open(&stack).unwrap();
    wait(client.send_many((0..200).map(|i| (addr, contents(i, 500), i)))).unwrap();
    let mut seen = std::collections::HashSet::new();
    while seen.len() < 200 {
        let mut recv = Box::pin(client.recv_response());
        if let Poll::Ready(outcome) = poll_once(&mut recv) {
            let outcome = outcome.unwrap();
            assert!(outcome.result.unwrap().message == contents(outcome.cookie, 500));
            assert!(seen.insert(outcome.cookie));
        } else {
            std::thread::yield_now();
        }
    }
    until_idle(&stack);
}

fn request_dropped__client_is_told(world: World) {
    let (a, b) = (world.stack(), world.stack());
    let (server, addr) = world.bind(&a, 4000);
    let client = Socket::open(&b).unwrap();
    for size in [1, 100_000] {
        let call = client.call(addr, contents(1, size));
        drop(wait(server.recv()).unwrap());
        assert_eq!(wait(call).unwrap_err(), failed(RpcError::Aborted));
        let call = client.call(addr, contents(1, size));
        let (message, responder) = wait(server.recv()).unwrap().into_parts();
        drop(responder);
        assert_eq!(wait(call).unwrap_err(), failed(RpcError::Aborted));
        drop(message);
    }
    until_idle(&a);
    until_idle(&b);
}

fn request_rejected__client_learns_the_reason(world: World) {
    let (a, b) = (world.stack(), world.stack());
    let (server, addr) = world.bind(&a, 4000);
    let client = Socket::open(&b).unwrap();
    for (reason, error) in [
        (Reason::Aborted, RpcError::Aborted),
        (Reason::Overloaded, RpcError::Overloaded),
        (Reason::TooLarge, RpcError::TooLarge),
        (Reason::Closing, RpcError::PeerClosed),
    ] {
        let call = client.call(addr, "x");
        wait(server.recv()).unwrap().reject(reason);
        assert_eq!(wait(call).unwrap_err(), failed(error));
    }
    until_idle(&a);
    until_idle(&b);
}

fn request_answered_late__is_no_error(world: World) {
    let (a, b) = (world.stack(), world.stack());
    let (server, addr) = world.bind(&a, 4000);
    let client = Socket::open(&b).unwrap();
    let call = client.call(addr, "x");
    let request = wait(server.recv()).unwrap();
    drop(call);
    b.stop();
    wait(request.reply(contents(1, 300_000))).unwrap();
    until_idle(&a);
}

fn call__deadline(world: World) {
    let (a, b) = (world.stack(), world.stack());
    let (server, addr) = world.bind(&a, 4000);
    let client = Socket::open(&b).unwrap();
    let options = CallOptions { timeout: Some(Duration::from_millis(30)) };
    let call = client.call_with(addr, "x", options);
    let request = wait(server.recv()).unwrap();
    let error = wait(call).unwrap_err();
    assert_eq!(error, failed(RpcError::Deadline));
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::TimedOut);
    until_idle(&b);
    drop(request);
    until_idle(&a);
}

fn call__silent_server_times_out(world: World) {
    let stack = world.stack_with(|c| c.homa.timeout_ticks = 100);
    // A UDP socket that takes everything and says nothing.
    let silent = std::net::UdpSocket::bind((world.ip, 0)).unwrap();
    let addr = world.at(4000).with_udp_port(silent.local_addr().unwrap().port());
    let client = Socket::open(&stack).unwrap();
    let calls = client.call_many((0..50).map(|i| (addr, contents(i, 1 + i as usize * 2000))));
    for result in wait(calls) {
        assert_eq!(result.unwrap_err(), failed(RpcError::Timeout));
    }
    until_idle(&stack);
}

fn call__no_socket_at_the_port(world: World) {
    let (a, b) = (world.stack(), world.stack());
    let (_server, addr) = world.bind(&a, 4000);
    let client = Socket::open(&b).unwrap();
    let nobody = Addr { port: 4001, ..addr };
    for size in [1, 2_000, 200_000] {
        assert_eq!(wait(client.call(nobody, contents(1, size))).unwrap_err(), failed(RpcError::NoSocket));
    }
    until_idle(&a);
    until_idle(&b);
}

fn call__not_a_server(world: World) {
    let (a, b) = (world.stack(), world.stack());
    let (server, addr) = world.bind(&a, 4000);
    let client = Socket::open(&b).unwrap();
    // A client's port is seen by the server it calls.
    let call = client.call(addr, "x");
    let request = wait(server.recv()).unwrap();
    let back = request.from();
    assert_eq!(wait(server.call(back, "y")).unwrap_err(), failed(RpcError::NotServer));
    wait(request.reply("z")).unwrap();
    assert_eq!(wait(call).unwrap().message, b"z");
    until_idle(&a);
    until_idle(&b);
}

fn call__nobody_at_the_udp_port(world: World) {
    let stack = world.stack();
    let client = Socket::open(&stack).unwrap();
    let free = std::net::UdpSocket::bind((world.ip, 0)).unwrap().local_addr().unwrap().port();
    let addr = world.at(4000).with_udp_port(free);
    for size in [1, 100_000] {
        // ICMP says so at once, not a timeout.
        assert_eq!(wait(client.call(addr, contents(1, size))).unwrap_err(), failed(RpcError::NoSocket));
    }
    assert_eq!(stack.stats().unwrap().homa.rpc_timeouts, 0);
    until_idle(&stack);
}

fn socket_closed__waiting_futures_end(world: World) {
    let (a, b) = (world.stack(), world.stack());
    let (server, addr) = world.bind(&a, 4000);
    let client = Socket::open(&b).unwrap();
    let waiting = waiting_threads(&client, &server, addr);
    client.close();
    server.close();
    for thread in waiting {
        let error = thread.join().unwrap();
        assert!(matches!(error, Error::Closed | Error::Rpc(RpcError::PeerClosed)), "{error:?}");
    }
    // And from now on.
    assert_eq!(wait(client.call(addr, "x")).unwrap_err(), Error::Closed);
    assert_eq!(wait(client.recv_response()).unwrap_err(), Error::Closed);
    assert_eq!(wait(server.recv()).unwrap_err(), Error::Closed);
    until_idle(&a);
    until_idle(&b);
    assert_eq!(a.stats().unwrap().usage.sockets, 0);
    // The port is free again.
    Socket::bind(&a, world.at(4000)).unwrap();
}

/// Threads that wait for all kinds of things; each returns the error it ended with.
fn waiting_threads(client: &Socket, server: &Socket, addr: Addr) -> Vec<std::thread::JoinHandle<Error>> {
    let (c, s) = (client.clone(), server.clone());
    let mut threads = vec![
        std::thread::spawn(move || wait(c.recv_response()).unwrap_err()),
        std::thread::spawn(move || {
            // Holds what it gets, so that the calls below wait.
            let mut requests = Vec::new();
            loop {
                match wait(s.recv()) {
                    Ok(request) => requests.push(request),
                    Err(e) => return e,
                }
            }
        }),
    ];
    for i in 0..4 {
        let call = client.call(addr, contents(i, 1 + 60_000 * i as usize));
        threads.push(std::thread::spawn(move || wait(call).unwrap_err()));
    }
    // Let them fall asleep, or not: it must work in any case.
    std::thread::sleep(Duration::from_millis(5));
    threads
}

fn socket_closed__clients_are_told(world: World) {
    let (a, b) = (world.stack(), world.stack());
    let (server, addr) = world.bind(&a, 4000);
    let client = Socket::open(&b).unwrap();
    let calls = client.call_many((0..50).map(|i| (addr, contents(i, 1 + i as usize * 1000))));
    let requests: Vec<_> = (0..50).map(|_| wait(server.recv()).unwrap()).collect();
    server.close();
    for result in wait(calls) {
        assert_eq!(result.unwrap_err(), failed(RpcError::PeerClosed));
    }
    // They were taken before: answering is of no use, and no error.
    requests.into_iter().for_each(|r| wait(r.reply("x")).unwrap());
    until_idle(&a);
    until_idle(&b);
}

fn socket_dropped__answered_requests_still_arrive(world: World) {
    let (a, b) = (world.stack(), world.stack());
    let client = Socket::open(&b).unwrap();
    for round in 0..20 {
        let (server, addr) = world.bind(&a, 4000);
        let call = client.call(addr, "x");
        let request = wait(server.recv()).unwrap();
        drop(server);
        // The request keeps the socket.
        wait(request.reply(contents(round, 1 + 1000 * round as usize))).unwrap();
        assert!(wait(call).unwrap().message == contents(round, 1 + 1000 * round as usize));
    }
    until_idle(&a);
    until_idle(&b);
    assert_eq!(a.stats().unwrap().usage.sockets, 0);
}

fn stack_stopped__waiting_futures_end(world: World) {
    for how in 0..2 {
        let stack = world.stack();
        let (server, addr) = world.bind(&stack, 4000);
        let client = Socket::open(&stack).unwrap();
        let waiting = waiting_threads(&client, &server, addr);
        match how {
            0 => stack.stop(),
            _ => drop(stack),
        }
        for thread in waiting {
            assert_eq!(thread.join().unwrap(), Error::Stopped);
        }
        assert_eq!(wait(client.call(addr, "x")).unwrap_err(), Error::Stopped);
        assert_eq!(wait(client.send(addr, "x", 1)).unwrap_err(), Error::Stopped);
        assert_eq!(wait(server.recv()).unwrap_err(), Error::Stopped);
    }
}

fn stack_stopped__clients_are_told(world: World) {
    let (a, b) = (world.stack(), world.stack());
    let (server, addr) = world.bind(&a, 4000);
    let client = Socket::open(&b).unwrap();
    let calls = client.call_many((0..50).map(|i| (addr, contents(i, 1 + i as usize * 1000))));
    let requests: Vec<_> = (0..50).map(|_| wait(server.recv()).unwrap()).collect();
    stop_elsewhere(a);
    for result in wait(calls) {
        let error = result.unwrap_err();
        assert_eq!(error, failed(RpcError::PeerClosed));
    }
    requests.into_iter().for_each(|r| assert_eq!(wait(r.reply("x")).unwrap_err(), Error::Stopped));
    until_idle(&b);
    assert_eq!(b.stats().unwrap().homa.rpc_timeouts, 0);
}

/// The last clone may be dropped on any thread.
fn stop_elsewhere(stack: Stack) {
    std::thread::spawn(move || drop(stack)).join().unwrap();
}
