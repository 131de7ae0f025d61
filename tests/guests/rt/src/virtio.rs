//! A driver's side of virtio-mmio and of a disk behind it (VIRTIO 1.2, 2.7, 4.2, 5.2): what a right driver does, and every word of the
//! rings for one that is wrong.
#![expect(unsafe_code, reason = "rings that a device writes")]

use crate::{gic, mmio};
use core::cell::UnsafeCell;
use core::sync::atomic::{Ordering, fence};

/// Where QEMU's `virt` has its transports, how far apart, and the interrupt of the first.
const FIRST: u64 = 0x0a00_0000;
const STRIDE: u64 = 0x200;
/// INTID of the first transport.
pub const FIRST_INTID: u32 = 48;
/// How many devices a guest drives at a time.
pub const DEVICES: usize = 2;
/// Entries of a queue.
pub const SIZE: u16 = 16;

/// Registers (4.2.2).
pub const MAGIC_VALUE: u64 = 0x000;
/// Transport's version.
pub const VERSION: u64 = 0x004;
/// Kind of device.
pub const DEVICE_ID: u64 = 0x008;
/// Features offered, and which half of them.
pub const DEVICE_FEATURES: u64 = 0x010;
/// See [`DEVICE_FEATURES`].
pub const DEVICE_FEATURES_SEL: u64 = 0x014;
/// Features accepted, and which half of them.
pub const DRIVER_FEATURES: u64 = 0x020;
/// See [`DRIVER_FEATURES`].
pub const DRIVER_FEATURES_SEL: u64 = 0x024;
/// The queue that the next registers are of.
pub const QUEUE_SEL: u64 = 0x030;
/// Its largest size.
pub const QUEUE_NUM_MAX: u64 = 0x034;
/// Its size.
pub const QUEUE_NUM: u64 = 0x038;
/// Whether it is in use.
pub const QUEUE_READY: u64 = 0x044;
/// Tells of buffers in a queue.
pub const QUEUE_NOTIFY: u64 = 0x050;
/// Why it interrupts.
pub const INTERRUPT_STATUS: u64 = 0x060;
/// Takes reasons back.
pub const INTERRUPT_ACK: u64 = 0x064;
/// How far the driver has come.
pub const STATUS: u64 = 0x070;
/// Addresses of the descriptor table, the available and the used ring: low halves, high ones follow.
pub const QUEUE_ADDRESSES: [u64; 3] = [0x080, 0x090, 0x0a0];
/// The device's configuration.
pub const CONFIG: u64 = 0x100;

/// ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK, and what the device sets when it wants to be reset (2.1).
pub const ACKNOWLEDGE: u32 = 1;
/// See [`ACKNOWLEDGE`].
pub const DRIVER: u32 = 2;
/// See [`ACKNOWLEDGE`].
pub const DRIVER_OK: u32 = 4;
/// See [`ACKNOWLEDGE`].
pub const FEATURES_OK: u32 = 8;
/// See [`ACKNOWLEDGE`].
pub const NEEDS_RESET: u32 = 0x40;

/// Features of all devices (6).
pub const INDIRECT: u64 = 1 << 28;
/// See [`INDIRECT`].
pub const EVENT_IDX: u64 = 1 << 29;
/// See [`INDIRECT`].
pub const VERSION_1: u64 = 1 << 32;

/// Flags of a descriptor (2.7.5).
pub const NEXT: u16 = 1;
/// See [`NEXT`].
pub const WRITE: u16 = 2;
/// See [`NEXT`].
pub const TABLE: u16 = 4;

/// Kinds of a disk's requests (5.2.6).
pub const READ: u32 = 0;
/// See [`READ`].
pub const WRITE_OUT: u32 = 1;
/// See [`READ`].
pub const FLUSH: u32 = 4;

const AREA_BYTES: usize = 0x2_0000;
/// Where things lie in an area.
const AVAILABLE: u64 = 0x800;
const USED: u64 = 0xc00;
const TABLES: u64 = 0x1000;
const HEADER: u64 = 0x2000;
const STATUS_BYTE: u64 = 0x2800;
const DATA: u64 = 0x4000;
/// Bytes of data that there is room for.
pub const DATA_BYTES: usize = AREA_BYTES - DATA as usize;

/// Memory for the rings and buffers of a device.
#[repr(C, align(4096))]
struct Area(UnsafeCell<[u8; AREA_BYTES]>);

// SAFETY: it is accessed by volatile loads and stores only.
unsafe impl Sync for Area {}

static AREAS: [Area; DEVICES] = [const { Area(UnsafeCell::new([0; AREA_BYTES])) }; DEVICES];

/// A transport, with memory for its first queue.
#[derive(Clone, Copy)]
pub struct Device {
    base: u64,
    area: u64,
    /// Its interrupt.
    pub intid: u32,
}

impl Device {
    /// Returns what is in a slot, if there is a device.
    #[must_use]
    pub fn at(slot: usize) -> Option<Self> {
        let device = Self {
            base: FIRST + STRIDE * slot as u64,
            area: AREAS.get(slot)?.0.get() as u64,
            intid: FIRST_INTID + slot as u32,
        };
        (device.get(DEVICE_ID) != 0).then_some(device)
    }

    /// Reads a register.
    #[must_use]
    pub fn get(self, register: u64) -> u32 {
        mmio::read32(self.base + register)
    }

    /// Writes a register.
    pub fn put(self, register: u64, value: u32) {
        mmio::write32(self.base + register, value);
    }

    /// Returns the address of a register.
    #[must_use]
    pub fn register(self, register: u64) -> u64 {
        self.base + register
    }

    /// Resets it and goes as far as FEATURES_OK; returns whether the device takes the features.
    pub fn negotiate(self, features: u64) -> bool {
        self.put(STATUS, 0);
        self.put(STATUS, ACKNOWLEDGE);
        self.put(STATUS, ACKNOWLEDGE | DRIVER);
        for (half, value) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.put(DRIVER_FEATURES_SEL, half);
            self.put(DRIVER_FEATURES, value);
        }
        self.put(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        self.get(STATUS) & FEATURES_OK != 0
    }

    /// Resets it and brings it to life with one empty queue.
    pub fn start(self, features: u64) -> bool {
        if !self.negotiate(features) {
            return false;
        }
        for offset in (0..HEADER).step_by(8) {
            self.write64(offset, 0);
        }
        self.put(QUEUE_SEL, 0);
        self.put(QUEUE_NUM, u32::from(SIZE));
        for (register, offset) in QUEUE_ADDRESSES.into_iter().zip([0, AVAILABLE, USED]) {
            self.put(register, (self.area + offset) as u32);
            self.put(register + 4, ((self.area + offset) >> 32) as u32);
        }
        self.put(QUEUE_READY, 1);
        self.put(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        self.get(STATUS) & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK
    }

    /// Returns whether it has given up and waits to be reset.
    #[must_use]
    pub fn is_broken(self) -> bool {
        self.get(STATUS) & NEEDS_RESET != 0
    }

    /// Writes a descriptor of the queue's table.
    pub fn describe(self, index: u16, at: u64, bytes: u32, flags: u16, next: u16) {
        self.describe_in(0, index, at, bytes, flags, next);
    }

    /// Writes a descriptor of a table of its own, of [`Device::table`].
    pub fn describe_inside(self, index: u16, at: u64, bytes: u32, flags: u16, next: u16) {
        self.describe_in(TABLES, index, at, bytes, flags, next);
    }

    fn describe_in(self, table: u64, index: u16, at: u64, bytes: u32, flags: u16, next: u16) {
        let place = table + 16 * u64::from(index);
        let rest = u64::from(bytes) | u64::from(flags) << 32 | u64::from(next) << 48;
        self.write64(place, at);
        self.write64(place + 8, rest);
    }

    /// Returns where a table of indirect descriptors may be.
    #[must_use]
    pub fn table(self) -> u64 {
        self.area + TABLES
    }

    /// Returns where data may be.
    #[must_use]
    pub fn data(self) -> u64 {
        self.area + DATA
    }

    /// Returns where a request's header is.
    #[must_use]
    pub fn header(self) -> u64 {
        self.area + HEADER
    }

    /// Returns where a request's status is.
    #[must_use]
    pub fn status_byte(self) -> u64 {
        self.area + STATUS_BYTE
    }

    /// Returns `avail.idx`.
    #[must_use]
    pub fn available(self) -> u16 {
        self.read16(AVAILABLE + 2)
    }

    /// Sets `avail.idx` after everything before.
    pub fn set_available(self, index: u16) {
        fence(Ordering::SeqCst);
        self.write16(AVAILABLE + 2, index);
        fence(Ordering::SeqCst);
    }

    /// Puts a head into the available ring.
    pub fn offer(self, head: u16) {
        let index = self.available();
        self.write16(AVAILABLE + 4 + 2 * u64::from(index % SIZE), head);
        self.set_available(index.wrapping_add(1));
    }

    /// Says from which used index on to interrupt.
    pub fn set_used_event(self, index: u16) {
        self.write16(AVAILABLE + 4 + 2 * u64::from(SIZE), index);
    }

    /// Returns `used.idx`.
    #[must_use]
    pub fn used(self) -> u16 {
        let index = self.read16(USED + 2);
        fence(Ordering::SeqCst);
        index
    }

    /// Returns the head and the length of a used element.
    #[must_use]
    pub fn used_element(self, index: u16) -> (u32, u32) {
        let value = self.read64(USED + 4 + 8 * u64::from(index % SIZE));
        (value as u32, (value >> 32) as u32)
    }

    /// Tells the device of what is available.
    pub fn notify(self) {
        self.put(QUEUE_NOTIFY, 0);
    }

    /// Writes the header of a disk's request and forgets its status.
    pub fn set_header(self, kind: u32, sector: u64) {
        self.write64(HEADER, u64::from(kind));
        self.write64(HEADER + 8, sector);
        self.write64(STATUS_BYTE, 0xff);
    }

    /// Prepares a disk's request for `bytes` of [`Device::data`] with three descriptors, and offers it.
    pub fn prepare(self, kind: u32, sector: u64, bytes: u32) {
        self.set_header(kind, sector);
        let flags = if kind == READ { WRITE | NEXT } else { NEXT };
        self.describe(0, self.header(), 16, NEXT, 1);
        self.describe(1, self.data(), bytes, flags, 2);
        self.describe(2, self.status_byte(), 1, WRITE, 0);
        self.offer(0);
    }

    /// Does a disk's request; returns its status, or `None` if the device did not answer at once.
    pub fn request(self, kind: u32, sector: u64, bytes: u32) -> Option<u8> {
        let before = self.used();
        self.prepare(kind, sector, bytes);
        self.notify();
        (self.used() != before).then(|| self.read64(STATUS_BYTE) as u8)
    }

    /// Reads a byte of [`Device::data`].
    #[must_use]
    pub fn data_byte(self, offset: usize) -> u8 {
        // SAFETY: within the device's area.
        unsafe { self.place::<u8>(DATA + offset as u64).read_volatile() }
    }

    /// Writes a byte of [`Device::data`].
    pub fn set_data_byte(self, offset: usize, value: u8) {
        // SAFETY: within the device's area.
        unsafe { self.place::<u8>(DATA + offset as u64).write_volatile(value) };
    }

    /// Makes the GIC let its interrupt through.
    pub fn enable_interrupt(self) {
        gic::enable(self.intid);
    }

    /// Returns whether its interrupt is pending.
    #[must_use]
    pub fn is_pending(self) -> bool {
        gic::read_bit(gic::ISPENDR, self.intid)
    }

    fn place<T>(self, offset: u64) -> *mut T {
        assert!(
            offset as usize + size_of::<T>() <= AREA_BYTES,
            "outside of the area"
        );
        (self.area + offset) as *mut T
    }

    fn read16(self, offset: u64) -> u16 {
        // SAFETY: `place` keeps it within the device's area; offsets are even.
        unsafe { self.place::<u16>(offset).read_volatile() }
    }

    fn write16(self, offset: u64, value: u16) {
        // SAFETY: as above.
        unsafe { self.place::<u16>(offset).write_volatile(value) };
    }

    fn read64(self, offset: u64) -> u64 {
        // SAFETY: `place` keeps it within the device's area; rings' elements need no alignment.
        unsafe { self.place::<u64>(offset).read_unaligned() }
    }

    fn write64(self, offset: u64, value: u64) {
        // SAFETY: `place` keeps it within the device's area; offsets are multiples of 8.
        unsafe { self.place::<u64>(offset).write_volatile(value) };
    }
}
