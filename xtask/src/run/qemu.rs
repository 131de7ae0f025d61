//! The command line of QEMU: one `virt` machine with EL2, one or two UARTs, and nothing else.

use crate::setup;
use std::fmt;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

/// What the hypervisor itself, its tables and the firmware need beside the guests, in MiB.
const HOST_RESERVE_MIB: u64 = 128;
/// The host's memory is a multiple of this, in MiB, and at least twice as much.
const HOST_MEMORY_UNIT_MIB: u64 = 256;
/// One instruction a nanosecond, and no real time: what is counted is the same in every run.
const DETERMINISTIC: [&str; 6] = [
    "-icount",
    "shift=0,sleep=off",
    "-rtc",
    "base=2025-01-01T00:00:00,clock=vm",
    "-seed",
    "1",
];

/// Where a UART of the machine leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// This terminal.
    Stdio,
    /// A Unix socket on which QEMU listens.
    Unix(String),
    /// A file that takes the output.
    File(String),
}

impl FromStr for Channel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "stdio" => Ok(Self::Stdio),
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.to_owned())),
            _ => Err("neither stdio nor unix:PATH nor file:PATH".to_owned()),
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Stdio => f.write_str("this terminal"),
            Self::Unix(path) => write!(f, "the socket {path}"),
            Self::File(path) => write!(f, "the file {path}"),
        }
    }
}

/// The machine to start.
pub(crate) struct Machine<'a> {
    /// The device tree of a Raspberry Pi 4, if it is one and not a `virt` machine.
    pub(crate) pi_4: Option<&'a Path>,
    pub(crate) image: &'a Path,
    pub(crate) initrd: &'a Path,
    pub(crate) memory_mib: u64,
    pub(crate) cpus: u16,
    pub(crate) cpu: &'a str,
    pub(crate) console: &'a Channel,
    pub(crate) control: Option<&'a Channel>,
    pub(crate) deterministic: bool,
    pub(crate) wait_for_gdb: bool,
}

/// The memory of a host that holds such guests and such a bundle.
pub(crate) fn memory_mib(guest_bytes: u64, bundle_bytes: u64) -> u64 {
    let needed = (guest_bytes + bundle_bytes).div_ceil(1 << 20) + HOST_RESERVE_MIB;
    needed
        .next_multiple_of(HOST_MEMORY_UNIT_MIB)
        .max(2 * HOST_MEMORY_UNIT_MIB)
}

/// The command that starts the machine.
pub(crate) fn command(machine: &Machine) -> Command {
    let mut command = Command::new(setup::qemu::PROGRAM);
    match machine.pi_4 {
        Some(tree) => command.args(["-M", "raspi4b", "-dtb"]).arg(tree),
        None => add_virt(&mut command, machine),
    };
    command
        .args([
            "-nodefaults",
            "-audio",
            "none",
            "-display",
            "none",
            "-no-reboot",
        ])
        .arg("-kernel")
        .arg(machine.image)
        .arg("-initrd")
        .arg(machine.initrd);
    // The control channel's socket comes first: when QEMU waits for the console's client, both are there.
    if let Some(control) = machine.control {
        add_chardev(&mut command, "control", control, "off");
    }
    add_chardev(&mut command, "console", machine.console, "on");
    let control = machine.control.map(|_| "chardev:control");
    let serial = match machine.pi_4 {
        // The console of a Raspberry Pi is its second UART, as its tree says, the mini UART.
        Some(_) => [Some(control.unwrap_or("null")), Some("chardev:console")],
        None => [Some("chardev:console"), control],
    };
    for channel in serial.into_iter().flatten() {
        command.args(["-serial", channel]);
    }
    if machine.deterministic {
        command.args(DETERMINISTIC);
    }
    if machine.wait_for_gdb {
        command.args(["-s", "-S"]);
    }
    command
}

/// Adds a `virt` machine with EL2 and a GICv3.
fn add_virt<'c>(command: &'c mut Command, machine: &Machine) -> &'c mut Command {
    let randomness = if machine.deterministic {
        ",dtb-randomness=off"
    } else {
        ""
    };
    command
        .args([
            "-M",
            &format!("virt,virtualization=on,gic-version=3{randomness}"),
            "-cpu",
            machine.cpu,
        ])
        .args([
            "-smp",
            &machine.cpus.to_string(),
            "-m",
            &format!("{}M", machine.memory_mib),
        ])
}

/// Adds a character device. A terminal also carries QEMU's own escape, Ctrl-A, and no signals: Ctrl-C is the guest's.
fn add_chardev(command: &mut Command, id: &str, channel: &Channel, wait: &str) {
    let path = |path: &str| path.replace(',', ",,");
    let device = match channel {
        Channel::Stdio => format!("stdio,id={id},mux=on,signal=off"),
        Channel::Unix(socket) => {
            format!("socket,id={id},path={},server=on,wait={wait}", path(socket))
        }
        Channel::File(file) => format!("file,id={id},path={}", path(file)),
    };
    command.args(["-chardev", &device]);
    if *channel == Channel::Stdio {
        command.args(["-mon", &format!("chardev={id},mode=readline")]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::shown;

    fn machine<'a>(console: &'a Channel, control: Option<&'a Channel>) -> Machine<'a> {
        Machine {
            pi_4: None,
            image: Path::new("/hv.img"),
            initrd: Path::new("/bundle.cpio"),
            memory_mib: 1024,
            cpus: 4,
            cpu: "max",
            console,
            control,
            deterministic: false,
            wait_for_gdb: false,
        }
    }

    #[test]
    fn the_console_is_the_first_uart_and_the_control_channel_the_second() {
        let (console, control) = (Channel::Stdio, Channel::Unix("/c,d".into()));
        let text = shown(&command(&machine(&console, Some(&control))));
        assert!(text.starts_with("qemu-system-aarch64 -M virt,virtualization=on,gic-version=3 -cpu max -smp 4 -m 1024M"), "{text}");
        assert!(text.contains("-chardev socket,id=control,path=/c,,d,server=on,wait=off -chardev stdio,id=console,mux=on,signal=off"), "{text}");
        assert!(
            text.ends_with("-serial chardev:console -serial chardev:control"),
            "{text}"
        );
    }

    #[test]
    fn without_a_control_channel_there_is_one_uart() {
        let text = shown(&command(&machine(&Channel::File("/log".into()), None)));
        assert_eq!(text.matches("-serial").count(), 1);
        assert!(
            text.contains("file,id=console,path=/log") && !text.contains("-icount"),
            "{text}"
        );
    }

    #[test]
    fn a_deterministic_machine_has_no_clock_and_no_randomness_of_its_own() {
        let text = shown(&command(&Machine {
            deterministic: true,
            ..machine(&Channel::Stdio, None)
        }));
        assert!(text.contains("gic-version=3,dtb-randomness=off"), "{text}");
        assert!(
            text.contains(
                "-icount shift=0,sleep=off -rtc base=2025-01-01T00:00:00,clock=vm -seed 1"
            ),
            "{text}"
        );
    }

    #[test]
    fn the_console_of_a_raspberry_pi_is_its_second_uart() {
        let (console, control) = (Channel::Stdio, Channel::Unix("/c".into()));
        let pi_4 = |control| {
            shown(&command(&Machine {
                pi_4: Some(Path::new("/pi.dtb")),
                ..machine(&console, control)
            }))
        };
        let text = pi_4(None);
        assert!(
            text.starts_with("qemu-system-aarch64 -M raspi4b -dtb /pi.dtb -nodefaults"),
            "{text}"
        );
        assert!(
            text.ends_with("-serial null -serial chardev:console"),
            "{text}"
        );
        let text = pi_4(Some(&control));
        assert!(
            text.ends_with("-serial chardev:control -serial chardev:console"),
            "{text}"
        );
    }

    #[test]
    fn the_host_has_room_for_its_guests() {
        assert_eq!(memory_mib(512 << 20, 36 << 20), 768);
        assert_eq!(memory_mib(1 << 20, 1), 512);
        assert_eq!(memory_mib(8 << 30, 100 << 20), 8448);
    }

    #[test]
    fn channels_are_read_and_wrong_ones_refused() {
        assert_eq!("stdio".parse(), Ok(Channel::Stdio));
        assert_eq!("unix:/a:b".parse(), Ok(Channel::Unix("/a:b".into())));
        for wrong in ["", "unix:", "tcp:1", "stdio:x"] {
            assert!(wrong.parse::<Channel>().is_err(), "{wrong}");
        }
    }
}
