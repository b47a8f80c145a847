//! The kernel's numbers and its options as bytes, for faces that speak them: a C library, old programs. What
//! Rust's types already rule out has its error code here.

use crate::config::Kind;
use crate::error::Code;
use crate::event::SocketId;
use crate::mux::Mux;

/// Address family.
pub const AF_KCM: i32 = 41;
/// The one protocol: all connections of a mux lead to the same destination.
pub const KCMPROTO_CONNECTED: i32 = 0;
/// Level of the options.
pub const SOL_KCM: i32 = 281;
/// Option: the socket is given no messages.
pub const KCM_RECV_DISABLE: i32 = 1;
/// Flag of a send: more messages follow before anything need leave.
pub const MSG_BATCH: i32 = 0x40000;
/// Requests of `ioctl`.
pub const SIOCKCMATTACH: u32 = 0x89e0;
/// Takes a connection off.
pub const SIOCKCMUNATTACH: u32 = 0x89e1;
/// Makes another socket of the mux.
pub const SIOCKCMCLONE: u32 = 0x89e2;

/// Calls that other sockets have and KCM sockets do not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// Gives a local address.
    Bind,
    /// Connects: connections are attached instead.
    Connect,
    /// Takes an incoming connection.
    Accept,
    /// Waits for connections.
    Listen,
    /// Says an address.
    GetName,
    /// Makes two sockets that lead to each other.
    SocketPair,
    /// Closes one direction.
    Shutdown,
    /// Maps memory.
    Mmap,
}

impl Call {
    /// All of them.
    pub const ALL: [Call; 8] = [
        Call::Bind,
        Call::Connect,
        Call::Accept,
        Call::Listen,
        Call::GetName,
        Call::SocketPair,
        Call::Shutdown,
        Call::Mmap,
    ];

    /// What the call fails with.
    pub fn error(self) -> Code {
        Code::OPNOTSUPP
    }
}

impl Kind {
    /// The kind by its number in `socket(2)`.
    ///
    /// # Errors
    /// `ESOCKTNOSUPPORT` or `EPROTONOSUPPORT`.
    pub fn from_numbers(kind: i32, protocol: i32) -> Result<Kind, Code> {
        let kind = match kind {
            2 => Kind::Datagram,
            5 => Kind::SeqPacket,
            _ => return Err(Code::SOCKTNOSUPPORT),
        };
        if protocol == KCMPROTO_CONNECTED { Ok(kind) } else { Err(Code::PROTONOSUPPORT) }
    }
}

impl Mux {
    /// `setsockopt`: a number of four bytes in the machine's order, more are ignored.
    ///
    /// # Errors
    /// `ENOPROTOOPT`, `EINVAL` for fewer bytes, `EBADF` for a socket that is closed.
    pub fn set_option(
        &mut self,
        socket: SocketId,
        level: i32,
        option: i32,
        value: &[u8],
    ) -> Result<(), Code> {
        if level != SOL_KCM || option != KCM_RECV_DISABLE {
            return Err(Code::NOPROTOOPT);
        }
        let value = value.first_chunk::<4>().ok_or(Code::INVAL)?;
        self.set_recv_disable(socket, i32::from_ne_bytes(*value) != 0).map_err(|_| Code::BADF)
    }

    /// `getsockopt`: as many of the four bytes as there is room for; returns how many.
    ///
    /// # Errors
    /// `ENOPROTOOPT`, or `EBADF` for a socket that is closed.
    pub fn get_option(
        &self,
        socket: SocketId,
        level: i32,
        option: i32,
        out: &mut [u8],
    ) -> Result<usize, Code> {
        if level != SOL_KCM || option != KCM_RECV_DISABLE {
            return Err(Code::NOPROTOOPT);
        }
        let value = i32::from(self.recv_disabled(socket).ok_or(Code::BADF)?).to_ne_bytes();
        let count = out.len().min(value.len());
        out[..count].copy_from_slice(&value[..count]);
        Ok(count)
    }
}
