//! Memory as a careless or hostile guest touches it: holes, devices with the wrong instruction, edges, other people's.
//!
//! Words: `bare` leaves out what only a hypervisor does.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use guest_rt::exception::Fault;
use guest_rt::machine::Region;
use guest_rt::mmu::{self, Memory};
use guest_rt::probe::{self, Observation, Width};
use guest_rt::suite::{self, Outcome, Reason, Stop};
use guest_rt::{check, check_eq, cpu, gic, guest, ignore, machine, mrs, psci, tests, timer, uart};

guest!(main);

/// Fault status of an alignment fault (DDI0487, ISS encoding of an abort).
const ALIGNMENT: u64 = 0x21;
/// Fault status of an unsupported exclusive or atomic access.
const UNSUPPORTED_EXCLUSIVE: u64 = 0x35;
/// Last page of a GICD frame: identification registers, which ignore writes.
const READ_ONLY_REGISTERS: u64 = 0xffe0;

fn main() {
    gic::init_distributor();
    gic::init_cpu();
    suite::run(
        "memory",
        tests![
            hole_above_ram,
            holes_below_ram,
            every_width_in_a_hole,
            addresses_out_of_range,
            virtio_transports_are_empty,
            mmio_without_syndrome,
            cache_maintenance_of_mmio,
            cache_maintenance_of_a_hole,
            zeroing_a_hole,
            fetch_from_a_hole,
            fetch_from_mmio,
            table_in_a_hole,
            straddling_the_end_of_ram,
            all_of_ram_is_there,
            ram_is_coherent_between_cpus,
            atomics_between_cpus,
        ],
    );
}

fn bare() -> bool {
    machine().word("bare")
}

fn ram() -> Result<Region, Stop> {
    machine()
        .ram()
        .ok_or_else(|| Stop::Ignored(Reason::new(format_args!("the tree names no memory"))))
}

/// Maps the first byte after RAM.
fn after_ram(memory: Memory) -> Result<u64, Stop> {
    let ram = ram()?;
    Ok(mmu::window(0, ram.base + ram.size, memory))
}

fn hole_above_ram() -> Outcome {
    let address = after_ram(Memory::Device)?;
    for offset in [0, 8, 0xffc, 0x1000, 0x10_0000, 0x123_4560] {
        let seen = probe::load(address + offset, Width::Word);
        check!(
            seen.is_external_abort(address + offset),
            "load at +{offset:#x}: {:x?}",
            seen.fault
        );
        let seen = probe::store(address + offset, Width::Word, 1);
        check!(
            seen.is_external_abort(address + offset),
            "store at +{offset:#x}: {:x?}",
            seen.fault
        );
    }
    Ok(())
}

fn holes_below_ram() -> Outcome {
    if bare() {
        ignore!("the bare machine has devices there");
    }
    // Where QEMU's virt machine has flash, fw_cfg, GPIO, PCIe and platform bus, none of which a guest is given.
    for hole in [
        0,
        0x0400_0000,
        0x0902_0000,
        0x0c00_0000,
        0x1000_0000,
        0x3eff_0000,
        0x3fff_f000,
    ] {
        for (name, seen) in [
            ("load", probe::load(hole, Width::Word)),
            ("store", probe::store(hole, Width::Word, 1)),
        ] {
            check!(
                seen.is_external_abort(hole),
                "{name} at {hole:#x}: {:x?} {:#x}",
                seen.fault,
                seen.x0
            );
        }
    }
    Ok(())
}

fn every_width_in_a_hole() -> Outcome {
    let address = after_ram(Memory::Normal)? + 0x2000;
    for width in Width::ALL {
        for unaligned in [0, 1, 3, 7] {
            let at = address + unaligned;
            let seen = probe::load(at, width);
            check!(
                seen.is_external_abort(at),
                "load of {width:?} at +{unaligned}: {:x?}",
                seen.fault
            );
            let seen = probe::store(at, width, u64::MAX);
            check!(
                seen.is_external_abort(at),
                "store of {width:?} at +{unaligned}: {:x?}",
                seen.fault
            );
        }
    }
    Ok(())
}

fn addresses_out_of_range() -> Outcome {
    if bare() {
        ignore!("the bare machine has PCIe there");
    }
    for bit in [39_u32, 40, 43, 44, 47] {
        let address = mmu::window(1, 1 << bit | 0x1000, Memory::Device);
        let seen = probe::load(address, Width::Double);
        let Some(fault) = seen.fault else {
            check!(false, "2^{bit} can be read: {:#x}", seen.x0);
            return Ok(());
        };
        // External abort, or an address-size fault of any level.
        let expected = fault.status() == Fault::SYNCHRONOUS_EXTERNAL || fault.status() < 4;
        check!(
            seen.exact && fault.class() == Fault::DATA_ABORT && expected,
            "2^{bit}: {fault:x?}"
        );
        check_eq!(fault.far, address, "FAR_EL1 at 2^{bit}");
    }
    Ok(())
}

/// QEMU's virt has 32 virtio-mmio transports, and software made for it reads them without asking the tree. One with no device
/// behind it says so by DeviceID 0 (VIRTIO 1.2, 4.2.2).
fn virtio_transports_are_empty() -> Outcome {
    const TRANSPORTS: u64 = 0x0a00_0000;
    const STRIDE: u64 = 0x200;
    const COUNT: u64 = 32;
    const MAGIC: u64 = 0x000;
    const VERSION: u64 = 0x004;
    const DEVICE_ID: u64 = 0x008;
    const VENDOR_ID: u64 = 0x00c;

    if machine().distributor() != 0x0800_0000 {
        ignore!("this machine's map is not QEMU virt's");
    }
    for transport in (0..COUNT).map(|index| TRANSPORTS + index * STRIDE) {
        for offset in (0..STRIDE).step_by(4) {
            let seen = probe::load(transport + offset, Width::Word);
            let at = transport + offset;
            check!(seen.fault.is_none(), "load at {at:#x}: {:x?}", seen.fault);
            let expected = match offset {
                MAGIC => 0x7472_6976,
                // The bare machine's are of the legacy kind, and QEMU names itself.
                VERSION if bare() => seen.x0.clamp(1, 2),
                VENDOR_ID if bare() => seen.x0,
                VERSION => 2,
                _ => 0,
            };
            check_eq!(seen.x0, expected, "{at:#x}");
        }
        for offset in (0..STRIDE).step_by(4) {
            let seen = probe::store(transport + offset, Width::Word, u64::MAX);
            let at = transport + offset;
            check!(seen.fault.is_none(), "store at {at:#x}: {:x?}", seen.fault);
        }
        let seen = probe::load(transport + DEVICE_ID, Width::Word);
        check_eq!(seen.x0, 0, "DeviceID after a store");
    }
    if bare() {
        return Ok(());
    }
    for hole in [TRANSPORTS - 4, TRANSPORTS + COUNT * STRIDE] {
        let seen = probe::load(hole, Width::Word);
        check!(
            seen.is_external_abort(hole),
            "beside them: {:x?}",
            seen.fault
        );
    }
    Ok(())
}

/// Instructions whose trap carries no syndrome, with x0 the address and x1 free (DDI0487: ISV is 0).
const WITHOUT_SYNDROME: [(&str, u32); 17] = [
    ("ldp x1, xzr, [x0]", 0xa940_7c01),
    ("stp xzr, xzr, [x0]", 0xa900_7c1f),
    ("ldp w1, wzr, [x0]", 0x2940_7c01),
    ("ldnp x1, xzr, [x0]", 0xa840_7c01),
    ("ldpsw x1, xzr, [x0]", 0x6940_7c01),
    ("ldr w1, [x0], #4", 0xb840_4401),
    ("ldr w1, [x0, #4]!", 0xb840_4c01),
    ("str wzr, [x0], #4", 0xb800_441f),
    ("ldxr w1, [x0]", 0x885f_7c01),
    ("ldaxr x1, [x0]", 0xc85f_fc01),
    ("stxr w1, wzr, [x0]", 0x8801_7c1f),
    ("ldr q0, [x0]", 0x3dc0_0000),
    ("str q0, [x0]", 0x3d80_0000),
    ("ldr s0, [x0]", 0xbd40_0000),
    ("ld1 {v0.4s}, [x0]", 0x4c40_7800),
    ("st1 {v0.s}[0], [x0]", 0x0d00_8000),
    ("ldr w1, [x0, #1]", 0xb840_1001),
];

/// The same for CPUs with FEAT_LSE.
const ATOMICS: [(&str, u32); 4] = [
    ("ldadd wzr, w1, [x0]", 0xb83f_0001),
    ("swp wzr, w1, [x0]", 0xb83f_8001),
    ("cas wzr, wzr, [x0]", 0x88bf_7c1f),
    ("stadd wzr, [x0]", 0xb83f_001f),
];

/// Tells whether an access went through, or was refused in a way that names it exactly.
fn settled(seen: &Observation, address: u64) -> bool {
    let Some(fault) = seen.fault else { return true };
    let status = [
        Fault::SYNCHRONOUS_EXTERNAL,
        ALIGNMENT,
        UNSUPPORTED_EXCLUSIVE,
    ]
    .contains(&fault.status());
    // Pre-indexed and unscaled forms above go up to 4 bytes further.
    let near = (address..address + 5).contains(&fault.far);
    seen.exact && fault.class() == Fault::DATA_ABORT && status && near
}

fn mmio_without_syndrome() -> Outcome {
    let has_atomics = mrs!("id_aa64isar0_el1") >> 20 & 0xf >= 2;
    let frame = machine().distributor() + READ_ONLY_REGISTERS;
    for memory in [Memory::Device, Memory::Uncached] {
        let address = mmu::window(2, frame, memory);
        for (name, instruction) in WITHOUT_SYNDROME {
            let seen = probe::run(instruction, address, 0);
            check!(settled(&seen, address), "{name}: {:x?}", seen.fault);
        }
        for (name, instruction) in ATOMICS {
            if has_atomics {
                let seen = probe::run(instruction, address, 0);
                check!(settled(&seen, address), "{name}: {:x?}", seen.fault);
            }
        }
    }
    Ok(())
}

/// Cache maintenance by address, with x0 the address.
const MAINTENANCE: [(&str, u32); 6] = [
    ("dc ivac", 0xd508_7620),
    ("dc cvac", 0xd50b_7a20),
    ("dc cvau", 0xd50b_7b20),
    ("dc civac", 0xd50b_7e20),
    ("ic ivau", 0xd50b_7520),
    ("prfm pldl1keep", 0xf980_0000),
];

fn maintain(address: u64) -> Outcome {
    for (name, instruction) in MAINTENANCE {
        let seen = probe::run(instruction, address, 0);
        check!(
            seen.fault.is_none() || seen.is_external_abort(address),
            "{name}: {:x?}",
            seen.fault
        );
    }
    Ok(())
}

fn cache_maintenance_of_mmio() -> Outcome {
    maintain(machine().distributor())?;
    maintain(mmu::window(2, machine().distributor(), Memory::Normal))?;
    maintain(mmu::window(2, uart::base(), Memory::Normal))
}

fn cache_maintenance_of_a_hole() -> Outcome {
    maintain(after_ram(Memory::Normal)? + 0x4000)
}

/// `dc zva, x0`.
const ZERO: u32 = 0xd50b_7420;

fn zeroing_a_hole() -> Outcome {
    let hole = after_ram(Memory::Normal)? + 0x8000;
    let devices = mmu::window(2, machine().distributor() + 0x8000, Memory::Normal);
    for address in [hole, devices] {
        let seen = probe::run(ZERO, address, 0);
        if bare() && address == devices {
            continue;
        }
        let aborted = seen.fault.is_some_and(|fault| {
            fault.class() == Fault::DATA_ABORT && fault.status() == Fault::SYNCHRONOUS_EXTERNAL
        });
        check!(
            aborted && seen.exact,
            "dc zva at {address:#x}: {:x?}",
            seen.fault
        );
    }
    // On Device memory it is an alignment fault of stage 1, before any hypervisor sees it.
    let seen = probe::run(ZERO, machine().distributor() + 0x8000, 0);
    check!(
        bare()
            || seen
                .fault
                .is_some_and(|fault| fault.class() == Fault::DATA_ABORT),
        "on Device memory"
    );
    Ok(())
}

fn fetch(address: u64) -> Outcome {
    let seen = probe::at(address, 0, 0);
    let Some(fault) = seen.fault else {
        check!(false, "code ran at {address:#x}");
        return Ok(());
    };
    check!(
        seen.exact && fault.class() == Fault::INSTRUCTION_ABORT,
        "{fault:x?}"
    );
    check_eq!(fault.status(), Fault::SYNCHRONOUS_EXTERNAL, "IFSC");
    check_eq!(fault.far, address, "FAR_EL1");
    Ok(())
}

fn fetch_from_a_hole() -> Outcome {
    fetch(after_ram(Memory::Normal)? + 0x1_0000)
}

fn fetch_from_mmio() -> Outcome {
    if bare() {
        ignore!("QEMU runs what it reads from a device");
    }
    for device in [
        machine().distributor(),
        machine().distributor() + READ_ONLY_REGISTERS,
        uart::base(),
    ] {
        fetch(mmu::window(3, device, Memory::Normal))?;
    }
    Ok(())
}

fn table_in_a_hole() -> Outcome {
    let ram = ram()?;
    let mut places = [Some(ram.base + ram.size), None];
    if !bare() {
        places[1] = Some(machine().distributor());
    }
    for table in places.into_iter().flatten() {
        let address = mmu::window_through(table) + 0x1000;
        let seen = probe::load(address, Width::Word);
        let walk = seen
            .fault
            .is_some_and(|fault| (0x14..=0x17).contains(&fault.status()));
        check!(
            walk && seen.exact,
            "a walk through a table at {table:#x}: {:x?}",
            seen.fault
        );
    }
    Ok(())
}

fn straddling_the_end_of_ram() -> Outcome {
    let end = ram()?.base + ram()?.size;
    if end % mmu::GIB == 0 {
        ignore!("RAM ends where a window does");
    }
    let inside = mmu::window(4, end - 8, Memory::Normal);
    check!(
        probe::load(inside, Width::Double).fault.is_none(),
        "the last 8 bytes of RAM cannot be read"
    );
    let near = mmu::window(4, end - 4, Memory::Normal);
    for (name, seen) in [
        ("load", probe::load(near, Width::Double)),
        ("store", probe::store(near, Width::Double, 0)),
    ] {
        let Some(fault) = seen.fault else {
            check!(
                false,
                "a {name} across the end of RAM went through: {:#x}",
                seen.x0
            );
            return Ok(());
        };
        check!(
            seen.exact && fault.status() == Fault::SYNCHRONOUS_EXTERNAL,
            "{name}: {fault:x?}"
        );
        check!(
            fault.far == near || fault.far == near + 4,
            "{name}: FAR_EL1 {:#x}",
            fault.far
        );
    }
    Ok(())
}

fn all_of_ram_is_there() -> Outcome {
    const STEP: u64 = 2 << 20;
    let (ram, image) = (ram()?, machine().image());
    let mut address = ram.base;
    while address < ram.base + ram.size {
        let last = address + STEP.min(ram.base + ram.size - address) - 8;
        for place in [address, last] {
            let seen = probe::load(place, Width::Double);
            check!(seen.fault.is_none(), "RAM at {place:#x}: {:x?}", seen.fault);
            let ours = (image.base..image.base + image.size).contains(&place);
            if !ours {
                let same = probe::store(place, Width::Double, seen.x0);
                check!(
                    same.fault.is_none(),
                    "RAM at {place:#x} cannot be written: {:x?}",
                    same.fault
                );
            }
        }
        address += STEP;
    }
    Ok(())
}

static SHARED: AtomicU64 = AtomicU64::new(0);

fn answer(value: u64) {
    let seen = timer::within_ms(2000, || SHARED.load(Ordering::Acquire) == value);
    SHARED.store(if seen { value + 1 } else { u64::MAX }, Ordering::Release);
}

fn ram_is_coherent_between_cpus() -> Outcome {
    for index in 1..machine().cpus().len() {
        let value = index as u64 * 0x1000;
        SHARED.store(0, Ordering::Release);
        check_eq!(
            cpu::start(index, answer, value),
            psci::SUCCESS,
            "CPU_ON of CPU {index}"
        );
        check!(
            timer::within_ms(1000, || cpu::is_running(index)),
            "CPU {index} does not run"
        );
        SHARED.store(value, Ordering::Release);
        let answered = timer::within_ms(3000, || SHARED.load(Ordering::Acquire) == value + 1);
        check!(
            answered,
            "CPU {index} left {:#x}",
            SHARED.load(Ordering::Acquire)
        );
        check!(cpu::wait_off(index), "CPU {index} does not turn off");
    }
    Ok(())
}

const ADDITIONS: u64 = 2000;

fn add(_: u64) {
    for _ in 0..ADDITIONS {
        SHARED.fetch_add(1, Ordering::AcqRel);
    }
}

fn atomics_between_cpus() -> Outcome {
    let cpus = machine().cpus().len();
    SHARED.store(0, Ordering::Release);
    for index in 1..cpus {
        check_eq!(
            cpu::start(index, add, 0),
            psci::SUCCESS,
            "CPU_ON of CPU {index}"
        );
    }
    add(0);
    let expected = cpus as u64 * ADDITIONS;
    let complete = timer::within_ms(10_000, || SHARED.load(Ordering::Acquire) >= expected);
    check!(complete, "{} of {expected}", SHARED.load(Ordering::Acquire));
    for index in 1..cpus {
        check!(cpu::wait_off(index), "CPU {index} does not turn off");
    }
    check_eq!(SHARED.load(Ordering::Acquire), expected, "sum");
    Ok(())
}
