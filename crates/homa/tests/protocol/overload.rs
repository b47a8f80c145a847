//! Two hosts at the ends of a link that is too slow for what they have to say: packets queue for
//! tens of milliseconds, longer than RPCs wait before they ask again, and some get lost. What is
//! merely late must not be sent again, or the link carries little else.

use core::time::Duration;
use std::collections::VecDeque;

use peyk_homa::{Config, Endpoint, Event, Path, PeerAddr, RequestOptions, SocketId, SocketOptions};
use peyk_sansio::{Instant, Prng};
use peyk_sockbuf::{Payload, Pool};

use crate::common::*;

/// Header bytes of a packet on the link, and what it takes a host to handle it.
const PER_PACKET: usize = 100;
/// RPCs under way at any time.
const WINDOW: usize = 3000;

struct Link {
    ns_per_byte: f64,
    loss: f64,
    /// When the link has sent everything it holds.
    idle_at: Instant,
    queue: VecDeque<(Instant, Vec<u8>)>,
    lost: u64,
}

/// Host 0 keeps requests under way to host 1, which echoes them.
struct Overload {
    now: Instant,
    rng: Prng,
    ends: [Endpoint; 2],
    client: SocketId,
    /// `links[n]` leads to host `n`.
    links: [Link; 2],
    length: usize,
    echoed: u64,
    failed: u64,
}

fn path(end: usize) -> Path {
    let remote = if end == 0 { "10.0.0.1:14600" } else { "10.0.0.2:14600" };
    Path { remote: remote.parse().unwrap(), local: 0 }
}

impl Overload {
    fn new(length: usize, mbps: f64, loss: f64) -> Overload {
        let now = Instant::from_nanos(10_000_000_000);
        let end = |seed| Endpoint::new(Config::default(), seed, Pool::new(4096), now).unwrap();
        let mut ends = [end(1), end(2)];
        let client = ends[0].open_socket(None, SocketOptions::default()).unwrap();
        ends[1].open_socket(Some(PORT), SocketOptions::default()).unwrap();
        let link =
            || Link { ns_per_byte: 8000.0 / mbps, loss, idle_at: now, queue: VecDeque::new(), lost: 0 };
        let (rng, links) = (Prng::new(3), [link(), link()]);
        Overload { now, rng, ends, client, links, length, echoed: 0, failed: 0 }
    }

    fn request(&mut self) {
        let to = PeerAddr { path: path(1), port: PORT };
        let message = Payload::from(vec![7; self.length]);
        let options = RequestOptions::default();
        self.ends[0].send_request(self.now, self.client, to, message, options).expect("no limit is near");
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            for from in 0..2 {
                self.transmit(from);
            }
            self.now += us(20);
            for to in 0..2 {
                while self.links[to].queue.front().is_some_and(|(at, _)| *at <= self.now) {
                    let (_, bytes) = self.links[to].queue.pop_front().expect("just seen");
                    self.ends[to].handle_packet(self.now, &path(1 - to), &bytes);
                }
                if self.ends[to].poll_timeout().is_some_and(|at| at <= self.now) {
                    self.ends[to].handle_timeout(self.now);
                }
                while let Some(event) = self.ends[to].poll_event() {
                    self.on_event(event);
                }
            }
        }
    }

    /// The link takes everything, as a socket does; it is only late with it.
    fn transmit(&mut self, from: usize) {
        while let Some(packet) = self.ends[from].poll_transmit(self.now) {
            let mut bytes = Vec::new();
            packet.write_to(&mut bytes);
            let link = &mut self.links[1 - from];
            let takes = (bytes.len() + PER_PACKET) as f64 * link.ns_per_byte;
            link.idle_at = link.idle_at.max(self.now) + Duration::from_nanos(takes as u64);
            if self.rng.chance(link.loss) {
                link.lost += 1;
            } else {
                link.queue.push_back((link.idle_at, bytes));
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Request { rpc, message, .. } => {
                self.ends[1].reply(self.now, rpc, Payload::from(message)).expect("its client waits");
            }
            Event::Response { .. } => {
                self.echoed += 1;
                self.request();
            }
            Event::Failed { .. } => {
                self.failed += 1;
                self.request();
            }
            _ => {}
        }
    }

    fn retransmitted(&self) -> u64 {
        self.ends.iter().map(|end| end.stats().data_retransmitted).sum()
    }

    fn lost(&self) -> u64 {
        self.links.iter().map(|link| link.lost).sum()
    }

    /// Share of the link that messages have had, if nothing was sent but they.
    fn goodput(&self, time: Duration) -> f64 {
        let packets = self.length.div_ceil(1416);
        let bytes = self.length + packets * (56 + PER_PACKET);
        self.echoed as f64 * bytes as f64 * self.links[0].ns_per_byte / time.as_nanos() as f64
    }
}

fn overload(length: usize, mbps: f64) {
    let mut world = Overload::new(length, mbps, 0.01);
    (0..WINDOW).for_each(|_| world.request());
    let time = ms(600);
    world.run(time);
    let (resent, lost, goodput) = (world.retransmitted(), world.lost(), world.goodput(time));
    for end in &world.ends {
        let counts: Vec<_> = end.stats().iter().filter(|&(_, n)| n > 0).collect();
        eprintln!("{counts:?} sent {:?}", end.stats().sent);
    }
    eprintln!("{resent} packets sent again for {lost} lost, goodput {:.0} %", goodput * 100.0);
    assert_eq!(world.failed, 0);
    assert!(resent < 3 * lost, "{resent} packets sent again, {lost} lost");
    assert!(goodput > 0.8, "{goodput}");
}

#[test]
fn short_messages_that_are_late_are_not_sent_again() {
    overload(500, 1000.0);
}

#[test]
fn messages_of_many_packets_that_are_late_are_not_sent_again() {
    overload(10_000, 10_000.0);
}
