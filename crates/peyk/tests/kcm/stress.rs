//! Threads that attach, clone, unattach, close and reset at random under load. Cases 11, 12, 44, 68, 112; what must be counted
//! in a process of its own is in `tests/kcm_left.rs` and `tests/kcm_many.rs`.

use super::*;
use peyk::kcm::{Config, Mux, Order, ServeOptions, Steer};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

pub(crate) fn rounds(default: u32) -> u32 {
    if std::env::var_os("PEYK_SOAK").is_some() { default * 50 } else { default }
}

#[test]
fn case_044__two_threads_send_on_one_socket() {
    let (mux, socket) = Mux::open(Config::default()).unwrap();
    let (near, far) = pair();
    mux.attach(near, frames()).unwrap();
    const EACH: usize = 2_000;
    std::thread::scope(|scope| {
        for byte in 0..4u8 {
            let socket = &socket;
            scope.spawn(move || {
                for i in 0..EACH {
                    peyk::block_on(socket.send(msg(&vec![byte; 1 + i % 300]))).unwrap();
                }
            });
        }
        let mut counts = [0; 4];
        for _ in 0..4 * EACH {
            let body = read_msg(&far).unwrap();
            assert!(body.iter().all(|byte| *byte == body[0]), "messages mix");
            counts[usize::from(body[0])] += 1;
        }
        assert_eq!(counts, [EACH; 4]);
    });
}

#[test]
fn case_068__four_threads_receive_on_one_socket() {
    let (mux, socket) = Mux::open(Config::default()).unwrap();
    let (near, far) = pair();
    mux.attach(near, frames()).unwrap();
    const COUNT: u32 = 20_000;
    let got = std::sync::Mutex::new(HashSet::new());
    let check = impatience();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while got.lock().unwrap().len() < COUNT as usize {
                    check();
                    if let Ok(message) = socket.recv_timeout(Duration::from_millis(50)) {
                        let number = u32::from_be_bytes(message[4..8].try_into().unwrap());
                        assert!(got.lock().unwrap().insert(number), "{number} came twice");
                    }
                }
            });
        }
        for i in 0..COUNT {
            write_all(&far, &msg(&i.to_be_bytes()));
        }
    });
}

#[test]
fn case_011__a_clone_nobody_takes_is_closed_once() {
    let (mux, socket) = Mux::open(Config::default()).unwrap();
    let (near, far) = pair();
    mux.attach(near, frames()).unwrap();
    for i in 0..1000u32 {
        // Made for another thread, which is gone before it can be handed over.
        let (give, take) = std::sync::mpsc::channel();
        let taker = std::thread::spawn(move || drop(take));
        write_all(&far, &msg(&i.to_be_bytes()));
        let clone = socket.try_clone().unwrap();
        taker.join().unwrap();
        let refused = give.send(clone).expect_err("nobody takes it");
        drop(refused);
        assert_eq!(mux.snapshot().sockets.len(), 1);
        // What it may have been given comes back.
        assert_eq!(socket.recv_timeout(PATIENCE).unwrap()[4..], i.to_be_bytes());
    }
    assert_eq!(mux.memory_used(), 0);
}

#[test]
fn case_012__clone_and_close_under_traffic() {
    const CLONES: u32 = 10_000;
    let (mux, socket) = Mux::open(Config::default()).unwrap();
    let (near, far) = pair();
    mux.attach(near, frames()).unwrap();
    let (received, clones, stop) = (AtomicU64::new(0), AtomicU32::new(0), AtomicBool::new(false));
    let sent = std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for _ in 0..8 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let clone = socket.try_clone().unwrap();
                    clones.fetch_add(1, Ordering::Relaxed);
                    if clone.recv_timeout(Duration::from_micros(300)).is_ok() {
                        received.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let mut count = 0u32;
        while count < rounds(3_000) || clones.load(Ordering::Relaxed) < rounds(CLONES) {
            write_all(&far, &msg(&count.to_be_bytes()));
            count += 1;
            if count > rounds(3_000) {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        until("all are received", || {
            while socket.try_recv().is_ok() {
                received.fetch_add(1, Ordering::Relaxed);
            }
            received.load(Ordering::Relaxed) >= u64::from(count)
        });
        u64::from(count)
    });
    assert_eq!(received.load(Ordering::Relaxed), sent);
    assert_eq!(mux.snapshot().sockets.len(), 1);
    assert_eq!(mux.memory_used(), 0);
}

/// Eight send, eight receive, and any of those who receive may close its socket and take another: every message
/// comes once. A mux has one owner for its state, a mutex, so threads at random stand for the hand-over.
#[test]
fn case_112__eight_producers_eight_consumers() {
    let each = rounds(1_500);
    let (server, inbox) = Mux::open(Config { order: Order::Any, ..Config::default() }).unwrap();
    let here = server.listen(loopback(), frames(), false).unwrap().local_addr();
    let (client, outbox) = Mux::open(Config::default()).unwrap();
    (0..4).for_each(|_| assert!(client.connect(here, frames()).is_ok()));
    let (seen, sent) = (std::sync::Mutex::new(HashSet::new()), std::sync::Mutex::new(Vec::new()));
    let check = impatience();
    let is_all = || {
        check();
        seen.lock().unwrap().len() == 8 * each as usize
    };
    std::thread::scope(|scope| {
        for producer in 0..8u32 {
            let mine = outbox.try_clone().unwrap();
            let sent = &sent;
            scope.spawn(move || {
                for i in 0..each {
                    peyk::block_on(mine.send(msg(&(producer * each + i).to_be_bytes()))).unwrap();
                }
                // Closed at once it would drop what it has not sent.
                sent.lock().unwrap().push(mine);
            });
        }
        for consumer in 0..8 {
            let (inbox, seen, is_all) = (&inbox, &seen, &is_all);
            scope.spawn(move || {
                let mut prng = peyk_sansio::Prng::new(consumer);
                let mut mine = inbox.try_clone().unwrap();
                while !is_all() {
                    if let Ok(message) = mine.recv_timeout(Duration::from_millis(5)) {
                        let number = u32::from_be_bytes(message[4..8].try_into().unwrap());
                        assert!(seen.lock().unwrap().insert(number), "{number} came twice");
                    }
                    if prng.chance(0.02) {
                        mine = inbox.try_clone().unwrap();
                    }
                }
            });
        }
        // The first socket takes part too, or what is given to it would wait.
        while !is_all() {
            if let Ok(message) = inbox.recv_timeout(Duration::from_millis(5)) {
                let number = u32::from_be_bytes(message[4..8].try_into().unwrap());
                assert!(seen.lock().unwrap().insert(number), "{number} came twice");
            }
        }
    });
    assert_eq!((server.memory_used(), server.snapshot().sockets.len()), (0, 1));
}

/// A server that echoes, and a client mux whose connections are broken and replaced all the time: whatever
/// was acknowledged on a connection that stayed healthy is answered once.
#[test]
fn case_112__connections_break_under_load() {
    let (server, inbox) =
        Mux::open(Config { steer: Steer::Pull, order: Order::Any, ..Config::default() }).unwrap();
    let here = server.listen(loopback(), frames(), false).unwrap().local_addr();
    let seen = Arc::new(std::sync::Mutex::new(HashSet::new()));
    let log = seen.clone();
    let workers = server
        .serve(&inbox, ServeOptions { threads: 3, ..ServeOptions::default() }, move |message, replies| {
            let number = u32::from_be_bytes(message.bytes[4..8].try_into().unwrap());
            assert!(log.lock().unwrap().insert(number), "{number} came twice");
            replies.reply(message.bytes);
        })
        .unwrap();
    let (client, socket) = Mux::open(Config::default()).unwrap();
    (0..4).for_each(|_| assert!(client.connect(here, frames()).is_ok()));
    let count = rounds(4_000);
    std::thread::scope(|scope| {
        let client = &client;
        scope.spawn(move || {
            for _ in 0..count / 100 {
                std::thread::sleep(Duration::from_millis(2));
                client.connect(here, frames()).unwrap();
                let psocks = client.psocks();
                // Off in an orderly way: what it was sending goes elsewhere, what was sent stays sent. Closed with
                // answers unread it would be reset, and what the server has not read yet would be lost.
                if let Ok((_, Some(mut tcp))) = client.unattach(psocks[0]) {
                    tcp.set_nonblocking(false).unwrap();
                    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
                    tcp.shutdown(std::net::Shutdown::Write).unwrap();
                    std::io::copy(&mut tcp, &mut std::io::sink()).unwrap();
                }
            }
        });
        for i in 0..count {
            peyk::block_on(socket.send(msg(&[&i.to_be_bytes()[..], &[7; 100]].concat()))).unwrap();
        }
    });
    until("every message arrived", || seen.lock().unwrap().len() == count as usize);
    while socket.recv_timeout(Duration::from_millis(100)).is_ok() {}
    drop(workers);
    drop(inbox);
    until("the server has let go", || server.psocks().is_empty());
}

/// What is still to come out of a stress, by its number.
struct Ledger {
    seen: std::sync::Mutex<HashSet<u32>>,
}

/// Attach, clone, unattach, close and reset at random, by a seed: a message sent over connections that stay
/// healthy arrives, none arrives twice, and nothing is left.
#[test]
fn stress__everything_at_random() {
    let runs = rounds(2);
    for seed in 0..u64::from(runs) {
        everything_at_random(seed);
    }
}

fn everything_at_random(seed: u64) {
    let config = Config { steer: Steer::Pull, order: Order::Any, ..Config::default() };
    let (server, inbox) = Mux::open(config).unwrap();
    let here = server.listen(loopback(), frames(), false).unwrap().local_addr();
    let ledger = Arc::new(Ledger { seen: Default::default() });
    let book = ledger.clone();
    let options = ServeOptions { threads: 3, ..ServeOptions::default() };
    let workers = server
        .serve(&inbox, options, move |message, replies| {
            let number = u32::from_be_bytes(message.bytes[4..8].try_into().unwrap());
            assert!(book.seen.lock().unwrap().insert(number), "{number} came twice");
            replies.reply(message.bytes);
        })
        .unwrap();
    // Two muxes send to it: the connections of one stay healthy, those of the other are treated badly.
    let (healthy, calm) = Mux::open(Config::default()).unwrap();
    let (mistreated, wild) = Mux::open(Config::default()).unwrap();
    for _ in 0..3 {
        healthy.connect(here, frames()).unwrap();
        mistreated.connect(here, frames()).unwrap();
    }
    let count = 3_000u32;
    std::thread::scope(|scope| {
        let (mistreated, wild) = (&mistreated, &wild);
        scope.spawn(move || {
            let mut prng = peyk_sansio::Prng::new(seed);
            for _ in 0..200 {
                std::thread::sleep(Duration::from_micros(prng.below(1000)));
                let psocks = mistreated.psocks();
                let victim = prng.pick(&psocks).copied();
                match (prng.below(5), victim) {
                    (0, _) => drop(mistreated.connect(here, frames()).unwrap()),
                    (1, _) => drop(wild.try_clone().unwrap()),
                    (2, Some(victim)) if psocks.len() > 1 => {
                        if let Ok((_, Some(tcp))) = mistreated.unattach(victim) {
                            // A reset: what was under way is lost.
                            let _ = socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
                        }
                    }
                    (3, Some(victim)) if psocks.len() > 1 => drop(mistreated.close_psock(victim)),
                    _ => while wild.try_recv().is_ok() {},
                }
                if mistreated.psocks().is_empty() {
                    mistreated.connect(here, frames()).unwrap();
                }
            }
        });
        scope.spawn(move || {
            for i in 0..count {
                peyk::block_on(wild.send(msg(&[&(i + count).to_be_bytes()[..], &[7; 60]].concat()))).unwrap();
            }
        });
        for i in 0..count {
            peyk::block_on(calm.send(msg(&[&i.to_be_bytes()[..], &[7; 60]].concat()))).unwrap();
        }
    });
    let arrived = || ledger.seen.lock().unwrap().iter().filter(|number| **number < count).count();
    until("what was sent over healthy connections arrived", || arrived() == count as usize);
    let mut answers = 0;
    until("all of it is answered", || {
        answers += usize::from(calm.recv_timeout(Duration::from_millis(1)).is_ok());
        answers == count as usize
    });
    drop((calm, wild));
    until("the server has let go", || server.psocks().is_empty() && server.memory_used() == 0);
    assert_eq!((healthy.psocks().len(), mistreated.psocks().len()), (0, 0));
    drop(workers);
    drop(inbox);
}

#[test]
fn case_096__idle_connections_are_cheap() {
    let (mux, _socket) = Mux::open(Config::default()).unwrap();
    let pairs: Vec<TcpStream> = (0..400)
        .map(|i| {
            let (near, far) = pair();
            mux.attach(near, frames()).unwrap();
            if i % 2 == 0 {
                write_all(&far, b"\0");
            }
            far
        })
        .collect();
    until("the bytes are read", || mux.memory_used() == 200);
    assert_eq!(mux.psocks().len(), pairs.len());
}
