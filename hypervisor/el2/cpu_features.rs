//! What the machine's CPUs are: each adds its ID registers before it is used.

use vmm::features::{CpuFeatures, unusable};
use vmm::sync::FairMutex;

use crate::{gic, machine, mmu};

/// Those of the CPUs that have come.
static ALL: FairMutex<Option<CpuFeatures>> = FairMutex::new(None);

/// Adds this CPU to the machine, whose memory ends at `memory_end`.
///
/// # Errors
/// Why this CPU can't be used.
pub(crate) fn join(memory_end: u64) -> Result<(), &'static str> {
    let own = machine::host_id_registers();
    if let Some(why) = unusable(&own, mmu::reach(), memory_end, gic::version()) {
        return Err(why);
    }
    let mut all = ALL.lock();
    let with_own = all
        .as_ref()
        .map_or(CpuFeatures::of(own), |all| all.with(&own));
    *all = Some(with_own);
    Ok(())
}

/// Returns what the CPUs are that have come.
pub(crate) fn all() -> CpuFeatures {
    ALL.lock().clone().expect("the boot CPU has joined")
}
