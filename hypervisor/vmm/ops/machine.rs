//! What the operator does with the machine itself: ends its run, and tells it the time of day.

use alloc::format;
use alloc::string::String;
use control_plane::console::{CommandError, ErrorKind, HostPower, Reply};
use types::devices::DeviceId;

use super::{Host, Vms};
use crate::vm::{Around, Kicks, Phase};

const NS_A_SECOND: u64 = 1_000_000_000;

impl<H: Host> Vms<H> {
    /// Ends the machine's run, which takes every VM with it.
    ///
    /// # Errors
    /// The board has no way to do that, or VMs run and nothing says that they may be ended.
    pub fn end_host(&self, power: HostPower, force: bool) -> Result<Reply, CommandError> {
        let word = power.word();
        if !self.host.can_end(power) {
            let message = format!(
                "this board has no PSCI firmware and no watchdog: `host {word}` needs one of them"
            );
            return Err(CommandError::new(ErrorKind::Unsupported, message));
        }
        let on = self.instances.iter().map(|instance| instance.vm);
        let on = on.filter(|vm| vm.phase() != Phase::Off);
        let mut names = String::new();
        for vm in on {
            names.push_str(if names.is_empty() { "" } else { ", " });
            names.push_str(&vm.name);
        }
        if !force && !names.is_empty() {
            let message = format!("VMs run: {names}; `host {word} --force` ends them");
            return Err(CommandError::new(ErrorKind::NeedsForce, message));
        }
        log::warn!("the operator asks for `host {word}`");
        self.host.end(power);
        Ok(Reply::Done)
    }

    /// Sets the time of day if there is one to set, in seconds since 1970, and tells it. Every VM's clock shows it at once, also one
    /// that its guest has set: the operator knows best.
    pub fn time(&self, set: Option<u32>) -> Reply {
        let now_s = self.host.now_ns() / NS_A_SECOND;
        if let Some(seconds) = set {
            self.host
                .set_epoch_s(u64::from(seconds).wrapping_sub(now_s));
            for instance in &self.instances {
                let vm = instance.vm;
                let mut kicks = Kicks::NONE;
                let mut around = Around::new(vm, DeviceId::Rtc, &self.host, &mut kicks);
                let work = vm.devices.rtc.set_seconds(seconds, &mut around);
                self.host.kick(kicks);
                if let Some(work) = work {
                    crate::cpu::Manager::work(self, vm, work);
                }
            }
        }
        let epoch_s = self.host.epoch_s();
        Reply::HostTime {
            unix_s: epoch_s.unwrap_or(0).wrapping_add(now_s),
            known: epoch_s.is_some(),
        }
    }
}
