//! The machine's interrupt controller.
//!
//! EL2 splits priority drop from deactivation (EOImode 1), so that an interrupt handed to a guest stays active until the guest
//! deactivates it through its list register (GIC IHI0069, 4.8 and 6.2; IHI0048, 3.2.1).
//!
//! A version is a folder and a type with the functions of [`Version`]. What the trap path does is generic over it and there once for
//! each, with vectors of its own, chosen at boot: neither costs the other a branch. The rest asks [`version`].

mod controller;
mod distributor;
mod private;
mod v2;
mod v3;

use core::sync::atomic::{AtomicBool, Ordering};
use types::layout::GicVersion;
use vgic::{CpuInterface, ListRegisters};
use vmm::vm::GicRegisters;

pub(crate) use controller::Gic;
pub(crate) use private::{Ppis, PrivateLines};
pub(crate) use v2::V2;
pub(crate) use v3::V3;

/// The SGI by which one CPU asks another to look at its mailboxes.
pub(crate) const KICK_SGI: u32 = 0;
/// INTIDs from here on are shared by all CPUs (GIC IHI0069, 2.2.1).
pub(crate) const FIRST_SPI: u32 = 32;
/// INTIDs from here on are special: nothing to acknowledge (GIC IHI0069, 2.2.1).
pub(crate) const FIRST_SPECIAL: u32 = 1020;
/// The priority of all of EL2's interrupts, four bytes at a time.
const DEFAULT_PRIORITY: u32 = 0xa0a0_a0a0;

/// This CPU's interface of one version: each function is the registers that it names.
pub(crate) trait Version: 'static {
    /// The list registers, which hold the loaded vCPU's interrupts.
    type Lists: ListRegisters;

    /// Returns this CPU's list registers.
    fn lists() -> Self::Lists;

    /// Takes the highest-priority pending interrupt; 1020 and above mean there is none. What was written before the interrupt was
    /// sent is seen after.
    fn acknowledge() -> u32;

    /// Lets interrupts of the same priority in again; the interrupt stays active.
    fn drop_priority(intid: u32);

    /// Ends an interrupt whose priority was dropped.
    fn deactivate(intid: u32);

    /// Sends the kick SGI to a CPU. The mailbox was written with release order before; it is seen before the interrupt can arrive.
    fn send_kick(target: KickTarget);

    /// Prepares for the vCPUs of a VM with this interrupt controller.
    fn load_vm(guest: GicVersion);

    /// Loads the guest's interface but for the list registers.
    fn load_guest(registers: &GicRegisters);

    /// Resets the guest's interface but for the list registers.
    fn reset_guest();

    /// Saves the guest's interface but for the list registers.
    fn save_guest(registers: &mut GicRegisters);

    /// Returns what the loaded vCPU's CPU interface lets through.
    fn guest_interface() -> CpuInterface;
}

static IS_V2: AtomicBool = AtomicBool::new(false);

/// Returns the version of the machine's interrupt controller; until that is known, the one that most have.
#[inline(always)]
pub(crate) fn version() -> GicVersion {
    match IS_V2.load(Ordering::Relaxed) {
        true => GicVersion::V2,
        false => GicVersion::V3,
    }
}

/// Turns this CPU's interface on for EL2, with nothing active in it and empty list registers.
pub(crate) fn start_cpu() {
    match version() {
        GicVersion::V2 => v2::start_cpu(),
        GicVersion::V3 => v3::start_cpu(),
    }
}

/// Keeps interrupts from this CPU, which is about to be turned off.
pub(crate) fn stop_cpu() {
    match version() {
        GicVersion::V2 => v2::stop_cpu(),
        GicVersion::V3 => v3::stop_cpu(),
    }
}

/// Returns how many list registers this CPU has.
pub(crate) fn count() -> usize {
    match version() {
        GicVersion::V2 => v2::count(),
        GicVersion::V3 => v3::count(),
    }
}

/// How a CPU is kicked: what goes into ICC_SGI1R_EL1 or GICD_SGIR but for the INTID; never zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KickTarget(u64);

impl KickTarget {
    /// Returns how this CPU, with these affinity fields of MPIDR_EL1, is kicked.
    pub(crate) fn own(affinity: u64) -> Self {
        Self(match version() {
            GicVersion::V2 => v2::kick_bits().into(),
            GicVersion::V3 => v3::kick_bits(affinity),
        })
    }

    /// Returns the target as a number that is not zero.
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// Returns the target that [`Self::bits`] gave; zero is none.
    #[inline(always)]
    pub(crate) const fn from_bits(bits: u64) -> Option<Self> {
        if bits == 0 { None } else { Some(Self(bits)) }
    }
}
