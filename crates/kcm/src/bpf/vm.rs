//! The interpreter: safe, bounded, without memory of its own between runs.
//!
//! Pointers are numbers with a tag in the top four bits; every access is checked against the memory that
//! the tag names. A packet load beyond the message ends the program with 0, which means "more bytes".

mod usual;

use super::Region;
use super::insn::{self, Insn, alu};
use crate::error::{Code, FrameError};

const TAG: u32 = 60;
const CONTEXT: u64 = 1;
const STACK: u64 = 2;
const CONSTANTS: u64 = 3;
const MAP: u64 = 4;
const VALUE: u64 = 5;

/// Bytes of stack of one function, and functions that may be nested.
pub(crate) const FRAME: usize = 512;
pub(crate) const DEPTH: usize = 8;
/// Size of the context, and where its writable words are.
pub(crate) const CONTEXT_SIZE: usize = 192;
pub(crate) const CB: core::ops::Range<usize> = 48..68;

/// How deep functions of a program may nest: 0 if it has no stack either.
pub(super) fn frames(code: &[Insn]) -> usize {
    let calls = |insn: &Insn| insn.op == insn::CALL && insn.src == insn::PSEUDO_CALL;
    match code.iter().any(calls) {
        true => DEPTH,
        false => usize::from(code.iter().any(|insn| insn.dst == 10 || insn.src == 10)),
    }
}

/// One run of a program that nests functions up to `FRAMES` deep; with 0 it has no stack. What is not there need
/// not be cleared, which would take longer than most programs.
pub(super) struct Vm<'a, const FRAMES: usize> {
    code: &'a [Insn],
    data: &'a [Region],
    bytes: &'a [u8],
    regs: [u64; 16],
    stack: [[u8; FRAME]; FRAMES],
    cb: [u8; 20],
    /// Return places and saved registers r6 to r9.
    calls: [(usize, [u64; 4]); FRAMES],
    depth: usize,
    budget: u32,
}

enum Step {
    Next,
    Jump(usize),
    Done(u64),
}

#[cold]
fn fault(why: &'static str) -> FrameError {
    FrameError { code: Code::FAULT, why }
}

impl<'a, const FRAMES: usize> Vm<'a, FRAMES> {
    pub(super) fn new(code: &'a [Insn], data: &'a [Region], bytes: &'a [u8], budget: u32) -> Self {
        let mut regs = [0; 16];
        regs[1] = CONTEXT << TAG;
        regs[10] = (STACK << TAG) + FRAME as u64;
        Vm {
            code,
            data,
            bytes,
            regs,
            stack: [[0; FRAME]; FRAMES],
            cb: [0; 20],
            calls: [(0, [0; 4]); FRAMES],
            depth: 0,
            budget,
        }
    }

    pub(super) fn run(mut self) -> Result<(i32, [u32; 5]), FrameError> {
        let mut pc = 0;
        loop {
            let Some(&insn) = self.code.get(pc) else { return Err(fault("ran off the program")) };
            let step = match self.usual(insn, pc) {
                Some(step) => step,
                None => self.step(insn, pc)?,
            };
            match step {
                Step::Next => pc += 1,
                Step::Jump(to) => {
                    if to <= pc {
                        self.spend()?;
                    }
                    pc = to;
                }
                Step::Done(result) => return Ok(self.finish(result)),
            }
        }
    }

    fn finish(&self, result: u64) -> (i32, [u32; 5]) {
        let word = |i: usize| u32::from_le_bytes(self.cb[4 * i..][..4].try_into().expect("four"));
        (result as u32 as i32, [word(0), word(1), word(2), word(3), word(4)])
    }

    /// A load from the message: beyond its end the program is over, and wants more.
    #[inline(always)]
    fn packet(&mut self, insn: Insn) -> Step {
        let base = if insn.op & insn::MODE == insn::IND { self.reg(insn.src) as u32 as i32 } else { 0 };
        let at = i64::from(base) + i64::from(insn.imm);
        let size = insn::size(insn.op);
        match usize::try_from(at).ok().and_then(|at| self.bytes.get(at..at + size)) {
            None => Step::Done(0),
            Some(bytes) => {
                self.regs[..6].copy_from_slice(&[insn::network(bytes), 0, 0, 0, 0, 0]);
                Step::Next
            }
        }
    }

    fn spend(&mut self) -> Result<(), FrameError> {
        self.budget = self.budget.checked_sub(1).ok_or(fault("the program runs too long"))?;
        Ok(())
    }

    fn reg(&self, number: u8) -> u64 {
        self.regs[usize::from(number & 15)]
    }

    fn set(&mut self, number: u8, value: u64) {
        self.regs[usize::from(number & 15)] = value;
    }

    fn step(&mut self, insn: Insn, pc: usize) -> Result<Step, FrameError> {
        match insn.class() {
            insn::ALU64 => self.set(insn.dst, self.alu64(insn)),
            insn::ALU => self.set(insn.dst, self.alu32(insn)),
            insn::JMP | insn::JMP32 => return self.jump(insn, pc),
            insn::LD if insn.op == insn::LD_IMM64 => {
                let high = self.code.get(pc + 1).map_or(0, |next| next.imm);
                let value = match insn.src {
                    insn::PSEUDO_MAP => (MAP << TAG) + u64::from(insn.imm as u32),
                    insn::PSEUDO_DATA => {
                        (CONSTANTS << TAG) + (u64::from(insn.imm as u32) << 32) + u64::from(high as u32)
                    }
                    _ => u64::from(high as u32) << 32 | u64::from(insn.imm as u32),
                };
                self.set(insn.dst, value);
                return Ok(Step::Jump(pc + 2));
            }
            insn::LD => return Ok(self.packet(insn)),
            insn::LDX => {
                let at = self.reg(insn.src).wrapping_add(insn.off as u64);
                let size = insn::size(insn.op);
                let mut value = self.load(at, size)?;
                if insn.op & insn::MODE == insn::MEMSX {
                    let shift = 64 - 8 * size as u32;
                    value = ((value << shift) as i64 >> shift) as u64;
                }
                self.set(insn.dst, value);
            }
            insn::ST | insn::STX => {
                let value =
                    if insn.class() == insn::ST { i64::from(insn.imm) as u64 } else { self.reg(insn.src) };
                let at = self.reg(insn.dst).wrapping_add(insn.off as u64);
                self.store(at, insn::size(insn.op), value)?;
            }
            _ => return Err(fault("no such class")),
        }
        Ok(Step::Next)
    }

    fn operand(&self, insn: Insn) -> u64 {
        if insn.op & insn::X != 0 { self.reg(insn.src) } else { i64::from(insn.imm) as u64 }
    }

    fn alu64(&self, insn: Insn) -> u64 {
        let (a, b) = (self.reg(insn.dst), self.operand(insn));
        match insn.op & 0xf0 {
            alu::MOV if insn.off == 32 => b as i32 as u64,
            _ => u64::calculate(insn, a, b).unwrap_or_else(|| swap(a, insn.imm, true)),
        }
    }

    fn alu32(&self, insn: Insn) -> u64 {
        let (a, b) = (self.reg(insn.dst), self.operand(insn));
        // To big-endian swaps on a little-endian machine, to little-endian only cuts.
        u32::calculate(insn, a as u32, b as u32)
            .map_or_else(|| swap(a, insn.imm, insn.op & insn::X != 0), u64::from)
    }

    fn jump(&mut self, insn: Insn, pc: usize) -> Result<Step, FrameError> {
        let target = |off: i64| Step::Jump((pc as i64 + 1 + off) as usize);
        match insn.op {
            insn::CALL if insn.src == insn::PSEUDO_CALL => {
                if self.depth + 1 >= FRAMES {
                    return Err(fault("calls are nested too deeply"));
                }
                self.spend()?;
                let saved = [self.regs[6], self.regs[7], self.regs[8], self.regs[9]];
                self.calls[self.depth] = (pc + 1, saved);
                self.depth += 1;
                self.regs[10] = (STACK << TAG) + (FRAME * (self.depth + 1)) as u64;
                return Ok(target(i64::from(insn.imm)));
            }
            insn::CALL => {
                let result = self.help(insn.imm)?;
                self.set(0, result);
                self.regs[1..6].fill(0);
                return Ok(Step::Next);
            }
            insn::EXIT if self.depth == 0 => return Ok(Step::Done(self.regs[0])),
            insn::EXIT => {
                self.depth -= 1;
                let (back, saved) = self.calls[self.depth];
                self.regs[6..10].copy_from_slice(&saved);
                self.regs[10] = (STACK << TAG) + (FRAME * (self.depth + 1)) as u64;
                return Ok(Step::Jump(back));
            }
            insn::JA => return Ok(target(i64::from(insn.off))),
            insn::JA32 => return Ok(target(i64::from(insn.imm))),
            _ => {}
        }
        let (mut a, mut b) = (self.reg(insn.dst), self.operand(insn));
        let (mut sa, mut sb) = (a as i64, b as i64);
        if insn.class() == insn::JMP32 {
            (a, b) = (u64::from(a as u32), u64::from(b as u32));
            (sa, sb) = (i64::from(a as u32 as i32), i64::from(b as u32 as i32));
        }
        let taken = match insn.op & 0xf0 {
            0x10 => a == b,
            0x20 => a > b,
            0x30 => a >= b,
            0x40 => a & b != 0,
            0x50 => a != b,
            0x60 => sa > sb,
            0x70 => sa >= sb,
            0xa0 => a < b,
            0xb0 => a <= b,
            0xc0 => sa < sb,
            _ => sa <= sb,
        };
        Ok(if taken { target(i64::from(insn.off)) } else { Step::Next })
    }

    /// Bytes of stack of the functions that are running.
    fn stack_len(&self) -> usize {
        FRAME * (self.depth + 1).min(FRAMES)
    }

    /// The memory a pointer names, for reading.
    fn memory(&self, at: u64, size: usize) -> Option<&[u8]> {
        let offset = (at & ((1 << TAG) - 1)) as usize;
        match at >> TAG {
            STACK => self.stack.as_flattened()[..self.stack_len()].get(offset..offset.checked_add(size)?),
            tag @ (CONSTANTS | VALUE) => {
                let (region, offset) = (offset >> 32, offset & 0xffff_ffff);
                let bytes = match (tag, self.data.get(region)?) {
                    (CONSTANTS, Region::Constants(bytes)) => bytes,
                    (VALUE, Region::Map { values, .. }) => values,
                    _ => return None,
                };
                bytes.get(offset..offset.checked_add(size)?)
            }
            _ => None,
        }
    }

    fn load(&self, at: u64, size: usize) -> Result<u64, FrameError> {
        if at >> TAG == CONTEXT {
            return self.context((at & ((1 << TAG) - 1)) as usize, size).ok_or(fault("no such field"));
        }
        let bytes = self.memory(at, size).ok_or(fault("a load from nowhere"))?;
        Ok(crate::framer::le(bytes))
    }

    /// Fields of the context; all but `len` and `cb` read as zero.
    fn context(&self, offset: usize, size: usize) -> Option<u64> {
        if offset.checked_add(size)? > CONTEXT_SIZE {
            return None;
        }
        let mut field = [0u8; 8];
        for (i, byte) in field.iter_mut().enumerate().take(size) {
            let at = offset + i;
            *byte = match at {
                0..4 => (self.bytes.len().min(u32::MAX as usize) as u32).to_le_bytes()[at],
                _ if CB.contains(&at) => self.cb[at - CB.start],
                _ => 0,
            };
        }
        Some(u64::from_le_bytes(field))
    }

    fn store(&mut self, at: u64, size: usize, value: u64) -> Result<(), FrameError> {
        let offset = (at & ((1 << TAG) - 1)) as usize;
        let len = self.stack_len();
        let target = match at >> TAG {
            STACK => self.stack.as_flattened_mut()[..len].get_mut(offset..offset.saturating_add(size)),
            CONTEXT if offset >= CB.start => {
                self.cb.get_mut(offset - CB.start..(offset - CB.start).saturating_add(size))
            }
            _ => None,
        };
        target.ok_or(fault("a store to nowhere"))?.copy_from_slice(&value.to_le_bytes()[..size]);
        Ok(())
    }

    /// The functions of the kernel that framers have.
    fn help(&mut self, id: i32) -> Result<u64, FrameError> {
        match id {
            1 => self.lookup(),
            // skb_load_bytes, and the same relative to a header: there is one start here.
            26 | 68 => {
                let size = self.regs[4] as u32 as usize;
                let offset = (self.regs[3] & ((1 << TAG) - 1)) as usize;
                if self.regs[3] >> TAG != STACK {
                    return Err(fault("bytes can be loaded to the stack only"));
                }
                let (from, bytes, len) = (self.regs[2] as u32 as usize, self.bytes, self.stack_len());
                let stack = &mut self.stack.as_flattened_mut()[..len];
                let target = stack.get_mut(offset..offset.saturating_add(size));
                let target = target.ok_or(fault("bytes can be loaded to the stack only"))?;
                match bytes.get(from..from + size).filter(|_| size > 0) {
                    Some(bytes) => {
                        target.copy_from_slice(bytes);
                        Ok(0)
                    }
                    None => {
                        target.fill(0);
                        Ok(-14i64 as u64)
                    }
                }
            }
            // Time, randomness and CPU: framers that depend on them are wrong anyway, so they get zero.
            _ => Ok(0),
        }
    }

    fn lookup(&mut self) -> Result<u64, FrameError> {
        if self.regs[1] >> TAG != MAP {
            return Err(fault("the first argument is no map"));
        }
        let index = self.regs[1] as u32 as usize;
        let Some(&Region::Map { key, value, entries, .. }) = self.data.get(index).as_ref().map(|map| *map)
        else {
            return Err(fault("the first argument is no map"));
        };
        let key = self.memory(self.regs[2], key).ok_or(fault("the key is nowhere"))?;
        let entry = crate::framer::le(&key[..key.len().min(8)]);
        if entry >= entries as u64 {
            return Ok(0);
        }
        Ok((VALUE << TAG) + ((index as u64) << 32) + entry * value as u64)
    }
}

/// Converts between byte orders, or swaps, as many bits as it says.
fn swap(value: u64, bits: i32, swaps: bool) -> u64 {
    match (bits, swaps) {
        (16, true) => u64::from((value as u16).swap_bytes()),
        (32, true) => u64::from((value as u32).swap_bytes()),
        (64, true) => value.swap_bytes(),
        (16, false) => u64::from(value as u16),
        (32, false) => u64::from(value as u32),
        _ => value,
    }
}

/// The arithmetic of one width.
trait Calculate: Sized {
    /// `None` for what is no calculation: changes of the byte order.
    fn calculate(insn: Insn, a: Self, b: Self) -> Option<Self>;
}

macro_rules! calculate {
    ($unsigned:ty, $signed:ty) => {
        impl Calculate for $unsigned {
            fn calculate(insn: Insn, a: Self, b: Self) -> Option<Self> {
                let signed = insn.off != 0;
                Some(match insn.op & 0xf0 {
                    alu::ADD => a.wrapping_add(b),
                    alu::SUB => a.wrapping_sub(b),
                    alu::MUL => a.wrapping_mul(b),
                    alu::DIV if signed && b != 0 => (a as $signed).wrapping_div(b as $signed) as $unsigned,
                    alu::DIV => a.checked_div(b).unwrap_or(0),
                    alu::MOD if signed && b != 0 => (a as $signed).wrapping_rem(b as $signed) as $unsigned,
                    alu::MOD => a.checked_rem(b).unwrap_or(a),
                    alu::OR => a | b,
                    alu::AND => a & b,
                    alu::XOR => a ^ b,
                    alu::LSH => a.wrapping_shl(b as u32),
                    alu::RSH => a.wrapping_shr(b as u32),
                    alu::ARSH => (a as $signed).wrapping_shr(b as u32) as $unsigned,
                    alu::NEG => a.wrapping_neg(),
                    alu::MOV => match insn.off {
                        8 => b as i8 as $unsigned,
                        16 => b as i16 as $unsigned,
                        _ => b,
                    },
                    _ => return None,
                })
            }
        }
    };
}

calculate!(u64, i64);
calculate!(u32, i32);
