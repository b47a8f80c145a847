//! Blocks that datagrams are received into, and the leases on them.
//!
//! A block is owned by exactly one of: the kernel (provided to the ring), the pool's free list, or one
//! [`RecvBuf`]. The first `provided` blocks circulate through the ring of io_uring; the others serve
//! plain calls, which write to the next free one, last used first so that they stay in cache.
//! Leases keep the memory alive, so they may outlive the queue.

use std::cell::RefCell;
use std::io;
use std::ops::Deref;
use std::rc::Rc;

use crate::sys::cmsg::RECV_ROOM;
use crate::sys::region::Region;

/// Largest train: what fits in an IP packet.
pub(crate) const PAYLOAD: usize = 65536;
/// Distance of blocks: payload, and room for the header multishot `recvmsg` writes before it.
pub(crate) const STRIDE: usize = PAYLOAD + 4096;
/// Room for a sender's address in that header.
pub(crate) const NAME_ROOM: usize = 32;
/// Bytes before the payload that multishot `recvmsg` uses: its own header, name, control data.
pub(crate) const MULTISHOT_HEAD: usize = CONTROL_AT + RECV_ROOM;
/// Where control data lies in a block, whichever call it came by.
pub(crate) const CONTROL_AT: usize = 16 + NAME_ROOM;

const _: () = assert!(MULTISHOT_HEAD < STRIDE - PAYLOAD && MULTISHOT_HEAD.is_multiple_of(64));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// The kernel may write to it at any time.
    Kernel,
    /// On a list of the pool.
    Pool,
    /// Leased out.
    Lease,
}

#[derive(Debug)]
struct Lists {
    owner: Vec<Owner>,
    /// Blocks for plain calls.
    free: Vec<u16>,
    /// Blocks on their way back to the ring.
    returned: Vec<u16>,
}

#[derive(Debug)]
pub(crate) struct Pool {
    region: Region,
    /// Bytes of a block.
    stride: usize,
    provided: u16,
    lists: RefCell<Lists>,
}

impl Pool {
    /// Blocks of `stride` bytes: `provided` for the ring, `direct` for plain calls.
    pub(crate) fn new(stride: usize, provided: u16, direct: u16) -> io::Result<Rc<Pool>> {
        let total = provided.checked_add(direct).ok_or(io::ErrorKind::InvalidInput)?;
        let size = usize::from(total).checked_mul(stride).ok_or(io::ErrorKind::InvalidInput)?;
        let region = Region::new(size.max(1))?;
        let lists = Lists {
            owner: vec![Owner::Pool; usize::from(total)],
            free: (provided..total).rev().collect(),
            returned: (0..provided).collect(),
        };
        Ok(Rc::new(Pool { region, stride, provided, lists: RefCell::new(lists) }))
    }

    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn provided(&self) -> u16 {
        self.provided
    }

    /// Address of a block, for the kernel.
    pub(crate) fn address(&self, block: u16) -> *mut u8 {
        self.region.at(usize::from(block) * self.stride)
    }

    /// The next block for a plain call, which may write to it until something else is done with the pool. It
    /// stays where it is: most calls bring nothing.
    pub(crate) fn peek(&self) -> Option<u16> {
        self.lists.borrow().free.last().copied()
    }

    /// A quarter of the blocks is free for plain calls, or has come back from them.
    pub(crate) fn has_quarter(&self) -> bool {
        let lists = self.lists.borrow();
        lists.free.len() * 4 >= lists.owner.len() - usize::from(self.provided)
    }

    /// Blocks that are leased out.
    pub(crate) fn leased(&self) -> usize {
        self.lists.borrow().owner.iter().filter(|owner| **owner == Owner::Lease).count()
    }

    pub(crate) fn has_free(&self) -> bool {
        !self.lists.borrow().free.is_empty()
    }

    fn put_back(&self, block: u16) {
        let mut lists = self.lists.borrow_mut();
        let owner = &mut lists.owner[usize::from(block)];
        debug_assert!(*owner != Owner::Pool, "block {block} returned twice");
        if *owner == Owner::Pool {
            return;
        }
        *owner = Owner::Pool;
        if block < self.provided { lists.returned.push(block) } else { lists.free.push(block) }
    }

    /// Number of blocks waiting to go back to the ring.
    pub(crate) fn returned(&self) -> usize {
        self.lists.borrow().returned.len()
    }

    /// Hands every returned block to the kernel through `provide`.
    pub(crate) fn provide(&self, mut provide: impl FnMut(u16)) {
        let mut lists = self.lists.borrow_mut();
        let Lists { owner, returned, .. } = &mut *lists;
        for block in returned.drain(..) {
            owner[usize::from(block)] = Owner::Kernel;
            provide(block);
        }
    }

    /// The plain call is done with `block`, the next free one, and wrote `len` bytes from `start`. `None` if it
    /// is not the next free one or they do not fit: then nothing changes hands.
    pub(crate) fn lease_free(self: &Rc<Pool>, block: u16, start: usize, len: usize) -> Option<RecvBuf> {
        let mut lists = self.lists.borrow_mut();
        if lists.free.last() != Some(&block) || start.checked_add(len)? > self.stride {
            return None;
        }
        lists.free.pop();
        lists.owner[usize::from(block)] = Owner::Lease;
        drop(lists);
        Some(RecvBuf { pool: self.clone(), block, start: start as u32, len: len as u32 })
    }

    /// The kernel is done with `block` and wrote `range` of it. `None` if the kernel did not own
    /// it or the range does not fit: then nothing changes hands.
    pub(crate) fn lease(self: &Rc<Pool>, block: u16, start: usize, len: usize) -> Option<RecvBuf> {
        let mut lists = self.lists.borrow_mut();
        let owner = lists.owner.get_mut(usize::from(block))?;
        if *owner != Owner::Kernel || start.checked_add(len)? > self.stride {
            return None;
        }
        *owner = Owner::Lease;
        drop(lists);
        Some(RecvBuf { pool: self.clone(), block, start: start as u32, len: len as u32 })
    }
}

/// Bytes received, in a block leased from the queue's pool; dropping it gives the block back.
#[derive(Debug)]
pub struct RecvBuf {
    pool: Rc<Pool>,
    block: u16,
    start: u32,
    len: u32,
}

impl RecvBuf {
    /// The same lease, showing less of the block.
    pub(crate) fn narrow(mut self, start: usize, len: usize) -> RecvBuf {
        assert!(start + len <= self.len as usize, "a lease cannot grow");
        self.start += start as u32;
        self.len = len as u32;
        self
    }

    /// `len` bytes from `at` of the block, in front of those shown: written there by the same call.
    pub(crate) fn head(&self, at: usize, len: usize) -> &[u8] {
        if len == 0 {
            return &[];
        }
        assert!(at + len <= self.start as usize, "the head ends where the lease begins");
        let start = self.pool.address(self.block).wrapping_add(at);
        crate::sys::region::bytes(&self.pool.region, start, len)
    }
}

impl Deref for RecvBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = self.pool.address(self.block).wrapping_add(self.start as usize);
        crate::sys::region::bytes(&self.pool.region, start, self.len as usize)
    }
}

impl Drop for RecvBuf {
    fn drop(&mut self) {
        self.pool.put_back(self.block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease__only_of_blocks_the_kernel_owns() {
        let pool = Pool::new(STRIDE, 2, 1).unwrap();
        assert!(pool.lease(0, 0, 1).is_none(), "still in the pool");
        assert!(pool.lease(9, 0, 1).is_none(), "no such block");
        let mut given = Vec::new();
        pool.provide(|b| given.push(b));
        assert_eq!(given, [0, 1]);
        assert!(pool.lease(0, 1, STRIDE).is_none(), "too long");
        let a = pool.lease(0, 8, 16).unwrap();
        assert!(pool.lease(0, 8, 16).is_none(), "leased already");
        assert_eq!(&*a, &[0; 16]);
        drop(a);
        assert_eq!(pool.returned(), 1);
    }

    #[test]
    fn lease_free__of_the_next_free_block_only_and_reuses_the_last() {
        let pool = Pool::new(STRIDE, 0, 2).unwrap();
        let a = pool.peek().unwrap();
        assert_eq!(pool.peek(), Some(a), "looking takes nothing");
        assert!(pool.lease_free(a, 1, STRIDE).is_none(), "too long");
        let first = pool.lease_free(a, 0, 1).unwrap();
        assert!(pool.lease_free(a, 0, 1).is_none(), "leased already");
        let b = pool.peek().unwrap();
        assert_ne!(a, b);
        let second = pool.lease_free(b, 0, 1).unwrap();
        assert_eq!(pool.peek(), None);
        drop(first);
        assert_eq!(pool.peek(), Some(a));
        drop(second);
        assert_eq!(pool.peek(), Some(b));
    }

    #[test]
    fn lease__outlives_the_queues_share() {
        let pool = Pool::new(STRIDE, 0, 1).unwrap();
        let block = pool.peek().unwrap();
        let lease = pool.lease_free(block, 0, 4).unwrap().narrow(1, 2);
        drop(pool);
        assert_eq!(lease.len(), 2);
    }
}
