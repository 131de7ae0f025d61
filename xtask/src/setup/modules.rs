//! The modules with which a guest drives its virtio devices, from the package of its own kernel, in the order in which they load.
//!
//! Debian's packages hold no `modules.dep`, which their installation makes; a module itself names those that it needs.

use super::archive::{self, Archive};
use super::guest::{self, Kernel};
use crate::{process, say};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a guest loads; the rest of what its devices need is in Debian's kernels.
const WANTED: [&str; 4] = ["virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng"];

/// The path of a directory that holds a kernel's modules: a directory named like its release, and in that files in the order in which
/// they are to be loaded.
pub(crate) fn fetch(kernel: &Kernel) -> anyhow::Result<PathBuf> {
    let release = release(&fs::read(guest::kernel(kernel)?)?)?;
    // What is cached is what was wanted then.
    let wanted = WANTED.join("+");
    guest::cached(&format!("modules/{wanted}/{release}"), |destination| {
        let archive = Archive::open(kernel.suite)?;
        let package = format!("{}{release}", kernel.modules);
        say::step(&format!("fetching {package}"), || {
            let scratch = destination.with_extension("unpacked");
            drop(fs::remove_dir_all(&scratch));
            for deb in archive.download(std::slice::from_ref(&package))? {
                archive::unpack(&deb, "*.ko*", &scratch)?;
            }
            let mut files = BTreeMap::new();
            find(&scratch, &mut files)?;
            pick(&files, destination).with_context(|| package.clone())?;
            Ok(fs::remove_dir_all(&scratch)?)
        })
    })
}

/// Returns the release of a kernel, as `uname -r` prints it.
fn release(image: &[u8]) -> anyhow::Result<String> {
    const BEFORE: &[u8] = b"Linux version ";
    let at = image
        .windows(BEFORE.len())
        .position(|window| window == BEFORE)
        .context("the kernel does not say its version")?;
    let text = image[at + BEFORE.len()..]
        .split(|byte| *byte == b' ')
        .next();
    Ok(String::from_utf8_lossy(text.unwrap_or_default()).into_owned())
}

/// Lists the modules below a directory by their names.
fn find(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory)?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// Copies what is wanted, each module after those that it needs, with its place in the order before its name.
fn pick(files: &BTreeMap<String, PathBuf>, destination: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(destination)?;
    let mut order: Vec<String> = Vec::new();
    for name in WANTED {
        add(name, files, destination, &mut order)?;
    }
    Ok(())
}

fn add(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    destination: &Path,
    order: &mut Vec<String>,
) -> anyhow::Result<()> {
    if order.iter().any(|known| known == name) {
        return Ok(());
    }
    let file = files
        .get(name)
        .with_context(|| format!("no module {name}"))?;
    let module = read(file)?;
    for needed in needs(&module).with_context(|| format!("{name} is no module"))? {
        add(&needed, files, destination, order)?;
    }
    let place = destination.join(format!("{:02}-{name}.ko", order.len()));
    fs::write(place, module)?;
    order.push(name.to_owned());
    Ok(())
}

/// Reads a module, which may be packed.
fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => Ok(fs::read(file)?),
        Some("xz") => process::capture_bytes(
            Command::new("xz")
                .args(["--decompress", "--stdout"])
                .arg(file),
        ),
        _ => bail!("{} is packed in an unknown way", file.display()),
    }
}

/// Returns the modules that one needs: a list in its section `.modinfo`.
fn needs(module: &[u8]) -> Option<Vec<String>> {
    const KEY: &[u8] = b"\0depends=";
    let at = module.windows(KEY.len()).position(|window| window == KEY)?;
    let list = module
        .get(at + KEY.len()..)?
        .split(|byte| *byte == 0)
        .next()?;
    let names = String::from_utf8_lossy(list).replace('-', "_");
    Some(
        names
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::{needs, release};

    #[test]
    fn a_kernel_says_its_release() {
        let image = b"MZ...\0Linux version 6.12.95+deb12-cloud-arm64 (debian-kernel@...) #1 SMP\0";
        assert_eq!(release(image).unwrap(), "6.12.95+deb12-cloud-arm64");
        assert!(release(b"nothing").is_err());
    }

    #[test]
    fn a_module_names_what_it_needs() {
        let module =
            |list: &str| format!("\x7fELF\0license=GPL\0depends={list}\0name=x\0").into_bytes();
        assert_eq!(needs(&module("")), Some(vec![]));
        assert_eq!(
            needs(&module("net_failover,rng-core")),
            Some(vec!["net_failover".into(), "rng_core".into()])
        );
        assert_eq!(needs(b"\x7fELF"), None);
    }
}
