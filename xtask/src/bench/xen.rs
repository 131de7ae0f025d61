//! The bench guest under Debian's Xen: one domain that Xen starts itself, without a dom0.
//!
//! QEMU's own device tree gets what Xen's boot protocol asks for: the domain's node below `/chosen`, with the address at
//! which QEMU's loader puts the guest's image (Xen's docs/misc/arm/device-tree/booting.txt). Xen runs with its
//! defaults, or at its best.

use super::guest;
use super::rows::Findings;
use crate::{process, setup};
use ::tests::artefacts;
use ::tests::guest::follow;
use anyhow::Context;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Where the guest's image is put, in the middle of the machine's RAM.
const IMAGE_ADDRESS: u64 = 0x6000_0000;
const MEMORY_MIB: u64 = 1024;
/// Xen needs some seconds to its first guest instruction.
const LIMIT: Duration = Duration::from_secs(300);

/// The fastest of Xen's schedulers, WFI left to the guest, and timers without slack (Xen's docs/misc/xen-command-line.pandoc).
const BEST: &str = "sched=null vwfi=native timer_slop=0";

/// Runs all rows under Xen with its defaults.
pub(crate) fn measure(samples: u32) -> Findings {
    let mut findings = Findings::default();
    for (cpus, words) in guest::PEER_RUNS {
        findings.extend(run(
            "bench-xen",
            cpus,
            &format!("samples={samples} {words}"),
            "",
        ));
    }
    findings
}

/// Runs the rows where each vCPU owns a CPU under Xen with its best options: its null scheduler knows no other way.
pub(crate) fn at_its_best(samples: u32) -> Findings {
    let words = format!("samples={samples}");
    let mut findings = run("bench-xen-best", guest::CPUS, &words, BEST);
    let why = format!("no rows with shared CPUs: with \"{BEST}\" no two vCPUs share one");
    findings.notes.push(why);
    findings
}

fn run(name: &str, cpus: u32, words: &str, options: &str) -> Findings {
    super::attempt(name, || {
        let xen = setup::guest::xen()?;
        let image = artefacts::guest("bench");
        let directory = artefacts::log_directory(name);
        let size = std::fs::metadata(&image)?.len();
        let tree = device_tree(&directory, cpus, &domain(size, words, options))?;
        let loader = format!(
            "loader,file={},addr={IMAGE_ADDRESS:#x},force-raw=on",
            image.display()
        );
        let arguments = ["-dtb".to_owned(), tree, "-device".to_owned(), loader];
        let mut running = guest::machine(name, &arguments)
            .cpus(cpus)
            .memory_mib(MEMORY_MIB)
            .option("virtualization=on")
            .bare(&xen, "");
        Ok(guest::findings(follow(
            &mut running.console,
            None,
            "bench",
            LIMIT,
        )))
    })
}

/// The source of what is added to QEMU's device tree. Memory is in KiB.
fn domain(size: u64, words: &str, options: &str) -> String {
    format!(
        "/ {{ chosen {{ #address-cells = <2>; #size-cells = <2>;
            xen,xen-bootargs = \"console=dtuart dtuart=/pl011@9000000 bootscrub=0 {options}\";
            domU1 {{ compatible = \"xen,domain\"; #address-cells = <2>; #size-cells = <2>;
                memory = <0 {kib}>; cpus = <{cpus}>; vpl011;
                module@0 {{ compatible = \"multiboot,kernel\", \"multiboot,module\";
                    reg = <0 {IMAGE_ADDRESS:#x} 0 {size:#x}>; bootargs = \"{words}\"; }}; }}; }}; }};\n",
        kib = 64 << 10,
        cpus = guest::CPUS,
    )
}

/// Writes QEMU's device tree with something added, and returns its path.
fn device_tree(directory: &Path, cpus: u32, added: &str) -> anyhow::Result<String> {
    let path = |name: &str| directory.join(name).display().to_string();
    let (plain, source, tree) = (path("qemu.dtb"), path("xen.dts"), path("xen.dtb"));
    let machine =
        format!("virt,gic-version=3,virtualization=on,dtb-randomness=off,dumpdtb={plain}");
    let memory = format!("{MEMORY_MIB}M");
    let cpus = cpus.to_string();
    process::capture(Command::new(setup::qemu::PROGRAM).args([
        "-M",
        &machine,
        "-cpu",
        guest::MODEL,
        "-smp",
        &cpus,
        "-m",
        &memory,
        "-nodefaults",
        "-display",
        "none",
    ]))?;
    let text =
        process::capture(Command::new("dtc").args(["-q", "-I", "dtb", "-O", "dts", &plain]))?;
    std::fs::write(&source, text + added).context("the device tree's source")?;
    process::capture(
        Command::new("dtc").args(["-q", "-I", "dts", "-O", "dtb", "-o", &tree, &source]),
    )?;
    Ok(tree)
}
