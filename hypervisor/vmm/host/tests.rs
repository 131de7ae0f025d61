//! QEMU's own trees, as `testdata/README.md` says they were made.

use super::*;

const GIC3_4: &[u8] = include_bytes!("testdata/virt-gic3-4.dtb");

#[test]
fn qemu_virt_is_understood() {
    let host = describe(GIC3_4).expect("QEMU's tree");
    assert_eq!(host.cpus.len(), 4);
    assert_eq!(
        host.memory,
        [HostRange {
            base: HostPhys::new(0x4000_0000),
            size: 1 << 30
        }]
    );
    assert_eq!(
        host.psci,
        Some(Psci {
            conduit: Conduit::Smc,
            at_least_1_0: true
        })
    );
    assert_eq!(host.timer.hyp, 26);
    assert_eq!(
        host.console().map(|uart| uart.registers.base.get()),
        Some(0x0900_0000)
    );
    assert_eq!(
        host.control()
            .map(|uart| (uart.registers.base.get(), uart.intid)),
        Some((0x0904_0000, Some(40)))
    );
    assert_eq!(host.warnings, [""; 0]);
}
