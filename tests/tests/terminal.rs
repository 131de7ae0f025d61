//! What a person at the terminal meets: lines that are edited and completed, a page about a VM, and a live view; and the same facts
//! on the control channel.
#![forbid(unsafe_code)]

use tests::machine::{Machine, PATIENCE, Running};
use tests::{Manifest, Vm};

/// The start of a redraw of the live view: back to the first place of the screen.
const REDRAW: &str = "\x1b[Htop: 2 VMs";

/// Boots a guest that is always busy and one that mostly sleeps, each on a CPU of its own; the terminal shows the prompt.
fn boot(name: &str) -> Running {
    let busy = Vm::guest("busy", "neighbour")
        .command_line("spin")
        .cpus(&[0]);
    let idle = Vm::guest("idle", "neighbour").cpus(&[1]);
    let mut running = Machine::new(name)
        .cpus(2)
        .boot(&Manifest::new([busy, idle]));
    running.console.expect("READY", PATIENCE);
    running.prompt();
    running
}

#[test]
fn a_session_edits_completes_shows_and_watches() {
    let mut running = boot("terminal");
    running.command("vm reset busy");
    running.control().event("vm-start", "busy", PATIENCE);
    let (console, control) = running.channels();
    console.expect("busy: started\r\n", PATIENCE);

    console.send("vm s\t");
    console.expect("show  start  stop\r\n\rbullpen> vm s", PATIENCE);
    console.send("how b\t");
    console.expect("busy ", PATIENCE);
    console.send("\r");
    console.expect("busy: running for ", PATIENCE);
    let page = console.expect("bullpen> ", PATIENCE);
    for fact in [
        "vCPUs       1 on, 1 wanted, 1 possible, 1 from boot\r\n",
        "on CPUs     0\r\n",
        "options     spin\r\n",
        "resets      1\r\n",
        "s ago: operator\r\n",
    ] {
        assert!(page.contains(fact), "{fact:?} in {page}");
    }

    // Edited in the middle, a word at a time, and found again in the history.
    console.send("vcpu lisst idle\x1bb\x02\x02\x7f\r");
    console.expect("VCPU  STATE", PATIENCE);
    console.expect("bullpen> ", PATIENCE);
    console.send("\x12sho\r");
    console.expect("busy: running for ", PATIENCE);
    console.send("help vcpu set\r");
    console.expect("for example: vcpu set busy 8 --timeout 30\r\n", PATIENCE);

    console.send("top\r");
    console.expect(REDRAW, PATIENCE);
    for _ in 0..2 {
        let screen = console.expect(REDRAW, PATIENCE);
        let row = screen.lines().find(|line| line.starts_with("busy 0 "));
        let row = row.unwrap_or_else(|| panic!("{screen}"));
        // Alone on its CPU, which it never leaves.
        let share = row
            .split_whitespace()
            .nth(3)
            .and_then(|cell| cell.split('.').next());
        let share: u32 = share.and_then(|share| share.parse().ok()).expect("a share");
        assert!(share >= 90, "{row}");
        assert!(screen.contains("idle running"), "{screen}");
    }
    console.send("xq");
    console.expect("\rbullpen> ", PATIENCE);
    console.send("vm list\r");
    let after = console.expect("NAME", PATIENCE);
    assert!(!after.contains("top:"), "the view has ended");

    let control = control.expect("two UARTs");
    let page = control.command("vm show busy", PATIENCE).expect("a page");
    assert_eq!(page["last_reset"]["why"], "operator", "{page}");
    assert_eq!(
        (&page["resets"], &page["state"]),
        (&1.into(), &"running".into())
    );
    let before = control.command("top", PATIENCE).expect("a sample");
    let sample = control.command("top", PATIENCE).expect("a sample");
    let ran = |sample: &serde_json::Value| sample["vcpus"][0]["ran_ns"].as_u64();
    assert!(ran(&sample) > ran(&before), "{before} {sample}");
}
