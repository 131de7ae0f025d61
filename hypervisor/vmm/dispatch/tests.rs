//! Traps as a guest causes them, well-behaved and hostile, through the same functions that `el2` calls.

mod calls;
mod gic_v2;
mod hot;
mod interrupts;
mod slow;

/// Composes the ISS of a data abort (Arm ARM D19.2.40, ISS encoding for an exception from a Data Abort).
#[derive(Clone, Copy, Debug)]
struct Access {
    /// Width as SAS: 0 to 3.
    sas: u64,
    rt: u64,
    write: bool,
}

const ISV: u64 = 1 << 24;
const SSE: u64 = 1 << 21;
const SF: u64 = 1 << 15;
const CM: u64 = 1 << 8;
const S1PTW: u64 = 1 << 7;
const WNR: u64 = 1 << 6;
/// Translation fault at level 2.
const TRANSLATION: u64 = 0x06;

impl Access {
    const fn iss(self) -> u64 {
        ISV | self.sas << 22 | self.rt << 16 | if self.write { WNR } else { 0 } | TRANSLATION
    }
}
