//! Memory that comes and goes while a guest runs, in slots: taken from the host, cleared, mapped and announced; asked back, unmapped and
//! given back.
//!
//! How far the guest is with a slot is a [`Resizer`]'s business, as with vCPUs. A slot's memory is cleared in pieces by the VM's manager
//! and shown when it is mapped; the guest hears of all slots of a request by one interrupt. What it ejects is out of the reach of its
//! vCPUs and devices before the write of EJECT is over, and is cleared when it is taken again.
//!
//! Locks: the resizer's, then that of the pieces, then `Instance::state`; none is held while the guest is told.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use control_plane::console::{Ask, CommandError, ErrorKind, MemoryRow, Reply, Token, What, admit};
use control_plane::resize::ost::Ost;
use core::ops::Range;
use psci::{EntryPoint, Event, PowerCell, State as Power};
use stage2::{Attributes, Invalidation, Mapping};
use types::address::HostPhys;
use types::devices::DeviceId;
use types::hotplug::{Kind, OST_SOURCE_SHIFT};
use types::ids::VcpuId;

use super::{DEFAULT_LIMITS, Host, Instance, SCRUB_BYTES, Vms, strict};
use crate::devices::Answer;
use crate::sync::FairMutex;
use crate::vm::resize::{Effect, Progress, Resizer};
use crate::vm::{Kicks, Phase, Vm};

/// Most slots whose memory is given back in one step when a VM ends.
const SLOTS_A_STEP: usize = 16;

/// What the memory slots of a VM are besides what the guest sees.
#[derive(Debug)]
pub struct Memory {
    /// Its resizes.
    pub resizer: FairMutex<Resizer>,
    /// The operator's requests that wait for them to end, each with when, in nanoseconds.
    pub asked: FairMutex<VecDeque<(Token, u64)>>,
    pieces: FairMutex<Pieces>,
}

/// Memory of the host on its way to slots.
#[derive(Debug, Default)]
struct Pieces {
    /// For slots that will be offered.
    spare: Vec<Range<u64>>,
    /// For these, which are: cleared from the last on, each from its beginning.
    making: Vec<(VcpuId, Range<u64>, u64)>,
}

impl Memory {
    /// Makes the slots' side of a VM that is off.
    pub(super) fn new(vm: &Vm) -> Self {
        Self {
            resizer: FairMutex::new(Resizer::new(vm, Kind::Slot)),
            asked: FairMutex::default(),
            pieces: FairMutex::default(),
        }
    }
}

#[cfg(test)]
impl Memory {
    /// Returns how many pieces are on their way.
    pub(super) fn waiting(&self) -> usize {
        let pieces = self.pieces.lock();
        pieces.spare.len() + pieces.making.len()
    }
}

impl<H: Host> Vms<H> {
    /// Begins to give a VM so much memory in all; answered when that has ended.
    pub(super) fn set_memory(
        &self,
        instance: &Instance<H>,
        token: Token,
        ask: Ask,
        timeout_s: Option<u32>,
    ) -> Result<(), CommandError> {
        let (vm, memory) = (instance.vm, &instance.memory);
        let limits = timeout_s.map_or(DEFAULT_LIMITS, strict);
        let mut resizer = memory.resizer.lock();
        let phase = vm.phase();
        if !matches!(phase, Phase::Running | Phase::Starting | Phase::Resetting) {
            return Err(CommandError::new(ErrorKind::WrongState, phase.name()));
        }
        let held = resizer.held();
        let count = admit(ask, vm.hot.slots, vm.memory.size, held)?;
        if resizer.is_active() {
            let why = "its memory is being changed";
            return Err(CommandError::new(ErrorKind::Busy, why));
        }
        let missing = count.saturating_sub(held);
        let Some(mut spare) = self.take_blocks(vm.hot.slots.block, missing) else {
            let why = "the host has not so much memory free";
            return Err(CommandError::new(ErrorKind::NoResources, why));
        };
        let progress = resizer.begin(vm, count, limits, self.host.now_ns())?;
        memory.asked.lock().push_back((token, self.host.now_ns()));
        memory.pieces.lock().spare.append(&mut spare);
        drop(resizer);
        self.carry_out_memory(instance, progress);
        Ok(())
    }

    /// Takes so many blocks, all or none, and those that are together at once: that costs by the pieces in which the host has its memory.
    pub(super) fn take_blocks(&self, block: u64, count: u16) -> Option<Vec<Range<u64>>> {
        let mut taken = Vec::new();
        let mut missing = u64::from(count);
        let mut most = missing;
        while missing > 0 {
            most = most.min(missing);
            if let Some(piece) = self.host.take_block(block * most) {
                missing -= most;
                let starts = piece.step_by(block as usize);
                taken.extend(starts.map(|start| start..start + block));
            } else if most == 1 {
                self.give_back(taken);
                return None;
            } else {
                most /= 2;
            }
        }
        Some(taken)
    }

    /// Acts on what a guest says about its memory slots.
    pub(super) fn answered_memory(&self, vm: &Vm, answer: Answer) {
        let instance = self.of(vm);
        let progress = match answer {
            Answer::Listens => return,
            Answer::Eject(id) => {
                // Held from before the slot is hidden: until the guest's word counts, no request may offer the slot anew.
                let mut resizer = instance.memory.resizer.lock();
                if !self.take_back(instance, id) {
                    return;
                }
                let now_ns = self.host.now_ns();
                let slot = vm.hot.slot(id);
                if slot.is_some_and(|slot| slot.cell.state() == Power::On) {
                    // It was not asked for.
                    self.event(vm, What::MemoryEjected(id.get()));
                }
                let _was_on = slot.map(|slot| slot.cell.apply(Event::CpuOff));
                resizer.on_eject(vm, id, now_ns).unwrap_or_default()
            }
            Answer::Ost {
                vcpu: id,
                event,
                status,
            } => {
                let Some(slot) = vm.hot.slot(id) else { return };
                slot.note(event, status);
                let mut resizer = instance.memory.resizer.lock();
                match Ost::decode(event, status) {
                    Ost::Added if slot.host().is_some() => {
                        turn_on(&slot.cell);
                        resizer.on_cpu_started(vm, id)
                    }
                    _ => resizer.on_ost(vm, id, event, status),
                }
            }
        };
        if progress.report.is_some() || !progress.effects.is_empty() {
            self.carry_out_memory(instance, progress);
        }
    }

    /// Does what a step of a resize of memory asks for.
    pub(super) fn carry_out_memory(&self, instance: &Instance<H>, progress: Progress) {
        let (vm, hotplug) = (instance.vm, &instance.vm.devices.hotplug);
        let mut pulse = false;
        let (mut unused, mut unseen) = (Vec::new(), Vec::new());
        let mut pieces = instance.memory.pieces.lock();
        for effect in progress.effects {
            let is_shown = |id| vm.hot.slot(id).is_some_and(|slot| slot.host().is_some());
            match effect {
                Effect::Pulse => pulse = true,
                Effect::Insert(id) if is_shown(id) => {
                    pulse |= hotplug.request_insert(Kind::Slot, id);
                }
                Effect::Insert(id) => {
                    let piece = pieces.spare.pop();
                    if let Some(piece) = piece.or_else(|| self.host.take_block(vm.hot.slots.block))
                    {
                        pieces.making.push((id, piece, 0));
                    }
                }
                Effect::Eject(id) if is_shown(id) => {
                    pulse |= hotplug.request_eject(Kind::Slot, id);
                }
                // The guest has not heard of it.
                Effect::Eject(id) => {
                    let gone = pieces.making.extract_if(.., |(slot, ..)| *slot == id);
                    unused.extend(gone.map(|(_, piece, _)| piece));
                    unseen.push(id);
                }
                Effect::Retract(id) => hotplug.cancel(Kind::Slot, id),
            }
        }
        if progress.report.is_some() {
            unused.append(&mut pieces.spare);
        }
        let is_making = !pieces.making.is_empty();
        drop(pieces);
        self.give_back(unused);
        for id in unseen {
            let now_ns = self.host.now_ns();
            let mut resizer = instance.memory.resizer.lock();
            // What was withdrawn is settled already.
            let _nothing_more = resizer.on_eject(vm, id, now_ns);
        }
        if is_making {
            self.host.ask(instance.manager);
        }
        if pulse {
            self.tell_events(vm);
        }
        if let Some(report) = progress.report {
            self.host.resized(instance, report);
        }
        self.host.look_again();
    }

    /// Tells the guest that there are events.
    fn tell_events(&self, vm: &Vm) {
        let mut kicks = Kicks::NONE;
        vm.pulse(DeviceId::Hotplug, &mut kicks);
        self.host.kick(kicks);
    }

    /// Gives memory back to the host.
    fn give_back(&self, pieces: Vec<Range<u64>>) {
        for piece in pieces {
            self.host.release_block(piece);
        }
    }

    /// Does a step of making memory for slots that were offered; returns whether there are more.
    pub(super) fn make_memory(&self, instance: &Instance<H>) -> bool {
        let vm = instance.vm;
        let mut pieces = instance.memory.pieces.lock();
        let Some((_, piece, cleared)) = pieces.making.last_mut() else {
            return false;
        };
        let from = piece.start + *cleared;
        if from < piece.end {
            *cleared += SCRUB_BYTES;
            self.host.scrub(from..from + SCRUB_BYTES);
            return true;
        }
        let Some((id, piece, _)) = pieces.making.pop() else {
            return false;
        };
        match instance.state.lock().map_slot(vm, id, piece.start) {
            Ok(()) => {
                let _shown = vm.hot.slot(id).map(|slot| slot.show(piece.start));
                let _pulse = vm.devices.hotplug.request_insert(Kind::Slot, id);
            }
            Err(error) => {
                log::error!("{}: memory slot: {error}", vm.name);
                self.host.release_block(piece);
            }
        }
        let is_more = !pieces.making.is_empty();
        drop(pieces);
        if !is_more {
            let now_ns = self.host.now_ns();
            instance.memory.resizer.lock().on_announced(now_ns);
            self.tell_events(vm);
            self.host.look_again();
        }
        is_more
    }

    /// Takes back what a guest has ejected; returns whether it had it. Its vCPUs and devices reach none of it any more.
    fn take_back(&self, instance: &Instance<H>, id: VcpuId) -> bool {
        let vm = instance.vm;
        let Some(start) = vm.hot.slot(id).and_then(|slot| slot.hide()) else {
            return false;
        };
        vm.devices.virtio.settle();
        let window = vm.hot.slots.window(id.get());
        let mut state = instance.state.lock();
        if let Some((tables, pages)) = &mut state.tables {
            match tables.begin_unmap(pages, window.base, window.size) {
                Ok(pending) => {
                    if pending.invalidation() != Invalidation::None {
                        self.host.forget_all_guests();
                    }
                    tables.finish(pages, pending);
                }
                Err(error) => {
                    // The guest can still reach it: nothing else may have it.
                    log::error!("{}: memory slot: {error}", vm.name);
                    return true;
                }
            }
        }
        drop(state);
        self.host.release_block(start..start + window.size);
        true
    }

    /// Goes on after a reset: the guest finds the memory that it had, and what it is to give back is asked back again.
    pub(super) fn keep_memory(&self, instance: &Instance<H>) {
        let vm = instance.vm;
        let mut resizer = instance.memory.resizer.lock();
        let mut progress = resizer.on_reset_keeping(self.host.now_ns());
        for (id, slot) in (0..).map(VcpuId::new).zip(&vm.hot.all) {
            if slot.host().is_none() {
                continue;
            }
            if slot.cell.state() == Power::Withdrawn {
                progress.effects.push(Effect::Eject(id));
                continue;
            }
            turn_on(&slot.cell);
            let started = resizer.on_cpu_started(vm, id);
            progress.report = progress.report.or(started.report);
        }
        drop(resizer);
        self.carry_out_memory(instance, progress);
    }

    /// Takes back some of the memory of a VM that ends; returns whether there may be more.
    pub(super) fn release_slots(&self, instance: &Instance<H>) -> bool {
        let vm = instance.vm;
        let mut gone = Vec::new();
        let mut pieces = instance.memory.pieces.lock();
        while gone.len() < SLOTS_A_STEP
            && let Some(piece) = pieces.spare.pop().or_else(|| Some(pieces.making.pop()?.1))
        {
            gone.push(piece);
        }
        drop(pieces);
        for slot in &vm.hot.all {
            let is_enough = gone.len() >= SLOTS_A_STEP;
            if let Some(start) = slot.host().filter(|_| !is_enough).and(slot.hide()) {
                gone.push(start..start + vm.hot.slots.block);
            }
            let _reset = slot.cell.apply(Event::Reset);
        }
        let is_more = !gone.is_empty();
        if is_more {
            vm.devices.virtio.settle();
            self.give_back(gone);
        }
        is_more
    }

    /// Begins a life without memory in slots: what was asked for while the last one ended is over.
    pub(super) fn begin_without_slots(&self, instance: &Instance<H>, now_ns: u64) {
        while self.release_slots(instance) {}
        let mut resizer = instance.memory.resizer.lock();
        let progress = resizer.on_vm_off(instance.vm);
        resizer.on_start(now_ns);
        drop(resizer);
        self.carry_out_memory(instance, progress);
    }

    /// Lists a VM's memory slots.
    pub(super) fn memory_list(&self, instance: &Instance<H>) -> Reply {
        let vm = instance.vm;
        let row = |(slot, one): (u16, &crate::vm::Slot)| {
            let last = one.last_ost();
            let state = match (one.cell.state(), one.host()) {
                (Power::Reserve, _) => "absent",
                (_, None) => "preparing",
                (Power::EnabledOff, _) => "offered",
                (Power::On, _) => "acknowledged",
                (state, _) => state.word(),
            };
            MemoryRow {
                slot,
                address: vm.hot.slots.window(slot).base.get(),
                bytes: vm.hot.slots.block,
                state,
                answer: (last != 0).then_some(((last >> OST_SOURCE_SHIFT) as u16, last as u16)),
            }
        };
        Reply::MemoryList {
            vm: vm.id,
            slots: (0..).zip(&vm.hot.all).map(row).collect(),
        }
    }
}

impl<H: Host> super::State<H> {
    /// Maps the memory of a slot where the guest finds it.
    fn map_slot(&mut self, vm: &Vm, id: VcpuId, host: u64) -> Result<(), stage2::Error> {
        let Some((tables, pages)) = &mut self.tables else {
            return Ok(());
        };
        let mut rest = Some(slot_mapping(vm, id, host));
        while let Some(mapping) = rest {
            let (part, more) = mapping.split();
            tables.map(pages, part, Attributes::RAM)?;
            rest = more;
        }
        Ok(())
    }
}

/// Returns how a slot is mapped.
pub(super) fn slot_mapping(vm: &Vm, id: VcpuId, host: u64) -> Mapping {
    let window = vm.hot.slots.window(id.get());
    Mapping {
        guest: window.base,
        host: HostPhys::new(host),
        len: window.size,
    }
}

/// Notes that the guest has a slot that it was offered.
fn turn_on(cell: &PowerCell) {
    let _denied = cell.cpu_on(EntryPoint::default());
    let _entry = cell.start();
}
