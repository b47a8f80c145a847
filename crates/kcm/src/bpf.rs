//! Delineation by program: eBPF objects of the kind socket filters are, as clang compiles them for Linux
//! KCM, and classic BPF. A program sees one message from its first byte on and returns its length.
//!
//! ```text
//!   ELF object ──elf──┐                          ┌─fast: a load and a few sums, run natively
//!   raw eBPF ─────────┼─> verify ─> Program ─────┤
//!   classic ─classic──┘                          └─vm: the interpreter, safe and bounded
//! ```
//!
//! There is no just-in-time compiler: those at hand check no bounds in the code they emit, and the
//! interpreter takes 1 to 5 % of a CPU for the usual headers at a million messages a second.

mod classic;
mod elf;
mod fast;
mod insn;
mod verify;
mod vm;

use std::sync::Arc;

use crate::error::{Code, FrameError};
use crate::framer::{Frame, Framer, Meta, Resume, Spread, Verdict};

pub use classic::{ClassicInsn, parse_ddd};
pub use insn::Insn;
use vm::Vm;

/// What a program may cost, and what it sees beside the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest program, in instructions.
    pub instructions: usize,
    /// Jumps backwards and calls in one run.
    pub budget: u32,
    /// Bytes of a message for which the program may answer 0; with more it is a broken header.
    pub max_header: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { instructions: 4096, budget: 4096, max_header: 64 * 1024 }
    }
}

/// Why a program was not accepted; the message names the instruction.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file is no eBPF object.
    #[error("not an eBPF object: {0}")]
    NotBpf(&'static str),
    /// No section holds a program, or several do.
    #[error("expected one program in a section named socket, socket/..., or socket_kcm; found {found}")]
    Section {
        /// How many there are.
        found: usize,
    },
    /// A relocation that cannot be applied.
    #[error("instruction {at}: cannot relocate: {why}")]
    Relocation {
        /// Index of the instruction.
        at: usize,
        /// What is in the way.
        why: &'static str,
    },
    /// An instruction that is refused.
    #[error("instruction {at}: {why}")]
    Insn {
        /// Index of the instruction.
        at: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A function of the kernel that framers cannot have.
    #[error("instruction {at}: helper {id} ({name}) is not available to framers")]
    Helper {
        /// Index of the instruction.
        at: usize,
        /// The kernel's number of the helper.
        id: i32,
        /// Its name.
        name: &'static str,
    },
    /// Too long or empty.
    #[error("a program has 1 to {limit} instructions, this one {len}")]
    Length {
        /// Instructions it has.
        len: usize,
        /// Instructions it may have.
        limit: usize,
    },
}

/// A verified program; clones share it.
#[derive(Clone, Debug)]
pub struct Program(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    code: Vec<Insn>,
    /// Read-only data and maps, by the number that a relocated LD_IMM64 carries.
    data: Vec<Region>,
    limits: Limits,
    /// Functions that may be nested, 0 if it has no stack.
    frames: usize,
    fast: Option<fast::Fast>,
}

/// Memory of a program besides its stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Region {
    /// A section of constants.
    Constants(Vec<u8>),
    /// A map: every entry present and zero, as a new array map has it; hash maps start empty.
    Map {
        /// Bytes of a key.
        key: usize,
        /// Bytes of a value.
        value: usize,
        /// Entries of an array, 0 for a hash.
        entries: usize,
        /// What has been set by [`Program::with_map`].
        values: Vec<u8>,
        /// Its name.
        name: String,
    },
}

impl Program {
    /// Loads an ELF object: the program in section `socket`, `socket/...` or `socket_kcm`, or the only one.
    ///
    /// # Errors
    /// It is no such object, or its program is refused.
    pub fn from_elf(bytes: &[u8], limits: Limits) -> Result<Program, LoadError> {
        let (code, data) = elf::load(bytes)?;
        Program::build(code, data, limits)
    }

    /// Takes instructions as the kernel has them.
    ///
    /// # Errors
    /// The program is refused.
    pub fn from_insns(code: Vec<Insn>, limits: Limits) -> Result<Program, LoadError> {
        Program::build(code, Vec::new(), limits)
    }

    /// Takes instructions as bytes, eight for each.
    ///
    /// # Errors
    /// The program is refused.
    pub fn from_bytes(bytes: &[u8], limits: Limits) -> Result<Program, LoadError> {
        if !bytes.len().is_multiple_of(8) {
            return Err(LoadError::NotBpf("the length is no multiple of eight"));
        }
        Program::from_insns(bytes.chunks_exact(8).map(Insn::from_bytes).collect(), limits)
    }

    /// Translates a classic program, as `SO_ATTACH_FILTER` takes it.
    ///
    /// # Errors
    /// The program is refused.
    pub fn from_classic(code: &[ClassicInsn], limits: Limits) -> Result<Program, LoadError> {
        Program::build(classic::translate(code)?, Vec::new(), limits)
    }

    /// The same program with the values of an array map set, `values` one after the other. `None` if it has
    /// no array of this name and size.
    pub fn with_map(&self, map: &str, new: &[u8]) -> Option<Program> {
        let mut data = self.0.data.clone();
        let values = data.iter_mut().find_map(|region| match region {
            Region::Map { name, values, .. } if name == map && values.len() == new.len() => Some(values),
            _ => None,
        })?;
        values.copy_from_slice(new);
        let Inner { code, limits, frames, .. } = &*self.0;
        let inner = Inner { code: code.clone(), data, limits: *limits, frames: *frames, fast: None };
        Some(Program(Arc::new(inner)))
    }

    fn build(code: Vec<Insn>, data: Vec<Region>, limits: Limits) -> Result<Program, LoadError> {
        verify::check(&code, &data, limits)?;
        let (fast, frames) = (fast::recognise(&code), vm::frames(&code));
        Ok(Program(Arc::new(Inner { code, data, limits, frames, fast })))
    }

    /// Whether it is simple enough to run without the interpreter.
    pub fn is_simple(&self) -> bool {
        self.0.fast.is_some()
    }

    /// Runs it on the bytes of a message: its result as a signed 32-bit number, and the words of its
    /// context that it may write.
    ///
    /// # Errors
    /// It ran too long or touched what it does not have.
    pub fn run(&self, bytes: &[u8]) -> Result<(i32, [u32; 5]), FrameError> {
        match &self.0.fast {
            Some(fast) => Ok((fast.run(bytes), [0; 5])),
            None => self.interpret(bytes),
        }
    }

    /// The same, always by the interpreter.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn interpret(&self, bytes: &[u8]) -> Result<(i32, [u32; 5]), FrameError> {
        let Inner { code, data, limits, frames, .. } = &*self.0;
        match frames {
            0 => Vm::<0>::new(code, data, bytes, limits.budget).run(),
            1 => Vm::<1>::new(code, data, bytes, limits.budget).run(),
            _ => Vm::<{ vm::DEPTH }>::new(code, data, bytes, limits.budget).run(),
        }
    }
}

/// A [`Program`] as a framer. The program's output words (`cb[0..5]`) are the message's key, class and
/// length of header: `0 hash, 1 class, 2 reserved, 3 header, 4 reserved`.
#[derive(Clone, Debug)]
pub struct BpfFramer {
    program: Program,
    spread: Spread,
}

impl BpfFramer {
    /// Delineates with this program; `spread` says whether its messages have an order.
    pub fn new(program: Program, spread: Spread) -> BpfFramer {
        BpfFramer { program, spread }
    }
}

impl Framer for BpfFramer {
    fn frame(&mut self, bytes: &[u8], _: &mut Resume) -> Verdict {
        match self.program.run(bytes) {
            Ok((0, _)) => Verdict::Need(bytes.len() + 1),
            Ok((total, words)) if total > 0 => {
                let key = (words[0] != 0).then_some(words[0]);
                let meta = Meta { key, class: words[1], header: words[3] };
                Verdict::Len(Frame { total: total as u64, meta })
            }
            Ok((error, _)) => {
                let code = Code(error.checked_neg().unwrap_or(i32::MAX));
                Verdict::Bad(FrameError { code, why: "the program says so" })
            }
            Err(error) => Verdict::Bad(error),
        }
    }

    fn max_header(&self) -> usize {
        self.program.0.limits.max_header
    }

    fn spread(&self) -> Spread {
        self.spread
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(self.clone())
    }
}
