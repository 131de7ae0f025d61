//! QEMU, new enough, and the small tools that the tests compare tables with.

use super::apt;
use super::toolchain::version;
use crate::{paths, process, say};
use anyhow::{Context, ensure};
use std::process::Command;

/// The emulator's program name.
pub(crate) const PROGRAM: &str = "qemu-system-aarch64";
const PACKAGE: &str = "qemu-system-arm";
/// The oldest QEMU whose `virt` machine and GIC the tests are known to pass on.
const OLDEST: (u32, u32) = (10, 0);
/// Programs of the tests, with the package of each.
const TEST_TOOLS: [(&str, &str); 3] = [
    ("iasl", "acpica-tools"),
    ("dtc", "device-tree-compiler"),
    ("dmidecode", "dmidecode"),
];

/// Makes sure that a new enough QEMU is installed.
pub(crate) fn ensure() -> anyhow::Result<()> {
    let found = installed();
    if found.is_some_and(|version| version >= OLDEST) {
        return Ok(());
    }
    let (major, minor) = OLDEST;
    ensure!(
        apt::exists(),
        "QEMU {major}.{minor} or newer is missing: install {PROGRAM} by your system's package manager"
    );
    say::step(
        &format!("installing QEMU {major}.{minor} or newer"),
        install,
    )?;
    let now = installed().with_context(|| format!("{PROGRAM} does not run"))?;
    ensure!(
        now >= OLDEST,
        "QEMU here is {}.{}, older than {major}.{minor}: install a newer {PROGRAM}",
        now.0,
        now.1
    );
    Ok(())
}

/// From the release itself where it is new enough, else from its backports.
fn install() -> anyhow::Result<()> {
    let release_has_it = apt::candidate(PACKAGE)?
        .and_then(|candidate| upstream(&candidate))
        .is_some_and(|version| version >= OLDEST);
    if release_has_it {
        apt::install(&[PACKAGE])
    } else {
        apt::install_from(&[PACKAGE], &format!("{}-backports", apt::codename()?))
    }
}

/// Major and minor number of a package's version, such as `1:10.0.2+ds-2`.
fn upstream(package_version: &str) -> Option<(u32, u32)> {
    version(
        package_version
            .split_once(':')
            .map_or(package_version, |(_epoch, rest)| rest),
    )
}

fn installed() -> Option<(u32, u32)> {
    version(&process::capture(Command::new(PROGRAM).arg("--version")).ok()?)
}

/// Makes sure that the programs of the tests are installed.
pub(crate) fn ensure_test_tools() -> anyhow::Result<()> {
    let missing: Vec<&str> = TEST_TOOLS
        .iter()
        .filter(|(program, _)| paths::find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    say::step("installing the tests' tools", || apt::install(&missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_versions_are_understood() {
        assert_eq!(upstream("1:10.0.2+ds-2+deb13u1~bpo12+1"), Some((10, 0)));
        assert_eq!(
            upstream("1:7.2+dfsg-7+deb12u16"),
            None,
            "older packages need no exact reading"
        );
        assert_eq!(upstream("11.1.3-1"), Some((11, 1)));
    }
}
