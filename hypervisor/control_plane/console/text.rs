//! Replies and events as an operator reads them at the prompt.
//!
//! Neighbours: `reply` (the values), `json` (the same for programs).

use super::{
    command::USAGE,
    error::CommandError,
    names::Names,
    reply::{Event, HostReport, Reply, ResizeReport, StatsRow, VcpuRow, VmRow, What},
    sink::{ByteSink, put},
};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

const KIB: u64 = 1024;
const MIB: u64 = KIB * KIB;
const NS_PER_MS: u64 = 1_000_000;
const MS_PER_S: u64 = 1000;

/// Writes a reply as text; every line ends in CR LF.
pub(super) fn reply(reply: &Reply, names: &Names, out: &mut dyn ByteSink) {
    match reply {
        Reply::Done => out.put(b"ok\r\n"),
        Reply::Help => help(out),
        Reply::Attached(vm) => put!(out, "the terminal shows {}\r\n", names.of(*vm)),
        Reply::VmList(rows) => vm_list(rows, names, out),
        Reply::VcpuList { vcpus, .. } => vcpu_list(vcpus, out),
        Reply::Resize(report) => resize(report, names, out),
        Reply::Stats(rows) => rows.iter().for_each(|row| stats(row, names, out)),
        Reply::Log(lines) => lines
            .lines()
            .for_each(|line| put!(out, "{}\r\n", Printable(line))),
        Reply::Host(report) => host(report, out),
    }
}

/// Writes an event as one line of text.
pub(super) fn event(event: &Event, names: &Names, out: &mut dyn ByteSink) {
    let name = names.of(event.vm);
    match &event.what {
        What::VmStart => put!(out, "{name}: started\r\n"),
        What::VmOff(reason, None) => put!(out, "{name}: off ({reason})\r\n"),
        What::VmOff(reason, Some(note)) => {
            put!(out, "{name}: off ({reason}): {}\r\n", Printable(note));
        }
        What::VmReset(reason) => put!(out, "{name}: reset ({reason})\r\n"),
        What::VmPaused => put!(out, "{name}: paused\r\n"),
        What::VmResumed => put!(out, "{name}: resumed\r\n"),
        What::VcpuOnline(vcpu) => put!(out, "{name}: {vcpu} online\r\n"),
        What::VcpuOffline(vcpu) => put!(out, "{name}: {vcpu} offline\r\n"),
        What::ResizeDone(report) => resize(report, names, out),
    }
}

fn help(out: &mut dyn ByteSink) {
    let mut cells = Vec::new();
    for usage in USAGE {
        cells.extend([usage.form.to_string(), usage.text.to_string()]);
    }
    table(&[Align::Left, Align::Left], &cells, out);
}

fn header(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn vm_list(rows: &[VmRow], names: &Names, out: &mut dyn ByteSink) {
    let mut cells = header(&["NAME", "STATE", "VCPUS", "TARGET", "MAX", "MEMORY", "NOTE"]);
    for row in rows {
        cells.extend([
            names.of(row.vm).to_string(),
            row.state.to_string(),
            row.on.to_string(),
            row.target.to_string(),
            row.possible.to_string(),
            format!("{} MiB", row.memory_bytes / MIB),
            row.note.clone().unwrap_or_default(),
        ]);
    }
    use Align::{Left, Right};
    let columns = [Left, Left, Right, Right, Right, Right, Left];
    table(&columns, &cells, out);
}

fn vcpu_list(rows: &[VcpuRow], out: &mut dyn ByteSink) {
    let any = rows.iter().any(|row| row.counts_sleep);
    let mark = |counts_sleep| match (counts_sleep, any) {
        (true, _) => "*",
        (false, true) => " ",
        (false, false) => "",
    };
    let mut cells = header(&["VCPU", "STATE", "CPU", "EXITS", "RAN", "STOLEN"]);
    for row in rows {
        cells.extend([
            row.vcpu.get().to_string(),
            row.state.to_string(),
            row.cpu.get().to_string(),
            row.exits.to_string(),
            format!("{}{}", seconds(row.ran_ns), mark(row.counts_sleep)),
            seconds(row.stolen_ns),
        ]);
    }
    use Align::{Left, Right};
    let columns = [Right, Left, Right, Right, Right, Right];
    table(&columns, &cells, out);
    if any {
        out.put(b"* alone on its CPU: RAN counts its sleep too\r\n");
    }
}

fn resize(ResizeReport { vm, report }: &ResizeReport, names: &Names, out: &mut dyn ByteSink) {
    let (reached, requested) = (report.reached, report.requested);
    put!(
        out,
        "{}: {reached} of {requested} vCPUs, {}\r\n",
        names.of(*vm),
        report.outcome.name()
    );
    for shortfall in &report.shortfalls {
        put!(out, "  {shortfall}\r\n");
    }
}

fn stats(row: &StatsRow, names: &Names, out: &mut dyn ByteSink) {
    put!(out, "{}: {} exits\r\n", names.of(row.vm), row.exits.total());
    let mut cells = Vec::new();
    for (reason, count) in row.exits.occurred() {
        cells.extend([format!("  {}", reason.name()), count.to_string()]);
    }
    table(&[Align::Left, Align::Right], &cells, out);
}

fn host(report: &HostReport, out: &mut dyn ByteSink) {
    let free_bytes = report.free_pages.saturating_mul(report.page_bytes);
    put!(
        out,
        "Bullpen {} on {}\r\n",
        report.version,
        Printable(&report.machine)
    );
    put!(out, "CPUs    {} of {}\r\n", report.cpus_online, report.cpus);
    put!(
        out,
        "memory  {} MiB, {} MiB free ({} pages of {} KiB)\r\n",
        report.memory_bytes / MIB,
        free_bytes / MIB,
        report.free_pages,
        report.page_bytes / KIB
    );
    put!(out, "up      {}\r\n", seconds(report.uptime_ns));
}

fn seconds(ns: u64) -> String {
    let ms = ns / NS_PER_MS;
    format!("{}.{:03} s", ms / MS_PER_S, ms % MS_PER_S)
}

/// Text that came from elsewhere, with everything replaced that a terminal could act on.
struct Printable<'a>(&'a str);

impl core::fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use core::fmt::Write as _;
        self.0.chars().try_for_each(|character| {
            f.write_char(if character.is_control() {
                '.'
            } else {
                character
            })
        })
    }
}

#[derive(Clone, Copy)]
enum Align {
    Left,
    Right,
}

/// Writes rows with columns as wide as their widest cell; nothing follows the last cell of a row.
fn table(align: &[Align], cells: &[String], out: &mut dyn ByteSink) {
    let rows = || cells.chunks(align.len());
    let mut widths = alloc::vec![0; align.len()];
    for row in rows() {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows() {
        let mut line = String::new();
        for ((cell, align), &width) in row.iter().zip(align).zip(&widths) {
            let cell = Printable(cell).to_string();
            line.push_str(&match align {
                Align::Left => format!("{cell:<width$}  "),
                Align::Right => format!("{cell:>width$}  "),
            });
        }
        put!(out, "{}\r\n", line.trim_ascii_end());
    }
}

/// Writes an error as one line of text.
pub(super) fn error(error: &CommandError, out: &mut dyn ByteSink) {
    put!(
        out,
        "error: {} ({})\r\n",
        Printable(&error.message),
        error.kind.name()
    );
}
