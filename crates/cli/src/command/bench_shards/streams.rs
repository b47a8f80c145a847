//! Bytes from one thread to another: the sockbuf for byte streams beside `rtrb`'s ring and a mutex with
//! condition variables. Both ends of each copy the bytes; whoever must wait spins, except where the thing
//! itself makes it sleep. (`cargo bench -p peyk-sockbuf` has more sizes and contestants.)

use std::{
    collections::VecDeque,
    hint::spin_loop,
    io::Read as _,
    sync::{Condvar, Mutex},
    thread,
    time::Instant,
};

use peyk::stream::{Config, stream};

/// Length of a write in bytes.
pub const WRITE: usize = 64;
/// Bytes queued at most, for all.
const LIMIT: usize = 64 << 10;
/// Writes that take some tens of milliseconds.
const WRITES: usize = 400_000;

/// A contestant: nanoseconds a write, from the second CPU to the first.
type Contestant = fn(&[usize]) -> f64;

/// All contestants; the first is what the others are compared with.
pub const CONTESTANTS: [(&str, Contestant); 4] = [
    ("stream, each write published", |cpus| sockbuf(cpus, 1)),
    ("stream, published by 16 as in a turn", |cpus| sockbuf(cpus, 16)),
    ("rtrb", rtrb),
    ("mutex and condition variables", condvar),
];

/// Times so many writes and the reading of all their bytes; checks the number at the head of each. Each end is
/// moved to its thread: side by side on one stack they would share a cache line that both write.
fn run(
    cpus: &[usize],
    count: usize,
    mut write: impl FnMut(&[u8]) + Send,
    mut read: impl FnMut(&mut [u8]) + Send,
) -> f64 {
    thread::scope(|scope| {
        scope.spawn(move || {
            let _ = peyk::pin_to_cpu(cpus[1]);
            let mut bytes = [0; WRITE];
            for number in 0..count as u64 {
                bytes[..8].copy_from_slice(&number.to_le_bytes());
                write(&bytes);
            }
        });
        let reading = scope.spawn(move || {
            let _ = peyk::pin_to_cpu(cpus[0]);
            let mut bytes = [0; WRITE];
            let start = Instant::now();
            for number in 0..count as u64 {
                read(&mut bytes);
                assert_eq!(bytes[..8], number.to_le_bytes(), "bytes came in another order");
            }
            start.elapsed().as_nanos() as f64 / count as f64
        });
        reading.join().unwrap_or(f64::NAN)
    })
}

fn sockbuf(cpus: &[usize], publish_every: usize) -> f64 {
    let (mut writer, mut reader) = stream(Config { limit: LIMIT, ..Config::default() });
    let mut unpublished = 0;
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
            writer.wake_reader(&|| ());
        }
    };
    let read = move |bytes: &mut [u8]| {
        let mut done = 0;
        while done < bytes.len() {
            let got = reader.read(&mut bytes[done..]);
            done += got;
            if got == 0 {
                reader.wake_writer(&|| ());
                spin_loop();
            }
        }
    };
    run(cpus, WRITES / publish_every * publish_every, write, read)
}

fn rtrb(cpus: &[usize]) -> f64 {
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
    run(cpus, WRITES, write, read)
}

fn condvar(cpus: &[usize]) -> f64 {
    let (queue, filled, emptied) =
        (Mutex::new(VecDeque::<u8>::with_capacity(LIMIT)), Condvar::new(), Condvar::new());
    let lock = || queue.lock().unwrap_or_else(|e| e.into_inner());
    let write = |mut bytes: &[u8]| {
        while !bytes.is_empty() {
            let mut held = lock();
            while held.len() == LIMIT {
                held = emptied.wait(held).unwrap_or_else(|e| e.into_inner());
            }
            let room = (LIMIT - held.len()).min(bytes.len());
            held.extend(&bytes[..room]);
            drop(held);
            filled.notify_one();
            bytes = &bytes[room..];
        }
    };
    let read = |bytes: &mut [u8]| {
        let mut done = 0;
        while done < bytes.len() {
            let mut held = lock();
            while held.is_empty() {
                held = filled.wait(held).unwrap_or_else(|e| e.into_inner());
            }
            // Of memory: it cannot fail.
            done += held.read(&mut bytes[done..]).unwrap_or(0);
            drop(held);
            emptied.notify_one();
        }
    };
    run(cpus, WRITES / 4, write, read)
}
