//! The operator's commands, carried out: each becomes a change of a VM and an answer.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vmm::console::{
    Command, CommandError, ErrorKind, HostReport, Reply, StatsRow, Token, VcpuRow, VmAction, VmRow,
};
use vmm::ids::{PcpuId, VcpuId, VmId};
use vmm::stats::ExitCounts;
use vmm::vm::context::Owner;
use vmm::vm::vcpu::request;
use vmm::vm::{Cause, Home, Kicks, Phase};

use super::{
    Slate, all, call, carry_out, events, pause, resume, start, strict, system_off, system_reset,
};
use crate::cpu::PLACEMENTS;
use crate::percpu;
use crate::{clock, console, logger, memory, smp};

/// Carries a command out and answers it, at once or when it has ended.
#[inline(never)]
pub(crate) fn execute(token: Token, command: Command) {
    let result = match command {
        Command::VcpuSet {
            vm,
            count,
            timeout_s,
        } => match resize_vm(token, vm, count, timeout_s) {
            Ok(()) => return,
            Err(error) => Err(error),
        },
        Command::VcpuPin { vm, vcpu, cpu } => match pin(token, vm, vcpu, cpu) {
            Ok(()) => return,
            Err(error) => Err(error),
        },
        Command::Vm { vm, action } => find(vm).and_then(|slate| act(slate, action)),
        Command::VmList => Ok(Reply::VmList(all().iter().map(vm_row).collect())),
        Command::VcpuList { vm } => find(vm).map(vcpu_list),
        Command::Stats { vm } => Ok(stats(vm)),
        Command::Log => Ok(Reply::Log(logger::text())),
        Command::Host => Ok(Reply::Host(host())),
        Command::Help | Command::Console { .. } | Command::JsonOn | Command::JsonOff => {
            Ok(Reply::Done)
        }
    };
    console::reply(token, &result);
}

fn find(vm: VmId) -> Result<&'static Slate, CommandError> {
    all()
        .get(vm.index())
        .ok_or_else(|| CommandError::new(ErrorKind::NoSuchVm, format!("there is no {vm}")))
}

fn act(slate: &'static Slate, action: VmAction) -> Result<Reply, CommandError> {
    let done = match action {
        VmAction::Start => start(slate),
        VmAction::Stop => system_off(slate.vm, Cause::Operator),
        VmAction::Reset => system_reset(slate.vm, Cause::Operator),
        VmAction::Pause => pause(slate),
        VmAction::Resume => resume(slate),
        VmAction::PowerButton => press(slate),
    };
    done.then_some(Reply::Done).ok_or_else(|| not_now(slate))
}

/// The VM's state does not allow it.
fn not_now(slate: &Slate) -> CommandError {
    let message = format!("{} is {}", slate.vm.name, slate.vm.phase().name());
    CommandError::new(ErrorKind::WrongState, message)
}

fn press(slate: &'static Slate) -> bool {
    let running = slate.vm.phase() == Phase::Running;
    if running && slate.vm.hotplug.lock().press_power_button() {
        let mut kicks = Kicks::NONE;
        slate.vm.pulse(slate.vm.layout.hotplug.intid, &mut kicks);
        percpu::kick(kicks);
    }
    running
}

fn resize_vm(
    token: Token,
    vm: VmId,
    count: u16,
    timeout_s: Option<u32>,
) -> Result<(), CommandError> {
    let slate = find(vm)?;
    if slate.config.firmware == vmm::config::Firmware::Fdt {
        let message = format!(
            "{} has no ACPI (firmware fdt): its vCPU count is fixed",
            slate.vm.name
        );
        return Err(CommandError::new(ErrorKind::Unsupported, message));
    }
    let limits = timeout_s.map_or(events::DEFAULT_LIMITS, strict);
    let mut resizer = slate.resizer.lock();
    // Under the lock: a VM that ends later ends this resize with it.
    let phase = slate.vm.phase();
    if !matches!(phase, Phase::Running | Phase::Starting | Phase::Resetting) {
        return Err(not_now(slate));
    }
    let progress = resizer.begin(slate.vm, count, limits, clock::now_ns())?;
    slate.asked.lock().push_back(token);
    drop(resizer);
    carry_out(slate, progress);
    Ok(())
}

/// Wishes a vCPU to a CPU for good; answered when it is there.
fn pin(token: Token, vm: VmId, vcpu: VcpuId, cpu: PcpuId) -> Result<(), CommandError> {
    let no = |kind, why: &str| Err(CommandError::new(kind, why));
    let vm = find(vm)?.vm;
    let Some(vcpu) = vm.vcpu(vcpu).filter(|_| smp::is_there(cpu)) else {
        return no(ErrorKind::BadNumber, "there is no such vCPU or CPU");
    };
    if events::MOVE.lock().is_some() {
        return no(ErrorKind::Busy, "a vCPU is being moved");
    }
    let mut to = vcpu.at.home();
    if to.pcpu() != cpu {
        let Some(place) = PLACEMENTS.take(Owner { vm, vcpu }, cpu) else {
            return no(ErrorKind::NoResources, "the CPU has 512 vCPUs");
        };
        to = place;
        vcpu.at.change_wish(Home::NOWHERE, to);
        vcpu.requests.fetch_or(request::MOVE, Ordering::SeqCst);
    }
    let deadline_ns = clock::now_ns() + events::DEFAULT_LIMITS.timeout_ns;
    *events::MOVE.lock() = Some((token, vcpu, to, deadline_ns));
    call(vm, vcpu);
    Ok(())
}

fn vm_row(slate: &Slate) -> VmRow {
    let vm = slate.vm;
    VmRow {
        vm: vm.id,
        state: vm.phase().state(vm.life.cause()),
        on: vm
            .vcpus
            .iter()
            .filter(|vcpu| vcpu.power.state().is_on())
            .count() as u16,
        target: slate.target.load(Ordering::Acquire),
        possible: vm.vcpus.len() as u16,
        memory_bytes: vm.memory.size,
        note: slate.note.lock().clone(),
    }
}

fn vcpu_list(slate: &'static Slate) -> Reply {
    let vcpus = slate
        .vm
        .vcpus
        .iter()
        .map(|vcpu| VcpuRow {
            vcpu: vcpu.id,
            state: vcpu.power.state().word(),
            cpu: vcpu.at.home().pcpu(),
            exits: vcpu.exits.snapshot().total(),
            ran_ns: clock::ticks_to_ns(vcpu.ran_ticks.load(Ordering::Relaxed)),
            stolen_ns: clock::ticks_to_ns(vcpu.stolen_ticks.load(Ordering::Relaxed)),
        })
        .collect();
    Reply::VcpuList {
        vm: slate.vm.id,
        vcpus,
    }
}

fn stats(vm: Option<VmId>) -> Reply {
    let rows: Vec<StatsRow> = all()
        .iter()
        .filter(|slate| vm.is_none_or(|vm| vm == slate.vm.id))
        .map(|slate| {
            let mut exits = ExitCounts::default();
            for vcpu in &*slate.vm.vcpus {
                exits.add(&vcpu.exits.snapshot());
            }
            StatsRow {
                vm: slate.vm.id,
                exits,
            }
        })
        .collect();
    Reply::Stats(rows)
}

fn host() -> HostReport {
    let facts = crate::boot::facts();
    HostReport {
        version: env!("CARGO_PKG_VERSION"),
        machine: facts.machine.to_string(),
        cpus_online: smp::online() as u16,
        cpus: facts.cpus,
        memory_bytes: facts.memory_bytes,
        free_pages: memory::with_pool(|pool| pool.free_bytes()) / crate::mmu::PAGE,
        page_bytes: crate::mmu::PAGE,
        uptime_ns: clock::now_ns(),
    }
}
