//! The firmware interface that starts and stops CPUs (Linux Documentation/devicetree/bindings/arm/psci.yaml).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::devicetree::Tree;

/// The instruction that reaches PSCI firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// SMC: firmware at EL3, or a machine that acts as if.
    Smc,
    /// HVC: a hypervisor above us. Seen only where this program was not started at EL2 proper.
    Hvc,
}

/// PSCI firmware named by the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Psci {
    /// How it is called.
    pub conduit: Conduit,
    /// Whether the tree says version 1.0 or later, so that PSCI_FEATURES may be called (DEN0022, 5.15).
    pub at_least_1_0: bool,
}

/// Finds PSCI 0.2 or later; version 0.1 has no fixed function numbers and is left out.
pub(super) fn find(tree: &Tree<'_>, warnings: &mut Vec<String>) -> Option<Psci> {
    let any = ["arm,psci-1.0", "arm,psci-0.2", "arm,psci"];
    let node = tree
        .nodes()
        .find(|node| node.is_compatible(&any) && node.is_enabled())?;
    if !node.is_compatible(&["arm,psci-1.0", "arm,psci-0.2"]) {
        warnings.push(format!("{}: PSCI 0.1 is not used", node.path()));
        return None;
    }
    let conduit = match node.string("method") {
        Some("smc") => Conduit::Smc,
        Some("hvc") => Conduit::Hvc,
        other => {
            let shown = other.unwrap_or("");
            warnings.push(format!(
                "{}: `method` = \"{shown}\" is neither smc nor hvc: not used",
                node.path()
            ));
            return None;
        }
    };
    Some(Psci {
        conduit,
        at_least_1_0: node.is_compatible(&["arm,psci-1.0"]),
    })
}
