//! What a description must be, whoever reads it.

extern crate std;

mod goldens;

use alloc::vec::Vec;

use super::layout::{GuestLayout, Region};
use super::{Error, Firmware, Machine, Seeds, build};

const GIB: u64 = 1 << 30;

fn machine<'a>(layout: &'a GuestLayout, memory: &'a [Region], firmware: Firmware) -> Machine<'a> {
    Machine {
        layout,
        memory,
        boot_vcpus: 2,
        max_vcpus: 8,
        bootargs: "console=ttyAMA0",
        initrd: Some(Region::new(0x4800_0000, 0x123_4567)),
        seeds: Seeds {
            rng: [0x5a; 32],
            kaslr: 0x0123_4567_89ab_cdef,
        },
        firmware,
        hypervisor_id: *b"BULLPEN ",
    }
}

#[test]
fn the_device_tree_says_what_the_machine_is() {
    let layout = GuestLayout::default();
    let memory = [Region::new(0x4000_0000, GIB)];
    let image = build(&machine(&layout, &memory, Firmware::Fdt)).unwrap();
    assert_eq!(image.dtb, layout.ram_base);
    let tree = &image.blobs.first().unwrap().bytes;
    assert_eq!(tree.get(..4), Some(&[0xd0, 0x0d, 0xfe, 0xed][..]));
}

#[test]
fn the_impossible_is_refused_by_name() {
    let layout = GuestLayout::default();
    let good = [Region::new(0x4000_0000, GIB)];
    let base = machine(&layout, &good, Firmware::Fdt);
    let refused = |machine: Machine<'_>| build(&machine).unwrap_err();

    for (boot, max) in [(0, 1), (2, 1), (1, 513), (0, 0)] {
        let bad = Machine {
            boot_vcpus: boot,
            max_vcpus: max,
            ..base
        };
        assert_eq!(refused(bad), Error::VcpuCount { boot, max });
    }
    assert_eq!(
        refused(Machine {
            bootargs: "a\0b",
            ..base
        }),
        Error::Bootargs
    );
    let initrds = [
        Region::new(0x3fff_f000, 0x2000),
        Region::new(0x4007_ffff, 2),
        Region::new(0x7fff_f000, 0x2000),
        Region::new(0x5000_0000, u64::MAX),
        Region::new(0x5000_0000, 0),
    ];
    for initrd in initrds {
        assert_eq!(
            refused(Machine {
                initrd: Some(initrd),
                ..base
            }),
            Error::Initrd(initrd)
        );
    }
    let banks: [(&[Region], usize); 6] = [
        (&[Region::new(0x4000_0000, 0x8_0000)], 0),
        (&[Region::new(0x5000_0000, GIB)], 0),
        (&[Region::new(0x4000_0000, GIB + 1)], 0),
        (
            &[Region::new(0x4000_0000, GIB), Region::new(0x5000_0000, GIB)],
            1,
        ),
        (
            &[
                Region::new(0x4000_0000, GIB),
                Region::new(u64::MAX - 0xffff, 0x2_0000),
            ],
            1,
        ),
        (
            &[Region::new(0x4000_0000, GIB), Region::new(0x1_0000_0000, 0)],
            1,
        ),
    ];
    for (memory, culprit) in banks {
        assert_eq!(
            refused(Machine { memory, ..base }),
            Error::Memory(memory[culprit])
        );
    }
    assert_eq!(
        refused(Machine {
            memory: &[],
            ..base
        }),
        Error::Memory(Region::new(0x4000_0000, 0))
    );
    let memory: Vec<Region> = alloc::vec![Region::new(0x4000_0000, 0x40_0000_0000)];
    let wide = Machine {
        memory: &memory,
        max_vcpus: 200,
        ..base
    };
    assert_eq!(refused(wide), Error::MemoryCoversDevice(memory[0]));
    assert!(
        build(&Machine {
            max_vcpus: 123,
            ..wide
        })
        .is_ok()
    );
}
