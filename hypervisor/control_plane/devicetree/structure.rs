//! The structure block, token by token (Devicetree Specification v0.4, 5.4).
//!
//! Nothing is copied and nothing is allocated: a reader keeps the offset at which it goes on.

use core::ffi::CStr;

use super::value::word;

/// The tokens' numbers (Devicetree Specification 5.4.1).
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;
/// Bytes of a token, and what everything behind one is aligned to.
const WORD: usize = 4;

/// A token with what belongs to it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Token<'a> {
    /// A node begins; its name with unit address.
    Begin(&'a str),
    /// A property of the node that began last; its name and value.
    Property(Name<'a>, &'a [u8]),
    /// The node that began last and has not ended ends.
    EndNode,
    /// The block ends.
    End,
}

/// A property's name, which most readers only compare: it is not decoded before somebody wants it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// Returns whether this is the name.
    pub(super) fn is(self, name: &str) -> bool {
        self.0
            .strip_prefix(name.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    /// Returns the name, if it is text.
    pub(super) fn text(self) -> Option<&'a str> {
        Some(text(self.0, 0)?.0)
    }
}

/// A structure block and the names that it refers to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Structure<'a> {
    pub(super) block: &'a [u8],
    pub(super) strings: &'a [u8],
}

impl<'a> Structure<'a> {
    /// Reads the token at `offset` and returns it with the offset of the next one; `None` if there is none.
    pub(super) fn token(self, mut offset: usize) -> Option<(Token<'a>, usize)> {
        loop {
            let kind = word(self.block, offset)?;
            let body = offset.checked_add(WORD)?;
            match kind {
                NOP => offset = body,
                END_NODE => return Some((Token::EndNode, body)),
                END => return Some((Token::End, body)),
                BEGIN_NODE => {
                    let (name, bytes) = text(self.block, body)?;
                    return Some((Token::Begin(name), padded(body, bytes)?));
                }
                PROPERTY => return self.property(body),
                _ => return None,
            }
        }
    }

    /// Reads the property whose length and name stand at `offset`.
    fn property(self, offset: usize) -> Option<(Token<'a>, usize)> {
        let length = word(self.block, offset)? as usize;
        let name_at = word(self.block, offset.checked_add(WORD)?)? as usize;
        let start = offset.checked_add(2 * WORD)?;
        let value = self.block.get(start..start.checked_add(length)?)?;
        let name = Name(self.strings.get(name_at..)?);
        Some((Token::Property(name, value), padded(start, length)?))
    }
}

/// Reads the terminated string at `offset`; returns it with its length in bytes, terminator included.
fn text(bytes: &[u8], offset: usize) -> Option<(&str, usize)> {
    let text = CStr::from_bytes_until_nul(bytes.get(offset..)?).ok()?;
    Some((text.to_str().ok()?, text.count_bytes().checked_add(1)?))
}

/// Returns where the next token stands behind `bytes` bytes at `offset`.
fn padded(offset: usize, bytes: usize) -> Option<usize> {
    offset.checked_add(bytes)?.checked_next_multiple_of(WORD)
}
