//! Runs the runtime services on a processor of a few instructions, decoded from the Arm ARM's tables independently of the assembler.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{TABLE_SIZE, calls, image};
use crate::clock::time;
use crate::firmware::efi::crc32;

const BASE: u64 = 0x4001_0000;
/// Where a call returns to.
const RETURN: u64 = 0xdead_0000;
/// More instructions than any service has.
const MOST_INSTRUCTIONS: usize = 100;

/// An EFI_TIME and an EFI_TIME_CAPABILITIES of the caller's.
const TIME: u64 = 0x8000;
const CAPABILITIES: u64 = 0x9000;

const EFI_INVALID_PARAMETER: u64 = 0x8000_0000_0000_0002;
const EFI_UNSUPPORTED: u64 = 0x8000_0000_0000_0003;
const EFI_DEVICE_ERROR: u64 = 0x8000_0000_0000_0007;

/// A processor, its memory, and the hypervisor above it.
struct Processor {
    x: [u64; 31],
    memory: BTreeMap<u64, u8>,
    /// What HVC puts in x0, x1 and x2.
    answer: [u64; 3],
    /// x0, x1 and x2 at each HVC.
    calls: Vec<[u64; 3]>,
}

impl Processor {
    fn new(answer: [u64; 3]) -> Self {
        let memory = (BASE..).zip(image(BASE)).collect();
        let x = core::array::from_fn(|register| 0xaaaa_0000 + register as u64);
        Self {
            x,
            memory,
            answer,
            calls: Vec::new(),
        }
    }

    fn read(&self, address: u64, size: u64) -> u64 {
        (0..size).fold(0, |value, byte| {
            value | u64::from(self.memory[&(address + byte)]) << (8 * byte)
        })
    }

    fn write(&mut self, address: u64, size: u64, value: u64) {
        for byte in 0..size {
            self.memory
                .insert(address + byte, (value >> (8 * byte)) as u8);
        }
    }

    /// Calls the service in this place of the table as a kernel would, and returns its status.
    fn call(&mut self, service: u64, x0: u64, x1: u64) -> u64 {
        (self.x[0], self.x[1], self.x[30]) = (x0, x1, RETURN);
        let kept = self.x;
        let mut pc = self.read(BASE + 24 + 8 * service, 8);
        for _ in 0..MOST_INSTRUCTIONS {
            if pc == RETURN {
                // AAPCS64: x18 is the platform's, x19 to x30 are the caller's.
                assert_eq!(self.x[18..], kept[18..]);
                return self.x[0];
            }
            pc = self.step(pc);
        }
        panic!("no return");
    }

    /// Executes one instruction, and returns the address of the next.
    fn step(&mut self, pc: u64) -> u64 {
        let word = self.read(pc, 4) as u32;
        let bits = |high: u32, low: u32| (word >> low) & (u32::MAX >> (31 - (high - low)));
        let (t, n, m) = (
            bits(4, 0) as usize,
            bits(9, 5) as usize,
            bits(20, 16) as usize,
        );
        let (immediate, half) = (u64::from(bits(20, 5)), 16 * bits(22, 21));
        let offset = u64::from(bits(21, 10));
        let near = pc + 4 * u64::from(bits(23, 5));
        match (bits(31, 24), bits(23, 21)) {
            (0xd5, _) => assert_eq!(word, 0xd503_245f, "HINT #34, BTI c"),
            (0xd2, 4..=7) => self.x[t] = immediate << half,
            (0xf2, 4..=7) => self.x[t] = self.x[t] & !(0xffff << half) | immediate << half,
            (0xaa, 0) => {
                assert_eq!((bits(15, 10), n), (0, 31), "ORR of XZR, not shifted");
                self.x[t] = self.x[m];
            }
            (0xb4, _) if self.x[t] == 0 => return near,
            (0xb5, _) if self.x[t] != 0 => return near,
            (0xb4 | 0xb5, _) => {}
            (0xf9, 2 | 3) => self.x[t] = self.read(self.x[n] + 8 * offset, 8),
            (0xf9, 0 | 1) => self.write(self.x[n] + 8 * offset, 8, self.x[t]),
            (0xb9, 0 | 1) => self.write(self.x[n] + 4 * offset, 4, self.x[t]),
            (0x39, 0 | 1) => self.write(self.x[n] + offset, 1, self.x[t]),
            (0xd4, 0) => {
                assert_eq!(word, 0xd400_0002, "HVC #0");
                self.calls.push([self.x[0], self.x[1], self.x[2]]);
                self.x[..3].copy_from_slice(&self.answer);
                self.x[3] = 0xbad; // x3 is a result register too
            }
            (0xd6, _) => {
                assert_eq!(word, 0xd65f_03c0, "RET");
                return self.x[30];
            }
            _ => panic!("{word:#010x} is not an instruction that this processor has"),
        }
        pc + 4
    }
}

const GET_TIME: u64 = 0;
const SET_TIME: u64 = 1;

#[test]
fn get_time_stores_what_the_hypervisor_says() {
    let words = time::to_words(1_795_385_267);
    let mut processor = Processor::new([0, words[0], words[1]]);
    assert_eq!(processor.call(GET_TIME, TIME, CAPABILITIES), 0);
    assert_eq!(processor.calls.len(), 1);
    assert_eq!(processor.calls[0][0], u64::from(calls::GET_TIME));
    assert_eq!(processor.read(TIME, 2), 2026);
    let fields: Vec<u64> = (2..8)
        .map(|field| processor.read(TIME + field, 1))
        .collect();
    assert_eq!(fields, [11, 22, 22, 7, 47, 0]);
    assert_eq!(processor.read(TIME + 8, 8), 0x7ff << 32);
    assert_eq!(processor.read(CAPABILITIES, 4), 1);
    assert_eq!(processor.read(CAPABILITIES + 4, 4), 50_000_000);
    assert_eq!(processor.read(CAPABILITIES + 8, 1), 1);
    assert!(!processor.memory.contains_key(&(CAPABILITIES + 9)));
}

#[test]
fn get_time_without_capabilities_stores_the_time_only() {
    let mut processor = Processor::new([0, 1, 2]);
    assert_eq!(processor.call(GET_TIME, TIME, 0), 0);
    assert_eq!(
        (processor.read(TIME, 8), processor.read(TIME + 8, 8)),
        (1, 2)
    );
    assert!(!processor.memory.contains_key(&0));
}

#[test]
fn get_time_fails_as_the_specification_says() {
    let mut processor = Processor::new([0, 1, 2]);
    assert_eq!(
        processor.call(GET_TIME, 0, CAPABILITIES),
        EFI_INVALID_PARAMETER
    );
    assert!(processor.calls.is_empty());
    let not_supported = -1_i64 as u64;
    let mut processor = Processor::new([not_supported, 1, 2]);
    assert_eq!(
        processor.call(GET_TIME, TIME, CAPABILITIES),
        EFI_DEVICE_ERROR
    );
    assert!(!processor.memory.contains_key(&TIME));
}

#[test]
fn set_time_hands_the_time_over() {
    let words = time::to_words(1_000_000_000);
    for (answer, status) in [
        (calls::SUCCESS, 0),
        (calls::INVALID_PARAMETER, EFI_INVALID_PARAMETER),
    ] {
        let mut processor = Processor::new([answer as u64, 0, 0]);
        processor.write(TIME, 8, words[0]);
        processor.write(TIME + 8, 8, words[1]);
        assert_eq!(processor.call(SET_TIME, TIME, 0x1234), status);
        assert_eq!(
            processor.calls,
            [[u64::from(calls::SET_TIME), words[0], words[1]]]
        );
    }
    let mut processor = Processor::new([0; 3]);
    assert_eq!(processor.call(SET_TIME, 0, 0), EFI_INVALID_PARAMETER);
    assert!(processor.calls.is_empty());
}

#[test]
fn all_other_services_are_unsupported() {
    for service in 2..14 {
        let mut processor = Processor::new([0; 3]);
        assert_eq!(
            processor.call(service, TIME, 0),
            EFI_UNSUPPORTED,
            "{service}"
        );
        assert!(processor.calls.is_empty());
    }
}

#[test]
fn the_table_is_sealed_and_small() {
    let mut table = image(BASE);
    assert!(table.len() < 512);
    table.truncate(TABLE_SIZE as usize);
    assert_eq!(&table[..8], b"RUNTSERV");
    let crc = u32::from_le_bytes(table[16..20].try_into().unwrap());
    table[16..20].fill(0);
    assert_eq!(crc32(&table), crc);
}
