//! The redistributor's registers, and rows 45 to 49 of the hostile list.

use std::vec::Vec;
use types::access::AccessWidth;
use types::gicv3;

use super::list_register::cpu_interface;
use super::{distributor, redistributor};
use crate::fake::FakeCpu;
use crate::{
    After, Inbox, IntId, ListRegisters, LrState, Notice, Owed, SavedListRegisters, Sgis, Spis,
    VcpuInterrupts,
};

pub(super) const SGI: u32 = gicv3::SGI_BASE;
const VMCR: u64 = 0xff00_0003;

pub(super) struct Bench {
    pub(super) distributor: Spis,
    pub(super) redistributor: VcpuInterrupts,
    pub(super) inbox: Inbox,
    pub(super) cpu: FakeCpu,
}

impl Bench {
    /// One vCPU with everything enabled in group 1, all edges but PPI 30 and SPI 33.
    pub(super) fn new(lr_count: usize) -> Self {
        let distributor = Spis::new(64, 1);
        for offset in [0x084, 0x088, 0x104, 0x108] {
            distributor::write(
                &distributor,
                offset,
                AccessWidth::Word,
                0xffff_ffff,
                &mut |_, _| {},
            );
        }
        for offset in (0xc08..0xc18).step_by(4) {
            distributor::write(
                &distributor,
                offset,
                AccessWidth::Word,
                0xffff_ffff,
                &mut |_, _| {},
            );
        }
        distributor::write(
            &distributor,
            0xc08,
            AccessWidth::Word,
            0xffff_fff3,
            &mut |_, _| {},
        );
        let mut bench = Self {
            distributor,
            redistributor: VcpuInterrupts::new(0, Sgis::ByNumber, lr_count),
            inbox: Inbox::new(),
            cpu: FakeCpu::new(lr_count),
        };
        bench.write(SGI + 0x080, 0xffff_ffff);
        bench.write(SGI + 0xc04, 0xcfff_ffff);
        bench.write(SGI + 0x100, 0xffff_ffff);
        bench.distribute(gicv3::GICD_CTLR, 2);
        bench
    }

    pub(super) fn write(&mut self, offset: u32, value: u32) -> u32 {
        let effect = redistributor::write(
            &mut self.redistributor,
            &mut self.cpu,
            offset,
            AccessWidth::Word,
            value.into(),
        );
        if effect.after == After::Settle {
            self.redistributor
                .settle(&self.distributor, &mut self.cpu, &mut |_, _| {});
        }
        effect.owed.0
    }

    pub(super) fn read(&self, offset: u32) -> u64 {
        redistributor::read(
            &self.redistributor,
            || true,
            &self.cpu,
            offset,
            AccessWidth::Word,
        )
    }

    pub(super) fn distribute(&mut self, offset: u32, value: u64) -> u32 {
        let inbox = &self.inbox;
        distributor::write(
            &self.distributor,
            offset,
            AccessWidth::Word,
            value,
            &mut |_, notice| {
                let _kick = inbox.post(notice);
            },
        );
        self.sync()
    }

    pub(super) fn line(&mut self, id: u32, high: bool) {
        let inbox = &self.inbox;
        self.distributor
            .set_level(IntId::new(id).unwrap(), high, &mut |_, notice| {
                let _kick = inbox.post(notice);
            });
        self.sync();
    }

    /// Returns the physical interrupts to deactivate.
    pub(super) fn sync(&mut self) -> u32 {
        let Self {
            distributor,
            redistributor,
            inbox,
            cpu,
        } = self;
        let mut post = |_, _| unreachable!("there is but one vCPU");
        let mut owed = redistributor.deliver(inbox, distributor, cpu, &mut post).0;
        for round in 0.. {
            assert!(round < 3, "maintenance storm");
            if !cpu.maintenance_due() {
                break;
            }
            owed |= redistributor.maintenance(distributor, cpu, &mut post).0;
        }
        owed
    }

    pub(super) fn raise(&mut self, id: u32) {
        if self.redistributor.raise(&mut self.cpu, IntId::private(id)) == After::Settle {
            self.redistributor
                .settle(&self.distributor, &mut self.cpu, &mut |_, _| {});
        }
    }

    pub(super) fn acknowledge(&mut self) -> Option<u32> {
        self.sync();
        let intid = self.cpu.acknowledge().map(IntId::get);
        self.sync();
        intid
    }

    pub(super) fn end(&mut self) {
        let intid = self.cpu.drop_priority().unwrap();
        self.cpu.deactivate(intid);
        self.sync();
    }
}

#[test]
fn registers_read_their_reset_values() {
    let cpu = FakeCpu::new(4);
    let table = [
        (0x0000, AccessWidth::Word, 0),
        (0x0004, AccessWidth::Word, 0x4200_0000),
        (0x0008, AccessWidth::Double, 0x0000_0105_0000_1510),
        (0x0008, AccessWidth::Word, 0x1510),
        (0x000c, AccessWidth::Word, 0x105),
        (0x0014, AccessWidth::Word, 6),
        (0x0070, AccessWidth::Double, 0),
        (0xffe8, AccessWidth::Word, 0x3b),
        (0x0008, AccessWidth::Byte, 0),
        (SGI + 0x080, AccessWidth::Word, 0),
        (SGI + 0x100, AccessWidth::Word, 0),
        (SGI + 0x104, AccessWidth::Word, 0),
        (SGI + 0x400, AccessWidth::Word, 0),
        (SGI + 0xc00, AccessWidth::Word, 0xaaaa_aaaa),
        (SGI + 0xc04, AccessWidth::Word, 0),
        (SGI + 0xd00, AccessWidth::Word, 0),
        (SGI + 0xffe8, AccessWidth::Word, 0),
    ];
    let redistributor = VcpuInterrupts::new(21, Sgis::ByNumber, 4);
    for (offset, width, value) in table {
        assert_eq!(
            redistributor::read(&redistributor, || true, &cpu, offset, width),
            value,
            "{offset:#x} {width:?}"
        );
        assert_eq!(
            redistributor::read_remote(&redistributor, || true, offset, width),
            value,
            "{offset:#x} {width:?}"
        );
    }
    assert_eq!(
        redistributor::read_remote(&redistributor, || false, 8, AccessWidth::Word),
        0x1500
    );
}

/// Rows 41 and 43.
#[test]
fn every_offset_width_and_value_is_survived() {
    let mut bench = Bench::new(4);
    for value in [u64::MAX, 0x5a5a_5a5a_5a5a_5a5a] {
        for offset in (0..0x2_0010).chain([u32::MAX - 8, u32::MAX]) {
            for width in [
                AccessWidth::Byte,
                AccessWidth::Half,
                AccessWidth::Word,
                AccessWidth::Double,
            ] {
                let effect = redistributor::write(
                    &mut bench.redistributor,
                    &mut bench.cpu,
                    offset,
                    width,
                    value,
                );
                assert_eq!(effect.owed, Owed::NONE);
                let _ = redistributor::write_remote(&mut bench.redistributor, offset, width, value);
                let mask = u64::MAX >> (64 - 8 * width.bytes());
                assert_eq!(
                    redistributor::read(&bench.redistributor, || true, &bench.cpu, offset, width)
                        & !mask,
                    0,
                    "{offset:#x}"
                );
            }
        }
    }
    bench
        .redistributor
        .settle(&bench.distributor, &mut bench.cpu, &mut |_, _| {});
}

#[test]
fn fields_keep_their_neighbours() {
    let mut bench = Bench::new(4);
    bench.write(SGI + 0x410, 0xffff_ffff);
    let _ = redistributor::write(
        &mut bench.redistributor,
        &mut bench.cpu,
        SGI + 0x412,
        AccessWidth::Byte,
        0x35,
    );
    assert_eq!(bench.read(SGI + 0x410), 0xf830_f8f8);
    bench.write(SGI + 0x180, 0x00ff_0000);
    assert_eq!(
        (bench.read(SGI + 0x100), bench.read(SGI + 0x180)),
        (0xff00_ffff, 0xff00_ffff)
    );
    bench.write(SGI + 0xc00, 0);
    assert_eq!(bench.read(SGI + 0xc00), 0xaaaa_aaaa, "SGIs are edges");
    bench.write(gicv3::GICR_WAKER, 0);
    assert_eq!(bench.read(gicv3::GICR_WAKER), 0);
}

/// Row 45.
#[test]
fn everything_pending_at_once_comes_once_by_priority() {
    for lr_count in [1, 2, 4, 16] {
        let mut bench = Bench::new(lr_count);
        let ids: Vec<u32> = (0..30)
            .chain([31])
            .chain(32..96)
            .filter(|&id| id != 33)
            .collect();
        let priority = |id: u32| (id.wrapping_mul(88) & 0xf8) as u8;
        for &id in &ids {
            if id < 32 {
                let _ = redistributor::write(
                    &mut bench.redistributor,
                    &mut bench.cpu,
                    SGI + 0x400 + id,
                    AccessWidth::Byte,
                    priority(id).into(),
                );
                bench.raise(id);
            } else {
                distributor::write(
                    &bench.distributor,
                    0x400 + id,
                    AccessWidth::Byte,
                    priority(id).into(),
                    &mut |_, _| {},
                );
            }
        }
        bench.distribute(0x204, 0xffff_fffd);
        bench.distribute(0x208, 0xffff_ffff);
        let mut taken = Vec::new();
        while let Some(id) = bench.acknowledge() {
            taken.push(id);
            bench.end();
        }
        assert!(taken.is_sorted_by_key(|&id| priority(id)), "{taken:?}");
        taken.sort_unstable();
        assert_eq!(taken, ids);
    }
}

/// Row 46: priorities nest deeper than there are list registers.
#[test]
fn all_list_registers_active_and_one_more() {
    let mut bench = Bench::new(2);
    for id in 0..8_u32 {
        let priority = u64::from(0x80 - 8 * id);
        let _ = redistributor::write(
            &mut bench.redistributor,
            &mut bench.cpu,
            SGI + 0x400 + id,
            AccessWidth::Byte,
            priority,
        );
    }
    for id in 0..8 {
        bench.raise(id);
        assert_eq!(bench.acknowledge(), Some(id));
    }
    assert_eq!(bench.read(SGI + 0x300), 0xff);
    for id in (0..8).rev() {
        assert_eq!(
            bench.redistributor.held(&bench.cpu, IntId::private(id)),
            LrState::Active
        );
        bench.end();
        assert_eq!(bench.read(SGI + 0x300), (1 << id) - 1);
    }
    bench.raise(3);
    assert_eq!(bench.acknowledge(), Some(3));
}

/// Row 47: the physical interrupt is deactivated exactly once, whatever happens to the virtual one.
#[test]
fn a_linked_interrupt_is_deactivated_once() {
    let timer = IntId::private(27);
    let raise = |bench: &mut Bench| {
        assert_eq!(
            bench
                .redistributor
                .raise_hardware(&mut bench.cpu, timer, 30),
            After::Resume
        );
        assert_eq!(bench.redistributor.linked(&bench.cpu), timer.bit());
    };
    // Disabled while active.
    let mut bench = Bench::new(4);
    raise(&mut bench);
    assert_eq!(bench.acknowledge(), Some(27));
    assert_eq!(bench.write(SGI + 0x180, timer.bit()), 0);
    bench.end();
    assert_eq!(
        (
            bench.cpu.deactivated.as_slice(),
            bench.redistributor.linked(&bench.cpu)
        ),
        (&[30][..], 0)
    );
    // Raised while disabled, enabled later.
    bench.cpu.deactivated.clear();
    raise(&mut bench);
    assert_eq!(bench.acknowledge(), None);
    bench.write(SGI + 0x100, timer.bit());
    assert_eq!(bench.acknowledge(), Some(27));
    // Deactivated by a register write; the guest's EOI comes too late.
    assert_eq!(bench.write(SGI + 0x380, timer.bit()), timer.bit());
    bench.end();
    assert_eq!(bench.cpu.deactivated, []);
    // Reset while pending, and while active.
    for acknowledged in [false, true] {
        let mut bench = Bench::new(4);
        raise(&mut bench);
        if acknowledged {
            assert_eq!(bench.acknowledge(), Some(27));
        }
        assert_eq!(bench.redistributor.reset(&mut bench.cpu), Owed(timer.bit()));
        assert_eq!(bench.redistributor.reset(&mut bench.cpu), Owed::NONE);
        assert_eq!(bench.cpu.candidate(), None);
    }
}

/// Row 48.
#[test]
fn a_level_comes_again_until_its_line_falls() {
    let mut bench = Bench::new(4);
    for id in [33] {
        let set = |bench: &mut Bench, high| bench.line(id, high);
        set(&mut bench, true);
        for _ in 0..100 {
            assert_eq!(bench.acknowledge(), Some(id));
            bench.end();
        }
        assert_eq!(bench.acknowledge(), Some(id));
        set(&mut bench, false);
        let before = bench.cpu.accesses.get();
        let intid = bench.cpu.drop_priority().unwrap();
        bench.cpu.deactivate(intid);
        assert!(
            !bench.cpu.maintenance_due(),
            "the line had fallen: nothing to look at"
        );
        assert_eq!(
            (bench.acknowledge(), bench.cpu.accesses.get()),
            (None, before)
        );
        set(&mut bench, true);
        set(&mut bench, false);
        assert_eq!(
            bench.acknowledge(),
            None,
            "withdrawn before it was acknowledged"
        );
    }
}

/// Row 49: registers of a vCPU that runs elsewhere.
#[test]
fn remote_writes_reach_the_right_vcpu() {
    let mut bench = Bench::new(4);
    bench.raise(5);
    bench.raise(6);
    let effect = redistributor::write_remote(
        &mut bench.redistributor,
        SGI + 0x180,
        AccessWidth::Word,
        1 << 5,
    );
    assert_eq!(effect.after, After::Settle);
    let _ = redistributor::write_remote(
        &mut bench.redistributor,
        SGI + 0x280,
        AccessWidth::Word,
        1 << 6,
    );
    let _ = redistributor::write_remote(
        &mut bench.redistributor,
        SGI + 0x200,
        AccessWidth::Word,
        1 << 7,
    );
    let _kick = bench.inbox.post(Notice::Resync);
    assert_eq!(bench.acknowledge(), Some(7));
    bench.end();
    assert_eq!(bench.acknowledge(), None);
    let _ = redistributor::write_remote(
        &mut bench.redistributor,
        SGI + 0x100,
        AccessWidth::Word,
        1 << 5,
    );
    let _kick = bench.inbox.post(Notice::Resync);
    assert_eq!(bench.acknowledge(), Some(5));
}

#[test]
fn an_sgi_that_the_guest_has_done_with_costs_two_accesses() {
    let mut bench = Bench::new(4);
    for _ in 0..3 {
        let before = bench.cpu.accesses.get();
        bench.raise(1);
        assert!(bench.cpu.accesses.get() - before <= 2);
        assert_eq!(bench.acknowledge(), Some(1));
        bench.end();
    }
}

#[test]
fn waiting_looks_at_priority_mask_and_groups() {
    let mut bench = Bench::new(1);
    let waits = |bench: &Bench, vmcr| {
        bench
            .redistributor
            .has_deliverable(&bench.distributor, &bench.cpu, cpu_interface(vmcr))
    };
    assert!(!waits(&bench, VMCR));
    let _ = redistributor::write(
        &mut bench.redistributor,
        &mut bench.cpu,
        SGI + 0x401,
        AccessWidth::Byte,
        0xa0,
    );
    bench.raise(1);
    assert!(waits(&bench, VMCR));
    for masked in [0xff00_0001, 0xa000_0003, 0x0000_0003] {
        assert!(!waits(&bench, masked), "{masked:#x}");
    }
    assert_eq!(bench.acknowledge(), Some(1));
    assert!(!waits(&bench, VMCR));
    bench.end();
    bench.write(SGI + 0x180, 1 << 1);
    bench.raise(1);
    assert!(!waits(&bench, VMCR), "disabled");
}

#[test]
fn state_is_kept_across_cpu_off_and_a_move() {
    let mut bench = Bench::new(4);
    bench.write(SGI + 0x410, 0x8080_8080);
    bench.raise(2);
    bench.line(33, true);
    let mut post = |_, _| unreachable!();
    let _ =
        bench
            .redistributor
            .power_off(&bench.inbox, &bench.distributor, &mut bench.cpu, &mut post);
    let mut saved = SavedListRegisters::new(4);
    let _ = bench
        .redistributor
        .save(&bench.distributor, &mut bench.cpu, &mut saved, &mut post);
    assert_eq!((bench.cpu.empty(), saved.empty()), (0xf, 0xc));
    assert_eq!(
        bench.redistributor.raise(&mut saved, IntId::private(3)),
        After::Resume
    );
    let mut other = FakeCpu::new(4);
    bench.redistributor.restore(&mut other, &saved);
    bench.cpu = other;
    assert_eq!(bench.read(SGI + 0x410), 0x8080_8080);
    let mut taken = [0; 3];
    for slot in &mut taken {
        *slot = bench.acknowledge().unwrap();
        if *slot == 33 {
            bench.line(33, false);
        }
        bench.end();
    }
    assert_eq!((taken, bench.acknowledge()), ([2, 3, 33], None));
}
