//! The values of properties: cells and strings (Devicetree Specification 2.2.4).

use alloc::string::String;

/// Reads the big-endian word at byte `offset`.
pub(super) fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let end = offset.checked_add(4)?;
    Some(u32::from_be_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

/// A property's bytes, taken apart from the front in 32-bit cells.
#[derive(Clone, Copy, Debug)]
pub struct Cells<'a>(pub &'a [u8]);

impl Cells<'_> {
    /// Takes the next cell, if there is one.
    pub fn cell(&mut self) -> Option<u32> {
        let value = word(self.0, 0)?;
        self.0 = self.0.get(4..)?;
        Some(value)
    }

    /// Takes a number of `count` cells, if they are there and the number fits 64 bits.
    pub fn number(&mut self, count: usize) -> Option<u64> {
        let mut value = 0_u64;
        for _ in 0..count {
            if value >> 32 != 0 {
                return None;
            }
            value = value << 32 | u64::from(self.cell()?);
        }
        Some(value)
    }
}

/// Reads a property that is exactly one terminated string.
pub(super) fn single_string(value: &[u8]) -> Option<&str> {
    let text = core::ffi::CStr::from_bytes_with_nul(value).ok()?;
    text.to_str().ok()
}

/// Bytes of a list of cells that a message shows.
const SHOWN_BYTES: usize = 32;
/// Bytes of a text that a message shows.
const SHOWN_TEXT_BYTES: usize = 128;

/// Writes a property's value for people: as text if it is text, else as cells.
pub fn show(value: &[u8]) -> String {
    let is_text =
        |text: &[u8]| !text.is_empty() && text.iter().all(|byte| matches!(byte, b' '..=b'~'));
    if let Some(texts) = value
        .strip_suffix(&[0])
        .filter(|texts| texts.split(|byte| *byte == 0).all(is_text))
    {
        let shown = texts.get(..SHOWN_TEXT_BYTES).unwrap_or(texts);
        let more = if shown.len() < texts.len() { "..." } else { "" };
        let mut quoted = String::from("\"");
        for byte in shown {
            match byte {
                0 => quoted.push_str("\", \""),
                byte => quoted.push(char::from(*byte)),
            }
        }
        quoted.push_str(more);
        quoted.push('"');
        return quoted;
    }
    let mut shown = String::from("<");
    for (index, cell) in value.chunks(4).take(SHOWN_BYTES / 4).enumerate() {
        let number = cell
            .iter()
            .fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        shown.push_str(&alloc::format!(
            "{}{number:#x}",
            if index == 0 { "" } else { " " }
        ));
    }
    shown.push_str(if value.len() > SHOWN_BYTES {
        " ...>"
    } else {
        ">"
    });
    shown
}
