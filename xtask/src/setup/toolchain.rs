//! The compiler for the bare machine.
//!
//! Two ways lead to it. A rustup toolchain that has the target's core library is used as it is. Otherwise, where apt
//! exists, Debian's own compiler builds the core library from Debian's own sources. Both are stable compilers; the
//! second needs the switch that lets a stable compiler build its library, and gets it for these builds only.

use super::apt;
use crate::build::TARGET;
use crate::{paths, process, say};
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest compiler that knows what the code uses; the workspace's `rust-version`.
const OLDEST_RUSTC: (u32, u32) = (1, 90);
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_RUST_SOURCE: &str = "/usr/lib/rustlib/src/rust/library/Cargo.toml";
/// Debian's current compiler, its library's sources and a linker, as Debian's stable releases carry them for browsers.
const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"];
/// The linkers to look for, newest first.
const LINKERS: [&str; 7] = [
    "ld.lld-22",
    "ld.lld-21",
    "ld.lld-20",
    "ld.lld-19",
    "ld.lld",
    "ld.lld-16",
    "ld.lld-14",
];
const LINKER_PACKAGES: [&str; 2] = ["lld-22", "lld"];
const RUSTUP_REMEDY: &str = "rustup target add aarch64-unknown-none-softfloat";

/// A compiler that can build for the bare machine.
pub(crate) enum Toolchain {
    /// The toolchain that runs this program.
    Rustup,
    /// Debian's packages, with the linker to use.
    Debian {
        /// LLVM's linker.
        linker: PathBuf,
    },
}

/// Finds a toolchain, or installs Debian's.
pub(crate) fn ensure() -> anyhow::Result<Toolchain> {
    if let Some(found) = find() {
        return Ok(found);
    }
    if !apt::exists() {
        bail!("no compiler for {TARGET}: run `{RUSTUP_REMEDY}`");
    }
    say::step("installing the compiler for the bare machine", || {
        apt::install(&DEBIAN_PACKAGES)?;
        if linker().is_none() {
            apt::install_first(&LINKER_PACKAGES)?;
        }
        Ok(())
    })?;
    match find() {
        Some(found) => Ok(found),
        None => bail!(
            "Debian's compiler here is older than {}.{}: enable Debian's security archive in apt, or run `{RUSTUP_REMEDY}`",
            OLDEST_RUSTC.0,
            OLDEST_RUSTC.1
        ),
    }
}

fn find() -> Option<Toolchain> {
    if rustup_has_target() {
        return Some(Toolchain::Rustup);
    }
    let usable = Path::new(DEBIAN_RUST_SOURCE).is_file()
        && Path::new(DEBIAN_CARGO).is_file()
        && debian_rustc_is_new_enough();
    usable
        .then(linker)
        .flatten()
        .map(|linker| Toolchain::Debian { linker })
}

fn rustup_has_target() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    process::capture(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))
        .is_ok_and(|directory| Path::new(directory.trim()).is_dir())
}

fn debian_rustc_is_new_enough() -> bool {
    let mut command = Command::new(DEBIAN_RUSTC);
    command.arg("--version");
    clean(&mut command);
    process::capture(&mut command)
        .ok()
        .and_then(|text| version(&text))
        .is_some_and(|found| found >= OLDEST_RUSTC)
}

/// Major and minor number in the output of a program's `--version`: those of its first word that is a version.
pub(crate) fn version(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let mut parts = word.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

fn linker() -> Option<PathBuf> {
    LINKERS.iter().find_map(|name| paths::find_program(name))
}

/// The folder with `llvm-cov` and `llvm-profdata` of the LLVM that the host's compiler has; installs them where apt can.
///
/// # Errors
/// The compiler does not say which LLVM it has, or nothing here has its tools.
pub(crate) fn llvm_tools() -> anyhow::Result<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = process::capture(Command::new(&rustc).arg("-vV"))?;
    let major = llvm_major(&said).context("the compiler does not say which LLVM it has")?;
    let sysroot = process::capture(Command::new(&rustc).args(["--print", "target-libdir"]))?;
    let folders = [
        // rustup's component llvm-tools lies beside the libraries.
        Path::new(sysroot.trim()).with_file_name("bin"),
        PathBuf::from(format!("/usr/lib/llvm-{major}/bin")),
    ];
    let find = || {
        folders
            .iter()
            .find(|folder| folder.join("llvm-cov").is_file())
    };
    if find().is_none() && apt::exists() {
        let package = format!("llvm-{major}");
        say::step("installing LLVM's tools", || apt::install(&[&package]))?;
    }
    let found = find().cloned();
    found.context("no llvm-cov of the compiler's LLVM: run `rustup component add llvm-tools`")
}

/// The major number in the line `LLVM version: 22.1.2` of `rustc -vV`.
fn llvm_major(said: &str) -> Option<u32> {
    let line = said.lines().find(|line| line.starts_with("LLVM version"))?;
    version(line).map(|(major, _)| major)
}

/// Takes away what the cargo that runs this program has put into the environment, so that another one starts fresh.
fn clean(command: &mut Command) {
    const KEPT: [&str; 4] = ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_TERM_"];
    const DROPPED: [&str; 5] = ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS", "RUSTDOC"];
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let kept = KEPT.iter().any(|prefix| text.starts_with(prefix));
        let dropped =
            DROPPED.iter().any(|prefix| text.starts_with(prefix)) || text == "LD_LIBRARY_PATH";
        if dropped && !kept {
            command.env_remove(&name);
        }
    }
}

impl Toolchain {
    /// Cargo, with an environment that leads it to this toolchain's compiler.
    pub(crate) fn cargo(&self) -> Command {
        match self {
            Self::Rustup => {
                let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
                let mut command = Command::new(cargo);
                command.env_remove("RUSTFLAGS");
                command
            }
            Self::Debian { .. } => {
                let mut command = Command::new(DEBIAN_CARGO);
                clean(&mut command);
                let path = std::env::var("PATH").unwrap_or_default();
                command
                    .env("PATH", format!("/usr/bin:{path}"))
                    .env("RUSTC", DEBIAN_RUSTC)
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("CARGO_FUTURE_INCOMPAT_REPORT_FREQUENCY", "never");
                command
            }
        }
    }

    /// The flags of every build: Debian has no core library for the target, so it is built too.
    pub(crate) fn cargo_flags(&self) -> &'static [&'static str] {
        match self {
            Self::Rustup => &[],
            Self::Debian { .. } => &[
                "-Zbuild-std=core,alloc,compiler_builtins",
                "-Zbuild-std-features=compiler-builtins-mem,optimize_for_size",
                // The library is built for size, as every dependency, but for what copies memory.
                "--config=profile.release.package.compiler_builtins.opt-level=3",
            ],
        }
    }

    /// The flags that name the linker; rustup brings its own.
    pub(crate) fn link_flags(&self) -> Vec<String> {
        match self {
            Self::Rustup => Vec::new(),
            Self::Debian { linker } => vec![
                "-Clinker-flavor=ld.lld".to_owned(),
                format!("-Clinker={}", linker.display()),
            ],
        }
    }

    /// The compiler's version, such as `1.96.0`: counts of instructions are those of one compiler.
    pub(crate) fn compiler_version(&self) -> anyhow::Result<String> {
        let mut command = match self {
            Self::Rustup => {
                Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            }
            Self::Debian { .. } => {
                let mut command = Command::new(DEBIAN_RUSTC);
                clean(&mut command);
                command
            }
        };
        let text = process::capture(command.arg("--version"))?;
        let word = text.split_whitespace().nth(1);
        word.map(str::to_owned)
            .with_context(|| format!("rustc --version says {text:?}"))
    }

    /// Whether clippy can check code for the bare machine.
    pub(crate) fn has_clippy(&self) -> bool {
        match self {
            Self::Rustup => process::succeeds(self.cargo().args(["clippy", "--version"])),
            Self::Debian { .. } => Path::new("/usr/bin/cargo-clippy").is_file(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_says_which_llvm_it_has() {
        let said = "rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(llvm_major(said), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0\n"), None);
    }

    #[test]
    fn versions_are_found_in_what_programs_print() {
        assert_eq!(
            version("rustc 1.96.0 (ac68faa20 2026-05-25)"),
            Some((1, 96))
        );
        assert_eq!(
            version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)"),
            Some((10, 0))
        );
        assert_eq!(version("no number"), None);
        assert!(version("rustc 1.85.1").unwrap() < OLDEST_RUSTC);
    }
}
