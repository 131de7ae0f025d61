//! Interrupts of a vCPU in a trap: its timers', its devices', those that do not fit, and those that it ends by a trap.

use proptest::prelude::*;
use std::vec::Vec;
use types::devices::DeviceId;
use types::pl011;
use vgic::{IntId, ListRegister, ListRegisters};

use super::Access;
use crate::devices::Fed;
use crate::dispatch::hot::{DataAbort, Hot, mmio, raise, system};
use crate::exit::{Abort, Syndrome, class, system_register};
use crate::vm::Around;
use crate::vm::tests::fixture::{At, Bench};

const DISTRIBUTOR: u64 = 0x0800_0000;
const SGI_BASE: u64 = 0x080a_0000 + 0x1_0000;
const UART: u64 = 0x0900_0000;
const RTC: u64 = 0x0901_0000;
/// Registers of the clock (ARM DDI 0224, 3.2).
mod clock {
    pub(super) const DR: u64 = 0;
    pub(super) const MR: u64 = 4;
    pub(super) const IMSC: u64 = 0x10;
    pub(super) const MIS: u64 = 0x18;
    pub(super) const ICR: u64 = 0x1c;
}
const VIRTUAL_PPI: u32 = 27;
/// The physical interrupt behind it, which need not have the same number.
const PHYSICAL_PPI: u32 = 28;

/// Accesses a word at a time; returns how it goes on and what was read.
fn word(bench: &mut Bench, address: u64, value: Option<u64>, now_ns: u64) -> (Hot, u64) {
    bench.registers(&[value.unwrap_or(u64::MAX)]);
    let access = Access {
        sas: 2,
        rt: 0,
        write: value.is_some(),
    };
    let iss = Abort::new(Syndrome::new(access.iss()));
    let abort = DataAbort { iss, address };
    let (hot, _) =
        bench.trap(|trap, context| mmio(trap, &mut context.frame, abort, &At(now_ns), drop));
    (hot, bench.context.frame.x[0])
}

fn write(bench: &mut Bench, address: u64, value: u64) {
    assert_eq!(word(bench, address, Some(value), 0).0, Hot::Advance);
}

/// Enables the groups, and all private interrupts in group 1.
fn open(bench: &mut Bench) {
    write(bench, DISTRIBUTOR, 0x12);
    write(bench, SGI_BASE + 0x80, 0xffff_ffff);
    write(bench, SGI_BASE + 0x100, 0xffff_ffff);
}

/// Enables an SPI in group 1 for vCPU 0.
fn open_spi(bench: &mut Bench, intid: u32) {
    let (at, bit) = (u64::from(intid / 32) * 4, 1 << (intid % 32));
    write(bench, DISTRIBUTOR + 0x80 + at, bit);
    write(bench, DISTRIBUTOR + 0x100 + at, bit);
}

fn pending(bench: &Bench) -> Vec<u32> {
    let lists = (0..bench.lists.count()).map(|n| bench.lists.read(n));
    let pending = lists.filter(|list| list.is_pending());
    pending.map(ListRegister::intid).collect()
}

/// The guest acknowledges whatever is pending in the list registers, and ends it if it is to.
fn take(bench: &mut Bench, is_ended: bool) -> Vec<u32> {
    let mut taken = Vec::new();
    for n in 0..bench.lists.count() {
        let list = bench.lists.read(n);
        if list.is_pending() {
            let mut fields = list.fields();
            (fields.pending, fields.active) = (false, !is_ended);
            bench.lists.write(n, ListRegister::of(fields));
            taken.push(list.intid());
        }
    }
    taken
}

/// A byte arrives for the guest, which has asked to be interrupted by it.
fn receive(bench: &mut Bench) {
    write(bench, UART + pl011::CR, 0x301);
    write(bench, UART + pl011::IMSC, u64::from(pl011::INT_RT));
    assert!(pending(bench).is_empty());
    bench.trap(|trap, _| {
        let mut around = Around::new(trap.vm, DeviceId::Uart, &At(0), &mut trap.kicks);
        let fed = trap.vm.devices.uart.feed(&mut around, || Some(b'x'));
        assert_eq!(fed, Fed::Byte);
        trap.deliver();
    });
}

fn send_self(bench: &mut Bench, intid: u64) {
    bench.registers(&[intid << 24 | 1]);
    let register = u64::from(system_register(3, 0, 12, 11, 5));
    let syndrome = Syndrome::new(class::SYSTEM << 26 | register);
    let (hot, _) = bench.trap(|trap, context| system(trap, &mut context.frame, syndrome));
    assert_eq!(hot, Hot::Advance);
}

#[test]
fn a_timer_is_linked_to_its_physical_interrupt() {
    let mut bench = Bench::new();
    open(&mut bench);
    bench.trap(|trap, _| raise(trap, VIRTUAL_PPI, PHYSICAL_PPI));
    let list = bench.lists.read(0).fields();
    assert!(list.pending && list.hardware && list.group1);
    assert_eq!(
        (list.number, u32::from(list.link)),
        (VIRTUAL_PPI, PHYSICAL_PPI)
    );
}

#[test]
fn a_timer_that_the_guest_has_not_enabled_waits_until_it_does() {
    let mut bench = Bench::new();
    bench.trap(|trap, _| raise(trap, VIRTUAL_PPI, PHYSICAL_PPI));
    assert!(pending(&bench).is_empty());
    let gic = &bench.vcpu.gic;
    assert_eq!(gic.lock().linked(&bench.lists), 1 << VIRTUAL_PPI, "kept");
    open(&mut bench);
    assert_eq!(pending(&bench), [VIRTUAL_PPI]);
    assert!(bench.lists.read(0).is_hardware());
}

#[test]
fn a_timer_that_fires_while_every_list_register_is_taken_comes_when_one_is_free() {
    let mut bench = Bench::new();
    open(&mut bench);
    for intid in 0..4 {
        send_self(&mut bench, intid);
    }
    bench.trap(|trap, _| raise(trap, VIRTUAL_PPI, PHYSICAL_PPI));
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.extend(take(&mut bench, true));
        bench.trap(|trap, _| trap.maintain());
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, VIRTUAL_PPI]);
}

proptest! {
    #[test]
    fn every_sgi_that_is_sent_is_taken_once(sent in any::<u16>(), late in any::<u16>()) {
        let mut bench = Bench::new();
        open(&mut bench);
        for intid in (0..16).filter(|bit| sent & 1 << bit != 0) {
            send_self(&mut bench, intid);
        }
        // More come while those wait; one that is sent again is the same.
        let mut seen = take(&mut bench, true);
        let again: Vec<_> = seen.iter().copied().filter(|bit| late & 1 << bit != 0).collect();
        for intid in (0..16).filter(|bit| late & 1 << bit != 0) {
            send_self(&mut bench, intid);
        }
        for _ in 0..8 {
            bench.trap(|trap, _| trap.maintain());
            seen.extend(take(&mut bench, true));
        }
        let mut expected: Vec<u32> = (0..16).filter(|bit| (sent | late) & 1 << bit != 0).collect();
        expected.extend(again);
        seen.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(seen, expected);
    }
}

#[test]
fn a_trapped_deactivation_ends_what_it_names_and_ignores_what_there_is_not() {
    let mut bench = Bench::new();
    open(&mut bench);
    send_self(&mut bench, 5);
    bench.trap(|trap, _| raise(trap, VIRTUAL_PPI, PHYSICAL_PPI));
    assert_eq!(take(&mut bench, false), [5, VIRTUAL_PPI]);
    let active = |bench: &Bench, intid| {
        let held = bench
            .vcpu
            .gic
            .lock()
            .held(&bench.lists, IntId::private(intid));
        held.is_active()
    };
    let deactivate = |bench: &mut Bench, value| {
        bench.trap(|trap, _| {
            trap.deactivate(value);
            trap.owed
        })
    };
    for nothing in [6, 1020, 0x00ff_ffff, 8192] {
        assert_eq!(deactivate(&mut bench, nothing), 0, "{nothing:#x}");
    }
    assert!(active(&bench, 5) && active(&bench, VIRTUAL_PPI));
    // Bits above 23 are not the interrupt's number (GIC IHI0069, 12.2.9).
    assert_eq!(deactivate(&mut bench, 0xff << 24 | 5), 0);
    assert!(!active(&bench, 5) && active(&bench, VIRTUAL_PPI));
    let owed = deactivate(&mut bench, u64::from(VIRTUAL_PPI));
    assert_eq!(owed, 1 << VIRTUAL_PPI, "its physical interrupt too");
    assert!(!active(&bench, VIRTUAL_PPI));
}

#[test]
fn a_vcpu_that_turns_itself_off_gives_a_shared_interrupt_to_another_and_keeps_its_own() {
    let mut bench = Bench::new();
    open(&mut bench);
    let uart = DeviceId::Uart.row().intid;
    open_spi(&mut bench, uart);
    // Any vCPU may take it: GICD_IROUTER.IRM.
    write(
        &mut bench,
        DISTRIBUTOR + 0x6000 + u64::from(uart) * 8,
        1 << 31,
    );
    receive(&mut bench);
    assert_eq!(pending(&bench), [uart]);
    bench.trap(|trap, _| raise(trap, VIRTUAL_PPI, PHYSICAL_PPI));
    // vCPU 1 runs too.
    let mut other = Bench::on(bench.vm, 1);
    other.trap(|trap, _| trap.deliver());
    assert!(pending(&other).is_empty());
    bench.trap(|trap, _| trap.power_off());
    other.trap(|trap, _| trap.deliver());
    assert_eq!(pending(&other), [uart]);
    let gic = bench.vcpu.gic.lock();
    assert!(!pending(&bench).contains(&uart));
    assert_eq!(gic.linked(&bench.lists), 1 << VIRTUAL_PPI, "its own");
}

#[test]
fn the_uarts_interrupt_comes_with_a_byte_and_goes_with_the_instruction_that_reads_it() {
    let mut bench = Bench::new();
    open(&mut bench);
    let uart = DeviceId::Uart.row().intid;
    open_spi(&mut bench, uart);
    receive(&mut bench);
    assert_eq!(pending(&bench), [uart]);
    let (hot, flags) = word(&mut bench, UART + pl011::FR, None, 0);
    assert_eq!((hot, flags as u32 & pl011::FR_RXFE), (Hot::Advance, 0));
    let (hot, byte) = word(&mut bench, UART + pl011::DR, None, 0);
    assert_eq!((hot, byte), (Hot::Advance, u64::from(b'x')));
    let (_, flags) = word(&mut bench, UART + pl011::FR, None, 0);
    assert_ne!(flags as u32 & pl011::FR_RXFE, 0, "it was taken");
    assert!(
        pending(&bench).is_empty(),
        "with the byte its interrupt goes"
    );
}

#[test]
fn an_alarm_that_comes_nearer_is_told_and_one_that_is_due_is_pending() {
    const SECOND: u64 = 1_000_000_000;
    let mut bench = Bench::new();
    open(&mut bench);
    let rtc = DeviceId::Rtc.row().intid;
    open_spi(&mut bench, rtc);
    let (hot, seconds) = word(&mut bench, RTC + clock::DR, None, 5 * SECOND);
    assert_eq!((hot, seconds), (Hot::Advance, 1_000_005));
    let set = |bench: &mut Bench, register, value| word(bench, RTC + register, Some(value), 0).0;
    assert_eq!(
        set(&mut bench, clock::MR, 1_000_100),
        Hot::Advance,
        "masked"
    );
    assert_eq!(set(&mut bench, clock::IMSC, 1), Hot::Work);
    assert_eq!(set(&mut bench, clock::MR, 1_000_050), Hot::Work, "nearer");
    assert_eq!(set(&mut bench, clock::MR, 1_000_200), Hot::Advance, "later");
    assert!(pending(&bench).is_empty());
    // A look at the clock when it is due raises it.
    let (_, raised) = word(&mut bench, RTC + clock::MIS, None, 200 * SECOND);
    assert_eq!((raised, pending(&bench)), (1, [rtc].to_vec()));
    let (hot, _) = word(&mut bench, RTC + clock::ICR, Some(1), 200 * SECOND);
    assert_eq!(hot, Hot::Advance);
    let (_, raised) = word(&mut bench, RTC + clock::MIS, None, 200 * SECOND);
    assert_eq!(raised, 0);
}
