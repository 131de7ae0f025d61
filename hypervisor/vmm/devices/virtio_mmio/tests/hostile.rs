//! Queues under drivers that break the rules: each is told apart by what it did, and nothing outside of the guest's RAM is touched.

use proptest::prelude::*;
use std::vec::Vec;

use super::driver::{BASE, BYTES, Driver, INDIRECT, NEXT, Ram, WRITE};
use crate::devices::virtio_mmio::chain::Chain;
use crate::devices::virtio_mmio::queue::{Broken, Part, Queue};
use crate::devices::virtio_mmio::spec::feature;
use crate::memory::GuestFault;
use types::address::GuestPhys;

const DATA: u64 = BASE + 0x3_0000;
const TABLE: u64 = BASE + 0x8000;

/// Fills the descriptor table and tables elsewhere, offers descriptor 0, and returns what the device says.
fn offer(
    descriptors: &[(u64, u32, u16, u16)],
    table: &[(u64, u32, u16, u16)],
) -> Result<bool, Broken> {
    offer_with(feature::TRANSPORT, descriptors, table)
}

fn offer_with(
    features: u64,
    descriptors: &[(u64, u32, u16, u16)],
    table: &[(u64, u32, u16, u16)],
) -> Result<bool, Broken> {
    let (ram, mut driver) = (Ram::new(), Driver::new(4));
    let mut queue = driver.queue(features);
    for (at, entries) in [(driver.desc, descriptors), (TABLE, table)] {
        for (n, entry) in entries.iter().enumerate() {
            Driver::describe(&ram, at, n as u16, *entry);
        }
    }
    driver.offer(&ram, 0);
    queue.pop(&ram, &mut Chain::new(256))
}

#[test]
fn a_chain_without_an_end_is_too_long() {
    assert_eq!(
        offer(&[(DATA, 1, NEXT, 0)], &[]),
        Err(Broken::TooLong),
        "it leads to itself"
    );
    assert_eq!(
        offer(&[(DATA, 1, NEXT, 1), (DATA, 1, NEXT, 0)], &[]),
        Err(Broken::TooLong)
    );
    let table = [(TABLE, 64, INDIRECT, 0)];
    assert_eq!(
        offer(&table, &[(DATA, 1, NEXT, 1), (DATA, 1, NEXT, 0)]),
        Err(Broken::TooLong)
    );
    let four: Vec<_> = (1..=4)
        .map(|n| (DATA, 1, if n < 4 { NEXT } else { 0 }, n))
        .collect();
    assert_eq!(offer(&four, &[]), Ok(true), "as many as the queue has");
    // Two of the ring and three of a table are more than the queue has.
    let three = [(DATA, 1, NEXT, 1), (DATA, 1, NEXT, 2), (DATA, 1, 0, 0)];
    let with_two = [
        (DATA, 1, NEXT, 1),
        (DATA, 1, NEXT, 2),
        (TABLE, 48, INDIRECT, 0),
    ];
    assert_eq!(offer(&with_two, &three), Err(Broken::TooLong));
    let with_one = [(DATA, 1, NEXT, 1), (TABLE, 48, INDIRECT, 0)];
    assert_eq!(offer(&with_one, &three), Ok(true));
    let outside = [(DATA, 1, NEXT, 3)];
    assert_eq!(
        offer(&with_one, &outside),
        Err(Broken::Index),
        "3 entries, numbered from 0"
    );
}

#[test]
fn tables_of_descriptors_are_bounded_and_not_nested() {
    let inside = [(DATA, 1, 0, 0)];
    for (why, bytes, flags) in [
        ("an empty one", 0, INDIRECT),
        ("part of a descriptor", 24, INDIRECT),
        ("more than the queue has", 80, INDIRECT),
        ("4 GiB", !15, INDIRECT),
        ("one with a successor", 16, INDIRECT | NEXT),
    ] {
        assert_eq!(
            offer(&[(TABLE, bytes, flags, 1)], &inside),
            Err(Broken::Indirect),
            "{why}"
        );
    }
    let nested = [(TABLE, 16, INDIRECT, 0)];
    assert_eq!(
        offer(&nested, &nested),
        Err(Broken::Indirect),
        "a table in a table"
    );
    assert_eq!(
        offer_with(feature::VERSION_1, &nested, &inside),
        Err(Broken::Indirect),
        "not agreed on"
    );
    assert_eq!(offer(&nested, &inside), Ok(true));
    for at in [0, BASE - 8, BASE + BYTES - 8, u64::MAX - 7] {
        assert_eq!(
            offer(&[(at, 16, INDIRECT, 0)], &inside),
            Err(Broken::Memory),
            "{at:#x}"
        );
    }
}

#[test]
fn indices_orders_and_lengths_are_checked() {
    assert_eq!(offer(&[(DATA, 1, NEXT, 4)], &[]), Err(Broken::Index));
    assert_eq!(offer(&[(DATA, 1, NEXT, u16::MAX)], &[]), Err(Broken::Index));
    assert_eq!(
        offer(&[(DATA, 1, WRITE | NEXT, 1), (DATA, 1, 0, 0)], &[]),
        Err(Broken::Order)
    );
    let huge = [(DATA, u32::MAX, NEXT, 1), (DATA, 1, 0, 0)];
    assert_eq!(offer(&huge, &[]), Err(Broken::TooLarge));
    assert_eq!(
        offer(
            &[(DATA, u32::MAX, NEXT, 1), (DATA, u32::MAX, WRITE, 0)],
            &[]
        ),
        Ok(true)
    );
}

#[test]
fn a_head_outside_of_the_table_is_an_error() {
    for head in [4, u16::MAX] {
        let (ram, mut driver) = (Ram::new(), Driver::new(4));
        let mut queue = driver.queue(feature::TRANSPORT);
        driver.offer(&ram, head);
        assert_eq!(queue.pop(&ram, &mut Chain::new(256)), Err(Broken::Index));
    }
}

#[test]
fn an_index_that_jumps_is_an_error() {
    for (jump, good) in [
        (1, true),
        (4, true),
        (5, false),
        (0x8000, false),
        (u16::MAX, false),
    ] {
        let (ram, driver) = (Ram::new(), Driver::new(4));
        let mut queue = driver.queue(feature::TRANSPORT);
        Driver::describe(&ram, driver.desc, 0, (DATA, 1, 0, 0));
        ram.put16(driver.avail + 2, jump);
        let expected = if good {
            Ok(true)
        } else {
            Err(Broken::Available)
        };
        assert_eq!(queue.pop(&ram, &mut Chain::new(256)), expected, "{jump}");
    }
}

#[test]
fn an_index_that_goes_back_is_an_error() {
    let (ram, mut driver, mut chain) = (Ram::new(), Driver::new(4), Chain::new(256));
    let mut queue = driver.queue(feature::TRANSPORT);
    driver.add(&ram, &[(DATA, 1, false)], false);
    assert_eq!(queue.pop(&ram, &mut chain), Ok(true));
    ram.put16(driver.avail + 2, 0);
    assert_eq!(queue.pop(&ram, &mut chain), Err(Broken::Available));
}

#[test]
fn buffers_that_are_not_ram_are_faults_where_bytes_move() {
    for at in [
        0,
        BASE - 1,
        BASE + BYTES - 3,
        BASE + BYTES,
        u64::MAX - 1,
        u64::MAX,
    ] {
        let (ram, mut driver, mut chain) = (Ram::new(), Driver::new(4), Chain::new(256));
        let mut queue = driver.queue(feature::TRANSPORT);
        driver.add(&ram, &[(at, 4, false), (at, 4, true)], false);
        assert_eq!(queue.pop(&ram, &mut chain), Ok(true));
        let fault = GuestFault {
            address: GuestPhys::new(at),
        };
        assert_eq!(chain.reader().read(&chain, &ram, &mut [0; 4]), Err(fault));
        assert_eq!(chain.writer().write(&chain, &ram, &[1; 4]), Err(fault));
    }
}

#[test]
fn rings_that_are_not_ram_are_an_error() {
    for at in [0, BASE - 16, BASE + BYTES - 2, BASE + BYTES, !15] {
        let at = at & !15;
        for part in [Part::Descriptors, Part::Available, Part::Used] {
            let mut queue = Queue::new(4);
            queue.set_size(4);
            for each in [Part::Descriptors, Part::Available, Part::Used] {
                let place = if each == part && !(BASE..BASE + BYTES - 64).contains(&at) {
                    at
                } else {
                    BASE + 0x1000
                };
                queue.set_address(each, false, place as u32);
                queue.set_address(each, true, (place >> 32) as u32);
            }
            queue.enable(feature::TRANSPORT).unwrap();
            let ram = Ram::new();
            let mut result = queue.pop(&ram, &mut Chain::new(256)).map(|_| ());
            for n in 0..4 {
                result = result.and_then(|()| queue.push(&ram, n, 0));
            }
            result = result.and_then(|()| queue.publish(&ram).map(|_| ()));
            if part != Part::Descriptors && !(BASE..BASE + BYTES).contains(&at) {
                assert_eq!(result, Err(Broken::Memory), "{part:?} at {at:#x}");
            }
        }
    }
}

#[test]
fn a_queue_that_is_set_up_wrongly_is_refused() {
    for (size, desc, avail, used) in [
        (0, BASE, BASE, BASE),
        (3, BASE, BASE, BASE),
        (512, BASE, BASE, BASE),
        (0x8000_0000, BASE, BASE, BASE),
        (4, BASE + 8, BASE, BASE),
        (4, BASE, BASE + 1, BASE),
        (4, BASE, BASE, BASE + 2),
    ] {
        let mut queue = Queue::new(256);
        queue.set_size(size);
        for (part, at) in [
            (Part::Descriptors, desc),
            (Part::Available, avail),
            (Part::Used, used),
        ] {
            queue.set_address(part, false, at as u32);
        }
        assert_eq!(
            queue.enable(feature::TRANSPORT),
            Err(Broken::Queue),
            "{size} {desc:#x} {avail:#x} {used:#x}"
        );
        assert!(!queue.is_ready());
    }
}

#[test]
fn a_buffer_that_is_exchanged_while_it_is_read_is_one_or_the_other() {
    // Another vCPU turns the descriptor into one that leads outside at each read: what was read counts.
    let (ram, mut driver, mut chain) = (Ram::new(), Driver::new(4), Chain::new(256));
    let mut queue = driver.queue(feature::TRANSPORT);
    let head = driver.add(&ram, &[(DATA, 8, false)], false).unwrap();
    let entry = (driver.desc - BASE) as usize + 16 * usize::from(head);
    let mut seen = 0;
    ram.race(move |bytes, at| {
        if at == BASE + entry as u64 {
            seen += 1;
            if seen > 1 {
                bytes[entry..entry + 8].copy_from_slice(&0_u64.to_le_bytes());
                bytes[entry + 8..entry + 12].copy_from_slice(&u32::MAX.to_le_bytes());
            }
        }
    });
    assert_eq!(queue.pop(&ram, &mut chain), Ok(true));
    assert_eq!(
        (
            chain.readable_bytes(),
            chain.reader().read(&chain, &ram, &mut [0; 16])
        ),
        (8, Ok(8))
    );
}

proptest! {
    /// Whatever stands in the rings and the tables, and however it changes meanwhile: the device neither fails nor goes on for long.
    #[test]
    fn any_rings_are_survived(
        seed in proptest::collection::vec(any::<u8>(), 4096),
        races in proptest::collection::vec((0_usize..0x4000, any::<u8>()), 0..200),
        log in 0_u32..9,
        features in prop_oneof![Just(0), Just(feature::TRANSPORT)],
    ) {
        let (ram, driver, mut chain) = (Ram::new(), Driver::new(1 << log), Chain::new(256));
        // Low addresses, small indices and right flags are likelier than by chance.
        for (n, chunk) in seed.chunks_exact(16).enumerate() {
            let value = u128::from_le_bytes(chunk.try_into().unwrap());
            let (at, bytes) = (BASE + (value as u64 & 0x3_ffff), (value >> 64) as u32 & 0xfff0);
            let (flags, next) = ((value >> 96) as u16 & 7, (value >> 112) as u16 & 0x1f);
            Driver::describe(&ram, driver.desc, n as u16, (at, bytes, flags, next));
            Driver::describe(&ram, TABLE, n as u16, (at, bytes, flags, next));
        }
        for (n, byte) in seed.iter().take(512).enumerate() {
            ram.put16(driver.avail + 4 + 2 * n as u64, u16::from(*byte) & 0x1f);
        }
        ram.put16(driver.avail + 2, 1 << log);
        let mut races = races.into_iter();
        ram.race(move |bytes, _| {
            if let Some((at, byte)) = races.next() {
                bytes[at] = byte;
            }
        });
        let mut queue = driver.queue(features);
        for _ in 0..1 << log {
            let before = ram.copied.get();
            let popped = queue.pop(&ram, &mut chain);
            // A chain reads as many descriptors as the queue has, one more for a table, and a few indices.
            prop_assert!(ram.copied.get() - before <= 16 * ((1 << log) + 1) + 16);
            let Ok(true) = popped else { break };
            prop_assert!(chain.descriptors() <= 1 << log);
            let mut read = [0; 64];
            let _maybe = chain.reader().read(&chain, &ram, &mut read);
            let _maybe = chain.writer().write(&chain, &ram, &read);
            let _maybe = queue.push(&ram, chain.head(), 0);
            let _maybe = queue.publish(&ram);
        }
    }
}
