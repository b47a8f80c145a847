//! The protocol instance of one local address: its state and the way in and out.
//!
//! ```text
//!   app.rs      what the application asks for
//!   input.rs    packets in: which socket, peer and RPC; data.rs, control.rs: what they do
//!   output.rs   packets out: control, retransmissions, then data as SRPT and pacer allow
//!   timer.rs    silence, deadlines, NEED_ACK, housekeeping
//!   life.rs     beginning and end of RPCs, and what is accounted for them
//! ```
//!
//! One mutation, then drain: after any call that changes something, [`Endpoint::poll_event`] and
//! [`Endpoint::poll_packet`] (or [`Endpoint::poll_transmit`], for packets to keep) until they give nothing,
//! then [`Endpoint::poll_timeout`].

use core::time::Duration;
use std::collections::VecDeque;

use peyk_sansio::{Instant, Prng, Wheel};
use peyk_sockbuf::{PAGE, Pool};

use crate::completed::{Completed, CompletedConfig};
use crate::config::{Config, Pacing, TICK};
use crate::error::ConfigError;
use crate::event::{Event, SocketId};
use crate::grant::{GrantConfig, GrantOut, Grants};
use crate::index::Index;
use crate::mutant::is_mutant;
use crate::pacer::{Pacer, PacerConfig, PacerMode};
use crate::peer::Peers;
use crate::priority::{Cutoffs, CutoffsConfig};
use crate::rate::RateLimit;
use crate::resend::Timers;
use crate::rpc::{Ids, Slab};
use crate::socket::Sockets;
use crate::srpt::SendQueue;
use crate::stats::Stats;
use crate::waiters::Waiters;

mod app;
mod control;
mod data;
mod input;
mod life;
mod output;
mod shards;
mod timer;

use output::{AckBatch, Control};
pub use shards::StrayAck;

/// Time in which a grant should come on any network this is meant for.
const EXPECTED_WITHIN: Duration = Duration::from_micros(200);

/// Homa for one local address. See the crate's documentation.
#[derive(Debug)]
pub struct Endpoint {
    config: Config,
    timers: Timers,
    pool: Pool,
    /// Longest message taken: `max_message`, or what the pool can hold at all.
    max_receive: u32,
    /// Bytes of incomplete messages at which a peer gets no memory for more.
    max_peer_incoming: u64,
    sockets: Sockets,
    peers: Peers,
    rpcs: Slab,
    index: Index,
    ids: Ids,
    /// Finished requests that must not be executed again.
    completed: Completed,

    /// Slots to look at, at the earliest of their reasons.
    wheel: Wheel<u32>,
    due: Vec<u32>,
    /// Tick of the last housekeeping.
    housekept: u64,

    grants: Grants,
    granted: Vec<GrantOut>,
    /// What we tell others about unscheduled priorities.
    cutoffs: Cutoffs,
    pacer: Pacer,

    /// Messages with bytes that may be sent.
    queue: SendQueue,
    /// Control packets to send, first come first served.
    control: VecDeque<Control>,
    /// The entries of the ACK packets among them.
    ack_batches: VecDeque<AckBatch>,
    /// Peers with RPCs that wait for RESENDs to be allowed.
    rationed: Vec<u32>,
    /// RPCs with ranges to retransmit, in turn.
    retransmits: VecDeque<(u32, u32)>,
    /// Peers with more acks than should wait.
    ack_flush: Vec<u32>,
    /// Something may have changed since the last drain of packets.
    is_dirty: bool,
    /// When a message last ran out of grants.
    starved_at: Instant,
    /// RPCs whose message waits for pool memory.
    waiters: Waiters,

    events: VecDeque<Event>,
    /// Sockets that were refused a send.
    blocked: Vec<u32>,
    /// Something was freed since the blocked sockets were last looked at.
    is_relieved: bool,
    /// Bytes of outgoing messages of all sockets.
    send_bytes: u64,
    /// Those of them that are replies.
    reply_bytes: u64,

    /// Acks for other shards of this host.
    stray_acks: Vec<StrayAck>,

    /// Answers to packets that concern no RPC: to peers, and to all others.
    stray_out: RateLimit,
    stranger_out: RateLimit,
    unreachable_out: RateLimit,
    unreachable_in: RateLimit,
    stats: Stats,
}

impl Endpoint {
    /// An endpoint without sockets. `seed` decides its ids, ports and hashes; `pool` holds the
    /// messages it receives.
    ///
    /// # Errors
    /// The configuration contradicts itself.
    pub fn new(config: Config, seed: u64, pool: Pool, now: Instant) -> Result<Endpoint, ConfigError> {
        config.validate()?;
        let mut random = Prng::new(seed);
        let cutoffs = Cutoffs::new(CutoffsConfig {
            num_priorities: config.num_priorities,
            cutoffs: config.unsched_cutoffs,
            unsched_bytes: config.unsched_bytes,
            adaptive: config.adaptive_cutoffs,
            ..CutoffsConfig::default()
        });
        let completed = CompletedConfig {
            retention: retention(&config),
            max_chunks: config.max_completed_chunks as usize,
        };
        Ok(Endpoint {
            timers: Timers::new(&config),
            max_receive: max_receive(&config, &pool),
            max_peer_incoming: match config.max_peer_incoming {
                0 => pool.total_pages() as u64 * PAGE as u64 / 4 * 3,
                bytes => bytes,
            },
            pool,
            sockets: Sockets::new(&config, random.next_u64()),
            peers: Peers::new(&config, random.next_u64()),
            rpcs: Slab::default(),
            index: Index::new(random.next_u64()),
            ids: Ids::new(if is_mutant!(config, ReuseIds) { 7 } else { random.next_u64() }, config.shard),
            completed: Completed::new(completed, random.next_u64()),
            wheel: Wheel::new(TICK, now),
            due: Vec::new(),
            housekept: tick_of(now),
            grants: Grants::new(grant_config(&config, &cutoffs)),
            granted: Vec::new(),
            cutoffs,
            pacer: Pacer::new(pacer_config(&config)),
            queue: SendQueue::new(),
            control: VecDeque::new(),
            ack_batches: VecDeque::new(),
            rationed: Vec::new(),
            retransmits: VecDeque::new(),
            ack_flush: Vec::new(),
            is_dirty: false,
            starved_at: Instant::ZERO,
            waiters: Waiters::default(),
            events: VecDeque::new(),
            blocked: Vec::new(),
            is_relieved: false,
            send_bytes: 0,
            reply_bytes: 0,
            stray_acks: Vec::new(),
            stray_out: RateLimit::new(config.stray_answers_per_sec),
            stranger_out: RateLimit::new(config.stranger_answers_per_sec),
            unreachable_out: RateLimit::new(config.unreachable_per_sec),
            unreachable_in: RateLimit::new(config.unreachable_per_sec),
            stats: Stats::default(),
            config,
        })
    }

    /// The next thing the application should know.
    ///
    /// Not inline: there the compiler moves the first byte of an event by itself, and all others in pieces that
    /// begin at odd places. Whoever moves the event on, piece by piece from its beginning, then has to wait for
    /// every one of them.
    #[inline(never)]
    pub fn poll_event(&mut self) -> Option<Event> {
        if self.is_relieved && self.events.is_empty() {
            self.wake_blocked();
        }
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Endpoint::handle_timeout) wants to be called at the latest, or
    /// [`poll_transmit`](Endpoint::poll_transmit) will have something again; `None` for never.
    /// To be asked when both have nothing more to give; never too late, sometimes too early.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let is_ticking = !self.waiters.is_empty() || !self.rationed.is_empty() || self.waits_for_share();
        let ticks = is_ticking.then(|| tick_start(self.housekept + 1));
        let paced = if self.queue.is_empty() { None } else { self.pacer.wakeup() };
        [self.wheel.next_deadline(), self.grants.next_time(), ticks, paced].into_iter().flatten().min()
    }

    /// Counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The port of an open socket.
    pub fn port(&self, socket: SocketId) -> Option<u16> {
        self.sockets.resolve(socket).map(|index| self.sockets[index].port)
    }

    /// RPCs under way, of either role. An answered request counts until it is acknowledged.
    pub fn rpc_count(&self) -> usize {
        self.rpcs.len()
    }

    /// Hosts known.
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// Open sockets.
    pub fn socket_count(&self) -> usize {
        self.sockets.len()
    }

    /// Bytes of outgoing messages held.
    pub fn send_bytes(&self) -> u64 {
        self.send_bytes
    }

    /// Messages that wait for pool memory.
    pub fn waiting_for_memory(&self) -> usize {
        self.waiters.len()
    }

    /// Bytes granted to senders but not received, beyond unscheduled ones.
    pub fn total_incoming(&self) -> u64 {
        self.grants.total_incoming()
    }

    /// The part of [`total_incoming`](Endpoint::total_incoming) that grants to the oldest message
    /// authorised, whatever `max_incoming` says.
    pub fn fifo_incoming(&self) -> u64 {
        self.grants.total_fifo_credit()
    }

    /// Incoming messages that need grants and get none, because as many others as `max_overcommit` are
    /// preferred.
    pub fn queued_grantable(&self) -> usize {
        self.grants.n_managed() - self.grants.n_active()
    }

    /// Whether packets that the endpoint itself has asked for, data or grants, should come within a
    /// round trip: a hint for whoever decides how to wait for them.
    pub fn expects_packets(&self, now: Instant) -> bool {
        self.grants.total_incoming() > 0 || now.saturating_since(self.starved_at) < EXPECTED_WITHIN
    }

    /// Whether there is nothing left to do: no RPC, no packet, no event.
    pub fn is_idle(&self) -> bool {
        self.rpcs.len() == 0 && self.control.is_empty() && self.ack_flush.is_empty() && self.events.is_empty()
    }

    /// The pool that received messages are kept in.
    pub fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// Sets the size of the largest IP packet that reaches a host whole, in bytes, headers
    /// included; messages that are under way keep their segments. False if the size is not in
    /// 256..=65535 or too many hosts have one of their own.
    pub fn set_mtu(&mut self, ip: core::net::IpAddr, mtu: u32) -> bool {
        self.peers.set_mtu(ip, mtu)
    }
}

/// The tick an instant lies in.
#[inline]
fn tick_of(now: Instant) -> u64 {
    now.as_nanos() / TICK.as_nanos() as u64
}

/// The first tick that does not begin before an instant.
fn tick_after(now: Instant) -> u64 {
    now.as_nanos().div_ceil(TICK.as_nanos() as u64)
}

/// When a tick begins.
fn tick_start(tick: u64) -> Instant {
    Instant::from_nanos(tick.saturating_mul(TICK.as_nanos() as u64))
}

/// How long finished requests are remembered: well beyond the life of their clients.
pub(crate) fn retention(config: &Config) -> Duration {
    (TICK * config.timeout_ticks * 4).max(Duration::from_secs(1))
}

fn max_receive(config: &Config, pool: &Pool) -> u32 {
    let pages = pool.total_pages() as usize;
    let fits = |pages: usize| Pool::pages_for(pages * PAGE) as usize <= pool.total_pages() as usize;
    let bytes = if fits(pages) { pages * PAGE } else { pages.saturating_sub(1) * PAGE };
    config.max_message.min(u32::try_from(bytes).unwrap_or(u32::MAX))
}

fn grant_config(config: &Config, cutoffs: &Cutoffs) -> GrantConfig {
    GrantConfig {
        max_incoming: match is_mutant!(config, GrantBeyondBudget) {
            true => u64::from(config.max_incoming) * 16,
            false => u64::from(config.max_incoming),
        },
        window: config.window,
        min_grant: config.min_grant_bytes,
        max_overcommit: config.max_overcommit as usize,
        num_priorities: config.num_priorities,
        max_sched_prio: cutoffs.max_sched_prio(),
        srpt_limit: config.srpt_limit,
        fifo_grant_increment: config.fifo_grant_increment,
        grant_fifo_fraction: config.grant_fifo_fraction,
        fifo_grant_priority: config.fifo_grant_priority,
        link_mbps: config.link_mbps,
        bucket: config.grant_bucket,
        tail_boost_bytes: config.tail_boost_bytes,
        cutoffs: *cutoffs.table(),
    }
}

fn pacer_config(config: &Config) -> PacerConfig {
    let mode = match config.pacing {
        Pacing::Off => PacerMode::Off,
        Pacing::NicEstimate => PacerMode::Backlog { max_backlog: config.max_nic_est_backlog },
        Pacing::TokenBucket { bytes_per_sec, burst_bytes } => {
            PacerMode::TokenBucket { bytes_per_sec, burst_bytes }
        }
    };
    PacerConfig {
        mode,
        link_mbps: config.link_mbps,
        max_link_usage: config.max_link_usage,
        fifo_fraction: config.pacer_fifo_fraction,
        defer_min_bytes: config.defer_min_bytes,
    }
}

#[cfg(test)]
mod tests;
