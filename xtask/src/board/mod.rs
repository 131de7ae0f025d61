//! `cargo xtask board`: what Bullpen would say of a board's device tree, without the board.
//!
//! A board whose UART is not known cannot say why it is refused, so this says it on the host, by the reader that EL2 uses. A folder
//! gives a row for each tree below it; the committed table is the rows of all trees of Debian's kernel package.

mod memory;

use crate::{paths, say, setup};
use anyhow::{Context, ensure};
use boards::Board;
use clap::Args;
use control_plane::host::{self, Conduit, EnableMethod, Gic, HostDescription, HostRange, Uart};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The committed table, in the source tree.
const TABLE: &str = "tests/goldens/trees.txt";
const MIB: u64 = 1 << 20;

/// Which trees to look at.
#[derive(Args)]
pub(crate) struct Options {
    /// A device tree (.dtb), or a folder of which every tree is told of in a row. Default: the trees of Debian's kernel
    #[arg(value_name = "FILE")]
    tree: Option<PathBuf>,
    /// Writes the rows to the committed table, tests/goldens/trees.txt
    #[arg(long)]
    table: bool,
}

/// Tells of one tree, or of many; fails if the one is refused.
pub(crate) fn command(options: &Options) -> anyhow::Result<ExitCode> {
    let path = match &options.tree {
        Some(path) => path.clone(),
        None => setup::guest::trees()?,
    };
    if path.is_dir() {
        let rows = rows(&path)?;
        if options.table {
            let table = paths::root().join(TABLE);
            fs::write(&table, rows).with_context(|| format!("cannot write {}", table.display()))?;
            say::line(&format!("written: {}", table.display()));
        } else {
            print!("{rows}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(!options.table, "the table is made of a folder's trees");
    let found = Found::read(&path)?;
    print!("{}", found.page());
    Ok(match found.host {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// Returns a row for each tree below a folder, in the order of their names.
fn rows(folder: &Path) -> anyhow::Result<String> {
    let mut trees = BTreeMap::new();
    find(folder, &mut trees)?;
    ensure!(!trees.is_empty(), "{} holds no .dtb", folder.display());
    let mut rows = String::new();
    for (name, path) in trees {
        writeln!(rows, "{name}: {}", Found::read(&path)?.row())?;
    }
    Ok(rows)
}

/// Finds the trees below a folder; a name is a file's with its own folder's, which makers' folders give.
fn find(folder: &Path, trees: &mut BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, trees)?;
        } else if path.extension().is_some_and(|extension| extension == "dtb") {
            let maker = folder.file_name().unwrap_or_default().to_string_lossy();
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            trees.insert(format!("{maker}/{file}"), path);
        }
    }
    Ok(())
}

/// What a tree says.
struct Found {
    /// The machine, or the sentence that a user of that board needs.
    host: Result<Box<HostDescription>, String>,
    /// Where that sentence would be said, if the tree is refused.
    console: Option<Uart>,
    /// Where RAM was filled in, because a boot loader would.
    filled: Option<u64>,
}

impl Found {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let file = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self::of(&file))
    }

    /// Looks at a tree as EL2 does, after filling RAM in as a boot loader does.
    fn of(file: &[u8]) -> Self {
        let filled = memory::filled_in(file);
        let tree = filled.as_ref().map_or(file, |filled| &filled.tree);
        let host = match host::describe(tree, &[], None) {
            Err(error) => Err(error.to_string()),
            Ok(found) => Ok(Box::new(found)),
        };
        Self {
            host,
            console: host::find_console(tree),
            filled: filled.map(|filled| filled.base),
        }
    }

    /// Returns a row of the table.
    fn row(&self) -> String {
        let host = match &self.host {
            Err(why) => return format!("refused: {why}"),
            Ok(host) => host,
        };
        let cpus = host.cpus.len();
        let gic = gic_name(&host.gic);
        match host.console() {
            Some(uart) => format!("accepted: {cpus} CPUs, {gic}, console {}", uart.path),
            None => {
                // The reader's own sentence, without the list of those that can be used.
                let is_about_it = |warning: &&String| {
                    warning.contains("can be used (") || warning.contains("cannot be used (")
                };
                let why = host.warnings.iter().find(is_about_it);
                let why = why
                    .and_then(|why| why.split(" (").next())
                    .unwrap_or("no UART");
                format!("accepted: {cpus} CPUs, {gic}, no console: {why}")
            }
        }
    }

    /// Returns all that there is to say of the one tree that was asked about.
    fn page(&self) -> String {
        let mut page = String::new();
        match &self.host {
            Ok(host) => summary(host, &mut page),
            Err(why) => {
                page += &format!("refused: {why}\n");
                page += &match &self.console {
                    Some(uart) => format!("the board says so on {}\n", uart.path),
                    None => "the board says nothing: it has no UART that can be used\n".to_owned(),
                };
            }
        }
        if let Some(base) = self.filled {
            page += &format!(
                "The tree leaves RAM to the boot loader: 1 GiB at {base:#x} was filled in to read it.\n"
            );
        }
        page
    }
}

fn conduit(conduit: Conduit) -> &'static str {
    match conduit {
        Conduit::Smc => "SMC",
        Conduit::Hvc => "HVC",
    }
}

fn gic_name(gic: &Gic) -> &'static str {
    match gic {
        Gic::V3(_) => "GICv3",
        Gic::V2(_) => "GICv2",
    }
}

/// Writes what an accepted tree says, a fact a line.
fn summary(host: &HostDescription, page: &mut String) {
    let board = Board::by_compatible(host.compatible.iter().map(String::as_str));
    let mut line = |word: &str, text: &str| {
        if !text.is_empty() {
            *page += &format!("{word:<11} {text}\n");
        }
    };
    line("accepted", &host.model);
    line("board", board.name);
    line("CPUs", &cpus(host));
    let bytes: u64 = host.memory.iter().map(|bank| bank.size).sum();
    line(
        "memory",
        &format!("{} MiB, banks: {}", bytes / MIB, host.memory.len()),
    );
    let (distributor, rest) = match &host.gic {
        Gic::V3(gic) => (
            gic.distributor,
            format!("redistributor regions: {}", gic.redistributors.len()),
        ),
        Gic::V2(gic) => (
            gic.distributor,
            format!("GICV at {:#x}", gic.virtual_interface.base.get()),
        ),
    };
    line(
        "interrupts",
        &format!(
            "{} at {:#x}, {rest}",
            gic_name(&host.gic),
            distributor.base.get()
        ),
    );
    let intids = host.private.all();
    line(
        "INTIDs",
        &format!(
            "timers {}, {}, {}; maintenance {}",
            intids[0], intids[1], intids[2], intids[3]
        ),
    );
    let uart = |uart: Option<&Uart>| uart.map_or("none".to_owned(), |uart| uart.path.clone());
    line("console", &uart(host.console()));
    line("control", &uart(host.control()));
    let clock = |range: HostRange| format!("at {:#x}", range.base.get());
    line(
        "clock",
        &host.rtc.map_or("none: `host time set`".to_owned(), clock),
    );
    let psci = host
        .psci
        .map(|psci| format!("PSCI by {}", conduit(psci.conduit)));
    line("firmware", &psci.unwrap_or_else(|| "no PSCI".to_owned()));
    for warning in &host.warnings {
        line("warning", warning);
    }
}

/// Counts the CPUs by how they are started.
fn cpus(host: &HostDescription) -> String {
    let count =
        |is: fn(&EnableMethod) -> bool| host.cpus.iter().filter(|cpu| is(&cpu.enable)).count();
    let ways = [
        ("PSCI", count(|way| *way == EnableMethod::Psci)),
        (
            "spin table",
            count(|way| matches!(way, EnableMethod::SpinTable { .. })),
        ),
        (
            "no way to start them",
            count(|way| *way == EnableMethod::None),
        ),
    ];
    let ways = ways.into_iter().filter(|(_, count)| *count != 0);
    let ways: Vec<String> = ways
        .map(|(way, count)| format!("{count} by {way}"))
        .collect();
    ways.join(", ").replace("by no way", "with no way")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The trees that the reader's own tests are made of.
    fn sample(name: &str) -> Found {
        let folder = paths::root().join("hypervisor/control_plane/host/testdata");
        Found::read(&folder.join(name)).unwrap()
    }

    #[test]
    fn a_tree_that_is_accepted_is_summed_up() {
        let found = sample("virt-gic3-4.dtb");
        assert_eq!(
            found.row(),
            "accepted: 4 CPUs, GICv3, console /pl011@9000000"
        );
        let page = found.page();
        for line in [
            "accepted    linux,dummy-virt\n",
            "board       qemu-virt\n",
            "CPUs        4 by PSCI\n",
            "memory      1024 MiB, banks: 1\n",
            "interrupts  GICv3 at 0x8000000, redistributor regions: 1\n",
            "INTIDs      timers 26, 27, 30; maintenance 25\n",
            "clock       at 0x9010000\n",
            "firmware    PSCI by SMC\n",
        ] {
            assert!(page.contains(line), "{line:?} in {page}");
        }
    }

    #[test]
    fn a_tree_that_is_refused_says_why_and_where_the_board_would() {
        let found = Found::of(b"not a tree");
        assert!(found.row().starts_with("refused: "), "{}", found.row());
        assert!(
            found.page().contains("the board says nothing"),
            "{}",
            found.page()
        );
        let gicv2 = sample("virt-gic2-4.dtb");
        assert!(gicv2.row().contains("GICv2"), "{}", gicv2.row());
    }
}
