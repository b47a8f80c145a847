//! Kafka: a signed 32-bit length before each request and response. Servers answer in order.

use super::{Frame, Framer, Meta, Resume, Spread, Verdict, be};

/// Requests and responses of Kafka.
#[derive(Clone, Copy, Debug)]
pub struct Kafka {
    /// Longest request, without its length; `socket.request.max.bytes` of a server.
    pub max: u64,
}

impl Default for Kafka {
    fn default() -> Kafka {
        Kafka { max: 100 << 20 }
    }
}

impl Framer for Kafka {
    fn frame(&mut self, bytes: &[u8], _: &mut Resume) -> Verdict {
        match bytes.get(..4).map(be) {
            None => Verdict::Need(4),
            Some(length) if length > i32::MAX as u64 => Verdict::broken("a negative length"),
            Some(length) if length > self.max => Verdict::too_big("longer than the configured limit"),
            Some(length) => {
                Verdict::Len(Frame { total: 4 + length, meta: Meta { header: 4, ..Meta::default() } })
            }
        }
    }

    fn spread(&self) -> Spread {
        Spread::Connection
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(*self)
    }
}
