//! The bench guest under KVM: Debian's Linux at EL2 (VHE), Debian's QEMU for arm64 as its VMM, in an initramfs.

use super::guest;
use super::rows::Findings;
use crate::{initramfs, setup};
use ::tests::artefacts;
use ::tests::guest::follow;
use std::time::Duration;

/// The KVM host's memory: its initramfs holds QEMU and fifty libraries.
const MEMORY_MIB: u64 = 1024;
/// The host boots and loads QEMU before the guest starts.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs all rows under KVM.
pub(crate) fn measure(samples: u32) -> Findings {
    let mut findings = Findings::default();
    for (cpus, words) in guest::PEER_RUNS {
        findings.extend(run(cpus, &format!("samples={samples} {words}")));
    }
    findings
}

fn run(cpus: u32, words: &str) -> Findings {
    super::attempt("bench-kvm", || {
        let kernel = setup::guest::kernel(&setup::guest::LINUX_6_12)?;
        let image = artefacts::guest("bench");
        let vmm = setup::guest::vmm()?;
        let initrd = initramfs::kvm_host(&setup::guest::busybox()?, &vmm, &image, words)?;
        let arguments = ["-initrd".to_owned(), initrd.display().to_string()];
        let mut running = guest::machine("bench-kvm", &arguments)
            .cpus(cpus)
            .memory_mib(MEMORY_MIB)
            .option("virtualization=on")
            .bare(&kernel, "console=ttyAMA0 quiet rdinit=/init");
        Ok(guest::findings(follow(
            &mut running.console,
            None,
            "bench",
            LIMIT,
        )))
    })
}
