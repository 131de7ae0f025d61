//! The EFI runtime services: a table of functions, and the code of the two that do something (UEFI 2.10, 8).
//!
//! GetTime and SetTime pass an EFI_TIME between the guest's memory and two registers, and leave the rest to the hypervisor.
//! The guest's kernel maps the region where it lies, so the addresses in the table are physical ones.

use alloc::vec::Vec;

use super::assembler::{Assembler, X};
use super::{header, put64, seal};
use crate::clock::calls;

/// "RUNTSERV" (UEFI 2.10, 4.5.1, EFI_RUNTIME_SERVICES_SIGNATURE).
const SIGNATURE: u64 = u64::from_le_bytes(*b"RUNTSERV");
const TABLE_SIZE: u64 = 136;
/// GetTime and SetTime come first, in this order; twelve more follow.
const OTHER_SERVICES: usize = 12;

/// EFI_STATUS (UEFI 2.10, appendix D).
const EFI_SUCCESS: u64 = 0;
const EFI_ERROR: u64 = 1 << 63;
const EFI_INVALID_PARAMETER: u64 = EFI_ERROR | 2;
const EFI_UNSUPPORTED: u64 = EFI_ERROR | 3;
const EFI_DEVICE_ERROR: u64 = EFI_ERROR | 7;

/// EFI_TIME_CAPABILITIES (UEFI 2.10, 8.3.1): one tick a second, off by at most 50 parts in a million, and setting it clears
/// what is below a second.
const RESOLUTION_HZ: u64 = 1;
const ACCURACY_MILLIONTH_PPM: u64 = 50_000_000;
const SETS_TO_ZERO: u64 = 1;

/// Arguments and results of functions (AAPCS64, 6.8.2) and of hypercalls (SMCCC DEN0028, 3.1).
const X0: X = X(0);
const X1: X = X(1);
const X2: X = X(2);
/// Registers that a hypercall preserves and a function may clobber.
const X9: X = X(9);
const X10: X = X(10);

/// Writes the table and the code of the runtime services for the address they will be at.
pub(super) fn image(base: u64) -> Vec<u8> {
    let mut code = Assembler::new();
    let get_time = get_time(&mut code);
    let set_time = set_time(&mut code);
    let other = unsupported(&mut code);

    let address = |offset| base + TABLE_SIZE + offset;
    let mut bytes = Vec::new();
    header(&mut bytes, SIGNATURE, TABLE_SIZE);
    put64(&mut bytes, address(get_time));
    put64(&mut bytes, address(set_time));
    for _service in 0..OTHER_SERVICES {
        put64(&mut bytes, address(other));
    }
    seal(&mut bytes);
    bytes.extend(code.finish());
    bytes
}

/// EFI_STATUS GetTime(EFI_TIME *time, EFI_TIME_CAPABILITIES *capabilities): the second may be null.
fn get_time(code: &mut Assembler) -> u64 {
    let entry = code.offset();
    code.bti_c();
    let no_time = code.branch_if_zero(X0);
    code.mov(X9, X0);
    code.mov(X10, X1);
    code.mov_immediate(X0, u64::from(calls::GET_TIME));
    code.hvc();
    let failed = code.branch_unless_zero(X0);
    code.store(X1, X9, 0);
    code.store(X2, X9, 8);
    let no_capabilities = code.branch_if_zero(X10);
    code.mov_immediate(X1, RESOLUTION_HZ);
    code.store_word(X1, X10, 0);
    code.mov_immediate(X1, ACCURACY_MILLIONTH_PPM);
    code.store_word(X1, X10, 4);
    code.mov_immediate(X1, SETS_TO_ZERO);
    code.store_byte(X1, X10, 8);
    code.land(no_capabilities);
    code.mov_immediate(X0, EFI_SUCCESS);
    code.ret();
    code.land(no_time);
    code.mov_immediate(X0, EFI_INVALID_PARAMETER);
    code.ret();
    code.land(failed);
    code.mov_immediate(X0, EFI_DEVICE_ERROR);
    code.ret();
    entry
}

/// EFI_STATUS SetTime(EFI_TIME *time).
fn set_time(code: &mut Assembler) -> u64 {
    let entry = code.offset();
    code.bti_c();
    let no_time = code.branch_if_zero(X0);
    code.load(X1, X0, 0);
    code.load(X2, X0, 8);
    code.mov_immediate(X0, u64::from(calls::SET_TIME));
    code.hvc();
    let failed = code.branch_unless_zero(X0);
    code.ret(); // x0 is 0, and so is EFI_SUCCESS
    code.land(no_time);
    code.land(failed);
    code.mov_immediate(X0, EFI_INVALID_PARAMETER);
    code.ret();
    entry
}

/// What every other service is: EFI_UNSUPPORTED, and the properties table says so beforehand.
fn unsupported(code: &mut Assembler) -> u64 {
    let entry = code.offset();
    code.bti_c();
    code.mov_immediate(X0, EFI_UNSUPPORTED);
    code.ret();
    entry
}

#[cfg(test)]
mod tests;
