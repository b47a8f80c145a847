//! What a program must be before it runs. Safety does not rest on it (the interpreter checks each access):
//! it refuses early, and by name, what cannot work.

use super::insn::{self, Insn, alu};
use super::vm::{CB, CONTEXT_SIZE, FRAME};
use super::{Limits, LoadError, Region};

/// Refuses what the interpreter does not know or what the kernel would not take either.
pub(super) fn check(code: &[Insn], data: &[Region], limits: Limits) -> Result<(), LoadError> {
    if code.is_empty() || code.len() > limits.instructions {
        return Err(LoadError::Length { len: code.len(), limit: limits.instructions });
    }
    let mut starts = vec![true; code.len()];
    let mut at = 0;
    while at < code.len() {
        if code[at].op == insn::LD_IMM64 {
            match code.get(at + 1) {
                Some(second) if second.op == 0 && second.dst == 0 && second.src == 0 => {
                    starts[at + 1] = false
                }
                _ => return refuse(at, "half of a 64-bit constant"),
            }
            at += 1;
        }
        at += 1;
    }
    for (at, &insn) in code.iter().enumerate().filter(|&(at, _)| starts[at]) {
        check_insn(insn, at, data)?;
        if let Some(target) = targets(insn, at) {
            let is_inside = usize::try_from(target).is_ok_and(|to| starts.get(to) == Some(&true));
            if !is_inside {
                return refuse(at, "a jump out of the program or into a constant");
            }
        }
    }
    let last = code.len() - 1;
    if !starts[last] || !matches!(code[last].op, insn::EXIT | insn::JA | insn::JA32) {
        return refuse(last, "the program does not end with exit or a jump");
    }
    check_flow(code, &starts)
}

fn refuse<T>(at: usize, why: &'static str) -> Result<T, LoadError> {
    Err(LoadError::Insn { at, why })
}

/// Where an instruction may go besides the next.
fn targets(insn: Insn, at: usize) -> Option<i64> {
    let next = at as i64 + 1;
    match (insn.class(), insn.op) {
        (_, insn::EXIT) => None,
        (_, insn::CALL) => (insn.src == insn::PSEUDO_CALL).then(|| next + i64::from(insn.imm)),
        (_, insn::JA32) => Some(next + i64::from(insn.imm)),
        (insn::JMP | insn::JMP32, _) => Some(next + i64::from(insn.off)),
        _ => None,
    }
}

fn check_insn(insn: Insn, at: usize, data: &[Region]) -> Result<(), LoadError> {
    if insn.dst > 10 || (insn.src > 10 && insn.op != insn::LD_IMM64) {
        return refuse(at, "no such register");
    }
    let writes = matches!(insn.class(), insn::ALU | insn::ALU64 | insn::LDX) || insn.op == insn::LD_IMM64;
    if writes && insn.dst == 10 {
        return refuse(at, "r10 is read-only");
    }
    match insn.class() {
        insn::ALU | insn::ALU64 => check_alu(insn, at),
        insn::JMP | insn::JMP32 => check_jump(insn, at),
        insn::LD if insn.op == insn::LD_IMM64 => match insn.src {
            0 => Ok(()),
            insn::PSEUDO_MAP | insn::PSEUDO_DATA if (insn.imm as usize) < data.len() => Ok(()),
            _ => refuse(at, "a constant that names nothing"),
        },
        insn::LD => match insn.op & insn::MODE {
            insn::ABS | insn::IND if insn::size(insn.op) < 8 => Ok(()),
            _ => refuse(at, "no such load"),
        },
        insn::LDX => match insn.op & insn::MODE {
            insn::MEM => check_stack(insn, insn.src, at),
            insn::MEMSX if insn::size(insn.op) < 8 => check_stack(insn, insn.src, at),
            _ => refuse(at, "no such load"),
        },
        _ if insn.op & insn::MODE == insn::MEM => check_stack(insn, insn.dst, at),
        _ => refuse(at, "atomic operations are not for framers"),
    }
}

fn check_stack(insn: Insn, base: u8, at: usize) -> Result<(), LoadError> {
    let start = i64::from(insn.off);
    if base == 10 && (start < -(FRAME as i64) || start + insn::size(insn.op) as i64 > 0) {
        return refuse(at, "an access outside the stack");
    }
    Ok(())
}

fn check_alu(insn: Insn, at: usize) -> Result<(), LoadError> {
    let operation = insn.op & 0xf0;
    let is_constant = insn.op & insn::X == 0;
    let width = if insn.class() == insn::ALU { 32 } else { 64 };
    match operation {
        alu::DIV | alu::MOD if is_constant && insn.imm == 0 => refuse(at, "a division by zero"),
        alu::LSH | alu::RSH | alu::ARSH if is_constant && !(0..width).contains(&insn.imm) => {
            refuse(at, "a shift wider than the register")
        }
        alu::END if !matches!(insn.imm, 16 | 32 | 64) => refuse(at, "no such byte order"),
        alu::END if insn.class() == insn::ALU64 && !is_constant => refuse(at, "no such operation"),
        alu::MOV
            if insn.off != 0 && (is_constant || !matches!((insn.off, width), (8 | 16, _) | (32, 64))) =>
        {
            refuse(at, "no such move")
        }
        alu::DIV | alu::MOD if !matches!(insn.off, 0 | 1) => refuse(at, "no such division"),
        alu::ADD..=alu::END => Ok(()),
        _ => refuse(at, "no such operation"),
    }
}

fn check_jump(insn: Insn, at: usize) -> Result<(), LoadError> {
    match (insn.class(), insn.op & 0xf0) {
        (insn::JMP, 0x80) if insn.op != insn::CALL => refuse(at, "a call by register"),
        (insn::JMP, 0x80) if insn.src == insn::PSEUDO_CALL => Ok(()),
        (insn::JMP, 0x80) if insn.src != 0 => refuse(at, "a call into the kernel"),
        (insn::JMP, 0x80) => match insn.imm {
            1 | 5 | 7 | 8 | 26 | 68 => Ok(()),
            id => Err(LoadError::Helper { at, id, name: helper_name(id) }),
        },
        (insn::JMP, 0x90) if insn.op == insn::EXIT => Ok(()),
        (_, 0x00) if matches!(insn.op, insn::JA | insn::JA32) => Ok(()),
        (_, 0x10..=0x70 | 0xa0..=0xd0) => Ok(()),
        _ => refuse(at, "no such jump"),
    }
}

/// Names of the helpers that people try.
fn helper_name(id: i32) -> &'static str {
    match id {
        2 => "map_update_elem",
        3 => "map_delete_elem",
        6 => "trace_printk",
        9 => "skb_store_bytes",
        12 => "tail_call",
        14 => "get_current_pid_tgid",
        15 => "get_current_uid_gid",
        25 => "perf_event_output",
        46 => "get_socket_cookie",
        47 => "get_socket_uid",
        93 => "spin_lock",
        94 => "spin_unlock",
        _ => "unknown",
    }
}

/// Follows where the context pointer may be: packet loads need it in r6, and its fields are known.
fn check_flow(code: &[Insn], starts: &[bool]) -> Result<(), LoadError> {
    // For each instruction the registers that hold the context on every way there; `None`: not reached.
    let mut held: Vec<Option<u16>> = vec![None; code.len()];
    let mut open = vec![(0usize, 1u16 << 1)];
    let mut visits = 0usize;
    while let Some((at, incoming)) = open.pop() {
        let merged = held[at].map_or(incoming, |before| before & incoming);
        if held[at] == Some(merged) {
            continue;
        }
        held[at] = Some(merged);
        visits += 1;
        if visits > 16 * code.len() + 64 {
            break; // Cannot happen: a set of 11 registers shrinks at most 11 times.
        }
        let insn = code[at];
        let after = transfer(insn, at, merged)?;
        if let Some(target) = targets(insn, at) {
            // A function gets its arguments in r1 to r5; what it does to r6 to r9 is undone.
            let is_call = insn.op == insn::CALL;
            open.push((target as usize, if is_call { merged & 0b11_1110 } else { after }));
        }
        let falls = !matches!(insn.op, insn::EXIT | insn::JA | insn::JA32);
        let next = at + if insn.op == insn::LD_IMM64 { 2 } else { 1 };
        if falls {
            match starts.get(next) {
                Some(true) => open.push((next, after)),
                _ => return refuse(at, "the program runs off its end"),
            }
        }
    }
    Ok(())
}

/// The registers that hold the context after an instruction.
fn transfer(insn: Insn, at: usize, held: u16) -> Result<u16, LoadError> {
    let holds = |register: u8| held & (1 << register) != 0;
    let without = held & !(1 << insn.dst);
    Ok(match insn.class() {
        insn::LD if insn.op != insn::LD_IMM64 => {
            if !holds(6) {
                return refuse(at, "a packet load without the context in r6");
            }
            held & !0b11_1111
        }
        insn::LD => without,
        insn::LDX => {
            if holds(insn.src) {
                check_field(insn, at)?;
            }
            without
        }
        insn::ST | insn::STX => {
            if holds(insn.dst) {
                let start = usize::try_from(insn.off).unwrap_or(usize::MAX);
                if start < CB.start || start.saturating_add(insn::size(insn.op)) > CB.end {
                    return refuse(at, "only cb[] of the context can be written");
                }
            }
            held
        }
        insn::ALU64 if insn.op == alu::MOV | insn::X | insn::ALU64 && insn.off == 0 && holds(insn.src) => {
            held | 1 << insn.dst
        }
        insn::ALU | insn::ALU64 => without,
        _ if insn.op == insn::CALL => held & !0b11_1111,
        _ => held,
    })
}

/// Fields of the context that this kind of program has in the kernel.
fn check_field(insn: Insn, at: usize) -> Result<(), LoadError> {
    let start = usize::try_from(insn.off).unwrap_or(usize::MAX);
    let end = start.saturating_add(insn::size(insn.op));
    if end > CONTEXT_SIZE {
        return refuse(at, "no such field of the context");
    }
    // tc_classid, data, data_end, addresses and ports, data_meta, tstamp, wire_len, hwtstamp.
    for hidden in [72..84, 88..144, 152..164, 184..192] {
        if start < hidden.end && end > hidden.start {
            return refuse(at, "a field of the context that socket filters do not have");
        }
    }
    Ok(())
}
