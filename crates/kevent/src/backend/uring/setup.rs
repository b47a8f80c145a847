//! Setting up a ring, and trying out what it can do.

use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Fd, RecvMsgOut, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use peyk_sockbuf::Payload;

use crate::backend::uring::{CANCEL, GROUP, TEST, Uring};
use crate::core::Core;
use crate::pool::NAME_ROOM;
use crate::sys::addr::unspecified;
use crate::sys::cmsg::RECV_ROOM;
use crate::sys::socket;

impl Uring {
    /// Receives one datagram as a stream does, and cancels it: the op codes being there says
    /// nothing about what they can do.
    pub(super) fn self_test(&mut self, core: &Core) -> io::Result<()> {
        let (ours, theirs) = socket::pair()?;
        let mut template = Box::new(socket::empty_message());
        template.msg_namelen = NAME_ROOM as u32;
        template.msg_controllen = RECV_ROOM;
        self.blocks.provide(&core.pool);
        let mut train = crate::train::Train::new();
        train.start(unspecified(), 0);
        train.push(b"self-test", Payload::new()).map_err(|_| io::ErrorKind::InvalidInput)?;
        socket::send(theirs.as_raw_fd(), &mut train, None)?;
        let receive = opcode::RecvMsgMulti::new(Fd(ours.as_raw_fd()), &raw const *template, GROUP).build();
        self.test_push(&receive.user_data(TEST))?;
        let seen = self.test_reap(1)?;
        let verdict = match seen.first() {
            Some(&(TEST, result, flags)) if result >= 0 && cqueue::more(flags) => {
                self.test_content(core, result as usize, flags, &template)
            }
            Some(&(_, result, _)) if result < 0 => Err(io::Error::from_raw_os_error(-result)),
            _ => Err(io::Error::other("multishot recvmsg did not stay armed")),
        };
        if self.in_kernel > 0 {
            let cancel = opcode::AsyncCancel2::new(CancelBuilder::user_data(TEST)).build();
            self.test_push(&cancel.user_data(CANCEL))?;
            self.test_reap(2)?;
        }
        if self.in_kernel > 0 {
            std::mem::forget((template, ours, theirs));
            return Err(io::Error::other("a cancelled operation did not end"));
        }
        verdict
    }

    fn test_content(
        &mut self,
        core: &Core,
        len: usize,
        flags: u32,
        template: &libc::msghdr,
    ) -> io::Result<()> {
        let block = cqueue::buffer_select(flags).ok_or_else(|| io::Error::other("no block was used"))?;
        self.blocks.consumed();
        let buf = core.pool.lease(block, 0, len).ok_or_else(|| io::Error::other("not a block of ours"))?;
        match RecvMsgOut::parse(&buf, template) {
            Ok(head) if head.payload_data() == b"self-test" => Ok(()),
            _ => Err(io::Error::other("multishot recvmsg delivered something else")),
        }
    }

    fn test_push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the template and sockets live in `self_test` until the completion was seen, or
        // are leaked there.
        unsafe { self.ring.submission().push(entry) }
            .map_err(|_| io::Error::other("submission queue full"))?;
        self.in_kernel += 1;
        Ok(())
    }

    fn test_reap(&mut self, want: usize) -> io::Result<Vec<(u64, i32, u32)>> {
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut seen = Vec::new();
        while seen.len() < want && Instant::now() < deadline {
            let time = Timespec::from(Duration::from_millis(100));
            match self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time)) {
                Ok(_) => {}
                Err(e) if matches!(e.raw_os_error(), Some(libc::ETIME | libc::EINTR)) => {}
                Err(e) => return Err(e),
            }
            for c in self.ring.completion() {
                self.in_kernel -= usize::from(!cqueue::more(c.flags()));
                seen.push((c.user_data(), c.result(), c.flags()));
            }
        }
        Ok(seen)
    }
}

/// Builds the ring with the most useful flags the kernel takes, and with fewer completions than
/// asked for if there is not enough memory: rings are charged to what a user may lock. Begins with
/// the flags of `level`.
pub(super) fn build(entries: u32, cq: u32, level: u32) -> Result<(IoUring, Vec<&'static str>), String> {
    let mut last = String::new();
    let mut cq = cq;
    let mut level = level;
    while level < LEVELS {
        let (builder, flags) = builder(level, cq);
        match builder.build(entries) {
            Ok(ring) => return Ok((ring, flags)),
            Err(e) => {
                last = format!("io_uring_setup: {e}");
                match e.raw_os_error() {
                    Some(libc::EINVAL) => level += 1,
                    Some(libc::ENOMEM) if cq / 2 >= entries.max(64) => cq /= 2,
                    _ => break,
                }
            }
        }
    }
    Err(last)
}

/// Sets of flags, from the most useful to none.
pub(super) const LEVELS: u32 = 4;

fn builder(level: u32, cq: u32) -> (io_uring::Builder, Vec<&'static str>) {
    let mut builder = IoUring::builder();
    let mut flags = vec!["CQSIZE"];
    builder.setup_cqsize(cq);
    if level < 3 {
        builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
        flags.extend(["COOP_TASKRUN", "TASKRUN_FLAG", "SUBMIT_ALL"]);
    }
    if level < 2 {
        builder.setup_single_issuer().setup_defer_taskrun();
        flags.extend(["SINGLE_ISSUER", "DEFER_TASKRUN"]);
    }
    if level < 1 {
        builder.setup_no_sqarray();
        flags.push("NO_SQARRAY");
    }
    (builder, flags)
}
