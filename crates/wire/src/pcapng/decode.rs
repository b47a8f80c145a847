//! A capture as text, one line per Homa packet.
//!
//! ```text
//!    12   0.001523900 10.0.0.1 > 10.0.0.2 ip p7 DATA 32768->99 id 1234 client, bytes 0..5 of 5, incoming 5
//! ```
//!
//! Packet number in the file, seconds since its first Homa packet, addresses, carriage, priority,
//! and the packet as its `Display` says it.

use super::{CaptureError, Carriage, Counts, Finder, Reader, Record};
use crate::homa::Packet;
use core::fmt;
use std::io::Read;
use std::net::SocketAddr;

/// The lines of a capture; see [`decode`].
pub struct Decode<R: Read> {
    reader: Reader<R>,
    start_ns: Option<u64>,
}

/// Turns a capture into text lines, one per Homa packet.
///
/// # Errors
/// The input is no capture; the lines may be errors as well, see [`CaptureError`].
pub fn decode<R: Read>(input: R, finder: Finder) -> Result<Decode<R>, CaptureError> {
    Ok(Decode { reader: Reader::with_finder(input, finder)?, start_ns: None })
}

impl<R: Read> Decode<R> {
    /// What was read so far.
    pub fn counts(&self) -> Counts {
        self.reader.counts()
    }
}

impl<R: Read> Iterator for Decode<R> {
    type Item = Result<String, CaptureError>;

    fn next(&mut self) -> Option<Result<String, CaptureError>> {
        let record = match self.reader.next()? {
            Ok(record) => record,
            Err(error) => return Some(Err(error)),
        };
        let start_ns = *self.start_ns.get_or_insert(record.envelope.time_ns);
        Some(Ok(Line { record: &record, start_ns }.to_string()))
    }
}

struct Line<'a> {
    record: &'a Record,
    start_ns: u64,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { number, envelope, payload, truncated } = self.record;
        // Captures are not always in order: a packet may precede the first.
        let sign = if envelope.time_ns < self.start_ns { "-" } else { "" };
        let since = envelope.time_ns.abs_diff(self.start_ns);
        let (seconds, rest) = (since / 1_000_000_000, since % 1_000_000_000);
        write!(f, "{number:5} {:>13} ", format!("{sign}{seconds}.{rest:09}"))?;
        let (source, destination) = (envelope.source, envelope.destination);
        write_address(f, source, envelope.carriage)?;
        f.write_str(" > ")?;
        write_address(f, destination, envelope.carriage)?;
        write!(f, " {} p{} ", envelope.carriage, envelope.priority())?;
        match Packet::parse(payload) {
            Ok(packet) => write!(f, "{packet}")?,
            Err(error) => write!(f, "not a Homa packet: {error}")?,
        }
        f.write_str(if *truncated { " (cut off by the capture)" } else { "" })
    }
}

fn write_address(f: &mut fmt::Formatter<'_>, address: SocketAddr, carriage: Carriage) -> fmt::Result {
    match carriage {
        Carriage::Udp => write!(f, "{address}"),
        Carriage::Ip | Carriage::Tcp => write!(f, "{}", address.ip()),
    }
}
