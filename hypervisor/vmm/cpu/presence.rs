//! Whether a host CPU runs, is off, or is being turned on again: one word for each CPU.
//!
//! A CPU that has nothing but vCPUs in reserve turns itself off while another may be offering it one. It says that it leaves and then
//! looks for work; the other notes the work and then looks whether the CPU has left. Model-checked by loom (`model`).

#[cfg(not(all(loom, test)))]
use core::sync::atomic::{AtomicU8, fence};
#[cfg(all(loom, test))]
use loom::sync::atomic::{AtomicU8, fence};

use core::sync::atomic::Ordering;

/// It has never come, or the firmware failed to turn it on again.
const ABSENT: u8 = 0;
const ON: u8 = 1;
/// It is off, or on its way there, and no CPU is turning it on.
const OFF: u8 = 2;
/// Another CPU turns it on, or waits until it has left to do so.
const COMING: u8 = 3;

/// Whether one host CPU runs.
#[derive(Debug, Default)]
pub struct Presence(AtomicU8);

impl Presence {
    /// A CPU that has not come yet.
    #[cfg(not(all(loom, test)))]
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU8::new(ABSENT))
    }

    /// The CPU runs: it has come for the first time, or come back.
    pub fn come(&self) {
        self.0.store(ON, Ordering::SeqCst);
    }

    /// The CPU is about to turn itself off; what was offered to it before [`Presence::claim`] is seen after this.
    pub fn leave(&self) {
        self.0.store(OFF, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The CPU has found work and would stay; false if another is turning it on already, and waits until it has left.
    #[must_use]
    pub fn stay(&self) -> bool {
        self.change(OFF, ON)
    }

    /// Takes it on oneself to turn the CPU on, after it was offered work; false if it is not off, or another does so.
    #[must_use]
    pub fn claim(&self) -> bool {
        fence(Ordering::SeqCst);
        self.change(OFF, COMING)
    }

    /// The firmware did not turn the CPU on again, unless it has come at last.
    pub fn lose(&self) {
        let _ = self.change(COMING, ABSENT);
    }

    /// Returns whether the CPU is off, or on its way there, and no CPU is turning it on.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.0.load(Ordering::SeqCst) == OFF
    }

    /// Returns whether the CPU runs, or would if it had anything to do.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.load(Ordering::SeqCst) != ABSENT
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.0
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Presence;

    #[test]
    fn a_cpu_is_there_from_its_coming_on_whatever_it_does() {
        let cpu = Presence::new();
        assert!(!cpu.is_there() && !cpu.is_off() && !cpu.claim(), "not yet");
        cpu.come();
        assert!(cpu.is_there() && !cpu.is_off());
        cpu.leave();
        assert!(cpu.is_there() && cpu.is_off());
        assert!(cpu.claim(), "the first that asks turns it on");
        assert!(cpu.is_there(), "while it comes it is there too");
        assert!(!cpu.is_off() && !cpu.claim(), "and only the first");
        assert!(!cpu.stay(), "it leaves, for another waits for that");
        cpu.come();
        cpu.leave();
        assert!(cpu.stay() && cpu.is_there() && !cpu.is_off());
    }

    #[test]
    fn a_cpu_that_the_firmware_lost_is_not_there() {
        let cpu = Presence::new();
        cpu.come();
        cpu.leave();
        assert!(cpu.claim());
        cpu.lose();
        assert!(!cpu.is_there() && !cpu.claim());
        cpu.come();
        assert!(cpu.is_there(), "late, but it has come");
        cpu.lose();
        assert!(cpu.is_there(), "another gives up on it too late");
    }
}

#[cfg(all(loom, test))]
mod model {
    use super::Presence;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, Ordering};
    use loom::thread;

    #[test]
    fn a_cpu_that_is_offered_work_stays_or_is_turned_on() {
        loom::model(|| {
            let cpu = Arc::new((Presence::default(), AtomicBool::new(false)));
            cpu.0.come();
            let offers: [_; 2] = core::array::from_fn(|_| {
                let cpu = Arc::clone(&cpu);
                thread::spawn(move || {
                    cpu.1.store(true, Ordering::Relaxed);
                    cpu.0.claim()
                })
            });
            cpu.0.leave();
            let left = !(cpu.1.load(Ordering::Relaxed) && cpu.0.stay());
            let claims = offers.map(|offer| u8::from(offer.join().expect("an offer")));
            let claims: u8 = claims.iter().sum();
            assert_eq!(claims, u8::from(left), "turned on once, if it has left");
        });
    }
}
