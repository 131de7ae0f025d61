//! The keys of a manifest: what there is, in which form, with which words.
//!
//! `cargo xtask bundle` reads them from TOML and writes them into the manifest's device tree; EL2 reads them there. A new key is a
//! row here and the place that uses it (`manifest` for a VM's, `options` for the hypervisor's), which also says the bounds.

use super::options::{LEVEL_WORDS, Scrub};
use super::vm::{GicChoice, Idle, OnReset, ReserveIdle};
use crate::firmware::Firmware;

/// How a value is written, in the device tree and in TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A text of the author's own: a string in both.
    Text,
    /// A file: its name in the bundle in the tree, its path in TOML.
    File,
    /// One of some words.
    Word(&'static [&'static str]),
    /// `yes` or `no` in the tree, a boolean in TOML.
    YesNo,
    /// A count: one cell in the tree.
    Count,
    /// An amount of CPU time: thousandths of a CPU in a cell of the tree; in TOML a number of them, or a text such as "2500m".
    Millicores,
    /// The least and the most of a count: a cell each in the tree; in TOML a table of `min` and `max`.
    CountBounds,
    /// The least and the most of an amount of CPU time, likewise.
    MillicoreBounds,
    /// A number of bytes: two cells in the tree, with a unit in TOML if the author likes.
    Size,
    /// An address: two cells in the tree.
    Address,
    /// A list of numbers, a cell each in the tree.
    List,
    /// A list of texts: strings one after the other in the tree.
    Texts,
}

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name, in both.
    pub name: &'static str,
    /// How its value is written.
    pub form: Form,
    /// Whether it must be there.
    pub is_required: bool,
}

const fn key(name: &'static str, form: Form) -> Key {
    Key {
        name,
        form,
        is_required: false,
    }
}

const fn required(name: &'static str, form: Form) -> Key {
    Key {
        name,
        form,
        is_required: true,
    }
}

/// The keys of a VM besides its name, which is the node's in the tree. One with a dot stands in a table of its own in TOML, `[vm.TABLE]`.
pub const VM: &[Key] = &[
    required("kernel", Form::File),
    key("initrd", Form::File),
    key("command-line", Form::Text),
    required("memory", Form::Size),
    key("memory-base", Form::Address),
    key("max-memory", Form::Size),
    key("memory-block", Form::Size),
    key("boot-vcpus", Form::Count),
    key("max-vcpus", Form::Count),
    key("cpus", Form::List),
    key(CPU_CAP, Form::Millicores),
    key("cpu-weight", Form::Count),
    key(ENTITLED_VCPUS, Form::CountBounds),
    key(ENTITLED_CAP, Form::MillicoreBounds),
    key(IDLE, Form::Word(&Idle::WORDS)),
    key("firmware", Form::Word(&Firmware::WORDS)),
    key("autostart", Form::YesNo),
    key("on-reset", Form::Word(&OnReset::WORDS)),
    key("spis", Form::Count),
    key("gic", Form::Word(&GicChoice::WORDS)),
    key("reserve-idle", Form::Word(&ReserveIdle::WORDS)),
    key("uuid", Form::Text),
    key("topology", Form::List),
    key(NETWORKS, Form::Texts),
    key("rng", Form::YesNo),
];

/// What a VM may have several of: a table for each in TOML, `[[vm.NAME]]`, and a node for each below the VM's node `NAME` in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: &'static str,
    /// Whether each has a name, which is the node's in the tree. Else that is the section's with a number, from 0.
    pub has_name: bool,
    /// The keys of one besides its name.
    pub keys: &'static [Key],
}

/// What a VM may have several of.
pub const SECTIONS: &[Section] = &[
    Section {
        name: DISK,
        has_name: true,
        keys: &[
            required("image", Form::File),
            key("readonly", Form::YesNo),
            key("cow-quota", Form::Size),
        ],
    },
    Section {
        name: NET,
        has_name: false,
        keys: &[
            required("network", Form::Text),
            key("mac", Form::Text),
            key("mtu", Form::Count),
            key("rate", Form::Size),
            key("allow-spoof", Form::YesNo),
        ],
    },
];

/// The key that limits a VM's CPU time.
pub const CPU_CAP: &str = "cpu-cap";
/// The key that says how many vCPUs a VM may be given.
pub const ENTITLED_VCPUS: &str = "entitlement.vcpus";
/// The key that says which caps a VM may be given.
pub const ENTITLED_CAP: &str = "entitlement.cpu-cap";
/// The key that says what a guest's WFI does.
pub const IDLE: &str = "idle";
/// The section of a VM's disks.
pub const DISK: &str = "disk";
/// The section of a VM's ports of networks.
pub const NET: &str = "net";
/// The key that names networks to which a VM has a port with defaults.
pub const NETWORKS: &str = "networks";

/// The keys of the hypervisor itself; with `bullpen.` before them they are words of the boot loader's command line too.
pub const HYPERVISOR: &[Key] = &[
    key("scrub", Form::Word(&Scrub::WORDS)),
    key("log", Form::Word(LEVEL_WORDS)),
    key("autostart", Form::YesNo),
];

/// The words of [`Form::YesNo`].
pub const YES_NO: [&str; 2] = ["no", "yes"];
