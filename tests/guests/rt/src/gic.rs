//! The GIC as a guest drives it: a GICv3's distributor, redistributors and CPU interface (Arm IHI0069), or a GICv2's distributor
//! and CPU interface in memory (IHI0048), which there is where the CPU has no system registers for it.

use crate::{cpu, insn, machine, mmio, mrs, msr};
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

/// GICD_CTLR.
pub const GICD_CTLR: u64 = 0x0000;
/// GICD_TYPER.
pub const GICD_TYPER: u64 = 0x0004;
/// GICD_IIDR.
pub const GICD_IIDR: u64 = 0x0008;
/// GICD_IGROUPR0, also of a redistributor's SGI frame.
pub const IGROUPR: u64 = 0x0080;
/// GICx_ISENABLER0.
pub const ISENABLER: u64 = 0x0100;
/// GICx_ICENABLER0.
pub const ICENABLER: u64 = 0x0180;
/// GICx_ISPENDR0.
pub const ISPENDR: u64 = 0x0200;
/// GICx_ICPENDR0.
pub const ICPENDR: u64 = 0x0280;
/// GICx_ISACTIVER0.
pub const ISACTIVER: u64 = 0x0300;
/// GICx_ICACTIVER0.
pub const ICACTIVER: u64 = 0x0380;
/// GICx_IPRIORITYR0.
pub const IPRIORITYR: u64 = 0x0400;
/// GICx_ICFGR0.
pub const ICFGR: u64 = 0x0c00;
/// GICD_IROUTER0.
pub const IROUTER: u64 = 0x6000;
/// GICR_TYPER.
pub const GICR_TYPER: u64 = 0x0008;
/// GICR_WAKER.
pub const GICR_WAKER: u64 = 0x0014;
/// Offset of a redistributor's SGI frame.
pub const SGI_FRAME: u64 = 0x1_0000;
/// GICD_PIDR2 and GICR_PIDR2.
pub const PIDR2: u64 = 0xffe8;

/// GICD_CTLR.EnableGrp1NS (or EnableGrp1) and ARE_NS (or ARE).
const CTLR_ENABLE: u32 = 1 << 1 | 1 << 4;
/// GICD_CTLR.RWP.
const CTLR_RWP: u32 = 1 << 31;
/// GICR_WAKER.ProcessorSleep.
const WAKER_SLEEP: u32 = 1 << 1;
/// GICR_WAKER.ChildrenAsleep.
const WAKER_CHILDREN: u32 = 1 << 2;
/// GICR_TYPER.VLPIS: the redistributor has four frames instead of two.
const TYPER_VLPIS: u64 = 1 << 1;
/// GICR_TYPER.Last.
const TYPER_LAST: u64 = 1 << 4;
/// First INTID that means "none" (IHI0069 table 2-1).
pub const SPECIAL: u32 = 1020;
/// Polls of a register that settles at once on every known implementation.
const POLLS: u32 = 1_000_000;

/// GICD_PIDR2 of a GICv2.
pub const V2_PIDR2: u64 = 0x0fe8;
/// GICD_ITARGETSR0 of a GICv2.
pub const V2_ITARGETSR: u64 = 0x0800;
/// GICD_SGIR, GICD_CPENDSGIR0.
const V2_SGIR: u64 = 0x0f00;
const V2_CPENDSGIR: u64 = 0x0f10;
/// GICC_CTLR, GICC_PMR, GICC_BPR, GICC_IAR, GICC_EOIR, GICC_RPR, GICC_HPPIR and GICC_DIR.
const V2_CTLR: u64 = 0x0000;
const V2_PMR: u64 = 0x0004;
const V2_BPR: u64 = 0x0008;
const V2_IAR: u64 = 0x000c;
const V2_EOIR: u64 = 0x0010;
const V2_RPR: u64 = 0x0014;
const V2_HPPIR: u64 = 0x0018;
const V2_DIR: u64 = 0x1000;
/// GICC_CTLR.EOImode.
const V2_SEPARATE: u32 = 1 << 9;
/// GICC_IAR.Interrupt ID.
const V2_INTID: u32 = 0x3ff;

/// Number of INTIDs counted.
const INTIDS: usize = 1024;
static COUNTS: [AtomicU32; INTIDS] = [const { AtomicU32::new(0) }; INTIDS];
static HANDLER: AtomicUsize = AtomicUsize::new(0);

/// Whether this is a GICv2, once it is known.
static IS_V2: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 2;

/// Tells whether this is a GICv2: ID_AA64PFR0_EL1.GIC, which is read once, since that may trap in the middle of what is measured.
#[must_use]
pub fn is_v2() -> bool {
    let known = IS_V2.load(Ordering::Relaxed);
    if known != UNKNOWN {
        return known != 0;
    }
    let is_v2 = mrs!("id_aa64pfr0_el1") >> 24 & 0xf == 0;
    IS_V2.store(is_v2.into(), Ordering::Relaxed);
    is_v2
}

/// Turns the distributor on: group 1, affinity routing; of a GICv2 group 0.
pub fn init_distributor() {
    let base = machine().distributor();
    if is_v2() {
        for word in 1..lines() / 32 {
            let offset = u64::from(word) * 4;
            mmio::write32(base + ICENABLER + offset, u32::MAX);
            mmio::write32(base + IGROUPR + offset, 0);
        }
        return mmio::write32(base + GICD_CTLR, 1);
    }
    mmio::write32(base + GICD_CTLR, CTLR_ENABLE);
    settle(base + GICD_CTLR, CTLR_RWP);
    for word in 1..lines() / 32 {
        let offset = u64::from(word) * 4;
        mmio::write32(base + ICENABLER + offset, u32::MAX);
        mmio::write32(base + IGROUPR + offset, u32::MAX);
    }
    settle(base + GICD_CTLR, CTLR_RWP);
}

/// Returns the number of INTIDs that the distributor has, with SGIs and PPIs.
#[must_use]
pub fn lines() -> u32 {
    let field = mmio::read32(machine().distributor() + GICD_TYPER) & 0x1f;
    (32 * (field + 1)).min(SPECIAL)
}

fn settle(register: u64, bits: u32) -> bool {
    (0..POLLS).any(|_| mmio::read32(register) & bits == 0)
}

/// Wakes this CPU's redistributor and opens its CPU interface; panics if there is no redistributor for it.
pub fn init_cpu() {
    if is_v2() {
        return init_v2_cpu();
    }
    let Some(frame) = find_redistributor(cpu::affinity()) else {
        panic!("no redistributor for this CPU")
    };
    cpu::current().set_redistributor(frame);
    let waker = mmio::read32(frame + GICR_WAKER);
    mmio::write32(frame + GICR_WAKER, waker & !WAKER_SLEEP);
    assert!(
        settle(frame + GICR_WAKER, WAKER_CHILDREN),
        "the redistributor stays asleep"
    );
    let sgi = frame + SGI_FRAME;
    mmio::write32(sgi + ICENABLER, u32::MAX);
    mmio::write32(sgi + IGROUPR, u32::MAX);
    mmio::write32(sgi + ICPENDR, u32::MAX);
    // ICC_SRE_EL1.SRE; ICC_PMR_EL1; ICC_BPR1_EL1; ICC_CTLR_EL1 (EOImode 0); ICC_IGRPEN1_EL1.
    msr!("ICC_SRE_EL1", mrs!("ICC_SRE_EL1") | 1);
    msr!("ICC_PMR_EL1", 0xff);
    msr!("ICC_BPR1_EL1", 0);
    msr!("ICC_CTLR_EL1", 0);
    msr!("ICC_IGRPEN1_EL1", 1);
}

/// Opens this CPU's interface to group 0.
fn init_v2_cpu() {
    let (distributor, own) = (machine().distributor(), machine().cpu_interface());
    mmio::write32(distributor + ICENABLER, u32::MAX);
    mmio::write32(distributor + IGROUPR, 0);
    mmio::write32(distributor + ICPENDR, u32::MAX);
    for word in 0..4 {
        mmio::write32(distributor + V2_CPENDSGIR + 4 * word, u32::MAX);
    }
    mmio::write32(own + V2_PMR, 0xff);
    mmio::write32(own + V2_BPR, 0);
    mmio::write32(own + V2_CTLR, 1);
}

/// Finds the redistributor of the CPU with this affinity.
#[must_use]
pub fn find_redistributor(affinity: u64) -> Option<u64> {
    let packed = affinity >> 8 & 0xff00_0000 | affinity & 0x00ff_ffff;
    for region in machine().redistributors() {
        let mut frame = region.base;
        while frame < region.base + region.size {
            let typer = mmio::read64(frame + GICR_TYPER);
            if typer >> 32 == packed {
                return Some(frame);
            }
            if typer & TYPER_LAST != 0 {
                break;
            }
            frame += if typer & TYPER_VLPIS != 0 {
                0x4_0000
            } else {
                0x2_0000
            };
        }
    }
    None
}

/// Returns the frame whose registers govern this INTID for the current CPU: its own SGI frame, or the distributor.
fn frame(intid: u32) -> u64 {
    if intid < 32 && !is_v2() {
        cpu::current().redistributor() + SGI_FRAME
    } else {
        machine().distributor()
    }
}

fn bit(register: u64, intid: u32) -> (u64, u32) {
    (
        frame(intid) + register + u64::from(intid / 32) * 4,
        1 << (intid % 32),
    )
}

/// Writes an INTID's bit of one of the set or clear registers, such as [`ISENABLER`].
pub fn write_bit(register: u64, intid: u32) {
    let (address, mask) = bit(register, intid);
    mmio::write32(address, mask);
}

/// Reads an INTID's bit of one of the set or clear registers.
#[must_use]
pub fn read_bit(register: u64, intid: u32) -> bool {
    let (address, mask) = bit(register, intid);
    mmio::read32(address) & mask != 0
}

/// Enables an interrupt.
pub fn enable(intid: u32) {
    write_bit(ISENABLER, intid);
}

/// Disables an interrupt and waits until that holds.
pub fn disable(intid: u32) {
    write_bit(ICENABLER, intid);
    if is_v2() {
        return;
    }
    // GICR_CTLR.RWP is bit 3, GICD_CTLR.RWP is bit 31.
    if intid < 32 {
        settle(cpu::current().redistributor(), 1 << 3);
    } else {
        settle(machine().distributor() + GICD_CTLR, CTLR_RWP);
    }
}

/// Sets an interrupt's priority.
pub fn set_priority(intid: u32, priority: u8) {
    mmio::write8(frame(intid) + IPRIORITYR + u64::from(intid), priority);
}

/// Makes an SPI edge-triggered or level-sensitive.
pub fn set_edge(intid: u32, edge: bool) {
    let address = frame(intid) + ICFGR + u64::from(intid / 16) * 4;
    let mask = 2 << (intid % 16 * 2);
    let value = mmio::read32(address);
    mmio::write32(address, if edge { value | mask } else { value & !mask });
}

/// Routes an SPI to one CPU.
pub fn route(intid: u32, affinity: u64) {
    if is_v2() {
        let at = machine().distributor() + V2_ITARGETSR + u64::from(intid);
        return mmio::write8(at, 1 << (affinity & 7));
    }
    mmio::write64(
        machine().distributor() + IROUTER + u64::from(intid) * 8,
        affinity,
    );
}

/// Routes an SPI to a CPU that there is not; to none, in a GICv2.
pub fn route_nowhere(intid: u32) {
    if is_v2() {
        let at = machine().distributor() + V2_ITARGETSR + u64::from(intid);
        return mmio::write8(at, 0);
    }
    route(intid, 0x00ff_ff0f);
}

/// Returns the ICC_SGI1R_EL1 value that sends an SGI to one CPU.
#[must_use]
pub fn sgi_value(affinity: u64, intid: u32) -> u64 {
    let aff0 = affinity & 0xff;
    let (aff1, aff2, aff3) = (
        affinity >> 8 & 0xff,
        affinity >> 16 & 0xff,
        affinity >> 32 & 0xff,
    );
    aff3 << 48
        | (aff0 >> 4) << 44
        | aff2 << 32
        | u64::from(intid & 15) << 24
        | aff1 << 16
        | 1 << (aff0 & 15)
}

/// Returns what sends an SGI to one CPU: a value of ICC_SGI1R_EL1, or of a GICv2's GICD_SGIR.
#[must_use]
pub fn sgi_word(affinity: u64, intid: u32) -> u64 {
    if is_v2() {
        return 1 << (16 + (affinity & 7)) | u64::from(intid & 15);
    }
    sgi_value(affinity, intid)
}

/// Returns the address of a GICv2's GICD_SGIR.
#[must_use]
pub fn sgir() -> u64 {
    machine().distributor() + V2_SGIR
}

/// Writes ICC_SGI1R_EL1.
pub fn write_sgi1r(value: u64) {
    insn!("dsb ishst");
    msr!("ICC_SGI1R_EL1", value);
}

/// Writes a GICv2's GICD_SGIR.
pub fn write_sgir(value: u32) {
    insn!("dsb ishst");
    mmio::write32(sgir(), value);
}

/// Sends an SGI to all CPUs but this one.
pub fn send_sgi_to_others(intid: u32) {
    if is_v2() {
        write_sgir(1 << 24 | intid);
    } else {
        write_sgi1r(1 << 40 | u64::from(intid) << 24);
    }
}

/// Sends an SGI to one CPU.
pub fn send_sgi(affinity: u64, intid: u32) {
    if is_v2() {
        return write_sgir(sgi_word(affinity, intid) as u32);
    }
    write_sgi1r(sgi_value(affinity, intid));
}

/// Acknowledges the highest-priority pending interrupt: ICC_IAR1_EL1, or GICC_IAR with the sender of an SGI above the INTID.
#[must_use]
pub fn acknowledge() -> u32 {
    if is_v2() {
        let acknowledged = mmio::read32(machine().cpu_interface() + V2_IAR);
        insn!("dsb sy");
        return acknowledged;
    }
    let intid = mrs!("ICC_IAR1_EL1");
    insn!("dsb sy");
    intid as u32
}

/// Ends an interrupt, as [`acknowledge`] gave it: ICC_EOIR1_EL1, GICC_EOIR.
pub fn end(intid: u32) {
    if is_v2() {
        return mmio::write32(machine().cpu_interface() + V2_EOIR, intid);
    }
    msr!("ICC_EOIR1_EL1", u64::from(intid));
}

/// Reads or writes a register of a GICv2's CPU interface.
fn own(offset: u64) -> u64 {
    machine().cpu_interface() + offset
}

/// Sets what priority an interrupt must be above to be taken: ICC_PMR_EL1, GICC_PMR.
pub fn set_mask(priority: u8) {
    if is_v2() {
        return mmio::write32(own(V2_PMR), priority.into());
    }
    msr!("ICC_PMR_EL1", u64::from(priority));
}

/// Returns the priority of what runs, 0xff for none: ICC_RPR_EL1, GICC_RPR.
#[must_use]
pub fn running_priority() -> u64 {
    if is_v2() {
        return mmio::read32(own(V2_RPR)).into();
    }
    mrs!("ICC_RPR_EL1")
}

/// Returns the INTID of what is pending, 1023 for none: ICC_HPPIR1_EL1, GICC_HPPIR.
#[must_use]
pub fn highest_pending() -> u64 {
    if is_v2() {
        return mmio::read32(own(V2_HPPIR)).into();
    }
    mrs!("ICC_HPPIR1_EL1")
}

/// Separates deactivation from the priority drop, or joins them: ICC_CTLR_EL1.EOImode, GICC_CTLR.EOImode.
pub fn set_separate(separate: bool) {
    if is_v2() {
        let mode = if separate { V2_SEPARATE } else { 0 };
        return mmio::write32(own(V2_CTLR), 1 | mode);
    }
    msr!("ICC_CTLR_EL1", u64::from(separate) << 1);
}

/// Deactivates an interrupt: ICC_DIR_EL1, GICC_DIR.
pub fn deactivate(intid: u64) {
    if is_v2() {
        return mmio::write32(own(V2_DIR), intid as u32);
    }
    msr!("ICC_DIR_EL1", intid);
}

/// Opens or closes the CPU interface to the group that is used: ICC_IGRPEN1_EL1, GICC_CTLR.
pub fn set_open(open: bool) {
    if is_v2() {
        return mmio::write32(own(V2_CTLR), open.into());
    }
    msr!("ICC_IGRPEN1_EL1", u64::from(open));
}

/// Returns the frame of the current CPU's private interrupts: its SGI frame, or a GICv2's distributor.
#[must_use]
pub fn private_frame() -> u64 {
    frame(0)
}

/// Returns the bit of GICD_CTLR that enables the group that is used.
#[must_use]
pub fn group_enable() -> u32 {
    if is_v2() { 1 } else { 1 << 1 }
}

/// Returns a private interrupt that can be made pending by a write, and has nothing behind it.
#[must_use]
pub fn spare_private() -> u32 {
    // A GICv2's SGIs cannot.
    if is_v2() { 24 } else { 9 }
}

/// Names the function that every interrupt is given to, with its INTID, before its end is signalled.
pub fn set_handler(handler: fn(u32)) {
    HANDLER.store(handler as usize, Ordering::Release);
}

/// Returns how often an INTID was taken, on all CPUs together.
#[must_use]
pub fn count(intid: u32) -> u32 {
    COUNTS
        .get(intid as usize)
        .map_or(0, |count| count.load(Ordering::Acquire))
}

/// Sets all counts to zero and removes the handler.
pub fn reset_counts() {
    HANDLER.store(0, Ordering::Release);
    for count in &COUNTS {
        count.store(0, Ordering::Release);
    }
}

/// Takes the interrupt that made this CPU stop: acknowledge, count, handler, end.
pub(crate) fn dispatch() {
    let acknowledged = acknowledge();
    let intid = if is_v2() {
        acknowledged & V2_INTID
    } else {
        acknowledged
    };
    if intid >= SPECIAL {
        return;
    }
    if let Some(count) = COUNTS.get(intid as usize) {
        count.fetch_add(1, Ordering::AcqRel);
    }
    match HANDLER.load(Ordering::Acquire) {
        0 => default_handler(intid),
        handler => {
            #[expect(unsafe_code, reason = "a function pointer kept in an atomic")]
            // SAFETY: `set_handler` stored a `fn(u32)`.
            let handler: fn(u32) = unsafe { core::mem::transmute::<usize, fn(u32)>(handler) };
            handler(intid);
        }
    }
    end(acknowledged);
}

/// Lowers the lines of the timers, which would otherwise interrupt for ever.
fn default_handler(intid: u32) {
    match intid {
        crate::timer::VIRTUAL_INTID => crate::timer::stop_virtual(),
        crate::timer::PHYSICAL_INTID => crate::timer::stop_physical(),
        _ => {}
    }
}
