//! Files, and files to sockets.

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use peyk_kevent::{
    Backend, Config, Data, Fsync, IoBuf, Kind, OpenAt, OpenOptions, Operands, ReadAt, Refusal, SendFile,
    Source, Token, What, WriteAt,
};

use crate::common::{Bench, PATIENCE, Scratch, in_child, on_both, pattern, times};
use crate::device::{GOOD, LEN, Mounted, SLOWNESS};
use crate::shared::Timing;

fn read(bench: &mut Bench, source: &Source, offset: u64, len: usize) -> Vec<u8> {
    let id = bench.submit(1, ReadAt { source: source.clone(), buf: vec![0; len].into(), offset });
    match bench.next_of(id) {
        What::Read { bytes, buf } => buf[..bytes].to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn t51__reads_at_offsets_ends_and_holes() {
    on_both(|backend| {
        let scratch = Scratch::new(&format!("t51-{backend:?}"));
        let path = scratch.file("data", &pattern(10_000, 1));
        let far = 5u64 << 30;
        std::fs::File::options().write(true).open(&path).unwrap().write_all_at(b"far", far).unwrap();
        let mut bench = Bench::new(backend);
        let file = bench.file(&path);
        assert_eq!((file.kind(), file.file_len().unwrap()), (Kind::File { align: 0 }, far + 3));
        let all = pattern(10_000, 1);
        assert_eq!(read(&mut bench, &file, 0, 100), all[..100]);
        assert_eq!(read(&mut bench, &file, 9_990, 10), all[9_990..]);
        assert_eq!(read(&mut bench, &file, far, 100), b"far");
        assert_eq!(read(&mut bench, &file, far + 3, 100), b"");
        assert_eq!(read(&mut bench, &file, far << 4, 100), b"");
        assert_eq!(read(&mut bench, &file, 1 << 30, 1000), [0; 1000]);
        assert!(read(&mut bench, &file, 0, 1 << 20)[..10_000] == all);
        let beyond = ReadAt { source: file, buf: vec![0; 8].into(), offset: u64::MAX - 4 };
        assert_eq!(bench.q.submit(Token(0), beyond).unwrap_err().why, Refusal::Invalid);
    });
}

#[test]
fn t52__short_read_is_the_end_and_an_error_is_an_error() {
    on_both(|backend| {
        let scratch = Scratch::new(&format!("t52-{backend:?}"));
        let mut bench = Bench::new(backend);
        let file = bench.file(&scratch.file("short", b"short"));
        assert_eq!(read(&mut bench, &file, 2, 100), b"ort");
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        let memory = bench.q.adopt(std::os::fd::OwnedFd::from(memory)).unwrap();
        let id = bench.submit(0, ReadAt { source: memory, buf: vec![0; 64].into(), offset: 0 });
        match bench.next_of(id) {
            What::Failed { error, done: 0, operands: Operands::Buf(buf) } => {
                assert_eq!((error.raw_os_error(), buf.len()), (Some(libc::EIO), 64));
            }
            other => panic!("{other:?}"),
        }
    });
    // A device that fails in the middle: what was read before is counted, the buffer comes back.
    let Some(device) = Mounted::new("t52") else { return };
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let bad = bench.file_to_read(&device.file("bad"));
        assert_eq!(read(&mut bench, &bad, 0, GOOD as usize), [b'd'; GOOD as usize]);
        assert_eq!(read(&mut bench, &bad, GOOD - 10, 10), [b'd'; 10]);
        for (offset, done_before) in [(GOOD - 5000, 5000), (GOOD, 0), (LEN - 10, 0)] {
            let id = bench.submit(0, ReadAt { source: bad.clone(), buf: vec![0; 10_000].into(), offset });
            match bench.next_of(id) {
                What::Failed { error, done, operands: Operands::Buf(buf) } => {
                    assert_eq!((error.raw_os_error(), buf.len()), (Some(libc::EIO), 10_000));
                    assert_eq!(done, done_before);
                    assert!(buf[..done as usize].iter().all(|b| *b == b'd'));
                }
                other => panic!("{other:?}"),
            }
        }
        let end = bench.file_to_read(&device.file("slow"));
        assert_eq!(read(&mut bench, &end, LEN - 10, 100), [b'd'; 10]);
    });
}

#[test]
fn t53__full_disk_says_how_much_was_written() {
    if !in_child("files::t53__full_disk_says_how_much_was_written") {
        return;
    }
    let scratch = Scratch::new("t53");
    let path = std::ffi::CString::new(scratch.0.to_str().unwrap()).unwrap();
    // SAFETY: plain numbers; a mount table of this process' own.
    let own = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
    let (none, tmpfs) = (c"none".as_ptr(), c"tmpfs".as_ptr());
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: all strings are readable for the calls.
    let mounted = own
        && unsafe { libc::mount(none, c"/".as_ptr(), none, private, std::ptr::null()) } == 0
        && unsafe { libc::mount(none, path.as_ptr(), tmpfs, 0, c"size=1m".as_ptr().cast()) } == 0;
    if !mounted {
        eprintln!("!!! SKIPPED: a full disk needs the right to mount one");
        return;
    }
    on_both(|backend| {
        let mut bench = Bench::new(backend);
        let path = scratch.0.join(format!("full-{backend:?}"));
        let file = bench.file(&path);
        let id = bench.submit(0, WriteAt { source: file, data: pattern(4 << 20, 1).into(), offset: 0 });
        match bench.next_of(id) {
            What::Failed { error, done, operands: Operands::Data(data) } => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
                assert!(done > 0 && done <= 1 << 20, "{done}");
                let written = std::fs::read(&path).unwrap();
                assert!(written.len() as u64 >= done);
                assert!(written[..done as usize] == data.to_vec()[..done as usize]);
            }
            other => panic!("{other:?}"),
        }
        std::fs::remove_file(&path).unwrap();
    });
}

#[test]
fn t54__misaligned_direct_access_is_refused_at_once() {
    on_both(|backend| {
        let target = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = target.join(format!("t54-{backend:?}-{}", std::process::id()));
        std::fs::write(&path, pattern(16_384, 4)).unwrap();
        let mut bench = Bench::new(backend);
        let options = OpenOptions { direct: true, write: true, ..OpenOptions::default() };
        let id = bench.submit(0, OpenAt { path: path.clone(), options });
        let file = match bench.next_of(id) {
            What::Opened(file) => file,
            What::Failed { error, .. } if error.raw_os_error() == Some(libc::EINVAL) => {
                eprintln!("!!! SKIPPED: no direct access in {}", target.display());
                return;
            }
            other => panic!("{other:?}"),
        };
        let Kind::File { align } = file.kind() else { panic!("{:?}", file.kind()) };
        assert!(align >= 512, "{align}");
        let good = || IoBuf::aligned(4096).unwrap();
        for (buf, offset) in [(good(), 1), (vec![0; 4097].into(), 0), {
            let mut short = good();
            short.set_len(100);
            (short, 0)
        }] {
            let why = bench.q.submit(Token(0), ReadAt { source: file.clone(), buf, offset }).unwrap_err().why;
            assert_eq!(why, Refusal::Invalid);
        }
        let id = bench.submit(0, ReadAt { source: file.clone(), buf: good(), offset: 8192 });
        let What::Read { bytes: 4096, buf } = bench.next_of(id) else { panic!("no read") };
        assert!(*buf == pattern(16_384, 4)[8192..12_288]);
        let id = bench.submit(0, WriteAt { source: file, data: Data::Buf(buf), offset: 0 });
        assert!(matches!(bench.next_of(id), What::Wrote { bytes: 4096, .. }));
        std::fs::remove_file(&path).unwrap();
    });
}

fn send_file(
    bench: &mut Bench,
    path: &std::path::Path,
    offset: u64,
    len: u64,
    head: &'static str,
) -> (What, Vec<u8>) {
    let file = bench.file(path);
    send_open_file(bench, file, offset, len, head)
}

fn send_open_file(
    bench: &mut Bench,
    file: Source,
    offset: u64,
    len: u64,
    head: &'static str,
) -> (What, Vec<u8>) {
    let (ours, mut theirs) = bench.pair();
    let op = SendFile { source: ours.clone(), file, offset, len, head: head.into() };
    let id = bench.submit(0, op);
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        let mut piece = vec![0; 100_000];
        let mut count = 0usize;
        while let Ok(n @ 1..) = theirs.read(&mut piece) {
            count += n;
            // Sparse gigabytes are counted only.
            if all.len() < 16 << 20 {
                all.extend_from_slice(&piece[..n]);
            }
        }
        (count, all)
    });
    // Gigabytes take a while on a busy machine: a second more for each 32 MiB.
    let what = bench.next_of_within(id, PATIENCE + Duration::from_secs(len >> 25));
    bench.q.close(ours);
    let (count, all) = bench.join(reader);
    if let What::FileSent { bytes, how } = &what {
        assert_eq!((*bytes, how.sendfile + how.copied), (count as u64, count as u64));
    }
    (what, all)
}

#[test]
fn t55__sendfile_of_all_sizes_with_a_head() {
    on_both(|backend| {
        let scratch = Scratch::new(&format!("t55-{backend:?}"));
        let mut bench = Bench::new(backend);
        for len in [0usize, 1, 4096, 65_536, 65_537, 300_000, 1 << 20, 3 << 20] {
            let content = pattern(len, len as u64);
            let path = scratch.file("data", &content);
            for (offset, head) in [(0, ""), (0, "HEAD"), (len as u64 / 3, "")] {
                let (what, got) = send_file(&mut bench, &path, offset, len as u64 - offset, head);
                assert!(matches!(what, What::FileSent { .. }), "{what:?} of {len}");
                assert!(
                    got == [head.as_bytes(), &content[offset as usize..]].concat(),
                    "{len} from {offset}"
                );
            }
        }
        let big = scratch.0.join("sparse");
        let size = times(200 << 20, 5 << 30);
        std::fs::File::create(&big).unwrap().set_len(size).unwrap();
        let (what, got) = send_file(&mut bench, &big, 0, size, "");
        assert!(matches!(what, What::FileSent { bytes, .. } if bytes == size), "{what:?}");
        assert!(got.iter().all(|b| *b == 0));
        // Replaced: what was opened is sent.
        let path = scratch.file("data", &pattern(300_000, 7));
        let file = bench.file(&path);
        std::fs::rename(scratch.file("other", b"another"), &path).unwrap();
        let (what, got) = send_open_file(&mut bench, file, 0, 300_000, "");
        assert!(matches!(what, What::FileSent { bytes: 300_000, .. }), "{what:?}");
        assert!(got == pattern(300_000, 7));
        // Shorter than promised: the count is exact.
        let path = scratch.file("data", &pattern(100_000, 9));
        for promised in [100_001, 1 << 20] {
            let (what, got) = send_file(&mut bench, &path, 0, promised, "");
            match what {
                What::Failed { error, done, .. } => {
                    assert_eq!((error.raw_os_error(), done), (Some(libc::ENODATA), 100_000));
                }
                other => panic!("{other:?}"),
            }
            assert!(got == pattern(100_000, 9));
        }
    });
}

#[test]
fn t55__file_cut_short_under_way_fails_with_an_exact_count() {
    on_both(|backend| {
        let scratch = Scratch::new(&format!("t55-cut-{backend:?}"));
        let path = scratch.file("data", &pattern(64 << 20, 3));
        let mut bench = Bench::new(backend);
        let file = bench.file(&path);
        let (ours, mut theirs) = bench.pair();
        socket2::SockRef::from(&*theirs).set_recv_buffer_size(65_536).unwrap();
        let op = SendFile { source: ours.clone(), file, offset: 0, len: 64 << 20, head: "".into() };
        let id = bench.submit(0, op);
        bench.quiet();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(40 << 20).unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).map(|_| all).unwrap()
        });
        let What::Failed { error, done, .. } = bench.next_of(id) else { panic!("sent") };
        assert_eq!(error.raw_os_error(), Some(libc::ENODATA));
        bench.q.close(ours.clone());
        drop(ours);
        let all = bench.join(reader);
        assert_eq!((all.len() as u64, done), (done, 40 << 20));
        assert!(all == pattern(64 << 20, 3)[..40 << 20]);
    });
}

#[test]
fn t56__cancelled_sendfile_counts_what_left() {
    on_both(|backend| {
        let scratch = Scratch::new(&format!("t56-{backend:?}"));
        let path = scratch.file("data", &pattern(32 << 20, 5));
        let mut bench = Bench::new(backend);
        let file = bench.file(&path);
        let (ours, theirs) = bench.pair();
        socket2::SockRef::from(&theirs).set_recv_buffer_size(65_536).unwrap();
        let op = SendFile { source: ours.clone(), file, offset: 0, len: 32 << 20, head: "head".into() };
        let id = bench.submit(0, op);
        bench.quiet();
        bench.q.cancel(id);
        let What::Cancelled { done, operands: Operands::Data(head) } = bench.next_of(id) else { panic!() };
        assert_eq!(head.to_vec(), b"head");
        bench.q.close(ours.clone());
        drop(ours);
        let all = bench.read_to_end(theirs);
        assert_eq!(all.len() as u64, done);
        assert!(done > 4 && all[4..] == pattern(32 << 20, 5)[..all.len() - 4]);
    });
}

/// While every read of a file takes 100 ms, a thousand round trips over a socket are done before the
/// reads are, though those go to the same queue: none of them waits for the device.
#[test]
fn t57__slow_files_do_not_hold_up_sockets() {
    let Some(device) = Mounted::new("t57") else { return };
    on_both(|backend| {
        let mut bench = Bench::with(Config { backend, workers: 2, ..Config::default() });
        let slow = bench.file_to_read(&device.file("slow"));
        let (ours, mut theirs) = bench.pair();
        let recv = bench.recv_stream(1, &ours);
        let (mut reads, mut trips) = (Vec::new(), Vec::new());
        for i in 0..4 {
            // Far apart, so that no read brings what another wants.
            let op = ReadAt { source: slow.clone(), buf: vec![0; 4096].into(), offset: i * LEN / 4 };
            reads.push(bench.submit(9, op));
        }
        let begun = std::time::Instant::now();
        let (mut done, mut done_during) = (0, None);
        let trip = |theirs: &mut crate::peer::Peer| {
            std::io::Write::write_all(theirs, b"x").unwrap();
            std::time::Instant::now()
        };
        let mut sent = trip(&mut theirs);
        while done < reads.len() || trips.len() < 200 {
            let event = bench.next();
            match event.what {
                What::Data(_) => {
                    assert_eq!(event.id, Some(recv));
                    trips.push(sent.elapsed());
                    sent = trip(&mut theirs);
                    if trips.len() == 200 {
                        done_during = Some(done);
                    }
                }
                What::Read { bytes: 4096, .. } => done += 1,
                other => panic!("{other:?}"),
            }
        }
        // Four reads by two workers take 200 ms at least, two of the kernel's likewise.
        assert!(begun.elapsed() >= SLOWNESS);
        trips.sort_unstable();
        let usual = trips[trips.len() * 99 / 100];
        println!("{backend:?}: {done_during:?} reads done within 200 trips, 99 % of which took {usual:?}");
        assert!(usual < SLOWNESS, "sockets wait for the device: {usual:?}");
        // The device cannot be unmounted before its file is closed.
        bench.submit(2, peyk_kevent::Close { source: slow, mode: peyk_kevent::CloseMode::Graceful });
        while !matches!(bench.next().what, What::Closed) {}
    });
}

#[test]
fn t58__worker_threads_have_a_limit() {
    if !in_child("files::t58__worker_threads_have_a_limit") {
        return;
    }
    on_both(|backend| {
        let scratch = Scratch::new(&format!("t58-{backend:?}"));
        let mut bench = Bench::with(Config { backend, workers: 3, ..Config::default() });
        let lease = scratch.leased("held");
        for _ in 0..50 {
            bench.submit(0, OpenAt { path: lease.path.clone(), options: OpenOptions::default() });
        }
        assert!(bench.try_next(Duration::from_millis(100)).is_none());
        let threads = count_threads(if backend == Backend::Epoll { "kevent-file" } else { "iou-wrk" });
        assert!((1..=3).contains(&threads), "{threads}");
        drop(lease);
        for _ in 0..50 {
            assert!(matches!(bench.next().what, What::Opened(_)));
        }
    });
}

fn count_threads(name: &str) -> usize {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(Result::ok)
        .filter(|t| std::fs::read_to_string(t.path().join("comm")).is_ok_and(|comm| comm.starts_with(name)))
        .count()
}

#[test]
fn files__are_opened_written_synced_and_read() {
    on_both(|backend| {
        let scratch = Scratch::new(&format!("files-{backend:?}"));
        let mut bench = Bench::new(backend);
        let path = scratch.0.join("new");
        let absent = bench.submit(0, OpenAt { path: path.clone(), options: OpenOptions::default() });
        assert!(
            matches!(bench.next_of(absent), What::Failed { error, .. } if error.kind() == std::io::ErrorKind::NotFound)
        );
        let options = OpenOptions { write: true, create: true, exclusive: true, ..OpenOptions::default() };
        let id = bench.submit(0, OpenAt { path: path.clone(), options });
        let What::Opened(file) = bench.next_of(id) else { panic!("not opened") };
        let parts: Vec<peyk_sockbuf::Bytes> = (0..100).map(|i| pattern(i * 3, i as u64).into()).collect();
        let expected: Vec<u8> = parts.iter().flat_map(|p| p.iter().copied()).collect();
        let id = bench.submit(0, WriteAt { source: file.clone(), data: parts.into(), offset: 10 });
        assert!(matches!(bench.next_of(id), What::Wrote { bytes, .. } if bytes == expected.len() as u64));
        let id = bench.submit(0, Fsync { source: file.clone(), data_only: backend == Backend::Epoll });
        assert!(matches!(bench.next_of(id), What::Done));
        assert_eq!(read(&mut bench, &file, 10, expected.len()), expected);
        assert_eq!(std::fs::read(&path).unwrap()[10..], expected);
        let inline = bench.q.stats().inline_reads;
        assert_eq!(inline > 0, Timing::now() != Timing::Async, "{:?}", bench.q.stats());
    });
}

#[test]
fn registered_buffer__is_read_into_like_any_other() {
    on_both(|backend| {
        let scratch = Scratch::new(&format!("registered-{backend:?}"));
        let mut bench = Bench::with(Config { backend, registered_bufs: 2, ..Config::default() });
        let content = pattern(100_000, 1);
        let file = bench.file(&scratch.file("data", &content));
        let uring = backend == Backend::Uring;
        let mut bufs: Vec<IoBuf> = (0..3).map(|_| IoBuf::aligned(20_000).unwrap()).collect();
        let known: Vec<bool> = bufs.iter_mut().map(|buf| bench.q.register_buf(buf)).collect();
        assert_eq!(known, [uring, uring, false], "two places");
        assert_eq!(bench.q.register_buf(&mut bufs[0]), uring, "again is no second place");
        assert!(!bench.q.register_buf(&mut vec![0; 100].into()), "no pages of its own");
        // Another queue does not take the places for its own.
        let mut other = Bench::new(backend);
        let others = other.file(&scratch.0.join("data"));
        for round in 0..6 {
            let mut buf = bufs.remove(0);
            buf.set_len(20_000 - round);
            buf.fill(0);
            let offset = round as u64 * 10_000;
            let (bench, file) = if round < 3 { (&mut bench, &file) } else { (&mut other, &others) };
            let id = bench.submit(0, ReadAt { source: file.clone(), buf, offset });
            let What::Read { bytes, mut buf } = bench.next_of(id) else { panic!("no read") };
            assert_eq!(bytes, 20_000 - round);
            assert!(buf[..bytes] == content[offset as usize..][..bytes], "{round}");
            buf.set_len(buf.capacity());
            bufs.push(buf);
        }
        // A place that was given up is another's.
        bench.q.forget_buf(&mut bufs[0]);
        assert_eq!(bench.q.register_buf(&mut bufs[2]), uring);
        assert!(!bench.q.register_buf(&mut bufs[0]));
        // A buffer may go while its place stays.
        let gone = bufs.remove(1);
        drop(gone);
        let id = bench.submit(0, ReadAt { source: file, buf: bufs.remove(1), offset: 0 });
        assert!(matches!(bench.next_of(id), What::Read { bytes: 20_000, buf } if *buf == content[..20_000]));
    });
}
