//! The PL031's registers: seconds since the epoch, and an alarm.
//!
//! The clock is an offset to the time that every access brings along, so it costs nothing until it is read.
//!
//! Neighbours: `spec` (the map).

use super::spec;
use crate::devices::{Line, primecell};
use types::access::AccessWidth;

pub(super) const NS_PER_S: u64 = 1_000_000_000;

/// One clock's registers.
#[derive(Debug)]
pub(super) struct Pl031 {
    /// What DR shows at time 0 (modulo 2^32, as the register counts).
    base_s: u32,
    match_s: u32,
    load_s: u32,
    /// When DR next equals MR, in seconds of the caller's time; `None` once it has rung or before MR was written.
    alarm_s: Option<u64>,
    raw: bool,
    mask: bool,
}

impl Pl031 {
    /// Makes a clock that showed `wall_clock_s` seconds since the epoch when the caller's time was zero.
    pub(super) const fn new(wall_clock_s: u32) -> Self {
        Self {
            base_s: wall_clock_s,
            match_s: 0,
            load_s: wall_clock_s,
            alarm_s: None,
            raw: false,
            mask: false,
        }
    }

    /// Returns what DR shows at `now_ns`.
    pub(super) const fn seconds(&self, now_ns: u64) -> u32 {
        self.base_s.wrapping_add((now_ns / NS_PER_S) as u32)
    }

    /// Sets the clock, as a write to LR or EFI's SetTime does.
    pub(super) fn set_seconds(&mut self, seconds: u32, now_ns: u64) {
        self.load_s = seconds;
        self.base_s = seconds.wrapping_sub((now_ns / NS_PER_S) as u32);
        if self.alarm_s.is_some() {
            self.arm(now_ns);
        }
    }

    /// Returns when the alarm asserts the interrupt line if the guest does nothing, in nanoseconds of the caller's time; `None` for never.
    pub(super) const fn alarm_ns(&self) -> Option<u64> {
        match self.alarm_s {
            Some(alarm_s) if self.mask => Some(alarm_s.saturating_mul(NS_PER_S)),
            _ => None,
        }
    }

    /// Rings if it is time.
    pub(super) fn ring_if_due(&mut self, now_ns: u64) {
        if self
            .alarm_s
            .is_some_and(|alarm_s| now_ns / NS_PER_S >= alarm_s)
        {
            self.alarm_s = None;
            self.raw = true;
        }
    }

    /// Computes when DR will next equal MR: now, if it does.
    fn arm(&mut self, now_ns: u64) {
        let distance_s = self.match_s.wrapping_sub(self.seconds(now_ns));
        self.alarm_s = Some((now_ns / NS_PER_S).saturating_add(u64::from(distance_s)));
    }

    /// Reads a register. 32-bit accesses at a register's own offset are served, and narrower reads of its low bytes; others read 0.
    pub(super) fn read(&mut self, offset: u64, width: AccessWidth, now_ns: u64) -> u64 {
        if offset & 0b11 != 0 || width == AccessWidth::Double {
            return 0;
        }
        self.ring_if_due(now_ns);
        u64::from(self.read_register(offset, now_ns)) & width.mask()
    }

    /// Writes a register, if the access is one that is served.
    pub(super) fn write(&mut self, offset: u64, width: AccessWidth, value: u64, now_ns: u64) {
        if offset & 0b11 != 0 || width != AccessWidth::Word {
            return;
        }
        self.ring_if_due(now_ns);
        self.write_register(offset, value as u32, now_ns);
        self.ring_if_due(now_ns);
    }

    /// Forgets the alarm; the time goes on, as a battery keeps it.
    pub(super) fn reset(&mut self) {
        self.match_s = 0;
        self.alarm_s = None;
        self.raw = false;
        self.mask = false;
    }

    fn read_register(&self, offset: u64, now_ns: u64) -> u32 {
        match offset {
            spec::DR => self.seconds(now_ns),
            spec::MR => self.match_s,
            spec::LR => self.load_s,
            spec::CR => spec::CR_START,
            spec::IMSC => u32::from(self.mask),
            spec::RIS => u32::from(self.raw),
            spec::MIS => u32::from(self.line()),
            _ => primecell::read_id(spec::PERIPHERAL_ID, offset) as u32,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32, now_ns: u64) {
        match offset {
            spec::MR => {
                self.match_s = value;
                self.arm(now_ns);
            }
            spec::LR => self.set_seconds(value, now_ns),
            spec::IMSC => self.mask = value & spec::INT_ALARM != 0,
            spec::ICR if value & spec::INT_ALARM != 0 => self.raw = false,
            _ => {}
        }
    }
}

impl Line for Pl031 {
    fn line(&self) -> bool {
        self.raw && self.mask
    }
}
