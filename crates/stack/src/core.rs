//! What a shard owns besides its applications: the protocol endpoint, the driver, and the table
//! of local UDP sockets.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use peyk_homa::{Endpoint, Path, PeerAddr, SocketId, SocketOptions};
use peyk_sansio::Instant;

use crate::addr::Addr;
use crate::driver::{Bound, Driver};
use crate::error::BindError;
use crate::mesh::Mesh;

/// Protocol and network of one shard.
pub(crate) struct Core {
    pub endpoint: Endpoint,
    pub driver: Box<dyn Driver>,
    pub now: Instant,
    /// To the other shards, if there are any.
    pub mesh: Option<Mesh>,
    max_mtu: u32,
    udp_port: u16,
    /// Bound sockets and the carriage each was bound with.
    bound: HashMap<SocketId, u16>,
    locals: Vec<Local>,
    /// Carriage for outgoing requests of sockets that are not bound, by address family.
    outgoing: [Option<u16>; 2],
    /// Hosts whose route has been looked at, the last one first tried.
    known: HashMap<IpAddr, ()>,
    last_known: Option<SocketAddr>,
}

/// A local UDP socket that carries Homa packets.
struct Local {
    id: u16,
    asked: SocketAddr,
    actual: SocketAddr,
    users: usize,
    /// One of a group, with one member on each shard.
    is_grouped: bool,
}

/// Where to bind the carriage of a socket at `addr`: its UDP port, if it is the default one, means
/// the configured one.
pub(crate) fn carriage_of(addr: Addr, configured: u16) -> SocketAddr {
    let is_default = addr.udp_port == crate::addr::DEFAULT_UDP_PORT;
    SocketAddr::new(addr.ip, if is_default { configured } else { addr.udp_port })
}

/// The unspecified address stands for this host when it is a destination, as with the kernel's
/// sockets; but answers come from another address, so it must be written out.
fn reachable(remote: SocketAddr) -> SocketAddr {
    let ip = match remote.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => return remote,
    };
    SocketAddr::new(ip, remote.port())
}

/// Whether two addresses are those of one host. Compared in place: this is asked for every request, and an
/// `IpAddr` taken out of an event just moved waits for the move to reach the cache.
fn is_same_host(a: &SocketAddr, b: &SocketAddr) -> bool {
    match (a, b) {
        (SocketAddr::V4(a), SocketAddr::V4(b)) => a.ip() == b.ip(),
        (SocketAddr::V6(a), SocketAddr::V6(b)) => a.ip() == b.ip(),
        _ => false,
    }
}

/// Hosts remembered before the table starts afresh.
const KNOWN_MAX: usize = 65_536;

impl Core {
    pub fn new(endpoint: Endpoint, driver: Box<dyn Driver>, config: &crate::Config, now: Instant) -> Core {
        Core {
            endpoint,
            driver,
            now,
            mesh: None,
            max_mtu: config.max_mtu,
            udp_port: config.udp_port,
            bound: HashMap::new(),
            locals: Vec::new(),
            outgoing: [None, None],
            known: HashMap::new(),
            last_known: None,
        }
    }

    /// Opens a server socket at `addr`, whose UDP port, if it is the default one, means the
    /// configured one. Homa port 0 takes a free one.
    pub fn bind(&mut self, addr: Addr, options: SocketOptions) -> Result<(SocketId, Addr), BindError> {
        let asked = carriage_of(addr, self.udp_port);
        let local = self.carriage(asked).map_err(|source| BindError::Carriage { addr: asked, source })?;
        let port = (addr.port != 0).then_some(addr.port);
        let options = SocketOptions { server: true, ..options };
        let socket = match self.endpoint.open_socket(port, options) {
            Ok(socket) => socket,
            Err(e) => {
                self.release(local);
                return Err(e.into());
            }
        };
        self.bound.insert(socket, local);
        let udp_port = self.locals.iter().find(|l| l.id == local).map_or(0, |l| l.actual.port());
        let port = self.endpoint.port(socket).unwrap_or(addr.port);
        Ok((socket, Addr { ip: addr.ip, port, udp_port }))
    }

    /// Opens a server socket at a Homa port, or any free one, that no carriage socket serves yet.
    /// `agreed`: the port is that of another shard's part.
    pub fn open_port(&mut self, port: Option<u16>, agreed: bool) -> Result<(SocketId, u16), BindError> {
        let options = SocketOptions { server: true, agreed, ..SocketOptions::default() };
        let socket = self.endpoint.open_socket(port, options)?;
        Ok((socket, self.endpoint.port(socket).unwrap_or_default()))
    }

    /// Lets the group asked for at `asked` serve a socket: by its member `bound`, which is new
    /// here, or by the one that is here already. Returns the group's address; `None` if there was
    /// neither.
    pub fn carry(
        &mut self,
        socket: SocketId,
        asked: SocketAddr,
        bound: Option<Bound>,
    ) -> io::Result<Option<SocketAddr>> {
        let Some(bound) = bound else {
            let same = |l: &Local| asked.port() != 0 && (l.asked == asked || l.actual == asked);
            let grouped = |l: &&mut Local| l.is_grouped && same(l);
            let Some(l) = self.locals.iter_mut().find(grouped) else { return Ok(None) };
            l.users += 1;
            self.bound.insert(socket, l.id);
            return Ok(Some(l.actual));
        };
        let actual = bound.local;
        let id = self.driver.adopt_local(bound)?;
        self.locals.push(Local { id, asked, actual, users: 1, is_grouped: true });
        if let Some(mesh) = &mut self.mesh {
            mesh.join(id, actual);
        }
        if let Some(other) = self.bound.insert(socket, id) {
            self.release(other);
        }
        Ok(Some(actual))
    }

    /// Opens a socket that only makes requests.
    pub fn open(&mut self, options: SocketOptions) -> Result<SocketId, BindError> {
        Ok(self.endpoint.open_socket(None, options)?)
    }

    /// Closes a socket; its peers are told.
    pub fn close(&mut self, socket: SocketId) {
        // Replies given just now leave first, as far as they go without a grant.
        self.transmit(usize::MAX);
        self.endpoint.close_socket(self.now, socket);
        if let Some(local) = self.bound.remove(&socket) {
            // The farewells are still queued: they must leave before their UDP socket goes.
            self.transmit(usize::MAX);
            self.release(local);
        }
    }

    /// The path from `socket` to `to`.
    pub fn peer(&mut self, socket: SocketId, to: Addr) -> io::Result<PeerAddr> {
        let remote = reachable(to.carriage());
        let local = match self.bound.get(&socket) {
            Some(&id) if self.reaches(id, remote) => id,
            _ => self.outgoing_for(remote)?,
        };
        self.learn(&remote);
        Ok(PeerAddr { path: Path { remote, local }, port: to.port })
    }

    /// Looks up the route to a host once, so that messages are cut to its size of packets.
    pub fn learn(&mut self, remote: &SocketAddr) {
        if self.last_known.as_ref().is_some_and(|last| is_same_host(last, remote)) {
            return;
        }
        self.last_known = Some(*remote);
        let ip = remote.ip();
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        if self.known.insert(ip, ()).is_none() {
            let mtu = self.driver.mtu(*remote).min(self.max_mtu);
            self.endpoint.set_mtu(ip, mtu);
        }
    }

    /// Hands packets to the driver until neither has more to do or `burst` bytes are reached; true
    /// if they were.
    pub fn transmit(&mut self, burst: usize) -> bool {
        let mut sent = 0;
        while sent < burst && self.driver.can_send() {
            // By reference: a packet moved right after it was made keeps its mover waiting.
            let packet = self.endpoint.poll_packet(self.now);
            let Some(packet) = &packet else { break };
            sent += packet.len();
            self.driver.send(packet);
        }
        self.driver.flush();
        sent >= burst
    }

    fn reaches(&self, local: u16, remote: SocketAddr) -> bool {
        let Some(l) = self.locals.iter().find(|l| l.id == local) else { return false };
        match l.asked.ip() {
            IpAddr::V4(_) => remote.is_ipv4(),
            IpAddr::V6(ip) => remote.is_ipv6() || ip.is_unspecified(),
        }
    }

    fn outgoing_for(&mut self, remote: SocketAddr) -> io::Result<u16> {
        let family = usize::from(remote.is_ipv6());
        if let Some(id) = self.outgoing[family] {
            return Ok(id);
        }
        let any = match remote {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let (id, _) = self.driver.open_local(SocketAddr::new(any, 0))?;
        self.outgoing[family] = Some(id);
        Ok(id)
    }

    fn carriage(&mut self, asked: SocketAddr) -> io::Result<u16> {
        let same = |l: &&mut Local| l.asked == asked && asked.port() != 0 && !l.is_grouped;
        if let Some(l) = self.locals.iter_mut().find(same) {
            l.users += 1;
            return Ok(l.id);
        }
        let (id, actual) = self.driver.open_local(asked)?;
        self.locals.push(Local { id, asked, actual, users: 1, is_grouped: false });
        Ok(id)
    }

    fn release(&mut self, local: u16) {
        let Some(i) = self.locals.iter().position(|l| l.id == local) else { return };
        self.locals[i].users -= 1;
        if self.locals[i].users == 0 {
            self.locals.swap_remove(i);
            self.driver.close_local(local);
            if let Some(mesh) = &mut self.mesh {
                mesh.leave(local);
            }
        }
    }
}
