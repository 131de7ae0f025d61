//! Memory that comes and goes on a fake host: what is taken is cleared, mapped, announced once, and given back to the byte.

use alloc::vec::Vec;
use control_plane::console::{Ask, CommandError, ErrorKind, Reply, Token, What};
use proptest::prelude::*;
use stage2::Attributes;
use types::access::AccessWidth;
use types::address::GuestPhys;
use types::devices::DeviceId;
use types::hotplug::{EVENT, FRAME_BYTES, FRAME_EJECT, FRAME_OST, FRAME_STA, SLOT_FRAMES, SLOTS};
use types::ids::VcpuId;
use types::layout::Slots;

use super::{Fake, HOT_BLOCK as BLOCK, HOT_RAM, MEMORY, kernel, leave, run, translate, vms, work};
use crate::cpu::Manager;
use crate::devices::Access;
use crate::ops::Vms;
use crate::vm::{Around, Cause, Kicks, Phase, Vm};

const BASE: u64 = 0x8000_0000;
/// Events as EVENT shows them, for slot 0.
const ADDED: u64 = 0x8101_0000;
const ASKED_BACK: u64 = 0x8103_0000;
const MORE: u64 = 1 << 30;
/// What a guest reports by `_OST`.
const ADD_DONE: u32 = 0x0001_0000;
const ADD_FAILED: u32 = 0x0001_0001;
const EJECTING: u32 = 0x0003_0084;
const BUSY: u32 = 0x0003_0082;
const EJECTED: u32 = 0x0003_0000;

/// A VM with four slots that runs and listens, on a host with so many blocks.
fn slotted(blocks: u64) -> (&'static Vms<Fake>, &'static Vm) {
    let vms = vms(kernel(4096), true, |config| {
        config.slots = Slots {
            base: GuestPhys::new(BASE),
            block: BLOCK,
            count: 4,
        };
    });
    vms.host.blocks.set(blocks);
    assert!(vms.start(&vms.all()[0]));
    work(vms);
    run(vms, 0);
    let vm = vms.all()[0].vm;
    assert_eq!(event(vms, vm), 0);
    (vms, vm)
}

fn read(vms: &Vms<Fake>, vm: &'static Vm, offset: u64) -> u64 {
    let width = AccessWidth::Word;
    let access = Access { offset, width };
    loop {
        let mut kicks = Kicks::NONE;
        let mut around = Around::new(vm, DeviceId::Hotplug, &vms.host, &mut kicks);
        if let Some(value) = vm.devices.peek(DeviceId::Hotplug, access, vm) {
            return value;
        }
        match vm.devices.read(DeviceId::Hotplug, access, &mut around) {
            Ok(value) => return value,
            Err(work) => vms.work(vm, work),
        }
    }
}

fn event(vms: &Vms<Fake>, vm: &'static Vm) -> u64 {
    read(vms, vm, EVENT)
}

fn sta(vms: &Vms<Fake>, vm: &'static Vm, slot: u64) -> u64 {
    read(vms, vm, SLOT_FRAMES + slot * FRAME_BYTES + FRAME_STA)
}

fn write(vms: &Vms<Fake>, vm: &'static Vm, slot: u64, register: u64, value: u32) {
    let access = Access {
        offset: SLOT_FRAMES + slot * FRAME_BYTES + register,
        width: AccessWidth::Word,
    };
    let mut kicks = Kicks::NONE;
    let mut around = Around::new(vm, DeviceId::Hotplug, &vms.host, &mut kicks);
    let value = u64::from(value);
    let work = vm
        .devices
        .write(DeviceId::Hotplug, access, value, &mut around);
    if let Some(work) = work {
        vms.work(vm, work);
    }
}

/// Ejects a slot as Linux does that can.
fn eject(vms: &Vms<Fake>, vm: &'static Vm, slot: u64) {
    write(vms, vm, slot, FRAME_OST, EJECTING);
    write(vms, vm, slot, FRAME_EJECT, 1);
    assert_eq!(sta(vms, vm, slot), 0, "when the write is over");
    write(vms, vm, slot, FRAME_OST, EJECTED);
}

/// Asks for so many slots.
fn set(vms: &Vms<Fake>, slots: u64, force: bool) -> Result<(), CommandError> {
    let bytes = MEMORY + slots * BLOCK;
    vms.set_memory(
        &vms.all()[0],
        Token::default(),
        Ask { bytes, force },
        Some(10),
    )
}

/// Gives the guest so many slots, all of which it takes.
fn grow(vms: &Vms<Fake>, vm: &'static Vm, from: u64, to: u64) {
    set(vms, to, true).expect("it begins");
    work(vms);
    for slot in from..to {
        let more = if slot + 1 == to { 0 } else { MORE };
        assert_eq!(event(vms, vm), ADDED | more | slot);
        write(vms, vm, slot, FRAME_OST, ADD_DONE);
    }
    assert_eq!(vms.host.ends.take(), ["guest Done"]);
}

fn words(vms: &Vms<Fake>) -> Vec<&'static str> {
    match vms.memory_list(&vms.all()[0]) {
        Reply::MemoryList { slots, .. } => slots.iter().map(|row| row.state).collect(),
        other => panic!("{other:?}"),
    }
}

fn is_mapped(vms: &Vms<Fake>, slot: u64) -> bool {
    let ends = [0, BLOCK - 1].map(|offset| {
        let found = translate(&vms.all()[0], BASE + slot * BLOCK + offset);
        found.map(|(host, attributes)| {
            assert_eq!(attributes, Attributes::RAM);
            host.get() - offset
        })
    });
    assert_eq!(ends[0], ends[1]);
    ends[0].is_some()
}

#[test]
fn memory_is_cleared_mapped_and_announced_once_and_comes_back_whole() {
    let (vms, vm) = slotted(3);
    assert_eq!(read(vms, vm, SLOTS), 4);
    assert_eq!(
        set(vms, 2, false).unwrap_err().kind,
        ErrorKind::NeedsForce,
        "8 MiB from boot"
    );
    set(vms, 2, true).expect("it begins");
    assert_eq!(vms.host.blocks.get(), 1, "taken before it is announced");
    assert_eq!((sta(vms, vm, 0), event(vms, vm)), (0, 0), "nothing yet");
    assert_eq!(words(vms), ["preparing", "preparing", "absent", "absent"]);
    work(vms);
    assert_eq!(vms.host.scrubbed.get(), 2 * BLOCK);
    assert!(vms.host.longest_scrub.get() <= 16 << 10);
    assert!(is_mapped(vms, 0) && is_mapped(vms, 1) && !is_mapped(vms, 2));
    assert_eq!(vm.hot.bytes(), 2 * BLOCK);
    assert_eq!(words(vms), ["offered", "offered", "absent", "absent"]);
    assert_eq!(event(vms, vm), ADDED | MORE);
    assert_eq!(event(vms, vm), ADDED | 1);
    assert_eq!([0, 1, 2].map(|slot| sta(vms, vm, slot)), [0xf, 0xf, 0]);
    write(vms, vm, 0, FRAME_OST, ADD_DONE);
    assert!(vms.host.ends.borrow().is_empty());
    write(vms, vm, 1, FRAME_OST, ADD_DONE);
    assert_eq!(vms.host.ends.take(), ["guest Done"]);
    assert_eq!(words(vms)[..2], ["acknowledged", "acknowledged"]);
    // Back, but only by force.
    let error = set(vms, 0, false).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NeedsForce);
    set(vms, 0, true).expect("it begins");
    assert_eq!(event(vms, vm), ASKED_BACK | MORE);
    assert_eq!(event(vms, vm), ASKED_BACK | 1);
    assert_eq!(words(vms)[..2], ["eject-pending", "eject-pending"]);
    vms.host.told.take();
    let forgotten = vms.host.forgotten.get();
    eject(vms, vm, 0);
    assert_eq!(vms.host.forgotten.get(), forgotten + 1, "by every TLB");
    assert!(!is_mapped(vms, 0) && is_mapped(vms, 1));
    eject(vms, vm, 1);
    assert_eq!(vms.host.ends.take(), ["guest Done"]);
    assert!(!is_mapped(vms, 1));
    assert!(vms.host.told.take().is_empty(), "it was asked for");
    assert_eq!(vms.host.blocks.get(), 3);
    let released = vms.host.released.take();
    assert_eq!(released.len(), 2);
    assert!(released.iter().all(|start| *start >= HOT_RAM));
    assert_eq!(vm.hot.find(GuestPhys::new(BASE)), None);
    grow(vms, vm, 0, 3);
}

#[test]
fn what_cannot_be_begun_is_refused_and_takes_nothing() {
    let (vms, vm) = slotted(2);
    let kind = |result: Result<(), CommandError>| result.unwrap_err().kind;
    assert_eq!(kind(set(vms, 3, true)), ErrorKind::NoResources);
    assert_eq!(vms.host.blocks.get(), 2);
    assert_eq!(kind(set(vms, 5, true)), ErrorKind::BadNumber);
    set(vms, 1, true).expect("it begins");
    assert_eq!(kind(set(vms, 2, true)), ErrorKind::Busy);
    assert_eq!(vms.host.blocks.get(), 1);
    let _was_on = vms.stop(vm, Cause::Operator);
    assert_eq!(kind(set(vms, 1, true)), ErrorKind::WrongState);
}

/// A request costs by the pieces in which the host has its memory, not by slots.
#[test]
fn blocks_that_are_together_are_taken_at_once() {
    for (together, blocks, takes) in [(0, 512, 1), (128, 512, 6), (1, 4, 6)] {
        let (vms, _) = slotted(blocks);
        vms.host.together.set(together);
        let taken = vms.take_blocks(BLOCK, blocks as u16).expect("enough");
        assert_eq!(vms.host.takes.get(), takes);
        let mut starts: Vec<_> = taken.iter().map(|piece| piece.start).collect();
        starts.sort_unstable();
        let expected = (0..blocks).map(|block| HOT_RAM + block * BLOCK);
        assert!(starts.into_iter().eq(expected), "each block once");
        assert!(taken.iter().all(|piece| piece.end - piece.start == BLOCK));
    }
    let (vms, _) = slotted(3);
    assert_eq!(vms.take_blocks(BLOCK, 4), None);
    assert_eq!(vms.host.blocks.get(), 3, "what was taken is given back");
}

#[test]
fn a_busy_block_is_the_guests_no_and_its_own_eject_is_accepted() {
    let (vms, vm) = slotted(2);
    grow(vms, vm, 0, 2);
    set(vms, 1, true).expect("it begins");
    assert_eq!(event(vms, vm), ASKED_BACK | 1);
    write(vms, vm, 1, FRAME_OST, EJECTING);
    write(vms, vm, 1, FRAME_OST, BUSY);
    assert_eq!(vms.host.ends.take(), ["guest Refused"]);
    assert!(is_mapped(vms, 1));
    assert_eq!(words(vms)[..2], ["acknowledged", "acknowledged"]);
    // The guest's user gives it back after all.
    write(vms, vm, 1, FRAME_EJECT, 1);
    assert!(!is_mapped(vms, 1));
    assert_eq!((sta(vms, vm, 1), vms.host.blocks.get()), (0, 1));
    let told = vms.host.told.take();
    let own = What::MemoryEjected(1);
    assert_eq!(told.last(), Some(&alloc::format!("guest {own:?}")));
    // Once more, or one that it never had, is nothing.
    for slot in [1, 2, 3, 4, 511] {
        write(vms, vm, slot, FRAME_EJECT, 1);
        write(vms, vm, slot, FRAME_OST, ADD_DONE);
    }
    assert_eq!(vms.host.blocks.get(), 1);
    assert!(vms.host.told.take().is_empty());
    assert_eq!(words(vms), ["acknowledged", "absent", "absent", "absent"]);
    // Its `_OST` has not closed that eject: it is offered again when it has.
    set(vms, 2, true).expect("it begins");
    work(vms);
    assert_eq!(event(vms, vm), 0);
    write(vms, vm, 1, FRAME_OST, 0x0103_0000);
    work(vms);
    assert_eq!(event(vms, vm), ADDED | 1);
}

#[test]
fn what_the_guest_does_not_take_is_asked_back_and_what_it_cannot_add_too() {
    let (vms, vm) = slotted(4);
    set(vms, 3, true).expect("it begins");
    work(vms);
    let _all_three = [event(vms, vm), event(vms, vm), event(vms, vm)];
    write(vms, vm, 0, FRAME_OST, ADD_DONE);
    write(vms, vm, 1, FRAME_OST, ADD_FAILED);
    assert_eq!(event(vms, vm), ASKED_BACK | 1);
    let deadline_ns = vms.all()[0].memory.resizer.lock().deadline_ns().unwrap();
    vms.host.now.set(deadline_ns / 16 + 1);
    let _next = vms.look_at_resize(&vms.all()[0], types::hotplug::Kind::Slot);
    assert_eq!(vms.host.ends.take(), ["guest Partly"]);
    assert_eq!(event(vms, vm), ASKED_BACK | 2);
    assert_eq!(words(vms)[..3], ["acknowledged", "withdrawn", "withdrawn"]);
    // It may hold them still, so they are not the host's yet.
    assert!(is_mapped(vms, 1) && is_mapped(vms, 2));
    eject(vms, vm, 1);
    eject(vms, vm, 2);
    assert_eq!(vms.host.blocks.get(), 3);
}

#[test]
fn what_is_not_announced_at_the_deadline_was_never_the_guests() {
    let (vms, vm) = slotted(2);
    set(vms, 2, true).expect("it begins");
    let mut turn = 0;
    assert!(vms.go_on(types::ids::PcpuId::new(0), &mut turn));
    let deadline_ns = vms.all()[0].memory.resizer.lock().deadline_ns().unwrap();
    vms.host.now.set(deadline_ns / 16 + 1);
    let _next = vms.look_at_resize(&vms.all()[0], types::hotplug::Kind::Slot);
    assert_eq!(vms.host.ends.take(), ["guest TimedOut"]);
    assert_eq!((event(vms, vm), vms.host.blocks.get()), (0, 2));
    assert_eq!(words(vms)[..2], ["absent", "absent"]);
    vms.host.now.set(vms.host.now.get() + 1_000_000_000);
    grow(vms, vm, 0, 2);
}

#[test]
fn a_reset_keeps_memory_and_what_was_asked_back_is_asked_again() {
    let (vms, vm) = slotted(3);
    grow(vms, vm, 0, 2);
    set(vms, 1, true).expect("it begins");
    assert_eq!(event(vms, vm), ASKED_BACK | 1);
    let _was_on = vms.reset(vm, Cause::Guest);
    leave(vms);
    work(vms);
    run(vms, 0);
    assert_eq!(vm.phase(), Phase::Running);
    assert!(is_mapped(vms, 0) && is_mapped(vms, 1) && !is_mapped(vms, 2));
    assert_eq!([0, 1, 2].map(|slot| sta(vms, vm, slot)), [0xf, 0xf, 0]);
    assert_eq!(event(vms, vm), ASKED_BACK | 1);
    eject(vms, vm, 1);
    assert_eq!(vms.host.ends.take(), ["guest Done"]);
    // What was offered and not answered when the VM was reset is found at the scan.
    set(vms, 3, true).expect("it begins");
    work(vms);
    let _was_on = vms.reset(vm, Cause::Guest);
    leave(vms);
    work(vms);
    assert_eq!(vms.host.ends.take(), ["guest Done"]);
    assert_eq!(words(vms)[..3], ["acknowledged"; 3]);
    assert!(is_mapped(vms, 2));
}

#[test]
fn a_vm_that_ends_gives_all_of_it_back_however_far_it_is() {
    for (steps, is_reset_first) in [(0, false), (1, false), (20_000, false), (20_000, true)] {
        let (vms, vm) = slotted(4);
        grow(vms, vm, 0, 1);
        set(vms, 4, true).expect("it begins");
        let mut turn = 0;
        for _ in 0..steps {
            let _more = vms.go_on(types::ids::PcpuId::new(0), &mut turn);
        }
        if is_reset_first {
            let _was_on = vms.reset(vm, Cause::Guest);
            leave(vms);
            work(vms);
            run(vms, 0);
        }
        let _was_on = vms.stop(vm, Cause::Operator);
        leave(vms);
        work(vms);
        assert_eq!(vm.phase(), Phase::Off);
        assert_eq!((vms.host.blocks.get(), vm.hot.bytes()), (4, 0));
        assert_eq!(words(vms), ["absent"; 4]);
        vms.host.ends.take();
        assert!(
            vm.hot
                .slot(VcpuId::new(0))
                .is_some_and(|slot| slot.host().is_none())
        );
        assert!(vms.start(&vms.all()[0]));
        work(vms);
        run(vms, 0);
        assert_eq!(event(vms, vm), 0);
        assert!(!is_mapped(vms, 0));
        grow(vms, vm, 0, 4);
    }
}

/// What a guest or the operator does next, by chance.
#[derive(Clone, Debug)]
enum Step {
    Set(u64),
    Eject(u64),
    Ost(u64, u32),
    Event,
    Work(usize),
    Deadline,
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let words = [
        ADD_DONE,
        ADD_FAILED,
        EJECTING,
        BUSY,
        EJECTED,
        0x0103_0000,
        u32::MAX,
    ];
    prop_oneof![
        (0..5_u64).prop_map(Step::Set),
        (0..6_u64).prop_map(Step::Eject),
        (0..6_u64, proptest::sample::select(words.to_vec()))
            .prop_map(|(slot, word)| Step::Ost(slot, word)),
        Just(Step::Event),
        (0..20_000_usize).prop_map(Step::Work),
        Just(Step::Deadline),
        Just(Step::Reset),
    ]
}

fn take(vms: &Vms<Fake>, vm: &'static Vm, step: &Step) {
    let cpu = types::ids::PcpuId::new(0);
    match *step {
        // Busy, or as it is, or begun.
        Step::Set(slots) => drop(set(vms, slots, true)),
        Step::Eject(slot) => write(vms, vm, slot, FRAME_EJECT, 1),
        Step::Ost(slot, word) => write(vms, vm, slot, FRAME_OST, word),
        Step::Event => _ = event(vms, vm),
        Step::Work(steps) => {
            let mut turn = 0;
            let _idle = (0..steps).find(|_| !vms.go_on(cpu, &mut turn));
        }
        Step::Deadline => {
            vms.host.now.set(vms.host.now.get() + 1_000_000_000);
            let _next = vms.look_at_resize(&vms.all()[0], types::hotplug::Kind::Slot);
        }
        Step::Reset => {
            let _was_on = vms.reset(vm, Cause::Guest);
            leave(vms);
            work(vms);
            run(vms, 0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a guest writes and when, no block is lost or in two places, and what is mapped is what it has.
    #[test]
    fn blocks_are_neither_lost_nor_doubled_whatever_the_guest_says(steps in proptest::collection::vec(step(), 1..40)) {
        let (vms, vm) = slotted(4);
        for step in &steps {
            take(vms, vm, step);
            let shown = vm.hot.bytes() / BLOCK;
            let waiting = vms.all()[0].memory.waiting() as u64;
            prop_assert_eq!(vms.host.blocks.get() + shown + waiting, 4, "{:?}", step);
            for (number, slot) in (0..).zip(&vm.hot.all) {
                prop_assert_eq!(is_mapped(vms, number), slot.host().is_some(), "{:?} {}", step, number);
            }
        }
        let _was_on = vms.stop(vm, Cause::Operator);
        leave(vms);
        work(vms);
        prop_assert_eq!(vms.host.blocks.get(), 4);
        prop_assert_eq!(words(vms), ["absent"; 4]);
    }
}
