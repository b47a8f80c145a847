//! Reads captures and yields the Homa packets in them.

use super::find::{Link, Verdict};
use super::input::Input;
use super::{CaptureError, Envelope, Finder, Record};
use pcap_file::pcap::PcapParser;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::simple_packet::SimplePacketBlock;
use pcap_file::pcapng::{Block, PcapNgParser};
use pcap_file::{PcapError, TsResolution};
use std::io::Read;

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;
/// The first four bytes of a pcapng file, the same in both byte orders.
const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// Those of a classic pcap file: two byte orders, microseconds and nanoseconds.
const PCAP_MAGICS: [[u8; 4]; 4] =
    [[0xa1, 0xb2, 0xc3, 0xd4], [0xd4, 0xc3, 0xb2, 0xa1], [0xa1, 0xb2, 0x3c, 0x4d], [0x4d, 0x3c, 0xb2, 0xa1]];

/// What a reader came across so far, in packets.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets of the capture, of any kind.
    pub packets: u64,
    /// Homa packets.
    pub homa: u64,
    /// Fragments of IP packets that may have been Homa; not reassembled.
    pub fragments: u64,
    /// Packets of interfaces with a link type that is not understood.
    pub unsupported_link: u64,
}

/// Reads a capture, pcapng or classic pcap of either byte order, and yields its Homa packets.
///
/// Memory is bounded (one block of at most 16 MB) and no input makes it panic. After an error the
/// iterator ends.
pub struct Reader<R: Read> {
    input: Input<R>,
    file: File,
    finder: Finder,
    counts: Counts,
    frame: Frame,
    ended: bool,
}

enum File {
    Pcap { parser: PcapParser, link: Option<Link> },
    Pcapng { parser: PcapNgParser, interfaces: Vec<Interface> },
}

/// One interface of a pcapng section.
#[derive(Copy, Clone)]
struct Interface {
    link: Option<Link>,
    /// `if_tsresol`: ticks are 10^-n seconds, or 2^-n when the high bit is set.
    resolution: u8,
    /// `if_tsoffset`: seconds to add.
    offset: u64,
    /// Bytes kept of each packet; 0 for all.
    snap_length: u32,
}

/// A frame of the capture, in a buffer that is used again.
#[derive(Default)]
struct Frame {
    time_ns: u64,
    link: Option<Link>,
    bytes: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Starts reading; Homa in UDP is looked for at the default port and by its looks.
    ///
    /// # Errors
    /// The input is no capture, ends within its header, or cannot be read.
    pub fn new(input: R) -> Result<Reader<R>, CaptureError> {
        Reader::with_finder(input, Finder::default())
    }

    /// Starts reading with other ideas of what Homa looks like.
    ///
    /// # Errors
    /// As [`new`](Reader::new).
    pub fn with_finder(input: R, finder: Finder) -> Result<Reader<R>, CaptureError> {
        let mut input = Input::new(input);
        let file = match input.start_with(4) {
            Ok(magic) if magic == PCAPNG_MAGIC => pcapng(&mut input),
            Ok(magic) if PCAP_MAGICS.iter().any(|known| magic == known) => pcap(&mut input),
            Ok(_) => return Err(CaptureError::NotACapture),
            Err(error) => Err(PcapError::IoError(error)),
        };
        let file = file.map_err(|error| located(error, 0, input.offset()))?;
        if let File::Pcap { parser, link: None } = &file {
            return Err(CaptureError::UnsupportedLink { link: u32::from(parser.header().datalink) });
        }
        let counts = Counts::default();
        Ok(Reader { input, file, finder, counts, frame: Frame::default(), ended: false })
    }

    /// What was read so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Reads the next frame; false at the end of the file.
    fn next_frame(&mut self) -> Result<bool, PcapError> {
        let Reader { input, file, frame, .. } = self;
        while !input.is_at_end().map_err(PcapError::IoError)? {
            let is_frame = match file {
                File::Pcap { parser, link } => {
                    frame.link = *link;
                    input.parse(|bytes| next_of_pcap(parser, bytes, frame))?
                }
                File::Pcapng { parser, interfaces } => {
                    input.parse(|bytes| next_of_pcapng(parser, interfaces, bytes, frame))?
                }
            };
            if is_frame {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The Homa packet in the current frame.
    fn record(&mut self) -> Option<Record> {
        self.counts.packets += 1;
        let Some(link) = self.frame.link else {
            self.counts.unsupported_link += 1;
            return None;
        };
        match self.finder.find(link, &self.frame.bytes) {
            Verdict::Homa(found) => {
                self.counts.homa += 1;
                Some(Record {
                    number: self.counts.packets,
                    envelope: Envelope {
                        time_ns: self.frame.time_ns,
                        source: found.source,
                        destination: found.destination,
                        carriage: found.carriage,
                        traffic_class: found.traffic_class,
                    },
                    payload: found.payload.to_vec(),
                    truncated: found.truncated,
                })
            }
            Verdict::Fragment => {
                self.counts.fragments += 1;
                None
            }
            Verdict::Other => None,
        }
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Record, CaptureError>;

    fn next(&mut self) -> Option<Result<Record, CaptureError>> {
        while !self.ended {
            match self.next_frame() {
                Ok(true) => {
                    if let Some(record) = self.record() {
                        return Some(Ok(record));
                    }
                }
                Ok(false) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(located(error, self.counts.packets, self.input.offset())));
                }
            }
        }
        None
    }
}

fn pcap<R: Read>(input: &mut Input<R>) -> Result<File, PcapError> {
    let parser = input.parse(PcapParser::new)?;
    let link = Link::from_number(u32::from(parser.header().datalink));
    Ok(File::Pcap { parser, link })
}

fn pcapng<R: Read>(input: &mut Input<R>) -> Result<File, PcapError> {
    let parser = input.parse(PcapNgParser::new)?;
    Ok(File::Pcapng { parser, interfaces: Vec::new() })
}

/// Takes one packet off `bytes`; gives what is left of them, and that there is a frame.
fn next_of_pcap<'a>(
    parser: &PcapParser,
    bytes: &'a [u8],
    frame: &mut Frame,
) -> Result<(&'a [u8], bool), PcapError> {
    // The raw form: the checked one refuses packets longer than the snap length, which are usual.
    let (rest, packet) = parser.next_raw_packet(bytes)?;
    let fraction = match parser.header().ts_resolution {
        TsResolution::MicroSecond => u64::from(packet.ts_frac) * 1000,
        TsResolution::NanoSecond => u64::from(packet.ts_frac),
    };
    frame.time_ns = u64::from(packet.ts_sec) * SECOND + fraction;
    frame.keep(&packet.data);
    Ok((rest, true))
}

/// Takes one block off `bytes`; gives what is left of them, and whether there is a frame.
fn next_of_pcapng<'a>(
    parser: &mut PcapNgParser,
    interfaces: &mut Vec<Interface>,
    bytes: &'a [u8],
    frame: &mut Frame,
) -> Result<(&'a [u8], bool), PcapError> {
    let is_little = parser.section().endianness.is_little();
    let (rest, block) = parser.next_block(bytes)?;
    let (number, ticks, data) = match &block {
        Block::SectionHeader(_) => {
            interfaces.clear();
            return Ok((rest, false));
        }
        Block::InterfaceDescription(description) => {
            interfaces.push(Interface::new(description));
            return Ok((rest, false));
        }
        Block::EnhancedPacket(packet) => {
            // The crate takes the ticks for nanoseconds, whatever the interface says.
            let ticks = u64::try_from(packet.timestamp.as_nanos()).unwrap_or(u64::MAX);
            (packet.interface_id, ticks, &packet.data[..])
        }
        Block::Packet(packet) => {
            // The high half comes first also in little-endian files; the crate reads one number.
            let ticks = packet.timestamp.rotate_left(if is_little { 32 } else { 0 });
            (u32::from(packet.interface_id), ticks, &packet.data[..])
        }
        Block::SimplePacket(packet) => (0, 0, simple_packet(packet, interfaces)),
        _ => return Ok((rest, false)),
    };
    let interface = interfaces.get(number as usize);
    let interface = interface.ok_or(PcapError::InvalidInterfaceId(number))?;
    frame.link = interface.link;
    frame.time_ns = interface.nanoseconds(ticks);
    frame.keep(data);
    Ok((rest, true))
}

impl Frame {
    fn keep(&mut self, bytes: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
    }
}

/// The bytes of a simple packet without the padding of its block; it belongs to interface 0.
fn simple_packet<'a>(packet: &'a SimplePacketBlock<'_>, interfaces: &[Interface]) -> &'a [u8] {
    let limit = match interfaces.first() {
        Some(interface) if interface.snap_length > 0 => interface.snap_length,
        _ => u32::MAX,
    };
    let length = packet.original_len.min(limit) as usize;
    &packet.data[..length.min(packet.data.len())]
}

impl Interface {
    fn new(description: &InterfaceDescriptionBlock<'_>) -> Interface {
        let mut interface = Interface {
            link: Link::from_number(u32::from(description.linktype)),
            resolution: 6,
            offset: 0,
            snap_length: description.snaplen,
        };
        for option in &description.options {
            match option {
                InterfaceDescriptionOption::IfTsResol(resolution) => {
                    interface.resolution = *resolution;
                }
                InterfaceDescriptionOption::IfTsOffset(offset) => interface.offset = *offset,
                _ => {}
            }
        }
        interface
    }

    /// Nanoseconds since 1970 of a time in ticks of the interface; what leaves the number range
    /// becomes its end.
    fn nanoseconds(&self, ticks: u64) -> u64 {
        let exponent = u32::from(self.resolution & 0x7f);
        let nanoseconds = if self.resolution & 0x80 != 0 {
            (u128::from(ticks) * u128::from(SECOND)) >> exponent
        } else if exponent <= 9 {
            u128::from(ticks) * 10u128.pow(9 - exponent)
        } else {
            let divisor = 10u128.checked_pow(exponent - 9);
            divisor.map_or(0, |divisor| u128::from(ticks) / divisor)
        };
        let offset = self.offset.saturating_mul(SECOND);
        u64::try_from(nanoseconds).unwrap_or(u64::MAX).saturating_add(offset)
    }
}

/// Says where the error is.
fn located(error: PcapError, packet: u64, offset: u64) -> CaptureError {
    match error {
        PcapError::IoError(source) => CaptureError::Read { packet, offset, source },
        reason => CaptureError::Malformed { packet, offset, reason },
    }
}
