//! The counters, by the names of the kernel's headers. Each has one writer: the mux.

/// `struct kcm_stats`: of one KCM socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SocketStats {
    /// Messages handed over, the last byte of them.
    pub rx_msgs: u64,
    /// Bytes handed over, without what was truncated or only peeked at.
    pub rx_bytes: u64,
    /// Messages queued.
    pub tx_msgs: u64,
    /// Bytes taken from the sender.
    pub tx_bytes: u64,
}

/// `struct kcm_psock_stats`: of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PsockStats {
    /// Messages complete.
    pub rx_msgs: u64,
    /// Bytes taken from the stream.
    pub rx_bytes: u64,
    /// Times the receive side was stopped by an error.
    pub rx_aborts: u64,
    /// Times the framer handed the stream back.
    pub rx_interrupted: u64,
    /// Times it wanted to when bytes had been taken.
    pub rx_unrecov_intr: u64,
    /// Times reading stopped for lack of memory.
    pub rx_mem_fail: u64,
    /// Calls of the framer that found the header incomplete.
    pub rx_need_more_hdr: u64,
    /// Messages above the limit.
    pub rx_msg_too_big: u64,
    /// Messages not complete in time.
    pub rx_msg_timeouts: u64,
    /// Headers that make no sense.
    pub rx_bad_hdr_len: u64,
    /// Streams that ended inside a message.
    pub rx_truncated: u64,
    /// Messages taken by the stream.
    pub tx_msgs: u64,
    /// Bytes taken by it, also of messages later sent elsewhere.
    pub tx_bytes: u64,
    /// Times it was reserved for a sender.
    pub reserved: u64,
    /// Times it was given back.
    pub unreserved: u64,
    /// Times its transmit side was stopped by an error.
    pub tx_aborts: u64,
}

impl PsockStats {
    /// Adds the counters of another connection.
    pub fn add(&mut self, other: &PsockStats) {
        self.rx_msgs += other.rx_msgs;
        self.rx_bytes += other.rx_bytes;
        self.rx_aborts += other.rx_aborts;
        self.rx_interrupted += other.rx_interrupted;
        self.rx_unrecov_intr += other.rx_unrecov_intr;
        self.rx_mem_fail += other.rx_mem_fail;
        self.rx_need_more_hdr += other.rx_need_more_hdr;
        self.rx_msg_too_big += other.rx_msg_too_big;
        self.rx_msg_timeouts += other.rx_msg_timeouts;
        self.rx_bad_hdr_len += other.rx_bad_hdr_len;
        self.rx_truncated += other.rx_truncated;
        self.tx_msgs += other.tx_msgs;
        self.tx_bytes += other.tx_bytes;
        self.reserved += other.reserved;
        self.unreserved += other.unreserved;
        self.tx_aborts += other.tx_aborts;
    }
}

/// `struct kcm_mux_stats`: of a mux. The sums are exact: connections that are there plus those that were.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MuxStats {
    /// Messages complete, over all connections ever attached.
    pub rx_msgs: u64,
    /// Bytes taken from them.
    pub rx_bytes: u64,
    /// Messages taken by them.
    pub tx_msgs: u64,
    /// Bytes taken by them.
    pub tx_bytes: u64,
    /// Parked messages dropped when their connection was taken off.
    pub rx_ready_drops: u64,
    /// Messages begun anew on another connection.
    pub tx_retries: u64,
    /// Connections attached.
    pub psock_attach: u64,
    /// Connections taken off.
    pub psock_unattach: u64,
    /// Of these, while a sender had them.
    pub psock_unattach_rsvd: u64,
}
