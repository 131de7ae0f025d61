//! Breakpoints and watchpoints (DDI0487 D2): they fire where they are set, live through switches, and reach no other vCPU.
//!
//! Word: `bystander` sets none of its own and expects that nothing fires, beside a guest that has some at the same addresses.
#![expect(unsafe_code, reason = "names a stretch of assembly")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};
use guest_rt::exception::Fault;
use guest_rt::probe::{self, Encoding, Width};
use guest_rt::suite::Outcome;
use guest_rt::{check, check_eq, cpu, exception, gic, insn, machine, mrs, msr, psci, timer};

/// Exception class of a breakpoint without change of level.
const BREAKPOINT: u64 = 0x31;
/// Exception class of a watchpoint without change of level.
const WATCHPOINT: u64 = 0x35;
/// MDSCR_EL1: MDE, and KDE, which lets the kernel be debugged too.
const MDSCR_ON: u64 = 1 << 15 | 1 << 13;
const MDSCR: Encoding = Encoding(2, 0, 0, 2, 2);
/// `DBGBCR<n>_EL1`: all four bytes, EL1, enabled.
const BCR_ON: u64 = 0xf << 5 | 1 << 1 | 1;
/// `DBGWCR<n>_EL1`: all eight bytes, loads and stores, EL1, enabled.
const WCR_ON: u64 = 0xff << 5 | 3 << 3 | 1 << 1 | 1;

static WATCHED: AtomicU64 = AtomicU64::new(0x600d);

global_asm!(
    ".section .text.debug_target, \"ax\"",
    ".balign 8",
    "debug_target:",
    "nop",
    "ret",
    // x1: the instruction to be stepped over, with PSTATE.SS set and D clear.
    "debug_step:",
    "msr elr_el1, x1",
    "mov x2, {pstate}",
    "movk x2, {single_step}, lsl #16",
    "msr spsr_el1, x2",
    "eret",
    "debug_steps:",
    "nop",
    "mrs x1, oslsr_el1",
    "wfe",
    "nop",
    "ret",
    pstate = const EL1H_INTERRUPTS_MASKED,
    single_step = const PSTATE_SS >> 16,
);

/// PSTATE: EL1h with A, I and F masked; the next instruction is a step.
const EL1H_INTERRUPTS_MASKED: u64 = 0x1c5;
const PSTATE_SS: u64 = 1 << 21;
/// MDSCR_EL1: SS and KDE.
const MDSCR_STEP: u64 = 1 << 13 | 1;
/// Instructions that are stepped over: nothing, a trapped register, what may be trapped.
const STEPS: u64 = 3;

/// A step takes one instruction, even if it is EL2 that carries it out.
pub(crate) fn single_steps_take_one_instruction() -> Outcome {
    unsafe extern "C" {
        fn debug_step();
        fn debug_steps();
    }
    msr!("osdlr_el1", 0);
    msr!("oslar_el1", 0);
    let _ = MDSCR.write(MDSCR_STEP);
    insn!("isb");
    let first = debug_steps as *const () as u64;
    let outcome = (0..STEPS).try_for_each(|number| {
        let at = first + 4 * number;
        // For the WFE.
        insn!("sevl");
        let seen = probe::at(debug_step as *const () as u64, 0, at);
        check_eq!(seen.class(), Some(Fault::SOFTWARE_STEP), "step {number}");
        check_eq!(
            seen.fault.map(|fault| fault.elr),
            Some(at + 4),
            "step {number}"
        );
        Ok(())
    });
    mask();
    outcome
}

fn target() -> u64 {
    unsafe extern "C" {
        fn debug_target();
    }
    debug_target as *const () as u64
}

fn watched() -> u64 {
    &raw const WATCHED as u64
}

/// How many breakpoints and watchpoints there are.
fn counts() -> (u32, u32) {
    let dfr0 = mrs!("id_aa64dfr0_el1");
    ((dfr0 >> 12 & 0xf) as u32 + 1, (dfr0 >> 20 & 0xf) as u32 + 1)
}

fn set_breakpoint(number: u32, value: u64, control: u64) {
    let _ = Encoding(2, 0, 0, number, 4).write(value);
    let _ = Encoding(2, 0, 0, number, 5).write(control);
    insn!("isb");
}

fn set_watchpoint(number: u32, value: u64, control: u64) {
    let _ = Encoding(2, 0, 0, number, 6).write(value);
    let _ = Encoding(2, 0, 0, number, 7).write(control);
    insn!("isb");
}

/// Lets debug exceptions be taken on this CPU, as Linux does: locks open, MDSCR_EL1 on, PSTATE.D clear.
fn unmask() {
    msr!("osdlr_el1", 0);
    msr!("oslar_el1", 0);
    let _ = MDSCR.write(MDSCR_ON);
    insn!("isb");
    insn!("msr daifclr, #8");
}

fn mask() {
    insn!("msr daifset, #8");
    let _ = MDSCR.write(0);
    insn!("isb");
}

/// Runs the target and loads the watched word; returns the classes of the exceptions that came.
fn step_on_it() -> (Option<u64>, Option<u64>) {
    let run = probe::at(target(), 0, 0);
    let load = probe::load(watched(), Width::Double);
    (
        run.class().filter(|_| run.exact),
        load.class()
            .filter(|_| load.fault.is_some_and(|fault| fault.far == watched())),
    )
}

pub(crate) fn breakpoints_and_watchpoints_fire() -> Outcome {
    let (breakpoints, watchpoints) = counts();
    unmask();
    let outcome = each_fires(breakpoints, watchpoints);
    mask();
    outcome
}

fn each_fires(breakpoints: u32, watchpoints: u32) -> Outcome {
    check_eq!(step_on_it(), (None, None), "before any is set");
    for number in 0..breakpoints {
        set_breakpoint(number, target(), BCR_ON);
        check_eq!(
            step_on_it(),
            (Some(BREAKPOINT), None),
            "breakpoint {number}"
        );
        check_eq!(
            Encoding(2, 0, 0, number, 4).read().x0,
            target(),
            "DBGBVR{number}"
        );
        set_breakpoint(number, 0, 0);
    }
    for number in 0..watchpoints {
        set_watchpoint(number, watched(), WCR_ON);
        check_eq!(
            step_on_it(),
            (None, Some(WATCHPOINT)),
            "watchpoint {number}"
        );
        set_watchpoint(number, 0, 0);
    }
    check_eq!(step_on_it(), (None, None), "after all are gone");
    Ok(())
}

/// Goes to sleep for a moment, so that a vCPU that shares this CPU runs.
fn doze() {
    gic::enable(timer::VIRTUAL_INTID);
    exception::mask();
    timer::arm_virtual(timer::now() + timer::frequency() / 20_000);
    insn!("wfi");
    timer::stop_virtual();
}

/// Steps on everything for this long, and twice at least, between dozes; returns how many rounds there were, and how many went otherwise.
fn rounds(milliseconds: u64, expected: (Option<u64>, Option<u64>)) -> (u64, u64) {
    let (mut all, mut wrong) = (0, 0);
    let end = timer::now() + milliseconds * timer::frequency() / 1000;
    while all < 2 || timer::now() < end {
        all += 1;
        wrong += u64::from(step_on_it() != expected);
        doze();
    }
    (all, wrong)
}

/// What a CPU that set no breakpoint found: rounds, wrong rounds, breakpoints on at its start; bit 63 when it is done.
static BYSTANDER: AtomicU64 = AtomicU64::new(0);

/// Spends some time without a breakpoint of its own.
fn bystander(milliseconds: u64) {
    let mut set = mrs!("mdscr_el1") & MDSCR_ON;
    for number in 0..counts().0 {
        set += Encoding(2, 0, 0, number, 5).read().x0 & 1;
    }
    unmask();
    let (all, wrong) = rounds(milliseconds, (None, None));
    // What it leaves is gone when it is turned on again.
    set_breakpoint(0, target(), BCR_ON);
    BYSTANDER.store(
        1 << 63 | (all & 0xffff) << 32 | (wrong & 0xffff) << 16 | set & 0xffff,
        Ordering::Release,
    );
}

pub(crate) fn breakpoints_stay_with_their_cpu() -> Outcome {
    const SPAN_MS: u64 = 40;
    if machine().word("bystander") {
        bystander(SPAN_MS * 10);
        mask();
        let found = BYSTANDER.load(Ordering::Acquire);
        check_eq!(found & 0xffff_ffff, 0, "wrong rounds and breakpoints");
        return Ok(());
    }
    unmask();
    set_breakpoint(1, target(), BCR_ON);
    set_watchpoint(0, watched(), WCR_ON);
    let outcome = beside_others(SPAN_MS);
    set_breakpoint(1, 0, 0);
    set_watchpoint(0, 0, 0);
    mask();
    outcome
}

fn beside_others(span_ms: u64) -> Outcome {
    let both = (Some(BREAKPOINT), Some(WATCHPOINT));
    for index in (1..machine().cpus().len()).flat_map(|index| [index; 2]) {
        BYSTANDER.store(0, Ordering::Release);
        check_eq!(
            cpu::start(index, bystander, span_ms),
            psci::SUCCESS,
            "CPU_ON"
        );
        let (all, wrong) = rounds(span_ms, both);
        check!(all > 1, "only {all} rounds");
        check_eq!(wrong, 0, "rounds in which what was set did not fire");
        check!(cpu::wait_off(index), "CPU {index} does not turn off");
        let found = BYSTANDER.load(Ordering::Acquire);
        check!(
            found >> 32 > 1 << 31,
            "CPU {index} made no rounds: {found:#x}"
        );
        check_eq!(
            found & 0xffff_ffff,
            0,
            "CPU {index}: wrong rounds, what was set"
        );
    }
    let (_, wrong) = rounds(span_ms * 10, both);
    check_eq!(wrong, 0, "rounds in which what was set did not fire");
    Ok(())
}
