//! Stolen time as a guest reads it (Arm DEN0057A, 3.2): one record for each vCPU, in pages that only EL2 writes.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use types::counter::CounterRate;
use types::ids::VcpuId;
use types::layout::STOLEN_TIME_BYTES;
use zerocopy::FromZeros;

/// Bytes of a page, which is what stage 2 maps at least.
const PAGE_BYTES: usize = 4096;
/// Records of a page.
const RECORDS: usize = PAGE_BYTES / STOLEN_TIME_BYTES as usize;

/// What a vCPU is told: revision 0 of the record, without attributes.
#[derive(Debug, FromZeros)]
#[repr(C, align(64))]
struct Record {
    revision: AtomicU32,
    attributes: AtomicU32,
    /// Nanoseconds for which it could have run and did not, since its VM was started or reset.
    stolen_ns: AtomicU64,
}

#[derive(Debug, FromZeros)]
#[repr(C, align(4096))]
struct Page([Record; RECORDS]);

const _: () = assert!(size_of::<Record>() == STOLEN_TIME_BYTES as usize);
const _: () = assert!(size_of::<Page>() == PAGE_BYTES);

/// The records of a VM.
#[derive(Debug)]
pub struct StolenTime {
    pages: Box<[Page]>,
    counter: CounterRate,
}

impl StolenTime {
    /// Makes the records of so many vCPUs.
    pub(super) fn new(vcpus: u16, counter: CounterRate) -> Self {
        let pages = usize::from(vcpus).div_ceil(RECORDS);
        // Made where they stay: EL2's stack has no room for a page.
        let pages = Page::new_vec_zeroed(pages).expect("the heap has room for all VMs");
        Self {
            pages: pages.into(),
            counter,
        }
    }

    /// Returns the address of the records in EL2, and how many bytes they take: whole pages.
    #[must_use]
    pub fn place(&self) -> (usize, u64) {
        let bytes = self.pages.len() * PAGE_BYTES;
        (self.pages.as_ptr().addr(), bytes as u64)
    }

    /// Writes what was stolen from a vCPU, in counter ticks: one store, so that the guest never reads a part of it.
    #[inline]
    pub(crate) fn write(&self, vcpu: VcpuId, stolen_ticks: u64) {
        if let Some(record) = self.record(vcpu) {
            let ns = self.counter.ns(stolen_ticks);
            record.stolen_ns.store(ns, Ordering::Release);
        }
    }

    #[inline]
    fn record(&self, vcpu: VcpuId) -> Option<&Record> {
        let page = self.pages.get(vcpu.index() / RECORDS)?;
        page.0.get(vcpu.index() % RECORDS)
    }

    /// Returns what a guest reads of a vCPU's record.
    #[cfg(test)]
    pub(crate) fn read_ns(&self, vcpu: u16) -> u64 {
        let record = self.record(VcpuId::new(vcpu)).unwrap();
        assert_eq!(record.revision.load(Ordering::Relaxed), 0);
        assert_eq!(record.attributes.load(Ordering::Relaxed), 0);
        record.stolen_ns.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::{PAGE_BYTES, StolenTime};
    use types::counter::CounterRate;
    use types::ids::{MAX_VCPUS, VcpuId};
    use types::layout::GuestLayout;

    #[test]
    fn each_vcpu_has_a_record_of_its_own_in_whole_pages() {
        for (vcpus, pages) in [(1, 1), (64, 1), (65, 2), (MAX_VCPUS, 8)] {
            let records = StolenTime::new(vcpus, CounterRate::new(62_500_000));
            let (start, bytes) = records.place();
            assert_eq!(start % PAGE_BYTES, 0);
            assert_eq!(bytes, pages * PAGE_BYTES as u64);
            assert!(bytes <= GuestLayout::default().stolen_time.size);
            for vcpu in 0..vcpus {
                records.write(VcpuId::new(vcpu), u64::from(vcpu));
            }
            for vcpu in 0..vcpus {
                assert_eq!(records.read_ns(vcpu), 16 * u64::from(vcpu));
            }
        }
    }
}
