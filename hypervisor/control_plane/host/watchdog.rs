//! The power management block of a Raspberry Pi: its watchdog ends the run of a machine whose firmware takes no PSCI calls.
//!
//! There is no manual of it. What is written is what the binding brcm,bcm2835-pm.yaml and the boards' own firmware go by: each write
//! has the password in its upper byte, or is ignored; the watchdog counts 20 bits in steps of 16 us; the firmware that comes after the
//! reset halts if the partition it is to boot from is 63.

use super::{HostRange, registers_of};
use crate::console::HostPower;
use crate::devicetree::Tree;
use crate::serial::Registers;

/// Bytes of the block up to the last register that is used.
const SIZE: u64 = 0x28;
/// PM_RSTC: what the end of the watchdog's time does.
const RSTC: u16 = 0x1c;
/// PM_RSTC.WRCFG, and its value for a reset of all.
const WRCFG: u32 = 0b11 << 4;
const FULL_RESET: u32 = 0b10 << 4;
/// PM_RSTS: among others the partition to boot from, in each second of its lower bits.
const RSTS: u16 = 0x20;
const PARTITION_63: u32 = 0x555;
/// PM_WDOG: the time that is left.
const WDOG: u16 = 0x24;
const SOON: u32 = 10;
const PASSWORD: u32 = 0x5a00_0000;
/// What is not the password.
const VALUE: u32 = 0x00ff_ffff;

/// Finds its registers.
pub(super) fn find(tree: &Tree<'_>) -> Option<HostRange> {
    registers_of(tree, "brcm,bcm2835-pm-wdt", false).filter(|range| range.size >= SIZE)
}

/// Has the watchdog reset the machine 160 us from now. To turn it off is to have the firmware halt after the reset.
pub fn end_by_watchdog(registers: &impl Registers, power: HostPower) {
    let write = |register, value| registers.write(register, PASSWORD | value & VALUE);
    if power == HostPower::Off {
        write(RSTS, registers.read(RSTS) | PARTITION_63);
    }
    write(WDOG, SOON);
    write(RSTC, registers.read(RSTC) & !WRCFG | FULL_RESET);
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    /// The block by its rules: what is written without the password is lost, and the watchdog runs once it may reset.
    #[derive(Default)]
    struct Fake {
        rstc: Cell<u32>,
        rsts: Cell<u32>,
        wdog: Cell<u32>,
        ended: Cell<Option<HostPower>>,
    }

    impl Fake {
        fn register(&self, register: u16) -> &Cell<u32> {
            match register {
                0x1c => &self.rstc,
                0x20 => &self.rsts,
                0x24 => &self.wdog,
                _ => panic!("{register:#x} is none of its registers"),
            }
        }
    }

    impl Registers for Fake {
        fn read(&self, register: u16) -> u32 {
            self.register(register).get()
        }

        fn write(&self, register: u16, value: u32) {
            if value >> 24 != 0x5a {
                return;
            }
            self.register(register).set(value & 0xff_ffff);
            if register == 0x1c && value & 0x30 == 0x20 && self.wdog.get() != 0 {
                let halts = self.rsts.get() & 0x555 == 0x555;
                let how = if halts {
                    HostPower::Off
                } else {
                    HostPower::Reboot
                };
                self.ended.set(Some(how));
            }
        }
    }

    #[test]
    fn it_ends_as_asked_and_leaves_other_bits() {
        for power in [HostPower::Reboot, HostPower::Off] {
            let fake = Fake::default();
            fake.rstc.set(0x00_0112);
            fake.rsts.set(0x00_1002);
            end_by_watchdog(&fake, power);
            assert_eq!(fake.ended.get(), Some(power));
            assert_eq!(fake.rstc.get(), 0x00_0122, "WRCFG alone has changed");
            let partition = if power == HostPower::Off { 0x555 } else { 0 };
            assert_eq!(fake.rsts.get(), 0x00_1002 | partition);
            assert!(
                (1..0x1000).contains(&fake.wdog.get()),
                "well below a second"
            );
        }
    }

    #[test]
    fn a_register_that_reads_its_password_back_is_written_once_more_with_it() {
        let fake = Fake::default();
        fake.rstc.set(0x5a00_0102);
        fake.rsts.set(0xff00_0000);
        end_by_watchdog(&fake, HostPower::Off);
        assert_eq!(fake.ended.get(), Some(HostPower::Off));
    }
}
