//! The register block as the AML and the operator see it.

extern crate std;

use super::{HotplugBlock, HotplugWrite};
use proptest::prelude::*;
use psci::{STA_DISABLED, STA_ENABLED};
use std::{collections::BTreeSet, vec::Vec};
use types::access::AccessWidth;
use types::hotplug::{COUNT, EVENT, FRAME_BYTES, FRAME_EJECT, FRAME_OST, FRAME_STA, FRAMES};
use types::ids::VcpuId;

const VCPU: fn(u16) -> VcpuId = VcpuId::new;

fn event(block: &mut HotplugBlock) -> u64 {
    block.read(EVENT, AccessWidth::Word, |_| {
        panic!("EVENT asks for no STA")
    })
}

fn frame(vcpu: u64, register: u64) -> u64 {
    FRAMES + vcpu * FRAME_BYTES + register
}

#[test]
fn an_added_vcpu_is_one_pulse_and_one_read() {
    let mut block = HotplugBlock::new(8);
    assert!(block.request_insert(VCPU(3)));
    assert!(!block.request_insert(VCPU(3)), "not new: no second pulse");
    assert_eq!(event(&mut block), 0x8001_0003);
    assert_eq!(event(&mut block), 0);
    assert!(
        block.request_insert(VCPU(3)),
        "read: the next request is news again"
    );
}

#[test]
fn more_saves_the_last_read() {
    let mut block = HotplugBlock::new(512);
    assert!(block.request_insert(VCPU(511)));
    assert!(block.request_insert(VCPU(64)));
    assert!(block.request_eject(VCPU(2)));
    assert!(block.press_power_button());
    let read: Vec<u64> = (0..5).map(|_| event(&mut block)).collect();
    assert_eq!(
        read,
        [0xc080_0000, 0xc003_0002, 0xc001_0040, 0x8001_01ff, 0]
    );
}

#[test]
fn the_latest_wish_about_a_vcpu_replaces_the_unread_one() {
    let mut block = HotplugBlock::new(8);
    assert!(block.request_insert(VCPU(1)));
    assert!(block.request_eject(VCPU(1)));
    assert_eq!(event(&mut block), 0x8003_0001);
    assert_eq!(event(&mut block), 0);
    assert!(block.request_eject(VCPU(1)));
    block.cancel(VCPU(1));
    assert!(!block.has_event());
}

#[test]
fn vcpus_the_block_does_not_describe_have_no_events_and_no_frames() {
    let mut block = HotplugBlock::new(4);
    for vcpu in [4, 511, 512, u16::MAX] {
        assert!(!block.request_insert(VCPU(vcpu)));
        assert!(!block.request_eject(VCPU(vcpu)));
        block.cancel(VCPU(vcpu));
        let sta = block.read(frame(u64::from(vcpu), FRAME_STA), AccessWidth::Word, |_| {
            STA_ENABLED
        });
        assert_eq!(sta, 0, "vcpu {vcpu}");
        assert_eq!(
            block.write(frame(u64::from(vcpu), FRAME_EJECT), AccessWidth::Word, 1),
            HotplugWrite::Ignored
        );
    }
    assert!(!block.has_event());
}

#[test]
fn registers_by_table() {
    let mut block = HotplugBlock::new(8);
    let sta = |vcpu: VcpuId| {
        if vcpu.get() == 5 {
            STA_ENABLED
        } else {
            STA_DISABLED
        }
    };
    let cases = [
        (COUNT, AccessWidth::Word, 8),
        (frame(5, FRAME_STA), AccessWidth::Word, 0x0f),
        (frame(6, FRAME_STA), AccessWidth::Word, 0x0d),
        (frame(5, FRAME_STA), AccessWidth::Byte, 0),
        (frame(5, FRAME_STA), AccessWidth::Double, 0),
        (frame(5, FRAME_STA) + 1, AccessWidth::Word, 0),
        (frame(5, FRAME_EJECT), AccessWidth::Word, 0),
        (frame(5, FRAME_OST), AccessWidth::Word, 0),
        (frame(5, 12), AccessWidth::Word, 0),
        (8, AccessWidth::Word, 0),
        (FRAMES - 4, AccessWidth::Word, 0),
        (0xfffc, AccessWidth::Word, 0),
        (u64::MAX, AccessWidth::Word, 0),
    ];
    for (offset, width, expected) in cases {
        assert_eq!(
            block.read(offset, width, sta),
            expected,
            "{offset:#x} {width:?}"
        );
    }
}

#[test]
fn writes_by_table() {
    let block = HotplugBlock::new(8);
    let cases = [
        (
            frame(5, FRAME_EJECT),
            AccessWidth::Word,
            1,
            HotplugWrite::Eject(VCPU(5)),
        ),
        (
            frame(5, FRAME_EJECT),
            AccessWidth::Word,
            0,
            HotplugWrite::Ignored,
        ),
        (
            frame(5, FRAME_EJECT),
            AccessWidth::Half,
            1,
            HotplugWrite::Ignored,
        ),
        (
            frame(2, FRAME_OST),
            AccessWidth::Word,
            0x0103_0084,
            HotplugWrite::Ost {
                vcpu: VCPU(2),
                event: 0x103,
                status: 0x84,
            },
        ),
        (
            frame(2, FRAME_OST),
            AccessWidth::Byte,
            1,
            HotplugWrite::Ignored,
        ),
        (
            frame(2, FRAME_STA),
            AccessWidth::Word,
            1,
            HotplugWrite::Ignored,
        ),
        (EVENT, AccessWidth::Word, u64::MAX, HotplugWrite::Ignored),
        (COUNT, AccessWidth::Word, 3, HotplugWrite::Ignored),
    ];
    for (offset, width, value, expected) in cases {
        assert_eq!(
            block.write(offset, width, value),
            expected,
            "{offset:#x} {width:?} {value:#x}"
        );
    }
}

#[test]
fn reset_forgets_events_but_not_the_shape() {
    let mut block = HotplugBlock::new(8);
    assert!(
        block.request_insert(VCPU(1)) && block.request_eject(VCPU(2)) && block.press_power_button()
    );
    block.reset();
    assert_eq!(event(&mut block), 0);
    assert_eq!(block.read(COUNT, AccessWidth::Word, |_| 0), 8);
    assert_eq!(HotplugBlock::new(u16::MAX).possible, 512);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u16),
    Eject(u16),
    Cancel(u16),
    Button,
    Read,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u16..520).prop_map(Step::Insert),
        (0u16..520).prop_map(Step::Eject),
        (0u16..520).prop_map(Step::Cancel),
        Just(Step::Button),
        Just(Step::Read),
    ]
}

proptest! {
    /// Every request is told to the guest exactly once, unless it was withdrawn or replaced before the guest looked.
    #[test]
    fn events_agree_with_a_simple_model(steps in proptest::collection::vec(step(), 1..80)) {
        let mut block = HotplugBlock::new(512);
        let (mut inserts, mut ejects, mut button) = (BTreeSet::new(), BTreeSet::new(), false);
        for step in steps {
            match step {
                Step::Insert(n) => {
                    ejects.remove(&n);
                    let new = n < 512 && inserts.insert(n);
                    prop_assert_eq!(block.request_insert(VCPU(n)), new);
                }
                Step::Eject(n) => {
                    inserts.remove(&n);
                    let new = n < 512 && ejects.insert(n);
                    prop_assert_eq!(block.request_eject(VCPU(n)), new);
                }
                Step::Cancel(n) => {
                    inserts.remove(&n);
                    ejects.remove(&n);
                    block.cancel(VCPU(n));
                }
                Step::Button => {
                    prop_assert_eq!(block.press_power_button(), !button);
                    button = true;
                }
                Step::Read => {
                    let (code, uid) = if core::mem::take(&mut button) {
                        (0x80, 0)
                    } else if let Some(n) = ejects.pop_first() {
                        (3, n)
                    } else if let Some(n) = inserts.pop_first() {
                        (1, n)
                    } else {
                        prop_assert_eq!(event(&mut block), 0);
                        continue;
                    };
                    let more = button || !ejects.is_empty() || !inserts.is_empty();
                    let expected = 1 << 31 | u64::from(more) << 30 | code << 16 | u64::from(uid);
                    prop_assert_eq!(event(&mut block), expected);
                }
            }
        }
    }

    /// No access, however odd, panics or invents an event.
    #[test]
    fn any_access_is_answered(offset: u64, value: u64, width in 0u64..4, possible: u16) {
        let mut block = HotplugBlock::new(possible);
        let width = AccessWidth::from_sas(width);
        let _ = block.write(offset, width, value);
        prop_assert!(block.read(offset, width, |_| STA_DISABLED) <= 0x200);
        prop_assert!(!block.has_event());
    }
}
