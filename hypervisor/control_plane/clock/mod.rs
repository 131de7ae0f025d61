//! The wall clock as Bullpen's own hypercalls tell it: `firmware::efi` writes the callers, `hypercall` answers them.

pub mod calls;
pub mod time;
pub mod utc;
