//! The commands a person types: `cargo xtask setup | build | run | test`.
//!
//! `setup` makes the machine ready, `build` makes the hypervisor's image, `run` boots the demo on QEMU and
//! `test` is the whole gate. Each command does the set-up it needs first, so none has to be typed before another.
#![forbid(unsafe_code)]

mod build;
mod cpio;
mod elf;
mod initramfs;
mod paths;
mod process;
mod say;
mod setup;

use clap::{Parser, Subcommand};

/// Builds, boots and tests Bullpen.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes this machine ready: toolchain, QEMU, guest kernels and initramfs. Safe to repeat.
    Setup {
        /// Also fetches what only the tests need: all three guest kernels, udev, iasl and dtc.
        #[arg(long)]
        all: bool,
    },
    /// Builds the hypervisor's image and, where there are any, the bare-metal test guests.
    Build,
}

fn main() -> std::process::ExitCode {
    match execute(Cli::parse().command) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            say::failure(&error);
            std::process::ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Setup { all } => {
            setup::toolchain::ensure()?;
            setup::qemu::ensure()?;
            if all {
                setup::everything()
            } else {
                setup::demo_guest().map(drop)
            }
        }
        Command::Build => {
            build::hypervisor()?;
            build::guests().map(drop)
        }
    }
}
