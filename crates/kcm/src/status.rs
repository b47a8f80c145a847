//! The state of muxes in the kernel's two texts (`/proc/net/kcm`, `/proc/net/kcm_stats`), with right
//! numbers, and for Prometheus.

use core::fmt::Write;

use crate::psock::Psock;
use crate::socket::Socket;
use crate::stats::{MuxStats, PsockStats, SocketStats};

/// One mux at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MuxSnapshot {
    /// Counters of the mux.
    pub mux: MuxStats,
    /// Counters of all its connections, past ones included.
    pub psock_sum: PsockStats,
    /// Its sockets.
    pub sockets: Vec<SocketSnapshot>,
    /// Its connections.
    pub psocks: Vec<PsockSnapshot>,
}

/// One socket.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SocketSnapshot {
    /// Its number.
    pub index: u32,
    /// Its counters.
    pub stats: SocketStats,
    /// Messages and bytes waiting to be received.
    pub rx_queue: (usize, usize),
    /// Messages waiting to be sent.
    pub tx_queue: usize,
    /// The words of the status column.
    pub words: Vec<String>,
}

/// One connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PsockSnapshot {
    /// Its number.
    pub index: u32,
    /// Its counters.
    pub stats: PsockStats,
    /// Bytes received and not delivered, bytes waiting to be sent.
    pub queues: (usize, usize),
    /// The words of the status column.
    pub words: Vec<String>,
}

impl MuxSnapshot {
    pub(crate) fn take<'a>(
        mux: MuxStats,
        psock_sum: PsockStats,
        sockets: impl Iterator<Item = (u32, &'a Socket)>,
        psocks: impl Iterator<Item = (u32, &'a Psock)>,
    ) -> MuxSnapshot {
        MuxSnapshot {
            mux,
            psock_sum,
            sockets: sockets.map(|(index, socket)| SocketSnapshot::take(index, socket)).collect(),
            psocks: psocks.map(|(index, psock)| PsockSnapshot::take(index, psock)).collect(),
        }
    }
}

impl SocketSnapshot {
    fn take(index: u32, socket: &Socket) -> SocketSnapshot {
        let mut words = Vec::new();
        words.extend(socket.reserved.map(|psock| format!("Psck-{}", psock.index)));
        words.extend(socket.is_tx_waiting.then(|| "TxWait".to_owned()));
        words.extend(socket.wants_room.then(|| "WMore".to_owned()));
        words.extend(socket.in_line.then(|| "RxWait".to_owned()));
        SocketSnapshot {
            index,
            stats: socket.stats,
            rx_queue: (socket.queue.len() + usize::from(socket.reading.is_some()), socket.charged),
            tx_queue: socket.tx.len() + usize::from(socket.open.is_some()),
            words,
        }
    }
}

impl PsockSnapshot {
    fn take(index: u32, psock: &Psock) -> PsockSnapshot {
        let mut words = Vec::new();
        words.extend((psock.is_down && psock.tx_stopped).then(|| "Done".to_owned()));
        words.extend(psock.tx_stopped.then(|| "TxStop".to_owned()));
        words.extend(psock.ending.is_some().then(|| "RxStop".to_owned()));
        words.extend(psock.reserved.map(|socket| format!("Rsvd-{}", socket.index())));
        if psock.parked.is_some() || psock.backlog_len > 0 {
            words.push("RxPause".to_owned());
            words.extend(psock.in_ready.then(|| "RdyRx".to_owned()));
        } else if psock.assembler.have() > 0 {
            words.push(format!("RxWait={}", psock.assembler.missing()));
        }
        let sending = psock.direct.iter().map(|message| message.len).sum::<usize>();
        PsockSnapshot { index, stats: psock.stats, queues: (psock.held_bytes(), sending), words }
    }
}

/// `/proc/net/kcm` of these muxes.
pub fn kcm(muxes: &[MuxSnapshot]) -> String {
    let mut out = format!("*** KCM statistics ({} MUX) ****\n", muxes.len());
    let head = ["RX-Msgs", "RX-Bytes", "TX-Msgs", "TX-Bytes", "Recv-Q", "Rmem", "Send-Q", "Smem", "Status"];
    line(&mut out, "Object", head.map(str::to_owned));
    let dash = || "-".to_owned();
    for mux in muxes {
        let status = format!("KCMs: {}, Psocks {}", mux.sockets.len(), mux.psocks.len());
        let s = &mux.mux;
        let counts = [s.rx_msgs, s.rx_bytes, s.tx_msgs, s.tx_bytes].map(|n| n.to_string());
        row(&mut out, "mux", counts, [dash(), dash(), dash(), dash()], status);
        for socket in &mux.sockets {
            let s = &socket.stats;
            let counts = [s.rx_msgs, s.rx_bytes, s.tx_msgs, s.tx_bytes].map(|n| n.to_string());
            let (messages, bytes) = socket.rx_queue;
            let queues = [messages.to_string(), bytes.to_string(), socket.tx_queue.to_string(), dash()];
            row(&mut out, &format!("   kcm-{}", socket.index), counts, queues, socket.words.join(" "));
        }
        for psock in &mux.psocks {
            let s = &psock.stats;
            let counts = [s.rx_msgs, s.rx_bytes, s.tx_msgs, s.tx_bytes].map(|n| n.to_string());
            let (received, sending) = psock.queues;
            let queues = [received.to_string(), dash(), sending.to_string(), dash()];
            row(&mut out, &format!("   psock-{}", psock.index), counts, queues, psock.words.join(" "));
        }
    }
    out
}

fn row(out: &mut String, object: &str, counts: [String; 4], queues: [String; 4], status: String) {
    let ([a, b, c, d], [e, f, g, h]) = (counts, queues);
    line(out, object, [a, b, c, d, e, f, g, h, status]);
}

fn line(out: &mut String, object: &str, cells: [String; 9]) {
    const WIDTHS: [usize; 8] = [10, 16, 10, 16, 8, 8, 8, 8];
    let mut text = format!("{object:<14}");
    for (cell, width) in cells.iter().zip(WIDTHS) {
        let _ = write!(text, " {cell:<width$}");
    }
    let _ = writeln!(out, "{text} {}", cells[8]);
}

/// Names and values of the mux part of `/proc/net/kcm_stats`, in its order.
pub fn mux_columns(s: &MuxStats) -> [(&'static str, u64); 9] {
    [
        ("RX-Msgs", s.rx_msgs),
        ("RX-Bytes", s.rx_bytes),
        ("TX-Msgs", s.tx_msgs),
        ("TX-Bytes", s.tx_bytes),
        ("TX-Retries", s.tx_retries),
        ("Attach", s.psock_attach),
        ("Unattach", s.psock_unattach),
        ("UnattchRsvd", s.psock_unattach_rsvd),
        ("RX-RdyDrops", s.rx_ready_drops),
    ]
}

/// Names and values of its psock part.
pub fn psock_columns(s: &PsockStats) -> [(&'static str, u64); 15] {
    [
        ("RX-Msgs", s.rx_msgs),
        ("RX-Bytes", s.rx_bytes),
        ("TX-Msgs", s.tx_msgs),
        ("TX-Bytes", s.tx_bytes),
        ("Reserved", s.reserved),
        ("Unreserved", s.unreserved),
        ("RX-Aborts", s.rx_aborts),
        ("RX-Intr", s.rx_interrupted),
        ("RX-Unrecov", s.rx_unrecov_intr),
        ("RX-MemFail", s.rx_mem_fail),
        ("RX-NeedMor", s.rx_need_more_hdr),
        ("RX-BadLen", s.rx_bad_hdr_len),
        ("RX-TooBig", s.rx_msg_too_big),
        ("RX-Timeout", s.rx_msg_timeouts),
        ("TX-Aborts", s.tx_aborts),
    ]
}

/// Sums over muxes.
pub fn sum(muxes: &[MuxSnapshot]) -> (MuxStats, PsockStats) {
    let (mut total, mut psocks) = (MuxStats::default(), PsockStats::default());
    for mux in muxes {
        let s = &mux.mux;
        total.rx_msgs += s.rx_msgs;
        total.rx_bytes += s.rx_bytes;
        total.tx_msgs += s.tx_msgs;
        total.tx_bytes += s.tx_bytes;
        total.tx_retries += s.tx_retries;
        total.psock_attach += s.psock_attach;
        total.psock_unattach += s.psock_unattach;
        total.psock_unattach_rsvd += s.psock_unattach_rsvd;
        total.rx_ready_drops += s.rx_ready_drops;
        psocks.add(&mux.psock_sum);
    }
    (total, psocks)
}

/// `/proc/net/kcm_stats` of these muxes.
pub fn kcm_stats(muxes: &[MuxSnapshot]) -> String {
    let (mux, psock) = sum(muxes);
    let mut out = String::new();
    pair(&mut out, "MUX", &mux_columns(&mux));
    pair(&mut out, "Psock", &psock_columns(&psock));
    out
}

fn pair(out: &mut String, object: &str, columns: &[(&str, u64)]) {
    let (mut head, mut values) = (format!("{object:<8}"), format!("{:<8}", ""));
    for (name, value) in columns {
        let width = if name.ends_with("Bytes") { 16 } else { 10 }.max(name.len());
        let _ = write!(head, " {name:<width$}");
        let _ = write!(values, " {value:<width$}");
    }
    let _ = writeln!(out, "{head}");
    let _ = writeln!(out, "{values}");
}

/// The same for Prometheus.
pub fn prometheus(muxes: &[MuxSnapshot]) -> String {
    let (mux, psock) = sum(muxes);
    let mut out = String::new();
    for (kind, columns) in [("mux", &mux_columns(&mux)[..]), ("psock", &psock_columns(&psock)[..])] {
        for (name, value) in columns {
            let name = name.to_ascii_lowercase().replace('-', "_");
            let _ = writeln!(out, "# TYPE kcm_{kind}_{name}_total counter\nkcm_{kind}_{name}_total {value}");
        }
    }
    out
}

/// The same as JSON.
pub fn json(muxes: &[MuxSnapshot]) -> String {
    let (mux, psock) = sum(muxes);
    let object = |columns: &[(&str, u64)]| {
        let fields: Vec<String> = columns.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    };
    format!("{{\"MUX\":{},\"Psock\":{}}}", object(&mux_columns(&mux)), object(&psock_columns(&psock)))
}
