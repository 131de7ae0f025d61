//! System registers as a curious or hostile guest touches them: every encoding, hidden features, other levels' registers.
//!
//! Words: `bare` leaves out what only a hypervisor does.
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "floating-point registers and a stretch of big-endian code"
)]

mod debug;
mod features;
mod pmu;

use core::arch::asm;
use guest_rt::exception::Fault;
use guest_rt::probe::{self, Encoding, Observation};
use guest_rt::suite::{self, Outcome};
use guest_rt::{
    check, check_eq, cpu, exception, gic, guest, ignore, insn, machine, mmio, mrs, msr, psci,
    tests, timer,
};

guest!(main);

fn main() {
    gic::init_distributor();
    gic::init_cpu();
    suite::run(
        "sysreg",
        tests![
            registers_of_other_levels,
            instructions_of_other_levels,
            every_encoding_can_be_read,
            every_encoding_can_be_written,
            features::hidden_features_stay_hidden,
            features::id_registers_are_alike_on_all_cpus,
            masked_debug_registers_do_nothing,
            debug::breakpoints_and_watchpoints_fire,
            debug::breakpoints_stay_with_their_cpu,
            debug::single_steps_take_one_instruction,
            pmu::performance_monitors_count_and_start_afresh,
            pmu::counters_that_overflow_interrupt,
            os_lock,
            set_and_way,
            tlb_and_cache_by_the_thousand,
            address_translation,
            big_endian_mmio,
            floating_point_survives,
            features::keys_survive,
            wfi_with_a_masked_interrupt,
            wfe_and_wfit,
            counters_agree,
        ],
    );
}

fn bare() -> bool {
    machine().word("bare")
}

fn undefined(seen: &Observation) -> bool {
    seen.exact && seen.class() == Some(Fault::UNDEFINED)
}

/// Registers of EL2 and EL3 and the EL2 aliases of EL1 registers (DDI0487 D24).
const OTHER_LEVELS: [(&str, Encoding); 36] = [
    ("HCR_EL2", Encoding(3, 4, 1, 1, 0)),
    ("SCTLR_EL2", Encoding(3, 4, 1, 0, 0)),
    ("ACTLR_EL2", Encoding(3, 4, 1, 0, 1)),
    ("MDCR_EL2", Encoding(3, 4, 1, 1, 1)),
    ("CPTR_EL2", Encoding(3, 4, 1, 1, 2)),
    ("HSTR_EL2", Encoding(3, 4, 1, 1, 3)),
    ("HFGRTR_EL2", Encoding(3, 4, 1, 1, 4)),
    ("HCRX_EL2", Encoding(3, 4, 1, 2, 2)),
    ("TTBR0_EL2", Encoding(3, 4, 2, 0, 0)),
    ("TTBR1_EL2", Encoding(3, 4, 2, 0, 1)),
    ("TCR_EL2", Encoding(3, 4, 2, 0, 2)),
    ("VTTBR_EL2", Encoding(3, 4, 2, 1, 0)),
    ("VTCR_EL2", Encoding(3, 4, 2, 1, 2)),
    ("VNCR_EL2", Encoding(3, 4, 2, 2, 0)),
    ("SPSR_EL2", Encoding(3, 4, 4, 0, 0)),
    ("ELR_EL2", Encoding(3, 4, 4, 0, 1)),
    ("SP_EL1", Encoding(3, 4, 4, 1, 0)),
    ("ESR_EL2", Encoding(3, 4, 5, 2, 0)),
    ("FAR_EL2", Encoding(3, 4, 6, 0, 0)),
    ("HPFAR_EL2", Encoding(3, 4, 6, 0, 4)),
    ("MAIR_EL2", Encoding(3, 4, 10, 2, 0)),
    ("VBAR_EL2", Encoding(3, 4, 12, 0, 0)),
    ("ICC_SRE_EL2", Encoding(3, 4, 12, 9, 5)),
    ("ICH_HCR_EL2", Encoding(3, 4, 12, 11, 0)),
    ("ICH_VTR_EL2", Encoding(3, 4, 12, 11, 1)),
    ("ICH_VMCR_EL2", Encoding(3, 4, 12, 11, 7)),
    ("ICH_LR0_EL2", Encoding(3, 4, 12, 12, 0)),
    ("TPIDR_EL2", Encoding(3, 4, 13, 0, 2)),
    ("CNTVOFF_EL2", Encoding(3, 4, 14, 0, 3)),
    ("CNTHCTL_EL2", Encoding(3, 4, 14, 1, 0)),
    ("CNTHP_CTL_EL2", Encoding(3, 4, 14, 2, 1)),
    ("SCTLR_EL12", Encoding(3, 5, 1, 0, 0)),
    ("VBAR_EL12", Encoding(3, 5, 12, 0, 0)),
    ("CNTV_CTL_EL02", Encoding(3, 5, 14, 3, 1)),
    ("SCR_EL3", Encoding(3, 6, 1, 1, 0)),
    ("ICC_SRE_EL3", Encoding(3, 6, 12, 12, 5)),
];

fn registers_of_other_levels() -> Outcome {
    for (name, register) in OTHER_LEVELS {
        let seen = register.read();
        check!(
            undefined(&seen),
            "reading {name}: {:x?} {:#x}",
            seen.fault,
            seen.x0
        );
        let seen = register.write(0);
        check!(undefined(&seen), "writing {name}: {:x?}", seen.fault);
    }
    Ok(())
}

fn instructions_of_other_levels() -> Outcome {
    const INSTRUCTIONS: [(&str, u32); 9] = [
        ("tlbi alle1", 0xd50c_879f),
        ("tlbi alle2", 0xd50c_871f),
        ("tlbi vmalls12e1is", 0xd50c_83df),
        ("tlbi ipas2e1, x0", 0xd50c_8420),
        ("at s12e1r, x0", 0xd50c_7880),
        ("at s1e2r, x0", 0xd50c_7800),
        ("at s1e3r, x0", 0xd50e_7800),
        ("hlt #1", 0xd440_0020),
        ("dcps2", 0xd4a0_0002),
    ];
    for (name, instruction) in INSTRUCTIONS {
        let seen = probe::run(instruction, 0, 0);
        check!(undefined(&seen), "{name}: {:x?}", seen.fault);
    }
    let seen = probe::run(0xd69f_03e0, 0, 0);
    check!(
        seen.fault.is_none() || undefined(&seen),
        "eret: {:x?}",
        seen.fault
    );
    Ok(())
}

/// Calls a function with every encoding of op0 = 2 and 3.
fn every_encoding(mut each: impl FnMut(Encoding) -> Outcome) -> Outcome {
    for bits in 0..1_u32 << 15 {
        let (op0, op1) = (2 + (bits >> 14), bits >> 11 & 7);
        each(Encoding(op0, op1, bits >> 7 & 15, bits >> 3 & 15, bits & 7))?;
    }
    Ok(())
}

/// Tells whether an access to a system register ended as one may: done, undefined, or trapped to EL1 by EL1's own wish.
fn is_an_answer(seen: &Observation) -> bool {
    /// Traps to EL1 by CPACR_EL1 and its like: SVE, FP and SIMD, SME;
    /// and FEAT_IDST's report of an ID register that does not exist.
    const OWN_TRAPS: [u64; 4] = [0x19, 0x07, 0x1d, Fault::TRAPPED];
    match seen.class() {
        None => true,
        Some(class) => seen.exact && (class == Fault::UNDEFINED || OWN_TRAPS.contains(&class)),
    }
}

fn every_encoding_can_be_read() -> Outcome {
    let mut values = 0;
    every_encoding(|register| {
        let seen = register.read();
        check!(is_an_answer(&seen), "{register:?}: {:x?}", seen.fault);
        values += u32::from(seen.fault.is_none());
        Ok(())
    })?;
    check!(values > 50, "only {values} registers can be read");
    Ok(())
}

fn every_encoding_can_be_written() -> Outcome {
    every_encoding(|register| {
        let before = register.read();
        // What can be read keeps its value; ICC_IAR1_EL1 and its like have nothing pending.
        let seen = register.write(if before.fault.is_none() { before.x0 } else { 0 });
        check!(is_an_answer(&seen), "{register:?}: {:x?}", seen.fault);
        Ok(())
    })?;
    timer::stop_virtual();
    timer::stop_physical();
    gic::init_cpu();
    check_eq!(cpu::current().index(), 0, "index of the boot CPU");
    Ok(())
}

fn masked_debug_registers_do_nothing() -> Outcome {
    for number in 0..16 {
        // DBGBVR, DBGBCR, DBGWVR, DBGWCR: a breakpoint on this very function, a watchpoint on everything.
        let here = masked_debug_registers_do_nothing as *const () as u64;
        for (op2, value) in [(4, here), (5, 0x1e5), (6, here), (7, 0x1fff)] {
            let register = Encoding(2, 0, 0, number, op2);
            let seen = register.write(value);
            check!(is_an_answer(&seen), "{register:?}: {:x?}", seen.fault);
        }
    }
    // MDSCR_EL1.MDE, KDE and SS, with PSTATE.D masked: nothing fires.
    let mdscr = Encoding(2, 0, 0, 2, 2);
    check!(
        is_an_answer(&mdscr.write(1 << 15 | 1 << 13 | 1)),
        "MDSCR_EL1"
    );
    let _ = psci::version();
    timer::delay(1000);
    check!(is_an_answer(&mdscr.write(0)), "MDSCR_EL1");
    for number in 0..16 {
        for op2 in 4..8 {
            let _ = Encoding(2, 0, 0, number, op2).write(0);
        }
    }
    // DBGDTRTX_EL0 and DBGDTRRX_EL0, MDCCSR_EL0, MDCCINT_EL1.
    for register in [
        Encoding(2, 3, 0, 5, 0),
        Encoding(2, 3, 0, 4, 0),
        Encoding(2, 3, 0, 1, 0),
        Encoding(2, 0, 0, 2, 0),
    ] {
        check!(is_an_answer(&register.read()), "reading {register:?}");
        check!(is_an_answer(&register.write(0)), "writing {register:?}");
    }
    Ok(())
}

fn os_lock() -> Outcome {
    let (oslar, oslsr) = (Encoding(2, 0, 1, 0, 4), Encoding(2, 0, 1, 1, 4));
    for value in [1, 0, 1, 0] {
        check!(is_an_answer(&oslar.write(value)), "OSLAR_EL1");
        check!(is_an_answer(&oslsr.read()), "OSLSR_EL1");
    }
    Ok(())
}

fn set_and_way() -> Outcome {
    static CANARY: [core::sync::atomic::AtomicU64; 64] =
        [const { core::sync::atomic::AtomicU64::new(0x5a5a_a5a5_0f0f_f0f0) }; 64];
    /// `dc cisw, x0`.
    const CLEAN: u32 = 0xd508_7e40;
    /// `dc isw, x0`, which a hypervisor turns into clean and invalidate; without one it would lose our own data.
    const INVALIDATE: u32 = 0xd508_7640;
    // DC ISW, CSW, CISW over a few hundred set/way numbers of three levels.
    for instruction in [INVALIDATE, 0xd508_7a40, CLEAN] {
        if instruction == INVALIDATE && bare() {
            continue;
        }
        for level in 0..3_u64 {
            for set in 0..256_u64 {
                let seen = probe::run(instruction, set << 6 | (set & 3) << 30 | level << 1, 0);
                check!(
                    seen.fault.is_none(),
                    "{instruction:#x} of level {level}: {:x?}",
                    seen.fault
                );
            }
        }
    }
    // The first of a sequence has all memory cleaned, which takes its time; the others are part of it.
    timer::delay(timer::frequency() / 5);
    let cost = |set: u64| {
        let before = timer::now();
        let seen = probe::run(CLEAN, 1 << 20 | set << 6, 0);
        (seen.fault.is_none(), timer::now() - before)
    };
    let (done, first) = cost(0);
    let next = (1..50).map(|set| cost(set).1).min().unwrap_or(0);
    check!(done, "dc cisw");
    check!(
        bare() || first > 10 * next,
        "the first operation took {first} ticks, the next ones {next}"
    );
    let kept = CANARY
        .iter()
        .all(|word| word.load(core::sync::atomic::Ordering::Relaxed) == 0x5a5a_a5a5_0f0f_f0f0);
    check!(kept, "memory changed");
    Ok(())
}

fn tlb_and_cache_by_the_thousand() -> Outcome {
    for _ in 0..2000 {
        insn!("tlbi vmalle1is");
        insn!("tlbi vmalle1");
        insn!("dsb ish");
        insn!("ic ialluis");
        insn!("dsb ish");
        insn!("isb");
    }
    Ok(())
}

fn address_translation() -> Outcome {
    // AT S1E1R of this code, and of an address beyond the tables.
    let here = address_translation as *const () as u64;
    let seen = probe::run(0xd508_7800, here, 0);
    check!(seen.fault.is_none(), "at s1e1r: {:x?}", seen.fault);
    insn!("isb");
    let par = mrs!("par_el1");
    check!(
        par & 1 == 0 && par & 0x000f_ffff_ffff_f000 == here & !0xfff,
        "PAR_EL1 {par:#x} for {here:#x}"
    );
    let seen = probe::run(0xd508_7800, 1 << 46, 0);
    check!(seen.fault.is_none(), "at s1e1r: {:x?}", seen.fault);
    insn!("isb");
    check!(
        mrs!("par_el1") & 1 == 1,
        "PAR_EL1 {:#x} for an address that is not mapped",
        mrs!("par_el1")
    );
    Ok(())
}

/// SCTLR_EL1.M and C, and EE.
const SCTLR_CACHES: u64 = 1 | 1 << 2;
const SCTLR_EE: u64 = 1 << 25;

/// Runs one instruction on a device's address in x0 and data in x1 with big-endian data and the MMU off; returns x1.
macro_rules! in_big_endian {
    ($instruction:literal, $address:expr, $data:expr) => {{
        let sctlr = mrs!("sctlr_el1");
        let mut data: u64 = $data;
        // SAFETY: between the two writes of SCTLR_EL1, which turn the MMU and little-endian data off and on, no other
        // memory is accessed; the map is the identity.
        unsafe {
            asm!("msr sctlr_el1, {off}", "isb", $instruction, "msr sctlr_el1, {on}", "isb",
                off = in(reg) sctlr & !SCTLR_CACHES | SCTLR_EE, on = in(reg) sctlr,
                in("x0") $address, inout("x1") data, options(nostack))
        };
        data
    }};
}

fn big_endian_mmio() -> Outcome {
    /// An SPI that no device uses: its priority byte, its route.
    const SPI: u64 = 60;
    if mrs!("id_aa64mmfr0_el1") >> 8 & 0xf == 0 {
        ignore!("no big-endian data at EL1");
    }
    let distributor = machine().distributor();
    let pidr2 = mmio::read32(distributor + gic::PIDR2);
    let big = in_big_endian!("ldr w1, [x0]", distributor + gic::PIDR2, 0);
    check_eq!(big as u32, pidr2.swap_bytes(), "a load of GICD_PIDR2");
    let priorities = distributor + gic::IPRIORITYR + SPI;
    let before = mmio::read32(priorities);
    for (stored, found) in [
        (0x1020_3040_u64, 0x4030_2010_u32),
        (0x8090_a0b0, 0xb0a0_9080),
    ] {
        let _ = in_big_endian!("str w1, [x0]", priorities, stored);
        // A CPU has at least 5 bits of priority.
        check_eq!(mmio::read32(priorities), found, "a stored word");
        let back = in_big_endian!("ldr w1, [x0]", priorities, 0);
        check_eq!(back, stored, "a word stored and loaded");
        let signed = in_big_endian!("ldrsw x1, [x0]", priorities, 0);
        check_eq!(signed, stored as u32 as i32 as u64, "a word extended");
    }
    let _ = in_big_endian!("strb w1, [x0]", priorities + 1, 0xf8);
    check_eq!(mmio::read32(priorities), 0xb0a0_f880, "a stored byte");
    let byte = in_big_endian!("ldrb w1, [x0]", priorities + 1, 0);
    check_eq!(byte, 0xf8, "a loaded byte");
    mmio::write32(priorities, before);
    // Beyond x15 the vectors take another way.
    let far: u64;
    let sctlr = mrs!("sctlr_el1");
    // SAFETY: as in the macro.
    unsafe {
        asm!("msr sctlr_el1, {off}", "isb", "ldr w20, [x0]", "msr sctlr_el1, {on}", "isb",
            off = in(reg) sctlr & !SCTLR_CACHES | SCTLR_EE, on = in(reg) sctlr,
            in("x0") distributor + gic::PIDR2, out("x20") far, options(nostack))
    };
    check_eq!(far as u32, pidr2.swap_bytes(), "a load into x20");
    let route = distributor + gic::IROUTER + 8 * SPI;
    let before = mmio::read64(route);
    let _ = in_big_endian!("str x1, [x0]", route, cpu::affinity().swap_bytes());
    check_eq!(mmio::read64(route), cpu::affinity(), "a stored doubleword");
    mmio::write64(route, before);
    Ok(())
}

fn floating_point_survives() -> Outcome {
    const PATTERN: u64 = 0x3ff1_2345_6789_abcd;
    let mut wrong: u64 = 0;
    gic::enable(timer::VIRTUAL_INTID);
    for round in 0..200_u64 {
        let pattern = PATTERN ^ round << 40;
        // SAFETY: the soft-float target keeps nothing in these registers.
        unsafe {
            asm!(".arch_extension fp", ".arch_extension simd", "dup v0.2d, {p}", "dup v7.2d, {p}", "dup v31.2d, {p}",
                "msr fpcr, {f}", p = in(reg) pattern, f = in(reg) 0x0040_0000_u64, options(nostack))
        };
        let _ = psci::version();
        let _ = mmio::read32(machine().distributor());
        exception::mask();
        timer::arm_virtual(timer::now() + timer::frequency() / 20_000);
        insn!("wfi");
        timer::stop_virtual();
        let (a, b, c, f): (u64, u64, u64, u64);
        // SAFETY: as above.
        unsafe {
            asm!(".arch_extension fp", ".arch_extension simd", "umov {a}, v0.d[1]", "umov {b}, v7.d[0]",
                "umov {c}, v31.d[1]", "mrs {f}, fpcr", a = out(reg) a, b = out(reg) b, c = out(reg) c, f = out(reg) f,
                options(nostack))
        };
        wrong += u64::from([a, b, c] != [pattern; 3] || f != 0x0040_0000);
    }
    msr!("fpcr", 0);
    check_eq!(
        wrong,
        0,
        "rounds in which a floating-point register changed"
    );
    Ok(())
}

fn wfi_with_a_masked_interrupt() -> Outcome {
    gic::enable(timer::VIRTUAL_INTID);
    exception::mask();
    for _ in 0..100 {
        let deadline = timer::now() + timer::frequency() / 20_000;
        timer::arm_virtual(deadline);
        while timer::now() < deadline {
            insn!("wfi");
        }
        // It is pending now, and stays so: this WFI must not wait.
        insn!("wfi");
        timer::stop_virtual();
    }
    gic::disable(timer::VIRTUAL_INTID);
    Ok(())
}

fn wfe_and_wfit() -> Outcome {
    for _ in 0..1000 {
        insn!("sev");
        insn!("wfe");
        insn!("sevl");
        insn!("wfe");
        insn!("yield");
    }
    if mrs!("id_aa64isar2_el1") & 0xf != 2 {
        ignore!("no FEAT_WFxT");
    }
    for _ in 0..20 {
        let until = timer::now() + timer::frequency() / 20_000;
        // wfit x0; wfet x0
        check!(probe::run(0xd503_1020, until, 0).fault.is_none(), "wfit");
        insn!("sevl");
        check!(probe::run(0xd503_1000, until, 0).fault.is_none(), "wfet");
    }
    Ok(())
}

fn counters_agree() -> Outcome {
    for _ in 0..1000 {
        let before = timer::now();
        insn!("isb");
        let physical = mrs!("cntpct_el0");
        insn!("isb");
        let after = timer::now();
        check!(before <= after, "the virtual counter goes back");
        check!(physical != 0, "the physical counter is 0");
    }
    check!(
        timer::frequency() >= 1_000_000,
        "CNTFRQ_EL0 is {}",
        timer::frequency()
    );
    Ok(())
}
