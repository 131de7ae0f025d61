//! The half of the hypervisor that acts: all assembly, all `unsafe`, all system-register writes.
//!
//! The order of a start, each line done by the module it names:
//! 1. `image_header`: relocate, clear .bss, first stack; as an EFI application also `efi`, which takes leave of firmware
//! 2. `boot`: MMU on, device tree read, UART, RAM, interrupt controller
//! 3. `smp`: guarded stacks, the other CPUs
//! 4. `vms`: the VMs of the bundle made and started
//! 5. `cpu`: every CPU is driven by `vmm::cpu`, which picks a vCPU, enters it through `switch` and `vectors`, and acts on its exit
//!
//! A trap goes `vectors` -> `hot` (most end there) -> `vmm::cpu` -> `vmm::dispatch` and back.
#![no_std]
#![no_main]

extern crate alloc;

mod boot;
mod cache;
mod clock;
mod console;
mod copy;
mod cpu;
mod cpu_features;
mod debug;
mod deferred;
mod efi;
mod fpsimd;
mod gic;
mod guest_memory;
mod heap;
mod hot;
mod image_header;
mod layout;
mod lent;
mod logger;
mod machine;
mod memory;
mod mmio;
mod mmu;
mod panic;
mod percpu;
mod pmu;
mod power;
mod seeds;
mod smc;
mod smp;
mod switch;
mod sysreg;
mod timer;
mod tlb;
mod uart;
mod vectors;
mod vms;
