//! Memory that operations own while they are in flight: what is sent, and what is read into.
//!
//! There is no way to lend memory to an operation: it is moved in and comes back with the last event.

use std::io;
use std::ops::{Deref, DerefMut};

use peyk_sockbuf::Bytes;

use crate::pool::RecvBuf;
use crate::sys::region::Region;

/// Memory to read into or write from. Comes back with the operation's last event, so that it can be
/// used again without allocating.
#[derive(Debug)]
pub struct IoBuf {
    memory: Memory,
    len: usize,
    registration: Option<Registration>,
}

/// Where a ring keeps the pages of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Registration {
    pub(crate) ring: u64,
    pub(crate) index: u16,
}

#[derive(Debug)]
enum Memory {
    Heap(Vec<u8>),
    /// Aligned to pages, as files opened for direct access demand.
    Pages(Region),
}

impl IoBuf {
    /// `len` zeroes, aligned to pages: fit for direct file access.
    ///
    /// # Errors
    /// The system has no memory to give.
    pub fn aligned(len: usize) -> io::Result<IoBuf> {
        Ok(IoBuf { memory: Memory::Pages(Region::new(len.max(1))?), len, registration: None })
    }

    /// Shows only the first `len` bytes, or more of the memory again; at most [`IoBuf::capacity`].
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "a buffer cannot grow beyond its memory");
        self.len = len;
    }

    /// Bytes of memory, shown or not. All of them are initialised.
    pub fn capacity(&self) -> usize {
        match &self.memory {
            Memory::Heap(vec) => vec.len(),
            Memory::Pages(region) => region.len(),
        }
    }

    /// The shown bytes as a vector; copies if the memory is aligned.
    pub fn into_vec(self) -> Vec<u8> {
        match self.memory {
            Memory::Heap(mut vec) => {
                vec.truncate(self.len);
                vec
            }
            Memory::Pages(_) => self.to_vec(),
        }
    }

    /// Address and length of its memory, if it has pages of its own.
    pub(crate) fn pages(&self) -> Option<(*mut u8, usize)> {
        match &self.memory {
            Memory::Heap(_) => None,
            Memory::Pages(region) => Some((region.base(), region.len())),
        }
    }

    pub(crate) fn registration(&self) -> Option<Registration> {
        self.registration
    }

    pub(crate) fn set_registration(&mut self, registration: Option<Registration>) {
        self.registration = registration;
    }

    pub(crate) fn is_empty_memory(&self) -> bool {
        self.len == 0
    }
}

impl From<Vec<u8>> for IoBuf {
    /// The vector's elements, not its spare capacity.
    fn from(vec: Vec<u8>) -> IoBuf {
        let len = vec.len();
        IoBuf { memory: Memory::Heap(vec), len, registration: None }
    }
}

impl Default for IoBuf {
    fn default() -> IoBuf {
        Vec::new().into()
    }
}

impl Deref for IoBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Heap(vec) => &vec[..self.len],
            Memory::Pages(region) => &region.as_slice()[..self.len],
        }
    }
}

impl DerefMut for IoBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Heap(vec) => &mut vec[..self.len],
            Memory::Pages(region) => &mut region.as_mut_slice()[..self.len],
        }
    }
}

/// What a send or write takes its bytes from.
#[derive(Debug)]
#[non_exhaustive]
pub enum Data {
    /// Shared, immutable bytes.
    Bytes(Bytes),
    /// Several of them, gathered by the kernel.
    Parts(Vec<Bytes>),
    /// A buffer that comes back.
    Buf(IoBuf),
    /// Bytes as they were received: the block itself, without a copy.
    Lease(RecvBuf),
}

impl Data {
    /// Number of bytes.
    pub fn len(&self) -> usize {
        match self {
            Data::Parts(parts) => parts.iter().map(Bytes::len).sum(),
            other => other.slice(0).len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of slices the bytes lie in.
    pub(crate) fn parts(&self) -> usize {
        match self {
            Data::Parts(parts) => parts.len(),
            _ => 1,
        }
    }

    /// One of the slices.
    pub(crate) fn slice(&self, part: usize) -> &[u8] {
        match self {
            Data::Bytes(bytes) => bytes,
            Data::Parts(parts) => parts.get(part).map_or(&[], |p| p),
            Data::Buf(buf) => buf,
            Data::Lease(lease) => lease,
        }
    }

    /// All bytes in one vector.
    pub fn to_vec(&self) -> Vec<u8> {
        (0..self.parts()).flat_map(|i| self.slice(i)).copied().collect()
    }
}

impl Default for Data {
    fn default() -> Data {
        Data::Bytes(Bytes::new())
    }
}

impl From<Bytes> for Data {
    fn from(bytes: Bytes) -> Data {
        Data::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Data {
    fn from(vec: Vec<u8>) -> Data {
        Data::Buf(vec.into())
    }
}

impl From<&'static [u8]> for Data {
    fn from(bytes: &'static [u8]) -> Data {
        Data::Bytes(Bytes::from_static(bytes))
    }
}

impl<const N: usize> From<&'static [u8; N]> for Data {
    fn from(bytes: &'static [u8; N]) -> Data {
        Data::Bytes(Bytes::from_static(bytes))
    }
}

impl From<&'static str> for Data {
    fn from(text: &'static str) -> Data {
        Data::Bytes(Bytes::from_static(text.as_bytes()))
    }
}

impl From<Vec<Bytes>> for Data {
    fn from(parts: Vec<Bytes>) -> Data {
        Data::Parts(parts)
    }
}

impl From<IoBuf> for Data {
    fn from(buf: IoBuf) -> Data {
        Data::Buf(buf)
    }
}

impl From<RecvBuf> for Data {
    fn from(lease: RecvBuf) -> Data {
        Data::Lease(lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer__shows_what_it_is_told() {
        let mut buf = IoBuf::from(vec![1, 2, 3]);
        buf.set_len(2);
        assert_eq!(&*buf, &[1, 2]);
        buf.set_len(3);
        assert_eq!(buf.into_vec(), [1, 2, 3]);
        let mut pages = IoBuf::aligned(5000).unwrap();
        assert_eq!(pages.as_ptr() as usize % 4096, 0);
        pages[4999] = 7;
        assert_eq!(pages.into_vec()[4999], 7);
    }

    #[test]
    fn data__is_the_same_bytes_whatever_it_lies_in() {
        let parts = Data::from(vec![Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"c")]);
        assert_eq!((parts.len(), parts.parts(), parts.to_vec()), (3, 3, b"abc".to_vec()));
        assert_eq!(Data::from("abc").to_vec(), b"abc");
        assert!(Data::default().is_empty());
    }
}
