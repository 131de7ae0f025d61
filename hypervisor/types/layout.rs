//! Where things are in a guest's address space: the map that tables, device trees, the bus and the virtual GIC all agree on.
//!
//! A value, not code: [`GuestLayout::default`] is QEMU virt's map, so that images built for that machine run unmodified.

use crate::address::GuestPhys;
use crate::devices::DeviceId;
use crate::ids::VcpuId;

/// Size of one vCPU's redistributor: an RD_base and an SGI_base frame (GIC IHI0069, 12.10).
pub const REDISTRIBUTOR_SIZE: u64 = 0x2_0000;

/// How far up from the RAM base firmware's tables reach at most; raw binaries are loaded right above.
pub const FIRMWARE_SIZE: u64 = 0x8_0000;

/// The unit in which guest memory is described: the largest translation granule (Arm ARM DDI0487, D8.1.8).
pub const GRANULE: u64 = 0x1_0000;

/// Bytes of a vCPU's record of stolen time, which is aligned to as many (Arm DEN0057A, 3.2.2).
pub const STOLEN_TIME_BYTES: u64 = 64;

/// Memory slots that a VM has at most.
pub const MAX_SLOTS: u16 = crate::ids::MAX_VCPUS;

/// INTID of a guest's virtual timer, as every Arm server numbers it (Arm BSA, table 6).
pub const VIRTUAL_TIMER: u32 = 27;
/// INTID of a guest's non-secure EL1 physical timer.
pub const PHYSICAL_TIMER: u32 = 30;
/// INTID of the overflow interrupt of a guest's performance monitors.
pub const PMU_OVERFLOW: u32 = 23;

/// A range of guest addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub base: GuestPhys,
    /// Length in bytes.
    pub size: u64,
}

impl Region {
    /// Describes `size` bytes from `base` on.
    pub const fn new(base: u64, size: u64) -> Self {
        Self {
            base: GuestPhys::new(base),
            size,
        }
    }

    /// Returns the address after the last byte, or `None` when the region is empty or leaves the address space.
    pub const fn end(self) -> Option<u64> {
        match self.base.get().checked_add(self.size) {
            Some(end) if self.size != 0 => Some(end),
            _ => None,
        }
    }

    /// Returns whether `address` is inside.
    pub const fn contains(self, address: GuestPhys) -> bool {
        address.get().wrapping_sub(self.base.get()) < self.size
    }

    /// Returns whether the two regions share a byte.
    pub const fn overlaps(self, other: Self) -> bool {
        self.size != 0
            && other.size != 0
            && (self.contains(other.base) || other.contains(self.base))
    }

    /// Returns whether all of `other` is inside.
    pub const fn covers(self, other: Self) -> bool {
        match (self.end(), other.end()) {
            (Some(end), Some(other_end)) => self.base.get() <= other.base.get() && other_end <= end,
            _ => false,
        }
    }
}

/// Where a device is in one VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceSlot {
    /// The registers, of all its windows.
    pub registers: Region,
    /// Its interrupt as the GIC numbers it (INTID); that of its first window.
    pub intid: u32,
}

impl DeviceSlot {
    /// Takes a device's place from its row.
    const fn of(device: DeviceId) -> Self {
        let row = device.row();
        Self {
            registers: row.registers,
            intid: row.intid,
        }
    }
}

crate::words! {
    /// Which version of the interrupt controller there is: what a guest sees, and what the machine has.
    GicVersion:
    /// GICv2: a distributor and a CPU interface in memory, eight CPUs (IHI0048).
    V2 = "v2",
    /// GICv3 or later: a redistributor for each CPU, and a CPU interface in system registers (IHI0069).
    V3 = "v3",
}

/// Memory slots: windows of one size, one after the other, in which memory comes and goes while the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// First address of the first window, a multiple of `block`.
    pub base: GuestPhys,
    /// Size of a window in bytes.
    pub block: u64,
    /// How many there are, at most [`MAX_SLOTS`].
    pub count: u16,
}

impl Slots {
    /// None at all.
    pub const NONE: Self = Self {
        base: GuestPhys::new(0),
        block: 1,
        count: 0,
    };

    /// Returns the window of a slot.
    #[must_use]
    pub const fn window(self, slot: u16) -> Region {
        Region::new(self.base.get() + self.block * slot as u64, self.block)
    }

    /// Returns all windows together.
    #[must_use]
    pub const fn region(self) -> Region {
        Region {
            base: self.base,
            size: self.block * self.count as u64,
        }
    }

    /// Returns the slot in whose window `address` is, and the offset from there.
    #[must_use]
    pub const fn find(self, address: GuestPhys) -> Option<(u16, u64)> {
        let offset = address.get().wrapping_sub(self.base.get());
        match offset / self.block < self.count as u64 {
            true => Some(((offset / self.block) as u16, offset % self.block)),
            false => None,
        }
    }
}

/// The guest's map: addresses and interrupts of everything that is not a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestLayout {
    /// First address of RAM.
    pub ram_base: GuestPhys,
    /// Version of its interrupt controller.
    pub gic: GicVersion,
    /// The distributor.
    pub distributor: Region,
    /// A GICv2's CPU interface; a GICv3's is in no memory.
    pub cpu_interface: Region,
    /// Room for the first redistributors, one after the other in vCPU order.
    pub redistributors: Region,
    /// Where the redistributors continue that have no room in the first range; above all RAM.
    pub more_redistributors: GuestPhys,
    /// Where each emulated device is, by its [`DeviceId`].
    pub devices: [DeviceSlot; DeviceId::ALL.len()],
    /// Room for the records of stolen time of as many vCPUs as a VM may have; a guest may only read them.
    pub stolen_time: Region,
    /// Where memory comes and goes.
    pub slots: Slots,
    /// How many shared peripheral interrupts the GIC has: INTID 32 and up.
    pub spi_count: u16,
}

impl Default for GuestLayout {
    fn default() -> Self {
        Self {
            ram_base: GuestPhys::new(0x4000_0000),
            gic: GicVersion::V3,
            distributor: Region::new(0x0800_0000, 0x1_0000),
            cpu_interface: Region::new(0x0801_0000, crate::gicv2::GICC_SIZE),
            redistributors: Region::new(0x080a_0000, 123 * REDISTRIBUTOR_SIZE),
            more_redistributors: GuestPhys::new(0x40_0000_0000),
            devices: DeviceId::ALL.map(DeviceSlot::of),
            stolen_time: Region::new(0x090a_0000, GRANULE),
            slots: Slots::NONE,
            spi_count: 64,
        }
    }
}

impl GuestLayout {
    /// Returns where a device is.
    #[inline(always)]
    #[must_use]
    pub const fn device(&self, device: DeviceId) -> DeviceSlot {
        self.devices[device as usize]
    }

    /// Returns where one of the windows of a device is.
    #[must_use]
    pub const fn window(&self, device: DeviceId, window: u16) -> DeviceSlot {
        let slot = self.device(device);
        let bytes = slot.registers.size / device.row().windows as u64;
        let base = slot.registers.base.get() + bytes * window as u64;
        DeviceSlot {
            registers: Region::new(base, bytes),
            intid: slot.intid + window as u32,
        }
    }

    /// Returns where a vCPU's record of stolen time is.
    #[must_use]
    pub const fn stolen_time_of(&self, vcpu: VcpuId) -> GuestPhys {
        GuestPhys::new(self.stolen_time.base.get() + vcpu.get() as u64 * STOLEN_TIME_BYTES)
    }

    /// Returns the part of RAM that firmware's tables and device trees are put in: the bottom, at most [`FIRMWARE_SIZE`].
    pub const fn firmware(&self) -> Region {
        Region {
            base: self.ram_base,
            size: FIRMWARE_SIZE,
        }
    }

    /// Returns the redistributor ranges of a VM with `max_vcpus` possible vCPUs; with a GICv2 it has none.
    ///
    /// Guests walk each range until GICR_TYPER.Last, so the last frame *of each range* must say Last (GIC IHI0069, GICR_TYPER).
    pub const fn redistributors(&self, max_vcpus: u16) -> Redistributors {
        let room = self.redistributors.size / REDISTRIBUTOR_SIZE;
        let count = match self.gic {
            GicVersion::V2 => 0,
            GicVersion::V3 => max_vcpus as u64,
        };
        let first = if count < room { count } else { room };
        Redistributors {
            first: Region {
                base: self.redistributors.base,
                size: first * REDISTRIBUTOR_SIZE,
            },
            second: Region {
                base: self.more_redistributors,
                size: (count - first) * REDISTRIBUTOR_SIZE,
            },
        }
    }
}

/// The one or two ranges of a VM's redistributors, in vCPU order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redistributors {
    first: Region,
    second: Region,
}

impl Redistributors {
    /// Returns the ranges that hold at least one redistributor.
    pub fn regions(self) -> impl Iterator<Item = Region> {
        [self.first, self.second]
            .into_iter()
            .filter(|region| region.size != 0)
    }

    /// Returns the vCPU whose redistributor `address` is in, and the offset from its RD_base.
    #[inline(always)]
    pub const fn find(self, address: GuestPhys) -> Option<(VcpuId, u64)> {
        let (region, before) = if self.first.contains(address) {
            (self.first, 0)
        } else if self.second.contains(address) {
            (self.second, self.first.size)
        } else {
            return None;
        };
        let offset = address.get() - region.base.get();
        let index = (before + offset) / REDISTRIBUTOR_SIZE;
        Some((VcpuId::new(index as u16), offset % REDISTRIBUTOR_SIZE))
    }

    /// Returns whether a vCPU's redistributor is the last of its range: the value of GICR_TYPER.Last.
    pub const fn is_last(self, vcpu: VcpuId) -> bool {
        let end = (vcpu.get() as u64 + 1) * REDISTRIBUTOR_SIZE;
        end == self.first.size
            || (self.second.size != 0 && end == self.first.size + self.second.size)
    }
}

#[cfg(test)]
mod tests {
    use super::{GuestLayout, REDISTRIBUTOR_SIZE, Region, Slots};
    use crate::address::GuestPhys;
    use crate::ids::{MAX_VCPUS, VcpuId};
    use std::vec::Vec;

    #[test]
    fn the_default_regions_are_apart() {
        let layout = GuestLayout::default();
        let mut fixed = std::vec![
            layout.distributor,
            layout.cpu_interface,
            layout.redistributors,
            layout.stolen_time,
            layout.firmware(),
        ];
        fixed.extend(layout.devices.map(|slot| slot.registers));
        for (i, a) in fixed.iter().enumerate() {
            for b in &fixed[i + 1..] {
                assert!(!a.overlaps(*b), "{a:?} overlaps {b:?}");
            }
        }
    }

    #[test]
    fn all_records_of_stolen_time_have_room() {
        let layout = GuestLayout::default();
        let last = layout.stolen_time_of(VcpuId::new(MAX_VCPUS - 1)).get();
        let record = Region::new(last, super::STOLEN_TIME_BYTES);
        assert!(layout.stolen_time.covers(record));
    }

    #[test]
    fn redistributors_split_after_123() {
        let layout = GuestLayout::default();
        let sizes = |count| -> Vec<u64> {
            layout
                .redistributors(count)
                .regions()
                .map(|r| r.size / REDISTRIBUTOR_SIZE)
                .collect()
        };
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(123), [123]);
        assert_eq!(sizes(124), [123, 1]);
        assert_eq!(sizes(MAX_VCPUS), [123, 389]);
    }

    #[test]
    fn every_frame_is_found_again() {
        for count in [1, 2, 16, 123, 124, MAX_VCPUS] {
            let frames = GuestLayout::default().redistributors(count);
            let bases = frames.regions().flat_map(|region| {
                (0..region.size / REDISTRIBUTOR_SIZE)
                    .map(move |at| region.base.checked_add(at * REDISTRIBUTOR_SIZE).unwrap())
            });
            let mut vcpus = (0..count).map(VcpuId::new);
            for base in bases {
                let vcpu = vcpus.next().unwrap();
                assert_eq!(frames.find(base), Some((vcpu, 0)));
                let last = base.checked_add(REDISTRIBUTOR_SIZE - 1).unwrap();
                assert_eq!(frames.find(last), Some((vcpu, REDISTRIBUTOR_SIZE - 1)));
                let expected_last = vcpu.get() == count - 1 || vcpu.get() == 122;
                assert_eq!(frames.is_last(vcpu), expected_last, "{vcpu} of {count}");
            }
            assert_eq!(vcpus.next(), None);
        }
    }

    #[test]
    fn the_windows_of_slots_are_found_again() {
        let slots = Slots {
            base: GuestPhys::new(0x1_0000_0000),
            block: 128 << 20,
            count: 3,
        };
        for slot in 0..slots.count {
            let window = slots.window(slot);
            assert_eq!(slots.find(window.base), Some((slot, 0)));
            let last = window.base.checked_add(window.size - 1).unwrap();
            assert_eq!(slots.find(last), Some((slot, window.size - 1)));
            assert!(slots.region().covers(window));
        }
        let end = GuestPhys::new(slots.region().end().unwrap());
        for outside in [GuestPhys::new(0xffff_ffff), end, GuestPhys::new(u64::MAX)] {
            assert_eq!(slots.find(outside), None);
        }
        assert_eq!(Slots::NONE.find(GuestPhys::new(0)), None);
    }

    #[test]
    fn region_arithmetic_at_the_edges() {
        let top = Region::new(u64::MAX - 0xfff, 0x1000);
        assert_eq!(top.end(), None);
        assert!(top.contains(GuestPhys::new(u64::MAX)));
        assert!(!Region::new(0x1000, 0).overlaps(Region::new(0, 0x2000)));
        assert!(Region::new(0, 0x2000).covers(Region::new(0x1000, 0x1000)));
        assert!(!Region::new(0, 0x2000).covers(Region::new(0x1000, 0x1001)));
    }
}
