//! Any bytes as an object, as instructions and as a classic program: loading never panics, and what is
//! loaded runs to an end on any input, the short way and the long way alike.

use peyk_kcm::bpf::{ClassicInsn, Limits, Program};

/// Does what the target claims with one input; panics where the claim fails.
pub fn run(bytes: &[u8]) {
    let limits = Limits::default();
    let _ = Program::from_elf(bytes, limits).map(|program| check(&program, bytes));
    let whole = bytes.len() / 8 * 8;
    let _ = Program::from_bytes(&bytes[..whole], limits).map(|program| check(&program, bytes));
    let classic: Vec<ClassicInsn> = bytes
        .chunks_exact(8)
        .map(|chunk| ClassicInsn {
            code: u16::from_le_bytes([chunk[0], chunk[1]]),
            jt: chunk[2],
            jf: chunk[3],
            k: u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]),
        })
        .collect();
    let _ = Program::from_classic(&classic, limits).map(|program| check(&program, bytes));
}

fn check(program: &Program, bytes: &[u8]) {
    for end in [0, 1, 4, 9, bytes.len().min(64)] {
        let input = &bytes[..end.min(bytes.len())];
        let result = program.run(input);
        assert_eq!(result.map(|(n, _)| n), program.interpret(input).map(|(n, _)| n));
        assert_eq!(result, program.run(input), "a program has no memory");
    }
}
