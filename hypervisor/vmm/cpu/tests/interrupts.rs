//! Interrupts of a vCPU that is not loaded, or off, or elsewhere: each arrives, and the physical one behind it fires again.

use super::fake::guest::{self, VIRTUAL_PPI};
use super::fake::{Act, System};
use super::rounds;

const OPEN: Act = Act::Settled(guest::open);
const FIRE: Act = Act::Settled(guest::fire);
const ACKNOWLEDGE: Act = Act::Settled(guest::acknowledge);
const END: Act = Act::Settled(guest::end);
/// Longer than a slice.
const LONG: Act = Act::Spin(2_000_000);

#[test]
fn a_timers_interrupt_waits_for_its_vcpu_while_another_has_the_cpu() {
    // Pending, or acknowledged.
    for before in [LONG, ACKNOWLEDGE] {
        let system = System::new();
        let (vm, mut cpu) = (system.vm(2, 2, 0), system.cpu(0));
        system.does((0, 0), &[OPEN, FIRE, before, LONG, ACKNOWLEDGE, END]);
        // The other one's timer fires too: it is the same physical interrupt.
        system.does((0, 1), &[OPEN, FIRE, LONG, LONG, ACKNOWLEDGE, END, FIRE]);
        for vcpu in [0, 1] {
            system.turn_on(vm, vcpu);
        }
        rounds(&mut cpu, 60);
        assert_eq!(cpu.machine.ended(), [VIRTUAL_PPI, VIRTUAL_PPI]);
    }
}

#[test]
fn a_timers_interrupt_goes_with_its_vcpu_to_another_cpu() {
    let system = System::new();
    let (vm, mut zero, mut one) = (system.vm(2, 2, 0), system.cpu(0), system.cpu(1));
    system.does((0, 1), &[OPEN, FIRE]);
    system.turn_on(vm, 1);
    rounds(&mut zero, 3);
    assert!(system.migrate(vm, 1, 1));
    rounds(&mut zero, 4);
    system.does((0, 1), &[ACKNOWLEDGE, END]);
    rounds(&mut one, 6);
    assert_eq!(one.machine.ended(), [VIRTUAL_PPI]);
    // The CPU it came from can have a timer's interrupt again.
    system.does((0, 0), &[OPEN, FIRE, ACKNOWLEDGE, END]);
    system.turn_on(vm, 0);
    rounds(&mut zero, 6);
    assert_eq!(zero.machine.ended(), [VIRTUAL_PPI]);
}

#[test]
fn a_vcpu_that_turns_itself_off_leaves_no_physical_interrupt_active() {
    for before in [FIRE, ACKNOWLEDGE, END] {
        let system = System::new();
        let (vm, mut cpu) = (system.vm(2, 2, 0), system.cpu(0));
        system.does((0, 0), &[OPEN, FIRE, before, Act::Off]);
        system.turn_on(vm, 0);
        rounds(&mut cpu, 6);
        system.does((0, 1), &[OPEN, FIRE, ACKNOWLEDGE, END, LONG]);
        system.turn_on(vm, 1);
        rounds(&mut cpu, 10);
        assert_eq!(cpu.machine.ended().last(), Some(&VIRTUAL_PPI));
        // It comes back to an interrupt that it may have left.
        system.does((0, 0), &[ACKNOWLEDGE, END, FIRE, ACKNOWLEDGE, END, LONG]);
        let ended = cpu.machine.ended().len();
        system.turn_on(vm, 0);
        rounds(&mut cpu, 20);
        assert!(cpu.machine.ended().len() > ended);
    }
}

#[test]
fn an_sgi_to_a_vcpu_that_is_off_is_there_when_it_is_turned_on() {
    // While its CPU keeps its registers, and while another vCPU has the CPU.
    for cpu_of_next in [1, 0] {
        let system = System::new();
        let (vm, mut zero, mut one) = (system.vm(2, 2, 0), system.cpu(0), system.cpu(1));
        if cpu_of_next == 1 {
            assert!(system.migrate(vm, 1, 1));
            rounds(&mut zero, 1);
            rounds(&mut one, 1);
        }
        let send = [
            OPEN,
            Act::Settled(guest::open_next),
            Act::Settled(guest::send_next),
            LONG,
        ];
        system.does((0, 0), &send);
        system.turn_on(vm, 0);
        rounds(&mut zero, 4);
        rounds(&mut one, 2);
        let next = if cpu_of_next == 1 {
            &mut one
        } else {
            &mut zero
        };
        assert!(next.machine.ended().is_empty(), "it is off");
        system.does((0, 1), &[ACKNOWLEDGE, END, LONG]);
        system.turn_on(vm, 1);
        rounds(next, 8);
        assert_eq!(next.machine.ended(), [3], "on CPU {cpu_of_next}");
    }
}
