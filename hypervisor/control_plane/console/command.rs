//! Commands: the text an operator or a program writes, parsed into values that are complete and in range.

use super::error::{CommandError, ErrorKind};
use super::memory::Ask;
use super::names::Names;
use super::usage::Topic;
use super::words::Words;
use crate::clock::utc;
use alloc::format;
use types::ids::{MAX_MILLICORES, MAX_WEIGHT, MIN_MILLICORES, PcpuId, VcpuId, VmId};

/// What to do with a whole VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmAction {
    /// Start a VM that is off.
    Start,
    /// Turn a VM off without asking the guest.
    Stop,
    /// Reset a VM without asking the guest.
    Reset,
    /// Keep a VM's vCPUs from running.
    Pause,
    /// Let a paused VM run on.
    Resume,
    /// Press the guest's power button.
    PowerButton,
}

/// How the machine itself ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPower {
    /// It starts anew.
    Reboot,
    /// It is turned off.
    Off,
}

impl HostPower {
    /// Returns the word of the command.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::Off => "poweroff",
        }
    }
}

/// A command, checked but not yet carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Explain all commands or some.
    Help(Topic),
    /// Describe the host.
    Host,
    /// End the host's run, and every VM's with it.
    HostPower {
        /// How.
        power: HostPower,
        /// Even if VMs run.
        force: bool,
    },
    /// Tell the time of day, after setting it if there is one to set: seconds since 1970.
    HostTime {
        /// The time to set.
        set: Option<u32>,
    },
    /// List the VMs.
    VmList,
    /// Tell everything about a VM.
    VmShow {
        /// The VM.
        vm: VmId,
    },
    /// Do something with a VM.
    Vm {
        /// The VM.
        vm: VmId,
        /// What to do.
        action: VmAction,
    },
    /// Limit how much CPU time a VM's vCPUs may use together.
    VmCap {
        /// The VM.
        vm: VmId,
        /// Thousandths of a CPU; `None` for no limit.
        millicores: Option<u32>,
    },
    /// Say how much of a CPU each of a VM's vCPUs has beside others.
    VmWeight {
        /// The VM.
        vm: VmId,
        /// Its weight.
        weight: u16,
    },
    /// List a VM's vCPUs.
    VcpuList {
        /// The VM.
        vm: VmId,
    },
    /// Change the number of vCPUs that the guest may use. The reply comes when the resize has ended.
    VcpuSet {
        /// The VM.
        vm: VmId,
        /// How many vCPUs the guest shall have.
        count: u16,
        /// When to give up, in seconds; `None` leaves it to the default.
        timeout_s: Option<u32>,
    },
    /// Change how much memory the guest has. The reply comes when that has ended.
    MemorySet {
        /// The VM.
        vm: VmId,
        /// How much it shall have.
        ask: Ask,
        /// When to give up, in seconds; `None` leaves it to the default.
        timeout_s: Option<u32>,
    },
    /// List a VM's memory slots.
    MemoryList {
        /// The VM.
        vm: VmId,
    },
    /// Have a vCPU run on a CPU from now on. The reply comes when it has moved.
    VcpuPin {
        /// The VM.
        vm: VmId,
        /// The vCPU.
        vcpu: VcpuId,
        /// The physical CPU.
        cpu: PcpuId,
    },
    /// List a VM's virtio devices.
    DeviceList {
        /// The VM.
        vm: VmId,
    },
    /// List the disks of one VM or of all.
    DiskList {
        /// The VM, or all.
        vm: Option<VmId>,
    },
    /// List the ports of networks of one VM or of all.
    NetList {
        /// The VM, or all.
        vm: Option<VmId>,
    },
    /// Attach the terminal to a VM's console.
    Console {
        /// The VM.
        vm: VmId,
    },
    /// Count exits by reason, of one VM or of all.
    Stats {
        /// The VM, or all.
        vm: Option<VmId>,
    },
    /// Tell the meters of one VM or of all.
    Usage {
        /// The VM, or all.
        vm: Option<VmId>,
    },
    /// Tell the meters of all VMs as events, again and again, or no more.
    WatchUsage {
        /// How often, in seconds; `None` for no more.
        period_s: Option<u32>,
    },
    /// Tell what VMs and vCPUs have had of the CPUs: once, or at the prompt again and again.
    Top,
    /// Show the hypervisor's log.
    Log,
    /// Speak JSON lines on the terminal.
    JsonOn,
    /// Go back from JSON lines to the prompt.
    JsonOff,
}

/// The longest time that `--timeout` takes, in seconds.
pub const MAX_TIMEOUT_S: u32 = 3600;

/// Parses a line with the names of the VMs. A line of nothing but blanks gives `None`.
///
/// # Errors
/// The operator is to blame: an unknown command, wrong arguments, a bad number, or a name that no VM has.
pub(super) fn parse(line: &str, names: &Names) -> Result<Option<Command>, CommandError> {
    let mut words = Words(line);
    let Some(first) = words.next() else {
        return Ok(None);
    };
    let mut arguments = Arguments {
        words,
        names,
        form: "",
    };
    // Bytes are compared in place, texts by calls.
    let command = match first.as_bytes() {
        b"help" | b"?" => arguments.help(),
        b"top" => arguments.only("top", Command::Top),
        b"host" => arguments.host(),
        b"log" => arguments.only("log", Command::Log),
        b"vm" => arguments.vm(),
        b"vcpu" => arguments.vcpu(),
        b"mem" => arguments.memory(),
        b"console" => arguments.on_vm("console NAME", |vm| Command::Console { vm }),
        b"device" => arguments.device(),
        b"disk" => arguments.listed("disk list [NAME]", |vm| Command::DiskList { vm }),
        b"net" => arguments.listed("net list [NAME]", |vm| Command::NetList { vm }),
        b"stats" => arguments.stats(),
        b"usage" => arguments.usage(),
        b"watch" => arguments.watch_usage(),
        b"unwatch" => arguments.unwatch_usage(),
        b"json" => arguments.json(),
        _ => Err(unknown(first)),
    };
    command.map(Some)
}

fn unknown(word: &str) -> CommandError {
    let message = format!("there is no command \"{word}\"; `help` lists them");
    CommandError::new(ErrorKind::UnknownCommand, message)
}

/// The words after a command's first, and what the command should have looked like.
struct Arguments<'a> {
    words: Words<'a>,
    names: &'a Names,
    form: &'static str,
}

impl<'a> Arguments<'a> {
    fn help(&mut self) -> Result<Command, CommandError> {
        let topic = Topic::of(&self.words);
        topic
            .map(Command::Help)
            .ok_or_else(|| unknown(self.words.0.trim_ascii()))
    }

    fn vm(&mut self) -> Result<Command, CommandError> {
        self.form = "vm list | vm show|start|stop|reset|pause|resume|powerbutton NAME | vm cap NAME MILLICORES | vm weight NAME N";
        let action = match self.word()? {
            "list" => return self.only("vm list", Command::VmList),
            "show" => return self.on_vm("vm show NAME", |vm| Command::VmShow { vm }),
            "cap" => return self.vm_cap(),
            "weight" => return self.vm_weight(),
            "start" => VmAction::Start,
            "stop" => VmAction::Stop,
            "reset" => VmAction::Reset,
            "pause" => VmAction::Pause,
            "resume" => VmAction::Resume,
            "powerbutton" => VmAction::PowerButton,
            _ => return Err(self.misused()),
        };
        self.on_vm(self.form, |vm| Command::Vm { vm, action })
    }

    fn host(&mut self) -> Result<Command, CommandError> {
        self.form = "host | host reboot|poweroff [--force] | host time [set TIME]";
        let power = match self.words.next().map(str::as_bytes) {
            None => return Ok(Command::Host),
            Some(b"reboot") => HostPower::Reboot,
            Some(b"poweroff") => HostPower::Off,
            Some(b"time") => return self.host_time(),
            Some(_) => return Err(self.misused()),
        };
        let force = match self.words.next() {
            None => false,
            Some("--force") => true,
            Some(_) => return Err(self.misused()),
        };
        self.only(self.form, Command::HostPower { power, force })
    }

    /// Reads the time to set, with or without the word before it.
    fn host_time(&mut self) -> Result<Command, CommandError> {
        let Some(mut word) = self.words.next() else {
            return Ok(Command::HostTime { set: None });
        };
        if word == "set" {
            word = self.word()?;
        }
        let seconds = utc::parse(word).and_then(|seconds| u32::try_from(seconds).ok());
        let set = seconds.ok_or_else(|| {
            let message = format!(
                "\"{word}\" is no time of the years 1970 to 2105, as 2026-11-29T16:12:06Z or in seconds since 1970"
            );
            CommandError::new(ErrorKind::BadNumber, message)
        })?;
        self.only(self.form, Command::HostTime { set: Some(set) })
    }

    fn vm_cap(&mut self) -> Result<Command, CommandError> {
        self.form = "vm cap NAME MILLICORES";
        let vm = self.name()?;
        let word = self.word()?;
        let millicores = match word {
            "none" => None,
            _ => Some(self.number_in(
                word.strip_suffix('m').unwrap_or(word),
                "millicores",
                MIN_MILLICORES,
                MAX_MILLICORES,
            )?),
        };
        self.only(self.form, Command::VmCap { vm, millicores })
    }

    fn vm_weight(&mut self) -> Result<Command, CommandError> {
        self.form = "vm weight NAME N";
        let vm = self.name()?;
        let weight = self.number("weights", 1, MAX_WEIGHT.into())? as u16;
        self.only(self.form, Command::VmWeight { vm, weight })
    }

    fn vcpu(&mut self) -> Result<Command, CommandError> {
        self.form = "vcpu list NAME | vcpu set NAME N [--timeout S] | vcpu pin NAME VCPU CPU";
        match self.word()?.as_bytes() {
            b"list" => self.on_vm("vcpu list NAME", |vm| Command::VcpuList { vm }),
            b"set" => self.vcpu_set(),
            b"pin" => self.vcpu_pin(),
            _ => Err(self.misused()),
        }
    }

    fn vcpu_set(&mut self) -> Result<Command, CommandError> {
        self.form = "vcpu set NAME N [--timeout S]";
        let vm = self.name()?;
        let count = self.number("vCPUs", 1, u32::from(u16::MAX))? as u16;
        let timeout_s = match self.words.next().map(str::as_bytes) {
            None => None,
            Some(b"--timeout") => Some(self.number("seconds", 1, MAX_TIMEOUT_S)?),
            Some(_) => return Err(self.misused()),
        };
        self.only(
            self.form,
            Command::VcpuSet {
                vm,
                count,
                timeout_s,
            },
        )
    }

    fn vcpu_pin(&mut self) -> Result<Command, CommandError> {
        self.form = "vcpu pin NAME VCPU CPU";
        let vm = self.name()?;
        let vcpu = VcpuId::new(self.number("vCPU", 0, u32::from(u16::MAX))? as u16);
        let cpu = PcpuId::new(self.number("CPU", 0, u32::from(u16::MAX))? as u16);
        self.only(self.form, Command::VcpuPin { vm, vcpu, cpu })
    }

    fn memory(&mut self) -> Result<Command, CommandError> {
        self.form = "mem list NAME | mem set NAME SIZE [--timeout S] [--force]";
        match self.word()?.as_bytes() {
            b"list" => self.on_vm("mem list NAME", |vm| Command::MemoryList { vm }),
            b"set" => self.memory_set(),
            _ => Err(self.misused()),
        }
    }

    fn memory_set(&mut self) -> Result<Command, CommandError> {
        self.form = "mem set NAME SIZE [--timeout S] [--force]";
        let vm = self.name()?;
        let word = self.word()?;
        const MIB: u64 = 1 << 20;
        let (number, unit) = match (word.strip_suffix('G'), word.strip_suffix('M')) {
            (Some(number), _) => (number, 1024 * MIB),
            (_, Some(number)) => (number, MIB),
            _ => ("", MIB),
        };
        let number = self.number_in(number, "M or G", 1, u32::from(u16::MAX) * 8)?;
        let (mut timeout_s, mut force) = (None, false);
        while let Some(option) = self.words.next() {
            match option.as_bytes() {
                b"--timeout" => timeout_s = Some(self.number("seconds", 1, MAX_TIMEOUT_S)?),
                b"--force" => force = true,
                _ => return Err(self.misused()),
            }
        }
        Ok(Command::MemorySet {
            vm,
            ask: Ask {
                bytes: u64::from(number).saturating_mul(unit),
                force,
            },
            timeout_s,
        })
    }

    fn stats(&mut self) -> Result<Command, CommandError> {
        self.form = "stats [NAME]";
        let vm = self.any_name()?;
        self.only(self.form, Command::Stats { vm })
    }

    fn usage(&mut self) -> Result<Command, CommandError> {
        self.form = "usage [NAME]";
        let vm = self.any_name()?;
        self.only(self.form, Command::Usage { vm })
    }

    fn watch_usage(&mut self) -> Result<Command, CommandError> {
        self.form = "watch usage SECONDS";
        if self.word()? != "usage" {
            return Err(self.misused());
        }
        let period_s = Some(self.number("seconds", 1, MAX_TIMEOUT_S)?);
        self.only(self.form, Command::WatchUsage { period_s })
    }

    fn unwatch_usage(&mut self) -> Result<Command, CommandError> {
        self.form = "unwatch usage";
        match self.word()? {
            "usage" => self.only(self.form, Command::WatchUsage { period_s: None }),
            _ => Err(self.misused()),
        }
    }

    fn device(&mut self) -> Result<Command, CommandError> {
        self.form = "device list NAME";
        match self.word()? {
            "list" => self.on_vm(self.form, |vm| Command::DeviceList { vm }),
            _ => Err(self.misused()),
        }
    }

    /// Reads what lists something of one VM or of all.
    fn listed(
        &mut self,
        form: &'static str,
        make: impl Fn(Option<VmId>) -> Command,
    ) -> Result<Command, CommandError> {
        self.form = form;
        if self.word()? != "list" {
            return Err(self.misused());
        }
        let vm = self.any_name()?;
        self.only(form, make(vm))
    }

    /// Takes the name of a VM if there is one.
    fn any_name(&mut self) -> Result<Option<VmId>, CommandError> {
        let name = self.words.next();
        name.map(|name| self.find(name)).transpose()
    }

    fn json(&mut self) -> Result<Command, CommandError> {
        self.form = "json on | json off";
        match self.word()? {
            "on" => self.only(self.form, Command::JsonOn),
            "off" => self.only(self.form, Command::JsonOff),
            _ => Err(self.misused()),
        }
    }

    /// Ends a command that takes one VM's name.
    fn on_vm(
        &mut self,
        form: &'static str,
        make: impl Fn(VmId) -> Command,
    ) -> Result<Command, CommandError> {
        self.form = form;
        let vm = self.name()?;
        self.only(form, make(vm))
    }

    /// Ends a command: nothing may follow.
    fn only(&mut self, form: &'static str, command: Command) -> Result<Command, CommandError> {
        self.form = form;
        match self.words.next() {
            None => Ok(command),
            Some(_) => Err(self.misused()),
        }
    }

    fn word(&mut self) -> Result<&'a str, CommandError> {
        self.words.next().ok_or_else(|| self.misused())
    }

    fn name(&mut self) -> Result<VmId, CommandError> {
        let name = self.word()?;
        self.find(name)
    }

    fn find(&self, name: &str) -> Result<VmId, CommandError> {
        let vm = self.names.find(name);
        vm.ok_or_else(|| CommandError::no_such_vm(name))
    }

    fn number(&mut self, what: &str, low: u32, high: u32) -> Result<u32, CommandError> {
        let word = self.word()?;
        self.number_in(word, what, low, high)
    }

    fn number_in(&self, word: &str, what: &str, low: u32, high: u32) -> Result<u32, CommandError> {
        let value = word.bytes().try_fold(0_u32, |value, byte| {
            let digit = byte.wrapping_sub(b'0');
            let digit = (digit < 10).then_some(u32::from(digit))?;
            value.checked_mul(10)?.checked_add(digit)
        });
        value
            .filter(|value| (low..=high).contains(value))
            .ok_or_else(|| {
                let message = format!("\"{word}\" is not a number of {what} from {low} to {high}");
                CommandError::new(ErrorKind::BadNumber, message)
            })
    }

    fn misused(&self) -> CommandError {
        CommandError::new(ErrorKind::Usage, format!("usage: {}", self.form))
    }
}

#[cfg(test)]
mod tests {
    use super::super::usage::{Topic, USAGE};
    use super::{Ask, Command, CommandError, ErrorKind, HostPower, Names, VmAction, Words};
    use proptest::prelude::*;
    use types::ids::{PcpuId, VcpuId, VmId};

    const LINUX: VmId = VmId::new(0);

    fn parse(line: &str) -> Result<Option<Command>, CommandError> {
        let names = ["linux", "rtos"].map(Into::into).to_vec();
        super::parse(line, &Names::new(names))
    }

    #[test]
    fn commands_by_table() {
        let help = |words| Command::Help(Topic::of(&Words(words)).expect("a topic"));
        let set = |count, timeout_s| Command::VcpuSet {
            vm: LINUX,
            count,
            timeout_s,
        };
        let memory = |bytes, timeout_s, force| Command::MemorySet {
            vm: LINUX,
            ask: Ask { bytes, force },
            timeout_s,
        };
        let power = |power, force| Command::HostPower { power, force };
        let time = |set| Command::HostTime { set: Some(set) };
        let cases = [
            ("help", Command::Help(Topic::ALL)),
            ("  ?  ", Command::Help(Topic::ALL)),
            ("help  vcpu set", help("vcpu set")),
            ("help vcpu set linux 8", help("vcpu set")),
            ("? vm", help("vm")),
            ("top", Command::Top),
            ("mem list rtos", Command::MemoryList { vm: VmId::new(1) }),
            ("mem set linux 2G", memory(2 << 30, None, false)),
            (
                "mem set linux 1536M --force --timeout 30",
                memory(1536 << 20, Some(30), true),
            ),
            (
                "vm weight linux 10000",
                Command::VmWeight {
                    vm: LINUX,
                    weight: 10_000,
                },
            ),
            ("usage", Command::Usage { vm: None }),
            ("usage linux", Command::Usage { vm: Some(LINUX) }),
            ("watch usage 10", Command::WatchUsage { period_s: Some(10) }),
            ("unwatch usage", Command::WatchUsage { period_s: None }),
            ("vm show rtos", Command::VmShow { vm: VmId::new(1) }),
            (
                "vm cap rtos 250",
                Command::VmCap {
                    vm: VmId::new(1),
                    millicores: Some(250),
                },
            ),
            (
                "vm cap linux 2500m",
                Command::VmCap {
                    vm: LINUX,
                    millicores: Some(2500),
                },
            ),
            (
                "vm cap linux none",
                Command::VmCap {
                    vm: LINUX,
                    millicores: None,
                },
            ),
            ("host", Command::Host),
            ("host reboot", power(HostPower::Reboot, false)),
            ("host reboot --force", power(HostPower::Reboot, true)),
            ("host poweroff", power(HostPower::Off, false)),
            ("host time", Command::HostTime { set: None }),
            ("host time set 1795968726", time(1_795_968_726)),
            ("host time 1795968726", time(1_795_968_726)),
            ("host time set 2026-11-29T16:12:06Z", time(1_795_968_726)),
            ("host time set 2106-02-07T06:28:15", time(u32::MAX)),
            ("log", Command::Log),
            ("vm list", Command::VmList),
            (
                "vm start rtos",
                Command::Vm {
                    vm: VmId::new(1),
                    action: VmAction::Start,
                },
            ),
            (
                "vm stop linux",
                Command::Vm {
                    vm: LINUX,
                    action: VmAction::Stop,
                },
            ),
            (
                "vm reset linux",
                Command::Vm {
                    vm: LINUX,
                    action: VmAction::Reset,
                },
            ),
            (
                "vm pause linux",
                Command::Vm {
                    vm: LINUX,
                    action: VmAction::Pause,
                },
            ),
            (
                "vm resume linux",
                Command::Vm {
                    vm: LINUX,
                    action: VmAction::Resume,
                },
            ),
            (
                "vm powerbutton linux",
                Command::Vm {
                    vm: LINUX,
                    action: VmAction::PowerButton,
                },
            ),
            ("vcpu\tlist linux", Command::VcpuList { vm: LINUX }),
            ("vcpu set linux 8", set(8, None)),
            ("vcpu set linux 65535", set(65535, None)),
            ("vcpu set linux 008 --timeout 30", set(8, Some(30))),
            (
                "vcpu pin rtos 17 3",
                Command::VcpuPin {
                    vm: VmId::new(1),
                    vcpu: VcpuId::new(17),
                    cpu: PcpuId::new(3),
                },
            ),
            ("console linux", Command::Console { vm: LINUX }),
            ("device list linux", Command::DeviceList { vm: LINUX }),
            ("net list", Command::NetList { vm: None }),
            ("disk list", Command::DiskList { vm: None }),
            ("disk list linux", Command::DiskList { vm: Some(LINUX) }),
            ("stats", Command::Stats { vm: None }),
            ("stats linux", Command::Stats { vm: Some(LINUX) }),
            ("json on", Command::JsonOn),
            ("json off", Command::JsonOff),
        ];
        for (line, command) in cases {
            assert_eq!(parse(line), Ok(Some(command)), "{line}");
        }
        assert_eq!(parse(" \t "), Ok(None));
    }

    #[test]
    fn mistakes_by_table() {
        let cases = [
            ("halp", ErrorKind::UnknownCommand),
            ("HELP", ErrorKind::UnknownCommand),
            ("help me", ErrorKind::UnknownCommand),
            ("help vm lis", ErrorKind::UnknownCommand),
            ("help vm list linux", ErrorKind::UnknownCommand),
            ("top linux", ErrorKind::Usage),
            ("host halt", ErrorKind::Usage),
            ("host reboot now", ErrorKind::Usage),
            ("host poweroff --force --force", ErrorKind::Usage),
            ("host time set", ErrorKind::Usage),
            ("host time set 1 2", ErrorKind::Usage),
            ("host time set noon", ErrorKind::BadNumber),
            ("host time set 4294967296", ErrorKind::BadNumber),
            ("host time set 2106-02-07T06:28:16Z", ErrorKind::BadNumber),
            ("host time set 2026-02-29T00:00:00Z", ErrorKind::BadNumber),
            ("vm weight linux", ErrorKind::Usage),
            ("vm weight linux 0", ErrorKind::BadNumber),
            ("vm weight linux 10001", ErrorKind::BadNumber),
            ("usage linux rtos", ErrorKind::Usage),
            ("usage nobody", ErrorKind::NoSuchVm),
            ("watch usage", ErrorKind::Usage),
            ("watch usage 0", ErrorKind::BadNumber),
            ("watch usage 3601", ErrorKind::BadNumber),
            ("watch top 1", ErrorKind::Usage),
            ("unwatch", ErrorKind::Usage),
            ("unwatch usage 1", ErrorKind::Usage),
            ("vm show", ErrorKind::Usage),
            ("vm", ErrorKind::Usage),
            ("vm frobnicate linux", ErrorKind::Usage),
            ("vm start", ErrorKind::Usage),
            ("vm start linux now", ErrorKind::Usage),
            ("vm start nobody", ErrorKind::NoSuchVm),
            ("vcpu set linux", ErrorKind::Usage),
            ("vcpu set linux 0", ErrorKind::BadNumber),
            ("vcpu set linux -1", ErrorKind::BadNumber),
            ("vcpu set linux +8", ErrorKind::BadNumber),
            ("vcpu set linux 65536", ErrorKind::BadNumber),
            ("vcpu set linux 99999999999999999999", ErrorKind::BadNumber),
            ("vcpu set linux eight", ErrorKind::BadNumber),
            ("vcpu set linux 4294967298", ErrorKind::BadNumber),
            ("vcpu set linux 8/", ErrorKind::BadNumber),
            ("vcpu set linux 8 9", ErrorKind::Usage),
            ("vcpu set linux 8 --timeout", ErrorKind::Usage),
            ("vcpu set linux 8 --timeout 0", ErrorKind::BadNumber),
            ("vcpu set linux 8 --timeout 3601", ErrorKind::BadNumber),
            ("vcpu set linux 8 --timeout 1 2", ErrorKind::Usage),
            ("vcpu set nobody 8", ErrorKind::NoSuchVm),
            ("vcpu pin linux 1", ErrorKind::Usage),
            ("vcpu pin linux 1 2 3", ErrorKind::Usage),
            ("vcpu pin linux x 2", ErrorKind::BadNumber),
            ("vcpu pin linux 1 65536", ErrorKind::BadNumber),
            ("vcpu pin nobody 1 2", ErrorKind::NoSuchVm),
            ("console", ErrorKind::Usage),
            ("stats nobody", ErrorKind::NoSuchVm),
            ("mem set linux", ErrorKind::Usage),
            ("mem set linux 2", ErrorKind::BadNumber),
            ("mem set linux 2T", ErrorKind::BadNumber),
            ("mem set linux G", ErrorKind::BadNumber),
            ("mem set linux 2G --timeout", ErrorKind::Usage),
            ("mem set linux 2G now", ErrorKind::Usage),
            ("mem list nobody", ErrorKind::NoSuchVm),
            ("json", ErrorKind::Usage),
            ("json maybe", ErrorKind::Usage),
        ];
        for (line, kind) in cases {
            assert_eq!(parse(line).map_err(|error| error.kind), Err(kind), "{line}");
        }
    }

    #[test]
    fn every_form_that_help_shows_is_understood() {
        for usage in USAGE {
            let line = usage
                .form
                .replace("[--timeout S]", "--timeout 5")
                .replace("[--force]", "--force")
                .replace("[set TIME]", "set 5")
                .replace("[COMMAND]", "vm start")
                .replace("[NAME]", "linux")
                .replace("NAME", "linux")
                .replace(" N ", " 8 ")
                .replace(" SIZE ", " 2G ")
                .replace(" N", " 8")
                .replace("MILLICORES", "250")
                .replace("SECONDS", "10")
                .replace("VCPU CPU", "1 2");
            assert!(matches!(parse(&line), Ok(Some(_))), "{line}");
            let example = usage.example("linux");
            assert!(matches!(parse(&example), Ok(Some(_))), "{example}");
            let words = usage
                .form
                .split(' ')
                .take_while(|word| word.starts_with(char::is_lowercase));
            assert!(
                words
                    .zip(example.split(' '))
                    .all(|(own, other)| own == other)
            );
        }
    }

    proptest! {
        /// Any text is parsed or refused.
        #[test]
        fn any_line_is_answered(line in ".{0,200}") {
            let _ = parse(&line);
        }

        /// Anything made of the language's own words is parsed or refused.
        #[test]
        fn any_words_are_answered(
            words in proptest::collection::vec(
                proptest::sample::select(&[
                    "vm", "vcpu", "set", "pin", "list", "linux", "8", "--timeout", "stats", "console", "json", "on", "99999999999", "start",
                ]),
                0..7,
            ),
        ) {
            let _ = parse(&words.join(" "));
        }
    }
}
