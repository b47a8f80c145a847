//! The sockbufs under the model checker: L1 to L5, L9 and L10 of the plan (publishing and releasing over
//! blocks; their hand-over; sleeping readers and writers; ready marks; the urgent mark; bytes held beyond
//! their release; the end against publishing against sleeping). Chunks are two bytes and blocks two extents.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use peyk_sockbuf::mutant::Site;
use peyk_sockbuf::ready::ReadySet;
use peyk_sockbuf::stream::{Config, End, Reader, Writer, stream};
use peyk_sockbuf::{Bytes, record};

use super::{check, join};

/// Both ends and the means to wake them: a thread that sleeps parks.
fn small(limit: usize) -> (Writer, Reader) {
    stream(Config { limit, chunk: 2 })
}

/// Appends bytes one by one, their values counting up from 1, yielding while there is no room.
fn write(writer: &mut Writer, count: u8) {
    for value in 1..=count {
        while writer.append_copy(&[value]) == 0 {
            thread::yield_now();
        }
        writer.publish();
    }
}

/// Reads so many bytes and checks them, yielding while there are none.
fn read(reader: &mut Reader, from: u8, count: u8) {
    let mut next = from;
    while next < from + count {
        let seen = reader.refresh();
        if seen.from == seen.to {
            thread::yield_now();
            continue;
        }
        for slice in reader.view(seen.from..seen.to) {
            for &byte in slice {
                assert_eq!(byte, next);
                next += 1;
            }
        }
        reader.consume(seen.to);
        reader.release();
    }
}

#[test]
fn l1_stream_publish_read_release() {
    let sites = [Site::StreamPublish, Site::StreamRelease];
    check("stream::l1_stream_publish_read_release", &sites, || {
        // One byte a chunk and at a time: the third is written to the chunk of the first.
        let (mut writer, mut reader) = stream(Config { limit: 1, chunk: 1 });
        let thread = thread::spawn(move || write(&mut writer, 3));
        read(&mut reader, 1, 3);
        join(thread);
        assert_eq!(reader.refresh().end, Some(End::Aborted));
    });
}

#[test]
fn l2_stream_blocks_are_handed_over() {
    check("stream::l2_stream_blocks_are_handed_over", &[Site::StreamPublish, Site::StreamLink], || {
        let (mut writer, mut reader) = small(100);
        let thread = thread::spawn(move || {
            for value in 1..=3u8 {
                writer.append_lend(Bytes::from(vec![value])).expect("room");
                writer.publish();
            }
        });
        read(&mut reader, 1, 3);
        join(thread);
    });
}

#[test]
fn l2_stream_is_given_up_and_begins_anew() {
    check("stream::l2_stream_is_given_up_and_begins_anew", &[Site::StreamPublish], || {
        let (mut writer, mut reader) = small(100);
        let thread = thread::spawn(move || {
            writer.append_copy(&[1]);
            writer.publish();
            writer.trim();
            writer.append_copy(&[2]);
            writer.publish();
            writer.trim();
        });
        read(&mut reader, 1, 2);
        join(thread);
    });
}

fn park(sleeps: bool) {
    if sleeps {
        thread::park();
    }
}

#[test]
fn l3_stream_reader_sleeps() {
    check("stream::l3_stream_reader_sleeps", &[Site::SleepSleeper, Site::SleepWaker], || {
        let (mut writer, mut reader) = small(8);
        let sleeper = thread::spawn(move || {
            while reader.readable() < 2 {
                park(reader.prepare_sleep(2, &|| ()));
                reader.cancel_sleep();
                reader.refresh();
            }
        });
        for value in 1..=2 {
            writer.append_copy(&[value]);
            writer.publish();
            writer.wake_reader(&|| sleeper.thread().unpark());
        }
        join(sleeper);
    });
}

#[test]
fn l4_stream_writer_sleeps() {
    check("stream::l4_stream_writer_sleeps", &[Site::SleepSleeper, Site::SleepWaker], || {
        let (mut writer, mut reader) = small(2);
        writer.append_copy(&[1, 2]);
        writer.publish();
        let sleeper = thread::spawn(move || {
            while writer.writable() < 2 {
                park(writer.prepare_sleep(2, &|| ()));
                writer.cancel_sleep();
                writer.refresh();
            }
        });
        reader.refresh();
        for to in 1..=2 {
            reader.consume(to);
            reader.wake_writer(&|| sleeper.thread().unpark());
        }
        join(sleeper);
    });
}

/// Puts one more into a queue and marks it.
fn put(ready: &ReadySet, queue: &AtomicUsize, index: usize) {
    queue.fetch_add(1, Ordering::Relaxed);
    ready.mark(index);
}

/// Takes what is marked, once round.
fn serve(ready: &ReadySet, queues: &[AtomicUsize]) -> usize {
    let mut got = 0;
    while let Some(queue) = ready.next(0) {
        got += queues[queue].swap(0, Ordering::Relaxed);
        ready.found_empty(queue, || queues[queue].load(Ordering::Relaxed) != 0);
    }
    got
}

#[test]
fn l4_ready_mark_is_not_lost() {
    check("stream::l4_ready_mark_is_not_lost", &[Site::ReadySet, Site::ReadyTake], || {
        let shared = Arc::new((ReadySet::new(1), [AtomicUsize::new(0)]));
        put(&shared.0, &shared.1[0], 0);
        let producer = {
            let shared = shared.clone();
            thread::spawn(move || put(&shared.0, &shared.1[0], 0))
        };
        let early = serve(&shared.0, &shared.1);
        join(producer);
        // Whatever came is marked or was taken: nothing is left lying unmarked.
        assert_eq!(early + serve(&shared.0, &shared.1), 2);
    });
}

#[test]
fn l4_ready_marks_with_two_producers() {
    check("stream::l4_ready_marks_with_two_producers", &[], || {
        let shared = Arc::new((ReadySet::new(2), [AtomicUsize::new(0), AtomicUsize::new(0)]));
        let producers = [0, 1].map(|queue| {
            let shared = shared.clone();
            thread::spawn(move || put(&shared.0, &shared.1[queue], queue))
        });
        let early = serve(&shared.0, &shared.1);
        producers.into_iter().for_each(join);
        assert_eq!(early + serve(&shared.0, &shared.1), 2);
    });
}

#[test]
fn l5_stream_urgent_mark_comes_before_its_byte() {
    check("stream::l5_stream_urgent_mark_comes_before_its_byte", &[Site::StreamPublish], || {
        let (mut writer, mut reader) = small(8);
        let thread = thread::spawn(move || {
            writer.append_copy(&[1, 2]);
            writer.mark_urgent();
            writer.publish();
        });
        let seen = reader.refresh();
        if seen.to > 0 {
            assert_eq!(seen.urgent, Some(2), "the byte is readable, so its mark is known");
        }
        join(thread);
    });
}

#[test]
fn l9_stream_bytes_are_held_beyond_their_release() {
    check("stream::l9_stream_bytes_are_held_beyond_their_release", &[Site::StreamHold], || {
        let (mut writer, mut reader) = small(2);
        writer.append_copy(&[1, 2]);
        writer.publish();
        let thread = thread::spawn(move || {
            for value in 3..=5 {
                while writer.append_copy(&[value]) == 0 {
                    thread::yield_now();
                }
                writer.publish();
            }
        });
        reader.refresh();
        let held = reader.hold(0..2);
        reader.consume(2);
        reader.release();
        read(&mut reader, 3, 3);
        assert_eq!(held.to_vec(), [1, 2]);
        join(thread);
    });
}

#[test]
fn l10_stream_end_against_publish_against_sleep() {
    let sites = [Site::StreamEnd, Site::StreamEndFirst, Site::SleepSleeper, Site::SleepWaker];
    check("stream::l10_stream_end_against_publish_against_sleep", &sites, || {
        let (mut writer, mut reader) = small(8);
        let sleeper = thread::spawn(move || {
            loop {
                let seen = reader.refresh();
                if let Some(end) = seen.end {
                    assert_eq!((seen.to, end), (1, End::Finished), "the end comes with the last byte");
                    return;
                }
                park(reader.prepare_sleep(2, &|| ()));
                reader.cancel_sleep();
            }
        });
        writer.append_copy(&[1]);
        writer.finish(End::Finished, &|| sleeper.thread().unpark());
        join(sleeper);
    });
}

#[test]
fn l10_record_end_against_push_against_sleep() {
    let sites = [Site::StreamEnd, Site::RecordEndFirst, Site::SleepSleeper, Site::SleepWaker];
    check("stream::l10_record_end_against_push_against_sleep", &sites, || {
        let (mut sender, mut receiver) = record::records(2, 100);
        let sleeper = thread::spawn(move || {
            let mut got = 0;
            loop {
                if receiver.pop().is_some() {
                    got += 1;
                    continue;
                }
                if let Some(end) = receiver.end() {
                    assert_eq!((got, end), (1, End::Finished), "the end comes after the last record");
                    return;
                }
                park(receiver.prepare_sleep());
                receiver.cancel_sleep();
            }
        });
        sender.push(Box::new(1), 1).expect("space");
        sender.finish(End::Finished, &|| sleeper.thread().unpark());
        join(sleeper);
    });
}

#[test]
fn l4_record_sender_sleeps() {
    check("stream::l4_record_sender_sleeps", &[Site::SleepSleeper, Site::SleepWaker], || {
        let (mut sender, mut receiver) = record::records(2, 10);
        sender.push(1, 10).expect("space");
        let sleeper = thread::spawn(move || {
            while sender.push(2, 10).is_err() {
                park(sender.prepare_sleep(10));
                sender.cancel_sleep();
            }
        });
        assert_eq!(receiver.pop(), Some(1));
        receiver.wake_sender(&|| sleeper.thread().unpark());
        join(sleeper);
    });
}
