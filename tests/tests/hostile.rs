//! Hostile and careless operators, boot loaders and guests: what they send is refused by name, and all others go on.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tests::machine::{Machine, PATIENCE, Running};
use tests::neighbour::ask;
use tests::tree::Tree;
use tests::versions::At;
use tests::{Manifest, Vm, artefacts, on_both_gics};

/// Writes a copy of a guest's image that can be told from others, with some of its bytes changed.
fn image(test: &str, name: &str, changes: &[(usize, &[u8])]) -> PathBuf {
    let mut bytes = std::fs::read(artefacts::guest("neighbour")).expect("the guest was built");
    for (offset, change) in changes {
        bytes[*offset..offset + change.len()].copy_from_slice(change);
    }
    bytes.extend_from_slice(name.as_bytes());
    let path = artefacts::log_directory(test).join(name);
    std::fs::write(&path, bytes).expect("the log directory can be written");
    path
}

fn find(bytes: &[u8], what: &str) -> usize {
    let place = bytes
        .windows(what.len())
        .position(|window| window == what.as_bytes());
    place.unwrap_or_else(|| panic!("no {what} in the bundle"))
}

fn vm_from(name: &str, kernel: &std::path::Path) -> Vm {
    Vm::new(name, kernel).text("firmware", "fdt")
}

/// Returns a VM's state and note.
fn state(running: &mut Running, vm: &str) -> (String, String) {
    let list = running.command("vm list");
    let entry = list["vms"]
        .as_array()
        .and_then(|vms| vms.iter().find(|entry| entry["vm"] == vm));
    let text = |key: &str| {
        entry
            .and_then(|entry| entry[key].as_str())
            .unwrap_or("")
            .to_owned()
    };
    (text("state"), text("note"))
}

on_both_gics! {
    a_guest_that_is_ended_in_the_middle_of_everything_ends_at_once: Gate, end_in_the_middle;
    a_guest_may_reset_itself_on_any_cpu_and_inside_of_an_interrupt: Gate, reset_anywhere;
    resizes_are_asked_for_faster_than_any_guest_takes_them_and_each_is_answered: Gate, resize_fast;
    a_guest_that_prints_without_end_holds_nobody_up: Full, print_without_end;
}

/// The header of an arm64 Image (Linux, Documentation/arch/arm64/booting.rst).
const TEXT_OFFSET: usize = 8;
const FLAGS: usize = 24;
/// Pages of 16 KiB, anywhere in memory.
const PAGES_16_KIB: u8 = 0xc;

#[test]
fn what_is_wrong_in_a_bundle_is_named_and_the_other_vm_starts() {
    let test = "hostile-bundle";
    let pages = image(test, "pages.img", &[(FLAGS, &[PAGES_16_KIB])]);
    let header = image(test, "header.img", &[]);
    let missing = image(test, "missing.img", &[]);
    let vms = [
        vm_from("pages", &pages),
        vm_from("header", &header),
        vm_from("missing", &missing),
        Vm::guest("word", "neighbour").text("on-reset", "boot-set"),
        Vm::guest("good", "neighbour"),
    ];
    let length = std::fs::metadata(&header).map_or(0, |data| data.len() as usize);
    let machine = Machine::new(test).cpus(2).model("cortex-a57");
    let mut running = machine.boot_edited(&Manifest::new(vms), |bundle| {
        // What the bundler would have refused. The name of the file comes last in these images.
        let name = bundle
            .windows(10)
            .rposition(|window| window == b"header.img")
            .expect("it is there");
        let start = name + 10 - length;
        bundle[start + TEXT_OFFSET..start + TEXT_OFFSET + 4]
            .copy_from_slice(&0x30_0000_u32.to_le_bytes());
        let place = find(bundle, "boot-set");
        bundle[place..place + 8].copy_from_slice(b"boot-six");
        // In the manifest or in the archive: they no longer agree.
        let place = find(bundle, "missing.img");
        bundle[place..place + 7].copy_from_slice(b"missinh");
    });
    // The terminal begins inside of the first VM, which says why it is silent: before the terminal goes elsewhere.
    let off = "pages: off (failed): kernel \"pages.img\" needs pages of 16 KiB";
    running.console.expect(off, PATIENCE);
    running.command("console good");
    running.console.expect("READY", PATIENCE);
    let everything = running.console.everything();
    for line in [
        "manifest.dtb: /vms/word: `on-reset` = \"boot-six\" is not one of",
        "/vms/missing: `kernel`",
        off,
    ] {
        assert!(
            everything.contains(line),
            "the console does not say {line:?}{}",
            running.console.tail()
        );
    }
    for (vm, why) in [
        (
            "pages",
            "needs pages of 16 KiB, which this CPU does not have",
        ),
        (
            "header",
            "has a header whose text_offset cannot be 0x300000",
        ),
    ] {
        let (state, note) = state(&mut running, vm);
        assert!(
            state == "failed" && note.contains(why) && note.contains(&format!("{vm}.img")),
            "{vm}: {state}: {note}"
        );
    }
    assert_eq!(state(&mut running, "good").0, "running");
}

#[test]
fn a_guest_that_only_faults_has_a_note() {
    let kernel = artefacts::log_directory("hostile-faults").join("zeros.img");
    std::fs::write(&kernel, [0; 4096]).expect("the log directory can be written");
    let machine = Machine::new("hostile-faults").cpus(2);
    let vms = [vm_from("zeros", &kernel), Vm::guest("good", "neighbour")];
    let mut running = machine.boot(&Manifest::new(vms));
    assert!(ask(&mut running, "good").damaged == 0);
    let deadline = std::time::Instant::now() + PATIENCE;
    let expected = (
        "running".into(),
        "vCPU 0 faults at 0x200 without end".into(),
    );
    loop {
        let found = state(&mut running, "zeros");
        if found == expected {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{found:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(state(&mut running, "good").1, "");
    running.command("vm reset zeros");
    running.control().event("vm-start", "zeros", PATIENCE);
}

#[test]
fn a_vm_that_has_no_room_on_the_cpus_is_named_and_the_others_start() {
    let vms = [
        Vm::guest("good", "neighbour"),
        Vm::guest("big", "neighbour").vcpus(1, 512),
    ];
    let machine = Machine::new("hostile-no-room").cpus(1);
    let mut running = machine.boot(&Manifest::new(vms));
    running.command("console good");
    running.console.expect("READY", PATIENCE);
    let everything = running.console.everything();
    let line = "manifest.dtb: /vms/big: `max-vcpus` = 512 is more than the CPUs have room for";
    assert!(everything.contains(line), "{}", running.console.tail());
}

/// What is done to a bundle.
type Edit = fn(&mut Vec<u8>);

#[test]
fn what_is_no_bundle_is_named_and_the_console_answers() {
    let cases: [(&str, Edit, &str); 4] = [
        (
            "cut",
            |bundle| bundle.truncate(bundle.len() / 2),
            "damaged bundle",
        ),
        (
            "gzip",
            |bundle| bundle[..2].copy_from_slice(b"\x1f\x8b"),
            "a gzip file, not a bundle",
        ),
        (
            "tree",
            |bundle| {
                let place = bundle
                    .windows(4)
                    .position(|window| window == b"\xd0\x0d\xfe\xed")
                    .expect("a tree");
                // The offset of the structure: beyond the end.
                bundle[place + 8..place + 12].copy_from_slice(&[0x7f; 4]);
            },
            "manifest.dtb",
        ),
        (
            "name",
            |bundle| {
                let place = find(bundle, "manifest.dtb");
                bundle[place] = b'M';
            },
            "an archive without manifest.dtb",
        ),
    ];
    for (case, edit, expected) in cases {
        let machine = Machine::new(&format!("hostile-bundle-{case}")).cpus(1);
        let mut running = machine.boot_edited(&Manifest::new([Vm::guest("vm", "neighbour")]), edit);
        let everything = running.console.everything();
        assert!(
            everything.contains(expected),
            "{case}: not {expected:?}{}",
            running.console.tail()
        );
        assert_eq!(
            running.command("vm list")["vms"],
            serde_json::json!([]),
            "{case}"
        );
    }
}

#[test]
fn what_is_wrong_with_the_hosts_tree_is_named_with_its_node() {
    let good = Tree::of_virt(&artefacts::log_directory("hostile-tree"), 2);
    let cases = [
        (
            "twice",
            "reg = <0x01>;",
            "reg = <0x00>;",
            "/cpus/cpu@1: `reg` = <0x0>: names the same CPU as another node",
        ),
        (
            "no-gic",
            "arm,gic-v3",
            "arm,gic-v9",
            "no interrupt controller",
        ),
    ];
    for (case, from, to, expected) in cases {
        let bad = good.clone().replace(from, to);
        let machine = Machine::new(&format!("hostile-tree-{case}")).cpus(2);
        let machine = machine.exact_memory_mib(512).tree(&bad);
        let mut running = machine.launch(&Manifest::new([Vm::guest("vm", "neighbour")]), |_| {});
        running.console.expect(expected, PATIENCE);
    }
}

#[test]
fn a_machine_that_cannot_be_used_is_told_so_in_one_line() {
    let machine = |case: &str| Machine::new(&format!("hostile-machine-{case}")).cpus(1);
    let pi = machine("no-tree").board("raspi4b").model("cortex-a72");
    let cases = [
        (
            machine("el1"),
            "bullpen: entered at EL1, but a hypervisor needs EL2",
        ),
        // What its firmware hands over is no device tree.
        (
            pi.cpus(4).memory_mib(2048),
            "bullpen: no device tree at 0x100",
        ),
    ];
    for (machine, expected) in cases {
        let mut running = machine.bare(&artefacts::hypervisor(), "");
        running.console.expect(expected, PATIENCE);
    }
}

/// More bytes than a person types, in one line.
fn long_line() -> Vec<u8> {
    vec![
        b'x';
        if artefacts::full() {
            1_000_000
        } else {
            100_000
        }
    ]
}

/// How late a beat may be while bytes come faster than any UART brings them, in time that is counted in instructions.
const LATE_US: u64 = 5_000;
/// How late it may be beside another guest, on a machine that is busy with other tests.
const LATE_ON_A_BUSY_MACHINE_US: u64 = 2_000_000;

#[test]
fn no_line_is_too_long_or_too_strange_for_the_control_channel() {
    let vm = Vm::guest("beats", "neighbour");
    let mut running = Machine::new("hostile-control")
        .cpus(2)
        .deterministic()
        .boot(&Manifest::new([vm]));
    let before = running.command("host")["free_pages"].clone();
    let control = running.control();
    // One refusal a line, however long it is or whatever it holds.
    let mut line = long_line();
    line.push(b'\n');
    control.send_bytes(&line);
    assert_eq!(control.refusal(PATIENCE).kind, "too-long");
    let every_byte: Vec<u8> = (0..=u8::MAX)
        .filter(|byte| !b"\r\n".contains(byte))
        .chain([b'\n'])
        .collect();
    control.send_bytes(&every_byte);
    assert_eq!(control.refusal(PATIENCE).kind, "bad-json");
    let nested = "[".repeat(1000) + "\n";
    control.send_bytes(nested.as_bytes());
    assert_eq!(control.refusal(PATIENCE).kind, "bad-json");
    // A flood of commands: each is carried out, in turn, but for what is none.
    let commands = ["vm list", "vcpu list beats", "nonsense", "stats"];
    let flood = || commands.iter().cycle().take(500);
    let ids: Vec<u64> = flood().map(|command| control.send(command)).collect();
    for (id, command) in ids.into_iter().zip(flood()) {
        let refusal = control
            .reply(id, PATIENCE)
            .err()
            .map(|refusal| refusal.kind);
        let expected = (*command == "nonsense").then(|| "unknown-command".to_owned());
        assert_eq!(refusal, expected, "{command}");
    }
    assert_eq!(running.command("host")["free_pages"], before, "free pages");
    let beats = ask(&mut running, "beats");
    assert!(beats.late_us < LATE_US && beats.damaged == 0, "{beats:?}");
}

#[test]
fn no_line_is_too_long_or_too_strange_for_the_prompt() {
    let vm = Vm::guest("beats", "neighbour");
    let mut running = Machine::new("hostile-prompt")
        .cpus(2)
        .deterministic()
        .boot(&Manifest::new([vm]));
    ask(&mut running, "beats");
    let before = running.command("host")["free_pages"].clone();
    // To the prompt.
    running.prompt();
    running.console.send_bytes(&long_line());
    running.console.line("");
    let every_byte: Vec<u8> = (0..=u8::MAX).filter(|byte| *byte != 0x1d).collect();
    for _ in 0..20 {
        running.console.send_bytes(&every_byte);
    }
    running.console.send("\x15\r");
    for _ in 0..200 {
        running.console.line("vcpu list beats");
    }
    running.console.line("console nobody-of-this-name");
    running
        .console
        .expect("there is no VM named \"nobody-of-this-name\"", PATIENCE);
    assert_eq!(running.command("host")["free_pages"], before, "free pages");
    let beats = ask(&mut running, "beats");
    assert!(beats.late_us < LATE_US && beats.damaged == 0, "{beats:?}");
}

fn print_without_end(at: At) {
    let flood = Vm::guest("flood", "neighbour")
        .command_line("flood")
        .cpus(&[0]);
    let beats = Vm::guest("beats", "neighbour").cpus(&[0]);
    let machine = at.machine().cpus(2);
    let mut running = machine.boot(&Manifest::new([flood, beats]));
    ask(&mut running, "beats");
    let before = running.command("host")["free_pages"].clone();
    running.command("console flood");
    running.console.expect("0123456789abcdef", PATIENCE);
    // A command of the other port is carried out between more and more of it.
    for _ in 0..5 {
        running.console.expect("0123456789abcdef", PATIENCE);
        assert_eq!(state(&mut running, "beats").0, "running");
    }
    // The escape key works in the middle of it, and so does the prompt.
    running.prompt();
    running.console.line("vcpu list beats");
    running.console.expect("STOLEN", PATIENCE);
    let beats = ask(&mut running, "beats");
    assert!(
        beats.late_us < LATE_ON_A_BUSY_MACHINE_US && beats.damaged == 0,
        "{beats:?}"
    );
    assert_eq!(running.command("host")["free_pages"], before, "free pages");
}

/// A guest whose CPUs never rest, on all CPUs but one, and one that keeps a beat on the first, which they share.
fn storm(at: At, words: &str) -> Running {
    let storm = Vm::guest("storm", "storm")
        .vcpus(4, 4)
        .cpus(&[0, 1])
        .command_line(words);
    let beats = Vm::guest("beats", "neighbour").cpus(&[0]);
    let machine = at.machine().cpus(3);
    let mut running = machine.boot(&Manifest::new([storm, beats]));
    for vm in ["beats", "storm"] {
        running.command(&format!("console {vm}"));
        running.console.expect("READY", PATIENCE);
    }
    running
}

/// Ends the storm and begins it once more; free pages are then as before, and the neighbour is well.
fn nothing_is_left_of(mut running: Running, before: &serde_json::Value) {
    running.control().forget_events();
    running.stop("storm");
    running.command("vm start storm");
    running.control().event("vm-start", "storm", PATIENCE);
    assert_eq!(&running.command("host")["free_pages"], before, "free pages");
    let beats = ask(&mut running, "beats");
    assert!(
        beats.late_us < LATE_ON_A_BUSY_MACHINE_US && beats.damaged == 0,
        "{beats:?}"
    );
}

/// Waits until the storm's vCPUs have left it so many times more.
fn work_goes_on(running: &mut Running, times: u64) {
    let exits = |running: &mut Running| {
        let list = running.command("vcpu list storm");
        let vcpus = list["vcpus"].as_array().expect("a list of vCPUs");
        let exits = vcpus.iter().filter_map(|vcpu| vcpu["exits"].as_u64());
        exits.sum::<u64>()
    };
    let (wanted, deadline) = (exits(running) + times, Instant::now() + PATIENCE);
    while exits(running) < wanted {
        assert!(Instant::now() < deadline, "{}", running.console.tail());
    }
}

fn end_in_the_middle(at: At) {
    let mut running = storm(at, "");
    let before = running.command("host")["free_pages"].clone();
    for number in 0..if artefacts::full() { 300 } else { 30 } {
        // Some moment of its life, which each of these begins anew or leaves where it is.
        work_goes_on(&mut running, number * 37 % 100 * 50);
        running.control().forget_events();
        let (commands, event): (&[&str], &str) = match number % 3 {
            0 => (&["vm reset storm"], "vm-start"),
            1 => (&["vm stop storm", "vm start storm"], "vm-start"),
            _ => (&["vm pause storm", "vm resume storm"], "vm-resumed"),
        };
        for command in commands {
            running.command(command);
            if *command == "vm stop storm" {
                running.control().event("vm-off", "storm", PATIENCE);
            }
            if *command == "vm pause storm" {
                running.control().event("vm-paused", "storm", PATIENCE);
            }
        }
        running.control().event(event, "storm", PATIENCE);
    }
    nothing_is_left_of(running, &before);
}

fn reset_anywhere(at: At) {
    let mut running = storm(at, "reset");
    let before = running.command("host")["free_pages"].clone();
    for _ in 0..if artefacts::full() { 1000 } else { 50 } {
        running.control().event("vm-reset", "storm", PATIENCE);
        running.control().event("vm-start", "storm", PATIENCE);
    }
    nothing_is_left_of(running, &before);
}

fn resize_fast(at: At) {
    // It does not know what a hot-added vCPU is.
    let deaf = Vm::guest("deaf", "neighbour")
        .text("firmware", "acpi")
        .vcpus(1, 8);
    let beats = Vm::guest("beats", "neighbour");
    let machine = at.machine().cpus(2);
    let mut running = machine.boot(&Manifest::new([deaf, beats]));
    ask(&mut running, "beats");
    let before = running.command("host")["free_pages"].clone();
    let control = running.control();
    let mut ids = Vec::new();
    for number in 0..200 {
        ids.push(control.send(&format!("vcpu set deaf {} --timeout 1", number % 10)));
        if number % 20 == 7 {
            ids.push(control.send("vm reset deaf"));
        }
    }
    let mut kinds = BTreeMap::new();
    for reply in control.replies(&ids, PATIENCE) {
        let word = match reply {
            Ok(result) => result["outcome"].as_str().unwrap_or("ok").to_owned(),
            Err(refusal) => refusal.kind,
        };
        *kinds.entry(word).or_insert(0_u32) += 1;
    }
    println!("{kinds:?}");
    let mut count = |word: &str| kinds.remove(word).unwrap_or(0);
    // It never listens, so a resize that asks for more has no better end than its deadline; 9 and 0 it cannot have.
    let resets = count("ok") + count("wrong-state");
    let (impossible, ended) = (count("bad-number"), count("timed-out") + count("done"));
    let busy = count("busy");
    assert_eq!((resets, impossible + ended + busy), (10, 200), "{kinds:?}");
    assert!(
        impossible <= 40 && (1..200).contains(&ended),
        "{impossible} {ended}"
    );
    // Once it is quiet the next one is heard, and what cannot be is refused by name.
    for command in ["vcpu set deaf 9", "vcpu set deaf 0"] {
        let refusal = control.command(command, PATIENCE).expect_err(command);
        assert_eq!(refusal.kind, "bad-number", "{refusal:?}");
    }
    let report = running.command("vcpu set deaf 1");
    assert_eq!(report["outcome"], "done", "{report}");
    assert_eq!(running.command("host")["free_pages"], before, "free pages");
    let beats = ask(&mut running, "beats");
    assert!(
        beats.late_us < LATE_ON_A_BUSY_MACHINE_US && beats.damaged == 0,
        "{beats:?}"
    );
}
