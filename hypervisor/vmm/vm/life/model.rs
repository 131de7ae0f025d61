//! A VM that ends while its vCPUs come and go: every interleaving of the CPUs that have them, those that end it, and its manager.
//!
//! [`Life`] is the shipped one; what stands around it says whose code it follows. Flags that several write are swapped: loom lets a store
//! and a swap of another thread pass each other.

extern crate std;

use super::{Cause, Life, Phase};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use sequential::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::vec::Vec;

/// Atomics whose accesses all have a place in one order, as the shipped ones: loom gives accesses no more than acquire and release.
pub(super) mod sequential {
    use loom::sync::atomic::{Ordering, fence};

    macro_rules! sequential {
        ($($name:ident $value:ty),+) => {
            $(
                #[derive(Debug, Default)]
                pub(in super::super) struct $name(loom::sync::atomic::$name);

                impl $name {
                    fn access<R>(&self, order: Ordering, access: impl FnOnce(&loom::sync::atomic::$name) -> R) -> R {
                        assert_eq!(order, Ordering::SeqCst);
                        fence(order);
                        let result = access(&self.0);
                        fence(order);
                        result
                    }

                    pub(in super::super) fn load(&self, order: Ordering) -> $value {
                        self.access(order, |it| it.load(order))
                    }
                }
            )+
        };
    }

    sequential!(AtomicBool bool, AtomicU32 u32, AtomicU64 u64);

    impl AtomicBool {
        pub(in super::super) fn store(&self, value: bool, order: Ordering) {
            self.access(order, |it| it.store(value, order));
        }

        pub(in super::super) fn swap(&self, value: bool, order: Ordering) -> bool {
            self.access(order, |it| it.swap(value, order))
        }
    }

    impl AtomicU32 {
        pub(in super::super) fn fetch_add(&self, value: u32, order: Ordering) -> u32 {
            self.access(order, |it| it.fetch_add(value, order))
        }

        pub(in super::super) fn fetch_sub(&self, value: u32, order: Ordering) -> u32 {
            self.access(order, |it| it.fetch_sub(value, order))
        }

        pub(in super::super) fn fetch_update(
            &self,
            set: Ordering,
            fetch: Ordering,
            update: impl FnMut(u32) -> Option<u32>,
        ) -> Result<u32, u32> {
            self.access(set, |it| it.fetch_update(set, fetch, update))
        }
    }

    impl AtomicU64 {
        pub(in super::super) fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
            self.access(order, |it| it.fetch_max(value, order))
        }
    }
}

/// What one vCPU is told, and what its CPU has of it.
#[derive(Default)]
struct Vcpu {
    is_requested: AtomicBool,
    is_owned: AtomicBool,
    is_woken: AtomicBool,
    /// Its registers: loom fails if two touch them and neither knows that the other has.
    registers: UnsafeCell<()>,
}

/// What a CPU knows of the vCPU that it has a place for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    owns: bool,
    is_on: bool,
}

/// A VM, each of whose vCPUs has a CPU, and its manager.
struct World {
    life: Life,
    vcpus: Vec<Vcpu>,
    is_asked: AtomicBool,
}

impl World {
    /// A VM that runs.
    fn running(vcpus: usize) -> Arc<Self> {
        let world = Self {
            life: Life::default(),
            vcpus: (0..vcpus).map(|_| Vcpu::default()).collect(),
            is_asked: AtomicBool::default(),
        };
        assert!(world.life.start() && world.life.started());
        Arc::new(world)
    }

    fn is_leaving(&self) -> bool {
        matches!(self.life.phase(), Phase::Stopping | Phase::Resetting)
    }

    /// As `Vms::last_left`.
    fn last_left(&self) {
        if self.is_leaving() {
            self.is_asked.swap(true, SeqCst);
        }
    }

    /// As `Vm::disown` and `Pcpu::disown`.
    fn disown(&self, vcpu: &Vcpu) {
        vcpu.is_owned.store(false, SeqCst);
        if self.life.disown() {
            self.last_left();
        }
    }

    /// As `Pcpu::attach`, `start` and `begin`: takes a vCPU's registers over and lets it run.
    fn come(&self, index: usize) -> Held {
        let vcpu = &self.vcpus[index];
        vcpu.is_owned.store(true, SeqCst);
        if !self.life.own() {
            self.disown(vcpu);
            return Held::default();
        }
        vcpu.registers.with_mut(|_| ());
        if self.is_leaving() {
            self.disown(vcpu);
            return Held::default();
        }
        let is_on = self.life.attach();
        if !is_on && self.life.detach() {
            self.last_left();
        }
        Held { owns: true, is_on }
    }

    /// As the CPU that was kicked, `Pcpu::handle_requests` and `let_go`.
    fn look(&self, index: usize, held: Held) -> Held {
        let vcpu = &self.vcpus[index];
        if !held.owns || !vcpu.is_woken.swap(false, SeqCst) {
            return held;
        }
        vcpu.is_requested.swap(false, SeqCst);
        if !self.is_leaving() {
            return held;
        }
        vcpu.registers.with_mut(|_| ());
        if held.is_on {
            let _last = self.life.detach();
        }
        self.disown(vcpu);
        Held::default()
    }

    /// As `Vms::leave`, with `Vm::request_all`.
    fn leave(&self) {
        for vcpu in &self.vcpus {
            vcpu.is_requested.swap(true, SeqCst);
            if vcpu.is_owned.load(SeqCst) {
                vcpu.is_woken.swap(true, SeqCst);
            }
        }
        if self.life.is_left() {
            self.is_asked.swap(true, SeqCst);
        }
    }

    fn stop(&self) -> bool {
        let ends = self.life.stop(Cause::Operator);
        if ends {
            self.leave();
        }
        ends
    }

    fn reset(&self) -> bool {
        let ends = self.life.reset(Cause::Guest);
        if ends {
            self.leave();
        }
        ends
    }

    /// As `Vms::continue_lifecycle` on the manager's CPU, if it is asked: puts all back, once no CPU has any of it; returns whether it has.
    fn manage(&self) -> bool {
        let ends = self.is_asked.swap(false, SeqCst) && self.is_leaving() && self.life.is_left();
        if ends {
            for vcpu in &self.vcpus {
                vcpu.registers.with_mut(|_| ());
                vcpu.is_requested.swap(false, SeqCst);
            }
            self.life.left();
        }
        ends
    }

    /// What is left to do when all threads are over: CPUs that were woken look, and the manager goes on if it is asked.
    fn settle(&self, held: &mut [Held]) -> usize {
        let mut ends = 0;
        for _ in 0..2 {
            for (index, held) in held.iter_mut().enumerate() {
                *held = self.look(index, *held);
            }
            ends += usize::from(self.manage());
        }
        ends
    }
}

fn spawn<R: 'static>(
    world: &Arc<World>,
    work: impl FnOnce(&World) -> R + 'static,
) -> thread::JoinHandle<R> {
    let world = world.clone();
    thread::spawn(move || work(&world))
}

#[test]
fn a_vcpu_that_comes_while_its_vm_is_stopped_is_waited_for() {
    loom::model(|| {
        let world = World::running(1);
        let cpu = spawn(&world, |world| world.come(0));
        let operator = spawn(&world, World::stop);
        let early = world.manage();
        assert!(operator.join().unwrap());
        let mut held = [cpu.join().unwrap()];
        let ends = world.settle(&mut held) + usize::from(early);
        assert_eq!((ends, world.life.phase()), (1, Phase::Off));
        assert_eq!(held, [Held::default()]);
        assert!(world.life.is_left());
    });
}

#[test]
fn the_last_of_a_vms_cpus_tells_its_manager() {
    loom::model(|| {
        let world = World::running(2);
        let held = [world.come(0), world.come(1)];
        assert!(world.stop());
        let [first, second] = held;
        let one = spawn(&world, move |world| world.look(0, first));
        let other = spawn(&world, move |world| world.look(1, second));
        let early = world.manage();
        let mut held = [one.join().unwrap(), other.join().unwrap()];
        let ends = world.settle(&mut held) + usize::from(early);
        assert_eq!((ends, world.life.phase()), (1, Phase::Off));
    });
}

#[test]
fn of_two_that_end_a_vm_one_does_and_its_cause_is_told() {
    loom::model(|| {
        let world = World::running(1);
        let held = world.come(0);
        let operator = spawn(&world, World::stop);
        let guest = spawn(&world, World::reset);
        let held = world.look(0, held);
        let (stopped, reset) = (operator.join().unwrap(), guest.join().unwrap());
        assert!(stopped ^ reset);
        let mut held = [held];
        assert_eq!(world.settle(&mut held), 1);
        let (phase, cause) = match stopped {
            true => (Phase::Off, Cause::Operator),
            false => (Phase::Starting, Cause::Guest),
        };
        assert_eq!((world.life.phase(), world.life.cause()), (phase, cause));
        if reset {
            // Its next life finds all of it free.
            assert!(world.life.started());
            let on = Held {
                owns: true,
                is_on: true,
            };
            assert_eq!(world.come(0), on);
        }
    });
}
