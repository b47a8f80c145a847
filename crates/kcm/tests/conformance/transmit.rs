//! Transmit: cases 35 to 60.

use std::time::Duration;

use crate::common::sim::*;
use bytes::Bytes;
use peyk_kcm::error::{Code, SendError};
use peyk_kcm::*;

fn more() -> SendFlags {
    SendFlags { more: true, ..SendFlags::default() }
}

fn seqpacket() -> Config {
    Config { kind: Kind::SeqPacket, ..Config::default() }
}

#[test]
fn case_035__one_send_one_message() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 1, 1);
    for body in [&b"a"[..], b"", b"ccc"] {
        lab.mux.send(sockets[0], msg(body), SendFlags::default(), lab.now).unwrap();
    }
    lab.run();
    assert_eq!(lab.got(psocks[0]), [&b"a"[..], b"", b"ccc"]);
    assert_eq!(lab.mux.socket_stats(sockets[0]).unwrap().tx_msgs, 3);
}

#[test]
fn case_036__more_joins_pieces() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 1, 1);
    let whole = msg(b"in pieces");
    for piece in whole.chunks(3) {
        lab.mux.send(sockets[0], Bytes::copy_from_slice(piece), more(), lab.now).unwrap();
        lab.run();
        assert!(lab.peers[&psocks[0]].got.is_empty());
    }
    lab.mux.send(sockets[0], Bytes::new(), SendFlags::default(), lab.now).unwrap();
    lab.run();
    assert_eq!(lab.got(psocks[0]), [b"in pieces"]);
}

#[test]
fn case_037__a_sequenced_packet_needs_its_end() {
    let (mut lab, sockets, psocks) = Lab::with(seqpacket(), 1, 1);
    lab.mux.send(sockets[0], msg(b"x"), SendFlags::default(), lab.now).unwrap();
    lab.run();
    assert!(lab.peers[&psocks[0]].got.is_empty());
    lab.mux.send(sockets[0], Bytes::new(), send_now(), lab.now).unwrap();
    lab.run();
    assert_eq!(lab.got(psocks[0]), [b"x"]);
}

#[test]
fn case_038__an_empty_end_without_a_message_is_nothing() {
    for config in [Config::default(), seqpacket()] {
        let (mut lab, sockets, psocks) = Lab::with(config, 1, 1);
        assert_eq!(lab.mux.send(sockets[0], Bytes::new(), send_now(), lab.now), Ok(0));
        lab.run();
        assert!(lab.peers[&psocks[0]].got.is_empty());
        assert_eq!(lab.mux.socket_stats(sockets[0]).unwrap().tx_msgs, 0);
    }
}

/// Pieces of which the third cannot be read.
fn failing() -> Vec<Result<Bytes, &'static str>> {
    let whole = msg(b"0123456789");
    vec![Ok(whole.slice(..4)), Ok(whole.slice(4..8)), Err("bad memory"), Ok(whole.slice(8..))]
}

#[test]
fn case_039__a_failing_copy_drops_the_datagram() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 1, 1);
    lab.mux.send(sockets[0], Bytes::from_static(b"earlier piece"), more(), lab.now).unwrap();
    let failed = lab.mux.send_pieces(sockets[0], failing(), SendFlags::default(), lab.now);
    assert_eq!(failed, Err(Err("bad memory")));
    lab.send(sockets[0], b"clean");
    assert_eq!(lab.got(psocks[0]), [b"clean"]);
}

#[test]
fn case_040__a_failing_copy_keeps_the_sequenced_packet() {
    let (mut lab, sockets, psocks) = Lab::with(seqpacket(), 1, 1);
    assert_eq!(lab.mux.send_pieces(sockets[0], failing(), send_now(), lab.now), Ok(8));
    lab.mux.send(sockets[0], msg(b"0123456789").slice(8..), send_now(), lab.now).unwrap();
    lab.run();
    assert_eq!(lab.got(psocks[0]), [b"0123456789"]);
    let first: Vec<Result<Bytes, &str>> = vec![Err("at once")];
    assert_eq!(lab.mux.send_pieces(sockets[0], first, send_now(), lab.now), Err(Err("at once")));
}

#[test]
fn case_041__errors_leave_no_charge() {
    let config = Config { send_buffer: 1000, ..Config::default() };
    let (mut lab, sockets, _) = Lab::with(config, 1, 1);
    for _ in 0..10_000 {
        let _ = lab.mux.send_pieces(sockets[0], failing(), SendFlags::default(), lab.now);
    }
    for _ in 0..50 {
        lab.mux.send(sockets[0], msg(&[0; 100]), send_now(), lab.now).expect("the buffer is empty");
        lab.run();
    }
}

#[test]
fn case_042__longer_than_the_send_buffer() {
    let config = Config { send_buffer: 100, max_message: 5000, ..Config::default() };
    let (mut lab, sockets, psocks) = Lab::with(config, 1, 1);
    lab.send(sockets[0], &[7; 3000]);
    assert_eq!(lab.got(psocks[0]), [[7; 3000]]);
    assert_eq!(lab.mux.send(sockets[0], msg(&[7; 4999]), send_now(), lab.now), Err(SendError::TooBig));
    lab.send(sockets[0], b"next");
    assert_eq!(lab.got(psocks[0]).len(), 2);
}

#[test]
fn case_043__full_then_writable_then_taken() {
    let config = Config { send_buffer: 100, ..Config::default() };
    let (mut lab, sockets, psocks) = Lab::with(config, 1, 1);
    lab.peers.get_mut(&psocks[0]).unwrap().is_full = true;
    lab.send(sockets[0], &[1; 100]);
    assert_eq!(lab.mux.send(sockets[0], msg(b"x"), send_now(), lab.now), Err(SendError::WouldBlock));
    assert!(!lab.has(&Event::Writable(sockets[0])));
    lab.unblock(psocks[0]);
    assert!(lab.has(&Event::Writable(sockets[0])));
    lab.send(sockets[0], b"x");
    assert_eq!(lab.got(psocks[0]).len(), 2);
}

#[test]
fn case_045__atomic_at_every_partial_write() {
    for takes in 1..40 {
        let (mut lab, sockets, psocks) = Lab::with(Config::default(), 3, 2);
        for psock in &psocks {
            lab.peers.get_mut(psock).unwrap().takes = Some(takes);
        }
        for round in 0..4u8 {
            for (i, socket) in sockets.iter().enumerate() {
                lab.mux.send(*socket, msg(&[round * 3 + i as u8; 17]), send_now(), lab.now).unwrap();
            }
        }
        lab.run();
        for psock in &psocks {
            let (bodies, cut) = parse(&lab.peers[psock].got);
            assert_eq!(cut, 0);
            assert!(bodies.iter().all(|body| body.iter().all(|byte| *byte == body[0])), "messages mix");
        }
        assert_eq!(lab.all_got().len(), 12);
    }
}

#[test]
fn case_046__a_blocked_connection_stays_with_its_sender() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 2, 2);
    lab.peers.get_mut(&psocks[0]).unwrap().is_full = true;
    lab.send(sockets[0], b"stuck");
    for i in 0..5 {
        lab.send(sockets[1], &[i]);
    }
    assert_eq!(lab.got(psocks[1]).len(), 5);
    lab.send(sockets[0], b"behind");
    assert_eq!(lab.got(psocks[1]).len(), 5, "what follows waits for its place");
    lab.unblock(psocks[0]);
    assert_eq!(lab.got(psocks[0]), [&b"stuck"[..], b"behind"]);
}

#[test]
fn case_047__a_batch_leaves_with_its_end() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 1, 3);
    let batch = SendFlags { batch: true, ..send_now() };
    for i in 0..5 {
        lab.mux.send(sockets[0], msg(&[i]), batch, lab.now).unwrap();
        lab.run();
    }
    assert!(lab.all_got().is_empty());
    lab.send(sockets[0], &[5]);
    assert_eq!(lab.got(psocks[0]), (0..6).map(|i| vec![i]).collect::<Vec<_>>());
}

#[test]
fn case_048__a_batch_without_end_leaves_at_its_deadline() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 1, 1);
    let batch = SendFlags { batch: true, ..send_now() };
    lab.mux.send(sockets[0], msg(b"x"), batch, lab.now).unwrap();
    lab.run();
    assert_eq!(lab.mux.poll_timeout(), Some(lab.now + Duration::from_millis(1)));
    lab.pass_time(Duration::from_micros(999));
    assert!(lab.got(psocks[0]).is_empty());
    lab.pass_time(Duration::from_micros(1));
    assert_eq!(lab.got(psocks[0]), [b"x"]);
}

#[test]
fn case_049__sendmmsg_says_how_many() {
    let config = Config { send_buffer: 30, ..Config::default() };
    let (mut lab, sockets, psocks) = Lab::with(config, 1, 1);
    let messages = || (0..10u8).map(|i| msg(&[i; 8]));
    assert_eq!(lab.mux.send_batch(sockets[0], messages(), SendFlags::default(), lab.now), Ok(3));
    assert_eq!(
        lab.mux.send_batch(sockets[0], messages(), SendFlags::default(), lab.now),
        Err(SendError::WouldBlock)
    );
    lab.run();
    assert_eq!(lab.got(psocks[0]).len(), 3);
}

#[test]
fn case_050__connections_take_turns_by_batch() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 1, 3);
    for i in 0..9 {
        lab.send(sockets[0], &[i]);
    }
    assert_eq!(psocks.iter().map(|p| lab.got(*p).len()).collect::<Vec<_>>(), [3, 3, 3]);
    assert_eq!(lab.got(psocks[0]), [[0], [3], [6]]);
}

#[test]
fn case_051__a_write_error_at_every_byte() {
    let body = b"exactly once";
    let length = 2 + body.len();
    for at in 0..2 * length {
        let (mut lab, sockets, psocks) = Lab::with(Config::default(), 1, 2);
        lab.peers.get_mut(&psocks[0]).unwrap().fails_at = Some(at);
        lab.mux.send_batch(sockets[0], [msg(body), msg(body), msg(b"last")], send_now(), lab.now).unwrap();
        lab.run();
        let whole = at / length;
        assert_eq!(lab.got(psocks[0]).len(), whole, "fails at {at}");
        assert_eq!(lab.got(psocks[1]).len(), 3 - whole, "fails at {at}");
        assert_eq!((lab.mux.stats().tx_retries, lab.mux.psock_stats_sum().tx_aborts), (1, 1));
        assert_eq!(lab.down(psocks[0]), Some(Cause::Io(Code::CONNRESET)));
    }
}

#[test]
fn case_052__all_connections_fail_one_after_the_other() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 1, 5);
    for psock in &psocks {
        lab.peers.get_mut(psock).unwrap().fails_at = Some(3);
    }
    lab.send(sockets[0], b"patient");
    assert!(lab.all_got().is_empty() && lab.has(&Event::NoPsock));
    assert_eq!(lab.mux.stats().tx_retries, 5);
    let fresh = lab.attach();
    assert_eq!(lab.got(fresh), [b"patient"]);
}

#[test]
fn case_053__what_fails_while_idle_is_never_chosen() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 1, 2);
    lab.error(psocks[0], Code::CONNRESET);
    for i in 0..4 {
        lab.send(sockets[0], &[i]);
    }
    assert_eq!((lab.got(psocks[0]).len(), lab.got(psocks[1]).len()), (0, 4));
}

#[test]
fn case_054__failure_between_two_writes() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 1, 2);
    lab.peers.get_mut(&psocks[0]).unwrap().is_full = true;
    lab.send(sockets[0], b"moves on");
    lab.error(psocks[0], Code::CONNRESET);
    assert_eq!(lab.got(psocks[1]), [b"moves on"]);
    assert_eq!(lab.mux.stats().tx_retries, 1);
}

#[test]
fn case_055__room_for_a_holder_that_is_gone() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 2, 1);
    lab.peers.get_mut(&psocks[0]).unwrap().is_full = true;
    lab.send(sockets[0], b"never");
    lab.mux.close_socket(sockets[0], lab.now);
    lab.unblock(psocks[0]);
    lab.send(sockets[1], b"x");
    assert_eq!(lab.got(psocks[0]), [b"x"], "nothing had left, so the connection is as good as new");
}

#[test]
fn case_056__close_with_unsent_data() {
    let (mut lab, sockets, _) = Lab::with(Config::default(), 2, 0);
    lab.send(sockets[0], b"12345678");
    lab.send(sockets[0], b"x");
    assert_eq!(lab.mux.close_socket(sockets[0], lab.now), Closed { unsent: 2, unsent_bytes: 13 });
    // Flushed instead: delivered, or given up at the deadline.
    for comes in [true, false] {
        let (mut lab, sockets, _) = Lab::with(Config::default(), 2, 0);
        lab.send(sockets[0], b"y");
        lab.mux.close_flush(sockets[0], lab.now + Duration::from_secs(1), lab.now);
        assert_eq!(lab.mux.send(sockets[0], msg(b"z"), send_now(), lab.now), Err(SendError::Closed));
        let unsent = if comes {
            let psock = lab.attach();
            assert_eq!(lab.got(psock), [b"y"]);
            0
        } else {
            lab.pass_time(Duration::from_secs(1));
            1
        };
        assert!(lab.has(&Event::Closed { socket: sockets[0], unsent }));
        assert_eq!(lab.mux.sockets().count(), 1);
    }
}

#[test]
fn case_057__close_in_mid_message_kills_that_connection_only() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 2, 2);
    lab.mux.send(sockets[0], msg(b"half"), send_now(), lab.now).unwrap();
    let psock = lab.mux.poll_write().unwrap();
    lab.mux.tx_slices(psock, 1 << 20, &mut Vec::new());
    lab.mux.stream_wrote(psock, 3, lab.now);
    lab.mux.close_socket(sockets[0], lab.now);
    lab.run();
    assert_eq!(lab.down(psock), Some(Cause::HolderClosed));
    for i in 0..3 {
        lab.send(sockets[1], &[i]);
    }
    assert_eq!(lab.got(psocks[1]).len(), 3);
}

#[test]
fn case_058__waiting_senders_are_served_in_line() {
    let (mut lab, sockets, _) = Lab::with(Config::default(), 4, 0);
    for i in [2, 0, 3, 1] {
        lab.send(sockets[i], &[i as u8]);
    }
    lab.mux.close_socket(sockets[3], lab.now);
    let psock = lab.attach();
    assert_eq!(lab.got(psock), [[2], [0], [1]]);
}

#[test]
fn case_059__without_connections_sends_queue_up() {
    let config = Config { send_buffer: 20, ..Config::default() };
    let (mut lab, socket) = Lab::new(config.clone());
    lab.send(socket, &[0; 10]);
    assert!(lab.has(&Event::NoPsock));
    lab.send(socket, &[0; 10]);
    assert_eq!(lab.mux.send(socket, msg(b"x"), send_now(), lab.now), Err(SendError::WouldBlock));
    let (mut lab, socket) = Lab::new(Config { fail_fast: true, ..config });
    assert_eq!(lab.mux.send(socket, msg(b"x"), send_now(), lab.now), Err(SendError::NoPsock));
    assert_eq!(lab.mux.recv_message(socket), Err(peyk_kcm::error::RecvError::NoPsock));
}

#[test]
fn case_060__nobody_holds_a_connection_beyond_the_quantum() {
    let config = Config { send_buffer: 1 << 20, quantum_messages: 4, ..Config::default() };
    let (mut lab, sockets, psocks) = Lab::with(config, 2, 1);
    lab.peers.get_mut(&psocks[0]).unwrap().is_full = true;
    for i in 0..20 {
        lab.send(sockets[0], &[0, i]);
    }
    for i in 0..8 {
        lab.send(sockets[1], &[1, i]);
    }
    lab.unblock(psocks[0]);
    let order: Vec<u8> = lab.got(psocks[0]).iter().map(|body| body[0]).collect();
    assert_eq!(order[..16], [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1]);
    assert_eq!(order.len(), 28);
}

#[test]
fn targets__an_address_is_connected_on_demand() {
    let (mut lab, socket) = Lab::new(Config::default());
    let other = lab.attach();
    let addr = "10.0.0.1:1".parse().unwrap();
    for i in 0..3 {
        lab.mux.send(socket, msg(&[i]), to(Target::Addr(addr)), lab.now).unwrap();
    }
    lab.run();
    assert_eq!(lab.events.iter().filter(|e| **e == Event::Connect(addr)).count(), 1);
    let psock = lab.attach_as(AttachOptions { addr: Some(addr), only_targeted: true });
    assert_eq!((lab.got(psock).len(), lab.got(other).len()), (3, 0));
    // It broke: the next message asks anew, and when that fails its sender hears of it.
    lab.error(psock, Code::CONNRESET);
    lab.mux.send(socket, msg(b"x"), to(Target::Addr(addr)), lab.now).unwrap();
    lab.mux.connect_failed(addr, Code(111));
    assert_eq!(lab.mux.send(socket, msg(b"y"), send_now(), lab.now), Err(SendError::Earlier(Code(111))));
    lab.send(socket, b"z");
    assert_eq!(lab.got(other), [b"z"]);
}
