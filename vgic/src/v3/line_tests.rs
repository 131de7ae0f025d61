//! The line of a timer: pending is the line, or a write of GICR_ISPENDR0, and nothing that was once high.

use proptest::prelude::*;
use types::gicv3;

use super::redistributor_tests::{Bench, SGI};
use crate::{After, IntId};

const TIMER: u32 = 27;
const BIT: u32 = 1 << TIMER;
const IGROUPR: u32 = SGI + 0x080;
const ISENABLER: u32 = SGI + 0x100;
const ICENABLER: u32 = SGI + 0x180;
const ISPENDR: u32 = SGI + 0x200;
const ICPENDR: u32 = SGI + 0x280;
const ISACTIVER: u32 = SGI + 0x300;
const ICACTIVER: u32 = SGI + 0x380;

/// A vCPU with its timer: the physical interrupt fires while the line is high and it is not active.
struct Timer {
    bench: Bench,
    active: bool,
}

impl Timer {
    fn new() -> Self {
        let mut bench = Bench::new(2);
        bench.cpu.lines = 0;
        Self {
            bench,
            active: false,
        }
    }

    /// Moves the line, as a write of CNTV_CTL_EL0 or CNTV_CVAL_EL0 does.
    fn line(&mut self, high: bool) {
        self.bench.cpu.lines = if high { BIT } else { 0 };
        self.fire();
    }

    fn fire(&mut self) {
        for physical in core::mem::take(&mut self.bench.cpu.deactivated) {
            assert_eq!((physical, self.active), (TIMER, true));
            self.active = false;
        }
        if self.bench.cpu.lines & BIT == 0 || self.active {
            return;
        }
        self.active = true;
        let Bench {
            distributor,
            redistributor,
            cpu,
            ..
        } = &mut self.bench;
        let intid = IntId::private(TIMER);
        if redistributor.raise_hardware(cpu, intid, TIMER) == After::Settle {
            redistributor.settle(distributor, cpu, &mut |_, _| {});
        }
    }

    fn owed(&mut self, owed: u32) {
        if owed & BIT != 0 {
            assert!(self.active, "deactivated twice");
            self.active = false;
        }
        self.fire();
    }

    fn write(&mut self, offset: u32, value: u32) {
        let owed = self.bench.write(offset, value);
        self.owed(owed);
    }

    fn groups(&mut self, groups: u64) {
        let owed = self.bench.distribute(gicv3::GICD_CTLR, groups);
        self.owed(owed);
    }

    fn is_pending(&self) -> bool {
        let (set, clear) = (self.bench.read(ISPENDR), self.bench.read(ICPENDR));
        assert_eq!(set, clear);
        set & u64::from(BIT) != 0
    }

    fn sync(&mut self) {
        let owed = self.bench.sync();
        self.owed(owed);
    }

    /// Takes every interrupt there is, and stops the timer in the handler; returns how many there were.
    fn taken(&mut self) -> usize {
        self.sync();
        let mut count = 0;
        while let Some(intid) = self.bench.cpu.acknowledge() {
            assert_eq!(intid.get(), TIMER);
            count += 1;
            assert!(count < 5, "no end of interrupts");
            self.line(false);
            let intid = self.bench.cpu.drop_priority().unwrap();
            self.bench.cpu.deactivate(intid);
            self.sync();
        }
        assert!(!self.active, "the physical interrupt never fires again");
        count
    }

    /// It works afterwards: exactly one interrupt for one expiry.
    fn works(&mut self) {
        assert_eq!(self.taken(), 0, "an interrupt that no line asks for");
        self.line(true);
        assert!(self.is_pending());
        assert_eq!(self.taken(), 1);
    }
}

#[test]
fn a_line_that_fell_while_it_was_disabled_is_forgotten() {
    let mut timer = Timer::new();
    timer.write(ICENABLER, BIT);
    timer.line(true);
    assert!(timer.is_pending());
    timer.line(false);
    assert!(!timer.is_pending());
    timer.write(ISENABLER, BIT);
    timer.works();
}

#[test]
fn a_line_that_fell_after_its_list_register_was_taken_away_is_forgotten() {
    let mut timer = Timer::new();
    timer.line(true);
    timer.write(ICENABLER, BIT);
    assert!(timer.is_pending());
    timer.line(false);
    assert!(!timer.is_pending());
    timer.write(ISENABLER, BIT);
    timer.works();
}

#[test]
fn a_line_that_rose_again_counts_once() {
    let mut timer = Timer::new();
    timer.write(ICENABLER, BIT);
    for _ in 0..3 {
        timer.line(true);
        timer.line(false);
    }
    timer.line(true);
    timer.write(ISENABLER, BIT);
    assert_eq!(timer.taken(), 1);
    timer.works();
}

#[test]
fn a_line_that_fell_while_its_group_was_off_is_forgotten() {
    let mut timer = Timer::new();
    timer.groups(0);
    timer.line(true);
    assert!(timer.is_pending());
    timer.line(false);
    assert!(!timer.is_pending());
    timer.groups(2);
    timer.works();
    // The interrupt's own group.
    timer.groups(2);
    timer.write(IGROUPR, !BIT);
    timer.line(true);
    timer.line(false);
    assert!(!timer.is_pending());
    timer.write(IGROUPR, u32::MAX);
    timer.works();
}

#[test]
fn a_line_that_fell_while_it_was_active_is_forgotten() {
    let mut timer = Timer::new();
    timer.write(ISACTIVER, BIT);
    timer.line(true);
    assert!(timer.is_pending());
    timer.line(false);
    assert!(!timer.is_pending());
    timer.write(ICACTIVER, BIT);
    timer.works();
    // Ended by the guest instead, as a deactivation without a list register.
    timer.write(ISACTIVER, BIT);
    timer.line(true);
    timer.line(false);
    timer.bench.cpu.deactivate(IntId::private(TIMER));
    timer.works();
}

#[test]
fn a_write_outlives_the_line_and_can_be_cleared() {
    for clear in [false, true] {
        let mut timer = Timer::new();
        timer.write(ICENABLER, BIT);
        timer.line(true);
        timer.write(ISPENDR, BIT);
        timer.line(false);
        assert!(timer.is_pending(), "written");
        if clear {
            timer.write(ICPENDR, BIT);
            assert!(!timer.is_pending(), "cleared");
        }
        timer.write(ISENABLER, BIT);
        assert_eq!(timer.taken(), usize::from(!clear));
        timer.works();
    }
}

#[test]
fn a_write_before_the_line_rose_outlives_it_too() {
    let mut timer = Timer::new();
    timer.write(ICENABLER, BIT);
    timer.write(ISPENDR, BIT);
    timer.line(true);
    timer.write(ICPENDR, BIT);
    assert!(timer.is_pending(), "the line is high");
    timer.write(ISPENDR, BIT);
    timer.line(false);
    assert!(timer.is_pending(), "written");
    timer.write(ISENABLER, BIT);
    assert_eq!(timer.taken(), 1);
    timer.works();
}

#[test]
fn a_write_while_the_line_is_high_does_not_count_twice() {
    // In a list register already, and written before the line rose.
    for early in [false, true] {
        let mut timer = Timer::new();
        if early {
            timer.write(ISPENDR, BIT);
        }
        timer.line(true);
        timer.write(ISPENDR, BIT);
        assert_eq!(timer.taken(), 1);
        timer.works();
    }
    // Taken away again: the write is what stays.
    let mut timer = Timer::new();
    timer.line(true);
    timer.write(ISPENDR, BIT);
    timer.write(ICENABLER, BIT);
    timer.line(false);
    assert!(timer.is_pending());
    timer.write(ISENABLER, BIT);
    assert_eq!(timer.taken(), 1);
    // And is not remembered once it was taken.
    timer.line(true);
    timer.write(ICENABLER, BIT);
    timer.line(false);
    assert!(!timer.is_pending());
    timer.write(ISENABLER, BIT);
    timer.works();
}

#[test]
fn a_line_that_rises_while_a_written_one_is_active_comes_after_it() {
    for falls in [false, true] {
        let mut timer = Timer::new();
        timer.write(ISPENDR, BIT);
        timer.sync();
        assert_eq!(timer.bench.cpu.acknowledge(), Some(IntId::private(TIMER)));
        timer.line(true);
        // Written registers must not lose what stands behind it.
        timer.write(ISENABLER, BIT);
        timer.line(!falls);
        let intid = timer.bench.cpu.drop_priority().unwrap();
        timer.bench.cpu.deactivate(intid);
        timer.sync();
        assert_eq!(timer.taken(), usize::from(!falls));
        timer.works();
    }
}

/// What a GIC without list registers would have of the timer's interrupt.
#[derive(Debug, Default)]
struct Ideal {
    line: bool,
    written: bool,
    enabled: bool,
    group: bool,
    active: bool,
    /// The line fell while the interrupt was in a list register: it may come once more.
    stale: bool,
}

impl Ideal {
    fn is_pending(&self) -> bool {
        self.line || self.written
    }

    fn is_open(&self) -> bool {
        self.enabled && self.group && !self.active
    }

    /// A register write or a read has the line asked, if the interrupt is not let through.
    fn look(&mut self) {
        self.stale &= self.is_open();
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Line(bool),
    Enable(bool),
    Group(bool),
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
    Acknowledge,
    End,
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => any::<bool>().prop_map(Op::Line),
        2 => any::<bool>().prop_map(Op::Enable),
        1 => any::<bool>().prop_map(Op::Group),
        1 => Just(Op::SetPending),
        1 => Just(Op::ClearPending),
        1 => Just(Op::SetActive),
        1 => Just(Op::ClearActive),
        3 => Just(Op::Acknowledge),
        3 => Just(Op::End),
    ]
}

impl Timer {
    fn apply(&mut self, op: Op, ideal: &mut Ideal) {
        let is_running = !self.bench.cpu.running().is_empty();
        match op {
            Op::Line(high) => {
                let falls = ideal.line && !high && !ideal.written && ideal.is_open();
                ideal.stale = !high && (ideal.stale || falls);
                ideal.line = high;
                self.line(high);
            }
            Op::Enable(on) => {
                ideal.enabled = on;
                self.write(if on { ISENABLER } else { ICENABLER }, BIT);
            }
            Op::Group(on) => {
                ideal.group = on;
                self.groups(if on { 2 } else { 0 });
            }
            Op::SetPending => {
                ideal.written = true;
                ideal.stale = false;
                self.write(ISPENDR, BIT);
            }
            Op::ClearPending => {
                ideal.written = false;
                ideal.stale = false;
                self.write(ICPENDR, BIT);
            }
            Op::SetActive if !ideal.active => {
                ideal.active = true;
                self.write(ISACTIVER, BIT);
            }
            Op::ClearActive if ideal.active && !is_running => {
                ideal.active = false;
                self.write(ICACTIVER, BIT);
            }
            Op::Acknowledge => self.acknowledge(ideal),
            Op::End if is_running => {
                let intid = self.bench.cpu.drop_priority().unwrap();
                self.bench.cpu.deactivate(intid);
                ideal.active = false;
            }
            _ => {}
        }
        ideal.look();
        self.sync();
        if !ideal.active && !ideal.stale {
            assert_eq!(self.is_pending(), ideal.is_pending(), "{op:?}: {ideal:?}");
        }
    }

    fn acknowledge(&mut self, ideal: &mut Ideal) {
        let wanted = ideal.is_pending() && ideal.is_open();
        let taken = self.bench.cpu.acknowledge().is_some();
        assert!(taken || !wanted, "lost: {ideal:?}");
        assert!(wanted || ideal.stale || !taken, "spurious: {ideal:?}");
        if taken {
            ideal.active = true;
            ideal.written = false;
            ideal.stale = false;
        }
    }
}

proptest! {
    #[test]
    fn a_timer_comes_as_from_an_ideal_gic(script in prop::collection::vec(ops(), 1..60)) {
        let mut timer = Timer::new();
        let mut ideal = Ideal { enabled: true, group: true, ..Ideal::default() };
        for op in script {
            timer.apply(op, &mut ideal);
        }
        for op in [Op::End, Op::ClearActive, Op::Line(false), Op::Enable(false), Op::ClearPending, Op::Enable(true), Op::Group(true)] {
            timer.apply(op, &mut ideal);
        }
        timer.works();
    }
}
