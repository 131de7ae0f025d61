//! CPU time beside vCPUs, as a guest and the operator see it.
#![forbid(unsafe_code)]

use tests::control::Refusal;
use tests::machine::{Machine, PATIENCE, Running};
use tests::{Manifest, Vm, artefacts, linux};

/// What the guest's kernel can tell of stolen time, in nanoseconds: a tick of /proc/stat (USER_HZ).
const TICK_NS: u64 = 10_000_000;

/// Returns what EL2 says was stolen from each vCPU, in nanoseconds.
fn metered(running: &mut Running) -> Vec<u64> {
    let list = running.command("vcpu list linux");
    let vcpus = list["vcpus"].as_array().expect("a list of vCPUs");
    let stolen = vcpus.iter().filter_map(|vcpu| vcpu["stolen_ns"].as_u64());
    stolen.collect()
}

/// Returns what the guest says was stolen from each of its CPUs, in nanoseconds.
fn shown(running: &mut Running) -> Vec<u64> {
    let text = linux::run(&mut running.console, "grep '^cpu[0-9]' /proc/stat");
    let stolen = text.lines().filter_map(|line| {
        // "cpu0 user nice system idle iowait irq softirq steal guest guest_nice"
        let ticks = line.split_whitespace().nth(8)?;
        ticks.parse::<u64>().ok()
    });
    stolen.map(|ticks| ticks * TICK_NS).collect()
}

/// Runs a busy loop on each of the guest's two vCPUs for some of its seconds, then checks what it shows beside what EL2 metered.
fn expect_the_same(running: &mut Running) {
    let busy = "for cpu in 0 1; do taskset $((1 << cpu)) sh -c 'while :; do :; done' & done";
    linux::run(&mut running.console, busy);
    linux::run(
        &mut running.console,
        "sleep 4; kill $(jobs -p); wait; sleep 1",
    );
    let before = metered(running);
    let shown = shown(running);
    let after = metered(running);
    println!("metered {before:?} and {after:?}, shown {shown:?}");
    assert_eq!(shown.len(), 2);
    for (cpu, shown) in shown.into_iter().enumerate() {
        assert!(
            shown > 50 * TICK_NS,
            "cpu{cpu}: little was stolen, {shown} ns"
        );
        assert!(
            shown + TICK_NS >= before[cpu],
            "cpu{cpu}: {shown} of {before:?}"
        );
        assert!(
            shown <= after[cpu] + TICK_NS,
            "cpu{cpu}: {shown} of {after:?}"
        );
    }
}

/// How many seconds of its own clock a guest counts: ten in a full run.
fn seconds() -> u64 {
    if artefacts::full() { 10 } else { 2 }
}

/// Asks a guest that spins for its share of some seconds, in thousandths.
fn share(running: &mut Running, name: &str) -> u64 {
    running.command(&format!("console {name}"));
    running.console.send(&(seconds() % 10).to_string());
    running.console.expect("SHARE permille=", PATIENCE);
    let line = running.console.next_line(PATIENCE).expect("two numbers");
    let permille = line.split(' ').next().and_then(|text| text.parse().ok());
    permille.unwrap_or_else(|| panic!("{line}"))
}

/// Asks for what a VM is not entitled to; the answer says what it is.
fn expect_refusal(running: &mut Running, command: &str, bounds: &str) {
    let answer = running.control().command(command, PATIENCE);
    let Refusal { kind, message } = answer.expect_err("it is outside");
    assert_eq!(kind, "not-entitled");
    assert_eq!(message, format!("the VM is entitled to {bounds}"));
}

/// What the meters of a VM say, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Meters {
    held: u64,
    entitled: u64,
    ran: u64,
    stolen: u64,
    throttled: u64,
}

impl Meters {
    /// Reads them from a row of `usage` or an event.
    fn of(row: &serde_json::Value) -> Self {
        let meter = |key: &str| row[key].as_u64().unwrap_or_else(|| panic!("{key}: {row}"));
        Self {
            held: meter("held_ns"),
            entitled: meter("entitled_ns"),
            ran: meter("ran_ns"),
            stolen: meter("stolen_ns"),
            throttled: meter("throttled_ns"),
        }
    }

    /// Asks for them.
    fn ask(running: &mut Running, vm: &str) -> Self {
        Self::of(&running.command(&format!("usage {vm}"))["vms"][0])
    }

    /// Returns what was added since; nothing has gone back.
    fn since(self, then: Self) -> Self {
        let added = |now: u64, then: u64| {
            now.checked_sub(then)
                .unwrap_or_else(|| panic!("{then:?} before {self:?}"))
        };
        Self {
            held: added(self.held, then.held),
            entitled: added(self.entitled, then.entitled),
            ran: added(self.ran, then.ran),
            stolen: added(self.stolen, then.stolen),
            throttled: added(self.throttled, then.throttled),
        }
    }
}

/// Two guests that spin share a CPU: what one runs the other waits, by the meters, which go on over a reset and a stop.
#[test]
fn meters_add_up_and_go_on_whatever_becomes_of_the_vm() {
    let vm = |name: &str| {
        let vm = Vm::guest(name, "neighbour").command_line("spin");
        vm.cpus(&[0]).raw("max-vcpus", "3").raw("idle", "\"trap\"")
    };
    let vms = [vm("capped").raw("cpu-cap", "250"), vm("free")];
    let machine = Machine::new("cpu-time-meters").cpus(1).deterministic();
    let mut running = machine.boot(&Manifest::new(vms));
    for name in ["capped", "free"] {
        running.command(&format!("console {name}"));
        running.console.expect("READY", PATIENCE);
    }
    running.command("watch usage 1");
    let mut rows = Vec::new();
    for _ in 0..3 {
        let control = running.control();
        for name in ["capped", "free"] {
            rows.push(control.event("usage", name, PATIENCE));
        }
    }
    let read = |index: usize| (Meters::of(&rows[index]), rows[index]["time_ns"].as_u64());
    let [(from, begun), (to, ended)] = [read(0), read(4)];
    let (capped, other) = (to.since(from), read(5).0.since(read(1).0));
    let (begun, ended) = (begun.expect("a time"), ended.expect("a time"));
    let passed = ended - begun;
    println!("{capped:?} and {other:?} in {passed} ns");
    let is_close = |ns: u64, expected: u64| ns.abs_diff(expected) <= passed / 100;
    // Two periods of a second, of which a quarter is the capped VM's.
    assert!(is_close(passed, 2_000_000_000), "{passed} ns");
    assert!(is_close(capped.ran, passed / 4) && is_close(other.ran, passed / 4 * 3));
    for vm in [capped, other] {
        assert!(is_close(vm.ran + vm.stolen, passed), "it never sleeps");
        assert!(is_close(vm.held, passed) && is_close(vm.entitled, 3 * passed));
    }
    assert!(capped.throttled > passed / 4 && capped.throttled <= capped.stolen);
    assert_eq!(other.throttled, 0);
    running.command("unwatch usage");
    for (command, event) in [
        ("vm reset capped", "vm-reset"),
        ("vm stop capped", "vm-off"),
        ("vm start capped", "vm-start"),
    ] {
        let then = Meters::ask(&mut running, "capped");
        running.command(command);
        running.control().event(event, "capped", PATIENCE);
        let _added = Meters::ask(&mut running, "capped").since(then);
    }
    assert!(Meters::ask(&mut running, "capped").ran > to.ran);
}

/// Each guest counts by its own clock what it has of one CPU, beside the other and alone.
#[test]
fn caps_hold_to_a_hundredth_whoever_else_wants_the_cpu() {
    let vm = |name: &str| {
        let vm = Vm::guest(name, "neighbour").command_line("spin");
        vm.cpus(&[0])
    };
    let entitled = "{ min = 300, max = \"750m\" }";
    let vms = [
        vm("quarter").raw("cpu-cap", "250"),
        vm("rest").raw("entitlement.cpu-cap", entitled),
    ];
    let machine = Machine::new("cpu-time-caps").cpus(1).deterministic();
    let mut running = machine.boot(&Manifest::new(vms));
    for name in ["quarter", "rest"] {
        running.command(&format!("console {name}"));
        running.console.expect("READY", PATIENCE);
    }
    let expect = |running: &mut Running, name: &str, permille: u64| {
        let had = share(running, name);
        println!("{name}: {had} of 1000, {permille} wanted");
        // At either end the time of a period may be in it or not.
        let edge = permille / 10 / seconds();
        assert!(
            had.abs_diff(permille) <= permille / 100 + edge,
            "{name}: {had} of {permille}"
        );
    };
    expect(&mut running, "quarter", 250);
    expect_refusal(&mut running, "vm cap rest none", "300 to 750 millicores");
    expect(&mut running, "rest", 750);
    // Alone on its CPU: nothing but its cap stops it.
    running.command("vm stop rest");
    expect(&mut running, "quarter", 250);
    running.command("vm cap quarter 600m");
    expect(&mut running, "quarter", 600);
    running.command("vm reset quarter");
    running.console.expect("READY", PATIENCE);
    expect(&mut running, "quarter", 600);
    running.command("vm cap quarter none");
    assert!(share(&mut running, "quarter") >= 995);
}

/// Three guests that never sleep count what each has of one CPU.
#[test]
fn weights_share_a_cpu_to_two_hundredths() {
    let vm = |name: &str| {
        let vm = Vm::guest(name, "neighbour").command_line("spin");
        vm.cpus(&[0])
    };
    let vms = [
        vm("tenth"),
        vm("fifth").raw("cpu-weight", "200"),
        vm("most").raw("cpu-weight", "700"),
    ];
    let machine = Machine::new("cpu-time-weights").cpus(1).deterministic();
    let mut running = machine.boot(&Manifest::new(vms));
    for name in ["tenth", "fifth", "most"] {
        running.command(&format!("console {name}"));
        running.console.expect("READY", PATIENCE);
    }
    let expect = |running: &mut Running, name: &str, permille: u64| {
        let had = share(running, name);
        println!("{name}: {had} of 1000, {permille} wanted");
        // At either end a slice, which is a part of 20 ms, may be in it or not.
        let edge = permille / 50 / seconds();
        assert!(
            had.abs_diff(permille) <= permille / 50 + edge,
            "{name}: {had} of {permille}"
        );
    };
    expect(&mut running, "tenth", 100);
    expect(&mut running, "fifth", 200);
    expect(&mut running, "most", 700);
    running.command("vm weight tenth 900");
    assert_eq!(running.command("vm show tenth")["weight"], 900);
    expect(&mut running, "tenth", 500);
}

/// Returns how long the guest's vCPUs have run together, and when that was, in nanoseconds of EL2's time.
fn ran(running: &mut Running) -> (u64, u64) {
    let sample = running.command("top");
    let vcpus = sample["vcpus"].as_array().expect("a list of vCPUs");
    let ran = vcpus.iter().filter_map(|vcpu| vcpu["ran_ns"].as_u64());
    (ran.sum(), sample["time_ns"].as_u64().expect("a time"))
}

#[test]
fn a_cap_holds_while_a_guest_has_more_vcpus() {
    // No VM has a cap when the CPUs begin.
    let vm = Vm::linux("linux", "linux-6.12").vcpus(2, 6);
    let vm = vm.raw("entitlement.vcpus", "{ min = 2, max = 4 }");
    let machine = Machine::new("cpu-time-cap").cpus(4);
    let (mut running, _) = linux::boot(machine, vm);
    for outside in [1, 5] {
        let command = format!("vcpu set linux {outside}");
        expect_refusal(&mut running, &command, "2 to 4 vCPUs");
    }
    linux::resize_to(&mut running, "linux", 4);
    let busy = "for cpu in 0 1 2 3; do taskset $((1 << cpu)) sh -c 'while :; do :; done' & done";
    linux::run(&mut running.console, busy);
    for (cap, percent) in [("1500m", 150), ("500", 50)] {
        running.command(&format!("vm cap linux {cap}"));
        assert_eq!(running.command("vm show linux")["cap"], percent * 10);
        let (from, begun) = ran(&mut running);
        linux::run(&mut running.console, "sleep 5");
        let (to, ended) = ran(&mut running);
        let share = (to - from) * 100 / (ended - begun);
        println!("cap {cap}: {share} % of a CPU");
        // A period that has begun gives its whole time at both ends; a busy host may not have the time to give.
        assert!(share <= percent + percent / 20, "{share} % of a CPU");
        assert!(share >= percent / 3, "{share} % of a CPU");
    }
    running.command("vm cap linux none");
    assert_eq!(running.command("vm show linux").get("cap"), None);
    linux::run(&mut running.console, "kill $(jobs -p)");
    linux::expect_no_complaints(&mut running.console);
}

#[test]
fn a_guest_shows_what_was_stolen_from_its_vcpus() {
    let vm = Vm::linux("linux", "linux-6.12").vcpus(1, 2);
    let machine = Machine::new("cpu-time-stolen").cpus(1);
    let (mut running, _) = linux::boot(machine, vm);
    let log = linux::run(&mut running.console, "dmesg | grep stolen");
    assert!(log.contains("using stolen time PV"), "{log}");
    linux::resize_to(&mut running, "linux", 2);
    expect_the_same(&mut running);
    running.control().forget_events();
    // A reboot begins at nothing, and the vCPU that was added comes back.
    linux::reboot(&mut running, "linux");
    running.control().event("resize-done", "linux", PATIENCE);
    expect_the_same(&mut running);
    linux::expect_no_complaints(&mut running.console);
}
