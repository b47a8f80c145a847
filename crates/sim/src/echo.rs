//! The application of a checked run: on every host a client that makes the calls of the scenario and a server
//! that answers them after a while. It starts and ends the faults that concern hosts, and keeps the books
//! of the checkers.

mod faults;
mod pattern;

pub use pattern::Pattern;

use std::cell::RefCell;
use std::rc::Rc;

use foldhash::fast::FixedState;
use hashbrown::HashSet;
use peyk_homa::{Event, ReplyError, RequestOptions, RpcError, SendError, ServerRpc, SocketId, TICK};
use peyk_sansio::Prng;
use peyk_sockbuf::{Message, MessageBuf, Payload, Pool};
use slab::Slab;

use crate::checker::calls::{Call, Calls, Outcome};
use crate::fault::network::Eye;
use crate::host::homa::{Carriage, HomaHost, host_at, server_of};
use crate::scenario::{CallPlan, Scenario};
use crate::time::Picos;
use crate::topology::HostId;
use crate::world::{Application, World};

/// How often calls are looked at that go on.
const LOOK_EVERY: Picos = Picos::from_millis(2);
/// When a refused reply is tried again, unless the host says so earlier.
const RETRY: Picos = Picos::from_millis(1);
/// After a host was not itself, its timers catch up.
const RECOVERY: Picos = Picos::from_millis(10);

/// What happened, to see that the seeds reach everything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Calls made.
    pub calls: u64,
    /// Calls that got their response.
    pub responses: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Those of them that timed out.
    pub timeouts: u64,
    /// Calls aborted.
    pub aborts: u64,
    /// Sends refused.
    pub refusals: u64,
    /// Requests executed.
    pub executions: u64,
    /// Requests cancelled while the application had them.
    pub cancellations: u64,
    /// Hosts that crashed.
    pub crashes: u64,
    /// Packets forged.
    pub forged: u64,
    /// DATA packets retransmitted.
    pub retransmitted: u64,
    /// Messages that waited for memory.
    pub memory_waits: u64,
    /// Late requests that were known to be over.
    pub known_over: u64,
}

impl Tally {
    /// Adds another.
    pub fn add(&mut self, other: &Tally) {
        let pairs = [
            (&mut self.calls, other.calls),
            (&mut self.responses, other.responses),
            (&mut self.failures, other.failures),
            (&mut self.timeouts, other.timeouts),
            (&mut self.aborts, other.aborts),
            (&mut self.refusals, other.refusals),
            (&mut self.executions, other.executions),
            (&mut self.cancellations, other.cancellations),
            (&mut self.crashes, other.crashes),
            (&mut self.forged, other.forged),
            (&mut self.retransmitted, other.retransmitted),
            (&mut self.memory_waits, other.memory_waits),
            (&mut self.known_over, other.known_over),
        ];
        for (sum, count) in pairs {
            *sum += count;
        }
    }
}

/// What is to happen.
#[derive(Debug)]
enum Item {
    Call(CallPlan, bool),
    Answer { host: HostId, incarnation: u32, rpc: ServerRpc, call: Option<usize>, message: Message },
    Abort { call: usize },
    Begin { fault: usize },
    End { fault: usize },
    Forge { fault: usize },
    Look,
}

/// What is known of a host beside its endpoint.
#[derive(Debug, Default)]
struct Book {
    incarnation: u32,
    stalled_until: Picos,
    /// The last moment at which it was not itself.
    disturbed: Picos,
    hogged: Vec<MessageBuf>,
    /// Requests handed over and not answered.
    serving: HashSet<ServerRpc, FixedState>,
}

/// See the module documentation.
pub struct Echo {
    scenario: Scenario,
    eye: Rc<RefCell<Eye>>,
    items: Slab<Item>,
    books: Vec<Book>,
    random: Prng,
    pattern: Pattern,
    liars: Vec<bool>,
    /// The end of the run; nothing is looked at after it.
    end: Picos,
    /// Longest time until a server has heard that a call was aborted, if that is sure to reach it.
    word: Option<Picos>,
    /// Longest silence that a call may bear.
    patience: Picos,
    /// The checkers of calls.
    pub calls: Calls,
    /// What happened.
    pub tally: Tally,
}

/// A new host of a scenario.
pub fn new_host(scenario: &Scenario, id: HostId, seed: u64, now: peyk_sansio::Instant) -> HomaHost {
    let pool = Pool::new(scenario.pages);
    HomaHost::new(id, scenario.config.clone(), Carriage::default(), seed, pool, now)
}

impl Echo {
    /// The application of a scenario; everything it will do of itself is put into the schedule.
    pub fn new(scenario: &Scenario, world: &mut World<HomaHost>, eye: Rc<RefCell<Eye>>, end: Picos) -> Echo {
        let hosts = scenario.hosts();
        let ticks = 2 * TICK.as_nanos() as u64 * u64::from(scenario.config.timeout_ticks);
        let mut echo = Echo {
            eye,
            items: Slab::new(),
            books: (0..hosts).map(|_| Book::default()).collect(),
            random: Prng::new(scenario.seed ^ 0x6563_686f),
            pattern: Pattern::new(scenario.seed),
            liars: (0..hosts).map(|host| scenario.is_liar(host)).collect(),
            end,
            word: scenario
                .is_lossless()
                .then(|| scenario.drain() + scenario.noise.lag + Picos::from_millis(20)),
            patience: Picos::from_nanos(ticks + ticks / 10) + Picos::from_millis(40),
            calls: Calls::new(scenario.is_garbled()),
            tally: Tally::default(),
            scenario: scenario.clone(),
        };
        for plan in &scenario.calls {
            echo.put(world, plan.at, Item::Call(*plan, false));
        }
        for (fault, plan) in scenario.faults.iter().enumerate() {
            echo.put(world, plan.at, Item::Begin { fault });
        }
        echo.put(world, LOOK_EVERY, Item::Look);
        echo
    }

    /// Makes the calls that must succeed, for everything has healed: a short and a long one between each
    /// host and the next.
    pub fn probe(&mut self, world: &mut World<HomaHost>) {
        let hosts = self.scenario.hosts();
        let longest = 100_000.min(self.scenario.pages * 16_384).min(self.scenario.config.max_message);
        for client in 0..hosts {
            for bytes in [7, longest] {
                let plan = CallPlan {
                    at: world.now(),
                    client,
                    server: (client + 1) % hosts,
                    request: bytes,
                    response: bytes,
                    service: Picos::ZERO,
                    rejection: None,
                    abort: None,
                    deadline: None,
                    from_server_socket: false,
                };
                self.put(world, world.now() + Picos(1), Item::Call(plan, true));
            }
        }
    }

    /// The most bytes of any message.
    pub fn longest(scenario: &Scenario) -> u32 {
        scenario.calls.iter().map(|c| c.request.max(c.response)).max().unwrap_or(0).max(100_000)
    }

    fn put(&mut self, world: &mut World<HomaHost>, at: Picos, item: Item) {
        let key = self.items.insert(item);
        world.wake_at(at, key as u64);
    }

    fn note(&self, world: &World<HomaHost>, what: core::fmt::Arguments<'_>) {
        self.eye.borrow_mut().trace.note(world.now(), what);
    }

    /// Whether a host can act; if it is only stalled, when.
    fn readiness(&self, world: &World<HomaHost>, host: HostId) -> Result<(), Option<Picos>> {
        let until = self.books[usize::from(host)].stalled_until;
        match world.is_up(host) {
            false => Err(None),
            true if until > world.now() => Err(Some(until)),
            true => Ok(()),
        }
    }

    fn call(&mut self, world: &mut World<HomaHost>, plan: CallPlan, is_probe: bool) {
        let client = plan.client;
        match self.readiness(world, client) {
            Ok(()) => {}
            Err(None) => return,
            Err(Some(until)) => return self.put(world, until + Picos(1), Item::Call(plan, is_probe)),
        }
        let number = self.calls.calls.len();
        let nanos = |span: Picos| span.0 / 1_000;
        let local = world.local_time(client);
        let deadline = plan.deadline.map(|span| local.plus_nanos(nanos(span)));
        let options = RequestOptions { cookie: number as u64, deadline };
        let message = Payload::from(self.pattern.bytes(number as u64, plan.request));
        let (result, socket) = world.call(client, |host, now| {
            let socket = if plan.from_server_socket { host.server } else { host.client };
            let to = server_of(plan.server);
            (host.endpoint.send_request(now, socket, to, message, options).map(|rpc| rpc.0), socket)
        });
        match result {
            Ok(rpc) => self.called(world, number, plan, rpc, deadline, is_probe),
            Err(SendError::Full) if !is_probe => {
                self.tally.refusals += 1;
                self.calls.on_refusal(client, socket);
            }
            Err(error) => {
                let (server, error_text) = (plan.server, error);
                self.note(world, format_args!("h{client} cannot call h{server}: {error_text}"));
                let violation = crate::checker::Violation::ProbeFailed { client, server, error: None };
                self.calls.violations.push(violation);
            }
        }
    }

    fn called(
        &mut self,
        world: &mut World<HomaHost>,
        number: usize,
        plan: CallPlan,
        rpc: u64,
        deadline: Option<peyk_sansio::Instant>,
        is_probe: bool,
    ) {
        let (client, server, bytes) = (plan.client, plan.server, plan.request);
        self.note(world, format_args!("h{client} calls h{server}: call {number}, id {rpc}, {bytes} bytes"));
        self.eye.borrow_mut().wire.on_message(world.now(), client, rpc, bytes, true);
        self.tally.calls += 1;
        let is_patient = plan.deadline.is_none() && plan.abort.is_none() && plan.rejection.is_none();
        self.calls.on_call(Call {
            plan,
            rpc,
            made: world.now(),
            deadline,
            outcome: Outcome::Pending,
            executed: None,
            aborted: None,
            must_succeed: is_patient && self.scenario.is_survivable(),
            is_probe,
            is_with_liar: self.liars[usize::from(client)] || self.liars[usize::from(server)],
        });
        if let Some(span) = plan.abort {
            self.put(world, world.now() + span, Item::Abort { call: number });
        }
    }

    fn on_request(
        &mut self,
        world: &mut World<HomaHost>,
        host: HostId,
        rpc: ServerRpc,
        from: Option<HostId>,
        message: Message,
    ) {
        let book = &mut self.books[usize::from(host)];
        book.serving.insert(rpc);
        let incarnation = book.incarnation;
        self.tally.executions += 1;
        let call = from.and_then(|client| {
            let is_strange = self.liars[usize::from(client)];
            let server = (host, incarnation);
            self.calls.on_request(server, client, rpc.id(), &message, &self.pattern, is_strange)
        });
        if let Some(call) = call {
            self.calls.calls[call].executed = Some(world.now());
        }
        self.note(world, format_args!("h{host} executes call {call:?}, id {}", rpc.id()));
        let service = call.map_or(Picos::ZERO, |call| self.calls.calls[call].plan.service);
        self.put(world, world.now() + service, Item::Answer { host, incarnation, rpc, call, message });
    }

    fn answer(
        &mut self,
        world: &mut World<HomaHost>,
        host: HostId,
        rpc: ServerRpc,
        call: Option<usize>,
        message: Message,
    ) {
        let incarnation = self.books[usize::from(host)].incarnation;
        let plan = call.map(|call| self.calls.calls[call].plan);
        // Where hosts look later, that the client gave up may be waiting to be looked at.
        let may_be_over = self.scenario.look_after > Picos::ZERO;
        if let Some(reason) = plan.and_then(|plan| plan.rejection) {
            if !may_be_over {
                self.books[usize::from(host)].serving.remove(&rpc);
            }
            return world.call(host, |host, now| host.endpoint.reject(now, rpc, reason));
        }
        let reply = match (call, plan) {
            (Some(call), Some(plan)) => Payload::from(self.pattern.bytes(!(call as u64), plan.response)),
            // Nobody made this request: it gets its own bytes back.
            _ => Payload::from(message.clone()),
        };
        let bytes = reply.len() as u32;
        match world.call(host, |host, now| host.endpoint.reply(now, rpc, reply)) {
            Ok(()) => {
                self.books[usize::from(host)].serving.remove(&rpc);
                self.eye.borrow_mut().wire.on_message(world.now(), host, rpc.id(), bytes, false);
                if let Some(call) = call {
                    let patience = self.word;
                    self.calls.on_reply(world.now(), call, patience);
                }
            }
            Err(ReplyError::Full) => {
                self.tally.refusals += 1;
                let at = world.now() + RETRY;
                self.put(world, at, Item::Answer { host, incarnation, rpc, call, message });
            }
            Err(_) if may_be_over => {}
            Err(_) => {
                self.books[usize::from(host)].serving.remove(&rpc);
            }
        }
    }

    fn abort(&mut self, world: &mut World<HomaHost>, number: usize) {
        let call = &self.calls.calls[number];
        let (client, rpc) = (call.plan.client, call.rpc);
        if call.outcome == Outcome::Void || self.readiness(world, client).is_err() {
            return;
        }
        let was_pending = world.call(client, |host, now| {
            let sockets: [SocketId; 2] = [host.client, host.server];
            sockets.iter().any(|&socket| host.endpoint.abort(now, socket, peyk_homa::RpcId(rpc)))
        });
        if was_pending {
            self.note(world, format_args!("h{client} aborts call {number}"));
            self.tally.aborts += 1;
            self.calls.on_abort(world.now(), number);
            self.eye.borrow_mut().wire.on_call_end(client, rpc);
        }
    }

    /// Looks for calls that go on for too long.
    fn look(&mut self, world: &mut World<HomaHost>) {
        let now = world.now();
        for host in 0..self.scenario.hosts() {
            let book = &mut self.books[usize::from(host)];
            // A response that waits for memory here, or for grants, waits for nobody else.
            let endpoint = &world.host(host).endpoint;
            let is_withholding = endpoint.waiting_for_memory() > 0 || endpoint.total_incoming() > 0;
            if is_withholding || !world.is_up(host) {
                book.disturbed = book.disturbed.max(now);
            }
        }
        let (books, eye, patience) = (&self.books, self.eye.borrow(), self.patience);
        self.calls.check_times(|call| {
            let (client, server) = (call.plan.client, call.plan.server);
            let disturbed = books[usize::from(client)].disturbed;
            if disturbed + RECOVERY > now {
                return None;
            }
            let since = eye.wire.quiet_since(client, server).max(call.made).max(disturbed);
            let silent = now.since(since);
            Some((world.local_time(client), (silent > patience).then_some(silent)))
        });
        drop(eye);
        if now + LOOK_EVERY < self.end {
            self.put(world, now + LOOK_EVERY, Item::Look);
        }
    }

    fn on_result(
        &mut self,
        world: &World<HomaHost>,
        host: HostId,
        rpc: u64,
        result: Result<&Message, RpcError>,
    ) {
        let now = world.local_time(host);
        let call = self.calls.on_outcome(now, host, rpc, result, &self.pattern);
        self.eye.borrow_mut().wire.on_call_end(host, rpc);
        match result {
            Ok(_) => {
                self.tally.responses += 1;
                if let Some(call) = call {
                    let server = self.calls.calls[call].plan.server;
                    self.eye.borrow_mut().wire.on_response(host, server, rpc);
                }
            }
            Err(error) => {
                self.tally.failures += 1;
                self.tally.timeouts += u64::from(error == RpcError::Timeout);
            }
        }
        let text = result.map_or_else(|error| error.to_string(), |m| format!("{} bytes", m.len()));
        self.note(world, format_args!("h{host}: call {call:?}, id {rpc} ends: {text}"));
    }

    /// Adds the counters of a host that is about to go.
    pub fn count(&mut self, host: &HomaHost) {
        let stats = host.endpoint.stats();
        self.tally.retransmitted += stats.data_retransmitted;
        self.tally.memory_waits += stats.memory_waits;
        self.tally.known_over += stats.drop_completed;
    }
}

impl Application<HomaHost> for Echo {
    fn on_wake(&mut self, world: &mut World<HomaHost>, what: u64) {
        match self.items.remove(what as usize) {
            Item::Call(plan, is_probe) => self.call(world, plan, is_probe),
            Item::Answer { host, incarnation, rpc, call, message } => {
                if self.books[usize::from(host)].incarnation != incarnation {
                    return;
                }
                match self.readiness(world, host) {
                    Ok(()) => self.answer(world, host, rpc, call, message),
                    Err(None) => {}
                    Err(Some(until)) => {
                        let again = Item::Answer { host, incarnation, rpc, call, message };
                        self.put(world, until + Picos(1), again);
                    }
                }
            }
            Item::Abort { call } => self.abort(world, call),
            Item::Begin { fault } => self.begin(world, fault),
            Item::End { fault } => self.finish(world, fault),
            Item::Forge { fault } => self.forge(world, fault),
            Item::Look => self.look(world),
        }
    }

    fn on_outcome(&mut self, world: &mut World<HomaHost>, host: HostId, event: Event) {
        match event {
            Event::Request { rpc, from, message, .. } => {
                self.on_request(world, host, rpc, host_at(from.path.remote), message);
            }
            Event::Response { rpc, message, .. } => self.on_result(world, host, rpc.0, Ok(&message)),
            Event::Failed { rpc, error, .. } => self.on_result(world, host, rpc.0, Err(error)),
            Event::Cancelled { rpc, .. } => {
                self.tally.cancellations += 1;
                if !self.books[usize::from(host)].serving.remove(&rpc) {
                    let violation = crate::checker::Violation::StrangeCancel { server: host, rpc: rpc.id() };
                    self.calls.violations.push(violation);
                }
            }
            Event::Writable { socket } => self.calls.on_writable(host, socket),
        }
    }
}
