//! Reads of 4 KiB at random places: direct, eight at a time, against one plain call after another
//! and against the ring's crate alone; and from the page cache.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use peyk::kevent::floor::{RawReads, read_at};
use peyk::kevent::{Backend, Config, Events, IoBuf, Queue, ReadAt, Source, Token, Wait, What};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::{Effort, Findings};
use crate::process;

const SIZE: u64 = 64 << 20;
const PIECE: usize = 4096;
const DEPTH: usize = 8;
/// Completions waited for at a time: submitting the next ones one by one would notify the device for each.
const BATCH: usize = 4;

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
    let cached = || std::fs::File::open(path).map(OwnedFd::from);
    let mut rates: [Vec<f64>; 9] = Default::default();
    let mut costs: [Vec<f64>; 3] = Default::default();
    let (time, uring, epoll) = (effort.time, Backend::Uring, Backend::Epoll);
    super::pin(0);
    for _ in 0..effort.rounds {
        let before = process::cpu_seconds();
        rates[0].push(plain(&direct()?, time)?);
        costs[0].push((process::cpu_seconds() - before) / rates[0][rates[0].len() - 1]);
        rates[1].push(raw(direct()?, time)?);
        let before = process::cpu_seconds();
        rates[2].push(queued(direct()?, time, uring, BATCH, false)?);
        costs[1].push((process::cpu_seconds() - before) / rates[2][rates[2].len() - 1]);
        rates[3].push(queued(direct()?, time, epoll, BATCH, false)?);
        let before = process::cpu_seconds();
        rates[8].push(queued(direct()?, time, uring, BATCH, true)?);
        costs[2].push((process::cpu_seconds() - before) / rates[8][rates[8].len() - 1]);
        rates[4].push(plain(&cached()?, time)?);
        rates[5].push(queued(cached()?, time, uring, DEPTH, false)?);
        rates[6].push(queued(cached()?, time, epoll, DEPTH, false)?);
        rates[7].push(on_tokio(&cached()?, time)?);
    }
    let case = "direct reads of 4 KiB, 8 at a time";
    findings.row(case, "pread, one after another", "reads/s", &rates[0], "");
    findings.row(
        case,
        "the io-uring crate alone",
        "reads/s",
        &rates[1],
        "waits for 4 at a time, as the queue",
    );
    let per_read =
        |costs: &[f64]| format!("CPU {:.2} us/read", super::median(costs) / time.as_secs_f64() * 1e6);
    findings.row(case, "kevent, io_uring", "reads/s", &rates[2], per_read(&costs[1]));
    findings.row(case, "kevent, io_uring, registered buffers", "reads/s", &rates[8], per_read(&costs[2]));
    findings.row(case, "kevent, epoll", "reads/s", &rates[3], "by 4 threads");
    findings.bar(&format!("{case}, kevent / pread"), &rates[2], &rates[0], 3.5, true);
    findings.bar(&format!("{case}: CPU, kevent / pread"), &costs[1], &costs[0], 0.4, false);
    findings.bar(&format!("{case}: time, kevent / crate alone"), &rates[1], &rates[2], 1.08, false);
    let case = "reads of 4 KiB from the page cache";
    findings.row(case, "pread", "reads/s", &rates[4], "");
    findings.row(case, "kevent, io_uring", "reads/s", &rates[5], "8 for each wait");
    findings.row(case, "kevent, epoll", "reads/s", &rates[6], "8 for each wait");
    findings.row(case, "tokio, on its threads for blocking calls", "reads/s", &rates[7], "");
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
    let count = reads.run(BATCH, || (start.elapsed() < time).then(&mut place))?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Keeps 8 reads under way and waits for `batch` of them. `known`: into buffers that
/// the ring knows.
fn queued(file: OwnedFd, time: Duration, backend: Backend, batch: usize, known: bool) -> Result<f64> {
    let mut queue = Queue::new(Config { backend, ..Config::default() })?;
    let source: Source = queue.adopt(file)?;
    queue.register(&source);
    let mut place = places();
    let mut free: Vec<IoBuf> = (0..DEPTH).map(|_| IoBuf::aligned(PIECE)).collect::<std::io::Result<_>>()?;
    if known && !free.iter_mut().all(|buf| queue.register_buf(buf)) {
        anyhow::bail!("the ring does not take the buffers: too little memory may be locked");
    }
    let mut events = Events::with_capacity(64);
    let (mut flying, mut count) = (0u64, 0u64);
    let wait = Wait::forever().batch(batch as u32, Duration::from_millis(1));
    let start = Instant::now();
    loop {
        let is_over = start.elapsed() >= time;
        while !is_over && let Some(buf) = free.pop() {
            queue
                .submit(Token(0), ReadAt { source: source.clone(), buf, offset: place() })
                .map_err(|r| r.why)?;
            flying += 1;
        }
        if flying == 0 {
            return Ok(count as f64 / start.elapsed().as_secs_f64());
        }
        queue.wait(&mut events, wait)?;
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

fn on_tokio(file: &OwnedFd, time: Duration) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut place = places();
    runtime.block_on(async {
        let mut buf = vec![0; PIECE];
        let file = std::sync::Arc::new(std::fs::File::from(file.try_clone()?));
        let (mut count, start) = (0u64, Instant::now());
        while start.elapsed() < time {
            let (file, offset) = (file.clone(), place());
            let read = move || file.read_exact_at(&mut buf, offset).map(|()| buf);
            buf = tokio::task::spawn_blocking(read).await??;
            count += 1;
        }
        Ok(count as f64 / start.elapsed().as_secs_f64())
    })
}
