//! What a network driver and its device agree on: VIRTIO 1.2, 5.1. Everything is little-endian.

/// The device's number (5).
pub(super) const DEVICE_ID: u32 = 1;

/// Queues (5.1.2).
pub(crate) const RECEIVE: u16 = 0;
pub(crate) const TRANSMIT: u16 = 1;

/// Features (5.1.3).
pub(super) mod feature {
    /// The maximal size of packets is told.
    pub(crate) const MTU: u64 = 1 << 3;
    /// The MAC address is told.
    pub(crate) const MAC: u64 = 1 << 5;
    /// A frame may take several chains of the receive queue.
    pub(crate) const MRG_RXBUF: u64 = 1 << 15;
    /// Whether the link is up is told.
    pub(crate) const STATUS: u64 = 1 << 16;
}

/// The configuration (5.1.4): its bytes, of which the device fills these.
pub(super) mod config {
    pub(crate) const BYTES: usize = 12;
    /// MAC address: 6 bytes.
    pub(crate) const MAC: usize = 0;
    /// Status: 2 bytes.
    pub(crate) const STATUS: usize = 6;
    /// Pairs of queues: 2 bytes.
    pub(crate) const QUEUE_PAIRS: usize = 8;
    /// MTU: 2 bytes.
    pub(crate) const MTU: usize = 10;
}

/// In the configuration's status: the link is up.
pub(super) const LINK_UP: u16 = 1;

/// Bytes of the header before each frame (5.1.6), and where in it the number of chains stands.
pub(super) const HEADER_BYTES: usize = 12;
pub(super) const NUM_BUFFERS: usize = 10;

/// Bytes of an Ethernet header, and of a VLAN tag (IEEE 802.3, 3.1.1; 802.1Q, 9.6).
pub(super) const ETHERNET_BYTES: usize = 14;
pub(super) const VLAN_BYTES: usize = 4;
