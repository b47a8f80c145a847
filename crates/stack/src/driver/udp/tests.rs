//! The driver over loopback sockets, once for each backend.

use std::net::UdpSocket;

use super::*;
use crate::driver::memory::tests::transmit;
use peyk_homa::Transmit;
use peyk_kevent::Backend;

const HEADER: [u8; 28] = [9; 28];

fn driver(backend: Backend) -> UdpDriver {
    let queue = QueueConfig { backend, ..QueueConfig::default() };
    UdpDriver::with_options(queue, udp::Options::default()).unwrap()
}

fn on_both(test: impl Fn(UdpDriver, UdpDriver)) {
    for backend in [Backend::Uring, Backend::Epoll] {
        test(driver(backend), driver(backend));
    }
}

/// Polls until `count` packets have come, or gives up after five seconds.
fn collect(driver: &mut UdpDriver, count: usize) -> Vec<(Path, Vec<u8>)> {
    let until = Instant::now() + Duration::from_secs(5);
    let mut got = Vec::new();
    while got.len() < count && Instant::now() < until {
        driver
            .poll(Wait::until(until), &mut |r| {
                if let Received::Packet { path, data } = r {
                    got.push((*path, data.to_vec()));
                }
            })
            .unwrap();
    }
    got
}

fn connected(a: &mut UdpDriver, b: &mut UdpDriver, bind: &str) -> (Path, SocketAddr) {
    let (local, from) = a.open_local(bind.parse().unwrap()).unwrap();
    let (_, remote) = b.open_local(bind.parse().unwrap()).unwrap();
    (Path { remote, local }, from)
}

#[test]
fn trains__shrink_on_slow_links_that_are_known() {
    let homa = |mbps| peyk_homa::Config::default().for_link(mbps, Duration::from_micros(200));
    assert_eq!(train_bytes(&peyk_homa::Config::default()), TRAINS.bytes);
    assert_eq!(train_bytes(&homa(80)), 500);
    assert_eq!(train_bytes(&homa(1_000)), 6_250);
    assert_eq!(train_bytes(&homa(100_000)), TRAINS.bytes);
}

#[test]
fn packets__arrive_whole_and_in_order() {
    on_both(|mut a, mut b| {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let (path, from) = connected(&mut a, &mut b, bind);
            for i in 0..100usize {
                a.send(
                    &transmit(path, 3, &HEADER, &vec![i as u8; [0, 1, 100, 1372, 600][i % 5] + i / 5])
                        .as_out(),
                );
            }
            a.flush();
            let got = collect(&mut b, 100);
            let mut sizes: Vec<usize> = got.iter().map(|(_, d)| d.len() - 28).collect();
            let mut expected: Vec<usize> = (0..100).map(|i| [0, 1, 100, 1372, 600][i % 5] + i / 5).collect();
            sizes.sort_unstable();
            expected.sort_unstable();
            assert_eq!(sizes, expected, "{bind}");
            for (path, data) in &got {
                assert_eq!(path.remote, from);
                assert_eq!(data[..28], HEADER);
                assert!(data[28..].windows(2).all(|w| w[0] == w[1]));
            }
        }
    });
}

#[test]
fn packets__keep_their_memory_until_the_next_poll_and_no_longer() {
    on_both(|mut a, mut b| {
        let (path, _) = connected(&mut a, &mut b, "127.0.0.1:0");
        a.send(&transmit(path, 0, &HEADER, b"once").as_out());
        a.flush();
        assert_eq!(collect(&mut b, 1).len(), 1);
        assert!(!b.events.is_empty());
        let mut again = 0;
        b.poll(Wait::now(), &mut |_| again += 1).unwrap();
        assert!(b.events.is_empty() && again == 0, "handed up once");
    });
}

#[test]
fn trains__leave_and_arrive_as_such() {
    on_both(|mut a, mut b| {
        let (path, _) = connected(&mut a, &mut b, "127.0.0.1:0");
        for i in 0..64u8 {
            a.send(&transmit(path, 0, &HEADER, &[i; 128]).as_out());
        }
        a.flush();
        let got = collect(&mut b, 64);
        let order: Vec<u8> = got.iter().map(|(_, d)| d[28]).collect();
        assert_eq!(order, (0..64).collect::<Vec<_>>());
        assert_eq!(a.stats().trains_sent, 2, "short packets make trains of 32");
        assert_eq!(a.stats().packets_sent, 64);
        assert_eq!(b.stats().trains_received, 2, "{:?}", b.stats());
    });
}

#[test]
fn large_payloads__are_gathered_in_place() {
    on_both(|mut a, mut b| {
        let (path, _) = connected(&mut a, &mut b, "127.0.0.1:0");
        let message: Vec<u8> = (0..200_000u32).map(|i| (i * 7 % 251) as u8).collect();
        let payload = peyk_sockbuf::Payload::from(message.clone());
        let header = peyk_homa::PacketHeader::copy_from(&HEADER);
        for start in (0..message.len()).step_by(8900) {
            let part = payload.slice(start..message.len().min(start + 8900));
            a.send(&Transmit { path, priority: 0, header, payload: part }.as_out());
        }
        a.flush();
        let got = collect(&mut b, 200_000usize.div_ceil(8900));
        let all: Vec<u8> = got.iter().flat_map(|(_, d)| d[28..].to_vec()).collect();
        assert_eq!(all, message);
    });
}

#[test]
fn dual_stack__speaks_to_ipv4_by_plain_addresses() {
    on_both(|mut a, mut b| {
        let (local, from) = a.open_local("[::]:0".parse().unwrap()).unwrap();
        let (back, remote) = b.open_local("127.0.0.1:0".parse().unwrap()).unwrap();
        a.send(&transmit(Path { remote, local }, 1, &HEADER, b"out").as_out());
        a.flush();
        let got = collect(&mut b, 1);
        assert_eq!(got[0].0.remote, SocketAddr::from(([127, 0, 0, 1], from.port())));
        b.send(&transmit(Path { remote: got[0].0.remote, local: back }, 1, &HEADER, b"in").as_out());
        b.flush();
        assert_eq!(collect(&mut a, 1)[0].0, Path { remote, local });
    });
}

#[test]
fn closed_port__is_reported() {
    on_both(|mut a, _| {
        for bind in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let target = if bind == "[::1]:0" { "[::1]:0" } else { "127.0.0.1:0" };
            let gone = UdpSocket::bind(target).unwrap().local_addr().unwrap();
            let (local, _) = a.open_local(bind.parse().unwrap()).unwrap();
            let mut seen = Vec::new();
            let until = Instant::now() + Duration::from_secs(5);
            a.send(&transmit(Path { remote: gone, local }, 0, &HEADER, b"anyone?").as_out());
            a.flush();
            while seen.is_empty() && Instant::now() < until {
                a.poll(Wait::until(until), &mut |r| {
                    if let Received::Unreachable { remote, why, id } = r {
                        seen.push((remote, why, id));
                    }
                })
                .unwrap();
            }
            let id = u64::from_be_bytes(HEADER[KEY_AT..KEY_AT + 8].try_into().unwrap());
            assert_eq!(seen, [(gone, Unreachable::Port { homa_port: None }, Some(id))], "{bind}");
        }
    });
}

#[test]
fn unreachable_host__is_reported_and_others_get_theirs() {
    on_both(|mut a, mut b| {
        let (path, _) = connected(&mut a, &mut b, "127.0.0.1:0");
        // A socket bound to loopback has no route to other networks.
        let nowhere = SocketAddr::from(([192, 0, 2, 1], 9));
        a.send(&transmit(Path { remote: nowhere, ..path }, 0, &HEADER, b"lost").as_out());
        a.send(&transmit(path, 0, &HEADER, b"kept").as_out());
        a.flush();
        assert_eq!(collect(&mut b, 1)[0].1[28..], *b"kept");
        let stats = a.stats();
        let dropped = stats.dropped_unreachable + stats.dropped_other + stats.dropped_prohibited;
        assert_eq!(dropped, 1, "{stats:?}");
    });
}

#[test]
fn closed_local__drops_and_its_number_is_reused() {
    on_both(|mut a, mut b| {
        let (path, _) = connected(&mut a, &mut b, "127.0.0.1:0");
        a.close_local(path.local);
        a.send(&transmit(path, 0, &HEADER, b"late").as_out());
        a.flush();
        assert_eq!(a.stats().dropped_closed, 1);
        let (path2, _) = connected(&mut a, &mut b, "127.0.0.1:0");
        assert_eq!(path2.local, path.local);
        a.send(&transmit(path2, 0, &HEADER, b"again").as_out());
        a.flush();
        assert_eq!(collect(&mut b, 1)[0].1[28..], *b"again");
    });
}

#[test]
fn mtu__is_that_of_the_route() {
    let mut a = driver(Backend::Epoll);
    let loopback = std::fs::read_to_string("/sys/class/net/lo/mtu").unwrap().trim().parse::<u32>().unwrap();
    assert_eq!(a.mtu("127.0.0.1:1".parse().unwrap()), loopback.min(65535));
    assert_eq!(a.mtu("127.0.0.1:2".parse().unwrap()), loopback.min(65535));
}

#[test]
fn waker__ends_a_poll() {
    on_both(|mut a, _| {
        let waker = a.waker();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            waker.wake();
        });
        assert_eq!(a.poll(Wait::forever(), &mut |_| {}).unwrap(), 0);
        thread.join().unwrap();
    });
}

#[test]
fn refused_trains__are_sent_apart_and_then_not_made() {
    on_both(|mut a, mut b| {
        let (path, _) = connected(&mut a, &mut b, "127.0.0.1:0");
        let source = a.local(path.local).unwrap().source.clone();
        let mut train = Train::new();
        train.start(path.remote, 0);
        for i in 0..3u8 {
            train.push(&HEADER, vec![i; 1000 - 100 * usize::from(i / 2)].into()).unwrap();
        }
        for round in 1..=REFUSALS {
            a.failed(path.local, &source, io::Error::from_raw_os_error(libc::EIO), &train);
            let sizes: Vec<usize> = collect(&mut b, 3).iter().map(|(_, d)| d.len()).collect();
            assert_eq!(sizes, [1028, 1028, 928]);
            assert_eq!(a.stats().trains_refused, u64::from(round));
        }
        let before = a.stats().trains_sent;
        for _ in 0..5 {
            a.send(&transmit(path, 0, &HEADER, &[7; 500]).as_out());
        }
        a.flush();
        assert_eq!(collect(&mut b, 5).len(), 5);
        assert_eq!(a.stats().trains_sent - before, 5);
    });
}

#[test]
fn many_packets__flush_by_themselves_and_all_arrive() {
    on_both(|mut a, mut b| {
        let (path, _) = connected(&mut a, &mut b, "127.0.0.1:0");
        for i in 0..(BURST + 100) as u32 {
            a.send(&transmit(path, 2, &HEADER, &i.to_be_bytes()).as_out());
        }
        a.flush();
        let got = collect(&mut b, BURST + 100);
        let numbers: Vec<u32> =
            got.iter().map(|(_, d)| u32::from_be_bytes(d[28..].try_into().unwrap())).collect();
        assert_eq!(numbers, (0..(BURST + 100) as u32).collect::<Vec<_>>());
    });
}

/// Sends `count` single packets, each of which is received before the next.
fn one_by_one(a: &mut UdpDriver, path: Path, b: &mut UdpDriver, from: SocketAddr, count: u32) {
    for i in 0..count {
        a.send(&transmit(path, 1, &HEADER, &i.to_be_bytes()).as_out());
        a.flush();
        let got = collect(b, 1);
        assert_eq!((got[0].0.remote, &got[0].1[28..]), (from, &i.to_be_bytes()[..]));
    }
}

#[test]
fn flow__one_host_gets_a_socket_of_its_own_and_others_are_heard() {
    on_both(|mut a, mut b| {
        for bind in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let other_side = if bind == "[::]:0" { "127.0.0.1:0" } else { bind };
            let (local, bound) = a.open_local(bind.parse().unwrap()).unwrap();
            let address = SocketAddr::new(other_side.parse::<SocketAddr>().unwrap().ip(), bound.port());
            let (peer_local, peer) = b.open_local(other_side.parse().unwrap()).unwrap();
            let before = a.stats().flows_opened;
            one_by_one(&mut b, Path { remote: address, local: peer_local }, &mut a, peer, 200);
            assert_eq!(a.stats().flows_opened - before, 1, "{bind}");
            assert!(UdpSocket::bind(bound).is_err(), "the port is not to be shared");
            // Both ways, single packets and trains, and nobody else is forgotten.
            one_by_one(&mut a, Path { remote: peer, local }, &mut b, address, 100);
            for i in 0..64u8 {
                b.send(
                    &transmit(Path { remote: address, local: peer_local }, 0, &HEADER, &[i; 128]).as_out(),
                );
                a.send(&transmit(Path { remote: peer, local }, 0, &HEADER, &[i; 128]).as_out());
            }
            b.flush();
            a.flush();
            for driver in [&mut a, &mut b] {
                let order: Vec<u8> = collect(driver, 64).iter().map(|(_, d)| d[28]).collect();
                assert_eq!(order, (0..64).collect::<Vec<_>>());
            }
            let (third_local, third) = b.open_local(other_side.parse().unwrap()).unwrap();
            one_by_one(&mut b, Path { remote: address, local: third_local }, &mut a, third, 400);
            assert!(
                a.local(local).unwrap().flow.as_ref().is_none_or(|flow| flow.remote.port() != peer.port())
            );
            one_by_one(&mut b, Path { remote: address, local: peer_local }, &mut a, peer, 10);
            a.close_local(local);
        }
    });
}

#[test]
fn flow__crowds_of_single_packets_become_trains() {
    on_both(|mut a, mut b| {
        let (path, from) = connected(&mut a, &mut b, "127.0.0.1:0");
        one_by_one(&mut a, path, &mut b, from, 100);
        assert_eq!(b.stats().flows_opened, 1);
        for _ in 0..40 {
            for i in 0..32u8 {
                a.send(&transmit(path, 0, &HEADER, &[i; 128]).as_out());
            }
            a.flush();
            let order: Vec<u8> = collect(&mut b, 32).iter().map(|(_, d)| d[28]).collect();
            assert_eq!(order, (0..32).collect::<Vec<_>>());
        }
        let before = b.stats().trains_received;
        for i in 0..32u8 {
            a.send(&transmit(path, 0, &HEADER, &[i; 128]).as_out());
        }
        a.flush();
        assert_eq!(collect(&mut b, 32).len(), 32);
        assert_eq!(b.stats().trains_received - before, 1);
    });
}

#[test]
fn flow__a_closed_port_is_reported_all_the_same() {
    on_both(|mut a, mut b| {
        let (path, from) = connected(&mut a, &mut b, "127.0.0.1:0");
        one_by_one(&mut a, path, &mut b, from, 100);
        one_by_one(&mut b, Path { remote: from, local: 0 }, &mut a, path.remote, 100);
        assert_eq!((a.stats().flows_opened, b.stats().flows_opened), (1, 1));
        b.close_local(0);
        // The queue lets go of the socket when it has seen the end of the stream.
        b.poll(Wait::until(Instant::now() + Duration::from_millis(20)), &mut |_| {}).unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        let mut seen = Vec::new();
        while seen.is_empty() && Instant::now() < until {
            a.send(&transmit(path, 0, &HEADER, b"anyone?").as_out());
            a.flush();
            let short = Instant::now() + Duration::from_millis(20);
            a.poll(Wait::until(short), &mut |r| {
                if let Received::Unreachable { remote, why, .. } = r {
                    seen.push((remote, why));
                }
            })
            .unwrap();
        }
        assert_eq!(seen, [(path.remote, Unreachable::Port { homa_port: None })]);
    });
}
