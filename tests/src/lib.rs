//! Tests of the whole system: they see QEMU, consoles and the guest protocol, never the hypervisor from inside.
#![forbid(unsafe_code)]
