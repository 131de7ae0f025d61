//! `cargo xtask run`: boots Bullpen on QEMU with the demo's guest, with a guest of the user's, or with a manifest.

mod qemu;

use qemu::Channel;

use crate::bundle::{self, Packed};
use crate::manifest_toml::{Bytes, ManifestToml, Value, VmToml};
use crate::setup::{self, Guest};
use crate::{build, paths, process, say};
use anyhow::ensure;
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use control_plane::firmware::Firmware;
use std::path::{Path, PathBuf};

/// The name of the guest that options describe.
const VM_NAME: &str = "linux";
/// What the demo's kernel is told: our first process is the only one.
const DEMO_COMMAND_LINE: &str = "rdinit=/init";

/// Where QEMU's `virt` machine loads an Image: 2 MiB above the start of its RAM.
const QEMU_LOAD_ADDRESS: u64 = 0x4020_0000;

/// The device tree of a Raspberry Pi 4, below the kernel's folder.
const PI_4: &str = "broadcom/bcm2711-rpi-4-b.dtb";

/// A machine of QEMU's.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Board {
    Virt,
    Raspi4b,
}

/// What to boot, and on what machine.
#[derive(Args)]
pub(crate) struct Options {
    /// The guest's kernel: an arm64 Image or a raw binary. Default: Debian's Linux 6.12
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The guest's initramfs. Default: the demo's, if --kernel is not given either
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// The guest's command line; added to the demo's own where that boots
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    append: Option<String>,
    /// vCPUs that the guest boots with
    #[arg(long, value_name = "N", default_value_t = 2)]
    vcpus: u16,
    /// vCPUs that the guest can have; the others are held in reserve. Default: 8, or --vcpus if that is more
    #[arg(long, value_name = "M")]
    max_vcpus: Option<u16>,
    /// The guest's memory, such as 512M or 2G
    #[arg(long, value_name = "SIZE", default_value = "512M")]
    mem: Bytes,
    /// The guest's firmware tables
    #[arg(long, default_value = "acpi", value_parser = PossibleValuesParser::new(Firmware::WORDS))]
    firmware: String,
    /// Boots the VMs of a manifest instead of the one that the options above describe
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "initrd", "append", "max_vcpus"])]
    manifest: Option<PathBuf>,
    /// The machine: QEMU's virt, or its Raspberry Pi 4 with the tree that Debian's kernel has for it (4 Cortex-A72, 960 MiB)
    #[arg(long, value_name = "BOARD", default_value = "virt")]
    board: Board,
    /// The machine's CPUs
    #[arg(long, value_name = "P", default_value_t = 4)]
    cpus: u16,
    /// The machine's CPU model, as QEMU's -cpu takes it
    #[arg(long, value_name = "MODEL", default_value = "cortex-a57")]
    cpu: String,
    /// Where the console is: stdio, unix:PATH (waits for a client) or file:PATH (output only)
    #[arg(long, value_name = "CHANNEL", default_value = "stdio")]
    console: Channel,
    /// Where the control channel is: unix:PATH
    #[arg(long, value_name = "CHANNEL")]
    control: Option<Channel>,
    /// Counts instructions instead of time, so that every run is the same
    #[arg(long)]
    icount: bool,
    /// Waits for gdb
    #[arg(long)]
    gdb: bool,
    /// Prints the QEMU command instead of running it
    #[arg(long)]
    dry_run: bool,
}

impl Options {
    fn max_vcpus(&self) -> u16 {
        self.max_vcpus.unwrap_or(self.vcpus.max(8))
    }
}

/// Builds what is needed, then boots it.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    setup::qemu::ensure()?;
    let image = build::hypervisor()?;
    let directory = paths::target().join("run");
    std::fs::create_dir_all(&directory)?;
    let initrd = directory.join(format!("bundle-{}.cpio", std::process::id()));
    let packed = match &options.manifest {
        Some(file) => bundle::pack(file, &initrd)?,
        None => {
            let vms = vec![vm(options)?];
            let manifest = ManifestToml {
                vms,
                ..ManifestToml::default()
            };
            bundle::pack_parsed(&manifest, Path::new(""), &initrd)?
        }
    };
    let result = boot(options, &image, &initrd, &packed);
    // A dry run's command needs the bundle; otherwise nothing does any more.
    if !options.dry_run {
        drop(std::fs::remove_file(&initrd));
    }
    result
}

fn boot(options: &Options, image: &Path, initrd: &Path, packed: &Packed) -> anyhow::Result<()> {
    let bundle_bytes = std::fs::metadata(initrd)?.len();
    let tree = match options.board {
        Board::Virt => None,
        Board::Raspi4b => Some(setup::guest::tree(PI_4)?),
    };
    let mut command = qemu::command(&qemu::Machine {
        pi_4: tree.as_deref(),
        image,
        initrd,
        memory_mib: qemu::memory_mib(packed.guest_memory_bytes, bundle_bytes),
        cpus: options.cpus,
        cpu: &options.cpu,
        console: &options.console,
        control: options.control.as_ref(),
        deterministic: options.icount,
        wait_for_gdb: options.gdb,
    });
    if options.dry_run {
        println!("{}", process::shown(&command));
        return Ok(());
    }
    for hint in hints(options, &packed.vms) {
        say::line(&hint);
    }
    process::run(&mut command)
}

/// The one guest that the options describe.
fn vm(options: &Options) -> anyhow::Result<VmToml> {
    let (vcpus, max_vcpus) = (options.vcpus, options.max_vcpus());
    ensure!(
        vcpus >= 1 && vcpus <= max_vcpus,
        "--vcpus {vcpus} is not between 1 and --max-vcpus {max_vcpus}"
    );
    let appended = options.append.as_deref().unwrap_or_default();
    let (kernel, initrd, command_line) = match &options.kernel {
        Some(kernel) => (kernel.clone(), options.initrd.clone(), appended.to_owned()),
        None => {
            let Guest { kernel, initrd } = setup::demo_guest()?;
            let command_line = format!("{DEMO_COMMAND_LINE} {appended}");
            (
                kernel,
                Some(options.initrd.clone().unwrap_or(initrd)),
                command_line,
            )
        }
    };
    let vm = VmToml::new(VM_NAME, &kernel, options.mem)
        .with(
            "command-line",
            Value::Text(command_line.trim_end().to_owned()),
        )
        .with("boot-vcpus", Value::Count(vcpus.into()))
        .with("max-vcpus", Value::Count(max_vcpus.into()))
        .with("firmware", Value::Text(options.firmware.clone()));
    Ok(match initrd {
        Some(initrd) => vm.with("initrd", Value::File(initrd)),
        None => vm,
    })
}

/// What to know before the machine starts.
fn hints(options: &Options, vms: &[String]) -> Vec<String> {
    let mut hints = vec![match &options.manifest {
        Some(file) => format!(
            "{} on {} host CPUs: {}",
            file.display(),
            options.cpus,
            vms.join(", ")
        ),
        None => format!(
            "one guest, `{VM_NAME}`: {} of {} vCPUs, on {} host CPUs",
            options.vcpus,
            options.max_vcpus(),
            options.cpus
        ),
    }];
    match &options.console {
        Channel::Stdio => {
            hints.push("Ctrl-] leads from the guest to the Bullpen console and back; try `vcpu set linux 8` there, then `help`".to_owned());
            hints.push("Ctrl-A then X ends QEMU; Ctrl-A twice sends Ctrl-A to the guest; Ctrl-C goes to the guest".to_owned());
        }
        channel => hints.push(format!("the console is {channel}; Ctrl-C ends QEMU")),
    }
    hints.extend(options.control.as_ref().map(|channel| {
        format!("the control channel is {channel}: JSON lines, see docs/console.md")
    }));
    if options.gdb {
        hints.push(format!(
            "waiting for: gdb-multiarch -ex 'add-symbol-file {} -o {QEMU_LOAD_ADDRESS:#x}' -ex 'target remote :1234'",
            build::hypervisor_elf().display()
        ));
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        Cli::try_parse_from(std::iter::once(&"run").chain(arguments)).map(|cli| cli.options)
    }

    #[test]
    fn the_demo_is_two_of_eight_vcpus_on_four_cpus() {
        let options = parse(&[]).unwrap();
        assert_eq!(
            (options.vcpus, options.max_vcpus(), options.cpus),
            (2, 8, 4)
        );
        assert_eq!(
            (options.mem, options.cpu.as_str()),
            (Bytes(512 << 20), "cortex-a57")
        );
    }

    #[test]
    fn more_vcpus_than_eight_need_no_second_option() {
        assert_eq!(parse(&["--vcpus", "16"]).unwrap().max_vcpus(), 16);
    }

    #[test]
    fn a_manifest_excludes_what_it_says_itself() {
        assert!(parse(&["--manifest", "m.toml", "--kernel", "k"]).is_err());
        assert!(parse(&["--manifest", "m.toml", "--cpus", "2"]).is_ok());
    }

    #[test]
    fn the_hints_name_the_escape_and_the_way_out() {
        let text = hints(&parse(&[]).unwrap(), &["linux".to_owned()]).join("\n");
        assert!(text.contains("2 of 8 vCPUs, on 4 host CPUs"), "{text}");
        assert!(
            text.contains("Ctrl-]") && text.contains("Ctrl-A then X"),
            "{text}"
        );
    }
}
