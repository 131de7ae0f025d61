//! Virtio disks as a right driver and a hostile one see them. Slot 0 has a disk that is only read, slot 1 one that may be written.
//!
//! The byte at offset n of both is n / 512 * 7 + n % 251, modulo 256.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, Ordering};
use guest_rt::suite::{self, Outcome, Reason, Stop};
use guest_rt::virtio::{
    CONFIG, DEVICE_FEATURES, DEVICE_FEATURES_SEL, DEVICE_ID, DRIVER_OK, Device, EVENT_IDX, FLUSH,
    INDIRECT, INTERRUPT_ACK, INTERRUPT_STATUS, MAGIC_VALUE, NEXT, QUEUE_ADDRESSES, QUEUE_NOTIFY,
    QUEUE_NUM, QUEUE_NUM_MAX, QUEUE_READY, QUEUE_SEL, READ, SIZE, STATUS, TABLE, VERSION,
    VERSION_1, WRITE, WRITE_OUT,
};
use guest_rt::{check, check_eq, cpu, gic, guest, ignore, machine, psci, tests};

guest!(main);

const FEATURES: u64 = VERSION_1 | EVENT_IDX | INDIRECT;

fn main() {
    gic::init_distributor();
    gic::init_cpu();
    suite::run(
        "virtio",
        tests![
            disks_say_what_they_are,
            reads_return_the_image,
            writes_are_read_back,
            a_read_only_disk_refuses_writes,
            a_long_request_is_done_when_the_store_is,
            many_requests_are_answered_in_order,
            the_interrupt_comes_when_it_is_wanted,
            wrong_chains_break_the_device_alone,
            wrong_queues_break_the_device_alone,
            what_is_out_of_turn_is_ignored,
            a_flood_of_notifications_does_nothing,
            descriptors_that_change_while_they_are_read,
        ],
    );
}

fn device(slot: usize) -> Result<Device, Stop> {
    Device::at(slot).ok_or_else(|| Stop::Failed(Reason::new(format_args!("no device in {slot}"))))
}

fn started(slot: usize) -> Result<Device, Stop> {
    let device = device(slot)?;
    check!(
        device.start(FEATURES),
        "the device does not start: {:#x}",
        device.get(STATUS)
    );
    Ok(device)
}

const fn image(offset: usize) -> u8 {
    (offset / 512 * 7 + offset % 251) as u8
}

fn disks_say_what_they_are() -> Outcome {
    for slot in 0..2 {
        let device = device(slot)?;
        check_eq!(device.get(MAGIC_VALUE), 0x7472_6976, "MagicValue");
        check_eq!(device.get(VERSION), 2, "Version");
        check_eq!(device.get(DEVICE_ID), 2, "DeviceID of a block device");
        device.put(DEVICE_FEATURES_SEL, 1);
        check_eq!(device.get(DEVICE_FEATURES), 1, "VIRTIO_F_VERSION_1");
        device.put(DEVICE_FEATURES_SEL, 0);
        let features = device.get(DEVICE_FEATURES);
        check_eq!(
            features & 1 << 5 != 0,
            slot == 0,
            "VIRTIO_BLK_F_RO of {slot}"
        );
        check_eq!(
            features >> 28 & 3,
            3,
            "indirect descriptors and event index"
        );
        check!(device.get(QUEUE_NUM_MAX) >= u32::from(SIZE), "QueueNumMax");
        check!(device.get(CONFIG) >= 128, "a capacity in sectors");
    }
    Ok(())
}

fn expect_image(device: Device, sector: u64, bytes: usize) -> Outcome {
    check_eq!(
        device.request(READ, sector, bytes as u32),
        Some(0),
        "status of a read"
    );
    for n in 0..bytes {
        let expected = image(sector as usize * 512 + n);
        check_eq!(
            device.data_byte(n),
            expected,
            "byte {n} from sector {sector}"
        );
    }
    Ok(())
}

fn reads_return_the_image() -> Outcome {
    let device = started(0)?;
    for (sector, bytes) in [(0, 512), (1, 4096), (7, 16384), (120, 4096)] {
        expect_image(device, sector, bytes)?;
    }
    let (head, length) = device.used_element(device.used().wrapping_sub(1));
    check_eq!((head, length), (0, 4097), "the last used element");
    check_eq!(device.request(READ, u64::MAX, 512), Some(1), "far outside");
    check_eq!(device.request(READ, 0, 100), Some(1), "no whole sectors");
    check_eq!(device.request(99, 0, 512), Some(2), "what there is not");
    check_eq!(device.request(FLUSH, 0, 0), Some(0), "a flush");
    Ok(())
}

fn writes_are_read_back() -> Outcome {
    let device = started(1)?;
    for n in 0..1024 {
        device.set_data_byte(n, !image(n));
    }
    check_eq!(
        device.request(WRITE_OUT, 3, 1024),
        Some(0),
        "status of a write"
    );
    check_eq!(device.request(READ, 2, 4096), Some(0), "status of a read");
    for n in 0..4096 {
        let at = n + 1024;
        let is_written = (1536..2560).contains(&at);
        let expected = if is_written {
            !image(at - 1536)
        } else {
            image(at)
        };
        check_eq!(device.data_byte(n), expected, "byte {at}");
    }
    Ok(())
}

fn a_read_only_disk_refuses_writes() -> Outcome {
    let device = started(0)?;
    check_eq!(device.request(WRITE_OUT, 0, 512), Some(1), "an I/O error");
    expect_image(device, 0, 512)
}

fn a_long_request_is_done_when_the_store_is() -> Outcome {
    // More than EL2 copies in one go.
    let device = started(0)?;
    expect_image(device, 0, 65536)
}

fn many_requests_are_answered_in_order() -> Outcome {
    let device = started(0)?;
    for round in 0..1000_u16 {
        // One in the ring, one in a table of its own: header and status are shared, as both read.
        device.set_header(READ, u64::from(round % 100));
        device.describe(0, device.header(), 16, NEXT, 1);
        device.describe(1, device.data(), 512, WRITE | NEXT, 2);
        device.describe(2, device.status_byte(), 1, WRITE, 0);
        device.describe_inside(0, device.header(), 16, NEXT, 1);
        device.describe_inside(1, device.data() + 4096, 512, WRITE | NEXT, 2);
        device.describe_inside(2, device.status_byte(), 1, WRITE, 0);
        device.describe(3, device.table(), 48, TABLE, 0);
        device.offer(3);
        device.offer(0);
        device.notify();
        check_eq!(device.used(), 2 * (round + 1), "used.idx");
        let heads = [2, 1].map(|back| device.used_element(device.used().wrapping_sub(back)).0);
        check_eq!(heads, [3, 0], "heads");
        for at in [0, 4096] {
            let expected = image(usize::from(round % 100) * 512 + 9);
            check_eq!(device.data_byte(at + 9), expected, "round {round}");
        }
    }
    Ok(())
}

fn the_interrupt_comes_when_it_is_wanted() -> Outcome {
    let device = started(0)?;
    device.set_used_event(0);
    check_eq!(device.request(READ, 0, 512), Some(0), "status");
    check_eq!(device.get(INTERRUPT_STATUS), 1, "used buffers");
    check!(device.is_pending(), "the SPI is pending");
    device.put(INTERRUPT_ACK, 1);
    check_eq!(device.get(INTERRUPT_STATUS), 0, "acknowledged");
    check!(!device.is_pending(), "its line is low");
    // The driver wants none before the fourth.
    device.set_used_event(3);
    for (n, wanted) in [(2, 0), (3, 0), (4, 1)] {
        check_eq!(device.request(READ, 0, 512), Some(0), "status");
        check_eq!(device.get(INTERRUPT_STATUS), wanted, "after request {n}");
    }
    device.put(INTERRUPT_ACK, 1);
    Ok(())
}

/// Lets the device find what was prepared; it must ask for a reset, answer nothing, and work again after one. The other one works on.
fn expect_broken(device: Device, other: Device, why: &str) -> Outcome {
    device.notify();
    check!(device.is_broken(), "{why}: the device goes on");
    check_eq!(
        device.get(INTERRUPT_STATUS) & 2,
        2,
        "{why}: no configuration interrupt"
    );
    device.notify();
    check_eq!(device.used(), 0, "{why}: something was answered");
    check_eq!(
        other.request(READ, 5, 512),
        Some(0),
        "{why}: the other device"
    );
    check!(device.start(FEATURES), "{why}: it does not start again");
    expect_image(device, 0, 512)?;
    check!(device.start(FEATURES), "{why}: it does not start again");
    Ok(())
}

fn wrong_chains_break_the_device_alone() -> Outcome {
    let (device, other) = (started(0)?, started(1)?);
    let ram = machine().ram().map_or(0, |ram| ram.base);
    let data = device.data();
    // What descriptor 0 is, and descriptor 1 after it.
    type Descriptor = (u64, u32, u16, u16);
    let cases: [(&str, Descriptor, Descriptor); 12] = [
        ("a loop of one", (data, 16, NEXT, 0), (0, 0, 0, 0)),
        ("a loop of two", (data, 16, NEXT, 1), (data, 16, NEXT, 0)),
        ("an index outside", (data, 16, NEXT, SIZE), (0, 0, 0, 0)),
        (
            "written before read",
            (data, 16, WRITE | NEXT, 1),
            (data, 16, 0, 0),
        ),
        ("below RAM", (ram - 16, 16, NEXT, 1), (data, 1, WRITE, 0)),
        (
            "around the end",
            (u64::MAX - 7, 16, NEXT, 1),
            (data, 1, WRITE, 0),
        ),
        ("a device", (0x0900_0000, 16, NEXT, 1), (data, 1, WRITE, 0)),
        ("no status", (data, 16, 0, 0), (0, 0, 0, 0)),
        ("half a header", (data, 8, NEXT, 1), (data, 1, WRITE, 0)),
        ("an empty table", (data, 0, TABLE, 0), (0, 0, 0, 0)),
        (
            "a table with a successor",
            (data, 16, TABLE | NEXT, 1),
            (data, 1, WRITE, 0),
        ),
        ("a large table", (data, 16 * 4096, TABLE, 0), (0, 0, 0, 0)),
    ];
    for (why, first, second) in cases {
        device.describe(0, first.0, first.1, first.2, first.3);
        device.describe(1, second.0, second.1, second.2, second.3);
        device.offer(0);
        expect_broken(device, other, why)?;
    }
    device.describe_inside(0, device.table(), 16, TABLE, 0);
    device.describe(0, device.table(), 16, TABLE, 0);
    device.offer(0);
    expect_broken(device, other, "a table in a table")?;
    device.offer(0xffff);
    expect_broken(device, other, "a head outside")?;
    device.set_available(SIZE + 1);
    expect_broken(device, other, "a jump of the index")?;
    device.set_available(0x8000);
    expect_broken(device, other, "a far jump of the index")
}

fn wrong_queues_break_the_device_alone() -> Outcome {
    let (device, other) = (started(0)?, started(1)?);
    for (why, register, value) in [
        ("no entries", QUEUE_NUM, 0),
        ("no power of two", QUEUE_NUM, 7),
        ("too many entries", QUEUE_NUM, 0x8000),
        ("an odd table", QUEUE_ADDRESSES[0], 0x4000_0008),
        ("an odd ring", QUEUE_ADDRESSES[1], 0x4000_0001),
        ("another odd ring", QUEUE_ADDRESSES[2], 0x4000_0002),
    ] {
        device.put(QUEUE_READY, 0);
        device.put(QUEUE_NUM, u32::from(SIZE));
        device.put(register, value);
        device.put(QUEUE_READY, 1);
        expect_broken(device, other, why)?;
    }
    for (why, high) in [("far above RAM", 0x100), ("at the end of all", u32::MAX)] {
        for ring in QUEUE_ADDRESSES {
            device.put(QUEUE_READY, 0);
            device.put(QUEUE_NUM, u32::from(SIZE));
            for (register, offset) in QUEUE_ADDRESSES.into_iter().zip([0, 0x800, 0xc00]) {
                let address = device.table() - 0x1000 + offset;
                device.put(register, address as u32);
                device.put(register + 4, (address >> 32) as u32);
            }
            device.put(ring + 4, high);
            device.put(QUEUE_READY, 1);
            device.set_header(READ, 0);
            device.describe(0, device.header(), 16, NEXT, 1);
            device.describe(1, device.status_byte(), 1, WRITE, 0);
            device.offer(0);
            expect_broken(device, other, why)?;
        }
    }
    Ok(())
}

fn what_is_out_of_turn_is_ignored() -> Outcome {
    let device = device(0)?;
    check!(
        !device.negotiate(u64::MAX),
        "features that were not offered"
    );
    device.put(STATUS, 0xf);
    check_eq!(
        device.get(STATUS) & DRIVER_OK,
        0,
        "DRIVER_OK without features"
    );
    device.prepare(READ, 0, 512);
    device.notify();
    check_eq!(device.get(INTERRUPT_STATUS), 0, "no work before DRIVER_OK");
    let device = started(0)?;
    for (register, value) in [(QUEUE_NUM, 3), (QUEUE_ADDRESSES[0], 8), (QUEUE_READY, 1)] {
        device.put(register, value);
    }
    for queue in [1, 2, 0x1_0000, u32::MAX] {
        device.put(QUEUE_SEL, queue);
        check_eq!(device.get(QUEUE_NUM_MAX), 0, "queue {queue:#x}");
        device.put(QUEUE_READY, 1);
        device.put(QUEUE_NOTIFY, queue);
    }
    // Writes to the configuration, and to what there is not.
    for offset in (0x0c0..0x200).step_by(4) {
        device.put(offset, u32::MAX);
    }
    check!(!device.is_broken(), "the device minds");
    expect_image(device, 3, 512)
}

fn a_flood_of_notifications_does_nothing() -> Outcome {
    let device = started(0)?;
    for _ in 0..20_000 {
        device.notify();
    }
    check_eq!(device.used(), 0, "used.idx");
    expect_image(device, 3, 512)
}

static STOP: AtomicBool = AtomicBool::new(false);

/// Turns the descriptors of slot 0 into others, again and again, until it is told to stop.
fn exchange(_: u64) {
    let Some(device) = Device::at(0) else { return };
    while !STOP.load(Ordering::Acquire) {
        for (at, bytes, flags) in [
            (device.data(), 16, NEXT),
            (u64::MAX - 3, u32::MAX, NEXT | WRITE),
            (device.table(), 32, TABLE),
            (device.header(), 16, NEXT),
        ] {
            device.describe(0, at, bytes, flags, 1);
            device.describe_inside(0, at, bytes, flags, 0);
            device.describe(1, at, bytes, flags | WRITE, 0);
        }
    }
}

fn descriptors_that_change_while_they_are_read() -> Outcome {
    if machine().cpus().len() < 2 {
        ignore!("it takes two CPUs");
    }
    STOP.store(false, Ordering::Release);
    check_eq!(cpu::start(1, exchange, 0), psci::SUCCESS, "the other CPU");
    let mut device = started(0)?;
    for _ in 0..2000 {
        device.offer(0);
        device.notify();
        if device.is_broken() {
            device = started(0)?;
        }
    }
    STOP.store(true, Ordering::Release);
    check!(cpu::wait_off(1), "the other CPU does not stop");
    let device = started(0)?;
    expect_image(device, 0, 4096)
}
