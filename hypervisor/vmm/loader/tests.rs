//! Images, good and bad.

use std::vec::Vec;

use stage2::GuestPhys;

use super::*;

const MIB: u64 = 1 << 20;

fn ram(size: u64) -> GuestRange {
    GuestRange {
        base: GuestPhys::new(0x4000_0000),
        size,
    }
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

#[test]
fn a_linux_image_goes_two_mebibytes_up_and_its_tables_to_the_top() {
    let kernel = image(4096, 0, 34 * MIB, 0xa);
    let request = Request {
        ram: ram(512 * MIB),
        kernel: &kernel,
        initrd_bytes: 5000,
        firmware_bytes: 70_000,
    };
    let plan = plan(&request).expect("a plan");
    assert_eq!(plan.entry, GuestPhys::new(0x4020_0000));
    assert_eq!(plan.page_size, PageSize::K4);
    assert_eq!(
        plan.initrd,
        Some(GuestRange {
            base: GuestPhys::new(0x4000_0000 + 36 * MIB),
            size: 5000
        })
    );
    assert_eq!(
        plan.firmware,
        GuestRange {
            base: GuestPhys::new(0x6000_0000 - 0x2_0000),
            size: 0x2_0000
        }
    );
}
