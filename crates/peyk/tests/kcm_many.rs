//! One mux and ten thousand clients: each reply goes back over the connection its request came by. It has a
//! process of its own, for it needs most of the descriptors a process may have, and measures its memory.
#![allow(non_snake_case)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use peyk::kcm::framer::{LengthField, Spread};
use peyk::kcm::{Config, Mux, Order, ServeOptions, Steer};

const CLIENTS: usize = 10_000;
/// Set for the process of the clients: where the server is.
const SERVER: &str = "PEYK_TEST_SERVER";

/// One end of all connections are descriptors of this process, the other those of another.
fn raise_limit() {
    let wanted = CLIENTS as u64 + 200;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).unwrap_or_else(|error| {
            panic!("this test needs {wanted} open files and may have {hard} (ulimit -Hn): {error}")
        });
    }
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn msg(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes(), body].concat()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not come true");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The clients: connect, wait for a word, ask, and check the answers.
fn clients(here: SocketAddr) {
    let mut clients = Vec::with_capacity(CLIENTS);
    for number in 0..CLIENTS {
        let client = TcpStream::connect(here).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // The first bytes of a message, on each second connection.
        if number % 2 == 0 {
            (&client).write_all(&msg(&number.to_be_bytes())[..1]).unwrap();
        }
        clients.push(client);
    }
    std::io::stdin().read_line(&mut String::new()).unwrap();
    for (number, mut client) in clients.iter().enumerate() {
        let first = msg(&number.to_be_bytes());
        let rest = if number % 2 == 0 { &first[1..] } else { &first[..] };
        client.write_all(&[rest, &msg(b"and more")].concat()).unwrap();
    }
    for (number, mut client) in clients.iter().enumerate() {
        let mut got = [0; 24];
        client.read_exact(&mut got).unwrap();
        // Any order: messages of one connection may be handled by two threads.
        let sent = [msg(&number.to_be_bytes()), msg(b"and more")];
        assert!(got[..] == sent.concat() || got[..] == [&sent[1][..], &sent[0]].concat(), "client {number}");
    }
}

/// The same test in another process, as the clients.
fn start_clients(here: SocketAddr) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "case_081_096__one_mux_answers_ten_thousand_clients", "--nocapture"])
        .env(SERVER, here.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn case_081_096__one_mux_answers_ten_thousand_clients() {
    raise_limit();
    if let Ok(here) = std::env::var(SERVER) {
        return clients(here.parse().unwrap());
    }
    let config =
        Config { steer: Steer::Pull, order: Order::Any, assembly_timeout: None, ..Config::default() };
    let (mux, socket) = Mux::open(config).unwrap();
    let framer = LengthField::be(0, 4).plus(4).spread_as(Spread::Any);
    let here = mux.listen("127.0.0.1:0".parse().unwrap(), Box::new(framer), false).unwrap().local_addr();
    let options = ServeOptions { threads: 3, ..ServeOptions::default() };
    let _workers = mux.serve(&socket, options, |message, replies| replies.reply(message.bytes)).unwrap();
    let before = resident();
    let mut child = start_clients(here);
    until("all are accepted and read", || mux.psocks().len() == CLIENTS && mux.memory_used() == CLIENTS / 2);
    let each = (resident() - before) / CLIENTS;
    assert!(each < 2048, "{each} bytes for an idle connection");
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    // What the clients say is shown; it must say that they ran.
    let lines: Vec<String> =
        BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).collect();
    assert!(child.wait().unwrap().success(), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("1 passed")), "{lines:#?}");
    until("all are freed", || mux.psocks().is_empty() && mux.memory_used() == 0);
    assert_eq!(mux.snapshot().mux.rx_msgs, 2 * CLIENTS as u64);
}
