//! Homa packets in UDP datagrams, through the kernel's sockets.
//!
//! The trip through the kernel costs more than anything else here, so packets travel in trains: a
//! burst is grouped (`plan`), each group leaves by one call and is cut by the kernel
//! (`UDP_SEGMENT`), and arriving trains (`UDP_GRO`) are taken apart here. Sends are plain
//! calls; what the socket does not take at once is handed to the completion queue, and
//! [`Driver::can_send`] says no until that has left. A host that nearly all packets of a socket come
//! from gets a socket of its own (`flow`). What the network reports of lost packets waits a little (`reports`).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use peyk_homa::{Pacing, PacketOut, Path, Unreachable};
use peyk_kevent::{
    Config as QueueConfig, Datagrams, Event, Events, Handle, Operands, Queue, RecvMsg, SendMsg, SocketError,
    Source, Token, Train, Wait, What, Why, udp,
};

use crate::driver::plan::{Item, Limits, Planner, Short};
use crate::driver::{Bound, Caps, Driver, DriverStats, Received, Watched};

mod flow;
mod reports;

use flow::{Advice, Flow, Watch};
use reports::Reports;

/// Carriage sockets at most.
const LOCALS: usize = 1024;
/// Trains that may wait in the completion queue before [`Driver::can_send`] says no.
const BACKLOG: usize = 16;
/// Trains kept for reuse.
const SPARE: usize = 256;
/// Packets in a burst before it is sent without waiting for `flush`.
const BURST: usize = 1024;
/// Routes remembered, and for how long.
const ROUTES: usize = 4096;
const ROUTE_AGE: Duration = Duration::from_secs(10);
/// Assumed of routes that cannot be asked for.
const MTU_GUESS: u32 = 1500;
/// Trains refused before a socket gives up sending trains.
const REFUSALS: u32 = 8;
/// Marks the tokens of a host's own socket.
const OWN: u64 = 1 << 16;
/// The token of what is not a carriage socket.
const OTHER: u64 = 1 << 17;
/// Where the common header holds the id of the RPC.
const KEY_AT: usize = 20;

const TRAINS: Limits = Limits { packets: 64, bytes: 65507, short: SHORT };
const SINGLES: Limits = Limits { packets: 1, bytes: 65507, short: SHORT };
/// Packets too short to fill a train with bytes make trains of half the length, so that a window
/// of 64 small RPCs is two trains and both hosts work at the same time: measured 20 us instead of
/// 30 us a round for 64 RPCs of 100 bytes, where 16 packets give 24 us.
const SHORT: Short = Short { bytes: 512, packets: 32 };

/// Time for which a train may occupy a link whose rate is known. Nothing gets between its packets, in a NIC as in the
/// kernel's queues, so on a slow link a train is one packet: 32 of them would hold a link of 80 Mbit/s for 5 ms.
const TRAIN_TIME: Duration = Duration::from_micros(50);

/// Most bytes in a train of a host with these parameters. Without a pacer the link's rate is not meant.
fn train_bytes(homa: &peyk_homa::Config) -> usize {
    if homa.pacing == Pacing::Off {
        return TRAINS.bytes;
    }
    let bytes = u64::from(homa.link_mbps) * TRAIN_TIME.as_micros() as u64 / 8;
    TRAINS.bytes.min(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Boxed, because they move to the completion queue and back, and are not small.
#[allow(clippy::vec_box)]
type Trains = Vec<Box<Train>>;

/// A driver on UDP sockets.
#[derive(Debug)]
pub struct UdpDriver {
    queue: Queue,
    events: Events,
    locals: Vec<Option<Local>>,
    /// The burst, as the trains of the plan.
    burst: Trains,
    planner: Planner,
    /// Trains of the burst being sent.
    ready: Trains,
    spare: Trains,
    /// Trains in the completion queue.
    backlog: usize,
    routes: HashMap<IpAddr, (u32, Instant)>,
    reports: Reports,
    /// Number of polls.
    polls: u64,
    options: udp::Options,
    /// Most packets and bytes in a train, where sockets can send trains.
    trains: Limits,
    caps: Caps,
    stats: DriverStats,
}

#[derive(Debug)]
struct Local {
    source: Source,
    ipv6: bool,
    gso: bool,
    refusals: u32,
    watch: Watch,
    /// The socket of the host that nearly all packets come from.
    flow: Option<Flow>,
}

impl UdpDriver {
    /// A driver for the calling thread, with the backend the configuration asks for.
    ///
    /// # Errors
    /// No backend can be used.
    pub fn new(config: &crate::Config) -> io::Result<UdpDriver> {
        let queue = QueueConfig { backend: config.backend, ..QueueConfig::default() };
        let mut driver = UdpDriver::with_options(queue, udp::Options::default())?;
        driver.trains.bytes = train_bytes(&config.homa);
        Ok(driver)
    }

    /// A driver with its own choice of queue and socket options.
    ///
    /// # Errors
    /// No backend can be used, or there is no UDP at all.
    pub fn with_options(queue: QueueConfig, options: udp::Options) -> io::Result<UdpDriver> {
        let queue = Queue::new(queue).map_err(io::Error::other)?;
        // What a socket can do here, before the first one is opened in earnest.
        let probe = udp::bind(SocketAddr::from(([0, 0, 0, 0], 0)), &options)
            .or_else(|_| udp::bind(SocketAddr::from(([0u16; 8], 0)), &options))?;
        let caps = Caps { queue: queue.caps().clone(), gso: probe.gso, gro: probe.gro };
        Ok(UdpDriver {
            queue,
            events: Events::with_capacity(64),
            locals: Vec::new(),
            burst: Vec::new(),
            planner: Planner::default(),
            ready: Vec::new(),
            spare: Vec::new(),
            backlog: 0,
            routes: HashMap::new(),
            reports: Reports::default(),
            polls: 0,
            options,
            trains: TRAINS,
            caps,
            stats: DriverStats::default(),
        })
    }

    /// What this machine offers.
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    fn free_place(&self) -> io::Result<usize> {
        match self.locals.iter().position(Option::is_none) {
            Some(place) => Ok(place),
            None if self.locals.len() < LOCALS => Ok(self.locals.len()),
            None => Err(io::Error::other("too many carriage sockets")),
        }
    }

    fn adopt(&mut self, place: usize, bound: Bound, watch: Watch) -> io::Result<()> {
        let (ipv6, gso) = (bound.local.is_ipv6(), bound.gso);
        let source = self.queue.adopt(bound.fd).map_err(io::Error::other)?;
        let stream = RecvMsg { source: source.clone() };
        self.queue.submit(Token(place as u64), stream).map_err(|r| io::Error::other(r.why))?;
        if place == self.locals.len() {
            self.locals.push(None);
        }
        self.locals[place] = Some(Local { source, ipv6, gso, refusals: 0, watch, flow: None });
        Ok(())
    }

    fn local(&self, local: u16) -> Option<&Local> {
        self.locals.get(usize::from(local))?.as_ref()
    }

    fn train(&mut self, local: u16, remote: SocketAddr, priority: u8) -> Box<Train> {
        let mut train = self.spare.pop().unwrap_or_else(Train::new);
        let (mapped, own) =
            self.local(local).map_or((false, None), |l| (l.ipv6, l.flow.as_ref().map(|f| f.remote)));
        let (to, class) = (for_socket(remote, mapped), priority << 5);
        if own == Some(to) {
            train.start_connected(to, class)
        } else {
            train.start(to, class)
        }
        train
    }

    fn recycle(&mut self, mut train: Box<Train>) {
        if self.spare.len() < SPARE {
            // Lets go of the payloads.
            train.start(train.to(), 0);
            self.spare.push(train);
        }
    }

    /// Sends a burst that is one train, as it is where little is under way. False, changing nothing, if there
    /// are more or it did not leave.
    fn send_lone(&mut self) -> bool {
        let [train] = &mut self.burst[..] else { return false };
        let Some(Some(local)) = self.locals.get(usize::from(self.planner.local(0))) else { return false };
        let source = match &local.flow {
            Some(flow) if train.is_connected() && flow.remote == train.to() => &flow.source,
            _ if train.is_connected() => return false,
            _ => &local.source,
        };
        if !matches!(self.queue.send_now(source, &mut self.burst), Ok(1)) {
            return false;
        }
        self.planner.clear();
        if let Some(train) = self.burst.pop() {
            count_sent(&mut self.stats, &train);
            self.recycle(train);
        }
        true
    }

    /// Sends the trains of the burst, socket by socket.
    fn send_burst(&mut self) {
        let mut burst = std::mem::take(&mut self.burst);
        self.planner.join_tails(|from, to| {
            let (head, tail) = burst.split_at_mut(from);
            // With too many slices it stays where it is.
            head[to].append(&mut tail[0]);
        });
        let mut current = None;
        for (at, train) in burst.drain(..).enumerate() {
            if train.packets() == 0 {
                self.recycle(train);
                continue;
            }
            let local = self.planner.local(at);
            if let Some(other) = current.replace(local).filter(|&other| other != local) {
                self.transmit(other);
            }
            self.ready.push(train);
        }
        self.burst = burst;
        self.planner.clear();
        if let Some(local) = current {
            self.transmit(local);
        }
    }

    /// Sends the ready trains on one socket.
    fn transmit(&mut self, local: u16) {
        let mut ready = std::mem::take(&mut self.ready);
        let mut at = 0;
        while at < ready.len() {
            let Some(source) = self.source_for(local, &mut ready[at]) else {
                self.stats.dropped_closed += ready.drain(at..).map(|t| t.packets() as u64).sum::<u64>();
                break;
            };
            let own = ready[at].is_connected();
            let row = ready[at..].iter().take_while(|t| t.is_connected() == own).count();
            match self.queue.send_now(&source, &mut ready[at..at + row]) {
                Ok(0) => break,
                Ok(sent) => {
                    ready[at..at + sent].iter().for_each(|t| count_sent(&mut self.stats, t));
                    at += sent;
                }
                // Once more by the shared socket, where errors are looked at.
                Err(_) if own => self.refuse_flow(local),
                Err(e) => {
                    self.failed(local, &source, e, &ready[at]);
                    at += 1;
                }
            }
        }
        for (i, mut train) in ready.drain(..).enumerate() {
            if i < at {
                self.recycle(train);
            } else if let Some(source) = self.source_for(local, &mut train) {
                self.enqueue(local, &source, train);
            }
        }
        self.ready = ready;
    }

    /// The socket a train leaves by: that of its host, if it was made for that and there is one.
    fn source_for(&self, local: u16, train: &mut Train) -> Option<Source> {
        let local = self.local(local)?;
        if train.is_connected() {
            match &local.flow {
                Some(flow) if flow.remote == train.to() => return Some(flow.source.clone()),
                _ => train.disconnect(),
            }
        }
        Some(local.source.clone())
    }

    /// Follows the advice after a train from `remote`, as the socket wrote it.
    fn follow(&mut self, advice: Advice, local: u16, remote: SocketAddr) {
        match advice {
            Advice::Nothing => {}
            Advice::Open { trains } => {
                if let Err(error) = self.open_flow(local, remote, trains) {
                    tracing::debug!(%error, %remote, "no socket of its own");
                    self.refuse_flow(local);
                }
            }
            // Not while trains wait in it.
            Advice::Close if self.backlog > 0 => {}
            Advice::Close => self.close_flow(local),
            Advice::Share | Advice::Rare => {
                if let Some(l) = self.local(local) {
                    l.source.set_rare(advice == Advice::Rare);
                }
            }
        }
    }

    fn open_flow(&mut self, local: u16, remote: SocketAddr, trains: bool) -> io::Result<()> {
        let Some(Some(l)) = self.locals.get_mut(usize::from(local)) else { return Ok(()) };
        let options = udp::Options { gro: trains && self.options.gro, ..self.options };
        let source = self.queue.connect_beside(&l.source, remote, &options)?;
        let stream = RecvMsg { source: source.clone() };
        self.queue.submit(Token(u64::from(local) | OWN), stream).map_err(|r| io::Error::other(r.why))?;
        l.flow = Some(Flow::new(source, remote, trains));
        self.stats.flows_opened += 1;
        Ok(())
    }

    fn close_flow(&mut self, local: u16) {
        let Some(Some(l)) = self.locals.get_mut(usize::from(local)) else { return };
        l.watch.closed();
        l.source.set_rare(false);
        if let Some(flow) = l.flow.take() {
            self.queue.close(flow.source);
        }
    }

    fn refuse_flow(&mut self, local: u16) {
        if let Some(Some(l)) = self.locals.get_mut(usize::from(local)) {
            l.watch.refuse();
        }
        self.close_flow(local);
    }

    /// Leaves a train to the completion queue.
    fn enqueue(&mut self, local: u16, source: &Source, train: Box<Train>) {
        self.stats.sends_delayed += 1;
        match self.queue.submit(Token(u64::from(local)), SendMsg { source: source.clone(), train }) {
            Ok(_) => self.backlog += 1,
            Err(rejected) => {
                self.stats.dropped_other += rejected.op.train.packets() as u64;
                self.recycle(rejected.op.train);
            }
        }
    }

    /// A train could not be sent: takes it apart if that may help, else drops and counts it.
    fn failed(&mut self, local: u16, source: &Source, error: io::Error, train: &Train) {
        let packets = train.packets() as u64;
        let errno = error.raw_os_error().unwrap_or(0);
        if packets > 1 && matches!(errno, libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP) {
            self.stats.trains_refused += 1;
            if let Some(Some(l)) = self.locals.get_mut(usize::from(local)) {
                l.refusals += 1;
                l.gso = l.gso && l.refusals < REFUSALS;
            }
            let mut singles: Trains = train.split().collect();
            self.send_singles(local, source, &mut singles);
            return;
        }
        match errno {
            libc::EMSGSIZE => {
                self.stats.dropped_too_big += packets;
                self.routes.remove(&canonical(train.to()).ip());
            }
            libc::EPERM | libc::EACCES => self.stats.dropped_prohibited += packets,
            libc::EHOSTUNREACH | libc::EHOSTDOWN | libc::ENETUNREACH | libc::ENETDOWN => {
                self.stats.dropped_unreachable += packets;
                self.report(canonical(train.to()), Unreachable::Host, None);
            }
            _ => self.stats.dropped_other += packets,
        }
    }

    fn send_singles(&mut self, local: u16, source: &Source, singles: &mut Trains) {
        let mut at = 0;
        while at < singles.len() {
            match self.queue.send_now(source, &mut singles[at..]) {
                Ok(0) => break,
                Ok(sent) => {
                    singles[at..at + sent].iter().for_each(|t| count_sent(&mut self.stats, t));
                    at += sent;
                }
                Err(e) => {
                    self.failed(local, source, e, &singles[at]);
                    at += 1;
                }
            }
        }
        singles.drain(at..).for_each(|t| self.enqueue(local, source, t));
    }

    fn report(&mut self, remote: SocketAddr, why: Unreachable, id: Option<u64>) {
        self.stats.unreachable_reports += 1;
        self.reports.add(remote, why, id);
    }

    fn on_error(&mut self, error: SocketError) {
        let Some(remote) = error.remote.map(canonical) else { return };
        let quote = &error.quote[..error.quoted];
        let id = quote.get(KEY_AT..KEY_AT + 8).and_then(|id| Some(u64::from_be_bytes(id.try_into().ok()?)));
        match error.why {
            Why::Port => self.report(remote, Unreachable::Port { homa_port: None }, id),
            Why::Protocol => self.report(remote, Unreachable::Protocol, id),
            Why::Host | Why::Network | Why::Prohibited => self.report(remote, Unreachable::Host, id),
            Why::TooBig { mtu } => {
                self.stats.mtu_reports += 1;
                if let Some(route) = self.routes.get_mut(&remote.ip()).filter(|_| mtu > 0) {
                    route.0 = mtu;
                }
            }
            _ => {}
        }
    }

    /// Deals with everything but packets.
    fn on_others(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        let others = events.iter_mut().filter(|event| !matches!(event.what, What::Dgrams(_)));
        others.for_each(|event| self.on_event(event.token, std::mem::replace(&mut event.what, What::Woken)));
        self.events = events;
    }

    fn on_event(&mut self, token: Token, what: What) {
        let local = token.0 as u16;
        match what {
            What::Error(error) => self.on_error(error),
            What::TrainSent(train) => {
                self.backlog -= 1;
                count_sent(&mut self.stats, &train);
                self.recycle(train);
            }
            What::Failed { error, operands: Operands::Train(train), .. } => {
                self.backlog -= 1;
                match self.local(local).map(|l| l.source.clone()) {
                    Some(source) => self.failed(local, &source, error, &train),
                    None => self.stats.dropped_closed += train.packets() as u64,
                }
                self.recycle(train);
            }
            What::Cancelled { operands: Operands::Train(train), .. } => {
                self.backlog -= 1;
                self.stats.dropped_closed += train.packets() as u64;
                self.recycle(train);
            }
            What::Failed { error, .. } if token.0 == OTHER => {
                tracing::error!(%error, "a descriptor is not watched any more");
            }
            What::Failed { .. } if token.0 & OWN != 0 => self.refuse_flow(local),
            What::Failed { error, .. } => {
                tracing::error!(%error, local, "a carriage socket stopped receiving")
            }
            _ => {}
        }
    }

    /// What the packets of the last poll mean for the sockets; their memory goes back. Not done by that poll,
    /// so that the answers to them left first.
    fn settle(&mut self) {
        while let Some(Event { token, what, .. }) = self.events.pop() {
            if let What::Dgrams(dgrams) = &what {
                self.watch(token.0 as u16, dgrams.from, token.0 & OWN != 0, dgrams.iter().count());
            }
        }
    }

    /// A train came, by the host's own socket or by the shared one.
    fn watch(&mut self, local: u16, from: SocketAddr, own: bool, packets: usize) {
        let Some(Some(l)) = self.locals.get_mut(usize::from(local)) else { return };
        let advice = match (own, l.flow.is_some()) {
            (false, has_flow) => l.watch.on_shared(from, packets, has_flow),
            (true, true) => l.watch.on_own(),
            // A late one of a socket that has been closed.
            (true, false) => Advice::Nothing,
        };
        if own
            && let Some(flow) = &mut l.flow
            && flow.note(self.polls)
            && let Err(error) = self.queue.receive_trains(&flow.source)
        {
            tracing::debug!(%error, "trains arrive as single packets");
        }
        self.follow(advice, local, from);
    }
}

impl Driver for UdpDriver {
    fn open_local(&mut self, bind: SocketAddr) -> io::Result<(u16, SocketAddr)> {
        let place = self.free_place()?;
        let bound = udp::bind(bind, &self.options)?;
        let addr = bound.local;
        self.adopt(place, bound, Watch::default())?;
        Ok((place as u16, addr))
    }

    fn adopt_local(&mut self, bound: Bound) -> io::Result<u16> {
        let place = self.free_place()?;
        // A socket connected to one host would take its packets from all of the group.
        let mut watch = Watch::default();
        watch.refuse();
        self.adopt(place, bound, watch)?;
        Ok(place as u16)
    }

    fn close_local(&mut self, local: u16) {
        self.close_flow(local);
        if let Some(local) = self.locals.get_mut(usize::from(local)).and_then(Option::take) {
            self.queue.close(local.source);
        }
    }

    fn mtu(&mut self, remote: SocketAddr) -> u32 {
        let now = Instant::now();
        let ip = canonical(remote).ip();
        if let Some((mtu, asked)) = self.routes.get(&ip)
            && now.saturating_duration_since(*asked) < ROUTE_AGE
        {
            return *mtu;
        }
        if self.routes.len() >= ROUTES {
            self.routes.clear();
        }
        let mtu = udp::route_mtu(remote).ok().filter(|mtu| *mtu > 0).unwrap_or(MTU_GUESS);
        self.routes.insert(ip, (mtu, now));
        mtu
    }

    fn can_send(&self) -> bool {
        self.backlog < BACKLOG
    }

    fn send(&mut self, packet: &PacketOut<'_>) {
        if self.planner.packets() >= BURST {
            self.flush();
        }
        let local = packet.path.local;
        let limits = if self.local(local).is_none_or(|l| l.gso) { self.trains } else { SINGLES };
        let item = item_of(packet);
        let at = self.planner.place(&item, limits);
        if at == self.burst.len() {
            let train = self.train(local, *item.remote, item.priority);
            self.burst.push(train);
        }
        if !add(&mut self.burst[at], packet) {
            // More slices than a train may have: continue with another, which takes any packet while empty.
            self.planner.place_anew(&item, limits);
            let mut train = self.train(local, *item.remote, item.priority);
            self.stats.dropped_other += u64::from(!add(&mut train, packet));
            self.burst.push(train);
        }
        if self.planner.is_one_full() {
            // The other host may begin while we make the next one.
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.burst.is_empty() && !self.send_lone() {
            self.send_burst();
        }
    }

    fn poll(&mut self, wait: Wait, sink: &mut dyn FnMut(Received<'_>)) -> io::Result<usize> {
        self.settle();
        let found = self.reports.len();
        let wait = if found > 0 { Wait::now() } else { wait };
        self.polls += 1;
        let result = self.queue.wait(&mut self.events, wait);
        let (mut count, mut has_others) = (0, false);
        for event in self.events.iter() {
            match &event.what {
                What::Dgrams(dgrams) => count += hand_up(event.token, dgrams, &mut self.stats, sink),
                _ => has_others = true,
            }
        }
        if has_others {
            self.on_others();
        }
        if found > 0 {
            count += self.reports.hand_up(found, count, sink);
        }
        result?;
        Ok(count)
    }

    fn waker(&self) -> Handle {
        self.queue.handle()
    }

    fn watch(&mut self, fd: OwnedFd) -> io::Result<Watched> {
        Watched::by(&mut self.queue, Token(OTHER), fd)
    }

    fn unwatch(&mut self, watched: Watched) {
        self.queue.close(watched.0);
    }

    fn stats(&self) -> DriverStats {
        DriverStats { queue: self.queue.stats().clone(), ..self.stats.clone() }
    }
}

/// Hands up packets from where they lie; returns how many.
fn hand_up(
    token: Token,
    dgrams: &Datagrams,
    stats: &mut DriverStats,
    sink: &mut dyn FnMut(Received<'_>),
) -> usize {
    let path = Path { remote: canonical(dgrams.from), local: token.0 as u16 };
    let mut count = 1;
    if dgrams.segment().is_none() {
        sink(Received::Packet { path: &path, data: dgrams.bytes() });
    } else {
        count = dgrams.iter().map(|data| sink(Received::Packet { path: &path, data })).count();
    }
    stats.truncated += u64::from(dgrams.is_truncated());
    stats.trains_received += 1;
    stats.packets_received += count as u64;
    stats.bytes_received += dgrams.bytes().len() as u64;
    count
}

fn item_of<'a>(packet: &'a PacketOut<'_>) -> Item<'a> {
    Item {
        local: packet.path.local,
        remote: &packet.path.remote,
        priority: packet.priority,
        control: packet.payload_len() == 0,
        len: packet.len(),
        key: packet.id(),
    }
}

/// Puts a packet together at the end of a train. False, changing nothing, if it does not fit.
fn add(train: &mut Train, packet: &PacketOut<'_>) -> bool {
    train.push_slice(packet.header_len(), |out| packet.write_header(out), packet.message(), packet.range())
}

fn count_sent(stats: &mut DriverStats, train: &Train) {
    stats.trains_sent += 1;
    stats.packets_sent += train.packets() as u64;
    stats.bytes_sent += train.bytes() as u64;
}

/// IPv4 addresses as themselves, however the socket wrote them.
fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            None => addr,
        },
        SocketAddr::V4(_) => addr,
    }
}

/// The address as a socket of that family wants it.
fn for_socket(addr: SocketAddr, ipv6: bool) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) if ipv6 => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
