//! What EL2 says when it finds itself wrong. QEMU's debugger makes it wrong: nothing in the image does.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use tests::machine::{Machine, PATIENCE};
use tests::{Manifest, Vm, artefacts};

/// QEMU's number of SP (its aarch64-core.xml).
const SP: &str = "1f";
/// The part of the stack window that a CPU has, and where its guard is in it.
const PART: u64 = 0x1_0000;
const GUARD: u64 = 0x2000;

/// A connection to QEMU's debugger.
struct Debugger(UnixStream);

impl Debugger {
    /// Stops the machine.
    fn attach(path: &str) -> Self {
        let stream = UnixStream::connect(path).expect("QEMU listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket may time out");
        let mut debugger = Self(stream);
        debugger.ask("?");
        debugger
    }

    /// Sends a packet: `$text#sum`.
    fn send(&mut self, text: &str) {
        let sum = text.bytes().fold(0_u8, u8::wrapping_add);
        let packet = format!("${text}#{sum:02x}");
        self.0.write_all(packet.as_bytes()).expect("QEMU reads");
    }

    /// Sends a packet and returns what the answer says.
    fn ask(&mut self, text: &str) -> String {
        self.send(text);
        let mut answer = String::new();
        let mut byte = [0];
        while !answer.ends_with('#') {
            self.0.read_exact(&mut byte).expect("QEMU answers");
            // Acknowledgements come between.
            match byte[0] {
                b'$' => answer.clear(),
                byte => answer.push(char::from(byte)),
            }
        }
        self.0.read_exact(&mut [0; 2]).expect("a sum");
        self.0.write_all(b"+").expect("QEMU reads");
        answer.trim_end_matches('#').to_owned()
    }

    /// Reads the first CPU's stack pointer.
    fn stack_pointer(&mut self) -> u64 {
        let answer = self.ask(&format!("p{SP}"));
        let number = u64::from_str_radix(&answer, 16).expect("a register");
        number.swap_bytes()
    }

    /// Writes it.
    fn set_stack_pointer(&mut self, value: u64) {
        let value = value.swap_bytes();
        assert_eq!(self.ask(&format!("P{SP}={value:016x}")), "OK");
    }
}

#[test]
fn a_full_stack_is_told_of() {
    let test = "last-words-stack";
    let path = artefacts::log_directory(test).join("debugger");
    let path = path.display();
    let vm = Vm::guest("vm", "neighbour").raw("autostart", "false");
    let mut running = Machine::new(test)
        .cpus(1)
        .argument("-chardev")
        .argument(&format!(
            "socket,id=debugger,path={path},server=on,wait=off"
        ))
        .argument("-gdb")
        .argument("chardev:debugger")
        .boot(&Manifest::new([vm]));
    running.command("host");
    let mut debugger = Debugger::attach(&path.to_string());
    let stack = debugger.stack_pointer();
    debugger.set_stack_pointer(stack / PART * PART + GUARD);
    debugger.send("c");
    // It waits for an interrupt, and gets one by a byte.
    running.console.send("x");
    let cpu = "BULLPEN PANIC on ";
    running.console.expect(cpu, PATIENCE);
    let line = "EL2's stack on this CPU has overflowed";
    running.console.expect(line, PATIENCE);
    running.console.expect("x30", PATIENCE);
}
