//! Programs whose whole effect is one packet load and sums with constants: recognised by symbolic
//! execution, run without the interpreter. It proves by doing: every instruction must be of a known kind.

use super::insn::{self, Insn, alu};

/// The value of one register, as the instructions made it from a packet load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fast {
    offset: usize,
    size: usize,
    /// What the steps amount to, if they only add and multiply: factor and summand, modulo 2^32.
    linear: Option<(u32, u32)>,
    steps: Vec<Step>,
}

/// One operation with a constant, on 64 bits or on the lower 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    operation: u8,
    constant: u64,
    is_wide: bool,
}

/// What a register holds in the symbolic execution.
#[derive(Clone, PartialEq, Eq)]
enum Value {
    Unknown,
    Context,
    Load(Vec<Step>),
}

/// Longest program looked at.
const MOST: usize = 64;

pub(super) fn recognise(code: &[Insn]) -> Option<Fast> {
    let mut regs = vec![Value::Unknown; 11];
    regs[1] = Value::Context;
    let mut load: Option<(usize, usize)> = None;
    for insn in code.iter().take(MOST) {
        let (dst, src) = (usize::from(insn.dst), usize::from(insn.src));
        let is_register = insn.op & insn::X != 0;
        match (insn.class(), insn.op & 0xf0) {
            (insn::LD, _) if insn.op & insn::MODE == insn::ABS => {
                if load.is_some() || regs[6] != Value::Context {
                    return None;
                }
                load = Some((usize::try_from(insn.imm).ok()?, insn::size(insn.op)));
                regs[1..6].fill(Value::Unknown);
                regs[0] = Value::Load(Vec::new());
            }
            (insn::ALU64, alu::MOV) if is_register && insn.off == 0 => regs[dst] = regs[src].clone(),
            (insn::ALU, alu::MOV) if is_register && insn.off == 0 => {
                regs[dst] = regs[src].clone();
                push(&mut regs[dst], alu::AND, u64::from(u32::MAX), true)?;
            }
            (insn::ALU | insn::ALU64, operation) if !is_register && keeps(operation) => {
                let is_wide = insn.class() == insn::ALU64;
                push(&mut regs[dst], operation, i64::from(insn.imm) as u64, is_wide)?;
            }
            (insn::JMP, _) if insn.op == insn::EXIT => {
                let (offset, size) = load?;
                let Value::Load(steps) = std::mem::replace(&mut regs[0], Value::Unknown) else { return None };
                let linear = linear(&steps);
                return Some(Fast { offset, size, linear, steps });
            }
            _ => return None,
        }
    }
    None
}

/// Operations that [`Fast::run`] knows.
fn keeps(operation: u8) -> bool {
    matches!(
        operation,
        alu::ADD | alu::SUB | alu::MUL | alu::OR | alu::AND | alu::XOR | alu::LSH | alu::RSH | alu::ARSH
    )
}

fn push(value: &mut Value, operation: u8, constant: u64, is_wide: bool) -> Option<()> {
    let Value::Load(steps) = value else { return None };
    steps.push(Step { operation, constant, is_wide });
    Some(())
}

/// All steps in one. The result has 32 bits, and what is above them never comes down in these operations, so
/// their width does not matter.
fn linear(steps: &[Step]) -> Option<(u32, u32)> {
    steps.iter().try_fold((1u32, 0u32), |(factor, summand), step| {
        let constant = step.constant as u32;
        Some(match step.operation {
            alu::ADD => (factor, summand.wrapping_add(constant)),
            alu::SUB => (factor, summand.wrapping_sub(constant)),
            alu::MUL => (factor.wrapping_mul(constant), summand.wrapping_mul(constant)),
            alu::LSH => {
                // The count is taken modulo the width; from 32 on nothing is left.
                let count = constant & if step.is_wide { 63 } else { 31 };
                let scale = 1u32.checked_shl(count).unwrap_or(0);
                (factor.wrapping_mul(scale), summand.wrapping_mul(scale))
            }
            alu::AND if constant == u32::MAX => (factor, summand),
            _ => return None,
        })
    })
}

impl Fast {
    pub(super) fn run(&self, bytes: &[u8]) -> i32 {
        let Some(field) = bytes.get(self.offset..self.offset + self.size) else { return 0 };
        let value = insn::network(field);
        if let Some((factor, summand)) = self.linear {
            return (value as u32).wrapping_mul(factor).wrapping_add(summand) as i32;
        }
        self.steps.iter().fold(value, |value, step| step.apply(value)) as u32 as i32
    }
}

impl Step {
    fn apply(self, a: u64) -> u64 {
        if self.is_wide {
            let b = self.constant;
            return match self.operation {
                alu::ADD => a.wrapping_add(b),
                alu::SUB => a.wrapping_sub(b),
                alu::MUL => a.wrapping_mul(b),
                alu::OR => a | b,
                alu::AND => a & b,
                alu::XOR => a ^ b,
                alu::LSH => a.wrapping_shl(b as u32),
                alu::RSH => a.wrapping_shr(b as u32),
                _ => (a as i64).wrapping_shr(b as u32) as u64,
            };
        }
        let (a, b) = (a as u32, self.constant as u32);
        u64::from(match self.operation {
            alu::ADD => a.wrapping_add(b),
            alu::SUB => a.wrapping_sub(b),
            alu::MUL => a.wrapping_mul(b),
            alu::OR => a | b,
            alu::AND => a & b,
            alu::XOR => a ^ b,
            alu::LSH => a.wrapping_shl(b),
            alu::RSH => a.wrapping_shr(b),
            _ => (a as i32).wrapping_shr(b) as u32,
        })
    }
}
