//! Attach and unattach on the machine: cases 21 to 34 that need no descriptor.

use crate::common::sim::*;
use peyk_kcm::bpf::{BpfFramer, Limits, Program};
use peyk_kcm::error::{AttachError, Code, UnattachError};
use peyk_kcm::framer::{Kafka, Spread};
use peyk_kcm::*;
use peyk_sansio::Prng;

/// A stream that goes from mux to mux: attached at any moment while bytes arrive, and taken off at any.
#[test]
fn case_022__attach_while_bytes_arrive() {
    let mut prng = Prng::new(22);
    let (mut lab, socket) = Lab::new(Config { receive_buffer: 60, ..Config::default() });
    let (mut sent, mut seen) = (0u32, Vec::new());
    // What the far end has written, and what was read and not delivered when the stream was last taken off.
    let (mut in_flight, mut read) = (Vec::new(), bytes::Bytes::new());
    for _ in 0..10_000 {
        let psock = lab.attach();
        lab.input(psock, &read);
        for _ in 0..prng.below(4) {
            for _ in 0..prng.below(4) {
                let mut body = sent.to_be_bytes().to_vec();
                body.resize(4 + prng.below(20) as usize, 0);
                in_flight.extend_from_slice(&msg(&body));
                sent += 1;
            }
            let count = prng.below(in_flight.len() as u64 + 1) as usize;
            let bytes: Vec<u8> = in_flight.drain(..count).collect();
            lab.input(psock, &bytes);
            if prng.chance(0.7) {
                seen.extend(lab.drain(socket));
            }
        }
        let off = lab.mux.unattach(psock, lab.now).unwrap();
        lab.run();
        seen.extend(lab.drain(socket));
        seen.extend(off.parked.map(|message| message.bytes[2..].to_vec()));
        read = off.buffered;
    }
    let last = lab.attach();
    for bytes in [&read[..], &in_flight] {
        lab.input(last, bytes);
        loop {
            let more = lab.drain(socket);
            if more.is_empty() {
                break;
            }
            seen.extend(more);
        }
    }
    assert!(sent > 10_000);
    let numbers: Vec<u32> =
        seen.iter().map(|body| u32::from_be_bytes(body[..4].try_into().unwrap())).collect();
    assert!(numbers.iter().copied().eq(0..sent), "each message once, in order");
}

#[test]
fn case_023__attach_serves_the_oldest_waiting_sender() {
    let (mut lab, sockets, _) = Lab::with(Config::default(), 3, 0);
    for i in [1, 0, 2] {
        lab.send(sockets[i], &[i as u8]);
    }
    assert!(lab.has(&Event::NoPsock));
    let psock = lab.attach();
    assert_eq!(lab.got(psock), [[1], [0], [2]]);
}

#[test]
fn case_024__a_refused_attach_changes_nothing() {
    let (mut lab, _) = Lab::new(Config::default());
    let before = lab.mux.snapshot();
    let refused = lab.mux.attach(Box::new(Kafka::default()), AttachOptions::default());
    assert_eq!(refused, Err(AttachError::Ordered), "requests of Kafka must stay in order");
    assert!(Program::from_elf(b"\x7fELF", Limits::default()).is_err());
    assert_eq!(lab.mux.snapshot(), before);
    for order in [Order::Any, Order::Connection, Order::Replies, Order::Key] {
        let (mut lab, _) = Lab::new(Config { order, ..Config::default() });
        lab.mux.attach(Box::new(Kafka::default()), AttachOptions::default()).unwrap();
    }
}

#[test]
fn case_025__a_program_outlives_its_owner() {
    let (mut lab, socket) = Lab::new(Config::default());
    let program = crate::common::bpf::load("thrift.v3.o");
    let framer = Box::new(BpfFramer::new(program.clone(), Spread::Any));
    let psock = lab.mux.attach(framer, AttachOptions::default()).unwrap();
    drop(program);
    lab.input(psock, b"\0\0\0\x02hi");
    assert_eq!(&lab.mux.recv_message(socket).unwrap().bytes[..], b"\0\0\0\x02hi");
}

#[test]
fn case_026__unattach_idle() {
    let (mut lab, socket) = Lab::new(Config::default());
    let psock = lab.attach();
    lab.send(socket, b"x");
    assert_eq!(lab.mux.unattach(psock, lab.now).unwrap(), Unattached::default());
    assert_eq!(lab.mux.psocks().count(), 0);
    let stats = lab.mux.stats();
    assert_eq!((stats.psock_attach, stats.psock_unattach, stats.psock_unattach_rsvd), (1, 1, 0));
    assert_eq!(lab.attach().index(), psock.index());
}

#[test]
fn case_027__unattach_of_what_is_not_there() {
    let (mut lab, _) = Lab::new(Config::default());
    let psock = lab.attach();
    lab.mux.unattach(psock, lab.now).unwrap();
    assert_eq!(lab.mux.unattach(psock, lab.now), Err(UnattachError::Unknown));
}

#[test]
fn case_028__unattach_with_a_parked_message() {
    let (mut lab, socket) = Lab::new(Config::default());
    let psock = lab.attach();
    lab.mux.set_recv_disable(socket, true).unwrap();
    lab.input(psock, &[msg(b"parked"), msg(b"rest")].concat());
    let off = lab.mux.unattach(psock, lab.now).unwrap();
    assert_eq!(off.parked.unwrap().bytes, msg(b"parked"));
    assert_eq!(off.buffered, msg(b"rest"));
    assert_eq!((lab.mux.stats().rx_ready_drops, lab.mux.memory_used()), (1, 0));
}

#[test]
fn case_029__unattach_in_mid_assembly_returns_the_bytes() {
    let stream = msg(b"0123456789");
    for cut in 1..stream.len() {
        let (mut lab, socket) = Lab::new(Config::default());
        let psock = lab.attach();
        lab.input(psock, &msg(b"before"));
        lab.input(psock, &stream[..cut]);
        let off = lab.mux.unattach(psock, lab.now).unwrap();
        assert_eq!(off.buffered, stream[..cut]);
        // Another mux goes on where this one stopped.
        let again = lab.attach();
        lab.input(again, &off.buffered);
        lab.input(again, &stream[cut..]);
        assert_eq!(lab.drain(socket), [b"before".to_vec(), b"0123456789".to_vec()]);
    }
}

#[test]
fn case_030__unattach_while_reserved_sends_elsewhere() {
    let body = b"a message";
    for taken in 0..2 + body.len() {
        let (mut lab, sockets, psocks) = Lab::with(Config::default(), 1, 2);
        lab.peers.get_mut(&psocks[0]).unwrap().takes = Some(taken);
        lab.peers.get_mut(&psocks[0]).unwrap().is_full = taken == 0;
        lab.mux.send(sockets[0], msg(body), send_now(), lab.now).unwrap();
        // One write only, then it is stuck.
        let psock = lab.mux.poll_write().unwrap();
        let mut slices = Vec::new();
        lab.mux.tx_slices(psock, 1 << 20, &mut slices);
        lab.mux.stream_wrote(psock, taken, lab.now);
        let off = lab.mux.unattach(psocks[0], lab.now).unwrap();
        lab.run();
        assert_eq!(off.tx_partial, taken);
        assert_eq!(lab.got(psocks[1]), [body]);
        let stats = lab.mux.stats();
        assert_eq!((stats.psock_unattach, stats.psock_unattach_rsvd, stats.tx_retries), (1, 1, 1));
        assert_eq!(lab.mux.psock_stats_sum().tx_aborts, 1);
    }
}

#[test]
fn case_031__unattach_and_close_of_the_holder_in_any_order() {
    let mut prng = Prng::new(31);
    for round in 0..100_000 {
        let (mut lab, sockets, psocks) = Lab::with(Config::default(), 2, 1 + round % 2);
        // The holder has sent some messages, of which the stream took a part.
        for _ in 0..1 + prng.below(3) {
            lab.mux.send(sockets[0], msg(b"holder"), send_now(), lab.now).unwrap();
        }
        let mut under_way = None;
        if prng.chance(0.8) {
            let psock = lab.mux.poll_write().unwrap();
            let offered = lab.mux.tx_slices(psock, 1 << 20, &mut Vec::new());
            under_way = Some((psock, prng.below(offered as u64) as usize));
        }
        let mut steps = [0, 1, 2, 3];
        for i in 0..4 {
            steps.swap(i, prng.below(4) as usize);
        }
        for step in steps {
            match step {
                0 => drop(lab.mux.close_socket(sockets[0], lab.now)),
                1 => drop(lab.mux.unattach(psocks[0], lab.now).unwrap()),
                2 => {
                    // What the stream had been given it answers for, whoever is gone by then.
                    if let Some((psock, taken)) = under_way.take() {
                        lab.mux.stream_wrote(psock, taken, lab.now);
                    }
                }
                _ => lab.mux.stream_writable(psocks[0]),
            }
        }
        for psock in &psocks {
            lab.peers.get_mut(psock).unwrap().got.clear();
        }
        lab.run();
        let fresh = lab.attach();
        (0..2).for_each(|_| lab.send(sockets[1], b"x"));
        let whole = lab.all_got();
        assert_eq!(whole.iter().filter(|body| *body == b"x").count(), 2, "round {round}");
        assert!(lab.mux.is_up(fresh) && lab.mux.memory_used() == 0);
        assert_eq!(lab.mux.sockets().collect::<Vec<_>>(), [sockets[1]]);
    }
}

#[test]
fn case_033__what_was_unattached_says_nothing_more() {
    let (mut lab, socket) = Lab::new(Config::default());
    let psock = lab.attach();
    lab.mux.unattach(psock, lab.now).unwrap();
    let again = lab.attach();
    assert_eq!(again.index(), psock.index());
    lab.events.clear();
    lab.input(psock, &msg(b"late"));
    lab.mux.stream_wrote(psock, 0, lab.now);
    lab.mux.stream_writable(psock);
    lab.error(psock, Code::CONNRESET);
    assert!(lab.events.is_empty() && lab.drain(socket).is_empty());
    assert!(lab.mux.is_up(again));
}

#[test]
fn case_034__a_dropped_stream_is_reported() {
    let (mut lab, socket) = Lab::new(Config::default());
    let psock = lab.attach();
    lab.input(psock, &msg(b"first"));
    lab.mux.stream_dropped(psock, lab.now);
    lab.run();
    assert_eq!(lab.down(psock), Some(Cause::Dropped));
    assert_eq!(lab.drain(socket), [b"first"]);
    lab.mux.unattach(psock, lab.now).unwrap();
    assert_eq!(lab.mux.memory_used(), 0);
}
