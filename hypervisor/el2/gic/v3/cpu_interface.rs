//! EL2's own use of the CPU interface: acknowledge, drop, deactivate, and the kick from one CPU to another.
#![expect(unsafe_code, reason = "decides which interrupts reach EL2")]

use super::list_registers;
use super::priorities::clear_active_priorities;
use crate::gic::KICK_SGI;
use crate::sysreg::{self, acknowledge_interrupt, dsb_ishst, isb};

/// ICC_SRE_EL2: system registers on, for lower levels too, bypass off (GIC IHI0069, 12.2.21).
const SRE_ENABLE: u64 = 0xf;
/// ICC_SRE_EL2.Enable: EL1 reaches ICC_SRE_EL1.
const ENABLE_LOWER: u64 = 1 << 3;
/// ICC_CTLR_EL1.EOImode: EOIR only drops the priority (GIC IHI0069, 12.2.7).
const EOI_MODE_SPLIT: u64 = 1 << 1;

/// Turns this CPU's interface on for EL2.
fn enable_interface() {
    // SAFETY: EL2 uses the interface by system registers alone; interrupts are masked here until a guest runs.
    unsafe { sysreg::icc_sre_el2::write(SRE_ENABLE) };
    isb();
    // SAFETY: `hot` ends each interrupt in two steps, which is what this mode asks for.
    unsafe { sysreg::icc_ctlr_el1::write(EOI_MODE_SPLIT) };
    // SAFETY: the lowest priority of all, so that every interrupt that EL2 has enabled comes.
    unsafe { sysreg::icc_pmr_el1::write(0xff) };
    // SAFETY: all interrupts have one priority (`DEFAULT_PRIORITY`), so none comes before another has been dropped.
    unsafe { sysreg::icc_bpr1_el1::write(0) };
    // SAFETY: VBAR_EL2 has the vectors that take them.
    unsafe { sysreg::icc_igrpen1_el1::write(1) };
    isb();
}

/// Turns this CPU's interface on for EL2, with nothing active in it and empty list registers.
pub(in crate::gic) fn start_cpu() {
    enable_interface();
    list_registers::start();
    clear_active_priorities();
}

/// Keeps interrupts from this CPU, which is about to be turned off.
pub(in crate::gic) fn stop_cpu() {
    // SAFETY: this CPU waits for no interrupt any more; `start_cpu` comes before its next guest.
    unsafe { sysreg::icc_igrpen1_el1::write(0) };
    isb();
}

/// Takes the highest-priority pending interrupt; 1020 and above mean there is none. What was written before the interrupt was sent
/// is seen after.
#[inline(always)]
pub(super) fn acknowledge() -> u32 {
    acknowledge_interrupt() as u32
}

/// Lets interrupts of the same priority in again; the interrupt stays active.
#[inline(always)]
pub(super) fn drop_priority(intid: u32) {
    sysreg::icc_eoir1_el1::write(u64::from(intid));
}

/// Ends an interrupt whose priority was dropped.
#[inline(always)]
pub(super) fn deactivate(intid: u32) {
    sysreg::icc_dir_el1::write(u64::from(intid));
}

/// Returns how the CPU with these affinity fields of MPIDR_EL1 is kicked: the target bits of ICC_SGI1R_EL1 (GIC IHI0069, 12.2.20).
pub(in crate::gic) const fn kick_bits(affinity: u64) -> u64 {
    let (aff0, aff1, aff2, aff3) = (
        affinity & 0xff,
        affinity >> 8 & 0xff,
        affinity >> 16 & 0xff,
        affinity >> 32 & 0xff,
    );
    aff3 << 48 | (aff0 >> 4) << 44 | aff2 << 32 | aff1 << 16 | 1 << (aff0 & 0xf)
}

/// Sends the kick SGI to the CPU of [`kick_bits`].
#[inline(always)]
pub(super) fn send_kick(target: u64) {
    dsb_ishst();
    sysreg::icc_sgi1r_el1::write(target | (KICK_SGI as u64) << 24);
}

/// Gives EL1 the system registers, or for a guest with a GICv2 keeps them from it, which then uses GICV (GIC IHI0069, 11.2 and 12.2.20).
#[cold]
#[inline(never)]
pub(super) fn give_registers(given: bool) {
    let level_1 = if given { SRE_ENABLE & !ENABLE_LOWER } else { 0 };
    let enable = if given { ENABLE_LOWER } else { 0 };
    sysreg::icc_sre_el1::write(level_1);
    // SAFETY: EL2 keeps the system registers; the bit that changes is what EL1 may do with its own.
    unsafe { sysreg::icc_sre_el2::write(SRE_ENABLE & !ENABLE_LOWER | enable) };
    // What VMCR means to the guest depends on it.
    isb();
}

/// Returns whether EL1 has the system registers.
#[inline(always)]
pub(super) fn are_registers_given() -> bool {
    sysreg::icc_sre_el1::read() & 1 != 0
}

/// Returns whether EL1 can do without system registers: whether GICV works. HCR_EL2 must route interrupts here (GIC IHI0069, 11.2).
pub(in crate::gic) fn knows_gicv2() -> bool {
    give_registers(false);
    let knows = !are_registers_given();
    give_registers(true);
    knows
}
