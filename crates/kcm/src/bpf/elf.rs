//! Objects as clang writes them: finds the program, applies its relocations, reads maps and constants. It
//! knows nothing of what instructions mean.

use object::read::elf::{ElfFile64, FileHeader};
use object::{
    Endianness, Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionIndex,
    SectionKind, SymbolKind,
};

use super::insn::{self, Insn};
use super::{LoadError, Region};

const EM_BPF: u16 = 247;
const R_BPF_64_64: u32 = 1;
const R_BPF_64_32: u32 = 10;
/// Constants and maps of one object together, in bytes.
const DATA_MAX: usize = 1 << 20;

type File<'a> = ElfFile64<'a, Endianness>;

pub(super) fn load(bytes: &[u8]) -> Result<(Vec<Insn>, Vec<Region>), LoadError> {
    let file = File::parse(bytes).map_err(|_| LoadError::NotBpf("no 64-bit ELF file"))?;
    if file.elf_header().e_machine(file.endian()) != EM_BPF {
        return Err(LoadError::NotBpf("made for another machine"));
    }
    if file.endianness() != object::Endianness::Little {
        return Err(LoadError::NotBpf("big-endian"));
    }
    let mut loader = Loader { file: &file, data: Vec::new(), known: Vec::new(), size: 0 };
    let main = loader.program_section()?;
    let mut code = loader.insns(main)?;
    // Functions that are not inlined lie in `.text` and are appended when somebody calls them.
    let text = file.section_by_name(".text").filter(|text| text.size() > 0 && text.index() != main);
    let text = text.map(|text| (text.index(), code.len()));
    if let Some((index, _)) = text {
        let functions = loader.insns(index)?;
        code.extend(functions);
    }
    loader.relocate(main, 0, text, &mut code)?;
    if let Some((index, base)) = text {
        loader.relocate(index, base, text, &mut code)?;
    }
    Ok((code, loader.data))
}

struct Loader<'a, 'b> {
    file: &'a File<'b>,
    data: Vec<Region>,
    /// Sections and symbols that are in `data` already: (section, offset of a map) and index.
    known: Vec<((SectionIndex, Option<u64>), usize)>,
    size: usize,
}

impl Loader<'_, '_> {
    fn program_section(&self) -> Result<SectionIndex, LoadError> {
        let programs = || {
            self.file.sections().filter(|section| section.kind() == SectionKind::Text && section.size() > 0)
        };
        let is_named = |name: &str| name == "socket_kcm" || name == "socket" || name.starts_with("socket/");
        let named: Vec<_> =
            programs().filter(|section| section.name().is_ok_and(is_named)).map(|s| s.index()).collect();
        if let [only] = named[..] {
            return Ok(only);
        }
        let all: Vec<_> = programs()
            .filter(|section| section.name() != Ok(".text") || named.is_empty())
            .map(|section| section.index())
            .collect();
        match (named.len(), &all[..]) {
            (0, [only]) => Ok(*only),
            (0, _) => Err(LoadError::Section { found: all.len() }),
            (found, _) => Err(LoadError::Section { found }),
        }
    }

    fn insns(&self, index: SectionIndex) -> Result<Vec<Insn>, LoadError> {
        let section =
            self.file.section_by_index(index).map_err(|_| LoadError::NotBpf("a section is missing"))?;
        let bytes = section.data().map_err(|_| LoadError::NotBpf("a section lies outside the file"))?;
        if !bytes.len().is_multiple_of(8) || bytes.len() > 8 * (1 << 20) {
            return Err(LoadError::NotBpf("a section of code has no whole number of instructions"));
        }
        Ok(bytes.chunks_exact(8).map(Insn::from_bytes).collect())
    }

    fn relocate(
        &mut self,
        section: SectionIndex,
        base: usize,
        text: Option<(SectionIndex, usize)>,
        code: &mut [Insn],
    ) -> Result<(), LoadError> {
        let section =
            self.file.section_by_index(section).map_err(|_| LoadError::NotBpf("a section is missing"))?;
        for (offset, relocation) in section.relocations() {
            let at = base + (offset / 8) as usize;
            let fail = |why| LoadError::Relocation { at, why };
            let RelocationTarget::Symbol(symbol) = relocation.target() else {
                return Err(fail("it names no symbol"));
            };
            let symbol = self.file.symbol_by_index(symbol).map_err(|_| fail("its symbol is missing"))?;
            let home = symbol.section_index().ok_or(fail("its symbol is not defined here"))?;
            let RelocationFlags::Elf { r_type } = relocation.flags() else { return Err(fail("no ELF type")) };
            let insn = *code.get(at).ok_or(fail("it lies outside the code"))?;
            match (r_type, insn.op) {
                (R_BPF_64_32, insn::CALL) => {
                    let (_, start) =
                        text.filter(|(index, _)| *index == home).ok_or(fail("an unknown function"))?;
                    let target = if symbol.kind() == SymbolKind::Section {
                        start as i64 + i64::from(insn.imm) + 1
                    } else {
                        start as i64 + (symbol.address() / 8) as i64
                    };
                    code[at].src = insn::PSEUDO_CALL;
                    code[at].imm = i32::try_from(target - at as i64 - 1).map_err(|_| fail("too far away"))?;
                }
                (R_BPF_64_64, insn::LD_IMM64) => {
                    let home =
                        self.file.section_by_index(home).map_err(|_| fail("its section is missing"))?;
                    let is_map = home.name().is_ok_and(|name| name == ".maps" || name == "maps");
                    let region = self.region(&home, is_map.then_some(&symbol), at)?;
                    code[at].src = if is_map { insn::PSEUDO_MAP } else { insn::PSEUDO_DATA };
                    let offset = if symbol.kind() == SymbolKind::Section { 0 } else { symbol.address() };
                    let second = code.get_mut(at + 1).ok_or(fail("half of a 64-bit constant"))?;
                    second.imm = insn.imm.wrapping_add(offset as i32);
                    code[at].imm = region as i32;
                }
                _ => return Err(fail("its kind does not fit the instruction")),
            }
        }
        Ok(())
    }

    fn region(
        &mut self,
        home: &object::read::elf::ElfSection64<'_, '_, Endianness>,
        map: Option<&object::read::elf::ElfSymbol64<'_, '_, Endianness>>,
        at: usize,
    ) -> Result<usize, LoadError> {
        let fail = |why| LoadError::Relocation { at, why };
        let key = (home.index(), map.map(|symbol| symbol.address()));
        if let Some((_, index)) = self.known.iter().find(|(known, _)| *known == key) {
            return Ok(*index);
        }
        let data = home.data().map_err(|_| fail("its section lies outside the file"))?;
        let region = match map {
            Some(symbol) if home.name() == Ok("maps") => old_map(data, symbol.address(), symbol.name())?,
            Some(_) => return Err(fail("maps described by BTF are not read; use struct bpf_map_def")),
            None if home.kind() == SectionKind::ReadOnlyData
                || home.kind() == SectionKind::ReadOnlyString =>
            {
                Region::Constants(data.to_vec())
            }
            None => return Err(fail("only constants and maps can be referred to")),
        };
        self.size += match &region {
            Region::Constants(bytes) => bytes.len(),
            Region::Map { values, .. } => values.len(),
        };
        if self.size > DATA_MAX {
            return Err(fail("more than 1 MiB of constants and maps"));
        }
        self.data.push(region);
        self.known.push((key, self.data.len() - 1));
        Ok(self.data.len() - 1)
    }
}

/// `struct bpf_map_def`: type, key size, value size, entries, flags.
fn old_map(data: &[u8], at: u64, name: object::Result<&str>) -> Result<Region, LoadError> {
    const ARRAY: usize = 2;
    const HASH: usize = 1;
    let broken = LoadError::NotBpf("a map's definition is broken");
    let definition = usize::try_from(at).ok().and_then(|at| data.get(at..at.checked_add(16)?));
    let Some(definition) = definition else { return Err(broken) };
    let word = |i: usize| crate::framer::le(&definition[4 * i..4 * i + 4]) as usize;
    let (kind, key, value, entries) = (word(0), word(1), word(2), word(3));
    let size = value.checked_mul(entries).filter(|&size| size <= DATA_MAX);
    match (kind, size) {
        (ARRAY, Some(size)) if key == 4 && value > 0 => Ok(Region::Map {
            key,
            value,
            entries,
            values: vec![0; size],
            name: name.unwrap_or_default().to_owned(),
        }),
        (HASH, Some(_)) if (1..=512).contains(&key) && value > 0 => Ok(Region::Map {
            key,
            value,
            entries: 0,
            values: Vec::new(),
            name: name.unwrap_or_default().to_owned(),
        }),
        _ => Err(broken),
    }
}
