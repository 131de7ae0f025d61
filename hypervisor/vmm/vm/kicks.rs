//! The CPUs that have mail: a decision's effect on other CPUs, carried out when no lock is held.

use types::ids::{MAX_PCPUS, PcpuId};

/// A set of physical CPUs to interrupt.
#[must_use = "a CPU that is not kicked may sleep over its mail"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kicks(u64);

impl Kicks {
    /// No CPU.
    pub const NONE: Self = Self(0);

    /// Adds a CPU.
    #[inline]
    pub fn add(&mut self, pcpu: PcpuId) {
        self.0 |= 1 << (pcpu.index() % MAX_PCPUS);
    }

    /// Takes the lowest-numbered CPU out of the set.
    #[inline]
    pub fn pop(&mut self) -> Option<PcpuId> {
        if self.0 == 0 {
            return None;
        }
        let index = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some(PcpuId::new(index as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::Kicks;
    use types::ids::PcpuId;

    #[test]
    fn every_cpu_added_comes_out_once() {
        let mut kicks = Kicks::NONE;
        for index in [5, 63, 0, 5] {
            kicks.add(PcpuId::new(index));
        }
        let order: [Option<PcpuId>; 4] = core::array::from_fn(|_| kicks.pop());
        assert_eq!(
            order,
            [
                Some(PcpuId::new(0)),
                Some(PcpuId::new(5)),
                Some(PcpuId::new(63)),
                None
            ]
        );
    }
}
