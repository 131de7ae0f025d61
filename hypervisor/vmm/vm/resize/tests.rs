//! Resizes against guests of every temper: scenarios with the real cells and the real event block, and random step.

use super::ledger::EJECT_CLOSES_NS;
use super::{
    AfterReset, BeginError, Cells, Effect, Limits, Origin, Outcome, Progress, Report, Resizer,
    Shortfall, Why,
};
use crate::devices::tests::{Fake, PARTS};
use crate::devices::{Access, Devices};
use alloc::string::ToString;
use alloc::vec::Vec;
use proptest::prelude::*;
use psci::{EntryPoint, Event, PowerCell, Role, State};
use types::access::AccessWidth;
use types::devices::DeviceId;
use types::hotplug as spec;
use types::hotplug::Kind;
use types::ids::{VcpuId, VcpuSet};

impl Cells for Vec<PowerCell> {
    fn possible(&self, _: Kind) -> u16 {
        self.len() as u16
    }

    fn cell(&self, _: Kind, vcpu: VcpuId) -> Option<&PowerCell> {
        self.get(vcpu.index())
    }
}

/// Looks at every cell: what the resizer's sets must come to.
fn is_held(cell: &PowerCell) -> bool {
    cell.state().is_enabled() && cell.state() != State::Withdrawn
}

const SECOND: u64 = 1_000_000_000;
const LIMITS: Limits = Limits {
    timeout_ns: 10 * SECOND,
    boot_grace_ns: 60 * SECOND,
};
const STRICT: Limits = Limits {
    timeout_ns: 3 * SECOND,
    boot_grace_ns: 0,
};
const ENTRY: EntryPoint = EntryPoint {
    address: 0x4008_0000,
    context_id: 0,
};

const DEVICE_CHECK: u16 = 1;
const EJECT_REQUEST: u16 = 3;
const OWN_EJECT: u16 = 0x103;

/// What a guest does with the events it reads.
#[derive(Clone, Copy, Debug)]
enum Guest {
    /// As Linux 6.11 and later with a rule that turns added CPUs on.
    Modern,
    /// As Linux 6.1: reads, acknowledges, and knows nothing of hot-add.
    Old,
    /// As Linux with `nr_cpus=`: CPUs from this number on are acknowledged and not used.
    Clipped(u16),
    /// Turns CPUs on, and refuses each eject with this status.
    Keeps(u16),
    /// Starts ejects and never ends one.
    Hangs,
    /// Says success to an eject, and has not turned the CPU off.
    Lies,
    /// Reports that it can't add CPUs.
    CannotAdd(u16),
    /// Takes CPUs and has no ear for the event interrupt any more.
    Deaf,
}

struct Machine {
    cells: Vec<PowerCell>,
    devices: Devices,
    resizer: Resizer,
    guest: Guest,
    now_ns: u64,
    /// The event interrupt's latched edge.
    edge: bool,
    reports: Vec<Report>,
}

impl Machine {
    /// Makes a VM of 8 vCPUs, 2 of them in the boot set, both on, whose guest has just been started and does not listen yet.
    fn booting(guest: Guest) -> Self {
        let roles = (0..8).map(|index| if index < 2 { Role::Boot } else { Role::Hotplug });
        let cells = roles.map(PowerCell::new).collect::<Vec<_>>();
        let mut machine = Self {
            resizer: Resizer::new(&cells, Kind::Vcpu),
            cells,
            devices: Devices::new(&PARTS),
            guest,
            now_ns: 1000 * SECOND,
            edge: false,
            reports: Vec::new(),
        };
        machine.resizer.on_start(machine.now_ns);
        machine.turn_on(0);
        machine.turn_on(1);
        machine
    }

    /// Makes a VM whose guest has listened long since, and holds `held` vCPUs.
    fn up(guest: Guest, held: u16) -> Self {
        let mut machine = Self::booting(Guest::Modern);
        machine.resizer.listening = true;
        machine.set(held);
        machine.guest_runs();
        assert_eq!(machine.held(), held);
        machine.reports.clear();
        machine.guest = guest;
        machine.now_ns += 1000 * SECOND;
        machine
    }

    fn held(&self) -> u16 {
        let held = self.cells.iter().filter(|cell| is_held(cell)).count() as u16;
        assert_eq!(self.resizer.ledger.held(), held);
        held
    }

    /// The VM is off, and its cells are as new.
    fn goes_off(&mut self) -> Progress {
        for cell in &self.cells {
            assert!(cell.apply(Event::Reset).is_ok());
        }
        self.resizer.on_vm_off(&self.cells)
    }

    fn on(&self) -> u16 {
        let on = self.cells.iter().filter(|cell| cell.state().is_on());
        on.count() as u16
    }

    fn state(&self, vcpu: u16) -> State {
        self.cells[usize::from(vcpu)].state()
    }

    fn take(&mut self, progress: Progress) {
        for effect in progress.effects {
            self.edge |= match effect {
                Effect::Pulse => true,
                Effect::Insert(vcpu) => self.devices.hotplug.request_insert(Kind::Vcpu, vcpu),
                Effect::Eject(vcpu) => self.devices.hotplug.request_eject(Kind::Vcpu, vcpu),
                Effect::Retract(vcpu) => {
                    self.devices.hotplug.cancel(Kind::Vcpu, vcpu);
                    false
                }
            };
        }
        if let Some(report) = progress.report {
            assert_eq!(report.reached, self.on(), "{report:?}");
            self.reports.push(report);
        }
    }

    fn begin(&mut self, target: u16, limits: Limits) -> Result<(), BeginError> {
        let progress = self
            .resizer
            .begin(&self.cells, target, limits, self.now_ns)?;
        self.take(progress);
        Ok(())
    }

    fn set(&mut self, target: u16) {
        self.begin(target, LIMITS).expect("nothing else under way");
    }

    fn pass(&mut self, time_ns: u64) {
        self.now_ns += time_ns;
        let progress = self.resizer.on_deadline(&self.cells, self.now_ns);
        self.take(progress);
    }

    fn turn_on(&mut self, vcpu: u16) {
        // A guest may try in vain.
        let _code = self.cpu_on(vcpu);
    }

    fn cpu_on(&mut self, vcpu: u16) -> psci::ReturnCode {
        let cell = &self.cells[usize::from(vcpu)];
        let code = cell.cpu_on(ENTRY);
        if cell.start().is_some() {
            let progress = self.resizer.on_cpu_started(&self.cells, VcpuId::new(vcpu));
            self.take(progress);
        }
        code
    }

    fn turn_off(&mut self, vcpu: u16) {
        // An already offline vCPU stays off.
        let _refused = self.cells[usize::from(vcpu)].apply(Event::CpuOff);
    }

    fn eject(&mut self, vcpu: u16) {
        let progress = self
            .resizer
            .on_eject(&self.cells, VcpuId::new(vcpu), self.now_ns);
        if let Some(progress) = progress {
            self.take(progress);
        }
    }

    fn ost(&mut self, vcpu: u16, source: u16, status: u16) {
        let progress = self
            .resizer
            .on_ost(&self.cells, VcpuId::new(vcpu), source, status);
        self.take(progress);
    }

    /// Lets the guest serve its event interrupt, as the DSDT does: until there is no event.
    fn guest_runs(&mut self) {
        for _ in 0..100 {
            if !core::mem::take(&mut self.edge) {
                return;
            }
            while let Some((code, vcpu)) = self.read_event() {
                match code {
                    DEVICE_CHECK => self.guest_adds(vcpu),
                    EJECT_REQUEST => self.guest_ejects(vcpu),
                    _ => panic!("event code {code}"),
                }
            }
        }
        panic!("the guest never comes to rest");
    }

    fn read_event(&mut self) -> Option<(u16, u16)> {
        if matches!(self.guest, Guest::Deaf) {
            return None;
        }
        if !self.resizer.is_listening() {
            let progress = self.resizer.on_listening(&self.cells, self.now_ns);
            self.take(progress);
        }
        self.devices.hotplug.listen();
        let event = self.take_event();
        let code = (event >> spec::EVENT_CODE_SHIFT & 0xff) as u16;
        (event & spec::EVENT_VALID != 0).then_some((code, event as u16))
    }

    fn take_event(&self) -> u32 {
        let access = Access {
            offset: spec::EVENT,
            width: AccessWidth::Word,
        };
        let mut around = Fake::default();
        let event = self.devices.read(DeviceId::Hotplug, access, &mut around);
        event.expect("a value") as u32
    }

    /// Returns whether an event waits that the guest has not read, and takes it.
    fn has_event(&self) -> bool {
        self.devices.hotplug.listen();
        self.take_event() != 0
    }

    fn guest_adds(&mut self, vcpu: u16) {
        match self.guest {
            Guest::Old => self.ost(vcpu, DEVICE_CHECK, 0),
            Guest::Clipped(limit) if vcpu >= limit => self.ost(vcpu, DEVICE_CHECK, 0),
            Guest::CannotAdd(status) => self.ost(vcpu, DEVICE_CHECK, status),
            _ => {
                self.ost(vcpu, DEVICE_CHECK, 0);
                self.turn_on(vcpu);
            }
        }
    }

    fn guest_ejects(&mut self, vcpu: u16) {
        match self.guest {
            Guest::Keeps(status) => self.ost(vcpu, EJECT_REQUEST, status),
            Guest::Hangs => self.ost(vcpu, EJECT_REQUEST, 0x84),
            Guest::Lies => {
                self.eject(vcpu);
                self.ost(vcpu, EJECT_REQUEST, 0);
            }
            _ => {
                self.ost(vcpu, EJECT_REQUEST, 0x84);
                self.turn_off(vcpu);
                self.eject(vcpu);
                self.ost(vcpu, EJECT_REQUEST, 0);
            }
        }
    }

    /// Resets the VM: everything is as at its start, and the boot set comes up again.
    fn reset(&mut self, policy: AfterReset) {
        for cell in &self.cells {
            assert!(cell.apply(Event::Reset).is_ok());
        }
        self.devices.reset();
        self.edge = false;
        let progress = self
            .resizer
            .on_reset(&self.cells, policy, LIMITS, self.now_ns);
        self.take(progress);
        self.turn_on(0);
        self.turn_on(1);
    }

    #[track_caller]
    fn ended(&mut self, outcome: Outcome, requested: u16, reached: u16, shortfalls: &[(u16, Why)]) {
        let shortfalls = shortfalls
            .iter()
            .map(|&(vcpu, why)| Shortfall {
                vcpu: VcpuId::new(vcpu),
                why,
            })
            .collect();
        let expected = Report {
            kind: Kind::Vcpu,
            origin: Origin::Operator,
            outcome,
            requested,
            reached,
            shortfalls,
        };
        assert_eq!(self.reports, [expected]);
        assert!(!self.resizer.is_active());
        assert_eq!(self.resizer.deadline_ns(), None);
        self.reports.clear();
    }
}

#[test]
fn a_modern_guest_takes_and_gives() {
    let mut machine = Machine::up(Guest::Modern, 2);
    for _ in 0..3 {
        machine.set(8);
        assert!(machine.reports.is_empty() && machine.resizer.is_active());
        machine.guest_runs();
        machine.ended(Outcome::Done, 8, 8, &[]);
        assert!((0..8).all(|vcpu| machine.state(vcpu) == State::On));
        machine.set(2);
        machine.guest_runs();
        machine.ended(Outcome::Done, 2, 2, &[]);
        assert!((2..8).all(|vcpu| machine.state(vcpu) == State::Reserve));
    }
}

#[test]
fn growth_takes_the_lowest_and_shrinking_the_highest() {
    let mut machine = Machine::up(Guest::Modern, 6);
    machine.set(4);
    machine.guest_runs();
    assert_eq!(machine.state(3), State::On);
    assert_eq!(machine.state(4), State::Reserve);
    machine.set(5);
    machine.guest_runs();
    assert_eq!(machine.state(4), State::On);
    assert_eq!(machine.state(5), State::Reserve);
}

#[test]
fn the_present_count_is_reached_at_once() {
    let mut machine = Machine::up(Guest::Deaf, 5);
    machine.set(5);
    machine.ended(Outcome::Done, 5, 5, &[]);
    assert!(!machine.has_event());
}

#[test]
fn the_boot_set_is_kept() {
    let mut machine = Machine::up(Guest::Modern, 2);
    machine.set(1);
    machine.ended(Outcome::Refused, 1, 2, &[(1, Why::BootVcpu)]);
    let mut machine = Machine::up(Guest::Modern, 4);
    machine.set(1);
    machine.guest_runs();
    machine.ended(Outcome::Partly, 1, 2, &[(1, Why::BootVcpu)]);
}

/// As with `maxcpus=1`: the guest takes what it is given and leaves a vCPU of its boot set off.
#[test]
fn a_boot_vcpu_that_the_guest_left_off_is_not_reached() {
    let mut machine = Machine::up(Guest::Modern, 2);
    machine.turn_off(1);
    machine.set(6);
    machine.guest_runs();
    machine.ended(Outcome::Partly, 6, 5, &[(1, Why::LeftOff)]);

    machine.turn_off(0);
    machine.set(6);
    let shortfalls = [(0, Why::LeftOff), (1, Why::LeftOff)];
    machine.ended(Outcome::Refused, 6, 4, &shortfalls);

    machine.guest = Guest::Keeps(0x82);
    machine.turn_off(5);
    machine.set(4);
    machine.guest_runs();
    let kept = Why::EjectRefused(0x82);
    let shortfalls = [(0, Why::LeftOff), (1, Why::LeftOff), (4, kept), (5, kept)];
    machine.ended(Outcome::Refused, 4, 3, &shortfalls);
}

/// What was lent and turned off counts no more than what was never turned on.
#[test]
fn a_lent_vcpu_that_the_guest_turned_off_is_not_reached() {
    let mut machine = Machine::up(Guest::Modern, 4);
    machine.turn_off(2);
    machine.set(5);
    machine.guest_runs();
    machine.ended(Outcome::Partly, 5, 4, &[(2, Why::LeftOff)]);
    machine.turn_on(2);
    machine.set(5);
    machine.ended(Outcome::Done, 5, 5, &[]);
}

/// A guest that boots has not turned all its vCPUs on yet, which says nothing about what it will do.
#[test]
fn the_boot_set_is_awaited_while_the_guest_boots() {
    let mut machine = Machine::booting(Guest::Modern);
    machine.turn_off(1);
    machine.set(2);
    assert!(machine.reports.is_empty() && machine.edge);
    machine.turn_on(1);
    machine.guest_runs();
    machine.ended(Outcome::Done, 2, 2, &[]);

    let mut machine = Machine::booting(Guest::Deaf);
    machine.turn_off(1);
    machine.set(2);
    machine.pass(60 * SECOND);
    machine.ended(Outcome::Refused, 2, 1, &[(1, Why::LeftOff)]);

    let mut machine = Machine::booting(Guest::Deaf);
    machine.turn_off(1);
    machine.set(2);
    let progress = machine.goes_off();
    machine.take(progress);
    let both = [(0, Why::VmOff), (1, Why::VmOff)];
    machine.ended(Outcome::Refused, 2, 0, &both);
}

#[test]
fn impossible_and_second_requests_are_refused() {
    let mut machine = Machine::up(Guest::Deaf, 2);
    assert_eq!(machine.begin(0, LIMITS), Err(BeginError::Zero));
    assert_eq!(
        machine.begin(9, LIMITS),
        Err(BeginError::TooMany { possible: 8 })
    );
    machine.set(4);
    assert_eq!(
        machine.begin(2, LIMITS),
        Err(BeginError::Busy { target: 4 })
    );
    machine.pass(10 * SECOND);
    assert_eq!(machine.reports.len(), 1);
    assert_eq!(machine.begin(2, LIMITS), Ok(()));
}

/// What is withdrawn stays enabled and is denied to the guest until the guest ejects it.
#[test]
fn an_old_guest_acknowledges_and_takes_nothing() {
    let mut machine = Machine::up(Guest::Old, 2);
    machine.set(4);
    machine.guest_runs();
    machine.pass(10 * SECOND - 1);
    assert!(machine.reports.is_empty());
    machine.pass(1);
    let shortfalls = [(2, Why::OnlyAcknowledged), (3, Why::OnlyAcknowledged)];
    machine.ended(Outcome::TimedOut, 4, 2, &shortfalls);
    assert_eq!(machine.state(2), State::Withdrawn);
    assert_eq!(machine.cells[2].sta(), 0x0f);
    assert_eq!(machine.cpu_on(2), psci::ReturnCode::Denied);
    machine.guest_runs();
    assert_eq!(
        machine.state(2),
        State::Reserve,
        "the guest was asked for it"
    );
    assert!(machine.reports.is_empty());
}

#[test]
fn a_withdrawn_vcpu_is_offered_again() {
    let mut machine = Machine::up(Guest::Deaf, 2);
    machine.set(3);
    machine.pass(10 * SECOND);
    machine.ended(Outcome::TimedOut, 3, 2, &[(2, Why::NotTurnedOn)]);
    machine.guest = Guest::Modern;
    machine.set(3);
    machine.guest_runs();
    machine.ended(Outcome::Done, 3, 3, &[]);
}

/// The guest is at the eject of a withdrawn vCPU when it is offered again.
#[test]
fn an_eject_that_comes_late_does_not_spoil_the_next_offer() {
    let mut machine = Machine::up(Guest::Deaf, 2);
    machine.set(3);
    machine.pass(10 * SECOND);
    machine.reports.clear();
    machine.set(3);
    machine.eject(2);
    assert_eq!(machine.state(2), State::Reserve);
    assert!(!machine.has_event(), "nothing to look at yet");
    machine.ost(2, EJECT_REQUEST, 0);
    assert_eq!(machine.state(2), State::EnabledOff);
    machine.guest = Guest::Modern;
    machine.guest_runs();
    machine.ended(Outcome::Done, 3, 3, &[]);
}

/// Linux looks at `_STA` once more after `_EJ0`, and then says by `_OST` that it is through: until then it must find the vCPU gone.
#[test]
fn a_vcpu_is_not_offered_again_before_the_guest_has_closed_its_eject() {
    for source in [EJECT_REQUEST, OWN_EJECT] {
        let mut machine = Machine::up(Guest::Modern, 4);
        machine.set(2);
        while machine.read_event().is_some() {}
        machine.edge = false;
        machine.turn_off(3);
        machine.eject(3);
        machine.turn_off(2);
        machine.eject(2);
        machine.ended(Outcome::Done, 2, 2, &[]);
        machine.set(3);
        // Of another vCPU, of another event, and not the end: none of them closes it.
        machine.ost(3, source, 0);
        machine.ost(2, DEVICE_CHECK, 0);
        machine.ost(2, source, 0x84);
        assert_eq!(machine.state(2), State::Reserve);
        assert!(machine.reports.is_empty() && !machine.edge);
        machine.ost(2, source, 0);
        assert_eq!(machine.state(2), State::EnabledOff);
        machine.guest_runs();
        machine.ended(Outcome::Done, 3, 3, &[]);
    }
}

/// `_OST` is a guest's to have or not: one without it gets the vCPU back all the same, later.
#[test]
fn a_guest_that_closes_no_eject_is_offered_the_vcpu_after_a_while() {
    let mut machine = Machine::up(Guest::Modern, 3);
    machine.set(2);
    machine.turn_off(2);
    machine.eject(2);
    machine.reports.clear();
    machine.pass(SECOND);
    machine.set(3);
    let at_ns = machine.resizer.deadline_ns().expect("one to wait for");
    assert_eq!(at_ns, machine.now_ns - SECOND + EJECT_CLOSES_NS);
    machine.pass(at_ns - machine.now_ns - 1);
    assert_eq!(machine.state(2), State::Reserve);
    machine.pass(1);
    assert_eq!(machine.state(2), State::EnabledOff);
    machine.guest_runs();
    machine.ended(Outcome::Done, 3, 3, &[]);

    // Long since: nothing to wait for.
    machine.set(2);
    machine.turn_off(2);
    machine.eject(2);
    machine.reports.clear();
    machine.now_ns += EJECT_CLOSES_NS;
    machine.set(3);
    assert_eq!(machine.state(2), State::EnabledOff);

    // A shorter deadline comes first, and says what was waited for.
    let mut machine = Machine::up(Guest::Modern, 3);
    machine.set(2);
    machine.turn_off(2);
    machine.eject(2);
    machine.reports.clear();
    assert!(machine.begin(3, STRICT).is_ok());
    machine.pass(3 * SECOND);
    machine.ended(Outcome::TimedOut, 3, 2, &[(2, Why::EjectUnfinished)]);
}

/// A guest that starts anew has no eject to close.
#[test]
fn a_reset_closes_ejects() {
    let mut machine = Machine::up(Guest::Modern, 3);
    machine.set(2);
    machine.turn_off(2);
    machine.eject(2);
    machine.reports.clear();
    machine.reset(AfterReset::BootSet);
    machine.set(3);
    machine.guest_runs();
    machine.ended(Outcome::Done, 3, 3, &[]);
}

#[test]
fn a_clipped_guest_takes_a_part() {
    let mut machine = Machine::up(Guest::Clipped(4), 2);
    machine.set(6);
    machine.guest_runs();
    machine.pass(10 * SECOND);
    let shortfalls = [(4, Why::OnlyAcknowledged), (5, Why::OnlyAcknowledged)];
    machine.ended(Outcome::Partly, 6, 4, &shortfalls);
}

#[test]
fn a_guest_that_cannot_add_ends_the_resize_early() {
    let mut machine = Machine::up(Guest::CannotAdd(0x81), 2);
    machine.set(3);
    machine.guest_runs();
    machine.ended(Outcome::Refused, 3, 2, &[(2, Why::AddRefused(0x81))]);
    assert_eq!(machine.cpu_on(2), psci::ReturnCode::Denied);
}

#[test]
fn an_addition_in_progress_is_no_answer() {
    let mut machine = Machine::up(Guest::CannotAdd(0x80), 2);
    machine.set(3);
    machine.guest_runs();
    assert!(machine.resizer.is_active());
    machine.turn_on(2);
    machine.ended(Outcome::Done, 3, 3, &[]);
}

#[test]
fn a_guest_that_refuses_ejects_keeps_its_vcpus() {
    let mut machine = Machine::up(Guest::Keeps(0x82), 4);
    machine.set(2);
    machine.guest_runs();
    let shortfalls = [(2, Why::EjectRefused(0x82)), (3, Why::EjectRefused(0x82))];
    machine.ended(Outcome::Refused, 2, 4, &shortfalls);
    assert_eq!(machine.state(3), State::On);
}

#[test]
fn ejects_that_do_not_happen_are_told_apart() {
    for (guest, why) in [
        (Guest::Deaf, Why::EjectUnanswered),
        (Guest::Hangs, Why::EjectUnfinished),
        (Guest::Lies, Why::EjectNotCarriedOut),
    ] {
        let mut machine = Machine::up(guest, 3);
        machine.set(2);
        machine.guest_runs();
        machine.pass(10 * SECOND);
        machine.ended(Outcome::TimedOut, 2, 3, &[(2, why)]);
        assert_eq!(machine.state(2), State::On);
        assert!(!machine.has_event(), "{guest:?}: the request is taken back");
    }
}

#[test]
fn a_late_eject_is_still_an_eject() {
    let mut machine = Machine::up(Guest::Hangs, 3);
    machine.set(2);
    machine.guest_runs();
    machine.pass(10 * SECOND);
    machine.reports.clear();
    machine.turn_off(2);
    machine.eject(2);
    assert_eq!(machine.held(), 2);
    assert!(machine.reports.is_empty());
}

/// Linux turns the CPU on again when it can't go on with an eject, before it says so.
#[test]
fn an_eject_rolled_back_leaves_the_vcpu_on() {
    let mut machine = Machine::up(Guest::Hangs, 3);
    machine.set(2);
    machine.guest_runs();
    machine.turn_off(2);
    assert_eq!(machine.cpu_on(2), psci::ReturnCode::Success);
    machine.ost(2, EJECT_REQUEST, 0x01);
    machine.ended(Outcome::Refused, 2, 3, &[(2, Why::EjectRefused(0x01))]);
    assert_eq!(machine.state(2), State::On);
}

#[test]
fn an_eject_of_the_guests_own_is_accepted() {
    const OWN_EJECT: u16 = 0x103;
    let mut machine = Machine::up(Guest::Modern, 4);
    machine.turn_off(3);
    machine.eject(3);
    machine.ost(3, OWN_EJECT, 0);
    assert_eq!(machine.held(), 3);
    assert!(machine.reports.is_empty());

    machine.guest = Guest::Deaf;
    machine.set(4);
    machine.turn_off(2);
    machine.eject(2);
    machine.turn_on(3);
    machine.ended(Outcome::Partly, 4, 3, &[(2, Why::GivenBack)]);
}

#[test]
fn a_vcpu_turned_on_in_the_last_moment_counts() {
    let mut machine = Machine::up(Guest::Deaf, 2);
    machine.set(3);
    let started = machine.cells[2].cpu_on(ENTRY);
    assert_eq!(started, psci::ReturnCode::Success);
    machine.pass(10 * SECOND);
    machine.ended(Outcome::Done, 3, 3, &[]);
}

#[test]
fn what_is_asked_while_the_guest_boots_waits_for_it() {
    let mut machine = Machine::booting(Guest::Modern);
    machine.pass(5 * SECOND);
    machine.set(4);
    assert!(machine.edge, "an edge is left for the guest");
    assert_eq!(
        machine.cpu_on(2),
        psci::ReturnCode::Denied,
        "no half-added vCPU at boot"
    );
    assert_eq!(machine.cells[2].sta(), 0x0d);
    machine.pass(50 * SECOND);
    machine.guest_runs();
    machine.ended(Outcome::Done, 4, 4, &[]);
}

#[test]
fn a_guest_that_listens_late_has_its_full_time() {
    let mut machine = Machine::booting(Guest::Old);
    machine.set(3);
    machine.pass(59 * SECOND);
    machine.guest_runs();
    machine.pass(10 * SECOND - 1);
    assert!(machine.resizer.is_active());
    machine.pass(1);
    machine.ended(Outcome::TimedOut, 3, 2, &[(2, Why::OnlyAcknowledged)]);
}

#[test]
fn a_guest_that_never_listens_is_given_up() {
    for (booted_for, limits, wait) in [(0, LIMITS, 60), (55, LIMITS, 10), (0, STRICT, 3)] {
        let mut machine = Machine::booting(Guest::Deaf);
        machine.pass(booted_for * SECOND);
        assert_eq!(machine.begin(3, limits), Ok(()));
        machine.pass(wait * SECOND - 1);
        assert!(machine.resizer.is_active());
        machine.pass(1);
        machine.ended(Outcome::TimedOut, 3, 2, &[(2, Why::NotListening)]);
        assert_eq!(machine.state(2), State::Reserve, "it was never offered");
    }
}

#[test]
fn a_strict_timeout_does_not_wait_for_the_boot() {
    let mut machine = Machine::booting(Guest::Old);
    assert_eq!(machine.begin(3, STRICT), Ok(()));
    machine.pass(2 * SECOND);
    machine.guest_runs();
    machine.pass(SECOND);
    machine.ended(Outcome::TimedOut, 3, 2, &[(2, Why::OnlyAcknowledged)]);
}

#[test]
fn a_reset_in_the_middle_loses_nothing() {
    for policy in [AfterReset::KeepTarget, AfterReset::BootSet] {
        let mut machine = Machine::up(Guest::Clipped(4), 2);
        machine.set(6);
        machine.guest_runs();
        machine.pass(9 * SECOND);
        machine.reset(policy);
        assert_eq!(machine.held(), 2);
        machine.pass(20 * SECOND);
        machine.guest = Guest::Modern;
        machine.guest_runs();
        machine.ended(Outcome::Done, 6, 6, &[]);
    }
}

#[test]
fn a_reset_in_a_shrink_goes_for_the_same_target() {
    let mut machine = Machine::up(Guest::Hangs, 6);
    machine.set(4);
    machine.guest_runs();
    machine.guest = Guest::Modern;
    machine.reset(AfterReset::KeepTarget);
    machine.guest_runs();
    machine.ended(Outcome::Done, 4, 4, &[]);
    assert_eq!(machine.state(3), State::On);
}

#[test]
fn a_reset_offers_again_what_was_held_if_it_shall() {
    for (policy, expected) in [(AfterReset::KeepTarget, 5), (AfterReset::BootSet, 2)] {
        let mut machine = Machine::up(Guest::Modern, 5);
        machine.reset(policy);
        assert_eq!(machine.held(), 2);
        machine.guest_runs();
        assert_eq!(machine.held(), expected);
        let origins: Vec<_> = machine.reports.iter().map(|report| report.origin).collect();
        let expected_origins: &[Origin] = if expected == 5 { &[Origin::Reset] } else { &[] };
        assert_eq!(origins, expected_origins);
    }
}

#[test]
fn the_operator_overrides_what_a_reset_began() {
    let mut machine = Machine::up(Guest::Modern, 5);
    machine.reset(AfterReset::KeepTarget);
    machine.set(3);
    machine.guest_runs();
    machine.ended(Outcome::Done, 3, 3, &[]);

    let mut machine = Machine::up(Guest::Modern, 5);
    machine.guest = Guest::Old;
    machine.reset(AfterReset::KeepTarget);
    machine.guest_runs();
    assert_eq!(machine.state(4), State::EnabledOff);
    machine.set(3);
    assert_eq!(machine.state(4), State::Withdrawn);
    assert!(machine.reports.is_empty(), "vCPU 2 is still offered");
    machine.pass(10 * SECOND);
    machine.ended(Outcome::Partly, 3, 2, &[(2, Why::NotTurnedOn)]);
}

#[test]
fn resets_in_a_row_do_not_forget_the_target() {
    let mut machine = Machine::up(Guest::Modern, 5);
    for _ in 0..5 {
        machine.reset(AfterReset::KeepTarget);
        machine.pass(30 * SECOND);
    }
    machine.guest_runs();
    assert_eq!(machine.held(), 5);
}

#[test]
fn a_vm_that_goes_off_ends_the_resize() {
    for target in [4, 2] {
        let mut machine = Machine::up(Guest::Deaf, 3);
        machine.set(target);
        let progress = machine.goes_off();
        assert_eq!(progress.effects, []);
        machine.take(progress);
        let vcpu = if target == 4 { 3 } else { 2 };
        let reached = machine.on();
        machine.ended(Outcome::Refused, target, reached, &[(vcpu, Why::VmOff)]);
    }
}

#[test]
fn a_resize_can_be_cancelled() {
    let mut machine = Machine::up(Guest::Deaf, 2);
    machine.set(3);
    let progress = machine.resizer.cancel(&machine.cells);
    machine.take(progress);
    machine.ended(Outcome::TimedOut, 3, 2, &[(2, Why::NotTurnedOn)]);
    assert_eq!(machine.resizer.cancel(&machine.cells), Progress::default());
}

#[test]
fn reports_read_well() {
    let mut machine = Machine::up(Guest::Old, 2);
    machine.set(3);
    machine.pass(10 * SECOND);
    let report = &machine.reports[0];
    assert_eq!((report.requested, report.reached), (3, 2));
    assert_eq!(
        report.shortfalls[0].to_string(),
        "vcpu2: guest did not turn it on (is it listening for hot-add? Linux older than 6.11 does not)"
    );
    assert_eq!(
        Why::EjectRefused(0x82).to_string(),
        "guest keeps it: busy (_OST status 0x82)"
    );
}

/// One thing that the operator, time or a guest that means no good does.
#[derive(Clone, Copy, Debug)]
enum Step {
    Set(u16, bool),
    Pass(u64),
    Reset(bool),
    Off,
    Listen,
    On(u16),
    CpuOff(u16),
    Eject(u16),
    Ost(u16, u16, u16),
}

fn step() -> impl Strategy<Value = Step> {
    let ost = || {
        prop_oneof![
            Just(0),
            Just(1),
            Just(0x80),
            Just(0x81),
            Just(0x84),
            any::<u16>()
        ]
    };
    let source = prop_oneof![Just(0), Just(1), Just(3), Just(0x103), any::<u16>()];
    prop_oneof![
        (0..10_u16, any::<bool>()).prop_map(|(target, strict)| Step::Set(target, strict)),
        (0..12 * SECOND).prop_map(Step::Pass),
        any::<bool>().prop_map(Step::Reset),
        Just(Step::Off),
        Just(Step::Listen),
        (0..8_u16).prop_map(Step::On),
        (0..8_u16).prop_map(Step::CpuOff),
        (0..8_u16).prop_map(Step::Eject),
        (0..10_u16, source, ost())
            .prop_map(|(vcpu, source, status)| Step::Ost(vcpu, source, status)),
    ]
}

proptest! {
    /// However guest and operator behave: one report for each resize, true to the cells, and none is pending for ever.
    #[test]
    fn every_resize_ends_once_and_tells_the_truth(steps in prop::collection::vec(step(), 1..60)) {
        let mut machine = Machine::booting(Guest::Deaf);
        let mut asked = 0;
        for step in steps {
            let reports = machine.reports.len();
            match step {
                Step::Set(target, strict) => {
                    let limits = if strict { STRICT } else { LIMITS };
                    asked += usize::from(machine.begin(target, limits).is_ok());
                }
                Step::Pass(time_ns) => machine.pass(time_ns),
                Step::Reset(keep) => machine.reset(if keep { AfterReset::KeepTarget } else { AfterReset::BootSet }),
                Step::Off => {
                    let progress = machine.goes_off();
                    machine.take(progress);
                    prop_assert!(!machine.resizer.is_active());
                }
                Step::Listen => {
                    let progress = machine.resizer.on_listening(&machine.cells, machine.now_ns);
                    machine.take(progress);
                }
                Step::On(vcpu) => {
                    machine.turn_on(vcpu);
                }
                Step::CpuOff(vcpu) => machine.turn_off(vcpu),
                Step::Eject(vcpu) => machine.eject(vcpu),
                Step::Ost(vcpu, source, status) => machine.ost(vcpu, source, status),
            }
            for report in &machine.reports[reports..] {
                prop_assert_eq!(report.outcome == Outcome::Done, report.shortfalls.is_empty());
                prop_assert!(report.outcome != Outcome::Done || report.reached == report.requested, "{report:?}");
            }
            prop_assert!(machine.held() >= 2, "the boot set is always held");
            check_ledger(&machine)?;
            prop_assert_eq!(machine.resizer.is_active(), machine.resizer.deadline_ns().is_some());
        }
        machine.pass(LIMITS.timeout_ns + LIMITS.boot_grace_ns);
        let answered = machine.reports.iter().filter(|report| report.origin == Origin::Operator).count();
        prop_assert_eq!(answered, asked);
        prop_assert!(!machine.resizer.is_active());
    }
}

fn members(set: &VcpuSet) -> impl Iterator<Item = VcpuId> {
    core::iter::successors(set.first_from(0), |vcpu| set.first_from(vcpu.get() + 1))
}

/// Holds the resizer's sets and its count of what is open against a look at everything.
fn check_ledger(machine: &Machine) -> Result<(), TestCaseError> {
    let ledger = &machine.resizer.ledger;
    for (vcpu, cell) in (0..).map(VcpuId::new).zip(&machine.cells) {
        let is_boot = cell.role() == Role::Boot;
        prop_assert_eq!(is_boot, vcpu.get() < ledger.boot);
        prop_assert_eq!(
            members(&ledger.lent).any(|member| member == vcpu),
            !is_boot && is_held(cell)
        );
        prop_assert_eq!(
            members(&ledger.spare).any(|member| member == vcpu),
            !is_held(cell)
        );
        let is_offered = !is_boot && cell.state() == State::EnabledOff;
        prop_assert!(members(&ledger.offered).any(|member| member == vcpu) || !is_offered);
    }
    if let Some(active) = &machine.resizer.active {
        let wants = &active.wants;
        let open = wants.iter().filter(|want| !want.phase.is_decided()).count();
        prop_assert_eq!(active.open, open + usize::from(active.awaits_boot));
        prop_assert!(wants.is_sorted_by(|a, b| a.vcpu < b.vcpu));
    }
    Ok(())
}
