//! Which of the eight network priorities a packet gets.
//!
//! Unscheduled data gets its level from the *receiver's* cutoffs: a table of
//! message lengths that the receiver computes from the sizes it sees and sends
//! in CUTOFFS packets. Scheduled data gets its level from grants (`grant.rs`),
//! all of them below the unscheduled levels.
//!
//! - [`PeerCutoffs`]: what a peer told us; used when we send to it.
//! - [`Cutoffs`]: our own table, with its version; measured and recomputed in
//!   place, no daemon. The computation itself is in `priority/compute.rs`.
//!
//! Nothing here sends packets: the endpoint compares versions and answers with
//! CUTOFFS at a limited rate.

use core::time::Duration;

use peyk_sansio::Instant;

mod compute;

pub use compute::{Histogram, SizeClass};

/// Priority levels on the wire; higher is more urgent.
pub const LEVELS: usize = 8;
/// A cutoff without limit, as written in CUTOFFS packets.
pub const UNLIMITED: u32 = 0x7fff_ffff;
/// A cutoff from here on means "every message": it is the largest message of
/// HomaModule, and its default table writes it in place of a real infinity.
pub const UNLIMITED_FROM: u32 = 1_000_000;
/// HomaModule's table before any measurement.
pub const DEFAULT_CUTOFFS: [u32; LEVELS] = [UNLIMITED, 0, 0, 0, 1_000_000, 15_000, 2_800, 200];

/// Priority of control packets.
pub fn control_priority(num_priorities: u8) -> u8 {
    num_priorities.clamp(1, LEVELS as u8) - 1
}

/// Brings a priority byte from the wire into range.
pub fn clamp_priority(priority: u8) -> u8 {
    priority.min(LEVELS as u8 - 1)
}

/// The cutoffs a peer has asked us to use when sending to it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct PeerCutoffs {
    cutoffs: [u32; LEVELS],
    version: u16,
}

impl PeerCutoffs {
    /// Before any CUTOFFS packet: version 0, every message one level below the
    /// top (or at 0 if there is no such level).
    pub fn initial(num_priorities: u8) -> PeerCutoffs {
        let mut cutoffs = [0; LEVELS];
        cutoffs[0] = UNLIMITED;
        cutoffs[control_priority(num_priorities).saturating_sub(1) as usize] = UNLIMITED;
        PeerCutoffs { cutoffs, version: 0 }
    }

    /// Takes the table of a received CUTOFFS packet. Entry 0 is ignored: the
    /// lowest level takes every length.
    pub fn set(&mut self, cutoffs: &[u32; LEVELS], version: u16) {
        self.cutoffs = *cutoffs;
        self.cutoffs[0] = UNLIMITED;
        self.version = version;
    }

    /// Version to echo in DATA to this peer; 0 before any CUTOFFS packet.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Priority of unscheduled data of a message of `length` bytes: the highest
    /// level whose cutoff is not below the length.
    pub fn unscheduled_priority(&self, length: u32, num_priorities: u8) -> u8 {
        let mut level = control_priority(num_priorities);
        while level > 0 {
            let cutoff = self.cutoffs[level as usize];
            if cutoff >= length || cutoff >= UNLIMITED_FROM {
                return level;
            }
            level -= 1;
        }
        0
    }
}

/// Settings of [`Cutoffs`].
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct CutoffsConfig {
    /// Levels in use, clamped to 1..=8.
    pub num_priorities: u8,
    /// Table to start with; made consistent on the way in.
    pub cutoffs: [u32; LEVELS],
    /// Unscheduled bytes per message, as senders apply it to us.
    pub unsched_bytes: u32,
    /// Whether `maybe_recompute` may change the table.
    pub adaptive: bool,
    /// Least time between two computations.
    pub interval: Duration,
    /// Least number of messages a computation is based on.
    pub min_messages: u64,
}

impl Default for CutoffsConfig {
    fn default() -> CutoffsConfig {
        CutoffsConfig {
            num_priorities: 8,
            cutoffs: DEFAULT_CUTOFFS,
            unsched_bytes: 40_000,
            adaptive: true,
            interval: Duration::from_secs(1),
            min_messages: 10_000,
        }
    }
}

/// Our own table: what peers shall use when sending to us.
#[derive(Clone, Debug)]
pub struct Cutoffs {
    config: CutoffsConfig,
    table: [u32; LEVELS],
    version: u16,
    max_sched_prio: u8,
    sizes: Histogram,
    /// Deciles of the sizes the table was computed from.
    deciles: Option<[u32; 9]>,
    next_at: Option<Instant>,
}

impl Cutoffs {
    /// A table at version 1.
    pub fn new(mut config: CutoffsConfig) -> Cutoffs {
        config.num_priorities = config.num_priorities.clamp(1, LEVELS as u8);
        let mut cutoffs = Cutoffs {
            config,
            table: [0; LEVELS],
            version: 0,
            max_sched_prio: 0,
            sizes: Histogram::new(),
            deciles: None,
            next_at: None,
        };
        cutoffs.install(config.cutoffs);
        cutoffs
    }

    /// Replaces the table, makes it consistent and raises the version. Levels above those in use are cut
    /// off, as in HomaModule, unless every message would be left with the lowest: then the cutoffs are thinned
    /// out evenly.
    pub fn install(&mut self, cutoffs: [u32; LEVELS]) {
        let levels = self.config.num_priorities as usize;
        self.table = [0; LEVELS];
        self.table[..levels].copy_from_slice(&cutoffs[..levels]);
        let upper = &mut self.table[1..levels];
        if upper.iter().all(|&cutoff| cutoff == 0) {
            let given = || cutoffs[1..].iter().copied().filter(|&cutoff| cutoff != 0);
            let (count, places) = (given().count(), upper.len());
            for (at, place) in upper.iter_mut().enumerate() {
                *place = given().nth((2 * at + 1) * count / (2 * places)).unwrap_or(0);
            }
        }
        self.table[0] = UNLIMITED;
        let lowest_unscheduled = (0..LEVELS).rev().find(|&i| self.table[i] >= UNLIMITED_FROM);
        self.max_sched_prio = (lowest_unscheduled.unwrap_or(0) as u8).saturating_sub(1);
        // 0 on the wire means "no CUTOFFS seen", so the version skips it.
        self.version = self.version.checked_add(1).unwrap_or(1);
    }

    /// Takes the table of another endpoint of the same host over, with its version.
    pub fn adopt(&mut self, version: u16, table: [u32; LEVELS]) {
        self.install(table);
        self.version = version;
    }

    /// Changes the number of levels in use; the next computation installs its
    /// result whatever the sizes are.
    pub fn set_num_priorities(&mut self, num_priorities: u8) {
        self.config.num_priorities = num_priorities.clamp(1, LEVELS as u8);
        self.deciles = None;
        self.install(self.table);
    }

    /// Counts a received message of `length` bytes.
    #[inline]
    pub fn record(&mut self, length: u32) {
        if self.config.adaptive {
            self.sizes.record(length);
        }
    }

    /// Recomputes the table if the interval has passed, enough messages came
    /// and their sizes have drifted. Returns true if the table changed: then
    /// `version` and `max_sched_prio` have new values.
    pub fn maybe_recompute(&mut self, now: Instant) -> bool {
        if !self.config.adaptive || self.config.num_priorities < 2 {
            return false;
        }
        let due = *self.next_at.get_or_insert(now + self.config.interval);
        if now < due {
            return false;
        }
        self.next_at = Some(now + self.config.interval);
        if self.sizes.messages() < self.config.min_messages {
            return false;
        }
        let deciles = self.sizes.deciles();
        let levels = self.config.num_priorities;
        let has_drifted = self.deciles.is_none_or(|old| compute::drift(&old, &deciles) >= 1.0);
        if has_drifted {
            let table = compute::cutoffs(&self.sizes, levels, self.config.unsched_bytes);
            self.install(table);
            self.deciles = Some(deciles);
        }
        self.sizes.clear();
        has_drifted
    }

    /// The table as it stands in CUTOFFS packets.
    pub fn table(&self) -> &[u32; LEVELS] {
        &self.table
    }

    /// The level of unscheduled data of a message of this length.
    pub fn level_of(&self, length: u32) -> u8 {
        PeerCutoffs { cutoffs: self.table, version: self.version }
            .unscheduled_priority(length, self.config.num_priorities)
    }

    /// Version of the table, never 0.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Highest priority for scheduled data: one below the lowest unscheduled level.
    pub fn max_sched_prio(&self) -> u8 {
        self.max_sched_prio
    }

    /// Levels in use.
    pub fn num_priorities(&self) -> u8 {
        self.config.num_priorities
    }
}

#[cfg(test)]
mod tests;
