//! `cargo xtask sd`: the boot folder of a Raspberry Pi's card, but for the firmware's own files, which it names.
//!
//! docs/boards/raspberry-pi.md walks from here to a hot-added vCPU.

use crate::{build, bundle, say};
use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use std::fs;
use std::path::{Path, PathBuf};

/// The files that are written.
const IMAGE: &str = "bullpen.img";
const BUNDLE: &str = "bundle.cpio";
const CONFIG: &str = "config.txt";
const FIRMWARE: &str = "FIRMWARE.txt";
/// Where an arm64 Image says how much memory it takes (Linux Documentation/arch/arm64/booting.rst).
const IMAGE_SIZE: std::ops::Range<usize> = 16..24;

/// What to write, and for which board.
#[derive(Args)]
pub(crate) struct Options {
    /// The board
    #[arg(long)]
    board: Board,
    /// The manifest in TOML; see docs/manifest.md
    manifest: PathBuf,
    /// The folder to write; it is made if it is not there
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Bullpen's image. Default: it is built
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
}

/// A board whose firmware is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Board {
    /// Raspberry Pi 4, 400 and Compute Module 4
    Pi4,
    /// Raspberry Pi 5 and Compute Module 5
    Pi5,
}

impl Board {
    /// Returns the firmware's settings. A comment has a line of its own: the firmware takes one behind a setting as part of it.
    const fn config(self) -> &'static str {
        match self {
            Self::Pi4 => concat!(
                "# Bullpen on a Raspberry Pi 4; see docs/boards/raspberry-pi.md.\n",
                "arm_64bit=1\n",
                "kernel=bullpen.img\n",
                "# No equals sign here.\n",
                "initramfs bundle.cpio followkernel\n",
                "# The console: UART0 on pins 8 and 10, which Bluetooth has otherwise.\n",
                "enable_uart=1\n",
                "dtoverlay=disable-bt\n",
            ),
            Self::Pi5 => concat!(
                "# Bullpen on a Raspberry Pi 5; see docs/boards/raspberry-pi.md.\n",
                "arm_64bit=1\n",
                "kernel=bullpen.img\n",
                "# No equals sign here.\n",
                "initramfs bundle.cpio followkernel\n",
                "# The console: UART10 on the connector between the HDMI sockets.\n",
                "enable_uart=1\n",
            ),
        }
    }

    /// Returns the files of the firmware that the card needs besides.
    const fn firmware(self) -> &'static [&'static str] {
        match self {
            Self::Pi4 => &[
                "start4.elf",
                "fixup4.dat",
                "bcm2711-rpi-4-b.dtb",
                "overlays/disable-bt.dtbo",
            ],
            Self::Pi5 => &["bcm2712-rpi-5-b.dtb"],
        }
    }

    /// Returns what must not lie on the card.
    const fn unwanted(self) -> &'static str {
        match self {
            Self::Pi4 => "armstub8-gic.bin",
            Self::Pi5 => "armstub8-2712.bin",
        }
    }
}

/// Writes the folder.
pub(crate) fn command(options: &Options) -> anyhow::Result<()> {
    let (board, folder) = (options.board, &options.output);
    let image = match &options.image {
        Some(image) => image.clone(),
        None => build::hypervisor()?,
    };
    let image = fs::read(&image).with_context(|| format!("cannot read {}", image.display()))?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    bundle::pack(&options.manifest, &folder.join(BUNDLE))?;
    write(folder, IMAGE, &whole(image)?)?;
    write(folder, CONFIG, board.config().as_bytes())?;
    write(folder, FIRMWARE, notes(board).as_bytes())?;
    say::line(&format!(
        "{}: {CONFIG}, {IMAGE}, {BUNDLE}; from the firmware come {}",
        folder.display(),
        board.firmware().join(", ")
    ));
    Ok(())
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let path = folder.join(name);
    fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Returns the image as long as the memory that it takes, so that a bundle which follows the file does not lie in what the image clears
/// when it starts, whatever the firmware makes of the header.
fn whole(mut image: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let size = image
        .get(IMAGE_SIZE)
        .and_then(|bytes| bytes.try_into().ok());
    let size = size.map_or(0, u64::from_le_bytes) as usize;
    ensure!(
        size >= image.len(),
        "the image's header does not say its size"
    );
    image.resize(size, 0);
    Ok(image)
}

/// Returns what the folder lacks, for the person who makes the card.
fn notes(board: Board) -> String {
    let mut notes = String::from(
        "The card needs these files of the Raspberry Pi's firmware, which Bullpen does not ship, beside those here:\n",
    );
    for file in board.firmware() {
        notes += &format!("  {file}\n");
    }
    notes += &format!(
        "They are in the folder boot/ of the firmware's repository, and on the first partition of every card with Raspberry Pi OS.\n\
         Leave {} out: the firmware would start it first.\n",
        board.unwanted()
    );
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_as_the_firmware_reads_them() {
        for board in [Board::Pi4, Board::Pi5] {
            let config = board.config();
            for line in config.lines() {
                let is_comment = line.starts_with("# ");
                let is_initramfs = line == format!("initramfs {BUNDLE} followkernel");
                let setting = line.split_once('=');
                let is_setting = setting.is_some_and(|(name, value)| {
                    !name.is_empty() && !value.is_empty() && !line.contains([' ', '#', '"'])
                });
                assert!(is_comment || is_initramfs || is_setting, "{line}");
            }
            assert!(config.contains(&format!("\nkernel={IMAGE}\n")), "{config}");
            assert!(notes(board).contains(".dtb\n"));
        }
    }

    #[test]
    fn the_image_is_as_long_as_it_says() {
        let mut image = vec![1_u8; 64];
        image[IMAGE_SIZE].copy_from_slice(&100_u64.to_le_bytes());
        let whole = whole(image.clone()).unwrap();
        assert_eq!((whole.len(), &whole[..64]), (100, &image[..]));
        assert!(whole[64..].iter().all(|byte| *byte == 0));
        image[IMAGE_SIZE].copy_from_slice(&10_u64.to_le_bytes());
        assert!(super::whole(image).is_err());
    }
}
