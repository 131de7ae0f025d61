//! A TCG plugin of QEMU that splits what the bench counts: instructions at EL2 and in the guest, and among those at EL2
//! the kinds that cost most on silicon.
//!
//! `-plugin libtcg_plugin.so,out=FILE` writes a line when the first instruction at EL1 runs, `boot N`: so many ran at EL2
//! before; and a line for each region between `hint #96` and `hint #97`, which are NOPs: `region EL2 GUEST MSR MRS BARRIERS
//! MAINTENANCE`, of which the last four are at EL2. All CPUs together: for `-icount`, where QEMU runs them in turn in one
//! thread. Each instruction has a plain callback, since inline counters break there with several CPUs (QEMU 10.0).
//! Neighbour: `qemu`, the interface.
#![expect(unsafe_code, reason = "a foreign interface")]

mod qemu;

use qemu::{Array, Block, Register};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::Write;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// PSTATE.EL in QEMU's register `cpsr`: bits 3:2.
const LEVEL_SHIFT: u32 = 2;
const LEVEL_MASK: u8 = 3;
/// `hint #96` and `hint #97` (DDI0487 C6.2, HINT: 0xd503201f with the number in bits 11:5).
const REGION_BEGIN: u32 = 0xd503_201f | 96 << 5;
const REGION_END: u32 = 0xd503_201f | 97 << 5;

/// QEMU looks here for the version of the API.
// SAFETY: QEMU defines the name; nothing else here has it.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = qemu::VERSION;

/// What an instruction is counted as: an index into the counters.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Kind {
    /// At EL2, none of those below.
    Hypervisor,
    /// At EL1 or EL0.
    Guest,
    /// MSR at EL2.
    Write,
    /// MRS at EL2.
    Read,
    /// DMB, DSB and ISB at EL2.
    Barrier,
    /// TLBI, IC, DC and AT at EL2.
    Maintenance,
}

const KINDS: usize = 6;

static COUNTERS: [AtomicU64; KINDS] = [const { AtomicU64::new(0) }; KINDS];
/// The counters when the region began.
static BEGIN: [AtomicU64; KINDS] = [const { AtomicU64::new(0) }; KINDS];
static LEVEL_REGISTER: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static BUFFER: AtomicPtr<Array> = AtomicPtr::new(ptr::null_mut());
static OUTPUT: Mutex<Option<File>> = Mutex::new(None);

/// What QEMU calls first; arguments are texts such as `out=FILE`. Zero is success.
///
/// # Safety
/// QEMU passes `count` pointers to texts.
// SAFETY: QEMU defines the name; nothing else here has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _info: *const c_void,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the caller promises so many arguments.
        let text = unsafe { arguments.add(index) };
        // SAFETY: as above.
        let text = unsafe { *text };
        // SAFETY: the caller promises texts.
        let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        if let Some(path) = text.strip_prefix("out=") {
            *OUTPUT.lock().unwrap_or_else(PoisonError::into_inner) = File::create(path).ok();
        }
    }
    // SAFETY: a function of GLib without conditions.
    BUFFER.store(unsafe { qemu::g_byte_array_new() }, Ordering::Relaxed);
    // SAFETY: this plugin's own id and function.
    unsafe { qemu::qemu_plugin_register_vcpu_init_cb(id, on_cpu) };
    // SAFETY: this plugin's own id and function.
    unsafe { qemu::qemu_plugin_register_vcpu_tb_trans_cb(id, on_block) };
    0
}

/// Finds the register that tells the exception level.
extern "C" fn on_cpu(_id: u64, _cpu: c_uint) {
    // SAFETY: QEMU lets a plugin ask in this callback.
    let list = unsafe { qemu::qemu_plugin_get_registers() };
    // SAFETY: QEMU returns an array of its own that is not changed here.
    let list = unsafe { &*list };
    let length = list.length as usize;
    // SAFETY: the array holds so many descriptors.
    let registers = unsafe { std::slice::from_raw_parts(list.data.cast::<Register>(), length) };
    for register in registers {
        // SAFETY: QEMU gives every register a name.
        if unsafe { CStr::from_ptr(register.name) } == c"cpsr" {
            LEVEL_REGISTER.store(register.handle, Ordering::Relaxed);
        }
    }
}

/// Returns the exception level of the CPU that translates.
fn level() -> u8 {
    let buffer = BUFFER.load(Ordering::Relaxed);
    // SAFETY: made at installation; translation happens in one thread.
    unsafe { qemu::g_byte_array_set_size(buffer, 0) };
    // SAFETY: the handle and the buffer are QEMU's and GLib's own.
    unsafe { qemu::qemu_plugin_read_register(LEVEL_REGISTER.load(Ordering::Relaxed), buffer) };
    // SAFETY: as above.
    let array = unsafe { &*buffer };
    if array.length == 0 {
        return 0;
    }
    // SAFETY: there is a first byte: the lowest, the machine being little-endian.
    let low = unsafe { *array.data.cast::<u8>() };
    low >> LEVEL_SHIFT & LEVEL_MASK
}

/// Gives every instruction of a block its callback.
extern "C" fn on_block(_id: u64, block: *mut Block) {
    let hypervisor = level() >= 2;
    // SAFETY: QEMU's own block, during its callback.
    let count = unsafe { qemu::qemu_plugin_tb_n_insns(block) };
    for index in 0..count {
        // SAFETY: the index is in range.
        let instruction = unsafe { qemu::qemu_plugin_tb_get_insn(block, index) };
        let mut code = [0; 4];
        // SAFETY: the buffer has that length.
        unsafe { qemu::qemu_plugin_insn_data(instruction, code.as_mut_ptr().cast(), code.len()) };
        let code = u32::from_le_bytes(code);
        let call = match code {
            REGION_BEGIN => on_begin,
            REGION_END => on_end,
            _ => on_instruction,
        };
        let data = kind(code, hypervisor) as usize as *mut c_void;
        let flags = qemu::NO_REGISTERS;
        // SAFETY: QEMU's own instruction, and a function that takes its data as a number.
        unsafe {
            qemu::qemu_plugin_register_vcpu_insn_exec_cb(instruction, call, flags, data);
        }
    }
}

/// Tells what an instruction is, by DDI0487 C4.1.66: system instructions 0xd5.
fn kind(code: u32, hypervisor: bool) -> Kind {
    if !hypervisor {
        return Kind::Guest;
    }
    match code {
        // MSR and MRS of a register: op0 is 2 or 3.
        _ if code & 0xfff0_0000 == 0xd510_0000 => Kind::Write,
        _ if code & 0xfff0_0000 == 0xd530_0000 => Kind::Read,
        // SYS: op0 is 1. TLBI, IC, DC, AT.
        _ if code & 0xfff8_0000 == 0xd508_0000 => Kind::Maintenance,
        // Barriers: CRn is 3.
        _ if code & 0xffff_f01f == 0xd503_301f => Kind::Barrier,
        _ => Kind::Hypervisor,
    }
}

fn counters() -> [u64; KINDS] {
    std::array::from_fn(|index| COUNTERS[index].load(Ordering::Relaxed))
}

/// All instructions at EL2.
fn at_el2(counters: &[u64; KINDS]) -> u64 {
    counters.iter().sum::<u64>() - counters[Kind::Guest as usize]
}

extern "C" fn on_instruction(_cpu: c_uint, data: *mut c_void) {
    let kind = data as usize;
    let Some(counter) = COUNTERS.get(kind) else {
        return;
    };
    let before = counter.load(Ordering::Relaxed);
    counter.store(before + 1, Ordering::Relaxed);
    if kind == Kind::Guest as usize && before == 0 {
        write(format_args!("boot {}", at_el2(&counters())));
    }
}

extern "C" fn on_begin(cpu: c_uint, data: *mut c_void) {
    on_instruction(cpu, data);
    for (begin, counter) in BEGIN.iter().zip(counters()) {
        begin.store(counter, Ordering::Relaxed);
    }
}

extern "C" fn on_end(cpu: c_uint, data: *mut c_void) {
    let now = counters();
    let spent: [u64; KINDS] =
        std::array::from_fn(|index| now[index] - BEGIN[index].load(Ordering::Relaxed));
    let of = |kind: Kind| spent[kind as usize];
    write(format_args!(
        "region {} {} {} {} {} {}",
        at_el2(&spent),
        of(Kind::Guest),
        of(Kind::Write),
        of(Kind::Read),
        of(Kind::Barrier),
        of(Kind::Maintenance)
    ));
    on_instruction(cpu, data);
}

/// Writes a line at once: QEMU may be ended at any time.
fn write(line: std::fmt::Arguments) {
    let mut output = OUTPUT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = output.as_mut() {
        // There is nothing to tell.
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}
