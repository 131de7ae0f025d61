//! The register block as the AML and the operator see it.

extern crate std;

use super::Hotplug;
use crate::devices::tests::{Board, Effect, Fake};
use crate::devices::{Access, Answer, Device, Parts, Work};
use proptest::prelude::*;
use std::{collections::BTreeSet, vec::Vec};
use types::access::AccessWidth;
use types::hotplug::Kind;
use types::hotplug::{COUNT, EVENT, FRAME_BYTES, FRAME_EJECT, FRAME_OST, FRAME_STA, FRAMES};
use types::ids::VcpuId;

const VCPU: fn(u16) -> VcpuId = VcpuId::new;

/// Makes a block of so many vCPUs whose guest listens.
fn block(possible: u16) -> Hotplug {
    let block = Hotplug::new(&Parts {
        possible,
        wall_clock_s: 0,
        disks: &[],
        nets: &[],
        has_rng: false,
        slots: 0,
    });
    block.listen();
    block
}

/// Reads a register that may be read at once.
fn read(block: &Hotplug, offset: u64, width: AccessWidth) -> u64 {
    let access = Access { offset, width };
    let mut around = Fake::default();
    let seen = block.peek(access, &around);
    seen.unwrap_or_else(|| block.read(access, &mut around).expect("a value"))
}

fn event(block: &Hotplug) -> u64 {
    read(block, EVENT, AccessWidth::Word)
}

/// Writes a register; returns what the guest says by it.
fn write(block: &Hotplug, offset: u64, width: AccessWidth, value: u64) -> Option<Answer> {
    let access = Access { offset, width };
    match block.write(access, value, &mut Fake::default())? {
        Work::Resize(answer) => Some(answer),
        other => panic!("{other:?}"),
    }
}

fn has_event(block: &Hotplug) -> bool {
    block.block.lock().has_event()
}

fn frame(vcpu: u64, register: u64) -> u64 {
    FRAMES + vcpu * FRAME_BYTES + register
}

#[test]
fn an_added_vcpu_is_one_pulse_and_one_read() {
    let block = block(8);
    assert!(block.request_insert(Kind::Vcpu, VCPU(3)));
    assert!(
        !block.request_insert(Kind::Vcpu, VCPU(3)),
        "not new: no second pulse"
    );
    assert_eq!(event(&block), 0x8001_0003);
    assert_eq!(event(&block), 0);
    assert!(
        block.request_insert(Kind::Vcpu, VCPU(3)),
        "read: the next request is news again"
    );
}

#[test]
fn more_saves_the_last_read() {
    let block = block(512);
    assert!(block.request_insert(Kind::Vcpu, VCPU(511)));
    assert!(block.request_insert(Kind::Vcpu, VCPU(64)));
    assert!(block.request_eject(Kind::Vcpu, VCPU(2)));
    assert!(block.press_power_button());
    let read: Vec<u64> = (0..5).map(|_| event(&block)).collect();
    assert_eq!(
        read,
        [0xc080_0000, 0xc003_0002, 0xc001_0040, 0x8001_01ff, 0]
    );
}

#[test]
fn the_latest_wish_about_a_vcpu_replaces_the_unread_one() {
    let block = block(8);
    assert!(block.request_insert(Kind::Vcpu, VCPU(1)));
    assert!(block.request_eject(Kind::Vcpu, VCPU(1)));
    assert_eq!(event(&block), 0x8003_0001);
    assert_eq!(event(&block), 0);
    assert!(block.request_eject(Kind::Vcpu, VCPU(1)));
    block.cancel(Kind::Vcpu, VCPU(1));
    assert!(!has_event(&block));
}

#[test]
fn vcpus_the_block_does_not_describe_have_no_events_and_no_frames() {
    let block = block(4);
    for vcpu in [4, 511, 512, u16::MAX] {
        assert!(!block.request_insert(Kind::Vcpu, VCPU(vcpu)));
        assert!(!block.request_eject(Kind::Vcpu, VCPU(vcpu)));
        block.cancel(Kind::Vcpu, VCPU(vcpu));
        let at = |register| frame(u64::from(vcpu), register);
        let sta = read(&block, at(FRAME_STA), AccessWidth::Word);
        assert_eq!(sta, 0, "vcpu {vcpu}");
        let ejected = write(&block, at(FRAME_EJECT), AccessWidth::Word, 1);
        assert_eq!(ejected, None, "vcpu {vcpu}");
    }
    assert!(!has_event(&block));
}

#[test]
fn registers_by_table() {
    let block = block(8);
    // Vcpus 0 to 3 are enabled.
    let cases = [
        (COUNT, AccessWidth::Word, 8),
        (frame(3, FRAME_STA), AccessWidth::Word, 0x0f),
        (frame(6, FRAME_STA), AccessWidth::Word, 0x0d),
        (frame(3, FRAME_STA), AccessWidth::Byte, 0),
        (frame(3, FRAME_STA), AccessWidth::Double, 0),
        (frame(3, FRAME_STA) + 1, AccessWidth::Word, 0),
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
            read(&block, offset, width),
            expected,
            "{offset:#x} {width:?}"
        );
    }
}

#[test]
fn writes_by_table() {
    let block = block(8);
    let cases = [
        (
            frame(5, FRAME_EJECT),
            AccessWidth::Word,
            1,
            Some(Answer::Eject(VCPU(5))),
        ),
        (frame(5, FRAME_EJECT), AccessWidth::Word, 0, None),
        (frame(5, FRAME_EJECT), AccessWidth::Half, 1, None),
        (
            frame(2, FRAME_OST),
            AccessWidth::Word,
            0x0103_0084,
            Some(Answer::Ost {
                vcpu: VCPU(2),
                event: 0x103,
                status: 0x84,
            }),
        ),
        (frame(2, FRAME_OST), AccessWidth::Byte, 1, None),
        (frame(2, FRAME_STA), AccessWidth::Word, 1, None),
        (EVENT, AccessWidth::Word, u64::MAX, None),
        (COUNT, AccessWidth::Word, 3, None),
    ];
    for (offset, width, value, expected) in cases {
        assert_eq!(
            write(&block, offset, width, value),
            expected,
            "{offset:#x} {width:?} {value:#x}"
        );
    }
}

#[test]
fn reset_forgets_events_but_not_the_shape() {
    let block = block(8);
    assert!(
        block.request_insert(Kind::Vcpu, VCPU(1))
            && block.request_eject(Kind::Vcpu, VCPU(2))
            && block.press_power_button()
    );
    block.reset();
    block.listen();
    assert_eq!(event(&block), 0);
    assert_eq!(read(&block, COUNT, AccessWidth::Word), 8);
    assert_eq!(
        super::registers::HotplugBlock::new(super::Counts {
            vcpus: u16::MAX,
            slots: u16::MAX
        })
        .counts()
        .vcpus,
        512
    );
}

#[test]
fn the_first_look_at_events_waits_until_the_resizer_knows() {
    let mut board = Board::<Hotplug>::new();
    assert!(board.device.press_power_button());
    let access = Access {
        offset: EVENT,
        width: AccessWidth::Word,
    };
    for _ in 0..2 {
        let (first, line) = board.step(|block, around| block.read(access, around));
        assert_eq!(first, Err(Work::Resize(Answer::Listens)), "takes no event");
        assert_eq!(line, None);
    }
    board.device.listen();
    assert_eq!(board.read(EVENT, AccessWidth::Word, 0).value, 0x8080_0000);
    assert_eq!(
        board.write(EVENT, AccessWidth::Word, 1, 0),
        Effect::NONE,
        "it is read only"
    );
    board.reset();
    let (again, _) = board.step(|block, around| block.read(access, around));
    assert_eq!(again, Err(Work::Resize(Answer::Listens)));
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
        let block = block(512);
        let (mut inserts, mut ejects, mut button) = (BTreeSet::new(), BTreeSet::new(), false);
        for step in steps {
            match step {
                Step::Insert(n) => {
                    ejects.remove(&n);
                    let new = n < 512 && inserts.insert(n);
                    prop_assert_eq!(block.request_insert(Kind::Vcpu, VCPU(n)), new);
                }
                Step::Eject(n) => {
                    inserts.remove(&n);
                    let new = n < 512 && ejects.insert(n);
                    prop_assert_eq!(block.request_eject(Kind::Vcpu, VCPU(n)), new);
                }
                Step::Cancel(n) => {
                    inserts.remove(&n);
                    ejects.remove(&n);
                    block.cancel(Kind::Vcpu, VCPU(n));
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
                        prop_assert_eq!(event(&block), 0);
                        continue;
                    };
                    let more = button || !ejects.is_empty() || !inserts.is_empty();
                    let expected = 1 << 31 | u64::from(more) << 30 | code << 16 | u64::from(uid);
                    prop_assert_eq!(event(&block), expected);
                }
            }
        }
    }

    /// No access, however odd, panics or invents an event.
    #[test]
    fn any_access_is_answered(offset: u64, value: u64, width in 0u64..4, possible: u16) {
        let block = block(possible);
        let width = AccessWidth::from_sas(width);
        let _ = write(&block, offset, width, value);
        prop_assert!(read(&block, offset, width) <= 0x200);
        prop_assert!(!has_event(&block));
    }
}
