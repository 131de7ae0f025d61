//! What the operator is answered, and when.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use control_plane::console::{
    Command, CommandError, Event, HostReport, Reply, Token, VmAction, What,
};
use control_plane::firmware::Firmware;
use core::sync::atomic::Ordering;
use types::entitlement::{Bounds, Entitlement};
use types::ids::{PcpuId, VcpuId, VmId};

use super::{Fake, kernel, leave, run, running, vms, work};
use crate::cpu::{Manager, Placements};
use crate::devices::{Answer, Work};
use crate::ops::{Console, Host, Operator, Outbox, Vms};
use crate::vm::{Cause, Phase, Placement};

impl Console for Fake {
    fn accepts(&self, _: Option<Token>) -> bool {
        !self.is_full.get()
    }
    fn reply(&self, _: Token, result: Result<Reply, CommandError>) {
        let text = match result {
            Ok(reply) => format!("{reply:?}"),
            Err(error) => format!("error: {}", error.message),
        };
        self.replied.borrow_mut().push(text);
    }
    fn tell(&self, event: &Event, lost: u32) {
        let told = format!("{:?}, {lost} lost", event.what);
        self.told.borrow_mut().push(told);
    }
    fn retry_ns(&self) -> u64 {
        7
    }
    fn ask_boot_cpu_soon(&self) {
        self.looked.set(self.looked.get() + 1);
    }
    fn is_there(&self, cpu: PcpuId) -> bool {
        cpu.index() < 2
    }
    fn placements(&self) -> &'static Placements {
        self.placements.get().expect("set when the VMs are made")
    }
    fn log(&self) -> String {
        "a line".to_string()
    }
    fn report(&self) -> HostReport {
        HostReport {
            version: "0",
            machine: "a fake".to_string(),
            cpus_online: 2,
            cpus: 2,
            memory_bytes: 0,
            free_pages: 0,
            page_bytes: 4096,
            uptime_ns: 0,
        }
    }
}

const FIRST: VmId = VmId::new(0);

fn operator() -> Operator {
    Operator::new(Box::leak(Box::new(Outbox::new())))
}

/// Carries a command out; returns what was answered since.
fn answers(vms: &'static Vms<Fake>, operator: &Operator, command: Command) -> Vec<String> {
    vms.execute(operator, Token::default(), command);
    vms.host.replied.take()
}

fn act(action: VmAction) -> Command {
    Command::Vm { vm: FIRST, action }
}

fn pin(vcpu: u16, cpu: u16) -> Command {
    Command::VcpuPin {
        vm: FIRST,
        vcpu: VcpuId::new(vcpu),
        cpu: PcpuId::new(cpu),
    }
}

fn set(count: u16) -> Command {
    Command::VcpuSet {
        vm: FIRST,
        count,
        timeout_s: None,
    }
}

#[test]
fn what_a_vms_state_does_not_allow_is_refused_by_its_name() {
    let (operator, vms) = (operator(), vms(kernel(4096), true, |_| {}));
    let vm = vms.all()[0].vm;
    assert_eq!(
        answers(vms, &operator, act(VmAction::Stop)),
        ["error: guest is off"]
    );
    assert_eq!(answers(vms, &operator, set(3)), ["error: guest is off"]);
    assert_eq!(
        answers(vms, &operator, act(VmAction::PowerButton)),
        ["error: guest is off"]
    );
    assert_eq!(answers(vms, &operator, act(VmAction::Start)), ["Done"]);
    work(vms);
    run(vms, 0);
    for (action, phase) in [
        (VmAction::Pause, Phase::Paused),
        (VmAction::Stop, Phase::Stopping),
    ] {
        assert_eq!(answers(vms, &operator, act(action)), ["Done"]);
        assert_eq!(vm.phase(), phase);
    }
    let other = Command::VmShow { vm: VmId::new(3) };
    let answer = answers(vms, &operator, other);
    assert!(answer[0].starts_with("error: there is no"), "{answer:?}");
    assert_eq!(answers(vms, &operator, Command::Log), ["Log(\"a line\")"]);
}

#[test]
fn what_a_vm_is_not_entitled_to_is_refused_with_the_bounds() {
    let bounds = |min, max, unit| Some(Bounds { min, max, unit });
    let vms = vms(kernel(4096), true, |config| {
        config.cpu_cap = Some(500);
        config.entitlement = Entitlement {
            vcpus: bounds(2, 3, "vCPUs"),
            cpu_cap: bounds(250, 1500, "millicores"),
        };
    });
    let (operator, vm) = (operator(), vms.all()[0].vm);
    assert!(vms.start(&vms.all()[0]));
    work(vms);
    run(vms, 0);
    for count in [1, 4] {
        let answer = answers(vms, &operator, set(count));
        assert_eq!(answer, ["error: the VM is entitled to 2 to 3 vCPUs"]);
    }
    for millicores in [Some(249), Some(1501), None] {
        let cap = Command::VmCap {
            vm: FIRST,
            millicores,
        };
        let answer = answers(vms, &operator, cap);
        assert_eq!(
            answer,
            ["error: the VM is entitled to 250 to 1500 millicores"]
        );
    }
    assert_eq!(vm.cap.millicores(), Some(500), "nothing has changed");
}

#[test]
fn a_vm_without_acpi_keeps_its_vcpus() {
    let operator = operator();
    let vms = vms(kernel(4096), true, |config| config.firmware = Firmware::Fdt);
    let answer = answers(vms, &operator, set(3));
    assert_eq!(
        answer,
        ["error: guest has no ACPI (firmware fdt): its vCPU count is fixed"]
    );
}

#[test]
fn a_list_of_vcpus_waits_until_their_cpus_have_published() {
    let (operator, (vms, _)) = (operator(), running());
    let host = &vms.host;
    let list = Command::VcpuList { vm: FIRST };
    assert!(answers(vms, &operator, list).is_empty());
    assert!(operator.is_awaited() && operator.is_dirty());
    host.asked.take();
    let until = operator.tell(vms).expect("a limit");
    assert_eq!(*host.asked.borrow(), [0, 1], "every CPU of the VM");
    for cpu in [0, 1] {
        assert!(host.replied.borrow().is_empty());
        let cpu = PcpuId::new(cpu);
        let round = vms.asked(cpu).expect("asked");
        vms.published(cpu, round);
        operator.tell(vms);
    }
    assert!(host.replied.take()[0].starts_with("VcpuList"));
    assert!(!operator.is_awaited());
    // A CPU that says nothing is not waited for without end.
    assert!(answers(vms, &operator, Command::VcpuList { vm: FIRST }).is_empty());
    operator.tell(vms);
    host.now.set(until);
    operator.tell(vms);
    assert_eq!(host.replied.take().len(), 1);
}

/// Lets the operator's side and its rounds go on until nothing is left for now; returns when to look again.
fn settle(vms: &'static Vms<Fake>, operator: &Operator) -> Option<u64> {
    let mut next = None;
    for _ in 0..4 {
        for cpu in [0, 1].map(PcpuId::new) {
            if let Some(round) = vms.asked(cpu) {
                vms.published(cpu, round);
            }
        }
        next = operator.tell(vms);
    }
    next
}

/// Returns what a VM has held and could have held, in nanoseconds.
fn held(vms: &Vms<Fake>) -> (u64, u64) {
    let Reply::Usage { vms, .. } = vms.usage(None) else {
        panic!("not the meters");
    };
    (vms[0].meter.held_ns, vms[0].meter.entitled_ns)
}

#[test]
fn meters_go_on_over_resizes_resets_and_stops_and_stand_while_the_vm_is_off() {
    let vms = vms(kernel(4096), true, |config| {
        config.entitlement.vcpus = Some(Bounds {
            min: 1,
            max: 3,
            unit: "vCPUs",
        });
        config.max_vcpus = 4;
    });
    let (instance, host) = (&vms.all()[0], &vms.host);
    let boot = u64::from(instance.config.boot_vcpus);
    let (mut vcpus_ns, mut entitled_ns) = (0, 0);
    let mut pass = |held_vcpus: u64| {
        host.now.set(host.now.get() + 1000);
        vcpus_ns += 16_000 * held_vcpus;
        entitled_ns += 16_000 * 3 * u64::from(held_vcpus != 0);
        assert_eq!(held(vms), (vcpus_ns, entitled_ns));
    };
    pass(0);
    assert!(vms.start(instance));
    pass(boot);
    work(vms);
    run(vms, 0);
    let operator = operator();
    vms.work(instance.vm, Work::Resize(Answer::Listens));
    assert!(answers(vms, &operator, set(3)).is_empty());
    pass(3);
    // The guest gives one back unasked.
    let ejects = Work::Resize(Answer::Eject(VcpuId::new(2)));
    vms.work(instance.vm, ejects);
    pass(2);
    assert!(vms.reset(instance.vm, Cause::Operator));
    pass(2);
    leave(vms);
    work(vms);
    pass(boot);
    run(vms, 0);
    assert!(vms.pause(instance));
    pass(boot);
    assert!(vms.stop(instance.vm, Cause::Operator));
    pass(boot);
    leave(vms);
    work(vms);
    pass(0);
}

#[test]
fn usage_is_told_once_or_again_and_again_until_that_is_taken_back() {
    let (operator, (vms, vm)) = (operator(), running());
    let host = &vms.host;
    assert!(answers(vms, &operator, Command::Usage { vm: Some(FIRST) }).is_empty());
    settle(vms, &operator);
    assert!(host.replied.take()[0].starts_with("Usage"));
    let watch = |period_s| Command::WatchUsage { period_s };
    host.told.take();
    assert_eq!(answers(vms, &operator, watch(Some(2))), ["Done"]);
    let told = || {
        let told = host.told.take();
        told.iter().filter(|what| what.starts_with("Usage")).count()
    };
    let mut next_ns = settle(vms, &operator).expect("a time");
    assert_eq!((next_ns, told()), (2_000_000_000 + host.now.get() * 16, 0));
    for _ in 0..3 {
        host.now.set(next_ns / 16);
        let then_ns = settle(vms, &operator).expect("a time");
        assert_eq!((then_ns - next_ns, told()), (2_000_000_000, 1));
        next_ns = then_ns;
    }
    // What was missed is not made up for, and the times stay.
    host.now.set((next_ns + 7_000_000_000) / 16);
    let then_ns = settle(vms, &operator).expect("a time");
    assert_eq!((then_ns - next_ns, told()), (8_000_000_000, 1));
    assert_eq!(answers(vms, &operator, watch(None)), ["Done"]);
    assert_eq!(settle(vms, &operator), None);
    assert!(!vm.is_left());
}

#[test]
fn a_vcpu_that_moves_is_told_of_when_it_is_there_or_stays() {
    let (operator, (vms, vm)) = (operator(), running());
    let host = &vms.host;
    let nowhere = "error: there is no such vCPU or CPU";
    assert_eq!(answers(vms, &operator, pin(0, 2)), [nowhere]);
    assert_eq!(answers(vms, &operator, pin(9, 1)), [nowhere]);
    let (vcpu, old) = (&vm.vcpus[0], vm.vcpus[0].at.placement());
    assert!(answers(vms, &operator, pin(0, 1)).is_empty());
    assert_eq!(
        answers(vms, &operator, pin(1, 0)),
        ["error: a vCPU is being moved"]
    );
    let until = operator.tell(vms).expect("a limit");
    assert!(vcpu.at.is_pending() && host.replied.borrow().is_empty());
    // Its CPU has not given it up in time: it stays, and its place is free again.
    host.now.set(host.ticks(until));
    host.is_full.set(true);
    operator.tell(vms);
    assert!(host.replied.borrow().is_empty(), "no room for the answer");
    host.is_full.set(false);
    operator.tell(vms);
    assert_eq!(host.replied.take(), ["error: its CPU does not give it up"]);
    assert!(!vcpu.at.is_pending() && vcpu.at.placement() == old);
    // Where it is already, it need not move.
    let here = pin(0, old.pcpu().get());
    assert!(answers(vms, &operator, here).is_empty());
    operator.tell(vms);
    assert_eq!(host.replied.take(), ["Done"]);
    assert!(
        !vcpu.at.change_pending(old, Placement::NOWHERE),
        "nothing is left"
    );
}

#[test]
fn the_end_of_a_resize_answers_who_asked_for_it_and_is_told_afterwards() {
    let (operator, (vms, vm)) = (operator(), running());
    let instance = &vms.all()[0];
    assert!(answers(vms, &operator, set(3)).is_empty());
    assert!(vms.stop(vm, Cause::Operator));
    leave(vms);
    vms.host.told.take();
    // The fake host notes the report; here it comes as from the machine.
    let progress = instance.resizer.lock().on_vm_off(vm);
    let report = progress.report.expect("the resize ends with its VM");
    operator.resized(&vms.host, instance, report);
    assert_eq!(instance.target.load(Ordering::Relaxed), 3);
    for _ in 0..3 {
        operator.tell(vms);
        for cpu in [0, 1].map(PcpuId::new) {
            if let Some(round) = vms.asked(cpu) {
                vms.published(cpu, round);
            }
        }
    }
    assert_eq!(vms.host.replied.take().len(), 1);
    let Reply::Usage { vms: meters, .. } = vms.usage(None) else {
        panic!("not the meters");
    };
    let ended = meters[0].meter.resizes.map(|counts| counts[0]);
    assert_eq!(ended, [0, 0, 1, 0], "one was refused, at once");
    let told = vms.host.told.take();
    assert!(
        told.iter().any(|what| what.starts_with("ResizeDone")),
        "{told:?}"
    );
}

#[test]
fn events_wait_for_room_and_take_turns_with_the_guests() {
    let (operator, (vms, vm)) = (operator(), running());
    let host = &vms.host;
    host.told.take();
    for _ in 0..6 {
        operator.push_at(host, 0, vm, What::VmPaused);
    }
    host.is_full.set(true);
    assert_eq!(operator.tell(vms), Some(7), "tried again");
    host.is_full.set(false);
    assert!(host.told.borrow().is_empty());
    operator.tell(vms);
    assert_eq!(host.told.take().len(), 4);
    assert!(operator.is_dirty(), "there are more");
    operator.tell(vms);
    assert_eq!(host.told.take(), ["VmPaused, 0 lost"; 2]);
    assert!(!operator.is_dirty());
}

#[test]
fn a_weight_is_the_manifests_until_the_operator_says_another() {
    let vms = vms(kernel(4096), true, |config| config.cpu_weight = 700);
    let (operator, vm) = (operator(), vms.all()[0].vm);
    assert_eq!(vm.terms().weight, 700);
    assert!(vms.start(&vms.all()[0]));
    work(vms);
    run(vms, 0);
    vm.vcpus[0].requests.store(0, Ordering::SeqCst);
    let weigh = Command::VmWeight {
        vm: FIRST,
        weight: 50,
    };
    assert_eq!(answers(vms, &operator, weigh), ["Done"]);
    assert_eq!(vm.terms().weight, 50);
    assert_ne!(vm.vcpus[0].requested() & crate::vm::request::AGREE, 0);
}

#[test]
fn a_cap_is_set_and_taken_away_while_the_vm_runs() {
    let cap = |millicores| Command::VmCap {
        vm: FIRST,
        millicores,
    };
    for configured in [None, Some(250)] {
        let vms = vms(kernel(4096), true, |config| config.cpu_cap = configured);
        let (operator, vm) = (operator(), vms.all()[0].vm);
        assert_eq!(vm.cap.millicores(), configured);
        assert!(vms.start(&vms.all()[0]));
        work(vms);
        run(vms, 0);
        for millicores in [Some(1500), None] {
            vm.vcpus[0].requests.store(0, Ordering::SeqCst);
            assert_eq!(answers(vms, &operator, cap(millicores)), ["Done"]);
            assert_eq!(vm.cap.millicores(), millicores);
            assert_ne!(vm.vcpus[0].requested() & crate::vm::request::AGREE, 0);
        }
    }
}
