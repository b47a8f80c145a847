//! Hosts: within their limits at all times, empty in the end.

use peyk_homa::Config;

use super::{Leftover, Limit, Violation};
use crate::host::homa::HomaHost;
use crate::topology::HostId;

/// Limits of every host of a scenario.
#[derive(Clone, Debug)]
pub struct Limits {
    max_incoming: u64,
    /// Most bytes of a message that come ungranted.
    unscheduled: u64,
    max_rpcs: u64,
    send_bytes: u64,
}

impl Limits {
    /// Of hosts with these settings, whose messages have up to `longest` bytes. If packets may announce more as
    /// unscheduled than hosts are set to, `is_announced_freely`, what a host may believe counts.
    pub fn new(config: &Config, longest: u32, is_announced_freely: bool) -> Limits {
        // Two sockets, each with requests and replies apart; the message that crosses the limit is taken.
        let socket = config.wmem_max.saturating_add(u64::from(longest));
        Limits {
            max_incoming: u64::from(config.max_incoming),
            unscheduled: match is_announced_freely {
                true => u64::from(config.max_unscheduled),
                false => u64::from(config.unsched_bytes),
            },
            max_rpcs: u64::from(config.max_rpcs),
            send_bytes: socket.saturating_mul(4),
        }
    }

    /// Whether a host keeps them now.
    pub fn check(&self, id: HostId, host: &HomaHost) -> Option<Violation> {
        let endpoint = &host.endpoint;
        let rpcs = endpoint.rpc_count() as u64;
        let unscheduled = rpcs * self.unscheduled;
        let over = |limit, used, allowed| {
            (used > allowed).then_some(Violation::OverLimit { host: id, limit, used, allowed })
        };
        // What a sender that fell silent was granted is given to others, and counts again when it is back.
        let has_had_silence = endpoint.stats().timer_resends + endpoint.stats().resends_rationed > 0;
        let incoming = if has_had_silence {
            None
        } else {
            let allowed = self.max_incoming + endpoint.fifo_incoming() + unscheduled;
            over(Limit::Incoming, endpoint.total_incoming(), allowed)
        };
        incoming
            .or_else(|| over(Limit::Rpcs, rpcs, self.max_rpcs))
            .or_else(|| over(Limit::SendBytes, endpoint.send_bytes(), self.send_bytes))
    }
}

/// What a host has left, when it should have nothing.
pub fn leftovers(id: HostId, host: &mut HomaHost, found: &mut Vec<Violation>) {
    let endpoint = &mut host.endpoint;
    let (free, total) = (endpoint.pool().free_pages(), endpoint.pool().total_pages());
    let counts = [
        (Leftover::Rpcs, endpoint.rpc_count() as u64),
        (Leftover::SendBytes, endpoint.send_bytes()),
        (Leftover::Incoming, endpoint.total_incoming()),
        (Leftover::MemoryWaiters, endpoint.waiting_for_memory() as u64),
        (Leftover::Pages, u64::from(total.saturating_sub(free + 1))),
        (Leftover::Work, u64::from(!endpoint.is_idle())),
        (Leftover::Timer, u64::from(endpoint.poll_timeout().is_some())),
    ];
    for (what, count) in counts {
        if count > 0 {
            found.push(Violation::Left { host: id, what, count });
        }
    }
}
