//! The operator's commands, carried out: each becomes a change of a VM and an answer.

use alloc::format;
use alloc::vec::Vec;
use control_plane::console::{Command, CommandError, ErrorKind, Reply, StatsRow, Token, VmAction};
use control_plane::firmware::Firmware;
use core::sync::atomic::Ordering;
use types::ids::{PcpuId, VcpuId, VmId};
use types::stats::ExitCounts;

use super::super::{DEFAULT_LIMITS, Instance, Vms, strict};
use super::answers::Answer;
use super::{Console, Move, Operator};
use crate::vm::context::Owner;
use crate::vm::{Cause, Phase, Placement, request};

impl<H: Console> Vms<H> {
    /// Carries a command out and answers it, at once or when it has ended.
    #[inline(never)]
    pub fn execute(&'static self, operator: &Operator, token: Token, command: Command) {
        let begun = match command {
            Command::VcpuSet {
                vm,
                count,
                timeout_s,
            } => self.resize_vm(token, vm, count, timeout_s),
            Command::MemorySet { vm, ask, timeout_s } => self
                .find(vm)
                .and_then(|instance| self.set_memory(instance, token, ask, timeout_s)),
            Command::VcpuPin { vm, vcpu, cpu } => self.pin(operator, token, (vm, vcpu), cpu),
            command => return self.answer(operator, token, command),
        };
        if let Err(error) = begun {
            self.host.reply(token, Err(error));
        }
    }

    /// Carries out and answers a command that has no end to wait for, but a round of the CPUs.
    fn answer(&'static self, operator: &Operator, token: Token, command: Command) {
        let result = match command {
            Command::MemoryList { vm } => self.find(vm).map(|instance| self.memory_list(instance)),
            Command::Vm { vm, action } => self
                .find(vm)
                .and_then(|instance| self.act(instance, action)),
            Command::VmCap { vm, millicores } => self.cap_vm(vm, millicores),
            Command::VmWeight { vm, weight } => self.weigh_vm(vm, weight),
            Command::VmList => Ok(self.list()),
            Command::VmShow { vm } => self.find(vm).map(|instance| self.show(instance)),
            Command::VcpuList { vm } => match self.find(vm) {
                Ok(instance) => {
                    operator.wait(Some(instance.vm), Answer::VcpuList(token));
                    return operator.look_again(&self.host);
                }
                Err(error) => Err(error),
            },
            Command::DeviceList { vm } => self.find(vm).map(|instance| Reply::DeviceList {
                vm,
                devices: instance.device_rows(),
            }),
            Command::DiskList { vm } => Ok(Reply::DiskList(self.rows(vm, Instance::disk_rows))),
            Command::NetList { vm } => Ok(Reply::NetList(self.rows(vm, Instance::net_rows))),
            Command::Top => {
                operator.wait(None, Answer::Top(token));
                return operator.look_again(&self.host);
            }
            Command::Usage { vm } => match self.ask_usage(operator, token, vm) {
                Ok(()) => return,
                Err(error) => Err(error),
            },
            Command::WatchUsage { period_s } => {
                operator.watch_usage(&self.host, period_s);
                Ok(Reply::Done)
            }
            Command::Stats { vm } => Ok(self.stats(vm)),
            Command::Log => Ok(Reply::Log(self.host.log())),
            Command::Host => Ok(Reply::Host(self.host.report())),
            Command::HostPower { power, force } => self.end_host(power, force),
            Command::HostTime { set } => Ok(self.time(set)),
            // What is answered elsewhere.
            _ => Ok(Reply::Done),
        };
        self.host.reply(token, result);
    }

    fn find(&self, vm: VmId) -> Result<&Instance<H>, CommandError> {
        self.all()
            .get(vm.index())
            .ok_or_else(|| CommandError::new(ErrorKind::NoSuchVm, format!("there is no {vm}")))
    }

    fn act(&self, instance: &Instance<H>, action: VmAction) -> Result<Reply, CommandError> {
        let done = match action {
            VmAction::Start => self.start(instance),
            VmAction::Stop => self.stop(instance.vm, Cause::Operator),
            VmAction::Reset => self.reset(instance.vm, Cause::Operator),
            VmAction::Pause => self.pause(instance),
            VmAction::Resume => self.resume(instance),
            VmAction::PowerButton => self.press(instance),
        };
        done.then_some(Reply::Done).ok_or_else(|| not_now(instance))
    }

    fn press(&self, instance: &Instance<H>) -> bool {
        let running = instance.vm.phase() == Phase::Running;
        if running {
            self.press_power_button(instance.vm);
        }
        running
    }

    fn ask_usage(
        &self,
        operator: &Operator,
        token: Token,
        vm: Option<VmId>,
    ) -> Result<(), CommandError> {
        let instance = vm.map(|vm| self.find(vm)).transpose()?;
        let vm = instance.map(|instance| instance.vm);
        operator.wait(vm, Answer::Usage(Some(token)));
        operator.look_again(&self.host);
        Ok(())
    }

    fn weigh_vm(&self, vm: VmId, weight: u16) -> Result<Reply, CommandError> {
        self.weigh(self.find(vm)?.vm, weight);
        Ok(Reply::Done)
    }

    fn cap_vm(&self, vm: VmId, millicores: Option<u32>) -> Result<Reply, CommandError> {
        let instance = self.find(vm)?;
        instance.config.entitlement.allow_cap(millicores)?;
        self.cap(instance.vm, millicores);
        Ok(Reply::Done)
    }

    fn resize_vm(
        &self,
        token: Token,
        vm: VmId,
        count: u16,
        timeout_s: Option<u32>,
    ) -> Result<(), CommandError> {
        let instance = self.find(vm)?;
        if instance.config.firmware == Firmware::Fdt {
            let message = format!(
                "{} has no ACPI (firmware fdt): its vCPU count is fixed",
                instance.vm.name
            );
            return Err(CommandError::new(ErrorKind::Unsupported, message));
        }
        instance.config.entitlement.allow_vcpus(count.into())?;
        let limits = timeout_s.map_or(DEFAULT_LIMITS, strict);
        let mut resizer = instance.resizer.lock();
        // Under the lock: a VM that ends later ends this resize with it.
        let phase = instance.vm.phase();
        if !matches!(phase, Phase::Running | Phase::Starting | Phase::Resetting) {
            return Err(not_now(instance));
        }
        let progress = resizer.begin(instance.vm, count, limits, self.host.now_ns())?;
        let asked = (token, self.host.now_ns());
        instance.asked.lock().push_back(asked);
        drop(resizer);
        self.carry_out(instance, progress);
        Ok(())
    }

    /// Wishes a vCPU to a CPU for good; answered when it is there.
    fn pin(
        &self,
        operator: &Operator,
        token: Token,
        (vm, vcpu): (VmId, VcpuId),
        cpu: PcpuId,
    ) -> Result<(), CommandError> {
        let no = |kind, why: &str| Err(CommandError::new(kind, why));
        let vm = self.find(vm)?.vm;
        let Some(vcpu) = vm.vcpu(vcpu).filter(|_| self.host.is_there(cpu)) else {
            return no(ErrorKind::BadNumber, "there is no such vCPU or CPU");
        };
        if operator.moving.lock().is_some() {
            return no(ErrorKind::Busy, "a vCPU is being moved");
        }
        let mut to = vcpu.at.placement();
        if to.pcpu() != cpu {
            let Some(place) = self.host.placements().take(Owner { vm, vcpu }, cpu) else {
                return no(ErrorKind::NoResources, "the CPU has 512 vCPUs");
            };
            to = place;
            vcpu.at.change_pending(Placement::NOWHERE, to);
            vcpu.requests.fetch_or(request::MOVE, Ordering::SeqCst);
        }
        let deadline_ns = self.host.now_ns() + DEFAULT_LIMITS.timeout_ns;
        *operator.moving.lock() = Some(Move {
            token,
            vcpu,
            to,
            deadline_ns,
        });
        self.look_at(vm, vcpu);
        Ok(())
    }

    /// Returns the rows of one VM or of all.
    fn rows<R>(&self, vm: Option<VmId>, of: impl Fn(&Instance<H>) -> Vec<R>) -> Vec<R> {
        let mut rows = Vec::new();
        for instance in self.all() {
            if vm.is_none_or(|vm| vm == instance.vm.id) {
                rows.append(&mut of(instance));
            }
        }
        rows
    }

    fn stats(&self, vm: Option<VmId>) -> Reply {
        let rows: Vec<StatsRow> = self
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
}

/// The VM's state does not allow it.
fn not_now<H: Console>(instance: &Instance<H>) -> CommandError {
    let message = format!("{} is {}", instance.vm.name, instance.vm.phase().name());
    CommandError::new(ErrorKind::WrongState, message)
}
