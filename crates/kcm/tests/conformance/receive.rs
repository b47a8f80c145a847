//! Receive: cases 61 to 82.

use crate::common::sim::*;
use peyk_kcm::error::{RecvError, SendError};
use peyk_kcm::framer::{LengthField, Spread};
use peyk_kcm::*;
use peyk_sansio::Prng;

fn bodies(count: u8, length: usize) -> Vec<Vec<u8>> {
    (0..count).map(|i| vec![i; length]).collect()
}

fn stream(bodies: &[Vec<u8>]) -> Vec<u8> {
    bodies.iter().flat_map(|body| msg(body)).collect()
}

#[test]
fn case_061__one_message_one_socket() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 3, 1);
    lab.input(psocks[0], &msg(b"x"));
    assert_eq!(sockets.iter().map(|s| lab.drain(*s).len()).sum::<usize>(), 1);
}

#[test]
fn case_062__many_messages_in_one_segment() {
    for count in 1..50 {
        for length in [0, 1, 2, 13, 100, 1000] {
            let (mut lab, sockets, psocks) = Lab::with(Config::default(), 1, 1);
            let sent: Vec<Vec<u8>> = (0..count).map(|i| vec![i; length + usize::from(i)]).collect();
            lab.input(psocks[0], &stream(&sent));
            assert_eq!(lab.drain(sockets[0]), sent);
        }
    }
}

#[test]
fn case_063__every_split_in_two_and_three() {
    let sent = vec![b"a".to_vec(), vec![], vec![9; 20]];
    let whole = stream(&sent);
    for first in 0..=whole.len() {
        for second in first..=whole.len() {
            let (mut lab, sockets, psocks) = Lab::with(Config::default(), 1, 1);
            for piece in [&whole[..first], &whole[first..second], &whole[second..]] {
                lab.input(psocks[0], piece);
            }
            assert_eq!(lab.drain(sockets[0]), sent, "{first} {second}");
        }
    }
}

#[test]
fn case_064__one_byte_at_a_time() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 1, 1);
    let sent = bodies(5, 30);
    let mut received = Vec::new();
    for byte in stream(&sent) {
        lab.input(psocks[0], &[byte]);
        received.extend(lab.drain(sockets[0]));
    }
    assert_eq!(received, sent);
    let wakes = lab.events.iter().filter(|e| matches!(e, Event::Readable(_))).count();
    assert_eq!(wakes, 5, "one wake for each message");
    // A header of two bytes is looked at once: the framer said how many it needs.
    assert!(lab.mux.psock_stats(psocks[0]).unwrap().rx_need_more_hdr <= 5);
    lab.input(psocks[0], &[0, 100]);
    assert_eq!(lab.mux.want_read(psocks[0]), WantRead::Min(100));
}

#[test]
fn case_065__a_short_read_of_a_datagram_truncates() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 1, 1);
    lab.input(psocks[0], &[msg(b"0123456789"), msg(b"next")].concat());
    let got = lab.mux.recv(sockets[0], 5, false).unwrap();
    assert_eq!((&got.bytes[..], got.is_end, got.is_truncated), (&b"\0\x0a012"[..], true, true));
    assert_eq!(lab.drain(sockets[0]), [b"next"]);
    let stats = lab.mux.socket_stats(sockets[0]).unwrap();
    assert_eq!((stats.rx_msgs, stats.rx_bytes), (2, 5 + 6));
    assert_eq!(lab.mux.memory_used(), 0);
}

#[test]
fn case_066__a_sequenced_packet_loses_no_byte() {
    let config = Config { kind: Kind::SeqPacket, ..Config::default() };
    for piece in 1..14 {
        let (mut lab, sockets, psocks) = Lab::with(config.clone(), 1, 1);
        lab.input(psocks[0], &[msg(b"0123456789"), msg(b"next")].concat());
        for whole in [msg(b"0123456789"), msg(b"next")] {
            let mut got = Vec::new();
            loop {
                let part = lab.mux.recv(sockets[0], piece, false).unwrap();
                assert!(!part.is_truncated);
                got.extend_from_slice(&part.bytes);
                if part.is_end {
                    break;
                }
            }
            assert_eq!(got, whole);
        }
    }
}

#[test]
fn case_067__peek_takes_nothing() {
    let config = Config { kind: Kind::SeqPacket, ..Config::default() };
    let (mut lab, sockets, psocks) = Lab::with(config, 1, 1);
    lab.input(psocks[0], &msg(b"abcd"));
    for (max, end) in [(3, false), (6, true), (100, true)] {
        let got = lab.mux.recv(sockets[0], max, true).unwrap();
        assert_eq!((got.bytes.len(), got.is_end), (max.min(6), end));
    }
    assert_eq!(lab.mux.socket_stats(sockets[0]).unwrap(), Default::default());
    assert_eq!(&lab.mux.recv(sockets[0], 3, false).unwrap().bytes[..], b"\0\x04a");
    assert_eq!(&lab.mux.recv(sockets[0], 2, true).unwrap().bytes[..], b"bc");
    assert_eq!(&lab.mux.recv(sockets[0], 9, false).unwrap().bytes[..], b"bcd");
}

#[test]
fn case_069__a_pass_goes_to_one_socket_the_next_to_the_next() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 3, 2);
    for round in 0..3u8 {
        lab.input(psocks[usize::from(round) % 2], &stream(&[vec![round], vec![round], vec![round]]));
    }
    for (i, socket) in sockets.iter().enumerate() {
        assert_eq!(lab.drain(*socket), vec![vec![i as u8]; 3]);
    }
}

#[test]
fn case_070__a_full_socket_is_skipped_until_it_drains() {
    for (reenter, after) in [(Reenter::Half, 3), (Reenter::Empty, 5)] {
        let config = Config { receive_buffer: 50, reenter, ..Config::default() };
        let (mut lab, sockets, psocks) = Lab::with(config, 2, 1);
        lab.input(psocks[0], &stream(&bodies(5, 8))); // 50 bytes: the first is full
        lab.input(psocks[0], &stream(&bodies(1, 0)));
        lab.input(psocks[0], &stream(&bodies(1, 0)));
        assert_eq!(lab.mux.snapshot().sockets[0].rx_queue.0, 5);
        assert_eq!(lab.mux.snapshot().sockets[1].rx_queue.0, 2);
        for taken in 1..=5 {
            lab.mux.recv_message(sockets[0]).unwrap();
            let takes_part = lab.mux.snapshot().sockets[0].words.contains(&"RxWait".to_owned());
            assert_eq!(takes_part, taken >= after, "{reenter:?} after {taken}");
        }
    }
}

#[test]
fn case_071__all_full_parks_one_message_and_stops_reading() {
    let config = Config { receive_buffer: 20, ..Config::default() };
    let (mut lab, sockets, psocks) = Lab::with(config, 1, 3);
    let sent = bodies(10, 10);
    for psock in &psocks {
        lab.input(*psock, &stream(&sent));
        assert_eq!(lab.mux.want_read(*psock), WantRead::Paused);
    }
    let words =
        |lab: &Lab| lab.mux.snapshot().psocks.iter().filter(|p| p.words.contains(&"RdyRx".into())).count();
    assert_eq!(words(&lab), 3);
    let mut received = Vec::new();
    loop {
        let more = lab.drain(sockets[0]);
        if more.is_empty() {
            break;
        }
        received.extend(more);
    }
    assert_eq!(received.len(), 30);
    for i in 0..10u8 {
        assert_eq!(received.iter().filter(|body| body[0] == i).count(), 3);
    }
    assert!(psocks.iter().all(|psock| matches!(lab.mux.want_read(*psock), WantRead::Min(_))));
    assert!(psocks.iter().all(|psock| lab.resumed.contains(psock)));
}

#[test]
fn case_072__hold_queue_before_parked_in_shares() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 1, 2);
    lab.input(psocks[0], &stream(&bodies(4, 1)));
    lab.mux.set_recv_disable(sockets[0], true).unwrap();
    lab.input(psocks[1], &msg(b"parked"));
    assert_eq!(lab.mux.waiting_messages(), 4);
    lab.mux.set_recv_disable(sockets[0], false).unwrap();
    assert_eq!(lab.drain(sockets[0]), [vec![0], vec![1], vec![2], vec![3], b"parked".to_vec()]);
}

#[test]
fn case_073__disable_moves_what_is_queued() {
    let config = Config { kind: Kind::SeqPacket, ..Config::default() };
    let (mut lab, sockets, psocks) = Lab::with(config, 2, 1);
    lab.input(psocks[0], &stream(&[b"reading".to_vec(), b"a".to_vec(), b"b".to_vec()]));
    lab.mux.recv(sockets[0], 3, false).unwrap();
    lab.mux.set_recv_disable(sockets[0], true).unwrap();
    lab.run();
    assert_eq!(lab.drain(sockets[1]), [b"a", b"b"]);
    let rest = lab.mux.recv(sockets[0], 100, false).unwrap();
    assert_eq!((&rest.bytes[..], rest.is_end), (&b"eading"[..], true));
    assert_eq!(lab.mux.recv(sockets[0], 100, false), Err(RecvError::WouldBlock));
    lab.send(sockets[0], b"still sends");
    assert_eq!(lab.got(psocks[0]).len(), 1);
}

#[test]
fn case_074__disable_between_two_chunks_of_a_pass() {
    for at in 0..30 {
        let (mut lab, sockets, psocks) = Lab::with(Config::default(), 2, 1);
        let sent = bodies(5, 4);
        let whole = stream(&sent);
        lab.input(psocks[0], &whole[..at]);
        let first = lab.events.iter().find_map(|e| if let Event::Readable(s) = e { Some(*s) } else { None });
        let disabled = first.unwrap_or(sockets[0]);
        lab.mux.set_recv_disable(disabled, true).unwrap();
        lab.input(psocks[0], &whole[at..]);
        let other = if disabled == sockets[0] { sockets[1] } else { sockets[0] };
        assert_eq!(lab.drain(disabled).len(), 0);
        assert_eq!(lab.drain(other), sent, "cut at {at}");
    }
}

#[test]
fn case_075__the_last_enabled_socket_is_disabled() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 2, 1);
    lab.mux.set_recv_disable(sockets[0], true).unwrap();
    lab.input(psocks[0], &stream(&bodies(3, 5)));
    lab.mux.set_recv_disable(sockets[1], true).unwrap();
    assert_eq!((lab.mux.waiting_messages(), lab.mux.memory_used()), (3, 21));
    lab.mux.set_recv_disable(sockets[0], false).unwrap();
    let mut got = lab.drain(sockets[0]);
    got.extend(lab.drain(sockets[1]));
    assert_eq!(got, bodies(3, 5));
}

#[test]
fn case_076__close_hands_on_what_is_queued() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 3, 1);
    lab.input(psocks[0], &stream(&bodies(20, 3)));
    lab.mux.close_socket(sockets[0], lab.now);
    lab.run();
    let mut got: Vec<Vec<u8>> = [sockets[1], sockets[2]].iter().flat_map(|s| lab.drain(*s)).collect();
    got.sort();
    assert_eq!(got, bodies(20, 3));
}

#[test]
fn case_077__close_of_the_socket_of_a_pass() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 2, 1);
    let whole = stream(&bodies(10, 3));
    lab.input(psocks[0], &whole[..23]);
    lab.mux.close_socket(sockets[0], lab.now);
    lab.input(psocks[0], &whole[23..]);
    assert_eq!(lab.drain(sockets[1]).len(), 10);
    assert_eq!(lab.mux.memory_used(), 0);
}

#[test]
fn case_079__connection_order() {
    let config = Config { order: Order::Connection, ..Config::default() };
    let mut prng = Prng::new(79);
    for _ in 0..200 {
        let (mut lab, mut sockets, psocks) = Lab::with(config.clone(), 4, 3);
        let mut sent = vec![0u32; 3];
        let mut seen = vec![0u32; 3];
        // Who handles the latest message of a connection.
        let mut owner: Vec<Option<SocketId>> = vec![None; 3];
        let mut step = |lab: &mut Lab, socket: SocketId, owner: &mut Vec<Option<SocketId>>| {
            for slot in owner.iter_mut().filter(|slot| **slot == Some(socket)) {
                *slot = None;
            }
            if let Ok(message) = lab.mux.recv_message(socket) {
                let psock = message.from.index();
                let number = u32::from_be_bytes(message.bytes[2..6].try_into().unwrap());
                assert_eq!(number, seen[psock], "in order");
                assert_eq!(owner[psock], None, "one at a time");
                seen[psock] += 1;
                owner[psock] = Some(socket);
            }
        };
        for _ in 0..300 {
            let socket = *prng.pick(&sockets).unwrap();
            match prng.below(20) {
                0..=7 => {
                    let psock = prng.below(3) as usize;
                    for _ in 0..prng.between(1, 4) {
                        lab.input(psocks[psock], &msg(&sent[psock].to_be_bytes()));
                        sent[psock] += 1;
                    }
                }
                8..=16 => step(&mut lab, socket, &mut owner),
                17 => lab.mux.set_recv_disable(socket, prng.chance(0.5)).unwrap(),
                18 if sockets.len() > 1 && !owner.contains(&Some(socket)) => {
                    lab.mux.close_socket(socket, lab.now);
                    sockets.retain(|other| *other != socket);
                }
                _ => sockets.push(lab.mux.clone_socket(socket).unwrap()),
            }
        }
        for _ in 0..20_000 {
            let socket = *prng.pick(&sockets).unwrap();
            lab.mux.set_recv_disable(socket, false).unwrap();
            step(&mut lab, socket, &mut owner);
        }
        assert_eq!(seen, sent);
    }
}

#[test]
fn case_080__equal_keys_go_to_the_same_socket() {
    let (mut lab, first) = Lab::new(Config { receive_buffer: 1 << 20, ..Config::default() });
    let sockets: Vec<SocketId> =
        std::iter::once(first).chain((0..3).map(|_| lab.mux.clone_socket(first).unwrap())).collect();
    let keyed = LengthField::be(0, 2).plus(2).key(2, 1, 0xff);
    let psocks: Vec<PsockId> =
        (0..2).map(|_| lab.mux.attach(Box::new(keyed.clone()), AttachOptions::default()).unwrap()).collect();
    for round in 0..200u8 {
        lab.input(psocks[usize::from(round % 2)], &msg(&[round % 20, round]));
    }
    let mut homes = vec![None; 20];
    let mut used = 0;
    for socket in &sockets {
        let got = lab.drain(*socket);
        used += usize::from(!got.is_empty());
        for body in got {
            let home = homes[usize::from(body[0])].get_or_insert(*socket);
            assert_eq!(home, socket, "key {}", body[0]);
        }
    }
    assert_eq!(used, 4, "keys spread");
    // While load allows: a full socket does not stop its keys.
    let (mut lab, sockets, _) = Lab::with(Config { receive_buffer: 8, ..Config::default() }, 2, 0);
    let psock = lab.mux.attach(Box::new(keyed), AttachOptions::default()).unwrap();
    for _ in 0..4 {
        lab.input(psock, &msg(&[1, 1]));
    }
    assert_eq!(sockets.iter().map(|s| lab.drain(*s).len()).collect::<Vec<_>>().iter().sum::<usize>(), 4);
}

#[test]
fn case_080__the_hash_of_a_program_chooses_the_socket() {
    use peyk_kcm::bpf::BpfFramer;
    // It puts the opaque field of a header of memcached into the first word of its context.
    let program = crate::common::bpf::load("memcached.v3.o");
    let config = Config { order: Order::Key, receive_buffer: 1 << 20, ..Config::default() };
    let (mut lab, sockets, _) = Lab::with(config, 4, 0);
    let framer = Box::new(BpfFramer::new(program, Spread::Any));
    let psock = lab.mux.attach(framer, AttachOptions::default()).unwrap();
    for i in 0..200u32 {
        let mut get = [0u8; 24];
        get[0] = 0x80;
        get[12..16].copy_from_slice(&(1 + i % 20).to_be_bytes());
        lab.input(psock, &get);
    }
    let mut homes = std::collections::BTreeMap::new();
    for socket in &sockets {
        while let Ok(message) = lab.mux.recv_message(*socket) {
            let key = message.meta.key.expect("the program said one");
            assert_eq!(u32::from_be_bytes(message.bytes[12..16].try_into().unwrap()), key);
            assert_eq!(homes.entry(key).or_insert(*socket), socket);
        }
    }
    let used: std::collections::BTreeSet<usize> = homes.values().map(|socket| socket.index()).collect();
    assert_eq!((homes.len(), used.len()), (20, 4));
}

#[test]
fn case_081__a_token_answers_on_its_connection() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 2, 10);
    for psock in &psocks {
        lab.input(*psock, &msg(&[psock.index() as u8]));
    }
    for socket in &sockets {
        while let Ok(message) = lab.mux.recv_message(*socket) {
            lab.mux.send(*socket, message.bytes, to(Target::Psock(message.from)), lab.now).unwrap();
        }
    }
    lab.run();
    for psock in &psocks {
        assert_eq!(lab.got(*psock), [[psock.index() as u8]]);
    }
    // The connection is gone: the sender hears of it, at once or later.
    lab.mux.unattach(psocks[0], lab.now).unwrap();
    let sent = lab.mux.send(sockets[0], msg(b"x"), to(Target::Psock(psocks[0])), lab.now);
    assert_eq!(sent, Err(SendError::Gone));
    lab.peers.get_mut(&psocks[1]).unwrap().is_full = true;
    lab.mux.send(sockets[0], msg(b"x"), to(Target::Psock(psocks[1])), lab.now).unwrap();
    lab.run();
    lab.error(psocks[1], peyk_kcm::error::Code::CONNRESET);
    assert!(lab.has(&Event::Undelivered { socket: sockets[0], psock: psocks[1] }));
}

#[test]
fn case_082__a_flood_does_not_starve_the_others() {
    let config = Config { receive_buffer: 200, ..Config::default() };
    let (mut lab, sockets, psocks) = Lab::with(config, 2, 8);
    let mut received = [0usize; 8];
    for _ in 0..400 {
        for (i, psock) in psocks.iter().enumerate() {
            // The first offers ten times as much as the others, all offer more than is taken.
            let count = if i == 0 { 200 } else { 20 };
            if lab.mux.want_read(*psock) != WantRead::Paused {
                lab.input(*psock, &stream(&vec![vec![i as u8; 6]; count]));
            }
        }
        for socket in &sockets {
            for _ in 0..8 {
                if let Ok(message) = lab.mux.recv_message(*socket) {
                    received[message.from.index()] += 1;
                }
            }
        }
        lab.run();
    }
    let sum: f64 = received.iter().map(|n| *n as f64).sum();
    let squares: f64 = received.iter().map(|n| (*n as f64).powi(2)).sum();
    let jain = sum * sum / (8.0 * squares);
    assert!(jain >= 0.95, "{jain}: {received:?}");
}

#[test]
fn replies__come_back_in_the_order_of_the_requests() {
    let config = Config { order: Order::Replies, reply_window: 8, ..Config::default() };
    let mut prng = Prng::new(81);
    for _ in 0..300 {
        let (mut lab, sockets, psocks) = Lab::with(config.clone(), 3, 2);
        for psock in &psocks {
            lab.input(*psock, &stream(&bodies(30, 2)));
        }
        let mut open: Vec<(SocketId, Message)> = Vec::new();
        for _ in 0..2000 {
            let socket = *prng.pick(&sockets).unwrap();
            if prng.chance(0.5) {
                open.extend(lab.mux.recv_message(socket).map(|message| (socket, message)));
            } else if !open.is_empty() {
                let (socket, message) = open.swap_remove(prng.below(open.len() as u64) as usize);
                if message.bytes[2] == 13 {
                    lab.mux.skip_reply(message.from, message.number); // one has no reply
                } else {
                    let target = Target::Reply(message.from, message.number);
                    lab.mux.send(socket, message.bytes, to(target), lab.now).unwrap();
                }
            }
            assert!(open.len() <= 16, "the window bounds what is open");
            lab.run();
        }
        let expected: Vec<Vec<u8>> = bodies(30, 2).into_iter().filter(|body| body[0] != 13).collect();
        assert!(psocks.iter().all(|psock| lab.got(*psock) == expected));
    }
}

#[test]
fn pull__whoever_comes_gets_the_next() {
    let config = Config { steer: Steer::Pull, ..Config::default() };
    let (mut lab, sockets, psocks) = Lab::with(config, 3, 1);
    lab.input(psocks[0], &stream(&bodies(6, 1)));
    assert_eq!(lab.mux.waiting_messages(), 6);
    let order: Vec<u8> = (0..6).map(|i| lab.mux.recv_message(sockets[i % 3]).unwrap().bytes[2]).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 5]);
    assert_eq!(lab.mux.memory_used(), 0);
    let unspread = LengthField::be(0, 2).spread_as(Spread::Connection);
    assert!(lab.mux.attach(Box::new(unspread), AttachOptions::default()).is_err());
}

#[test]
fn runs__workers_take_messages_in_one_piece() {
    for order in [Order::Any, Order::Replies] {
        let config = Config { steer: Steer::Pull, order, reply_window: 8, ..Config::default() };
        let (mut lab, sockets, psocks) = Lab::with(config, 2, 2);
        lab.input(psocks[0], &msg(b"early"));
        lab.mux.set_served(false);
        let sent = bodies(6, 3);
        let whole = stream(&sent);
        let mut got: Vec<Vec<u8>> = Vec::new();
        let mut numbers = Vec::new();
        // Whatever the pieces, and however few are taken at once.
        for (piece, most) in [(1, 1), (2, 3), (7, 2), (30, 4), (1000, 5)] {
            for chunk in whole.chunks(piece) {
                lab.input(psocks[1], chunk);
                let mut runs = Vec::new();
                lab.mux.take_waiting(sockets[0], most, &mut runs);
                assert!(runs.iter().map(|run| run.lengths.len()).sum::<usize>() <= most);
                for run in &runs {
                    for (number, bytes) in run.iter() {
                        if run.from == psocks[1] {
                            got.push(bytes[2..].to_vec());
                            numbers.push(number);
                        }
                        lab.mux.skip_reply(run.from, number);
                    }
                }
            }
        }
        // The workers go: what is left is for whoever receives.
        lab.mux.end_served();
        got.extend(lab.drain(sockets[1]).into_iter().filter(|body| body != b"early"));
        assert_eq!(got, [&sent[..], &sent, &sent, &sent, &sent].concat(), "{order:?}");
        assert!(numbers.iter().copied().eq(0..numbers.len() as u64));
        assert_eq!((lab.mux.memory_used(), lab.mux.stats().rx_msgs), (0, 31));
    }
}

#[test]
fn claims__replies_past_the_queues_keep_messages_whole() {
    let config = Config { steer: Steer::Pull, order: Order::Any, ..Config::default() };
    let reply = [msg(b"one"), msg(b"two")].concat();
    for taken in 0..=reply.len() {
        let (mut lab, sockets, psocks) = Lab::with(config.clone(), 2, 1);
        lab.mux.set_served(false);
        let request = stream(&bodies(2, 3));
        let mut lengths = Vec::new();
        let framed = lab.mux.frame_in_place(psocks[0], &request, &mut lengths);
        assert_eq!((framed, &lengths[..]), (Some((10, 0)), &[5, 5][..]));
        lab.mux.count_taken(sockets[0], 2, 10);
        assert!(lab.mux.claim_tx(psocks[0]) && !lab.mux.claim_tx(psocks[0]));
        // Another sends to the same connection meanwhile: behind.
        lab.mux.send(sockets[1], msg(b"third"), to(Target::Psock(psocks[0])), lab.now).unwrap();
        lab.run();
        assert!(lab.peers[&psocks[0]].got.is_empty() && lab.mux.is_writing(psocks[0]));
        lab.peers.get_mut(&psocks[0]).unwrap().got.extend_from_slice(&reply[..taken]);
        lab.mux.end_claim(psocks[0], sockets[0], &reply, 2, taken);
        lab.mux.stream_writable(psocks[0]);
        lab.run();
        assert_eq!(lab.got(psocks[0]), [&b"one"[..], b"two", b"third"], "{taken}");
        let sent = lab.mux.psock_stats(psocks[0]).unwrap();
        assert_eq!((sent.tx_msgs, sent.tx_bytes), (3, reply.len() as u64 + 7));
        let socket = lab.mux.socket_stats(sockets[0]).unwrap();
        assert_eq!((socket.rx_msgs, socket.tx_msgs, socket.tx_bytes), (2, 2, reply.len() as u64));
        assert!(lab.mux.is_drained(psocks[0]) && lab.mux.claim_tx(psocks[0]));
        // It breaks while claimed: that is said once the claim has ended.
        lab.error(psocks[0], peyk_kcm::error::Code::CONNRESET);
        lab.mux.end_claim(psocks[0], sockets[0], &reply, 2, 0);
        lab.run();
        assert!(
            !lab.mux.claim_tx(psocks[0])
                && lab.has(&Event::Undelivered { socket: sockets[0], psock: psocks[0] })
        );
    }
}
