//! Memory that several calls fill or empty, and how far they got: what reads and receives have in
//! common, and what writes and sends have.

use crate::buf::{Data, IoBuf, Registration};
use crate::event::{Operands, What};

/// Slices handed to the kernel at once.
pub(crate) const SLICES: usize = 64;

/// A buffer that is being read into.
#[derive(Debug)]
pub(crate) struct Filling {
    buf: IoBuf,
    done: usize,
}

impl Filling {
    pub(crate) fn new(buf: IoBuf) -> Filling {
        Filling { buf, done: 0 }
    }

    /// Where the next call puts what it reads, and how much at most.
    pub(crate) fn rest(&mut self) -> (*mut u8, usize) {
        let rest = &mut self.buf[self.done..];
        (rest.as_mut_ptr(), rest.len())
    }

    pub(crate) fn done(&self) -> usize {
        self.done
    }

    /// Whether a ring knows the buffer.
    pub(crate) fn known(&self) -> Option<Registration> {
        self.buf.registration()
    }

    /// Notes what a call brought; true if there is room for more.
    pub(crate) fn note(&mut self, count: u64) -> bool {
        self.done += count as usize;
        self.done < self.buf.len()
    }

    /// The event that gives the buffer back.
    pub(crate) fn read(&mut self) -> What {
        What::Read { bytes: self.done, buf: std::mem::take(&mut self.buf) }
    }

    pub(crate) fn take(&mut self) -> (u64, Operands) {
        (self.done as u64, Operands::Buf(std::mem::take(&mut self.buf)))
    }
}

/// Data that is being written or sent.
#[derive(Debug)]
pub(crate) struct Emptying {
    data: Data,
    len: usize,
    done: usize,
}

impl Emptying {
    pub(crate) fn new(data: Data) -> Emptying {
        let len = data.len();
        Emptying { data, len, done: 0 }
    }

    pub(crate) fn left(&self) -> usize {
        self.len - self.done
    }

    pub(crate) fn done(&self) -> u64 {
        self.done as u64
    }

    /// What is left, if it lies in one piece.
    pub(crate) fn piece(&self) -> Option<&[u8]> {
        (self.data.parts() == 1).then(|| &self.data.slice(0)[self.done..])
    }

    /// Appends what is left, as far as the list has room for the slices; false if it has not.
    pub(crate) fn gather(&self, slices: &mut Vec<libc::iovec>) -> bool {
        let mut skip = self.done;
        for part in 0..self.data.parts() {
            let slice = self.data.slice(part);
            let rest = &slice[skip.min(slice.len())..];
            skip = skip.saturating_sub(slice.len());
            if rest.is_empty() {
                continue;
            }
            if slices.len() >= SLICES {
                return false;
            }
            slices.push(libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() });
        }
        true
    }

    /// Notes what a call moved; true if that was all.
    pub(crate) fn note(&mut self, count: u64) -> bool {
        self.done = (self.done + count as usize).min(self.len);
        self.done == self.len
    }

    /// Bytes moved, and the data.
    pub(crate) fn take(&mut self) -> (u64, Data) {
        (self.done as u64, std::mem::take(&mut self.data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peyk_sockbuf::Bytes;

    #[test]
    fn gather__goes_on_where_the_last_call_stopped() {
        let parts: Vec<Bytes> = [&b"abc"[..], b"", b"de"].iter().map(|p| Bytes::copy_from_slice(p)).collect();
        let mut emptying = Emptying::new(parts.into());
        assert!(emptying.piece().is_none());
        for (note, expected) in [(0, &[3usize, 2][..]), (1, &[2, 2]), (2, &[2]), (1, &[1])] {
            assert!(!emptying.note(note));
            let mut slices = Vec::new();
            assert!(emptying.gather(&mut slices));
            assert_eq!(slices.iter().map(|s| s.iov_len).collect::<Vec<_>>(), expected);
        }
        assert!(emptying.note(1));
        assert_eq!(emptying.take().0, 5);
    }

    #[test]
    fn gather__stops_when_the_list_is_full() {
        let parts: Vec<Bytes> = (0..SLICES + 1).map(|_| Bytes::from_static(b"x")).collect();
        let mut slices = Vec::new();
        assert!(!Emptying::new(parts.into()).gather(&mut slices));
        assert_eq!(slices.len(), SLICES);
    }
}
