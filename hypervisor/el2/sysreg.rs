//! The system registers that EL2 uses, by the manual's names, and the barriers that order accesses to them.
//!
//! A register stands in the table once, with what may be done with it, and its encoding where the assembler does not know the name.
//! To write it is `unsafe` where EL2 itself hangs on the value: its translation, vectors, return state and own data, what keeps a guest
//! in its memory, what traps and what interrupts reach EL2. The caller says what makes the value right. The other registers hold a
//! guest's own state, or time and counters, which change nothing for EL2.
//!
//! Fields have the names of `aarch64-cpu` where EL2 composes a value (`mmu`). Accesses go through no crate: safe code may write SCTLR_EL2
//! with `aarch64-cpu`, and MDCR_EL2, CNTHCTL_EL2 and ICC_IGRPEN1_EL1 with `arm-sysregs` 0.5, and
//! both tell the compiler that such a write touches no memory, so that it may move accesses to a guest's state across the write that
//! changes whose state that is. `arm-sysregs` has no list registers, breakpoints or event counters, and its fakes would test nothing
//! here: what decides is `vmm`, over `vmm::cpu::Machine`.
#![expect(unsafe_code, reason = "system-register access")]

/// The functions of a register: the assembler's name, behind the word of its group in the table.
///
/// Not marked `nomem`: the compiler must not move accesses to a guest's state across the write that changes whose state that is.
macro_rules! functions {
    (read, $name:expr) => {
        /// Reads the register.
        #[inline(always)]
        pub(crate) fn read() -> u64 {
            let value;
            // SAFETY: reading a register of the table has no side effect; each is there on every CPU, or is read behind the field of
            // an ID register that announces it.
            unsafe { core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack, preserves_flags)) };
            value
        }
    };
    (write, $name:expr $(, $guard:tt)?) => {
        /// Writes the register.
        ///
        /// # Safety
        /// Where it is `unsafe`: EL2 must be able to go on with the value, and the guests must stay in their bounds.
        #[inline(always)]
        pub(crate) $($guard)? fn write(value: u64) {
            // SAFETY: the caller's, or the table has it among those whose value changes nothing for EL2.
            unsafe { core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags)) };
        }
    };
    (guarded_write, $name:expr) => {
        functions!(write, $name, unsafe);
    };
    // Several of one name: the number is an argument.
    (numbered_read_write, $name:expr) => {
        /// Reads the register of this number.
        #[inline(always)]
        pub(crate) fn read<const N: usize>() -> u64 {
            let value;
            // SAFETY: as for one without a number; that it is there says a register with their count.
            unsafe { core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, n = const N, options(nostack, preserves_flags)) };
            value
        }

        /// Writes the register of this number.
        #[inline(always)]
        pub(crate) fn write<const N: usize>(value: u64) {
            // SAFETY: the table has it among those whose value changes nothing for EL2.
            unsafe { core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, n = const N, options(nostack, preserves_flags)) };
        }
    };
    (read_write, $name:expr) => {
        functions!(read, $name);
        functions!(write, $name);
    };
    (read_guarded_write, $name:expr) => {
        functions!(read, $name);
        functions!(guarded_write, $name);
    };
}

macro_rules! assembler_name {
    ($name:ident) => {
        stringify!($name)
    };
    ($name:ident $encoding:literal) => {
        $encoding
    };
}

macro_rules! registers {
    ($($access:ident { $($name:ident $($encoding:literal)?),+ $(,)? })+) => {
        $($(
            pub(crate) mod $name {
                functions!($access, assembler_name!($name $($encoding)?));
            }
        )+)+
    };
}

registers! {
    // What this CPU is and has, the counters, and what a guest left EL2 to find out (Arm ARM D19.2, D19.12).
    read {
        ccsidr_el1, clidr_el1, cntfrq_el0, cntpct_el0, cntvct_el0, ctr_el0, currentel, esr_el2, far_el2, hpfar_el2, isr_el1, midr_el1,
        mpidr_el1,
        id_pfr0_el1 "S3_0_C0_C1_0", id_pfr1_el1 "S3_0_C0_C1_1", id_dfr0_el1 "S3_0_C0_C1_2", id_afr0_el1 "S3_0_C0_C1_3",
        id_mmfr0_el1 "S3_0_C0_C1_4", id_mmfr1_el1 "S3_0_C0_C1_5", id_mmfr2_el1 "S3_0_C0_C1_6", id_mmfr3_el1 "S3_0_C0_C1_7",
        id_isar0_el1 "S3_0_C0_C2_0", id_isar1_el1 "S3_0_C0_C2_1", id_isar2_el1 "S3_0_C0_C2_2", id_isar3_el1 "S3_0_C0_C2_3",
        id_isar4_el1 "S3_0_C0_C2_4", id_isar5_el1 "S3_0_C0_C2_5", id_mmfr4_el1 "S3_0_C0_C2_6", id_isar6_el1 "S3_0_C0_C2_7",
        mvfr0_el1 "S3_0_C0_C3_0", mvfr1_el1 "S3_0_C0_C3_1", mvfr2_el1 "S3_0_C0_C3_2",
        id_pfr2_el1 "S3_0_C0_C3_4", id_dfr1_el1 "S3_0_C0_C3_5", id_mmfr5_el1 "S3_0_C0_C3_6",
        id_aa64pfr0_el1 "S3_0_C0_C4_0", id_aa64pfr1_el1 "S3_0_C0_C4_1", id_aa64pfr2_el1 "S3_0_C0_C4_2",
        id_aa64zfr0_el1 "S3_0_C0_C4_4", id_aa64smfr0_el1 "S3_0_C0_C4_5",
        id_aa64dfr0_el1 "S3_0_C0_C5_0", id_aa64dfr1_el1 "S3_0_C0_C5_1",
        id_aa64afr0_el1 "S3_0_C0_C5_4", id_aa64afr1_el1 "S3_0_C0_C5_5",
        id_aa64isar0_el1 "S3_0_C0_C6_0", id_aa64isar1_el1 "S3_0_C0_C6_1", id_aa64isar2_el1 "S3_0_C0_C6_2",
        id_aa64isar3_el1 "S3_0_C0_C6_3",
        id_aa64mmfr0_el1 "S3_0_C0_C7_0", id_aa64mmfr1_el1 "S3_0_C0_C7_1", id_aa64mmfr2_el1 "S3_0_C0_C7_2",
        id_aa64mmfr3_el1 "S3_0_C0_C7_3", id_aa64mmfr4_el1 "S3_0_C0_C7_4",
    }
    // A guest's EL1 and EL0, where EL2 has registers of its own (Arm ARM D19.2, D19.9).
    read_write {
        afsr0_el1, afsr1_el1, amair_el1, contextidr_el1, cntkctl_el1, cpacr_el1, csselr_el1, elr_el1, esr_el1, far_el1, mair_el1,
        mdscr_el1, par_el1, sctlr_el1, sp_el0, sp_el1, spsr_el1, tcr_el1, tpidr_el0, tpidr_el1, tpidrro_el0, ttbr0_el1, ttbr1_el1,
        vbar_el1,
        fpcr "S3_3_C4_C4_0", fpsr "S3_3_C4_C4_1",
        apiakeylo_el1 "S3_0_C2_C1_0", apiakeyhi_el1 "S3_0_C2_C1_1", apibkeylo_el1 "S3_0_C2_C1_2", apibkeyhi_el1 "S3_0_C2_C1_3",
        apdakeylo_el1 "S3_0_C2_C2_0", apdakeyhi_el1 "S3_0_C2_C2_1", apdbkeylo_el1 "S3_0_C2_C2_2", apdbkeyhi_el1 "S3_0_C2_C2_3",
        apgakeylo_el1 "S3_0_C2_C3_0", apgakeyhi_el1 "S3_0_C2_C3_1",
    }
    // What a guest takes for its CPU's number and time.
    write { cntvoff_el2, vmpidr_el2, vpidr_el2 }
    // Timers: the guest's, and the one that wakes EL2 (Arm ARM D19.12).
    read_write { cntp_ctl_el0, cntp_cval_el0, cntv_ctl_el0, cntv_cval_el0 }
    write { cnthp_ctl_el2, cnthp_cval_el2 }
    // The PMU, which counts at EL2 or not as MDCR_EL2 says (Arm ARM D19.4).
    read_write {
        pmccfiltr_el0, pmccntr_el0, pmcntenset_el0, pmcr_el0, pmintenset_el1, pmovsset_el0, pmselr_el0, pmuserenr_el0, pmxevcntr_el0,
        pmxevtyper_el0,
    }
    write { pmcntenclr_el0, pmintenclr_el1, pmovsclr_el0 }
    // Debug registers: none of their exceptions is taken at EL2 while MDCR_EL2.TDE is clear (Arm ARM D19.3).
    numbered_read_write {
        dbgbcr_el1 "dbgbcr{n}_el1", dbgbvr_el1 "dbgbvr{n}_el1", dbgwcr_el1 "dbgwcr{n}_el1", dbgwvr_el1 "dbgwvr{n}_el1",
    }
    write { dbgclaimclr_el1, mdccint_el1, osdlr_el1, osdtrtx_el1, oslar_el1 }
    // A guest's GIC CPU interface (GIC IHI0069, 12.4). A list register ends no physical interrupt but the one that EL2 has named in it.
    read { ich_eisr_el2, ich_elrsr_el2, ich_vtr_el2 }
    read_write { icc_sre_el1, ich_vmcr_el2 }
    numbered_read_write { ich_ap0r_el2 "ich_ap0r{n}_el2", ich_ap1r_el2 "ich_ap1r{n}_el2", ich_lr_el2 "ich_lr{n}_el2" }
    // One interrupt more or less: EL2 looks for itself what an interrupt may be about (GIC IHI0069, 12.2).
    write { icc_dir_el1, icc_eoir1_el1, icc_sgi1r_el1 }

    // Which interrupts reach EL2, and when its guest's interface asks for attention (GIC IHI0069, 12.2 and 12.4).
    read_guarded_write { icc_ctlr_el1, ich_hcr_el2 }
    guarded_write {
        icc_ap1r0_el1, icc_ap1r1_el1, icc_ap1r2_el1, icc_ap1r3_el1, icc_bpr1_el1, icc_igrpen1_el1, icc_pmr_el1, icc_sre_el2,
    }
    // EL2's own translation, vectors and data, and where its return leads to (Arm ARM D8.2, D19.2).
    read_guarded_write { elr_el2, mair_el2, sctlr_el2, spsr_el2, tcr_el2, tpidr_el2, ttbr0_el2, vbar_el2 }
    // Stage 2, and what traps (Arm ARM D8.2, D19.2, D19.3.15).
    read_guarded_write { hcr_el2 }
    guarded_write {
        actlr_el2, cnthctl_el2, cptr_el2, hstr_el2, mdcr_el2, vtcr_el2, vttbr_el2,
        hacr_el2 "S3_4_C1_C1_7", hcrx_el2 "S3_4_C1_C2_2",
        hfgrtr_el2 "S3_4_C1_C1_4", hfgwtr_el2 "S3_4_C1_C1_5", hfgitr_el2 "S3_4_C1_C1_6",
        hdfgrtr_el2 "S3_4_C3_C1_4", hdfgwtr_el2 "S3_4_C3_C1_5", hafgrtr_el2 "S3_4_C3_C1_6",
        hdfgrtr2_el2 "S3_4_C3_C1_0", hdfgwtr2_el2 "S3_4_C3_C1_1", hfgrtr2_el2 "S3_4_C3_C1_2", hfgwtr2_el2 "S3_4_C3_C1_3",
        hfgitr2_el2 "S3_4_C3_C1_7",
    }
}

macro_rules! instructions {
    ($($(#[$about:meta])* $name:ident $($text:literal)+;)+) => {
        $(
            $(#[$about])*
            #[inline(always)]
            pub(crate) fn $name() {
                // SAFETY: barriers, hints and a sleep that any interrupt ends change no state.
                unsafe { core::arch::asm!($($text),+, options(nostack, preserves_flags)) }
            }
        )+
    };
}

instructions! {
    /// Issues an instruction synchronisation barrier.
    isb "isb";
    /// Waits until every access before it is complete for the inner-shareable domain.
    dsb_ish "dsb ish";
    /// Waits until every access before it is complete for the whole system.
    dsb_sy "dsb sy";
    /// Waits until every store before it is complete for the inner-shareable domain.
    dsb_ishst "dsb ishst";
    /// Sleeps until an interrupt is pending, and shows stores before; interrupts are masked at EL2, so nothing is taken.
    wfi "dsb sy" "wfi";
    /// Lets another CPU go first: on QEMU with one thread for all CPUs, that is what ends this one's turn.
    yield_hint "yield";
}

/// Reads ICC_IAR1_EL1 and waits until the acknowledge has had its effect (GIC IHI0069, 4.1.1).
///
/// Without the barrier a load that follows may be done before the read: a message posted in between would be missed, and its kick
/// taken. The write of an interrupt's active state that follows would race with the acknowledge. One block, so that nothing comes between.
#[inline(always)]
pub(crate) fn acknowledge_interrupt() -> u64 {
    let value: u64;
    // SAFETY: the read activates an interrupt, which `gic` ends; memory is not touched.
    unsafe {
        core::arch::asm!("mrs {}, ICC_IAR1_EL1", "dsb sy", out(reg) value, options(nostack, preserves_flags))
    };
    value
}
