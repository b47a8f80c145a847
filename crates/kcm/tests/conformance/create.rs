//! Create, options, clone: cases 1 to 14.

use crate::common::sim::*;
use peyk_kcm::error::{AttachError, CloneError, Code, RecvError};
use peyk_kcm::kernel::{Call, KCM_RECV_DISABLE, SOL_KCM};
use peyk_kcm::*;

#[test]
fn case_001__datagram_and_seqpacket_open() {
    for kind in [Kind::Datagram, Kind::SeqPacket] {
        let (mut lab, socket) = Lab::new(Config { kind, ..Config::default() });
        let psock = lab.attach();
        lab.send(socket, b"out");
        lab.input(psock, &msg(b"in"));
        assert_eq!(lab.got(psock), [b"out"]);
        assert_eq!(lab.drain(socket), [b"in"]);
    }
    assert_eq!(Kind::from_numbers(2, 0), Ok(Kind::Datagram));
    assert_eq!(Kind::from_numbers(5, 0), Ok(Kind::SeqPacket));
    for kind in [-1, 0, 1, 3, 4, 6, i32::MAX] {
        assert_eq!(Kind::from_numbers(kind, 0), Err(Code::SOCKTNOSUPPORT), "{kind}");
    }
    for protocol in [-1, 1, 6, i32::MIN] {
        assert_eq!(Kind::from_numbers(2, protocol), Err(Code::PROTONOSUPPORT), "{protocol}");
    }
}

#[test]
fn case_002__unsupported_calls() {
    for call in Call::ALL {
        assert_eq!(call.error(), Code(95), "{call:?}");
    }
}

#[test]
fn case_003__recv_disable_is_a_flag() {
    let (mut lab, socket) = Lab::new(Config::default());
    assert_eq!(lab.mux.recv_disabled(socket), Some(false));
    for value in [true, true, false, false] {
        lab.mux.set_recv_disable(socket, value).unwrap();
        assert_eq!(lab.mux.recv_disabled(socket), Some(value));
    }
}

#[test]
fn case_004__options_of_any_length() {
    let (mut lab, socket) = Lab::new(Config::default());
    let mux = &mut lab.mux;
    for short in 0..4 {
        assert_eq!(mux.set_option(socket, SOL_KCM, KCM_RECV_DISABLE, &[1; 4][..short]), Err(Code::INVAL));
    }
    // Any number but 0 reads back as 1; what is beyond four bytes does not count.
    for (bytes, value) in [
        (1i32.to_ne_bytes().to_vec(), 1),
        (0i32.to_ne_bytes().to_vec(), 0),
        ((-1i32).to_ne_bytes().to_vec(), 1),
        (i32::MIN.to_ne_bytes().to_vec(), 1),
        (vec![0, 0, 0, 0, 9, 9, 9, 9], 0),
        ([7; 65_536].to_vec(), 1),
    ] {
        mux.set_option(socket, SOL_KCM, KCM_RECV_DISABLE, &bytes).unwrap();
        for room in 0..9 {
            let mut out = [0xee; 9];
            let count = mux.get_option(socket, SOL_KCM, KCM_RECV_DISABLE, &mut out[..room]).unwrap();
            assert_eq!(count, room.min(4));
            assert_eq!(out[..count], i32::from(value == 1).to_ne_bytes()[..count]);
            assert!(out[count..].iter().all(|byte| *byte == 0xee));
        }
    }
    for (level, option) in [(SOL_KCM, 0), (SOL_KCM, -1), (SOL_KCM, i32::MAX), (1, KCM_RECV_DISABLE), (-1, 1)]
    {
        assert_eq!(mux.set_option(socket, level, option, &[0; 4]), Err(Code::NOPROTOOPT));
        assert_eq!(mux.get_option(socket, level, option, &mut [0; 4]), Err(Code::NOPROTOOPT));
    }
    let other = mux.clone_socket(socket).unwrap();
    mux.close_socket(other, lab.now);
    assert_eq!(mux.set_option(other, SOL_KCM, KCM_RECV_DISABLE, &[0; 4]), Err(Code::BADF));
}

#[test]
fn case_005__two_muxes_are_isolated() {
    let (mut one, s1) = Lab::new(Config::default());
    let (mut two, s2) = Lab::new(Config::default());
    let (p1, p2) = (one.attach(), two.attach());
    one.input(p1, &msg(b"one"));
    two.input(p2, &msg(b"two"));
    one.send(s1, b"1");
    assert_eq!((one.drain(s1), two.drain(s2)), (vec![b"one".to_vec()], vec![b"two".to_vec()]));
    assert_eq!((one.got(p1).len(), two.got(p2).len()), (1, 0));
}

#[test]
fn case_006__the_smallest_free_index_is_reused() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 4, 4);
    assert_eq!(sockets.iter().map(|s| s.index()).collect::<Vec<_>>(), [0, 1, 2, 3]);
    lab.mux.close_socket(sockets[2], lab.now);
    lab.mux.close_socket(sockets[1], lab.now);
    let again = lab.mux.clone_socket(sockets[0]).unwrap();
    assert_eq!(again.index(), 1);
    assert_ne!(again, sockets[1], "the old name stays dead");
    assert_eq!(lab.mux.recv_message(sockets[1]), Err(RecvError::Closed));
    lab.mux.unattach(psocks[3], lab.now).unwrap();
    lab.mux.unattach(psocks[0], lab.now).unwrap();
    assert_eq!(lab.attach().index(), 0);
    assert!(lab.mux.unattach(psocks[0], lab.now).is_err());
}

#[test]
fn case_007__a_clone_of_a_clone_joins_the_same_mux() {
    let (mut lab, first) = Lab::new(Config::default());
    let psock = lab.attach();
    let second = lab.mux.clone_socket(first).unwrap();
    let third = lab.mux.clone_socket(second).unwrap();
    lab.send(third, b"x");
    assert_eq!(lab.got(psock), [b"x"]);
    (0..3).for_each(|i| lab.input(psock, &msg(&[i])));
    assert_eq!([first, second, third].map(|s| lab.drain(s).len()), [1, 1, 1]);
}

#[test]
fn case_008__the_original_closes_first() {
    let (mut lab, first) = Lab::new(Config::default());
    let psock = lab.attach();
    let second = lab.mux.clone_socket(first).unwrap();
    lab.mux.close_socket(first, lab.now);
    assert_eq!(lab.mux.clone_socket(first), Err(CloneError::Closed));
    lab.input(psock, &msg(b"x"));
    lab.send(second, b"y");
    assert_eq!((lab.drain(second).len(), lab.got(psock).len()), (1, 1));
}

#[test]
fn case_009__a_clone_has_the_kind_and_not_the_options() {
    let (mut lab, first) = Lab::new(Config { kind: Kind::SeqPacket, ..Config::default() });
    let psock = lab.attach();
    lab.mux.set_recv_disable(first, true).unwrap();
    let second = lab.mux.clone_socket(first).unwrap();
    assert_eq!(lab.mux.recv_disabled(second), Some(false));
    lab.input(psock, &msg(b"abc"));
    assert!(!lab.mux.recv(second, 2, false).unwrap().is_end, "a sequenced packet is read in pieces");
}

#[test]
fn case_010__clone_at_the_limit_changes_nothing() {
    let (mut lab, first) = Lab::new(Config { max_sockets: 2, max_psocks: 1, ..Config::default() });
    lab.mux.clone_socket(first).unwrap();
    let before = lab.mux.snapshot();
    assert_eq!(lab.mux.clone_socket(first), Err(CloneError::Full));
    assert_eq!(lab.mux.snapshot(), before);
    lab.attach();
    assert_eq!(lab.mux.attach(frames(), AttachOptions::default()), Err(AttachError::Full));
}

#[test]
fn case_011__a_clone_nobody_takes_is_closed_once() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 1, 1);
    let before = lab.mux.snapshot();
    for _ in 0..1000 {
        // Whoever asked for it is gone: it is closed, though it may have been given messages at once.
        let clone = lab.mux.clone_socket(sockets[0]).unwrap();
        assert_eq!(clone.index(), 1);
        lab.mux.close_socket(clone, lab.now);
        let taken = lab.mux.clone_socket(sockets[0]).unwrap();
        // A second close of the first is nothing: the index belongs to another.
        assert_eq!(lab.mux.close_socket(clone, lab.now), Closed::default());
        assert_eq!(lab.mux.sockets().collect::<Vec<_>>(), [sockets[0], taken]);
        lab.mux.close_socket(taken, lab.now);
        lab.run();
    }
    assert_eq!(lab.mux.snapshot(), before);
    lab.input(psocks[0], &msg(b"still here"));
    assert_eq!(lab.drain(sockets[0]), [b"still here"]);
}

#[test]
fn case_013__a_new_clone_gets_its_fair_share() {
    // Two sockets with full buffers, and eight connections with a parked message each.
    let config = Config { receive_buffer: 40, ..Config::default() };
    let (mut lab, sockets, psocks) = Lab::with(config, 2, 10);
    for psock in &psocks[..2] {
        let full: Vec<u8> = (0..10).flat_map(|_| msg(b"ab")).collect();
        lab.input(*psock, &full);
    }
    for psock in &psocks[2..] {
        lab.input(*psock, &msg(b"p"));
        assert_eq!(lab.mux.want_read(*psock), WantRead::Paused);
    }
    let clone = lab.mux.clone_socket(sockets[0]).unwrap();
    lab.run();
    let given = lab.mux.snapshot().sockets[clone.index()].rx_queue.0;
    assert_eq!(given, 3, "a third of eight, rounded up");
    assert_eq!(lab.drain(clone)[..3], [b"p", b"p", b"p"]);
    let mut all = 3;
    while lab.mux.has_parked() || lab.mux.memory_used() > 0 {
        all += [sockets[0], sockets[1], clone].iter().map(|s| lab.drain(*s).len()).sum::<usize>();
    }
    assert!(all <= 28 && lab.mux.stats().rx_msgs == 28);
    assert!(psocks.iter().all(|psock| matches!(lab.mux.want_read(*psock), WantRead::Min(_))));
}

#[test]
fn case_014__the_mux_dies_with_the_last_clone() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 3, 2);
    lab.input(psocks[0], &msg(b"unread"));
    lab.input(psocks[1], b"\0");
    for socket in sockets {
        assert_eq!(lab.mux.psocks().count(), 2);
        lab.mux.close_socket(socket, lab.now);
    }
    assert_eq!((lab.mux.psocks().count(), lab.mux.sockets().count(), lab.mux.memory_used()), (0, 0, 0));
    assert_eq!(lab.mux.attach(frames(), AttachOptions::default()), Err(AttachError::Closed));
    assert_eq!(lab.mux.stats().psock_unattach, 2);
}
