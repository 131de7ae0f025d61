//! The UUID that a VM is known by to its guest (RFC 9562).

use core::fmt;

/// A UUID, its bytes in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uuid([u8; 16]);

/// Bytes of the text form, and where its hyphens are (RFC 9562, 4).
const TEXT_BYTES: usize = 36;
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// Offset basis and prime of FNV-1a with 128 bits.
const FNV_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 1 << 88 | 0x13b;
/// What is hashed before the name, so that other programs that hash the same name find another UUID.
const NAMESPACE: &str = "bullpen virtual machine ";

/// Version 8, whose other bits are free, and the variant (RFC 9562, 4.1, 4.2, 5.8).
const VERSION: u128 = 8 << 76;
const VERSION_MASK: u128 = 0xf << 76;
const VARIANT: u128 = 2 << 62;
const VARIANT_MASK: u128 = 3 << 62;

impl Uuid {
    /// Derives the UUID of a VM from its name: always the same one.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        let hash = NAMESPACE
            .bytes()
            .chain(name.bytes())
            .fold(FNV_BASIS, |hash, byte| {
                (hash ^ u128::from(byte)).wrapping_mul(FNV_PRIME)
            });
        let uuid = hash & !(VERSION_MASK | VARIANT_MASK) | VERSION | VARIANT;
        Self(uuid.to_be_bytes())
    }

    /// Reads the text form, in letters of either case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut value = 0_u128;
        for (at, letter) in text.chars().enumerate() {
            if HYPHENS.contains(&at) {
                if letter != '-' {
                    return None;
                }
                continue;
            }
            value = value << 4 | u128::from(letter.to_digit(16)?);
        }
        (text.len() == TEXT_BYTES).then_some(Self(value.to_be_bytes()))
    }

    /// Returns it with its first three fields little-endian, as EFI and SMBIOS lay it out (UEFI 2.10, appendix A; DSP0134, 7.2.1).
    #[must_use]
    pub const fn to_le_bytes(self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.0;
        [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Uuid;
    use alloc::string::ToString;

    const TEXT: &str = "00112233-4455-6677-8899-aabbccddeeff";

    #[test]
    fn the_text_form_is_read_and_written() {
        let uuid = Uuid::parse(TEXT).unwrap();
        assert_eq!(uuid.to_string(), TEXT);
        assert_eq!(Uuid::parse(&TEXT.to_uppercase()), Some(uuid));
        assert_eq!(
            uuid.to_le_bytes(),
            *b"\x33\x22\x11\x00\x55\x44\x77\x66\x88\x99\xaa\xbb\xcc\xdd\xee\xff"
        );
        for wrong in [
            "",
            "00112233445566778899aabbccddeeff",
            "00112233-4455-6677-8899-aabbccddeef",
            "00112233-4455-6677-8899-aabbccddeeff0",
            "00112233-4455-6677-8899-aabbccddeefg",
            "0011223-34455-6677-8899-aabbccddeeff",
            "{0112233-4455-6677-8899-aabbccddeef}",
            "00112233-4455-6677-8899-aabbccddee\u{e9}",
        ] {
            assert_eq!(Uuid::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_name_has_one_uuid_for_ever() {
        let web = Uuid::of_name("web").to_string();
        assert_eq!(web, "fce4a5a1-d6c3-8036-b1d0-791033acac2f");
        assert_ne!(web, Uuid::of_name("wed").to_string());
        let kind = (web.as_bytes()[14], web.as_bytes()[19]);
        assert!(
            kind.0 == b'8' && b"89ab".contains(&kind.1),
            "version 8: {web}"
        );
    }
}
