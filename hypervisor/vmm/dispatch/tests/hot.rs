//! Traps that end where they began.

use super::{Access, CM, ISV, S1PTW, SF, SSE, TRANSLATION};
use crate::bus;
use crate::bus::Target;
use crate::devices::{Answer, Work};
use crate::dispatch::hot::{DataAbort, Hot, big_endian, hypercall, mmio, system};
use crate::exit::{Abort, Syndrome, class, system_register};
use crate::vm::tests::fixture::{At, BOOT_VCPUS, Bench, RAM, RAM_BYTES, vm};
use crate::vm::{Around, Kicks};
use proptest::prelude::*;
use psci::{EntryPoint, ReturnCode, id};
use std::vec::Vec;
use types::devices::DeviceId;
use types::layout::REDISTRIBUTOR_SIZE;
use types::stats::ExitReason;
use vgic::ListRegisters;

const CPU_ON: u64 = (id::CPU_ON | id::SMC64) as u64;
const AFFINITY_INFO: u64 = (id::AFFINITY_INFO | id::SMC64) as u64;
const UART: u64 = 0x0900_0000;
const HOTPLUG: u64 = 0x090c_0000;
const VIRTIO: u64 = 0x0a00_0000;
const DISTRIBUTOR: u64 = 0x0800_0000;
const REDISTRIBUTOR: u64 = 0x080a_0000;

fn hvc(immediate: u64) -> Syndrome {
    Syndrome::new(class::HVC64 << 26 | 1 << 25 | immediate)
}

fn call(bench: &mut Bench, arguments: &[u64]) -> (Hot, u64) {
    bench.registers(arguments);
    let mut kicks = Kicks::NONE;
    let hot = hypercall(bench.vm, &mut bench.context.frame, hvc(0), &mut kicks);
    bench.kicks = kicks;
    (hot, bench.context.frame.x[0])
}

#[test]
fn cpu_on_by_table() {
    use ReturnCode::{AlreadyOn, Denied, InvalidAddress, InvalidParameters, Success};
    let mut bench = Bench::new();
    let reserve = u64::from(BOOT_VCPUS);
    let table: [(u64, u64, ReturnCode, &[u16]); 19] = [
        (0, RAM, AlreadyOn, &[]),
        (1, RAM + 2, InvalidAddress, &[]),
        (1, RAM + 1, InvalidAddress, &[]),
        (1, 0, InvalidAddress, &[]),
        (1, UART, InvalidAddress, &[]),
        (1, RAM - 4, InvalidAddress, &[]),
        (1, RAM + RAM_BYTES, InvalidAddress, &[]),
        (1, !3, InvalidAddress, &[]),
        (1, RAM + RAM_BYTES - 4, Success, &[1]),
        (1, RAM, AlreadyOn, &[]),
        (reserve, RAM, Denied, &[]),
        (8, RAM, InvalidParameters, &[]),
        (0x10, RAM, InvalidParameters, &[]),
        (0x100, RAM, InvalidParameters, &[]),
        (1 << 16 | 1, RAM, InvalidParameters, &[]),
        (1 << 31 | 1, RAM, InvalidParameters, &[]),
        (1 << 32 | 1, RAM, InvalidParameters, &[]),
        (u64::MAX, RAM, InvalidParameters, &[]),
        (3, RAM, Success, &[3]),
    ];
    for (target, address, code, kicked) in table {
        let (hot, x0) = call(&mut bench, &[CPU_ON, target, address, 77]);
        assert_eq!(
            (hot, x0),
            (Hot::Resume, code.as_x0()),
            "CPU_ON {target:#x} {address:#x}"
        );
        assert_eq!(bench.kicked(), kicked, "CPU_ON {target:#x} {address:#x}");
    }
    let entry = EntryPoint {
        address: RAM + RAM_BYTES - 4,
        context_id: 77,
    };
    assert_eq!(bench.vm.vcpus[1].power.start(), Some(entry));
}

#[test]
fn affinity_info_tells_on_off_and_pending() {
    let mut bench = Bench::new();
    let (_, _) = call(&mut bench, &[CPU_ON, 2, RAM, 0]);
    for (target, level, x0) in [
        (0, 0, 0),
        (1, 0, 1),
        (2, 0, 2),
        (5, 0, 1),
        (8, 0, ReturnCode::InvalidParameters.as_x0()),
        (0, 1, ReturnCode::InvalidParameters.as_x0()),
        (u64::MAX, 0, ReturnCode::InvalidParameters.as_x0()),
    ] {
        assert_eq!(
            call(&mut bench, &[AFFINITY_INFO, target, level]),
            (Hot::Resume, x0),
            "AFFINITY_INFO {target:#x} level {level}"
        );
    }
}

#[test]
fn an_immediate_that_is_not_zero_calls_nothing() {
    let mut bench = Bench::new();
    for immediate in [1, 0xea1, 0xffff] {
        let before = bench.registers(&[CPU_ON, 1, RAM, 0]);
        let mut kicks = Kicks::NONE;
        let hot = hypercall(
            bench.vm,
            &mut bench.context.frame,
            hvc(immediate),
            &mut kicks,
        );
        assert_eq!((hot, bench.context.frame.x[0]), (Hot::Resume, u64::MAX));
        assert_eq!(bench.context.frame.x[1..], before.x[1..]);
        assert!(kicks == Kicks::NONE);
    }
    assert_eq!(bench.vm.vcpus[1].power.start(), None);
}

#[test]
fn only_w0_names_a_function_and_32_bit_functions_take_32_bit_arguments() {
    let mut bench = Bench::new();
    let junk = 0xdead_beef << 32;
    let version = call(&mut bench, &[u64::from(id::PSCI_VERSION)]);
    assert_eq!(version, (Hot::Resume, u64::from(psci::PSCI_VERSION_1_3)));
    assert_eq!(
        call(&mut bench, &[junk | u64::from(id::PSCI_VERSION)]),
        version
    );
    let on = [junk | u64::from(id::CPU_ON), junk | 1, junk | RAM, junk | 9];
    assert_eq!(call(&mut bench, &on), (Hot::Resume, 0));
    let entry = bench.vm.vcpus[1].power.start();
    assert_eq!(
        entry,
        Some(EntryPoint {
            address: RAM,
            context_id: 9
        })
    );
}

proptest! {
    #[test]
    fn a_call_that_is_left_is_left_untouched(
        id in prop_oneof![0x8400_0000_u32..0x8400_0020, 0xc400_0000_u32..0xc400_0020, 0xc600_0000_u32..0xc600_0004, any::<u32>()],
        arguments in any::<[u64; 3]>(),
    ) {
        let mut bench = Bench::new();
        let before = bench.registers(&[u64::from(id), arguments[0], arguments[1], arguments[2]]);
        let mut kicks = Kicks::NONE;
        let hot = hypercall(bench.vm, &mut bench.context.frame, hvc(0), &mut kicks);
        let after = &bench.context.frame;
        // SMCCC 1.2 allows x0 to x3 to change; of ours only x0 does here.
        prop_assert_eq!(&after.x[1..], &before.x[1..]);
        if hot == Hot::Leave {
            prop_assert_eq!(after.x[0], before.x[0]);
            prop_assert!(kicks == Kicks::NONE);
        }
    }
}

fn access_iss(register: u32, rt: u32, read: bool) -> Syndrome {
    Syndrome::new(class::SYSTEM << 26 | u64::from(register | rt << 5 | u32::from(read)))
}

fn sysreg(bench: &mut Bench, syndrome: Syndrome) -> (Hot, ExitReason) {
    bench.trap(|trap, context| system(trap, &mut context.frame, syndrome))
}

#[test]
fn id_registers_read_as_the_policy_has_them() {
    let mut bench = Bench::new();
    for (crm, op2) in (0..8).flat_map(|crm| (0..8).map(move |op2| (crm, op2))) {
        bench.registers(&[]);
        let register = system_register(3, 0, 0, crm, op2);
        let result = sysreg(&mut bench, access_iss(register, 7, true));
        assert_eq!(result, (Hot::Advance, ExitReason::IdRegister));
        let expected = bench.vm.policy.id[(crm * 8 + op2) as usize];
        assert_eq!(bench.context.frame.x[7], expected);
    }
    let before = bench.registers(&[]);
    let register = system_register(3, 0, 0, 4, 0);
    assert_eq!(
        sysreg(&mut bench, access_iss(register, 31, true)).0,
        Hot::Advance
    );
    assert_eq!(
        sysreg(&mut bench, access_iss(register, 3, false)).0,
        Hot::Leave
    );
    assert_eq!(
        bench.context.frame.x, before.x,
        "xzr and a write that is none"
    );
}

#[test]
fn sgis_reach_whom_they_name() {
    const SGI1R: u32 = system_register(3, 0, 12, 11, 5);
    let intid = 5 << 24;
    let table: [(u64, &[u16]); 9] = [
        (0b0010, &[1]),
        (0b1111_1110, &[1, 2, 3, 4, 5, 6, 7]),
        (0b1_0000_0000, &[]),
        (1 << 16 | 1, &[]),
        (1 << 32 | 1, &[]),
        (1 << 48 | 1, &[]),
        (1 << 44 | 1, &[]),
        (1 << 40, &[1, 2, 3, 4, 5, 6, 7]),
        (0, &[]),
    ];
    for (value, targets) in table {
        let mut bench = Bench::new();
        bench.registers(&[value | intid]);
        let result = sysreg(&mut bench, access_iss(SGI1R, 0, false));
        assert_eq!(result, (Hot::Advance, ExitReason::Sgi));
        let reached: Vec<u16> = (0..8)
            .filter(|&index| !bench.vm.vcpus[usize::from(index)].inbox.is_empty())
            .collect();
        assert_eq!(reached, targets, "{value:#x}");
        let mut kicked: Vec<u16> = targets.iter().map(|target| target % 4).collect();
        kicked.sort_unstable();
        kicked.dedup();
        assert_eq!(bench.kicked(), kicked, "{value:#x}");
    }
}

#[test]
fn an_sgi_to_oneself_needs_no_kick() {
    let mut bench = Bench::new();
    enable_everything(&mut bench);
    bench.registers(&[5 << 24 | 1]);
    let register = system_register(3, 0, 12, 11, 5);
    assert_eq!(
        sysreg(&mut bench, access_iss(register, 0, false)).0,
        Hot::Advance
    );
    let pending = (0..bench.lists.count()).any(|n| {
        let list = bench.lists.read(n);
        list.is_pending() && list.intid() == 5
    });
    assert!(pending && bench.kicked().is_empty());
}

/// Enables groups, and SGIs 0 to 15, as Linux does.
fn enable_everything(bench: &mut Bench) {
    let sgi_base = REDISTRIBUTOR + REDISTRIBUTOR_SIZE / 2;
    for (address, value) in [
        (DISTRIBUTOR, 0x12),
        (sgi_base + 0x80, 0xffff_ffff),
        (sgi_base + 0x100, 0xffff),
    ] {
        assert_eq!(write32(bench, address, value).0, Hot::Advance);
    }
}

fn touch(bench: &mut Bench, access: Access, address: u64) -> (Hot, ExitReason) {
    touch_raw(bench, access.iss(), address)
}

fn touch_raw(bench: &mut Bench, iss: u64, address: u64) -> (Hot, ExitReason) {
    touch_left(bench, iss, address).0
}

/// Touches a device; says what is left to be done too.
fn touch_left(bench: &mut Bench, iss: u64, address: u64) -> ((Hot, ExitReason), Option<Work>) {
    let iss = Abort::new(Syndrome::new(iss));
    let abort = DataAbort { iss, address };
    let mut left = None;
    let result = bench.trap(|trap, context| {
        let leave = |work| left = Some(work);
        mmio(trap, &mut context.frame, abort, &At(1_000), leave)
    });
    let leaves = matches!(result.0, Hot::Work | Hot::Exit | Hot::Retry);
    assert_eq!(left.is_some(), leaves);
    (result, left)
}

fn write32(bench: &mut Bench, address: u64, value: u64) -> (Hot, ExitReason) {
    bench.registers(&[value]);
    let (sas, rt, write) = (2, 0, true);
    touch(bench, Access { sas, rt, write }, address)
}

fn read(bench: &mut Bench, sas: u64, address: u64) -> (Hot, u64) {
    bench.registers(&[u64::MAX]);
    let (rt, write) = (0, false);
    let (hot, _) = touch(bench, Access { sas, rt, write }, address);
    (hot, bench.context.frame.x[0])
}

#[test]
fn what_is_no_access_to_a_device_is_left() {
    let mut bench = Bench::new();
    let plain = ISV | 2 << 22 | TRANSLATION;
    for (iss, address) in [
        (plain | S1PTW, UART),
        (plain | CM, UART),
        (plain & !0x3f | 0x0e, UART),
        (plain & !0x3f | 0x10, UART),
        (plain & !0x3f, UART),
        (plain, UART + 0x1000),
        (plain, 0),
        (plain, RAM),
        (plain, u64::MAX),
    ] {
        let before = bench.registers(&[]);
        let result = touch_raw(&mut bench, iss, address);
        assert_eq!(
            result,
            (Hot::Leave, ExitReason::Abort),
            "{iss:#x} {address:#x}"
        );
        assert_eq!(bench.context.frame.x, before.x);
    }
}

#[test]
fn register_31_reads_as_zero_and_swallows() {
    let mut bench = Bench::new();
    let before = bench.registers(&[]);
    let (sas, rt) = (2, 31);
    let (hot, _) = touch(
        &mut bench,
        Access {
            sas,
            rt,
            write: false,
        },
        UART + 0x18,
    );
    assert_eq!((hot, bench.context.frame.x), (Hot::Advance, before.x));
    let access = Access {
        sas,
        rt,
        write: true,
    };
    let ((hot, _), left) = touch_left(&mut bench, access.iss(), UART);
    assert_eq!((hot, left), (Hot::Work, Some(Work::Show)));
    let mut kicks = Kicks::NONE;
    let mut around = Around::new(bench.vm, DeviceId::Uart, &At(1_000), &mut kicks);
    assert_eq!(bench.vm.devices.uart.take(&mut around), Some(0));
}

#[test]
fn signed_loads_are_extended_to_the_register() {
    let mut bench = Bench::new();
    // The PL011's last identification byte is 0xb1.
    for (extension, value) in [
        (0, 0xb1),
        (SSE, 0xffff_ffb1),
        (SSE | SF, 0xffff_ffff_ffff_ffb1),
    ] {
        bench.registers(&[]);
        let result = touch_raw(&mut bench, ISV | extension | TRANSLATION, UART + 0xffc);
        assert_eq!((result.0, bench.context.frame.x[0]), (Hot::Advance, value));
    }
}

#[test]
fn hot_plug_registers_have_one_width() {
    let mut bench = Bench::new();
    let sta = |vcpu: u64| HOTPLUG + 0x1000 + 16 * vcpu;
    for (address, value) in [
        (HOTPLUG + 4, 8),
        (sta(0), 0xf),
        (sta(3), 0xf),
        (sta(4), 0xd),
        (sta(8), 0),
        (sta(511), 0),
        (HOTPLUG + 8, 0),
        (HOTPLUG + 0xfffc, 0),
    ] {
        assert_eq!(
            read(&mut bench, 2, address),
            (Hot::Advance, value),
            "{address:#x}"
        );
        for sas in [0, 1, 3] {
            assert_eq!(
                read(&mut bench, sas, address),
                (Hot::Advance, 0),
                "{address:#x} {sas}"
            );
        }
        assert_eq!(read(&mut bench, 2, address + 1), (Hot::Advance, 0));
    }
}

#[test]
fn the_first_look_at_events_is_tried_again() {
    let mut bench = Bench::new();
    assert!(bench.vm.devices.hotplug.press_power_button());
    bench.registers(&[7]);
    let (sas, rt, write) = (2, 0, false);
    let ((hot, _), left) = touch_left(&mut bench, Access { sas, rt, write }.iss(), HOTPLUG);
    let listens = Some(Work::Resize(Answer::Listens));
    assert_eq!(
        (hot, left, bench.context.frame.x[0]),
        (Hot::Retry, listens, 7)
    );
    for sas in [0, 1, 3] {
        assert_eq!(
            read(&mut bench, sas, HOTPLUG),
            (Hot::Advance, 0),
            "takes no event"
        );
    }
    bench.vm.devices.hotplug.listen();
    assert_eq!(read(&mut bench, 2, HOTPLUG), (Hot::Advance, 0x8080_0000));
    assert_eq!(read(&mut bench, 2, HOTPLUG), (Hot::Advance, 0));
}

#[test]
fn what_a_guest_says_of_its_vcpus_is_left_to_the_resizer() {
    let mut bench = Bench::new();
    let eject = Answer::Eject(bench.vm.vcpus[4].id);
    let value = 0x0103_0085;
    let cases = [
        (0x1044, Some(eject)),
        (
            0x1008,
            Some(Answer::Ost {
                vcpu: bench.vm.vcpus[0].id,
                event: 0x103,
                status: 0x85,
            }),
        ),
        (0, None),
        (4, None),
        (0x1000, None),
        (0x100c, None),
        (0x1045, None),
        (0x2044, None),
        (0xfffc, None),
        (0xffff, None),
    ];
    for (offset, answer) in cases {
        for sas in 0..4 {
            bench.registers(&[value]);
            let (rt, write) = (0, true);
            let iss = Access { sas, rt, write }.iss();
            let (result, left) = touch_left(&mut bench, iss, HOTPLUG + offset);
            let answer = answer.filter(|_| sas == 2).map(Work::Resize);
            let hot = answer.map_or(Hot::Advance, |_| Hot::Exit);
            assert_eq!(result, (hot, ExitReason::Hotplug), "{offset:#x} {sas}");
            assert_eq!(left, answer, "{offset:#x} {sas}");
        }
    }
    let zero = touch(
        &mut bench,
        Access {
            sas: 2,
            rt: 31,
            write: true,
        },
        HOTPLUG + 0x1044,
    );
    assert_eq!(zero.0, Hot::Advance, "register 31 confirms nothing");
    let states: Vec<u32> = bench.vm.vcpus.iter().map(|vcpu| vcpu.power.sta()).collect();
    assert_eq!(states, [0xf, 0xf, 0xf, 0xf, 0xd, 0xd, 0xd, 0xd]);
}

/// Reads, writes and reads every register of a range, aligned and not, in every width.
fn sweep(bench: &mut Bench, base: u64, bytes: u64, value: u64) {
    let offsets =
        (0..bytes).filter(|offset| offset % 4 == 0 || offset % 64 < 8 || bytes - offset < 8);
    for offset in offsets {
        for sas in 0..4 {
            for write in [false, true, false] {
                bench.registers(&[value]);
                let access = Access { sas, rt: 0, write };
                let (hot, _) = touch(bench, access, base + offset);
                assert_eq!(hot, Hot::Advance, "{base:#x} + {offset:#x} {access:?}");
            }
        }
    }
}

#[test]
fn every_register_of_the_interrupt_controller_answers() {
    for value in [u64::MAX, 0x5555_5555_5555_5555, 0] {
        let mut bench = Bench::on(vm(2), 0);
        enable_everything(&mut bench);
        sweep(&mut bench, DISTRIBUTOR, 0x1_0000, value);
        // Its own redistributor and another vCPU's.
        sweep(&mut bench, REDISTRIBUTOR, 2 * REDISTRIBUTOR_SIZE, value);
        bench.trap(|trap, _| trap.deliver());
        // It works afterwards.
        bench.vm.gic.reset();
        let vcpu = bench.vcpu;
        let _owed = vcpu.gic.lock().reset(&mut bench.lists);
        vcpu.inbox.clear();
        an_sgi_arrives(&mut bench);
    }
}

fn an_sgi_arrives(bench: &mut Bench) {
    enable_everything(bench);
    bench.registers(&[3 << 24 | 1]);
    let register = system_register(3, 0, 12, 11, 5);
    assert_eq!(
        sysreg(bench, access_iss(register, 0, false)).0,
        Hot::Advance
    );
    assert!((0..bench.lists.count()).any(|n| bench.lists.read(n).intid() == 3));
}

#[test]
fn devices_end_where_the_next_begins() {
    let vm = vm(2);
    let frames = REDISTRIBUTOR + 2 * REDISTRIBUTOR_SIZE;
    for (address, target) in [
        (DISTRIBUTOR - 1, None),
        (DISTRIBUTOR, Some(Target::Distributor(0))),
        (DISTRIBUTOR + 0xffff, Some(Target::Distributor(0xffff))),
        (DISTRIBUTOR + 0x1_0000, None),
        (REDISTRIBUTOR - 1, None),
        (
            REDISTRIBUTOR,
            Some(Target::Redistributor(vm.vcpus[0].id, 0)),
        ),
        (
            frames - 1,
            Some(Target::Redistributor(vm.vcpus[1].id, 0x1_ffff)),
        ),
        (frames, None),
        (UART + 0xfff, Some(Target::Device(DeviceId::Uart, 0xfff))),
        (0x0901_0000, Some(Target::Device(DeviceId::Rtc, 0))),
        (0x0901_1000, None),
        (
            HOTPLUG + 0xffff,
            Some(Target::Device(DeviceId::Hotplug, 0xffff)),
        ),
        (HOTPLUG + 0x1_0000, None),
        (VIRTIO - 1, None),
        (VIRTIO, Some(Target::Device(DeviceId::Virtio, 0))),
        (
            VIRTIO + 0x3fff,
            Some(Target::Device(DeviceId::Virtio, 0x3fff)),
        ),
        (VIRTIO + 0x4000, None),
        (u64::MAX, None),
    ] {
        assert_eq!(bus::find(vm, address), target, "{address:#x}");
    }
}

#[test]
fn a_big_endian_access_has_its_bytes_turned_round() {
    // An instruction's width, sign and register size; the register before; what a device sees of it, and what is read of that.
    for (sas, extend, before, seen, read) in [
        (0, 0, 0x1122_3344_5566_7788_u64, 0x88_u64, 0x88_u64),
        (1, 0, 0x1122_3344_5566_7788, 0x8877, 0x7788),
        (2, 0, 0x1122_3344_5566_7788, 0x8877_6655, 0x5566_7788),
        (2, SSE | SF, 0x99aa_bbcc, 0xccbb_aa99, 0xffff_ffff_99aa_bbcc),
        (1, SSE, 0x99aa, 0xaa99, 0xffff_99aa),
        (
            3,
            0,
            0x1122_3344_5566_7788,
            0x8877_6655_4433_2211,
            0x1122_3344_5566_7788,
        ),
    ] {
        let iss = |write| Abort::new(Syndrome::new(Access { sas, rt: 3, write }.iss() | extend));
        let mut bench = Bench::new();
        let frame = &mut bench.context.frame;
        frame.x[3] = before;
        let stored = big_endian(frame, iss(true), |frame| (true, frame.x[3]));
        assert_eq!(
            (stored, frame.x[3]),
            (seen, before),
            "a store of width {sas}"
        );
        big_endian(frame, iss(false), |frame| {
            frame.x[3] = iss(false).extend(seen);
            (true, ())
        });
        assert_eq!(frame.x[3], read, "a load of width {sas}");
        big_endian(frame, iss(false), |_| (false, ()));
        assert_eq!(frame.x[3], read, "a load that nobody answers");
    }
}
