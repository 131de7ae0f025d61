//! The live view: what VMs and vCPUs take of the CPUs, drawn over itself.
//!
//! The view is held in place by time alone: when it is due, the console asks for a sample, and the sample's answer is drawn and says
//! when the next is due. What is drawn has at most as many rows and columns as every terminal has, however many VMs there are.
//!
//! Neighbours: `reply` (the sample).

use super::editor::COLUMNS;
use super::names::Names;
use super::reply::{Sample, VcpuRow, VmRow};
use super::sink::{ByteSink, put};
use super::table::Seconds;
use alloc::vec::Vec;
use types::ids::VmId;

/// How long what is drawn stands.
const PERIOD_NS: u64 = NS_A_SECOND;
/// How long it takes until there is something to draw.
const FIRST_NS: u64 = NS_A_SECOND / 10;
const NS_A_SECOND: u64 = 1_000_000_000;
/// Rows that are drawn: one less than every terminal has, for the cursor.
const ROWS: usize = 23;
/// Rows of VMs; those of vCPUs have the rest.
const VM_ROWS: usize = 8;
/// Rows of neither: the heading, those of the tables, a blank one, two for what is left out, a foot note, and the notice.
const OTHER_ROWS: usize = 8;
/// Go to the first place of the screen (ECMA-48, CUP), erase to the end of the row (EL) and of the screen (ED).
const HOME: &[u8] = b"\x1b[H";
const END_ROW: &[u8] = b"\x1b[K\r\n";
const ERASE_BELOW: &[u8] = b"\x1b[J";

/// One line of text, as much of it as a terminal has columns.
#[derive(Debug, Default)]
struct Notice {
    text: heapless::Vec<u8, COLUMNS>,
    is_full: bool,
}

impl ByteSink for Notice {
    fn put(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.is_full |= *byte < b' ' || self.text.is_full();
            if !self.is_full {
                let _has_room = self.text.push(*byte);
            }
        }
    }
}

/// The view, or what is left of the last one.
#[derive(Debug, Default)]
pub(super) struct View {
    before: Option<Sample>,
    /// When to ask for the next sample; `None` while one is on its way.
    due_ns: Option<u64>,
    notice: Notice,
}

impl View {
    /// Begins a view on an empty screen.
    pub(super) fn start(out: &mut dyn ByteSink) -> Self {
        out.put(HOME);
        out.put(ERASE_BELOW);
        Self {
            due_ns: Some(0),
            ..Self::default()
        }
    }

    /// Returns when to ask for the next sample.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.due_ns
    }

    /// Notes that a sample was asked for, or could not be: then again after a while.
    pub(super) fn asked(&mut self, is_on_its_way: bool, now_ns: u64) {
        let later = now_ns.saturating_add(PERIOD_NS);
        self.due_ns = (!is_on_its_way).then_some(later);
    }

    /// Returns where a line goes that is to be shown under the tables.
    pub(super) fn notice(&mut self) -> &mut dyn ByteSink {
        self.notice = Notice::default();
        &mut self.notice
    }

    /// Draws a sample over the one before; the first only says what the next is held against.
    pub(super) fn show(&mut self, sample: Sample, names: &Names, out: &mut dyn ByteSink) {
        let before = self.before.take();
        let period_ns = if before.is_some() {
            PERIOD_NS
        } else {
            FIRST_NS
        };
        self.due_ns = Some(sample.time_ns.saturating_add(period_ns));
        let sample = self.before.insert(sample);
        let Some(before) = before else {
            return;
        };
        out.put(HOME);
        let mut screen = Screen {
            out,
            rows: ROWS,
            column: 0,
        };
        tables(sample, &before, names, &mut screen);
        screen.put(&self.notice.text);
        screen.put(b"\r\n");
        out.put(ERASE_BELOW);
    }
}

/// A screen that is drawn from its top: each row replaces the one that was there, and what has no room is not drawn.
struct Screen<'a> {
    out: &'a mut dyn ByteSink,
    rows: usize,
    column: usize,
}

impl ByteSink for Screen<'_> {
    fn put(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\r' => {}
                _ if self.rows == 0 => return,
                b'\n' => {
                    self.out.put(END_ROW);
                    self.rows = self.rows.saturating_sub(1);
                    self.column = 0;
                }
                _ if self.column < COLUMNS => {
                    self.out.put(&[*byte]);
                    self.column = self.column.saturating_add(1);
                }
                _ => {}
            }
        }
    }
}

/// What was had between two samples, in nanoseconds and exits.
#[derive(Clone, Copy, Default)]
struct Growth {
    ran_ns: u64,
    waited_ns: u64,
    exits: u64,
}

impl Growth {
    /// A vCPU's since the row before. Its account begins anew when it is turned on or moves, its exits when its VM starts.
    fn of(now: &VcpuRow, before: Option<&VcpuRow>) -> Self {
        let Some(before) = before else {
            return Self::default();
        };
        let since = |now: u64, before| now.checked_sub(before).unwrap_or(now);
        Self {
            ran_ns: since(now.ran_ns, before.ran_ns),
            waited_ns: since(now.stolen_ns, before.stolen_ns),
            exits: since(now.exits, before.exits),
        }
    }

    fn add(&mut self, other: Self) {
        self.ran_ns = self.ran_ns.saturating_add(other.ran_ns);
        self.waited_ns = self.waited_ns.saturating_add(other.waited_ns);
        self.exits = self.exits.saturating_add(other.exits);
    }

    /// Writes the end of a row: shares of the time between the samples, and exits a second.
    fn put(self, ns: u64, counts_sleep: bool, out: &mut dyn ByteSink) {
        let part = |of: u64, whole: u64| of.saturating_mul(whole).checked_div(ns).unwrap_or(0);
        let [share, wait] = [self.ran_ns, self.waited_ns].map(|own| part(own, 1000));
        let mark = if counts_sleep { '*' } else { ' ' };
        let exits = part(self.exits, NS_A_SECOND);
        put!(out, " {:>6}.{}%{mark}", share / 10, share % 10);
        put!(out, " {:>5}.{}% {exits:>9}\r\n", wait / 10, wait % 10);
    }
}

/// Returns the indices of the busiest, the busiest first, at most so many.
fn busiest(all: &[Growth], most: usize) -> Vec<usize> {
    let mut order: Vec<usize> = Vec::new();
    while order.len() < most.min(all.len()) {
        let left = (0..all.len()).filter(|index| !order.contains(index));
        let ran = |index: &usize| all.get(*index).map_or(0, |growth| growth.ran_ns);
        // The first of equals, so that idle ones stand still.
        let Some(next) = left.rev().max_by_key(ran) else {
            break;
        };
        order.push(next);
    }
    order
}

/// Returns what each vCPU of a sample has had since the one before.
fn growths(sample: &Sample, before: &Sample) -> Vec<Growth> {
    let key = |(vm, row): &(VmId, VcpuRow)| (*vm, row.vcpu);
    let grown = |now: &(VmId, VcpuRow)| {
        let found = before.vcpus.binary_search_by_key(&key(now), key).ok();
        let earlier = found.and_then(|index| before.vcpus.get(index));
        Growth::of(&now.1, earlier.map(|earlier| &earlier.1))
    };
    sample.vcpus.iter().map(grown).collect()
}

/// Writes a sample as tables of VMs and of vCPUs, the busiest first, with what they had since the one before.
fn tables(sample: &Sample, before: &Sample, names: &Names, out: &mut dyn ByteSink) {
    let passed_ns = sample.time_ns.saturating_sub(before.time_ns);
    let (count, up) = (sample.vms.len(), Seconds(sample.time_ns));
    put!(
        out,
        "top: {count} VMs, up {up}; each second anew, q ends it\r\n"
    );
    let of_vcpus = growths(sample, before);
    let own = |vm| {
        let both = sample.vcpus.iter().zip(&of_vcpus);
        both.filter(move |((other, _), _)| *other == vm)
    };
    let sum = |row: &VmRow| {
        let mut sum = Growth::default();
        own(row.vm).for_each(|(_, growth)| sum.add(*growth));
        sum
    };
    let of_vms: Vec<_> = sample.vms.iter().map(sum).collect();
    let width = names.all().map(str::len).max().unwrap_or(0);
    let shown = busiest(&of_vms, VM_ROWS);
    put!(out, "{:<width$} {:<8}", "VM", "STATE");
    out.put(b"    ON TARGET    SHARE     WAIT   EXITS/S\r\n");
    for index in &shown {
        if let (Some(row), Some(growth)) = (sample.vms.get(*index), of_vms.get(*index)) {
            let counts_sleep = own(row.vm).any(|((_, vcpu), _)| vcpu.counts_sleep);
            let (name, state) = (names.of(row.vm), row.state);
            put!(
                out,
                "{name:<width$} {state:<8} {:>5} {:>6}",
                row.on,
                row.target
            );
            growth.put(passed_ns, counts_sleep, out);
        }
    }
    more(of_vms.len().saturating_sub(shown.len()), "VMs", out);
    let room = ROWS.saturating_sub(OTHER_ROWS).saturating_sub(shown.len());
    let shown = busiest(&of_vcpus, room);
    put!(out, "\r\n{:<width$} {:<8}", "VM", "VCPU");
    out.put(b"          CPU    SHARE     WAIT   EXITS/S\r\n");
    for index in &shown {
        if let (Some((vm, vcpu)), Some(growth)) = (sample.vcpus.get(*index), of_vcpus.get(*index)) {
            let (number, cpu) = (vcpu.vcpu.get(), vcpu.cpu.get());
            put!(out, "{:<width$} {number:<8} {cpu:>12}", names.of(*vm));
            growth.put(passed_ns, vcpu.counts_sleep, out);
        }
    }
    let left_out = of_vcpus.len().saturating_sub(shown.len());
    more(
        left_out.saturating_add(sample.left_out as usize),
        "vCPUs",
        out,
    );
    if sample.vcpus.iter().any(|(_, vcpu)| vcpu.counts_sleep) {
        out.put(b"* alone on its CPU: SHARE counts its sleep too\r\n");
    }
}

fn more(count: usize, what: &str, out: &mut dyn ByteSink) {
    if count != 0 {
        put!(out, "and {count} more {what}\r\n");
    }
}
