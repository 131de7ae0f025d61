//! A QEMU machine for a test: built, started, talked to, and always ended.

use crate::console::Console;
use crate::control::Control;
use crate::manifest::Manifest;
use crate::slots::Slot;
use crate::tree::Tree;
use crate::{armstub, artefacts, control};
use std::fs::File;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What the hypervisor itself and its tables get beside the guests, in MiB.
const HOST_RESERVE_MIB: u64 = 192;
/// Where firmware of ours finds the kernel that it is to start.
const KERNEL: u64 = 0x4400_0000;
/// How long QEMU gets to open its channels.
const START_LIMIT: Duration = Duration::from_secs(60);
/// What Bullpen prints when its console is there.
const BANNER: &str = "Ctrl-] switches between guest and Bullpen console";
/// How long most things may take: far more than they need, for a machine that is busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A machine to be started.
#[derive(Clone, Debug)]
pub struct Machine {
    name: String,
    cpus: u32,
    model: String,
    memory_mib: u64,
    /// Whether it gets that much and no more, whatever its guests need.
    exact_memory: bool,
    one_uart: bool,
    /// Whether the machine's first UART is the control channel.
    control_first: bool,
    machine: String,
    extra: Vec<String>,
    /// What QEMU starts in place of Bullpen, to start Bullpen in its turn.
    firmware: Option<PathBuf>,
    /// Whether TF-A's BL31 runs first.
    by_armstub: bool,
    /// The disk on which firmware finds Bullpen, which QEMU then does not hand to it.
    disk: Option<PathBuf>,
}

impl Machine {
    /// Describes a `virt` machine with 4 CPUs of QEMU's `max` model; `name` is the test's, for its logs.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            cpus: 4,
            model: "max,pauth=off".into(),
            memory_mib: 512,
            exact_memory: false,
            one_uart: false,
            control_first: false,
            machine: "virt,gic-version=3".into(),
            extra: Vec::new(),
            firmware: None,
            by_armstub: false,
            disk: None,
        }
    }

    /// Describes QEMU's Raspberry Pi 4 with the tree that Debian's kernel has for it: a GIC-400, a spin table, 960 MiB of RAM. Its
    /// console is the mini UART, its control channel the PL011.
    #[must_use]
    pub fn pi4(name: &str) -> Self {
        let tree = artefacts::tree("broadcom/bcm2711-rpi-4-b.dtb");
        let machine = Self {
            control_first: true,
            ..Self::new(name).board("raspi4b").model("cortex-a72")
        };
        machine.exact_memory_mib(2048).blob(&tree.to_string_lossy())
    }

    /// Describes a Raspberry Pi 4 whose CPUs TF-A's BL31 starts, by PSCI. BL31 makes the PL011 its console; there is no other for a
    /// control channel.
    #[must_use]
    pub fn pi4_by_armstub(name: &str) -> Self {
        let machine = Self::new(name).board("raspi4b").model("cortex-a72");
        Self {
            by_armstub: true,
            ..machine.exact_memory_mib(2048).one_uart()
        }
    }

    /// Gives the machine this device tree in place of QEMU's.
    ///
    /// # Panics
    /// If dtc is not there, or does not take the tree.
    #[must_use]
    pub fn tree(self, tree: &Tree) -> Self {
        self.blob(&tree.write("machine"))
    }

    fn blob(self, tree: &str) -> Self {
        self.argument("-dtb").argument(tree)
    }

    /// Has this firmware start Bullpen, which it finds at [`KERNEL`].
    #[must_use]
    pub fn after(mut self, firmware: &Path) -> Self {
        self.firmware = Some(firmware.to_owned());
        let image = artefacts::hypervisor();
        let device = format!(
            "loader,file={},addr={KERNEL:#x},force-raw=on",
            image.display()
        );
        self.argument("-device").argument(&device)
    }

    /// Has this EFI firmware of [`artefacts::firmware`] or U-Boot start Bullpen, on a machine that has a device tree and no ACPI.
    #[must_use]
    pub fn efi(self, firmware: &str) -> Self {
        let file = artefacts::firmware(firmware);
        let machine = self.option("acpi=off").argument("-bios");
        machine.argument(&file.to_string_lossy())
    }

    /// Puts Bullpen as `bullpen.efi` and its bundle as `bundle.cpio` among the files of this directory, and makes it the machine's
    /// disk. What starts them from there is in the directory too.
    #[must_use]
    pub fn disk(mut self, directory: &Path) -> Self {
        self.disk = Some(directory.to_owned());
        let drive = format!(
            "if=none,id=esp,format=raw,readonly=on,file=fat:{}",
            directory.display()
        );
        let machine = self.argument("-drive").argument(&drive);
        machine
            .argument("-device")
            .argument("virtio-blk-pci,drive=esp")
    }

    /// Returns the test's name, which its logs have.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets the number of physical CPUs.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Sets the CPU model.
    #[must_use]
    pub fn model(mut self, model: &str) -> Self {
        self.model = model.into();
        self
    }

    /// Sets the size of memory; [`Machine::boot`] sets it to what its guests need when that is more.
    #[must_use]
    pub fn memory_mib(mut self, size: u64) -> Self {
        self.memory_mib = size;
        self
    }

    /// Sets the size of memory, which may be too little for all guests together.
    #[must_use]
    pub fn exact_memory_mib(mut self, size: u64) -> Self {
        self.exact_memory = true;
        self.memory_mib(size)
    }

    /// Leaves out the second UART, and with it the control channel.
    #[must_use]
    pub fn one_uart(mut self) -> Self {
        self.one_uart = true;
        self
    }

    /// Gives a `virt` machine this version of the interrupt controller, instead of a GICv3.
    #[must_use]
    pub fn gic(self, version: u32) -> Self {
        self.board(&format!("virt,gic-version={version}"))
    }

    /// Makes it another machine of QEMU's than `virt`.
    #[must_use]
    pub fn board(mut self, name: &str) -> Self {
        self.machine = name.into();
        self
    }

    /// Adds an option to QEMU's `-M`.
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.machine.push(',');
        self.machine.push_str(option);
        self
    }

    /// Adds an argument to QEMU's command line.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.extra.push(argument.into());
        self
    }

    /// Makes time a count of instructions, and every run the same.
    #[must_use]
    pub fn deterministic(self) -> Self {
        let arguments = [
            "-icount",
            "shift=0,sleep=off",
            "-rtc",
            "base=2025-01-01T00:00:00,clock=vm",
            "-seed",
            "1",
        ];
        let machine = self.option("dtb-randomness=off");
        arguments.into_iter().fold(machine, Self::argument)
    }

    /// Starts Bullpen with the VMs of a manifest.
    ///
    /// # Panics
    /// If the bundle cannot be made or QEMU does not start.
    #[must_use]
    pub fn boot(self, manifest: &Manifest) -> Running {
        self.boot_edited(manifest, |_| {})
    }

    /// Starts Bullpen with the VMs of a manifest in a bundle that the test has changed.
    ///
    /// # Panics
    /// As [`Machine::boot`].
    #[must_use]
    pub fn boot_edited(self, manifest: &Manifest, edit: impl FnOnce(&mut Vec<u8>)) -> Running {
        let mut running = self.launch(manifest, edit);
        running.console.expect(BANNER, PATIENCE);
        running
    }

    /// As [`Machine::boot_edited`], on a machine on which Bullpen may not come as far as its console.
    ///
    /// # Panics
    /// If QEMU does not start.
    #[must_use]
    pub fn launch(self, manifest: &Manifest, edit: impl FnOnce(&mut Vec<u8>)) -> Running {
        let directory = artefacts::log_directory(&self.name);
        let bundle = manifest
            .try_pack(&directory)
            .unwrap_or_else(|error| panic!("the bundle cannot be made: {error}"));
        let mut bytes = std::fs::read(&bundle).expect("the bundle was written just now");
        edit(&mut bytes);
        std::fs::write(&bundle, &bytes).expect("the log directory can be written");
        let bundle_mib = bytes.len() as u64 >> 20;
        let needed = manifest.memory_mib() + bundle_mib + HOST_RESERVE_MIB;
        let needed = if self.exact_memory { 0 } else { needed };
        let memory = self.memory_mib.max(needed.next_multiple_of(256));
        if self.by_armstub {
            let mut machine = self;
            machine
                .extra
                .extend(armstub::arguments(&directory, &bundle));
            return machine.start(None, None, None, true);
        }
        let kernel = self.firmware.clone().unwrap_or_else(artefacts::hypervisor);
        if let Some(disk) = &self.disk {
            for (file, name) in [(&kernel, "bullpen.efi"), (&bundle, "bundle.cpio")] {
                std::fs::copy(file, disk.join(name)).expect("the disk can be written");
            }
        }
        let machine = match self.machine.starts_with("virt") {
            true => self.option("virtualization=on"),
            false => self,
        };
        let is_given = machine.disk.is_none();
        let (kernel, bundle) = (is_given.then_some(&*kernel), is_given.then_some(&*bundle));
        machine.memory_mib(memory).start(kernel, bundle, None, true)
    }

    /// Starts an image on the bare machine, without Bullpen.
    #[must_use]
    pub fn bare(self, image: &Path, command_line: &str) -> Running {
        self.start(Some(image), None, Some(command_line), false)
    }

    /// Returns QEMU's command, without its UARTs.
    fn command(
        &self,
        image: Option<&Path>,
        initrd: Option<&Path>,
        append: Option<&str>,
    ) -> Command {
        let mut command = ending_with_its_parent("qemu-system-aarch64");
        let (cpus, memory) = (self.cpus.to_string(), format!("{}M", self.memory_mib));
        command
            .args(["-M", &self.machine, "-cpu", &self.model])
            .args(["-smp", &cpus, "-m", &memory])
            .args(["-nodefaults", "-display", "none", "-audio", "none"])
            .arg("-no-reboot")
            .args(&self.extra);
        if let Some(image) = image {
            command.arg("-kernel").arg(image);
        }
        if let Some(initrd) = initrd {
            command.arg("-initrd").arg(initrd);
        }
        if let Some(append) = append.filter(|text| !text.is_empty()) {
            command.args(["-append", append]);
        }
        command
    }

    fn start(
        self,
        image: Option<&Path>,
        initrd: Option<&Path>,
        append: Option<&str>,
        with_control: bool,
    ) -> Running {
        let slot = Slot::take();
        let directory = artefacts::log_directory(&self.name);
        let sockets = Sockets::new();
        let mut command = self.command(image, initrd, append);
        let has_control = with_control && !self.one_uart;
        let mut listen = |name| sockets.listen(name, &mut command);
        let (console, control) = if self.control_first {
            let control = has_control.then(|| listen("control"));
            (listen("console"), control)
        } else {
            let console = listen("console");
            (console, has_control.then(|| listen("control")))
        };
        let errors = directory.join("qemu.log");
        let log = File::create(&errors).expect("the log directory can be written");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap_or_else(|error| panic!("qemu-system-aarch64: {error}"));
        // From here on the child is ended whatever happens.
        let mut child = Process(child);
        let console = accept(&console, &mut child, &errors);
        let control = control.map(|listener| accept(&listener, &mut child, &errors));
        Running {
            console: Console::new(console, directory.join("console.log")),
            control: control.map(|stream| {
                Control::of_a_booting_machine(Console::new(stream, directory.join("control.log")))
            }),
            process: child,
            _sockets: sockets,
            _slot: slot,
        }
    }
}

/// Returns a command that ends when this program does, where the machine has util-linux.
fn ending_with_its_parent(program: &str) -> Command {
    let has_setpriv = Command::new("setpriv")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !has_setpriv {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

/// The directory of a machine's sockets: short, since a socket's path is bounded, and removed in the end.
struct Sockets(PathBuf);

impl Sockets {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("bullpen-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        Self(directory)
    }

    /// Listens for QEMU's next UART, and tells QEMU so.
    fn listen(&self, name: &str, command: &mut Command) -> UnixListener {
        let path = self.0.join(name);
        let listener =
            UnixListener::bind(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        command
            .args([
                "-chardev",
                &format!("socket,id={name},path={}", path.display()),
            ])
            .args(["-serial", &format!("chardev:{name}")]);
        listener
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        // Left-overs in the temporary directory do no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// QEMU, ended when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn accept(listener: &UnixListener, child: &mut Process, errors: &Path) -> UnixStream {
    let deadline = Instant::now() + START_LIMIT;
    listener
        .set_nonblocking(true)
        .expect("a listener can be polled");
    loop {
        if let Ok((stream, _)) = listener.accept() {
            stream
                .set_nonblocking(false)
                .expect("a socket can be waited for");
            return stream;
        }
        let ended = child.0.try_wait().ok().flatten();
        if ended.is_some() || Instant::now() > deadline {
            let text = std::fs::read_to_string(errors).unwrap_or_default();
            panic!("QEMU did not start ({ended:?}): {text}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A machine that runs, and ends when this is dropped.
pub struct Running {
    /// Its first UART.
    pub console: Console,
    control: Option<Control>,
    process: Process,
    _sockets: Sockets,
    _slot: Slot,
}

impl Running {
    /// Returns the control channel.
    ///
    /// # Panics
    /// On a bare machine, which has none.
    pub fn control(&mut self) -> &mut Control {
        self.control
            .as_mut()
            .expect("only Bullpen has a control channel")
    }

    /// Returns both ways to talk to it.
    pub fn channels(&mut self) -> (&mut Console, Option<&mut Control>) {
        (&mut self.console, self.control.as_mut())
    }

    /// Sends a control command and expects it to be obeyed.
    ///
    /// # Panics
    /// If it is refused or not answered.
    pub fn command(&mut self, command: &str) -> serde_json::Value {
        match self.control().command(command, PATIENCE) {
            Ok(result) => result,
            Err(control::Refusal { kind, message }) => {
                panic!(
                    "`{command}` was refused: {kind}: {message}{}",
                    self.console.tail()
                )
            }
        }
    }

    /// Goes from the guest that the console shows to the prompt.
    ///
    /// # Panics
    /// If there is no prompt.
    pub fn prompt(&mut self) {
        self.console.send("\x1d");
        self.console.expect("bullpen> ", PATIENCE);
    }

    /// Stops a VM and waits until it is off.
    ///
    /// # Panics
    /// If it does not go off.
    pub fn stop(&mut self, vm: &str) {
        self.command(&format!("vm stop {vm}"));
        self.control().event("vm-off", vm, PATIENCE);
    }

    /// Returns how long it takes from one answer of the control channel over that to `vm list` to a third, by the clock of the machine:
    /// to take the bytes of two commands, and to answer them.
    ///
    /// # Panics
    /// If one is refused or not answered.
    pub fn answer_ns(&mut self) -> u64 {
        let control = self.control();
        let ids = ["host", "vm list", "host"].map(|command| control.send(command));
        let [first, _, last] = ids.map(|id| control.reply(id, PATIENCE).expect("it is answered"));
        let ns = |host: &serde_json::Value| host["uptime_ns"].as_u64().expect("a number");
        ns(&last) - ns(&first)
    }

    /// Waits until QEMU ends by itself, as it does when the host is powered off.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait_for_end(mut self, timeout: Duration) -> ExitStatus {
        let deadline = Instant::now() + timeout;
        loop {
            if let Ok(Some(status)) = self.process.0.try_wait() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "QEMU does not end{}",
                self.console.tail()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
