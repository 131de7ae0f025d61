//! A disk under a driver: reads, writes in place of the image, quotas, requests that are formed wrongly, and long ones in pieces.

use proptest::prelude::*;
use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use super::{Block, PAGE_BYTES};
use crate::devices::virtio_mmio::queue::{Broken, Queue};
use crate::devices::virtio_mmio::spec::feature;
use crate::devices::virtio_mmio::tests::driver::{BASE, Buffer, Driver, Ram};
use crate::devices::virtio_mmio::work::{Budget, Served};

const HEADER: u64 = BASE + 0x1_0000;
const DATA: u64 = BASE + 0x1_1000;
const STATUS: u64 = BASE + 0x1_0800;

/// A disk with its driver. The queue has 128 entries, so tables of descriptors begin above the rings.
struct Bench {
    ram: Ram,
    driver: Driver,
    queue: Queue,
    block: Block,
}

/// An image whose bytes differ from page to page.
fn image(bytes: usize) -> &'static [u8] {
    let content: Vec<u8> = (0..bytes).map(|n| (n / 512 * 7 + n % 251) as u8).collect();
    Box::leak(content.into_boxed_slice())
}

impl Bench {
    fn new(image: &'static [u8], quota_pages: usize) -> Self {
        let mut driver = Driver::new(8);
        driver.tables = BASE + 0x8000;
        let queue = driver.queue(feature::TRANSPORT);
        let mut block = Block::new("root", image, (quota_pages * PAGE_BYTES) as u64);
        if quota_pages != 0 {
            // What a guest had before in the memory must not be seen.
            let memory = vec![0xee; block.wanted_bytes() as usize];
            block.give(Box::leak(memory.into_boxed_slice()));
        }
        Self {
            ram: Ram::new(),
            driver,
            queue,
            block,
        }
    }

    fn serve(&mut self) -> Result<Served, Broken> {
        self.block
            .serve(&mut self.queue, &self.ram, &mut Budget::of_a_trap())
    }

    /// Serves until nothing is left; returns in how many traps.
    fn serve_all(&mut self) -> Result<usize, Broken> {
        let mut traps = 1;
        while self.serve()?.is_more {
            traps += 1;
        }
        Ok(traps)
    }

    fn add(&mut self, kind: u32, sector: u64, data: &[Buffer]) {
        self.ram.put(HEADER, &kind.to_le_bytes());
        self.ram.put(HEADER + 8, &sector.to_le_bytes());
        self.ram.put(STATUS, &[0xff]);
        let (read, written): (Vec<Buffer>, _) = data.iter().partition(|buffer| !buffer.2);
        let mut buffers = vec![(HEADER, 16, false)];
        buffers.extend(read);
        buffers.extend(written);
        buffers.push((STATUS, 1, true));
        self.driver.add(&self.ram, &buffers, true).expect("room");
    }

    /// Does one request; returns the status and the length that the driver sees.
    fn request(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> (u8, u32) {
        self.add(kind, sector, data);
        self.serve_all().expect("a right request");
        let used = self.driver.take_used(&self.ram);
        assert_eq!(used.len(), 1);
        (self.ram.get(STATUS, 1)[0], used[0].1)
    }

    /// Returns how many pages are written, and how many may be.
    fn pages(&self) -> (u64, u64) {
        let (replaced, quota) = self.block.report().replaced.expect("a quota");
        (replaced / 4096, quota / 4096)
    }

    fn read(&mut self, sector: u64, bytes: u32) -> Vec<u8> {
        let (status, length) = self.request(0, sector, &[(DATA, bytes, true)]);
        assert_eq!((status, length), (0, bytes + 1));
        self.ram.get(DATA, bytes as usize)
    }

    fn write(&mut self, sector: u64, bytes: &[u8]) -> u8 {
        self.ram.put(DATA, bytes);
        self.request(1, sector, &[(DATA, bytes.len() as u32, false)])
            .0
    }
}

#[test]
fn an_image_is_read_as_it_is() {
    let image = image(10 * 4096 + 512 + 100);
    for quota in [0, 3] {
        let mut bench = Bench::new(image, quota);
        assert_eq!(bench.read(0, 512), &image[..512]);
        assert_eq!(bench.read(3, 8192), &image[3 * 512..3 * 512 + 8192]);
        let end = bench.read(80, 1024);
        assert_eq!(&end[..612], &image[40960..], "{quota}");
        assert_eq!(&end[612..], [0; 412], "the last sector is filled up");
        let capacity = u64::from_le_bytes(bench.block.config()[..8].try_into().unwrap());
        assert_eq!(capacity, 82);
    }
}

#[test]
fn a_disk_says_what_it_is() {
    let mut bench = Bench::new(image(4096), 0);
    assert_eq!(
        bench.block.kind().features,
        1 << 2 | 1 << 5 | 1 << 9 | 1 << 10,
        "read-only"
    );
    assert_eq!(
        Bench::new(image(4096), 1).block.kind().features,
        1 << 2 | 1 << 9 | 1 << 10
    );
    assert_eq!(bench.request(8, 0, &[(DATA, 20, true)]), (0, 21));
    assert_eq!(
        &bench.ram.get(DATA, 20),
        b"root\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    );
    assert_eq!(
        bench.request(8, 0, &[(DATA, 2, true)]),
        (0, 3),
        "as much as there is room for"
    );
    assert_eq!(bench.request(4, 0, &[]), (0, 1), "a flush");
    assert_eq!(
        bench.request(11, 0, &[(DATA, 16, false)]).0,
        2,
        "what was not offered"
    );
}

#[test]
fn what_the_disk_has_not_is_an_error() {
    let mut bench = Bench::new(image(8 * 512), 1);
    for (kind, sector, bytes) in [
        (0, 8, 512),
        (0, 7, 1024),
        (0, u64::MAX, 512),
        (0, u64::MAX - 1, 1024),
        (0, 0, 511),
        (1, 8, 512),
        (1, 0, 1),
    ] {
        let request = bench.request(kind, sector, &[(DATA, bytes, kind == 0)]);
        assert_eq!(request.0, 1, "{kind} {sector} {bytes}");
    }
    assert_eq!(bench.pages(), (0, 1));
    let mut only_read = Bench::new(image(4096), 0);
    assert_eq!(only_read.write(0, &[1; 512]), 1);
    assert_eq!(only_read.block.report().errors, 1);
}

#[test]
fn a_write_replaces_a_page_and_nothing_else() {
    let image = image(4 * 4096);
    let mut bench = Bench::new(image, 2);
    assert_eq!(bench.write(9, &[1; 512]), 0);
    assert_eq!(bench.read(8, 512), &image[4096..4608]);
    assert_eq!(bench.read(9, 512), [1; 512]);
    assert_eq!(bench.read(10, 6 * 512), &image[5120..8192]);
    assert_eq!(bench.pages(), (1, 2));
    assert_eq!(bench.write(8, &[2; 4096]), 0, "the same page");
    assert_eq!(bench.pages(), (1, 2));
    assert_eq!(bench.read(0, 16384)[4096..8192], [2; 4096]);
    let memory = bench.block.take().expect("what was given");
    assert_eq!(memory.len(), 3 * 4096, "a page of numbers and two of data");
    bench.block.give(memory);
    assert_eq!(
        bench.read(9, 512),
        &image[4608..5120],
        "a new life begins with the image"
    );
}

#[test]
fn a_full_quota_is_an_error_and_told_once() {
    let image = image(4 * 4096);
    let mut bench = Bench::new(image, 1);
    assert_eq!(bench.write(0, &[1; 4096]), 0);
    assert!(!bench.block.has_full_news());
    assert_eq!(bench.write(8, &[1; 512]), 1);
    assert!(bench.block.take_full());
    assert_eq!(bench.write(16, &[1; 512]), 1);
    assert!(!bench.block.take_full(), "the operator knows");
    assert_eq!(bench.write(7, &[3; 512]), 0, "there is a page for this one");
    assert_eq!(bench.read(8, 512), &image[4096..4608]);
}

#[test]
fn a_page_that_could_not_be_filled_is_not_part_of_the_disk() {
    let image = image(4 * 4096);
    let mut bench = Bench::new(image, 2);
    bench.add(1, 0, &[(BASE - 4096, 4096, false)]);
    assert_eq!(bench.serve(), Err(Broken::Memory));
    assert_eq!(bench.pages(), (0, 2));
    bench.block.forget();
    // The driver begins anew.
    let mut driver = Driver::new(8);
    core::mem::swap(&mut driver, &mut bench.driver);
    bench.ram.put(BASE, &[0; 0x4000]);
    bench.queue = bench.driver.queue(feature::TRANSPORT);
    assert_eq!(bench.read(0, 4096), &image[..4096]);
}

#[test]
fn requests_that_are_formed_wrongly_break_the_device() {
    for (why, buffers) in [
        ("no status", vec![(HEADER, 16, false)]),
        (
            "half a header",
            vec![(HEADER, 15, false), (STATUS, 1, true)],
        ),
        ("no header", vec![(STATUS, 513, true)]),
        (
            "nothing to write",
            vec![(HEADER, 16, false), (STATUS, 0, true)],
        ),
    ] {
        let mut bench = Bench::new(image(4096), 0);
        bench.driver.add(&bench.ram, &buffers, false).unwrap();
        assert_eq!(bench.serve(), Err(Broken::Request), "{why}");
    }
}

#[test]
fn a_request_may_be_cut_anywhere() {
    let image = image(4096);
    let mut bench = Bench::new(image, 0);
    bench.ram.put(HEADER, &[0; 16]);
    // The header in two, the status with the data.
    let buffers = [
        (HEADER, 7, false),
        (HEADER + 7, 9, false),
        (DATA, 100, true),
        (DATA + 100, 413, true),
    ];
    bench.driver.add(&bench.ram, &buffers, false).unwrap();
    assert_eq!(bench.serve_all(), Ok(1));
    assert_eq!(bench.ram.get(DATA, 513), [&image[..512], &[0]].concat());
    assert_eq!(bench.driver.take_used(&bench.ram)[0].1, 513);
}

#[test]
fn long_requests_take_several_traps_and_many_short_ones_too() {
    let image = image(32 * 4096);
    let mut bench = Bench::new(image, 32);
    bench.add(0, 0, &[(DATA, 0x1_8000, true)]);
    let before = bench.ram.copied.get();
    assert!(bench.serve().unwrap().is_more);
    let moved = bench.ram.copied.get() - before;
    assert!(moved <= 16 * 1024 + 4096, "{moved} bytes in one trap");
    assert_eq!(bench.driver.take_used(&bench.ram), [], "it is not done");
    assert_eq!(bench.serve_all(), Ok(5));
    assert_eq!(bench.ram.get(DATA, 0x1_8000), &image[..0x1_8000]);
    bench.driver.take_used(&bench.ram);
    // They share a header, so all write the same page.
    for _ in 0..8 {
        bench.add(1, 8, &[(DATA, 4096, false)]);
    }
    assert_eq!(bench.serve_all(), Ok(2));
    assert_eq!(bench.driver.take_used(&bench.ram).len(), 8);
    assert_eq!(bench.pages().0, 1);
}

#[test]
fn a_request_that_is_forgotten_is_never_answered() {
    let mut bench = Bench::new(image(32 * 4096), 0);
    bench.add(0, 0, &[(DATA, 0x1_8000, true)]);
    assert!(bench.serve().unwrap().is_more);
    bench.block.forget();
    assert_eq!(bench.serve(), Ok(Served::default()));
    assert_eq!(bench.driver.take_used(&bench.ram), []);
}

proptest! {
    /// Whatever is written where: what is read is what a plain array would hold, as far as the quota goes.
    #[test]
    fn a_disk_is_an_array(
        steps in proptest::collection::vec((any::<bool>(), 0_u64..40, 1_u32..24, any::<u8>()), 1..60),
        quota in 1_usize..6,
    ) {
        let image = image(40 * 512);
        let mut bench = Bench::new(image, quota);
        let mut model = image.to_vec();
        let mut touched = std::collections::BTreeSet::new();
        for (is_write, sector, count, fill) in steps {
            let bytes = count * 512;
            let range = sector as usize * 512..sector as usize * 512 + bytes as usize;
            if range.end > image.len() {
                prop_assert_eq!(bench.request(0, sector, &[(DATA, bytes, true)]).0, 1);
            } else if is_write {
                let data: Vec<u8> = (0..bytes).map(|n| (n as u8).wrapping_mul(3) ^ fill).collect();
                let status = bench.write(sector, &data);
                // Page after page, until there is none for the next.
                let mut good = true;
                for at in range.clone() {
                    let page = at / PAGE_BYTES;
                    good &= touched.contains(&page) || touched.len() < quota;
                    if good {
                        touched.insert(page);
                        model[at] = data[at - range.start];
                    }
                }
                prop_assert_eq!(status, u8::from(!good));
            } else {
                prop_assert_eq!(&bench.read(sector, bytes)[..], &model[range]);
            }
            prop_assert_eq!(bench.pages().0, touched.len() as u64);
        }
    }
}
