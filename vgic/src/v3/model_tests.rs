//! Random lives of a two-vCPU machine, compared step by step with an ideal GIC that has no list
//! registers: whatever a guest acknowledges must be the most urgent interrupt that the ideal one
//! would have signalled, and nothing may be left when both are empty.

use proptest::prelude::*;
use std::vec;
use std::vec::Vec;
use types::access::AccessWidth;
use types::gicv3;

use super::{distributor, redistributor};
use crate::core::spi::PRIORITY_MASK;
use crate::fake::FakeCpu;
use crate::{
    After, CpuInterface, Effect, Inbox, IntId, ListRegister, ListRegisters, Maintenance, Notice,
    SavedListRegisters, Sgis, Spis, VcpuInterrupts,
};
use types::affinity::Affinity;

const VCPUS: usize = 2;
const TIMER: u32 = 27;
const EMULATED: [u32; 2] = [30, 25];
const EDGE_PPI: u32 = 20;
const SPIS: [u32; 6] = [32, 33, 34, 63, 64, 95];
/// SPIs below are edge-triggered.
const FIRST_LEVEL_SPI: u32 = 63;
const PHYSICAL_TIMER: u32 = 30;

/// The list registers of a vCPU, wherever they are.
enum Lists<'a> {
    Loaded(&'a mut FakeCpu),
    Saved(&'a mut SavedListRegisters),
}

macro_rules! lists {
    ($vcpu:expr) => {
        if $vcpu.loaded {
            Lists::Loaded(&mut $vcpu.cpu)
        } else {
            Lists::Saved(&mut $vcpu.saved)
        }
    };
}

macro_rules! delegate {
    ($lists:expr, $method:ident $(, $argument:expr)*) => {
        match $lists {
            Lists::Loaded(cpu) => cpu.$method($($argument),*),
            Lists::Saved(saved) => saved.$method($($argument),*),
        }
    };
}

impl ListRegisters for Lists<'_> {
    fn count(&self) -> usize {
        delegate!(self, count)
    }

    fn read(&self, n: usize) -> ListRegister {
        delegate!(self, read, n)
    }

    fn write(&mut self, n: usize, value: ListRegister) {
        delegate!(self, write, n, value);
    }

    fn empty(&self) -> u32 {
        delegate!(self, empty)
    }

    fn eoi_status(&self) -> u32 {
        delegate!(self, eoi_status)
    }

    fn set_maintenance(&mut self, events: Maintenance) {
        delegate!(self, set_maintenance, events);
    }

    fn take_eoi_count(&mut self) -> u32 {
        delegate!(self, take_eoi_count)
    }

    fn lines(&self) -> u32 {
        delegate!(self, lines)
    }
}

/// One interrupt of the ideal GIC.
#[derive(Clone, Copy, Debug, Default)]
struct Ideal {
    latched: bool,
    line: bool,
    active: bool,
    enabled: bool,
    level: bool,
    priority: u8,
    /// For SPIs: the vCPU that it goes to.
    route: Option<usize>,
    /// For SPIs that are active: the vCPU that acknowledged it.
    taken_by: usize,
}

impl Ideal {
    fn pending(&self) -> bool {
        self.latched || (self.level && self.line)
    }

    fn deliverable(&self) -> bool {
        self.pending() && self.enabled && !self.active
    }
}

struct Vcpu {
    redistributor: VcpuInterrupts,
    inbox: Inbox,
    cpu: FakeCpu,
    saved: SavedListRegisters,
    loaded: bool,
    private: [Ideal; 32],
    /// The physical timer interrupt behind PPI 27 is active.
    physical: bool,
    /// Acknowledged, priority dropped, not yet deactivated (EOImode 1).
    dropped: Vec<IntId>,
}

struct Machine {
    distributor: Spis,
    vcpus: Vec<Vcpu>,
    spis: [Ideal; 64],
    groups: bool,
    split_eoi: bool,
    /// How often each side was told to look, for the bound on kicks.
    delivered: u64,
}

#[derive(Clone, Debug)]
enum Op {
    Sgi(usize, u32),
    SgiFromOther(usize, u32),
    EdgePpi(usize),
    Timer(usize),
    Pulse(usize),
    Level(usize, bool),
    Enable(usize, u32, bool),
    EnableRemote(usize, u32, bool),
    EnableSpi(usize, bool),
    SetPending(usize, u32),
    ClearPending(usize, u32),
    ClearPendingRemote(usize, u32),
    SetPendingSpi(usize),
    ClearPendingSpi(usize),
    SetActive(usize, u32),
    ClearActive(usize, u32),
    ClearActiveSpi(usize),
    Priority(usize, u32, u8),
    PrioritySpi(usize, u8),
    Route(usize, usize),
    Groups(bool),
    Acknowledge(usize),
    End(usize),
    EndAny(usize, usize),
    Unload(usize),
    Load(usize),
    Sync(usize),
}

fn private_ids() -> impl Strategy<Value = u32> {
    prop_oneof![
        0..16_u32,
        Just(TIMER),
        Just(EMULATED[0]),
        Just(EMULATED[1]),
        Just(EDGE_PPI)
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    let v = 0..VCPUS;
    let s = 0..SPIS.len();
    let setup = prop_oneof![
        (v.clone(), private_ids(), any::<bool>()).prop_map(|(v, id, on)| Op::Enable(v, id, on)),
        (v.clone(), private_ids(), any::<bool>())
            .prop_map(|(v, id, on)| Op::EnableRemote(v, id, on)),
        (s.clone(), any::<bool>()).prop_map(|(s, on)| Op::EnableSpi(s, on)),
        (v.clone(), private_ids()).prop_map(|(v, id)| Op::SetPending(v, id)),
        (v.clone(), private_ids()).prop_map(|(v, id)| Op::ClearPending(v, id)),
        (v.clone(), private_ids()).prop_map(|(v, id)| Op::ClearPendingRemote(v, id)),
        s.clone().prop_map(Op::SetPendingSpi),
        s.clone().prop_map(Op::ClearPendingSpi),
        (v.clone(), private_ids()).prop_map(|(v, id)| Op::SetActive(v, id)),
        (v.clone(), private_ids()).prop_map(|(v, id)| Op::ClearActive(v, id)),
        s.clone().prop_map(Op::ClearActiveSpi),
        (v.clone(), private_ids(), any::<u8>()).prop_map(|(v, id, p)| Op::Priority(v, id, p)),
        (s.clone(), any::<u8>()).prop_map(|(s, p)| Op::PrioritySpi(s, p)),
        (s.clone(), 0..VCPUS + 1).prop_map(|(s, v)| Op::Route(s, v)),
        prop_oneof![3 => Just(Op::Groups(true)), 1 => Just(Op::Groups(false))],
    ];
    let events = prop_oneof![
        (v.clone(), 0..16_u32).prop_map(|(v, id)| Op::Sgi(v, id)),
        (v.clone(), 0..16_u32).prop_map(|(v, id)| Op::SgiFromOther(v, id)),
        v.clone().prop_map(Op::EdgePpi),
        v.clone().prop_map(Op::Timer),
        s.clone().prop_map(Op::Pulse),
        (s, any::<bool>()).prop_map(|(s, high)| Op::Level(s, high)),
    ];
    let guest = prop_oneof![
        5 => v.clone().prop_map(Op::Acknowledge),
        3 => v.clone().prop_map(Op::End),
        1 => (v.clone(), 0..8_usize).prop_map(|(v, n)| Op::EndAny(v, n)),
        1 => v.clone().prop_map(Op::Unload),
        1 => v.clone().prop_map(Op::Load),
        1 => v.prop_map(Op::Sync),
    ];
    prop_oneof![2 => setup, 4 => events, 6 => guest]
}

impl Machine {
    fn new(lr_count: usize, split_eoi: bool) -> Self {
        let vcpu = |index: usize| Vcpu {
            redistributor: VcpuInterrupts::new(index as u16, Sgis::ByNumber, lr_count),
            inbox: Inbox::new(),
            cpu: FakeCpu::new(lr_count),
            saved: SavedListRegisters::new(lr_count),
            loaded: true,
            private: [Ideal::default(); 32],
            physical: false,
            dropped: Vec::new(),
        };
        let mut machine = Self {
            distributor: Spis::new(64, VCPUS as u16),
            vcpus: (0..VCPUS).map(vcpu).collect(),
            spis: [Ideal {
                route: Some(0),
                ..Ideal::default()
            }; 64],
            groups: false,
            split_eoi,
            delivered: 0,
        };
        machine.configure();
        machine
    }

    /// Everything in group 1 and enabled, priorities spread, edges and levels as the constants say.
    fn configure(&mut self) {
        for v in 0..VCPUS {
            self.gicr_write(v, gicv3::SGI_BASE + 0x80, u32::MAX);
            self.gicr_write(v, gicv3::SGI_BASE + 0xc04, 2 << (2 * (EDGE_PPI - 16)));
            for id in 0..32_u32 {
                self.vcpus[v].private[id as usize].level = EMULATED.contains(&id);
                self.set_priority(v, id, (id as u8).wrapping_mul(24));
            }
            for id in (0..16).chain([TIMER, EMULATED[0], EMULATED[1], EDGE_PPI]) {
                self.apply(&Op::Enable(v, id, true));
            }
        }
        for id in SPIS {
            let (word, bit) = (4 * (id / 32), 1_u32 << (id % 32));
            let group = self.gicd_read(0x80 + word) | bit;
            self.gicd_write(0x80 + word, group);
            let edge = id < FIRST_LEVEL_SPI;
            self.spis[id as usize - 32].level = !edge;
            if edge {
                let config = self.gicd_read(0xc00 + 4 * (id / 16)) | (2 << (2 * (id % 16)));
                self.gicd_write(0xc00 + 4 * (id / 16), config);
            }
        }
        for s in 0..SPIS.len() {
            self.apply(&Op::PrioritySpi(s, (s as u8) << 5));
            self.apply(&Op::EnableSpi(s, true));
        }
        self.apply(&Op::Groups(true));
    }

    fn gicd_write(&mut self, offset: u32, value: u32) {
        let Self {
            distributor, vcpus, ..
        } = self;
        distributor::write(
            distributor,
            offset,
            AccessWidth::Word,
            value.into(),
            &mut post_to(vcpus),
        );
    }

    fn gicd_read(&self, offset: u32) -> u32 {
        let held = |_| unreachable!("banks read here do not ask");
        distributor::read(
            &self.distributor,
            offset,
            AccessWidth::Word,
            0,
            &held,
            &mut |_, _| {},
        ) as u32
    }

    fn gicr_write(&mut self, v: usize, offset: u32, value: u32) {
        let vcpu = &mut self.vcpus[v];
        let effect = redistributor::write(
            &mut vcpu.redistributor,
            &mut lists!(vcpu),
            offset,
            AccessWidth::Word,
            value.into(),
        );
        self.take_effect(v, effect);
    }

    fn gicr_write_remote(&mut self, v: usize, offset: u32, value: u32) {
        let vcpu = &mut self.vcpus[v];
        let effect = redistributor::write_remote(
            &mut vcpu.redistributor,
            offset,
            AccessWidth::Word,
            value.into(),
        );
        assert_eq!(effect.owed.0, 0);
        if effect.after == After::Settle {
            let _kick = vcpu.inbox.post(Notice::Resync);
        }
    }

    fn take_effect(&mut self, v: usize, effect: Effect) {
        self.take_owed(v, effect.owed.0);
        self.take_after(v, effect.after);
    }

    fn take_owed(&mut self, v: usize, owed: u32) {
        if owed == 0 {
            return;
        }
        assert_eq!(owed, 1 << TIMER);
        assert!(
            self.vcpus[v].physical,
            "the physical interrupt is deactivated twice"
        );
        self.vcpus[v].physical = false;
    }

    fn take_after(&mut self, v: usize, after: After) {
        if after == After::Settle {
            self.with(v, |redistributor, distributor, lists, mut post| {
                redistributor.settle(distributor, lists, &mut post);
                0
            });
        }
    }

    fn with(
        &mut self,
        v: usize,
        act: impl FnOnce(&mut VcpuInterrupts, &Spis, &mut Lists<'_>, &mut dyn FnMut(u16, Notice)) -> u32,
    ) {
        let mut posts = Vec::new();
        let vcpu = &mut self.vcpus[v];
        let mut post = |to, notice| posts.push((to, notice));
        let owed = act(
            &mut vcpu.redistributor,
            &self.distributor,
            &mut lists!(vcpu),
            &mut post,
        );
        for (to, notice) in posts {
            let _kick = self.vcpus[usize::from(to)].inbox.post(notice);
        }
        self.take_owed(v, owed);
    }

    /// What el2 does before a guest goes on: empties its inbox and answers maintenance interrupts.
    fn sync(&mut self, v: usize) {
        self.physical_ends(v);
        for round in 0.. {
            assert!(round < 20, "maintenance storm or endless notices");
            let due = self.vcpus[v].cpu.maintenance_due();
            if self.vcpus[v].inbox.is_empty() && !due {
                break;
            }
            self.deliver(v);
            if due {
                self.with(v, |redistributor, distributor, lists, mut post| {
                    redistributor.maintenance(distributor, lists, &mut post).0
                });
                self.delivered += 1;
            }
        }
    }

    fn deliver(&mut self, v: usize) {
        let inbox = core::mem::take(&mut self.vcpus[v].inbox);
        self.with(v, |redistributor, distributor, lists, mut post| {
            redistributor
                .deliver(&inbox, distributor, lists, &mut post)
                .0
        });
    }

    fn sync_all(&mut self) {
        for round in 0.. {
            assert!(round < 10, "vCPUs pass notices to each other for ever");
            for v in 0..VCPUS {
                if self.vcpus[v].loaded {
                    self.sync(v);
                } else {
                    self.deliver(v);
                }
            }
            if self.vcpus.iter().all(|vcpu| vcpu.inbox.is_empty()) {
                return;
            }
        }
    }

    /// Sees which physical interrupts the hardware has deactivated.
    fn physical_ends(&mut self, v: usize) {
        for physical in core::mem::take(&mut self.vcpus[v].cpu.deactivated) {
            assert_eq!(physical, PHYSICAL_TIMER);
            self.take_owed(v, 1 << TIMER);
        }
    }

    fn raise(&mut self, v: usize, id: u32) {
        let vcpu = &mut self.vcpus[v];
        let after = vcpu
            .redistributor
            .raise(&mut lists!(vcpu), IntId::private(id));
        self.take_after(v, after);
    }

    fn set_priority(&mut self, v: usize, id: u32, priority: u8) {
        let vcpu = &mut self.vcpus[v];
        let _ = redistributor::write_remote(
            &mut vcpu.redistributor,
            gicv3::SGI_BASE + 0x400 + id,
            AccessWidth::Byte,
            priority.into(),
        );
        vcpu.private[id as usize].priority = priority & PRIORITY_MASK;
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Sgi(v, id) => {
                self.vcpus[v].private[id as usize].latched = true;
                self.raise(v, id);
            }
            Op::SgiFromOther(v, id) => {
                self.vcpus[v].private[id as usize].latched = true;
                let _kick = self.vcpus[v].inbox.post_private(IntId::private(id));
            }
            Op::EdgePpi(v) => {
                self.vcpus[v].private[EDGE_PPI as usize].latched = true;
                self.raise(v, EDGE_PPI);
            }
            Op::Timer(v) => self.timer(v),
            Op::Pulse(s) => {
                self.spi(s).latched = true;
                let Self {
                    distributor, vcpus, ..
                } = self;
                distributor.pulse(IntId::new(SPIS[s]).unwrap(), &mut post_to(vcpus));
            }
            Op::Level(s, high) => {
                let spi = self.spi(s);
                spi.latched |= high && !spi.line && !spi.level;
                spi.line = high;
                let Self {
                    distributor, vcpus, ..
                } = self;
                distributor.set_level(IntId::new(SPIS[s]).unwrap(), high, &mut post_to(vcpus));
            }
            Op::Enable(v, id, on) => {
                self.vcpus[v].private[id as usize].enabled = on;
                self.gicr_write(v, gicv3::SGI_BASE + if on { 0x100 } else { 0x180 }, 1 << id);
            }
            Op::EnableRemote(v, id, on) => {
                self.vcpus[v].private[id as usize].enabled = on;
                self.gicr_write_remote(
                    v,
                    gicv3::SGI_BASE + if on { 0x100 } else { 0x180 },
                    1 << id,
                );
            }
            Op::EnableSpi(s, on) => {
                self.spi(s).enabled = on;
                self.write_spi_bit(s, if on { 0x100 } else { 0x180 });
            }
            Op::SetPending(v, id) => self.set_pending(v, id),
            Op::ClearPending(v, id) => self.clear_pending(v, id, false),
            Op::ClearPendingRemote(v, id) => self.clear_pending(v, id, true),
            Op::SetPendingSpi(s) => {
                self.spi(s).latched = true;
                self.write_spi_bit(s, 0x200);
            }
            Op::ClearPendingSpi(s) => {
                self.spi(s).latched = false;
                self.write_spi_bit(s, 0x280);
            }
            Op::SetActive(v, id) => {
                // With EOImode 0 nothing but ICACTIVER could end it in a defined way.
                if self.split_eoi && id != TIMER && !self.vcpus[v].private[id as usize].active {
                    self.vcpus[v].private[id as usize].active = true;
                    self.gicr_write(v, gicv3::SGI_BASE + 0x300, 1 << id);
                    self.vcpus[v].dropped.push(IntId::private(id));
                }
            }
            Op::ClearActive(v, id) => self.clear_active(v, id),
            Op::ClearActiveSpi(s) => self.clear_active_spi(s),
            Op::Priority(v, id, priority) => {
                let ideal = self.vcpus[v].private[id as usize];
                if !ideal.pending() && !ideal.active {
                    self.set_priority(v, id, priority);
                }
            }
            Op::PrioritySpi(s, priority) => {
                if !self.spi(s).pending() && !self.spi(s).active {
                    self.spi(s).priority = priority & PRIORITY_MASK;
                    let Self {
                        distributor, vcpus, ..
                    } = self;
                    distributor::write(
                        distributor,
                        0x400 + SPIS[s],
                        AccessWidth::Byte,
                        priority.into(),
                        &mut post_to(vcpus),
                    );
                }
            }
            Op::Route(s, v) => {
                self.spi(s).route = (v < VCPUS).then_some(v);
                let value = if v < VCPUS {
                    Affinity::of_index(v as u16).mpidr()
                } else {
                    0xff
                };
                let Self {
                    distributor, vcpus, ..
                } = self;
                distributor::write(
                    distributor,
                    gicv3::GICD_IROUTER + 8 * SPIS[s],
                    AccessWidth::Double,
                    value,
                    &mut post_to(vcpus),
                );
            }
            Op::Groups(on) => {
                self.groups = on;
                self.gicd_write(gicv3::GICD_CTLR, if on { 3 } else { 0 });
            }
            Op::Acknowledge(v) => self.acknowledge(v),
            Op::End(v) => self.end(v),
            Op::EndAny(v, n) => self.end_any(v, n),
            Op::Unload(v) => self.unload(v),
            Op::Load(v) => self.load(v),
            Op::Sync(v) => {
                if self.vcpus[v].loaded {
                    self.sync(v);
                }
            }
        }
    }

    fn spi(&mut self, s: usize) -> &mut Ideal {
        &mut self.spis[SPIS[s] as usize - 32]
    }

    fn write_spi_bit(&mut self, s: usize, bank: u32) {
        self.gicd_write(bank + 4 * (SPIS[s] / 32), 1 << (SPIS[s] % 32));
    }

    /// The physical timer fires, which it does only while its interrupt is not active.
    fn timer(&mut self, v: usize) {
        self.physical_ends(v);
        if self.vcpus[v].physical {
            return;
        }
        let vcpu = &mut self.vcpus[v];
        vcpu.physical = true;
        vcpu.private[TIMER as usize].latched = true;
        let intid = IntId::private(TIMER);
        let after = vcpu
            .redistributor
            .raise_hardware(&mut lists!(vcpu), intid, PHYSICAL_TIMER);
        self.take_after(v, after);
    }

    fn set_pending(&mut self, v: usize, id: u32) {
        if id != TIMER {
            self.vcpus[v].private[id as usize].latched = true;
            self.gicr_write(v, gicv3::SGI_BASE + 0x200, 1 << id);
        }
    }

    fn clear_pending(&mut self, v: usize, id: u32, remote: bool) {
        if id == TIMER {
            return;
        }
        // What is still in the inbox is on the wire, and may be seen before or after the write.
        self.sync_all();
        self.vcpus[v].private[id as usize].latched = false;
        if remote {
            self.gicr_write_remote(v, gicv3::SGI_BASE + 0x280, 1 << id);
        } else {
            self.gicr_write(v, gicv3::SGI_BASE + 0x280, 1 << id);
        }
    }

    fn clear_active(&mut self, v: usize, id: u32) {
        let is_running = self.vcpus[v]
            .cpu
            .running()
            .iter()
            .any(|(intid, _)| intid.get() == id);
        if self.vcpus[v].private[id as usize].active && !is_running {
            self.vcpus[v].private[id as usize].active = false;
            self.vcpus[v].dropped.retain(|dropped| dropped.get() != id);
            self.gicr_write(v, gicv3::SGI_BASE + 0x380, 1 << id);
        }
    }

    fn clear_active_spi(&mut self, s: usize) {
        let intid = IntId::new(SPIS[s]).unwrap();
        let taken_by = self.spi(s).taken_by;
        let is_running = self.vcpus[taken_by]
            .cpu
            .running()
            .iter()
            .any(|&(running, _)| running == intid);
        if self.spi(s).active && !is_running {
            self.spi(s).active = false;
            self.vcpus[taken_by]
                .dropped
                .retain(|&dropped| dropped != intid);
            self.write_spi_bit(s, 0x380);
        }
    }

    /// The most urgent interrupt that the ideal GIC has for a vCPU.
    fn ideal_best(&self, v: usize) -> Option<u8> {
        let private = self.vcpus[v]
            .private
            .iter()
            .filter(|ideal| ideal.deliverable());
        let spis = self
            .spis
            .iter()
            .filter(|ideal| ideal.deliverable() && ideal.route == Some(v));
        let best = private.chain(spis).map(|ideal| ideal.priority).min()?;
        let running = self.vcpus[v]
            .cpu
            .running()
            .last()
            .map_or(0x100, |&(_, priority)| u16::from(priority));
        (self.groups && u16::from(best) < running).then_some(best)
    }

    fn acknowledge(&mut self, v: usize) {
        if !self.vcpus[v].loaded {
            return;
        }
        self.sync_all();
        let expected = self.ideal_best(v);
        let found = self.vcpus[v].cpu.candidate();
        assert_eq!(
            found.map(|(_, priority)| priority),
            expected,
            "vCPU {v}: {found:?}\n{}",
            self.dump(v)
        );
        let Some(intid) = self.vcpus[v].cpu.acknowledge() else {
            return;
        };
        let ideal = match intid.spi_index() {
            Some(index) => &mut self.spis[usize::from(index)],
            None => &mut self.vcpus[v].private[intid.get() as usize],
        };
        assert!(ideal.deliverable(), "{intid:?} was not pending: {ideal:?}");
        ideal.latched = false;
        ideal.active = true;
        ideal.taken_by = v;
    }

    fn ideal_end(&mut self, v: usize, intid: IntId) {
        match intid.spi_index() {
            Some(index) => self.spis[usize::from(index)].active = false,
            None => self.vcpus[v].private[intid.get() as usize].active = false,
        }
    }

    fn end(&mut self, v: usize) {
        if !self.vcpus[v].loaded {
            return;
        }
        let Some(intid) = self.vcpus[v].cpu.drop_priority() else {
            return;
        };
        if self.split_eoi {
            self.vcpus[v].dropped.push(intid);
        } else {
            self.ideal_end(v, intid);
            self.vcpus[v].cpu.deactivate(intid);
            self.sync(v);
        }
    }

    /// A write of ICC_DIR_EL1, in an order of the guest's choosing.
    fn end_any(&mut self, v: usize, n: usize) {
        if !self.vcpus[v].loaded || self.vcpus[v].dropped.is_empty() {
            return;
        }
        self.sync_all();
        let n = n % self.vcpus[v].dropped.len();
        let intid = self.vcpus[v].dropped.swap_remove(n);
        self.ideal_end(v, intid);
        if self.vcpus[v].cpu.traps_dir() {
            self.with(v, |redistributor, distributor, lists, mut post| {
                redistributor
                    .deactivate(distributor, lists, intid, &mut post)
                    .0
            });
        } else {
            self.vcpus[v].cpu.deactivate(intid);
        }
        self.sync(v);
    }

    fn unload(&mut self, v: usize) {
        if !self.vcpus[v].loaded {
            return;
        }
        self.physical_ends(v);
        let vcpu = &mut self.vcpus[v];
        if vcpu.redistributor.unload_quiet(&vcpu.cpu) {
            assert_eq!(vcpu.redistributor.linked(&vcpu.cpu), 0);
            vcpu.loaded = false;
            return;
        }
        let mut saved = self.vcpus[v].saved.clone();
        self.with(v, |redistributor, distributor, lists, mut post| {
            redistributor
                .save(distributor, lists, &mut saved, &mut post)
                .0
        });
        self.vcpus[v].saved = saved;
        self.vcpus[v].loaded = false;
    }

    fn load(&mut self, v: usize) {
        let vcpu = &mut self.vcpus[v];
        if !vcpu.loaded {
            vcpu.loaded = true;
            vcpu.redistributor.restore(&mut vcpu.cpu, &vcpu.saved);
            vcpu.saved = SavedListRegisters::new(vcpu.cpu.count());
        }
    }

    /// Lets both guests handle everything; then nothing may be left anywhere.
    fn drain(&mut self) {
        for s in 0..SPIS.len() {
            self.apply(&Op::Level(s, false));
            if self.spi(s).route.is_none() {
                self.apply(&Op::Route(s, 0));
            }
            self.apply(&Op::EnableSpi(s, true));
        }
        for v in 0..VCPUS {
            self.load(v);
            for id in (0..16).chain([TIMER, EMULATED[0], EMULATED[1], EDGE_PPI]) {
                self.apply(&Op::Enable(v, id, true));
            }
        }
        self.apply(&Op::Groups(true));
        for _ in 0..400 {
            for v in 0..VCPUS {
                self.acknowledge(v);
                self.end(v);
                self.end_any(v, 0);
            }
        }
        self.sync_all();
        for v in 0..VCPUS {
            assert!(self.vcpus[v].cpu.running().is_empty() && self.vcpus[v].dropped.is_empty());
            let ideal = self.vcpus[v]
                .private
                .iter()
                .chain(&self.spis)
                .find(|ideal| ideal.deliverable() || ideal.active);
            assert!(ideal.is_none(), "{ideal:?}");
            assert!(self.vcpus[v].cpu.candidate().is_none());
            assert_eq!(self.vcpus[v].redistributor.linked(&self.vcpus[v].cpu), 0);
            assert!(!self.vcpus[v].physical);
            assert!(!self.vcpus[v].redistributor.has_deliverable(
                &self.distributor,
                &self.vcpus[v].cpu,
                CpuInterface {
                    group0: true,
                    group1: true,
                    priority_mask: 0xff
                }
            ));
        }
    }

    fn dump(&self, v: usize) -> std::string::String {
        let wanted: Vec<_> = self.vcpus[v]
            .private
            .iter()
            .enumerate()
            .filter(|(_, ideal)| ideal.pending())
            .collect();
        let spis: Vec<_> = self
            .spis
            .iter()
            .enumerate()
            .filter(|(_, ideal)| ideal.pending())
            .collect();
        std::format!("{:?}\nprivate {wanted:?}\nspis {spis:?}", self.vcpus[v].cpu)
    }
}

fn post_to(vcpus: &[Vcpu]) -> impl FnMut(u16, Notice) {
    move |to, notice| {
        let _kick = vcpus[usize::from(to)].inbox.post(notice);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 300 } else { 10_000 }))]

    #[test]
    fn guests_get_what_the_ideal_gic_would_signal(
        lr_count in prop_oneof![Just(1_usize), Just(2), Just(4), Just(16)],
        split_eoi: bool,
        script in prop::collection::vec(ops(), 1..120),
    ) {
        let mut machine = Machine::new(lr_count, split_eoi);
        for op in &script {
            machine.apply(op);
        }
        machine.drain();
    }
}
