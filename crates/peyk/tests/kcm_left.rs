//! What is left of a mux that is dropped with traffic in flight: no thread, no descriptor, no memory. It has a
//! process of its own, where nothing else starts threads or opens files.
#![allow(non_snake_case)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use peyk::kcm::framer::{LengthField, Spread};
use peyk::kcm::{Config, Mux, Order, ServeOptions, Steer};

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (one, listener.accept().unwrap().0)
}

fn count(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// One life: traffic both ways, then the end, in one of several orders.
fn live(round: usize) {
    let config = Config { steer: Steer::Pull, order: Order::Any, ..Config::default() };
    let (mux, socket) = Mux::open(config).unwrap();
    let framer = || Box::new(LengthField::be(0, 4).plus(4).spread_as(Spread::Any));
    mux.listen("127.0.0.1:0".parse().unwrap(), framer(), false).unwrap();
    let workers = mux.serve(&socket, ServeOptions::default(), |m, r| r.reply(m.bytes)).unwrap();
    let (near, far) = pair();
    let psock = mux.attach(near, framer()).unwrap();
    let message = [&500u32.to_be_bytes()[..], &[1; 500]].concat();
    (0..100).for_each(|_| (&far).write_all(&message).unwrap());
    (&far).write_all(&message[..100]).unwrap();
    match round % 3 {
        0 => {
            drop(workers);
            drop(socket);
        }
        1 => {
            drop(socket);
            drop(workers);
        }
        _ => {
            let _ = mux.close_psock(psock);
            drop(workers);
            drop(socket);
        }
    }
    // Its connection is closed: the far end sees the end or a reset, after what was answered.
    while matches!((&far).read(&mut [0; 4096]), Ok(count) if count > 0) {}
    assert_eq!(mux.memory_used(), 0);
}

#[test]
fn case_113__nothing_is_left_of_a_mux_dropped_under_load() {
    live(0);
    std::thread::sleep(Duration::from_millis(100));
    let (threads, files) = (count("/proc/self/task"), count("/proc/self/fd"));
    (0..30).for_each(live);
    // Threads end when they see it.
    let start = Instant::now();
    while count("/proc/self/task") > threads || count("/proc/self/fd") > files {
        assert!(start.elapsed() < Duration::from_secs(30), "threads or descriptors are left");
        std::thread::sleep(Duration::from_millis(5));
    }
}
