//! K7: what it costs to find the end of a message, natively and by programs as clang compiles them.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;
use peyk::kcm::bpf::{BpfFramer, Limits, Program};
use peyk::kcm::framer::{Framer, Resume, Side, Spread, Verdict, by_name};

use super::figure::{Figure, Goal, quartiles};

/// A message, the framer and the program for it.
struct Subject {
    what: &'static str,
    name: &'static str,
    object: &'static [u8],
    message: Vec<u8>,
}

macro_rules! object {
    ($name:literal) => {
        include_bytes!(concat!("../../../kcm/tests/bpf/", $name, ".v3.o"))
    };
}

fn subjects() -> Vec<Subject> {
    let subject = |what, name, object, message| Subject { what, name, object, message };
    let mut get = vec![0; 24];
    (get[0], get[3], get[11]) = (0x80, 5, 5);
    get.extend_from_slice(b"hello");
    let mut data = vec![0, 1, 0, 0, 0, 0, 0, 0, 1];
    data.resize(9 + 256, 7);
    let mut varint = vec![0xac, 2];
    varint.resize(302, 7);
    let arguments = b"*16\r\n".iter().chain(b"$4\r\nabcd\r\n".repeat(16).iter()).copied().collect();
    vec![
        subject("Thrift, 104 B", "thrift", &object!("thrift")[..], [&[0, 0, 0, 100][..], &[7; 100]].concat()),
        subject("memcached get", "memcached-binary", object!("memcached"), get),
        subject("HTTP/2 DATA", "http2", object!("http2"), data),
        subject("protobuf, 302 B", "protobuf", object!("varint"), varint),
        subject(
            "RESP SET",
            "resp",
            object!("resp"),
            b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\n0123456789\r\n".into(),
        ),
        subject("RESP, 16 arguments", "resp", object!("resp"), arguments),
    ]
}

/// Which way the message goes: a client's HTTP/2 starts with its preface, a server's with frames.
fn side(name: &str) -> Side {
    if name == "http2" { Side::Replies } else { Side::Requests }
}

/// Nanoseconds of a call, the best of seven times.
fn cost(framer: &mut dyn Framer, message: &[u8]) -> Result<f64> {
    let (mut best, mut resume) = (f64::MAX, Resume::default());
    for _ in 0..7 {
        let (started, mut calls) = (Instant::now(), 0u32);
        while started.elapsed() < Duration::from_millis(4) {
            for _ in 0..256 {
                // As between two messages of a stream.
                resume.clear();
                let verdict = framer.frame(black_box(message), &mut resume);
                let Verdict::Len(frame) = black_box(verdict) else {
                    anyhow::bail!("no message: {verdict:?}")
                };
                anyhow::ensure!(frame.total == message.len() as u64, "cut at {}", frame.total);
            }
            calls += 256;
        }
        best = best.min(started.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    Ok(best)
}

/// The interpreter, also for programs that are recognised as something simpler.
struct Interpreted(Program);

impl Framer for Interpreted {
    fn frame(&mut self, bytes: &[u8], _: &mut Resume) -> Verdict {
        match self.0.interpret(bytes) {
            Ok((total, _)) if total > 0 => Verdict::len(total as u64),
            Ok(_) => Verdict::Need(bytes.len() + 1),
            Err(error) => Verdict::Bad(error),
        }
    }

    fn spread(&self) -> Spread {
        Spread::User
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(Interpreted(self.0.clone()))
    }
}

pub fn run() -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for Subject { what, name, object, message } in subjects() {
        let program = Program::from_elf(object, Limits::default())?;
        let native = cost(by_name(name, side(name))?.as_mut(), &message)?;
        let run = cost(&mut BpfFramer::new(program.clone(), Spread::User), &message)?;
        let pair = |ours| vec![(native, ours)];
        let line = |how: &str| format!("ns to frame {what}, {how}");
        figures.push(Figure::new("k7", line("program as run"), "the native framer", &pair(run), Goal::None));
        if program.is_simple() {
            let slow = cost(&mut Interpreted(program), &message)?;
            let how = line("program interpreted");
            figures.push(Figure::new("k7", how, "the native framer", &pair(slow), Goal::None));
        }
    }
    // What one length prefix may cost by program: a twentieth of a core at a million messages a second.
    let prefix: Vec<f64> = figures.iter().take(2).map(|figure| figure.kcm).collect();
    let worst = quartiles(prefix)[2];
    figures.push(Figure::limited("k7", "ns, a length prefix by program at worst", 50.0, &[worst]));
    Ok(figures)
}
