//! Calls and executions: once, exactly one outcome, in time, with their contents.

use std::collections::{BTreeMap, BTreeSet};

use peyk_homa::{RpcError, SocketId};
use peyk_sansio::Instant;
use peyk_sockbuf::Message;

use super::Violation;
use crate::echo::Pattern;
use crate::scenario::CallPlan;
use crate::time::Picos;
use crate::topology::HostId;

/// Precision of deadlines, in nanoseconds: a tick, and one more for whoever drives the endpoint.
const DEADLINE_SLACK: u64 = 2_000_000;

/// Where a call stands.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It goes on.
    Pending,
    /// It got its response.
    Response,
    /// It failed.
    Failed(RpcError),
    /// It was aborted, or its client crashed: nothing may follow.
    Void,
}

/// A call that was made.
#[derive(Clone, Debug)]
pub struct Call {
    /// What was planned.
    pub plan: CallPlan,
    /// Its id.
    pub rpc: u64,
    /// When it was made.
    pub made: Picos,
    /// Its deadline, by its client's clock.
    pub deadline: Option<Instant>,
    /// Where it stands.
    pub outcome: Outcome,
    /// When its server got it.
    pub executed: Option<Picos>,
    /// When its client gave it up.
    pub aborted: Option<Picos>,
    /// It must get its response.
    pub must_succeed: bool,
    /// It was made after everything had healed.
    pub is_probe: bool,
    /// Client or server lies.
    pub is_with_liar: bool,
}

/// The books of one run.
#[derive(Debug, Default)]
pub struct Calls {
    /// Every call made.
    pub calls: Vec<Call>,
    /// Packets may be garbled, so contents and identities prove nothing.
    is_garbled: bool,
    /// What went wrong.
    pub violations: Vec<Violation>,
    by_id: BTreeMap<(HostId, u64), usize>,
    pending: BTreeSet<usize>,
    /// Server, its incarnation, client, id.
    executed: BTreeSet<(HostId, u32, HostId, u64)>,
    /// Sockets that were refused a send and have not heard since.
    blocked: BTreeSet<(HostId, SocketId)>,
}

impl Calls {
    /// No calls yet.
    pub fn new(is_garbled: bool) -> Calls {
        Calls { is_garbled, ..Calls::default() }
    }

    /// A call was made; its number.
    pub fn on_call(&mut self, call: Call) -> usize {
        let number = self.calls.len();
        let host = call.plan.client;
        if self.by_id.insert((host, call.rpc), number).is_some() {
            self.violations.push(Violation::IdReused { host, rpc: call.rpc });
        }
        self.pending.insert(number);
        self.calls.push(call);
        number
    }

    /// A server got a request; the number of its call, if there is one. `is_strange`: the client may have
    /// made it up.
    pub fn on_request(
        &mut self,
        server: (HostId, u32),
        client: HostId,
        id: u64,
        message: &Message,
        pattern: &Pattern,
        is_strange: bool,
    ) -> Option<usize> {
        let rpc = id & !1;
        let (server, incarnation) = server;
        let number = self.by_id.get(&(client, rpc)).copied();
        // Ids that nobody has made may be made later, when the server has forgotten them.
        if number.is_some() && !self.executed.insert((server, incarnation, client, rpc)) {
            self.violations.push(Violation::ExecutedTwice { server, client, rpc });
        }
        if self.is_garbled || is_strange {
            return number;
        }
        match number {
            None => self.violations.push(Violation::UnknownRequest { server, client, rpc }),
            Some(call) => {
                if !pattern.is(message, call as u64, self.calls[call].plan.request) {
                    self.violations.push(Violation::RequestAltered { call });
                }
            }
        }
        number
    }

    /// A host got the outcome of a call: its response, or an error. Gives the number of the call.
    pub fn on_outcome(
        &mut self,
        now: Instant,
        host: HostId,
        rpc: u64,
        result: Result<&Message, RpcError>,
        pattern: &Pattern,
    ) -> Option<usize> {
        let Some(&number) = self.by_id.get(&(host, rpc)) else {
            self.violations.push(Violation::StrangeOutcome { host, rpc });
            return None;
        };
        let call = &mut self.calls[number];
        if call.outcome != Outcome::Pending {
            self.violations.push(Violation::SecondOutcome { call: number });
            return None;
        }
        self.pending.remove(&number);
        call.outcome = match result {
            Ok(message) => {
                let is_intact = pattern.is(message, !(number as u64), call.plan.response);
                if !is_intact && !self.is_garbled && !call.is_with_liar {
                    self.violations.push(Violation::ResponseAltered { call: number });
                }
                Outcome::Response
            }
            Err(error) => Outcome::Failed(error),
        };
        if let Err(error) = result {
            let is_early = error == RpcError::Deadline && call.deadline.is_none_or(|at| now < at);
            let (client, server) = (call.plan.client, call.plan.server);
            if is_early {
                self.violations.push(Violation::EarlyDeadline { call: number });
            } else if call.is_probe {
                self.violations.push(Violation::ProbeFailed { client, server, error: Some(error) });
            } else if call.must_succeed {
                self.violations.push(Violation::FailedNeedlessly { call: number, error });
            }
        }
        Some(number)
    }

    /// A call was aborted: nothing may follow.
    pub fn on_abort(&mut self, now: Picos, number: usize) {
        self.calls[number].aborted = Some(now);
        if self.calls[number].outcome != Outcome::Pending {
            self.violations.push(Violation::SecondOutcome { call: number });
        }
        self.calls[number].outcome = Outcome::Void;
        self.pending.remove(&number);
    }

    /// A server answers. If its client has given up, it knows after `word`, if that is sure to reach it.
    pub fn on_reply(&mut self, now: Picos, number: usize, word: Option<Picos>) {
        let call = &self.calls[number];
        // A request that was late comes after the word that nobody waits for it.
        if let (Some(word), Some(aborted), Some(executed)) = (word, call.aborted, call.executed)
            && executed < aborted
            && aborted + word < now
        {
            self.violations.push(Violation::NotCancelled { call: number });
        }
    }

    /// A host is gone, and its calls with it.
    pub fn on_crash(&mut self, host: HostId) {
        let calls = &mut self.calls;
        self.pending.retain(|&number| {
            let is_gone = calls[number].plan.client == host;
            if is_gone {
                calls[number].outcome = Outcome::Void;
            }
            !is_gone
        });
        self.blocked.retain(|b| b.0 != host);
    }

    /// A socket was refused a send.
    pub fn on_refusal(&mut self, host: HostId, socket: SocketId) {
        self.blocked.insert((host, socket));
    }

    /// A socket may send again, or is closed.
    pub fn on_writable(&mut self, host: HostId, socket: SocketId) {
        self.blocked.remove(&(host, socket));
    }

    /// Looks for calls that go on for too long. `view` tells of a call the time of its client, or none if
    /// that is not itself, and for how long its server has been silent, if that is beyond bearing.
    pub fn check_times(&mut self, view: impl Fn(&Call) -> Option<(Instant, Option<Picos>)>) {
        let mut late = Vec::new();
        for &number in &self.pending {
            let call = &self.calls[number];
            let Some((now, silent)) = view(call) else { continue };
            if call.deadline.is_some_and(|at| at.plus_nanos(DEADLINE_SLACK) < now) {
                late.push((number, Violation::OutlivedDeadline { call: number }));
            } else if let Some(silent) = silent {
                late.push((number, Violation::OutlivedSilence { call: number, silent }));
            }
        }
        for (number, violation) in late {
            self.pending.remove(&number);
            self.violations.push(violation);
        }
    }

    /// Everything must have an outcome.
    pub fn check_end(&mut self) {
        for &call in &self.pending {
            self.violations.push(Violation::NoOutcome { call });
        }
        for &(host, _) in &self.blocked {
            self.violations.push(Violation::NeverWritable { host });
        }
    }
}
