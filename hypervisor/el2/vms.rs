//! The VMs of the manifest: made at start-up, started, stopped, reset and resized by the operator or by themselves.
//!
//! Work that takes time (copying images, building tables) is done in steps by the CPU to which the VM's first vCPU belongs,
//! between the turns of the guests there. Decisions are `vmm`'s: `vm::resize`, `loader`, `firmware`.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{boxed::Box, format};
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use psci::EntryPoint;
use spin::Once;
use spin::mutex::SpinMutex;
use stage2::{AddressSpace, Attributes, HostPhys, Mapping, Tables, Vmid, VmidAllocator, VmidWidth};
use vmm::config::{self, VmConfig};
use vmm::console::What;
use vmm::devices::Device;
use vmm::devices::cpu_hotplug::HotplugWrite;
use vmm::features::FeaturePolicy;
use vmm::firmware::{self, Machine, Seeds};
use vmm::ids::{PcpuId, VcpuId, VmId};
use vmm::layout::{GuestLayout, Region};
use vmm::loader::{self, GuestRange, LoadPlan, Source};
use vmm::memory::GuestMemory;
use vmm::sched::Slot;
use vmm::vm::context::Frame;
use vmm::vm::resize::{self, AfterReset, Effect, Limits, Progress};
use vmm::vm::vcpu::request;
use vmm::vm::{Home, Kicks, Phase, Vcpu, Vm, VmParts};

use crate::guest_memory::{GuestRam, TablePages};
use crate::percpu::{self, Loaded};
use crate::{cache, clock, console, memory, run, seeds, timer, tlb};

mod commands;
mod events;

pub(crate) use commands::execute;
pub(crate) use events::{vcpu_started, vcpu_stopped};

/// Bytes copied in one step of a start, between which guests get their turn.
const STEP_BYTES: usize = 256 * 1024;
/// Guest-physical address bits offered where the host has as many.
const IPA_BITS: u32 = 40;
/// Alignments of guest memory, best first: 1 GiB and 2 MiB blocks.
const ALIGNMENTS: [u64; 2] = [1 << 30, 1 << 21];
/// Who we say we are in the FADT.
const HYPERVISOR_ID: [u8; 8] = *b"BULLPEN ";

/// A VM with what only its starts and stops need.
pub(crate) struct Slate {
    pub(crate) vm: &'static Vm,
    pub(crate) config: VmConfig,
    kernel: &'static [u8],
    initrd: &'static [u8],
    pub(crate) state: SpinMutex<State>,
    /// The vCPU count that the operator wants.
    pub(crate) target: AtomicU16,
    /// Vm::resize is waiting for something, for the hot paths.
    pub(crate) resizing: AtomicBool,
    pub(crate) resizer: SpinMutex<resize::Resizer>,
    /// Why it is off, if not because somebody wanted it.
    pub(crate) note: SpinMutex<Option<String>>,
}

/// What a VM has while it is not off.
#[derive(Default)]
pub(crate) struct State {
    ram: Option<GuestRam>,
    tables: Option<(Tables, TablePages)>,
    vmid: Option<Vmid>,
    job: Option<Job>,
}

/// A start in progress.
struct Job {
    plan: LoadPlan,
    /// The copy that is under way and how much of it is done.
    copy: usize,
    done: usize,
}

static SLATES: Once<Vec<Slate>> = Once::new();
static VMIDS: Once<SpinMutex<VmidAllocator>> = Once::new();
static HOST: Once<HostLimits> = Once::new();

/// What the machine's CPUs can do for guests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostLimits {
    pub(crate) space: AddressSpace,
    pub(crate) width: VmidWidth,
    pub(crate) pa_code: u64,
}

/// Finds out how many address bits and VMIDs there are.
pub(crate) fn measure_host(pa_range: u64, vmid_16: bool) -> Result<(), stage2::Error> {
    let bits = [32, 36, 40, 42, 44, 48, 48]
        .get(pa_range as usize)
        .copied()
        .unwrap_or(48);
    let ipa_bits = IPA_BITS.min(bits);
    let space = AddressSpace::new(ipa_bits, pa_range.min(5) as u8)?;
    let width = if vmid_16 {
        VmidWidth::Bits16
    } else {
        VmidWidth::Bits8
    };
    let pa_code = match ipa_bits {
        ..36 => 0,
        36..40 => 1,
        _ => 2,
    };
    HOST.call_once(|| HostLimits {
        space,
        width,
        pa_code,
    });
    VMIDS.call_once(|| SpinMutex::new(VmidAllocator::new(width)));
    Ok(())
}

/// A VM as the manifest describes it, with its images.
pub(crate) struct Description {
    pub(crate) config: VmConfig,
    pub(crate) kernel: &'static [u8],
    pub(crate) initrd: &'static [u8],
}

/// Makes the VMs; none runs yet.
pub(crate) fn create(
    descriptions: Vec<Description>,
    cpus: usize,
    list_registers: usize,
    ids: &[u64; 64],
) {
    let host = HOST.get().expect("measured before");
    let mut placer = Placer {
        next_slot: alloc::vec![0; cpus],
        turn: 0,
    };
    let mut homes: Vec<Vec<Home>> = descriptions.iter().map(|_| Vec::new()).collect();
    // Boot vCPUs of all VMs first, so that they get the emptiest CPUs; then those in reserve.
    for held in [false, true] {
        for (description, homes) in descriptions.iter().zip(&mut homes) {
            let config = &description.config;
            let range = if held {
                config.boot_vcpus..config.max_vcpus
            } else {
                0..config.boot_vcpus
            };
            for index in range {
                homes.push(placer.place(config, VcpuId::new(index)));
            }
        }
    }
    let slates = descriptions
        .into_iter()
        .zip(homes)
        .enumerate()
        .map(|(index, (description, homes))| {
            let config = description.config;
            let layout = GuestLayout {
                ram_base: config.memory_base,
                spi_count: config.spis,
                ..GuestLayout::default()
            };
            let vm: &'static Vm = Box::leak(Box::new(Vm::new(VmParts {
                id: VmId::new(index as u16),
                name: config.name.to_string(),
                memory: Region {
                    base: config.memory_base,
                    size: config.memory_bytes,
                },
                layout,
                policy: FeaturePolicy::new(ids, host.pa_code),
                boot_vcpus: config.boot_vcpus,
                homes: homes.into_boxed_slice(),
                list_registers,
                wall_clock_s: seeds::wall_clock_s(),
            })));
            Slate {
                vm,
                target: AtomicU16::new(config.boot_vcpus),
                config,
                kernel: description.kernel,
                initrd: description.initrd,
                state: SpinMutex::default(),
                resizing: AtomicBool::new(false),
                resizer: SpinMutex::new(resize::Resizer::new()),
                note: SpinMutex::new(None),
            }
        })
        .collect();
    let slates = SLATES.call_once(|| slates);
    let mut places: Vec<Loaded> = slates
        .iter()
        .flat_map(|slate| {
            slate
                .vm
                .vcpus
                .iter()
                .map(|vcpu| Loaded { vm: slate.vm, vcpu })
        })
        .collect();
    places.sort_by_key(|place| (place.vcpu.home.pcpu, place.vcpu.home.slot));
    for place in places {
        run::add_place(place);
    }
}

/// Gives vCPUs their places.
struct Placer {
    next_slot: Vec<u16>,
    turn: usize,
}

impl Placer {
    fn place(&mut self, config: &VmConfig, vcpu: VcpuId) -> Home {
        let pcpu = match config.placement.pinned(vcpu) {
            Some(pcpu) if pcpu.index() < self.next_slot.len() => pcpu.index(),
            _ => {
                let turn = self.turn;
                self.turn = (turn + 1) % self.next_slot.len();
                turn
            }
        };
        let index = usize::from(self.next_slot[pcpu]);
        self.next_slot[pcpu] += 1;
        let pcpu = PcpuId::new(pcpu as u16);
        let slot = Slot::new(index).expect("at most 512 vCPUs on a CPU");
        Home {
            pcpu,
            slot,
            wakes: percpu::wakes(pcpu),
        }
    }
}

/// Returns every VM.
pub(crate) fn all() -> &'static [Slate] {
    SLATES.get().map_or(&[], Vec::as_slice)
}

/// Returns a VM by its id.
pub(crate) fn vm(id: VmId) -> Option<&'static Vm> {
    all().get(id.index()).map(|slate| slate.vm)
}

pub(crate) fn slate(vm: &Vm) -> &'static Slate {
    &all()[vm.id.index()]
}

/// Returns the CPU that does a VM's starts and stops.
fn manager(vm: &Vm) -> PcpuId {
    vm.vcpus[0].home.pcpu
}

/// Begins a VM's start; returns whether it was off.
pub(crate) fn start(slate: &'static Slate) -> bool {
    let begun = slate.vm.change_phase(Phase::Off, Phase::Starting);
    if begun {
        *slate.note.lock() = None;
        slate.resizer.lock().on_start(clock::now_ns());
        run::ask_chores(manager(slate.vm));
    }
    begun
}

/// Turns a VM off, whoever wants it; returns whether it was on.
pub(crate) fn system_off(vm: &'static Vm, why: &'static str) -> bool {
    leave(vm, Phase::Stopping, why)
}

/// Starts a VM anew; returns whether it was on.
pub(crate) fn system_reset(vm: &'static Vm) -> bool {
    leave(vm, Phase::Resetting, "reset")
}

fn leave(vm: &'static Vm, to: Phase, why: &'static str) -> bool {
    let left = vm.change_phase(Phase::Running, to) || vm.change_phase(Phase::Paused, to);
    if left {
        log::info!("{}: {} ({why})", vm.name, to.name());
        let mut kicks = Kicks::NONE;
        vm.request_all(request::STOP, &mut kicks);
        percpu::kick(kicks);
        if vm.attached() == 0 {
            run::ask_chores(manager(vm));
        }
    }
    left
}

/// Hears that no vCPU of a VM is on a CPU any more.
pub(crate) fn all_left(vm: &'static Vm) {
    match vm.phase() {
        Phase::Stopping | Phase::Resetting => run::ask_chores(manager(vm)),
        Phase::Running if vm.vcpus.iter().all(|vcpu| !vcpu.power.state().is_on()) => {
            system_off(vm, "every vCPU is off");
        }
        _ => {}
    }
}

/// Pauses a VM; its clock stands still too.
pub(crate) fn pause(slate: &'static Slate) -> bool {
    let vm = slate.vm;
    let paused = vm.change_phase(Phase::Running, Phase::Paused);
    if paused {
        vm.counter_offset.fetch_sub(timer::now(), Ordering::AcqRel);
        let mut kicks = Kicks::NONE;
        vm.request_all(request::PAUSE, &mut kicks);
        percpu::kick(kicks);
    }
    paused
}

/// Lets a paused VM go on.
pub(crate) fn resume(slate: &'static Slate) -> bool {
    let vm = slate.vm;
    let resumed = vm.phase() == Phase::Paused;
    if resumed {
        vm.counter_offset.fetch_add(timer::now(), Ordering::AcqRel);
        vm.set_phase(Phase::Running);
        let mut kicks = Kicks::NONE;
        for vcpu in &*vm.vcpus {
            vcpu.requests.fetch_and(!request::PAUSE, Ordering::SeqCst);
            vcpu.wake(&mut kicks);
        }
        percpu::kick(kicks);
    }
    resumed
}

/// Does what a CPU has to do besides running guests; returns whether there is more at once.
pub(crate) fn chores(cpu: PcpuId) -> bool {
    let mut more = false;
    for slate in all().iter().filter(|slate| manager(slate.vm) == cpu) {
        more |= match slate.vm.phase() {
            Phase::Starting => step(slate),
            Phase::Stopping | Phase::Resetting if slate.vm.attached() == 0 => {
                tear_down(slate);
                slate.vm.phase() == Phase::Starting
            }
            _ => false,
        };
    }
    if cpu.index() == 0 {
        let mut next = events::tell();
        if console::poll() {
            next = Some(next.unwrap_or(u64::MAX).min(console::retry_ns()));
        }
        run::set_chore_deadline(next.map(clock::ns_to_ticks));
    }
    more
}

/// Does one step of a start; returns whether there are more.
fn step(slate: &'static Slate) -> bool {
    let mut state = slate.state.lock();
    let result = match state.job.take() {
        None => prepare(slate, &mut state),
        Some(job) if job.copy < job.plan.copies.len() => copy(slate, &mut state, job),
        Some(job) => finish(slate, &mut state, &job.plan).map(|()| None),
    };
    match result {
        Ok(Some(job)) => {
            state.job = Some(job);
            true
        }
        Ok(None) => false,
        Err(why) => {
            release(slate, &mut state);
            log::error!("vm {}: not started: {why}", slate.vm.name);
            *slate.note.lock() = Some(why);
            slate.vm.set_phase(Phase::Off);
            false
        }
    }
}

/// Takes memory and makes the tables.
fn prepare(slate: &'static Slate, state: &mut State) -> Result<Option<Job>, String> {
    let vm = slate.vm;
    let host = HOST.get().ok_or("the host was not measured")?;
    let size = vm.memory.size;
    if state.ram.is_none() {
        let range = memory::take_guest_memory(size, &ALIGNMENTS)
            .ok_or_else(|| format!("memory: no {} MiB of contiguous RAM are free", size >> 20))?;
        state.ram = Some(GuestRam {
            base: vm.memory.base,
            host: range,
        });
    }
    let ram = state
        .ram
        .as_ref()
        .map(|ram| ram.host.clone())
        .unwrap_or_default();
    let mapping = Mapping {
        guest: vm.memory.base,
        host: HostPhys::new(ram.start),
        len: size,
    };
    let mut pages = TablePages::take(stage2::tables_needed(host.space, [mapping]))
        .ok_or("no memory for stage-2 tables")?;
    let mut tables = Tables::new(host.space, &mut pages)
        .map_err(|error| format!("stage-2 tables: {error:?}"))?;
    let mapped = tables.map(&mut pages, mapping, Attributes::RAM);
    let vmid = VMIDS.get().ok_or("no VMIDs")?.lock().assign(state.vmid);
    if vmid.flush_all {
        tlb::forget_all_guests();
    }
    state.vmid = Some(vmid.vmid);
    let vttbr = AddressSpace::vttbr(tables.root(), vmid.vmid);
    state.tables = Some((tables, pages));
    mapped.map_err(|error| format!("stage-2 tables: {error:?}"))?;
    vm.vttbr.store(vttbr, Ordering::Release);
    vm.vtcr
        .store(host.space.vtcr(host.width), Ordering::Release);
    let plan = loader::plan(&loader::Request {
        ram: GuestRange {
            base: vm.memory.base,
            size,
        },
        kernel: slate.kernel,
        initrd_bytes: slate.initrd.len() as u64,
        firmware_bytes: 0,
    })
    .map_err(|error| format!("kernel \"{}\" {error}", slate.config.kernel))?;
    Ok(Some(Job {
        plan,
        copy: 0,
        done: 0,
    }))
}

/// Copies a piece of an image.
fn copy(slate: &'static Slate, state: &mut State, mut job: Job) -> Result<Option<Job>, String> {
    let ram = state.ram.as_mut().ok_or("no memory")?;
    let copy = job.plan.copies.get(job.copy).ok_or("no such copy")?;
    let source = match copy.source {
        Source::Kernel => slate.kernel,
        Source::Initrd => slate.initrd,
    };
    let bytes = source
        .get(copy.range.clone())
        .ok_or("an image is shorter than planned")?;
    let rest = bytes.get(job.done..).unwrap_or(&[]);
    let piece = rest.get(..STEP_BYTES).unwrap_or(rest);
    let to = copy
        .to
        .checked_add(job.done as u64)
        .ok_or("an image goes past the address space")?;
    ram.write(to, piece)
        .map_err(|fault| format!("an image goes outside RAM at {}", fault.address))?;
    job.done += piece.len();
    if job.done >= bytes.len() {
        job.copy += 1;
        job.done = 0;
    }
    Ok(Some(job))
}

/// Writes the firmware's tables and turns the first vCPU on.
fn finish(slate: &'static Slate, state: &mut State, plan: &LoadPlan) -> Result<(), String> {
    let vm = slate.vm;
    let ram = state.ram.as_mut().ok_or("no memory")?;
    for zero in &plan.zeros {
        ram.zero(zero.base, zero.size)
            .map_err(|fault| format!("an image goes outside RAM at {}", fault.address))?;
    }
    let seeds = Seeds {
        rng: seeds::bytes(),
        kaslr: seeds::word(),
    };
    let image = firmware::build(&Machine {
        layout: &vm.layout,
        memory: &[vm.memory],
        boot_vcpus: slate.config.boot_vcpus,
        max_vcpus: slate.config.max_vcpus,
        bootargs: &slate.config.command_line,
        initrd: plan.initrd.map(|range| Region {
            base: range.base,
            size: range.size,
        }),
        seeds,
        firmware: match slate.config.firmware {
            config::Firmware::Acpi => firmware::Firmware::Acpi,
            config::Firmware::Fdt => firmware::Firmware::Fdt,
        },
        hypervisor_id: HYPERVISOR_ID,
    })
    .map_err(|error| format!("firmware: {error:?}"))?;
    for blob in &image.blobs {
        ram.write(blob.address, &blob.bytes)
            .map_err(|fault| format!("{} goes outside RAM at {}", blob.what, fault.address))?;
    }
    cache::invalidate_instructions();
    vm.counter_offset.store(timer::now(), Ordering::Release);
    vm.set_phase(Phase::Running);
    let entry = EntryPoint {
        address: plan.entry.get(),
        context_id: image.dtb.get(),
    };
    let first = &vm.vcpus[0];
    let code = first.power.cpu_on(entry);
    if code != psci::ReturnCode::Success {
        return Err(format!("its first vCPU can't be turned on: {code:?}"));
    }
    let mut kicks = Kicks::NONE;
    first.wake(&mut kicks);
    percpu::kick(kicks);
    events::push(vm, What::VmStart);
    Ok(())
}

/// Puts everything back to how it was before a start, once no vCPU is left.
fn tear_down(slate: &'static Slate) {
    let vm = slate.vm;
    let held = resize::held(vm);
    for vcpu in &*vm.vcpus {
        reset_vcpu(vcpu);
    }
    vm.gic.reset();
    vm.uart.lock().reset();
    vm.rtc.lock().reset();
    vm.hotplug.lock().reset();
    vm.listening.store(false, Ordering::Release);
    let mut state = slate.state.lock();
    let reset = vm.phase() == Phase::Resetting;
    let progress = if reset {
        release_tables(slate, &mut state);
        let after = match slate.config.on_reset {
            config::OnReset::KeepTarget => AfterReset::KeepTarget,
            config::OnReset::BootSet => AfterReset::BootSet,
        };
        slate
            .resizer
            .lock()
            .on_reset(vm, held, after, events::DEFAULT_LIMITS, clock::now_ns())
    } else {
        release(slate, &mut state);
        slate.resizer.lock().on_vm_off(vm)
    };
    drop(state);
    if reset {
        events::push(vm, What::VmReset("reset"));
        vm.set_phase(Phase::Starting);
    } else {
        slate
            .target
            .store(slate.config.boot_vcpus, Ordering::Release);
        events::push(vm, What::VmOff("off"));
        vm.set_phase(Phase::Off);
    }
    carry_out(slate, progress);
}

fn reset_vcpu(vcpu: &Vcpu) {
    let mut context = vcpu.context.lock();
    let _physical = vcpu.gic.lock().reset(&mut context.gic.list);
    let _dropped = vcpu.inbox.take();
    vcpu.requests.store(0, Ordering::SeqCst);
    vcpu.exits.clear();
    let reset = vcpu.power.apply(psci::Event::Reset);
    assert!(reset.is_ok(), "every power state can be reset");
}

fn release_tables(slate: &'static Slate, state: &mut State) {
    if let Some((tables, mut pages)) = state.tables.take() {
        tlb::forget_vm(slate.vm.vttbr.load(Ordering::Acquire));
        tables.free_all(&mut pages);
        pages.give_back();
    }
    state.job = None;
}

fn release(slate: &'static Slate, state: &mut State) {
    release_tables(slate, state);
    if let Some(ram) = state.ram.take() {
        memory::with_pool(|pool| pool.release(ram.host));
    }
}

/// Answers a call of Bullpen's own.
pub(crate) fn vendor_call(vm: &'static Vm, frame: &mut Frame) {
    vmm::hypercall::answer(frame, &mut vm.rtc.lock(), clock::now_ns());
}

/// Acts on a guest's write to the hot-plug registers.
pub(crate) fn hotplug_write(vm: &'static Vm, offset: u64, value: u32) {
    let slate = slate(vm);
    let write = vm
        .hotplug
        .lock()
        .write(offset, vmm::devices::AccessWidth::Word, u64::from(value));
    let progress = match write {
        HotplugWrite::Ignored => return,
        HotplugWrite::Eject(id) => {
            let Some(vcpu) = vm.vcpu(id) else { return };
            if vcpu.power.apply(psci::Event::Eject).is_err() {
                return;
            }
            slate.resizer.lock().on_eject(vm, id)
        }
        HotplugWrite::Ost {
            vcpu,
            event,
            status,
        } => slate.resizer.lock().on_ost(vm, vcpu, event, status),
    };
    carry_out(slate, progress);
}

/// Hears that a guest reads its event register for the first time.
pub(crate) fn listening(vm: &'static Vm) {
    let slate = slate(vm);
    let mut resizer = slate.resizer.lock();
    vm.listening.store(true, Ordering::Release);
    if resizer.is_listening() {
        return;
    }
    let progress = resizer.on_listening(vm, clock::now_ns());
    drop(resizer);
    carry_out(slate, progress);
}

/// Does what a step of a resize asks for.
pub(crate) fn carry_out(slate: &'static Slate, progress: Progress) {
    let vm = slate.vm;
    let mut pulse = false;
    for effect in progress.effects {
        match effect {
            Effect::Pulse => pulse = true,
            Effect::Insert(vcpu) => pulse |= vm.hotplug.lock().request_insert(vcpu),
            Effect::Eject(vcpu) => pulse |= vm.hotplug.lock().request_eject(vcpu),
            Effect::Retract(vcpu) => vm.hotplug.lock().cancel(vcpu),
        }
    }
    if pulse {
        let mut kicks = Kicks::NONE;
        vm.pulse(vm.layout.hotplug.intid, &mut kicks);
        percpu::kick(kicks);
    }
    slate
        .resizing
        .store(slate.resizer.lock().is_active(), Ordering::Release);
    if let Some(report) = progress.report {
        events::resized(slate, report);
    }
    events::look_again();
}

/// Returns limits for a resize with an explicit time-out.
pub(crate) fn strict(timeout_s: u32) -> Limits {
    Limits {
        timeout_ns: u64::from(timeout_s) * 1_000_000_000,
        boot_grace_ns: 0,
    }
}
