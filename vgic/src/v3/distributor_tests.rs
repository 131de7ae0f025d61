//! The distributor's registers and the routing of SPIs.

use std::vec::Vec;
use types::access::AccessWidth;
use types::gicv3;

use super::distributor;
use crate::{IntId, LrState, Notice, Spis};
use types::affinity::Affinity;

const LEVEL: u32 = 33;
const EDGE: u32 = 41;

fn none(_: IntId) -> LrState {
    LrState::Inactive
}

fn read(spis: &Spis, offset: u32, width: AccessWidth) -> u64 {
    distributor::read(spis, offset, width, 0, &none, &mut |_, _| {})
}

fn write(spis: &Spis, offset: u32, width: AccessWidth, value: u64) -> Vec<(u16, Notice)> {
    let mut posts = Vec::new();
    distributor::write(spis, offset, width, value, &mut |vcpu, notice| {
        posts.push((vcpu, notice))
    });
    posts
}

fn notice(vcpu: u16, id: u32) -> Vec<(u16, Notice)> {
    std::vec![(vcpu, Notice::Interrupt(IntId::new(id).unwrap()))]
}

fn pulse(distributor: &Spis, id: u32) -> Vec<(u16, Notice)> {
    let mut posts = Vec::new();
    distributor.pulse(IntId::new(id).unwrap(), &mut |vcpu, notice| {
        posts.push((vcpu, notice))
    });
    posts
}

/// SPIs 33 (level) and 41 (edge) enabled in group 1, routed to vCPU 0.
fn enabled() -> Spis {
    let distributor = Spis::new(64, 4);
    write(&distributor, 0x084, AccessWidth::Word, 0xffff_ffff);
    write(&distributor, 0xc08, AccessWidth::Word, 2 << 18);
    write(&distributor, 0x104, AccessWidth::Word, 1 << 1 | 1 << 9);
    write(&distributor, gicv3::GICD_CTLR, AccessWidth::Word, 2);
    distributor
}

#[test]
fn registers_read_their_reset_values() {
    let table = [
        (0x0000, AccessWidth::Word, 0x50),
        (0x0004, AccessWidth::Word, 0x0148_0002),
        (0x0008, AccessWidth::Word, 0x4200_0000),
        (0x0010, AccessWidth::Word, 0),
        (0xffe8, AccessWidth::Word, 0x3b),
        (0x0084, AccessWidth::Word, 0),
        (0x0104, AccessWidth::Word, 0),
        (0x0204, AccessWidth::Word, 0),
        (0x0304, AccessWidth::Word, 0),
        (0x0420, AccessWidth::Word, 0),
        (0x0c08, AccessWidth::Word, 0),
        (0x6100, AccessWidth::Double, 0),
        (0x0000, AccessWidth::Byte, 0),
        (0x0004, AccessWidth::Double, 0),
        (0x0006, AccessWidth::Half, 0),
    ];
    let distributor = Spis::new(64, 8);
    for (offset, width, value) in table {
        assert_eq!(
            read(&distributor, offset, width),
            value,
            "{offset:#x} {width:?}"
        );
    }
    assert_eq!(read(&Spis::new(960, 1), 4, AccessWidth::Word) & 0x1f, 30);
    assert_eq!(read(&Spis::new(0, 1), 4, AccessWidth::Word) & 0x1f, 1);
    assert_eq!(Spis::new(u16::MAX, 512).spi_count(), 960);
}

/// Row 41 and 43 of the hostile list: nothing panics, nothing outside the banks sticks.
#[test]
fn every_offset_width_and_value_is_survived() {
    let distributor = Spis::new(96, 3);
    for value in [u64::MAX, 0x5a5a_5a5a_5a5a_5a5a] {
        for offset in (0..0x1_0010).chain([u32::MAX - 8, u32::MAX]) {
            for width in [
                AccessWidth::Byte,
                AccessWidth::Half,
                AccessWidth::Word,
                AccessWidth::Double,
            ] {
                write(&distributor, offset, width, value);
                let mask = u64::MAX >> (64 - 8 * width.bytes());
                assert_eq!(
                    read(&distributor, offset, width) & !mask,
                    0,
                    "{offset:#x} {width:?}"
                );
            }
        }
    }
    // Private fields, SPIs that do not exist, GICv2 leftovers.
    for offset in [
        0x080, 0x100, 0x110, 0x17c, 0x200, 0x400, 0x47f, 0x480, 0x7fc, 0x800, 0xc00, 0xc04, 0xc20,
        0xd04, 0xf00, 0x6000, 0x60f8,
    ] {
        assert_eq!(
            read(&distributor, offset, AccessWidth::Word),
            0,
            "{offset:#x}"
        );
    }
    assert_eq!(read(&distributor, 0x7fd8, AccessWidth::Double), 0);
}

#[test]
fn fields_keep_their_neighbours() {
    let distributor = Spis::new(64, 4);
    write(&distributor, 0x420, AccessWidth::Word, 0xffff_ffff);
    write(&distributor, 0x421, AccessWidth::Byte, 0x47);
    write(&distributor, 0x422, AccessWidth::Half, 0);
    assert_eq!(read(&distributor, 0x420, AccessWidth::Word), 0xf8f8_40f8);
    assert_eq!(read(&distributor, 0x421, AccessWidth::Byte), 0x40);
    let router = gicv3::GICD_IROUTER + 8 * LEVEL;
    write(&distributor, router, AccessWidth::Double, u64::MAX);
    assert_eq!(
        read(&distributor, router, AccessWidth::Double),
        0xff_80ff_ffff
    );
    write(&distributor, router, AccessWidth::Word, 2);
    assert_eq!(
        read(&distributor, router, AccessWidth::Double),
        0xff_0000_0002
    );
    write(&distributor, router + 4, AccessWidth::Word, 0);
    assert_eq!(
        (
            read(&distributor, router, AccessWidth::Word),
            read(&distributor, router + 4, AccessWidth::Word)
        ),
        (2, 0)
    );
    write(&distributor, router, AccessWidth::Byte, 1);
    write(&distributor, router + 2, AccessWidth::Word, 1);
    assert_eq!(read(&distributor, router, AccessWidth::Double), 2);
    write(&distributor, 0x104, AccessWidth::Word, 0xf0);
    write(&distributor, 0x184, AccessWidth::Word, 0x30);
    assert_eq!(
        (
            read(&distributor, 0x104, AccessWidth::Word),
            read(&distributor, 0x184, AccessWidth::Word)
        ),
        (0xc0, 0xc0)
    );
    write(&distributor, 0xc08, AccessWidth::Word, 0xffff_ffff);
    assert_eq!(read(&distributor, 0xc08, AccessWidth::Word), 0xaaaa_aaaa);
}

#[test]
fn whoever_makes_an_spi_deliverable_tells_its_target() {
    let distributor = enabled();
    assert_eq!(pulse(&distributor, EDGE), notice(0, EDGE));
    assert_eq!(pulse(&distributor, EDGE), std::vec![], "coalesced");
    let router = gicv3::GICD_IROUTER + 8 * EDGE;
    assert_eq!(
        write(&distributor, router, AccessWidth::Double, 3),
        notice(3, EDGE)
    );
    assert_eq!(
        write(&distributor, router, AccessWidth::Double, 9),
        std::vec![],
        "nobody has this affinity"
    );
    assert_eq!(
        write(&distributor, 0x184, AccessWidth::Word, 1 << 9),
        std::vec![]
    );
    assert_eq!(
        write(&distributor, router, AccessWidth::Double, 1),
        std::vec![],
        "masked"
    );
    assert_eq!(
        write(&distributor, 0x104, AccessWidth::Word, 1 << 9),
        notice(1, EDGE)
    );
    assert_eq!(read(&distributor, 0x204, AccessWidth::Word), 1 << 9);
    write(&distributor, 0x284, AccessWidth::Word, 1 << 9);
    assert_eq!(read(&distributor, 0x204, AccessWidth::Word), 0);
}

/// Guest-facts 1.6: an edge while masked, or before the guest says "edge", is latched.
#[test]
fn edges_are_latched_whatever_the_guest_has_configured() {
    let distributor = Spis::new(64, 1);
    assert_eq!(pulse(&distributor, EDGE), std::vec![]);
    write(&distributor, 0x084, AccessWidth::Word, 1 << 9);
    write(&distributor, 0xc08, AccessWidth::Word, 2 << 18);
    write(&distributor, 0x104, AccessWidth::Word, 1 << 9);
    let posts = write(&distributor, gicv3::GICD_CTLR, AccessWidth::Word, 2);
    assert_eq!(
        posts,
        [std::vec![(0, Notice::Resync)], notice(0, EDGE)].concat()
    );
    assert_eq!(
        write(&distributor, gicv3::GICD_CTLR, AccessWidth::Word, 2),
        std::vec![],
        "unchanged"
    );
}

#[test]
fn one_of_n_goes_to_a_vcpu_that_is_on() {
    let distributor = enabled();
    let router = gicv3::GICD_IROUTER + 8 * EDGE;
    write(
        &distributor,
        router,
        AccessWidth::Double,
        gicv3::IROUTER_IRM,
    );
    assert_eq!(pulse(&distributor, EDGE), std::vec![], "nobody is on");
    let mut posts = Vec::new();
    distributor.join(2, &mut |vcpu, notice| posts.push((vcpu, notice)));
    assert_eq!(posts, notice(2, EDGE));
    write(&distributor, 0x284, AccessWidth::Word, 1 << 9);
    distributor.join(1, &mut |_, _| unreachable!());
    assert_eq!(pulse(&distributor, EDGE), notice(1, EDGE));
    write(&distributor, 0x284, AccessWidth::Word, 1 << 9);
    distributor.leave(1);
    assert_eq!(pulse(&distributor, EDGE), notice(2, EDGE));
    distributor.reset();
    assert_eq!(read(&distributor, router, AccessWidth::Double), 0);
    assert_eq!(Affinity::of_index(2).number(), 2);
}

#[test]
fn a_reader_who_polls_an_active_spi_elsewhere_has_its_holder_look() {
    let distributor = enabled();
    pulse(&distributor, EDGE);
    assert!(matches!(
        distributor.claim(IntId::new(EDGE).unwrap(), 0),
        crate::core::spis::Claim::Taken(_)
    ));
    let mut posts = Vec::new();
    let active = distributor::read(
        &distributor,
        0x304,
        AccessWidth::Word,
        1,
        &none,
        &mut |vcpu, notice| posts.push((vcpu, notice)),
    );
    assert_eq!((active, posts), (1 << 9, notice(0, EDGE)));
    let held = |_| LrState::Pending;
    let own = |offset| {
        distributor::read(
            &distributor,
            offset,
            AccessWidth::Word,
            0,
            &held,
            &mut |_, _| unreachable!(),
        )
    };
    assert_eq!((own(0x304), own(0x204)), (0, 1 << 9));
}
