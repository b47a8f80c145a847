//! Assembly and errors: cases 83 to 97.

use std::time::Duration;

use crate::common::sim::*;
use bytes::Bytes;
use peyk_kcm::bpf::{BpfFramer, Insn, Limits, Program};
use peyk_kcm::error::{Code, FrameError};
use peyk_kcm::framer::{Framer, LengthField, Resume, Spread, Verdict};
use peyk_kcm::*;

/// A framer that is a function.
#[derive(Clone)]
struct By<F>(F);

impl<F: FnMut(&[u8]) -> Verdict + Clone + Send + 'static> Framer for By<F> {
    fn frame(&mut self, bytes: &[u8], _: &mut Resume) -> Verdict {
        (self.0)(bytes)
    }

    fn spread(&self) -> Spread {
        Spread::Any
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(self.clone())
    }
}

fn lab_by(framer: impl FnMut(&[u8]) -> Verdict + Clone + Send + 'static) -> (Lab, SocketId, PsockId) {
    lab_with(Box::new(By(framer)), Config::default())
}

fn lab_with(framer: Box<dyn Framer>, config: Config) -> (Lab, SocketId, PsockId) {
    let (mut lab, socket) = Lab::new(config);
    let psock = lab.mux.attach(framer, AttachOptions::default()).unwrap();
    (lab, socket, psock)
}

fn code(lab: &Lab, psock: PsockId) -> Option<Code> {
    lab.down(psock).map(|cause| cause.code())
}

#[test]
fn case_083__an_incomplete_header_counts_each_time() {
    let (mut lab, _, psock) = lab_by(|bytes| match bytes.len() {
        0..5 => Verdict::Need(bytes.len() + 1),
        _ => Verdict::len(5),
    });
    for sent in 1..=5 {
        lab.input(psock, b"x");
        assert_eq!(lab.mux.psock_stats(psock).unwrap().rx_need_more_hdr, sent.min(4));
    }
}

#[test]
fn case_084__a_length_below_the_header_is_an_error_at_once() {
    for (framer, bytes) in [
        (LengthField::be(0, 2).within(2, 1000), &b"\0\x01"[..]),
        (LengthField::be(0, 2), b"\0\0"),
        (LengthField::le(2, 4).plus(6).within(10, 100), b"xx\x03\0\0\0"),
    ] {
        let (mut lab, socket, psock) = lab_with(Box::new(framer), Config::default());
        lab.input(psock, bytes);
        assert_eq!(code(&lab, psock), Some(Code::PROTO));
        assert!(lab.drain(socket).is_empty());
        assert_eq!(lab.mux.psock_stats(psock).unwrap().rx_bad_hdr_len, 1);
    }
}

#[test]
fn case_085__a_length_inside_consumed_bytes() {
    // The framer waits, and then says a length that ended before the latest bytes came.
    for total in [0u64, 1, 2, 3] {
        let (mut lab, _, psock) = lab_by(move |bytes| match bytes.len() {
            0..4 => Verdict::Need(bytes.len() + 1),
            _ => Verdict::len(total),
        });
        for _ in 0..4 {
            lab.input(psock, b"x");
        }
        assert_eq!(code(&lab, psock), Some(Code::PROTO), "{total}");
    }
    let (mut lab, _, psock) = lab_by(|_| Verdict::len(u64::MAX));
    lab.input(psock, b"x");
    assert_eq!(code(&lab, psock), Some(Code::MSGSIZE));
}

#[test]
fn case_086__the_limit_passes_and_one_more_does_not() {
    let config = Config { max_message: 1000, ..Config::default() };
    let (mut lab, socket, psock) = lab_with(frames(), config.clone());
    lab.input(psock, &msg(&[1; 998]));
    assert_eq!(lab.drain(socket).len(), 1);
    lab.input(psock, &msg(&[1; 999]));
    assert_eq!(code(&lab, psock), Some(Code::MSGSIZE));
    assert_eq!(lab.mux.psock_stats(psock).unwrap().rx_msg_too_big, 1);
    // A program that waits for ever (a wrapped length) ends at the longest header, or by the timer.
    let program = crate::common::bpf::load("thrift.v3.o");
    let framer = || Box::new(BpfFramer::new(program.clone(), Spread::Any));
    let (mut lab, _, psock) = lab_with(framer(), Config::default());
    lab.input(psock, b"\xff\xff\xff\xfc");
    (0..64).for_each(|_| lab.input(psock, &[0; 1024]));
    assert_eq!(code(&lab, psock), Some(Code::PROTO));
    let (mut lab, _, psock) = lab_with(framer(), Config::default());
    lab.input(psock, b"\xff\xff\xff\xfc");
    lab.pass_time(Duration::from_secs(30));
    assert_eq!(code(&lab, psock), Some(Code::TIMEDOUT));
}

#[test]
fn case_087__the_timer() {
    let config = Config { assembly_timeout: Some(Duration::from_millis(100)), ..Config::default() };
    let (mut lab, socket, psock) = lab_with(frames(), config.clone());
    // A byte every half timeout does not help.
    lab.input(psock, b"\0");
    lab.pass_time(Duration::from_millis(50));
    lab.input(psock, b"\x09");
    lab.pass_time(Duration::from_millis(49));
    lab.input(psock, b"x");
    assert_eq!(code(&lab, psock), None);
    lab.pass_time(Duration::from_millis(1));
    assert_eq!(lab.down(psock), Some(Cause::Timeout { have: 3 }));
    lab.pass_time(Duration::from_secs(10));
    assert_eq!(lab.mux.psock_stats(psock).unwrap().rx_msg_timeouts, 1);
    // Completion cancels it, and the next message has its own.
    let (mut lab, _, psock) = lab_with(frames(), config);
    for _ in 0..20 {
        lab.input(psock, b"\0\x01");
        lab.pass_time(Duration::from_millis(60));
        lab.input(psock, b"x");
    }
    lab.pass_time(Duration::from_secs(1));
    assert_eq!((code(&lab, psock), lab.drain(socket).len()), (None, 20));
    // None is for ever.
    let (mut lab, _, psock) = lab_with(frames(), Config { assembly_timeout: None, ..Config::default() });
    lab.input(psock, b"\0");
    lab.pass_time(Duration::from_secs(1_000_000));
    assert_eq!(code(&lab, psock), None);
}

#[test]
fn case_088__the_timer_of_what_is_unattached() {
    let (mut lab, _, psock) = lab_with(frames(), Config::default());
    lab.input(psock, b"\0");
    lab.mux.unattach(psock, lab.now).unwrap();
    let again = lab.attach();
    lab.pass_time(Duration::from_secs(60));
    assert_eq!((code(&lab, again), lab.mux.psock_stats_sum().rx_msg_timeouts), (None, 0));
}

#[test]
fn case_089__aborts_leave_no_memory() {
    let (mut lab, _) = Lab::new(Config::default());
    for _ in 0..100_000 {
        let psock = lab.mux.attach(frames(), AttachOptions::default()).unwrap();
        lab.mux.stream_bytes(psock, Bytes::from_static(b"\x01\0abc"), lab.now);
        lab.mux.stream_eof(psock, lab.now);
        while lab.mux.poll_event().is_some() {}
        lab.mux.unattach(psock, lab.now).unwrap();
        assert_eq!(lab.mux.memory_used(), 0);
    }
    assert_eq!(lab.mux.psock_stats_sum().rx_truncated, 100_000);
}

#[test]
fn case_090__errors_of_programs_keep_their_code() {
    for error in [1, 71, 74, 5] {
        let code_ = vec![
            Insn { op: 0xb4, dst: 0, src: 0, off: 0, imm: -error },
            Insn { op: 0x95, ..Insn::default() },
        ];
        let program = Program::from_insns(code_, Limits::default()).unwrap();
        let (mut lab, _, psock) = lab_with(Box::new(BpfFramer::new(program, Spread::Any)), Config::default());
        lab.input(psock, b"0123456789abcdefgh");
        let Some(Cause::Frame { error: frame, offset, first, first_len }) = lab.down(psock) else { panic!() };
        assert_eq!((frame.code, offset, &first, first_len), (Code(error), 0, b"0123456789abcdef", 16));
        assert_eq!(lab.mux.psock_stats(psock).unwrap().rx_aborts, 1);
    }
}

#[test]
fn case_091__handing_back() {
    let back = FrameError { code: Code::STRPIPE, why: "not mine" };
    let (mut lab, _, psock) = lab_by(move |bytes| match bytes[0] {
        b'm' => Verdict::len(1),
        _ => Verdict::Bad(back),
    });
    lab.input(psock, b"mmXrest");
    assert_eq!(lab.down(psock), Some(Cause::HandBack));
    assert_eq!(&lab.mux.take_buffered(psock)[..], b"Xrest");
    assert_eq!(lab.mux.psock_stats(psock).unwrap().rx_interrupted, 1);
    // In mid-message it cannot be.
    let (mut lab, _, psock) = lab_by(move |bytes| match bytes.len() {
        1 => Verdict::Need(2),
        _ => Verdict::Bad(back),
    });
    lab.input(psock, b"a");
    lab.input(psock, b"b");
    assert_eq!(code(&lab, psock), Some(Code::NODATA));
    assert_eq!(lab.mux.psock_stats(psock).unwrap().rx_unrecov_intr, 1);
}

#[test]
fn case_092__end_of_stream() {
    for is_paused in [false, true] {
        for cut in 0..5 {
            let (mut lab, socket, psock) = lab_with(frames(), Config::default());
            lab.mux.set_recv_disable(socket, is_paused).unwrap();
            let mut bytes = [msg(b"one"), msg(b"two")].concat();
            bytes.extend_from_slice(&msg(b"xyz")[..cut]);
            lab.input(psock, &bytes);
            lab.eof(psock);
            assert_eq!(lab.down(psock).is_some(), !is_paused, "said after the last message");
            lab.mux.set_recv_disable(socket, false).unwrap();
            assert_eq!(lab.drain(socket), [b"one", b"two"]);
            let expected = match cut {
                0 => Cause::Eof,
                _ => Cause::Truncated { have: cut, need: (cut >= 2).then_some(5) },
            };
            assert_eq!(lab.down(psock), Some(expected));
            assert_eq!(lab.mux.psock_stats(psock).unwrap().rx_truncated, u64::from(cut > 0));
        }
    }
}

#[test]
fn case_093__reset_with_a_parked_message() {
    let (mut lab, socket, psock) = lab_with(frames(), Config::default());
    lab.mux.set_recv_disable(socket, true).unwrap();
    lab.input(psock, &msg(b"parked"));
    lab.error(psock, Code::CONNRESET);
    assert_eq!(lab.down(psock), None);
    lab.mux.set_recv_disable(socket, false).unwrap();
    assert_eq!(lab.drain(socket), [b"parked"]);
    assert_eq!(lab.down(psock), Some(Cause::Io(Code::CONNRESET)));
}

#[test]
fn case_094__lack_of_memory_is_back_pressure() {
    let config = Config { memory: 1000, receive_buffer: 1 << 20, ..Config::default() };
    let (mut lab, sockets, psocks) = Lab::with(config, 1, 3);
    lab.input(psocks[0], &msg(&[1; 500]));
    lab.input(psocks[1], &msg(&[2; 900]));
    let (head, tail) = {
        let m = msg(&[3; 800]);
        (m.slice(..400), m.slice(400..))
    };
    lab.input(psocks[2], &head);
    assert_eq!(lab.mux.want_read(psocks[2]), WantRead::Paused);
    assert!(lab.mux.psock_stats_sum().rx_mem_fail > 0);
    assert_eq!(lab.drain(sockets[0]).len(), 2);
    assert!(lab.resumed.contains(&psocks[2]));
    lab.input(psocks[2], &tail);
    assert_eq!(lab.drain(sockets[0]), [vec![3; 800]]);
}

#[test]
fn case_095__a_message_of_256_mib() {
    const BODY: usize = (256 << 20) - 4;
    let config =
        Config { max_message: 256 << 20, memory: 1 << 30, receive_buffer: 1 << 30, ..Config::default() };
    let framer = LengthField::be(0, 4).plus(4).spread_as(Spread::Any);
    let (mut lab, socket, psock) = lab_with(Box::new(framer), config);
    lab.input(psock, &(BODY as u32).to_be_bytes());
    let window = Bytes::from(vec![0x5a; 64 * 1024]);
    let mut left = BODY;
    while left > 0 {
        let next = window.slice(..left.min(window.len()));
        left -= next.len();
        lab.mux.stream_bytes(psock, next, lab.now);
    }
    let message = lab.mux.recv_message(socket).unwrap();
    assert_eq!(message.bytes.len(), BODY + 4);
    assert!(message.bytes[4..].iter().all(|byte| *byte == 0x5a));
}

#[test]
fn case_095__read_right_into_its_place() {
    let config = Config { receive_buffer: 1 << 24, ..Config::default() };
    let framer = LengthField::be(0, 4).plus(4).spread_as(Spread::Any);
    let (mut lab, socket, psock) = lab_with(Box::new(framer), config);
    lab.input(psock, b"\0\x0f\x42\x40abc");
    let mut left = 1_000_000 - 3;
    assert!(lab.mux.lend(psock, 2_000_000).is_none());
    while left > 0 {
        let (mut memory, missing) = lab.mux.lend(psock, 1).unwrap();
        assert_eq!(missing, left);
        assert!(lab.mux.lend(psock, 1).is_none() && lab.mux.want_read(psock) == WantRead::Paused);
        let count = left.min(300_000);
        let room = memory.room(count);
        let count = room.len();
        room.fill(7);
        memory.advance(count);
        left -= count;
        lab.mux.give_back(psock, memory, count, lab.now);
    }
    lab.input(psock, b"\0\0\0\x01x");
    let message = lab.mux.recv_message(socket).unwrap();
    assert_eq!((message.bytes.len(), message.number), (1_000_004, 0));
    assert_eq!(&lab.mux.recv_message(socket).unwrap().bytes[4..], b"x");
    assert_eq!(lab.mux.memory_used(), 0);
}

#[test]
fn case_097__a_budget_excess_stops_only_that_connection() {
    let endless = vec![Insn { op: 0x05, off: -1, ..Insn::default() }];
    let program = Program::from_insns(endless, Limits::default()).unwrap();
    let (mut lab, socket, psock) =
        lab_with(Box::new(BpfFramer::new(program, Spread::Any)), Config::default());
    let other = lab.attach();
    lab.input(psock, b"x");
    assert_eq!(code(&lab, psock), Some(Code::FAULT));
    lab.input(other, &msg(b"fine"));
    assert_eq!(lab.drain(socket), [b"fine"]);
}

#[test]
fn case_105__a_framer_is_replaced_between_messages() {
    let (mut lab, socket, psock) = lab_with(frames(), Config::default());
    lab.input(psock, &msg(b"old"));
    let lines = || Box::new(peyk_kcm::framer::Delimiter::new(b'\n', 100));
    lab.input(psock, b"\0");
    assert!(lab.mux.replace_framer(psock, lines()).is_err(), "a message has begun");
    lab.input(psock, b"\x01x");
    assert!(lab.mux.replace_framer(psock, lines()).is_ok());
    lab.input(psock, b"new\n");
    assert_eq!(lab.drain(socket), [&b"old"[..], b"x", b"w\n"]);
}
