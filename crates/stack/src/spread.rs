//! Sockets and services that all shards of a stack serve: the same Homa port on each, and a group
//! of carriage sockets at one address, one for each shard, among which the kernel chooses by the
//! id of the RPC. Made by messages to the shards; the caller waits for each, they do not.
//!
//! ```text
//!   1. the Homa port on every shard                        nothing arrives yet
//!   2. the sockets of the group, with the filter           packets wait in them
//!   3. each shard takes its socket                         packets are taken up
//! ```
//!
//! So a packet that is handed from one shard to another always finds the port open.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peyk_homa::{SocketId, steer};
use peyk_kevent::udp::{self, Instruction};

use crate::addr::Addr;
use crate::app::{Front, Part, Shared, Submission};
use crate::core::carriage_of;
use crate::error::BindError;
use crate::socket::ask;
use crate::stack::Stack;

/// How often, and after which pauses, an address is tried that is in use.
const ATTEMPTS: usize = 20;
const PAUSE: Duration = Duration::from_millis(1);

/// A socket of an application on all shards of `stack`: its parts, what they share, its address.
pub(crate) fn bind(stack: &Stack, addr: Addr) -> Result<(Vec<Part>, Arc<Front>, Addr), BindError> {
    let front = Arc::new(Front::new(stack.shards().len()));
    let _one_at_a_time = stack.binding();
    let mut opened = Opening::new(stack.shards());
    let mut port = (addr.port != 0).then_some(addr.port);
    let mut parts = Vec::new();
    for (index, shard) in stack.shards().iter().enumerate() {
        let front = front.clone();
        let part = ask(shard, |done| Submission::OpenPart { port, front, index, done })??;
        port = Some(part.port);
        opened.sockets.push(part.socket);
        parts.push(part);
    }
    let actual = carry(stack, addr, &opened.sockets)?;
    opened.sockets.clear();
    let addr = Addr { ip: addr.ip, port: port.unwrap_or_default(), udp_port: actual.port() };
    Ok((parts, front, addr))
}

/// Lets a group of carriage sockets serve sockets that are open, one on each shard, but have no
/// carriage yet.
pub(crate) fn carry(stack: &Stack, addr: Addr, sockets: &[SocketId]) -> Result<SocketAddr, BindError> {
    let asked = carriage_of(addr, stack.udp_port());
    let fail = |source| BindError::Carriage { addr: asked, source };
    if let Some(actual) = give(stack, asked, sockets, sockets.iter().map(|_| None))?.map_err(fail)? {
        return Ok(actual);
    }
    let program = program(sockets.len() as u32);
    let mut attempt = 0;
    let group = loop {
        match udp::bind_group(asked, sockets.len(), &udp::Options::default(), &program) {
            // Perhaps a group of ours that the kernel is just closing.
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && attempt < ATTEMPTS => {
                attempt += 1;
                std::thread::sleep(PAUSE);
            }
            result => break result.map_err(fail)?,
        }
    };
    let actual = give(stack, asked, sockets, group.into_iter().map(Some))?.map_err(fail)?;
    actual.ok_or_else(|| fail(io::ErrorKind::NotConnected.into()))
}

/// Gives each shard its member of a group, or asks it for the one it has: the group's address if
/// all have one. The outer error is that of asking.
fn give(
    stack: &Stack,
    asked: SocketAddr,
    sockets: &[SocketId],
    group: impl Iterator<Item = Option<udp::Bound>>,
) -> Result<io::Result<Option<SocketAddr>>, BindError> {
    let mut actual = None;
    for ((shard, &socket), bound) in stack.shards().iter().zip(sockets).zip(group) {
        match ask(shard, |done| Submission::Carry { socket, asked, bound, done })? {
            Ok(Some(addr)) => actual = Some(addr),
            Ok(None) => return Ok(Ok(None)),
            Err(e) => return Ok(Err(e)),
        }
    }
    Ok(Ok(actual))
}

/// Sockets that are closed again if not all goes well.
struct Opening<'a> {
    shards: &'a [Arc<Shared>],
    sockets: Vec<SocketId>,
}

impl<'a> Opening<'a> {
    fn new(shards: &'a [Arc<Shared>]) -> Opening<'a> {
        Opening { shards, sockets: Vec::new() }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        for (shard, &socket) in self.shards.iter().zip(&self.sockets) {
            shard.submit_late(Submission::Close { socket });
        }
    }
}

/// The filter that chooses a member: [`steer::shard_of_packet`] for the kernel.
fn program(shards: u32) -> Vec<Instruction> {
    // Classic BPF, see filter.txt of Linux: A and X are its registers.
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_WORD: u16 = 0x20;
    const JUMP: u16 = 0x05;
    const JUMP_IF_ANY_BIT: u16 = 0x45;
    const SHIFT_RIGHT: u16 = 0x74;
    const TO_X: u16 = 0x07;
    const ADD_X: u16 = 0x0c;
    const MODULO: u16 = 0x94;
    const RETURN_A: u16 = 0x16;
    let [low_byte, shard, low_half, epoch] = steer::PROGRAM_OPERANDS;
    vec![
        (LOAD_BYTE, 0, 0, low_byte),
        (JUMP_IF_ANY_BIT, 6, 0, 1),
        // To a server.
        (LOAD_HALF, 0, 0, low_half),
        (SHIFT_RIGHT, 0, 0, steer::BLOCK_BITS + 1),
        (TO_X, 0, 0, 0),
        (LOAD_WORD, 0, 0, epoch),
        (ADD_X, 0, 0, 0),
        (JUMP, 0, 0, 1),
        // To a client.
        (LOAD_BYTE, 0, 0, shard),
        (MODULO, 0, 0, shards),
        (RETURN_A, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use peyk_sansio::Prng;

    /// What the kernel does with the program.
    fn run(program: &[Instruction], packet: &[u8]) -> Option<u32> {
        let (mut a, mut x, mut at) = (0u32, 0u32, 0usize);
        loop {
            let (code, jump_true, jump_false, k) = program[at];
            at += 1;
            let load = |len: usize| {
                let bytes = packet.get(k as usize..k as usize + len)?;
                Some(bytes.iter().fold(0u32, |value, &byte| value << 8 | u32::from(byte)))
            };
            match code {
                0x30 => a = load(1)?,
                0x28 => a = load(2)?,
                0x20 => a = load(4)?,
                0x45 => at += usize::from(if a & k != 0 { jump_true } else { jump_false }),
                0x05 => at += k as usize,
                0x74 => a >>= k,
                0x07 => x = a,
                0x0c => a = a.wrapping_add(x),
                0x94 => a %= k,
                0x16 => return Some(a),
                other => panic!("operation {other:#x}"),
            }
        }
    }

    #[test]
    fn program__agrees_with_the_shards() {
        let mut random = Prng::new(1);
        for shards in [1, 2, 3, 4, 7, 255u8] {
            let program = program(u32::from(shards));
            for _ in 0..2000 {
                let packet: Vec<u8> = (0..28).map(|_| random.below(256) as u8).collect();
                let owner = u32::from(steer::shard_of_packet(&packet, shards));
                assert_eq!(run(&program, &packet), Some(owner), "{packet:x?} of {shards}");
            }
        }
    }
}
