//! Cutoffs from measured message sizes.
//!
//! The share of levels given to unscheduled data equals its share of all
//! incoming bytes; the cutoffs are chosen so that each of these levels carries
//! the same number of unscheduled bytes, shorter messages higher. Sizes are
//! counted in the buckets HomaModule reports (64 bytes wide up to 4 KiB, 1 KiB
//! wide up to 128 KiB, one for the rest), but messages are counted exactly
//! instead of being estimated from the bytes of their bucket.

use super::{LEVELS, UNLIMITED, UNLIMITED_FROM};

const FINE_STEP: u32 = 64;
const FINE_LIMIT: u32 = 4096;
const COARSE_STEP: u32 = 1024;
const COARSE_LIMIT: u32 = 131_072;
const FINE: usize = (FINE_LIMIT / FINE_STEP) as usize;
const CLASSES: usize = FINE + ((COARSE_LIMIT - FINE_LIMIT) / COARSE_STEP) as usize;

/// Messages of one range of lengths.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct SizeClass {
    /// Number of messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Lengths of received messages since the last computation.
#[derive(Clone, Debug)]
pub struct Histogram {
    classes: Box<[SizeClass; CLASSES]>,
    large: SizeClass,
    messages: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

impl Histogram {
    /// No messages.
    pub fn new() -> Histogram {
        Histogram {
            classes: Box::new([SizeClass::default(); CLASSES]),
            large: SizeClass::default(),
            messages: 0,
        }
    }

    /// Counts one message.
    #[inline]
    pub fn record(&mut self, length: u32) {
        let class = match class_of(length) {
            Some(at) => &mut self.classes[at],
            None => &mut self.large,
        };
        class.messages += 1;
        class.bytes += u64::from(length);
        self.messages += 1;
    }

    /// Messages counted.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Starts again from zero.
    pub fn clear(&mut self) {
        *self.classes = [SizeClass::default(); CLASSES];
        self.large = SizeClass::default();
        self.messages = 0;
    }

    /// The classes that hold messages, with the largest length of each, in
    /// ascending order. Messages above the last class are not among them.
    pub fn classes(&self) -> impl Iterator<Item = (u32, SizeClass)> {
        let filled = self.classes.iter().enumerate().filter(|(_, class)| class.messages > 0);
        filled.map(|(at, &class)| (max_size(at), class))
    }

    /// Lengths below which 10 %, 20 % ... 90 % of the messages lie.
    pub fn deciles(&self) -> [u32; 9] {
        let mut deciles = [UNLIMITED_FROM; 9];
        let mut sum = 0;
        let mut next = 0;
        for (size, class) in self.classes() {
            sum += class.messages;
            while next < 9 && sum * 10 >= self.messages * (next as u64 + 1) {
                deciles[next] = size;
                next += 1;
            }
        }
        deciles
    }
}

/// How far two decile vectors lie apart: 0 for equal ones, at most 9.
pub(super) fn drift(a: &[u32; 9], b: &[u32; 9]) -> f64 {
    let term = |(&a, &b): (&u32, &u32)| {
        let (a, b) = (f64::from(a), f64::from(b));
        (a - b).abs() / a.max(b).max(1.0)
    };
    a.iter().zip(b).map(term).sum()
}

/// The table for these sizes with `levels` (2..=8) priorities.
pub(super) fn cutoffs(sizes: &Histogram, levels: u8, unsched_bytes: u32) -> [u32; LEVELS] {
    let levels = u64::from(levels);
    let limit = u64::from(unsched_bytes);
    let unscheduled = |size: u32, class: SizeClass| {
        if size <= unsched_bytes { class.bytes } else { class.bytes.min(class.messages * limit) }
    };
    let large = sizes.large.bytes.min(sizes.large.messages * limit);
    let total_unsched = sizes.classes().map(|(size, c)| unscheduled(size, c)).sum::<u64>() + large;
    let total = sizes.classes().map(|(_, c)| c.bytes).sum::<u64>() + sizes.large.bytes;

    let unsched_levels = (2 * levels * total_unsched + total) / (2 * total).max(1);
    let unsched_levels = unsched_levels.clamp(1, levels);
    let per_level =
        if unsched_levels < levels { 1 + total_unsched / unsched_levels } else { 1 + total / levels };

    let mut table = [0; LEVELS];
    let mut level = levels as usize - 1;
    let mut target = per_level;
    let mut sum = 0;
    for (size, class) in sizes.classes() {
        if target >= total_unsched || level == 0 {
            break;
        }
        sum += unscheduled(size, class);
        if sum >= target {
            table[level] = size;
            level -= 1;
            target = sum + per_level;
        }
    }
    table[..=level].fill(UNLIMITED_FROM);
    table[0] = UNLIMITED;
    table
}

fn class_of(length: u32) -> Option<usize> {
    if length <= FINE_LIMIT {
        Some((length.saturating_sub(1) / FINE_STEP) as usize)
    } else if length <= COARSE_LIMIT {
        Some(FINE + ((length - FINE_LIMIT - 1) / COARSE_STEP) as usize)
    } else {
        None
    }
}

fn max_size(at: usize) -> u32 {
    if at < FINE { (at as u32 + 1) * FINE_STEP } else { FINE_LIMIT + (at - FINE + 1) as u32 * COARSE_STEP }
}
