//! Cutoffs between the priorities of unscheduled data, computed from the sizes of a workload as the
//! simulator behind the Homa paper does it: every level carries the same number of bytes on the wire.
//!
//! What is shared out are the packets that use these levels: those of the first RTTbytes of each message,
//! those of its last RTTbytes (whose grants are raised), each at the level of the bytes left of its message,
//! and the grants, which count as the shortest messages.

use crate::topology::SHORTEST_FRAME;
use crate::workload::Sizes;

/// Bytes of a message in a full packet.
const PACKET: u32 = 1_442;
/// Bytes of a packet on the wire that are not of the message: Ethernet, IP, UDP and the transport.
const OVERHEAD: u32 = 96;

/// The largest message of each level for unscheduled data but the lowest, highest level first. `first` and
/// `last` are the bytes at the beginning and at the end of a message that use these levels. Fewer cutoffs than
/// asked for if the sizes do not allow more.
pub fn balanced(sizes: &Sizes, levels: u8, first: u32, last: u32) -> Vec<u32> {
    let mut shares = shares(sizes, first, last);
    shares.sort_unstable_by_key(|&(left, _)| left);
    let total: f64 = shares.iter().map(|&(_, bytes)| bytes).sum();
    let mut cutoffs: Vec<u32> = Vec::new();
    let mut sum = 0.0;
    for (left, bytes) in shares {
        sum += bytes;
        let level = cutoffs.len() as f64 + 1.0;
        if level >= f64::from(levels) {
            break;
        }
        if sum >= total * level / f64::from(levels) && cutoffs.last().is_none_or(|&last| left > last) {
            cutoffs.push(left.max(1));
        }
    }
    cutoffs
}

/// Bytes left of a message when a packet of it is sent, and how many bytes such packets have on the wire, per
/// message of the workload.
fn shares(sizes: &Sizes, first: u32, last: u32) -> Vec<(u32, f64)> {
    let mut shares = Vec::new();
    let mut below = 0.0;
    for point in sizes.points() {
        let (share, size) = (point.share - below, point.size);
        below = point.share;
        for at in (0..size.min(first)).step_by(PACKET as usize) {
            let length = PACKET.min(size.min(first) - at);
            shares.push((size - at, share * f64::from(length + OVERHEAD)));
        }
        let scheduled = size.saturating_sub(first);
        for at in (0..scheduled.min(last)).step_by(PACKET as usize) {
            let left = scheduled.min(last) - at;
            shares.push((left, share * f64::from(PACKET.min(left) + OVERHEAD)));
        }
        shares.push((0, share * f64::from(scheduled.div_ceil(PACKET)) * f64::from(SHORTEST_FRAME)));
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::published_cutoffs;
    use crate::workload::{Encoding, Name};

    fn of(name: Name, levels: u8) -> Vec<u32> {
        balanced(&Sizes::of(name, Encoding::Simulation, 1), levels, 9_328, 10_000)
    }

    #[test]
    fn balanced__is_near_the_published_cutoffs() {
        for (name, levels) in [(Name::W1, 7), (Name::W2, 5), (Name::W3, 4)] {
            let (ours, theirs) = (of(name, levels), published_cutoffs(name));
            assert_eq!(ours.len(), theirs.len(), "{name}: {ours:?}");
            for (a, b) in ours.iter().zip(theirs) {
                let ratio = f64::from(*a) / f64::from(*b);
                assert!((0.8..1.25).contains(&ratio), "{name}: {ours:?}, published {theirs:?}");
            }
        }
    }

    #[test]
    fn balanced__grows_and_has_as_many_as_asked_for() {
        for levels in 1..=7 {
            let cutoffs = of(Name::W1, levels);
            assert_eq!(cutoffs.len(), usize::from(levels) - 1, "{cutoffs:?}");
            assert!(cutoffs.is_sorted_by(|a, b| a < b), "{cutoffs:?}");
        }
    }

    #[test]
    fn balanced__one_size_has_one_level() {
        assert_eq!(balanced(&Sizes::uniform(&[500]), 4, 10_000, 10_000), [500]);
    }
}
