//! Streams of bytes between two threads, beside `rtrb`'s ring, a mutex with a condition variable, and a pipe.
//! Both ends of each copy the bytes. Whoever must wait spins, except where the thing itself makes it sleep.

use std::collections::VecDeque;
use std::hint::spin_loop;
use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use peyk_sockbuf::stream::{Config, stream};

use super::Case;

/// Bytes queued at most, for all.
const LIMIT: usize = 64 << 10;

pub(super) fn cases(cases: &mut Vec<Case>) {
    cases.push(("probe: one line there and back (again)", Box::new(super::ping_pong)));
    for size in [64, 1448, 16384] {
        let named =
            |what: &str| -> &'static str { Box::leak(format!("{size:>5} B {what}").into_boxed_str()) };
        cases.push((named("stream"), Box::new(move || sockbuf(size, 1, false))));
        cases.push((
            named("stream, looking for sleepers each time"),
            Box::new(move || sockbuf(size, 1, true)),
        ));
        cases
            .push((named("stream, published by 16, and looking"), Box::new(move || sockbuf(size, 16, true))));
        cases.push((named("rtrb"), Box::new(move || rtrb(size))));
        cases.push((named("mutex and condition variable"), Box::new(move || condvar(size))));
        cases.push((named("pipe"), Box::new(move || pipe(size))));
    }
}

/// Writes that take some milliseconds.
fn count(size: usize) -> usize {
    (100_000_000 / (size + 200)).min(400_000)
}

/// Times `count` writes and the reading of all their bytes; checks the number at the head of each.
fn run(
    size: usize,
    count: usize,
    mut write: impl FnMut(&[u8]) + Send + 'static,
    mut read: impl FnMut(&mut [u8]),
) -> f64 {
    let start = Instant::now();
    let writer = thread::spawn(move || {
        let mut bytes = vec![0; size];
        for number in 0..count {
            bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
            write(&bytes);
        }
        write
    });
    let mut bytes = vec![0; size];
    for number in 0..count {
        read(&mut bytes);
        assert_eq!(bytes[..8], (number as u64).to_le_bytes());
    }
    let elapsed = start.elapsed();
    drop(writer.join().expect("writer"));
    elapsed.as_nanos() as f64 / count as f64
}

fn sockbuf(size: usize, publish_every: usize, ring: bool) -> f64 {
    let (mut writer, mut reader) = stream(Config { limit: LIMIT, ..Config::default() });
    let (mut unpublished, count) = (0, count(size) / 16 * 16);
    let write = move |mut bytes: &[u8]| {
        loop {
            let taken = writer.append_copy(bytes);
            bytes = &bytes[taken..];
            if bytes.is_empty() {
                break;
            }
            writer.publish();
            spin_loop();
        }
        unpublished += 1;
        if unpublished == publish_every {
            unpublished = 0;
            writer.publish();
            if ring {
                writer.wake_reader(&|| ());
            }
        }
    };
    let read = move |bytes: &mut [u8]| {
        let mut done = 0;
        while done < bytes.len() {
            let got = reader.read(&mut bytes[done..]);
            done += got;
            if got == 0 {
                if ring {
                    reader.wake_writer(&|| ());
                } else {
                    reader.release();
                }
                spin_loop();
            }
        }
    };
    run(size, count, write, read)
}

fn rtrb(size: usize) -> f64 {
    let (mut producer, mut consumer) = rtrb::RingBuffer::<u8>::new(LIMIT);
    let write = move |mut bytes: &[u8]| {
        while !bytes.is_empty() {
            (_, bytes) = producer.push_partial_slice(bytes);
        }
    };
    let read = move |mut bytes: &mut [u8]| {
        while !bytes.is_empty() {
            (_, bytes) = consumer.pop_partial_slice(bytes);
        }
    };
    run(size, count(size), write, read)
}

fn condvar(size: usize) -> f64 {
    let shared = Arc::new((Mutex::new(VecDeque::<u8>::with_capacity(LIMIT)), Condvar::new(), Condvar::new()));
    let writer = shared.clone();
    let write = move |mut bytes: &[u8]| {
        while !bytes.is_empty() {
            let mut queue = writer.0.lock().expect("lock");
            while queue.len() == LIMIT {
                queue = writer.2.wait(queue).expect("lock");
            }
            let room = (LIMIT - queue.len()).min(bytes.len());
            queue.extend(&bytes[..room]);
            drop(queue);
            writer.1.notify_one();
            bytes = &bytes[room..];
        }
    };
    let read = move |bytes: &mut [u8]| {
        let mut done = 0;
        while done < bytes.len() {
            let mut queue = shared.0.lock().expect("lock");
            while queue.is_empty() {
                queue = shared.1.wait(queue).expect("lock");
            }
            let got = queue.read(&mut bytes[done..]).expect("memory");
            drop(queue);
            shared.2.notify_one();
            done += got;
        }
    };
    run(size, count(size) / 4, write, read)
}

fn pipe(size: usize) -> f64 {
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
    run(
        size,
        count(size) / 4,
        move |bytes| writer.write_all(bytes).expect("the reader is there"),
        move |bytes| reader.read_exact(bytes).expect("the writer is there"),
    )
}
