//! Emulated devices: what a guest does to their registers in, values, interrupt levels and [`Work`] out.
//!
//! A device is a row of `types::devices` and a folder here, which [`Devices`] names. It owns its registers behind a lock of its own, which
//! is held for one access, and knows no other device and no VM: the time, memory, interrupt lines and what else it needs are its
//! [`Surroundings`]. What an access leaves to be done elsewhere is returned as [`Work`] when the lock is free. Offsets, widths and values
//! come from guests, so every combination of them is answered; what no register claims reads as zero and ignores writes.
//!
//! Neighbours: `bus` finds the device for an address, `vm` has the devices and is what surrounds them.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod cpu_hotplug;
mod pl011;
mod pl031;
mod primecell;
mod virtio_mmio;

pub use virtio_mmio::{Broken, Mac, NetParts, NetReport, Network, News, Port, Report};

#[cfg(test)]
pub(crate) mod tests;

use crate::memory::GuestMemory;
use alloc::string::String;
use spin::mutex::SpinMutex;
use types::access::AccessWidth;
use types::devices::DeviceId;
use types::hotplug::Kind;
use types::ids::{VcpuId, VmId};
use types::layout::GuestLayout;

/// Where in a device's registers an access goes, counted from its first window, and how wide it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Offset of the first byte.
    pub offset: u64,
    /// How many bytes.
    pub width: AccessWidth,
}

/// The vCPUs of a device's VM.
pub trait Vcpus {
    /// Returns what `_STA` is for a vCPU ([`psci::STA_ENABLED`] or [`psci::STA_DISABLED`]), or 0 if there is none; for a memory slot
    /// 0 too while it is absent.
    fn sta(&self, kind: Kind, member: VcpuId) -> u32;
}

/// What a device finds around it while it does something.
pub trait Surroundings {
    /// Returns the time in nanoseconds since EL2 started.
    fn now_ns(&self) -> u64;

    /// Draws from the generator of EL2.
    fn random(&self) -> [u8; 32];

    /// Returns the memory of the device's VM.
    fn memory(&self) -> impl GuestMemory + use<Self>;

    /// What surrounds a virtio device of another VM, or of this one.
    type Peer<'p>: Surroundings
    where
        Self: 'p;

    /// Returns a VM's devices, and what surrounds its virtio devices. Its memory is there while its device is live, whose lock is held.
    fn peer(&mut self, vm: VmId) -> Option<(&Devices, Self::Peer<'_>)>;

    /// Moves the interrupt line of one of the device's windows. The device's lock is held, so that no later move comes first.
    fn set_line(&mut self, window: u16, high: bool);
}

/// What an access to a device leaves to be done outside it.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Bytes wait to be shown.
    Show,
    /// [`Device::attend`] has something to do earlier than it last said; the VM's manager looks after it.
    Attend,
    /// The access has had a part of its effect: the guest repeats it, once interrupts and other vCPUs of the CPU had their turn.
    Repeat,
    /// The guest has said something about its vCPUs.
    Resize(Answer),
    /// The guest has said something about its memory slots, whose numbers stand where a vCPU's do.
    Memory(Answer),
}

impl Work {
    /// Returns whether it takes a vCPU's leaving the guest to do it.
    #[inline(always)]
    #[must_use]
    pub const fn is_slow(self) -> bool {
        matches!(self, Self::Resize(_) | Self::Memory(_))
    }
}

/// What a guest says about its vCPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is about to read its first event since it started.
    Listens,
    /// It ran `_EJ0`: its last use of the vCPU is over.
    Eject(VcpuId),
    /// It ran `_OST` (ACPI 6.5, 6.3.5). A report of success proves nothing; CPU_ON does.
    Ost {
        /// The processor that the report is about.
        vcpu: VcpuId,
        /// The Notify value answered, or 0x103 for an ejection that the guest began itself.
        event: u16,
        /// 0 for success; 0x80 and up say why not.
        status: u16,
    },
}

/// What came of a byte for a guest.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fed {
    /// The guest has it.
    Byte,
    /// There was none.
    Nothing,
    /// The guest has no room for one; none was asked for.
    Full,
}

/// A disk of a VM.
#[derive(Clone, Debug)]
pub struct DiskParts {
    /// Its name.
    pub name: String,
    /// Its content.
    pub image: &'static [u8],
    /// How many bytes of it the guest may write, in whole pages; 0 for a disk that is only read.
    pub quota: u64,
}

/// What a VM's devices are made from.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// Number of vCPUs it may ever have.
    pub possible: u16,
    /// Seconds since 1970 when EL2 started.
    pub wall_clock_s: u32,
    /// Its disks.
    pub disks: &'a [DiskParts],
    /// Its ports of networks.
    pub nets: &'a [NetParts],
    /// Whether it has a source of randomness.
    pub has_rng: bool,
    /// How many memory slots it has.
    pub slots: u16,
}

/// An emulated device, with its lock.
pub trait Device {
    /// Makes the device in its first state.
    fn new(parts: &Parts<'_>) -> Self;

    /// Reads a register that is read often, and whose read has no effect.
    #[inline(always)]
    fn peek(&self, _access: Access, _vcpus: &impl Vcpus) -> Option<u64> {
        None
    }

    /// Reads a register that [`Device::peek`] does not.
    ///
    /// # Errors
    /// [`Work`] that has to be done first; then the guest repeats the access, and the device is as it was.
    fn read(&self, access: Access, around: &mut impl Surroundings) -> Result<u64, Work>;

    /// Writes the low `access.width` bytes of `value` to a register; returns what else is to be done.
    fn write(&self, access: Access, value: u64, around: &mut impl Surroundings) -> Option<Work>;

    /// Does what has come due; returns when to look again, in nanoseconds since EL2 started, if ever.
    fn attend(&self, _around: &mut impl Surroundings) -> Option<u64> {
        None
    }

    /// Puts the device into the state in which a guest finds it at system reset; its interrupt lines are low then.
    fn reset(&self);
}

/// Makes the devices of a VM from a line for each: what it is called, which row it is, and the type in its folder.
macro_rules! devices {
    ($($(#[$doc:meta])* $name:ident: $id:ident = $device:ty,)+) => {
        /// The devices of one VM, one for each row of `types::devices`.
        #[derive(Debug)]
        pub struct Devices {
            $($(#[$doc])* pub $name: $device,)+
        }

        impl Devices {
            /// Makes every device in its first state.
            #[must_use]
            pub fn new(parts: &Parts<'_>) -> Self {
                Self { $($name: <$device>::new(parts),)+ }
            }

            /// Finds the device at a guest address, and the offset within it.
            #[inline(always)]
            #[must_use]
            pub fn find(layout: &GuestLayout, address: u64) -> Option<(DeviceId, u64)> {
                $(
                    let registers = layout.device(DeviceId::$id).registers;
                    let offset = address.wrapping_sub(registers.base.get());
                    if offset < registers.size {
                        return Some((DeviceId::$id, offset));
                    }
                )+
                None
            }

            /// Reads a register of a device, as [`Device::peek`] does.
            #[inline(always)]
            #[must_use]
            pub fn peek(&self, id: DeviceId, access: Access, vcpus: &impl Vcpus) -> Option<u64> {
                match id {
                    $(DeviceId::$id => self.$name.peek(access, vcpus),)+
                }
            }

            /// Reads a register of a device, as [`Device::read`] does.
            ///
            /// # Errors
            /// [`Work`] that has to be done first.
            #[inline(always)]
            pub fn read(
                &self,
                id: DeviceId,
                access: Access,
                around: &mut impl Surroundings,
            ) -> Result<u64, Work> {
                match id {
                    $(DeviceId::$id => self.$name.read(access, around),)+
                }
            }

            /// Writes a register of a device, as [`Device::write`] does.
            #[inline(always)]
            pub fn write(
                &self,
                id: DeviceId,
                access: Access,
                value: u64,
                around: &mut impl Surroundings,
            ) -> Option<Work> {
                match id {
                    $(DeviceId::$id => self.$name.write(access, value, around),)+
                }
            }

            /// Has a device do what has come due, as [`Device::attend`] does.
            pub fn attend(&self, id: DeviceId, around: &mut impl Surroundings) -> Option<u64> {
                match id {
                    $(DeviceId::$id => self.$name.attend(around),)+
                }
            }

            /// Resets every device.
            pub fn reset(&self) {
                $(self.$name.reset();)+
            }
        }
    };
}

devices! {
    /// Its console.
    uart: Uart = pl011::Uart,
    /// Its hot-plug registers.
    hotplug: Hotplug = cpu_hotplug::Hotplug,
    /// Its clock.
    rtc: Rtc = pl031::Clock,
    /// Its slots for virtio devices.
    virtio: Virtio = virtio_mmio::Slots,
}

/// Registers that have one level-triggered interrupt line.
trait Line {
    /// Returns the level of the line.
    fn line(&self) -> bool;
}

/// Registers with one interrupt line behind the lock of their device.
#[derive(Debug)]
struct Wired<R>(SpinMutex<R>);

impl<R: Line> Wired<R> {
    const fn new(registers: R) -> Self {
        Self(SpinMutex::new(registers))
    }

    /// Works on the registers and moves the line as they say.
    #[inline]
    fn with<T>(&self, around: &mut impl Surroundings, work: impl FnOnce(&mut R) -> T) -> T {
        let mut registers = self.0.lock();
        let before = registers.line();
        let result = work(&mut registers);
        let after = registers.line();
        if before != after {
            around.set_line(0, after);
        }
        result
    }
}
