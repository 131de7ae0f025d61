//! The commands a person types: `cargo xtask run | test`, and what they are made of.
//!
//! `setup` makes the machine ready, `build` makes the images, `bundle` packs VMs, `run` boots them on QEMU, `test` is the
//! whole gate, `bench` measures and `env` tells where what it boots is. Each command does the set-up it needs, so none has to come first.
#![forbid(unsafe_code)]

mod bench;
mod board;
mod build;
mod bundle;
mod cpio;
mod elf;
mod full;
mod gate;
mod initramfs;
mod manifest_toml;
mod paths;
mod process;
mod run;
mod say;
mod sd;
mod setup;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

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
    /// Boots Bullpen on QEMU, with the demo's guest unless told otherwise
    Run(run::Options),
    /// Runs the part of the gate that only reads the source: format, clippy of both halves, documentation
    Lint,
    /// Runs the whole gate, or the tests whose name contains FILTER
    Test {
        /// Also runs the long soaks, coverage and mutants
        #[arg(long)]
        full: bool,
        /// Part of the name of the tests to run; with --full also the name of a part, such as `coverage`
        filter: Option<String>,
    },
    /// Measures what each trap and each resume costs, and holds it against the bars
    Bench(bench::Options),
    /// Builds everything that the system tests boot and prints the variables that lead to it
    Env,
    /// Tells what Bullpen would say of a board by its device tree, or of many
    Board(board::Options),
    /// Writes the boot folder of a Raspberry Pi's card, but for the firmware's own files
    Sd(sd::Options),
    /// Packs a manifest and the images it names into one file that any boot loader passes as initrd.
    Bundle {
        /// The manifest in TOML; see docs/manifest.md.
        manifest: std::path::PathBuf,
        /// The file to write.
        #[arg(short, long, value_name = "FILE")]
        output: std::path::PathBuf,
    },
}

fn main() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            say::failure(&error);
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Setup { all } => {
            setup::toolchain::ensure()?;
            setup::qemu::ensure()?;
            if all {
                setup::everything()?
            } else {
                drop(setup::demo_guest()?)
            }
        }
        Command::Bundle { manifest, output } => bundle::command(&manifest, &output)?,
        Command::Sd(options) => sd::command(&options)?,
        Command::Build => {
            build::hypervisor()?;
            build::guests()?;
        }
        Command::Board(options) => return board::command(&options),
        Command::Run(options) => run::run(&options)?,
        Command::Lint => gate::lint()?,
        Command::Test { full, filter } => {
            return Ok(gate::run(&gate::Gate {
                full,
                filter: filter.as_deref(),
            }));
        }
        Command::Bench(options) => return bench::run(&options),
        Command::Env => {
            for (name, value) in gate::environment()? {
                println!("{name}={}", value.to_string_lossy());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
