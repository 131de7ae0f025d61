//! Where the parts of the image lie: the only place that names linker symbols.
#![expect(unsafe_code, reason = "declares the linker's symbols")]

use core::ops::Range;

unsafe extern "C" {
    static __image_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __image_end: u8;
    static __bss_end: u8;
    static __heap_start: u8;
    static __heap_end: u8;
}

macro_rules! address {
    ($symbol:ident) => {
        (&raw const $symbol).addr() as u64
    };
}

/// Returns the range of the code, which is mapped read-only and executable.
pub(crate) fn text() -> Range<u64> {
    address!(__image_start)..address!(__text_end)
}

/// Returns the range of constants and relocated pointers, which is mapped read-only.
pub(crate) fn rodata() -> Range<u64> {
    address!(__text_end)..address!(__rodata_end)
}

/// Returns the range of variables, .bss and the boot stack, which is mapped writable.
pub(crate) fn data() -> Range<u64> {
    address!(__rodata_end)..address!(__image_end)
}

/// Returns the range of the whole image.
pub(crate) fn image() -> Range<u64> {
    address!(__image_start)..address!(__image_end)
}

/// Returns the range of what is in the image's file or cleared by its first instructions: not what EFI firmware writes, nor
/// [`heap_room`].
pub(crate) fn written() -> Range<u64> {
    address!(__image_start)..address!(__bss_end)
}

/// Returns the range that the heap's first piece is taken from; not cleared.
pub(crate) fn heap_room() -> Range<u64> {
    address!(__heap_start)..address!(__heap_end)
}
