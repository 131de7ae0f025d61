//! The bars: what each row may cost, and what the best peers spend on the same work.
//!
//! Instructions, counted under `-icount shift=0` with a 1 GHz counter; the guest's own loop is included, and rows with two
//! CPUs are the sum over all CPUs. Xen: the best of 4.17.7, 4.20.4 and 4.22.0 with the schedulers credit2 and null, on
//! cortex-a57, built and started at its best. KVM: Linux 6.12, the best of VHE and nVHE on four CPU models, kvmtool as
//! VMM. docs/bench.md says what each row does.

/// One row of the table, as far as it is known before anything is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bar {
    /// The row's name, as the bench guest prints it.
    pub(crate) row: &'static str,
    /// The operation, for a person.
    pub(crate) what: &'static str,
    /// What it may cost, or `None` where no bar has been agreed on: then it is measured and kept from growing.
    pub(crate) bar: Option<u64>,
    /// The best Xen.
    pub(crate) xen: Option<u64>,
    /// The best KVM.
    pub(crate) kvm: Option<u64>,
}

const fn bar(
    row: &'static str,
    what: &'static str,
    bar: u64,
    xen: Option<u64>,
    kvm: Option<u64>,
) -> Bar {
    Bar {
        row,
        what,
        bar: Some(bar),
        xen,
        kvm,
    }
}

const fn measured(row: &'static str, what: &'static str) -> Bar {
    Bar {
        row,
        what,
        bar: None,
        xen: None,
        kvm: None,
    }
}

/// The rows in the order in which they are shown.
pub(crate) const BARS: [Bar; 54] = [
    bar(
        "hvc-psci-version",
        "HVC PSCI_VERSION, round trip",
        60,
        Some(418),
        Some(1360),
    ),
    bar(
        "hvc-affinity-info",
        "HVC AFFINITY_INFO, round trip",
        100,
        Some(479),
        Some(1556),
    ),
    bar(
        "hvc-unknown",
        "HVC of an unknown function",
        80,
        Some(1591),
        Some(1297),
    ),
    bar(
        "gicd-typer-read",
        "GICD_TYPER read",
        150,
        Some(564),
        Some(2137),
    ),
    bar(
        "gicd-isenabler-write",
        "GICD_ISENABLER write",
        220,
        Some(702),
        None,
    ),
    measured("gicr-typer-read", "GICR_TYPER read"),
    bar(
        "pl011-fr-read",
        "PL011 flag register read",
        150,
        Some(605),
        Some(6249),
    ),
    bar("id-register-read", "ID register read", 60, Some(369), None),
    measured("physical-timer-write", "CNTP_CVAL_EL0 write"),
    measured("disk-notify", "virtio notification, nothing in the queue"),
    bar(
        "disk-read-4k",
        "4 KiB read from a disk of the bundle",
        2000,
        None,
        None,
    ),
    bar(
        "disk-write-4k",
        "4 KiB written to a page of a disk",
        2000,
        None,
        None,
    ),
    measured("disk-read-4k-irq", "4 KiB read, and its interrupt pending"),
    bar(
        "sgi-self",
        "SGI to self -> handler",
        200,
        Some(960),
        Some(2819),
    ),
    bar(
        "vtimer-spinning",
        "virtual timer -> handler, spinning",
        200,
        Some(1008),
        Some(2676),
    ),
    bar(
        "vtimer-wfi",
        "virtual timer -> handler, in WFI, own CPU",
        220,
        Some(1024),
        Some(8620),
    ),
    bar(
        "vtimer-wfi-shared",
        "the same, CPU shared with an idle vCPU",
        450,
        Some(4192),
        Some(8620),
    ),
    measured("cpu-suspend-resume", "CPU_SUSPEND -> resumed by the timer"),
    measured("cpu-suspend-resume-shared", "the same, CPU shared"),
    bar(
        "sgi-to-wfi",
        "SGI to a vCPU in WFI -> its handler, own CPU",
        350,
        Some(1488),
        Some(3981),
    ),
    bar(
        "sgi-to-wfi-shared",
        "the same, CPU shared",
        600,
        Some(4432),
        Some(11606),
    ),
    bar(
        "sgi-ping-pong-wfi",
        "SGI ping-pong, both in WFI, round trip",
        700,
        Some(3100),
        None,
    ),
    measured("sgi-ping-pong-wfi-shared", "the same, CPUs shared"),
    bar(
        "cpu-on-first-instruction",
        "CPU_ON -> first instruction of the target",
        450,
        Some(3928),
        Some(32775),
    ),
    measured("cpu-on-first-instruction-shared", "the same, CPUs shared"),
    bar(
        "cpu-off-to-affinity-off",
        "CPU_OFF -> AFFINITY_INFO says OFF",
        420,
        Some(3155),
        Some(6182),
    ),
    measured("cpu-off-to-affinity-off-shared", "the same, CPUs shared"),
    bar(
        "sgi-switch-shared",
        "two vCPUs on one CPU: SGI + switch",
        940,
        Some(5260),
        None,
    ),
    measured(
        "sgi-switch-ping-pong-shared",
        "two vCPUs on one CPU: SGI and back",
    ),
    measured(
        "vtimer-contended-shared",
        "virtual timer -> handler, CPU shared with a busy vCPU",
    ),
    measured(
        "sgi-contended-shared",
        "SGI -> handler, CPU shared with a busy vCPU",
    ),
    bar(
        "host-boot",
        "host boot -> first guest instruction, 1 CPU, 1 GiB",
        1_000_000,
        Some(18_000_000),
        None,
    ),
    bar(
        "linux-boot-exits",
        "exits in a quiet one-vCPU Linux boot",
        1_500,
        Some(54_900),
        None,
    ),
    measured(
        "linux-idle-exits",
        "exits in an idle minute of Linux, one vCPU",
    ),
    bar(
        "linux-off-on-traps",
        "traps in one Linux offline + online cycle",
        80,
        None,
        Some(297),
    ),
    measured(
        "linux-off-on-traps-hidden",
        "the same where features are hidden: ID registers trap",
    ),
    measured(
        "linux-off-on-exits",
        "all exits in one Linux offline + online cycle",
    ),
    measured("resize-to-ged", "resize command -> GED handler"),
    measured("ged-to-cpu-on", "GED handler -> CPU_ON called"),
    measured(
        "cpu-on-to-first",
        "CPU_ON -> first instruction of the added vCPU",
    ),
    // Half of what was measured first, 15,673, and what it takes since that commands are carried out where the host tests them.
    bar(
        "resize-to-first",
        "resize command -> first instruction, in all",
        8_000,
        None,
        None,
    ),
    measured("eject-to-ged", "eject command -> GED handler"),
    measured("ged-to-off", "GED handler -> the vCPU is off"),
    measured("ej0", "_EJ0: the hot-plug block's EJECT write"),
    measured("eject-to-free", "eject command -> CPU free, in all"),
    measured(
        "resize-to-ged-psci-off",
        "resize command -> GED handler (psci-off)",
    ),
    measured(
        "ged-to-cpu-on-psci-off",
        "GED handler -> CPU_ON called (psci-off)",
    ),
    measured(
        "cpu-on-to-first-psci-off",
        "CPU_ON -> first instruction of the added vCPU (psci-off)",
    ),
    measured(
        "resize-to-first-psci-off",
        "resize command -> first instruction, in all (psci-off)",
    ),
    measured(
        "eject-to-ged-psci-off",
        "eject command -> GED handler (psci-off)",
    ),
    measured(
        "ged-to-off-psci-off",
        "GED handler -> the vCPU is off (psci-off)",
    ),
    measured("ej0-psci-off", "_EJ0: the EJECT write (psci-off)"),
    measured(
        "eject-to-free-psci-off",
        "eject command -> CPU free, in all (psci-off)",
    ),
    measured(
        "linux-resize-online",
        "Linux: resize command -> vCPU online, ns",
    ),
];

/// Finds what is known of a row.
pub(crate) fn of(row: &str) -> Option<&'static Bar> {
    BARS.iter().find(|bar| bar.row == row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_stands_there_twice() {
        for (at, bar) in BARS.iter().enumerate() {
            assert!(
                BARS[..at].iter().all(|other| other.row != bar.row),
                "{}",
                bar.row
            );
        }
    }

    #[test]
    fn every_bar_is_below_the_best_peer() {
        for bar in BARS {
            for peer in [bar.xen, bar.kvm].into_iter().flatten() {
                assert!(bar.bar.is_some_and(|bar| bar < peer), "{}", bar.row);
            }
        }
    }
}
