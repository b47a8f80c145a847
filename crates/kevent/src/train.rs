//! A train: datagrams of equal size for one destination, sent by one call.
//!
//! Headers and short payloads lie side by side in the train's own staging memory; long payloads
//! stay where they are and are only referred to. The train keeps them alive, so whoever owns it
//! (the caller, or the queue while a send is in flight) owns all memory the kernel reads.

use std::net::SocketAddr;
use std::ops::Range;

use peyk_sockbuf::Payload;

use crate::sys::addr::{ADDR_LEN, encode, unspecified};
use crate::sys::cmsg::Control;
use crate::sys::socket::empty_message;

/// Longest payload copied beside its header. Below this a copy costs less than a scattered read.
const COPY_MAX: usize = 512;
/// Datagrams in one train at most; a limit of the kernel.
pub(crate) const MAX_SEGMENTS: usize = 64;
/// Bytes in one train at most: an IPv4 packet without its headers.
pub(crate) const MAX_BYTES: usize = 65507;
/// Slices in one train at most; a limit of the kernel.
const MAX_SLICES: usize = 1024;

#[derive(Debug, Clone, Copy)]
enum Part {
    /// The next so many bytes of the staging memory.
    Staged(usize),
    /// The next kept payload.
    Kept,
}

/// Datagrams of equal size (the last may be shorter) to one destination with one traffic class.
#[derive(Debug)]
pub struct Train {
    to: SocketAddr,
    class: u8,
    segment: usize,
    packets: usize,
    bytes: usize,
    slices: usize,
    /// A datagram shorter than the others has been added: nothing may follow it.
    closed: bool,
    /// Leaves by a socket that is connected to `to`.
    connected: bool,
    /// Only the first `filled` bytes are in use.
    staging: Vec<u8>,
    filled: usize,
    parts: Vec<Part>,
    kept: Vec<Payload>,
    // What the kernel reads; filled by `seal`.
    address: [u8; ADDR_LEN],
    control: Control,
    slices_out: Vec<libc::iovec>,
    message: libc::msghdr,
}

impl Train {
    /// An empty train.
    pub fn new() -> Box<Train> {
        Box::new(Train {
            to: unspecified(),
            class: 0,
            segment: 0,
            packets: 0,
            bytes: 0,
            slices: 0,
            closed: false,
            connected: false,
            staging: Vec::new(),
            filled: 0,
            parts: Vec::new(),
            kept: Vec::new(),
            address: [0; ADDR_LEN],
            control: Control::new(),
            slices_out: Vec::new(),
            message: empty_message(),
        })
    }

    /// Forgets all datagrams (keeping the memory) and sets destination and traffic class (the byte
    /// IP calls type of service).
    pub fn start(&mut self, to: SocketAddr, class: u8) {
        self.to = to;
        self.class = class;
        self.segment = 0;
        self.packets = 0;
        self.bytes = 0;
        self.slices = 0;
        self.closed = false;
        self.connected = false;
        self.filled = 0;
        self.parts.clear();
        self.kept.clear();
    }

    /// As [`Train::start`], for a socket that is connected to `to`.
    pub fn start_connected(&mut self, to: SocketAddr, class: u8) {
        self.start(to, class);
        self.connected = true;
    }

    /// Lets it leave by a socket that is not connected.
    pub fn disconnect(&mut self) {
        self.connected = false;
    }

    /// Whether it is for a socket that is connected to where it goes.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Whether a datagram of `len` bytes in at most `slices` slices may be added.
    pub fn fits(&self, len: usize, slices: usize) -> bool {
        if self.packets == 0 {
            return true;
        }
        !self.closed
            && len <= self.segment
            && len > 0
            && self.packets < MAX_SEGMENTS
            && self.bytes + len <= MAX_BYTES
            && self.slices + slices < MAX_SLICES
    }

    /// Adds one datagram: `header` is copied, `payload` is copied if short and kept otherwise.
    ///
    /// # Errors
    /// It does not fit; the payload comes back and nothing has changed.
    pub fn push(&mut self, header: &[u8], payload: Payload) -> Result<(), Payload> {
        let write = |out: &mut [u8]| out.copy_from_slice(header);
        let added = self.push_slice(header.len(), write, &payload, 0..payload.len());
        if added { Ok(()) } else { Err(payload) }
    }

    /// Adds one datagram: a header of so many bytes, which `write` writes where it is to lie, and a range of
    /// a message, which is copied if short and kept otherwise. False, changing nothing, if it does not fit.
    #[inline]
    pub fn push_slice(
        &mut self,
        header: usize,
        write: impl FnOnce(&mut [u8]),
        message: &Payload,
        range: Range<usize>,
    ) -> bool {
        let len = header + range.len();
        if range.len() > COPY_MAX {
            return self.push_kept(header, write, message.slice(range));
        }
        if !self.fits(len, 1) {
            return false;
        }
        let (head, body) = self.stage(len).split_at_mut(header);
        write(head);
        match message.as_slice() {
            Some(bytes) => body.copy_from_slice(&bytes[range]),
            None => {
                message.slice(range).copy_to(body);
            }
        }
        self.count(len, 1);
        true
    }

    /// As [`Train::push_slice`] with a payload that is kept.
    fn push_kept(&mut self, header: usize, write: impl FnOnce(&mut [u8]), payload: Payload) -> bool {
        let (len, slices) = (header + payload.len(), 1 + payload.chunks().count());
        if !self.fits(len, slices) {
            return false;
        }
        write(self.stage(header));
        self.parts.push(Part::Kept);
        self.kept.push(payload);
        self.count(len, slices);
        true
    }

    /// A datagram that fits has been added.
    #[inline]
    fn count(&mut self, len: usize, slices: usize) {
        if self.packets == 0 {
            self.segment = len;
        }
        self.closed = len < self.segment;
        self.packets += 1;
        self.bytes += len;
        self.slices += slices;
    }

    /// The next so many bytes of the staging memory, to be written.
    #[inline]
    fn stage(&mut self, bytes: usize) -> &mut [u8] {
        self.staged(bytes);
        let start = self.filled;
        self.filled += bytes;
        if self.filled > self.staging.len() {
            self.grow();
        }
        &mut self.staging[start..self.filled]
    }

    #[cold]
    fn grow(&mut self) {
        self.staging.resize(self.filled.next_power_of_two(), 0);
    }

    /// The next so many bytes of the staging memory are in use.
    #[inline]
    fn staged(&mut self, bytes: usize) {
        match self.parts.last_mut() {
            Some(Part::Staged(len)) => *len += bytes,
            _ => self.parts.push(Part::Staged(bytes)),
        }
    }

    /// Moves the only datagram of another train to the end of this one. False, changing nothing, if it
    /// does not fit.
    pub fn append(&mut self, other: &mut Train) -> bool {
        if other.packets != 1 || !self.fits(other.bytes, other.slices) {
            return false;
        }
        let mut staged = &other.staging[..other.filled];
        for part in other.parts.drain(..) {
            match part {
                Part::Staged(bytes) => {
                    let (head, rest) = staged.split_at(bytes);
                    self.stage(bytes).copy_from_slice(head);
                    staged = rest;
                }
                Part::Kept => self.parts.push(Part::Kept),
            }
        }
        self.kept.append(&mut other.kept);
        self.count(other.bytes, other.slices);
        other.start(other.to, other.class);
        true
    }

    /// Where it goes.
    pub fn to(&self) -> SocketAddr {
        self.to
    }

    /// The traffic class.
    pub fn class(&self) -> u8 {
        self.class
    }

    /// Number of datagrams.
    pub fn packets(&self) -> usize {
        self.packets
    }

    /// Bytes of all datagrams together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Size of all datagrams but the last.
    pub fn segment(&self) -> usize {
        self.segment
    }

    /// Takes the datagrams apart into trains of one, for kernels or routes that refuse trains.
    pub fn split(&self) -> impl Iterator<Item = Box<Train>> + '_ {
        let mut all = Vec::with_capacity(self.bytes);
        let (mut staged, mut kept) = (&self.staging[..self.filled], self.kept.iter());
        for part in &self.parts {
            match part {
                Part::Staged(len) => {
                    let (head, rest) = staged.split_at(*len);
                    all.extend_from_slice(head);
                    staged = rest;
                }
                Part::Kept => {
                    kept.next().into_iter().flat_map(Payload::chunks).for_each(|c| all.extend_from_slice(c))
                }
            }
        }
        let segment = self.segment.max(1);
        (0..self.packets).map(move |i| {
            let mut one = Train::new();
            one.start(self.to, self.class);
            one.connected = self.connected;
            let end = all.len().min((i + 1) * segment);
            let added = one.push(&all[(i * segment).min(end)..end], Payload::new());
            debug_assert!(added.is_ok(), "an empty train takes any datagram");
            one
        })
    }

    /// Writes the message header the kernel reads and returns its address. Everything it points to
    /// is owned by this train and does not move until the next `start` or `push`.
    pub(crate) fn seal(&mut self) -> *const libc::msghdr {
        self.seal_for(None)
    }

    /// As [`Train::seal`], for a socket whose own traffic class is `class`.
    pub(crate) fn seal_for(&mut self, class: Option<u8>) -> *const libc::msghdr {
        self.gather();
        self.control.clear();
        match self.to {
            _ if class == Some(self.class) => {}
            SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none() => {
                self.control.traffic_class(self.class)
            }
            _ => self.control.tos(self.class),
        }
        if self.packets > 1 {
            self.control.segment(self.segment as u16);
        }
        self.message = empty_message();
        // Sockets without addresses take no control messages either.
        let is_inet = self.to != unspecified();
        if is_inet && !self.connected {
            self.message.msg_namelen = encode(&self.to, &mut self.address) as u32;
            self.message.msg_name = self.address.as_mut_ptr().cast();
        }
        if is_inet && self.control.len > 0 {
            self.message.msg_control = self.control.bytes.as_mut_ptr().cast();
            self.message.msg_controllen = self.control.len;
        }
        self.message.msg_iov = self.slices_out.as_mut_ptr();
        self.message.msg_iovlen = self.slices_out.len();
        &raw const self.message
    }

    /// The bytes, if they are all there is to say: one slice, to where the socket is connected to, of the
    /// socket's own traffic class `class`.
    #[inline]
    pub(crate) fn lone_slice(&self, class: u8) -> Option<&[u8]> {
        match self.parts[..] {
            [Part::Staged(len)] if self.connected && self.packets == 1 && self.class == class => {
                Some(&self.staging[..len])
            }
            _ => None,
        }
    }

    fn gather(&mut self) {
        self.slices_out.clear();
        let (mut at, mut kept) = (0, self.kept.iter());
        for part in &self.parts {
            match *part {
                Part::Staged(len) => {
                    add(&mut self.slices_out, &self.staging[at..at + len]);
                    at += len;
                }
                Part::Kept => {
                    let chunks = kept.next().into_iter().flat_map(Payload::chunks);
                    chunks.for_each(|chunk| add(&mut self.slices_out, chunk));
                }
            }
        }
    }
}

/// Appends bytes; those that lie right behind the ones before, as pieces of one buffer do, make one
/// slice with them: the kernel takes 46 slices apart much slower than one.
fn add(slices: &mut Vec<libc::iovec>, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    if let Some(last) = slices.last_mut()
        && last.iov_base.addr() + last.iov_len == bytes.as_ptr().addr()
    {
        last.iov_len += bytes.len();
        return;
    }
    slices.push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gather__joins_pieces_of_one_buffer() {
        let whole = Payload::copy_from(&[7; 10_000]);
        let mut train = Train::new();
        for i in 0..10 {
            train.push(&[], whole.slice(i * 1000..(i + 1) * 1000)).unwrap();
        }
        train.gather();
        assert_eq!(train.slices_out.len(), 1);
        assert_eq!(train.slices_out[0].iov_len, 10_000);
        // With headers in between they are what they are.
        train.start(unspecified(), 0);
        for i in 0..10 {
            train.push(b"head", whole.slice(i * 1000..(i + 1) * 1000)).unwrap();
        }
        train.gather();
        assert_eq!(train.slices_out.iter().map(|s| s.iov_len).collect::<Vec<_>>(), [4, 1000].repeat(10));
    }

    #[test]
    fn append__adds_a_lone_datagram_and_nothing_else() {
        let to = SocketAddr::from(([127, 0, 0, 1], 9));
        let train = |payloads: &[&[u8]]| {
            let mut train = Train::new();
            train.start(to, 0);
            payloads.iter().for_each(|p| train.push(b"head", Payload::copy_from(p)).unwrap());
            train
        };
        let long = [7; 1000];
        let mut train_of_two = train(&[&long, &long]);
        assert!(!train_of_two.append(&mut train(&[b"a", b"b"])), "more than one");
        assert!(!train_of_two.append(&mut train(&[&[7; 1001]])), "longer than the others");
        let mut tail = train(&[&[8; 600]]);
        assert!(train_of_two.append(&mut tail));
        assert_eq!((tail.packets(), train_of_two.packets(), train_of_two.bytes()), (0, 3, 2 * 1004 + 604));
        assert!(!train_of_two.append(&mut train(&[b"c"])), "nothing follows a shorter one");
        let whole: Vec<u8> =
            train_of_two.split().flat_map(|one| one.staging[..one.filled].to_vec()).collect();
        let expected = [&b"head"[..], &long, b"head", &long, b"head", &[8; 600]].concat();
        assert_eq!(whole, expected);
    }
}
