//! The core behind another face than GICv3's: it must carry no assumption of a version.

mod v2;
mod v2_tests;
