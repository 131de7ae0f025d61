//! The operator ends the machine's run and tells it the time.

use control_plane::console::{ErrorKind, HostPower, Reply};
use types::access::AccessWidth;
use types::devices::DeviceId;
use types::ids::PcpuId;

use super::{IMSC, MR, leave, running, work};
use crate::cpu::Manager;
use crate::devices::{Access, Device, Work};
use crate::vm::{Around, Cause, Kicks, Phase};

/// The clock's data register (ARM DDI 0224, 3.2).
const DR: u64 = 0;

#[test]
fn the_host_ends_only_by_force_while_vms_run() {
    let (vms, vm) = running();
    let instance = &vms.all()[0];
    for (power, pause) in [(HostPower::Reboot, false), (HostPower::Off, true)] {
        if pause {
            assert!(vms.pause(instance));
        }
        let error = vms.end_host(power, false).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NeedsForce);
        let expected = [
            "VMs run: guest; `host ",
            power.word(),
            " --force` ends them",
        ];
        assert_eq!(error.message, expected.concat());
        assert_eq!(vms.host.ended.take(), None);
        assert_eq!(vms.end_host(power, true), Ok(Reply::Done));
        assert_eq!(vms.host.ended.take(), Some(power));
    }
    vms.system_off(vm, Cause::Operator);
    leave(vms);
    work(vms);
    assert_eq!(vm.phase(), Phase::Off);
    assert_eq!(vms.end_host(HostPower::Off, false), Ok(Reply::Done));
    assert_eq!(vms.host.ended.take(), Some(HostPower::Off));
}

#[test]
fn a_host_without_firmware_to_end_it_says_so_whatever_runs() {
    let (vms, _) = running();
    vms.host.endless.set(true);
    for force in [false, true] {
        let error = vms.end_host(HostPower::Off, force).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported);
        assert!(
            error.message.contains("no PSCI firmware"),
            "{}",
            error.message
        );
    }
    assert_eq!(vms.host.ended.take(), None);
}

#[test]
fn the_time_that_is_set_is_told_and_shown_by_every_clock() {
    let (vms, vm) = running();
    // 32 seconds after the start.
    vms.host.now.set(2_000_000_000);
    let time = |unix_s, known| Reply::HostTime { unix_s, known };
    assert_eq!(vms.time(None), time(32, false));
    let access = |offset| Access {
        offset,
        width: AccessWidth::Word,
    };
    let mut kicks = Kicks::NONE;
    let mut around = Around::new(vm, DeviceId::Rtc, &vms.host, &mut kicks);
    assert_eq!(vm.devices.rtc.read(access(DR), &mut around), Ok(32));
    // The guest waits for a second that is ten seconds away once the time is set.
    let alarm = 1_795_968_726 + 10;
    for (offset, value) in [(MR, alarm), (IMSC, 1)] {
        let _work: Option<Work> = vm.devices.rtc.write(access(offset), value, &mut around);
    }
    vms.host.asked.take();
    assert_eq!(vms.time(Some(1_795_968_726)), time(1_795_968_726, true));
    assert_eq!(*vms.host.asked.borrow(), [0], "its alarm is nearer");
    vms.host.now.set(vms.host.now.get() + 62_500_000);
    assert_eq!(vms.time(None), time(1_795_968_727, true));
    let mut around = Around::new(vm, DeviceId::Rtc, &vms.host, &mut kicks);
    assert_eq!(
        vm.devices.rtc.read(access(DR), &mut around),
        Ok(1_795_968_727)
    );
    // Set back to before the start: the difference wraps, the time does not.
    assert_eq!(vms.time(Some(5)), time(5, true));
    vms.attend(PcpuId::new(0));
}
