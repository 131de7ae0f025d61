//! The clock as Linux's `rtc-pl031` uses it.

use super::Clock;
use super::registers::NS_PER_S;
use super::spec::{CR, DR, ICR, IMSC, LR, MIS, MR, RIS};
use crate::devices::tests::{Board, Effect};
use crate::devices::{Device, Parts, Work};
use proptest::prelude::*;
use types::access::AccessWidth;

const BASE_S: u32 = 1_795_390_067;

type Pl031 = Board<Clock>;

/// Makes a clock that shows `wall_clock_s` at time 0.
fn clock(wall_clock_s: u32) -> Pl031 {
    Board::with(&Parts {
        wall_clock_s,
        possible: 1,
        disks: &[],
        nets: &[],
        has_rng: false,
        slots: 0,
    })
}

impl Board<Clock> {
    /// Returns when the alarm rings if the guest does nothing.
    fn alarm_ns(&self) -> Option<u64> {
        self.device.registers.0.lock().alarm_ns()
    }

    /// Sets the clock as EFI's SetTime does.
    fn set_seconds(&mut self, seconds: u32, now_ns: u64) -> Effect {
        self.around.now_ns = now_ns;
        let (work, line) = self.step(|clock, around| clock.set_seconds(seconds, around));
        Effect { line, work }
    }

    /// Has the clock do what is due; returns when to look again, and how the line moved.
    fn attend(&mut self, now_ns: u64) -> (Option<u64>, Option<bool>) {
        self.around.now_ns = now_ns;
        self.step(|clock, around| clock.attend(around))
    }
}

fn get(rtc: &mut Pl031, offset: u64, now_s: u64) -> u32 {
    rtc.read(offset, AccessWidth::Word, now_s * NS_PER_S).value as u32
}

fn set(rtc: &mut Pl031, offset: u64, value: u32, now_s: u64) -> Effect {
    rtc.write(
        offset,
        AccessWidth::Word,
        u64::from(value),
        now_s * NS_PER_S,
    )
}

#[test]
fn registers_at_reset() {
    let mut rtc = clock(BASE_S);
    let cases = [
        (DR, BASE_S + 9),
        (MR, 0),
        (LR, BASE_S),
        (CR, 1),
        (IMSC, 0),
        (RIS, 0),
        (MIS, 0),
        (ICR, 0),
        (0x20, 0),
        (0xfe0, 0x31),
        (0xfe4, 0x10),
        (0xfe8, 0x14),
        (0xff0, 0x0d),
        (0xffc, 0xb1),
    ];
    for (offset, expected) in cases {
        assert_eq!(get(&mut rtc, offset, 9), expected, "{offset:#x}");
    }
}

#[test]
fn setting_the_clock_counts_on_from_there() {
    let mut rtc = clock(BASE_S);
    let _ = set(&mut rtc, LR, 1000, 50);
    assert_eq!(get(&mut rtc, LR, 60), 1000);
    assert_eq!(get(&mut rtc, DR, 60), 1010);
    rtc.reset();
    assert_eq!(
        get(&mut rtc, DR, 61),
        1011,
        "a reset of the guest does not set the clock back"
    );
    let _ = set(&mut rtc, LR, u32::MAX, 100);
    assert_eq!(get(&mut rtc, DR, 102), 1, "the counter is 32 bits wide");
}

#[test]
fn alarm_rings_at_its_second_and_says_when() {
    let mut rtc = clock(BASE_S);
    let _ = set(&mut rtc, IMSC, 1, 10);
    assert_eq!(set(&mut rtc, MR, BASE_S + 30, 10).line, None);
    let look = |rtc: &mut Pl031, now_ns| rtc.read(DR, AccessWidth::Word, now_ns).line;
    assert_eq!(look(&mut rtc, 30 * NS_PER_S - 1), None);
    assert_eq!(look(&mut rtc, 30 * NS_PER_S), Some(true));
    assert_eq!((get(&mut rtc, RIS, 31), get(&mut rtc, MIS, 31)), (1, 1));
    assert_eq!(set(&mut rtc, ICR, 1, 31).line, Some(false));
    assert_eq!(look(&mut rtc, 40 * NS_PER_S), None, "it rings once");
}

#[test]
fn alarm_rings_although_nobody_touches_a_register() {
    let mut rtc = clock(BASE_S);
    assert_eq!(set(&mut rtc, MR, BASE_S + 30, 10), Effect::NONE);
    assert_eq!(rtc.alarm_ns(), None, "masked");
    assert_eq!(set(&mut rtc, IMSC, 1, 10).work, Some(Work::Attend));
    assert_eq!(rtc.alarm_ns(), Some(30 * NS_PER_S));
    let sooner = rtc.set_seconds(BASE_S + 25, 11 * NS_PER_S);
    assert_eq!(sooner.work, Some(Work::Attend), "it has come nearer");
    assert_eq!(rtc.alarm_ns(), Some(16 * NS_PER_S));
    let at = 16 * NS_PER_S;
    assert_eq!(rtc.attend(at - 1), (Some(at), None));
    assert_eq!(rtc.attend(at), (None, Some(true)));
    assert_eq!(rtc.alarm_ns(), None, "it rings once");
    assert_eq!(rtc.attend(17 * NS_PER_S), (None, None));
    assert_eq!(
        set(&mut rtc, MR, BASE_S + 40, 17).work,
        Some(Work::Attend),
        "it looks again"
    );
    assert!(rtc.alarm_ns().is_some());
    rtc.reset();
    assert_eq!(rtc.alarm_ns(), None);
    assert_eq!(rtc.attend(90 * NS_PER_S), (None, None), "nothing rings");
}

#[test]
fn alarm_for_this_very_second_rings_at_once() {
    let mut rtc = clock(BASE_S);
    let _ = set(&mut rtc, IMSC, 1, 10);
    assert_eq!(set(&mut rtc, MR, BASE_S + 10, 10).line, Some(true));
}

#[test]
fn masked_alarm_rings_silently() {
    let mut rtc = clock(BASE_S);
    let _ = set(&mut rtc, MR, BASE_S + 5, 0);
    assert_eq!((get(&mut rtc, RIS, 6), get(&mut rtc, MIS, 6)), (1, 0));
    assert_eq!(set(&mut rtc, IMSC, 1, 6).line, Some(true));
    rtc.reset();
    assert!(!rtc.line());
}

#[test]
fn setting_the_clock_moves_the_alarm() {
    let mut rtc = clock(0);
    let _ = set(&mut rtc, IMSC, 1, 0);
    let _ = set(&mut rtc, MR, 100, 0);
    let _ = set(&mut rtc, LR, 90, 20);
    assert_eq!((get(&mut rtc, RIS, 29), get(&mut rtc, RIS, 30)), (0, 1));
}

#[test]
fn odd_widths_and_offsets_do_nothing() {
    let mut rtc = clock(BASE_S);
    for (offset, width) in [
        (LR, AccessWidth::Byte),
        (LR, AccessWidth::Half),
        (LR, AccessWidth::Double),
        (LR + 2, AccessWidth::Word),
    ] {
        assert_eq!(rtc.write(offset, width, 7, 0), Effect::NONE);
    }
    assert_eq!(get(&mut rtc, LR, 0), BASE_S);
    assert_eq!(rtc.read(DR, AccessWidth::Double, 0).value, 0);
    assert_eq!(
        rtc.read(DR, AccessWidth::Byte, 0).value,
        u64::from(BASE_S & 0xff)
    );
}

proptest! {
    /// Whatever a guest writes at whatever time: no panic, and every move of the line is told.
    #[test]
    fn line_moves_are_all_told(
        steps in proptest::collection::vec((any::<bool>(), 0u64..0x24, any::<u32>(), any::<u64>()), 1..100),
    ) {
        let mut rtc = clock(BASE_S);
        let mut line = false;
        for (write, offset, value, now_ns) in steps {
            let moved = if write {
                rtc.write(offset & !3, AccessWidth::Word, u64::from(value), now_ns).line
            } else {
                rtc.read(offset, AccessWidth::Word, now_ns).line
            };
            if let Some(level) = moved {
                prop_assert_ne!(level, line);
                line = level;
            }
            prop_assert_eq!(line, rtc.line());
        }
    }
}
