//! Queues under drivers that keep the rules.

use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

use super::driver::{BASE, Buffer, Driver, Ram};
use crate::devices::virtio_mmio::chain::Chain;
use crate::devices::virtio_mmio::queue::Queue;
use crate::devices::virtio_mmio::spec::feature;

/// Where buffers lie.
const DATA: u64 = BASE + 0x3_0000;

fn pop(queue: &mut Queue, ram: &Ram, chain: &mut Chain) -> bool {
    queue
        .pop(ram, chain)
        .expect("a driver that keeps the rules")
}

#[test]
fn a_request_is_read_and_answered() {
    for indirect in [false, true] {
        let (ram, mut driver, mut chain) = (Ram::new(), Driver::new(8), Chain::new(256));
        let mut queue = driver.queue(feature::TRANSPORT);
        assert!(!pop(&mut queue, &ram, &mut chain), "nothing is there yet");
        ram.put(DATA, b"what is asked");
        let buffers = [
            (DATA, 7, false),
            (DATA + 7, 6, false),
            (DATA + 64, 4, true),
            (DATA + 96, 8, true),
        ];
        let head = driver.add(&ram, &buffers, indirect).unwrap();
        assert!(pop(&mut queue, &ram, &mut chain));
        assert_eq!(
            (chain.head(), chain.readable_bytes(), chain.writable_bytes()),
            (head, 13, 12)
        );
        let mut asked = [0; 32];
        let mut reader = chain.reader();
        assert_eq!(reader.read(&chain, &ram, &mut asked), Ok(13));
        assert_eq!(&asked[..13], b"what is asked");
        let mut writer = chain.writer();
        assert_eq!(writer.write(&chain, &ram, b"ans"), Ok(3));
        assert_eq!(
            writer.write(&chain, &ram, b"wered more"),
            Ok(9),
            "there is no more room"
        );
        assert_eq!(
            (ram.get(DATA + 64, 4), ram.get(DATA + 96, 8)),
            (b"answ".to_vec(), b"ered mor".to_vec())
        );
        queue.push(&ram, chain.head(), 12).unwrap();
        assert_eq!(driver.take_used(&ram), [], "not shown yet");
        assert_eq!(queue.publish(&ram), Ok(true));
        assert_eq!(driver.take_used(&ram), [(u32::from(head), 12)]);
    }
}

#[test]
fn without_event_index_the_flag_says_whether_to_interrupt() {
    let (ram, mut driver, mut chain) = (Ram::new(), Driver::new(8), Chain::new(256));
    let mut queue = driver.queue(0);
    for (flags, wanted) in [(0, true), (1, false), (0, true)] {
        ram.put16(driver.avail, flags);
        driver.add(&ram, &[(DATA, 1, true)], false).unwrap();
        assert!(pop(&mut queue, &ram, &mut chain));
        queue.push(&ram, chain.head(), 0).unwrap();
        assert_eq!(queue.publish(&ram), Ok(wanted));
        assert_eq!(queue.publish(&ram), Ok(false), "nothing is new");
        driver.take_used(&ram);
    }
}

#[test]
fn a_chain_that_comes_while_the_device_stops_looking_is_told_of_or_found() {
    // The driver fills the ring right before the device looks there: by then it must have written where it wants to be told.
    let (ram, mut driver, mut chain) = (Ram::new(), Driver::new(8), Chain::new(256));
    let mut queue = driver.queue(feature::TRANSPORT);
    Driver::describe(&ram, driver.desc, 0, (DATA, 1, 0, 0));
    let (avail, event) = (driver.avail, driver.used + 4 + 8 * 8);
    ram.put16(event, 0x5555);
    let mut looks = 0;
    ram.race(move |bytes, at| {
        if at == avail + 2 {
            looks += 1;
            let event = (event - BASE) as usize;
            assert_eq!(
                bytes[event..event + 2],
                [(looks - 1).min(1), 0],
                "look {looks}"
            );
            bytes[(avail + 2 - BASE) as usize] = 1;
        }
    });
    assert!(pop(&mut queue, &ram, &mut chain));
    driver.next_avail = 1;
    assert!(!pop(&mut queue, &ram, &mut chain));
    driver.offer(&ram, 0);
    assert!(
        driver.would_notify(&ram, 1),
        "the driver sees that it is to tell"
    );
}

#[test]
fn indices_run_over() {
    let (ram, mut driver, mut chain) = (Ram::new(), Driver::new(4), Chain::new(256));
    let mut queue = driver.queue(feature::TRANSPORT);
    for turn in 0..0x1_0010_u32 {
        driver.want_interrupt(&ram);
        let head = driver.add(&ram, &[(DATA, 1, true)], false).unwrap();
        assert!(pop(&mut queue, &ram, &mut chain), "{turn}");
        queue.push(&ram, head, turn).unwrap();
        assert_eq!(queue.publish(&ram), Ok(true), "{turn}");
        assert_eq!(driver.take_used(&ram), [(u32::from(head), turn)]);
        assert!(!pop(&mut queue, &ram, &mut chain), "{turn}");
    }
}

/// What happens next in a run of driver and device.
#[derive(Clone, Debug)]
enum Step {
    /// The driver makes chains available: the lengths and directions of buffers, and whether in a table.
    Add(Vec<Vec<u8>>, bool),
    /// The device takes up to so many chains.
    Serve(u8),
    /// The driver takes what was used, and asks for an interrupt or not.
    Take(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let chain = proptest::collection::vec(1_u8..200, 1..5);
    prop_oneof![
        (proptest::collection::vec(chain, 1..4), any::<bool>())
            .prop_map(|(chains, table)| Step::Add(chains, table)),
        (0_u8..6).prop_map(Step::Serve),
        any::<bool>().prop_map(Step::Take),
    ]
}

/// Makes buffers of lengths: even ones are read, odd ones written, the former first.
fn buffers(lengths: &[u8]) -> Vec<Buffer> {
    let mut buffers: Vec<Buffer> = Vec::new();
    for is_written in [false, true] {
        let chosen = lengths
            .iter()
            .filter(|length| (**length % 2 == 1) == is_written);
        buffers.extend(
            chosen.map(|length| (DATA + u64::from(*length), u32::from(*length), is_written)),
        );
    }
    buffers
}

proptest! {
    /// Nothing is lost, doubled or reordered, no descriptor is read twice, and neither side waits for one that waits for it.
    #[test]
    fn driver_and_device_agree(steps in proptest::collection::vec(step(), 1..60), log in 1_u32..6) {
        let (ram, mut driver, mut chain) = (Ram::new(), Driver::new(1 << log), Chain::new(256));
        let mut queue = driver.queue(feature::TRANSPORT);
        let (mut offered, mut expected, mut interrupted, mut asked) = (Vec::new(), Vec::new(), false, false);
        let mut idle = true;
        for step in steps {
            match step {
                Step::Add(chains, table) => {
                    let before = driver.next_avail;
                    for lengths in chains {
                        let buffers = buffers(&lengths);
                        // No chain is longer than its queue.
                        if buffers.len() <= usize::from(driver.size) && let Some(head) = driver.add(&ram, &buffers, table) {
                            offered.push((head, buffers));
                        }
                    }
                    let notified = driver.next_avail != before && driver.would_notify(&ram, before);
                    prop_assert!(!idle || driver.next_avail == before || notified, "the device sleeps and is not told");
                    idle &= !notified;
                }
                Step::Serve(most) => {
                    for _ in 0..most {
                        ram.forget_reads();
                        if !pop(&mut queue, &ram, &mut chain) {
                            prop_assert_eq!(&offered, &[], "chains are left");
                            idle = true;
                            break;
                        }
                        prop_assert!(ram.most_reads(driver.desc, 0x1000) <= 1 && ram.most_reads(driver.tables, 0x1_0000) <= 1);
                        let (head, buffers) = offered.remove(0);
                        prop_assert_eq!(chain.head(), head);
                        let sum = |written| buffers.iter().filter(|b| b.2 == written).map(|b| b.1).sum::<u32>();
                        prop_assert_eq!((chain.readable_bytes(), chain.writable_bytes()), (sum(false), sum(true)));
                        queue.push(&ram, head, chain.writable_bytes()).unwrap();
                        expected.push((u32::from(head), chain.writable_bytes()));
                    }
                    interrupted |= queue.publish(&ram).unwrap();
                    prop_assert!(!asked || expected.is_empty() || interrupted, "the driver sleeps and is not told");
                }
                Step::Take(ask) => {
                    prop_assert_eq!(driver.take_used(&ram), core::mem::take(&mut expected));
                    (interrupted, asked) = (false, ask);
                    if ask {
                        driver.want_interrupt(&ram);
                    }
                }
            }
        }
    }

    /// However a buffer is cut into descriptors, its bytes arrive in order.
    #[test]
    fn cuts_do_not_matter(cuts in proptest::collection::vec(0_u32..50, 1..12), reads in proptest::collection::vec(1_usize..70, 1..20)) {
        let (ram, mut driver, mut chain) = (Ram::new(), Driver::new(16), Chain::new(256));
        let mut queue = driver.queue(feature::TRANSPORT);
        let mut all = Vec::new();
        let mut pieces = Vec::new();
        for (n, cut) in cuts.iter().enumerate() {
            let at = DATA + 0x100 * n as u64;
            let bytes: Vec<u8> = (0..*cut).map(|b| (n * 50 + b as usize) as u8).collect();
            ram.put(at, &bytes);
            all.extend(bytes);
            pieces.push((at, *cut, false));
        }
        driver.add(&ram, &pieces, true).unwrap();
        prop_assert!(pop(&mut queue, &ram, &mut chain));
        let (mut reader, mut read) = (chain.reader(), Vec::new());
        for length in reads {
            let mut bytes = vec![0; length];
            let got = reader.read(&chain, &ram, &mut bytes).unwrap();
            read.extend_from_slice(&bytes[..got]);
        }
        prop_assert_eq!(&read[..], &all[..read.len()]);
    }
}
