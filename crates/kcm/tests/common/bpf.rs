//! Programs for tests: objects, instructions by hand, random ones, and an interpreter of classic BPF that
//! shares nothing with the translation.

use std::path::{Path, PathBuf};
use std::process::Command;

use peyk_kcm::bpf::{ClassicInsn, Insn, Limits, LoadError, Program};
use peyk_sansio::Prng;

pub const MOV_R6_R1: Insn = Insn { op: 0xbf, dst: 6, src: 1, off: 0, imm: 0 };
pub const EXIT: Insn = Insn { op: 0x95, dst: 0, src: 0, off: 0, imm: 0 };

pub fn insn(op: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
    Insn { op, dst, src, off, imm }
}

pub fn mov(dst: u8, imm: i32) -> Insn {
    insn(0xb7, dst, 0, 0, imm)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bpf")
}

pub fn object(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn load(name: &str) -> Program {
    Program::from_elf(&object(name), Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn program(code: Vec<Insn>) -> Program {
    Program::from_insns(code.clone(), Limits::default()).unwrap_or_else(|error| panic!("{error}: {code:?}"))
}

pub fn refused(code: Vec<Insn>) -> LoadError {
    Program::from_insns(code, Limits::default()).expect_err("it must be refused")
}

/// All sources compiled by the clang of this machine: name, processor, object. `None` without clang.
pub fn compile_all() -> Option<Vec<(String, &'static str, Vec<u8>)>> {
    let mut objects = Vec::new();
    for name in ["thrift", "memcached", "http2", "varint", "resp", "call"] {
        for cpu in ["v2", "v3"] {
            let source = folder().join(format!("{name}.c"));
            let output = Command::new("clang")
                .args(["-target", "bpf", "-O2", "-Wall", "-Werror", &format!("-mcpu={cpu}"), "-c", "-o", "-"])
                .arg(&source)
                .output()
                .ok()?;
            let complaint = String::from_utf8_lossy(&output.stderr);
            if complaint.contains("unable to create target") {
                return None;
            }
            assert!(output.status.success(), "{name} {cpu}: {complaint}");
            objects.push((name.to_owned(), cpu, output.stdout));
        }
    }
    Some(objects)
}

pub fn random_program(prng: &mut Prng) -> Vec<Insn> {
    let length = prng.between(1, 12);
    let mut code = vec![MOV_R6_R1];
    for _ in 0..length {
        let op = *prng
            .pick(&[
                0xb7, 0xbf, 0x07, 0x0f, 0x27, 0x3f, 0x9f, 0x5f, 0x67, 0xc7, 0xd4, 0xdc, 0x20, 0x28, 0x30,
                0x40, 0x50, 0x61, 0x79, 0x69, 0x62, 0x7b, 0x15, 0x1d, 0x55, 0xb5, 0x25, 0x05, 0x85, 0x16,
                0x36, 0x04, 0x1c,
            ])
            .unwrap();
        let register = |prng: &mut Prng| prng.below(11) as u8;
        let imm = match prng.below(3) {
            0 => *prng.pick(&[1, 26, 8, 16, 32, 64]).unwrap(),
            1 => prng.below(16) as i32 - 4,
            _ => prng.next_u32() as i32,
        };
        let off = *prng.pick(&[0, 1, 2, -1, -2, -4, -8, -16, -512, 48, 64]).unwrap();
        code.push(insn(op, register(prng), register(prng), off, imm));
    }
    code.push(EXIT);
    code
}

pub fn random_classic(prng: &mut Prng) -> Vec<ClassicInsn> {
    let length = prng.between(1, 10);
    let mut code: Vec<ClassicInsn> = (0..length)
        .map(|at| {
            let op = *prng
                .pick(&[
                    0x00, 0x01, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x60, 0x61, 0x80, 0x81, 0xb1, 0x02, 0x03,
                    0x07, 0x87, 0x04, 0x0c, 0x14, 0x1c, 0x24, 0x34, 0x3c, 0x94, 0x9c, 0x44, 0x54, 0x5c, 0x64,
                    0x74, 0x84, 0xa4, 0x05, 0x15, 0x1d, 0x25, 0x35, 0x45, 0x4d, 0x06, 0x16,
                ])
                .unwrap();
            let left = (length - at) as u8;
            let k = match op {
                0x05 => prng.below(u64::from(left)) as u32,
                0x60 | 0x61 | 0x02 | 0x03 => prng.below(16) as u32,
                0x64 | 0x74 => prng.below(32) as u32,
                _ if prng.chance(0.8) => prng.below(24) as u32,
                _ => prng.next_u32(),
            };
            ClassicInsn {
                code: op,
                jt: prng.below(u64::from(left)) as u8,
                jf: prng.below(u64::from(left)) as u8,
                k,
            }
        })
        .collect();
    code.push(ClassicInsn { code: 0x16, ..ClassicInsn::default() });
    code
}

/// What a classic program returns, by the book.
pub fn classic_oracle(code: &[ClassicInsn], bytes: &[u8]) -> u32 {
    let (mut a, mut x, mut m, mut pc) = (0u32, 0u32, [0u32; 16], 0usize);
    let load = |at: u64, size: usize| -> Option<u32> {
        let at = usize::try_from(at).ok()?;
        Some(bytes.get(at..at.checked_add(size)?)?.iter().fold(0, |v, &b| v << 8 | u32::from(b)))
    };
    macro_rules! get {
        ($at:expr, $size:expr) => {
            match load($at, $size) {
                Some(value) => value,
                None => return 0,
            }
        };
    }
    // As signed offsets: what is negative is outside.
    let indexed = |x: u32, k: u32| (i64::from(x as i32) + i64::from(k as i32)) as u64;
    loop {
        let i = code[pc];
        pc += 1;
        let operand = if i.code & 8 != 0 { x } else { i.k };
        match i.code {
            0x00 => a = i.k,
            0x01 => x = i.k,
            0x20 => a = get!(u64::from(i.k), 4),
            0x28 => a = get!(u64::from(i.k), 2),
            0x30 => a = get!(u64::from(i.k), 1),
            0x40 => a = get!(indexed(x, i.k), 4),
            0x48 => a = get!(indexed(x, i.k), 2),
            0x50 => a = get!(indexed(x, i.k), 1),
            0x60 => a = m[i.k as usize],
            0x61 => x = m[i.k as usize],
            0x80 => a = bytes.len() as u32,
            0x81 => x = bytes.len() as u32,
            0xb1 => x = (get!(u64::from(i.k), 1) & 15) * 4,
            0x02 => m[i.k as usize] = a,
            0x03 => m[i.k as usize] = x,
            0x07 => x = a,
            0x87 => a = x,
            0x06 => return i.k,
            0x16 => return a,
            0x05 => pc += i.k as usize,
            0x15 | 0x1d => pc += usize::from(if a == operand { i.jt } else { i.jf }),
            0x25 | 0x2d => pc += usize::from(if a > operand { i.jt } else { i.jf }),
            0x35 | 0x3d => pc += usize::from(if a >= operand { i.jt } else { i.jf }),
            0x45 | 0x4d => pc += usize::from(if a & operand != 0 { i.jt } else { i.jf }),
            0x34 | 0x3c | 0x94 | 0x9c if operand == 0 => return 0,
            code => {
                a = match code & 0xf0 {
                    0x00 => a.wrapping_add(operand),
                    0x10 => a.wrapping_sub(operand),
                    0x20 => a.wrapping_mul(operand),
                    0x30 => a / operand,
                    0x40 => a | operand,
                    0x50 => a & operand,
                    0x60 => a << (operand & 31),
                    0x70 => a >> (operand & 31),
                    0x80 => a.wrapping_neg(),
                    0x90 => a % operand,
                    _ => a ^ operand,
                }
            }
        }
    }
}
