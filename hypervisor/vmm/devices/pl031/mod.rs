//! The PL031 real-time clock: seconds since the epoch, and an alarm that rings wherever the guest sleeps.
//!
//! Neighbours: `registers` (what accesses do), `alarm` (when to look, without a lock).

mod alarm;
mod registers;
mod spec;
#[cfg(test)]
mod tests;

use super::{Access, Device, Parts, Surroundings, Wired, Work};
use alarm::Alarm;
use registers::Pl031;

/// One clock, and when its alarm may ring.
#[derive(Debug)]
pub struct Clock {
    registers: Wired<Pl031>,
    alarm: Alarm,
}

impl Clock {
    /// Returns the seconds since 1970 that it shows.
    pub fn seconds(&self, around: &impl Surroundings) -> u32 {
        let now_ns = around.now_ns();
        self.registers.0.lock().seconds(now_ns)
    }

    /// Sets it to so many seconds since 1970, as EFI's SetTime does; returns what else is to be done, since its alarm moves with it.
    pub fn set_seconds(&self, seconds: u32, around: &mut impl Surroundings) -> Option<Work> {
        self.change(around, |clock, now_ns| clock.set_seconds(seconds, now_ns))
    }

    /// Changes the registers at a time; the CPU that looks after the alarm is told if it has come nearer.
    fn change(
        &self,
        around: &mut impl Surroundings,
        work: impl FnOnce(&mut Pl031, u64),
    ) -> Option<Work> {
        let now_ns = around.now_ns();
        let alarm_ns = self.registers.with(around, |clock| {
            work(clock, now_ns);
            clock.alarm_ns()
        });
        self.alarm.set(alarm_ns, now_ns).then_some(Work::Attend)
    }
}

impl Device for Clock {
    fn new(parts: &Parts) -> Self {
        Self {
            registers: Wired::new(Pl031::new(parts.wall_clock_s)),
            alarm: Alarm::new(),
        }
    }

    fn read(&self, access: Access, around: &mut impl Surroundings) -> Result<u64, Work> {
        let (Access { offset, width }, now_ns) = (access, around.now_ns());
        let read = |clock: &mut Pl031| clock.read(offset, width, now_ns);
        Ok(self.registers.with(around, read))
    }

    fn write(&self, access: Access, value: u64, around: &mut impl Surroundings) -> Option<Work> {
        let Access { offset, width } = access;
        self.change(around, |clock, now_ns| {
            clock.write(offset, width, value, now_ns);
        })
    }

    /// Rings if it is time.
    fn attend(&self, around: &mut impl Surroundings) -> Option<u64> {
        if self.alarm.look_ns().is_some() {
            let now_ns = around.now_ns();
            if self.alarm.take_due(now_ns) {
                // A vCPU that sets an alarm after this look sees that it is earlier, and asks again.
                let _earlier = self.change(around, Pl031::ring_if_due);
            }
        }
        self.alarm.look_ns()
    }

    fn reset(&self) {
        self.registers.0.lock().reset();
        self.alarm.forget();
    }
}
