//! What must hold in every run.
//!
//! - A call has exactly one outcome, or none after it was aborted.
//! - An incarnation of a server executes a call at most once.
//! - Requests and responses arrive as they were sent (unless packets are garbled:
//!   Homa has no checksum of its own).
//! - Where nothing is lost and nobody is down, no call times out.
//! - A deadline is kept, to the precision of a tick.
//! - A socket that was refused a send hears of it when it may try again.
//! - In the end nothing is left: no RPC, no byte, no page, no timer.

use std::collections::{BTreeMap, BTreeSet};

use peyk_homa::{Event, RpcError, RpcId};
use peyk_sansio::Instant;

use crate::common::{keyed, ms};

/// What became of a call.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Pending,
    Response,
    Failed(RpcError),
    /// Aborted, or its client restarted: nothing may follow.
    Void,
}

/// A request some application made.
#[derive(Clone, Debug)]
pub struct Call {
    pub client: usize,
    pub incarnation: u32,
    pub rpc: RpcId,
    pub length: u32,
    pub response: u32,
    pub deadline: Option<Instant>,
    pub outcome: Outcome,
}

/// The books of one run.
#[derive(Default)]
pub struct Checker {
    pub calls: Vec<Call>,
    /// Packets may be garbled, so contents and identities prove nothing.
    pub is_garbled: bool,
    /// Nothing is lost, nobody is down, memory is plenty.
    pub is_calm: bool,
    by_id: BTreeMap<(usize, u64), usize>,
    /// (server host, its incarnation, client host, id) of every execution.
    executed: BTreeSet<(usize, u32, usize, u64)>,
    /// Sockets that were refused a send and have not heard since.
    pub blocked: BTreeSet<(usize, u32, peyk_homa::SocketId)>,
}

impl Checker {
    pub fn on_call(&mut self, call: Call) {
        let twin = self.by_id.insert((call.client, call.rpc.0), self.calls.len());
        assert!(twin.is_none(), "an id was used twice");
        self.calls.push(call);
    }

    /// A server got a request; returns the number of the call, if it is known.
    pub fn on_request(
        &mut self,
        server: usize,
        incarnation: u32,
        client: Option<usize>,
        id: u64,
        message: &[u8],
    ) -> Option<usize> {
        let client = client?;
        let is_new = self.executed.insert((server, incarnation, client, id));
        assert!(is_new, "host {server} executes request {id} of host {client} again");
        let call = self.by_id.get(&(client, id & !1)).copied();
        if self.is_garbled {
            return call;
        }
        let number = call.unwrap_or_else(|| panic!("request {id} was never made"));
        let expected = self.calls[number].length as usize;
        assert_eq!(message.len(), expected, "length of request {id}");
        assert!(message == keyed(number as u64, expected), "contents of request {id}");
        call
    }

    /// A client got the outcome of a call.
    pub fn on_outcome(&mut self, now: Instant, host: usize, incarnation: u32, event: &Event) {
        let (rpc, cookie, outcome) = match event {
            Event::Response { rpc, cookie, message, .. } => {
                if !self.is_garbled {
                    let call = &self.calls[*cookie as usize];
                    let expected = keyed(!*cookie, call.response as usize);
                    assert!(message.to_vec() == expected, "contents of response {}", rpc.0);
                }
                (rpc, cookie, Outcome::Response)
            }
            Event::Failed { rpc, cookie, error, .. } => (rpc, cookie, Outcome::Failed(*error)),
            _ => return,
        };
        let call = &mut self.calls[*cookie as usize];
        assert_eq!((call.client, call.incarnation, call.rpc), (host, incarnation, *rpc), "wrong call");
        assert_eq!(call.outcome, Outcome::Pending, "call {cookie} has a second outcome {outcome:?}");
        call.outcome = outcome;
        assert!(!self.is_calm || outcome != Outcome::Failed(RpcError::Timeout), "call {cookie} times out");
        if outcome == Outcome::Failed(RpcError::Deadline) {
            assert!(call.deadline.is_some_and(|d| d <= now), "call {cookie} failed before its deadline");
        }
    }

    /// The client of these calls is gone.
    pub fn on_restart(&mut self, host: usize) {
        for call in self.calls.iter_mut().filter(|c| c.client == host) {
            if call.outcome == Outcome::Pending {
                call.outcome = Outcome::Void;
            }
        }
        self.blocked.retain(|b| b.0 != host);
    }

    /// No call may outlive its deadline by more than timers are coarse.
    pub fn check_deadlines(&self, now: Instant, is_late: impl Fn(usize) -> bool) {
        for (number, call) in self.calls.iter().enumerate() {
            let is_over = call.deadline.is_some_and(|d| d + ms(2) < now);
            let is_late = is_late(call.client);
            assert!(
                !is_over || is_late || call.outcome != Outcome::Pending,
                "call {number} outlives its deadline"
            );
        }
    }

    /// Everything has an outcome.
    pub fn check_end(&self) {
        for (number, call) in self.calls.iter().enumerate() {
            assert_ne!(call.outcome, Outcome::Pending, "call {number} has no outcome: {call:?}");
        }
        assert!(self.blocked.is_empty(), "sockets wait for Writable: {:?}", self.blocked);
    }
}
