//! The lock for what CPUs share that run different VMs: those that wait get it in the order in which they came.
//!
//! EL2 runs with interrupts masked, so a CPU that waits for a lock runs no guest meanwhile. Under a test-and-set lock a guest that makes
//! its CPU take one again and again could keep another VM's CPU out without bound. With tickets a CPU waits for each other one once at
//! most. That costs more to take and to give back, so locks that only the CPUs of one VM meet at (`Vcpu::gic`, one device of a VM) stay
//! test-and-set: they lie on a trap's way.

use spin::Spin;
use spin::mutex::{TicketMutex, ticket::TicketMutexGuard};

/// A lock that is given to those that wait in the order in which they came.
pub type FairMutex<T, R = Spin> = TicketMutex<T, R>;

/// The lock of a [`FairMutex`] while it is held.
pub type FairMutexGuard<'a, T> = TicketMutexGuard<'a, T>;

#[cfg(test)]
mod tests {
    use super::FairMutex;
    use core::sync::atomic::{AtomicBool, Ordering};
    use spin::RelaxStrategy;
    use std::thread;

    static WAITS: AtomicBool = AtomicBool::new(false);
    static MAY_GO_ON: AtomicBool = AtomicBool::new(false);
    static LOCK: FairMutex<u32, Slow> = FairMutex::new(0);

    /// A CPU that has found the lock taken and is slow to look again.
    #[derive(Debug)]
    struct Slow;

    impl RelaxStrategy for Slow {
        fn relax() {
            WAITS.store(true, Ordering::Release);
            while !MAY_GO_ON.load(Ordering::Acquire) {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn a_cpu_that_gives_the_lock_back_does_not_get_it_before_one_that_waits() {
        thread::scope(|scope| {
            let held = LOCK.lock();
            let waiter = scope.spawn(|| *LOCK.lock() += 1);
            while !WAITS.load(Ordering::Acquire) {
                thread::yield_now();
            }
            drop(held);
            let overtaken = LOCK.try_lock().is_some();
            MAY_GO_ON.store(true, Ordering::Release);
            waiter.join().expect("the waiter");
            assert!(!overtaken, "however slow the one that waits is");
            assert_eq!(LOCK.try_lock().map(|count| *count), Some(1));
        });
    }
}
