//! The bench guest: what each operation costs, in nanoseconds of the virtual counter.
//!
//! Under QEMU's `-icount shift=0,sleep=off` one nanosecond is one instruction, on all CPUs together. A line a row:
//! `BENCH row min median p99 max spread n`, preceded by `BENCH-INFO key=value …`; `BENCH-NOTE text` says what else a
//! reader should know. Round trips include the guest's own loop: the operation, its operands, and a two-instruction loop. Before each sample every other CPU is in WFI.
//!
//! Words on the command line: `rows=a,b` picks rows; `shared` says that vCPUs 0 and 2, and 1 and 3, share a CPU, so that
//! the rows that depend on it are measured so and end in `-shared`; `samples=n` (at most 4096; 1000 by default);
//! `disk` says that slot 0 has a virtio disk that may be written, for the rows `disk-…`;
//! `elastic asked` measures the phases of adding a vCPU and giving it back instead, which takes a harness that answers,
//! and `reserve-off` with them that the vCPU's CPU is off meanwhile;
//! `cycles` counts cycles of the PMU in place of nanoseconds, for the rows that begin and end on one CPU.
//!
//! Neighbours: `cycles` (the PMU), `elastic` (a vCPU that comes and goes), `paths` (the measured code), `report` (statistics), `rows` (what is measured).
#![no_std]
#![no_main]

mod cycles;
mod elastic;
mod paths;
mod report;
mod rows;

use guest_rt::{gic, guest, machine, println, timer};

guest!(main);

fn main() {
    gic::init_distributor();
    gic::init_cpu();
    paths::install_vectors();
    println!(
        "BENCH-INFO cntfrq={} cpus={} conduit={:?} unit={} shared={}",
        timer::frequency(),
        machine().cpus().len(),
        machine().conduit(),
        if machine().word("cycles") {
            "cycles"
        } else {
            "ns"
        },
        machine().word("shared")
    );
    if machine().word("cycles") && !cycles::start() {
        println!("BENCH-FAILED cycles: this CPU shows no PMU");
        println!("DONE 0 passed, 1 failed, 0 ignored");
        return;
    }
    let (count, failed) = rows::with_samples(|samples| {
        if machine().word("elastic") {
            elastic::run(samples)
        } else {
            (rows::count(), rows::run_all(samples))
        }
    });
    println!("DONE {} passed, {failed} failed, 0 ignored", count - failed);
}
