//! A shard: one thread, one loop, and everything it owns. Nobody else reads or writes what is
//! here; applications on other threads reach it by the submission ring only.
//!
//! ```text
//!           packets ──► driver.poll ──► endpoint.handle_packet
//!   submission ring ──► app / service calls
//!                       endpoint.poll_event ──► services on the shard, completions to threads
//!                       endpoint.poll_packet ────► driver.send ... flush ──► packets
//!             clock ──► endpoint.handle_timeout
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use peyk_homa::{Budget, Event, Pacing, Path, SocketId};
use peyk_sansio::Instant;

use crate::app::{App, Shared, Submission};
use crate::clock::Clock;
use crate::config::Poll;
use crate::core::Core;
use crate::driver::{Received, Watched};
use crate::export::Exports;
use crate::mesh::Crossing;
use crate::service::{Context, Service};
use crate::stats::{AppUsage, StackStats, Usage};
use peyk_kevent::{Spin, Wait};

/// Bytes handed to the driver in one turn before looking for received packets again: one full
/// train, some tens of microseconds of copying.
const TRANSMIT_BURST: usize = 64 << 10;
/// Submissions taken in one turn, so that a busy application cannot keep packets waiting.
const SUBMISSION_BURST: usize = 256;
/// Longest look for packets that are on their way; about what a wake-up costs.
const EXPECTED: Duration = Duration::from_micros(50);
/// Time for the farewells of a stopping stack to leave.
const FAREWELL: Duration = Duration::from_millis(200);

/// To whom a socket belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The service in this place of the shard's list.
    Service(usize),
    /// An application on another thread, through the rings.
    App,
}

/// Which application owns which socket.
pub(crate) struct Owners {
    pub clock: Clock,
    of: HashMap<SocketId, Owner>,
    /// The socket asked for last: bursts of events concern one socket.
    last: Option<(SocketId, Owner)>,
    /// Descriptors that services have watched.
    pub watched: Vec<(Owner, Watched)>,
}

impl Owners {
    pub fn insert(&mut self, socket: SocketId, owner: Owner) {
        self.of.insert(socket, owner);
    }

    pub fn remove(&mut self, socket: SocketId) {
        self.of.remove(&socket);
        self.last = None;
    }

    fn of(&mut self, socket: SocketId) -> Option<Owner> {
        match self.last {
            Some((s, owner)) if s == socket => Some(owner),
            _ => {
                let owner = *self.of.get(&socket)?;
                self.last = Some((socket, owner));
                Some(owner)
            }
        }
    }

    fn sockets_of(&self, owner: Owner) -> Vec<SocketId> {
        self.of.iter().filter(|&(_, &o)| o == owner).map(|(&s, _)| s).collect()
    }
}

/// A place for a service, and which of its occupants it has.
#[derive(Default)]
struct Place {
    generation: u64,
    service: Option<Box<dyn Service>>,
}

pub(crate) struct Shard {
    core: Core,
    owners: Owners,
    services: Vec<Place>,
    app: App,
    shared: Arc<Shared>,
    /// Which of the stack's shards this is, and what they may use together.
    number: u8,
    budget: Arc<Budget>,
    /// Version of the table of priorities last told to the others.
    told_cutoffs: u16,
    spin: Spin,
    /// A packet that is expected may come soon enough to look for it.
    may_look: bool,
    /// The wait under way looks for packets that should come soon.
    is_looking: bool,
    /// Such a look brought nothing, and nothing has come since.
    looked_in_vain: bool,
    stopping: bool,
    turns: u64,
    /// Where its counters go, if anybody wants them.
    exports: Exports,
    /// Submissions taken out of the ring since something was found that had not fit into it.
    taken_since_late: usize,
}

impl Shard {
    pub fn new(
        core: Core,
        clock: Clock,
        shared: Arc<Shared>,
        budget: Arc<Budget>,
        config: &crate::Config,
    ) -> Shard {
        let (told_cutoffs, _) = core.endpoint.own_cutoffs();
        Shard {
            number: core.endpoint.config().shard,
            budget,
            told_cutoffs,
            core,
            owners: Owners { clock, of: HashMap::new(), last: None, watched: Vec::new() },
            services: Vec::new(),
            app: App::new(config.parked_calls),
            shared,
            spin: match config.poll {
                Poll::Sleep => Spin::Sleep,
                Poll::Spin => Spin::Spin,
                Poll::Adaptive { max } => Spin::Adaptive { max },
            },
            may_look: config.poll == Poll::Sleep && is_fast(&config.homa),
            is_looking: false,
            looked_in_vain: false,
            stopping: false,
            turns: 0,
            exports: Exports::default(),
            taken_since_late: 0,
        }
    }

    /// Turns until the stack is told to stop.
    pub fn run(mut self) {
        let mut wait = self.at_once();
        while !self.stopping {
            wait = self.turn(wait);
        }
        self.farewell();
    }

    /// One pass of the loop; returns how long the next one may wait for something to happen.
    fn turn(&mut self, wait: Wait) -> Wait {
        self.turns += 1;
        self.receive(wait);
        let more = self.cross() | self.submissions();
        self.events();
        let service_wants = self.turn_services();
        self.budget.balance(self.number, &mut self.core.endpoint);
        let more = self.core.transmit(TRANSMIT_BURST) || more;
        // What is due comes last: what answers a packet is on its way by then.
        let next = self.core.endpoint.poll_timeout();
        let due = next.is_some_and(|at| at <= self.core.now);
        if due {
            self.core.endpoint.handle_timeout(self.core.now);
            self.exports.touch();
        }
        let export = self.export();
        if more || due {
            return self.at_once();
        }
        match [next, service_wants, export].into_iter().flatten().min() {
            Some(at) if at <= self.core.now => self.at_once(),
            at => self.next_wait(at),
        }
    }

    /// How to wait for what happens next, until `deadline` at the latest.
    ///
    /// In the middle of a long message a shard looks for a moment before it sleeps, even if told to
    /// sleep: it knows that packets are on their way, and sleeping between them would cost both hosts
    /// a wake-up for each train.
    fn next_wait(&mut self, deadline: Option<Instant>) -> Wait {
        let now = self.core.now;
        let clock = self.owners.clock;
        let looks = self.may_look && !self.looked_in_vain && self.core.endpoint.expects_packets(now);
        self.is_looking = looks;
        if looks {
            let until = deadline.unwrap_or(Instant::MAX).min(now + EXPECTED);
            return Wait::until(clock.to_std(until)).spin(Spin::Spin);
        }
        Wait { until: deadline.map(|at| clock.to_std(at)), spin: self.spin, ..Wait::default() }
    }

    /// Takes what is there, without waiting.
    fn at_once(&self) -> Wait {
        Wait::until(self.owners.clock.origin())
    }

    fn receive(&mut self, wait: Wait) {
        let Core { endpoint, driver, now, mesh, .. } = &mut self.core;
        let clock = self.owners.clock;
        let mut woke = false;
        let result = driver.poll(wait, &mut |received| {
            if !woke {
                *now = clock.now();
                woke = true;
            }
            match received {
                Received::Packet { path, data } => {
                    if mesh.as_mut().is_none_or(|mesh| !mesh.hand_over(path, data)) {
                        endpoint.handle_packet(*now, path, data);
                    }
                }
                Received::Unreachable { remote, why, id } => {
                    endpoint.handle_unreachable(*now, remote, why, id);
                }
            }
        });
        if woke {
            self.exports.touch();
        } else {
            *now = clock.now();
        }
        self.looked_in_vain = !woke && (self.looked_in_vain || self.is_looking);
        if let Err(e) = result {
            tracing::error!(error = %e, "receiving packets failed");
        }
    }

    /// Takes what other shards handed over and hands them what is theirs; true if there may be
    /// more.
    fn cross(&mut self) -> bool {
        let Core { endpoint, now, mesh: Some(mesh), .. } = &mut self.core else { return false };
        let before = mesh.stats.taken_over;
        let more = mesh.take(|mesh, crossing| match crossing {
            Crossing::Packet { remote, group, data } => {
                // Not here any more: dropped, as by a socket that was closed.
                let Some(local) = mesh.local(group) else { return };
                if let Some(data) = data.as_slice() {
                    endpoint.handle_packet(*now, &Path { remote, local }, data);
                }
            }
            Crossing::Ack { mut ack, group } => {
                let Some(local) = mesh.local(group) else { return };
                ack.path.local = local;
                endpoint.handle_stray_ack(*now, ack);
            }
            Crossing::Cutoffs { version, table } => endpoint.adopt_cutoffs(version, table),
        });
        if mesh.stats.taken_over != before {
            self.exports.touch();
        }
        endpoint.take_stray_acks(|ack| mesh.hand_ack(ack));
        // The first shard measures for all.
        let (version, table) = endpoint.own_cutoffs();
        if self.number == 0 && version != self.told_cutoffs {
            self.told_cutoffs = version;
            mesh.tell_cutoffs(version, table);
        }
        mesh.wake();
        more
    }

    /// Carries out what applications submitted; true if there may be more.
    fn submissions(&mut self) -> bool {
        let mut taken = 0;
        while taken < SUBMISSION_BURST {
            let Some(submission) = self.shared.next_submission() else { break };
            taken += 1;
            self.submission(submission);
        }
        if taken > 0 {
            self.shared.made_space();
            self.exports.touch();
        }
        if self.shared.has_late() {
            // They come after everything that was in the ring when they found it full.
            self.taken_since_late += taken;
            if taken < SUBMISSION_BURST || self.taken_since_late >= self.shared.capacity() {
                self.taken_since_late = 0;
                self.shared.take_late().into_iter().for_each(|late| self.submission(late));
            }
        }
        taken == SUBMISSION_BURST
    }

    fn submission(&mut self, submission: Submission) {
        match submission {
            Submission::Serve { build, done } => self.serve(build, done),
            Submission::StopService { id, generation } => {
                if self.services.get(id).is_some_and(|place| place.generation == generation) {
                    self.stop_service(id);
                }
            }
            Submission::Stats { done } => {
                let stats = self.stats();
                let _ = done.complete(stats);
            }
            Submission::Export { publisher, done } => {
                self.exports.add(publisher);
                self.export();
                let _ = done.complete(());
            }
            Submission::EndApp { done } => {
                self.app.stop();
                let _ = done.complete(());
            }
            Submission::Stop => self.stopping = true,
            other => self.app.handle(&mut self.core, &mut self.owners, other),
        }
    }

    fn events(&mut self) {
        while let Some(event) = self.core.endpoint.poll_event() {
            if let Event::Request { from, .. } = &event {
                self.core.learn(&from.path.remote);
            }
            match self.owners.of(socket_of(&event)) {
                Some(Owner::App) => self.app.on_event(&mut self.core, event),
                Some(Owner::Service(id)) => self.with_service(id, |service, cx| service.on_event(cx, event)),
                // Closed meanwhile: dropping the event returns its memory.
                None => {}
            }
        }
        self.app.publish();
    }

    fn turn_services(&mut self) -> Option<Instant> {
        let mut earliest: Option<Instant> = None;
        for id in 0..self.services.len() {
            let mut wants = None;
            self.with_service(id, |service, cx| wants = service.on_turn(cx));
            earliest = earliest.into_iter().chain(wants).min();
        }
        earliest
    }

    /// Calls a service, which is out of the list meanwhile so that it can be given the core.
    fn with_service(&mut self, id: usize, call: impl FnOnce(&mut dyn Service, &mut Context<'_>)) {
        let Some(mut service) = self.services.get_mut(id).and_then(|place| place.service.take()) else {
            return;
        };
        let owner = Owner::Service(id);
        let mut cx = Context { core: &mut self.core, owners: &mut self.owners, owner, stop: false };
        call(&mut *service, &mut cx);
        let stop = cx.stop;
        self.services[id].service = Some(service);
        if stop {
            self.stop_service(id);
        }
    }

    fn serve(&mut self, build: crate::app::Build, done: crate::app::ServeDone) {
        let free = self.services.iter().position(|place| place.service.is_none());
        let id = free.unwrap_or(self.services.len());
        let owner = Owner::Service(id);
        let mut cx = Context { core: &mut self.core, owners: &mut self.owners, owner, stop: false };
        match build(&mut cx) {
            Ok(service) => {
                if id == self.services.len() {
                    self.services.push(Place::default());
                }
                let place = &mut self.services[id];
                place.service = Some(service);
                if done.complete(Ok((id, place.generation))).is_err() {
                    self.stop_service(id);
                }
            }
            Err(e) => {
                self.close_sockets_of(owner);
                let _ = done.complete(Err(e));
            }
        }
    }

    fn stop_service(&mut self, id: usize) {
        if let Some(place) = self.services.get_mut(id) {
            place.service = None;
            place.generation += 1;
            self.close_sockets_of(Owner::Service(id));
        }
    }

    fn close_sockets_of(&mut self, owner: Owner) {
        for socket in self.owners.sockets_of(owner) {
            self.core.close(socket);
            self.owners.remove(socket);
        }
        for (_, watched) in self.owners.watched.extract_if(.., |(by, _)| *by == owner) {
            self.core.driver.unwatch(watched);
        }
    }

    /// Publishes the counters if that is due; returns when it is due next.
    fn export(&mut self) -> Option<Instant> {
        if self.exports.due()? <= self.core.now {
            let stats = StackStats { app: self.app.brief(), ..self.counters() };
            self.exports.publish(self.core.now, &stats);
        }
        self.exports.due()
    }

    fn stats(&mut self) -> StackStats {
        StackStats { app: self.app.usage(), ..self.counters() }
    }

    fn counters(&mut self) -> StackStats {
        StackStats {
            turns: self.turns,
            homa: self.core.endpoint.stats().clone(),
            mesh: self.core.mesh.as_ref().map(|mesh| mesh.stats).unwrap_or_default(),
            driver: self.core.driver.stats(),
            usage: Usage::of(&mut self.core.endpoint),
            app: AppUsage::default(),
        }
    }

    /// Tells all peers that we go, and gives that a moment to leave.
    fn farewell(&mut self) {
        self.services.clear();
        let sockets: Vec<SocketId> = self.owners.of.keys().copied().collect();
        for socket in sockets {
            self.core.close(socket);
        }
        self.app.stop();
        let until = self.core.now + FAREWELL;
        while self.core.now < until {
            self.core.now = self.owners.clock.now();
            let more = self.core.transmit(TRANSMIT_BURST);
            if !more && self.core.driver.can_send() {
                break;
            }
            let wait = Wait::until(self.owners.clock.to_std(until));
            if self.core.driver.poll(wait, &mut |_| {}).is_err() {
                break;
            }
        }
        self.shared.stopped();
        self.shared.discard();
    }
}

/// Whether the next packet of a message follows within the time of a look, as far as the link is known. On one that is
/// slower every look would be in vain, and five hosts on two CPUs spent all their time with it.
fn is_fast(homa: &peyk_homa::Config) -> bool {
    let packet = u64::from(homa.mtu) * 8;
    homa.pacing == Pacing::Off || u64::from(homa.link_mbps) * EXPECTED.as_micros() as u64 >= packet
}

fn socket_of(event: &Event) -> SocketId {
    match *event {
        Event::Request { socket, .. }
        | Event::Response { socket, .. }
        | Event::Failed { socket, .. }
        | Event::Cancelled { socket, .. }
        | Event::Writable { socket } => socket,
    }
}
