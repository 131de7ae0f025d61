//! Replies and events as an operator reads them at the prompt.
//!
//! Neighbours: `reply` (the values), `json` (the same for programs), `table` (lists), `writing` (a row at a time).

use super::{
    error::CommandError,
    names::Names,
    reply::{Event, HostReport, Reply, ResizeReport, StatsRow, VmPage, What, log_line},
    sink::{ByteSink, put},
    table::{MIB, Printable, Seconds, Table, Widths},
};

use crate::clock::utc::Utc;
use types::ids::VmId;

const KIB: u64 = 1024;

/// Writes a reply as text as far as its rows; returns whether it has any. Every line ends in CR LF.
pub(super) fn reply_head(reply: &Reply, names: &Names, out: &mut dyn ByteSink) -> bool {
    match reply {
        Reply::Done => out.put(b"ok\r\n"),
        Reply::Attached(vm) => put!(out, "the terminal shows {}\r\n", names.of(*vm)),
        Reply::Host(report) => host(report, out),
        Reply::HostTime { unix_s, known } => {
            let why = if *known {
                ""
            } else {
                ": no clock was found; `host time set` sets it"
            };
            put!(out, "{}{why}\r\n", Utc(*unix_s));
        }
        Reply::VmShow(page) => vm_show(page, names, out),
        // The live view draws them, and programs read them.
        Reply::Top(_) => {}
        Reply::Resize(ResizeReport { vm, memory, report }) => {
            let numbers = [report.reached, report.requested];
            let (numbers, unit) = match memory {
                None => (numbers.map(u64::from), "vCPUs"),
                Some(unit) => (numbers.map(|slots| unit.bytes(slots) / MIB), "MiB"),
            };
            let [reached, requested] = numbers;
            let (name, outcome) = (names.of(*vm), report.outcome.name());
            put!(
                out,
                "{name}: {reached} of {requested} {unit}, {outcome}\r\n"
            );
            return true;
        }
        Reply::Help(_)
        | Reply::VmList(_)
        | Reply::VcpuList { .. }
        | Reply::MemoryList { .. }
        | Reply::Usage { .. }
        | Reply::Stats(_)
        | Reply::DeviceList { .. }
        | Reply::DiskList(_)
        | Reply::NetList(_)
        | Reply::Log(_) => return true,
    }
    false
}

/// Writes the row of a reply that begins at a place; returns where the next one does, if there was one.
pub(super) fn row(
    reply: &Reply,
    place: usize,
    widths: &Widths,
    names: &Names,
    out: &mut dyn ByteSink,
) -> Option<usize> {
    match reply {
        Reply::Log(lines) => {
            let line = log_line(lines, place)?;
            put!(out, "{}\r\n", Printable(line));
            return Some(place.saturating_add(line.len()).saturating_add(1));
        }
        Reply::Resize(resize) => {
            let shortfall = resize.report.shortfalls.get(place)?;
            match resize.memory {
                None => put!(out, "  {shortfall}\r\n"),
                Some(_) => {
                    let (slot, why) = (shortfall.vcpu.get(), shortfall.why);
                    put!(out, "  slot {slot}: {why}\r\n");
                }
            }
        }
        Reply::Stats(rows) => stats(rows.get(place)?, names, out),
        Reply::Help(topic) if !topic.is_everything() => {
            let usage = topic.commands().get(place)?;
            let example = usage.example(names.of(VmId::new(0)));
            put!(out, "{}\r\n    {}\r\n", usage.form, usage.text);
            put!(out, "    for example: {example}\r\n");
        }
        _ => {
            let table = Table::of(reply, names)?;
            if table.write(place, widths, out).is_none() {
                out.put(table.footnote().as_bytes());
                return None;
            }
        }
    }
    Some(place.saturating_add(1))
}

/// Returns the widths of a reply's columns, if it is a table.
pub(super) fn widths(reply: &Reply, names: &Names) -> Widths {
    Table::of(reply, names).map_or_else(Widths::default, |table| table.widths())
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
        What::MemoryEjected(slot) => put!(out, "{name}: memory slot {slot} given back\r\n"),
        What::DiskFull(disk) => put!(out, "{name}: disk {disk} is full\r\n"),
        What::DeviceBroken(device, why) => {
            put!(
                out,
                "{name}: {device} needs a reset: its driver broke a rule ({why})\r\n"
            );
        }
        // `Writing` shows it as a reply.
        What::ResizeDone(_) => {}
        // Programs alone are told.
        What::Usage(_) => {}
    }
}

/// Everything about one VM: a fact a line, the word for it first.
fn vm_show(page: &VmPage, names: &Names, out: &mut dyn ByteSink) {
    let (row, name) = (&page.row, names.of(page.row.vm));
    put!(out, "{name}: {}", row.state);
    let ago = |time_ns| Seconds(page.time_ns.saturating_sub(time_ns));
    if let Some(started_ns) = page.started_ns {
        put!(out, " for {}", ago(started_ns));
    }
    let [on, wanted, possible, boot] = [row.on, row.target, row.possible, page.boot];
    put!(
        out,
        "\r\nvCPUs       {on} on, {wanted} wanted, {possible} possible, {boot} from boot\r\n"
    );
    if !page.cpus.is_empty() {
        out.put(b"on CPUs    ");
        page.cpus.iter().for_each(|cpu| put!(out, " {}", cpu.get()));
        out.put(b"\r\n");
    }
    contract(page, out);
    let [memory, most] = [row.memory_bytes, page.max_memory_bytes].map(|bytes| bytes / MIB);
    put!(out, "memory      {memory} MiB, {most} MiB at most\r\n");
    for (word, text) in [
        ("kernel", page.kernel),
        ("initrd", page.initrd.unwrap_or_default()),
        ("options", page.command_line),
        ("firmware", page.firmware),
    ] {
        if !text.is_empty() {
            put!(out, "{word:<11} {}\r\n", Printable(text));
        }
    }
    put!(
        out,
        "exits       {}\r\nresets      {}\r\n",
        page.exits,
        page.resets
    );
    let error = page.last_error.as_ref();
    for (word, past) in [
        ("last reset", page.last_reset),
        ("last off", page.last_off),
        (
            "last error",
            error.map(|(time_ns, why)| (*time_ns, why.as_str())),
        ),
    ] {
        if let Some((time_ns, why)) = past {
            put!(
                out,
                "{word:<11} {} ago: {}\r\n",
                ago(time_ns),
                Printable(why)
            );
        }
    }
    if let Some([before, behind]) = page.way_out {
        put!(out, "way out     {before}{name}{behind}\r\n");
    }
}

/// Writes what limits a VM, and what may be asked for it.
fn contract(page: &VmPage, out: &mut dyn ByteSink) {
    if let Some(millicores) = page.cap {
        put!(out, "CPU time    {millicores} millicores at most\r\n");
    }
    put!(out, "weight      {}\r\n", page.weight);
    let entitlement = &page.entitlement;
    for bounds in [entitlement.vcpus, entitlement.cpu_cap].iter().flatten() {
        put!(out, "entitled    {bounds}\r\n");
    }
}

fn stats(row: &StatsRow, names: &Names, out: &mut dyn ByteSink) {
    put!(out, "{}: {} exits\r\n", names.of(row.vm), row.exits.total());
    let table = Table::Exits(&row.exits);
    let widths = table.widths();
    (0..)
        .map_while(|place| table.write(place, &widths, out))
        .for_each(drop);
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
    put!(out, "up      {}\r\n", Seconds(report.uptime_ns));
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
