//! The transport's registers under right, careless and random drivers.

use proptest::prelude::*;

use crate::devices::virtio_mmio::spec::{feature, interrupt, register as reg, status};
use crate::devices::virtio_mmio::transport::{Kind, Transport, Written};
use types::access::AccessWidth;

/// A device with one feature of its own and two queues.
const KIND: Kind = Kind {
    device_id: 2,
    features: 1 << 5,
    queues: &[8, 256],
};

fn get(transport: &Transport, offset: u64) -> u32 {
    transport
        .read(offset, AccessWidth::Word)
        .expect("no configuration")
}

fn put(transport: &mut Transport, offset: u64, value: u32) -> Written {
    transport.write(offset, AccessWidth::Word, value)
}

/// Writes several registers that mean nothing to the device.
fn put_all(transport: &mut Transport, writes: &[(u64, u32)]) {
    for (offset, value) in writes {
        assert_eq!(
            put(transport, *offset, *value),
            Written::Nothing,
            "{offset:#x}"
        );
    }
}

fn features(transport: &mut Transport) -> u64 {
    put_all(transport, &[(reg::DEVICE_FEATURES_SEL, 0)]);
    let low = get(transport, reg::DEVICE_FEATURES);
    put_all(transport, &[(reg::DEVICE_FEATURES_SEL, 1)]);
    u64::from(low) | u64::from(get(transport, reg::DEVICE_FEATURES)) << 32
}

/// Goes as far as FEATURES_OK with these features; returns whether the device accepts them.
fn negotiate(transport: &mut Transport, accepted: u64) -> bool {
    put_all(
        transport,
        &[
            (reg::STATUS, status::ACKNOWLEDGE),
            (reg::STATUS, status::ACKNOWLEDGE | status::DRIVER),
            (reg::DRIVER_FEATURES_SEL, 0),
            (reg::DRIVER_FEATURES, accepted as u32),
            (reg::DRIVER_FEATURES_SEL, 1),
            (reg::DRIVER_FEATURES, (accepted >> 32) as u32),
            (
                reg::STATUS,
                status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK,
            ),
        ],
    );
    get(transport, reg::STATUS) & status::FEATURES_OK != 0
}

fn start(transport: &mut Transport) {
    assert!(negotiate(transport, feature::TRANSPORT));
    put_all(
        transport,
        &[
            (reg::QUEUE_SEL, 1),
            (reg::QUEUE_NUM, 16),
            (reg::QUEUE_DESC_LOW, 0x4000_0000),
            (reg::QUEUE_DRIVER_LOW, 0x4000_1000),
            (reg::QUEUE_DEVICE_LOW, 0x4000_2000),
            (reg::QUEUE_READY, 1),
        ],
    );
    assert_eq!(get(transport, reg::QUEUE_READY), 1);
    assert_eq!(put(transport, reg::STATUS, 0xf), Written::Started);
}

#[test]
fn the_device_says_what_it_is() {
    let mut transport = Transport::new(KIND);
    let read = [reg::MAGIC_VALUE, reg::VERSION, reg::DEVICE_ID].map(|at| get(&transport, at));
    assert_eq!(read, [0x7472_6976, 2, 2]);
    assert_eq!(
        features(&mut transport),
        1 << 5 | 1 << 28 | 1 << 29 | 1 << 32
    );
    put_all(&mut transport, &[(reg::DEVICE_FEATURES_SEL, 2)]);
    assert_eq!(get(&transport, reg::DEVICE_FEATURES), 0);
    for (queue, max) in [(0, 8), (1, 256), (2, 0), (u32::MAX, 0)] {
        put_all(&mut transport, &[(reg::QUEUE_SEL, queue)]);
        assert_eq!(get(&transport, reg::QUEUE_NUM_MAX), max, "{queue}");
    }
    assert_eq!(
        get(&transport, reg::SHM_LEN_LOW),
        u32::MAX,
        "no shared memory"
    );
}

#[test]
fn features_that_were_not_offered_are_not_accepted() {
    for (accepted, good) in [
        (feature::VERSION_1, true),
        (feature::TRANSPORT | 1 << 5, true),
        (feature::TRANSPORT | 1 << 6, false),
        (feature::EVENT_IDX, false),
        (u64::MAX, false),
    ] {
        let mut transport = Transport::new(KIND);
        assert_eq!(negotiate(&mut transport, accepted), good, "{accepted:#x}");
        let started = put(&mut transport, reg::STATUS, 0xf);
        assert_eq!(
            started == Written::Started,
            good,
            "DRIVER_OK needs FEATURES_OK"
        );
        assert_eq!(transport.is_live(), good);
    }
}

#[test]
fn what_is_agreed_on_is_fixed() {
    let mut transport = Transport::new(KIND);
    assert!(negotiate(&mut transport, feature::VERSION_1));
    put_all(
        &mut transport,
        &[
            (reg::DRIVER_FEATURES_SEL, 0),
            (reg::DRIVER_FEATURES, 1 << 5),
        ],
    );
    assert_eq!(transport.features(), feature::VERSION_1);
}

#[test]
fn a_queue_is_set_up_once_and_given_back_by_zero() {
    let mut transport = Transport::new(KIND);
    start(&mut transport);
    put_all(
        &mut transport,
        &[
            (reg::QUEUE_NUM, 3),
            (reg::QUEUE_DESC_LOW, 7),
            (reg::QUEUE_READY, 1),
        ],
    );
    assert!(
        transport.is_live(),
        "what a queue in use is told is ignored"
    );
    assert!(transport.queue(1).is_some_and(|queue| queue.is_ready()));
    assert!(transport.queue(0).is_some_and(|queue| !queue.is_ready()));
    assert_eq!(
        put(&mut transport, reg::QUEUE_READY, 0),
        Written::Stopped(1)
    );
    assert_eq!(get(&transport, reg::QUEUE_READY), 0);
}

#[test]
fn notifications_count_for_queues_of_a_live_device() {
    let mut transport = Transport::new(KIND);
    assert_eq!(
        put(&mut transport, reg::QUEUE_NOTIFY, 1),
        Written::Nothing,
        "before DRIVER_OK"
    );
    start(&mut transport);
    assert_eq!(
        put(&mut transport, reg::QUEUE_NOTIFY, 1),
        Written::Notified(1)
    );
    for queue in [2, 0x1_0001, u32::MAX] {
        assert_eq!(
            put(&mut transport, reg::QUEUE_NOTIFY, queue),
            Written::Nothing,
            "{queue:#x}"
        );
    }
}

#[test]
fn a_device_that_needs_a_reset_says_so_and_does_nothing_else() {
    let mut transport = Transport::new(KIND);
    start(&mut transport);
    put_all(
        &mut transport,
        &[
            (reg::QUEUE_SEL, 0),
            (reg::QUEUE_NUM, 5),
            (reg::QUEUE_READY, 1),
        ],
    );
    assert_eq!(get(&transport, reg::STATUS), 0xf | status::NEEDS_RESET);
    assert_eq!(
        get(&transport, reg::INTERRUPT_STATUS),
        interrupt::CONFIG_CHANGE
    );
    assert!(transport.line() && !transport.is_live() && transport.queue(1).is_none());
    assert_eq!(put(&mut transport, reg::QUEUE_NOTIFY, 1), Written::Nothing);
    put_all(&mut transport, &[(reg::STATUS, 0xf)]);
    assert!(!transport.is_live(), "a driver cannot take the bit back");
    assert_eq!(put(&mut transport, reg::STATUS, 0), Written::Reset);
    assert_eq!((get(&transport, reg::STATUS), transport.line()), (0, false));
    start(&mut transport);
}

#[test]
fn interrupts_stay_until_they_are_acknowledged() {
    let mut transport = Transport::new(KIND);
    transport.config_changed();
    assert!(!transport.line(), "there is no driver yet");
    start(&mut transport);
    let generation = get(&transport, reg::CONFIG_GENERATION);
    transport.interrupt_used();
    transport.config_changed();
    assert_ne!(get(&transport, reg::CONFIG_GENERATION), generation);
    assert_eq!(get(&transport, reg::INTERRUPT_STATUS), 3);
    put_all(&mut transport, &[(reg::INTERRUPT_ACK, 1)]);
    assert!(transport.line());
    put_all(&mut transport, &[(reg::INTERRUPT_ACK, 0xffff_fffe)]);
    assert!(!transport.line());
}

#[test]
fn only_words_are_registers_and_configuration_is_the_devices() {
    let mut transport = Transport::new(KIND);
    for width in [AccessWidth::Byte, AccessWidth::Half, AccessWidth::Double] {
        assert_eq!(
            transport.read(reg::MAGIC_VALUE, width),
            Some(0),
            "{width:?}"
        );
        assert_eq!(transport.write(reg::STATUS, width, 1), Written::Nothing);
    }
    assert_eq!(get(&transport, reg::STATUS), 0);
    assert_eq!(transport.read(0x104, AccessWidth::Byte), None);
    assert_eq!(
        transport.write(0x104, AccessWidth::Byte, 1),
        Written::Config(4)
    );
}

proptest! {
    /// Whatever is written where: nothing fails, and a reset brings everything back.
    #[test]
    fn any_writes_end_with_a_reset(writes in proptest::collection::vec((0_u64..0x100, any::<u32>()), 0..200)) {
        let mut transport = Transport::new(KIND);
        for (offset, value) in writes {
            let offset = offset & !3;
            let _written = put(&mut transport, offset, value);
            let _value = get(&transport, offset);
            prop_assert!(!transport.is_live() || get(&transport, reg::STATUS) & status::FEATURES_OK != 0);
        }
        let _reset = put(&mut transport, reg::STATUS, 0);
        start(&mut transport);
    }
}
