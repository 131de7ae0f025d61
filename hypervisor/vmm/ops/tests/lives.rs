//! Lives of a VM as its CPUs and the operator bring them about, through the calls that `vmm::cpu` makes.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use control_plane::clock::{calls, time};
use control_plane::config::{OnReset, ReserveIdle};
use control_plane::console::What;
use types::access::AccessWidth;
use types::devices::DeviceId;
use types::ids::{PcpuId, VcpuId, VmId};

use super::{IMSC, MR, RAM, kernel, leave, run, running, vms, vms_with, work};
use crate::cpu::Manager;
use crate::devices::{Access, Answer, Work};
use crate::vm::context::Frame;
use crate::vm::{Around, Cause, Kicks, Outside, Phase};

#[test]
fn what_a_guest_asks_of_its_whole_vm_is_done_and_told_with_its_cause() {
    let (vms, vm) = running();
    vms.host.told.take();
    vms.system_reset(vm, Cause::Guest);
    vms.system_off(vm, Cause::Guest);
    leave(vms);
    work(vms);
    assert_eq!(vm.phase(), Phase::Running, "the first one has its way");
    run(vms, 0);
    vms.system_off(vm, Cause::Guest);
    vms.system_reset(vm, Cause::Guest);
    leave(vms);
    work(vms);
    assert_eq!(vm.phase(), Phase::Off);
    let told = vms.host.told.take();
    let expected = [
        What::VmReset("guest"),
        What::VmStart,
        What::VmOff("guest", None),
    ];
    assert_eq!(told, expected.map(|what| format!("guest {what:?}")));
}

#[test]
fn a_vm_that_did_what_it_must_not_is_off_and_says_what_it_was() {
    let (vms, vm) = running();
    let instance = &vms.all()[0];
    vms.host.told.take();
    vms.system_fail(vm, "SError");
    vms.system_fail(vm, "another one");
    leave(vms);
    work(vms);
    assert_eq!((vm.phase(), vm.life.cause()), (Phase::Off, Cause::Failed));
    let off = What::VmOff(Cause::Failed.name(), Some("SError".to_string()));
    assert_eq!(*vms.host.told.borrow(), [format!("guest {off:?}")]);
    // The next life has forgotten it.
    assert!(vms.start(instance));
    assert_eq!(instance.record.lock().note, None);
}

#[test]
fn a_vcpu_that_faults_without_end_is_noted_once_and_its_vm_goes_on() {
    let (vms, vm) = running();
    vms.is_stuck(vm, VcpuId::new(1), 0x200);
    vms.is_stuck(vm, VcpuId::new(0), 0x400);
    let note = vms.all()[0].record.lock().note.clone();
    assert_eq!(note.as_deref(), Some("vCPU 1 faults at 0x200 without end"));
    assert_eq!(vm.phase(), Phase::Running);
}

#[test]
fn a_guest_that_sets_its_clock_has_its_alarm_looked_at() {
    let (vms, vm) = running();
    let manager = vms.all()[0].manager;
    let now_ns = vms.host.now_ns();
    for (offset, value) in [(IMSC, 1), (MR, 2_000_000_000)] {
        let mut kicks = Kicks::NONE;
        let mut around = Around::new(vm, DeviceId::Rtc, &vms.host, &mut kicks);
        let width = AccessWidth::Word;
        let access = Access { offset, width };
        let _asks = vm.devices.write(DeviceId::Rtc, access, value, &mut around);
    }
    vms.host.asked.take();
    let call = |id: u32, words: [u64; 2]| {
        let mut frame = Frame::default();
        frame.x[0] = u64::from(id);
        frame.x[1..3].copy_from_slice(&words);
        vms.vendor_call(vm, &mut frame);
        assert_eq!(frame.x[0] as i64, calls::SUCCESS);
        time::from_words([frame.x[1], frame.x[2]])
    };
    call(calls::GET_TIME, [0; 2]);
    assert!(vms.host.asked.borrow().is_empty(), "it only looks");
    call(calls::SET_TIME, time::to_words(1_999_999_990));
    assert_eq!(*vms.host.asked.borrow(), [manager.get()]);
    assert_eq!(call(calls::GET_TIME, [0; 2]), Some(1_999_999_990));
    for cpu in [0, 1] {
        vms.attend(PcpuId::new(cpu));
    }
    let due_ns = now_ns + 10_000_000_000;
    let attended = vms.host.attended.take();
    assert_eq!(attended, [(0, Some(due_ns)), (1, None)], "its manager's");
}

#[test]
fn a_round_ends_when_every_cpu_has_published_or_is_off() {
    let (vms, _) = running();
    let (zero, one) = (PcpuId::new(0), PcpuId::new(1));
    vms.host.asked.take();
    assert_eq!(vms.asked(zero), None);
    for cpu in [zero, one] {
        vms.ask_to_publish(cpu, 5);
    }
    assert_eq!(*vms.host.asked.borrow(), [0, 1]);
    assert_eq!((vms.asked(zero), vms.asked(one)), (Some(5), Some(5)));
    assert!(!vms.has_published(zero, 5));
    let looked = vms.host.looked.get();
    vms.published(zero, 5);
    assert_eq!(vms.host.looked.get(), looked + 1, "the boot CPU waits");
    assert!(vms.has_published(zero, 5) && vms.asked(zero).is_none());
    assert!(!vms.has_published(one, 5));
    vms.host.off.borrow_mut().push(1);
    assert!(vms.has_published(one, 5));
}

#[test]
fn a_vm_has_one_manager_and_its_manifest_says_whether_cpus_may_be_off() {
    for idle in [ReserveIdle::Wfi, ReserveIdle::PsciOff] {
        let vms = vms(kernel(4096), true, |config| config.reserve_idle = idle);
        let vm = vms.all()[0].vm;
        let (zero, one) = (PcpuId::new(0), PcpuId::new(1));
        assert!(vms.is_manager(zero) && !vms.is_manager(one));
        assert_eq!(vms.may_power_down(vm), idle == ReserveIdle::PsciOff);
        assert!(vms.start(&vms.all()[0]));
        assert!(!vms.go_on(one, &mut 0), "another's work");
        assert_eq!(vm.phase(), Phase::Starting);
        let name = vm.phase().name();
        assert_eq!(format!("{vms:?}"), format!("[guest ({name})]"));
        assert!(vms.vm(vm.id).is_some() && vms.vm(VmId::new(1)).is_none());
    }
}

#[test]
fn a_vm_that_is_stopped_while_it_starts_gives_everything_back() {
    let image = kernel(300_000);
    for steps in 1..12 {
        let vms = vms(image, true, |_| {});
        let (instance, host) = (&vms.all()[0], &vms.host);
        assert!(vms.start(instance));
        let mut turn = 0;
        for _ in 0..steps {
            assert!(vms.go_on(PcpuId::new(0), &mut turn));
        }
        assert!(vms.stop(instance.vm, Cause::Operator));
        work(vms);
        assert_eq!(instance.vm.phase(), Phase::Off, "after {steps} steps");
        assert!(host.ram.borrow().is_some() && host.pages.get() == 0);
        assert!(vms.start(instance));
        work(vms);
        assert_eq!(instance.vm.phase(), Phase::Running);
    }
}

#[test]
fn a_pause_outlives_its_vcpus_and_a_vm_without_any_is_off_after_it() {
    let (vms, vm) = running();
    let instance = &vms.all()[0];
    assert!(vms.pause(instance) && !vms.pause(instance));
    assert!(vm.vcpus[0].power.apply(psci::Event::CpuOff).is_ok());
    leave(vms);
    work(vms);
    assert_eq!(vm.phase(), Phase::Paused, "nobody has resumed it");
    vms.host.asked.take();
    assert!(vms.resume(instance));
    work(vms);
    assert_eq!(vm.phase(), Phase::Stopping);
    let manager = instance.manager.get();
    assert_eq!(vms.host.asked.take(), [manager, manager], "to go on");
    work(vms);
    assert_eq!(vm.life.cause(), Cause::AllVcpusOff);
    assert_eq!(vm.phase(), Phase::Off);
    assert!(!vms.resume(instance) && !vms.pause(instance), "it is off");
}

#[test]
fn a_vm_whose_first_vcpu_cannot_be_turned_on_is_not_started() {
    let vms = vms(kernel(4096), true, |_| {});
    let instance = &vms.all()[0];
    let code = instance.vm.vcpus[0]
        .power
        .cpu_on(psci::EntryPoint::default());
    assert_eq!(code, psci::ReturnCode::Success);
    assert!(vms.start(instance));
    work(vms);
    assert_eq!(instance.vm.phase(), Phase::Off);
    let note = instance.record.lock().note.clone();
    let why = "its first vCPU can't be turned on: PSCI says -4";
    assert_eq!(note.as_deref(), Some(why));
    assert!(vms.host.ram.borrow().is_some() && vms.host.pages.get() == 0);
}

/// An ELF file (System V ABI, chapter 4) with one segment of `file` bytes of 0x5a, which has `bytes` in memory.
fn elf(address: u64, file: u64, bytes: u64) -> &'static [u8] {
    let mut image = Vec::from(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // ET_EXEC for AArch64, version 1; entry, program headers, section headers.
    image.extend([2_u16, 183].iter().flat_map(|half| half.to_le_bytes()));
    image.extend(1_u32.to_le_bytes());
    let places = [address, 64, 0];
    image.extend(places.iter().flat_map(|word| word.to_le_bytes()));
    image.extend(0_u32.to_le_bytes());
    let sizes = [64_u16, 56, 1, 0, 0, 0];
    image.extend(sizes.iter().flat_map(|half| half.to_le_bytes()));
    // PT_LOAD, all permissions.
    image.extend([1_u32, 7].iter().flat_map(|word| word.to_le_bytes()));
    let segment = [120, address, address, file, bytes, 4096];
    image.extend(segment.iter().flat_map(|word| word.to_le_bytes()));
    image.resize(image.len() + file as usize, 0x5a);
    Box::leak(image.into_boxed_slice())
}

#[test]
fn an_elf_kernel_finds_its_bss_cleared_and_its_initrd_whole_in_short_steps() {
    const AT: u64 = 0x20_0000;
    const FILE: u64 = 100_000;
    const BYTES: u64 = 400_000;
    let initrd: &'static [u8] = Box::leak(Box::new([0x77_u8; 70_001]));
    let vms = vms_with(elf(RAM + AT, FILE, BYTES), initrd, true, |_| {});
    let instance = &vms.all()[0];
    assert!(vms.start(instance));
    work(vms);
    assert_eq!(instance.vm.phase(), Phase::Running);
    let entry = instance.vm.vcpus[0].power.start().expect("turned on");
    assert_eq!(entry.address, RAM + AT);
    let state = instance.state.lock();
    let ram = state.ram.as_ref().expect("it has RAM");
    let (begin, end) = (AT as usize, (AT + BYTES) as usize);
    let bss = begin + FILE as usize;
    assert!(ram.bytes[begin..bss].iter().all(|byte| *byte == 0x5a));
    assert!(ram.bytes[bss..end].iter().all(|byte| *byte == 0));
    assert_eq!(ram.bytes[end], 0xee, "nothing behind it");
    let found = ram.bytes.windows(initrd.len()).any(|bytes| bytes == initrd);
    assert!(found, "all of the initial RAM disk");
    assert!(ram.longest.get() <= 65_536, "{} bytes", ram.longest.get());
}

#[test]
fn a_reset_offers_what_was_held_again_or_leaves_the_boot_set_as_the_manifest_says() {
    for (on_reset, waits) in [(OnReset::KeepTarget, true), (OnReset::BootSet, false)] {
        let vms = vms(kernel(4096), true, |config| config.on_reset = on_reset);
        let instance = &vms.all()[0];
        let vm = instance.vm;
        assert!(vms.start(instance));
        work(vms);
        run(vms, 0);
        vms.work(vm, Work::Resize(Answer::Listens));
        let limits = crate::ops::DEFAULT_LIMITS;
        let begun = instance.resizer.lock().begin(vm, 3, limits, 0).unwrap();
        vms.carry_out(instance, begun);
        for vcpu in [1, 2] {
            let code = vm.vcpus[vcpu].power.cpu_on(psci::EntryPoint::default());
            assert_eq!(code, psci::ReturnCode::Success);
            assert!(vm.vcpus[vcpu].power.start().is_some());
            vms.vcpu_changed(vm, &vm.vcpus[vcpu], true, 0);
        }
        assert!(vms.reset(vm, Cause::Operator));
        leave(vms);
        work(vms);
        assert_eq!(vm.phase(), Phase::Running);
        assert_eq!(instance.resizer.lock().is_active(), waits, "{on_reset:?}");
        assert_eq!(vm.vcpus[2].power.state(), psci::State::Reserve);
        let mut kicks = Kicks::NONE;
        let mut around = Around::new(vm, DeviceId::Hotplug, &vms.host, &mut kicks);
        let (offset, width) = (types::hotplug::EVENT, AccessWidth::Word);
        let event = vm
            .devices
            .read(DeviceId::Hotplug, Access { offset, width }, &mut around);
        assert_eq!(event, Err(Work::Resize(Answer::Listens)), "as new");
    }
}
