//! What a transport's client loop drives: who sends what when, and what became of it.
//!
//! A [`Traffic`] knows neither sockets nor clocks; times are nanoseconds since the loop started. The same traffic
//! runs over every transport, so that all of them carry the same messages at the same moments.

use std::ops::Range;

use bytes::Bytes;

/// Every message starts with this many bytes: sequence number and hash.
pub const HEADER: usize = 16;

/// One message to send: a header and a slice of the block that client and traffic share.
#[derive(Clone, PartialEq, Debug)]
pub struct Outgoing {
    /// First bytes of the message.
    pub header: [u8; HEADER],
    /// The rest of it, as a range of [`Traffic::block`].
    pub body: Range<usize>,
}

impl Outgoing {
    /// Length of the message in bytes, header included.
    pub fn len(&self) -> usize {
        HEADER + self.body.len()
    }

    /// The sequence number, for transports that carry a cookie.
    pub fn sequence(&self) -> u64 {
        u64::from_le_bytes(self.header[..8].try_into().expect("eight bytes"))
    }
}

/// To which of so many servers a message goes: each is as likely as any other, and the same message goes to the same
/// server over every transport.
pub fn target(sequence: u64, servers: usize) -> usize {
    (crate::prng::mix(sequence ^ 0x7067) % servers.max(1) as u64) as usize
}

/// A client's work.
pub trait Traffic: Send {
    /// Whether response bodies are to be compared with the block.
    const CHECKS_BODIES: bool;

    /// The bytes that bodies are slices of.
    fn block(&self) -> &Bytes;

    /// The next message that is due, if one is.
    fn next_due(&mut self, now: u64) -> Option<Outgoing>;

    /// When [`Traffic::next_due`] may have something without a response arriving first; `None`: never.
    fn wakeup(&self) -> Option<u64>;

    /// A response starts: where in the block its body must stand. `None`: no such request or a wrong length.
    fn expect(&mut self, header: &[u8; HEADER], length: usize) -> Option<usize>;

    /// A response is complete.
    fn complete(&mut self, header: &[u8; HEADER], intact: bool, now: u64);

    /// The transport gave up on a request.
    fn fail(&mut self, sequence: u64);

    /// Called once a turn; `true` when nothing is left to do.
    fn turn(&mut self, now: u64) -> bool;
}

/// Hands a whole response to a traffic.
pub fn respond<T: Traffic>(traffic: &mut T, response: &[u8], now: u64) {
    let Some((header, body)) = response.split_first_chunk::<HEADER>() else { return };
    let expected = traffic.expect(header, response.len());
    let intact = expected.is_some_and(|at| traffic.block()[at..at + body.len()] == *body);
    traffic.complete(header, intact, now);
}
