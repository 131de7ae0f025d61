//! Virtio disks under unmodified Debian Linux: an image is read as it is, writes go to pages of RAM and stay over a reset, a full
//! quota is an I/O error, and none of it minds vCPUs that come and go.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use tests::machine::{Machine, PATIENCE, Running};
use tests::{Vm, artefacts, linux};

const MIB: usize = 1 << 20;

/// Makes an image whose bytes repeat nowhere near; its length is no whole number of pages.
fn image(test: &str, name: &str, bytes: usize) -> PathBuf {
    let path = artefacts::log_directory(test).join(name);
    let mut state = bytes as u64;
    let mut content = Vec::with_capacity(bytes + 8);
    while content.len() < bytes {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        content.extend((state >> 16).to_le_bytes());
    }
    content.truncate(bytes);
    std::fs::write(&path, content).expect("an image");
    path
}

/// Returns the checksum of a file, as the guest's tool prints it.
fn sum(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output();
    let output = output.expect("sha256sum is part of every system");
    first_word(&String::from_utf8_lossy(&output.stdout))
}

fn first_word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or("").to_owned()
}

fn sum_in_guest(running: &mut Running, file: &str) -> String {
    // What was read before does not count.
    let line = format!("echo 1 > /proc/sys/vm/drop_caches; sha256sum {file}");
    let shown = linux::run(&mut running.console, &line);
    let line = shown.lines().find(|line| line.ends_with(file));
    first_word(line.unwrap_or_else(|| panic!("{shown}")))
}

fn boot(test: &str, vm: Vm) -> Running {
    linux::boot(Machine::new(test).cpus(2), vm).0
}

/// Boots a guest with a disk that is only read, and checks what it says of it and what is on it.
fn read_an_image(test: &str, kernel: &str, words: &str) {
    let image = image(test, "data.img", 3 * MIB + 512 * 3);
    let vm = Vm::linux_with_devices("linux", kernel)
        .command_line(&format!("console=ttyAMA0 {words}"))
        .disk("data", &image, 0);
    let mut running = boot(test, vm);
    let about = "cat /sys/block/vda/size /sys/block/vda/ro /sys/block/vda/serial; echo; cat /sys/block/vda/queue/logical_block_size";
    let about = linux::run(&mut running.console, about);
    let about: Vec<&str> = about.split_whitespace().collect();
    let sectors = (3 * MIB / 512 + 3).to_string();
    assert_eq!(about[..3], [&sectors, "1", "data"]);
    assert_eq!(sum_in_guest(&mut running, "/dev/vda"), sum(&image));
    let refused = linux::run(
        &mut running.console,
        "dd if=/dev/zero of=/dev/vda count=1 2>&1",
    );
    assert!(refused.contains("not permitted"), "{refused}");
    linux::expect_no_complaints(&mut running.console);
}

#[test]
fn linux_6_12_reads_an_image() {
    read_an_image("disk-6.12", "linux-6.12", "");
}

#[test]
fn linux_6_12_finds_its_disk_by_device_tree() {
    read_an_image("disk-6.12-fdt", "linux-6.12", "acpi=off");
}

#[test]
fn linux_6_1_reads_an_image() {
    read_an_image("disk-6.1", "linux-6.1", "");
}

#[test]
fn linux_7_2_reads_an_image() {
    read_an_image("disk-7.2", "linux-7.2", "");
}

#[test]
fn what_is_written_stays_over_a_reset_and_goes_with_a_stop() {
    const TEST: &str = "disk-cow";
    let image = image(TEST, "root.img", 8 * MIB);
    let vm = Vm::linux_with_devices("linux", "linux-6.12").disk("root", &image, 4);
    let mut running = boot(TEST, vm);
    assert_eq!(sum_in_guest(&mut running, "/dev/vda"), sum(&image));
    // A file system with a file; what the shell prints last is the file's checksum.
    let made = linux::run(
        &mut running.console,
        "mke2fs -q /dev/vda && mkdir /tmp/m && mount -t ext4 /dev/vda /tmp/m && \
         dd if=/dev/urandom of=/tmp/m/file bs=64k count=32 2>/dev/null && sync && sha256sum /tmp/m/file && umount /tmp/m",
    );
    let written = made.lines().find(|line| line.contains("/tmp/m/file"));
    let written = first_word(written.unwrap_or_else(|| panic!("{made}")));
    running.command("vm reset linux");
    linux::wait_for_shell(&mut running.console);
    let read = linux::run(
        &mut running.console,
        "mkdir /tmp/m; mount -t ext4 /dev/vda /tmp/m && sha256sum /tmp/m/file; umount /tmp/m",
    );
    assert!(read.contains(&written), "{written} is not in {read}");
    // 4 of 8 MiB may be written.
    running.control().forget_events();
    let full = linux::run(
        &mut running.console,
        "dd if=/dev/zero of=/dev/vda bs=64k oflag=direct 2>&1",
    );
    assert!(full.contains("I/O error"), "{full}");
    let event = running.control().event("disk-full", "linux", PATIENCE);
    assert_eq!(event["device"], "root");
    running.stop("linux");
    running.command("vm start linux");
    linux::wait_for_shell(&mut running.console);
    assert_eq!(sum_in_guest(&mut running, "/dev/vda"), sum(&image));
}

#[test]
fn vcpus_come_and_go_while_a_disk_is_read_and_written() {
    const TEST: &str = "disk-resize";
    let image = image(TEST, "root.img", 2 * MIB);
    let vm = Vm::linux_with_devices("linux", "linux-6.12").disk("root", &image, 2);
    let mut running = boot(TEST, vm);
    // Each round reads all and writes it back; `rounds` counts those that were as they should be.
    let expected = sum(&image);
    let work = format!(
        "(rounds=0; while [ ! -e /tmp/stop ]; do dd if=/dev/vda of=/tmp/copy bs=1M iflag=direct 2>/dev/null; \
         dd if=/tmp/copy of=/dev/vda bs=128k oflag=direct 2>/dev/null; \
         [ \"$(sha256sum < /tmp/copy)\" = \"{expected}  -\" ] && rounds=$((rounds+1)) || echo wrong >> /tmp/wrong; \
         echo $rounds > /tmp/rounds; done; touch /tmp/ended) & true"
    );
    linux::run(&mut running.console, &work);
    let cycles = if artefacts::full() { 50 } else { 3 };
    for _ in 0..cycles {
        for vcpus in [4, 2] {
            linux::resize_to(&mut running, "linux", vcpus);
        }
    }
    let ended = linux::run(
        &mut running.console,
        "touch /tmp/stop; while [ ! -e /tmp/ended ]; do sleep 1; done; cat /tmp/rounds; ls /tmp/wrong 2>/dev/null",
    );
    let rounds: u32 = first_word(&ended).parse().unwrap_or(0);
    assert!(rounds > 0 && !ended.contains("wrong"), "{ended}");
    assert_eq!(sum_in_guest(&mut running, "/dev/vda"), expected);
    linux::expect_no_complaints(&mut running.console);
}
