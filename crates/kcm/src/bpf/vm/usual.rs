//! The short way of the interpreter: the instructions that programs are mostly made of, told apart by one jump. It
//! adds no meaning: [`Vm::step`] knows all instructions, and a test compares the two.

use super::{Step, Vm};
use crate::bpf::insn::{self, Insn};

impl<const FRAMES: usize> Vm<'_, FRAMES> {
    /// The instructions that programs are mostly made of, told apart by one jump. `None` leaves the instruction to
    /// [`Vm::step`], which knows all of them and means the same by these.
    #[inline(always)]
    pub(super) fn usual(&mut self, insn: Insn, pc: usize) -> Option<Step> {
        let (a, x, k) = (self.reg(insn.dst), self.reg(insn.src), i64::from(insn.imm) as u64);
        let value = match insn.op {
            0xb7 => k,
            0xbf if insn.off == 0 => x,
            0x07 => a.wrapping_add(k),
            0x0f => a.wrapping_add(x),
            0x17 => a.wrapping_sub(k),
            0x1f => a.wrapping_sub(x),
            0x47 => a | k,
            0x4f => a | x,
            0x57 => a & k,
            0x5f => a & x,
            0x67 => a.wrapping_shl(insn.imm as u32),
            0x6f => a.wrapping_shl(x as u32),
            0x77 => a.wrapping_shr(insn.imm as u32),
            0x7f => a.wrapping_shr(x as u32),
            0xc7 => (a as i64).wrapping_shr(insn.imm as u32) as u64,
            0xb4 => u64::from(k as u32),
            0xbc if insn.off == 0 => u64::from(x as u32),
            0x04 => u64::from((a as u32).wrapping_add(k as u32)),
            0x0c => u64::from((a as u32).wrapping_add(x as u32)),
            0x14 => u64::from((a as u32).wrapping_sub(k as u32)),
            0x1c => u64::from((a as u32).wrapping_sub(x as u32)),
            0x24 => u64::from((a as u32).wrapping_mul(k as u32)),
            0x54 => u64::from(a as u32 & k as u32),
            0x64 => u64::from((a as u32).wrapping_shl(k as u32)),
            0x74 => u64::from((a as u32).wrapping_shr(k as u32)),
            0x20 | 0x28 | 0x30 | 0x40 | 0x48 | 0x50 => return Some(self.packet(insn)),
            _ => return usual_jump(insn, pc, (a, x, k)),
        };
        self.set(insn.dst, value);
        Some(Step::Next)
    }
}

/// The jumps among the usual instructions.
#[inline(always)]
fn usual_jump(insn: Insn, pc: usize, (a, x, k): (u64, u64, u64)) -> Option<Step> {
    let (a32, x32, k32) = (a as u32, x as u32, k as u32);
    let is_taken = match insn.op {
        insn::JA => true,
        0x15 => a == k,
        0x1d => a == x,
        0x25 => a > k,
        0x2d => a > x,
        0x35 => a >= k,
        0x3d => a >= x,
        0x55 => a != k,
        0x5d => a != x,
        0x65 => a as i64 > k as i64,
        0x6d => a as i64 > x as i64,
        0x75 => a as i64 >= k as i64,
        0xa5 => a < k,
        0xad => a < x,
        0xb5 => a <= k,
        0xbd => a <= x,
        0xc5 => (a as i64) < k as i64,
        0xd5 => a as i64 <= k as i64,
        0x16 => a32 == k32,
        0x1e => a32 == x32,
        0x26 => a32 > k32,
        0x2e => a32 > x32,
        0x36 => a32 >= k32,
        0x56 => a32 != k32,
        0x5e => a32 != x32,
        0xa6 => a32 < k32,
        0xae => a32 < x32,
        0xb6 => a32 <= k32,
        _ => return None,
    };
    let to = if is_taken { (pc as i64 + 1 + i64::from(insn.off)) as usize } else { pc + 1 };
    Some(Step::Jump(to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::vm::fault;
    use crate::error::FrameError;

    /// A run without the short way.
    fn slow(mut vm: Vm<'_, 1>) -> Result<(i32, [u32; 5]), FrameError> {
        let mut pc = 0;
        loop {
            let insn = *vm.code.get(pc).ok_or(fault("ran off the program"))?;
            match vm.step(insn, pc)? {
                Step::Next => pc += 1,
                Step::Jump(to) => {
                    if to <= pc {
                        vm.spend()?;
                    }
                    pc = to;
                }
                Step::Done(result) => return Ok(vm.finish(result)),
            }
        }
    }

    #[test]
    fn usual__means_the_same_as_step() {
        let mut prng = peyk_sansio::Prng::new(1);
        let bytes: Vec<u8> = (0..64u8).map(|i| i.wrapping_mul(37)).collect();
        // A constant of two instructions has no short way, and the second half is missing here.
        for op in (0..=255u8).filter(|op| *op != insn::LD_IMM64) {
            for _ in 0..200 {
                let mut code = Vec::new();
                for dst in [0, 1, 2, 3] {
                    // Small numbers, large ones, negative ones.
                    let any = prng.next_u32() as i32;
                    let low = *prng.pick(&[0, 1, 31, 33, 60, -1, i32::MIN, any]).unwrap();
                    code.push(Insn::new(insn::LD_IMM64, dst, 0, 0, low));
                    code.push(Insn::new(0, 0, 0, 0, *prng.pick(&[0, 0, -1, 5]).unwrap()));
                }
                let imm = *prng.pick(&[0, 1, 7, 31, 40, -1, i32::MAX, i32::MIN]).unwrap();
                code.push(Insn::new(op, prng.below(4) as u8, prng.below(4) as u8, prng.below(2) as i16, imm));
                code.push(Insn::new(0xa7, 0, 0, 0, 0x55)); // a jump skips this
                for reg in [1, 2, 3] {
                    code.push(Insn::new(0x27, 0, 0, 0, 31));
                    code.push(Insn::new(0xaf, 0, reg, 0, 0));
                }
                code.push(Insn::new(0xbf, 4, 0, 0, 0));
                code.push(Insn::new(0x77, 4, 0, 0, 32));
                code.push(Insn::new(0xaf, 0, 4, 0, 0));
                code.push(Insn::new(insn::EXIT, 0, 0, 0, 0));
                let vm = || Vm::<1>::new(&code, &[], &bytes, 10);
                assert_eq!(vm().run(), slow(vm()), "{op:#x}: {code:?}");
            }
        }
    }
}
