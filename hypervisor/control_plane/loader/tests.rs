//! Images, good and bad.

use std::string::ToString;
use std::vec::Vec;

use proptest::prelude::*;
use types::address::GuestPhys;

use super::*;
use types::layout::Region;

const MIB: u64 = 1 << 20;
const RAM: u64 = 0x4000_0000;

fn range(base: u64, size: u64) -> Region {
    Region::new(base, size)
}

/// An Image of `bytes` bytes with these header fields.
fn image(bytes: usize, text_offset: u64, image_size: u64, flags: u64) -> Vec<u8> {
    let mut file = std::vec![0; bytes.max(64)];
    file[8..16].copy_from_slice(&text_offset.to_le_bytes());
    file[16..24].copy_from_slice(&image_size.to_le_bytes());
    file[24..32].copy_from_slice(&flags.to_le_bytes());
    file[0x38..0x3c].copy_from_slice(b"ARM\x64");
    file
}

/// An ELF file with these segments (physical address, bytes in the file, bytes in memory), linked at `offset` above
/// where it is loaded.
fn elf(entry: u64, offset: u64, segments: &[(u64, u64, u64)]) -> Vec<u8> {
    let mut file = Vec::from(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend([2_u16, 183].iter().flat_map(|half| half.to_le_bytes()));
    file.extend(1_u32.to_le_bytes());
    file.extend(
        [entry + offset, 64, 0]
            .iter()
            .flat_map(|double| double.to_le_bytes()),
    );
    file.extend(0_u32.to_le_bytes());
    file.extend(
        [64, 56, segments.len() as u16, 0, 0, 0]
            .iter()
            .flat_map(|half| half.to_le_bytes()),
    );
    let mut start = 64 + 56 * segments.len() as u64;
    for (address, file_bytes, memory_bytes) in segments {
        file.extend([1_u32, 7].iter().flat_map(|word| word.to_le_bytes()));
        let fields = [
            start,
            address + offset,
            *address,
            *file_bytes,
            *memory_bytes,
            4096,
        ];
        file.extend(fields.iter().flat_map(|double| double.to_le_bytes()));
        start += file_bytes;
    }
    file.resize(start as usize, 0xee);
    file
}

/// A machine whose firmware has the first 512 KiB of RAM, and whose CPU has every granule.
fn request(kernel: &[u8], ram_bytes: u64, initrd_bytes: u64) -> Request<'_> {
    Request {
        ram: range(RAM, ram_bytes),
        kernel,
        initrd_bytes,
        firmware: range(RAM, 0x8_0000),
        mmfr0: 1 << 20,
    }
}

#[test]
fn a_linux_image_goes_two_mebibytes_up() {
    let kernel = image(4096, 0, 34 * MIB, 0xa);
    let plan = plan(&request(&kernel, 512 * MIB, 5000)).expect("a plan");
    assert_eq!(plan.entry, GuestPhys::new(0x4020_0000));
    assert_eq!(plan.kernel, range(0x4020_0000, 34 * MIB));
    assert_eq!(plan.initrd, Some(range(RAM + 36 * MIB, 5000)));
    let kernel = Copy {
        source: Source::Kernel,
        range: 0..4096,
        to: GuestPhys::new(0x4020_0000),
    };
    let initrd = Copy {
        source: Source::Initrd,
        range: 0..5000,
        to: GuestPhys::new(RAM + 36 * MIB),
    };
    assert_eq!(
        (plan.copies, plan.zeros),
        (Vec::from([kernel, initrd]), Vec::new())
    );
}

#[test]
fn images_go_where_qemu_puts_them() {
    let cases = [
        // text_offset, image_size, where from the start of RAM
        (0, 64, 2 * MIB),
        (0xfff, 64, 2 * MIB + 0xfff),
        (0x8_0000, 64, 0x8_0000),
        (0, 0, 0x8_0000),
        (u64::MAX, 0, 0x8_0000),
    ];
    for (text_offset, image_size, offset) in cases {
        let kernel = image(64, text_offset, image_size, 0);
        let plan = plan(&request(&kernel, 64 * MIB, 0)).expect("a plan");
        assert_eq!(
            plan.entry.get() - RAM,
            offset,
            "text_offset {text_offset:#x}, image_size {image_size:#x}"
        );
    }
    for (flags, page_size, big_endian) in [
        (0, PageSize::Unspecified, false),
        (0xb, PageSize::K4, true),
        (0xc, PageSize::K16, false),
        (0xe, PageSize::K64, false),
    ] {
        let Ok(Kernel::Image(image)) = recognise(&image(64, 0, 64, flags)) else {
            panic!("an Image")
        };
        assert_eq!(
            (image.page_size, image.big_endian),
            (page_size, big_endian),
            "{flags:#x}"
        );
    }
}

#[test]
fn a_raw_binary_runs_from_its_first_byte() {
    let kernel = [0x14; 100];
    let plan = plan(&request(&kernel, 512 * MIB, 5000)).expect("a plan");
    assert_eq!(
        (plan.entry, plan.kernel),
        (GuestPhys::new(RAM + 0x8_0000), range(RAM + 0x8_0000, 100))
    );
    assert_eq!(plan.initrd, Some(range(RAM + 128 * MIB, 5000)));
}

#[test]
fn an_elf_file_is_loaded_by_physical_address_with_its_bss_cleared() {
    let kernel = elf(
        RAM + 0x10_0004,
        0xffff_0000_0000_0000,
        &[
            (RAM + 0x20_0000, 0, 0x1000),
            (RAM + 0x10_0000, 0x100, 0x300),
        ],
    );
    let plan = plan(&request(&kernel, 64 * MIB, 10)).expect("a plan");
    assert_eq!(plan.entry, GuestPhys::new(RAM + 0x10_0004));
    assert_eq!(plan.kernel, range(RAM + 0x10_0000, 0x10_1000));
    let text = Copy {
        source: Source::Kernel,
        range: 176..0x1b0,
        to: GuestPhys::new(RAM + 0x10_0000),
    };
    assert_eq!(plan.copies.first(), Some(&text));
    assert_eq!(
        plan.zeros,
        [
            range(RAM + 0x10_0100, 0x200),
            range(RAM + 0x20_0000, 0x1000)
        ]
    );
    assert_eq!(plan.initrd, Some(range(RAM + 4 * MIB, 10)));
}

#[test]
fn a_kernel_on_the_firmwares_tables_is_refused() {
    for (kernel, address) in [
        (elf(RAM, 0, &[(RAM, 4, 4)]), RAM),
        (
            elf(RAM + 0x7_fffc, 0, &[(RAM + 0x7_fffc, 4, 4)]),
            RAM + 0x7_fffc,
        ),
        (image(64, 0x1000, 64, 0), RAM + 0x1000),
    ] {
        let error = plan(&request(&kernel, 64 * MIB, 0)).expect_err("refused");
        assert_eq!(error, LoadError::OnFirmware { address });
    }
    let after = elf(RAM + 0x8_0000, 0, &[(RAM + 0x8_0000, 4, 4)]);
    assert!(plan(&request(&after, 64 * MIB, 0)).is_ok());
}

#[test]
fn a_kernel_whose_pages_the_cpu_does_not_have_is_refused() {
    /// TGran4 and TGran64 say by 15 that there is no such granule, TGran16 by 0.
    const NO_4: u64 = 0xf << 28;
    const NO_64: u64 = 0xf << 24;
    const WITH_16: u64 = 1 << 20;
    for (flags, mmfr0, refused) in [
        (0xa, 0, None),
        (0xa, NO_4, Some(4)),
        (0xc, 0, Some(16)),
        (0xc, WITH_16 | NO_4 | NO_64, None),
        (0xe, WITH_16, None),
        (0xe, NO_64, Some(64)),
        (0, NO_4 | NO_64, None),
    ] {
        let kernel = image(64, 0, 64, flags);
        let request = Request {
            mmfr0,
            ..request(&kernel, 64 * MIB, 0)
        };
        let error = plan(&request).err();
        let expected = refused.map(|kib| LoadError::PageSize { kib });
        assert_eq!(error, expected, "{flags:#x} {mmfr0:#x}");
    }
}

#[test]
fn files_of_other_kinds_are_named() {
    let at = |offset: usize, bytes: &[u8]| {
        let mut file = std::vec![0; 0x400];
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
        file
    };
    let mut zboot = at(0, b"MZ\0\0zimg");
    zboot[24..28].copy_from_slice(b"gzip");
    let cases: &[(Vec<u8>, &str)] = &[
        (Vec::new(), "is empty"),
        (
            zboot,
            "is an EFI zboot kernel: pack it with `cargo xtask bundle`",
        ),
        (
            at(0, b"\x1f\x8b\x08"),
            "is a gzip file: unpack it first with `gunzip`",
        ),
        (
            at(0, b"\x28\xb5\x2f\xfd"),
            "is a zstd file: unpack it first with `unzstd`",
        ),
        (
            at(0, b"\xfd7zXZ\0"),
            "is an xz file: unpack it first with `unxz`",
        ),
        (
            at(0, b"BZh"),
            "is a bzip2 file: unpack it first with `bunzip2`",
        ),
        (
            at(0, b"\x04\x22\x4d\x18"),
            "is an lz4 file: unpack it first with `lz4 -d`",
        ),
        (
            at(0, b"\x02\x21\x4c\x18"),
            "is an lz4 file: unpack it first with `lz4 -d`",
        ),
        (
            at(0, b"\x89LZO"),
            "is an lzop file: unpack it first with `lzop -d`",
        ),
        (
            at(0, b"\x5d\0\0\x80\0"),
            "is an lzma file: unpack it first with `unlzma`",
        ),
        (
            at(0, b"ANDROID!"),
            "is an Android boot image: unpack it first with `unpack_bootimg --boot_img`",
        ),
        (
            at(0x28, b"_FVH"),
            "is a UEFI firmware volume, not an arm64 kernel",
        ),
        (
            at(0x24, b"\x18\x28\x6f\x01"),
            "is a 32-bit Arm zImage, not an arm64 kernel",
        ),
        (at(0x202, b"HdrS"), "is an x86 Linux kernel"),
        (at(0x30, b"RISCV\0\0\0"), "is a RISC-V Linux kernel"),
        (at(0, b"MZ"), "is an EFI application without"),
        (at(0, b"070701"), "is a cpio archive"),
        (
            at(0, b"\x7fELF\x01\x01"),
            "is a 32-bit or big-endian ELF file",
        ),
        (
            at(0, b"\x7fELF\x02\x02"),
            "is a 32-bit or big-endian ELF file",
        ),
        (
            at(0, b"\x7fELF\x02\x01"),
            "is an ELF file for another processor",
        ),
        (Vec::from(*b"\x7fELF"), "ends before its ELF header does"),
        (
            image(64, 2 * MIB, 64, 0),
            "has a header whose text_offset cannot be 0x200000",
        ),
        (
            image(64, 0, 64, 0)[..60].to_vec(),
            "ends before its Image header does",
        ),
    ];
    for (file, expected) in cases {
        let error = recognise(file).expect_err(expected).to_string();
        assert!(
            error.contains(expected),
            "{error}\nshould contain {expected}"
        );
    }
}

#[test]
fn what_does_not_fit_is_named_with_numbers() {
    let small = image(64, 0, 30 * MIB, 0);
    let cases: &[(Vec<u8>, u64, u64, &str)] = &[
        (
            image(64, 0, 63 * MIB, 0),
            64 * MIB,
            0,
            "the kernel needs 66060288 of 65011712 free bytes",
        ),
        (
            image(64, 0, u64::MAX, 0),
            64 * MIB,
            0,
            "the kernel needs 18446744073709551615 of",
        ),
        (
            small.clone(),
            64 * MIB,
            33 * MIB,
            "the initrd needs 34603008 of 33554432 free bytes",
        ),
        (small, 64 * MIB, u64::MAX, "the initrd needs"),
        (
            std::vec![1; 4096],
            0x8_0000,
            0,
            "the kernel needs 4096 of 0 free bytes",
        ),
        (
            elf(RAM, 0, &[(RAM - 1, 4, 4)]),
            64 * MIB,
            0,
            "segment at 0x3fffffff of 0x4 bytes",
        ),
        (
            elf(RAM, 0, &[(RAM, 4, 65 * MIB)]),
            64 * MIB,
            0,
            "segment at 0x40000000 of 0x4100000 bytes",
        ),
        (
            elf(RAM, 0, &[(RAM, 4, 8), (RAM + 7, 1, 1)]),
            64 * MIB,
            0,
            "has two segments at 0x40000007",
        ),
    ];
    for (kernel, ram, initrd, expected) in cases {
        let error = plan(&request(kernel, *ram, *initrd))
            .expect_err(expected)
            .to_string();
        assert!(
            error.contains(expected),
            "{error}\nshould contain {expected}"
        );
    }
}

#[test]
fn every_lie_of_an_elf_header_is_named() {
    let good = elf(RAM, 0, &[(RAM, 4, 4)]);
    let cases: &[(usize, &[u8], &str)] = &[
        (16, &[1], "e_type cannot be 0x1"),
        (24, &[1], "e_entry cannot be 0x40000001"),
        (24, &[8], "e_entry cannot be 0x40000008"),
        (32, &[0xff; 8], "ends before its program headers do"),
        (54, &[57], "e_phentsize cannot be 0x39"),
        (56, &[65], "e_phnum cannot be 0x41"),
        (56, &[0], "e_entry"),
        (56, &[2], "ends before its program headers do"),
        (64 + 8, &[0xff; 8], "p_offset"),
        (64 + 8, &[0xff], "ends before its segments do"),
        (64 + 24, &[0xff; 8], "p_paddr"),
        (64 + 32, &[5], "p_filesz cannot be 0x5"),
    ];
    for (offset, bytes, expected) in cases {
        let mut file = good.clone();
        file[*offset..offset + bytes.len()].copy_from_slice(bytes);
        let error = recognise(&file).expect_err(expected).to_string();
        let expected = expected.trim_end_matches(" do");
        assert!(
            error.contains(expected),
            "{error}\nshould contain {expected}"
        );
    }
}

/// Checks what a plan promises: everything in RAM, in its file, and apart from all else.
fn check(request: &Request<'_>, plan: &LoadPlan) {
    let mut taken: Vec<Region> = Vec::new();
    for copy in &plan.copies {
        let bytes = match copy.source {
            Source::Kernel => request.kernel.len() as u64,
            Source::Initrd => request.initrd_bytes,
        };
        assert!(copy.range.start < copy.range.end && copy.range.end as u64 <= bytes);
        taken.push(range(copy.to.get(), copy.range.len() as u64));
    }
    taken.extend(&plan.zeros);
    assert!(
        taken
            .iter()
            .any(|part| part.covers(range(plan.entry.get(), 1))),
        "the entry is loaded"
    );
    taken.push(request.firmware);
    for (index, part) in taken.iter().enumerate() {
        assert!(
            request.ram.covers(*part) || *part == request.firmware,
            "{part:?}"
        );
        assert!(
            taken
                .iter()
                .skip(index + 1)
                .all(|other| !part.overlaps(*other)),
            "{taken:?}"
        );
    }
    assert!(!request.firmware.overlaps(plan.kernel));
    if let Some(initrd) = plan.initrd {
        assert!(!initrd.overlaps(plan.kernel));
    }
}

/// Sizes around everything that matters.
fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..64 * MIB,
        any::<u64>(),
        (0_u64..40).prop_map(|units| units * 2 * MIB)
    ]
}

fn kernel() -> impl Strategy<Value = Vec<u8>> {
    let address = || (0_u64..80 * MIB).prop_map(|offset| RAM - MIB + offset);
    prop_oneof![
        (64_usize..9000, 0..3 * MIB, size(), any::<u64>())
            .prop_map(|(b, o, s, f)| image(b, o, s, f)),
        (
            prop::collection::vec((address(), 0_u64..5000, 0_u64..MIB), 1..6),
            any::<prop::sample::Index>()
        )
            .prop_map(|(segments, entry)| elf(
                segments[entry.index(segments.len())].0 & !3,
                0,
                &segments
            )),
        prop::collection::vec(any::<u8>(), 1..2000),
    ]
}

proptest! {
    #[test]
    fn nothing_ever_overlaps(kernel in kernel(), ram in size(), initrd in size()) {
        let request = request(&kernel, ram, initrd);
        if let Ok(plan) = plan(&request) {
            check(&request, &plan);
        }
    }

    #[test]
    fn damaged_files_never_panic(
        kernel in kernel(),
        bytes in prop::collection::vec((0_usize..256, any::<u8>()), 0..16),
        length in any::<prop::sample::Index>(),
    ) {
        let mut kernel = kernel;
        for (at, byte) in bytes {
            let at = at % kernel.len();
            kernel[at] = byte;
        }
        kernel.truncate(length.index(kernel.len()) + 1);
        let request = request(&kernel, 64 * MIB, 4096);
        if let Ok(plan) = plan(&request) {
            check(&request, &plan);
        }
    }
}
