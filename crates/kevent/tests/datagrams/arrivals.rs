//! What arrives: every datagram whole, with what the kernel says of it; errors of the network; a flood.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use peyk_kevent::{Config, Events, Queue, Spin, Token, Wait, What, Why, udp};

use crate::common::*;

#[test]
fn t41__datagrams_of_all_sizes_arrive_whole() {
    in_all_timings(|backend| {
        for spin in [Spin::Sleep, Spin::Spin, Spin::Adaptive { max: Duration::from_micros(50) }] {
            for bind in ["127.0.0.1:0", "[::1]:0"] {
                let (mut sender, from_addr) = Sender::new(backend, bind);
                let mut b = queue(backend);
                let (_to, to) = open(&mut b, bind, 7);
                for size in [0usize, 1, 28, 100, 511, 512, 513, 1400, 9000, 40_000, 65_507] {
                    let data: Vec<u8> = (0..size).map(|i| i as u8).collect();
                    sender.send(to, 0, &[&data]);
                    let got = receive(&mut b, spin, 1);
                    assert_eq!(got.len(), 1, "{size} on {backend:?} {spin:?}");
                    assert_eq!(got[0].0, from_addr);
                    assert!(got[0].1 == data, "{size} on {backend:?} {spin:?}");
                }
            }
        }
    });
}

#[test]
fn t41__empty_datagram_is_one_datagram() {
    in_all_timings(|backend| {
        let mut q = queue(backend);
        let (_source, to) = open(&mut q, "127.0.0.1:0", 0);
        let late = Timing::now() == Timing::Delayed;
        let sender = std::thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            for bytes in [&b""[..], b"", b"x", b""] {
                std::thread::sleep(if late { LATE } else { Duration::ZERO });
                socket.send_to(bytes, to).unwrap();
            }
        });
        let got: Vec<Vec<u8>> = receive(&mut q, Spin::Sleep, 4).into_iter().map(|(_, d)| d).collect();
        assert_eq!(got, [&b""[..], b"", b"x", b""]);
        sender.join().unwrap();
    });
}

#[test]
fn t41__datagram_longer_than_a_block_is_cut_and_says_so() {
    in_all_timings(|backend| {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let mut q = queue(backend);
        let source = q.adopt(OwnedFd::from(ours)).unwrap();
        listen(&mut q, &source, 0);
        socket2::SockRef::from(&theirs).set_send_buffer_size(1 << 20).unwrap();
        let data: Vec<u8> = (0..100_000).map(|i| i as u8).collect();
        for (sent, cut) in [(1000, false), (100_000, true), (1, false)] {
            let late = Timing::now() == Timing::Delayed;
            let (theirs, bytes) = (theirs.try_clone().unwrap(), data[..sent].to_vec());
            let sender = std::thread::spawn(move || {
                std::thread::sleep(if late { LATE } else { Duration::ZERO });
                theirs.send(&bytes).unwrap();
            });
            if !late {
                sender.join().unwrap();
            }
            assert!(run(&mut q, Spin::Sleep, |_, _, what| match what {
                What::Dgrams(d) => {
                    assert_eq!(d.is_truncated(), cut);
                    assert!(cut || d.bytes().len() == sent);
                    assert!(d.bytes() == &data[..d.bytes().len()]);
                    true
                }
                _ => false,
            }));
        }
    });
}

#[test]
fn t41__control_data_comes_with_datagrams() {
    in_all_timings(|backend| {
        let options = udp::Options { class: true, destination: true, time: true, ..Default::default() };
        for spin in [Spin::Sleep, Spin::Spin] {
            for (bind, to) in
                [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "::1"), ("[::]:0", "127.0.0.3")]
            {
                let bound = udp::bind(bind.parse().unwrap(), &options).unwrap();
                let to = SocketAddr::new(to.parse().unwrap(), bound.local.port());
                let mut q = queue(backend);
                let source = q.adopt(bound.fd).unwrap();
                listen(&mut q, &source, 0);
                let from = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
                let (mut sender, _) = Sender::new(backend, from);
                // Congestion experienced; a train, and a single one.
                let before = std::time::SystemTime::now() - Duration::from_millis(1);
                for (class, datagrams) in [(0x2b, &[&[1u8; 700][..]; 3][..]), (0x40, &[&[2; 10]])] {
                    sender.send(to, class, datagrams);
                    assert!(run(&mut q, spin, |_, _, what| {
                        let What::Dgrams(d) = what else { return false };
                        assert_eq!(d.class(), Some(class), "{bind} {to}");
                        let (address, interface) = d.destination().unwrap();
                        assert_eq!(address, to.ip());
                        assert!(interface > 0);
                        let arrival = d.arrival().unwrap();
                        assert!(arrival >= before && arrival <= std::time::SystemTime::now());
                        assert_eq!(d.segment(), (datagrams.len() > 1).then_some(700));
                        assert_eq!(d.iter().count(), datagrams.len());
                        true
                    }));
                }
            }
        }
        // Not asked for, not told.
        let mut q = queue(backend);
        let (source, own) = open(&mut q, "127.0.0.1:0", 0);
        send(&mut q, &source, train(own, 0x20, &[b"x"]));
        assert!(run(&mut q, Spin::Sleep, |_, _, what| {
            let What::Dgrams(d) = what else { return false };
            assert_eq!((d.class(), d.destination(), d.arrival()), (None, None, None));
            true
        }));
    });
}

#[test]
fn dual_stack__maps_ipv4() {
    on_both(|backend| {
        let (mut a, mut b) = (queue(backend), queue(backend));
        let (from, from_addr) = open(&mut a, "[::]:0", 0);
        let (_to, to) = open(&mut b, "127.0.0.1:0", 0);
        let mapped = format!("[::ffff:127.0.0.1]:{}", to.port()).parse().unwrap();
        send(&mut a, &from, train(mapped, 0x20, &[b"mapped"]));
        let got = receive(&mut b, Spin::Sleep, 1);
        assert_eq!(got[0].0, SocketAddr::from(([127, 0, 0, 1], from_addr.port())));
    });
}

#[test]
fn t43__port_unreachable_is_an_event_and_the_stream_lives() {
    in_all_timings(|backend| {
        for spin in [Spin::Sleep, Spin::Spin] {
            for bind in ["127.0.0.1:0", "[::1]:0"] {
                let mut q = queue(backend);
                let (source, own) = open(&mut q, bind, 5);
                let gone = UdpSocket::bind(bind).unwrap().local_addr().unwrap();
                for _ in 0..3 {
                    send(&mut q, &source, train(gone, 0, &[b"anyone?"]));
                    let reported = run(&mut q, spin, |token, last, what| match what {
                        What::Error(e) => {
                            assert_eq!((token, last), (Token(5), false));
                            assert_eq!((e.remote, e.why), (Some(gone), Why::Port));
                            true
                        }
                        _ => false,
                    });
                    assert!(reported, "{backend:?} {spin:?} {bind}");
                }
                send(&mut q, &source, train(own, 0, &[b"still here"]));
                assert_eq!(receive(&mut q, spin, 1).len(), 1);
            }
        }
    });
}

#[test]
fn flood__exhausts_blocks_and_recovers() {
    let _alone = ALONE.lock().unwrap();
    on_both(|backend| {
        let config = Config { backend, blocks: 4, direct_blocks: 2, ..Config::default() };
        let (mut a, mut b) = (queue(backend), Queue::new(config).unwrap());
        let (from, _) = open(&mut a, "127.0.0.1:0", 0);
        let (_to, to) = open(&mut b, "127.0.0.1:0", 0);
        // Arms the stream.
        let mut events = Events::default();
        b.wait(&mut events, Wait::now()).unwrap();
        let mut held = Vec::new();
        for _ in 0..50 {
            send(&mut a, &from, train(to, 0, &[&[1; 1000]]));
        }
        // Holding every lease starves the queue; it must say so rather than spin or fail.
        for _ in 0..20 {
            b.wait(&mut events, Wait::until(Instant::now() + Duration::from_millis(2))).unwrap();
            held.extend(events.drain());
        }
        assert!(b.stats().no_buffers > 0, "{:?}", b.stats());
        assert!(b.stats().no_buffers < 200, "{:?}", b.stats());
        let before: usize = held.drain(..).map(|e| matches!(e.what, What::Dgrams(_)) as usize).sum();
        assert!(before > 0);
        let after = receive(&mut b, Spin::Sleep, 50 - before).len();
        assert_eq!(before + after, 50, "{:?}", b.stats());
    });
}
