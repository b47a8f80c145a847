//! Linked operations: each starts when the one before it has succeeded.
//!
//! The queue itself starts them, so they behave the same on both backends. The links of the ring
//! would save one pass of the loop per link, but let a chain go on after a short transfer.

use crate::event::What;
use crate::io::{Io, Work};
use crate::op::{OpId, Refusal, Rejected, Step, Token};

/// Operations in one chain at most.
pub const CHAIN_MAX: usize = 8;

/// Operations of which each starts when the one before it has succeeded entirely. If one fails, is
/// cancelled or transfers less than asked for, those after it end with
/// [`What::Cancelled`](crate::What::Cancelled). Each has its own events.
#[derive(Debug, Default)]
pub struct Chain {
    pub(crate) steps: Vec<(Token, Box<Io>)>,
}

/// What ties an operation to its chain.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// The one after it.
    pub(crate) next: Option<OpId>,
    /// The one before it has not succeeded yet.
    pub(crate) held: bool,
}

impl Chain {
    /// A chain without operations.
    pub fn new() -> Chain {
        Chain::default()
    }

    /// Appends an operation.
    ///
    /// # Errors
    /// It is refused, as by [`Queue::submit`](crate::Queue::submit), or has no end of its own, or
    /// the chain is full ([`CHAIN_MAX`]). The chain is as before.
    pub fn push<O: Step>(&mut self, token: Token, op: O) -> Result<(), Rejected<O>> {
        if self.steps.len() >= CHAIN_MAX {
            return Err(Rejected { op, why: Refusal::Full });
        }
        let mut io = Io::new();
        op.prepare(&mut io)?;
        self.steps.push((token, io));
        Ok(())
    }

    /// Whether all operations end by themselves.
    pub(crate) fn is_valid(&self) -> bool {
        let ends = |io: &Io| match &io.work {
            Work::Signals(_) | Work::Close(_) | Work::None | Work::Wall(_) => false,
            work => !work.is_stream(),
        };
        !self.steps.is_empty() && self.steps.iter().all(|(_, io)| ends(io))
    }
}

/// Whether the next operation of a chain may start after this last event.
pub(crate) fn goes_on(what: &What) -> bool {
    match what {
        What::Failed { .. } | What::Cancelled { .. } | What::Eof => false,
        What::Read { bytes, buf } => *bytes == buf.len(),
        _ => true,
    }
}
