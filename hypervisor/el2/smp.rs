//! The other CPUs: their guarded stacks, and the few instructions each runs before Rust.
#![expect(unsafe_code, reason = "secondary entry, boot-time memory")]

mod off;

pub(crate) use off::{bring_up, is_off, is_there, power_down};

use alloc::boxed::Box;
use control_plane::host::{EnableMethod, HostCpu};
use core::arch::naked_asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use types::ids::PcpuId;
use vmm::features::{self, hcr};
use vmm::sync::FairMutex;

use crate::gic::PrivateLines;
use crate::mmu::{PAGE, Use};
use crate::percpu::Percpu;
use crate::sysreg::{self, dsb_sy, wfi};
use crate::{cache, cpu_features, debug, gic, memory, mmu, percpu, pmu, smc, timer};

/// Bytes of a CPU's stack.
const STACK_BYTES: u64 = 16 * 1024;
/// Bytes of the stack that an exception from EL2 is told on, which may be that the other one is full.
const LAST_STACK_BYTES: u64 = PAGE;
/// How long a CPU may take to come up.
const START_TIMEOUT_NS: u64 = 1_000_000_000;
/// Field of ID_AA64PFR1_EL1: FEAT_NMI.
const NMI: u32 = 36;
/// HCRX_EL2.TALLINT: writes of ALLINT trap.
const TRAP_ALLINT: u64 = 1 << 6;
/// Field of ID_AA64MMFR1_EL1: HCRX_EL2 exists.
const HCX: u32 = 40;
/// Field of ID_AA64MMFR0_EL1: fine-grained traps exist, from this number on those of FEAT_FGT2 too.
const FGT: u32 = 56;
const FGT_SECOND: u64 = 2;
/// Field of ID_AA64PFR0_EL1: activity monitors exist.
const AMU: u32 = 44;

/// What a secondary CPU needs before it can read anything through its caches.
#[repr(C, align(64))]
struct Handover {
    mmu: mmu::Registers,
    stack: u64,
    vectors: u64,
    id: PcpuId,
    mpidr: u64,
    /// Stack pointer at which to go on; zero before the CPU was first turned off.
    resume: u64,
    /// Set by the CPU when it comes, or by the boot CPU when it gives up: the first of them decides.
    settled: AtomicBool,
    /// Where the CPU goes on when it is prepared.
    enter: fn(&'static Percpu) -> !,
}

/// The [`Handover`] of the CPU that is being started, for those that come without a word of it in x0.
static EXPECTED: AtomicU64 = AtomicU64::new(0);
/// Why the CPU that is being started can't be used: it says so itself, and stays out.
static REFUSED: FairMutex<Option<&'static str>> = FairMutex::new(None);
static ONLINE: AtomicU32 = AtomicU32::new(1);

/// Maps a stack for a CPU between unmapped pages and returns its top.
pub(crate) fn map_stack(id: PcpuId) -> Option<u64> {
    let physical = memory::take_pages(STACK_BYTES + LAST_STACK_BYTES, PAGE)?;
    let place = mmu::STACK_WINDOW + id.index() as u64 * mmu::STACK_STRIDE;
    let stack = place + mmu::STACK_BOTTOM..place + mmu::STACK_BOTTOM + STACK_BYTES;
    let last = place + mmu::LAST_STACK_TOP - LAST_STACK_BYTES..place + mmu::LAST_STACK_TOP;
    mmu::map(stack.clone(), physical, Use::Data).ok()?;
    mmu::map(last, physical + STACK_BYTES, Use::Data).ok()?;
    Some(stack.end)
}

/// Turns a CPU on, to go on in `enter` with this CPU's vectors, and waits until it runs; returns whether it does.
pub(crate) fn start(
    id: PcpuId,
    cpu: &HostCpu,
    enter: fn(&'static Percpu) -> !,
) -> Result<(), &'static str> {
    if cpu.enable == EnableMethod::None {
        return Err("the device tree names no usable way to start it");
    }
    let stack = map_stack(id).ok_or("no memory for its stack")?;
    let handover: &Handover = Box::leak(Box::new(Handover {
        mmu: mmu::registers(),
        stack,
        vectors: sysreg::vbar_el2::read(),
        id,
        mpidr: cpu.mpidr,
        resume: 0,
        settled: AtomicBool::new(false),
        enter,
    }));
    let address = (&raw const *handover).addr() as u64;
    cache::clean_invalidate(address..address + size_of::<Handover>() as u64);
    let before = ONLINE.load(Ordering::Acquire);
    if let EnableMethod::SpinTable { release } = cpu.enable {
        release_from(release.get(), address)?;
    } else {
        match smc::cpu_on(cpu.mpidr, secondary_entry as *const () as u64, address) {
            Some(0) => off::register(id, address),
            Some(_) => return Err("firmware refused CPU_ON"),
            None => return Err("no PSCI firmware to turn it on"),
        }
    }
    let deadline = timer::now() + crate::clock::duration_ticks(START_TIMEOUT_NS);
    while ONLINE.load(Ordering::Acquire) == before {
        if let Some(why) = REFUSED.lock().take() {
            return Err(why);
        }
        if timer::now() > deadline && !handover.settled.swap(true, Ordering::AcqRel) {
            return Err("did not come up within 1 s");
        }
        core::hint::spin_loop();
    }
    Ok(())
}

/// Sends a CPU that waits for an address at `release` (Linux booting.rst, "spin-table") to [`spin_table_entry`].
fn release_from(release: u64, handover: u64) -> Result<(), &'static str> {
    mmu::map_identity(release..release + 8, Use::Data)
        .map_err(|_| "its cpu-release-addr can't be mapped")?;
    let expected = (&raw const EXPECTED).addr() as u64;
    EXPECTED.store(handover, Ordering::Relaxed);
    let entry = spin_table_entry as *const () as u64;
    // SAFETY: mapped just now; the device tree gives this doubleword to the CPU that starts the other, and it is no other memory.
    unsafe { (release as *mut u64).write_volatile(entry.to_le()) };
    // Both are read with the MMU off.
    cache::clean_invalidate(expected..expected + 8);
    cache::clean_invalidate(release..release + 8);
    // SAFETY: an event changes no state.
    unsafe { core::arch::asm!("sev", options(nostack, preserves_flags)) };
    Ok(())
}

/// Returns how many CPUs run.
pub(crate) fn online() -> u32 {
    ONLINE.load(Ordering::Acquire)
}

/// The first instructions of a CPU that comes with nothing in its registers: it waits until it is the one expected.
///
/// Several CPUs may share a release address, and come all at once.
#[unsafe(naked)]
extern "C" fn spin_table_entry() -> ! {
    naked_asm!(
        "msr  daifset, #0xf",
        "1: adrp x0, {expected}",
        "ldr  x0, [x0, :lo12:{expected}]",
        "cbz  x0, 2f",
        "mrs  x1, mpidr_el1",
        "and  x2, x1, #0xffffff",
        "ubfx x1, x1, #32, #8",
        "bfi  x2, x1, #32, #8",
        "ldr  x1, [x0, {mpidr}]",
        "cmp  x1, x2",
        "b.eq {secondary_entry}",
        "2: wfe",
        "b    1b",
        expected = sym EXPECTED,
        mpidr = const offset_of!(Handover, mpidr),
        secondary_entry = sym secondary_entry,
    )
}

/// A secondary CPU's first instructions: x0 is the address of its [`Handover`].
#[unsafe(naked)]
extern "C" fn secondary_entry() -> ! {
    naked_asm!(
        "msr  daifset, #0xf",
        "msr  spsel, #1",
        "mov  x1, #1 << 31",
        "msr  hcr_el2, x1",
        "isb",
        "ldp  x1, x2, [x0, {mair}]",
        "msr  mair_el2, x1",
        "msr  tcr_el2, x2",
        "ldp  x1, x2, [x0, {ttbr}]",
        "msr  ttbr0_el2, x1",
        "isb",
        // The guests' entries too: a CPU that was off has missed what others invalidated, and a reset need not clear a TLB.
        "tlbi alle2",
        "tlbi alle1",
        "ic   iallu",
        "dsb  sy",
        "isb",
        "msr  sctlr_el2, x2",
        "isb",
        "ldr  x1, [x0, {vectors}]",
        "msr  vbar_el2, x1",
        "msr  tpidr_el2, xzr",
        "isb",
        "ldr  x1, [x0, {resume}]",
        "cbnz x1, 2f",
        // Too late: another may have been given this CPU's number and stack.
        "add  x1, x0, {settled}",
        "mov  w2, #1",
        "3: ldaxrb w3, [x1]",
        "cbnz w3, 4f",
        "stxrb w3, w2, [x1]",
        "cbnz w3, 3b",
        "ldr  x1, [x0, {stack}]",
        "mov  sp, x1",
        "b    {main}",
        "4: wfi",
        "b    4b",
        // Back in the middle of `off::leave`.
        "2: mov sp, x1",
        "mov  x0, xzr",
        "ldp  x19, x20, [sp, #16]",
        "ldp  x21, x22, [sp, #32]",
        "ldp  x23, x24, [sp, #48]",
        "ldp  x25, x26, [sp, #64]",
        "ldp  x27, x28, [sp, #80]",
        "ldp  x29, x30, [sp], #96",
        "ret",
        mair = const offset_of!(Handover, mmu.mair),
        ttbr = const offset_of!(Handover, mmu.ttbr),
        stack = const offset_of!(Handover, stack),
        vectors = const offset_of!(Handover, vectors),
        resume = const offset_of!(Handover, resume),
        settled = const offset_of!(Handover, settled),
        main = sym secondary_main,
    )
}

/// The rest of a secondary CPU's life.
extern "C" fn secondary_main(handover: &Handover) -> ! {
    let private_lines = crate::machine::private_lines(percpu::own_affinity());
    let joined = match private_lines {
        None => Err("no redistributor of the interrupt controller is its own"),
        Some(_) => cpu_features::join(crate::machine::memory_end()),
    };
    let cpu = match joined.and_then(|()| prepare(handover.id)) {
        Ok(cpu) => cpu,
        Err(why) => {
            *REFUSED.lock() = Some(why);
            loop {
                wfi();
            }
        }
    };
    ONLINE.fetch_add(1, Ordering::Release);
    dsb_sy();
    (handover.enter)(cpu)
}

/// Prepares this CPU and makes its own data; its stack and MMU are set up.
///
/// # Errors
/// When its part of the interrupt controller is out of order.
pub(crate) fn prepare(id: PcpuId) -> Result<&'static Percpu, &'static str> {
    let private_lines = prepare_registers()?;
    let cpu = percpu::start(id, private_lines, gic::count());
    off::presence(id).come();
    Ok(cpu)
}

/// Prepares this CPU's registers and interrupt controller.
fn prepare_registers() -> Result<PrivateLines, &'static str> {
    // SAFETY: as the entry set it, with interrupts routed to EL2; no guest runs before `vmm::cpu` has set it to a VM's.
    unsafe { sysreg::hcr_el2::write(hcr::RW | hcr::IMO | hcr::FMO | hcr::AMO) };
    // SAFETY: it traps AArch32's coprocessor registers of EL1, which is AArch64 in every guest (HCR_EL2.RW).
    unsafe { sysreg::hstr_el2::write(0) };
    hide_late_features();
    sysreg::vpidr_el2::write(sysreg::midr_el1::read());
    if features::has_pmu(sysreg::id_aa64dfr0_el1::read()) {
        pmu::stop();
    }
    debug::start();
    timer::start();
    gic::start_cpu();
    let private_lines =
        crate::machine::private_lines(percpu::own_affinity()).expect("redistributor of this CPU");
    private_lines.start(crate::machine::private_interrupts().enabled())?;
    Ok(private_lines)
}

/// Clears controls of what EL1 may do.
macro_rules! clear {
    ($($name:ident),+) => {
        $(
            // SAFETY: zero gives EL1 nothing that HCR_EL2, CPTR_EL2 and MDCR_EL2 keep from it, and nothing of EL2's depends on it.
            unsafe { sysreg::$name::write(0) };
        )+
    };
}

/// Makes the controls of features that came after Armv8.0 trap what no guest is offered (Arm ARM D19.2, HCRX_EL2, HFGRTR_EL2).
///
/// Zero enables nothing, and traps what the fine-grained controls name by "no trap"; their value at reset may be anything.
fn hide_late_features() {
    let has = |register: u64, low: u32| register >> low & 0xf != 0;
    if has(sysreg::id_aa64mmfr1_el1::read(), HCX) {
        // Where it exists, PSTATE.ALLINT can be written without the feature being offered: that traps.
        let traps = if has(sysreg::id_aa64pfr1_el1::read(), NMI) {
            TRAP_ALLINT
        } else {
            0
        };
        // SAFETY: no bit but a trap is set: nothing of these features is on for EL1, and none of them is EL2's.
        unsafe { sysreg::hcrx_el2::write(traps) };
    }
    // Implementation-defined controls: nothing that they could grant to EL1 is granted, or trapped one by one.
    clear!(actlr_el2, hacr_el2);
    let fine_grained = sysreg::id_aa64mmfr0_el1::read() >> FGT & 0xf;
    if fine_grained >= FGT_SECOND {
        clear!(
            hdfgrtr2_el2,
            hdfgwtr2_el2,
            hfgrtr2_el2,
            hfgwtr2_el2,
            hfgitr2_el2
        );
    }
    if fine_grained != 0 && has(sysreg::id_aa64pfr0_el1::read(), AMU) {
        clear!(hafgrtr_el2);
    }
    if fine_grained != 0 {
        clear!(hfgrtr_el2, hfgwtr_el2, hfgitr_el2, hdfgrtr_el2, hdfgwtr_el2);
    }
}

/// Moves the boot CPU to a guarded stack and goes on there.
pub(crate) fn move_to_stack(top: u64, next: extern "C" fn() -> !) -> ! {
    // SAFETY: `top` is the top of a mapped stack that nothing else uses; nothing on the old one is needed again.
    unsafe {
        core::arch::asm!(
            "mov sp, {top}", "mov x29, xzr", "mov x30, xzr", "br {next}",
            top = in(reg) top, next = in(reg) next, options(noreturn)
        )
    }
}
