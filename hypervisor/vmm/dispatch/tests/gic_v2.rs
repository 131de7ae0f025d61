//! A GICv2's guest: what it does to the distributor and to the part of the CPU interface that traps.

use core::sync::atomic::Ordering;
use types::layout::GicVersion;
use vgic::{ListRegister, ListRegisters, LrState};

use super::Access;
use crate::dispatch::hot::{DataAbort, Hot, mmio};
use crate::exit::{Abort, Syndrome};
use crate::features::ID_REGISTERS;
use crate::vm::tests::fixture::{At, Bench, vm, vm_with};
use types::stats::ExitReason;

const GICD: u64 = 0x0800_0000;
const GICC: u64 = 0x0801_0000;
const CTLR: u64 = 0;
const ISENABLER: u64 = 0x100;
const ITARGETSR: u64 = 0x800;
const SGIR: u64 = 0xf00;
const GICC_DIR: u64 = 0x1000;

fn bench(index: u16) -> Bench {
    let vm = vm_with(GicVersion::V2, &[0x1111_1111_1111_1111; ID_REGISTERS], 4);
    let mut bench = Bench::on(vm, index);
    write(&mut bench, GICD + CTLR, 1);
    bench
}

/// Accesses a word; returns how it goes on, as what it counts, and what was read.
fn word(bench: &mut Bench, address: u64, value: Option<u32>) -> (Hot, ExitReason, u64) {
    bench.registers(&[value.map_or(u64::MAX, u64::from)]);
    let access = Access {
        sas: 2,
        rt: 0,
        write: value.is_some(),
    };
    let iss = Abort::new(Syndrome::new(access.iss()));
    let abort = DataAbort { iss, address };
    let (hot, reason) =
        bench.trap(|trap, context| mmio(trap, &mut context.frame, abort, &At(0), drop));
    (hot, reason, bench.context.frame.x[0])
}

fn write(bench: &mut Bench, address: u64, value: u32) {
    let (hot, reason, _) = word(bench, address, Some(value));
    assert_eq!((hot, reason), (Hot::Advance, ExitReason::Distributor));
}

fn read(bench: &mut Bench, address: u64) -> u64 {
    let (hot, reason, value) = word(bench, address, None);
    assert_eq!((hot, reason), (Hot::Advance, ExitReason::Distributor));
    value
}

/// What is in the list registers: number, sender and state.
fn listed(bench: &Bench) -> alloc::vec::Vec<(u32, u8, LrState)> {
    let lists = (0..bench.lists.count()).map(|n| bench.lists.read(n));
    lists
        .filter(|list| !list.is_inactive())
        .map(|list| (list.intid(), list.source(), list.state()))
        .collect()
}

#[test]
fn an_sgi_arrives_with_its_sender() {
    let mut sender = bench(2);
    let mut receivers = [1, 3].map(|index| Bench::on(sender.vm, index));
    for receiver in &mut receivers {
        // They run, and have heard that the distributor was turned on.
        receiver.trap(|trap, _| trap.deliver());
        receiver.vcpu.at.loaded.store(true, Ordering::SeqCst);
    }
    write(&mut sender, GICD + SGIR, 0b1010 << 16 | 5);
    assert_eq!(sender.kicked(), [1, 3]);
    assert_eq!(listed(&sender), []);
    let [receiver, _] = &mut receivers;
    receiver.trap(|trap, _| trap.deliver());
    assert_eq!(listed(receiver), [(5, 2, LrState::Pending)]);
}

#[test]
fn an_sgi_to_oneself_is_there_at_once() {
    let mut bench = bench(1);
    write(&mut bench, GICD + SGIR, 2 << 24 | 9);
    assert_eq!(listed(&bench), [(9, 1, LrState::Pending)]);
}

#[test]
fn private_registers_are_those_of_the_vcpu_that_asks() {
    let mut first = bench(0);
    write(&mut first, GICD + ISENABLER, 1 << 27);
    assert_eq!(read(&mut first, GICD + ISENABLER), 1 << 27 | 0xffff);
    assert_eq!(read(&mut first, GICD + ITARGETSR), 0x0101_0101);
    let mut second = Bench::on(first.vm, 1);
    assert_eq!(read(&mut second, GICD + ISENABLER), 0xffff);
    assert_eq!(read(&mut second, GICD + ITARGETSR), 0x0202_0202);
}

#[test]
fn a_write_of_gicc_dir_ends_what_is_active() {
    let mut bench = bench(0);
    write(&mut bench, GICD + ISENABLER, 1 << 27);
    bench.trap(|trap, _| crate::dispatch::hot::raise(trap, 27, 30));
    let list = bench.lists.read(0);
    assert!(list.is_hardware() && list.intid() == 27);
    bench.lists.write(0, list.acknowledged());
    let owed = {
        bench.registers(&[27]);
        let iss = Access {
            sas: 2,
            rt: 0,
            write: true,
        };
        let iss = Abort::new(Syndrome::new(iss.iss()));
        let address = GICC + GICC_DIR;
        bench.trap(|trap, context| {
            let abort = DataAbort { iss, address };
            let (hot, _) = mmio(trap, &mut context.frame, abort, &At(0), drop);
            assert_eq!(hot, Hot::Advance);
            trap.owed
        })
    };
    assert_eq!(owed, 1 << 27, "the physical interrupt is to be ended too");
    assert_eq!(listed(&bench), []);
    // Of one that is not active, and of one that there is not, nothing comes.
    write(&mut bench, GICC + GICC_DIR, 3 << 10 | 5);
    write(&mut bench, GICC + GICC_DIR, 1023);
    assert_eq!(read(&mut bench, GICC + GICC_DIR), 0);
    assert_eq!(bench.lists.read(0).state(), ListRegister::EMPTY.state());
}

#[test]
fn each_version_has_its_own_frames() {
    let mut second = bench(0);
    let redistributor = word(&mut second, 0x080a_0000, None);
    assert_eq!(redistributor.0, Hot::Leave);
    let mut third = Bench::on(vm(4), 0);
    assert_eq!(word(&mut third, GICC + GICC_DIR, Some(0)).0, Hot::Leave);
    assert_eq!(read(&mut third, GICD + ITARGETSR), 0);
}
