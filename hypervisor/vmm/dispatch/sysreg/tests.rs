//! Every row of the table, and everything that is in none.

use super::{MDSCR_TDCC, ROWS, Rule, access};
use crate::dispatch::inject::Exception;
use crate::dispatch::slow::Next;
use crate::exit::{Syndrome, SystemAccess, class, system_register};
use crate::features::{ID_REGISTERS, Lent};
use crate::vm::tests::fixture::{Bench, vm_on};
use vgic::IntId;

fn trapped(bench: &mut Bench, register: u32, rt: u32, read: bool) -> Next {
    let iss = u64::from(register | rt << 5 | u32::from(read));
    let syndrome = Syndrome::new(class::SYSTEM << 26 | 1 << 25 | iss);
    bench.trap(|trap, context| access(trap, context, syndrome))
}

const UNDEFINED: Next = Next::Inject(Exception::undefined());

#[test]
fn every_row_reads_and_writes_as_it_says() {
    for row in ROWS {
        let mut bench = Bench::new();
        let before = bench.registers(&[]);
        let next = trapped(&mut bench, row.register, 4, true);
        let expected = match row.rule {
            Rule::Zero | Rule::PmuUser => Some(0),
            Rule::Value(value) => Some(value),
            Rule::SgiGroup0
            | Rule::Deactivate
            | Rule::SetWay
            | Rule::Lend(_)
            | Rule::DebugControl => None,
        };
        match expected {
            Some(value) => assert_eq!((next, bench.context.frame.x[4]), (Next::Advance, value)),
            None => {
                let expected = match row.rule {
                    Rule::Lend(unit) => Next::Lend(unit),
                    Rule::DebugControl => Next::Lend(Lent::DEBUG),
                    _ => UNDEFINED,
                };
                assert_eq!((next, bench.context.frame.x), (expected, before.x));
            }
        }
        bench.registers(&[]);
        let next = trapped(&mut bench, row.register, 4, false);
        let expected = match row.rule {
            Rule::DebugControl => Next::Lend(Lent::DEBUG),
            Rule::PmuUser => Next::Lend(Lent::PMU),
            Rule::Lend(unit) => Next::Lend(unit),
            Rule::SetWay => Next::CleanMemory(before.x[4]),
            _ => Next::Advance,
        };
        assert_eq!(
            (next, bench.context.frame.x),
            (expected, before.x),
            "{:#x}",
            row.register
        );
    }
}

#[test]
fn rows_do_not_hide_each_other() {
    for (n, row) in ROWS.iter().enumerate() {
        let first = ROWS
            .iter()
            .position(|other| row.register & other.mask == other.register);
        assert_eq!(first, Some(n), "{:#x}", row.register);
        assert_eq!(row.register & !row.mask, 0, "a bit that can't match");
    }
}

#[test]
fn what_is_in_no_row_is_undefined() {
    let mut bench = Bench::new();
    let before = bench.registers(&[]);
    let all = (1..4).flat_map(|op0| (0..1 << 14).map(move |rest| (op0, rest)));
    for (op0, rest) in all {
        let register = system_register(op0, rest >> 11, rest >> 7 & 15, rest >> 3 & 15, rest & 7);
        if ROWS.iter().any(|row| register & row.mask == row.register) {
            continue;
        }
        for read in [true, false] {
            assert_eq!(
                trapped(&mut bench, register, 2, read),
                UNDEFINED,
                "{register:#x}"
            );
        }
    }
    assert_eq!(bench.context.frame.x, before.x);
    assert_eq!(SystemAccess::REGISTER, system_register(3, 7, 15, 15, 7));
}

#[test]
fn a_cpu_that_comes_online_writes_debug_control_without_using_debug() {
    const MDSCR: u32 = system_register(2, 0, 0, 2, 2);
    let mut bench = Bench::new();
    for (value, next) in [
        (MDSCR_TDCC, Next::LoadDebug),
        (0, Next::LoadDebug),
        (1, Next::Lend(Lent::DEBUG)),
        (1 << 15 | 1 << 13, Next::Lend(Lent::DEBUG)),
    ] {
        bench.registers(&[value]);
        assert_eq!(trapped(&mut bench, MDSCR, 0, false), next, "{value:#x}");
        if next == Next::LoadDebug {
            assert_eq!(bench.context.system.mdscr_el1, value);
        }
    }
    // What it holds is in the hardware, and read there.
    let next = trapped(&mut bench, MDSCR, 3, true);
    assert_eq!(next, Next::Lend(Lent::DEBUG));
}

#[test]
fn a_group_0_sgi_reaches_only_who_has_it_in_group_0() {
    const SGI0R: u32 = system_register(3, 0, 12, 11, 7);
    let mut bench = Bench::new();
    bench.registers(&[7 << 24 | 0b110]);
    let group0 = bench.vm.vcpus[1].gic.lock().is_group0(IntId::private(7));
    assert!(group0, "everything is in group 0 after a reset");
    // vCPU 2 moves it to group 1.
    let mut gic = bench.vm.vcpus[2].gic.lock();
    let (offset, width) = (0x1_0080, types::access::AccessWidth::Word);
    let _effect = vgic::v3::redistributor::write_remote(&mut gic, offset, width, 1 << 7);
    drop(gic);
    assert_eq!(trapped(&mut bench, SGI0R, 0, false), Next::Advance);
    assert_eq!(bench.kicked(), [1]);
    assert!(!bench.vm.vcpus[1].inbox.is_empty() && bench.vm.vcpus[2].inbox.is_empty());
}

#[test]
fn a_pmu_is_used_by_whoever_means_it_and_only_once() {
    let pmuserenr = system_register(3, 3, 9, 14, 0);
    let registers = [
        ("PMCR_EL0", system_register(3, 3, 9, 12, 0)),
        ("PMCNTENCLR_EL0", system_register(3, 3, 9, 12, 2)),
        ("PMCEID1_EL0", system_register(3, 3, 9, 12, 7)),
        ("PMCCNTR_EL0", system_register(3, 3, 9, 13, 0)),
        ("PMOVSSET_EL0", system_register(3, 3, 9, 14, 3)),
        ("PMINTENSET_EL1", system_register(3, 0, 9, 14, 1)),
        ("PMEVCNTR0_EL0", system_register(3, 3, 14, 8, 0)),
        ("PMCCFILTR_EL0", system_register(3, 3, 14, 15, 7)),
    ];
    let mut bench = Bench::on(vm_on(&[0; ID_REGISTERS], 1), 0);
    for (name, register) in registers {
        for read in [true, false] {
            let next = trapped(&mut bench, register, 4, read);
            assert_eq!(next, UNDEFINED, "{name} where there is no PMU");
        }
    }
    let mut bench = Bench::new();
    for (name, register) in registers {
        for read in [true, false] {
            assert_eq!(
                trapped(&mut bench, register, 4, read),
                Next::Lend(Lent::PMU),
                "{name}"
            );
        }
    }
    // What every Linux writes, a look at it, and a guest that opens the PMU to its processes.
    bench.context.frame.x[4] = 0;
    bench.context.frame.x[5] = 1;
    assert_eq!(trapped(&mut bench, pmuserenr, 4, false), Next::Advance);
    assert_eq!(
        trapped(&mut bench, pmuserenr, 5, false),
        Next::Lend(Lent::PMU)
    );
    assert_eq!(trapped(&mut bench, pmuserenr, 5, true), Next::Advance);
    assert_eq!(bench.context.frame.x[5], 0);
    // A trap after the vCPU was given the PMU would be taken for ever.
    bench.context.lent = Lent::PMU;
    for (name, register) in registers {
        assert_eq!(trapped(&mut bench, register, 4, true), UNDEFINED, "{name}");
    }
}

#[test]
fn breakpoints_are_lent_whole_and_only_once() {
    let mut bench = Bench::new();
    bench.context.lent = Lent::PMU;
    for number in [0, 5, 15] {
        for op2 in 4..8 {
            let register = system_register(2, 0, 0, number, op2);
            bench.context.lent = Lent::PMU;
            for read in [true, false] {
                let next = trapped(&mut bench, register, 31, read);
                assert_eq!(next, Next::Lend(Lent::DEBUG), "{number} {op2}");
            }
            bench.context.lent = Lent::DEBUG;
            assert_eq!(trapped(&mut bench, register, 4, true), UNDEFINED);
        }
    }
    // The locks, the channel and the claim tags of a debugger are lent to no guest.
    for register in [
        system_register(2, 0, 1, 0, 4),
        system_register(2, 0, 1, 3, 4),
        system_register(2, 3, 0, 5, 0),
        system_register(2, 0, 7, 8, 6),
    ] {
        assert_eq!(trapped(&mut bench, register, 4, false), Next::Advance);
    }
}
