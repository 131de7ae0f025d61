//! The loadable segments of an ELF64 executable (System V ABI, chapter 4; ELF for the Arm 64-bit architecture).

use alloc::vec::Vec;
use core::ops::Range;

use super::error::LoadError;

/// How an ELF file begins.
pub(super) const MAGIC: &[u8] = b"\x7fELF";
/// `e_ident[EI_CLASS]` of 64-bit files and `e_ident[EI_DATA]` of little-endian ones.
const CLASS_64: u8 = 2;
const DATA_LITTLE: u8 = 1;
/// `e_type`: an executable, and a position-independent one.
const TYPE_EXEC: u16 = 2;
const TYPE_DYN: u16 = 3;
/// `e_machine`: AArch64.
const MACHINE_AARCH64: u16 = 183;
/// Size of a program header in bytes, and the most of them accepted.
const PROGRAM_HEADER_BYTES: u16 = 56;
const MAX_PROGRAM_HEADERS: u16 = 64;
/// `p_type`: a segment to load.
const SEGMENT_LOAD: u32 = 1;
/// A64 instructions are words.
const INSTRUCTION_BYTES: u64 = 4;

/// A segment to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its bytes in the file; may be empty.
    pub file: Range<usize>,
    /// Where they go: `p_paddr`.
    pub address: u64,
    /// How many bytes it has in memory; those past the file's are zero. Never 0 nor less than the file's, and
    /// `address + memory_bytes` does not wrap.
    pub memory_bytes: u64,
}

/// What an ELF file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// The segments, ascending by address, not overlapping; never empty.
    pub segments: Vec<Segment>,
    /// The physical address of the first instruction.
    pub entry: u64,
}

/// Reads a little-endian number.
fn number<const N: usize>(file: &[u8], offset: u64) -> Option<[u8; N]> {
    file.get(usize::try_from(offset).ok()?..)?
        .first_chunk()
        .copied()
}

impl Elf {
    /// Reads the headers of `file`.
    pub(super) fn parse(file: &[u8]) -> Result<Self, LoadError> {
        let header = Header::parse(file)?;
        let mut segments = Vec::new();
        let mut entry = None;
        for index in 0..u64::from(header.count) {
            let offset = index.saturating_mul(u64::from(PROGRAM_HEADER_BYTES));
            let offset = header.table.checked_add(offset);
            let offset = offset.ok_or(LoadError::header("e_phoff", header.table))?;
            let Some((segment, virtual_address)) = read_segment(file, offset)? else {
                continue;
            };
            // The entry point is a virtual address; the segment it is in tells the physical one.
            let inside = header.entry.checked_sub(virtual_address);
            let inside = inside.filter(|offset| *offset < segment.memory_bytes);
            entry = entry.or(inside.map(|offset| segment.address.saturating_add(offset)));
            segments.push(segment);
        }
        let entry = entry.filter(|entry| entry.is_multiple_of(INSTRUCTION_BYTES));
        Ok(Self {
            entry: entry.ok_or(LoadError::header("e_entry", header.entry))?,
            segments: sorted(segments)?,
        })
    }
}

/// What the file's header says, checked.
struct Header {
    /// The virtual address of the first instruction.
    entry: u64,
    /// Where the program headers are, and how many.
    table: u64,
    count: u16,
}

impl Header {
    fn parse(file: &[u8]) -> Result<Self, LoadError> {
        let truncated = || LoadError::truncated("ELF header");
        let half = |at| Ok(u16::from_le_bytes(number(file, at).ok_or_else(truncated)?));
        let double = |at| Ok(u64::from_le_bytes(number(file, at).ok_or_else(truncated)?));
        if number(file, 4).ok_or_else(truncated)? != [CLASS_64, DATA_LITTLE] {
            return Err(LoadError::Foreign("a 32-bit or big-endian ELF file"));
        }
        if half(18)? != MACHINE_AARCH64 {
            return Err(LoadError::Foreign("an ELF file for another processor"));
        }
        let kind = half(16)?;
        if kind != TYPE_EXEC && kind != TYPE_DYN {
            return Err(LoadError::header("e_type", kind.into()));
        }
        let (entry, table) = (double(24)?, double(32)?);
        let (entry_bytes, count) = (half(54)?, half(56)?);
        if entry_bytes != PROGRAM_HEADER_BYTES {
            return Err(LoadError::header("e_phentsize", entry_bytes.into()));
        }
        if count > MAX_PROGRAM_HEADERS {
            return Err(LoadError::header("e_phnum", count.into()));
        }
        Ok(Self {
            entry,
            table,
            count,
        })
    }
}

/// Sorts segments by address and makes sure that none overlaps the next.
fn sorted(mut segments: Vec<Segment>) -> Result<Vec<Segment>, LoadError> {
    segments.sort_unstable_by_key(|segment| (segment.address, segment.memory_bytes));
    for (segment, next) in segments.iter().zip(segments.iter().skip(1)) {
        if next.address.saturating_sub(segment.address) < segment.memory_bytes {
            let address = next.address;
            return Err(LoadError::Overlap { address });
        }
    }
    Ok(segments)
}

/// Reads the program header at `offset`: the segment and its virtual address, or `None` if nothing is to be loaded.
fn read_segment(file: &[u8], offset: u64) -> Result<Option<(Segment, u64)>, LoadError> {
    let truncated = || LoadError::truncated("program headers");
    let field = |at: u64| {
        let bytes = number(file, offset.saturating_add(at));
        bytes.map(u64::from_le_bytes).ok_or_else(truncated)
    };
    let kind = number(file, offset).map(u32::from_le_bytes);
    let (start, virtual_address, address) = (field(8)?, field(16)?, field(24)?);
    let (file_bytes, memory_bytes) = (field(32)?, field(40)?);
    if kind != Some(SEGMENT_LOAD) || memory_bytes == 0 {
        return Ok(None);
    }
    if file_bytes > memory_bytes {
        return Err(LoadError::header("p_filesz", file_bytes));
    }
    if address.checked_add(memory_bytes).is_none() {
        return Err(LoadError::header("p_paddr", address));
    }
    let end = start.checked_add(file_bytes);
    let end = end.ok_or(LoadError::header("p_offset", start))?;
    if end > file.len() as u64 {
        return Err(LoadError::truncated("segments"));
    }
    // Both are at most the file's length.
    let file = start as usize..end as usize;
    let segment = Segment {
        file,
        address,
        memory_bytes,
    };
    Ok(Some((segment, virtual_address)))
}
