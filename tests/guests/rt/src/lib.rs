//! The run-time of Bullpen's bare-metal EL1 guests: from the boot protocol to a list of tests.
//!
//! A guest is an arm64 `Image`. It finds its UART, GICv3, CPUs and PSCI conduit in the device tree it is given, so that
//! one image runs bare on QEMU, under Bullpen, under Xen and under KVM. It is an independent reading of the specifications
//! and shares no code with the hypervisor. A guest program is a `no_std`, `no_main` crate with one `guest!(main)`.
//!
//! Neighbours: `tests` (the harness on the host, which reads what [`suite`] prints).
#![no_std]

#[macro_use]
pub mod uart;
pub mod ask;
pub mod cpu;
mod entry;
pub mod exception;
pub mod gic;
pub mod machine;
pub mod mmio;
pub mod mmu;
pub mod probe;
pub mod psci;
pub mod stub;
pub mod suite;
pub mod sysreg;
pub mod timer;
pub mod user;
pub mod virtio;

pub use machine::{Machine, machine};

/// Names the function that a guest runs on its boot CPU; when it returns, the guest powers off.
#[macro_export]
macro_rules! guest {
    ($main:path) => {
        #[expect(unsafe_code, reason = "the run-time calls it by this name")]
        // SAFETY: one crate of a guest image defines this symbol: the one with its `guest!`.
        #[unsafe(no_mangle)]
        extern "Rust" fn guest_main() {
            $main()
        }
    };
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("PANIC {info}");
    println!("DONE 0 passed, 1 failed, 0 ignored");
    psci::system_off()
}
