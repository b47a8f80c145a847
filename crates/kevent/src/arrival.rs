//! Datagrams that arrived, and what the kernel says about them.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use crate::pool::{CONTROL_AT, RecvBuf};
use crate::sys::cmsg;

/// Datagrams of equal size (the last may be shorter) that one sender sent to one socket.
///
/// What the kernel says beside the bytes stays as it came, in the block, and is read when asked for:
/// it costs nothing if nobody asks. All of it but the segment has to be wished for when the socket
/// is opened, see [`udp::Options`](crate::udp::Options).
#[derive(Debug)]
pub struct Datagrams {
    /// The sender; unspecified for sockets without addresses.
    pub from: SocketAddr,
    buf: RecvBuf,
    /// Bytes in each datagram but the last; 0 means there is one datagram.
    segment: u32,
    /// Bytes of control data in front of the payload.
    control: u16,
    truncated: bool,
}

impl Datagrams {
    /// `control` bytes of control data lie at [`CONTROL_AT`] in the block of `buf`.
    pub(crate) fn new(from: SocketAddr, buf: RecvBuf, control: usize, truncated: bool) -> Datagrams {
        let segment = if control == 0 { 0 } else { cmsg::gro_segment(buf.head(CONTROL_AT, control)) };
        let control = u16::try_from(control).unwrap_or(0);
        Datagrams { from, buf, segment, control, truncated }
    }

    /// The datagrams, in the order of arrival. A single empty datagram yields one empty slice.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let data: &[u8] = &self.buf;
        let step = if self.segment == 0 { data.len().max(1) } else { self.segment as usize };
        let empty = data.is_empty().then_some(data);
        data.chunks(step).chain(empty)
    }

    /// All bytes together.
    pub fn bytes(&self) -> &[u8] {
        &self.buf
    }

    /// The block the bytes lie in, which goes back to the pool when dropped.
    pub fn into_buf(self) -> RecvBuf {
        self.buf
    }

    /// The last datagram was longer than a block and was cut.
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// Bytes of each datagram but the last, if they came as a train.
    pub fn segment(&self) -> Option<usize> {
        (self.segment > 0).then_some(self.segment as usize)
    }

    fn control(&self) -> impl Iterator<Item = cmsg::Received<'_>> {
        cmsg::read(self.buf.head(CONTROL_AT, self.control.into()))
    }

    /// The traffic class they came with (the byte IP calls type of service), if
    /// [`class`](crate::udp::Options::class) was wished for. Its lowest two bits are what routers
    /// say of congestion (ECN).
    pub fn class(&self) -> Option<u8> {
        self.control().find_map(|c| c.class())
    }

    /// The address they were sent to, which is one of this host's or a group's, and the number of the
    /// interface they came by, if [`destination`](crate::udp::Options::destination) was wished for.
    pub fn destination(&self) -> Option<(IpAddr, u32)> {
        self.control().find_map(|c| c.destination())
    }

    /// When they reached this host, if [`time`](crate::udp::Options::time) was wished for.
    pub fn arrival(&self) -> Option<SystemTime> {
        let since = self.control().find_map(|c| c.time())?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::new(since.0, since.1))
    }
}
