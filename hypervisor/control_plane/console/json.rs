//! JSON lines out: a small writer, and the shapes of replies, errors and events on the control channel.
//!
//! `docs/console.md` documents every field. Neighbours: `request` (JSON in), `reply` (the values), `text` (the same for people).

use super::{
    error::CommandError,
    names::Names,
    reply::{
        DeviceRow, DiskRow, Event, HostReport, MemoryRow, MeterRow, NetRow, Reply, ResizeReport,
        StatsRow, VcpuRow, VmPage, VmRow, What, log_line,
    },
    request::RequestId,
    sink::{ByteSink, put},
    usage::Usage,
};
use crate::clock::utc::Utc;
use crate::resize::{Outcome, Shortfall};
use alloc::{format, string::ToString};
use types::entitlement::{Bounds, Entitlement};
use types::ids::VmId;

/// Writes one JSON text; commas are its business, the nesting is the caller's.
pub(super) struct JsonWriter<'a> {
    out: &'a mut dyn ByteSink,
    comma: bool,
}

impl<'a> JsonWriter<'a> {
    pub(super) fn new(out: &'a mut dyn ByteSink) -> Self {
        Self { out, comma: false }
    }

    fn open(&mut self, bracket: &str) {
        self.separate();
        self.out.put(bracket.as_bytes());
        self.comma = false;
    }

    fn close(&mut self, bracket: &str) {
        self.out.put(bracket.as_bytes());
        self.comma = true;
    }

    fn object(&mut self, fields: impl FnOnce(&mut Self)) {
        self.open("{");
        fields(self);
        self.close("}");
    }

    /// Writes a key, which is a word; the next value belongs to it.
    fn key(&mut self, key: &str) -> &mut Self {
        self.separate();
        self.out.put(b"\"");
        self.out.put(key.as_bytes());
        self.out.put(b"\": ");
        self.comma = false;
        self
    }

    fn string(&mut self, text: &str) {
        self.separate();
        self.out.put(b"\"");
        self.escaped(text);
        self.out.put(b"\"");
        self.comma = true;
    }

    fn number(&mut self, value: impl Into<u64>) {
        self.separate();
        put!(self.out, "{}", value.into());
        self.comma = true;
    }

    fn bool(&mut self, value: bool) {
        self.raw(if value { "true" } else { "false" });
    }

    /// Writes a value that is JSON already, or a literal.
    fn raw(&mut self, json: &str) {
        self.separate();
        self.out.put(json.as_bytes());
        self.comma = true;
    }

    fn separate(&mut self) {
        if self.comma {
            self.out.put(b", ");
        }
    }

    /// Writes text with what JSON forbids in a string escaped (RFC 8259, section 7), and whatever else a terminal might act on.
    fn escaped(&mut self, text: &str) {
        let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
        if text.bytes().all(plain) {
            return self.out.put(text.as_bytes());
        }
        let special = |c: char| c.is_control() || matches!(c, '"' | '\\');
        let mut rest = text;
        while let Some(at) = rest.find(special) {
            let (plain, tail) = rest.split_at_checked(at).unwrap_or((rest, ""));
            self.out.put(plain.as_bytes());
            let mut characters = tail.chars();
            match characters.next() {
                Some('"') => self.out.put(b"\\\""),
                Some('\\') => self.out.put(b"\\\\"),
                Some('\n') => self.out.put(b"\\n"),
                Some(other) => put!(self.out, "\\u{:04x}", u32::from(other)),
                None => {}
            }
            rest = characters.as_str();
        }
        self.out.put(rest.as_bytes());
    }
}

/// Writes the reply line for a request as far as its rows, if it has any: then the line goes on with [`row`] and ends with what is
/// returned.
pub(super) fn reply_head(
    id: &RequestId,
    result: &Result<Reply, CommandError>,
    names: &Names,
    out: &mut dyn ByteSink,
) -> Option<&'static str> {
    let mut json = JsonWriter::new(&mut *out);
    json.open("{");
    json.key("id").raw(id.as_json());
    json.key("ok").bool(result.is_ok());
    match result {
        Ok(reply) => {
            json.key("result").open("{");
            if let Some(rows) = reply_fields(&mut json, reply, names) {
                json.key(rows).open("[");
                return Some("]}}\n");
            }
            json.close("}");
        }
        Err(error) => json.key("error").object(|json| {
            json.key("kind").string(error.kind.name());
            json.key("message").string(&error.message);
            if let Some(bounds) = &error.bounds {
                bounds_fields(json, bounds);
            }
        }),
    }
    json.close("}");
    out.put(b"\n");
    None
}

/// Writes the line for an event as [`reply_head`] does; `dropped` events of the VM before it were not told.
pub(super) fn event_head(
    event: &Event,
    dropped: u32,
    names: &Names,
    out: &mut dyn ByteSink,
) -> Option<&'static str> {
    let mut json = JsonWriter::new(&mut *out);
    json.open("{");
    json.key("event").string(event.what.name());
    vm_field(&mut json, event.vm, names);
    let mut has_rows = false;
    match &event.what {
        What::VmStart | What::VmPaused | What::VmResumed => {}
        What::VmOff(reason, note) => {
            json.key("reason").string(reason);
            if let Some(note) = note {
                json.key("note").string(note);
            }
        }
        What::VmReset(reason) => json.key("reason").string(reason),
        What::MemoryEjected(slot) => json.key("slot").number(*slot),
        What::DiskFull(disk) => json.key("device").string(disk),
        What::DeviceBroken(device, why) => {
            json.key("device").string(device);
            json.key("reason").string(why);
        }
        What::VcpuOnline(vcpu) | What::VcpuOffline(vcpu) => json.key("vcpu").number(vcpu.get()),
        What::Usage(row) => meter_fields(&mut json, row),
        What::ResizeDone(report) => {
            resize_fields(&mut json, report);
            has_rows = true;
        }
    }
    json.key("time_ns").number(event.time_ns);
    if dropped != 0 {
        json.key("dropped").number(dropped);
    }
    if has_rows {
        json.key(REASONS).open("[");
        return Some("]}\n");
    }
    json.close("}");
    out.put(b"\n");
    None
}

/// The rows of a resize.
const REASONS: &str = "reasons";

/// Writes the fields of a result but for its rows, and returns what these are called.
fn reply_fields(json: &mut JsonWriter<'_>, reply: &Reply, names: &Names) -> Option<&'static str> {
    match reply {
        Reply::Done => {}
        Reply::Help(_) => return Some("commands"),
        Reply::VmShow(page) => page_fields(json, page, names),
        Reply::Top(sample) => {
            json.key("time_ns").number(sample.time_ns);
            json.key("left_out").number(sample.left_out);
            return Some("vcpus");
        }
        Reply::Usage { time_ns, .. } => {
            json.key("time_ns").number(*time_ns);
            return Some("vms");
        }
        Reply::Attached(vm) => vm_field(json, *vm, names),
        Reply::VmList(_) | Reply::Stats(_) => return Some("vms"),
        Reply::VcpuList { vm, .. } => {
            vm_field(json, *vm, names);
            return Some("vcpus");
        }
        Reply::MemoryList { vm, .. } => {
            vm_field(json, *vm, names);
            return Some("slots");
        }
        Reply::Resize(report) => {
            vm_field(json, report.vm, names);
            resize_fields(json, report);
            return Some(REASONS);
        }
        Reply::DeviceList { vm, .. } => {
            vm_field(json, *vm, names);
            return Some("devices");
        }
        Reply::DiskList(_) => return Some("disks"),
        Reply::NetList(_) => return Some("ports"),
        Reply::Log(_) => return Some("lines"),
        Reply::Host(host) => host_fields(json, host),
        Reply::HostTime { unix_s, known } => {
            json.key("time").string(&Utc(*unix_s).to_string());
            json.key("unix_s").number(*unix_s);
            json.key("known").bool(*known);
        }
    }
    None
}

/// Writes the row of a reply that begins at a place; returns where the next one does, if there was one.
pub(super) fn row(
    reply: &Reply,
    place: usize,
    names: &Names,
    out: &mut dyn ByteSink,
) -> Option<usize> {
    let mut json = JsonWriter::new(out);
    json.comma = place != 0;
    let json = &mut json;
    match reply {
        Reply::Help(topic) => {
            let usage = topic.commands().get(place)?;
            json.object(|json| usage_fields(json, usage, names));
        }
        Reply::VcpuList { vcpus, .. } => {
            let row = vcpus.get(place)?;
            json.object(|json| vcpu_fields(json, row));
        }
        Reply::Top(sample) => {
            let (vm, row) = sample.vcpus.get(place)?;
            json.object(|json| {
                vm_field(json, *vm, names);
                vcpu_fields(json, row);
            });
        }
        Reply::Resize(resize) => {
            let row = resize.report.shortfalls.get(place)?;
            let key = if resize.memory.is_some() {
                "slot"
            } else {
                "vcpu"
            };
            json.object(|json| shortfall_fields(json, key, row));
        }
        Reply::Log(lines) => {
            let line = log_line(lines, place)?;
            json.string(line);
            return Some(place.saturating_add(line.len()).saturating_add(1));
        }
        _ => device_row(json, reply, place, names)?,
    }
    Some(place.saturating_add(1))
}

/// Writes the row of a list of memory or devices, if there is one.
fn device_row(json: &mut JsonWriter<'_>, reply: &Reply, place: usize, names: &Names) -> Option<()> {
    match reply {
        Reply::MemoryList { slots, .. } => {
            let row = slots.get(place)?;
            json.object(|json| memory_fields(json, row));
        }
        Reply::DeviceList { devices, .. } => {
            let row = devices.get(place)?;
            json.object(|json| device_fields(json, row));
        }
        Reply::DiskList(rows) => {
            let row = rows.get(place)?;
            json.object(|json| disk_fields(json, row, names));
        }
        Reply::NetList(rows) => {
            let row = rows.get(place)?;
            json.object(|json| net_fields(json, row, names));
        }
        _ => return vm_row(json, reply, place, names),
    }
    Some(())
}

fn memory_fields(json: &mut JsonWriter<'_>, row: &MemoryRow) {
    json.key("slot").number(row.slot);
    json.key("address").number(row.address);
    json.key("bytes").number(row.bytes);
    json.key("state").string(row.state);
    if let Some((event, status)) = row.answer {
        json.key("ost_event").number(event);
        json.key("ost_status").number(status);
    }
}

/// Writes a row that is about a VM as a whole; `None` if the reply has no such row.
fn vm_row(json: &mut JsonWriter<'_>, reply: &Reply, place: usize, names: &Names) -> Option<()> {
    match reply {
        Reply::VmList(rows) => {
            let row = rows.get(place)?;
            json.object(|json| vm_fields(json, row, names));
        }
        Reply::Usage { vms, .. } => {
            let row = vms.get(place)?;
            json.object(|json| {
                vm_field(json, row.vm, names);
                meter_fields(json, row);
            });
        }
        Reply::Stats(rows) => {
            let row = rows.get(place)?;
            json.object(|json| stats_fields(json, row, names));
        }
        _ => return None,
    }
    Some(())
}

fn shortfall_fields(json: &mut JsonWriter<'_>, key: &str, Shortfall { vcpu, why }: &Shortfall) {
    json.key(key).number(vcpu.get());
    json.key("reason").string(why.word());
    json.key("message").string(&why.to_string());
}

fn usage_fields(json: &mut JsonWriter<'_>, usage: &Usage, names: &Names) {
    json.key("form").string(usage.form);
    json.key("text").string(usage.text);
    json.key("example")
        .string(&usage.example(names.of(VmId::new(0))));
}

fn vm_field(json: &mut JsonWriter<'_>, vm: VmId, names: &Names) {
    json.key("vm").string(names.of(vm));
}

fn vm_fields(json: &mut JsonWriter<'_>, row: &VmRow, names: &Names) {
    vm_field(json, row.vm, names);
    json.key("state").string(row.state);
    json.key("on").number(row.on);
    json.key("target").number(row.target);
    json.key("possible").number(row.possible);
    json.key("memory_bytes").number(row.memory_bytes);
    if let Some(note) = &row.note {
        json.key("note").string(note);
    }
}

/// Writes everything about a VM; what there is not has no key.
fn page_fields(json: &mut JsonWriter<'_>, page: &VmPage, names: &Names) {
    vm_fields(json, &page.row, names);
    json.key("boot").number(page.boot);
    json.key("max_memory_bytes").number(page.max_memory_bytes);
    if let Some(millicores) = page.cap {
        json.key("cap").number(millicores);
    }
    json.key("weight").number(page.weight);
    json.key("entitlement").object(|json| {
        let Entitlement { vcpus, cpu_cap } = &page.entitlement;
        for (key, bounds) in [("vcpus", vcpus), ("cpu_cap", cpu_cap)] {
            if let Some(bounds) = bounds {
                json.key(key).object(|json| bounds_fields(json, bounds));
            }
        }
    });
    json.key("cpus").open("[");
    page.cpus.iter().for_each(|cpu| json.number(cpu.get()));
    json.close("]");
    for (key, text) in [
        ("kernel", Some(page.kernel)),
        ("initrd", page.initrd),
        ("command_line", Some(page.command_line)),
        ("firmware", Some(page.firmware)),
    ] {
        if let Some(text) = text {
            json.key(key).string(text);
        }
    }
    json.key("exits").number(page.exits);
    json.key("time_ns").number(page.time_ns);
    if let Some(started_ns) = page.started_ns {
        json.key("started_ns").number(started_ns);
    }
    json.key("resets").number(page.resets);
    let error = page.last_error.as_ref();
    for (key, past) in [
        ("last_reset", page.last_reset),
        ("last_off", page.last_off),
        (
            "last_error",
            error.map(|(time_ns, why)| (*time_ns, why.as_str())),
        ),
    ] {
        if let Some((time_ns, why)) = past {
            json.key(key).object(|json| {
                json.key("time_ns").number(time_ns);
                json.key("why").string(why);
            });
        }
    }
    if let Some([before, behind]) = page.way_out {
        let way_out = format!("{before}{}{behind}", names.of(page.row.vm));
        json.key("way_out").string(&way_out);
    }
}

/// Writes the meters of a VM; of its resizes the counts by latency, as far as there are any.
fn meter_fields(json: &mut JsonWriter<'_>, row: &MeterRow) {
    for (key, ns) in [
        ("held_ns", row.meter.held_ns),
        ("entitled_ns", row.meter.entitled_ns),
        ("ran_ns", row.ran_ns),
        ("stolen_ns", row.stolen_ns),
        ("throttled_ns", row.throttled_ns),
    ] {
        json.key(key).number(ns);
    }
    json.key("counts_sleep").bool(row.counts_sleep);
    json.key("resizes").object(|json| {
        for (outcome, counts) in Outcome::WORDS.iter().zip(&row.meter.resizes) {
            let last = counts.iter().rposition(|count| *count != 0);
            let end = last.map_or(0, |last| last.saturating_add(1));
            json.key(outcome).open("[");
            counts
                .iter()
                .take(end)
                .for_each(|count| json.number(*count));
            json.close("]");
        }
    });
}

fn bounds_fields(json: &mut JsonWriter<'_>, bounds: &Bounds) {
    json.key("min").number(bounds.min);
    json.key("max").number(bounds.max);
}

fn vcpu_fields(json: &mut JsonWriter<'_>, row: &VcpuRow) {
    json.key("vcpu").number(row.vcpu.get());
    json.key("state").string(row.state);
    json.key("cpu").number(row.cpu.get());
    json.key("exits").number(row.exits);
    json.key("ran_ns").number(row.ran_ns);
    json.key("counts_sleep").bool(row.counts_sleep);
    json.key("stolen_ns").number(row.stolen_ns);
}

fn resize_fields(json: &mut JsonWriter<'_>, ResizeReport { memory, report, .. }: &ResizeReport) {
    for (key, bytes_key, count) in [
        ("requested", "requested_bytes", report.requested),
        ("reached", "reached_bytes", report.reached),
    ] {
        match memory {
            None => json.key(key).number(count),
            Some(unit) => json.key(bytes_key).number(unit.bytes(count)),
        }
    }
    json.key("outcome").string(report.outcome.name());
}

fn stats_fields(json: &mut JsonWriter<'_>, row: &StatsRow, names: &Names) {
    vm_field(json, row.vm, names);
    json.key("total").number(row.exits.total());
    json.key("exits").object(|json| {
        for (reason, count) in row.exits.occurred() {
            json.key(reason.name()).number(count);
        }
    });
}

fn device_fields(json: &mut JsonWriter<'_>, row: &DeviceRow) {
    json.key("slot").number(row.slot);
    json.key("name").string(&row.name);
    json.key("kind").string(row.kind);
    json.key("state").string(row.state);
    json.key("notifications").number(row.notifications);
    json.key("chains").number(row.chains);
    json.key("interrupts").number(row.interrupts);
    json.key("suppressed").number(row.suppressed);
    json.key("broken").number(row.broken);
}

fn disk_fields(json: &mut JsonWriter<'_>, row: &DiskRow, names: &Names) {
    vm_field(json, row.vm, names);
    json.key("disk").string(&row.name);
    json.key("bytes").number(row.bytes);
    if let Some((replaced, quota)) = row.replaced {
        json.key("cow_bytes").number(replaced);
        json.key("cow_quota").number(quota);
    }
    json.key("read_bytes").number(row.read_bytes);
    json.key("written_bytes").number(row.written_bytes);
    json.key("errors").number(row.errors);
}

fn net_fields(json: &mut JsonWriter<'_>, row: &NetRow, names: &Names) {
    vm_field(json, row.vm, names);
    json.key("name").string(&row.name);
    json.key("network").string(&row.network);
    json.key("mac").string(&row.mac);
    json.key("sent").number(row.sent);
    json.key("sent_bytes").number(row.sent_bytes);
    json.key("received").number(row.received);
    json.key("received_bytes").number(row.received_bytes);
    json.key("dropped").number(row.dropped);
    json.key("refused").number(row.refused);
}

fn host_fields(json: &mut JsonWriter<'_>, host: &HostReport) {
    json.key("version").string(host.version);
    json.key("machine").string(&host.machine);
    json.key("cpus_online").number(host.cpus_online);
    json.key("cpus").number(host.cpus);
    json.key("memory_bytes").number(host.memory_bytes);
    json.key("free_pages").number(host.free_pages);
    json.key("page_bytes").number(host.page_bytes);
    json.key("uptime_ns").number(host.uptime_ns);
}
