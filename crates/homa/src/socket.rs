//! The sockets of an endpoint and the port each has.
//!
//! Ports 1 to 32767 are asked for and make servers; the others are given out in turn, from a
//! random start, to clients. Endpoints of one host share the automatic ports by remainder, so
//! that none has to ask another.

use crate::config::{Config, SocketOptions};
use crate::error::OpenError;
use crate::event::SocketId;

/// First port of those that are given out automatically.
const FIRST_AUTOMATIC: u16 = 0x8000;

/// One socket. Limits stand here so that the endpoint need not look at two places.
#[derive(Debug)]
pub(crate) struct Socket {
    generation: u32,
    pub is_open: bool,
    pub is_server: bool,
    pub port: u16,
    /// RPCs of either role, and how many of them we are the client of. Either role has
    /// `max_rpcs` to itself: two hosts full of requests to each other could serve none.
    pub rpcs: u32,
    pub client_rpcs: u32,
    pub max_rpcs: u32,
    /// Requests that are incomplete or unanswered.
    pub unanswered: u32,
    pub max_unanswered: u32,
    /// Bytes of outgoing messages, and how many of them are replies. Either has `wmem_max` to
    /// itself: replies that wait for requests to end would wait for each other.
    pub send_bytes: u64,
    pub reply_bytes: u64,
    pub wmem_max: u64,
    /// Was refused a request, a reply, and wants to hear when it may try again.
    pub waits_to_request: bool,
    pub waits_to_reply: bool,
}

impl Socket {
    /// Whether its limits forbid another request to be made.
    pub fn is_full(&self) -> bool {
        self.send_bytes - self.reply_bytes >= self.wmem_max || self.client_rpcs >= self.max_rpcs
    }

    /// Whether its limits forbid another reply.
    pub fn is_full_of_replies(&self) -> bool {
        self.reply_bytes >= self.wmem_max
    }

    /// Whether its limits forbid another request to be taken.
    pub fn is_full_of_requests(&self) -> bool {
        self.unanswered >= self.max_unanswered || self.rpcs - self.client_rpcs >= self.max_rpcs
    }
}

/// All sockets, by index and by port.
#[derive(Debug)]
pub(crate) struct Sockets {
    slots: Vec<Socket>,
    free: Vec<u32>,
    /// Index + 1 for each port, 0 for none.
    ports: Box<[u32]>,
    next_automatic: u16,
    shard: u16,
    shards: u16,
}

impl Sockets {
    pub fn new(config: &Config, random: u64) -> Sockets {
        Sockets {
            slots: Vec::new(),
            free: Vec::new(),
            ports: vec![0; 1 << 16].into_boxed_slice(),
            next_automatic: FIRST_AUTOMATIC | random as u16,
            shard: u16::from(config.shard),
            shards: u16::from(config.shards),
        }
    }

    /// Opens a socket at `port`, or at an automatic one.
    pub fn open(
        &mut self,
        port: Option<u16>,
        options: SocketOptions,
        config: &Config,
    ) -> Result<SocketId, OpenError> {
        if self.len() >= config.max_sockets as usize {
            return Err(OpenError::Exhausted);
        }
        let is_server = port.is_some() || options.server;
        let port = match port {
            Some(port) if !options.agreed && !(1..FIRST_AUTOMATIC).contains(&port) => {
                return Err(OpenError::InvalidPort);
            }
            Some(port) if self.ports[usize::from(port)] != 0 => return Err(OpenError::InUse),
            Some(port) => port,
            None => self.automatic_port().ok_or(OpenError::Exhausted)?,
        };
        let index = self.free.pop().unwrap_or(self.slots.len() as u32);
        let generation = self.slots.get(index as usize).map_or(0, |s| s.generation);
        let socket = Socket {
            generation,
            is_open: true,
            is_server,
            port,
            rpcs: 0,
            client_rpcs: 0,
            max_rpcs: options.max_rpcs.unwrap_or(config.max_socket_rpcs),
            unanswered: 0,
            max_unanswered: options.max_unanswered.unwrap_or(config.max_unanswered),
            send_bytes: 0,
            reply_bytes: 0,
            wmem_max: options.wmem_max.unwrap_or(config.wmem_max),
            waits_to_request: false,
            waits_to_reply: false,
        };
        match self.slots.get_mut(index as usize) {
            Some(slot) => *slot = socket,
            None => self.slots.push(socket),
        }
        self.ports[usize::from(port)] = index + 1;
        Ok(SocketId { index, generation })
    }

    /// Frees the port and the place of a socket that has no RPCs any more.
    pub fn close(&mut self, index: u32) {
        let socket = &mut self.slots[index as usize];
        debug_assert!(socket.is_open && socket.rpcs == 0);
        socket.is_open = false;
        socket.generation = socket.generation.wrapping_add(1);
        self.ports[usize::from(socket.port)] = 0;
        self.free.push(index);
    }

    /// The index behind an id, if the socket is open.
    pub fn resolve(&self, id: SocketId) -> Option<u32> {
        let socket = self.slots.get(id.index as usize)?;
        (socket.is_open && socket.generation == id.generation).then_some(id.index)
    }

    /// The id of an open socket.
    pub fn id(&self, index: u32) -> SocketId {
        SocketId { index, generation: self.slots[index as usize].generation }
    }

    /// The socket that has a port.
    #[inline]
    pub fn by_port(&self, port: u16) -> Option<u32> {
        self.ports[usize::from(port)].checked_sub(1)
    }

    /// Number of open sockets.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn automatic_port(&mut self) -> Option<u16> {
        for _ in 0..FIRST_AUTOMATIC {
            let port = self.next_automatic;
            self.next_automatic = port.checked_add(1).unwrap_or(FIRST_AUTOMATIC);
            if port % self.shards == self.shard && self.ports[usize::from(port)] == 0 {
                return Some(port);
            }
        }
        None
    }
}

impl core::ops::Index<u32> for Sockets {
    type Output = Socket;
    #[inline]
    fn index(&self, index: u32) -> &Socket {
        &self.slots[index as usize]
    }
}

impl core::ops::IndexMut<u32> for Sockets {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut Socket {
        &mut self.slots[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(shard: u8, shards: u8) -> (Sockets, Config) {
        let config = Config { shard, shards, max_sockets: 100, ..Config::default() };
        (Sockets::new(&config, 0xffff_ffff), config)
    }

    #[test]
    fn explicit_ports_are_checked() {
        let (mut s, c) = sockets(0, 1);
        let options = SocketOptions::default();
        assert_eq!(s.open(Some(0), options, &c), Err(OpenError::InvalidPort));
        assert_eq!(s.open(Some(0x8000), options, &c), Err(OpenError::InvalidPort));
        let id = s.open(Some(99), options, &c).unwrap();
        assert!(s[id.index].is_server);
        assert_eq!(s.open(Some(99), options, &c), Err(OpenError::InUse));
        assert_eq!(s.by_port(99), Some(id.index));
        assert_eq!(s.by_port(98), None);
    }

    #[test]
    fn automatic_ports_wrap_and_keep_to_the_shard() {
        let (mut s, c) = sockets(1, 3);
        for _ in 0..100 {
            let id = s.open(None, SocketOptions::default(), &c).unwrap();
            assert!(!s[id.index].is_server);
            assert!(s[id.index].port >= 0x8000);
            assert_eq!(s[id.index].port % 3, 1);
        }
        assert_eq!(s.open(None, SocketOptions::default(), &c), Err(OpenError::Exhausted));
    }

    #[test]
    fn an_old_id_does_not_name_a_new_socket() {
        let (mut s, c) = sockets(0, 1);
        let old = s.open(Some(5), SocketOptions::default(), &c).unwrap();
        s.close(old.index);
        let new = s.open(Some(6), SocketOptions::default(), &c).unwrap();
        assert_eq!(old.index, new.index);
        assert_eq!(s.resolve(old), None);
        assert_eq!(s.resolve(new), Some(new.index));
        assert_eq!(s.by_port(5), None);
        assert_eq!(s.len(), 1);
    }
}
