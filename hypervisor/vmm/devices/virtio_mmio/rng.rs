//! A source of randomness (VIRTIO 1.2, 5.4): gives the guest some of what EL2's generator draws.

use super::chain::Chain;
use super::queue::{Broken, Queue};
use super::transport::Kind;
use super::work::{Budget, Served};
use crate::memory::GuestMemory;

/// The device's number (5).
const DEVICE_ID: u32 = 4;
const QUEUE_SIZE: u16 = 8;
/// Bytes that are drawn at once, and how often that is done for a chain: a driver asks again for more.
const DRAWN_BYTES: usize = 32;
const DRAWS: usize = 2;
/// What drawing costs, in bytes that could have been copied.
const DRAW_COST: u32 = 2048;

/// A source of randomness.
#[derive(Debug)]
pub(crate) struct Rng {
    chain: Chain,
}

impl Rng {
    /// Makes the device.
    pub(crate) fn new() -> Self {
        Self {
            chain: Chain::new(QUEUE_SIZE),
        }
    }

    /// Returns what its transport says of it.
    pub(crate) const fn kind() -> Kind {
        Kind {
            device_id: DEVICE_ID,
            features: 0,
            queues: &[QUEUE_SIZE],
        }
    }

    /// Fills what the driver has made available, each chain a little.
    ///
    /// # Errors
    /// [`Broken`] if the driver broke the rules.
    pub(crate) fn serve<M: GuestMemory>(
        &mut self,
        queue: &mut Queue,
        memory: &M,
        budget: &mut Budget,
        mut draw: impl FnMut() -> [u8; DRAWN_BYTES],
    ) -> Result<Served, Broken> {
        let mut served = Served::default();
        while served.take(queue, memory, &mut self.chain, budget)? {
            if self.chain.readable_bytes() != 0 || self.chain.writable_bytes() == 0 {
                return Err(Broken::Request);
            }
            let (mut writer, mut written) = (self.chain.writer(), 0_usize);
            for _ in 0..DRAWS {
                budget.spend(DRAW_COST);
                let copied = writer.write(&self.chain, memory, &draw())?;
                written = written.wrapping_add(copied);
                if copied != DRAWN_BYTES {
                    break;
                }
            }
            queue.push(memory, self.chain.head(), written as u32)?;
            if budget.is_spent() {
                served.is_more = queue.has_available(memory)?;
                break;
            }
        }
        served.publish(queue, memory)?;
        Ok(served)
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;
    use crate::devices::virtio_mmio::queue::Broken;
    use crate::devices::virtio_mmio::spec::feature;
    use crate::devices::virtio_mmio::tests::driver::{BASE, Driver, Ram};
    use crate::devices::virtio_mmio::work::Budget;

    const DATA: u64 = BASE + 0x3_0000;

    #[test]
    fn each_chain_gets_some_of_what_is_drawn_and_no_more_than_it_has_room_for() {
        let (ram, mut driver, mut rng) = (Ram::new(), Driver::new(8), Rng::new());
        let mut queue = driver.queue(feature::TRANSPORT);
        for (at, bytes) in [(DATA, 4096), (DATA + 0x1000, 5), (DATA + 0x2000, 40)] {
            driver.add(&ram, &[(at, bytes, true)], false).unwrap();
        }
        let mut drawn = 0;
        let draw = || {
            drawn += 1;
            [drawn; 32]
        };
        let served = rng
            .serve(&mut queue, &ram, &mut Budget::of_a_trap(), draw)
            .unwrap();
        assert_eq!((served.chains, served.is_more), (3, false));
        let lengths: std::vec::Vec<u32> = driver
            .take_used(&ram)
            .into_iter()
            .map(|used| used.1)
            .collect();
        assert_eq!(lengths, [64, 5, 40]);
        assert_eq!(
            ram.get(DATA, 65),
            [[1; 32], [2; 32]]
                .concat()
                .into_iter()
                .chain([0])
                .collect::<std::vec::Vec<u8>>()
        );
        assert_eq!(ram.get(DATA + 0x1000, 6), [3, 3, 3, 3, 3, 0]);
    }

    #[test]
    fn a_flood_is_served_piece_by_piece() {
        let (ram, mut driver, mut rng) = (Ram::new(), Driver::new(8), Rng::new());
        let mut queue = driver.queue(feature::TRANSPORT);
        let (mut drawn, mut traps) = (0, 0);
        for _ in 0..8 {
            driver.add(&ram, &[(DATA, 4096, true)], false).unwrap();
        }
        loop {
            let before = drawn;
            let draw = || {
                drawn += 1;
                [0; 32]
            };
            traps += 1;
            let served = rng
                .serve(&mut queue, &ram, &mut Budget::of_a_trap(), draw)
                .unwrap();
            assert!(drawn - before <= 16, "{} draws in one trap", drawn - before);
            if !served.is_more {
                break;
            }
        }
        assert!(traps > 1);
    }

    #[test]
    fn buffers_that_are_read_break_the_device() {
        let (ram, mut driver, mut rng) = (Ram::new(), Driver::new(8), Rng::new());
        let mut queue = driver.queue(feature::TRANSPORT);
        driver.add(&ram, &[(DATA, 8, false)], false).unwrap();
        let served = rng.serve(&mut queue, &ram, &mut Budget::of_a_trap(), || [0; 32]);
        assert_eq!(served, Err(Broken::Request));
    }
}
