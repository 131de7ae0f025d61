//! Builds what runs on the bare machine: the hypervisor's image and the test guests.

use crate::setup::toolchain::{self, Toolchain};
use crate::{elf, paths, process, say};
use anyhow::{Context, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The target of everything that runs bare: FP/SIMD registers stay the guest's until they are switched.
pub(crate) const TARGET: &str = "aarch64-unknown-none-softfloat";

/// The most bytes that the hypervisor's image may have: 256 KiB, 16 more for what tells a guest of its machine (SMBIOS, PPTT), a
/// page for answers that are written in rows (7 KiB of code that cross a page's end in each of its segments), 28 KiB for boards:
/// trees of any size, the UARTs that they have, CPUs that differ, and words for each way that one can be wrong; 24 for virtio:
/// disks take 20 KiB of code with their queues, their tables in the manifest and their lists, networks 14; 12 for the
/// terminal: completion, a search in the history, `vm show` and `top`; 8 for the host's end, the
/// time of day, and machines that are not as their tree says; 8 for more than 64 CPUs, whose 2 KiB cross two pages' ends; 52 for the
/// GICv2 and for caps of CPU time: the trap path and the state machine of a CPU are there once for each version of the interrupt
/// controller, so that the GICv3's pays nothing; 20 for what finds vCPUs that only wait; 4 for
/// the PMU's interrupt, the places of the host's CPUs, and the watchdog of a board without PSCI; and 4 for the page of the headers, which
/// make it an EFI application; 24 for memory that comes and goes while a guest runs; and 12 for entitlement, meters and weights.
const IMAGE_BYTES_MAX: u64 = 476 * 1024;

/// What differs between the programs that are built for the bare machine.
struct Program<'a> {
    /// Names the target directory, and the linker script `linker/NAME.ld`.
    name: &'a str,
    /// The arguments that choose the package.
    package: &'a [&'a str],
    /// What its linker is told beyond what all are.
    link: &'a [&'a str],
}

/// The hypervisor.
const HYPERVISOR: Program<'static> = Program {
    name: "el2",
    package: &[
        "--package",
        "hypervisor",
        "--bin",
        "hypervisor",
        "--features",
        "el2",
    ],
    // Relocations as bitmaps, and one body for functions that came out the same: the image is small.
    link: &["--pack-dyn-relocs=relr", "--icf=all"],
};

/// The test guests, a workspace of their own.
const GUESTS: Program<'static> = Program {
    name: "guest",
    package: &["--manifest-path", "tests/guests/Cargo.toml", "--bins"],
    link: &[],
};

/// Builds the hypervisor and returns the path of its flat image, `hypervisor.img`.
pub(crate) fn hypervisor() -> anyhow::Result<PathBuf> {
    let toolchain = toolchain::ensure()?;
    let executables = say::step("building the hypervisor", || {
        compile(&toolchain, &HYPERVISOR)
    })?;
    let executable = executables
        .first()
        .context("cargo built no executable named hypervisor")?;
    let image = paths::bare_target(HYPERVISOR.name).join("hypervisor.img");
    let flat = write_flat(executable, &image)?;
    ensure!(
        flat.has_image_header,
        "{} does not start with an arm64 Image header: see linker/el2.ld",
        executable.display()
    );
    say::line(&format!(
        "{}: {} bytes, {} in memory",
        image.display(),
        flat.bytes.len(),
        flat.memory_size
    ));
    Ok(image)
}

/// Fails if an image is larger than it may be; with a core library that was built elsewhere, only says so.
pub(crate) fn check_size(image: &Path) -> anyhow::Result<()> {
    let bytes = std::fs::metadata(image)?.len();
    if bytes <= IMAGE_BYTES_MAX {
        return Ok(());
    }
    let sentence = format!("the image is {bytes} bytes, more than {IMAGE_BYTES_MAX}");
    match toolchain::ensure()? {
        Toolchain::Debian { .. } => bail!(sentence),
        Toolchain::Rustup => say::line(&format!("warning: {sentence}")),
    }
    Ok(())
}

/// The hypervisor as linked, with its symbols.
pub(crate) fn hypervisor_elf() -> PathBuf {
    paths::bare_target(HYPERVISOR.name)
        .join(TARGET)
        .join("release/hypervisor")
}

/// Builds the test guests and returns the directory with one `NAME.img` each.
pub(crate) fn guests() -> anyhow::Result<PathBuf> {
    let toolchain = toolchain::ensure()?;
    let executables = say::step("building the test guests", || compile(&toolchain, &GUESTS))?;
    let directory = paths::bare_target(GUESTS.name).join("images");
    // No image of a guest that there is no more.
    drop(std::fs::remove_dir_all(&directory));
    std::fs::create_dir_all(&directory)?;
    for executable in &executables {
        let name = executable
            .file_stem()
            .context("an executable without a name")?;
        write_flat(executable, &directory.join(name).with_extension("img"))?;
    }
    say::line(&format!(
        "{}: {} guests",
        directory.display(),
        executables.len()
    ));
    Ok(directory)
}

/// Builds the TCG plugin for this machine's QEMU and returns its path.
pub(crate) fn tcg_plugin() -> anyhow::Result<PathBuf> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(paths::root())
        .args(["build", "--quiet", "--release", "--package", "tcg-plugin"])
        .stdin(Stdio::null());
    process::run(&mut command)?;
    Ok(paths::target().join("release/libtcg_plugin.so"))
}

/// Clippy for the hypervisor's EL2 half and for the guests; `None` where the toolchain has no clippy for the target.
pub(crate) fn clippy_commands() -> anyhow::Result<Option<[Command; 2]>> {
    let toolchain = toolchain::ensure()?;
    if !toolchain.has_clippy() {
        return Ok(None);
    }
    Ok(Some([HYPERVISOR, GUESTS].map(|program| {
        let mut command = cargo(&toolchain, "clippy", &program);
        command.args(["--quiet", "--", "--deny", "warnings"]);
        command
    })))
}

/// The compiler and linker flags of everything bare: the one place where they stand.
fn flags(toolchain: &Toolchain, program: &Program) -> Vec<String> {
    let script = paths::root()
        .join("linker")
        .join(program.name)
        .with_extension("ld");
    let link = |argument: &str| format!("-Clink-arg={argument}");
    let mut flags = vec![
        // An `Image` is started at any 2 MiB-aligned base.
        "-Crelocation-model=pic".to_owned(),
        link("-pie"),
        link(&format!("-T{}", script.display())),
        link("--no-dynamic-linker"),
        link("--build-id=none"),
        link("-zmax-page-size=4096"),
        link("-znorelro"),
        "-Cforce-frame-pointers=no".to_owned(),
    ];
    // Panics name their file; it does not matter where this machine keeps it.
    flags.extend(
        paths::crate_sources()
            .iter()
            .map(|folder| format!("--remap-path-prefix={}/=", folder.display())),
    );
    flags.extend(program.link.iter().map(|argument| link(argument)));
    flags.extend(toolchain.link_flags());
    flags
}

fn cargo(toolchain: &Toolchain, verb: &str, program: &Program) -> Command {
    let mut command = toolchain.cargo();
    command
        .current_dir(paths::root())
        .arg(verb)
        .args(toolchain.cargo_flags())
        .args(["--release", "--target", TARGET])
        .args(program.package)
        .env("CARGO_TARGET_DIR", paths::bare_target(program.name))
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            flags(toolchain, program).join("\x1f"),
        );
    command
}

/// Builds a program and returns its executables.
fn compile(toolchain: &Toolchain, program: &Program) -> anyhow::Result<Vec<PathBuf>> {
    let mut command = cargo(toolchain, "build", program);
    command
        .args(["--message-format", "json-render-diagnostics"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = command
        .output()
        .with_context(|| format!("cannot start {}", process::shown(&command)))?;
    ensure!(
        output.status.success(),
        "{} failed ({})",
        process::shown(&command),
        output.status
    );
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

/// The executables that cargo's JSON messages name.
fn executables(messages: &str) -> Vec<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .collect()
}

fn write_flat(executable: &Path, image: &Path) -> anyhow::Result<elf::Flat> {
    let bytes = std::fs::read(executable)
        .with_context(|| format!("cannot read {}", executable.display()))?;
    let flat =
        elf::flatten(&bytes).with_context(|| format!("cannot flatten {}", executable.display()))?;
    std::fs::write(image, &flat.bytes)
        .with_context(|| format!("cannot write {}", image.display()))?;
    Ok(flat)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_read_from_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","executable":"/t/smp"}"#,
            "\nnot json\n",
        );
        assert_eq!(executables(messages), [PathBuf::from("/t/smp")]);
    }
}
