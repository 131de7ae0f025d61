//! Lists in columns as wide as their widest cell, a row at a time.
//!
//! Neighbours: `text` (what is no list).

use super::{
    names::Names,
    reply::{DeviceRow, DiskRow, MemoryRow, MeterRow, NetRow, Reply, VcpuRow, VmRow},
    sink::{ByteSink, put},
    usage::Usage,
};
use crate::resize::meter::Latencies;
use core::fmt;
use types::hotplug::OST_SOURCE_SHIFT;
use types::stats::ExitCounts;

pub(super) const MIB: u64 = 1024 * 1024;
const KIB: u64 = 1024;
const NS_PER_MS: u64 = 1_000_000;
const MS_PER_S: u64 = 1000;
const MOST_COLUMNS: usize = 10;
const GAP: usize = 2;

/// The widths of a table's columns in characters.
pub(super) type Widths = [usize; MOST_COLUMNS];

/// A list that is shown in columns.
pub(super) enum Table<'a> {
    Help(&'static [Usage]),
    Vms(&'a [VmRow], &'a Names),
    /// With whether some of their times are marked.
    Vcpus(&'a [VcpuRow], bool),
    Memory(&'a [MemoryRow]),
    /// With whether some of their times are marked.
    Meters(&'a [MeterRow], &'a Names, bool),
    Exits(&'a ExitCounts),
    Devices(&'a [DeviceRow]),
    Disks(&'a [DiskRow], &'a Names),
    Nets(&'a [NetRow], &'a Names),
}

/// What stands in one place of a table.
#[derive(Clone, Copy)]
enum Cell<'a> {
    Word(&'a str),
    Indented(&'a str),
    Number(u64),
    Hex(u64),
    /// Bytes, in MiB.
    Mib(u64),
    /// Bytes, in KiB.
    Kib(u64),
    /// With a mark behind it.
    Time(Seconds, &'static str),
}

#[derive(Clone, Copy)]
enum Align {
    Left,
    Right,
}

impl<'a> Table<'a> {
    /// Returns the table that a reply is, if it is one.
    pub(super) fn of(reply: &'a Reply, names: &'a Names) -> Option<Self> {
        match reply {
            Reply::Help(topic) => Some(Self::Help(topic.commands())),
            Reply::VmList(rows) => Some(Self::Vms(rows, names)),
            Reply::VcpuList { vcpus, .. } => {
                let has_marks = vcpus.iter().any(|row| row.counts_sleep);
                Some(Self::Vcpus(vcpus, has_marks))
            }
            Reply::MemoryList { slots, .. } => Some(Self::Memory(slots)),
            Reply::Usage { vms, .. } => {
                let has_marks = vms.iter().any(|row| row.counts_sleep);
                Some(Self::Meters(vms, names, has_marks))
            }
            Reply::DeviceList { devices, .. } => Some(Self::Devices(devices)),
            Reply::DiskList(rows) => Some(Self::Disks(rows, names)),
            Reply::NetList(rows) => Some(Self::Nets(rows, names)),
            _ => None,
        }
    }

    const fn columns(&self) -> &'static [Align] {
        use Align::{Left, Right};
        match self {
            Self::Help(_) => &[Left, Left],
            Self::Vms(..) => &[Left, Left, Right, Right, Right, Right, Left],
            Self::Vcpus(..) => &[Right, Left, Right, Right, Right, Right],
            Self::Memory(_) => &[Right, Right, Right, Left, Right],
            Self::Meters(..) => &[
                Left, Right, Right, Right, Right, Right, Right, Right, Right, Right,
            ],
            Self::Exits(_) => &[Left, Right],
            Self::Devices(_) => &[Right, Left, Left, Left, Right, Right, Right, Right, Right],
            Self::Disks(..) => &[Left, Left, Right, Right, Right, Right, Right, Right],
            Self::Nets(..) => &[
                Left, Left, Left, Left, Right, Right, Right, Right, Right, Right,
            ],
        }
    }

    /// Returns a cell of a row; a list's first row is its header.
    fn cell(&self, place: usize, column: usize) -> Option<Cell<'a>> {
        use Cell::{Indented, Number, Word};
        let row = place.checked_sub(1);
        match self {
            Self::Help(commands) => {
                let usage = commands.get(place)?;
                [Word(usage.form), Word(usage.text)].get(column).copied()
            }
            Self::Vms(rows, names) => match row {
                None => ["NAME", "STATE", "VCPUS", "TARGET", "MAX", "MEMORY", "NOTE"]
                    .get(column)
                    .map(|word| Word(word)),
                Some(row) => vm(rows.get(row)?, names).get(column).copied(),
            },
            Self::Vcpus(rows, has_marks) => match row {
                None => ["VCPU", "STATE", "CPU", "EXITS", "RAN", "STOLEN"]
                    .get(column)
                    .map(|word| Word(word)),
                Some(row) => vcpu(rows.get(row)?, *has_marks).get(column).copied(),
            },
            Self::Meters(rows, names, has_marks) => match row {
                None => METERS.get(column).map(|word| Word(word)),
                Some(row) => meter(rows.get(row)?, names, *has_marks)
                    .get(column)
                    .copied(),
            },
            Self::Memory(rows) => match row {
                None => MEMORY.get(column).map(|word| Word(word)),
                Some(row) => memory(rows.get(row)?).get(column).copied(),
            },
            Self::Exits(counts) => {
                let (reason, count) = counts.occurred().nth(place)?;
                let cells = [Indented(reason.name()), Number(count)];
                cells.get(column).copied()
            }
            Self::Devices(rows) => match row {
                None => DEVICES.get(column).map(|word| Word(word)),
                Some(row) => device(rows.get(row)?).get(column).copied(),
            },
            Self::Disks(rows, names) => match row {
                None => DISKS.get(column).map(|word| Word(word)),
                Some(row) => disk(rows.get(row)?, names).get(column).copied(),
            },
            Self::Nets(rows, names) => match row {
                None => NETS.get(column).map(|word| Word(word)),
                Some(row) => net(rows.get(row)?, names).get(column).copied(),
            },
        }
    }

    /// Returns how wide the columns are.
    pub(super) fn widths(&self) -> Widths {
        let mut widths = Widths::default();
        let mut place = 0_usize;
        while self.cell(place, 0).is_some() {
            for (column, width) in widths.iter_mut().enumerate() {
                let cell = self.cell(place, column);
                *width = cell.map_or(0, |cell| cell.width()).max(*width);
            }
            place = place.saturating_add(1);
        }
        widths
    }

    /// Returns what the list's marks mean, if it has any.
    pub(super) const fn footnote(&self) -> &'static str {
        match self {
            Self::Help(_) => "`help COMMAND` gives an example, the Tab key completes words\r\n",
            Self::Vcpus(_, true) | Self::Meters(_, _, true) => {
                "* alone on its CPU: RAN counts its sleep too\r\n"
            }
            _ => "",
        }
    }

    /// Writes a row, if there is one; nothing follows its last cell.
    pub(super) fn write(
        &self,
        place: usize,
        widths: &Widths,
        out: &mut dyn ByteSink,
    ) -> Option<()> {
        let mut gap = 0_usize;
        for ((column, align), width) in self.columns().iter().enumerate().zip(widths) {
            let cell = self.cell(place, column)?;
            let fill = width.saturating_sub(cell.width());
            let (before, after) = match align {
                Align::Left => (0, fill),
                Align::Right => (fill, 0),
            };
            gap = gap.saturating_add(before);
            if cell.width() != 0 {
                put!(out, "{:gap$}{cell}", "");
                gap = 0;
            }
            gap = gap.saturating_add(after).saturating_add(GAP);
        }
        out.put(b"\r\n");
        Some(())
    }
}

fn vm<'a>(row: &'a VmRow, names: &'a Names) -> [Cell<'a>; 7] {
    use Cell::{Mib, Number, Word};
    let numbers = [row.on, row.target, row.possible].map(u64::from);
    let [on, target, possible] = numbers.map(Number);
    let name = Word(names.of(row.vm));
    let note = Word(row.note.as_deref().unwrap_or_default());
    let memory = Mib(row.memory_bytes);
    [name, Word(row.state), on, target, possible, memory, note]
}

/// The header of a list of memory slots.
const MEMORY: [&str; 5] = ["SLOT", "ADDRESS", "SIZE", "STATE", "ANSWER"];

fn memory(row: &MemoryRow) -> [Cell<'_>; 5] {
    use Cell::{Hex, Mib, Number, Word};
    let answer = row.answer.map_or(Word(""), |(event, status)| {
        Hex(u64::from(event) << OST_SOURCE_SHIFT | u64::from(status))
    });
    let (slot, size) = (Number(row.slot.into()), Mib(row.bytes));
    [slot, Hex(row.address), size, Word(row.state), answer]
}

/// Returns what stands behind a time: whether sleep is in it, if that is so of any.
const fn mark(counts_sleep: bool, has_marks: bool) -> &'static str {
    match (counts_sleep, has_marks) {
        (true, _) => "*",
        (false, true) => " ",
        (false, false) => "",
    }
}

fn vcpu(row: &VcpuRow, has_marks: bool) -> [Cell<'_>; 6] {
    use Cell::{Number, Time, Word};
    let (vcpu, cpu) = (Number(row.vcpu.get().into()), Number(row.cpu.get().into()));
    let ran = Time(Seconds(row.ran_ns), mark(row.counts_sleep, has_marks));
    let stolen = Time(Seconds(row.stolen_ns), "");
    [vcpu, Word(row.state), cpu, Number(row.exits), ran, stolen]
}

/// The header of a list of meters: at last the operator's resizes by outcome.
const METERS: [&str; 10] = [
    "VM",
    "HELD",
    "ENTITLED",
    "RAN",
    "STOLEN",
    "THROTTLED",
    "DONE",
    "PARTLY",
    "REFUSED",
    "TIMED-OUT",
];

fn meter<'a>(row: &MeterRow, names: &'a Names, has_marks: bool) -> [Cell<'a>; 10] {
    let time = |ns| Cell::Time(Seconds(ns), "");
    let ran = Cell::Time(Seconds(row.ran_ns), mark(row.counts_sleep, has_marks));
    let (held, entitled) = (time(row.meter.held_ns), time(row.meter.entitled_ns));
    let (stolen, throttled) = (time(row.stolen_ns), time(row.throttled_ns));
    let count = |counts: Latencies| Cell::Number(counts.into_iter().map(u64::from).sum());
    let [done, partly, refused, timed_out] = row.meter.resizes.map(count);
    let vm = Cell::Word(names.of(row.vm));
    [
        vm, held, entitled, ran, stolen, throttled, done, partly, refused, timed_out,
    ]
}

/// The header of a list of devices.
const DEVICES: [&str; 9] = [
    "SLOT",
    "NAME",
    "KIND",
    "STATE",
    "NOTIFIED",
    "CHAINS",
    "IRQS",
    "SUPPRESSED",
    "BROKEN",
];

fn device(row: &DeviceRow) -> [Cell<'_>; 9] {
    use Cell::{Number, Word};
    let counts = [
        row.notifications,
        row.chains,
        row.interrupts,
        row.suppressed,
        row.broken,
    ];
    let [notified, chains, interrupts, suppressed, broken] = counts.map(Number);
    let (slot, name) = (Number(row.slot.into()), Word(&row.name));
    let (kind, state) = (Word(row.kind), Word(row.state));
    [
        slot, name, kind, state, notified, chains, interrupts, suppressed, broken,
    ]
}

/// The header of a list of disks.
const DISKS: [&str; 8] = [
    "VM", "DISK", "SIZE", "COW", "QUOTA", "READ", "WRITTEN", "ERRORS",
];

fn disk<'a>(row: &'a DiskRow, names: &'a Names) -> [Cell<'a>; 8] {
    use Cell::{Kib, Number, Word};
    let [replaced, quota] = match row.replaced {
        Some((replaced, quota)) => [Kib(replaced), Kib(quota)],
        None => [Word("read-only"), Word("")],
    };
    let [size, read, written] = [row.bytes, row.read_bytes, row.written_bytes].map(Kib);
    let (vm, name) = (Word(names.of(row.vm)), Word(&row.name));
    [
        vm,
        name,
        size,
        replaced,
        quota,
        read,
        written,
        Number(row.errors),
    ]
}

/// The header of a list of ports.
const NETS: [&str; 10] = [
    "VM", "PORT", "NETWORK", "MAC", "SENT", "BYTES", "RECEIVED", "BYTES", "DROPPED", "REFUSED",
];

fn net<'a>(row: &'a NetRow, names: &'a Names) -> [Cell<'a>; 10] {
    use Cell::{Number, Word};
    let counts = [
        row.sent,
        row.sent_bytes,
        row.received,
        row.received_bytes,
        row.dropped,
        row.refused,
    ];
    let [sent, sent_bytes, received, received_bytes, dropped, refused] = counts.map(Number);
    let (vm, name) = (Word(names.of(row.vm)), Word(&row.name));
    let (network, mac) = (Word(&row.network), Word(&row.mac));
    [
        vm,
        name,
        network,
        mac,
        sent,
        sent_bytes,
        received,
        received_bytes,
        dropped,
        refused,
    ]
}

impl Cell<'_> {
    fn width(&self) -> usize {
        match self {
            Self::Word(text) => text.chars().count(),
            Self::Indented(text) => text.len().saturating_add(GAP),
            Self::Number(number) => digits(*number),
            Self::Hex(number) => "0x".len().saturating_add(hex_digits(*number)),
            Self::Mib(bytes) => digits(bytes / MIB).saturating_add(" MiB".len()),
            Self::Kib(bytes) => digits(bytes / KIB).saturating_add(" KiB".len()),
            Self::Time(Seconds(ns), mark) => digits(ns / NS_PER_MS / MS_PER_S)
                .saturating_add(".000 s".len())
                .saturating_add(mark.len()),
        }
    }
}

impl fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(text) => Printable(text).fmt(f),
            Self::Indented(text) => write!(f, "  {text}"),
            Self::Number(number) => number.fmt(f),
            Self::Hex(number) => write!(f, "{number:#x}"),
            Self::Mib(bytes) => write!(f, "{} MiB", bytes / MIB),
            Self::Kib(bytes) => write!(f, "{} KiB", bytes / KIB),
            Self::Time(time, mark) => write!(f, "{time}{mark}"),
        }
    }
}

/// Returns how many digits a number has.
fn digits(number: u64) -> usize {
    let more = number.checked_ilog10().unwrap_or(0) as usize;
    more.saturating_add(1)
}

/// Returns how many hexadecimal digits a number has.
fn hex_digits(number: u64) -> usize {
    let more = number.checked_ilog2().unwrap_or(0) as usize / 4;
    more.saturating_add(1)
}

/// A time in nanoseconds, in seconds with three decimals.
#[derive(Clone, Copy)]
pub(super) struct Seconds(pub(super) u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0 / NS_PER_MS;
        write!(f, "{}.{:03} s", ms / MS_PER_S, ms % MS_PER_S)
    }
}

/// Text that came from elsewhere, with everything replaced that a terminal could act on.
pub(super) struct Printable<'a>(pub(super) &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        self.0.chars().try_for_each(|character| {
            f.write_char(if character.is_control() {
                '.'
            } else {
                character
            })
        })
    }
}
