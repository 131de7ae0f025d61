//! The host machine as its device tree describes it.
