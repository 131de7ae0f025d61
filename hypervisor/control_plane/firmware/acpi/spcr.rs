//! SPCR: the UART that is the console, so that no `console=` is needed (Serial Port Console Redirection Table, revision 4).

use alloc::vec::Vec;

use acpi_tables::AmlSink;
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

use super::bytes;
use super::table::{HEADER_SIZE, Table};
use types::devices::{Acpi, DeviceId};
use types::layout::GuestLayout;

const REVISION: u8 = 4;
/// Size of the body before the namespace string.
const FIXED_SIZE: usize = 52;

/// Where the console's UART is in the namespace.
const SYSTEM_BUS: &[u8] = b"\\_SB.";

/// Interface type (DBG2 subtypes) of a PL011.
const ARM_PL011: u8 = 3;
/// Interrupt type: wired to a GIC.
const ARM_GIC: u8 = 1 << 3;
/// Baud rate: whatever it is.
const BAUD_AS_IS: u8 = 0;
const ONE_STOP_BIT: u8 = 1;
/// Terminal type: ANSI.
const ANSI: u8 = 3;
/// PCI device and vendor: not a PCI device.
const NOT_PCI: u16 = 0xffff;

/// Writes the SPCR of a PL011 with 32-bit registers.
pub(super) fn table(layout: &GuestLayout) -> Vec<u8> {
    let uart = layout.device(DeviceId::Uart);
    let mut path = SYSTEM_BUS.to_vec();
    if let Some(Acpi::Device { name, .. }) = DeviceId::Uart.row().acpi {
        path.extend(name);
    }
    let path_size = path.len() + 1; // with its NUL
    let mut table = Table::new(*b"SPCR", REVISION, FIXED_SIZE + path_size);
    table.byte(ARM_PL011);
    table.vec(&[0; 3]);
    let base = uart.registers.base.get();
    let registers = GAS::new(
        AddressSpace::SystemMemory,
        32,
        0,
        AccessSize::DwordAccess,
        base,
    );
    table.vec(&bytes(&registers));
    table.byte(ARM_GIC);
    table.byte(0); // PC-AT IRQ
    table.dword(uart.intid);
    table.byte(BAUD_AS_IS);
    table.byte(0); // no parity
    table.byte(ONE_STOP_BIT);
    table.byte(0); // no flow control
    table.byte(ANSI);
    table.byte(0); // language
    table.word(NOT_PCI);
    table.word(NOT_PCI);
    table.vec(&[0; 3]); // bus, device, function
    table.dword(0); // PCI flags
    table.byte(0); // PCI segment
    table.dword(0); // UART clock: unknown
    table.dword(0); // precise baud rate: as it is
    table.word(path_size as u16);
    table.word((HEADER_SIZE + FIXED_SIZE) as u16);
    table.vec(&path);
    table.byte(0);
    table.finish()
}
