//! The VMs' names, by which operators know them.

use alloc::{string::String, vec::Vec};
use types::ids::VmId;

/// The names of all VMs, in the order of their ids.
#[derive(Debug)]
pub(super) struct Names(Vec<String>);

impl Names {
    pub(super) fn new(names: Vec<String>) -> Self {
        Self(names)
    }

    /// Returns a VM's name; a VM that does not exist is called "?".
    pub(super) fn of(&self, vm: VmId) -> &str {
        self.0.get(vm.index()).map_or("?", String::as_str)
    }

    pub(super) fn find(&self, name: &str) -> Option<VmId> {
        let index = self.0.iter().position(|known| known == name)?;
        u16::try_from(index).ok().map(VmId::new)
    }

    /// Returns every name.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}
