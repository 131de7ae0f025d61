//! How costs grow with the size of things: vCPUs, VMs, vCPUs in reserve, memory, interrupts, vCPUs a CPU.
//!
//! Each line is a machine of its own. The boot is counted by the TCG plugin up to the first instruction of any guest, the
//! rows are those of the bench guest. A second table has the elastic rows, a third what memory EL2 takes.

use super::guest;
use super::rows::{Findings, Row};
use super::split;
use crate::say;
use ::tests::guest::follow;
use ::tests::{Machine, Manifest, Vm};
use anyhow::Context;
use std::fmt::Write;
use std::time::Duration;

/// Samples a row: every one is the same.
const SAMPLES: u32 = 10;
const LIMIT: Duration = Duration::from_secs(240);
/// The rows that stand for traps, interrupts and other vCPUs.
const ROWS: [&str; 5] = [
    "hvc-psci-version",
    "gicd-typer-read",
    "vtimer-wfi",
    "sgi-to-wfi",
    "cpu-on-first-instruction",
];
/// How many of them need one vCPU only.
const ROWS_ALONE: usize = 3;
/// The rows of adding a vCPU and giving it back.
const ELASTIC: [&str; 5] = [
    "resize-to-ged",
    "ged-to-cpu-on",
    "cpu-on-to-first",
    "resize-to-first",
    "ej0",
];
/// Memory of a machine besides its guests': enough for a guest to begin at a multiple of 1 GiB.
const ROOM_MIB: u64 = 2048;

/// One machine.
struct Shape {
    what: String,
    vcpus: u32,
    possible: u32,
    cpus: u32,
    vms: u32,
    memory_mib: u64,
    spis: u32,
}

impl Shape {
    fn new(what: &str, number: u64) -> Self {
        Self {
            what: format!("{what} {number}"),
            vcpus: 2,
            possible: 2,
            cpus: 2,
            vms: 1,
            memory_mib: 64,
            spis: 64,
        }
    }

    fn manifest(&self) -> Manifest {
        let rows = if self.vcpus > 1 {
            &ROWS[..]
        } else {
            &ROWS[..ROWS_ALONE]
        };
        let words = format!(
            "samples={SAMPLES} rows={} cpus={}",
            rows.join(","),
            self.vcpus
        );
        self.manifest_of(&words)
    }

    /// The VM that is measured, with these words, and the idle ones.
    fn manifest_of(&self, words: &str) -> Manifest {
        let cpus: Vec<u32> = (0..self.cpus).collect();
        let vm = |name: &str| {
            Vm::guest(name, "bench")
                .text("firmware", "acpi")
                .vcpus(self.vcpus, self.possible)
                .cpus(&cpus)
                .memory_mib(self.memory_mib)
                .raw("spis", &self.spis.to_string())
        };
        let idle = (1..self.vms).map(|number| {
            // Prints a question that the operator never sees and rests.
            vm(&format!("idle-{number}")).command_line("elastic asked cpus=1")
        });
        let first = vm("bench").command_line(words);
        Manifest::new(std::iter::once(first).chain(idle))
    }

    fn run(&self) -> Findings {
        let name = format!("bench-scale-{}", self.what.replace(' ', "-"));
        super::attempt(&name.clone(), || {
            let (output, argument) = split::plugin(&name)?;
            let machine = self.machine(&name).argument("-plugin").argument(&argument);
            let mut running = machine.boot(&self.manifest());
            let (console, control) = running.channels();
            let mut findings = guest::findings(follow(console, control, "bench", LIMIT));
            let text = std::fs::read_to_string(&output)?;
            if let Some(count) = split::boot(&text) {
                findings.rows.push(Row::single("boot", count));
            }
            Ok(findings)
        })
    }

    /// A machine whose memory QEMU takes from the host only where it is touched.
    fn machine(&self, name: &str) -> Machine {
        let memory_mib = ROOM_MIB + u64::from(self.vms) * self.memory_mib;
        Machine::new(name)
            .cpus(self.cpus)
            .model(guest::MODEL)
            .exact_memory_mib(memory_mib)
            .option("memory-backend=ram")
            .argument("-object")
            .argument(&format!(
                "memory-backend-ram,id=ram,size={memory_mib}M,reserve=off"
            ))
            .deterministic()
    }

    /// Adds and takes back a vCPU beside all that the shape has.
    fn run_elastic(&self) -> Findings {
        let name = format!("bench-elastic-{}", self.what.replace(' ', "-"));
        super::attempt(&name.clone(), || {
            let words = format!("samples={SAMPLES} elastic asked cpus=2");
            let mut running = self.machine(&name).boot(&self.manifest_of(&words));
            let (console, control) = running.channels();
            Ok(guest::findings(follow(console, control, "bench", LIMIT)))
        })
    }

    /// Measures the memory that is neither free nor the guests', in bytes.
    fn run_memory(&self) -> anyhow::Result<u64> {
        let name = format!("bench-memory-{}", self.what.replace(' ', "-"));
        let manifest = self.manifest_of("elastic asked cpus=1");
        let mut running = self.machine(&name).boot(&manifest);
        running.control().event("vm-start", "bench", LIMIT);
        let host = running.command("host");
        let of = |key: &str| host[key].as_u64().context("`host` says too little");
        let free = of("free_pages")? * of("page_bytes")?;
        let guests = (u64::from(self.vms) * self.memory_mib) << 20;
        Ok(of("memory_bytes")? - free - guests)
    }
}

fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for vcpus in [1, 2, 8, 16, 64] {
        shapes.push(Shape {
            vcpus,
            possible: vcpus,
            ..Shape::new("vCPUs", vcpus.into())
        });
    }
    for possible in [64, 128, 256, 512] {
        shapes.push(Shape {
            possible,
            ..Shape::new("possible vCPUs", possible.into())
        });
    }
    for vms in [1, 4, 16] {
        shapes.push(Shape {
            vms,
            ..Shape::new("VMs", vms.into())
        });
    }
    for gib in [1, 4, 16, 64] {
        shapes.push(Shape {
            memory_mib: gib << 10,
            ..Shape::new("GiB", gib)
        });
    }
    for spis in [32, 256, 960] {
        shapes.push(Shape {
            spis,
            ..Shape::new("SPIs", spis.into())
        });
    }
    for share in [1, 2, 4, 8] {
        shapes.push(Shape {
            vcpus: 2 * share,
            possible: 2 * share,
            ..Shape::new("vCPUs a CPU", share.into())
        });
    }
    shapes
}

/// What a resize is measured beside.
fn elastic_shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for possible in [2, 64, 512] {
        shapes.push(Shape {
            vcpus: 1,
            possible,
            ..Shape::new("possible vCPUs", possible.into())
        });
    }
    for vms in [4, 16] {
        shapes.push(Shape {
            vcpus: 1,
            vms,
            ..Shape::new("VMs", vms.into())
        });
    }
    shapes
}

/// Measures all shapes and returns the tables.
pub(crate) fn table() -> String {
    let columns: Vec<&str> = std::iter::once("boot").chain(ROWS).collect();
    let mut text = rows(&columns, &shapes(), Shape::run);
    text.push('\n');
    text.push_str(&rows(&ELASTIC, &elastic_shapes(), Shape::run_elastic));
    text.push('\n');
    text.push_str(&memory().unwrap_or_else(|error| format!("memory of EL2: {error:#}\n")));
    text
}

/// Measures what memory EL2 takes in all, and for each CPU and each vCPU in reserve: differences of machines.
fn memory() -> anyhow::Result<String> {
    const MOST: u32 = 512;
    const CPUS: u32 = 8;
    let shape = |what: &str, cpus: u32, possible: u32| Shape {
        vcpus: 1,
        cpus,
        possible,
        ..Shape::new(what, possible.into())
    };
    let least = shape("on 1 CPU", 1, 1).run_memory()?;
    let cpus = shape("on 8 CPUs", CPUS, 1).run_memory()?;
    let vcpus = shape("in reserve", 1, MOST).run_memory()?;
    Ok(format!(
        "memory of EL2: {} KiB with 1 CPU and 1 vCPU; {} KiB a further CPU; {} bytes a further possible vCPU\n",
        least >> 10,
        (cpus.saturating_sub(least) / u64::from(CPUS - 1)) >> 10,
        vcpus.saturating_sub(least) / u64::from(MOST - 1),
    ))
}

/// Measures shapes and writes a table of these rows.
fn rows(columns: &[&str], shapes: &[Shape], measure: impl Fn(&Shape) -> Findings) -> String {
    let mut text = format!("{:<22}", "instructions");
    // Writing to a string cannot fail.
    for column in columns {
        let _ = write!(text, "{column:>26}");
    }
    text.push('\n');
    for shape in shapes {
        say::line(&format!("scale: {} …", shape.what));
        let findings = measure(shape);
        let _ = write!(text, "{:<22}", shape.what);
        for column in columns {
            let cell = findings.row(column).map(|row| row.median.to_string());
            let _ = write!(text, "{:>26}", cell.as_deref().unwrap_or("-"));
        }
        text.push('\n');
        for (row, why) in &findings.failures {
            let why = why.lines().next().unwrap_or("");
            let _ = writeln!(text, "    {row}: {why}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_has_a_name_of_its_own_and_room_for_its_vcpus() {
        for shapes in [shapes(), elastic_shapes()] {
            for (at, shape) in shapes.iter().enumerate() {
                assert!(shape.possible >= shape.vcpus, "{}", shape.what);
                assert!(shapes[..at].iter().all(|other| other.what != shape.what));
            }
        }
    }
}
