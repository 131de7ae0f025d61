//! Any machine that can be described is described well.

use alloc::vec::Vec;

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, proptest};
use proptest::test_runner::Config;

use super::tables::memory_map;
use super::{build, machine};
use crate::firmware::{Firmware, Machine};
use crate::topology::Topology;
use types::ids::MAX_VCPUS;
use types::{layout::GRANULE, layout::GuestLayout, layout::Region};

/// Some vCPUs that run from reset, and at least as many that can exist.
fn vcpus() -> impl Strategy<Value = (u16, u16)> {
    (1..=MAX_VCPUS).prop_flat_map(|max| (1..=max, Just(max)))
}

/// One to four RAM banks with or without holes between them; sizes in granules.
fn banks() -> impl Strategy<Value = Vec<Region>> {
    let more = proptest::collection::vec((0_u64..0x10_0000, 1_u64..0x1_0000), 0..4);
    (9_u64..0x1_0000, more).prop_map(|(first, more)| {
        let mut end = 0x4000_0000 + first * GRANULE;
        let mut banks = alloc::vec![Region::new(0x4000_0000, first * GRANULE)];
        for (hole, size) in more {
            banks.push(Region::new(end + hole * GRANULE, size * GRANULE));
            end += (hole + size) * GRANULE;
        }
        banks
    })
}

proptest! {
    #![proptest_config(Config::with_cases(64))]

    #[test]
    fn blobs_lie_where_they_may((boot_vcpus, max_vcpus) in vcpus(), memory in banks(), acpi in any::<bool>()) {
        let layout = GuestLayout::default();
        let firmware = if acpi { Firmware::Acpi } else { Firmware::Fdt };
        let base = machine(&layout, &memory, firmware);
        let image = build(&Machine { boot_vcpus, max_vcpus, topology: Topology::flat(max_vcpus), initrd: None, ..base }).unwrap();

        let mut regions: Vec<Region> = image.blobs.iter().map(|blob| blob.region()).collect();
        prop_assert!(regions.iter().all(|region| layout.firmware().covers(*region)));
        regions.sort_by_key(|region| region.base);
        let apart = |pair: &[Region]| pair[0].end().unwrap() <= pair[1].base.get();
        prop_assert!(regions.windows(2).all(apart));
        prop_assert!(image.dtb.is_aligned(8));

        if acpi {
            let map = memory_map(&image);
            for (_, range, _) in &map {
                prop_assert!(range.base.is_aligned(GRANULE) && range.size % GRANULE == 0);
                prop_assert!(range.size != 0);
            }
            let total = |regions: &mut dyn Iterator<Item = u64>| regions.sum::<u64>();
            let described = total(&mut map.iter().map(|(_, range, _)| range.size));
            prop_assert_eq!(described, total(&mut memory.iter().map(|bank| bank.size)));
            for region in &regions {
                let usable = map.iter().any(|(kind, range, _)| *kind == 7 && range.overlaps(*region));
                prop_assert!(!usable, "{:?} is in memory that is given away", region);
            }
        }
    }

    #[test]
    fn nonsense_is_refused_or_described(
        boot_vcpus in any::<u16>(),
        max_vcpus in any::<u16>(),
        memory in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..3),
        initrd in any::<Option<(u64, u64)>>(),
    ) {
        let layout = GuestLayout::default();
        let region = |(base, size)| Region::new(base, size);
        let memory: Vec<Region> = memory.into_iter().map(region).collect();
        let base = machine(&layout, &memory, Firmware::Acpi);
        let initrd = initrd.map(region);
        // Whatever it is, it ends without a panic.
        let result = build(&Machine { boot_vcpus, max_vcpus, initrd, ..base });
        prop_assert!(result.is_err() || boot_vcpus <= max_vcpus);
    }
}
