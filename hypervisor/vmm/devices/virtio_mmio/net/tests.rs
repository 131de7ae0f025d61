//! Ports of a network under drivers: frames arrive whole at the port they are for, and at no other; what has no room or no right is dropped.

use proptest::prelude::*;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use super::spec::feature as net_feature;
use super::{Handed, Mac, Net, NetParts, Network, Port};
use crate::devices::virtio_mmio::queue::{Broken, Queue};
use crate::devices::virtio_mmio::spec::feature;
use crate::devices::virtio_mmio::tests::driver::{BASE, Driver, Ram};
use crate::devices::virtio_mmio::work::{Budget, Served};
use types::ids::VmId;

/// Where frames are sent from, and where buffers for received ones are.
const OUT: u64 = BASE + 0x2_0000;
const IN: u64 = BASE + 0x3_0000;
const BUFFER: u32 = 0x800;

/// A port with its guest: two queues, each in a memory of its own.
struct Station {
    net: Net,
    sent: (Ram, Driver, Queue),
    received: (Ram, Driver, Queue),
    /// Where the buffers are that the device has.
    buffers: BTreeMap<u32, u64>,
}

/// Makes an empty queue with its driver.
fn queue() -> (Ram, Driver, Queue) {
    let driver = Driver::new(8);
    let queue = driver.queue(feature::TRANSPORT);
    (Ram::new(), driver, queue)
}

const fn mac(last: u8) -> Mac {
    [2, 0, 0, 0, 0, last]
}

/// Makes stations 0, 1, … of one network; the last may spoof.
fn stations(count: u8, mtu: u16, rate: u64, features: u64) -> Vec<Station> {
    let port = |index: u8| Port {
        vm: VmId::new(u16::from(index)),
        slot: 0,
        mac: mac(index),
        may_spoof: index + 1 == count,
    };
    let network = &*Box::leak(Box::new(Network::new((0..count).map(port).collect())));
    let station = |port: u8| {
        let mut net = Net::new(NetParts {
            network,
            port: u16::from(port),
            mtu,
            rate,
        });
        net.begin(features);
        Station {
            net,
            sent: queue(),
            received: queue(),
            buffers: BTreeMap::new(),
        }
    };
    (0..count).map(station).collect()
}

/// Makes a frame.
fn frame(to: Mac, from: Mac, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &[0x08, 0x00], payload].concat()
}

impl Station {
    /// Lets the guest have buffers of these sizes for what it will receive.
    fn post(&mut self, sizes: &[u32]) {
        let (ram, driver, _) = &mut self.received;
        for (n, size) in sizes.iter().enumerate() {
            let at = IN + u64::from(BUFFER) * n as u64;
            let head = driver.add(ram, &[(at, *size, true)], false).expect("room");
            self.buffers.insert(u32::from(head), at);
        }
    }

    /// Takes all buffers back.
    fn refresh(&mut self) {
        self.received = queue();
    }

    /// Returns the frames that the guest has received.
    fn take(&mut self) -> Vec<Vec<u8>> {
        let (ram, driver, _) = &mut self.received;
        let mut frames = Vec::new();
        let mut used = driver.take_used(ram).into_iter();
        while let Some((head, bytes)) = used.next() {
            let mut frame = ram.get(self.buffers[&head], bytes as usize);
            for _ in 1..frame[10] {
                let (head, bytes) = used.next().expect("as many buffers as the header says");
                frame.extend(ram.get(self.buffers[&head], bytes as usize));
            }
            assert!(frame[..10].iter().all(|byte| *byte == 0) && frame[11] == 0);
            frames.push(frame.split_off(12));
        }
        frames
    }
}

/// Has a station send what it has been given to send; `busy` says whether a port is busy.
fn serve(
    stations: &mut [Station],
    from: usize,
    now_ns: u64,
    mut busy: impl FnMut(usize) -> bool,
) -> Result<Served, Broken> {
    let (before, rest) = stations.split_at_mut(from);
    let (sender, after) = rest.split_first_mut().expect("a station");
    let (ram, _, queue) = &mut sender.sent;
    let mut budget = Budget::of_a_trap();
    sender
        .net
        .transmit(queue, ram, &mut budget, now_ns, |port, frame| {
            let index = port.vm.index();
            assert_ne!(index, from, "no frame comes back");
            if busy(index) {
                return Handed::Busy;
            }
            let there = match index < from {
                true => &mut before[index],
                false => &mut after[index - from - 1],
            };
            let (ram, _, queue) = &mut there.received;
            let _ = there
                .net
                .receive(queue, ram, frame)
                .expect("a right driver");
            Handed::Over
        })
}

/// Sends frames, in as many traps as it takes; returns how many those were.
fn send(stations: &mut [Station], from: usize, frames: &[Vec<u8>]) -> usize {
    let (ram, driver, _) = &mut stations[from].sent;
    for (n, frame) in frames.iter().enumerate() {
        let at = OUT + 0x2400 * n as u64;
        ram.put(at, &[0; 12]);
        ram.put(at + 12, frame);
        let buffers = [(at, 12, false), (at + 12, frame.len() as u32, false)];
        driver.add(ram, &buffers, true).expect("room");
    }
    let mut traps = 1;
    while serve(stations, from, 0, |_| false)
        .expect("a right driver")
        .is_more
    {
        traps += 1;
    }
    let (ram, driver, _) = &mut stations[from].sent;
    assert_eq!(
        driver.take_used(ram).len(),
        frames.len(),
        "all buffers come back"
    );
    traps
}

#[test]
fn a_port_says_what_it_is() {
    let stations = stations(2, 9000, 0, 0);
    assert_eq!(Net::kind().queues.len(), 2);
    assert_eq!(
        stations[1].net.config(),
        [2, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0x28, 0x23]
    );
}

#[test]
fn a_frame_arrives_whole_at_its_station_and_at_no_other() {
    for features in [0, net_feature::MRG_RXBUF] {
        let mut stations = stations(3, 1500, 0, features);
        stations
            .iter_mut()
            .for_each(|station| station.post(&[BUFFER; 4]));
        let payload: Vec<u8> = (0..1500).map(|n| (n * 7) as u8).collect();
        let frames = [frame(mac(1), mac(0), &payload), frame(mac(1), mac(0), b"x")];
        send(&mut stations, 0, &frames);
        assert_eq!(stations[1].take(), frames);
        assert!(stations[2].take().is_empty());
        let (sender, receiver) = (stations[0].net.report(), stations[1].net.report());
        assert_eq!((sender.sent, sender.sent_bytes), (2, 1529));
        assert_eq!((receiver.received, receiver.received_bytes), (2, 1529));
    }
}

#[test]
fn group_frames_and_unknown_addresses_go_to_all_others() {
    let mut stations = stations(4, 1500, 0, 0);
    stations
        .iter_mut()
        .for_each(|station| station.post(&[BUFFER; 4]));
    let frames = [
        frame([0xff; 6], mac(1), b"all"),
        frame(mac(9), mac(1), b"who"),
    ];
    send(&mut stations, 1, &frames);
    for index in [0, 2, 3] {
        assert_eq!(stations[index].take(), frames, "{index}");
    }
    assert!(stations[1].take().is_empty());
}

#[test]
fn frames_that_are_not_let_through_are_counted() {
    let mut stations = stations(3, 100, 0, 0);
    stations[1].post(&[BUFFER; 4]);
    let long = frame(mac(1), mac(0), &[0; 105]);
    send(
        &mut stations,
        0,
        &[frame(mac(1), mac(2), b"spoofed"), long, vec![2; 13]],
    );
    assert_eq!(
        (
            stations[0].net.report().refused,
            stations[0].net.report().sent
        ),
        (3, 0)
    );
    send(&mut stations, 2, &[frame(mac(1), mac(7), b"it may")]);
    assert_eq!(stations[1].take().len(), 1);
}

#[test]
fn a_large_frame_takes_several_buffers_if_both_sides_agreed() {
    let payload: Vec<u8> = (0..4000).map(|n| (n / 3) as u8).collect();
    let frames = [frame(mac(1), mac(0), &payload)];
    let mut mergeable = stations(2, 9000, 0, net_feature::MRG_RXBUF);
    mergeable[1].post(&[1500, 1500, 1500, 1500]);
    send(&mut mergeable, 0, &frames);
    assert_eq!(mergeable[1].take(), frames);
    let mut single = stations(2, 9000, 0, 0);
    single[1].post(&[1500, 1500, 1500, 1500]);
    send(&mut single, 0, &frames);
    assert_eq!(
        (single[1].take().len(), single[1].net.report().dropped),
        (0, 1)
    );
    send(&mut single, 0, &[frame(mac(1), mac(0), b"small")]);
    assert_eq!(single[1].take().len(), 1, "no buffer is lost by it");
}

#[test]
fn a_station_without_buffers_loses_frames_and_holds_nobody_up() {
    let mut stations = stations(2, 9000, 0, net_feature::MRG_RXBUF);
    send(&mut stations, 0, &[frame(mac(1), mac(0), b"lost")]);
    stations[1].post(&[1500]);
    send(&mut stations, 0, &[frame(mac(1), mac(0), &[5; 4000])]);
    assert_eq!(
        stations[1].net.report().dropped,
        2,
        "two, as one buffer is not enough"
    );
    send(&mut stations, 0, &[frame(mac(1), mac(0), b"fits")]);
    assert_eq!(stations[1].take().len(), 1);
}

#[test]
fn a_busy_port_is_tried_again_and_given_up_in_the_end() {
    let mut stations = stations(3, 1500, 0, 0);
    stations
        .iter_mut()
        .for_each(|station| station.post(&[BUFFER; 4]));
    let (ram, driver, _) = &mut stations[0].sent;
    ram.put(OUT, &[0; 12]);
    ram.put(OUT + 12, &frame([0xff; 6], mac(0), b"all"));
    driver.add(ram, &[(OUT, 29, false)], false).expect("room");
    for _ in 0..63 {
        let served = serve(&mut stations, 0, 0, |port| port == 1).expect("a right driver");
        assert!(served.is_more, "the guest repeats its instruction");
    }
    let served = serve(&mut stations, 0, 0, |port| port == 1).expect("a right driver");
    assert!(!served.is_more);
    assert_eq!((stations[1].take().len(), stations[2].take().len()), (0, 1));
}

#[test]
fn a_rate_is_kept() {
    let mut stations = stations(2, 1500, 1_000_000, 0);
    let (ram, ..) = &stations[0].sent;
    ram.put(OUT + 12, &frame(mac(1), mac(0), &[0; 1486]));
    let (mut now_ns, mut frames) = (0, 0);
    while now_ns < 1_000_000_000 {
        let (ram, driver, _) = &mut stations[0].sent;
        driver.add(ram, &[(OUT, 1512, false)], false).expect("room");
        let _ = serve(&mut stations, 0, now_ns, |_| false).expect("a right driver");
        let (ram, driver, _) = &mut stations[0].sent;
        driver.take_used(ram);
        (now_ns, frames) = (now_ns + 100_000, frames + 1);
    }
    let report = stations[0].net.report();
    assert!(
        (900_000..1_100_000).contains(&report.sent_bytes),
        "{report:?}"
    );
    assert_eq!(report.sent + report.refused, frames);
}

#[test]
fn a_trap_hands_over_only_so_much() {
    let mut many = stations(100, 9000, 0, net_feature::MRG_RXBUF);
    many.iter_mut()
        .for_each(|station| station.post(&[BUFFER; 8]));
    let traps = send(&mut many, 0, &[frame([0xff; 6], mac(0), &[1; 9000])]);
    assert!(traps >= 50, "{traps} for 99 copies of 9,000 bytes");
    assert!(
        many.iter_mut()
            .skip(1)
            .all(|station| station.take().len() == 1)
    );
}

#[test]
fn a_buffer_without_room_for_the_header_breaks_its_own_device_alone() {
    let mut stations = stations(2, 1500, 0, 0);
    stations[1].post(&[11]);
    let frame = [&[0; 12][..], &frame(mac(1), mac(0), b"x")].concat();
    let station = &mut stations[1];
    let (ram, _, queue) = &mut station.received;
    let received = station.net.receive(queue, ram, &frame);
    assert_eq!(received, Err(Broken::Request));
}

proptest! {
    /// Whatever is sent, to which station, in whatever pieces buffers are: each station gets what was for it, whole and in order.
    #[test]
    fn frames_are_neither_mixed_nor_changed(
        frames in proptest::collection::vec((0_u8..4, 0_u8..6, 0_usize..3000), 1..20),
        sizes in proptest::collection::vec(64_u32..2048, 8),
        mergeable: bool,
    ) {
        let features = if mergeable { net_feature::MRG_RXBUF } else { 0 };
        let mut stations = stations(4, 3000, 0, features);
        let mut expected: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
        for (n, (from, to, length)) in frames.into_iter().enumerate() {
            let destination = if to == 5 { [0xff; 6] } else { mac(to) };
            let payload: Vec<u8> = (0..length).map(|byte| (byte * 31 + n) as u8).collect();
            let sent = frame(destination, mac(from), &payload);
            for station in &mut stations {
                station.post(&sizes);
            }
            send(&mut stations, usize::from(from), core::slice::from_ref(&sent));
            for (index, station) in stations.iter_mut().enumerate() {
                let is_for_it = index != usize::from(from) && (to > 3 || index == usize::from(to));
                let fits = match mergeable {
                    true => sizes.iter().sum::<u32>() as usize >= sent.len() + 12,
                    false => sizes[0] as usize >= sent.len() + 12,
                };
                if is_for_it && fits {
                    expected.entry(index).or_default().push(sent.clone());
                }
                let got = station.take();
                prop_assert_eq!(got, expected.remove(&index).unwrap_or_default());
                station.refresh();
            }
        }
    }
}
