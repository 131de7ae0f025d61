//! Commands: the text an operator or a program writes, parsed into values that are complete and in range.

use super::error::{CommandError, ErrorKind};
use super::names::Names;
use alloc::format;
use types::ids::{PcpuId, VcpuId, VmId};

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

/// A command, checked but not yet carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Explain the commands.
    Help,
    /// Describe the host.
    Host,
    /// List the VMs.
    VmList,
    /// Do something with a VM.
    Vm {
        /// The VM.
        vm: VmId,
        /// What to do.
        action: VmAction,
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
    /// Show the hypervisor's log.
    Log,
    /// Speak JSON lines on the terminal.
    JsonOn,
    /// Go back from JSON lines to the prompt.
    JsonOff,
}

/// The longest time that `--timeout` takes, in seconds.
pub const MAX_TIMEOUT_S: u32 = 3600;

/// A command's usage and what it does; the table behind `help`.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// How to write it.
    pub form: &'static str,
    /// What it does.
    pub text: &'static str,
}

/// All commands, in the order in which `help` shows them.
pub const USAGE: [Usage; 19] = [
    usage("help", "explain the commands"),
    usage("vm list", "list the VMs"),
    usage("vm start NAME", "start a VM that is off"),
    usage("vm stop NAME", "turn a VM off at once"),
    usage("vm reset NAME", "reset a VM at once"),
    usage("vm pause NAME", "keep a VM from running"),
    usage("vm resume NAME", "let a paused VM run on"),
    usage("vm powerbutton NAME", "press the guest's power button"),
    usage("vcpu list NAME", "list a VM's vCPUs"),
    usage("vcpu set NAME N [--timeout S]", "give the guest N vCPUs"),
    usage("vcpu pin NAME VCPU CPU", "run a vCPU on this CPU"),
    usage("device list NAME", "list a VM's virtio devices"),
    usage("disk list [NAME]", "list disks and what is written of them"),
    usage("console NAME", "attach the terminal to a VM's console"),
    usage("stats [NAME]", "count exits by reason"),
    usage("log", "show the hypervisor's log"),
    usage("host", "describe the host"),
    usage("json on", "speak JSON lines on this terminal"),
    usage("json off", "go back to the prompt"),
];

const fn usage(form: &'static str, text: &'static str) -> Usage {
    Usage { form, text }
}

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
        b"help" | b"?" => arguments.only("help", Command::Help),
        b"host" => arguments.only("host", Command::Host),
        b"log" => arguments.only("log", Command::Log),
        b"vm" => arguments.vm(),
        b"vcpu" => arguments.vcpu(),
        b"console" => arguments.on_vm("console NAME", |vm| Command::Console { vm }),
        b"device" => arguments.device(),
        b"disk" => arguments.disk(),
        b"stats" => arguments.stats(),
        b"json" => arguments.json(),
        _ => Err(unknown(first)),
    };
    command.map(Some)
}

fn unknown(word: &str) -> CommandError {
    let message = format!("there is no command \"{word}\"; `help` lists them");
    CommandError::new(ErrorKind::UnknownCommand, message)
}

/// What is left of a line.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (mut start, mut end) = (0_usize, 0_usize);
        for &byte in self.0.as_bytes() {
            if byte <= b' ' && byte.is_ascii_whitespace() {
                if start != end {
                    break;
                }
                start = start.wrapping_add(1);
            }
            end = end.wrapping_add(1);
        }
        let (text, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        text.get(start..).filter(|word| !word.is_empty())
    }
}

/// The words after a command's first, and what the command should have looked like.
struct Arguments<'a> {
    words: Words<'a>,
    names: &'a Names,
    form: &'static str,
}

impl<'a> Arguments<'a> {
    fn vm(&mut self) -> Result<Command, CommandError> {
        self.form = "vm list | vm start|stop|reset|pause|resume|powerbutton NAME";
        let action = match self.word()? {
            "list" => return self.only("vm list", Command::VmList),
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

    fn stats(&mut self) -> Result<Command, CommandError> {
        self.form = "stats [NAME]";
        let vm = self.any_name()?;
        self.only(self.form, Command::Stats { vm })
    }

    fn device(&mut self) -> Result<Command, CommandError> {
        self.form = "device list NAME";
        match self.word()? {
            "list" => self.on_vm(self.form, |vm| Command::DeviceList { vm }),
            _ => Err(self.misused()),
        }
    }

    fn disk(&mut self) -> Result<Command, CommandError> {
        self.form = "disk list [NAME]";
        if self.word()? != "list" {
            return Err(self.misused());
        }
        let vm = self.any_name()?;
        self.only(self.form, Command::DiskList { vm })
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
    use super::{Command, CommandError, ErrorKind, Names, USAGE, VmAction};
    use proptest::prelude::*;
    use types::ids::{PcpuId, VcpuId, VmId};

    const LINUX: VmId = VmId::new(0);

    fn parse(line: &str) -> Result<Option<Command>, CommandError> {
        let names = ["linux", "rtos"].map(Into::into).to_vec();
        super::parse(line, &Names::new(names))
    }

    #[test]
    fn commands_by_table() {
        let set = |count, timeout_s| Command::VcpuSet {
            vm: LINUX,
            count,
            timeout_s,
        };
        let cases = [
            ("help", Command::Help),
            ("  ?  ", Command::Help),
            ("host", Command::Host),
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
            ("help me", ErrorKind::Usage),
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
                .replace("[NAME]", "linux")
                .replace("NAME", "linux")
                .replace(" N ", " 8 ")
                .replace("VCPU CPU", "1 2");
            assert!(matches!(parse(&line), Ok(Some(_))), "{line}");
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
