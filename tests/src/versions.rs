//! Tests that run on a GICv3 and on a GICv2, from one table: the module that a test is in says which.

use crate::{Machine, artefacts};

/// Where a test of [`crate::on_both_gics`] runs.
#[derive(Clone, Copy, Debug)]
pub struct At {
    gic: u32,
    name: &'static str,
}

impl At {
    /// Describes its machine, `virt` with this version of the interrupt controller.
    #[must_use]
    pub fn machine(self) -> Machine {
        Machine::new(&format!("{}-gicv{}", self.name, self.gic)).gic(self.gic)
    }
}

/// When a test runs on a GICv2; on a GICv3 it always does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGicV2 {
    /// Always.
    Gate,
    /// With `cargo xtask test --full` only: what it looks at is the same for both, or the gate has a smaller one.
    Full,
}

/// Runs a test with this version, if it is time.
pub fn run(gic: u32, name: &'static str, when: OnGicV2, test: fn(At)) {
    if gic == 2 && when == OnGicV2::Full && !artefacts::full() {
        eprintln!("skipped: `cargo xtask test --full gicv2` runs it");
        return;
    }
    test(At { gic, name });
}

/// One test a line for each version: its name, when it runs on a GICv2, and what it does. They are in the modules `gicv3` and `gicv2`.
#[macro_export]
macro_rules! on_both_gics {
    ($($name:ident: $when:ident, $test:expr;)+) => {
        $crate::on_both_gics!(in gicv3, 3: $($name: $when, $test;)+);
        $crate::on_both_gics!(in gicv2, 2: $($name: $when, $test;)+);
    };
    (in $module:ident, $gic:literal: $($name:ident: $when:ident, $test:expr;)+) => {
        mod $module {
            use super::*;
            $(
                #[test]
                fn $name() {
                    let when = $crate::versions::OnGicV2::$when;
                    $crate::versions::run($gic, stringify!($name), when, $test);
                }
            )+
        }
    };
}
