//! The hot-plug block's map, for vCPUs and memory: Bullpen's own device, described to operators and firmware in
//! `docs/hotplug-registers.md`.
//!
//! Neighbours: `firmware::acpi` (the AML that uses it), `vmm::devices::cpu_hotplug` (the device behind it).

/// Size of the register window.
pub const WINDOW_BYTES: u64 = 0x1_0000;

/// Offset of EVENT: reading takes the next event.
pub const EVENT: u64 = 0x000;
/// Offset of COUNT: the number of possible vCPUs.
pub const COUNT: u64 = 0x004;
/// Offset of SLOTS: the number of memory slots.
pub const SLOTS: u64 = 0x008;
/// Offset of the first memory slot's frame; it has the registers of a vCPU's.
pub const SLOT_FRAMES: u64 = 0x4000;
/// Offset of the first per-vCPU frame.
pub const FRAMES: u64 = 0x1000;
/// Distance from one per-vCPU frame to the next.
pub const FRAME_BYTES: u64 = 16;
/// Offset of STA in a frame: what `_STA` returns.
pub const FRAME_STA: u64 = 0;
/// Offset of EJECT in a frame: `_EJ0` writes it.
pub const FRAME_EJECT: u64 = 4;
/// Offset of OST in a frame: `_OST` writes it.
pub const FRAME_OST: u64 = 8;

/// EVENT: the value is an event.
pub const EVENT_VALID: u32 = 1 << 31;
/// EVENT: a further event is waiting.
pub const EVENT_MORE: u32 = 1 << 30;
/// EVENT: it is about a memory slot, whose number stands where a vCPU's UID does.
pub const EVENT_SLOT: u32 = 1 << 24;
/// EVENT: where the Notify code stands; the vCPU's UID is in the bits below.
pub const EVENT_CODE_SHIFT: u32 = 16;

/// EJECT: the bit that confirms an ejection.
pub const EJECT_CONFIRM: u64 = 1;
/// OST: where the source event stands; the status is in the bits below.
pub const OST_SOURCE_SHIFT: u32 = 16;

/// What comes and goes; both are numbered from 0 to 511.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// vCPUs, by their UID.
    Vcpu,
    /// Memory slots.
    Slot,
}

/// What a guest is notified of, with its ACPI Notify value (ACPI 6.5, 5.6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Notify {
    /// Device check: a vCPU or memory was added.
    DeviceCheck = 1,
    /// Eject request: a vCPU or memory is asked back.
    EjectRequest = 3,
    /// The power button was pressed (ACPI 6.5, 4.8.2.2.1.2).
    PowerButton = 0x80,
}
