//! A vCPU that moves while it is told something: every interleaving of the teller, the old CPU and the new one.

extern crate std;

use super::{PcpuId, Placement, PlacementCell, Slot};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering, fence};
use loom::thread;

const CPUS: usize = 2;

/// One vCPU, its inbox, and what its two CPUs were told.
#[derive(Default)]
struct World {
    at: PlacementCell,
    /// Its registers: loom fails if two CPUs touch them and neither knows that the other has.
    registers: UnsafeCell<()>,
    inbox: AtomicBool,
    taken: AtomicBool,
    wakes: [AtomicBool; CPUS],
    kicks: [AtomicBool; CPUS],
}

fn place(pcpu: usize) -> Placement {
    Placement::new(PcpuId::new(pcpu as u16), Slot::new(7).unwrap())
}

/// Loom gives accesses no more than acquire and release; what the shipped ones have beyond that is a fence here.
fn sequentially() {
    fence(Ordering::SeqCst);
}

impl World {
    fn wake(&self) {
        let cpu = self.at.placement().pcpu().index();
        self.wakes[cpu].swap(true, Ordering::SeqCst);
        self.kicks[cpu].store(true, Ordering::SeqCst);
    }

    /// As `Inbox::post` and `Vcpu::notify`.
    fn tell(&self) {
        self.inbox.swap(true, Ordering::SeqCst);
        sequentially();
        if self.at.loaded.load(Ordering::SeqCst) {
            let cpu = self.at.placement().pcpu().index();
            self.kicks[cpu].store(true, Ordering::SeqCst);
        } else {
            self.wake();
        }
    }

    fn look(&self) {
        sequentially();
        if self.inbox.load(Ordering::SeqCst) && self.inbox.swap(false, Ordering::SeqCst) {
            self.taken.store(true, Ordering::SeqCst);
        }
    }

    /// As the CPU where it is: unload, look, let go, move, tell the new one.
    fn give_up(&self) {
        self.at.loaded.store(false, Ordering::SeqCst);
        self.look();
        self.registers.with_mut(|_| ());
        assert_eq!(self.at.leave(), Some(place(0)));
        sequentially();
        self.wake();
    }

    /// As the CPU where it goes: load it when told, and look.
    fn arrive(&self, cpu: usize) {
        if self.wakes[cpu].swap(false, Ordering::SeqCst) && self.at.placement() == place(cpu) {
            self.registers.with_mut(|_| ());
            self.at.loaded.store(true, Ordering::SeqCst);
            self.look();
        }
    }
}

#[test]
fn a_message_to_a_vcpu_that_moves_is_seen() {
    loom::model(|| {
        let world = Arc::new(World::default());
        assert!(world.at.change_pending(Placement::NOWHERE, place(0)));
        assert_eq!(world.at.leave(), Some(Placement::NOWHERE));
        world.at.loaded.store(true, Ordering::SeqCst);
        assert!(world.at.change_pending(Placement::NOWHERE, place(1)));
        let run = |work: fn(&World)| {
            let world = world.clone();
            thread::spawn(move || work(&world))
        };
        let all = [
            run(World::tell),
            run(World::give_up),
            run(|world| world.arrive(1)),
        ];
        for thread in all {
            thread.join().unwrap();
        }
        // What the new CPU does when it next looks: at the vCPU it was pointed at, and for a kick at the one that is loaded.
        world.arrive(1);
        if world.kicks[1].load(Ordering::SeqCst) && world.at.loaded.load(Ordering::SeqCst) {
            world.look();
        }
        assert!(world.taken.load(Ordering::SeqCst), "lost");
    });
}
