//! The linked image holds the barriers that silicon needs and QEMU forgives, so that neither an edit nor the optimiser loses one.
#![forbid(unsafe_code)]

use std::fs;

/// `mrs x0, ICC_IAR1_EL1` and `msr ICC_SGI1R_EL1, x0` (GIC IHI0069, 12.2); the register number is in the low five bits.
const READ_IAR1: u32 = 0xd538_cc00;
const WRITE_SGI1R: u32 = 0xd518_cba0;
/// `dsb sy` and `dsb ishst` (Arm DDI0487, C6.2).
const DSB_SY: u32 = 0xd503_3f9f;
const DSB_ISHST: u32 = 0xd503_3a9f;

fn words() -> Vec<u32> {
    let bytes = fs::read(tests::artefacts::hypervisor()).expect("the image can be read");
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

/// Returns where an instruction stands, whatever register it names.
fn places(words: &[u32], instruction: u32) -> Vec<usize> {
    let is_it = |at: &usize| words[*at] & !0x1f == instruction;
    let found: Vec<_> = (0..words.len()).filter(is_it).collect();
    assert!(!found.is_empty(), "{instruction:#x} is not in the image");
    found
}

#[test]
fn an_acknowledge_has_its_effect_before_anything_follows() {
    let words = words();
    for at in places(&words, READ_IAR1) {
        let next = words.get(at + 1);
        assert_eq!(next, Some(&DSB_SY), "after the read at {:#x}", at * 4);
    }
}

#[test]
fn what_a_kick_is_about_is_visible_before_the_kick() {
    let words = words();
    for at in places(&words, WRITE_SGI1R) {
        let before = at.checked_sub(1).map(|at| words[at]);
        assert_eq!(before, Some(DSB_ISHST), "before the kick at {:#x}", at * 4);
    }
}

/// `msr S3_op1_CRn_CRm_op2, x0` (Arm DDI0487, C6.2).
const fn write_of(op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    0xd518_0000 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5
}

#[test]
fn what_a_loader_or_a_reset_may_have_left_is_written() {
    let words = words();
    let registers = [
        ("ACTLR_EL2", write_of(4, 1, 0, 1)),
        ("HACR_EL2", write_of(4, 1, 1, 7)),
        ("HDFGRTR2_EL2", write_of(4, 3, 1, 0)),
        ("HDFGWTR2_EL2", write_of(4, 3, 1, 1)),
        ("HFGRTR2_EL2", write_of(4, 3, 1, 2)),
        ("HFGWTR2_EL2", write_of(4, 3, 1, 3)),
        ("HAFGRTR_EL2", write_of(4, 3, 1, 6)),
        ("HFGITR2_EL2", write_of(4, 3, 1, 7)),
    ];
    let priorities = (0..4).flat_map(|n| {
        [
            ("ICC_AP1R<n>_EL1", write_of(0, 12, 9, n)),
            ("ICH_AP0R<n>_EL2", write_of(4, 12, 8, n)),
            ("ICH_AP1R<n>_EL2", write_of(4, 12, 9, n)),
        ]
    });
    for (name, instruction) in registers.into_iter().chain(priorities) {
        let is_there = words.iter().any(|word| word & !0x1f == instruction);
        assert!(is_there, "{name}: {instruction:#x}");
    }
}
