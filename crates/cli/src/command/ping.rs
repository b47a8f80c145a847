//! `peyk ping`: one request after the other, and how long each took.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use peyk::{
    blocking::Socket,
    homa::{Addr, CallOptions, Payload},
};

use super::start;
use crate::{flags::Ping, load::quantile, prng};

/// What the pinging thread or the user has to say.
enum Note {
    /// The response to a request came after so long.
    Answer { number: u64, took: Duration },
    /// A request has no right response.
    Loss { number: u64, reason: String },
    /// All requests are done.
    End,
    /// The user has had enough.
    Interrupted,
}

/// Pings until all is done or the user interrupts.
pub fn run(flags: &Ping) -> Result<()> {
    let (tell, notes) = channel();
    let interrupt = tell.clone();
    ctrlc::set_handler(move || drop(interrupt.send(Note::Interrupted)))
        .context("preparing for interruption")?;
    let to = start::resolve(&flags.host, flags.stack.udp_port)?;
    let stack = start::start(&flags.stack, 0)?;
    let socket = Socket::open(&stack).context("opening a Homa socket")?;
    println!("ping {to}: {} bytes each way, over UDP port {}", flags.size, to.udp_port);
    let plan = Plan {
        to,
        count: flags.count.unwrap_or(u64::MAX),
        interval: flags.interval,
        message: prng::bytes(1, flags.size as usize),
        timeout: flags.timeout,
    };
    std::thread::spawn(move || plan.run(&socket, &tell));
    let trips = listen(&notes, to, flags);
    summary(&trips, to);
    // Lets the last acknowledgement leave.
    stack.stop();
    if trips.times.is_empty() {
        bail!("no response from {to}");
    }
    Ok(())
}

/// What the pinging thread does.
struct Plan {
    to: Addr,
    count: u64,
    interval: Duration,
    message: Vec<u8>,
    timeout: Duration,
}

impl Plan {
    fn run(&self, socket: &Socket, tell: &Sender<Note>) {
        let mut due = Instant::now();
        for number in 0..self.count {
            if tell.send(self.call(socket, number)).is_err() {
                return;
            }
            if number + 1 < self.count {
                due = (due + self.interval).max(Instant::now());
                std::thread::sleep(due - Instant::now());
            }
        }
        let _ = tell.send(Note::End);
    }

    fn call(&self, socket: &Socket, number: u64) -> Note {
        let payload = Payload::copy_from(&self.message);
        let start = Instant::now();
        let result = socket.call_with(self.to, payload, CallOptions { timeout: Some(self.timeout) });
        let took = start.elapsed();
        match result {
            Ok(response) if response.message == self.message => Note::Answer { number, took },
            Ok(_) => Note::Loss { number, reason: "the response is not what was sent".into() },
            Err(error) => Note::Loss { number, reason: error.to_string() },
        }
    }
}

/// The results so far.
#[derive(Default)]
struct Trips {
    /// Round trips in nanoseconds; at most [`TIMES_MAX`], then every second one is forgotten.
    times: Vec<u64>,
    sent: u64,
    lost: u64,
}

/// Most round trips kept for the summary.
const TIMES_MAX: usize = 1 << 20;

impl Trips {
    fn answer(&mut self, took: Duration) {
        self.sent += 1;
        if self.times.len() == TIMES_MAX {
            let mut keep = false;
            self.times.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.times.push(took.as_nanos() as u64);
    }
}

fn listen(notes: &Receiver<Note>, to: Addr, flags: &Ping) -> Trips {
    let mut trips = Trips::default();
    for note in notes {
        match note {
            Note::Answer { number, took } => {
                trips.answer(took);
                if !flags.quiet {
                    let us = took.as_nanos() as f64 / 1e3;
                    println!("{} bytes from {to}: number {number}, {us:.1} us", flags.size);
                }
            }
            Note::Loss { number, reason } => {
                trips.sent += 1;
                trips.lost += 1;
                if !flags.quiet {
                    println!("number {number}: {reason}");
                }
            }
            Note::End | Note::Interrupted => break,
        }
    }
    trips
}

fn summary(trips: &Trips, to: Addr) {
    let share = 100.0 * trips.lost as f64 / trips.sent.max(1) as f64;
    println!(
        "--- {to}: {} requests, {} answered, {} lost ({share:.1} %)",
        trips.sent,
        trips.sent - trips.lost,
        trips.lost
    );
    let mut times = trips.times.clone();
    times.sort_unstable();
    let us = |q: f64| quantile(&times, q).map_or(0.0, |ns| ns as f64 / 1e3);
    if !times.is_empty() {
        println!(
            "round trip: min {:.1} us, median {:.1} us, p99 {:.1} us, max {:.1} us",
            us(0.0),
            us(0.5),
            us(0.99),
            us(1.0)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_forgets_evenly_when_there_are_too_many() {
        let mut trips = Trips::default();
        for n in 0..=TIMES_MAX as u64 {
            trips.answer(Duration::from_nanos(n));
        }
        assert_eq!(trips.times.len(), TIMES_MAX / 2 + 1);
        assert_eq!(trips.sent, TIMES_MAX as u64 + 1);
        assert_eq!(&trips.times[..3], [0, 2, 4]);
    }
}
