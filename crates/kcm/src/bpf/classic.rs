//! Classic BPF: translated to eBPF, as the kernel does. A is r0, X is r7, M[] lies on the stack.

use super::LoadError;
use super::insn::{self, Insn, alu};

/// One classic instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClassicInsn {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if true.
    pub jt: u8,
    /// Instructions to skip if false.
    pub jf: u8,
    /// Constant.
    pub k: u32,
}

/// Reads what `tcpdump -ddd` prints: the number of instructions, then four numbers for each. `None` if it is
/// something else.
pub fn parse_ddd(text: &str) -> Option<Vec<ClassicInsn>> {
    let mut numbers = text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
    let count: usize = numbers.next()?.parse().ok().filter(|&count| count <= 4096)?;
    let mut code = Vec::with_capacity(count);
    for _ in 0..count {
        code.push(ClassicInsn {
            code: numbers.next()?.parse().ok()?,
            jt: numbers.next()?.parse().ok()?,
            jf: numbers.next()?.parse().ok()?,
            k: numbers.next()?.parse().ok()?,
        });
    }
    numbers.next().is_none().then_some(code)
}

const A: u8 = 0;
const INDEX: u8 = 7;
const SCRATCH: u8 = 8;

fn refuse<T>(at: usize, why: &'static str) -> Result<T, LoadError> {
    Err(LoadError::Insn { at, why })
}

/// Instructions of eBPF with the same effect.
pub(super) fn translate(code: &[ClassicInsn]) -> Result<Vec<Insn>, LoadError> {
    if code.len() > 4096 {
        return Err(LoadError::Length { len: code.len(), limit: 4096 });
    }
    let mut out = vec![
        Insn::new(insn::ALU64 | alu::MOV | insn::X, 6, 1, 0, 0),
        Insn::new(insn::ALU | alu::MOV, A, 0, 0, 0),
        Insn::new(insn::ALU | alu::MOV, INDEX, 0, 0, 0),
    ];
    let mut starts = Vec::with_capacity(code.len() + 1);
    // Jumps to fix: where, which classic instruction they go to.
    let mut jumps: Vec<(usize, usize)> = Vec::new();
    for (at, &classic) in code.iter().enumerate() {
        starts.push(out.len());
        match classic.code & 0x07 {
            0x05 => jump(classic, at, &mut out, &mut jumps)?,
            _ => straight(classic, at, &mut out)?,
        }
    }
    for (from, to) in jumps {
        let Some(&target) = starts.get(to) else { return refuse(to, "a jump out of the program") };
        let distance = target as i64 - from as i64 - 1;
        let Ok(distance) = i16::try_from(distance) else { return refuse(to, "a jump too far") };
        out[from].off = distance;
    }
    Ok(out)
}

/// Place of a word of M[] on the stack.
fn scratch(classic: ClassicInsn, at: usize) -> Result<i16, LoadError> {
    if classic.k >= 16 {
        return refuse(at, "M[] has 16 words");
    }
    Ok(-4 * (classic.k as i16 + 1))
}

fn straight(classic: ClassicInsn, at: usize, out: &mut Vec<Insn>) -> Result<(), LoadError> {
    let k = classic.k as i32;
    let word = insn::MEM; // size 0 is a word
    let is_index = classic.code & 0x07 == 1;
    let to = if is_index { INDEX } else { A };
    match classic.code {
        // Loads.
        0x00 | 0x01 => out.push(Insn::new(insn::ALU | alu::MOV, to, 0, 0, k)),
        0x20 | 0x28 | 0x30 | 0x40 | 0x48 | 0x50 => {
            if matches!(classic.code, 0x20 | 0x28 | 0x30) && k < 0 {
                return refuse(at, "an ancillary load");
            }
            out.push(Insn::new(classic.code as u8, 0, if classic.code >= 0x40 { INDEX } else { 0 }, 0, k));
        }
        0x60 | 0x61 => out.push(Insn::new(insn::LDX | word, to, 10, scratch(classic, at)?, 0)),
        0x80 | 0x81 => out.push(Insn::new(insn::LDX | word, to, 6, 0, 0)), // len is the first field
        // The length of an IP header, 4 * (byte & 15): A is kept.
        0xb1 => out.extend([
            Insn::new(insn::ALU64 | alu::MOV | insn::X, SCRATCH, A, 0, 0),
            Insn::new(0x30, 0, 0, 0, k),
            Insn::new(insn::ALU | alu::AND, A, 0, 0, 15),
            Insn::new(insn::ALU | alu::LSH, A, 0, 0, 2),
            Insn::new(insn::ALU64 | alu::MOV | insn::X, INDEX, A, 0, 0),
            Insn::new(insn::ALU64 | alu::MOV | insn::X, A, SCRATCH, 0, 0),
        ]),
        0x02 | 0x03 => {
            let from = if classic.code == 3 { INDEX } else { A };
            out.push(Insn::new(insn::STX | word, 10, from, scratch(classic, at)?, 0));
        }
        0x07 => out.push(Insn::new(insn::ALU64 | alu::MOV | insn::X, INDEX, A, 0, 0)),
        0x87 => out.push(Insn::new(insn::ALU64 | alu::MOV | insn::X, A, INDEX, 0, 0)),
        0x06 => out.extend([Insn::new(insn::ALU | alu::MOV, A, 0, 0, k), Insn::new(insn::EXIT, 0, 0, 0, 0)]),
        0x16 => out.push(Insn::new(insn::EXIT, 0, 0, 0, 0)),
        code if code & 0x07 == 4 => arithmetic(classic, at, out)?,
        _ => return refuse(at, "no such classic operation"),
    }
    Ok(())
}

fn arithmetic(classic: ClassicInsn, at: usize, out: &mut Vec<Insn>) -> Result<(), LoadError> {
    let operation = classic.code as u8 & 0xf0;
    let by_index = classic.code & 0x08 != 0;
    if classic.code > 0xff || operation > alu::XOR {
        return refuse(at, "no such classic operation");
    }
    let is_division = matches!(operation, alu::DIV | alu::MOD);
    if is_division && by_index {
        // Division by a zero X ends the program with 0.
        out.extend([
            Insn::new(insn::JMP | 0x50, INDEX, 0, 2, 0),
            Insn::new(insn::ALU | alu::MOV, A, 0, 0, 0),
            Insn::new(insn::EXIT, 0, 0, 0, 0),
        ]);
    }
    let source = if by_index { insn::X } else { 0 };
    out.push(Insn::new(insn::ALU | operation | source, A, INDEX, 0, classic.k as i32));
    Ok(())
}

fn jump(
    classic: ClassicInsn,
    at: usize,
    out: &mut Vec<Insn>,
    jumps: &mut Vec<(usize, usize)>,
) -> Result<(), LoadError> {
    let next = at + 1;
    if classic.code == 0x05 {
        let to = next.saturating_add(classic.k as usize);
        jumps.push((out.len(), to));
        out.push(Insn::new(insn::JA, 0, 0, 0, 0));
        return Ok(());
    }
    let condition = classic.code as u8 & 0xf0;
    if classic.code > 0x4d || !matches!(condition, 0x10 | 0x20 | 0x30 | 0x40) {
        return refuse(at, "no such classic jump");
    }
    let source = if classic.code & 0x08 != 0 { insn::X } else { 0 };
    jumps.push((out.len(), next + usize::from(classic.jt)));
    out.push(Insn::new(insn::JMP32 | condition | source, A, INDEX, 0, classic.k as i32));
    jumps.push((out.len(), next + usize::from(classic.jf)));
    out.push(Insn::new(insn::JA, 0, 0, 0, 0));
    Ok(())
}
