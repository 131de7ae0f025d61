//! What FWTS, the firmware test suite, says of what a guest is told: docs/fwts.md has the table.
//!
//! It takes minutes, so it runs with `cargo xtask test --full` only.
#![forbid(unsafe_code)]

use tests::machine::Machine;
use tests::{Vm, artefacts, linux};

/// Its tests of ACPI, of SMBIOS, and of the kernel's log. Those of EFI want a module that Debian's kernels leave out.
const TESTS: &str = "--acpitests dmicheck klog oops";
const RESULTS: &str = "/tmp/results.log";

/// The columns of its summary.
const COLUMNS: [&str; 6] = ["passed", "failed", "aborted", "warning", "skipped", "info"];

/// Runs FWTS in a guest, prints the row of the table, and checks that nothing failed.
fn judge(name: &str, kernel: &str, model: &str) {
    if !artefacts::full() {
        eprintln!("skipped: `cargo xtask test --full` runs it");
        return;
    }
    let vm = Vm::linux("linux", kernel)
        .text("initrd", &artefacts::initrd_fwts().to_string_lossy())
        .memory_mib(1024);
    let machine = Machine::new(name).cpus(2).model(model);
    let (mut running, _) = linux::boot(machine, vm);
    let console = &mut running.console;
    linux::run(console, "dmesg -n 1");
    let line = format!("fwts --quiet --results-output={RESULTS} {TESTS} < /dev/null");
    linux::run(console, &line);
    let complaints = linux::run(
        console,
        &format!("grep -A 4 -E '^(FAILED|WARNING|.* [Aa]borted)' {RESULTS}"),
    );
    let total = linux::run(console, &format!("grep '^Total:' {RESULTS}"));
    let numbers: Vec<u32> = total
        .split('|')
        .skip(1)
        .filter_map(|number| number.trim().parse().ok())
        .collect();
    println!("{kernel} on {model}: {numbers:?}\n{complaints}");
    assert_eq!(numbers.len(), COLUMNS.len(), "{total}");
    for (column, number) in COLUMNS.iter().zip(numbers) {
        match *column {
            "passed" => assert!(number > 100, "{number} passed"),
            "failed" | "warning" => assert_eq!(number, 0, "{column}: {complaints}"),
            _ => {}
        }
    }
}

macro_rules! judged {
    ($($name:ident: $kernel:literal, $model:literal;)+) => {
        $(
            #[test]
            fn $name() {
                judge(concat!("fwts-", stringify!($name)), $kernel, $model);
            }
        )+
    };
}

judged! {
    linux_6_12_on_cortex_a57: "linux-6.12", "cortex-a57";
    linux_6_12_on_neoverse_n1: "linux-6.12", "neoverse-n1";
    linux_6_12_on_max: "linux-6.12", "max,pauth=off";
    linux_7_2_on_cortex_a57: "linux-7.2", "cortex-a57";
    linux_7_2_on_neoverse_n1: "linux-7.2", "neoverse-n1";
    linux_7_2_on_max: "linux-7.2", "max,pauth=off";
}
