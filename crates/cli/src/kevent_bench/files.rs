//! Reads of 4 KiB at random places: direct, eight at a time, against one plain call after another
//! and against the ring's crate alone; and from the page cache.

use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use peyk::kevent::floor::{RawReads, read_at};
use peyk::kevent::{Backend, Config, Events, IoBuf, Queue, ReadAt, Source, Token, Wait, What};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::{Effort, Findings};

const SIZE: u64 = 64 << 20;
const PIECE: usize = 4096;
const DEPTH: usize = 8;

/// Measures; the file lies in `folder`, which must be on a device.
pub fn run(effort: Effort, folder: &Path, findings: &mut Findings) -> Result<()> {
    let path = folder.join(format!("peyk-bench-{}.data", std::process::id()));
    let result = measure(effort, &path, findings);
    let _ = std::fs::remove_file(&path);
    result
}

fn measure(effort: Effort, path: &PathBuf, findings: &mut Findings) -> Result<()> {
    std::fs::write(path, vec![7; SIZE as usize]).with_context(|| format!("writing {}", path.display()))?;
    std::fs::File::open(path)?.sync_all()?;
    let direct = || {
        std::fs::File::options().read(true).custom_flags(nix::libc::O_DIRECT).open(path).map(OwnedFd::from)
    };
    if direct().is_err() {
        findings.absent.push(format!("direct reads: {} does not allow them", path.display()));
        return Ok(());
    }
    let mut rates: [Vec<f64>; 6] = Default::default();
    for _ in 0..effort.rounds {
        rates[0].push(plain(&direct()?, effort.time)?);
        rates[1].push(raw(direct()?, effort.time)?);
        rates[2].push(queued(direct()?, effort.time, Backend::Uring, DEPTH)?);
        rates[3].push(queued(direct()?, effort.time, Backend::Epoll, DEPTH)?);
        rates[4].push(plain(&std::fs::File::open(path)?.into(), effort.time)?);
        rates[5].push(queued(std::fs::File::open(path)?.into(), effort.time, Backend::Uring, 1)?);
    }
    let case = "direct reads of 4 KiB, 8 at a time";
    findings.row(case, "pread, one after another", "reads/s", &rates[0], "");
    findings.row(case, "the io-uring crate alone", "reads/s", &rates[1], "");
    findings.row(case, "kevent, io_uring", "reads/s", &rates[2], "");
    findings.row(case, "kevent, epoll", "reads/s", &rates[3], "by 4 threads");
    findings.bar(&format!("{case}, kevent / pread"), &rates[2], &rates[0], 3.5, true);
    findings.bar(&format!("{case}: time, kevent / crate alone"), &rates[1], &rates[2], 1.08, false);
    let case = "reads of 4 KiB from the page cache";
    findings.row(case, "pread", "reads/s", &rates[4], "");
    findings.row(case, "kevent, io_uring", "reads/s", &rates[5], "one at a time");
    findings.bar(&format!("{case}: time, kevent / pread"), &rates[4], &rates[5], 1.1, false);
    Ok(())
}

fn places() -> impl FnMut() -> u64 {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
    move || random.next_u64() % (SIZE / PIECE as u64) * PIECE as u64
}

fn plain(file: &OwnedFd, time: Duration) -> Result<f64> {
    let mut buf = IoBuf::aligned(PIECE)?;
    let mut place = places();
    let (count, nanos) = super::repeat(time, || {
        for _ in 0..DEPTH {
            read_at(file, &mut buf, place())?;
        }
        Ok(DEPTH as u64)
    })?;
    let _ = count;
    Ok(1e9 / nanos)
}

fn raw(file: OwnedFd, time: Duration) -> Result<f64> {
    let mut reads = RawReads::new(file, DEPTH, PIECE)?;
    let mut place = places();
    let start = Instant::now();
    let count = reads.run(|| (start.elapsed() < time).then(&mut place))?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

fn queued(file: OwnedFd, time: Duration, backend: Backend, depth: usize) -> Result<f64> {
    let mut queue = Queue::new(Config { backend, ..Config::default() })?;
    let source: Source = queue.adopt(file)?;
    queue.register(&source);
    let mut place = places();
    let mut free: Vec<IoBuf> = (0..depth).map(|_| IoBuf::aligned(PIECE)).collect::<std::io::Result<_>>()?;
    let mut events = Events::with_capacity(64);
    let (mut flying, mut count) = (0u64, 0u64);
    let start = Instant::now();
    loop {
        while start.elapsed() < time
            && let Some(buf) = free.pop()
        {
            queue
                .submit(Token(0), ReadAt { source: source.clone(), buf, offset: place() })
                .map_err(|r| r.why)?;
            flying += 1;
        }
        if flying == 0 {
            return Ok(count as f64 / start.elapsed().as_secs_f64());
        }
        queue.wait(&mut events, Wait::forever())?;
        for event in events.drain() {
            match event.what {
                What::Read { buf, .. } => free.push(buf),
                other => anyhow::bail!("a read failed: {other:?}"),
            }
            flying -= 1;
            count += 1;
        }
    }
}
