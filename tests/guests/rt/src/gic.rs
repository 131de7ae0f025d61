//! The GICv3 as a guest drives it (Arm IHI0069): distributor, redistributors, CPU interface.

use crate::{cpu, insn, machine, mmio, mrs, msr};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

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

/// Number of INTIDs counted.
const INTIDS: usize = 1024;
static COUNTS: [AtomicU32; INTIDS] = [const { AtomicU32::new(0) }; INTIDS];
static HANDLER: AtomicUsize = AtomicUsize::new(0);

/// Turns the distributor on: group 1, affinity routing.
pub fn init_distributor() {
    let base = machine().distributor();
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
    msr!("S3_0_C12_C12_5", mrs!("S3_0_C12_C12_5") | 1);
    msr!("S3_0_C4_C6_0", 0xff);
    msr!("S3_0_C12_C12_3", 0);
    msr!("S3_0_C12_C12_4", 0);
    msr!("S3_0_C12_C12_7", 1);
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
    if intid < 32 {
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
    mmio::write64(
        machine().distributor() + IROUTER + u64::from(intid) * 8,
        affinity,
    );
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

/// Writes ICC_SGI1R_EL1.
pub fn write_sgi1r(value: u64) {
    insn!("dsb ishst");
    msr!("S3_0_C12_C11_5", value);
}

/// Sends an SGI to one CPU.
pub fn send_sgi(affinity: u64, intid: u32) {
    write_sgi1r(sgi_value(affinity, intid));
}

/// Acknowledges the highest-priority pending interrupt: ICC_IAR1_EL1.
#[must_use]
pub fn acknowledge() -> u32 {
    let intid = mrs!("S3_0_C12_C12_0");
    insn!("dsb sy");
    intid as u32
}

/// Ends an interrupt: ICC_EOIR1_EL1.
pub fn end(intid: u32) {
    msr!("S3_0_C12_C12_1", u64::from(intid));
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
    let intid = acknowledge();
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
    end(intid);
}

/// Lowers the lines of the timers, which would otherwise interrupt for ever.
fn default_handler(intid: u32) {
    match intid {
        crate::timer::VIRTUAL_INTID => crate::timer::stop_virtual(),
        crate::timer::PHYSICAL_INTID => crate::timer::stop_physical(),
        _ => {}
    }
}
