//! Lives of a GICv2 machine over the core, compared with an ideal one that has no list registers.

use proptest::prelude::*;
use std::vec::Vec;
use types::access::AccessWidth;

use super::{distributor, list_register};
use crate::fake::FakeCpu;
use crate::{
    After, Inbox, IntId, ListRegister, ListRegisters, LrState, Maintenance, Notice, Sgis, Spis,
    VcpuInterrupts,
};

const VCPUS: usize = 3;
const SPI: u32 = 40;
const SGIR: u32 = 0xf00;
const ITARGETSR: u32 = 0x800;

/// List registers that keep no more than GICv2's 32 bits of each value.
struct Gich(FakeCpu);

impl ListRegisters for Gich {
    fn count(&self) -> usize {
        self.0.count()
    }

    fn read(&self, n: usize) -> ListRegister {
        self.0.read(n)
    }

    fn write(&mut self, n: usize, value: ListRegister) {
        let kept = list_register::decode(list_register::encode(value));
        assert_eq!(kept, value, "a list register of GICv2 cannot hold it");
        self.0.write(n, kept);
    }

    fn empty(&self) -> u32 {
        self.0.empty()
    }

    fn eoi_status(&self) -> u32 {
        self.0.eoi_status()
    }

    fn set_maintenance(&mut self, events: Maintenance) {
        self.0.set_maintenance(events);
    }

    fn take_eoi_count(&mut self) -> u32 {
        self.0.take_eoi_count()
    }

    fn lines(&self) -> u32 {
        self.0.lines()
    }
}

struct Vcpu {
    interrupts: VcpuInterrupts,
    inbox: Inbox,
    gich: Gich,
    /// What an ideal GIC has pending of each SGI: its senders, a bit each.
    pending: [u8; 16],
    enabled: u16,
}

struct Machine {
    spis: Spis,
    vcpus: Vec<Vcpu>,
}

fn post_to(inboxes: &[&Inbox]) -> impl FnMut(u16, Notice) {
    move |to, notice| {
        let _kick = inboxes[usize::from(to)].post(notice);
    }
}

impl Machine {
    /// Everything in group 1 and enabled; SPI 40 an edge; each SGI more urgent than the one before.
    fn new(lr_count: usize) -> Self {
        let vcpu = |index: usize| Vcpu {
            interrupts: VcpuInterrupts::new(index as u16, Sgis::BySource, lr_count),
            inbox: Inbox::new(),
            gich: Gich(FakeCpu::new(lr_count)),
            pending: [0; 16],
            enabled: u16::MAX,
        };
        let mut machine = Self {
            spis: Spis::new(32, VCPUS as u16).unrouted(),
            vcpus: (0..VCPUS).map(vcpu).collect(),
        };
        for v in 0..VCPUS {
            machine.spis.join(v as u16, &mut |_, _| {});
            machine.write(v, 0x080, u32::MAX);
            machine.write(v, 0x100, u32::MAX);
            for id in (0..16).step_by(4) {
                machine.write(v, 0x400 + id, 0x4048_5058 + 0x0101_0101 * 8 * (12 - id));
            }
        }
        machine.write(0, 0x084, u32::MAX);
        machine.write(0, 0x104, u32::MAX);
        machine.write(0, 0xc08, 0xaaaa_aaaa);
        machine.write(0, 0x000, 3);
        machine.sync_all();
        machine
    }

    fn with<R>(
        &mut self,
        v: usize,
        act: impl FnOnce(&Spis, &mut VcpuInterrupts, &mut Gich, &mut dyn FnMut(u16, Notice)) -> R,
    ) -> R {
        let mut posts = Vec::new();
        let Vcpu {
            interrupts, gich, ..
        } = &mut self.vcpus[v];
        let mut post = |to, notice| posts.push((to, notice));
        let result = act(&self.spis, interrupts, gich, &mut post);
        let inboxes: Vec<_> = self.vcpus.iter().map(|vcpu| &vcpu.inbox).collect();
        let mut post = post_to(&inboxes);
        for (to, notice) in posts {
            post(to, notice);
        }
        result
    }

    fn settle(&mut self, v: usize) {
        self.with(v, |spis, interrupts, gich, mut post| {
            interrupts.settle(spis, gich, &mut post);
        });
    }

    fn access(&mut self, v: usize, offset: u32, width: AccessWidth, value: u32) {
        let effect = self.with(v, |spis, interrupts, gich, mut post| {
            distributor::write(spis, interrupts, gich, (offset, width), value, &mut post)
        });
        assert_eq!(effect.owed.0, 0, "nothing physical stands behind these");
        if effect.after == After::Settle {
            self.settle(v);
        }
    }

    fn write(&mut self, v: usize, offset: u32, value: u32) {
        self.access(v, offset, AccessWidth::Word, value);
    }

    fn read(&mut self, v: usize, offset: u32) -> u32 {
        self.with(v, |spis, interrupts, gich, mut post| {
            distributor::read(
                spis,
                interrupts,
                gich,
                (offset, AccessWidth::Word),
                &mut post,
            )
        })
    }

    fn sync_all(&mut self) {
        for round in 0.. {
            assert!(round < 20, "maintenance storm or endless notices");
            let mut quiet = true;
            for v in 0..VCPUS {
                let inbox = core::mem::take(&mut self.vcpus[v].inbox);
                let due = self.vcpus[v].gich.0.maintenance_due();
                quiet &= inbox.is_empty() && !due;
                self.with(v, |spis, interrupts, gich, mut post| {
                    let owed = interrupts.deliver(&inbox, spis, gich, &mut post);
                    assert_eq!(owed.0, 0);
                    if due {
                        let owed = interrupts.maintenance(spis, gich, &mut post);
                        assert_eq!(owed.0, 0);
                    }
                });
            }
            if quiet {
                return;
            }
        }
    }

    /// Sends an SGI by GICD_SGIR, and to the ideal GIC.
    fn send(&mut self, from: usize, id: u32, targets: u32) {
        self.write(from, SGIR, targets << 16 | id);
        for v in (0..VCPUS).filter(|v| targets & 1 << v != 0) {
            self.vcpus[v].pending[id as usize] |= 1 << from;
        }
        self.sync_all();
    }

    /// Acknowledges: returns the INTID and the sender, as GICC_IAR has them.
    fn acknowledge(&mut self, v: usize) -> Option<(u32, u32)> {
        self.sync_all();
        let cpu = &mut self.vcpus[v].gich.0;
        let intid = cpu.acknowledge()?;
        let lr = (0..cpu.count()).map(|n| cpu.read(n));
        let active = lr.filter(|lr| lr.is_active() && lr.intid() == intid.get());
        let source = active.last().map_or(0, ListRegister::source);
        Some((intid.get(), u32::from(source)))
    }

    fn end(&mut self, v: usize) {
        if let Some(intid) = self.vcpus[v].gich.0.drop_priority() {
            self.vcpus[v].gich.0.deactivate(intid);
        }
        self.sync_all();
    }

    /// What the ideal GIC would signal: the number of the most urgent SGI, the highest here.
    fn best(&self, v: usize) -> Option<u32> {
        let vcpu = &self.vcpus[v];
        let running = vcpu.gich.0.running().last().map(|(id, _)| id.get());
        (running.map_or(0, |id| id + 1)..16)
            .rev()
            .find(|&id| vcpu.pending[id as usize] != 0 && vcpu.enabled & 1 << id != 0)
    }

    /// Acknowledges as a guest does, and holds what comes against the ideal GIC.
    fn take(&mut self, v: usize) -> bool {
        self.sync_all();
        let best = self.best(v);
        let taken = self.acknowledge(v);
        assert_eq!(taken.map(|(id, _)| id), best, "vCPU {v}");
        let Some((id, source)) = taken else {
            return false;
        };
        let pending = &mut self.vcpus[v].pending[id as usize];
        assert!(
            *pending & 1 << source != 0,
            "SGI {id} from {source}: {pending:#x}"
        );
        *pending &= !(1 << source);
        true
    }
}

#[test]
fn each_sender_of_an_sgi_is_heard_once() {
    for lr_count in [1, 2, 4] {
        let mut machine = Machine::new(lr_count);
        for from in [2, 0, 1, 0] {
            machine.send(from, 3, 0b110);
        }
        assert_eq!(machine.read(1, 0xf20), 0x0700_0000);
        assert_eq!(machine.read(1, 0x200) & 0xffff, 1 << 3);
        for v in [1, 2] {
            let mut sources = Vec::new();
            while let Some((id, source)) = machine.acknowledge(v) {
                assert_eq!(id, 3);
                sources.push(source);
                machine.end(v);
            }
            sources.sort_unstable();
            assert_eq!(sources, [0, 1, 2]);
        }
        assert_eq!(machine.acknowledge(0), None);
    }
}

#[test]
fn senders_are_cleared_and_set_one_by_one() {
    let mut machine = Machine::new(2);
    for from in 0..3 {
        machine.send(from, 5, 1);
    }
    machine.access(0, 0xf15, AccessWidth::Byte, 0b011);
    assert_eq!(machine.read(0, 0xf24), 0b100 << 8);
    machine.access(0, 0xf25, AccessWidth::Byte, 0xf9);
    assert_eq!(machine.read(0, 0xf14), 0b101 << 8);
    machine.access(0, 0x200, AccessWidth::Word, 1 << 6);
    machine.access(0, 0x280, AccessWidth::Word, 1 << 5);
    let mut sources = Vec::new();
    while let Some((id, source)) = machine.acknowledge(0) {
        sources.push((id, source));
        machine.end(0);
    }
    sources.sort_unstable();
    assert_eq!(sources, [(5, 0), (5, 2)]);
}

#[test]
fn filters_of_the_sgi_register_choose_the_targets() {
    let mut machine = Machine::new(2);
    let table: [(u32, [bool; 3]); 5] = [
        (0xff << 16, [true, true, true]),
        (0b100 << 16, [false, false, true]),
        (1 << 24 | 0xff << 16, [true, false, true]),
        (2 << 24, [false, true, false]),
        (3 << 24 | 0xff << 16, [false, false, false]),
    ];
    for (value, expected) in table {
        machine.write(1, SGIR, value | 9);
        for (v, expected) in (0..).zip(expected) {
            let taken = machine.acknowledge(v);
            assert_eq!(taken, expected.then_some((9, 1)), "{value:#x}, vCPU {v}");
            machine.end(v);
        }
    }
}

#[test]
fn an_spi_goes_to_one_of_its_targets_that_is_on() {
    let mut machine = Machine::new(2);
    let spi = IntId::new(SPI).unwrap();
    assert_eq!(machine.read(1, ITARGETSR), 0x0202_0202, "private: oneself");
    let pulse = |machine: &mut Machine| {
        machine.with(0, |spis, _, _, mut post| spis.pulse(spi, &mut post));
        machine.sync_all();
    };
    pulse(&mut machine);
    assert!(
        (0..VCPUS).all(|v| machine.acknowledge(v).is_none()),
        "it goes to none until the guest says more"
    );
    machine.access(0, ITARGETSR + SPI, AccessWidth::Byte, 0b110);
    assert_eq!(machine.read(0, ITARGETSR + SPI), 0b110);
    assert_eq!(machine.acknowledge(1), Some((SPI, 0)));
    machine.end(1);
    machine.spis.leave(1);
    pulse(&mut machine);
    assert_eq!(machine.acknowledge(1), None);
    assert_eq!(machine.acknowledge(2), Some((SPI, 0)));
    machine.end(2);
    machine.access(2, ITARGETSR + SPI, AccessWidth::Byte, 0);
    pulse(&mut machine);
    assert!((0..VCPUS).all(|v| machine.acknowledge(v).is_none()));
    machine.access(2, ITARGETSR + SPI, AccessWidth::Byte, 0xff);
    assert_eq!(machine.read(2, ITARGETSR + SPI), 0b111, "three vCPUs");
    assert_eq!(machine.acknowledge(0), Some((SPI, 0)));
    machine.end(0);
    let vcpu = &machine.vcpus[0];
    assert_eq!(vcpu.interrupts.held(&vcpu.gich, spi), LrState::Inactive);
}

#[test]
fn every_offset_width_and_value_is_survived() {
    let mut machine = Machine::new(4);
    for value in [u32::MAX, 0x5a5a_5a5a] {
        for offset in 0..0x1010 {
            for width in [AccessWidth::Byte, AccessWidth::Half, AccessWidth::Word] {
                machine.access(1, offset, width, value);
            }
            machine.read(1, offset);
        }
        machine.sync_all();
    }
    // It works afterwards.
    for (offset, value) in [
        (0x380, u32::MAX),
        (0x080, u32::MAX),
        (0x100, u32::MAX),
        (0, 3),
    ] {
        machine.write(1, offset, value);
    }
    machine.send(1, 3, 0b10);
    assert!(machine.acknowledge(1).is_some());
}

#[test]
fn the_controller_says_what_it_is() {
    let mut machine = Machine::new(4);
    assert_eq!(machine.read(0, 0x004), 1 | 2 << 5, "64 interrupts, 3 CPUs");
    assert_eq!(machine.read(0, 0x008), 0x4200_0000);
    assert_eq!(machine.read(0, 0xfe8), 0x2b);
    machine.write(0, 0x004, u32::MAX);
    assert_eq!((machine.read(0, 0x004), machine.read(0, 0xf00)), (0x41, 0));
}

#[test]
fn a_reset_enables_the_sgis_and_routes_nothing() {
    let mut machine = Machine::new(4);
    let Vcpu {
        interrupts, gich, ..
    } = &mut machine.vcpus[1];
    let owed = interrupts.reset(gich);
    machine.spis.reset();
    assert_eq!(owed.0, 0);
    assert_eq!(machine.read(1, 0x100), 0xffff);
    assert_eq!(machine.read(1, ITARGETSR + SPI), 0);
    assert_eq!(
        (machine.read(1, 0), machine.read(1, 0x080)),
        (0, 0),
        "group 0"
    );
}

#[test]
fn private_interrupts_are_each_vcpu_s_own() {
    let mut machine = Machine::new(4);
    machine.write(1, 0x180, 1 << 27);
    assert_eq!(machine.read(1, 0x100) & 1 << 27, 0);
    assert_ne!(machine.read(2, 0x100) & 1 << 27, 0);
    machine.write(1, 0x200, 1 << 30 | 1 << 5);
    assert_eq!(
        machine.read(1, 0x200),
        1 << 30,
        "an SGI is not made pending so"
    );
    assert_eq!(machine.read(2, 0x200), 0);
    assert_eq!(machine.acknowledge(1), Some((30, 0)));
    assert_eq!(machine.read(1, 0x300), 1 << 30);
    machine.end(1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 200 } else { 5_000 }))]

    #[test]
    fn guests_hear_of_every_sender_as_from_an_ideal_gic(
        lr_count in 1_usize..=4,
        script in prop::collection::vec((0..6_u8, 0..VCPUS, 0..16_u32, 0..8_u32), 1..100),
    ) {
        let mut machine = Machine::new(lr_count);
        for (what, v, id, set) in script {
            let vcpu = &mut machine.vcpus[v];
            match what {
                0 | 1 => machine.send(v, id, set),
                2 => drop(machine.take(v)),
                3 => machine.end(v),
                4 => {
                    vcpu.pending[id as usize] &= !(set as u8);
                    machine.access(v, 0xf10 + id, AccessWidth::Byte, set);
                }
                _ => {
                    let on = set & 1 != 0;
                    let bit = 1 << id;
                    vcpu.enabled = if on { vcpu.enabled | bit } else { vcpu.enabled & !bit };
                    machine.write(v, if on { 0x100 } else { 0x180 }, u32::from(bit));
                }
            }
        }
        for v in 0..VCPUS {
            machine.vcpus[v].enabled = u16::MAX;
            machine.write(v, 0x100, 0xffff);
            while machine.take(v) || !machine.vcpus[v].gich.0.running().is_empty() {
                machine.end(v);
            }
            prop_assert_eq!(machine.vcpus[v].pending, [0; 16]);
            prop_assert_eq!(machine.acknowledge(v), None);
        }
    }
}
