//! The few functions of QEMU's TCG plugin API, version 4, that are used here, and of GLib, which QEMU brings along.
//!
//! Written down from QEMU 10.0's `docs/devel/tcg-plugins.rst`; no header is needed, since the binary exports them.
#![expect(unsafe_code, reason = "a foreign interface")]

use std::ffi::{c_char, c_int, c_uint, c_void};

/// The version of the API that these declarations are of.
pub(crate) const VERSION: c_int = 4;
/// `QEMU_PLUGIN_CB_NO_REGS`: a callback that reads no register.
pub(crate) const NO_REGISTERS: c_int = 0;

/// A block of instructions while it is translated.
#[repr(C)]
pub(crate) struct Block {
    _opaque: [u8; 0],
}

/// One instruction of a block.
#[repr(C)]
pub(crate) struct Instruction {
    _opaque: [u8; 0],
}

/// GLib's `GArray` and `GByteArray`, which begin alike.
#[repr(C)]
pub(crate) struct Array {
    pub(crate) data: *mut c_void,
    pub(crate) length: c_uint,
}

/// `qemu_plugin_reg_descriptor`.
#[repr(C)]
pub(crate) struct Register {
    pub(crate) handle: *mut c_void,
    pub(crate) name: *const c_char,
    pub(crate) feature: *const c_char,
}

pub(crate) type OnExecution = extern "C" fn(vcpu: c_uint, data: *mut c_void);

unsafe extern "C" {
    pub(crate) fn qemu_plugin_register_vcpu_init_cb(id: u64, call: extern "C" fn(u64, c_uint));
    pub(crate) fn qemu_plugin_register_vcpu_tb_trans_cb(
        id: u64,
        call: extern "C" fn(u64, *mut Block),
    );
    pub(crate) fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    pub(crate) fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Instruction;
    pub(crate) fn qemu_plugin_insn_data(
        instruction: *const Instruction,
        to: *mut c_void,
        length: usize,
    ) -> usize;
    pub(crate) fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: *mut Instruction,
        call: OnExecution,
        flags: c_int,
        data: *mut c_void,
    );
    pub(crate) fn qemu_plugin_get_registers() -> *mut Array;
    pub(crate) fn qemu_plugin_read_register(handle: *mut c_void, to: *mut Array) -> c_int;
    pub(crate) fn g_byte_array_new() -> *mut Array;
    pub(crate) fn g_byte_array_set_size(array: *mut Array, length: c_uint) -> *mut Array;
}
