//! The two mechanisms below a queue.

pub(crate) mod epoll;
pub(crate) mod uring;
mod workers;

use std::io;
use std::time::Duration;

use crate::core::Core;
use crate::event::Events;
use crate::op::OpId;
use crate::source::Source;

use epoll::Epoll;
use uring::Uring;

/// Calls made for one operation in a row before the others get their turn.
const QUOTA: usize = 16;

/// How much is worth waking up for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch {
    /// So many results,
    pub(crate) want: usize,
    /// or one, when this has passed.
    pub(crate) window: Duration,
}

/// The one in use.
#[derive(Debug)]
pub(crate) enum Engine {
    Uring(Box<Uring>),
    Epoll(Box<Epoll>),
}

macro_rules! both {
    ($engine:expr, $backend:ident => $do:expr) => {
        match $engine {
            Engine::Uring($backend) => $do,
            Engine::Epoll($backend) => $do,
        }
    };
}

impl Engine {
    pub(crate) fn start_stream(&mut self, core: &mut Core, id: OpId) {
        both!(self, b => b.start_stream(core, id));
    }

    pub(crate) fn start_send(&mut self, core: &mut Core, id: OpId) {
        both!(self, b => b.start_send(core, id));
    }

    /// Makes the calls of an operation as far as they do not wait.
    pub(crate) fn run(&mut self, core: &mut Core, id: OpId) {
        both!(self, b => b.run(core, id));
    }

    pub(crate) fn cancel(&mut self, core: &mut Core, id: OpId) {
        both!(self, b => b.cancel(core, id));
    }

    /// Takes the datagram streams out of the kernel until the next sleep: one that is armed makes
    /// every arriving datagram pay for a wake-up that nobody needs.
    pub(crate) fn disarm(&mut self, core: &mut Core) -> io::Result<()> {
        match self {
            Engine::Uring(uring) => {
                uring.disarm(core);
                Ok(())
            }
            Engine::Epoll(epoll) => epoll.disarm(core),
        }
    }

    /// Whether [`Engine::look`] has something to do.
    pub(crate) fn wants_look(&mut self, core: &Core) -> bool {
        both!(self, b => b.wants_look(core))
    }

    /// Takes what is there; `keen`: even if that costs a call.
    pub(crate) fn look(&mut self, core: &mut Core, keen: bool, out: &mut Events) -> io::Result<()> {
        both!(self, b => b.look(core, keen, out))
    }

    /// Waits, then takes what is there.
    pub(crate) fn sleep(
        &mut self,
        core: &mut Core,
        timeout: Option<Duration>,
        batch: Batch,
        out: &mut Events,
    ) -> io::Result<()> {
        both!(self, b => b.sleep(core, timeout, batch, out))
    }

    /// Takes what the backend's own threads did.
    pub(crate) fn take_published(&mut self, core: &mut Core) {
        match self {
            Engine::Uring(_) => {}
            Engine::Epoll(epoll) => epoll.take_results(core),
        }
    }

    /// Lets go of a source that is about to be closed; no operation is in flight on it.
    pub(crate) fn forget(&mut self, source: &Source) {
        both!(self, b => b.forget(source));
    }
}
