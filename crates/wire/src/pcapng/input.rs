//! Feeds a parser from a reader: a buffer that grows to the longest block, up to a limit.

use pcap_file::PcapError;
use std::io::{self, ErrorKind, Read};

/// Bytes asked of the reader at once, at least.
const CHUNK: usize = 64 * 1024;
/// Longest block of a file: a captured packet is far shorter, so a longer one is a lie.
const MAX_BLOCK: usize = 16 << 20;

/// A reader with a buffer for parsers that take bytes and say how many are left.
pub(super) struct Input<R> {
    reader: R,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are parsed already.
    done: usize,
    /// Bytes of the file before the buffer.
    before: u64,
}

impl<R: Read> Input<R> {
    pub(super) fn new(reader: R) -> Input<R> {
        Input { reader, buffer: Vec::new(), done: 0, before: 0 }
    }

    /// Bytes of the file parsed so far.
    pub(super) fn offset(&self) -> u64 {
        self.before + self.done as u64
    }

    /// The next `length` bytes without parsing them; fewer at the end of the file.
    pub(super) fn start_with(&mut self, length: usize) -> io::Result<&[u8]> {
        while self.buffer.len() - self.done < length && self.fill()? > 0 {}
        let end = self.buffer.len().min(self.done + length);
        Ok(&self.buffer[self.done..end])
    }

    /// Whether all bytes of the file are parsed.
    pub(super) fn is_at_end(&mut self) -> io::Result<bool> {
        Ok(self.start_with(1)?.is_empty())
    }

    /// Runs `parser` over the bytes to come, with more and more of them until it has enough.
    ///
    /// # Errors
    /// Those of the parser; an I/O error when the reader fails or the file ends too early.
    pub(super) fn parse<T>(
        &mut self,
        mut parser: impl FnMut(&[u8]) -> Result<(&[u8], T), PcapError>,
    ) -> Result<T, PcapError> {
        loop {
            let bytes = &self.buffer[self.done..];
            match parser(bytes) {
                Ok((rest, value)) => {
                    self.done += bytes.len() - rest.len();
                    return Ok(value);
                }
                Err(PcapError::IncompleteBuffer) if bytes.len() > MAX_BLOCK => {
                    return Err(PcapError::InvalidField("a block of more than 16 MB"));
                }
                Err(PcapError::IncompleteBuffer) => {
                    if self.fill().map_err(PcapError::IoError)? == 0 {
                        let early = io::Error::new(ErrorKind::UnexpectedEof, "the file ends too early");
                        return Err(PcapError::IoError(early));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads more bytes, room for at least as many as wait already (so that a long block is not parsed
    /// anew for every chunk), and drops those that are parsed. Gives the bytes read.
    fn fill(&mut self) -> io::Result<usize> {
        self.buffer.drain(..self.done);
        self.before += self.done as u64;
        self.done = 0;
        let waiting = self.buffer.len();
        self.buffer.resize(waiting + waiting.max(CHUNK), 0);
        // One read, so that a pipe is parsed as fast as it flows.
        let read = loop {
            match self.reader.read(&mut self.buffer[waiting..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(waiting + read.as_ref().map_or(0, |length| *length));
        read
    }
}
