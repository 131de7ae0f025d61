//! What a guest does with the hot-plug registers while its VM is resized: it answers well, badly, or at random.

use alloc::format;
use alloc::vec::Vec;
use control_plane::config::ReserveIdle;
use control_plane::resize::Outcome;
use core::sync::atomic::Ordering;
use proptest::prelude::*;
use psci::{EntryPoint, Event, ReturnCode, State};
use types::access::AccessWidth;
use types::devices::DeviceId;
use types::hotplug::{EVENT, FRAME_BYTES, FRAME_EJECT, FRAME_OST, FRAME_STA, FRAMES};

use super::{Fake, kernel, run, running, vms, work};
use crate::cpu::Manager;
use crate::devices::{Access, Answer, Work};
use crate::ops::{Vms, strict};
use crate::vm::{Around, Kicks, Outside, Vm};

/// "Eject request" and "device check" as EVENT shows them, for vCPU 0.
const EJECT_REQUEST: u64 = 0x8003_0000;
const DEVICE_CHECK: u64 = 0x8001_0000;
const MORE: u64 = 1 << 30;

fn frame(vcpu: u64, register: u64) -> u64 {
    FRAMES + vcpu * FRAME_BYTES + register
}

/// Names a register.
fn at(offset: u64) -> Access {
    let width = AccessWidth::Word;
    Access { offset, width }
}

/// Returns the event that the guest reads next.
fn event(vms: &Vms<Fake>, vm: &'static Vm) -> u64 {
    loop {
        let mut kicks = Kicks::NONE;
        let mut around = Around::new(vm, DeviceId::Hotplug, &vms.host, &mut kicks);
        match vm.devices.read(DeviceId::Hotplug, at(EVENT), &mut around) {
            Ok(event) => return event,
            Err(work) => vms.work(vm, work),
        }
    }
}

/// Writes a hot-plug register.
fn write(vms: &Vms<Fake>, vm: &'static Vm, offset: u64, value: u32) {
    let mut kicks = Kicks::NONE;
    let mut around = Around::new(vm, DeviceId::Hotplug, &vms.host, &mut kicks);
    let value = u64::from(value);
    let work = vm
        .devices
        .write(DeviceId::Hotplug, at(offset), value, &mut around);
    if let Some(work) = work {
        vms.work(vm, work);
    }
}

/// Begins a resize of ten seconds; returns whether it was admitted.
fn resize(vms: &Vms<Fake>, target: u16) -> bool {
    let instance = &vms.all()[0];
    let mut resizer = instance.resizer.lock();
    let begun = resizer.begin(instance.vm, target, strict(10), vms.host.now_ns());
    drop(resizer);
    let is_begun = begun.is_ok();
    if let Ok(progress) = begun {
        vms.carry_out(instance, progress);
    }
    is_begun
}

/// Looks at the deadline of a resize, as the boot CPU does.
fn look(vms: &Vms<Fake>, now_ns: u64) {
    let instance = &vms.all()[0];
    let progress = instance.resizer.lock().on_deadline(instance.vm, now_ns);
    vms.carry_out(instance, progress);
}

/// Turns a vCPU on as the guest does, and runs it as its CPU does; returns whether it was off.
fn turn_on(vms: &Vms<Fake>, vm: &'static Vm, vcpu: usize) -> bool {
    let vcpu = &vm.vcpus[vcpu];
    let was_off = vcpu.power.cpu_on(EntryPoint::default()) == ReturnCode::Success;
    if was_off {
        assert!(vcpu.power.start().is_some());
        vms.vcpu_changed(vm, vcpu, true, 0);
    }
    was_off
}

/// Has a vCPU turn itself off; returns whether it was on.
fn turn_off(vms: &Vms<Fake>, vm: &'static Vm, vcpu: usize) -> bool {
    let was_on = vm.vcpus[vcpu].power.apply(Event::CpuOff).is_ok();
    if was_on {
        vms.vcpu_changed(vm, &vm.vcpus[vcpu], false, 0);
    }
    was_on
}

/// A VM whose guest listens and runs on vCPUs 0, 1 and 2, the last of which was added.
fn grown(idle: ReserveIdle) -> (&'static Vms<Fake>, &'static Vm) {
    let vms = vms(kernel(4096), true, |config| config.reserve_idle = idle);
    assert!(vms.start(&vms.all()[0]));
    work(vms);
    run(vms, 0);
    let vm = vms.all()[0].vm;
    assert_eq!(event(vms, vm), 0);
    assert!(turn_on(vms, vm, 1) && resize(vms, 3));
    assert_eq!(event(vms, vm), DEVICE_CHECK | 2);
    assert!(turn_on(vms, vm, 2));
    assert_eq!(vms.host.ends.take(), ["guest Done"]);
    vms.host.asked.take();
    (vms, vm)
}

#[test]
fn a_vcpu_that_the_guest_gives_back_is_in_reserve_and_its_cpu_may_be_turned_off() {
    for idle in [ReserveIdle::Wfi, ReserveIdle::PsciOff] {
        let (vms, vm) = grown(idle);
        let cpu = vm.vcpus[2].at.placement().pcpu().get();
        let is_asked = || vms.host.asked.take().contains(&cpu);
        assert!(resize(vms, 2));
        assert_eq!(event(vms, vm), EJECT_REQUEST | 2);
        write(vms, vm, frame(2, FRAME_EJECT), 1);
        assert_eq!(vm.vcpus[2].power.state(), State::EjectOn);
        assert!(vms.host.ends.borrow().is_empty(), "it is on still");
        assert!(turn_off(vms, vm, 2));
        write(vms, vm, frame(2, FRAME_EJECT), 1);
        assert_eq!(vm.vcpus[2].power.state(), State::Reserve);
        assert_eq!(*vms.host.ends.borrow(), ["guest Done"]);
        assert_eq!(is_asked(), idle == ReserveIdle::PsciOff);
        // One that is off already is not asked; a look at a vCPU there brings it up.
        vms.host.off.borrow_mut().push(cpu);
        vms.host.up.take();
        vms.call(vm, &vm.vcpus[2]);
        assert!(!is_asked());
        assert_eq!(*vms.host.up.borrow(), [cpu]);
    }
}

#[test]
fn a_guest_that_keeps_a_vcpu_has_refused_and_may_use_it() {
    let (vms, vm) = grown(ReserveIdle::Wfi);
    assert!(resize(vms, 2) && !resize(vms, 1), "one at a time");
    assert_eq!(event(vms, vm), EJECT_REQUEST | 2);
    let looked = vms.host.looked.get();
    // The device is in use (ACPI 6.5, 6.3.5.1).
    write(vms, vm, frame(2, FRAME_OST), 3 << 16 | 0x82);
    assert_eq!(*vms.host.ends.borrow(), ["guest Refused"]);
    assert_eq!(vms.host.looked.get(), looked + 1, "somebody waits for it");
    assert!(vm.vcpus[2].power.state().is_on());
    assert!(turn_off(vms, vm, 2) && turn_on(vms, vm, 2));
    let told = vms.host.told.borrow();
    assert!(told.iter().any(|line| line.contains("VcpuOffline")));
}

#[test]
fn what_the_guest_writes_elsewhere_or_says_unasked_does_nothing() {
    let (vms, vm) = grown(ReserveIdle::Wfi);
    let states = || -> Vec<_> { vm.vcpus.iter().map(|vcpu| vcpu.power.state()).collect() };
    let (before, looked) = (states(), vms.host.looked.get());
    for offset in [
        EVENT,
        4,
        frame(0, FRAME_STA),
        frame(2, 12),
        frame(4, FRAME_EJECT),
        frame(511, FRAME_OST),
        frame(3, FRAME_EJECT),
        frame(0, FRAME_EJECT),
        frame(2, FRAME_OST),
        u64::MAX,
    ] {
        write(vms, vm, offset, u32::MAX);
    }
    assert_eq!(states(), before);
    assert_eq!(vms.host.looked.get(), looked);
    assert!(vms.host.ends.borrow().is_empty());
}

#[test]
fn a_resize_waits_until_the_guest_listens_which_it_begins_once() {
    let (vms, vm) = running();
    assert!(resize(vms, 3));
    assert_eq!(vm.vcpus[2].power.state(), State::Reserve, "nothing yet");
    assert!(vms.host.up.borrow().is_empty());
    assert_eq!(event(vms, vm), DEVICE_CHECK | 2);
    assert_eq!(vm.vcpus[2].power.state(), State::EnabledOff);
    assert_eq!(vms.host.up.take().len(), 1);
    vms.work(vm, Work::Resize(Answer::Listens));
    assert!(vms.host.up.borrow().is_empty(), "it listens already");
}

#[test]
fn an_offer_that_is_not_taken_is_withdrawn_at_its_deadline() {
    let (vms, vm) = running();
    assert_eq!(event(vms, vm), 0);
    assert!(turn_on(vms, vm, 1) && resize(vms, 4));
    assert_eq!(event(vms, vm), DEVICE_CHECK | MORE | 2);
    assert!(turn_on(vms, vm, 2));
    let deadline_ns = vms.all()[0].resizer.lock().deadline_ns().unwrap();
    look(vms, deadline_ns - 1);
    assert!(vms.host.ends.borrow().is_empty());
    look(vms, deadline_ns);
    assert_eq!(*vms.host.ends.borrow(), ["guest Partly"]);
    // What it has not read is an eject now.
    assert_eq!(event(vms, vm), EJECT_REQUEST | 3);
    assert!(!turn_on(vms, vm, 3));
}

/// What a guest or the operator does next, by chance.
#[derive(Clone, Debug)]
enum Step {
    Write(u64, u32),
    Read,
    On(usize),
    Off(usize),
    Resize(u16),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let register = prop_oneof![
        Just(FRAME_EJECT),
        Just(FRAME_OST),
        Just(FRAME_STA),
        0..16_u64
    ];
    let source = prop_oneof![Just(1_u32), Just(3), Just(0x103)];
    let said = (source, 0..0x90_u32).prop_map(|(source, status)| source << 16 | status);
    let value = prop_oneof![Just(1), said, any::<u32>()];
    prop_oneof![
        6 => (0..5_u64, register, value)
            .prop_map(|(vcpu, at, value)| Step::Write(frame(vcpu, at), value)),
        1 => (any::<u64>(), any::<u32>()).prop_map(|(offset, value)| Step::Write(offset, value)),
        3 => Just(Step::Read),
        4 => (0..4_usize).prop_map(Step::On),
        3 => (1..4_usize).prop_map(Step::Off),
        3 => (0..6_u16).prop_map(Step::Resize),
        1 => (0..11_000_000_000_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Every resize that is admitted ends once; the boot set is never taken; what is in reserve can't be turned on; the flags that hot
    /// paths read say what the resizer knows.
    #[test]
    fn whatever_a_guest_answers_every_resize_ends_once(steps in prop::collection::vec(step(), 1..60)) {
        let (vms, vm) = running();
        let instance = &vms.all()[0];
        vms.host.unheard.set(true);
        vms.watch();
        let mut begun = 0;
        for step in steps {
            match step {
                Step::Write(offset, value) => write(vms, vm, offset, value),
                Step::Read => _ = event(vms, vm),
                Step::On(vcpu) => {
                    let was_held = vm.vcpus[vcpu].power.state() == State::Reserve;
                    let is_on = turn_on(vms, vm, vcpu);
                    prop_assert!(!(is_on && was_held));
                }
                Step::Off(vcpu) => _ = turn_off(vms, vm, vcpu),
                Step::Resize(target) => begun += usize::from(resize(vms, target)),
                Step::Pass(ns) => {
                    vms.host.now.set(vms.host.now.get() + ns / 16);
                    look(vms, vms.host.now_ns());
                }
            }
            let is_active = instance.resizer.lock().is_active();
            prop_assert_eq!(instance.resizing.load(Ordering::Relaxed), is_active);
            prop_assert_eq!(vm.watched.load(Ordering::Relaxed), is_active);
            prop_assert_eq!(vms.host.ends.borrow().len() + usize::from(is_active), begun);
            for vcpu in &vm.vcpus[..2] {
                let state = vcpu.power.state();
                let is_boot = matches!(state, State::EnabledOff | State::OnPending | State::On | State::Off);
                prop_assert!(is_boot, "{:?}", state);
            }
        }
        // VMs are never freed, but their memory is.
        instance.state.lock().ram = None;
        look(vms, u64::MAX);
        prop_assert_eq!(vms.host.ends.borrow().len(), begun);
        let outcomes = Outcome::ALL.map(|outcome| format!("guest {outcome:?}"));
        prop_assert!(vms.host.ends.borrow().iter().all(|end| outcomes.contains(end)));
    }
}
