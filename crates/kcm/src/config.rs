//! Choices and limits of a mux, with their defaults.

use core::time::Duration;

/// The kind of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Kind {
    /// `SOCK_DGRAM`: each send is a message unless told that more follows; a short receive drops the rest.
    #[default]
    Datagram,
    /// `SOCK_SEQPACKET`: a message ends where the sender says; a short receive leaves the rest.
    SeqPacket,
}

/// In which order messages of one connection reach the sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// In any, but protocols that need more are refused at attach and keyed ones go by key.
    #[default]
    Checked,
    /// In any, whatever the protocol needs.
    Any,
    /// Equal keys to the same socket, while it has room.
    Key,
    /// Messages of a connection to one socket at a time, in order.
    Connection,
    /// Messages in any order, replies to them put back in the order of the requests.
    Replies,
}

/// Who gets a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Steer {
    /// Sockets in turn, all messages of one pass to the same: the kernel's way.
    #[default]
    Push,
    /// All wait in one queue and whoever receives takes the next: threads that are free help themselves.
    Pull,
}

/// When a socket that was full takes messages again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reenter {
    /// Once half of its buffer is free.
    #[default]
    Half,
    /// Once it is empty: the kernel's way.
    Empty,
}

/// Choices and limits of a [`Mux`](crate::Mux).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Kind of the sockets.
    pub kind: Kind,
    /// Order of messages.
    pub order: Order,
    /// Who gets a message.
    pub steer: Steer,
    /// When a full socket takes messages again.
    pub reenter: Reenter,
    /// Bytes of messages queued at a socket before it counts as full.
    pub receive_buffer: usize,
    /// Bytes of messages queued by a socket before sends must wait.
    pub send_buffer: usize,
    /// Bytes of received messages, whole or not, that the mux holds before it stops reading.
    pub memory: usize,
    /// Longest message, either way, in bytes.
    pub max_message: usize,
    /// Time from the first byte of a message to its last; `None` is for ever.
    pub assembly_timeout: Option<Duration>,
    /// Time that a batch may wait for its end.
    pub batch_delay: Duration,
    /// Messages after which a connection is passed on to the next sender that waits.
    pub quantum_messages: usize,
    /// Bytes after which it is.
    pub quantum_bytes: usize,
    /// Requests of a connection whose replies are awaited, in [`Order::Replies`].
    pub reply_window: usize,
    /// Whether sends and receives fail when there is no connection.
    pub fail_fast: bool,
    /// Most sockets.
    pub max_sockets: usize,
    /// Most connections.
    pub max_psocks: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            kind: Kind::Datagram,
            order: Order::Checked,
            steer: Steer::Push,
            reenter: Reenter::Half,
            receive_buffer: 256 * 1024,
            send_buffer: 256 * 1024,
            memory: 256 << 20,
            max_message: 16 << 20,
            assembly_timeout: Some(Duration::from_secs(30)),
            batch_delay: Duration::from_millis(1),
            quantum_messages: 64,
            quantum_bytes: 256 * 1024,
            reply_window: 1024,
            fail_fast: false,
            max_sockets: 4096,
            max_psocks: 65_536,
        }
    }
}
