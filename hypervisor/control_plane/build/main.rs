//! Makes the AML that never changes while Bullpen is built, so that EL2 carries its bytes and not their writer.
//!
//! Numbers that depend on the machine are holes: a template is what stands before, between and after them.

mod aml;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use acpi_tables::aml::{Name, ONE, Path, ZERO};

/// Stand for numbers that are not known yet; they occur nowhere else, and are as long as every number of their place.
const HOLES: [u32; 6] = [
    0xfade_0001,
    0xfade_0002,
    0xfade_0003,
    0xfade_0004,
    0xfade_0005,
    0xfade_0006,
];

/// Stands for the hardware id of a device; every id is as long.
const HARDWARE_ID: &str = "XXXX0000";

fn main() -> Result<(), std::io::Error> {
    println!("cargo::rerun-if-changed=build");
    let [first, second, third, fourth, fifth, sixth] = HOLES;
    let events = |has_spares, has_slots| aml::event_device(first, second, has_spares, has_slots);
    let mut source = String::new();
    for (name, aml) in [
        ("SYSTEM_BUS", aml::bytes(&Path::new("_SB_"))),
        ("FIXED_DEVICES", aml::fixed_devices()),
        ("RESOURCES", aml::device_resources(first, second, third)),
        ("NUMBER", number()),
        ("COHERENT", aml::bytes(&Name::new(Path::new("_CCA"), &ONE))),
        ("CPUS", aml::bytes(&Path::new("_SB_.CPUS"))),
        ("PROCESSOR", processor()),
        ("BOOT_PROCESSOR", aml::boot_processor()),
        ("SPARE_PROCESSOR", aml::spare_processor(first)),
        ("MEMORY_CONTAINER", aml::memory_container()),
        ("MEMORY", aml::bytes(&Path::new("_SB_.MEMS"))),
        ("MEMORY_ID", aml::memory_id()),
        (
            "MEMORY_SLOT",
            aml::memory_slot([first, second, third, fourth], fifth, sixth),
        ),
        ("EVENTS_OF_PROCESSORS", events(true, false)),
        ("EVENTS_OF_MEMORY", events(false, true)),
        ("EVENTS_OF_BOTH", events(true, true)),
        ("POWER_BUTTON_DEVICE", events(false, false)),
    ] {
        let parts: Vec<String> = split(&aml)
            .iter()
            .map(|part| format!("&{part:?}"))
            .collect();
        let (count, parts) = (parts.len(), parts.join(", "));
        writeln!(
            source,
            "pub(super) const {name}: [&[u8]; {count}] = [{parts}];"
        )
        .map_err(std::io::Error::other)?;
    }
    let id = aml::bytes(&Name::new(Path::new("_HID"), &HARDWARE_ID));
    let mut windows = id.windows(HARDWARE_ID.len());
    let at = windows.position(|window| window == HARDWARE_ID.as_bytes());
    let (begin, rest) = id.split_at(at.unwrap_or(0));
    let end = &rest[HARDWARE_ID.len()..];
    writeln!(
        source,
        "pub(super) const HARDWARE_ID: [&[u8]; 2] = [&{begin:?}, &{end:?}];"
    )
    .map_err(std::io::Error::other)?;
    let out = env::var_os("OUT_DIR").ok_or_else(|| std::io::Error::other("no OUT_DIR"))?;
    fs::write(PathBuf::from(out).join("aml.rs"), source)
}

/// Returns what a processor's device begins with; the number of its `_UID` comes after.
fn processor() -> Vec<u8> {
    let mut begin = aml::bytes(&Name::new(Path::new("_HID"), &"ACPI0007"));
    begin.extend(number());
    begin
}

/// Returns a `_UID` without its number, which comes after.
fn number() -> Vec<u8> {
    let mut begin = aml::bytes(&Name::new(Path::new("_UID"), &ZERO));
    begin.pop();
    begin
}

/// Returns what stands between the holes, which are in order.
fn split(mut aml: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    for hole in HOLES.map(u32::to_le_bytes) {
        if let Some(at) = aml.windows(4).position(|window| window == hole) {
            parts.push(&aml[..at]);
            aml = &aml[at + 4..];
        }
    }
    parts.push(aml);
    parts
}
