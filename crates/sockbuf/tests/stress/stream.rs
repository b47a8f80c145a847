//! The stream and the records with real threads that sleep and wake, hold bytes, trim and change limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Thread};

use peyk_sockbuf::ready::{ReadySet, Turn};
use peyk_sockbuf::stream::{Config, End, Reader, Writer, stream};
use peyk_sockbuf::{Bytes, record, spsc};

use super::rounds;

fn byte_at(position: u64) -> u8 {
    (position.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// A few numbers that look random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn write_all(mut writer: Writer, total: u64, reader: &Thread) {
    let mut dice = Dice(1);
    let wake = || reader.unpark();
    while writer.position() < total {
        let len = (1 + dice.below(600)).min(total - writer.position());
        let bytes: Vec<u8> = (writer.position()..writer.position() + len).map(byte_at).collect();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let lend = dice.below(4) == 0 && writer.append_lend(Bytes::copy_from_slice(rest)).is_ok();
            let taken = if lend { rest.len() } else { writer.append_copy(rest) };
            rest = &rest[taken..];
            writer.publish();
            if taken > 0 && dice.below(4) > 0 {
                writer.wake_reader(&wake);
            }
            if taken == 0 {
                writer.wake_reader(&wake);
                if writer.prepare_sleep(1 + dice.below(300) as usize, &wake) {
                    thread::park();
                }
                writer.cancel_sleep();
            }
        }
        match dice.below(200) {
            0 => _ = writer.trim(),
            1 => writer.set_limit(200 + dice.below(4000) as usize),
            _ => {}
        }
    }
    writer.finish(End::Finished, &wake);
}

fn check_bytes(reader: &Reader, from: u64, to: u64) {
    let mut position = from;
    for slice in reader.view(from..to) {
        for &byte in slice {
            assert_eq!(byte, byte_at(position), "at {position}");
            position += 1;
        }
    }
    assert_eq!(position, to);
}

#[test]
fn stream_between_sleepers() {
    let total = rounds(400_000);
    let (writer, mut reader) = stream(Config { limit: 3000, chunk: 700 });
    let main = thread::current();
    let writing = thread::spawn(move || write_all(writer, total, &main));
    let wake = || writing.thread().unpark();
    let mut dice = Dice(2);
    let mut held = Vec::new();
    loop {
        let seen = reader.refresh();
        check_bytes(&reader, seen.from, seen.to);
        if seen.from < seen.to {
            // Anywhere in the middle, as a retransmission would.
            let from = seen.from + dice.below(seen.to - seen.from);
            check_bytes(&reader, from, seen.to);
            if dice.below(20) == 0 {
                held.push((from, reader.hold(from..seen.to)));
            }
            reader.consume(seen.from + 1 + dice.below(seen.to - seen.from));
        }
        if reader.end().is_some() {
            break;
        }
        if dice.below(8) > 0 {
            reader.wake_writer(&wake);
        }
        if reader.readable() == 0 {
            if reader.prepare_sleep(1 + dice.below(400) as usize, &wake) {
                thread::park();
            }
            reader.cancel_sleep();
        }
    }
    assert_eq!((reader.position(), reader.end()), (total, Some(End::Finished)));
    for (from, payload) in held {
        let bytes = payload.to_vec();
        assert!(bytes.iter().zip(from..).all(|(&byte, position)| byte == byte_at(position)), "held bytes");
    }
    writing.join().expect("writer");
}

#[test]
fn records_between_sleepers() {
    let count = rounds(50_000);
    let (mut sender, mut receiver) = record::records(16, 1000);
    let main = thread::current();
    let sending = thread::spawn(move || {
        let mut dice = Dice(3);
        for number in 0..count {
            let bytes = dice.below(200) as u32;
            let mut record = Box::new(number);
            while let Err(back) = sender.push(record, bytes) {
                record = back;
                sender.wake_receiver(&|| main.unpark());
                if sender.prepare_sleep(bytes) {
                    thread::park();
                }
                sender.cancel_sleep();
            }
            if dice.below(4) == 0 {
                sender.wake_receiver(&|| main.unpark());
            }
        }
        sender.finish(End::Finished, &|| main.unpark());
    });
    let mut next = 0;
    loop {
        while let Some(number) = receiver.pop() {
            assert_eq!(*number, next);
            next += 1;
        }
        receiver.wake_sender(&|| sending.thread().unpark());
        if let Some(end) = receiver.end() {
            assert_eq!((next, end), (count, End::Finished));
            break;
        }
        if receiver.prepare_sleep() {
            thread::park();
        }
        receiver.cancel_sleep();
    }
    sending.join().expect("sender");
}

/// S15: a queue per shard and marks: everything arrives, in order within each queue.
#[test]
fn ready_queues_of_three_shards() {
    let each = rounds(20_000);
    let ready = Arc::new(ReadySet::new(3));
    let done = Arc::new(AtomicU64::new(0));
    let (mut queues, mut shards) = (Vec::new(), Vec::new());
    for shard in 0..3 {
        let (mut producer, consumer) = spsc::ring(16);
        queues.push(consumer);
        let (ready, done) = (ready.clone(), done.clone());
        shards.push(thread::spawn(move || {
            for value in 0..each {
                let mut value = Box::new(value);
                while let Err(back) = producer.push(value) {
                    value = back;
                    thread::yield_now();
                }
                ready.mark(shard);
            }
            done.fetch_add(1, Ordering::Release);
        }));
    }
    let mut next = [0; 3];
    let mut turn = Turn::new(32);
    while next.iter().sum::<u64>() < 3 * each {
        let all_done = done.load(Ordering::Acquire) == 3;
        let Some(shard) = turn.next(&ready) else {
            assert!(!all_done, "something is left lying unmarked");
            thread::yield_now();
            continue;
        };
        match queues[shard].pop() {
            Some(value) => {
                assert_eq!(*value, next[shard]);
                next[shard] += 1;
                turn.took();
            }
            None => _ = ready.found_empty(shard, || !queues[shard].is_empty()),
        }
    }
    shards.into_iter().for_each(|shard| shard.join().expect("shard"));
}
