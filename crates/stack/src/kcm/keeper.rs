//! The keeper: one thread of each mux for what no worker waits for: room for writing, deadlines, new
//! connections, and reading while there are no workers.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use peyk_kcm::PsockId;

use super::engine::{CHUNK, Nobody, Shared};
use crate::sys::{EpollEvent, READ_EDGE, READ_LEVEL};

/// Tokens that name no connection. Those of connections are index and generation, and no generation comes
/// near 2^31.
pub(super) const BELL: u64 = u64::MAX;
const READS: u64 = u64::MAX - 1;
pub(super) const LISTENER: u64 = 1 << 63;

/// Longest sleep, so that a mux whose handles are all gone does not keep its thread.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) fn start(shared: &Arc<Shared>) -> io::Result<()> {
    shared.reads.add(shared.bell.as_fd(), READ_EDGE, BELL)?;
    shared.writes.add(shared.keeper_bell.as_fd(), READ_EDGE, BELL)?;
    shared.writes.add(shared.reads.as_fd(), READ_LEVEL, READS)?;
    let weak = Arc::downgrade(shared);
    std::thread::Builder::new().name("peyk-kcm".into()).spawn(move || keep(&weak))?;
    Ok(())
}

fn keep(weak: &Weak<Shared>) {
    let mut events = [EpollEvent { events: 0, u64: 0 }; 64];
    let mut buffer = vec![0; CHUNK];
    let mut reads_here = true;
    while let Some(shared) = weak.upgrade() {
        if shared.is_closed.load(Ordering::Acquire) {
            return;
        }
        // Workers read for themselves; without them the keeper does.
        let wants_reads = shared.workers.load(Ordering::Acquire) == 0;
        if wants_reads != reads_here {
            let _ = match wants_reads {
                true => shared.writes.add(shared.reads.as_fd(), READ_LEVEL, READS),
                false => shared.writes.remove(shared.reads.as_fd()),
            };
            reads_here = wants_reads;
        }
        let timeout = sleep_ms(&shared);
        let has_pending = reads_here && !shared.lock().pending.is_empty();
        let Ok(ready) = shared.writes.wait(&mut events, if has_pending { 0 } else { timeout }) else {
            return;
        };
        let (mut is_readable, mut others) = (has_pending, Vec::new());
        for event in ready {
            match event.u64 {
                READS => is_readable = true,
                BELL => {}
                token => others.push(token),
            }
        }
        for token in others {
            if token >= LISTENER {
                shared.accept(token)
            } else {
                writable(&shared, PsockId::from_bits(token))
            }
        }
        if is_readable && reads_here {
            read_some(&shared, &mut buffer);
        }
        let now = shared.now();
        let mut core = shared.lock();
        if core.mux.poll_timeout().is_some_and(|at| at <= now) {
            core.mux.handle_timeout(now);
        }
        core.keeper_at = core.mux.poll_timeout();
        shared.leave(core);
    }
}

/// Milliseconds until the next deadline, rounded up.
fn sleep_ms(shared: &Shared) -> i32 {
    let now = shared.now();
    let mut core = shared.lock();
    core.keeper_at = core.mux.poll_timeout();
    let wait = core.keeper_at.map_or(PATIENCE, |at| at.saturating_since(now).min(PATIENCE));
    wait.as_micros().div_ceil(1000) as i32
}

fn writable(shared: &Arc<Shared>, psock: PsockId) {
    let mut core = shared.lock();
    let Some(conn) = core.conn(psock).cloned() else { return };
    if let Err(error) = conn.stream.flush_own() {
        let code = peyk_kcm::error::Code(error.raw_os_error().unwrap_or(32));
        core.mux.stream_error(psock, code, shared.now());
    } else if core.mux.is_writing(psock) {
        conn.was_writable.store(true, Ordering::Relaxed);
    } else {
        core.mux.stream_writable(psock);
    }
    shared.leave(core);
}

/// Reads what is ready, one turn of each connection.
fn read_some(shared: &Arc<Shared>, buffer: &mut [u8]) {
    let mut events = [EpollEvent { events: 0, u64: 0 }; 64];
    let Ok(ready) = shared.reads.wait(&mut events, 0) else { return };
    let edges = ready.iter().filter(|event| event.u64 != BELL).map(|event| (event.u64, event.events));
    let mut conns: Vec<_> = {
        let mut core = shared.lock();
        let pending: Vec<PsockId> = core.pending.drain(..).collect();
        let edges = edges.map(|(token, events)| (PsockId::from_bits(token), events));
        let all = edges.chain(pending.into_iter().map(|id| (id, 0)));
        let noted = |(id, events)| core.conn(id).cloned().inspect(|conn| conn.note_edge(events));
        all.filter_map(noted).collect()
    };
    for conn in conns.drain(..) {
        if conn.begin_read() {
            let turn = shared.pass(&conn, buffer, &mut Nobody);
            shared.end_turn(&conn, turn);
        }
    }
}
