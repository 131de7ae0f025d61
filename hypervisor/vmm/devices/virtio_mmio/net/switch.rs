//! A network: an Ethernet switch whose ports are devices of VMs.
//!
//! A port that may not spoof has one address, which the manifest says, and no other port can take it away. What is behind a port that may (a
//! bridge in a guest) is learned from what it sends. The table has a fixed size and no lock: an entry that two addresses share is the last
//! sender's, and a frame to an address that is not found goes to every other port, as in any switch.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use types::ids::VmId;

/// A MAC address.
pub type Mac = [u8; 6];

/// Entries of the table of what was learned; a power of two.
const ENTRIES: usize = 256;

/// A port of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// The VM that it belongs to.
    pub vm: VmId,
    /// The slot of its device.
    pub slot: u16,
    /// Its address.
    pub mac: Mac,
    /// Whether it may send with addresses of others.
    pub may_spoof: bool,
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To this port.
    One(u16),
    /// To every port but the one that it came from.
    All,
    /// Nowhere.
    None,
}

/// An Ethernet switch.
#[derive(Debug)]
pub struct Network {
    ports: Vec<Port>,
    /// An address in the upper 48 bits, a port and 1 below; 0 for nothing.
    learned: Box<[AtomicU64]>,
}

impl Network {
    /// Makes a network of these ports.
    #[must_use]
    pub fn new(ports: Vec<Port>) -> Self {
        // Only what is behind a bridge is learned.
        let entries = match ports.iter().any(|port| port.may_spoof) {
            true => ENTRIES,
            false => 0,
        };
        Self {
            ports,
            learned: (0..entries).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Returns the number of the port in a slot of a VM.
    #[must_use]
    pub fn port_of(&self, vm: VmId, slot: u16) -> Option<u16> {
        let mut ports = self.ports.iter();
        let index = ports.position(|port| port.vm == vm && port.slot == slot)?;
        Some(index as u16)
    }

    /// Returns a port.
    pub(super) fn port(&self, index: u16) -> Option<&Port> {
        self.ports.get(usize::from(index))
    }

    /// Decides about a frame that came from a port: whether it may send it, and where it goes.
    pub(super) fn switch(&self, from: u16, destination: Mac, source: Mac) -> Option<Target> {
        let port = self.port(from)?;
        if port.may_spoof {
            // A group address is no sender's.
            if is_group(source) {
                return None;
            }
            self.learn(from, source);
        } else if source != port.mac {
            return None;
        }
        if is_group(destination) {
            return Some(Target::All);
        }
        Some(match self.find(destination) {
            Some(to) if to == from => Target::None,
            Some(to) => Target::One(to),
            None => Target::All,
        })
    }

    /// Returns the port that an address is at.
    fn find(&self, mac: Mac) -> Option<u16> {
        let fixed = self.ports.iter().position(|port| port.mac == mac);
        if let Some(port) = fixed {
            return Some(port as u16);
        }
        let entry = self.entry(mac)?.load(Ordering::Relaxed);
        (entry >> 16 == number(mac)).then(|| (entry as u16).checked_sub(1))?
    }

    /// Notes that an address is behind a port, unless it is another port's own.
    fn learn(&self, from: u16, mac: Mac) {
        let value = number(mac) << 16 | u64::from(from.wrapping_add(1));
        let Some(entry) = self.entry(mac) else {
            return;
        };
        if entry.load(Ordering::Relaxed) == value {
            return;
        }
        if self.ports.iter().all(|port| port.mac != mac) {
            entry.store(value, Ordering::Relaxed);
        }
    }

    /// Returns the entry that an address may be in.
    fn entry(&self, mac: Mac) -> Option<&AtomicU64> {
        // Makers give out addresses one after the other: the last bytes tell them apart.
        let [_, _, _, high, middle, low] = mac;
        let hash = low ^ middle.rotate_left(3) ^ high.rotate_left(5);
        self.learned.get(usize::from(hash))
    }
}

/// Returns whether an address is of several stations (IEEE 802, 8.2.2).
const fn is_group(mac: Mac) -> bool {
    mac[0] & 1 != 0
}

const fn number(mac: Mac) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::{Mac, Network, Port, Target};
    use std::vec::Vec;
    use types::ids::VmId;

    const fn mac(last: u8) -> Mac {
        [2, 0, 0, 0, 0, last]
    }

    /// Three ports with the addresses 1 to 3, of which the third may spoof.
    fn network() -> Network {
        let port = |index: u8| Port {
            vm: VmId::new(u16::from(index)),
            slot: 0,
            mac: mac(index),
            may_spoof: index == 3,
        };
        Network::new((1..=3).map(port).collect())
    }

    #[test]
    fn frames_go_to_the_port_of_their_address_and_group_frames_to_all() {
        let network = network();
        assert_eq!(network.switch(0, mac(2), mac(1)), Some(Target::One(1)));
        assert_eq!(network.switch(1, mac(1), mac(2)), Some(Target::One(0)));
        assert_eq!(network.switch(0, mac(1), mac(1)), Some(Target::None));
        assert_eq!(network.switch(0, [0xff; 6], mac(1)), Some(Target::All));
        let multicast = [0x33, 0x33, 0, 0, 0, 1];
        assert_eq!(network.switch(0, multicast, mac(1)), Some(Target::All));
        assert_eq!(network.switch(0, mac(9), mac(1)), Some(Target::All));
        assert_eq!(
            network.switch(3, mac(1), mac(1)),
            None,
            "there is no such port"
        );
    }

    #[test]
    fn a_sender_has_its_own_address_unless_it_may_spoof() {
        let network = network();
        assert_eq!(network.switch(0, mac(2), mac(9)), None);
        assert_eq!(network.switch(0, mac(2), mac(2)), None);
        assert_eq!(network.switch(2, mac(2), mac(9)), Some(Target::One(1)));
        assert_eq!(
            network.switch(2, mac(2), [3, 0, 0, 0, 0, 9]),
            None,
            "a group"
        );
    }

    #[test]
    fn what_is_behind_a_bridge_is_learned_but_no_ports_address_is_taken_away() {
        let network = network();
        assert_eq!(network.switch(2, mac(1), mac(9)), Some(Target::One(0)));
        assert_eq!(network.switch(0, mac(9), mac(1)), Some(Target::One(2)));
        assert_eq!(network.switch(2, mac(1), mac(2)), Some(Target::One(0)));
        assert_eq!(network.switch(0, mac(2), mac(1)), Some(Target::One(1)));
    }

    #[test]
    fn addresses_that_share_an_entry_take_turns_and_are_not_confused() {
        let network = network();
        // Both hash to the same entry.
        let (one, two) = ([2, 0, 0, 0, 8, 0], [2, 0, 0, 0, 0, 64]);
        for mac in [one, two] {
            let _ = network.switch(2, [2, 0, 0, 0, 0, 1], mac);
            assert_eq!(
                network.switch(0, mac, [2, 0, 0, 0, 0, 1]),
                Some(Target::One(2))
            );
        }
        assert_eq!(
            network.switch(0, one, [2, 0, 0, 0, 0, 1]),
            Some(Target::All)
        );
    }

    #[test]
    fn a_network_without_bridges_learns_nothing() {
        let port = Port {
            vm: VmId::new(0),
            slot: 0,
            mac: mac(1),
            may_spoof: false,
        };
        let network = Network::new(Vec::from([port]));
        assert!(network.learned.is_empty());
        assert_eq!(network.switch(0, mac(9), mac(1)), Some(Target::All));
    }
}
