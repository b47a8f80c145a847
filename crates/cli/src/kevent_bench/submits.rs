//! What handing an operation to the queue takes, without waiting for it: usually, and at worst.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use peyk::kevent::{
    Backend, Config, Data, Events, IoBuf, Op, Queue, ReadAt, Send, SendMode, Source, Timer, Token, Wait,
    What, When,
};

use super::{Effort, Findings};

/// Operations between two waits.
const BATCH: usize = 16;
/// Batches before anything counts.
const WARM_UP: usize = 200;

/// Measures.
pub fn run(effort: Effort, folder: &Path, findings: &mut Findings) -> Result<()> {
    let path = folder.join(format!("peyk-submit-{}.data", std::process::id()));
    std::fs::write(&path, vec![7; 4096])?;
    let result = measure(effort, &path, findings);
    let _ = std::fs::remove_file(&path);
    result
}

fn measure(effort: Effort, path: &Path, findings: &mut Findings) -> Result<()> {
    for (name, kind) in
        [("a send of 100 B", Kind::Send), ("a timer", Kind::Timer), ("a read of 100 B, cached", Kind::Read)]
    {
        let case = format!("submitting {name}");
        for (backend, label) in [(Backend::Uring, "io_uring"), (Backend::Epoll, "epoll")] {
            let (mut usual, mut late) = (Vec::new(), Vec::new());
            for _ in 0..effort.rounds {
                let times = Bench::new(backend, path)?.run(kind, effort.time)?;
                usual.push(times.value_at_quantile(0.5) as f64);
                late.push(times.value_at_quantile(0.99) as f64);
            }
            findings.row(&case, &format!("kevent, {label}, median"), "ns", &usual, "");
            findings.row(&case, &format!("kevent, {label}, 99 %"), "ns", &late, "");
            if backend == Backend::Uring {
                let goal = vec![1.0; late.len()];
                findings.bar(&format!("{case}: 99 % take at most, in ns"), &late, &goal, 2000.0, false);
            }
        }
    }
    Ok(())
}

#[derive(Copy, Clone)]
enum Kind {
    Send,
    Timer,
    Read,
}

struct Bench {
    queue: Queue,
    events: Events,
    ours: Source,
    theirs: TcpStream,
    file: Source,
    free: Vec<IoBuf>,
    times: Histogram<u64>,
}

impl Bench {
    fn new(backend: Backend, path: &Path) -> Result<Bench> {
        let mut queue = Queue::new(Config { backend, ..Config::default() })?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let theirs = TcpStream::connect(listener.local_addr()?)?;
        let ours = queue.adopt(OwnedFd::from(listener.accept()?.0))?;
        let file = queue.adopt(OwnedFd::from(std::fs::File::open(path)?))?;
        let free = (0..BATCH).map(|_| vec![7; 100].into()).collect();
        let times = Histogram::new(3)?;
        Ok(Bench { queue, events: Events::with_capacity(64), ours, theirs, file, free, times })
    }

    fn run(mut self, kind: Kind, time: Duration) -> Result<Histogram<u64>> {
        super::pin(0);
        let mut sink = vec![0; BATCH * 100];
        let mut batches = 0;
        let start = Instant::now();
        while start.elapsed() < time || batches < 2 * WARM_UP {
            for _ in 0..BATCH {
                match kind {
                    Kind::Send => {
                        let data = self.free.pop().unwrap_or_default().into();
                        self.submit(Send { source: self.ours.clone(), data, mode: SendMode::Copy })?;
                    }
                    Kind::Timer => {
                        self.submit(Timer { at: When::In(Duration::from_micros(1)), every: None })?;
                    }
                    Kind::Read => {
                        let buf = self.free.pop().unwrap_or_default();
                        self.submit(ReadAt { source: self.file.clone(), buf, offset: 0 })?;
                    }
                }
            }
            self.settle()?;
            if matches!(kind, Kind::Send) {
                std::io::Read::read_exact(&mut self.theirs, &mut sink)?;
            }
            batches += 1;
            if batches == WARM_UP {
                self.times.reset();
            }
        }
        Ok(self.times)
    }

    fn submit<O: Op>(&mut self, op: O) -> Result<()> {
        let start = Instant::now();
        let result = self.queue.submit(Token(0), op);
        self.times.saturating_record(start.elapsed().as_nanos() as u64);
        result.map(drop).map_err(|r| r.why.into())
    }

    /// Waits until all are over.
    fn settle(&mut self) -> Result<()> {
        let mut left = BATCH;
        while left > 0 {
            self.queue.wait(&mut self.events, Wait::forever())?;
            for event in self.events.drain() {
                left -= usize::from(event.last);
                match event.what {
                    What::Sent { data: Some(Data::Buf(buf)), .. } | What::Read { buf, .. } => {
                        self.free.push(buf);
                    }
                    What::Tick { .. } => {}
                    other => bail!("unexpected {other:?}"),
                }
            }
        }
        Ok(())
    }
}
