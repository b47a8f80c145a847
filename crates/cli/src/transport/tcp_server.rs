//! A TCP server that answers every message with the same bytes: one thread, a fixed number of connections.
//!
//! Each turn reads whatever has arrived, takes all complete messages, and answers them with one system call. As the
//! answer is the request, it is sent from the receive buffer: the peer that Homa is compared with copies nothing.

use std::{
    collections::VecDeque,
    io::IoSlice,
    net::{TcpListener, TcpStream},
    ops::Range,
};

use anyhow::{Context, Result};

use super::{
    frame::{LENGTH, MESSAGE_MAX, length_of},
    tcp::{self, Interest, Waiting},
};
use crate::verify::{Kind, Ledger};

/// Receive buffer of a connection: room for several of the longest messages.
const BUFFER: usize = 4 * (MESSAGE_MAX + LENGTH);

/// Most pieces of one write.
const PIECES_MAX: usize = 64;

/// Held requests of a connection, at most.
const HELD_MAX: usize = 100_000;

/// Bytes written to one connection in one turn, about.
const WRITE_A_TURN: usize = 1 << 20;

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are received.
    filled: usize,
    /// Bytes of the buffer that are taken as messages.
    parsed: usize,
    /// What of these is still to be sent back.
    answers: VecDeque<Range<usize>>,
    /// Held requests, frames in a row, and how many.
    held: Vec<u8>,
    held_count: usize,
    /// Held requests that are released; sent before anything else.
    released: Vec<u8>,
    released_sent: usize,
    ended: bool,
}

impl Connection {
    fn new(stream: TcpStream) -> Connection {
        Connection {
            stream,
            buffer: vec![0; BUFFER],
            filled: 0,
            parsed: 0,
            answers: VecDeque::new(),
            held: Vec::new(),
            held_count: 0,
            released: Vec::new(),
            released_sent: 0,
            ended: false,
        }
    }

    fn has_output(&self) -> bool {
        !self.answers.is_empty() || !self.released.is_empty()
    }

    fn has_room(&self) -> bool {
        self.filled < self.buffer.len() && !self.ended
    }

    fn receive(&mut self, wait: bool) -> Result<()> {
        if !self.has_room() {
            return Ok(());
        }
        match tcp::receive(&self.stream, &mut self.buffer[self.filled..], wait).context("reading requests")? {
            None => {}
            Some(0) => self.ended = true,
            Some(n) => self.filled += n,
        }
        Ok(())
    }

    /// Takes the complete messages. With a ledger each is checked and recorded.
    fn parse(&mut self, mut ledger: Option<&mut Ledger>, open: &mut usize, release: &mut bool) -> Result<()> {
        while let Some(length) = length_of(&self.buffer[self.parsed..self.filled])? {
            let frame = self.parsed..self.parsed + LENGTH + length;
            if frame.end > self.filled {
                break;
            }
            self.parsed = frame.end;
            let message = &self.buffer[frame.start + LENGTH..frame.end];
            let kind = ledger.as_mut().map_or(Kind::Echo, |l| l.execute([message].into_iter()));
            if kind == Kind::Hold && self.held_count < HELD_MAX {
                self.held.extend_from_slice(&self.buffer[frame]);
                self.held_count += 1;
                *open += 1;
                continue;
            }
            *release |= kind == Kind::Release;
            match self.answers.back_mut() {
                Some(last) if last.end == frame.start => last.end = frame.end,
                _ => self.answers.push_back(frame),
            }
        }
        Ok(())
    }

    fn release(&mut self) {
        self.released.append(&mut self.held);
        self.held_count = 0;
    }

    fn flush(&mut self) -> Result<()> {
        let mut sent = 0;
        while self.has_output() && !self.ended && sent < WRITE_A_TURN {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            slices[0] = IoSlice::new(&self.released[self.released_sent..]);
            for (slice, range) in slices[1..].iter_mut().zip(&self.answers) {
                *slice = IoSlice::new(&self.buffer[range.clone()]);
            }
            let count = (1 + self.answers.len()).min(PIECES_MAX);
            let first = usize::from(self.released.is_empty());
            let written = tcp::send(&self.stream, &slices[first..count]).context("sending responses")?;
            if written == 0 {
                break;
            }
            self.advance(written);
            sent += written;
        }
        // Here, not before receiving: a full buffer makes no room by itself, and is not received into.
        self.compact();
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        let released = (self.released.len() - self.released_sent).min(written);
        self.released_sent += released;
        written -= released;
        if self.released_sent == self.released.len() {
            self.released.clear();
            self.released_sent = 0;
        }
        while let Some(range) = self.answers.front_mut() {
            if written < range.len() {
                range.start += written;
                break;
            }
            written -= range.len();
            self.answers.pop_front();
        }
    }

    /// Moves what is still needed to the front of the buffer: when nothing is, or when room is short and the move
    /// frees at least as much as it copies. (Otherwise nothing is read until more answers are sent; an incomplete
    /// message alone is always short enough.)
    fn compact(&mut self) {
        let start = self.answers.front().map_or(self.parsed, |range| range.start);
        let kept = self.filled - start;
        let is_short = self.buffer.len() - self.filled <= MESSAGE_MAX + LENGTH;
        if start == 0 || kept > 0 && !(is_short && start >= kept) {
            return;
        }
        self.buffer.copy_within(start..self.filled, 0);
        self.filled -= start;
        self.parsed -= start;
        for range in &mut self.answers {
            *range = range.start - start..range.end - start;
        }
    }
}

/// Accepts `count` connections and serves them until all have ended. With a ledger requests are checked and may be
/// held; without, they are only sent back.
pub fn serve(
    listener: &TcpListener,
    count: usize,
    waiting: Waiting,
    mut ledger: Option<&mut Ledger>,
) -> Result<()> {
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        let (stream, _) = listener.accept().context("accepting a TCP connection")?;
        tcp::configure(&stream)?;
        connections.push(Connection::new(stream));
    }
    let mut ready = vec![Interest { read: true, write: true }; count];
    let mut open = 0;
    while connections.iter().any(|c| !c.ended) {
        let alone = connections.len() == 1 && !connections[0].has_output();
        if waiting == Waiting::Block && !alone {
            let interests = connections
                .iter()
                .map(|c| (&c.stream, Interest { read: c.has_room(), write: c.has_output() && !c.ended }));
            tcp::wait(interests, None, &mut ready)?;
        }
        let mut release = false;
        for (connection, ready) in connections.iter_mut().zip(&ready) {
            if ready.read || alone {
                connection.receive(waiting == Waiting::Block && alone)?;
                connection.parse(ledger.as_deref_mut(), &mut open, &mut release)?;
            }
        }
        if let Some(ledger) = &mut ledger {
            ledger.holding(open);
        }
        if release {
            connections.iter_mut().for_each(Connection::release);
            open = 0;
        }
        connections.iter_mut().try_for_each(Connection::flush)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        load::{Arrivals, Baseline, Draw, Load, LoadPlan, LoadResult},
        process::Clock,
        transport::tcp_client::TcpClient,
    };
    use peyk_sim::workload::Name;

    fn run(connections: usize, waiting: Waiting, arrivals: Arrivals, hold: u32) -> (LoadResult, Ledger) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let mut ledger = Ledger::default();
            serve(&listener, connections, waiting, Some(&mut ledger)).unwrap();
            ledger
        });
        let plan = LoadPlan {
            draw: Draw::Workload(Name::W4),
            arrivals,
            seed: 5,
            duration_ms: 300,
            warmup_ms: 50,
            drain_ms: 3_000,
            outstanding_max: 5_000,
            hold,
            origin: 0,
            servers: 1,
            in_a_row: 16,
            baseline: Baseline::default(),
        };
        let mut load = Load::new(plan, |_| ());
        let mut client = TcpClient::connect(&[address], connections, waiting).unwrap();
        client.run(&Clock::start(), &mut load).unwrap();
        drop(client);
        (load.finish(), server.join().unwrap())
    }

    fn check(result: &LoadResult, ledger: &Ledger) {
        assert!(result.completed > 10, "{}", result.completed);
        assert_eq!((result.lost, result.corrupt, result.unexpected), (0, 0, 0));
        let counts = ledger.counts();
        assert_eq!((counts.executed_twice, counts.corrupt), (0, 0));
        let release = u64::from(result.held > 0);
        assert_eq!(counts.executed, result.sent + result.held + release);
        assert_eq!(result.held_completed, result.held);
        assert_eq!(result.released_early, 0);
        assert_eq!(counts.held_max, result.held);
    }

    #[test]
    fn closed_loop_over_one_and_four_connections() {
        for connections in [1, 4] {
            let (result, ledger) = run(connections, Waiting::Block, Arrivals::Closed(64), 0);
            check(&result, &ledger);
        }
    }

    #[test]
    fn open_loop_with_held_requests() {
        for connections in [1, 4] {
            let (result, ledger) = run(connections, Waiting::Block, Arrivals::Poisson(1_000.0), 1_100);
            check(&result, &ledger);
        }
    }

    #[test]
    fn spinning_peers_get_the_same_done() {
        let (result, ledger) = run(1, Waiting::Spin, Arrivals::Poisson(1_000.0), 10);
        check(&result, &ledger);
    }
}
