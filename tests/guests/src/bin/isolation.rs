//! A guest that looks everywhere: at every page of the host's RAM and at the host's devices, which are none of its business.
//!
//! Whatever it is not given must be as if it were not there: an external abort at the very address, the loaded register left
//! as it was. Words: `host-mib=n`: the host has that much RAM. Best placed where the host has none.
#![no_std]
#![no_main]

use guest_rt::machine::Region;
use guest_rt::mmu::{self, Memory};
use guest_rt::probe::{self, Width};
use guest_rt::suite::{self, Outcome, Reason, Stop};
use guest_rt::{check, gic, guest, machine, tests};

guest!(main);

const PAGE: u64 = 4096;
/// Where the host's RAM begins.
const HOST_RAM: u64 = 0x4000_0000;
const MIB: u64 = 1 << 20;
/// What a guest has on a machine like QEMU's `virt` besides RAM and the GIC: its UART, RTC and vCPU hot-plug block.
const DEVICES: [Region; 3] = [
    Region {
        base: 0x0900_0000,
        size: 2 * 0x1_0000,
    },
    Region {
        base: 0x090c_0000,
        size: 0x1_0000,
    },
    // The empty virtio transports.
    Region {
        base: 0x0a00_0000,
        size: 32 * 0x200,
    },
];
/// The size of a GICv3's distributor.
const DISTRIBUTOR: u64 = 0x1_0000;
/// Where the machine's devices are: interrupt controllers, UARTs, RTC, GPIO, firmware configuration, virtio.
const DEVICE_AREA: core::ops::Range<u64> = 0x0800_0000..0x0b00_0000;
/// The windows below and above RAM are looked at in larger steps.
const STEP: u64 = 64 * 1024;

fn main() {
    gic::init_distributor();
    gic::init_cpu();
    suite::run(
        "isolation",
        tests![host_ram, host_devices, below_ram, far_above],
    );
}

fn ram() -> Result<Region, Stop> {
    let ram = machine().ram();
    ram.ok_or_else(|| Stop::Ignored(Reason::new(format_args!("the tree names no memory"))))
}

/// What the guest reads of the time that is stolen from its vCPUs (docs/guest.md).
const STOLEN_TIME: Region = Region {
    base: 0x090a_0000,
    size: PAGE,
};

/// Tells whether an address is one of this guest's own devices.
fn is_ours(address: u64) -> bool {
    let distributor = Region {
        base: machine().distributor(),
        size: DISTRIBUTOR,
    };
    let inside = |region: Region| (region.base..region.base + region.size).contains(&address);
    inside(distributor)
        || inside(STOLEN_TIME)
        || machine().redistributors().any(inside)
        || DEVICES.into_iter().any(inside)
}

/// Checks that nothing is at an address, which is seen at `virtual_address`.
fn nothing_at(address: u64, virtual_address: u64) -> Outcome {
    let seen = probe::load(virtual_address, Width::Double);
    check!(
        seen.is_external_abort(virtual_address) && seen.x0 == virtual_address,
        "a load at {address:#x} gave {:#x}: {:x?}",
        seen.x0,
        seen.fault
    );
    let seen = probe::store(virtual_address, Width::Double, u64::MAX);
    check!(
        seen.is_external_abort(virtual_address),
        "a store at {address:#x}: {:x?}",
        seen.fault
    );
    Ok(())
}

/// All of the host's RAM but what has the addresses of the guest's own: other guests, EL2, the bundle, page tables.
fn host_ram() -> Outcome {
    let ram = ram()?;
    let pages = machine().number("host-mib").unwrap_or(0) * MIB / PAGE;
    let others = (0..pages)
        .map(|page| HOST_RAM + page * PAGE)
        .filter(|page| !(ram.base..ram.base + ram.size).contains(page));
    let (mut count, mut gib, mut seen_at) = (0, 0, 0);
    for page in others {
        if page / mmu::GIB != gib {
            gib = page / mmu::GIB;
            seen_at = mmu::window(0, gib * mmu::GIB, Memory::Normal);
        }
        // Another word of each page.
        let offset = page / PAGE % 512 * 8;
        nothing_at(page + offset, seen_at + page % mmu::GIB + offset)?;
        count += 1;
    }
    check!(count > 0, "the host has no RAM but this guest's");
    Ok(())
}

/// The first and the last word of each page where the host has devices and this guest has none.
fn host_devices() -> Outcome {
    for page in DEVICE_AREA.step_by(PAGE as usize) {
        if !is_ours(page) {
            nothing_at(page, page)?;
            nothing_at(page + PAGE - 8, page + PAGE - 8)?;
        }
    }
    Ok(())
}

fn below_ram() -> Outcome {
    for address in (0..HOST_RAM).step_by(STEP as usize) {
        if !DEVICE_AREA.contains(&address) {
            nothing_at(address, address)?;
        }
    }
    Ok(())
}

/// A page of every GiB up to 512 GiB, where hosts have PCIe and more RAM.
fn far_above() -> Outcome {
    let first = (ram()?.base + ram()?.size) / mmu::GIB + 1;
    for gib in first..512 {
        let address = gib * mmu::GIB + gib * PAGE;
        if !machine()
            .redistributors()
            .any(|region| region.base / mmu::GIB == gib)
        {
            nothing_at(address, mmu::window(1, address, Memory::Device))?;
        }
    }
    Ok(())
}
