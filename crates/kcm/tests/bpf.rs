//! Programs as clang compiles them, classic programs, and programs that must be refused (kcm.md part 3,
//! cases 98 to 106). The objects in `tests/bpf/` are made from the sources beside them; where clang is
//! installed they are made again and must behave alike.
#![allow(non_snake_case)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "reads fixtures, runs a compiler")]

mod common;

use common::bpf::*;
use peyk_kcm::bpf::{BpfFramer, ClassicInsn, Insn, Limits, LoadError, Program, parse_ddd};
use peyk_kcm::error::Code;
use peyk_kcm::framer::{Framer, Resume, Spread, Verdict};
use peyk_sansio::Prng;

/// Inputs and results of the five programs, as the kernel has them.
fn cases(name: &str) -> Vec<(Vec<u8>, i32)> {
    let word = |value: u32| value.to_be_bytes().to_vec();
    let cut = |bytes: &[u8], result: i32| {
        (0..bytes.len())
            .map(|n| (bytes[..n].to_vec(), 0))
            .chain([(bytes.to_vec(), result)])
            .collect::<Vec<_>>()
    };
    match name {
        "thrift" => {
            let mut all = cut(&word(100), 104);
            // The traps: a length near 2^32 wraps to "more", one above 2^31 is an error.
            all.extend([
                (word(0xffff_fffc), 0),
                (word(0x8000_0000), i32::MIN + 4),
                (word(0x7fff_ffff), i32::MIN + 3),
            ]);
            all
        }
        "memcached" => {
            let mut get = vec![0u8; 24];
            (get[0], get[3], get[11]) = (0x80, 5, 5);
            let mut broken = get.clone();
            broken[3] = 6;
            let mut other = get.clone();
            other[0] = 0x42;
            let mut all = cut(&get, 29);
            all.extend([(broken, -71), (other, -71)]);
            all
        }
        "http2" => {
            let frame = [0, 1, 2, 0, 0, 0, 0, 0, 1];
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
            let mut all = cut(&frame, 267);
            all.extend((0..24).map(|n| (preface[..n].to_vec(), 0)));
            all.extend([(preface.to_vec(), 24), (b"\xff\0\0\0\0\0\0\0\0".to_vec(), -90)]);
            all
        }
        "varint" => {
            let mut all = cut(&[0xac, 0x02], 302);
            all.extend([(vec![5], 6), (vec![0xff; 5], -71), (vec![0xff; 4], 0)]);
            all
        }
        _ => {
            let set = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\n";
            // The last line feed says nothing any more.
            let mut all = cut(&set[..set.len() - 1], set.len() as i32 + 12);
            all.extend([(b"+OK\r\n".to_vec(), -71), (b"*17\r\n".to_vec(), -90), (b"*1\r\n:".to_vec(), -71)]);
            all
        }
    }
}

#[test]
fn case_098__five_objects_v2_and_v3() {
    for name in ["thrift", "memcached", "http2", "varint", "resp"] {
        for cpu in ["v2", "v3"] {
            let program = load(&format!("{name}.{cpu}.o"));
            for (bytes, result) in cases(name) {
                let interpreted = program.interpret(&bytes).map(|(result, _)| result);
                assert_eq!(interpreted, Ok(result), "{name} {cpu} on {bytes:x?}");
                assert_eq!(program.run(&bytes).map(|(result, _)| result), Ok(result), "{name} {cpu}");
            }
        }
    }
}

#[test]
fn case_098__objects_made_by_the_clang_of_this_machine() {
    let Some(objects) = compile_all() else {
        eprintln!(
            "!!! SKIPPED: clang with the bpf target is not installed; only the objects kept were tested"
        );
        return;
    };
    for (name, cpu, object) in objects {
        let program =
            Program::from_elf(&object, Limits::default()).unwrap_or_else(|e| panic!("{name} {cpu}: {e}"));
        if name == "call" {
            continue;
        }
        for (bytes, result) in cases(&name) {
            assert_eq!(
                program.run(&bytes).map(|(result, _)| result),
                Ok(result),
                "{name} {cpu} on {bytes:x?}"
            );
        }
    }
}

#[test]
fn elf__calls_constants_and_maps_are_relocated() {
    for cpu in ["v2", "v3"] {
        let program = load(&format!("call.{cpu}.o"));
        assert_eq!(program.run(&[2]).unwrap().0, 24);
        assert_eq!(program.run(&[7]).unwrap().0, 32);
        assert_eq!(program.run(&[]).unwrap().0, 0);
        let filled = program.with_map("extra", &[100, 0, 0, 0, 9, 9, 9, 9]).expect("the map is there");
        assert_eq!(filled.run(&[0]).unwrap().0, 108);
        assert!(program.with_map("extra", &[1]).is_none() && program.with_map("other", &[0; 8]).is_none());
    }
}

#[test]
fn elf__output_words_become_key_and_header() {
    let mut framer = BpfFramer::new(load("memcached.v3.o"), Spread::Any);
    let mut get = vec![0u8; 24];
    get[0] = 0x80;
    get[12..16].copy_from_slice(&77u32.to_be_bytes());
    let Verdict::Len(frame) = framer.frame(&get, &mut Resume::default()) else { panic!("a whole header") };
    assert_eq!((frame.total, frame.meta.key, frame.meta.header), (24, Some(77), 24));
}

#[test]
fn elf__may_lie_anywhere_in_memory() {
    let object = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bpf/thrift.v3.o")).unwrap();
    for offset in 0..8 {
        let moved = [vec![0; offset], object.clone()].concat();
        assert!(Program::from_elf(&moved[offset..], Limits::default()).is_ok(), "{offset}");
    }
}

#[test]
fn elf__what_is_no_object_is_refused() {
    let not = |bytes: &[u8]| Program::from_elf(bytes, Limits::default()).unwrap_err();
    assert!(matches!(not(b""), LoadError::NotBpf(_)));
    assert!(matches!(not(b"\x7fELF"), LoadError::NotBpf(_)));
    let mut other = object("thrift.v2.o");
    other[18] = 62; // x86-64
    assert_eq!(not(&other), LoadError::NotBpf("made for another machine"));
}

#[test]
fn case_099__packet_loads() {
    // Byte order, and the end of the buffer.
    let bytes = [1, 2, 3, 4, 5];
    for (op, at, expected) in
        [(0x30, 0, 1), (0x28, 1, 0x0203), (0x20, 1, 0x0203_0405), (0x20, 2, 0), (0x30, -1, 0)]
    {
        let code = vec![MOV_R6_R1, insn(op, 0, 0, 0, at), EXIT];
        assert_eq!(program(code).interpret(&bytes).unwrap().0, expected, "{op:#x} at {at}");
    }
    // Indirect: register plus constant, and it may be negative.
    let code = |base| vec![MOV_R6_R1, mov(7, base), insn(0x50, 0, 7, 0, 2), EXIT];
    assert_eq!(program(code(1)).interpret(&bytes).unwrap().0, 4);
    assert_eq!(program(code(-2)).interpret(&bytes).unwrap().0, 1);
    assert_eq!(program(code(-3)).interpret(&bytes).unwrap().0, 0);
    // r1 to r5 are destroyed: nothing of the context is left in r1.
    let code = vec![MOV_R6_R1, mov(3, 9), insn(0x30, 0, 0, 0, 0), insn(0xbf, 0, 3, 0, 0), EXIT];
    assert_eq!(program(code).interpret(&bytes).unwrap().0, 0);
    // The context must be in r6 on every way.
    let error = refused(vec![insn(0x30, 0, 0, 0, 0), EXIT]);
    assert!(matches!(error, LoadError::Insn { at: 0, .. }), "{error}");
    let error = refused(vec![insn(0x15, 2, 0, 1, 0), MOV_R6_R1, insn(0x30, 0, 0, 0, 0), EXIT]);
    assert!(matches!(error, LoadError::Insn { at: 2, .. }), "{error}");
}

#[test]
fn case_100__skb_load_bytes() {
    let load = |from: i32, len: i32, to: i32| {
        program(vec![
            mov(2, from),
            insn(0xbf, 3, 10, 0, 0),
            insn(0x07, 3, 0, 0, to),
            mov(4, len),
            insn(0x7a, 10, 0, -8, -1), // the target is not zero before
            insn(0x85, 0, 0, 0, 26),
            insn(0x71, 1, 10, -8, 0),
            insn(0x67, 1, 0, 0, 8),
            insn(0x0f, 0, 1, 0, 0),
            EXIT,
        ])
    };
    let bytes = [7, 8, 9];
    assert_eq!(load(0, 3, -8).interpret(&bytes).unwrap().0, 7 << 8);
    assert_eq!(load(2, 1, -8).interpret(&bytes).unwrap().0, 9 << 8);
    // Out of range: -EFAULT and a zeroed target.
    assert_eq!(load(2, 2, -8).interpret(&bytes).unwrap().0, -14);
    assert_eq!(load(-1, 1, -8).interpret(&bytes).unwrap().0, -14);
    // Nothing to load is refused too, and the target untouched.
    assert_eq!(load(0, 0, -8).interpret(&bytes).unwrap().0, -14 + (0xff << 8));
    // A target outside the stack is an error of the run.
    assert_eq!(load(0, 3, 0).interpret(&bytes).unwrap_err().code, Code::FAULT);
    assert_eq!(load(0, 3, -8192).interpret(&bytes).unwrap_err().code, Code::FAULT);
}

#[test]
fn case_101__an_endless_loop_ends_by_budget() {
    let error = program(vec![insn(0x05, 0, 0, -1, 0)]).interpret(&[]).unwrap_err();
    assert_eq!((error.code, error.why), (Code::FAULT, "the program runs too long"));
    let error = program(vec![insn(0x85, 0, 1, 0, -1), EXIT]).interpret(&[]).unwrap_err();
    assert_eq!(error.why, "calls are nested too deeply");
    let mut framer = BpfFramer::new(program(vec![insn(0x05, 0, 0, -1, 0)]), Spread::Any);
    assert!(matches!(framer.frame(b"x", &mut Resume::default()), Verdict::Bad(_)));
}

#[test]
fn case_102__what_cannot_work_is_refused_by_name() {
    for id in [2, 6, 12, 25, 46, 47, 93, 1000, -1] {
        let error = refused(vec![insn(0x85, 0, 0, 0, id), EXIT]);
        assert!(matches!(error, LoadError::Helper { at: 0, id: refused, .. } if refused == id), "{error}");
    }
    for offset in [72, 76, 80, 88, 100, 136, 140, 152, 156, 160, 184, 188, 192, 1000, -4] {
        assert!(matches!(refused(vec![insn(0x61, 0, 1, offset, 0), EXIT]), LoadError::Insn { at: 0, .. }));
    }
    for offset in [0, 4, 44, 68, 72] {
        assert!(matches!(refused(vec![insn(0x62, 1, 0, offset, 0), EXIT]), LoadError::Insn { at: 0, .. }));
    }
    for (what, code) in [
        ("register", vec![insn(0xb7, 11, 0, 0, 0), EXIT]),
        ("r10", vec![insn(0xb7, 10, 0, 0, 0), EXIT]),
        ("opcode", vec![insn(0xe7, 0, 0, 0, 0), EXIT]),
        ("atomic", vec![insn(0xdb, 10, 0, -8, 0), EXIT]),
        ("call by register", vec![insn(0x8d, 0, 0, 0, 0), EXIT]),
        ("jump out", vec![insn(0x05, 0, 0, 5, 0), EXIT]),
        ("jump before", vec![insn(0x05, 0, 0, -2, 0), EXIT]),
        ("jump into a constant", vec![insn(0x05, 0, 0, 1, 0), insn(0x18, 0, 0, 0, 1), Insn::default(), EXIT]),
        ("half a constant", vec![insn(0x18, 0, 0, 0, 1), EXIT]),
        ("no end", vec![mov(0, 1)]),
        ("division by zero", vec![insn(0x37, 0, 0, 0, 0), EXIT]),
        ("shift", vec![insn(0x67, 0, 0, 0, 64), EXIT]),
        ("stack", vec![insn(0x62, 10, 0, 0, 0), EXIT]),
        ("stack below", vec![insn(0x62, 10, 0, -516, 0), EXIT]),
        ("map that is not there", vec![insn(0x18, 1, 1, 0, 0), Insn::default(), EXIT]),
    ] {
        let error = refused(code);
        assert!(matches!(error, LoadError::Insn { .. }), "{what}: {error}");
    }
    assert!(matches!(refused(vec![]), LoadError::Length { len: 0, .. }));
    assert!(matches!(refused(vec![EXIT; 4097]), LoadError::Length { len: 4097, .. }));
}

/// `(load at offset 0) + 4` in classic BPF.
const CLASSIC_THRIFT: [ClassicInsn; 3] = [
    ClassicInsn { code: 0x20, jt: 0, jf: 0, k: 0 },
    ClassicInsn { code: 0x04, jt: 0, jf: 0, k: 4 },
    ClassicInsn { code: 0x16, jt: 0, jf: 0, k: 0 },
];

#[test]
fn case_103__classic_equals_its_meaning_on_random_inputs() {
    let program = Program::from_classic(&CLASSIC_THRIFT, Limits::default()).unwrap();
    assert_eq!(program.run(&[0, 0, 0, 100]).unwrap().0, 104);
    assert_eq!(program.run(&[0, 0, 0]).unwrap().0, 0);
    let mut prng = Prng::new(103);
    let mut accepted = 0;
    for round in 0..20_000 {
        let code = random_classic(&mut prng);
        let Ok(program) = Program::from_classic(&code, Limits::default()) else { continue };
        accepted += 1;
        let bytes: Vec<u8> = (0..prng.below(40)).map(|_| prng.next_u32() as u8).collect();
        let expected = classic_oracle(&code, &bytes) as i32;
        assert_eq!(program.interpret(&bytes).unwrap().0, expected, "round {round}: {code:?} on {bytes:?}");
    }
    assert!(accepted > 5_000, "{accepted}");
}

#[test]
fn classic__tcpdump_text_is_read() {
    let code = parse_ddd("3\n32 0 0 0\n4 0 0 4\n22 0 0 0\n").unwrap();
    assert_eq!(code, CLASSIC_THRIFT);
    for broken in ["", "1", "1 2 3 4", "x", "1\n32 0 0 0 0", "99999999 1"] {
        assert_eq!(parse_ddd(broken), None, "{broken}");
    }
}

#[test]
fn case_104__the_result_is_signed_and_has_32_bits() {
    let imm64 = |low, high| vec![insn(0x18, 0, 0, 0, low), insn(0, 0, 0, 0, high), EXIT];
    assert_eq!(program(imm64(5, 7)).run(&[]).unwrap().0, 5);
    assert_eq!(program(imm64(-5, 0)).run(&[]).unwrap().0, -5);
    assert_eq!(program(imm64(0, 1)).run(&[]).unwrap().0, 0);
    let mut framer = BpfFramer::new(program(imm64(-74, 0)), Spread::Any);
    let Verdict::Bad(error) = framer.frame(b"x", &mut Resume::default()) else { panic!("it is an error") };
    assert_eq!(error.code, Code(74));
}

#[test]
fn case_106__recognised_equals_interpreted() {
    let mut prng = Prng::new(106);
    for name in ["thrift.v2.o", "thrift.v3.o"] {
        let program = load(name);
        assert!(program.is_simple(), "{name}");
        for _ in 0..500_000 {
            let header = prng.next_u64().to_be_bytes();
            let header = &header[..prng.below(9) as usize];
            assert_eq!(program.run(header), program.interpret(header), "{name} on {header:x?}");
        }
    }
    // Any sums with constants, on both widths.
    for _ in 0..2_000 {
        let mut code = vec![MOV_R6_R1, insn(*prng.pick(&[0x20, 0x28, 0x30]).unwrap(), 0, 0, 0, 0)];
        for _ in 0..prng.below(5) {
            let op = *prng.pick(&[0x07, 0x04, 0x17, 0x27, 0x47, 0x57, 0x54, 0xa4]).unwrap();
            code.push(insn(op, 0, 0, 0, prng.next_u32() as i32));
            code.push(insn(
                *prng.pick(&[0x67, 0x74, 0x77, 0xc7, 0xc4]).unwrap(),
                0,
                0,
                0,
                prng.below(32) as i32,
            ));
        }
        code.push(EXIT);
        let program = program(code.clone());
        assert!(program.is_simple());
        for _ in 0..20 {
            let header = prng.next_u32().to_be_bytes();
            assert_eq!(program.run(&header), program.interpret(&header), "{code:?} on {header:x?}");
        }
    }
}

#[test]
fn verified__random_programs_never_panic() {
    let mut prng = Prng::new(7);
    let mut ran = 0;
    for _ in 0..30_000 {
        let code = random_program(&mut prng);
        let Ok(program) = Program::from_insns(code, Limits::default()) else { continue };
        ran += 1;
        let bytes: Vec<u8> = (0..prng.below(32)).map(|_| prng.next_u32() as u8).collect();
        let _ = program.run(&bytes);
    }
    assert!(ran > 1_000, "{ran}");
}
