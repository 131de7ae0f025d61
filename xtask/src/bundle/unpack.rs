//! Unpacks kernels, of all their parts: a gzip file may have many members and a zstd file many frames, and every unpacker
//! joins them. A kernel cut to its first part would start and hang without a word.

use std::io::Read;

use anyhow::{Context, anyhow, bail};

/// Largest kernel that is unpacked, in bytes: what a wrong or hostile file can grow to.
const MAX_KERNEL_BYTES: u64 = 1 << 30;
/// What a gzip member, a zstd frame and a device tree begin with.
const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
const DEVICE_TREE: &[u8] = b"\xd0\x0d\xfe\xed";

/// Unpacks a kernel that is packed in a way this program knows, and passes any other file through.
///
/// What comes out packed as an EFI zboot kernel is refused here, because the loader's advice would be to pack it as it was.
pub(super) fn kernel(file: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let content = if is_zboot(&file) {
        unpack_zboot(&file)?
    } else if file.starts_with(GZIP) {
        unpack_gzip(&file)?
    } else if after_skipped(&file).starts_with(ZSTD) {
        unpack_zstd(&file)?
    } else {
        return Ok(file);
    };
    if is_zboot(&content) {
        bail!(
            "is packed twice: unpack it once (`gunzip`, `unzstd`), and pack the EFI zboot kernel that comes of it"
        );
    }
    Ok(content)
}

fn is_zboot(file: &[u8]) -> bool {
    file.get(4..8) == Some(b"zimg")
}

/// Unpacks an EFI zboot kernel: its header tells where the packed Image is and how it is packed
/// (Linux drivers/firmware/efi/libstub/zboot-header.S).
fn unpack_zboot(file: &[u8]) -> anyhow::Result<Vec<u8>> {
    let word = |offset: usize| {
        let bytes = file.get(offset..).and_then(|rest| rest.first_chunk());
        bytes
            .map(|bytes| u32::from_le_bytes(*bytes) as usize)
            .context("EFI zboot header is cut short")
    };
    let (start, size) = (word(8)?, word(12)?);
    let end = start.checked_add(size).filter(|end| *end <= file.len());
    let payload = end.and_then(|end| file.get(start..end));
    let payload = payload.with_context(|| {
        format!("EFI zboot payload at {start:#x} of {size:#x} bytes is not in the file")
    })?;
    let method = file
        .get(24..56)
        .unwrap_or_default()
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    match method {
        b"gzip" => unpack_gzip(payload),
        [b'z', b's', b't', b'd', ..] => unpack_zstd(payload),
        other => {
            let method = String::from_utf8_lossy(other);
            let with = match other {
                b"xz" | b"xzkern" => "unxz",
                b"lzma" => "unlzma",
                b"bzip2" => "bunzip2",
                b"lzo" => "lzop -d",
                b"lz4" => "lz4 -d",
                _ => bail!("EFI zboot kernel packed with {method:?}, which is not known"),
            };
            let from = start.saturating_add(1);
            // Linux's build appends the unpacked size to what these make, and not every command takes that.
            let size = size.saturating_sub(4);
            bail!(
                "EFI zboot kernel packed with {method:?}: unpack it first with `tail -c +{from} FILE | head -c {size} | {with}`"
            )
        }
    }
}

fn unpack_gzip(packed: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut rest = packed;
    while content.is_empty() || rest.starts_with(GZIP) {
        // The decoder over a buffer takes no byte after its member.
        let member = flate2::bufread::GzDecoder::new(&mut rest);
        read_bounded(member, &mut content).context("gzip data is damaged")?;
    }
    check_rest(rest, content.len())?;
    Ok(content)
}

fn unpack_zstd(packed: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut rest = after_skipped(packed);
    while content.is_empty() || rest.starts_with(ZSTD) {
        let frame = ruzstd::decoding::StreamingDecoder::new(&mut rest)
            .map_err(|error| anyhow!("zstd data is damaged: {error}"))?;
        read_bounded(frame, &mut content).context("zstd data is damaged")?;
        rest = after_skipped(rest);
    }
    if is_skipped(rest) {
        bail!("zstd data is damaged: it ends inside a frame");
    }
    check_rest(rest, content.len())?;
    Ok(content)
}

/// Whether a zstd frame begins here that holds nothing of the content (RFC 8878, 3.1.2).
fn is_skipped(packed: &[u8]) -> bool {
    matches!(packed, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// Returns what follows the zstd frames that are skipped; one that is cut short stays.
fn after_skipped(mut packed: &[u8]) -> &[u8] {
    while is_skipped(packed) {
        let size = packed.get(4..).and_then(|rest| rest.first_chunk());
        let size = size.map(|size| u32::from_le_bytes(*size) as usize);
        match size.and_then(|size| packed.get(8..)?.get(size..)) {
            Some(rest) => packed = rest,
            None => break,
        }
    }
    packed
}

/// Checks what follows the last part of a packed kernel of which `unpacked` bytes came: nothing but the size that
/// Linux's build appends (scripts/Makefile.lib, `size_append`), zeros, and device trees, which the guest does not need.
fn check_rest(rest: &[u8], unpacked: usize) -> anyhow::Result<()> {
    let after_size = rest.strip_prefix(&(unpacked as u32).to_le_bytes());
    let after_size = after_size.unwrap_or(rest);
    let zeros = after_size.iter().take_while(|byte| **byte == 0).count();
    let after_zeros = after_size.get(zeros..).unwrap_or_default();
    if after_zeros.is_empty() || after_zeros.starts_with(DEVICE_TREE) {
        return Ok(());
    }
    let size = after_zeros.len();
    bail!(
        "{size} bytes after the packed kernel are neither a part of it nor a device tree: cut them off, or unpack it first"
    )
}

/// Appends all that `reader` gives to `content`, which grows, but not without end.
fn read_bounded(reader: impl Read, content: &mut Vec<u8>) -> anyhow::Result<()> {
    let left = MAX_KERNEL_BYTES.saturating_sub(content.len() as u64);
    reader.take(left + 1).read_to_end(content)?;
    if content.len() as u64 > MAX_KERNEL_BYTES {
        bail!("it unpacks to more than {MAX_KERNEL_BYTES} bytes");
    }
    Ok(())
}
