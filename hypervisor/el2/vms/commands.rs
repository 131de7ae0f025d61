//! The operator's commands, carried out: each becomes a change of a VM and an answer.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use control_plane::console::{
    Command, CommandError, ErrorKind, HostReport, Reply, StatsRow, Token, VmAction,
};
use core::sync::atomic::Ordering;
use types::ids::{PcpuId, VcpuId, VmId};
use types::stats::ExitCounts;
use vmm::ops::{DEFAULT_LIMITS, strict};
use vmm::vm::context::Owner;
use vmm::vm::{Cause, Home, Phase, request};

use super::rounds::{self, Answer};
use super::{Instance, events, output, vms};
use crate::percpu::PLACEMENTS;
use crate::{clock, logger, memory, smp};

/// Carries a command out and answers it, at once or when it has ended.
#[inline(never)]
pub(super) fn execute(token: Token, command: Command) {
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
        Command::Vm { vm, action } => find(vm).and_then(|instance| act(instance, action)),
        Command::VmCap { vm, millicores } => {
            find(vm).and_then(|instance| cap(instance, millicores))
        }
        Command::VmList => Ok(vms().list()),
        Command::VmShow { vm } => find(vm).map(|instance| vms().show(instance)),
        Command::VcpuList { vm } => match find(vm) {
            Ok(instance) => {
                rounds::wait(Some(instance.vm), Answer::VcpuList(token));
                return events::look_again();
            }
            Err(error) => Err(error),
        },
        Command::DeviceList { vm } => find(vm).map(|instance| Reply::DeviceList {
            vm,
            devices: instance.device_rows(),
        }),
        Command::DiskList { vm } => Ok(Reply::DiskList(rows(vm, Instance::disk_rows))),
        Command::NetList { vm } => Ok(Reply::NetList(rows(vm, Instance::net_rows))),
        Command::Top => {
            rounds::wait(None, Answer::Top(token));
            return events::look_again();
        }
        Command::Stats { vm } => Ok(stats(vm)),
        Command::Log => Ok(Reply::Log(logger::text())),
        Command::Host => Ok(Reply::Host(host())),
        Command::HostPower { power, force } => vms().end_host(power, force),
        Command::HostTime { set } => Ok(vms().time(set)),
        Command::Help(_) | Command::Console { .. } | Command::JsonOn | Command::JsonOff => {
            Ok(Reply::Done)
        }
    };
    output::reply(token, result);
}

fn find(vm: VmId) -> Result<&'static Instance, CommandError> {
    vms()
        .all()
        .get(vm.index())
        .ok_or_else(|| CommandError::new(ErrorKind::NoSuchVm, format!("there is no {vm}")))
}

fn act(instance: &Instance, action: VmAction) -> Result<Reply, CommandError> {
    let done = match action {
        VmAction::Start => vms().start(instance),
        VmAction::Stop => vms().stop(instance.vm, Cause::Operator),
        VmAction::Reset => vms().reset(instance.vm, Cause::Operator),
        VmAction::Pause => vms().pause(instance),
        VmAction::Resume => vms().resume(instance),
        VmAction::PowerButton => press(instance),
    };
    done.then_some(Reply::Done).ok_or_else(|| not_now(instance))
}

fn cap(instance: &Instance, millicores: Option<u32>) -> Result<Reply, CommandError> {
    const NO: &str = "no VM of the manifest has a `cpu-cap`, so the CPUs hold none: give one VM a cap; 512000 limits nothing";
    let done = vms().cap(instance.vm, millicores);
    done.then_some(Reply::Done)
        .ok_or_else(|| CommandError::new(ErrorKind::Unsupported, NO))
}

/// The VM's state does not allow it.
fn not_now(instance: &Instance) -> CommandError {
    let message = format!("{} is {}", instance.vm.name, instance.vm.phase().name());
    CommandError::new(ErrorKind::WrongState, message)
}

fn press(instance: &Instance) -> bool {
    let running = instance.vm.phase() == Phase::Running;
    if running {
        vms().press_power_button(instance.vm);
    }
    running
}

fn resize_vm(
    token: Token,
    vm: VmId,
    count: u16,
    timeout_s: Option<u32>,
) -> Result<(), CommandError> {
    let instance = find(vm)?;
    if instance.config.firmware == control_plane::firmware::Firmware::Fdt {
        let message = format!(
            "{} has no ACPI (firmware fdt): its vCPU count is fixed",
            instance.vm.name
        );
        return Err(CommandError::new(ErrorKind::Unsupported, message));
    }
    let limits = timeout_s.map_or(DEFAULT_LIMITS, strict);
    let mut resizer = instance.resizer.lock();
    // Under the lock: a VM that ends later ends this resize with it.
    let phase = instance.vm.phase();
    if !matches!(phase, Phase::Running | Phase::Starting | Phase::Resetting) {
        return Err(not_now(instance));
    }
    let progress = resizer.begin(instance.vm, count, limits, clock::now_ns())?;
    instance.asked.lock().push_back(token);
    drop(resizer);
    vms().carry_out(instance, progress);
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
    let deadline_ns = clock::now_ns() + DEFAULT_LIMITS.timeout_ns;
    *events::MOVE.lock() = Some((token, vcpu, to, deadline_ns));
    vms().look_at(vm, vcpu);
    Ok(())
}

/// Returns the rows of one VM or of all.
fn rows<R>(vm: Option<VmId>, of: impl Fn(&Instance) -> Vec<R>) -> Vec<R> {
    let chosen = vms().all().iter();
    let chosen = chosen.filter(|instance| vm.is_none_or(|vm| vm == instance.vm.id));
    chosen.flat_map(of).collect()
}

fn stats(vm: Option<VmId>) -> Reply {
    let rows: Vec<StatsRow> = vms()
        .all()
        .iter()
        .filter(|instance| vm.is_none_or(|vm| vm == instance.vm.id))
        .map(|instance| {
            let mut exits = ExitCounts::default();
            for vcpu in &*instance.vm.vcpus {
                exits.add(&vcpu.exits.snapshot());
            }
            StatsRow {
                vm: instance.vm.id,
                exits,
            }
        })
        .collect();
    Reply::Stats(rows)
}

fn host() -> HostReport {
    let facts = crate::machine::facts();
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
