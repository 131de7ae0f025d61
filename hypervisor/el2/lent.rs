//! Units of this CPU that a vCPU uses for a while, and then are part of its world switch: the PMU and the debug registers.
//!
//! `vmm::features::Lent` says what they are and when they are lent; `pmu` and `debug` move their registers.
#![expect(unsafe_code, reason = "sets what traps")]

use crate::sysreg::{self, isb};
use crate::{debug, pmu};
use vmm::features::{FeaturePolicy, Lent};
use vmm::vm::VcpuContext;
use vmm::vm::debug::DebugRegisters;
use vmm::vm::pmu::PmuRegisters;

/// Lends a unit as after a reset to the loaded vCPU.
#[cold]
pub(crate) fn lend(policy: &FeaturePolicy, context: &mut VcpuContext, unit: Lent) {
    if unit.has(Lent::PMU) {
        context.pmu = PmuRegisters::default();
    }
    if unit.has(Lent::DEBUG) {
        context.debug = DebugRegisters::default();
    }
    context.lent = context.lent.with(unit);
    load(policy, context, unit);
}

/// Loads those units of what is lent to a vCPU, and opens all that is.
#[cold]
pub(crate) fn load(policy: &FeaturePolicy, context: &VcpuContext, units: Lent) {
    let mut mdcr = policy.mdcr_with(context.lent);
    if context.lent.has(Lent::PMU) {
        // HPMN: every event counter is the guest's (Arm ARM D19.3.15).
        mdcr |= pmu::counters() as u64;
    }
    set_mdcr(mdcr);
    isb();
    if units.has(Lent::PMU) {
        pmu::load(&context.pmu);
    }
    if units.has(Lent::DEBUG) {
        debug::load(&context.debug);
    }
}

/// Takes back what is lent to a vCPU that is being unloaded, and keeps its registers.
#[cold]
pub(crate) fn save(policy: &FeaturePolicy, context: &mut VcpuContext) {
    if context.lent.has(Lent::PMU) {
        pmu::save(&mut context.pmu);
    }
    if context.lent.has(Lent::DEBUG) {
        debug::save(&mut context.debug);
        if context.debug == DebugRegisters::default() {
            context.lent = context.lent.without(Lent::DEBUG);
        }
    }
    set_mdcr(policy.mdcr);
}

/// Takes back what is lent to a vCPU that turned itself off.
#[cold]
pub(crate) fn stop(policy: &FeaturePolicy, lent: Lent) {
    if lent.has(Lent::PMU) {
        pmu::stop();
    }
    if lent.has(Lent::DEBUG) {
        debug::stop();
    }
    set_mdcr(policy.mdcr);
}

/// Sets which units trap; `mdcr` comes from [`FeaturePolicy`].
#[inline(always)]
pub(crate) fn set_mdcr(mdcr: u64) {
    // SAFETY: all but what is lent traps, and TDE is clear, so that no debug exception is taken at EL2; a test of `vmm::features` holds it.
    unsafe { sysreg::mdcr_el2::write(mdcr) };
}
