//! A block of device registers, reached through raw pointers: references to device memory would let the compiler read it at will.
#![expect(unsafe_code, reason = "device register access")]

/// A mapped range of device registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    base: u64,
    size: u64,
}

macro_rules! accessors {
    ($read:ident, $write:ident, $type:ty) => {
        /// Reads the register at `offset`.
        #[inline]
        pub(crate) fn $read(self, offset: impl Into<u64>) -> $type {
            let pointer = self.at(offset.into(), size_of::<$type>() as u64) as *const $type;
            // SAFETY: `new`'s contract; `at` has checked the bounds and the alignment.
            unsafe { pointer.read_volatile() }
        }

        /// Writes the register at `offset`.
        #[inline]
        pub(crate) fn $write(self, offset: impl Into<u64>, value: $type) {
            let pointer = self.at(offset.into(), size_of::<$type>() as u64) as *mut $type;
            // SAFETY: `new`'s contract; `at` has checked the bounds and the alignment.
            unsafe { pointer.write_volatile(value) }
        }
    };
}

impl Registers {
    /// Names the registers at `base`.
    ///
    /// # Safety
    /// `base..base + size` is mapped as device memory for good, and what is written there affects no memory that Rust owns.
    pub(crate) const unsafe fn new(base: u64, size: u64) -> Self {
        Self { base, size }
    }

    /// Returns the address of a register.
    #[inline]
    fn at(self, offset: u64, width: u64) -> u64 {
        assert!(
            offset.is_multiple_of(width) && offset + width <= self.size,
            "register offset"
        );
        self.base + offset
    }

    accessors!(read8, write8, u8);
    accessors!(read16, write16, u16);
    accessors!(read32, write32, u32);
    accessors!(read64, write64, u64);
}
