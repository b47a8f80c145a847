//! The stream against a plain vector of bytes, by random programs, and what it promises to a protocol: named
//! after the rows of the requirements (S1 to S5, S28) that concern sockbufs. (Threads: `tests/stress/` and
//! `tests/loom/`.)

use core::cell::Cell;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Copy(usize),
    Lend(usize),
    Publish,
    LookWriter,
    LookReader,
    View(prop::sample::Index, prop::sample::Index),
    Hold(prop::sample::Index, prop::sample::Index),
    Consume(prop::sample::Index),
    Release,
    Limit(usize),
    Trim,
    Urgent,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => (0usize..200).prop_map(Step::Copy),
        2 => (0usize..3000).prop_map(Step::Copy),
        3 => (0usize..1500).prop_map(Step::Lend),
        6 => Just(Step::Publish),
        1 => Just(Step::LookWriter),
        6 => Just(Step::LookReader),
        4 => (index(), index()).prop_map(|(a, b)| Step::View(a, b)),
        1 => (index(), index()).prop_map(|(a, b)| Step::Hold(a, b)),
        5 => index().prop_map(Step::Consume),
        4 => Just(Step::Release),
        1 => (1usize..8000).prop_map(Step::Limit),
        1 => Just(Step::Trim),
        1 => Just(Step::Urgent),
    ]
}

fn pattern(from: u64, len: usize) -> Vec<u8> {
    (from..from + len as u64).map(|position| (position % 251) as u8).collect()
}

fn collect(reader: &Reader, from: u64, to: u64) -> Vec<u8> {
    let slices = reader.view(from..to);
    let mut bytes = Vec::new();
    for slice in slices {
        assert!(!slice.is_empty());
        bytes.extend_from_slice(slice);
    }
    bytes
}

/// What is true, as nobody at either end knows it.
#[derive(Default)]
struct Truth {
    written: u64,
    published: u64,
    consumed: u64,
    limit: u64,
    mark: u64,
    published_mark: u64,
}

struct World {
    writer: Writer,
    reader: Reader,
    truth: Truth,
    held: Vec<(u64, u64, crate::Payload)>,
}

impl World {
    fn new(limit: usize, chunk: usize) -> World {
        let (writer, reader) = stream(Config { limit, chunk });
        let truth = Truth { limit: limit as u64, ..Truth::default() };
        World { writer, reader, truth, held: Vec::new() }
    }

    fn range(&self, a: &prop::sample::Index, b: &prop::sample::Index) -> (u64, u64) {
        let (from, len) = (self.reader.position(), self.reader.readable());
        let (a, b) = (a.index(len + 1) as u64, b.index(len + 1) as u64);
        (from + a.min(b), from + a.max(b))
    }

    fn append(&mut self, len: usize, lend: bool) {
        let before = self.writer.writable();
        let bytes = pattern(self.truth.written, len);
        let taken = if lend {
            self.writer.append_lend(Bytes::from(bytes)).map_or(0, |()| len)
        } else {
            self.writer.append_copy(&bytes)
        };
        self.truth.written += taken as u64;
        assert!(taken >= before.min(len) || lend, "at least `writable` is taken");
        assert!(!lend || taken == len || len > before);
    }

    fn step(&mut self, step: &Step) {
        let Truth { written, published, consumed, .. } = self.truth;
        match step {
            Step::Copy(len) => self.append(*len, false),
            Step::Lend(len) => self.append(*len, true),
            Step::Publish => {
                self.writer.publish();
                self.truth.published = written;
                self.truth.published_mark = self.truth.mark;
            }
            Step::LookWriter => {
                self.writer.refresh();
            }
            Step::LookReader => {
                let seen = self.reader.refresh();
                assert_eq!((seen.from, seen.to), (consumed, published), "a snapshot is exact in one thread");
                let mark = self.truth.mark.max(self.truth.published_mark);
                assert!(seen.urgent.is_none_or(|urgent| urgent <= mark && urgent > consumed));
            }
            Step::View(a, b) => {
                let (from, to) = self.range(a, b);
                assert_eq!(collect(&self.reader, from, to), pattern(from, (to - from) as usize));
            }
            Step::Hold(a, b) => {
                let (from, to) = self.range(a, b);
                self.held.push((from, to, self.reader.hold(from..to)));
            }
            Step::Consume(to) => {
                let to = consumed + to.index(self.reader.readable() + 1) as u64;
                self.reader.consume(to);
                self.truth.consumed = to;
            }
            Step::Release => self.reader.release(),
            Step::Limit(limit) => {
                self.writer.set_limit(*limit);
                self.truth.limit = *limit as u64;
            }
            Step::Trim => {
                self.reader.release();
                assert_eq!(self.writer.trim(), consumed == written);
                assert!(consumed != written || self.writer.memory() == 0, "an idle stream has no memory");
            }
            Step::Urgent => {
                self.writer.mark_urgent();
                self.truth.mark = written;
            }
        }
    }

    /// The bounds hold, and nothing but the own doing lowers them.
    fn check(&self, readable: usize, writable: usize, step: &Step) {
        let truth = &self.truth;
        assert!(self.reader.readable() as u64 <= truth.published - truth.consumed);
        let free = truth.limit.saturating_sub(truth.written - truth.consumed);
        assert!(self.writer.writable() as u64 <= free);
        if !matches!(step, Step::Consume(_)) {
            assert!(self.reader.readable() >= readable, "readable shrank by {step:?}");
        }
        if !matches!(step, Step::Copy(_) | Step::Lend(_) | Step::Limit(_)) {
            assert!(self.writer.writable() >= writable, "writable shrank by {step:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// S2: bounds, and every byte at every look.
    #[test]
    fn s2_bounds_hold_and_bytes_agree_with_a_vector(
        limit in 1usize..6000,
        chunk in 1usize..3000,
        program in prop::collection::vec(step(), 0..300),
    ) {
        let mut world = World::new(limit, chunk);
        for step in &program {
            let (readable, writable) = (world.reader.readable(), world.writer.writable());
            world.step(step);
            world.check(readable, writable, step);
        }
        world.writer.finish(End::Finished, &|| ());
        let seen = world.reader.refresh();
        prop_assert_eq!(seen.end, Some(End::Finished));
        let rest = collect(&world.reader, seen.from, seen.to);
        prop_assert_eq!(rest, pattern(seen.from, (seen.to - seen.from) as usize));
        let World { writer, reader, held, .. } = world;
        if program.len() % 2 == 0 { drop(reader); drop(writer); } else { drop(writer); drop(reader); }
        for (from, to, payload) in held {
            prop_assert_eq!(payload.to_vec(), pattern(from, (to - from) as usize));
        }
    }
}

/// S3: what is written after the snapshot of a pass is not part of it, and is announced to the next: no lost
/// push, no end before its data.
#[test]
fn s3_one_snapshot_per_pass() {
    let (mut writer, mut reader) = stream(Config::default());
    let mut passes = 0;
    let mut read = 0;
    for round in 0..100u64 {
        writer.append_copy(&[1; 10]);
        writer.publish();
        let pass = reader.refresh();
        passes += 1;
        // In the middle of the pass.
        writer.append_copy(&[2; 10]);
        writer.publish();
        if round == 99 {
            writer.finish(End::Finished, &|| ());
        }
        assert_eq!(
            reader.view(pass.from..pass.to).map(<[u8]>::len).sum::<usize>() as u64,
            pass.to - pass.from
        );
        assert_eq!(pass.end, None, "the end belongs to a later pass");
        read += pass.to - pass.from;
        reader.consume(pass.to);
        reader.release();
        assert_eq!(reader.snapshots(), passes);
    }
    let last = reader.refresh();
    assert_eq!((read + last.to - last.from, last.end), (2000, Some(End::Finished)));
}

/// S3: the next pass is guaranteed by the wake-up: the reader that goes to sleep finds the bytes, or is woken.
#[test]
fn s3_bytes_after_the_snapshot_are_not_slept_through() {
    let (mut writer, mut reader) = stream(Config::default());
    reader.refresh();
    writer.append_copy(b"x");
    writer.publish();
    assert!(!writer.wake_reader(&|| panic!("awake")));
    assert!(!reader.prepare_sleep(1, &|| ()), "must not sleep");
    reader.cancel_sleep();
}

/// S4: the mark is exact, a newer one replaces it, and no read crosses it.
#[test]
fn s4_urgent_mark() {
    let (mut writer, mut reader) = stream(Config::default());
    writer.append_copy(b"abc");
    writer.mark_urgent();
    writer.append_copy(b"def");
    writer.publish();
    assert_eq!(reader.refresh().urgent, Some(3));
    let mut buf = [0; 10];
    assert!(!reader.is_at_mark());
    assert_eq!(reader.read(&mut buf), 3);
    assert!(reader.is_at_mark());
    assert_eq!((reader.read(&mut buf), &buf[..3]), (3, &b"def"[..]));
    assert!(!reader.is_at_mark());
    writer.append_copy(b"1");
    writer.mark_urgent();
    writer.append_copy(b"2");
    writer.mark_urgent();
    writer.publish();
    assert_eq!(reader.refresh().urgent, Some(8));
}

/// A protocol keeps what is not acknowledged and sends any part of it again.
#[test]
fn view_serves_retransmission() {
    let (mut writer, mut reader) = stream(Config { limit: 1 << 20, chunk: 4096 });
    let mut at = 0;
    while at < 200_000 {
        let bytes = pattern(at, 1000 + (at % 777) as usize);
        at += bytes.len() as u64;
        if at % 2 == 0 {
            writer.append_lend(Bytes::from(bytes)).expect("space");
        } else {
            writer.append_copy(&bytes);
        }
    }
    writer.publish();
    let all = reader.refresh();
    for una in [0, 1, 5_000, 99_999, 150_000] {
        reader.consume(una);
        for from in [una, una + 1, una + 10_000, all.to - 1448] {
            assert_eq!(collect(&reader, from, from + 1448), pattern(from, 1448));
        }
    }
}

#[test]
fn end_is_reported_after_the_last_byte_and_once_first() {
    let (mut writer, mut reader) = stream(Config::default());
    writer.append_copy(b"last");
    writer.finish(End::Error(104), &|| ());
    writer.finish(End::Finished, &|| ());
    drop(writer);
    assert_eq!(reader.refresh().end, Some(End::Error(104)));
    assert_eq!(reader.end(), None, "four bytes before it");
    let mut buf = [0; 4];
    assert_eq!(reader.read(&mut buf), 4);
    assert_eq!(reader.end(), Some(End::Error(104)));
}

#[test]
fn writer_gone_without_a_word_is_abort() {
    let (writer, mut reader) = stream(Config::default());
    drop(writer);
    assert_eq!(reader.refresh().end, Some(End::Aborted));
}

#[test]
fn half_close_leaves_the_other_direction() {
    let (mut there, mut there_reader) = stream(Config::default());
    let (mut back, mut back_reader) = stream(Config::default());
    there.finish(End::Finished, &|| ());
    assert_eq!(there_reader.refresh().end, Some(End::Finished));
    back.append_copy(b"still");
    back.publish();
    assert_eq!(back_reader.refresh().to, 5);
    back_reader.close(&|| ());
    assert!(back.is_abandoned() && !there.is_abandoned());
    assert!(!back.prepare_sleep(usize::MAX, &|| ()), "nobody reads: do not wait for it");
}

/// The low-water mark of the reader: little does not wake it, enough does, the end does.
#[test]
fn low_water_of_the_reader() {
    let (mut writer, mut reader) = stream(Config { limit: 1000, chunk: 100 });
    let woken = Cell::new(0);
    let wake = || woken.set(woken.get() + 1);
    assert!(reader.prepare_sleep(100, &|| ()));
    for _ in 0..9 {
        writer.append_copy(&[0; 10]);
        writer.publish();
        assert!(!writer.wake_reader(&wake));
    }
    writer.append_copy(&[0; 10]);
    writer.publish();
    assert!(writer.wake_reader(&wake));
    assert!(!writer.wake_reader(&wake));
    assert_eq!(woken.get(), 1);
    reader.cancel_sleep();
    reader.refresh();
    reader.consume(100);
    assert!(reader.prepare_sleep(100, &|| ()));
    writer.finish(End::Finished, &wake);
    assert_eq!(woken.get(), 2);
    assert!(!reader.prepare_sleep(100, &|| ()));
}

/// The high-water mark: the writer stops at the limit and is woken only when as much is free as it asked for.
#[test]
fn high_water_and_wake_of_the_writer() {
    let (mut writer, mut reader) = stream(Config { limit: 1000, chunk: 100 });
    let woken = Cell::new(0);
    let wake = || woken.set(woken.get() + 1);
    assert_eq!(writer.append_copy(&[7; 1500]), 1000);
    assert!(writer.prepare_sleep(250, &|| ()));
    reader.refresh();
    reader.consume(200);
    assert!(!reader.wake_writer(&wake));
    reader.consume(250);
    assert!(reader.wake_writer(&wake));
    writer.cancel_sleep();
    assert_eq!(writer.refresh(), 250);
    // Room by a larger limit wakes as well.
    assert_eq!(writer.append_copy(&[7; 250]), 250);
    assert!(writer.prepare_sleep(250, &|| ()));
    reader.set_limit(2000);
    assert!(reader.wake_writer(&wake));
    assert_eq!((writer.refresh(), woken.get()), (1000, 2));
}

#[test]
fn lower_limit_takes_back_nothing() {
    let (mut writer, mut reader) = stream(Config { limit: 1000, chunk: 100 });
    writer.append_copy(&pattern(0, 900));
    writer.publish();
    writer.set_limit(500);
    assert_eq!(writer.refresh(), 0);
    let to = reader_to(&mut reader);
    assert_eq!(collect(&reader, 0, to), pattern(0, 900));
    reader.consume(700);
    reader.release();
    assert_eq!(writer.refresh(), 300);
}

fn reader_to(reader: &mut Reader) -> u64 {
    reader.refresh().to
}

/// Wishes that could make both ends wait for each other are cut down.
#[test]
fn both_ends_never_wait_for_each_other() {
    let (mut writer, mut reader) = stream(Config { limit: 100, chunk: 100 });
    for queued in 0..=100 {
        assert_eq!(writer.append_copy(&vec![0; queued]), queued);
        writer.publish();
        let writer_sleeps = writer.prepare_sleep(usize::MAX, &|| ());
        let reader_sleeps = reader.prepare_sleep(usize::MAX, &|| ());
        assert!(!(writer_sleeps && reader_sleeps), "both asleep with {queued} bytes");
        writer.cancel_sleep();
        reader.cancel_sleep();
        let to = reader_to(&mut reader);
        reader.consume(to);
        reader.release();
        writer.refresh();
    }
}

/// S28: an idle stream has no memory for bytes, and little else; a busy one little more than what is queued.
#[test]
fn s28_idle_costs_little_and_growth_is_by_chunks() {
    assert!(size_of::<Shared>() <= 192, "{} bytes shared", size_of::<Shared>());
    let ends = size_of::<Writer>() + size_of::<Reader>();
    assert!(2 * (ends + size_of::<Shared>() + 16) <= 1024, "{ends} bytes for the ends");
    let (mut writer, mut reader) = stream(Config { limit: 1 << 20, chunk: 4096 });
    assert_eq!(writer.memory(), 0);
    for round in 0..10_000u64 {
        writer.append_copy(&pattern(round * 100, 100));
        writer.publish();
        let seen = reader.refresh();
        assert_eq!(collect(&reader, seen.from, seen.to), pattern(round * 100, 100));
        reader.consume(seen.to);
        reader.release();
        assert!(writer.memory() <= 4 * 4096, "{} bytes for 100 queued", writer.memory());
    }
    assert!(writer.trim());
    assert_eq!(writer.memory(), 0);
}

/// What was lent goes back as soon as it is consumed, not when the writer next looks.
#[test]
fn lent_bytes_go_home_when_consumed() {
    let (mut writer, mut reader) = stream(Config::default());
    let owner = std::sync::Arc::new(vec![5u8; 1000]);
    struct Lent(std::sync::Arc<Vec<u8>>);
    impl AsRef<[u8]> for Lent {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    writer.append_lend(Bytes::from_owner(Lent(owner.clone()))).expect("space");
    writer.publish();
    reader.refresh();
    let held = reader.hold(0..500);
    reader.consume(999);
    assert_eq!(std::sync::Arc::strong_count(&owner), 2);
    reader.consume(1000);
    assert_eq!(std::sync::Arc::strong_count(&owner), 2, "held");
    assert_eq!(held.to_vec(), [5; 500]);
    drop(held);
    assert_eq!(std::sync::Arc::strong_count(&owner), 1);
}

/// Nobody is woken, and no flag is written, while both are busy.
#[test]
fn no_wake_while_nobody_sleeps() {
    let (mut writer, mut reader) = stream(Config::default());
    for _ in 0..1000 {
        writer.append_copy(&[0; 64]);
        writer.publish();
        assert!(!writer.wake_reader(&|| panic!("nobody sleeps")));
        let to = reader_to(&mut reader);
        reader.consume(to);
        assert!(!reader.wake_writer(&|| panic!("nobody sleeps")));
    }
}
