//! One physical CPU as `vmm::cpu` drives it: each method is the registers and instructions that it names.
#![expect(unsafe_code, reason = "gives this CPU a VM's memory")]

use core::marker::PhantomData;
use core::sync::atomic::Ordering;
use types::access::AccessWidth;
use types::address::GuestPhys;
use types::layout::GicVersion;
use vgic::CpuInterface;
use vmm::cpu::{self, Interrupt, Local, Pcpu, cause};
use vmm::dispatch::inject::{self, Exception};
use vmm::dispatch::slow::Exit;
use vmm::exit::{Syndrome, fault_address};
use vmm::features::{FeaturePolicy, Lent};
use vmm::sched::Capped;
use vmm::spin::Sight;
use vmm::vm::context::{FpRegisters, Frame, TimerRegisters};
use vmm::vm::{Kicks, Vcpu, VcpuContext, Vm};

use crate::gic::{self, V2, V3, Version};
use crate::percpu::Percpu;
use crate::sysreg::{self, isb, wfi, yield_hint};
use crate::vms::{self, Vms};
use crate::{clock, fpsimd, guest_memory, hot, lent, percpu, smp, switch, timer, tlb, vectors};

/// Runs guests on this CPU for good.
pub(crate) fn run(cpu: &'static Percpu) -> ! {
    match gic::version() {
        GicVersion::V2 => run_with(Machine::<V2>::of(cpu)),
        GicVersion::V3 => run_with(Machine::<V3>::of(cpu)),
    }
}

fn run_with<V: Version>(machine: Machine<V>) -> ! {
    let policy = Capped::new(cpu::turns(&machine));
    let mut state = Pcpu::new(machine, percpu::placements(), policy);
    loop {
        state.step();
    }
}

/// The CPU that runs this code.
struct Machine<V> {
    cpu: &'static Percpu,
    version: PhantomData<V>,
}

impl<V> Machine<V> {
    const fn of(cpu: &'static Percpu) -> Self {
        Self {
            cpu,
            version: PhantomData,
        }
    }
}

impl<V: Version> cpu::Machine for Machine<V> {
    type Lists = V::Lists;
    type Manager = Vms;

    #[cold]
    #[inline(never)]
    fn manager(&self) -> &Vms {
        vms::vms()
    }

    #[inline(always)]
    fn local(&self) -> &'static Local {
        &self.cpu.local
    }

    #[inline(always)]
    fn lists(&self) -> V::Lists {
        V::lists()
    }

    #[inline(always)]
    fn cpu_interface(&self) -> CpuInterface {
        V::guest_interface()
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        timer::now()
    }

    fn ticks(&self, ns: u64) -> u64 {
        clock::duration_ticks(ns)
    }

    #[inline(always)]
    fn arm(&self, deadline_ticks: u64) {
        self.cpu.arm(deadline_ticks);
    }

    #[inline(always)]
    fn sleep(&self) {
        wfi();
    }

    fn is_interrupted(&self) -> bool {
        sysreg::isr_el1::read() != 0
    }

    #[inline(always)]
    fn acknowledge(&self) -> bool {
        let intid = V::acknowledge();
        intid < gic::FIRST_SPECIAL && hot::take::<V, _>((), self.cpu, intid, cause::IRQ).1 != 0
    }

    #[inline]
    fn classify(&self, intid: u32) -> Interrupt {
        V::drop_priority(intid);
        let private = &self.cpu.ppis.own;
        if intid == private.hyp {
            Interrupt::Timer
        } else if intid == private.maintenance {
            Interrupt::Maintenance
        } else {
            Interrupt::Device
        }
    }

    fn device(&self, intid: u32) {
        vms::interrupt(intid);
    }

    #[inline(always)]
    fn deactivate(&self, intid: u32) {
        V::deactivate(intid);
    }

    #[inline(always)]
    fn deactivate_all(&self, intids: u32) {
        hot::deactivate::<V>(intids);
    }

    #[inline(always)]
    fn kick(&self, kicks: Kicks) {
        percpu::kick_by::<V>(kicks);
    }

    #[inline(never)]
    fn load_vm(&self, vm: &Vm) {
        // SAFETY: the shape of this VM's tables (`AddressSpace::vtcr`), stored before any of its vCPUs may run.
        unsafe { sysreg::vtcr_el2::write(vm.vtcr.load(Ordering::Acquire)) };
        // SAFETY: the root of tables that map this VM's memory alone; they are freed only after each CPU has given its vCPUs up (`vm::life`).
        unsafe { sysreg::vttbr_el2::write(vm.vttbr.load(Ordering::Acquire)) };
        lent::set_mdcr(vm.policy.mdcr);
        sysreg::cntvoff_el2::write(vm.counter_offset.load(Ordering::Acquire));
        V::load_vm(vm.layout.gic);
        isb();
    }

    #[inline(always)]
    fn forget_sibling(&self) {
        tlb::forget_sibling();
    }

    #[inline(always)]
    fn load_vcpu(&self, vcpu: &Vcpu, policy: &FeaturePolicy, context: &mut VcpuContext) {
        sysreg::vmpidr_el2::write(vcpu.mpidr());
        if core::mem::take(&mut context.fresh) {
            switch::load_reset(policy.pointer_authentication);
        } else {
            switch::load(&context.system, policy.pointer_authentication);
        }
        if !context.lent.is_none() {
            lent::load(policy, context, context.lent);
        }
        V::load_guest(&context.gic);
    }

    #[inline(always)]
    fn save_vcpu(&self, policy: &FeaturePolicy, context: &mut VcpuContext) {
        switch::save(&mut context.system, policy.pointer_authentication);
        if !context.lent.is_none() {
            lent::save(policy, context);
        }
        V::save_guest(&mut context.gic);
    }

    #[inline(always)]
    fn load_timers(&self, timers: &TimerRegisters) {
        timer::load(timers);
    }

    #[inline(always)]
    fn save_timers(&self, timers: &mut TimerRegisters) {
        timer::save(timers);
    }

    #[inline(always)]
    fn silence_timers(&self) {
        timer::silence();
    }

    #[inline(always)]
    fn load_known_reset(&self) {
        switch::load_known_reset();
        V::reset_guest();
    }

    #[inline(always)]
    fn synchronize(&self) {
        isb();
    }

    fn set_active(&self, intid: u32) {
        let physical = self.cpu.ppis.behind(intid);
        self.cpu.private_lines.set_active(physical);
    }

    fn clear_active(&self, intid: u32) {
        let physical = self.cpu.ppis.behind(intid);
        self.cpu.private_lines.clear_active(physical);
    }

    #[inline(always)]
    fn set_cptr(&self, cptr: u64) {
        fpsimd::set_trap(cptr);
    }

    #[inline(always)]
    fn set_hcr(&self, hcr: u64) {
        switch::set_hcr(hcr);
    }

    fn save_fp(&self, registers: &mut FpRegisters) {
        fpsimd::save(registers);
    }

    fn load_fp(&self, registers: &FpRegisters) {
        fpsimd::load(registers);
    }

    fn lend(&self, policy: &FeaturePolicy, context: &mut VcpuContext, unit: Lent) {
        lent::lend(policy, context, unit);
    }

    fn stop_lending(&self, policy: &FeaturePolicy, lent: Lent) {
        lent::stop(policy, lent);
    }

    fn set_mdscr(&self, value: u64) {
        sysreg::mdscr_el1::write(value);
    }

    fn elr_el1(&self) -> u64 {
        sysreg::elr_el1::read()
    }

    fn sight(&self) -> Sight {
        Sight {
            sctlr_el1: sysreg::sctlr_el1::read(),
            tcr_el1: sysreg::tcr_el1::read(),
            ttbr0_el1: sysreg::ttbr0_el1::read(),
            ttbr1_el1: sysreg::ttbr1_el1::read(),
            sp_el0: sysreg::sp_el0::read(),
            tpidr_el1: sysreg::tpidr_el1::read(),
            counter: sysreg::cntvct_el0::read(),
        }
    }

    fn read_ram(&self, vm: &Vm, address: GuestPhys, width: AccessWidth) -> Option<u64> {
        Some(guest_memory::load(vm.ram_word(address, width)?, width))
    }

    fn relax(&self) {
        yield_hint();
    }

    fn inject(&self, frame: &mut Frame, exception: Exception) {
        sysreg::elr_el1::write(frame.pc);
        sysreg::spsr_el1::write(frame.pstate);
        sysreg::esr_el1::write(exception.esr);
        if let Some(far) = exception.far {
            sysreg::far_el1::write(far);
        }
        let (vbar, sctlr) = (sysreg::vbar_el1::read(), sysreg::sctlr_el1::read());
        let entry = inject::enter_el1(frame.pstate, vbar, sctlr);
        frame.pc = entry.pc;
        frame.pstate = entry.pstate;
    }

    #[inline(always)]
    fn enter(&self, frame: &mut Frame) -> u64 {
        vectors::enter(frame)
    }

    #[inline(always)]
    fn exit(&self) -> Exit {
        let far = sysreg::far_el2::read();
        Exit {
            syndrome: Syndrome::new(sysreg::esr_el2::read()),
            far,
            address: fault_address(sysreg::hpfar_el2::read(), far),
        }
    }

    fn power_down(&self, is_wanted: impl FnOnce() -> bool) -> bool {
        smp::power_down(self.cpu, is_wanted)
    }
}
