//! What a virtio driver and its device agree on: VIRTIO 1.2, sections 2, 4.2 and 6. Everything is little-endian.

/// Registers of the MMIO transport (4.2.2), by their offset. All are 32 bits wide.
pub(super) mod register {
    /// Reads as the text "virt".
    pub(crate) const MAGIC_VALUE: u64 = 0x000;
    /// Version of the transport.
    pub(crate) const VERSION: u64 = 0x004;
    /// Which kind of device this is; 0 for none.
    pub(crate) const DEVICE_ID: u64 = 0x008;
    /// The maker of the device.
    pub(crate) const VENDOR_ID: u64 = 0x00c;
    /// 32 bits of the features that the device offers.
    pub(crate) const DEVICE_FEATURES: u64 = 0x010;
    /// Selects which.
    pub(crate) const DEVICE_FEATURES_SEL: u64 = 0x014;
    /// 32 bits of the features that the driver accepts.
    pub(crate) const DRIVER_FEATURES: u64 = 0x020;
    /// Selects which.
    pub(crate) const DRIVER_FEATURES_SEL: u64 = 0x024;
    /// Selects the queue that the registers to [`QUEUE_DEVICE_HIGH`] are of.
    pub(crate) const QUEUE_SEL: u64 = 0x030;
    /// Largest size of the queue; 0 if there is none.
    pub(crate) const QUEUE_NUM_MAX: u64 = 0x034;
    /// Size of the queue.
    pub(crate) const QUEUE_NUM: u64 = 0x038;
    /// Whether the queue is in use.
    pub(crate) const QUEUE_READY: u64 = 0x044;
    /// The driver has made buffers of the queue of this number available.
    pub(crate) const QUEUE_NOTIFY: u64 = 0x050;
    /// Why the device interrupts.
    pub(crate) const INTERRUPT_STATUS: u64 = 0x060;
    /// Takes those reasons back.
    pub(crate) const INTERRUPT_ACK: u64 = 0x064;
    /// How far the driver has come.
    pub(crate) const STATUS: u64 = 0x070;
    /// Address of the descriptor table.
    pub(crate) const QUEUE_DESC_LOW: u64 = 0x080;
    pub(crate) const QUEUE_DESC_HIGH: u64 = 0x084;
    /// Address of the available ring, the driver's area.
    pub(crate) const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub(crate) const QUEUE_DRIVER_HIGH: u64 = 0x094;
    /// Address of the used ring, the device's area.
    pub(crate) const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub(crate) const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    /// Length and base of the shared memory region; all ones if there is none.
    pub(crate) const SHM_LEN_LOW: u64 = 0x0b0;
    pub(crate) const SHM_BASE_HIGH: u64 = 0x0bc;
    /// Changes whenever the device has changed its configuration.
    pub(crate) const CONFIG_GENERATION: u64 = 0x0fc;
    /// The device's configuration begins here.
    pub(crate) const CONFIG: u64 = 0x100;
}

/// "virt".
pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// The transport of VIRTIO 1.
pub(super) const VERSION_1: u32 = 2;
/// "BULL"; a driver needs no value of its own here.
pub(super) const VENDOR: u32 = u32::from_le_bytes(*b"BULL");

/// Bits of the status register (2.1).
pub(super) mod status {
    /// The guest has found the device.
    pub(crate) const ACKNOWLEDGE: u32 = 1 << 0;
    /// It has a driver for it.
    pub(crate) const DRIVER: u32 = 1 << 1;
    /// The driver works.
    pub(crate) const DRIVER_OK: u32 = 1 << 2;
    /// The features are agreed on.
    pub(crate) const FEATURES_OK: u32 = 1 << 3;
    /// The device has met an error that only a reset ends.
    pub(crate) const NEEDS_RESET: u32 = 1 << 6;
    /// The driver has given up.
    pub(crate) const FAILED: u32 = 1 << 7;
    /// What a driver may set.
    pub(crate) const OF_DRIVER: u32 = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED;
}

/// Bits of the interrupt status register (4.2.2).
pub(super) mod interrupt {
    /// Buffers were used.
    pub(crate) const USED_BUFFER: u32 = 1 << 0;
    /// The configuration has changed, or the device needs a reset.
    pub(crate) const CONFIG_CHANGE: u32 = 1 << 1;
}

/// Features that any device may have (6).
pub(crate) mod feature {
    /// Descriptors may lie in a table of their own.
    pub(crate) const INDIRECT_DESC: u64 = 1 << 28;
    /// Each side says from which index on it wants to be told.
    pub(crate) const EVENT_IDX: u64 = 1 << 29;
    /// The driver knows VIRTIO 1.
    pub(crate) const VERSION_1: u64 = 1 << 32;
    /// What the transport and the queues bring to every device.
    pub(crate) const TRANSPORT: u64 = INDIRECT_DESC | EVENT_IDX | VERSION_1;
}

/// Split virtqueues (2.7).
pub(super) mod ring {
    /// Bytes of a descriptor: address (8), length (4), flags (2), next (2).
    pub(crate) const DESCRIPTOR_BYTES: u64 = 16;
    /// The chain goes on at `next`.
    pub(crate) const NEXT: u16 = 1;
    /// The device writes to the buffer, and does not read it.
    pub(crate) const WRITE: u16 = 2;
    /// The buffer is a table of descriptors.
    pub(crate) const INDIRECT: u16 = 4;
    /// In the available ring's flags: the driver wants no interrupt.
    pub(crate) const NO_INTERRUPT: u16 = 1;
    /// Where the index is in both rings, and where their elements begin.
    pub(crate) const INDEX: u64 = 2;
    pub(crate) const ELEMENTS: u64 = 4;
    /// Bytes of an element of the available ring, and of the used ring.
    pub(crate) const AVAILABLE_BYTES: u64 = 2;
    pub(crate) const USED_BYTES: u64 = 8;
    /// What the parts' addresses are multiples of (2.7).
    pub(crate) const DESCRIPTOR_ALIGNMENT: u64 = 16;
    pub(crate) const AVAILABLE_ALIGNMENT: u64 = 2;
    pub(crate) const USED_ALIGNMENT: u64 = 4;
}
