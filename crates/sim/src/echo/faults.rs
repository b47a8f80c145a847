//! Faults of hosts: their beginning and their end.

use super::{Echo, Item, new_host};
use crate::fault::liar;
use crate::fault::plan::FaultKind;
use crate::host::homa::{HomaHost, SERVER_PORT};
use crate::time::Picos;
use crate::topology::HostId;
use crate::world::World;
use peyk_homa::SocketOptions;

/// Mean time between two packets that a liar makes up.
const FORGE_EVERY: Picos = Picos::from_micros(60);
/// Most pages a hog asks for at a time: all that one message can have.
const PAGE: usize = peyk_sockbuf::PAGE;

impl Echo {
    pub(super) fn begin(&mut self, world: &mut World<HomaHost>, fault: usize) {
        let plan = self.scenario.faults[fault];
        self.note(world, format_args!("for {}: {:?}", plan.span, plan.kind));
        match plan.kind {
            FaultKind::Cut { .. } | FaultKind::Mute { .. } => return,
            FaultKind::Crash { host } => {
                if !world.is_up(host) {
                    return;
                }
                self.crash(world, host);
            }
            FaultKind::Stall { host } => {
                let until = plan.end();
                let book = &mut self.books[usize::from(host)];
                book.stalled_until = book.stalled_until.max(until);
                book.disturbed = book.disturbed.max(until);
                world.stall(host, until);
                return;
            }
            FaultKind::SlowReceiver { host, cost } => world.set_receive_cost(host, cost),
            FaultKind::Hog { host, leave } => {
                if world.is_up(host) {
                    self.hog(world, host, leave);
                }
            }
            FaultKind::Close { host, is_server } => return self.close(world, host, is_server),
            FaultKind::Lie { .. } => self.put(world, plan.at, Item::Forge { fault }),
        }
        self.put(world, plan.end(), Item::End { fault });
    }

    pub(super) fn finish(&mut self, world: &mut World<HomaHost>, fault: usize) {
        match self.scenario.faults[fault].kind {
            FaultKind::Crash { host } => {
                let seed = self.random.next_u64();
                let new = new_host(&self.scenario, host, seed, world.local_time(host));
                world.restart(host, new);
                let book = &mut self.books[usize::from(host)];
                book.stalled_until = Picos::ZERO;
                book.disturbed = world.now();
                self.note(world, format_args!("h{host} is back"));
            }
            FaultKind::SlowReceiver { host, .. } => world.set_receive_cost(host, Picos::ZERO),
            FaultKind::Hog { host, .. } => {
                self.books[usize::from(host)].hogged.clear();
                if world.is_up(host) {
                    // Its waiting messages look for memory with the next tick.
                    world.call(host, |_, _| ());
                }
            }
            _ => {}
        }
    }

    /// The liar sends a packet it made up, and the next one is planned.
    pub(super) fn forge(&mut self, world: &mut World<HomaHost>, fault: usize) {
        let plan = self.scenario.faults[fault];
        let FaultKind::Lie { host, how } = plan.kind else { return };
        if !plan.lasts_at(world.now()) {
            return;
        }
        let hosts = self.scenario.hosts();
        let forged = liar::forge(how, host, hosts, &self.eye.borrow().overheard, &mut self.random);
        if let Some(packet) = forged {
            self.tally.forged += 1;
            self.eye.borrow_mut().trace.packet(world.now(), &packet, "forged");
            world.forge(packet);
        }
        let at = world.now() + Picos(1 + self.random.below(2 * FORGE_EVERY.0));
        self.put(world, at, Item::Forge { fault });
    }

    fn crash(&mut self, world: &mut World<HomaHost>, host: HostId) {
        self.count(world.host(host));
        world.crash(host);
        self.tally.crashes += 1;
        self.calls.on_crash(host);
        self.eye.borrow_mut().wire.on_crash(host);
        let book = &mut self.books[usize::from(host)];
        book.incarnation += 1;
        book.hogged.clear();
        book.serving.clear();
        book.disturbed = world.now();
    }

    fn hog(&mut self, world: &mut World<HomaHost>, host: HostId, leave: u32) {
        let hogged = world.call(host, |host, _| {
            let pool = host.endpoint.pool();
            let mut hogged = Vec::new();
            while pool.free_pages() > leave {
                let Some(page) = pool.alloc(PAGE) else { break };
                hogged.push(page);
            }
            hogged
        });
        self.books[usize::from(host)].hogged.extend(hogged);
    }

    fn close(&mut self, world: &mut World<HomaHost>, host: HostId, is_server: bool) {
        if self.readiness(world, host).is_err() {
            return;
        }
        let old = world.call(host, |host, now| {
            let old = if is_server { host.server } else { host.client };
            host.endpoint.close_socket(now, old);
            let port = is_server.then_some(SERVER_PORT);
            let new = host.endpoint.open_socket(port, SocketOptions::default());
            let new = new.expect("a place and a port have just become free");
            *(if is_server { &mut host.server } else { &mut host.client }) = new;
            old
        });
        self.calls.on_writable(host, old);
    }
}
