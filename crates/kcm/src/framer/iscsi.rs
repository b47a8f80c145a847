//! Storage and queues whose length is not one plain field: iSCSI and AMQP.

use super::{Frame, Framer, Meta, Resume, Spread, Verdict, be};

/// Protocol data units of iSCSI; digests are on or off for a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Iscsi {
    /// A checksum of four bytes follows the header.
    pub header_digest: bool,
    /// A checksum of four bytes follows the data, if there is any.
    pub data_digest: bool,
}

impl Framer for Iscsi {
    fn frame(&mut self, bytes: &[u8], _: &mut Resume) -> Verdict {
        let Some(header) = bytes.get(..48) else { return Verdict::Need(48) };
        let additional = 4 * u64::from(header[4]);
        let data = be(&header[5..8]);
        let header_digest = if self.header_digest { 4 } else { 0 };
        let data_digest = if self.data_digest && data > 0 { 4 } else { 0 };
        let before = 48 + additional + header_digest;
        let total = before + data.next_multiple_of(4) + data_digest;
        let meta = Meta { key: Some(be(&header[16..20]) as u32), class: 0, header: before as u32 };
        Verdict::Len(Frame { total, meta })
    }

    fn spread(&self) -> Spread {
        Spread::Any
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(*self)
    }
}

/// Frames of AMQP 0-9-1 and 1.0, and the eight bytes that open a connection.
#[derive(Clone, Copy, Debug)]
pub struct Amqp {
    is_one: bool,
}

impl Amqp {
    /// AMQP 0-9-1, as RabbitMQ speaks it.
    pub fn zero_nine_one() -> Amqp {
        Amqp { is_one: false }
    }

    /// AMQP 1.0.
    pub fn one() -> Amqp {
        Amqp { is_one: true }
    }

    fn old(bytes: &[u8]) -> Verdict {
        let Some(header) = bytes.get(..7) else { return Verdict::Need(7) };
        if !matches!(header[0], 1..=4 | 8) {
            return Verdict::broken("an unknown type of frame");
        }
        let total = 8 + be(&header[3..7]);
        match bytes.get(total as usize - 1) {
            Some(0xce) => Verdict::keyed(total, 7, be(&header[1..3]) as u32),
            Some(_) => Verdict::broken("a frame ends with 0xCE"),
            None => Verdict::Need(total as usize),
        }
    }
}

impl Framer for Amqp {
    fn frame(&mut self, bytes: &[u8], _: &mut Resume) -> Verdict {
        match bytes {
            [b'A', ..] => {
                let known = bytes.len().min(4);
                match bytes[..known] == b"AMQP"[..known] {
                    false => Verdict::broken("neither a frame nor a protocol header"),
                    true if known < 4 => Verdict::Need(4),
                    true => Verdict::len(8),
                }
            }
            _ if !self.is_one => Amqp::old(bytes),
            _ => match bytes.get(..8) {
                None => Verdict::Need(8),
                Some(header) if be(&header[..4]) < 8 || header[4] < 2 => {
                    Verdict::broken("a frame shorter than its header")
                }
                Some(header) => Verdict::keyed(be(&header[..4]), 8, be(&header[6..8]) as u32),
            },
        }
    }

    fn spread(&self) -> Spread {
        Spread::Key
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(*self)
    }
}
