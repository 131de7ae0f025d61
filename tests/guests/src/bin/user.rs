//! EL0 as a guest's own kernel sees it: every system register, AArch32 and its traps, data in either order.
//!
//! Whatever EL2 holds back from EL0 must come to the guest's EL1 as the architecture says: by the right vector, with an
//! undefined instruction's syndrome, at the instruction. Words: `bare` leaves out what only a hypervisor does.
#![no_std]
#![no_main]

use guest_rt::exception::Fault;
use guest_rt::mmu::{self, Memory};
use guest_rt::probe::Observation;
use guest_rt::suite::{self, Outcome};
use guest_rt::user::{self, State};
use guest_rt::{check, check_eq, gic, guest, ignore, machine, mmio, mrs, msr, psci, tests};

guest!(main);

/// Vectors for synchronous exceptions from EL0 in AArch64 and AArch32.
const FROM_A64: u64 = 8;
const FROM_A32: u64 = 12;

fn main() {
    gic::init_distributor();
    gic::init_cpu();
    user::open();
    suite::run(
        "user",
        tests![
            an_instruction_runs,
            every_encoding_can_be_tried,
            calls_are_undefined,
            aarch32_runs,
            aarch32_calls_are_undefined,
            aarch32_debug_registers_are_undefined,
            every_aarch32_encoding_can_be_tried,
            big_endian_data,
            thumb_loads_from_devices,
        ],
    );
}

fn no_aarch32() -> bool {
    mrs!("id_aa64pfr0_el1") & 0xf != 2
}

/// Tells whether an instruction was refused as undefined, by this vector and at the instruction.
fn undefined(seen: &Observation, vector: u64) -> bool {
    seen.exact
        && seen.fault.is_some_and(|fault| {
            // IL is set, nothing else: what is undefined has no ISS.
            fault.esr == 1 << 25 && fault.vector == vector
        })
}

/// Tells whether a register access ended as one may: done, undefined, or trapped by EL1's own wish.
fn is_an_answer(seen: &Observation, vector: u64, own_traps: &[u64]) -> bool {
    match seen.fault {
        None => true,
        Some(fault) => {
            seen.exact
                && fault.vector == vector
                && (fault.class() == Fault::UNDEFINED && fault.esr == 1 << 25
                    || own_traps.contains(&fault.class()))
        }
    }
}

fn an_instruction_runs() -> Outcome {
    // add x0, x0, x1
    let seen = user::run(State::A64, 0x8b01_0000, 40, 2);
    check!(seen.fault.is_none(), "{:x?}", seen.fault);
    check_eq!(seen.x0, 42, "40 + 2");
    // A read of what only EL1 sees: this very image, by its own address.
    let seen = user::run(State::A64, 0xf940_0000, machine().image().base, 0);
    let fault = seen.fault.unwrap_or_default();
    check!(
        seen.exact && fault.class() == 0x24 && fault.vector == FROM_A64,
        "{fault:x?}"
    );
    Ok(())
}

fn every_encoding_can_be_tried() -> Outcome {
    /// A trapped register (also of FEAT_IDST), SVE, FP, SME: by CPACR_EL1, SCTLR_EL1, CNTKCTL_EL1, PMUSERENR_EL0.
    const OWN_TRAPS: [u64; 4] = [Fault::TRAPPED, 0x19, 0x07, 0x1d];
    msr!("pmuserenr_el0", 0);
    let mut values = 0;
    for bits in 0..1_u32 << 15 {
        let (op0, register) = (2 + (bits >> 14), (bits & 0x3fff) << 5);
        for direction in [1 << 21, 0] {
            let instruction = 0xd500_0000 | op0 << 19 | direction | register;
            let seen = user::run(State::A64, instruction, 0, 0);
            check!(
                is_an_answer(&seen, FROM_A64, &OWN_TRAPS),
                "{instruction:#x}: {:x?}",
                seen.fault
            );
            values += u32::from(seen.fault.is_none());
        }
    }
    // FPCR, FPSR, NZCV, TPIDR_EL0 and TPIDRRO_EL0, CNTFRQ_EL0 and their like.
    check!(values > 5, "only {values} accesses go through");
    Ok(())
}

fn calls_are_undefined() -> Outcome {
    // hvc #0, smc #0, hvc #1, smc #0xffff; PSCI_VERSION in x0.
    for instruction in [0xd400_0002, 0xd400_0003, 0xd400_0022, 0xd41f_ffe3] {
        let seen = user::run(State::A64, instruction, 0x8400_0000, 0);
        check!(
            undefined(&seen, FROM_A64),
            "{instruction:#x}: {:x?}",
            seen.fault
        );
        check_eq!(seen.x0, 0x8400_0000, "x0 after {instruction:#x}");
    }
    Ok(())
}

fn aarch32_runs() -> Outcome {
    if no_aarch32() {
        ignore!("no AArch32 at EL0");
    }
    // add r0, r0, r1; its 16-bit form with a nop; a conditional svc that is not taken.
    for (state, instruction) in [(State::A32, 0xe080_0001), (State::T32, 0xbf00_1840)] {
        let seen = user::run(state, instruction, 40, 2);
        check!(seen.fault.is_none(), "{instruction:#x}: {:x?}", seen.fault);
        check_eq!(seen.x0, 42, "40 + 2 by {instruction:#x}");
    }
    let seen = user::run(State::A32, 0x0f00_0001, 1, 2);
    check!(seen.fault.is_none(), "svceq: {:x?}", seen.fault);
    // udf in both instruction sets.
    for (state, instruction) in [(State::A32, 0xe7f0_00f0), (State::T32, 0xbf00_de00)] {
        let seen = user::run(state, instruction, 0, 0);
        let fault = seen.fault.unwrap_or_default();
        check!(
            seen.exact && fault.class() == Fault::UNDEFINED && fault.vector == FROM_A32,
            "{instruction:#x}: {fault:x?}"
        );
    }
    Ok(())
}

fn aarch32_calls_are_undefined() -> Outcome {
    if no_aarch32() {
        ignore!("no AArch32 at EL0");
    }
    // smc #0 and hvc #0; hvc takes no condition.
    for instruction in [0xe160_0070, 0xe140_0070] {
        let seen = user::run(State::A32, instruction, 0x8400_0000, 0);
        check!(
            undefined(&seen, FROM_A32),
            "{instruction:#x}: {:x?}",
            seen.fault
        );
        check_eq!(seen.x0, 0x8400_0000, "r0 after {instruction:#x}");
    }
    // smceq with the condition failed: undefined all the same, or skipped.
    let seen = user::run(State::A32, 0x0160_0070, 0x8400_0000, 0);
    check!(
        seen.fault.is_none() || undefined(&seen, FROM_A32),
        "smceq: {:x?}",
        seen.fault
    );
    check_eq!(seen.x0, 0x8400_0000, "r0 after smceq");
    check!(psci::version() > 0, "PSCI_VERSION");
    Ok(())
}

/// `mrc p14, 0, r0, c0, cN, op2` of registers of the debug unit that EL0 may try.
const DEBUG: [(&str, u32); 3] = [
    ("DBGDIDR", 0xee10_0e10),
    ("DBGDSCRint", 0xee10_0e11),
    ("DBGDTRRXint", 0xee10_0e15),
];

fn aarch32_debug_registers_are_undefined() -> Outcome {
    if no_aarch32() {
        ignore!("no AArch32 at EL0");
    }
    for (name, instruction) in DEBUG {
        let halves = (instruction & 0xffff) << 16 | instruction >> 16;
        for (state, instruction) in [(State::A32, instruction), (State::T32, halves)] {
            let seen = user::run(state, instruction, 0, 0);
            check!(
                machine().word("bare") || undefined(&seen, FROM_A32),
                "{name} in {state:?}: {:x?} r0 {:#x}",
                seen.fault,
                seen.x0
            );
        }
        // With the condition failed nothing happens, or the same.
        let seen = user::run(State::A32, instruction & 0x0fff_ffff, 7, 0);
        check!(
            seen.fault.is_none() || undefined(&seen, FROM_A32),
            "{name} with eq: {:x?}",
            seen.fault
        );
        check_eq!(seen.x0, 7, "r0 after {name} with eq");
    }
    Ok(())
}

fn every_aarch32_encoding_can_be_tried() -> Outcome {
    /// Trapped CP15, CP14 and FP accesses: by EL1's CNTKCTL_EL1, PMUSERENR_EL0 and CPACR_EL1.
    const OWN_TRAPS: [u64; 7] = [0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x0c];
    if no_aarch32() {
        ignore!("no AArch32 at EL0");
    }
    for bits in 0..1_u32 << 15 {
        // Coprocessor 14 or 15, opc1, CRn, CRm, opc2.
        let (coprocessor, opc1) = (14 + (bits >> 14), bits >> 11 & 7);
        let (crn, crm, opc2) = (bits >> 7 & 15, bits >> 3 & 15, bits & 7);
        let read = 0xee10_0010 | opc1 << 21 | crn << 16 | coprocessor << 8 | opc2 << 5 | crm;
        let seen = user::run(State::A32, read, 0, 0);
        check!(
            is_an_answer(&seen, FROM_A32, &OWN_TRAPS),
            "{read:#x}: {:x?}",
            seen.fault
        );
    }
    Ok(())
}

/// The GiB of the identity map that EL0 sees devices in.
const DEVICES: u64 = 2;
/// SCTLR_EL1.E0E.
const SCTLR_E0E: u64 = 1 << 24;

fn big_endian_data() -> Outcome {
    let features = mrs!("id_aa64mmfr0_el1");
    if features >> 8 & 0xf == 0 && features >> 16 & 0xf == 0 {
        ignore!("no big-endian data at EL0");
    }
    let register = machine().distributor() + gic::PIDR2;
    let little = mmio::read32(register);
    let address = mmu::user_window(DEVICES, register, Memory::Device);
    // ldr w0, [x0]
    let load = || user::run(State::A64, 0xb940_0000, address, 0);
    check_eq!(
        load().x0,
        u64::from(little),
        "a load in little-endian order"
    );
    let sctlr = mrs!("sctlr_el1");
    msr!("sctlr_el1", sctlr | SCTLR_E0E);
    let big = load();
    let own = mmio::read32(register);
    msr!("sctlr_el1", sctlr);
    check_eq!(
        big.x0,
        u64::from(little.swap_bytes()),
        "a load in big-endian order"
    );
    check_eq!(own, little, "a load at EL1 meanwhile");
    if !no_aarch32() {
        // ldr r0, [r0]; it is PSTATE.E that counts, which without E0E would not get as far.
        msr!("sctlr_el1", sctlr | SCTLR_E0E);
        let seen = [State::A32, State::A32BigEndian]
            .map(|state| user::run(state, 0xe590_0000, address, 0).x0);
        msr!("sctlr_el1", sctlr);
        let expected = [u64::from(little), u64::from(little.swap_bytes())];
        check_eq!(seen, expected, "loads in AArch32");
    }
    Ok(())
}

/// What EL2 carries out in a guest's stead is as long as the guest's instruction, and counts in its IT block
/// (DDI0487 D19.2.40, ISS IL; F1.2, ITSTATE).
fn thumb_loads_from_devices() -> Outcome {
    if no_aarch32() {
        ignore!("no AArch32 at EL0");
    }
    let register = machine().distributor() + gic::PIDR2;
    let value = u64::from(mmio::read32(register));
    let address = mmu::user_window(DEVICES, register, Memory::Device);
    let run = |instruction| user::run(State::T32, instruction, address, 0);
    // ldr r0, [r0]; adds r0, #1; svc: the 16-bit load alone is stepped over.
    let narrow = run(0x3001_6800);
    check!(narrow.fault.is_none(), "{:x?}", narrow.fault);
    check_eq!((narrow.x0, narrow.behind), (value + 1, 6), "a 16-bit load");
    // ldr.w r0, [r0]; svc.
    let wide = run(0x0000_f8d0);
    check_eq!((wide.x0, wide.behind), (value, 6), "a 32-bit load");
    // ite ne; ldrne r0, [r0]; svceq, which is not taken; svc.
    let block = run(0x6800_bf14);
    check_eq!(
        (block.x0, block.behind),
        (value, 8),
        "a load in an IT block"
    );
    Ok(())
}
