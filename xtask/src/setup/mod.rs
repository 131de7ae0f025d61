//! Makes the machine ready: what every command needs is found, or installed, or fetched into the cache.
//!
//! Each part can be asked for again at no cost: what is there is left alone.

pub(crate) mod apt;
pub(crate) mod archive;
pub(crate) mod guest;
pub(crate) mod qemu;
pub(crate) mod toolchain;

use crate::{initramfs, say};
use std::path::PathBuf;

/// What the demo's guest boots.
pub(crate) struct Guest {
    /// The Linux kernel, an arm64 Image.
    pub(crate) kernel: PathBuf,
    /// The initramfs.
    pub(crate) initrd: PathBuf,
}

/// The kernel and initramfs of the demo.
pub(crate) fn demo_guest() -> anyhow::Result<Guest> {
    let kernel = guest::kernel(&guest::LINUX_6_12)?;
    let initrd = initramfs::demo(&guest::busybox()?)?;
    Ok(Guest { kernel, initrd })
}

/// All that the demo and the tests need.
pub(crate) fn everything() -> anyhow::Result<()> {
    qemu::ensure_test_tools()?;
    for kernel in &guest::KERNELS {
        say::line(&format!(
            "{}: {}",
            kernel.name,
            guest::kernel(kernel)?.display()
        ));
    }
    demo_guest()?;
    initramfs::with_udev(&guest::busybox()?, &guest::udev()?).map(drop)
}
