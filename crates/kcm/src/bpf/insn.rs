//! Instructions of eBPF as the kernel numbers them. No meaning is given to them here.

/// One instruction of eight bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Insn {
    /// Class, source and operation.
    pub op: u8,
    /// Register that is written, 0 to 10.
    pub dst: u8,
    /// Register that is read, or what kind of constant this is.
    pub src: u8,
    /// Jump distance or memory offset.
    pub off: i16,
    /// Constant.
    pub imm: i32,
}

impl Insn {
    /// Reads one from eight bytes, little-endian as on all machines this runs on.
    pub fn from_bytes(bytes: &[u8]) -> Insn {
        Insn {
            op: bytes[0],
            dst: bytes[1] & 0x0f,
            src: bytes[1] >> 4,
            off: i16::from_le_bytes([bytes[2], bytes[3]]),
            imm: i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        }
    }

    pub(crate) fn class(self) -> u8 {
        self.op & 0x07
    }

    pub(crate) fn new(op: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
        Insn { op, dst, src, off, imm }
    }
}

/// Classes.
pub(crate) const LD: u8 = 0;
pub(crate) const LDX: u8 = 1;
pub(crate) const ST: u8 = 2;
pub(crate) const STX: u8 = 3;
pub(crate) const ALU: u8 = 4;
pub(crate) const JMP: u8 = 5;
pub(crate) const JMP32: u8 = 6;
pub(crate) const ALU64: u8 = 7;

/// The second operand is a register.
pub(crate) const X: u8 = 0x08;

/// Whole operations.
pub(crate) const LD_IMM64: u8 = 0x18;
pub(crate) const CALL: u8 = 0x85;
pub(crate) const EXIT: u8 = 0x95;
pub(crate) const JA: u8 = 0x05;
pub(crate) const JA32: u8 = 0x06;

/// Modes of loads and stores, and sizes.
pub(crate) const MODE: u8 = 0xe0;
pub(crate) const ABS: u8 = 0x20;
pub(crate) const IND: u8 = 0x40;
pub(crate) const MEM: u8 = 0x60;
pub(crate) const MEMSX: u8 = 0x80;

/// Bytes that a load or store of this operation moves.
pub(crate) fn size(op: u8) -> usize {
    match op & 0x18 {
        0x00 => 4,
        0x08 => 2,
        0x10 => 1,
        _ => 8,
    }
}

/// What a packet load makes of its bytes, at most eight: a number in network order.
pub(crate) fn network(bytes: &[u8]) -> u64 {
    match *bytes {
        [a] => u64::from(a),
        [a, b] => u64::from(u16::from_be_bytes([a, b])),
        [a, b, c, d] => u64::from(u32::from_be_bytes([a, b, c, d])),
        _ => crate::framer::be(bytes),
    }
}

/// Operations of ALU and ALU64, in the upper four bits.
pub(crate) mod alu {
    pub(crate) const ADD: u8 = 0x00;
    pub(crate) const SUB: u8 = 0x10;
    pub(crate) const MUL: u8 = 0x20;
    pub(crate) const DIV: u8 = 0x30;
    pub(crate) const OR: u8 = 0x40;
    pub(crate) const AND: u8 = 0x50;
    pub(crate) const LSH: u8 = 0x60;
    pub(crate) const RSH: u8 = 0x70;
    pub(crate) const NEG: u8 = 0x80;
    pub(crate) const MOD: u8 = 0x90;
    pub(crate) const XOR: u8 = 0xa0;
    pub(crate) const MOV: u8 = 0xb0;
    pub(crate) const ARSH: u8 = 0xc0;
    pub(crate) const END: u8 = 0xd0;
}

/// What the `src` of a relocated `LD_IMM64` says of its constant.
pub(crate) const PSEUDO_MAP: u8 = 1;
pub(crate) const PSEUDO_DATA: u8 = 2;
/// The `src` of a call within the program.
pub(crate) const PSEUDO_CALL: u8 = 1;
