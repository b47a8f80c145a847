//! What is sent: trains and their boundaries, traffic classes, sends that wait for room.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use peyk_kevent::{Cancel, Operands, SendMsg, Spin, Token, Train, What, udp};

use crate::common::*;

#[test]
fn t42__train_keeps_every_boundary() {
    in_all_timings(|backend| {
        let (mut sender, _) = Sender::new(backend, "127.0.0.1:0");
        let mut b = queue(backend);
        let (_to, to) = open(&mut b, "127.0.0.1:0", 0);
        for (segment, count, last) in
            [(100, 64, 100), (1400, 46, 1), (156, 5, 155), (9000, 7, 3), (600, 2, 600)]
        {
            let sizes = (0..count).map(|i| if i + 1 == count { last } else { segment });
            let datagrams: Vec<Vec<u8>> = sizes.enumerate().map(|(i, n)| vec![i as u8; n]).collect();
            let slices: Vec<&[u8]> = datagrams.iter().map(Vec::as_slice).collect();
            sender.send(to, 0, &slices);
            let got: Vec<Vec<u8>> = receive(&mut b, Spin::Sleep, count).into_iter().map(|(_, d)| d).collect();
            assert!(got == datagrams, "{segment} x {count} + {last} on {backend:?}");
        }
    });
}

/// A route that refuses trains: its packets are shorter than the train's datagrams, which a single
/// datagram survives in fragments.
#[test]
fn t42__refused_train_is_split_by_hand_into_the_same_datagrams() {
    if !in_child("sends::t42__refused_train_is_split_by_hand_into_the_same_datagrams") {
        return;
    }
    if !narrow_loopback(1500) {
        println!("!!! SKIPPED: a route that refuses trains needs the right to make a network namespace");
        return;
    }
    on_both(|backend| {
        let (mut a, mut b) = (queue(backend), queue(backend));
        let (from, _) = open(&mut a, "127.0.0.1:0", 0);
        let (_to, to) = open(&mut b, "127.0.0.1:0", 0);
        let datagrams = [vec![1u8; 2000], vec![2; 2000], vec![3; 10]];
        let slices: Vec<&[u8]> = datagrams.iter().map(Vec::as_slice).collect();
        let whole = train(to, 0, &slices);
        let refused = |error: &std::io::Error| {
            assert!(
                matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE)),
                "{error}"
            );
        };
        // At once, and as an operation, which gives it back.
        refused(&a.send_now(&from, &mut [whole]).unwrap_err());
        a.submit(Token(9), SendMsg { source: from.clone(), train: train(to, 0, &slices) }).unwrap();
        let mut back = None;
        assert!(run(&mut a, Spin::Sleep, |token, last, what| {
            assert!(token == Token(9) && last, "{what:?}");
            match what {
                What::Failed { error, done: 0, operands: Operands::Train(train) } => {
                    refused(&error);
                    back = Some(train);
                }
                other => panic!("{other:?}"),
            }
            true
        }));
        let mut singles: Vec<Box<Train>> = back.unwrap().split().collect();
        assert_eq!(a.send_now(&from, &mut singles).unwrap(), 3);
        let got: Vec<Vec<u8>> = receive(&mut b, Spin::Sleep, 3).into_iter().map(|(_, d)| d).collect();
        assert_eq!(got, datagrams);
    });
}

/// Moves this thread to a network namespace of its own, whose loopback carries packets of `mtu` bytes
/// at most; false without the right to.
fn narrow_loopback(mtu: i32) -> bool {
    // SAFETY: plain numbers; the namespace is the thread's own.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return false;
    }
    // Any socket will do to speak of interfaces.
    let socket = UnixDatagram::unbound().unwrap();
    let set = |request: libc::Ioctl, value: libc::__c_anonymous_ifr_ifru| {
        let mut name = [0; libc::IFNAMSIZ];
        (name[0], name[1]) = (b'l' as libc::c_char, b'o' as libc::c_char);
        let mut ask = libc::ifreq { ifr_name: name, ifr_ifru: value };
        // SAFETY: a request that reads the record, which lives through the call.
        let done = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut ask) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    };
    set(libc::SIOCSIFFLAGS, libc::__c_anonymous_ifr_ifru { ifru_flags: libc::IFF_UP as libc::c_short });
    set(libc::SIOCSIFMTU, libc::__c_anonymous_ifr_ifru { ifru_mtu: mtu });
    true
}

/// Traffic class of the next datagram on a plain socket.
fn class_of(socket: &socket2::Socket) -> u32 {
    use std::mem::MaybeUninit;
    let mut data = [MaybeUninit::uninit(); 16];
    let mut control = [MaybeUninit::<u8>::uninit(); 64];
    let mut bufs = [socket2::MaybeUninitSlice::new(&mut data)];
    let mut message = socket2::MsgHdrMut::new().with_buffers(&mut bufs).with_control(&mut control);
    socket.recvmsg(&mut message, 0).unwrap();
    let len = message.control_len();
    // A control message: length (word), level, type, then the value.
    // SAFETY: the kernel has written `len` bytes.
    let byte = |i: usize| unsafe { control[i].assume_init() };
    assert!(len >= 17, "no traffic class was received");
    u32::from(byte(16))
}

/// A plain socket that is told the traffic class of what it receives, and its port.
fn plain_peer(at: SocketAddr) -> (socket2::Socket, u16) {
    let domain = socket2::Domain::for_address(at);
    let peer = socket2::Socket::new(domain, socket2::Type::DGRAM, None).unwrap();
    peer.bind(&at.into()).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    if at.is_ipv4() { peer.set_recv_tos_v4(true) } else { peer.set_recv_tclass_v6(true) }.unwrap();
    let port = peer.local_addr().unwrap().as_socket().unwrap().port();
    (peer, port)
}

#[test]
fn traffic_class__is_visible_to_a_plain_peer() {
    on_both(|backend| {
        for (bind, mapped) in [("127.0.0.1:0", false), ("[::1]:0", false), ("[::]:0", true)] {
            let peer_at: SocketAddr = if mapped { "127.0.0.1:0" } else { bind }.parse().unwrap();
            let (peer, port) = plain_peer(peer_at);
            let to: SocketAddr = match mapped {
                true => format!("[::ffff:127.0.0.1]:{port}").parse().unwrap(),
                false => SocketAddr::new(peer_at.ip(), port),
            };
            let mut q = queue(backend);
            let (source, _) = open(&mut q, bind, 0);
            for priority in 0..8u8 {
                send(&mut q, &source, train(to, priority << 5, &[b"prio"]));
                assert_eq!(class_of(&peer), u32::from(priority) << 5, "{bind}");
            }
        }
    });
}

#[test]
fn traffic_class__is_that_of_the_train_on_a_connected_socket_too() {
    on_both(|backend| {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let (peer, port) = plain_peer(bind.parse().unwrap());
            let to = SocketAddr::new(bind.parse::<SocketAddr>().unwrap().ip(), port);
            let mut q = queue(backend);
            let (source, _) = open(&mut q, bind, 0);
            let own = q.connect_beside(&source, to, &udp::Options::default()).unwrap();
            // Rows of one class become the socket's own, and then go the short way; others must not.
            let rows = [(0u8, 3), (0xe0, 100), (0x20, 1), (0xe0, 2), (0, 100), (0xe0, 1)];
            for (class, count) in rows {
                for i in 0..count {
                    let mut train = Train::new();
                    train.start_connected(to, class);
                    train.push(b"alone", vec![i].into()).unwrap();
                    send(&mut q, &own, train);
                    assert_eq!(class_of(&peer), u32::from(class), "{bind}, number {i} of {count}");
                }
            }
        }
    });
}

#[test]
fn full_socket__queues_sends_in_order() {
    on_both(|backend| {
        // Datagrams between Unix sockets wait for the receiver, as UDP does for a slow device.
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut q = queue(backend);
        let source = q.adopt(OwnedFd::from(ours)).unwrap();
        let nowhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
        let mut trains: Vec<Box<Train>> =
            (0..400u32).map(|i| train(nowhere, 0, &[&i.to_be_bytes()])).collect();
        let sent = q.send_now(&source, &mut trains).unwrap();
        assert!(sent > 0 && sent < 400, "the pair takes {sent}");
        let waiting = trains.split_off(sent);
        let mut ids = Vec::new();
        for (i, train) in waiting.into_iter().enumerate() {
            ids.push(q.submit(Token(i as u64), SendMsg { source: source.clone(), train }).unwrap());
        }
        assert_eq!(q.send_now(&source, &mut [train(nowhere, 0, &[b"not before the others"])]).unwrap(), 0);
        let last = ids.pop().unwrap();
        assert_eq!(q.cancel(last), Cancel::Requested);
        let reader = std::thread::spawn(move || {
            let mut buf = [0; 64];
            (0..399u32).map(|_| theirs.recv(&mut buf).map(|n| buf[..n].to_vec()).unwrap()).collect::<Vec<_>>()
        });
        let (mut done, mut cancelled) = (0, 0);
        assert!(run(&mut q, Spin::Sleep, |_, last, what| {
            assert!(last);
            match what {
                What::TrainSent(_) => done += 1,
                What::Cancelled { .. } => cancelled += 1,
                other => panic!("{other:?}"),
            }
            done + cancelled == 400 - sent
        }));
        assert_eq!(cancelled, 1);
        let got = reader.join().unwrap();
        let expected: Vec<Vec<u8>> = (0..399u32).map(|i| i.to_be_bytes().to_vec()).collect();
        assert_eq!(got, expected);
        assert_eq!(q.cancel(last), Cancel::AlreadyDone);
        assert_eq!(q.in_flight(), 0);
    });
}
