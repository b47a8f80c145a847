//! PostgreSQL's protocol 3: the first messages of a client have no type byte, all others do.

use super::{Framer, Resume, Spread, Verdict, be};

/// Messages of PostgreSQL in one direction of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Postgres {
    phase: Phase,
    first: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// A client before its startup message: a length and a code.
    Startup,
    /// A server that may be asked for encryption: its answer is one bare byte.
    Answer,
    /// A type byte and a length.
    Typed,
}

const STARTUP_MAX: u64 = 10_000;
const SSL_REQUEST: u64 = 80_877_103;
const GSS_REQUEST: u64 = 80_877_104;
const MESSAGE_MAX: u64 = 1 << 30;

impl Postgres {
    /// What a client sends.
    pub fn client() -> Postgres {
        Postgres { phase: Phase::Startup, first: Phase::Startup }
    }

    /// What a server sends. With `asked` the client has asked for encryption and the first byte is the
    /// answer to it.
    pub fn server(asked: bool) -> Postgres {
        let first = if asked { Phase::Answer } else { Phase::Typed };
        Postgres { phase: first, first }
    }
}

impl Framer for Postgres {
    fn frame(&mut self, bytes: &[u8], _: &mut Resume) -> Verdict {
        match self.phase {
            Phase::Answer => match bytes.first() {
                None => Verdict::Need(1),
                Some(b'S' | b'N' | b'G') => Verdict::len(1),
                Some(_) => Verdict::broken("neither S, N nor G answers a request for encryption"),
            },
            Phase::Startup => match bytes.get(..4).map(be) {
                None => Verdict::Need(4),
                Some(length @ 8..=STARTUP_MAX) => Verdict::framed(length, 4),
                Some(_) => Verdict::broken("invalid length of startup packet"),
            },
            Phase::Typed => match bytes.get(1..5).map(be) {
                None => Verdict::Need(5),
                Some(length) if length < 4 => Verdict::broken("a length below four"),
                Some(length) if length > MESSAGE_MAX => Verdict::too_big("a message of more than 1 GiB"),
                Some(length) => Verdict::framed(1 + length, 5),
            },
        }
    }

    fn finished(&mut self, message: &[u8]) {
        self.phase = match self.phase {
            // After a request for encryption comes another startup message (or TLS, which is not for us).
            Phase::Startup if matches!(be(&message[4..8]), SSL_REQUEST | GSS_REQUEST) => Phase::Startup,
            _ => Phase::Typed,
        };
    }

    fn spread(&self) -> Spread {
        Spread::Connection
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(Postgres { phase: self.first, first: self.first })
    }
}
