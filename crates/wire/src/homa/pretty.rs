//! One line of text per packet, for people. Not parsed by anything.
//!
//! ```text
//! DATA 32768->99 id 1234 client, bytes 0..5 of 5, incoming 5, cutoffs v1, ack 1232 port 99
//! RESEND 99->32768 id 1237 server, all, priority 7
//! ```

use super::{Ack, AckEntry, Cutoffs, Data, Grant, Header, Packet, Resend, Unreachable};
use core::fmt;

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = if self.is_from_client() { "client" } else { "server" };
        write!(f, "{} {}->{} id {} {role}", self.kind, self.sport, self.dport, self.sender_id)
    }
}

impl fmt::Display for AckEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {}", self.client_id, self.server_port)
    }
}

impl fmt::Display for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (offset, end) = (self.offset(), self.end());
        write!(f, "{}, bytes {offset}..{end} of {}", self.header, self.message_length)?;
        write!(f, ", incoming {}", self.incoming)?;
        if self.cutoff_version != 0 {
            write!(f, ", cutoffs v{}", self.cutoff_version)?;
        }
        if self.is_retransmission() {
            f.write_str(", retransmission")?;
        }
        if !self.ack.is_none() {
            write!(f, ", ack {}", self.ack)?;
        }
        Ok(())
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, up to {}, priority {}", self.header, self.offset, self.priority)
    }
}

impl fmt::Display for Resend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.header)?;
        match (self.offset, self.is_all()) {
            (0, true) => f.write_str(", all")?,
            (offset, true) => write!(f, ", all from {offset}")?,
            (offset, false) => write!(f, ", bytes {offset}..{}", self.end())?,
        }
        match self.priority {
            Some(priority) => write!(f, ", priority {priority}"),
            None => f.write_str(", no priority"),
        }
    }
}

impl fmt::Display for Cutoffs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, v{}, {:?}", self.header, self.cutoff_version, self.unsched_cutoffs)
    }
}

impl fmt::Display for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} more", self.header, self.num_acks)?;
        for (i, entry) in self.entries().iter().enumerate() {
            write!(f, "{} {entry}", if i == 0 { ":" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.header, self.code)
    }
}

impl fmt::Display for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Packet::Data(data) => data.fmt(f),
            Packet::Grant(grant) => grant.fmt(f),
            Packet::Resend(resend) => resend.fmt(f),
            Packet::Cutoffs(cutoffs) => cutoffs.fmt(f),
            Packet::Ack(ack) => ack.fmt(f),
            Packet::Unreachable(unreachable) => unreachable.fmt(f),
            Packet::RpcUnknown(header)
            | Packet::Busy(header)
            | Packet::Freeze(header)
            | Packet::NeedAck(header) => header.fmt(f),
        }
    }
}
