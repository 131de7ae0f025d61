//! From the boot loader's hand-over to the first guest, in the order it happens.
#![expect(unsafe_code, reason = "uses addresses of the device tree")]

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use control_plane::config::{Bundle, CpuSlots, ReserveIdle};
use control_plane::console::Pace;
use control_plane::host::{Conduit, EnableMethod, HostDescription, Line, PrivateInterrupts};
use control_plane::topology::CpuFacts;
use control_plane::{devicetree, host};
use core::fmt::Write;
use core::ops::Range;
use types::address::HostPhys;
use types::ids::{MAX_PCPUS, PcpuId, VmId};
use vmm::features::hcr;

use crate::gic::PrivateLines;
use crate::mmio::Registers;
use crate::mmu::Use;
use crate::sysreg::{self, wfi};
use crate::timer::Which;
use crate::uart::{Place, Uart};
use crate::{
    cache, clock, console, cpu, cpu_features, deferred, efi, gic, heap, layout, logger, machine,
    memory, mmu, percpu, seeds, smc, smp, timer, uart, vectors, vms,
};
use vmm::ops::{Description, HostLimits};

/// The boot CPU's way in, from a boot loader or when firmware is gone: the device tree's address and the exception level.
pub(crate) extern "C" fn start(dtb: u64, level: u64) -> ! {
    if level != machine::EL2 {
        give_up(format_args!(
            "entered at EL{level}, but a hypervisor needs EL2: {}",
            way_to_el2(level)
        ));
    }
    if sysreg::hcr_el2::read() & hcr::E2H != 0 {
        give_up(format_args!(
            "this CPU's EL2 knows VHE mode only (HCR_EL2.E2H is RES1, no FEAT_E2H0): it is not supported"
        ));
    }
    mmu::start();
    mmu::set_vectors(vectors::address());
    clock::start();
    let dtb_range = map_dtb(dtb);
    // SAFETY: mapped just now; the device tree is never written, and its memory is kept out of the pool.
    let tree = unsafe { memory::bytes(dtb_range.clone()) };
    let own = layout::image().start..start_heap(tree);
    let own_ranges = [layout::image(), mmu::pages(dtb_range.clone())];
    let host = match host::describe(tree, &own_ranges, efi::handover().as_ref()) {
        Ok(host) => machine::HOST.call_once(|| host),
        Err(error) => {
            if let Some(found) = host::find_console(tree) {
                start_console((&found).into());
            }
            give_up(format_args!("device tree: {error}"));
        }
    };
    let board = boards::Board::by_compatible(host.compatible.iter().map(String::as_str));
    if let Some(found) = host.console() {
        start_console(found.into());
    } else if let Some(early) = board.early_uart {
        // For the reason why there is no console, and what else the start has to say.
        start_console(Place::pl011(early.pl011));
    }
    logger::start(log::LevelFilter::Info);
    if timer::frequency() == 0 {
        give_up(format_args!(
            "the counter's frequency is 0 (CNTFRQ_EL0): firmware has to set it"
        ));
    }
    log::info!("Bullpen {} on {}", env!("CARGO_PKG_VERSION"), host.model);
    for warning in &host.warnings {
        log::warn!("device tree: {warning}");
    }
    if host.psci.is_some_and(|psci| psci.conduit == Conduit::Smc) {
        smc::use_smc();
    }
    take_memory(host, dtb_range, own);
    start_gic(host);
    read_clock(host);
    seeds::start(&host.chosen.rng_seed, host.chosen.kaslr_seed);
    let stack = smp::map_stack(PcpuId::new(0))
        .unwrap_or_else(|| give_up(format_args!("no memory for the first stack")));
    smp::move_to_stack(stack, on_own_stack)
}

/// The rest of the start, on the boot CPU's guarded stack.
extern "C" fn on_own_stack() -> ! {
    let host = machine::HOST.get().expect("described before");
    let boot_mpidr = percpu::own_affinity();
    if let Err(why) = cpu_features::join(machine::memory_end()) {
        give_up(format_args!("the boot CPU can't be used: {why}"));
    }
    percpu::make_room(host.cpus.len().min(MAX_PCPUS));
    let boot = smp::prepare(PcpuId::new(0))
        .unwrap_or_else(|why| give_up(format_args!("the boot CPU can't be used: {why}")));
    try_timers(boot.private_lines, host.private);
    let mut cpus = 1;
    for cpu in host
        .cpus
        .iter()
        .filter(|cpu| cpu.mpidr != boot_mpidr)
        .take(MAX_PCPUS - 1)
    {
        match smp::start(PcpuId::new(cpus), cpu, cpu::run) {
            Ok(()) => cpus += 1,
            Err(why) => log::error!("cpu@{:x}: {why}; going on without it", cpu.mpidr),
        }
    }
    let memory_bytes = host.memory.iter().map(|range| range.size).sum();
    machine::FACTS.call_once(|| machine::Facts {
        machine: host.model.to_string(),
        cpus: host.cpus.len() as u16,
        memory_bytes,
    });
    log::info!(
        "{cpus} of {} CPUs, {} MiB of memory",
        host.cpus.len(),
        memory_bytes >> 20
    );
    start_vms(host, usize::from(cpus), boot.list_registers);
    cpu::run(boot)
}

/// Returns what has to change so that this program is entered at EL2.
fn way_to_el2(level: u64) -> &'static str {
    if level > machine::EL2 {
        "let firmware drop to it (TF-A's BL31, a Raspberry Pi's armstub, QEMU with -kernel)"
    } else {
        "let the boot loader stay at it, and nothing else have it (U-Boot without CONFIG_ARMV8_SWITCH_TO_EL1, QEMU with -M virt,virtualization=on)"
    }
}

/// Maps the device tree, whose size only it knows.
fn map_dtb(dtb: u64) -> Range<u64> {
    const ALIGNMENT: u64 = 8;
    if dtb == 0 || !dtb.is_multiple_of(ALIGNMENT) {
        give_up(format_args!("no device tree: x0 is {dtb:#x}"));
    }
    let map = |end: u64| mmu::map_identity(dtb..end, Use::ReadOnly).is_ok();
    if !map(dtb + 8) {
        give_up(format_args!("the device tree can't be mapped"));
    }
    // SAFETY: the page was mapped just now; x0 is RAM by the boot protocol.
    let start = unsafe { memory::bytes(dtb..dtb + 8) };
    match devicetree::declared_size(start) {
        Some(size) if map(dtb + size as u64) => dtb..dtb + size as u64,
        _ => give_up(format_args!("no device tree at {dtb:#x} (x0)")),
    }
}

/// Gives the heap as much of the room behind the image as the device tree needs; returns where what is left of it begins.
fn start_heap(tree: &[u8]) -> u64 {
    let room = layout::heap_room();
    let piece = room.start..room.end.min(room.start + host::heap_bytes(tree));
    // SAFETY: the linker script sets this range aside for the heap and nothing else.
    unsafe { heap::add(piece.clone()) };
    piece.end
}

/// Makes a UART the console.
fn start_console(place: Place) {
    if mmu::map_identity(place.pages(), Use::Device).is_ok() {
        // SAFETY: mapped just now; the device tree or the board names it as one of this kind.
        uart::set_console(unsafe { Uart::start(place) });
    }
}

/// Takes over the RAM that nothing else uses; `own` is the image with the heap's first piece.
fn take_memory(host: &HostDescription, dtb: Range<u64>, own: Range<u64>) {
    let mut kept_out = Vec::new();
    let mut keep_out = |range: Range<u64>| kept_out.push(mmu::pages(range));
    for reserved in &host.reserved {
        keep_out(reserved.range.addresses());
    }
    let board = boards::Board::by_compatible(host.compatible.iter().map(String::as_str));
    for range in board.reserved {
        keep_out(range.base..range.base + range.size);
    }
    for cpu in &host.cpus {
        if let EnableMethod::SpinTable { release } = cpu.enable {
            keep_out(release.get()..release.get() + 8);
        }
    }
    if let Some(initrd) = host.chosen.initrd {
        keep_out(initrd.addresses());
    }
    keep_out(dtb);
    keep_out(own);
    // Tables for the later banks come from the earlier ones, so what is kept out leaves with each.
    for bank in &host.mappable {
        let range = bank.addresses();
        if mmu::map_identity(range.clone(), Use::Data).is_err() {
            log::error!(
                "memory {:#x}..{:#x}: can't be mapped, not used",
                range.start,
                range.end
            );
            continue;
        }
        memory::with_pool(|pool| {
            pool.add(range.clone());
            let inside = |kept: &&Range<u64>| kept.start < range.end && range.start < kept.end;
            for kept in kept_out.iter().filter(inside) {
                pool.remove(kept.clone());
            }
        });
    }
}

/// Reads the machine's PL031, so that guests know the date.
fn read_clock(host: &HostDescription) {
    const SIZE: u64 = 0x1000;
    const RTCDR: u64 = 0;
    let Some(base) = host.rtc.map(|rtc| rtc.base.get()) else {
        return;
    };
    if mmu::map_identity(base..base + SIZE, Use::Device).is_ok() {
        // SAFETY: mapped just now; the device tree names it as a PL031.
        let registers = unsafe { Registers::new(base, SIZE) };
        let now_s = clock::now_ns() / 1_000_000_000;
        clock::set_epoch_s(u64::from(registers.read32(RTCDR)).saturating_sub(now_s));
    }
}

/// Sets the interrupt controller up, and chooses the vectors for it.
fn start_gic(host: &'static HostDescription) {
    let path = host.gic.path();
    let started = machine::probe(path, || gic::Gic::start(&host.gic, host.private));
    let affinity = percpu::own_affinity();
    let why = match started {
        Err(why) => why,
        Ok(gic) if gic.private_lines(affinity).is_none() => {
            "none of these redistributors is the boot CPU's"
        }
        Ok(gic) => {
            machine::GIC.call_once(|| gic);
            mmu::set_vectors(vectors::address());
            return;
        }
    };
    give_up(format_args!("device tree: {path}: `reg`: {why}"))
}

/// Returns the first page of the CPU interface that a GICv2's guest uses, if the machine has one.
fn gicv() -> Option<HostPhys> {
    machine::GIC.get()?.gicv()
}

/// Sees whether each timer's interrupt comes where the device tree says: one that does not would be missed in silence.
fn try_timers(lines: PrivateLines, private: PrivateInterrupts) {
    const PATIENCE_NS: u64 = 10_000_000;
    let expected = [
        (Which::Hyp, "EL2", private.hyp),
        (Which::Virtual, "virtual", private.virt),
        (Which::Physical, "EL1 physical", private.physical),
    ];
    for (which, name, intid) in expected {
        let before = lines.pending();
        timer::set_asserted(which, true);
        let deadline = timer::now() + clock::duration_ticks(PATIENCE_NS);
        let is_there = || lines.pending() & 1 << intid != 0;
        while !is_there() && timer::now() < deadline {
            core::hint::spin_loop();
        }
        let (came, is_there) = (lines.pending() & !before, is_there());
        timer::set_asserted(which, false);
        if !is_there {
            give_up(format_args!(
                "device tree: timer: `interrupts`: the {name} timer's interrupt is not INTID {intid} (those that came, a bit each: {came:#x})"
            ));
        }
    }
}

/// Makes the VMs of the bundle, gives the UARTs to the console, and starts what is to be started.
fn start_vms(host: &'static HostDescription, cpus: usize, list_registers: usize) {
    let features = cpu_features::all();
    let pa_code = features.pa_range().min(mmu::pa_range());
    let space = vms::address_space(pa_code)
        .unwrap_or_else(|error| give_up(format_args!("stage 2: {error}")));
    let mut slots = CpuSlots::new(cpus);
    let (options, descriptions) = read_bundle(host, &mut slots);
    log::set_max_level(options.log);
    if options.scrub == control_plane::config::Scrub::Boot {
        memory::scrub_free();
    }
    let (mut autostart, mut names) = (Vec::new(), Vec::new());
    for Description { config, .. } in &descriptions {
        autostart.push(config.autostart);
        names.push(config.name.to_string());
    }
    heap::grow(heap_for(&descriptions));
    let limits = HostLimits {
        space,
        width: vms::vmid_width(features.has_vmid_16()),
        pa_code,
        cpu: &CpuFacts {
            midr: sysreg::midr_el1::read(),
            caches: cache::describe(),
        },
        has_pmu_interrupt: host.private.pmu.is_some(),
        features: &features,
        gic: gic::version(),
        gicv: gicv(),
        list_registers,
        counter: clock::rate(),
        wall_clock_s: clock::epoch_s().unwrap_or(0) as u32,
    };
    vms::create(&limits, descriptions, slots);
    let ports = [host.console(), host.control()].map(|found| {
        let found = found?;
        let place = Place::from(found);
        mmu::map_identity(place.pages(), Use::Device).ok()?;
        // SAFETY: mapped just now; the device tree names it as one of this kind.
        Some((unsafe { Uart::start(place) }, found.interrupt))
    });
    logger::leave_uart();
    let heard = console::start(
        names,
        ports,
        (!vms::vms().all().is_empty()).then_some(VmId::new(0)),
        options.uart_baud.map(Pace::new),
    );
    vms::listen(heard);
    hear_ports(&ports);
    for (instance, autostart) in vms::vms().all().iter().zip(autostart) {
        if autostart && options.autostart {
            vms::vms().start(instance);
        }
    }
    deferred::ask(PcpuId::new(0));
}

/// Enables the interrupts of the ports that have one.
fn hear_ports(ports: &[Option<(Uart, Option<Line>)>]) {
    if let Some(gic) = machine::GIC.get() {
        for line in ports.iter().flatten().filter_map(|port| port.1) {
            gic.enable_shared(line, percpu::this().affinity);
        }
    }
}

/// Returns how much heap the VMs' own data needs; the tables of a guest that starts ask for theirs.
fn heap_for(descriptions: &[Description]) -> u64 {
    const BYTES_A_VCPU: u64 = 4096;
    // A virtio device has room for a request of as many descriptors as a queue, and perhaps for a frame.
    const BYTES_A_DEVICE: u64 = 16 * 1024;
    const BYTES_OF_VMS: u64 = 128 * 1024;
    let vms = descriptions.iter().map(|Description { config, .. }| {
        u64::from(config.max_vcpus) * BYTES_A_VCPU + config.devices() as u64 * BYTES_A_DEVICE
    });
    vms.sum::<u64>() + BYTES_OF_VMS
}

/// Reads the manifest and finds the images; what is wrong is logged and left out.
#[inline(never)]
fn read_bundle(
    host: &'static HostDescription,
    slots: &mut CpuSlots,
) -> (control_plane::config::Options, Vec<Description>) {
    let initrd: &'static [u8] = match &host.chosen.initrd {
        // SAFETY: the boot loader's initrd, mapped with the RAM it lies in and kept out of the pool.
        Some(range) => unsafe { memory::bytes(range.addresses()) },
        None => &[],
    };
    let mut options = control_plane::config::Options::default();
    let mut descriptions = Vec::new();
    let mut cpus = host.cpus.iter();
    let all_psci = cpus.all(|cpu| cpu.enable == EnableMethod::Psci);
    match Bundle::open(initrd) {
        Ok(bundle) => {
            options = bundle.manifest.options;
            for problem in &bundle.manifest.problems {
                log::warn!("{problem}");
            }
            for vm in bundle.manifest.vms {
                let admitted = vm.and_then(|mut vm| {
                    vm.settle(host, gicv().is_some())?;
                    slots.admit(&vm)?;
                    Ok(vm)
                });
                match admitted {
                    Ok(config) => {
                        if config.reserve_idle == ReserveIdle::PsciOff && !all_psci {
                            log::warn!(
                                "{}: `reserve-idle` = \"psci-off\": CPUs that PSCI did not start wait in WFI",
                                config.name
                            );
                        }
                        let file = |name: &str| bundle.archive.file(name).unwrap_or(&[]);
                        descriptions.push(Description {
                            kernel: file(&config.kernel),
                            initrd: config.initrd.as_deref().map_or(&[][..], file),
                            images: config.disks.iter().map(|disk| file(&disk.image)).collect(),
                            config,
                        });
                    }
                    Err(error) => log::error!("{error}"),
                }
            }
        }
        Err(error) if initrd.is_empty() => {
            log::error!("no VMs: no bundle was given as initrd ({error})")
        }
        Err(error) => log::error!("no VMs: {error}"),
    }
    for problem in options.apply_bootargs(&host.chosen.bootargs) {
        log::warn!("{problem}");
    }
    (options, descriptions)
}

/// Says why nothing more will happen, where there is a UART to say it on, and halts.
fn give_up(why: core::fmt::Arguments<'_>) -> ! {
    if let Some(mut uart) = machine::last_console() {
        let _ = writeln!(uart, "bullpen: {why}");
    }
    loop {
        wfi();
    }
}
