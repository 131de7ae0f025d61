//! Makes the machine ready: what every command needs is found, or installed, or fetched into the cache.
//!
//! Each part can be asked for again at no cost: what is there is left alone.

pub(crate) mod apt;
pub(crate) mod archive;
mod firmware;
pub(crate) mod guest;
mod modules;
pub(crate) mod qemu;
pub(crate) mod toolchain;

use crate::initramfs;
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

/// What the tests boot.
pub(crate) struct Images {
    /// The directory of the kernels that guests are tested with.
    pub(crate) kernels: PathBuf,
    /// The demo's initramfs.
    pub(crate) initrd: PathBuf,
    /// The initramfs with the modules of each kernel for virtio devices.
    pub(crate) initrd_virtio: PathBuf,
    /// The initramfs with udev.
    pub(crate) initrd_udev: PathBuf,
    /// The initramfs with the programs that tell what machine this is.
    pub(crate) initrd_tools: PathBuf,
    /// The initramfs with FWTS.
    pub(crate) initrd_fwts: PathBuf,
    /// The directory of all boards' device trees.
    pub(crate) trees: PathBuf,
    /// The directory of the firmware and the boot loaders that start Bullpen.
    pub(crate) firmware: PathBuf,
}

/// All that the tests boot.
pub(crate) fn images() -> anyhow::Result<Images> {
    let modules: Vec<PathBuf> = guest::KERNELS
        .iter()
        .map(modules::fetch)
        .collect::<anyhow::Result<_>>()?;
    let busybox = guest::busybox()?;
    Ok(Images {
        kernels: guest::kernel_directory(),
        initrd: initramfs::demo(&busybox)?,
        initrd_virtio: initramfs::with_modules(&busybox, &modules)?,
        initrd_udev: initramfs::with_udev(&busybox, &guest::udev()?)?,
        initrd_tools: initramfs::with_tools(&busybox, &guest::tools()?)?,
        initrd_fwts: initramfs::with_fwts(&busybox, &guest::fwts()?)?,
        trees: guest::trees()?,
        firmware: firmware::fetch()?,
    })
}

/// All that the demo and the tests need.
pub(crate) fn everything() -> anyhow::Result<()> {
    qemu::ensure_test_tools()?;
    images().map(drop)
}
