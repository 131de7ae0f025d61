//! Which room may use which: each room, and what it must not name by any path, grouped imports among them.

use super::{OURS, rust, verdict};
use tests::imports::named;

/// A room, and the crates and modules it must not name.
type Door = (&'static str, &'static [&'static str]);

/// The door table of ARCHITECTURE.md: `el2 -> vmm -> {control_plane, stage2, vgic, psci, boards} -> types -> core`.
const DOORS: [Door; 19] = [
    (
        "hypervisor/types/",
        &[
            "stage2",
            "vgic",
            "psci",
            "boards",
            "vmm",
            "control_plane",
            "alloc",
            "spin",
            "aarch64_cpu",
            "log",
            "std::time",
        ],
    ),
    (
        "stage2/",
        &[
            "vgic",
            "psci",
            "boards",
            "vmm",
            "control_plane",
            "spin",
            "aarch64_cpu",
            "log",
            "std::time",
        ],
    ),
    (
        "vgic/",
        &[
            "stage2",
            "psci",
            "boards",
            "vmm",
            "control_plane",
            "spin",
            "aarch64_cpu",
            "log",
            "std::time",
        ],
    ),
    (
        "psci/",
        &[
            "stage2",
            "vgic",
            "boards",
            "vmm",
            "control_plane",
            "spin",
            "aarch64_cpu",
            "log",
            "std::time",
        ],
    ),
    (
        "boards/",
        &[
            "stage2",
            "vgic",
            "psci",
            "vmm",
            "control_plane",
            "spin",
            "aarch64_cpu",
            "log",
            "std::time",
        ],
    ),
    (
        "hypervisor/vmm/devices/",
        &[
            "crate::vm",
            "crate::sched",
            "control_plane::console",
            "control_plane::firmware",
            "control_plane::loader",
            "vgic",
        ],
    ),
    (
        "hypervisor/control_plane/",
        &[
            "vmm",
            "vgic",
            "stage2",
            "boards",
            "spin",
            "aarch64_cpu",
            "std::time",
        ],
    ),
    ("hypervisor/control_plane/firmware/", &["crate::console"]),
    ("hypervisor/control_plane/loader/", &["crate::console"]),
    (
        "hypervisor/vmm/sched/",
        &[
            "crate::devices",
            "crate::vm",
            "control_plane::firmware",
            "control_plane::loader",
            "vgic",
            "stage2",
        ],
    ),
    (
        "hypervisor/vmm/vm/",
        &[
            "control_plane::firmware",
            "control_plane::loader",
            "control_plane::console",
        ],
    ),
    (
        "hypervisor/vmm/dispatch/",
        &[
            "control_plane::firmware",
            "control_plane::loader",
            "control_plane::console",
        ],
    ),
    (
        "hypervisor/vmm/exit.rs",
        &[
            "control_plane::firmware",
            "control_plane::loader",
            "control_plane::console",
        ],
    ),
    (
        "hypervisor/vmm/hypercall.rs",
        &[
            "control_plane::firmware",
            "control_plane::loader",
            "control_plane::console",
        ],
    ),
    (
        "hypervisor/vmm/bus.rs",
        &[
            "control_plane::firmware",
            "control_plane::loader",
            "control_plane::console",
        ],
    ),
    (
        "hypervisor/control_plane/console/",
        &["crate::config", "crate::firmware", "crate::loader"],
    ),
    ("hypervisor/vmm/", &["aarch64_cpu", "std::time"]),
    (
        "tests/src/",
        &[
            "vmm",
            "control_plane",
            "stage2",
            "vgic",
            "psci",
            "boards",
            "hypervisor",
        ],
    ),
    (
        "tests/tests/",
        &[
            "vmm",
            "control_plane",
            "stage2",
            "vgic",
            "psci",
            "boards",
            "hypervisor",
        ],
    ),
];

#[test]
fn rooms_use_only_the_doors_they_have() {
    let mut broken = Vec::new();
    for file in rust(&OURS).iter().filter(|file| !file.is_test()) {
        let doors = DOORS
            .iter()
            .filter(|(room, _)| file.path.starts_with(room))
            .flat_map(|(_, forbidden)| forbidden.iter());
        let forbidden: Vec<&str> = doors.copied().collect();
        for name in named(file) {
            let path = name.path.join("::");
            let leads_to = |door: &&&str| {
                let rest = path.strip_prefix(**door);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            };
            if let Some(door) = forbidden.iter().find(leads_to) {
                let line = name.line + 1;
                broken.push(format!("{}:{line}: must not use `{door}`", file.path));
            }
        }
    }
    verdict("A room uses only what the table of doors gives it", &broken);
}
