//! The reading end of a stream: looks at any range of what is there, as often as it likes, and lets go of
//! what it needs no more. Allocates nothing.

use core::cell::Cell;
use core::fmt;
use core::ops::Range;
use core::ptr;

use bytes::Bytes;

use super::chain::{Block, Chunk, Data, EXTENTS, Held};
use super::{End, Shared};
use crate::doorbell::Wake;
use crate::payload::Payload;
use crate::sync::{Arc, Ordering, Site, order};

/// The end that takes bytes out. There is one, and it cannot be cloned:
///
/// ```compile_fail,E0599
/// let (_writer, reader) = peyk_sockbuf::stream::stream(Default::default());
/// let second = reader.clone();
/// ```
///
/// nor used by two threads at once:
///
/// ```compile_fail,E0277
/// let (_writer, reader) = peyk_sockbuf::stream::stream(Default::default());
/// std::thread::scope(|scope| { scope.spawn(|| reader.readable()); });
/// ```
///
/// and what it shows cannot outlive the release of it:
///
/// ```compile_fail,E0502
/// let (_writer, mut reader) = peyk_sockbuf::stream::stream(Default::default());
/// let slices = reader.view(0..1);
/// reader.consume(1);
/// slices.count();
/// ```
pub struct Reader {
    shared: Arc<Shared>,
    /// Bytes below are consumed, and how much of that the writer may know.
    at: u64,
    released: u64,
    /// Released when the writer was last rung for.
    rung: u64,
    /// Released at the latest when that many bytes are consumed.
    release_every: u64,
    /// Published when last looked.
    seen: u64,
    /// As of the same look: how it ends, with nothing to come beyond `seen`.
    end: Option<End>,
    urgent: u64,
    /// The extent that `at` lies in or at the end of. Not to be followed while `at == seen`: the writer may
    /// have given up the chain.
    cursor: Place,
    /// The extent looked at last; not before `cursor`.
    hint: Cell<Place>,
    run: Run,
    /// Ring for the writer whatever was released.
    must_ring: bool,
    snapshots: u64,
}

/// Bytes that lie side by side in a chunk and were seen published: a read of some of them need not look for
/// its extent. Those at `at` or beyond are there, for their extent is not passed.
struct Run {
    chunk: *const Chunk,
    /// Position of the chunk's first byte, had it been written to from there on.
    base: u64,
    /// Position after the last of them.
    end: u64,
}

/// An extent and its first position.
#[derive(Copy, Clone)]
struct Place {
    block: *mut Block,
    index: usize,
    start: u64,
}

/// What a reader saw when it looked once. A pass of a protocol decides everything by it: what may be sent,
/// whether that is all, whether the end follows.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// First position not consumed.
    pub from: u64,
    /// Position after the last byte published.
    pub to: u64,
    /// How the stream ends at `to`, if nothing can follow.
    pub end: Option<End>,
    /// Position after the urgent byte, if it is not consumed; may lie beyond `to`.
    pub urgent: Option<u64>,
}

// SAFETY: as for the writer: which end may access what does not depend on the thread it is on.
unsafe impl Send for Reader {}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Reader {
        let nowhere = Place { block: ptr::null_mut(), index: 0, start: 0 };
        let limit = shared.both.limit.load(Ordering::Relaxed);
        Reader {
            shared,
            at: 0,
            released: 0,
            rung: 0,
            release_every: (limit / 8).max(1),
            seen: 0,
            end: None,
            urgent: 0,
            cursor: nowhere,
            hint: Cell::new(nowhere),
            run: Run { chunk: ptr::null(), base: 0, end: 0 },
            must_ring: false,
            snapshots: 0,
        }
    }

    /// Bytes that can be read, at least. Does not look; only consuming lowers it.
    #[inline]
    pub fn readable(&self) -> usize {
        (self.seen - self.at) as usize
    }

    /// Position of the first byte not consumed.
    #[inline]
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Takes a snapshot: looks once what was published, and how it ends.
    #[inline]
    pub fn refresh(&mut self) -> Snapshot {
        self.snapshots += 1;
        self.look();
        Snapshot { from: self.at, to: self.seen, end: self.end, urgent: self.urgent() }
    }

    /// Snapshots taken so far.
    pub fn snapshots(&self) -> u64 {
        self.snapshots
    }

    /// How the stream ended, once everything before the end was consumed.
    pub fn end(&self) -> Option<End> {
        self.end.filter(|_| self.at == self.seen)
    }

    /// Position after the urgent byte, as of the last look, if it is not consumed.
    pub fn urgent(&self) -> Option<u64> {
        (self.urgent > self.at).then_some(self.urgent)
    }

    /// True if the next byte to read is the first after the urgent one.
    pub fn is_at_mark(&self) -> bool {
        self.urgent != 0 && self.urgent == self.at
    }

    /// The bytes of a range, in slices that are not empty. May be asked again and in any order until they
    /// are consumed.
    ///
    /// # Panics
    /// If the range does not lie within the last snapshot.
    #[inline]
    pub fn view(&self, range: Range<u64>) -> Slices<'_> {
        assert!(
            range.start >= self.at && range.end <= self.seen,
            "looking at {range:?} of a stream of which {}..{} is there",
            self.at,
            self.seen
        );
        if range.is_empty() {
            return Slices { reader: self, place: self.cursor, at: 0, end: 0 };
        }
        let place = self.find(range.start);
        self.hint.set(place);
        Slices { reader: self, place, at: range.start, end: range.end }
    }

    /// The bytes of a range as counted slices that outlive their release, for a driver that is not done when
    /// the peer has acknowledged them, or for an application that keeps them. Few bytes are copied.
    ///
    /// # Panics
    /// As [`Reader::view`].
    pub fn hold(&self, range: Range<u64>) -> Payload {
        let mut held = Payload::new();
        let mut slices = self.view(range);
        while let Some((place, from, len)) = slices.step() {
            held.push(self.bytes_at(place, from, len));
        }
        held
    }

    /// Consumes everything below `to`: it can no longer be looked at. The writer learns it with the next
    /// [`Reader::release`], or at once if much has come together.
    ///
    /// # Panics
    /// If `to` lies below what is consumed or above the last snapshot.
    #[inline]
    pub fn consume(&mut self, to: u64) {
        assert!(to >= self.at && to <= self.seen, "consuming up to {to} of {}..{}", self.at, self.seen);
        if to == self.at {
            return;
        }
        while let Some(next) = self.successor(self.cursor).filter(|next| next.start <= to) {
            self.drop_lent(u64::MAX);
            self.cursor = next;
        }
        self.drop_lent(to);
        if self.hint.get().start < self.cursor.start {
            self.hint.set(self.cursor);
        }
        self.at = to;
        if self.at - self.released >= self.release_every {
            self.release();
        }
    }

    /// Tells the writer what was consumed.
    #[inline]
    pub fn release(&mut self) {
        if self.released != self.at {
            self.released = self.at;
            self.shared.readers.released.store(self.at, order(Site::StreamRelease, Ordering::Release));
        }
    }

    /// Tells the writer what was consumed, and wakes it if it sleeps and that is enough for it: after the
    /// last consumption of a turn. True if it had to wake it.
    #[inline]
    pub fn wake_writer(&mut self, wake: &impl Wake) -> bool {
        self.release();
        if core::mem::take(&mut self.must_ring) {
            self.rung = self.released;
            return self.shared.both.writer_sleep.ring_always(wake);
        }
        if self.rung == self.released {
            return false;
        }
        self.rung = self.released;
        self.shared.both.writer_sleep.ring(self.released, wake)
    }

    /// Copies bytes out and consumes them; returns how many. Looks anew only if nothing is known to be there.
    /// Does not read across the urgent mark.
    #[inline]
    pub fn read(&mut self, to: &mut [u8]) -> usize {
        if self.at == self.seen {
            self.look();
        }
        let next = self.at + to.len() as u64;
        if next > self.run.end {
            return self.read_extents(to);
        }
        if !to.is_empty() {
            // SAFETY: the run ends beyond `at`, so the extent that holds the chunk is not passed.
            let chunk = unsafe { &*self.run.chunk };
            // SAFETY: published, as was seen when the run was noted.
            to.copy_from_slice(unsafe {
                chunk.read((self.at.wrapping_sub(self.run.base)) as usize, to.len())
            });
            self.at = next;
            if self.at - self.released >= self.release_every {
                self.release();
            }
        }
        to.len()
    }

    fn read_extents(&mut self, to: &mut [u8]) -> usize {
        let stop = self.urgent().map_or(self.seen, |mark| mark.min(self.seen));
        let count = ((stop - self.at) as usize).min(to.len());
        let mut done = 0;
        for slice in self.view(self.at..self.at + count as u64) {
            to[done..done + slice.len()].copy_from_slice(slice);
            done += slice.len();
        }
        self.consume(self.at + count as u64);
        if self.at < self.seen {
            self.note_run();
        }
        count
    }

    /// Notes the run that begins at `at`, if bytes were copied there. Only while `at < seen`.
    fn note_run(&mut self) {
        let mark = self.urgent().unwrap_or(u64::MAX);
        let end = self.successor(self.cursor).map_or(self.seen, |next| next.start).min(self.seen).min(mark);
        // SAFETY: as in `successor`.
        let extent = unsafe { &(&(*self.cursor.block).extents)[self.cursor.index] };
        // SAFETY: as in `slice_at`.
        extent.data.with(|data| match unsafe { &*data } {
            Data::Copied(chunk, offset) => {
                let base = self.cursor.start.wrapping_sub(u64::from(*offset));
                self.run = Run { chunk: Arc::as_ptr(chunk), base, end };
            }
            _ => self.run.end = 0,
        });
    }

    /// Wants nothing more: the writer is told, and woken if it sleeps.
    pub fn close(&mut self, wake: &impl Wake) {
        self.shared.readers.closed.store(true, Ordering::Release);
        self.shared.both.writer_sleep.ring_always(wake);
    }

    /// Most bytes that may be queued.
    pub fn limit(&self) -> usize {
        self.shared.both.limit.load(Ordering::Relaxed) as usize
    }

    /// Changes the limit; see [`Writer::set_limit`](super::Writer::set_limit). A sleeping writer learns it by
    /// the next [`Reader::wake_writer`].
    pub fn set_limit(&mut self, limit: usize) {
        self.shared.both.limit.store(limit as u64, Ordering::Relaxed);
        self.release_every = (limit as u64 / 8).max(1);
        self.must_ring = true;
    }

    /// Announces that this end sleeps until `low_water` bytes can be read (at most half the limit, so that
    /// this end and the writer cannot wait for each other), and looks again. True: sleep now, until woken.
    /// False: there is something to do (enough bytes, or the end). Afterwards, in either case,
    /// [`Reader::cancel_sleep`]. A writer that waits is told what was consumed, and woken by `wake`.
    pub fn prepare_sleep(&mut self, low_water: usize, wake: &impl Wake) -> bool {
        self.must_ring = true;
        self.wake_writer(wake);
        let most = (self.limit() as u64).div_ceil(2).max(1);
        let low_water = (low_water as u64).clamp(1, most);
        self.shared.both.reader_sleep.arm(self.at + low_water);
        self.look();
        self.seen - self.at < low_water && self.end.is_none()
    }

    /// Awake again, or did not go to sleep after all.
    pub fn cancel_sleep(&mut self) {
        self.shared.both.reader_sleep.disarm();
    }

    #[inline]
    fn look(&mut self) {
        let shared = &self.shared.writers;
        // The end first: what is published before it cannot be missed then.
        let end = shared.end.load(order(Site::StreamEndFirst, Ordering::Acquire));
        let published = shared.published.load(Ordering::Acquire);
        if published != self.seen {
            if self.at == self.seen && shared.restart.load(Ordering::Relaxed) == self.at {
                let block = shared.head.load(Ordering::Relaxed);
                self.cursor = Place { block, index: 0, start: self.at };
                self.hint.set(self.cursor);
            }
            self.seen = published;
            self.urgent = shared.urgent.load(Ordering::Relaxed);
        }
        self.end = End::decode(end);
    }

    /// The extent with the byte at `position`, which was published and not consumed.
    #[inline]
    fn find(&self, position: u64) -> Place {
        let hint = self.hint.get();
        let mut place = if hint.start <= position { hint } else { self.cursor };
        while let Some(next) = self.successor(place).filter(|next| next.start <= position) {
            place = next;
        }
        place
    }

    /// The extent after this one, if bytes of it were seen published. Only while `at < seen`.
    #[inline]
    fn successor(&self, place: Place) -> Option<Place> {
        // SAFETY: a place at or after the cursor, whose block the writer keeps while `at < seen`: it takes
        // back only extents whose successor we have begun to release, and gives up the chain only when
        // everything is released.
        let block = unsafe { &*place.block };
        let next = if place.index + 1 < EXTENTS {
            let start = block.extents[place.index + 1].start.load(Ordering::Relaxed);
            Place { index: place.index + 1, start, ..place }
        } else {
            let next = block.next.load(order(Site::StreamLink, Ordering::Acquire));
            if next.is_null() {
                return None;
            }
            // SAFETY: linked, so initialised (Acquire), and kept as above.
            let start = unsafe { (&(*next).extents)[0].start.load(Ordering::Relaxed) };
            Place { block: next, index: 0, start }
        };
        // Not in use, or not yet published: no position below `seen`.
        (next.start < self.seen).then_some(next)
    }

    /// Drops what was lent in the cursor's extent, if it ends at or before `to`.
    #[inline]
    fn drop_lent(&mut self, to: u64) {
        // SAFETY: as in `successor`.
        let extent = unsafe { &(&(*self.cursor.block).extents)[self.cursor.index] };
        let start = self.cursor.start;
        // SAFETY: the writer does not touch the data of an extent in use before it is reclaimed, which needs
        // us to have left it; nothing borrows it, because views borrow the reader.
        let lent = extent.data.with_mut(|data| unsafe {
            match &*data {
                Data::Lent(bytes) if to >= start + bytes.len() as u64 => {
                    Some(core::mem::replace(&mut *data, Data::Nothing))
                }
                _ => None,
            }
        });
        drop(lent);
    }

    /// `len` bytes of an extent, beginning `from` bytes into it.
    #[inline]
    fn slice_at(&self, place: Place, from: usize, len: usize) -> &[u8] {
        // SAFETY: as in `successor`.
        let extent = unsafe { &(&(*place.block).extents)[place.index] };
        // SAFETY: set before its first byte was published, and not changed while anything of it is not
        // consumed; what it refers to stays as long, and we are borrowed meanwhile.
        extent.data.with(|data| match unsafe { &*data } {
            // SAFETY: published, as the caller has made sure by `seen`; the extent holds the chunk.
            Data::Copied(chunk, offset) => unsafe { chunk.read(*offset as usize + from, len) },
            // SAFETY: extends the borrow of `data` to that of `self`, as just said.
            Data::Lent(bytes) => unsafe { &*ptr::from_ref(&bytes[from..from + len]) },
            Data::Nothing => unreachable!("an extent in use has data"),
        })
    }

    /// As [`Reader::slice_at`], counted.
    fn bytes_at(&self, place: Place, from: usize, len: usize) -> Bytes {
        // SAFETY: as in `successor`.
        let extent = unsafe { &(&(*place.block).extents)[place.index] };
        // SAFETY: as in `slice_at`.
        extent.data.with(|data| match unsafe { &*data } {
            Data::Copied(chunk, offset) => {
                Bytes::from_owner(Held { chunk: chunk.clone(), offset: *offset as usize + from, len })
            }
            Data::Lent(bytes) => bytes.slice(from..from + len),
            Data::Nothing => unreachable!("an extent in use has data"),
        })
    }
}

impl Drop for Reader {
    /// The writer finds out at its next look; who drops the reader wakes it if it sleeps.
    fn drop(&mut self) {
        self.shared.readers.closed.store(true, Ordering::Release);
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("position", &self.at)
            .field("readable", &self.readable())
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// The slices of a range: see [`Reader::view`].
#[derive(Clone)]
pub struct Slices<'a> {
    reader: &'a Reader,
    place: Place,
    at: u64,
    end: u64,
}

impl<'a> Slices<'a> {
    /// The next part: its extent, where in that it starts, and its length.
    #[inline]
    fn step(&mut self) -> Option<(Place, usize, usize)> {
        if self.at == self.end {
            return None;
        }
        let place = self.place;
        let next = self.reader.successor(place);
        let end = next.map_or(self.end, |next| next.start.min(self.end));
        let from = (self.at - place.start) as usize;
        let len = (end - self.at) as usize;
        self.at = end;
        self.place = next.unwrap_or(place);
        Some((place, from, len))
    }
}

impl<'a> Iterator for Slices<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let reader = self.reader;
        self.step().map(|(place, from, len)| reader.slice_at(place, from, len))
    }
}

impl fmt::Debug for Slices<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slices({}..{})", self.at, self.end)
    }
}
