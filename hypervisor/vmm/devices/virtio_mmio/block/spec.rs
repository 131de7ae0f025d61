//! What a block driver and its device agree on: VIRTIO 1.2, 5.2. Everything is little-endian.

/// The device's number (5).
pub(super) const DEVICE_ID: u32 = 2;
/// Bytes of a sector, in which places and capacities are counted whatever the block size is (5.2.4).
pub(super) const SECTOR_BYTES: u64 = 512;

/// Features (5.2.3).
pub(super) mod feature {
    /// `seg_max` is the most data buffers of a request.
    pub(crate) const SEG_MAX: u64 = 1 << 2;
    /// The disk is read-only.
    pub(crate) const RO: u64 = 1 << 5;
    /// There are flushes.
    pub(crate) const FLUSH: u64 = 1 << 9;
    /// The device's inner blocks are told.
    pub(crate) const TOPOLOGY: u64 = 1 << 10;
}

/// What a request asks for (5.2.6).
pub(super) mod request {
    /// Bytes of the header: type, reserved, sector.
    pub(crate) const HEADER_BYTES: usize = 16;
    pub(crate) const IN: u32 = 0;
    pub(crate) const OUT: u32 = 1;
    pub(crate) const FLUSH: u32 = 4;
    pub(crate) const GET_ID: u32 = 8;
    /// Bytes of the name that GET_ID returns.
    pub(crate) const ID_BYTES: usize = 20;
}

/// How a request ended (5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It was done.
    Ok = 0,
    /// It failed.
    IoError = 1,
    /// The device knows nothing of the kind.
    Unsupported = 2,
}

/// The configuration (5.2.4): its bytes, of which the device fills these.
pub(super) mod config {
    pub(crate) const BYTES: usize = 60;
    /// Capacity in sectors: 8 bytes.
    pub(crate) const CAPACITY: usize = 0;
    /// Most data buffers of a request: 4 bytes.
    pub(crate) const SEG_MAX: usize = 12;
    /// How many sectors an inner block has, as a power of two: 1 byte. What is best written at once, in sectors: 2 bytes.
    pub(crate) const PHYSICAL_BLOCK: usize = 24;
    pub(crate) const MIN_IO: usize = 26;
    /// How many queues there are: 2 bytes.
    pub(crate) const NUM_QUEUES: usize = 34;
}
