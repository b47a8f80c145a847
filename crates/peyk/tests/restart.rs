//! A server that is killed in the middle of its work and comes back: its clients learn of it, and
//! neither side keeps anything of what was under way.

#![allow(non_snake_case)] // tests are named function__case

mod common;

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};

use common::{World, contents, eventually, until_idle, wait};
use peyk::homa::{Addr, Request, Socket};
use peyk::{Error, RpcError, Stack};

in_every_world!(server_killed__clients_learn_and_go_on, client_killed__server_forgets);

/// Names the world a child process runs in, and the UDP port it is to use.
const CHILD: &str = "PEYK_TEST_CHILD";
/// Calls under way when the server is killed.
const OUTSTANDING: u64 = 200;
const ROUNDS: u64 = 4;

/// A copy of this test binary that runs one of the functions below.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(role: &str, world: World, addr: Addr) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(CHILD, format!("{role} {:?} {} {} {}", world.backend, addr.ip, addr.port, addr.udp_port))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Process { child, lines }
    }

    /// What follows the word in the next line that begins with it.
    fn expect(&mut self, word: &str) -> String {
        loop {
            let line = self.lines.next().expect("the child ended early").unwrap();
            // The first line shares its place with the harness's own words.
            if let Some((_, rest)) = line.split_once(word) {
                return rest.trim().to_string();
            }
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it in good order, after it found nothing left over.
    fn finish(mut self) {
        drop(self.child.stdin.take());
        self.expect("IDLE");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test of its own: what the other processes run.
#[test]
fn child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let words: Vec<&str> = task.split(' ').collect();
    let [role, backend, ip, port, udp_port] = words[..] else { panic!("{task}") };
    let backend = if backend == "Uring" { peyk::Backend::Uring } else { peyk::Backend::Epoll };
    let world = World { backend, ip: ip.parse().unwrap() };
    let addr = world.at(port.parse().unwrap()).with_udp_port(udp_port.parse().unwrap());
    let stack = world.stack_with(|c| c.homa.timeout_ticks = common::DEFAULT_TIMEOUT);
    match role {
        "server" => server(&stack, addr),
        _ => client(&stack, addr),
    }
    until_idle(&stack);
    println!("IDLE");
}

/// Answers requests, but keeps those that begin with `hold` for ever.
fn server(stack: &Stack, addr: Addr) {
    let socket = Socket::bind(stack, addr).unwrap();
    println!("ADDR {}", socket.local_addr().unwrap());
    let ender = socket.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        ender.close();
    });
    let mut held: Vec<Request> = Vec::new();
    while let Ok(request) = wait_long(socket.recv()) {
        if request.message().chunks().next().unwrap().starts_with(b"hold") {
            held.push(request);
            println!("HELD {}", held.len());
        } else {
            let message = request.message().clone();
            wait(request.reply(message)).unwrap();
        }
    }
}

fn wait_long<F: Future>(future: F) -> F::Output {
    peyk::block_on(future)
}

/// Makes requests that will not be answered until it is killed.
fn client(stack: &Stack, addr: Addr) {
    let socket = Socket::open(stack).unwrap();
    let calls = socket.call_many((0..OUTSTANDING).map(|i| (addr, contents(i, 1 + i as usize * 500))));
    println!("CALLING");
    for result in peyk::block_on(calls) {
        println!("ENDED {result:?}");
    }
}

fn held_message(i: u64) -> Vec<u8> {
    [&b"hold"[..], &contents(i, 1 + (i as usize * 4099) % 100_000)].concat()
}

fn resident_pages() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse().unwrap()
}

fn server_killed__clients_learn_and_go_on(world: World) {
    let stack = world.stack_with(|c| c.homa.timeout_ticks = common::DEFAULT_TIMEOUT);
    let client = Socket::open(&stack).unwrap();
    let mut process = Process::start("server", world, world.at(4000).with_udp_port(0));
    let mut addr: Addr = process.expect("ADDR").parse().unwrap();
    let mut resident = None;
    for round in 0..ROUNDS {
        let held: Vec<_> = (0..OUTSTANDING).map(|i| client.call(addr, held_message(i))).collect();
        while process.expect("HELD") != OUTSTANDING.to_string() {}
        let before = stack.stats().unwrap().homa.data_bytes_sent;
        // Others are on their way, in either direction, when it happens.
        let moving: Vec<_> = (0..20).map(|i| client.call(addr, contents(i, 1_000_000))).collect();
        let sent = || stack.stats().unwrap().homa.data_bytes_sent - before;
        eventually(|| sent().to_string(), || (sent() > 300_000 * (round + 1)).then_some(()));
        process.kill();
        for call in held {
            let error = wait(call).unwrap_err();
            assert!(matches!(error, Error::Rpc(RpcError::NoSocket | RpcError::Timeout)), "{error:?}");
        }
        for call in moving {
            // Some may have been answered before.
            let result = wait(call);
            assert!(
                matches!(result, Ok(_) | Err(Error::Rpc(RpcError::NoSocket | RpcError::Timeout))),
                "{result:?}"
            );
        }
        until_idle(&stack);
        // The first round grew what will be used again.
        let first = *resident.get_or_insert_with(resident_pages);
        let grown = resident_pages().saturating_sub(first) * 4096;
        // All of the receive memory may have been touched since, and the allocator keeps some.
        assert!(grown < 128 << 20, "{grown} bytes more than after the first round");

        process = Process::start("server", world, addr);
        addr = process.expect("ADDR").parse().unwrap();
        let messages: Vec<_> = (0..50).map(|i| contents(i, 1 + i as usize * 3000)).collect();
        let results = wait(client.call_many(messages.iter().map(|m| (addr, m.clone()))));
        for (result, message) in results.into_iter().zip(&messages) {
            assert!(result.unwrap().message == *message);
        }
    }
    until_idle(&stack);
    process.finish();
}

fn client_killed__server_forgets(world: World) {
    let stack = world.stack_with(|c| c.homa.timeout_ticks = common::DEFAULT_TIMEOUT);
    let (server, addr) = world.bind(&stack, 4000);
    for _ in 0..2 {
        let mut process = Process::start("client", world, addr);
        process.expect("CALLING");
        let mut requests: Vec<Request> = (0..OUTSTANDING / 2).map(|_| wait(server.recv()).unwrap()).collect();
        process.kill();
        // Half are answered to nobody, the others dropped or never completed.
        for request in requests.drain(..).step_by(2) {
            wait(request.reply(contents(1, 30_000))).unwrap();
        }
        drop(requests);
        eventually(
            || format!("{:?}", stack.stats()),
            || {
                while let Some(request) = server.try_recv() {
                    drop(request);
                }
                stack.stats().unwrap().is_idle().then_some(())
            },
        );
    }
}
