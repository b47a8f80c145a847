//! A socket of its own for the host that a carriage socket talks with most.
//!
//! Looking up the way to a host and writing its address out is a good part of what a small packet
//! costs the kernel. A socket connected to the host does it once. Such a socket lies beside the
//! carriage socket, at the same address, and gets all packets of its host. It is worth one more
//! socket to look at only where nearly all packets come from one host; so there is one at most, it
//! comes after a long row of packets from one host, and goes when others are heard instead.

use std::net::SocketAddr;

use peyk_kevent::Source;

/// Trains in a row from one host before it gets a socket.
const OPEN_AFTER: u32 = 64;
/// Trains in a row by the shared socket before that socket goes.
const CLOSE_AFTER: u32 = 256;
/// Trains in a row by that socket before the shared one is looked at less often.
const RARE_AFTER: u32 = 64;
/// Points at which a socket that gets single packets is told to take trains: several in one poll
/// make two, one alone takes one away.
const CROWDED: u32 = 16;

/// The socket of one host.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) source: Source,
    /// The host, as the carriage socket writes addresses.
    pub(super) remote: SocketAddr,
    /// It receives trains.
    trains: bool,
    /// The latest poll that brought something, and how crowded polls are.
    poll: u64,
    crowd: u32,
}

impl Flow {
    pub(super) fn new(source: Source, remote: SocketAddr, trains: bool) -> Flow {
        Flow { source, remote, trains, poll: 0, crowd: 0 }
    }

    /// Something came in poll number `poll`; true if trains should be received from now on.
    pub(super) fn note(&mut self, poll: u64) -> bool {
        if self.trains {
            return false;
        }
        let again = std::mem::replace(&mut self.poll, poll) == poll;
        self.crowd = if again { self.crowd + 2 } else { self.crowd.saturating_sub(1) };
        self.trains = self.crowd >= CROWDED;
        self.trains
    }
}

/// From whom packets come.
#[derive(Debug, Default)]
pub(super) struct Watch {
    from: Option<SocketAddr>,
    /// Trains in a row from there by the shared socket, and how many of them were no single packets.
    streak: u32,
    joined: u32,
    /// Trains in a row by the shared socket, and by the host's own.
    shared: u32,
    own: u32,
    /// A socket failed here: no more of them.
    refused: bool,
}

/// What to do after a train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    /// Go on.
    Nothing,
    /// Open a socket for that host.
    Open { trains: bool },
    /// Close it.
    Close,
    /// The shared socket brings something: look at it as often as at the other.
    Share,
    /// The shared socket brings nothing.
    Rare,
}

impl Watch {
    /// A train of `packets` came from a host by the shared socket.
    pub(super) fn on_shared(&mut self, from: SocketAddr, packets: usize, has_flow: bool) -> Advice {
        let was_rare = self.own >= RARE_AFTER;
        self.own = 0;
        self.shared = self.shared.saturating_add(1);
        if self.from == Some(from) {
            self.streak += 1;
        } else {
            (self.from, self.streak, self.joined) = (Some(from), 1, 0);
        }
        self.joined += u32::from(packets > 1);
        if self.streak >= OPEN_AFTER {
            let trains = self.joined * 8 > self.streak;
            (self.streak, self.joined) = (0, 0);
            if !has_flow && !self.refused {
                self.shared = 0;
                return Advice::Open { trains };
            }
        }
        match has_flow {
            true if self.shared >= CLOSE_AFTER => Advice::Close,
            true if was_rare => Advice::Share,
            _ => Advice::Nothing,
        }
    }

    /// A train came by the host's own socket.
    pub(super) fn on_own(&mut self) -> Advice {
        self.shared = 0;
        self.own = self.own.saturating_add(1);
        if self.own == RARE_AFTER { Advice::Rare } else { Advice::Nothing }
    }

    /// The host's own socket is gone.
    pub(super) fn closed(&mut self) {
        *self = Watch { refused: self.refused, ..Watch::default() };
    }

    /// It failed, or could not be opened.
    pub(super) fn refuse(&mut self) {
        self.refused = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 9))
    }

    #[test]
    fn watch__opens_after_a_long_row_from_one_host() {
        let mut watch = Watch::default();
        for _ in 0..10 {
            for _ in 1..OPEN_AFTER {
                assert_eq!(watch.on_shared(host(1), 1, false), Advice::Nothing);
            }
            assert_eq!(watch.on_shared(host(2), 1, false), Advice::Nothing, "the row is broken");
        }
        for _ in 1..OPEN_AFTER {
            watch.on_shared(host(1), 1, false);
        }
        assert_eq!(watch.on_shared(host(1), 1, false), Advice::Open { trains: false });
    }

    #[test]
    fn watch__sees_whether_trains_come() {
        let mut watch = Watch::default();
        let last = (0..OPEN_AFTER).map(|i| watch.on_shared(host(1), 1 + i as usize % 2, false)).last();
        assert_eq!(last, Some(Advice::Open { trains: true }));
    }

    #[test]
    fn watch__closes_when_others_are_heard_instead() {
        let mut watch = Watch::default();
        for _ in 1..RARE_AFTER {
            assert_eq!(watch.on_own(), Advice::Nothing);
        }
        assert_eq!(watch.on_own(), Advice::Rare);
        assert_eq!(watch.on_shared(host(2), 1, true), Advice::Share);
        for _ in 2..CLOSE_AFTER {
            assert_eq!(watch.on_shared(host(2), 1, true), Advice::Nothing);
        }
        assert_eq!(watch.on_shared(host(2), 1, true), Advice::Close);
    }

    #[test]
    fn watch__a_failure_ends_it() {
        let mut watch = Watch::default();
        watch.refuse();
        watch.closed();
        assert!((0..1000).all(|_| watch.on_shared(host(1), 1, false) == Advice::Nothing));
    }
}
