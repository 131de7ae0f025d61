//! A start, step by step: memory, stage-2 tables, images, firmware's tables, the first vCPU.
//!
//! A guest begins with its MMU and caches off and reads memory past the caches. So whatever EL2 writes is cleaned, and at a reset
//! the memory is that the guest uses first: a dirty line of its last life could otherwise be written back later, over what the
//! guest has since stored past the caches (Arm ARM B2.12). Lines of *another* guest's life go when memory is scrubbed.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use control_plane::config::MEMORY_UNIT;
use control_plane::console::What;
use control_plane::firmware::{self, Machine, Seeds};
use control_plane::loader::{self, LoadPlan, Source};
use control_plane::topology::Topology;
use core::sync::atomic::Ordering;
use psci::EntryPoint;
use stage2::{AddressSpace, Attributes, Mapping, Tables};
use types::address::{GuestPhys, HostPhys};
use types::ids::VcpuId;
use types::layout::GicVersion;

use super::memory::slot_mapping;
use super::{GuestRam, Host, Instance, SCRUB_BYTES, State, Vms};
use crate::features::Lent;
use crate::memory::GuestFault;
use crate::vm::{Kicks, Vm};

/// Bytes copied in one step of a start, between which guests get their turn: about 4,000 instructions.
const STEP_BYTES: usize = 16 * 1024;
/// Bytes of memory cleaned out of the caches in one step.
const CLEAN_BYTES: u64 = 64 * 1024;
/// vCPUs whose CPUs hear of a start in one step.
const WOKEN_VCPUS: u16 = 16;
/// How long a sequence of set/way operations takes at most; one that takes longer has everything cleaned again.
const SEQUENCE_NS: u64 = 100_000_000;
/// The vendor of the hypervisor in the FADT (ACPI 5.2.9).
const HYPERVISOR_ID: [u8; 8] = *b"BULLPEN ";

/// A start in progress.
pub(super) struct Job {
    plan: LoadPlan,
    /// What is not in the stage-2 tables yet, and the first memory slot that may not be.
    unmapped: Option<Mapping>,
    slot: u16,
    /// How much of `plan.uncached` is known to have no dirty lines.
    cleaned: u64,
    /// The copy that is under way and how much of it is done.
    copy: usize,
    done: usize,
    /// The range to be zero that is under way and how much of it is.
    zero: usize,
    zeroed: u64,
    /// Firmware's tables, as far as they are written, and the randomness in them.
    tables: Option<firmware::Description>,
    seeds: Seeds,
}

impl<H: Host> Vms<H> {
    /// Does one step of a start; returns whether there are more.
    ///
    /// Each kind of step gives the job back; none is left once the VM runs, or is stopped.
    pub(super) fn step(&self, instance: &Instance<H>) -> bool {
        let mut state = instance.state.lock();
        if state.failed.is_some() {
            drop(state);
            return self.fail_start(instance);
        }
        let result = match state.job.take() {
            None => self.prepare(instance, &mut state),
            Some(job) if job.unmapped.is_some() => map(instance.vm, &mut state, job),
            Some(job) if !state.dirty.is_empty() => Ok(self.scrub(&mut state, job)),
            Some(job) if state.lived => self.clean(&mut state, job),
            Some(job) if job.copy < job.plan.copies.len() => self.copy(instance, &mut state, job),
            Some(job) if job.zero < job.plan.zeros.len() => self.zero(&mut state, job),
            Some(job) => self.describe(instance, &mut state, job),
        };
        match result {
            Ok(Some(job)) => {
                state.job = Some(job);
                true
            }
            // Stopped meanwhile or not, the next look at the phase shows what is to be done.
            Ok(None) => true,
            Err(why) => {
                state.failed = Some(why);
                true
            }
        }
    }

    /// Returns what is mapped of the machine for a GICv2's guest: its CPU interface.
    fn gicv_of(&self, vm: &Vm) -> Option<Mapping> {
        // The rest of it holds GICV_DIR alone, which EL2 answers.
        self.gicv
            .filter(|_| vm.layout.gic == GicVersion::V2)
            .map(|host| Mapping {
                guest: vm.layout.cpu_interface.base,
                host,
                len: stage2::PAGE_SIZE,
            })
    }

    /// Returns where a VM's records of stolen time are to be mapped.
    fn stolen_time(&self, vm: &Vm) -> Mapping {
        let (records, bytes) = vm.stolen_time.place();
        Mapping {
            guest: vm.layout.stolen_time.base,
            host: self.host.physical(records),
            len: bytes,
        }
    }

    /// Takes pages for the tables of a VM that has these ranges, its records of stolen time, and memory in all of its slots.
    fn pages_for(
        &self,
        vm: &Vm,
        ranges: impl Iterator<Item = Mapping>,
    ) -> Result<H::Pages, &'static str> {
        let slots = vm.hot.slots.region();
        if slots.base.get() + slots.size > self.space.size() {
            return Err("max-memory: the CPUs have fewer address bits");
        }
        // Slots come from anywhere in blocks of 2 MiB.
        let hot = Mapping {
            guest: slots.base,
            host: HostPhys::new(slots.base.get() + MEMORY_UNIT),
            len: slots.size,
        };
        let mappings = ranges.chain([self.stolen_time(vm), hot]);
        let needed = stage2::tables_needed(self.space, mappings);
        let pages = self.host.take_pages(needed);
        pages.ok_or("no memory for stage-2 tables")
    }

    /// Takes memory and begins the tables.
    fn prepare(&self, instance: &Instance<H>, state: &mut State<H>) -> Result<Option<Job>, String> {
        let vm = instance.vm;
        let size = vm.memory.size;
        if state.ram.is_none() {
            let (ram, dirty) = self.host.take_ram(vm).ok_or_else(|| {
                format!("memory: no {} MiB of contiguous RAM are free", size >> 20)
            })?;
            state.dirty = dirty;
            state.ram = Some(ram);
        }
        self.give_device_memory(instance)?;
        let start = state.ram.as_ref().ok_or("no memory")?.host_start();
        vm.ram_start.store(start, Ordering::Release);
        let mapping = Mapping {
            guest: vm.memory.base,
            host: HostPhys::new(start),
            len: size,
        };
        let gicv = self.gicv_of(vm);
        let mut pages = self.pages_for(vm, gicv.into_iter().chain([mapping]))?;
        let mut tables = Tables::new(self.space, &mut pages).map_err(wrong_tables)?;
        let mut mapped = tables.map(&mut pages, self.stolen_time(vm), Attributes::READ_ONLY);
        if let (Ok(()), Some(gicv)) = (mapped, gicv) {
            mapped = tables.map(&mut pages, gicv, Attributes::DEVICE);
        }
        // The flush is over before another VM can have a number of the new generation.
        let mut vmids = self.vmids.lock();
        let vmid = vmids.assign(vm.id.index(), || self.host.forget_all_guests());
        drop(vmids);
        let vttbr = AddressSpace::vttbr(tables.root(), vmid.ok_or("no VMID")?);
        state.tables = Some((tables, pages));
        mapped.map_err(wrong_tables)?;
        vm.vttbr.store(vttbr, Ordering::Release);
        vm.vtcr
            .store(self.space.vtcr(self.width), Ordering::Release);
        let plan = loader::plan(&loader::Request {
            ram: vm.memory,
            kernel: instance.kernel,
            initrd_bytes: instance.initrd.len() as u64,
            firmware: vm.layout.firmware(),
            mmfr0: vm.policy.id[crate::features::MMFR0],
        })
        .map_err(|error| format!("kernel \"{}\" {error}", instance.config.kernel))?;
        Ok(Some(Job {
            plan,
            unmapped: Some(mapping),
            slot: 0,
            cleaned: 0,
            copy: 0,
            done: 0,
            zero: 0,
            zeroed: 0,
            tables: None,
            seeds: self.host.seeds(),
        }))
    }

    /// Copies a piece of an image.
    fn copy(
        &self,
        instance: &Instance<H>,
        state: &mut State<H>,
        mut job: Job,
    ) -> Result<Option<Job>, String> {
        let ram = state.ram.as_mut().ok_or("no memory")?;
        let copy = job.plan.copies.get(job.copy).ok_or("no such copy")?;
        let source = match copy.source {
            Source::Kernel => instance.kernel,
            Source::Initrd => instance.initrd,
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
        ram.load(to, piece)
            .map_err(|fault| format!("an image goes outside RAM at {}", fault.address))?;
        job.done += piece.len();
        if job.done >= bytes.len() {
            job.copy += 1;
            job.done = 0;
        }
        Ok(Some(job))
    }

    /// Clears a piece of what the images want to be zero.
    fn zero(&self, state: &mut State<H>, mut job: Job) -> Result<Option<Job>, String> {
        let ram = state.ram.as_mut().ok_or("no memory")?;
        let range = job.plan.zeros.get(job.zero).ok_or("no such range")?;
        let bytes = SCRUB_BYTES.min(range.size - job.zeroed);
        let at = range.base.checked_add(job.zeroed);
        at.ok_or("an image goes past the address space".to_string())
            .and_then(|at| {
                let outside =
                    |fault: GuestFault| format!("an image goes outside RAM at {}", fault.address);
                ram.zero(at, bytes).map_err(outside)
            })?;
        job.zeroed += bytes;
        if job.zeroed >= range.size {
            job.zero += 1;
            job.zeroed = 0;
        }
        Ok(Some(job))
    }

    /// Scrubs a piece of what another guest has had.
    fn scrub(&self, state: &mut State<H>, job: Job) -> Option<Job> {
        if let Some(part) = state.dirty.pop() {
            let end = part.end.min(part.start + SCRUB_BYTES);
            self.host.scrub(part.start..end);
            if end < part.end {
                state.dirty.push(end..part.end);
            }
        }
        Some(job)
    }

    /// Cleans a piece of the memory of which the guest's last life may have left dirty lines.
    fn clean(&self, state: &mut State<H>, mut job: Job) -> Result<Option<Job>, String> {
        let ram = state.ram.as_ref().ok_or("no memory")?;
        let uncached = job.plan.uncached;
        let bytes = CLEAN_BYTES.min(uncached.size.saturating_sub(job.cleaned));
        let from = uncached.base.checked_add(job.cleaned);
        from.ok_or("memory goes past the address space")
            .and_then(|from| ram.clean(from, bytes).map_err(|_| "memory is not RAM"))?;
        job.cleaned += bytes;
        state.lived = job.cleaned < uncached.size;
        Ok(Some(job))
    }

    /// Cleans a piece of a VM's memory because its guest does so by set and way; returns whether the operation has had its effect.
    ///
    /// A guest does that set by set, after it has turned its caches off or before: the first operation cleans everything, the others
    /// of the same sequence nothing. Until all is done the guest repeats its instruction, so that interrupts and other vCPUs get their turn.
    pub(super) fn clean_by_set_way(&self, vm: &Vm, set_way: u64) -> bool {
        // Another vCPU of the VM cleans a piece: the guest repeats its instruction, and takes its interrupts meanwhile.
        let Some(mut state) = self.of(vm).state.try_lock() else {
            return false;
        };
        if state.swept == 0
            && set_way != state.sweep_first
            && self.host.now_ticks() < state.sweep_again
        {
            return true;
        }
        if state.swept == 0 {
            state.sweep_first = set_way;
        }
        let bytes = CLEAN_BYTES.min(vm.memory.size - state.swept);
        let from = GuestPhys::new(vm.memory.base.get() + state.swept);
        // Without memory there is no guest.
        let _ = state.ram.as_ref().map(|ram| ram.clean(from, bytes));
        state.swept = (state.swept + bytes) % vm.memory.size;
        state.sweep_again = self.host.now_ticks() + self.host.ticks(SEQUENCE_NS);
        state.swept == 0
    }

    /// Turns the first vCPU on, now that everything is in memory.
    fn finish(
        &self,
        instance: &Instance<H>,
        state: &mut State<H>,
        plan: &LoadPlan,
        dtb: u64,
    ) -> Result<Option<Job>, String> {
        let vm = instance.vm;
        self.host.invalidate_instructions();
        vm.counter_offset
            .store(self.host.now_ticks(), Ordering::Release);
        let entry = EntryPoint {
            address: plan.entry.get(),
            context_id: dtb,
        };
        let first = vm.vcpus.first().ok_or("it has no vCPUs")?;
        let code = first.power.cpu_on(entry);
        if code != psci::ReturnCode::Success {
            return Err(format!(
                "its first vCPU can't be turned on: PSCI says {}",
                code as i32
            ));
        }
        // Not before: a VM that runs and has no vCPU on is over.
        if vm.life.started() {
            state.lived = true;
            instance.record.lock().started_ns = Some(self.host.now_ns());
            self.event(vm, What::VmStart);
            instance.unwoken.store(0, Ordering::Release);
        }
        Ok(None)
    }

    /// Has the CPUs of some vCPUs of a VM that has started prepare for them, or find out whether they are needed; returns whether there
    /// are more.
    pub(super) fn wake_some(&self, instance: &Instance<H>) -> bool {
        let first = instance.unwoken.load(Ordering::Acquire);
        let vcpus = &*instance.vm.vcpus;
        let Some(rest) = vcpus.get(usize::from(first)..).filter(|r| !r.is_empty()) else {
            return false;
        };
        let next = first.saturating_add(WOKEN_VCPUS);
        instance.unwoken.store(next, Ordering::Release);
        let mut kicks = Kicks::NONE;
        for vcpu in rest.iter().take(usize::from(WOKEN_VCPUS)) {
            match vcpu.power.state() {
                psci::State::Reserve => self.park_vcpu(instance.vm, vcpu),
                _ => vcpu.wake(&mut kicks),
            }
        }
        self.host.kick(kicks);
        true
    }

    /// Writes the next of what firmware leaves in memory; after the last the guest begins.
    fn describe(
        &self,
        instance: &Instance<H>,
        state: &mut State<H>,
        mut job: Job,
    ) -> Result<Option<Job>, String> {
        let (vm, config) = (instance.vm, &instance.config);
        let ram = state.ram.as_mut().ok_or("no memory")?;
        let machine = Machine {
            layout: &vm.layout,
            memory: &[vm.memory],
            boot_vcpus: config.boot_vcpus,
            max_vcpus: config.max_vcpus,
            bootargs: &config.command_line,
            initrd: job.plan.initrd,
            seeds: job.seeds,
            firmware: config.firmware,
            uuid: config.uuid,
            topology: config.topology.unwrap_or(Topology::flat(config.max_vcpus)),
            cpu: &self.cpu,
            has_pmu_interrupt: self.has_pmu_interrupt && vm.policy.lendable.has(Lent::PMU),
            hypervisor_id: HYPERVISOR_ID,
            // A VM has few.
            slots: config.devices() as u16,
        };
        let wrong = |error| format!("firmware: {error}");
        let Some(tables) = &mut job.tables else {
            job.tables = Some(firmware::Description::new(&machine).map_err(wrong)?);
            return Ok(Some(job));
        };
        let step = tables.step(&machine, &mut |blob| {
            ram.load(blob.address, &blob.bytes)
                .map_err(|_| firmware::Error::Internal(blob.what))
        });
        match step.map_err(wrong)? {
            None => Ok(Some(job)),
            Some(dtb) => self.finish(instance, state, &job.plan, dtb.get()),
        }
    }

    /// Gives some of a VM's stage-2 tables back; no CPU has its vCPUs in its registers, and its VMID is not used again before a flush.
    /// Returns whether none are left.
    pub(super) fn release_tables(&self, state: &mut State<H>) -> bool {
        let Some((tables, mut pages)) = state.tables.take() else {
            return true;
        };
        match tables.free_some(&mut pages) {
            Some(rest) => {
                state.tables = Some((rest, pages));
                false
            }
            None => {
                self.host.release_pages(pages);
                true
            }
        }
    }

    /// Gives back all that a VM has besides its tables; its memory is scrubbed when another VM gets it.
    pub(super) fn release(&self, vm: &Vm, state: &mut State<H>) {
        if let Some(ram) = state.ram.take() {
            self.host.release_ram(vm, ram);
        }
        state.dirty = Vec::new();
        state.lived = false;
    }
}

/// Maps a part of a guest's memory: what it has from boot, then the slots that have some.
fn map<H: Host>(vm: &Vm, state: &mut State<H>, mut job: Job) -> Result<Option<Job>, String> {
    let (tables, pages) = state.tables.as_mut().ok_or("no tables")?;
    if let Some(mapping) = job.unmapped {
        let (part, rest) = mapping.split();
        let mapped = tables.map(pages, part, Attributes::RAM);
        mapped.map_err(wrong_tables)?;
        job.unmapped = rest.or_else(|| {
            let mut others = (job.slot..vm.hot.slots.count).map(VcpuId::new);
            let (id, host) = others.find_map(|id| Some((id, vm.hot.slot(id)?.host()?)))?;
            job.slot = id.get() + 1;
            Some(slot_mapping(vm, id, host))
        });
    }
    Ok(Some(job))
}

fn wrong_tables(error: stage2::Error) -> String {
    format!("stage-2 tables: {error}")
}
