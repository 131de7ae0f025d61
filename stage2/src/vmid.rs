//! VMIDs by generation: each VM gets its own until they run out, then all start anew behind one flush.
//!
//! A number is never used for two VMs in one generation, so destroying a VM needs no TLB maintenance for the sake
//! of the next one (Arm ARM D8.16; the width is ID_AA64MMFR1_EL1.VMIDBits).

/// How many bits a VMID has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmidWidth {
    /// 255 VMs a generation.
    Bits8,
    /// 65,535 VMs a generation; VTCR_EL2.VS is set.
    Bits16,
}

impl VmidWidth {
    const fn last(self) -> u16 {
        match self {
            Self::Bits8 => u8::MAX as u16,
            Self::Bits16 => u16::MAX,
        }
    }
}

/// A VMID of one generation. Zero is never handed out: it stands for "no VM".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vmid {
    generation: u64,
    number: u16,
}

impl Vmid {
    /// Returns the number for VTTBR_EL2.VMID.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.number
    }
}

/// The VMID a VM is to run with, and what has to happen before it does.
#[must_use = "a new generation must not run before the flush"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The VMID to run with.
    pub vmid: Vmid,
    /// A new generation begins: before any CPU enters a VM with a VMID of it, every CPU has left its guest, and
    /// `TLBI ALLE1IS` and `DSB ISH` have been carried out.
    pub flush_all: bool,
}

/// Hands out VMIDs. Shared by all CPUs, so under a lock; [`VmidAllocator::is_current`] is the fast check.
#[derive(Debug)]
pub struct VmidAllocator {
    width: VmidWidth,
    generation: u64,
    last_used: u16,
}

impl VmidAllocator {
    /// Makes an allocator in its first generation. The TLBs have been flushed since power-on.
    #[must_use]
    pub const fn new(width: VmidWidth) -> Self {
        Self {
            width,
            generation: 1,
            last_used: 0,
        }
    }

    /// Returns whether `vmid` may be entered with as it is.
    #[inline]
    #[must_use]
    pub const fn is_current(&self, vmid: Vmid) -> bool {
        vmid.generation == self.generation
    }

    /// Returns the VMID for a VM that holds `held`, `None` for a VM that has not run yet.
    pub fn assign(&mut self, held: Option<Vmid>) -> Assignment {
        if let Some(vmid) = held
            && self.is_current(vmid)
        {
            return Assignment {
                vmid,
                flush_all: false,
            };
        }
        let flush_all = self.last_used == self.width.last();
        if flush_all {
            self.generation += 1;
            self.last_used = 0;
        }
        self.last_used += 1;
        Assignment {
            vmid: Vmid {
                generation: self.generation,
                number: self.last_used,
            },
            flush_all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Starts `count` VMs, one after another, each beside `resident` ones that live for ever, and fails when a TLB
    /// could hold a number's entries for another VM.
    fn churn(width: VmidWidth, count: usize, resident: usize) -> usize {
        let mut allocator = VmidAllocator::new(width);
        let mut held = std::vec![None; resident];
        let mut tagged: BTreeMap<u16, usize> = BTreeMap::new();
        let mut flushes = 0;
        for vm in 0..count {
            for owner in (0..resident).chain([resident + vm]) {
                let assignment = allocator.assign(held.get(owner).copied().flatten());
                if assignment.flush_all {
                    tagged.clear();
                    flushes += 1;
                }
                assert!(allocator.is_current(assignment.vmid));
                let number = assignment.vmid.number();
                assert!(number != 0 && number <= width.last());
                assert_eq!(
                    *tagged.entry(number).or_insert(owner),
                    owner,
                    "VMID {number} reused without a flush"
                );
                if let Some(place) = held.get_mut(owner) {
                    *place = Some(assignment.vmid);
                }
            }
        }
        flushes
    }

    #[test]
    fn eight_bits_wrap() {
        assert_eq!(churn(VmidWidth::Bits8, 255, 0), 0);
        assert_eq!(churn(VmidWidth::Bits8, 300, 0), 1);
        assert_eq!(churn(VmidWidth::Bits8, 5_000, 4), 19);
    }

    #[test]
    fn sixteen_bits_wrap() {
        assert_eq!(churn(VmidWidth::Bits16, 65_535, 0), 0);
        assert_eq!(churn(VmidWidth::Bits16, 70_000, 0), 1);
        assert_eq!(churn(VmidWidth::Bits16, 140_000, 3), 2);
    }

    #[test]
    fn a_held_vmid_is_kept_and_an_old_one_replaced() {
        let mut allocator = VmidAllocator::new(VmidWidth::Bits8);
        let first = allocator.assign(None);
        assert_eq!(allocator.assign(Some(first.vmid)), first);
        while allocator.is_current(first.vmid) {
            let _ = allocator.assign(None);
        }
        let again = allocator.assign(Some(first.vmid));
        assert!(!allocator.is_current(first.vmid) && !again.flush_all && again.vmid != first.vmid);
    }
}
