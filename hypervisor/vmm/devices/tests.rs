//! A device on a board of its own, and what holds for every device of the table.

extern crate std;

use super::{Access, Device, Devices, Parts, Surroundings, Vcpus, Work};
use crate::memory::{GuestFault, GuestMemory};
use proptest::prelude::*;
use std::{format, vec};
use types::access::AccessWidth;
use types::address::GuestPhys;
use types::devices::DeviceId;
use types::ids::{VcpuId, VmId};

/// What devices are made from in tests.
pub(crate) const PARTS: Parts<'static> = Parts {
    possible: 8,
    wall_clock_s: 1_000_000,
    disks: &[],
    nets: &[],
    has_rng: false,
    slots: 0,
};

/// A machine around one device. It keeps the levels of the device's lines, and refuses a move that is none.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub(crate) now_ns: u64,
    /// A bit for the line of each window.
    pub(crate) lines: u32,
    /// The last move of the first window's line since it was looked at.
    pub(crate) moved: Option<bool>,
}

/// No memory at all.
pub(crate) struct NoMemory;

impl GuestMemory for NoMemory {
    fn read(&self, address: GuestPhys, _: &mut [u8]) -> Result<(), GuestFault> {
        Err(GuestFault { address })
    }
    fn write(&self, address: GuestPhys, _: &[u8]) -> Result<(), GuestFault> {
        Err(GuestFault { address })
    }
    fn read_half(&self, address: GuestPhys) -> Result<u16, GuestFault> {
        Err(GuestFault { address })
    }
    fn write_half(&self, address: GuestPhys, _: u16) -> Result<(), GuestFault> {
        Err(GuestFault { address })
    }
}

impl Vcpus for Fake {
    fn sta(&self, _: types::hotplug::Kind, vcpu: VcpuId) -> u32 {
        if vcpu.get() < 4 {
            psci::STA_ENABLED
        } else {
            psci::STA_DISABLED
        }
    }
}

impl Surroundings for Fake {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }
    fn random(&self) -> [u8; 32] {
        [0; 32]
    }
    fn memory(&self) -> impl GuestMemory + use<> {
        NoMemory
    }
    type Peer<'p> = Self;
    fn peer(&mut self, _: VmId) -> Option<(&Devices, Self)> {
        None
    }
    fn set_line(&mut self, window: u16, high: bool) {
        let bit = 1 << window;
        assert_ne!(self.lines & bit != 0, high, "a move is a change");
        self.lines ^= bit;
        if window == 0 {
            self.moved = Some(high);
        }
    }
}

/// What a read of a register gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) value: u64,
    pub(crate) line: Option<bool>,
}

/// What a write, or another change, has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) line: Option<bool>,
    pub(crate) work: Option<Work>,
}

impl Effect {
    pub(crate) const NONE: Self = Self {
        line: None,
        work: None,
    };
}

/// A device with its surroundings, driven step by step.
#[derive(Debug)]
pub(crate) struct Board<D> {
    pub(crate) device: D,
    pub(crate) around: Fake,
}

impl<D: Device> Board<D> {
    pub(crate) fn new() -> Self {
        Self::with(&PARTS)
    }

    pub(crate) fn with(parts: &Parts<'_>) -> Self {
        Self {
            device: D::new(parts),
            around: Fake::default(),
        }
    }

    /// Does something, and says how the line moved by it.
    pub(crate) fn step<R>(&mut self, work: impl FnOnce(&D, &mut Fake) -> R) -> (R, Option<bool>) {
        self.around.moved = None;
        let result = work(&self.device, &mut self.around);
        (result, self.around.moved)
    }

    pub(crate) fn read(&mut self, offset: u64, width: AccessWidth, now_ns: u64) -> Reading {
        self.around.now_ns = now_ns;
        let access = Access { offset, width };
        let (value, line) = self.step(|device, around| {
            let seen = device.peek(access, around);
            seen.map_or_else(|| device.read(access, around), Ok)
        });
        let value = value.expect("a read that can be answered");
        Reading { value, line }
    }

    pub(crate) fn write(
        &mut self,
        offset: u64,
        width: AccessWidth,
        value: u64,
        now_ns: u64,
    ) -> Effect {
        self.around.now_ns = now_ns;
        let access = Access { offset, width };
        let (work, line) = self.step(|device, around| device.write(access, value, around));
        Effect { line, work }
    }

    pub(crate) fn line(&self) -> bool {
        self.around.lines & 1 != 0
    }

    /// Resets the device; the interrupt controller is reset too.
    pub(crate) fn reset(&mut self) {
        self.device.reset();
        self.around.lines = 0;
    }
}

/// An access to any device of the table, or its turn to do what is due.
#[derive(Clone, Debug)]
enum Step {
    Read(usize, u64, u64),
    Write(usize, u64, u64, u64),
    Attend(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let device = 0..DeviceId::ALL.len();
    let offset = || {
        prop_oneof![
            4 => (0_u64..0x50).prop_map(|offset| offset & !3),
            1 => 0x1000_u64..0x1100,
            1 => any::<u64>()
        ]
    };
    prop_oneof![
        (device.clone(), offset(), 0_u64..4)
            .prop_map(|(device, offset, width)| Step::Read(device, offset, width)),
        (device.clone(), offset(), 0_u64..4, any::<u64>())
            .prop_map(|(device, offset, width, value)| Step::Write(device, offset, width, value)),
        device.prop_map(Step::Attend),
    ]
}

proptest! {
    /// Whatever a guest has done to its devices: a reset leaves each as it was made, but for the clock, which goes on.
    #[test]
    fn reset_returns_each_device_to_its_first_state(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let devices = Devices::new(&PARTS);
        let first = format!("{:?}", Devices::new(&PARTS));
        let mut around = vec![];
        around.resize_with(DeviceId::ALL.len(), Fake::default);
        devices.hotplug.listen();
        let _pulse = devices.hotplug.press_power_button();
        for step in steps {
            let access = |offset, width| Access { offset, width: AccessWidth::from_sas(width) };
            match step {
                Step::Read(device, offset, width) => {
                    let id = DeviceId::ALL[device];
                    let _ = devices.peek(id, access(offset, width), &around[device]);
                    let _ = devices.read(id, access(offset, width), &mut around[device]);
                }
                Step::Write(device, offset, width, value) => {
                    let id = DeviceId::ALL[device];
                    let _ = devices.write(id, access(offset, width), value, &mut around[device]);
                }
                Step::Attend(device) => {
                    let _ = devices.attend(DeviceId::ALL[device], &mut around[device]);
                }
            }
        }
        devices.reset();
        let _ = devices.rtc.set_seconds(PARTS.wall_clock_s, &mut Fake::default());
        prop_assert_eq!(format!("{devices:?}"), first);
    }
}

#[test]
fn what_no_register_claims_reads_zero_and_ignores_writes() {
    let devices = Devices::new(&PARTS);
    for id in DeviceId::ALL {
        for width in AccessWidth::ALL {
            for offset in [0xf00, 0xf01, u64::MAX] {
                let (access, mut around) = (Access { offset, width }, Fake::default());
                assert_eq!(devices.read(id, access, &mut around), Ok(0), "{id:?}");
                assert_eq!(devices.write(id, access, u64::MAX, &mut around), None);
                assert_eq!(around.lines, 0, "{id:?}");
            }
        }
    }
}
