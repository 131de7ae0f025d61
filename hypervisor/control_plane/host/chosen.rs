//! What the boot loader adds for the program it starts: `/chosen` (Devicetree Specification 3.6, Linux chosen.txt).

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use types::address::HostPhys;

use super::{HostError, HostRange};
use crate::devicetree::{Node, Tree};

/// Most bytes of `rng-seed` kept.
const MAX_SEED: usize = 256;

/// The contents of `/chosen`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// The command line given to the hypervisor; its `bullpen.` words are options.
    pub bootargs: String,
    /// The file the boot loader passed as initrd: the bundle.
    pub initrd: Option<HostRange>,
    /// Random bytes to seed a generator with.
    pub rng_seed: Vec<u8>,
    /// A random number meant for placing the program.
    pub kaslr_seed: Option<u64>,
}

/// Reads `/chosen`; a tree without it says nothing, which is no error.
pub(super) fn read(tree: &Tree<'_>, ram: &[HostRange], warnings: &mut Vec<String>) -> Chosen {
    let Some(node) = tree.find("/chosen") else {
        return Chosen::default();
    };
    let seed = node.property("rng-seed").unwrap_or_default();
    let initrd = initrd(&node, ram).unwrap_or_else(|error| {
        warnings.push(error.to_string());
        None
    });
    Chosen {
        bootargs: node.string("bootargs").unwrap_or("").to_string(),
        initrd,
        rng_seed: seed.iter().copied().take(MAX_SEED).collect(),
        kaslr_seed: node.number("kaslr-seed"),
    }
}

/// Reads the initrd's place: start and end, each of one or two cells, whichever the loader wrote.
fn initrd(node: &Node<'_, '_>, ram: &[HostRange]) -> Result<Option<HostRange>, HostError> {
    let number = |name: &'static str| match node.property(name) {
        None => Ok(None),
        Some(_) => node
            .number(name)
            .map(Some)
            .ok_or_else(|| HostError::property(node, name, "is not an address")),
    };
    let (Some(start), Some(end)) = (number("linux,initrd-start")?, number("linux,initrd-end")?)
    else {
        return Ok(None);
    };
    let bad = |problem| Err(HostError::property(node, "linux,initrd-end", problem));
    let base = HostPhys::new(start);
    match end.checked_sub(start) {
        None => bad("lies before the start"),
        Some(0) => Ok(None),
        Some(_)
            if !ram
                .iter()
                .any(|bank| bank.base <= base && end <= bank.end()) =>
        {
            bad("lies outside of RAM that may be read")
        }
        Some(size) => Ok(Some(HostRange { base, size })),
    }
}
